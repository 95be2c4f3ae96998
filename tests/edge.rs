//! The real binary, driven through its doors as senders do: what it acknowledges must be there, once, after a kill, and in no log.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A running edge in a folder of its own, on free ports.
struct Edge {
    child: Child,
    http: SocketAddr,
    keyed: SocketAddr,
    mllp: SocketAddr,
}

impl Edge {
    fn start(dir: &Path) -> Self {
        let config = dir.join("hilum.toml");
        std::fs::write(&config, CONFIG.replace("DATA", &dir.join("data").display().to_string())).unwrap();
        let ready = dir.join("ready.json");
        let _ = std::fs::remove_file(&ready);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_hilum"))
            .args(["--config", config.to_str().unwrap(), "serve", "--ready-file", ready.to_str().unwrap()])
            .env("RUST_LOG", "trace")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while !ready.exists() {
            assert!(
                begun.elapsed() < START_TIMEOUT,
                "not ready: {}",
                std::fs::read_to_string(dir.join("log")).unwrap()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        let card: Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
        let address = |n: usize| card["listeners"][n]["address"].as_str().unwrap().parse().unwrap();
        Self { child, http: address(0), keyed: address(1), mllp: address(2) }
    }

    /// kill -9
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn get(&self, path: &str) -> Value {
        serde_json::from_str(&http(self.http, "GET", path, &[], "").1).unwrap()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const CONFIG: &str = r#"
[node]
data = "DATA"
[[listen]]
protocol = "http"
address = "127.0.0.1:0"
surfaces = ["fhir", "hl7", "mpps", "metrics"]
auth = "none"
[[listen]]
protocol = "http"
address = "127.0.0.1:0"
surfaces = ["fhir", "hl7"]
[[listen]]
protocol = "mllp"
address = "127.0.0.1:0"
[[site]]
id = "default"
[[client]]
site = "default"
protocols = ["mllp"]
addresses = ["127.0.0.0/8"]
[limits.store]
free_bytes_min = 0
"#;

fn http(address: SocketAddr, method: &str, path: &str, headers: &[&str], body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let headers: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

const FHIR: &str = "Content-Type: application/fhir+json";

fn message(control: &str, mrn: &str, family: &str) -> String {
    format!("MSH|^~\\&|RIS|NORTH|||20240101||ADT^A08|{control}|P|2.5\rPID|1||{mrn}||{family}^Given\r")
}

/// Sends a frame and reads the answer; `None` when the connection ends.
fn mllp(stream: &mut TcpStream, message: &str) -> Option<String> {
    stream.write_all(format!("\x0B{message}\x1C\r").as_bytes()).ok()?;
    let mut answer = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).ok()? == 1 {
        answer.push(byte[0]);
        if answer.ends_with(b"\x1C\r") {
            return Some(String::from_utf8_lossy(&answer).into_owned());
        }
    }
    None
}

#[test]
fn one_message_of_each_protocol_becomes_durable_fhir() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let mut stream = TcpStream::connect(edge.mllp).unwrap();
    let answer = mllp(&mut stream, &message("C1", "M1", "Framed")).unwrap();
    assert!(answer.contains("MSA|AA|C1"), "{answer}");
    assert_eq!(
        mllp(&mut stream, &message("C1", "M1", "Framed")).unwrap(),
        answer,
        "a repeat replays the stored answer"
    );
    let (status, answer) =
        http(edge.http, "POST", "/v2/ingest", &["Content-Type: text/plain"], &message("C2", "M2", "Posted"));
    assert!(status == 200 && answer.contains("MSA|AA|C2"), "{status} {answer}");
    let endpoint = r#"{"resourceType":"Endpoint","status":"active","connectionType":{"code":"hl7v2-mllp"},"payloadType":[{"text":"x"}],"address":"mllp://h:1"}"#;
    let (status, body) = http(edge.http, "POST", "/baseR4/Endpoint", &[FHIR], endpoint);
    assert_eq!(status, 201, "{body}");
    assert_eq!(edge.get("/fhir/Endpoint?status=active")["total"], 1);
    let step = |status: &str| {
        let body =
            format!(r#"{{"sop_instance_uid":"1.2.3.4.5","study_uid":"1.2.3.4.5.6","status":"{status}"}}"#);
        http(edge.http, "POST", "/ingest", &["Content-Type: application/json"], &body)
    };
    let (begun, completed, back) = (step("IN PROGRESS"), step("COMPLETED"), step("IN PROGRESS"));
    assert!(begun.0 == 200 && begun.1 == completed.1, "one session: {begun:?} {completed:?}");
    assert!(back.0 == 409 && back.1.contains(r#""success":false"#), "{back:?}");
    edge.kill();
    let edge = Edge::start(dir.path());
    assert_eq!(edge.get("/fhir/Procedure?status=completed")["total"], 1);
    assert_eq!(edge.get("/fhir/ImagingStudy")["total"], 1);
    for name in ["framed", "posted"] {
        assert_eq!(edge.get(&format!("/fhir/Patient?name={name}"))["total"], 1, "{name} after kill -9");
    }
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_nine_and_nothing_is_there_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger: Vec<String> = Vec::new();
    for round in 0..4_u64 {
        let edge = Edge::start(dir.path());
        let senders: Vec<_> = (0..6)
            .map(|sender| {
                let (tcp, web) = (edge.mllp, edge.http);
                std::thread::spawn(move || {
                    let mut acknowledged = Vec::new();
                    let mut stream = TcpStream::connect(tcp).unwrap();
                    for n in 0..100_000 {
                        let id = format!("R{round}S{sender}N{n}");
                        let text = message(&id, &id, "Ledger");
                        let positive = if sender % 2 == 0 {
                            mllp(&mut stream, &text).is_some_and(|answer| answer.contains(&format!("MSA|AA|{id}")))
                        } else {
                            let mut stream = match TcpStream::connect(web) {
                                Ok(stream) => stream,
                                Err(_) => return acknowledged,
                            };
                            let head = format!("POST /v2/ingest HTTP/1.1\r\nHost: {web}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", text.len());
                            let mut answer = Vec::new();
                            let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(text.as_bytes()));
                            sent.is_ok() && stream.read_to_end(&mut answer).is_ok() && String::from_utf8_lossy(&answer).contains(&format!("MSA|AA|{id}"))
                        };
                        if !positive {
                            return acknowledged;
                        }
                        acknowledged.push(id);
                    }
                    acknowledged
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(300 + 130 * round));
        edge.kill();
        senders.into_iter().for_each(|sender| ledger.extend(sender.join().unwrap()));
    }
    assert!(ledger.len() > 100, "{} acknowledged", ledger.len());
    let edge = Edge::start(dir.path());
    for id in &ledger {
        let found = edge.get(&format!("/fhir/Patient?identifier={id}"));
        assert_eq!(found["total"], 1, "{id} was acknowledged");
    }
}

#[test]
fn keys_decide_and_act_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let hilum = |arguments: &[&str]| {
        let config = dir.path().join("hilum.toml");
        let output = Command::new(env!("CARGO_BIN_EXE_hilum"))
            .args(["--config", config.to_str().unwrap()])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let made = hilum(&["key", "add", "--name", "ris", "--scope", "system/Patient.rs ingest/hl7v2"]);
    let key = made.lines().last().unwrap().to_owned();
    let header = format!("X-API-Key: {key}");
    assert_eq!(http(edge.keyed, "GET", "/fhir/metadata", &[], "").0, 200);
    assert_eq!(http(edge.keyed, "GET", "/livez", &[], "").0, 200);
    assert_eq!(http(edge.keyed, "GET", "/fhir/Patient", &[], "").0, 401);
    assert_eq!(http(edge.keyed, "GET", "/fhir/Patient", &["X-API-Key: hil_x_y"], "").0, 401);
    assert_eq!(http(edge.keyed, "GET", "/fhir/Patient", &[&header], "").0, 200);
    let (status, body) =
        http(edge.keyed, "POST", "/fhir/Patient", &[&header, FHIR], r#"{"resourceType":"Patient"}"#);
    assert!(status == 403 && body.contains("system/Patient.c"), "{status} {body}");
    assert_eq!(http(edge.keyed, "POST", "/v2/ingest", &[&header], &message("K1", "K1", "Keyed")).0, 200);
    let id = key.split('_').nth(1).unwrap();
    hilum(&["key", "revoke", id]);
    assert_eq!(http(edge.keyed, "GET", "/fhir/Patient", &[&header], "").0, 401, "revoked at once");
    assert!(hilum(&["key", "list"]).contains("revoked"));
    assert_eq!(http(edge.keyed, "GET", "/fhir/Patient", &["Host: evil.example"], "").0, 401);
    let foreign = http(edge.http, "POST", "/fhir/Patient", &[FHIR, "Origin: https://evil.example"], "{}").0;
    assert_eq!(foreign, 403, "no foreign page writes where there is no authentication");
}

#[test]
fn bad_input_is_answered_and_the_edge_lives() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let deep = "[".repeat(100_000);
    for (body, status) in [
        ("{", 400),
        (deep.as_str(), 400),
        (r#"{"resourceType":"Nothing"}"#, 400),
        (r#"{"resourceType":"Patient","foo":1}"#, 422),
    ] {
        let (found, text) = http(edge.http, "POST", "/fhir/Patient", &[FHIR], body);
        assert!(found == status && text.contains("OperationOutcome"), "{found} {text}");
    }
    assert_eq!(http(edge.http, "GET", &format!("/fhir/Patient?name={}", "x".repeat(9000)), &[], "").0, 414);
    assert_eq!(http(edge.http, "POST", "/fhir/Patient", &[FHIR, "Content-Encoding: gzip"], "no gzip").0, 400);
    assert_eq!(http(edge.http, "POST", "/v2/ingest", &[], "no header").0, 400);
    let (status, answer) =
        http(edge.http, "POST", "/v2/ingest", &[], "MSH|^~\\&|A|B|||2024||ZZZ^Z01|Z1|P|2.5\rPID|1||1\r");
    assert!(status == 422 && answer.contains("MSA|AR|Z1") && answer.contains("|200^"), "{status} {answer}");
    let mut stream = TcpStream::connect(edge.mllp).unwrap();
    let answer = mllp(&mut stream, "<xml/>").unwrap();
    assert!(answer.contains("MSA|AE|"), "{answer}");
    let large = format!("MSH|^~\\&|A|B|||2024||ADT^A08|L1|P|2.5\rPID|1||{}\r", "x".repeat(2_000_000));
    let answer = mllp(&mut stream, &large).unwrap();
    assert!(answer.contains("MSA|AE|L1") && answer.contains("frame-too-large"), "{answer}");
    assert!(
        mllp(&mut stream, &message("G1", "G1", "Good")).unwrap().contains("MSA|AA|G1"),
        "the connection goes on"
    );
    for _ in 0..200 {
        drop(TcpStream::connect(edge.mllp).unwrap());
    }
    let mut garbage = TcpStream::connect(edge.mllp).unwrap();
    let _ = garbage.write_all(&vec![b'G'; 200_000]);
    assert_eq!(edge.get("/fhir/Patient?name=good")["total"], 1);
}

#[test]
fn no_value_of_a_message_reaches_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let marked = "MARKEDNAME";
    let mut stream = TcpStream::connect(edge.mllp).unwrap();
    mllp(&mut stream, &message("P1", "P1", marked)).unwrap();
    mllp(&mut stream, &format!("MSH|^~\\&|A|B|||2024||ADT^A08|P2|P|2.5\rPID|1||||{marked}\r")).unwrap();
    http(edge.http, "POST", "/v2/ingest", &[], &message("P3", "P3", marked));
    http(
        edge.http,
        "POST",
        "/fhir/Patient",
        &[FHIR],
        &format!(r#"{{"resourceType":"Patient","name":[{{"family":"{marked}"}}],"gender":"{marked}"}}"#),
    );
    http(
        edge.http,
        "POST",
        "/fhir/Patient",
        &[FHIR],
        &format!(r#"{{"resourceType":"Patient","name":[{{"family":"{marked}"}}]}}"#),
    );
    let metrics = http(edge.http, "GET", "/metrics", &[], "").1;
    edge.kill();
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(log.contains("submission"), "the log tells of submissions");
    let line = log.lines().chain(metrics.lines()).find(|line| line.contains(marked));
    assert_eq!(line, None);
}

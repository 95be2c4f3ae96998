//! HL7 v3 through the door of the real binary: every wrapping, repeats, hostile XML, and one Patient for both versions of HL7.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hilum_wire::v3::{Limits, Message, NAMESPACE};
use serde_json::Value;

const START_TIMEOUT: Duration = Duration::from_secs(20);
const CONFIG: &str = r#"
[node]
data = "DATA"
[[listen]]
protocol = "http"
address = "127.0.0.1:0"
surfaces = ["fhir", "hl7"]
auth = "none"
[[listen]]
protocol = "http"
address = "127.0.0.1:0"
surfaces = ["hl7"]
[[site]]
id = "default"
[limits.store]
free_bytes_min = 0
[limits.blobs]
free_bytes_min = 0
[limits.xml]
bytes_max = 2000000
"#;
const SOAP_11: &str = "http://schemas.xmlsoap.org/soap/envelope/";
const SOAP_12: &str = "http://www.w3.org/2003/05/soap-envelope";

/// A running edge in a folder of its own, on free ports.
struct Edge {
    child: Child,
    http: SocketAddr,
    keyed: SocketAddr,
}

impl Edge {
    fn start(dir: &Path) -> Self {
        let config = dir.join("hilum.toml");
        std::fs::write(&config, CONFIG.replace("DATA", &dir.join("data").display().to_string())).unwrap();
        let ready = dir.join("ready.json");
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_hilum"))
            .args(["--config", config.to_str().unwrap(), "serve", "--ready-file", ready.to_str().unwrap()])
            .env("RUST_LOG", "trace")
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while !ready.exists() {
            assert!(begun.elapsed() < START_TIMEOUT, "not ready");
            std::thread::sleep(Duration::from_millis(20));
        }
        let card: Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
        let address = |n: usize| card["listeners"][n]["address"].as_str().unwrap().parse().unwrap();
        Self { child, http: address(0), keyed: address(1) }
    }

    fn get(&self, path: &str) -> Value {
        serde_json::from_slice(&http(self.http, "GET", path, &[], b"").body).unwrap()
    }

    fn post(&self, content_type: &str, body: &str) -> Answer {
        http(self.http, "POST", "/v3/ingest", &[&format!("Content-Type: {content_type}")], body.as_bytes())
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The acknowledgement in the answer.
    fn message(&self) -> Message {
        let message = Message::read(&self.body, &Limits::default());
        let message = message.unwrap_or_else(|refusal| panic!("{refusal:?}: {}", self.text()));
        assert!(message.wrapper.is_acknowledgement(), "{}", self.text());
        message
    }

    /// Its `acknowledgement/typeCode`.
    fn code(&self) -> String {
        let code = self.message().with_tree(|node| {
            let code = node.descendants().find(|n| n.has_tag_name((NAMESPACE, "typeCode")));
            code.unwrap().attribute("code").unwrap().to_owned()
        });
        code.unwrap()
    }
}

fn http(address: SocketAddr, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let headers: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(answer.len());
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let status = head.get(9..12).and_then(|s| s.parse().ok()).unwrap_or(0);
    Answer { status, head, body: answer.get(end + 4..).unwrap_or_default().to_vec() }
}

fn interaction(name: &str, message_id: &str, patient: &str, person: &str, more: &str) -> String {
    format!(
        "<{name} xmlns=\"urn:hl7-org:v3\" ITSVersion=\"XML_1.0\"><id root=\"1.2.9\" extension=\"{message_id}\"/>\
         <creationTime value=\"20240501\"/><interactionId root=\"2.16.840.1.113883.1.6\" extension=\"{name}\"/>\
         <receiver><device><id root=\"1.2.8\"/></device></receiver><sender><device><id root=\"1.2.7\"/></device></sender>\
         <controlActProcess><subject><registrationEvent><subject1><patient><id root=\"1.2.3\" extension=\"{patient}\"/>\
         <patientPerson>{person}</patientPerson></patient></subject1>{more}</registrationEvent></subject></controlActProcess></{name}>"
    )
}

fn named(message_id: &str, patient: &str, family: &str) -> String {
    let person = format!("<name><given>Ada</given><family>{family}</family></name>");
    interaction("PRPA_IN201301UV02", message_id, patient, &person, "")
}

fn soap(namespace: &str, body: &str) -> String {
    format!(
        "<s:Envelope xmlns:s=\"{namespace}\" xmlns:a=\"http://www.w3.org/2005/08/addressing\"><s:Header>\
         <a:MessageID>urn:uuid:question</a:MessageID></s:Header><s:Body>{body}</s:Body></s:Envelope>"
    )
}

#[test]
fn every_wrapping_is_answered_in_kind_and_a_repeat_gets_the_same_answer() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let bare = edge.post("application/xml", &named("1", "P1", "Bare"));
    assert_eq!((bare.status, bare.code().as_str()), (200, "CA"));
    assert!(bare.head.contains("content-type: application/xml; charset=utf-8"), "{}", bare.head);
    assert!(bare.text().contains("<targetMessage><id root=\"1.2.9\" extension=\"1\"/>"));
    assert_eq!(edge.post("application/xml", &named("1", "P1", "Bare")).body, bare.body, "a repeat");
    for (namespace, content_type, id) in
        [(SOAP_11, "text/xml; charset=utf-8", "2"), (SOAP_12, "application/soap+xml; action=\"x\"", "3")]
    {
        let answer = edge.post(content_type, &soap(namespace, &named(id, id, "Soaped")));
        assert_eq!((answer.status, answer.code().as_str()), (200, "CA"));
        let essence = content_type.split(';').next().unwrap();
        assert!(answer.head.contains(&format!("content-type: {essence}; charset=utf-8")), "{}", answer.head);
        assert!(
            answer.message().envelope.is_some() && answer.text().contains(namespace),
            "{}",
            answer.text()
        );
        assert!(answer.text().contains("RelatesTo>urn:uuid:question<"), "{}", answer.text());
    }
    assert_eq!(edge.get("/fhir/Patient?_summary=count")["total"], 3);
    let found = edge.get("/fhir/Patient?identifier=urn:oid:1.2.3%7CP1&_revinclude=Provenance:target");
    let provenance = &found["entry"][1]["resource"];
    assert_eq!(provenance["entity"][0]["what"]["display"], "HL7 v3 interaction 1.2.9^1", "{found:#}");
}

#[test]
fn v2_and_v3_of_one_identifier_meet_in_one_patient() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let v2 = "MSH|^~\\&|A|B|||20240101||ADT^A08|1|P|2.5\rPID|1||M1^^^&1.2.3&ISO^MR||Old^Ada||19800101|F\r";
    assert_eq!(
        http(edge.http, "POST", "/v2/ingest", &["Content-Type: text/plain"], v2.as_bytes()).status,
        200
    );
    let person = "<name use=\"L\"><given>Ada</given><family>New</family></name><administrativeGenderCode nullFlavor=\"UNK\"/><birthTime/>";
    let revised = interaction("PRPA_IN201302UV02", "1", "M1", person, "");
    assert_eq!(edge.post("text/xml", &revised).code(), "CA");
    let found = edge.get("/fhir/Patient");
    assert_eq!(found["total"], 1, "{found:#}");
    let patient = &found["entry"][0]["resource"];
    assert_eq!(
        (patient["meta"]["versionId"].as_str(), patient["name"][0]["family"].as_str()),
        (Some("2"), Some("New"))
    );
    assert_eq!(
        (&patient["gender"], &patient["birthDate"]),
        (&"female".into(), &"1980-01-01".into()),
        "no value deletes nothing"
    );
    assert_eq!(
        patient["identifier"][0]["type"]["coding"][0]["code"], "MR",
        "what v2 knew of the identifier stays"
    );
    assert_eq!(patient["identifier"].as_array().unwrap().len(), 1);

    let prior = "<replacementOf><priorRegistration><subject1><priorRegisteredRole><id root=\"1.2.3\" extension=\"M2\"/></priorRegisteredRole></subject1></priorRegistration></replacementOf>";
    assert_eq!(edge.post("text/xml", &named("2", "M2", "Twice")).code(), "CA");
    let merge = interaction("PRPA_IN201304UV02", "3", "M1", "<name><family>New</family></name>", prior);
    assert_eq!(edge.post("text/xml", &merge).code(), "CA");
    let gone = edge.get("/fhir/Patient?identifier=urn:oid:1.2.3%7CM2&active=false");
    assert_eq!(gone["entry"][0]["resource"]["link"][0]["type"], "replaced-by", "{gone:#}");
}

#[test]
fn what_is_no_interaction_is_refused_in_the_words_of_its_layer() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let bomb = "<!DOCTYPE x [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]><x xmlns=\"urn:hl7-org:v3\">&b;</x>";
    let nested = format!("<x xmlns=\"urn:hl7-org:v3\">{}{}</x>", "<y>".repeat(3_000), "</y>".repeat(3_000));
    for (body, place) in [
        ("<x", "malformed"),
        (bomb, "document type"),
        (nested.as_str(), "nested"),
        ("", "empty"),
        ("<x/>", "foreign"),
    ] {
        let answer = edge.post("application/xml", body);
        let text = answer.text();
        assert!(
            answer.status == 400 && text.contains("OperationOutcome"),
            "{place}: {} {text}",
            answer.status
        );
    }
    assert_eq!(
        edge.post("application/xml", &named("1", "P1", &"x".repeat(2_000_000))).status,
        413,
        "the configured limit"
    );
    assert_eq!(edge.post("application/json", &named("1", "P1", "Long")).status, 415);
    for namespace in [SOAP_11, SOAP_12] {
        let answer = edge.post("text/xml", &soap(namespace, "<x/>"));
        assert!(
            answer.status == 500
                && answer.text().contains("<soap:Fault>")
                && answer.text().contains(namespace),
            "{}",
            answer.text()
        );
    }
    let unsupported =
        edge.post("text/xml", &soap(SOAP_11, &interaction("PRPA_IN201305UV02", "1", "P1", "", "")));
    assert_eq!((unsupported.status, unsupported.code().as_str()), (200, "CR"));
    assert!(unsupported.text().contains("unsupported interaction"), "{}", unsupported.text());
    let content =
        edge.post("text/xml", &named("2", "", "Nobody").replace("extension=\"\"", "nullFlavor=\"NI\""));
    assert_eq!((content.status, content.code().as_str()), (200, "CE"));
    assert_eq!(edge.get("/fhir/Patient?_summary=count")["total"], 0);
}

#[test]
fn a_key_with_the_scope_opens_the_door() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let key = |scope: &str| {
        let config = dir.path().join("hilum.toml");
        let made = Command::new(env!("CARGO_BIN_EXE_hilum"))
            .args(["--config", config.to_str().unwrap(), "key", "add", "--name", "ris", "--scope", scope])
            .output()
            .unwrap();
        String::from_utf8(made.stdout).unwrap().lines().last().unwrap().to_owned()
    };
    let post = |headers: &[&str]| {
        let mut all = vec!["Content-Type: application/xml"];
        all.extend(headers);
        http(edge.keyed, "POST", "/v3/ingest", &all, named("1", "P1", "Keyed").as_bytes()).status
    };
    assert_eq!(post(&[]), 401);
    assert_eq!(post(&[&format!("X-API-Key: {}", key("ingest/hl7v2"))]), 403);
    assert_eq!(post(&[&format!("X-API-Key: {}", key("ingest/hl7v3"))]), 200);
    let first = std::fs::read_to_string(dir.path().join("data/first-api-key")).unwrap();
    assert_eq!(post(&[&format!("X-API-Key: {first}")]), 200, "the first key holds the scope");
}

#[test]
fn no_value_of_an_interaction_reaches_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let marked = |id: &str| named(id, "MARKEDID", "MARKEDNAME");
    assert_eq!(edge.post("text/xml", &marked("1")).code(), "CA");
    assert_eq!(edge.post("text/xml", &marked("2").replace("201301", "201305")).code(), "CR");
    assert_eq!(edge.post("text/xml", &marked("3").replace("Ada", "&MARKED;")).status, 400);
    assert_eq!(edge.post("text/xml", &soap(SOAP_12, "<MARKED/>")).status, 500);
    drop(edge);
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
    assert!(log.contains("receipt"), "{log}");
    assert!(!log.contains("MARKED"), "{log}");
}

#[test]
fn map_and_send_take_interactions() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let (good, bad) = (dir.path().join("good.xml"), dir.path().join("bad.xml"));
    std::fs::write(&good, soap(SOAP_12, &named("1", "P1", "Sent"))).unwrap();
    std::fs::write(&bad, interaction("PRPA_IN201305UV02", "2", "P1", "", "")).unwrap();
    let hilum = |arguments: &[&str]| {
        let config = dir.path().join("hilum.toml");
        let mut all = vec!["--config", config.to_str().unwrap()];
        all.extend(arguments);
        let done = Command::new(env!("CARGO_BIN_EXE_hilum")).args(all).output().unwrap();
        (done.status.success(), String::from_utf8(done.stdout).unwrap())
    };
    let (fine, shown) = hilum(&["map", "--json", good.to_str().unwrap()]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert!(fine && shown["bundle"]["entry"][0]["resource"]["name"][0]["family"] == "Sent", "{shown:#}");
    assert!(!hilum(&["map", "--summary", bad.to_str().unwrap()]).0);
    let target = format!("http://{}", edge.http);
    let (fine, answer) = hilum(&["send", "v3", &target, good.to_str().unwrap()]);
    assert!(fine && answer.contains("\"CA\"") && answer.contains("Envelope"), "{answer}");
    let (fine, answer) = hilum(&["send", "v3", &target, bad.to_str().unwrap()]);
    assert!(!fine && answer.contains("\"CR\""), "{answer}");
}

/// Runs over the corpora beside the project, when they are there.
#[test]
fn every_file_of_the_corpora_gets_an_answer_of_the_protocol() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus/hl7v3");
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let folders = std::fs::read_dir(root).into_iter().flatten().flatten();
    for path in folders.flat_map(|folder| std::fs::read_dir(folder.path()).unwrap()) {
        let path = path.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let answer = http(edge.http, "POST", "/v3/ingest", &["Content-Type: application/xml"], &bytes);
        let name = path.display();
        let Ok(sent) = Message::read(&bytes, &Limits::default()) else {
            assert!(answer.status == 400 && answer.text().contains("OperationOutcome"), "{name}: {answer:?}");
            continue;
        };
        if sent.wrapper.is_acknowledgement() {
            assert_eq!(answer.status, 204, "{name}");
            continue;
        }
        assert_eq!(answer.status, 200, "{name}");
        let is_feed = ["PRPA_IN201301UV02", "PRPA_IN201302UV02", "PRPA_IN201304UV02"]
            .contains(&sent.wrapper.interaction.as_str());
        let code = answer.code();
        assert_eq!(code != "CR", is_feed, "{name}: {code}");
        assert_eq!(answer.message().envelope.is_some(), sent.envelope.is_some(), "{name}");
        let target = answer.message().with_tree(|node| {
            let target = node.descendants().find(|n| n.has_tag_name((NAMESPACE, "targetMessage"))).unwrap();
            let id = target.children().find(|n| n.has_tag_name((NAMESPACE, "id"))).unwrap();
            id.attribute("root").map(str::to_owned)
        });
        assert_eq!(target.unwrap(), sent.wrapper.id.map(|id| id.root), "{name}");
    }
    assert_eq!(http(edge.http, "GET", "/livez", &[], b"").status, 200);
}

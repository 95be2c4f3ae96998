//! The real binary, driven through its doors as senders do: the README, one message of each protocol, keys, bad input.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use harness::mllp::message;
use harness::{Edge, http, mllp};

const FHIR: &str = "Content-Type: application/fhir+json";

#[test]
fn the_commands_of_the_readme_work() {
    let readme = include_str!("../README.md");
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start_development(dir.path());
    assert!(edge.log().contains("try:  curl"), "it prints something to try");
    assert!(dir.path().join("data").is_dir(), "it keeps its data in ./data");
    // curl -X POST http://127.0.0.1:8080PATH -H 'HEADER' \ --data-binary $'BODY', and curl 'http://127.0.0.1:8080PATH'
    let between = |text: &str, from: &str, to: &str| {
        let start = text.find(from).unwrap_or_else(|| panic!("the README has {from}")) + from.len();
        text[start..start + text[start..].find(to).unwrap()].to_owned()
    };
    let (path, header) =
        (between(readme, "curl -X POST http://127.0.0.1:8080", " "), between(readme, "-H '", "'"));
    let body = between(readme, "--data-binary $'", "'").replace("\\r", "\r").replace("\\\\", "\\");
    let posted = http::send(edge.http, "POST", &path, &[&header], body);
    assert!(posted.status == 200 && posted.body.contains("MSA|AA|1"), "{posted:?}");
    let found = edge.get(&between(readme, "curl 'http://127.0.0.1:8080", "'"));
    assert_eq!(found["total"], 1, "{found}");
    assert_eq!(found["entry"][0]["resource"]["name"][0]["family"], "Doe");
    for command in readme.split("| `hilum ").skip(1).map(|rest| rest.split([' ', '`']).next().unwrap()) {
        assert!(edge.hilum(&[command, "--help"]).contains("Usage: hilum"), "{command}");
    }
}

#[test]
fn one_message_of_each_protocol_becomes_durable_fhir() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let mut sender = mllp::Connection::open(edge.mllp).unwrap();
    let answer = sender.send(message("C1", "M1", "Framed")).unwrap();
    assert!(answer.contains("MSA|AA|C1"), "{answer}");
    assert_eq!(
        sender.send(message("C1", "M1", "Framed")).unwrap(),
        answer,
        "a repeat replays the stored answer"
    );
    let posted = http::send(
        edge.http,
        "POST",
        "/v2/ingest",
        &["Content-Type: text/plain"],
        message("C2", "M2", "Posted"),
    );
    assert!(posted.status == 200 && posted.body.contains("MSA|AA|C2"), "{posted:?}");
    let endpoint = r#"{"resourceType":"Endpoint","status":"active","connectionType":{"code":"hl7v2-mllp"},"payloadType":[{"text":"x"}],"address":"mllp://h:1"}"#;
    let created = http::send(edge.http, "POST", "/baseR4/Endpoint", &[FHIR], endpoint);
    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!(edge.total("/fhir/Endpoint?status=active"), 1);
    let step = |status: &str| {
        let body =
            format!(r#"{{"sop_instance_uid":"1.2.3.4.5","study_uid":"1.2.3.4.5.6","status":"{status}"}}"#);
        http::send(edge.http, "POST", "/ingest", &["Content-Type: application/json"], body)
    };
    let (begun, completed, back) = (step("IN PROGRESS"), step("COMPLETED"), step("IN PROGRESS"));
    assert!(begun.status == 200 && begun.body == completed.body, "one session: {begun:?} {completed:?}");
    assert!(back.status == 409 && back.body.contains(r#""success":false"#), "{back:?}");
    edge.kill();
    let edge = Edge::start(dir.path());
    assert_eq!(edge.total("/fhir/Procedure?status=completed"), 1);
    assert_eq!(edge.total("/fhir/ImagingStudy"), 1);
    for name in ["framed", "posted"] {
        assert_eq!(edge.total(&format!("/fhir/Patient?name={name}")), 1, "{name} after kill -9");
    }
}

#[test]
fn keys_decide_and_act_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let header = edge.key("system/Patient.rs ingest/hl7v2");
    let status = |method: &str, path: &str, headers: &[&str], body: &str| {
        http::send(edge.keyed, method, path, headers, body)
    };
    assert_eq!(status("GET", "/fhir/metadata", &[], "").status, 200);
    assert_eq!(status("GET", "/livez", &[], "").status, 200);
    assert_eq!(status("GET", "/fhir/Patient", &[], "").status, 401);
    assert_eq!(status("GET", "/fhir/Patient", &["X-API-Key: hil_x_y"], "").status, 401);
    assert_eq!(status("GET", "/fhir/Patient", &[&header], "").status, 200);
    let refused = status("POST", "/fhir/Patient", &[&header, FHIR], r#"{"resourceType":"Patient"}"#);
    assert!(refused.status == 403 && refused.body.contains("system/Patient.c"), "{refused:?}");
    assert_eq!(status("POST", "/v2/ingest", &[&header], &message("K1", "K1", "Keyed")).status, 200);
    edge.hilum(&["key", "revoke", header.split('_').nth(1).unwrap()]);
    assert_eq!(status("GET", "/fhir/Patient", &[&header], "").status, 401, "revoked at once");
    assert!(edge.hilum(&["key", "list"]).contains("revoked"));
    assert_eq!(status("GET", "/fhir/Patient", &["Host: evil.example"], "").status, 401);
    let foreign =
        http::send(edge.http, "POST", "/fhir/Patient", &[FHIR, "Origin: https://evil.example"], "{}");
    assert_eq!(foreign.status, 403, "no foreign page writes where there is no authentication");
    let rebound = http::send(edge.http, "GET", "/fhir/Patient", &["Host: evil.example"], "");
    assert_eq!(rebound.status, 403, "and none reads under a name of its own");
}

#[test]
fn bad_input_is_answered_and_the_edge_lives() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let deep = "[".repeat(60_000);
    for (body, status) in [
        ("{", 400),
        (deep.as_str(), 400),
        (r#"{"resourceType":"Nothing"}"#, 400),
        (r#"{"resourceType":"Patient","foo":1}"#, 422),
    ] {
        let reply = http::send(edge.http, "POST", "/fhir/Patient", &[FHIR], body);
        assert!(reply.status == status && reply.body.contains("OperationOutcome"), "{reply:?}");
    }
    let long = format!("/fhir/Patient?name={}", "x".repeat(9000));
    assert_eq!(http::send(edge.http, "GET", &long, &[], "").status, 414);
    let packed = http::send(edge.http, "POST", "/fhir/Patient", &[FHIR, "Content-Encoding: gzip"], "no gzip");
    assert_eq!(packed.status, 400);
    let mut sender = mllp::Connection::open(edge.mllp).unwrap();
    let large = format!("MSH|^~\\&|A|B|||2024||ADT^A08|L1|P|2.5\rPID|1||{}\r", "x".repeat(2_000_000));
    let answer = sender.send(large).unwrap();
    assert!(answer.contains("MSA|AE|L1") && answer.contains("frame-too-large"), "{answer}");
    let answer = sender.send(message("G1", "G1", "Good")).unwrap();
    assert!(answer.contains("MSA|AA|G1"), "the connection goes on: {answer}");
    for _ in 0..200 {
        drop(mllp::Connection::open(edge.mllp).unwrap());
    }
    let _ = mllp::Connection::open(edge.mllp).unwrap().write(&vec![b'G'; 200_000]);
    assert_eq!(edge.total("/fhir/Patient?name=good"), 1);
}

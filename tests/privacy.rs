//! Nothing a message carries reaches a log or a metric: a marked name goes through every door, in good and in bad submissions, with
//! everything logged that can be.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use harness::dicom::{Association, image};
use harness::doors::{DOORS, Item, Verdict};
use harness::{CALLING, Edge, http, mllp};

const MARK: &str = "MARKEDNAME";

#[test]
fn no_value_of_a_message_reaches_a_log_or_a_metric() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = Edge::start(dir.path());
    for (number, door) in (1_000_000_u64..).step_by(100).zip(DOORS) {
        let good = door.submit(&edge, &Item::named(number, MARK));
        assert!(door.accepts(good.as_ref()), "{}: {good:?}", door.name);
        for (number, bad) in (number + 1..).zip(door.bad) {
            let item = Item::named(number, MARK);
            let told = door.send(&edge, &item, &(bad.bytes)(&item));
            let told = told.unwrap_or_else(|| panic!("{}, {}: no answer", door.name, bad.what));
            assert_eq!((door.verdict)(&told), Verdict::Rejected, "{}, {}: {told:?}", door.name, bad.what);
        }
    }
    searches(&edge);
    writes(&edge);
    broken_off(&edge);
    edge.wait("told of the ends", |edge| edge.log().contains("association ended"));
    let metrics = http::send(edge.http, "GET", "/metrics", &[], "").body;
    assert!(metrics.contains("hilum_submissions_total"), "{metrics}");
    let log = edge.log();
    edge.kill();
    assert!(log.contains("submission") && log.contains("DEBUG"), "the log tells everything it can");
    let line = log.lines().chain(metrics.lines()).find(|line| line.to_uppercase().contains(MARK));
    assert_eq!(line, None);
}

/// Searches by the mark: good, with unknown parameters, too long, unreadable.
fn searches(edge: &Edge) {
    let long = format!("Patient?name={}", MARK.repeat(900));
    for (path, status) in [
        (format!("Patient?name={MARK}"), 200),
        (format!("Patient?unknown={MARK}"), 400),
        (format!("Patient?birthdate={MARK}"), 400),
        (format!("Patient?name:{MARK}={MARK}"), 400),
        (format!("Patient?general-practitioner.name={MARK}"), 200),
        (format!("Patient?general-practitioner.{MARK}={MARK}&_sort={MARK}"), 400),
        (format!("Patient?_has:Observation:patient:{MARK}={MARK}"), 400),
        (format!("Patient/{MARK}/$everything?_type={MARK}"), 400),
        (format!("Patient?_cursor={MARK}"), 400),
        (format!("{MARK}?name={MARK}"), 404),
        (long, 414),
    ] {
        let reply = http::send(edge.http, "GET", &format!("/fhir/{path}"), &[], "");
        assert_eq!(reply.status, status, "{path}: {reply:?}");
    }
    let form = ["Content-Type: application/x-www-form-urlencoded"];
    let posted = http::send(edge.http, "POST", "/fhir/Patient/_search", &form, format!("name={MARK}"));
    assert_eq!(
        (posted.status, posted.json()["total"].as_u64()),
        (200, Some(DOORS.len() as u64)),
        "{posted:?}"
    );
}

/// Writes the mark where it is refused: conditions, bundles, credentials, headers.
fn writes(edge: &Edge) {
    let json = "Content-Type: application/fhir+json";
    let xml = "Content-Type: application/fhir+xml";
    let patient = format!(r#"{{"resourceType":"Patient","name":[{{"family":"{MARK}"}}]}}"#);
    let condition = format!("If-None-Exist: birthdate={MARK}");
    let request = r#"{"method":"POST","url":"Patient"}"#;
    let bundle = format!(
        r#"{{"resourceType":"Bundle","type":"transaction","entry":[{{"request":{request},"resource":{{"resourceType":"Patient","birthDate":"{MARK}"}}}}]}}"#
    );
    let credential = format!("X-API-Key: hil_{MARK}_{MARK}");
    let packed = "Content-Encoding: gzip";
    for (address, path, headers, body, status) in [
        (edge.http, "/fhir/Patient", &[json, condition.as_str()][..], patient.as_str(), 400),
        (edge.http, "/fhir", &[json], &bundle, 422),
        (edge.http, "/fhir/Patient", &[json, packed], &patient, 400),
        (edge.http, "/fhir/Observation", &[json], &patient, 400),
        (edge.keyed, "/fhir/Patient", &[json, credential.as_str()], &patient, 401),
        (edge.http, "/v2/ingest", &["Content-Type: application/xml"], &patient, 415),
        (
            edge.http,
            "/fhir/Patient",
            &[xml],
            &format!("<Patient xmlns=\"http://hl7.org/fhir\"><{MARK} value=\"{MARK}\"/></Patient>"),
            400,
        ),
        (
            edge.http,
            "/fhir/Patient",
            &[xml],
            &format!("<Patient xmlns=\"http://hl7.org/fhir\"><active value=\"{MARK}\"/></Patient>"),
            400,
        ),
        (edge.http, "/fhir/Patient/$validate", &[json], &patient, 200),
    ] {
        let reply = http::send(address, "POST", path, headers, body);
        assert_eq!(reply.status, status, "{path}: {reply:?}");
    }
    let made = http::send(
        edge.http,
        "PUT",
        "/fhir/Patient/marked",
        &[json],
        r#"{"resourceType":"Patient","id":"marked"}"#,
    );
    assert_eq!(made.status, 201);
    for (operation, status) in [("test", 422), ("replace", 422), (MARK, 400)] {
        let patch = format!(r#"[{{"op":"{operation}","path":"/name/{MARK}","value":"{MARK}"}}]"#);
        let json = "Content-Type: application/json-patch+json";
        assert_eq!(http::send(edge.http, "PATCH", "/fhir/Patient/marked", &[json], patch).status, status);
    }
}

/// Connections that end in the middle of the mark.
fn broken_off(edge: &Edge) {
    let mut sender = mllp::Connection::open(edge.mllp).unwrap();
    let message = mllp::framed(mllp::message("B1", "B1", MARK));
    sender.write(&message[..message.len() - 10]).unwrap();
    let mut association = Association::request(edge.dicom, CALLING).unwrap();
    association.begin("2.25.1").unwrap();
    association.part(&image("2.25.1", MARK, MARK, 100)).unwrap();
    let mut connection = http::Connection::open(edge.http).unwrap();
    let head = connection.begin("POST", "/v2/ingest", &["Content-Type: text/plain"], 1000).unwrap();
    assert!(head.is_none(), "the body is awaited: {head:?}");
    connection.write(MARK.as_bytes()).unwrap();
}

//! Every status the FHIR door answers with, one row each: request, then status, issue code and expression.
//! <https://hl7.org/fhir/R4/http.html>; 503 is tested in `listener_contract.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use std::net::SocketAddr;

use harness::doors::{DOORS, Item, Verdict, Wire};
use harness::http::{self, Reply};
use harness::{CALLING, Edge};
use serde_json::{Value, json};

const JSON: &str = "Content-Type: application/fhir+json";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded";
const LIMITS: &str = "[limits.http]\nbody_bytes_max = 100000\n[limits.fhir]\nbundle_entries_max = 2\n";
const PATIENT: &str = r#"{"resourceType":"Patient"}"#;

/// What is answered: status, code of the first issue (empty: no body), its expression (empty: none).
type Expected = (u16, &'static str, &'static str);
/// Method, path below the base, headers, body.
type Asked<'a> = (&'a str, &'a str, &'a [&'a str], &'a str);

/// An edge with `Patient/a` (second version), `Patient/gone` (deleted), and two patients with the identifier `TWO`.
fn prepared(dir: &std::path::Path) -> Edge {
    let edge = Edge::start_limited(dir, LIMITS);
    let patient = |identifier: &str| {
        format!(r#"{{"resourceType":"Patient","identifier":[{{"value":"{identifier}"}}]}}"#)
    };
    let named =
        |id: &str, active: bool| format!(r#"{{"resourceType":"Patient","id":"{id}","active":{active}}}"#);
    for (method, path, body) in [
        ("PUT", "/Patient/a", named("a", false)),
        ("PUT", "/Patient/a", named("a", true)),
        ("PUT", "/Patient/gone", named("gone", true)),
        ("DELETE", "/Patient/gone", String::new()),
        ("POST", "/Patient", patient("TWO")),
        ("POST", "/Patient", patient("TWO")),
        ("POST", "/Patient", patient("ONE")),
    ] {
        let reply = ask(edge.http, (method, path, &[JSON], &body));
        assert!((200..300).contains(&reply.status), "{method} {path}: {reply:?}");
    }
    edge
}

fn ask(address: SocketAddr, (method, path, headers, body): Asked<'_>) -> Reply {
    let path = if path.starts_with("/site/") { path.to_owned() } else { format!("/fhir{path}") };
    http::send(address, method, &path, headers, body)
}

/// Status, code and expression of an answer, checked for what every answer has.
fn seen(asked: Asked<'_>, reply: &Reply) -> (u16, String, String) {
    let (method, path, ..) = asked;
    let issue = &reply.json()["issue"][0];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if reply.status >= 400 && method != "HEAD" {
        assert_eq!(reply.json()["resourceType"], "OperationOutcome", "{method} {path}: {reply:?}");
        assert!(!text(&issue["diagnostics"]).is_empty(), "{method} {path} says why: {reply:?}");
    }
    assert!(reply.header("x-request-id").is_some_and(|id| !id.is_empty()), "{method} {path}: {reply:?}");
    (reply.status, text(&issue["code"]), text(&issue["expression"][0]))
}

fn check(address: SocketAddr, asked: Asked<'_>, (status, code, expression): Expected) -> Reply {
    let reply = ask(address, asked);
    let found = seen(asked, &reply);
    assert_eq!(found, (status, code.to_owned(), expression.to_owned()), "{asked:?}: {reply:?}");
    reply
}

/// Checks all rows and tells of all that differ.
fn check_all(rows: &[(Asked<'_>, Expected)]) {
    let dir = tempfile::tempdir().unwrap();
    let edge = prepared(dir.path());
    let mut wrong = Vec::new();
    for (asked, (status, code, expression)) in rows {
        let reply = ask(edge.http, *asked);
        let found = seen(*asked, &reply);
        if found != (*status, (*code).to_owned(), (*expression).to_owned()) {
            let (method, path, headers, _) = asked;
            let expected = (status, code, expression);
            wrong.push(format!(
                "{method} {path} {headers:?}: {found:?} instead of {expected:?}: {}",
                reply.body
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(edge.total("/fhir/Patient?_total=accurate"), 4, "nothing that was refused was stored");
}

#[test]
fn what_cannot_be_understood_is_400() {
    check_all(&[
        (("POST", "/Patient", &[JSON], "{"), (400, "structure", "")),
        (
            ("POST", "/Patient", &[JSON], r#"{"resourceType":"Patient","active":true,"active":true}"#),
            (400, "structure", ""),
        ),
        (("POST", "/Patient", &[JSON], r#"{"resourceType":"Nothing"}"#), (400, "structure", "resourceType")),
        (("POST", "/Patient", &[JSON], r#"{"active":true}"#), (400, "structure", "resourceType")),
        (("POST", "/Observation", &[JSON], PATIENT), (400, "invalid", "resourceType")),
        (("PUT", "/Patient/a", &[JSON], PATIENT), (400, "invalid", "Patient.id")),
        (
            ("PUT", "/Patient/a", &[JSON], r#"{"resourceType":"Patient","id":"b"}"#),
            (400, "invalid", "Patient.id"),
        ),
        (("PUT", "/Patient/a_b", &[JSON], PATIENT), (400, "value", "")),
        (
            ("PUT", "/Patient/a", &[JSON, "If-Match: 2"], r#"{"resourceType":"Patient","id":"a"}"#),
            (400, "value", ""),
        ),
        (("GET", "/Patient?birthdate=soon", &[], ""), (400, "value", "http.birthdate")),
        (("GET", "/Patient?birthdate:exact=2024", &[], ""), (400, "not-supported", "http.birthdate:exact")),
        (("GET", "/Patient?color=red", &[], ""), (400, "not-supported", "http.color")),
        (("GET", "/Patient?_count=-1", &[], ""), (400, "value", "http._count")),
        (("GET", "/Patient?_cursor=x", &[], ""), (400, "value", "")),
        (("GET", "/Patient/a/_history?_sort=x", &[], ""), (400, "invalid", "")),
        (
            ("POST", "/Patient", &[JSON, "If-None-Exist: color=red"], PATIENT),
            (400, "not-supported", "http.color"),
        ),
        (("POST", "/Patient", &[JSON, "If-None-Exist: _sort=name"], PATIENT), (400, "invalid", "http._sort")),
        (
            ("POST", "/Patient", &[JSON, "If-None-Exist: identifier="], PATIENT),
            (400, "invalid", "http.identifier"),
        ),
        (("DELETE", "/Patient", &[], ""), (400, "invalid", "")),
        (("DELETE", "/Patient?_sort=name", &[], ""), (400, "invalid", "http._sort")),
        (("POST", "", &[JSON], PATIENT), (400, "invalid", "resourceType")),
        (
            ("POST", "", &[JSON], r#"{"resourceType":"Bundle","type":"collection"}"#),
            (400, "invalid", "Bundle.type"),
        ),
    ]);
}

#[test]
fn who_is_not_known_or_not_allowed_is_401_or_403() {
    let dir = tempfile::tempdir().unwrap();
    let edge = prepared(dir.path());
    let key = edge.key("system/Patient.r");
    for (asked, expected) in [
        (("GET", "/Patient/a", &[][..], ""), (401, "login", "")),
        (("GET", "/Patient/a", &["X-API-Key: hil_abc_def"], ""), (401, "login", "")),
        (("POST", "/Patient", &[JSON], "{"), (401, "login", "")),
        (("GET", "/Nothing/a", &[], ""), (401, "login", "")),
        (("GET", "/Patient", &[&key], ""), (403, "forbidden", "")),
        (("GET", "/Observation/a", &[&key], ""), (403, "forbidden", "")),
        (
            ("PUT", "/Patient/a", &[&key, JSON], r#"{"resourceType":"Patient","id":"a"}"#),
            (403, "forbidden", ""),
        ),
        (("DELETE", "/Patient/a", &[&key], ""), (403, "forbidden", "")),
        (("GET", "/site/other/fhir/Patient/a", &[&key], ""), (403, "forbidden", "")),
        (("GET", "/Patient/a", &[&key], ""), (200, "", "")),
        (("GET", "/site/default/fhir/Patient/a", &[&key], ""), (200, "", "")),
        (("GET", "/metadata", &[], ""), (200, "", "")),
    ] {
        let reply = check(edge.keyed, asked, expected);
        assert_eq!(reply.header("www-authenticate").is_some(), expected.0 == 401, "{asked:?}");
        if expected.0 == 403 && !asked.1.starts_with("/site/") {
            assert!(reply.body.contains("system/"), "the scope is named: {reply:?}");
        }
    }
    // wrong keys are throttled; a right one from the same address is not (rim.rs)
    for _ in 0..40 {
        ask(edge.keyed, ("GET", "/Patient/a", &["X-API-Key: hil_abc_def"], ""));
    }
    let reply =
        check(edge.keyed, ("GET", "/Patient/a", &["X-API-Key: hil_abc_def"], ""), (429, "throttled", ""));
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
}

#[test]
fn what_is_not_there_is_404_and_what_was_deleted_410() {
    let dir = tempfile::tempdir().unwrap();
    let edge = prepared(dir.path());
    for (path, expected) in [
        ("/Nothing", (404, "not-found", "")),
        ("/patient", (404, "not-found", "")),
        ("/Nothing/a", (404, "not-found", "")),
        ("/Patient/absent", (404, "not-found", "")),
        ("/Patient/absent/_history", (404, "not-found", "")),
        ("/Patient/a/_history/9", (404, "not-found", "")),
        ("/Patient/a/_history/x", (404, "not-found", "")),
        ("/Patient/a/_history/1/more", (404, "not-found", "")),
        ("/Patient/$everything", (404, "not-found", "")),
        ("/Patient/_history", (404, "not-found", "")),
        ("/Patient/gone", (410, "deleted", "")),
        ("/Patient/gone/_history/2", (410, "deleted", "")),
        ("/Patient/gone/_history/1", (200, "", "")),
        ("/Patient/gone/_history", (200, "", "")),
    ] {
        check(edge.http, ("GET", path, &[], ""), expected);
    }
    let gone = ask(edge.http, ("GET", "/Patient/gone", &[], ""));
    assert_eq!(gone.header("etag"), Some("W/\"2\""), "of the deletion");
    let head = ask(edge.http, ("HEAD", "/Patient/a", &[], ""));
    assert_eq!((head.status, head.body.as_str(), head.header("etag")), (200, "", Some("W/\"2\"")));
}

#[test]
fn what_is_not_served_is_405_406_or_415() {
    check_all(&[
        (
            ("PATCH", "/Patient/a", &["Content-Type: application/xml-patch+xml"], "<diff/>"),
            (415, "not-supported", ""),
        ),
        (("POST", "/Patient/a", &[JSON], PATIENT), (405, "not-supported", "")),
        (("PATCH", "/Patient", &[JSON], PATIENT), (405, "not-supported", "")),
        (("DELETE", "/Patient/a/_history", &[], ""), (405, "not-supported", "")),
        (("PUT", "", &[JSON], PATIENT), (405, "not-supported", "")),
        (("GET", "", &[], ""), (405, "not-supported", "")),
        (("GET", "?_type=Patient&name=x", &[], ""), (405, "not-supported", "")),
        (("OPTIONS", "/Nothing", &[], ""), (404, "not-found", "")),
        (("DELETE", "/AuditEvent/a", &[], ""), (405, "not-supported", "")),
        (("GET", "/Patient/a", &["Accept: text/turtle"], ""), (406, "not-supported", "")),
        (("GET", "/Patient/a?_format=ttl", &["Accept: application/json"], ""), (406, "not-supported", "")),
        (
            ("GET", "/Patient/a", &["Accept: application/fhir+json; fhirVersion=5.0"], ""),
            (406, "not-supported", ""),
        ),
        (
            ("POST", "/Patient", &["Content-Type: text/turtle"], "[] a fhir:Patient ."),
            (415, "not-supported", ""),
        ),
        (("POST", "/Patient", &[], PATIENT), (415, "not-supported", "")),
        (
            ("POST", "/Patient", &["Content-Type: application/fhir+json; charset=latin1"], PATIENT),
            (415, "not-supported", ""),
        ),
        (("POST", "/Patient/_search", &[JSON], "{}"), (415, "not-supported", "")),
        (("POST", "/Patient", &[JSON, "Content-Encoding: br"], PATIENT), (415, "not-supported", "")),
    ]);
}

#[test]
fn a_405_lists_the_methods_that_are_served_and_each_is() {
    let dir = tempfile::tempdir().unwrap();
    let edge = prepared(dir.path());
    for path in [
        "",
        "/metadata",
        "/Patient",
        "/Patient/a",
        "/Patient/_search",
        "/Patient/a/_history",
        "/Patient/a/_history/1",
    ] {
        // no address takes everything
        let other = if path == "/Patient/a" { "POST" } else { "PATCH" };
        let refused = check(edge.http, (other, path, &[JSON], ""), (405, "not-supported", ""));
        let allowed = refused.header("allow").expect("an Allow header").to_owned();
        let options = ask(edge.http, ("OPTIONS", path, &[], ""));
        assert_eq!((options.status, options.header("allow")), (204, Some(allowed.as_str())), "{path}");
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] {
            // what the answer is does not matter here; that it is about more than the method does
            let reply = ask(edge.http, (method, path, &[], ""));
            let listed = allowed.split(", ").any(|one| one == method);
            let refused = matches!(reply.status, 404 | 405);
            assert_ne!(refused, listed, "{method} {path}, allowed: {allowed}: {reply:?}");
        }
    }
}

#[test]
fn conditions_that_fail_are_409_or_412() {
    let a = r#"{"resourceType":"Patient","id":"a"}"#;
    // the entry before is processed after a DELETE or POST: the place is that of the request all the same
    let before = json!({ "request": { "method": "PUT", "url": "Patient/b" }, "resource": { "resourceType": "Patient", "id": "b" } });
    let transaction = |entry: Value| {
        json!({ "resourceType": "Bundle", "type": "transaction", "entry": [before, entry] }).to_string()
    };
    let entry = |method: &str, url: &str, condition: &str, value: &str| {
        let mut request = json!({ "method": method, "url": url });
        request[condition] = value.into();
        let resource = json!({ "resourceType": "Patient", "id": "a" });
        transaction(json!({ "request": request, "resource": resource }))
    };
    let entry_1 = "Bundle.entry[1]";
    let bundle = transaction(json!({
        "request": { "method": "POST", "url": "Observation" },
        "resource": { "resourceType": "Observation", "status": "final", "code": { "text": "x" },
            "subject": { "reference": "Patient?identifier=ABSENT" } } }));
    check_all(&[
        (("POST", "", &[JSON], &bundle), (412, "not-found", "Bundle.entry[1]")),
        (
            ("POST", "", &[JSON], &bundle.replace("ABSENT", "TWO")),
            (412, "multiple-matches", "Bundle.entry[1]"),
        ),
        (("POST", "", &[JSON], &entry("PUT", "Patient/a", "ifMatch", "W/\"1\"")), (412, "conflict", entry_1)),
        (
            ("POST", "", &[JSON], &entry("DELETE", "Patient/a", "ifMatch", "W/\"1\"")),
            (412, "conflict", entry_1),
        ),
        (("POST", "", &[JSON], &entry("PUT", "Patient/a", "ifNoneMatch", "*")), (412, "conflict", entry_1)),
        (
            ("POST", "", &[JSON], &entry("POST", "Patient", "ifNoneExist", "identifier=TWO")),
            (412, "multiple-matches", entry_1),
        ),
        (
            ("POST", "", &[JSON], &entry("POST", "Patient", "ifNoneExist", "color=red")),
            (400, "not-supported", "Bundle.entry[1].request"),
        ),
        (
            ("POST", "", &[JSON], &entry("PUT", "Patient?identifier=TWO", "id", "x")),
            (412, "multiple-matches", entry_1),
        ),
        (
            ("POST", "", &[JSON], &entry("PUT", "Patient?identifier=ABSENT", "id", "x")),
            (409, "conflict", "Bundle.entry[1].resource.id"),
        ),
        (("PUT", "/Patient?identifier=ABSENT", &[JSON], a), (409, "conflict", "Patient.id")),
        (("PUT", "/Patient/a", &[JSON, "If-Match: W/\"1\""], a), (412, "conflict", "Patient")),
        (
            (
                "PUT",
                "/Patient/absent",
                &[JSON, "If-Match: W/\"1\""],
                r#"{"resourceType":"Patient","id":"absent"}"#,
            ),
            (412, "conflict", "Patient"),
        ),
        (("PUT", "/Patient/a", &[JSON, "If-None-Match: *"], a), (412, "conflict", "Patient")),
        (("DELETE", "/Patient/a", &["If-Match: W/\"1\""], ""), (412, "conflict", "Patient")),
        (
            ("POST", "/Patient", &[JSON, "If-None-Exist: identifier=TWO"], PATIENT),
            (412, "multiple-matches", "Patient"),
        ),
        (("PUT", "/Patient?identifier=TWO", &[JSON], PATIENT), (412, "multiple-matches", "Patient")),
        (("DELETE", "/Patient?identifier=TWO", &[], ""), (412, "multiple-matches", "Patient")),
        (("PUT", "/Patient?identifier=ONE", &[JSON], a), (400, "invalid", "Patient.id")),
    ]);
}

#[test]
fn what_is_too_much_is_413_414_or_431() {
    let large = format!(r#"{{"resourceType":"Patient","name":[{{"family":"{}"}}]}}"#, "x".repeat(100_000));
    let entry = json!({ "request": { "method": "GET", "url": "Patient/a" } });
    let bundle =
        json!({ "resourceType": "Bundle", "type": "batch", "entry": [entry, entry, entry] }).to_string();
    let long = format!("/Patient?name={}", "x".repeat(9000));
    check_all(&[
        (("POST", "/Patient", &[JSON], &large), (413, "too-long", "")),
        (("POST", "", &[JSON], &bundle), (413, "too-long", "Bundle.entry")),
        (("GET", &long, &[], ""), (414, "too-long", "")),
    ]);
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let headers: Vec<String> = (0..200).map(|n| format!("X-{n}: {CALLING}")).collect();
    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
    // answered before there is a request to route: no body
    assert_eq!(ask(edge.http, ("GET", "/Patient", &headers, "")).status, 431);
}

#[test]
fn the_bodies_of_all_requests_together_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start_with_limit(dir.path(), "HTTP__BODIES_BYTES_MAX", 60_000);
    let patient =
        |letters| format!(r#"{{"resourceType":"Patient","name":[{{"family":"{}"}}]}}"#, "x".repeat(letters));
    let (large, small) = (patient(39_000), patient(21_500));
    let small = || ask(edge.http, ("POST", "/Patient", &[JSON], &small));
    assert_eq!(ask(edge.http, ("POST", "/Patient", &[JSON], &large)).status, 201, "alone there is room");
    let (part, rest) = large.as_bytes().split_at(39_000);
    let begun = || {
        let mut slow = http::Connection::open(edge.http).unwrap();
        assert!(slow.begin("POST", "/fhir/Patient", &[JSON], large.len()).unwrap().is_none());
        slow.write(part).unwrap();
        slow
    };
    // of two at once the one that goes on is refused: once that is not the slow one, which goes on
    let refused = (0..1_000).find_map(|_| {
        let (mut slow, reply) = (begun(), small());
        let finished = slow.finish("POST", rest).map(|reply| reply.status);
        (reply.status != 201 && finished == Some(201)).then_some(reply)
    });
    let refused = refused.expect("it is once");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(
        refused.body.contains("limits.http.bodies_bytes_max") && refused.body.contains("60000"),
        "{refused:?}"
    );
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    assert_eq!(small().status, 201, "there is room again");
}

#[test]
fn a_disk_nearly_full_is_507_and_503_where_no_fhir_is_spoken() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start_with_limit(dir.path(), "STORE__FREE_BYTES_MIN", i64::MAX);
    for _ in 0..2 {
        for (door, item) in DOORS.iter().zip((1..).map(Item::new)) {
            let told = door.submit(&edge, &item).unwrap_or_else(|| panic!("{}: no answer", door.name));
            assert_eq!((door.verdict)(&told), Verdict::Deferred, "{}: {told:?}", door.name);
            if let Wire::Http { .. } = door.wire {
                assert_eq!(told.status, if door.name == "FHIR" { 507 } else { 503 }, "{}", door.name);
            }
        }
    }
    let reply = check(edge.http, ("POST", "/Patient", &[JSON], PATIENT), (507, "transient", ""));
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
    check(edge.http, ("GET", "/Patient", &[], ""), (200, "", ""));
}

#[test]
fn a_body_whose_length_is_a_lie_ends_its_connection_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let edge = prepared(dir.path());
    let head = format!("POST /fhir/Patient HTTP/1.1\r\nHost: localhost\r\n{JSON}\r\n");
    let chunk = format!("{:x}\r\n{}\r\n", 50_000, "x".repeat(50_000));
    for (what, rest, statuses) in [
        ("chunks beyond the limit", format!("Transfer-Encoding: chunked\r\n\r\n{chunk}{chunk}{chunk}"), [413, 413]),
        ("a chunk size that is none", "Transfer-Encoding: chunked\r\n\r\nzz\r\n".into(), [400, 400]),
        ("two lengths", "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello".into(), [400, 400]),
        ("a negative length", "Content-Length: -1\r\n\r\n".into(), [400, 400]),
        // a proxy might take the one, and the edge the other: the rest must never become a request
        ("length and chunks", "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /fhir/metadata HTTP/1.1\r\n\r\n".into(), [400, 415]),
    ] {
        let mut connection = http::Connection::open(edge.http).unwrap();
        let status = connection.raw(format!("{head}{rest}").as_bytes()).map_or(0, |reply| reply.status);
        assert!(statuses.contains(&status), "{what}: {status}");
        let more = connection.raw(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert!(more.is_none(), "{what}: the connection has ended: {more:?}");
        assert_eq!(ask(edge.http, ("GET", "/Patient/a", &[], "")).status, 200, "{what}: others go on");
    }
}

#[test]
fn what_violates_fhir_or_a_rule_is_422() {
    let subscription = |status: &str, kind: &str, criteria: &str| {
        json!({ "resourceType": "Subscription", "status": status, "reason": "r", "criteria": criteria,
            "channel": { "type": kind, "endpoint": "https://example.org/hook" } })
        .to_string()
    };
    let endpoint = json!({ "resourceType": "Endpoint", "status": "up", "connectionType": { "code": "hl7v2-mllp" },
        "payloadType": [{ "text": "x" }], "address": "mllp://h:1" });
    check_all(&[
        (
            ("POST", "/Patient", &[JSON], r#"{"resourceType":"Patient","color":1}"#),
            (422, "structure", "Patient.color"),
        ),
        (
            ("POST", "/Patient", &[JSON], r#"{"resourceType":"Patient","gender":"x"}"#),
            (422, "code-invalid", "Patient.gender"),
        ),
        (
            ("POST", "/Patient", &[JSON], r#"{"resourceType":"Patient","birthDate":"x"}"#),
            (422, "value", "Patient.birthDate"),
        ),
        (
            ("POST", "/Patient", &[JSON], r#"{"resourceType":"Patient","active":"true"}"#),
            (422, "structure", "Patient.active"),
        ),
        (
            ("POST", "/Patient", &[JSON], r#"{"resourceType":"Patient","name":{}}"#),
            (422, "structure", "Patient.name"),
        ),
        (
            ("POST", "/Patient", &[JSON], r#"{"resourceType":"Patient","link":[{"type":"refer"}]}"#),
            (422, "required", "Patient.link[0].other"),
        ),
        (
            ("POST", "/Observation", &[JSON], r#"{"resourceType":"Observation","status":"final"}"#),
            (422, "required", "Observation.code"),
        ),
        (("POST", "/Endpoint", &[JSON], &endpoint.to_string()), (422, "code-invalid", "Endpoint.status")),
        (
            ("POST", "/Subscription", &[JSON], &subscription("active", "rest-hook", "Patient?")),
            (422, "business-rule", "Subscription.status"),
        ),
        (
            ("POST", "/Subscription", &[JSON], &subscription("requested", "sms", "Patient?")),
            (422, "not-supported", "Subscription.channel.type"),
        ),
        (
            ("POST", "/Subscription", &[JSON], &subscription("requested", "rest-hook", "Patient?color=red")),
            (422, "not-supported", "Subscription.criteria"),
        ),
    ]);
}

#[test]
fn a_transaction_fails_whole_and_names_the_entry() {
    let good = json!({ "request": { "method": "POST", "url": "Patient" }, "resource": { "resourceType": "Patient" } });
    let bundle = |entry: Value| {
        json!({ "resourceType": "Bundle", "type": "transaction", "entry": [good, entry] }).to_string()
    };
    let write = |method: &str, url: &str, resource: Value| {
        bundle(json!({ "request": { "method": method, "url": url }, "resource": resource }))
    };
    let patient = json!({ "resourceType": "Patient" });
    let wrong = json!({ "resourceType": "Patient", "gender": "x" });
    let bodies = [
        (bundle(json!({ "resource": patient })), (400, "invalid", "Bundle.entry[1].request")),
        (write("POST", "Nothing", patient.clone()), (400, "invalid", "Bundle.entry[1].request.url")),
        (write("BREW", "Patient", patient.clone()), (400, "invalid", "Bundle.entry[1].request.method")),
        (
            write("POST", "Observation", patient.clone()),
            (400, "invalid", "Bundle.entry[1].resource.resourceType"),
        ),
        (write("PUT", "Patient/a", patient), (400, "invalid", "Bundle.entry[1].resource.id")),
        (write("POST", "Patient", wrong), (422, "code-invalid", "Bundle.entry[1].resource.gender")),
    ];
    let row = |(body, expected)| (("POST", "", &[JSON][..], String::as_str(body)), expected);
    check_all(&bodies.iter().map(|(body, expected)| row((body, *expected))).collect::<Vec<_>>());
}

#[test]
fn what_is_done_is_200_201_204_or_304() {
    let dir = tempfile::tempdir().unwrap();
    let edge = prepared(dir.path());
    let (a, new) = (r#"{"resourceType":"Patient","id":"a"}"#, r#"{"resourceType":"Patient","id":"new"}"#);
    for (method, path, headers, body, status) in [
        ("GET", "/Patient/a", &[][..], "", 200),
        ("GET", "/Patient/a", &["If-None-Match: W/\"2\""], "", 304),
        ("GET", "/Patient/a", &["If-None-Match: W/\"1\""], "", 200),
        ("GET", "/Patient/a/_history/1", &[], "", 200),
        ("GET", "/Patient?identifier=ONE", &[], "", 200),
        ("POST", "/Patient/_search", &[FORM], "identifier=ONE", 200),
        ("GET", "/Patient?color=red", &["Prefer: handling=lenient"], "", 200),
        ("POST", "/Patient", &[JSON], PATIENT, 201),
        ("POST", "/Patient", &[JSON, "If-None-Exist: identifier=ONE"], PATIENT, 200),
        ("PUT", "/Patient/a", &[JSON, "If-Match: W/\"2\""], a, 200),
        ("PUT", "/Patient/new", &[JSON, "If-None-Match: *"], new, 201),
        ("PUT", "/Patient?identifier=NONE", &[JSON], PATIENT, 201),
        ("DELETE", "/Patient/a", &[], "", 204),
        ("DELETE", "/Patient/a", &[], "", 204),
        ("DELETE", "/Patient/absent", &[], "", 204),
        ("DELETE", "/Patient?identifier=ONE", &["Prefer: return=OperationOutcome"], "", 200),
        ("PUT", "/Patient/a", &[JSON], a, 201),
        ("OPTIONS", "/Patient", &[], "", 204),
    ] {
        let reply = ask(edge.http, (method, path, headers, body));
        assert_eq!(reply.status, status, "{method} {path} {headers:?}: {reply:?}");
        let located = reply.header("location").is_some_and(|at| at.contains("/_history/"));
        let writes = matches!(method, "PUT")
            || status == 201
            || headers.iter().any(|h| h.starts_with("If-None-Exist"));
        assert_eq!(located, writes, "{method} {path}: a write says where: {reply:?}");
        if (method == "GET" && path.starts_with("/Patient/a")) || writes {
            assert!(
                reply.header("etag").is_some_and(|tag| tag.starts_with("W/\"")),
                "{method} {path}: {reply:?}"
            );
        }
    }
}

//! XML beside JSON, and patches, as clients send them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use harness::asking::Asking;
use harness::http::{self, Reply};
use serde_json::{Value, json};

const XML: &str = "Content-Type: application/fhir+xml";
const AS_XML: &str = "Accept: application/fhir+xml";
const PATCH: &str = "Content-Type: application/json-patch+json";
const PATIENT: &str = include_str!("../fixtures/fhir/xml/patient.xml");
const PATIENT_AS_JSON: &str = include_str!("../fixtures/fhir/xml/patient.json");

fn patched(asking: &Asking, path: &str, patch: &Value) -> Reply {
    asking.raw("PATCH", path, &[PATCH], &patch.to_string())
}

fn kind(reply: &Reply) -> &str {
    reply.header("content-type").unwrap_or_default()
}

/// A resource without what the server gives it.
fn sent(mut resource: Value) -> Value {
    let members = resource.as_object_mut().unwrap();
    members.shift_remove("id");
    if let Some(meta) = members.get_mut("meta").and_then(Value::as_object_mut) {
        meta.shift_remove("versionId");
        meta.shift_remove("lastUpdated");
    }
    members.retain(|name, value| name != "meta" || value != &json!({}));
    resource
}

#[test]
fn what_was_sent_in_one_form_is_read_in_the_other() {
    let asking = Asking::new();
    // validation takes no comment in a narrative
    let (as_xml, as_json) = (PATIENT.replace("<!-- y -->", ""), PATIENT_AS_JSON.replace("<!-- y -->", ""));
    let made = asking.raw("POST", "/Patient", &[XML], &as_xml);
    assert_eq!((made.status, kind(&made)), (201, "application/fhir+json"), "{made:?}");
    let path = format!("/Patient/{}", made.json()["id"].as_str().unwrap());
    let read = asking.raw("GET", &path, &[], "");
    let expected: Value = serde_json::from_str(&as_json).unwrap();
    assert_eq!(sent(read.json()), sent(expected), "digits, siblings and narrative are as they were");

    let as_xml = asking.raw("GET", &path, &[AS_XML], "");
    assert_eq!((as_xml.status, kind(&as_xml)), (200, "application/fhir+xml"));
    assert_eq!(as_xml.header("etag"), Some("W/\"1\""));
    let head = asking.raw("HEAD", &path, &[AS_XML], "");
    assert_eq!(head.header("content-length"), Some(&*as_xml.body.len().to_string()));
    let again = asking.raw("PUT", &path, &[XML, AS_XML], &as_xml.body);
    assert_eq!((again.status, again.header("etag")), (200, Some("W/\"1\"")), "the same content: {again:?}");
}

#[test]
fn every_answer_is_in_the_form_that_is_asked_for() {
    let asking = Asking::new();
    asking.put("Patient/a", json!({ "resourceType": "Patient", "id": "a", "gender": "male" }));
    let batch = "<Bundle xmlns=\"http://hl7.org/fhir\"><type value=\"batch\"/><entry><request><method value=\"GET\"/><url value=\"Patient/a\"/></request></entry></Bundle>";
    for (method, path, headers, body, status, holds) in [
        ("GET", "/Patient?gender=male", vec![AS_XML], "", 200, "<gender value=\"male\"/>"),
        ("GET", "/Patient?gender=male&_format=xml", vec![], "", 200, "<Bundle xmlns"),
        ("POST", "/Patient/_search", vec![], "gender=male&_format=xml", 200, "<gender value=\"male\"/>"),
        ("GET", "/Patient/a/_history", vec![AS_XML], "", 200, "<versionId value=\"1\"/>"),
        ("GET", "/Patient/a/$everything", vec![AS_XML], "", 200, "<gender value=\"male\"/>"),
        ("GET", "/metadata", vec![AS_XML], "", 200, "<CapabilityStatement xmlns"),
        ("POST", "", vec![XML, AS_XML], batch, 200, "<gender value=\"male\"/>"),
        ("GET", "/Patient/absent", vec![AS_XML], "", 404, "<OperationOutcome xmlns"),
        ("GET", "/Patient?color=red", vec![AS_XML], "", 400, "http.color"),
        (
            "POST",
            "/Patient",
            vec![XML, AS_XML],
            "<Patient xmlns=\"http://hl7.org/fhir\"><color value=\"red\"/></Patient>",
            400,
            "Patient.color",
        ),
        (
            "POST",
            "/Patient",
            vec![XML, AS_XML],
            "<Patient xmlns=\"http://hl7.org/fhir\"><gender value=\"x\"/></Patient>",
            422,
            "Patient.gender",
        ),
        (
            "POST",
            "/Patient",
            vec![XML, AS_XML],
            "<Patient xmlns=\"http://hl7.org/fhir\">",
            400,
            "<OperationOutcome xmlns",
        ),
        (
            "POST",
            "/Patient",
            vec![XML, AS_XML],
            "<!DOCTYPE x><Patient xmlns=\"http://hl7.org/fhir\"/>",
            400,
            "document type",
        ),
    ] {
        let headers: Vec<&str> = if method == "POST" && headers.is_empty() {
            vec!["Content-Type: application/x-www-form-urlencoded"]
        } else {
            headers
        };
        let reply = asking.raw(method, path, &headers, body);
        assert_eq!(
            (reply.status, kind(&reply)),
            (status, "application/fhir+xml"),
            "{method} {path}: {reply:?}"
        );
        assert!(reply.body.contains(holds), "{method} {path}: {reply:?}");
    }
}

#[test]
fn a_patch_changes_what_it_names_and_nothing_else() {
    let asking = Asking::new();
    let patient =
        json!({ "resourceType": "Patient", "id": "a", "gender": "male", "birthDate": "1970-01-01" });
    asking.put("Patient/a", patient);
    let done = patched(
        &asking,
        "/Patient/a",
        &json!([
            { "op": "test", "path": "/gender", "value": "male" },
            { "op": "replace", "path": "/gender", "value": "female" },
            { "op": "add", "path": "/name", "value": [{ "family": "New" }] },
        ]),
    );
    assert_eq!((done.status, done.header("etag")), (200, Some("W/\"2\"")), "{done:?}");
    assert_eq!((&done.json()["gender"], &done.json()["birthDate"]), (&json!("female"), &json!("1970-01-01")));
    let same =
        patched(&asking, "/Patient/a", &json!([{ "op": "replace", "path": "/gender", "value": "female" }]));
    assert_eq!((same.status, same.header("etag")), (200, Some("W/\"2\"")), "nothing changed");

    let operation = |op: &str, path: &str, value: &str| json!([{ "op": op, "path": path, "value": value }]);
    for (path, patch, status) in [
        ("/Patient/a", operation("test", "/gender", "male"), 422),
        ("/Patient/a", operation("replace", "/photo/0", "x"), 422),
        ("/Patient/a", operation("replace", "/gender", "x"), 422),
        ("/Patient/a", operation("replace", "/id", "b"), 422),
        ("/Patient/a", operation("replace", "/resourceType", "Person"), 422),
        ("/Patient/a", operation("add", "/color", "red"), 422),
        ("/Patient/a", operation("nothing", "/gender", "x"), 400),
        ("/Patient/a", json!({ "op": "add" }), 400),
        ("/Patient/absent", json!([]), 404),
    ] {
        assert_eq!(patched(&asking, path, &patch).status, status, "{path} {patch}");
    }
    assert_eq!(asking.raw("GET", "/Patient/a", &[], "").header("etag"), Some("W/\"2\""), "all or nothing");
    let stale = asking.raw("PATCH", "/Patient/a", &[PATCH, "If-Match: W/\"1\""], "[]");
    assert_eq!(stale.status, 412, "{stale:?}");
    assert_eq!(asking.raw("DELETE", "/Patient/a", &[], "").status, 204);
    assert_eq!(patched(&asking, "/Patient/a", &json!([])).status, 410);
}

#[test]
fn a_merge_patch_has_the_members_that_change() {
    let asking = Asking::new();
    let patient = json!({ "resourceType": "Patient", "id": "a", "gender": "male", "birthDate": "1970-01-01", "contact": [{ "gender": "male" }] });
    asking.put("Patient/a", patient);
    for kind in ["Content-Type: application/merge-patch+json", "Content-Type: application/json"] {
        let merge = |body: Value| asking.raw("PATCH", "/Patient/a", &[kind], &body.to_string());
        let done = merge(
            json!({ "resourceType": "Patient", "id": "a", "gender": "female", "birthDate": null, "maritalStatus": { "text": "x" } }),
        );
        assert_eq!(done.status, 200, "{done:?}");
        let expected = json!({ "resourceType": "Patient", "gender": "female", "contact": [{ "gender": "male" }], "maritalStatus": { "text": "x" } });
        assert_eq!(sent(done.json()), expected, "{kind}");
        assert_eq!(merge(json!({ "gender": "x" })).status, 422);
        assert_eq!(merge(json!({ "resourceType": null })).status, 422);
        assert_eq!(
            merge(json!({ "resourceType": "Parameters", "parameter": [] })).status,
            422,
            "not a FHIRPath Patch"
        );
        assert_eq!(merge(json!([])).status, 400, "no operations");
    }
}

#[test]
fn patches_at_once_are_all_there() {
    let asking = Asking::new();
    asking.put("Patient/a", json!({ "resourceType": "Patient", "id": "a", "name": [{ "family": "First" }] }));
    std::thread::scope(|scope| {
        for caller in 0..4 {
            let asking = &asking;
            scope.spawn(move || {
                let name = json!({ "family": format!("Caller{caller}") });
                let patch = json!([{ "op": "add", "path": "/name/-", "value": name }]);
                let done = patched(asking, "/Patient/a", &patch);
                assert_eq!(done.status, 200, "{done:?}");
            });
        }
    });
    let names = asking.raw("GET", "/Patient/a", &[], "").json()["name"].as_array().unwrap().len();
    assert_eq!(names, 5, "none undid another");
}

#[test]
fn a_patch_finds_out_no_secret_and_carries_none_elsewhere() {
    let asking = Asking::new();
    let endpoint = json!({ "resourceType": "Endpoint", "id": "e", "status": "active", "connectionType": { "code": "hl7-fhir-rest" },
        "payloadType": [{ "text": "any" }], "address": "https://peer.example/fhir", "header": ["Authorization: Bearer topsecret"] });
    asking.put("Endpoint/e", endpoint);
    let secret = "Authorization: Bearer topsecret";
    let guessed =
        patched(&asking, "/Endpoint/e", &json!([{ "op": "test", "path": "/header/0", "value": secret }]));
    assert_eq!(guessed.status, 422, "a test sees what a read shows");
    let copied =
        patched(&asking, "/Endpoint/e", &json!([{ "op": "copy", "from": "/header/0", "path": "/name" }]));
    assert!(!copied.body.contains("topsecret"), "{copied:?}");
    let moved = patched(
        &asking,
        "/Endpoint/e",
        &json!([{ "op": "replace", "path": "/address", "value": "https://evil.example" }]),
    );
    assert!(moved.status >= 400, "a secret does not follow its address: {moved:?}");
    let renamed =
        patched(&asking, "/Endpoint/e", &json!([{ "op": "add", "path": "/name", "value": "peer" }]));
    assert_eq!(renamed.status, 200, "{renamed:?}");
    let key = asking.edge.key("system/Endpoint.r endpoint.reveal");
    let revealed = http::send(asking.edge.keyed, "GET", "/fhir/Endpoint/e", &[&key], "").json();
    assert_eq!(
        (&revealed["header"][0], &revealed["name"]),
        (&json!(secret), &json!("peer")),
        "and the rest is kept"
    );
}

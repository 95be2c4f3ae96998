//! The Provenance rendered for each submission reads, searches and includes like a stored one: by every parameter the CapabilityStatement
//! claims, page by page, beside Provenances that a client stored.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use std::collections::BTreeSet;

use harness::doors::{DOORS, Item};
use harness::{Edge, http};
use serde_json::{Value, json};

const JSON: &str = "Content-Type: application/fhir+json";
const LENIENT: &str = "Prefer: handling=lenient";

/// An edge with two versions of one patient by v2, one by FHIR, and a Provenance a client stored; the patient sent twice.
fn prepared(dir: &std::path::Path) -> (Edge, String) {
    let edge = Edge::start(dir);
    let v2 = DOORS.iter().find(|door| door.name == "v2 HTTP").unwrap();
    for (control, family) in [("A1", "First"), ("A2", "Second")] {
        let message = String::from_utf8((v2.good)(&Item::named(1, family))).unwrap();
        let message = message.replacen("|N1|", &format!("|{control}|"), 1);
        let told = v2.send(&edge, &Item::new(1), message.as_bytes());
        assert!(v2.accepts(told.as_ref()), "{told:?}");
        // a rejected submission caused no version: it has no Provenance
        let bad = v2.send(&edge, &Item::new(1), &(v2.bad[1].bytes)(&Item::new(1)));
        assert!(!v2.accepts(bad.as_ref()));
    }
    let found = edge.get("/fhir/Patient?identifier=N1");
    let patient = format!("Patient/{}", found["entry"][0]["resource"]["id"].as_str().unwrap());
    assert_eq!(found["entry"][0]["resource"]["meta"]["versionId"], "2");
    let other = r#"{"resourceType":"Organization","name":"Other"}"#;
    assert_eq!(http::send(edge.http, "POST", "/fhir/Organization", &[JSON], other).status, 201);
    let stored = json!({ "resourceType": "Provenance", "target": [{ "reference": patient }],
        "recorded": "2020-01-01T00:00:00Z", "occurredDateTime": "2020-01-01", "agent": [{ "who": { "reference": "Practitioner/p" } }] });
    let reply = http::send(edge.http, "POST", "/fhir/Provenance", &[JSON], stored.to_string());
    assert_eq!(reply.status, 201, "{reply:?}");
    (edge, patient)
}

fn search(edge: &Edge, parameters: &str) -> Value {
    let reply = http::send(edge.http, "GET", &format!("/fhir/Provenance?{parameters}"), &[], "");
    assert_eq!(reply.status, 200, "{parameters}: {reply:?}");
    reply.json()
}

/// Ids of the matches, `stored` for the one a client stored.
fn ids(bundle: &Value) -> Vec<String> {
    let entries = bundle["entry"].as_array().into_iter().flatten();
    let matches = entries.filter(|entry| entry["search"]["mode"] == "match");
    let id = |entry: &Value| entry["resource"]["id"].as_str().unwrap().to_owned();
    matches.map(id).map(|id| if id.starts_with("submission-") { id } else { "stored".into() }).collect()
}

#[test]
fn every_parameter_claimed_finds_rendered_ones() {
    let dir = tempfile::tempdir().unwrap();
    let (edge, patient) = prepared(dir.path());
    let all = ids(&search(&edge, ""));
    // 1 and 3 by v2, 2 and 4 rejected, 5 and 6 by FHIR
    assert_eq!(all, ["stored", "submission-6", "submission-5", "submission-3", "submission-1"]);
    let of_patient = ["stored", "submission-3", "submission-1"];
    let rendered = ["submission-6", "submission-5", "submission-3", "submission-1"];
    let first = search(&edge, "_id=submission-1")["entry"][0]["resource"].clone();
    let sha256 = first["entity"][0]["what"]["identifier"]["value"].as_str().unwrap().to_owned();
    let transmitter = "http://terminology.hl7.org/CodeSystem/provenance-participant-type|transmitter";
    let rows: Vec<(&str, String, &[&str])> = vec![
        ("_id", "_id=submission-1,submission-2,submission-3".into(), &["submission-3", "submission-1"]),
        (
            "_lastUpdated",
            "_lastUpdated=ge2021".into(),
            &["stored", "submission-6", "submission-5", "submission-3", "submission-1"],
        ),
        ("_lastUpdated", "_lastUpdated=lt2021".into(), &[]),
        ("_profile", "_profile:missing=true&_id=submission-1".into(), &["submission-1"]),
        ("_profile", "_profile=http://example.org/p".into(), &[]),
        ("_security", "_security=x".into(), &[]),
        ("_source", "_source=http://example.org/s".into(), &[]),
        ("_tag", "_tag=x".into(), &[]),
        ("target", format!("target={patient}"), &of_patient),
        ("target", format!("target={patient},Patient/absent"), &of_patient),
        ("target", format!("target={patient}&recorded=lt2021"), &["stored"]),
        ("target", "target=Patient/absent".into(), &[]),
        ("patient", format!("patient={patient}"), &of_patient),
        ("patient", format!("patient={}", patient.trim_start_matches("Patient/")), &of_patient),
        ("recorded", "recorded=ge2021".into(), &rendered),
        ("recorded", "recorded=lt2021".into(), &["stored"]),
        ("when", "when=2020".into(), &["stored"]),
        ("when", "when:missing=true".into(), &rendered),
        ("agent", "agent=Practitioner/p".into(), &["stored"]),
        ("agent-type", format!("agent-type={transmitter}"), &rendered),
        ("agent-type", "agent-type=author".into(), &[]),
        ("agent-role", "agent-role=x".into(), &[]),
        ("entity", format!("entity:identifier=urn:hilum:original-sha256|{sha256}"), &["submission-1"]),
        ("entity", "entity:missing=true".into(), &["stored"]),
        ("location", "location=Location/1".into(), &[]),
        ("signature-type", "signature-type=x".into(), &[]),
    ];
    for (_, parameters, expected) in &rows {
        let found = search(&edge, parameters);
        assert_eq!(ids(&found), *expected, "{parameters}");
        assert_eq!(found["total"], expected.len(), "{parameters}");
        let counted = search(&edge, &format!("{parameters}&_summary=count"));
        assert_eq!(counted["total"], expected.len(), "{parameters}, counted");
    }
    let statement = edge.get("/fhir/metadata");
    let resources = statement["rest"][0]["resource"].as_array().unwrap();
    let provenance = resources.iter().find(|resource| resource["type"] == "Provenance").unwrap();
    let claimed = provenance["searchParam"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap());
    let tested: BTreeSet<&str> = rows.iter().map(|(name, ..)| *name).collect();
    assert_eq!(claimed.collect::<BTreeSet<_>>(), tested, "each parameter claimed has a row here");
}

#[test]
fn pages_hold_each_one_once_and_an_order_that_is_not_served_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (edge, _) = prepared(dir.path());
    let mut found = Vec::new();
    let mut next = format!("http://{}/fhir/Provenance?_count=2&_total=accurate", edge.http);
    for page in 0.. {
        let reply = http::send(edge.http, "GET", next.split_once(&edge.http.to_string()).unwrap().1, &[], "");
        let bundle = reply.json();
        assert!(page > 0 || bundle["total"] == 5, "{bundle:#}");
        found.extend(ids(&bundle));
        let links = bundle["link"].as_array().unwrap();
        let Some(link) = links.iter().find(|link| link["relation"] == "next") else { break };
        next = link["url"].as_str().unwrap().to_owned();
    }
    assert_eq!(found, ["stored", "submission-6", "submission-5", "submission-3", "submission-1"]);
    let ask = |headers: &[&str]| http::send(edge.http, "GET", "/fhir/Provenance?_sort=recorded", headers, "");
    let lenient = ask(&[LENIENT]).json();
    let link = lenient["link"][0]["url"].as_str().unwrap();
    assert!(lenient.to_string().contains("_sort is not supported") && !link.contains("_sort"), "{lenient:#}");
    let strict = ask(&[]);
    assert_eq!(
        (strict.status, strict.json()["issue"][0]["expression"][0].as_str()),
        (400, Some("http._sort"))
    );
}

#[test]
fn a_rendered_one_reads_includes_and_is_included() {
    let dir = tempfile::tempdir().unwrap();
    let (edge, patient) = prepared(dir.path());
    let get = |path: &str| http::send(edge.http, "GET", &format!("/fhir/Provenance/{path}"), &[], "");
    let one = get("submission-3");
    assert_eq!((one.status, one.header("etag")), (200, Some("W/\"1\"")));
    assert_eq!(one.json()["target"][0]["reference"], format!("{patient}/_history/2"));
    assert_eq!(get("submission-3/_history/1").body, one.body);
    assert_eq!(get("submission-3/_history").json()["entry"][0]["resource"], one.json());
    for (path, status) in [
        ("submission-3/_history/2", 404),
        ("submission-2", 404),
        ("submission-99", 404),
        ("submission-x", 404),
    ] {
        assert_eq!(get(path).status, status, "{path}");
    }
    let unchanged =
        http::send(edge.http, "GET", "/fhir/Provenance/submission-3", &["If-None-Match: W/\"1\""], "");
    assert_eq!(unchanged.status, 304);
    let modes = |bundle: &Value| -> Vec<String> {
        let entries = bundle["entry"].as_array().unwrap().iter();
        entries
            .map(|e| {
                format!(
                    "{} {}",
                    e["search"]["mode"].as_str().unwrap(),
                    e["resource"]["resourceType"].as_str().unwrap()
                )
            })
            .collect()
    };
    for include in ["Provenance:target", "Provenance:patient", "Provenance:target:Patient", "*"] {
        let found = search(&edge, &format!("_id=submission-3,submission-1&_include={include}"));
        assert_eq!(modes(&found), ["match Provenance", "match Provenance", "include Patient"], "{include}");
    }
    let found =
        search(&edge, "_id=submission-5&_include=Provenance:patient&_include=Provenance:target:Patient");
    assert_eq!(modes(&found), ["match Provenance"], "an organization is none");
    for (revinclude, count) in [
        ("Provenance:target", 3),
        ("Provenance:target:Patient", 3),
        ("Provenance:agent", 0),
        ("Provenance:target:Group", 0),
    ] {
        let found = edge.get(&format!("/fhir/Patient?_revinclude={revinclude}"));
        let included = modes(&found).iter().filter(|mode| *mode == "include Provenance").count();
        assert_eq!(included, count, "{revinclude}: {found:#}");
    }
}

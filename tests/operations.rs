//! Operations as clients call them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use std::collections::BTreeSet;

use harness::asking::Asking;
use harness::http::Reply;
use serde_json::{Value, json};

/// A patient with a resource of several kinds, and what they refer to.
fn person(asking: &Asking, name: &str) {
    let patient = json!({ "reference": format!("Patient/{name}") });
    let organization = json!({ "reference": "Organization/ward" });
    asking.put(&format!("Patient/{name}"), json!({ "managingOrganization": organization }));
    asking.put(
        &format!("Encounter/{name}-visit"),
        json!({ "status": "finished", "class": { "code": "IMP" }, "subject": patient,
        "period": { "start": "2020-01-01", "end": "2020-01-02" }, "serviceProvider": organization }),
    );
    for (at, date) in ["2020-01-01", "2021-01-01", "2022-01-01"].iter().enumerate() {
        // of the patient by two parameters, and once in the answer
        asking.put(
            &format!("Observation/{name}-{at}"),
            json!({ "status": "final", "code": { "text": "x" }, "subject": patient, "performer": [patient, { "reference": "Practitioner/doc" }], "effectiveDateTime": date }),
        );
    }
}

/// Type and id of the entries of a mode, each once.
fn entries(bundle: &Value, mode: &str) -> BTreeSet<String> {
    let of_mode =
        bundle["entry"].as_array().into_iter().flatten().filter(|entry| entry["search"]["mode"] == mode);
    let names: Vec<String> = of_mode
        .map(|entry| {
            format!(
                "{}/{}",
                entry["resource"]["resourceType"].as_str().unwrap(),
                entry["resource"]["id"].as_str().unwrap()
            )
        })
        .collect();
    let set: BTreeSet<String> = names.iter().cloned().collect();
    assert_eq!(set.len(), names.len(), "each once: {names:?}");
    set
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

const ALL_OF_A: [&str; 5] =
    ["Patient/a", "Encounter/a-visit", "Observation/a-0", "Observation/a-1", "Observation/a-2"];

#[test]
fn everything_of_a_patient_is_what_is_in_its_compartment_and_what_that_refers_to() {
    let asking = Asking::new();
    asking.put("Organization/ward", json!({ "name": "Ward" }));
    asking.put("Practitioner/doc", json!({}));
    person(&asking, "a");
    person(&asking, "b");
    let everything = |query: &str| {
        let reply = asking.open("GET", &format!("/Patient/a/$everything{query}"), &[], &Value::Null);
        assert_eq!(reply.status, 200, "{query}: {reply:?}");
        reply.json()
    };
    let all = everything("");
    assert_eq!(entries(&all, "match"), set(&ALL_OF_A));
    assert_eq!(entries(&all, "include"), set(&["Organization/ward", "Practitioner/doc"]));

    let observations = everything("?_type=Observation");
    assert_eq!(entries(&observations, "match"), set(&ALL_OF_A[2..]));
    assert_eq!(entries(&observations, "include"), set(&[]), "of no other type");
    let in_2021 = everything("?start=2021-01-01&end=2021-12-31");
    assert_eq!(entries(&in_2021, "match"), set(&["Patient/a", "Observation/a-1"]));
    let later = everything("?_since=2999-01-01&_type=Observation");
    assert_eq!(entries(&later, "match"), set(&[]));
    let posted =
        json!({ "resourceType": "Parameters", "parameter": [{ "name": "_type", "valueCode": "Encounter" }] });
    let posted = asking.open("POST", "/Patient/a/$everything", &[], &posted).json();
    assert_eq!(entries(&posted, "match"), set(&["Encounter/a-visit"]));

    for (path, status) in [
        ("/Patient/a/$everything?name=x", 400),
        ("/Patient/a/$everything?_type=Nothing", 400),
        ("/Patient/a/$everything?_cursor=x", 400),
        ("/Patient/absent/$everything", 404),
        ("/Observation/a-0/$everything", 404),
        ("/Patient/$everything", 404),
        ("/Patient/a/$nothing", 404),
    ] {
        assert_eq!(asking.open("GET", path, &[], &Value::Null).status, status, "{path}");
    }
    let refused = asking.open("DELETE", "/Patient/a/$everything", &[], &Value::Null);
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD, POST, OPTIONS")));
}

#[test]
fn pages_of_everything_hold_each_one_once() {
    let asking = Asking::new();
    person(&asking, "a");
    for count in 1..=6 {
        let mut found = Vec::new();
        let mut path = format!("/Patient/a/$everything?_count={count}&_pretty=true");
        for _ in 0..20 {
            let page = asking.open("GET", &path, &[], &Value::Null).json();
            let of_page = entries(&page, "match");
            assert!(of_page.len() <= count, "{page:#}");
            found.extend(of_page);
            let links = page["link"].as_array().unwrap();
            let Some(next) = links.iter().find(|link| link["relation"] == "next") else { break };
            path = next["url"].as_str().unwrap().split_once("/fhir").unwrap().1.to_owned();
        }
        found.sort();
        assert_eq!(found, set(&ALL_OF_A).into_iter().collect::<Vec<_>>(), "{count} a page");
    }
}

#[test]
fn everything_shows_a_key_what_its_scopes_grant_and_no_more() {
    let asking = Asking::new();
    asking.put("Practitioner/doc", json!({}));
    person(&asking, "a");
    let shown = |scopes: &str| {
        let key = asking.edge.key(scopes);
        let reply = asking.keyed(&key, "GET", "/Patient/a/$everything", &[], &Value::Null);
        (reply.status, entries(&reply.json(), "match"), entries(&reply.json(), "include"))
    };
    let none = set(&[]);
    assert_eq!(shown("system/Observation.rs"), (403, none.clone(), none.clone()), "the patient is read");
    assert_eq!(shown("system/Patient.rs"), (200, set(&["Patient/a"]), none.clone()));
    assert_eq!(
        shown("system/Patient.r system/Observation.r"),
        (200, set(&["Patient/a"]), none.clone()),
        "finding is a search"
    );
    let some = shown("system/Patient.r system/Observation.rs?date=2021-01-01 system/Practitioner.r");
    assert_eq!(some, (200, set(&["Patient/a", "Observation/a-1"]), set(&["Practitioner/doc"])));
    let filtered = shown("system/Patient.rs?gender=male system/Observation.rs");
    assert_eq!(filtered.0, 404, "not one of those it may read");
}

#[test]
fn everything_of_a_survivor_has_what_hangs_on_those_it_replaced() {
    let asking = Asking::new();
    person(&asking, "a");
    let replaced_by = json!([{ "type": "replaced-by", "other": { "reference": "Patient/c" } }]);
    let replaces = json!([{ "type": "replaces", "other": { "reference": "Patient/a" } }]);
    asking.put("Patient/c", json!({}));
    asking.put("Patient/a", json!({ "active": false, "link": replaced_by }));
    asking.put("Patient/c", json!({ "link": replaces }));
    let all = asking.open("GET", "/Patient/c/$everything", &[], &Value::Null).json();
    let found = entries(&all, "match");
    assert!(found.is_superset(&set(&["Patient/c", "Encounter/a-visit", "Observation/a-2"])), "{found:?}");
}

#[test]
fn validate_tells_what_a_write_would_be_told_and_writes_nothing() {
    let asking = Asking::new();
    let told = |path: &str, body: &Value| {
        let reply = asking.open("POST", path, &[], body);
        let issue = reply.json()["issue"][0].clone();
        let text = |name: &str| issue[name].as_str().unwrap_or_default().to_owned();
        (reply.status, text("severity"), issue["expression"][0].as_str().unwrap_or_default().to_owned())
    };
    let (right, wrong) = (
        json!({ "resourceType": "Patient", "gender": "male" }),
        json!({ "resourceType": "Patient", "gender": "x" }),
    );
    let parameters = |more: Value| {
        let mut all = vec![json!({ "name": "resource", "resource": right })];
        all.push(more);
        json!({ "resourceType": "Parameters", "parameter": all })
    };
    let said = |severity: &str, place: &str| (200, severity.to_owned(), place.to_owned());
    let mode = |mode: &str| parameters(json!({ "name": "mode", "valueCode": mode }));
    let profile = parameters(json!({ "name": "profile", "valueUri": "http://example.org/p" }));
    let claiming = json!({ "resourceType": "Patient", "meta": { "profile": ["http://example.org/p"] } });
    let hook = json!({ "resourceType": "Subscription", "status": "active", "reason": "r", "criteria": "Patient?", "channel": { "type": "rest-hook", "endpoint": "https://example.org/hook" } });
    for (path, body, expected) in [
        ("/Patient/$validate", &right, said("information", "")),
        ("/Patient/$validate", &wrong, said("error", "Patient.gender")),
        ("/Patient/$validate", &mode("create"), said("information", "")),
        ("/Patient/x/$validate", &mode("update"), said("error", "Patient.id")),
        ("/Patient/$validate", &profile, said("error", "")),
        ("/Patient/$validate", &claiming, said("warning", "Patient.meta.profile")),
        ("/Observation/$validate", &right, said("error", "resourceType")),
        ("/Subscription/$validate", &hook, said("error", "Subscription.status")),
    ] {
        assert_eq!(told(path, body), expected, "{path} {body}");
    }
    for (path, body) in [("/Patient/$validate", &mode("other")), ("/Patient/$validate", &Value::Null)] {
        assert_eq!(asking.open("POST", path, &[], body).status, 400, "{path} {body}");
    }
    assert_eq!(asking.open("GET", "/Patient?_summary=count", &[], &Value::Null).json()["total"], 0);
    asking.put("Patient/x", json!({ "gender": "male" }));
    let stored = asking.open("GET", "/Patient/x/$validate", &[], &Value::Null);
    assert_eq!((stored.status, stored.json()["issue"][0]["severity"].as_str()), (200, Some("information")));
    let key = asking.edge.key("system/Patient.s");
    assert_eq!(
        asking.keyed(&key, "GET", "/Patient/x/$validate", &[], &Value::Null).status,
        403,
        "it is a read"
    );
}

#[test]
fn tags_are_added_and_taken_away_without_the_rest() {
    let asking = Asking::new();
    asking.put(
        "Patient/x",
        json!({ "gender": "male", "meta": { "tag": [{ "system": "urn:t", "code": "kept" }] } }),
    );
    let meta = |more: &Value| json!({ "resourceType": "Parameters", "parameter": [{ "name": "meta", "valueMeta": more }] });
    let new = json!({ "tag": [{ "system": "urn:t", "code": "new" }], "security": [{ "system": "urn:s", "code": "R" }], "profile": ["http://example.org/p"] });
    let tags = |reply: &Reply| {
        assert_eq!(reply.status, 200, "{reply:?}");
        let meta = reply.json()["parameter"][0]["valueMeta"].clone();
        let codes = |name: &str| {
            meta[name]
                .as_array()
                .into_iter()
                .flatten()
                .map(|c| c["code"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        (
            meta["versionId"].as_str().unwrap().to_owned(),
            codes("tag"),
            codes("security"),
            meta["profile"].as_array().map_or(0, Vec::len),
        )
    };
    let names = |of: &[&str]| of.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    for _ in 0..2 {
        let added = asking.open("POST", "/Patient/x/$meta-add", &[], &meta(&new));
        assert_eq!(
            tags(&added),
            ("2".to_owned(), names(&["kept", "new"]), names(&["R"]), 1),
            "again it changes nothing"
        );
    }
    assert_eq!(asking.open("GET", "/Patient/x", &[], &Value::Null).json()["gender"], "male");
    let removed = asking.open("POST", "/Patient/x/$meta-delete", &[], &meta(&new));
    assert_eq!(tags(&removed), ("3".to_owned(), names(&["kept"]), names(&[]), 0));
    assert_eq!(tags(&asking.open("GET", "/Patient/x/$meta", &[], &Value::Null)).0, "3");
    assert_eq!(
        asking.open("POST", "/Patient/x/$meta-add", &[], &json!({ "resourceType": "Parameters" })).status,
        400
    );
    assert_eq!(asking.open("GET", "/Patient/x/$meta-add", &[], &Value::Null).status, 405);
    assert_eq!(asking.open("POST", "/Patient/absent/$meta-add", &[], &meta(&new)).status, 404);
    let key = asking.edge.key("system/Patient.rs");
    assert_eq!(asking.keyed(&key, "POST", "/Patient/x/$meta-add", &[], &meta(&new)).status, 403);
}

//! What a key may see and a write may change: conditions, answers, preconditions, bundles, masked secrets.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use harness::asking::Asking;
use serde_json::{Value, json};

fn patient(number: &str, born: &str) -> Value {
    json!({ "resourceType": "Patient", "identifier": [{ "system": "urn:mrn", "value": number }], "birthDate": born })
}

fn bundle(kind: &str, entries: &[Value]) -> Value {
    json!({ "resourceType": "Bundle", "type": kind, "entry": entries })
}

fn request(method: &str, url: &str) -> Value {
    json!({ "request": { "method": method, "url": url } })
}

#[test]
fn a_condition_is_a_search_and_a_strangers_record_is_a_read() {
    let asking = Asking::new();
    let stranger = asking.made(&patient("1", "1970-02-03"));
    let sent = patient("2", "1980-01-01");
    let condition = "If-None-Exist: birthdate=1970-02-03";
    let entry = json!({ "resource": sent, "request": { "method": "POST", "url": "Patient", "ifNoneExist": "birthdate=1970-02-03" } });
    let transaction = bundle("transaction", std::slice::from_ref(&entry));

    let only_create = asking.edge.key("system/Patient.c");
    let refused = asking.keyed(&only_create, "POST", "/Patient", &[condition], &sent);
    assert_eq!(refused.status, 403, "{refused:?}");
    assert!(refused.body.contains("system/Patient.s"), "{refused:?}");
    let refused = asking.keyed(&only_create, "POST", "", &[], &transaction);
    assert_eq!((refused.status, refused.body.contains("1970")), (403, false), "{refused:?}");

    let searching = asking.edge.key("system/Patient.cs");
    let found = asking.keyed(&searching, "POST", "/Patient", &[condition], &sent);
    assert_eq!((found.status, found.body.as_str()), (200, ""), "what stands there is not shown: {found:?}");
    assert!(found.header("location").is_some_and(|place| place.contains(&stranger)), "{found:?}");
    let prefer = "Prefer: return=representation";
    let found = asking.keyed(&searching, "POST", "", &[prefer], &transaction);
    assert_eq!((found.status, found.body.contains("1970")), (200, false), "{found:?}");
    let own = asking.keyed(&searching, "POST", "/Patient", &[], &sent);
    assert_eq!((own.status, own.json()["birthDate"].as_str()), (201, Some("1980-01-01")), "its own");

    let reading = asking.edge.key("system/Patient.crs");
    let found = asking.keyed(&reading, "POST", "/Patient", &[condition], &sent);
    assert_eq!(found.json()["birthDate"], "1970-02-03");

    let observing = asking.edge.key("system/Observation.c");
    let subject =
        json!({ "reference": format!("http://{}/fhir/Patient?birthdate=1970-02-03", asking.edge.keyed) });
    let probe = json!({ "resourceType": "Observation", "status": "final", "code": { "text": "x" }, "subject": subject });
    let entry = json!({ "resource": probe, "request": { "method": "POST", "url": "Observation" } });
    let entry = bundle("transaction", &[entry]);
    for refused in [
        asking.keyed(&observing, "POST", "", &[], &entry),
        asking.keyed(&observing, "POST", "/Observation", &[], &probe),
    ] {
        assert_eq!(refused.status, 403, "a conditional reference is a search: {refused:?}");
    }

    for (scope, method) in [("system/Patient.u", "PUT"), ("system/Patient.d", "DELETE")] {
        let key = asking.edge.key(scope);
        let body = if method == "PUT" { sent.clone() } else { Value::Null };
        let path = "/Patient?identifier=urn:mrn%7C1";
        let refused = asking.keyed(&key, method, path, &[], &body);
        assert_eq!(refused.status, 403, "{method}: {refused:?}");
    }
    assert_eq!(asking.current(&stranger)["birthDate"], "1970-02-03");
}

#[test]
fn a_key_may_come_as_a_bearer_token_and_wrong_ones_slow_only_themselves() {
    let asking = Asking::new();
    let key = asking.edge.key("system/Patient.rs");
    let bearer = key.replace("X-API-Key: ", "Authorization: Bearer ");
    let search = |header: &str| asking.keyed(header, "GET", "/Patient", &[], &Value::Null).status;
    assert_eq!((search(&bearer), search(&bearer.replace("Bearer", "bearer"))), (200, 200));
    assert_eq!(search(&bearer.replace("Bearer", "Basic")), 401);
    for _ in 0..40 {
        search("X-API-Key: hil_abc_def");
    }
    assert_eq!(search("X-API-Key: hil_abc_def"), 429);
    assert_eq!((search(&key), search(&bearer)), (200, 200), "a right key is served from the same address");
}

#[test]
fn if_match_and_if_none_match_hold_for_conditional_forms() {
    let asking = Asking::new();
    let path = asking.made(&patient("1", "1970-01-01"));
    let mut second = patient("1", "1970-01-02");
    second["id"] = path.rsplit('/').next().unwrap().into();
    assert_eq!(asking.open("PUT", &path, &[], &second).status, 200);
    let (condition, stale) = ("/Patient?identifier=urn:mrn%7C1", patient("1", "1999-09-09"));
    for (method, header, body) in [
        ("PUT", "If-Match: W/\"1\"", &stale),
        ("PUT", "If-None-Match: *", &stale),
        ("DELETE", "If-Match: W/\"1\"", &Value::Null),
    ] {
        assert_eq!(asking.open(method, condition, &[header], body).status, 412, "{method} {header}");
    }
    assert_eq!(asking.current(&path)["birthDate"], "1970-01-02", "nothing changed");
    assert_eq!(asking.open("PUT", condition, &["If-Match: W/\"2\""], &stale).status, 200);
    assert_eq!(asking.open("DELETE", condition, &["If-Match: W/\"3\""], &Value::Null).status, 204);
}

#[test]
fn if_none_exist_is_understood_in_every_form_that_clients_send() {
    let asking = Asking::new();
    let path = asking.made(&patient("1", "1970-01-01"));
    let sent = patient("2", "1980-01-01");
    let root = format!("http://{}/fhir", asking.edge.http);
    let entry = |condition: &str| json!({ "resource": sent, "request": { "method": "POST", "url": "Patient", "ifNoneExist": condition } });
    for query in ["birthdate=1970-01-01", "birthdate=1970-01-01&_id:missing=false"] {
        for condition in [
            query.to_owned(),
            format!("?{query}"),
            format!("Patient?{query}"),
            format!("/Patient?{query}"),
            format!("{root}/Patient?{query}"),
        ] {
            let found = asking.open("POST", "/Patient", &[&format!("If-None-Exist: {condition}")], &sent);
            assert_eq!(found.status, 200, "{condition}: {found:?}");
            assert!(
                found.header("location").is_some_and(|place| place.contains(&path)),
                "{condition}: {found:?}"
            );
            let found = asking.open("POST", "", &[], &bundle("batch", &[entry(&condition)])).json();
            assert_eq!(found["entry"][0]["response"]["status"], "200 OK", "{condition}: {found}");
        }
    }
    for condition in [
        "Observation?code=1",
        "http://elsewhere.example/fhir/Patient?birthdate=1970-01-01",
        "Patient/1?birthdate=1970-01-01",
    ] {
        let refused = asking.open("POST", "/Patient", &[&format!("If-None-Exist: {condition}")], &sent);
        assert_eq!(refused.status, 400, "{condition}: {refused:?}");
        let refused = asking.open("POST", "", &[], &bundle("batch", &[entry(condition)])).json();
        assert_eq!(refused["entry"][0]["response"]["status"], "400 Bad Request", "{condition}: {refused}");
    }
    let within_a_value = "If-None-Exist: identifier=urn:x|a?b";
    assert_eq!(asking.open("POST", "/Patient", &[within_a_value], &sent).status, 201);
}

#[test]
fn a_header_in_several_lines_is_one_list() {
    let asking = Asking::new();
    let path = asking.made(&patient("1", "1970-01-01"));
    let get = |path: &str, headers: &[&str]| asking.open("GET", path, headers, &Value::Null).status;
    assert_eq!(get(&path, &["Accept: text/turtle", "Accept: application/fhir+json"]), 200);
    assert_eq!(get(&path, &["If-None-Match: W/\"7\"", "If-None-Match: W/\"1\""]), 304);
    assert_eq!(get("/Patient?color=red", &["Prefer: return=minimal"]), 400);
    assert_eq!(get("/Patient?color=red", &["Prefer: return=minimal", "Prefer: handling=lenient"]), 200);
    let mut body = patient("1", "1970-01-02");
    body["id"] = path.rsplit('/').next().unwrap().into();
    let headers = ["If-Match: W/\"7\"", "If-Match: W/\"1\""];
    assert_eq!(asking.open("PUT", &path, &headers, &body).status, 200);
}

#[test]
fn the_head_of_an_answer_says_the_length_of_its_body() {
    let asking = Asking::new();
    let path = asking.made(&patient("1", "1970-01-01"));
    for path in [path.as_str(), "/Patient", "/metadata", "/Patient/nobody"] {
        let length = |method| {
            let reply = asking.open(method, path, &[], &Value::Null);
            (reply.status, reply.header("content-length").map(str::to_owned))
        };
        assert_eq!(length("HEAD"), length("GET"), "{path}");
    }
}

#[test]
fn an_entry_of_a_bundle_is_answered_as_its_request_would_be() {
    let asking = Asking::new();
    let there = asking.made(&patient("1", "1970-01-01"));
    let gone = asking.made(&patient("2", "1970-01-01"));
    assert_eq!(asking.open("DELETE", &gone, &[], &Value::Null).status, 204);
    let (there, gone) = (there.trim_start_matches('/'), gone.trim_start_matches('/'));
    let mut unchanged = request("GET", there);
    unchanged["request"]["ifNoneMatch"] = "W/\"1\"".into();
    let entries = [
        (request("GET", there), "200 OK", "Patient"),
        (request("GET", gone), "410 Gone", ""),
        (request("GET", &format!("{there}/_history/1")), "200 OK", "Patient"),
        (request("GET", &format!("{there}/_history")), "200 OK", "Bundle"),
        (request("GET", "Patient?identifier=urn:mrn%7C1"), "200 OK", "Bundle"),
        (request("GET", "metadata"), "200 OK", "CapabilityStatement"),
        (request("GET", &format!("http://{}/fhir/{there}", asking.edge.http)), "200 OK", "Patient"),
        (unchanged, "304 Not Modified", ""),
        (request("HEAD", there), "200 OK", ""),
        (request("GET", &format!("{there}/more/than/that")), "404 Not Found", ""),
        (request("GET", "Patient?birthdate=yesterday"), "400 Bad Request", ""),
        (request("DELETE", &format!("{there}/_history/1")), "400 Bad Request", ""),
        (request("DELETE", "Patient/nobody"), "204 No Content", ""),
    ];
    let sent: Vec<Value> = entries.iter().map(|(entry, ..)| entry.clone()).collect();
    let reply = asking.open("POST", "", &[], &bundle("batch", &sent));
    assert_eq!(reply.status, 200, "{reply:?}");
    let answered = reply.json();
    for (at, (entry, status, of)) in entries.iter().enumerate() {
        let answer = &answered["entry"][at];
        let told = (&answer["response"]["status"], answer["resource"]["resourceType"].as_str().unwrap_or(""));
        assert_eq!(told, (&json!(status), *of), "{entry}: {answer}");
        assert_eq!(answer["response"]["outcome"].is_object(), status.starts_with('4'), "{entry}: {answer}");
    }
    assert_eq!(answered["entry"][0]["response"]["etag"], "W/\"1\"");
    assert_eq!(
        answered["entry"][0]["response"]["lastModified"],
        answered["entry"][0]["resource"]["meta"]["lastUpdated"]
    );
    assert!(answered["entry"][12]["response"].get("location").is_none(), "there is no version 0");
}

#[test]
fn a_read_of_a_transaction_never_undoes_what_was_committed() {
    let asking = Asking::new();
    let write = |number: &str| json!({ "resource": patient(number, "1970-01-01"), "request": { "method": "POST", "url": "Patient" } });
    let count = |number: &str| {
        asking.current(&format!("/Patient?identifier=urn:mrn%7C{number}&_summary=count"))["total"].clone()
    };
    let nobody = bundle("transaction", &[write("1"), request("GET", "Patient/nobody")]);
    let reply = asking.open("POST", "", &[], &nobody);
    assert_eq!((reply.status, count("1")), (200, json!(1)), "{reply:?}");
    assert_eq!(reply.json()["entry"][1]["response"]["status"], "404 Not Found");
    for (url, status) in
        [("Patient?birthdate=yesterday", 400), ("Nothing/1", 404), ("Patient/$everything", 404)]
    {
        let wrong = bundle("transaction", &[write("2"), request("GET", url)]);
        let reply = asking.open("POST", "", &[], &wrong);
        assert_eq!((reply.status, count("2")), (status, json!(0)), "{url}: {reply:?}");
    }
    let key = asking.edge.key("system/Patient.c");
    let forbidden = bundle("transaction", &[write("3"), request("GET", "Patient/nobody")]);
    let reply = asking.keyed(&key, "POST", "", &[], &forbidden);
    assert_eq!((reply.status, count("3")), (403, json!(0)), "{reply:?}");
    let mut own = write("4");
    own["request"] = json!({ "method": "PUT", "url": "Patient/four" });
    own["resource"]["id"] = "four".into();
    let reply = asking.open("POST", "", &[], &bundle("transaction", &[request("GET", "Patient/four"), own]));
    assert_eq!(reply.json()["entry"][0]["resource"]["id"], "four", "reads see what was written: {reply:?}");
}

#[test]
fn links_to_entries_are_replaced_in_every_element_that_can_hold_one() {
    let asking = Asking::new();
    let url = "urn:uuid:0b7d0001-5a11-4c1e-9a01-000000000001";
    let binary = json!({ "resourceType": "Binary", "contentType": "text/plain", "data": "AAAA" });
    let div = format!("<div xmlns=\"http://www.w3.org/1999/xhtml\"><a href=\"{url}\">report</a></div>");
    let report = json!({ "resourceType": "DiagnosticReport", "status": "final", "code": { "text": url },
        "text": { "status": "generated", "div": div }, "meta": { "profile": [url] },
        "extension": [{ "url": "urn:example:source", "valueUri": url }],
        "presentedForm": [{ "url": url }, { "url": format!("{url}/_history/1") }] });
    let entries = [
        json!({ "fullUrl": url, "resource": binary, "request": { "method": "POST", "url": "Binary" } }),
        json!({ "resource": report, "request": { "method": "POST", "url": "DiagnosticReport" } }),
    ];
    let reply = asking.open("POST", "", &[], &bundle("transaction", &entries));
    assert_eq!(reply.status, 200, "{reply:?}");
    let made = asking.current("/Binary")["entry"][0]["resource"]["id"].as_str().unwrap().to_owned();
    let report = asking.current("/DiagnosticReport")["entry"][0]["resource"].clone();
    let link = format!("Binary/{made}");
    assert_eq!(report["presentedForm"], json!([{ "url": link }, { "url": format!("{link}/_history/1") }]));
    assert_eq!(report["extension"][0]["valueUri"], json!(link));
    assert!(report["text"]["div"].as_str().unwrap().contains(&format!("href=\"{link}\"")), "{report}");
    assert_eq!(
        (&report["code"]["text"], &report["meta"]["profile"][0]),
        (&json!(url), &json!(url)),
        "no links"
    );
}

#[test]
fn a_mask_is_never_stored_as_if_it_were_the_secret() {
    let asking = Asking::new();
    let secrets = json!(["Authorization: Bearer s3cret", "X-Part: one", "X-Part: two"]);
    let endpoint = json!({ "resourceType": "Endpoint", "status": "active", "name": "hook", "address": "http://127.0.0.1:9/",
        "identifier": [{ "system": "urn:e", "value": "1" }], "header": secrets,
        "connectionType": { "system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "code": "hl7-fhir-rest" },
        "payloadType": [{ "text": "any" }], "payloadMimeType": ["application/fhir+json"] });
    let revealing = asking.edge.key("system/Endpoint.cruds endpoint.reveal");
    let made = asking.keyed(&revealing, "POST", "/Endpoint", &[], &endpoint);
    assert_eq!(made.status, 201, "{made:?}");
    let path = format!("/Endpoint/{}", made.json()["id"].as_str().unwrap());
    let key = asking.edge.key("system/Endpoint.cruds");
    let mut masked = asking.keyed(&key, "GET", &path, &[], &Value::Null).json();
    assert_eq!(masked["header"], json!(["Authorization: ********", "X-Part: ********", "X-Part: ********"]));
    masked["name"] = "renamed".into();
    let by_id = asking.keyed(&key, "PUT", &path, &[], &masked);
    assert_eq!(by_id.status, 200, "{by_id:?}");
    let condition = "/Endpoint?identifier=urn:e%7C1";
    let entry =
        |method: &str, url: &str| json!({ "resource": masked, "request": { "method": method, "url": url } });
    for (what, reply) in [
        ("PUT with a condition", asking.keyed(&key, "PUT", condition, &[], &masked)),
        ("POST of a copy", asking.keyed(&key, "POST", "/Endpoint", &[], &masked)),
        (
            "the same in a transaction",
            asking.keyed(
                &key,
                "POST",
                "",
                &[],
                &bundle("transaction", &[entry("PUT", condition.trim_start_matches('/'))]),
            ),
        ),
        (
            "a copy in a transaction",
            asking.keyed(&key, "POST", "", &[], &bundle("transaction", &[entry("POST", "Endpoint")])),
        ),
    ] {
        assert_eq!(reply.status, 422, "{what}: {reply:?}");
    }
    let by_id = bundle("transaction", &[entry("PUT", path.trim_start_matches('/'))]);
    assert_eq!(asking.keyed(&key, "POST", "", &[], &by_id).status, 200);
    let kept = asking.keyed(&revealing, "GET", &path, &[], &Value::Null).json();
    assert_eq!((&kept["header"], &kept["name"]), (&secrets, &json!("renamed")));
    // who may not see a secret does not send it elsewhere
    masked["address"] = "http://127.0.0.1:10/".into();
    let moved = asking.keyed(&key, "PUT", &path, &[], &masked);
    assert_eq!((moved.status, moved.body.contains("address")), (422, true), "{moved:?}");
    let moved = bundle(
        "transaction",
        &[json!({ "resource": masked, "request": { "method": "PUT", "url": path[1..] } })],
    );
    assert_eq!(asking.keyed(&key, "POST", "", &[], &moved).status, 422);
    assert_eq!(asking.keyed(&revealing, "GET", &path, &[], &Value::Null).json(), kept);
}

#[test]
fn a_part_of_a_resource_does_not_replace_the_whole() {
    let asking = Asking::new();
    let path = asking.made(&patient("1", "1970-01-01"));
    let whole = asking.current(&path);
    for part in ["_elements=birthDate", "_summary=true", "_summary=text"] {
        let mut part = asking.current(&format!("{path}?{part}"));
        part["active"] = true.into();
        let url = path.trim_start_matches('/');
        let entry = json!({ "resource": part, "request": { "method": "PUT", "url": url } });
        for reply in [
            asking.open("PUT", &path, &[], &part),
            asking.open("PUT", "/Patient?identifier=urn:mrn%7C1", &[], &part),
            asking.open("POST", "/Patient", &[], &part),
            asking.open("POST", "", &[], &bundle("transaction", std::slice::from_ref(&entry))),
        ] {
            assert_eq!((reply.status, reply.body.contains("SUBSETTED")), (422, true), "{reply:?}");
        }
    }
    assert_eq!(asking.current(&path), whole);
}

#[test]
fn a_conditional_reference_sees_what_its_transaction_makes_and_no_longer_what_it_deletes() {
    let asking = Asking::new();
    let observation = |number: &str| {
        let subject = json!({ "reference": format!("Patient?identifier=urn:mrn%7C{number}") });
        let resource = json!({ "resourceType": "Observation", "status": "final", "code": { "text": number }, "subject": subject });
        json!({ "resource": resource, "request": { "method": "POST", "url": "Observation" } })
    };
    let create = |number: &str| json!({ "resource": patient(number, "1970-01-01"), "request": { "method": "POST", "url": "Patient" } });
    let mut put = create("2");
    put["request"] = json!({ "method": "PUT", "url": "Patient/two" });
    put["resource"]["id"] = "two".into();
    let send = |entries: &[Value]| asking.open("POST", "", &[], &bundle("transaction", entries));
    let told = send(&[observation("1"), create("1"), put, observation("2")]);
    assert_eq!(told.status, 200, "{told:?}");
    let subject = |text: &str| {
        let found = asking.current("/Observation")["entry"].as_array().unwrap().clone();
        let one = found.into_iter().find(|entry| entry["resource"]["code"]["text"] == text).unwrap();
        one["resource"]["subject"]["reference"].clone()
    };
    let made = asking.current("/Patient?identifier=urn:mrn%7C1")["entry"][0]["resource"]["id"].clone();
    assert_eq!(subject("1"), format!("Patient/{}", made.as_str().unwrap()));
    assert_eq!(subject("2"), "Patient/two");

    let gone = send(&[request("DELETE", "Patient/two"), observation("2")]);
    assert_eq!(gone.status, 412, "it is deleted in the same transaction: {gone:?}");
    let several = send(&[create("3"), create("3"), observation("3")]);
    assert_eq!(several.status, 412, "which of the two? {several:?}");
    let both = send(&[create("1"), observation("1")]);
    assert_eq!(both.status, 412, "the stored one or the new one? {both:?}");
}

#[test]
fn a_reference_by_an_own_address_is_one_without_it() {
    let asking = Asking::new();
    let path = asking.made(&patient("1", "1970-01-01"));
    let (patient, host) = (path.trim_start_matches('/').to_owned(), asking.edge.http);
    let observation = |reference: &str| json!({ "resourceType": "Observation", "status": "final", "code": { "text": "x" }, "subject": { "reference": reference } });
    for base in [
        format!("http://{host}/fhir"),
        format!("https://{host}/fhir"),
        format!("http://{host}/site/default/fhir"),
    ] {
        asking.made(&observation(&format!("{base}/{patient}")));
    }
    let foreign = ["http://elsewhere.example/fhir".to_owned(), format!("http://{host}/site/other/fhir")];
    for base in &foreign {
        asking.made(&observation(&format!("{base}/{patient}")));
    }
    let found = |search: &str| asking.current(search)["entry"].as_array().map_or(0, Vec::len);
    for wanted in [
        patient.clone(),
        format!("http://{host}/fhir/{patient}"),
        format!("http://{host}/site/default/fhir/{patient}"),
    ] {
        assert_eq!(found(&format!("/Observation?subject={wanted}")), 3, "{wanted}");
    }
    assert_eq!(found(&format!("/Patient?_id={}&_revinclude=Observation:subject", &patient[8..])), 4);
    for base in &foreign {
        assert_eq!(found(&format!("/Observation?subject={base}/{patient}")), 1, "{base} is another server");
    }
    // it is checked like a relative one, at every door
    let wrong = observation(&format!("http://{host}/fhir/Medication/1"));
    let entry = json!({ "resource": wrong, "request": { "method": "POST", "url": "Observation" } });
    for reply in [
        asking.open("POST", "/Observation", &[], &wrong),
        asking.open("POST", "", &[], &bundle("transaction", std::slice::from_ref(&entry))),
    ] {
        assert_eq!(reply.status, 422, "an observation is not of a medication: {reply:?}");
    }
    // the full URL of an entry that looks like an own address names the entry
    let url = format!("http://{host}/fhir/Patient/not-yet");
    let entries = [
        json!({ "fullUrl": url, "resource": self::patient("2", "1970-01-01"), "request": { "method": "POST", "url": "Patient" } }),
        json!({ "resource": observation(&url), "request": { "method": "POST", "url": "Observation" } }),
    ];
    assert_eq!(asking.open("POST", "", &[], &bundle("transaction", &entries)).status, 200);
    assert_eq!(found("/Patient?identifier=urn:mrn%7C2&_revinclude=Observation:subject"), 2);
}

#[test]
fn a_reference_of_an_entry_is_resolved_from_where_the_entry_comes() {
    let asking = Asking::new();
    let ours = asking.open("PUT", "/Patient/1", &[], &{
        let mut ours = patient("ours", "1950-01-01");
        ours["id"] = "1".into();
        ours
    });
    assert_eq!(ours.status, 201, "{ours:?}");
    let observation = |id: &str, subject: &str| {
        json!({ "fullUrl": format!("https://other.example/fhir/Observation/{id}"),
            "resource": { "resourceType": "Observation", "status": "final", "code": { "text": id }, "subject": { "reference": subject } },
            "request": { "method": "POST", "url": "Observation" } })
    };
    let theirs = json!({ "fullUrl": "https://other.example/fhir/Patient/1", "resource": patient("theirs", "1999-09-09"),
        "request": { "method": "POST", "url": "Patient" } });
    // the other server's Patient/1 is in the transaction, and its Patient/2 is not
    let reply = asking.open(
        "POST",
        "",
        &[],
        &bundle("transaction", &[observation("a", "Patient/1"), theirs, observation("b", "Patient/2")]),
    );
    assert_eq!(reply.status, 200, "{reply:?}");
    let subject = |at: usize| {
        let location = reply.json()["entry"][at]["response"]["location"].as_str().unwrap().to_owned();
        let path = location.split("/fhir").nth(1).unwrap().to_owned();
        let of = asking.current(&path)["subject"]["reference"].as_str().map(str::to_owned);
        of.unwrap_or_default()
    };
    let named = subject(0);
    assert_ne!(named, "Patient/1", "that is somebody else here");
    assert_eq!(asking.current(&format!("/{named}"))["birthDate"], "1999-09-09");
    assert_eq!(subject(2), "https://other.example/fhir/Patient/2");
}

#[test]
fn a_name_that_no_entry_has_is_refused_and_nothing_is_written() {
    let asking = Asking::new();
    let of = |subject: &str| {
        json!({ "resource": { "resourceType": "Observation", "status": "final", "code": { "text": "x" }, "subject": { "reference": subject } },
            "request": { "method": "POST", "url": "Observation" } })
    };
    let known = json!({ "fullUrl": "urn:uuid:05efabf0-4be2-4561-91ce-51548425acb9", "resource": patient("1", "1970-01-01"),
        "request": { "method": "POST", "url": "Patient" } });
    for (kind, status) in [("transaction", "422"), ("batch", "200")] {
        let reply = asking.open(
            "POST",
            "",
            &[],
            &bundle(kind, &[of("urn:uuid:ffffffff-4be2-4561-91ce-51548425acb9"), known.clone()]),
        );
        assert_eq!(reply.status.to_string(), status, "{kind}: {reply:?}");
        assert!(
            reply.body.contains("urn:uuid that no entry") && reply.body.contains("Bundle.entry[0]"),
            "{reply:?}"
        );
    }
    assert_eq!(asking.edge.total("/fhir/Observation?_total=accurate"), 0);
    let reply = asking.open(
        "POST",
        "",
        &[],
        &bundle("transaction", &[of("urn:uuid:05efabf0-4be2-4561-91ce-51548425acb9"), known]),
    );
    assert_eq!(reply.status, 200, "{reply:?}");
}

#[test]
fn a_write_of_a_bundle_may_name_its_resource_by_an_own_address() {
    let asking = Asking::new();
    let path = asking.made(&patient("1", "1970-01-01"));
    let own = format!("http://{}/fhir{path}", asking.edge.http);
    let reply = asking.open("POST", "", &[], &bundle("transaction", &[request("DELETE", &own)]));
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(asking.open("GET", &path, &[], &Value::Null).status, 410);
    let foreign = "https://other.example/fhir/Patient/1";
    let reply = asking.open("POST", "", &[], &bundle("transaction", &[request("DELETE", foreign)]));
    assert_eq!(reply.status, 400, "{reply:?}");
}

#[test]
fn one_resource_is_written_once_in_a_transaction_also_by_conditions() {
    let asking = Asking::new();
    let path = asking.made(&patient("1", "1970-01-01"));
    let put = |url: &str, born: &str, id: Option<&str>| {
        let mut content = patient("1", born);
        if let Some(id) = id {
            content["id"] = id.into();
        }
        json!({ "resource": content, "request": { "method": "PUT", "url": url } })
    };
    let by_condition = || put("Patient?identifier=urn:mrn%7C1", "1971-01-01", None);
    let by_id = put(&path[1..], "1972-01-01", Some(&path[9..]));
    let created =
        json!({ "resource": patient("2", "1970-01-01"), "request": { "method": "POST", "url": "Patient" } });
    let again = json!({ "resource": patient("2", "1971-01-01"), "request": { "method": "PUT", "url": "Patient?identifier=urn:mrn%7C2" } });
    for entries in [
        vec![by_condition(), by_condition()],
        vec![by_id.clone(), by_condition()],
        vec![request("DELETE", &path[1..]), by_id],
        vec![created, again],
    ] {
        let reply = asking.open("POST", "", &[], &bundle("transaction", &entries));
        assert!(matches!(reply.status, 400 | 409), "{entries:?}: {reply:?}");
    }
    assert_eq!(asking.current(&path)["birthDate"], "1970-01-01");
    let twice = [
        by_condition(),
        request("DELETE", "Patient?identifier=nobody"),
        request("DELETE", "Patient?identifier=nobody"),
    ];
    assert_eq!(asking.open("POST", "", &[], &bundle("transaction", &twice)).status, 200);
}

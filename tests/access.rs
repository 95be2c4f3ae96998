//! Who may do what: every route with every scope, and scopes with a filter through every way of reading and writing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use std::collections::BTreeMap;

use harness::Edge;
use harness::http::{self, Reply};
use serde_json::{Value, json};

const JSON: &str = "Content-Type: application/fhir+json";

/// Every scope that a route below asks for, alone.
const SCOPES: [&str; 16] = [
    "system/Patient.c",
    "system/Patient.r",
    "system/Patient.u",
    "system/Patient.d",
    "system/Patient.s",
    "system/Observation.cruds",
    "system/Subscription.c",
    "system/Subscription.u",
    "ingest/hl7v2",
    "ingest/hl7v3",
    "ingest/mpps",
    "endpoint.reveal",
    "admin/metrics",
    "admin/submissions",
    "admin/studies",
    "admin/deliveries",
];

/// A request, and the scopes that it needs together.
struct Route {
    method: &'static str,
    path: &'static str,
    headers: &'static [&'static str],
    body: String,
    needs: &'static [&'static str],
}

fn route(method: &'static str, path: &'static str, body: &Value, needs: &'static [&'static str]) -> Route {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let headers: &[&str] = if body.is_empty() { &[] } else { &[JSON] };
    Route { method, path, headers, body, needs }
}

fn entry(method: &str, url: &str, resource: &Value) -> Value {
    let mut entry = json!({ "request": { "method": method, "url": url } });
    if !resource.is_null() {
        entry["resource"] = resource.clone();
    }
    json!({ "resourceType": "Bundle", "type": "transaction", "entry": [entry] })
}

fn routes() -> Vec<Route> {
    let (new, known) =
        (json!({ "resourceType": "Patient" }), json!({ "resourceType": "Patient", "id": "p" }));
    let subscription = |status: &str| {
        json!({ "resourceType": "Subscription", "id": "s", "status": status, "reason": "r", "criteria": "Patient?gender=female",
            "channel": { "type": "rest-hook", "endpoint": "https://hook.example" } })
    };
    let meta = json!({ "resourceType": "Parameters", "parameter": [{ "name": "meta", "valueMeta": {} }] });
    let nothing = &Value::Null;
    let mut routes = vec![
        route("GET", "/fhir/metadata", nothing, &[]),
        route("POST", "/fhir/Patient", &new, &["system/Patient.c"]),
        route("GET", "/fhir/Patient/p", nothing, &["system/Patient.r"]),
        route("HEAD", "/fhir/Patient/p", nothing, &["system/Patient.r"]),
        route("GET", "/fhir/Patient/p/_history", nothing, &["system/Patient.r"]),
        route("GET", "/fhir/Patient/p/_history/1", nothing, &["system/Patient.r"]),
        route("GET", "/fhir/Patient?gender=female", nothing, &["system/Patient.s"]),
        route("POST", "/fhir/Patient/_search", nothing, &["system/Patient.s"]),
        route("GET", "/fhir/Patient/p/$everything", nothing, &["system/Patient.r"]),
        route("GET", "/fhir/Patient/p/$meta", nothing, &["system/Patient.r"]),
        route("POST", "/fhir/Patient/p/$meta-add", &meta, &["system/Patient.r", "system/Patient.u"]),
        route("POST", "/fhir/Patient/p/$meta-delete", &meta, &["system/Patient.r", "system/Patient.u"]),
        route("GET", "/fhir/Patient/p/$validate", nothing, &["system/Patient.r"]),
        route("POST", "/fhir", &entry("GET", "Patient/p/$everything", nothing), &["system/Patient.r"]),
        route("PUT", "/fhir/Patient/p", &known, &["system/Patient.u"]),
        route("PUT", "/fhir/Patient?identifier=nobody", &new, &["system/Patient.u", "system/Patient.s"]),
        route("DELETE", "/fhir/Patient/nobody", nothing, &["system/Patient.d"]),
        route(
            "DELETE",
            "/fhir/Patient?identifier=nobody",
            nothing,
            &["system/Patient.d", "system/Patient.s"],
        ),
        route("POST", "/fhir", &entry("POST", "Patient", &new), &["system/Patient.c"]),
        route("POST", "/fhir", &entry("GET", "Patient/p", nothing), &["system/Patient.r"]),
        route("POST", "/fhir", &entry("GET", "Patient/p/_history", nothing), &["system/Patient.r"]),
        route("POST", "/fhir", &entry("GET", "Patient?gender=male", nothing), &["system/Patient.s"]),
        route("POST", "/fhir", &entry("PUT", "Patient/p", &known), &["system/Patient.u"]),
        route("POST", "/fhir", &entry("DELETE", "Patient/nobody", nothing), &["system/Patient.d"]),
        route(
            "POST",
            "/fhir",
            &entry("DELETE", "Patient?identifier=nobody", nothing),
            &["system/Patient.d", "system/Patient.s"],
        ),
        route(
            "POST",
            "/fhir/Subscription",
            &subscription("requested"),
            &["system/Subscription.c", "system/Patient.r", "system/Patient.s"],
        ),
        route(
            "PUT",
            "/fhir/Subscription/s",
            &subscription("requested"),
            &["system/Subscription.u", "system/Patient.r", "system/Patient.s"],
        ),
        route("PUT", "/fhir/Subscription/s", &subscription("off"), &["system/Subscription.u"]),
        route("GET", "/admin/submissions", nothing, &["admin/submissions"]),
        route("GET", "/admin/submissions/1", nothing, &["admin/submissions"]),
        route("GET", "/admin/submissions/1/original", nothing, &["admin/submissions"]),
        route("POST", "/admin/submissions/99999/replay", nothing, &["admin/submissions"]),
        route("GET", "/admin/studies/1.2.3", nothing, &["admin/studies"]),
        route("DELETE", "/admin/studies/1.2.3", nothing, &["admin/studies"]),
        route("GET", "/admin/deliveries", nothing, &["admin/deliveries"]),
        route("POST", "/admin/deliveries/nobody/1/pass-over", nothing, &["admin/deliveries"]),
        route("GET", "/metrics", nothing, &["admin/metrics"]),
    ];
    let text = |path, content_type: &'static [&'static str], needs| Route {
        method: "POST",
        path,
        headers: content_type,
        body: "x".into(),
        needs,
    };
    routes.push(text("/v2/ingest", &["Content-Type: text/plain"], &["ingest/hl7v2"]));
    routes.push(text("/v3/ingest", &["Content-Type: application/xml"], &["ingest/hl7v3"]));
    routes.push(text("/ingest", &["Content-Type: application/json"], &["ingest/mpps"]));
    let condition = Route {
        headers: &[JSON, "If-None-Exist: identifier=urn:x%7C1"],
        ..route("POST", "/fhir/Patient", &new, &["system/Patient.c", "system/Patient.s"])
    };
    routes.push(condition);
    routes.push(Route {
        headers: &["Content-Type: application/json-patch+json"],
        body: "[]".into(),
        // a `test` in a patch tells what stands there
        ..route("PATCH", "/fhir/Patient/p", nothing, &["system/Patient.u", "system/Patient.r"])
    });
    routes
}

/// An edge with keys made as they are asked for.
struct Asking {
    edge: Edge,
    keys: BTreeMap<String, String>,
    _dir: tempfile::TempDir,
}

impl Asking {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { edge: Edge::start(dir.path()), keys: BTreeMap::new(), _dir: dir }
    }

    fn with(&mut self, scopes: &str, method: &str, path: &str, headers: &[&str], body: &str) -> Reply {
        let edge = &self.edge;
        let key = self.keys.entry(scopes.to_owned()).or_insert_with(|| edge.key(scopes));
        let headers: Vec<&str> = headers.iter().copied().chain([key.as_str()]).collect();
        http::send(edge.keyed, method, path, &headers, body)
    }

    fn json(&mut self, scopes: &str, method: &str, path: &str, body: &Value) -> Reply {
        let (headers, body): (&[&str], String) =
            if body.is_null() { (&[], String::new()) } else { (&[JSON], body.to_string()) };
        self.with(scopes, method, &format!("/fhir{path}"), headers, &body)
    }

    /// With every right.
    fn put(&self, resource: &Value) {
        let path = format!(
            "/fhir/{}/{}",
            resource["resourceType"].as_str().unwrap(),
            resource["id"].as_str().unwrap()
        );
        let reply = http::send(self.edge.http, "PUT", &path, &[JSON], resource.to_string());
        assert!(reply.status < 300, "{reply:?}");
    }
}

#[test]
fn every_route_asks_for_its_scopes_and_for_no_other() {
    let mut asking = Asking::new();
    asking.put(&json!({ "resourceType": "Patient", "id": "p" }));
    let mut wrong = Vec::new();
    for one in routes() {
        let mut ask = |scopes: &str, is_allowed: bool| {
            let reply = asking.with(scopes, one.method, one.path, one.headers, &one.body);
            let is_right = (reply.status != 403) == is_allowed && reply.status != 401;
            if !is_right {
                wrong.push(format!(
                    "{} {} {} with {scopes:?}: {}",
                    one.method, one.path, one.body, reply.status
                ));
            }
        };
        for scope in SCOPES {
            ask(scope, one.needs.iter().all(|needed| *needed == scope));
        }
        if !one.needs.is_empty() {
            ask(&one.needs.join(" "), true);
        }
        for left_out in one.needs.iter().filter(|_| one.needs.len() > 1) {
            let others: Vec<&str> = one.needs.iter().copied().filter(|needed| needed != left_out).collect();
            ask(&others.join(" "), false);
        }
        ask("admin/all", true);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn observation(id: &str, category: &str) -> Value {
    json!({ "resourceType": "Observation", "id": id, "status": "final", "code": { "text": "x" },
        "subject": { "reference": "Patient/p" }, "category": [{ "coding": [{ "system": "urn:c", "code": category }] }] })
}

/// A key whose scope has a filter.
const LAB: &str = "system/Observation.cruds?category=urn:c|lab system/Patient.rs";

#[test]
fn what_a_filter_leaves_out_is_read_in_no_way() {
    let mut asking = Asking::new();
    asking.put(&json!({ "resourceType": "Patient", "id": "p" }));
    asking.put(&observation("lab", "lab"));
    asking.put(&observation("secret", "psychiatry"));
    // one that was in the part and is not any more
    asking.put(&observation("moved", "lab"));
    asking.put(&observation("moved", "psychiatry"));
    let ids = |reply: &Reply| -> Vec<String> {
        let entries = reply.json()["entry"].as_array().cloned().unwrap_or_default();
        let id = |entry: &Value| entry["resource"]["id"].as_str().map(str::to_owned);
        let mut ids: Vec<String> = entries.iter().filter_map(id).collect();
        ids.sort();
        ids
    };
    for (path, found) in [
        ("/Observation", &["lab"][..]),
        ("/Observation?_id=secret,lab", &["lab"]),
        ("/Observation?category=psychiatry", &[]),
        ("/Observation?category:not=lab", &[]),
        ("/Observation?subject=Patient/p&_sort=-_lastUpdated", &["lab"]),
        ("/Patient?_revinclude=Observation:subject", &["lab", "p"]),
    ] {
        let reply = asking.json(LAB, "GET", path, &Value::Null);
        assert_eq!(
            (reply.status, ids(&reply)),
            (200, found.iter().map(|id| (*id).to_owned()).collect()),
            "{path}"
        );
    }
    for path in [
        "/Observation?_summary=count",
        "/Observation?_total=accurate",
        "/Observation?subject=Patient/p&_total=accurate",
    ] {
        assert_eq!(asking.json(LAB, "GET", path, &Value::Null).json()["total"], 1, "{path}");
    }
    for path in [
        "/Observation/secret",
        "/Observation/secret/_history",
        "/Observation/secret/_history/1",
        "/Observation/moved",
        "/Observation/nobody",
    ] {
        let reply = asking.json(LAB, "GET", path, &Value::Null);
        assert_eq!((reply.status, reply.body.contains("psychiatry")), (404, false), "{path}: {reply:?}");
    }
    let history = asking.json(LAB, "GET", "/Observation/moved/_history", &Value::Null);
    assert_eq!(
        history.json()["entry"].as_array().map(Vec::len),
        Some(1),
        "the version that was in the part: {history:?}"
    );
    let read = |url: &str| json!({ "request": { "method": "GET", "url": url } });
    let bundle = json!({ "resourceType": "Bundle", "type": "batch",
        "entry": [read("Observation/secret"), read("Observation/lab"), read("Observation?category=psychiatry")] });
    let reply = asking.json(LAB, "POST", "", &bundle);
    let status =
        |at: usize| reply.json()["entry"][at]["response"]["status"].as_str().unwrap()[..3].to_owned();
    assert_eq!([status(0), status(1), status(2)], ["404", "200", "200"], "{reply:?}");
    assert_eq!(reply.json()["entry"][2]["resource"]["total"], 0, "{reply:?}");
}

#[test]
fn what_a_filter_leaves_out_is_written_in_no_way() {
    let mut asking = Asking::new();
    asking.put(&json!({ "resourceType": "Patient", "id": "p" }));
    asking.put(&observation("lab", "lab"));
    asking.put(&observation("secret", "psychiatry"));
    let (inside, outside) = (observation("lab", "lab"), observation("lab", "psychiatry"));
    let into_secret = observation("secret", "lab");
    let refused = [
        ("POST", "/Observation", &outside),
        ("PUT", "/Observation/lab", &outside),
        ("PUT", "/Observation/secret", &into_secret),
        ("DELETE", "/Observation/secret", &Value::Null),
        ("PUT", "/Observation?category=lab", &inside),
        ("DELETE", "/Observation?category=lab", &Value::Null),
        ("PUT", "/Observation/new", &observation("new", "psychiatry")),
    ];
    for (method, path, body) in refused {
        let reply = asking.json(LAB, method, path, body);
        assert_eq!(reply.status, 403, "{method} {path}: {reply:?}");
    }
    for (method, url, resource) in
        [("PUT", "Observation/secret", &into_secret), ("DELETE", "Observation/secret", &Value::Null)]
    {
        let reply = asking.json(LAB, "POST", "", &entry(method, url, resource));
        assert_eq!(reply.status, 403, "{method} {url}: {reply:?}");
    }
    let secret = asking.edge.get("/fhir/Observation/secret");
    assert_eq!(
        (&secret["meta"]["versionId"], &secret["category"][0]["coding"][0]["code"]),
        (&json!("1"), &json!("psychiatry"))
    );
    for (method, path, body, status) in [
        ("POST", "/Observation", &inside, 201),
        ("PUT", "/Observation/lab", &inside, 200),
        ("PUT", "/Observation/fresh", &observation("fresh", "lab"), 201),
        ("DELETE", "/Observation/lab", &Value::Null, 204),
    ] {
        let reply = asking.json(LAB, method, path, body);
        assert_eq!(reply.status, status, "{method} {path}: {reply:?}");
    }
}

/// A key that may see one part of the patients.
const WOMEN: &str = "system/Observation.rs system/Patient.rs?gender=female";

/// A search that asks of another resource reads it: what may not be searched decides on nothing.
#[test]
fn what_may_not_be_searched_is_not_found_through_a_chain() {
    let mut asking = Asking::new();
    for (id, family, gender) in [("p", "Smith", "male"), ("q", "Jones", "female")] {
        asking.put(
            &json!({ "resourceType": "Patient", "id": id, "gender": gender, "name": [{ "family": family }] }),
        );
    }
    let of = |id: &str, category: &str, patient: &str| {
        let mut body = observation(id, category);
        body["subject"]["reference"] = format!("Patient/{patient}").into();
        body
    };
    for body in [of("o1", "lab", "p"), of("o2", "lab", "q"), of("secret", "psychiatry", "q")] {
        asking.put(&body);
    }
    for (scopes, path, status, total) in [
        ("admin/all", "/Observation?patient.name=smith", 200, 1),
        (WOMEN, "/Observation?patient.name=smith", 200, 0),
        (WOMEN, "/Observation?_id=o1&patient.name:contains=mit", 200, 0),
        (WOMEN, "/Observation?subject:Patient.name=jones", 200, 2),
        (LAB, "/Patient?_has:Observation:patient:category=lab", 200, 2),
        (LAB, "/Patient?_has:Observation:patient:category=psychiatry", 200, 0),
        (LAB, "/Patient?_id=q&_has:Observation:patient:category:not=lab", 200, 0),
        ("system/Observation.rs", "/Observation?patient.name=jones", 403, 0),
        ("system/Observation.rs system/Patient.r", "/Observation?patient.name=jones", 403, 0),
        ("system/Patient.rs", "/Patient?_has:Observation:patient:category=lab", 403, 0),
    ] {
        let reply = asking.json(scopes, "GET", &format!("{path}&_total=accurate"), &Value::Null);
        assert_eq!(reply.status, status, "{scopes} {path}: {reply:?}");
        if status == 200 {
            assert_eq!(reply.json()["total"], total, "{scopes} {path}: {reply:?}");
        } else {
            assert!(reply.body.contains("system/"), "names the scope that lacks: {reply:?}");
        }
        let bundle = entry("GET", &format!("{path}&_total=accurate")[1..], &Value::Null);
        let reply = asking.json(scopes, "POST", "", &bundle);
        assert_eq!(reply.status, status, "{scopes} {path} in a transaction: {reply:?}");
        if status == 200 {
            assert_eq!(reply.json()["entry"][0]["resource"]["total"], total, "{scopes} {path}: {reply:?}");
        }
    }
}

#[test]
fn a_chain_is_followed_over_pages_and_refused_where_it_is_not_understood_or_decides_a_write() {
    let mut asking = Asking::new();
    asking.put(&json!({ "resourceType": "Patient", "id": "p", "name": [{ "family": "Smith" }] }));
    for at in 0..5 {
        asking.put(&observation(&format!("o{at}"), "lab"));
    }
    let (mut found, mut path) = (0, "/Observation?patient.name=smith&_count=2".to_owned());
    loop {
        let page = asking.json("admin/all", "GET", &path, &Value::Null).json();
        found += page["entry"].as_array().map_or(0, Vec::len);
        let links = page["link"].as_array().unwrap();
        assert!(
            links.iter().all(|link| link["url"].as_str().unwrap().contains("patient.name=smith")),
            "{links:?}"
        );
        let Some(next) = links.iter().find(|link| link["relation"] == "next") else { break };
        let url = next["url"].as_str().unwrap();
        path = url[url.find("/Observation").unwrap()..].to_owned();
    }
    assert_eq!(found, 5);
    for path in [
        "/Observation?patient.foo=1",
        "/Observation?foo.name=1",
        "/Observation?status.name=1",
        "/Patient?_has:Observation:patient:foo=1",
        "/Patient?_has:Nothing:patient:code=1",
        "/Patient?_has:Provenance:target:recorded=2020",
        "/Provenance?target:Patient.name=smith",
    ] {
        for handling in ["strict", "lenient"] {
            let prefer = format!("Prefer: handling={handling}");
            let reply = asking.with("admin/all", "GET", &format!("/fhir{path}"), &[&prefer], "");
            assert_eq!(reply.status, 400, "{path} {handling}: {reply:?}");
        }
    }
    let body = observation("o0", "lab");
    let with_chain = "/fhir/Observation?patient.name=smith";
    let if_none_exist = [JSON, "If-None-Exist: patient.name=smith"];
    let writes: [(&str, &str, &[&str], String); 3] = [
        ("PUT", with_chain, &[JSON], body.to_string()),
        ("DELETE", with_chain, &[], String::new()),
        ("POST", "/fhir/Observation", &if_none_exist, body.to_string()),
    ];
    for (method, path, headers, body) in writes {
        let reply = asking.with("admin/all", method, path, headers, &body);
        assert!(reply.status == 400 && reply.body.contains("no part of a condition"), "{method}: {reply:?}");
    }
    let subscription = json!({ "resourceType": "Subscription", "status": "requested", "reason": "r",
        "criteria": "Observation?patient.name=smith", "channel": { "type": "rest-hook", "endpoint": "https://hook.example" } });
    let reply = asking.json("admin/all", "POST", "/Subscription", &subscription);
    assert!(reply.status == 422 && reply.body.contains("no part of a condition"), "{reply:?}");
}

#[test]
fn a_key_is_not_made_with_a_scope_that_is_not_understood() {
    let asking = Asking::new();
    for scope in [
        "system/Patient.reads",
        "system/Patient.rs?shoe-size=7",
        "system/Observation.rs?patient.name=smith",
        "patient/Patient.rs",
        "system/Patients.rs",
        "admin/everything",
    ] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hilum"));
        command.arg("--config").arg(asking.edge.dir.join("hilum.toml"));
        let output = command.args(["key", "add", "--name", "x", "--scope", scope]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(scope), "{scope}: {said}");
    }
}

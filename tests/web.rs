//! The HTTP doors behind a proxy, for pages in browsers, and as client libraries spell their requests.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use std::collections::HashSet;

use harness::Edge;
use harness::http::{self, Reply};
use serde_json::{Value, json};

const JSON: &str = "Content-Type: application/fhir+json";
const PUBLIC: &str = "https://fhir.hospital.example/edge";
const LISTED: &str = "https://app.example";

/// An edge whose listener with keys has more keys of configuration: their names, and their values as TOML.
fn edge(dir: &tempfile::TempDir, keys: &[(&str, &str)]) -> Edge {
    let keys: Vec<(String, &str)> =
        keys.iter().map(|(name, value)| (format!("HILUM__LISTEN__1__{name}"), *value)).collect();
    let keys: Vec<(&str, &str)> = keys.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    Edge::start_with_environment(dir.path(), "", &keys)
}

fn patient(family: &str) -> String {
    json!({ "resourceType": "Patient", "birthDate": "1970-02-03", "name": [{ "family": family }] })
        .to_string()
}

fn created(reply: &Reply) -> &str {
    assert_eq!(reply.status, 201, "{reply:?}");
    reply.header("location").unwrap()
}

fn link(bundle: &Value, relation: &str) -> Option<String> {
    let links = bundle["link"].as_array().unwrap();
    links
        .iter()
        .find(|link| link["relation"] == relation)
        .map(|link| link["url"].as_str().unwrap().to_owned())
}

fn entries(bundle: &Value) -> usize {
    bundle["entry"].as_array().map_or(0, Vec::len)
}

#[test]
fn links_show_the_public_url_and_what_names_it_is_here() {
    let dir = tempfile::tempdir().unwrap();
    let edge = edge(&dir, &[("PUBLIC_URL", &format!("{PUBLIC:?}"))]);
    let key = edge.key("system/*.cruds");
    let ask = |method, path: &str, body: &str| http::send(edge.keyed, method, path, &[&key, JSON], body);

    let made = ask("POST", "/fhir/Patient", &patient("Public"));
    let url = created(&made).split("/_history").next().unwrap().to_owned();
    assert!(url.starts_with(&format!("{PUBLIC}/fhir/Patient/")), "{url}");
    let statement = http::send(edge.keyed, "GET", "/fhir/metadata", &[], "").json();
    assert_eq!(statement["implementation"]["url"], format!("{PUBLIC}/fhir"));
    let found = ask("GET", "/site/default/fhir/Patient?_count=1", "").json();
    let below = format!("{PUBLIC}/site/default/fhir/Patient");
    assert!(link(&found, "self").unwrap().starts_with(&format!("{below}?")), "{found}");
    assert!(found["entry"][0]["fullUrl"].as_str().unwrap().starts_with(&below), "{found}");
    let batch = json!({ "resourceType": "Bundle", "type": "batch", "entry": [
        { "resource": { "resourceType": "Basic", "code": { "text": "x" } }, "request": { "method": "POST", "url": "Basic" } }] });
    let done = ask("POST", "/fhir", &batch.to_string()).json();
    let location = done["entry"][0]["response"]["location"].as_str().unwrap();
    assert!(location.starts_with(&format!("{PUBLIC}/fhir/Basic/")), "{done}");

    // at every listener, by every base and scheme
    let local = format!("Patient/{}", url.rsplit('/').next().unwrap());
    for spelt in [url.clone(), url.replace("https:", "http:"), format!("{PUBLIC}/baseR4/{local}")] {
        let observation = json!({ "resourceType": "Observation", "status": "final", "code": { "text": "x" }, "subject": { "reference": spelt } });
        for (address, headers) in [(edge.keyed, vec![key.as_str(), JSON]), (edge.http, vec![JSON])] {
            let made = http::send(address, "POST", "/fhir/Observation", &headers, observation.to_string());
            created(&made);
            assert_eq!(made.json()["subject"]["reference"], local, "{spelt}");
            let found =
                http::send(address, "GET", &format!("/fhir/Observation?subject={spelt}"), &headers, "");
            assert!(entries(&found.json()) > 0, "{spelt}: {found:?}");
        }
    }
    let included = edge.get(&format!("/fhir/Observation?subject={local}&_include=Observation:subject"));
    assert_eq!((entries(&included), &included["total"]), (7, &json!(6)));
}

#[test]
fn a_trusted_proxy_is_believed_and_nobody_else() {
    let behind = [
        "X-Forwarded-For: 192.0.2.1, 198.51.100.7",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Host: fhir.example",
    ];
    let dir = tempfile::tempdir().unwrap();
    let trusting = edge(&dir, &[("TRUSTED_PROXIES", "[\"127.0.0.1\"]")]);
    let key = trusting.key("system/*.cruds");
    let made = http::send(
        trusting.keyed,
        "POST",
        "/fhir/Patient",
        &[&key, JSON, behind[0], behind[1], behind[2]],
        patient("Proxied"),
    );
    let url = created(&made).to_owned();
    assert!(url.starts_with("https://fhir.example/fhir/Patient/"), "{url}");
    let seen = |edge: &Edge, peer: &str| {
        let page = edge.get(&format!("/admin/submissions?kind=fhir&peer={peer}"));
        page["submissions"].as_array().unwrap().len()
    };
    assert_eq!(seen(&trusting, "198.51.100.7"), 1, "who called is the sender");
    let standard = "Forwarded: for=\"198.51.100.7:99\";proto=https;host=\"fhir.example\"";
    let found = http::send(trusting.keyed, "GET", "/fhir/Patient", &[&key, standard], "").json();
    assert_eq!(link(&found, "self").unwrap(), "https://fhir.example/fhir/Patient");

    // wrong keys are counted for who sends them
    let wrong = |by: &str| {
        http::send(trusting.keyed, "GET", "/fhir/Patient", &["X-API-Key: hil_abc_def", by], "").status
    };
    let mut answers: HashSet<u16> = (0..40).map(|_| wrong("X-Forwarded-For: 198.51.100.7")).collect();
    assert!(answers.remove(&429), "{answers:?}");
    assert_eq!(
        wrong("X-Forwarded-For: 198.51.100.8, 198.51.100.7"),
        429,
        "what the caller wrote says nothing"
    );
    assert_eq!(wrong("X-Forwarded-For: 198.51.100.8"), 401, "another caller of the same proxy");
    drop(trusting);

    let dir = tempfile::tempdir().unwrap();
    let direct = edge(&dir, &[]);
    let key = direct.key("system/*.cruds");
    let made = http::send(
        direct.keyed,
        "POST",
        "/fhir/Patient",
        &[&key, JSON, behind[0], behind[1], behind[2]],
        patient("Direct"),
    );
    assert!(created(&made).starts_with(&format!("http://{}/fhir/Patient/", direct.keyed)), "{made:?}");
    assert_eq!((seen(&direct, "198.51.100.7"), seen(&direct, "127.0.0.1")), (0, 1));
}

#[test]
fn what_came_through_a_proxy_is_not_of_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let edge = edge(&dir, &[]);
    let ask = |headers: &[&str]| http::send(edge.http, "GET", "/fhir/Patient", headers, "");
    assert_eq!(ask(&[]).status, 200);
    for header in [
        "Host: fhir.example",
        "Forwarded: for=127.0.0.1;host=localhost",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Host: localhost",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Port: 80",
        "X-Real-IP: 127.0.0.1",
        "Via: 1.1 proxy",
    ] {
        let refused = ask(&[header]);
        assert_eq!(
            (refused.status, refused.body.contains("no authentication")),
            (403, true),
            "{header}: {refused:?}"
        );
    }
    assert_eq!(ask(&["Host: fhir.example", "X-Forwarded-Host: localhost"]).status, 403);
}

/// A preflight of an origin, as browsers send it.
fn preflight(edge: &Edge, path: &str, origin: &str) -> Reply {
    let asked = [
        &format!("Origin: {origin}"),
        "Access-Control-Request-Method: PUT",
        "Access-Control-Request-Headers: content-type,if-match,x-api-key",
    ];
    http::send(edge.keyed, "OPTIONS", path, &asked, "")
}

fn lists(reply: &Reply, header: &str, wanted: &[&str]) -> bool {
    let listed: HashSet<String> = reply
        .header(header)
        .unwrap_or_default()
        .split(',')
        .map(|one| one.trim().to_ascii_lowercase())
        .collect();
    wanted.iter().all(|one| listed.contains(*one))
}

#[test]
fn pages_of_listed_origins_are_served_on_every_surface() {
    let dir = tempfile::tempdir().unwrap();
    let edge = edge(&dir, &[("CORS_ORIGINS", &format!("[{LISTED:?}, \"http://localhost:3000\"]"))]);
    let key = edge.key("admin/all");
    for path in [
        "/fhir/Patient/a",
        "/fhir",
        "/site/default/fhir/Patient",
        "/v2/ingest",
        "/v3/ingest",
        "/ingest",
        "/admin/submissions",
    ] {
        for origin in [LISTED, "http://localhost:3000"] {
            let reply = preflight(&edge, path, origin);
            assert_eq!(
                (reply.status, reply.header("access-control-allow-origin")),
                (200, Some(origin)),
                "{path}: {reply:?}"
            );
            assert!(
                lists(&reply, "access-control-allow-methods", &["get", "post", "put", "delete"]),
                "{reply:?}"
            );
            let headers = [
                "x-api-key",
                "authorization",
                "content-type",
                "if-match",
                "if-none-match",
                "if-none-exist",
                "prefer",
            ];
            assert!(lists(&reply, "access-control-allow-headers", &headers), "{reply:?}");
            assert!(
                reply.header("access-control-max-age").is_some() && lists(&reply, "vary", &["origin"]),
                "{reply:?}"
            );
            assert_eq!(reply.header("access-control-allow-credentials"), None);
        }
        for origin in
            ["https://evil.example", "https://app.example.evil.example", "http://app.example", "null"]
        {
            let reply = preflight(&edge, path, origin);
            assert_eq!(
                (reply.status, reply.header("access-control-allow-origin")),
                (403, None),
                "{path}: {reply:?}"
            );
        }
    }
    assert_eq!(http::send(edge.keyed, "OPTIONS", "/fhir/Patient", &[&key], "").status, 204, "no preflight");

    for (method, path, headers, status) in [
        ("GET", "/fhir/Patient", vec![key.as_str()], 200),
        ("GET", "/fhir/Patient", vec![], 401),
        ("GET", "/fhir/Patient/absent", vec![&key], 404),
        ("PATCH", "/fhir/Patient/absent", vec![&key], 415),
        ("GET", "/fhir/metadata", vec![], 200),
        ("POST", "/fhir/Patient", vec![&key, "Content-Length: 99999999"], 413),
        ("POST", "/v2/ingest", vec![&key, "Content-Type: image/png"], 415),
        ("POST", "/ingest", vec![], 401),
        ("GET", "/nowhere", vec![&key], 404),
    ] {
        for (origin, allowed) in [(LISTED, Some(LISTED)), ("https://evil.example", None)] {
            let origin = format!("Origin: {origin}");
            let headers: Vec<&str> = headers.iter().copied().chain([origin.as_str()]).collect();
            let reply = match headers.iter().any(|header| header.starts_with("Content-Length")) {
                true => {
                    let head = format!(
                        "{method} {path} HTTP/1.1\r\nHost: {}\r\n{}\r\n\r\n",
                        edge.keyed,
                        headers.join("\r\n")
                    );
                    http::Connection::open(edge.keyed).unwrap().raw(head.as_bytes()).unwrap()
                }
                false => http::send(edge.keyed, method, path, &headers, ""),
            };
            assert_eq!(reply.status, status, "{method} {path}: {reply:?}");
            assert_eq!(reply.header("access-control-allow-origin"), allowed, "{method} {path}: {reply:?}");
            assert_eq!(reply.header("access-control-allow-credentials"), None);
            let exposed = ["location", "content-location", "etag", "last-modified", "x-request-id"];
            assert!(
                allowed.is_none() || lists(&reply, "access-control-expose-headers", &exposed),
                "{reply:?}"
            );
        }
    }
    let statement = http::send(edge.keyed, "GET", "/fhir/metadata", &[], "").json();
    assert_eq!(statement["rest"][0]["security"]["cors"], true);
    let cached = http::send(edge.keyed, "GET", "/livez", &[], "");
    assert_eq!(
        (cached.header("access-control-allow-origin"), lists(&cached, "vary", &["origin"])),
        (None, true)
    );
    let closed = http::send(edge.http, "GET", "/fhir/Patient", &["Origin: https://app.example"], "");
    assert_eq!(closed.header("access-control-allow-origin"), None, "a listener without the key");
}

#[test]
fn pages_of_every_origin_are_served_where_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let edge = edge(&dir, &[("CORS_ORIGINS", "[\"*\"]")]);
    let key = edge.key("system/*.cruds");
    assert_eq!(
        preflight(&edge, "/fhir/Patient/a", "https://any.example").header("access-control-allow-origin"),
        Some("*")
    );
    for headers in [vec![key.as_str(), "Origin: https://any.example"], vec!["Origin: https://any.example"]] {
        let reply = http::send(edge.keyed, "GET", "/fhir/Patient", &headers, "");
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"), "{reply:?}");
        assert_eq!(reply.header("access-control-allow-credentials"), None);
    }
}

/// The path and query of a link of this edge.
fn target(url: &str) -> String {
    format!("/{}", url.splitn(4, '/').nth(3).unwrap())
}

#[test]
fn page_links_keep_the_form_that_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let edge = edge(&dir, &[]);
    let mut last = String::new();
    for _ in 0..6 {
        let made = http::send(edge.http, "POST", "/fhir/Patient", &[JSON], patient("Paged"));
        last = target(created(&made)).split("/_history").next().unwrap().to_owned();
    }
    let get = |path: &str| http::send(edge.http, "GET", path, &[], "");
    let form = "_format=application%2Ffhir%2Bjson&_pretty=true";
    let mut page = get(&format!("/fhir/Patient?family=Paged&_count=2&{form}"));
    for of in 1..=3 {
        assert!(page.body.contains("\n  \""), "for people: {page:?}");
        let bundle = page.json();
        assert_eq!(entries(&bundle), 2, "page {of}: {page:?}");
        assert!(link(&bundle, "self").unwrap().contains(form), "{page:?}");
        let Some(next) = link(&bundle, "next") else { break };
        assert!(next.contains(form), "{next}");
        page = get(&target(&next));
    }
    let plain = get("/fhir/Patient?family=Paged&_count=2");
    assert!(!plain.body.contains('\n'), "{plain:?}");
    for added in ["_format=json", "_pretty=true", "_format=application/fhir%2Bjson&_pretty=false"] {
        let next = get(&format!("{}&{added}", target(&link(&plain.json(), "next").unwrap())));
        assert_eq!((next.status, entries(&next.json())), (200, 2), "{added}: {next:?}");
    }

    http::send(
        edge.http,
        "PUT",
        &last,
        &[JSON],
        json!({ "resourceType": "Patient", "id": last.rsplit('/').next() }).to_string(),
    );
    let history = get(&format!("{last}/_history?_count=1&{form}"));
    let next = link(&history.json(), "next").unwrap();
    assert!(history.body.contains("\n  \"") && next.contains(form), "{history:?}");
    assert_eq!(entries(&get(&target(&next)).json()), 1);
}

#[test]
fn media_types_are_read_in_any_case_and_quoting() {
    let dir = tempfile::tempdir().unwrap();
    let edge = edge(&dir, &[]);
    for kind in [
        "Application/FHIR+JSON; charset=\"UTF-8\"",
        "application/fhir+json;fhirVersion=\"4.0\"",
        "application/fhir+json; FHIRVERSION=4.0; Charset=utf-8",
    ] {
        let made = http::send(
            edge.http,
            "POST",
            "/fhir/Patient",
            &[&format!("Content-Type: {kind}")],
            patient("Typed"),
        );
        assert_eq!(made.status, 201, "{kind}: {made:?}");
        let read = http::send(edge.http, "GET", "/fhir/Patient?_count=1", &[&format!("Accept: {kind}")], "");
        assert_eq!(read.status, 200, "{kind}: {read:?}");
    }
    let search = |kind: &str, form: &str| {
        http::send(edge.http, "POST", "/fhir/Patient/_search", &[&format!("Content-Type: {kind}")], form)
    };
    let found =
        search("Application/X-WWW-Form-URLencoded; charset=\"UTF-8\"", "family=Typed&_count=2&_pretty=true");
    assert_eq!(
        (found.status, entries(&found.json()), found.body.contains('\n')),
        (200, 2, true),
        "{found:?}"
    );
    assert_eq!(search("application/x-www-form-urlencoded", "family=Typed&_format=ttl").status, 406);
    assert_eq!(search("application/x-www-form-urlencoded-not", "family=Typed").status, 415);
}

#[test]
fn a_long_form_has_pages_that_can_be_followed_or_a_clear_no() {
    let dir = tempfile::tempdir().unwrap();
    let edge = edge(&dir, &[]);
    let number = |n: usize| format!("{n:0>100}");
    for n in 0..3 {
        let patient =
            json!({ "resourceType": "Patient", "identifier": [{ "system": "urn:mrn", "value": number(n) }] });
        created(&http::send(edge.http, "POST", "/fhir/Patient", &[JSON], patient.to_string()));
    }
    let search = |values: usize, count: u32| {
        let values: Vec<String> = (0..values).map(|n| format!("urn:mrn|{}", number(n))).collect();
        let form = format!("identifier={}&_count={count}", values.join(","));
        let kind = "Content-Type: application/x-www-form-urlencoded";
        http::send(edge.http, "POST", "/fhir/Patient/_search", &[kind], form)
    };
    let first = search(60, 2);
    assert_eq!((first.status, entries(&first.json())), (200, 2), "{first:?}");
    let next = link(&first.json(), "next").unwrap();
    let second = http::send(edge.http, "GET", &target(&next), &[], "");
    assert_eq!((second.status, entries(&second.json())), (200, 1), "{second:?}");

    // 53 KB: no request target may be as long as the link
    let refused = search(490, 2);
    assert_eq!(refused.status, 400, "{refused:?}");
    for says in ["too-long", "8192", "http.uri_bytes_max", "_count", "1000"] {
        assert!(refused.body.contains(says), "{says}: {refused:?}");
    }
    let whole = search(490, 3);
    assert_eq!(
        (whole.status, entries(&whole.json())),
        (200, 3),
        "what fits on one page needs no link: {whole:?}"
    );
    assert_eq!(link(&whole.json(), "next"), None);
}

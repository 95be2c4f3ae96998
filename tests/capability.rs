//! What the edge says of itself is true, and changes only on purpose: golden files of the CapabilityStatement, openapi.json, help texts and
//! metric names (`UPDATE=1` rewrites them; look at the difference), and a walk over everything the CapabilityStatement claims.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::doors::{DOORS, Item};
use harness::http::{Connection, Reply};
use harness::{Edge, http};
use hilum_fhir::search::{ParamType, Parameter, parameter, parameters};
use hilum_fhir::validate::validate;
use hilum_fhir::{Resource, ResourceType};
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Compares with `fixtures/api/NAME`, or writes it.
fn golden(name: &str, found: &str) {
    let path = root().join("fixtures/api").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, found).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let mut lines = (1..).zip(expected.lines().zip(found.lines()));
    if let Some((number, (old, new))) = lines.find(|(_, (old, new))| old != new) {
        panic!("{name}:{number} was\n{old}\nand is\n{new}\nUPDATE=1 rewrites the file");
    }
    assert_eq!(
        expected.lines().count(),
        found.lines().count(),
        "{name} has another length; UPDATE=1 rewrites it"
    );
}

fn capability(edge: &Edge) -> Value {
    edge.get("/fhir/metadata")
}

/// The resources of a CapabilityStatement.
fn resources(statement: &Value) -> &[Value] {
    statement["rest"][0]["resource"].as_array().unwrap()
}

fn codes<'v>(list: &'v Value, member: &str) -> Vec<&'v str> {
    list.as_array().unwrap().iter().map(|entry| entry[member].as_str().unwrap()).collect()
}

#[test]
fn the_capability_statement_is_the_golden_one() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let mut statement = capability(&edge);
    let json = ["Content-Type: application/fhir+json"];
    let told =
        http::send(edge.http, "POST", "/fhir/CapabilityStatement/$validate", &json, statement.to_string());
    assert_eq!(told.json()["issue"][0]["severity"], "information", "it is valid itself: {told:?}");
    let base = format!("http://{}/fhir", edge.http);
    assert_eq!(statement["implementation"]["url"], base, "the base that was called");
    let mut lines = String::new();
    // of the limits only the names: some follow from what the machine allows
    let limits = statement["rest"][0]["extension"][0]["extension"].take();
    let limits = codes(&limits, "url").join(" ");
    let resources = statement["rest"][0].as_object_mut().unwrap().remove("resource").unwrap();
    for mut resource in resources.as_array().unwrap().iter().cloned() {
        let parameters = resource.as_object_mut().unwrap().remove("searchParam").unwrap();
        let definitions: BTreeSet<&str> = codes(&parameters, "definition").into_iter().collect();
        assert_eq!(
            definitions.len(),
            parameters.as_array().unwrap().len(),
            "each has a definition of its own"
        );
        let pairs = codes(&parameters, "name").into_iter().zip(codes(&parameters, "type"));
        let parameters: Vec<String> = pairs.map(|(name, kind)| format!("{name}:{kind}")).collect();
        let interactions = codes(&resource["interaction"], "code").join(" ");
        resource["interaction"] = interactions.into();
        lines += &format!("{resource}\n  {}\n", parameters.join(" "));
    }
    assert!(statement["date"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "when the edge began");
    statement["date"] = "DATE".into();
    golden("capability.txt", &format!("{statement:#}\n\n{limits}\n\n{lines}").replace(&base, "BASE"));
}

#[test]
fn the_openapi_document_is_the_golden_one() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let document = edge.get("/api/documentation/openapi.json");
    golden("openapi.json", &format!("{document:#}\n"));
    for (path, operations) in document["paths"].as_object().unwrap() {
        let path = path.replace("{type}", "Patient").replace("{id}", "1").replace("{version}", "1");
        for method in operations.as_object().unwrap().keys() {
            let reply = http::send(edge.http, &method.to_uppercase(), &path, &[], "");
            let is_route = reply.status != 405 && !reply.body.contains("there is nothing at this address");
            assert!(
                is_route
                    && (reply.status != 404 || path.contains("Patient/1") || path.contains("submissions/1")),
                "{method} {path}: {reply:?}"
            );
        }
    }
}

#[test]
fn the_help_texts_are_the_golden_ones() {
    let mut text = String::new();
    let mut commands: Vec<Vec<String>> = vec![Vec::new()];
    while !commands.is_empty() {
        let command = commands.remove(0);
        let output = Command::new(env!("CARGO_BIN_EXE_hilum"))
            .args(&command)
            .arg("--help")
            .env("COLUMNS", "110")
            .env_remove("HILUM_CONFIG")
            .output()
            .unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
        let help = String::from_utf8(output.stdout).unwrap();
        text += &format!("$ hilum {}\n{help}\n", [&command[..], &["--help".to_owned()]].concat().join(" "));
        for line in
            help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty())
        {
            let indented = line.strip_prefix("  ").filter(|rest| !rest.starts_with([' ', '\t']));
            let name =
                indented.and_then(|rest| rest.split_whitespace().next()).filter(|name| *name != "help");
            commands.extend(name.map(|name| [&command[..], &[name.to_owned()]].concat()));
        }
    }
    let trimmed: Vec<&str> = text.lines().map(str::trim_end).collect();
    golden("help.txt", &(trimmed.join("\n") + "\n"));
}

#[test]
fn the_metrics_are_the_golden_ones() {
    let known = metrics_in_sources();
    let lines: Vec<String> = known
        .iter()
        .map(|(name, (kind, labels))| {
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            format!("{kind:<9} {name} {}", labels.join(" ")).trim_end().to_owned()
        })
        .collect();
    golden("metrics.txt", &(lines.join("\n") + "\n"));

    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start_strict(dir.path());
    for (number, door) in (1..).zip(DOORS) {
        let item = Item::new(number);
        assert!(door.accepts(door.submit(&edge, &item).as_ref()), "{}", door.name);
        door.bad.iter().for_each(|bad| drop(door.send(&edge, &item, &(bad.bytes)(&item))));
    }
    http::send(edge.keyed, "GET", "/fhir/Patient", &["X-API-Key: hil_x_y"], "");
    let page = http::send(edge.http, "GET", "/metrics", &[], "").body;
    let mut shown = 0;
    for line in page.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (name, labels) = line.split_once([' ', '{']).unwrap();
        let (_, allowed) = known.get(name).unwrap_or_else(|| panic!("{name} is no known metric"));
        let labels = labels.rsplit_once('}').map_or("", |(labels, _)| labels);
        for label in labels.split(',').filter_map(|pair| pair.split_once('=')).map(|(label, _)| label) {
            assert!(allowed.contains(label), "{name} has the label {label}");
        }
        shown += 1;
    }
    assert!(shown > DOORS.len(), "{page}");
}

/// Names, kinds and labels of all metrics, as the sources have them.
fn metrics_in_sources() -> BTreeMap<String, (&'static str, BTreeSet<String>)> {
    let mut found: BTreeMap<String, (&'static str, BTreeSet<String>)> = BTreeMap::new();
    let mut waiting = vec![root().join("crates")];
    while let Some(dir) = waiting.pop() {
        for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                metrics_in(&std::fs::read_to_string(&path).unwrap(), &mut found);
            }
        }
    }
    found
}

fn metrics_in(source: &str, found: &mut BTreeMap<String, (&'static str, BTreeSet<String>)>) {
    for kind in ["counter", "gauge", "histogram"] {
        for call in source.split(&format!("metrics::{kind}!(")).skip(1) {
            let mut pieces = call.split('"');
            let (Some(_), Some(name)) = (pieces.next(), pieces.next()) else {
                panic!("a metric without a name")
            };
            let call = &call[..call.find(';').unwrap_or(call.len())];
            let labels = call.split("\" =>").map(|before| before.rsplit('"').next().unwrap_or_default());
            let count = call.matches("\" =>").count();
            found
                .entry(name.to_owned())
                .or_insert((kind, BTreeSet::new()))
                .1
                .extend(labels.take(count).map(str::to_owned));
        }
    }
}

#[test]
fn every_operation_claimed_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let mut connection = Connection::open(edge.http).unwrap();
    let json = ["Content-Type: application/fhir+json"];
    for resource in resources(&capability(&edge)) {
        let name = resource["type"].as_str().unwrap();
        for operation in codes(&resource["operation"], "name") {
            let path = format!("/fhir/{name}/absent/${operation}");
            let options = connection.send("OPTIONS", &path, &json, b"").unwrap();
            assert_eq!(options.status, 204, "{path}: {options:?}");
            for method in
                options.header("allow").unwrap().split(", ").filter(|m| !["HEAD", "OPTIONS"].contains(m))
            {
                let body: &[u8] = if method == "POST" {
                    br#"{"resourceType":"Parameters","parameter":[{"name":"meta","valueMeta":{}}]}"#
                } else {
                    b""
                };
                let reply = connection.send(method, &path, &json, body).unwrap();
                assert!(
                    reply.body.contains("there is no such resource"),
                    "{method} {path} looks for it: {reply:?}"
                );
            }
        }
    }
}

#[test]
fn every_search_parameter_and_include_claimed_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let statement = capability(&edge);
    let mut connection = Connection::open(edge.http).unwrap();
    let mut search = |path: &str, strict: bool| {
        let headers: &[&str] = if strict { &[] } else { &["Prefer: handling=lenient"] };
        connection.send("GET", path, headers, b"").unwrap()
    };
    for resource in resources(&statement) {
        let name = resource["type"].as_str().unwrap();
        let of = ResourceType::from_name(name).unwrap();
        let claimed: BTreeSet<&str> = codes(&resource["searchParam"], "name").into_iter().collect();
        for parameter_name in &claimed {
            let value = value(parameter(of, parameter_name).unwrap());
            let path = format!("/fhir/{name}?{parameter_name}={value}");
            applied(&path, &search(&path, true), parameter_name);
        }
        for include in resource["searchInclude"].as_array().into_iter().flatten() {
            let path = format!("/fhir/{name}?_include={}", include.as_str().unwrap());
            applied(&path, &search(&path, true), "_include");
        }
        let unclaimed = search(&format!("/fhir/{name}?no-such-parameter=1"), false);
        assert!(
            unclaimed.status == 200 && unclaimed.body.contains("no-such-parameter"),
            "{name}: {unclaimed:?}"
        );
    }
}

/// A search that was served as asked: no warning, and the parameter is in the link to itself.
fn applied(path: &str, reply: &Reply, parameter: &str) {
    assert_eq!(reply.status, 200, "{path}: {reply:?}");
    let bundle = reply.json();
    assert_eq!(
        (bundle["type"].as_str(), bundle.get("entry")),
        (Some("searchset"), None),
        "{path}: {reply:?}"
    );
    let own = bundle["link"][0]["url"].as_str().unwrap();
    assert!(own.contains(&format!("{parameter}=")), "{path}: {own}");
}

/// A value that is none of the kind's wrong ones.
fn value(parameter: &Parameter) -> String {
    match parameter.param_type {
        ParamType::Number | ParamType::Quantity => "1".into(),
        ParamType::Date => "2024-01-01".into(),
        ParamType::String | ParamType::Token => "a".into(),
        ParamType::Uri => "http://example.org/a".into(),
        ParamType::Reference => {
            let target = parameter.targets.first().map_or("Patient", |of| of.name());
            format!("{target}/1")
        }
        ParamType::Composite => {
            let all = parameters(parameter.resource_type);
            let components: Vec<String> = parameter.components.iter().map(|at| value(&all[*at])).collect();
            components.join("$")
        }
        ParamType::Special => panic!("{} is special, and claimed", parameter.name),
    }
}

#[test]
fn every_interaction_claimed_is_served_for_every_type() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let statement = capability(&edge);
    let mut connection = Connection::open(edge.http).unwrap();
    assert_eq!(resources(&statement).len(), ResourceType::all().count());
    for resource in resources(&statement) {
        let name = resource["type"].as_str().unwrap();
        let claimed = codes(&resource["interaction"], "code");
        let mut smallest = smallest(name);
        if name == "Subscription" {
            // there are rules beyond the shape of the resource
            smallest["status"] = "off".into();
            smallest["criteria"] = "Patient?".into();
            smallest["channel"]["endpoint"] = "https://example.org/hook".into();
        }
        let body = smallest.to_string();
        let mut ask = |method: &str, below: &str, body: &str| {
            let kind = if method == "PATCH" { "json-patch" } else { "fhir" };
            let headers = [&*format!("Content-Type: application/{kind}+json")];
            connection.send(method, &format!("/fhir/{name}{below}"), &headers, body.as_bytes()).unwrap()
        };
        for (interaction, reply, status) in [
            ("update", ask("PUT", "/walk", &body), 201),
            ("create", ask("POST", "", &body), 201),
            ("read", ask("GET", "/walk", ""), 200),
            ("vread", ask("GET", "/walk/_history/1", ""), 200),
            ("history-instance", ask("GET", "/walk/_history", ""), 200),
            ("search-type", ask("GET", "?_id=walk", ""), 200),
            ("patch", ask("PATCH", "/walk", "[]"), 200),
            ("delete", ask("DELETE", "/walk", ""), 204),
            ("history-type", ask("GET", "/_history", ""), 200),
        ] {
            let served = if claimed.contains(&interaction) {
                reply.status == status
            } else {
                matches!(reply.status, 404 | 405)
            };
            assert!(served, "{name} {interaction}, of {claimed:?}: {reply:?}");
        }
    }
}

/// Texts among which each required element of a primitive type, and each required value set, has one.
const SOME_TEXTS: &str = "2024-01-01 2024-01-01T00:00:00Z https://a 4.0.1 1 a accepted active actual application/json attested available benefits \
    candidate claim codesystem collection complete completed current draft entered-in-error error exposure final individual instance invalid measurement \
    named-event none not-started number official operation order pass Patient person planned population proposal registered requested resource \
    rest-hook right source unknown uri use working";

/// A resource with its required elements and nothing else, found by asking the validator what is missing.
fn smallest(name: &str) -> Value {
    let mut value = json!({ "resourceType": name, "id": "walk" });
    while let Some(place) = first_issue(&value) {
        let texts = SOME_TEXTS.split_whitespace().map(|text| json!(text));
        let one: Vec<Value> =
            [json!({ "id": "a" }), json!(true), json!(1)].into_iter().chain(texts).collect();
        let listed: Vec<Value> = one.iter().map(|one| json!([one])).collect();
        let stem = place.strip_suffix("[x]");
        let fits = |candidate: &Value| {
            let mut tried = value.clone();
            put(&mut tried, &place, candidate.clone());
            let next = first_issue(&tried);
            let moved =
                next.is_none_or(|next| next != place && !stem.is_some_and(|stem| next.starts_with(stem)));
            moved.then_some(tried)
        };
        let better = one.iter().chain(&listed).find_map(fits);
        value = better.unwrap_or_else(|| panic!("{name}: no value is known for {place}: {value}"));
    }
    value
}

/// Where the validator finds the first fault.
fn first_issue(value: &Value) -> Option<String> {
    let resource = Resource::from_value(value.clone()).unwrap();
    validate(&resource).into_iter().next().and_then(|issue| issue.location)
}

/// Puts a value at a path such as `Claim.insurance[0].sequence`, or `Slot.value[x]`, whose type follows from the value.
fn put(root: &mut Value, place: &str, value: Value) {
    let choice = match &value {
        Value::Object(_) => "CodeableConcept",
        Value::String(text) if text.starts_with("https") => "Uri",
        _ => "DateTime",
    };
    let mut at = root;
    for step in place.replace("[x]", choice).split('.').skip(1) {
        let (name, index) = step.split_once('[').unwrap_or((step, ""));
        at = &mut at[name];
        if let Ok(index) = index.trim_end_matches(']').parse::<usize>() {
            at = &mut at[index];
        }
    }
    *at = value;
}

#[test]
fn every_condition_claimed_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let statement = capability(&edge);
    let patient = resources(&statement).iter().find(|resource| resource["type"] == "Patient").unwrap();
    for (member, value) in [
        ("conditionalCreate", Value::Bool(true)),
        ("conditionalUpdate", Value::Bool(true)),
        ("conditionalDelete", "single".into()),
        ("conditionalRead", "not-match".into()),
        ("updateCreate", Value::Bool(true)),
        ("readHistory", Value::Bool(true)),
        ("versioning", "versioned-update".into()),
    ] {
        assert_eq!(patient[member], value, "{member} is what is tested here");
    }
    let ask = |method: &str, path: &str, header: &str, body: &str| {
        let headers = ["Content-Type: application/fhir+json", header];
        http::send(edge.http, method, &format!("/fhir{path}"), &headers, body).status
    };
    let body = r#"{"resourceType":"Patient","identifier":[{"value":"W"}]}"#;
    let named = r#"{"resourceType":"Patient","id":"walk"}"#;
    let transaction = r#"{"resourceType":"Bundle","type":"transaction","entry":[]}"#;
    for (method, path, header, body, status) in [
        ("POST", "/Patient", "If-None-Exist: identifier=W", body, 201),
        ("POST", "/Patient", "If-None-Exist: identifier=W", body, 200),
        ("PUT", "/Patient?identifier=W", "X-A: b", &body.replace("]}", r#"],"active":true}"#), 200),
        ("DELETE", "/Patient?identifier=W", "X-A: b", "", 204),
        ("PUT", "/Patient/walk", "X-A: b", named, 201),
        ("GET", "/Patient/walk", "If-None-Match: W/\"1\"", "", 304),
        ("PUT", "/Patient/walk", "If-Match: W/\"7\"", named, 412),
        ("POST", "", "X-A: b", transaction, 200),
        ("POST", "", "X-A: b", &transaction.replace("transaction", "batch"), 200),
    ] {
        assert_eq!(ask(method, path, header, body), status, "{method} {path} {header}");
    }
}

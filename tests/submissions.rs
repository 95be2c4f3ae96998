//! What came in is found, shown and done again by those who run the edge: `hilum submissions`, `/admin/submissions`, warnings in acknowledgements,
//! the log line, and NamingSystem resources that steer identifier systems.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use std::path::Path;
use std::process::{Command, Output};

use harness::dicom::{Association, image};
use harness::doors::{DOORS, Item, Wire};
use harness::{CALLING, Edge, http, is_on_server, mllp};
use serde_json::{Value, json};

const JSON: &str = "Content-Type: application/fhir+json";
const TEXT: &str = "Content-Type: text/plain";

/// A message of version 2.5.1 about one patient of an authority, with an administrative sex.
fn message(control: &str, number: &str, sex: &str) -> String {
    format!(
        "MSH|^~\\&|RIS|NORTH|HILUM|EDGE|20240101120000||ADT^A08^ADT_A01|{control}|P|2.5.1\r\
         EVN|A08|20240101120000\rPID|1||{number}||Weber^Anja||19610101|{sex}\r"
    )
}

fn post(edge: &Edge, message: &str) -> String {
    http::send(edge.http, "POST", "/v2/ingest", &[TEXT], message).body
}

/// Runs the program on the configuration in a folder, whatever comes of it.
fn run(dir: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hilum"));
    command.arg("--config").arg(dir.join("hilum.toml")).args(arguments).output().unwrap()
}

/// Numbers that the command and the door list for the same filter.
fn listed(edge: &Edge, arguments: &[&str], query: &str) -> Vec<u64> {
    let printed = edge.hilum(&[&["submissions", "list", "--json"], arguments].concat());
    let number = |line: &Value| line["submission"].as_u64().unwrap();
    let by_command: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let page = edge.get(&format!("/admin/submissions?{query}"));
    let by_door = page["submissions"].as_array().unwrap();
    assert_eq!(&by_command, by_door, "{arguments:?} and {query}");
    by_command.iter().map(number).collect()
}

#[test]
fn the_command_beside_a_running_edge_and_the_door_find_the_same_by_every_filter() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let mut sender = mllp::Connection::open(edge.mllp).unwrap();
    assert!(sender.send(message("CTRL-1", "4711", "F")).unwrap().contains("MSA|AA|CTRL-1"));
    let nobody = message("CTRL-2", "", "F").replace("|RIS|NORTH|", "|LAB|NORTH|");
    assert!(post(&edge, &nobody).contains("MSA|AE|CTRL-2"));
    let mut association = Association::request(edge.dicom, CALLING).unwrap();
    assert_eq!(association.store("2.25.77", &image("2.25.77", "4711", "Weber^Anja", 100)).unwrap().status, 0);
    association.release();
    let listener = format!("mllp-{}", edge.mllp.port());
    // the listener is named after the port of its configuration
    let shown: Value = serde_json::from_str(&edge.hilum(&["submissions", "show", "1", "--json"])).unwrap();
    let listener = shown["listener"].as_str().filter(|name| name.starts_with("mllp")).unwrap_or(&listener);
    for (arguments, query, expected) in [
        (&[][..], String::new(), &[3, 2, 1][..]),
        (&["--rejected"], "rejected=true".into(), &[2]),
        (&["--attention"], "attention=true".into(), &[]),
        (&["--control", "CTRL-1"], "control=CTRL-1".into(), &[1]),
        (&["--control", "2.25.77"], "control=2.25.77".into(), &[3]),
        (&["--peer", "127.0.0.1"], "peer=127.0.0.1".into(), &[3, 2, 1]),
        (&["--peer", "127.0.0"], "peer=127.0.0".into(), &[]),
        (&["--peer", "LAB"], "peer=LAB".into(), &[2]),
        (&["--peer", CALLING], format!("peer={CALLING}"), &[3]),
        (&["--kind", "ADT"], "kind=ADT".into(), &[2, 1]),
        (&["--kind", "ADT^A08"], "kind=ADT%5EA08".into(), &[2, 1]),
        (&["--kind", "C-STORE CT"], "kind=C-STORE%20CT".into(), &[3]),
        (&["--kind", "dicom"], "kind=dicom".into(), &[3]),
        (&["--listener", listener], format!("listener={listener}"), &[1]),
        (&["--since", "1h"], "since=1h".into(), &[3, 2, 1]),
        (&["--since", "2999-01-01"], "since=2999-01-01".into(), &[]),
        (&["--before", "3", "--count", "1"], "before=3&count=1".into(), &[2]),
        (&["--kind", "v2", "--rejected", "--peer", "RIS"], "kind=v2&rejected=true&peer=RIS".into(), &[]),
    ] {
        assert_eq!(listed(&edge, arguments, &query), expected, "{arguments:?}");
    }
    let first = edge.get("/admin/submissions?count=2");
    assert_eq!((first["submissions"].as_array().unwrap().len(), &first["next"]), (2, &json!(2)));
    assert_eq!(edge.get("/admin/submissions?count=2&before=2")["next"], Value::Null, "the last page");
    let table = edge.hilum(&["submissions"]);
    let line = table.lines().find(|line| line.contains("CTRL-2")).unwrap();
    for told in ["rejected", "ADT^A08", "LAB|NORTH", "PID-3 required: the patient has no identifier"] {
        assert!(line.contains(told), "{told} in {line}");
    }
    for wrong in ["--since=yesterday", "--count=x"] {
        assert!(!run(dir.path(), &["submissions", wrong]).status.success(), "{wrong}");
    }
    for (query, place) in [("since=yesterday", "since"), ("unknown=1", "http"), ("count=x", "http")] {
        let reply = http::send(edge.http, "GET", &format!("/admin/submissions?{query}"), &[], "");
        assert_eq!(
            (reply.status, reply.json()["issue"][0]["expression"][0].as_str()),
            (400, Some(place)),
            "{query}"
        );
    }
}

#[test]
fn every_door_says_place_and_rule_of_what_it_refused_and_keeps_the_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let mut number = 0;
    for door in DOORS {
        for bad in door.bad.iter().filter(|bad| bad.kept) {
            number += 1;
            let item = Item::new(number);
            let sent = (bad.bytes)(&item);
            door.send(&edge, &item, &sent).unwrap();
            let shown = edge.get(&format!("/admin/submissions/{number}"));
            let (what, issue) = (format!("{}, {}: {shown:#}", door.name, bad.what), &shown["issues"][0]);
            assert_eq!(
                (&shown["receipt"], &issue["severity"]),
                (&json!("rejected"), &json!("error")),
                "{what}"
            );
            let told = format!("{} {}", issue["place"], issue["text"]);
            let is_placed =
                issue["place"].is_string() || told.contains("line 1") || bad.what.contains("envelope");
            assert!(is_placed && issue["text"].as_str().unwrap().len() > 8, "{what}");
            let kept =
                http::send(edge.http, "GET", &format!("/admin/submissions/{number}/original"), &[], "");
            let sent = String::from_utf8_lossy(&sent).into_owned();
            // of an image the file is kept, whose end is what was sent; the test's client reads bodies of a known length
            if !matches!(door.wire, Wire::Dicom) {
                assert_eq!((kept.status, kept.body), (200, sent), "{what}");
            }
            let file = run(dir.path(), &["submissions", "show", &number.to_string(), "--original"]).stdout;
            assert!(file.ends_with(&(bad.bytes)(&item)), "{what}");
        }
    }
}

#[test]
fn what_was_refused_is_replayed_after_the_cause_is_mended_and_names_what_it_replays() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start_limited(dir.path(), "[limits.er7]\nsegments_max = 2\n");
    assert!(post(&edge, &message("CTRL-1", "4711", "F")).contains("MSA|AE|CTRL-1"));
    let told = http::send(edge.http, "POST", "/admin/submissions/1/replay?commit=true", &[], "");
    assert_eq!(
        (told.status, &told.json()["wouldBe"]),
        (422, &json!("rejected")),
        "the cause is still there: {told:?}"
    );
    assert_eq!(
        edge.get("/admin/submissions")["submissions"].as_array().unwrap().len(),
        1,
        "nothing more is kept"
    );
    edge.kill();

    let edge = Edge::start(dir.path());
    let preview = http::send(edge.http, "POST", "/admin/submissions/1/replay", &[], "").json();
    assert_eq!((&preview["wouldBe"], preview.get("committed")), (&json!("accepted"), None), "{preview:#}");
    let elements = preview["changes"][0]["elements"].as_array().unwrap();
    let family = json!({ "element": "name[0].family", "after": "Weber" });
    assert!(preview["changes"][0]["effect"] == "create" && elements.contains(&family), "{preview:#}");
    assert_eq!(edge.total("/fhir/Patient?_total=accurate"), 0, "only told");
    let beside: Value = serde_json::from_str(&edge.hilum(&["submissions", "replay", "1", "--json"])).unwrap();
    assert_eq!(
        beside["changes"][0]["elements"], preview["changes"][0]["elements"],
        "the command tells the same"
    );

    let done = http::send(edge.http, "POST", "/admin/submissions/1/replay?commit=true", &[], "").json();
    assert_eq!(done["committed"], 2, "{done:#}");
    assert_eq!(edge.total("/fhir/Patient?family=Weber&_total=accurate"), 1);
    let shown = edge.get("/admin/submissions/2");
    assert_eq!((&shown["replays"], &shown["control"]), (&json!(1), &json!("CTRL-1")), "{shown:#}");
    assert!(shown["answer"].as_str().unwrap().contains("MSA|AA|CTRL-1"), "{shown:#}");
    let provenance = edge.get("/fhir/Provenance/submission-2");
    assert_eq!(provenance["entity"][1]["what"]["identifier"]["value"], "1", "{provenance:#}");
    // a replay is no duplicate of itself, and an unchanged resource gets no version
    let again = http::send(edge.http, "POST", "/admin/submissions/1/replay?commit=true", &[], "").json();
    assert_eq!(
        (&again["committed"], &again["changes"][0]["effect"]),
        (&json!(3), &json!("unchanged")),
        "{again:#}"
    );
}

#[test]
fn a_mended_rule_is_seen_in_the_replay_before_it_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    assert!(post(&edge, &message("CTRL-1", "4711", "Q")).contains("MSA|AA|CTRL-1"));
    let shown = edge.hilum(&["submissions", "show", "1"]);
    assert!(shown.contains("warning  PID-8") && shown.contains("MSA|AA|CTRL-1"), "{shown}");
    let overlay = dir.path().join("tables/AdministrativeSex.csv");
    std::fs::create_dir(overlay.parent().unwrap()).unwrap();
    std::fs::write(&overlay, "code,system,target,display\nQ,,other,\n").unwrap();
    let config = dir.path().join("hilum.toml");
    let before = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{before}\n[mapping]\noverlays = [{overlay:?}]\n")).unwrap();

    let told = edge.hilum(&["submissions", "replay", "1"]);
    assert!(told.contains("update Patient/") && told.contains("  + gender: \"other\""), "{told}");
    assert!(told.contains("nothing was committed"), "{told}");
    let tried = run(dir.path(), &["submissions", "replay", "1", "--commit"]);
    if is_on_server() {
        assert!(String::from_utf8_lossy(&tried.stdout).contains("committed as submission 2"), "{tried:?}");
    } else {
        let text = String::from_utf8_lossy(&tried.stderr).into_owned();
        assert!(
            !tried.status.success() && text.contains("/admin/submissions/1/replay?commit=true"),
            "{text}"
        );
        assert_eq!(edge.total("/fhir/Patient?gender=other&_total=accurate"), 0);
    }
    edge.kill();
    if !is_on_server() {
        let done = harness::hilum(dir.path(), &["submissions", "replay", "1", "--commit"]);
        assert!(done.contains("committed as submission 2"), "{done}");
    }
    let edge = Edge::start(dir.path());
    assert_eq!(edge.total("/fhir/Patient?gender=other&_total=accurate"), 1);
}

#[test]
fn every_protocol_is_replayed_from_what_is_kept_and_fhir_says_why_not() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    for (number, door) in (1..).zip(DOORS) {
        let good = door.submit(&edge, &Item::new(number));
        assert!(door.accepts(good.as_ref()), "{}: {good:?}", door.name);
        let newest = edge.get("/admin/submissions?count=1")["submissions"][0]["submission"].clone();
        let path = format!("/admin/submissions/{newest}/replay?commit=true");
        let replay = http::send(edge.http, "POST", &path, &[], "");
        if door.name == "FHIR" {
            let text = replay.json()["issue"][0]["diagnostics"].to_string();
            assert!(replay.status == 409 && text.contains("send it again"), "{replay:?}");
        } else {
            let told = replay.json();
            assert_eq!(
                (replay.status, &told["wouldBe"]),
                (200, &json!("accepted")),
                "{}: {told:#}",
                door.name
            );
            assert!(
                told["committed"].is_u64() && !told["changes"].as_array().unwrap().is_empty(),
                "{told:#}"
            );
        }
        assert_eq!((door.found)(&edge, &Item::new(number)), 1, "{}: nothing is there twice", door.name);
    }
    let unknown = http::send(edge.http, "POST", "/admin/submissions/4711/replay", &[], "");
    assert_eq!(unknown.status, 404);
}

#[test]
fn only_a_key_with_the_scope_sees_submissions() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    post(&edge, &message("CTRL-1", "4711", "F"));
    let (without, with) = (edge.key("system/*.cruds admin/metrics"), edge.key("admin/submissions"));
    for (method, path) in [
        ("GET", "/admin/submissions"),
        ("GET", "/admin/submissions/1"),
        ("GET", "/admin/submissions/1/original"),
        ("POST", "/admin/submissions/1/replay"),
    ] {
        let send = |headers: &[&str]| http::send(edge.keyed, method, path, headers, "");
        assert_eq!(send(&[]).status, 401, "{path}");
        let refused = send(&[&without]);
        assert!(refused.status == 403 && refused.body.contains("admin/submissions"), "{path}: {refused:?}");
        assert_eq!(send(&[&with]).status, 200, "{path}");
    }
}

#[test]
fn a_positive_acknowledgement_says_what_was_left_out_and_a_repeat_gets_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let warning = "ERR||PID^1^8|103^Table value not found^HL70357|W||||";
    let mut sender = mllp::Connection::open(edge.mllp).unwrap();
    let answer = sender.send(message("CTRL-1", "4711", "Q")).unwrap();
    assert!(answer.contains("MSA|AA|CTRL-1\r") && answer.contains(warning), "{answer}");
    assert_eq!(sender.send(message("CTRL-1", "4711", "Q")).unwrap(), answer);
    let answer = post(&edge, &message("CTRL-2", "4712", "Q"));
    assert!(answer.contains("MSA|AA|CTRL-2\r") && answer.contains(warning), "{answer}");
    let old = post(&edge, &message("CTRL-3", "4713", "Q").replace("|2.5.1", "|2.4"));
    assert!(old.ends_with("MSA|AA|CTRL-3\r"), "before 2.5 there is no severity: {old}");
    edge.kill();

    let quiet = "[[listen]]\nprotocol = \"mllp\"\naddress = \"127.0.0.1:0\"\nack_warnings = false\n";
    let edge =
        Edge::start_with_environment(dir.path(), quiet, &[("HILUM__LISTEN__2__ACK_WARNINGS", "false")]);
    let mut sender = mllp::Connection::open(edge.mllp).unwrap();
    let answer = sender.send(message("CTRL-4", "4714", "Q")).unwrap();
    assert!(answer.ends_with("MSA|AA|CTRL-4\r"), "{answer}");
}

#[test]
fn what_comes_late_is_told_to_its_sender_and_marked_for_attention() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let mut sender = mllp::Connection::open(edge.mllp).unwrap();
    assert!(sender.send(message("CTRL-1", "4711", "F")).unwrap().contains("MSA|AA|CTRL-1"));
    let older =
        message("CTRL-2", "4711", "F").replace("20240101120000", "20230101120000").replace("Anja", "Anna");
    let answer = sender.send(&older).unwrap();
    assert!(answer.contains("MSA|AA|CTRL-2\r") && answer.contains("|W|"), "{answer}");
    assert_eq!(sender.send(&older).unwrap(), answer, "a repeat gets the bytes of the first answer");
    assert_eq!(listed(&edge, &["--attention"], "attention=true"), [2]);
    let shown = edge.get("/admin/submissions/2");
    assert_eq!((&shown["attention"], &shown["changes"]), (&json!("late"), &json!([])), "{shown:#}");
    assert!(shown["answer"].as_str().unwrap().contains("|W|"), "{shown:#}");
    let metrics = http::send(edge.http, "GET", "/metrics", &[], "").body;
    let counted = metrics.lines().find(|line| line.starts_with("hilum_remarks_total")).unwrap_or_default();
    assert!(counted.contains("remark=\"late\"} 1"), "{metrics}");
}

#[test]
fn one_log_line_names_each_submission_its_peer_and_why_it_was_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = Edge::start(dir.path());
    let mut sender = mllp::Connection::open(edge.mllp).unwrap();
    sender.send(message("CTRL-1", "4711", "F")).unwrap();
    sender.send(message("CTRL-1", "4711", "F")).unwrap();
    sender.send(message("CTRL-2", "", "F")).unwrap();
    let mut association = Association::request(edge.dicom, CALLING).unwrap();
    association.store("2.25.77", &image("2.25.77", "4711", "Weber^Anja", 100)).unwrap();
    association.release();
    let plain = |log: String| log.replace("\u{1b}[", "");
    edge.wait("told", |edge| edge.log().contains("2.25.77"));
    let log = plain(edge.log());
    let lines = |name: &str| {
        let of: Vec<String> = log
            .lines()
            .filter(|line| line.contains(" submission site=") && line.contains(name))
            .map(str::to_owned)
            .collect();
        of
    };
    let of = lines("control=\"CTRL-1\"");
    assert_eq!(of.len(), 2, "one line each: {of:#?}");
    assert!(of[0].contains("receipt=\"accepted\"") && of[1].contains("receipt=\"duplicate\""), "{of:#?}");
    for told in [
        "site=\"default\"",
        "listener=mllp-",
        "peer=\"127.0.0.1:",
        "kind=\"ADT^A08\"",
        "calling=\"RIS|NORTH\"",
        "called=\"HILUM|EDGE\"",
        "submission=1",
        "ms=",
    ] {
        assert!(of[0].contains(told), "{told} in {}", of[0]);
    }
    let refused = lines("control=\"CTRL-2\"");
    for told in ["receipt=\"rejected\"", "reason=\"required\"", "hl7=101", "place=\"PID-3\""] {
        assert!(refused[0].contains(told), "{told} in {}", refused[0]);
    }
    let stored = lines("control=\"2.25.77\"");
    for told in ["kind=\"C-STORE CT\"", "calling=\"MODALITY\"", "called=\"HILUM\"", "receipt=\"accepted\""] {
        assert!(stored[0].contains(told), "{told} in {}", stored[0]);
    }
    let metrics = http::send(edge.http, "GET", "/metrics", &[], "").body;
    assert!(metrics.contains("receipt=\"rejected\",reason=\"required\"} 1"), "{metrics}");
}

#[test]
fn a_naming_system_steers_from_the_next_message_on_and_no_longer_when_it_is_retired() {
    let dir = tempfile::tempdir().unwrap();
    let configured = "[[site.authority]]\nnames = [\"HIS\"]\nsystem = \"urn:oid:1.2.99\"\n";
    let edge = Edge::start_limited(dir.path(), configured);
    let mut number = 0;
    let mut system_of = |authority: &str| {
        number += 1;
        post(&edge, &message(&format!("C{number}"), &format!("N{number}^^^{authority}"), "F"));
        let found = edge.get(&format!("/fhir/Patient?identifier=N{number}"));
        found["entry"][0]["resource"]["identifier"][0]["system"].as_str().unwrap().to_owned()
    };
    let put = |status: &str| {
        let resource = json!({ "resourceType": "NamingSystem", "id": "north", "name": "North", "status": status, "kind": "identifier", "date": "2024-01-01",
            "uniqueId": [{ "type": "other", "value": "NORTH" }, { "type": "other", "value": "HIS" },
                { "type": "oid", "value": "1.2.3.4" }, { "type": "uri", "value": "https://north.example/mrn", "preferred": true }] });
        let reply = http::send(edge.http, "PUT", "/fhir/NamingSystem/north", &[JSON], resource.to_string());
        assert!(reply.status < 300, "{reply:?}");
    };
    assert_eq!(system_of("NORTH"), "urn:hilum:site:default:hd:NORTH");
    assert_eq!(system_of("HIS"), "urn:oid:1.2.99", "configured");
    put("active");
    assert_eq!(system_of("NORTH"), "https://north.example/mrn");
    assert_eq!(system_of("HIS"), "https://north.example/mrn", "a resource comes before the configuration");
    assert_eq!(system_of("SOUTH"), "urn:hilum:site:default:hd:SOUTH");
    put("retired");
    assert_eq!(system_of("NORTH"), "urn:hilum:site:default:hd:NORTH");
    assert_eq!(system_of("HIS"), "urn:oid:1.2.99");
    put("active");
    let gone = http::send(edge.http, "DELETE", "/fhir/NamingSystem/north", &[], "");
    assert!(gone.status < 300, "{gone:?}");
    assert_eq!(system_of("NORTH"), "urn:hilum:site:default:hd:NORTH");
}

#[test]
fn what_was_stored_under_the_uri_of_a_name_is_found_when_a_naming_system_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let order = |control: &str, number: &str| {
        let patient = message(control, number, "").replace("ADT^A08^ADT_A01", "ORM^O01");
        format!("{patient}ORC|NW|P1^HOSP|F1^HOSP||SC\rOBR|1|P1^HOSP|F1^HOSP|GLU^Glucose^L\r")
    };
    let accepted = |message: &str| {
        let answer = post(&edge, message);
        assert!(answer.contains("MSA|AA|"), "{answer}");
    };
    accepted(&message("C1", "N1^^^HOSP^MR", "F"));
    accepted(&order("C2", "N1^^^HOSP^MR"));
    let resource = json!({ "resourceType": "NamingSystem", "name": "Hospital", "status": "active", "kind": "identifier", "date": "2024-01-01",
        "uniqueId": [{ "type": "other", "value": "HOSP" }, { "type": "uri", "value": "https://hosp.example/mrn", "preferred": true }] });
    let reply = http::send(edge.http, "POST", "/fhir/NamingSystem", &[JSON], resource.to_string());
    assert_eq!(reply.status, 201, "{reply:?}");
    accepted(&message("C3", "N1^^^HOSP^MR", "M").replace("20240101120000", "20240102120000"));
    accepted(&order("C4", "N1^^^HOSP^MR").replace("20240101120000", "20240102120000"));
    assert_eq!(edge.total("/fhir/Patient?_total=accurate"), 1);
    let patient =
        edge.get("/fhir/Patient?identifier=https://hosp.example/mrn|N1")["entry"][0]["resource"].clone();
    let systems: Vec<&Value> =
        patient["identifier"].as_array().unwrap().iter().map(|identifier| &identifier["system"]).collect();
    assert_eq!(systems, ["urn:hilum:site:default:hd:HOSP", "https://hosp.example/mrn"], "{patient:#}");
    assert_eq!(patient["gender"], "male");
    assert_eq!(edge.total("/fhir/ServiceRequest?_total=accurate"), 1);
    assert_eq!(edge.total("/fhir/ServiceRequest?_total=accurate&identifier=https://hosp.example/mrn|F1"), 1);
}

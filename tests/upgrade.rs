//! A store of the first version (`fixtures/upgrade`) is opened in place: everything is there, and the rules of today hold on it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use std::path::{Path, PathBuf};
use std::process::Command;

use harness::cluster::Cluster;
use harness::dicom::{Association, image_of};
use harness::{CALLING, Edge, http, is_on_server};
use serde_json::{Value, json};

const TEXT: &str = "Content-Type: text/plain";
const JSON: &str = "Content-Type: application/json";
/// What fixtures/upgrade/make.py sent.
const ROOT: &str = "1.2.826.0.1.3680043.8.498.41";
const CLARA: &str = "UP1^^^HOSP^MR||Vogt^Clara||19700102|F";
const JONAS: &str = "UP2||Arndt^Jonas||19650203|M";
const MEMBERS: [(&str, u64); 8] = [
    ("Patient", 4),
    ("Encounter", 1),
    ("ServiceRequest", 1),
    ("DiagnosticReport", 2),
    ("Observation", 1),
    ("ImagingStudy", 4),
    ("Procedure", 1),
    ("Subscription", 1),
];

/// An edge of today on the store of the first version.
fn upgraded(dir: &Path) -> Edge {
    let fixtures = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/upgrade"));
    let archive = if is_on_server() { "first-server.tar.gz" } else { "first-files.tar.gz" };
    let unpacked =
        Command::new("tar").arg("xzf").arg(fixtures.join(archive)).arg("-C").arg(dir).status().unwrap();
    assert!(unpacked.success());
    if is_on_server() {
        let cluster = Cluster::shared();
        cluster.load(&cluster.database(dir), &dir.join("data/dump.sql"));
    }
    Edge::start(dir)
}

fn message(control: &str, kind: &str, segments: &[&str]) -> String {
    let head = format!(
        "MSH|^~\\&|RIS|NORTH|HILUM|EDGE|20240201080000||{kind}|{control}|P|2.5.1\rEVN||20240201080000"
    );
    [&[head.as_str()], segments].concat().join("\r") + "\r"
}

fn accepted(edge: &Edge, message: &str) {
    let answer = http::send(edge.http, "POST", "/v2/ingest", &[TEXT], message);
    assert!(answer.body.contains("MSA|AA|"), "{}", answer.body);
}

/// The one resource that a search finds.
fn one(edge: &Edge, search: &str) -> Value {
    let found = edge.get(&format!("/fhir/{search}"));
    let entries = found["entry"].as_array().cloned().unwrap_or_default();
    assert_eq!(entries.len(), 1, "{search}: {found:#}");
    entries[0]["resource"].clone()
}

/// Every resource of the types, as they are now.
fn all(edge: &Edge) -> Vec<Value> {
    let of = |of: &str| edge.get(&format!("/fhir/{of}?_count=100&_sort=_id"))["entry"].clone();
    let entries = MEMBERS.iter().filter_map(|(name, _)| of(name).as_array().cloned()).flatten();
    entries.map(|mut entry| entry["resource"].take()).collect()
}

fn store(edge: &Edge, study: u32, image: u32, patient: (&str, &str)) {
    let study = format!("{ROOT}.{study}");
    let (series, instance) = (format!("{study}.1"), format!("{study}.1.{image}"));
    let mut association = Association::request(edge.dicom, CALLING).unwrap();
    let stored = association.store(&instance, &image_of(&instance, &study, &series, patient, 64)).unwrap();
    assert_eq!(stored.status, 0, "{}", stored.comment);
    association.release();
}

#[test]
fn everything_is_there_and_a_second_start_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = upgraded(dir.path());
    for (of, count) in MEMBERS {
        assert_eq!(edge.total(&format!("/fhir/{of}?_total=accurate&_count=1")), count, "{of}");
    }
    let jonas = one(&edge, "Patient?identifier=UP2");
    let history = edge.get(&format!("/fhir/Patient/{}/_history", jonas["id"].as_str().unwrap()));
    assert!(history["entry"].as_array().unwrap().len() >= 2, "{history:#}");
    let observation = one(&edge, "Observation?code=2345-7");
    assert_eq!(observation["valueQuantity"]["value"], json!(5.4));
    let rejected = edge.get("/admin/submissions?rejected=true");
    assert_eq!(rejected["submissions"].as_array().unwrap().len(), 1, "{rejected:#}");
    assert!(edge.hilum(&["key", "list"]).contains("of-the-first-version"));
    let checked = edge.hilum(&["fsck", "--deep"]);
    assert!(!checked.contains("wrong"), "{checked}");
    let before = all(&edge);
    edge.terminate();
    assert!(edge.ended().success());
    let edge = Edge::start(dir.path());
    assert!(all(&edge) == before, "{:#?}", all(&edge));
}

#[test]
fn a_patient_of_the_first_version_is_updated_and_one_that_was_merged_is_followed() {
    let dir = tempfile::tempdir().unwrap();
    let edge = upgraded(dir.path());
    let (clara, jonas) = (one(&edge, "Patient?identifier=UP1"), one(&edge, "Patient?identifier=UP2"));
    for (control, patient) in
        [("U1", CLARA.to_owned()), ("U2", JONAS.to_owned()), ("U3", JONAS.replace("UP2", "UP3"))]
    {
        let patient = format!("PID|1||{patient}|||{control} Street^^City");
        accepted(&edge, &message(control, "ADT^A08", &[&patient]));
    }
    let street = |id: &Value| {
        let patient = edge.get(&format!("/fhir/Patient/{}", id.as_str().unwrap()));
        patient["address"][0]["line"][0].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(
        (street(&clara["id"]), street(&jonas["id"])),
        ("U1 Street".to_owned(), "U3 Street".to_owned())
    );
    assert_eq!(edge.total("/fhir/Patient?_total=accurate"), 4, "nobody was made a second time");
}

#[test]
fn an_order_and_a_result_sent_again_are_the_ones_of_the_first_version() {
    let dir = tempfile::tempdir().unwrap();
    let edge = upgraded(dir.path());
    let before = one(&edge, "Observation?code=2345-7");
    let obr = "OBR|1|P100^RIS|F100^LAB|GLU^Glucose^L|||20240102093000|||||||||||||||20240201080000||CH|C";
    let patient = format!("PID|1||{JONAS}");
    let result = [
        patient.as_str(),
        "ORC|RE|P100^RIS|F100^LAB",
        obr,
        "OBX|1|NM|2345-7^Glucose^LN||6.1|mmol/L|3.9-6.1||||C",
    ];
    accepted(&edge, &message("U1", "ORU^R01", &result));
    let after = one(&edge, "Observation?code=2345-7");
    assert_eq!((&after["id"], &after["valueQuantity"]["value"]), (&before["id"], &json!(6.1)));
    assert_eq!(after["status"], "corrected");
    accepted(&edge, &message("U2", "ORM^O01", &[&patient, "ORC|CM|P100^RIS|F100^LAB||CM", obr]));
    assert_eq!(one(&edge, "ServiceRequest")["status"], "completed");
    assert_eq!(edge.total("/fhir/DiagnosticReport?_total=accurate"), 2);
}

#[test]
fn a_study_of_nobody_is_that_of_the_first_patient_named() {
    let dir = tempfile::tempdir().unwrap();
    let edge = upgraded(dir.path());
    let search = format!("ImagingStudy?identifier=urn:oid:{ROOT}.3");
    let before = one(&edge, &search);
    assert_eq!(before["subject"].get("reference"), None, "{before:#}");
    let stand_in = one(&edge, "Patient?name=Doe");
    store(&edge, 3, 2, ("UP2", "Arndt^Jonas"));
    let after = one(&edge, &search);
    let jonas = one(&edge, "Patient?identifier=UP2");
    assert_eq!(after["id"], before["id"]);
    assert_eq!(after["subject"]["reference"], format!("Patient/{}", jonas["id"].as_str().unwrap()));
    assert_eq!(after["numberOfInstances"], 2);
    let of =
        format!("/fhir/ImagingStudy?_total=accurate&subject=Patient/{}", stand_in["id"].as_str().unwrap());
    assert_eq!(edge.total(&of), 0);
    // the studies of somebody stay theirs
    let clara = one(&edge, "Patient?identifier=UP1");
    let of_clara = format!("ImagingStudy?patient={}", clara["id"].as_str().unwrap());
    assert_eq!(one(&edge, &of_clara)["numberOfInstances"], 1);
    store(&edge, 2, 2, ("UP2", "Arndt^Jonas"));
    assert_eq!(one(&edge, &of_clara)["numberOfInstances"], 1);
    let checked = edge.hilum(&["fsck"]);
    assert!(!checked.contains("wrong"), "{checked}");
}

#[test]
fn a_step_that_was_going_on_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    let edge = upgraded(dir.path());
    let before = one(&edge, "Procedure");
    assert_eq!(before["status"], "in-progress");
    let attribute = |vr: &str, value: Value| json!({ "vr": vr, "Value": [value] });
    let images = json!({
        "0020000E": attribute("UI", json!(format!("{ROOT}.4.1"))),
        "00081140": { "vr": "SQ", "Value": [{ "00081150": attribute("UI", json!("1.2.840.10008.5.1.4.1.1.2")),
            "00081155": attribute("UI", json!(format!("{ROOT}.4.1.1"))) }] },
    });
    let step = json!({
        "00080018": attribute("UI", json!(format!("{ROOT}.9"))),
        "00100020": attribute("LO", json!("UP2")),
        "00400250": attribute("DA", json!("20240102")),
        "00400251": attribute("TM", json!("113000")),
        "00400252": attribute("CS", json!("COMPLETED")),
        "00400340": attribute("SQ", images),
    });
    let reply = http::send(edge.http, "POST", "/ingest", &[JSON], step.to_string());
    assert_eq!(reply.status, 200, "{}", reply.body);
    let after = one(&edge, "Procedure");
    assert_eq!((&after["id"], &after["status"]), (&before["id"], &json!("completed")));
}

#[test]
fn a_reference_that_named_an_order_nobody_knew_finds_it_when_it_comes() {
    let dir = tempfile::tempdir().unwrap();
    let edge = upgraded(dir.path());
    let order = ["ORC|NW|LATE1^^1.2.36.9^ISO|||SC", "OBR|1|LATE1^^1.2.36.9^ISO||XR^Chest^L"];
    let patient = format!("PID|1||{JONAS}");
    accepted(&edge, &message("U1", "ORM^O01", &[&[patient.as_str()], &order[..]].concat()));
    let order = one(&edge, "ServiceRequest?identifier=LATE1");
    let report = one(&edge, "DiagnosticReport?code:text=late");
    assert_eq!(
        report["basedOn"][0]["reference"],
        format!("ServiceRequest/{}", order["id"].as_str().unwrap()),
        "{report:#}"
    );
}

//! The loop of imaging: an order, a performed step, images and a report of one patient, in each of the 24 orders in which they can come in. The
//! feed of HL7 names the authority of the patient's number, the modality does not. What comes of it is the same each time: one Patient, one
//! order, one step, one study and one report, linked with each other (record.md, sections 1 and 6).
//!
//! `fixtures/loop` holds what is sent (`{N}` is the number of the run, `{I}` that of the image) and what comes of it; `UPDATE=1` rewrites that.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use harness::{CALLING, Edge, Value, dicom, http, mllp};

/// What happens of each patient.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Order,
    Step,
    Images,
    Report,
}

const EVENTS: [Event; 4] = [Event::Order, Event::Step, Event::Images, Event::Report];
/// Types of what comes of a loop, and what names the patient of each.
const HANGING: [(&str, &str); 5] = [
    ("ServiceRequest", "subject"),
    ("Procedure", "subject"),
    ("ImagingStudy", "patient"),
    ("DiagnosticReport", "subject"),
    ("Observation", "subject"),
];

/// What the modality says of the patient beside name and number.
#[derive(Clone, Copy)]
enum Modality {
    /// The birth date: the patients are one by number, birth date and name.
    NamesBirthDate,
    /// Nothing: they are one by the order and the study.
    NamesNumberOnly,
}

#[test]
fn all_orders_of_the_loop_end_in_the_same_record() {
    the_same_in_all_orders(Modality::NamesBirthDate);
}

#[test]
fn a_modality_that_names_no_birth_date_ends_in_the_same_record() {
    the_same_in_all_orders(Modality::NamesNumberOnly);
}

#[test]
fn a_restart_between_any_two_events_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = Edge::start(dir.path());
    for event in [Event::Images, Event::Report, Event::Step, Event::Order] {
        send(&edge, event, 1, Modality::NamesBirthDate);
        edge.kill();
        edge = Edge::start(dir.path());
    }
    assert_eq!(record(&edge, 1), expected("record.json"));
}

fn the_same_in_all_orders(modality: Modality) {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let orders = permutations();
    assert_eq!(orders.len(), 24);
    for (order, number) in orders.iter().zip(1..) {
        order.iter().for_each(|event| send(&edge, *event, number, modality));
    }
    let mut wrong = Vec::new();
    let mut first = None;
    for (order, number) in orders.iter().zip(1..) {
        let found = record(&edge, number);
        if first.is_none()
            && std::env::var_os("UPDATE").is_some()
            && matches!(modality, Modality::NamesBirthDate)
        {
            std::fs::write(file("record.json"), format!("{found:#}\n")).unwrap();
        }
        let expected = first.get_or_insert_with(|| expected("record.json"));
        if found != *expected {
            wrong.push(format!("{order:?}: {}", difference(expected, &found)));
        }
    }
    assert!(wrong.is_empty(), "{} orders differ:\n{}", wrong.len(), wrong.join("\n"));
    for of in ["Patient", "ServiceRequest", "Procedure", "ImagingStudy", "DiagnosticReport", "Observation"] {
        assert_eq!(
            edge.total(&format!("/fhir/{of}?_summary=count")),
            24,
            "{of}: one of each loop and no other"
        );
    }
}

/// The four events in all orders.
fn permutations() -> Vec<Vec<Event>> {
    let mut all = vec![Vec::new()];
    for _ in EVENTS {
        let longer = |begun: Vec<Event>| {
            let left: Vec<Event> = EVENTS.into_iter().filter(|event| !begun.contains(event)).collect();
            left.into_iter().map(move |event| [begun.clone(), vec![event]].concat())
        };
        all = all.into_iter().flat_map(longer).collect();
    }
    all
}

fn send(edge: &Edge, event: Event, number: u32, modality: Modality) {
    match event {
        Event::Order => exchange(edge, "order.er7", number),
        Event::Report => exchange(edge, "report.er7", number),
        Event::Step => {
            for name in ["started.json", "completed.json"] {
                let mut step: Value = serde_json::from_str(&text(name, number)).unwrap();
                if matches!(modality, Modality::NamesNumberOnly) {
                    step.as_object_mut().unwrap().remove("00100030");
                }
                let kind = ["Content-Type: application/dicom+json"];
                let answer = http::send(edge.http, "POST", "/ingest", &kind, step.to_string());
                assert_eq!(answer.status, 200, "{name}: {answer:?}");
            }
        }
        Event::Images => {
            let mut association = dicom::Association::request(edge.dicom, CALLING).unwrap();
            for image in 1..=2 {
                let dump = text("image.dump", number).replace("{I}", &image.to_string());
                let lines = dump.lines().filter(|line| {
                    !(matches!(modality, Modality::NamesNumberOnly) && line.starts_with("(0010,0030)"))
                });
                let data_set: Vec<u8> = lines.flat_map(element).collect();
                let uid = format!("1.2.826.0.1.3680043.8.498.60.{number}.1.{image}");
                let stored = association.store(&uid, &data_set).unwrap();
                assert_eq!(stored.status, 0, "{stored:?}");
            }
            association.release();
        }
    }
}

fn exchange(edge: &Edge, name: &str, number: u32) {
    let message = text(name, number).replace('\n', "\r");
    let answer = mllp::Connection::open(edge.mllp).unwrap().send(message).unwrap();
    assert!(answer.contains("MSA|AA|"), "{name}: {answer}");
}

/// `(gggg,eeee) VR value` in explicit little endian.
fn element(line: &str) -> Vec<u8> {
    let hex = |range: std::ops::Range<usize>| u16::from_str_radix(&line[range], 16).unwrap();
    let (vr, value) = (&line[12..14], line.get(15..).unwrap_or_default());
    let pad = if vr == "UI" { 0 } else { b' ' };
    dicom::element(hex(1..5), hex(6..10), vr, &dicom::padded(value, pad))
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/loop").join(name)
}

/// What is sent, of the run with a number.
fn text(name: &str, number: u32) -> String {
    std::fs::read_to_string(file(name)).unwrap().replace("{N}", &number.to_string())
}

fn expected(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(file(name)).unwrap()).unwrap()
}

/// What came of the loop with a number, by type: without ids, versions and times of the edge, and without the order of lists.
fn record(edge: &Edge, number: u32) -> Value {
    let resources = |path: &str| -> Vec<Value> {
        let page = edge.get(path);
        let entries = page["entry"].as_array().cloned().unwrap_or_default();
        entries.into_iter().map(|entry| entry["resource"].clone()).collect()
    };
    let patients = resources(&format!("/fhir/Patient?identifier=L{number}"));
    let mut all = BTreeMap::from([("Patient", patients.clone())]);
    for (of, parameter) in HANGING {
        let found = patients.iter().flat_map(|patient| {
            resources(&format!("/fhir/{of}?{parameter}=Patient/{}", patient["id"].as_str().unwrap()))
        });
        all.insert(of, found.collect());
    }
    let mut ids: Vec<(String, String)> = Vec::new();
    for (of, resources) in &all {
        for (at, resource) in resources.iter().enumerate() {
            ids.push((
                resource["id"].as_str().unwrap().to_owned(),
                format!("{}-{}", of.to_lowercase(), at + 1),
            ));
        }
    }
    let mut text = serde_json::to_string(&all).unwrap();
    for (id, name) in ids {
        text = text.replace(&id, &name);
    }
    let mut record: Value = serde_json::from_str(&text).unwrap();
    without_times(&mut record, number);
    record
}

/// Takes out what is of one run only, and puts lists in an order.
fn without_times(record: &mut Value, number: u32) {
    let own = [
        (format!("498.60.{number}"), "498.60.{N}"),
        (format!("\"L{number}\""), "\"L{N}\""),
        (format!("\"P{number}\""), "\"P{N}\""),
        (format!("\"F{number}\""), "\"F{N}\""),
        (format!("\"A{number}\""), "\"A{N}\""),
        (format!("\"S{number}\""), "\"S{N}\""),
    ];
    let mut text = record.to_string();
    for (value, name) in own {
        text = text.replace(&value, name);
    }
    *record = serde_json::from_str(&text).unwrap();
    for resources in record.as_object_mut().unwrap().values_mut() {
        for resource in resources.as_array_mut().unwrap() {
            resource["meta"].as_object_mut().unwrap().retain(|name, _| name == "tag");
        }
    }
    sort(record);
}

/// Lists in order of their texts, members in order of their names.
fn sort(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.iter_mut().for_each(sort);
            items.sort_by_key(ToString::to_string);
        }
        Value::Object(members) => {
            members.values_mut().for_each(sort);
            let mut sorted: Vec<(String, Value)> = std::mem::take(members).into_iter().collect();
            sorted.sort_by(|one, other| one.0.cmp(&other.0));
            members.extend(sorted);
        }
        _ => {}
    }
}

/// The resources that differ, both ways.
fn difference(expected: &Value, found: &Value) -> String {
    let types = expected.as_object().unwrap().keys();
    let differs = types.filter(|of| expected[*of] != found[*of]);
    differs.map(|of| format!("\n  {of} {}\n  instead of {}", found[of], expected[of])).collect()
}

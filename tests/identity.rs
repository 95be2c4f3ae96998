//! docs/identity.md is true: what its examples send is sent to an edge, chapter by chapter, and what they show of the record is what is there. `UPDATE=1`
//! writes what is there into the file; look at the difference.
//!
//! A block `message` is an HL7 v2 message, a block `image` a DICOM object, a block `rest` a request; a block `record` says what was answered since the one
//! before, and what the record holds then. Every chapter (`###`) begins with an empty edge.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

#[path = "dicom/objects.rs"]
#[allow(dead_code, reason = "this test uses its part")]
mod objects;

mod harness;

use std::collections::BTreeMap;
use std::fmt::Write;

use harness::dicom::Association;
use harness::{CALLING, Edge, http};
use objects::{EXPLICIT, Writer};
use serde_json::Value;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/identity.md");
/// What is shown of the record: type, and how the document calls it.
const SHOWN: [(&str, &str); 6] = [
    ("Patient", "Patient"),
    ("Encounter", "Visit"),
    ("ServiceRequest", "Order"),
    ("DiagnosticReport", "Report"),
    ("Observation", "Result"),
    ("ImagingStudy", "Study"),
];

#[test]
fn the_examples_of_the_document_are_what_happens() {
    let written = std::fs::read_to_string(FILE).unwrap();
    let mut chapters = written.split("\n### ");
    let mut rendered = chapters.next().unwrap().to_owned();
    let mut examples = 0;
    for chapter in chapters {
        let (text, count) = play(chapter);
        let _ = write!(rendered, "\n### {text}");
        examples += count;
    }
    assert!(examples >= 15, "{examples} examples");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(FILE, &rendered).unwrap();
    }
    let written = std::fs::read_to_string(FILE).unwrap();
    let stale = rendered.lines().zip(written.lines()).find(|(now, then)| now != then);
    assert!(rendered == written, "docs/identity.md is stale; UPDATE=1 writes it anew: {stale:#?}");
}

/// A chapter with its records as they are, and how many there were.
fn play(chapter: &str) -> (String, usize) {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let (mut text, mut records, mut images) = (String::new(), 0, 0);
    let mut answers: Vec<String> = Vec::new();
    for (number, part) in chapter.split("```").enumerate() {
        if number % 2 == 0 {
            text.push_str(part);
            continue;
        }
        let (kind, block) = part.split_once('\n').unwrap();
        let mut block = block.to_owned();
        match kind {
            "message" => answers.push(message(&edge, &block)),
            "image" => {
                images += 1;
                answers.push(image(&edge, &block, images));
            }
            "rest" => answers.push(request(&edge, &block)),
            "record" => {
                block = record(&edge, &std::mem::take(&mut answers));
                records += 1;
            }
            other => panic!("a block of an unknown kind: {other}"),
        }
        let _ = write!(text, "```{kind}\n{block}```");
    }
    assert!(answers.is_empty(), "what came of it is not shown: {chapter}");
    (text, records)
}

/// Sends a message; its acknowledgement with what the ERR segments say.
fn message(edge: &Edge, lines: &str) -> String {
    let bytes = lines.trim_end().replace('\n', "\r") + "\r";
    let answer = http::send(edge.http, "POST", "/v2/ingest", &["Content-Type: text/plain"], bytes).body;
    let field = |segment: &str, at: usize| {
        let text = segment.split('|').nth(at).unwrap_or_default();
        text.split('^').next().unwrap_or_default().to_owned()
    };
    let mut told = String::new();
    for segment in answer.split('\r') {
        if segment.starts_with("MSA|") {
            told = field(segment, 1);
        } else if segment.starts_with("ERR|") {
            let _ =
                write!(told, "\n       {} {}: {}", field(segment, 4), field(segment, 3), field(segment, 8));
        }
    }
    told
}

/// Stores an image that has the attributes of the lines; the status.
fn image(edge: &Edge, lines: &str, number: usize) -> String {
    let said: BTreeMap<&str, &str> = lines
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name, value.trim()))
        .collect();
    let of = |name: &str| said.get(name).copied().unwrap_or_default();
    let study = of("Study Instance UID");
    let instance = format!("2.25.80{number}");
    let mut writer = Writer::new(EXPLICIT);
    writer.text(0x0008, 0x0016, "UI", "1.2.840.10008.5.1.4.1.1.2");
    writer.text(0x0008, 0x0018, "UI", &instance);
    for (group, element, vr, name) in [
        (0x0008, 0x0050, "SH", "Accession Number"),
        (0x0010, 0x0010, "PN", "Patient's Name"),
        (0x0010, 0x0020, "LO", "Patient ID"),
        (0x0010, 0x0021, "LO", "Issuer of Patient ID"),
        (0x0010, 0x0030, "DA", "Patient's Birth Date"),
    ] {
        if said.contains_key(name) {
            writer.text(group, element, vr, of(name));
        }
    }
    writer.text(0x0020, 0x000D, "UI", study);
    writer.text(0x0020, 0x000E, "UI", &format!("{study}.1.{number}"));
    let mut association = Association::request(edge.dicom, CALLING).unwrap();
    let stored = association.store(&instance, &writer.bytes).unwrap();
    association.release();
    format!("{:04X}", stored.status)
}

/// Sends a request; its status.
fn request(edge: &Edge, block: &str) -> String {
    let (line, body) = block.split_once('\n').unwrap();
    let (method, path) = line.split_once(' ').unwrap();
    let reply = http::send(edge.http, method, path, &["Content-Type: application/fhir+json"], body.trim());
    reply.status.to_string()
}

/// What was answered, and what the record holds.
fn record(edge: &Edge, answers: &[String]) -> String {
    let mut names: Vec<(String, String)> = Vec::new();
    let mut found: Vec<Value> = Vec::new();
    for (of, called) in SHOWN {
        let page = edge.get(&format!("/fhir/{of}?_count=100&_sort=_id"));
        for (entry, letter) in page["entry"].as_array().into_iter().flatten().zip('A'..='Z') {
            let resource = entry["resource"].clone();
            names.push((format!("{of}/{}", text(&resource["id"])), format!("{called} {letter}")));
            found.push(resource);
        }
    }
    let mut lines: Vec<String> = answers.iter().map(|answer| format!("answer {answer}")).collect();
    for resource in &found {
        let own = format!("{}/{}", text(&resource["resourceType"]), text(&resource["id"]));
        let told = told(resource).into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>();
        lines.push(format!("{own}: {}", told.join("; ")));
    }
    let mut shown = lines.join("\n") + "\n";
    for (reference, name) in &names {
        shown = shown.replace(reference, name);
    }
    shown
}

/// What is told of a resource.
fn told(resource: &Value) -> Vec<String> {
    let mut told = Vec::new();
    let subject = &resource["subject"];
    match (subject["reference"].as_str(), subject["display"].as_str()) {
        (Some(reference), _) => told.push(format!("of {reference}")),
        (None, Some(display)) => told.push(format!("of an {display}")),
        _ => {}
    }
    told.push(list(&resource["identifier"]).map(identifier).collect::<Vec<_>>().join(", "));
    told.push(
        list(&resource["name"])
            .map(|name| format!("{} {}", text(&name["family"]), text(&name["given"][0])).trim().to_owned())
            .collect::<Vec<_>>()
            .join(", "),
    );
    told.extend(["birthDate", "gender", "status"].map(|member| text(&resource[member])));
    told.push(text(&resource["code"]["text"]));
    let quantity = &resource["valueQuantity"];
    told.push(format!("{} {}", text(&quantity["value"]), text(&quantity["unit"])).trim().to_owned());
    told.push(match &resource["numberOfInstances"] {
        Value::Number(images) => format!("images: {images}"),
        _ => String::new(),
    });
    for (member, words) in [("basedOn", "based on"), ("result", "with")] {
        for one in list(&resource[member]) {
            let known = text(&one["reference"]);
            let waits = format!("{} that is not known yet", text(&one["identifier"]["value"]));
            told.push(format!("{words} {}", if known.is_empty() { waits } else { known }));
        }
    }
    told.push(if resource["active"] == false { "inactive".to_owned() } else { String::new() });
    for link in list(&resource["link"]).filter(|link| link["type"] == "replaced-by") {
        told.push(format!("replaced by {}", text(&link["other"]["reference"])));
    }
    for tag in list(&resource["meta"]["tag"]).filter(|tag| tag["system"] == "urn:hilum:attention") {
        told.push(format!("marked {}", text(&tag["code"])));
    }
    told
}

/// A number and who assigned it.
fn identifier(identifier: &Value) -> String {
    let system = text(&identifier["system"]);
    let value = text(&identifier["value"]);
    let whose = match system.strip_prefix("urn:hilum:site:default:") {
        Some(own) => own.strip_prefix("hd:").unwrap_or(match own {
            "mrn" => "no authority",
            "accession" => "accession",
            other => other,
        }),
        None if system == "urn:dicom:uid" => return value.replace("urn:oid:", ""),
        None if system == "urn:hilum:attention:numbers-of-several-patients" => {
            return "kept apart".to_owned();
        }
        None if system.is_empty() => "no authority",
        None => &system,
    };
    match text(&identifier["type"]["coding"][0]["code"]).as_str() {
        "FILL" => format!("filler {value} ({whose})"),
        "PLAC" => format!("placer {value} ({whose})"),
        _ if whose.contains('-') || ["report", "observation"].contains(&whose) => String::new(),
        _ => format!("{value} ({whose})"),
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

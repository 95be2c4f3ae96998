//! Pairs of JSON and XML that stand side by side in `fixtures/fhir/xml`, and examples the environment names.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::path::{Path, PathBuf};

use hilum_fhir::{Resource, json, xml};
use serde_json::Value;

fn read(text: &str) -> Value {
    xml::read(text.as_bytes(), &xml::Limits::default()).unwrap().into_value()
}

fn parse(bytes: &[u8]) -> Value {
    json::parse(bytes, &json::Limits::default()).unwrap()
}

/// The text without what stands between elements.
fn without_blanks(text: &str) -> String {
    let mut out = String::new();
    for piece in text.split_inclusive('>') {
        let is_tag = piece.trim_start().starts_with('<');
        out.push_str(if is_tag { piece.trim_start() } else { piece });
    }
    out.trim_end().to_owned()
}

fn pairs() -> Vec<(PathBuf, PathBuf)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/fhir/xml");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .map(|path| (path.clone(), path.with_extension("xml")))
        .collect()
}

#[test]
fn pairs_of_json_and_xml_are_made_of_each_other() {
    let pairs = pairs();
    assert!(pairs.len() >= 7);
    for (json_file, xml_file) in pairs {
        let name = json_file.display();
        let value = parse(&std::fs::read(&json_file).unwrap());
        let text = std::fs::read_to_string(&xml_file).unwrap();
        let empty = text.replace("<Patient></Patient>", "<Patient/>");
        assert_eq!(read(&text), value, "{name}");
        assert_eq!(read(&empty), value, "{name}");
        let resource = Resource::from_value(value.clone()).unwrap();
        let written = String::from_utf8(xml::write(&resource).unwrap()).unwrap();
        assert_eq!(written, without_blanks(&text), "{name}");
        assert_eq!(read(&written), value, "{name}");
    }
}

/// With `HILUM_FHIR_EXAMPLES` naming a file of resources as NDJSON, each goes to XML and back.
#[test]
fn examples_named_by_the_environment_go_round() {
    let Some(file) = std::env::var_os("HILUM_FHIR_EXAMPLES") else { return };
    let (mut round, mut refused) = (0, Vec::new());
    for line in std::fs::read_to_string(file).unwrap().lines() {
        let value = parse(line.as_bytes());
        let Ok(resource) = Resource::from_value(value.clone()) else { continue };
        match xml::write(&resource) {
            Ok(text) => {
                assert_eq!(read(std::str::from_utf8(&text).unwrap()), value);
                round += 1;
            }
            Err(issue) => refused.push(issue),
        }
    }
    println!("{round} went round, refused were {refused:#?}");
    assert!(round > 0);
}

//! Every `fixtures/v2/NAME.in.er7` maps to `NAME.out.json`: changes, issues, unmapped places. `UPDATE=1` rewrites the files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::Path;

use bytes::Bytes;
use hilum_fhir::validate::validate;
use hilum_fhir::{Action, Resource, Timestamp};
use hilum_normalise::{Context, Normalised, Payload, Rules, bundle, normalise};
use serde_json::json;

fn context() -> Context {
    Context {
        site: "default".into(),
        zone: jiff::tz::TimeZone::get("Europe/Berlin").unwrap(),
        patient_identifier_system: "urn:hilum:site:default:mrn".into(),
        naming_systems: vec![("NORTH".into(), "https://north.example/ids".into())],
        received: Timestamp::from_micros(1_700_000_000_000_000),
        seed: 1,
    }
}

fn shown(normalised: &Normalised) -> String {
    let issues: Vec<_> = normalised
        .issues
        .iter()
        .map(|i| json!([i.severity.as_str(), i.code.as_str(), i.location, i.diagnostics, i.hl7_code]))
        .collect();
    let value = json!({ "bundle": bundle(normalised), "issues": issues, "unmapped": normalised.unmapped });
    format!("{value:#}\n")
}

fn resources(normalised: &Normalised) -> Vec<&Resource> {
    normalised
        .changes
        .iter()
        .filter_map(|change| match &change.action {
            Action::Create(r) | Action::Ensure(_, r) | Action::Merge(_, r, _) | Action::Replace(_, r) => {
                Some(r)
            }
            _ => None,
        })
        .collect()
}

#[test]
fn every_fixture_maps_to_its_golden_file_and_valid_fhir() {
    let rules = Rules::compile(&[]).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/v2");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".in.er7"))
        else {
            continue;
        };
        let normalised = normalise(&Payload::V2(Bytes::from(fs::read(&path).unwrap())), &rules, &context());
        for resource in resources(&normalised) {
            let issues = validate(resource);
            assert!(issues.is_empty(), "{name}: {issues:?}\n{:#}", resource.to_value());
        }
        let golden = path.with_file_name(format!("{name}.out.json"));
        let text = shown(&normalised);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&golden, &text).unwrap();
        }
        assert_eq!(
            text,
            fs::read_to_string(&golden).unwrap_or_default(),
            "{name}: run with UPDATE=1 and look at the difference"
        );
        count += 1;
    }
    assert!(count >= 11, "{count} fixtures");
}

#[test]
fn the_report_holds_places_and_no_values() {
    let rules = Rules::compile(&[]).unwrap();
    let message = "MSH|^~\\&|A|B|||20240101||ADT^A08|1|P|2.5\rPID|1||MARKEDID||MARKEDNAME^MARKEDGIVEN||19800101|MARKEDSEX|||||||||||||||||||||||MARKEDREST\r";
    let normalised = normalise(&Payload::V2(Bytes::from(message)), &rules, &context());
    let report = String::from_utf8(normalised.report().to_vec()).unwrap();
    assert!(report.contains("PID-5") && report.contains("name[0]"), "{report}");
    assert!(report.contains("PID-31"), "unmapped: {report}");
    assert!(!report.contains("MARKED"), "{report}");
}

/// Runs over the corpora beside the project, when they are there.
#[test]
fn every_message_of_the_corpora_is_read_whole_and_its_resources_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus/hl7v2");
    let rules = Rules::compile(&[]).unwrap();
    let mut folders = vec![folder];
    let (mut files, mut invalid) = (0, Vec::new());
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = fs::read(&path).unwrap();
            let limits = hilum_wire::er7::Limits::default();
            for message in hilum_wire::er7::split_batch(hilum_wire::er7::unframed(&bytes), &limits).messages {
                let normalised = normalise(&Payload::V2(Bytes::copy_from_slice(message)), &rules, &context());
                files += 1;
                for resource in resources(&normalised) {
                    if let Some(issue) = validate(resource).first() {
                        invalid.push(format!(
                            "{}: {:?} {}",
                            path.display(),
                            issue.location,
                            issue.diagnostics
                        ));
                    }
                }
            }
        }
    }
    assert!(
        invalid.is_empty(),
        "{} of {files} messages make invalid resources:\n{}",
        invalid.len(),
        invalid[..invalid.len().min(15)].join("\n")
    );
}

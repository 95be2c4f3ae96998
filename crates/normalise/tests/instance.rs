//! Every `fixtures/dicom/NAME.in.dump` (one element a line, items marked with `>`) maps to `NAME.out.json`: rows, the ImagingStudy
//! drawn from them, issues, unmapped tags, lineage. `UPDATE=1` rewrites the files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::Path;

use hilum_fhir::validate::validate;
use hilum_fhir::{Resource, Timestamp};
use hilum_normalise::{Context, InstanceHeader, Normalised, Payload, Rules, bundle, normalise, rows};
use hilum_wire::scan::{Limits, Scanner, Tag};
use serde_json::{Value, json};

const EXPLICIT: &str = "1.2.840.10008.1.2.1";

/// A line of a dump as an explicit little endian element.
fn element(line: &str) -> Vec<u8> {
    let number = |from| u16::from_str_radix(&line[from..from + 4], 16).unwrap();
    let value = line.get(15..).unwrap_or_default();
    let mut bytes = [number(1).to_le_bytes(), number(6).to_le_bytes()].concat();
    bytes.extend(&line.as_bytes()[12..14]);
    if &line[12..14] == "SQ" {
        bytes.extend([0, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
        return bytes;
    }
    let odd = value.len() % 2;
    bytes.extend(u16::try_from(value.len() + odd).unwrap().to_le_bytes());
    bytes.extend(value.as_bytes());
    bytes.extend(&b" "[..odd]);
    bytes
}

/// A dump as a data set; a sequence has one item of undefined length.
fn data_set(dump: &str) -> Vec<u8> {
    let (mut bytes, mut inside) = (Vec::new(), false);
    for line in dump.lines() {
        let nested = line.strip_prefix("> ");
        if nested.is_some() && !inside {
            bytes.extend([0xFE, 0xFF, 0x00, 0xE0, 0xFF, 0xFF, 0xFF, 0xFF]);
        }
        if nested.is_none() && inside {
            bytes.extend([0xFE, 0xFF, 0x0D, 0xE0, 0, 0, 0, 0, 0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]);
        }
        inside = nested.is_some();
        bytes.extend(element(nested.unwrap_or(line)));
    }
    bytes
}

fn map(dump: &str) -> Normalised {
    let bytes = data_set(dump);
    let mut scanner = Scanner::new(EXPLICIT, Limits::default()).listing(100);
    scanner.feed(&bytes);
    let header = scanner.finish().unwrap();
    let instance = InstanceHeader {
        sop_class: header.uid(Tag::new(0x0008, 0x0016)).unwrap(),
        sop_instance: header.uid(Tag::new(0x0008, 0x0018)).unwrap(),
        transfer_syntax: EXPLICIT.into(),
        dataset_bytes: bytes.len() as u64,
        dataset_sha256: [0; 32],
        blob: [0; 32],
        blob_bytes: 0,
        header,
    };
    let context = Context {
        site: "default".into(),
        zone: jiff::tz::TimeZone::get("Europe/Berlin").unwrap(),
        patient_identifier_system: "urn:hilum:site:default:mrn".into(),
        naming_systems: [("NORTH".to_owned(), "https://north.example/ids".to_owned())].into(),
        join_unqualified: true,
        keep_unidentified: false,
        received: Timestamp::from_micros(1_700_000_000_000_000),
        seed: 1,
    };
    normalise(&Payload::Instance(Box::new(instance)), &Rules::compile(&[]).unwrap(), &context)
}

fn shown(normalised: &Normalised) -> String {
    let issues: Vec<_> = normalised
        .issues
        .iter()
        .map(|i| json!([i.severity.as_str(), i.code.as_str(), i.location, i.diagnostics]))
        .collect();
    let lineage: Vec<_> =
        normalised.lineage.iter().map(|l| format!("{} <- {} by {}", l.path, l.source, l.rule)).collect();
    let value = json!({ "rows": rows(normalised), "bundle": bundle(normalised), "issues": issues,
        "unmapped": normalised.unmapped, "lineage": lineage });
    format!("{value:#}\n")
}

#[test]
fn every_fixture_maps_to_its_golden_file_and_valid_fhir() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/dicom");
    let mut count = 0;
    for path in fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".in.dump"));
        let Some(name) = name else { continue };
        let normalised = map(&fs::read_to_string(&path).unwrap());
        assert_eq!(normalised.rejected(), normalised.changes.is_empty(), "{name}");
        for entry in bundle(&normalised)["entry"].as_array().unwrap() {
            let resource = Resource::from_value(entry["resource"].clone()).unwrap();
            assert!(validate(&resource).is_empty(), "{name}: {:?}", validate(&resource));
        }
        let golden = path.with_file_name(format!("{name}.out.json"));
        let text = shown(&normalised);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&golden, &text).unwrap();
        }
        let wanted = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(text, wanted, "{name}: run with UPDATE=1 and look at the difference");
        count += 1;
    }
    assert!(count >= 3, "{count} fixtures");
}

#[test]
fn no_value_of_a_data_set_is_in_the_report() {
    let dump = "(0008,0016) UI 1.2\n(0008,0018) UI 1.3\n(0008,0060) CS MARKED\n(0008,1030) LO MARKED\n(0010,0010) PN MARKED\n\
        (0010,0020) LO MARKED\n(0010,0030) DA MARKED\n(0010,0040) CS MARKED\n(0020,000D) UI 1.4\n(0020,000E) UI 1.5\n(0020,0013) IS MARKED";
    let normalised = map(dump);
    assert!(!normalised.rejected());
    let report = String::from_utf8(normalised.report().to_vec()).unwrap();
    assert!(report.contains("(0010,0010)") && !report.contains("MARKED"), "{report}");
    assert!(rows(&normalised).iter().any(|row| row.to_string().contains("MARKED")), "the rows have it");
    let _: Value = serde_json::from_str(&report).unwrap();
}

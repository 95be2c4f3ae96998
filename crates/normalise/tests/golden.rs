//! Every `fixtures/v2/NAME.in.er7` and `fixtures/v3/NAME.in.xml` maps to `NAME.out.json`: changes, issues, unmapped places. `UPDATE=1` rewrites
//! the files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use hilum_fhir::validate::validate;
use hilum_fhir::{Action, Resource, Timestamp};
use hilum_normalise::{Context, Normalised, Payload, Rules, bundle, normalise};
use hilum_wire::v3;
use serde_json::json;

fn context() -> Context {
    Context {
        site: "default".into(),
        zone: jiff::tz::TimeZone::get("Europe/Berlin").unwrap(),
        patient_identifier_system: "urn:hilum:site:default:mrn".into(),
        naming_systems: [("NORTH".to_owned(), "https://north.example/ids".to_owned())].into(),
        join_unqualified: true,
        keep_unidentified: false,
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

/// The resources as they are when their changes create them.
fn resources(normalised: &Normalised) -> Vec<Resource> {
    let mut list = Vec::new();
    for change in &normalised.changes {
        let (Action::Create(resource) | Action::Ensure(_, resource) | Action::Merge(_, resource, _)) =
            &change.action
        else {
            continue;
        };
        let mut created = resource.clone();
        for (name, value) in change.defaults.iter().filter(|(name, _)| resource.get(name).is_none()) {
            created.set(name, value.clone());
        }
        list.push(created);
    }
    list
}

fn v2(bytes: Vec<u8>) -> Payload {
    Payload::V2(Bytes::from(bytes))
}

fn v3(bytes: Vec<u8>) -> Payload {
    let message = v3::Message::read(&bytes, &v3::Limits::default());
    Payload::V3(Arc::new(message.unwrap_or_else(|refusal| panic!("{refusal:?}"))))
}

/// Compares every fixture of a folder; returns their number.
fn golden(folder: &str, ending: &str, payload: fn(Vec<u8>) -> Payload) -> usize {
    let rules = Rules::compile(&[]).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(folder);
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let Some(name) = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(ending))
        else {
            continue;
        };
        let normalised = normalise(&payload(fs::read(&path).unwrap()), &rules, &context());
        for resource in resources(&normalised) {
            let issues = validate(&resource);
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
    count
}

#[test]
fn every_v2_fixture_maps_to_its_golden_file_and_valid_fhir() {
    assert!(golden("v2", ".in.er7", v2) >= 11);
}

#[test]
fn every_v3_fixture_maps_to_its_golden_file_and_valid_fhir() {
    assert!(golden("v3", ".in.xml", v3) >= 10);
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

const REVISED: &str = r#"<PRPA_IN201302UV02 xmlns="urn:hl7-org:v3"><id root="1.2" extension="1"/><creationTime value="20240101"/>
<controlActProcess><subject><registrationEvent><subject1><patient><id root="1.2.3" extension="MARKEDID"/><patientPerson>
<name use="L"><family>MARKEDNAME</family><given>MARKEDGIVEN</given></name><telecom use="HP" value="tel:5550100"/>
<administrativeGenderCode code="MARKEDSEX"/><birthTime value="19800101"/>
<addr use="H"><streetAddressLine>Road 1</streetAddressLine><city>Town</city><postalCode>1000</postalCode></addr>
<maritalStatusCode code="M"/><religiousAffiliationCode code="MARKEDREST"/>
</patientPerson></patient></subject1></registrationEvent></subject></controlActProcess></PRPA_IN201302UV02>"#;

#[test]
fn a_v3_report_holds_places_and_no_values() {
    let rules = Rules::compile(&[]).unwrap();
    let normalised = normalise(&v3(REVISED.into()), &rules, &context());
    let report = String::from_utf8(normalised.report().to_vec()).unwrap();
    assert!(report.contains("/patientPerson/name\"") && report.contains("name[0]"), "{report}");
    assert_eq!(normalised.unmapped.len(), 1);
    assert!(normalised.unmapped[0].ends_with("/patientPerson/religiousAffiliationCode"), "{report}");
    assert!(!report.contains("MARKED"), "{report}");
    let born = normalised.lineage.iter().find(|l| l.path == "birthDate").unwrap();
    let (start, end) = born.bytes.unwrap();
    assert_eq!(&REVISED[start as usize..end as usize], r#"<birthTime value="19800101"/>"#);
}

#[test]
fn an_overlay_adds_rows_to_the_tables_of_v3() {
    let overlay = |row: &str| {
        let text = format!("source,condition,target,datatype map,vocabulary map,comment\n{row}\n");
        Rules::compile(&[("site/v3/Patient.csv".into(), text)])
    };
    let rules = overlay("patientPerson/religiousAffiliationCode,,!ignore,,,").unwrap();
    assert!(normalise(&v3(REVISED.into()), &rules, &context()).unmapped.is_empty());
    let errors = overlay("patientPerson//name,,name[+],,,").unwrap_err();
    assert_eq!(
        errors[0].to_string(),
        "site/v3/Patient.csv:2: \"patientPerson//name\" is no path and no quoted constant"
    );
    assert!(overlay("patientPerson/name,,name[+],No[Such],,").is_err());
}

#[test]
fn v2_and_v3_make_the_same_change_of_a_patient() {
    let rules = Rules::compile(&[]).unwrap();
    let v2_text = "MSH|^~\\&|A|B|||20240101||ADT^A08|1|P|2.5\rPID|1||MARKEDID^^^&1.2.3&ISO||MARKEDNAME^MARKEDGIVEN^^^^^L||19800101|||\
                   |Road 1^^Town^^1000^^H||5550100^PRN^PH|||M\r";
    let change = |payload: &Payload| {
        let normalised = normalise(payload, &rules, &context());
        let [change] = &normalised.changes[..] else { panic!("{:?}", normalised.issues) };
        let Action::Merge(hilum_fhir::Target::Patient(numbers), resource, clear) = &change.action else {
            panic!()
        };
        (numbers.clone(), resource.to_value(), clear.clone(), change.happened)
    };
    let (v2, v3) = (change(&v2(v2_text.into())), change(&v3(REVISED.into())));
    assert_eq!((&v2.0, &v2.1, &v2.3), (&v3.0, &v3.1, &v3.3));
    // PID-13 speaks for its part of the list, an interaction for all of it
    assert_eq!((v2.2, v3.2), (vec!["telecom[use!=work]".to_owned()], Vec::new()));
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
                    if let Some(issue) = validate(&resource).first() {
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

/// Runs over the corpora beside the project, when they are there.
#[test]
fn every_interaction_of_the_corpora_makes_valid_resources() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus/hl7v3");
    let rules = Rules::compile(&[]).unwrap();
    for folder in fs::read_dir(folder).into_iter().flatten().flatten() {
        for path in fs::read_dir(folder.path()).into_iter().flatten().flatten().map(|e| e.path()) {
            let Ok(message) = v3::Message::read(&fs::read(&path).unwrap(), &v3::Limits::default()) else {
                continue;
            };
            let is_feed =
                message.wrapper.interaction.starts_with("PRPA_IN20130") && message.wrapper.id.is_some();
            let normalised = normalise(&Payload::V3(Arc::new(message)), &rules, &context());
            assert!(is_feed || normalised.changes.is_empty(), "{}", path.display());
            for resource in resources(&normalised) {
                let issues = validate(&resource);
                assert!(issues.is_empty(), "{}: {issues:?}", path.display());
            }
        }
    }
}

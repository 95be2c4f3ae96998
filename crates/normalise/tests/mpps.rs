//! Every `fixtures/mpps/NAME.in.json` maps to `NAME.out.json`: changes, issues, unmapped places, lineage. `UPDATE=1` rewrites the
//! files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::Path;

use bytes::Bytes;
use hilum_fhir::imaging::{PerformedStep, StudyRows, imaging_study};
use hilum_fhir::validate::validate;
use hilum_fhir::{Action, Resource, Timestamp};
use hilum_normalise::{Context, Normalised, Payload, Rules, bundle, normalise};
use serde_json::{Map, Value, json};

fn map(body: impl Into<Bytes>) -> Normalised {
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
    normalise(&Payload::Mpps(body.into()), &Rules::compile(&[]).unwrap(), &context)
}

fn shown(normalised: &Normalised) -> String {
    let issues: Vec<_> = normalised
        .issues
        .iter()
        .map(|i| json!([i.severity.as_str(), i.code.as_str(), i.location, i.diagnostics]))
        .collect();
    let lineage: Vec<_> = normalised
        .lineage
        .iter()
        .map(|l| format!("{} {} <- {} by {}", l.change, l.path, l.source, l.rule))
        .collect();
    let value = json!({ "bundle": bundle(normalised), "issues": issues, "unmapped": normalised.unmapped, "lineage": lineage });
    format!("{value:#}\n")
}

fn step(normalised: &Normalised) -> &PerformedStep {
    let mut steps = normalised.changes.iter().filter_map(|change| match &change.action {
        Action::Step(step) => Some(step),
        _ => None,
    });
    steps.next_back().unwrap()
}

/// The ImagingStudy that the step alone would make.
fn study(step: &PerformedStep) -> Resource {
    let study = step.study.as_ref();
    imaging_study(&StudyRows {
        uid: study.map_or_else(|| "1.2".to_owned(), |study| study.uid.clone()),
        accession: study.and_then(|study| study.accession.clone()),
        elements: study.map(|study| study.elements.clone()).unwrap_or_default(),
        patient: None,
        based_on: Vec::new(),
        procedure: None,
        discontinued: false,
        attention: false,
        series: step.series.iter().map(|(series, _)| (series.clone(), Vec::new())).collect(),
    })
}

fn resources(normalised: &Normalised) -> Vec<&Resource> {
    let resource = |action| match action {
        &Action::Ensure(_, ref resource) | &Action::Merge(_, ref resource, _) => Some(resource),
        _ => None,
    };
    normalised.changes.iter().filter_map(|change| resource(&change.action)).collect()
}

/// A Procedure without a subject merges into one that has it.
fn is_partial(issue: &hilum_fhir::Issue) -> bool {
    issue.location.as_deref() == Some("Procedure.subject")
}

#[test]
fn every_fixture_maps_to_its_golden_file_and_valid_fhir() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/mpps");
    let mut count = 0;
    for path in fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".in.json"));
        let Some(name) = name else { continue };
        let normalised = map(fs::read(&path).unwrap());
        assert_eq!(normalised.rejected(), normalised.changes.is_empty(), "{name}");
        for resource in resources(&normalised) {
            let issues = validate(resource);
            assert!(issues.iter().all(is_partial), "{name}: {issues:?}\n{:#}", resource.to_value());
        }
        if !normalised.rejected() {
            let issues = validate(&study(step(&normalised)));
            assert!(issues.is_empty(), "{name}: {issues:?}");
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
    assert!(count >= 11, "{count} fixtures");
}

#[test]
fn both_forms_of_one_step_say_the_same() {
    let short = map(
        r#"{"sop_instance_uid":"1.2","study_uid":"1.2.3","status":"COMPLETED","accession_number":"A1","patient_id":"P1",
        "started":"2024-07-31T09:30:15","performed_series":[{"series_uid":"1.2.3.4","images":3}]}"#,
    );
    let dicom = map(
        r#"{"00080018":{"vr":"UI","Value":["1.2"]},"0020000D":{"vr":"UI","Value":["1.2.3"]},"00400252":{"vr":"CS","Value":["COMPLETED"]},
        "00080050":{"vr":"SH","Value":["A1"]},"00100020":{"vr":"LO","Value":["P1"]},"00400244":{"vr":"DA","Value":["20240731"]},
        "00400245":{"vr":"TM","Value":["093015"]},"00400250":{"vr":"DA","Value":[]},
        "00400340":{"vr":"SQ","Value":[{"0020000E":{"vr":"UI","Value":["1.2.3.4"]},"00201209":{"vr":"IS","Value":["3"]}}]}}"#,
    );
    assert_eq!(bundle(&short), bundle(&dicom));
    let (short, mut dicom) = (step(&short).clone(), step(&dicom).clone());
    dicom.attributes.shift_remove("00400250");
    assert_eq!(short, dicom, "what is kept of it is the same too");
}

#[test]
fn a_known_patient_is_never_overwritten_by_a_message_without_one() {
    let normalised = map(r#"{"sop_instance_uid":"1.2","study_uid":"1.2.3","status":"COMPLETED"}"#);
    let [placeholder, said] = resources(&normalised)[..] else { panic!("{}", shown(&normalised)) };
    assert!(matches!(normalised.changes[0].action, Action::Ensure(..)));
    assert_eq!(placeholder.get("subject"), Some(&json!({ "display": "unknown patient" })));
    assert_eq!(said.get("subject"), None);
}

#[test]
fn the_report_and_the_issues_hold_places_and_no_values() {
    let normalised = map(
        r#"{"sop_instance_uid":"1.2","study_uid":"1.2.3","status":"COMPLETED","patient_id":"MARKED","patient_name":"MARKED^MARKED",
        "accession_number":"MARKED","attributes":{"MARKED VALUE":"MARKED","00104000":{"vr":"LT","Value":["MARKED"]},"00100040":{"vr":"CS","Value":["MARKED"]}}}"#,
    );
    assert!(!normalised.rejected());
    assert!(normalised.unmapped.contains(&"(0010,4000)".to_owned()), "{:?}", normalised.unmapped);
    let report = String::from_utf8(normalised.report().to_vec()).unwrap();
    assert!(report.contains("/patient_id") && !report.contains("MARKED"), "{report}");
    let refused = map(
        r#"{"sop_instance_uid":"MARKED","study_uid":"MARKED","status":"MARKED","started":"MARKED","site_id":"MARKED"}"#,
    );
    assert_eq!(refused.issues.len(), 5);
    assert!(!format!("{:?}", refused.issues).contains("MARKED"));
}

#[test]
fn hostile_bodies_are_refused_and_nothing_panics() {
    let deep = format!("{{\"attributes\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let many = format!("[{}]", vec!["{\"series_uid\":\"1.2\"}"; 1_001].join(","));
    let series = format!(
        r#"{{"sop_instance_uid":"1.2","study_uid":"1.2.3","status":"COMPLETED","performed_series":{many}}}"#
    );
    let large = format!(
        r#"{{"sop_instance_uid":"1.2","study_uid":"1.2.3","status":"COMPLETED","attributes":{{"x":"{}"}}}}"#,
        "x".repeat(2 << 20)
    );
    let long = format!(
        r#"{{"sop_instance_uid":"1.2","study_uid":"1.2.3","status":"COMPLETED","patient_name":"{}"}}"#,
        "é".repeat(1_025)
    );
    for body in [deep, series, large, long, "\u{feff}".into(), "null".into()] {
        assert!(map(body).rejected());
    }
    // every element in a wrong shape: nothing is made of it
    for wrong in [json!(null), json!([]), json!({ "Value": {} }), json!({ "Value": [null, [], {}, true] })] {
        let tags = [
            "00080018", "0020000D", "00400252", "00400270", "00400340", "00100010", "00081032", "00400244",
            "00380010",
        ];
        let body: Map<String, Value> = tags.iter().map(|tag| ((*tag).to_owned(), wrong.clone())).collect();
        assert!(map(Value::Object(body).to_string()).rejected());
        let mut body: Map<String, Value> =
            tags[4..].iter().map(|tag| ((*tag).to_owned(), wrong.clone())).collect();
        body.extend(
            [("sop_instance_uid", "1.2"), ("study_uid", "1.2.3"), ("status", "COMPLETED")]
                .map(|(k, v)| (k.to_owned(), Value::from(v))),
        );
        map(Value::Object(body).to_string());
    }
}

//! Whose and which: what all doors say the same, and by which keys a message names its resources.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use bytes::Bytes;
use hilum_fhir::{Action, Change, Clue, Disagreement, Key, Keys, PatientNumbers, Target, Timestamp};
use hilum_normalise::{Context, InstanceHeader, Normalised, Payload, Rules, normalise};
use hilum_wire::scan::{Element, Header, Tag};
use hilum_wire::v3;

fn context() -> Context {
    Context {
        site: "default".into(),
        zone: jiff::tz::TimeZone::UTC,
        patient_identifier_system: "urn:mrn".into(),
        naming_systems: [("NORTH".to_owned(), "https://north.example/ids".to_owned())].into(),
        join_unqualified: true,
        keep_unidentified: false,
        received: Timestamp::from_micros(0),
        seed: 1,
    }
}

fn map(payload: &Payload, context: &Context) -> Normalised {
    normalise(payload, &Rules::compile(&[]).unwrap(), context)
}

fn v2(kind: &str, segments: &str) -> Payload {
    Payload::V2(Bytes::from(format!("MSH|^~\\&|A|B|||20240101||{kind}|1|P|2.5\r{segments}")))
}

fn v3(patient: &str) -> Payload {
    let text = format!(
        r#"<PRPA_IN201302UV02 xmlns="urn:hl7-org:v3"><id root="1.2" extension="1"/><controlActProcess><subject><registrationEvent><subject1>
        <patient>{patient}</patient></subject1></registrationEvent></subject></controlActProcess></PRPA_IN201302UV02>"#
    );
    let message = v3::Message::read(text.as_bytes(), &v3::Limits::default());
    Payload::V3(Arc::new(message.unwrap_or_else(|refusal| panic!("{refusal:?}"))))
}

/// The sequence and the item an element is in, its tag, its value.
type Attribute<'a> = (Option<(u32, u16)>, u32, &'a str);

fn image(more: &[Attribute<'_>]) -> Payload {
    let element = |(parent, tag, text): &Attribute<'_>| Element {
        tag: Tag(*tag),
        parent: parent.map(|(sequence, item)| (Tag(sequence), item)),
        value: text.as_bytes().to_vec(),
        big_endian: false,
    };
    let uids = [(None, 0x0020_000D, "1.2.3"), (None, 0x0020_000E, "1.2.3.4")];
    Payload::Instance(Box::new(InstanceHeader {
        sop_class: "1.2".into(),
        sop_instance: "1.2.3.4.5".into(),
        transfer_syntax: "1.2.840.10008.1.2.1".into(),
        dataset_bytes: 1,
        dataset_sha256: [0; 32],
        blob: [0; 32],
        blob_bytes: 1,
        header: Header { elements: more.iter().chain(&uids).map(element).collect(), ..Header::default() },
    }))
}

fn step(attributes: &str) -> Payload {
    let text = format!(
        r#"{{"00080018":{{"vr":"UI","Value":["1.2.9"]}},"00400252":{{"vr":"CS","Value":["IN PROGRESS"]}},
        "0020000D":{{"vr":"UI","Value":["1.2.3"]}},{attributes}}}"#
    );
    Payload::Mpps(Bytes::from(text))
}

/// How a submission names its patient.
fn numbers(normalised: &Normalised) -> PatientNumbers {
    let named = normalised.changes.iter().find_map(|change| match &change.action {
        Action::Merge(Target::Patient(numbers), ..) | Action::Ensure(Target::Patient(numbers), _) => {
            Some(numbers.as_ref().clone())
        }
        Action::Instance(instance) => instance.study.patient.as_ref().map(|(numbers, _)| numbers.clone()),
        _ => None,
    });
    named.unwrap_or_else(|| panic!("{:?}", normalised.issues))
}

fn keys<'n>(normalised: &'n Normalised, of: &str) -> Vec<(&'n Change, &'n Keys)> {
    let found = normalised.changes.iter().filter_map(|change| match &change.action {
        Action::Merge(Target::Keys(keys), ..) => Some((change, keys.as_ref())),
        _ => None,
    });
    found.filter(|(_, keys)| keys.resource_type.name() == of).collect()
}

#[test]
fn all_doors_give_one_patient_the_same_system() {
    let qualifiers = 0x0010_0024;
    let forms = [
        (
            "a name that a naming system knows",
            "PID|1||77^^^NORTH",
            r#"<id assigningAuthorityName="NORTH" extension="77"/>"#,
            vec![(None, 0x0010_0021, "NORTH")],
            r#","00100021":{"vr":"LO","Value":["NORTH"]}"#,
            "https://north.example/ids",
        ),
        (
            "a name that nobody knows",
            "PID|1||77^^^WEST LAB",
            r#"<id assigningAuthorityName="WEST LAB" extension="77"/>"#,
            vec![(None, 0x0010_0021, "WEST LAB")],
            r#","00100021":{"vr":"LO","Value":["WEST LAB"]}"#,
            "urn:hilum:site:default:hd:WEST_LAB",
        ),
        (
            "an OID beside a name",
            "PID|1||77^^^NORTH&1.2.36.1&ISO",
            r#"<id root="1.2.36.1" assigningAuthorityName="NORTH" extension="77"/>"#,
            vec![
                (None, 0x0010_0021, "NORTH"),
                (Some((qualifiers, 0)), 0x0040_0032, "1.2.36.1"),
                (Some((qualifiers, 0)), 0x0040_0033, "ISO"),
            ],
            r#","00100021":{"vr":"LO","Value":["NORTH"]},"00100024":{"vr":"SQ","Value":[{"00400032":{"vr":"UT","Value":["1.2.36.1"]},"00400033":{"vr":"CS","Value":["ISO"]}}]}"#,
            "urn:oid:1.2.36.1",
        ),
        ("no authority", "PID|1||77", r#"<id extension="77"/>"#, vec![], "", "urn:mrn"),
    ];
    for (what, pid, id, mut issuer, attributes, system) in forms {
        issuer.push((None, 0x0010_0020, "77"));
        let patient_id = r#""00100020":{"vr":"LO","Value":["77"]}"#;
        let doors = [v2("ADT^A08", pid), v3(id), image(&issuer), step(&format!("{patient_id}{attributes}"))];
        for (door, payload) in doors.iter().enumerate() {
            let named = numbers(&map(payload, &context()));
            assert_eq!(named.numbers, [(system.to_owned(), "77".to_owned())], "{what}, door {door}");
            assert_eq!((named.domain.as_str(), named.join), ("urn:mrn", true));
            let is_image = matches!(payload, Payload::Instance(_));
            assert_eq!(
                named.disagreement == Disagreement::KeepApart,
                is_image,
                "only images are never turned away"
            );
        }
    }
}

#[test]
fn a_message_without_a_number_is_refused_or_a_patient_of_its_own() {
    let nobody = "<patientPerson><name><family>Reed</family></name></patientPerson>";
    for payload in [v2("ADT^A08", "PID|1||||Reed"), v3(nobody)] {
        assert_eq!(map(&payload, &context()).issues[0].hl7_code, Some(101));
        let kept = map(&payload, &Context { keep_unidentified: true, ..context() });
        assert!(!kept.rejected());
        let [change] = &kept.changes[..] else { panic!("{kept:?}") };
        assert!(matches!(change.action, Action::Create(_)), "never matched by anything");
    }
    let merge = v2("ADT^A40", "PID|1||||Reed\rMRG|5\r");
    assert!(map(&merge, &Context { keep_unidentified: true, ..context() }).rejected());
}

#[test]
fn orders_named_with_an_authority_are_clues_to_the_patient() {
    let payload = v2("ORU^R01", "PID|1||77\rORC|RE|P1^HIS|F1\rOBR|1|P1^HIS|F1|X^Y^L||||||||||||||A9\r");
    let named = numbers(&map(&payload, &context()));
    let values: Vec<(&str, &str)> = named
        .clues
        .iter()
        .map(|clue| match clue {
            Clue::Resource(wanted) => (wanted.system.as_deref().unwrap(), wanted.value.as_str()),
            Clue::Study(uid) => ("study", uid.as_str()),
        })
        .collect();
    assert_eq!(values, [("urn:hilum:site:default:hd:HIS", "P1"), ("urn:hilum:site:default:accession", "A9")]);
    let off = Context { join_unqualified: false, ..context() };
    assert!(!numbers(&map(&payload, &off)).join);
    let attributes = r#""00100020":{"vr":"LO","Value":["77"]},"00080050":{"vr":"SH","Value":["A9"]}"#;
    let of_step = numbers(&map(&step(attributes), &context()));
    let kinds: Vec<&str> = of_step
        .clues
        .iter()
        .map(|clue| match clue {
            Clue::Resource(wanted) => wanted.resource_type.name(),
            Clue::Study(_) => "study",
        })
        .collect();
    assert_eq!(kinds, ["Procedure", "study", "ServiceRequest"]);
}

#[test]
fn orders_and_reports_are_told_apart_by_their_code_and_results_hang_on_their_report() {
    let mapped = map(
        &v2(
            "ORU^R01",
            "PID|1||77^^^NORTH^MR\rOBR|1|P1^HIS|F1^LIS|C1^Y^LN\rOBX|1|NM|K^P^LN|2|4||||||F\rOBX|2|NM|K^P^LN|2|5||||||F\r",
        ),
        &context(),
    );
    let patient = mapped.changes[0].full_url.clone();
    for of in ["ServiceRequest", "DiagnosticReport"] {
        let [(_, keys)] = keys(&mapped, of)[..] else { panic!("one {of}") };
        assert!(keys.by_code && keys.patient == patient);
        let codes: Vec<_> = keys
            .keys
            .iter()
            .map(|key| match key {
                Key::Number(_, code) | Key::Bare(_, code) => code.as_deref(),
                Key::Under { .. } | Key::Former(_) => None,
            })
            .collect();
        assert_eq!(codes, [Some("FILL"), Some("PLAC")]);
    }
    let report = keys(&mapped, "DiagnosticReport")[0].0.full_url.clone().unwrap();
    let at = |url: &str| mapped.changes.iter().position(|change| change.full_url.as_deref() == Some(url));
    let found: Vec<(String, Option<String>)> = keys(&mapped, "Observation")
        .into_iter()
        .map(|(change, keys)| {
            assert!(!keys.by_code && at(change.full_url.as_deref().unwrap()) > at(&report));
            let [Key::Under { parent, value, former, .. }] = &keys.keys[..] else { panic!("{keys:?}") };
            assert_eq!(*parent, report);
            (value.clone(), former.as_ref().map(|former| former.value.clone()))
        })
        .collect();
    let former = "urn:hilum:site:default:hd:LIS|F1|K|2".to_owned();
    assert_eq!(
        found,
        [("http://loinc.org|K|2".into(), Some(former)), ("http://loinc.org|K|2#2".into(), None)]
    );
}

#[test]
fn a_result_number_without_an_authority_is_one_of_its_report_only() {
    let obx = |number: &str| format!("OBX|1|NM|K^P^LN||4||||||F||||||||||{number}\r");
    let segments = format!("PID|1||77\rOBR|1||F1|C1\r{}OBR|2||F2|C1\r{}{}", obx("1"), obx("1^LIS"), obx("2"));
    let mapped = map(&v2("ORU^R01", &segments), &context());
    let found: Vec<Option<&str>> = keys(&mapped, "Observation")
        .into_iter()
        .map(|(_, keys)| match &keys.keys[..] {
            [Key::Under { value, former: None, .. }] => Some(value.as_str()),
            [Key::Number(..)] => None,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(found, [Some("http://loinc.org|K||1"), None, Some("http://loinc.org|K||2")]);
}

#[test]
fn findings_hang_on_the_patient_and_are_found_by_their_former_key() {
    let mapped =
        map(&v2("ADT^A08", "PID|1||1~77^^^NORTH^MR\rAL1|1||P^Penicillin^L\rDG1|1||J1^Flu^I10\r"), &context());
    let patient = mapped.changes[0].full_url.clone().unwrap();
    for (of, name, value, former) in [
        (
            "AllergyIntolerance",
            "allergy",
            "urn:hilum:site:default:codes:L|P",
            "https://north.example/ids|77|P",
        ),
        ("Condition", "condition", "http://hl7.org/fhir/sid/icd-10|J1", "https://north.example/ids|77|J1"),
    ] {
        let [(_, keys)] = keys(&mapped, of)[..] else { panic!("one {of}") };
        let [Key::Under { parent, system, value: own, former: Some(known) }] = &keys.keys[..] else {
            panic!("{keys:?}")
        };
        assert_eq!((parent, system.as_str()), (&patient, format!("urn:hilum:site:default:{name}").as_str()));
        assert_eq!((own.as_str(), known.value.as_str()), (value, former));
    }
}

#[test]
fn an_unknown_kind_of_message_in_an_overlay_is_an_error() {
    let text = "type,event,kind\nSIU,S12,appointment\n".to_owned();
    let errors = Rules::compile(&[("site/messages/messages.csv".into(), text)]).unwrap_err();
    assert!(errors[0].to_string().contains("\"appointment\" is no kind of message"), "{errors:?}");
}

/// What is made of a repetition is bounded, and what is beyond the bound is refused and not cut: counted, not timed.
#[test]
fn many_repetitions_make_a_bounded_result() {
    let named = |count: usize| v2("ADT^A08", &format!("PID|1||77||{}\r", ["N^F"].repeat(count).join("~")));
    let mapped = map(&named(1_000), &context());
    let Action::Merge(_, patient, _) = &mapped.changes[0].action else { panic!("a patient") };
    assert_eq!(patient.get("name").unwrap().as_array().unwrap().len(), 1_000);
    // the mapping refuses what fills a list, the reader what no field has
    for (count, figure) in [(1_001, "1000 repetitions"), (50_000, "10000 repetitions")] {
        let mapped = map(&named(count), &context());
        let issue = mapped.issues.iter().find(|issue| issue.rejects()).unwrap();
        assert_eq!(issue.location.as_deref(), Some("PID-5"));
        assert!(issue.diagnostics.contains(figure) && mapped.changes.is_empty(), "{issue:?}");
    }
    let telecoms = r#"<telecom value="tel:1"/>"#.repeat(1_001);
    let mapped = map(
        &v3(&format!(r#"<id root="1.2" extension="1"/><patientPerson>{telecoms}</patientPerson>"#)),
        &context(),
    );
    let issue = mapped.issues.iter().find(|issue| issue.rejects()).unwrap();
    let place = issue.location.as_deref().unwrap();
    assert!(
        place.ends_with("/patientPerson/telecom") && issue.diagnostics.contains("1000 times"),
        "{issue:?}"
    );
    let numbers = map(&v2("ADT^A08", &format!("PID|1||{}\r", "1~".repeat(100_000))), &context());
    assert!(numbers.rejected() && numbers.lineage.is_empty());
    let numbers = map(&v3(&r#"<id root="1.2" extension="1"/>"#.repeat(101)), &context());
    assert!(numbers.rejected());
    let patients = map(&v2("ADT^A08", &"PID|1||77\r".repeat(1_001)), &context());
    assert_eq!(patients.issues.last().unwrap().hl7_code, Some(207));
}

//! Orders: found by their numbers, and what refers to them.

use hilum_fhir::{Action, Change, Key, Keys, Match, Target};
use hilum_store::{Effect, ErrorKind};
use serde_json::{Value, json};

use super::resources::{self, Bench, kind, mrn, resource};

#[tokio::test]
async fn an_order_is_found_by_the_former_number_of_its_placer() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let order = |system: &str, patient: &str, keys: Vec<Key>| {
        let value = json!({ "resourceType": "ServiceRequest", "status": "active", "intent": "order",
            "identifier": [{ "system": system, "value": "P1" }], "subject": { "reference": "urn:uuid:who" } });
        let keys = Keys {
            resource_type: kind("ServiceRequest"),
            patient: Some("urn:uuid:who".into()),
            keys,
            by_code: true,
        };
        let whose = Action::Merge(mrn(patient).into(), resources::patient(patient, "O"), Vec::new());
        let order = Action::Merge(Target::Keys(Box::new(keys)), resource(value), Vec::new());
        vec![Change::new(whose).with_full_url("urn:uuid:who"), Change::new(order)]
    };
    let number = |system: &str| Match {
        resource_type: kind("ServiceRequest"),
        system: Some(system.into()),
        value: "P1".into(),
    };
    let before = order("urn:old", "1", vec![Key::Number(number("urn:old"), None)]);
    let before = bench.submit(before).await.unwrap().outcomes.remove(1);
    let keys = || vec![Key::Number(number("urn:new"), None), Key::Former(number("urn:old"))];
    let after = bench.submit(order("urn:new", "1", keys())).await.unwrap().outcomes.remove(1);
    assert_eq!((after.id, after.effect), (before.id, Effect::Updated));
    let refused = bench.submit(order("urn:new", "2", keys())).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict, "it is another patient's");
}

/// A message that says something of what has a number: of a patient, or of nobody yet.
fn numbered(mut value: Value, number: &str, patient: Option<&str>) -> Vec<Change> {
    value["identifier"] = json!([{ "system": "urn:n", "value": number }]);
    let whose = patient.map(|patient| {
        value["subject"] = json!({ "reference": "urn:uuid:who" });
        let whose = Action::Merge(mrn(patient).into(), resources::patient(patient, "O"), Vec::new());
        Change::new(whose).with_full_url("urn:uuid:who")
    });
    let said = resource(value);
    let resource_type = said.resource_type();
    let wanted = Match { resource_type, system: Some("urn:n".into()), value: number.into() };
    let patient = patient.map(|_| "urn:uuid:who".into());
    let keys = Keys { resource_type, patient, keys: vec![Key::Number(wanted, None)], by_code: false };
    let said = Change::new(Action::Merge(Target::Keys(Box::new(keys)), said, Vec::new()));
    whose.into_iter().chain([said]).collect()
}

pub(super) fn order(number: &str, patient: &str) -> Vec<Change> {
    let order = json!({ "resourceType": "ServiceRequest", "status": "active", "intent": "order" });
    numbered(order, number, Some(patient))
}

pub(super) fn step(number: &str, order: Option<&str>, patient: Option<&str>) -> Vec<Change> {
    let mut value = json!({ "resourceType": "Procedure", "status": "in-progress" });
    value["subject"] = json!({ "display": "nobody yet" });
    if let Some(order) = order {
        value["basedOn"] = json!([named("ServiceRequest", order)]);
    }
    numbered(value, number, patient)
}

pub(super) fn result(number: &str, step: &str, patient: &str) -> Vec<Change> {
    let mut value = json!({ "resourceType": "Observation", "status": "final", "code": { "text": "dose" } });
    value["partOf"] = json!([named("Procedure", step)]);
    numbered(value, number, Some(patient))
}

/// A reference to what may not be known yet.
fn named(of: &str, number: &str) -> Value {
    json!({ "reference": format!("{of}?identifier=urn:n%7C{number}"), "type": of,
        "identifier": { "system": "urn:n", "value": number } })
}

#[tokio::test]
async fn what_was_nobodys_leaves_the_order_of_another_patient() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    for (number, asked, patient) in [("S1", "O1", "own"), ("S2", "O2", "another")] {
        bench.submit(step(number, Some(asked), None)).await.unwrap();
        bench.submit(order(asked, "own")).await.unwrap();
        let based_on =
            async || bench.find("Procedure", &format!("identifier={number}")).await[0]["basedOn"][0].clone();
        assert!(based_on().await["reference"].is_string(), "the order that came is that of the step");
        let commit = bench.submit(step(number, None, Some(patient))).await.unwrap();
        let now = based_on().await;
        assert_eq!(now["reference"].is_string(), patient == "own", "{now}");
        assert_eq!(now["identifier"]["value"], asked, "what the step said of its order stays");
        assert_eq!(commit.remarks.len(), usize::from(patient == "another"), "{:?}", commit.remarks);
    }
}

#[tokio::test]
async fn what_becomes_a_patients_is_left_by_what_is_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    bench.submit(step("S1", None, None)).await.unwrap();
    bench.submit(result("R1", "S1", "own")).await.unwrap();
    bench.submit(result("R2", "S1", "another")).await.unwrap();
    let part_of = async |number: &str| {
        bench.find("Observation", &format!("identifier={number}")).await[0]["partOf"][0].clone()
    };
    for number in ["R1", "R2"] {
        assert!(part_of(number).await["reference"].is_string(), "the step is nobody's so far");
    }
    let commit = bench.submit(step("S1", None, Some("own"))).await.unwrap();
    assert!(part_of("R1").await["reference"].is_string());
    let waits = part_of("R2").await;
    assert_eq!((waits.get("reference"), &waits["identifier"]["value"]), (None, &json!("S1")));
    assert_eq!(commit.remarks.len(), 1, "the sender hears it");
    assert_eq!(commit.remarks[0].issue.location.as_deref(), Some("Observation.identifier"));

    // said again, it waits again
    bench.submit(result("R2", "S1", "another")).await.unwrap();
    assert!(part_of("R2").await.get("reference").is_none());
}

#[tokio::test]
async fn what_is_left_is_resolved_again_among_what_the_patient_has() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    bench.submit(step("S1", None, None)).await.unwrap();
    let of_another = bench.submit(result("R1", "S1", "another")).await.unwrap();
    let whose = &of_another.outcomes[0].id;
    let own = json!({ "resourceType": "Procedure", "status": "completed",
        "identifier": [{ "system": "urn:n", "value": "S1" }], "subject": { "reference": format!("Patient/{whose}") } });
    let made = bench.one(Action::Create(resource(own))).await.unwrap();
    bench.submit(step("S1", None, Some("own"))).await.unwrap();
    let result = bench.find("Observation", "identifier=R1").await.remove(0);
    assert_eq!(result["partOf"][0]["reference"], format!("Procedure/{}", made.id));
}

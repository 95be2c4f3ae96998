//! Resources, their versions, searches, studies and submissions.

use std::collections::BTreeSet;
use std::path::Path;

use bytes::Bytes;
use hilum_fhir::search::{Context, Options, Query, decode_pairs, index};
use hilum_fhir::{
    Action, Change, Disagreement, Issue, IssueCode, Match, PatientNumbers, Precondition, Resource,
    ResourceType, Target, Timestamp,
};
use hilum_store::{
    Commit, Config, Destination, DestinationState, Effect, Error, ErrorKind, Original, OriginalKind, Outcome,
    Site, Store, sha256,
};
use serde_json::{Map, Value, json};

use crate::engine::config;

/// A store in a folder of its own, and its one site.
#[derive(Clone)]
pub(super) struct Bench {
    pub(super) store: Store,
    pub(super) site: Site,
}

impl Bench {
    pub(super) async fn open(dir: &Path) -> Self {
        let store = Store::open(config(dir)).await.unwrap();
        store.control().put_site(serde_json::from_value(json!({ "id": "a" })).unwrap()).unwrap();
        let site = store.control().site("a").unwrap().unwrap();
        Self { store, site }
    }

    pub(super) async fn submit(&self, changes: Vec<Change>) -> Result<Commit, Error> {
        self.store.commit(&self.site, original(None, b"x"), changes, None).await
    }

    pub(super) async fn one(&self, action: Action) -> Result<Outcome, Error> {
        Ok(self.submit(vec![Change::new(action)]).await?.outcomes.remove(0))
    }

    /// All pages of a search.
    pub(super) async fn find(&self, of: &str, text: &str) -> Vec<Value> {
        let query = query(of, text);
        let (mut found, mut cursor) = (Vec::new(), None);
        loop {
            let page = self.store.search(&self.site, &query, cursor.as_deref()).await.unwrap();
            found.extend(page.matches.iter().map(|v| serde_json::from_slice::<Value>(&v.body).unwrap()));
            cursor = page.next;
            if cursor.is_none() {
                return found;
            }
        }
    }
}

fn context() -> Context {
    Context { zone: jiff::tz::TimeZone::UTC, now: Timestamp::from_micros(0) }
}

fn query(of: &str, text: &str) -> Query {
    let options = Options {
        strict: true,
        condition: false,
        bases: &[],
        count_max: 1000,
        parameters_max: 64,
        or_values_max: 500,
        chain_depth_max: 4,
    };
    Query::parse(kind(of), &decode_pairs(text), &options, &context()).unwrap().0
}

pub(super) fn kind(name: &str) -> ResourceType {
    ResourceType::from_name(name).unwrap()
}

pub(super) fn resource(value: Value) -> Resource {
    Resource::from_value(value).unwrap()
}

pub(super) fn object(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

pub(super) fn patient(mrn: &str, family: &str) -> Resource {
    let identifier = json!([{ "system": "urn:mrn", "value": mrn }]);
    resource(json!({ "resourceType": "Patient", "identifier": identifier, "name": [{ "family": family }] }))
}

pub(super) fn mrn(value: &str) -> Match {
    Match { resource_type: kind("Patient"), system: Some("urn:mrn".into()), value: value.into() }
}

/// The numbers of a patient in the system of [`mrn`].
pub(super) fn numbers(values: &[&str]) -> PatientNumbers {
    let system = |value: &str| (mrn(value).system.unwrap(), value.to_owned());
    PatientNumbers {
        numbers: values.iter().map(|value| system(value)).collect(),
        former: Vec::new(),
        domain: "urn:domain".into(),
        join: true,
        clues: Vec::new(),
        disagreement: Disagreement::KeepApart,
    }
}

pub(super) fn by_id(id: &str) -> Target {
    Target::Id(kind("Patient"), id.to_owned())
}

fn original(control: Option<&str>, bytes: &[u8]) -> Original {
    Original {
        kind: OriginalKind::V2,
        listener: "test".into(),
        peer: None,
        identity: Some("RIS|HOSPITAL".into()),
        control: control.map(|c| ("RIS|HOSPITAL".into(), c.into())),
        sha256: sha256(bytes),
        blob: None,
        bytes: Some(Bytes::copy_from_slice(bytes)),
        content_type: "application/hl7-v2",
        received: Timestamp::from_micros(1_000_000),
        report: None,
        about: Default::default(),
    }
}

#[tokio::test]
async fn a_resource_lives_through_its_versions_and_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let created = bench.one(Action::Create(patient("1", "Smith"))).await.unwrap();
    assert_eq!((created.effect, created.version), (Effect::Created, 1));
    let target = || by_id(&created.id);
    let same = bench.one(Action::Replace(target(), patient("1", "Smith"))).await.unwrap();
    assert_eq!((same.effect, same.version), (Effect::Unchanged, 1));
    let updated = bench.one(Action::Replace(target(), patient("1", "Jones"))).await.unwrap();
    assert_eq!((updated.effect, updated.version), (Effect::Updated, 2));
    assert!(updated.last_updated > created.last_updated);
    assert_eq!(bench.find("Patient", "name=jones").await.len(), 1);
    assert!(bench.find("Patient", "name=smith").await.is_empty());
    bench.one(Action::Delete(target())).await.unwrap();
    assert!(bench.find("Patient", "identifier=1").await.is_empty());
    bench.store.close().await;
    drop(bench);

    let bench = Bench::open(dir.path()).await;
    let history = bench.store.history(&bench.site, kind("Patient"), &created.id, None, 10).await.unwrap();
    assert_eq!(history.iter().map(|v| v.version).collect::<Vec<_>>(), [3, 2, 1]);
    assert!(
        bench.store.read(&bench.site, kind("Patient"), &created.id).await.unwrap().unwrap().body.is_empty()
    );
    let old = bench.store.vread(&bench.site, kind("Patient"), &created.id, 1).await.unwrap().unwrap();
    assert_eq!(old.body, created.body());
    let revived = bench.one(Action::Replace(target(), patient("1", "Again"))).await.unwrap();
    assert_eq!((revived.effect, revived.version), (Effect::Created, 4));
}

#[tokio::test]
async fn thirty_two_senders_of_one_patient_make_one() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let tasks: Vec<_> = (0..32)
        .map(|n| {
            let bench = bench.clone();
            let action = match n % 3 {
                0 => Action::Ensure(mrn("same").into(), patient("same", "N")),
                1 => Action::Ensure(
                    Target::Query(Box::new(query("Patient", "identifier=urn:mrn|same"))),
                    patient("same", "N"),
                ),
                _ => Action::Merge(mrn("same").into(), patient("same", "N"), Vec::new()),
            };
            tokio::spawn(async move { bench.one(action).await.unwrap() })
        })
        .collect();
    let (mut ids, mut created) = (BTreeSet::new(), 0);
    for task in tasks {
        let outcome = task.await.unwrap();
        created += u32::from(outcome.effect == Effect::Created);
        ids.insert(outcome.id);
    }
    assert_eq!((created, ids.len()), (1, 1));
    assert_eq!(bench.find("Patient", "identifier=urn:mrn|same").await.len(), 1);
}

#[tokio::test]
async fn if_match_and_if_none_match() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let put = |precondition: Precondition, family: &str| {
        let change =
            Change { precondition, ..Change::new(Action::Replace(by_id("p1"), patient("1", family))) };
        let bench = bench.clone();
        async move { bench.submit(vec![change]).await.map_err(|e| e.kind) }
    };
    let if_match = || Precondition { if_match: Some(vec![1]), must_not_exist: false };
    let absent = || Precondition { if_match: None, must_not_exist: true };
    assert_eq!(put(if_match(), "x").await.unwrap_err(), ErrorKind::Precondition);
    assert!(put(absent(), "x").await.is_ok());
    assert_eq!(put(absent(), "y").await.unwrap_err(), ErrorKind::Precondition);
    assert!(put(if_match(), "y").await.is_ok());
    assert_eq!(put(if_match(), "z").await.unwrap_err(), ErrorKind::Precondition);
}

#[tokio::test]
async fn links_within_a_submission_become_references() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let subject = json!({ "reference": "urn:uuid:p" });
    let observation = json!({ "resourceType": "Observation", "status": "final", "code": { "text": "x" }, "subject": subject,
        "effectiveDateTime": "2024-05-01" });
    let order = json!({ "resourceType": "ServiceRequest", "status": "active", "intent": "order", "subject": subject,
        "identifier": [{ "system": "urn:acc", "value": "A1" }] });
    let changes = vec![
        Change::new(Action::Create(resource(observation))),
        Change::new(Action::Merge(mrn("7").into(), patient("7", "Link"), Vec::new()))
            .with_full_url("urn:uuid:p"),
        Change::new(Action::Create(resource(order))),
    ];
    let outcomes = bench.submit(changes).await.unwrap().outcomes;
    let (patient, order) = (&outcomes[1].id, &outcomes[2].id);
    let body: Value = serde_json::from_slice(&outcomes[0].body()).unwrap();
    assert_eq!(body["subject"]["reference"], format!("Patient/{patient}"));
    for (accession, expected) in [("A1", json!(format!("ServiceRequest/{order}"))), ("A2", Value::Null)] {
        let link = json!({ "reference": format!("ServiceRequest?identifier=urn:acc|{accession}"), "identifier": { "value": accession } });
        let report = json!({ "resourceType": "DiagnosticReport", "status": "final", "code": { "text": "x" }, "basedOn": [link] });
        let outcome = bench.one(Action::Create(resource(report))).await.unwrap();
        let body: Value = serde_json::from_slice(&outcome.body()).unwrap();
        assert_eq!(body["basedOn"][0]["reference"], expected, "{accession}");
    }
    assert_eq!(bench.find("Observation", &format!("patient={patient}&date=2024-05")).await.len(), 1);
    let submissions = bench.store.submissions_of(&bench.site, kind("Patient"), patient, 10).await.unwrap();
    assert_eq!(submissions[0].targets.len(), 3);
    assert_eq!(submissions[0].bytes.as_deref(), Some(&b"x"[..]));
}

#[tokio::test]
async fn a_superseded_patient_leads_to_its_survivor() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let supersede = |survivor: &str, prior: &str| Action::Supersede {
        survivor: Box::new((mrn(survivor).into(), patient(survivor, "S"))),
        prior: Box::new((mrn(prior).into(), patient(prior, "P"))),
    };
    bench.one(Action::Create(patient("old", "Old"))).await.unwrap();
    let survivor = bench.one(supersede("new", "old")).await.unwrap();
    assert_eq!(bench.one(supersede("new", "old")).await.unwrap().effect, Effect::Unchanged);
    let update = Action::Merge(mrn("old").into(), patient("old", "Fresh"), Vec::new());
    assert_eq!(bench.one(update).await.unwrap().id, survivor.id);
    let last = bench.one(supersede("last", "new")).await.unwrap();
    let update = Action::Merge(mrn("old").into(), patient("old", "Chain"), Vec::new());
    assert_eq!(bench.one(update).await.unwrap().id, last.id, "chains lead to the last survivor");
    assert_eq!(
        bench.one(supersede("new", "new")).await.map(|o| o.effect).unwrap_or(Effect::Unchanged),
        Effect::Unchanged
    );
    assert_eq!(bench.one(supersede("last", "last")).await.unwrap_err().kind, ErrorKind::Conflict);
    let inactive = bench.find("Patient", "active=false").await;
    assert_eq!(inactive.len(), 2);
    assert!(
        inactive.iter().all(|p| p["link"].as_array().unwrap().iter().any(|l| l["type"] == "replaced-by"))
    );
}

/// A patient of [`mrn`] under the system of today, whose authority had another URI before.
fn renamed(mrn: &str, family: &str) -> (Target, Resource) {
    let numbers = PatientNumbers {
        numbers: vec![("urn:today".into(), mrn.into())],
        former: vec![("urn:mrn".into(), mrn.into())],
        disagreement: Disagreement::Refuse,
        ..numbers(&[])
    };
    let identifier = json!([{ "system": "urn:today", "value": mrn }]);
    let who = json!({ "resourceType": "Patient", "identifier": identifier, "name": [{ "family": family }] });
    (Target::Patient(Box::new(numbers)), resource(who))
}

fn update((target, resource): (Target, Resource)) -> Action {
    Action::Merge(target, resource, Vec::new())
}

#[tokio::test]
async fn a_number_whose_authority_got_another_system_finds_who_had_it_under_the_former_one() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let before = bench.one(Action::Create(patient("7", "Before"))).await.unwrap();
    let after = bench.one(update(renamed("7", "After"))).await.unwrap();
    assert_eq!((after.id.as_str(), after.effect), (before.id.as_str(), Effect::Updated));
    let found = bench.find("Patient", "identifier=urn:today|7").await;
    let systems: Vec<&Value> =
        found[0]["identifier"].as_array().unwrap().iter().map(|i| &i["system"]).collect();
    assert_eq!(systems, ["urn:mrn", "urn:today"], "it has both");
    assert_eq!(bench.one(update(renamed("8", "Other"))).await.unwrap().effect, Effect::Created);

    // who has the number as it is now comes first
    let own = bench.one(Action::Create(renamed("9", "Own").1)).await.unwrap();
    bench.one(Action::Create(patient("9", "Else"))).await.unwrap();
    assert_eq!(bench.one(update(renamed("9", "Own"))).await.unwrap().id, own.id);
    for _ in 0..2 {
        bench.one(Action::Create(patient("10", "Twice"))).await.unwrap();
    }
    let refused = bench.one(update(renamed("10", "Guess"))).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Conflict, "nothing is guessed");
}

#[tokio::test]
async fn a_merge_finds_both_patients_under_the_former_system() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let keep = bench.one(Action::Create(patient("1", "Keep"))).await.unwrap().id;
    let gone = bench.one(Action::Create(patient("2", "Gone"))).await.unwrap().id;
    // the sender lists the number that goes among those of the survivor
    let (survivor, mut who) = renamed("1", "Keep");
    let Target::Patient(mut numbers) = survivor else { unreachable!() };
    numbers.numbers.push(("urn:today".into(), "2".into()));
    numbers.former.push(("urn:mrn".into(), "2".into()));
    let both = json!([{ "system": "urn:today", "value": "1" }, { "system": "urn:today", "value": "2" }]);
    who.set("identifier", both);
    let survivor = Box::new((Target::Patient(numbers), who));
    let prior = Box::new(renamed("2", "Gone"));
    let merged = bench.one(Action::Supersede { survivor, prior }).await.unwrap();
    assert_eq!(merged.id, keep);
    let inactive = bench.find("Patient", "active=false").await;
    assert_eq!(inactive.len(), 1);
    assert_eq!(inactive[0]["id"], gone.as_str());
    assert_eq!(bench.find("Patient", "").await.len(), 2, "nobody was made for a number that was known");
    assert_eq!(bench.one(update(renamed("2", "Followed"))).await.unwrap().id, keep);
}

#[tokio::test]
async fn who_was_merged_into_a_deleted_patient_is_found_by_its_own_number() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let old = bench.one(Action::Create(patient("old", "Old"))).await.unwrap();
    let supersede = Action::Supersede {
        survivor: Box::new((mrn("new").into(), patient("new", "S"))),
        prior: Box::new((mrn("old").into(), patient("old", "P"))),
    };
    let survivor = bench.one(supersede).await.unwrap();
    bench.one(Action::Delete(by_id(&survivor.id))).await.unwrap();
    let target = Target::Patient(Box::new(numbers(&["old"])));
    let update = bench.one(Action::Merge(target, patient("old", "Fresh"), Vec::new())).await.unwrap();
    assert_eq!((update.id.as_str(), update.effect), (old.id.as_str(), Effect::Updated));
    let gone = bench.store.read(&bench.site, kind("Patient"), &survivor.id).await.unwrap().unwrap();
    assert!(gone.body.is_empty(), "a message does not bring back what a client deleted");
}

#[tokio::test]
async fn a_repeat_gets_its_answer_though_its_changes_would_be_refused_by_now() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let send = |control: &'static str| {
        let numbers = PatientNumbers { disagreement: Disagreement::Refuse, ..numbers(&["1", "2"]) };
        let target = Target::Patient(Box::new(numbers));
        let changes = vec![Change::new(Action::Merge(target, patient("1", "Twice"), Vec::new()))];
        let answer = Some(Bytes::from_static(b"AA"));
        let bench = bench.clone();
        async move { bench.store.commit(&bench.site, original(Some(control), b"one"), changes, answer).await }
    };
    send("C1").await.unwrap();
    bench.one(Action::Create(patient("2", "Another"))).await.unwrap();
    assert_eq!(send("C2").await.unwrap_err().kind, ErrorKind::Conflict, "the numbers are of two by now");
    let repeat = send("C1").await.unwrap();
    assert_eq!((repeat.duplicate, repeat.answer.as_deref()), (true, Some(&b"AA"[..])));
}

#[tokio::test]
async fn late_news_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    for (family, millis, effect) in [
        ("A", 50, Effect::Created),
        ("B", 60, Effect::Updated),
        ("C", 55, Effect::Late),
        ("D", 60, Effect::Updated),
    ] {
        let action = Action::Merge(mrn("late").into(), patient("late", family), Vec::new());
        let change = Change { happened: Some(Timestamp::from_micros(millis * 1000)), ..Change::new(action) };
        assert_eq!(bench.submit(vec![change]).await.unwrap().outcomes[0].effect, effect, "{family}");
    }
}

#[tokio::test]
async fn an_older_word_in_passing_does_not_turn_the_clock_of_its_sender_back() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let said = |millis: i64, action: Action| Change {
        happened: Some(Timestamp::from_micros(millis * 1000)),
        ..Change::new(action)
    };
    let named = |family: &str| Action::Merge(mrn("1").into(), patient("1", family), Vec::new());
    let both = Target::Patient(Box::new(numbers(&["1", "2"])));
    let mut learned = patient("1", "C");
    learned.set(
        "identifier",
        json!([{ "system": "urn:mrn", "value": "1" }, { "system": "urn:mrn", "value": "2" }]),
    );
    for (sender, millis, action, effect) in [
        ("ADT", 10, named("A"), Effect::Created),
        ("LAB", 60, named("B"), Effect::Updated),
        ("LAB", 20, Action::Ensure(both, learned), Effect::Updated),
        ("LAB", 40, named("D"), Effect::Late),
        ("ADT", 30, named("E"), Effect::Updated),
    ] {
        let original = Original { identity: Some(sender.into()), ..original(None, b"x") };
        let done = bench.store.commit(&bench.site, original, vec![said(millis, action)], None).await;
        assert_eq!(done.unwrap().outcomes[0].effect, effect, "{sender} at {millis}");
    }
}

#[tokio::test]
async fn a_repeated_submission_replays_its_answer() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let send = |bytes: &'static [u8], answer: &'static [u8]| {
        let bench = bench.clone();
        let changes = vec![Change::new(Action::Create(patient("d", "Dup")))];
        async move {
            bench
                .store
                .commit(&bench.site, original(Some("C1"), bytes), changes, Some(Bytes::from_static(answer)))
                .await
        }
    };
    assert!(!send(b"one", b"AA 1").await.unwrap().duplicate);
    let second = send(b"one", b"AA 2").await.unwrap();
    assert_eq!((second.duplicate, second.answer.as_deref()), (true, Some(&b"AA 1"[..])));
    assert!(!send(b"other", b"AA 3").await.unwrap().duplicate, "same control id, other bytes: processed");
    assert_eq!(bench.find("Patient", "identifier=d").await.len(), 2);
}

#[tokio::test]
async fn a_rejected_submission_is_kept_with_its_large_original() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let issue = Issue::error(IssueCode::Required, "is required").at("PID-3").hl7(101);
    let large = original(Some("C9"), &vec![b'x'; 100_000]);
    let answer = Some(Bytes::from_static(b"AE"));
    let number =
        bench.store.quarantine(&bench.site, large, std::slice::from_ref(&issue), answer).await.unwrap();
    let row = bench.store.submission(&bench.site, number).await.unwrap().unwrap();
    assert_eq!(
        (row.accepted, row.issues.as_slice(), row.answer.as_deref()),
        (false, &[issue][..], Some(&b"AE"[..]))
    );
    let blob = bench.store.blob(&bench.site, &row.blob.unwrap()).await.unwrap().unwrap();
    assert_eq!(blob.bytes, 100_000);
}

#[tokio::test]
async fn pages_are_complete_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    for n in 0..45 {
        let code = json!({ "coding": [{ "system": "http://loinc.org", "code": if n % 3 == 0 { "a" } else { "b" } }] });
        let observation = json!({ "resourceType": "Observation", "status": "final", "code": code, "subject": { "reference": "Patient/p" },
            "effectiveDateTime": format!("2024-01-{:02}", n % 28 + 1), "valueQuantity": { "value": n } });
        bench.one(Action::Create(resource(observation))).await.unwrap();
    }
    for (text, count) in [
        ("patient=p&_count=10", 45),
        ("patient=p&code=http://loinc.org|a&_count=4", 15),
        ("value-quantity=ge40", 5),
        ("date=ge2024-01-27&code=b", 1),
        ("code:not=a", 30),
        ("_count=7", 45),
    ] {
        assert_eq!(bench.find("Observation", text).await.len(), count, "{text}");
    }
    for text in ["_sort=-date&patient=p&_count=7", "_sort=-date&_count=7"] {
        let found = bench.find("Observation", text).await;
        let dates: Vec<String> = found.iter().map(|o| o["effectiveDateTime"].to_string()).collect();
        assert!(dates.is_sorted_by(|a, b| a >= b) && dates.len() == 45, "{text}");
    }
    let found = bench.find("Observation", "_sort=-value-quantity&_count=11").await;
    let values: Vec<i64> = found.iter().map(|o| o["valueQuantity"]["value"].as_i64().unwrap()).collect();
    assert!(values.is_sorted_by(|a, b| a > b) && values.len() == 45);
    let page = bench
        .store
        .search(&bench.site, &query("Observation", "patient=p&_summary=count"), None)
        .await
        .unwrap();
    assert_eq!((page.total, page.matches.len()), (Some(45), 0));
}

#[tokio::test]
async fn searches_equal_a_scan_over_all_bodies() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let families = ["Müller", "O'Brien", "muller-Smith", "Garcia", "García"];
    let genders = ["male", "female", "other"];
    let mut all = Vec::new();
    for n in 0..60_usize {
        let mut patient = json!({
            "resourceType": "Patient", "identifier": [{ "system": format!("urn:s{}", n % 3), "value": format!("{}", n % 7) }],
            "name": [{ "family": families[n % 5], "given": [format!("g{}", n % 4)] }],
            "gender": genders[n % 3], "deceasedBoolean": n % 4 == 0, "birthDate": format!("19{:02}-0{}", 50 + n % 40, n % 9 + 1),
            "generalPractitioner": [{ "reference": format!("Practitioner/{}", n % 5) }],
            "telecom": [{ "system": if n % 3 == 0 { "email" } else { "phone" }, "value": format!("{}", n % 6) }],
            "address": [{ "city": families[n % 4], "state": families[n % 3] }],
        });
        if n % 4 > 0 {
            patient["active"] = json!(n % 4 > 1);
        }
        let patient = resource(patient);
        all.push((bench.one(Action::Create(patient.clone())).await.unwrap().id, patient));
    }
    for text in [
        "name=mull",
        "family:exact=García",
        "name:contains=ller",
        "identifier=3",
        "identifier=urn:s1|3",
        "identifier=urn:s1|3,urn:s2|4",
        "identifier=urn:s0|",
        // codes that most have are not in the index
        "gender=male",
        "gender=other",
        "gender=male,other&_sort=birthdate",
        "gender=|male,http://hl7.org/fhir/administrative-gender|female",
        "active=true&deceased=false",
        "deceased=true&gender=male",
        "address-use:missing=true&gender=female",
        "gender=male&name=g2",
        "gender:not=male",
        "birthdate=1960",
        "birthdate=gt1980-02",
        "birthdate=lt1955,1970",
        "general-practitioner=Practitioner/2&gender=female",
        "general-practitioner=3",
        "active:missing=true&family=garcia",
        "given=g2&birthdate=ge1970&_sort=birthdate",
        "given=mull,g1",
        "family=garcia",
        "phone=4",
        "email=3",
        "telecom=phone|4",
        "telecom=4",
        "telecom=|4,3",
        "address=garcia",
        "address-city=garcia",
        "address-state=muller&address-city:exact=O'Brien",
        "gender=http://hl7.org/fhir/administrative-gender|male&email=0",
    ] {
        let query = query("Patient", text);
        let matches =
            |p: &Resource, id: &str| query.matches(&index(p, &context()), id, Timestamp::from_micros(0));
        let scanned: BTreeSet<&str> =
            all.iter().filter(|(id, p)| matches(p, id)).map(|(id, _)| id.as_str()).collect();
        let found = bench.find("Patient", text).await;
        let found: BTreeSet<&str> = found.iter().map(|p| p["id"].as_str().unwrap()).collect();
        assert!(!scanned.is_empty(), "{text} finds nothing in the scan");
        assert_eq!(found, scanned, "{text}");
    }
}

#[tokio::test]
async fn includes_go_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let observation = json!({ "resourceType": "Observation", "status": "final", "code": { "text": "x" }, "subject": { "reference": "Patient/p1" } });
    bench.one(Action::Replace(by_id("p1"), patient("1", "Inc"))).await.unwrap();
    bench.one(Action::Create(resource(observation))).await.unwrap();
    let other = json!({ "resourceType": "Observation", "status": "final", "code": { "text": "x" }, "subject": { "reference": "Group/p1" } });
    bench.one(Action::Create(resource(other))).await.unwrap();
    for text in ["patient=Patient/p1", "patient=p1", "patient=Patient/p1,Patient/p2", "subject=Patient/p1"] {
        assert_eq!(bench.find("Observation", text).await.len(), 1, "{text}");
    }
    assert_eq!(bench.find("Observation", "subject=p1").await.len(), 2, "a patient and a group");
    assert!(bench.find("Observation", "patient=Group/p1").await.is_empty(), "a group is no patient");
    for (of, text, included) in [
        ("Observation", "_include=Observation:subject&patient=p1", "Patient"),
        ("Patient", "_revinclude=Observation:patient", "Observation"),
    ] {
        let page = bench.store.search(&bench.site, &query(of, text), None).await.unwrap();
        assert_eq!((page.matches.len(), page.includes.len(), page.total), (1, 1, Some(1)));
        assert_eq!(page.includes[0].resource_type.name(), included);
    }
}

#[tokio::test]
async fn the_feed_tells_every_version_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let writers: Vec<_> = (0..8)
        .map(|w| {
            let bench = bench.clone();
            tokio::spawn(async move {
                for n in 0..20 {
                    bench.one(Action::Create(patient(&format!("{w}-{n}"), "F"))).await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let (mut after, mut ids) = (0, BTreeSet::new());
    loop {
        let entries = bench.store.feed(&bench.site, after, 17).await.unwrap();
        let Some(last) = entries.last() else { break };
        assert!(entries[0].position > after);
        after = last.position;
        ids.extend(entries.into_iter().map(|e| e.version.id));
    }
    assert_eq!(ids.len(), 160);
    assert_eq!(*bench.store.watch(&bench.site).unwrap().borrow(), after);
}

#[tokio::test]
async fn sites_do_not_see_each_other_and_one_edge_owns_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    bench.store.control().put_site(serde_json::from_value(json!({ "id": "b" })).unwrap()).unwrap();
    let b = Bench { store: bench.store.clone(), site: bench.store.control().site("b").unwrap().unwrap() };
    let id = bench.one(Action::Create(patient("1", "Only A"))).await.unwrap().id;
    assert!(b.store.read(&b.site, kind("Patient"), &id).await.unwrap().is_none());
    assert!(b.find("Patient", "name=only").await.is_empty());
    assert!(Store::open(config(dir.path())).await.err().unwrap().message.contains("another edge"));
}

#[tokio::test]
async fn one_bad_job_leaves_its_neighbours_alone() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let tasks: Vec<_> = (0..40)
        .map(|n| {
            let bench = bench.clone();
            let precondition =
                Precondition { if_match: (n % 4 == 0).then(|| vec![7]), must_not_exist: false };
            let action = Action::Replace(by_id(&format!("p{n}")), patient("n", "Good"));
            tokio::spawn(async move {
                bench.submit(vec![Change { precondition, ..Change::new(action) }]).await.is_ok()
            })
        })
        .collect();
    let mut kept = 0;
    for task in tasks {
        kept += u32::from(task.await.unwrap());
    }
    assert_eq!(kept, 30);
    assert_eq!(bench.find("Patient", "name=good&_count=100").await.len(), 30);
}

#[tokio::test]
async fn a_nearly_full_disk_is_told_to_every_sender_and_deliveries_go_on() {
    let dir = tempfile::tempdir().unwrap();
    drop(Bench::open(dir.path()).await);
    let store = Store::open(Config { free_bytes_min: u64::MAX, ..config(dir.path()) }).await.unwrap();
    let site = store.control().site("a").unwrap().unwrap();
    let bench = Bench { store, site };
    for _ in 0..3 {
        let error = bench.submit(vec![Change::new(Action::Create(patient("1", "Doe")))]).await.unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Full, "the disk is nearly full"));
    }
    assert_eq!(bench.store.accepting(&bench.site).unwrap_err().kind, ErrorKind::Full);
    assert_eq!(bench.find("Patient", "").await.len(), 0, "reads go on");
    let destination = Destination {
        reference: "Subscription/1".into(),
        cursor: 0,
        next_number: 1,
        state: DestinationState::Active,
        next_at: None,
        error: None,
        owner: None,
    };
    bench.store.put_destination(&bench.site, destination).await.unwrap();
    assert_eq!(bench.store.destinations(&bench.site).await.unwrap().len(), 1);
}

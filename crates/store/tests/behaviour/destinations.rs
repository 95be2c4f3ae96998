//! The destination of a Subscription comes, changes and goes with it.

use hilum_fhir::search::{Context, Query};
use hilum_fhir::{Action, Change, Target, Timestamp};
use hilum_store::{Destination, DestinationState, Original, OriginalKind};
use serde_json::{Value, json};

use super::resources::{Bench, kind, patient, resource};

const REFERENCE: &str = "Subscription/1";

impl Bench {
    /// A Subscription written through the FHIR door with a key, or by the deliverer itself.
    async fn subscription(&self, who: OriginalKind, key: Option<&str>, status: &str) {
        let content = json!({ "resourceType": "Subscription", "id": "1", "status": status, "reason": key.unwrap_or("r"),
            "criteria": "Patient", "channel": { "type": "rest-hook", "endpoint": "https://h.example" } });
        let replace = Action::Replace(Target::Id(kind("Subscription"), "1".into()), resource(content));
        self.by(who, key, replace).await;
    }

    async fn by(&self, who: OriginalKind, key: Option<&str>, action: Action) {
        let original = Original { kind: who, identity: key.map(str::to_owned), ..crate::engine::original(0) };
        self.store.commit(&self.site, original, vec![Change::new(action)], None).await.unwrap();
    }

    async fn destination(&self) -> Option<Destination> {
        let all = self.store.destinations(&self.site).await.unwrap();
        let one = self.store.destination(&self.site, REFERENCE).await.unwrap();
        assert_eq!(format!("{:?}", all.first()), format!("{:?}", one.as_ref()));
        one
    }

    fn newest(&self) -> u64 {
        *self.store.watch(&self.site).unwrap().borrow()
    }
}

#[tokio::test]
async fn a_destination_comes_with_its_subscription_and_is_of_who_wrote_it_last() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    bench.one(Action::Create(patient("1", "Doe"))).await.unwrap();
    bench.subscription(OriginalKind::Fhir, Some("KEY1"), "requested").await;
    let made = bench.destination().await.unwrap();
    assert_eq!((made.owner.as_deref(), made.state), (Some("KEY1"), DestinationState::Requested));
    assert_eq!((made.cursor, made.next_number), (bench.newest(), 1), "what was there before is not for it");

    bench.subscription(OriginalKind::Internal, None, "active").await;
    let active = bench.destination().await.unwrap();
    assert_eq!((active.owner.as_deref(), active.state), (Some("KEY1"), DestinationState::Active));
    assert_eq!(active.cursor, made.cursor);

    bench.subscription(OriginalKind::Fhir, Some("KEY2"), "active").await;
    let taken = bench.destination().await.unwrap();
    assert_eq!((taken.owner.as_deref(), taken.cursor), (Some("KEY2"), made.cursor));
    bench.subscription(OriginalKind::Fhir, None, "active").await;
    assert_eq!(bench.destination().await.unwrap().owner, None, "written where no key is needed");
}

#[tokio::test]
async fn it_goes_with_its_subscription_and_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    bench.subscription(OriginalKind::Fhir, None, "requested").await;
    bench.one(Action::Create(patient("1", "Doe"))).await.unwrap();
    let newest = bench.newest();
    bench
        .store
        .matched(&bench.site, vec![(REFERENCE.into(), newest)], vec![(REFERENCE.into(), newest)])
        .await
        .unwrap();
    assert_eq!(bench.destination().await.unwrap().next_number, 2);
    assert_eq!(bench.store.next_delivery(&bench.site, REFERENCE).await.unwrap().unwrap().number, 1);
    bench.by(OriginalKind::Fhir, None, Action::Delete(Target::Id(kind("Subscription"), "1".into()))).await;
    assert!(bench.destination().await.is_none());
    assert!(bench.store.next_delivery(&bench.site, REFERENCE).await.unwrap().is_none());
    // what the deliverer found before it heard of it is nobody's
    let late = vec![(REFERENCE.to_owned(), bench.newest())];
    bench.store.matched(&bench.site, late.clone(), late).await.unwrap();
    assert!(bench.destination().await.is_none());
    bench.subscription(OriginalKind::Fhir, None, "requested").await;
    let again = bench.destination().await.unwrap();
    assert_eq!((again.cursor, again.next_number), (bench.newest(), 1));
    assert!(bench.store.next_delivery(&bench.site, REFERENCE).await.unwrap().is_none());
}

#[tokio::test]
async fn one_that_was_off_begins_where_it_is_turned_on() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    for (between, moves) in [("error", false), ("off", true)] {
        bench.subscription(OriginalKind::Fhir, None, "requested").await;
        let before = bench.destination().await.unwrap().cursor;
        bench.subscription(OriginalKind::Internal, None, between).await;
        bench.one(Action::Create(patient(between, "Doe"))).await.unwrap();
        bench.subscription(OriginalKind::Fhir, None, "requested").await;
        let after = bench.destination().await.unwrap().cursor;
        assert_eq!(after > before, moves, "{between}");
    }
}

/// Searches are restricted where they are done, so that counts and pages are of the same part.
#[tokio::test]
async fn a_search_within_a_part_finds_and_counts_that_part() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    for (number, family, gender) in [("1", "Doe", "female"), ("2", "Doe", "male"), ("3", "Roe", "female")] {
        let mut content = patient(number, family);
        content.set("gender", json!(gender));
        bench.one(Action::Create(content)).await.unwrap();
    }
    let context = Context { zone: jiff::tz::TimeZone::UTC, now: Timestamp::from_micros(0) };
    let search = async |text: &str, parts: &[&str]| {
        let mut query = Query::parse_criteria(text, &context).unwrap();
        query.within = parts.iter().map(|part| Query::parse_criteria(part, &context).unwrap()).collect();
        query.total = hilum_fhir::search::Total::Accurate;
        let page = bench.store.search(&bench.site, &query, None).await.unwrap();
        let number = |body: &[u8]| {
            let value: Value = serde_json::from_slice(body).unwrap();
            value["identifier"][0]["value"].as_str().unwrap().to_owned()
        };
        let mut found: Vec<String> = page.matches.iter().map(|version| number(&version.body)).collect();
        found.sort();
        assert_eq!(page.total, Some(found.len() as u64), "{text}");
        query.summary = hilum_fhir::search::Summary::Count;
        let counted = bench.store.search(&bench.site, &query, None).await.unwrap();
        assert_eq!(counted.total, page.total, "{text}");
        found.join(" ")
    };
    assert_eq!(search("Patient", &[]).await, "1 2 3");
    assert_eq!(search("Patient", &["Patient?gender=female"]).await, "1 3");
    assert_eq!(search("Patient?family=doe", &["Patient?gender=female"]).await, "1");
    assert_eq!(search("Patient?identifier=2", &["Patient?gender=female"]).await, "");
    assert_eq!(search("Patient?identifier=2", &["Patient?gender=female", "Patient?family=doe"]).await, "2");
}

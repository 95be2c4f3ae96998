//! The pages of one search, while others write.

use std::collections::BTreeSet;

use hilum_fhir::search::{Context, Options, Query, decode_pairs};
use hilum_fhir::{Action, Change, Resource, ResourceType, Target, Timestamp};
use hilum_store::{Original, OriginalKind, Site, Store};
use serde_json::json;

use crate::engine::config;

struct Bench {
    _dir: tempfile::TempDir,
    store: Store,
    site: Site,
}

fn observations() -> ResourceType {
    ResourceType::from_name("Observation").unwrap()
}

fn query(text: &str) -> Query {
    let context = Context { zone: jiff::tz::TimeZone::UTC, now: Timestamp::from_micros(0) };
    let options = Options { strict: true, condition: false, count_max: 100, ..Options::condition() };
    Query::parse(observations(), &decode_pairs(text), &options, &context).unwrap().0
}

/// An Observation of a month, from 1 on, and of a patient.
fn observation(id: &str, month: usize, patient: &str) -> Action {
    let body = json!({ "resourceType": "Observation", "id": id, "status": "final", "code": { "text": "x" },
        "subject": { "reference": format!("Patient/{patient}") }, "effectiveDateTime": format!("2024-{month:02}-01"),
        "valueQuantity": { "value": month } });
    Action::Replace(target(id), Resource::from_value(body).unwrap())
}

fn target(id: &str) -> Target {
    Target::Id(observations(), id.to_owned())
}

impl Bench {
    /// A store with the Observations o2 to o11, of the months 2 to 11.
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(config(dir.path())).await.unwrap();
        store.control().put_site(serde_json::from_value(json!({ "id": "a" })).unwrap()).unwrap();
        let site = store.control().site("a").unwrap().unwrap();
        let bench = Self { _dir: dir, store, site };
        for month in 2..=11 {
            bench.change(observation(&format!("o{month}"), month, "p")).await;
        }
        bench
    }

    async fn change(&self, action: Action) {
        let original = Original {
            kind: OriginalKind::V2,
            listener: "test".into(),
            peer: None,
            identity: None,
            control: None,
            sha256: [0; 32],
            blob: None,
            bytes: None,
            content_type: "x",
            received: Timestamp::from_micros(1),
            report: None,
            about: Default::default(),
        };
        self.store.commit(&self.site, original, vec![Change::new(action)], None).await.unwrap();
    }

    /// A page: the ids on it, and the cursor of the next.
    async fn page(&self, text: &str, cursor: Option<&str>) -> (Vec<String>, Option<String>) {
        let page = self.store.search(&self.site, &query(text), cursor).await.unwrap();
        (page.matches.into_iter().map(|version| version.id).collect(), page.next)
    }

    /// The ids on all pages behind a cursor.
    async fn rest(&self, text: &str, mut cursor: Option<String>) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(at) = cursor {
            let (ids, next) = self.page(text, Some(&at)).await;
            all.extend(ids);
            cursor = next;
        }
        all
    }
}

const SEARCHES: [&str; 9] = [
    "patient=p&_count=4",
    "_count=4",
    "status=final&date=ge2023&_count=4",
    "patient=p&_sort=date&_count=4",
    "patient=p&_sort=-date&_count=4",
    "patient=p&_sort=value-quantity&_count=4",
    "patient=p&_sort=-value-quantity&_count=4",
    "patient=p&_sort=-_lastUpdated&_count=4",
    "_sort=status,-value-quantity&_count=4",
];

#[tokio::test]
async fn what_is_corrected_or_added_while_a_client_pages_is_neither_missed_nor_doubled() {
    for text in SEARCHES {
        let bench = Bench::open().await;
        let (first, cursor) = bench.page(text, None).await;
        assert_eq!(first.len(), 4, "{text}");
        let all: BTreeSet<String> = (2..=11).map(|month| format!("o{month}")).collect();
        let not_shown: Vec<&String> = all.iter().filter(|id| !first.contains(id)).collect();
        // across the place that the first page reached, in both directions
        bench.change(observation(&first[1], 1, "p")).await;
        bench.change(observation(&first[2], 12, "p")).await;
        bench.change(observation(not_shown[1], 1, "p")).await;
        bench.change(observation(not_shown[2], 12, "p")).await;
        bench.change(observation(not_shown[3], 12, "another")).await;
        bench.change(observation("new1", 1, "p")).await;
        bench.change(observation("new2", 12, "p")).await;
        let rest = bench.rest(text, cursor).await;
        let together: BTreeSet<String> = first.iter().chain(&rest).cloned().collect();
        assert_eq!((together, first.len() + rest.len()), (all, 10), "{text}");
        // a new search sees all of it
        assert!(bench.page(text, None).await.1.is_some(), "{text}");
    }
}

#[tokio::test]
async fn what_is_deleted_while_a_client_pages_hides_nothing_else() {
    for text in SEARCHES {
        let bench = Bench::open().await;
        let (first, cursor) = bench.page(text, None).await;
        bench.change(Action::Delete(target(&first[0]))).await;
        bench.change(Action::Delete(target(&first[3]))).await;
        let gone = (2..=11).map(|month| format!("o{month}")).find(|id| !first.contains(id)).unwrap();
        bench.change(Action::Delete(target(&gone))).await;
        let rest = bench.rest(text, cursor).await;
        let once: BTreeSet<&String> = first.iter().chain(&rest).collect();
        assert_eq!((once.len(), first.len() + rest.len()), (9, 9), "{text}: {first:?} {rest:?}");
        assert!(!once.contains(&gone), "{text}");
    }
}

#[tokio::test]
async fn later_pages_go_on_in_the_order_of_the_first() {
    let bench = Bench::open().await;
    let text = "_sort=-value-quantity&_count=3";
    let (first, cursor) = bench.page(text, None).await;
    bench.change(observation("o5", 12, "p")).await;
    let rest = bench.rest(text, cursor).await;
    let expected: Vec<String> = (2..=11).rev().map(|month| format!("o{month}")).collect();
    assert_eq!([first, rest].concat(), expected);
}

#[tokio::test]
async fn a_page_link_works_with_what_only_says_how_to_show_it() {
    let bench = Bench::open().await;
    let (_, cursor) = bench.page("patient=p&_count=4", None).await;
    let shown_otherwise = "patient=p&_count=3&_total=accurate&_elements=status&_include=Observation:patient";
    let (ids, _) = bench.page(shown_otherwise, cursor.as_deref()).await;
    assert_eq!(ids, ["o6", "o7", "o8"]);
    for other in ["patient=q&_count=4", "patient=p&status=final", "patient=p&_sort=-date"] {
        let refused = bench.store.search(&bench.site, &query(other), cursor.as_deref()).await;
        assert!(refused.is_err(), "{other} is another search");
    }
}

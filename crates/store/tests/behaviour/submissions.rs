//! Submissions as those who run the edge look for them, and what a replay would do.

use hilum_fhir::{Action, Change, Issue, IssueCode, Match, Resource, ResourceType, Timestamp};
use hilum_store::{
    About, Config, Destination, DestinationState, Effect, Original, OriginalKind, Site, Store,
    SubmissionFilter, SubmissionRow, sha256,
};
use serde_json::json;

use crate::engine::config;

const SECOND: i64 = 1_000_000;

struct Bench {
    store: Store,
    site: Site,
}

impl Bench {
    async fn open(config: Config) -> Self {
        let store = Store::open(config).await.unwrap();
        let sites = store.control().sites().unwrap();
        if sites.is_empty() {
            store.control().put_site(serde_json::from_value(json!({ "id": "a" })).unwrap()).unwrap();
        }
        let site = store.control().site("a").unwrap().unwrap();
        Self { store, site }
    }

    /// The numbers of all pages of a list.
    async fn numbers(&self, filter: SubmissionFilter) -> Vec<u64> {
        self.rows(filter).await.iter().map(|row| row.sequence).collect()
    }

    async fn rows(&self, mut filter: SubmissionFilter) -> Vec<SubmissionRow> {
        let mut found = Vec::new();
        loop {
            let page = self.store.list_submissions(&self.site, filter.clone()).await.unwrap();
            assert!(page.rows.len() <= filter.count as usize);
            found.extend(page.rows);
            filter.before = page.next;
            if filter.before.is_none() {
                return found;
            }
        }
    }
}

/// The submission of a second, which decides its sender and control id.
fn original(second: i64) -> Original {
    let sender = if second % 2 == 0 { "RIS|NORTH" } else { "LAB|SOUTH" };
    let bytes = format!("MSH|{second}");
    Original {
        kind: if second % 10 == 0 { OriginalKind::Dicom } else { OriginalKind::V2 },
        listener: "mllp-3000".into(),
        peer: Some(
            if second % 3 == 0 { "[2001:db8::1]:3000".parse() } else { "10.1.0.11:3000".parse() }.unwrap(),
        ),
        identity: Some(sender.into()),
        control: Some((sender.into(), format!("C{second}"))),
        sha256: sha256(bytes.as_bytes()),
        blob: None,
        bytes: Some(bytes.into()),
        content_type: "x",
        received: Timestamp::from_micros(1_000_000 * SECOND + second * SECOND * 3600),
        report: None,
        about: About {
            message: Some(if second % 5 == 0 { "ADT^A08" } else { "ORU^R01" }.into()),
            ..About::default()
        },
    }
}

fn filter() -> SubmissionFilter {
    SubmissionFilter { count: 7, ..SubmissionFilter::default() }
}

fn patient(family: &str) -> Change {
    let identifier = json!([{ "system": "urn:mrn", "value": "1" }]);
    let value =
        json!({ "resourceType": "Patient", "identifier": identifier, "name": [{ "family": family }] });
    let target = Match { resource_type: kind("Patient"), system: Some("urn:mrn".into()), value: "1".into() };
    Change::new(Action::Merge(target.into(), Resource::from_value(value).unwrap(), Vec::new()))
}

fn kind(name: &str) -> ResourceType {
    ResourceType::from_name(name).unwrap()
}

#[tokio::test]
async fn a_list_has_each_submission_a_filter_lets_through_once_newest_first() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(config(dir.path())).await;
    for second in 1..=40 {
        if second % 8 == 0 {
            let code = if second == 16 { 205 } else { 101 };
            let issue = Issue::error(IssueCode::Required, "is required").at("PID-3").hl7(code);
            bench.store.quarantine(&bench.site, original(second), &[issue], None).await.unwrap();
        } else {
            bench.store.commit(&bench.site, original(second), Vec::new(), None).await.unwrap();
        }
    }
    let all: Vec<u64> = (1..=40).rev().collect();
    assert_eq!(bench.numbers(filter()).await, all);
    let some = |holds: fn(u64) -> bool| all.iter().copied().filter(|n| holds(*n)).collect::<Vec<u64>>();
    let text = |text: &str| Some(text.to_owned());
    let since = Some(original(30).received);
    for (wanted, expected) in [
        (SubmissionFilter { accepted: Some(false), ..filter() }, some(|n| n % 8 == 0)),
        (SubmissionFilter { accepted: Some(true), ..filter() }, some(|n| n % 8 != 0)),
        (SubmissionFilter { attention: true, ..filter() }, vec![16]),
        (SubmissionFilter { control: text("C17"), ..filter() }, vec![17]),
        (SubmissionFilter { control: text("C17"), accepted: Some(false), ..filter() }, vec![]),
        (SubmissionFilter { peer: text("10.1.0.11"), ..filter() }, some(|n| n % 3 != 0)),
        (SubmissionFilter { peer: text("2001:db8::1"), ..filter() }, some(|n| n % 3 == 0)),
        (SubmissionFilter { peer: text("10.1.0.1"), ..filter() }, vec![]),
        (SubmissionFilter { peer: text("NORTH"), ..filter() }, some(|n| n % 2 == 0)),
        (SubmissionFilter { peer: text("LAB|SOUTH"), ..filter() }, some(|n| n % 2 == 1)),
        (SubmissionFilter { peer: text("LA"), ..filter() }, vec![]),
        (SubmissionFilter { kind: Some(OriginalKind::Dicom), ..filter() }, some(|n| n % 10 == 0)),
        (SubmissionFilter { message: text("ADT"), ..filter() }, some(|n| n % 5 == 0)),
        (SubmissionFilter { message: text("ADT^A08"), ..filter() }, some(|n| n % 5 == 0)),
        (SubmissionFilter { message: text("AD"), ..filter() }, vec![]),
        (SubmissionFilter { listener: text("mllp-3000"), ..filter() }, all.clone()),
        (SubmissionFilter { since, ..filter() }, some(|n| n >= 30)),
        (SubmissionFilter { since, before: Some(33), ..filter() }, vec![32, 31, 30]),
    ] {
        assert_eq!(bench.numbers(wanted.clone()).await, expected, "{wanted:?}");
    }
    let rejected = bench.rows(SubmissionFilter { attention: true, ..filter() }).await.remove(0);
    assert_eq!(
        (rejected.attention.as_deref(), rejected.issues[0].hl7_code),
        (Some("identity-conflict"), Some(205))
    );
    assert!(rejected.bytes.is_none(), "a list carries no originals");
}

#[tokio::test]
async fn a_control_id_of_any_length_is_kept_and_found() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(config(dir.path())).await;
    let ids: Vec<String> = ["a", "b"].iter().map(|end| format!("{}{end}", "x".repeat(20_000))).collect();
    for id in &ids {
        let of = Original { control: Some(("RIS".into(), id.clone())), ..original(1) };
        bench.store.commit(&bench.site, of, Vec::new(), None).await.unwrap();
    }
    let found = bench.numbers(SubmissionFilter { control: Some(ids[1].clone()), ..filter() }).await;
    assert_eq!(found, [2]);
}

#[tokio::test]
async fn what_is_foretold_is_what_a_commit_then_does_and_nothing_is_written_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(config(dir.path())).await;
    let position = || *bench.store.watch(&bench.site).unwrap().borrow();
    let told = bench.store.foretell(&bench.site, &original(9), vec![patient("One")]).await.unwrap();
    assert_eq!((told.len(), told[0].effect, &told[0].before), (1, Effect::Created, &None));
    assert_eq!(position(), 0);
    let commit = |family: &'static str, second| {
        bench.store.commit(&bench.site, original(second), vec![patient(family)], None)
    };
    let created = commit("One", 1).await.unwrap().outcomes.remove(0);
    let told = bench.store.foretell(&bench.site, &original(9), vec![patient("Two")]).await.unwrap().remove(0);
    assert_eq!((told.effect, &told.id), (Effect::Updated, &created.id));
    assert_eq!(told.before.unwrap()["name"][0]["family"], "One");
    assert_eq!(told.after.unwrap()["name"][0]["family"], "Two");
    assert_eq!(position(), 1);
    let same = bench.store.foretell(&bench.site, &original(9), vec![patient("One")]).await.unwrap().remove(0);
    assert_eq!((same.effect, same.before == same.after), (Effect::Unchanged, true));
    assert!(bench.store.has_changed(&bench.site, kind("Patient"), 0).await.unwrap());
    assert!(!bench.store.has_changed(&bench.site, kind("Patient"), 1).await.unwrap());
    assert!(!bench.store.has_changed(&bench.site, kind("NamingSystem"), 0).await.unwrap());
}

#[tokio::test]
async fn the_deliveries_of_a_submission_are_those_of_its_versions() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(config(dir.path())).await;
    for (family, second) in [("One", 1), ("Two", 2)] {
        bench.store.commit(&bench.site, original(second), vec![patient(family)], None).await.unwrap();
    }
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
    let reference = || "Subscription/1".to_owned();
    let matches = vec![(reference(), 1), (reference(), 2)];
    bench.store.matched(&bench.site, matches, vec![(reference(), 2)]).await.unwrap();
    let of = bench.store.deliveries_of(&bench.site, 2, 10).await.unwrap();
    assert_eq!((of.len(), of[0].number, of[0].position), (1, 2, 2));
    assert!(bench.store.deliveries_of(&bench.site, 3, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_command_beside_a_running_edge_reads_and_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let beside = || Config { exclusive: false, ..config(dir.path()) };
    let in_files = beside().postgres.is_none() && beside().memory.is_none();
    if in_files {
        let error = Store::open(beside()).await.map(drop).unwrap_err();
        assert!(error.message.contains("there is no store"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made");
    }
    let edge = Bench::open(config(dir.path())).await;
    edge.store.commit(&edge.site, original(1), vec![patient("One")], None).await.unwrap();
    let command = Bench::open(beside()).await;
    assert_eq!(command.numbers(filter()).await, [1]);
    assert_eq!(
        command.store.foretell(&command.site, &original(9), vec![patient("Two")]).await.unwrap().len(),
        1
    );
    let written = command.store.commit(&command.site, original(2), vec![patient("Two")], None).await;
    // the numbers of a file are given out by the edge that has it; a server gives them out itself
    assert_eq!(written.is_ok(), !in_files);
    edge.store.commit(&edge.site, original(3), vec![patient("Three")], None).await.unwrap();
    assert_eq!(edge.numbers(filter()).await.len(), if in_files { 2 } else { 3 });
}

//! How long what is not current is kept.

use bytes::Bytes;
use hilum_fhir::imaging::{Instance, Series, Study};
use hilum_fhir::{Action, Change, Disagreement, PatientNumbers, Resource, ResourceType, Target, Timestamp};
use serde_json::json;

use hilum_store::{
    BlobId, Checks, Destination, DestinationState, Original, OriginalKind, Removed, Site, Store,
    StudyContents, fsck, sha256,
};

use crate::engine::{self, config};

fn patient() -> ResourceType {
    ResourceType::from_name("Patient").unwrap()
}

struct Bench {
    dir: tempfile::TempDir,
    store: Store,
    site: Site,
}

impl Bench {
    async fn open(retention: serde_json::Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(config(dir.path())).await.unwrap();
        let settings = json!({ "id": "a", "retention": retention });
        store.control().put_site(serde_json::from_value(settings).unwrap()).unwrap();
        let site = store.control().site("a").unwrap().unwrap();
        Self { dir, store, site }
    }

    /// A message received so many days ago, which gives the one Patient another name. Whether it was a repeat.
    async fn message(&self, text: &str, days: i64) -> bool {
        let resource = json!({ "resourceType": "Patient", "id": "p", "name": [{ "family": text }] });
        let change =
            Action::Replace(Target::Id(patient(), "p".into()), Resource::from_value(resource).unwrap());
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        let original = Original {
            kind: OriginalKind::V2,
            listener: "test".into(),
            peer: None,
            identity: Some("RIS".into()),
            control: Some(("RIS".into(), text[..2].into())),
            sha256: sha256(&bytes),
            blob: None,
            bytes: Some(bytes),
            content_type: "application/hl7-v2",
            received: Timestamp::from_micros(jiff::Timestamp::now().as_microsecond() - days * 86_400_000_000),
            report: None,
            about: Default::default(),
        };
        let changes = vec![Change::new(change)];
        self.store.commit(&self.site, original, changes, None).await.unwrap().duplicate
    }

    /// Closes the store and opens it again.
    async fn restart(self) -> Self {
        self.store.close().await;
        let Self { dir, store, site } = self;
        drop(store);
        let store = Store::open(config(dir.path())).await.unwrap();
        Self { dir, store, site }
    }

    async fn newest_submission(&self) -> u64 {
        self.store.submissions(&self.site, None, 1).await.unwrap().first().map_or(0, |row| row.sequence)
    }

    async fn versions(&self) -> Vec<u64> {
        let history = self.store.history(&self.site, patient(), "p", None, 1000).await.unwrap();
        history.iter().map(|version| version.version).collect()
    }

    /// What goes in so many days.
    async fn retain(&self, days: i64) -> Removed {
        let now = jiff::Timestamp::now().as_microsecond() + days * 86_400_000_000;
        self.store.retain(&self.site, Timestamp::from_micros(now)).await.unwrap()
    }

    async fn destination(&self, cursor: u64) {
        let destination = Destination {
            reference: "Subscription/1".into(),
            cursor,
            next_number: 1,
            state: DestinationState::Active,
            next_at: None,
            error: None,
            owner: None,
        };
        self.store.put_destination(&self.site, destination).await.unwrap();
    }
}

#[tokio::test]
async fn originals_go_first_and_their_submissions_later() {
    let bench = Bench::open(json!({ "originals_days": 30, "submissions_days": 90 })).await;
    for n in 0..450 {
        bench.message(&format!("{n:03}"), if n < 300 { 100 } else { 40 }).await;
    }
    let large = "9".repeat(50_000);
    bench.message(&large, 100).await;
    bench.message("new", 10).await;
    let removed = bench.retain(0).await;
    assert_eq!(removed, Removed { originals: 451, submissions: 300, ..Removed::default() });
    let rows = bench.store.submissions(&bench.site, None, 1000).await.unwrap();
    assert_eq!(rows.len(), 152, "a late one behind a young one waits for it");
    let kept: Vec<u64> = rows.iter().filter(|row| row.bytes.is_some()).map(|row| row.sequence).collect();
    assert_eq!(kept, [452]);
    assert_eq!(bench.retain(0).await, Removed::default(), "nothing twice");
    assert!(!bench.message("000", 0).await, "forgotten with its submission");
    assert!(bench.message("300", 0).await, "the submission is known still");
    assert_eq!(bench.versions().await.len(), 453, "no version was touched");
    bench.store.close().await;
    let findings = fsck(&config(bench.dir.path()), Checks { deep: true, rebuild: false }).unwrap();
    assert_eq!(findings[0].faults, [""; 0]);
}

#[tokio::test]
async fn numbers_of_what_was_removed_are_not_given_again_after_a_restart() {
    let bench = Bench::open(json!({ "submissions_days": 90 })).await;
    for text in ["000", "001", "002"] {
        bench.message(text, 100).await;
    }
    assert_eq!(bench.retain(0).await.submissions, 3);
    let bench = bench.restart().await;
    bench.message("003", 100).await;
    assert_eq!(bench.newest_submission().await, 4, "the versions of the three before name 1 to 3");
    assert_eq!(bench.versions().await, [4, 3, 2, 1]);
    assert_eq!(bench.retain(0).await.submissions, 1, "the walk of retention has not passed it already");
    let bench = bench.restart().await;
    bench.message("004", 0).await;
    assert_eq!(bench.newest_submission().await, 5);
}

#[tokio::test]
async fn superseded_versions_go_when_every_destination_has_heard_of_them() {
    let bench = Bench::open(json!({ "versions_days": 365 })).await;
    for n in 0..500 {
        bench.message(&format!("{n:03}"), 0).await;
    }
    assert_eq!(bench.retain(0).await.versions, 0, "superseded just now");
    bench.destination(100).await;
    assert_eq!(bench.retain(366).await.versions, 100);
    assert_eq!(bench.versions().await, (101..=500).rev().collect::<Vec<u64>>(), "100 were delivered");
    bench.store.matched(&bench.site, Vec::new(), vec![("Subscription/1".to_owned(), 500)]).await.unwrap();
    assert_eq!(bench.retain(366).await.versions, 399);
    assert_eq!(bench.versions().await, [500], "the current one stays");
    let current = bench.store.read(&bench.site, patient(), "p").await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&current.body).contains("499"));
    assert!(!bench.message("500", 0).await);
    assert_eq!(bench.versions().await, [501, 500]);
}

#[tokio::test]
async fn blobs_that_no_row_names_go_after_a_day() {
    let bench = Bench::open(json!({})).await;
    bench.message(&"8".repeat(50_000), 0).await;
    let mut lost = Vec::new();
    for text in ["lost long ago", "lost just now"] {
        let mut writer = bench.store.blob_writer(&bench.site, Bytes::new()).await.unwrap();
        writer.write(text.as_bytes()).await.unwrap();
        lost.push(writer.finish().await.unwrap().id);
    }
    let row = bench.store.submissions(&bench.site, None, 1).await.unwrap().remove(0);
    for blob in [row.blob.unwrap(), lost[0]] {
        let name = blob.hex();
        let path = bench.dir.path().join("sites/a/blobs").join(&name[..2]).join(name);
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    }
    let removed = bench.retain(0).await;
    assert_eq!(removed, Removed { blobs: 1, ..Removed::default() });
    for (blob, is_there) in [(row.blob.unwrap(), true), (lost[0], false), (lost[1], true)] {
        assert_eq!(bench.store.blob(&bench.site, &blob).await.unwrap().is_some(), is_there);
    }
    assert_eq!(bench.retain(0).await, Removed::default(), "once a day");
}

/// An image of a study whose file is a blob.
fn image(sop: &str, study: &str, blob: BlobId) -> Change {
    let numbers = PatientNumbers {
        numbers: vec![("urn:mrn".into(), "1".into())],
        former: Vec::new(),
        domain: "urn:mrn".into(),
        join: false,
        clues: Vec::new(),
        disagreement: Disagreement::Refuse,
    };
    let who = json!({ "resourceType": "Patient", "identifier": [{ "system": "urn:mrn", "value": "1" }] });
    Change::new(Action::Instance(Box::new(Instance {
        uid: sop.into(),
        sop_class: "1.2.840.10008.5.1.4.1.1.2".into(),
        transfer_syntax: "1.2.840.10008.1.2.1".into(),
        elements: serde_json::Map::new(),
        dataset_bytes: 1,
        dataset_sha256: blob.0,
        blob: blob.0,
        blob_bytes: 1,
        series: Series { uid: format!("{study}.1"), elements: serde_json::Map::new() },
        study: Study {
            uid: study.into(),
            patient: Some((numbers, Resource::from_value(who).unwrap())),
            orders: Vec::new(),
            accession: None,
            elements: serde_json::Map::new(),
        },
    })))
}

#[tokio::test]
async fn the_images_of_a_study_that_was_deleted_go_and_those_of_others_stay() {
    let bench = Bench::open(json!({})).await;
    let (mut blobs, mut studies) = (Vec::new(), Vec::new());
    for (number, study) in [(1, "1.2"), (2, "1.2"), (3, "1.3")] {
        let mut writer = bench.store.blob_writer(&bench.site, Bytes::new()).await.unwrap();
        writer.write(format!("image {number}").as_bytes()).await.unwrap();
        let blob = writer.finish().await.unwrap().id;
        let original = Original {
            kind: OriginalKind::Dicom,
            blob: Some(blob),
            bytes: None,
            control: None,
            sha256: blob.0,
            ..engine::original(number)
        };
        let changes = vec![image(&format!("{study}.{number}"), study, blob)];
        bench.store.commit(&bench.site, original, changes, None).await.unwrap();
        let name = blob.hex();
        let path = bench.dir.path().join("sites/a/blobs").join(&name[..2]).join(name);
        std::fs::File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
        blobs.push(blob);
        studies.push(study);
    }
    let removed = bench.store.delete_study(&bench.site, "1.2", "somebody").await.unwrap();
    assert_eq!((removed.studies, removed.images), (1, 2));
    let row = bench.store.submission(&bench.site, removed.submission.unwrap()).await.unwrap().unwrap();
    assert_eq!((row.identity.as_deref(), row.versions), (Some("somebody"), 1));
    assert!(bench.store.instance(&bench.site, "1.2.1").await.unwrap().is_none());
    bench.store.forget_rejected(&bench.site).await.unwrap();
    for (blob, study) in blobs.iter().zip(studies) {
        let is_there = bench.store.blob(&bench.site, blob).await.unwrap().is_some();
        assert_eq!(is_there, study == "1.3", "{study}");
    }
    let again = bench.store.delete_study(&bench.site, "1.2", "somebody").await.unwrap();
    assert_eq!(again, StudyContents::default(), "there is nothing left, and no submission says so");
}

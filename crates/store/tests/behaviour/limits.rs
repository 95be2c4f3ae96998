//! What the store does at the limits of disk and time.

use bytes::Bytes;
use hilum_fhir::search::Query;
use hilum_fhir::{Action, Change, Issue, IssueCode, Resource, ResourceType, Timestamp};
use hilum_store::{
    BlobId, Config, Destination, DestinationState, ErrorKind, Original, OriginalKind, Site, Store, sha256,
};
use serde_json::json;

use crate::engine::config;

/// A store and its one site.
async fn open(config: Config) -> (Store, Site) {
    let store = Store::open(config).await.unwrap();
    store.control().put_site(serde_json::from_value(json!({ "id": "a" })).unwrap()).unwrap();
    let site = store.control().site("a").unwrap().unwrap();
    (store, site)
}

fn patient() -> Vec<Change> {
    let patient = json!({ "resourceType": "Patient", "name": [{ "family": "Doe" }] });
    vec![Change::new(Action::Create(Resource::from_value(patient).unwrap()))]
}

fn original(bytes: &[u8]) -> Original {
    Original {
        kind: OriginalKind::V2,
        listener: "test".into(),
        peer: None,
        identity: None,
        control: None,
        sha256: sha256(bytes),
        blob: None,
        bytes: Some(Bytes::copy_from_slice(bytes)),
        content_type: "application/hl7-v2",
        received: jiff::Timestamp::now().into(),
        report: None,
        about: Default::default(),
    }
}

fn destination(id: &str) -> Destination {
    Destination {
        reference: format!("Subscription/{id}"),
        cursor: 0,
        next_number: 1,
        state: DestinationState::Active,
        next_at: None,
        error: None,
        owner: None,
    }
}

fn issues() -> Vec<Issue> {
    vec![Issue::error(IssueCode::Structure, "bad").at("MSH")]
}

/// Submissions whose original is kept, newest first; all rejected ones still have their issues and answer.
async fn kept(store: &Store, site: &Site) -> Vec<u64> {
    let rows = store.submissions(site, None, 1000).await.unwrap();
    assert!(rows.iter().all(|row| row.accepted || (row.issues == issues() && row.answer.is_some())));
    let kept = rows.iter().filter(|row| row.bytes.is_some() || row.blob.is_some());
    kept.map(|row| row.sequence).collect()
}

#[tokio::test]
async fn the_oldest_rejected_originals_go_and_their_rows_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (store, site) = open(config(dir.path())).await;
    let now = jiff::Timestamp::now().as_microsecond();
    let quarantine = async |bytes: &[u8], days: i64| {
        let received = Timestamp::from_micros(now - days * 86_400_000_000);
        let original = Original { received, ..original(bytes) };
        store.quarantine(&site, original, &issues(), Some(Bytes::from_static(b"no"))).await.unwrap();
    };
    for n in 0..250_u32 {
        let body: Vec<u8> = (0..300_u32).map(|i| u8::try_from(i * (7 + n) % 251).unwrap()).collect();
        quarantine(&body, if n < 120 { 31 } else { 1 }).await;
    }
    quarantine(&[9; 50_000], 0).await;
    store.commit(&site, original(b"good"), patient(), None).await.unwrap();
    assert_eq!(store.forget_rejected(&site).await.unwrap(), 120, "by age");
    assert_eq!(store.forget_rejected(&site).await.unwrap(), 0);
    assert_eq!(kept(&store, &site).await, (121..=252).rev().collect::<Vec<u64>>());
    store.close().await;
    drop((store, site));

    let (store, site) = open(Config { quarantine_bytes_max: 55_000, ..config(dir.path()) }).await;
    assert!(store.forget_rejected(&site).await.unwrap() > 100, "by size");
    let left = kept(&store, &site).await;
    assert!(left.len() > 2 && left.starts_with(&[252, 251, 250]), "the newest stay: {left:?}");
    let rows = store.submissions(&site, None, 2).await.unwrap();
    assert!(store.blob(&site, &rows[1].blob.unwrap()).await.unwrap().is_some());
    store.close().await;
    drop((store, site));

    let (store, site) = open(Config { quarantine_bytes_max: 0, ..config(dir.path()) }).await;
    store.forget_rejected(&site).await.unwrap();
    assert_eq!(kept(&store, &site).await, [252], "what was accepted is never touched");
}

/// A blob refused first and taken later belongs to both.
#[tokio::test]
async fn the_file_of_a_forgotten_original_goes_when_nobody_else_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let (store, site) = open(Config { quarantine_bytes_max: 0, ..config(dir.path()) }).await;
    let (shared, alone) = (original(&[1; 50_000]), original(&[2; 50_000]));
    for rejected in [&shared, &alone] {
        store.quarantine(&site, rejected.clone(), &issues(), None).await.unwrap();
    }
    store.commit(&site, shared, patient(), None).await.unwrap();
    let rows = store.submissions(&site, None, 10).await.unwrap();
    let (shared, alone) = (rows[0].blob.unwrap(), rows[1].blob.unwrap());
    let path = |blob: &BlobId| {
        let name = blob.hex();
        dir.path().join("sites/a/blobs").join(&name[..2]).join(name)
    };
    assert_eq!(store.forget_rejected(&site).await.unwrap(), 2);
    assert!(path(&alone).exists(), "it is so new that it may be sent again just now");
    for blob in [&shared, &alone] {
        let file = std::fs::File::options().write(true).open(path(blob)).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    }
    assert_eq!(store.forget_rejected(&site).await.unwrap(), 0);
    assert!(path(&shared).exists() && !path(&alone).exists());
}

#[tokio::test]
async fn without_room_for_blobs_only_what_is_large_is_deferred() {
    let dir = tempfile::tempdir().unwrap();
    let (store, site) = open(Config { blobs_free_bytes_min: u64::MAX, ..config(dir.path()) }).await;
    let large = original(&[7; 100_000]);
    let refused = store.commit(&site, large.clone(), patient(), None).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::Full);
    assert_eq!(store.quarantine(&site, large, &issues(), None).await.unwrap_err().kind, ErrorKind::Full);
    assert_eq!(store.blob_writer(&site, Bytes::new()).await.unwrap_err().kind, ErrorKind::Full);
    assert!(store.commit(&site, original(b"small"), patient(), None).await.is_ok());
    assert!(store.accepting(&site).is_ok());
}

#[tokio::test]
async fn a_nearly_full_disk_is_told_to_every_sender_and_deliveries_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (store, site) = open(Config { free_bytes_min: u64::MAX, ..config(dir.path()) }).await;
    for _ in 0..3 {
        let error = store.commit(&site, original(b"x"), patient(), None).await.unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Full, "the disk is nearly full"));
    }
    assert_eq!(store.accepting(&site).unwrap_err().kind, ErrorKind::Full);
    let all = Query::all(ResourceType::from_name("Patient").unwrap());
    assert!(store.search(&site, &all, None).await.unwrap().matches.is_empty(), "reads go on");
    store.put_destination(&site, destination("1")).await.unwrap();
    assert_eq!(store.destinations(&site).await.unwrap().len(), 1);
}

#[tokio::test]
async fn of_a_backlog_beyond_its_bounds_the_oldest_are_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let (store, site) = open(config(dir.path())).await;
    let mut matches = Vec::new();
    for position in 1..=1200 {
        if position <= 10 {
            store.commit(&site, original(b"x"), patient(), None).await.unwrap();
        }
        matches.push(("Subscription/1".to_owned(), position));
    }
    matches.push(("Subscription/2".to_owned(), 1));
    for id in ["1", "2"] {
        store.put_destination(&site, destination(id)).await.unwrap();
    }
    store.matched(&site, matches, Vec::new()).await.unwrap();
    let give_up = async |rows_max, before| {
        store.give_up_oldest(&site, "Subscription/1", rows_max, before, "too many").await.unwrap()
    };
    let first = async || {
        let next = store.next_delivery(&site, "Subscription/1").await.unwrap();
        next.map(|delivery| delivery.number)
    };
    assert_eq!((give_up(1200, 0).await, first().await), (0, Some(1)), "within both");
    assert_eq!((give_up(1195, 0).await, first().await), (5, Some(6)), "five too many");
    assert_eq!((give_up(1200, i64::MAX).await, first().await), (5, Some(11)), "those whose version is old");
    assert_eq!((give_up(3, 0).await, first().await), (1187, Some(1198)), "more than one transaction takes");
    assert_eq!((give_up(0, 0).await, first().await), (3, None));
    let other = store.next_delivery(&site, "Subscription/2").await.unwrap();
    assert_eq!(other.map(|delivery| delivery.number), Some(1), "another destination is left alone");
}

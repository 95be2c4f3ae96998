//! Backup while writes go on, restore elsewhere, and what `fsck` finds.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod engine;

use std::path::Path;

use engine::{config, submit};
use hilum_fhir::imaging::{Instance, Series, Study};
use hilum_fhir::search::{Context, Options, Query, decode_pairs};
use hilum_fhir::{Action, Change, ResourceType, Timestamp};
use hilum_store::{Checks, Config, Original, Site, Store, backup, fsck, restore};
use serde_json::{Map, json};

async fn open(dir: &Path) -> (Store, Site) {
    let store = Store::open(config(dir)).await.unwrap();
    store.control().put_site(serde_json::from_value(json!({ "id": "north" })).unwrap()).unwrap();
    let site = store.control().site("north").unwrap().unwrap();
    (store, site)
}

async fn count(store: &Store, site: &Site, text: &str) -> usize {
    let of = ResourceType::from_name("Patient").unwrap();
    let options = Options {
        strict: true,
        condition: false,
        bases: &[],
        count_max: 1000,
        parameters_max: 64,
        or_values_max: 500,
        chain_depth_max: 4,
    };
    let context = Context { zone: jiff::tz::TimeZone::UTC, now: Timestamp::from_micros(0) };
    let query = Query::parse(of, &decode_pairs(text), &options, &context).unwrap().0;
    store.search(site, &query, None).await.unwrap().matches.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_made_while_writes_go_on_restores_to_a_whole_store() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out, elsewhere) = (dir.path().join("data"), dir.path().join("out"), dir.path().join("new"));
    let (store, site) = open(&data).await;
    for number in 0..20 {
        submit(&store, &site, number).await;
    }
    let writing = tokio::spawn({
        let (store, site) = (store.clone(), site.clone());
        async move {
            for number in 20..60 {
                submit(&store, &site, number).await;
            }
        }
    });
    let copying = {
        let (data, out) = (data.clone(), out.clone());
        move || {
            backup(&config(&data), &out, &mut |_| {}).unwrap();
            // again into the same folder: what is there already is not copied twice
            backup(&config(&data), &out, &mut |_| {}).unwrap()
        }
    };
    let manifest = tokio::task::spawn_blocking(copying).await.unwrap();
    writing.await.unwrap();
    assert!(manifest.sites[0].newest >= 20 && manifest.sites[0].blobs >= 20, "{manifest:?}");

    assert!(restore(&config(&data), &out, &mut |_| {}).unwrap_err().message.contains("not empty"));
    restore(&config(&elsewhere), &out, &mut |_| {}).unwrap();
    let found = fsck(&config(&elsewhere), Checks { deep: true, rebuild: false }).unwrap();
    assert!(found[0].faults.is_empty(), "{:?}", found[0].faults);
    assert_eq!((found[0].resources, found[0].blobs), (manifest.sites[0].newest, manifest.sites[0].blobs));
    let (restored, site) = open(&elsewhere).await;
    assert_eq!(count(&restored, &site, "gender=other&_count=1000").await as u64, manifest.sites[0].newest);
    assert_eq!(count(&restored, &site, "name=family7").await, 1);
}

/// Path of the blob of the newest submission.
async fn newest_blob(store: &Store, site: &Site, data: &Path) -> std::path::PathBuf {
    let row = store.submissions(site, None, 1).await.unwrap().remove(0);
    let name = row.blob.unwrap().hex();
    data.join("sites/north/blobs").join(&name[..2]).join(name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_forgets_what_the_edge_forgets_while_it_copies() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out, elsewhere) = (dir.path().join("data"), dir.path().join("out"), dir.path().join("new"));
    let forgetful = Config { quarantine_bytes_max: 0, ..config(&data) };
    let store = Store::open(forgetful).await.unwrap();
    store.control().put_site(serde_json::from_value(json!({ "id": "north" })).unwrap()).unwrap();
    let site = store.control().site("north").unwrap().unwrap();
    submit(&store, &site, 1).await;
    let rejected = store.quarantine(&site, engine::original(2), &[], None).await.unwrap();
    let blob = newest_blob(&store, &site, &data).await;
    let file = std::fs::File::options().write(true).open(&blob).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();

    let sweeping = (store.clone(), site.clone(), tokio::runtime::Handle::current());
    let copying = {
        let (data, out) = (data.clone(), out.clone());
        move || {
            let (store, site, runtime) = sweeping;
            // the databases are copied, the blobs are not
            backup(&config(&data), &out, &mut |line| {
                if line.contains("blobs 0/") {
                    assert_eq!(runtime.block_on(store.forget_rejected(&site)).unwrap(), 1);
                }
            })
            .unwrap()
        }
    };
    let manifest = tokio::task::spawn_blocking(copying).await.unwrap();
    assert!(!blob.exists() && manifest.sites[0].blobs == 1, "{manifest:?}");
    restore(&config(&elsewhere), &out, &mut |_| {}).unwrap();
    let found = fsck(&config(&elsewhere), Checks { deep: true, rebuild: false }).unwrap();
    assert!(found[0].faults.is_empty(), "{:?}", found[0].faults);
    let (restored, site) = open(&elsewhere).await;
    let row = restored.submission(&site, rejected).await.unwrap().unwrap();
    assert!(row.blob.is_none() && !row.accepted, "its row stays");
}

/// A study with one image, whose blob is its original. Path of the blob.
async fn submit_image(store: &Store, site: &Site, data: &Path) -> std::path::PathBuf {
    let writer = store.blob_writer(site, bytes::Bytes::from_static(b"an image")).await.unwrap();
    let blob = writer.finish().await.unwrap();
    let study = Study {
        uid: "1.2.1".into(),
        patient: None,
        accession: None,
        orders: Vec::new(),
        elements: Map::new(),
    };
    let instance = Instance {
        uid: "1.2.3".into(),
        sop_class: "1.2.840.10008.5.1.4.1.1.2".into(),
        transfer_syntax: "1.2.840.10008.1.2.1".into(),
        elements: Map::new(),
        dataset_bytes: blob.bytes,
        dataset_sha256: blob.body_sha256,
        blob: blob.id.0,
        blob_bytes: blob.bytes,
        series: Series { uid: "1.2.2".into(), elements: Map::new() },
        study,
    };
    let original = Original { blob: Some(blob.id), bytes: None, ..engine::original(0) };
    let change = Change::new(Action::Instance(Box::new(instance)));
    store.commit(site, original, vec![change], None).await.unwrap();
    newest_blob(store, site, data).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_has_no_study_that_is_removed_while_it_copies() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out, elsewhere) = (dir.path().join("data"), dir.path().join("out"), dir.path().join("new"));
    let (store, site) = open(&data).await;
    submit(&store, &site, 1).await;
    let image = submit_image(&store, &site, &data).await;
    let file = std::fs::File::options().write(true).open(&image).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();

    let removing = (store.clone(), site.clone(), tokio::runtime::Handle::current());
    let copying = {
        let (data, out, image) = (data.clone(), out.clone(), image.clone());
        move || {
            let (store, site, runtime) = removing;
            // the database is copied, the blobs are not
            backup(&config(&data), &out, &mut |line| {
                if line.contains("blobs 0/") && image.exists() {
                    assert_eq!(
                        runtime.block_on(store.delete_study(&site, "1.2.1", "a test")).unwrap().studies,
                        1
                    );
                    runtime.block_on(store.forget_rejected(&site)).unwrap();
                    assert!(!image.exists());
                }
            })
            .unwrap()
        }
    };
    let manifest = tokio::task::spawn_blocking(copying).await.unwrap();
    assert_eq!(manifest.sites[0].blobs, 1, "{manifest:?}");
    restore(&config(&elsewhere), &out, &mut |_| {}).unwrap();
    let found = fsck(&config(&elsewhere), Checks { deep: true, rebuild: false }).unwrap();
    assert!(found[0].faults.is_empty(), "{:?}", found[0].faults);
    let (restored, site) = open(&elsewhere).await;
    assert!(restored.instance(&site, "1.2.3").await.unwrap().is_none());
    assert_eq!(count(&restored, &site, "name=family1").await, 1);
}

#[tokio::test]
async fn a_backup_without_a_blob_that_is_needed_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (dir.path().join("data"), dir.path().join("out"));
    let (store, site) = open(&data).await;
    submit(&store, &site, 1).await;
    std::fs::remove_file(newest_blob(&store, &site, &data).await).unwrap();
    let error = backup(&config(&data), &out, &mut |_| {}).unwrap_err();
    assert!(error.message.contains("missing"), "{}", error.message);
    assert!(!out.join("manifest.json").exists());
}

#[tokio::test]
async fn a_damaged_backup_is_not_restored() {
    let dir = tempfile::tempdir().unwrap();
    let (data, out) = (dir.path().join("data"), dir.path().join("out"));
    let (store, site) = open(&data).await;
    submit(&store, &site, 1).await;
    backup(&config(&data), &out, &mut |_| {}).unwrap();
    let copy = out.join("sites/north/site.db");
    let mut bytes = std::fs::read(&copy).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&copy, bytes).unwrap();
    let error = restore(&config(&dir.path().join("new")), &out, &mut |_| {}).unwrap_err();
    assert!(error.message.contains("damaged"), "{}", error.message);
    std::fs::remove_file(out.join("manifest.json")).unwrap();
    let error = restore(&config(&dir.path().join("newer")), &out, &mut |_| {}).unwrap_err();
    assert!(error.message.contains("no whole backup"), "{}", error.message);
}

#[tokio::test]
async fn fsck_tells_a_counter_that_would_give_numbers_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, site) = open(dir.path()).await;
    submit(&store, &site, 1).await;
    assert!(fsck(&config(dir.path()), Checks::default()).unwrap()[0].faults.is_empty());
    engine::execute(dir.path(), "north", "UPDATE counter SET given=0 WHERE name='seq'");
    let faults = fsck(&config(dir.path()), Checks::default()).unwrap().remove(0).faults;
    assert_eq!(faults, ["the counter of submissions says 0 and there is number 1"]);
}

#[tokio::test]
async fn the_index_of_files_in_use_is_not_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, site) = open(dir.path()).await;
    submit(&store, &site, 1).await;
    assert_eq!(fsck(&config(dir.path()), Checks::default()).unwrap()[0].site, site.id());
    let rebuild = Checks { rebuild: true, deep: false };
    assert!(fsck(&config(dir.path()), rebuild).unwrap_err().message.contains("another edge"));
}

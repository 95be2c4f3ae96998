//! The behaviour of the store on SQLite, what `fsck` finds in files, and what is true of files alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod behaviour;
mod engine;
#[path = "behaviour/fsck.rs"]
mod fsck;

use std::time::Duration;

use engine::{config, execute, submit};
use hilum_store::{Health, Store};
use serde_json::json;

/// What a damaged file does to the writes of its site: every commit fails, and so does every probe.
const DAMAGE: &str = "ALTER TABLE counter RENAME TO counter_away";
const REPAIR: &str = "ALTER TABLE counter_away RENAME TO counter";

#[tokio::test]
async fn a_site_whose_file_is_damaged_takes_no_writes_whatever_its_neighbour_does() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(config(dir.path())).await.unwrap();
    for id in ["a", "b"] {
        store.control().put_site(serde_json::from_value(json!({ "id": id })).unwrap()).unwrap();
    }
    let site = |id: &str| store.control().site(id).unwrap().unwrap();
    let (damaged, healthy) = (site("a"), site("b"));
    submit(&store, &damaged, 1).await;
    execute(dir.path(), "a", DAMAGE);
    assert!(store.quarantine(&damaged, engine::original(2), &[], None).await.is_err());

    // longer than the writer of the neighbour waits before it looks at its disk again
    for number in 0..15 {
        submit(&store, &healthy, number).await;
        assert!(store.accepting(&healthy).is_ok());
        assert!(store.accepting(&damaged).is_err());
        assert!(matches!(store.health(), Health::NotAccepting(_)), "ready = all sites");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    execute(dir.path(), "a", REPAIR);
    let opens = async {
        while store.accepting(&damaged).is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), opens).await.expect("the gate stays closed");
    submit(&store, &damaged, 3).await;
    assert_eq!(store.health(), Health::Accepting);
}

//! The engine that the tests of this binary run on: PostgreSQL and memory in the binaries named after them, SQLite in all others.

#![allow(dead_code, reason = "each test uses its part")]

#[path = "../../../../tests/harness/cluster.rs"]
pub(crate) mod cluster;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};

use bytes::Bytes;
use hilum_fhir::{Action, Change, Resource, Timestamp};
use hilum_store::{Config, Memory, Original, OriginalKind, PostgresConfig, Site, Store, sha256};
use serde_json::json;

/// The memory of a store is that of its folder: who opens it again finds what was there.
static MEMORIES: LazyLock<Mutex<HashMap<PathBuf, Memory>>> = LazyLock::new(Mutex::default);

/// A store that belongs to a folder.
pub(crate) fn config(dir: &Path) -> Config {
    let on_server = env!("CARGO_CRATE_NAME") == "postgresql";
    let in_memory = env!("CARGO_CRATE_NAME") == "memory";
    let memory = || MEMORIES.lock().unwrap().entry(dir.to_owned()).or_default().clone();
    Config {
        memory: in_memory.then(memory),
        postgres: on_server.then(|| PostgresConfig::new(cluster::Cluster::shared().url(dir))),
        free_bytes_min: 0,
        blobs_free_bytes_min: 0,
        cache_bytes: 16 << 20,
        ..Config::new(dir.to_owned())
    }
}

/// Runs statements in the database behind the store of a folder, on the rows of a site.
pub(crate) fn execute(dir: &Path, site: &str, sql: &str) {
    if env!("CARGO_CRATE_NAME") == "postgresql" {
        let cluster = cluster::Cluster::shared();
        let database = cluster.database(dir);
        let number = cluster.psql("edge", &database, &format!("SELECT no FROM site WHERE id='{site}'"));
        cluster.psql("edge", &database, &format!("SET hilum.site='{number}'; {sql}"));
    } else {
        let file = dir.join("sites").join(site).join("site.db");
        rusqlite::Connection::open(file).unwrap().execute_batch(sql).unwrap();
    }
}

/// What a peer sent, large enough to be a blob.
pub(crate) fn original(number: usize) -> Original {
    let bytes = Bytes::from(format!("MSH|{number}|").into_bytes().repeat(4_000));
    Original {
        kind: OriginalKind::V2,
        listener: "test".into(),
        peer: None,
        identity: None,
        control: None,
        sha256: sha256(&bytes),
        blob: None,
        bytes: Some(bytes),
        content_type: "x",
        received: Timestamp::from_micros(1),
        report: None,
        about: Default::default(),
    }
}

/// A submission of one patient, with an original large enough to be a blob.
pub(crate) async fn submit(store: &Store, site: &Site, number: usize) {
    let patient = json!({ "resourceType": "Patient", "name": [{ "family": format!("Family{number}") }],
        "gender": "other", "birthDate": "1960-01-01" });
    let change = Change::new(Action::Create(Resource::from_value(patient).unwrap()));
    store.commit(site, original(number), vec![change], None).await.unwrap();
}

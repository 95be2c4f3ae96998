//! The engine that the tests of this binary run on: PostgreSQL in the binary named after it, SQLite in all others.

#![allow(dead_code, reason = "each test uses its part")]

#[path = "../../../../tests/harness/cluster.rs"]
pub(crate) mod cluster;

use std::path::Path;

use hilum_store::{Config, PostgresConfig};

/// A store that belongs to a folder.
pub(crate) fn config(dir: &Path) -> Config {
    let on_server = env!("CARGO_CRATE_NAME") == "postgresql";
    Config {
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

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

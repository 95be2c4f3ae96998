//! Everything of a site but its blobs, as rows. The only crate with SQL.
//!
//! [`face`] is what is asked and written, a trait for each group of tables; [`row`] what goes in and out. `sqlite/` and `postgres/` answer it with
//! hand-written SQL, statement by statement, `memory/` with maps. A write is a [`Job`]: the writer of an engine runs it within its next transaction and answers it
//! when that is durable, without knowing what it is about.
//!
//! Engines are named here and nowhere above: [`open`], [`open_control`], [`check`], [`files`].

pub mod body;
mod carried;
mod check;
mod control;
mod engine;
mod error;
pub mod face;
mod folder;
mod gate;
mod jobs;
pub mod keys;
mod memory;
mod postgres;
pub mod row;
mod sqlite;
pub mod stored;
mod types;

use std::sync::Arc;

use engine::Place;
use gate::ALL_SITES;

pub use check::{Checks, Findings, Shelf};
pub use control::{ApiKey, ControlListener, ControlRows, Kept};
pub use engine::{Config, Engine, OpenSite, Reading, SiteDatabase};
pub use error::{Error, ErrorKind};
pub use face::{Db, Reads, Tx};
pub use folder::{free_bytes, lock, probe};
pub use gate::{Gate, Gates};
pub use hilum_blobs::BlobId;
pub use jobs::{Job, broken_off};
pub use memory::Memory;
pub use postgres::PostgresConfig;
pub use sqlite::files;
pub use types::{
    Delivery, DeliveryState, Destination, DestinationState, FeedEntry, Health, InstanceFile, Operation,
    Version,
};

/// Opens the engine of a configuration. Whether it takes writes is told by `gates`; `control` hears what other edges change. Blocks.
///
/// # Errors
/// `Unavailable` with what is wrong; a server is named without its password.
pub fn open(
    config: &Config,
    gates: &Arc<Gates>,
    control: Arc<dyn ControlListener>,
) -> Result<Box<dyn Engine>, Error> {
    Ok(match config.place() {
        Place::Files => Box::new(sqlite::SiteFiles::new(config, gates)),
        Place::Server(of) => Box::new(postgres::Server::open(config, of, gates.gate(ALL_SITES), control)?),
        Place::Memory(of) => Box::new(memory::Sites::new(of, config, gates)),
    })
}

/// Refuses to make files where an edge was expected to have some.
///
/// # Errors
/// `Unavailable` when there is no store in the data folder.
pub fn expect_there(config: &Config) -> Result<(), Error> {
    let is_in_files = matches!(config.place(), Place::Files);
    if !is_in_files || config.data_dir.join(files::CONTROL_FILE).exists() {
        return Ok(());
    }
    let data = config.data_dir.display();
    Err(Error::unavailable(format!(
        "there is no store in {data}; name the configuration of the edge (--config FILE)"
    )))
}

/// Opens (creates, migrates) what holds site settings and API keys. Blocks.
///
/// # Errors
/// `Unavailable` when it cannot be used or is of a newer version.
pub fn open_control(config: &Config) -> Result<Box<dyn ControlRows>, Error> {
    Ok(match config.place() {
        Place::Files => Box::new(sqlite::ControlFile::open(&config.data_dir)?),
        Place::Server(of) => Box::new(postgres::ControlTables::open(of)?),
        Place::Memory(of) => Box::new(memory::ControlMemory::open(of)),
    })
}

/// Checks the rows of every site, and the blobs they refer to on `shelf`. Works beside a running edge. Blocks.
///
/// # Errors
/// `Unavailable` when a database cannot be read at all, or may not be changed as `rebuild` asks.
pub fn check(config: &Config, checks: Checks, shelf: &dyn Shelf) -> Result<Vec<Findings>, Error> {
    match config.place() {
        Place::Files => sqlite::fsck(config, checks, shelf),
        Place::Server(of) => postgres::fsck(of, checks, shelf),
        Place::Memory(of) => memory::fsck(of, checks, shelf),
    }
}

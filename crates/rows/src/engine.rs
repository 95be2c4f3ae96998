//! What an engine is: the databases of all sites, each read by many and written by one.

use std::sync::Arc;

use jiff::tz::TimeZone;
use tokio::sync::{Semaphore, watch};

use crate::face::Db;
use crate::gate::Gate;
use crate::jobs::Job;
use crate::{Error, Memory, PostgresConfig};

/// How an engine is opened.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder of the edge; an engine that keeps files keeps them here.
    pub data_dir: std::path::PathBuf,
    /// The server that holds the rows; `None` = files below the data folder.
    pub postgres: Option<PostgresConfig>,
    /// The memory that holds the rows, instead of a server or files.
    pub memory: Option<Memory>,
    /// Largest number of jobs in one write transaction.
    pub batch_jobs_max: usize,
    /// Largest number of bytes in one write transaction.
    pub batch_bytes_max: usize,
    /// Largest number of jobs waiting for a writer; more are refused as `Unavailable`.
    pub queue_jobs_max: usize,
    /// Largest number of bytes waiting for a writer.
    pub queue_bytes_max: usize,
    /// Below this many free bytes on the file system writes are refused as `Full`.
    pub free_bytes_min: u64,
    /// Page cache of one site's writer, in bytes.
    pub cache_bytes: u64,
    /// Whether an edge may be using the files: nothing is created, migrated or written then. A server takes several edges.
    pub is_beside: bool,
}

/// The engine of a configuration.
pub(crate) enum Place<'c> {
    Files,
    Server(&'c PostgresConfig),
    Memory(&'c Memory),
}

impl Config {
    /// Files below a folder of a test.
    #[cfg(test)]
    pub(crate) fn of_test(data_dir: &std::path::Path) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            postgres: None,
            memory: None,
            batch_jobs_max: 512,
            batch_bytes_max: 4 << 20,
            queue_jobs_max: 1024,
            queue_bytes_max: 64 << 20,
            free_bytes_min: 0,
            cache_bytes: 1 << 20,
            is_beside: false,
        }
    }

    pub(crate) fn place(&self) -> Place<'_> {
        match (&self.memory, &self.postgres) {
            (Some(memory), _) => Place::Memory(memory),
            (None, Some(server)) => Place::Server(server),
            (None, None) => Place::Files,
        }
    }
}

/// The databases of all sites.
pub trait Engine: Send + Sync {
    /// Opens (creates, migrates) the database of a site and starts its writer. `zone` is that of dates without one, should the index be made
    /// again. Blocks.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be used or is of a newer version.
    fn site(&self, id: &str, zone: &TimeZone) -> Result<OpenSite, Error>;

    /// Ends what serves all sites, after each of them is closed. Blocks.
    fn close(&self);
}

/// The database of a site that was opened.
pub struct OpenSite {
    /// The database.
    pub database: Box<dyn SiteDatabase>,
    /// Key of the cursors.
    pub secret: [u8; 32],
    /// The newest feed position; changes after each commit.
    pub newest: watch::Receiver<u64>,
    /// Whether the database takes writes.
    pub gate: Arc<Gate>,
}

/// The epoch of the only edge there is.
pub(crate) const ONLY_EPOCH: i64 = 0;

/// What is read from a connection; called once.
pub type Reading<'w> = &'w mut dyn FnMut(Db<'_>) -> Result<(), Error>;

/// The database of one site.
pub trait SiteDatabase: Send + Sync {
    /// Runs reads, each statement for itself. Blocks.
    ///
    /// # Errors
    /// That of `reading`; `Unavailable` when there is no connection.
    fn read(&self, reading: Reading<'_>) -> Result<(), Error>;

    /// As [`SiteDatabase::read`], and all that is read is of one moment; what is foreseen may be of a moment before.
    ///
    /// # Errors
    /// As [`SiteDatabase::read`].
    fn snapshot(&self, reading: Reading<'_>) -> Result<(), Error>;

    /// Puts a job into the queue of the writer, which runs it in its next transaction and answers it when that is durable.
    ///
    /// # Errors
    /// `Unavailable` when the queue is full.
    fn send(&self, job: Job) -> Result<(), Error>;

    /// The turns to read, where reads wait for another machine: a thread that reads is not begun before there is a connection for it. `None` =
    /// reads are answered from memory, on any thread.
    fn turns(&self) -> Option<Arc<Semaphore>>;

    /// Whether several edges may write to it.
    fn is_shared(&self) -> bool;

    /// The epoch under which this edge delivers to a destination, which begins when it takes the destination over; `None` = another edge
    /// delivers. Always the same where there is only one edge. May block.
    ///
    /// # Errors
    /// `Unavailable`.
    fn epoch(&self, destination: &str) -> Result<Option<i64>, Error>;

    /// Lets the queue run empty and ends the writer. Blocks.
    fn close(&self);
}

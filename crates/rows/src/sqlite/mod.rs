//! One SQLite file for each site: a writer thread with natural group commit, and a few read-only connections.

mod checkpoint;
mod control;
pub mod files;
mod fsck;
mod imaging;
mod migrate;
mod outbox;
mod quarantine;
mod retention;
mod rows;
mod submission;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::tz::TimeZone;
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{Semaphore, watch};

pub(crate) use control::ControlFile;
pub(crate) use fsck::fsck;
use rows::counters;
use writer::{Writer, keep_plans};

use crate::engine::ONLY_EPOCH;
use crate::face::{Reads, Tx};
use crate::gate::{Gate, Gates};
use crate::jobs::Job;
use crate::{Config, Engine, Error, OpenSite, Reading, SiteDatabase};

const READERS_MAX: usize = 16;
const STATEMENTS_MAX: usize = 128;
const READ_CACHE_KIB: i64 = 4096;

/// The files of all sites, below a data folder.
pub(crate) struct SiteFiles {
    config: Config,
    gates: Arc<Gates>,
}

impl SiteFiles {
    pub(crate) fn new(config: &Config, gates: &Arc<Gates>) -> Self {
        Self { config: config.clone(), gates: gates.clone() }
    }
}

impl Engine for SiteFiles {
    fn site(&self, id: &str, zone: &TimeZone) -> Result<OpenSite, Error> {
        let dir = self.config.data_dir.join(files::SITES).join(id);
        std::fs::create_dir_all(&dir)?;
        let gate = self.gates.gate(&format!("site {id}"));
        let (file, secret, newest) = SiteFile::open(&self.config, id, &dir, zone, gate.clone())?;
        Ok(OpenSite { database: Box::new(file), secret, newest, gate })
    }

    /// Each site has a writer of its own.
    fn close(&self) {}
}

/// The file of one site.
pub(crate) struct SiteFile {
    path: PathBuf,
    readers: Mutex<Vec<Connection>>,
    writer: Writer,
    /// An edge may be using the file: it is only read.
    is_beside: bool,
}

impl SiteDatabase for SiteFile {
    fn read(&self, reading: Reading<'_>) -> Result<(), Error> {
        self.read(|connection| reading(connection))
    }

    fn snapshot(&self, reading: Reading<'_>) -> Result<(), Error> {
        self.snapshot(|connection| reading(connection))
    }

    fn send(&self, job: Job) -> Result<(), Error> {
        if self.is_beside {
            // its numbers are given out by the edge that has the lock
            return Err(Error::unavailable(
                "only the edge that has the lock of the data folder writes to it",
            ));
        }
        self.writer.send(job)
    }

    fn turns(&self) -> Option<Arc<Semaphore>> {
        None
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn epoch(&self, _: &str) -> Result<Option<i64>, Error> {
        Ok(Some(ONLY_EPOCH))
    }

    fn close(&self) {
        self.writer.close();
    }
}

impl Reads for Connection {}
impl Tx for Connection {}

impl SiteFile {
    /// Opens (creates, migrates) `site.db` in a folder and starts its writer. Returns the key of its cursors and its feed position too.
    pub(crate) fn open(
        config: &Config,
        site: &str,
        dir: &Path,
        zone: &TimeZone,
        gate: Arc<Gate>,
    ) -> Result<(Self, [u8; 32], watch::Receiver<u64>), Error> {
        let path = dir.join(files::SITE_FILE);
        if config.is_beside && !path.exists() {
            return Err(Error::unavailable("the site has no database yet; the edge makes it when it starts"));
        }
        let connection = writer::open(&path, config.cache_bytes)?;
        let secret = if config.is_beside {
            migrate::as_it_is(&connection)?
        } else {
            migrate::migrate(&connection, site, zone)?
        };
        let counters = counters(&connection)?;
        let (newest_in, newest) = watch::channel(counters.vid);
        let writer = Writer::start(site, path.clone(), connection, counters, config, gate, newest_in)?;
        let is_beside = config.is_beside;
        Ok((Self { path, readers: Mutex::new(Vec::new()), writer, is_beside }, secret, newest))
    }

    /// Runs a read on one of the read-only connections.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        let pooled = self.readers.lock().pop();
        let connection = match pooled {
            Some(connection) => connection,
            None => self.reader()?,
        };
        let done = work(&connection);
        let mut readers = self.readers.lock();
        if readers.len() < READERS_MAX {
            readers.push(connection);
        }
        done
    }

    /// As [`SiteFile::read`], in one transaction.
    pub(crate) fn snapshot<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        self.read(|connection| {
            connection.prepare_cached("BEGIN")?.execute([])?;
            let done = work(connection);
            connection.prepare_cached("COMMIT")?.execute([])?;
            done
        })
    }

    fn reader(&self) -> Result<Connection, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        keep_plans(&connection)?;
        connection.execute_batch(&format!(
            "PRAGMA query_only=ON; PRAGMA busy_timeout=5000; PRAGMA cache_size=-{READ_CACHE_KIB};"
        ))?;
        Ok(connection)
    }
}

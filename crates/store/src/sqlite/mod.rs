//! One SQLite file for each site: a writer thread with natural group commit, and a few read-only connections.

mod apply;
mod backup;
mod body;
mod cursor;
mod fsck;
mod imaging;
mod keys;
mod lookup;
mod migrate;
mod outbox;
mod plan;
mod quarantine;
mod read;
mod search;
mod submission;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;

use jiff::tz::TimeZone;
use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::watch;

pub use backup::{Manifest, SiteCopy, backup, restore};
pub use fsck::{Checks, Findings, fsck};
pub(crate) use outbox::{beyond, destinations, next as next_delivery};
pub(crate) use plan::plan_apart;
pub(crate) use quarantine::{BATCH as QUARANTINE_BATCH, orphans};
pub(crate) use read::{current, feed, history, version};
pub(crate) use search::search;
pub(crate) use submission::{
    INLINE_BYTES_MAX, Packed, newest as newest_submissions, of as submissions_of, one as submission,
};
use writer::Writer;
pub(crate) use writer::{Gate, probe};

use crate::blobs::Blobs;
use crate::{Config, Error, ErrorKind, Site};

const READERS_MAX: usize = 16;
const STATEMENTS_MAX: usize = 128;
const READ_CACHE_KIB: i64 = 4096;

/// The database of one site.
pub(crate) struct SiteDb {
    path: PathBuf,
    pub(crate) config: Config,
    /// The site's zone, for dates without one.
    pub(crate) zone: TimeZone,
    pub(crate) blobs: Blobs,
    readers: Mutex<Vec<Connection>>,
    pub(crate) writer: Writer,
    pub(crate) newest: watch::Receiver<u64>,
    /// Key of the cursors.
    secret: [u8; 32],
}

impl SiteDb {
    /// Opens (creates, migrates) `sites/{id}/site.db` and starts its writer.
    pub(crate) fn open(
        config: &Config,
        site: &Site,
        blobs: Blobs,
        gate: Arc<Gate>,
    ) -> Result<Arc<Self>, Error> {
        let dir = config.data_dir.join("sites").join(site.id());
        std::fs::create_dir_all(&dir)?;
        let path = dir.join("site.db");
        let zone = TimeZone::get(&site.settings().timezone).unwrap_or(TimeZone::UTC);
        let connection = writer::open(&path, config.cache_bytes)?;
        let secret = migrate::migrate(&connection, &zone)?;
        let counters = apply::Counters::read(&connection)?;
        let (newest_in, newest) = watch::channel(counters.vid);
        let context = apply::SiteContext { zone: zone.clone() };
        let writer =
            Writer::start(site.id(), path.clone(), connection, counters, context, config, gate, newest_in)?;
        Ok(Arc::new(Self {
            path,
            config: config.clone(),
            zone,
            blobs,
            readers: Mutex::new(Vec::new()),
            writer,
            newest,
            secret,
        }))
    }

    /// Whether a blob may be begun.
    ///
    /// # Errors
    /// `Full`: what is left is for rows and deliveries.
    pub(crate) fn room(&self) -> Result<(), Error> {
        if writer::free_bytes(&self.path) >= self.config.blobs_free_bytes_min {
            return Ok(());
        }
        metrics::counter!("hilum_blobs_refused_total").increment(1);
        let error = Error::unavailable("the disk of the blobs is nearly full");
        Err(Error { kind: ErrorKind::Full, ..error })
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

/// Keeps the plan of a prepared statement whatever is bound to it; else SQLite parses a statement with `LIMIT ?` again each time.
fn keep_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

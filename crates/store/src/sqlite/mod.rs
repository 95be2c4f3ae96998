//! One SQLite file for each site: a writer thread with natural group commit, and a few read-only connections.

mod backup;
mod control;
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

use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use tokio::sync::watch;

pub use backup::{Manifest, SiteCopy, backup, restore};
pub(crate) use control::ControlFile;
pub(crate) use fsck::fsck;
pub(crate) use imaging::*;
pub(crate) use outbox::*;
pub(crate) use quarantine::*;
pub(crate) use retention::*;
pub(crate) use rows::*;
pub(crate) use submission::*;
use writer::Writer;
pub(crate) use writer::{free_bytes, probe};

use crate::apply::SiteContext;
use crate::gate::Gate;
use crate::{Config, Error};

const READERS_MAX: usize = 16;
const STATEMENTS_MAX: usize = 128;
const READ_CACHE_KIB: i64 = 4096;

/// The file of one site.
pub(crate) struct SiteFile {
    path: PathBuf,
    readers: Mutex<Vec<Connection>>,
    pub(crate) writer: Writer,
}

impl SiteFile {
    /// Opens (creates, migrates) `site.db` in a folder and starts its writer. Returns the key of its cursors and its feed position too.
    pub(crate) fn open(
        config: &Config,
        site: &str,
        dir: &Path,
        context: SiteContext,
        gate: Arc<Gate>,
    ) -> Result<(Self, [u8; 32], watch::Receiver<u64>), Error> {
        let path = dir.join("site.db");
        if !config.exclusive && !path.exists() {
            return Err(Error::unavailable("the site has no database yet; the edge makes it when it starts"));
        }
        let connection = writer::open(&path, config.cache_bytes)?;
        let secret = if config.exclusive {
            migrate::migrate(&connection, &context.zone)?
        } else {
            migrate::as_it_is(&connection)?
        };
        let counters = counters(&connection)?;
        let (newest_in, newest) = watch::channel(counters.vid);
        let writer =
            Writer::start(site, path.clone(), connection, counters, context, config, gate, newest_in)?;
        Ok((Self { path, readers: Mutex::new(Vec::new()), writer }, secret, newest))
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

/// Keeps the plan of a prepared statement whatever is bound to it; else SQLite parses a statement with `LIMIT ?` again each time.
fn keep_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

//! Everything in memory, gone with the last handle. For tests: the shortest answer to the face, against which the other engines can be read.
//!
//! Tables are ordered maps behind shared pointers. A transaction takes them all, copies those it changes, and puts all back when its job is done; a
//! reader keeps those it began with. So a job that fails leaves nothing, and a reader sees one moment.

mod control;
mod fsck;
mod held;
mod imaging;
mod outbox;
mod quarantine;
mod retention;
mod rows;
mod submission;
mod tables;

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::tz::TimeZone;
use tokio::sync::Semaphore;

use self::held::Site;
use self::tables::Tables;
use crate::engine::ONLY_EPOCH;
use crate::face::{Reads, Tx};
use crate::gate::{ALL_SITES, Gate, Gates};
use crate::jobs::Job;
use crate::{Config, Engine, Error, ErrorKind, OpenSite, Reading, SiteDatabase, folder};

pub(crate) use control::ControlMemory;
pub(crate) use fsck::fsck;
pub use held::Memory;

/// The sites in memory.
pub(crate) struct Sites {
    memory: Memory,
    config: Config,
    gate: Arc<Gate>,
}

impl Sites {
    pub(crate) fn new(memory: &Memory, config: &Config, gates: &Gates) -> Self {
        Self { memory: memory.clone(), config: config.clone(), gate: gates.gate(ALL_SITES) }
    }
}

impl Engine for Sites {
    fn site(&self, id: &str, _: &TimeZone) -> Result<OpenSite, Error> {
        let site = self.memory.site(id)?;
        let (secret, newest) = (site.secret, site.newest.subscribe());
        let (data_dir, free_bytes_min) = (self.config.data_dir.clone(), self.config.free_bytes_min);
        let gate = self.gate.clone();
        let database = Database { site, gate: gate.clone(), data_dir, free_bytes_min };
        Ok(OpenSite { database: Box::new(database), secret, newest, gate })
    }

    /// There is nothing to end.
    fn close(&self) {}
}

/// The rows of a site as one store has them open.
struct Database {
    site: Arc<Site>,
    gate: Arc<Gate>,
    data_dir: PathBuf,
    free_bytes_min: u64,
}

impl Database {
    /// Refuses before the disk of the edge (its blobs, its log) is full.
    fn room(&self) -> Result<(), Error> {
        if folder::free_bytes(&self.data_dir) >= self.free_bytes_min {
            self.gate.open();
            return Ok(());
        }
        let reason = "the disk is nearly full";
        self.gate.close(ErrorKind::Full, reason.to_owned());
        Err(Error { kind: ErrorKind::Full, ..Error::unavailable(reason) })
    }
}

impl SiteDatabase for Database {
    fn read(&self, reading: Reading<'_>) -> Result<(), Error> {
        self.snapshot(reading)
    }

    fn snapshot(&self, reading: Reading<'_>) -> Result<(), Error> {
        let tables = self.site.tables.lock().clone();
        reading(&Session { tables: RefCell::new(tables) })
    }

    /// Runs the job at once, on the thread of who sends it: nothing waits for a disk here.
    fn send(&self, mut job: Job) -> Result<(), Error> {
        if !job.is_upkeep {
            self.room()?;
        }
        let _alone = self.site.writing.lock();
        let tables = self.site.tables.lock().clone();
        let mut counters = tables.counters;
        let session = Session { tables: RefCell::new(tables) };
        if job.run(&session, &mut counters).is_ok() {
            let mut tables = session.tables.into_inner();
            tables.counters = counters;
            *self.site.tables.lock() = tables;
            self.site.newest.send_if_modified(|known| std::mem::replace(known, counters.vid) != counters.vid);
        }
        job.answer(Ok(()));
        Ok(())
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

    /// No job ever waits.
    fn close(&self) {}
}

/// A transaction or a read: the tables as they were at its begin, and what it changed.
struct Session {
    tables: RefCell<Tables>,
}

impl Reads for Session {}
impl Tx for Session {}

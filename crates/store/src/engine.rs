//! The database of one site, whatever the engine.

use std::path::PathBuf;
use std::sync::Arc;

use hilum_blobs::Blobs;
use hilum_rows::{Db, Engine, Gate, Job, OpenSite, Reading, SiteDatabase};
use jiff::tz::TimeZone;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::commit::recent::Recent;
use crate::{Config, Error, ErrorKind, Site};

/// The database of one site, and its blobs.
pub(crate) struct SiteDb {
    pub(crate) config: Config,
    /// The site's zone, for dates without one.
    pub(crate) zone: TimeZone,
    pub(crate) blobs: Blobs,
    /// Whether its database takes writes.
    pub(crate) gate: Arc<Gate>,
    /// The newest feed position.
    pub(crate) newest: watch::Receiver<u64>,
    /// Key of the cursors.
    pub(crate) secret: [u8; 32],
    /// What the last commits touched; `None` where other edges write too.
    pub(crate) recent: Option<Arc<Mutex<Recent>>>,
    /// The folder of the site.
    dir: PathBuf,
    database: Box<dyn SiteDatabase>,
}

impl SiteDb {
    /// Opens (creates, migrates) the database of a site and starts its writer.
    pub(crate) fn open(
        config: &Config,
        site: &Site,
        blobs: Blobs,
        engine: &dyn Engine,
    ) -> Result<Arc<Self>, Error> {
        let dir = config.data_dir.join("sites").join(site.id());
        std::fs::create_dir_all(&dir)?;
        let zone = TimeZone::get(&site.settings().timezone).unwrap_or(TimeZone::UTC);
        let OpenSite { database, secret, newest, gate } = engine.site(site.id(), &zone)?;
        let recent = (!database.is_shared()).then(Arc::default);
        Ok(Arc::new(Self {
            config: config.clone(),
            zone,
            blobs,
            gate,
            newest,
            secret,
            recent,
            dir,
            database,
        }))
    }

    /// Whether a blob may be begun.
    ///
    /// # Errors
    /// `Full`: what is left is for rows and deliveries.
    pub(crate) fn room(&self) -> Result<(), Error> {
        if hilum_rows::free_bytes(&self.dir) >= self.config.blobs_free_bytes_min {
            return Ok(());
        }
        metrics::counter!("hilum_blobs_refused_total").increment(1);
        let error = Error::unavailable("the disk of the blobs is nearly full");
        Err(Error { kind: ErrorKind::Full, ..error })
    }

    /// Runs a read on one of the reading connections, each statement for itself. Blocks.
    pub(crate) fn read<T>(&self, work: impl FnOnce(Db<'_>) -> Result<T, Error>) -> Result<T, Error> {
        once(work, |reading| self.database.read(reading))
    }

    /// As [`SiteDb::read`], and all that is read is of one moment; what is foreseen may be of a moment before.
    pub(crate) fn snapshot<T>(&self, work: impl FnOnce(Db<'_>) -> Result<T, Error>) -> Result<T, Error> {
        once(work, |reading| self.database.snapshot(reading))
    }

    /// Whether reads are answered from memory, without a round trip.
    pub(crate) fn is_near(&self) -> bool {
        self.database.turns().is_none()
    }

    /// Runs work that reads, where it may block: on this thread when the engine answers from memory.
    pub(crate) async fn apart<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let Some(turns) = self.database.turns() else { return work(self) };
        let (db, turn) = (self.clone(), turns.acquire_owned().await.ok());
        let reading = move || {
            let _turn = turn;
            work(&db)
        };
        let done = tokio::task::spawn_blocking(reading).await;
        done.map_err(|e| Error::unavailable("the read broke off").because(e))?
    }

    /// Puts a job into the queue of the writer.
    ///
    /// # Errors
    /// `Unavailable` when the queue is full.
    pub(crate) fn send(&self, job: Job) -> Result<(), Error> {
        self.database.send(job)
    }

    /// Lets the queue run empty and ends the writer. Blocks.
    pub(crate) fn close(&self) {
        self.database.close();
    }

    /// Whether other edges may place blobs where this one removes them.
    pub(crate) fn shares_blobs(&self) -> bool {
        self.database.is_shared() && matches!(self.blobs, Blobs::S3(_))
    }

    /// Whether this edge is the one that delivers to a destination. May block.
    pub(crate) fn delivers(&self, destination: &str) -> Result<bool, Error> {
        Ok(self.database.epoch(destination)?.is_some())
    }

    /// The epochs under which this edge delivers to destinations. May block.
    ///
    /// # Errors
    /// `Unavailable`, also when another edge delivers to one of them.
    pub(crate) fn epochs(&self, destinations: Vec<String>) -> Result<Vec<(String, i64)>, Error> {
        let epoch_of = |destination: String| {
            let epoch = self.database.epoch(&destination)?;
            epoch.map(|epoch| (destination, epoch)).ok_or_else(Error::of_another_edge)
        };
        destinations.into_iter().map(epoch_of).collect()
    }
}

/// Hands work to a connection, and its outcome back.
fn once<T>(
    work: impl FnOnce(Db<'_>) -> Result<T, Error>,
    read: impl FnOnce(Reading<'_>) -> Result<(), Error>,
) -> Result<T, Error> {
    let (mut work, mut done) = (Some(work), None);
    read(&mut |db| {
        if let Some(work) = work.take() {
            done = Some(work(db)?);
        }
        Ok(())
    })?;
    done.ok_or_else(|| Error::unavailable("the read broke off"))
}

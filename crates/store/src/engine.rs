//! The database of one site, whatever the engine.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::tz::TimeZone;
use tokio::sync::watch;

use crate::apply::{Apply, SiteContext};
use crate::blobs::Blobs;
use crate::db::{Ask, Db};
use crate::gate::Gate;
use crate::jobs::{Job, broken_off};
use crate::postgres::{Server, SiteTables};
use crate::{Config, Error, ErrorKind, Site, sqlite};

/// The database of one site, and its blobs.
pub(crate) struct SiteDb {
    pub(crate) config: Config,
    /// The site's zone, for dates without one.
    pub(crate) zone: TimeZone,
    pub(crate) blobs: Blobs,
    /// The newest feed position.
    pub(crate) newest: watch::Receiver<u64>,
    /// Key of the cursors.
    pub(crate) secret: [u8; 32],
    /// The folder of the site.
    dir: PathBuf,
    engine: Engine,
}

enum Engine {
    Sqlite(sqlite::SiteFile),
    Postgres(SiteTables),
}

impl SiteDb {
    /// Opens (creates, migrates) the database of a site and starts its writer.
    pub(crate) fn open(
        config: &Config,
        site: &Site,
        blobs: Blobs,
        gate: Arc<Gate>,
        server: Option<&Arc<Server>>,
    ) -> Result<Arc<Self>, Error> {
        let dir = config.data_dir.join("sites").join(site.id());
        std::fs::create_dir_all(&dir)?;
        let zone = TimeZone::get(&site.settings().timezone).unwrap_or(TimeZone::UTC);
        let context = SiteContext { zone: zone.clone() };
        let (engine, secret, newest) = match server {
            None => {
                let (file, secret, newest) = sqlite::SiteFile::open(config, site.id(), &dir, context, gate)?;
                (Engine::Sqlite(file), secret, newest)
            }
            Some(server) => {
                let (tables, secret, newest) = server.site(site.id(), context)?;
                (Engine::Postgres(tables), secret, newest)
            }
        };
        Ok(Arc::new(Self { config: config.clone(), zone, blobs, newest, secret, dir, engine }))
    }

    /// Whether a blob may be begun.
    ///
    /// # Errors
    /// `Full`: what is left is for rows and deliveries.
    pub(crate) fn room(&self) -> Result<(), Error> {
        if sqlite::free_bytes(&self.dir) >= self.config.blobs_free_bytes_min {
            return Ok(());
        }
        metrics::counter!("hilum_blobs_refused_total").increment(1);
        let error = Error::unavailable("the disk of the blobs is nearly full");
        Err(Error { kind: ErrorKind::Full, ..error })
    }

    /// Runs a read on one of the reading connections, each statement for itself. Blocks.
    pub(crate) fn read<T>(&self, work: impl FnOnce(Db<'_>) -> Result<T, Error>) -> Result<T, Error> {
        match &self.engine {
            Engine::Sqlite(file) => file.read(|connection| work(Db::Sqlite(connection))),
            Engine::Postgres(tables) => tables.read(|session| work(Db::Postgres(session))),
        }
    }

    /// As [`SiteDb::read`], and all that is read is of one moment; what is foreseen may be of a moment before.
    pub(crate) fn snapshot<T>(&self, work: impl FnOnce(Db<'_>) -> Result<T, Error>) -> Result<T, Error> {
        match &self.engine {
            Engine::Sqlite(file) => file.snapshot(|connection| work(Db::Sqlite(connection))),
            Engine::Postgres(tables) => tables.snapshot(|session| work(Db::Postgres(session))),
        }
    }

    /// Runs work that reads, where it may block: on this thread when the engine answers from memory.
    pub(crate) async fn apart<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        match &self.engine {
            Engine::Sqlite(_) => work(self),
            Engine::Postgres(tables) => {
                let (db, turn) = (self.clone(), tables.turn().await);
                let reading = move || {
                    let _turn = turn;
                    work(&db)
                };
                let done = tokio::task::spawn_blocking(reading).await;
                done.map_err(|e| Error::unavailable("the read broke off").because(e))?
            }
        }
    }

    /// Runs `work` in the next transaction; returns after the commit is durable.
    ///
    /// # Errors
    /// What `work` returned; `Unavailable` or `Full` when the queue is full or the commit failed.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl Fn(&mut Apply<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (job, answered) = Job::new(bytes, work);
        self.send(job)?;
        answered.await.map_err(|_| broken_off())?
    }

    /// As [`SiteDb::write`]; `asks` are the reads that `work` will do.
    pub(crate) async fn write_asking<T: Send + 'static>(
        &self,
        bytes: usize,
        asks: Vec<Ask>,
        work: impl Fn(&mut Apply<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (mut job, answered) = Job::new(bytes, work);
        job.asks = asks;
        self.send(job)?;
        answered.await.map_err(|_| broken_off())?
    }

    /// As [`SiteDb::write`], for what must go on while the disk is nearly full.
    pub(crate) async fn upkeep<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl Fn(&mut Apply<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (mut job, answered) = Job::new(bytes, work);
        job.is_upkeep = true;
        self.send(job)?;
        answered.await.map_err(|_| broken_off())?
    }

    fn send(&self, job: Job) -> Result<(), Error> {
        match &self.engine {
            // its numbers are given out by the edge that has the lock
            Engine::Sqlite(_) if !self.config.exclusive => {
                Err(Error::unavailable("only the edge that has the lock of the data folder writes to it"))
            }
            Engine::Sqlite(file) => file.writer.send(job),
            Engine::Postgres(tables) => tables.send(job),
        }
    }

    /// Lets the queue run empty and ends the writer. Blocks.
    pub(crate) fn close(&self) {
        match &self.engine {
            Engine::Sqlite(file) => file.writer.close(),
            // its writers are those of all sites
            Engine::Postgres(_) => {}
        }
    }

    /// Whether other edges may place blobs where this one removes them.
    pub(crate) fn shares_blobs(&self) -> bool {
        matches!((&self.engine, &self.blobs), (Engine::Postgres(_), Blobs::S3(_)))
    }

    /// Whether this edge is the one that delivers to a destination. May block.
    pub(crate) fn delivers(&self, destination: &str) -> Result<bool, Error> {
        match &self.engine {
            Engine::Sqlite(_) => Ok(true),
            Engine::Postgres(tables) => tables.delivers(destination),
        }
    }
}

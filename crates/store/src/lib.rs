//! Originals, versions, search index, outbox, blobs. Knows no protocol; the only place with SQL.
//!
//! [`Store::commit`] is the single way to write what peers sent: one durable transaction with the original, its answer, resource
//! versions, index rows, imaging rows and the duplicate key. Everything else reads.

mod apply;
mod blobs;
mod body;
mod control;
mod cursor;
mod db;
mod engine;
mod error;
mod fsck;
mod gate;
mod imaging;
mod jobs;
mod keys;
mod lookup;
mod outbox;
mod plan;
mod postgres;
mod quarantine;
mod retention;
mod search;
mod site;
mod sqlite;
mod submission;
mod types;

pub use blobs::s3::S3Config;
pub use blobs::{BlobId, BlobReader, BlobWriter, FinishedBlob};
pub use control::{ApiKey, Control, KeySecret};
pub use error::{Error, ErrorKind};
pub use fsck::{Checks, Findings, fsck};
pub use outbox::{Delivery, DeliveryState, Destination, DestinationState};
pub use postgres::PostgresConfig;
pub use retention::Removed;
pub use site::{Authority, Client, Hl7Identity, Retention, Site, SiteSettings, Unidentified};
pub use sqlite::{Manifest, SiteCopy, backup, restore};
pub use types::*;

use std::collections::HashMap;
use std::fs::File;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fs4::fs_std::FileExt;
use hilum_fhir::search::Query;
use hilum_fhir::{Change, Issue, ResourceType};
use object_store::ObjectStore;
use parking_lot::RwLock;
use tokio::sync::Semaphore;

use crate::blobs::{Blobs, Disk, S3};
use crate::db::{Ask, Db};
use crate::engine::SiteDb;
use crate::gate::Gate;
use crate::postgres::Server;
use crate::submission::{INLINE_BYTES_MAX, Packed};

/// Holds a second edge out of the data folder.
const LOCK_FILE: &str = "lock";
/// A search that takes longer leaves the async thread it began on.
const SEARCH_INLINE_MAX: Duration = Duration::from_millis(2);
/// Studies published before one search.
const STALE_MAX: u32 = 1000;

/// The store of one edge: control database, and for each site one database and its blobs. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    control: Control,
    gate: Arc<Gate>,
    sites: RwLock<HashMap<String, Arc<SiteDb>>>,
    bucket: Option<Arc<dyn ObjectStore>>,
    /// The database of all sites; `None` = a file for each.
    server: Option<Arc<Server>>,
    long_searches: Arc<Semaphore>,
    _lock: Option<File>,
}

/// SHA-256 of bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    digest
}

impl Store {
    /// Opens (creates, migrates) the store under `config.data_dir` and on `config.postgres`, takes its lock and recovers.
    ///
    /// # Errors
    /// `Unavailable` when the directory cannot be used (another edge holds it, the write-sync-read probe fails, a newer schema), or the
    /// server or the bucket of the blobs cannot.
    pub async fn open(config: Config) -> Result<Self, Error> {
        let bucket = config.bucket.as_ref().map(S3::connect).transpose()?;
        if let (Some(bucket), Some(of)) = (&bucket, &config.bucket) {
            S3::probe(bucket.as_ref(), of).await?;
        }
        tokio::task::spawn_blocking(move || Self::open_now(config, bucket))
            .await
            .map_err(|e| Error::unavailable("opening").because(e))?
    }

    fn open_now(config: Config, bucket: Option<Arc<dyn ObjectStore>>) -> Result<Self, Error> {
        let lock = if config.exclusive {
            std::fs::create_dir_all(&config.data_dir)?;
            sqlite::probe(&config.data_dir)?;
            Some(lock(&config)?)
        } else {
            beside(&config)?;
            None
        };
        let control = Control::open_for(&config)?;
        let gate = Arc::<Gate>::default();
        let server = match &config.postgres {
            Some(of) => Some(Server::open(&config, of, gate.clone(), control.clone())?),
            None => None,
        };
        let processors = std::thread::available_parallelism().map_or(4, NonZero::get);
        let inner = Inner {
            config,
            control,
            gate,
            sites: RwLock::default(),
            bucket,
            server,
            long_searches: Arc::new(Semaphore::new(processors)),
            _lock: lock,
        };
        let store = Self { inner: Arc::new(inner) };
        for site in store.control().sites()? {
            store.site_db(&site)?;
        }
        Ok(store)
    }

    /// Sites, API keys, clients: what is shared by all sites.
    pub fn control(&self) -> &Control {
        &self.inner.control
    }

    /// Applies all changes or none, with the original and its answer, in one durable transaction.
    ///
    /// When `original.control` was committed before with the same bytes, nothing is written and the stored answer comes back
    /// with `duplicate` set.
    ///
    /// # Errors
    /// [`ErrorKind`] says who is at fault; `Error::issues` says where, for `Conflict`, `Precondition`, `NotFound`.
    pub async fn commit(
        &self,
        site: &Site,
        original: Original,
        changes: Vec<Change>,
        answer: Option<Bytes>,
    ) -> Result<Commit, Error> {
        let db = self.site_db(site)?;
        let packed = self.pack(&db, original).await?;
        let now = jiff::Timestamp::now().as_microsecond();
        let planning = move |db: &SiteDb| {
            // known before the snapshot is taken
            let newest = *db.newest.borrow();
            let plan = db.snapshot(|rows| {
                rows.foresee(&plan::asks(&changes))?;
                plan::plan(rows, &db.zone, now, newest, &changes)
            })?;
            Ok((Arc::new(plan), changes))
        };
        let (plan, changes) = db.apart(planning).await?;
        let bytes = packed.bytes() + plan.bytes() + answer.as_ref().map_or(0, Bytes::len);
        packed.durable(&db.blobs).await?;
        let kept = answer.clone();
        let asks: Vec<Ask> = if self.inner.server.is_some() {
            let duplicate = packed.control_key().map(|key| Ask::Duplicate(key, packed.original.sha256));
            let claim = packed.blob().map(Ask::Claim);
            duplicate.into_iter().chain(claim).chain(plan.asks()).collect()
        } else {
            Vec::new()
        };
        let applied = db
            .write_asking(bytes, asks, move |apply| apply.commit(&packed, &plan, &changes, answer.as_deref()))
            .await?;
        Ok(applied.told(kept))
    }

    /// Keeps a rejected or incomplete submission: original, issues, answer. Durable when it returns.
    ///
    /// # Errors
    /// `Full` or `Unavailable`.
    pub async fn quarantine(
        &self,
        site: &Site,
        original: Original,
        issues: &[Issue],
        answer: Option<Bytes>,
    ) -> Result<u64, Error> {
        let db = self.site_db(site)?;
        let packed = self.pack(&db, original).await?;
        packed.durable(&db.blobs).await?;
        let (issues, kept) = (issues.to_vec(), packed.kept_bytes(&db.blobs).await?);
        let bytes = packed.bytes();
        db.write(bytes, move |apply| apply.quarantine(&packed, &issues, answer.as_deref(), kept)).await
    }

    /// The current version, or the deletion; `None` when the id never existed.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn read(
        &self,
        site: &Site,
        resource_type: ResourceType,
        id: &str,
    ) -> Result<Option<Version>, Error> {
        let id = id.to_owned();
        self.ask(site, move |rows| rows.current(resource_type, &id)).await
    }

    /// One version; `None` when unknown.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn vread(
        &self,
        site: &Site,
        resource_type: ResourceType,
        id: &str,
        version: u64,
    ) -> Result<Option<Version>, Error> {
        let id = id.to_owned();
        self.ask(site, move |rows| rows.version(resource_type, &id, version)).await
    }

    /// Versions of one resource, newest first, at most `count` older than `before` (a version number).
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn history(
        &self,
        site: &Site,
        resource_type: ResourceType,
        id: &str,
        before: Option<u64>,
        count: u32,
    ) -> Result<Vec<Version>, Error> {
        let id = id.to_owned();
        self.ask(site, move |rows| rows.history(resource_type, &id, before, count)).await
    }

    /// One page of matches with the resources they include.
    ///
    /// Nearly all searches look at a page's worth of rows and are done before another thread has woken up; one that turns out to
    /// be long is begun again off the async threads, as many at a time as there are processors.
    ///
    /// # Errors
    /// `Precondition` with an issue for a bad cursor or a search that is too costly.
    pub async fn search(&self, site: &Site, query: &Query, cursor: Option<&str>) -> Result<Page, Error> {
        let db = self.site_db(site)?;
        if self.inner.server.is_some() {
            let (query, cursor) = (query.clone(), cursor.map(str::to_owned));
            let page = db.apart(move |db| search::search(db, &query, cursor.as_deref(), None)).await?;
            return page.ok_or_else(|| Error::unavailable("the search broke off"));
        }
        if let Some(page) = search::search(&db, query, cursor, Some(SEARCH_INLINE_MAX))? {
            return Ok(page);
        }
        let turn = self.inner.long_searches.clone().acquire_owned().await;
        let (query, cursor) = (query.clone(), cursor.map(str::to_owned));
        let searching = move || {
            let _turn = turn;
            search::search(&db, &query, cursor.as_deref(), None)
        };
        tokio::task::spawn_blocking(searching)
            .await
            .map_err(|e| Error::unavailable("the search broke off").because(e))??
            .ok_or_else(|| Error::unavailable("the search broke off"))
    }

    /// One submission.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn submission(&self, site: &Site, sequence: u64) -> Result<Option<SubmissionRow>, Error> {
        self.ask(site, move |rows| submission::one(rows, sequence)).await
    }

    /// The submissions that caused the versions of a resource, newest first, at most `count`.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn submissions_of(
        &self,
        site: &Site,
        resource_type: ResourceType,
        id: &str,
        count: u32,
    ) -> Result<Vec<SubmissionRow>, Error> {
        let id = id.to_owned();
        self.ask(site, move |rows| submission::of(rows, resource_type, &id, count)).await
    }

    /// The newest submissions before `before`, newest first, at most `count`.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn submissions(
        &self,
        site: &Site,
        before: Option<u64>,
        count: u32,
    ) -> Result<Vec<SubmissionRow>, Error> {
        self.ask(site, move |rows| submission::newest(rows, before, count)).await
    }

    /// A page of the submissions that a filter lets through, newest first.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn list_submissions(
        &self,
        site: &Site,
        filter: SubmissionFilter,
    ) -> Result<SubmissionPage, Error> {
        self.ask(site, move |rows| submission::matching(rows, &filter)).await
    }

    /// The deliveries of the versions that a submission caused, at most so many. Goes through all that is queued or was delivered lately.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn deliveries_of(&self, site: &Site, sequence: u64, max: u32) -> Result<Vec<Delivery>, Error> {
        self.ask(site, move |rows| submission::deliveries(rows, sequence, max)).await
    }

    /// What committing changes would do now, resource by resource; nothing is written.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub async fn foretell(&self, site: &Site, changes: Vec<Change>) -> Result<Vec<Foretold>, Error> {
        let now = jiff::Timestamp::now().as_microsecond();
        let planning = move |db: &SiteDb| {
            let newest = *db.newest.borrow();
            db.snapshot(|rows| {
                rows.foresee(&plan::asks(&changes))?;
                Ok(plan::plan(rows, &db.zone, now, newest, &changes)?.foretold())
            })
        };
        self.site_db(site)?.apart(planning).await
    }

    /// Whether anything of a type was written behind a feed position.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn has_changed(
        &self,
        site: &Site,
        resource_type: ResourceType,
        after: u64,
    ) -> Result<bool, Error> {
        self.ask(site, move |rows| rows.has_changed(resource_type, after)).await
    }

    /// Versions after feed position `after`, in feed order, at most `limit`.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn feed(&self, site: &Site, after: u64, limit: u32) -> Result<Vec<FeedEntry>, Error> {
        self.ask(site, move |rows| rows.feed(after, limit)).await
    }

    /// The newest feed position of a site; changes after each commit.
    ///
    /// # Errors
    /// `Unavailable`.
    pub fn watch(&self, site: &Site) -> Result<tokio::sync::watch::Receiver<u64>, Error> {
        Ok(self.site_db(site)?.newest.clone())
    }

    /// Publishes the ImagingStudy of studies that are dirty: all that have been quiet long enough, or with `uid` that one at once.
    /// Returns how many versions were written.
    ///
    /// # Errors
    /// `Full` or `Unavailable`.
    pub async fn publish_studies(&self, site: &Site, uid: Option<&str>) -> Result<u32, Error> {
        let db = self.site_db(site)?;
        let uid = uid.map(str::to_owned);
        let wanted = uid.clone();
        let dirty = move |db: &SiteDb| db.read(|rows| rows.dirty_studies(wanted.as_deref(), 1));
        if db.apart(dirty).await?.is_empty() {
            return Ok(0);
        }
        db.upkeep(1024, move |apply| apply.publish_due(uid.as_deref())).await
    }

    /// Publishes every study that changed since it was published: before a read or search of ImagingStudy is answered.
    ///
    /// # Errors
    /// `Full` or `Unavailable`.
    pub async fn publish_stale(&self, site: &Site) -> Result<(), Error> {
        let db = self.site_db(site)?;
        let stale = db.apart(|db| db.read(|rows| rows.dirty_studies(None, STALE_MAX))).await?;
        for uid in stale {
            db.upkeep(1024, move |apply| apply.publish_due(Some(&uid))).await?;
        }
        Ok(())
    }

    /// A new blob of a site. `head` is written first; see [`BlobWriter`].
    ///
    /// # Errors
    /// `Full` below `blobs_free_bytes_min`, `Unavailable`.
    pub async fn blob_writer(&self, site: &Site, head: Bytes) -> Result<BlobWriter, Error> {
        let db = self.site_db(site)?;
        db.room()?;
        Ok(db.blobs.writer(head))
    }

    /// Opens a stored blob.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn blob(&self, site: &Site, id: &BlobId) -> Result<Option<BlobReader>, Error> {
        self.site_db(site)?.blobs.reader(id).await
    }

    /// The blob and transfer syntax of a stored DICOM instance.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn instance(&self, site: &Site, sop_uid: &str) -> Result<Option<InstanceFile>, Error> {
        let sop_uid = sop_uid.to_owned();
        self.ask(site, move |rows| rows.instance(&sop_uid)).await
    }

    /// Whether writes are accepted, and why not.
    pub fn health(&self) -> Health {
        self.inner.gate.health()
    }

    /// Whether a submission would be taken now.
    ///
    /// # Errors
    /// `Full` or `Unavailable`: the answer to a submission before any work is done for it.
    pub fn accepting(&self) -> Result<(), Error> {
        self.inner.gate.accepting()
    }

    /// Waits for queued writes, checkpoints, closes.
    pub async fn close(&self) {
        let sites: Vec<Arc<SiteDb>> = self.inner.sites.read().values().cloned().collect();
        let server = self.inner.server.clone();
        let closing = tokio::task::spawn_blocking(move || {
            sites.iter().for_each(|db| db.close());
            server.iter().for_each(|server| server.close());
        });
        if closing.await.is_err() {
            tracing::error!("the store did not close cleanly");
        }
    }

    /// One read, of one statement.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        site: &Site,
        work: impl FnOnce(Db<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.site_db(site)?.apart(move |db| db.read(work)).await
    }

    pub(crate) fn site_db(&self, site: &Site) -> Result<Arc<SiteDb>, Error> {
        if let Some(db) = self.inner.sites.read().get(site.id()) {
            return Ok(db.clone());
        }
        let mut sites = self.inner.sites.write();
        if let Some(db) = sites.get(site.id()) {
            return Ok(db.clone());
        }
        let blobs = self.blobs(site)?;
        let db = SiteDb::open(
            &self.inner.config,
            site,
            blobs,
            self.inner.gate.clone(),
            self.inner.server.as_ref(),
        )?;
        sites.insert(site.id().to_owned(), db.clone());
        Ok(db)
    }

    fn blobs(&self, site: &Site) -> Result<Blobs, Error> {
        let config = &self.inner.config;
        Ok(match (&self.inner.bucket, &config.bucket) {
            (Some(bucket), Some(of)) => Blobs::S3(S3::of_site(bucket.clone(), &of.prefix, site.id())),
            _ => Blobs::Disk(Disk::open(config.data_dir.join("sites").join(site.id()).join("blobs"))?),
        })
    }

    /// Large originals become blobs before the row that names them.
    async fn pack(&self, db: &Arc<SiteDb>, original: Original) -> Result<Packed, Error> {
        let large = original.bytes.clone().filter(|b| b.len() > INLINE_BYTES_MAX);
        let (Some(bytes), None) = (large, original.blob) else {
            let blob = original.blob;
            return Ok(Packed::new(original, blob));
        };
        db.room()?;
        let blob = db.blobs.put(bytes).await?;
        Ok(Packed::new(original, Some(blob)))
    }
}

/// Refuses to make a store where an edge was expected to have one.
fn beside(config: &Config) -> Result<(), Error> {
    if config.postgres.is_some() || config.data_dir.join(control::CONTROL_FILE).exists() {
        return Ok(());
    }
    let data = config.data_dir.display();
    Err(Error::unavailable(format!(
        "there is no store in {data}; name the configuration of the edge (--config FILE)"
    )))
}

fn lock(config: &Config) -> Result<File, Error> {
    let file = File::create(config.data_dir.join(LOCK_FILE))?;
    match file.try_lock_exclusive() {
        Ok(true) => Ok(file),
        _ => Err(Error::unavailable(format!(
            "another edge uses {}; stop it or choose another [node] data",
            config.data_dir.display()
        ))),
    }
}

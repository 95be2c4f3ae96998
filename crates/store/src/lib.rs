//! Originals, versions, search index, outbox, blobs: what is kept and found, whatever it is kept in. Knows no protocol and no SQL.
//!
//! [`Store::commit`] is the single way to write what peers sent: one durable transaction with the original, its answer, resource
//! versions, index rows, imaging rows and the duplicate key. Everything else reads.
//!
//! `commit/` writes, `query/` finds, `upkeep/` keeps in order; below are `hilum-rows` (every row, and the engines that keep them) and
//! `hilum-blobs`.

mod access;
mod commit;
mod control;
mod engine;
mod outbox;
mod query;
mod site;
mod types;
mod upkeep;

pub use access::{Access, Right, Scope, Thing};
pub use control::{Authenticated, Control, KeySecret};
pub use hilum_blobs::{BlobId, BlobReader, BlobWriter, FinishedBlob, S3Config, sha256};
pub use hilum_rows::{
    ApiKey, Checks, Delivery, DeliveryState, Destination, DestinationState, Error, ErrorKind, FeedEntry,
    Findings, Health, InstanceFile, Memory, Operation, PostgresConfig, Version,
};
pub use outbox::Queue;
pub use site::{Authority, Client, Hl7Identity, Retention, Site, SiteSettings, Unidentified};
pub use types::*;
pub use upkeep::backup::{Manifest, SiteCopy, backup, restore};
pub use upkeep::fsck::fsck;
pub use upkeep::retention::Removed;

use std::collections::HashMap;
use std::fs::File;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hilum_blobs::{Blobs, Disk, S3};
use hilum_fhir::search::Query;
use hilum_fhir::{Change, Issue, ResourceType};
use hilum_rows::row::Ask;
use hilum_rows::{Db, Engine, Gates};
use object_store::ObjectStore;
use parking_lot::RwLock;
use tokio::sync::Semaphore;

use crate::commit::apply::Apply;
use crate::commit::imaging::draw::{self, Drawing};
use crate::commit::imaging::removal;
use crate::commit::plan::{Speaker, planner};
use crate::commit::submission::{self, INLINE_BYTES_MAX, Packed};
use crate::commit::{Applied, Ready};
use crate::engine::SiteDb;
use crate::query::{patients, search};

/// A search that takes longer leaves the async thread it began on.
const SEARCH_INLINE_MAX: Duration = Duration::from_millis(2);
/// Studies published before one search.
const STALE_MAX: u32 = 1000;
/// Times a study is drawn that changes while it is drawn; then it is left to the next round.
const DRAWINGS_MAX: usize = 4;

/// The store of one edge: control database, and for each site one database and its blobs. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    control: Control,
    gates: Arc<Gates>,
    sites: RwLock<HashMap<String, Arc<SiteDb>>>,
    bucket: Option<Arc<dyn ObjectStore>>,
    engine: Box<dyn Engine>,
    long_searches: Arc<Semaphore>,
    _lock: Option<File>,
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
            hilum_rows::probe(&config.data_dir)?;
            Some(hilum_rows::lock(&config.data_dir)?)
        } else {
            hilum_rows::expect_there(&config.of_rows())?;
            None
        };
        let control = Control::open_for(&config)?;
        let gates = Arc::<Gates>::default();
        let engine = hilum_rows::open(&config.of_rows(), &gates, Arc::new(control.clone()))?;
        let processors = std::thread::available_parallelism().map_or(4, NonZero::get);
        let inner = Inner {
            config,
            control,
            gates,
            sites: RwLock::default(),
            bucket,
            engine,
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
        answer: impl Into<Answer>,
    ) -> Result<Commit, Error> {
        let db = self.site_db(site)?;
        let answer = answer.into();
        let packed = self.pack(&db, original).await?;
        let speaker = Speaker::of(&packed.original);
        let now = jiff::Timestamp::now().as_microsecond();
        let control = packed.control_key().map(|key| (key, packed.original.sha256));
        let planning = move |db: &SiteDb| {
            // known before the snapshot is taken
            let newest = *db.newest.borrow();
            db.snapshot(|rows| {
                rows.foresee(&planner::asks(&changes))?;
                match planner::plan(rows, &db.zone, now, newest, speaker, &changes) {
                    Ok(plan) => Ok(Ok(Arc::new(plan))),
                    Err(refusal) => repeated(rows, control.as_ref(), refusal).map(Err),
                }
            })
            .map(|planned| (planned, changes))
        };
        let (planned, changes) = db.apart(planning).await?;
        let plan = match planned {
            Ok(plan) => plan,
            Err(repeated) => return Ok(repeated.told()),
        };
        let bytes = packed.bytes() + plan.bytes() + answer.plain.as_ref().map_or(0, Bytes::len);
        packed.durable(&db.blobs).await?;
        let asks: Vec<Ask> = if db.is_near() {
            Vec::new()
        } else {
            let duplicate = packed.control_key().map(|key| Ask::Duplicate(key, packed.original.sha256));
            let claim = packed.blob().map(Ask::Claim);
            duplicate.into_iter().chain(claim).chain(plan.asks()).collect()
        };
        // kept here until the answer is back, so that the writer frees nothing
        let ready = Arc::new(Ready { packed, plan, changes, answer });
        let shared = ready.clone();
        let applied = db.write_asking(bytes, asks, move |apply| apply.commit(&shared)).await?;
        Ok(applied.told())
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
        self.fresh(&self.site_db(site)?, resource_type).await?;
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
        self.fresh(&self.site_db(site)?, resource_type).await?;
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
        self.fresh(&self.site_db(site)?, resource_type).await?;
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
        if shows_studies(query) {
            self.publish_stale(&db).await?;
        }
        if !db.is_near() {
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
        self.ask(site, move |rows| {
            submission::numbered(rows, &submission::numbers_of(rows, resource_type, &id, count)?)
        })
        .await
    }

    /// The numbers of the submissions that caused the versions of a resource, newest first, at most `count`: many of them take little memory.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn submission_numbers_of(
        &self,
        site: &Site,
        resource_type: ResourceType,
        id: &str,
        count: u32,
    ) -> Result<Vec<u64>, Error> {
        let id = id.to_owned();
        self.ask(site, move |rows| submission::numbers_of(rows, resource_type, &id, count)).await
    }

    /// The submissions with these numbers that are there, in the order of the numbers.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn submissions_numbered(
        &self,
        site: &Site,
        numbers: Vec<u64>,
    ) -> Result<Vec<SubmissionRow>, Error> {
        self.ask(site, move |rows| submission::numbered(rows, &numbers)).await
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

    /// What committing the changes of an original would do now, resource by resource; nothing is written.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub async fn foretell(
        &self,
        site: &Site,
        original: &Original,
        changes: Vec<Change>,
    ) -> Result<Vec<Foretold>, Error> {
        let speaker = Speaker::of(original);
        let now = jiff::Timestamp::now().as_microsecond();
        let planning = move |db: &SiteDb| {
            let newest = *db.newest.borrow();
            db.snapshot(|rows| {
                rows.foresee(&planner::asks(&changes))?;
                Ok(planner::plan(rows, &db.zone, now, newest, speaker, &changes)?.foretold())
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

    /// Publishes the ImagingStudy of the studies that are due: quiet for a while, or dirty for long, and not published just now; with `uid` only
    /// of those with this Study Instance UID. Returns how many versions were written.
    ///
    /// # Errors
    /// `Full` or `Unavailable`.
    pub async fn publish_studies(&self, site: &Site, uid: Option<&str>) -> Result<u32, Error> {
        let db = self.site_db(site)?;
        let uid = uid.map(str::to_owned);
        let now = jiff::Timestamp::now().as_millisecond();
        let due = move |db: &SiteDb| {
            db.read(|rows| match &uid {
                Some(uid) => draw::due_of(rows, uid, now),
                None => draw::due(rows, now),
            })
        };
        publish(&db, db.apart(due).await?).await
    }

    /// Publishes every study that changed since it was published: before a read or search of ImagingStudy is answered.
    async fn publish_stale(&self, db: &Arc<SiteDb>) -> Result<(), Error> {
        let stale = db.apart(|db| db.read(|rows| rows.dirty_studies(STALE_MAX))).await?;
        publish(db, stale).await.map(drop)
    }

    /// Publishes what a read of this type could show.
    async fn fresh(&self, db: &Arc<SiteDb>, of: ResourceType) -> Result<(), Error> {
        if of.name() == "ImagingStudy" { self.publish_stale(db).await } else { Ok(()) }
    }

    /// What there is under a Study Instance UID.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn study_contents(&self, site: &Site, uid: &str) -> Result<StudyContents, Error> {
        let uid = uid.to_owned();
        self.ask(site, move |rows| removal::contents(rows, &uid)).await
    }

    /// Removes every study with a Study Instance UID, with its images, performed steps, ImagingStudy and Procedures, for good; `who` is kept with
    /// the submission that says so. Blobs that nothing else names are removed by the upkeep. Returns what was removed: nothing, and no
    /// submission, when there is no such study.
    ///
    /// # Errors
    /// `Full` or `Unavailable`.
    pub async fn delete_study(&self, site: &Site, uid: &str, who: &str) -> Result<StudyContents, Error> {
        let db = self.site_db(site)?;
        let original = Original {
            kind: OriginalKind::Internal,
            listener: "study-delete".to_owned(),
            peer: None,
            identity: Some(who.to_owned()),
            control: None,
            sha256: sha256(uid.as_bytes()),
            blob: None,
            bytes: Some(Bytes::from(uid.to_owned())),
            content_type: "text/plain",
            received: jiff::Timestamp::now().into(),
            report: None,
            about: About {
                message: Some("STUDY DELETE".to_owned()),
                reference: Some(uid.to_owned()),
                ..About::default()
            },
        };
        let (packed, uid) = (Packed::new(original, None), uid.to_owned());
        db.upkeep(packed.bytes(), move |apply| apply.delete_study(&packed, &uid)).await
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
        Ok(self.site_db(site)?.blobs.reader(id).await?)
    }

    /// The blob and transfer syntax of a stored DICOM instance.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn instance(&self, site: &Site, sop_uid: &str) -> Result<Option<InstanceFile>, Error> {
        let sop_uid = sop_uid.to_owned();
        let places = self.ask(site, move |rows| rows.instances_with(&sop_uid)).await?;
        Ok(places.into_iter().next().map(|place| place.file))
    }

    /// The query as it matches resources: what names a Patient names those it replaced too (`merge.references = "follow"`). For who compares
    /// versions with a query, such as a Subscription; searches do so themselves.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn followed(&self, site: &Site, query: &Query) -> Result<Query, Error> {
        let query = query.clone();
        self.ask(site, move |rows| patients::followed(rows, &query).map(std::borrow::Cow::into_owned)).await
    }

    /// Whether writes are accepted for all sites, and why not.
    pub fn health(&self) -> Health {
        self.inner.gates.health()
    }

    /// Whether a submission to a site would be taken now.
    ///
    /// # Errors
    /// `Full` or `Unavailable`: the answer to a submission before any work is done for it.
    pub fn accepting(&self, site: &Site) -> Result<(), Error> {
        self.site_db(site)?.gate.accepting()
    }

    /// Waits for queued writes, checkpoints, closes.
    pub async fn close(&self) {
        let sites: Vec<Arc<SiteDb>> = self.inner.sites.read().values().cloned().collect();
        let inner = self.inner.clone();
        let closing = tokio::task::spawn_blocking(move || {
            sites.iter().for_each(|db| db.close());
            inner.engine.close();
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
        let db = SiteDb::open(&self.inner.config, site, blobs, self.inner.engine.as_ref())?;
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

/// What was accepted before is answered as it was then, though the same changes would be refused now.
fn repeated(rows: Db<'_>, control: Option<&(i64, [u8; 32])>, refusal: Error) -> Result<Applied, Error> {
    let known = control.map(|(key, sha256)| rows.duplicate(*key, sha256)).transpose()?.flatten();
    known.map(|(submission, answer)| Applied::Duplicate(submission, answer)).ok_or(refusal)
}

/// Whether the answer to a search may hold an ImagingStudy.
fn shows_studies(query: &Query) -> bool {
    let is_study = |of: ResourceType| of.name() == "ImagingStudy";
    let includes = query.includes.iter().any(|include| include.target.is_none_or(is_study));
    is_study(query.resource_type)
        || includes
        || query.linked().iter().any(|search| is_study(search.resource_type))
        || query.revincludes.iter().any(|include| is_study(include.source))
}

/// Draws studies outside the writer, which only looks whether they are still as they were; those that changed meanwhile are drawn once more.
async fn publish(db: &Arc<SiteDb>, mut keys: Vec<String>) -> Result<u32, Error> {
    let mut published = 0;
    for _ in 0..DRAWINGS_MAX {
        if keys.is_empty() {
            break;
        }
        let wanted = std::mem::take(&mut keys);
        let drawing = move |db: &SiteDb| {
            let drawn = wanted.iter().map(|key| draw::draw_apart(db, key));
            drawn.filter_map(Result::transpose).collect::<Result<Vec<Drawing>, Error>>()
        };
        let drawings = Arc::new(db.apart(drawing).await?);
        let bytes = 1024 * drawings.len();
        let work = {
            let drawings = drawings.clone();
            move |apply: &mut Apply<'_>| {
                drawings
                    .iter()
                    .map(|drawing| apply.publish_drawing(drawing))
                    .collect::<Result<Vec<_>, Error>>()
            }
        };
        let done = db.upkeep(bytes, work).await?;
        for (drawing, done) in drawings.iter().zip(done) {
            match done {
                Some(is_new) => published += u32::from(is_new),
                None => keys.push(drawing.key.clone()),
            }
        }
    }
    Ok(published)
}

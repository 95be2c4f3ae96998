//! Originals, versions, search index, outbox, blobs. Knows no protocol; the only place with SQL.
//!
//! [`Store::commit`] is the single way to write what peers sent: one durable transaction with the original, its answer, resource
//! versions, index rows, imaging rows and the duplicate key. Everything else reads.

mod blobs;
mod control;
mod error;
mod outbox;
mod site;
mod types;

pub use blobs::{BlobId, BlobReader, BlobWriter, FinishedBlob};
pub use control::{ApiKey, Control, KeySecret};
pub use error::{Error, ErrorKind};
pub use outbox::{Delivery, DeliveryState, Destination, DestinationState};
pub use site::{Client, Hl7Identity, Site, SiteSettings};
pub use types::*;

/// SHA-256 of bytes.
pub fn sha256(_bytes: &[u8]) -> [u8; 32] {
    todo!()
}

use bytes::Bytes;
use hilum_fhir::search::Query;
use hilum_fhir::{Change, Issue, ResourceType};

/// The store of one edge: control database, and for each site one database and its blobs. Cheap to clone.
#[derive(Clone)]
pub struct Store {}

impl Store {
    /// Opens (creates, migrates) the store under `config.data_dir`, takes its lock and recovers.
    ///
    /// # Errors
    /// `Unavailable` when the directory cannot be used (another edge holds it, the write-sync-read probe fails, a newer schema).
    pub async fn open(_config: Config) -> Result<Self, Error> {
        todo!()
    }

    /// Sites, API keys, clients: what is shared by all sites.
    pub fn control(&self) -> &Control {
        todo!()
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
        _site: &Site,
        _original: Original,
        _changes: Vec<Change>,
        _answer: Option<Bytes>,
    ) -> Result<Commit, Error> {
        todo!()
    }

    /// Keeps a rejected or incomplete submission: original, issues, answer. Durable when it returns.
    ///
    /// # Errors
    /// `Full` or `Unavailable`.
    pub async fn quarantine(
        &self,
        _site: &Site,
        _original: Original,
        _issues: &[Issue],
        _answer: Option<Bytes>,
    ) -> Result<u64, Error> {
        todo!()
    }

    /// The current version, or the deletion; `None` when the id never existed.
    pub async fn read(&self, _site: &Site, _resource_type: ResourceType, _id: &str) -> Result<Option<Version>, Error> {
        todo!()
    }

    /// One version; `None` when unknown.
    pub async fn vread(
        &self,
        _site: &Site,
        _resource_type: ResourceType,
        _id: &str,
        _version: u64,
    ) -> Result<Option<Version>, Error> {
        todo!()
    }

    /// Versions of one resource, newest first, at most `count` older than `before` (a version number).
    pub async fn history(
        &self,
        _site: &Site,
        _resource_type: ResourceType,
        _id: &str,
        _before: Option<u64>,
        _count: u32,
    ) -> Result<Vec<Version>, Error> {
        todo!()
    }

    /// One page of matches with the resources they include. Every match was re-checked on its body.
    ///
    /// # Errors
    /// `Precondition` with an issue for a bad cursor or a search that is too costly.
    pub async fn search(&self, _site: &Site, _query: &Query, _cursor: Option<&str>) -> Result<Page, Error> {
        todo!()
    }

    /// One submission.
    pub async fn submission(&self, _site: &Site, _sequence: u64) -> Result<Option<SubmissionRow>, Error> {
        todo!()
    }

    /// The submissions that caused the versions of a resource, newest first, at most `count`.
    pub async fn submissions_of(
        &self,
        _site: &Site,
        _resource_type: ResourceType,
        _id: &str,
        _count: u32,
    ) -> Result<Vec<SubmissionRow>, Error> {
        todo!()
    }

    /// The newest submissions before `before`, newest first, at most `count`.
    pub async fn submissions(&self, _site: &Site, _before: Option<u64>, _count: u32) -> Result<Vec<SubmissionRow>, Error> {
        todo!()
    }

    /// Versions after feed position `after`, in feed order, at most `limit`.
    pub async fn feed(&self, _site: &Site, _after: u64, _limit: u32) -> Result<Vec<FeedEntry>, Error> {
        todo!()
    }

    /// The newest feed position of a site; changes after each commit.
    pub fn watch(&self, _site: &Site) -> tokio::sync::watch::Receiver<u64> {
        todo!()
    }

    /// Publishes the ImagingStudy of studies that are dirty: all that are due at `now` (quiet period over), or with `uid` that one at once.
    /// Returns how many versions were written.
    pub async fn publish_studies(&self, _site: &Site, _uid: Option<&str>, _now: hilum_fhir::Timestamp) -> Result<u32, Error> {
        todo!()
    }

    /// A new blob of a site. `head` is written first; see [`BlobWriter`].
    pub async fn blob_writer(&self, _site: &Site, _head: Bytes) -> Result<BlobWriter, Error> {
        todo!()
    }

    /// Opens a stored blob.
    pub async fn blob(&self, _site: &Site, _id: &BlobId) -> Result<Option<BlobReader>, Error> {
        todo!()
    }

    /// The blob and transfer syntax of a stored DICOM instance.
    pub async fn instance(&self, _site: &Site, _sop_uid: &str) -> Result<Option<InstanceFile>, Error> {
        todo!()
    }

    /// Whether writes are accepted, and why not.
    pub fn health(&self) -> Health {
        todo!()
    }

    /// Waits for queued writes, checkpoints, closes.
    pub async fn close(&self) {}
}

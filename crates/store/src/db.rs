//! The narrow face of a database: everything the store asks of one and everything it writes, as rows.
//!
//! [`Db`] is the connection of one site inside a transaction (or a snapshot) of one of the engines. Each function of the face has its
//! hand-written SQL in `sqlite/` and in `postgres/`, under the same name. All that is not SQL (plans, searches, imaging, packing) is above it and
//! written once.

use bytes::Bytes;
use hilum_fhir::{Match, ResourceType, Timestamp};

use crate::cursor::Position;
use crate::keys::{self, Key, Rows};
use crate::{
    About, BlobId, Delivery, Destination, Error, InstanceFile, Operation, SubmissionFilter, Version, body,
    postgres, sqlite,
};

/// A connection of one of the engines.
#[derive(Clone, Copy)]
pub(crate) enum Db<'c> {
    /// A connection to the file of the site.
    Sqlite(&'c rusqlite::Connection),
    /// A transaction of the site.
    Postgres(&'c postgres::Session),
}

/// Writes each function of the face as a call of the engine's function of the same name.
macro_rules! face {
    ($($(#[$doc:meta])* fn $name:ident($($argument:ident: $of:ty),*) -> $out:ty;)*) => {
        impl Db<'_> {
            $($(#[$doc])*
            pub(crate) fn $name(self $(, $argument: $of)*) -> Result<$out, Error> {
                match self {
                    Self::Sqlite(connection) => sqlite::$name(connection $(, $argument)*),
                    Self::Postgres(session) => postgres::$name(session $(, $argument)*),
                }
            })*
        }
    };
}

// resources and their versions
face! {
    /// The head of a resource by id, deleted or not.
    fn head(of: ResourceType, id: &str) -> Option<Head>;
    /// Type, id, head and time of the current version of a row.
    fn head_of(rid: i64) -> Option<(ResourceType, String, Head, i64)>;
    /// Type and id of a row.
    fn name(rid: i64) -> Option<(ResourceType, String)>;
    /// What a version holds.
    fn content(vid: i64) -> Content;
    /// The current version or deletion of a resource.
    fn current(of: ResourceType, id: &str) -> Option<Version>;
    /// One version of a resource.
    fn version(of: ResourceType, id: &str, version: u64) -> Option<Version>;
    /// Versions of a resource, newest first, older than `before`.
    fn history(of: ResourceType, id: &str, before: Option<u64>, count: u32) -> Vec<Version>;
    /// Versions after a feed position, in feed order.
    fn feed(after: u64, limit: u32) -> Vec<crate::FeedEntry>;
    /// Adds a version.
    fn add_version(row: &VersionRow<'_>) -> ();
    /// Adds the head of a new resource.
    fn add_head(row: &HeadRow<'_>) -> ();
    /// Moves a head to its next version.
    fn move_head(row: &HeadRow<'_>) -> ();
    /// Moves a head to a deletion.
    fn delete_head(row: &HeadRow<'_>) -> ();
    /// Marks a resource as replaced by another.
    fn set_successor(prior: i64, survivor: i64) -> ();
    /// Removes the index rows only the old version has and adds those only the new one has; the numbers are their `ord`.
    fn write_index(rid: i64, old: (&Rows, i64), new: (&Rows, i64)) -> ();
}

// the index
face! {
    /// The first resources with a key: `(rid, vid)`, in order of rid.
    fn with_key(key: Key, max: usize) -> Vec<(i64, i64)>;
    /// The ids of the first resources with a key, in order of rid.
    fn ids_with_key(key: Key, max: usize) -> Vec<String>;
    /// The systems a key's code has, at most `max`, in order.
    fn systems_of(value: i64, max: usize) -> Vec<i64>;
    /// The number of rows of a key, counted up to `max`.
    fn count_key(key: Key, max: i64) -> i64;
    /// The number of strings that start with `prefix`, counted up to `max`.
    fn count_strings(key: i64, prefix: &str, max: i64) -> i64;
    /// The number of resources of a type that are not deleted.
    fn count(of: ResourceType) -> u64;
    /// The next candidates of a key, or of a whole type, in index order.
    fn step(walk: &Walk) -> Vec<Candidate>;
    /// Those of the candidates that have all keys, with their versions, in the order given.
    fn versions_of(candidates: &[Candidate], keys: &[Key]) -> Vec<(Candidate, Version)>;
}

// submissions
face! {
    /// The submission with a duplicate key: its number and its answer.
    fn duplicate(key: i64, sha256: &[u8; 32]) -> Option<Duplicate>;
    /// Adds a submission.
    fn add_submission(row: &SubmissionEntry<'_>) -> ();
    /// Adds a duplicate key, unless it is there.
    fn add_duplicate_key(key: i64, sha256: &[u8; 32], sequence: u64, received: i64) -> ();
    /// One submission.
    fn submission(sequence: u64) -> Option<StoredSubmission>;
    /// The newest submissions before `before`.
    fn submissions(before: Option<u64>, count: u32) -> Vec<StoredSubmission>;
    /// Submissions from `floor` on that a filter lets through, newest first, without their large columns.
    fn submissions_matching(filter: &SubmissionFilter, floor: u64) -> Vec<StoredSubmission>;
    /// The first submission from a number on: its number, and when it was received (ms since 1970).
    fn submission_from(sequence: u64) -> Option<(u64, i64)>;
    /// Whether a version of a type was written behind a feed position.
    fn has_changed(of: ResourceType, after: u64) -> bool;
    /// The deliveries of versions, each by rid and version; at most so many.
    fn deliveries_of(versions: &[(i64, i64)], max: u32) -> Vec<Delivery>;
    /// The numbers of those that caused the versions of a row, newest first.
    fn submissions_of(rid: i64, count: u32) -> Vec<u64>;
}

// studies
face! {
    /// The current instance with a SOP Instance UID.
    fn instance(sop: &str) -> Option<InstanceFile>;
    /// Adds an instance as the current one.
    fn add_instance(row: &InstanceEntry<'_>) -> ();
    /// Makes the current instance a superseded one.
    fn supersede_instance(sop: &str, submission: u64) -> ();
    /// A study.
    fn study(uid: &str) -> Option<StudyRow>;
    /// Adds a study.
    fn add_study(uid: &str, row: &StudyRow, now: i64, last_instance: Option<i64>) -> ();
    /// Changes a study; `conflicts` are added to those counted before.
    fn change_study(uid: &str, row: &StudyRow, conflicts: u32, now: i64, last_instance: Option<i64>) -> ();
    /// Notes that a study has something to publish.
    fn touch_study(uid: &str, now: i64, last_instance: Option<i64>) -> ();
    /// Notes what a performed step says of its study.
    fn set_procedure(uid: &str, procedure: &str, is_discontinued: bool) -> ();
    /// Notes that a study is published.
    fn set_published(uid: &str, now: i64) -> ();
    /// Studies that are due: long dirty, or dirty and quiet.
    fn due_studies(due: &Due) -> Vec<String>;
    /// Studies that are dirty, at most `max`; with `uid` only that one.
    fn dirty_studies(uid: Option<&str>, max: u32) -> Vec<String>;
    /// The elements of a series.
    fn series(uid: &str) -> Option<String>;
    /// Adds or changes a series.
    fn put_series(uid: &str, study: &str, number: Option<i64>, elements: &str) -> ();
    /// The series of a study, in order of number: UID and elements.
    fn series_of(study: &str) -> Vec<(String, String)>;
    /// The current instances of a series, in order of number: UID, SOP class and elements.
    fn instances_of(series: &str) -> Vec<(String, String, String)>;
    /// State, revision and attributes of a performed step.
    fn performed_step(uid: &str) -> Option<(i64, i64, String)>;
    /// Adds or changes a performed step.
    fn put_performed_step(uid: &str, study: &str, state: i64, revision: i64, attributes: &str) -> ();
    /// Notes how many images a performed step announced for a series.
    fn put_expectation(series: &str, step: &str, study: &str, images: Option<i64>) -> ();
}

// the outbox
face! {
    /// All destinations.
    fn destinations() -> Vec<Destination>;
    /// The first delivery of a destination that is neither delivered nor dead.
    fn next_delivery(destination: &str) -> Option<Delivery>;
    /// Creates or changes a destination; its cursor and numbers stay when it exists.
    fn put_destination(destination: &Destination) -> ();
    /// Numbers matches for destinations and moves their cursors. What a cursor has passed is not numbered again.
    fn matched(matches: &[(String, u64)], cursors: &[(String, u64)]) -> ();
    /// Numbers of the oldest deliveries of a destination, still to be sent, that are beyond the bounds of a backlog; `before` in ms since 1970.
    fn beyond(destination: &str, rows_max: u64, before: i64) -> Vec<u64>;
    /// Everything up to a number that is still to be sent is dead.
    fn give_up(destination: &str, last: u64, reason: &str) -> ();
    /// Notes what became of a delivery.
    fn mark(delivery: &Delivery) -> ();
}

// what is kept of rejected submissions
face! {
    /// Notes that the original of a rejected submission is kept; `received` in ms since 1970.
    fn keep_original(sequence: u64, received: i64, bytes: u64) -> ();
    /// Bytes of the originals kept.
    fn kept_originals() -> u64;
    /// The oldest originals kept: submission, when received (ms since 1970), bytes.
    fn oldest_originals(max: u32) -> Vec<(i64, i64, u64)>;
    /// Removes the original of a submission; its blob is noted as an orphan.
    fn remove_original(sequence: i64) -> ();
    /// Orphans behind `after`, in their order.
    fn orphans(after: Option<BlobId>, max: u32) -> Vec<Orphan>;
    /// Strikes orphans off: their files are gone for good, or somebody refers to them.
    fn settle_orphans(blobs: &[BlobId]) -> ();
    /// Those of the blobs that no row names. Where several edges share a store they are claimed: until that is settled no row may name them.
    fn claim_unused(blobs: &[BlobId], now: i64) -> Vec<BlobId>;
    /// Gives up claims of blobs that stay.
    fn release(blobs: &[BlobId]) -> ();
    /// Whether a blob is claimed.
    fn is_claimed(blob: &BlobId) -> bool;
}

// retention
face! {
    /// How far a walk through old rows has come.
    fn progress(of: &str) -> i64;
    /// Notes how far it has come.
    fn set_progress(of: &str, to: i64) -> ();
    /// Submissions behind a number, in their order.
    fn submissions_behind(after: i64, max: u32) -> Vec<OldSubmission>;
    /// Removes a submission and its duplicate key.
    fn remove_submission(sequence: i64) -> ();
    /// Versions behind a feed position, in feed order.
    fn versions_behind(after: i64, max: u32) -> Vec<OldVersion>;
    /// Removes a version.
    fn remove_version(rid: i64, version: i64) -> ();
    /// The feed position up to which every destination is served; `None` without any.
    fn delivered_to() -> Option<i64>;
}

impl Db<'_> {
    /// Does look-ups of a snapshot together where each costs a round trip; those that follow find what was read.
    pub(crate) fn foresee(self, asks: &[Ask]) -> Result<(), Error> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(session) => session.foresee(asks),
        }
    }

    /// Hands each candidate of a look-up to `each` until it errs: those with any of the keys, with a string that starts with any of
    /// the prefixes, or with a range that overlaps any of the ranges. A resource may come twice. More than `max` are not needed.
    pub(crate) fn candidates(
        self,
        of: ResourceType,
        lookup: &keys::Lookup,
        max: usize,
        each: &mut impl FnMut(Candidate) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if let keys::Lookup::Ids(ids) = lookup {
            for id in ids {
                if let Some(head) = self.head(of, id)?.filter(|h| !h.deleted) {
                    each(Candidate { ord: head.ord, rid: head.rid, vid: head.vid })?;
                }
            }
            return Ok(());
        }
        match self {
            Self::Sqlite(connection) => sqlite::candidates(connection, lookup, each),
            Self::Postgres(session) => postgres::candidates(session, lookup, max, each),
        }
    }

    /// Candidates looked at together: as many as cost one look-up of the engine.
    pub(crate) fn candidates_at_once(self) -> usize {
        match self {
            Self::Sqlite(_) => 1,
            Self::Postgres(_) => 64,
        }
    }
}

/// A submission, as far as its age decides.
pub(crate) struct OldSubmission {
    pub(crate) sequence: i64,
    /// Milliseconds since 1970.
    pub(crate) received: i64,
    pub(crate) kind: i64,
    pub(crate) accepted: bool,
    pub(crate) has_blob: bool,
}

/// A version and the one it superseded.
pub(crate) struct OldVersion {
    pub(crate) vid: i64,
    /// Microseconds since 1970.
    pub(crate) last_updated: i64,
    pub(crate) rid: i64,
    pub(crate) version: i64,
    /// Feed position of the version before, while there is one.
    pub(crate) predecessor: Option<i64>,
}

/// A look-up that a plan or a job will do for sure: many are done together where each costs a round trip.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    Duplicate(i64, [u8; 32]),
    Head(ResourceType, String),
    /// With [`SAME_IDENTIFIER_MAX`](crate::lookup::SAME_IDENTIFIER_MAX).
    Key(Key),
    /// Whether it is claimed.
    Claim(BlobId),
}

impl Ask {
    /// What is found by an identifier.
    pub(crate) fn of(wanted: &Match) -> Self {
        Self::Key(keys::identifier_key(wanted.resource_type, wanted.system.as_deref(), &wanted.value))
    }
}

/// The numbers given out so far. Never reused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counters {
    pub(crate) rid: i64,
    pub(crate) vid: u64,
    pub(crate) seq: u64,
}

/// The current state of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) rid: i64,
    pub(crate) version: u64,
    pub(crate) vid: i64,
    pub(crate) ord: i64,
    pub(crate) deleted: bool,
    /// Milliseconds of the last event applied.
    pub(crate) applied: Option<i64>,
    /// The rid of the survivor.
    pub(crate) successor: Option<i64>,
}

/// What a version holds.
pub(crate) struct Content {
    /// Microseconds since 1970.
    pub(crate) last_updated: i64,
    pub(crate) encoding: i64,
    /// `None` = a deletion.
    pub(crate) body: Option<Vec<u8>>,
}

/// A version with its names, as an engine reads it.
pub(crate) struct StoredVersion<'r> {
    pub(crate) resource_type: i64,
    pub(crate) id: String,
    pub(crate) version: i64,
    pub(crate) last_updated: i64,
    pub(crate) operation: i64,
    pub(crate) submission: Option<i64>,
    pub(crate) encoding: i64,
    pub(crate) body: Option<&'r [u8]>,
}

/// A version to add.
pub(crate) struct VersionRow<'r> {
    pub(crate) vid: u64,
    pub(crate) rid: i64,
    pub(crate) version: u64,
    pub(crate) last_updated: i64,
    pub(crate) operation: Operation,
    pub(crate) submission: Option<u64>,
    pub(crate) body: Option<(i64, &'r [u8])>,
}

/// A head to add or move.
pub(crate) struct HeadRow<'r> {
    pub(crate) rid: i64,
    pub(crate) resource_type: ResourceType,
    pub(crate) id: &'r str,
    pub(crate) version: u64,
    pub(crate) vid: u64,
    pub(crate) ord: i64,
    /// `None` leaves what is there.
    pub(crate) applied: Option<i64>,
}

/// A hit of the index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) ord: i64,
    pub(crate) rid: i64,
    pub(crate) vid: i64,
}

/// A step in index order.
pub(crate) struct Walk {
    /// The key walked along; `None` = the whole type.
    pub(crate) key: Option<Key>,
    pub(crate) of: ResourceType,
    pub(crate) after: Position,
    pub(crate) descending: bool,
    pub(crate) limit: usize,
}

/// A submission to add.
pub(crate) struct SubmissionEntry<'r> {
    pub(crate) sequence: u64,
    pub(crate) kind: i64,
    /// Milliseconds since 1970.
    pub(crate) received: i64,
    pub(crate) listener: &'r str,
    pub(crate) peer: Option<String>,
    pub(crate) identity: Option<&'r str>,
    pub(crate) control: Option<&'r str>,
    pub(crate) sha256: &'r [u8; 32],
    pub(crate) accepted: bool,
    pub(crate) answer: Option<&'r [u8]>,
    pub(crate) issues: Option<String>,
    /// `rid/version rid/version`
    pub(crate) targets: Option<&'r str>,
    pub(crate) content_type: &'r str,
    /// Of the body, and of the report in the next byte.
    pub(crate) encodings: i64,
    pub(crate) body: Option<&'r [u8]>,
    pub(crate) blob: Option<[u8; 32]>,
    pub(crate) report: Option<&'r [u8]>,
    pub(crate) about: &'r About,
    /// Why somebody should look at it.
    pub(crate) attention: Option<&'r str>,
}

/// A submission as read.
pub(crate) struct StoredSubmission {
    pub(crate) sequence: i64,
    pub(crate) kind: i64,
    pub(crate) received: i64,
    pub(crate) listener: String,
    pub(crate) peer: Option<String>,
    pub(crate) identity: Option<String>,
    pub(crate) control: Option<String>,
    pub(crate) sha256: [u8; 32],
    pub(crate) accepted: bool,
    pub(crate) answer: Option<Vec<u8>>,
    pub(crate) issues: Option<String>,
    pub(crate) targets: Option<String>,
    pub(crate) encodings: i64,
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) blob: Option<[u8; 32]>,
    pub(crate) report: Option<Vec<u8>>,
    pub(crate) content_type: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) called: Option<String>,
    pub(crate) replays: Option<i64>,
    pub(crate) attention: Option<String>,
}

/// A blob that was left behind.
pub(crate) struct Orphan {
    pub(crate) blob: BlobId,
    /// Somebody refers to it all the same.
    pub(crate) is_used: bool,
    /// Since when it is claimed, ms since 1970.
    pub(crate) claimed: Option<i64>,
}

/// A submission committed before: its number and its answer.
pub(crate) type Duplicate = (u64, Option<Vec<u8>>);

/// A study; texts of elements are JSON objects.
pub(crate) struct StudyRow {
    pub(crate) patient: Option<i64>,
    pub(crate) accession: Option<(String, String)>,
    pub(crate) elements: String,
    /// `system|value` of the Procedure.
    pub(crate) procedure: Option<String>,
    pub(crate) is_discontinued: bool,
    pub(crate) has_instances: bool,
}

/// An instance to add.
pub(crate) struct InstanceEntry<'r> {
    pub(crate) sop: &'r str,
    pub(crate) series: &'r str,
    pub(crate) study: &'r str,
    pub(crate) class: &'r str,
    pub(crate) syntax: &'r str,
    pub(crate) number: Option<i64>,
    pub(crate) elements: String,
    pub(crate) bytes: u64,
    pub(crate) sha256: &'r [u8; 32],
    pub(crate) blob: &'r [u8; 32],
    pub(crate) submission: u64,
    /// Milliseconds since 1970.
    pub(crate) received: i64,
}

/// When a study is due: dirty since `dirty_before`, or quiet since `quiet_before` and not published since `published_before`;
/// milliseconds since 1970.
pub(crate) struct Due {
    pub(crate) dirty_before: i64,
    pub(crate) quiet_before: i64,
    pub(crate) published_before: i64,
    pub(crate) max: i64,
}

impl StoredVersion<'_> {
    /// The version as it is told: decoded, with id and meta.
    pub(crate) fn complete(self) -> Result<Version, Error> {
        let resource_type = ResourceType::from_number(self.resource_type)
            .ok_or_else(|| Error::unavailable("an unknown type is stored"))?;
        let version = self.version.cast_unsigned();
        let last_updated = Timestamp::from_micros(self.last_updated);
        let body = match self.body {
            None => Bytes::new(),
            Some(packed) => {
                let stored = body::decode(self.encoding, packed)?;
                body::complete(&stored, resource_type.name(), &self.id, version, last_updated)
            }
        };
        Ok(Version {
            resource_type,
            id: self.id,
            version,
            last_updated,
            operation: Operation::from_number(self.operation),
            submission: self.submission.map(i64::cast_unsigned),
            body,
        })
    }
}

impl Operation {
    pub(crate) fn number(self) -> i64 {
        match self {
            Self::Create => 0,
            Self::Update => 1,
            Self::Delete => 2,
        }
    }

    fn from_number(number: i64) -> Self {
        match number {
            0 => Self::Create,
            1 => Self::Update,
            _ => Self::Delete,
        }
    }
}

/// The first text after all that start with `prefix`.
pub(crate) fn after_prefix(prefix: &str) -> String {
    format!("{prefix}\u{10FFFF}")
}

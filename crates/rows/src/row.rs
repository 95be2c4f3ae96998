//! What goes to and comes from a database: a struct for each kind of row, its fields those of the columns.

#![expect(missing_docs, reason = "a field without a comment is the column of its name")]

use bytes::Bytes;
use hilum_fhir::{Match, ResourceType, Timestamp};

use crate::keys::{self, Key};
use crate::{BlobId, Error, InstanceFile, Operation, Version, body};

/// Resources looked at that have one identifier.
pub const SAME_IDENTIFIER_MAX: usize = 8;

/// A submission, as far as its age decides.
pub struct OldSubmission {
    pub sequence: i64,
    /// Milliseconds since 1970.
    pub received: i64,
    pub kind: i64,
    pub accepted: bool,
    pub has_blob: bool,
}

/// A version and the one it superseded.
pub struct OldVersion {
    pub vid: i64,
    /// Microseconds since 1970.
    pub last_updated: i64,
    pub rid: i64,
    pub version: i64,
    /// Feed position of the version before, while there is one.
    pub predecessor: Option<i64>,
}

/// A look-up that a plan or a job will do for sure: many are done together where each costs a round trip.
#[derive(Clone, Debug)]
pub enum Ask {
    Duplicate(i64, [u8; 32]),
    Head(ResourceType, String),
    /// With [`SAME_IDENTIFIER_MAX`].
    Key(Key),
    /// Whether it is claimed.
    Claim(BlobId),
    /// The epoch of a destination.
    Epoch(String),
}

impl Ask {
    /// What is found by an identifier.
    pub fn of(wanted: &Match) -> Self {
        Self::Key(keys::identifier_key(wanted.resource_type, wanted.system.as_deref(), &wanted.value))
    }
}

/// The numbers given out so far. Never reused.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    pub rid: i64,
    pub vid: u64,
    pub seq: u64,
}

/// The current state of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub rid: i64,
    pub version: u64,
    pub vid: i64,
    pub ord: i64,
    pub deleted: bool,
    /// Milliseconds of the last event applied of `sender`.
    pub applied: Option<i64>,
    /// Hash of the first sender whose event was applied; times of further ones are rows of their own.
    pub sender: Option<i64>,
    /// The rid of the survivor.
    pub successor: Option<i64>,
}

/// What a version holds.
pub struct Content {
    /// Microseconds since 1970.
    pub last_updated: i64,
    pub encoding: i64,
    /// `None` = a deletion.
    pub body: Option<Vec<u8>>,
}

/// A version with its names, as an engine reads it.
pub struct StoredVersion<'r> {
    pub resource_type: i64,
    pub id: String,
    pub version: i64,
    pub last_updated: i64,
    pub operation: i64,
    pub submission: Option<i64>,
    pub encoding: i64,
    pub body: Option<&'r [u8]>,
}

/// A version to add.
pub struct VersionRow<'r> {
    pub vid: u64,
    pub rid: i64,
    pub version: u64,
    pub last_updated: i64,
    pub operation: Operation,
    pub submission: Option<u64>,
    pub body: Option<(i64, &'r [u8])>,
}

/// A head to add or move.
pub struct HeadRow<'r> {
    pub rid: i64,
    pub resource_type: ResourceType,
    pub id: &'r str,
    pub version: u64,
    pub vid: u64,
    pub ord: i64,
    /// Time of the event and hash of its sender; `None` leaves what is there.
    pub applied: Option<(i64, Option<i64>)>,
}

/// A hit of the index.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    pub ord: i64,
    pub rid: i64,
    pub vid: i64,
}

/// A resource that changed since a feed position.
pub struct Changed {
    pub rid: i64,
    pub ord: i64,
    /// By now.
    pub deleted: bool,
    /// Its version of then, as a feed position; `None` when there was none.
    pub earlier: Option<i64>,
}

/// A place in the order of the index: after this `(ord, rid)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub ord: i64,
    pub rid: i64,
}

/// A step in index order.
pub struct Walk {
    /// The key walked along; `None` = the whole type.
    pub key: Option<Key>,
    pub of: ResourceType,
    pub after: Position,
    pub descending: bool,
    pub limit: usize,
}

/// A submission to add.
pub struct SubmissionEntry<'r> {
    pub sequence: u64,
    pub kind: i64,
    /// Milliseconds since 1970.
    pub received: i64,
    pub listener: &'r str,
    pub peer: Option<String>,
    pub identity: Option<&'r str>,
    pub control: Option<&'r str>,
    pub sha256: &'r [u8; 32],
    pub accepted: bool,
    pub answer: Option<&'r [u8]>,
    pub issues: Option<String>,
    /// `rid/version rid/version`
    pub targets: Option<&'r str>,
    pub content_type: &'r str,
    /// Of the body, and of the report in the next byte.
    pub encodings: i64,
    pub body: Option<&'r [u8]>,
    pub blob: Option<[u8; 32]>,
    pub report: Option<&'r [u8]>,
    /// What it is in the words of its protocol.
    pub message: Option<&'r str>,
    /// Who was called.
    pub called: Option<&'r str>,
    /// The submission it replays.
    pub replays: Option<u64>,
    /// Why somebody should look at it.
    pub attention: Option<&'r str>,
}

/// Which submissions are listed: all that is given has to hold.
#[derive(Clone, Debug, Default)]
pub struct WantedSubmissions {
    /// Only smaller numbers.
    pub before: u64,
    /// No smaller number.
    pub floor: u64,
    /// Received then or later, ms since 1970.
    pub since: i64,
    pub accepted: Option<bool>,
    /// Only those with an attention mark.
    pub attention: bool,
    pub kind: Option<i64>,
    pub control: Option<String>,
    pub listener: Option<String>,
    /// The whole text, or what stands before a `^` or a blank in it.
    pub message: Option<String>,
    /// The address without its port, the whole identity, or a part of it between bars.
    pub peer: Option<String>,
    pub count: u32,
}

/// A submission as read.
#[derive(Clone)]
pub struct StoredSubmission {
    pub sequence: i64,
    pub kind: i64,
    pub received: i64,
    pub listener: String,
    pub peer: Option<String>,
    pub identity: Option<String>,
    pub control: Option<String>,
    pub sha256: [u8; 32],
    pub accepted: bool,
    pub answer: Option<Vec<u8>>,
    pub issues: Option<String>,
    pub targets: Option<String>,
    pub encodings: i64,
    pub body: Option<Vec<u8>>,
    pub blob: Option<[u8; 32]>,
    pub report: Option<Vec<u8>>,
    pub content_type: Option<String>,
    pub message: Option<String>,
    pub called: Option<String>,
    pub replays: Option<i64>,
    pub attention: Option<String>,
}

/// A blob that was left behind.
pub struct Orphan {
    pub blob: BlobId,
    /// Somebody refers to it all the same.
    pub is_used: bool,
    /// Since when it is claimed, ms since 1970.
    pub claimed: Option<i64>,
}

/// A submission committed before: its number and its answer.
pub type Duplicate = (u64, Option<Vec<u8>>);

/// A study; texts of elements are JSON objects. Its key is the Study Instance UID; where senders use one UID for several patients, each
/// further patient's study has the key `UID@rid of the patient`, so that no study shows another patient's images.
#[derive(Clone)]
pub struct StudyRow {
    pub patient: Option<i64>,
    pub accession: Option<(String, String)>,
    pub elements: String,
    /// JSON: for each order the identifiers that name it, `[[[system, value], …], …]`.
    pub orders: Option<String>,
    /// Whether somebody has to look at it.
    pub attention: bool,
    pub has_instances: bool,
    /// The rid of the ImagingStudy drawn of it.
    pub drawn_as: Option<i64>,
    /// When it was published last, ms since 1970.
    pub published: Option<i64>,
    /// Whether something of it is not published yet.
    pub is_dirty: bool,
    /// Counts the changes of the study and everything below it.
    pub revision: i64,
}

/// A performed step; the text of attributes is a JSON object.
#[derive(Clone)]
pub struct StepRow {
    /// Key of its study.
    pub study: String,
    pub patient: Option<i64>,
    /// `system|value` of its Procedure.
    pub procedure: String,
    pub state: i64,
    pub revision: i64,
    pub attributes: String,
}

/// Where the current instance with a SOP Instance UID stands.
pub struct InstancePlace {
    /// Key of its study.
    pub study: String,
    pub series: String,
    pub file: InstanceFile,
}

/// The Study Instance UID of a study's key.
pub fn study_uid(key: &str) -> &str {
    key.split('@').next().unwrap_or(key)
}

/// An instance to add.
pub struct InstanceEntry<'r> {
    pub sop: &'r str,
    pub series: &'r str,
    pub study: &'r str,
    pub class: &'r str,
    pub syntax: &'r str,
    pub number: Option<i64>,
    pub elements: String,
    pub bytes: u64,
    pub sha256: &'r [u8; 32],
    pub blob: &'r [u8; 32],
    pub submission: u64,
    /// Milliseconds since 1970.
    pub received: i64,
}

/// When a study is due: dirty since `dirty_before`, or quiet since `quiet_before` and not published since `published_before`;
/// milliseconds since 1970.
pub struct Due {
    pub dirty_before: i64,
    pub quiet_before: i64,
    pub published_before: i64,
    pub max: i64,
}

impl StoredVersion<'_> {
    /// The version as it is told: decoded, with id and meta.
    ///
    /// # Errors
    /// `Unavailable` when its type or the encoding of its body is unknown.
    pub fn complete(self) -> Result<Version, Error> {
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

//! The values that go in and out of the store.

use std::net::SocketAddr;
use std::path::PathBuf;

use bytes::Bytes;
use hilum_fhir::{Issue, ResourceType, Timestamp};
use hilum_rows::body;

use crate::commit::plan::Drafted;
use crate::{BlobId, Memory, PostgresConfig, S3Config, Version};

/// How the store is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Folder of the embedded store: `control.db`, `sites/{id}/site.db`, `sites/{id}/blobs/`.
    pub data_dir: PathBuf,
    /// The server that holds everything but the blobs; `None` = files below the data folder.
    pub postgres: Option<PostgresConfig>,
    /// The memory that holds everything but the blobs, instead of a server or files: for tests.
    pub memory: Option<Memory>,
    /// The bucket that holds the blobs; `None` = files below the data folder.
    pub bucket: Option<S3Config>,
    /// Largest number of jobs in one write transaction.
    pub batch_jobs_max: usize,
    /// Largest number of bytes in one write transaction.
    pub batch_bytes_max: usize,
    /// Largest number of jobs waiting for the writer; more are refused as `Unavailable`.
    pub queue_jobs_max: usize,
    /// Largest number of bytes waiting for the writer.
    pub queue_bytes_max: usize,
    /// Below this many free bytes on the file system writes are refused as `Full`.
    pub free_bytes_min: u64,
    /// Below this many free bytes on the file system of the blobs none is begun: `Full`.
    pub blobs_free_bytes_min: u64,
    /// Originals of rejected submissions are kept up to this many bytes; then the oldest go.
    pub quarantine_bytes_max: u64,
    /// Originals of rejected submissions are kept for this many days.
    pub quarantine_days_max: u32,
    /// Page cache of one site's writer, in bytes.
    pub cache_bytes: u64,
    /// Largest page of a search.
    pub count_max: u32,
    /// Default page of a search.
    pub count_default: u32,
    /// Largest number of included resources on a page.
    pub includes_max: u32,
    /// A total is counted on every search up to this many matches.
    pub total_probe_max: u32,
    /// Most candidates a search may look at.
    pub candidates_max: u32,
    /// Most resources that a link of a chained parameter or `_has` may lead over.
    pub chained_max: u32,
    /// Whether the lock that keeps a second edge out is taken. Commands beside a running edge (`hilum submissions`) do not take it: of files they
    /// only read, and nothing is created or migrated for them.
    pub exclusive: bool,
}

impl Config {
    /// A store whose rows are in memory, and its blobs below a folder: for tests. Opened with the same memory again it holds what it held.
    pub fn in_memory(data_dir: PathBuf, memory: Memory) -> Self {
        Self { memory: Some(memory), ..Self::new(data_dir) }
    }

    /// What the rows need to know of it.
    pub(crate) fn of_rows(&self) -> hilum_rows::Config {
        hilum_rows::Config {
            data_dir: self.data_dir.clone(),
            postgres: self.postgres.clone(),
            memory: self.memory.clone(),
            batch_jobs_max: self.batch_jobs_max,
            batch_bytes_max: self.batch_bytes_max,
            queue_jobs_max: self.queue_jobs_max,
            queue_bytes_max: self.queue_bytes_max,
            free_bytes_min: self.free_bytes_min,
            cache_bytes: self.cache_bytes,
            is_beside: !self.exclusive,
        }
    }

    /// The embedded store below a folder, with the default limits.
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            postgres: None,
            memory: None,
            bucket: None,
            batch_jobs_max: 512,
            batch_bytes_max: 4 << 20,
            queue_jobs_max: 4_096,
            queue_bytes_max: 256 << 20,
            free_bytes_min: 1 << 30,
            blobs_free_bytes_min: 1 << 30,
            quarantine_bytes_max: 10 << 30,
            quarantine_days_max: 30,
            cache_bytes: 256 << 20,
            count_max: 1_000,
            count_default: 20,
            includes_max: 1_000,
            total_probe_max: 1_000,
            candidates_max: 100_000,
            chained_max: 10_000,
            exclusive: true,
        }
    }
}

/// The protocol a submission came in, which separates control ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the protocols")]
pub enum OriginalKind {
    V2,
    V3,
    Mpps,
    Dicom,
    Fhir,
    Internal,
}

/// What came in, as it is kept.
#[derive(Clone, Debug)]
pub struct Original {
    /// The protocol.
    pub kind: OriginalKind,
    /// Name of the listener (`mllp-3000`).
    pub listener: String,
    /// The peer's address.
    pub peer: Option<SocketAddr>,
    /// Who the peer said or proved to be: AE title, MSH-3|MSH-4, key name.
    pub identity: Option<String>,
    /// Sender identity and control id: the duplicate key. `None` = no duplicate check.
    pub control: Option<(String, String)>,
    /// SHA-256 of the original bytes.
    pub sha256: [u8; 32],
    /// The blob that holds the original, when it is one already (DICOM).
    pub blob: Option<BlobId>,
    /// The bytes; at most 16 KiB go into the row, more into a blob. `None` for FHIR REST writes and DICOM (the blob of the instance).
    pub bytes: Option<Bytes>,
    /// Content type of the bytes.
    pub content_type: &'static str,
    /// When it came in.
    pub received: Timestamp,
    /// Lineage, issues and unmapped locations as compact JSON without values; kept with the submission.
    pub report: Option<Bytes>,
    /// What it is called by those who look for it.
    pub about: About,
}

/// What a submission is called by those who look for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// What it is in the words of its protocol: `ADT^A08`, `PRPA_IN201301UV02`, `C-STORE CT`.
    pub message: Option<String>,
    /// What names it where no control id does: the SOP Instance UID of an image, the control id of what is replayed.
    pub reference: Option<String>,
    /// Who was called: the called AE title, `MSH-5|MSH-6`.
    pub called: Option<String>,
    /// Number of the submission this one replays.
    pub replays: Option<u64>,
}

/// Which submissions are listed: all that is given has to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubmissionFilter {
    /// Only those with a smaller number.
    pub before: Option<u64>,
    /// Only those received at this time or later.
    pub since: Option<Timestamp>,
    /// Only accepted ones, or only rejected ones.
    pub accepted: Option<bool>,
    /// Only those with an attention mark.
    pub attention: bool,
    /// The control id or SOP Instance UID.
    pub control: Option<String>,
    /// The peer: its address (without port), its whole identity, or a part of it between bars (MSH-3 or MSH-4).
    pub peer: Option<String>,
    /// Name of the listener.
    pub listener: Option<String>,
    /// What it is in the words of its protocol: `ADT^A08`; `ADT` matches every event of it, `C-STORE` every modality.
    pub message: Option<String>,
    /// The protocol.
    pub kind: Option<OriginalKind>,
    /// How many, at most [`SubmissionFilter::COUNT_MAX`].
    pub count: u32,
}

impl SubmissionFilter {
    /// Rows of one page.
    pub const COUNT_MAX: u32 = 500;
}

/// A page of a list of submissions, newest first.
#[derive(Clone, Debug, Default)]
pub struct SubmissionPage {
    /// The submissions, without original, answer, report and targets.
    pub rows: Vec<SubmissionRow>,
    /// Where to go on ([`SubmissionFilter::before`]); `None` at the end. A page that is not full may have a next one: only so many rows are looked
    /// at for a page.
    pub next: Option<u64>,
}

/// What a replay would do to one resource.
#[derive(Clone, Debug)]
pub struct Foretold {
    /// What would be done.
    pub effect: Effect,
    /// The type.
    pub resource_type: ResourceType,
    /// The id; of a resource that is not there yet one that it will not have.
    pub id: String,
    /// The content now, as JSON; `None` = there is none.
    pub before: Option<serde_json::Value>,
    /// The content then; `None` = deleted, or only rows of images are written.
    pub after: Option<serde_json::Value>,
}

/// What a commit did.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Number of the submission.
    pub submission: u64,
    /// One outcome for each change, in order. Empty for a duplicate.
    pub outcomes: Vec<Outcome>,
    /// The answer stored with the submission; for a duplicate the first one's.
    pub answer: Option<Bytes>,
    /// The same submission had been committed before; nothing was written.
    pub duplicate: bool,
    /// What the sender and the people who run the edge should know: late, joined, in conflict, left out.
    pub remarks: Vec<Remark>,
}

/// What there is under a Study Instance UID, or was until it was deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StudyContents {
    /// Studies: one, unless senders use the UID for several patients.
    pub studies: u32,
    /// Images in them; one that was replaced counts once.
    pub images: u64,
    /// Number of the submission that says they were deleted; `None` = they are still there, or there were none.
    pub submission: Option<u64>,
}

/// Something that became known only when a submission met what is stored. It blocked nothing.
#[derive(Clone, Debug)]
pub struct Remark {
    /// What kind of thing it is.
    pub kind: RemarkKind,
    /// What and where, without a value of the message.
    pub issue: Issue,
}

/// The kinds of [`Remark`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemarkKind {
    /// Older than what the same sender said before: it changed nothing.
    Late,
    /// A number without an authority was joined with a known patient.
    Joined,
    /// Senders disagree whose something is: somebody has to look at it.
    Conflict,
    /// A value was left out.
    LeftOut,
}

impl RemarkKind {
    /// As metrics, logs and the attention list name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Joined => "joined",
            Self::Conflict => "identity-conflict",
            Self::LeftOut => "left-out",
        }
    }
}

/// Renders the answer of a submission with what became known of it in the commit.
pub type Render = std::sync::Arc<dyn Fn(&[Issue]) -> Bytes + Send + Sync>;

/// The answer that is stored with a submission and replayed to its repeats.
#[derive(Clone, Default)]
pub struct Answer {
    /// The answer when the commit has nothing to add.
    pub plain: Option<Bytes>,
    /// Renders it anew when the commit has remarks; `None` = they are not told.
    pub with_remarks: Option<Render>,
}

impl From<Option<Bytes>> for Answer {
    fn from(plain: Option<Bytes>) -> Self {
        Self { plain, with_remarks: None }
    }
}

/// What happened to one change.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was done.
    pub effect: Effect,
    /// The resource it is about (for an instance its ImagingStudy, when it exists by now).
    pub resource_type: ResourceType,
    /// Its id.
    pub id: String,
    /// Its version after the change; for `Late` and `Unchanged` the current one.
    pub version: u64,
    /// `meta.lastUpdated` of that version.
    pub last_updated: Timestamp,
    /// Where its content is; `None` of rows without a resource.
    pub(crate) content: Option<Drafted>,
}

impl Outcome {
    /// The complete JSON of that version; empty for `Deleted` and rows without a resource. Made when it is asked for: most senders do not read it.
    pub fn body(&self) -> Bytes {
        let stored = match &self.content {
            Some(content) if self.effect != Effect::Deleted => content.stored_form(),
            _ => return Bytes::new(),
        };
        if stored.is_empty() {
            return Bytes::new();
        }
        body::complete(&stored, self.resource_type.name(), &self.id, self.version, self.last_updated)
    }
}

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A new resource (or a deleted one revived).
    Created,
    /// A new version.
    Updated,
    /// Equal content, or `Ensure` found it: no new version.
    Unchanged,
    /// A deletion version, or there was nothing to delete.
    Deleted,
    /// Older than what was applied before: not applied.
    Late,
    /// Rows were written without a resource version.
    Recorded,
}

/// One page of a search.
#[derive(Clone, Debug)]
pub struct Page {
    /// The matches in order.
    pub matches: Vec<Version>,
    /// What `_include` and `_revinclude` add, each once, none of them a match of this page.
    pub includes: Vec<Version>,
    /// Whether includes were cut at the limit.
    pub includes_cut: bool,
    /// Number of matches in all, when asked or cheap.
    pub total: Option<u64>,
    /// Cursor of the next page, when there is one.
    pub next: Option<String>,
}

/// One submission as kept.
#[derive(Clone, Debug)]
pub struct SubmissionRow {
    /// Its number.
    pub sequence: u64,
    /// The protocol.
    pub kind: OriginalKind,
    /// When it came in.
    pub received: Timestamp,
    /// Listener name.
    pub listener: String,
    /// Peer address.
    pub peer: Option<String>,
    /// Who the peer was.
    pub identity: Option<String>,
    /// Control id or SOP Instance UID, when it had one.
    pub control_id: Option<String>,
    /// SHA-256 of the original.
    pub sha256: [u8; 32],
    /// Whether it was accepted.
    pub accepted: bool,
    /// The answer sent.
    pub answer: Option<Bytes>,
    /// The issues, without values.
    pub issues: Vec<Issue>,
    /// The original bytes, when kept in the row.
    pub bytes: Option<Bytes>,
    /// The blob that holds the original, when it is one. Of a rejected submission both are gone after a time.
    pub blob: Option<BlobId>,
    /// Content type of the original.
    pub content_type: Option<String>,
    /// Lineage, issues, unmapped.
    pub report: Option<Bytes>,
    /// Versions it caused: type, id, version.
    pub targets: Vec<(ResourceType, String, u64)>,
    /// How many versions it caused.
    pub versions: usize,
    /// What it is in the words of its protocol: `ADT^A08`, `C-STORE CT`.
    pub message: Option<String>,
    /// Who was called: AE title, `MSH-5|MSH-6`.
    pub called: Option<String>,
    /// The submission this one replays.
    pub replays: Option<u64>,
    /// Why somebody should look at it: `identity-conflict`, `late`. `None` = nobody has to.
    pub attention: Option<String>,
}

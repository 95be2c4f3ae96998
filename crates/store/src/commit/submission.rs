//! Submissions: every inbound thing has one row, rejected ones too, with the exact bytes answered.

use bytes::Bytes;
use hilum_blobs::Blobs;
use hilum_fhir::{Issue, IssueCode, ResourceType, Severity, Timestamp};
use hilum_rows::row::{StoredSubmission, SubmissionEntry, WantedSubmissions};
use hilum_rows::{Db, body};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::apply::Apply;
use crate::{
    BlobId, Delivery, Error, Original, OriginalKind, Remark, RemarkKind, SubmissionFilter, SubmissionPage,
    SubmissionRow,
};

/// Originals up to this many bytes are kept in the row, larger ones as blobs.
pub(crate) const INLINE_BYTES_MAX: usize = 16 * 1024;

/// An original with its bytes packed, off the writer.
pub(crate) struct Packed {
    pub(crate) original: Original,
    encoding: i64,
    inline: Option<Vec<u8>>,
    blob: Option<BlobId>,
    report: Option<(i64, Vec<u8>)>,
}

impl Packed {
    /// Packs an original; `blob` is where its bytes lie when they are large (or those of a DICOM object).
    pub(crate) fn new(original: Original, blob: Option<BlobId>) -> Self {
        let small = original.bytes.as_ref().filter(|_| blob.is_none());
        let (encoding, inline) = match small {
            Some(bytes) => {
                let (encoding, packed) = body::encode(bytes);
                (encoding, Some(packed))
            }
            None => (0, None),
        };
        let report = original.report.as_ref().filter(|r| !r.is_empty()).map(|report| body::encode(report));
        Self { original, encoding, inline, blob, report }
    }

    /// Bytes this adds to a batch.
    pub(crate) fn bytes(&self) -> usize {
        256 + self.inline.as_ref().map_or(0, Vec::len) + self.report.as_ref().map_or(0, |(_, r)| r.len())
    }

    /// Waits for the blob it names.
    pub(crate) async fn durable(&self, blobs: &Blobs) -> Result<(), Error> {
        match &self.blob {
            Some(blob) => Ok(blobs.durable(blob).await?),
            None => Ok(()),
        }
    }

    /// The blob its row will name.
    pub(crate) fn blob(&self) -> Option<BlobId> {
        self.blob
    }

    /// Bytes on disk of the original; `None` when there is none.
    pub(crate) async fn kept_bytes(&self, blobs: &Blobs) -> Result<Option<u64>, Error> {
        match (&self.inline, &self.blob) {
            (Some(inline), _) => Ok(Some(inline.len() as u64)),
            (None, Some(blob)) => Ok(blobs.bytes(blob).await?),
            (None, None) => Ok(None),
        }
    }

    /// The duplicate key: protocol, sender identity and control id.
    pub(crate) fn control_key(&self) -> Option<i64> {
        // a replay of the same bytes is wanted
        let (identity, control) =
            self.original.control.as_ref().filter(|_| self.original.about.replays.is_none())?;
        let kind = self.original.kind.number();
        let input = format!("{kind}\0{}\0{identity}\0{control}", identity.len());
        Some(xxh3_64(input.as_bytes()).cast_signed())
    }
}

/// How a submission ended.
pub(super) enum Verdict<'v> {
    Accepted(&'v [Remark]),
    Rejected(&'v [Issue]),
}

impl Apply<'_> {
    /// Refuses a submission whose blob is being removed, from when it was sent before.
    pub(super) fn check_blob(&self, packed: &Packed) -> Result<(), Error> {
        match &packed.blob {
            Some(blob) if self.db.is_claimed(blob)? => {
                Err(Error::unavailable("the same content, sent before, is being removed"))
            }
            _ => Ok(()),
        }
    }

    /// Writes the row of the submission begun, and its duplicate key when it was accepted.
    pub(super) fn submission(
        &mut self,
        packed: &Packed,
        answer: Option<&[u8]>,
        verdict: Verdict<'_>,
        targets: &str,
    ) -> Result<(), Error> {
        let original = &packed.original;
        let (accepted, issues, attention) = match verdict {
            Verdict::Accepted(remarks) => {
                let issues: Vec<Issue> = remarks.iter().map(|remark| remark.issue.clone()).collect();
                (true, Some(issues).filter(|issues| !issues.is_empty()), attention(remarks))
            }
            Verdict::Rejected(issues) => (false, Some(issues.to_vec()), attention_of(issues)),
        };
        let received = original.received.millis();
        // the encodings of body and report share a column: both are packed by the same function
        let (report_encoding, report) = packed.report.as_ref().map_or((0, None), |(e, r)| (*e, Some(r)));
        self.db.add_submission(&SubmissionEntry {
            sequence: self.submission,
            kind: original.kind.number(),
            received,
            listener: &original.listener,
            peer: original.peer.map(|p| p.to_string()),
            identity: original.identity.as_deref(),
            control: original
                .control
                .as_ref()
                .map(|(_, control)| control)
                .or(original.about.reference.as_ref())
                .map(String::as_str),
            sha256: &original.sha256,
            accepted,
            answer,
            issues: issues.as_deref().map(issues_text),
            targets: Some(targets.trim_end()).filter(|t| !t.is_empty()),
            content_type: original.content_type,
            encodings: packed.encoding | (report_encoding << 8),
            body: packed.inline.as_deref(),
            blob: packed.blob.map(|blob| blob.0),
            report: report.map(Vec::as_slice),
            message: original.about.message.as_deref(),
            called: original.about.called.as_deref(),
            replays: original.about.replays,
            attention,
        })?;
        match packed.control_key().filter(|_| accepted) {
            Some(key) => self.db.add_duplicate_key(key, &original.sha256, self.submission, received),
            None => Ok(()),
        }
    }
}

impl OriginalKind {
    pub(crate) fn number(self) -> i64 {
        match self {
            Self::V2 => 0,
            Self::V3 => 1,
            Self::Mpps => 2,
            Self::Dicom => 3,
            Self::Fhir => 4,
            Self::Internal => 5,
        }
    }

    fn from_number(number: i64) -> Self {
        match number {
            0 => Self::V2,
            1 => Self::V3,
            2 => Self::Mpps,
            3 => Self::Dicom,
            4 => Self::Fhir,
            _ => Self::Internal,
        }
    }
}

/// One submission.
pub(crate) fn one(db: Db<'_>, sequence: u64) -> Result<Option<SubmissionRow>, Error> {
    db.submission(sequence)?.map(|row| told(db, row)).transpose()
}

/// The newest before `before`.
pub(crate) fn newest(db: Db<'_>, before: Option<u64>, count: u32) -> Result<Vec<SubmissionRow>, Error> {
    db.submissions(before, count)?.into_iter().map(|row| told(db, row)).collect()
}

/// The numbers of those that caused the versions of a resource, newest first.
pub(crate) fn numbers_of(
    db: Db<'_>,
    resource_type: ResourceType,
    id: &str,
    count: u32,
) -> Result<Vec<u64>, Error> {
    match db.head(resource_type, id)? {
        Some(head) => db.submissions_of(head.rid, count),
        None => Ok(Vec::new()),
    }
}

/// Those with these numbers that are there, in the order of the numbers.
pub(crate) fn numbered(db: Db<'_>, numbers: &[u64]) -> Result<Vec<SubmissionRow>, Error> {
    numbers.iter().filter_map(|number| one(db, *number).transpose()).collect()
}

/// Numbers looked at for one page when no index leads to what is asked for.
const LOOKED_MAX: u64 = 200_000;
/// A clock may have been set back: submissions are in the order of their times but for so much.
const CLOCK_SLACK_MS: i64 = 3_600_000;

/// A page of those a filter lets through, newest first.
pub(crate) fn matching(db: Db<'_>, filter: &SubmissionFilter) -> Result<SubmissionPage, Error> {
    let first = first_since(db, filter)?;
    let end = match filter.before {
        Some(before) => before,
        None => db.submissions(None, 1)?.first().map_or(0, |newest| newest.sequence.cast_unsigned() + 1),
    };
    let is_indexed = filter.control.is_some() || filter.attention || filter.accepted == Some(false);
    let looked_from = if is_indexed { 0 } else { end.saturating_sub(LOOKED_MAX) };
    let floor = first.max(looked_from);
    let count = filter.count.clamp(1, SubmissionFilter::COUNT_MAX);
    // one more tells whether there is a next page
    let wanted = WantedSubmissions {
        before: end,
        floor,
        since: filter.since.map_or(i64::MIN, Timestamp::millis),
        accepted: filter.accepted,
        attention: filter.attention,
        kind: filter.kind.map(OriginalKind::number),
        control: filter.control.clone(),
        listener: filter.listener.clone(),
        message: filter.message.clone(),
        peer: filter.peer.clone(),
        count: count + 1,
    };
    let mut found = db.submissions_matching(&wanted)?;
    let is_full = found.len() > count as usize;
    found.truncate(count as usize);
    let next = if is_full {
        found.last().map(|row| row.sequence.cast_unsigned())
    } else {
        Some(floor).filter(|floor| *floor > first.max(1))
    };
    let rows = found.into_iter().map(listed).collect::<Result<_, Error>>()?;
    Ok(SubmissionPage { rows, next })
}

/// The number from which on submissions may have been received since the time asked for. Found by halving: numbers are given out in the order of
/// receipt, but for the slack.
fn first_since(db: Db<'_>, filter: &SubmissionFilter) -> Result<u64, Error> {
    let Some(since) = filter.since else { return Ok(0) };
    let since = since.millis().saturating_sub(CLOCK_SLACK_MS);
    let newest = db.submissions(None, 1)?.first().map_or(0, |row| row.sequence.cast_unsigned());
    let (mut low, mut high) = (0, newest + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        match db.submission_from(middle)? {
            Some((sequence, received)) if received < since => low = sequence + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// The deliveries of the versions a submission caused, at most so many.
pub(crate) fn deliveries(db: Db<'_>, sequence: u64, max: u32) -> Result<Vec<Delivery>, Error> {
    let targets = db.submission(sequence)?.and_then(|row| row.targets).unwrap_or_default();
    let versions: Vec<(i64, i64)> = numbers(&targets).collect();
    if versions.is_empty() { Ok(Vec::new()) } else { db.deliveries_of(&versions, max) }
}

/// A row of a list: nothing is looked up for it.
fn listed(row: StoredSubmission) -> Result<SubmissionRow, Error> {
    with_targets(row, Vec::new())
}

fn told(db: Db<'_>, row: StoredSubmission) -> Result<SubmissionRow, Error> {
    let targets = targets(db, row.targets.as_deref().unwrap_or_default())?;
    with_targets(row, targets)
}

fn with_targets(
    row: StoredSubmission,
    targets: Vec<(ResourceType, String, u64)>,
) -> Result<SubmissionRow, Error> {
    let unpack = |encoding: i64, bytes: Option<Vec<u8>>| {
        bytes.map(|b| body::decode(encoding, &b).map(Bytes::from)).transpose()
    };
    Ok(SubmissionRow {
        sequence: row.sequence.cast_unsigned(),
        kind: OriginalKind::from_number(row.kind),
        received: Timestamp::from_micros(row.received * 1000),
        listener: row.listener,
        peer: row.peer,
        identity: row.identity,
        control_id: row.control,
        sha256: row.sha256,
        accepted: row.accepted,
        answer: row.answer.map(Bytes::from),
        issues: row.issues.map(|text| issues_from(&text)).unwrap_or_default(),
        versions: numbers(row.targets.as_deref().unwrap_or_default()).count(),
        targets,
        bytes: unpack(row.encodings & 0xff, row.body)?,
        blob: row.blob.map(BlobId),
        content_type: row.content_type,
        report: unpack(row.encodings >> 8, row.report)?,
        message: row.message,
        called: row.called,
        replays: row.replays.map(i64::cast_unsigned),
        attention: row.attention,
    })
}

/// `rid/version rid/version` as type, id and version.
fn targets(db: Db<'_>, text: &str) -> Result<Vec<(ResourceType, String, u64)>, Error> {
    let mut found = Vec::new();
    for (rid, version) in numbers(text) {
        if let Some((resource_type, id)) = db.name(rid)? {
            found.push((resource_type, id, version.cast_unsigned()));
        }
    }
    Ok(found)
}

/// `rid/version rid/version` as numbers.
fn numbers(text: &str) -> impl Iterator<Item = (i64, i64)> {
    let pairs = text.split(' ').filter_map(|target| target.split_once('/'));
    pairs.filter_map(|(rid, version)| Some((rid.parse().ok()?, version.parse().ok()?)))
}

/// The mark of a rejected submission that somebody should look at: whose it is could not be decided (HL7 table 0357: 205).
fn attention_of(issues: &[Issue]) -> Option<&'static str> {
    let is_conflict = |issue: &Issue| {
        issue.rejects() && (issue.hl7_code == Some(205) || issue.code == IssueCode::MultipleMatches)
    };
    issues.iter().any(is_conflict).then_some(RemarkKind::Conflict.as_str())
}

/// The mark of an accepted one: senders disagree whose something is, or it came late.
fn attention(remarks: &[Remark]) -> Option<&'static str> {
    let marks = [RemarkKind::Conflict, RemarkKind::Late];
    let mark = marks.into_iter().find(|kind| remarks.iter().any(|remark| remark.kind == *kind));
    mark.map(RemarkKind::as_str)
}

/// Severity, code, place, text, HL7 code.
type IssueRow = (String, String, Option<String>, String, Option<u16>);

fn issues_text(issues: &[Issue]) -> String {
    let list: Vec<Value> = issues
        .iter()
        .map(|i| json!([i.severity.as_str(), i.code.as_str(), i.location, i.diagnostics, i.hl7_code]))
        .collect();
    Value::Array(list).to_string()
}

fn issues_from(text: &str) -> Vec<Issue> {
    let list: Vec<IssueRow> = serde_json::from_str(text).unwrap_or_default();
    list.into_iter()
        .map(|(severity, code, location, diagnostics, hl7_code)| {
            let severity = match severity.as_str() {
                "fatal" => Severity::Fatal,
                "error" => Severity::Error,
                "warning" => Severity::Warning,
                _ => Severity::Information,
            };
            let code = IssueCode::from_code(&code).unwrap_or(IssueCode::Processing);
            Issue { severity, code, location, diagnostics, hl7_code, change: None }
        })
        .collect()
}

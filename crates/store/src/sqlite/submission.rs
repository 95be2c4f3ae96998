//! Submissions: every inbound thing has one row, rejected ones too, with the exact bytes answered.

use bytes::Bytes;
use hilum_fhir::{Issue, IssueCode, ResourceType, Severity, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::apply::Apply;
use super::{body, lookup};
use crate::blobs::Blobs;
use crate::{BlobId, Error, Original, OriginalKind, SubmissionRow};

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
            Some(blob) => blobs.durable(blob).await,
            None => Ok(()),
        }
    }

    /// Bytes on disk of the original; `None` when there is none.
    pub(crate) async fn kept_bytes(&self, blobs: &Blobs) -> Result<Option<u64>, Error> {
        match (&self.inline, &self.blob) {
            (Some(inline), _) => Ok(Some(inline.len() as u64)),
            (None, Some(blob)) => blobs.bytes(blob).await,
            (None, None) => Ok(None),
        }
    }

    /// The duplicate key: protocol, sender identity and control id.
    pub(super) fn control_key(&self) -> Option<i64> {
        let (identity, control) = self.original.control.as_ref()?;
        let kind = self.original.kind.number();
        let input = format!("{kind}\0{}\0{identity}\0{control}", identity.len());
        Some(xxh3_64(input.as_bytes()).cast_signed())
    }
}

impl Apply<'_> {
    /// Writes the row of the submission begun, and its duplicate key when it was accepted.
    pub(super) fn submission(
        &mut self,
        packed: &Packed,
        answer: Option<&[u8]>,
        issues: Option<&[Issue]>,
        targets: &str,
    ) -> Result<(), Error> {
        self.try_submission(packed, answer, issues, targets).map_err(|e| self.noted(e))
    }

    fn try_submission(
        &mut self,
        packed: &Packed,
        answer: Option<&[u8]>,
        issues: Option<&[Issue]>,
        targets: &str,
    ) -> rusqlite::Result<()> {
        let original = &packed.original;
        let accepted = issues.is_none();
        let received = original.received.millis();
        let sql = "INSERT INTO submission VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17)";
        // the encoding of body and report share a column: both are packed by the same function
        let (report_encoding, report) = packed.report.as_ref().map_or((0, None), |(e, r)| (*e, Some(r)));
        let row = params![
            self.submission,
            original.kind.number(),
            received,
            original.listener,
            original.peer.map(|p| p.to_string()),
            original.identity,
            original.control.as_ref().map(|(_, control)| control),
            original.sha256,
            i64::from(accepted),
            answer,
            issues.map(issues_text),
            Some(targets.trim_end()).filter(|t| !t.is_empty()),
            original.content_type,
            packed.encoding | (report_encoding << 8),
            packed.inline,
            packed.blob.map(|blob| blob.0),
            report,
        ];
        self.connection.prepare_cached(sql)?.execute(row)?;
        if let Some(key) = packed.control_key().filter(|_| accepted) {
            let sql = "INSERT OR IGNORE INTO dedupe VALUES(?1,?2,?3,?4)";
            self.connection.prepare_cached(sql)?.execute(params![
                key,
                original.sha256,
                self.submission,
                received
            ])?;
        }
        Ok(())
    }
}

impl OriginalKind {
    pub(super) fn number(self) -> i64 {
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

const COLUMNS: &str = "seq, kind, received, listener, peer, identity, control, sha, receipt, answer, err, targets, enc, body, blob, report";

/// One submission.
pub(crate) fn one(connection: &Connection, sequence: u64) -> Result<Option<SubmissionRow>, Error> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM submission WHERE seq=?1"))?;
    statement.query_row([sequence], |row| Ok(read(connection, row))).optional()?.transpose()
}

/// The newest before `before`.
pub(crate) fn newest(
    connection: &Connection,
    before: Option<u64>,
    count: u32,
) -> Result<Vec<SubmissionRow>, Error> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM submission WHERE seq<?1 ORDER BY seq DESC LIMIT ?2"
    ))?;
    let mut rows = statement.query(params![before.map_or(i64::MAX, u64::cast_signed), count])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(connection, row)?);
    }
    Ok(found)
}

/// Those that caused the versions of a resource, newest first.
pub(crate) fn of(
    connection: &Connection,
    resource_type: ResourceType,
    id: &str,
    count: u32,
) -> Result<Vec<SubmissionRow>, Error> {
    let Some(head) = lookup::head(connection, resource_type, id)? else { return Ok(Vec::new()) };
    let sql = "SELECT DISTINCT sub FROM version WHERE rid=?1 AND sub IS NOT NULL ORDER BY sub DESC LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let sequences: Vec<i64> =
        statement.query_map(params![head.rid, count], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?;
    let rows = sequences.into_iter().filter_map(|seq| one(connection, seq.cast_unsigned()).transpose());
    rows.collect()
}

fn read(connection: &Connection, row: &Row<'_>) -> Result<SubmissionRow, Error> {
    let encodings: i64 = row.get(12)?;
    let inline: Option<Vec<u8>> = row.get(13)?;
    let report: Option<Vec<u8>> = row.get(15)?;
    let unpack = |encoding: i64, bytes: Option<Vec<u8>>| {
        bytes.map(|b| body::decode(encoding, &b).map(Bytes::from)).transpose()
    };
    Ok(SubmissionRow {
        sequence: row.get::<_, i64>(0)?.cast_unsigned(),
        kind: OriginalKind::from_number(row.get(1)?),
        received: Timestamp::from_micros(row.get::<_, i64>(2)? * 1000),
        listener: row.get(3)?,
        peer: row.get(4)?,
        identity: row.get(5)?,
        control_id: row.get(6)?,
        sha256: row.get(7)?,
        accepted: row.get(8)?,
        answer: row.get::<_, Option<Vec<u8>>>(9)?.map(Bytes::from),
        issues: row.get::<_, Option<String>>(10)?.map(|text| issues_from(&text)).unwrap_or_default(),
        targets: targets(connection, row.get::<_, Option<String>>(11)?.as_deref().unwrap_or_default())?,
        bytes: unpack(encodings & 0xff, inline)?,
        blob: row.get::<_, Option<[u8; 32]>>(14)?.map(BlobId),
        report: unpack(encodings >> 8, report)?,
    })
}

/// `rid/version rid/version` as type, id and version.
fn targets(connection: &Connection, text: &str) -> Result<Vec<(ResourceType, String, u64)>, Error> {
    let mut found = Vec::new();
    for (rid, version) in text.split(' ').filter_map(|target| target.split_once('/')) {
        let (Ok(rid), Ok(version)) = (rid.parse(), version.parse()) else { continue };
        if let Some((resource_type, id)) = lookup::name(connection, rid)? {
            found.push((resource_type, id, version));
        }
    }
    Ok(found)
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

//! Submissions and their duplicate keys.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::Error;
use crate::face::{Submissions, WriteSubmissions};
use crate::row::{Duplicate, StoredSubmission, SubmissionEntry};

impl Submissions for Connection {
    fn duplicate(&self, key: i64, sha256: &[u8; 32]) -> Result<Option<Duplicate>, Error> {
        duplicate(self, key, sha256)
    }

    fn submission(&self, sequence: u64) -> Result<Option<StoredSubmission>, Error> {
        submission(self, sequence)
    }

    fn submissions(&self, before: Option<u64>, count: u32) -> Result<Vec<StoredSubmission>, Error> {
        submissions(self, before, count)
    }

    fn submissions_of(&self, rid: i64, count: u32) -> Result<Vec<u64>, Error> {
        submissions_of(self, rid, count)
    }
}

impl WriteSubmissions for Connection {
    fn add_submission(&self, row: &SubmissionEntry<'_>) -> Result<(), Error> {
        add_submission(self, row)
    }

    fn add_duplicate_key(
        &self,
        key: i64,
        sha256: &[u8; 32],
        sequence: u64,
        received: i64,
    ) -> Result<(), Error> {
        add_duplicate_key(self, key, sha256, sequence, received)
    }
}

pub(crate) fn duplicate(
    connection: &Connection,
    key: i64,
    sha256: &[u8; 32],
) -> Result<Option<Duplicate>, Error> {
    let sql = "SELECT d.seq, s.answer FROM dedupe d LEFT JOIN submission s ON s.seq=d.seq WHERE d.ctl=?1 AND d.sha=?2";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement
        .query_row(params![key, sha256], |r| Ok((r.get::<_, i64>(0)?.cast_unsigned(), r.get(1)?)))
        .optional()?;
    Ok(found)
}

pub(crate) fn add_submission(connection: &Connection, row: &SubmissionEntry<'_>) -> Result<(), Error> {
    let sql = "INSERT INTO submission VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17)";
    let row = params![
        row.sequence,
        row.kind,
        row.received,
        row.listener,
        row.peer,
        row.identity,
        row.control,
        row.sha256,
        i64::from(row.accepted),
        row.answer,
        row.issues,
        row.targets,
        row.content_type,
        row.encodings,
        row.body,
        row.blob,
        row.report,
    ];
    connection.prepare_cached(sql)?.execute(row)?;
    Ok(())
}

pub(crate) fn add_duplicate_key(
    connection: &Connection,
    key: i64,
    sha256: &[u8; 32],
    sequence: u64,
    received: i64,
) -> Result<(), Error> {
    let sql = "INSERT OR IGNORE INTO dedupe VALUES(?1,?2,?3,?4)";
    connection.prepare_cached(sql)?.execute(params![key, sha256, sequence, received])?;
    Ok(())
}

const COLUMNS: &str = "seq, kind, received, listener, peer, identity, control, sha, receipt, answer, err, targets, enc, body, blob, report";

pub(crate) fn submission(connection: &Connection, sequence: u64) -> Result<Option<StoredSubmission>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM submission WHERE seq=?1");
    Ok(connection.prepare_cached(&sql)?.query_row([sequence], read).optional()?)
}

pub(crate) fn submissions(
    connection: &Connection,
    before: Option<u64>,
    count: u32,
) -> Result<Vec<StoredSubmission>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM submission WHERE seq<?1 ORDER BY seq DESC LIMIT ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params![before.map_or(i64::MAX, u64::cast_signed), count], read)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn submissions_of(connection: &Connection, rid: i64, count: u32) -> Result<Vec<u64>, Error> {
    let sql = "SELECT DISTINCT sub FROM version WHERE rid=?1 AND sub IS NOT NULL ORDER BY sub DESC LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![rid, count], |r| Ok(r.get::<_, i64>(0)?.cast_unsigned()))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn read(row: &Row<'_>) -> rusqlite::Result<StoredSubmission> {
    Ok(StoredSubmission {
        sequence: row.get(0)?,
        kind: row.get(1)?,
        received: row.get(2)?,
        listener: row.get(3)?,
        peer: row.get(4)?,
        identity: row.get(5)?,
        control: row.get(6)?,
        sha256: row.get(7)?,
        accepted: row.get(8)?,
        answer: row.get(9)?,
        issues: row.get(10)?,
        targets: row.get(11)?,
        encodings: row.get(12)?,
        body: row.get(13)?,
        blob: row.get(14)?,
        report: row.get(15)?,
    })
}

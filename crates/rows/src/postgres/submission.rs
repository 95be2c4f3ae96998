//! Submissions and their duplicate keys.

use tokio_postgres::Row;

use super::session::Session;
use super::values::{clean, digest};
use crate::Error;
use crate::face::{Submissions, WriteSubmissions};
use crate::row::{Duplicate, StoredSubmission, SubmissionEntry};

impl Submissions for Session {
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

impl WriteSubmissions for Session {
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

pub(crate) fn duplicate(session: &Session, key: i64, sha256: &[u8; 32]) -> Result<Option<Duplicate>, Error> {
    let sql = "SELECT d.seq, s.answer FROM dedupe d LEFT JOIN submission s ON s.site=$1 AND s.seq=d.seq WHERE d.site=$1 AND d.ctl=$2 AND d.sha=$3";
    if let Some(duplicate) = session.foreseen_duplicate(key, sha256) {
        return Ok(duplicate);
    }
    let gathered = session.gathered.borrow().duplicate_keys.contains(&key);
    let sha256 = sha256.as_slice();
    let rows = if gathered {
        session.rows(sql, &[&key, &sha256])?
    } else {
        session.rows_unaffected(sql, &[&key, &sha256])?
    };
    Ok(rows.first().map(|row| (row.get::<_, i64>(0).cast_unsigned(), row.get(1))))
}

pub(crate) fn add_submission(session: &Session, row: &SubmissionEntry<'_>) -> Result<(), Error> {
    session.gathering(|gathered| {
        let rows = &mut gathered.submissions;
        rows.sequence.push(row.sequence.cast_signed());
        rows.kind.push(row.kind);
        rows.received.push(row.received);
        rows.listener.push(clean(row.listener));
        rows.peer.push(row.peer.clone());
        rows.identity.push(row.identity.map(clean));
        rows.control.push(row.control.map(clean));
        rows.sha256.push(row.sha256.to_vec());
        rows.accepted.push(row.accepted);
        rows.answer.push(row.answer.map(<[u8]>::to_vec));
        rows.issues.push(row.issues.as_deref().map(clean));
        rows.targets.push(row.targets.map(clean));
        rows.content_type.push(row.content_type.to_owned());
        rows.encodings.push(row.encodings);
        rows.body.push(row.body.map(<[u8]>::to_vec));
        rows.blob.push(row.blob.map(|blob| blob.to_vec()));
        rows.report.push(row.report.map(<[u8]>::to_vec));
    });
    Ok(())
}

pub(crate) fn add_duplicate_key(
    session: &Session,
    key: i64,
    sha256: &[u8; 32],
    sequence: u64,
    received: i64,
) -> Result<(), Error> {
    session.gathering(|gathered| {
        gathered.duplicate_keys.insert(key);
        gathered.duplicates.key.push(key);
        gathered.duplicates.sha256.push(sha256.to_vec());
        gathered.duplicates.sequence.push(sequence.cast_signed());
        gathered.duplicates.received.push(received);
    });
    Ok(())
}

pub(crate) fn submission(session: &Session, sequence: u64) -> Result<Option<StoredSubmission>, Error> {
    let sql = "SELECT seq, kind::bigint, received, listener, peer, identity, control, sha, accepted, answer, err, targets, enc::bigint, body, blob, report
        FROM submission WHERE site=$1 AND seq=$2";
    session.row(sql, &[&sequence.cast_signed()])?.map(|row| read(&row)).transpose()
}

pub(crate) fn submissions(
    session: &Session,
    before: Option<u64>,
    count: u32,
) -> Result<Vec<StoredSubmission>, Error> {
    let sql = "SELECT seq, kind::bigint, received, listener, peer, identity, control, sha, accepted, answer, err, targets, enc::bigint, body, blob, report
        FROM submission WHERE site=$1 AND seq<$2 ORDER BY seq DESC LIMIT $3";
    let rows = session.rows(sql, &[&before.map_or(i64::MAX, u64::cast_signed), &i64::from(count)])?;
    rows.iter().map(read).collect()
}

pub(crate) fn submissions_of(session: &Session, rid: i64, count: u32) -> Result<Vec<u64>, Error> {
    let sql = "SELECT DISTINCT sub FROM version WHERE site=$1 AND rid=$2 AND sub IS NOT NULL ORDER BY sub DESC LIMIT $3";
    let rows = session.rows(sql, &[&rid, &i64::from(count)])?;
    Ok(rows.iter().map(|row| row.get::<_, i64>(0).cast_unsigned()).collect())
}

fn read(row: &Row) -> Result<StoredSubmission, Error> {
    Ok(StoredSubmission {
        sequence: row.get(0),
        kind: row.get(1),
        received: row.get(2),
        listener: row.get(3),
        peer: row.get(4),
        identity: row.get(5),
        control: row.get(6),
        sha256: digest(row.get(7))?,
        accepted: row.get(8),
        answer: row.get(9),
        issues: row.get(10),
        targets: row.get(11),
        encodings: row.get(12),
        body: row.get(13),
        blob: row.get::<_, Option<&[u8]>>(14).map(digest).transpose()?,
        report: row.get(15),
    })
}

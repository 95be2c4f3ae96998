//! Submissions and their duplicate keys.

use tokio_postgres::Row;

use super::connection::Value;
use super::session::{Session, clean};
use crate::Error;
use crate::db::{Duplicate, StoredSubmission, SubmissionEntry};

pub(crate) fn duplicate(session: &Session, key: i64, sha256: &[u8; 32]) -> Result<Option<Duplicate>, Error> {
    let sql = "SELECT d.seq, s.answer FROM dedupe d LEFT JOIN submission s ON s.site=$1 AND s.seq=d.seq WHERE d.site=$1 AND d.ctl=$2 AND d.sha=$3";
    let gathered = session.gathered.borrow().duplicates.key.contains(&key);
    let sha256 = sha256.as_slice();
    let rows = if gathered {
        session.rows(sql, &[&key, &sha256])?
    } else {
        session.rows_unaffected(sql, &[&key, &sha256])?
    };
    Ok(rows.first().map(|row| (row.get::<_, i64>(0).cast_unsigned(), row.get(1))))
}

pub(crate) fn add_submission(session: &Session, row: &SubmissionEntry<'_>) -> Result<(), Error> {
    let sql = "INSERT INTO submission(site,seq,kind,received,listener,peer,identity,control,sha,accepted,answer,err,targets,ctype,enc,body,blob,report)
        VALUES($1,$2,$3::bigint,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15::bigint,$16,$17,$18)";
    let values: Vec<Value> = vec![
        Box::new(row.sequence.cast_signed()),
        Box::new(row.kind),
        Box::new(row.received),
        Box::new(clean(row.listener)),
        Box::new(row.peer.clone()),
        Box::new(row.identity.map(clean)),
        Box::new(row.control.map(clean)),
        Box::new(row.sha256.to_vec()),
        Box::new(row.accepted),
        Box::new(row.answer.map(<[u8]>::to_vec)),
        Box::new(row.issues.as_deref().map(clean)),
        Box::new(row.targets.map(clean)),
        Box::new(row.content_type.to_owned()),
        Box::new(row.encodings),
        Box::new(row.body.map(<[u8]>::to_vec)),
        Box::new(row.blob.map(|blob| blob.to_vec())),
        Box::new(row.report.map(<[u8]>::to_vec)),
    ];
    session.gather(sql, values);
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

/// 32 bytes of a column.
pub(super) fn digest(bytes: &[u8]) -> Result<[u8; 32], Error> {
    bytes.try_into().map_err(|_| Error::unavailable("a stored digest has another length"))
}

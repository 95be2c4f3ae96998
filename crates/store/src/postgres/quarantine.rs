//! What is kept of rejected submissions, and the blobs they left behind.

use super::session::Session;
use super::submission::digest;
use crate::db::Orphan;
use crate::{BlobId, Error};

pub(crate) fn keep_original(
    session: &Session,
    sequence: u64,
    received: i64,
    bytes: u64,
) -> Result<(), Error> {
    let sql = "INSERT INTO quarantine(site,seq,received,bytes) VALUES($1,$2,$3,$4)";
    session.gather(
        sql,
        vec![Box::new(sequence.cast_signed()), Box::new(received), Box::new(bytes.cast_signed())],
    );
    Ok(())
}

pub(crate) fn kept_originals(session: &Session) -> Result<u64, Error> {
    let sql = "SELECT coalesce(sum(bytes),0)::bigint FROM quarantine WHERE site=$1";
    Ok(session.row(sql, &[])?.map_or(0, |row| row.get::<_, i64>(0).cast_unsigned()))
}

pub(crate) fn oldest_originals(session: &Session, max: u32) -> Result<Vec<(i64, i64, u64)>, Error> {
    let sql = "SELECT seq, received, bytes FROM quarantine WHERE site=$1 ORDER BY seq LIMIT $2";
    let rows = session.rows(sql, &[&i64::from(max)])?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get::<_, i64>(2).cast_unsigned())).collect())
}

pub(crate) fn remove_original(session: &Session, sequence: i64) -> Result<(), Error> {
    for sql in [
        "INSERT INTO orphan(site,blob) SELECT site, blob FROM submission WHERE site=$1 AND seq=$2 AND blob IS NOT NULL ON CONFLICT DO NOTHING",
        "UPDATE submission SET body=NULL, blob=NULL WHERE site=$1 AND seq=$2",
        "DELETE FROM quarantine WHERE site=$1 AND seq=$2",
    ] {
        session.gather(sql, vec![Box::new(sequence)]);
    }
    Ok(())
}

pub(crate) fn orphans(session: &Session, after: Option<BlobId>, max: u32) -> Result<Vec<Orphan>, Error> {
    let sql =
        "SELECT o.blob, EXISTS(SELECT 1 FROM submission s WHERE s.site=$1 AND s.blob=o.blob OFFSET 0) FROM orphan o
        WHERE o.site=$1 AND o.blob>$2 ORDER BY o.blob LIMIT $3";
    let after = after.map_or(Vec::new(), |blob| blob.0.to_vec());
    let rows = session.rows(sql, &[&after, &i64::from(max)])?;
    rows.iter().map(|row| Ok(Orphan { blob: BlobId(digest(row.get(0))?), is_used: row.get(1) })).collect()
}

pub(crate) fn settle_orphan(session: &Session, blob: &BlobId) -> Result<(), Error> {
    session.gather("DELETE FROM orphan WHERE site=$1 AND blob=$2", vec![Box::new(blob.0.to_vec())]);
    Ok(())
}

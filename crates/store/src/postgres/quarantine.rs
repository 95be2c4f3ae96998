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
        "SELECT o.blob, EXISTS(SELECT 1 FROM submission s WHERE s.site=$1 AND s.blob=o.blob OFFSET 0), o.claimed FROM orphan o
        WHERE o.site=$1 AND o.blob>$2 ORDER BY o.blob LIMIT $3";
    let after = after.map_or(Vec::new(), |blob| blob.0.to_vec());
    let rows = session.rows(sql, &[&after, &i64::from(max)])?;
    let orphan = |row: &tokio_postgres::Row| {
        Ok(Orphan { blob: BlobId(digest(row.get(0))?), is_used: row.get(1), claimed: row.get(2) })
    };
    rows.iter().map(orphan).collect()
}

pub(crate) fn settle_orphans(session: &Session, blobs: &[BlobId]) -> Result<(), Error> {
    session
        .gather("DELETE FROM orphan WHERE site=$1 AND blob=ANY($2::bytea[])", vec![Box::new(bytes(blobs))]);
    Ok(())
}

/// In the transaction that holds the site: what names a blob was committed before, or finds the claim.
pub(crate) fn claim_unused(session: &Session, blobs: &[BlobId], now: i64) -> Result<Vec<BlobId>, Error> {
    let sql = "INSERT INTO orphan(site,blob,claimed) SELECT $1::int, b, $3 FROM unnest($2::bytea[]) b
            WHERE NOT EXISTS(SELECT 1 FROM submission s WHERE s.site=$1 AND s.blob=b OFFSET 0)
        ON CONFLICT(site,blob) DO UPDATE SET claimed=excluded.claimed RETURNING blob";
    let rows = session.write_now(sql, &[&bytes(blobs), &now])?;
    session.has_claimed.set(true);
    rows.iter().map(|row| Ok(BlobId(digest(row.get(0))?))).collect()
}

pub(crate) fn release(session: &Session, blobs: &[BlobId]) -> Result<(), Error> {
    let sql = "UPDATE orphan SET claimed=NULL WHERE site=$1 AND blob=ANY($2::bytea[])";
    session.gather(sql, vec![Box::new(bytes(blobs))]);
    Ok(())
}

pub(crate) fn is_claimed(session: &Session, blob: &BlobId) -> Result<bool, Error> {
    if let Some(is_claimed) = session.foreseen_claim(blob) {
        return Ok(is_claimed);
    }
    let sql = "SELECT 1 FROM orphan WHERE site=$1 AND blob=$2 AND claimed IS NOT NULL";
    Ok(!session.rows_unaffected(sql, &[&blob.0.as_slice()])?.is_empty())
}

fn bytes(blobs: &[BlobId]) -> Vec<Vec<u8>> {
    blobs.iter().map(|blob| blob.0.to_vec()).collect()
}

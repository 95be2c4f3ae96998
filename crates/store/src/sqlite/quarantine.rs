//! What is kept of rejected submissions, and the blobs they left behind.

use rusqlite::{Connection, params};

use crate::db::Orphan;
use crate::{BlobId, Error};

pub(crate) fn keep_original(
    connection: &Connection,
    sequence: u64,
    received: i64,
    bytes: u64,
) -> Result<(), Error> {
    let sql = "INSERT INTO quarantine VALUES(?1,?2,?3)";
    connection.prepare_cached(sql)?.execute(params![sequence, received, bytes])?;
    Ok(())
}

pub(crate) fn kept_originals(connection: &Connection) -> Result<u64, Error> {
    let mut statement = connection.prepare_cached("SELECT coalesce(sum(bytes),0) FROM quarantine")?;
    Ok(statement.query_row([], |r| r.get(0))?)
}

pub(crate) fn oldest_originals(connection: &Connection, max: u32) -> Result<Vec<(i64, i64, u64)>, Error> {
    let mut statement =
        connection.prepare_cached("SELECT seq, received, bytes FROM quarantine ORDER BY seq LIMIT ?1")?;
    let rows = statement.query_map([max], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn remove_original(connection: &Connection, sequence: i64) -> Result<(), Error> {
    for sql in [
        "INSERT OR IGNORE INTO orphan SELECT blob FROM submission WHERE seq=?1 AND blob IS NOT NULL",
        "UPDATE submission SET body=NULL, blob=NULL WHERE seq=?1",
        "DELETE FROM quarantine WHERE seq=?1",
    ] {
        connection.prepare_cached(sql)?.execute([sequence])?;
    }
    Ok(())
}

pub(crate) fn forget_blobs(connection: &Connection, blobs: &[BlobId]) -> Result<(), Error> {
    for sql in ["INSERT OR IGNORE INTO orphan VALUES(?1)", "UPDATE submission SET blob=NULL WHERE blob=?1"] {
        let mut statement = connection.prepare_cached(sql)?;
        for blob in blobs {
            statement.execute([blob.0])?;
        }
    }
    Ok(())
}

pub(crate) fn orphans(
    connection: &Connection,
    after: Option<BlobId>,
    max: u32,
) -> Result<Vec<Orphan>, Error> {
    let sql = "SELECT o.blob, EXISTS(SELECT 1 FROM submission s WHERE s.blob=o.blob) FROM orphan o WHERE o.blob>?1 ORDER BY o.blob LIMIT ?2";
    let after = after.map_or(Vec::new(), |blob| blob.0.to_vec());
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![after, max], |r| {
        Ok(Orphan { blob: BlobId(r.get(0)?), is_used: r.get(1)?, claimed: None })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn settle_orphans(connection: &Connection, blobs: &[BlobId]) -> Result<(), Error> {
    let mut statement = connection.prepare_cached("DELETE FROM orphan WHERE blob=?1")?;
    blobs.iter().try_for_each(|blob| Ok(statement.execute([blob.0]).map(drop)?))
}

/// One edge has the store: it keeps removing and placing apart by itself (`blobs`), and nothing is noted here.
pub(crate) fn claim_unused(connection: &Connection, blobs: &[BlobId], _: i64) -> Result<Vec<BlobId>, Error> {
    let mut statement = connection.prepare_cached("SELECT 1 FROM submission WHERE blob=?1 LIMIT 1")?;
    let mut unused = Vec::new();
    for blob in blobs {
        if !statement.exists([blob.0])? {
            unused.push(*blob);
        }
    }
    Ok(unused)
}

pub(crate) fn release(_: &Connection, _: &[BlobId]) -> Result<(), Error> {
    Ok(())
}

pub(crate) fn is_claimed(_: &Connection, _: &BlobId) -> Result<bool, Error> {
    Ok(false)
}

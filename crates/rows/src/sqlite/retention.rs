//! What is old enough to go.

use rusqlite::{Connection, OptionalExtension, params};

use crate::Error;
use crate::face::{OldRows, WriteOldRows};
use crate::row::{OldSubmission, OldVersion};

impl OldRows for Connection {
    fn progress(&self, of: &str) -> Result<i64, Error> {
        progress(self, of)
    }

    fn submissions_behind(&self, after: i64, max: u32) -> Result<Vec<OldSubmission>, Error> {
        submissions_behind(self, after, max)
    }

    fn versions_behind(&self, after: i64, max: u32) -> Result<Vec<OldVersion>, Error> {
        versions_behind(self, after, max)
    }

    fn delivered_to(&self) -> Result<Option<i64>, Error> {
        delivered_to(self)
    }
}

impl WriteOldRows for Connection {
    fn set_progress(&self, of: &str, to: i64) -> Result<(), Error> {
        set_progress(self, of, to)
    }

    fn remove_submission(&self, sequence: i64) -> Result<(), Error> {
        remove_submission(self, sequence)
    }

    fn remove_version(&self, rid: i64, version: i64) -> Result<(), Error> {
        remove_version(self, rid, version)
    }
}

pub(crate) fn progress(connection: &Connection, of: &str) -> Result<i64, Error> {
    let mut statement = connection.prepare_cached("SELECT v FROM meta WHERE k=?1")?;
    Ok(statement.query_row([of], |r| r.get(0)).optional()?.unwrap_or(0))
}

pub(crate) fn set_progress(connection: &Connection, of: &str, to: i64) -> Result<(), Error> {
    connection.prepare_cached("INSERT OR REPLACE INTO meta VALUES(?1,?2)")?.execute(params![of, to])?;
    Ok(())
}

pub(crate) fn submissions_behind(
    connection: &Connection,
    after: i64,
    max: u32,
) -> Result<Vec<OldSubmission>, Error> {
    let sql = "SELECT seq, received, kind, receipt, blob IS NOT NULL FROM submission WHERE seq>?1 ORDER BY seq LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![after, max], |r| {
        Ok(OldSubmission {
            sequence: r.get(0)?,
            received: r.get(1)?,
            kind: r.get(2)?,
            accepted: r.get(3)?,
            has_blob: r.get(4)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn remove_submission(connection: &Connection, sequence: i64) -> Result<(), Error> {
    for sql in ["DELETE FROM dedupe WHERE seq=?1", "DELETE FROM submission WHERE seq=?1"] {
        connection.prepare_cached(sql)?.execute([sequence])?;
    }
    Ok(())
}

pub(crate) fn versions_behind(
    connection: &Connection,
    after: i64,
    max: u32,
) -> Result<Vec<OldVersion>, Error> {
    let sql = "SELECT v.vid, v.lm, v.rid, v.ver, (SELECT p.vid FROM version p WHERE p.rid=v.rid AND p.ver=v.ver-1) FROM version v WHERE v.vid>?1 ORDER BY v.vid LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![after, max], |r| {
        Ok(OldVersion {
            vid: r.get(0)?,
            last_updated: r.get(1)?,
            rid: r.get(2)?,
            version: r.get(3)?,
            predecessor: r.get(4)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn remove_version(connection: &Connection, rid: i64, version: i64) -> Result<(), Error> {
    connection.prepare_cached("DELETE FROM version WHERE rid=?1 AND ver=?2")?.execute([rid, version])?;
    Ok(())
}

pub(crate) fn delivered_to(connection: &Connection) -> Result<Option<i64>, Error> {
    let sql = "SELECT min(vid) FROM (SELECT cursor_vid AS vid FROM destination UNION ALL SELECT vid-1 FROM delivery WHERE state<3)";
    Ok(connection.prepare_cached(sql)?.query_row([], |r| r.get(0))?)
}

//! What is old enough to go.

use super::session::Session;
use crate::Error;
use crate::face::{OldRows, WriteOldRows};
use crate::row::{OldSubmission, OldVersion};

impl OldRows for Session {
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

impl WriteOldRows for Session {
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

pub(crate) fn progress(session: &Session, of: &str) -> Result<i64, Error> {
    let sql = "SELECT v::bigint FROM meta WHERE k=$2::text || ':' || $1::int::text";
    Ok(session.row(sql, &[&of])?.map_or(0, |row| row.get(0)))
}

pub(crate) fn set_progress(session: &Session, of: &str, to: i64) -> Result<(), Error> {
    let sql = "INSERT INTO meta(k,v) VALUES($2::text || ':' || $1::int::text, $3::bigint::text) ON CONFLICT(k) DO UPDATE SET v=excluded.v";
    session.gather(sql, vec![Box::new(of.to_owned()), Box::new(to)]);
    Ok(())
}

pub(crate) fn submissions_behind(
    session: &Session,
    after: i64,
    max: u32,
) -> Result<Vec<OldSubmission>, Error> {
    let sql = "SELECT seq, received, kind::bigint, accepted, blob IS NOT NULL FROM submission WHERE site=$1 AND seq>$2 ORDER BY seq LIMIT $3";
    let rows = session.rows(sql, &[&after, &i64::from(max)])?;
    let old = rows.iter().map(|row| OldSubmission {
        sequence: row.get(0),
        received: row.get(1),
        kind: row.get(2),
        accepted: row.get(3),
        has_blob: row.get(4),
    });
    Ok(old.collect())
}

pub(crate) fn remove_submission(session: &Session, sequence: i64) -> Result<(), Error> {
    for sql in
        ["DELETE FROM dedupe WHERE site=$1 AND seq=$2", "DELETE FROM submission WHERE site=$1 AND seq=$2"]
    {
        session.gather(sql, vec![Box::new(sequence)]);
    }
    Ok(())
}

pub(crate) fn versions_behind(session: &Session, after: i64, max: u32) -> Result<Vec<OldVersion>, Error> {
    let sql = "SELECT v.vid, v.lm, v.rid, v.ver::bigint, p.vid FROM version v LEFT JOIN LATERAL (SELECT vid FROM version p WHERE p.site=$1 AND p.rid=v.rid AND p.ver=v.ver-1 OFFSET 0) p ON true
        WHERE v.site=$1 AND v.vid>$2 ORDER BY v.vid LIMIT $3";
    let rows = session.rows(sql, &[&after, &i64::from(max)])?;
    let old = rows.iter().map(|row| OldVersion {
        vid: row.get(0),
        last_updated: row.get(1),
        rid: row.get(2),
        version: row.get(3),
        predecessor: row.get(4),
    });
    Ok(old.collect())
}

pub(crate) fn remove_version(session: &Session, rid: i64, version: i64) -> Result<(), Error> {
    let sql = "DELETE FROM version WHERE site=$1 AND rid=$2 AND ver=$3::bigint";
    session.gather(sql, vec![Box::new(rid), Box::new(version)]);
    Ok(())
}

pub(crate) fn delivered_to(session: &Session) -> Result<Option<i64>, Error> {
    let sql = "SELECT min(vid) FROM (SELECT cursor_vid AS vid FROM destination WHERE site=$1 UNION ALL SELECT vid-1 FROM delivery WHERE site=$1 AND state<3) d";
    Ok(session.row(sql, &[])?.and_then(|row| row.get(0)))
}

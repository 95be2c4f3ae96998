//! Heads, versions, the index.

use hilum_fhir::ResourceType;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::face::{Index, Resources, WriteResources};
use crate::keys::{Key, Lookup, Rows};
use crate::row::{
    Candidate, Changed, Content, Counters, Head, HeadRow, StoredVersion, VersionRow, Walk, after_prefix,
};
use crate::{Error, FeedEntry, Version};

impl Resources for Connection {
    fn replaced_by(&self, survivor: i64, max: usize) -> Result<Vec<(i64, i64)>, Error> {
        let sql = "SELECT rid, vid FROM head WHERE successor=?1 AND deleted=0 ORDER BY rid LIMIT ?2";
        let mut statement = self.prepare_cached(sql)?;
        let rows = statement.query_map(params![survivor, number(max)], |r| Ok((r.get(0)?, r.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn heard(&self, rid: i64, sender: i64) -> Result<Option<i64>, Error> {
        let mut statement = self.prepare_cached("SELECT applied FROM heard WHERE rid=?1 AND sender=?2")?;
        Ok(statement.query_row([rid, sender], |r| r.get(0)).optional()?)
    }

    fn head(&self, of: ResourceType, id: &str) -> Result<Option<Head>, Error> {
        let sql = "SELECT rid,ver,vid,ord,deleted,applied,successor,sender FROM head WHERE rt=?1 AND fid=?2";
        let mut statement = self.prepare_cached(sql)?;
        Ok(statement.query_row(params![of.number(), id], |r| head_at(r, 0)).optional()?)
    }

    fn head_of(&self, rid: i64) -> Result<Option<(ResourceType, String, Head, i64)>, Error> {
        let sql = "SELECT h.rid, h.ver, h.vid, h.ord, h.deleted, h.applied, h.successor, h.sender, h.rt, h.fid, v.lm FROM head h JOIN version v ON v.vid=h.vid WHERE h.rid=?1";
        let mut statement = self.prepare_cached(sql)?;
        let found: Option<(i64, String, Head, i64)> = statement
            .query_row([rid], |r| Ok((r.get(8)?, r.get(9)?, head_at(r, 0)?, r.get(10)?)))
            .optional()?;
        Ok(found.and_then(|(rt, id, head, at)| Some((ResourceType::from_number(rt)?, id, head, at))))
    }

    fn name(&self, rid: i64) -> Result<Option<(ResourceType, String)>, Error> {
        let mut statement = self.prepare_cached("SELECT rt, fid FROM head WHERE rid=?1")?;
        let found: Option<(i64, String)> =
            statement.query_row([rid], |r| Ok((r.get(0)?, r.get(1)?))).optional()?;
        Ok(found.and_then(|(rt, id)| Some((ResourceType::from_number(rt)?, id))))
    }

    fn content(&self, vid: i64) -> Result<Content, Error> {
        let mut statement = self.prepare_cached("SELECT lm, enc, body FROM version WHERE vid=?1")?;
        Ok(statement.query_row([vid], |r| {
            Ok(Content { last_updated: r.get(0)?, encoding: r.get(1)?, body: r.get(2)? })
        })?)
    }

    fn current(&self, of: ResourceType, id: &str) -> Result<Option<Version>, Error> {
        let sql = "SELECT h.rt, h.fid, v.ver, v.lm, v.op, v.sub, v.enc, v.body, v.vid FROM head h JOIN version v ON v.vid=h.vid WHERE h.rt=?1 AND h.fid=?2";
        one(self, sql, params![of.number(), id])
    }

    fn version(&self, of: ResourceType, id: &str, version: u64) -> Result<Option<Version>, Error> {
        let sql = format!(
            "SELECT {COLUMNS} FROM head h JOIN version v ON v.rid=h.rid AND v.ver=?3 WHERE h.rt=?1 AND h.fid=?2"
        );
        one(self, &sql, params![of.number(), id, version])
    }

    fn history(
        &self,
        of: ResourceType,
        id: &str,
        before: Option<u64>,
        count: u32,
    ) -> Result<Vec<Version>, Error> {
        let sql = format!(
            "SELECT {COLUMNS} FROM head h JOIN version v ON v.rid=h.rid WHERE h.rt=?1 AND h.fid=?2 AND v.ver<?3 ORDER BY v.ver DESC LIMIT ?4"
        );
        let before = before.map_or(i64::MAX, u64::cast_signed);
        let mut statement = self.prepare_cached(&sql)?;
        let mut rows = statement.query(params![of.number(), id, before, count])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(read(row)?);
        }
        Ok(found)
    }

    fn feed(&self, after: u64, limit: u32) -> Result<Vec<FeedEntry>, Error> {
        let sql = format!(
            "SELECT {COLUMNS} FROM version v JOIN head h ON h.rid=v.rid WHERE v.vid>?1 ORDER BY v.vid LIMIT ?2"
        );
        let mut statement = self.prepare_cached(&sql)?;
        let mut rows = statement.query(params![after.cast_signed(), limit])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(FeedEntry { position: row.get::<_, i64>(8)?.cast_unsigned(), version: read(row)? });
        }
        Ok(found)
    }
}

impl WriteResources for Connection {
    fn set_applied(&self, rid: i64, sender: Option<i64>, applied: i64) -> Result<(), Error> {
        let sql = "UPDATE head SET applied=?2, sender=coalesce(?3,sender) WHERE rid=?1";
        self.prepare_cached(sql)?.execute(params![rid, applied, sender])?;
        Ok(())
    }

    fn put_heard(&self, rid: i64, sender: i64, applied: i64) -> Result<(), Error> {
        let sql = "INSERT INTO heard VALUES(?1,?2,?3) ON CONFLICT DO UPDATE SET applied=max(applied,excluded.applied)";
        self.prepare_cached(sql)?.execute([rid, sender, applied])?;
        Ok(())
    }

    fn add_version(&self, row: &VersionRow<'_>) -> Result<(), Error> {
        let (encoding, body) = row.body.map_or((0, None), |(encoding, body)| (encoding, Some(body)));
        let sql = "INSERT INTO version VALUES(?1,?2,?3,?4,?5,?6,?7,?8)";
        self.prepare_cached(sql)?.execute(params![
            row.vid,
            row.rid,
            row.version,
            row.last_updated,
            row.operation.number(),
            row.submission,
            encoding,
            body
        ])?;
        Ok(())
    }

    fn add_head(&self, row: &HeadRow<'_>) -> Result<(), Error> {
        let sql = "INSERT INTO head(rid,rt,fid,ver,vid,ord,deleted,applied,sender) VALUES(?1,?2,?3,?4,?5,?6,0,?7,?8)";
        let (of, (applied, sender)) = (row.resource_type.number(), row.applied.unzip());
        let row = params![row.rid, of, row.id, row.version, row.vid, row.ord, applied, sender.flatten()];
        self.prepare_cached(sql)?.execute(row)?;
        Ok(())
    }

    fn move_head(&self, row: &HeadRow<'_>) -> Result<(), Error> {
        let sql = "UPDATE head SET ver=?2, vid=?3, ord=?4, deleted=0, applied=coalesce(?5,applied), sender=coalesce(?6,sender) WHERE rid=?1";
        let (applied, sender) = row.applied.unzip();
        let row = params![row.rid, row.version, row.vid, row.ord, applied, sender.flatten()];
        self.prepare_cached(sql)?.execute(row)?;
        Ok(())
    }

    fn delete_head(&self, row: &HeadRow<'_>) -> Result<(), Error> {
        let sql = "UPDATE head SET ver=?2, vid=?3, deleted=1 WHERE rid=?1";
        self.prepare_cached(sql)?.execute(params![row.rid, row.version, row.vid])?;
        Ok(())
    }

    fn set_successor(&self, prior: i64, survivor: Option<i64>) -> Result<(), Error> {
        let sql = "UPDATE head SET successor=?2 WHERE rid=?1";
        self.prepare_cached(sql)?.execute(params![prior, survivor])?;
        Ok(())
    }

    fn write_index(&self, rid: i64, old: (&Rows, i64), new: (&Rows, i64)) -> Result<(), Error> {
        let moved = old.1 != new.1;
        let mut remove =
            self.prepare_cached("DELETE FROM ix WHERE key=?1 AND sys=?2 AND ord=?3 AND rid=?4")?;
        for key in old.0.keys_without(new.0, moved) {
            remove.execute(params![key.value, key.system, old.1, rid])?;
        }
        let mut add = self.prepare_cached("INSERT OR IGNORE INTO ix VALUES(?1,?2,?3,?4)")?;
        for key in new.0.keys_without(old.0, moved) {
            add.execute(params![key.value, key.system, new.1, rid])?;
        }
        let mut remove = self.prepare_cached("DELETE FROM ix_str WHERE key=?1 AND val=?2 AND rid=?3")?;
        for (key, text) in old.0.strings_without(new.0) {
            remove.execute(params![key, text, rid])?;
        }
        let mut add = self.prepare_cached("INSERT OR IGNORE INTO ix_str VALUES(?1,?2,?3)")?;
        for (key, text) in new.0.strings_without(old.0) {
            add.execute(params![key, text, rid])?;
        }
        let mut remove =
            self.prepare_cached("DELETE FROM ix_range WHERE key=?1 AND lo=?2 AND hi=?3 AND rid=?4")?;
        for (key, low, high) in old.0.ranges_without(new.0) {
            remove.execute(params![key, low, high, rid])?;
        }
        let mut add = self.prepare_cached("INSERT OR IGNORE INTO ix_range VALUES(?1,?2,?3,?4)")?;
        for (key, low, high) in new.0.ranges_without(old.0) {
            add.execute(params![key, low, high, rid])?;
        }
        Ok(())
    }
}

impl Index for Connection {
    fn with_value(&self, value: i64, max: usize) -> Result<Vec<(i64, i64)>, Error> {
        let sql = "SELECT DISTINCT h.rid, h.vid FROM ix i JOIN head h ON h.rid=i.rid WHERE i.key=?1 AND h.deleted=0 ORDER BY h.rid LIMIT ?2";
        let mut statement = self.prepare_cached(sql)?;
        let rows = statement.query_map(params![value, number(max)], |r| Ok((r.get(0)?, r.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn with_value_and(
        &self,
        value: i64,
        key: Key,
        max: usize,
        looked_at_max: usize,
    ) -> Result<Vec<(i64, i64)>, Error> {
        let sql = "SELECT DISTINCT h.rid, h.vid FROM (SELECT rid, ord FROM ix WHERE key=?1 LIMIT ?5) i CROSS JOIN head h ON h.rid=i.rid
        WHERE h.deleted=0 AND EXISTS (SELECT 1 FROM ix k WHERE k.key=?2 AND k.sys=?3 AND k.ord=i.ord AND k.rid=i.rid)
        ORDER BY h.rid LIMIT ?4";
        let mut statement = self.prepare_cached(sql)?;
        let row = params![value, key.value, key.system, number(max), number(looked_at_max)];
        let rows = statement.query_map(row, |r| Ok((r.get(0)?, r.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn with_key(&self, key: Key, max: usize) -> Result<Vec<(i64, i64)>, Error> {
        let sql = "SELECT h.rid, h.vid FROM ix i JOIN head h ON h.rid=i.rid WHERE i.key=?1 AND i.sys=?2 AND h.deleted=0 ORDER BY h.rid LIMIT ?3";
        let mut statement = self.prepare_cached(sql)?;
        let rows = statement
            .query_map(params![key.value, key.system, number(max)], |r| Ok((r.get(0)?, r.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn ids_with_key(&self, key: Key, max: usize) -> Result<Vec<String>, Error> {
        let sql = "SELECT h.fid FROM ix i JOIN head h ON h.rid=i.rid WHERE i.key=?1 AND i.sys=?2 AND h.deleted=0 ORDER BY h.rid LIMIT ?3";
        let mut statement = self.prepare_cached(sql)?;
        let rows = statement.query_map(params![key.value, key.system, number(max)], |r| r.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// By hops from system to system.
    fn systems_of(&self, value: i64, max: usize) -> Result<Vec<i64>, Error> {
        let sql = "SELECT sys FROM ix WHERE key=?1 AND sys>?2 ORDER BY sys LIMIT 1";
        let mut statement = self.prepare_cached(sql)?;
        let mut systems = Vec::new();
        let mut after = -1;
        while systems.len() < max {
            let Some(system) = statement.query_row(params![value, after], |r| r.get(0)).optional()? else {
                break;
            };
            systems.push(system);
            after = system;
        }
        Ok(systems)
    }

    fn count_key(&self, key: Key, max: i64) -> Result<i64, Error> {
        let sql = "SELECT count(*) FROM (SELECT 1 FROM ix WHERE key=?1 AND sys=?2 LIMIT ?3)";
        Ok(self.prepare_cached(sql)?.query_row(params![key.value, key.system, max], |r| r.get(0))?)
    }

    fn count_strings(&self, key: i64, prefix: &str, max: i64) -> Result<i64, Error> {
        let sql = "SELECT count(*) FROM (SELECT 1 FROM ix_str WHERE key=?1 AND val>=?2 AND val<?3 LIMIT ?4)";
        let row = params![key, prefix, after_prefix(prefix), max];
        Ok(self.prepare_cached(sql)?.query_row(row, |r| r.get(0))?)
    }

    fn count(&self, of: ResourceType) -> Result<u64, Error> {
        let sql = "SELECT count(*) FROM head WHERE rt=?1 AND deleted=0";
        let all = self.prepare_cached(sql)?.query_row([of.number()], |r| r.get::<_, i64>(0))?;
        Ok(all.cast_unsigned())
    }

    fn step(&self, walk: &Walk) -> Result<Vec<Candidate>, Error> {
        let sql = match (walk.key.is_some(), walk.descending) {
            (true, false) => {
                "SELECT i.ord, i.rid, h.vid FROM ix i JOIN head h ON h.rid=i.rid WHERE (i.ord,i.rid)>(?1,?2) AND i.key=?4 AND i.sys=?5 AND h.deleted=0 ORDER BY i.ord, i.rid LIMIT ?3"
            }
            (true, true) => {
                "SELECT i.ord, i.rid, h.vid FROM ix i JOIN head h ON h.rid=i.rid WHERE (i.ord,i.rid)<(?1,?2) AND i.key=?4 AND i.sys=?5 AND h.deleted=0 ORDER BY i.ord DESC, i.rid DESC LIMIT ?3"
            }
            (false, false) => {
                "SELECT ord, rid, vid FROM head WHERE (ord,rid)>(?1,?2) AND rt=?4 AND deleted=0 ORDER BY ord, rid LIMIT ?3"
            }
            (false, true) => {
                "SELECT ord, rid, vid FROM head WHERE (ord,rid)<(?1,?2) AND rt=?4 AND deleted=0 ORDER BY ord DESC, rid DESC LIMIT ?3"
            }
        };
        let mut statement = self.prepare_cached(sql)?;
        let (after, limit) = (walk.after, number(walk.limit));
        let mut rows = match walk.key {
            Some(key) => statement.query(params![after.ord, after.rid, limit, key.value, key.system])?,
            None => statement.query(params![after.ord, after.rid, limit, walk.of.number()])?,
        };
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(Candidate { ord: row.get(0)?, rid: row.get(1)?, vid: row.get(2)? });
        }
        Ok(found)
    }

    fn newest(&self) -> Result<u64, Error> {
        let mut statement = self.prepare_cached("SELECT given FROM counter WHERE name='vid'")?;
        Ok(statement.query_row([], |r| r.get::<_, i64>(0))?.cast_unsigned())
    }

    fn changed_since(&self, of: ResourceType, after: u64, max: u32) -> Result<Vec<Changed>, Error> {
        let sql = "SELECT h.rid, h.ord, h.deleted, (SELECT max(p.vid) FROM version p WHERE p.rid=h.rid AND p.vid<=?1)
        FROM (SELECT DISTINCT rid FROM (SELECT rid FROM version WHERE vid>?1 ORDER BY vid LIMIT ?3)) c CROSS JOIN head h ON h.rid=c.rid WHERE h.rt=?2";
        let mut statement = self.prepare_cached(sql)?;
        let rows = statement.query_map(params![after.cast_signed(), of.number(), max], |r| {
            Ok(Changed { rid: r.get(0)?, ord: r.get(1)?, deleted: r.get(2)?, earlier: r.get(3)? })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn versions_of(
        &self,
        candidates: &[Candidate],
        keys: &[Key],
    ) -> Result<Vec<(Candidate, Version)>, Error> {
        let mut has_key =
            self.prepare_cached("SELECT 1 FROM ix WHERE key=?1 AND sys=?2 AND ord=?3 AND rid=?4")?;
        let sql = "SELECT h.rt, h.fid, v.ver, v.lm, v.op, v.sub, v.enc, v.body, v.vid FROM version v JOIN head h ON h.rid=v.rid WHERE v.vid=?1 AND v.rid=?2";
        let mut found = Vec::with_capacity(candidates.len());
        'candidates: for candidate in candidates {
            for key in keys {
                if !has_key.exists(params![key.value, key.system, candidate.ord, candidate.rid])? {
                    continue 'candidates;
                }
            }
            let version = one(self, sql, params![candidate.vid, candidate.rid])?;
            found.extend(version.map(|version| (*candidate, version)));
        }
        Ok(found)
    }

    fn hits(
        &self,
        lookup: &Lookup,
        _max: usize,
        each: &mut dyn FnMut(Candidate) -> Result<(), Error>,
    ) -> Result<(), Error> {
        candidates(self, lookup, each)
    }

    fn candidates_at_once(&self) -> usize {
        1
    }
}

const COLUMNS: &str = "h.rt, h.fid, v.ver, v.lm, v.op, v.sub, v.enc, v.body, v.vid";

/// The numbers given out so far.
pub(super) fn counters(connection: &Connection) -> Result<Counters, Error> {
    let mut statement = connection.prepare_cached("SELECT given FROM counter WHERE name=?1")?;
    let mut given = |name: &str| statement.query_row([name], |r| r.get::<_, i64>(0));
    let (rid, vid, seq) = (given("rid")?, given("vid")?, given("seq")?);
    Ok(Counters { rid, vid: vid.cast_unsigned(), seq: seq.cast_unsigned() })
}

/// Notes the numbers given out, in the transaction that gave them.
pub(super) fn set_counters(connection: &Connection, before: Counters, now: Counters) -> Result<(), Error> {
    let mut statement = connection.prepare_cached("UPDATE counter SET given=?2 WHERE name=?1")?;
    for (name, before, now) in [
        ("rid", before.rid, now.rid),
        ("vid", before.vid.cast_signed(), now.vid.cast_signed()),
        ("seq", before.seq.cast_signed(), now.seq.cast_signed()),
    ] {
        if before != now && statement.execute(params![name, now])? != 1 {
            return Err(Error::unavailable("site.db has no counters: run `hilum fsck`, restore a backup"));
        }
    }
    Ok(())
}

fn head_at(row: &Row<'_>, at: usize) -> rusqlite::Result<Head> {
    Ok(Head {
        rid: row.get(at)?,
        version: row.get::<_, i64>(at + 1)?.cast_unsigned(),
        vid: row.get(at + 2)?,
        ord: row.get(at + 3)?,
        deleted: row.get(at + 4)?,
        applied: row.get(at + 5)?,
        successor: row.get(at + 6)?,
        sender: row.get(at + 7)?,
    })
}

fn one(connection: &Connection, sql: &str, row: impl rusqlite::Params) -> Result<Option<Version>, Error> {
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_row(row, |row| Ok(read(row))).optional()?.transpose()
}

fn read(row: &Row<'_>) -> Result<Version, Error> {
    let body =
        row.get_ref(7)?.as_blob_or_null().map_err(|e| Error::unavailable("a body is no blob").because(e))?;
    StoredVersion {
        resource_type: row.get(0)?,
        id: row.get(1)?,
        version: row.get(2)?,
        last_updated: row.get(3)?,
        operation: row.get(4)?,
        submission: row.get(5)?,
        encoding: row.get(6)?,
        body,
    }
    .complete()
}

fn collect(
    connection: &Connection,
    sql: &str,
    row: impl rusqlite::Params,
    each: &mut dyn FnMut(Candidate) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(row)?;
    while let Some(row) = rows.next()? {
        each(Candidate { ord: row.get(0)?, rid: row.get(1)?, vid: row.get(2)? })?;
    }
    Ok(())
}

pub(super) fn number(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

pub(crate) fn candidates(
    connection: &Connection,
    lookup: &Lookup,
    each: &mut dyn FnMut(Candidate) -> Result<(), Error>,
) -> Result<(), Error> {
    match lookup {
        Lookup::Ids(_) => {}
        Lookup::Keys { keys, .. } => {
            let sql = "SELECT h.ord, h.rid, h.vid FROM ix i JOIN head h ON h.rid=i.rid WHERE i.key=?1 AND i.sys=?2 AND h.deleted=0";
            for key in keys {
                collect(connection, sql, params![key.value, key.system], each)?;
            }
        }
        Lookup::Strings(key, forms) => {
            let sql = "SELECT h.ord, h.rid, h.vid FROM ix_str s JOIN head h ON h.rid=s.rid WHERE s.key=?1 AND s.val>=?2 AND s.val<?3 AND h.deleted=0";
            for form in forms {
                collect(connection, sql, params![key, form, after_prefix(form)], each)?;
            }
        }
        Lookup::Ranges(key, ranges) => {
            let sql = "SELECT h.ord, h.rid, h.vid FROM ix_range r JOIN head h ON h.rid=r.rid WHERE r.key=?1 AND r.lo<=?3 AND r.hi>=?2 AND h.deleted=0";
            for (low, high) in ranges {
                collect(connection, sql, params![key, low, high], each)?;
            }
        }
    }
    Ok(())
}

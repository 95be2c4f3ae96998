//! Heads, versions, the index.

use hilum_fhir::ResourceType;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::session::Session;
use super::values::{clean, head_at};
use crate::face::{Index, Resources, WriteResources};
use crate::keys::{Key, Lookup, Rows};
use crate::row::{
    Candidate, Changed, Content, Head, HeadRow, SAME_IDENTIFIER_MAX, StoredVersion, VersionRow, Walk,
    after_prefix,
};
use crate::{Error, FeedEntry, Version};

impl Resources for Session {
    fn replaced_by(&self, survivor: i64, max: usize) -> Result<Vec<(i64, i64)>, Error> {
        let sql =
            "SELECT rid, vid FROM head WHERE site=$1 AND successor=$2 AND NOT deleted ORDER BY rid LIMIT $3";
        Ok(pairs(&self.rows(sql, &[&survivor, &number(max)])?))
    }

    fn replacing(&self, rids: &[i64]) -> Result<Vec<i64>, Error> {
        let sql = concat!(
            "SELECT s.rid FROM ",
            each!("$2::bigint[]"),
            " s(rid) WHERE EXISTS (SELECT 1 FROM head h WHERE h.site=$1 AND h.successor=s.rid OFFSET 0)"
        );
        Ok(self.rows(sql, &[&rids])?.iter().map(|row| row.get(0)).collect())
    }

    fn heads(&self, of: ResourceType, ids: &[String]) -> Result<Vec<(String, Head)>, Error> {
        let sql = concat!(
            "SELECT h.rid, h.ver::bigint, h.vid, h.ord, h.deleted, h.applied, h.successor, h.sender, h.fid FROM ",
            each!("$2::text[]"),
            " n(fid) CROSS JOIN LATERAL (SELECT * FROM head h WHERE h.site=$1 AND h.rt=$3::bigint::smallint AND h.fid=n.fid OFFSET 0) h"
        );
        let ids: Vec<String> = ids.iter().map(|id| clean(id)).collect();
        let rows = self.rows(sql, &[&ids, &of.number()])?;
        Ok(rows.iter().map(|row| (row.get(8), head_at(row, 0))).collect())
    }

    fn heard(&self, rid: i64, sender: i64) -> Result<Option<i64>, Error> {
        let sql = "SELECT applied FROM heard WHERE site=$1 AND rid=$2 AND sender=$3";
        Ok(self.row(sql, &[&rid, &sender])?.map(|row| row.get(0)))
    }

    fn head(&self, of: ResourceType, id: &str) -> Result<Option<Head>, Error> {
        let sql = "SELECT rid, ver::bigint, vid, ord, deleted, applied, successor, sender FROM head WHERE site=$1 AND rt=$2::bigint::smallint AND fid=$3";
        let name = (of.number(), clean(id));
        if let Some(head) = self.foreseen_head(&name) {
            return Ok(head);
        }
        let found = |rows: Vec<Row>| rows.first().map(|row| head_at(row, 0));
        let values: [&(dyn ToSql + Sync); 2] = [&name.0, &name.1];
        if !self.is_written(|written| written.names.contains(&name)) {
            let head = found(self.rows_unaffected(sql, &values)?);
            if !head.is_some_and(|head| self.is_written(|written| written.rids.contains(&head.rid))) {
                return Ok(head);
            }
        }
        self.rows(sql, &values).map(found)
    }

    fn head_of(&self, rid: i64) -> Result<Option<(ResourceType, String, Head, i64)>, Error> {
        let sql = concat!(
            "SELECT h.rid, h.ver::bigint, h.vid, h.ord, h.deleted, h.applied, h.successor, h.sender, h.rt::bigint, h.fid, v.lm FROM head h",
            version_at!("h.vid"),
            "WHERE h.site=$1 AND h.rid=$2"
        );
        if let Some(((of, id), head, last_updated)) = self.foreseen_row(rid) {
            return Ok(ResourceType::from_number(of).map(|of| (of, id, head, last_updated)));
        }
        let row = self.row(sql, &[&rid])?;
        Ok(row.and_then(|row| {
            Some((ResourceType::from_number(row.get(8))?, row.get(9), head_at(&row, 0), row.get(10)))
        }))
    }

    fn name(&self, rid: i64) -> Result<Option<(ResourceType, String)>, Error> {
        if let Some(((of, id), ..)) = self.foreseen_row(rid) {
            return Ok(ResourceType::from_number(of).map(|of| (of, id)));
        }
        let row = self.row("SELECT rt::bigint, fid FROM head WHERE site=$1 AND rid=$2", &[&rid])?;
        Ok(row.and_then(|row| Some((ResourceType::from_number(row.get(0))?, row.get(1)))))
    }

    fn content(&self, vid: i64) -> Result<Content, Error> {
        let sql = "SELECT lm, enc::bigint, body FROM version WHERE site=$1 AND vid=$2";
        if let Some(content) = self.foreseen_content(vid) {
            return Ok(content);
        }
        let row = self.row(sql, &[&vid])?.ok_or_else(|| Error::unavailable("a version vanished"))?;
        Ok(Content { last_updated: row.get(0), encoding: row.get(1), body: row.get(2) })
    }

    fn current(&self, of: ResourceType, id: &str) -> Result<Option<Version>, Error> {
        let sql = concat!(
        "SELECT h.rt::bigint, h.fid, v.ver::bigint, v.lm, v.op::bigint, v.sub, v.enc::bigint, v.body, v.vid
        FROM head h",
        version_at!("h.vid"),
        "WHERE h.site=$1 AND h.rt=$2::bigint::smallint AND h.fid=$3"
    );
        self.row(sql, &[&of.number(), &clean(id)])?.map(|row| read(&row)).transpose()
    }

    fn version(&self, of: ResourceType, id: &str, version: u64) -> Result<Option<Version>, Error> {
        let sql = "SELECT h.rt::bigint, h.fid, v.ver::bigint, v.lm, v.op::bigint, v.sub, v.enc::bigint, v.body, v.vid
        FROM head h CROSS JOIN LATERAL (SELECT * FROM version v WHERE v.site=$1 AND v.rid=h.rid AND v.ver=$4::bigint OFFSET 0) v WHERE h.site=$1 AND h.rt=$2::bigint::smallint AND h.fid=$3";
        let version = version.cast_signed();
        self.row(sql, &[&of.number(), &clean(id), &version])?.map(|row| read(&row)).transpose()
    }

    fn history(
        &self,
        of: ResourceType,
        id: &str,
        before: Option<u64>,
        count: u32,
    ) -> Result<Vec<Version>, Error> {
        let sql = "SELECT h.rt::bigint, h.fid, v.ver::bigint, v.lm, v.op::bigint, v.sub, v.enc::bigint, v.body, v.vid
        FROM head h CROSS JOIN LATERAL (SELECT * FROM version v WHERE v.site=$1 AND v.rid=h.rid AND v.ver<$4::bigint ORDER BY v.ver DESC LIMIT $5) v
        WHERE h.site=$1 AND h.rt=$2::bigint::smallint AND h.fid=$3 ORDER BY v.ver DESC";
        let before = before.map_or(i64::MAX, u64::cast_signed);
        let rows = self.rows(sql, &[&of.number(), &clean(id), &before, &i64::from(count)])?;
        rows.iter().map(read).collect()
    }

    fn feed(&self, after: u64, limit: u32) -> Result<Vec<FeedEntry>, Error> {
        let sql = concat!(
        "SELECT h.rt::bigint, h.fid, v.ver::bigint, v.lm, v.op::bigint, v.sub, v.enc::bigint, v.body, v.vid
        FROM version v",
        head_of!("v.rid"),
        "WHERE v.site=$1 AND v.vid>$2 ORDER BY v.vid LIMIT $3"
    );
        let rows = self.rows(sql, &[&after.cast_signed(), &i64::from(limit)])?;
        rows.iter()
            .map(|row| Ok(FeedEntry { position: row.get::<_, i64>(8).cast_unsigned(), version: read(row)? }))
            .collect()
    }
}

impl WriteResources for Session {
    fn set_applied(&self, rid: i64, sender: Option<i64>, applied: i64) -> Result<(), Error> {
        let sql = "UPDATE head SET applied=$3, sender=coalesce($4,sender) WHERE site=$1 AND rid=$2";
        self.gather(sql, vec![Box::new(rid), Box::new(applied), Box::new(sender)]);
        self.gathering(|gathered| {
            gathered.rids.insert(rid);
        });
        Ok(())
    }

    fn put_heard(&self, rid: i64, sender: i64, applied: i64) -> Result<(), Error> {
        let sql = "INSERT INTO heard(site,rid,sender,applied) VALUES($1,$2,$3,$4)
        ON CONFLICT(site,rid,sender) DO UPDATE SET applied=greatest(heard.applied,excluded.applied)";
        self.gather(sql, vec![Box::new(rid), Box::new(sender), Box::new(applied)]);
        Ok(())
    }

    fn add_version(&self, row: &VersionRow<'_>) -> Result<(), Error> {
        self.gathering(|gathered| {
            let versions = &mut gathered.versions;
            versions.vid.push(row.vid.cast_signed());
            versions.rid.push(row.rid);
            versions.version.push(row.version.cast_signed());
            versions.last_updated.push(row.last_updated);
            versions.operation.push(row.operation.number());
            versions.submission.push(row.submission.map(u64::cast_signed));
            versions.encoding.push(row.body.map_or(0, |(encoding, _)| encoding));
            versions.body.push(row.body.map(|(_, body)| body.to_vec()));
            gathered.rids.insert(row.rid);
        });
        Ok(())
    }

    fn add_head(&self, row: &HeadRow<'_>) -> Result<(), Error> {
        self.gathering(|gathered| {
            gathered.heads.add(row);
            gathered.names.insert((row.resource_type.number(), clean(row.id)));
        });
        Ok(())
    }

    fn move_head(&self, row: &HeadRow<'_>) -> Result<(), Error> {
        self.gathering(|gathered| {
            gathered.moves.add(row);
            gathered.names.insert((row.resource_type.number(), clean(row.id)));
        });
        Ok(())
    }

    fn delete_head(&self, row: &HeadRow<'_>) -> Result<(), Error> {
        self.gathering(|gathered| {
            let (rids, versions, vids) = &mut gathered.deletions;
            rids.push(row.rid);
            versions.push(row.version.cast_signed());
            vids.push(row.vid.cast_signed());
            gathered.names.insert((row.resource_type.number(), clean(row.id)));
        });
        Ok(())
    }

    fn set_successor(&self, prior: i64, survivor: Option<i64>) -> Result<(), Error> {
        let sql = "UPDATE head SET successor=$3 WHERE site=$1 AND rid=$2";
        self.gather(sql, vec![Box::new(prior), Box::new(survivor)]);
        self.gathering(|gathered| {
            gathered.rids.insert(prior);
        });
        Ok(())
    }

    fn write_index(&self, rid: i64, old: (&Rows, i64), new: (&Rows, i64)) -> Result<(), Error> {
        let moved = old.1 != new.1;
        self.gathering(|gathered| {
            for key in old.0.keys_without(new.0, moved) {
                gathered.keys_out.add(*key, old.1, rid);
                gathered.keys.insert(*key);
            }
            for key in new.0.keys_without(old.0, moved) {
                gathered.keys_in.add(*key, new.1, rid);
                gathered.keys.insert(*key);
            }
            old.0.strings_without(new.0).for_each(|(key, text)| gathered.strings_out.add(*key, text, rid));
            new.0.strings_without(old.0).for_each(|(key, text)| gathered.strings_in.add(*key, text, rid));
            old.0.ranges_without(new.0).for_each(|range| gathered.ranges_out.add(*range, rid));
            new.0.ranges_without(old.0).for_each(|range| gathered.ranges_in.add(*range, rid));
        });
        Ok(())
    }
}

impl Index for Session {
    fn with_value(&self, value: i64, max: usize) -> Result<Vec<(i64, i64)>, Error> {
        let sql = concat!(
            "SELECT DISTINCT i.rid, h.vid FROM ix i",
            head_of!("i.rid"),
            "WHERE NOT h.deleted AND i.site=$1 AND i.key=$2 ORDER BY i.rid LIMIT $3"
        );
        Ok(pairs(&self.rows(sql, &[&value, &number(max)])?))
    }

    fn with_value_and(
        &self,
        value: i64,
        key: Key,
        max: usize,
        looked_at_max: usize,
    ) -> Result<Vec<(i64, i64)>, Error> {
        let sql = concat!(
        "SELECT DISTINCT i.rid, h.vid FROM (SELECT rid, ord FROM ix WHERE site=$1 AND key=$2 ORDER BY sys LIMIT $6) i",
        head_of!("i.rid"),
        "WHERE NOT h.deleted AND EXISTS (SELECT 1 FROM ix k WHERE k.site=$1 AND k.key=$3 AND k.sys=$4 AND k.ord=i.ord AND k.rid=i.rid OFFSET 0)
        ORDER BY i.rid LIMIT $5"
    );
        let values: [&(dyn ToSql + Sync); 5] =
            [&value, &key.value, &key.system, &number(max), &number(looked_at_max)];
        Ok(pairs(&self.rows(sql, &values)?))
    }

    fn with_key(&self, key: Key, max: usize) -> Result<Vec<(i64, i64)>, Error> {
        let sql = concat!(
            "SELECT i.rid, h.vid FROM ix i",
            head_of!("i.rid"),
            "WHERE NOT h.deleted AND i.site=$1 AND i.key=$2 AND i.sys=$3 ORDER BY i.rid LIMIT $4"
        );
        let values: [&(dyn ToSql + Sync); 3] = [&key.value, &key.system, &number(max)];
        let found =
            |rows: Vec<Row>| -> Vec<(i64, i64)> { rows.iter().map(|r| (r.get(0), r.get(1))).collect() };
        if max == SAME_IDENTIFIER_MAX
            && let Some(found) = self.foreseen_key(&key)
        {
            return Ok(found);
        }
        if !self.is_written(|written| written.keys.contains(&key)) {
            let found = found(self.rows_unaffected(sql, &values)?);
            if !found.iter().any(|(rid, _)| self.is_written(|written| written.rids.contains(rid))) {
                return Ok(found);
            }
        }
        self.rows(sql, &values).map(found)
    }

    fn ids_with_key(&self, key: Key, max: usize) -> Result<Vec<String>, Error> {
        let sql = concat!(
            "SELECT h.fid FROM ix i",
            head_of!("i.rid"),
            "WHERE NOT h.deleted AND i.site=$1 AND i.key=$2 AND i.sys=$3 ORDER BY i.rid LIMIT $4"
        );
        let rows = self.rows(sql, &[&key.value, &key.system, &number(max)])?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// By hops from system to system, in one statement.
    fn systems_of(&self, value: i64, max: usize) -> Result<Vec<i64>, Error> {
        let sql = "WITH RECURSIVE hop(sys) AS (
            (SELECT sys FROM ix WHERE site=$1 AND key=$2 ORDER BY sys LIMIT 1)
            UNION ALL SELECT (SELECT i.sys FROM ix i WHERE i.site=$1 AND i.key=$2 AND i.sys>hop.sys ORDER BY i.sys LIMIT 1) FROM hop WHERE hop.sys IS NOT NULL)
        SELECT sys FROM hop WHERE sys IS NOT NULL LIMIT $3";
        Ok(self.rows(sql, &[&value, &number(max)])?.iter().map(|row| row.get(0)).collect())
    }

    fn count_key(&self, key: Key, max: i64) -> Result<i64, Error> {
        let sql = "SELECT count(*) FROM (SELECT 1 FROM ix WHERE site=$1 AND key=$2 AND sys=$3 LIMIT $4) i";
        one_number(self, sql, &[&key.value, &key.system, &max])
    }

    fn count_strings(&self, key: i64, prefix: &str, max: i64) -> Result<i64, Error> {
        let sql = "SELECT count(*) FROM (SELECT 1 FROM ix_str WHERE site=$1 AND key=$2 AND val>=$3 AND val<$4 LIMIT $5) i";
        let prefix = clean(prefix);
        one_number(self, sql, &[&key, &prefix, &after_prefix(&prefix), &max])
    }

    fn count(&self, of: ResourceType) -> Result<u64, Error> {
        let sql = "SELECT count(*) FROM head WHERE site=$1 AND rt=$2::bigint::smallint AND NOT deleted";
        one_number(self, sql, &[&of.number()]).map(i64::cast_unsigned)
    }

    fn step(&self, walk: &Walk) -> Result<Vec<Candidate>, Error> {
        let sql = match (walk.key.is_some(), walk.descending) {
            (true, false) => {
                concat!(
                    "SELECT i.ord, i.rid, h.vid FROM ix i",
                    head_of!("i.rid"),
                    "WHERE NOT h.deleted AND i.site=$1 AND i.key=$5 AND i.sys=$6 AND (i.ord,i.rid)>($2,$3) ORDER BY i.ord, i.rid LIMIT $4"
                )
            }
            (true, true) => {
                concat!(
                    "SELECT i.ord, i.rid, h.vid FROM ix i",
                    head_of!("i.rid"),
                    "WHERE NOT h.deleted AND i.site=$1 AND i.key=$5 AND i.sys=$6 AND (i.ord,i.rid)<($2,$3) ORDER BY i.ord DESC, i.rid DESC LIMIT $4"
                )
            }
            (false, false) => {
                "SELECT ord, rid, vid FROM head WHERE site=$1 AND rt=$5::bigint::smallint AND (ord,rid)>($2,$3) AND NOT deleted ORDER BY ord, rid LIMIT $4"
            }
            (false, true) => {
                "SELECT ord, rid, vid FROM head WHERE site=$1 AND rt=$5::bigint::smallint AND (ord,rid)<($2,$3) AND NOT deleted ORDER BY ord DESC, rid DESC LIMIT $4"
            }
        };
        let (after, limit, of) = (walk.after, number(walk.limit), walk.of.number());
        let rows = match walk.key {
            Some(key) => self.rows(sql, &[&after.ord, &after.rid, &limit, &key.value, &key.system])?,
            None => self.rows(sql, &[&after.ord, &after.rid, &limit, &of])?,
        };
        Ok(rows.iter().map(candidate).collect())
    }

    fn newest(&self) -> Result<u64, Error> {
        let row = self.row("SELECT vid FROM site WHERE no=$1", &[])?;
        Ok(row.map_or(0, |row| row.get::<_, i64>(0).cast_unsigned()))
    }

    fn changed_since(&self, of: ResourceType, after: u64, max: u32) -> Result<Vec<Changed>, Error> {
        // the versions of a resource are looked up by its rid, whatever else their order could serve
        let sql = concat!(
            "SELECT h.rid, h.ord, h.deleted, (SELECT max(vid) FROM (SELECT p.vid FROM version p WHERE p.site=$1 AND p.rid=h.rid OFFSET 0) p WHERE p.vid<=$2)
        FROM (SELECT DISTINCT rid FROM (SELECT v.rid FROM version v WHERE v.site=$1 AND v.vid>$2 ORDER BY v.vid LIMIT $4) v) c",
            head_of!("c.rid"),
            "WHERE h.rt=$3::bigint::smallint"
        );
        let rows = self.rows(sql, &[&after.cast_signed(), &of.number(), &i64::from(max)])?;
        let changed = |row: &Row| Changed {
            rid: row.get(0),
            ord: row.get(1),
            deleted: row.get(2),
            earlier: row.get(3),
        };
        Ok(rows.iter().map(changed).collect())
    }

    fn versions_of(
        &self,
        candidates: &[Candidate],
        keys: &[Key],
    ) -> Result<Vec<(Candidate, Version)>, Error> {
        let sql = "SELECT h.rt::bigint, h.fid, v.ver::bigint, v.lm, v.op::bigint, v.sub, v.enc::bigint, v.body, u.n
        FROM (SELECT * FROM unnest($2::bigint[],$3::bigint[],$4::bigint[]) WITH ORDINALITY LIMIT cardinality($2)) u(vid,ord,rid,n)
        JOIN version v ON v.site=$1 AND v.vid=u.vid AND v.rid=u.rid JOIN head h ON h.site=$1 AND h.rid=u.rid
        WHERE NOT EXISTS (SELECT 1 FROM unnest($5::bigint[],$6::bigint[]) k(key,sys) WHERE NOT EXISTS (
            SELECT 1 FROM ix i WHERE i.site=$1 AND i.key=k.key AND i.sys=k.sys AND i.ord=u.ord AND i.rid=u.rid OFFSET 0) OFFSET 0)
        ORDER BY u.n";
        let column = |of: fn(&Candidate) -> i64| candidates.iter().map(of).collect::<Vec<i64>>();
        let (vids, ords, rids) = (column(|c| c.vid), column(|c| c.ord), column(|c| c.rid));
        let values: Vec<i64> = keys.iter().map(|key| key.value).collect();
        let systems: Vec<i64> = keys.iter().map(|key| key.system).collect();
        let rows = self.rows(sql, &[&vids, &ords, &rids, &values, &systems])?;
        rows.iter()
            .map(|row| {
                let at = usize::try_from(row.get::<_, i64>(8) - 1).unwrap_or(0);
                Ok((candidates[at], read(row)?))
            })
            .collect()
    }

    fn hits(
        &self,
        lookup: &Lookup,
        max: usize,
        each: &mut dyn FnMut(Candidate) -> Result<(), Error>,
    ) -> Result<(), Error> {
        candidates(self, lookup, max, each)
    }

    fn candidates_at_once(&self) -> usize {
        64
    }
}

fn read(row: &Row) -> Result<Version, Error> {
    StoredVersion {
        resource_type: row.get(0),
        id: row.get(1),
        version: row.get(2),
        last_updated: row.get(3),
        operation: row.get(4),
        submission: row.get(5),
        encoding: row.get(6),
        body: row.get(7),
    }
    .complete()
}

impl super::session::Heads {
    fn add(&mut self, row: &HeadRow<'_>) {
        self.rid.push(row.rid);
        self.of.push(row.resource_type.number());
        self.id.push(clean(row.id));
        self.version.push(row.version.cast_signed());
        self.vid.push(row.vid.cast_signed());
        self.ord.push(row.ord);
        let (applied, sender) = row.applied.unzip();
        self.applied.push(applied);
        self.sender.push(sender.flatten());
    }
}

fn pairs(rows: &[Row]) -> Vec<(i64, i64)> {
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

impl super::session::Keys {
    fn add(&mut self, key: Key, ord: i64, rid: i64) {
        self.key.push(key.value);
        self.system.push(key.system);
        self.ord.push(ord);
        self.rid.push(rid);
    }
}

impl super::session::Strings {
    fn add(&mut self, key: i64, text: &str, rid: i64) {
        self.key.push(key);
        self.text.push(clean(text));
        self.rid.push(rid);
    }
}

impl super::session::Ranges {
    fn add(&mut self, (key, low, high): (i64, i64, i64), rid: i64) {
        self.key.push(key);
        self.low.push(low);
        self.high.push(high);
        self.rid.push(rid);
    }
}

fn one_number(session: &Session, sql: &'static str, values: &[&(dyn ToSql + Sync)]) -> Result<i64, Error> {
    Ok(session.row(sql, values)?.map_or(0, |row| row.get(0)))
}

fn candidate(row: &Row) -> Candidate {
    Candidate { ord: row.get(0), rid: row.get(1), vid: row.get(2) }
}

fn collect(
    session: &Session,
    sql: &'static str,
    values: &[&(dyn ToSql + Sync)],
    each: &mut dyn FnMut(Candidate) -> Result<(), Error>,
) -> Result<(), Error> {
    session.rows(sql, values)?.iter().map(candidate).try_for_each(each)
}

/// Keys that are looked up together.
const KEYS_AT_ONCE: usize = 512;

fn number(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

pub(crate) fn candidates(
    session: &Session,
    lookup: &Lookup,
    max: usize,
    each: &mut dyn FnMut(Candidate) -> Result<(), Error>,
) -> Result<(), Error> {
    let limit = number(max.saturating_add(1));
    match lookup {
        Lookup::Ids(_) => {}
        Lookup::Keys { keys, .. } => {
            let sql = concat!(
                "SELECT h.ord, h.rid, h.vid FROM ",
                each!("$2::bigint[],$3::bigint[]"),
                " k(key,sys) CROSS JOIN LATERAL (SELECT i.rid FROM ix i WHERE i.site=$1 AND i.key=k.key AND i.sys=k.sys OFFSET 0) i",
                head_of!("i.rid"),
                "WHERE NOT h.deleted LIMIT $4"
            );
            for some in keys.chunks(KEYS_AT_ONCE) {
                let values: Vec<i64> = some.iter().map(|key| key.value).collect();
                let systems: Vec<i64> = some.iter().map(|key| key.system).collect();
                collect(session, sql, &[&values, &systems, &limit], each)?;
            }
        }
        Lookup::Strings(key, forms) => {
            let sql = concat!(
                "SELECT h.ord, h.rid, h.vid FROM ix_str s",
                head_of!("s.rid"),
                "WHERE NOT h.deleted AND s.site=$1 AND s.key=$3 AND s.val>=$4 AND s.val<$5 LIMIT $2"
            );
            for form in forms {
                let form = clean(form);
                collect(session, sql, &[&limit, key, &form, &after_prefix(&form)], each)?;
            }
        }
        Lookup::Ranges(key, ranges) => {
            let sql = concat!(
                "SELECT h.ord, h.rid, h.vid FROM ix_range r",
                head_of!("r.rid"),
                "WHERE NOT h.deleted AND r.site=$1 AND r.key=$3 AND r.lo<=$5 AND r.hi>=$4 LIMIT $2"
            );
            for (low, high) in ranges {
                collect(session, sql, &[&limit, key, low, high], each)?;
            }
        }
    }
    Ok(())
}

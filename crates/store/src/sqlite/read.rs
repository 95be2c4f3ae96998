//! Reads by id, version and feed position.

use bytes::Bytes;
use hilum_fhir::{ResourceType, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::body;
use crate::{Error, FeedEntry, Operation, Version};

const COLUMNS: &str = "h.rt, h.fid, v.ver, v.lm, v.op, v.sub, v.enc, v.body, v.vid";

/// The current version or deletion of a resource.
pub(crate) fn current(
    connection: &Connection,
    resource_type: ResourceType,
    id: &str,
) -> Result<Option<Version>, Error> {
    let sql = "SELECT h.rt, h.fid, v.ver, v.lm, v.op, v.sub, v.enc, v.body, v.vid FROM head h JOIN version v ON v.vid=h.vid WHERE h.rt=?1 AND h.fid=?2";
    one(connection, sql, params![resource_type.number(), id])
}

/// One version of a resource.
pub(crate) fn version(
    connection: &Connection,
    resource_type: ResourceType,
    id: &str,
    version: u64,
) -> Result<Option<Version>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM head h JOIN version v ON v.rid=h.rid AND v.ver=?3 WHERE h.rt=?1 AND h.fid=?2"
    );
    one(connection, &sql, params![resource_type.number(), id, version])
}

/// The version with this number of the feed, of this resource.
pub(super) fn by_vid(connection: &Connection, rid: i64, vid: i64) -> Result<Option<Version>, Error> {
    let sql = "SELECT h.rt, h.fid, v.ver, v.lm, v.op, v.sub, v.enc, v.body, v.vid FROM version v JOIN head h ON h.rid=v.rid WHERE v.vid=?1 AND v.rid=?2";
    one(connection, sql, params![vid, rid])
}

/// Versions of a resource, newest first, older than `before`.
pub(crate) fn history(
    connection: &Connection,
    resource_type: ResourceType,
    id: &str,
    before: Option<u64>,
    count: u32,
) -> Result<Vec<Version>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM head h JOIN version v ON v.rid=h.rid WHERE h.rt=?1 AND h.fid=?2 AND v.ver<?3 ORDER BY v.ver DESC LIMIT ?4"
    );
    let before = before.map_or(i64::MAX, u64::cast_signed);
    many(connection, &sql, params![resource_type.number(), id, before, count])
}

/// Versions after a feed position.
pub(crate) fn feed(connection: &Connection, after: u64, limit: u32) -> Result<Vec<FeedEntry>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM version v JOIN head h ON h.rid=v.rid WHERE v.vid>?1 ORDER BY v.vid LIMIT ?2"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params![after.cast_signed(), limit])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(FeedEntry { position: row.get::<_, i64>(8)?.cast_unsigned(), version: read(row)? });
    }
    Ok(found)
}

fn one(connection: &Connection, sql: &str, row: impl rusqlite::Params) -> Result<Option<Version>, Error> {
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_row(row, |row| Ok(read(row))).optional()?.transpose()
}

fn many(connection: &Connection, sql: &str, row: impl rusqlite::Params) -> Result<Vec<Version>, Error> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(row)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

fn read(row: &Row<'_>) -> Result<Version, Error> {
    let resource_type = ResourceType::from_number(row.get(0)?)
        .ok_or_else(|| Error::unavailable("an unknown type is stored"))?;
    let id: String = row.get(1)?;
    let version = row.get::<_, i64>(2)?.cast_unsigned();
    let last_updated = Timestamp::from_micros(row.get(3)?);
    let body = match row
        .get_ref(7)?
        .as_blob_or_null()
        .map_err(|e| Error::unavailable("a body is no blob").because(e))?
    {
        None => Bytes::new(),
        Some(packed) => {
            let stored = body::decode(row.get(6)?, packed)?;
            body::complete(&stored, resource_type.name(), &id, version, last_updated)
        }
    };
    Ok(Version {
        resource_type,
        id,
        version,
        last_updated,
        operation: Operation::from_number(row.get(4)?),
        submission: row.get::<_, Option<i64>>(5)?.map(i64::cast_unsigned),
        body,
    })
}

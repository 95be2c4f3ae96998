//! Look-ups by id, identifier and query, the same inside and outside the transaction.

use hilum_fhir::search::{Context, Query, index};
use hilum_fhir::{Match, Resource, ResourceType, Timestamp};
use jiff::tz::TimeZone;
use rusqlite::{Connection, OptionalExtension, params};

use super::apply::{Base, Head};
use super::{body, keys, search};
use crate::Error;

/// What is looked for.
#[derive(Clone)]
pub(super) enum Lookup {
    Id(ResourceType, String),
    Match(Match),
    Query(Box<Query>),
}

/// What a look-up finds: `(rid, vid)` of each resource.
pub(super) fn look(
    connection: &Connection,
    what: &Lookup,
    zone: &TimeZone,
    now: i64,
) -> Result<Vec<(i64, i64)>, Error> {
    match what {
        Lookup::Id(resource_type, id) => Ok(head(connection, *resource_type, id)?
            .filter(|h| !h.deleted)
            .map(|h| (h.rid, h.vid))
            .into_iter()
            .collect()),
        Lookup::Match(wanted) => {
            let key = keys::identifier_key(wanted.resource_type, wanted.system.as_deref(), &wanted.value);
            let sql = "SELECT h.rid, h.vid FROM ix i JOIN head h ON h.rid=i.rid WHERE i.key=?1 AND i.sys=?2 AND h.deleted=0 ORDER BY h.rid LIMIT 8";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([key.value, key.system], |r| Ok((r.get(0)?, r.get(1)?)))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        }
        Lookup::Query(query) => search::first_two(connection, query, zone, now),
    }
}

/// The head of a resource by id, deleted or not.
pub(super) fn head(
    connection: &Connection,
    resource_type: ResourceType,
    id: &str,
) -> Result<Option<Head>, Error> {
    let sql = "SELECT rid,ver,vid,ord,deleted,applied,successor FROM head WHERE rt=?1 AND fid=?2";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_row(params![resource_type.number(), id], |r| {
        Ok(Head {
            rid: r.get(0)?,
            version: r.get::<_, i64>(1)?.cast_unsigned(),
            vid: r.get(2)?,
            ord: r.get(3)?,
            deleted: r.get(4)?,
            applied: r.get(5)?,
            successor: r.get(6)?,
        })
    });
    Ok(found.optional()?)
}

/// Type, id, head and time of the current version of a row.
pub(super) fn head_of(
    connection: &Connection,
    rid: i64,
) -> Result<Option<(ResourceType, String, Head, i64)>, Error> {
    let sql = "SELECT h.rt, h.fid, h.ver, h.vid, h.ord, h.deleted, h.applied, h.successor, v.lm FROM head h JOIN version v ON v.vid=h.vid WHERE h.rid=?1";
    let mut statement = connection.prepare_cached(sql)?;
    let found: Option<(i64, String, Head, i64)> = statement
        .query_row([rid], |r| {
            let head = Head {
                rid,
                version: r.get::<_, i64>(2)?.cast_unsigned(),
                vid: r.get(3)?,
                ord: r.get(4)?,
                deleted: r.get(5)?,
                applied: r.get(6)?,
                successor: r.get(7)?,
            };
            Ok((r.get(0)?, r.get(1)?, head, r.get(8)?))
        })
        .optional()?;
    Ok(found.and_then(|(rt, id, head, at)| Some((ResourceType::from_number(rt)?, id, head, at))))
}

/// Type and id of a row.
pub(super) fn name(connection: &Connection, rid: i64) -> Result<Option<(ResourceType, String)>, Error> {
    let mut statement = connection.prepare_cached("SELECT rt, fid FROM head WHERE rid=?1")?;
    let found: Option<(i64, String)> =
        statement.query_row([rid], |r| Ok((r.get(0)?, r.get(1)?))).optional()?;
    Ok(found.and_then(|(rt, id)| Some((ResourceType::from_number(rt)?, id))))
}

/// The current version of a resource with its index rows, deleted or not.
pub(super) fn base(
    connection: &Connection,
    resource_type: ResourceType,
    id: &str,
    zone: &TimeZone,
) -> Result<Option<Base>, Error> {
    let Some(head) = head(connection, resource_type, id)? else { return Ok(None) };
    let mut statement = connection.prepare_cached("SELECT lm, enc, body FROM version WHERE vid=?1")?;
    let (last_updated, encoding, packed): (i64, i64, Option<Vec<u8>>) =
        statement.query_row([head.vid], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
    let Some(packed) = packed else {
        return Ok(Some(Base { head, last_updated, resource: None, rows: keys::Rows::default() }));
    };
    let stored = body::decode(encoding, &packed)?;
    let resource = parse(&stored)?;
    let entries =
        index(&resource, &Context { zone: zone.clone(), now: Timestamp::from_micros(last_updated) });
    Ok(Some(Base { head, last_updated, rows: keys::rows(&entries), resource: Some(resource) }))
}

/// A stored body as a resource.
pub(super) fn parse(stored: &[u8]) -> Result<Resource, Error> {
    let value = serde_json::from_slice(stored)
        .map_err(|e| Error::unavailable("a stored body is not json").because(e))?;
    Resource::from_value(value).map_err(|_| Error::unavailable("a stored body is no resource"))
}

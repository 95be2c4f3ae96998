//! Look-ups by id, identifier and query, the same inside and outside the transaction.

use hilum_fhir::search::{Context, Query, index};
use hilum_fhir::{Match, Resource, ResourceType, Timestamp};
use jiff::tz::TimeZone;

use crate::apply::Base;
use crate::db::{Content, Db};
use crate::keys::Rows;
use crate::{Error, body, keys, search};

/// Resources looked at that have one identifier.
pub(crate) const SAME_IDENTIFIER_MAX: usize = 8;

/// What is looked for.
#[derive(Clone)]
pub(super) enum Lookup {
    Id(ResourceType, String),
    Match(Match),
    Query(Box<Query>),
}

/// What a look-up finds: `(rid, vid)` of each resource.
pub(super) fn look(db: Db<'_>, what: &Lookup, zone: &TimeZone, now: i64) -> Result<Vec<(i64, i64)>, Error> {
    match what {
        Lookup::Id(resource_type, id) => Ok(db
            .head(*resource_type, id)?
            .filter(|h| !h.deleted)
            .map(|h| (h.rid, h.vid))
            .into_iter()
            .collect()),
        Lookup::Match(wanted) => {
            let key = keys::identifier_key(wanted.resource_type, wanted.system.as_deref(), &wanted.value);
            db.with_key(key, SAME_IDENTIFIER_MAX)
        }
        Lookup::Query(query) => search::first_two(db, query, zone, now),
    }
}

/// The current version of a resource with its index rows, deleted or not.
pub(super) fn base(
    db: Db<'_>,
    resource_type: ResourceType,
    id: &str,
    zone: &TimeZone,
) -> Result<Option<Base>, Error> {
    let Some(head) = db.head(resource_type, id)? else { return Ok(None) };
    let content = db.content(head.vid)?;
    let (resource, rows) = indexed(&content, zone)?.unzip();
    Ok(Some(Base { head, last_updated: content.last_updated, resource, rows: rows.unwrap_or_default() }))
}

/// A version as a resource with its index rows; `None` = a deletion.
pub(super) fn indexed(content: &Content, zone: &TimeZone) -> Result<Option<(Resource, Rows)>, Error> {
    let Some(packed) = &content.body else { return Ok(None) };
    let resource = parse(&body::decode(content.encoding, packed)?)?;
    let now = Timestamp::from_micros(content.last_updated);
    let entries = index(&resource, &Context { zone: zone.clone(), now });
    Ok(Some((resource, keys::rows(&entries))))
}

/// A stored body as a resource.
pub(super) fn parse(stored: &[u8]) -> Result<Resource, Error> {
    let value = serde_json::from_slice(stored)
        .map_err(|e| Error::unavailable("a stored body is not json").because(e))?;
    Resource::from_value(value).map_err(|_| Error::unavailable("a stored body is no resource"))
}

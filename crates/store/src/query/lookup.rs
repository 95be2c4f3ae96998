//! Look-ups by id, identifier and query, the same inside and outside the transaction.

use hilum_fhir::search::Query;
use hilum_fhir::{Match, Resource, ResourceType};
use hilum_rows::keys::{self, Rows};
use hilum_rows::row::{Head, SAME_IDENTIFIER_MAX};
use hilum_rows::{Db, stored};
use jiff::tz::TimeZone;

use super::search;
use crate::Error;

/// The version a new one follows.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    pub(crate) head: Head,
    pub(crate) last_updated: i64,
    pub(crate) resource: Option<Resource>,
    pub(crate) rows: Rows,
}

/// What is looked for.
#[derive(Clone)]
pub(crate) enum Lookup {
    Id(ResourceType, String),
    Match(Match),
    Query(Box<Query>),
}

/// What a look-up finds: `(rid, vid)` of each resource.
pub(crate) fn look(db: Db<'_>, what: &Lookup, zone: &TimeZone, now: i64) -> Result<Vec<(i64, i64)>, Error> {
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
pub(crate) fn base(
    db: Db<'_>,
    resource_type: ResourceType,
    id: &str,
    zone: &TimeZone,
) -> Result<Option<Base>, Error> {
    let Some(head) = db.head(resource_type, id)? else { return Ok(None) };
    let content = db.content(head.vid)?;
    let (resource, rows) = stored::indexed(&content, zone)?.unzip();
    Ok(Some(Base { head, last_updated: content.last_updated, resource, rows: rows.unwrap_or_default() }))
}

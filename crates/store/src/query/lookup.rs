//! Look-ups by id, identifier and query, the same inside and outside the transaction.

use hilum_fhir::search::Query;
use hilum_fhir::{Match, Resource, ResourceType};
use hilum_rows::keys::{self, Rows};
use hilum_rows::row::{Head, SAME_IDENTIFIER_MAX};
use hilum_rows::{Db, stored};
use jiff::tz::TimeZone;

use super::patients::REPLACED_MAX;
pub(crate) use super::patients::{SUCCESSORS_MAX, patient_type, replaced, replaced_ids, survivor};
use super::{orders, search};
use crate::Error;

/// The version a new one follows.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    pub(crate) head: Head,
    pub(crate) last_updated: i64,
    pub(crate) resource: Option<Resource>,
    pub(crate) rows: Rows,
}

/// Resources looked at that bear one number without an authority, before the patient decides which is meant.
const SAME_VALUE_MAX: usize = 4_096;

/// References that are bound to one new resource in its own commit.
const WAITING_MAX: usize = 1_000;

/// Resources that refer to one by one search parameter and are looked at when it gets its first patient.
pub(crate) const REFERRING_MAX: usize = 1_000;

/// What is looked for.
#[derive(Clone)]
pub(crate) enum Lookup {
    Id(ResourceType, String),
    Match(Match),
    Query(Box<Query>),
    /// Resources with an identifier of this value, whatever its system.
    Value(ResourceType, String),
    /// Those of them that belong to the Patient with this id.
    OfPatient(ResourceType, String, String),
    /// Resources with a reference that waits for an identifier: system and value.
    Waiting(Option<String>, String),
    /// Resources with a reference to the one of this type and id.
    Referring(ResourceType, String),
    /// Patients that the one with this rid replaces.
    Replaced(i64),
    /// What a further sender said last of a resource: `(time, 0)`.
    Heard(i64, i64),
    /// The patients of the studies with a Study Instance UID: `(rid, 0)`.
    Study(String),
    /// The patients of the studies that name an order by a number: `(rid, 0)`.
    StudiesOfOrder(Match),
}

/// A number that is looked for, and as what: the same is looked up once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Number {
    OfResource(Match),
    OfOrder(Match),
    Awaited(Option<String>, String),
}

impl Lookup {
    /// The number that is looked for, of look-ups that are often repeated.
    pub(crate) fn number(&self) -> Option<Number> {
        match self {
            Self::Match(wanted) => Some(Number::OfResource(wanted.clone())),
            Self::StudiesOfOrder(order) => Some(Number::OfOrder(order.clone())),
            Self::Waiting(system, value) => Some(Number::Awaited(system.clone(), value.clone())),
            _ => None,
        }
    }
}

/// What a look-up finds: `(rid, vid)` of each resource, if not said otherwise.
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
        Lookup::Value(of, value) => db.with_value(keys::identifier_value(*of, value), SAME_IDENTIFIER_MAX),
        Lookup::OfPatient(of, value, patient) => {
            let Some(key) = keys::patient_key(*of, patient_type(), patient) else { return Ok(Vec::new()) };
            db.with_value_and(keys::identifier_value(*of, value), key, SAME_IDENTIFIER_MAX, SAME_VALUE_MAX)
        }
        Lookup::Waiting(system, value) => {
            db.with_key(keys::waiting_key(system.as_deref(), value), WAITING_MAX)
        }
        Lookup::Referring(of, id) => {
            let mut found = Vec::new();
            for key in keys::referring_keys(*of, id) {
                found.extend(db.with_key(key, REFERRING_MAX)?);
            }
            found.sort_unstable();
            found.dedup();
            Ok(found)
        }
        Lookup::Replaced(rid) => db.replaced_by(*rid, REPLACED_MAX),
        Lookup::Heard(rid, sender) => {
            Ok(db.heard(*rid, *sender)?.map(|applied| (applied, 0)).into_iter().collect())
        }
        Lookup::Study(uid) => {
            let studies = db.studies_with(uid)?;
            Ok(studies.iter().filter_map(|(_, row)| row.patient).map(|rid| (rid, 0)).collect())
        }
        Lookup::StudiesOfOrder(order) => {
            let mut patients = Vec::new();
            for key in db.studies_with_number(&order.value, SAME_IDENTIFIER_MAX)? {
                let row = db.study(&key)?.filter(|row| orders::names_order(row, order));
                patients.extend(row.and_then(|row| row.patient).map(|rid| (rid, 0)));
            }
            Ok(patients)
        }
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

//! Which Patients are one: those that lead to another by `link` replaced-by.

use std::borrow::Cow;

use hilum_fhir::ResourceType;
use hilum_fhir::search::{Condition, Query, Reference};
use hilum_rows::Db;

use crate::Error;

/// Replacements followed from a superseded Patient to its survivor.
pub(crate) const SUCCESSORS_MAX: usize = 64;

/// Patients that one replaces.
pub(super) const REPLACED_MAX: usize = 256;

/// The type Patient.
pub(crate) fn patient_type() -> ResourceType {
    ResourceType::from_name("Patient").unwrap_or_else(|| unreachable!("a type of fhir r4"))
}

/// Ids of the Patients that lead to one by `link` replaced-by, however many merges there were. The search for what belongs to a patient looks
/// for what belongs to them too.
pub(crate) fn replaced_ids(db: Db<'_>, survivor: i64) -> Result<Vec<String>, Error> {
    let names = replaced(db, survivor)?.into_iter().map(|rid| db.name(rid));
    Ok(names.collect::<Result<Vec<_>, Error>>()?.into_iter().flatten().map(|(_, id)| id).collect())
}

/// The query with every Patient it names followed by those that one replaced: what hangs on them is the survivor's.
pub(crate) fn followed<'q>(rows: Db<'_>, query: &'q Query) -> Result<Cow<'q, Query>, Error> {
    let mut followed = Cow::Borrowed(query);
    for (at, filter) in query.filters.iter().enumerate() {
        let Condition::Reference(wanted) = &filter.condition else { continue };
        let mut further = Vec::new();
        for reference in wanted {
            let id = match reference {
                Reference::Local(of, id) if *of == patient_type() => id,
                Reference::Id(id) if filter.parameter.targets.contains(&patient_type()) => id,
                _ => continue,
            };
            for id in replaced_by_id(rows, id)? {
                further.push(Reference::Local(patient_type(), id));
            }
        }
        if !further.is_empty() {
            let mut all = wanted.clone();
            all.extend(further);
            followed.to_mut().filters[at].condition = Condition::Reference(all);
        }
    }
    for (at, part) in query.within.iter().enumerate() {
        if let Cow::Owned(part) = self::followed(rows, part)? {
            followed.to_mut().within[at] = part;
        }
    }
    Ok(followed)
}

/// Ids of the Patients that the one with this id replaced.
pub(super) fn replaced_by_id(rows: Db<'_>, id: &str) -> Result<Vec<String>, Error> {
    match rows.head(patient_type(), id)? {
        Some(head) => replaced_ids(rows, head.rid),
        None => Ok(Vec::new()),
    }
}

/// The rows of the Patients that lead to one by `link` replaced-by, at most [`REPLACED_MAX`].
pub(crate) fn replaced(db: Db<'_>, survivor: i64) -> Result<Vec<i64>, Error> {
    let (mut known, mut at) = (vec![survivor], 0);
    while at < known.len() && known.len() < REPLACED_MAX {
        for (rid, _) in db.replaced_by(known[at], REPLACED_MAX)? {
            if !known.contains(&rid) {
                known.push(rid);
            }
        }
        at += 1;
    }
    Ok(known.split_off(1))
}

/// The Patient that one leads to by `link` replaced-by: itself when nobody replaced it, or whoever did was deleted.
pub(crate) fn survivor(db: Db<'_>, patient: i64) -> Result<i64, Error> {
    let mut at = patient;
    for _ in 0..SUCCESSORS_MAX {
        match db.head_of(at)?.and_then(|(_, _, head, _)| head.successor) {
            Some(next) if next != patient && is_there(db, next)? => at = next,
            _ => break,
        }
    }
    Ok(at)
}

fn is_there(db: Db<'_>, rid: i64) -> Result<bool, Error> {
    Ok(db.head_of(rid)?.is_some_and(|(_, _, head, _)| !head.deleted))
}

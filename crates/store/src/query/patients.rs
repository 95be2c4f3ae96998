//! Which Patients are one: those that lead to another by `link` replaced-by.

use hilum_fhir::ResourceType;
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

/// The Patient that one leads to by `link` replaced-by: itself when nobody replaced it.
pub(crate) fn survivor(db: Db<'_>, patient: i64) -> Result<i64, Error> {
    let mut at = patient;
    for _ in 0..SUCCESSORS_MAX {
        match db.head_of(at)?.and_then(|(_, _, head, _)| head.successor) {
            Some(next) if next != patient => at = next,
            _ => break,
        }
    }
    Ok(at)
}

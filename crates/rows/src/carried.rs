//! What the first version kept in another way, carried over once behind the last step of the schema: whose a study is when nobody was named, and
//! which ImagingStudy is drawn of it. Written for every engine that has such stores.

use hilum_fhir::ResourceType;

use crate::face::Tx;
use crate::row::StudyRow;
use crate::{Error, body, keys, stored};

/// The member of `meta` that is there while the carrying over is due; the last step of the schema puts it there.
pub(crate) const DUE: &str = "carry_over";
/// Studies looked at together.
pub(crate) const PAGE: i64 = 500;

/// Carries over studies of the first version, `now` in ms since 1970. A study whose images named no patient was given to a Patient made for it; it is
/// nobody's from now on, until one is named, and is drawn again.
pub(crate) fn carry_over(db: &dyn Tx, site: &str, studies: &[String], now: i64) -> Result<(), Error> {
    for key in studies {
        let Some(row) = db.study(key)? else { continue };
        if row.drawn_as.is_none() {
            note_drawn_as(db, key, &row, now)?;
        }
        if let Some(patient) = row.patient
            && is_stand_in(db, site, key, patient)?
        {
            db.change_study(key, &StudyRow { patient: None, ..row }, 0, now, None)?;
        }
    }
    Ok(())
}

/// Notes which ImagingStudy is drawn of a study: the first version found it by its identifier.
fn note_drawn_as(db: &dyn Tx, key: &str, row: &StudyRow, now: i64) -> Result<(), Error> {
    let wanted =
        keys::identifier_key(kind("ImagingStudy")?, Some("urn:dicom:uid"), &format!("urn:oid:{key}"));
    let Some((rid, _)) = db.with_key(wanted, 1)?.pop() else { return Ok(()) };
    db.set_published(key, row.published.unwrap_or(0), Some(rid))?;
    // that it is published is not what was noted
    if row.is_dirty { db.touch_study(key, now, None) } else { Ok(()) }
}

/// Whether a Patient is one that was made for a study without one, and nobody corrected it since: it has no other identifier and was not replaced.
fn is_stand_in(db: &dyn Tx, site: &str, study: &str, patient: i64) -> Result<bool, Error> {
    let system = format!("urn:hilum:site:{site}:unknown-patient-of-study");
    let wanted = keys::identifier_key(kind("Patient")?, Some(&system), study);
    let Some((_, vid)) = db.with_key(wanted, 2)?.into_iter().find(|(rid, _)| *rid == patient) else {
        return Ok(false);
    };
    let is_replaced = db.head_of(patient)?.is_none_or(|(_, _, head, _)| head.successor.is_some());
    let content = db.content(vid)?;
    let Some(packed) = &content.body else { return Ok(false) };
    let resource = stored::parse(&body::decode(content.encoding, packed)?)?;
    let identifiers = resource.get("identifier").and_then(serde_json::Value::as_array).map_or(0, Vec::len);
    Ok(!is_replaced && identifiers == 1)
}

fn kind(name: &str) -> Result<ResourceType, Error> {
    ResourceType::from_name(name).ok_or_else(|| Error::unavailable("a type of fhir r4 is not known"))
}

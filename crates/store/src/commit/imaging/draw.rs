//! The ImagingStudy drawn from the rows of a study: when, from what, and written only when it says something new.

use hilum_fhir::imaging::{InstanceRow, Series, StepStatus, StudyRows, imaging_study, redraw};
use hilum_fhir::{Match, ResourceType};
use hilum_rows::row::{Due, StudyRow, study_uid};
use hilum_rows::{Db, body, keys, stored};
use jiff::tz::TimeZone;

use super::steps::{procedure_id, state_number};
use super::{Found, object};
use crate::Error;
use crate::commit::apply::{Apply, Prepared, Written, prepare};
use crate::engine::SiteDb;
use crate::query::lookup::{self, Base};
use crate::query::orders;

/// A study without a new instance for this long is published.
const QUIET_MS: i64 = 2_000;
/// A study is published at most once in this time…
const PUBLISH_EVERY_MS: i64 = 5_000;
/// … and at the latest so long after its first unpublished change.
const PUBLISH_LATEST_MS: i64 = 30_000;
/// Studies published in one round.
const ROUND_MAX: i64 = 100;
/// Studies that are drawn again because of one merge or one order; the others are when something else changes them.
const TOUCHED_MAX: usize = 1_000;
/// Orders that one number names.
const SAME_ORDER_NUMBER_MAX: usize = 32;

impl Apply<'_> {
    /// The studies of a Patient and of those it replaced are drawn again.
    pub(in crate::commit) fn touch_studies_of_person(&mut self, rid: i64) -> Result<(), Error> {
        let now = self.now / 1000;
        for patient in std::iter::once(rid).chain(lookup::replaced(self.db, rid)?) {
            for key in self.db.studies_of_patient(patient, TOUCHED_MAX)? {
                self.db.touch_study(&key, now, None)?;
            }
        }
        Ok(())
    }

    /// The studies that name an order by a number are drawn again when an order has it.
    pub(in crate::commit) fn touch_studies_with_number(&mut self, number: &str) -> Result<(), Error> {
        let now = self.now / 1000;
        for key in self.db.studies_with_number(number, TOUCHED_MAX)? {
            self.db.touch_study(&key, now, None)?;
        }
        Ok(())
    }

    /// A study that was never published is, in the transaction of what it is made of.
    pub(super) fn publish_first(&mut self, found: &Found) -> Result<Option<(String, Written)>, Error> {
        let was_empty = found.row.as_ref().is_none_or(|row| !row.has_instances);
        let wait = found.row.as_ref().and_then(|row| row.published).map_or(0, |at| at + PUBLISH_EVERY_MS);
        if was_empty && wait <= self.now / 1000 { self.publish(&found.key) } else { Ok(None) }
    }

    /// Draws the ImagingStudy of a study and writes it when it differs from the current version.
    pub(super) fn publish(&mut self, key: &str) -> Result<Option<(String, Written)>, Error> {
        let zone = self.context.zone.clone();
        let Some(drawing) = draw(self.db, key, &zone, self.now)? else { return Ok(None) };
        self.write_drawing(&drawing)
    }

    /// Writes a drawing made of the rows as they are now.
    fn write_drawing(&mut self, drawing: &Drawing) -> Result<Option<(String, Written)>, Error> {
        let written = match &drawing.prepared {
            Some(prepared) => Some(self.write(prepared, drawing.base.as_ref(), None)?),
            None => None,
        };
        let rid = written.map(|written| written.rid).or(drawing.base.as_ref().map(|base| base.head.rid));
        self.db.set_published(&drawing.key, self.now / 1000, rid)?;
        if drawing.foreign_order {
            tracing::warn!(
                study = study_uid(&drawing.key),
                "a study names the order of another patient; it is not linked"
            );
        }
        Ok(written.map(|written| (drawing.id.clone(), written)))
    }

    /// Writes a drawing that was made outside the transaction, when its study is as it was; whether it was.
    pub(crate) fn publish_drawing(&mut self, drawing: &Drawing) -> Result<Option<bool>, Error> {
        let is_current = self.db.study(&drawing.key)?.is_some_and(|row| row.revision == drawing.revision)
            && self.db.head(imaging_study_type(), &drawing.id)?
                == drawing.base.as_ref().map(|base| base.head);
        if !is_current {
            return Ok(None);
        }
        self.write_drawing(drawing).map(|written| Some(written.is_some()))
    }
}

/// An ImagingStudy drawn from rows, ready to be written.
#[derive(Debug)]
pub(crate) struct Drawing {
    pub(crate) key: String,
    /// Revision of the rows it was drawn of.
    revision: i64,
    id: String,
    base: Option<Base>,
    /// `None` = it says what the current version says.
    prepared: Option<Prepared>,
    /// An order it names is of another patient.
    foreign_order: bool,
}

fn imaging_study_type() -> ResourceType {
    ResourceType::from_name("ImagingStudy").unwrap_or_else(|| unreachable!("a type of fhir r4"))
}

/// Keys of the studies that are due.
pub(crate) fn due(db: Db<'_>, now_ms: i64) -> Result<Vec<String>, Error> {
    db.due_studies(&Due {
        dirty_before: now_ms - PUBLISH_LATEST_MS,
        quiet_before: now_ms - QUIET_MS,
        published_before: now_ms - PUBLISH_EVERY_MS,
        max: ROUND_MAX,
    })
}

/// Keys of the studies with a Study Instance UID that are dirty and were not published just now.
pub(crate) fn due_of(db: Db<'_>, uid: &str, now_ms: i64) -> Result<Vec<String>, Error> {
    let studies = db.studies_with(uid)?.into_iter();
    let is_due = |row: &StudyRow| row.is_dirty && row.published.unwrap_or(0) <= now_ms - PUBLISH_EVERY_MS;
    Ok(studies.filter(|(_, row)| is_due(row)).map(|(key, _)| key).collect())
}

/// Draws a study outside the transaction. `None` when it is not known.
pub(crate) fn draw_apart(db: &SiteDb, key: &str) -> Result<Option<Drawing>, Error> {
    let now = jiff::Timestamp::now().as_microsecond();
    db.snapshot(|rows| draw(rows, key, &db.zone, now))
}

/// Draws the ImagingStudy of a study.
fn draw(db: Db<'_>, key: &str, zone: &TimeZone, now: i64) -> Result<Option<Drawing>, Error> {
    let Some(row) = db.study(key)? else { return Ok(None) };
    let (rows, foreign_order) = rows_of(db, key, &row)?;
    let drawn = imaging_study(&rows);
    let id = match row.drawn_as.map(|rid| db.name(rid)).transpose()?.flatten() {
        Some((_, id)) => id,
        None => imaging_study_id(db, key)?.unwrap_or_else(|| uuid::Uuid::now_v7().to_string()),
    };
    let base = lookup::base(db, drawn.resource_type(), &id, zone)?;
    let stored = base.as_ref().filter(|base| !base.head.deleted).and_then(|base| base.resource.as_ref());
    let study = stored.map_or_else(|| drawn.clone(), |stored| redraw(stored, &drawn));
    let is_same = stored.is_some_and(|stored| hilum_fhir::merge::same_content(stored, &study));
    let prepared = (!is_same).then(|| prepare(&study, &id, zone, now));
    Ok(Some(Drawing { key: key.to_owned(), revision: row.revision, id, base, prepared, foreign_order }))
}

/// The id of the ImagingStudy that the first version of the store drew of a study, or a client made before its images came.
fn imaging_study_id(db: Db<'_>, key: &str) -> Result<Option<String>, Error> {
    if study_uid(key) != key {
        return Ok(None);
    }
    let value = format!("urn:oid:{key}");
    let key = keys::identifier_key(imaging_study_type(), Some("urn:dicom:uid"), &value);
    Ok(db.ids_with_key(key, 1)?.pop())
}

/// Everything stored of a study, from which its ImagingStudy is drawn.
pub(crate) fn rows(db: Db<'_>, key: &str) -> Result<Option<StudyRows>, Error> {
    match db.study(key)? {
        Some(row) => rows_of(db, key, &row).map(|(rows, _)| Some(rows)),
        None => Ok(None),
    }
}

fn rows_of(db: Db<'_>, key: &str, row: &StudyRow) -> Result<(StudyRows, bool), Error> {
    let patient = row.patient.map(|rid| lookup::survivor(db, rid)).transpose()?;
    let (based_on, foreign_order) = orders(db, row, patient)?;
    let steps = db.steps_of(key)?;
    let discontinued = state_number(StepStatus::Discontinued);
    let going_on = steps.iter().find(|(_, state)| *state != discontinued).or(steps.first());
    let procedure = match going_on {
        Some((procedure, _)) => procedure_id(db, procedure)?,
        None => None,
    };
    let patient = match patient {
        Some(rid) => db.name(rid)?.map(|(of, id)| format!("{of}/{id}")),
        None => None,
    };
    let rows = StudyRows {
        uid: study_uid(key).to_owned(),
        accession: row.accession.clone(),
        elements: object(&row.elements).unwrap_or_default(),
        patient,
        based_on: based_on.into_iter().map(|id| format!("ServiceRequest/{id}")).collect(),
        procedure: procedure.map(|id| format!("Procedure/{id}")),
        discontinued: !steps.is_empty() && steps.iter().all(|(_, state)| *state == discontinued),
        attention: row.attention || foreign_order,
        series: series_rows(db, key)?,
    };
    Ok((rows, foreign_order))
}

/// Ids of the orders of a study: for each the first identifier with a hit decides. Never an order of another patient, whether there was one is
/// the second.
fn orders(db: Db<'_>, row: &StudyRow, patient: Option<i64>) -> Result<(Vec<String>, bool), Error> {
    let (mut ids, mut foreign): (Vec<String>, bool) = (Vec::new(), false);
    for order in row.orders.as_deref().map(orders::from_text).unwrap_or_default() {
        for number in order {
            let hits = orders_with(db, &number)?;
            let mut is_hit = false;
            for (id, subject) in hits {
                let fits = match (subject, patient) {
                    (Some(subject), Some(patient)) => lookup::survivor(db, subject)? == patient,
                    // an order of somebody cannot be linked to images of nobody known
                    (Some(_), None) => continue,
                    (None, _) => true,
                };
                if !fits {
                    foreign = true;
                } else {
                    is_hit = true;
                    if !ids.contains(&id) {
                        ids.push(id);
                    }
                }
            }
            if is_hit {
                break;
            }
        }
    }
    Ok((ids, foreign))
}

/// Orders with a number: id and the rid of its subject. One without the authority that the number names may be meant too.
fn orders_with(db: Db<'_>, number: &Match) -> Result<Vec<(String, Option<i64>)>, Error> {
    let of = number.resource_type;
    let exact = keys::identifier_key(of, number.system.as_deref(), &number.value);
    let mut found = db.with_key(exact, SAME_ORDER_NUMBER_MAX)?;
    if found.is_empty() {
        found = db.with_value(keys::identifier_value(of, &number.value), SAME_ORDER_NUMBER_MAX)?;
    }
    let patient_type = lookup::patient_type();
    let mut orders = Vec::with_capacity(found.len());
    for (rid, vid) in found {
        let Some((_, id)) = db.name(rid)? else { continue };
        let content = db.content(vid)?;
        let Some(packed) = &content.body else { continue };
        let order = stored::parse(&body::decode(content.encoding, packed)?)?;
        let subject = order.get("subject").and_then(|subject| subject["reference"].as_str());
        let subject = match subject.and_then(|reference| reference.strip_prefix("Patient/")) {
            Some(id) => db.head(patient_type, id)?.map(|head| head.rid),
            None => None,
        };
        orders.push((id, subject));
    }
    Ok(orders)
}

fn series_rows(db: Db<'_>, study: &str) -> Result<Vec<(Series, Vec<InstanceRow>)>, Error> {
    let mut rows = Vec::new();
    for (uid, elements) in db.series_of(study)? {
        let instances = db.instances_of(study, &uid)?.into_iter().map(|(uid, sop_class, elements)| {
            InstanceRow { uid, sop_class, elements: object(&elements).unwrap_or_default() }
        });
        let instances = instances.collect();
        rows.push((Series { uid, elements: object(&elements).unwrap_or_default() }, instances));
    }
    Ok(rows)
}

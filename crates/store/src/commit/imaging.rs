//! Study, series and instance rows, and the ImagingStudy versions drawn from them.
//!
//! Writing an image costs the same whatever the size of its study. The ImagingStudy is published with the first instance, then when its study
//! has been quiet for a while, and at the latest some time after the first change not yet published.
//!
//! A study row is of one patient, a series of one study, an instance of one series. Where senders use one UID for two patients both stand side
//! by side and are marked: no study ever shows another patient's images.

use hilum_fhir::imaging::{
    Instance, InstanceRow, PerformedStep, Series, StepStatus, Study, StudyRows, imaging_study, redraw,
};
use hilum_fhir::{Issue, IssueCode, Match, ResourceType};
use hilum_rows::row::{Due, InstanceEntry, StepRow, StudyRow, study_uid};
use hilum_rows::{Db, body, keys, stored};
use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use super::apply::{Apply, Prepared, Written, prepare};
use super::plan::Imaging;
use super::submission::{Packed, Verdict};
use crate::engine::SiteDb;
use crate::query::lookup::{self, Base, orders_from};
use crate::{Effect, Error, ErrorKind, Remark, RemarkKind};

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
/// Orders of one study.
const ORDERS_MAX: usize = 64;
/// Orders that one number names.
const SAME_ORDER_NUMBER_MAX: usize = 32;

/// What a change did, and the ImagingStudy version it published (id and version).
type Done = Result<(Effect, Option<(String, Written)>), Error>;

/// A study found for a patient.
struct Found {
    key: String,
    row: Option<StudyRow>,
    /// The Study Instance UID is another patient's too.
    conflict: bool,
}

impl Apply<'_> {
    /// Refuses what rows contradict, before anything is written. `rid` tells which row a patient of the plan has, when it is not new.
    pub(super) fn refuse_imaging(
        &self,
        imaging: &Imaging,
        rid: impl Fn(usize) -> Option<i64>,
    ) -> Result<(), Error> {
        match imaging {
            Imaging::Step(step, patient) => {
                let is_named = patient.is_some();
                self.refuse_step(step, is_named, patient.and_then(rid))
            }
            Imaging::Study(..) | Imaging::Instance(..) => Ok(()),
        }
    }

    /// A step belongs to one study and one patient for good, and a final state is final (PS3.4 F.7).
    fn refuse_step(&self, step: &PerformedStep, is_named: bool, patient: Option<i64>) -> Result<(), Error> {
        let refuse = |kind, code, text: &str, place: &str| {
            Err(Error::refused(kind, Issue::error(code, text).at(place)))
        };
        let Some(known) = self.db.performed_step(&step.uid)? else {
            if step.study.is_none() {
                let text = "no such step is known (0112); send its N-CREATE first, which names the study";
                return refuse(ErrorKind::Conflict, IssueCode::NotFound, text, "(0008,0018)");
            }
            return Ok(());
        };
        if step.study.as_ref().is_some_and(|study| study.uid != study_uid(&known.study)) {
            let text = "the step belongs to another study (0105); a step never changes its study";
            return refuse(ErrorKind::Conflict, IssueCode::Conflict, text, "(0020,000D)");
        }
        let is_other = match (known.patient, patient) {
            (Some(known), Some(patient)) => !self.same_person(known, patient)?,
            // somebody who was not known before
            (Some(_), None) => is_named,
            (None, _) => false,
        };
        if is_other {
            let text = "the step belongs to another patient (0105); a step never changes its patient";
            return refuse(ErrorKind::Conflict, IssueCode::Conflict, text, "(0010,0020)");
        }
        let (_, is_new, is_refused) = self.moved(step, Some(&known));
        if is_new && is_refused {
            let text = "Performed Procedure Step Object may no longer be updated (0110, A710)";
            return refuse(ErrorKind::Conflict, IssueCode::Conflict, text, "status");
        }
        Ok(())
    }

    /// The attributes of a step with what is said now, whether that says something new, and whether its state forbids it.
    fn moved(&self, step: &PerformedStep, known: Option<&StepRow>) -> (Map<String, Value>, bool, bool) {
        let before = known.and_then(|known| object(&known.attributes)).unwrap_or_default();
        let mut attributes = before.clone();
        attributes.extend(step.attributes.clone());
        let state = state_number(step.status);
        let is_new = known.is_none_or(|known| known.state != state) || before != attributes;
        let is_final = known.is_some_and(|known| known.state != state_number(StepStatus::InProgress));
        (attributes, is_new, is_final)
    }

    /// A study announced by an order or a step.
    pub(super) fn study(&mut self, study: &Study, patient: Option<i64>) -> Done {
        let found = self.upsert_study(study, patient, false)?;
        let published = self.publish_first(&found)?;
        Ok((if published.is_some() { Effect::Updated } else { Effect::Unchanged }, published))
    }

    /// A received instance, its series and its study.
    pub(super) fn instance(&mut self, instance: &Instance, patient: Option<i64>) -> Done {
        let places = self.db.instances_with(&instance.uid)?;
        let found = self.find_study(&instance.study.uid, patient)?;
        let here = places.iter().find(|p| p.study == found.key && p.series == instance.series.uid);
        if let Some(here) = here
            && here.file.dataset_sha256 == instance.dataset_sha256
            && here.file.transfer_syntax == instance.transfer_syntax
        {
            return Ok((Effect::Unchanged, None));
        }
        let replaces = here.is_some();
        let elsewhere: Vec<String> = places
            .iter()
            .filter(|p| !(p.study == found.key && p.series == instance.series.uid))
            .map(|p| p.study.clone())
            .collect();
        let mut found = self.upsert_found(found, &instance.study, patient, true)?;
        if !elsewhere.is_empty() {
            let text =
                "the sop instance uid stands in another series or study too; both are shown and marked";
            let keys: Vec<String> = elsewhere.into_iter().chain([found.key.clone()]).collect();
            self.conflict(text, "(0008,0018)", &keys)?;
            found.conflict = true;
        }
        self.write_instance(instance, &found.key, replaces)?;
        let published = self.publish_first(&found)?;
        Ok((Effect::Recorded, published))
    }

    /// A message about a performed procedure step: compare-and-set of its state.
    pub(super) fn step(&mut self, step: &PerformedStep, patient: Option<i64>) -> Done {
        self.refuse_step(step, patient.is_some(), patient)?;
        let known = self.db.performed_step(&step.uid)?;
        let (attributes, is_new, _) = self.moved(step, known.as_ref());
        if !is_new {
            return Ok((Effect::Unchanged, None));
        }
        let found = self.study_of_step(step, known.as_ref(), patient)?;
        let system = step.procedure.system.as_deref().unwrap_or_default();
        let row = StepRow {
            study: found.key.clone(),
            patient: known.as_ref().and_then(|known| known.patient).or(patient),
            procedure: format!("{system}|{}", step.procedure.value),
            state: state_number(step.status),
            revision: known.map_or(1, |known| known.revision + 1),
            attributes: text(&attributes),
        };
        self.db.put_performed_step(&step.uid, &row)?;
        // whoever planned with the state before plans again
        self.take_position();
        self.put_series_of_step(step, &found.key)?;
        let published = self.publish(&found.key)?;
        Ok((Effect::Recorded, published))
    }

    fn study_of_step(
        &mut self,
        step: &PerformedStep,
        known: Option<&StepRow>,
        patient: Option<i64>,
    ) -> Result<Found, Error> {
        let Some(known) = known else {
            return match &step.study {
                Some(study) => self.upsert_study(study, patient, false),
                None => Err(Error::unavailable("a step without a study")),
            };
        };
        let row = self.db.study(&known.study)?;
        let found = Found { key: known.study.clone(), row, conflict: false };
        match &step.study {
            Some(study) => self.upsert_found(found, study, patient, false),
            None => {
                self.db.touch_study(&found.key, self.now / 1000, None)?;
                Ok(found)
            }
        }
    }

    /// The list of series a step performed replaces what it said before; nothing said leaves it.
    fn put_series_of_step(&mut self, step: &PerformedStep, key: &str) -> Result<(), Error> {
        if step.series.is_empty() {
            return Ok(());
        }
        self.db.clear_expectations(&step.uid)?;
        for (series, images) in &step.series {
            self.upsert_series(series, key)?;
            self.db.put_expectation(&series.uid, &step.uid, key, images.map(i64::from))?;
        }
        Ok(())
    }

    fn write_instance(&mut self, instance: &Instance, key: &str, replaces: bool) -> Result<(), Error> {
        self.upsert_series(&instance.series, key)?;
        if replaces {
            self.db.supersede_instance(key, &instance.series.uid, &instance.uid, self.submission)?;
            tracing::warn!(sop_instance = %instance.uid, "an instance came again with other content; the newest is current");
        }
        self.db.add_instance(&InstanceEntry {
            sop: &instance.uid,
            series: &instance.series.uid,
            study: key,
            class: &instance.sop_class,
            syntax: &instance.transfer_syntax,
            number: instance.elements.get("number").and_then(Value::as_i64),
            elements: text(&instance.elements),
            bytes: instance.dataset_bytes,
            sha256: &instance.dataset_sha256,
            blob: &instance.blob,
            submission: self.submission,
            received: self.now / 1000,
        })
    }

    /// The study row of a patient. A study without a patient takes the first that is named; one that is another patient's is left to that one.
    fn find_study(&self, uid: &str, patient: Option<i64>) -> Result<Found, Error> {
        let rows = self.db.studies_with(uid)?;
        let Some(patient) = patient else {
            let first = rows.into_iter().next();
            let (key, row) = first.map_or_else(|| (uid.to_owned(), None), |(key, row)| (key, Some(row)));
            return Ok(Found { key, row, conflict: false });
        };
        let conflict = rows.len() > 1;
        let is_empty = rows.is_empty();
        for (key, row) in rows {
            let fits = match row.patient {
                None => true,
                Some(known) => self.same_person(known, patient)?,
            };
            if fits {
                return Ok(Found { key, row: Some(row), conflict });
            }
        }
        let key = if is_empty { uid.to_owned() } else { format!("{uid}@{patient}") };
        Ok(Found { key, row: None, conflict: !is_empty })
    }

    /// Whether two rows of Patients are one person's: after following merges on both sides.
    fn same_person(&self, one: i64, other: i64) -> Result<bool, Error> {
        Ok(one == other || lookup::survivor(self.db, one)? == lookup::survivor(self.db, other)?)
    }

    fn upsert_study(&mut self, study: &Study, patient: Option<i64>, instance: bool) -> Result<Found, Error> {
        let found = self.find_study(&study.uid, patient)?;
        self.upsert_found(found, study, patient, instance)
    }

    /// Upserts a study only when something is new; first value wins, differences are counted. The row given back is the one of before.
    fn upsert_found(
        &mut self,
        found: Found,
        study: &Study,
        patient: Option<i64>,
        instance: bool,
    ) -> Result<Found, Error> {
        let now = self.now / 1000;
        let last = instance.then_some(now);
        let Some(before) = &found.row else {
            let row = StudyRow {
                patient,
                accession: study.accession.clone(),
                elements: text(&study.elements),
                orders: orders_text(&orders_of(study)),
                attention: found.conflict,
                has_instances: instance,
                drawn_as: None,
                published: None,
                is_dirty: true,
                revision: 0,
            };
            self.db.add_study(&found.key, &row, now, last)?;
            self.put_numbers(&found.key, &orders_of(study))?;
            self.take_position();
            if found.conflict {
                let text =
                    "the study instance uid is another patient's too; both studies are shown and marked";
                let studies = self.db.studies_with(study_uid(&found.key))?;
                let keys: Vec<String> = studies.into_iter().map(|(key, _)| key).collect();
                self.conflict(text, "(0020,000D)", &keys)?;
            }
            return Ok(found);
        };
        let mut row = before.clone();
        row.patient = row.patient.or(patient);
        row.accession = row.accession.or_else(|| study.accession.clone());
        let mut conflicts = u32::from(study.accession.is_some() && row.accession != study.accession);
        let mut elements = object(&row.elements).unwrap_or_default();
        let elements_before = elements.clone();
        for (name, value) in &study.elements {
            let stored = elements.entry(name.clone()).or_insert_with(|| value.clone());
            conflicts += u32::from(stored != value);
        }
        let new_orders = add_orders(&mut row, study);
        let is_same = (row.patient, &row.accession) == (before.patient, &before.accession)
            && elements == elements_before
            && new_orders.is_empty()
            && conflicts == 0;
        if is_same {
            self.db.touch_study(&found.key, now, last)?;
        } else {
            row.elements = text(&elements);
            self.db.change_study(&found.key, &row, conflicts, now, last)?;
            self.put_numbers(&found.key, &new_orders)?;
            if row.patient != before.patient || !new_orders.is_empty() {
                self.take_position();
            }
        }
        Ok(found)
    }

    fn put_numbers(&mut self, key: &str, orders: &[Vec<Match>]) -> Result<(), Error> {
        for number in orders.iter().flatten() {
            self.db.put_study_number(&number.value, key)?;
        }
        Ok(())
    }

    /// Says that senders disagree whose something is, and marks the studies between which they do.
    fn conflict(&mut self, text: &str, place: &str, keys: &[String]) -> Result<(), Error> {
        let mut between: Vec<String> = Vec::new();
        for key in keys {
            self.mark_study(key)?;
            let patient = self.db.study(key)?.and_then(|row| row.patient);
            let whose = match patient.map(|rid| self.db.name(rid)).transpose()?.flatten() {
                Some((of, id)) => format!("{of}/{id}"),
                None => "an unknown patient".to_owned(),
            };
            if !between.contains(&whose) {
                between.push(whose);
            }
        }
        let text = format!("{text} ({})", between.join(", "));
        let issue = Issue::warning(IssueCode::Conflict, text).at(place);
        self.remarks.push(Remark { kind: RemarkKind::Conflict, issue });
        Ok(())
    }

    /// Marks a study as one that somebody has to look at.
    fn mark_study(&mut self, key: &str) -> Result<(), Error> {
        let Some(row) = self.db.study(key)? else { return Ok(()) };
        let now = self.now / 1000;
        if row.attention {
            return self.db.touch_study(key, now, None);
        }
        self.db.change_study(key, &StudyRow { attention: true, ..row }, 1, now, None)
    }

    fn upsert_series(&mut self, series: &Series, study: &str) -> Result<(), Error> {
        let known = self.db.series(study, &series.uid)?;
        let mut elements = known.as_deref().and_then(object).unwrap_or_default();
        for (name, value) in &series.elements {
            elements.entry(name.clone()).or_insert_with(|| value.clone());
        }
        let number = elements.get("number").and_then(Value::as_i64);
        let text = text(&elements);
        if known.as_ref() == Some(&text) {
            return Ok(());
        }
        self.db.put_series(study, &series.uid, number, &text)
    }

    /// The studies of a Patient and of those it replaced are drawn again.
    pub(super) fn touch_studies_of_person(&mut self, rid: i64) -> Result<(), Error> {
        let now = self.now / 1000;
        for patient in std::iter::once(rid).chain(lookup::replaced(self.db, rid)?) {
            for key in self.db.studies_of_patient(patient, TOUCHED_MAX)? {
                self.db.touch_study(&key, now, None)?;
            }
        }
        Ok(())
    }

    /// The studies that name an order by a number are drawn again when an order has it.
    pub(super) fn touch_studies_with_number(&mut self, number: &str) -> Result<(), Error> {
        let now = self.now / 1000;
        for key in self.db.studies_with_number(number, TOUCHED_MAX)? {
            self.db.touch_study(&key, now, None)?;
        }
        Ok(())
    }

    /// A study that was never published is, in the transaction of what it is made of.
    fn publish_first(&mut self, found: &Found) -> Result<Option<(String, Written)>, Error> {
        let was_empty = found.row.as_ref().is_none_or(|row| !row.has_instances);
        let wait = found.row.as_ref().and_then(|row| row.published).map_or(0, |at| at + PUBLISH_EVERY_MS);
        if was_empty && wait <= self.now / 1000 { self.publish(&found.key) } else { Ok(None) }
    }

    /// Draws the ImagingStudy of a study and writes it when it differs from the current version.
    fn publish(&mut self, key: &str) -> Result<Option<(String, Written)>, Error> {
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

    /// Removes the studies with a Study Instance UID, in a submission of its own.
    pub(crate) fn delete_study(&mut self, packed: &Packed, uid: &str) -> Result<u32, Error> {
        use std::fmt::Write;
        let studies = self.db.studies_with(uid)?;
        if studies.is_empty() {
            return Ok(0);
        }
        self.begin_submission();
        let mut targets = String::new();
        for (key, _) in &studies {
            let blobs = self.db.blobs_of_study(key)?;
            if let Some(written) = self.remove_study(key)? {
                let _ = write!(targets, "{}/{} ", written.rid, written.version);
            }
            self.db.forget_blobs(&blobs)?;
        }
        self.submission(packed, None, Verdict::Accepted(&[]), &targets)?;
        Ok(u32::try_from(studies.len()).unwrap_or(u32::MAX))
    }

    /// Removes a study with everything of it: rows, images and the ImagingStudy.
    pub(super) fn remove_study(&mut self, key: &str) -> Result<Option<Written>, Error> {
        let zone = self.context.zone.clone();
        let Some(row) = self.db.study(key)? else { return Ok(None) };
        self.db.remove_study(key)?;
        self.take_position();
        let Some((of, id)) = row.drawn_as.map(|rid| self.db.name(rid)).transpose()?.flatten() else {
            return Ok(None);
        };
        match lookup::base(self.db, of, &id, &zone)? {
            Some(base) if !base.head.deleted => self.delete(of, &id, &base).map(Some),
            _ => Ok(None),
        }
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
    let procedure = match going_on.and_then(|(procedure, _)| procedure.split_once('|')) {
        Some((system, value)) => {
            let wanted =
                keys::identifier_key(named("Procedure")?, Some(system).filter(|s| !s.is_empty()), value);
            db.ids_with_key(wanted, 1)?.pop()
        }
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
    for order in row.orders.as_deref().map(orders_from).unwrap_or_default() {
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

fn named(name: &str) -> Result<ResourceType, Error> {
    ResourceType::from_name(name).ok_or_else(|| Error::unavailable("no such type"))
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

/// The orders a study names: those of its request attributes, else that of its accession number.
fn orders_of(study: &Study) -> Vec<Vec<Match>> {
    let mut orders = study.orders.clone();
    if orders.is_empty()
        && let Some((system, value)) = &study.accession
        && let Some(of) = ResourceType::from_name("ServiceRequest")
    {
        orders.push(vec![Match { resource_type: of, system: Some(system.clone()), value: value.clone() }]);
    }
    orders.truncate(ORDERS_MAX);
    orders
}

/// Adds the orders that a study did not name before; they are returned.
fn add_orders(row: &mut StudyRow, study: &Study) -> Vec<Vec<Match>> {
    let mut known = row.orders.as_deref().map(orders_from).unwrap_or_default();
    let mut new = Vec::new();
    for order in orders_of(study) {
        if known.len() < ORDERS_MAX && !known.contains(&order) {
            known.push(order.clone());
            new.push(order);
        }
    }
    if !new.is_empty() {
        row.orders = orders_text(&known);
    }
    new
}

fn orders_text(orders: &[Vec<Match>]) -> Option<String> {
    let pair = |number: &Match| (number.system.clone(), number.value.clone());
    let list: Vec<Vec<(Option<String>, String)>> =
        orders.iter().map(|order| order.iter().map(pair).collect()).collect();
    if list.is_empty() { None } else { serde_json::to_string(&list).ok() }
}

fn state_number(status: StepStatus) -> i64 {
    match status {
        StepStatus::InProgress => 0,
        StepStatus::Completed => 1,
        StepStatus::Discontinued => 2,
    }
}

/// The text of an object.
fn text(object: &Map<String, Value>) -> String {
    serde_json::to_string(object).unwrap_or_default()
}

fn object(text: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(text).ok()
}

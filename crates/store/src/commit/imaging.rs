//! Study, series and instance rows, performed steps, and the ImagingStudy versions drawn from them.
//!
//! Writing an image costs the same whatever the size of its study. The ImagingStudy is published with the first instance, then when its study
//! has been quiet for a while, and at the latest some time after the first change not yet published (`draw`).
//!
//! A study row is of one patient, a series of one study, an instance of one series. Where senders use one UID for two patients both stand side
//! by side and are marked: no study ever shows another patient's images. A step stays with its study and patient (`steps`). What rows speak of
//! is removed as a whole or not at all (`removal`).

pub(crate) mod draw;
pub(crate) mod removal;
pub(crate) mod steps;

use hilum_fhir::imaging::{Instance, Series, Study};
use hilum_fhir::{Issue, IssueCode, Match, ResourceType};
use hilum_rows::row::{InstanceEntry, StudyRow, study_uid};
use serde_json::{Map, Value};

use super::apply::{Apply, Written};
use crate::query::{lookup, orders};
use crate::{Effect, Error, Remark, RemarkKind};

/// Orders of one study.
const ORDERS_MAX: usize = 64;

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
                orders: orders::to_text(&orders_of(study)),
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
}

/// The orders a study names: those of its request attributes, else that of its accession number; and any that names the study by its UID.
fn orders_of(study: &Study) -> Vec<Vec<Match>> {
    let Some(of) = ResourceType::from_name("ServiceRequest") else { return Vec::new() };
    let mut orders = study.orders.clone();
    if orders.is_empty()
        && let Some((system, value)) = &study.accession
    {
        orders.push(vec![Match { resource_type: of, system: Some(system.clone()), value: value.clone() }]);
    }
    orders.truncate(ORDERS_MAX - 1);
    let uid = format!("urn:oid:{}", study.uid);
    orders.push(vec![Match { resource_type: of, system: Some("urn:dicom:uid".to_owned()), value: uid }]);
    orders
}

/// Adds the orders that a study did not name before; they are returned.
fn add_orders(row: &mut StudyRow, study: &Study) -> Vec<Vec<Match>> {
    let mut known = row.orders.as_deref().map(orders::from_text).unwrap_or_default();
    let mut new = Vec::new();
    for order in orders_of(study) {
        if known.len() < ORDERS_MAX && !known.contains(&order) {
            known.push(order.clone());
            new.push(order);
        }
    }
    if !new.is_empty() {
        row.orders = orders::to_text(&known);
    }
    new
}

/// The text of an object.
fn text(object: &Map<String, Value>) -> String {
    serde_json::to_string(object).unwrap_or_default()
}

fn object(text: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(text).ok()
}

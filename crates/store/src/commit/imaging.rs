//! Study, series and instance rows, and the ImagingStudy versions drawn from them.
//!
//! Writing an image costs the same whatever the size of its study. The ImagingStudy is published with the first instance, then when its study
//! has been quiet for a while, and at the latest some time after the first change not yet published.

use hilum_fhir::imaging::{
    Instance, InstanceRow, PerformedStep, Series, StepStatus, Study, StudyRows, imaging_study,
};
use hilum_fhir::{Issue, IssueCode, Resource, ResourceType};
use hilum_rows::keys;
use hilum_rows::row::{Due, InstanceEntry, StudyRow};
use serde_json::{Map, Value};

use super::apply::{Apply, Written};
use crate::{Effect, Error, ErrorKind};

/// A study without a new instance for this long is published.
const QUIET_MS: i64 = 2_000;
/// A study is published at most once in this time…
const PUBLISH_EVERY_MS: i64 = 5_000;
/// … and at the latest so long after its first unpublished change.
const PUBLISH_LATEST_MS: i64 = 30_000;
/// Studies published in one round.
const ROUND_MAX: i64 = 100;

/// What a change did, and the ImagingStudy version it published (id and version).
type Done = Result<(Effect, Option<(String, Written)>), Error>;

impl Apply<'_> {
    /// A study announced by an order or a step.
    pub(super) fn study(&mut self, study: &Study, patient: Option<i64>) -> Done {
        self.upsert_study(study, patient, false)?;
        let published = self.publish(&study.uid)?;
        Ok((if published.is_some() { Effect::Updated } else { Effect::Unchanged }, published))
    }

    /// A received instance, its series and its study.
    pub(super) fn instance(&mut self, instance: &Instance, patient: Option<i64>) -> Done {
        let known = self.db.instance(&instance.uid)?;
        if let Some(known) = &known {
            if known.dataset_sha256 == instance.dataset_sha256
                && known.transfer_syntax == instance.transfer_syntax
            {
                return Ok((Effect::Unchanged, None));
            }
            let stored = self.db.study(&known.study_uid)?;
            if known.study_uid != instance.study.uid || stored.is_some_and(|row| row.patient != patient) {
                let issue = Issue::error(
                    IssueCode::Conflict,
                    "the sop instance is stored with another study or patient",
                );
                return Err(Error::refused(ErrorKind::Conflict, issue.at("(0008,0018)")));
            }
        }
        let first = self.write_instance(instance, patient, known.is_some())?;
        let published = if first { self.publish(&instance.study.uid)? } else { None };
        Ok((Effect::Recorded, published))
    }

    /// A message about a performed procedure step: compare-and-set of its state.
    pub(super) fn step(&mut self, step: &PerformedStep, patient: Option<i64>) -> Done {
        let known = self.db.performed_step(&step.uid)?;
        let mut attributes = known.as_ref().and_then(|(.., text)| object(text)).unwrap_or_default();
        let before = attributes.clone();
        attributes.extend(step.attributes.clone());
        let state = state_number(step.status);
        if let Some((stored, ..)) = &known {
            if *stored != state_number(StepStatus::InProgress) && (*stored != state || before != attributes) {
                let text = "Performed Procedure Step Object may no longer be updated (0110, A710)";
                return Err(Error::refused(
                    ErrorKind::Conflict,
                    Issue::error(IssueCode::Conflict, text).at("status"),
                ));
            }
            if *stored == state && before == attributes {
                return Ok((Effect::Unchanged, None));
            }
        }
        let revision = known.map_or(1, |(_, revision, _)| revision + 1);
        self.write_step(step, patient, state, revision, &attributes)?;
        let published = self.publish(&step.study.uid)?;
        Ok((Effect::Recorded, published))
    }

    fn write_step(
        &mut self,
        step: &PerformedStep,
        patient: Option<i64>,
        state: i64,
        revision: i64,
        attributes: &Map<String, Value>,
    ) -> Result<(), Error> {
        self.upsert_study(&step.study, patient, false)?;
        let study = &step.study.uid;
        self.db.put_performed_step(&step.uid, study, state, revision, &text(attributes))?;
        let system = step.procedure.system.as_deref().unwrap_or_default();
        let discontinued = step.status == StepStatus::Discontinued;
        self.db.set_procedure(study, &format!("{system}|{}", step.procedure.value), discontinued)?;
        for (series, images) in &step.series {
            self.upsert_series(series, study)?;
            self.db.put_expectation(&series.uid, &step.uid, study, images.map(i64::from))?;
        }
        Ok(())
    }

    /// Whether it is the first instance of its study.
    fn write_instance(
        &mut self,
        instance: &Instance,
        patient: Option<i64>,
        replaces: bool,
    ) -> Result<bool, Error> {
        let first = self.upsert_study(&instance.study, patient, true)?;
        self.upsert_series(&instance.series, &instance.study.uid)?;
        if replaces {
            self.db.supersede_instance(&instance.uid, self.submission)?;
            tracing::warn!(sop_instance = %instance.uid, "an instance came again with other content; the newest is current");
        }
        self.db.add_instance(&InstanceEntry {
            sop: &instance.uid,
            series: &instance.series.uid,
            study: &instance.study.uid,
            class: &instance.sop_class,
            syntax: &instance.transfer_syntax,
            number: instance.elements.get("number").and_then(Value::as_i64),
            elements: text(&instance.elements),
            bytes: instance.dataset_bytes,
            sha256: &instance.dataset_sha256,
            blob: &instance.blob,
            submission: self.submission,
            received: self.now / 1000,
        })?;
        Ok(first)
    }

    /// Upserts a study only when something is new; first value wins, differences are counted as conflicts. Returns whether the
    /// study had no instance so far.
    fn upsert_study(&mut self, study: &Study, patient: Option<i64>, instance: bool) -> Result<bool, Error> {
        let now = self.now / 1000;
        let last = instance.then_some(now);
        let Some(mut row) = self.db.study(&study.uid)? else {
            let row = StudyRow {
                patient,
                accession: study.accession.clone(),
                elements: text(&study.elements),
                procedure: None,
                is_discontinued: false,
                has_instances: instance,
            };
            self.db.add_study(&study.uid, &row, now, last)?;
            return Ok(true);
        };
        let before = (row.patient, row.accession.clone());
        let mut elements = object(&row.elements).unwrap_or_default();
        let elements_before = elements.clone();
        let mut conflicts = u32::from(row.patient.is_some() && patient.is_some() && row.patient != patient);
        row.patient = row.patient.or(patient);
        conflicts += u32::from(
            row.accession.is_some() && study.accession.is_some() && row.accession != study.accession,
        );
        row.accession = row.accession.or_else(|| study.accession.clone());
        for (name, value) in &study.elements {
            let stored = elements.entry(name.clone()).or_insert_with(|| value.clone());
            conflicts += u32::from(stored != value);
        }
        let first = instance && !row.has_instances;
        if before == (row.patient, row.accession.clone()) && elements == elements_before && conflicts == 0 {
            self.db.touch_study(&study.uid, now, last)?;
        } else {
            row.elements = text(&elements);
            self.db.change_study(&study.uid, &row, conflicts, now, last)?;
        }
        Ok(first)
    }

    fn upsert_series(&mut self, series: &Series, study: &str) -> Result<(), Error> {
        let known = self.db.series(&series.uid)?;
        let mut elements = known.as_deref().and_then(object).unwrap_or_default();
        for (name, value) in &series.elements {
            elements.entry(name.clone()).or_insert_with(|| value.clone());
        }
        let number = elements.get("number").and_then(Value::as_i64);
        let text = text(&elements);
        if known.as_ref() == Some(&text) {
            return Ok(());
        }
        self.db.put_series(&series.uid, study, number, &text)
    }

    /// Publishes the studies that are due, or the one named. Returns how many versions were written.
    pub(crate) fn publish_due(&mut self, uid: Option<&str>) -> Result<u32, Error> {
        let due = match uid {
            Some(uid) => vec![uid.to_owned()],
            None => self.db.due_studies(&Due {
                dirty_before: self.now / 1000 - PUBLISH_LATEST_MS,
                quiet_before: self.now / 1000 - QUIET_MS,
                published_before: self.now / 1000 - PUBLISH_EVERY_MS,
                max: ROUND_MAX,
            })?,
        };
        let mut published = 0;
        for uid in due {
            published += u32::from(self.publish(&uid)?.is_some());
        }
        Ok(published)
    }

    /// Draws the ImagingStudy of a study and writes it when it differs from the current version.
    fn publish(&mut self, uid: &str) -> Result<Option<(String, Written)>, Error> {
        let Some(rows) = self.rows(uid)? else { return Ok(None) };
        let study = imaging_study(&rows);
        let id = self.imaging_study_id(&study, uid)?;
        let written = self.put(&study, &id)?;
        self.db.set_published(uid, self.now / 1000)?;
        Ok(written.map(|written| (id, written)))
    }

    /// The id of the ImagingStudy with this Study Instance UID, or a new one.
    fn imaging_study_id(&mut self, study: &Resource, uid: &str) -> Result<String, Error> {
        let found = self.by_identifier(study.resource_type(), "urn:dicom:uid", &format!("urn:oid:{uid}"))?;
        Ok(found.unwrap_or_else(|| uuid::Uuid::now_v7().to_string()))
    }

    fn by_identifier(
        &mut self,
        of: ResourceType,
        system: &str,
        value: &str,
    ) -> Result<Option<String>, Error> {
        let key = keys::identifier_key(of, Some(system).filter(|s| !s.is_empty()), value);
        Ok(self.db.ids_with_key(key, 1)?.pop())
    }

    fn rows(&mut self, uid: &str) -> Result<Option<StudyRows>, Error> {
        let Some(row) = self.db.study(uid)? else { return Ok(None) };
        let name = |of: &str| ResourceType::from_name(of).ok_or_else(|| Error::unavailable("no such type"));
        let based_on = match &row.accession {
            Some((system, value)) => self.by_identifier(name("ServiceRequest")?, system, value)?,
            None => None,
        };
        let procedure = match row.procedure.as_deref().and_then(|p| p.split_once('|')) {
            Some((system, value)) => self.by_identifier(name("Procedure")?, system, value)?,
            None => None,
        };
        let patient = match row.patient {
            Some(rid) => self.db.name(rid)?.map(|(of, id)| format!("{of}/{id}")),
            None => None,
        };
        Ok(Some(StudyRows {
            uid: uid.to_owned(),
            accession: row.accession,
            elements: object(&row.elements).unwrap_or_default(),
            patient,
            based_on: based_on.into_iter().map(|id| format!("ServiceRequest/{id}")).collect(),
            procedure: procedure.map(|id| format!("Procedure/{id}")),
            discontinued: row.is_discontinued,
            series: self.series_rows(uid)?,
        }))
    }

    fn series_rows(&self, study: &str) -> Result<Vec<(Series, Vec<InstanceRow>)>, Error> {
        let mut rows = Vec::new();
        for (uid, elements) in self.db.series_of(study)? {
            let instances = self.db.instances_of(&uid)?.into_iter().map(|(uid, sop_class, elements)| {
                InstanceRow { uid, sop_class, elements: object(&elements).unwrap_or_default() }
            });
            let instances = instances.collect();
            rows.push((Series { uid, elements: object(&elements).unwrap_or_default() }, instances));
        }
        Ok(rows)
    }
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

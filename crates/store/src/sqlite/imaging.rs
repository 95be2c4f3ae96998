//! Study, series and instance rows, and the ImagingStudy versions drawn from them.
//!
//! Writing an image costs the same whatever the size of its study. The ImagingStudy is published with the first instance, then when its study
//! has been quiet for a while, and at the latest some time after the first change not yet published.

use hilum_fhir::imaging::{
    Instance, InstanceRow, PerformedStep, Series, StepStatus, Study, StudyRows, imaging_study,
};
use hilum_fhir::{Issue, IssueCode, Resource, ResourceType};
use rusqlite::{OptionalExtension, params};
use serde_json::{Map, Value};

use super::apply::{Apply, Written};
use super::{keys, lookup};
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

struct StudyRow {
    patient: Option<i64>,
    elements: Map<String, Value>,
    accession: Option<(String, String)>,
}

impl Apply<'_> {
    /// A study announced by an order or a step.
    pub(super) fn study(&mut self, study: &Study, patient: Option<i64>) -> Done {
        self.upsert_study(study, patient, false).map_err(|e| self.noted(e))?;
        let published = self.publish(&study.uid)?;
        Ok((if published.is_some() { Effect::Updated } else { Effect::Unchanged }, published))
    }

    /// A received instance, its series and its study.
    pub(super) fn instance(&mut self, instance: &Instance, patient: Option<i64>) -> Done {
        let sql = "SELECT sha, syntax, study FROM instance WHERE sop=?1 AND superseded=0";
        let known: Option<([u8; 32], String, String)> = self
            .connection
            .prepare_cached(sql)
            .and_then(|mut s| {
                s.query_row([&instance.uid], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).optional()
            })
            .map_err(|e| self.noted(e))?;
        if let Some((sha, syntax, study)) = &known {
            if *sha == instance.dataset_sha256 && *syntax == instance.transfer_syntax {
                return Ok((Effect::Unchanged, None));
            }
            let stored = self.study_row(study).map_err(|e| self.noted(e))?;
            if *study != instance.study.uid || stored.is_some_and(|row| row.patient != patient) {
                let issue = Issue::error(
                    IssueCode::Conflict,
                    "the sop instance is stored with another study or patient",
                );
                return Err(Error::refused(ErrorKind::Conflict, issue.at("(0008,0018)")));
            }
        }
        let first = self.write_instance(instance, patient, known.is_some()).map_err(|e| self.noted(e))?;
        let published = if first { self.publish(&instance.study.uid)? } else { None };
        Ok((Effect::Recorded, published))
    }

    /// A message about a performed procedure step: compare-and-set of its state.
    pub(super) fn step(&mut self, step: &PerformedStep, patient: Option<i64>) -> Done {
        let sql = "SELECT state, revision, attributes FROM mpps WHERE uid=?1";
        let known: Option<(i64, i64, String)> = self
            .connection
            .prepare_cached(sql)
            .and_then(|mut s| s.query_row([&step.uid], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).optional())
            .map_err(|e| self.noted(e))?;
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
        self.write_step(step, patient, state, revision, &attributes).map_err(|e| self.noted(e))?;
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
    ) -> rusqlite::Result<()> {
        self.upsert_study(&step.study, patient, false)?;
        let sql = "INSERT OR REPLACE INTO mpps VALUES(?1,?2,?3,?4,?5)";
        let attributes = Value::Object(attributes.clone()).to_string();
        self.connection.prepare_cached(sql)?.execute(params![
            step.uid,
            step.study.uid,
            state,
            revision,
            attributes
        ])?;
        let procedure = step.procedure.value.clone();
        let system = step.procedure.system.clone().unwrap_or_default();
        let sql = "UPDATE study SET procedure=?2, discontinued=?3 WHERE uid=?1";
        let discontinued = step.status == StepStatus::Discontinued;
        self.connection.prepare_cached(sql)?.execute(params![
            step.study.uid,
            format!("{system}|{procedure}"),
            discontinued
        ])?;
        for (series, images) in &step.series {
            self.upsert_series(series, &step.study.uid)?;
            let sql = "INSERT OR REPLACE INTO expectation VALUES(?1,?2,?3,?4)";
            self.connection.prepare_cached(sql)?.execute(params![
                series.uid,
                step.uid,
                step.study.uid,
                images
            ])?;
        }
        Ok(())
    }

    /// Whether it is the first instance of its study.
    fn write_instance(
        &mut self,
        instance: &Instance,
        patient: Option<i64>,
        replaces: bool,
    ) -> rusqlite::Result<bool> {
        let first = self.upsert_study(&instance.study, patient, true)?;
        self.upsert_series(&instance.series, &instance.study.uid)?;
        if replaces {
            let sql = "UPDATE instance SET superseded=?2 WHERE sop=?1 AND superseded=0";
            self.connection.prepare_cached(sql)?.execute(params![instance.uid, self.submission])?;
            tracing::warn!(sop_instance = %instance.uid, "an instance came again with other content; the newest is current");
        }
        let sql = "INSERT INTO instance VALUES(?1,0,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12)";
        let row = params![
            instance.uid,
            instance.series.uid,
            instance.study.uid,
            instance.sop_class,
            instance.transfer_syntax,
            instance.elements.get("number").and_then(Value::as_i64),
            Value::Object(instance.elements.clone()).to_string(),
            instance.dataset_bytes,
            instance.dataset_sha256,
            instance.blob,
            self.submission,
            self.now / 1000,
        ];
        self.connection.prepare_cached(sql)?.execute(row)?;
        Ok(first)
    }

    fn study_row(&self, uid: &str) -> rusqlite::Result<Option<StudyRow>> {
        let sql = "SELECT patient, elements, acc_system, acc_value FROM study WHERE uid=?1";
        let mut statement = self.connection.prepare_cached(sql)?;
        let row = statement.query_row([uid], |r| {
            let accession = r.get::<_, Option<String>>(2)?.zip(r.get(3)?);
            Ok(StudyRow {
                patient: r.get(0)?,
                elements: object(&r.get::<_, String>(1)?).unwrap_or_default(),
                accession,
            })
        });
        row.optional()
    }

    /// Upserts a study only when something is new; first value wins, differences are counted as conflicts.
    fn upsert_study(
        &mut self,
        study: &Study,
        patient: Option<i64>,
        instance: bool,
    ) -> rusqlite::Result<bool> {
        let now = self.now / 1000;
        let Some(mut row) = self.study_row(&study.uid)? else {
            let sql = "INSERT INTO study(uid,patient,acc_system,acc_value,elements,dirty_since,last_instance_at) VALUES(?1,?2,?3,?4,?5,?6,?7)";
            let (system, value) = study.accession.clone().unzip();
            let elements = Value::Object(study.elements.clone()).to_string();
            let last = instance.then_some(now);
            self.connection
                .prepare_cached(sql)?
                .execute(params![study.uid, patient, system, value, elements, now, last])?;
            return Ok(true);
        };
        let before = (row.patient, row.elements.clone(), row.accession.clone());
        let mut conflicts = u32::from(row.patient.is_some() && patient.is_some() && row.patient != patient);
        row.patient = row.patient.or(patient);
        conflicts += u32::from(
            row.accession.is_some() && study.accession.is_some() && row.accession != study.accession,
        );
        row.accession = row.accession.or_else(|| study.accession.clone());
        for (name, value) in &study.elements {
            let stored = row.elements.entry(name.clone()).or_insert_with(|| value.clone());
            conflicts += u32::from(stored != value);
        }
        let sql = "SELECT last_instance_at IS NULL FROM study WHERE uid=?1";
        let first = instance && self.connection.prepare_cached(sql)?.query_row([&study.uid], |r| r.get(0))?;
        if before == (row.patient, row.elements.clone(), row.accession.clone()) && conflicts == 0 {
            let sql = "UPDATE study SET dirty_since=coalesce(dirty_since,?2), last_instance_at=coalesce(?3,last_instance_at) WHERE uid=?1";
            self.connection.prepare_cached(sql)?.execute(params![study.uid, now, instance.then_some(now)])?;
            return Ok(first);
        }
        let sql = "UPDATE study SET patient=?2, acc_system=?3, acc_value=?4, elements=?5, conflicts=conflicts+?6,
            dirty_since=coalesce(dirty_since,?7), last_instance_at=coalesce(?8,last_instance_at) WHERE uid=?1";
        let (system, value) = row.accession.unzip();
        let elements = Value::Object(row.elements).to_string();
        let values =
            params![study.uid, row.patient, system, value, elements, conflicts, now, instance.then_some(now)];
        self.connection.prepare_cached(sql)?.execute(values)?;
        Ok(first)
    }

    fn upsert_series(&mut self, series: &Series, study: &str) -> rusqlite::Result<()> {
        let sql = "SELECT elements FROM series WHERE uid=?1";
        let known: Option<String> =
            self.connection.prepare_cached(sql)?.query_row([&series.uid], |r| r.get(0)).optional()?;
        let mut elements = known.as_deref().and_then(object).unwrap_or_default();
        for (name, value) in &series.elements {
            elements.entry(name.clone()).or_insert_with(|| value.clone());
        }
        let number = elements.get("number").and_then(Value::as_i64);
        let text = Value::Object(elements).to_string();
        if known.as_ref() != Some(&text) {
            let sql = "INSERT INTO series VALUES(?1,?2,?3,?4) ON CONFLICT(uid) DO UPDATE SET number=?3, elements=?4";
            self.connection.prepare_cached(sql)?.execute(params![series.uid, study, number, text])?;
        }
        Ok(())
    }

    /// Publishes the studies that are due, or the one named. Returns how many versions were written.
    pub(crate) fn publish_due(&mut self, uid: Option<&str>) -> Result<u32, Error> {
        let due = match uid {
            Some(uid) => vec![uid.to_owned()],
            None => self.due().map_err(|e| self.noted(e))?,
        };
        let mut published = 0;
        for uid in due {
            published += u32::from(self.publish(&uid)?.is_some());
        }
        Ok(published)
    }

    fn due(&self) -> rusqlite::Result<Vec<String>> {
        let sql = "SELECT uid FROM study WHERE dirty_since IS NOT NULL AND (dirty_since<=?1-?4 OR
            (coalesce(last_instance_at,0)<=?1-?2 AND coalesce(published_at,0)<=?1-?3)) LIMIT ?5";
        let mut statement = self.connection.prepare_cached(sql)?;
        let row = params![self.now / 1000, QUIET_MS, PUBLISH_EVERY_MS, PUBLISH_LATEST_MS, ROUND_MAX];
        let found = statement.query_map(row, |r| r.get(0))?;
        found.collect()
    }

    /// Draws the ImagingStudy of a study and writes it when it differs from the current version.
    fn publish(&mut self, uid: &str) -> Result<Option<(String, Written)>, Error> {
        let Some(rows) = self.rows(uid)? else { return Ok(None) };
        let study = imaging_study(&rows);
        let id = self.imaging_study_id(&study, uid)?;
        let written = self.put(&study, &id)?;
        let sql = "UPDATE study SET dirty_since=NULL, published_at=?2 WHERE uid=?1";
        let done =
            self.connection.prepare_cached(sql).and_then(|mut s| s.execute(params![uid, self.now / 1000]));
        done.map_err(|e| self.noted(e))?;
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
        let sql = "SELECT h.fid FROM ix i JOIN head h ON h.rid=i.rid WHERE i.key=?1 AND i.sys=?2 AND h.deleted=0 ORDER BY h.rid LIMIT 1";
        let found = self
            .connection
            .prepare_cached(sql)
            .and_then(|mut s| s.query_row([key.value, key.system], |r| r.get(0)).optional());
        found.map_err(|e| self.noted(e))
    }

    fn rows(&mut self, uid: &str) -> Result<Option<StudyRows>, Error> {
        let sql = "SELECT procedure, discontinued FROM study WHERE uid=?1";
        let more: Option<(Option<String>, bool)> = self
            .connection
            .prepare_cached(sql)
            .and_then(|mut s| s.query_row([uid], |r| Ok((r.get(0)?, r.get(1)?))).optional())
            .map_err(|e| self.noted(e))?;
        let Some((procedure, discontinued)) = more else { return Ok(None) };
        let Some(row) = self.study_row(uid).map_err(|e| self.noted(e))? else { return Ok(None) };
        let name = |of: &str| ResourceType::from_name(of).ok_or_else(|| Error::unavailable("no such type"));
        let based_on = match &row.accession {
            Some((system, value)) => self.by_identifier(name("ServiceRequest")?, system, value)?,
            None => None,
        };
        let procedure = match procedure.as_deref().and_then(|p| p.split_once('|')) {
            Some((system, value)) => self.by_identifier(name("Procedure")?, system, value)?,
            None => None,
        };
        let patient = match row.patient {
            Some(rid) => lookup::name(self.connection, rid)?.map(|(of, id)| format!("{of}/{id}")),
            None => None,
        };
        Ok(Some(StudyRows {
            uid: uid.to_owned(),
            accession: row.accession,
            elements: row.elements,
            patient,
            based_on: based_on.into_iter().map(|id| format!("ServiceRequest/{id}")).collect(),
            procedure: procedure.map(|id| format!("Procedure/{id}")),
            discontinued,
            series: self.series_rows(uid).map_err(|e| self.noted(e))?,
        }))
    }

    fn series_rows(&self, study: &str) -> rusqlite::Result<Vec<(Series, Vec<InstanceRow>)>> {
        let sql = "SELECT uid, elements FROM series WHERE study=?1 ORDER BY number IS NULL, number, uid";
        let mut statement = self.connection.prepare_cached(sql)?;
        let series: Vec<Series> = statement
            .query_map([study], |r| {
                Ok(Series { uid: r.get(0)?, elements: object(&r.get::<_, String>(1)?).unwrap_or_default() })
            })?
            .collect::<rusqlite::Result<_>>()?;
        let sql = "SELECT sop, class, elements FROM instance WHERE series=?1 AND superseded=0 ORDER BY number IS NULL, number, sop";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = Vec::with_capacity(series.len());
        for one in series {
            let instances = statement.query_map([&one.uid], |r| {
                let elements = object(&r.get::<_, String>(2)?).unwrap_or_default();
                Ok(InstanceRow { uid: r.get(0)?, sop_class: r.get(1)?, elements })
            })?;
            rows.push((one, instances.collect::<rusqlite::Result<_>>()?));
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

fn object(text: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(text).ok()
}

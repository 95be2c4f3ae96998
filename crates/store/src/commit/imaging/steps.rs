//! Performed procedure steps: rows of their own, with a state that only goes on (PS3.4 F.7).

use hilum_fhir::imaging::{PerformedStep, StepStatus};
use hilum_fhir::{Issue, IssueCode, Resource, ResourceType};
use hilum_rows::row::{StepRow, study_uid};
use hilum_rows::{Db, keys};
use serde_json::{Map, Value};

use super::{Done, Found, object, text};
use crate::commit::apply::Apply;
use crate::query::identifiers::identifiers;
use crate::{Effect, Error, ErrorKind};

impl Apply<'_> {
    /// Refuses what the row of a step contradicts. It belongs to one study and one patient for good, and a final state is final (PS3.4 F.7).
    pub(in crate::commit) fn refuse_step(
        &self,
        step: &PerformedStep,
        is_named: bool,
        patient: Option<i64>,
    ) -> Result<(), Error> {
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

    /// A message about a performed procedure step: compare-and-set of its state.
    pub(in crate::commit) fn step(&mut self, step: &PerformedStep, patient: Option<i64>) -> Done {
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
}

/// Whether a resource is the Procedure of a performed step.
pub(crate) fn is_of_a_step(db: Db<'_>, resource: Option<&Resource>) -> Result<bool, Error> {
    for identifier in resource.map(identifiers).unwrap_or_default() {
        if identifier.system.as_deref() == Some("urn:dicom:uid")
            && let Some(uid) = identifier.value.strip_prefix("urn:oid:")
            && db.performed_step(uid)?.is_some()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

pub(super) fn procedure_type() -> ResourceType {
    ResourceType::from_name("Procedure").unwrap_or_else(|| unreachable!("a type of fhir r4"))
}

/// The id of the Procedure of a step, by its `system|value`.
pub(super) fn procedure_id(db: Db<'_>, identifier: &str) -> Result<Option<String>, Error> {
    let Some((system, value)) = identifier.split_once('|') else { return Ok(None) };
    let wanted = keys::identifier_key(procedure_type(), Some(system).filter(|s| !s.is_empty()), value);
    Ok(db.ids_with_key(wanted, 1)?.pop())
}

pub(super) fn state_number(status: StepStatus) -> i64 {
    match status {
        StepStatus::InProgress => 0,
        StepStatus::Completed => 1,
        StepStatus::Discontinued => 2,
    }
}

//! What may be removed: a study with everything of it on demand, and nothing that rows still speak of.

use hilum_fhir::{Issue, IssueCode, ResourceType};
use hilum_rows::Db;
use hilum_rows::row::{StudyRow, study_uid};

use super::steps::{is_of_a_step, procedure_id, procedure_type};
use crate::commit::apply::{Apply, Written};
use crate::commit::submission::{Packed, Verdict};
use crate::query::lookup::{self, Base};
use crate::{Error, ErrorKind, StudyContents};

impl Apply<'_> {
    /// Removes the studies with a Study Instance UID, in a submission of its own.
    pub(crate) fn delete_study(&mut self, packed: &Packed, uid: &str) -> Result<StudyContents, Error> {
        use std::fmt::Write;
        let mut contents = contents(self.db, uid)?;
        if contents.studies == 0 {
            return Ok(contents);
        }
        contents.submission = Some(self.begin_submission());
        let mut targets = String::new();
        for (key, row) in studies_of_uid(self.db, uid)? {
            let blobs = self.db.blobs_of_study(&key)?;
            for written in self.remove_study(&key, &row)? {
                let _ = write!(targets, "{}/{} ", written.rid, written.version);
            }
            self.db.forget_blobs(&blobs)?;
        }
        self.submission(packed, None, Verdict::Accepted(&[]), &targets)?;
        Ok(contents)
    }

    /// Nothing is deleted that rows still speak of: a study, a step, or a Patient under whom they are found.
    pub(in crate::commit) fn refuse_to_orphan(&self, base: &Base, of: ResourceType) -> Result<(), Error> {
        let text = match of.name() {
            "ImagingStudy" if self.db.study_drawn_as(base.head.rid)?.is_some() => {
                "is drawn from images and performed steps; `hilum study delete UID` removes them with it"
            }
            "Patient" if self.has_rows_of_person(base.head.rid)? => {
                "has images or performed steps; remove them with `hilum study delete UID`, or merge the patient"
            }
            "Procedure" if is_of_a_step(self.db, base.resource.as_ref())? => {
                "is drawn from a performed step; `hilum study delete UID` removes it with its study"
            }
            _ => return Ok(()),
        };
        let issue = Issue::error(IssueCode::Conflict, text).at(of.name());
        Err(Error::refused(ErrorKind::Conflict, issue))
    }

    /// Whether there are studies or steps of a Patient, or of one it replaced.
    fn has_rows_of_person(&self, rid: i64) -> Result<bool, Error> {
        for patient in std::iter::once(rid).chain(lookup::replaced(self.db, rid)?) {
            if !self.db.studies_of_patient(patient, 1)?.is_empty() || self.db.has_step_of(patient)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes a study with everything of it: rows, images, the ImagingStudy and the Procedures of its steps.
    fn remove_study(&mut self, key: &str, row: &StudyRow) -> Result<Vec<Written>, Error> {
        let zone = self.context.zone.clone();
        let mut drawn: Vec<(ResourceType, String)> = Vec::new();
        drawn.extend(row.drawn_as.map(|rid| self.db.name(rid)).transpose()?.flatten());
        for (procedure, _) in self.db.steps_of(key)? {
            drawn.extend(procedure_id(self.db, &procedure)?.map(|id| (procedure_type(), id)));
        }
        self.db.remove_study(key)?;
        self.take_position();
        let mut written = Vec::with_capacity(drawn.len());
        for (of, id) in drawn {
            if let Some(base) = lookup::base(self.db, of, &id, &zone)?.filter(|base| !base.head.deleted) {
                written.push(self.delete(of, &id, &base)?);
            }
        }
        Ok(written)
    }
}

/// What there is under a Study Instance UID.
pub(crate) fn contents(db: Db<'_>, uid: &str) -> Result<StudyContents, Error> {
    let mut contents = StudyContents::default();
    for (key, _) in studies_of_uid(db, uid)? {
        contents.studies += 1;
        for (series, _) in db.series_of(&key)? {
            contents.images += db.instances_of(&key, &series)?.len() as u64;
        }
    }
    Ok(contents)
}

/// The studies with a Study Instance UID; the key of a further patient's study is none.
fn studies_of_uid(db: Db<'_>, uid: &str) -> Result<Vec<(String, StudyRow)>, Error> {
    if study_uid(uid) == uid { db.studies_with(uid) } else { Ok(Vec::new()) }
}

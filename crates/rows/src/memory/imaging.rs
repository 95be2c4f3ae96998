//! Study, series, instance and step rows.

use std::sync::Arc;

use super::Session;
use super::tables::{InstanceRow, Series, Study, Tables, add, by_number, limit};
use crate::face::{Studies, WriteStudies};
use crate::row::{Due, InstanceEntry, InstancePlace, StepRow, StudyRow, study_uid};
use crate::{BlobId, Error, InstanceFile};

/// Of instances: the current one.
const CURRENT: u64 = 0;

impl Studies for Session {
    fn instances_with(&self, sop: &str) -> Result<Vec<InstancePlace>, Error> {
        let tables = self.tables.borrow();
        let current = tables.instances.iter().filter(|((.., known, at), _)| known == sop && *at == CURRENT);
        let place = |((study, series, ..), row): (&(String, String, String, u64), &Arc<InstanceRow>)| {
            InstancePlace { study: study.clone(), series: series.clone(), file: row.file.clone() }
        };
        Ok(current.map(place).collect())
    }

    fn study(&self, key: &str) -> Result<Option<StudyRow>, Error> {
        Ok(self.tables.borrow().studies.get(key).map(Study::told))
    }

    fn studies_with(&self, uid: &str) -> Result<Vec<(String, StudyRow)>, Error> {
        let tables = self.tables.borrow();
        let wanted = tables.studies.iter().filter(|(key, _)| study_uid(key) == uid);
        Ok(wanted.map(|(key, study)| (key.clone(), study.told())).collect())
    }

    fn study_drawn_as(&self, rid: i64) -> Result<Option<String>, Error> {
        Ok(self.tables.borrow().keys_of(|study| study.row.drawn_as == Some(rid)).next())
    }

    fn studies_of_patient(&self, rid: i64, max: usize) -> Result<Vec<String>, Error> {
        Ok(self.tables.borrow().keys_of(|study| study.row.patient == Some(rid)).take(max).collect())
    }

    fn studies_with_number(&self, value: &str, max: usize) -> Result<Vec<String>, Error> {
        let tables = self.tables.borrow();
        let named = tables.study_numbers.iter().filter(|(number, _)| number == value);
        Ok(named.map(|(_, key)| key.clone()).take(max).collect())
    }

    fn due_studies(&self, due: &Due) -> Result<Vec<String>, Error> {
        let is_due = |study: &Study| {
            let is_quiet = study.last_instance_at.unwrap_or(0) <= due.quiet_before
                && study.row.published.unwrap_or(0) <= due.published_before;
            study.dirty_since.is_some_and(|since| since <= due.dirty_before || is_quiet)
        };
        let max = usize::try_from(due.max).unwrap_or(0);
        Ok(self.tables.borrow().keys_of(is_due).take(max).collect())
    }

    fn dirty_studies(&self, max: u32) -> Result<Vec<String>, Error> {
        let tables = self.tables.borrow();
        Ok(tables.keys_of(|study| study.dirty_since.is_some()).take(limit(max)).collect())
    }

    fn blobs_of_study(&self, key: &str) -> Result<Vec<BlobId>, Error> {
        let tables = self.tables.borrow();
        let of_study = tables.instances.iter().filter(|((study, ..), _)| study == key);
        let mut blobs: Vec<BlobId> = of_study.map(|(_, row)| row.file.blob).collect();
        blobs.sort_unstable_by_key(|blob| blob.0);
        blobs.dedup();
        Ok(blobs)
    }

    fn series(&self, study: &str, uid: &str) -> Result<Option<String>, Error> {
        let key = (study.to_owned(), uid.to_owned());
        Ok(self.tables.borrow().series.get(&key).map(|series| series.elements.clone()))
    }

    fn series_of(&self, study: &str) -> Result<Vec<(String, String)>, Error> {
        let tables = self.tables.borrow();
        let of_study = tables.series.iter().filter(|((of, _), _)| of == study);
        let mut rows: Vec<_> = of_study.filter(|((_, uid), _)| tables.is_shown(study, uid)).collect();
        by_number(&mut rows, |(_, series)| series.number);
        Ok(rows.into_iter().map(|((_, uid), series)| (uid.clone(), series.elements.clone())).collect())
    }

    fn instances_of(&self, study: &str, series: &str) -> Result<Vec<(String, String, String)>, Error> {
        let tables = self.tables.borrow();
        let of_series = |(of, within, _, at): &(String, String, String, u64)| {
            of == study && within == series && *at == CURRENT
        };
        let mut rows: Vec<_> = tables.instances.iter().filter(|(key, _)| of_series(key)).collect();
        by_number(&mut rows, |(_, row)| row.number);
        let told = rows
            .into_iter()
            .map(|((.., sop, _), row)| (sop.clone(), row.class.clone(), row.elements.clone()));
        Ok(told.collect())
    }

    fn performed_step(&self, uid: &str) -> Result<Option<StepRow>, Error> {
        Ok(self.tables.borrow().steps.get(uid).map(|row| (**row).clone()))
    }

    fn steps_of(&self, study: &str) -> Result<Vec<(String, i64)>, Error> {
        let tables = self.tables.borrow();
        let of_study = tables.steps.values().filter(|row| row.study == study);
        Ok(of_study.map(|row| (row.procedure.clone(), row.state)).collect())
    }

    fn has_step_of(&self, patient: i64) -> Result<bool, Error> {
        Ok(self.tables.borrow().steps.values().any(|row| row.patient == Some(patient)))
    }
}

impl WriteStudies for Session {
    fn add_instance(&self, row: &InstanceEntry<'_>) -> Result<(), Error> {
        let file = InstanceFile {
            blob: BlobId(*row.blob),
            transfer_syntax: row.syntax.to_owned(),
            study_uid: study_uid(row.study).to_owned(),
            dataset_sha256: *row.sha256,
        };
        let stored = InstanceRow {
            file,
            class: row.class.to_owned(),
            number: row.number,
            elements: row.elements.clone(),
        };
        let key = (row.study.to_owned(), row.series.to_owned(), row.sop.to_owned(), CURRENT);
        add(&mut self.tables.borrow_mut().instances, key, Arc::new(stored))
    }

    fn supersede_instance(&self, study: &str, series: &str, sop: &str, submission: u64) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        let key = |at: u64| (study.to_owned(), series.to_owned(), sop.to_owned(), at);
        match Arc::make_mut(&mut tables.instances).remove(&key(CURRENT)) {
            Some(row) => add(&mut tables.instances, key(submission), row),
            None => Ok(()),
        }
    }

    fn put_study_number(&self, value: &str, key: &str) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        Arc::make_mut(&mut tables.study_numbers).insert((value.to_owned(), key.to_owned()));
        Ok(())
    }

    fn add_study(
        &self,
        key: &str,
        row: &StudyRow,
        now: i64,
        last_instance: Option<i64>,
    ) -> Result<(), Error> {
        let row = StudyRow { drawn_as: None, published: None, revision: 0, ..row.clone() };
        let study = Study { row, dirty_since: Some(now), last_instance_at: last_instance };
        add(&mut self.tables.borrow_mut().studies, key.to_owned(), study)
    }

    fn change_study(
        &self,
        key: &str,
        row: &StudyRow,
        _conflicts: u32,
        now: i64,
        last_instance: Option<i64>,
    ) -> Result<(), Error> {
        self.with_study(key, |study| {
            let StudyRow { drawn_as, published, revision, .. } = study.row;
            study.row = StudyRow { drawn_as, published, revision, ..row.clone() };
            study.touch(now, last_instance);
        })
    }

    fn touch_study(&self, key: &str, now: i64, last_instance: Option<i64>) -> Result<(), Error> {
        self.with_study(key, |study| study.touch(now, last_instance))
    }

    fn set_published(&self, key: &str, now: i64, rid: Option<i64>) -> Result<(), Error> {
        self.with_study(key, |study| {
            study.dirty_since = None;
            study.row.published = Some(now);
            study.row.drawn_as = rid.or(study.row.drawn_as);
        })
    }

    fn remove_study(&self, key: &str) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        Arc::make_mut(&mut tables.instances).retain(|(study, ..), _| study != key);
        Arc::make_mut(&mut tables.series).retain(|(study, _), _| study != key);
        Arc::make_mut(&mut tables.expectations).retain(|_, (study, _)| study != key);
        Arc::make_mut(&mut tables.steps).retain(|_, row| row.study != key);
        Arc::make_mut(&mut tables.study_numbers).retain(|(_, study)| study != key);
        Arc::make_mut(&mut tables.studies).remove(key);
        Ok(())
    }

    fn put_series(&self, study: &str, uid: &str, number: Option<i64>, elements: &str) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        let series = Series { number, elements: elements.to_owned() };
        Arc::make_mut(&mut tables.series).insert((study.to_owned(), uid.to_owned()), series);
        Ok(())
    }

    fn put_performed_step(&self, uid: &str, row: &StepRow) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        Arc::make_mut(&mut tables.steps).insert(uid.to_owned(), Arc::new(row.clone()));
        Ok(())
    }

    fn clear_expectations(&self, step: &str) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        Arc::make_mut(&mut tables.expectations).retain(|(_, of), _| of != step);
        Ok(())
    }

    fn put_expectation(
        &self,
        series: &str,
        step: &str,
        study: &str,
        images: Option<i64>,
    ) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        let key = (series.to_owned(), step.to_owned());
        Arc::make_mut(&mut tables.expectations).insert(key, (study.to_owned(), images));
        Ok(())
    }
}

impl Session {
    fn with_study(&self, key: &str, change: impl FnOnce(&mut Study)) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        if let Some(study) = Arc::make_mut(&mut tables.studies).get_mut(key) {
            change(study);
        }
        Ok(())
    }
}

impl Study {
    fn told(&self) -> StudyRow {
        StudyRow {
            has_instances: self.last_instance_at.is_some(),
            is_dirty: self.dirty_since.is_some(),
            ..self.row.clone()
        }
    }

    fn touch(&mut self, now: i64, last_instance: Option<i64>) {
        self.row.revision += 1;
        self.dirty_since = self.dirty_since.or(Some(now));
        self.last_instance_at = last_instance.or(self.last_instance_at);
    }
}

impl Tables {
    fn keys_of(&self, wanted: impl Fn(&Study) -> bool) -> impl Iterator<Item = String> {
        self.studies.iter().filter(move |(_, study)| wanted(study)).map(|(key, _)| key.clone())
    }

    /// Whether a series has an image or is announced by a step.
    fn is_shown(&self, study: &str, uid: &str) -> bool {
        let has_image =
            self.instances.keys().any(|(of, series, _, at)| of == study && series == uid && *at == CURRENT);
        has_image || self.expectations.iter().any(|((series, _), (of, _))| of == study && series == uid)
    }
}

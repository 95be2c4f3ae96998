//! Study, series, instance and step rows.

use std::sync::Arc;

use super::Session;
use super::tables::{InstanceRow, Series, Study, Tables, add, by_number, limit};
use crate::face::{Studies, WriteStudies};
use crate::row::{Due, InstanceEntry, StudyRow};
use crate::{BlobId, Error, InstanceFile};

/// Of instances: the current one.
const CURRENT: u64 = 0;

impl Studies for Session {
    fn instance(&self, sop: &str) -> Result<Option<InstanceFile>, Error> {
        Ok(self.tables.borrow().instances.get(&(sop.to_owned(), CURRENT)).map(|row| row.file.clone()))
    }

    fn study(&self, uid: &str) -> Result<Option<StudyRow>, Error> {
        let tables = self.tables.borrow();
        Ok(tables
            .studies
            .get(uid)
            .map(|study| StudyRow { has_instances: study.last_instance_at.is_some(), ..study.row.clone() }))
    }

    fn due_studies(&self, due: &Due) -> Result<Vec<String>, Error> {
        let is_due = |study: &Study| {
            let is_quiet = study.last_instance_at.unwrap_or(0) <= due.quiet_before
                && study.published_at.unwrap_or(0) <= due.published_before;
            study.dirty_since.is_some_and(|since| since <= due.dirty_before || is_quiet)
        };
        let tables = self.tables.borrow();
        let found = tables.studies.iter().filter(|(_, study)| is_due(study)).map(|(uid, _)| uid.clone());
        Ok(found.take(usize::try_from(due.max).unwrap_or(0)).collect())
    }

    fn dirty_studies(&self, uid: Option<&str>, max: u32) -> Result<Vec<String>, Error> {
        let tables = self.tables.borrow();
        let dirty = tables.studies.iter().filter(|(_, study)| study.dirty_since.is_some());
        let wanted = dirty.map(|(known, _)| known).filter(|known| uid.is_none_or(|uid| uid == *known));
        Ok(wanted.take(limit(max)).cloned().collect())
    }

    fn series(&self, uid: &str) -> Result<Option<String>, Error> {
        Ok(self.tables.borrow().series.get(uid).map(|series| series.elements.clone()))
    }

    fn series_of(&self, study: &str) -> Result<Vec<(String, String)>, Error> {
        let tables = self.tables.borrow();
        let mut rows: Vec<_> = tables.series.iter().filter(|(_, series)| series.study == study).collect();
        by_number(&mut rows, |(_, series)| series.number);
        Ok(rows.into_iter().map(|(uid, series)| (uid.clone(), series.elements.clone())).collect())
    }

    fn instances_of(&self, series: &str) -> Result<Vec<(String, String, String)>, Error> {
        let tables = self.tables.borrow();
        let current = tables.instances.iter().filter(|((_, superseded), _)| *superseded == CURRENT);
        let mut rows: Vec<_> = current.filter(|(_, row)| row.series == series).collect();
        by_number(&mut rows, |(_, row)| row.number);
        let told =
            rows.into_iter().map(|((sop, _), row)| (sop.clone(), row.class.clone(), row.elements.clone()));
        Ok(told.collect())
    }

    fn performed_step(&self, uid: &str) -> Result<Option<(i64, i64, String)>, Error> {
        let tables = self.tables.borrow();
        Ok(tables.steps.get(uid).map(|(_, state, revision, text)| (*state, *revision, text.clone())))
    }
}

impl WriteStudies for Session {
    fn add_instance(&self, row: &InstanceEntry<'_>) -> Result<(), Error> {
        let file = InstanceFile {
            blob: BlobId(*row.blob),
            transfer_syntax: row.syntax.to_owned(),
            study_uid: row.study.to_owned(),
            dataset_sha256: *row.sha256,
        };
        let stored = InstanceRow {
            file,
            series: row.series.to_owned(),
            class: row.class.to_owned(),
            number: row.number,
            elements: row.elements.clone(),
        };
        add(&mut self.tables.borrow_mut().instances, (row.sop.to_owned(), CURRENT), Arc::new(stored))
    }

    fn supersede_instance(&self, sop: &str, submission: u64) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        let instances = Arc::make_mut(&mut tables.instances);
        match instances.remove(&(sop.to_owned(), CURRENT)) {
            Some(row) => add(&mut tables.instances, (sop.to_owned(), submission), row),
            None => Ok(()),
        }
    }

    fn add_study(
        &self,
        uid: &str,
        row: &StudyRow,
        now: i64,
        last_instance: Option<i64>,
    ) -> Result<(), Error> {
        let row = StudyRow { procedure: None, is_discontinued: false, ..row.clone() };
        let study =
            Study { row, dirty_since: Some(now), last_instance_at: last_instance, published_at: None };
        add(&mut self.tables.borrow_mut().studies, uid.to_owned(), study)
    }

    fn change_study(
        &self,
        uid: &str,
        row: &StudyRow,
        _conflicts: u32,
        now: i64,
        last_instance: Option<i64>,
    ) -> Result<(), Error> {
        self.with_study(uid, |study| {
            let StudyRow { procedure, is_discontinued, .. } = study.row.clone();
            study.row = StudyRow { procedure, is_discontinued, ..row.clone() };
        });
        self.touch_study(uid, now, last_instance)
    }

    fn touch_study(&self, uid: &str, now: i64, last_instance: Option<i64>) -> Result<(), Error> {
        self.with_study(uid, |study| {
            study.dirty_since.get_or_insert(now);
            study.last_instance_at = last_instance.or(study.last_instance_at);
        });
        Ok(())
    }

    fn set_procedure(&self, uid: &str, procedure: &str, is_discontinued: bool) -> Result<(), Error> {
        self.with_study(uid, |study| {
            study.row.procedure = Some(procedure.to_owned());
            study.row.is_discontinued = is_discontinued;
        });
        Ok(())
    }

    fn set_published(&self, uid: &str, now: i64) -> Result<(), Error> {
        self.with_study(uid, |study| (study.dirty_since, study.published_at) = (None, Some(now)));
        Ok(())
    }

    fn put_series(&self, uid: &str, study: &str, number: Option<i64>, elements: &str) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        let fresh = || Series { study: study.to_owned(), number, elements: String::new() };
        let series = Arc::make_mut(&mut tables.series).entry(uid.to_owned()).or_insert_with(fresh);
        (series.number, series.elements) = (number, elements.to_owned());
        Ok(())
    }

    fn put_performed_step(
        &self,
        uid: &str,
        study: &str,
        state: i64,
        revision: i64,
        attributes: &str,
    ) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        let row = (study.to_owned(), state, revision, attributes.to_owned());
        Arc::make_mut(&mut tables.steps).insert(uid.to_owned(), row);
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
    fn with_study(&self, uid: &str, change: impl FnOnce(&mut Study)) {
        let tables: &mut Tables = &mut self.tables.borrow_mut();
        Arc::make_mut(&mut tables.studies).get_mut(uid).map(change);
    }
}

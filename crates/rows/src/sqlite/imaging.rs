//! Study, series, instance and step rows.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::face::{Studies, WriteStudies};
use crate::row::{Due, InstanceEntry, InstancePlace, StepRow, StudyRow, study_uid};
use crate::{BlobId, Error, InstanceFile};

const STUDY: &str = "uid, patient, elements, acc_system, acc_value, orders, attention, last_instance_at IS NOT NULL, drawn_as, published_at, revision, dirty_since IS NOT NULL";

fn study_at(row: &Row<'_>) -> rusqlite::Result<(String, StudyRow)> {
    let study = StudyRow {
        patient: row.get(1)?,
        elements: row.get(2)?,
        accession: row.get::<_, Option<String>>(3)?.zip(row.get(4)?),
        orders: row.get(5)?,
        attention: row.get(6)?,
        has_instances: row.get(7)?,
        drawn_as: row.get(8)?,
        published: row.get(9)?,
        revision: row.get(10)?,
        is_dirty: row.get(11)?,
    };
    Ok((row.get(0)?, study))
}

fn keys(connection: &Connection, sql: &str, row: impl rusqlite::Params) -> Result<Vec<String>, Error> {
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_map(row, |r| r.get(0))?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

impl Studies for Connection {
    fn instances_with(&self, sop: &str) -> Result<Vec<InstancePlace>, Error> {
        let sql = "SELECT study, series, blob, syntax, sha FROM instance WHERE sop=?1 AND superseded=0 ORDER BY study, series";
        let mut statement = self.prepare_cached(sql)?;
        let found = statement.query_map([sop], |r| {
            let study: String = r.get(0)?;
            let file = InstanceFile {
                blob: BlobId(r.get(2)?),
                transfer_syntax: r.get(3)?,
                study_uid: study_uid(&study).to_owned(),
                dataset_sha256: r.get(4)?,
            };
            Ok(InstancePlace { study, series: r.get(1)?, file })
        })?;
        Ok(found.collect::<rusqlite::Result<_>>()?)
    }

    fn study(&self, key: &str) -> Result<Option<StudyRow>, Error> {
        let sql = format!("SELECT {STUDY} FROM study WHERE uid=?1");
        let found = self.prepare_cached(&sql)?.query_row([key], study_at).optional()?;
        Ok(found.map(|(_, row)| row))
    }

    fn studies_with(&self, uid: &str) -> Result<Vec<(String, StudyRow)>, Error> {
        // "@" and the first character after it bound the keys of further patients
        let sql =
            format!("SELECT {STUDY} FROM study WHERE uid=?1 OR (uid>?1||'@' AND uid<?1||'A') ORDER BY uid");
        let mut statement = self.prepare_cached(&sql)?;
        let found = statement.query_map([uid], study_at)?;
        Ok(found.collect::<rusqlite::Result<_>>()?)
    }

    fn study_drawn_as(&self, rid: i64) -> Result<Option<String>, Error> {
        let mut statement = self.prepare_cached("SELECT uid FROM study WHERE drawn_as=?1 LIMIT 1")?;
        Ok(statement.query_row([rid], |r| r.get(0)).optional()?)
    }

    fn studies_of_patient(&self, rid: i64, max: usize) -> Result<Vec<String>, Error> {
        keys(
            self,
            "SELECT uid FROM study WHERE patient=?1 ORDER BY uid LIMIT ?2",
            params![rid, super::rows::number(max)],
        )
    }

    fn studies_with_number(&self, value: &str, max: usize) -> Result<Vec<String>, Error> {
        let sql = "SELECT study FROM study_number WHERE value=?1 ORDER BY study LIMIT ?2";
        keys(self, sql, params![value, super::rows::number(max)])
    }

    fn due_studies(&self, due: &Due) -> Result<Vec<String>, Error> {
        let sql = "SELECT uid FROM study WHERE dirty_since IS NOT NULL AND (dirty_since<=?1 OR
        (coalesce(last_instance_at,0)<=?2 AND coalesce(published_at,0)<=?3)) LIMIT ?4";
        keys(self, sql, params![due.dirty_before, due.quiet_before, due.published_before, due.max])
    }

    fn dirty_studies(&self, max: u32) -> Result<Vec<String>, Error> {
        keys(self, "SELECT uid FROM study WHERE dirty_since IS NOT NULL LIMIT ?1", params![max])
    }

    fn blobs_of_study(&self, key: &str) -> Result<Vec<BlobId>, Error> {
        let mut statement = self.prepare_cached("SELECT DISTINCT blob FROM instance WHERE study=?1")?;
        let found = statement.query_map([key], |r| r.get(0).map(BlobId))?;
        Ok(found.collect::<rusqlite::Result<_>>()?)
    }

    fn series(&self, study: &str, uid: &str) -> Result<Option<String>, Error> {
        let mut statement = self.prepare_cached("SELECT elements FROM series WHERE study=?1 AND uid=?2")?;
        Ok(statement.query_row([study, uid], |r| r.get(0)).optional()?)
    }

    fn series_of(&self, study: &str) -> Result<Vec<(String, String)>, Error> {
        let sql = "SELECT uid, elements FROM series s WHERE study=?1 AND
        (EXISTS (SELECT 1 FROM instance i WHERE i.study=?1 AND i.series=s.uid AND i.superseded=0)
         OR EXISTS (SELECT 1 FROM expectation e WHERE e.series=s.uid AND e.study=?1))
        ORDER BY number IS NULL, number, uid";
        let mut statement = self.prepare_cached(sql)?;
        let found = statement.query_map([study], |r| Ok((r.get(0)?, r.get(1)?)))?;
        Ok(found.collect::<rusqlite::Result<_>>()?)
    }

    fn instances_of(&self, study: &str, series: &str) -> Result<Vec<(String, String, String)>, Error> {
        let sql = "SELECT sop, class, elements FROM instance WHERE study=?1 AND series=?2 AND superseded=0 ORDER BY number IS NULL, number, sop";
        let mut statement = self.prepare_cached(sql)?;
        let found = statement.query_map([study, series], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
        Ok(found.collect::<rusqlite::Result<_>>()?)
    }

    fn performed_step(&self, uid: &str) -> Result<Option<StepRow>, Error> {
        let sql = "SELECT study, patient, procedure, state, revision, attributes FROM mpps WHERE uid=?1";
        let found = self.prepare_cached(sql)?.query_row([uid], |r| {
            Ok(StepRow {
                study: r.get(0)?,
                patient: r.get(1)?,
                procedure: r.get(2)?,
                state: r.get(3)?,
                revision: r.get(4)?,
                attributes: r.get(5)?,
            })
        });
        Ok(found.optional()?)
    }

    fn steps_of(&self, study: &str) -> Result<Vec<(String, i64)>, Error> {
        let sql = "SELECT procedure, state FROM mpps WHERE study=?1 ORDER BY uid";
        let mut statement = self.prepare_cached(sql)?;
        let found = statement.query_map([study], |r| Ok((r.get(0)?, r.get(1)?)))?;
        Ok(found.collect::<rusqlite::Result<_>>()?)
    }

    fn has_step_of(&self, patient: i64) -> Result<bool, Error> {
        Ok(self.prepare_cached("SELECT 1 FROM mpps WHERE patient=?1 LIMIT 1")?.exists([patient])?)
    }
}

impl WriteStudies for Connection {
    fn add_instance(&self, row: &InstanceEntry<'_>) -> Result<(), Error> {
        let sql = "INSERT INTO instance(sop,superseded,series,study,class,syntax,number,elements,bytes,sha,blob,sub,received)
        VALUES(?1,0,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12)";
        let row = params![
            row.sop,
            row.series,
            row.study,
            row.class,
            row.syntax,
            row.number,
            row.elements,
            row.bytes,
            row.sha256,
            row.blob,
            row.submission,
            row.received,
        ];
        self.prepare_cached(sql)?.execute(row)?;
        Ok(())
    }

    fn supersede_instance(&self, study: &str, series: &str, sop: &str, submission: u64) -> Result<(), Error> {
        let sql =
            "UPDATE instance SET superseded=?4 WHERE study=?1 AND series=?2 AND sop=?3 AND superseded=0";
        self.prepare_cached(sql)?.execute(params![study, series, sop, submission])?;
        Ok(())
    }

    fn put_study_number(&self, value: &str, key: &str) -> Result<(), Error> {
        self.prepare_cached("INSERT OR IGNORE INTO study_number VALUES(?1,?2)")?.execute([value, key])?;
        Ok(())
    }

    fn add_study(
        &self,
        key: &str,
        row: &StudyRow,
        now: i64,
        last_instance: Option<i64>,
    ) -> Result<(), Error> {
        let sql = "INSERT INTO study(uid,patient,acc_system,acc_value,elements,orders,attention,dirty_since,last_instance_at)
        VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9)";
        let (system, value) = row.accession.clone().unzip();
        let row = params![
            key,
            row.patient,
            system,
            value,
            row.elements,
            row.orders,
            row.attention,
            now,
            last_instance
        ];
        self.prepare_cached(sql)?.execute(row)?;
        Ok(())
    }

    fn change_study(
        &self,
        key: &str,
        row: &StudyRow,
        conflicts: u32,
        now: i64,
        last_instance: Option<i64>,
    ) -> Result<(), Error> {
        let sql = "UPDATE study SET patient=?2, acc_system=?3, acc_value=?4, elements=?5, conflicts=conflicts+?6, orders=?9, attention=?10,
        revision=revision+1, dirty_since=coalesce(dirty_since,?7), last_instance_at=coalesce(?8,last_instance_at) WHERE uid=?1";
        let (system, value) = row.accession.clone().unzip();
        let row = params![
            key,
            row.patient,
            system,
            value,
            row.elements,
            conflicts,
            now,
            last_instance,
            row.orders,
            row.attention
        ];
        self.prepare_cached(sql)?.execute(row)?;
        Ok(())
    }

    fn touch_study(&self, key: &str, now: i64, last_instance: Option<i64>) -> Result<(), Error> {
        let sql = "UPDATE study SET revision=revision+1, dirty_since=coalesce(dirty_since,?2), last_instance_at=coalesce(?3,last_instance_at) WHERE uid=?1";
        self.prepare_cached(sql)?.execute(params![key, now, last_instance])?;
        Ok(())
    }

    fn set_published(&self, key: &str, now: i64, rid: Option<i64>) -> Result<(), Error> {
        let sql =
            "UPDATE study SET dirty_since=NULL, published_at=?2, drawn_as=coalesce(?3,drawn_as) WHERE uid=?1";
        self.prepare_cached(sql)?.execute(params![key, now, rid])?;
        Ok(())
    }

    fn remove_study(&self, key: &str) -> Result<(), Error> {
        for sql in [
            "DELETE FROM instance WHERE study=?1",
            "DELETE FROM series WHERE study=?1",
            "DELETE FROM expectation WHERE study=?1",
            "DELETE FROM mpps WHERE study=?1",
            "DELETE FROM study_number WHERE study=?1",
            "DELETE FROM study WHERE uid=?1",
        ] {
            self.prepare_cached(sql)?.execute([key])?;
        }
        Ok(())
    }

    fn put_series(&self, study: &str, uid: &str, number: Option<i64>, elements: &str) -> Result<(), Error> {
        let sql = "INSERT INTO series(study,uid,number,elements) VALUES(?1,?2,?3,?4)
        ON CONFLICT(study,uid) DO UPDATE SET number=?3, elements=?4";
        self.prepare_cached(sql)?.execute(params![study, uid, number, elements])?;
        Ok(())
    }

    fn put_performed_step(&self, uid: &str, row: &StepRow) -> Result<(), Error> {
        let sql = "INSERT OR REPLACE INTO mpps(uid,study,patient,procedure,state,revision,attributes) VALUES(?1,?2,?3,?4,?5,?6,?7)";
        let row =
            params![uid, row.study, row.patient, row.procedure, row.state, row.revision, row.attributes];
        self.prepare_cached(sql)?.execute(row)?;
        Ok(())
    }

    fn clear_expectations(&self, step: &str) -> Result<(), Error> {
        self.prepare_cached("DELETE FROM expectation WHERE mpps=?1")?.execute([step])?;
        Ok(())
    }

    fn put_expectation(
        &self,
        series: &str,
        step: &str,
        study: &str,
        images: Option<i64>,
    ) -> Result<(), Error> {
        let sql = "INSERT OR REPLACE INTO expectation VALUES(?1,?2,?3,?4)";
        self.prepare_cached(sql)?.execute(params![series, step, study, images])?;
        Ok(())
    }
}

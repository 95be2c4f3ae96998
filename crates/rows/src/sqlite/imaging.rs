//! Study, series, instance and step rows.

use rusqlite::{Connection, OptionalExtension, params};

use crate::face::{Studies, WriteStudies};
use crate::row::{Due, InstanceEntry, StudyRow};
use crate::{BlobId, Error, InstanceFile};

impl Studies for Connection {
    fn instance(&self, sop: &str) -> Result<Option<InstanceFile>, Error> {
        instance(self, sop)
    }

    fn study(&self, uid: &str) -> Result<Option<StudyRow>, Error> {
        study(self, uid)
    }

    fn due_studies(&self, due: &Due) -> Result<Vec<String>, Error> {
        due_studies(self, due)
    }

    fn dirty_studies(&self, uid: Option<&str>, max: u32) -> Result<Vec<String>, Error> {
        dirty_studies(self, uid, max)
    }

    fn series(&self, uid: &str) -> Result<Option<String>, Error> {
        series(self, uid)
    }

    fn series_of(&self, study: &str) -> Result<Vec<(String, String)>, Error> {
        series_of(self, study)
    }

    fn instances_of(&self, series: &str) -> Result<Vec<(String, String, String)>, Error> {
        instances_of(self, series)
    }

    fn performed_step(&self, uid: &str) -> Result<Option<(i64, i64, String)>, Error> {
        performed_step(self, uid)
    }
}

impl WriteStudies for Connection {
    fn add_instance(&self, row: &InstanceEntry<'_>) -> Result<(), Error> {
        add_instance(self, row)
    }

    fn supersede_instance(&self, sop: &str, submission: u64) -> Result<(), Error> {
        supersede_instance(self, sop, submission)
    }

    fn add_study(
        &self,
        uid: &str,
        row: &StudyRow,
        now: i64,
        last_instance: Option<i64>,
    ) -> Result<(), Error> {
        add_study(self, uid, row, now, last_instance)
    }

    fn change_study(
        &self,
        uid: &str,
        row: &StudyRow,
        conflicts: u32,
        now: i64,
        last_instance: Option<i64>,
    ) -> Result<(), Error> {
        change_study(self, uid, row, conflicts, now, last_instance)
    }

    fn touch_study(&self, uid: &str, now: i64, last_instance: Option<i64>) -> Result<(), Error> {
        touch_study(self, uid, now, last_instance)
    }

    fn set_procedure(&self, uid: &str, procedure: &str, is_discontinued: bool) -> Result<(), Error> {
        set_procedure(self, uid, procedure, is_discontinued)
    }

    fn set_published(&self, uid: &str, now: i64) -> Result<(), Error> {
        set_published(self, uid, now)
    }

    fn put_series(&self, uid: &str, study: &str, number: Option<i64>, elements: &str) -> Result<(), Error> {
        put_series(self, uid, study, number, elements)
    }

    fn put_performed_step(
        &self,
        uid: &str,
        study: &str,
        state: i64,
        revision: i64,
        attributes: &str,
    ) -> Result<(), Error> {
        put_performed_step(self, uid, study, state, revision, attributes)
    }

    fn put_expectation(
        &self,
        series: &str,
        step: &str,
        study: &str,
        images: Option<i64>,
    ) -> Result<(), Error> {
        put_expectation(self, series, step, study, images)
    }
}

pub(crate) fn instance(connection: &Connection, sop: &str) -> Result<Option<InstanceFile>, Error> {
    let sql = "SELECT blob, syntax, study, sha FROM instance WHERE sop=?1 AND superseded=0";
    let found = connection.prepare_cached(sql)?.query_row([sop], |r| {
        Ok(InstanceFile {
            blob: BlobId(r.get(0)?),
            transfer_syntax: r.get(1)?,
            study_uid: r.get(2)?,
            dataset_sha256: r.get(3)?,
        })
    });
    Ok(found.optional()?)
}

pub(crate) fn add_instance(connection: &Connection, row: &InstanceEntry<'_>) -> Result<(), Error> {
    let sql = "INSERT INTO instance VALUES(?1,0,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12)";
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
    connection.prepare_cached(sql)?.execute(row)?;
    Ok(())
}

pub(crate) fn supersede_instance(connection: &Connection, sop: &str, submission: u64) -> Result<(), Error> {
    let sql = "UPDATE instance SET superseded=?2 WHERE sop=?1 AND superseded=0";
    connection.prepare_cached(sql)?.execute(params![sop, submission])?;
    Ok(())
}

pub(crate) fn study(connection: &Connection, uid: &str) -> Result<Option<StudyRow>, Error> {
    let sql = "SELECT patient, elements, acc_system, acc_value, procedure, discontinued, last_instance_at IS NOT NULL FROM study WHERE uid=?1";
    let found = connection.prepare_cached(sql)?.query_row([uid], |r| {
        Ok(StudyRow {
            patient: r.get(0)?,
            elements: r.get(1)?,
            accession: r.get::<_, Option<String>>(2)?.zip(r.get(3)?),
            procedure: r.get(4)?,
            is_discontinued: r.get(5)?,
            has_instances: r.get(6)?,
        })
    });
    Ok(found.optional()?)
}

pub(crate) fn add_study(
    connection: &Connection,
    uid: &str,
    row: &StudyRow,
    now: i64,
    last_instance: Option<i64>,
) -> Result<(), Error> {
    let sql = "INSERT INTO study(uid,patient,acc_system,acc_value,elements,dirty_since,last_instance_at) VALUES(?1,?2,?3,?4,?5,?6,?7)";
    let (system, value) = row.accession.clone().unzip();
    let row = params![uid, row.patient, system, value, row.elements, now, last_instance];
    connection.prepare_cached(sql)?.execute(row)?;
    Ok(())
}

pub(crate) fn change_study(
    connection: &Connection,
    uid: &str,
    row: &StudyRow,
    conflicts: u32,
    now: i64,
    last_instance: Option<i64>,
) -> Result<(), Error> {
    let sql = "UPDATE study SET patient=?2, acc_system=?3, acc_value=?4, elements=?5, conflicts=conflicts+?6,
        dirty_since=coalesce(dirty_since,?7), last_instance_at=coalesce(?8,last_instance_at) WHERE uid=?1";
    let (system, value) = row.accession.clone().unzip();
    let row = params![uid, row.patient, system, value, row.elements, conflicts, now, last_instance];
    connection.prepare_cached(sql)?.execute(row)?;
    Ok(())
}

pub(crate) fn touch_study(
    connection: &Connection,
    uid: &str,
    now: i64,
    last_instance: Option<i64>,
) -> Result<(), Error> {
    let sql = "UPDATE study SET dirty_since=coalesce(dirty_since,?2), last_instance_at=coalesce(?3,last_instance_at) WHERE uid=?1";
    connection.prepare_cached(sql)?.execute(params![uid, now, last_instance])?;
    Ok(())
}

pub(crate) fn set_procedure(
    connection: &Connection,
    uid: &str,
    procedure: &str,
    is_discontinued: bool,
) -> Result<(), Error> {
    let sql = "UPDATE study SET procedure=?2, discontinued=?3 WHERE uid=?1";
    connection.prepare_cached(sql)?.execute(params![uid, procedure, is_discontinued])?;
    Ok(())
}

pub(crate) fn set_published(connection: &Connection, uid: &str, now: i64) -> Result<(), Error> {
    let sql = "UPDATE study SET dirty_since=NULL, published_at=?2 WHERE uid=?1";
    connection.prepare_cached(sql)?.execute(params![uid, now])?;
    Ok(())
}

pub(crate) fn due_studies(connection: &Connection, due: &Due) -> Result<Vec<String>, Error> {
    let sql = "SELECT uid FROM study WHERE dirty_since IS NOT NULL AND (dirty_since<=?1 OR
        (coalesce(last_instance_at,0)<=?2 AND coalesce(published_at,0)<=?3)) LIMIT ?4";
    let mut statement = connection.prepare_cached(sql)?;
    let row = params![due.dirty_before, due.quiet_before, due.published_before, due.max];
    let found = statement.query_map(row, |r| r.get(0))?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn dirty_studies(
    connection: &Connection,
    uid: Option<&str>,
    max: u32,
) -> Result<Vec<String>, Error> {
    let sql = "SELECT uid FROM study WHERE dirty_since IS NOT NULL AND (?1 IS NULL OR uid=?1) LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_map(params![uid, max], |r| r.get(0))?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn series(connection: &Connection, uid: &str) -> Result<Option<String>, Error> {
    let mut statement = connection.prepare_cached("SELECT elements FROM series WHERE uid=?1")?;
    Ok(statement.query_row([uid], |r| r.get(0)).optional()?)
}

pub(crate) fn put_series(
    connection: &Connection,
    uid: &str,
    study: &str,
    number: Option<i64>,
    elements: &str,
) -> Result<(), Error> {
    let sql = "INSERT INTO series VALUES(?1,?2,?3,?4) ON CONFLICT(uid) DO UPDATE SET number=?3, elements=?4";
    connection.prepare_cached(sql)?.execute(params![uid, study, number, elements])?;
    Ok(())
}

pub(crate) fn series_of(connection: &Connection, study: &str) -> Result<Vec<(String, String)>, Error> {
    let sql = "SELECT uid, elements FROM series WHERE study=?1 ORDER BY number IS NULL, number, uid";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_map([study], |r| Ok((r.get(0)?, r.get(1)?)))?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn instances_of(
    connection: &Connection,
    series: &str,
) -> Result<Vec<(String, String, String)>, Error> {
    let sql = "SELECT sop, class, elements FROM instance WHERE series=?1 AND superseded=0 ORDER BY number IS NULL, number, sop";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_map([series], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
    Ok(found.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn performed_step(
    connection: &Connection,
    uid: &str,
) -> Result<Option<(i64, i64, String)>, Error> {
    let mut statement =
        connection.prepare_cached("SELECT state, revision, attributes FROM mpps WHERE uid=?1")?;
    Ok(statement.query_row([uid], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).optional()?)
}

pub(crate) fn put_performed_step(
    connection: &Connection,
    uid: &str,
    study: &str,
    state: i64,
    revision: i64,
    attributes: &str,
) -> Result<(), Error> {
    let sql = "INSERT OR REPLACE INTO mpps VALUES(?1,?2,?3,?4,?5)";
    connection.prepare_cached(sql)?.execute(params![uid, study, state, revision, attributes])?;
    Ok(())
}

pub(crate) fn put_expectation(
    connection: &Connection,
    series: &str,
    step: &str,
    study: &str,
    images: Option<i64>,
) -> Result<(), Error> {
    let sql = "INSERT OR REPLACE INTO expectation VALUES(?1,?2,?3,?4)";
    connection.prepare_cached(sql)?.execute(params![series, step, study, images])?;
    Ok(())
}

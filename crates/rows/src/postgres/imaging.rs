//! Study, series, instance and step rows.

use super::session::Session;
use super::values::{clean, digest};
use crate::face::{Studies, WriteStudies};
use crate::row::{Due, InstanceEntry, StudyRow};
use crate::{BlobId, Error, InstanceFile};

impl Studies for Session {
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

impl WriteStudies for Session {
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

pub(crate) fn instance(session: &Session, sop: &str) -> Result<Option<InstanceFile>, Error> {
    // "+0": by the primary key, not by the index of current images
    let sql = "SELECT blob, syntax, study, sha FROM instance WHERE site=$1 AND sop=$2 AND superseded+0=0";
    let row = session.row(sql, &[&clean(sop)])?;
    row.map(|row| {
        Ok(InstanceFile {
            blob: BlobId(digest(row.get(0))?),
            transfer_syntax: row.get(1),
            study_uid: row.get(2),
            dataset_sha256: digest(row.get(3))?,
        })
    })
    .transpose()
}

pub(crate) fn add_instance(session: &Session, row: &InstanceEntry<'_>) -> Result<(), Error> {
    let sql = "INSERT INTO instance(site,sop,series,study,class,syntax,number,elements,bytes,sha,blob,sub,received) VALUES($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13)";
    session.gather(
        sql,
        vec![
            Box::new(clean(row.sop)),
            Box::new(clean(row.series)),
            Box::new(clean(row.study)),
            Box::new(clean(row.class)),
            Box::new(clean(row.syntax)),
            Box::new(row.number),
            Box::new(row.elements.clone()),
            Box::new(row.bytes.cast_signed()),
            Box::new(row.sha256.to_vec()),
            Box::new(row.blob.to_vec()),
            Box::new(row.submission.cast_signed()),
            Box::new(row.received),
        ],
    );
    Ok(())
}

pub(crate) fn supersede_instance(session: &Session, sop: &str, submission: u64) -> Result<(), Error> {
    let sql = "UPDATE instance SET superseded=$3 WHERE site=$1 AND sop=$2 AND superseded+0=0";
    session.gather(sql, vec![Box::new(clean(sop)), Box::new(submission.cast_signed())]);
    Ok(())
}

pub(crate) fn study(session: &Session, uid: &str) -> Result<Option<StudyRow>, Error> {
    let sql = "SELECT patient, elements, acc_system, acc_value, procedure, discontinued, last_instance_at IS NOT NULL FROM study WHERE site=$1 AND uid=$2";
    let row = session.row(sql, &[&clean(uid)])?;
    Ok(row.map(|row| StudyRow {
        patient: row.get(0),
        elements: row.get(1),
        accession: row.get::<_, Option<String>>(2).zip(row.get(3)),
        procedure: row.get(4),
        is_discontinued: row.get(5),
        has_instances: row.get(6),
    }))
}

pub(crate) fn add_study(
    session: &Session,
    uid: &str,
    row: &StudyRow,
    now: i64,
    last_instance: Option<i64>,
) -> Result<(), Error> {
    let sql = "INSERT INTO study(site,uid,patient,acc_system,acc_value,elements,dirty_since,last_instance_at) VALUES($1,$2,$3,$4,$5,$6,$7,$8)";
    let (system, value) = row.accession.as_ref().map(|(s, v)| (clean(s), clean(v))).unzip();
    session.gather(
        sql,
        vec![
            Box::new(clean(uid)),
            Box::new(row.patient),
            Box::new(system),
            Box::new(value),
            Box::new(row.elements.clone()),
            Box::new(now),
            Box::new(last_instance),
        ],
    );
    Ok(())
}

pub(crate) fn change_study(
    session: &Session,
    uid: &str,
    row: &StudyRow,
    conflicts: u32,
    now: i64,
    last_instance: Option<i64>,
) -> Result<(), Error> {
    let sql = "UPDATE study SET patient=$3, acc_system=$4, acc_value=$5, elements=$6, conflicts=conflicts+$7::bigint,
        dirty_since=coalesce(dirty_since,$8), last_instance_at=coalesce($9,last_instance_at) WHERE site=$1 AND uid=$2";
    let (system, value) = row.accession.as_ref().map(|(s, v)| (clean(s), clean(v))).unzip();
    session.gather(
        sql,
        vec![
            Box::new(clean(uid)),
            Box::new(row.patient),
            Box::new(system),
            Box::new(value),
            Box::new(row.elements.clone()),
            Box::new(i64::from(conflicts)),
            Box::new(now),
            Box::new(last_instance),
        ],
    );
    Ok(())
}

pub(crate) fn touch_study(
    session: &Session,
    uid: &str,
    now: i64,
    last_instance: Option<i64>,
) -> Result<(), Error> {
    let sql = "UPDATE study SET dirty_since=coalesce(dirty_since,$3), last_instance_at=coalesce($4,last_instance_at) WHERE site=$1 AND uid=$2";
    session.gather(sql, vec![Box::new(clean(uid)), Box::new(now), Box::new(last_instance)]);
    Ok(())
}

pub(crate) fn set_procedure(
    session: &Session,
    uid: &str,
    procedure: &str,
    is_discontinued: bool,
) -> Result<(), Error> {
    let sql = "UPDATE study SET procedure=$3, discontinued=$4 WHERE site=$1 AND uid=$2";
    session.gather(sql, vec![Box::new(clean(uid)), Box::new(clean(procedure)), Box::new(is_discontinued)]);
    Ok(())
}

pub(crate) fn set_published(session: &Session, uid: &str, now: i64) -> Result<(), Error> {
    let sql = "UPDATE study SET dirty_since=NULL, published_at=$3 WHERE site=$1 AND uid=$2";
    session.gather(sql, vec![Box::new(clean(uid)), Box::new(now)]);
    Ok(())
}

pub(crate) fn due_studies(session: &Session, due: &Due) -> Result<Vec<String>, Error> {
    let sql = "SELECT uid FROM study WHERE site=$1 AND dirty_since IS NOT NULL AND (dirty_since<=$2 OR
        (coalesce(last_instance_at,0)<=$3 AND coalesce(published_at,0)<=$4)) LIMIT $5";
    let rows = session.rows(sql, &[&due.dirty_before, &due.quiet_before, &due.published_before, &due.max])?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

pub(crate) fn dirty_studies(session: &Session, uid: Option<&str>, max: u32) -> Result<Vec<String>, Error> {
    let sql = "SELECT uid FROM study WHERE site=$1 AND dirty_since IS NOT NULL AND ($2::text IS NULL OR uid=$2) LIMIT $3";
    let rows = session.rows(sql, &[&uid.map(clean), &i64::from(max)])?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

pub(crate) fn series(session: &Session, uid: &str) -> Result<Option<String>, Error> {
    let row = session.row("SELECT elements FROM series WHERE site=$1 AND uid=$2", &[&clean(uid)])?;
    Ok(row.map(|row| row.get(0)))
}

pub(crate) fn put_series(
    session: &Session,
    uid: &str,
    study: &str,
    number: Option<i64>,
    elements: &str,
) -> Result<(), Error> {
    let sql = "INSERT INTO series(site,uid,study,number,elements) VALUES($1,$2,$3,$4,$5)
        ON CONFLICT(site,uid) DO UPDATE SET number=excluded.number, elements=excluded.elements";
    session.gather(
        sql,
        vec![Box::new(clean(uid)), Box::new(clean(study)), Box::new(number), Box::new(elements.to_owned())],
    );
    Ok(())
}

pub(crate) fn series_of(session: &Session, study: &str) -> Result<Vec<(String, String)>, Error> {
    let sql = "SELECT uid, elements FROM series WHERE site=$1 AND study=$2 ORDER BY number NULLS LAST, uid";
    let rows = session.rows(sql, &[&clean(study)])?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

pub(crate) fn instances_of(session: &Session, series: &str) -> Result<Vec<(String, String, String)>, Error> {
    let sql = "SELECT sop, class, elements FROM instance WHERE site=$1 AND series=$2 AND superseded=0 ORDER BY number NULLS LAST, sop";
    let rows = session.rows(sql, &[&clean(series)])?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

pub(crate) fn performed_step(session: &Session, uid: &str) -> Result<Option<(i64, i64, String)>, Error> {
    let sql = "SELECT state::bigint, revision, attributes FROM mpps WHERE site=$1 AND uid=$2";
    let row = session.row(sql, &[&clean(uid)])?;
    Ok(row.map(|row| (row.get(0), row.get(1), row.get(2))))
}

pub(crate) fn put_performed_step(
    session: &Session,
    uid: &str,
    study: &str,
    state: i64,
    revision: i64,
    attributes: &str,
) -> Result<(), Error> {
    let sql = "INSERT INTO mpps(site,uid,study,state,revision,attributes) VALUES($1,$2,$3,$4::bigint,$5,$6)
        ON CONFLICT(site,uid) DO UPDATE SET study=excluded.study, state=excluded.state, revision=excluded.revision, attributes=excluded.attributes";
    session.gather(
        sql,
        vec![
            Box::new(clean(uid)),
            Box::new(clean(study)),
            Box::new(state),
            Box::new(revision),
            Box::new(attributes.to_owned()),
        ],
    );
    Ok(())
}

pub(crate) fn put_expectation(
    session: &Session,
    series: &str,
    step: &str,
    study: &str,
    images: Option<i64>,
) -> Result<(), Error> {
    let sql = "INSERT INTO expectation(site,series,mpps,study,images) VALUES($1,$2,$3,$4,$5)
        ON CONFLICT(site,series,mpps) DO UPDATE SET study=excluded.study, images=excluded.images";
    session.gather(
        sql,
        vec![Box::new(clean(series)), Box::new(clean(step)), Box::new(clean(study)), Box::new(images)],
    );
    Ok(())
}

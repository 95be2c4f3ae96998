//! Study, series, instance and step rows.

use tokio_postgres::Row;

use super::session::Session;
use super::values::{clean, digest};
use crate::face::{Studies, WriteStudies};
use crate::row::{Due, InstanceEntry, InstancePlace, StepRow, StudyRow, study_uid};
use crate::{BlobId, Error, InstanceFile};

/// The columns of a study.
macro_rules! study_columns {
    () => {
        "uid, patient, elements, acc_system, acc_value, orders, attention, last_instance_at IS NOT NULL, drawn_as, published_at, revision, dirty_since IS NOT NULL"
    };
}

fn study_at(row: &Row) -> (String, StudyRow) {
    let study = StudyRow {
        patient: row.get(1),
        elements: row.get(2),
        accession: row.get::<_, Option<String>>(3).zip(row.get(4)),
        orders: row.get(5),
        attention: row.get(6),
        has_instances: row.get(7),
        drawn_as: row.get(8),
        published: row.get(9),
        revision: row.get(10),
        is_dirty: row.get(11),
    };
    (row.get(0), study)
}

fn keys(rows: &[Row]) -> Vec<String> {
    rows.iter().map(|row| row.get(0)).collect()
}

fn number(max: usize) -> i64 {
    i64::try_from(max).unwrap_or(i64::MAX)
}

impl Studies for Session {
    fn instances_with(&self, sop: &str) -> Result<Vec<InstancePlace>, Error> {
        let sql = "SELECT study, series, blob, syntax, sha FROM instance WHERE site=$1 AND sop=$2 AND superseded=0 ORDER BY study, series";
        let place = |row: &Row| {
            let study: String = row.get(0);
            let file = InstanceFile {
                blob: BlobId(digest(row.get(2))?),
                transfer_syntax: row.get(3),
                study_uid: study_uid(&study).to_owned(),
                dataset_sha256: digest(row.get(4))?,
            };
            Ok(InstancePlace { study, series: row.get(1), file })
        };
        self.rows(sql, &[&clean(sop)])?.iter().map(place).collect()
    }

    fn study(&self, key: &str) -> Result<Option<StudyRow>, Error> {
        let sql = concat!("SELECT ", study_columns!(), " FROM study WHERE site=$1 AND uid=$2");
        Ok(self.row(sql, &[&clean(key)])?.map(|row| study_at(&row).1))
    }

    fn studies_with(&self, uid: &str) -> Result<Vec<(String, StudyRow)>, Error> {
        // "@" and the first character after it bound the keys of further patients; in one condition all studies of the site would be walked
        let sql = concat!(
            "SELECT ",
            study_columns!(),
            " FROM study WHERE site=$1 AND uid=$2 UNION ALL SELECT ",
            study_columns!(),
            " FROM study WHERE site=$1 AND uid>$3 AND uid<$4 ORDER BY 1"
        );
        let uid = clean(uid);
        let (from, to) = (format!("{uid}@"), format!("{uid}A"));
        Ok(self.rows(sql, &[&uid, &from, &to])?.iter().map(study_at).collect())
    }

    fn study_drawn_as(&self, rid: i64) -> Result<Option<String>, Error> {
        let sql = "SELECT uid FROM study WHERE site=$1 AND drawn_as=$2 LIMIT 1";
        Ok(self.row(sql, &[&rid])?.map(|row| row.get(0)))
    }

    fn studies_of_patient(&self, rid: i64, max: usize) -> Result<Vec<String>, Error> {
        let sql = "SELECT uid FROM study WHERE site=$1 AND patient=$2 ORDER BY uid LIMIT $3";
        Ok(keys(&self.rows(sql, &[&rid, &number(max)])?))
    }

    fn studies_with_number(&self, value: &str, max: usize) -> Result<Vec<String>, Error> {
        let sql = "SELECT study FROM study_number WHERE site=$1 AND value=$2 ORDER BY study LIMIT $3";
        Ok(keys(&self.rows(sql, &[&clean(value), &number(max)])?))
    }

    fn due_studies(&self, due: &Due) -> Result<Vec<String>, Error> {
        let sql = "SELECT uid FROM study WHERE site=$1 AND dirty_since IS NOT NULL AND (dirty_since<=$2 OR
        (coalesce(last_instance_at,0)<=$3 AND coalesce(published_at,0)<=$4)) LIMIT $5";
        Ok(keys(&self.rows(sql, &[&due.dirty_before, &due.quiet_before, &due.published_before, &due.max])?))
    }

    fn dirty_studies(&self, max: u32) -> Result<Vec<String>, Error> {
        let sql = "SELECT uid FROM study WHERE site=$1 AND dirty_since IS NOT NULL LIMIT $2";
        Ok(keys(&self.rows(sql, &[&i64::from(max)])?))
    }

    fn blobs_of_study(&self, key: &str) -> Result<Vec<BlobId>, Error> {
        let sql = "SELECT DISTINCT blob FROM instance WHERE site=$1 AND study=$2";
        self.rows(sql, &[&clean(key)])?.iter().map(|row| Ok(BlobId(digest(row.get(0))?))).collect()
    }

    fn series(&self, study: &str, uid: &str) -> Result<Option<String>, Error> {
        let sql = "SELECT elements FROM series WHERE site=$1 AND study=$2 AND uid=$3";
        Ok(self.row(sql, &[&clean(study), &clean(uid)])?.map(|row| row.get(0)))
    }

    fn series_of(&self, study: &str) -> Result<Vec<(String, String)>, Error> {
        let sql = "SELECT uid, elements FROM series s WHERE site=$1 AND study=$2 AND
        (EXISTS (SELECT 1 FROM instance i WHERE i.site=$1 AND i.study=$2 AND i.series=s.uid AND i.superseded+0=0)
         OR EXISTS (SELECT 1 FROM expectation e WHERE e.site=$1 AND e.series=s.uid AND e.study=$2))
        ORDER BY number NULLS LAST, uid";
        let rows = self.rows(sql, &[&clean(study)])?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    fn instances_of(&self, study: &str, series: &str) -> Result<Vec<(String, String, String)>, Error> {
        let sql = "SELECT sop, class, elements FROM instance WHERE site=$1 AND study=$2 AND series=$3 AND superseded+0=0 ORDER BY number NULLS LAST, sop";
        let rows = self.rows(sql, &[&clean(study), &clean(series)])?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
    }

    fn performed_step(&self, uid: &str) -> Result<Option<StepRow>, Error> {
        let sql = "SELECT study, patient, procedure, state::bigint, revision, attributes FROM mpps WHERE site=$1 AND uid=$2";
        let row = self.row(sql, &[&clean(uid)])?;
        Ok(row.map(|row| StepRow {
            study: row.get(0),
            patient: row.get(1),
            procedure: row.get(2),
            state: row.get(3),
            revision: row.get(4),
            attributes: row.get(5),
        }))
    }

    fn steps_of(&self, study: &str) -> Result<Vec<(String, i64)>, Error> {
        let sql = "SELECT procedure, state::bigint FROM mpps WHERE site=$1 AND study=$2 ORDER BY uid";
        let rows = self.rows(sql, &[&clean(study)])?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    fn has_step_of(&self, patient: i64) -> Result<bool, Error> {
        let sql = "SELECT 1 FROM mpps WHERE site=$1 AND patient=$2 LIMIT 1";
        Ok(self.row(sql, &[&patient])?.is_some())
    }
}

impl WriteStudies for Session {
    fn add_instance(&self, row: &InstanceEntry<'_>) -> Result<(), Error> {
        let sql = "INSERT INTO instance(site,sop,series,study,class,syntax,number,elements,bytes,sha,blob,sub,received) VALUES($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13)";
        self.gather(
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

    fn supersede_instance(&self, study: &str, series: &str, sop: &str, submission: u64) -> Result<(), Error> {
        // "+0": by the primary key, not by the index of current images
        let sql = "UPDATE instance SET superseded=$5 WHERE site=$1 AND study=$2 AND series=$3 AND sop=$4 AND superseded+0=0";
        self.gather(
            sql,
            vec![
                Box::new(clean(study)),
                Box::new(clean(series)),
                Box::new(clean(sop)),
                Box::new(submission.cast_signed()),
            ],
        );
        Ok(())
    }

    fn put_study_number(&self, value: &str, key: &str) -> Result<(), Error> {
        let sql = "INSERT INTO study_number(site,value,study) VALUES($1,$2,$3) ON CONFLICT DO NOTHING";
        self.gather(sql, vec![Box::new(clean(value)), Box::new(clean(key))]);
        Ok(())
    }

    fn add_study(
        &self,
        key: &str,
        row: &StudyRow,
        now: i64,
        last_instance: Option<i64>,
    ) -> Result<(), Error> {
        let sql = "INSERT INTO study(site,uid,patient,acc_system,acc_value,elements,orders,attention,dirty_since,last_instance_at)
        VALUES($1,$2,$3,$4,$5,$6,$7,$8,$9,$10)";
        let (system, value) = row.accession.as_ref().map(|(s, v)| (clean(s), clean(v))).unzip();
        self.gather(
            sql,
            vec![
                Box::new(clean(key)),
                Box::new(row.patient),
                Box::new(system),
                Box::new(value),
                Box::new(row.elements.clone()),
                Box::new(row.orders.clone()),
                Box::new(row.attention),
                Box::new(now),
                Box::new(last_instance),
            ],
        );
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
        let sql = "UPDATE study SET patient=$3, acc_system=$4, acc_value=$5, elements=$6, conflicts=conflicts+$7::bigint, orders=$10, attention=$11,
        revision=revision+1, dirty_since=coalesce(dirty_since,$8), last_instance_at=coalesce($9,last_instance_at) WHERE site=$1 AND uid=$2";
        let (system, value) = row.accession.as_ref().map(|(s, v)| (clean(s), clean(v))).unzip();
        self.gather(
            sql,
            vec![
                Box::new(clean(key)),
                Box::new(row.patient),
                Box::new(system),
                Box::new(value),
                Box::new(row.elements.clone()),
                Box::new(i64::from(conflicts)),
                Box::new(now),
                Box::new(last_instance),
                Box::new(row.orders.clone()),
                Box::new(row.attention),
            ],
        );
        Ok(())
    }

    fn touch_study(&self, key: &str, now: i64, last_instance: Option<i64>) -> Result<(), Error> {
        let sql = "UPDATE study SET revision=revision+1, dirty_since=coalesce(dirty_since,$3), last_instance_at=coalesce($4,last_instance_at) WHERE site=$1 AND uid=$2";
        self.gather(sql, vec![Box::new(clean(key)), Box::new(now), Box::new(last_instance)]);
        Ok(())
    }

    fn set_published(&self, key: &str, now: i64, rid: Option<i64>) -> Result<(), Error> {
        let sql = "UPDATE study SET dirty_since=NULL, published_at=$3, drawn_as=coalesce($4,drawn_as) WHERE site=$1 AND uid=$2";
        self.gather(sql, vec![Box::new(clean(key)), Box::new(now), Box::new(rid)]);
        Ok(())
    }

    fn remove_study(&self, key: &str) -> Result<(), Error> {
        for sql in [
            "DELETE FROM instance WHERE site=$1 AND study=$2",
            "DELETE FROM series WHERE site=$1 AND study=$2",
            "DELETE FROM expectation WHERE site=$1 AND study=$2",
            "DELETE FROM mpps WHERE site=$1 AND study=$2",
            "DELETE FROM study_number WHERE site=$1 AND study=$2",
            "DELETE FROM study WHERE site=$1 AND uid=$2",
        ] {
            self.gather(sql, vec![Box::new(clean(key))]);
        }
        Ok(())
    }

    fn put_series(&self, study: &str, uid: &str, number: Option<i64>, elements: &str) -> Result<(), Error> {
        let sql = "INSERT INTO series(site,study,uid,number,elements) VALUES($1,$2,$3,$4,$5)
        ON CONFLICT(site,study,uid) DO UPDATE SET number=excluded.number, elements=excluded.elements";
        self.gather(
            sql,
            vec![
                Box::new(clean(study)),
                Box::new(clean(uid)),
                Box::new(number),
                Box::new(elements.to_owned()),
            ],
        );
        Ok(())
    }

    fn put_performed_step(&self, uid: &str, row: &StepRow) -> Result<(), Error> {
        let sql = "INSERT INTO mpps(site,uid,study,patient,procedure,state,revision,attributes) VALUES($1,$2,$3,$4,$5,$6::bigint,$7,$8)
        ON CONFLICT(site,uid) DO UPDATE SET study=excluded.study, patient=excluded.patient, procedure=excluded.procedure,
        state=excluded.state, revision=excluded.revision, attributes=excluded.attributes";
        self.gather(
            sql,
            vec![
                Box::new(clean(uid)),
                Box::new(clean(&row.study)),
                Box::new(row.patient),
                Box::new(clean(&row.procedure)),
                Box::new(row.state),
                Box::new(row.revision),
                Box::new(row.attributes.clone()),
            ],
        );
        Ok(())
    }

    fn clear_expectations(&self, step: &str) -> Result<(), Error> {
        let sql = "DELETE FROM expectation WHERE site=$1 AND mpps=$2";
        self.gather(sql, vec![Box::new(clean(step))]);
        Ok(())
    }

    fn put_expectation(
        &self,
        series: &str,
        step: &str,
        study: &str,
        images: Option<i64>,
    ) -> Result<(), Error> {
        let sql = "INSERT INTO expectation(site,series,mpps,study,images) VALUES($1,$2,$3,$4,$5)
        ON CONFLICT(site,series,mpps) DO UPDATE SET study=excluded.study, images=excluded.images";
        self.gather(
            sql,
            vec![Box::new(clean(series)), Box::new(clean(step)), Box::new(clean(study)), Box::new(images)],
        );
        Ok(())
    }
}

//! Whether everything is as it should be: rows against rows, index against bodies, blobs against rows. Works beside a running edge, in one
//! snapshot a site; the index can be made again when no edge runs.

use std::fs::File;
use std::path::Path;

use hilum_fhir::ResourceType;
use jiff::tz::TimeZone;
use rusqlite::{Connection, OptionalExtension, params};

use super::backup::{of_files, referred, site_ids};
use super::{migrate, writer};
use crate::blobs::S3;
use crate::blobs::disk::{is_intact, path_in};
use crate::control::{CONTROL_FILE, Control};
use crate::db::Db;
use crate::{Config, Error, lookup};

/// Findings told one by one; more of a kind are only counted.
const TOLD_MAX: usize = 20;

/// What is checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checks {
    /// Read every blob that is a file and compare it with its name, not only look whether it is there.
    pub deep: bool,
    /// Make the index of every site again from the bodies first. No edge may run.
    pub rebuild: bool,
}

/// What was found of a site.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// The site.
    pub site: String,
    /// Resources looked at.
    pub resources: u64,
    /// Versions looked at.
    pub versions: u64,
    /// Blobs looked at.
    pub blobs: u64,
    /// What is wrong, in words. Empty = nothing.
    pub faults: Vec<String>,
    /// Faults beyond those told.
    pub more: u64,
}

impl Findings {
    fn wrong(&mut self, text: String) {
        if self.faults.len() < TOLD_MAX { self.faults.push(text) } else { self.more += 1 }
    }
}

/// Checks every site below the data folder.
///
/// # Errors
/// `Unavailable` when a database cannot be read at all, or `rebuild` is asked for while an edge runs.
pub fn fsck(config: &Config, checks: Checks) -> Result<Vec<Findings>, Error> {
    of_files(config, "fsck")?;
    let _lock = if checks.rebuild { Some(crate::lock(config)?) } else { None };
    if !config.data_dir.join(CONTROL_FILE).exists() {
        return Err(Error::unavailable(format!("there is no store in {}", config.data_dir.display())));
    }
    let control = Control::open(&config.data_dir)?;
    let bucket = match &config.bucket {
        None => None,
        Some(of) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Some((runtime, S3::connect(of)?, of))
        }
    };
    let mut all = Vec::new();
    for id in site_ids(&config.data_dir)? {
        let zone =
            control.sites()?.iter().find(|site| site.id() == id).map(|s| s.settings().timezone.clone());
        let zone = zone.and_then(|name| TimeZone::get(&name).ok()).unwrap_or(TimeZone::UTC);
        let dir = config.data_dir.join("sites").join(&id);
        let connection = writer::open(&dir.join("site.db"), config.cache_bytes)?;
        if checks.rebuild {
            migrate::migrate(&connection, &zone)?;
            connection.execute_batch("BEGIN IMMEDIATE")?;
            migrate::reindex(&connection, &zone)?;
            connection.execute_batch("COMMIT")?;
        }
        migrate::refuse_other(&connection)?;
        connection.execute_batch("BEGIN")?;
        let mut findings = Findings { site: id, ..Findings::default() };
        check_pages(&connection, &mut findings)?;
        check_resources(&connection, &zone, &mut findings)?;
        check_rows(&connection, &mut findings)?;
        match &bucket {
            None => check_files(&connection, &dir, checks.deep, &mut findings)?,
            Some((runtime, bucket, of)) => {
                let s3 = S3::of_site(bucket.clone(), &of.prefix, &findings.site);
                for blob in referred(&connection)? {
                    findings.blobs += 1;
                    if runtime.block_on(s3.bytes(&blob))?.is_none() {
                        findings.wrong(format!("blob {}: missing in the bucket", blob.hex()));
                    }
                }
            }
        }
        connection.execute_batch("COMMIT")?;
        all.push(findings);
    }
    Ok(all)
}

fn check_pages(connection: &Connection, findings: &mut Findings) -> Result<(), Error> {
    let mut statement = connection.prepare("PRAGMA integrity_check(20)")?;
    let lines: Vec<String> = statement.query_map([], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?;
    lines
        .into_iter()
        .filter(|line| line != "ok")
        .for_each(|line| findings.wrong(format!("database: {line}")));
    Ok(())
}

/// Every resource can be read, and the index is what its body says.
fn check_resources(connection: &Connection, zone: &TimeZone, findings: &mut Findings) -> Result<(), Error> {
    connection.execute_batch(
        "CREATE TEMP TABLE due(key INT, sys INT, ord INT, rid INT);
         CREATE TEMP TABLE due_str(key INT, val TEXT, rid INT);
         CREATE TEMP TABLE due_range(key INT, lo INT, hi INT, rid INT);",
    )?;
    let mut heads = connection.prepare("SELECT rt, fid, rid, ord FROM head WHERE deleted=0")?;
    let mut rows = heads.query([])?;
    while let Some(row) = rows.next()? {
        let (rid, ord): (i64, i64) = (row.get(2)?, row.get(3)?);
        findings.resources += 1;
        let base = match ResourceType::from_number(row.get(0)?) {
            Some(of) => lookup::base(Db::Sqlite(connection), of, &row.get::<_, String>(1)?, zone),
            None => Err(Error::unavailable("unknown type")),
        };
        match base {
            Ok(Some(base)) if base.resource.is_some() => {
                for key in &base.rows.keys {
                    let sql = "INSERT INTO due VALUES(?1,?2,?3,?4)";
                    connection.prepare_cached(sql)?.execute(params![key.value, key.system, ord, rid])?;
                }
                for (key, text) in &base.rows.strings {
                    let sql = "INSERT INTO due_str VALUES(?1,?2,?3)";
                    connection.prepare_cached(sql)?.execute(params![key, text, rid])?;
                }
                for (key, low, high) in &base.rows.ranges {
                    let sql = "INSERT INTO due_range VALUES(?1,?2,?3,?4)";
                    connection.prepare_cached(sql)?.execute(params![key, low, high, rid])?;
                }
            }
            Ok(_) => findings.wrong(format!("resource {rid}: its current version has no body")),
            Err(error) => findings.wrong(format!("resource {rid}: {}", error.message)),
        }
    }
    for (table, due) in [("ix", "due"), ("ix_str", "due_str"), ("ix_range", "due_range")] {
        for (left, right, what) in [(table, due, "has rows that no body gives"), (due, table, "lacks rows")] {
            let sql = format!("SELECT count(*) FROM (SELECT * FROM {left} EXCEPT SELECT * FROM {right})");
            let count: i64 = connection.query_row(&sql, [], |r| r.get(0))?;
            if count > 0 {
                findings
                    .wrong(format!("index {table} {what} ({count}); `hilum fsck --rebuild` makes it again"));
            }
        }
    }
    connection.execute_batch("DROP TABLE due; DROP TABLE due_str; DROP TABLE due_range;")?;
    Ok(())
}

/// Rows that refer to other rows find them.
fn check_rows(connection: &Connection, findings: &mut Findings) -> Result<(), Error> {
    findings.versions =
        connection.query_row("SELECT count(*) FROM version", [], |r| r.get::<_, i64>(0))?.cast_unsigned();
    for (what, sql) in [
        (
            "resources without their current version",
            "SELECT count(*) FROM head h LEFT JOIN version v ON v.vid=h.vid AND v.rid=h.rid AND v.ver=h.ver WHERE v.vid IS NULL",
        ),
        (
            "versions without a resource",
            "SELECT count(*) FROM version v LEFT JOIN head h ON h.rid=v.rid WHERE h.rid IS NULL",
        ),
        (
            "duplicate keys without a submission",
            "SELECT count(*) FROM dedupe d LEFT JOIN submission s ON s.seq=d.seq WHERE s.seq IS NULL",
        ),
        (
            "instances without a series or study",
            "SELECT count(*) FROM instance i LEFT JOIN series s ON s.uid=i.series LEFT JOIN study t ON t.uid=i.study WHERE s.uid IS NULL OR t.uid IS NULL",
        ),
    ] {
        let count: i64 = connection.query_row(sql, [], |r| r.get(0))?;
        if count > 0 {
            findings.wrong(format!("{count} {what}"));
        }
    }
    Ok(())
}

/// Every blob that a row refers to is there; with `deep` its bytes are what was received.
fn check_files(
    connection: &Connection,
    dir: &Path,
    deep: bool,
    findings: &mut Findings,
) -> Result<(), Error> {
    let blobs = dir.join("blobs");
    for blob in referred(connection)? {
        findings.blobs += 1;
        let Ok(mut file) = File::open(path_in(&blobs, &blob)) else {
            findings.wrong(format!("blob {}: missing", blob.hex()));
            continue;
        };
        if deep {
            let sql = "SELECT bytes FROM instance WHERE blob=?1 LIMIT 1";
            let body_bytes: Option<i64> =
                connection.prepare_cached(sql)?.query_row([blob.0], |r| r.get(0)).optional()?;
            if !is_intact(&mut file, &blob, body_bytes.map(i64::cast_unsigned))? {
                findings.wrong(format!("blob {}: its bytes are not those its name stands for", blob.hex()));
            }
        }
    }
    Ok(())
}

//! What is checked of files; see [`crate::check`].

use std::collections::HashMap;

use hilum_fhir::ResourceType;
use jiff::tz::TimeZone;
use rusqlite::{Connection, params};

use super::control::ControlFile;
use super::files::{CONTROL_FILE, SITE_FILE, SITES, site_ids};
use super::{migrate, writer};
use crate::check::{Checks, DANGLING, Findings, INDEX, REFERRED, Shelf};
use crate::control::{ControlRows, zone_of};
use crate::{BlobId, Config, Error, folder};

pub(crate) fn fsck(config: &Config, checks: Checks, shelf: &dyn Shelf) -> Result<Vec<Findings>, Error> {
    let _lock = if checks.rebuild { Some(folder::lock(&config.data_dir)?) } else { None };
    if !config.data_dir.join(CONTROL_FILE).exists() {
        return Err(Error::unavailable(format!("there is no store in {}", config.data_dir.display())));
    }
    let settings = ControlFile::open(&config.data_dir)?.kept()?.sites;
    let zones: HashMap<String, TimeZone> = settings.iter().filter_map(|text| zone_of(text)).collect();
    let mut all = Vec::new();
    for id in site_ids(&config.data_dir)? {
        let zone = zones.get(&id).cloned().unwrap_or(TimeZone::UTC);
        let dir = config.data_dir.join(SITES).join(&id);
        let connection = writer::open(&dir.join(SITE_FILE), config.cache_bytes)?;
        if checks.rebuild {
            migrate::migrate(&connection, &id, &zone)?;
            connection.execute_batch("BEGIN IMMEDIATE")?;
            migrate::reindex(&connection, &zone)?;
            connection.execute_batch("COMMIT")?;
        }
        migrate::refuse_other(&connection)?;
        connection.execute_batch("BEGIN")?;
        let mut findings = Findings::of(id);
        check_pages(&connection, &mut findings)?;
        check_resources(&connection, &zone, &mut findings)?;
        check_rows(&connection, &mut findings)?;
        check_counters(&connection, &mut findings)?;
        shelf.check(&referred(&connection)?, checks.deep, &mut findings)?;
        connection.execute_batch("COMMIT")?;
        all.push(findings);
    }
    Ok(all)
}

/// No number is beyond those that were given, or it would be given again.
fn check_counters(connection: &Connection, findings: &mut Findings) -> Result<(), Error> {
    let given = super::rows::counters(connection)?;
    for (what, given, sql) in [
        ("resources", given.rid, "SELECT coalesce(max(rid),0) FROM head"),
        ("versions", given.vid.cast_signed(), "SELECT coalesce(max(vid),0) FROM version"),
        ("submissions", given.seq.cast_signed(), "SELECT coalesce(max(seq),0) FROM submission"),
    ] {
        let found: i64 = connection.query_row(sql, [], |r| r.get(0))?;
        if found > given {
            findings.wrong(format!("the counter of {what} says {given} and there is number {found}"));
        }
    }
    Ok(())
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
    let mut heads = connection.prepare("SELECT rt, rid, ord FROM head WHERE deleted=0")?;
    let mut rows = heads.query([])?;
    while let Some(row) = rows.next()? {
        let (rid, ord): (i64, i64) = (row.get(1)?, row.get(2)?);
        findings.resources += 1;
        let index = match ResourceType::from_number(row.get(0)?) {
            Some(_) => migrate::current_index(connection, rid, zone),
            None => Err(Error::unavailable("unknown type")),
        };
        match index {
            Ok(Some(due)) => {
                for key in &due.keys {
                    let sql = "INSERT INTO due VALUES(?1,?2,?3,?4)";
                    connection.prepare_cached(sql)?.execute(params![key.value, key.system, ord, rid])?;
                }
                for (key, text) in &due.strings {
                    let sql = "INSERT INTO due_str VALUES(?1,?2,?3)";
                    connection.prepare_cached(sql)?.execute(params![key, text, rid])?;
                }
                for (key, low, high) in &due.ranges {
                    let sql = "INSERT INTO due_range VALUES(?1,?2,?3,?4)";
                    connection.prepare_cached(sql)?.execute(params![key, low, high, rid])?;
                }
            }
            Ok(_) => findings.wrong(format!("resource {rid}: its current version has no body")),
            Err(error) => findings.wrong(format!("resource {rid}: {}", error.message)),
        }
    }
    for (table, due, _) in INDEX {
        let count = |left: &str, right: &str| -> rusqlite::Result<i64> {
            let sql = format!("SELECT count(*) FROM (SELECT * FROM {left} EXCEPT SELECT * FROM {right})");
            connection.query_row(&sql, [], |r| r.get(0))
        };
        findings.index(table, count(table, due)?, count(due, table)?);
    }
    connection.execute_batch("DROP TABLE due; DROP TABLE due_str; DROP TABLE due_range;")?;
    Ok(())
}

/// Rows that refer to other rows find them.
fn check_rows(connection: &Connection, findings: &mut Findings) -> Result<(), Error> {
    findings.versions =
        connection.query_row("SELECT count(*) FROM version", [], |r| r.get::<_, i64>(0))?.cast_unsigned();
    for (what, sql) in DANGLING {
        let count: i64 = connection.query_row(sql, [], |r| r.get(0))?;
        if count > 0 {
            findings.wrong(format!("{count} {what}"));
        }
    }
    Ok(())
}

fn referred(connection: &Connection) -> Result<Vec<(BlobId, [u8; 32])>, Error> {
    let mut statement = connection.prepare(REFERRED)?;
    let rows = statement.query_map([], |r| Ok((BlobId(r.get(0)?), r.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

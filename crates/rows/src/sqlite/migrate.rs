//! Migrations: each step in one transaction, resumable; a newer schema is refused.

use hilum_fhir::ResourceType;
use jiff::tz::TimeZone;
use rusqlite::{Connection, OptionalExtension, params};

use crate::face::WriteResources;
use crate::keys::Rows;
use crate::row::Content;
use crate::stored::indexed;
use crate::{Error, carried};

/// A step from one schema to the next.
struct Step {
    sql: &'static str,
    /// Whether the index is made again from the bodies.
    reindexes: bool,
}

/// The steps from an empty database to the current schema. Never edited once released, only extended.
const STEPS: &[Step] = &[
    Step { sql: include_str!("schema.sql"), reindexes: false },
    Step { sql: include_str!("schema-2.sql"), reindexes: true },
    Step { sql: include_str!("schema-3.sql"), reindexes: false },
    Step { sql: include_str!("schema-4.sql"), reindexes: false },
    Step { sql: include_str!("schema-5.sql"), reindexes: false },
    Step { sql: include_str!("schema-6.sql"), reindexes: false },
    Step { sql: include_str!("schema-7.sql"), reindexes: false },
    Step { sql: include_str!("schema-8.sql"), reindexes: false },
    Step { sql: include_str!("schema-9.sql"), reindexes: false },
    Step { sql: include_str!("schema-10.sql"), reindexes: false },
];

/// Brings the database of a site to the current schema and returns its cursor secret.
pub(super) fn migrate(connection: &Connection, site: &str, zone: &TimeZone) -> Result<[u8; 32], Error> {
    let version = version(connection)?;
    if version > STEPS.len() {
        let known = STEPS.len();
        return Err(Error::unavailable(format!(
            "site.db has schema {version}, this version knows {known}: run the newer program"
        )));
    }
    for (number, step) in STEPS.iter().enumerate().skip(version) {
        in_transaction(connection, || take(connection, step, number + 1, zone))?;
    }
    if connection.prepare("SELECT 1 FROM meta WHERE k=?1")?.exists([carried::DUE])? {
        in_transaction(connection, || carry_over(connection, site, zone))?;
    }
    secret(connection)
}

fn in_transaction(connection: &Connection, work: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let done = work();
    connection.execute_batch(if done.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
    done
}

/// What only code can carry over, with the statements of the current schema.
fn carry_over(connection: &Connection, site: &str, zone: &TimeZone) -> Result<(), Error> {
    reindex(connection, zone)?;
    let now = jiff::Timestamp::now().as_millisecond();
    let mut after = String::new();
    loop {
        let mut page = connection.prepare("SELECT uid FROM study WHERE uid>?1 ORDER BY uid LIMIT ?2")?;
        let found = page.query_map(params![after, carried::PAGE], |r| r.get(0))?;
        let studies: Vec<String> = found.collect::<rusqlite::Result<_>>()?;
        let Some(last) = studies.last() else { break };
        carried::carry_over(connection, site, &studies, now)?;
        after.clone_from(last);
    }
    connection.execute_batch(
        "UPDATE mpps SET patient=NULL WHERE patient IS NOT NULL AND (SELECT patient FROM study WHERE uid=mpps.study) IS NULL",
    )?;
    connection.execute("DELETE FROM meta WHERE k=?1", [carried::DUE])?;
    Ok(())
}

/// Refuses a database of another schema: it is to be migrated first, or belongs to a newer program.
pub(super) fn refuse_other(connection: &Connection) -> Result<(), Error> {
    let (version, known) = (version(connection)?, STEPS.len());
    if version == known {
        return Ok(());
    }
    Err(Error::unavailable(format!(
        "site.db has schema {version}, this version knows {known}: run `hilum migrate`"
    )))
}

/// The cursor secret of a database that an edge may be using; one of another schema is refused.
pub(super) fn as_it_is(connection: &Connection) -> Result<[u8; 32], Error> {
    refuse_other(connection)?;
    Ok(connection.query_row("SELECT v FROM meta WHERE k='cursor_hmac_key'", [], |r| r.get(0))?)
}

fn take(connection: &Connection, step: &Step, number: usize, zone: &TimeZone) -> Result<(), Error> {
    connection.execute_batch(step.sql)?;
    if step.reindexes {
        reindex(connection, zone)?;
    }
    connection.execute("INSERT OR REPLACE INTO meta VALUES('schema_version', ?1)", [number])?;
    Ok(())
}

/// Makes the index again from the current bodies.
pub(super) fn reindex(connection: &Connection, zone: &TimeZone) -> Result<(), Error> {
    connection.execute_batch("DELETE FROM ix; DELETE FROM ix_str; DELETE FROM ix_range;")?;
    let mut heads = connection.prepare("SELECT rt, rid, ord FROM head WHERE deleted=0")?;
    let mut rows = heads.query([])?;
    while let Some(row) = rows.next()? {
        let (rid, ord) = (row.get(1)?, row.get(2)?);
        let is_known = ResourceType::from_number(row.get(0)?).is_some();
        if let Some(due) = is_known.then(|| current_index(connection, rid, zone)).transpose()?.flatten() {
            connection.write_index(rid, (&Rows::default(), ord), (&due, ord))?;
        }
    }
    Ok(())
}

/// The rows that the current body of a resource gives in the index; `None` of a deletion. Reads only columns that every schema has had: a step
/// in the middle of a migration asks too.
pub(super) fn current_index(
    connection: &Connection,
    rid: i64,
    zone: &TimeZone,
) -> Result<Option<Rows>, Error> {
    let sql = "SELECT v.lm, v.enc, v.body FROM head h JOIN version v ON v.vid=h.vid WHERE h.rid=?1";
    let content = connection.prepare_cached(sql)?.query_row([rid], |r| {
        Ok(Content { last_updated: r.get(0)?, encoding: r.get(1)?, body: r.get(2)? })
    })?;
    Ok(indexed(&content, zone)?.map(|(_, rows)| rows))
}

fn version(connection: &Connection) -> Result<usize, Error> {
    let exists: bool =
        connection.query_row("SELECT count(*) FROM sqlite_master WHERE name='meta'", [], |r| r.get(0))?;
    if !exists {
        return Ok(0);
    }
    let version: Option<i64> =
        connection.query_row("SELECT v FROM meta WHERE k='schema_version'", [], |r| r.get(0)).optional()?;
    Ok(usize::try_from(version.unwrap_or(0)).unwrap_or(0))
}

fn secret(connection: &Connection) -> Result<[u8; 32], Error> {
    let mut fresh = [0u8; 32];
    getrandom::fill(&mut fresh).map_err(|e| Error::unavailable(format!("no randomness: {e}")))?;
    connection.execute("INSERT OR IGNORE INTO meta VALUES('cursor_hmac_key', ?1)", [fresh])?;
    Ok(connection.query_row("SELECT v FROM meta WHERE k='cursor_hmac_key'", [], |r| r.get(0))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_schema_is_refused_in_words() {
        let connection = Connection::open_in_memory().unwrap();
        let secret = migrate(&connection, "north", &TimeZone::UTC).unwrap();
        assert_eq!(
            migrate(&connection, "north", &TimeZone::UTC).unwrap(),
            secret,
            "migrating twice changes nothing"
        );
        connection.execute("UPDATE meta SET v=99 WHERE k='schema_version'", []).unwrap();
        assert!(migrate(&connection, "north", &TimeZone::UTC).unwrap_err().message.contains("newer"));
    }
    #[test]
    fn a_step_that_changes_the_index_makes_it_again_from_the_bodies() {
        let connection = Connection::open_in_memory().unwrap();
        take(&connection, &STEPS[0], 1, &TimeZone::UTC).unwrap();
        let patient = hilum_fhir::ResourceType::from_name("Patient").unwrap().number();
        let body =
            r#"{"resourceType":"Patient","id":"p","meta":{},"gender":"other","name":[{"family":"Doe"}]}"#;
        connection
            .execute("INSERT INTO head VALUES(1,?1,'p',1,1,7,0,NULL,NULL)", [patient])
            .and_then(|_| {
                connection.execute("INSERT INTO version VALUES(1,1,1,0,0,NULL,0,?1)", [body.as_bytes()])
            })
            .unwrap();
        migrate(&connection, "north", &TimeZone::UTC).unwrap();
        let count = |table: &str| -> i64 {
            connection
                .query_row(&format!("SELECT count(*) FROM {table} WHERE rid=1"), [], |r| r.get(0))
                .unwrap()
        };
        assert_eq!(
            (count("ix"), count("ix_str")),
            (1, 1),
            "gender, and not that it is alive; the family name once"
        );
    }

    #[test]
    fn counters_begin_behind_every_number_that_is_still_named() {
        let connection = Connection::open_in_memory().unwrap();
        let first_four = STEPS.iter().take(4).enumerate();
        first_four.for_each(|(at, step)| take(&connection, step, at + 1, &TimeZone::UTC).unwrap());
        // the submissions 8 and 9 and the version 3 are gone; a version and the walk of retention name what was there
        connection
            .execute_batch(
                "INSERT INTO head VALUES(2,1,'p',1,2,7,0,NULL,NULL); INSERT INTO version VALUES(2,2,1,0,0,8,0,NULL);
                 INSERT INTO meta VALUES('retained_submissions',9); INSERT INTO destination VALUES('Subscription/1',3,1,0,NULL,NULL);",
            )
            .unwrap();
        migrate(&connection, "north", &TimeZone::UTC).unwrap();
        let counters = super::super::rows::counters(&connection).unwrap();
        assert_eq!((counters.rid, counters.vid, counters.seq), (2, 3, 9));
    }
}

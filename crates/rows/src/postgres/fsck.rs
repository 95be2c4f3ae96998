//! What is checked of a server; see [`crate::check`]. What the index should be is put into tables that only this connection sees.

use std::time::Duration;

use hilum_fhir::ResourceType;
use jiff::tz::TimeZone;

use super::connection::Connection;
use super::migrate;
use super::place::Place;
use super::session::Session;
use super::settings::PostgresConfig;
use super::values::{clean, digest};
use crate::check::{Checks, DANGLING, Findings, INDEX, REFERRED, Shelf};
use crate::control::zone_of;
use crate::keys::Rows;
use crate::row::Content;
use crate::stored::indexed;
use crate::{BlobId, Error};

/// Here the planner may do as it likes, and take its time. Rows of a site are those that row level security shows.
const PREPARE: &str = "RESET plan_cache_mode; RESET enable_seqscan; RESET enable_bitmapscan; RESET enable_hashjoin; RESET enable_mergejoin;
    SET statement_timeout=0; SET lock_timeout=0; SET idle_in_transaction_session_timeout=0;
    CREATE TEMP TABLE due(key bigint, sys bigint, ord bigint, rid bigint);
    CREATE TEMP TABLE due_str(key bigint, val text COLLATE \"C\", rid bigint);
    CREATE TEMP TABLE due_range(key bigint, lo bigint, hi bigint, rid bigint)";
const EMPTY: &str = "TRUNCATE due, due_str, due_range";
const PAGE: i64 = 500;
/// A statement over all rows may take so long.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn fsck(
    settings: &PostgresConfig,
    checks: Checks,
    shelf: &dyn Shelf,
) -> Result<Vec<Findings>, Error> {
    let place = Place::new(settings)?;
    let mut connection = place.connect()?;
    connection.be_patient(PATIENCE);
    let (version, known) = migrate::versions(&connection)?;
    if version != known {
        let reason =
            format!("the database has schema {version}, this version knows {known}: run `hilum migrate`");
        return Err(place.named(Error::unavailable(reason)));
    }
    if migrate::is_above_security(&connection)? {
        let reason = "this role sees the rows of all sites at once; use the one that the edges use";
        return Err(place.named(Error::unavailable(reason)));
    }
    let sites = connection.query("SELECT no, id, settings FROM site ORDER BY id COLLATE \"C\"", &[])?;
    connection.batch(PREPARE)?;
    let mut all = Vec::new();
    for row in sites {
        let (number, zone) = (row.get(0), zone_of(row.get(2)).map_or(TimeZone::UTC, |(_, zone)| zone));
        if checks.rebuild {
            connection = rebuild(connection, number, &zone)?;
        }
        let mut findings = Findings::of(row.get(1));
        let session = Session::snapshot(connection, number);
        check(&session, &zone, &mut findings)?;
        shelf.check(&referred(&session)?, checks.deep, &mut findings)?;
        connection = session.roll_back();
        connection.batch(EMPTY)?;
        all.push(findings);
    }
    Ok(all)
}

/// Makes the index of a site again. Its writers wait; searches go on in the old one until this is committed.
fn rebuild(connection: Connection, number: i32, zone: &TimeZone) -> Result<Connection, Error> {
    let (session, counters) =
        Session::writing(connection, number, std::iter::empty()).map_err(|failed| failed.1)?;
    fill(&session, zone, &mut Findings::default())?;
    for sql in [
        "DELETE FROM ix WHERE site=$1",
        "DELETE FROM ix_str WHERE site=$1",
        "DELETE FROM ix_range WHERE site=$1",
        "INSERT INTO ix(site,key,sys,ord,rid) SELECT $1, * FROM due ORDER BY key, sys, ord, rid",
        "INSERT INTO ix_str(site,key,val,rid) SELECT $1, * FROM due_str ORDER BY key, val, rid",
        "INSERT INTO ix_range(site,key,lo,hi,rid) SELECT $1, * FROM due_range ORDER BY key, lo, hi, rid",
    ] {
        session.gather(sql, Vec::new());
    }
    let (connection, committed) = session.commit(&counters);
    committed?;
    connection.batch(EMPTY)?;
    Ok(connection)
}

/// Rows find the rows they refer to, every resource can be read, and the index is what its body says.
fn check(session: &Session, zone: &TimeZone, findings: &mut Findings) -> Result<(), Error> {
    fill(session, zone, findings)?;
    for (table, due, columns) in INDEX {
        let count = |left: &str, right: &str| {
            session.count(&format!(
                "SELECT count(*) FROM (SELECT {columns} FROM {left} EXCEPT SELECT {columns} FROM {right}) e"
            ))
        };
        findings.index(table, count(table, due)?, count(due, table)?);
    }
    findings.versions = session.count("SELECT count(*) FROM version")?.cast_unsigned();
    for (what, sql) in DANGLING {
        let count = session.count(sql)?;
        if count > 0 {
            findings.wrong(format!("{count} {what}"));
        }
    }
    Ok(())
}

/// Reads all current resources and notes the rows they should have in the index.
fn fill(session: &Session, zone: &TimeZone, findings: &mut Findings) -> Result<(), Error> {
    let sql = "SELECT h.rid, h.ord, h.rt::bigint, v.lm, v.enc::bigint, v.body FROM head h LEFT JOIN version v ON v.site=$1 AND v.vid=h.vid
        WHERE h.site=$1 AND h.rid>$2 AND NOT h.deleted ORDER BY h.rid LIMIT $3";
    let mut after = i64::MIN;
    loop {
        let page = session.rows(sql, &[&after, &PAGE])?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.get(0);
        let mut due = Due::default();
        for row in &page {
            findings.resources += 1;
            let rid: i64 = row.get(0);
            let content = row.get::<_, Option<i64>>(3).map(|last_updated| Content {
                last_updated,
                encoding: row.get(4),
                body: row.get(5),
            });
            let read = match (ResourceType::from_number(row.get(2)), content) {
                (None, _) => Err(Error::unavailable("unknown type")),
                (_, None) => Err(Error::unavailable("a version vanished")),
                (Some(_), Some(content)) => indexed(&content, zone),
            };
            match read {
                Ok(Some((_, rows))) => due.add(rid, row.get(1), &rows),
                Ok(None) => findings.wrong(format!("resource {rid}: its current version has no body")),
                Err(error) => findings.wrong(format!("resource {rid}: {}", error.message)),
            }
        }
        due.put(session);
    }
}

/// Rows that the index should have.
#[derive(Default)]
struct Due {
    keys: [Vec<i64>; 4],
    strings: (Vec<i64>, Vec<String>, Vec<i64>),
    ranges: [Vec<i64>; 4],
}

impl Due {
    fn add(&mut self, rid: i64, ord: i64, rows: &Rows) {
        let put = |columns: &mut [Vec<i64>; 4], row: [i64; 4]| {
            columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
        };
        rows.keys.iter().for_each(|key| put(&mut self.keys, [key.value, key.system, ord, rid]));
        rows.ranges.iter().for_each(|(key, low, high)| put(&mut self.ranges, [*key, *low, *high, rid]));
        for (key, text) in &rows.strings {
            self.strings.0.push(*key);
            self.strings.1.push(clean(text));
            self.strings.2.push(rid);
        }
    }

    fn put(self, session: &Session) {
        let ([key, system, ord, rid], [range, low, high, of]) = (self.keys, self.ranges);
        let (string, text, owner) = self.strings;
        session.gather(
            "INSERT INTO due SELECT * FROM unnest($2::bigint[],$3::bigint[],$4::bigint[],$5::bigint[]) WHERE $1::int IS NOT NULL",
            vec![Box::new(key), Box::new(system), Box::new(ord), Box::new(rid)],
        );
        session.gather(
            "INSERT INTO due_str SELECT * FROM unnest($2::bigint[],$3::text[],$4::bigint[]) WHERE $1::int IS NOT NULL",
            vec![Box::new(string), Box::new(text), Box::new(owner)],
        );
        session.gather(
            "INSERT INTO due_range SELECT * FROM unnest($2::bigint[],$3::bigint[],$4::bigint[],$5::bigint[]) WHERE $1::int IS NOT NULL",
            vec![Box::new(range), Box::new(low), Box::new(high), Box::new(of)],
        );
    }
}

fn referred(session: &Session) -> Result<Vec<(BlobId, [u8; 32])>, Error> {
    let rows = session.all(REFERRED)?;
    let blob = |row: &tokio_postgres::Row| Ok((BlobId(digest(row.get(0))?), digest(row.get(1))?));
    rows.iter().map(blob).collect()
}

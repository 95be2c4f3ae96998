//! The index as the bodies say it should be: put into tables that only this connection sees, to be compared with (`fsck.rs`) or to take its place.

use hilum_fhir::ResourceType;
use jiff::tz::TimeZone;

use super::connection::Connection;
use super::session::Session;
use super::values::clean;
use crate::Error;
use crate::check::Findings;
use crate::keys::Rows;
use crate::row::Content;
use crate::stored::indexed;

/// Here the planner may do as it likes, and take its time. Rows of a site are those that row level security shows.
const PREPARE: &str = "RESET plan_cache_mode; RESET enable_seqscan; RESET enable_bitmapscan; RESET enable_hashjoin; RESET enable_mergejoin;
    SET statement_timeout=0; SET lock_timeout=0; SET idle_in_transaction_session_timeout=0;
    CREATE TEMP TABLE due(key bigint, sys bigint, ord bigint, rid bigint);
    CREATE TEMP TABLE due_str(key bigint, val text COLLATE \"C\", rid bigint);
    CREATE TEMP TABLE due_range(key bigint, lo bigint, hi bigint, rid bigint)";
const PAGE: i64 = 500;

/// Makes the tables that [`fill`] fills.
pub(super) fn prepare(connection: &Connection) -> Result<(), Error> {
    connection.batch(PREPARE)
}

/// Empties them.
pub(super) fn empty(connection: &Connection) -> Result<(), Error> {
    connection.batch("TRUNCATE due, due_str, due_range")
}

/// Makes the index of a site again. Its writers wait; searches go on in the old one until this is committed.
pub(super) fn rebuild(connection: Connection, number: i32, zone: &TimeZone) -> Result<Connection, Error> {
    let (session, counters) =
        Session::writing(connection, number, std::iter::empty()).map_err(|failed| failed.1)?;
    replace(&session, zone)?;
    let (connection, committed) = session.commit(&counters);
    committed?;
    empty(&connection)?;
    Ok(connection)
}

/// Replaces the index of a site in a transaction that writes to it.
pub(super) fn replace(session: &Session, zone: &TimeZone) -> Result<(), Error> {
    fill(session, zone, &mut Findings::default())?;
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
    Ok(())
}

/// Reads all current resources and notes the rows they should have in the index.
pub(super) fn fill(session: &Session, zone: &TimeZone, findings: &mut Findings) -> Result<(), Error> {
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

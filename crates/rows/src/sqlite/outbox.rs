//! Destinations and their deliveries.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::face::{Outbox, WriteOutbox};
use crate::{Delivery, DeliveryState, Destination, DestinationState, Error};

impl Outbox for Connection {
    fn destinations(&self) -> Result<Vec<Destination>, Error> {
        destinations(self)
    }

    fn destination(&self, reference: &str) -> Result<Option<Destination>, Error> {
        let mut statement = self.prepare_cached(&format!("{DESTINATION} WHERE ref=?1"))?;
        Ok(statement.query_row([reference], read_destination).optional()?)
    }

    fn next_delivery(&self, destination: &str) -> Result<Option<Delivery>, Error> {
        next_delivery(self, destination)
    }

    fn beyond(&self, destination: &str, rows_max: u64, before: i64) -> Result<Vec<u64>, Error> {
        beyond(self, destination, rows_max, before)
    }

    /// One edge has the file.
    fn check_deliverer(&self, _: &[(String, i64)]) -> Result<(), Error> {
        Ok(())
    }
}

impl WriteOutbox for Connection {
    fn put_destination(&self, destination: &Destination) -> Result<(), Error> {
        put_destination(self, destination)
    }

    fn turn_destination(
        &self,
        reference: &str,
        state: DestinationState,
        error: Option<&str>,
    ) -> Result<(), Error> {
        let sql = "UPDATE destination SET state=?2, err=?3 WHERE ref=?1";
        self.prepare_cached(sql)?.execute(params![reference, state.number(), error])?;
        Ok(())
    }

    fn remove_destination(&self, reference: &str) -> Result<(), Error> {
        for sql in ["DELETE FROM delivery WHERE dest=?1", "DELETE FROM destination WHERE ref=?1"] {
            self.prepare_cached(sql)?.execute([reference])?;
        }
        Ok(())
    }

    fn matched(&self, matches: &[(String, u64)], cursors: &[(String, u64)]) -> Result<(), Error> {
        matched(self, matches, cursors)
    }

    fn give_up(&self, destination: &str, last: u64, reason: &str) -> Result<(), Error> {
        give_up(self, destination, last, reason)
    }

    fn mark(&self, delivery: &Delivery) -> Result<(), Error> {
        mark(self, delivery)
    }
}

const DESTINATION: &str = "SELECT ref, cursor_vid, next_n, state, next_at, err, owner FROM destination";

pub(crate) fn destinations(connection: &Connection) -> Result<Vec<Destination>, Error> {
    let mut statement = connection.prepare_cached(&format!("{DESTINATION} ORDER BY ref"))?;
    let rows = statement.query_map([], read_destination)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn read_destination(row: &Row<'_>) -> rusqlite::Result<Destination> {
    Ok(Destination {
        reference: row.get(0)?,
        cursor: row.get::<_, i64>(1)?.cast_unsigned(),
        next_number: row.get::<_, i64>(2)?.cast_unsigned(),
        state: DestinationState::from_number(row.get(3)?),
        next_at: row.get(4)?,
        error: row.get(5)?,
        owner: row.get(6)?,
    })
}

pub(crate) fn next_delivery(connection: &Connection, destination: &str) -> Result<Option<Delivery>, Error> {
    let sql = "SELECT dest, n, vid, state, attempt, next_at, first_at, err FROM delivery WHERE dest=?1 AND state<3 ORDER BY n LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query_map([destination], |r| {
        Ok(Delivery {
            destination: r.get(0)?,
            number: r.get::<_, i64>(1)?.cast_unsigned(),
            position: r.get::<_, i64>(2)?.cast_unsigned(),
            state: DeliveryState::from_number(r.get(3)?),
            attempts: r.get(4)?,
            next_at: r.get(5)?,
            first_attempt_at: r.get(6)?,
            error: r.get(7)?,
        })
    })?;
    Ok(rows.next().transpose()?)
}

/// Deliveries given up in one transaction.
const BEYOND_BATCH: u32 = 500;

/// They are sent in order, so the distance to the next number is how many wait.
pub(crate) fn beyond(
    connection: &Connection,
    destination: &str,
    rows_max: u64,
    before: i64,
) -> Result<Vec<u64>, Error> {
    let sql = "SELECT d.n, d.n + ?2 < t.next_n OR v.lm < ?3 FROM destination t JOIN delivery d ON d.dest=t.ref AND d.state<3
        LEFT JOIN version v ON v.vid=d.vid WHERE t.ref=?1 ORDER BY d.n LIMIT ?4";
    let mut statement = connection.prepare_cached(sql)?;
    let rows_max = i64::try_from(rows_max).unwrap_or(i64::MAX / 2).min(i64::MAX / 2);
    let before = before.saturating_mul(1000);
    let mut rows = statement.query(params![destination, rows_max, before, BEYOND_BATCH])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        if !row.get::<_, Option<bool>>(1)?.unwrap_or(false) {
            break;
        }
        found.push(row.get::<_, i64>(0)?.cast_unsigned());
    }
    Ok(found)
}

pub(crate) fn give_up(
    connection: &Connection,
    destination: &str,
    last: u64,
    reason: &str,
) -> Result<(), Error> {
    let sql = "UPDATE delivery SET state=4, next_at=NULL, err=?3 WHERE dest=?1 AND state<3 AND n<=?2";
    connection.prepare_cached(sql)?.execute(params![destination, last, reason])?;
    Ok(())
}

pub(crate) fn put_destination(connection: &Connection, destination: &Destination) -> Result<(), Error> {
    let sql =
        "INSERT INTO destination(ref,cursor_vid,next_n,state,next_at,err,owner) VALUES(?1,?2,?3,?4,?5,?6,?7)
        ON CONFLICT(ref) DO UPDATE SET state=?4, next_at=?5, err=?6, owner=?7,
            cursor_vid=CASE WHEN state=3 AND ?4<>3 THEN ?2 ELSE cursor_vid END";
    connection.prepare_cached(sql)?.execute(params![
        destination.reference,
        destination.cursor,
        destination.next_number,
        destination.state.number(),
        destination.next_at,
        destination.error,
        destination.owner
    ])?;
    Ok(())
}

pub(crate) fn matched(
    connection: &Connection,
    matches: &[(String, u64)],
    cursors: &[(String, u64)],
) -> Result<(), Error> {
    for (destination, position) in matches {
        let sql = "INSERT INTO delivery(dest,n,vid,state) SELECT ref, next_n, ?2, 0 FROM destination WHERE ref=?1 AND cursor_vid<?2";
        if connection.prepare_cached(sql)?.execute(params![destination, position])? > 0 {
            let sql = "UPDATE destination SET next_n=next_n+1 WHERE ref=?1";
            connection.prepare_cached(sql)?.execute([destination])?;
        }
    }
    for (destination, position) in cursors {
        let sql = "UPDATE destination SET cursor_vid=max(cursor_vid,?2) WHERE ref=?1";
        connection.prepare_cached(sql)?.execute(params![destination, position])?;
    }
    Ok(())
}

pub(crate) fn mark(connection: &Connection, delivery: &Delivery) -> Result<(), Error> {
    let sql = "UPDATE delivery SET state=?3, attempt=?4, next_at=?5, first_at=?6, err=?7 WHERE dest=?1 AND n=?2 AND state<3";
    connection.prepare_cached(sql)?.execute(params![
        delivery.destination,
        delivery.number,
        delivery.state.number(),
        delivery.attempts,
        delivery.next_at,
        delivery.first_attempt_at,
        delivery.error
    ])?;
    Ok(())
}

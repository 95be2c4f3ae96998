//! Destinations and their deliveries.

use super::session::Session;
use super::values::clean;
use crate::face::{Outbox, WriteOutbox};
use crate::{Delivery, DeliveryState, Destination, DestinationState, Error};

impl Outbox for Session {
    fn destinations(&self) -> Result<Vec<Destination>, Error> {
        destinations(self)
    }

    fn destination(&self, reference: &str) -> Result<Option<Destination>, Error> {
        let sql = "SELECT ref, cursor_vid, next_n, state::bigint, next_at, err, owner FROM destination WHERE site=$1 AND ref=$2";
        Ok(self.row(sql, &[&clean(reference)])?.as_ref().map(read_destination))
    }

    fn next_delivery(&self, destination: &str) -> Result<Option<Delivery>, Error> {
        next_delivery(self, destination)
    }

    fn beyond(&self, destination: &str, rows_max: u64, before: i64) -> Result<Vec<u64>, Error> {
        beyond(self, destination, rows_max, before)
    }

    /// Read behind the lock of the site, which every write about deliveries takes: who has the newest epoch writes after all who had older ones.
    fn check_deliverer(&self, epochs: &[(String, i64)]) -> Result<(), Error> {
        for (destination, epoch) in epochs {
            let destination = clean(destination);
            let newest = match self.foreseen_epoch(&destination) {
                Some(newest) => newest,
                None => {
                    let sql = "SELECT epoch FROM deliverer WHERE site=$1 AND ref=$2";
                    self.row(sql, &[&destination])?.map(|row| row.get(0))
                }
            };
            if newest != Some(*epoch) {
                return Err(Error::of_another_edge());
            }
        }
        Ok(())
    }
}

impl WriteOutbox for Session {
    fn put_destination(&self, destination: &Destination) -> Result<(), Error> {
        put_destination(self, destination)
    }

    fn turn_destination(
        &self,
        reference: &str,
        state: DestinationState,
        error: Option<&str>,
    ) -> Result<(), Error> {
        let sql = "UPDATE destination SET state=$3::bigint, err=$4 WHERE site=$1 AND ref=$2";
        let (state, error) = (state.number(), error.map(clean));
        self.gather(sql, vec![Box::new(clean(reference)), Box::new(state), Box::new(error)]);
        Ok(())
    }

    fn remove_destination(&self, reference: &str) -> Result<(), Error> {
        for sql in [
            "DELETE FROM delivery WHERE site=$1 AND dest=$2",
            "DELETE FROM destination WHERE site=$1 AND ref=$2",
        ] {
            self.gather(sql, vec![Box::new(clean(reference))]);
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

pub(crate) fn destinations(session: &Session) -> Result<Vec<Destination>, Error> {
    let sql = "SELECT ref, cursor_vid, next_n, state::bigint, next_at, err, owner FROM destination WHERE site=$1 ORDER BY ref COLLATE \"C\"";
    Ok(session.rows(sql, &[])?.iter().map(read_destination).collect())
}

fn read_destination(row: &tokio_postgres::Row) -> Destination {
    Destination {
        reference: row.get(0),
        cursor: row.get::<_, i64>(1).cast_unsigned(),
        next_number: row.get::<_, i64>(2).cast_unsigned(),
        state: DestinationState::from_number(row.get(3)),
        next_at: row.get(4),
        error: row.get(5),
        owner: row.get(6),
    }
}

pub(crate) fn next_delivery(session: &Session, destination: &str) -> Result<Option<Delivery>, Error> {
    let sql = "SELECT dest, n, vid, state::bigint, attempt::bigint, next_at, first_at, err FROM delivery WHERE site=$1 AND dest=$2 AND state<3 ORDER BY n LIMIT 1";
    let row = session.row(sql, &[&clean(destination)])?;
    Ok(row.map(|row| Delivery {
        destination: row.get(0),
        number: row.get::<_, i64>(1).cast_unsigned(),
        position: row.get::<_, i64>(2).cast_unsigned(),
        state: DeliveryState::from_number(row.get(3)),
        attempts: u32::try_from(row.get::<_, i64>(4)).unwrap_or(u32::MAX),
        next_at: row.get(5),
        first_attempt_at: row.get(6),
        error: row.get(7),
    }))
}

/// Deliveries given up in one transaction.
const BEYOND_BATCH: i64 = 500;

/// They are sent in order, so the distance to the next number is how many wait.
pub(crate) fn beyond(
    session: &Session,
    destination: &str,
    rows_max: u64,
    before: i64,
) -> Result<Vec<u64>, Error> {
    let sql = "SELECT d.n, coalesce(d.n + $3 < t.next_n OR v.lm < $4, false) FROM destination t JOIN delivery d ON d.site=$1 AND d.dest=t.ref AND d.state<3
        LEFT JOIN LATERAL (SELECT lm FROM version v WHERE v.site=$1 AND v.vid=d.vid OFFSET 0) v ON true WHERE t.site=$1 AND t.ref=$2 ORDER BY d.n LIMIT $5";
    let rows_max = i64::try_from(rows_max).unwrap_or(i64::MAX / 2).min(i64::MAX / 2);
    let before = before.saturating_mul(1000);
    let rows = session.rows(sql, &[&clean(destination), &rows_max, &before, &BEYOND_BATCH])?;
    let beyond = rows.iter().take_while(|row| row.get(1));
    Ok(beyond.map(|row| row.get::<_, i64>(0).cast_unsigned()).collect())
}

pub(crate) fn give_up(session: &Session, destination: &str, last: u64, reason: &str) -> Result<(), Error> {
    let sql =
        "UPDATE delivery SET state=4, next_at=NULL, err=$4 WHERE site=$1 AND dest=$2 AND state<3 AND n<=$3";
    session.gather(
        sql,
        vec![Box::new(clean(destination)), Box::new(last.cast_signed()), Box::new(clean(reason))],
    );
    Ok(())
}

pub(crate) fn put_destination(session: &Session, destination: &Destination) -> Result<(), Error> {
    let sql = "INSERT INTO destination(site,ref,cursor_vid,next_n,state,next_at,err,owner) VALUES($1,$2,$3,$4,$5::bigint,$6,$7,$8)
        ON CONFLICT(site,ref) DO UPDATE SET state=excluded.state, next_at=excluded.next_at, err=excluded.err, owner=excluded.owner,
            cursor_vid=CASE WHEN destination.state=3 AND excluded.state<>3 THEN excluded.cursor_vid ELSE destination.cursor_vid END";
    session.gather(
        sql,
        vec![
            Box::new(clean(&destination.reference)),
            Box::new(destination.cursor.cast_signed()),
            Box::new(destination.next_number.cast_signed()),
            Box::new(destination.state.number()),
            Box::new(destination.next_at),
            Box::new(destination.error.as_deref().map(clean)),
            Box::new(destination.owner.as_deref().map(clean)),
        ],
    );
    Ok(())
}

pub(crate) fn matched(
    session: &Session,
    matches: &[(String, u64)],
    cursors: &[(String, u64)],
) -> Result<(), Error> {
    // one statement numbers the matches of a destination, in order of their positions
    let sql = "WITH new AS (
            INSERT INTO delivery(site,dest,n,vid,state)
            SELECT d.site, d.ref, d.next_n - 1 + row_number() OVER (PARTITION BY d.ref ORDER BY m.n), m.vid, 0
            FROM unnest($2::text[],$3::bigint[]) WITH ORDINALITY m(ref,vid,n) JOIN destination d ON d.site=$1 AND d.ref=m.ref AND d.cursor_vid<m.vid
            RETURNING dest)
        UPDATE destination d SET next_n=d.next_n+c.n FROM (SELECT dest, count(*) AS n FROM new GROUP BY dest) c WHERE d.site=$1 AND d.ref=c.dest";
    let columns = |pairs: &[(String, u64)]| -> (Vec<String>, Vec<i64>) {
        pairs.iter().map(|(name, position)| (clean(name), position.cast_signed())).unzip()
    };
    let (names, positions) = columns(matches);
    session.gather(sql, vec![Box::new(names), Box::new(positions)]);
    let sql = "UPDATE destination d SET cursor_vid=greatest(d.cursor_vid,c.vid)
        FROM (SELECT ref, max(vid) AS vid FROM unnest($2::text[],$3::bigint[]) u(ref,vid) GROUP BY ref) c WHERE d.site=$1 AND d.ref=c.ref";
    let (names, positions) = columns(cursors);
    session.gather(sql, vec![Box::new(names), Box::new(positions)]);
    Ok(())
}

pub(crate) fn mark(session: &Session, delivery: &Delivery) -> Result<(), Error> {
    let sql = "UPDATE delivery SET state=$4::bigint, attempt=$5::bigint, next_at=$6, first_at=$7, err=$8 WHERE site=$1 AND dest=$2 AND n=$3 AND state<3";
    session.gather(
        sql,
        vec![
            Box::new(clean(&delivery.destination)),
            Box::new(delivery.number.cast_signed()),
            Box::new(delivery.state.number()),
            Box::new(i64::from(delivery.attempts)),
            Box::new(delivery.next_at),
            Box::new(delivery.first_attempt_at),
            Box::new(delivery.error.as_deref().map(clean)),
        ],
    );
    Ok(())
}

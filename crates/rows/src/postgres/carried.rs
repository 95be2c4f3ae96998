//! What only code can carry over from the first version, with the statements of the current schema; see [`crate::carried`].

use jiff::tz::TimeZone;

use super::connection::{Connection, PATIENCE_OF_UPKEEP};
use super::migrate::{lock, unlock};
use super::place::Place;
use super::reindex;
use super::session::Session;
use crate::control::zone_of;
use crate::{Error, carried};

/// Carries over what is due, site by site, each in one transaction. Edges that start meanwhile wait; one that stopped on the way begins again.
pub(super) fn carry_over(place: &Place) -> Result<(), Error> {
    let mut connection = place.connect_to_write()?;
    connection.be_patient(PATIENCE_OF_UPKEEP);
    lock(&connection)?;
    if !connection.query("SELECT 1 FROM meta WHERE k=$1", &[&carried::DUE])?.is_empty() {
        reindex::prepare(&connection)?;
        for row in connection.query("SELECT no, id, settings FROM site ORDER BY no", &[])? {
            let zone = zone_of(row.get(2)).map_or(TimeZone::UTC, |(_, zone)| zone);
            connection = of_site(connection, row.get(0), row.get(1), &zone)?;
        }
        connection.query("DELETE FROM meta WHERE k=$1", &[&carried::DUE])?;
    }
    unlock(&connection)
}

fn of_site(connection: Connection, number: i32, site: &str, zone: &TimeZone) -> Result<Connection, Error> {
    let (session, counters) =
        Session::writing(connection, number, std::iter::empty()).map_err(|failed| failed.1)?;
    reindex::replace(&session, zone)?;
    let now = jiff::Timestamp::now().as_millisecond();
    let sql = "SELECT uid FROM study WHERE site=$1 AND uid>$2 ORDER BY uid LIMIT $3";
    let mut after = String::new();
    loop {
        let page = session.rows(sql, &[&after, &carried::PAGE])?;
        let studies: Vec<String> = page.iter().map(|row| row.get(0)).collect();
        let Some(last) = studies.last() else { break };
        carried::carry_over(&session, site, &studies, now)?;
        after.clone_from(last);
    }
    session.gather(
        "UPDATE mpps m SET patient=NULL WHERE m.site=$1 AND m.patient IS NOT NULL
         AND (SELECT patient FROM study s WHERE s.site=m.site AND s.uid=m.study) IS NULL",
        Vec::new(),
    );
    let (connection, committed) = session.commit(&counters);
    committed?;
    reindex::empty(&connection)?;
    Ok(connection)
}

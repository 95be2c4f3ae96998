//! What is checked of a server; see [`crate::check`].

use jiff::tz::TimeZone;

use super::connection::PATIENCE_OF_UPKEEP;
use super::migrate;
use super::place::Place;
use super::reindex::{self, fill};
use super::session::Session;
use super::settings::PostgresConfig;
use super::values::digest;
use crate::check::{Checks, DANGLING, Findings, INDEX, REFERRED, Shelf};
use crate::control::zone_of;
use crate::{BlobId, Error};

pub(crate) fn fsck(
    settings: &PostgresConfig,
    checks: Checks,
    shelf: &dyn Shelf,
) -> Result<Vec<Findings>, Error> {
    let place = Place::new(settings)?;
    let mut connection = place.connect()?;
    connection.be_patient(PATIENCE_OF_UPKEEP);
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
    reindex::prepare(&connection)?;
    let mut all = Vec::new();
    for row in sites {
        let (number, zone) = (row.get(0), zone_of(row.get(2)).map_or(TimeZone::UTC, |(_, zone)| zone));
        if checks.rebuild {
            connection = reindex::rebuild(connection, number, &zone)?;
        }
        let mut findings = Findings::of(row.get(1));
        let session = Session::snapshot(connection, number);
        check(&session, &zone, &mut findings)?;
        shelf.check(&referred(&session)?, checks.deep, &mut findings)?;
        connection = session.roll_back();
        reindex::empty(&connection)?;
        all.push(findings);
    }
    Ok(all)
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

fn referred(session: &Session) -> Result<Vec<(BlobId, [u8; 32])>, Error> {
    let rows = session.all(REFERRED)?;
    let blob = |row: &tokio_postgres::Row| Ok((BlobId(digest(row.get(0))?), digest(row.get(1))?));
    rows.iter().map(blob).collect()
}

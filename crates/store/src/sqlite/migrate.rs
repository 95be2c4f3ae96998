//! Migrations: each step in one transaction, resumable; a newer schema is refused.

use rusqlite::{Connection, OptionalExtension};

use crate::Error;

/// The steps from an empty database to the current schema. Never edited once released, only extended.
const STEPS: [&str; 1] = [include_str!("schema.sql")];

/// Brings a database to the current schema and returns its cursor secret.
pub(super) fn migrate(connection: &Connection) -> Result<[u8; 32], Error> {
    let version = version(connection)?;
    if version > STEPS.len() {
        let known = STEPS.len();
        return Err(Error::unavailable(format!(
            "site.db has schema {version}, this version knows {known}: run the newer program"
        )));
    }
    for (number, step) in STEPS.iter().enumerate().skip(version) {
        let batch = format!(
            "BEGIN IMMEDIATE; {step} INSERT OR REPLACE INTO meta VALUES('schema_version', {}); COMMIT;",
            number + 1
        );
        connection.execute_batch(&batch)?;
    }
    secret(connection)
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
        let secret = migrate(&connection).unwrap();
        assert_eq!(migrate(&connection).unwrap(), secret, "migrating twice changes nothing");
        connection.execute("UPDATE meta SET v=99 WHERE k='schema_version'", []).unwrap();
        assert!(migrate(&connection).unwrap_err().message.contains("newer"));
    }
}

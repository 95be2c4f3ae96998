//! What the server must be, and migrations: each step in one transaction, under a lock that edges starting together wait for; a newer
//! schema is refused.

use super::connection::{Connection, PATIENCE_OF_UPKEEP};
use super::values::digest;
use crate::Error;

/// The steps from an empty database to the current schema. Never edited once released, only extended.
const STEPS: &[Step] = &[
    FIRST,
    Step { sql: include_str!("schema-2.sql"), partitioned: &[], secured: &[] },
    Step { sql: include_str!("schema-3.sql"), partitioned: &[], secured: &["heard", "study_number"] },
    Step { sql: include_str!("schema-4.sql"), partitioned: &[], secured: &["deliverer"] },
    Step { sql: include_str!("schema-5.sql"), partitioned: &[], secured: &[] },
    Step { sql: include_str!("schema-6.sql"), partitioned: &[], secured: &[] },
    Step { sql: include_str!("schema-7.sql"), partitioned: &[], secured: &[] },
    Step { sql: include_str!("schema-8.sql"), partitioned: &[], secured: &[] },
];
const FIRST: Step = Step {
    sql: include_str!("schema.sql"),
    partitioned: &["head", "version", "ix", "ix_str", "ix_range", "submission"],
    secured: &[
        "head",
        "version",
        "ix",
        "ix_str",
        "ix_range",
        "submission",
        "dedupe",
        "quarantine",
        "orphan",
        "destination",
        "delivery",
        "study",
        "series",
        "instance",
        "mpps",
        "expectation",
    ],
};
/// Sites are spread over this many partitions of each large table: smaller indexes and shorter vacuums where there are many; a statement
/// has to lock every one of them, so not more.
const PARTITIONS: u32 = 4;
const VERSION_MIN: i32 = 15;
/// Key of the advisory lock around migrations: "hilum" in ASCII.
const LOCK: i64 = 0x68_69_6c_75_6d;

struct Step {
    sql: &'static str,
    /// Tables that get their partitions.
    partitioned: &'static [&'static str],
    /// Tables whose rows only a transaction of their site sees and writes, whatever a statement asks for.
    secured: &'static [&'static str],
}

/// Refuses a server that would lose what was acknowledged, or is too old.
pub(super) fn check(connection: &Connection) -> Result<(), Error> {
    let sql = "SELECT current_setting('server_version_num')::int, current_setting('fsync'), current_setting('synchronous_commit'),
        current_setting('full_page_writes'), current_setting('wal_compression'), pg_is_in_recovery() OR current_setting('transaction_read_only')::bool";
    let rows = connection.query(sql, &[])?;
    let row = rows.first().ok_or_else(|| Error::unavailable("the database does not answer"))?;
    let version = row.get::<_, i32>(0) / 10_000;
    if version < VERSION_MIN {
        return Err(Error::unavailable(format!("postgresql {version} is too old: {VERSION_MIN} is needed")));
    }
    if row.get(5) {
        return Err(Error::unavailable("the database is read-only (a standby?)"));
    }
    for (at, setting) in [(1, "fsync"), (2, "synchronous_commit"), (3, "full_page_writes")] {
        if row.get::<_, &str>(at) == "off" {
            return Err(Error::unavailable(format!(
                "the server has {setting}=off and would lose acknowledged messages when it fails; set {setting}=on"
            )));
        }
    }
    if matches!(row.get::<_, &str>(4), "on" | "pglz") {
        tracing::warn!(
            "the server has wal_compression=pglz, which is slow after each checkpoint; set lz4 or off"
        );
    }
    Ok(())
}

/// Whether row level security does not hold for the role: then only the conditions of our own statements keep the sites apart.
pub(super) fn is_above_security(connection: &Connection) -> Result<bool, Error> {
    let sql = "SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname=current_user";
    Ok(connection.query(sql, &[])?.first().is_some_and(|row| row.get(0)))
}

/// The schema of the database, 0 = empty, and the one this version knows.
pub(super) fn versions(connection: &Connection) -> Result<(usize, usize), Error> {
    let exists = connection.query("SELECT to_regclass('meta') IS NOT NULL", &[])?;
    if !exists.first().is_some_and(|row| row.get(0)) {
        return Ok((0, STEPS.len()));
    }
    let rows = connection.query("SELECT v FROM meta WHERE k='schema_version'", &[])?;
    let version = rows.first().and_then(|row| row.get::<_, &str>(0).parse().ok()).unwrap_or(0);
    Ok((version, STEPS.len()))
}

/// Brings the database to the current schema and returns the key of its cursors. The connection is patient from now on, and is not for serving.
pub(super) fn migrate(connection: &Connection) -> Result<[u8; 32], Error> {
    connection.be_patient(PATIENCE_OF_UPKEEP);
    lock(connection)?;
    let done = take_steps(connection).and_then(|()| secret(connection));
    unlock(connection)?;
    done
}

/// Waits until no other edge changes the schema or carries something over: for as long as that takes.
pub(super) fn lock(connection: &Connection) -> Result<(), Error> {
    connection.batch(&format!("SET lock_timeout=0; SET statement_timeout=0; SELECT pg_advisory_lock({LOCK})"))
}

/// Lets the next one.
pub(super) fn unlock(connection: &Connection) -> Result<(), Error> {
    connection.batch(&format!("SELECT pg_advisory_unlock({LOCK})"))
}

fn take_steps(connection: &Connection) -> Result<(), Error> {
    let (version, known) = versions(connection)?;
    if version == 0 {
        connection.batch("CREATE TABLE IF NOT EXISTS meta(k text PRIMARY KEY, v text NOT NULL)")?;
    }
    if version > known {
        return Err(Error::unavailable(format!(
            "the database has schema {version}, this version knows {known}: run the newer program"
        )));
    }
    for (number, step) in STEPS.iter().enumerate().skip(version) {
        let number = number + 1;
        connection.batch(&format!(
            "BEGIN; {} INSERT INTO meta VALUES('schema_version','{number}') ON CONFLICT(k) DO UPDATE SET v=excluded.v; COMMIT",
            step.statements()
        ))?;
    }
    Ok(())
}

impl Step {
    fn statements(&self) -> String {
        use std::fmt::Write;
        let mut text = self.sql.to_owned();
        for table in self.partitioned {
            for n in 0..PARTITIONS {
                let _ = write!(
                    text,
                    "CREATE TABLE {table}_{n} PARTITION OF {table} FOR VALUES WITH (MODULUS {PARTITIONS}, REMAINDER {n});"
                );
            }
        }
        let partitions =
            self.partitioned.iter().flat_map(|table| (0..PARTITIONS).map(move |n| format!("{table}_{n}")));
        // a partition is out of reach by its own name too
        for table in self.secured.iter().map(|table| (*table).to_owned()).chain(partitions) {
            let _ = write!(
                text,
                "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
                 CREATE POLICY own_site ON {table} USING (site = nullif(current_setting('hilum.site', true),'')::int);"
            );
        }
        text
    }
}

fn secret(connection: &Connection) -> Result<[u8; 32], Error> {
    let mut fresh = [0u8; 32];
    getrandom::fill(&mut fresh).map_err(|e| Error::unavailable(format!("no randomness: {e}")))?;
    let fresh: String = fresh.iter().map(|byte| format!("{byte:02x}")).collect();
    let sql = "WITH made AS (INSERT INTO meta VALUES('cursor_hmac_key',$1) ON CONFLICT DO NOTHING RETURNING v)
        SELECT decode(v,'hex') FROM made UNION ALL SELECT decode(v,'hex') FROM meta WHERE k='cursor_hmac_key'";
    let rows = connection.query(sql, &[&fresh])?;
    digest(rows.first().map_or(&[], |row| row.get(0)))
}

//! The control database of an embedded store: a small file beside the sites'.

use std::path::Path;

use rusqlite::{Connection, Row, params};

use super::files::CONTROL_FILE;
use crate::Error;
use crate::control::{ApiKey, ControlRows, Kept};

const SCHEMA_VERSION: i64 = 1;

/// `control.db`.
pub(crate) struct ControlFile {
    connection: Connection,
    data_version: i64,
}

impl ControlFile {
    pub(crate) fn open(data_dir: &Path) -> Result<Self, Error> {
        let connection = Connection::open(data_dir.join(CONTROL_FILE)).map_err(unusable)?;
        connection
            .execute_batch(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=5000;
                 CREATE TABLE IF NOT EXISTS meta(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
                 CREATE TABLE IF NOT EXISTS site(id TEXT PRIMARY KEY, settings TEXT NOT NULL) WITHOUT ROWID;
                 CREATE TABLE IF NOT EXISTS api_key(key_id TEXT PRIMARY KEY, site TEXT NOT NULL, name TEXT NOT NULL, scopes TEXT NOT NULL,
                   secret_sha256 BLOB NOT NULL, created INT NOT NULL, expires INT, last_used INT, revoked INT) WITHOUT ROWID;",
            )
            .map_err(unusable)?;
        connection
            .execute("INSERT OR IGNORE INTO meta VALUES('schema_version', ?1)", [SCHEMA_VERSION])
            .map_err(unusable)?;
        let version: i64 = connection
            .query_row("SELECT v FROM meta WHERE k='schema_version'", [], |r| r.get(0))
            .map_err(unusable)?;
        if version > SCHEMA_VERSION {
            return Err(Error::unavailable(format!(
                "control.db has schema {version}, this version knows {SCHEMA_VERSION}"
            )));
        }
        Ok(Self { connection, data_version: -1 })
    }
}

impl ControlRows for ControlFile {
    /// Whether another connection changed it since the last time it was asked.
    fn has_changed(&mut self) -> Result<bool, Error> {
        let version: i64 =
            self.connection.query_row("PRAGMA data_version", [], |r| r.get(0)).map_err(unusable)?;
        Ok(std::mem::replace(&mut self.data_version, version) != version)
    }

    fn kept(&self) -> Result<Kept, Error> {
        let mut statement = self.connection.prepare_cached("SELECT settings FROM site").map_err(unusable)?;
        let sites = statement.query_map([], |r| r.get(0)).and_then(Iterator::collect).map_err(unusable)?;
        let sql = "SELECT key_id, site, name, scopes, created, expires, last_used, revoked, secret_sha256 FROM api_key";
        let mut statement = self.connection.prepare_cached(sql).map_err(unusable)?;
        let keys = statement
            .query_map([], |r| Ok((key(r)?, r.get(8)?)))
            .and_then(Iterator::collect)
            .map_err(unusable)?;
        Ok(Kept { sites, keys })
    }

    fn put_site(&self, id: &str, settings: &str) -> Result<(), Error> {
        let sql = "INSERT INTO site VALUES(?1,?2) ON CONFLICT(id) DO UPDATE SET settings=?2";
        self.connection.execute(sql, params![id, settings]).map(drop).map_err(unusable)
    }

    fn add_key(&self, key: &ApiKey, secret_sha256: &[u8; 32]) -> Result<(), Error> {
        let sql = "INSERT INTO api_key VALUES(?1,?2,?3,?4,?5,?6,?7,NULL,NULL)";
        let row = params![
            key.key_id,
            key.site,
            key.name,
            key.scopes.join(" "),
            secret_sha256,
            key.created,
            key.expires
        ];
        self.connection.execute(sql, row).map(drop).map_err(unusable)
    }

    fn revoke_key(&self, key_id: &str, seconds: i64) -> Result<bool, Error> {
        let sql = "UPDATE api_key SET revoked=coalesce(revoked,?2) WHERE key_id=?1";
        Ok(self.connection.execute(sql, params![key_id, seconds]).map_err(unusable)? > 0)
    }

    fn stamp(&mut self, key_id: &str, seconds: i64) {
        let sql = "UPDATE api_key SET last_used=?2 WHERE key_id=?1";
        let _ = self.connection.execute(sql, params![key_id, seconds]);
    }

    /// They are written at once.
    fn uses(&mut self) -> Vec<(String, i64)> {
        Vec::new()
    }
}

fn key(row: &Row<'_>) -> rusqlite::Result<ApiKey> {
    Ok(ApiKey {
        key_id: row.get(0)?,
        site: row.get(1)?,
        name: row.get(2)?,
        scopes: row.get::<_, String>(3)?.split_whitespace().map(str::to_owned).collect(),
        created: row.get(4)?,
        expires: row.get(5)?,
        last_used: row.get(6)?,
        revoked: row.get(7)?,
    })
}

fn unusable(error: rusqlite::Error) -> Error {
    Error::unavailable("control.db cannot be used").because(error)
}

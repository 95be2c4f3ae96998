//! Site settings and API keys in the database of all sites. Each change counts `control_version` up; edges watch it (`watcher.rs`).

use std::collections::HashMap;
use std::time::Duration;

use super::connection::Connection;
use super::place::Place;
use super::settings::PostgresConfig;
use super::values::digest;
use super::{carried, migrate};
use crate::Error;
use crate::control::{ApiKey, ControlRows, Kept};

/// So long after a change every edge has heard of it, when all is well: a command that returns has taken effect.
const HEARD_AFTER: Duration = Duration::from_millis(150);

/// The tables `site` and `api_key`. Changes are rare: each takes a connection of its own.
pub(crate) struct ControlTables {
    place: Place,
    /// When keys were used last, to be written by the watcher.
    uses: HashMap<String, i64>,
}

impl ControlTables {
    /// Connects, checks what the server is, migrates. Blocks.
    pub(crate) fn open(settings: &PostgresConfig) -> Result<Self, Error> {
        let place = Place::new(settings)?;
        let connection = place.connect_to_write()?;
        migrate::migrate(&connection).map_err(|error| place.named(error))?;
        carried::carry_over(&place).map_err(|error| place.named(error))?;
        Ok(Self { place, uses: HashMap::new() })
    }
}

impl ControlRows for ControlTables {
    /// The watcher tells.
    fn has_changed(&mut self) -> Result<bool, Error> {
        Ok(false)
    }

    fn kept(&self) -> Result<Kept, Error> {
        kept(&self.place.connect()?)
    }

    fn put_site(&self, id: &str, settings: &str) -> Result<(), Error> {
        let sql = "INSERT INTO site(id,settings) VALUES($1,$2) ON CONFLICT(id) DO UPDATE SET settings=excluded.settings";
        let connection = self.place.connect()?;
        connection.query(sql, &[&id, &settings])?;
        changed(&connection)
    }

    fn add_key(&self, key: &ApiKey, secret_sha256: &[u8; 32]) -> Result<(), Error> {
        let sql = "INSERT INTO api_key(key_id,site,name,scopes,secret_sha256,created,expires) VALUES($1,$2,$3,$4,$5,$6,$7)";
        let connection = self.place.connect()?;
        let (scopes, secret) = (key.scopes.join(" "), secret_sha256.as_slice());
        connection
            .query(sql, &[&key.key_id, &key.site, &key.name, &scopes, &secret, &key.created, &key.expires])?;
        changed(&connection)?;
        std::thread::sleep(HEARD_AFTER);
        Ok(())
    }

    fn revoke_key(&self, key_id: &str, seconds: i64) -> Result<bool, Error> {
        let sql = "UPDATE api_key SET revoked=coalesce(revoked,$2) WHERE key_id=$1 RETURNING 1";
        let connection = self.place.connect()?;
        let found = connection.query(sql, &[&key_id, &seconds])?;
        changed(&connection)?;
        std::thread::sleep(HEARD_AFTER);
        Ok(!found.is_empty())
    }

    fn stamp(&mut self, key_id: &str, seconds: i64) {
        self.uses.insert(key_id.to_owned(), seconds);
    }

    fn uses(&mut self) -> Vec<(String, i64)> {
        self.uses.drain().collect()
    }
}

/// Everything kept.
pub(super) fn kept(connection: &Connection) -> Result<Kept, Error> {
    let sites = connection.query("SELECT settings FROM site", &[])?;
    let sql =
        "SELECT key_id, site, name, scopes, created, expires, last_used, revoked, secret_sha256 FROM api_key";
    let keys = connection.query(sql, &[])?;
    let key = |row: &tokio_postgres::Row| {
        let key = ApiKey {
            key_id: row.get(0),
            site: row.get(1),
            name: row.get(2),
            scopes: row.get::<_, &str>(3).split_whitespace().map(str::to_owned).collect(),
            created: row.get(4),
            expires: row.get(5),
            last_used: row.get(6),
            revoked: row.get(7),
        };
        Ok((key, digest(row.get(8))?))
    };
    Ok(Kept {
        sites: sites.iter().map(|row| row.get(0)).collect(),
        keys: keys.iter().map(key).collect::<Result<_, Error>>()?,
    })
}

/// Writes when keys were used. No edge has to hear of it.
pub(super) fn stamp(connection: &Connection, uses: &[(String, i64)]) -> Result<(), Error> {
    let sql = "UPDATE api_key SET last_used=greatest(last_used,$2) WHERE key_id=$1";
    uses.iter().try_for_each(|(key_id, seconds)| connection.query(sql, &[key_id, seconds]).map(drop))
}

fn changed(connection: &Connection) -> Result<(), Error> {
    let sql = "INSERT INTO meta VALUES('control_version','1') ON CONFLICT(k) DO UPDATE SET v=(meta.v::bigint+1)::text";
    connection.query(sql, &[]).map(drop)
}

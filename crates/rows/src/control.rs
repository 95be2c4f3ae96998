//! What is shared by all sites: where their settings and the API keys are kept.

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::Error;

/// What is kept: the settings of sites as JSON, and keys with the SHA-256 of their secrets.
#[derive(Clone, Default)]
pub struct Kept {
    /// Settings of each site.
    pub sites: Vec<String>,
    /// Each key with the digest of its secret.
    pub keys: Vec<(ApiKey, [u8; 32])>,
}

/// An API key as listed: never its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// The public part.
    pub key_id: String,
    /// Its site.
    pub site: String,
    /// What people call it.
    pub name: String,
    /// `system/Patient.rs`, `ingest/hl7v2`, …
    pub scopes: Vec<String>,
    /// Seconds since 1970.
    pub created: i64,
    /// Seconds since 1970; `None` = never.
    pub expires: Option<i64>,
    /// Seconds since 1970.
    pub last_used: Option<i64>,
    /// Seconds since 1970; revoked keys stay listed.
    pub revoked: Option<i64>,
}

/// Where settings and keys are kept: a small file, or tables of a server.
pub trait ControlRows: Send {
    /// Whether another process changed something since the last time this was asked; `false` where a watcher tells.
    ///
    /// # Errors
    /// `Unavailable`.
    fn has_changed(&mut self) -> Result<bool, Error>;
    /// Everything kept.
    ///
    /// # Errors
    /// `Unavailable`.
    fn kept(&self) -> Result<Kept, Error>;
    /// Creates or replaces the settings of a site, JSON.
    ///
    /// # Errors
    /// `Unavailable`.
    fn put_site(&self, id: &str, settings: &str) -> Result<(), Error>;
    /// Adds a key.
    ///
    /// # Errors
    /// `Unavailable`.
    fn add_key(&self, key: &ApiKey, secret_sha256: &[u8; 32]) -> Result<(), Error>;
    /// Revokes a key at a time (seconds since 1970), unless it is; whether there is one.
    ///
    /// # Errors
    /// `Unavailable`.
    fn revoke_key(&self, key_id: &str, seconds: i64) -> Result<bool, Error>;
    /// Notes that a key was used, seconds since 1970. Best effort: a missed stamp harms nobody.
    fn stamp(&mut self, key_id: &str, seconds: i64);
    /// Takes the uses of keys that a watcher has still to write: key and second.
    fn uses(&mut self) -> Vec<(String, i64)>;
}

/// Who is told by a watcher what other edges and commands changed.
pub trait ControlListener: Send + Sync {
    /// Counts how often everything was read again.
    fn reloads(&self) -> u64;
    /// Takes over what others changed, unless it was read before something newer: `reloads` is their number before it was read. Whether it
    /// was taken.
    ///
    /// # Errors
    /// `Unavailable` when something is stored that is not understood.
    fn learn(&self, kept: Kept, reloads: u64) -> Result<bool, Error>;
    /// Takes the uses of keys not written yet: key and second.
    fn uses(&self) -> Vec<(String, i64)>;
}

/// What a check of the rows needs to know of a site's settings.
#[derive(Deserialize)]
struct Zoned {
    id: String,
    #[serde(default)]
    timezone: String,
}

/// Id and zone of a site's settings; an unknown zone is UTC. `None` when they are not understood.
pub(crate) fn zone_of(settings: &str) -> Option<(String, TimeZone)> {
    let Zoned { id, timezone } = serde_json::from_str(settings).ok()?;
    Some((id, TimeZone::get(&timezone).unwrap_or(TimeZone::UTC)))
}

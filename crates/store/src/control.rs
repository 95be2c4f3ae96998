//! What is shared by all sites: site settings and API keys. One small database beside the sites'.
//!
//! Works while an edge runs: `hilum key revoke` in another process takes effect on the edge's next request (`PRAGMA data_version`).

use hilum_fhir::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Error, Site, SiteSettings};

/// The control database. Cheap to clone.
#[derive(Clone)]
pub struct Control {}

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

/// `hil_<keyid>_<secret>`: shown once.
pub struct KeySecret(pub String);

impl Control {
    /// Creates or replaces a site.
    pub fn put_site(&self, _settings: SiteSettings) -> Result<(), Error> {
        todo!()
    }

    /// All sites, disabled ones too, in order of id.
    pub fn sites(&self) -> Result<Vec<Site>, Error> {
        todo!()
    }

    /// The enabled site with this id.
    pub fn site(&self, _id: &str) -> Result<Option<Site>, Error> {
        todo!()
    }

    /// The enabled site that owns a called AE title.
    pub fn site_by_ae_title(&self, _ae_title: &str) -> Result<Option<Site>, Error> {
        todo!()
    }

    /// Makes a key. The secret is returned once and only its SHA-256 kept.
    pub fn add_key(&self, _site: &str, _name: &str, _scopes: &[String], _expires: Option<i64>, _now: Timestamp) -> Result<(ApiKey, KeySecret), Error> {
        todo!()
    }

    /// All keys, revoked ones too.
    pub fn keys(&self) -> Result<Vec<ApiKey>, Error> {
        todo!()
    }

    /// Revokes a key; false when there is none with this id.
    pub fn revoke_key(&self, _key_id: &str, _now: Timestamp) -> Result<bool, Error> {
        todo!()
    }

    /// The key and site of a presented `hil_…` text: unknown, wrong, expired and revoked ones cost the same time. Stamps last use (at most once a minute).
    pub fn authenticate(&self, _presented: &str, _now: Timestamp) -> Result<Option<(ApiKey, Site)>, Error> {
        todo!()
    }
}

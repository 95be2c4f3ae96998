//! A site: one tenant.

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Proof that a request belongs to a site. Only [`crate::Control`] makes one, from a credential or an admission rule, so that no
/// function of the store can be called without.
#[derive(Clone)]
pub struct Site(pub(crate) Arc<SiteSettings>);

/// What is configured of a site. The folder of its database and blobs is derived from `id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteSettings {
    /// `[A-Za-z0-9.-]{1,64}`.
    pub id: String,
    /// Called AE titles that belong to the site; unique in the process.
    #[serde(default)]
    pub ae_titles: Vec<String>,
    /// MSH-5 and MSH-6 that belong to the site.
    #[serde(default)]
    pub hl7_identities: Vec<Hl7Identity>,
    /// IANA zone of local times.
    #[serde(default = "utc")]
    pub timezone: String,
    /// `Identifier.system` of patient identifiers without a known assigning authority; empty = `urn:hilum:site:{id}:mrn`.
    #[serde(default)]
    pub patient_identifier_system: String,
    /// Assigning authorities and their identifier systems. A NamingSystem of the site that names one comes first.
    #[serde(default)]
    pub authorities: Vec<Authority>,
    /// Whether a number without an authority may be joined with a Patient known under another system.
    #[serde(default = "yes")]
    pub join_unqualified: bool,
    /// What becomes of a message whose patient has no number.
    #[serde(default)]
    pub unidentified: Unidentified,
    /// Who may send without a key (MLLP, DICOM). See [`Client`].
    #[serde(default)]
    pub clients: Vec<Client>,
    /// Outbound targets admitted in spite of the address rules: host names or CIDR.
    #[serde(default)]
    pub outbound_allow: Vec<String>,
    /// How long it keeps what is not current.
    #[serde(default)]
    pub retention: Retention,
    /// Whether listeners refuse it.
    #[serde(default)]
    pub disabled: bool,
}

/// An assigning authority: the names senders use for it, and the identifier system of its numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Authority {
    /// Namespaces (CX-4.1), Issuers of Patient ID (0010,0021), assigning authority names of HL7 v3.
    pub names: Vec<String>,
    /// `Identifier.system`: an absolute URI.
    pub system: String,
}

/// What becomes of a message whose patient has no number at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unidentified {
    /// It is refused.
    #[default]
    Reject,
    /// It makes a Patient of its own, which nothing ever matches.
    Keep,
}

/// How long a site keeps what is not current. 0 days = for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Days from receipt that the bytes of accepted submissions are kept. Images are not meant: they stay.
    pub originals_days: u32,
    /// Days from receipt that submissions are kept at all: sender, answer, issues, lineage, and the Provenance drawn from them.
    pub submissions_days: u32,
    /// Days that a version of a resource is kept after another has superseded it.
    pub versions_days: u32,
}

/// A receiver identity of HL7 v2; absent parts match anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hl7Identity {
    /// MSH-5.
    pub application: Option<String>,
    /// MSH-6.
    pub facility: Option<String>,
}

/// A sender known by its address and names: MLLP and DICOM have no keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// `mllp` (or `hl7-mllp`), `dicom`.
    pub protocols: Vec<String>,
    /// Networks it may come from; empty = any.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
    /// Calling AE title.
    #[serde(default)]
    pub calling_aet: Option<String>,
    /// MSH-3.
    #[serde(default)]
    pub msh3: Option<String>,
    /// MSH-4.
    #[serde(default)]
    pub msh4: Option<String>,
    /// Common name of its TLS certificate.
    #[serde(default)]
    pub tls_cn: Option<String>,
}

impl Site {
    /// The site's id.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// Its settings.
    pub fn settings(&self) -> &SiteSettings {
        &self.0
    }
}

impl SiteSettings {
    /// The identifier system of patients without a known authority.
    pub fn identifier_system(&self) -> String {
        if self.patient_identifier_system.is_empty() {
            format!("urn:hilum:site:{}:mrn", self.id)
        } else {
            self.patient_identifier_system.clone()
        }
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Site({})", self.0.id)
    }
}

impl PartialEq for Site {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Site {}

fn yes() -> bool {
    true
}

fn utc() -> String {
    "UTC".to_owned()
}

//! The configuration: one TOML file with what belongs to this node. Unknown keys are refused by name;
//! `HILUM__SECTION__KEY` overrides; without a file the development default runs on loopback.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use hilum_intake::store::{
    Authority, Client, Hl7Identity, PostgresConfig, Retention, S3Config, SiteSettings, Unidentified,
};
use hilum_listen::{Cors, Front, Limits};
use serde::{Deserialize, Serialize};

const ENVIRONMENT_PREFIX: &str = "HILUM__";

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// This node.
    #[serde(default)]
    pub(crate) node: Node,
    /// The database.
    #[serde(default)]
    pub(crate) store: StoreUrl,
    /// Where large objects lie.
    #[serde(default)]
    pub(crate) blobs: BlobUrl,
    /// FHIR REST.
    #[serde(default)]
    pub(crate) fhir: Fhir,
    /// Mapping.
    #[serde(default)]
    pub(crate) mapping: Mapping,
    /// Logs.
    #[serde(default)]
    pub(crate) log: Log,
    /// Open doors, one table for each socket.
    #[serde(default)]
    pub(crate) listen: Vec<Listen>,
    /// Tenants.
    #[serde(default)]
    pub(crate) site: Vec<Site>,
    /// Senders without a key (MLLP, DICOM).
    #[serde(default)]
    pub(crate) client: Vec<SiteClient>,
    /// Limits.
    #[serde(default)]
    pub(crate) limits: Limits,
}

/// `[node]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Node {
    /// Name of this edge.
    pub(crate) name: String,
    /// Folder of the embedded store and of blobs.
    pub(crate) data: PathBuf,
}

/// `[store]`
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StoreUrl {
    /// `sqlite` (below `node.data`) or `postgresql://USER@HOST/DATABASE`.
    pub(crate) url: String,
    /// Of a server: its password, when it is not in the URL.
    pub(crate) password: Option<String>,
    /// Of a server: the authorities of its certificate (PEM); without them those the platform trusts.
    pub(crate) ca: Option<PathBuf>,
}

impl std::fmt::Debug for StoreUrl {
    /// Without password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreUrl").finish_non_exhaustive()
    }
}

impl StoreUrl {
    /// The server; `None` = files.
    ///
    /// # Errors
    /// The URL is neither, or is not understood.
    pub(crate) fn server(&self) -> Result<Option<PostgresConfig>> {
        if self.url == "sqlite" {
            ensure!(
                self.password.is_none() && self.ca.is_none(),
                "[store] password and ca are of postgresql urls"
            );
            return Ok(None);
        }
        let is_server = ["postgresql://", "postgres://"].iter().any(|scheme| self.url.starts_with(scheme));
        ensure!(is_server, "[store] url: use \"sqlite\" or \"postgresql://USER@HOST/DATABASE\"");
        let server = PostgresConfig {
            password: self.password.clone(),
            ca: self.ca.clone(),
            ..PostgresConfig::new(self.url.clone())
        };
        server.check()?;
        Ok(Some(server))
    }
}

/// `[blobs]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BlobUrl {
    /// `file:` (below `node.data`) or `s3://BUCKET/PREFIX`.
    pub(crate) url: String,
    /// Of a bucket: address of a server other than AWS's.
    pub(crate) endpoint: Option<String>,
    /// Of a bucket: its region.
    pub(crate) region: Option<String>,
}

impl BlobUrl {
    /// The bucket; `None` = files.
    ///
    /// # Errors
    /// The URL is neither.
    pub(crate) fn bucket(&self) -> Result<Option<S3Config>> {
        if self.url == "file:" {
            ensure!(
                self.endpoint.is_none() && self.region.is_none(),
                "[blobs] endpoint and region are of s3 urls"
            );
            return Ok(None);
        }
        let rest = self.url.strip_prefix("s3://").unwrap_or_default().trim_end_matches('/');
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        ensure!(!bucket.is_empty(), "[blobs] url: use \"file:\" or \"s3://BUCKET/PREFIX\"");
        Ok(Some(S3Config {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
        }))
    }
}

/// `[fhir]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Fhir {
    /// Further bases that serve the same as `/fhir`.
    pub(crate) aliases: Vec<String>,
    /// Resource types nobody may delete.
    pub(crate) deny_delete: Vec<String>,
    /// Whether a client may choose the id of a new resource (`PUT`).
    pub(crate) client_ids: bool,
}

/// `[mapping]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Mapping {
    /// Rule files applied after ours, in order.
    pub(crate) overlays: Vec<PathBuf>,
}

/// `[log]`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    /// `text` or `json`.
    pub(crate) format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[[listen]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listen {
    /// The protocol spoken.
    pub(crate) protocol: Protocol,
    /// Address and port; port 0 takes a free one.
    pub(crate) address: SocketAddr,
    /// What an HTTP listener serves.
    #[serde(default)]
    pub(crate) surfaces: Vec<Surface>,
    /// `keys` (default) or `none` (loopback only).
    #[serde(default)]
    pub(crate) auth: AuthMode,
    /// The site of a listener with `auth = "none"`, or of a dedicated MLLP port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) site: Option<String>,
    /// Certificate chain (PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cert: Option<PathBuf>,
    /// Private key (PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<PathBuf>,
    /// Authorities of client certificates (PEM); a client without one is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) client_ca: Option<PathBuf>,
    /// Of mllp, and http that serves hl7: whether a positive acknowledgement says what was late, left out or joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ack_warnings: Option<bool>,
    /// Of http: what callers put before `/fhir`, when a proxy stands in front.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) public_url: Option<String>,
    /// Of http: addresses and networks of the proxies that are believed when they say who called and where.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) trusted_proxies: Vec<String>,
    /// Of http: origins whose pages may use it from a browser; `*` = every one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) cors_origins: Vec<String>,
}

/// The protocol of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    /// HTTP without TLS.
    Http,
    /// HTTP over TLS.
    Https,
    /// HL7 v2 over MLLP.
    Mllp,
    /// MLLP over TLS.
    Mllps,
    /// DICOM upper layer.
    Dicom,
    /// DICOM over TLS.
    Dicoms,
}

/// What an HTTP listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Surface {
    /// FHIR R4 at `/fhir`.
    Fhir,
    /// `/v2/ingest`, `/v3/ingest`.
    Hl7,
    /// `/ingest`.
    Mpps,
    /// `/metrics`.
    Metrics,
    /// `/admin/submissions`, `/admin/studies`.
    Admin,
}

/// How a listener knows its callers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AuthMode {
    /// `X-API-Key`.
    #[default]
    Keys,
    /// Nobody is asked; loopback only.
    None,
}

/// `[[site]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Site {
    /// `[A-Za-z0-9.-]{1,64}`
    pub(crate) id: String,
    /// Called AE titles.
    #[serde(default)]
    pub(crate) ae_titles: Vec<String>,
    /// Receiver identities (MSH-5, MSH-6).
    #[serde(default)]
    pub(crate) hl7_identities: Vec<Hl7Identity>,
    /// IANA zone.
    #[serde(default = "utc")]
    pub(crate) timezone: String,
    /// Identifier system of patients without a known authority.
    #[serde(default)]
    pub(crate) patient_identifier_system: String,
    /// Assigning authorities and their identifier systems.
    #[serde(default)]
    pub(crate) authority: Vec<Authority>,
    /// Whether a number without an authority may be joined with a Patient known under another system.
    #[serde(default = "yes")]
    pub(crate) join_unqualified: bool,
    /// What becomes of a message whose patient has no number: `reject` or `keep`.
    #[serde(default)]
    pub(crate) unidentified: Unidentified,
    /// Rule files for this site alone, applied after those of `[mapping]`, in order.
    #[serde(default)]
    pub(crate) overlays: Vec<PathBuf>,
    /// Outbound targets admitted in spite of the address rules.
    #[serde(default)]
    pub(crate) outbound_allow: Vec<String>,
    /// How long it keeps what is not current.
    #[serde(default)]
    pub(crate) retention: Retention,
}

/// `[[client]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SiteClient {
    /// Its site.
    pub(crate) site: String,
    /// `mllp`, `dicom`.
    pub(crate) protocols: Vec<String>,
    /// Networks it may come from, such as `10.1.0.0/16`; `*` or nothing = any.
    #[serde(default)]
    pub(crate) addresses: Vec<String>,
    /// Calling AE title.
    #[serde(default)]
    pub(crate) calling_aet: Option<String>,
    /// MSH-3.
    #[serde(default)]
    pub(crate) msh3: Option<String>,
    /// MSH-4.
    #[serde(default)]
    pub(crate) msh4: Option<String>,
}

impl Default for Node {
    fn default() -> Self {
        Self { name: "edge-1".into(), data: "data".into() }
    }
}

impl Default for StoreUrl {
    fn default() -> Self {
        Self { url: "sqlite".into(), password: None, ca: None }
    }
}

impl Default for BlobUrl {
    fn default() -> Self {
        Self { url: "file:".into(), endpoint: None, region: None }
    }
}

impl Default for Fhir {
    fn default() -> Self {
        Self {
            aliases: vec!["/baseR4".into()],
            deny_delete: vec!["AuditEvent".into(), "Provenance".into()],
            client_ids: true,
        }
    }
}

fn utc() -> String {
    "UTC".into()
}

fn yes() -> bool {
    true
}

impl Protocol {
    /// Whether it runs over TLS.
    pub(crate) fn is_encrypted(self) -> bool {
        matches!(self, Self::Https | Self::Mllps | Self::Dicoms)
    }

    /// Whether it is HTTP.
    pub(crate) fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Https)
    }

    /// As written in the configuration.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Mllp => "mllp",
            Self::Mllps => "mllps",
            Self::Dicom => "dicom",
            Self::Dicoms => "dicoms",
        }
    }
}

impl Listen {
    /// What stands in front of it.
    ///
    /// # Errors
    /// `public_url` or `trusted_proxies` is not understood.
    pub(crate) fn front(&self) -> Result<Front> {
        Ok(Front::new(self.public_url.as_deref(), &self.trusted_proxies)?)
    }

    /// The pages of other origins that may use it; `None` = none.
    ///
    /// # Errors
    /// `cors_origins` is not understood.
    pub(crate) fn cors(&self) -> Result<Option<Cors>> {
        Ok(Cors::new(&self.cors_origins)?)
    }

    /// Rules between its keys that only a listener of HTTP has.
    fn check_http(&self) -> Result<()> {
        let is_behind = self.public_url.is_some() || !self.trusted_proxies.is_empty();
        ensure!(
            self.protocol.is_http() || (!is_behind && self.cors_origins.is_empty()),
            "public_url, trusted_proxies and cors_origins are for http and https"
        );
        ensure!(
            self.auth == AuthMode::Keys || !is_behind,
            "public_url and trusted_proxies need auth = \"keys\": without keys only this machine is answered, and a proxy brings others"
        );
        self.front()?;
        let cors = self.cors()?;
        ensure!(
            self.auth == AuthMode::Keys || !cors.is_some_and(|cors| cors.is_any()),
            "cors_origins = [\"*\"] needs auth = \"keys\": without keys every page in a browser of this machine could read everything; \
             write the origins of the pages that may"
        );
        Ok(())
    }
}

impl Surface {
    /// As written in the configuration.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Fhir => "fhir",
            Self::Hl7 => "hl7",
            Self::Mpps => "mpps",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        }
    }
}

impl Config {
    /// The development default: every door on loopback, one site, data in `./data`.
    pub(crate) fn development() -> Result<Self> {
        Self::read(include_str!("../../../config/development.toml"), std::env::vars())
    }

    /// Reads a file, or the development default when there is none given.
    ///
    /// # Errors
    /// The file cannot be read, a key is unknown, or a rule between keys is broken; the text names the place.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Self::development() };
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::read(&text, std::env::vars()).with_context(|| format!("in {}", path.display()))
    }

    fn read(text: &str, environment: impl Iterator<Item = (String, String)>) -> Result<Self> {
        let mut table: toml::Table = text.parse().context("not toml")?;
        for (name, value) in environment {
            if let Some(path) = name.strip_prefix(ENVIRONMENT_PREFIX) {
                overlay(&mut table, path, &value)
                    .with_context(|| format!("in the environment variable {name}"))?;
            }
        }
        let config: Self = toml::Value::Table(table).try_into()?;
        config.check()?;
        Ok(config)
    }

    /// The settings of every site, its clients included.
    ///
    /// # Errors
    /// A client names an unknown site or a wrong network.
    pub(crate) fn sites(&self) -> Result<Vec<SiteSettings>> {
        let mut sites: Vec<SiteSettings> = self.site.iter().map(settings).collect();
        for client in &self.client {
            let site = sites.iter_mut().find(|s| s.id == client.site).with_context(|| {
                format!("[[client]] names the site {:?}, which has no [[site]] table", client.site)
            })?;
            site.clients.push(admission(client)?);
        }
        Ok(sites)
    }

    /// Rules between keys that types cannot express.
    fn check(&self) -> Result<()> {
        self.store.server()?;
        self.blobs.bucket()?;
        ensure!(!self.listen.is_empty(), "no [[listen]] table: nothing would be open");
        ensure!(!self.site.is_empty(), "no [[site]] table: nobody's data could be taken");
        for listen in &self.listen {
            self.check_listener(listen)
                .with_context(|| format!("[[listen]] {} {}", listen.protocol.as_str(), listen.address))?;
        }
        let mut titles = HashSet::new();
        for site in &self.site {
            for title in &site.ae_titles {
                ensure!(
                    titles.insert(title),
                    "the ae title {title:?} belongs to two sites, one of them {:?}",
                    site.id
                );
            }
        }
        for site in &self.site {
            check_authorities(&site.authority).with_context(|| format!("[[site]] {:?}", site.id))?;
        }
        self.sites().map(drop)
    }

    fn check_listener(&self, listen: &Listen) -> Result<()> {
        if listen.auth == AuthMode::None {
            ensure!(listen.address.ip().is_loopback(), "auth = \"none\" is for loopback addresses only");
            ensure!(
                listen.site.is_some() || self.site.len() == 1,
                "auth = \"none\" with several sites needs a site key"
            );
        }
        if let Some(site) = &listen.site {
            ensure!(self.site.iter().any(|s| &s.id == site), "the site {site:?} has no [[site]] table");
        }
        ensure!(
            listen.protocol.is_http() != listen.surfaces.is_empty(),
            "surfaces are for http and https, and these need at least one"
        );
        ensure!(
            listen.protocol.is_encrypted() == (listen.cert.is_some() && listen.key.is_some()),
            "cert and key are for https, mllps and dicoms, and these need both"
        );
        let acknowledges = matches!(listen.protocol, Protocol::Mllp | Protocol::Mllps)
            || listen.surfaces.contains(&Surface::Hl7);
        ensure!(
            listen.ack_warnings.is_none() || acknowledges,
            "ack_warnings is for mllp, mllps and the surface hl7: nothing else acknowledges HL7 v2"
        );
        listen.check_http()
    }
}

fn settings(site: &Site) -> SiteSettings {
    SiteSettings {
        id: site.id.clone(),
        ae_titles: site.ae_titles.clone(),
        hl7_identities: site.hl7_identities.clone(),
        timezone: site.timezone.clone(),
        patient_identifier_system: site.patient_identifier_system.clone(),
        authorities: site.authority.clone(),
        join_unqualified: site.join_unqualified,
        unidentified: site.unidentified,
        clients: Vec::new(),
        outbound_allow: site.outbound_allow.clone(),
        retention: site.retention,
        disabled: false,
    }
}

/// Each name belongs to one authority, and each authority has a URI.
fn check_authorities(authorities: &[Authority]) -> Result<()> {
    let mut known = HashSet::new();
    for Authority { names, system } in authorities {
        let is_uri = system.split_once(':').is_some_and(|(scheme, rest)| {
            !rest.is_empty() && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        }) && !system.contains(char::is_whitespace);
        ensure!(
            is_uri,
            "[[site.authority]] system {system:?} is no absolute URI, such as \"https://hospital.example/mrn\" or \"urn:oid:1.2.3\""
        );
        ensure!(!names.is_empty(), "[[site.authority]] of the system {system:?} has no names");
        for name in names {
            ensure!(!name.trim().is_empty(), "[[site.authority]] of the system {system:?} has an empty name");
            ensure!(
                known.insert(name),
                "the name {name:?} is of two [[site.authority]] tables: one of them has to go"
            );
        }
    }
    Ok(())
}

fn admission(client: &SiteClient) -> Result<Client> {
    let mut addresses = Vec::new();
    for text in client.addresses.iter().filter(|a| *a != "*") {
        let network = match text.parse::<std::net::IpAddr>() {
            Ok(address) => address.into(),
            Err(_) => text.parse().with_context(|| {
                format!("[[client]] address {text:?} is neither an address nor a network")
            })?,
        };
        addresses.push(network);
    }
    Ok(Client {
        protocols: client.protocols.clone(),
        addresses,
        calling_aet: client.calling_aet.clone(),
        msh3: client.msh3.clone(),
        msh4: client.msh4.clone(),
        tls_cn: None,
    })
}

/// Sets `SECTION__KEY` or `LISTEN__0__ADDRESS`; a value that is no TOML literal is a string.
fn overlay(table: &mut toml::Table, path: &str, text: &str) -> Result<()> {
    let value = format!("v = {text}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(text.to_owned()));
    let keys: Vec<String> = path.split("__").map(str::to_lowercase).collect();
    let Some((last, sections)) = keys.split_last() else { bail!("no key") };
    let mut place = table;
    let mut at = 0;
    while at < sections.len() {
        let entry =
            place.entry(sections[at].clone()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        place = match entry {
            toml::Value::Table(inner) => inner,
            toml::Value::Array(list) => {
                at += 1;
                let index: usize =
                    sections.get(at).and_then(|s| s.parse().ok()).context("a list needs an index")?;
                list.get_mut(index)
                    .and_then(toml::Value::as_table_mut)
                    .context("the list has no such entry")?
            }
            _ => bail!("{} is no section", sections[at]),
        };
        at += 1;
    }
    place.insert(last.clone(), value);
    Ok(())
}

#[cfg(test)]
mod tests;

//! What is shared by all sites: site settings and API keys.
//!
//! Looked up in memory. Works while an edge runs: `hilum key revoke` in another process takes effect on the edge's next request, because
//! each look-up first asks whether the file changed (about a microsecond). On a server a watcher asks, many times a second, so that no look-up
//! waits for it.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use hilum_fhir::Timestamp;
use hilum_fhir::search::Context;
use hilum_rows::{ControlListener, ControlRows, Kept};
use parking_lot::Mutex;
use subtle::ConstantTimeEq;

use crate::{Access, ApiKey, Config, Error, ErrorKind, Site, SiteSettings, sha256};

const SECRET_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 6;
const USE_STAMP_SECONDS: i64 = 60;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The control database. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    state: Arc<Mutex<State>>,
}

struct State {
    rows: Box<dyn ControlRows>,
    sites: HashMap<String, Site>,
    keys: HashMap<String, Known>,
    reloads: u64,
}

/// A key with what it may do.
#[derive(Clone)]
struct Known {
    key: ApiKey,
    secret_sha256: [u8; 32],
    access: Arc<Access>,
}

/// Who presented a key.
#[derive(Clone, Debug)]
pub struct Authenticated {
    /// The public part of the key.
    pub key_id: String,
    /// Its site.
    pub site: Site,
    /// What it may do.
    pub access: Arc<Access>,
}

/// `hil_<keyid>_<secret>`: shown once.
pub struct KeySecret(pub String);

impl Control {
    /// Opens (creates) `control.db` in the data folder. Needs no lock: several processes may have it open.
    ///
    /// # Errors
    /// `Unavailable` when the file cannot be used or is of a newer version.
    pub fn open(data_dir: &Path) -> Result<Self, Error> {
        Self::open_for(&Config::new(data_dir.to_owned()))
    }

    /// Opens what the store of this configuration uses: `control.db`, or the server's tables (which are created and migrated). Blocks.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be used or is of a newer version.
    pub fn open_for(config: &Config) -> Result<Self, Error> {
        let rows = hilum_rows::open_control(&config.of_rows())?;
        let mut state = State { rows, sites: HashMap::new(), keys: HashMap::new(), reloads: 0 };
        state.reload()?;
        Ok(Self { state: Arc::new(Mutex::new(state)) })
    }

    /// Creates or replaces a site.
    ///
    /// # Errors
    /// `Conflict` when the id, the zone or an AE title is not acceptable; `Unavailable`.
    pub fn put_site(&self, settings: SiteSettings) -> Result<(), Error> {
        check_site(&settings)?;
        let mut state = self.state.lock();
        state.refresh()?;
        for other in state.sites.values().filter(|s| s.id() != settings.id) {
            if let Some(title) =
                settings.ae_titles.iter().find(|title| other.settings().ae_titles.contains(title))
            {
                return Err(conflict(format!(
                    "the ae title {title} belongs to the sites {} and {}",
                    other.id(),
                    settings.id
                )));
            }
        }
        if state.sites.get(&settings.id).is_some_and(|known| *known.settings() == settings) {
            return Ok(());
        }
        let text =
            serde_json::to_string(&settings).map_err(|e| Error::unavailable("site settings").because(e))?;
        state.rows.put_site(&settings.id, &text)?;
        state.reload()
    }

    /// All sites, disabled ones too, in order of id.
    ///
    /// # Errors
    /// `Unavailable`.
    pub fn sites(&self) -> Result<Vec<Site>, Error> {
        let mut state = self.state.lock();
        state.refresh()?;
        let mut sites: Vec<Site> = state.sites.values().cloned().collect();
        sites.sort_by(|a, b| a.id().cmp(b.id()));
        Ok(sites)
    }

    /// The enabled site with this id.
    ///
    /// # Errors
    /// `Unavailable`.
    pub fn site(&self, id: &str) -> Result<Option<Site>, Error> {
        let mut state = self.state.lock();
        state.refresh()?;
        Ok(state.sites.get(id).filter(|s| !s.settings().disabled).cloned())
    }

    /// The enabled site that owns a called AE title.
    ///
    /// # Errors
    /// `Unavailable`.
    pub fn site_by_ae_title(&self, ae_title: &str) -> Result<Option<Site>, Error> {
        let mut state = self.state.lock();
        state.refresh()?;
        let mut sites = state.sites.values().filter(|s| !s.settings().disabled);
        Ok(sites.find(|s| s.settings().ae_titles.iter().any(|title| title == ae_title)).cloned())
    }

    /// Makes a key. The secret is returned once and only its SHA-256 kept.
    ///
    /// # Errors
    /// `NotFound` for an unknown site, `Conflict` for a scope that is not understood; `Unavailable`.
    pub fn add_key(
        &self,
        site: &str,
        name: &str,
        scopes: &[String],
        expires: Option<i64>,
        now: Timestamp,
    ) -> Result<(ApiKey, KeySecret), Error> {
        let mut state = self.state.lock();
        state.refresh()?;
        let Some(of) = state.sites.get(site) else {
            let message = format!("there is no site {site}");
            return Err(Error { kind: ErrorKind::NotFound, message, issues: Vec::new(), source: None });
        };
        Access::check(scopes, &context_of(Some(of))).map_err(conflict)?;
        let (key_id, secret) = (random_text(KEY_ID_BYTES)?, random_text(SECRET_BYTES)?);
        let key = ApiKey {
            key_id: key_id.clone(),
            site: site.to_owned(),
            name: name.to_owned(),
            scopes: scopes.to_vec(),
            created: now.seconds(),
            expires,
            last_used: None,
            revoked: None,
        };
        let digest = sha256(secret.as_bytes());
        state.rows.add_key(&key, &digest)?;
        state.reload()?;
        Ok((key, KeySecret(format!("hil_{key_id}_{secret}"))))
    }

    /// All keys, revoked ones too, oldest first.
    ///
    /// # Errors
    /// `Unavailable`.
    pub fn keys(&self) -> Result<Vec<ApiKey>, Error> {
        let mut state = self.state.lock();
        state.refresh()?;
        let mut keys: Vec<ApiKey> = state.keys.values().map(|known| known.key.clone()).collect();
        keys.sort_by(|a, b| (a.created, &a.key_id).cmp(&(b.created, &b.key_id)));
        Ok(keys)
    }

    /// Revokes a key; false when there is none with this id.
    ///
    /// # Errors
    /// `Unavailable`.
    pub fn revoke_key(&self, key_id: &str, now: Timestamp) -> Result<bool, Error> {
        let mut state = self.state.lock();
        let changed = state.rows.revoke_key(key_id, now.seconds())?;
        state.reload()?;
        Ok(changed)
    }

    /// Who presents a `hil_…` text: unknown, wrong, expired and revoked ones cost the same time. Stamps last use (at most once a minute).
    ///
    /// # Errors
    /// `Unavailable`.
    pub fn authenticate(&self, presented: &str, now: Timestamp) -> Result<Option<Authenticated>, Error> {
        let mut state = self.state.lock();
        state.refresh()?;
        let (key_id, secret) =
            presented.strip_prefix("hil_").and_then(|rest| rest.split_once('_')).unwrap_or(("", presented));
        // an unknown key is compared with a digest nobody has the secret of, so that it costs the same
        let nobody = [0u8; 32];
        let expected = state.keys.get(key_id).map_or(nobody, |known| known.secret_sha256);
        let equal = bool::from(sha256(secret.as_bytes()).ct_eq(&expected));
        let Some((known, site)) = state.valid(key_id, now).filter(|_| equal) else { return Ok(None) };
        let is_stamped = known.key.last_used.is_some_and(|at| now.seconds() - at < USE_STAMP_SECONDS);
        let who = Authenticated { key_id: key_id.to_owned(), site, access: known.access.clone() };
        if !is_stamped {
            state.stamp(key_id, now.seconds());
        }
        Ok(Some(who))
    }

    /// What a key may do at a site now; `None` when it is unknown, expired, revoked or of another site. For what is done later for its owner.
    ///
    /// # Errors
    /// `Unavailable`.
    pub fn access_of(&self, key_id: &str, site: &Site, now: Timestamp) -> Result<Option<Arc<Access>>, Error> {
        let mut state = self.state.lock();
        state.refresh()?;
        let valid = state.valid(key_id, now).filter(|(_, of)| of.id() == site.id());
        Ok(valid.map(|(known, _)| known.access.clone()))
    }
}

impl ControlListener for Control {
    fn reloads(&self) -> u64 {
        self.state.lock().reloads
    }

    fn learn(&self, kept: Kept, reloads: u64) -> Result<bool, Error> {
        let mut state = self.state.lock();
        let is_newest = state.reloads == reloads;
        if is_newest {
            state.learn(kept)?;
        }
        Ok(is_newest)
    }

    fn uses(&self) -> Vec<(String, i64)> {
        self.state.lock().rows.uses()
    }
}

impl State {
    /// Reads everything again when another process changed it.
    fn refresh(&mut self) -> Result<(), Error> {
        if self.rows.has_changed()? { self.reload() } else { Ok(()) }
    }

    fn reload(&mut self) -> Result<(), Error> {
        let kept = self.rows.kept()?;
        self.reloads += 1;
        self.learn(kept)
    }

    fn learn(&mut self, kept: Kept) -> Result<(), Error> {
        let mut sites = HashMap::new();
        for text in kept.sites {
            let settings: SiteSettings = serde_json::from_str(&text)
                .map_err(|e| Error::unavailable("a site is stored that is not understood").because(e))?;
            sites.insert(settings.id.clone(), Site(Arc::new(settings)));
        }
        self.sites = sites;
        let known = |(key, secret_sha256): (ApiKey, [u8; 32])| {
            let access = Access::of(&key.scopes, None, &context_of(self.sites.get(&key.site)));
            (key.key_id.clone(), Known { key, secret_sha256, access: Arc::new(access) })
        };
        self.keys = kept.keys.into_iter().map(known).collect();
        Ok(())
    }

    /// A key that is neither expired nor revoked, with its site, which is not disabled.
    fn valid(&self, key_id: &str, now: Timestamp) -> Option<(&Known, Site)> {
        let is_valid = |known: &&Known| {
            known.key.revoked.is_none() && known.key.expires.is_none_or(|at| at > now.seconds())
        };
        let known = self.keys.get(key_id).filter(is_valid)?;
        let site = self.sites.get(&known.key.site).filter(|site| !site.settings().disabled)?;
        Some((known, site.clone()))
    }

    /// Best effort: a missed stamp harms nobody.
    fn stamp(&mut self, key_id: &str, seconds: i64) {
        self.rows.stamp(key_id, seconds);
        if let Some(known) = self.keys.get_mut(key_id) {
            known.key.last_used = Some(seconds);
        }
    }
}

/// What the filter of a scope needs to know of a site.
fn context_of(site: Option<&Site>) -> Context {
    let zone = site.and_then(|site| jiff::tz::TimeZone::get(&site.settings().timezone).ok());
    Context { zone: zone.unwrap_or(jiff::tz::TimeZone::UTC), now: jiff::Timestamp::now().into() }
}

fn check_site(settings: &SiteSettings) -> Result<(), Error> {
    let id = settings.id.as_bytes();
    let harmless = |b: &u8| b.is_ascii_alphanumeric() || *b == b'-' || *b == b'.';
    if id.is_empty() || id.len() > 64 || !id.iter().all(harmless) || id.iter().all(|b| *b == b'.') {
        return Err(conflict("a site id is 1 to 64 of A-Z, a-z, 0-9, - and .".to_owned()));
    }
    if jiff::tz::TimeZone::get(&settings.timezone).is_err() {
        return Err(conflict(format!("the site {} has an unknown time zone; use an iana name", settings.id)));
    }
    let mut titles = HashSet::new();
    for title in &settings.ae_titles {
        if title.trim() != title
            || title.is_empty()
            || title.len() > 16
            || !title.is_ascii()
            || !titles.insert(title)
        {
            return Err(conflict(format!(
                "the site {} has a wrong or repeated ae title (1 to 16 ascii characters)",
                settings.id
            )));
        }
    }
    Ok(())
}

/// Random text of this many bytes of entropy, in base 62.
fn random_text(bytes: usize) -> Result<String, Error> {
    // 62 symbols hold 5.95 bits each; a byte of 0..248 gives an unbiased symbol
    let symbols = (bytes * 8).div_ceil(5);
    let mut text = String::with_capacity(symbols);
    let mut random = [0u8; 64];
    while text.len() < symbols {
        getrandom::fill(&mut random).map_err(|e| Error::unavailable(format!("no randomness: {e}")))?;
        let usable = random.iter().filter(|b| **b < 248).map(|b| char::from(BASE62[usize::from(b % 62)]));
        text.extend(usable.take(symbols - text.len()));
    }
    Ok(text)
}

fn conflict(message: String) -> Error {
    Error { kind: ErrorKind::Conflict, message, issues: Vec::new(), source: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(id: &str, title: &str) -> SiteSettings {
        serde_json::from_value(serde_json::json!({ "id": id, "ae_titles": [title] })).unwrap()
    }

    #[test]
    fn a_key_works_until_it_is_revoked_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let (edge, command) = (Control::open(dir.path()).unwrap(), Control::open(dir.path()).unwrap());
        command.put_site(site("a", "A")).unwrap();
        let now = Timestamp::from_micros(1_000_000_000);
        let (key, secret) = command.add_key("a", "ris", &["ingest/hl7v2".into()], None, now).unwrap();
        assert_eq!(edge.authenticate(&secret.0, now).unwrap().unwrap().site.id(), "a");
        assert!(edge.authenticate("hil_unknown_x", now).unwrap().is_none());
        assert!(edge.authenticate(&format!("{}x", secret.0), now).unwrap().is_none());
        assert!(command.revoke_key(&key.key_id, now).unwrap());
        assert!(edge.authenticate(&secret.0, now).unwrap().is_none(), "effective on the next request");
        assert_eq!(edge.keys().unwrap().len(), 1, "revoked keys stay listed");
        let files = std::fs::read(dir.path().join("control.db")).unwrap();
        let wal = std::fs::read(dir.path().join("control.db-wal")).unwrap_or_default();
        let secret = secret.0.rsplit('_').next().unwrap().as_bytes().to_vec();
        assert!(
            ![files, wal].iter().any(|f| f.windows(secret.len()).any(|w| w == secret)),
            "the secret is in no file"
        );
    }

    #[test]
    fn expired_keys_and_disabled_sites_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let control = Control::open(dir.path()).unwrap();
        control.put_site(site("a", "A")).unwrap();
        let (_, secret) = control.add_key("a", "x", &[], Some(100), Timestamp::from_micros(0)).unwrap();
        assert!(control.authenticate(&secret.0, Timestamp::from_micros(99_000_000)).unwrap().is_some());
        assert!(control.authenticate(&secret.0, Timestamp::from_micros(100_000_000)).unwrap().is_none());
        control.put_site(SiteSettings { disabled: true, ..site("a", "A") }).unwrap();
        assert!(control.site("a").unwrap().is_none());
        assert!(control.authenticate(&secret.0, Timestamp::from_micros(99_000_000)).unwrap().is_none());
    }

    #[test]
    fn an_ae_title_has_one_site_and_the_error_names_both() {
        let dir = tempfile::tempdir().unwrap();
        let control = Control::open(dir.path()).unwrap();
        control.put_site(site("one", "X")).unwrap();
        let error = control.put_site(site("two", "X")).unwrap_err();
        assert!(error.message.contains("one") && error.message.contains("two"), "{error}");
        assert_eq!(control.site_by_ae_title("X").unwrap().unwrap().id(), "one");
        assert!(control.site_by_ae_title("x").unwrap().is_none());
        for bad in ["", "a/b", "..", "ü"] {
            assert!(control.put_site(site(bad, "Y")).is_err(), "{bad}");
        }
    }
}

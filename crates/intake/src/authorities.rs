//! Which identifier system the numbers of an assigning authority have: the active NamingSystem resources of a site decide, then its
//! configuration.
//!
//! They are read once and kept. What this edge commits is noticed at the commit; what another edge on the same server commits within
//! [`LOOKED_AFTER`] of the next submission.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hilum_fhir::search::{Context, Options, Query, decode_pairs};
use hilum_fhir::{ResourceType, Timestamp};
use hilum_store::{Authority, Commit, Error, Site, SiteSettings, Store};
use parking_lot::Mutex;
use serde_json::Value;

/// What another edge committed is looked for after so long.
const LOOKED_AFTER: Duration = Duration::from_millis(50);
/// Pages of NamingSystem resources read; further ones are not heeded.
const PAGES_MAX: usize = 20;
const PAGE: u32 = 500;

/// Names and their systems; the first that names one decides.
pub(crate) type Systems = Arc<[(String, String)]>;

/// The systems of all sites, as last read.
#[derive(Default)]
pub(crate) struct Authorities {
    sites: Mutex<HashMap<String, Known>>,
    /// Commits of this edge that wrote a NamingSystem of any site.
    commits: AtomicU64,
}

struct Known {
    systems: Systems,
    /// What was configured when they were read.
    configured: Vec<Authority>,
    /// The feed position up to which no other NamingSystem was written.
    position: u64,
    looked: Instant,
    /// The count of commits before they were read.
    commits: u64,
}

impl Authorities {
    /// The systems in force for the next submission of a site.
    ///
    /// # Errors
    /// `Unavailable`: without them a number could get another system than its authority's.
    pub(crate) async fn of(&self, store: &Store, site: &Site) -> Result<Systems, Error> {
        let newest = *store.watch(site)?.borrow();
        let configured = &site.settings().authorities;
        let commits = self.commits.load(Ordering::SeqCst);
        let kept = self.sites.lock().get(site.id()).and_then(|known| known.kept(configured, newest, commits));
        if let Some((systems, unlooked)) = kept {
            let Some(position) = unlooked else { return Ok(systems) };
            if !store.has_changed(site, naming_system()?, position).await? {
                self.looked(site, newest);
                return Ok(systems);
            }
        }
        let systems = read(store, site).await?;
        let known = Known {
            systems: systems.clone(),
            configured: configured.clone(),
            position: newest,
            looked: Instant::now(),
            // what was committed while they were read is perhaps not among them
            commits,
        };
        self.sites.lock().insert(site.id().to_owned(), known);
        Ok(systems)
    }

    /// Notes what a commit wrote: a NamingSystem acts from the next submission on.
    pub(crate) fn committed(&self, commit: &Commit) {
        if commit.outcomes.iter().any(|outcome| outcome.resource_type.name() == "NamingSystem") {
            self.commits.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn looked(&self, site: &Site, newest: u64) {
        if let Some(known) = self.sites.lock().get_mut(site.id()) {
            known.position = known.position.max(newest);
            known.looked = Instant::now();
        }
    }
}

impl Known {
    /// What is kept, and the position from which on it has to be looked whether it still holds; `None` when it has to be read again.
    fn kept(&self, configured: &[Authority], newest: u64, commits: u64) -> Option<(Systems, Option<u64>)> {
        if self.commits != commits || self.configured != configured {
            return None;
        }
        let holds = newest == self.position || self.looked.elapsed() < LOOKED_AFTER;
        Some((self.systems.clone(), (!holds).then_some(self.position)))
    }
}

async fn read(store: &Store, site: &Site) -> Result<Systems, Error> {
    let mut found: Vec<(String, Value)> = Vec::new();
    let query = active()?;
    let mut cursor = None;
    for _ in 0..PAGES_MAX {
        let page = store.search(site, &query, cursor.as_deref()).await?;
        let read = page
            .matches
            .into_iter()
            .filter_map(|version| Some((version.id, serde_json::from_slice(&version.body).ok()?)));
        found.extend(read);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    // the same order on every edge
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    let of_resources = found.iter().flat_map(|(_, resource)| of_resource(resource, site.id()));
    Ok(of_resources.chain(configured(site.settings())).collect())
}

fn active() -> Result<Query, Error> {
    let options = Options {
        strict: true,
        condition: false,
        bases: &[],
        count_max: PAGE,
        parameters_max: 8,
        or_values_max: 8,
        chain_depth_max: 4,
    };
    let context = Context { zone: jiff::tz::TimeZone::UTC, now: Timestamp::from_micros(0) };
    let pairs = decode_pairs(&format!("status=active&kind=identifier&_count={PAGE}"));
    let query = Query::parse(naming_system()?, &pairs, &options, &context);
    query.map(|(query, _)| query).map_err(|_| Error::unavailable("naming systems cannot be searched"))
}

fn naming_system() -> Result<ResourceType, Error> {
    ResourceType::from_name("NamingSystem").ok_or_else(|| Error::unavailable("no naming systems"))
}

/// The names of `[[site.authority]]` tables, and the URI each had before it had a table.
pub(crate) fn configured(settings: &SiteSettings) -> impl Iterator<Item = (String, String)> {
    settings.authorities.iter().flat_map(|authority| {
        let names = authority.names.iter();
        names.flat_map(|name| with_former(name, &authority.system, &settings.id))
    })
}

/// The names of a NamingSystem: what each of its other ids, and its name, has as `Identifier.system`. The system is the preferred URI, OID or
/// UUID, else the first.
fn of_resource(resource: &Value, site: &str) -> Vec<(String, String)> {
    let text = |value: &Value, member: &str| value.get(member).and_then(Value::as_str).map(str::to_owned);
    let ids = resource.get("uniqueId").and_then(Value::as_array).cloned().unwrap_or_default();
    let uris: Vec<(bool, String)> = ids
        .iter()
        .filter_map(|id| {
            let is_preferred = id.get("preferred").and_then(Value::as_bool).unwrap_or(false);
            Some((is_preferred, uri(&text(id, "type")?, &text(id, "value")?)?))
        })
        .collect();
    let Some((_, system)) = uris.iter().find(|(is_preferred, _)| *is_preferred).or(uris.first()) else {
        return Vec::new();
    };
    let mut names: Vec<(String, String)> = Vec::new();
    for id in &ids {
        let (Some(kind), Some(value)) = (text(id, "type"), text(id, "value")) else { continue };
        names.extend(uri(&kind, &value).map(|uri| (uri, system.clone())));
        names.extend(with_former(&value, system, site));
    }
    names.extend(text(resource, "name").iter().flat_map(|name| with_former(name, system, site)));
    names.retain(|(name, system)| name != system);
    names
}

/// A `uniqueId` as a URI; `None` for what is only a name.
fn uri(kind: &str, value: &str) -> Option<String> {
    let prefixed = |prefix: &str| {
        if value.starts_with(prefix) { value.to_owned() } else { format!("{prefix}{value}") }
    };
    match kind {
        "uri" => Some(value.to_owned()),
        "oid" => Some(prefixed("urn:oid:")),
        "uuid" => Some(prefixed("urn:uuid:")),
        _ => None,
    }
}

/// A name with its system, and the URI its numbers had before anybody named a system: what was stored under that is still found.
fn with_former(name: &str, system: &str, site: &str) -> [(String, String); 2] {
    let harmless = |c: char| if c.is_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let former: String = name.chars().map(harmless).collect();
    [(name.to_owned(), system.to_owned()), (format!("urn:hilum:site:{site}:hd:{former}"), system.to_owned())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, system: &str) -> (String, String) {
        (name.to_owned(), system.to_owned())
    }

    #[test]
    fn a_naming_system_gives_its_preferred_uri_to_every_other_id_and_its_name() {
        let resource = serde_json::json!({ "resourceType": "NamingSystem", "name": "South Ward", "uniqueId": [
            { "type": "other", "value": "SOUTH" },
            { "type": "oid", "value": "1.2.36.146" },
            { "type": "uri", "value": "https://south.example/mrn", "preferred": true },
        ] });
        let system = "https://south.example/mrn";
        assert_eq!(
            of_resource(&resource, "s"),
            [
                pair("SOUTH", system),
                pair("urn:hilum:site:s:hd:SOUTH", system),
                pair("urn:oid:1.2.36.146", system),
                pair("1.2.36.146", system),
                pair("urn:hilum:site:s:hd:1.2.36.146", system),
                pair("urn:hilum:site:s:hd:https___south.example_mrn", system),
                pair("South Ward", system),
                pair("urn:hilum:site:s:hd:South_Ward", system),
            ]
        );
    }

    #[test]
    fn an_oid_is_the_system_where_there_is_no_uri_and_a_bare_name_is_none() {
        let oid = serde_json::json!({ "uniqueId": [{ "type": "other", "value": "LAB" }, { "type": "oid", "value": "1.2.3" }] });
        assert!(of_resource(&oid, "s").contains(&pair("LAB", "urn:oid:1.2.3")));
        let name = serde_json::json!({ "name": "LAB", "uniqueId": [{ "type": "other", "value": "LAB" }] });
        assert!(of_resource(&name, "s").is_empty());
    }
}

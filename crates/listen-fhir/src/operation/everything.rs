//! `Patient/[id]/$everything`: a patient, what is in its compartment, and what that refers to
//! (<https://hl7.org/fhir/R4/patient-operation-everything.html>).
//!
//! One search after the other, for each type and each parameter of the compartment, in pages. A resource that several parameters find belongs to the
//! first of them. Where a page ends is said by the number of the search and its cursor; nothing is kept for it.

use std::collections::HashSet;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use hilum_fhir::search::{Options, Parameter, Query, compartment, index, parameter};
use hilum_fhir::{Resource, ResourceType};
use hilum_intake::store::{Right, Version};
use serde_json::json;

use super::{Inputs, bad};
use crate::answer::{Refusal, json as json_answer};
use crate::ask::Ask;
use crate::search::{CURSOR, bundle, may_be_included, shown};
use crate::{Door, mask};

/// A page ends when its resources have so many bytes.
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What `_type` may name.
const TYPES_MAX: usize = 200;

/// What is asked for.
struct Asked {
    /// Conditions that hold for each type: `_since`.
    pairs: Vec<(String, String)>,
    /// Conditions on the time of care, for the types that have one: `start`, `end`.
    times: Vec<(String, String)>,
    types: Option<Vec<ResourceType>>,
    count: u32,
    /// The search to go on with, and its cursor; `None` on the first page.
    from: Option<(usize, Option<String>)>,
}

pub(super) async fn everything(
    door: &Door,
    ask: &Ask,
    of: ResourceType,
    id: &str,
) -> Result<Response<Body>, Refusal> {
    let inputs = Inputs::read(door, ask)?;
    let asked = Asked::read(door, &inputs)?;
    let patient = super::meta::readable(door, ask, of, id, Right::Read).await?;
    let mut page = Page::default();
    if asked.from.is_none() && asked.wants(of) {
        page.add(patient, "match");
    }
    let next = page.fill(door, ask, of, id, &asked).await?;
    let own = format!("{}/{of}/{id}/$everything", ask.base);
    let mut link = vec![json!({ "relation": "self", "url": url(&own, &inputs, None) })];
    if let Some(next) = next {
        link.push(json!({ "relation": "next", "url": url(&own, &inputs, Some(&next)) }));
    }
    let head = json!({ "resourceType": "Bundle", "type": "searchset", "link": link });
    let entries = page.entries.iter().map(|(version, mode)| {
        let body = mask::body(ask, version.resource_type, &version.body);
        let full_url = format!("{}/{}/{}", ask.base, version.resource_type, version.id);
        (full_url, body, format!(r#"{{"search":{{"mode":"{mode}"}}}}"#))
    });
    Ok(json_answer(StatusCode::OK, shown(ask.pretty, bundle(&head, entries))))
}

impl Asked {
    fn read(door: &Door, inputs: &Inputs) -> Result<Self, Refusal> {
        let count_max = door.settings.limits.search.count_max;
        let (mut pairs, mut times, mut types) = (Vec::new(), Vec::new(), None);
        let (mut count, mut from) = (count_max, None);
        for (name, value) in &inputs.texts {
            let pair = |name: &str, prefix: &str| (name.to_owned(), format!("{prefix}{value}"));
            match name.as_str() {
                "_since" => pairs.push(pair("_lastUpdated", "ge")),
                "start" => times.push(pair("date", "ge")),
                "end" => times.push(pair("date", "le")),
                "_type" => types.get_or_insert_with(Vec::new).extend(named_types(value)?),
                "_count" => {
                    let wanted: u32 = value.parse().map_err(|_| bad("_count is a number"))?;
                    count = wanted.clamp(1, count_max);
                }
                CURSOR => {
                    from = Some(
                        read_cursor(value)
                            .ok_or_else(|| bad("the cursor of a page link is not to be changed"))?,
                    )
                }
                "_format" | "_pretty" => {}
                _ => return Err(bad("$everything takes start, end, _since, _type and _count")),
            }
        }
        Ok(Self { pairs, times, types, count, from })
    }

    fn wants(&self, of: ResourceType) -> bool {
        self.types.as_ref().is_none_or(|types| types.contains(&of))
    }

    /// The search for what refers to the patient by a parameter.
    fn query(&self, ask: &Ask, by: &Parameter, patient: &str) -> Result<Query, Refusal> {
        let of = by.resource_type;
        let mut pairs =
            vec![(by.name.to_owned(), patient.to_owned()), ("_include".to_owned(), format!("{of}:*"))];
        pairs.extend(self.pairs.iter().cloned());
        if parameter(of, "date").is_some() {
            pairs.extend(self.times.iter().cloned());
        }
        let options = Options { strict: true, condition: false, ..Options::condition() };
        let (mut query, _) = Query::parse(of, &pairs, &options, &ask.context()?)
            .map_err(|issues| Refusal::with(StatusCode::BAD_REQUEST, issues))?;
        ask.restrict(&mut query)?;
        Ok(query)
    }
}

/// What an answer holds.
#[derive(Default)]
struct Page {
    entries: Vec<(Version, &'static str)>,
    known: HashSet<(ResourceType, String)>,
    bytes: usize,
}

impl Page {
    fn add(&mut self, version: Version, mode: &'static str) {
        if self.known.insert((version.resource_type, version.id.clone())) {
            self.bytes += version.body.len();
            self.entries.push((version, mode));
        }
    }

    /// Runs the searches until the page is full. Returns where the next one begins.
    async fn fill(
        &mut self,
        door: &Door,
        ask: &Ask,
        of: ResourceType,
        id: &str,
        asked: &Asked,
    ) -> Result<Option<String>, Refusal> {
        let (store, site, patient) = (door.intake.store(), ask.site()?, format!("{of}/{id}"));
        let all = compartment(of);
        // what the caller may not read or search is not there for it
        let is_open = |of: ResourceType| {
            asked.wants(of) && ask.may(of, Right::Read).is_ok() && ask.may(of, Right::Search).is_ok()
        };
        let (begin, mut cursor) = asked.from.clone().unwrap_or_default();
        for (at, by) in all.iter().enumerate().skip(begin) {
            if !is_open(by.resource_type) {
                continue;
            }
            let mut query = asked.query(ask, by, &patient)?;
            let mut earlier = Vec::new();
            for before in all[..at].iter().filter(|before| before.resource_type == by.resource_type) {
                earlier.push(store.followed(site, &asked.query(ask, before, &patient)?).await?);
            }
            loop {
                let left = asked.count.saturating_sub(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
                if left == 0 || self.bytes >= PAGE_BYTES_MAX {
                    return Ok(Some(format!("{at}.{}", cursor.unwrap_or_default())));
                }
                query.count = Some(left);
                let found = store.search(site, &query, cursor.as_deref()).await?;
                for version in found.matches {
                    if ask.covers(Right::Read, &version)? && !is_of(&earlier, &version, ask)? {
                        self.add(version, "match");
                    }
                }
                for version in found.includes {
                    let is_member = version.resource_type == of
                        || all.iter().any(|parameter| parameter.resource_type == version.resource_type);
                    if !is_member && asked.wants(version.resource_type) && may_be_included(ask, &version)? {
                        self.add(version, "include");
                    }
                }
                cursor = found.next;
                if cursor.is_none() {
                    break;
                }
            }
        }
        Ok(None)
    }
}

/// Whether an earlier search finds a resource too.
fn is_of(earlier: &[Query], version: &Version, ask: &Ask) -> Result<bool, Refusal> {
    if earlier.is_empty() {
        return Ok(false);
    }
    let value = serde_json::from_slice(&version.body).unwrap_or_default();
    let Ok(resource) = Resource::from_value(value) else { return Ok(false) };
    let entries = index(&resource, &ask.context()?);
    Ok(earlier.iter().any(|query| query.matches(&entries, &version.id, version.last_updated)))
}

fn named_types(list: &str) -> Result<Vec<ResourceType>, Refusal> {
    let names: Vec<&str> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    if names.len() > TYPES_MAX {
        return Err(bad(format!("_type names more than {TYPES_MAX} types")));
    }
    let of = |name: &&str| {
        ResourceType::from_name(name).ok_or_else(|| bad("_type names what is no resource type of fhir r4"))
    };
    names.iter().map(of).collect()
}

fn read_cursor(text: &str) -> Option<(usize, Option<String>)> {
    let (at, cursor) = text.split_once('.')?;
    Some((at.parse().ok()?, Some(cursor.to_owned()).filter(|cursor| !cursor.is_empty())))
}

fn url(own: &str, inputs: &Inputs, cursor: Option<&str>) -> String {
    let mut url = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in inputs.texts.iter().filter(|(name, _)| name != CURSOR) {
        url.append_pair(name, value);
    }
    if let Some(cursor) = cursor {
        url.append_pair(CURSOR, cursor);
    }
    let query = url.finish();
    if query.is_empty() { own.to_owned() } else { format!("{own}?{query}") }
}

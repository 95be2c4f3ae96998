//! Read, vread, history.

use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use hilum_fhir::{Issue, IssueCode, ResourceType};
use hilum_intake::store::{Operation, Right, Version};
use serde_json::json;

use crate::answer::{Refusal, absent, empty, etag, of_version};
use crate::ask::Ask;
use crate::{Door, mask, provenance, search};

const HISTORY_COUNT: u32 = 100;

/// `GET T/id`
pub(crate) async fn read(
    door: &Door,
    ask: &Ask,
    of: ResourceType,
    id: &str,
) -> Result<Response<Body>, Refusal> {
    ask.may(of, Right::Read)?;
    if let Some(rendered) = provenance::read(door, ask, of, id).await? {
        return version(ask, Some(rendered));
    }
    let found = door.intake.store().read(ask.site()?, of, id).await?;
    version(ask, found)
}

/// `GET T/id/_history/v`
pub(crate) async fn vread(
    door: &Door,
    ask: &Ask,
    of: ResourceType,
    id: &str,
    number: &str,
) -> Result<Response<Body>, Refusal> {
    ask.may(of, Right::Read)?;
    let number = number.parse().map_err(|_| absent(None))?;
    if let Some(rendered) = provenance::read(door, ask, of, id).await? {
        return version(ask, Some(rendered).filter(|rendered| rendered.version == number));
    }
    let found = door.intake.store().vread(ask.site()?, of, id, number).await?;
    version(ask, found)
}

fn version(ask: &Ask, found: Option<Version>) -> Result<Response<Body>, Refusal> {
    let version = found.ok_or_else(|| absent(None))?;
    // one that the caller may not read is not there for it: nor is what was deleted, when it may read a part only
    if !ask.covers(Right::Read, &version)? {
        return Err(absent(None));
    }
    if version.body.is_empty() {
        return Err(absent(Some(&version)));
    }
    if not_modified(ask, &version) {
        let mut response = empty(StatusCode::NOT_MODIFIED);
        response.headers_mut().insert(header::ETAG, etag(version.version));
        return Ok(response);
    }
    let body = mask::body(ask, version.resource_type, &version.body);
    let body = search::shaped(ask, body)?;
    Ok(of_version(StatusCode::OK, version.version, version.last_updated, body))
}

/// RFC 9110 section 13.1: If-None-Match, else If-Modified-Since.
fn not_modified(ask: &Ask, version: &Version) -> bool {
    if let Some(tags) = ask.header(header::IF_NONE_MATCH) {
        let current = format!("\"{}\"", version.version);
        return tags
            .split(',')
            .map(|tag| tag.trim().trim_start_matches("W/"))
            .any(|tag| tag == "*" || tag == current);
    }
    ask.header(header::IF_MODIFIED_SINCE)
        .is_some_and(|since| since == crate::answer::http_date(version.last_updated))
}

/// `GET T/id/_history`
pub(crate) async fn history(
    door: &Door,
    ask: &Ask,
    of: ResourceType,
    id: &str,
) -> Result<Response<Body>, Refusal> {
    ask.may(of, Right::Read)?;
    let (mut count, mut before) = (HISTORY_COUNT, None);
    for (name, value) in &ask.query {
        let number = || value.parse::<u64>().map_err(|_| bad("_count and _before are numbers"));
        match name.as_str() {
            "_count" => {
                count = number()?
                    .clamp(1, u64::from(door.settings.limits.search.count_max))
                    .try_into()
                    .unwrap_or(HISTORY_COUNT)
            }
            "_before" => before = Some(number()?),
            "_format" | "_pretty" => {}
            _ => return Err(bad("a history takes _count and _before")),
        }
    }
    let mut versions = door.intake.store().history(ask.site()?, of, id, before, count + 1).await?;
    if before.is_none() {
        versions.extend(provenance::read(door, ask, of, id).await?);
    }
    let more = versions.len() > count as usize;
    versions.truncate(count as usize);
    let last = versions.last().map(|version| version.version).filter(|_| more);
    let readable: Vec<bool> =
        versions.iter().map(|version| ask.covers(Right::Read, version)).collect::<Result<_, _>>()?;
    let mut readable = readable.into_iter();
    versions.retain(|_| readable.next().unwrap_or(false));
    if versions.is_empty() && before.is_none() {
        return Err(absent(None));
    }
    let mut own = format!("{}/{of}/{id}/_history?_count={count}", ask.base);
    own.extend(form(ask));
    let mut link = vec![json!({ "relation": "self", "url": own })];
    if let Some(last) = last {
        link.push(json!({ "relation": "next", "url": format!("{own}&_before={last}") }));
    }
    let head = json!({ "resourceType": "Bundle", "type": "history", "link": link });
    let entries = versions.iter().map(|version| entry(ask, version));
    let body = search::shown(ask.pretty, search::bundle(&head, entries));
    Ok(crate::answer::json(StatusCode::OK, body))
}

/// `_format` and `_pretty` of a request, for the links of its answer.
fn form(ask: &Ask) -> impl Iterator<Item = String> {
    let of_form = |(name, _): &&(String, String)| name == "_format" || name == "_pretty";
    ask.query.iter().filter(of_form).map(|(name, value)| {
        let value: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
        format!("&{name}={value}")
    })
}

/// One history entry: what was asked, what came of it, and the version itself unless it is a deletion.
fn entry(ask: &Ask, version: &Version) -> (String, bytes::Bytes, String) {
    let Version { resource_type: of, id, version: number, .. } = version;
    let (method, url, status) = match version.operation {
        Operation::Create if *number == 1 => ("POST", of.to_string(), "201 Created"),
        Operation::Create => ("PUT", format!("{of}/{id}"), "201 Created"),
        Operation::Update => ("PUT", format!("{of}/{id}"), "200 OK"),
        Operation::Delete => ("DELETE", format!("{of}/{id}"), "204 No Content"),
    };
    let more = json!({
        "request": { "method": method, "url": url },
        "response": { "status": status, "etag": format!("W/\"{number}\""), "lastModified": version.last_updated.to_string(),
            "location": format!("{}/{of}/{id}/_history/{number}", ask.base) },
    });
    (format!("{}/{of}/{id}", ask.base), mask::body(ask, *of, &version.body), more.to_string())
}

fn bad(text: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, Issue::error(IssueCode::Invalid, text))
}

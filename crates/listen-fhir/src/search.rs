//! Type searches. Bundles are put together from the stored bytes; a body is only parsed when it must be cut or masked.

use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use bytes::Bytes;
use hilum_fhir::issue::operation_outcome;
use hilum_fhir::search::{Options, Query, Summary, decode_pairs};
use hilum_fhir::{Issue, IssueCode, ResourceType};
use hilum_intake::store::{Page, Right, Version};
use serde_json::{Value, json};

use crate::answer::{Refusal, json as json_answer};
use crate::ask::{Ask, essence, is_pretty, named};
use crate::format::Format;
use crate::{Door, mask, provenance};

/// The parameter that carries a page cursor.
pub(crate) const CURSOR: &str = "_cursor";
const FORM: &str = "application/x-www-form-urlencoded";
/// Elements every answer keeps.
const MANDATORY: [&str; 4] = ["resourceType", "id", "meta", "implicitRules"];

/// `GET T?…`
pub(crate) async fn get(door: &Door, ask: &Ask, of: ResourceType) -> Result<Response<Body>, Refusal> {
    let body = bundle_of(door, ask, of, &ask.query).await?;
    Ok(json_answer(StatusCode::OK, shown(ask.pretty, body)))
}

/// `POST T/_search`: form body and URL count alike.
pub(crate) async fn post(door: &Door, ask: &Ask, of: ResourceType) -> Result<Response<Body>, Refusal> {
    let form = ask.header(header::CONTENT_TYPE).is_none_or(|kind| essence(&kind) == FORM);
    if !form && !ask.body.is_empty() {
        let issue = Issue::error(IssueCode::NotSupported, format!("send {FORM}"));
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, issue));
    }
    let mut pairs = ask.query.clone();
    pairs.extend(decode_pairs(&String::from_utf8_lossy(&ask.body)));
    let format = named(&pairs, "_format").map_or(Ok(ask.format), Format::asked)?;
    let body = bundle_of(door, ask, of, &pairs).await?;
    let mut response = json_answer(StatusCode::OK, shown(is_pretty(&pairs), body));
    response.extensions_mut().insert(format);
    Ok(response)
}

/// The searchset of a search.
pub(crate) async fn bundle_of(
    door: &Door,
    ask: &Ask,
    of: ResourceType,
    pairs: &[(String, String)],
) -> Result<Bytes, Refusal> {
    ask.may(of, Right::Search)?;
    let cursor = pairs.iter().find(|(name, _)| name == CURSOR).map(|(_, value)| value.clone());
    let pairs: Vec<(String, String)> = pairs.iter().filter(|(name, _)| name != CURSOR).cloned().collect();
    let (mut query, mut warnings) = parse(door, ask, of, &pairs)?;
    ask.restrict(&mut query)?;
    if provenance::is_provenance(of) && !query.sort.is_empty() {
        unsorted(ask, &mut query, &mut warnings)?;
    }
    let mut page = if provenance::is_provenance(of) {
        provenance::search(door, ask, &query, cursor.as_deref()).await?
    } else {
        door.intake.store().search(ask.site()?, &query, cursor.as_deref()).await?
    };
    provenance::revinclude(door, ask, &query, &mut page).await?;
    let shown: Vec<bool> =
        page.includes.iter().map(|version| may_be_included(ask, version)).collect::<Result<_, _>>()?;
    let mut shown = shown.into_iter();
    page.includes.retain(|_| shown.next().unwrap_or(false));
    searchset(door, ask, of, &query, &page, warnings)
}

/// What is included is read.
pub(crate) fn may_be_included(ask: &Ask, version: &Version) -> Result<bool, Refusal> {
    Ok(ask.access()?.may(version.resource_type, Right::Read) && ask.covers(Right::Read, version)?)
}

fn parse(
    door: &Door,
    ask: &Ask,
    of: ResourceType,
    pairs: &[(String, String)],
) -> Result<(Query, Vec<Issue>), Refusal> {
    let limits = &door.settings.limits.search;
    // only an absolute address can be below one of them
    let is_absolute = |(_, value): &(String, String)| value.contains("://");
    let bases = if pairs.iter().any(is_absolute) { ask.own_bases(door)? } else { Vec::new() };
    let options = Options {
        strict: ask.strict,
        condition: false,
        bases: &bases,
        count_max: limits.count_max,
        parameters_max: limits.parameters_max,
        or_values_max: limits.or_values_max,
        chain_depth_max: limits.chain_depth_max,
    };
    let (query, warnings) = Query::parse(of, pairs, &options, &ask.context()?)
        .map_err(|issues| Refusal::with(StatusCode::BAD_REQUEST, issues))?;
    leads_over_stored_ones(&query)?;
    Ok((query, warnings))
}

/// What is rendered is not in the index that chains follow: a chain from it or over it would miss it.
fn leads_over_stored_ones(query: &Query) -> Result<(), Refusal> {
    let linked = query.linked();
    let over = linked.iter().any(|search| provenance::is_provenance(search.resource_type));
    if linked.is_empty() || !(over || provenance::is_provenance(query.resource_type)) {
        return Ok(());
    }
    let text = "chained parameters and _has do not lead from or over Provenances, which are rendered; search them by target, patient or agent";
    let issue = Issue::error(IssueCode::NotSupported, text);
    Err(Refusal::new(StatusCode::BAD_REQUEST, issue))
}

/// Rendered resources come newest first; another order is not silently something else.
fn unsorted(ask: &Ask, query: &mut Query, warnings: &mut Vec<Issue>) -> Result<(), Refusal> {
    let text = "the search parameter _sort is not supported for this type; the newest come first";
    if ask.strict {
        let issue = Issue::error(IssueCode::NotSupported, text).at("http._sort");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, issue));
    }
    query.sort.clear();
    query.applied.retain(|(name, _)| name != "_sort");
    warnings.push(Issue::warning(IssueCode::NotSupported, text).at("http._sort"));
    Ok(())
}

fn searchset(
    door: &Door,
    ask: &Ask,
    of: ResourceType,
    query: &Query,
    page: &Page,
    mut warnings: Vec<Issue>,
) -> Result<Bytes, Refusal> {
    if page.includes_cut {
        warnings.push(Issue::warning(
            IssueCode::Incomplete,
            "there are more included resources than are returned; narrow the search",
        ));
    }
    let own = format!("{}/{of}", ask.base);
    let mut link = vec![json!({ "relation": "self", "url": url(&own, query, None) })];
    if let Some(cursor) = &page.next {
        let next = url(&own, query, Some(cursor));
        can_be_followed(door, ask, &next)?;
        link.push(json!({ "relation": "first", "url": url(&own, query, None) }));
        link.push(json!({ "relation": "next", "url": next }));
    }
    let mut head = json!({ "resourceType": "Bundle", "type": "searchset" });
    if let Some(total) = page.total {
        head["total"] = total.into();
    }
    head["link"] = Value::Array(link);
    let entry = |version: &Version, mode: &str| {
        let full_url = format!("{}/{}/{}", ask.base, version.resource_type, version.id);
        let body = mask::body(ask, version.resource_type, &version.body);
        (full_url, cut(query, body), format!(r#"{{"search":{{"mode":"{mode}"}}}}"#))
    };
    let outcome = (!warnings.is_empty()).then(|| {
        let body = Bytes::from(operation_outcome(&warnings).to_string());
        (String::new(), body, r#"{"search":{"mode":"outcome"}}"#.to_owned())
    });
    let matches = page.matches.iter().map(|v| entry(v, "match"));
    let includes = page.includes.iter().map(|v| entry(v, "include"));
    Ok(bundle(&head, matches.chain(includes).chain(outcome)))
}

/// A link is a GET. That of a long form may be larger than a request target may be: then there is no page rather than one that leads nowhere.
fn can_be_followed(door: &Door, ask: &Ask, next: &str) -> Result<(), Refusal> {
    let limits = &door.settings.limits;
    let (bytes, bytes_max) = (ask.target_bytes(next), limits.http.uri_bytes_max);
    if bytes <= bytes_max {
        return Ok(());
    }
    let text = format!(
        "there are more matches than fit on the page, and the link to the next one would have {bytes} bytes, more than the {bytes_max} of \
         http.uri_bytes_max: ask with a larger _count (at most {}) or for fewer values at once",
        limits.search.count_max
    );
    Err(Refusal::new(StatusCode::BAD_REQUEST, Issue::error(IssueCode::TooLong, text)))
}

/// A Bundle from its head and entries: full URL, resource bytes (empty = none), and further members as a JSON object.
pub(crate) fn bundle(head: &Value, entries: impl Iterator<Item = (String, Bytes, String)>) -> Bytes {
    let head = head.to_string();
    let mut out = Vec::with_capacity(4096);
    out.extend_from_slice(&head.as_bytes()[..head.len() - 1]);
    let mut first = true;
    for (full_url, body, more) in entries {
        out.extend_from_slice(if first { b",\"entry\":[{" } else { b",{" });
        first = false;
        if !full_url.is_empty() {
            out.extend_from_slice(format!("\"fullUrl\":{},", Value::String(full_url)).as_bytes());
        }
        if !body.is_empty() {
            out.extend_from_slice(b"\"resource\":");
            out.extend_from_slice(&body);
            out.push(b',');
        }
        out.extend_from_slice(&more.as_bytes()[1..]);
    }
    out.extend_from_slice(if first { b"}" } else { b"]}" });
    out.into()
}

fn url(own: &str, query: &Query, cursor: Option<&str>) -> String {
    let mut url = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in &query.applied {
        match (name.as_str(), query.count) {
            ("_count", Some(count)) => url.append_pair(name, &count.to_string()),
            _ => url.append_pair(name, value),
        };
    }
    if let Some(cursor) = cursor {
        url.append_pair(CURSOR, cursor);
    }
    let query = url.finish();
    if query.is_empty() { own.to_owned() } else { format!("{own}?{query}") }
}

/// `_summary` and `_elements` of a read.
pub(crate) fn shaped(ask: &Ask, body: Bytes) -> Result<Bytes, Refusal> {
    let shaping: Vec<(String, String)> =
        ask.query.iter().filter(|(name, _)| name == "_summary" || name == "_elements").cloned().collect();
    if shaping.is_empty() {
        return Ok(shown(ask.pretty, body));
    }
    let of = ResourceType::from_name(&ask.segments[0]).ok_or_else(|| crate::answer::absent(None))?;
    let options = Options { strict: true, condition: false, ..Options::condition() };
    let (query, _) = Query::parse(of, &shaping, &options, &ask.context()?)
        .map_err(|i| Refusal::with(StatusCode::BAD_REQUEST, i))?;
    Ok(shown(ask.pretty, cut(&query, body)))
}

/// A body as it was asked for: for people, or as it is.
pub(crate) fn shown(pretty: bool, body: Bytes) -> Bytes {
    if !pretty {
        return body;
    }
    let pretty = serde_json::from_slice::<Value>(&body).and_then(|value| serde_json::to_vec_pretty(&value));
    pretty.map_or(body, Bytes::from)
}

/// Leaves out what was not asked for and says so with the tag SUBSETTED.
fn cut(query: &Query, body: Bytes) -> Bytes {
    if query.elements.is_empty() && matches!(query.summary, Summary::False | Summary::Count) {
        return body;
    }
    let Ok(Value::Object(mut object)) = serde_json::from_slice(&body) else { return body };
    object.retain(|name, _| {
        let plain = name.strip_prefix('_').unwrap_or(name);
        MANDATORY.contains(&plain)
            || match query.summary {
                Summary::Data => plain != "text",
                Summary::Text => plain == "text" || is_required(query.resource_type, plain),
                Summary::True => {
                    !matches!(plain, "text" | "contained" | "extension" | "note" | "presentedForm")
                }
                _ => query.elements.iter().any(|e| e == plain) || is_required(query.resource_type, plain),
            }
    });
    let tag =
        json!({ "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED" });
    if let Some(Value::Object(meta)) = object.get_mut("meta")
        && let Value::Array(tags) = meta.entry("tag").or_insert_with(|| json!([]))
    {
        tags.push(tag);
    }
    Value::Object(object).to_string().into()
}

fn is_required(of: ResourceType, element: &str) -> bool {
    hilum_fhir::validate::is_required(of, element)
}

//! Batch and transaction, <https://hl7.org/fhir/R4/http.html#transaction>.

use std::collections::HashSet;
use std::pin::Pin;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use bytes::Bytes;
use hilum_fhir::issue::operation_outcome;
use hilum_fhir::references::visit_references;
use hilum_fhir::search::decode_pairs;
use hilum_fhir::{Action, Change, Issue, IssueCode, Resource, ResourceType, Target, Timestamp};
use hilum_intake::store::{Effect, Outcome, Right};
use serde_json::{Value, json};

use crate::answer::{Refusal, json as json_answer};
use crate::ask::{self, Ask, PREFER, Return};
use crate::{Door, mask, search, write};

/// One entry, read.
enum Entry {
    Write(Box<Change>),
    Read(Box<Ask>),
}

/// `POST {base}`
pub(crate) async fn post(door: &Door, ask: &Ask) -> Result<Response<Body>, Refusal> {
    ask.caller()?;
    let bundle = ask.resource(&door.json)?;
    if bundle.resource_type().name() != "Bundle" {
        return Err(invalid("the base takes a Bundle; post other resources to their type", "resourceType"));
    }
    let entries = bundle.get("entry").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if entries.len() > door.settings.limits.fhir.bundle_entries_max {
        let text = format!("a bundle has at most {} entries", door.settings.limits.fhir.bundle_entries_max);
        return Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            Issue::error(IssueCode::TooLong, text).at("Bundle.entry"),
        ));
    }
    match bundle.get("type").and_then(Value::as_str) {
        Some("transaction") => transaction(door, ask, entries).await,
        Some("batch") => batch(door, ask, entries).await,
        _ => Err(invalid("the type is transaction or batch", "Bundle.type")),
    }
}

async fn transaction(door: &Door, ask: &Ask, entries: &[Value]) -> Result<Response<Body>, Refusal> {
    let full_url = |entry: &Value| entry.get("fullUrl").and_then(Value::as_str).map(str::to_owned);
    let full_urls: HashSet<String> = entries.iter().filter_map(full_url).collect();
    let mut read = Vec::with_capacity(entries.len());
    for (at, entry) in entries.iter().enumerate() {
        read.push(
            self::read(door, ask, entry, Some(&full_urls)).await.map_err(|refusal| placed(refusal, at))?,
        );
    }
    distinct(&read)?;
    // DELETE, POST, PUT: the order of processing; the answer keeps the order of the request
    let mut order: Vec<usize> = (0..read.len()).filter(|at| matches!(read[*at], Entry::Write(_))).collect();
    order.sort_by_key(|at| match &read[*at] {
        Entry::Write(change) => rank(change),
        Entry::Read(_) => 3,
    });
    let mut answers: Vec<Option<(Bytes, Value)>> = read.iter().map(|_| None).collect();
    let mut reads = Vec::new();
    let mut changes: Vec<Option<Change>> = Vec::new();
    for (at, entry) in read.into_iter().enumerate() {
        match entry {
            Entry::Write(change) => changes.push(Some(*change)),
            Entry::Read(one) => {
                changes.push(None);
                reads.push((at, one));
            }
        }
    }
    for (at, one) in &reads {
        may_be_read(door, one).await.map_err(|refusal| placed(refusal, *at))?;
    }
    let ordered: Vec<Change> = order.iter().filter_map(|at| changes[*at].take()).collect();
    if !ordered.is_empty() {
        let outcomes =
            write::accept(door, ask, ordered).await.map_err(|refusal| of_entry(refusal, &order))?;
        for (at, outcome) in order.iter().zip(&outcomes) {
            answers[*at] = Some(written(ask, outcome));
        }
    }
    // what was committed stays so: a read that fails now is told at its entry
    for (at, one) in reads {
        answers[at] = Some(get(door, &one).await.unwrap_or_else(|refusal| refused(&placed(refusal, at))));
    }
    Ok(response(ask, "transaction-response", answers.into_iter().flatten()))
}

async fn batch(door: &Door, ask: &Ask, entries: &[Value]) -> Result<Response<Body>, Refusal> {
    let mut answers = Vec::with_capacity(entries.len());
    for (at, entry) in entries.iter().enumerate() {
        let answer = match read(door, ask, entry, None).await {
            Ok(Entry::Write(change)) => {
                write::accept_one(door, ask, *change).await.map(|outcome| written(ask, &outcome))
            }
            Ok(Entry::Read(one)) => get(door, &one).await,
            Err(refusal) => Err(refusal),
        };
        answers.push(answer.unwrap_or_else(|refusal| refused(&placed(refusal, at))));
    }
    Ok(response(ask, "batch-response", answers.into_iter()))
}

fn response(ask: &Ask, kind: &str, answers: impl Iterator<Item = (Bytes, Value)>) -> Response<Body> {
    let head = json!({ "resourceType": "Bundle", "type": kind });
    let keep =
        ask.returns == Return::Representation && ask.header(PREFER).is_some_and(|p| p.contains("return="));
    let entries = answers.map(|(body, response)| {
        let is_read = response.get("location").is_none();
        let body = if keep || is_read { body } else { Bytes::new() };
        (String::new(), body, json!({ "response": response }).to_string())
    });
    json_answer(StatusCode::OK, search::bundle(&head, entries))
}

/// Reads one entry: scope, shape, conditions. Links in a transaction are resolved by the store; `full_urls` are what its entries are called, `None` in a
/// batch.
async fn read(
    door: &Door,
    ask: &Ask,
    entry: &Value,
    full_urls: Option<&HashSet<String>>,
) -> Result<Entry, Refusal> {
    let request = entry.get("request").ok_or_else(|| invalid("an entry has a request", "request"))?;
    let text = |name: &str| request.get(name).and_then(Value::as_str);
    let url = text("url").ok_or_else(|| invalid("a request has a url", "request.url"))?;
    let method = text("method").ok_or_else(|| invalid("a request has a method", "request.method"))?;
    if let "GET" | "HEAD" = method {
        let method = if method == "GET" { Method::GET } else { Method::HEAD };
        let mut one = ask.of_entry(door, method, url)?;
        for (header, member) in [("if-none-match", "ifNoneMatch"), ("if-modified-since", "ifModifiedSince")] {
            if let Some(value) = text(member).and_then(|text| HeaderValue::from_str(text).ok()) {
                one.headers.insert(header, value);
            }
        }
        return Ok(Entry::Read(Box::new(one)));
    }
    let below = ask.below_base(door, url)?;
    let (path, query) = below.split_once('?').unwrap_or((below, ""));
    let mut segments = path.split('/');
    let (name, id) = (segments.next().unwrap_or_default(), segments.next());
    if segments.next().is_some() || id == Some("") {
        return Err(invalid("a write in a bundle goes to a type or to one resource", "request.url"));
    }
    let of = ResourceType::from_name(name)
        .ok_or_else(|| invalid("the url names no resource type", "request.url"))?;
    let pairs = decode_pairs(query);
    let mut change = match (method, id) {
        ("POST", None) => {
            ask.may(of, Right::Create)?;
            let resource = resource(door, ask, entry, of, full_urls, false)?;
            mask::refuse_mask(&resource)?;
            match text("ifNoneExist") {
                Some(condition) => {
                    Change::new(Action::Ensure(write::none_exist(door, ask, of, condition)?, resource))
                }
                None => Change::new(Action::Create(resource)),
            }
        }
        ("PUT", Some(id)) => {
            ask.may(of, Right::Update)?;
            let mut resource = resource(door, ask, entry, of, full_urls, true)?;
            if resource.id() != Some(id) {
                return Err(invalid(
                    "the id of the resource is missing or other than the id of the url",
                    "resource.id",
                ));
            }
            write::prepare_update(door, ask, &mut resource, id).await?;
            Change::new(Action::Replace(Target::Id(of, id.to_owned()), resource))
        }
        ("PUT", None) => {
            ask.may(of, Right::Update)?;
            let resource = resource(door, ask, entry, of, full_urls, true)?;
            mask::refuse_mask(&resource)?;
            Change::new(Action::Replace(write::condition_target(door, ask, of, &pairs)?, resource))
        }
        ("DELETE", Some(id)) => {
            write::may_delete(door, ask, of)?;
            ask::check_id(id)?;
            Change::new(Action::Delete(Target::Id(of, id.to_owned())))
        }
        ("DELETE", None) => {
            write::may_delete(door, ask, of)?;
            Change::new(Action::Delete(write::condition_target(door, ask, of, &pairs)?))
        }
        _ => return Err(invalid("the method is not served in a bundle", "request.method")),
    };
    change.precondition = write::precondition(text("ifMatch"), text("ifNoneMatch"))?;
    change.full_url =
        entry.get("fullUrl").and_then(Value::as_str).filter(|_| full_urls.is_some()).map(str::to_owned);
    Ok(Entry::Write(Box::new(change)))
}

fn resource(
    door: &Door,
    ask: &Ask,
    entry: &Value,
    of: ResourceType,
    full_urls: Option<&HashSet<String>>,
    is_update: bool,
) -> Result<Resource, Refusal> {
    let value =
        entry.get("resource").cloned().ok_or_else(|| invalid("the entry has no resource", "resource"))?;
    let mut resource =
        Resource::from_value(value).map_err(|issue| Refusal::new(StatusCode::BAD_REQUEST, issue))?;
    if resource.resource_type() != of {
        return Err(invalid("the resourceType is not the type of the url", "resource.resourceType"));
    }
    let nothing = HashSet::new();
    let full_url = entry.get("fullUrl").and_then(Value::as_str);
    from_own_root(&mut resource, full_url, &ask.own_bases(door)?, full_urls.unwrap_or(&nothing));
    refuse_unknown_names(&mut resource, full_urls.unwrap_or(&nothing))?;
    write::localise(ask, &mut resource, &ask.own_bases(door)?, full_urls.unwrap_or(&nothing))?;
    write::checked(ask, &resource, is_update)?;
    if full_urls.is_none() {
        let mut conditional = false;
        let mut value = std::mem::replace(&mut resource, Resource::new(of)).into_value();
        visit_references(&mut value, &mut |object| {
            conditional |=
                object.get("reference").and_then(Value::as_str).is_some_and(|text| text.contains('?'));
        });
        if conditional {
            let issue = Issue::error(IssueCode::BusinessRule, "conditional references are for transactions");
            return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, issue));
        }
        resource =
            Resource::from_value(value).map_err(|issue| Refusal::new(StatusCode::BAD_REQUEST, issue))?;
    }
    Ok(resource)
}

/// A relative reference of an entry is relative to where its full URL says that it comes from (R4 bundle, "Resolving references in Bundles"): another entry from
/// there, or a resource of that server, never one of ours with the same id.
fn from_own_root(
    resource: &mut Resource,
    full_url: Option<&str>,
    own_bases: &[String],
    full_urls: &HashSet<String>,
) {
    let of = resource.resource_type().name();
    let root = full_url.and_then(|url| {
        let (rest, id) = url.rsplit_once('/')?;
        let root = rest.strip_suffix(of)?.strip_suffix('/')?;
        (root.starts_with("http") && !id.is_empty()).then_some(root)
    });
    let Some(root) = root else { return };
    let is_own = own_bases.iter().any(|base| base == root);
    each_reference(resource, &mut |reference| {
        let (name, id) = reference.split_once('/')?;
        let is_relative =
            ResourceType::from_name(name).is_some() && !id.is_empty() && !reference.contains('?');
        let there = format!("{root}/{reference}");
        (is_relative && (full_urls.contains(&there) || !is_own)).then_some(there)
    });
}

/// Refuses a reference by a name that only this bundle could give and no entry has: it would never lead anywhere.
fn refuse_unknown_names(resource: &mut Resource, full_urls: &HashSet<String>) -> Result<(), Refusal> {
    let mut is_unknown = false;
    each_reference(resource, &mut |reference| {
        is_unknown |= reference.starts_with("urn:uuid:") && !full_urls.contains(reference);
        None
    });
    if !is_unknown {
        return Ok(());
    }
    let text = "a reference names a urn:uuid that no entry of the transaction has as its fullUrl";
    let issue = Issue::error(IssueCode::NotFound, text).at("resource");
    Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, issue))
}

/// Hands each `Reference.reference` to `change`, and puts in its place what that gives.
fn each_reference(resource: &mut Resource, change: &mut dyn FnMut(&str) -> Option<String>) {
    let mut visit = |object: &mut serde_json::Map<String, Value>| {
        let changed = object.get("reference").and_then(Value::as_str).and_then(&mut *change);
        if let Some(changed) = changed {
            object.insert("reference".into(), Value::String(changed));
        }
    };
    for value in resource.object_mut().values_mut() {
        visit_references(value, &mut visit);
    }
}

fn rank(change: &Change) -> u8 {
    match change.action {
        Action::Delete(_) => 0,
        Action::Create(_) | Action::Ensure(..) => 1,
        _ => 2,
    }
}

/// The same resource twice in one transaction is refused.
fn distinct(entries: &[Entry]) -> Result<(), Refusal> {
    let mut seen = HashSet::new();
    for (at, entry) in entries.iter().enumerate() {
        let Entry::Write(change) = entry else { continue };
        if let Action::Replace(Target::Id(of, id), _) | Action::Delete(Target::Id(of, id)) = &change.action
            && !seen.insert((*of, id.clone()))
        {
            return Err(placed(invalid("the resource occurs twice in the transaction", "request.url"), at));
        }
        if let Some(url) = &change.full_url
            && !seen.insert((
                ResourceType::all().next().unwrap_or_else(|| unreachable!("there are types")),
                url.clone(),
            ))
        {
            return Err(placed(invalid("the fullUrl occurs twice in the transaction", "fullUrl"), at));
        }
    }
    Ok(())
}

/// Refuses a read before anything is written: one that is wrong or not allowed. A resource that is not there yet may be, after the writes.
async fn may_be_read(door: &Door, one: &Ask) -> Result<(), Refusal> {
    let segments: Vec<&str> = one.segments.iter().map(String::as_str).collect();
    let names_one = matches!(segments.as_slice(), [of, id] | [of, id, "_history"] | [of, id, "_history", _]
        if ResourceType::from_name(of).is_some() && !id.starts_with('$'));
    let may_come = |status| names_one && matches!(status, StatusCode::NOT_FOUND | StatusCode::GONE);
    match answered(door, one).await {
        Err(refusal) if !may_come(refusal.status) => Err(refusal),
        _ => Ok(()),
    }
}

/// A read of a bundle, answered as the request it stands for.
async fn get(door: &Door, one: &Ask) -> Result<(Bytes, Value), Refusal> {
    let (head, body) = answered(door, one).await?.into_parts();
    let mut response = json!({ "status": head.status.to_string() });
    if let Some(etag) = head.headers.get(header::ETAG).and_then(|etag| etag.to_str().ok()) {
        response["etag"] = etag.into();
    }
    if let Some(last_updated) = head.extensions.get::<Timestamp>() {
        response["lastModified"] = last_updated.to_string().into();
    }
    let body = match one.method {
        Method::HEAD => Bytes::new(),
        _ => to_bytes(body, usize::MAX).await.unwrap_or_default(),
    };
    Ok((body, response))
}

/// Boxed, because a route may lead to a bundle.
fn answered<'a>(
    door: &'a Door,
    one: &'a Ask,
) -> Pin<Box<dyn Future<Output = Result<Response<Body>, Refusal>> + Send + 'a>> {
    Box::pin(crate::route(door, one))
}

fn written(ask: &Ask, outcome: &Outcome) -> (Bytes, Value) {
    let status = match (outcome.effect, write::status(outcome)) {
        (Effect::Deleted, _) => "204 No Content",
        (_, StatusCode::CREATED) => "201 Created",
        _ => "200 OK",
    };
    let mut response = json!({ "status": status });
    if outcome.version > 0 {
        response["location"] = write::location(ask, outcome).into();
        response["etag"] = format!("W/\"{}\"", outcome.version).into();
        response["lastModified"] = outcome.last_updated.to_string().into();
    }
    (write::shown(ask, outcome), response)
}

fn refused(refusal: &Refusal) -> (Bytes, Value) {
    let outcome = operation_outcome(&refusal.issues);
    (Bytes::new(), json!({ "status": refusal.status.to_string(), "outcome": outcome }))
}

/// The issues of an entry, with its place.
fn placed(mut refusal: Refusal, at: usize) -> Refusal {
    refusal.issues.iter_mut().for_each(|issue| place(issue, at));
    refusal
}

/// As [`placed`], for what the store refused; `order` has the entry of each change.
fn of_entry(mut refusal: Refusal, order: &[usize]) -> Refusal {
    for issue in &mut refusal.issues {
        if let Some(at) = issue.change.and_then(|change| order.get(change)) {
            place(issue, *at);
        }
    }
    refusal
}

/// `Patient.gender` becomes `Bundle.entry[n].resource.gender`; what is about a type as a whole, or a parameter of a condition, is about the entry.
fn place(issue: &mut Issue, at: usize) {
    let place = issue.location.take().unwrap_or_default();
    let (first, rest) = place.split_once('.').unwrap_or((&place, ""));
    let within = match (first, ResourceType::from_name(first), rest) {
        ("", ..) | (_, Some(_), "") => String::new(),
        (_, Some(_), rest) => format!(".resource.{rest}"),
        ("http", ..) => ".request".to_owned(),
        _ => format!(".{place}"),
    };
    issue.location = Some(format!("Bundle.entry[{at}]{within}"));
}

fn invalid(text: &str, place: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, Issue::error(IssueCode::Invalid, text).at(place))
}

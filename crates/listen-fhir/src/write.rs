//! Create, update, delete, and their conditional forms. All of them end in `Intake::accept`.

use std::collections::HashSet;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use hilum_fhir::issue::operation_outcome;
use hilum_fhir::references::visit_references;
use hilum_fhir::search::{Options, Query, decode_pairs};
use hilum_fhir::validate::validate;
use hilum_fhir::{Action, Change, Issue, IssueCode, Precondition, Resource, ResourceType, Target};
use hilum_intake::normalise::Payload;
use hilum_intake::store::{Effect, Operation, Outcome, Right, Thing, Version};
use hilum_intake::{Source, Submission, sha256};
use serde_json::{Map, Value};

use crate::answer::{Refusal, empty, of_receipt, of_version};
use crate::ask::{Ask, IF_NONE_EXIST, PREFER, Return, lacking};
use crate::{Door, ask, mask, rules};

/// `POST T`, conditional with `If-None-Exist`.
pub(crate) async fn create(door: &Door, ask: &Ask, of: ResourceType) -> Result<Response<Body>, Refusal> {
    ask.may(of, Right::Create)?;
    let resource = body(door, ask, of)?;
    checked(ask, &resource, false)?;
    mask::refuse_mask(&resource)?;
    let action = match ask.header(IF_NONE_EXIST) {
        Some(condition) => Action::Ensure(none_exist(door, ask, of, &condition)?, resource),
        None => Action::Create(resource),
    };
    let outcome = accept_one(door, ask, Change::new(action)).await?;
    Ok(written(ask, &outcome))
}

/// `PUT T/id`
pub(crate) async fn update(
    door: &Door,
    ask: &Ask,
    of: ResourceType,
    id: &str,
) -> Result<Response<Body>, Refusal> {
    ask.may(of, Right::Update)?;
    let mut resource = body(door, ask, of)?;
    if resource.id() != Some(id) {
        let text = "the id of the body is missing or other than the id of the address";
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            Issue::error(IssueCode::Invalid, text).at(format!("{of}.id")),
        ));
    }
    prepare_update(door, ask, &mut resource, id).await?;
    let precondition =
        precondition(ask.header(header::IF_MATCH).as_deref(), ask.header(header::IF_NONE_MATCH).as_deref())?;
    let change =
        Change { precondition, ..Change::new(Action::Replace(Target::Id(of, id.to_owned()), resource)) };
    let outcome = accept_one(door, ask, change).await?;
    Ok(written(ask, &outcome))
}

/// `PUT T?query`
pub(crate) async fn conditional_update(
    door: &Door,
    ask: &Ask,
    of: ResourceType,
) -> Result<Response<Body>, Refusal> {
    ask.may(of, Right::Update)?;
    let resource = body(door, ask, of)?;
    checked(ask, &resource, true)?;
    mask::refuse_mask(&resource)?;
    let target = condition_target(door, ask, of, &filters(ask))?;
    let precondition =
        precondition(ask.header(header::IF_MATCH).as_deref(), ask.header(header::IF_NONE_MATCH).as_deref())?;
    let change = Change { precondition, ..Change::new(Action::Replace(target, resource)) };
    let outcome = accept_one(door, ask, change).await?;
    Ok(written(ask, &outcome))
}

/// `DELETE T/id`
pub(crate) async fn delete(
    door: &Door,
    ask: &Ask,
    of: ResourceType,
    id: &str,
) -> Result<Response<Body>, Refusal> {
    may_delete(door, ask, of)?;
    let precondition = precondition(ask.header(header::IF_MATCH).as_deref(), None)?;
    let change = Change { precondition, ..Change::new(Action::Delete(Target::Id(of, id.to_owned()))) };
    let outcome = accept_one(door, ask, change).await?;
    Ok(deleted(ask, &outcome))
}

/// `DELETE T?query`
pub(crate) async fn conditional_delete(
    door: &Door,
    ask: &Ask,
    of: ResourceType,
) -> Result<Response<Body>, Refusal> {
    may_delete(door, ask, of)?;
    let target = condition_target(door, ask, of, &filters(ask))?;
    let precondition = precondition(ask.header(header::IF_MATCH).as_deref(), None)?;
    let change = Change { precondition, ..Change::new(Action::Delete(target)) };
    let outcome = accept_one(door, ask, change).await?;
    Ok(deleted(ask, &outcome))
}

pub(crate) fn may_delete(door: &Door, ask: &Ask, of: ResourceType) -> Result<(), Refusal> {
    if door.settings.deny_delete.iter().any(|name| name == of.name()) {
        let issue = Issue::error(IssueCode::NotSupported, "resources of this type are not deleted here");
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, issue).allowing("GET, HEAD, PUT, OPTIONS"));
    }
    ask.may(of, Right::Delete)
}

/// The body as a resource of the type of the address.
fn body(door: &Door, ask: &Ask, of: ResourceType) -> Result<Resource, Refusal> {
    let mut resource = ask.resource(&door.json)?;
    if resource.resource_type() == of {
        localise(ask, &mut resource, &ask.own_bases(door)?, &HashSet::new())?;
        return Ok(resource);
    }
    let issue = Issue::error(IssueCode::Invalid, "the resourceType is not the type of the address")
        .at("resourceType");
    Err(Refusal::new(StatusCode::BAD_REQUEST, issue))
}

/// Makes absolute references to what this site has relative, so that they are the same however the server is called (R4 search, "reference").
/// Those `kept` stay: full URLs of a transaction, which name its entries. A conditional reference is a search.
///
/// # Errors
/// 403 where the caller may not search what a conditional reference asks for.
pub(crate) fn localise(
    ask: &Ask,
    resource: &mut Resource,
    bases: &[String],
    kept: &HashSet<String>,
) -> Result<(), Refusal> {
    let type_of = |text: &str| ResourceType::from_name(text.split(['/', '?']).next().unwrap_or_default());
    let mut searched = Vec::new();
    let mut relative = |object: &mut Map<String, Value>| {
        let Some(text) = object.get("reference").and_then(Value::as_str).filter(|text| !kept.contains(*text))
        else {
            return;
        };
        let below = bases.iter().find_map(|base| text.strip_prefix(base.as_str())?.strip_prefix('/'));
        let below = below.filter(|below| type_of(below).is_some()).map(str::to_owned);
        let named = below.as_deref().unwrap_or(text);
        searched.extend(type_of(named).filter(|_| named.contains('?')));
        if let Some(below) = below {
            object.insert("reference".into(), Value::String(below));
        }
    };
    for value in resource.object_mut().values_mut() {
        visit_references(value, &mut relative);
    }
    // the store resolves it, which knows no caller: who may search a part only cannot use it
    let access = ask.access()?;
    let hidden = searched.into_iter().find(|of| !access.is_whole(*of, Right::Search));
    hidden.map_or(Ok(()), |of| Err(lacking(of, Right::Search)))
}

/// Shape and rules: 422 for what violates them.
pub(crate) fn checked(ask: &Ask, resource: &Resource, is_update: bool) -> Result<(), Refusal> {
    refuse_subsetted(resource)?;
    let issues = validate(resource);
    if !issues.is_empty() {
        return Err(Refusal::with(StatusCode::UNPROCESSABLE_ENTITY, issues));
    }
    rules::check(ask, resource, is_update)
}

/// A part of a resource (`_elements`, `_summary`) sent back would replace the whole: R4 search, "Summary".
fn refuse_subsetted(resource: &Resource) -> Result<(), Refusal> {
    let tags = resource.get("meta").and_then(|meta| meta.get("tag")).and_then(Value::as_array);
    if !tags.is_some_and(|tags| tags.iter().any(|tag| tag["code"] == "SUBSETTED")) {
        return Ok(());
    }
    let text = "the tag SUBSETTED says that this is a part of a resource; read the whole one, without _elements and _summary, and change that";
    let issue =
        Issue::error(IssueCode::BusinessRule, text).at(format!("{}.meta.tag", resource.resource_type()));
    Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, issue))
}

/// Checks an update; secrets sent back masked are put in again, ids of clients' choice are refused where configured.
pub(crate) async fn prepare_update(
    door: &Door,
    ask: &Ask,
    resource: &mut Resource,
    id: &str,
) -> Result<(), Refusal> {
    ask::check_id(id)?;
    checked(ask, resource, true)?;
    let of = resource.resource_type();
    if mask::is_masked(resource)
        && let Some(stored) = door.intake.store().read(ask.site()?, of, id).await?
    {
        mask::restore(resource, &stored.body);
    }
    mask::refuse_mask(resource)?;
    if !door.settings.client_ids && door.intake.store().read(ask.site()?, of, id).await?.is_none() {
        let issue = Issue::error(IssueCode::NotSupported, "ids are given by the server; create with POST");
        return Err(
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, issue).allowing("GET, HEAD, DELETE, OPTIONS")
        );
    }
    Ok(())
}

fn filters(ask: &Ask) -> Vec<(String, String)> {
    ask.query.iter().filter(|(name, _)| name != "_format" && name != "_pretty").cloned().collect()
}

/// What `If-None-Exist` asks for. Clients send the query alone, with its question mark, behind the type, or as the whole URL of the search.
pub(crate) fn none_exist(
    door: &Door,
    ask: &Ask,
    of: ResourceType,
    condition: &str,
) -> Result<Target, Refusal> {
    let below = ask.below_base(door, condition.trim())?;
    let query = match below.split_once('?') {
        Some((name, query)) if name.is_empty() || name == of.name() => query,
        // a question mark within the value of a query is none of ours
        Some((name, _)) if !name.contains('=') => {
            let text = "If-None-Exist is a search for the type that is created: the query alone, or Type?query below a base of this server";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, Issue::error(IssueCode::Invalid, text)));
        }
        _ => below,
    };
    condition_target(door, ask, of, &decode_pairs(query))
}

/// A condition is a search, which the caller has to be allowed, and is always strict: a lenient one would change the wrong patient.
pub(crate) fn condition_target(
    door: &Door,
    ask: &Ask,
    of: ResourceType,
    pairs: &[(String, String)],
) -> Result<Target, Refusal> {
    ask.may(of, Right::Search)?;
    let bases = ask.own_bases(door)?;
    let limits = &door.settings.limits.search;
    let options = Options {
        bases: &bases,
        strict: true,
        condition: true,
        count_max: 1,
        parameters_max: limits.parameters_max,
        or_values_max: limits.or_values_max,
        chain_depth_max: limits.chain_depth_max,
    };
    let parsed = Query::parse(of, pairs, &options, &ask.context()?);
    let (mut query, _) = parsed.map_err(|issues| Refusal::with(StatusCode::BAD_REQUEST, issues))?;
    ask.restrict(&mut query)?;
    Ok(Target::Query(Box::new(query)))
}

/// `If-Match` and `If-None-Match: *` of a write.
pub(crate) fn precondition(
    if_match: Option<&str>,
    if_none_match: Option<&str>,
) -> Result<Precondition, Refusal> {
    let wrong = || {
        let issue = Issue::error(
            IssueCode::Value,
            "If-Match is a list of W/\"version\" or *; If-None-Match of a write is *",
        );
        Refusal::new(StatusCode::BAD_REQUEST, issue)
    };
    let versions = |text: &str| {
        if text.trim() == "*" {
            return Ok(Vec::new());
        }
        let tags = text.split(',').map(|tag| tag.trim().trim_start_matches("W/"));
        tags.map(|tag| {
            tag.strip_prefix('"')
                .and_then(|t| t.strip_suffix('"'))
                .and_then(|t| t.parse().ok())
                .ok_or_else(wrong)
        })
        .collect()
    };
    Ok(Precondition {
        if_match: if_match.map(versions).transpose()?,
        must_not_exist: match if_none_match {
            None => false,
            Some("*") => true,
            Some(_) => return Err(wrong()),
        },
    })
}

pub(crate) async fn accept_one(door: &Door, ask: &Ask, change: Change) -> Result<Outcome, Refusal> {
    let mut outcomes = accept(door, ask, vec![change]).await?;
    outcomes.pop().ok_or_else(|| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, Issue::error(IssueCode::Exception, "no outcome"))
    })
}

/// Commits changes as one submission, when the caller may make each of them.
pub(crate) async fn accept(
    door: &Door,
    ask: &Ask,
    mut changes: Vec<Change>,
) -> Result<Vec<Outcome>, Refusal> {
    let caller = ask.caller()?;
    for (at, change) in changes.iter_mut().enumerate() {
        permit(door, ask, change).await.map_err(|refusal| about(refusal, at))?;
    }
    let submission = Submission {
        site: caller.site.clone(),
        source: Source {
            listener: Arc::clone(&caller.listener),
            peer: Some(caller.peer),
            identity: caller.key_id.as_ref().map(ToString::to_string),
            ..Source::default()
        },
        payload: Payload::Fhir(changes),
        received: hilum_intake::now(),
        original: None,
        sha256: sha256(&ask.body),
        content_type: crate::answer::FHIR_JSON,
        control: None,
        reply: None,
    };
    Ok(of_receipt(door.intake.accept(submission).await)?.commit.outcomes)
}

/// Refuses a change that a scope with a filter leaves out: what is written has to be within it, and what stands there before it too. That is the version
/// that was looked at, or the write finds another one and is refused.
async fn permit(door: &Door, ask: &Ask, change: &mut Change) -> Result<(), Refusal> {
    let access = ask.access()?;
    let (of, right, target, content) = match &change.action {
        Action::Create(content) | Action::Ensure(_, content) => {
            (content.resource_type(), Right::Create, None, Some(content))
        }
        Action::Replace(target, content) => {
            (content.resource_type(), Right::Update, Some(target), Some(content))
        }
        Action::Delete(target) => (target.resource_type(), Right::Delete, Some(target), None),
        // no client asks for another
        _ => return Ok(()),
    };
    if access.is_whole(of, right) {
        return Ok(());
    }
    let refuse = || {
        let text = format!(
            "the scopes of the key let it do this with a part of the resources of type {of}, which this one is not of"
        );
        Err(Refusal::new(StatusCode::FORBIDDEN, Issue::error(IssueCode::Forbidden, text)))
    };
    if let Some(content) = content {
        let thing =
            Thing { content, id: content.id().unwrap_or_default(), last_updated: hilum_intake::now() };
        if !access.covers(right, thing, &ask.context()?) {
            return refuse();
        }
    }
    let Some(target) = target else { return Ok(()) };
    let Target::Id(of, id) = target else {
        let text = "a key whose scope has a filter changes a resource by its id, not by a condition";
        return Err(Refusal::new(StatusCode::FORBIDDEN, Issue::error(IssueCode::Forbidden, text)));
    };
    let Some(version) = door.intake.store().read(ask.site()?, *of, id).await? else {
        change.precondition.must_not_exist |= content.is_some();
        return Ok(());
    };
    if !ask.covers(right, &version)? {
        return refuse();
    }
    if change.precondition.if_match.is_none() {
        change.precondition.if_match = Some(vec![version.version]);
    }
    Ok(())
}

/// A refusal of one of several changes.
fn about(mut refusal: Refusal, at: usize) -> Refusal {
    refusal.issues.iter_mut().for_each(|issue| issue.change = Some(at));
    refusal
}

/// The status of a write: 201 for a new resource, else 200.
pub(crate) fn status(outcome: &Outcome) -> StatusCode {
    if outcome.effect == Effect::Created { StatusCode::CREATED } else { StatusCode::OK }
}

pub(crate) fn location(ask: &Ask, outcome: &Outcome) -> String {
    format!("{}/{}/{}/_history/{}", ask.base, outcome.resource_type, outcome.id, outcome.version)
}

pub(crate) fn written(ask: &Ask, outcome: &Outcome) -> Response<Body> {
    let body = match ask.returns {
        Return::Minimal => Bytes::new(),
        Return::Representation => shown(ask, outcome),
        Return::Outcome => operation_outcome(&[]).to_string().into(),
    };
    let mut response = of_version(status(outcome), outcome.version, outcome.last_updated, body);
    if let Ok(location) = HeaderValue::from_str(&location(ask, outcome)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    applied(ask, &mut response);
    response
}

/// What was written, as the caller may see it: what stood there before it wrote is read, which it has to be allowed.
pub(crate) fn shown(ask: &Ask, outcome: &Outcome) -> Bytes {
    let body = outcome.body();
    let is_own = matches!(outcome.effect, Effect::Created | Effect::Updated);
    match is_own || may_be_read(ask, outcome, &body) {
        true => mask::body(ask, outcome.resource_type, &body),
        false => Bytes::new(),
    }
}

fn may_be_read(ask: &Ask, outcome: &Outcome, body: &Bytes) -> bool {
    let version = Version {
        resource_type: outcome.resource_type,
        id: outcome.id.clone(),
        version: outcome.version,
        last_updated: outcome.last_updated,
        operation: Operation::Update,
        submission: None,
        body: body.clone(),
    };
    ask.may(outcome.resource_type, Right::Read).is_ok() && ask.covers(Right::Read, &version).unwrap_or(false)
}

fn deleted(ask: &Ask, outcome: &Outcome) -> Response<Body> {
    if ask.returns == Return::Outcome {
        let mut response = crate::answer::json(StatusCode::OK, operation_outcome(&[]).to_string().into());
        applied(ask, &mut response);
        return response;
    }
    let mut response = empty(StatusCode::NO_CONTENT);
    if outcome.version > 0 {
        response.headers_mut().insert(header::ETAG, crate::answer::etag(outcome.version));
    }
    response
}

fn applied(ask: &Ask, response: &mut Response<Body>) {
    let applied = match ask.returns {
        Return::Minimal => "return=minimal",
        Return::Outcome => "return=OperationOutcome",
        Return::Representation if ask.header(PREFER).is_some_and(|p| p.contains("return=")) => {
            "return=representation"
        }
        Return::Representation => return,
    };
    response.headers_mut().insert("preference-applied", HeaderValue::from_static(applied));
}

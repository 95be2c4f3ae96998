//! `PATCH T/id` with JSON Patch (RFC 6902) or JSON Merge Patch (RFC 7396): <https://hl7.org/fhir/R4/http.html#patch>.
//!
//! A patch is applied to what its sender would read: secrets are masked in it, and what is masked is put in again as after a PUT. So none can be
//! copied into another element, or be found out by a `test`.

use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use hilum_fhir::patch::{Limits, Patch, PatchError, PatchErrorKind, apply, merge};
use hilum_fhir::{Action, Change, Issue, IssueCode, Precondition, Resource, ResourceType, Target, json};
use hilum_intake::store::{Right, Version};
use serde_json::{Map, Value};

use crate::answer::Refusal;
use crate::ask::{Ask, essence};
use crate::{Door, mask, operation, write};

const JSON_PATCH: &str = "application/json-patch+json";
/// Some clients name no more than JSON; what they send are the members that change.
const MERGE_PATCH: [&str; 2] = ["application/merge-patch+json", "application/json"];
/// Begun again so often when another writer was first.
const ATTEMPTS: usize = 5;

/// Without `If-Match` it is applied to the current version, whichever that is; with it to the one named, or not at all.
pub(crate) async fn patch(
    door: &Door,
    ask: &Ask,
    of: ResourceType,
    id: &str,
) -> Result<Response<Body>, Refusal> {
    ask.may(of, Right::Update)?;
    let patch = read(door, ask)?;
    let precondition = write::precondition(ask.header(header::IF_MATCH).as_deref(), None)?;
    let mut attempt = 1;
    loop {
        // a `test` tells what stands there: it is a read
        let version = operation::readable(door, ask, of, id, Right::Read).await?;
        if precondition
            .if_match
            .as_ref()
            .is_some_and(|wanted| !wanted.is_empty() && !wanted.contains(&version.version))
        {
            let issue = Issue::error(IssueCode::Conflict, "If-Match does not name the current version");
            return Err(Refusal::new(StatusCode::PRECONDITION_FAILED, issue));
        }
        let mut resource = patched(ask, &version, &patch)?;
        write::prepare_update(door, ask, &mut resource, id).await?;
        let precondition = Precondition { if_match: Some(vec![version.version]), ..Precondition::default() };
        let action = Action::Replace(Target::Id(of, id.to_owned()), resource);
        match write::accept_one(door, ask, Change { precondition, ..Change::new(action) }).await {
            Err(refusal) if refusal.status == StatusCode::PRECONDITION_FAILED && attempt < ATTEMPTS => {
                attempt += 1
            }
            done => return done.map(|outcome| write::written(ask, &outcome)),
        }
    }
}

/// A patch as it was sent.
enum Sent {
    Operations(Patch),
    Members(Map<String, Value>),
}

fn read(door: &Door, ask: &Ask) -> Result<Sent, Refusal> {
    let kind = essence(&ask.header(header::CONTENT_TYPE).unwrap_or_default());
    if kind != JSON_PATCH && !MERGE_PATCH.contains(&kind.as_str()) {
        let issue = Issue::error(IssueCode::NotSupported, format!("send {JSON_PATCH} or {}", MERGE_PATCH[0]));
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, issue));
    }
    let document =
        json::parse(&ask.body, &door.json).map_err(|issue| Refusal::new(StatusCode::BAD_REQUEST, issue))?;
    if kind != JSON_PATCH {
        return match document {
            Value::Object(members) => Ok(Sent::Members(members)),
            _ => {
                let text = format!(
                    "a merge patch is an object with the members that change; operations are {JSON_PATCH}"
                );
                Err(Refusal::new(StatusCode::BAD_REQUEST, Issue::error(IssueCode::Structure, text)))
            }
        };
    }
    let limits = Limits {
        depth_max: door.json.depth_max,
        nodes_max: door.json.nodes_max,
        bytes_max: door.settings.limits.http.body_inflated_bytes_max,
        ..Limits::default()
    };
    Patch::from_value(&document, &limits).map(Sent::Operations).map_err(|error| refused(&error))
}

/// What comes of a version: still a resource of its type with its id.
fn patched(ask: &Ask, version: &Version, patch: &Sent) -> Result<Resource, Refusal> {
    let body = mask::body(ask, version.resource_type, &version.body);
    let target: Value = serde_json::from_slice(&body).unwrap_or_default();
    let patched = match (patch, target) {
        (Sent::Operations(patch), target) => apply(&target, patch).map_err(|error| refused(&error))?,
        (Sent::Members(members), Value::Object(target)) => Value::Object(merge(&target, members.clone())),
        (Sent::Members(_), target) => target,
    };
    let unprocessable = |issue| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, issue);
    let resource = Resource::from_value(patched).map_err(unprocessable)?;
    if resource.resource_type() != version.resource_type || resource.id() != Some(&version.id) {
        let text = "a patch does not change the resourceType or the id";
        return Err(unprocessable(Issue::error(IssueCode::BusinessRule, text).at("id")));
    }
    Ok(resource)
}

fn refused(error: &PatchError) -> Refusal {
    let status = match error.kind {
        PatchErrorKind::BadDocument => StatusCode::BAD_REQUEST,
        PatchErrorKind::NoSuchPlace | PatchErrorKind::TestFailed | PatchErrorKind::TooLarge => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
    };
    Refusal::new(status, error.issue())
}

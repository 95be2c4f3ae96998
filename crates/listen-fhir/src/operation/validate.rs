//! `$validate`: what a write would be told, without writing (<https://hl7.org/fhir/R4/resource-operation-validate.html>).

use axum::body::Body;
use axum::http::{Response, StatusCode};
use hilum_fhir::issue::operation_outcome;
use hilum_fhir::validate::validate as check;
use hilum_fhir::{Issue, IssueCode, Resource, ResourceType};
use hilum_intake::store::Right;
use serde_json::Value;

use super::{Inputs, bad};
use crate::answer::{Refusal, absent, json};
use crate::ask::Ask;
use crate::{Door, rules};

const MODES: [&str; 4] = ["create", "update", "delete", "profile"];

/// 200 with an outcome, whatever the verdict; an error of the request itself is refused.
pub(super) async fn validate(
    door: &Door,
    ask: &Ask,
    of: ResourceType,
    id: Option<&str>,
) -> Result<Response<Body>, Refusal> {
    ask.caller()?;
    let inputs = Inputs::read(door, ask)?;
    let mode = inputs.text("mode");
    if mode.is_some_and(|mode| !MODES.contains(&mode)) {
        return Err(bad("mode is create, update, delete or profile"));
    }
    let resource = match (inputs.resource()?, id) {
        (Some(resource), _) => resource,
        (None, Some(id)) => stored(door, ask, of, id).await?,
        (None, None) => return Err(bad("send the resource, alone or as the parameter `resource`")),
    };
    let mut issues = told(ask, of, id, mode, &resource);
    issues.extend(profiles(&inputs, &resource));
    let body = operation_outcome(&issues).to_string();
    Ok(json(StatusCode::OK, crate::search::shown(ask.pretty, body.into())))
}

/// The resource that stands there, which is a read.
async fn stored(door: &Door, ask: &Ask, of: ResourceType, id: &str) -> Result<Resource, Refusal> {
    let version = super::meta::readable(door, ask, of, id, Right::Read).await?;
    let value = serde_json::from_slice(&version.body).unwrap_or_default();
    Resource::from_value(value).map_err(|_| absent(None))
}

fn told(
    ask: &Ask,
    of: ResourceType,
    id: Option<&str>,
    mode: Option<&str>,
    resource: &Resource,
) -> Vec<Issue> {
    if resource.resource_type() != of {
        let text = "the resourceType is not the type of the address";
        return vec![Issue::error(IssueCode::Invalid, text).at("resourceType")];
    }
    let mut issues = check(resource);
    if mode == Some("update") && id.is_some_and(|id| resource.id() != Some(id)) {
        let text = "the id of the body is missing or other than the id of the address";
        issues.push(Issue::error(IssueCode::Invalid, text).at(format!("{of}.id")));
    }
    if issues.is_empty()
        && let Err(refusal) = rules::check(ask, resource, mode == Some("update"))
    {
        issues.extend(refusal.issues);
    }
    issues
}

/// Profiles are not known here: nobody is to take the verdict for one by a profile.
fn profiles(inputs: &Inputs, resource: &Resource) -> Vec<Issue> {
    let asked = inputs.texts.iter().any(|(name, _)| name == "profile");
    let claimed = resource.get("meta").and_then(|meta| meta.get("profile")).and_then(Value::as_array);
    let text = "profiles are not known here: the resource was checked against base R4 only";
    match (asked, claimed) {
        (true, _) => vec![Issue::error(IssueCode::NotSupported, text)],
        (false, Some(claimed)) if !claimed.is_empty() => {
            let place = format!("{}.meta.profile", resource.resource_type());
            vec![Issue::warning(IssueCode::NotSupported, text).at(place)]
        }
        _ => Vec::new(),
    }
}

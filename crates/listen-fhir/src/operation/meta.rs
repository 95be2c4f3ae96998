//! `$meta`, `$meta-add`, `$meta-delete`: profiles, tags and security labels of one resource
//! (<https://hl7.org/fhir/R4/resource-operations.html>).

use axum::body::Body;
use axum::http::{Response, StatusCode};
use hilum_fhir::{Action, Change, Precondition, Resource, ResourceType, Target};
use hilum_intake::store::{Right, Version};
use serde_json::{Map, Value, json};

use super::{Inputs, bad};
use crate::answer::{Refusal, absent, of_version};
use crate::ask::Ask;
use crate::{Door, write};

/// Begun again so often when another writer was first.
const ATTEMPTS: usize = 5;
const LISTS: [&str; 3] = ["profile", "security", "tag"];

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Add,
    Delete,
}

/// The meta of the current version.
pub(super) async fn show(
    door: &Door,
    ask: &Ask,
    of: ResourceType,
    id: &str,
) -> Result<Response<Body>, Refusal> {
    let version = readable(door, ask, of, id, Right::Read).await?;
    Ok(answer(ask, &version))
}

/// Adds to the meta or takes away from it. What changes nothing makes no version.
pub(super) async fn change(
    door: &Door,
    ask: &Ask,
    of: ResourceType,
    id: &str,
    kind: Kind,
) -> Result<Response<Body>, Refusal> {
    ask.may(of, Right::Update)?;
    let inputs = Inputs::read(door, ask)?;
    let sent = inputs.value("meta", "valueMeta").and_then(Value::as_object);
    let sent = sent.ok_or_else(|| bad("send Parameters with the parameter `meta` and its valueMeta"))?;
    let mut attempt = 1;
    loop {
        let version = readable(door, ask, of, id, Right::Read).await?;
        let value = serde_json::from_slice(&version.body).unwrap_or_default();
        let mut resource = Resource::from_value(value).map_err(|_| absent(None))?;
        edit(&mut resource, sent, kind);
        write::checked(ask, &resource, true)?;
        let precondition = Precondition { if_match: Some(vec![version.version]), ..Precondition::default() };
        let action = Action::Replace(Target::Id(of, id.to_owned()), resource);
        match write::accept_one(door, ask, Change { precondition, ..Change::new(action) }).await {
            Err(refusal) if refusal.status == StatusCode::PRECONDITION_FAILED && attempt < ATTEMPTS => {
                attempt += 1
            }
            Err(refusal) => return Err(refusal),
            Ok(_) => return show(door, ask, of, id).await,
        }
    }
}

/// The current version, when the caller may do this with it.
pub(crate) async fn readable(
    door: &Door,
    ask: &Ask,
    of: ResourceType,
    id: &str,
    right: Right,
) -> Result<Version, Refusal> {
    ask.may(of, right)?;
    let found = door.intake.store().read(ask.site()?, of, id).await?;
    let version = found.ok_or_else(|| absent(None))?;
    if !ask.covers(right, &version)? {
        return Err(absent(None));
    }
    if version.body.is_empty() { Err(absent(Some(&version))) } else { Ok(version) }
}

fn edit(resource: &mut Resource, sent: &Map<String, Value>, kind: Kind) {
    let mut meta = resource.get("meta").and_then(Value::as_object).cloned().unwrap_or_default();
    for name in LISTS {
        let Some(sent) = sent.get(name).and_then(Value::as_array) else { continue };
        let mut kept = meta.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        match kind {
            Kind::Add => {
                for one in sent {
                    if !kept.iter().any(|known| is_same(known, one)) {
                        kept.push(one.clone());
                    }
                }
            }
            Kind::Delete => kept.retain(|known| !sent.iter().any(|one| is_same(known, one))),
        }
        match kept.is_empty() {
            true => drop(meta.shift_remove(name)),
            false => drop(meta.insert(name.to_owned(), Value::Array(kept))),
        }
    }
    resource.set("meta", Value::Object(meta));
}

/// Tags and labels are the same by system and code, profiles as a whole.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            ["system", "code"].iter().all(|name| one.get(*name) == other.get(*name))
        }
        _ => one == other,
    }
}

fn answer(ask: &Ask, version: &Version) -> Response<Body> {
    let value: Value = serde_json::from_slice(&version.body).unwrap_or_default();
    let meta = value.get("meta").cloned().unwrap_or_else(|| json!({}));
    let body =
        json!({ "resourceType": "Parameters", "parameter": [{ "name": "return", "valueMeta": meta }] });
    let body = crate::search::shown(ask.pretty, body.to_string().into());
    of_version(StatusCode::OK, version.version, version.last_updated, body)
}

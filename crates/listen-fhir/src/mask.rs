//! Secrets in Endpoint.header and Subscription.channel.header leave the store masked as `Name: ********`, unless the caller holds
//! `endpoint.reveal`; a write that sends the mask back keeps the stored value.

use std::collections::{HashMap, VecDeque};

use axum::http::StatusCode;
use bytes::Bytes;
use hilum_fhir::{Issue, IssueCode, Resource, ResourceType};
use hilum_intake::store::Scope;
use serde_json::Value;

use crate::answer::Refusal;
use crate::ask::Ask;

const MASK: &str = "********";

/// A body as this caller may see it.
pub(crate) fn body(ask: &Ask, of: ResourceType, body: &Bytes) -> Bytes {
    if !matches!(of.name(), "Endpoint" | "Subscription")
        || ask
            .caller
            .as_ref()
            .is_some_and(|caller| caller.key_id.is_some() && caller.has_scope(Scope::RevealEndpoint))
    {
        return body.clone();
    }
    let Ok(mut value) = serde_json::from_slice::<Value>(body) else { return body.clone() };
    let Some(headers) = headers(&mut value) else { return body.clone() };
    for header in headers {
        if let Some((name, _)) = header.as_str().and_then(|text| text.split_once(':')) {
            *header = Value::String(format!("{name}: {MASK}"));
        }
    }
    value.to_string().into()
}

/// Puts stored values where the mask was sent back: of several headers with one name each by its place among them. Not when the address is another one: who
/// may not see a secret does not send it elsewhere.
pub(crate) fn restore(resource: &mut Resource, stored: &[u8]) {
    let Ok(mut old) = serde_json::from_slice::<Value>(stored) else { return };
    if address(&old) != address(&resource.to_value()) {
        return;
    }
    let Some(old) = headers(&mut old).map(|list| list.clone()) else { return };
    let mut value = resource.to_value();
    let Some(sent) = headers(&mut value) else { return };
    let mut kept: HashMap<&str, VecDeque<&Value>> = HashMap::new();
    for header in &old {
        if let Some((name, _)) = split(header) {
            kept.entry(name).or_default().push_back(header);
        }
    }
    for header in sent {
        let Some((name, secret)) = split(header) else { continue };
        let stored = kept.get_mut(name).and_then(VecDeque::pop_front);
        if let Some(stored) = stored.filter(|_| secret == MASK) {
            *header = stored.clone();
        }
    }
    if let Ok(restored) = Resource::from_value(value) {
        *resource = restored;
    }
}

/// Whether a resource carries the mask.
pub(crate) fn is_masked(resource: &Resource) -> bool {
    if !matches!(resource.resource_type().name(), "Endpoint" | "Subscription") {
        return false;
    }
    let mut value = resource.to_value();
    headers(&mut value)
        .is_some_and(|list| list.iter().any(|header| split(header).is_some_and(|(_, secret)| secret == MASK)))
}

/// Refuses a mask that no stored value is behind: it would be sent as if it were the secret.
pub(crate) fn refuse_mask(resource: &Resource) -> Result<(), Refusal> {
    if !matches!(resource.resource_type().name(), "Endpoint" | "Subscription") || !is_masked(resource) {
        return Ok(());
    }
    let is_channel = resource.resource_type().name() == "Subscription";
    let place = if is_channel { "Subscription.channel.header" } else { "Endpoint.header" };
    let text = "a header is masked and nothing is stored that it stands for: send the value, or update by id and leave the address as it is";
    let issue = Issue::error(IssueCode::Value, text).at(place);
    Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, issue))
}

/// Name and value of a header line.
fn split(header: &Value) -> Option<(&str, &str)> {
    let (name, value) = header.as_str()?.split_once(':')?;
    Some((name.trim(), value.trim()))
}

/// Where the headers are sent to.
fn address(value: &Value) -> Option<&str> {
    let place = if value["resourceType"] == "Subscription" {
        &value["channel"]["endpoint"]
    } else {
        &value["address"]
    };
    place.as_str()
}

fn headers(value: &mut Value) -> Option<&mut Vec<Value>> {
    let holder = if value["resourceType"] == "Subscription" { value.get_mut("channel")? } else { value };
    holder.get_mut("header")?.as_array_mut()
}

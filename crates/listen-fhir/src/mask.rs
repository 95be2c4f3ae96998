//! Secrets in Endpoint.header and Subscription.channel.header leave the store masked as `Name: ********`, unless the caller holds
//! `endpoint.reveal`; a write that sends the mask back keeps the stored value.

use bytes::Bytes;
use hilum_fhir::{Resource, ResourceType};
use serde_json::Value;

use crate::ask::Ask;

const MASK: &str = "********";
const REVEAL: &str = "endpoint.reveal";

/// A body as this caller may see it.
pub(crate) fn body(ask: &Ask, of: ResourceType, body: &Bytes) -> Bytes {
    if !matches!(of.name(), "Endpoint" | "Subscription")
        || ask.caller.as_ref().is_some_and(|c| !c.everything && c.has_scope(REVEAL))
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

/// Puts stored values where the mask was sent back.
pub(crate) fn restore(resource: &mut Resource, stored: &[u8]) {
    let Ok(mut old) = serde_json::from_slice::<Value>(stored) else { return };
    let Some(old) = headers(&mut old).map(|list| list.clone()) else { return };
    let mut value = resource.to_value();
    let Some(sent) = headers(&mut value) else { return };
    for header in sent {
        let Some((name, secret)) = header.as_str().and_then(|text| text.split_once(':')) else { continue };
        if secret.trim() == MASK
            && let Some(kept) =
                old.iter().find(|o| o.as_str().is_some_and(|o| o.split(':').next() == Some(name)))
        {
            *header = kept.clone();
        }
    }
    if let Ok(restored) = Resource::from_value(value) {
        *resource = restored;
    }
}

/// Whether a resource carries the mask.
pub(crate) fn is_masked(resource: &Resource) -> bool {
    let mut value = resource.to_value();
    headers(&mut value)
        .is_some_and(|list| list.iter().any(|h| h.as_str().is_some_and(|text| text.ends_with(MASK))))
}

fn headers(value: &mut Value) -> Option<&mut Vec<Value>> {
    let holder = if value["resourceType"] == "Subscription" { value.get_mut("channel")? } else { value };
    holder.get_mut("header")?.as_array_mut()
}

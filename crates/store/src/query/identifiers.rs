//! The identifiers of a resource.

use hilum_fhir::{Match, Resource};
use serde_json::Value;

/// The identifiers of a resource.
pub(crate) fn identifiers(resource: &Resource) -> Vec<Match> {
    let text = |value: &Value, member: &str| value.get(member).and_then(Value::as_str).map(str::to_owned);
    identifier_list(resource)
        .iter()
        .filter_map(|identifier| {
            Some(Match {
                resource_type: resource.resource_type(),
                system: text(identifier, "system"),
                value: text(identifier, "value")?,
            })
        })
        .collect()
}

/// The list `identifier` of a resource; of types that have one only, that one.
pub(crate) fn identifier_list(resource: &Resource) -> &[Value] {
    match resource.get("identifier") {
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    }
}

/// The code of an identifier's type.
pub(crate) fn type_code(identifier: &Value) -> Option<&str> {
    identifier["type"]["coding"][0]["code"].as_str()
}

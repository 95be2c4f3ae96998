//! Merging what a message says into what is stored.

use serde_json::{Map, Value};

use crate::Resource;

/// Members a merge never touches.
const OWN: [&str; 3] = ["resourceType", "id", "meta"];

/// Applies `update` to `current`: paths in `clear` (dotted element names from the root, such as `name` or `period.end`) are
/// removed first; then objects merge member by member, every other value and every list replaces, but `identifier` lists
/// are united by system and value, member by member. `id`, `meta` and `resourceType` of `current` stay.
pub fn merge(current: &Resource, update: &Resource, clear: &[String]) -> Resource {
    let mut merged = current.clone();
    for path in clear {
        remove(merged.object_mut(), path);
    }
    for (name, value) in update.object() {
        if !OWN.contains(&name.as_str()) {
            merge_member(merged.object_mut(), name, value);
        }
    }
    merged
}

/// Whether two versions say the same: everything but `id`, `meta.versionId` and `meta.lastUpdated`.
pub fn same_content(one: &Resource, other: &Resource) -> bool {
    fn without_version(resource: &Resource) -> Value {
        let mut value = resource.to_value();
        if let Some(object) = value.as_object_mut() {
            object.shift_remove("id");
        }
        if let Some(Value::Object(meta)) = value.get_mut("meta") {
            meta.shift_remove("versionId");
            meta.shift_remove("lastUpdated");
        }
        if value.get("meta").is_some_and(|meta| meta.as_object().is_some_and(Map::is_empty))
            && let Some(object) = value.as_object_mut()
        {
            object.shift_remove("meta");
        }
        value
    }
    without_version(one) == without_version(other)
}

/// One pair of values still to be merged: the place is named by member names from the root. Nothing recurses on input: only
/// objects that exist on both sides are entered, and those are as deep as the stored resource at most.
fn merge_member(target: &mut Map<String, Value>, name: &str, update: &Value) {
    let mut work: Vec<(Vec<String>, Value)> = vec![(vec![name.to_owned()], update.clone())];
    while let Some((path, update)) = work.pop() {
        let Some((last, parents)) = path.split_last() else { continue };
        let Some(place) = descend(target, parents) else { continue };
        match (place.get_mut(last), update) {
            (Some(Value::Object(_)), Value::Object(members)) => {
                for (member, value) in members.into_iter().rev() {
                    let mut deeper = path.clone();
                    deeper.push(member);
                    work.push((deeper, value));
                }
            }
            (Some(Value::Array(stored)), Value::Array(sent)) if last == "identifier" => unite(stored, sent),
            (_, update) => {
                place.insert(last.clone(), update);
            }
        }
    }
}

fn descend<'v>(object: &'v mut Map<String, Value>, path: &[String]) -> Option<&'v mut Map<String, Value>> {
    let mut place = object;
    for name in path {
        place = place.get_mut(name)?.as_object_mut()?;
    }
    Some(place)
}

/// Members of identifiers sent overwrite those of stored ones with the same system and value (a sender that knows no type
/// does not take away the one another knew); new identifiers are added at the end.
fn unite(stored: &mut Vec<Value>, sent: Vec<Value>) {
    let key = |identifier: &Value| (identifier.get("system").cloned(), identifier.get("value").cloned());
    for identifier in sent {
        let known = stored.iter_mut().find(|known| key(known) == key(&identifier));
        match (known, identifier) {
            (Some(Value::Object(known)), Value::Object(sent)) => known.extend(sent),
            (Some(known), sent) => *known = sent,
            (None, sent) => stored.push(sent),
        }
    }
}

fn remove(object: &mut Map<String, Value>, path: &str) {
    let parts: Vec<String> = path.split('.').map(str::to_owned).collect();
    if let Some((last, parents)) = parts.split_last()
        && let Some(place) = descend(object, parents)
    {
        place.shift_remove(last);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resource(value: Value) -> Resource {
        Resource::from_value(value).unwrap()
    }

    #[test]
    fn present_overwrites_absent_stays_cleared_goes() {
        let current = resource(json!({
            "resourceType": "Patient", "id": "1", "meta": { "versionId": "3" }, "active": true,
            "identifier": [{ "system": "a", "value": "1" }, { "system": "b", "value": "2", "type": { "text": "MR" } }],
            "name": [{ "family": "Old" }], "gender": "male", "birthDate": "1980-01-01",
            "maritalStatus": { "text": "M", "coding": [{ "code": "M" }] },
        }));
        let update = resource(json!({
            "resourceType": "Patient", "id": "other", "identifier": [{ "system": "b", "value": "2", "use": "official" }, { "value": "3" }],
            "name": [{ "family": "New" }], "maritalStatus": { "text": "Married" },
        }));
        let merged = merge(&current, &update, &["gender".into(), "contact.name".into()]);
        assert_eq!(
            merged.to_value(),
            json!({
                "resourceType": "Patient", "id": "1", "meta": { "versionId": "3" }, "active": true,
                "identifier": [{ "system": "a", "value": "1" }, { "system": "b", "value": "2", "type": { "text": "MR" }, "use": "official" }, { "value": "3" }],
                "name": [{ "family": "New" }], "birthDate": "1980-01-01",
                "maritalStatus": { "text": "Married", "coding": [{ "code": "M" }] },
            })
        );
    }

    #[test]
    fn only_the_version_may_differ_in_same_content() {
        let one = resource(
            json!({ "resourceType": "Patient", "meta": { "versionId": "1", "lastUpdated": "x" }, "active": true }),
        );
        let two = resource(json!({ "resourceType": "Patient", "active": true }));
        let three = resource(json!({ "resourceType": "Patient", "active": false }));
        assert!(same_content(&one, &two));
        assert!(!same_content(&one, &three));
    }
}

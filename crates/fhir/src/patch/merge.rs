//! JSON Merge Patch, RFC 7396: a document with the members that change, null for those that go.

use serde_json::{Map, Value};

/// Merges a patch into a document, by section 2 of RFC 7396: members that are objects on both sides are merged, null removes a member, anything else
/// takes the place of what is there, lists as a whole. It works off a list and recurses on nothing.
pub fn merge(target: &Map<String, Value>, patch: Map<String, Value>) -> Map<String, Value> {
    let mut merged = target.clone();
    let mut waiting = vec![(Vec::new(), patch)];
    while let Some((path, members)) = waiting.pop() {
        for (name, value) in members {
            let object = object_at(&mut merged, &path);
            match value {
                Value::Null => drop(object.shift_remove(&name)),
                Value::Object(inner) => {
                    let mut path = path.clone();
                    path.push(name);
                    object_at(&mut merged, &path);
                    waiting.push((path, inner));
                }
                other => drop(object.insert(name, other)),
            }
        }
    }
    merged
}

/// The object at a path; what is no object on the way becomes one.
fn object_at<'d>(document: &'d mut Map<String, Value>, path: &[String]) -> &'d mut Map<String, Value> {
    let mut at = document;
    for name in path {
        let member = at.entry(name.as_str()).or_insert(Value::Null);
        if !member.is_object() {
            *member = Value::Object(Map::new());
        }
        let Value::Object(object) = member else { unreachable!("it was made one") };
        at = object;
    }
    at
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn members_are_merged_removed_and_replaced() {
        for (target, patch, expected) in [
            (json!({ "a": "b" }), json!({ "a": "c" }), json!({ "a": "c" })),
            (json!({ "a": "b" }), json!({ "b": "c" }), json!({ "a": "b", "b": "c" })),
            (json!({ "a": "b" }), json!({ "a": null }), json!({})),
            (json!({ "a": "b", "b": "c" }), json!({ "a": null }), json!({ "b": "c" })),
            (json!({ "a": ["b"] }), json!({ "a": "c" }), json!({ "a": "c" })),
            (json!({ "a": "c" }), json!({ "a": ["b"] }), json!({ "a": ["b"] })),
            (
                json!({ "a": { "b": "c" } }),
                json!({ "a": { "b": "d", "c": null } }),
                json!({ "a": { "b": "d" } }),
            ),
            (json!({ "a": [{ "b": "c" }] }), json!({ "a": [1] }), json!({ "a": [1] })),
            (json!({ "e": null }), json!({ "a": 1 }), json!({ "e": null, "a": 1 })),
            (
                json!({ "a": [1, 2] }),
                json!({ "a": { "b": { "c": null, "d": 1 } } }),
                json!({ "a": { "b": { "d": 1 } } }),
            ),
            (json!({}), json!({ "a": { "bb": { "ccc": null } } }), json!({ "a": { "bb": {} } })),
        ] {
            let (Value::Object(target), Value::Object(patch)) = (target, patch) else { unreachable!() };
            assert_eq!(Value::Object(merge(&target, patch.clone())), expected, "{target:?} {patch:?}");
        }
    }
}

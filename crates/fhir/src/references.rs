//! References inside a resource: found and rewritten without recursion.

use serde_json::Value;

/// Calls `visit` with every object that has a text member `reference`, in no certain order. `visit` may change the object.
pub fn visit_references(root: &mut Value, visit: &mut dyn FnMut(&mut serde_json::Map<String, Value>)) {
    let mut work: Vec<&mut Value> = vec![root];
    while let Some(value) = work.pop() {
        match value {
            Value::Array(items) => work.extend(items),
            Value::Object(object) => {
                if object.get("reference").is_some_and(Value::is_string) {
                    visit(object);
                }
                work.extend(object.values_mut().filter(|v| v.is_object() || v.is_array()));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_reference_is_visited_and_nothing_else() {
        let mut value = json!({
            "subject": { "reference": "urn:uuid:1" }, "performer": [{ "actor": { "reference": "urn:uuid:2" } }],
            "text": "urn:uuid:1", "component": [{ "reference": { "reference": "urn:uuid:3" } }],
        });
        visit_references(&mut value, &mut |object| {
            let text = object["reference"].as_str().unwrap().replace("urn:uuid:", "Patient/");
            object.insert("reference".into(), text.into());
        });
        assert_eq!(
            value,
            json!({
                "subject": { "reference": "Patient/1" }, "performer": [{ "actor": { "reference": "Patient/2" } }],
                "text": "urn:uuid:1", "component": [{ "reference": { "reference": "Patient/3" } }],
            })
        );
    }
}

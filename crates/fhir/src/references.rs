//! References and other links inside a resource: found and rewritten without recursion.

use serde_json::Value;

use crate::validate::definition_of;
use crate::{Resource, ResourceType};

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

/// Calls `link` with every link that is no Reference: elements of type uri, url, oid and uuid, and `href` and `src` of narratives; never canonicals.
/// What it returns takes the link's place. <https://hl7.org/fhir/R4/http.html#transaction>
pub fn replace_links(resource: &mut Resource, link: &dyn Fn(&str) -> Option<String>) {
    let mut work: Vec<(&'static str, &mut serde_json::Map<String, Value>)> =
        vec![(resource.resource_type().name(), resource.object_mut())];
    while let Some((definition, object)) = work.pop() {
        for (name, value) in object {
            let Some(of) = definition_of(definition, name) else { continue };
            let values = match value {
                Value::Array(items) => items.as_mut_slice(),
                one => std::slice::from_mut(one),
            };
            for value in values {
                let replaced = match (of, &*value) {
                    ("uri" | "url" | "oid" | "uuid", Value::String(text)) => link(text),
                    ("xhtml", Value::String(text)) => narrative(text, link),
                    _ => None,
                };
                if let Some(text) = replaced {
                    *value = Value::String(text);
                    continue;
                }
                let of =
                    if of == "Resource" { ResourceType::of(value).map(ResourceType::name) } else { Some(of) };
                if let (Some(of), Value::Object(object)) = (of, value) {
                    work.push((of, object));
                }
            }
        }
    }
}

/// A narrative with its links replaced; `None` when none was.
fn narrative(text: &str, link: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let mut changed = String::new();
    let mut rest = text;
    while let Some((at, attribute)) = next_attribute(rest) {
        let (before, behind) = rest.split_at(at + attribute.len());
        changed.push_str(before);
        rest = behind;
        let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) else { continue };
        let Some((value, _)) = rest[1..].split_once(quote) else { break };
        changed.push(quote);
        changed.push_str(&link(value).unwrap_or_else(|| value.to_owned()));
        rest = &rest[1 + value.len()..];
    }
    changed.push_str(rest);
    (changed != text).then_some(changed)
}

/// The first `href=` or `src=`, looked for by their last letter: two searches would both go through all the rest, each time.
fn next_attribute(text: &str) -> Option<(usize, &'static str)> {
    text.match_indices('=').find_map(|(end, _)| {
        let name = ["href=", "src="].into_iter().find(|name| text[..=end].ends_with(name))?;
        Some((end + 1 - name.len(), name))
    })
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

    /// A search through all the rest for each attribute would read 400 GB: the test would not come to its end.
    #[test]
    fn a_narrative_of_many_links_is_read_once() {
        let text = "<div>".to_owned() + &"<a href=\"urn:uuid:1\">x</a>".repeat(100_000);
        let replaced = narrative(&text, &|_| Some("Binary/1".to_owned())).unwrap();
        assert_eq!(replaced.matches("href=\"Binary/1\"").count(), 100_000);
    }

    #[test]
    fn links_are_elements_of_their_types_and_attributes_of_narratives() {
        let link = |text: &str| text.strip_prefix("urn:uuid:").map(|id| format!("Binary/{id}"));
        let mut report = Resource::from_value(json!({
            "resourceType": "DiagnosticReport", "status": "final", "code": { "text": "urn:uuid:1" },
            "meta": { "profile": ["urn:uuid:1"] }, "subject": { "reference": "urn:uuid:1" },
            "text": { "status": "generated", "div": "<div href=\"urn:uuid:1\">urn:uuid:1 <img src='urn:uuid:2'/> href=</div>" },
            "extension": [{ "url": "urn:x", "valueUri": "urn:uuid:3" }],
            "presentedForm": [{ "url": "urn:uuid:4" }, { "url": "http://other" }],
            "contained": [{ "resourceType": "Patient", "photo": [{ "url": "urn:uuid:5" }] }],
        }))
        .unwrap();
        replace_links(&mut report, &link);
        let report = report.to_value();
        assert_eq!(
            report["text"]["div"],
            "<div href=\"Binary/1\">urn:uuid:1 <img src='Binary/2'/> href=</div>"
        );
        assert_eq!(report["extension"][0]["valueUri"], "Binary/3");
        assert_eq!(report["presentedForm"], json!([{ "url": "Binary/4" }, { "url": "http://other" }]));
        assert_eq!(report["contained"][0]["photo"][0]["url"], "Binary/5");
        for (place, text) in [
            ("/code/text", "a text"),
            ("/subject/reference", "a Reference"),
            ("/meta/profile/0", "a canonical"),
        ] {
            assert_eq!(report.pointer(place), Some(&json!("urn:uuid:1")), "{text} is left");
        }
    }
}

//! A data set in the DICOM JSON model (PS3.18 annex F), read without trust: wrong shapes read as absent.

use std::collections::HashSet;

use serde_json::{Map, Value};

/// One data set or sequence item: tag to `{"vr": …, "Value": […]}`.
pub(super) type DataSet = Map<String, Value>;

/// Whether a member name is a tag: eight hexadecimal digits.
pub(super) fn is_tag(name: &str) -> bool {
    name.len() == 8 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The values of an element; none when it is absent or empty.
pub(super) fn values<'d>(item: &'d DataSet, tag: &str) -> &'d [Value] {
    item.get(tag)
        .and_then(|element| element.get("Value"))
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The items of a sequence.
pub(super) fn items<'d>(item: &'d DataSet, tag: &str) -> impl Iterator<Item = &'d DataSet> {
    values(item, tag).iter().filter_map(Value::as_object)
}

/// The text of one value: a string without its padding, a number as written.
pub(super) fn text_of(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.trim_matches([' ', '\0']).to_owned(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (!text.is_empty()).then_some(text)
}

/// The first value of an element as text.
pub(super) fn text(item: &DataSet, tag: &str) -> Option<String> {
    values(item, tag).first().and_then(text_of)
}

/// Whether an element holds anything.
pub(super) fn is_valued(item: &DataSet, tag: &str) -> bool {
    values(item, tag).iter().any(populated)
}

/// An element with values of a representation.
pub(super) fn element(vr: &str, values: Vec<Value>) -> Value {
    serde_json::json!({ "vr": vr, "Value": values })
}

fn populated(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.trim().is_empty(),
        Value::Object(object) => !object.is_empty(),
        _ => true,
    }
}

/// `00400270[0]>00080050` as people write it: `(0040,0270)[1]>(0008,0050)`.
pub(super) fn place(path: &str) -> String {
    let step = |step: &str| {
        let (tag, index) =
            step.split_once('[').map_or((step, None), |(tag, rest)| (tag, rest.strip_suffix(']')));
        let index = index.and_then(|n| n.parse::<usize>().ok());
        let tag = match (tag.get(..4), tag.get(4..)) {
            (Some(group), Some(element)) => format!("({group},{element})"),
            _ => tag.to_owned(),
        };
        index.map_or(tag.clone(), |n| format!("{tag}[{}]", n + 1))
    };
    path.split('>').map(step).collect::<Vec<_>>().join(">")
}

/// A path without its item numbers.
pub(super) fn pattern(path: &str) -> String {
    path.split('>').map(|step| step.split('[').next().unwrap_or_default()).collect::<Vec<_>>().join(">")
}

/// Paths (without item numbers) of populated elements for which `is_used` does not hold, in order of appearance. `is_used` of a
/// sequence covers what is below it. A walk with its own stack: nothing recurses on input.
pub(super) fn unused(data: &DataSet, is_used: impl Fn(&str) -> bool, max: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut work: Vec<(String, &DataSet)> = vec![(String::new(), data)];
    while let Some((above, item)) = work.pop() {
        for (tag, element) in item.iter().filter(|(name, _)| is_tag(name)) {
            let path = if above.is_empty() { tag.clone() } else { format!("{above}>{tag}") };
            let below: Vec<&DataSet> = if element.get("vr").and_then(Value::as_str) == Some("SQ") {
                items(item, tag).collect()
            } else {
                Vec::new()
            };
            let bulk = element.get("InlineBinary").is_some() || element.get("BulkDataURI").is_some();
            if is_used(&path) || !(bulk || is_valued(item, tag)) {
                continue;
            }
            if below.is_empty() {
                if seen.insert(path.clone()) {
                    found.push(path);
                }
                if found.len() >= max {
                    return found;
                }
            } else {
                work.extend(below.into_iter().rev().map(|item| (path.clone(), item)));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn places_are_written_as_people_write_them() {
        assert_eq!(place("00400270[0]>00080050"), "(0040,0270)[1]>(0008,0050)");
        assert_eq!(pattern("00400270[0]>00080050"), "00400270>00080050");
    }

    #[test]
    fn wrong_shapes_read_as_absent() {
        let data = json!({ "00100020": 5, "00080050": { "Value": "x" }, "00400270": { "vr": "SQ", "Value": [1, {}] } });
        let data = data.as_object().unwrap();
        assert_eq!((text(data, "00100020"), text(data, "00080050")), (None, None));
        assert_eq!(items(data, "00400270").count(), 1);
    }
}

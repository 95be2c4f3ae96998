//! Elements of a resource at paths: how rules write them, whatever the protocol.

use serde_json::{Map, Value};

use crate::rules::{Index, Step};

/// A name needs a part, an identifier a value, a contact a value: a lonely type or use says nothing.
pub(crate) fn is_worth(map: &str, object: &Value) -> bool {
    if map.ends_with("[Identifier]") || map.ends_with("[ContactPoint]") {
        return object.get("value").is_some();
    }
    if map.ends_with("[Participant]") {
        return object.get("individual").is_some();
    }
    object.as_object().is_some_and(|o| o.keys().any(|k| k != "use"))
}

/// The path with the index an append is going to take.
pub(crate) fn path_text(path: &[Step], value: &Value) -> String {
    let mut at = Some(value);
    let mut parts = Vec::with_capacity(path.len());
    for step in path {
        let member = at.and_then(|v| v.get(&step.name));
        match step.index {
            Index::None => {
                parts.push(step.name.clone());
                at = member;
            }
            Index::At(n) => {
                parts.push(format!("{}[{n}]", step.name));
                at = member.and_then(|list| list.get(n));
            }
            Index::Append => {
                let n = member.and_then(Value::as_array).map_or(0, Vec::len);
                parts.push(format!("{}[{n}]", step.name));
                at = None;
            }
        }
    }
    parts.join(".")
}

/// Sets a value at a path; objects and lists are made on the way. A list is never left with gaps.
pub(crate) fn set(root: &mut Value, path: &[Step], value: Value) {
    let mut place = root;
    let Some((last, parents)) = path.split_last() else { return };
    for step in parents {
        place = enter(place, step);
    }
    match last.index {
        Index::None => {
            if !place.is_object() {
                *place = Value::Object(Map::new());
            }
            place[last.name.as_str()] = value;
        }
        _ => *enter(place, last) = value,
    }
}

fn enter<'v>(place: &'v mut Value, step: &Step) -> &'v mut Value {
    if !place.is_object() {
        *place = Value::Object(Map::new());
    }
    let member = &mut place[step.name.as_str()];
    if step.index == Index::None {
        return member;
    }
    if !member.is_array() {
        *member = Value::Array(Vec::new());
    }
    let Value::Array(list) = member else { unreachable!("made a list above") };
    let at = match step.index {
        Index::At(n) => n.min(list.len()),
        _ => list.len(),
    };
    if at == list.len() {
        list.push(Value::Null);
    }
    &mut list[at]
}

//! From a resource to its index entries. What an element offers is decided by its shape in JSON: a CodeableConcept has `coding`, a
//! Period has `start` or `end`; no data type is looked up.

use jiff::tz::TimeZone;
use serde_json::Value;

use super::date::date_range;
use super::{Context, Entries, Entry, EntryValue, ParamType, Parameter, Reference, ordered, parameters};
use crate::{Issue, IssueCode, Resource, ResourceType};

/// Everything `resource` offers to search. Never fails: what cannot be indexed becomes an issue.
pub fn index(resource: &Resource, context: &Context) -> Entries {
    let root = resource.to_value();
    let mut found = Found { zone: &context.zone, entries: Vec::with_capacity(32), issues: Vec::new() };
    let mut nodes = Vec::new();
    for parameter in parameters(resource.resource_type()) {
        nodes.clear();
        parameter.expression.select(&root, &mut nodes);
        if parameter.expression.asks_existence() {
            let exists = nodes.iter().any(|node| **node != Value::Bool(false));
            found.push(parameter, token(None, Some(exists.to_string()), None));
            continue;
        }
        for node in &nodes {
            found.add(parameter, node);
        }
    }
    let clinical_date = clinical_date(resource.resource_type(), &found.entries);
    Entries { entries: found.entries, clinical_date, issues: found.issues }
}

/// The parameter whose earliest value is the clinical date of a type.
const CLINICAL: [(&str, &str); 8] = [
    ("DiagnosticReport", "date"),
    ("Encounter", "date"),
    ("ImagingStudy", "started"),
    ("Immunization", "date"),
    ("Observation", "date"),
    ("Procedure", "date"),
    ("ServiceRequest", "authored"),
    ("Appointment", "date"),
];

/// The name of the parameter that dates resources of a type, when it has one: sorting by it is the order of the index.
pub fn clinical_parameter(resource_type: ResourceType) -> Option<&'static str> {
    CLINICAL.iter().find(|(name, _)| *name == resource_type.name()).map(|(_, parameter)| *parameter)
}

fn clinical_date(resource_type: ResourceType, entries: &[Entry]) -> Option<i64> {
    let name = clinical_parameter(resource_type)?;
    entries.iter().filter(|e| e.parameter.name == name).find_map(|e| match e.value {
        EntryValue::Date(low, high) => Some(if low == i64::MIN { high } else { low }),
        _ => None,
    })
}

struct Found<'c> {
    zone: &'c TimeZone,
    entries: Vec<Entry>,
    issues: Vec<Issue>,
}

impl Found<'_> {
    fn push(&mut self, parameter: &'static Parameter, value: EntryValue) {
        self.entries.push(Entry { parameter, value });
    }

    fn add(&mut self, parameter: &'static Parameter, node: &Value) {
        if parameter.param_type == ParamType::Composite {
            self.composite(parameter, node);
            return;
        }
        let before = self.entries.len();
        let entries = &mut self.entries;
        let understood = values(parameter.param_type, node, self.zone, &mut |value| {
            entries.push(Entry { parameter, value })
        });
        if !understood && self.entries.len() == before {
            let place = format!("{} ({})", parameter.resource_type, parameter.name);
            self.issues.push(Issue::information(IssueCode::Value, "a value cannot be searched").at(place));
        }
    }

    fn composite(&mut self, parameter: &'static Parameter, node: &Value) {
        let mut parts = Vec::with_capacity(parameter.components.len());
        let mut nodes = Vec::new();
        for component in &parameter.components {
            nodes.clear();
            component.expression.select(node, &mut nodes);
            let mut part = Vec::new();
            for node in &nodes {
                values(component.param_type, node, self.zone, &mut |value| part.push(value));
            }
            if part.is_empty() {
                return;
            }
            parts.push(part);
        }
        self.push(parameter, EntryValue::Composite(parts));
    }
}

/// The values an element offers to a kind of parameter; false when the element's shape does not fit the kind.
fn values(kind: ParamType, node: &Value, zone: &TimeZone, push: &mut dyn FnMut(EntryValue)) -> bool {
    match kind {
        ParamType::Token => tokens(node, push),
        ParamType::String => strings(node, push),
        ParamType::Reference => reference(node, push),
        ParamType::Uri => match node.as_str() {
            Some(text) => {
                push(EntryValue::Uri(text.to_owned()));
                true
            }
            None => false,
        },
        ParamType::Date => match dates(node, zone) {
            Some((low, high)) => {
                push(EntryValue::Date(low, high));
                true
            }
            None => false,
        },
        ParamType::Number => match number(node) {
            Some(value) => {
                push(EntryValue::Number(ordered(value), ordered(value)));
                true
            }
            None => false,
        },
        ParamType::Quantity => quantity(node, push),
        ParamType::Composite | ParamType::Special => true,
    }
}

fn token(system: Option<&str>, code: Option<String>, text: Option<&str>) -> EntryValue {
    EntryValue::Token { system: system.map(str::to_owned), code, text: text.map(str::to_owned) }
}

fn member<'v>(node: &'v Value, name: &str) -> Option<&'v str> {
    node.get(name).and_then(Value::as_str)
}

fn tokens(node: &Value, push: &mut dyn FnMut(EntryValue)) -> bool {
    match node {
        Value::String(code) => push(token(None, Some(code.clone()), None)),
        Value::Bool(flag) => push(token(None, Some(flag.to_string()), None)),
        Value::Number(number) => push(token(None, Some(number.to_string()), None)),
        Value::Object(object) => {
            if object.contains_key("coding") || (object.contains_key("text") && !object.contains_key("value"))
            {
                let text = member(node, "text");
                for coding in node.get("coding").and_then(Value::as_array).into_iter().flatten() {
                    push(token(
                        member(coding, "system"),
                        member(coding, "code").map(str::to_owned),
                        member(coding, "display"),
                    ));
                }
                if text.is_some() {
                    push(token(None, None, text));
                }
            } else if object.contains_key("code") {
                push(token(
                    member(node, "system"),
                    member(node, "code").map(str::to_owned),
                    member(node, "display"),
                ));
            } else if let Some(value) = member(node, "value") {
                let text = node.get("type").and_then(|t| member(t, "text"));
                push(token(member(node, "system"), Some(value.to_owned()), text));
            } else {
                return object.contains_key("system") || object.contains_key("display");
            }
        }
        _ => return false,
    }
    true
}

/// Names and addresses offer every part and the text on its own.
fn strings(node: &Value, push: &mut dyn FnMut(EntryValue)) -> bool {
    const PARTS: [&str; 12] = [
        "family",
        "given",
        "prefix",
        "suffix",
        "text",
        "line",
        "city",
        "district",
        "state",
        "postalCode",
        "country",
        "value",
    ];
    match node {
        Value::String(text) => push(EntryValue::String(text.clone())),
        Value::Object(object) => {
            for part in PARTS {
                match object.get(part) {
                    Some(Value::String(text)) => push(EntryValue::String(text.clone())),
                    Some(Value::Array(list)) => {
                        list.iter()
                            .filter_map(Value::as_str)
                            .for_each(|text| push(EntryValue::String(text.to_owned())));
                    }
                    _ => {}
                }
            }
        }
        _ => return false,
    }
    true
}

fn reference(node: &Value, push: &mut dyn FnMut(EntryValue)) -> bool {
    if let Some(canonical) = node.as_str() {
        push(EntryValue::Reference { target: Some(Reference::Url(canonical.to_owned())), identifier: None });
        return true;
    }
    let target = member(node, "reference").filter(|text| !text.starts_with('#')).map(parse_reference);
    let identifier = node.get("identifier").and_then(|identifier| {
        Some((member(identifier, "system").map(str::to_owned), member(identifier, "value")?.to_owned()))
    });
    if target.is_some() || identifier.is_some() {
        push(EntryValue::Reference { target, identifier });
    }
    node.is_object()
}

/// `Type/id` (a version is dropped) as local, everything else as URL.
pub(super) fn parse_reference(text: &str) -> Reference {
    let text = text.split("/_history/").next().unwrap_or(text);
    if let Some((name, id)) = text.split_once('/')
        && let Some(resource_type) = ResourceType::from_name(name)
        && !id.contains('/')
    {
        return Reference::Local(resource_type, id.to_owned());
    }
    Reference::Url(text.to_owned())
}

fn dates(node: &Value, zone: &TimeZone) -> Option<(i64, i64)> {
    match node {
        Value::String(text) => date_range(text, zone),
        Value::Object(object) => {
            if let Some(events) = object.get("event").and_then(Value::as_array) {
                let ranges: Vec<_> =
                    events.iter().filter_map(Value::as_str).filter_map(|t| date_range(t, zone)).collect();
                return Some((ranges.iter().map(|r| r.0).min()?, ranges.iter().map(|r| r.1).max()?));
            }
            if let Some(bounds) = object.get("repeat").and_then(|repeat| repeat.get("boundsPeriod")) {
                return period(bounds, zone);
            }
            period(node, zone)
        }
        _ => None,
    }
}

fn period(node: &Value, zone: &TimeZone) -> Option<(i64, i64)> {
    let start = member(node, "start").map(|text| date_range(text, zone));
    let end = member(node, "end").map(|text| date_range(text, zone));
    if start.is_none() && end.is_none() {
        return None;
    }
    Some((start.map_or(Some(i64::MIN), |r| r.map(|r| r.0))?, end.map_or(Some(i64::MAX), |r| r.map(|r| r.1))?))
}

fn number(node: &Value) -> Option<f64> {
    node.as_number()?.to_string().parse::<f64>().ok().filter(|value| value.is_finite())
}

fn quantity(node: &Value, push: &mut dyn FnMut(EntryValue)) -> bool {
    let unit = |node: &Value| {
        let code = member(node, "code").or_else(|| member(node, "unit")).or_else(|| member(node, "currency"));
        (member(node, "system").map(str::to_owned), code.map(str::to_owned))
    };
    if let Some(value) = node.get("value").and_then(number) {
        let (low, high) = match member(node, "comparator") {
            Some("<" | "<=") => (f64::NEG_INFINITY, value),
            Some(">" | ">=") => (value, f64::INFINITY),
            _ => (value, value),
        };
        let (system, code) = unit(node);
        push(EntryValue::Quantity(ordered(low), ordered(high), system, code));
        return true;
    }
    let (low, high) = (node.get("low"), node.get("high"));
    if low.is_none() && high.is_none() {
        return false;
    }
    let (system, code) = unit(low.or(high).unwrap_or(node));
    let low = low.and_then(|q| q.get("value")).and_then(number).unwrap_or(f64::NEG_INFINITY);
    let high = high.and_then(|q| q.get("value")).and_then(number).unwrap_or(f64::INFINITY);
    push(EntryValue::Quantity(ordered(low), ordered(high), system, code));
    true
}

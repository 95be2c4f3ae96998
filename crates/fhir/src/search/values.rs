//! What an element offers to a search parameter, by its data type.

use jiff::tz::TimeZone;
use serde_json::{Map, Value};

use super::date::date_range;
use super::plan::Kind;
use super::{Context, EntryValue, Reference, ordered};
use crate::ResourceType;

type Object = Map<String, Value>;
type Push<'p> = &'p mut dyn FnMut(EntryValue);

/// A value in the resource: an object, or a text, number or boolean.
#[derive(Clone, Copy)]
pub(super) enum Seen<'v> {
    Object(&'v Object),
    Scalar(&'v Value),
}

impl<'v> Seen<'v> {
    /// `None` for null (a place holder in lists) and for lists within lists.
    pub(super) fn of(value: &'v Value) -> Option<Self> {
        match value {
            Value::Object(object) => Some(Self::Object(object)),
            Value::Null | Value::Array(_) => None,
            scalar => Some(Self::Scalar(scalar)),
        }
    }

    /// Whether it is a resource of one of the types.
    pub(super) fn is_resource_of(self, types: &[ResourceType]) -> bool {
        let Self::Object(object) = self else { return false };
        member(object, "resourceType").and_then(ResourceType::from_name).is_some_and(|of| types.contains(&of))
    }
}

/// Hands over the values an element offers; false when it does not look like its type.
pub(super) fn convert(kind: Kind, seen: Seen<'_>, context: &Context, push: Push<'_>) -> bool {
    match seen {
        Seen::Object(object) => convert_object(kind, object, &context.zone, push).is_some(),
        Seen::Scalar(value) => convert_scalar(kind, value, &context.zone, push).is_some(),
    }
}

fn convert_scalar(kind: Kind, value: &Value, zone: &TimeZone, push: Push<'_>) -> Option<()> {
    match kind {
        Kind::Code(system) => push(token(system, Some(value.as_str()?), None)),
        Kind::Boolean => push(token(None, Some(if value.as_bool()? { "true" } else { "false" }), None)),
        Kind::String => push(EntryValue::String(value.as_str()?.to_owned())),
        Kind::Uri => push(EntryValue::Uri(value.as_str()?.to_owned())),
        Kind::CanonicalUri => {
            let canonical = value.as_str()?;
            push(EntryValue::Uri(canonical.to_owned()));
            if let Some((url, _)) = canonical.split_once('|') {
                push(EntryValue::Uri(url.to_owned()));
            }
        }
        Kind::Canonical => {
            let canonical = value.as_str()?;
            push(pointing(parse_reference(canonical)));
            if let Some((url, _)) = canonical.split_once('|') {
                push(pointing(parse_reference(url)));
            }
        }
        Kind::Date => {
            let (low, high) = date_range(value.as_str()?, zone)?;
            push(EntryValue::Date(low, high));
        }
        Kind::Number => {
            let number = number(value)?;
            push(EntryValue::Number(number, number.saturating_add(1)));
        }
        _ => return None,
    }
    Some(())
}

fn convert_object(kind: Kind, object: &Object, zone: &TimeZone, push: Push<'_>) -> Option<()> {
    match kind {
        Kind::Coding => coding(object, push),
        Kind::Concept => {
            for one in items(object, "coding") {
                coding(one.as_object()?, push);
            }
            if let Some(text) = member(object, "text") {
                push(token(None, None, Some(text)));
            }
        }
        Kind::Identifier => {
            let of = object.get("type").and_then(|of| of.get("text")).and_then(Value::as_str);
            coded(object, "value", of, push);
        }
        Kind::Contact => coded(object, "value", None, push),
        Kind::Reference => reference(object, push),
        Kind::Resource => {
            let of = member(object, "resourceType").and_then(ResourceType::from_name)?;
            if let Some(id) = member(object, "id") {
                push(pointing(Reference::Local(of, id.to_owned())));
            }
        }
        Kind::Name => strings(object, &["family", "given", "prefix", "suffix", "text"], push),
        Kind::Address => strings(object, &ADDRESS, push),
        Kind::Text => strings(object, &["text"], push),
        Kind::Period => {
            let (low, high) = period(object, zone)?;
            push(EntryValue::Date(low, high));
        }
        Kind::Timing => timing(object, zone, push)?,
        Kind::Quantity => quantity(object, push)?,
        Kind::Money => {
            let value = number(object.get("value")?)?;
            let currency = member(object, "currency").map(str::to_owned);
            let system = Some("urn:iso:std:iso:4217".to_owned());
            push(EntryValue::Quantity(value, value.saturating_add(1), system, currency));
        }
        Kind::Range => range(object, push)?,
        _ => return None,
    }
    Some(())
}

const ADDRESS: [&str; 7] = ["line", "city", "district", "state", "postalCode", "country", "text"];

fn member<'v>(object: &'v Object, name: &str) -> Option<&'v str> {
    object.get(name).and_then(Value::as_str)
}

fn items<'v>(object: &'v Object, name: &str) -> impl Iterator<Item = &'v Value> {
    object.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn token(system: Option<&str>, code: Option<&str>, text: Option<&str>) -> EntryValue {
    EntryValue::Token {
        system: system.map(str::to_owned),
        code: code.map(str::to_owned),
        text: text.map(str::to_owned),
    }
}

fn coding(object: &Object, push: Push<'_>) {
    coded(object, "code", member(object, "display"), push);
}

/// System and code, code or text alone; a system alone says nothing.
fn coded(object: &Object, code: &str, text: Option<&str>, push: Push<'_>) {
    let (system, code) = (member(object, "system"), member(object, code));
    if code.is_some() || text.is_some() {
        push(token(system, code, text));
    }
}

/// Every part on its own.
fn strings(object: &Object, parts: &[&str], push: Push<'_>) {
    for value in parts.iter().filter_map(|part| object.get(*part)) {
        let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for text in list.iter().filter_map(Value::as_str) {
            push(EntryValue::String(text.to_owned()));
        }
    }
}

fn pointing(target: Reference) -> EntryValue {
    EntryValue::Reference { target: Some(target), identifier: None }
}

fn reference(object: &Object, push: Push<'_>) {
    // a fragment points into the resource itself
    let target = member(object, "reference").filter(|text| !text.starts_with('#')).map(parse_reference);
    let identifier = object.get("identifier").and_then(Value::as_object).and_then(|identifier| {
        Some((member(identifier, "system").map(str::to_owned), member(identifier, "value")?.to_owned()))
    });
    if target.is_some() || identifier.is_some() {
        push(EntryValue::Reference { target, identifier });
    }
}

/// `Type/id` (a version is dropped) as local, everything else as URL.
pub(super) fn parse_reference(text: &str) -> Reference {
    let text = text.split_once("/_history/").map_or(text, |(resource, _)| resource);
    if let Some((name, id)) = text.split_once('/')
        && let Some(resource_type) = ResourceType::from_name(name)
        && !id.contains(['/', '?'])
    {
        return Reference::Local(resource_type, id.to_owned());
    }
    Reference::Url(text.to_owned())
}

/// Whether a Reference points to a type, by its text or its `type`; nothing is looked up.
pub(super) fn points_to(object: &Object, wanted: ResourceType) -> bool {
    let text = member(object, "reference").unwrap_or_default();
    let text = text.split_once("/_history/").map_or(text, |(resource, _)| resource);
    let mut parts = text.rsplit('/');
    let named = parts.next().and(parts.next()).and_then(ResourceType::from_name);
    match (named, member(object, "type")) {
        (Some(named), _) => named == wanted,
        (None, Some(declared)) => declared.rsplit('/').next() == Some(wanted.name()),
        (None, None) => false,
    }
}

fn period(object: &Object, zone: &TimeZone) -> Option<(i64, i64)> {
    let range = |name: &str| match object.get(name) {
        None => Some(None),
        Some(value) => date_range(value.as_str()?, zone).map(Some),
    };
    match (range("start")?, range("end")?) {
        (None, None) => None,
        (start, end) => {
            let (low, high) = (start.map_or(i64::MIN, |r| r.0), end.map_or(i64::MAX, |r| r.1));
            (low < high).then_some((low, high))
        }
    }
}

/// From the first to the last of its events and its bounds; a rule without either has no date.
fn timing(object: &Object, zone: &TimeZone, push: Push<'_>) -> Option<()> {
    let mut whole: Option<(i64, i64)> = None;
    let mut widen = |(low, high): (i64, i64)| {
        whole = Some(whole.map_or((low, high), |w| (w.0.min(low), w.1.max(high))));
    };
    for event in items(object, "event") {
        widen(date_range(event.as_str()?, zone)?);
    }
    let bounds =
        object.get("repeat").and_then(|repeat| repeat.get("boundsPeriod")).and_then(Value::as_object);
    if let Some(bounds) = bounds {
        widen(period(bounds, zone)?);
    }
    if let Some((low, high)) = whole {
        push(EntryValue::Date(low, high));
    }
    Some(())
}

/// As key; `None` for what is no number or too large for one.
fn number(value: &Value) -> Option<i64> {
    let Value::Number(number) = value else { return None };
    let number: f64 = number.as_str().parse().ok()?;
    number.is_finite().then(|| ordered(number))
}

/// Found by its coded unit; where the printed unit differs, by that too.
fn quantity(object: &Object, push: Push<'_>) -> Option<()> {
    // a quantity without value says nothing about amounts
    let Some(value) = object.get("value") else { return Some(()) };
    let value = number(value)?;
    let after = value.saturating_add(1);
    let (low, high) = match member(object, "comparator") {
        Some("<") => (i64::MIN, value),
        Some("<=") => (i64::MIN, after),
        Some(">") => (after, i64::MAX),
        Some(">=") => (value, i64::MAX),
        _ => (value, after),
    };
    units(object, low, high, push);
    Some(())
}

fn units(object: &Object, low: i64, high: i64, push: Push<'_>) {
    let (code, unit) = (member(object, "code"), member(object, "unit"));
    let system = member(object, "system").map(str::to_owned);
    push(EntryValue::Quantity(low, high, system, code.or(unit).map(str::to_owned)));
    if code.is_some() && unit.is_some() && code != unit {
        push(EntryValue::Quantity(low, high, None, unit.map(str::to_owned)));
    }
}

fn range(object: &Object, push: Push<'_>) -> Option<()> {
    let side = |name: &str| object.get(name).and_then(Value::as_object);
    let bound = |side: Option<&Object>| match side.and_then(|quantity| quantity.get("value")) {
        None => Some(None),
        Some(value) => number(value).map(Some),
    };
    let (low, high) = (side("low"), side("high"));
    let unit = low.or(high)?;
    let (low, high) = (bound(low)?, bound(high)?);
    if low.is_none() && high.is_none() {
        return Some(());
    }
    units(unit, low.unwrap_or(i64::MIN), high.map_or(i64::MAX, |h| h.saturating_add(1)), push);
    Some(())
}

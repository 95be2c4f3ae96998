//! Values of HL7 data types as FHIR elements.

use hilum_fhir::{Issue, IssueCode, Match};
use hilum_wire::er7::DateTime;
use hilum_wire::scan::is_uid;
use serde_json::{Value, json};

use super::mapper::{Mapper, Place, location};
use crate::hl7::{Form, render};
use crate::identity::{self, Authority, Kind, harmless};
use crate::rules::Convert;

/// Converts a component (or the first one) of a place.
pub(super) fn convert(
    mapper: &mut Mapper<'_>,
    how: &Convert,
    vocabulary: Option<&str>,
    place: Place,
    component: Option<u16>,
) -> Option<Value> {
    let at = component.unwrap_or(1);
    match how {
        Convert::Text => text(mapper, vocabulary, place, at),
        Convert::Words => {
            Some(Value::String(mapper.component(place, at)?.split_whitespace().collect::<Vec<_>>().join(" ")))
        }
        Convert::Date => time(mapper, place, at, Form::Date),
        Convert::DateTime => time(mapper, place, at, Form::DateTime),
        Convert::Instant => time(mapper, place, at, Form::Instant),
        Convert::Boolean => match mapper.component(place, at)?.as_str() {
            "Y" => Some(Value::Bool(true)),
            "N" => Some(Value::Bool(false)),
            _ => None,
        },
        Convert::Integer => mapper.component(place, at)?.trim().parse::<u32>().ok().map(Value::from),
        Convert::Concept => concept(mapper, vocabulary, place),
        Convert::Coding => coding(mapper, vocabulary, place),
        Convert::Uid => {
            let uid = mapper.component(place, at)?;
            let uid = uid.trim();
            is_uid(uid).then(|| Value::String(format!("urn:oid:{uid}")))
        }
        Convert::TextConcept => Some(json!({ "text": mapper.component(place, at)? })),
        Convert::Authority(kind) => designator(mapper, *kind, place, at).map(Value::String),
        Convert::Entity(kind) => entity(mapper, *kind, place, at).map(Value::String),
        Convert::Practitioner => practitioner(mapper, place, false),
        Convert::Interpreter => practitioner(mapper, place, true),
        Convert::Location => location_reference(mapper, place),
        Convert::Service => {
            let code = mapper.component(place, at)?;
            Some(
                json!({ "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/v2-0074", "code": code }] }),
            )
        }
        Convert::Flag => {
            let code = mapper.component(place, at)?;
            let system = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation";
            Some(json!({ "coding": [{ "system": system, "code": code }] }))
        }
        Convert::Phone => {
            let area = mapper.component(place, 6).unwrap_or_default();
            let country = mapper.component(place, 5).unwrap_or_default();
            let number = mapper.component(place, 7)?;
            let parts: Vec<&str> = [country.as_str(), area.as_str(), number.as_str()]
                .into_iter()
                .filter(|p| !p.is_empty())
                .collect();
            Some(Value::String(parts.join(" ")))
        }
        Convert::Map(_) => None,
    }
}

/// A constant of a rule; two of them stand for a system of the site.
pub(super) fn fixed(mapper: &Mapper<'_>, how: &Convert, text: &str) -> Value {
    Value::String(match (how, text) {
        (Convert::Authority(_), "default") => mapper.context.patient_identifier_system.clone(),
        (Convert::Authority(_) | Convert::Entity(_), name) => {
            format!("urn:hilum:site:{}:{name}", mapper.context.site)
        }
        _ => text.to_owned(),
    })
}

fn text(mapper: &mut Mapper<'_>, vocabulary: Option<&str>, place: Place, component: u16) -> Option<Value> {
    let text = mapper.component(place, component)?;
    let Some(table) = vocabulary else { return Some(Value::String(text)) };
    match mapper.tables.code(table, &text) {
        Some(code) => Some(Value::String(code.code.clone())),
        None => {
            let place = location(mapper.segment(place.segment), place.field, place.repeat, None);
            mapper.issues.push(
                Issue::warning(IssueCode::CodeInvalid, "a code is in no table and was left out")
                    .at(place)
                    .hl7(103),
            );
            None
        }
    }
}

/// CWE, CE, CNE, CF: up to two codings and a text; the original stays beside a translation.
pub(super) fn concept(mapper: &mut Mapper<'_>, vocabulary: Option<&str>, place: Place) -> Option<Value> {
    let mut codings = Vec::new();
    let mut display = None;
    for first in [1, 4] {
        let (code, name) = (mapper.component(place, first), mapper.component(place, first + 1));
        let system = mapper.component(place, first + 2).map(|name| code_system(mapper, &name));
        if let Some(code) = code {
            if let Some(known) = vocabulary.and_then(|table| mapper.tables.code(table, &code)) {
                let mut coding = json!({ "system": known.system, "code": known.code });
                if let Some(display) = &known.display {
                    coding["display"] = display.clone().into();
                }
                codings.push(coding);
            }
            let mut coding = json!({});
            if let Some(system) = system {
                coding["system"] = system.into();
            }
            coding["code"] = code.split_whitespace().collect::<Vec<_>>().join(" ").into();
            if let Some(name) = &name {
                coding["display"] = name.clone().into();
            }
            codings.push(coding);
        }
        display = display.or(name);
    }
    // versions of the code systems say nothing of the meaning
    mapper.component(place, 7);
    mapper.component(place, 8);
    let text = mapper.component(place, 9).or(display);
    if codings.is_empty() && text.is_none() {
        return None;
    }
    let mut concept = json!({});
    if !codings.is_empty() {
        concept["coding"] = Value::Array(codings);
    }
    if let Some(text) = text {
        concept["text"] = text.into();
    }
    Some(concept)
}

fn coding(mapper: &mut Mapper<'_>, vocabulary: Option<&str>, place: Place) -> Option<Value> {
    let code = mapper.component(place, 1)?;
    match vocabulary.and_then(|table| mapper.tables.code(table, &code)) {
        Some(known) => Some(json!({ "system": known.system, "code": known.code, "display": known.display })),
        None => Some(json!({ "system": "http://terminology.hl7.org/CodeSystem/v2-0004", "code": code })),
    }
}

/// The URI of a coding system's HL7 name.
pub(super) fn code_system(mapper: &Mapper<'_>, name: &str) -> String {
    if let Some(known) = mapper.tables.code("CodeSystems", name) {
        return known.code.clone();
    }
    if let Some(table) = name
        .strip_prefix("HL7")
        .filter(|digits| digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit()))
    {
        return format!("http://terminology.hl7.org/CodeSystem/v2-{table}");
    }
    format!("urn:hilum:site:{}:codes:{}", mapper.context.site, harmless(name))
}

/// An HD in the subcomponents of one component, as the system of a number.
fn designator(mapper: &mut Mapper<'_>, kind: Kind, place: Place, component: u16) -> Option<String> {
    let [namespace, universal, of] = [1, 2, 3].map(|n| mapper.leaf(place, component, n));
    let sent =
        Authority { namespace: namespace.as_deref(), universal: universal.as_deref(), kind: of.as_deref() };
    identity::system(mapper.context, kind, &sent)
}

/// The authority of an EI: namespace, universal id and its type in three components from this one on. Senders write an HD into the
/// first of them as well.
pub(super) fn entity(mapper: &mut Mapper<'_>, kind: Kind, place: Place, component: u16) -> Option<String> {
    let namespace = mapper.leaf(place, component, 1);
    let universal = mapper.component(place, component + 1).or_else(|| mapper.leaf(place, component, 2));
    let of = mapper.component(place, component + 2).or_else(|| mapper.leaf(place, component, 3));
    let sent =
        Authority { namespace: namespace.as_deref(), universal: universal.as_deref(), kind: of.as_deref() };
    identity::system(mapper.context, kind, &sent)
}

/// XCN: a Practitioner when identifier and authority are given, else a name to display. `nested` = NDL, whose first component is a CNN.
fn practitioner(mapper: &mut Mapper<'_>, place: Place, nested: bool) -> Option<Value> {
    let nested = nested && mapper.leaf(place, 1, 2).is_some();
    let part = |mapper: &mut Mapper<'_>, n: u16| {
        if nested { mapper.leaf(place, 1, n) } else { mapper.component(place, n) }
    };
    let (id, family, given) = (part(mapper, 1), part(mapper, 2), part(mapper, 3));
    let (middle, suffix, prefix) = (part(mapper, 4), part(mapper, 5), part(mapper, 6));
    if nested {
        (7..=11).for_each(|n| drop(part(mapper, n)));
    }
    let system = if nested { None } else { designator(mapper, Kind::Other, place, 9) };
    [7, 8, 10, 13].iter().for_each(|n| drop(if nested { None } else { mapper.component(place, *n) }));
    let words: Vec<&str> =
        [&prefix, &given, &middle, &family, &suffix].into_iter().flatten().map(String::as_str).collect();
    let display = Some(words.join(" ")).filter(|d| !d.is_empty());
    let (Some(id), Some(system)) = (&id, system) else {
        return display.or(id).map(|display| json!({ "display": display }));
    };
    let mut name = json!({});
    if let Some(family) = &family {
        name["family"] = family.clone().into();
    }
    let given: Vec<&String> = [&given, &middle].into_iter().flatten().collect();
    if !given.is_empty() {
        name["given"] = json!(given);
    }
    for (member, value) in [("prefix", &prefix), ("suffix", &suffix)] {
        if let Some(value) = value {
            name[member] = json!([value]);
        }
    }
    let mut resource =
        json!({ "resourceType": "Practitioner", "identifier": [{ "system": system, "value": id }] });
    if name.as_object().is_some_and(|n| !n.is_empty()) {
        resource["name"] = json!([name]);
    }
    let key =
        Match { resource_type: identity::kind("Practitioner"), system: Some(system), value: id.clone() };
    let url = mapper.ensure(key, resource);
    let mut reference = json!({ "reference": url });
    if let Some(display) = display {
        reference["display"] = display.into();
    }
    Some(reference)
}

/// PL: a Location keyed by point of care, room, bed and facility when a facility is given, else a text.
fn location_reference(mapper: &mut Mapper<'_>, place: Place) -> Option<Value> {
    let parts: Vec<String> = (1..=3).filter_map(|n| mapper.component(place, n)).collect();
    let facility = designator(mapper, Kind::Other, place, 4);
    let more: Vec<String> = [7, 8, 9].iter().filter_map(|n| mapper.component(place, *n)).collect();
    [5, 6].iter().for_each(|n| drop(mapper.component(place, *n)));
    if parts.is_empty() && more.is_empty() {
        return None;
    }
    let display = more.last().cloned().unwrap_or_else(|| parts.join(" "));
    let Some(system) = facility.filter(|_| !parts.is_empty()) else {
        return Some(json!({ "display": display }));
    };
    let value = parts.join("^");
    let key = Match {
        resource_type: identity::kind("Location"),
        system: Some(system.clone()),
        value: value.clone(),
    };
    let resource = json!({ "resourceType": "Location", "identifier": [{ "system": system, "value": value }], "status": "active",
        "name": display, "mode": "instance" });
    let url = mapper.ensure(key, resource);
    Some(json!({ "reference": url, "display": display }))
}

fn time(mapper: &mut Mapper<'_>, place: Place, component: u16, form: Form) -> Option<Value> {
    let text = mapper.component(place, component)?;
    let issue = |mapper: &mut Mapper<'_>, text: &str| {
        let place = location(mapper.segment(place.segment), place.field, place.repeat, None);
        mapper.issues.push(Issue::warning(IssueCode::Value, text).at(place).hl7(102));
    };
    let Some(parsed) = DateTime::parse(&text) else {
        issue(mapper, "is no timestamp and was left out");
        return None;
    };
    let rendered = render(&parsed, form, &mapper.context.zone);
    if rendered.is_none() {
        issue(mapper, "is not precise enough and was left out");
    }
    rendered.map(Value::String)
}

//! Values of HL7 v3 data types as FHIR elements.

use std::collections::HashSet;

use hilum_fhir::{Issue, IssueCode};
use hilum_wire::er7::DateTime;
use hilum_wire::v3::NAMESPACE;
use roxmltree::Node;
use serde_json::{Value, json};

use super::mapper::{Mapper, Place};
use super::table::{Convert, Leaf, Row};
use crate::hl7::{Form, render};
use crate::identity::{self, Authority};

/// Converts what a row found.
pub(super) fn convert(
    mapper: &mut Mapper<'_>,
    row: &Row,
    leaf: &Leaf,
    place: &Place<'_, '_>,
) -> Option<Value> {
    let node = place.node;
    let text = |mapper: &mut Mapper<'_>| match leaf {
        Leaf::Attribute(name) => mapper.attribute(node, name),
        Leaf::Element | Leaf::Text => mapper.text(node),
    };
    match &row.convert {
        Convert::Text => {
            let text = text(mapper)?;
            coded(mapper, row, text, place)
        }
        Convert::Date => time(mapper, place, Form::Date),
        Convert::DateTime => time(mapper, place, Form::DateTime),
        Convert::Boolean => match mapper.attribute(node, "value")?.as_str() {
            "true" | "1" => Some(Value::Bool(true)),
            "false" | "0" => Some(Value::Bool(false)),
            _ => None,
        },
        Convert::Integer => mapper.attribute(node, "value")?.parse::<u32>().ok().map(Value::from),
        Convert::Concept => concept(mapper, row.vocabulary.as_deref(), node),
        Convert::Root => {
            let (root, name) = (text(mapper)?, mapper.attribute(node, "assigningAuthorityName"));
            authority(mapper, Some(&root), name.as_deref())
        }
        Convert::Uri => text(mapper).map(|root| Value::String(identity::uri(&root, None).unwrap_or(root))),
        Convert::Authority => {
            let name = text(mapper)?;
            authority(mapper, None, Some(&name))
        }
        Convert::Scheme => {
            let url = text(mapper)?;
            let scheme = scheme(&url).map_or_else(|| "tel".to_owned(), |(scheme, _)| scheme);
            coded(mapper, row, scheme, place)
        }
        Convert::Address => {
            let url = text(mapper)?;
            Some(Value::String(match scheme(&url) {
                Some((scheme, rest)) if !scheme.starts_with("http") => rest.to_owned(),
                _ => url,
            }))
        }
        // joined, and taken apart, by the mapper
        Convert::Words | Convert::Map(_) => None,
    }
}

/// A constant of a rule; `default` as an authority stands for the site's.
pub(super) fn fixed(mapper: &Mapper<'_>, how: &Convert, text: &str) -> Value {
    Value::String(match (how, text) {
        (Convert::Authority, "default") => mapper.context.patient_identifier_system.clone(),
        _ => text.to_owned(),
    })
}

/// A text, translated when the row names a code table: of several codes (`use="L SRCH"`) the first the table knows.
fn coded(mapper: &mut Mapper<'_>, row: &Row, text: String, place: &Place<'_, '_>) -> Option<Value> {
    let Some(table) = row.vocabulary.as_deref() else { return Some(Value::String(text)) };
    match text.split_whitespace().find_map(|code| mapper.tables.code(table, code)) {
        Some(code) => Some(Value::String(code.code.clone())),
        None => {
            let issue = Issue::warning(IssueCode::CodeInvalid, "a code is in no table and was left out");
            mapper.issues.push(issue.at(&place.path).hl7(103));
            None
        }
    }
}

/// CD and CE: the code, its translations, and a text; the original stays beside a translation.
fn concept(mapper: &mut Mapper<'_>, vocabulary: Option<&str>, node: Node<'_, '_>) -> Option<Value> {
    let named =
        |name: &'static str| node.children().filter(move |child| child.has_tag_name((NAMESPACE, name)));
    let mut codings: Vec<Value> = Vec::new();
    let mut seen: HashSet<(Option<Value>, Value)> = HashSet::new();
    let known_by = |coding: &Value| (coding.get("system").cloned(), coding["code"].clone());
    let mut display = None;
    for coded in std::iter::once(node).chain(named("translation")) {
        let name = mapper.attribute(coded, "displayName");
        if let Some(code) = mapper.attribute(coded, "code") {
            if let Some(coding) = translated(mapper, vocabulary, &code) {
                seen.insert(known_by(&coding));
                codings.push(coding);
            }
            let coding = coding(mapper, coded, &code, name.as_deref());
            if seen.insert(known_by(&coding)) {
                codings.push(coding);
            }
        }
        display = display.or(name);
    }
    let original = named("originalText").find_map(|text| mapper.text(text));
    let text = original.or(display);
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

fn translated(mapper: &Mapper<'_>, vocabulary: Option<&str>, code: &str) -> Option<Value> {
    let known = mapper.tables.code(vocabulary?, code)?;
    let mut coding = json!({ "system": known.system, "code": known.code });
    if let Some(display) = &known.display {
        coding["display"] = display.clone().into();
    }
    Some(coding)
}

fn coding(mapper: &mut Mapper<'_>, node: Node<'_, '_>, code: &str, display: Option<&str>) -> Value {
    let mut coding = json!({});
    if let Some(oid) = mapper.attribute(node, "codeSystem") {
        let known = mapper.tables.code("CodeSystemOids", &oid).map(|known| known.code.clone());
        let sent = Authority { universal: Some(&oid), ..Authority::default() };
        if let Some(system) = known.or_else(|| identity::authority(mapper.context, &sent)) {
            coding["system"] = system.into();
        }
    }
    coding["code"] = code.split_whitespace().collect::<Vec<_>>().join(" ").into();
    if let Some(display) = display {
        coding["display"] = display.into();
    }
    coding
}

/// The system of an II, by its root and the name of its authority.
fn authority(mapper: &Mapper<'_>, root: Option<&str>, name: Option<&str>) -> Option<Value> {
    let sent = Authority { namespace: name, universal: root, kind: None };
    identity::authority(mapper.context, &sent).map(Value::String)
}

/// The scheme of an URL, in lower case, and what follows it.
fn scheme(url: &str) -> Option<(String, &str)> {
    let (scheme, rest) = url.split_once(':')?;
    let is_scheme = !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-');
    is_scheme.then(|| (scheme.to_ascii_lowercase(), rest.trim()))
}

fn time(mapper: &mut Mapper<'_>, place: &Place<'_, '_>, form: Form) -> Option<Value> {
    let text = mapper.attribute(place.node, "value")?;
    let issue = |mapper: &mut Mapper<'_>, text: &str| {
        mapper.issues.push(Issue::warning(IssueCode::Value, text).at(&place.path).hl7(102));
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

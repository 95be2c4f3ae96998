//! Values of DICOM representations as FHIR elements.

use hilum_fhir::{Issue, IssueCode, Match};
use serde_json::{Map, Value, json};

use super::dataset::{DataSet, items, text, text_of, values};
use super::table::Codes;
use super::time;
use crate::Context;
use crate::identity::{self, Authority, Kind, harmless};

const PARTICIPATION: &str = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType";
const IDENTIFIER_TYPE: &str = "http://terminology.hl7.org/CodeSystem/v2-0203";
const REPRESENTATION: &str = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation";

/// How a value becomes an element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Convert {
    Text,
    /// `urn:dicom:uid` identifier.
    Uid,
    StepId,
    /// Discontinued before any series: `not-done`.
    NotDone,
    Concept,
    /// An item of Scheduled Step Attributes Sequence as reference to its order.
    Order,
    Accession,
    Visit,
    Date,
    DateTime,
    Station,
    Performing,
    Operating,
    Display,
    PatientId,
    HumanName,
    Modality,
}

impl Convert {
    /// By its name in the datatype column.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "" => Self::Text,
            "uid" => Self::Uid,
            "stepId" => Self::StepId,
            "notDone" => Self::NotDone,
            "concept" => Self::Concept,
            "order" => Self::Order,
            "accession" => Self::Accession,
            "visit" => Self::Visit,
            "date" => Self::Date,
            "dateTime" => Self::DateTime,
            "station" => Self::Station,
            "performing" => Self::Performing,
            "operating" => Self::Operating,
            "display" => Self::Display,
            "patientId" => Self::PatientId,
            "humanName" => Self::HumanName,
            "modality" => Self::Modality,
            _ => return None,
        })
    }
}

/// What a conversion may look at.
pub(super) struct At<'a> {
    pub(super) context: &'a Context,
    pub(super) systems: &'a Codes,
    /// The whole data set.
    pub(super) root: &'a DataSet,
    /// The data set or item the element is in.
    pub(super) item: &'a DataSet,
    /// The row's tags.
    pub(super) tags: &'a [String],
    pub(super) codes: Option<&'a Codes>,
}

/// Why there is no element: nothing was there, or it was left out with a remark.
pub(super) type Converted = Result<Option<Value>, &'static str>;

/// Converts one value of the row's (first) tag.
pub(super) fn convert(how: Convert, at: &At<'_>, value: &Value) -> Converted {
    Ok(match how {
        Convert::Text => return coded_text(at, value),
        Convert::Uid => {
            text_of(value).map(|uid| json!({ "system": "urn:dicom:uid", "value": format!("urn:oid:{uid}") }))
        }
        Convert::StepId => {
            let system = format!("urn:hilum:site:{}:performed-step", at.context.site);
            text_of(value).map(|id| json!({ "system": system, "value": id }))
        }
        Convert::NotDone => Some("not-done".into()),
        Convert::Concept => value.as_object().and_then(|item| concept(at, item)),
        Convert::Order => value.as_object().and_then(|item| order(at.context, item)),
        Convert::Accession => accession(at.context, at.item)
            .map(|(system, value)| link("ServiceRequest", Some("ACSN"), Some(system), &value)),
        Convert::Visit => {
            let system = issued(at.context, Kind::Other, at.item, "00380014");
            text_of(value).map(|id| link("Encounter", Some("VN"), system, &id))
        }
        Convert::Date => return date(value),
        Convert::DateTime => return date_time(at, value),
        Convert::Station => text_of(value).map(|title| station(at, &title)),
        Convert::Performing => display_name(value).map(|name| performer("PPRF", "primary performer", name)),
        Convert::Operating => display_name(value).map(|name| performer("SPRF", "secondary performer", name)),
        Convert::Display => text_of(value).map(|text| json!({ "display": text })),
        Convert::PatientId => {
            patient_id(at.context, at.root).map(|(system, value)| json!({ "system": system, "value": value }))
        }
        Convert::HumanName => human_name(value),
        Convert::Modality => text_of(value)
            .map(|code| json!({ "system": "http://dicom.nema.org/resources/ontology/DCM", "code": code })),
    })
}

fn coded_text(at: &At<'_>, value: &Value) -> Converted {
    let Some(text) = text_of(value) else { return Ok(None) };
    let Some(codes) = at.codes else { return Ok(Some(text.into())) };
    match codes.iter().find(|(code, _)| *code == text) {
        Some((_, target)) => Ok(Some(target.clone().into())),
        None => Err("a code is in no table and was left out"),
    }
}

fn date(value: &Value) -> Converted {
    let Some(text) = text_of(value) else { return Ok(None) };
    time::date(&text).map(|date| Some(date.into())).ok_or("is no date and was left out")
}

fn date_time(at: &At<'_>, value: &Value) -> Converted {
    let Some(date) = text_of(value) else { return Ok(None) };
    let time = at.tags.get(1).and_then(|tag| text(at.item, tag));
    let offset = text(at.root, time::OFFSET);
    let rendered = time::date_time(&date, time.as_deref(), offset.as_deref(), &at.context.zone);
    rendered.map(|text| Some(text.into())).ok_or("is no date and time and was left out")
}

/// The patient's identifier system and value: (0010,0020) with (0010,0024) and (0010,0021), else the site's system.
pub(super) fn patient_id(context: &Context, root: &DataSet) -> Option<(String, String)> {
    let value = text(root, "00100020")?;
    let issuer = text(root, "00100021");
    let qualifiers = items(root, "00100024").next();
    Some((authority(context, Kind::Patient, issuer.as_deref(), qualifiers)?, value))
}

/// Other patient IDs (0010,1002) that name their issuer; without one they may be anybody's of the site.
pub(super) fn other_patient_ids(context: &Context, root: &DataSet) -> Vec<(String, String)> {
    let number = |item: &DataSet| {
        let (issuer, qualifiers) = (text(item, "00100021"), items(item, "00100024").next());
        Some((authority(context, Kind::Other, issuer.as_deref(), qualifiers)?, text(item, "00100020")?))
    };
    items(root, "00101002").filter_map(number).collect()
}

/// The accession number's identifier system and value. (0008,0050) with (0008,0051), else the site's system.
pub(super) fn accession(context: &Context, item: &DataSet) -> Option<(String, String)> {
    let value = text(item, "00080050")?;
    Some((issued(context, Kind::Accession, item, "00080051")?, value))
}

/// The numbers by which an item names its order, each with its type code: filler, placer, accession number.
fn order_numbers(context: &Context, item: &DataSet) -> Vec<(&'static str, Option<String>, String)> {
    let numbered = |number: &str, issuer: &str, kind: &'static str| {
        Some((kind, issued(context, Kind::Other, item, issuer), text(item, number)?))
    };
    let accession = accession(context, item).map(|(system, value)| ("ACSN", Some(system), value));
    let own = [numbered("00402017", "00400027", "FILL"), numbered("00402016", "00400026", "PLAC")];
    own.into_iter().chain([accession]).flatten().collect()
}

/// The identifiers of the order an item stands for, the most trusted first.
pub(super) fn order_identifiers(context: &Context, item: &DataSet) -> Vec<Match> {
    let resource_type = identity::kind("ServiceRequest");
    let numbers = order_numbers(context, item).into_iter();
    numbers.map(|(_, system, value)| Match { resource_type, system, value }).collect()
}

/// The order a scheduled step stands for: by filler, placer or accession number. One that has a system is preferred: it names an
/// order of any patient, the others only one among this patient's.
fn order(context: &Context, item: &DataSet) -> Option<Value> {
    let mut numbers = order_numbers(context, item);
    let at = numbers.iter().position(|(_, system, _)| system.is_some()).unwrap_or_default();
    if numbers.is_empty() {
        return None;
    }
    let (kind, system, value) = numbers.swap_remove(at);
    Some(link("ServiceRequest", Some(kind), system, &value))
}

/// A reference that the store resolves by identifier, and that stays a logical one when nothing is found.
fn link(of: &str, kind: Option<&str>, system: Option<String>, value: &str) -> Value {
    let mut identifier = Map::new();
    if let Some(kind) = kind {
        identifier.insert("type".into(), json!({ "coding": [{ "system": IDENTIFIER_TYPE, "code": kind }] }));
    }
    let condition =
        format!("{of}?identifier={}|{}", token(system.as_deref().unwrap_or_default()), token(value));
    if let Some(system) = system {
        identifier.insert("system".into(), system.into());
    }
    identifier.insert("value".into(), value.into());
    json!({ "reference": condition, "type": of, "identifier": identifier })
}

/// A part of a token search value: FHIR's separators escaped, then percent-encoded for a query.
fn token(text: &str) -> String {
    use std::fmt::Write;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let escape = matches!(byte, b'\\' | b'|' | b',' | b'$');
        if escape {
            encoded.push_str("%5C");
        }
        if byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// The system of a number by the first item of its issuer's sequence.
fn issued(context: &Context, kind: Kind, item: &DataSet, issuer: &str) -> Option<String> {
    authority(context, kind, None, items(item, issuer).next())
}

/// The system of a number by an issuer's name and an item of the Hierarchic Designator macro, PS3.3 table 10-17.
fn authority(context: &Context, kind: Kind, name: Option<&str>, item: Option<&DataSet>) -> Option<String> {
    let part = |tag| item.and_then(|item| text(item, tag));
    let (namespace, universal, of) = (part("00400031"), part("00400032"), part("00400033"));
    let sent = Authority {
        namespace: name.or(namespace.as_deref()),
        universal: universal.as_deref(),
        kind: of.as_deref(),
    };
    identity::system(context, kind, &sent)
}

/// A code sequence item: value, designator and meaning. PS3.3 8.8.
fn concept(at: &At<'_>, item: &DataSet) -> Option<Value> {
    let code = ["00080100", "00080119", "00080120"].into_iter().find_map(|tag| text(item, tag));
    let meaning = text(item, "00080104");
    let mut concept = Map::new();
    if let Some(code) = code {
        let mut coding = Map::new();
        if let Some(name) = text(item, "00080102") {
            coding.insert("system".into(), code_system(at, &name, text(item, "0008010C")).into());
        }
        coding.insert("code".into(), code.split_whitespace().collect::<Vec<_>>().join(" ").into());
        if let Some(meaning) = &meaning {
            coding.insert("display".into(), meaning.clone().into());
        }
        concept.insert("coding".into(), json!([coding]));
    }
    if let Some(meaning) = meaning {
        concept.insert("text".into(), meaning.into());
    }
    (!concept.is_empty()).then_some(Value::Object(concept))
}

/// The URI of a coding scheme: a known designator, else its UID, else a URI of the site.
fn code_system(at: &At<'_>, name: &str, uid: Option<String>) -> String {
    if let Some((_, system)) = at.systems.iter().find(|(known, _)| known == name) {
        return system.clone();
    }
    match uid {
        Some(uid) => format!("urn:oid:{}", harmless(&uid)),
        None => format!("urn:hilum:site:{}:codes:{}", at.context.site, harmless(name)),
    }
}

fn station(at: &At<'_>, title: &str) -> Value {
    let system = format!("urn:hilum:site:{}:ae-title", at.context.site);
    let name = text(at.item, "00400242").unwrap_or_else(|| title.to_owned());
    json!({ "actor": { "type": "Device", "identifier": { "system": system, "value": title }, "display": name } })
}

fn performer(code: &str, display: &str, name: String) -> Value {
    json!({
        "function": { "coding": [{ "system": PARTICIPATION, "code": code, "display": display }] },
        "actor": { "display": name },
    })
}

/// A person name as people say it: prefix, given, middle, family, suffix.
fn display_name(value: &Value) -> Option<String> {
    let groups = groups(value);
    let (_, group) = groups.first()?;
    let part = |n: usize| group.split('^').nth(n).unwrap_or_default().trim();
    let words: Vec<&str> = [3, 1, 2, 0, 4].into_iter().map(part).filter(|part| !part.is_empty()).collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// The component groups of a person name that hold something, each with its representation code.
fn groups(value: &Value) -> Vec<(&'static str, String)> {
    const NAMES: [(&str, &str); 3] = [("Alphabetic", "ABC"), ("Ideographic", "IDE"), ("Phonetic", "SYL")];
    let holds_something = |text: &String| text.chars().any(|c| c != '^' && !c.is_whitespace());
    match value {
        // some senders write the group itself
        Value::String(text) => {
            let codes = NAMES.into_iter().map(|(_, code)| code);
            codes
                .zip(text.splitn(3, '=').map(str::to_owned))
                .filter(|(_, text)| holds_something(text))
                .collect()
        }
        Value::Object(object) => NAMES
            .into_iter()
            .filter_map(|(name, code)| Some((code, object.get(name)?.as_str()?.to_owned())))
            .filter(|(_, text)| holds_something(text))
            .collect(),
        _ => Vec::new(),
    }
}

/// The alphabetic group is the name; the others are further forms of it, told apart by their representation. PS3.5 6.2.1.
fn human_name(value: &Value) -> Option<Value> {
    let names: Vec<Value> = groups(value).iter().filter_map(|(code, group)| one_name(code, group)).collect();
    match names.len() {
        0 => None,
        1 => names.into_iter().next(),
        _ => Some(Value::Array(names)),
    }
}

fn one_name(representation: &str, group: &str) -> Option<Value> {
    let part = |n: usize| Some(group.split('^').nth(n)?.trim()).filter(|part| !part.is_empty());
    let mut name = Map::new();
    if representation != "ABC" {
        name.insert("extension".into(), json!([{ "url": REPRESENTATION, "valueCode": representation }]));
    }
    if let Some(family) = part(0) {
        name.insert("family".into(), family.into());
    }
    let given: Vec<&str> = [part(1), part(2)].into_iter().flatten().flat_map(str::split_whitespace).collect();
    if !given.is_empty() {
        name.insert("given".into(), json!(given));
    }
    for (member, n) in [("prefix", 3), ("suffix", 4)] {
        if let Some(text) = part(n) {
            name.insert(member.into(), json!([text]));
        }
    }
    Some(Value::Object(name))
}

/// The issue of a value that was left out.
pub(super) fn left_out(place: String, why: &'static str) -> Issue {
    Issue::warning(IssueCode::Value, why).at(place)
}

/// Expected number of images of a performed series: the objects it refers to, else the number it gives.
pub(super) fn expected_images(series: &DataSet) -> Option<u32> {
    let lists = ["00081140", "00400220"];
    let referred: usize = lists.iter().map(|tag| values(series, tag).len()).sum();
    if referred > 0 {
        return u32::try_from(referred).ok();
    }
    text(series, "00201209").and_then(|number| number.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_groups() {
        let name =
            json!({ "Alphabetic": "Yamada^Tarou^A B^Dr^Jr", "Ideographic": "山田^太郎", "Phonetic": "^" });
        let names = human_name(&name).unwrap();
        assert_eq!(
            names[0],
            json!({ "family": "Yamada", "given": ["Tarou", "A", "B"], "prefix": ["Dr"], "suffix": ["Jr"] })
        );
        assert_eq!(names[1]["extension"][0]["valueCode"], "IDE");
        assert_eq!(names.as_array().unwrap().len(), 2);
        assert_eq!(display_name(&name).unwrap(), "Dr Tarou A B Yamada Jr");
        assert_eq!(human_name(&json!({ "Alphabetic": "^^" })), None);
    }

    #[test]
    fn tokens_cannot_break_out_of_their_condition() {
        assert_eq!(token("a|b&c=1,d\\"), "a%5C%7Cb%26c%3D1%5C%2Cd%5C%5C");
    }
}

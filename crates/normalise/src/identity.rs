//! Whose a number is, said once for all doors: HL7 v2, v3, DICOM images and performed steps. A number alone names nobody: its assigning
//! authority becomes an `Identifier.system` here, and nowhere else, so that one patient's messages meet in one Patient whatever door they take.

use std::borrow::Cow;
use std::collections::HashSet;

use hilum_fhir::{Clue, Disagreement, Key, Keys, Match, PatientNumbers, Resource, ResourceType, Target};
use serde_json::Value;

use crate::Context;

/// Numbers of one patient in one message. A message with more is refused: each is looked up.
pub(crate) const NUMBERS_MAX: usize = 100;
/// Keys of one resource; further numbers become identifiers only.
const KEYS_MAX: usize = 20;
/// Former URIs under which one number is looked up.
const FORMER_MAX: usize = 8;
/// Clues to the patient of one message; further ones are not looked up.
const CLUES_MAX: usize = 100;
/// Types (HL7 table 0203) of numbers that several people bear, by rule or by habit: social security and insurance, which a family shares or a form
/// is filled with, visits and accounts, and how somebody pays. They name a patient only where no other number does.
const SHARED_TYPES: [&str; 17] = [
    "SS", "SN", "MB", "MA", "MC", "MCD", "MCR", "PNT", "AN", "AC", "VN", "AM", "DI", "VS", "BC", "GL", "ACSN",
];
/// The social security number of the United States by its system, as HL7 v3 and DICOM send it.
const SHARED_SYSTEMS: [&str; 2] = ["urn:oid:2.16.840.1.113883.4.1", "http://hl7.org/fhir/sid/us-ssn"];
/// The rank of a number that several people bear: after every place a number comes from.
const SHARED_RANK: u8 = 100;

/// Who assigned a number, as sent: HD of HL7 v2 (2.A.36), II of v3, issuers of DICOM (PS3.3 10.14), all with the same three parts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Authority<'t> {
    /// A name that means something at the site: HD.1, `assigningAuthorityName`, (0010,0021) or (0040,0031).
    pub(crate) namespace: Option<&'t str>,
    /// A name that means the same everywhere: HD.2, `root`, (0040,0032).
    pub(crate) universal: Option<&'t str>,
    /// What `universal` is, table 0301: HD.3, (0040,0033). None for `root`.
    pub(crate) kind: Option<&'t str>,
}

/// What a number is the number of: this decides what it means when no authority is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A patient of the site's own domain.
    Patient,
    /// An order of the site's accession domain.
    Accession,
    /// A visit, order, result or document: it has no system, and means one of this patient.
    Other,
}

/// The `Identifier.system` of a number: that of its authority, else the site's for its kind.
pub(crate) fn system(context: &Context, kind: Kind, sent: &Authority<'_>) -> Option<String> {
    authority(context, sent).or_else(|| match kind {
        Kind::Patient => Some(context.patient_identifier_system.clone()),
        Kind::Accession => Some(format!("urn:hilum:site:{}:accession", context.site)),
        Kind::Other => None,
    })
}

/// The URI of an authority: its universal id, the naming systems, else a URI of the site. A naming system that names one of these
/// URIs as a further id of its own has the last word, so that a name given later leaves nothing behind. `None` = no authority.
pub(crate) fn authority(context: &Context, sent: &Authority<'_>) -> Option<String> {
    let universal = sent.universal.map(str::trim).filter(|id| !id.is_empty());
    if let Some(id) = universal
        && let Some(uri) = uri(id, sent.kind)
    {
        return Some(named(context, &[id, &uri]).unwrap_or(uri));
    }
    let name = sent.namespace.map(str::trim).filter(|name| !name.is_empty()).or(universal)?;
    let local = format!("urn:hilum:site:{}:hd:{}", context.site, harmless(name));
    Some(named(context, &[name, &local]).unwrap_or(local))
}

fn named(context: &Context, names: &[&str]) -> Option<String> {
    let known = context.naming_systems.iter().find(|(name, _)| names.contains(&name.as_str()));
    known.map(|(_, system)| system.clone())
}

/// The URIs that an authority had before somebody named its system: of the site's own making, or its OID or UUID.
fn former<'c>(context: &'c Context, system: &str) -> impl Iterator<Item = &'c str> {
    let mut seen: Vec<&str> = Vec::new();
    let names = context.naming_systems.iter().filter(move |(_, of)| of == system);
    let mut is_new = move |name: &&'c str| {
        let is_new = name.contains(':') && !seen.contains(name);
        if is_new {
            seen.push(name);
        }
        is_new
    };
    names.map(|(name, _)| name.as_str()).filter(move |name| is_new(name)).take(FORMER_MAX)
}

/// A universal id as URI; `None` when its type is a local one (`L`, `M`, `N`) or unknown. Without a type its form decides.
pub(crate) fn uri(id: &str, kind: Option<&str>) -> Option<String> {
    let kind = kind.map(str::trim).unwrap_or_default().to_ascii_uppercase();
    match kind.as_str() {
        "ISO" => Some(format!("urn:oid:{}", harmless(strip(id, "urn:oid:")))),
        "UUID" | "GUID" => {
            Some(format!("urn:uuid:{}", harmless(strip(id, "urn:uuid:")).to_ascii_lowercase()))
        }
        "DNS" | "URI" => Some(id.chars().map(|c| if c.is_whitespace() { '_' } else { c }).collect()),
        "" if is_oid(id) => Some(format!("urn:oid:{id}")),
        "" if uuid::Uuid::try_parse(id).is_ok() => {
            Some(format!("urn:uuid:{}", harmless(strip(id, "urn:uuid:")).to_ascii_lowercase()))
        }
        _ => None,
    }
}

fn strip<'t>(id: &'t str, scheme: &str) -> &'t str {
    match id.get(..scheme.len()) {
        Some(start) if start.eq_ignore_ascii_case(scheme) => &id[scheme.len()..],
        _ => id,
    }
}

/// Numbers with dots between them, two at least.
fn is_oid(text: &str) -> bool {
    text.contains('.')
        && text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

/// A name as part of a URI.
pub(crate) fn harmless(name: &str) -> Cow<'_, str> {
    let is_harmless = |c: char| c.is_alphanumeric() || "._-".contains(c);
    if name.chars().all(is_harmless) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.chars().map(|c| if is_harmless(c) { c } else { '_' }).collect())
}

/// Why a message has no numbers of a patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unnamed {
    /// It sent none.
    Nobody,
    /// It sent more than [`NUMBERS_MAX`].
    TooMany,
}

/// The numbers that name a patient: of its identifiers those of the best rank, 0 first. `ranks` says for each identifier how much the
/// place it came from is trusted: numbers of the others are kept in the Patient, and name nobody.
pub(crate) fn patient_numbers(
    context: &Context,
    patient: &Value,
    ranks: &[u8],
    clues: Vec<Clue>,
    disagreement: Disagreement,
) -> Result<PatientNumbers, Unnamed> {
    let identifiers = patient["identifier"].as_array().map_or(&[][..], Vec::as_slice);
    let rank = |at: usize| {
        let place = ranks.get(at).copied().unwrap_or_default();
        if is_shared(&identifiers[at]) { place + SHARED_RANK } else { place }
    };
    let best = (0..identifiers.len()).map(rank).min().ok_or(Unnamed::Nobody)?;
    let wanted = identifiers.iter().enumerate().filter(|(at, _)| rank(*at) == best).map(|(_, i)| i);
    let numbers = wanted.filter_map(|identifier| {
        let system = identifier["system"].as_str().unwrap_or(&context.patient_identifier_system);
        Some((system.to_owned(), identifier["value"].as_str()?.to_owned()))
    });
    named_by(context, numbers, clues, disagreement)
}

/// Whether a number is of a kind that several people bear.
fn is_shared(identifier: &Value) -> bool {
    type_code(identifier).is_some_and(|code| SHARED_TYPES.contains(&code))
        || identifier["system"].as_str().is_some_and(|system| SHARED_SYSTEMS.contains(&system))
}

/// A patient named by these numbers, each once.
pub(crate) fn named_by(
    context: &Context,
    numbers: impl IntoIterator<Item = (String, String)>,
    clues: Vec<Clue>,
    disagreement: Disagreement,
) -> Result<PatientNumbers, Unnamed> {
    let (mut once, mut seen) = (Vec::new(), HashSet::new());
    for number in numbers {
        if seen.insert(number.clone()) {
            once.push(number);
        }
        if once.len() > NUMBERS_MAX {
            return Err(Unnamed::TooMany);
        }
    }
    if once.is_empty() {
        return Err(Unnamed::Nobody);
    }
    let under_former = |(system, value): &(String, String)| {
        former(context, system).map(|uri| (uri.to_owned(), value.clone())).collect::<Vec<_>>()
    };
    let former = once.iter().flat_map(under_former).filter(|number| !seen.contains(number));
    Ok(PatientNumbers {
        former: former.take(NUMBERS_MAX).collect(),
        numbers: once,
        domain: context.patient_identifier_system.clone(),
        join: context.join_unqualified,
        clues: each_once(clues),
        disagreement,
    })
}

fn each_once(clues: Vec<Clue>) -> Vec<Clue> {
    let mut seen = HashSet::with_capacity(clues.len());
    clues.into_iter().filter(|clue| seen.insert(clue.clone())).take(CLUES_MAX).collect()
}

/// The Patient these numbers lead to.
pub(crate) fn patient(numbers: PatientNumbers) -> Target {
    Target::Patient(Box::new(numbers))
}

/// The identifiers stay where they are: those of the priors are not the survivor's as well.
pub(crate) fn drop_numbers(survivor: &mut Value, gone: &HashSet<(String, String)>) {
    let text = |identifier: &Value, name: &str| identifier[name].as_str().unwrap_or_default().to_owned();
    if let Some(list) = survivor["identifier"].as_array_mut() {
        list.retain(|identifier| !gone.contains(&(text(identifier, "system"), text(identifier, "value"))));
    }
}

/// A Patient that has nothing but its identifiers: enough to name the survivor of a second merge.
pub(crate) fn identifiers_only(patient: &Resource) -> Resource {
    let mut slim = Resource::new(patient.resource_type());
    if let Some(list) = patient.get("identifier") {
        slim.set("identifier", list.clone());
    }
    slim
}

/// An order that a message names with an authority, as a clue to whose it is. A number without one names an order of any patient.
pub(crate) fn order_clue(system: Option<String>, value: String) -> Option<Clue> {
    system.is_some().then(|| Clue::Resource(Match { resource_type: kind("ServiceRequest"), system, value }))
}

/// The keys among a resource's identifiers: those of the first type code first. No type codes = all identifiers in their order. Behind a number
/// stands the same under the former URIs of its authority.
pub(crate) fn keys(context: &Context, resource: &Value, types: &[&str]) -> Vec<Key> {
    let of = kind(resource["resourceType"].as_str().unwrap_or_default());
    let list = resource["identifier"].as_array().map_or(&[][..], Vec::as_slice);
    let typed = |code: &&str| {
        let code = (*code).to_owned();
        list.iter().filter(move |identifier| type_code(identifier) == Some(code.as_str()))
    };
    let wanted: Vec<&Value> =
        if types.is_empty() { list.iter().collect() } else { types.iter().flat_map(typed).collect() };
    let keys = wanted.into_iter().filter_map(|identifier| key(of, identifier)).take(KEYS_MAX);
    keys.flat_map(|key| with_former(context, key)).collect()
}

fn with_former(context: &Context, key: Key) -> Vec<Key> {
    let mut keys = vec![key];
    if let Key::Number(Match { resource_type, system: Some(system), value }, _) = &keys[0] {
        let (of, value) = (*resource_type, value.clone());
        let under = |uri: &str| {
            Key::Former(Match { resource_type: of, system: Some(uri.to_owned()), value: value.clone() })
        };
        let more: Vec<Key> = former(context, system).map(under).collect();
        keys.extend(more);
    }
    keys
}

/// An identifier as key: without an authority it names one of this patient only.
fn key(of: ResourceType, identifier: &Value) -> Option<Key> {
    let value = identifier["value"].as_str()?.to_owned();
    let code = type_code(identifier).map(str::to_owned);
    Some(match identifier["system"].as_str() {
        Some(system) => {
            Key::Number(Match { resource_type: of, system: Some(system.to_owned()), value }, code)
        }
        None => Key::Bare(value, code),
    })
}

fn type_code(identifier: &Value) -> Option<&str> {
    identifier["type"]["coding"][0]["code"].as_str()
}

/// The resource that one of these keys names.
pub(crate) fn one_of(of: &str, patient: Option<String>, keys: Vec<Key>, by_code: bool) -> Target {
    Target::Keys(Box::new(Keys { resource_type: kind(of), patient, keys, by_code }))
}

/// A code as part of a key: its system and code, else its text.
pub(crate) fn code_text(concept: &Value) -> Option<String> {
    let coding = &concept["coding"][0];
    match (coding["system"].as_str(), coding["code"].as_str()) {
        (Some(system), Some(code)) => Some(format!("{system}|{code}")),
        (None, Some(code)) => Some(format!("|{code}")),
        _ => concept["text"].as_str().map(str::to_owned),
    }
}

/// The number by which the first version of the store knew a patient: of type MR or PI first, then in order. Part of composed keys
/// that are still looked for.
pub(crate) fn former_patient(patient: &Value) -> String {
    let list = patient["identifier"].as_array().map_or(&[][..], Vec::as_slice);
    let first = list.iter().find(|i| matches!(type_code(i), Some("MR" | "PI"))).or_else(|| list.first());
    first.map(former_number).unwrap_or_default()
}

/// The number by which the first version of the store knew a report: filler, else placer.
pub(crate) fn former_report(report: &Value) -> Option<String> {
    let list = report["identifier"].as_array()?;
    let typed = |code: &str| list.iter().find(|identifier| type_code(identifier) == Some(code));
    typed("FILL").or_else(|| typed("PLAC")).map(former_number)
}

fn former_number(identifier: &Value) -> String {
    let part = |name: &str| identifier[name].as_str().unwrap_or_default();
    format!("{}|{}", part("system"), part("value"))
}

/// A type this crate names.
pub(crate) fn kind(name: &str) -> ResourceType {
    ResourceType::from_name(name).unwrap_or_else(|| unreachable!("types are named by this crate"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    fn context(names: &[(&str, &str)]) -> Context {
        Context {
            site: "s".into(),
            zone: jiff::tz::TimeZone::UTC,
            patient_identifier_system: "urn:mrn".into(),
            naming_systems: names
                .iter()
                .map(|(n, s)| ((*n).to_owned(), (*s).to_owned()))
                .collect::<Arc<[_]>>(),
            join_unqualified: true,
            keep_unidentified: false,
            received: hilum_fhir::Timestamp::from_micros(0),
            seed: 0,
        }
    }

    fn sent<'t>(namespace: &'t str, universal: &'t str, kind: &'t str) -> Authority<'t> {
        let some = |text: &'t str| Some(text).filter(|t| !t.is_empty());
        Authority { namespace: some(namespace), universal: some(universal), kind: some(kind) }
    }

    #[test]
    fn an_authority_is_its_universal_id_else_a_naming_system_else_a_uri_of_the_site() {
        let context = context(&[
            ("HIS", "https://h/ids"),
            ("1.2.9", "https://nine"),
            ("urn:hilum:site:s:hd:OLD", "https://new"),
        ]);
        for (namespace, universal, kind, wanted) in [
            ("HIS", "1.2.3", "ISO", Some("urn:oid:1.2.3")),
            ("", "urn:oid:1.2.3", "ISO", Some("urn:oid:1.2.3")),
            ("HIS", "1.2.9", "ISO", Some("https://nine")),
            ("", "6B0F", "UUID", Some("urn:uuid:6b0f")),
            ("", "lab.example", "DNS", Some("lab.example")),
            ("", "https://a/b", "URI", Some("https://a/b")),
            ("", "1.2.3", "", Some("urn:oid:1.2.3")),
            (
                "",
                "550E8400-E29B-41D4-A716-446655440000",
                "",
                Some("urn:uuid:550e8400-e29b-41d4-a716-446655440000"),
            ),
            ("HIS", "lab", "L", Some("https://h/ids")),
            ("", "lab", "N", Some("urn:hilum:site:s:hd:lab")),
            ("HIS", "", "ISO", Some("https://h/ids")),
            ("A B", "", "", Some("urn:hilum:site:s:hd:A_B")),
            ("OLD", "", "", Some("https://new")),
            (" ", "", "ISO", None),
        ] {
            assert_eq!(
                authority(&context, &sent(namespace, universal, kind)).as_deref(),
                wanted,
                "{namespace} {universal} {kind}"
            );
        }
    }

    #[test]
    fn without_an_authority_the_kind_of_number_decides() {
        let context = context(&[]);
        let of = |kind| system(&context, kind, &Authority::default());
        assert_eq!(of(Kind::Patient).as_deref(), Some("urn:mrn"));
        assert_eq!(of(Kind::Accession).as_deref(), Some("urn:hilum:site:s:accession"));
        assert_eq!(of(Kind::Other), None);
    }

    #[test]
    fn a_patient_is_named_by_all_numbers_of_the_best_place_and_by_each_once() {
        let patient = json!({ "identifier": [
            { "system": "http://hl7.org/fhir/sid/us-ssn", "value": "9" }, { "system": "a", "value": "1" }, { "value": "2" },
            { "system": "a", "value": "1" } ] });
        let numbers = |ranks: &[u8]| {
            let found =
                patient_numbers(&context(&[]), &patient, ranks, Vec::new(), Disagreement::Refuse).unwrap();
            found.numbers.into_iter().map(|(_, value)| value).collect::<Vec<_>>()
        };
        assert_eq!(numbers(&[4, 0, 0, 0]), ["1", "2"]);
        assert_eq!(numbers(&[4, 5, 5, 5]), ["1", "2"], "several people may bear a social security number");
        let ssn = json!({ "identifier": [{ "system": "urn:x", "value": "9", "type": { "coding": [{ "code": "SS" }] } }] });
        let only = patient_numbers(&context(&[]), &ssn, &[0], Vec::new(), Disagreement::Refuse).unwrap();
        assert_eq!(
            only.numbers,
            [("urn:x".to_owned(), "9".to_owned())],
            "where nothing else names the patient"
        );
        let none = patient_numbers(&context(&[]), &json!({}), &[], Vec::new(), Disagreement::Refuse);
        assert_eq!(none, Err(Unnamed::Nobody));
        let many = (0..=NUMBERS_MAX).map(|n| ("a".to_owned(), n.to_string()));
        assert_eq!(named_by(&context(&[]), many, Vec::new(), Disagreement::Refuse), Err(Unnamed::TooMany));
    }

    #[test]
    fn keys_stand_in_order_of_trust_and_a_number_without_authority_is_a_bare_one() {
        let typed = |code: &str, system: Option<&str>, value: &str| {
            let mut identifier = json!({ "type": { "coding": [{ "code": code }] }, "value": value });
            if let Some(system) = system {
                identifier["system"] = system.into();
            }
            identifier
        };
        let order = json!({ "resourceType": "ServiceRequest", "identifier": [
            typed("PLAC", Some("his"), "P1"), typed("ACSN", Some("acc"), "A1"), typed("FILL", None, "F1") ] });
        let wanted =
            Match { resource_type: kind("ServiceRequest"), system: Some("his".into()), value: "P1".into() };
        assert_eq!(
            keys(&context(&[]), &order, &["FILL", "PLAC"]),
            [Key::Bare("F1".into(), Some("FILL".into())), Key::Number(wanted.clone(), Some("PLAC".into()))]
        );
        assert_eq!(keys(&context(&[]), &order, &[]).len(), 3);
        let named = context(&[("HIS", "his"), ("urn:hilum:site:s:hd:HIS", "his"), ("urn:oid:1.2", "acc")]);
        let former = Match { system: Some("urn:hilum:site:s:hd:HIS".into()), ..wanted.clone() };
        assert_eq!(
            keys(&named, &order, &["PLAC"]),
            [Key::Number(wanted, Some("PLAC".into())), Key::Former(former)],
            "a name that is no URI was no system"
        );
    }
}

//! Index keys. The hash input is length-prefixed and pinned by test vectors: a changed hash orphans every index.
//!
//! A fact has one row: a token with its system beside the key of its code, so that it is found with and without the system, and a value that
//! several parameters offer (`subject` and `patient`, `name` and `family`) under the widest of them.

use hilum_fhir::ResourceType;
use hilum_fhir::search::{
    Entries, EntryValue, ParamType, Parameter, Reference, canonical_system, normal_form, parameters,
};
use xxhash_rust::xxh3::xxh3_64;

/// Normal forms are indexed up to this many bytes; longer ones are told apart on the body.
const STRING_BYTES_MAX: usize = 64;

/// The key of a token, reference or uri.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Type, parameter, kind and code, reference or uri.
    pub value: i64,
    /// System of a token, 32 bits of a hash; 0 = none.
    pub system: i64,
}

/// The index rows of one version.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// Token, reference and uri keys, sorted.
    pub keys: Vec<Key>,
    /// Strings: key and normal form, sorted.
    pub strings: Vec<(i64, String)>,
    /// Dates, numbers and quantities: key and range, sorted.
    pub ranges: Vec<(i64, i64, i64)>,
}

impl Rows {
    /// The keys that `other` lacks; all of them when the place of the row in the index moved.
    pub fn keys_without<'r>(&'r self, other: &'r Self, moved: bool) -> impl Iterator<Item = &'r Key> {
        self.keys.iter().filter(move |key| moved || other.keys.binary_search(key).is_err())
    }

    /// The strings that `other` lacks.
    pub fn strings_without<'r>(&'r self, other: &'r Self) -> impl Iterator<Item = &'r (i64, String)> {
        self.strings.iter().filter(|row| other.strings.binary_search(row).is_err())
    }

    /// The ranges that `other` lacks.
    pub fn ranges_without<'r>(&'r self, other: &'r Self) -> impl Iterator<Item = &'r (i64, i64, i64)> {
        self.ranges.iter().filter(|row| other.ranges.binary_search(row).is_err())
    }
}

/// Whether a parameter has index rows. Others repeat what another parameter of the type indexes, are asked so rarely that they are
/// checked on bodies, or say nothing.
pub fn is_indexed(parameter: &Parameter) -> bool {
    !(parameter.name == "phonetic"
        || parameter.name.starts_with("combo-")
        || matches!(parameter.name, "_id" | "_lastUpdated" | "_security")
        || matches!(parameter.param_type, ParamType::Composite | ParamType::Special)
        || matches!(
            (parameter.resource_type.name(), parameter.name),
            ("Patient", "address-use")
                | ("Encounter", "participant-type")
                | ("AllergyIntolerance", "category" | "criticality" | "severity" | "type")
        ))
}

/// Whether most resources of a type have this code, so that a row for it says next to nothing: such codes have none, and a search that asks
/// for one checks bodies. What is looked for because it is rare, or not yet over (`active` orders, visits `in-progress`), has its row.
pub fn is_common(parameter: &Parameter, code: &str) -> bool {
    matches!(
        (parameter.resource_type.name(), parameter.name, code),
        ("Patient", "gender", "male" | "female")
            | ("Patient", "active", "true")
            | ("Patient", "deceased", "false")
            | ("Encounter", "class", "AMB" | "IMP")
            | ("Encounter", "status", "finished")
            | ("Observation", "category", "laboratory" | "vital-signs")
            | ("Observation" | "DiagnosticReport", "status", "final")
            | ("ServiceRequest" | "MedicationRequest", "intent", "order")
            | (
                "ServiceRequest"
                    | "Procedure"
                    | "MedicationRequest"
                    | "MedicationAdministration"
                    | "MedicationDispense"
                    | "Immunization",
                "status",
                "completed"
            )
            | ("Condition" | "AllergyIntolerance", "clinical-status", "active")
            | ("Condition" | "AllergyIntolerance", "verification-status", "confirmed")
            | ("Condition", "category", "encounter-diagnosis" | "problem-list-item")
            | ("ImagingStudy", "status", "available")
            | ("DocumentReference", "status", "current")
    )
}

/// The parameter under which the values of this one are indexed.
pub fn widest(parameter: &'static Parameter) -> &'static Parameter {
    let all = parameters(parameter.resource_type);
    let wider = |one: &'static Parameter| one.covered_by.iter().map(|at| &all[*at]).find(|by| is_indexed(by));
    let mut widest = parameter;
    while let Some(wider) = wider(widest) {
        widest = wider;
    }
    widest
}

/// The rows of a resource's entries.
pub fn rows(entries: &Entries) -> Rows {
    let mut rows = Rows::default();
    for entry in &entries.entries {
        let parameter = entry.parameter;
        if let EntryValue::Reference { target: None, identifier: Some((system, value)) } = &entry.value {
            rows.keys.push(waiting_key(system.as_deref(), value));
        }
        if !is_indexed(parameter) || widest(parameter) != parameter {
            continue;
        }
        match &entry.value {
            EntryValue::Token { code: Some(code), .. } if is_common(parameter, code) => {}
            EntryValue::Token { system, code: Some(code), .. } => {
                rows.keys.push(token(parameter, system.as_deref(), code));
            }
            EntryValue::Token { .. } | EntryValue::Composite(_) => {}
            EntryValue::Reference { target, identifier } => {
                rows.keys.extend(target.as_ref().and_then(|target| reference_key(parameter, target)));
                if let Some((system, value)) = identifier {
                    rows.keys.push(logical(parameter, system.as_deref().unwrap_or_default(), value));
                }
            }
            EntryValue::String(text) => {
                let normal = normal_form(text);
                rows.strings.push((strings(parameter), cut(&normal).to_owned()));
            }
            EntryValue::Uri(url) => rows.keys.push(uri(parameter, url)),
            EntryValue::Date(low, high)
            | EntryValue::Number(low, high)
            | EntryValue::Quantity(low, high, ..) => {
                rows.ranges.push((ranges(parameter), *low, *high));
            }
        }
    }
    rows.keys.sort_unstable();
    rows.keys.dedup();
    rows.strings.sort_unstable();
    rows.strings.dedup();
    rows.ranges.sort_unstable();
    rows.ranges.dedup();
    rows
}

/// The key of an identifier, by which targets are matched.
pub fn identifier_key(resource_type: ResourceType, system: Option<&str>, value: &str) -> Key {
    Key { value: identifier_value(resource_type, value), system: system.map_or(0, system_hash) }
}

/// The part of [`identifier_key`] that is the same for every system.
pub fn identifier_value(resource_type: ResourceType, value: &str) -> i64 {
    hash_parts(resource_type.name(), "identifier", b't', "", value)
}

/// The key of what belongs to a patient; `None` for types without one.
pub fn patient_key(of: ResourceType, patient: ResourceType, id: &str) -> Option<Key> {
    let named = |name: &str| parameters(of).iter().find(|p| p.name == name);
    let parameter = named("patient").or_else(|| named("subject"))?;
    reference_key(widest(parameter), &Reference::Local(patient, id.to_owned()))
}

/// The key of a logical reference that nothing is known for yet: it waits for a resource with this identifier.
pub fn waiting_key(system: Option<&str>, value: &str) -> Key {
    Key { value: hash_parts("*", "waiting", b'q', system.unwrap_or_default(), value), system: 0 }
}

/// The keys under which everything that refers to a resource is indexed: one for each reference parameter that can point to its type.
pub fn referring_keys(of: ResourceType, id: &str) -> Vec<Key> {
    let target = Reference::Local(of, id.to_owned());
    let may_point = |parameter: &&'static Parameter| {
        let is_of_type = parameter.targets.is_empty() || parameter.targets.contains(&of);
        parameter.param_type == ParamType::Reference && is_of_type
    };
    let all = ResourceType::all().flat_map(parameters).filter(may_point).map(widest);
    let mut keys: Vec<Key> =
        all.filter(|wide| is_indexed(wide)).filter_map(|wide| reference_key(wide, &target)).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// How a filter is looked up.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// Resources with any of these keys; when `exact`, the key decides alone.
    Keys {
        /// Any of these.
        keys: Vec<Key>,
        /// The key decides alone.
        exact: bool,
    },
    /// Strings that start with any of these.
    Strings(i64, Vec<String>),
    /// Ranges that overlap any of `[low, high]`.
    Ranges(i64, Vec<(i64, i64)>),
    /// Any of these ids.
    Ids(Vec<String>),
}

/// The key of a token.
pub fn token(parameter: &Parameter, system: Option<&str>, code: &str) -> Key {
    Key { value: hash(parameter, b't', "", code), system: system.map_or(0, system_hash) }
}

/// 32 bits of the system's hash, never 0.
fn system_hash(system: &str) -> i64 {
    i64::from((xxh3_64(canonical_system(system).as_bytes()) >> 32) as u32).max(1)
}

/// The key of a reference; `None` when it is a bare id, which may be of any type.
pub fn reference_key(parameter: &Parameter, target: &Reference) -> Option<Key> {
    match target {
        Reference::Local(of, id) => Some(plain(parameter, b'r', of.name(), id)),
        Reference::Url(url) => Some(uri(parameter, url.split('|').next().unwrap_or(url))),
        Reference::Id(_) => None,
    }
}

/// The key of a reference by identifier.
pub fn logical(parameter: &Parameter, system: &str, value: &str) -> Key {
    plain(parameter, b'l', system, value)
}

/// The key of a uri, also of one that a reference holds.
pub fn uri(parameter: &Parameter, uri: &str) -> Key {
    plain(parameter, b'u', "", uri)
}

/// The key of all strings of a parameter.
pub fn strings(parameter: &Parameter) -> i64 {
    hash(parameter, b'w', "", "")
}

/// The key of all ranges of a parameter: dates, numbers, quantities.
pub fn ranges(parameter: &Parameter) -> i64 {
    hash(parameter, b'd', "", "")
}

fn plain(parameter: &Parameter, tag: u8, system: &str, code: &str) -> Key {
    Key { value: hash(parameter, tag, system, code), system: 0 }
}

/// A normal form as far as it is indexed: the longest beginning within the limit that ends at a character.
pub fn cut(normal: &str) -> &str {
    let mut end = normal.len().min(STRING_BYTES_MAX);
    while !normal.is_char_boundary(end) {
        end -= 1;
    }
    &normal[..end]
}

fn hash(parameter: &Parameter, tag: u8, system: &str, code: &str) -> i64 {
    hash_parts(parameter.resource_type.name(), parameter.name, tag, system, code)
}

fn hash_parts(resource_type: &str, parameter: &str, tag: u8, system: &str, code: &str) -> i64 {
    let mut input = Vec::with_capacity(32 + parameter.len() + system.len() + code.len());
    for part in [resource_type, parameter, system, code] {
        input.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
        input.extend_from_slice(part.as_bytes());
    }
    input.push(tag);
    xxh3_64(&input).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_pinned() {
        let patient = ResourceType::from_name("Patient").unwrap();
        let [value, system] = PINNED;
        assert_eq!(identifier_key(patient, Some("urn:a"), "1"), Key { value, system });
        assert_eq!(identifier_key(patient, None, "1"), Key { value, system: 0 });
        assert_ne!(hash_parts("Patient", "a", b's', "bc", "d"), hash_parts("Patient", "a", b's', "b", "cd"));
    }

    /// Compared each with each, these are forty thousand million pairs: the test would not come to its end.
    #[test]
    fn rows_are_compared_in_their_order_and_not_each_with_each() {
        let rows = |from: i64| {
            let all = from..from + 200_000;
            Rows {
                keys: all.clone().map(|value| Key { value, system: 0 }).collect(),
                strings: all.clone().map(|key| (key, "x".to_owned())).collect(),
                ranges: all.map(|key| (key, 0, 1)).collect(),
            }
        };
        let (old, new) = (rows(0), rows(1));
        assert_eq!(new.keys_without(&old, false).count(), 1);
        assert_eq!(new.strings_without(&old).collect::<Vec<_>>(), [&(200_000, "x".to_owned())]);
        assert_eq!(new.ranges_without(&old).collect::<Vec<_>>(), [&(200_000, 0, 1)]);
    }

    const PINNED: [i64; 2] = [8_715_678_301_877_817_879, 651_329_334];

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(cut(&"é".repeat(40)).len(), 64);
        assert_eq!(cut(&format!("a{}", "é".repeat(40))).len(), 63);
    }
}

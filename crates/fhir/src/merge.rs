//! Merging what a message says into what is stored. Lists are united by what their elements are known by, never by comparing each with each.

use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::BuildHasher;

use serde_json::{Map, Value};

use crate::Resource;
use crate::validate::{definition_of, other_types};

/// Members a merge never touches.
const OWN: [&str; 3] = ["resourceType", "id", "meta"];

/// Applies `update` to `current`: paths in `clear` (dotted element names from the root, such as `name` or `period.end`, and slices of
/// lists, such as `telecom[use=work]`) are removed first; then objects merge member by member, every other value and every list replaces,
/// but `identifier` lists are united by system and value, member by member, and a list of which `clear` names a slice takes up what it has
/// not yet. A choice element is one element: writing `valueString` takes `valueQuantity` away (R4 formats, choice of data types). `id`, `meta`
/// and `resourceType` of `current` stay.
pub fn merge(current: &Resource, update: &Resource, clear: &[String]) -> Resource {
    let mut merged = current.clone();
    let definition = current.resource_type().name();
    for path in clear.iter().filter(|path| !path.ends_with(']')) {
        remove(merged.object_mut(), path);
    }
    // where the elements of each list stood that a slice took away
    let mut cuts: Vec<(&str, usize)> = Vec::new();
    for slice in clear.iter().filter_map(|path| Slice::read(path)) {
        let at = slice.cut(merged.object_mut(), update.get(slice.list));
        match cuts.iter_mut().find(|(list, _)| *list == slice.list) {
            Some((_, first)) => *first = at.min(*first),
            None => cuts.push((slice.list, at)),
        }
    }
    for (name, value) in update.object() {
        if !OWN.contains(&name.as_str()) {
            let cut = cuts.iter().find(|(list, _)| list == name && name != "identifier");
            match (cut, merged.object_mut().get_mut(name), value) {
                (Some((_, at)), Some(Value::Array(stored)), Value::Array(sent)) => take_up(stored, *at, sent),
                _ => merge_member(merged.object_mut(), definition, name, value),
            }
        }
    }
    merged
}

/// The elements of a list that one field of a message speaks for: those that have a value at a path, or have it not.
struct Slice<'p> {
    list: &'p str,
    path: &'p str,
    value: &'p str,
    /// `=`, else `!=`.
    has_it: bool,
}

impl<'p> Slice<'p> {
    /// Reads `telecom[use=work]`, `telecom[use!=work]`, `participant[type.coding.code=ATND]`; `None` for other paths.
    fn read(text: &'p str) -> Option<Self> {
        let (list, condition) = text.strip_suffix(']')?.split_once('[')?;
        let (path, value) = condition.split_once('=')?;
        let has_it = !path.ends_with('!');
        Some(Self { list, path: path.trim_end_matches('!'), value, has_it })
    }

    /// Takes the slice out of its list; where its first element stood. Identifiers that are sent again stay in their place.
    fn cut(&self, resource: &mut Map<String, Value>, sent: Option<&Value>) -> usize {
        let Some(Value::Array(list)) = resource.get_mut(self.list) else { return usize::MAX };
        let sent = sent.filter(|_| self.list == "identifier").and_then(Value::as_array);
        let sent: HashSet<_> = sent.into_iter().flatten().map(number).collect();
        let is_sent = |one: &Value| !sent.is_empty() && sent.contains(&number(one));
        let goes = |element: &Value| self.holds(element) == self.has_it && !is_sent(element);
        let first = list.iter().position(goes).unwrap_or(usize::MAX);
        list.retain(|element| !goes(element));
        if list.is_empty() {
            resource.shift_remove(self.list);
        }
        first
    }

    /// Whether the value stands at the path, in any element of the lists on the way.
    fn holds(&self, element: &Value) -> bool {
        let mut level = vec![element];
        for name in self.path.split('.') {
            let members = level.into_iter().filter_map(|value| value.get(name));
            level = members
                .flat_map(|member| match member {
                    Value::Array(list) => list.iter().collect(),
                    other => vec![other],
                })
                .collect();
        }
        level.iter().any(|value| value.as_str() == Some(self.value))
    }
}

/// Puts into a list what it has not yet, at a place: what is sent again stands where it stood, and the same message makes no new version.
fn take_up(stored: &mut Vec<Value>, at: usize, sent: &[Value]) {
    let known: HashSet<&Value> = stored.iter().collect();
    let fresh: Vec<Value> = sent.iter().filter(|value| !known.contains(value)).cloned().collect();
    let at = at.min(stored.len());
    stored.splice(at..at, fresh);
}

/// Whether two versions say the same: everything but `id`, `meta.versionId` and `meta.lastUpdated`.
pub fn same_content(one: &Resource, other: &Resource) -> bool {
    let is_content = |name: &str| name != "id" && name != "meta";
    let count = |resource: &Resource| resource.object().keys().filter(|name| is_content(name)).count();
    let is_same = |(name, value): (&String, &Value)| !is_content(name) || other.get(name) == Some(value);
    count(one) == count(other) && one.object().iter().all(is_same) && meta(one) == meta(other)
}

/// What `meta` says beside the version and its time; `None` when that is nothing.
fn meta(resource: &Resource) -> Option<Cow<'_, Value>> {
    let meta = resource.get("meta")?;
    let Value::Object(members) = meta else { return Some(Cow::Borrowed(meta)) };
    let mut members = members.clone();
    members.shift_remove("versionId");
    members.shift_remove("lastUpdated");
    (!members.is_empty()).then(|| Cow::Owned(Value::Object(members)))
}

/// A value still to be merged: its place by member names from the root, and the definition of the object it stands in.
struct Pending {
    path: Vec<String>,
    definition: Option<&'static str>,
    update: Value,
}

/// Nothing recurses on input: only objects that exist on both sides are entered, and those are as deep as the stored resource at most.
fn merge_member(target: &mut Map<String, Value>, definition: &'static str, name: &str, update: &Value) {
    let mut work =
        vec![Pending { path: vec![name.to_owned()], definition: Some(definition), update: update.clone() }];
    while let Some(Pending { path, definition, update }) = work.pop() {
        let Some((last, parents)) = path.split_last() else { continue };
        let Some(place) = descend(target, parents) else { continue };
        for other in definition.map_or_else(Vec::new, |definition| other_types(definition, last)) {
            place.shift_remove(other);
            place.shift_remove(&format!("_{other}"));
        }
        match (place.get_mut(last), update) {
            (Some(Value::Object(_)), Value::Object(members)) => {
                let definition = definition.and_then(|definition| definition_of(definition, last));
                for (member, update) in members.into_iter().rev() {
                    let mut deeper = path.clone();
                    deeper.push(member);
                    work.push(Pending { path: deeper, definition, update });
                }
            }
            (Some(Value::Array(stored)), Value::Array(sent)) if last == "identifier" => unite(stored, sent),
            (_, update) => {
                place.insert(last.clone(), update);
            }
        }
    }
}

fn descend<'v>(object: &'v mut Map<String, Value>, path: &[String]) -> Option<&'v mut Map<String, Value>> {
    let mut place = object;
    for name in path {
        place = place.get_mut(name)?.as_object_mut()?;
    }
    Some(place)
}

/// Members of identifiers sent overwrite those of stored ones with the same system and value (a sender that knows no type
/// does not take away the one another knew); new identifiers are added at the end. A number once with and once without a system is one number:
/// it has the system.
fn unite(stored: &mut Vec<Value>, sent: Vec<Value>) {
    let mut known = Known::of(stored);
    for identifier in sent {
        let at = known.find(stored, &identifier);
        match (at.map(|at| (at, &mut stored[at])), identifier) {
            (Some((at, one)), identifier) => {
                known.forget(at, one);
                match (&mut *one, identifier) {
                    (Value::Object(one), Value::Object(sent)) => one.extend(sent),
                    (one, sent) => *one = sent,
                }
                known.note(at, one);
            }
            (None, identifier) => {
                known.note(stored.len(), &identifier);
                stored.push(identifier);
            }
        }
    }
}

/// Where the identifiers of a list stand, by what they are known by. Two that share a hash are compared.
#[derive(Default)]
struct Known {
    hasher: RandomState,
    places: HashMap<u64, BTreeSet<usize>>,
}

impl Known {
    fn of(list: &[Value]) -> Self {
        let mut known = Self::default();
        list.iter().enumerate().for_each(|(at, identifier)| known.note(at, identifier));
        known
    }

    /// The first with the same system and value, else the first with the same value and type where only one of the two names a system.
    fn find(&self, list: &[Value], wanted: &Value) -> Option<usize> {
        let at = |hash: u64| self.places.get(&hash).into_iter().flatten().copied();
        let bare = (wanted.get("system").is_none(), bare_number(wanted));
        at(self.hasher.hash_one(number(wanted)))
            .find(|at| number(&list[*at]) == number(wanted))
            .or_else(|| at(self.hasher.hash_one(bare)).find(|at| same_bare_number(&list[*at], wanted)))
    }

    fn hashes(&self, identifier: &Value) -> [u64; 2] {
        let bare = (identifier.get("system").is_some(), bare_number(identifier));
        [self.hasher.hash_one(number(identifier)), self.hasher.hash_one(bare)]
    }

    fn note(&mut self, at: usize, identifier: &Value) {
        for hash in self.hashes(identifier) {
            self.places.entry(hash).or_default().insert(at);
        }
    }

    fn forget(&mut self, at: usize, identifier: &Value) {
        for hash in self.hashes(identifier) {
            self.places.entry(hash).or_default().remove(&at);
        }
    }
}

/// System and value of an identifier.
fn number(identifier: &Value) -> (Option<&Value>, Option<&Value>) {
    (identifier.get("system"), identifier.get("value"))
}

/// Value and type of an identifier.
fn bare_number(identifier: &Value) -> (Option<&Value>, Option<&str>) {
    (identifier.get("value"), identifier["type"]["coding"][0]["code"].as_str())
}

/// The same value and type, where only one of them names a system.
fn same_bare_number(one: &Value, other: &Value) -> bool {
    one.get("system").is_some() != other.get("system").is_some() && bare_number(one) == bare_number(other)
}

fn remove(object: &mut Map<String, Value>, path: &str) {
    let parts: Vec<String> = path.split('.').map(str::to_owned).collect();
    if let Some((last, parents)) = parts.split_last()
        && let Some(place) = descend(object, parents)
    {
        place.shift_remove(last);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resource(value: Value) -> Resource {
        Resource::from_value(value).unwrap()
    }

    #[test]
    fn present_overwrites_absent_stays_cleared_goes() {
        let current = resource(json!({
            "resourceType": "Patient", "id": "1", "meta": { "versionId": "3" }, "active": true,
            "identifier": [{ "system": "a", "value": "1" }, { "system": "b", "value": "2", "type": { "text": "MR" } }],
            "name": [{ "family": "Old" }], "gender": "male", "birthDate": "1980-01-01",
            "maritalStatus": { "text": "M", "coding": [{ "code": "M" }] },
        }));
        let update = resource(json!({
            "resourceType": "Patient", "id": "other", "identifier": [{ "system": "b", "value": "2", "use": "official" }, { "value": "3" }],
            "name": [{ "family": "New" }], "maritalStatus": { "text": "Married" },
        }));
        let merged = merge(&current, &update, &["gender".into(), "contact.name".into()]);
        assert_eq!(
            merged.to_value(),
            json!({
                "resourceType": "Patient", "id": "1", "meta": { "versionId": "3" }, "active": true,
                "identifier": [{ "system": "a", "value": "1" }, { "system": "b", "value": "2", "type": { "text": "MR" }, "use": "official" }, { "value": "3" }],
                "name": [{ "family": "New" }], "birthDate": "1980-01-01",
                "maritalStatus": { "text": "Married", "coding": [{ "code": "M" }] },
            })
        );
    }

    /// Compared each with each, these are ten thousand million pairs: the test would not come to its end.
    #[test]
    fn lists_of_a_hundred_thousand_are_united_without_comparing_each_with_each() {
        const MANY: usize = 100_000;
        let list =
            |from: usize| (from..from + MANY).map(|n| json!({ "system": "a", "value": n.to_string() }));
        let lines = |from: usize| (from..from + MANY).map(|n| json!({ "value": n.to_string() }));
        let patient = |from: usize| {
            let (numbers, lines): (Value, Value) = (list(from).collect(), lines(from).collect());
            resource(json!({ "resourceType": "Patient", "identifier": numbers, "telecom": lines }))
        };
        let clear = ["telecom[use=work]".to_owned(), "identifier[system=b]".to_owned()];
        let merged = merge(&patient(0), &patient(MANY / 2), &clear);
        let length = |member: &str| merged.get(member).and_then(Value::as_array).map(Vec::len);
        assert_eq!((length("identifier"), length("telecom")), (Some(MANY * 3 / 2), Some(MANY * 3 / 2)));
        assert!(same_content(&merged, &merge(&merged, &patient(0), &clear)));
    }

    /// What `unite` is to do, by comparing each with each.
    fn united_by_pairs(stored: &mut Vec<Value>, sent: Vec<Value>) {
        for identifier in sent {
            let known = stored.iter().position(|known| number(known) == number(&identifier));
            let known =
                known.or_else(|| stored.iter().position(|known| same_bare_number(known, &identifier)));
            match (known.map(|at| &mut stored[at]), identifier) {
                (Some(Value::Object(known)), Value::Object(sent)) => known.extend(sent),
                (Some(known), sent) => *known = sent,
                (None, sent) => stored.push(sent),
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn identifiers_are_united_as_by_pairs(
            stored in proptest::collection::vec((0..3_u8, 0..3_u8, 0..3_u8), 0..12),
            sent in proptest::collection::vec((0..3_u8, 0..3_u8, 0..3_u8), 0..12),
        ) {
            let identifier = |(at, (system, value, code)): (usize, (u8, u8, u8))| {
                let mut identifier = json!({ "value": value.to_string(), "use": at.to_string() });
                if system > 0 {
                    identifier["system"] = system.to_string().into();
                }
                if code > 0 {
                    identifier["type"] = json!({ "coding": [{ "code": code.to_string() }] });
                }
                identifier
            };
            let list = |all: Vec<(u8, u8, u8)>| all.into_iter().enumerate().map(identifier).collect::<Vec<_>>();
            let (mut one, mut other, sent) = (list(stored.clone()), list(stored), list(sent));
            unite(&mut one, sent.clone());
            united_by_pairs(&mut other, sent);
            proptest::prop_assert_eq!(one, other);
        }
    }

    #[test]
    fn a_slice_of_a_list_is_replaced_or_removed_and_the_rest_of_it_stays() {
        let patient = |telecom: Value| resource(json!({ "resourceType": "Patient", "telecom": telecom }));
        let current = patient(
            json!([{ "value": "1" }, { "use": "work", "value": "2" }, { "use": "mobile", "value": "3" }]),
        );
        let home = patient(json!([{ "value": "9" }]));
        let merged = merge(&current, &home, &["telecom[use!=work]".into()]);
        assert_eq!(merged.get("telecom"), Some(&json!([{ "value": "9" }, { "use": "work", "value": "2" }])));
        let nothing = resource(json!({ "resourceType": "Patient" }));
        let merged = merge(&current, &nothing, &["telecom[use=work]".into()]);
        assert_eq!(
            merged.get("telecom"),
            Some(&json!([{ "value": "1" }, { "use": "mobile", "value": "3" }]))
        );
        let all = ["telecom[use=work]".to_owned(), "telecom[use!=work]".to_owned()];
        assert_eq!(merge(&current, &nothing, &all).get("telecom"), None);
        assert_eq!(merge(&current, &home, &all).get("telecom"), home.get("telecom"));
        let again = merge(&current, &current, &all[..1]);
        assert!(same_content(&current, &again), "the same said again is no new version");
        let numbers = |list: Value| resource(json!({ "resourceType": "Patient", "identifier": list }));
        let known = numbers(json!([{ "system": "ssn", "value": "1" }, { "system": "a", "value": "2" }]));
        let clear = ["identifier[system=ssn]".to_owned()];
        assert!(same_content(&merge(&known, &known, &clear), &known));
        let other = numbers(json!([{ "system": "ssn", "value": "7" }]));
        let wanted = json!([{ "system": "a", "value": "2" }, { "system": "ssn", "value": "7" }]);
        assert_eq!(merge(&known, &other, &clear).get("identifier"), Some(&wanted));
        let visit = |codes: [&str; 2]| {
            let of = |code: &str| json!({ "type": [{ "coding": [{ "code": code }] }] });
            resource(json!({ "resourceType": "Encounter", "participant": codes.map(of) }))
        };
        let clear = ["participant[type.coding.code=ATND]".to_owned()];
        let merged = merge(&visit(["ATND", "REF"]), &visit(["REF", "ADM"]), &clear);
        assert_eq!(merged.get("participant"), visit(["ADM", "REF"]).get("participant"));
    }

    #[test]
    fn a_choice_element_has_one_type_after_a_merge() {
        let current = resource(json!({
            "resourceType": "Observation", "valueQuantity": { "value": 7.9 }, "_valueQuantity": { "id": "x" }, "effectiveDateTime": "2024",
        }));
        let update = resource(json!({ "resourceType": "Observation", "valueString": "haemolysed" }));
        let merged = merge(&current, &update, &[]).to_value();
        assert_eq!(
            merged,
            json!({ "resourceType": "Observation", "effectiveDateTime": "2024", "valueString": "haemolysed" })
        );
        let patient = resource(json!({ "resourceType": "Patient", "deceasedBoolean": true }));
        let update = resource(json!({ "resourceType": "Patient", "deceasedDateTime": "2024-05-05" }));
        assert_eq!(
            merge(&patient, &update, &[]).to_value(),
            json!({ "resourceType": "Patient", "deceasedDateTime": "2024-05-05" })
        );
    }

    #[test]
    fn a_number_with_and_without_a_system_is_one_number() {
        let filler = |system: Option<&str>| {
            let mut identifier = json!({ "type": { "coding": [{ "code": "FILL" }] }, "value": "77" });
            if let Some(system) = system {
                identifier["system"] = system.into();
            }
            resource(json!({ "resourceType": "ServiceRequest", "identifier": [identifier] }))
        };
        let learned = merge(&filler(None), &filler(Some("urn:lis")), &[]);
        assert_eq!(
            learned.get("identifier"),
            filler(Some("urn:lis"))
                .get("identifier")
                .map(|list| {
                    let mut list = list.clone();
                    // the system comes last: it was learned
                    let system = list[0].as_object_mut().unwrap().shift_remove("system").unwrap();
                    list[0]["system"] = system;
                    list
                })
                .as_ref()
        );
        assert_eq!(merge(&filler(Some("urn:lis")), &filler(None), &[]), filler(Some("urn:lis")));
        let other = merge(&filler(Some("urn:lis")), &filler(Some("urn:ris")), &[]);
        assert_eq!(other.get("identifier").unwrap().as_array().unwrap().len(), 2);
    }

    #[test]
    fn only_the_version_may_differ_in_same_content() {
        let one = resource(
            json!({ "resourceType": "Patient", "meta": { "versionId": "1", "lastUpdated": "x" }, "active": true }),
        );
        let two = resource(json!({ "resourceType": "Patient", "active": true }));
        let three = resource(json!({ "resourceType": "Patient", "active": false }));
        assert!(same_content(&one, &two));
        assert!(!same_content(&one, &three));
    }
}

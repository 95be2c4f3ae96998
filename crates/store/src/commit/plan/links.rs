//! Links: references between the changes of a submission, conditional references, and references that wait for what they name.
//!
//! A link is late-bound: a reference with an `identifier` that leads to nothing yet waits, and the commit that brings a resource with that
//! identifier binds it. So the record is the same whichever message was faster.

use std::collections::{HashMap, HashSet};

use hilum_fhir::references::{replace_links, visit_references};
use hilum_fhir::search::{Context, Options, Query, decode_pairs};
use hilum_fhir::{Issue, IssueCode, Match, Resource, ResourceType, Timestamp};
use serde_json::{Map, Value};

use super::RemarkKind;
use super::guard::text_of;
use super::planner::Planner;
use crate::query::identifiers::identifiers;
use crate::query::lookup::{Lookup, REFERRING_MAX, patient_type};
use crate::{Error, ErrorKind};

/// Types that messages refer to by an identifier before they are known.
const NAMED_BEFORE_KNOWN: [&str; 8] = [
    "ServiceRequest",
    "Procedure",
    "DiagnosticReport",
    "Encounter",
    "ImagingStudy",
    "Appointment",
    "Specimen",
    "EpisodeOfCare",
];

impl Planner<'_> {
    /// The identifiers that resources of this submission have from now on, or have for another patient: draft and identifier.
    pub(super) fn learned_numbers(&self) -> Vec<(usize, Match)> {
        let mut learned = Vec::new();
        for (at, draft) in self.drafts.iter().enumerate() {
            let Some(content) = draft.content.as_ref().filter(|_| draft.touched) else { continue };
            if !NAMED_BEFORE_KNOWN.contains(&draft.resource_type.name()) {
                continue;
            }
            let before = draft.base.as_ref().and_then(|base| base.resource.as_ref());
            let of_same = before.filter(|before| self.patient_id_of(before) == self.patient_id_of(content));
            let before: HashSet<Match> = of_same.map(identifiers).unwrap_or_default().into_iter().collect();
            learned.extend(identifiers(content).into_iter().filter(|i| !before.contains(i)).map(|i| (at, i)));
        }
        learned
    }

    /// The identifiers that resources of this submission no longer have: what was linked by them is looked at again.
    pub(super) fn lost_numbers(&self) -> Vec<Match> {
        let mut lost = Vec::new();
        for draft in self.drafts.iter().filter(|draft| draft.touched) {
            let Some(before) = draft.base.as_ref().and_then(|base| base.resource.as_ref()) else { continue };
            if NAMED_BEFORE_KNOWN.contains(&draft.resource_type.name()) {
                let now = draft.content.as_ref().map(identifiers).unwrap_or_default();
                let now: HashSet<Match> = now.into_iter().collect();
                lost.extend(identifiers(before).into_iter().filter(|identifier| !now.contains(identifier)));
            }
        }
        lost
    }

    /// What was nobody's and becomes a patient's by a message parts from what is another patient's: references by identifier from it and to it
    /// are resolved again, and wait where nothing else is found.
    pub(super) fn release_foreign(&mut self) -> Result<(), Error> {
        for at in 0..self.drafts.len() {
            if !self.speaker.is_message || !self.has_first_patient(at) {
                continue;
            }
            self.release(at, None)?;
            let referring = Lookup::Referring(self.drafts[at].resource_type, self.drafts[at].id.clone());
            let referring = self.look(referring)?;
            if referring.len() >= REFERRING_MAX {
                return Err(too_many_refer(self.drafts[at].resource_type));
            }
            for rid in referring {
                let from = self.load(rid)?;
                self.release(from, Some(at))?;
            }
        }
        Ok(())
    }

    /// Resolves again what a resource refers to of another patient: anything, or only one resource.
    fn release(&mut self, from: usize, only: Option<usize>) -> Result<(), Error> {
        let Some(content) = self.drafts[from].content.clone() else { return Ok(()) };
        let patient = self.patient_id_of(&content);
        let mut value = content.into_value();
        let mut resolved: HashMap<Bound, Option<String>> = HashMap::new();
        for bound in bound_by_identifier(&mut value) {
            if resolved.contains_key(&bound) {
                continue;
            }
            let Some(to) = self.by_id(bound.of, &bound.id)? else { continue };
            let is_meant = to != from && only.is_none_or(|only| only == to);
            if !is_meant || self.may_refer(from, to)? {
                continue;
            }
            let mut found = self.named(bound.of, vec![bound.identifier.clone()], patient.as_deref())?;
            let found = found.pop().filter(|_| found.is_empty());
            resolved.insert(bound, found);
        }
        if resolved.is_empty() {
            return Ok(());
        }
        visit_references(&mut value, &mut |object| {
            let Some(bound) = Bound::read(object) else { return };
            match resolved.get(&bound) {
                Some(Some(found)) => drop(object.insert("reference".into(), found.clone().into())),
                Some(None) => drop(object.shift_remove("reference")),
                None => {}
            }
        });
        let released = resource(value)?;
        let text = "referred to what turned out to be another patient's, and does so no longer";
        let of = released.resource_type();
        self.put(from, Some(released));
        self.remark(
            RemarkKind::Conflict,
            Issue::warning(IssueCode::Conflict, text).at(format!("{of}.identifier")),
        );
        Ok(())
    }

    /// Whether a stored resource was nobody's until this submission.
    fn has_first_patient(&self, at: usize) -> bool {
        let draft = &self.drafts[at];
        let before = draft.base.as_ref().and_then(|base| base.resource.as_ref());
        let (Some(before), Some(now)) = (before, draft.content.as_ref()) else { return false };
        draft.touched && self.patient_id_of(before).is_none() && self.patient_id_of(now).is_some()
    }

    /// Binds the references that wait for these identifiers. Never to what belongs to another patient. A resource that waits for many of them
    /// is walked once.
    pub(super) fn bind_waiting(&mut self, learned: &[(usize, Match)]) -> Result<(), Error> {
        let mut order: Vec<usize> = Vec::new();
        let mut waiting: HashMap<usize, Named> = HashMap::new();
        for (named, identifier) in learned {
            for rid in self.look(Lookup::Waiting(identifier.system.clone(), identifier.value.clone()))? {
                self.spend(1)?;
                let at = self.load(rid)?;
                if at == *named || !self.may_refer(at, *named)? {
                    continue;
                }
                let reference = self.reference(*named);
                let names = waiting.entry(at).or_insert_with(|| {
                    order.push(at);
                    Named::default()
                });
                names.add(identifier, reference);
            }
        }
        for at in order {
            let content = self.drafts[at].content.clone().map(Resource::into_value);
            let (Some(mut value), Some(names)) = (content, waiting.get(&at)) else { continue };
            if bind(&mut value, names) {
                self.put(at, Some(resource(value)?));
            }
        }
        Ok(())
    }

    /// Whether one resource may refer to another: both are of one patient, or one of them is of nobody.
    fn may_refer(&mut self, from: usize, to: usize) -> Result<bool, Error> {
        let patient = |at: usize| self.drafts[at].content.as_ref().and_then(|r| self.patient_id_of(r));
        let (Some(from), Some(to)) = (patient(from), patient(to)) else { return Ok(true) };
        match self.by_id(patient_type(), &to)? {
            Some(to) => self.is_same_person(&from, to),
            None => Ok(from == to),
        }
    }

    /// Resolves the references of what this submission writes to its own entries; which of the drafts have conditional ones, in order. Those come last, when
    /// everything they may match is as it will be (R4 http, transaction processing rules).
    pub(super) fn link_entries(&mut self) -> Result<Vec<usize>, Error> {
        let mut conditional = Vec::new();
        for at in 0..self.drafts.len() {
            let draft = &mut self.drafts[at];
            let Some(content) = draft.content.take_if(|_| draft.touched) else { continue };
            let mut value = content.into_value();
            visit_references(&mut value, &mut |object| {
                let Some(text) = object.get("reference").and_then(Value::as_str) else { return };
                if let Some(reference) = self.entry_named(text) {
                    object.insert("reference".into(), Value::String(reference));
                } else if text.contains('?') && conditional.last() != Some(&at) {
                    conditional.push(at);
                }
            });
            let mut linked = resource(value)?;
            if !self.speaker.is_message && !self.urls.is_empty() {
                replace_links(&mut linked, &|text| self.entry_named(text));
            }
            self.drafts[at].content = Some(linked);
        }
        Ok(conditional)
    }

    /// The reference to the entry with this full URL, with what stands behind it (`/_history/1`, `#part`).
    fn entry_named(&self, text: &str) -> Option<String> {
        if let Some(at) = self.urls.get(text) {
            return Some(self.reference(*at));
        }
        let end = text.find("/_history/").or_else(|| text.find('#')).filter(|end| *end > 0)?;
        Some(format!("{}{}", self.reference(*self.urls.get(&text[..end])?), &text[end..]))
    }

    /// The content with its conditional references resolved.
    pub(super) fn linked(&mut self, content: Resource) -> Result<Resource, Error> {
        let resource_type = content.resource_type();
        let patient = self.patient_id_of(&content);
        let mut value = content.into_value();
        if self.speaker.is_message {
            self.resolve_lists(&mut value, patient.as_deref())?;
        }
        self.resolve_conditional(&mut value, resource_type, patient.as_deref())?;
        resource(value)
    }

    /// In the lists at the top of a message's resource, a condition that several resources of the patient fulfil becomes a reference to each.
    fn resolve_lists(&mut self, value: &mut Value, patient: Option<&str>) -> Result<(), Error> {
        let Some(object) = value.as_object_mut() else { return Ok(()) };
        for list in object.values_mut().filter_map(Value::as_array_mut) {
            if !list.iter().any(|item| text_of(item, "reference").is_some_and(|text| text.contains('?'))) {
                continue;
            }
            let mut resolved: Vec<Value> = Vec::with_capacity(list.len());
            let mut known: HashSet<String> = HashSet::new();
            for item in std::mem::take(list) {
                let text = text_of(&item, "reference").filter(|text| text.contains('?')).map(str::to_owned);
                let found = match &text {
                    Some(text) => self.named_by(text, patient)?,
                    None => Vec::new(),
                };
                if found.is_empty() {
                    known.extend(text_of(&item, "reference").map(str::to_owned));
                    resolved.push(item);
                    continue;
                }
                for reference in found {
                    if known.insert(reference.clone()) {
                        let mut bound = item.clone();
                        bound["reference"] = reference.into();
                        resolved.push(bound);
                    }
                }
            }
            *list = resolved;
        }
        Ok(())
    }

    /// The resources that `Type?identifier=a,b` names; none when it is another condition.
    fn named_by(&mut self, text: &str, patient: Option<&str>) -> Result<Vec<String>, Error> {
        match identifier_condition(text) {
            Some((of, identifiers)) => self.named(of, identifiers, patient),
            None => Ok(Vec::new()),
        }
    }

    /// The resources that the first identifier with a hit names, those of another patient left out.
    fn named(
        &mut self,
        of: ResourceType,
        identifiers: Vec<Identifier>,
        patient: Option<&str>,
    ) -> Result<Vec<String>, Error> {
        for (system, value) in identifiers {
            let wanted = Match { resource_type: of, system, value };
            let mut bearers = self.bearers(&wanted)?;
            if bearers.is_empty() {
                bearers = self.bearers_of_patient(&wanted, patient)?;
            }
            let mut found = Vec::new();
            for at in bearers {
                if self.fits_patient(at, patient)? {
                    found.push(self.reference(at));
                }
            }
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    /// What the patient has under the same number: one of the two may have come without its authority.
    fn bearers_of_patient(&mut self, wanted: &Match, patient: Option<&str>) -> Result<Vec<usize>, Error> {
        let Some(patient) = patient else { return Ok(Vec::new()) };
        if wanted.system.is_some() {
            return self.bearers(&Match { system: None, ..wanted.clone() });
        }
        let any = Lookup::OfPatient(wanted.resource_type, wanted.value.clone(), patient.to_owned());
        let rids = self.look(any)?;
        rids.into_iter().map(|rid| self.known(rid)).collect()
    }

    /// Whether a resource is of the patient, or one of the two is not known.
    fn fits_patient(&mut self, at: usize, patient: Option<&str>) -> Result<bool, Error> {
        self.read(at)?;
        let of = self.drafts[at].content.as_ref().and_then(|content| self.patient_id_of(content));
        let (Some(one), Some(other)) = (patient, of) else { return Ok(true) };
        match self.by_id(patient_type(), one)? {
            Some(one) => self.is_same_person(&other, one),
            None => Ok(one == other),
        }
    }

    fn resolve_conditional(
        &mut self,
        value: &mut Value,
        resource_type: ResourceType,
        patient: Option<&str>,
    ) -> Result<(), Error> {
        let conditions = Conditions::of(value);
        let mut found: HashMap<String, Option<String>> = HashMap::with_capacity(conditions.texts.len());
        for text in conditions.texts {
            // more than one match: as with none, a logical reference beside it stands
            let (one, ambiguous) = match self.one_named(&text, resource_type, patient) {
                Ok(one) => (one, None),
                Err(error) if is_ambiguous(&error) => (None, Some(error)),
                Err(error) => return Err(error),
            };
            if one.is_some() || !conditions.alone.contains(&text) {
                found.insert(text, one);
                continue;
            }
            if let Some(error) = ambiguous {
                return Err(error);
            }
            let issue = Issue::error(IssueCode::NotFound, "a conditional reference matches nothing")
                .at(resource_type.name());
            return Err(Error::refused(ErrorKind::Precondition, issue));
        }
        put_references(value, &found);
        Ok(())
    }

    fn one_named(
        &mut self,
        text: &str,
        of: ResourceType,
        patient: Option<&str>,
    ) -> Result<Option<String>, Error> {
        if !self.speaker.is_message {
            return self.conditional_reference(text, of);
        }
        let mut found = self.named_by(text, patient)?;
        match found.len() {
            0 | 1 => Ok(found.pop()),
            _ => Err(ambiguous(of)),
        }
    }

    fn conditional_reference(&mut self, text: &str, of: ResourceType) -> Result<Option<String>, Error> {
        let refuse = |issue: Issue| Error::refused(ErrorKind::Precondition, issue.at(of.name()));
        let (type_name, rest) = text.split_once('?').unwrap_or((text, ""));
        let resource_type = ResourceType::from_name(type_name).ok_or_else(|| {
            refuse(Issue::error(IssueCode::Value, "a conditional reference names an unknown type"))
        })?;
        let context = Context { zone: self.zone.clone(), now: Timestamp::from_micros(self.now) };
        let (query, _) = Query::parse(resource_type, &decode_pairs(rest), &Options::condition(), &context)
            .map_err(|issues| {
                let first = issues.into_iter().next();
                refuse(first.unwrap_or_else(|| Issue::error(IssueCode::Value, "bad condition")))
            })?;
        match self.matching(&query)?.as_slice() {
            [] => Ok(None),
            [at] => Ok(Some(self.reference(*at))),
            _ => Err(ambiguous(of)),
        }
    }
}

fn resource(value: Value) -> Result<Resource, Error> {
    Resource::from_value(value).map_err(|issue| Error::refused(ErrorKind::Conflict, issue))
}

/// A reference that waited for an identifier and led to something, or that would wait again.
#[derive(PartialEq, Eq, Hash)]
struct Bound {
    of: ResourceType,
    id: String,
    identifier: Identifier,
}

impl Bound {
    fn read(object: &Map<String, Value>) -> Option<Self> {
        let identifier = object.get("identifier").filter(|identifier| identifier.is_object())?;
        let (of, id) = object.get("reference")?.as_str()?.split_once('/')?;
        let of = ResourceType::from_name(of).filter(|of| NAMED_BEFORE_KNOWN.contains(&of.name()))?;
        let system = text_of(identifier, "system").map(str::to_owned);
        let value = text_of(identifier, "value")?.to_owned();
        Some(Self { of, id: id.to_owned(), identifier: (system, value) })
    }
}

fn bound_by_identifier(value: &mut Value) -> Vec<Bound> {
    let mut bound = Vec::new();
    visit_references(value, &mut |object| bound.extend(Bound::read(object)));
    bound
}

fn too_many_refer(of: ResourceType) -> Error {
    let text =
        "so much refers to it that it cannot be given a patient by a message; set its patient over FHIR";
    Error::refused(ErrorKind::Conflict, Issue::error(IssueCode::TooCostly, text).hl7(207).at(of.name()))
}

fn ambiguous(of: ResourceType) -> Error {
    let text = "a conditional reference matches more than one resource";
    Error::refused(ErrorKind::Precondition, Issue::error(IssueCode::MultipleMatches, text).at(of.name()))
}

fn is_ambiguous(error: &Error) -> bool {
    error.issues.iter().any(|issue| issue.code == IssueCode::MultipleMatches)
}

/// The conditional references of a resource.
#[derive(Default)]
struct Conditions {
    /// Each condition once, in the order they are met.
    texts: Vec<String>,
    /// Those that stand without a logical reference beside them.
    alone: HashSet<String>,
}

impl Conditions {
    fn of(value: &mut Value) -> Self {
        let (mut conditions, mut seen) = (Self::default(), HashSet::new());
        visit_references(value, &mut |object| {
            let text = object.get("reference").and_then(Value::as_str);
            let Some(text) = text.filter(|text| text.contains('?')) else { return };
            if !object.contains_key("identifier") {
                conditions.alone.insert(text.to_owned());
            }
            if seen.insert(text.to_owned()) {
                conditions.texts.push(text.to_owned());
            }
        });
        conditions
    }
}

/// Puts what was found in the place of each condition; where nothing was, the logical reference beside it is left.
fn put_references(value: &mut Value, found: &HashMap<String, Option<String>>) {
    visit_references(value, &mut |object| {
        let text = object.get("reference").and_then(Value::as_str);
        match text.and_then(|text| found.get(text)) {
            Some(Some(reference)) => {
                drop(object.insert("reference".into(), Value::String(reference.clone())));
            }
            Some(None) => drop(object.shift_remove("reference")),
            None => {}
        }
    });
}

/// System and value.
type Identifier = (Option<String>, String);

/// `Type?identifier=system|value,system|value`, as mappers write it; `None` when it is another condition.
fn identifier_condition(text: &str) -> Option<(ResourceType, Vec<Identifier>)> {
    let (type_name, rest) = text.split_once('?')?;
    let of = ResourceType::from_name(type_name)?;
    let pairs = decode_pairs(rest);
    let [(name, tokens)] = pairs.as_slice() else { return None };
    if name != "identifier" {
        return None;
    }
    let identifiers = split(tokens, ',').into_iter().map(|token| {
        let mut parts = split(&token, '|').into_iter().map(|part| unescaped(&part));
        match (parts.next(), parts.next()) {
            (Some(system), Some(value)) => (Some(system).filter(|s| !s.is_empty()), value),
            (value, _) => (None, value.unwrap_or_default()),
        }
    });
    Some((of, identifiers.collect()))
}

/// The parts between separators that are not escaped by a backslash (R4 search, escaping search parameters).
fn split(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for c in text.chars() {
        if c == separator && !escaped {
            parts.push(String::new());
            continue;
        }
        escaped = c == '\\' && !escaped;
        if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts
}

fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        plain.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    plain
}

/// What the identifiers that a resource waits for name by now.
#[derive(Default)]
struct Named {
    /// Of each identifier the resource learned first, of any type.
    any: HashMap<Identifier, String>,
    /// The same among those of one type.
    typed: HashMap<(ResourceType, Identifier), String>,
}

impl Named {
    fn add(&mut self, identifier: &Match, reference: String) {
        let known = (identifier.system.clone(), identifier.value.clone());
        self.typed.entry((identifier.resource_type, known.clone())).or_insert_with(|| reference.clone());
        self.any.entry(known).or_insert(reference);
    }

    /// What a reference that waits has to be bound to.
    fn of(&self, object: &Map<String, Value>) -> Option<&String> {
        let identifier = object.get("identifier").filter(|identifier| identifier.is_object())?;
        if object.contains_key("reference") {
            return None;
        }
        let system = text_of(identifier, "system").map(str::to_owned);
        let known = (system, text_of(identifier, "value")?.to_owned());
        match object.get("type").and_then(Value::as_str) {
            None => self.any.get(&known),
            Some(of) => self.typed.get(&(ResourceType::from_name(of)?, known)),
        }
    }
}

/// Binds the logical references that wait; whether there was one.
fn bind(value: &mut Value, names: &Named) -> bool {
    let mut bound = false;
    let mut work: Vec<&mut Value> = vec![value];
    while let Some(value) = work.pop() {
        match value {
            Value::Array(items) => work.extend(items),
            Value::Object(object) => {
                if let Some(reference) = names.of(object) {
                    let reference = Value::String(reference.clone());
                    object.insert("reference".into(), reference);
                    bound = true;
                }
                work.extend(object.values_mut().filter(|v| v.is_object() || v.is_array()));
            }
            _ => {}
        }
    }
    bound
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_condition_of_a_mapper_is_read_with_its_escapes() {
        let (of, identifiers) =
            identifier_condition("ServiceRequest?identifier=urn:a%7C1%5C,2,urn:b%7C3,4").unwrap();
        assert_eq!(of.name(), "ServiceRequest");
        let expected = [
            (Some("urn:a".to_owned()), "1,2".to_owned()),
            (Some("urn:b".to_owned()), "3".to_owned()),
            (None, "4".to_owned()),
        ];
        assert_eq!(identifiers, expected);
        assert!(identifier_condition("Patient?name=x").is_none());
    }

    #[test]
    fn a_waiting_reference_is_bound_and_no_other() {
        let order = ResourceType::from_name("ServiceRequest").unwrap();
        let wanted = Match { resource_type: order, system: Some("urn:a".into()), value: "1".into() };
        let waits = json!({ "type": "ServiceRequest", "identifier": { "system": "urn:a", "value": "1" } });
        let other = json!({ "type": "Appointment", "identifier": { "system": "urn:a", "value": "1" } });
        let mut value = json!({ "basedOn": [waits, other] });
        let named = |reference: &str| {
            let mut named = Named::default();
            named.add(&wanted, reference.to_owned());
            named
        };
        assert!(bind(&mut value, &named("ServiceRequest/x")));
        assert_eq!(value["basedOn"][0]["reference"], "ServiceRequest/x");
        assert!(value["basedOn"][1].get("reference").is_none());
        assert!(!bind(&mut value, &named("ServiceRequest/y")), "what is bound stays");
    }
}

//! Which segments of a message belong together, and which resources they make.

use std::ops::Range;

use hilum_fhir::{Action, Clue, Disagreement, Issue, IssueCode, Key, Match};
use serde_json::{Value, json};

use super::mapper::{Mapper, Place, Target, location};
use super::{convert, merge, order, report};
use crate::hl7;
use crate::identity::{self, Kind, NUMBERS_MAX, Unnamed};
use crate::rules::{Message, MessageKind};

/// Patients of one message.
const PATIENTS_MAX: usize = 1_000;

/// What the resources of one patient's segments refer to.
pub(super) struct Links {
    /// Full URL of the patient's change.
    pub(super) patient: String,
    /// The number by which the first version knew the patient: part of composed keys.
    former_patient: String,
    /// PV1 segments in their order, and the full URLs of their visits.
    visits: Vec<(usize, String)>,
}

impl Links {
    /// The visit that a segment belongs to: that of the last PV1 before it, else the first of the patient's.
    pub(super) fn encounter(&self, segment: usize) -> Option<Value> {
        let before = self.visits.partition_point(|(pv1, _)| *pv1 < segment);
        let (_, url) = self.visits.get(before.saturating_sub(1))?;
        Some(json!({ "reference": url }))
    }

    /// Says whose a resource is, and of which visit.
    pub(super) fn apply(&self, resource: &mut Value, segment: usize) {
        resource["subject"] = json!({ "reference": self.patient });
        if let Some(encounter) = self.encounter(segment) {
            resource["encounter"] = encounter;
        }
    }
}

/// Maps the message by its type.
pub(super) fn run(mapper: &mut Mapper<'_>) {
    let (kind, event) = mapper.message.header.message_type();
    if kind.is_empty() {
        return reject(mapper, IssueCode::Required, "the message type is missing", "MSH-9", 101);
    }
    if mapper.message.header.control_id().is_empty() {
        return reject(mapper, IssueCode::Required, "the control id is missing", "MSH-10", 101);
    }
    let tables = mapper.tables;
    let Some(message) = tables.messages.get(&(kind.clone(), event.clone())) else {
        let known = tables.messages.keys().any(|(k, _)| *k == kind);
        let (code, text) =
            if known { (201, "the event is not mapped") } else { (200, "the message type is not mapped") };
        return reject(mapper, IssueCode::NotSupported, text, "MSH-9", code);
    };
    mapper.happened = happened(mapper);
    match message.kind {
        MessageKind::Merge => merge::run(mapper),
        MessageKind::MoveVisit => merge::move_visit(mapper, message),
        MessageKind::Report if find(mapper, "PID").is_some() && find(mapper, "OBR").is_none() => {
            reject(mapper, IssueCode::Required, "the result has no OBR segment", "OBR", 101);
        }
        _ => {
            let sections = sections(mapper);
            if sections.is_empty() {
                return reject(mapper, IssueCode::Required, "the message has no PID segment", "PID", 101);
            }
            if sections.len() > PATIENTS_MAX {
                let text = format!("the message has more than {PATIENTS_MAX} patients; send it in parts");
                return reject(mapper, IssueCode::TooLong, &text, "PID", 207);
            }
            for section in sections {
                mapper.section = section;
                one_patient(mapper, message);
            }
        }
    }
}

/// The segments of each patient: from one PID to the next. What stands before the first PID is the first one's.
fn sections(mapper: &Mapper<'_>) -> Vec<Range<usize>> {
    let starts = all(mapper, "PID");
    let end = mapper.message.segments.len();
    let section = |n: usize| {
        let start = if n == 0 { 0 } else { starts[n] };
        start..starts.get(n + 1).copied().unwrap_or(end)
    };
    (0..starts.len()).map(section).collect()
}

/// Maps the segments of one patient.
fn one_patient(mapper: &mut Mapper<'_>, message: &Message) {
    let clues = match message.kind {
        MessageKind::Order | MessageKind::Report => clues(mapper),
        _ => Vec::new(),
    };
    let Some(mut links) = patient(mapper, clues) else { return };
    if message.kind != MessageKind::Person {
        for pv1 in all(mapper, "PV1") {
            let url = encounter(mapper, &links, pv1, message, Vec::new());
            links.visits.extend(url.map(|url| (pv1, url)));
        }
    }
    match message.kind {
        MessageKind::Order => {
            order::run(mapper, &links);
            findings(mapper, &links);
        }
        MessageKind::Report => report::run(mapper, &links),
        _ => findings(mapper, &links),
    }
}

pub(super) fn reject(mapper: &mut Mapper<'_>, code: IssueCode, text: &str, place: &str, hl7: u16) {
    mapper.issues.push(Issue::error(code, text).at(place).hl7(hl7));
}

/// EVN-2, else MSH-7.
fn happened(mapper: &mut Mapper<'_>) -> Option<hilum_fhir::Timestamp> {
    let event = find(mapper, "EVN").and_then(|evn| {
        mapper.run("EVN[Event]", evn, &mut Target::new("Basic"));
        mapper.field(evn, 2)
    });
    let text = event.or_else(|| mapper.field(0, 7))?;
    hl7::instant(&text, &mapper.context.zone)
}

/// The first segment of a name among those being mapped.
pub(super) fn find(mapper: &Mapper<'_>, name: &str) -> Option<usize> {
    mapper.section.clone().find(|at| mapper.segment(*at).name == name)
}

/// All segments of a name among those being mapped.
pub(super) fn all(mapper: &Mapper<'_>, name: &str) -> Vec<usize> {
    mapper.section.clone().filter(|at| mapper.segment(*at).name == name).collect()
}

/// The orders that the segments name: who is their patient may say who is this one.
fn clues(mapper: &mut Mapper<'_>) -> Vec<Clue> {
    const ORC: &[(u16, Kind)] = &[(2, Kind::Other), (3, Kind::Other)];
    const OBR: &[(u16, Kind)] = &[(18, Kind::Accession), (3, Kind::Other), (2, Kind::Other)];
    let mut clues = Vec::new();
    if !mapper.context.join_unqualified {
        return clues;
    }
    for segment in mapper.section.clone() {
        let fields = match mapper.segment(segment).name.as_str() {
            "ORC" => ORC,
            "OBR" => OBR,
            _ => continue,
        };
        for (field, kind) in fields {
            let place = Place { segment, field: *field, repeat: 1 };
            let Some(value) = mapper.component(place, 1) else { continue };
            clues.extend(identity::order_clue(convert::entity(mapper, *kind, place, 2), value));
        }
    }
    clues
}

/// The patient of the section, found by all its numbers.
fn patient(mapper: &mut Mapper<'_>, clues: Vec<Clue>) -> Option<Links> {
    let pid = find(mapper, "PID")?;
    let mut target = Target::new("Patient");
    let numbers = numbers(mapper, ("PID[Patient]", pid, 3), &mut target, clues);
    for pd1 in all(mapper, "PD1") {
        mapper.run("PD1[Patient]", pd1, &mut target);
    }
    let contacts = contacts(mapper);
    if !contacts.is_empty() {
        target.value["contact"] = Value::Array(contacts);
    }
    let place = location(mapper.segment(pid), 3, 1, None);
    let former_patient = identity::former_patient(&target.value);
    let patient = match numbers {
        Ok(numbers) => mapper.merge(identity::patient(numbers), target),
        Err(Unnamed::Nobody) if mapper.context.keep_unidentified => {
            let text = "the patient has no number: a Patient of this message alone was made";
            mapper.issues.push(Issue::warning(IssueCode::Required, text).at(place).hl7(101));
            let (url, created) = (mapper.url(), Action::Create(target.take_resource()));
            mapper.push(&url, created, target);
            url
        }
        Err(why) => {
            unnamed(mapper, why, "the patient", &place);
            return None;
        }
    };
    Some(Links { patient, former_patient, visits: Vec::new() })
}

/// Fills a Patient by a map and reads the numbers that name it; `field` is the one that repeats them.
pub(super) fn numbers(
    mapper: &mut Mapper<'_>,
    (map, segment, field): (&str, usize, u16),
    target: &mut Target,
    clues: Vec<Clue>,
) -> Result<hilum_fhir::PatientNumbers, Unnamed> {
    if usize::from(mapper.repeats(segment, field)) > NUMBERS_MAX {
        return Err(Unnamed::TooMany);
    }
    mapper.run(map, segment, target);
    identity::patient_numbers(mapper.context, &target.value, &target.ranks, clues, Disagreement::Refuse)
}

/// Refuses a message that does not say who somebody is.
pub(super) fn unnamed(mapper: &mut Mapper<'_>, why: Unnamed, who: &str, place: &str) {
    match why {
        Unnamed::Nobody => {
            reject(mapper, IssueCode::Required, &format!("{who} has no identifier"), place, 101);
        }
        Unnamed::TooMany => {
            let text = format!("{who} has more than {NUMBERS_MAX} identifiers");
            reject(mapper, IssueCode::TooLong, &text, place, 102);
        }
    }
}

fn contacts(mapper: &mut Mapper<'_>) -> Vec<Value> {
    let mut contacts = Vec::new();
    for nk1 in all(mapper, "NK1") {
        let mut contact = Target::new("Contact");
        mapper.run("NK1[Contact]", nk1, &mut contact);
        if let Value::Object(mut object) = contact.value {
            object.shift_remove("resourceType");
            if !object.is_empty() {
                contacts.push(Value::Object(object));
            }
        }
    }
    contacts
}

/// The visit of a PV1, by PV1-19, PV1-50 and the keys given. Its status is said by events and PV1-45; another message gives one only to a
/// visit that is new.
pub(super) fn encounter(
    mapper: &mut Mapper<'_>,
    links: &Links,
    pv1: usize,
    message: &Message,
    further: Vec<Key>,
) -> Option<String> {
    let mut target = Target::new("Encounter");
    mapper.run("PV1[Encounter]", pv1, &mut target);
    let mut keys = identity::keys(mapper.context, &target.value, &[]);
    keys.extend(further);
    if keys.is_empty() {
        let text = "the visit has no number (PV1-19, PV1-50), so no encounter was made";
        let place = location(mapper.segment(pv1), 19, 1, None);
        mapper.issues.push(Issue::warning(IssueCode::Required, text).at(place).hl7(101));
        return None;
    }
    if let Some(path) = &message.encounter_clears {
        target.clear.push(path.clone());
        forget(&mut target.value, path);
    }
    ends_after_start(mapper, pv1, &mut target.value);
    target.default(
        "class",
        json!({ "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB" }),
    );
    let by_class = if target.member("class")["code"] == "PRENC" { "planned" } else { "in-progress" };
    let ended = target.value["period"]["end"].is_string();
    match &message.encounter_status {
        _ if ended => target.value["status"] = "finished".into(),
        Some(status) => target.value["status"] = status.clone().into(),
        None => target.default("status", by_class.into()),
    }
    target.value["subject"] = json!({ "reference": links.patient });
    if !target.value["location"][0]["location"].is_object() {
        drop_member(&mut target.value, "location");
    }
    let into = identity::one_of("Encounter", Some(links.patient.clone()), keys, false);
    Some(mapper.merge(into, target))
}

/// A period that ends before it starts is none.
fn ends_after_start(mapper: &mut Mapper<'_>, pv1: usize, encounter: &mut Value) {
    let bound = |name: &str| {
        let text = encounter["period"][name].as_str()?;
        hilum_fhir::search::date_range(text, &mapper.context.zone)
    };
    if let (Some((start, _)), Some((_, end))) = (bound("start"), bound("end"))
        && start >= end
    {
        drop_member(&mut encounter["period"], "end");
        let place = location(mapper.segment(pv1), 45, 1, None);
        let text = "the visit ends before it starts; its end was left out";
        mapper.issues.push(Issue::warning(IssueCode::Value, text).at(place).hl7(102));
    }
}

/// Takes a member, or a member of a member, out of a resource.
fn forget(resource: &mut Value, path: &str) {
    let Some((parent, name)) = path.split_once('.') else { return drop_member(resource, path) };
    if let Some(inner) = resource.get_mut(parent) {
        drop_member(inner, name);
        if inner.as_object().is_some_and(serde_json::Map::is_empty) {
            drop_member(resource, parent);
        }
    }
}

pub(super) fn drop_member(value: &mut Value, name: &str) {
    if let Some(object) = value.as_object_mut() {
        object.shift_remove(name);
    }
}

/// Allergies and diagnoses: snapshots of what this sender knows, keyed by patient and code.
fn findings(mapper: &mut Mapper<'_>, links: &Links) {
    for al1 in all(mapper, "AL1") {
        let mut target = Target::new("AllergyIntolerance");
        mapper.run("AL1[AllergyIntolerance]", al1, &mut target);
        let status = "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical";
        target.default("clinicalStatus", json!({ "coding": [{ "system": status, "code": "active" }] }));
        target.value["patient"] = json!({ "reference": links.patient });
        if reaction_is_empty(&target.value) {
            drop_member(&mut target.value, "reaction");
        }
        composed(mapper, "AllergyIntolerance", "allergy", links, target);
    }
    for dg1 in all(mapper, "DG1") {
        let mut target = Target::new("Condition");
        mapper.run("DG1[Condition]", dg1, &mut target);
        let status = "http://terminology.hl7.org/CodeSystem/condition-clinical";
        let category = "http://terminology.hl7.org/CodeSystem/condition-category";
        target.default("clinicalStatus", json!({ "coding": [{ "system": status, "code": "active" }] }));
        target.default(
            "category",
            json!([{ "coding": [{ "system": category, "code": "encounter-diagnosis" }] }]),
        );
        links.apply(&mut target.value, dg1);
        composed(mapper, "Condition", "condition", links, target);
    }
}

/// A reaction needs a manifestation in FHIR.
fn reaction_is_empty(allergy: &Value) -> bool {
    let reaction = allergy.get("reaction");
    reaction.is_some_and(|list| list.is_array() && !list[0]["manifestation"].is_array())
}

/// A resource without an identifier of its own is known by its patient and its code.
fn composed(mapper: &mut Mapper<'_>, of: &str, name: &str, links: &Links, target: Target) {
    let code = target.value.get("code").unwrap_or(&Value::Null);
    let former = code["coding"][0]["code"].as_str().or(code["text"].as_str());
    let (Some(value), Some(former)) = (identity::code_text(code), former) else {
        let text = "an entry has no code and was not mapped";
        mapper.issues.push(Issue::warning(IssueCode::Required, text).at(of).hl7(101));
        return;
    };
    let system = format!("urn:hilum:site:{}:{name}", mapper.context.site);
    let former = Match {
        resource_type: identity::kind(of),
        system: Some(system.clone()),
        value: format!("{}|{former}", links.former_patient),
    };
    let key = Key::Under { parent: links.patient.clone(), system, value, former: Some(former) };
    mapper.merge(identity::one_of(of, Some(links.patient.clone()), vec![key], false), target);
}

/// A patient's segments whose patient is known: for messages that say it otherwise.
pub(super) fn links_to(patient: String) -> Links {
    Links { patient, former_patient: String::new(), visits: Vec::new() }
}

//! Orders: ORC and OBR as a ServiceRequest.

use std::collections::HashSet;

use hilum_fhir::{Issue, IssueCode};
use serde_json::{Value, json};

use super::mapper::{Mapper, Target};
use super::message::{Links, reject};
use crate::identity;

/// An order group: ORC and OBR that belong together, and what follows the OBR.
#[derive(Default)]
pub(super) struct Group {
    pub(super) orc: Option<usize>,
    pub(super) obr: Option<usize>,
    /// Each OBX with its notes.
    pub(super) obx: Vec<(usize, Vec<usize>)>,
    /// NTE of the order.
    notes: Vec<usize>,
    /// IPC and ZDS: what imaging knows the order by.
    imaging: Vec<usize>,
}

impl Group {
    /// Its first segment.
    fn start(&self) -> usize {
        self.orc.or(self.obr).unwrap_or_default()
    }
}

/// The groups among the segments being mapped.
pub(super) fn groups(mapper: &Mapper<'_>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for at in mapper.section.clone() {
        let open = groups.last_mut();
        match (mapper.segment(at).name.as_str(), open) {
            ("ORC", _) => groups.push(Group { orc: Some(at), ..Group::default() }),
            ("OBR", Some(group)) if group.obr.is_none() => group.obr = Some(at),
            ("OBR", _) => groups.push(Group { obr: Some(at), ..Group::default() }),
            ("IPC" | "ZDS", Some(group)) => group.imaging.push(at),
            ("OBX", Some(group)) => group.obx.push((at, Vec::new())),
            ("NTE", Some(group)) => match group.obx.last_mut() {
                Some((_, notes)) => notes.push(at),
                None => group.notes.push(at),
            },
            _ => {}
        }
    }
    groups
}

/// The orders of one patient.
pub(super) fn run(mapper: &mut Mapper<'_>, links: &Links) {
    let groups = groups(mapper);
    if groups.is_empty() {
        return reject(mapper, IssueCode::Required, "the order has neither ORC nor OBR", "OBR", 101);
    }
    for group in groups {
        order(mapper, links, &group);
    }
}

/// ServiceRequest of a group; its full URL. Its status is said by ORC-1 and ORC-5; without them only a new order gets one.
pub(super) fn order(mapper: &mut Mapper<'_>, links: &Links, group: &Group) -> Option<String> {
    let mut target = Target::new("ServiceRequest");
    for (map, segment) in [("ORC[ServiceRequest]", group.orc), ("OBR[ServiceRequest]", group.obr)] {
        if let Some(segment) = segment {
            mapper.run(map, segment, &mut target);
        }
    }
    for segment in &group.imaging {
        let map = format!("{}[ServiceRequest]", mapper.segment(*segment).name);
        mapper.run(&map, *segment, &mut target);
    }
    dedupe_identifiers(&mut target.value);
    let keys = identity::keys(mapper.context, &target.value, &["FILL", "PLAC"]);
    if keys.is_empty() {
        let text = "an order has neither placer nor filler number";
        mapper.issues.push(Issue::warning(IssueCode::Required, text).at("ORC-2").hl7(101));
        return None;
    }
    let control = group.orc.and_then(|orc| mapper.field(orc, 1));
    let status = group.orc.and_then(|orc| mapper.field(orc, 5));
    let by_status = status.and_then(|s| mapper.tables.code("OrderStatus", &s).map(|c| c.code.clone()));
    let by_control = control.and_then(|c| mapper.tables.code("OrderControl", &c).map(|c| c.code.clone()));
    match by_status.or(by_control) {
        Some(status) => target.value["status"] = status.into(),
        None => target.default("status", "active".into()),
    }
    target.default("intent", "order".into());
    links.apply(&mut target.value, group.start());
    let notes = notes(mapper, &group.notes);
    match target.value.get_mut("note").and_then(Value::as_array_mut) {
        Some(known) => known.extend(notes),
        None if !notes.is_empty() => target.value["note"] = Value::Array(notes),
        None => {}
    }
    Some(mapper.merge(identity::one_of("ServiceRequest", Some(links.patient.clone()), keys, true), target))
}

/// NTE-3 of each segment, its repetitions as lines.
pub(super) fn notes(mapper: &mut Mapper<'_>, segments: &[usize]) -> Vec<Value> {
    let mut notes = Vec::new();
    for segment in segments {
        let text = mapper.lines(*segment, 3);
        [1, 2].iter().for_each(|field| mapper.consume_field(*segment, *field));
        notes.extend(text.map(|text| json!({ "text": text })));
    }
    notes
}

/// ORC-2 and OBR-2 say the same: one identifier.
fn dedupe_identifiers(resource: &mut Value) {
    if let Some(list) = resource.get_mut("identifier").and_then(Value::as_array_mut) {
        let mut seen: HashSet<Value> = HashSet::with_capacity(list.len());
        list.retain(|identifier| seen.insert(identifier.clone()));
    }
}

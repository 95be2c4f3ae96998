//! Which segments of a message belong together, and which resources they make.

use hilum_fhir::{Action, Issue, IssueCode, Match, Target as ChangeTarget};
use serde_json::{Value, json};

use super::convert;
use super::mapper::{Mapper, Place, Target, location};
use crate::hl7::{self, identifier_key, patient_key};

/// What the resources of a message refer to.
#[derive(Default)]
struct Links {
    patient: Option<String>,
    /// Key of the patient, for composed keys.
    patient_key: String,
    encounter: Option<String>,
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
    if message.kind == "merge" {
        return merge(mapper);
    }
    let Some(mut links) = patient(mapper) else { return };
    if message.kind != "person" {
        links.encounter = encounter(mapper, &links, message.encounter_status.as_deref());
    }
    match message.kind.as_str() {
        "order" => orders(mapper, &links),
        "report" => reports(mapper, &links),
        _ => findings(mapper, &links),
    }
}

fn reject(mapper: &mut Mapper<'_>, code: IssueCode, text: &str, place: &str, hl7: u16) {
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

fn find(mapper: &Mapper<'_>, name: &str) -> Option<usize> {
    mapper.message.segments.iter().position(|segment| segment.name == name)
}

fn all(mapper: &Mapper<'_>, name: &str) -> Vec<usize> {
    let segments = mapper.message.segments.iter().enumerate();
    segments.filter(|(_, segment)| segment.name == name).map(|(at, _)| at).collect()
}

fn patient(mapper: &mut Mapper<'_>) -> Option<Links> {
    let Some(pid) = find(mapper, "PID") else {
        reject(mapper, IssueCode::Required, "the message has no PID segment", "PID", 101);
        return None;
    };
    let mut target = Target::new("Patient");
    mapper.run("PID[Patient]", pid, &mut target);
    let Some(key) = patient_key(&target.value) else {
        reject(mapper, IssueCode::Required, "the patient has no identifier", "PID-3", 101);
        return None;
    };
    for pd1 in all(mapper, "PD1") {
        mapper.run("PD1[Patient]", pd1, &mut target);
    }
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
    if !contacts.is_empty() {
        target.value["contact"] = Value::Array(contacts);
    }
    let resource = mapper.resource(&target);
    let patient_key = format!("{}|{}", key.system.clone().unwrap_or_default(), key.value);
    let action = Action::Merge(key.into(), resource, std::mem::take(&mut target.clear));
    Some(Links { patient: Some(mapper.push(action, target)), patient_key, encounter: None })
}

/// The first identifier of a resource whose type code is one of these.
fn typed_key(of: &str, resource: &Value, codes: &[&str]) -> Option<Match> {
    let list = resource["identifier"].as_array()?;
    let by_code = |code: &&str| list.iter().find(|i| i["type"]["coding"][0]["code"].as_str() == Some(code));
    identifier_key(of, codes.iter().find_map(by_code)?)
}

fn encounter(mapper: &mut Mapper<'_>, links: &Links, status: Option<&str>) -> Option<String> {
    let pv1 = find(mapper, "PV1")?;
    let mut target = Target::new("Encounter");
    mapper.run("PV1[Encounter]", pv1, &mut target);
    let key =
        target.value["identifier"].get(0).and_then(|identifier| identifier_key("Encounter", identifier));
    let Some(key) = key else {
        let text = "the visit has no number (PV1-19, PV1-50), so no encounter was made";
        mapper.issues.push(Issue::warning(IssueCode::Required, text).at("PV1-19").hl7(101));
        return None;
    };
    let class = target.value["class"]["code"].as_str().unwrap_or("AMB").to_owned();
    let ended = target.value["period"]["end"].is_string();
    let by_class = if class == "PRENC" { "planned" } else { "in-progress" };
    target.value["status"] = if ended { "finished" } else { status.unwrap_or(by_class) }.into();
    if !target.value["class"].is_object() {
        target.value["class"] =
            json!({ "system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "AMB" });
    }
    target.value["subject"] = json!({ "reference": links.patient });
    if !target.value["location"][0]["location"].is_object() {
        drop_member(&mut target.value, "location");
    }
    let bound = |name: &str| {
        target.value["period"][name]
            .as_str()
            .and_then(|t| hilum_fhir::search::date_range(t, &mapper.context.zone))
    };
    if let (Some((start, _)), Some((_, end))) = (bound("start"), bound("end"))
        && start >= end
    {
        drop_member(&mut target.value["period"], "end");
        mapper.issues.push(
            Issue::warning(IssueCode::Value, "the visit ends before it starts; its end was left out")
                .at("PV1-45")
                .hl7(102),
        );
    }
    let action = Action::Merge(key.into(), mapper.resource(&target), std::mem::take(&mut target.clear));
    Some(mapper.push(action, target))
}

fn drop_member(value: &mut Value, name: &str) {
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
        target.value["clinicalStatus"] = json!({ "coding": [{ "system": status, "code": "active" }] });
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
        target.value["clinicalStatus"] = json!({ "coding": [{ "system": status, "code": "active" }] });
        target.value["category"] =
            json!([{ "coding": [{ "system": category, "code": "encounter-diagnosis" }] }]);
        target.value["subject"] = json!({ "reference": links.patient });
        if let Some(encounter) = &links.encounter {
            target.value["encounter"] = json!({ "reference": encounter });
        }
        composed(mapper, "Condition", "condition", links, target);
    }
}

/// A reaction needs a manifestation in FHIR.
fn reaction_is_empty(allergy: &Value) -> bool {
    allergy["reaction"].is_array() && !allergy["reaction"][0]["manifestation"].is_array()
}

/// A resource without an identifier of its own gets one composed of patient and code.
fn composed(mapper: &mut Mapper<'_>, of: &str, name: &str, links: &Links, mut target: Target) {
    let code = &target.value["code"];
    let code = code["coding"][0]["code"].as_str().or(code["text"].as_str()).map(str::to_owned);
    let Some(code) = code else {
        mapper.issues.push(
            Issue::warning(IssueCode::Required, "an entry has no code and was not mapped").at(of).hl7(101),
        );
        return;
    };
    let system = format!("urn:hilum:site:{}:{name}", mapper.context.site);
    let value = format!("{}|{code}", links.patient_key);
    target.value["identifier"] = json!([{ "system": system, "value": value }]);
    let key = Match { resource_type: Mapper::kind(of), system: Some(system), value };
    let action = Action::Merge(key.into(), mapper.resource(&target), std::mem::take(&mut target.clear));
    mapper.push(action, target);
}

/// An order group: ORC and OBR that belong together, and what follows the OBR.
struct Group {
    orc: Option<usize>,
    obr: Option<usize>,
    obx: Vec<usize>,
    notes: Vec<usize>,
}

fn groups(mapper: &Mapper<'_>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (at, segment) in mapper.message.segments.iter().enumerate() {
        let open = groups.last_mut();
        match (segment.name.as_str(), open) {
            ("ORC", _) => groups.push(Group { orc: Some(at), obr: None, obx: Vec::new(), notes: Vec::new() }),
            ("OBR", Some(group)) if group.obr.is_none() => group.obr = Some(at),
            ("OBR", _) => groups.push(Group { orc: None, obr: Some(at), obx: Vec::new(), notes: Vec::new() }),
            ("OBX", Some(group)) => group.obx.push(at),
            ("NTE", Some(group)) => group.notes.push(at),
            _ => {}
        }
    }
    groups
}

fn orders(mapper: &mut Mapper<'_>, links: &Links) {
    let groups = groups(mapper);
    if groups.is_empty() {
        return reject(mapper, IssueCode::Required, "the order has neither ORC nor OBR", "OBR", 101);
    }
    for group in groups {
        order(mapper, links, &group);
    }
    findings(mapper, links);
}

/// ServiceRequest of a group; its full URL.
fn order(mapper: &mut Mapper<'_>, links: &Links, group: &Group) -> Option<String> {
    let mut target = Target::new("ServiceRequest");
    for (map, segment) in [("ORC[ServiceRequest]", group.orc), ("OBR[ServiceRequest]", group.obr)] {
        if let Some(segment) = segment {
            mapper.run(map, segment, &mut target);
        }
    }
    dedupe_identifiers(&mut target.value);
    let key = typed_key("ServiceRequest", &target.value, &["FILL", "PLAC"]);
    let Some(key) = key else {
        mapper.issues.push(
            Issue::warning(IssueCode::Required, "an order has neither placer nor filler number")
                .at("ORC-2")
                .hl7(101),
        );
        return None;
    };
    let control = group.orc.and_then(|orc| mapper.field(orc, 1));
    let status = group.orc.and_then(|orc| mapper.field(orc, 5));
    let by_status = status.and_then(|s| mapper.tables.code("OrderStatus", &s).map(|c| c.code.clone()));
    let by_control = control.and_then(|c| mapper.tables.code("OrderControl", &c).map(|c| c.code.clone()));
    target.value["status"] = by_status.or(by_control).unwrap_or_else(|| "active".to_owned()).into();
    target.value["intent"] = "order".into();
    target.value["subject"] = json!({ "reference": links.patient });
    if let Some(encounter) = &links.encounter {
        target.value["encounter"] = json!({ "reference": encounter });
    }
    let notes: Vec<Value> = group
        .notes
        .iter()
        .filter_map(|nte| mapper.field(*nte, 3))
        .map(|text| json!({ "text": text }))
        .collect();
    group.notes.iter().for_each(|nte| mapper.consume_segment(*nte));
    if !notes.is_empty() {
        target.value["note"] = Value::Array(notes);
    }
    let action = Action::Merge(key.into(), mapper.resource(&target), std::mem::take(&mut target.clear));
    Some(mapper.push(action, target))
}

/// ORC-2 and OBR-2 say the same: one identifier.
fn dedupe_identifiers(resource: &mut Value) {
    if let Some(list) = resource["identifier"].as_array_mut() {
        let mut seen: Vec<Value> = Vec::new();
        list.retain(|identifier| {
            let fresh = !seen.contains(identifier);
            seen.push(identifier.clone());
            fresh
        });
    }
    if resource["identifier"].is_null() {
        drop_member(resource, "identifier");
    }
}

fn reports(mapper: &mut Mapper<'_>, links: &Links) {
    let groups = groups(mapper);
    if !groups.iter().any(|group| group.obr.is_some()) {
        return reject(mapper, IssueCode::Required, "the result has no OBR segment", "OBR", 101);
    }
    for group in groups {
        if let Some(obr) = group.obr {
            report(mapper, links, &group, obr);
        }
    }
}

fn report(mapper: &mut Mapper<'_>, links: &Links, group: &Group, obr: usize) {
    let mut target = Target::new("DiagnosticReport");
    mapper.run("OBR[DiagnosticReport]", obr, &mut target);
    let order = order(mapper, links, group);
    let key = typed_key("DiagnosticReport", &target.value, &["FILL", "PLAC"]);
    let Some(key) = key else {
        return reject(
            mapper,
            IssueCode::Required,
            "a result has neither filler nor placer number",
            "OBR-3",
            101,
        );
    };
    if !target.value["status"].is_string() {
        target.value["status"] = "final".into();
    }
    if !target.value["code"].is_object() {
        target.value["code"] = json!({ "text": "report" });
    }
    target.value["subject"] = json!({ "reference": links.patient });
    if let Some(encounter) = &links.encounter {
        target.value["encounter"] = json!({ "reference": encounter });
    }
    if let Some(order) = order {
        target.value["basedOn"] = json!([{ "reference": order }]);
    }
    let report_key = format!("{}|{}", key.system.clone().unwrap_or_default(), key.value);
    contents(mapper, links, group, &report_key, &mut target);
    let action = Action::Merge(key.into(), mapper.resource(&target), std::mem::take(&mut target.clear));
    mapper.push(action, target);
}

/// Text OBX are joined, documents attached, everything else is an Observation.
fn contents(mapper: &mut Mapper<'_>, links: &Links, group: &Group, report_key: &str, target: &mut Target) {
    let (mut texts, mut conclusion, mut attachments, mut results) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for obx in &group.obx {
        match mapper.field(*obx, 2).as_deref() {
            Some("TX" | "FT" | "ST") if is_report_text(mapper, *obx) => {
                let lines = text(mapper, *obx);
                if suffix(mapper, *obx).as_deref() == Some("IMP") {
                    conclusion.push(lines.clone());
                }
                texts.push(lines);
                mapper.consume_segment(*obx);
            }
            Some("ED") => {
                attachments.extend(attachment(mapper, *obx));
                mapper.consume_segment(*obx);
            }
            Some("RP") => {
                let url = mapper.field(*obx, 5);
                attachments.extend(url.filter(|u| !u.contains(' ')).map(|url| json!({ "url": url })));
                mapper.consume_segment(*obx);
            }
            _ => results.extend(observation(mapper, links, *obx, report_key, target)),
        }
    }
    if !texts.is_empty() {
        let data = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, texts.join("\n"));
        attachments.insert(0, json!({ "contentType": "text/plain; charset=utf-8", "data": data }));
    }
    if !conclusion.is_empty() {
        target.value["conclusion"] = conclusion.join("\n").into();
    }
    if !attachments.is_empty() {
        target.value["presentedForm"] = Value::Array(attachments);
    }
    if !results.is_empty() {
        target.value["result"] = results.into_iter().map(|url| json!({ "reference": url })).collect();
    }
}

/// TX and FT are report text; an ST is when its code has a suffix or repeats the report's.
fn is_report_text(mapper: &mut Mapper<'_>, obx: usize) -> bool {
    let kind = mapper.field(obx, 2);
    kind.as_deref() != Some("ST") || suffix(mapper, obx).is_some()
}

/// `code&SUFFIX` of OBX-3.1: GDT findings, IMP impression, REC recommendation, ADT addendum.
fn suffix(mapper: &mut Mapper<'_>, obx: usize) -> Option<String> {
    mapper.leaf(Place { segment: obx, field: 3, repeat: 1 }, 1, 2)
}

fn text(mapper: &mut Mapper<'_>, obx: usize) -> String {
    let repeats = mapper.segment(obx).repeats(5);
    let lines = (1..=repeats).filter_map(|repeat| {
        let segment = mapper.segment(obx);
        let mut leaves = segment.leaves.iter().filter(|l| l.field == 5 && l.repeat == repeat);
        let (first, last) =
            (leaves.next()?, segment.leaves.iter().rfind(|l| l.field == 5 && l.repeat == repeat)?);
        // separators inside free text belong to the text
        let raw = &mapper.message.text[first.range.start..last.range.end];
        Some(hilum_wire::er7::unescape(raw, &mapper.message.header.separators).into_owned())
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// ED: type from ED-2 and ED-3, data by the encoding of ED-4.
fn attachment(mapper: &mut Mapper<'_>, obx: usize) -> Option<Value> {
    use base64::Engine;
    let place = Place { segment: obx, field: 5, repeat: 1 };
    let part = |mapper: &mut Mapper<'_>, n| mapper.component(place, n);
    let (kind, subtype, encoding) = (part(mapper, 2), part(mapper, 3), part(mapper, 4));
    let leaf = mapper.segment(obx).leaf(5, 1, 5, 1)?;
    let raw = mapper.message.raw(leaf);
    let data = match encoding.as_deref() {
        Some("Base64") => raw.chars().filter(|c| !c.is_whitespace()).collect(),
        _ => base64::engine::general_purpose::STANDARD.encode(raw),
    };
    let valid = data.bytes().all(|b: u8| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
    if !valid {
        let place = location(mapper.segment(obx), 5, 1, None);
        mapper.issues.push(
            Issue::warning(IssueCode::Value, "the document is not base64 and was not attached")
                .at(place)
                .hl7(102),
        );
        return None;
    }
    let name = subtype.unwrap_or_default().to_ascii_lowercase();
    let content_type = match name.as_str() {
        "pdf" => "application/pdf".to_owned(),
        "xml" => "text/xml".to_owned(),
        "rtf" => "text/rtf".to_owned(),
        "jpeg" | "jpg" => "image/jpeg".to_owned(),
        "html" => "text/html".to_owned(),
        "" => "application/octet-stream".to_owned(),
        other if other.contains('/') => other.to_owned(),
        other => format!("{}/{other}", kind.unwrap_or_else(|| "application".into()).to_ascii_lowercase()),
    };
    Some(json!({ "contentType": content_type, "data": data }))
}

fn observation(
    mapper: &mut Mapper<'_>,
    links: &Links,
    obx: usize,
    report_key: &str,
    report: &Target,
) -> Option<String> {
    let mut target = Target::new("Observation");
    mapper.run("OBX[Observation]", obx, &mut target);
    if !target.value["code"].is_object() {
        let place = location(mapper.segment(obx), 3, 1, None);
        mapper.issues.push(
            Issue::warning(IssueCode::Required, "a result has no code and was not mapped").at(place).hl7(101),
        );
        return None;
    }
    value(mapper, obx, &mut target.value);
    if !target.value["status"].is_string() {
        target.value["status"] = "final".into();
    }
    target.value["subject"] = json!({ "reference": links.patient });
    if let Some(encounter) = &links.encounter {
        target.value["encounter"] = json!({ "reference": encounter });
    }
    if !target.value["effectiveDateTime"].is_string()
        && let Some(effective) = report.value.get("effectiveDateTime")
    {
        target.value["effectiveDateTime"] = effective.clone();
    }
    let own =
        target.value["identifier"].get(0).and_then(|identifier| identifier_key("Observation", identifier));
    let key = own.unwrap_or_else(|| {
        let code = target.value["code"]["coding"][0]["code"].as_str().unwrap_or("text").to_owned();
        let sub = mapper.field(obx, 4).unwrap_or_default();
        let system = format!("urn:hilum:site:{}:observation", mapper.context.site);
        let value = format!("{report_key}|{code}|{sub}");
        target.value["identifier"] = json!([{ "system": system, "value": value }]);
        Match { resource_type: Mapper::kind("Observation"), system: Some(system), value }
    });
    let action =
        Action::Merge(ChangeTarget::Match(key), mapper.resource(&target), std::mem::take(&mut target.clear));
    Some(mapper.push(action, target))
}

/// OBX-5 by OBX-2.
fn value(mapper: &mut Mapper<'_>, obx: usize, observation: &mut Value) {
    let place = Place { segment: obx, field: 5, repeat: 1 };
    let unit = |mapper: &mut Mapper<'_>| {
        let place = Place { segment: obx, field: 6, repeat: 1 };
        let (code, system) = (mapper.component(place, 1), mapper.component(place, 3));
        mapper.consume(place);
        (code, system.as_deref() == Some("UCUM"))
    };
    let number = |text: &str| {
        let plain = text.trim().trim_start_matches('+');
        let decimal = plain.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-');
        serde_json::from_str::<serde_json::Number>(plain).ok().filter(|_| decimal)
    };
    let quantity = |mapper: &mut Mapper<'_>, number: serde_json::Number, comparator: Option<&str>| {
        let mut quantity = json!({ "value": number });
        if let Some(comparator) = comparator {
            quantity["comparator"] = comparator.into();
        }
        let (unit, ucum) = unit(mapper);
        if let Some(unit) = unit {
            quantity["unit"] = unit.clone().into();
            if ucum {
                quantity["system"] = "http://unitsofmeasure.org".into();
                quantity["code"] = unit.into();
            }
        }
        quantity
    };
    let Some(kind) = mapper.field(obx, 2) else {
        mapper.consume(place);
        return;
    };
    let (member, value) = match kind.as_str() {
        "NM" => {
            let text = mapper.component(place, 1);
            match text.as_deref().and_then(number) {
                Some(number) => ("valueQuantity", Some(quantity(mapper, number, None))),
                None => ("valueString", text.map(Value::String)),
            }
        }
        "SN" => {
            let (comparator, first) = (mapper.component(place, 1), mapper.component(place, 2));
            let comparator = comparator.filter(|c| matches!(c.as_str(), "<" | ">" | "<=" | ">="));
            match first.as_deref().and_then(number) {
                Some(number) if mapper.component(place, 4).is_none() => {
                    ("valueQuantity", Some(quantity(mapper, number, comparator.as_deref())))
                }
                _ => ("valueString", Some(Value::String(text(mapper, obx)))),
            }
        }
        "CE" | "CWE" | "CNE" | "CF" => ("valueCodeableConcept", convert::concept(mapper, None, place)),
        "DT" | "TS" | "DTM" => {
            ("valueDateTime", convert::convert(mapper, &crate::rules::Convert::DateTime, None, place, None))
        }
        _ => ("valueString", Some(text(mapper, obx)).filter(|t| !t.is_empty()).map(Value::String)),
    };
    let repeats = mapper.segment(obx).repeats(5);
    (1..=repeats).for_each(|repeat| mapper.consume(Place { segment: obx, field: 5, repeat }));
    if let Some(value) = value {
        observation[member] = value;
    }
}

/// A40: pairs of PID (survivor) and MRG (prior).
fn merge(mapper: &mut Mapper<'_>) {
    let mut pid = None;
    let mut pairs = 0;
    for at in 0..mapper.message.segments.len() {
        match mapper.message.segments[at].name.as_str() {
            "PID" => pid = Some(at),
            "MRG" => {
                let Some(pid) = pid else { continue };
                pairs += 1;
                if !merge_pair(mapper, pid, at) {
                    return;
                }
            }
            _ => {}
        }
    }
    if pairs == 0 {
        reject(mapper, IssueCode::Required, "a merge needs a PID and an MRG segment", "MRG", 101);
    }
}

fn merge_pair(mapper: &mut Mapper<'_>, pid: usize, mrg: usize) -> bool {
    let (mut survivor, mut prior) = (Target::new("Patient"), Target::new("Patient"));
    mapper.run("PID[Patient]", pid, &mut survivor);
    mapper.run("MRG[Patient]", mrg, &mut prior);
    let Some(keep) = patient_key(&survivor.value) else {
        reject(mapper, IssueCode::Required, "the surviving patient has no identifier", "PID-3", 101);
        return false;
    };
    let Some(gone) = patient_key(&prior.value) else {
        reject(mapper, IssueCode::Required, "the prior patient has no identifier", "MRG-1", 101);
        return false;
    };
    if keep == gone {
        reject(mapper, IssueCode::Conflict, "a patient cannot be merged into itself", "MRG-1", 204);
        return false;
    }
    prior.value["active"] = Value::Bool(false);
    let (kept, left) = (mapper.resource(&survivor), mapper.resource(&prior));
    let update = Action::Merge(keep.clone().into(), kept.clone(), std::mem::take(&mut survivor.clear));
    mapper.push(update, survivor);
    let action =
        Action::Supersede { survivor: Box::new((keep.into(), kept)), prior: Box::new((gone.into(), left)) };
    mapper.push(action, prior);
    true
}

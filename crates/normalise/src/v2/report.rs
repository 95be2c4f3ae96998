//! Results: OBR as a DiagnosticReport, OBX as text of it, documents and Observations.

use std::collections::{HashMap, HashSet};

use hilum_fhir::{Issue, IssueCode, Key, Match, Target as ChangeTarget};
use serde_json::{Value, json};

use super::document::attachment;
use super::mapper::{Mapper, Place, Target, location};
use super::message::{Links, drop_member};
use super::order::{self, Group, groups};
use super::value::value;
use crate::identity;

/// A report being filled. It is written before its results, which are known by it.
struct Report {
    url: String,
    into: ChangeTarget,
    target: Target,
    /// The number by which the first version of the store knew it.
    former: Option<String>,
    /// `OBR-4.1`, whose text OBX repeat it.
    code: Option<String>,
    texts: Vec<String>,
    conclusion: Vec<String>,
    attachments: Vec<Value>,
    results: Vec<(String, ChangeTarget, Target)>,
    /// How often each composed key occurred.
    occurred: HashMap<String, u32>,
}

/// The reports of one patient. OBR of one message with the same number and code are one report.
pub(super) fn run(mapper: &mut Mapper<'_>, links: &Links) {
    let mut reports: Vec<Report> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut given = result_numbers(mapper);
    for (position, group) in groups(mapper).iter().enumerate() {
        let Some(obr) = group.obr else { continue };
        let order = order::order(mapper, links, group);
        if order.is_some() && group.orc.is_none() {
            mapper.said_in_passing();
        }
        let mut target = Target::new("DiagnosticReport");
        mapper.run("OBR[DiagnosticReport]", obr, &mut target);
        let effective = target.value.get("effectiveDateTime").cloned();
        let keys = keys(mapper, links, obr, position, &target);
        let identity = format!("{:?}{:?}", keys.first(), target.value.get("code"));
        let at = *known.entry(identity).or_insert(reports.len());
        if at == reports.len() {
            reports.push(report(mapper, links, obr, keys, target, order));
        }
        contents(mapper, links, group, effective.as_ref(), &mut given, &mut reports[at]);
    }
    for report in reports {
        write(mapper, report);
    }
}

/// OBX-21 that more than one OBX has: they name no single result.
fn result_numbers(mapper: &mut Mapper<'_>) -> Numbers {
    let mut numbers = Numbers::default();
    for segment in mapper.section.clone() {
        if mapper.segment(segment).name == "OBX"
            && let Some(raw) = mapper.raw(Place { segment, field: 21, repeat: 1 })
            && !numbers.seen.insert(raw.to_owned())
        {
            numbers.shared.insert(raw.to_owned());
        }
    }
    numbers
}

#[derive(Default)]
struct Numbers {
    seen: HashSet<String>,
    shared: HashSet<String>,
}

/// Filler, else placer; else what is composed of the patient, the service, the time and the place in the message.
fn keys(mapper: &mut Mapper<'_>, links: &Links, obr: usize, position: usize, target: &Target) -> Vec<Key> {
    let keys = identity::keys(mapper.context, &target.value, &["FILL", "PLAC"]);
    if !keys.is_empty() {
        return keys;
    }
    let place = location(mapper.segment(obr), 3, 1, None);
    let text =
        "a result has neither filler nor placer number: it is known by patient, service, time and position";
    mapper.issues.push(Issue::warning(IssueCode::Required, text).at(place).hl7(101));
    let code = target.value.get("code").and_then(identity::code_text).unwrap_or_default();
    let at = mapper.field(obr, 7).or_else(|| mapper.field(obr, 22)).or_else(|| mapper.field(0, 7));
    vec![Key::Under {
        parent: links.patient.clone(),
        system: format!("urn:hilum:site:{}:report", mapper.context.site),
        value: format!("{code}|{}|{}", at.unwrap_or_default(), position + 1),
        former: None,
    }]
}

fn report(
    mapper: &mut Mapper<'_>,
    links: &Links,
    obr: usize,
    keys: Vec<Key>,
    mut target: Target,
    order: Option<String>,
) -> Report {
    target.default("status", "final".into());
    target.default("code", json!({ "text": "report" }));
    links.apply(&mut target.value, obr);
    if let Some(order) = order {
        target.value["basedOn"] = json!([{ "reference": order }]);
    }
    Report {
        url: mapper.url(),
        into: identity::one_of("DiagnosticReport", Some(links.patient.clone()), keys, true),
        former: identity::former_report(&target.value),
        code: mapper.field(obr, 4),
        target,
        texts: Vec::new(),
        conclusion: Vec::new(),
        attachments: Vec::new(),
        results: Vec::new(),
        occurred: HashMap::new(),
    }
}

/// Text OBX are joined, documents attached, everything else is an Observation.
fn contents(
    mapper: &mut Mapper<'_>,
    links: &Links,
    group: &Group,
    effective: Option<&Value>,
    numbers: &mut Numbers,
    report: &mut Report,
) {
    for (obx, notes) in &group.obx {
        match mapper.field(*obx, 2).as_deref() {
            Some("TX" | "FT" | "ST") if is_report_text(mapper, *obx) => report_text(mapper, *obx, report),
            Some("ED") => {
                let attached = attachment(mapper, *obx);
                consume_frame(mapper, *obx, report);
                report.attachments.extend(attached);
            }
            Some("RP") => {
                let leaf = mapper.segment(*obx).leaf(5, 1, 1, 1);
                let is_url = leaf.is_some_and(|leaf| !mapper.message.raw(leaf).contains(char::is_whitespace));
                let url = if is_url { mapper.field(*obx, 5) } else { None };
                consume_frame(mapper, *obx, report);
                report.attachments.extend(url.map(|url| json!({ "url": url })));
            }
            _ => {
                let observed = observation(mapper, links, *obx, effective, numbers, report);
                if let Some((into, mut target)) = observed {
                    let notes = order::notes(mapper, notes);
                    if !notes.is_empty() {
                        target.value["note"] = Value::Array(notes);
                    }
                    report.results.push((mapper.url(), into, target));
                }
            }
        }
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

fn report_text(mapper: &mut Mapper<'_>, obx: usize, report: &mut Report) {
    let suffix = suffix(mapper, obx);
    consume_frame(mapper, obx, report);
    let Some(lines) = mapper.lines(obx, 5) else { return };
    if suffix.as_deref() == Some("IMP") {
        report.conclusion.push(lines.clone());
    }
    report.texts.push(lines);
}

/// What of an OBX says how its value is read, and where the report says the same. Everything else is reported as unmapped.
fn consume_frame(mapper: &mut Mapper<'_>, obx: usize, report: &Report) {
    [1, 2, 4].iter().for_each(|field| mapper.consume_field(obx, *field));
    let place = Place { segment: obx, field: 3, repeat: 1 };
    let leaf = mapper.segment(obx).leaf(3, 1, 1, 1);
    if leaf.is_some_and(|leaf| Some(&*mapper.message.value(leaf)) == report.code.as_deref()) {
        mapper.consume(place);
    }
    // the status of the report says it, as long as it is the same
    let status = mapper.segment(obx).leaf(11, 1, 1, 1).map(|leaf| mapper.message.raw(leaf));
    let status = status.and_then(|status| mapper.tables.code("ReportStatus", status));
    let said = report.target.member("status").as_str();
    if status.is_some_and(|status| said == Some(status.code.as_str())) {
        mapper.consume_field(obx, 11);
    }
}

/// An Observation by OBX-21 with its authority, else by its report, code, OBX-4 and OBX-21, counted where these are equal.
fn observation(
    mapper: &mut Mapper<'_>,
    links: &Links,
    obx: usize,
    effective: Option<&Value>,
    numbers: &Numbers,
    report: &mut Report,
) -> Option<(ChangeTarget, Target)> {
    let mut target = Target::new("Observation");
    mapper.run("OBX[Observation]", obx, &mut target);
    let Some(code) = target.value.get("code").and_then(identity::code_text) else {
        let place = location(mapper.segment(obx), 3, 1, None);
        let text = "a result has no code and was not mapped";
        mapper.issues.push(Issue::warning(IssueCode::Required, text).at(place).hl7(101));
        return None;
    };
    value(mapper, obx, &mut target);
    target.default("status", "final".into());
    links.apply(&mut target.value, obx);
    if let Some(effective) = effective
        && target.value.get("effectiveDateTime").is_none()
    {
        target.value["effectiveDateTime"] = effective.clone();
    }
    let number = mapper.raw(Place { segment: obx, field: 21, repeat: 1 });
    if number.is_some_and(|number| numbers.shared.contains(number)) {
        drop_member(&mut target.value, "identifier");
        let place = location(mapper.segment(obx), 21, 1, None);
        let text = "several results of the message have this number: it names none of them and was left out";
        mapper.issues.push(Issue::warning(IssueCode::Duplicate, text).at(place).hl7(102));
    }
    // a number without an authority is one among those of its report: senders count from 1 in each
    let (mut keys, bare): (Vec<Key>, Vec<Key>) = identity::keys(mapper.context, &target.value, &[])
        .into_iter()
        .partition(|key| matches!(key, Key::Number(..) | Key::Former(_)));
    let sub = mapper.field(obx, 4).unwrap_or_default();
    if keys.is_empty() {
        let own = match bare.first() {
            Some(Key::Bare(number, _)) => format!("{code}|{sub}|{number}"),
            _ => format!("{code}|{sub}"),
        };
        keys.push(composed(mapper, report, &target.value, &own, &sub));
    }
    Some((identity::one_of("Observation", Some(links.patient.clone()), keys, false), target))
}

/// The key of a result without a number of its own.
fn composed(mapper: &Mapper<'_>, report: &mut Report, observation: &Value, named: &str, sub: &str) -> Key {
    let system = format!("urn:hilum:site:{}:observation", mapper.context.site);
    let count = report.occurred.entry(named.to_owned()).or_insert(0);
    *count += 1;
    let value = if *count == 1 { named.to_owned() } else { format!("{named}#{count}") };
    let is_numbered = observation.get("identifier").is_some();
    let former = report.former.as_ref().filter(|_| *count == 1 && !is_numbered).map(|number| {
        let code = observation["code"]["coding"][0]["code"].as_str().unwrap_or("text");
        Match {
            resource_type: identity::kind("Observation"),
            system: Some(system.clone()),
            value: format!("{number}|{code}|{sub}"),
        }
    });
    Key::Under { parent: report.url.clone(), system, value, former }
}

/// The report, then its results.
fn write(mapper: &mut Mapper<'_>, report: Report) {
    let Report { url, into, mut target, texts, conclusion, mut attachments, results, .. } = report;
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
        target.value["result"] = results.iter().map(|(url, ..)| json!({ "reference": url })).collect();
    }
    mapper.merge_as(&url, into, target);
    for (url, into, target) in results {
        mapper.merge_as(&url, into, target);
    }
}

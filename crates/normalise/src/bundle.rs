//! Changes rendered for people: a FHIR transaction Bundle.

use hilum_fhir::imaging::{Instance, InstanceRow, StudyRows, imaging_study};
use hilum_fhir::{Action, Change, Key, Keys, Match, Resource, Target};
use serde_json::{Value, json};

use crate::Normalised;

/// The transaction a submission makes. Of an instance the ImagingStudy is shown as if it were the first of its study.
pub fn bundle(normalised: &Normalised) -> Value {
    let entries: Vec<Value> = normalised
        .changes
        .iter()
        .flat_map(|change| match &change.action {
            Action::Instance(instance) => drawn(instance),
            _ => vec![entry(change)],
        })
        .collect();
    json!({ "resourceType": "Bundle", "type": "transaction", "entry": entries })
}

/// The rows of study, series and instance that a submission writes; empty for other submissions.
pub fn rows(normalised: &Normalised) -> Vec<Value> {
    let instances = normalised.changes.iter().filter_map(|change| match &change.action {
        Action::Instance(instance) => Some(instance),
        _ => None,
    });
    let rows = instances.flat_map(|i| {
        let accession = i.study.accession.as_ref().map(|(system, value)| format!("{system}|{value}"));
        [
            json!({ "row": "study", "uid": i.study.uid, "accession": accession, "orders": orders(&i.study.orders),
                "elements": i.study.elements }),
            json!({ "row": "series", "uid": i.series.uid, "study": i.study.uid, "elements": i.series.elements }),
            json!({ "row": "instance", "uid": i.uid, "series": i.series.uid, "sopClass": i.sop_class,
                "transferSyntax": i.transfer_syntax, "bytes": i.dataset_bytes, "elements": i.elements }),
        ]
    });
    rows.collect()
}

/// The Patient that is ensured, and the ImagingStudy that would be drawn from the rows of this instance alone.
fn drawn(instance: &Instance) -> Vec<Value> {
    let study = &instance.study;
    let patient = study.patient.as_ref().map(|(wanted, patient)| {
        let target = Target::Patient(Box::new(wanted.clone()));
        (target, patient)
    });
    let row = InstanceRow {
        uid: instance.uid.clone(),
        sop_class: instance.sop_class.clone(),
        elements: instance.elements.clone(),
    };
    let rows = StudyRows {
        uid: study.uid.clone(),
        accession: study.accession.clone(),
        elements: study.elements.clone(),
        patient: patient.as_ref().map(|(target, _)| url(target)),
        based_on: study.orders.iter().filter_map(|order| order.first()).map(reference).collect(),
        procedure: None,
        discontinued: false,
        attention: false,
        series: vec![(instance.series.clone(), vec![row])],
    };
    let ensured = patient.map(|(target, patient)| {
        let request = json!({ "method": "POST", "url": "Patient", "ifNoneExist": condition(&target) });
        json!({ "resource": show(patient), "request": request })
    });
    let target = format!("ImagingStudy?identifier=urn:dicom:uid|urn:oid:{}", study.uid);
    let request = json!({ "method": "PUT", "url": target });
    ensured
        .into_iter()
        .chain([json!({ "resource": show(&imaging_study(&rows)), "request": request })])
        .collect()
}

fn entry(change: &Change) -> Value {
    let (resource, request) = match &change.action {
        Action::Create(resource) => {
            (show(resource), json!({ "method": "POST", "url": resource.resource_type().name() }))
        }
        Action::Ensure(target, resource) => {
            let of = resource.resource_type().name();
            (show(resource), json!({ "method": "POST", "url": of, "ifNoneExist": condition(target) }))
        }
        Action::Merge(target, resource, clear) => {
            let clear = clear.iter().map(|path| ("clear", path));
            let defaults = change.defaults.keys().filter(|name| resource.get(name).is_none());
            let notes: Vec<Value> = clear
                .chain(defaults.map(|name| ("default", name)))
                .map(|(kind, path)| json!({ "url": format!("urn:hilum:extension:{kind}"), "valueString": path }))
                .collect();
            let mut request = json!({ "method": "PATCH", "url": url(target) });
            if !notes.is_empty() {
                request["extension"] = notes.into();
            }
            (show(&created(change, resource)), request)
        }
        Action::Replace(target, resource) => (show(resource), json!({ "method": "PUT", "url": url(target) })),
        Action::Delete(target) => (Value::Null, json!({ "method": "DELETE", "url": url(target) })),
        Action::Supersede { survivor, prior } => {
            let link = json!({ "survivor": url(&survivor.0), "prior": url(&prior.0) });
            (show(&prior.1), json!({ "method": "PATCH", "url": url(&prior.0), "_merge": link }))
        }
        Action::Move(target, patient) => {
            (Value::Null, json!({ "method": "PATCH", "url": url(target), "_move": { "patient": patient } }))
        }
        Action::Study(study) => (json!({ "study": study.uid, "elements": study.elements }), row()),
        // shown as what is drawn from it
        Action::Instance(instance) => (json!({ "instance": instance.uid }), row()),
        Action::Step(step) => {
            let series: Vec<Value> = step
                .series
                .iter()
                .map(|(row, images)| json!({ "series": row.uid, "elements": row.elements, "images": images }))
                .collect();
            let mut shown = json!({ "step": step.uid, "status": step.status.as_str() });
            if let Some(study) = &step.study {
                shown["study"] = study.uid.clone().into();
                shown["studyElements"] = study.elements.clone().into();
                shown["accession"] = json!(study.accession);
                shown["orders"] = orders(&study.orders);
            }
            shown["series"] = series.into();
            (shown, row())
        }
    };
    let mut entry = json!({});
    if let Some(url) = &change.full_url {
        entry["fullUrl"] = url.clone().into();
    }
    if !resource.is_null() {
        entry["resource"] = resource;
    }
    entry["request"] = request;
    entry
}

fn row() -> Value {
    json!({ "method": "POST", "url": "ImagingStudy" })
}

fn show(resource: &Resource) -> Value {
    resource.to_value()
}

/// The resource as it is when the change creates it: with the members the message says nothing of.
fn created(change: &Change, resource: &Resource) -> Resource {
    let mut created = resource.clone();
    for (name, value) in &change.defaults {
        if created.get(name).is_none() {
            created.set(name, value.clone());
        }
    }
    created
}

/// Identifiers of orders, each list those of one.
fn orders(orders: &[Vec<Match>]) -> Value {
    orders.iter().map(|order| Value::from_iter(order.iter().map(number))).collect()
}

fn reference(wanted: &Match) -> String {
    format!("{}?identifier={}", wanted.resource_type, number(wanted))
}

fn url(target: &Target) -> String {
    match target {
        Target::Id(of, id) => format!("{of}/{id}"),
        Target::Query(query) => query.resource_type.name().to_owned(),
        other => format!("{}?{}", other.resource_type(), condition(other)),
    }
}

/// The identifiers by which a target is looked for, the most trusted first.
fn condition(target: &Target) -> String {
    match target {
        Target::Match(wanted) => format!("identifier={}", number(wanted)),
        Target::Patient(wanted) => {
            let numbers = wanted.numbers.iter().chain(&wanted.former);
            let numbers = numbers.map(|(system, value)| format!("{system}|{value}"));
            format!("identifier={}", numbers.collect::<Vec<_>>().join(","))
        }
        Target::Keys(keys) => of_keys(keys),
        other => url(other),
    }
}

/// Keys that name something of the patient only say so.
fn of_keys(keys: &Keys) -> String {
    let shown: Vec<String> = keys.keys.iter().map(key).collect();
    let mut text = format!("identifier={}", shown.join(","));
    if let Some(patient) = &keys.patient
        && keys.keys.iter().any(|key| matches!(key, Key::Bare(..)))
    {
        text.push_str("&patient=");
        text.push_str(patient);
    }
    text
}

fn key(key: &Key) -> String {
    match key {
        Key::Number(wanted, _) | Key::Former(wanted) => number(wanted),
        Key::Bare(value, _) => format!("|{value}"),
        Key::Under { parent, system, value, .. } => format!("{system}|{parent}|{value}"),
    }
}

fn number(wanted: &Match) -> String {
    format!("{}|{}", wanted.system.as_deref().unwrap_or_default(), wanted.value)
}

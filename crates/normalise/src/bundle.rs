//! Changes rendered for people: a FHIR transaction Bundle.

use hilum_fhir::imaging::{Instance, InstanceRow, StudyRows, imaging_study};
use hilum_fhir::{Action, Change, Resource, Target};
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
            json!({ "row": "study", "uid": i.study.uid, "accession": accession, "elements": i.study.elements }),
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
    let patient = study.patient.as_ref().map(|(wanted, patient)| (Target::Match(wanted.clone()), patient));
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
        based_on: Vec::new(),
        procedure: None,
        discontinued: false,
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
            let mut request = json!({ "method": "PATCH", "url": url(target) });
            if !clear.is_empty() {
                request["extension"] = clear
                    .iter()
                    .map(|c| json!({ "url": "urn:hilum:extension:clear", "valueString": c }))
                    .collect();
            }
            (show(resource), request)
        }
        Action::Replace(target, resource) => (show(resource), json!({ "method": "PUT", "url": url(target) })),
        Action::Delete(target) => (Value::Null, json!({ "method": "DELETE", "url": url(target) })),
        Action::Supersede { survivor, prior } => {
            let link = json!({ "survivor": url(&survivor.0), "prior": url(&prior.0) });
            (show(&prior.1), json!({ "method": "PATCH", "url": url(&prior.0), "_merge": link }))
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
            let shown = json!({ "step": step.uid, "status": step.status.as_str(), "study": step.study.uid,
                "studyElements": step.study.elements, "accession": step.study.accession, "series": series });
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

fn url(target: &Target) -> String {
    match target {
        Target::Id(of, id) => format!("{of}/{id}"),
        Target::Match(wanted) => format!("{}?{}", wanted.resource_type, condition(target)),
        Target::Query(query) => query.resource_type.name().to_owned(),
    }
}

fn condition(target: &Target) -> String {
    match target {
        Target::Match(wanted) => {
            format!("identifier={}|{}", wanted.system.as_deref().unwrap_or_default(), wanted.value)
        }
        other => url(other),
    }
}

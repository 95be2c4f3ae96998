//! Changes rendered for people: a FHIR transaction Bundle.

use hilum_fhir::{Action, Change, Resource, Target};
use serde_json::{Value, json};

use crate::Normalised;

/// The transaction a submission makes. Rows without a resource (imaging) are shown as Parameters.
pub fn bundle(normalised: &Normalised) -> Value {
    let entries: Vec<Value> = normalised.changes.iter().map(entry).collect();
    json!({ "resourceType": "Bundle", "type": "transaction", "entry": entries })
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
        Action::Instance(instance) => {
            let i = instance;
            let shown = json!({ "instance": i.uid, "sopClass": i.sop_class, "elements": i.elements, "series": i.series.uid,
                "seriesElements": i.series.elements, "study": i.study.uid, "studyElements": i.study.elements,
                "accession": i.study.accession, "patient": i.study.patient.as_ref().map(|(_, p)| p.to_value()) });
            (shown, row())
        }
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

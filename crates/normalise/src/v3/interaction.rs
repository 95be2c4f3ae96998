//! Which parts of an interaction belong together, and which changes they make.

use hilum_fhir::{Action, Issue, IssueCode, Match};
use roxmltree::Node;
use serde_json::Value;

use super::mapper::{Mapper, Place, Target, find};
use super::table::Path;
use crate::hl7::{instant, patient_key};

/// Registration events of one interaction.
const EVENTS_MAX: usize = 1_000;

/// Maps the interaction by its artefact.
pub(super) fn run(mapper: &mut Mapper<'_>, root: Node<'_, '_>) {
    let name = mapper.message.wrapper.interaction.clone();
    let whole = Place { node: root, path: format!("/{name}") };
    if mapper.message.wrapper.id.is_none() {
        let place = format!("{}/id", whole.path);
        reject(mapper, IssueCode::Required, "the message id is missing", &place, 101);
    }
    let tables = mapper.tables;
    let Some(kind) = tables.v3.kind(&name) else {
        return reject(mapper, IssueCode::NotSupported, "unsupported interaction", &whole.path, 200);
    };
    if mapper.message.wrapper.declared.as_ref().is_some_and(|declared| *declared != name) {
        let text = "names another interaction than the element, which is taken";
        mapper.issues.push(
            Issue::warning(IssueCode::Value, text).at(format!("{}/interactionId", whole.path)).hl7(102),
        );
    }
    mapper.happened = happened(mapper, &whole);
    mapper.run("Interaction", &whole, &mut Target::new("Basic"));
    let events = all(&whole, "controlActProcess/subject/registrationEvent");
    if events.is_empty() {
        let place = format!("{}/controlActProcess/subject/registrationEvent", whole.path);
        return reject(mapper, IssueCode::Required, "the interaction has no registration event", &place, 101);
    }
    if events.len() > EVENTS_MAX {
        let text = format!("more than {EVENTS_MAX} registration events");
        return reject(mapper, IssueCode::TooLong, &text, &whole.path, 100);
    }
    for event in events {
        mapper.run("RegistrationEvent", &event, &mut Target::new("Basic"));
        let Some((target, key)) = patient(mapper, &event) else { return };
        if kind == "merge" {
            merge(mapper, &event, target, &key);
        } else {
            mapper.push(Action::Merge(key.into(), target.resource(), Vec::new()), target);
        }
    }
}

fn reject(mapper: &mut Mapper<'_>, code: IssueCode, text: &str, place: &str, hl7: u16) {
    mapper.issues.push(Issue::error(code, text).at(place).hl7(hl7));
}

fn all<'t, 'i>(place: &Place<'t, 'i>, path: &str) -> Vec<Place<'t, 'i>> {
    Path::parse(path).map(|path| find(place, &path)).unwrap_or_default()
}

/// The time of the event, else the interaction's creation.
fn happened(mapper: &mut Mapper<'_>, whole: &Place<'_, '_>) -> Option<hilum_fhir::Timestamp> {
    let event = ["controlActProcess/effectiveTime/@value", "controlActProcess/effectiveTime/low/@value"]
        .into_iter()
        .find_map(|path| mapper.attribute(all(whole, path).first()?.node, "value"));
    let text = event.or_else(|| mapper.message.wrapper.created.clone())?;
    instant(&text, &mapper.context.zone)
}

/// The patient of a registration event and the identifier that names it.
fn patient(mapper: &mut Mapper<'_>, event: &Place<'_, '_>) -> Option<(Target, Match)> {
    let place = format!("{}/subject1/patient", event.path);
    let Some(role) = all(event, "subject1/patient").into_iter().next() else {
        reject(mapper, IssueCode::Required, "the registration event has no patient", &place, 101);
        return None;
    };
    let mut target = Target::new("Patient");
    mapper.run("Patient", &role, &mut target);
    let Some(key) = patient_key(&target.value) else {
        reject(mapper, IssueCode::Required, "the patient has no identifier", &format!("{place}/id"), 101);
        return None;
    };
    Some((target, key))
}

/// As A40: the patient of the event survives, those of the registrations it replaces are superseded.
fn merge(mapper: &mut Mapper<'_>, event: &Place<'_, '_>, survivor: Target, keep: &Match) {
    let kept = survivor.resource();
    mapper.push(Action::Merge(keep.clone().into(), kept.clone(), Vec::new()), survivor);
    let replaced = all(event, "replacementOf/priorRegistration/subject1/priorRegisteredRole");
    if replaced.is_empty() {
        let place = format!("{}/replacementOf", event.path);
        return reject(mapper, IssueCode::Required, "a merge needs a prior registration", &place, 101);
    }
    for role in replaced {
        let place = format!("{}/id", role.path);
        let mut prior = Target::new("Patient");
        mapper.run("PriorRegisteredRole", &role, &mut prior);
        let Some(gone) = patient_key(&prior.value) else {
            return reject(mapper, IssueCode::Required, "the prior patient has no identifier", &place, 101);
        };
        if gone == *keep {
            return reject(
                mapper,
                IssueCode::Conflict,
                "a patient cannot be merged into itself",
                &place,
                204,
            );
        }
        prior.value["active"] = Value::Bool(false);
        let (survivor, left) = ((keep.clone().into(), kept.clone()), prior.resource());
        let action = Action::Supersede { survivor: Box::new(survivor), prior: Box::new((gone.into(), left)) };
        mapper.push(action, prior);
    }
}

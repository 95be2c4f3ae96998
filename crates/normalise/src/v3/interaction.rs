//! Which parts of an interaction belong together, and which changes they make.

use std::collections::HashSet;

use hilum_fhir::{Action, Disagreement, Issue, IssueCode, PatientNumbers};
use roxmltree::Node;
use serde_json::Value;

use super::mapper::{Mapper, Place, Target, find};
use super::table::Path;
use crate::hl7::instant;
use crate::identity::{self, NUMBERS_MAX, Unnamed};

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
        let Some((target, numbers)) = patient(mapper, &event, kind == "merge") else { return };
        match numbers {
            Some(numbers) if kind == "merge" => merge(mapper, &event, target, numbers),
            Some(numbers) => {
                let action = Action::Merge(identity::patient(numbers), target.resource(), Vec::new());
                mapper.push(action, target);
            }
            None => mapper.push(Action::Create(target.resource()), target),
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

/// The patient of a registration event and the numbers that name it; without numbers it is one of this message alone, where the site
/// keeps such.
fn patient(
    mapper: &mut Mapper<'_>,
    event: &Place<'_, '_>,
    is_merge: bool,
) -> Option<(Target, Option<PatientNumbers>)> {
    let place = format!("{}/subject1/patient", event.path);
    let Some(role) = all(event, "subject1/patient").into_iter().next() else {
        reject(mapper, IssueCode::Required, "the registration event has no patient", &place, 101);
        return None;
    };
    let mut target = Target::new("Patient");
    let place = format!("{place}/id");
    match numbers(mapper, ("Patient", &role), &mut target) {
        Ok(numbers) => Some((target, Some(numbers))),
        Err(Unnamed::Nobody) if mapper.context.keep_unidentified && !is_merge => {
            let text = "the patient has no number: a Patient of this message alone was made";
            mapper.issues.push(Issue::warning(IssueCode::Required, text).at(place).hl7(101));
            Some((target, None))
        }
        Err(why) => {
            unnamed(mapper, why, "the patient", &place);
            None
        }
    }
}

/// Fills a Patient by a map and reads the numbers that name it.
fn numbers(
    mapper: &mut Mapper<'_>,
    (map, role): (&str, &Place<'_, '_>),
    target: &mut Target,
) -> Result<PatientNumbers, Unnamed> {
    if all(role, "id").len() > NUMBERS_MAX {
        return Err(Unnamed::TooMany);
    }
    mapper.run(map, role, target);
    identity::patient_numbers(mapper.context, &target.value, &target.ranks, Vec::new(), Disagreement::Refuse)
}

fn unnamed(mapper: &mut Mapper<'_>, why: Unnamed, who: &str, place: &str) {
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

/// As A40: the patient of the event survives, those of the registrations it replaces are superseded. They are looked for before the
/// survivor is written: an id that both list leads to the prior.
fn merge(mapper: &mut Mapper<'_>, event: &Place<'_, '_>, mut survivor: Target, mut keep: PatientNumbers) {
    let replaced = all(event, "replacementOf/priorRegistration/subject1/priorRegisteredRole");
    if replaced.is_empty() {
        let place = format!("{}/replacementOf", event.path);
        return reject(mapper, IssueCode::Required, "a merge needs a prior registration", &place, 101);
    }
    if replaced.len() > EVENTS_MAX {
        let text = format!("more than {EVENTS_MAX} prior registrations");
        return reject(mapper, IssueCode::TooLong, &text, &event.path, 100);
    }
    let mut priors = Vec::new();
    for role in &replaced {
        let mut prior = Target::new("Patient");
        match numbers(mapper, ("PriorRegisteredRole", role), &mut prior) {
            Ok(gone) => priors.push((prior, gone)),
            Err(why) => return unnamed(mapper, why, "the prior patient", &format!("{}/id", role.path)),
        }
    }
    let gone: HashSet<(String, String)> =
        priors.iter().flat_map(|(_, gone)| gone.numbers.iter().cloned()).collect();
    keep.numbers.retain(|number| !gone.contains(number));
    if keep.numbers.is_empty() {
        let place = format!("{}/id", replaced[0].path);
        return reject(mapper, IssueCode::Conflict, "a patient cannot be merged into itself", &place, 204);
    }
    identity::drop_numbers(&mut survivor.value, &gone);
    let mut kept = survivor.resource();
    for (mut prior, gone) in priors {
        prior.value["active"] = Value::Bool(false);
        let left = (identity::patient(gone), prior.resource());
        let next = identity::identifiers_only(&kept);
        let survivor = (identity::patient(keep.clone()), std::mem::replace(&mut kept, next));
        mapper.push(Action::Supersede { survivor: Box::new(survivor), prior: Box::new(left) }, prior);
    }
    let written = survivor.resource();
    mapper.push(Action::Merge(identity::patient(keep), written, Vec::new()), survivor);
}

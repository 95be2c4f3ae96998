//! Messages by which patients become one, and by which a visit becomes another patient's. HL7 v2.5.1, 3.3.18 to 3.3.47.

use std::collections::HashSet;

use hilum_fhir::{Action, IssueCode, PatientNumbers, Resource};
use serde_json::Value;

use super::mapper::{Mapper, Target, location};
use super::message::{all, encounter, find, links_to, numbers, reject, unnamed};
use crate::identity::{self, Unnamed};
use crate::rules::Message;

/// Pairs of one message.
const PAIRS_MAX: usize = 1_000;

/// Each PID (who stays) with the MRG after it (who goes).
pub(super) fn run(mapper: &mut Mapper<'_>) {
    let groups = groups(mapper);
    let pairs: usize = groups.iter().map(|(_, priors)| priors.len()).sum();
    if pairs == 0 {
        return reject(mapper, IssueCode::Required, "a merge needs a PID and an MRG segment", "MRG", 101);
    }
    if pairs > PAIRS_MAX {
        let text = format!("the message has more than {PAIRS_MAX} merges; send it in parts");
        return reject(mapper, IssueCode::TooLong, &text, "MRG", 207);
    }
    for (pid, priors) in groups {
        if merge_group(mapper, pid, &priors).is_none() {
            return;
        }
    }
}

/// Each PID that has an MRG after it, with all of them.
fn groups(mapper: &Mapper<'_>) -> Vec<(usize, Vec<usize>)> {
    let mut groups: Vec<(usize, Vec<usize>)> = Vec::new();
    for at in mapper.section.clone() {
        match (mapper.segment(at).name.as_str(), groups.last_mut()) {
            ("PID", _) => groups.push((at, Vec::new())),
            ("MRG", Some((_, priors))) => priors.push(at),
            _ => {}
        }
    }
    groups.retain(|(_, priors)| !priors.is_empty());
    groups
}

/// The priors are looked for before the survivor is written: a number that both list leads to the prior. `None` = refused.
fn merge_group(mapper: &mut Mapper<'_>, pid: usize, mrgs: &[usize]) -> Option<()> {
    let (mut survivor, mut keep) = survivor(mapper, pid)?;
    let mut priors = Vec::new();
    for mrg in mrgs {
        let (mut prior, gone) = prior(mapper, *mrg)?;
        prior.value["active"] = Value::Bool(false);
        priors.push((prior, gone));
    }
    let gone: HashSet<(String, String)> =
        priors.iter().flat_map(|(_, gone)| gone.numbers.iter().cloned()).collect();
    keep.numbers.retain(|number| !gone.contains(number));
    if keep.numbers.is_empty() {
        let place = location(mapper.segment(mrgs[0]), 1, 1, None);
        reject(mapper, IssueCode::Conflict, "a patient cannot be merged into itself", &place, 204);
        return None;
    }
    identity::drop_numbers(&mut survivor.value, &gone);
    let mut kept = survivor.clone_resource();
    for (prior, gone) in priors {
        let next = identity::identifiers_only(&kept);
        supersede(mapper, (keep.clone(), std::mem::replace(&mut kept, next)), (gone, prior));
    }
    mapper.merge(identity::patient(keep), survivor);
    Some(())
}

fn supersede(
    mapper: &mut Mapper<'_>,
    (keep, kept): (PatientNumbers, Resource),
    (gone, mut prior): (PatientNumbers, Target),
) {
    let left = prior.take_resource();
    let action = Action::Supersede {
        survivor: Box::new((identity::patient(keep), kept)),
        prior: Box::new((identity::patient(gone), left)),
    };
    let url = mapper.url();
    mapper.push(&url, action, prior);
}

fn survivor(mapper: &mut Mapper<'_>, pid: usize) -> Option<(Target, PatientNumbers)> {
    let mut target = Target::new("Patient");
    match numbers(mapper, ("PID[Patient]", pid, 3), &mut target, Vec::new()) {
        Ok(numbers) => Some((target, numbers)),
        Err(why) => refuse(mapper, why, "the surviving patient", (pid, 3)),
    }
}

fn prior(mapper: &mut Mapper<'_>, mrg: usize) -> Option<(Target, PatientNumbers)> {
    let mut target = Target::new("Patient");
    match numbers(mapper, ("MRG[Patient]", mrg, 1), &mut target, Vec::new()) {
        Ok(numbers) => Some((target, numbers)),
        Err(why) => refuse(mapper, why, "the prior patient", (mrg, 1)),
    }
}

fn refuse<T>(mapper: &mut Mapper<'_>, why: Unnamed, who: &str, (segment, field): (usize, u16)) -> Option<T> {
    let place = location(mapper.segment(segment), field, 1, None);
    unnamed(mapper, why, who, &place);
    None
}

/// A45: the visit of MRG-5 becomes that of the patient of the PID. v2.5.1, 3.3.45.
pub(super) fn move_visit(mapper: &mut Mapper<'_>, message: &Message) {
    let Some(pid) = find(mapper, "PID") else {
        return reject(mapper, IssueCode::Required, "the message has no PID segment", "PID", 101);
    };
    if all(mapper, "PID").len() > 1 {
        return reject(
            mapper,
            IssueCode::NotSupported,
            "visits are moved to one patient at a time",
            "PID[2]",
            207,
        );
    }
    let moves = all(mapper, "MRG");
    if moves.is_empty() {
        return reject(mapper, IssueCode::Required, "a move needs an MRG segment", "MRG", 101);
    }
    let Some((patient, keep)) = survivor(mapper, pid) else { return };
    let links = links_to(mapper.merge(identity::patient(keep), patient));
    let end = mapper.section.end;
    for (n, mrg) in moves.iter().enumerate() {
        let next = moves.get(n + 1).copied().unwrap_or(end);
        let Some(keys) = move_one(mapper, *mrg, &links.patient) else { return };
        mapper.section = *mrg..next;
        if let Some(pv1) = find(mapper, "PV1") {
            encounter(mapper, &links, pv1, message, keys);
        }
    }
}

/// Moves the visit of one MRG; the keys that name it. `None` = refused.
fn move_one(mapper: &mut Mapper<'_>, mrg: usize, patient: &str) -> Option<Vec<hilum_fhir::Key>> {
    let mut visit = Target::new("Encounter");
    mapper.run("MRG[Encounter]", mrg, &mut visit);
    let keys = identity::keys(mapper.context, &visit.value, &[]);
    if keys.is_empty() {
        let place = location(mapper.segment(mrg), 5, 1, None);
        reject(mapper, IssueCode::Required, "the visit that moves has no number", &place, 101);
        return None;
    }
    let (mut prior, gone) = prior(mapper, mrg)?;
    let from = mapper.url();
    let ensure = Action::Ensure(identity::patient(gone), prior.take_resource());
    mapper.push(&from, ensure, prior);
    let target = identity::one_of("Encounter", Some(from), keys.clone(), false);
    let url = mapper.url();
    mapper.push(&url, Action::Move(target, patient.to_owned()), visit);
    Some(keys)
}

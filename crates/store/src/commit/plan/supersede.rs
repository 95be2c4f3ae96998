//! Merges and moves of patients: the only messages that take anything from one patient to another.
//!
//! `Patient.link` is the only truth: what the store needs to follow a merge is derived from the version that is written, whoever writes it.

use hilum_fhir::{Change, Issue, IssueCode, Match, Resource, Target};
use serde_json::{Value, json};

use super::planner::{Planner, patient_match};
use super::{Planned, RemarkKind, Successor};
use crate::query::identifiers::identifier_list;
use crate::query::lookup::{Lookup, SUCCESSORS_MAX, patient_type};
use crate::{Effect, Error, ErrorKind};

impl Planner<'_> {
    /// The prior Patients are replaced by the survivor.
    pub(super) fn supersede(
        &mut self,
        survivor: &(Target, Resource),
        prior: &(Target, Resource),
        change: &Change,
    ) -> Result<Planned, Error> {
        let prior_numbers = numbers_of(&prior.0);
        let prior_former = former_of(&prior.0);
        let (target, left) = without(survivor, &prior_numbers, &prior_former)?;
        let keep = match self.find(&target, &left)? {
            Some(at) => at,
            None => self.created(&left, None, change),
        };
        let mut gone = Vec::new();
        let mut unknown = Vec::new();
        for number in &prior_numbers {
            let bearers = self.bearers(number)?;
            if bearers.is_empty() {
                unknown.push(number.clone());
            }
            for at in bearers {
                self.read(at)?;
                if !gone.contains(&at) {
                    gone.push(at);
                }
            }
        }
        if gone.is_empty() {
            gone = self.formerly_known(&prior_former)?;
        }
        // a number that was taken over by the survivor still leads to the prior it came from
        if gone.len() > 1 {
            gone.retain(|at| *at != keep);
        }
        if gone == [keep] {
            return self.both_are_one(keep, &target, &prior_numbers);
        }
        if gone.is_empty() {
            gone.push(self.created(&prior.1, None, change));
        } else if !unknown.is_empty() {
            let first = gone[0];
            self.edit(first, change, |patient| add_identifiers(patient, &prior.1, &unknown));
        }
        let mut effect = Effect::Unchanged;
        for at in gone {
            effect = self.replace_patient(at, keep, change)?.unwrap_or(effect);
        }
        Ok(Planned::Draft(keep, effect))
    }

    /// The Patients that have a number under a URI that its authority had before.
    fn formerly_known(&mut self, former: &[Match]) -> Result<Vec<usize>, Error> {
        let mut found = Vec::new();
        for number in former {
            for at in self.bearers(number)? {
                self.read(at)?;
                if !found.contains(&at) {
                    found.push(at);
                }
            }
        }
        Ok(found)
    }

    /// The prior number is one of the survivor's already.
    fn both_are_one(&mut self, keep: usize, target: &Target, prior: &[Match]) -> Result<Planned, Error> {
        let Some(patient) = &self.drafts[keep].content else {
            return Ok(Planned::Draft(keep, Effect::Unchanged));
        };
        let bears = |number: &Match| {
            identifier_list(patient).iter().any(|known| {
                known["system"].as_str() == number.system.as_deref()
                    && known["value"].as_str() == Some(&number.value)
            })
        };
        let has_both = numbers_of(target).iter().any(bears) && prior.iter().any(bears);
        if has_both {
            let text = "both numbers are of one patient already";
            let issue = Issue::warning(IssueCode::Informational, text).at("Patient.identifier");
            self.remark(RemarkKind::LeftOut, issue);
            return Ok(Planned::Draft(keep, Effect::Unchanged));
        }
        let text = "the surviving patient was itself replaced by the prior one; undo that merge first (Patient.link)";
        Err(Error::refused(
            ErrorKind::Conflict,
            Issue::error(IssueCode::Conflict, text).hl7(204).at("Patient.link"),
        ))
    }

    /// Links the two; `None` when they are linked already.
    fn replace_patient(
        &mut self,
        gone: usize,
        keep: usize,
        change: &Change,
    ) -> Result<Option<Effect>, Error> {
        let (survivor, prior) = (self.reference(keep), self.reference(gone));
        match self.replaced_by(gone) {
            Some(id) if id == self.drafts[keep].id => return Ok(None),
            Some(id) => {
                let next = self.by_id(patient_type(), &id)?;
                let end = match next {
                    Some(next) => self.follow(next)?,
                    None => gone,
                };
                if end == keep {
                    return Ok(None);
                }
                let text = "the prior patient was merged into another one before; correct Patient.link first";
                let issue = Issue::error(IssueCode::Conflict, text).hl7(204).at("Patient.link");
                return Err(Error::refused(ErrorKind::Conflict, issue));
            }
            None => {}
        }
        self.edit(gone, change, |patient| {
            patient.set("active", Value::Bool(false));
            link(patient, &survivor, "replaced-by");
        });
        self.read(keep)?;
        self.edit(keep, change, |patient| link(patient, &prior, "replaces"));
        Ok(Some(Effect::Updated))
    }

    /// Something of another patient becomes this patient's.
    pub(super) fn move_to(
        &mut self,
        target: &Target,
        patient: &str,
        change: &Change,
    ) -> Result<Planned, Error> {
        let of = target.resource_type();
        let Some(at) = self.find(target, &Resource::new(of))? else {
            let text = "what is to be moved is not known";
            let issue = Issue::error(IssueCode::NotFound, text).hl7(204).at(of.name());
            return Err(Error::refused(ErrorKind::NotFound, issue));
        };
        let Some(to) = self.urls.get(patient).copied() else {
            return Err(Error::unavailable("a move names no change of its submission"));
        };
        self.read(at)?;
        let reference = json!({ "reference": self.reference(to) });
        let member = self.patient_member(at);
        self.edit(at, change, |resource| resource.set(member, reference));
        Ok(Planned::Draft(at, Effect::Updated))
    }

    /// The id that `link` replaced-by of a Patient names.
    pub(super) fn replaced_by(&self, at: usize) -> Option<String> {
        self.drafts[at].content.as_ref().and_then(|patient| self.replacement(patient))
    }

    fn replacement(&self, patient: &Resource) -> Option<String> {
        let links = patient.get("link")?.as_array()?;
        let link = links.iter().find(|link| link["type"].as_str() == Some("replaced-by"))?;
        self.id_of_reference(link["other"]["reference"].as_str()?, "Patient")
    }

    /// Who replaces a Patient from the version that is written on, when that changes.
    pub(super) fn new_successor(&mut self, at: usize) -> Result<Option<Option<Successor>>, Error> {
        if self.drafts[at].resource_type != patient_type() || self.drafts[at].prepared.is_none() {
            return Ok(None);
        }
        let was = self.drafts[at].base.as_ref().and_then(|base| base.head.successor);
        let Some(id) = self.replaced_by(at) else { return Ok(was.map(|_| None)) };
        let Some(to) = self.by_id(patient_type(), &id)? else { return Ok(was.map(|_| None)) };
        let rid = self.drafts[to].base.as_ref().map(|base| base.head.rid);
        if rid.is_some() && rid == was {
            return Ok(None);
        }
        let mut next = to;
        for _ in 0..SUCCESSORS_MAX {
            if next == at {
                let text = "the patient would be replaced by itself";
                let issue = Issue::error(IssueCode::Conflict, text).hl7(204).at("Patient.link");
                return Err(Error::refused(ErrorKind::Conflict, issue));
            }
            let Some(id) = self.replaced_by(next) else { break };
            let Some(further) = self.by_id(patient_type(), &id)? else { break };
            next = further;
        }
        Ok(Some(Some(rid.map_or(Successor::Draft(to), Successor::Row))))
    }

    /// Whether two resources are the same person's: the Patient with this id, and a draft.
    pub(super) fn is_same_person(&mut self, id: &str, patient: usize) -> Result<bool, Error> {
        if self.drafts[patient].id == id {
            return Ok(true);
        }
        let found = self.look(Lookup::Id(patient_type(), id.to_owned()))?;
        let Some(rid) = found.first() else { return Ok(false) };
        let at = self.known(*rid)?;
        Ok(self.follow(at)? == self.follow(patient)?)
    }
}

/// The numbers of a target.
fn numbers_of(target: &Target) -> Vec<Match> {
    match target {
        Target::Patient(numbers) => numbers.numbers.iter().map(patient_match).collect(),
        Target::Match(wanted) => vec![wanted.clone()],
        _ => Vec::new(),
    }
}

/// The numbers of a target under the URIs that their authorities had before.
fn former_of(target: &Target) -> Vec<Match> {
    match target {
        Target::Patient(numbers) => numbers.former.iter().map(patient_match).collect(),
        _ => Vec::new(),
    }
}

/// The survivor without the prior's numbers: a sender may list all numbers that the survivor has from now on.
fn without(
    survivor: &(Target, Resource),
    prior: &[Match],
    prior_former: &[Match],
) -> Result<(Target, Resource), Error> {
    let (target, resource) = survivor;
    if numbers_of(target).iter().all(|number| prior.contains(number)) {
        let text = "a patient cannot be merged into itself";
        let issue = Issue::error(IssueCode::Conflict, text).hl7(204).at("Patient.identifier");
        return Err(Error::refused(ErrorKind::Conflict, issue));
    }
    let Target::Patient(numbers) = target else { return Ok((target.clone(), resource.clone())) };
    let mut numbers = numbers.clone();
    numbers.numbers.retain(|number| !prior.contains(&patient_match(number)));
    numbers.former.retain(|number| !prior_former.contains(&patient_match(number)));
    let is_prior = |identifier: &Value| {
        prior.iter().any(|number| {
            identifier["system"].as_str() == number.system.as_deref()
                && identifier["value"].as_str() == Some(&number.value)
        })
    };
    let mut resource = resource.clone();
    let kept: Vec<Value> =
        identifier_list(&resource).iter().filter(|identifier| !is_prior(identifier)).cloned().collect();
    resource.set("identifier", Value::Array(kept));
    Ok((Target::Patient(numbers), resource))
}

/// Adds those identifiers of a resource that are among the numbers.
fn add_identifiers(patient: &mut Resource, from: &Resource, numbers: &[Match]) {
    let mut list = identifier_list(patient).to_vec();
    let wanted = |identifier: &&Value| {
        numbers.iter().any(|number| {
            identifier["system"].as_str() == number.system.as_deref()
                && identifier["value"].as_str() == Some(&number.value)
        })
    };
    list.extend(identifier_list(from).iter().filter(wanted).cloned());
    patient.set("identifier", Value::Array(list));
}

/// Adds a Patient.link once.
fn link(patient: &mut Resource, other: &str, kind: &str) {
    let entry = json!({ "other": { "reference": other }, "type": kind });
    match patient.object_mut().get_mut("link") {
        Some(Value::Array(links)) if links.contains(&entry) => {}
        Some(Value::Array(links)) => links.push(entry),
        _ => patient.set("link", Value::Array(vec![entry])),
    }
}

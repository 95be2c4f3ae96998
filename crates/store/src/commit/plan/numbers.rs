//! Which it is: the resource that the keys of a change name, the most trusted first.

use std::borrow::Cow;
use std::collections::HashSet;

use hilum_fhir::{Issue, IssueCode, Key, Keys, Match, Resource};
use serde_json::{Value, json};

use super::planner::Planner;
use crate::query::identifiers::{identifier_list, type_code};
use crate::query::lookup::{Lookup, patient_type, replaced_ids};
use crate::{Error, ErrorKind};

/// Pairs of codings that are compared one by one.
const FEW_PAIRS: usize = 64;

/// Whose resources a number may name.
struct Scope {
    /// The draft of the patient; `None` = the message names none.
    patient: Option<usize>,
    /// Its id and the ids of those it replaced; none when it is new, because nothing can be its then.
    ids: Vec<String>,
}

impl Planner<'_> {
    /// The resource that the first key with a hit names.
    pub(super) fn by_keys(&mut self, keys: &Keys, said: &Resource) -> Result<Option<usize>, Error> {
        let scope = self.scope(keys)?;
        for key in &keys.keys {
            let found = match key {
                Key::Number(wanted, type_code) => {
                    self.by_number(keys, &scope, wanted, type_code.as_deref(), said)?
                }
                Key::Former(wanted) => self.by_known_number(keys, &scope, wanted, said)?,
                Key::Bare(value, type_code) => {
                    self.by_bare_number(keys, &scope, value, type_code.as_deref(), said)?
                }
                Key::Under { parent, system, value, former } => {
                    self.by_parent(keys, parent, system, value, former.as_ref())?
                }
            };
            if let Some(at) = found {
                self.read(at)?;
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    fn scope(&mut self, keys: &Keys) -> Result<Scope, Error> {
        let patient = keys.patient.as_ref().and_then(|url| self.urls.get(url)).copied();
        let mut ids = Vec::new();
        if let Some(at) = patient {
            let at = self.follow(at)?;
            ids = self.ids_of(at)?;
        }
        Ok(Scope { patient, ids })
    }

    /// The id of a resource that is stored, and for a Patient those of the Patients it replaced.
    fn ids_of(&mut self, at: usize) -> Result<Vec<String>, Error> {
        let Some(rid) = self.drafts[at].base.as_ref().map(|base| base.head.rid) else {
            return Ok(Vec::new());
        };
        let mut ids = vec![self.drafts[at].id.clone()];
        if self.drafts[at].resource_type == patient_type() && !self.look(Lookup::Replaced(rid))?.is_empty() {
            ids.extend(replaced_ids(self.db, rid)?);
        }
        Ok(ids)
    }

    fn by_number(
        &mut self,
        keys: &Keys,
        scope: &Scope,
        wanted: &Match,
        type_code: Option<&str>,
        said: &Resource,
    ) -> Result<Option<usize>, Error> {
        if let Some(at) = self.by_known_number(keys, scope, wanted, said)? {
            return Ok(Some(at));
        }
        // the same thing may have come before without its authority, when the patient is not new
        if scope.ids.is_empty() {
            return Ok(None);
        }
        let bare = Match { system: None, ..wanted.clone() };
        for at in self.bearers(&bare)? {
            self.read(at)?;
            let fits = self.drafts[at].content.as_ref().is_some_and(|content| {
                bears(content, &bare.value, type_code) && !is_told_apart(keys, content, said)
            });
            if fits && self.is_surely_of(at, scope)? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// What bears a number with its authority. Refused when it is another patient's.
    fn by_known_number(
        &mut self,
        keys: &Keys,
        scope: &Scope,
        wanted: &Match,
        said: &Resource,
    ) -> Result<Option<usize>, Error> {
        let mut is_known = false;
        for at in self.bearers(wanted)? {
            self.read(at)?;
            let Some(content) = &self.drafts[at].content else { continue };
            if is_told_apart(keys, content, said) {
                continue;
            }
            is_known = true;
            if self.is_of(at, scope)? {
                return Ok(Some(at));
            }
        }
        if is_known {
            let text = "the number belongs to another patient; correct it, or move what has it: a visit by A45, anything over FHIR";
            let issue = Issue::error(IssueCode::Conflict, text).hl7(204);
            return Err(Error::refused(
                ErrorKind::Conflict,
                issue.at(format!("{}.identifier", keys.resource_type)),
            ));
        }
        Ok(None)
    }

    /// A number without an authority names only what is this patient's, and what the same sender or the same service code speaks of.
    fn by_bare_number(
        &mut self,
        keys: &Keys,
        scope: &Scope,
        value: &str,
        type_code: Option<&str>,
        said: &Resource,
    ) -> Result<Option<usize>, Error> {
        let mut candidates = self.written_with_value(keys.resource_type, value);
        self.spend(candidates.len())?;
        for id in &scope.ids {
            let wanted = Lookup::OfPatient(keys.resource_type, value.to_owned(), id.clone());
            for rid in self.look(wanted)? {
                let at = self.load(rid)?;
                if !candidates.contains(&at) {
                    candidates.push(at);
                }
            }
        }
        for at in candidates {
            let Some(content) = &self.drafts[at].content else { continue };
            let fits = bears(content, value, type_code) && !is_told_apart(keys, content, said);
            let is_sure = !keys.by_code || (has_code(content) && has_code(said));
            if fits && (is_sure || self.is_of_sender(at)?) && self.is_surely_of(at, scope)? {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// Whether the sender of this message spoke of a resource before, or makes it now.
    fn is_of_sender(&mut self, at: usize) -> Result<bool, Error> {
        let Some(head) = self.drafts[at].base.as_ref().map(|base| base.head) else { return Ok(true) };
        match (head.sender, self.speaker.sender) {
            (Some(known), Some(sender)) if known != sender => {
                Ok(!self.look(Lookup::Heard(head.rid, sender))?.is_empty())
            }
            _ => Ok(true),
        }
    }

    fn by_parent(
        &mut self,
        keys: &Keys,
        parent: &str,
        system: &str,
        value: &str,
        former: Option<&Match>,
    ) -> Result<Option<usize>, Error> {
        let Some(parent) = self.urls.get(parent).copied() else { return Ok(None) };
        let own = self.drafts[parent].id.clone();
        // what hangs on a new resource can only be of this submission
        let stored = self.ids_of(parent)?;
        for id in std::iter::once(&own).chain(stored.iter().filter(|id| **id != own)) {
            let wanted = Match {
                resource_type: keys.resource_type,
                system: Some(system.to_owned()),
                value: format!("{id}|{value}"),
            };
            let found = if stored.is_empty() { self.written_with(&wanted) } else { self.bearers(&wanted)? };
            if let Some(at) = found.first() {
                return Ok(Some(*at));
            }
        }
        match former.filter(|_| !stored.is_empty()) {
            Some(former) => Ok(self.bearers(former)?.first().copied()),
            None => Ok(None),
        }
    }

    /// Whether a resource may be one of the patient: it is, or it is nobody's, or the message names nobody.
    fn is_of(&mut self, at: usize, scope: &Scope) -> Result<bool, Error> {
        let Some(patient) = scope.patient else { return Ok(true) };
        match self.drafts[at].content.as_ref().and_then(|content| self.patient_id_of(content)) {
            Some(id) => self.is_same_person(&id, patient),
            None => Ok(true),
        }
    }

    /// Whether a resource is of the patient that the message names.
    fn is_surely_of(&mut self, at: usize, scope: &Scope) -> Result<bool, Error> {
        let Some(patient) = scope.patient else { return Ok(false) };
        match self.drafts[at].content.as_ref().and_then(|content| self.patient_id_of(content)) {
            Some(id) => self.is_same_person(&id, patient),
            None => Ok(false),
        }
    }

    /// The resource with the identifiers that are composed under other resources of the submission.
    pub(super) fn composed<'r>(&self, keys: &Keys, said: &'r Resource) -> Cow<'r, Resource> {
        let mut resource = Cow::Borrowed(said);
        for key in &keys.keys {
            let Key::Under { parent, system, value, .. } = key else { continue };
            let Some(parent) = self.urls.get(parent) else { continue };
            let value = format!("{}|{value}", self.drafts[*parent].id);
            let mut list = identifier_list(&resource).to_vec();
            list.push(json!({ "system": system, "value": value }));
            resource.to_mut().set("identifier", Value::Array(list));
        }
        resource
    }
}

/// Whether a resource has a number of this value and type.
fn bears(resource: &Resource, value: &str, code: Option<&str>) -> bool {
    let is_it = |identifier: &Value| {
        identifier["value"].as_str() == Some(value)
            && (code.is_none() || type_code(identifier).is_none_or(|known| Some(known) == code))
    };
    identifier_list(resource).iter().any(is_it)
}

/// Whether the service code says that a resource with the same number is another one.
fn is_told_apart(keys: &Keys, known: &Resource, said: &Resource) -> bool {
    keys.by_code && !same_code(known, said)
}

fn has_code(resource: &Resource) -> bool {
    resource.get("code").is_some_and(Value::is_object)
}

/// Whether two resources are of one service: a coding in common, or where one has none the same text. One without a code may be any.
fn same_code(one: &Resource, other: &Resource) -> bool {
    let (Some(one), Some(other)) = (one.get("code"), other.get("code")) else { return true };
    let (ones, others) = (codings(one), codings(other));
    if ones.is_empty() || others.is_empty() {
        return one["text"].as_str().is_some() && one["text"] == other["text"];
    }
    // a message gives few codings, a client may give thousands
    if ones.len() * others.len() <= FEW_PAIRS {
        return ones.iter().any(|coding| others.contains(coding));
    }
    let others: HashSet<_> = others.into_iter().collect();
    ones.iter().any(|coding| others.contains(coding))
}

/// System and code of each coding of a CodeableConcept.
fn codings(concept: &Value) -> Vec<(Option<&str>, &str)> {
    let list = concept["coding"].as_array().map_or(&[][..], Vec::as_slice);
    list.iter().filter_map(|coding| Some((coding["system"].as_str(), coding["code"].as_str()?))).collect()
}

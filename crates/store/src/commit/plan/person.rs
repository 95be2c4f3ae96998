//! Whose it is: the Patient that the numbers of a message lead to. A number alone names nobody; nothing is guessed.

use hilum_fhir::search::normal_form;
use hilum_fhir::{Clue, Disagreement, Issue, IssueCode, Match, PatientNumbers, Resource, ResourceType};
use serde_json::Value;

use super::RemarkKind;
use super::planner::{Person, Planner, patient_match};
use crate::query::identifiers::{identifier_list, type_code};
use crate::query::lookup::{Lookup, SUCCESSORS_MAX, patient_type};
use crate::{Error, ErrorKind};

/// System of the number of a Patient that is kept apart because the numbers of a message lead to several.
const APART: &str = "urn:hilum:attention:numbers-of-several-patients";
/// Types of numbers that a modality repeats without their authority (HL7 table 0203).
const RECORD_NUMBERS: [&str; 2] = ["MR", "PI"];

/// By what a number without an authority was joined with a Patient known under another system.
enum Joined {
    ByOrderOrStudy,
    ByBirthDateAndName,
}

impl Planner<'_> {
    /// The Patient that all numbers lead to.
    pub(super) fn person(&mut self, numbers: &PatientNumbers, said: &Resource) -> Result<Person, Error> {
        let mut found: Vec<usize> = Vec::new();
        let (mut learns, mut others) = (false, Vec::new());
        for number in &numbers.numbers {
            let number = patient_match(number);
            let bearers = self.bearers(&number)?;
            learns |= bearers.is_empty();
            let mut is_own = bearers.is_empty();
            for bearer in bearers {
                let at = self.follow(bearer)?;
                is_own |= at == bearer;
                if !found.contains(&at) {
                    found.push(at);
                }
            }
            if !is_own {
                others.push(number);
            }
        }
        if found.is_empty() {
            // nobody has one of them under the system that their authority has now
            for number in &numbers.former {
                for bearer in self.bearers(&patient_match(number))? {
                    let at = self.follow(bearer)?;
                    if at != bearer {
                        others.extend(
                            numbers.numbers.iter().filter(|(_, value)| *value == number.1).map(patient_match),
                        );
                    }
                    if !found.contains(&at) {
                        found.push(at);
                    }
                }
            }
        }
        if found.len() > 1 {
            found = self.active(found)?;
        }
        match found.as_slice() {
            [at] => Ok(Person::Known { at: *at, learns, others }),
            [] if numbers.join => self.joined(numbers, said),
            [] => Ok(Person::Unknown),
            several => self.disagreement(numbers, several),
        }
    }

    /// Those that are active; all when none is.
    fn active(&mut self, found: Vec<usize>) -> Result<Vec<usize>, Error> {
        let mut active = Vec::with_capacity(found.len());
        for at in &found {
            self.read(*at)?;
            let content = self.drafts[*at].content.as_ref();
            if content.is_some_and(|patient| patient.get("active") != Some(&Value::Bool(false))) {
                active.push(*at);
            }
        }
        Ok(if active.is_empty() { found } else { active })
    }

    fn disagreement(&mut self, numbers: &PatientNumbers, several: &[usize]) -> Result<Person, Error> {
        let between: Vec<String> = several.iter().map(|at| self.reference(*at)).collect();
        let between = between.join(", ");
        match numbers.disagreement {
            Disagreement::Refuse => {
                let text = format!(
                    "the numbers belong to more than one patient ({between}); correct or merge the patients, then send again"
                );
                let issue = Issue::error(IssueCode::Duplicate, text).hl7(205).at("Patient.identifier");
                Err(Error::refused(ErrorKind::Conflict, issue))
            }
            Disagreement::KeepApart => {
                let text = format!(
                    "the numbers belong to more than one patient ({between}); what came is kept with a patient of its own"
                );
                let issue = Issue::warning(IssueCode::Duplicate, text).at("Patient.identifier");
                self.remark(RemarkKind::Conflict, issue);
                let mut all: Vec<String> =
                    numbers.numbers.iter().map(|(system, value)| format!("{system}|{value}")).collect();
                all.sort_unstable();
                let value = all.join(" ");
                Ok(Person::Apart(Match {
                    resource_type: patient_type(),
                    system: Some(APART.to_owned()),
                    value,
                }))
            }
        }
    }

    /// The Patient that leads on from one: itself when nobody replaced it, or whoever did was deleted.
    pub(super) fn follow(&mut self, mut at: usize) -> Result<usize, Error> {
        for _ in 0..SUCCESSORS_MAX {
            let next = if self.drafts[at].touched {
                match self.replaced_by(at) {
                    Some(id) => self.by_id(patient_type(), &id)?,
                    None => None,
                }
            } else {
                match self.drafts[at].base.as_ref().and_then(|base| base.head.successor) {
                    Some(rid) => self.still_there(rid)?,
                    None => None,
                }
            };
            match next {
                Some(next) if next != at => at = next,
                _ => break,
            }
        }
        Ok(at)
    }

    /// The draft of a row, when it was not deleted; that is looked at again in the transaction.
    fn still_there(&mut self, rid: i64) -> Result<Option<usize>, Error> {
        let at = self.known(rid)?;
        let draft = &self.drafts[at];
        if draft.touched {
            return Ok(Some(at).filter(|_| draft.content.is_some()));
        }
        let found = self.look(Lookup::Id(patient_type(), draft.id.clone()))?;
        Ok(Some(at).filter(|_| !found.is_empty()))
    }

    /// Joins a number without an authority with a Patient known by the same value under another system, and the reverse. Never on the value
    /// alone.
    fn joined(&mut self, numbers: &PatientNumbers, said: &Resource) -> Result<Person, Error> {
        let found = match self.named_by_clues(numbers)? {
            Some(at) => Some((at, Joined::ByOrderOrStudy)),
            None => self.same_person(numbers, said)?.map(|at| (at, Joined::ByBirthDateAndName)),
        };
        let Some((at, by)) = found else { return Ok(Person::Unknown) };
        let text = match by {
            Joined::ByOrderOrStudy => {
                "a number without an authority was joined with the patient of the order or study named, who has it"
            }
            Joined::ByBirthDateAndName => {
                "a number without an authority was joined with the patient who has it, the birth date and the family name"
            }
        };
        let issue = Issue::warning(IssueCode::Informational, text).at("Patient.identifier");
        self.remark(RemarkKind::Joined, issue);
        Ok(Person::Known { at, learns: true, others: Vec::new() })
    }

    /// The patient of an order or study the message names, when it has one of the values.
    fn named_by_clues(&mut self, numbers: &PatientNumbers) -> Result<Option<usize>, Error> {
        for clue in &numbers.clues {
            let Some(at) = self.patient_of(clue)? else { continue };
            let fits = |number: &(String, String)| self.may_be_joined(at, numbers, number);
            if numbers.numbers.iter().any(fits) {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    fn patient_of(&mut self, clue: &Clue) -> Result<Option<usize>, Error> {
        let mut found: Vec<usize> = Vec::new();
        match clue {
            Clue::Study(uid) => {
                for rid in self.look(Lookup::Study(uid.clone()))? {
                    found.push(self.known(rid)?);
                }
                let order = Match {
                    resource_type: order_type(),
                    system: Some("urn:dicom:uid".to_owned()),
                    value: format!("urn:oid:{uid}"),
                };
                found.extend(self.patients_of(&order)?);
            }
            Clue::Resource(wanted) => {
                found.extend(self.patients_of(wanted)?);
                // the order itself may come after the images that name it
                if found.is_empty() && wanted.resource_type.name() == "ServiceRequest" {
                    for rid in self.look(Lookup::StudiesOfOrder(wanted.clone()))? {
                        found.push(self.known(rid)?);
                    }
                }
            }
        }
        let mut patients: Vec<usize> = Vec::new();
        for at in found {
            let at = self.follow(at)?;
            if !patients.contains(&at) {
                patients.push(at);
            }
        }
        let [one] = patients.as_slice() else { return Ok(None) };
        self.read(*one)?;
        Ok(Some(*one))
    }

    /// The patients of the resources with an identifier.
    fn patients_of(&mut self, wanted: &Match) -> Result<Vec<usize>, Error> {
        let mut found = Vec::new();
        for at in self.bearers(wanted)? {
            self.read(at)?;
            let patient = self.drafts[at].content.as_ref().and_then(|r| self.patient_id_of(r));
            if let Some(id) = patient {
                found.extend(self.by_id(patient_type(), &id)?);
            }
        }
        Ok(found)
    }

    /// Whether a Patient bears the value of a number in such a way that both may be one: the number or the identifier has no authority, and no
    /// other number of the same authority speaks against it.
    fn may_be_joined(&self, at: usize, numbers: &PatientNumbers, (system, value): &(String, String)) -> bool {
        let Some(patient) = &self.drafts[at].content else { return false };
        let list = identifier_list(patient);
        let is_bare = *system == numbers.domain;
        let bears = list.iter().any(|identifier| {
            identifier["value"].as_str() == Some(value)
                && type_code(identifier).is_none_or(|code| RECORD_NUMBERS.contains(&code))
                && (is_bare || identifier["system"].as_str() == Some(&numbers.domain))
        });
        let contradicts = !is_bare && list.iter().any(|known| known["system"].as_str() == Some(system));
        bears && !contradicts
    }

    /// The one active Patient that has one of the values, the birth date and the family name.
    fn same_person(&mut self, numbers: &PatientNumbers, said: &Resource) -> Result<Option<usize>, Error> {
        let Some(person) = Demographics::of(said) else { return Ok(None) };
        let mut same: Vec<usize> = Vec::new();
        for number in &numbers.numbers {
            let (system, value) = number;
            let bearers = if *system == numbers.domain {
                self.look(Lookup::Value(patient_type(), value.clone()))?
            } else if is_record_number(said, system, value) {
                let bare = patient_match(&(numbers.domain.clone(), value.clone()));
                self.look(Lookup::Match(bare))?
            } else {
                Vec::new()
            };
            for rid in bearers {
                let at = self.known(rid)?;
                let at = self.follow(at)?;
                self.read(at)?;
                let is_same = |patient: &Resource| {
                    patient.get("active") != Some(&Value::Bool(false)) && person.is_of(patient)
                };
                let fits = self.drafts[at].content.as_ref().is_some_and(is_same)
                    && self.may_be_joined(at, numbers, number);
                if fits && !same.contains(&at) {
                    same.push(at);
                }
            }
        }
        Ok(match same.as_slice() {
            [one] => Some(*one),
            _ => None,
        })
    }
}

fn order_type() -> ResourceType {
    ResourceType::from_name("ServiceRequest").unwrap_or_else(|| unreachable!("a type of fhir r4"))
}

/// Whether a number of the message is one that a modality would repeat without its authority.
fn is_record_number(said: &Resource, system: &str, value: &str) -> bool {
    let is_it = |identifier: &&Value| {
        (identifier["system"].as_str(), identifier["value"].as_str()) == (Some(system), Some(value))
    };
    let list = identifier_list(said);
    list.iter().find(is_it).and_then(type_code).is_none_or(|code| RECORD_NUMBERS.contains(&code))
}

/// What must be the same for two records to be of one person: the whole birth date and a family name.
struct Demographics {
    birth_date: String,
    families: Vec<String>,
}

impl Demographics {
    fn of(patient: &Resource) -> Option<Self> {
        let birth_date = patient.get("birthDate")?.as_str().filter(|date| date.len() == 10)?.to_owned();
        let families = families(patient);
        (!families.is_empty()).then_some(Self { birth_date, families })
    }

    fn is_of(&self, patient: &Resource) -> bool {
        patient.get("birthDate").and_then(Value::as_str) == Some(&self.birth_date)
            && families(patient).iter().any(|family| self.families.contains(family))
    }
}

fn families(patient: &Resource) -> Vec<String> {
    let names = patient.get("name").and_then(Value::as_array);
    let names = names.into_iter().flatten();
    names.filter_map(|name| name["family"].as_str()).map(normal_form).filter(|f| !f.is_empty()).collect()
}

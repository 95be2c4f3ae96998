//! What nobody may do by accident: give a resource another patient by an ordinary message, contradict rows by REST, or commit what the
//! validator would refuse.

use hilum_fhir::imaging::{contradictions, imaging_study};
use hilum_fhir::validate::{remove_at, validate};
use hilum_fhir::{Issue, IssueCode, Resource};
use serde_json::Value;

use super::RemarkKind;
use super::planner::Planner;
use crate::commit::imaging::{draw, steps};
use crate::query::lookup::patient_type;
use crate::{Error, ErrorKind};

/// The elements that say whose a resource is.
const PATIENT_MEMBERS: [&str; 2] = ["subject", "patient"];
/// What the messages about a performed step say of its Procedure.
const STEP_MEMBERS: [&str; 4] = ["status", "subject", "performedPeriod", "performedDateTime"];
/// Values that are left out of one resource before it is given up.
const LEFT_OUT_MAX: usize = 50;

impl Planner<'_> {
    /// The id of the Patient that a reference of this submission or a stored one names.
    pub(super) fn id_of_reference(&self, reference: &str, of: &str) -> Option<String> {
        if let Some(at) = self.urls.get(reference) {
            let draft = &self.drafts[*at];
            return (draft.resource_type.name() == of).then(|| draft.id.clone());
        }
        let id = reference.strip_prefix(of)?.strip_prefix('/')?;
        Some(id.split('/').next().unwrap_or(id).to_owned())
    }

    /// The id of the Patient a resource belongs to.
    pub(super) fn patient_id_of(&self, resource: &Resource) -> Option<String> {
        PATIENT_MEMBERS.iter().find_map(|member| {
            let reference = resource.get(member)?["reference"].as_str()?;
            self.id_of_reference(reference, "Patient")
        })
    }

    /// The member of a draft that says whose it is.
    pub(super) fn patient_member(&self, at: usize) -> &'static str {
        let has = |member: &str| self.drafts[at].content.as_ref().is_some_and(|r| r.get(member).is_some());
        PATIENT_MEMBERS.into_iter().find(|member| has(member)).unwrap_or(PATIENT_MEMBERS[0])
    }

    /// A resource never changes its patient by an ordinary message; only merges and moves do that. Replaced Patients are followed on both sides.
    pub(super) fn refuse_other_patient(&mut self, at: usize, said: &Resource) -> Result<(), Error> {
        let Some(said_id) = self.patient_id_of(said) else { return Ok(()) };
        let known = self.drafts[at].content.as_ref().and_then(|content| self.patient_id_of(content));
        let Some(known_id) = known.filter(|known| *known != said_id) else { return Ok(()) };
        let Some(patient) = self.by_id(patient_type(), &said_id)? else { return Ok(()) };
        if self.is_same_person(&known_id, patient)? {
            return Ok(());
        }
        let of = said.resource_type();
        let text =
            "belongs to another patient; correct the number, or move it: a visit by A45, anything over FHIR";
        let issue = Issue::error(IssueCode::Conflict, text).hl7(204).at(format!("{of}.identifier"));
        Err(Error::refused(ErrorKind::Conflict, issue))
    }

    /// What is drawn from rows says what the rows say: a client adds to it, and contradicts nothing.
    pub(super) fn refuse_against_rows(&mut self, at: usize, sent: &Resource) -> Result<(), Error> {
        let Some(rid) = self.drafts[at].base.as_ref().map(|base| base.head.rid) else { return Ok(()) };
        let members = match sent.resource_type().name() {
            "ImagingStudy" => match self.db.study_drawn_as(rid)? {
                Some(key) => match draw::rows(self.db, &key)? {
                    Some(rows) => contradictions(sent, &imaging_study(&rows)),
                    None => Vec::new(),
                },
                None => Vec::new(),
            },
            "Procedure" if steps::is_of_a_step(self.db, self.drafts[at].content.as_ref())? => {
                let stored = self.drafts[at].content.as_ref();
                let differs = |member: &&&str| {
                    stored.is_some_and(|stored| {
                        stored.get(member).is_some() && stored.get(member) != sent.get(member)
                    })
                };
                STEP_MEMBERS.iter().filter(differs).map(|member| (*member).to_owned()).collect()
            }
            _ => Vec::new(),
        };
        if members.is_empty() {
            return Ok(());
        }
        let of = sent.resource_type();
        let issues = members.iter().map(|member| {
            let text =
                "comes from images or performed steps and cannot be changed here; send it as it was read";
            Issue::error(IssueCode::BusinessRule, text).at(format!("{of}.{member}"))
        });
        let issues: Vec<Issue> = issues.collect();
        Err(Error { issues: issues.clone(), ..Error::refused(ErrorKind::Contradiction, issues[0].clone()) })
    }

    /// The content without what the validator refuses. That something is at fault is our bug; it is counted and said. What cannot be without
    /// it is refused as a whole.
    pub(super) fn valid(&mut self, mut content: Resource) -> Result<Resource, Error> {
        let mut issues = validate(&content);
        for _ in 0..LEFT_OUT_MAX {
            let Some(issue) = issues.first() else { return Ok(content) };
            metrics::counter!("hilum_invalid_values_total").increment(1);
            if !remove_at(&mut content, issue) {
                break;
            }
            let text = "a value that fhir does not allow here was left out";
            let left_out =
                Issue { location: issue.location.clone(), ..Issue::warning(IssueCode::Invariant, text) };
            self.remark(RemarkKind::LeftOut, left_out);
            issues = validate(&content);
        }
        match issues.into_iter().next() {
            None => Ok(content),
            Some(issue) => Err(Error::refused(ErrorKind::Conflict, issue.hl7(207))),
        }
    }
}

/// Whether two values name the same thing: used where a reference may have members beside `reference`.
pub(super) fn text_of<'v>(value: &'v Value, member: &str) -> Option<&'v str> {
    value.get(member).and_then(Value::as_str)
}

//! From changes to a plan: targets are found, contents merged, links resolved, versions prepared.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use hilum_fhir::imaging::{Study, set_attention};
use hilum_fhir::merge::{merge, same_content};
use hilum_fhir::{
    Action, Change, Issue, IssueCode, Key, Match, PatientNumbers, Resource, ResourceType, Target, Timestamp,
};
use hilum_rows::Db;
use hilum_rows::row::Ask;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::{Draft, Imaging, Plan, Planned, Remark, RemarkKind, Seen, Speaker};
use crate::commit::apply::prepare;
use crate::query::identifiers::{identifier_list, identifiers};
use crate::query::lookup::{Base, Lookup, Number, base, patient_type};
use crate::{Effect, Error, ErrorKind};

/// A time further ahead of our clock than this is a wrong clock, and orders nothing.
const AHEAD_MAX_MS: i64 = 10 * 60 * 1_000;

/// Identifiers of one resource.
const IDENTIFIERS_MAX: usize = 1_000;

/// The look-ups that a plan of these changes begins with.
pub(crate) fn asks(changes: &[Change]) -> Vec<Ask> {
    let mut asks = Vec::with_capacity(changes.len());
    for change in changes {
        match &change.action {
            Action::Create(_) => {}
            Action::Ensure(target, _)
            | Action::Merge(target, ..)
            | Action::Replace(target, _)
            | Action::Move(target, _)
            | Action::Delete(target) => asks_of(target, &mut asks),
            Action::Supersede { survivor, prior } => {
                asks_of(&survivor.0, &mut asks);
                asks_of(&prior.0, &mut asks);
            }
            Action::Study(study) => asks_of_patient(study, &mut asks),
            Action::Instance(instance) => asks_of_patient(&instance.study, &mut asks),
            Action::Step(step) => step.study.iter().for_each(|study| asks_of_patient(study, &mut asks)),
        }
    }
    asks
}

fn asks_of(target: &Target, asks: &mut Vec<Ask>) {
    match target {
        Target::Id(of, id) => asks.push(Ask::Head(*of, id.clone())),
        Target::Match(wanted) => asks.push(Ask::of(wanted)),
        Target::Patient(numbers) => asks_of_numbers(numbers, asks),
        Target::Keys(keys) => {
            for key in &keys.keys {
                match key {
                    Key::Number(wanted, _) => {
                        asks.push(Ask::of(wanted));
                        asks.push(Ask::of(&Match { system: None, ..wanted.clone() }));
                    }
                    Key::Former(wanted) => asks.push(Ask::of(wanted)),
                    Key::Bare(..) | Key::Under { .. } => {}
                }
            }
        }
        Target::Query(_) => {}
    }
}

fn asks_of_patient(study: &Study, asks: &mut Vec<Ask>) {
    if let Some((numbers, _)) = &study.patient {
        asks_of_numbers(numbers, asks);
    }
}

fn asks_of_numbers(numbers: &PatientNumbers, asks: &mut Vec<Ask>) {
    let all = numbers.numbers.iter().chain(&numbers.former);
    asks.extend(all.map(|number| Ask::of(&patient_match(number))));
}

/// A patient's number as an identifier.
pub(super) fn patient_match((system, value): &(String, String)) -> Match {
    Match { resource_type: patient_type(), system: Some(system.clone()), value: value.clone() }
}

/// Makes the plan of a submission's changes. In a transaction, so that all its look-ups see the same; `newest` is a feed position that was
/// reached before the transaction began.
pub(crate) fn plan(
    db: Db<'_>,
    zone: &TimeZone,
    now: i64,
    newest: u64,
    speaker: Speaker,
    changes: &[Change],
) -> Result<Plan, Error> {
    let mut planner = Planner {
        db,
        zone,
        now,
        speaker,
        drafts: Vec::new(),
        by_id: HashMap::new(),
        by_identifier: HashMap::new(),
        by_value: HashMap::new(),
        urls: HashMap::new(),
        seen: Vec::new(),
        seen_numbers: HashMap::new(),
        steps: 0,
        imaging: Vec::new(),
        remarks: Vec::new(),
    };
    let mut results = Vec::with_capacity(changes.len());
    let mut written = HashSet::new();
    for (number, change) in changes.iter().enumerate() {
        let said = planner.remarks.len();
        let planned = planner.change(change).map_err(|error| error.about(Some(number)))?;
        planner.remarks[said..].iter_mut().for_each(|remark| remark.issue.change = Some(number));
        planner.refuse_twice(&planned, &mut written).map_err(|error| error.about(Some(number)))?;
        if let (Some(url), Planned::Draft(at, _)) = (&change.full_url, &planned) {
            planner.urls.insert(url.clone(), *at);
        }
        results.push(planned);
    }
    planner.finish(results, newest)
}

/// A plan in the making.
pub(super) struct Planner<'c> {
    pub(super) db: Db<'c>,
    pub(super) zone: &'c TimeZone,
    pub(super) now: i64,
    pub(super) speaker: Speaker,
    pub(super) drafts: Vec<Draft>,
    pub(super) by_id: HashMap<(ResourceType, String), usize>,
    /// Resources this submission writes, by their identifiers.
    pub(super) by_identifier: HashMap<Match, Vec<usize>>,
    /// The same by the value alone.
    pub(super) by_value: HashMap<(ResourceType, String), Vec<usize>>,
    /// Full URLs of the changes so far.
    pub(super) urls: HashMap<String, usize>,
    pub(super) seen: Vec<Seen>,
    /// Which of them looked for a number.
    pub(super) seen_numbers: HashMap<Number, usize>,
    /// Steps so far: look-ups and comparisons.
    pub(super) steps: usize,
    imaging: Vec<Imaging>,
    pub(super) remarks: Vec<Remark>,
}

/// What the numbers of a message lead to.
pub(super) enum Person {
    /// This Patient.
    Known {
        at: usize,
        /// It has not all of the numbers yet.
        learns: bool,
        /// Numbers of Patients it replaced. They stay theirs, so that a merge can be undone.
        others: Vec<Match>,
    },
    /// Nobody.
    Unknown,
    /// Several: the submission has a Patient of its own with this identifier.
    Apart(Match),
}

impl Planner<'_> {
    fn change(&mut self, change: &Change) -> Result<Planned, Error> {
        match &change.action {
            Action::Create(resource) => Ok(self.create(resource, None, change)),
            Action::Ensure(target, resource) => self.ensure(target, resource, change),
            Action::Merge(target, resource, clear) => self.merge(target, resource, clear, change),
            Action::Replace(target, resource) => self.replace(target, resource, change),
            Action::Delete(target) => self.delete(target, change),
            Action::Supersede { survivor, prior } => self.supersede(survivor, prior, change),
            Action::Move(target, patient) => self.move_to(target, patient, change),
            Action::Study(study) => {
                let patient = self.patient(study)?;
                Ok(self.imaging(Imaging::Study(study.clone(), patient)))
            }
            Action::Instance(instance) => {
                let patient = self.patient(&instance.study)?;
                Ok(self.imaging(Imaging::Instance(instance.clone(), patient)))
            }
            Action::Step(step) => {
                let patient = match &step.study {
                    Some(study) => self.patient(study)?,
                    None => None,
                };
                Ok(self.imaging(Imaging::Step(step.clone(), patient)))
            }
        }
    }

    /// Refuses a client's second write of one resource in one submission, also when a condition led there: which of them is meant is not known
    /// (R4 http, "Transaction Processing Rules").
    fn refuse_twice(&self, planned: &Planned, written: &mut HashSet<usize>) -> Result<(), Error> {
        let Planned::Draft(at, Effect::Created | Effect::Updated | Effect::Deleted) = planned else {
            return Ok(());
        };
        let draft = &self.drafts[*at];
        if self.speaker.is_message || !draft.touched || written.insert(*at) {
            return Ok(());
        }
        let text = "the transaction writes this resource a second time; write each resource once";
        let issue = Issue::error(IssueCode::Conflict, text).at(draft.resource_type.name());
        Err(Error::refused(ErrorKind::Conflict, issue))
    }

    fn imaging(&mut self, imaging: Imaging) -> Planned {
        self.imaging.push(imaging);
        Planned::Imaging(self.imaging.len() - 1)
    }

    fn create(&mut self, resource: &Resource, id: Option<String>, change: &Change) -> Planned {
        Planned::Draft(self.created(resource, id, change), Effect::Created)
    }

    pub(super) fn created(&mut self, resource: &Resource, id: Option<String>, change: &Change) -> usize {
        let is_new_id = id.is_none();
        let id = id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        let at = self.draft(resource.resource_type(), id, None);
        self.drafts[at].is_new_id = is_new_id;
        let mut resource = resource.clone();
        for (name, value) in &change.defaults {
            if resource.get(name).is_none() {
                resource.set(name, value.clone());
            }
        }
        self.set(at, Some(resource), change);
        at
    }

    /// What is only to exist is looked up, not read.
    fn ensure(&mut self, target: &Target, resource: &Resource, change: &Change) -> Result<Planned, Error> {
        if let Target::Patient(numbers) = target {
            return self.ensure_patient(numbers, resource, change);
        }
        let found = match target {
            Target::Match(wanted) => self.bearers(wanted)?.first().copied(),
            _ => self.find(target, resource)?,
        };
        Ok(match found {
            Some(at) => Planned::Draft(at, Effect::Unchanged),
            None => self.create(resource, target_id(target), change),
        })
    }

    /// A Patient that a message only names: created when unknown, otherwise it learns the numbers it did not have and nothing else.
    fn ensure_patient(
        &mut self,
        numbers: &PatientNumbers,
        resource: &Resource,
        change: &Change,
    ) -> Result<Planned, Error> {
        match self.person(numbers, resource)? {
            Person::Known { at, learns: false, .. } => Ok(Planned::Draft(at, Effect::Unchanged)),
            Person::Known { at, learns: true, others } => {
                self.read(at)?;
                let mut learned = Resource::new(patient_type());
                if let Some(identifiers) = without_numbers(resource, &others).get("identifier") {
                    learned.set("identifier", identifiers.clone());
                }
                let merged = self.drafts[at].content.as_ref().map(|content| merge(content, &learned, &[]));
                if merged.is_some() {
                    self.set(at, merged, change);
                }
                Ok(Planned::Draft(at, Effect::Updated))
            }
            Person::Unknown => Ok(self.create(resource, None, change)),
            Person::Apart(number) => {
                if let Some(at) = self.bearers(&number)?.first() {
                    return Ok(Planned::Draft(*at, Effect::Unchanged));
                }
                let mut apart = resource.clone();
                // its numbers are kept where nothing matches them: they would only make the disagreement larger
                apart.set(
                    "identifier",
                    json!([{ "use": "temp", "system": number.system, "value": number.value }]),
                );
                set_attention(&mut apart, true);
                Ok(self.create(&apart, None, change))
            }
        }
    }

    fn merge(
        &mut self,
        target: &Target,
        resource: &Resource,
        clear: &[String],
        change: &Change,
    ) -> Result<Planned, Error> {
        if let Target::Patient(numbers) = target {
            return match self.person(numbers, resource)? {
                Person::Known { at, others, .. } if others.is_empty() => {
                    self.merge_into(at, resource, clear, change)
                }
                Person::Known { at, others, .. } => {
                    self.merge_into(at, &without_numbers(resource, &others), clear, change)
                }
                Person::Unknown | Person::Apart(_) => Ok(self.create(resource, None, change)),
            };
        }
        let resource = &*match target {
            Target::Keys(keys) => self.composed(keys, resource),
            _ => Cow::Borrowed(resource),
        };
        match self.find(target, resource)? {
            Some(at) => self.merge_into(at, resource, clear, change),
            None => Ok(self.create(resource, target_id(target), change)),
        }
    }

    fn merge_into(
        &mut self,
        at: usize,
        resource: &Resource,
        clear: &[String],
        change: &Change,
    ) -> Result<Planned, Error> {
        self.read(at)?;
        self.refuse_other_patient(at, resource)?;
        if self.is_late(at, change)? {
            let text = "is older than what this sender said before, and changed nothing";
            self.remark(
                RemarkKind::Late,
                Issue::warning(IssueCode::Conflict, text)
                    .at(format!("{}.identifier", resource.resource_type())),
            );
            return Ok(Planned::Draft(at, Effect::Late));
        }
        let merged = self.drafts[at].content.as_ref();
        let merged = merged.map_or_else(|| resource.clone(), |content| merge(content, resource, clear));
        self.set(at, Some(merged), change);
        Ok(Planned::Draft(at, Effect::Updated))
    }

    pub(super) fn remark(&mut self, kind: RemarkKind, issue: Issue) {
        self.remarks.push(Remark { kind, issue });
    }

    /// Whether an event is older than the last one of the same sender; other senders' clocks are no measure.
    fn is_late(&mut self, at: usize, change: &Change) -> Result<bool, Error> {
        let Some(happened) = self.happened(change) else { return Ok(false) };
        let Some(head) = self.drafts[at].base.as_ref().map(|base| base.head) else { return Ok(false) };
        let Some(applied) = head.applied else { return Ok(false) };
        match (head.sender, self.speaker.sender) {
            (Some(known), Some(sender)) if known != sender => {
                let heard = self.look(Lookup::Heard(head.rid, sender))?.first().copied();
                self.drafts[at].heard = heard;
                Ok(heard.is_some_and(|heard| happened < heard))
            }
            _ => Ok(happened < applied),
        }
    }

    /// When the sender says it happened; `None` when its clock is wrong.
    fn happened(&self, change: &Change) -> Option<i64> {
        change
            .happened
            .map(Timestamp::millis)
            .filter(|happened| *happened <= self.speaker.received_ms + AHEAD_MAX_MS)
    }

    fn replace(&mut self, target: &Target, resource: &Resource, change: &Change) -> Result<Planned, Error> {
        let found = self.find(target, resource)?;
        self.check(found, target, change)?;
        if let (Some(at), Target::Query(_), Some(id)) = (found, target, resource.id())
            && self.drafts[at].id != id
        {
            let issue = Issue::error(
                IssueCode::Invalid,
                "the condition matches a resource with another id than the one sent",
            );
            let place = format!("{}.id", resource.resource_type());
            return Err(Error::refused(ErrorKind::Precondition, issue.at(place)));
        }
        let Some(at) = found else {
            let id = match target {
                Target::Id(_, id) => Some(id.clone()),
                Target::Query(_) => resource.id().map(str::to_owned),
                _ => None,
            };
            if let (Target::Query(_), Some(id)) = (target, &id)
                && self.by_id(resource.resource_type(), id)?.is_some()
            {
                let issue = Issue::error(
                    IssueCode::Conflict,
                    "a resource with this id exists and does not match the condition",
                );
                let place = format!("{}.id", resource.resource_type());
                return Err(Error::refused(ErrorKind::Conflict, issue.at(place)));
            }
            return self.revive(resource, id, change);
        };
        if self.speaker.is_message {
            self.refuse_other_patient(at, resource)?;
        } else {
            self.refuse_against_rows(at, resource)?;
        }
        self.set(at, Some(resource.clone()), change);
        Ok(Planned::Draft(at, Effect::Updated))
    }

    /// A new resource, or a deleted one under its old id.
    fn revive(&mut self, resource: &Resource, id: Option<String>, change: &Change) -> Result<Planned, Error> {
        let Some(id) = id else { return Ok(self.create(resource, None, change)) };
        let base = base(self.db, resource.resource_type(), &id, self.zone)?;
        let at = self.draft(resource.resource_type(), id, base);
        self.set(at, Some(resource.clone()), change);
        Ok(Planned::Draft(at, Effect::Created))
    }

    fn delete(&mut self, target: &Target, change: &Change) -> Result<Planned, Error> {
        let found = self.find(target, &Resource::new(target.resource_type()))?;
        if change.precondition.if_match.is_some() {
            self.check(found, target, change)?;
        }
        let at = match (found, target) {
            (Some(at), _) => at,
            (None, Target::Id(resource_type, id)) => {
                let base = base(self.db, *resource_type, id, self.zone)?;
                self.draft(*resource_type, id.clone(), base)
            }
            (None, _) => self.draft(target.resource_type(), String::new(), None),
        };
        if found.is_some() {
            self.set(at, None, change);
        }
        Ok(Planned::Draft(at, Effect::Deleted))
    }

    /// The patient of a study: created when unknown.
    fn patient(&mut self, study: &Study) -> Result<Option<usize>, Error> {
        let Some((numbers, resource)) = &study.patient else { return Ok(None) };
        let ensure =
            Change::new(Action::Ensure(Target::Patient(Box::new(numbers.clone())), resource.clone()));
        match self.change(&ensure)? {
            Planned::Draft(at, _) => Ok(Some(at)),
            Planned::Imaging(_) => Ok(None),
        }
    }

    /// If-Match and If-None-Match.
    fn check(&self, found: Option<usize>, target: &Target, change: &Change) -> Result<(), Error> {
        let refuse = |code, text: &str| {
            let place = target.resource_type().name();
            Err(Error::refused(ErrorKind::Precondition, Issue::error(code, text).at(place)))
        };
        if change.precondition.must_not_exist && found.is_some() {
            return refuse(IssueCode::Conflict, "the resource exists already (If-None-Match)");
        }
        let Some(wanted) = &change.precondition.if_match else { return Ok(()) };
        let current = found.and_then(|at| self.drafts[at].base.as_ref()).map(|base| base.head.version);
        match current {
            None => refuse(IssueCode::Conflict, "the resource does not exist (If-Match)"),
            Some(version) if !wanted.is_empty() && !wanted.contains(&version) => refuse(
                IssueCode::Conflict,
                "the resource has another version by now (If-Match); read it again",
            ),
            Some(_) => Ok(()),
        }
    }

    pub(super) fn draft(&mut self, resource_type: ResourceType, id: String, base: Option<Base>) -> usize {
        if let Some(at) = self.by_id.get(&(resource_type, id.clone())) {
            return *at;
        }
        let content = base.as_ref().filter(|base| !base.head.deleted).and_then(|base| base.resource.clone());
        self.by_id.insert((resource_type, id.clone()), self.drafts.len());
        self.drafts.push(Draft {
            resource_type,
            id,
            base,
            unread: false,
            is_new_id: false,
            content,
            entries: None,
            known_as: HashSet::new(),
            touched: false,
            clock: None,
            heard: None,
            prepared: None,
        });
        self.drafts.len() - 1
    }

    pub(super) fn set(&mut self, at: usize, content: Option<Resource>, change: &Change) {
        let happened = self.happened(change).filter(|_| !change.in_passing);
        self.put(at, content);
        let draft = &mut self.drafts[at];
        draft.clock = draft.clock.max(happened);
    }

    /// Sets the content, which says nothing of any sender's time.
    pub(super) fn put(&mut self, at: usize, content: Option<Resource>) {
        for identifier in content.iter().flat_map(identifiers) {
            if !self.drafts[at].known_as.insert(identifier.clone()) {
                continue;
            }
            let of_value = (identifier.resource_type, identifier.value.clone());
            let of_value = self.by_value.entry(of_value).or_default();
            if of_value.last() != Some(&at) {
                of_value.push(at);
            }
            self.by_identifier.entry(identifier).or_default().push(at);
        }
        let draft = &mut self.drafts[at];
        draft.content = content;
        draft.entries = None;
        draft.touched = true;
    }

    /// `Type/id` of a draft.
    pub(super) fn reference(&self, at: usize) -> String {
        format!("{}/{}", self.drafts[at].resource_type, self.drafts[at].id)
    }

    pub(super) fn edit(&mut self, at: usize, change: &Change, work: impl FnOnce(&mut Resource)) {
        let draft = &mut self.drafts[at];
        let mut content = draft.content.take().unwrap_or_else(|| Resource::new(draft.resource_type));
        work(&mut content);
        self.set(at, Some(content), change);
    }

    /// All ids are known: links are resolved, references that waited are bound, and what changed is prepared.
    fn finish(mut self, mut results: Vec<Planned>, newest: u64) -> Result<Plan, Error> {
        self.release_foreign()?;
        let (numbers, lost) = (self.learned_numbers(), self.lost_numbers());
        self.bind_waiting(&numbers)?;
        let conditional = self.link_entries()?;
        let mut successors = Vec::new();
        for at in 0..self.drafts.len() {
            if !self.drafts[at].touched {
                continue;
            }
            let Some(content) = self.drafts[at].content.take() else { continue };
            let prepared =
                self.prepared(at, content, conditional.binary_search(&at).is_ok()).map_err(|error| {
                    let is_of = |planned: &Planned| matches!(planned, Planned::Draft(of, _) if *of == at);
                    error.about(results.iter().rposition(is_of))
                })?;
            self.drafts[at].content = Some(prepared);
            self.drafts[at].entries = None;
            successors.extend(self.new_successor(at)?.map(|successor| (at, successor)));
        }
        for planned in &mut results {
            if let Planned::Draft(at, effect @ Effect::Updated) = planned
                && self.drafts[*at].prepared.is_none()
            {
                *effect = Effect::Unchanged;
            }
        }
        let Self { drafts, seen, imaging, remarks, speaker, .. } = self;
        let is_named_by_studies = |of: ResourceType| matches!(of.name(), "ServiceRequest" | "Procedure");
        let order_numbers = numbers.into_iter().map(|(_, identifier)| identifier).chain(lost);
        let order_numbers = order_numbers
            .filter(|identifier| is_named_by_studies(identifier.resource_type))
            .map(|identifier| identifier.value)
            .collect();
        Ok(Plan { drafts, results, seen, newest, imaging, successors, order_numbers, remarks, speaker })
    }

    /// The content with its links resolved, and prepared when it says something new.
    fn prepared(&mut self, at: usize, content: Resource, is_conditional: bool) -> Result<Resource, Error> {
        let content = if is_conditional { self.linked(content)? } else { content };
        refuse_many_identifiers(&content)?;
        let content = if self.speaker.is_message { self.valid(content)? } else { content };
        let draft = &mut self.drafts[at];
        let unchanged = draft.base.as_ref().filter(|b| !b.head.deleted).and_then(|b| b.resource.as_ref());
        if unchanged.is_some_and(|stored| same_content(stored, &content)) {
            draft.touched = false;
        } else {
            draft.prepared = Some(prepare(&content, &draft.id, self.zone, self.now));
        }
        Ok(content)
    }
}

/// Each identifier is an index row, and looked up when the next message names it.
fn refuse_many_identifiers(content: &Resource) -> Result<(), Error> {
    if identifier_list(content).len() <= IDENTIFIERS_MAX {
        return Ok(());
    }
    let text = format!("a resource has at most {IDENTIFIERS_MAX} identifiers");
    let place = format!("{}.identifier", content.resource_type());
    let issue = Issue::error(IssueCode::TooLong, text).hl7(207).at(place);
    Err(Error::refused(ErrorKind::Conflict, issue))
}

fn target_id(target: &Target) -> Option<String> {
    match target {
        Target::Id(_, id) => Some(id.clone()),
        _ => None,
    }
}

/// What a message says of a Patient, without the numbers of those it replaced.
fn without_numbers(said: &Resource, others: &[Match]) -> Resource {
    let mut said = said.clone();
    let others: HashSet<(Option<&str>, &str)> =
        others.iter().map(|other| (other.system.as_deref(), other.value.as_str())).collect();
    let is_other = |identifier: &Value| {
        let value = identifier["value"].as_str();
        value.is_some_and(|value| others.contains(&(identifier["system"].as_str(), value)))
    };
    let own: Vec<Value> =
        identifier_list(&said).iter().filter(|identifier| !is_other(identifier)).cloned().collect();
    said.object_mut().shift_remove("identifier");
    if !own.is_empty() {
        said.set("identifier", Value::Array(own));
    }
    said
}

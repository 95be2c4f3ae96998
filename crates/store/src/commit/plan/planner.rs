//! From changes to a plan: targets are found, contents merged, links resolved, versions prepared.

use std::collections::HashMap;

use hilum_fhir::imaging::Study;
use hilum_fhir::merge::{merge, same_content};
use hilum_fhir::references::visit_references;
use hilum_fhir::search::{Context, Options, Query, decode_pairs, index};
use hilum_fhir::{Action, Change, Issue, IssueCode, Match, Resource, ResourceType, Target, Timestamp};
use hilum_rows::Db;
use hilum_rows::keys::Rows;
use hilum_rows::row::Ask;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::{Draft, Imaging, Plan, Planned, Seen};
use crate::commit::apply::prepare;
use crate::query::lookup::{Base, Lookup, base, look};
use crate::{Effect, Error, ErrorKind};

/// Replacements followed from a superseded Patient to its survivor.
const SUCCESSORS_MAX: usize = 64;

/// The look-ups that a plan of these changes begins with.
pub(crate) fn asks(changes: &[Change]) -> Vec<Ask> {
    let mut asks = Vec::with_capacity(changes.len());
    let mut add = |target: &Target| match target {
        Target::Id(of, id) => asks.push(Ask::Head(*of, id.clone())),
        Target::Match(wanted) => asks.push(Ask::of(wanted)),
        Target::Query(_) => {}
    };
    for change in changes {
        match &change.action {
            Action::Create(_) => {}
            Action::Ensure(target, _)
            | Action::Merge(target, ..)
            | Action::Replace(target, _)
            | Action::Delete(target) => add(target),
            Action::Supersede { survivor, prior } => {
                add(&survivor.0);
                add(&prior.0);
            }
            Action::Study(study) => add_patient(study, &mut add),
            Action::Instance(instance) => add_patient(&instance.study, &mut add),
            Action::Step(step) => add_patient(&step.study, &mut add),
        }
    }
    asks
}

fn add_patient(study: &Study, add: &mut impl FnMut(&Target)) {
    if let Some((patient, _)) = &study.patient {
        add(&patient.clone().into());
    }
}

/// Makes the plan of a submission's changes. In a transaction, so that all its look-ups see the same; `newest` is a feed position that was
/// reached before the transaction began.
pub(crate) fn plan(
    db: Db<'_>,
    zone: &TimeZone,
    now: i64,
    newest: u64,
    changes: &[Change],
) -> Result<Plan, Error> {
    let mut planner = Planner {
        db,
        zone,
        now,
        drafts: Vec::new(),
        by_id: HashMap::new(),
        by_identifier: HashMap::new(),
        links: HashMap::new(),
        seen: Vec::new(),
        imaging: Vec::new(),
        superseded: Vec::new(),
    };
    let mut results = Vec::with_capacity(changes.len());
    for (number, change) in changes.iter().enumerate() {
        let planned = planner.change(change).map_err(|error| error.about(Some(number)))?;
        if let (Some(url), Planned::Draft(at, _)) = (&change.full_url, &planned) {
            let draft = &planner.drafts[*at];
            planner.links.insert(url.clone(), format!("{}/{}", draft.resource_type, draft.id));
        }
        results.push(planned);
    }
    planner.finish(results, newest)
}

struct Planner<'c> {
    db: Db<'c>,
    zone: &'c TimeZone,
    now: i64,
    drafts: Vec<Draft>,
    by_id: HashMap<(ResourceType, String), usize>,
    by_identifier: HashMap<Match, usize>,
    links: HashMap<String, String>,
    seen: Vec<Seen>,
    imaging: Vec<Imaging>,
    superseded: Vec<(usize, usize)>,
}

impl Planner<'_> {
    fn change(&mut self, change: &Change) -> Result<Planned, Error> {
        match &change.action {
            Action::Create(resource) => Ok(self.create(resource, None, change)),
            Action::Ensure(target, resource) => Ok(match self.existing(target)? {
                Some(at) => Planned::Draft(at, Effect::Unchanged),
                None => self.create(resource, target_id(target), change),
            }),
            Action::Merge(target, resource, clear) => self.merge(target, resource, clear, change),
            Action::Replace(target, resource) => self.replace(target, resource, change),
            Action::Delete(target) => self.delete(target, change),
            Action::Supersede { survivor, prior } => self.supersede(survivor, prior, change),
            Action::Study(study) => {
                let patient = self.patient(study)?;
                self.imaging.push(Imaging::Study(study.clone(), patient));
                Ok(Planned::Imaging(self.imaging.len() - 1))
            }
            Action::Instance(instance) => {
                let patient = self.patient(&instance.study)?;
                self.imaging.push(Imaging::Instance(instance.clone(), patient));
                Ok(Planned::Imaging(self.imaging.len() - 1))
            }
            Action::Step(step) => {
                let patient = self.patient(&step.study)?;
                self.imaging.push(Imaging::Step(step.clone(), patient));
                Ok(Planned::Imaging(self.imaging.len() - 1))
            }
        }
    }

    fn create(&mut self, resource: &Resource, id: Option<String>, change: &Change) -> Planned {
        let id = id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        let at = self.draft(resource.resource_type(), id, None);
        self.set(at, Some(resource.clone()), change);
        Planned::Draft(at, Effect::Created)
    }

    fn merge(
        &mut self,
        target: &Target,
        resource: &Resource,
        clear: &[String],
        change: &Change,
    ) -> Result<Planned, Error> {
        let Some(at) = self.find(target)? else {
            return Ok(self.create(resource, target_id(target), change));
        };
        let draft = &self.drafts[at];
        let applied = draft.base.as_ref().and_then(|base| base.head.applied);
        if change.happened.zip(applied).is_some_and(|(happened, applied)| happened.millis() < applied) {
            return Ok(Planned::Draft(at, Effect::Late));
        }
        let merged = draft
            .content
            .as_ref()
            .map_or_else(|| resource.clone(), |content| merge(content, resource, clear));
        self.set(at, Some(merged), change);
        Ok(Planned::Draft(at, Effect::Updated))
    }

    fn replace(&mut self, target: &Target, resource: &Resource, change: &Change) -> Result<Planned, Error> {
        let found = self.find(target)?;
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
                Target::Match(_) => None,
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
        let found = self.find(target)?;
        if change.precondition.if_match.is_some() {
            self.check(found, target, change)?;
        }
        let at = match (found, target) {
            (Some(at), _) => at,
            (None, Target::Id(resource_type, id)) => {
                let base = base(self.db, *resource_type, id, self.zone)?;
                self.draft(*resource_type, id.clone(), base)
            }
            (None, _) => self.draft(target_type(target), String::new(), None),
        };
        if found.is_some() {
            self.set(at, None, change);
        }
        Ok(Planned::Draft(at, Effect::Deleted))
    }

    fn supersede(
        &mut self,
        survivor: &(Target, Resource),
        prior: &(Target, Resource),
        change: &Change,
    ) -> Result<Planned, Error> {
        let keep = match self.find(&survivor.0)? {
            Some(at) => at,
            None => self.created(&survivor.1, change),
        };
        let gone = match self.find_exact(&prior.0)? {
            Some(at) => at,
            None => self.created(&prior.1, change),
        };
        let (survivor_reference, prior_reference) = (self.reference(keep), self.reference(gone));
        if keep == gone {
            let linked = self.drafts[gone].base.as_ref().is_some_and(|base| base.head.successor.is_some());
            if linked {
                return Ok(Planned::Draft(keep, Effect::Unchanged));
            }
            let issue = Issue::error(IssueCode::Conflict, "a patient cannot be merged into itself").hl7(204);
            return Err(Error::refused(ErrorKind::Conflict, issue));
        }
        self.edit(gone, change, |patient| {
            patient.set("active", Value::Bool(false));
            link(patient, &survivor_reference, "replaced-by");
        });
        self.edit(keep, change, |patient| link(patient, &prior_reference, "replaces"));
        self.superseded.push((gone, keep));
        Ok(Planned::Draft(keep, Effect::Updated))
    }

    fn created(&mut self, resource: &Resource, change: &Change) -> usize {
        match self.create(resource, None, change) {
            Planned::Draft(at, _) => at,
            Planned::Imaging(_) => unreachable!("create makes drafts"),
        }
    }

    fn reference(&self, at: usize) -> String {
        format!("{}/{}", self.drafts[at].resource_type, self.drafts[at].id)
    }

    fn edit(&mut self, at: usize, change: &Change, work: impl FnOnce(&mut Resource)) {
        let mut content =
            self.drafts[at].content.clone().unwrap_or_else(|| Resource::new(self.drafts[at].resource_type));
        work(&mut content);
        self.set(at, Some(content), change);
    }

    /// The patient of a study: created when unknown, never altered.
    fn patient(&mut self, study: &Study) -> Result<Option<usize>, Error> {
        let Some((patient, resource)) = &study.patient else { return Ok(None) };
        let ensure = Change::new(Action::Ensure(patient.clone().into(), resource.clone()));
        match self.change(&ensure)? {
            Planned::Draft(at, _) => Ok(Some(at)),
            Planned::Imaging(_) => Ok(None),
        }
    }

    /// If-Match and If-None-Match.
    fn check(&self, found: Option<usize>, target: &Target, change: &Change) -> Result<(), Error> {
        let refuse = |code, text: &str| {
            let place = target_type(target).name();
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

    fn draft(&mut self, resource_type: ResourceType, id: String, base: Option<Base>) -> usize {
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
            content,
            touched: false,
            happened: None,
            prepared: None,
        });
        self.drafts.len() - 1
    }

    fn set(&mut self, at: usize, content: Option<Resource>, change: &Change) {
        if let Some(content) = &content {
            for identifier in identifiers(content) {
                self.by_identifier.entry(identifier).or_insert(at);
            }
        }
        let draft = &mut self.drafts[at];
        draft.content = content;
        draft.touched = true;
        draft.happened = draft.happened.max(change.happened.map(Timestamp::millis));
    }

    /// The existing target; a superseded Patient leads to its survivor.
    fn find(&mut self, target: &Target) -> Result<Option<usize>, Error> {
        let Some(at) = self.find_exact(target)? else { return Ok(None) };
        if !matches!(target, Target::Match(_)) {
            return Ok(Some(at));
        }
        let mut at = at;
        for _ in 0..SUCCESSORS_MAX {
            let Some(successor) = self.drafts[at].base.as_ref().and_then(|base| base.head.successor) else {
                return Ok(Some(at));
            };
            let Some((resource_type, id)) = self.db.name(successor)? else { return Ok(Some(at)) };
            let Some(next) = self.by_id(resource_type, &id)? else { return Ok(Some(at)) };
            at = next;
        }
        Ok(Some(at))
    }

    /// As [`Planner::find`], but what is only ensured to exist is not read.
    fn existing(&mut self, target: &Target) -> Result<Option<usize>, Error> {
        let Target::Match(wanted) = target else { return self.find(target) };
        if self.by_identifier.contains_key(wanted) {
            return self.find(target);
        }
        let found = self.look(Lookup::Match(wanted.clone()))?;
        let Some(rid) = found.first() else { return Ok(None) };
        let Some((resource_type, id, head, last_updated)) = self.db.head_of(*rid)? else {
            return Err(Error::unavailable("a row vanished"));
        };
        if head.successor.is_some() {
            return self.find(target);
        }
        if let Some(at) = self.by_id.get(&(resource_type, id.clone())) {
            return Ok(Some(*at));
        }
        let base = Base { head, last_updated, resource: None, rows: Rows::default() };
        let at = self.draft(resource_type, id, Some(base));
        self.drafts[at].unread = true;
        Ok(Some(at))
    }

    /// Reads a draft that was only known to exist.
    fn read(&mut self, at: usize) -> Result<(), Error> {
        let draft = &mut self.drafts[at];
        if std::mem::take(&mut draft.unread) {
            draft.base = base(self.db, draft.resource_type, &draft.id, self.zone)?;
            draft.content = draft.base.as_ref().and_then(|base| base.resource.clone());
        }
        Ok(())
    }

    fn find_exact(&mut self, target: &Target) -> Result<Option<usize>, Error> {
        match target {
            Target::Id(resource_type, id) => self.by_id(*resource_type, id),
            Target::Match(wanted) => {
                if let Some(at) =
                    self.by_identifier.get(wanted).filter(|at| self.drafts[**at].content.is_some())
                {
                    return Ok(Some(*at));
                }
                let found = self.look(Lookup::Match(wanted.clone()))?;
                found.first().map(|rid| self.load(*rid)).transpose()
            }
            Target::Query(query) => self.by_query(query),
        }
    }

    fn by_id(&mut self, resource_type: ResourceType, id: &str) -> Result<Option<usize>, Error> {
        if let Some(at) = self.by_id.get(&(resource_type, id.to_owned())).copied() {
            self.read(at)?;
            return Ok(Some(at).filter(|at| self.drafts[*at].content.is_some()));
        }
        let found = self.look(Lookup::Id(resource_type, id.to_owned()))?;
        let Some(rid) = found.first() else { return Ok(None) };
        let at = self.load(*rid)?;
        Ok(Some(at).filter(|at| self.drafts[*at].content.is_some()))
    }

    fn by_query(&mut self, query: &Query) -> Result<Option<usize>, Error> {
        let context = Context { zone: self.zone.clone(), now: Timestamp::from_micros(self.now) };
        let fresh = self.drafts.iter().position(|draft| {
            draft.touched
                && draft.resource_type == query.resource_type
                && draft.content.as_ref().is_some_and(|content| {
                    query.matches(&index(content, &context), &draft.id, Timestamp::from_micros(self.now))
                })
        });
        let mut found = self.look(Lookup::Query(Box::new(query.clone())))?;
        found.retain(|rid| {
            !self.drafts.iter().any(|d| d.touched && d.base.as_ref().is_some_and(|b| b.head.rid == *rid))
        });
        match (fresh, found.as_slice()) {
            (Some(at), []) => Ok(Some(at)),
            (None, [rid]) => self.load(*rid).map(Some),
            (None, []) => Ok(None),
            _ => {
                let issue =
                    Issue::error(IssueCode::MultipleMatches, "the condition matches more than one resource");
                Err(Error::refused(ErrorKind::Precondition, issue.at(query.resource_type.name())))
            }
        }
    }

    fn look(&mut self, what: Lookup) -> Result<Vec<i64>, Error> {
        let found = look(self.db, &what, self.zone, self.now)?;
        let rids = found.iter().map(|(rid, _)| *rid).collect();
        self.seen.push(Seen { what, found });
        Ok(rids)
    }

    fn load(&mut self, rid: i64) -> Result<usize, Error> {
        let Some((resource_type, id)) = self.db.name(rid)? else {
            return Err(Error::unavailable("a row vanished"));
        };
        if let Some(at) = self.by_id.get(&(resource_type, id.clone())).copied() {
            self.read(at)?;
            return Ok(at);
        }
        let base = base(self.db, resource_type, &id, self.zone)?;
        Ok(self.draft(resource_type, id, base))
    }

    /// All ids are known: links are resolved and what changed is prepared.
    fn finish(mut self, mut results: Vec<Planned>, newest: u64) -> Result<Plan, Error> {
        let mut drafts = std::mem::take(&mut self.drafts);
        for (at, draft) in drafts.iter_mut().enumerate() {
            if !draft.touched {
                continue;
            }
            let Some(content) = draft.content.take() else { continue };
            let content = self.linked(content).map_err(|error| {
                let is_of = |planned: &Planned| matches!(planned, Planned::Draft(of, _) if *of == at);
                error.about(results.iter().rposition(is_of))
            })?;
            let unchanged = draft.base.as_ref().filter(|b| !b.head.deleted).and_then(|b| b.resource.as_ref());
            if unchanged.is_some_and(|stored| same_content(stored, &content)) {
                draft.touched = false;
            } else {
                draft.prepared = Some(prepare(&content, &draft.id, self.zone, self.now));
            }
            draft.content = Some(content);
        }
        for planned in &mut results {
            if let Planned::Draft(at, effect @ Effect::Updated) = planned
                && drafts[*at].prepared.is_none()
            {
                *effect = Effect::Unchanged;
            }
        }
        let Self { seen, imaging, superseded, .. } = self;
        Ok(Plan { drafts, results, seen, newest, imaging, superseded })
    }

    fn linked(&mut self, content: Resource) -> Result<Resource, Error> {
        let resource_type = content.resource_type();
        let mut value = content.into_value();
        let mut wanted: Vec<String> = Vec::new();
        visit_references(&mut value, &mut |object| {
            let Some(text) = object.get("reference").and_then(Value::as_str) else { return };
            if let Some(link) = self.links.get(text) {
                object.insert("reference".into(), Value::String(link.clone()));
            } else if text.contains('?') {
                wanted.push(text.to_owned());
            }
        });
        for text in wanted {
            let found = self.conditional_reference(&text, resource_type);
            let is_ambiguous =
                |e: &Error| e.issues.iter().any(|issue| issue.code == IssueCode::MultipleMatches);
            // more than one match: as with none, a logical reference beside it stands
            let (found, ambiguous) = match found {
                Ok(found) => (found, None),
                Err(error) if is_ambiguous(&error) => (None, Some(error)),
                Err(error) => return Err(error),
            };
            let mut unresolved = false;
            visit_references(&mut value, &mut |object| {
                if object.get("reference").and_then(Value::as_str) == Some(&text) {
                    match &found {
                        Some(reference) => {
                            drop(object.insert("reference".into(), Value::String(reference.clone())))
                        }
                        None if object.contains_key("identifier") => drop(object.shift_remove("reference")),
                        None => unresolved = true,
                    }
                }
            });
            if let Some(error) = ambiguous.filter(|_| unresolved) {
                return Err(error);
            }
            if unresolved {
                let issue = Issue::error(IssueCode::NotFound, "a conditional reference matches nothing")
                    .at(resource_type.name());
                return Err(Error::refused(ErrorKind::Precondition, issue));
            }
        }
        Resource::from_value(value).map_err(|issue| Error::refused(ErrorKind::Conflict, issue))
    }

    fn conditional_reference(&mut self, text: &str, of: ResourceType) -> Result<Option<String>, Error> {
        let refuse = |issue: Issue| Error::refused(ErrorKind::Precondition, issue.at(of.name()));
        let (type_name, rest) = text.split_once('?').unwrap_or((text, ""));
        let resource_type = ResourceType::from_name(type_name).ok_or_else(|| {
            refuse(Issue::error(IssueCode::Value, "a conditional reference names an unknown type"))
        })?;
        let context = Context { zone: self.zone.clone(), now: Timestamp::from_micros(self.now) };
        let (query, _) = Query::parse(resource_type, &decode_pairs(rest), &Options::condition(), &context)
            .map_err(|issues| {
                refuse(
                    issues
                        .into_iter()
                        .next()
                        .unwrap_or_else(|| Issue::error(IssueCode::Value, "bad condition")),
                )
            })?;
        let found = self.look(Lookup::Query(Box::new(query)))?;
        match found.as_slice() {
            [] => Ok(None),
            [rid] => Ok(self.db.name(*rid)?.map(|(of, id)| format!("{of}/{id}"))),
            _ => Err(refuse(Issue::error(
                IssueCode::MultipleMatches,
                "a conditional reference matches more than one resource",
            ))),
        }
    }
}

fn target_type(target: &Target) -> ResourceType {
    match target {
        Target::Id(of, _) => *of,
        Target::Match(wanted) => wanted.resource_type,
        Target::Query(query) => query.resource_type,
    }
}

fn target_id(target: &Target) -> Option<String> {
    match target {
        Target::Id(_, id) => Some(id.clone()),
        _ => None,
    }
}

fn identifiers(resource: &Resource) -> Vec<Match> {
    let list = match resource.get("identifier") {
        Some(Value::Array(list)) => list.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    let text = |value: &Value, member: &str| value.get(member).and_then(Value::as_str).map(str::to_owned);
    list.iter()
        .filter_map(|identifier| {
            Some(Match {
                resource_type: resource.resource_type(),
                system: text(identifier, "system"),
                value: text(identifier, "value")?,
            })
        })
        .collect()
}

/// Adds a Patient.link once.
fn link(patient: &mut Resource, other: &str, kind: &str) {
    let entry = json!({ "other": { "reference": other }, "type": kind });
    let mut links = patient.get("link").and_then(Value::as_array).cloned().unwrap_or_default();
    if !links.contains(&entry) {
        links.push(entry);
        patient.set("link", Value::Array(links));
    }
}

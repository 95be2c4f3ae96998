//! What a change is about: looked up in what this submission writes, then in the store. Every look-up is kept with what it found, because
//! the transaction repeats it.

use std::sync::Arc;

use hilum_fhir::search::{Condition, Context, Entries, Query, index};
use hilum_fhir::{Issue, IssueCode, Match, Resource, ResourceType, Target, Timestamp};
use hilum_rows::keys::Rows;

use super::Seen;
use super::planner::{Person, Planner};
use crate::query::lookup::{Base, Lookup, base, look};
use crate::{Error, ErrorKind};

/// Steps that the work of one submission may come to: 100,000 look-ups, or a million comparisons of what it says with itself.
const STEPS_MAX: usize = 1_000_000;
/// Types whose search by identifier asks for another element as well.
const MASTERED: [&str; 2] = ["DocumentManifest", "DocumentReference"];
/// Steps that a look-up in the store counts for.
const LOOKUP_STEPS: usize = 10;

impl Planner<'_> {
    /// Counts work that grows faster than the submission. One that would hold up the others of its site is refused.
    pub(super) fn spend(&mut self, steps: usize) -> Result<(), Error> {
        self.steps += steps;
        if self.steps <= STEPS_MAX {
            return Ok(());
        }
        let text = format!(
            "too many of its parts have to be compared with each other (more than {STEPS_MAX} steps); send it in parts"
        );
        Err(Error::refused(ErrorKind::Conflict, Issue::error(IssueCode::TooCostly, text).hl7(207)))
    }

    /// The existing target.
    pub(super) fn find(&mut self, target: &Target, resource: &Resource) -> Result<Option<usize>, Error> {
        match target {
            Target::Id(resource_type, id) => self.by_id(*resource_type, id),
            Target::Match(wanted) => {
                let Some(at) = self.bearers(wanted)?.first().copied() else { return Ok(None) };
                let at = self.follow(at)?;
                self.read(at)?;
                Ok(Some(at))
            }
            Target::Patient(numbers) => match self.person(numbers, resource)? {
                Person::Known { at, .. } => {
                    self.read(at)?;
                    Ok(Some(at))
                }
                Person::Unknown | Person::Apart(_) => Ok(None),
            },
            Target::Keys(keys) => self.by_keys(keys, resource),
            Target::Query(query) => self.by_query(query),
        }
    }

    /// All resources that bear an identifier, known only to exist; those this submission writes first. Replaced Patients are not followed.
    pub(super) fn bearers(&mut self, wanted: &Match) -> Result<Vec<usize>, Error> {
        let mut found = self.written_with(wanted);
        self.spend(found.len())?;
        for rid in self.look(Lookup::Match(wanted.clone()))? {
            let at = self.known(rid)?;
            let is_gone = self.drafts[at].touched && self.drafts[at].content.is_none();
            if !is_gone && !found.contains(&at) {
                found.push(at);
            }
        }
        Ok(found)
    }

    /// The resources that this submission writes with an identifier.
    pub(super) fn written_with(&self, wanted: &Match) -> Vec<usize> {
        let written = self.by_identifier.get(wanted).map_or(&[][..], Vec::as_slice);
        written.iter().copied().filter(|at| self.drafts[*at].content.is_some()).collect()
    }

    /// The resources of a type that this submission writes with an identifier of this value, whatever its system.
    pub(super) fn written_with_value(&self, of: ResourceType, value: &str) -> Vec<usize> {
        let written = self.by_value.get(&(of, value.to_owned())).map_or(&[][..], Vec::as_slice);
        written.iter().copied().filter(|at| self.drafts[*at].content.is_some()).collect()
    }

    /// The draft of a row that is only known to exist: its content is not read.
    pub(super) fn known(&mut self, rid: i64) -> Result<usize, Error> {
        let Some((resource_type, id, head, last_updated)) = self.db.head_of(rid)? else {
            return Err(Error::unavailable("a row vanished"));
        };
        if let Some(at) = self.by_id.get(&(resource_type, id.clone())) {
            return Ok(*at);
        }
        let base = Base { head, last_updated, resource: None, rows: Rows::default() };
        let at = self.draft(resource_type, id, Some(base));
        self.drafts[at].unread = true;
        Ok(at)
    }

    /// Reads a draft that was only known to exist.
    pub(super) fn read(&mut self, at: usize) -> Result<(), Error> {
        let draft = &mut self.drafts[at];
        if std::mem::take(&mut draft.unread) {
            draft.base = base(self.db, draft.resource_type, &draft.id, self.zone)?;
            draft.content = draft.base.as_ref().and_then(|base| base.resource.clone());
        }
        Ok(())
    }

    pub(super) fn by_id(&mut self, resource_type: ResourceType, id: &str) -> Result<Option<usize>, Error> {
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
        let found = self.matching(query)?;
        match found.as_slice() {
            [] => Ok(None),
            [at] => {
                self.read(*at)?;
                Ok(Some(*at))
            }
            _ => {
                let issue =
                    Issue::error(IssueCode::MultipleMatches, "the condition matches more than one resource");
                Err(Error::refused(ErrorKind::Precondition, issue.at(query.resource_type.name())))
            }
        }
    }

    /// What matches a condition: of what this submission writes as it will be, and of what it leaves alone two at most, known only to exist.
    pub(super) fn matching(&mut self, query: &Query) -> Result<Vec<usize>, Error> {
        let now = Timestamp::from_micros(self.now);
        let mut found = Vec::new();
        for at in self.may_match(query) {
            self.spend(1)?;
            let draft = &self.drafts[at];
            let is_of_type = draft.touched && draft.resource_type == query.resource_type;
            if is_of_type
                && let Some(entries) = self.entries(at)
                && query.matches(&entries, &self.drafts[at].id, now)
            {
                found.push(at);
            }
        }
        for rid in self.look(Lookup::Query(Box::new(query.clone())))? {
            let at = self.known(rid)?;
            if !self.drafts[at].touched {
                found.push(at);
            }
        }
        Ok(found)
    }

    /// The drafts that a condition may match, in order: where it asks for identifiers, those that ever had one of these values.
    fn may_match(&self, query: &Query) -> Vec<usize> {
        let of = query.resource_type;
        let values = query.filters.iter().find_map(|filter| match &filter.condition {
            Condition::Token(tokens)
                if filter.parameter.name == "identifier" && !MASTERED.contains(&of.name()) =>
            {
                tokens.iter().map(|token| token.code.clone()).collect::<Option<Vec<String>>>()
            }
            _ => None,
        });
        let Some(values) = values else { return (0..self.drafts.len()).collect() };
        let bearers = values.into_iter().filter_map(|value| self.by_value.get(&(of, value)));
        let mut drafts: Vec<usize> = bearers.flatten().copied().collect();
        drafts.sort_unstable();
        drafts.dedup();
        drafts
    }

    /// What a draft offers to search as it is now; `None` of one that is deleted or is being linked.
    fn entries(&mut self, at: usize) -> Option<Arc<Entries>> {
        let draft = &mut self.drafts[at];
        let content = draft.content.as_ref()?;
        let context = || Context { zone: self.zone.clone(), now: Timestamp::from_micros(self.now) };
        let entries = draft.entries.get_or_insert_with(|| Arc::new(index(content, &context())));
        Some(entries.clone())
    }

    /// Looks something up; what was found is looked up again in the transaction. The same number is looked up once: the snapshot does not
    /// change under a plan.
    pub(super) fn look(&mut self, what: Lookup) -> Result<Vec<i64>, Error> {
        let rids = |found: &[(i64, i64)]| found.iter().map(|(rid, _)| *rid).collect();
        let number = what.number();
        if let Some(known) = number.as_ref().and_then(|number| self.seen_numbers.get(number)) {
            return Ok(rids(&self.seen[*known].found));
        }
        self.spend(LOOKUP_STEPS)?;
        let found = look(self.db, &what, self.zone, self.now)?;
        let rids = rids(&found);
        self.seen_numbers.extend(number.map(|number| (number, self.seen.len())));
        self.seen.push(Seen { what, found });
        Ok(rids)
    }

    /// The draft of a row, read.
    pub(super) fn load(&mut self, rid: i64) -> Result<usize, Error> {
        let at = self.known(rid)?;
        self.read(at)?;
        Ok(at)
    }
}

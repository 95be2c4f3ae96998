//! What the changes of a submission come to: versions and imaging rows, prepared.
//!
//! A plan is made outside the transaction on a reading connection (`planner.rs`), where all the CPU time goes. Inside the transaction every
//! look-up it rests on is repeated ([`Plan::holds`]); when one differs the plan is made again there. So conditions are decided under
//! the write lock, and the writer hardly computes.

mod find;
mod foretold;
mod guard;
mod links;
mod numbers;
mod person;
pub(crate) mod planner;
mod supersede;

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use hilum_fhir::imaging::{Instance, PerformedStep, Study};
use hilum_fhir::search::Entries;
use hilum_fhir::{Match, Resource, ResourceType, Timestamp};
use hilum_rows::row::Ask;
use hilum_rows::{body, keys};
use xxhash_rust::xxh3::xxh3_64;

use super::apply::{Apply, Prepared, Written};
use super::recent::Thing;
use crate::query::lookup::{Base, Lookup, look, patient_type, survivor};
use crate::{Effect, Error, Original, OriginalKind, Outcome, Remark, RemarkKind};

/// What the changes of a submission come to.
pub(crate) struct Plan {
    drafts: Vec<Draft>,
    results: Vec<Planned>,
    seen: Vec<Seen>,
    /// A feed position reached before what it was made on was read: while nothing was written since, it holds.
    newest: u64,
    imaging: Vec<Imaging>,
    /// By whom Patients are replaced from now on; `None` = by nobody any more.
    successors: Vec<(usize, Option<Successor>)>,
    /// Numbers that orders and Procedures have from now on or no longer: studies that name them are drawn again.
    order_numbers: Vec<String>,
    /// What the sender and the people who run the edge should know of it.
    remarks: Vec<Remark>,
    speaker: Speaker,
}

/// Who says what a plan is made of.
#[derive(Clone, Copy)]
pub(crate) struct Speaker {
    /// Hash of the sender's identity: an update is late by what this sender said before. `None` = nobody whose time counts.
    sender: Option<i64>,
    /// Whether it may only say what a message may: REST corrects, a message never gives a resource another patient.
    is_message: bool,
    /// When it came in, ms since 1970.
    received_ms: i64,
}

impl Speaker {
    /// Who sent an original: the application that gives the control ids, else who the peer proved to be.
    pub(crate) fn of(original: &Original) -> Self {
        let is_message = !matches!(original.kind, OriginalKind::Fhir | OriginalKind::Internal);
        let identity = original.control.as_ref().map(|(identity, _)| identity).or(original.identity.as_ref());
        let hash = || {
            let text = format!("{}\0{}", original.kind.number(), identity.map_or("", String::as_str));
            xxh3_64(text.as_bytes()).cast_signed()
        };
        Self { sender: is_message.then(hash), is_message, received_ms: original.received.millis() }
    }
}

/// Who replaces a Patient.
enum Successor {
    /// A stored one, by its rid.
    Row(i64),
    /// One of the same plan.
    Draft(usize),
}

/// A resource the submission touches.
struct Draft {
    resource_type: ResourceType,
    id: String,
    base: Option<Base>,
    /// Only known to exist: its content was not needed so far and not read.
    unread: bool,
    /// Its id was made for it: nobody else can have it, so it is not looked up again.
    is_new_id: bool,
    /// The content after all changes so far; `None` = deleted.
    content: Option<Resource>,
    /// What the content offers to search, as far as a condition asked for it.
    entries: Option<Arc<Entries>>,
    /// The identifiers that the submission gave it, those it lost again included.
    known_as: HashSet<Match>,
    touched: bool,
    /// Time of the event, ms since 1970.
    clock: Option<i64>,
    /// What this sender said last of it, where another one was first.
    heard: Option<i64>,
    prepared: Option<Prepared>,
}

/// What a change came to.
enum Planned {
    Draft(usize, Effect),
    Imaging(usize),
}

/// Imaging rows to write.
pub(super) enum Imaging {
    Study(Box<Study>, Option<usize>),
    Instance(Box<Instance>, Option<usize>),
    Step(Box<PerformedStep>, Option<usize>),
}

/// A look-up the plan rests on, and what it found: `(rid, vid)` of each resource.
struct Seen {
    what: Lookup,
    found: Vec<(i64, i64)>,
}

impl Seen {
    /// What it would find changes only when one of these is touched; `None` = it is to be looked up again.
    fn rests_on(&self) -> Option<Vec<Thing>> {
        let mut things = match &self.what {
            // also of one that is not there: its name is touched when it comes
            Lookup::Id(of, id) => return Some(vec![Thing::named(*of, id)]),
            Lookup::Match(wanted) => {
                vec![Thing::value(keys::identifier_value(wanted.resource_type, &wanted.value))]
            }
            Lookup::Value(of, value) => vec![Thing::value(keys::identifier_value(*of, value))],
            Lookup::OfPatient(of, value, patient) => {
                let of_patient = keys::patient_key(*of, patient_type(), patient).map(Thing::key);
                let value = Thing::value(keys::identifier_value(*of, value));
                std::iter::once(value).chain(of_patient).collect()
            }
            Lookup::Waiting(system, value) => vec![Thing::key(keys::waiting_key(system.as_deref(), value))],
            Lookup::Query(_)
            | Lookup::Referring(..)
            | Lookup::Replaced(_)
            | Lookup::Heard(..)
            | Lookup::Study(_)
            | Lookup::StudiesOfOrder(_) => return None,
        };
        // a new version of what was found
        things.extend(self.found.iter().map(|(rid, _)| Thing::row(*rid)));
        Some(things)
    }
}

/// What executing a plan wrote.
pub(crate) struct Executed {
    /// For each draft the version written, if any.
    written: Vec<Option<Written>>,
    /// For each imaging change what it did.
    imaging: Vec<(Effect, Option<(String, Written)>)>,
    /// What the plan and its execution have to say.
    pub(super) remarks: Vec<Remark>,
    /// `rid/version` of everything written.
    pub(super) targets: String,
}

impl Plan {
    /// Bytes this adds to a batch.
    pub(crate) fn bytes(&self) -> usize {
        self.drafts
            .iter()
            .filter_map(|d| d.prepared.as_ref())
            .map(|p| 256 + p.packed.len() + 16 * p.rows.keys.len())
            .sum()
    }

    /// What [`Plan::holds`] reads.
    pub(crate) fn asks(&self) -> impl Iterator<Item = Ask> {
        let seen = self.seen.iter().filter_map(|seen| match &seen.what {
            Lookup::Id(of, id) => Some(Ask::Head(*of, id.clone())),
            Lookup::Match(wanted) => Some(Ask::of(wanted)),
            _ => None,
        });
        seen.chain(self.read_drafts().map(|draft| Ask::Head(draft.resource_type, draft.id.clone())))
    }

    /// Drafts that rest on what was read.
    fn read_drafts(&self) -> impl Iterator<Item = &Draft> {
        let is_read = |d: &&Draft| !d.unread && !d.is_new_id && (d.prepared.is_some() || d.content.is_none());
        self.drafts.iter().filter(is_read)
    }

    /// Whether everything the plan rests on still is so.
    pub(super) fn holds(&self, apply: &Apply<'_>) -> Result<bool, Error> {
        let newest = apply.counters.vid;
        if newest == self.newest {
            return Ok(true);
        }
        let recent = apply.recent.as_deref().filter(|recent| recent.knows(self.newest, newest));
        let is_untouched = |thing: Thing| recent.is_some_and(|recent| !recent.is_touched(thing, self.newest));
        for seen in &self.seen {
            let found = || look(apply.db, &seen.what, &apply.context.zone, apply.now);
            if seen.rests_on().is_some_and(|things| things.into_iter().all(is_untouched)) {
                debug_assert_eq!(found()?, seen.found, "a commit did not say what it touched");
            } else if found()? != seen.found {
                return Ok(false);
            }
        }
        for draft in self.read_drafts() {
            let base = draft.base.as_ref().map(|base| base.head);
            let found = || apply.db.head(draft.resource_type, &draft.id);
            let thing = base
                .map_or_else(|| Thing::named(draft.resource_type, &draft.id), |head| Thing::row(head.rid));
            if is_untouched(thing) {
                debug_assert_eq!(found()?, base, "a commit did not say which head it touched");
            } else if found()? != base {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes everything. What may refuse it is looked at first: a refusal writes nothing.
    pub(super) fn execute(&self, apply: &mut Apply<'_>) -> Result<Executed, Error> {
        self.refuse(apply)?;
        let mut executed = Executed {
            written: Vec::new(),
            imaging: Vec::new(),
            remarks: self.remarks.clone(),
            targets: String::new(),
        };
        for draft in &self.drafts {
            let written = self.execute_draft(draft, apply)?;
            executed.target(written.as_ref());
            executed.written.push(written);
        }
        self.execute_merges(&executed, apply)?;
        for number in &self.order_numbers {
            apply.touch_studies_with_number(number)?;
        }
        for imaging in &self.imaging {
            let rid = |at: Option<usize>| at.and_then(|at| self.rid(at, &executed));
            let done = match imaging {
                Imaging::Study(study, patient) => apply.study(study, rid(*patient))?,
                Imaging::Instance(instance, patient) => apply.instance(instance, rid(*patient))?,
                Imaging::Step(step, patient) => apply.step(step, rid(*patient))?,
            };
            executed.target(done.1.as_ref().map(|(_, written)| written));
            executed.imaging.push(done);
        }
        executed.remarks.append(&mut apply.remarks);
        Ok(executed)
    }

    /// Refuses what rows contradict and what would orphan rows.
    fn refuse(&self, apply: &Apply<'_>) -> Result<(), Error> {
        for imaging in &self.imaging {
            if let Imaging::Step(step, patient) = imaging {
                apply.refuse_step(step, patient.is_some(), patient.and_then(|at| self.known_rid(at)))?;
            }
        }
        for (at, draft) in self.drafts.iter().enumerate() {
            if let (true, None, Some(base)) = (draft.touched, &draft.content, &draft.base) {
                let is_of = |planned: &Planned| matches!(planned, Planned::Draft(of, _) if *of == at);
                apply
                    .refuse_to_orphan(base, draft.resource_type)
                    .map_err(|error| error.about(self.results.iter().rposition(is_of)))?;
            }
        }
        Ok(())
    }

    fn execute_draft(&self, draft: &Draft, apply: &mut Apply<'_>) -> Result<Option<Written>, Error> {
        match (&draft.prepared, &draft.content, &draft.base) {
            (Some(prepared), ..) => {
                let written = apply.write(prepared, draft.base.as_ref(), self.head_clock(draft))?;
                self.execute_heard(draft, written.rid, apply)?;
                Ok(Some(written))
            }
            (None, None, Some(base)) if draft.touched && !base.head.deleted => {
                apply.delete(draft.resource_type, &draft.id, base).map(Some)
            }
            (None, Some(_), Some(base)) => {
                // nothing new, but heard later than before: what comes in between is late
                if let Some((clock, sender)) = self.head_clock(draft)
                    && base.head.applied != Some(clock)
                {
                    apply.db.set_applied(base.head.rid, sender, clock)?;
                    apply.take_position();
                    apply.touch(Thing::row(base.head.rid));
                }
                if self.execute_heard(draft, base.head.rid, apply)? {
                    apply.take_position();
                }
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// The time a head keeps: of the first sender that spoke of the resource.
    fn head_clock(&self, draft: &Draft) -> Option<(i64, Option<i64>)> {
        let clock = draft.clock?;
        let head = draft.base.as_ref().map(|base| base.head);
        let (applied, first) = head.map_or((None, None), |head| (head.applied, head.sender));
        let is_first = applied.is_none() || first.is_none() || first == self.speaker.sender;
        is_first.then(|| (applied.map_or(clock, |applied| applied.max(clock)), self.speaker.sender))
    }

    /// Notes the time of a further sender; whether there was something to note.
    fn execute_heard(&self, draft: &Draft, rid: i64, apply: &mut Apply<'_>) -> Result<bool, Error> {
        let (Some(clock), Some(sender)) = (draft.clock, self.speaker.sender) else { return Ok(false) };
        if self.head_clock(draft).is_some() || draft.heard.is_some_and(|heard| heard >= clock) {
            return Ok(false);
        }
        apply.db.put_heard(rid, sender, clock)?;
        Ok(true)
    }

    /// Who is replaced by whom. The studies of all who were or are one person by it are drawn again: whose they are, and which orders are
    /// of the same patient, may have changed.
    fn execute_merges(&self, executed: &Executed, apply: &mut Apply<'_>) -> Result<(), Error> {
        for (at, successor) in &self.successors {
            let Some(rid) = self.rid(*at, executed) else { continue };
            let to = match successor {
                None => None,
                Some(Successor::Row(rid)) => Some(*rid),
                Some(Successor::Draft(at)) => self.rid(*at, executed),
            };
            let was = survivor(apply.db, rid)?;
            apply.db.set_successor(rid, to)?;
            apply.touch(Thing::row(rid));
            let is = survivor(apply.db, rid)?;
            apply.touch_studies_of_person(is)?;
            if was != is {
                apply.touch_studies_of_person(was)?;
            }
        }
        Ok(())
    }

    /// The Subscriptions that were written, each with its content; `None` of a deletion.
    pub(super) fn subscriptions<'p>(
        &'p self,
        executed: &'p Executed,
    ) -> impl Iterator<Item = (&'p str, Option<&'p Resource>)> {
        let written = self.drafts.iter().zip(&executed.written).filter(|(_, written)| written.is_some());
        let of_type = written.filter(|(draft, _)| draft.resource_type.name() == "Subscription");
        of_type.map(|(draft, _)| (draft.id.as_str(), draft.content.as_ref()))
    }

    fn rid(&self, at: usize, executed: &Executed) -> Option<i64> {
        executed.written[at].map(|written| written.rid).or_else(|| self.known_rid(at))
    }

    /// The rid of a draft that was stored before.
    fn known_rid(&self, at: usize) -> Option<i64> {
        self.drafts[at].base.as_ref().map(|base| base.head.rid)
    }
}

/// What is told of each change.
pub(super) fn outcomes(plan: &Arc<Plan>, executed: &Executed) -> Vec<Outcome> {
    let told = |planned: &Planned| match planned {
        Planned::Imaging(at) => of_imaging(&executed.imaging[*at]),
        Planned::Draft(at, effect) => of_draft(plan, *at, *effect, executed.written[*at]),
    };
    plan.results.iter().map(told).collect()
}

fn of_imaging((effect, drawn): &(Effect, Option<(String, Written)>)) -> Outcome {
    let (id, version, last_updated) = match drawn {
        Some((id, written)) => (id.clone(), written.version, written.last_updated),
        None => (String::new(), 0, Timestamp::from_micros(0)),
    };
    let resource_type =
        ResourceType::from_name("ImagingStudy").unwrap_or_else(|| unreachable!("a type of R4"));
    Outcome { effect: *effect, resource_type, id, version, last_updated, content: None }
}

fn of_draft(plan: &Arc<Plan>, at: usize, effect: Effect, written: Option<Written>) -> Outcome {
    let draft = &plan.drafts[at];
    let (version, last_updated) = match (written, &draft.base) {
        (Some(written), _) => (written.version, written.last_updated),
        (None, Some(base)) => (base.head.version, Timestamp::from_micros(base.last_updated)),
        (None, None) => (0, Timestamp::from_micros(0)),
    };
    let was_there = draft.base.as_ref().is_some_and(|base| !base.head.deleted);
    let effect = match (effect, written) {
        (Effect::Updated, Some(_)) if !was_there => Effect::Created,
        (effect, _) => effect,
    };
    let content = Some(Drafted { plan: plan.clone(), at });
    Outcome {
        effect,
        resource_type: draft.resource_type,
        id: draft.id.clone(),
        version,
        last_updated,
        content,
    }
}

/// The content of a draft, for those who want to read what they wrote.
#[derive(Clone)]
pub(crate) struct Drafted {
    plan: Arc<Plan>,
    at: usize,
}

impl Drafted {
    /// Empty of a deletion.
    pub(crate) fn stored_form(&self) -> Cow<'_, [u8]> {
        let draft = &self.plan.drafts[self.at];
        let base = draft.base.as_ref().and_then(|base| base.resource.as_ref());
        match (&draft.prepared, draft.content.as_ref().or(base)) {
            (Some(prepared), _) => Cow::Borrowed(&prepared.stored),
            (None, Some(content)) => Cow::Owned(body::stored_form(content, &draft.id)),
            (None, None) => Cow::Borrowed(&[]),
        }
    }
}

impl std::fmt::Debug for Drafted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Drafted")
    }
}

impl Executed {
    fn target(&mut self, written: Option<&Written>) {
        use std::fmt::Write;
        if let Some(written) = written {
            let _ = write!(self.targets, "{}/{} ", written.rid, written.version);
        }
    }
}

//! What the changes of a submission come to: versions and imaging rows, prepared.
//!
//! A plan is made outside the transaction on a reading connection (`planner.rs`), where all the CPU time goes. Inside the transaction every
//! look-up it rests on is repeated ([`Plan::holds`]); when one differs the plan is made again there. So conditions are decided under
//! the write lock, and the writer hardly computes.

mod foretold;
mod planner;

use hilum_fhir::imaging::{Instance, PerformedStep, Study};
use hilum_fhir::{Resource, ResourceType, Timestamp};
use jiff::tz::TimeZone;

use crate::apply::{Apply, Base, Prepared, Written};
use crate::db::{Ask, Db};
use crate::lookup::{Lookup, look};
use crate::{Effect, Error, Outcome, body};

pub(crate) use planner::{asks, plan};

/// What the changes of a submission come to.
pub(crate) struct Plan {
    drafts: Vec<Draft>,
    results: Vec<Planned>,
    seen: Vec<Seen>,
    /// A feed position reached before what it was made on was read: while nothing was written since, it holds.
    newest: u64,
    imaging: Vec<Imaging>,
    superseded: Vec<(usize, usize)>,
}

/// A resource the submission touches.
struct Draft {
    resource_type: ResourceType,
    id: String,
    base: Option<Base>,
    /// Only known to exist: its content was not needed so far and not read.
    unread: bool,
    /// The content after all changes so far; `None` = deleted.
    content: Option<Resource>,
    touched: bool,
    happened: Option<i64>,
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

/// What executing a plan wrote.
pub(crate) struct Executed {
    /// For each draft the version written, if any.
    written: Vec<Option<Written>>,
    /// For each imaging change what it did.
    imaging: Vec<(Effect, Option<(String, Written)>)>,
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
    pub(super) fn asks(&self) -> impl Iterator<Item = Ask> {
        let seen = self.seen.iter().filter_map(|seen| match &seen.what {
            Lookup::Id(of, id) => Some(Ask::Head(*of, id.clone())),
            Lookup::Match(wanted) => Some(Ask::of(wanted)),
            Lookup::Query(_) => None,
        });
        seen.chain(self.read_drafts().map(|draft| Ask::Head(draft.resource_type, draft.id.clone())))
    }

    /// Drafts that rest on what was read.
    fn read_drafts(&self) -> impl Iterator<Item = &Draft> {
        self.drafts.iter().filter(|d| !d.unread && (d.prepared.is_some() || d.content.is_none()))
    }

    /// Whether everything the plan rests on still is so; `newest` is the feed position reached by now.
    pub(super) fn holds(&self, db: Db<'_>, zone: &TimeZone, now: i64, newest: u64) -> Result<bool, Error> {
        if newest == self.newest {
            return Ok(true);
        }
        for seen in &self.seen {
            if look(db, &seen.what, zone, now)? != seen.found {
                return Ok(false);
            }
        }
        for draft in self.read_drafts() {
            let current = db.head(draft.resource_type, &draft.id)?;
            if current != draft.base.as_ref().map(|base| base.head) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes everything.
    pub(super) fn execute(&self, apply: &mut Apply<'_>) -> Result<Executed, Error> {
        use std::fmt::Write;
        let mut executed = Executed { written: Vec::new(), imaging: Vec::new(), targets: String::new() };
        for draft in &self.drafts {
            let written = match (&draft.prepared, &draft.content, &draft.base) {
                (Some(prepared), ..) => Some(apply.write(prepared, draft.base.as_ref(), draft.happened)?),
                (None, None, Some(base)) if draft.touched && !base.head.deleted => {
                    Some(apply.delete(draft.resource_type, &draft.id, base)?)
                }
                _ => None,
            };
            if let Some(written) = written {
                let _ = write!(executed.targets, "{}/{} ", written.rid, written.version);
            }
            executed.written.push(written);
        }
        for (gone, keep) in &self.superseded {
            let rid = |at: usize| {
                executed.written[at].map(|w| w.rid).or(self.drafts[at].base.as_ref().map(|b| b.head.rid))
            };
            if let (Some(gone), Some(keep)) = (rid(*gone), rid(*keep)) {
                apply.db.set_successor(gone, keep)?;
            }
        }
        for imaging in &self.imaging {
            let rid = |at: Option<usize>| {
                let at = at?;
                executed.written[at].map(|w| w.rid).or(self.drafts[at].base.as_ref().map(|b| b.head.rid))
            };
            let (effect, drawn) = match imaging {
                Imaging::Study(study, patient) => apply.study(study, rid(*patient))?,
                Imaging::Instance(instance, patient) => apply.instance(instance, rid(*patient))?,
                Imaging::Step(step, patient) => apply.step(step, rid(*patient))?,
            };
            if let Some((_, written)) = &drawn {
                let _ = write!(executed.targets, "{}/{} ", written.rid, written.version);
            }
            executed.imaging.push((effect, drawn));
        }
        Ok(executed)
    }

    /// What is told of each change.
    pub(super) fn outcomes(&self, executed: &Executed) -> Vec<Outcome> {
        self.results.iter().map(|planned| self.outcome(planned, executed)).collect()
    }

    fn outcome(&self, planned: &Planned, executed: &Executed) -> Outcome {
        let imaging_study =
            || ResourceType::from_name("ImagingStudy").unwrap_or_else(|| unreachable!("a type of R4"));
        match planned {
            Planned::Imaging(at) => {
                let (effect, drawn) = &executed.imaging[*at];
                let (id, version, last_updated) =
                    drawn.as_ref().map_or((String::new(), 0, Timestamp::from_micros(0)), |(id, w)| {
                        (id.clone(), w.version, w.last_updated)
                    });
                Outcome {
                    effect: *effect,
                    resource_type: imaging_study(),
                    id,
                    version,
                    last_updated,
                    body: bytes::Bytes::new(),
                }
            }
            Planned::Draft(at, effect) => {
                let draft = &self.drafts[*at];
                let (version, last_updated) = match (&executed.written[*at], &draft.base) {
                    (Some(written), _) => (written.version, written.last_updated),
                    (None, Some(base)) => (base.head.version, Timestamp::from_micros(base.last_updated)),
                    (None, None) => (0, Timestamp::from_micros(0)),
                };
                let effect =
                    match (effect, executed.written[*at], draft.base.as_ref().is_none_or(|b| b.head.deleted))
                    {
                        (Effect::Updated, Some(_), true) => Effect::Created,
                        (effect, ..) => *effect,
                    };
                let stored = match (&draft.prepared, &draft.content, &draft.base) {
                    (Some(prepared), ..) => prepared.stored.clone(),
                    (None, Some(content), _) => body::stored_form(content, &draft.id),
                    (None, None, Some(Base { resource: Some(resource), .. }))
                        if effect != Effect::Deleted =>
                    {
                        body::stored_form(resource, &draft.id)
                    }
                    _ => Vec::new(),
                };
                let body = if stored.is_empty() {
                    bytes::Bytes::new()
                } else {
                    body::complete(&stored, draft.resource_type.name(), &draft.id, version, last_updated)
                };
                Outcome {
                    effect,
                    resource_type: draft.resource_type,
                    id: draft.id.clone(),
                    version,
                    last_updated,
                    body,
                }
            }
        }
    }
}

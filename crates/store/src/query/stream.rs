//! The walk over the candidates of a search: driven by its rarest key, in index order, every candidate checked.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use hilum_fhir::search::{Context, Entries, Query, index};
use hilum_fhir::{Issue, IssueCode, Resource, Timestamp};
use hilum_rows::keys::{Key, Lookup};
use hilum_rows::row::{Candidate, Position, Walk};
use hilum_rows::{Db, stored};
use jiff::tz::TimeZone;

use super::patience::Patience;
use super::terms;
use crate::{Error, ErrorKind, Version};

/// Hits counted to find the rarest key.
pub(super) const PROBE_MAX: i64 = 1000;
/// Rows fetched from the index at a time.
const STEP: usize = 256;
/// Keys of a look-up that are counted; of more, as many are counted and the others taken for the same.
const COUNTED_MAX: usize = 64;

/// Where a search is made: one snapshot, with what bounds it.
pub(super) struct Ground<'s> {
    pub(super) rows: Db<'s>,
    pub(super) zone: &'s TimeZone,
    /// Microseconds since 1970.
    pub(super) now: i64,
    pub(super) patience: &'s Patience,
    /// Candidates looked at by one walk, and by all walks together that check single candidates.
    pub(super) candidates_max: usize,
    /// Resources that a link of a chain or `_has` leads over.
    pub(super) chained_max: usize,
    /// Candidates looked at to check single ones.
    pub(super) looked: Cell<usize>,
}

impl Ground<'_> {
    pub(super) fn context(&self) -> Context {
        Context { zone: self.zone.clone(), now: Timestamp::from_micros(self.now) }
    }
}

/// What a walk looks for: a query, and the chains beside it, which walk themselves when they are followed.
pub(super) trait Sought {
    /// What is asked of the resource itself.
    fn query(&self) -> &Query;
    /// How each of the chains would lead to candidates, if it does.
    fn ways(&self, rows: Db<'_>) -> Result<Vec<Option<Way<'_>>>, Error>;
    /// Whether nothing can match.
    fn is_never(&self) -> bool;
    /// Whether a resource matches.
    fn matches(&self, ground: &Ground<'_>, checked: &Checked<'_>) -> Result<bool, Error>;
}

/// A candidate that is looked at.
pub(super) struct Checked<'c> {
    pub(super) entries: &'c Entries,
    pub(super) rid: i64,
    pub(super) version: &'c Version,
}

impl Checked<'_> {
    /// Whether a search finds it; none finds everything.
    pub(super) fn is_found_by(&self, query: Option<&Query>) -> bool {
        query.is_none_or(|query| query.matches(self.entries, &self.version.id, self.version.last_updated))
    }
}

/// A walk over the candidates of a query in index order.
pub(super) struct Stream<'s> {
    pub(super) ground: &'s Ground<'s>,
    pub(super) asked: &'s dyn Sought,
    /// What has to be true besides: the walk checks a single candidate of another search.
    pub(super) besides: Option<&'s Query>,
    pub(super) descending: bool,
}

/// Called for each match; false ends the walk. The resource is given when the body had to be read for the check.
pub(super) type Take<'t> = dyn FnMut(Option<&Resource>, Candidate, Version) -> bool + 't;

/// What leads to the candidates.
pub(super) enum Way<'l> {
    Lookup(Lookup),
    /// They are known already.
    Known(&'l HashMap<i64, Candidate>),
}

impl Stream<'_> {
    pub(super) fn run(&self, after: Option<Position>, take: &mut Take<'_>) -> Result<(), Error> {
        if self.asked.is_never() {
            return Ok(());
        }
        let (way, rest) = self.choose()?;
        let mut all = match way {
            Some(Way::Lookup(Lookup::Keys { keys, .. })) if keys.len() == 1 => {
                return self.by_steps(Some(keys[0]), after, &rest, take);
            }
            None => return self.by_steps(None, after, &rest, take),
            Some(Way::Lookup(lookup)) => self.gather(&lookup)?,
            Some(Way::Known(known)) => known.values().copied().collect(),
        };
        all.sort_unstable_by_key(|c| (c.ord, c.rid));
        if self.descending {
            all.reverse();
        }
        all.retain(|c| after.is_none_or(|p| self.is_after(Position { ord: c.ord, rid: c.rid }, p)));
        self.check(&all, &rest, take).map(drop)
    }

    pub(super) fn is_after(&self, one: Position, other: Position) -> bool {
        if self.descending { one < other } else { one > other }
    }

    /// Candidates there would be, counted as far as [`PROBE_MAX`] for each key; `None` = all resources of the type.
    pub(super) fn hits(&self) -> Result<Option<i64>, Error> {
        let ways = self.ways()?;
        Ok(self.fewest(ways.iter().enumerate())?.map(|(hits, _)| hits))
    }

    /// How each of the filters and links would lead to candidates, if it does.
    fn ways(&self) -> Result<Vec<Option<Way<'_>>>, Error> {
        let rows = self.ground.rows;
        let besides = self.besides.map_or(&[][..], |besides| &besides.filters);
        let filters = self.asked.query().filters.iter().chain(besides);
        let mut ways: Vec<Option<Way<'_>>> = filters
            .map(|filter| Ok(terms::lookup(rows, filter)?.map(Way::Lookup)))
            .collect::<Result<_, Error>>()?;
        ways.extend(self.asked.ways(rows)?);
        Ok(ways)
    }

    fn fewest<'w>(
        &self,
        ways: impl Iterator<Item = (usize, &'w Option<Way<'w>>)>,
    ) -> Result<Option<(i64, usize)>, Error> {
        let mut fewest = None;
        for (at, way) in ways {
            let Some(way) = way else { continue };
            let hits = self.estimate(way)?;
            if fewest.is_none_or(|(fewest, _)| hits < fewest) {
                fewest = Some((hits, at));
            }
        }
        Ok(fewest)
    }

    /// The way with the fewest hits drives; exact keys among the others are looked up per candidate.
    fn choose(&self) -> Result<(Option<Way<'_>>, Rest), Error> {
        let mut ways = self.ways()?;
        let driver = match ways.iter().flatten().count() {
            1 => ways.iter().position(Option::is_some),
            _ => self.fewest(ways.iter().enumerate())?.map(|(_, at)| at),
        };
        let exact = |way: &Option<Way<'_>>| match way {
            Some(Way::Lookup(Lookup::Keys { exact: true, keys })) if keys.len() == 1 => Some(keys[0]),
            _ => None,
        };
        let others = ways.iter().enumerate().filter(|(at, _)| Some(*at) != driver);
        let rest = Rest {
            keys: others.filter_map(|(_, way)| exact(way)).collect(),
            body: !ways.iter().all(|way| exact(way).is_some()) || !self.asked.query().within.is_empty(),
        };
        Ok((driver.and_then(|at| ways.swap_remove(at)), rest))
    }

    fn estimate(&self, way: &Way<'_>) -> Result<i64, Error> {
        let (rows, number) = (self.ground.rows, |count: usize| i64::try_from(count).unwrap_or(i64::MAX));
        let mut hits = 0;
        match way {
            Way::Known(known) => return Ok(number(known.len())),
            Way::Lookup(Lookup::Ids(ids)) => return Ok(number(ids.len())),
            Way::Lookup(Lookup::Keys { keys, .. }) => {
                let every = keys.len().div_ceil(COUNTED_MAX).max(1);
                for key in keys.iter().step_by(every) {
                    hits += rows.count_key(*key, PROBE_MAX)?;
                }
                hits = hits.saturating_mul(number(every));
            }
            Way::Lookup(Lookup::Strings(key, forms)) => {
                for form in forms {
                    hits += rows.count_strings(*key, form, PROBE_MAX)?;
                }
            }
            // ranges are wide as a rule: used only when nothing else drives
            Way::Lookup(Lookup::Ranges(..)) => hits = PROBE_MAX * 10,
        }
        Ok(hits)
    }

    /// All candidates of a look-up that is not one key, each once, bounded.
    fn gather(&self, lookup: &Lookup) -> Result<Vec<Candidate>, Error> {
        let Ground { rows, patience, candidates_max, .. } = *self.ground;
        let mut found: Vec<Candidate> = Vec::new();
        rows.candidates(self.asked.query().resource_type, lookup, candidates_max, &mut |candidate| {
            if found.len() >= candidates_max {
                return Err(too_costly());
            }
            if found.len().is_multiple_of(STEP) {
                patience.step()?;
            }
            found.push(candidate);
            Ok(())
        })?;
        let mut known = HashSet::with_capacity(found.len());
        found.retain(|candidate| known.insert(candidate.rid));
        Ok(found)
    }

    /// Candidates of one key, or of the whole type, fetched in steps.
    fn by_steps(
        &self,
        key: Option<Key>,
        after: Option<Position>,
        rest: &Rest,
        take: &mut Take<'_>,
    ) -> Result<(), Error> {
        let start = if self.descending {
            Position { ord: i64::MAX, rid: i64::MAX }
        } else {
            Position { ord: i64::MIN, rid: i64::MIN }
        };
        let mut position = after.unwrap_or(start);
        let mut seen = 0;
        let mut step = self.asked.query().count.map_or(32, |count| count as usize + 1).clamp(2, STEP);
        loop {
            let candidates = self.step(key, position, step)?;
            let Some(last) = candidates.last() else { return Ok(()) };
            position = Position { ord: last.ord, rid: last.rid };
            seen += candidates.len();
            let more = candidates.len() == step;
            if !self.check(&candidates, rest, take)? || !more {
                return Ok(());
            }
            if seen >= self.ground.candidates_max {
                return Err(too_costly());
            }
            step = STEP;
        }
    }

    fn step(&self, key: Option<Key>, after: Position, limit: usize) -> Result<Vec<Candidate>, Error> {
        let (of, descending) = (self.asked.query().resource_type, self.descending);
        self.ground.rows.step(&Walk { key, of, after, descending, limit })
    }

    /// Hands on the candidates that match; false when the taker has enough.
    fn check(&self, candidates: &[Candidate], rest: &Rest, take: &mut Take<'_>) -> Result<bool, Error> {
        let context = self.ground.context();
        for some in candidates.chunks(self.ground.rows.candidates_at_once()) {
            self.ground.patience.step()?;
            self.look(some.len())?;
            for (candidate, version) in self.ground.rows.versions_of(some, &rest.keys)? {
                if version.resource_type != self.asked.query().resource_type {
                    continue;
                }
                let resource = if rest.body { Some(stored::parse(&version.body)?) } else { None };
                if let Some(resource) = &resource {
                    let checked = Checked {
                        entries: &index(resource, &context),
                        rid: candidate.rid,
                        version: &version,
                    };
                    if !checked.is_found_by(self.besides) || !self.asked.matches(self.ground, &checked)? {
                        continue;
                    }
                }
                if !take(resource.as_ref(), candidate, version) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Counts candidates that are looked at for the sake of single ones of another search: together they are as many as one search may look at.
    fn look(&self, candidates: usize) -> Result<(), Error> {
        if self.besides.is_none() {
            return Ok(());
        }
        let looked = self.ground.looked.get() + candidates;
        self.ground.looked.set(looked);
        if looked > self.ground.candidates_max { Err(too_costly()) } else { Ok(()) }
    }
}

/// What is left to check of a candidate.
struct Rest {
    /// Exact keys it must have.
    keys: Vec<Key>,
    /// Whether its body must be read.
    body: bool,
}

pub(super) fn too_costly() -> Error {
    let text = "the search would look at too many resources; narrow it by an identifier, a code, a patient or a name";
    Error::refused(ErrorKind::Precondition, Issue::error(IssueCode::TooCostly, text))
}

//! Searches: pages, orders, counts and includes of what a walk over the index finds.
//!
//! The order of the index is `(ord, rid)`: `ord` is the clinical date of the type, or the time of creation for types without one. Searches without
//! `_sort`, and those sorted by the clinical date, stream in it and stop at the end of the page; other sorts are made in memory
//! within `candidates_max`.

use std::cell::Cell;
use std::collections::HashSet;
use std::time::Duration;

use hilum_fhir::search::{
    Condition, Context, EntryValue, Filter, Include, ParamType, Parameter, Query, Reference, Sort, Summary,
    Total, clinical_parameter, index, normal_form, parameters,
};
use hilum_fhir::{Resource, ResourceType};
use hilum_rows::keys::Lookup;
use hilum_rows::row::{Candidate, Position};
use hilum_rows::{Db, stored};
use jiff::tz::TimeZone;

use super::as_of::AsOf;
use super::cursor::{self, Cursor};
use super::links::Asked;
use super::patience::Patience;
use super::stream::{Ground, Stream, too_costly};
use super::{patients, terms};
use crate::engine::SiteDb;
use crate::{Error, Page, Version};

/// Bytes of the bodies that a page includes; then it says that more would be (as with `includes_max`).
const INCLUDED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of the bodies that match on a page; one that comes to them is shorter than `_count` and has a next one.
const PAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Candidates that a condition may look at.
const CONDITION_CANDIDATES_MAX: usize = 100_000;
/// Levels of `:iterate`.
const ITERATIONS_MAX: usize = 4;

/// Parameters that say how a page is shown, not what is searched: a page link works with others too.
const PRESENTATION: [&str; 10] = [
    "_count",
    "_format",
    "_pretty",
    "_total",
    "_summary",
    "_elements",
    "_include",
    "_revinclude",
    "_contained",
    "_containedType",
];

/// One page of matches with the resources they include; `None` when it would take longer than `within`.
pub(crate) fn search(
    db: &SiteDb,
    query: &Query,
    cursor: Option<&str>,
    within: Option<Duration>,
) -> Result<Option<Page>, Error> {
    let now = jiff::Timestamp::now().as_microsecond();
    let identity = identity(query);
    let cursor = cursor.map(|text| cursor::open(&db.secret, &identity, text)).transpose()?;
    let patience = Patience::new(within);
    let done = db.snapshot(|rows| {
        let ground = Ground {
            rows,
            zone: &db.zone,
            now,
            patience: &patience,
            candidates_max: db.config.candidates_max as usize,
            chained_max: db.config.chained_max as usize,
            looked: Cell::new(0),
        };
        let asked = ground.asked(query)?;
        Search { db, ground: &ground, asked: &asked, query: &asked.query }.page(&identity, cursor)
    });
    if patience.is_over() { Ok(None) } else { done.map(Some) }
}

/// What a cursor is bound to: what is searched, and in which order.
fn identity(query: &Query) -> String {
    let is_searched = |name: &str| !PRESENTATION.contains(&name.split(':').next().unwrap_or(name));
    let searched: Vec<_> = query.applied.iter().filter(|(name, _)| is_searched(name)).collect();
    format!("{:?}{searched:?}", query.resource_type)
}

/// At most two matches of a condition, as `(rid, vid)`. It asks of the resource itself: one with a chain or `_has` is refused.
pub(super) fn first_two(
    rows: Db<'_>,
    query: &Query,
    zone: &TimeZone,
    now: i64,
) -> Result<Vec<(i64, i64)>, Error> {
    let mut found = Vec::new();
    let patience = &Patience::new(None);
    let (candidates_max, looked) = (CONDITION_CANDIDATES_MAX, Cell::new(0));
    let ground = &Ground { rows, zone, now, patience, candidates_max, chained_max: 0, looked };
    let asked = &Asked::alone(rows, query)?;
    let stream = Stream { ground, asked, besides: None, descending: false };
    stream.run(None, &mut |_, candidate, version| {
        let _ = version;
        found.push((candidate.rid, candidate.vid));
        found.len() < 2
    })?;
    Ok(found)
}

struct Search<'s> {
    db: &'s SiteDb,
    ground: &'s Ground<'s>,
    asked: &'s Asked<'s>,
    /// That of `asked`, without its chains.
    query: &'s Query,
}

impl Search<'_> {
    fn page(&self, identity: &str, cursor: Option<Cursor>) -> Result<Page, Error> {
        let config = &self.db.config;
        let size = self.query.count.unwrap_or(config.count_default).min(config.count_max) as usize;
        if self.query.summary == Summary::Count || size == 0 {
            let total = Some(self.count(u64::from(config.candidates_max))?.ok_or_else(too_costly)?);
            return Ok(Page {
                matches: Vec::new(),
                includes: Vec::new(),
                includes_cut: false,
                total,
                next: None,
            });
        }
        let as_of = match cursor {
            Some(cursor) => AsOf::read(self.ground, self.asked, cursor.first_page)?,
            None => AsOf::default(),
        };
        let after = cursor.map(|cursor| cursor.after);
        let (found, last) = match self.index_order() {
            Some(descending) => self.streamed(after, size, descending, as_of)?,
            None => self.sorted(after, size, as_of)?,
        };
        let next = match last {
            Some(after) => {
                let first_page =
                    cursor.map_or_else(|| self.ground.rows.newest(), |cursor| Ok(cursor.first_page))?;
                Some(cursor::seal(&self.db.secret, identity, Cursor { first_page, after }))
            }
            None => None,
        };
        let total = self.total(cursor.is_none() && next.is_none(), found.len())?;
        let (includes, includes_cut) = self.includes(&found)?;
        Ok(Page { matches: found, includes, includes_cut, total, next })
    }

    /// `Some(descending)` when the asked order is the index's.
    fn index_order(&self) -> Option<bool> {
        match self.query.sort.as_slice() {
            [] => Some(false),
            [Sort { parameter, descending }]
                if clinical_parameter(self.query.resource_type) == Some(parameter.name) =>
            {
                Some(*descending)
            }
            _ => None,
        }
    }

    fn stream(&self, descending: bool) -> Stream<'_> {
        Stream { ground: self.ground, asked: self.asked, besides: None, descending }
    }

    /// A page in index order, and the position after it when more follows.
    fn streamed(
        &self,
        after: Option<Position>,
        size: usize,
        descending: bool,
        as_of: AsOf,
    ) -> Result<(Vec<Version>, Option<Position>), Error> {
        let stream = self.stream(descending);
        let mut found: Vec<(Position, Version)> = Vec::new();
        let mut bytes = 0;
        stream.run(after, &mut |_, candidate, version| {
            if !as_of.is_changed(candidate.rid) {
                bytes += version.body.len();
                found.push((Position { ord: candidate.ord, rid: candidate.rid }, version));
            }
            found.len() <= size && bytes <= PAGE_BYTES_MAX
        })?;
        // what goes beyond the bytes begins the next page, unless it is the only one
        let is_heavy = bytes > PAGE_BYTES_MAX;
        let size = if is_heavy { size.min(found.len().max(2) - 1) } else { size };
        let earlier = as_of.earlier.into_iter().map(|earlier| (earlier.position(), earlier.version));
        found.extend(earlier.filter(|(position, _)| after.is_none_or(|p| stream.is_after(*position, p))));
        found.sort_by_key(|(position, _)| *position);
        if descending {
            found.reverse();
        }
        let more = is_heavy || found.len() > size;
        found.truncate(size);
        let last = found.last().filter(|_| more).map(|(position, _)| *position);
        Ok((found.into_iter().map(|(_, version)| version).collect(), last))
    }

    /// A page of an order that is made in memory, and the version it ends with when more follows.
    fn sorted(
        &self,
        after: Option<Position>,
        size: usize,
        as_of: AsOf,
    ) -> Result<(Vec<Version>, Option<Position>), Error> {
        let context = self.ground.context();
        let place = |resource: &Resource, version: &Version| {
            let keys = self.query.sort.iter().map(|sort| sort_key(sort, resource, version, &context));
            (keys.collect::<Vec<SortKey>>(), version.id.clone()) as Place
        };
        let after = after.map(|after| self.ended_with(after)).transpose()?;
        let after = after.map(|(resource, version)| place(&resource, &version));
        let mut first = First { wanted: size + 1, after, all: Vec::new() };
        self.stream(false).run(None, &mut |resource, candidate, version| {
            if as_of.is_changed(candidate.rid) {
                return true;
            }
            let parsed;
            let resource = match resource {
                Some(resource) => resource,
                None => match stored::parse(&version.body) {
                    Ok(resource) => {
                        parsed = resource;
                        &parsed
                    }
                    Err(_) => return true,
                },
            };
            first.take(place(resource, &version), candidate, version);
            true
        })?;
        for earlier in as_of.earlier {
            first.take(place(&earlier.resource, &earlier.version), earlier.candidate, earlier.version);
        }
        let mut all = first.in_order();
        let more = all.len() > size;
        all.truncate(size);
        let last = all.last().filter(|_| more).map(|(_, c, _)| Position { ord: c.vid, rid: c.rid });
        Ok((all.into_iter().map(|(.., version)| version).collect(), last))
    }

    /// What the page before ended with, as it was shown.
    fn ended_with(&self, after: Position) -> Result<(Resource, Version), Error> {
        let shown = Candidate { ord: 0, rid: after.rid, vid: after.ord };
        let mut found = self.ground.rows.versions_of(&[shown], &[])?;
        // retention may have removed it meanwhile
        let (_, version) = found.pop().ok_or_else(cursor::refused)?;
        Ok((stored::parse(&version.body)?, version))
    }

    fn total(&self, complete: bool, found: usize) -> Result<Option<u64>, Error> {
        let config = &self.db.config;
        let control_plane = matches!(
            self.query.resource_type.name(),
            "Endpoint" | "Subscription" | "NamingSystem" | "ConceptMap"
        );
        match self.query.total {
            Total::None => Ok(None),
            _ if complete => Ok(Some(found as u64)),
            Total::Accurate => self.count(u64::from(config.candidates_max))?.ok_or_else(too_costly).map(Some),
            Total::WhenCheap if control_plane => self.count(u64::from(config.candidates_max)),
            Total::WhenCheap => self.cheap_count(i64::from(config.total_probe_max)),
        }
    }

    fn count(&self, max: u64) -> Result<Option<u64>, Error> {
        let mut count = 0_u64;
        if self.query.filters.is_empty() && self.query.within.is_empty() && self.asked.links.is_empty() {
            self.ground.patience.long()?;
            return self.ground.rows.count(self.query.resource_type).map(Some);
        }
        self.stream(false).run(None, &mut |_, _, _| {
            count += 1;
            count <= max
        })?;
        Ok(Some(count).filter(|count| *count <= max))
    }

    /// The number of hits of a search that one exact key decides, when there are few.
    fn cheap_count(&self, max: i64) -> Result<Option<u64>, Error> {
        let [filter] = self.query.filters.as_slice() else { return Ok(None) };
        if !self.query.within.is_empty() || !self.asked.links.is_empty() {
            return Ok(None);
        }
        let Some(Lookup::Keys { keys, exact: true }) = terms::lookup(self.ground.rows, filter)? else {
            return Ok(None);
        };
        let [key] = keys.as_slice() else { return Ok(None) };
        let count = self.ground.rows.count_key(*key, max + 1)?;
        Ok((count <= max).then_some(count.cast_unsigned()))
    }

    /// What `_include` and `_revinclude` add, each once.
    fn includes(&self, matches: &[Version]) -> Result<(Vec<Version>, bool), Error> {
        let max = self.db.config.includes_max as usize;
        let (includes, revincludes) = (&self.query.includes, &self.query.revincludes);
        if includes.is_empty() && revincludes.is_empty() {
            return Ok((Vec::new(), false));
        }
        let mut known: HashSet<(ResourceType, String)> =
            matches.iter().map(|v| (v.resource_type, v.id.clone())).collect();
        let mut added: Vec<Version> = Vec::new();
        let mut bytes = 0;
        let mut from = 0;
        for round in 0..ITERATIONS_MAX {
            let sources: Vec<Version> = if round == 0 { matches.to_vec() } else { added[from..].to_vec() };
            from = added.len();
            for source in &sources {
                self.ground.patience.step()?;
                let mut wanted = Vec::new();
                for include in includes.iter().filter(|i| round == 0 || i.iterate) {
                    wanted.extend(self.references_of(source, include)?);
                }
                for include in revincludes.iter().filter(|i| round == 0 || i.iterate) {
                    wanted.extend(self.referrers_of(source, include, max)?);
                }
                for (resource_type, id) in wanted {
                    if !known.insert((resource_type, id.clone())) {
                        continue;
                    }
                    if added.len() >= max || bytes >= INCLUDED_BYTES_MAX {
                        return Ok((added, true));
                    }
                    let found = self.ground.rows.current(resource_type, &id)?.filter(|v| !v.body.is_empty());
                    bytes += found.as_ref().map_or(0, |version| version.body.len());
                    added.extend(found);
                }
            }
            if added.len() == from {
                break;
            }
        }
        Ok((added, false))
    }

    fn references_of(
        &self,
        source: &Version,
        include: &Include,
    ) -> Result<Vec<(ResourceType, String)>, Error> {
        if include.source != source.resource_type {
            return Ok(Vec::new());
        }
        let resource = stored::parse(&source.body)?;
        let entries = index(&resource, &self.ground.context()).entries.into_iter();
        let found = entries.filter(|entry| include.parameter.is_none_or(|wanted| wanted == entry.parameter));
        Ok(found
            .filter_map(|entry| match entry.value {
                EntryValue::Reference { target: Some(Reference::Local(of, id)), .. } => Some((of, id)),
                _ => None,
            })
            .filter(|(of, _)| include.target.is_none_or(|target| target == *of))
            .collect())
    }

    fn referrers_of(
        &self,
        target: &Version,
        include: &Include,
        max: usize,
    ) -> Result<Vec<(ResourceType, String)>, Error> {
        if include.target.is_some_and(|of| of != target.resource_type) {
            return Ok(Vec::new());
        }
        let all: Vec<&'static Parameter> = match include.parameter {
            Some(parameter) => vec![parameter],
            None => {
                parameters(include.source).iter().filter(|p| p.param_type == ParamType::Reference).collect()
            }
        };
        let mut found = Vec::new();
        for parameter in all {
            let mut wanted = vec![Reference::Local(target.resource_type, target.id.clone())];
            if target.resource_type == patients::patient_type() {
                let further = patients::replaced_by_id(self.ground.rows, &target.id)?;
                wanted.extend(further.into_iter().map(|id| Reference::Local(target.resource_type, id)));
            }
            let filter = Filter { parameter, condition: Condition::Reference(wanted) };
            let Some(Lookup::Keys { keys, .. }) = terms::lookup(self.ground.rows, &filter)? else { continue };
            for key in keys {
                let ids = self.ground.rows.ids_with_key(key, max + 1)?;
                found.extend(ids.into_iter().map(|id| (include.source, id)));
            }
        }
        Ok(found)
    }
}

/// Where a match stands in an order that is made in memory: by its keys, then by its id.
type Place = (Vec<SortKey>, String);

/// The first of an order behind a place: the bodies of twice as many as are wanted are held at most, however many match.
struct First {
    wanted: usize,
    after: Option<Place>,
    all: Vec<(Place, Candidate, Version)>,
}

impl First {
    fn take(&mut self, place: Place, candidate: Candidate, version: Version) {
        if self.after.as_ref().is_some_and(|after| place <= *after) {
            return;
        }
        self.all.push((place, candidate, version));
        if self.all.len() >= 2 * self.wanted {
            self.sort_out();
        }
    }

    fn sort_out(&mut self) {
        self.all.sort_by(|a, b| a.0.cmp(&b.0));
        self.all.truncate(self.wanted);
    }

    fn in_order(mut self) -> Vec<(Place, Candidate, Version)> {
        self.sort_out();
        self.all
    }
}

/// A value to sort by; what lacks one comes last in both directions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum SortKey {
    Text(String),
    TextDescending(std::cmp::Reverse<String>),
    Number(i64),
    Absent,
}

fn sort_key(sort: &Sort, resource: &Resource, version: &Version, context: &Context) -> SortKey {
    let number =
        |n: i64| SortKey::Number(if sort.descending { n.checked_neg().unwrap_or(i64::MAX) } else { n });
    let text = |t: String| {
        if sort.descending { SortKey::TextDescending(std::cmp::Reverse(t)) } else { SortKey::Text(t) }
    };
    match sort.parameter.name {
        "_lastUpdated" => return number(version.last_updated.micros()),
        "_id" => return text(version.id.clone()),
        _ => {}
    }
    let entries = index(resource, context).entries;
    let keys =
        entries.iter().filter(|e| e.parameter == sort.parameter).filter_map(|entry| match &entry.value {
            EntryValue::Date(low, high) => Some(number(if sort.descending { *high } else { *low })),
            EntryValue::Number(low, _) | EntryValue::Quantity(low, ..) => Some(number(*low)),
            EntryValue::String(value) => Some(text(normal_form(value))),
            EntryValue::Uri(value) => Some(text(value.clone())),
            EntryValue::Token { code: Some(code), .. } => Some(text(code.clone())),
            EntryValue::Reference { target: Some(Reference::Local(of, id)), .. } => {
                Some(text(format!("{of}/{id}")))
            }
            _ => None,
        });
    keys.min().unwrap_or(SortKey::Absent)
}

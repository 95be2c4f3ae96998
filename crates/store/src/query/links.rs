//! Chains and `_has`: searches that ask of other resources than those they find.
//!
//! A search is driven from its selective side. Where a chain leads over few resources they are looked for first, and what it asks becomes a set
//! of references (of ids, for `_has`) that drives the walk like any other key. Where the search itself has few candidates, fewer than the chain leads
//! over, each candidate is followed instead. Where neither is few the search is refused: no set on the way is ever cut short.
//!
//! A chain finds what the plain search for each resource it leads to finds: only what is there now, and with a Patient what hangs on those that it
//! replaced. [`Linked::allowed`] has to be set: it says that somebody who knows the caller restricted what is looked for on the way.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use hilum_fhir::search::{
    Condition, Entries, EntryValue, Filter, Linked, Parameter, Query, Reference, index, parameter,
};
use hilum_fhir::{Issue, IssueCode, Resource, ResourceType};
use hilum_rows::keys::Lookup;
use hilum_rows::row::{Candidate, Head};
use hilum_rows::{Db, stored};

use super::patients::{self, SUCCESSORS_MAX, followed};
use super::stream::{Checked, Ground, PROBE_MAX, Sought, Stream, Way};
use super::terms;
use crate::{Error, ErrorKind, Version};

/// A chain that leads over no more resources than these is always looked for first.
const FEW: usize = 64;
/// A search with fewer candidates than these is few: they are followed one by one when a chain leads over more.
const FOLLOWED_MAX: usize = PROBE_MAX as usize - 1;

/// Resources of which something is looked up together.
const AT_ONCE: usize = 512;

/// A search whose chains are prepared.
pub(super) struct Asked<'q> {
    /// What is asked of the resource itself.
    pub(super) query: Cow<'q, Query>,
    /// What is asked of others.
    pub(super) links: Vec<Link<'q>>,
}

/// A chain or `_has`.
pub(super) enum Link<'q> {
    /// The resource refers to one of these by the parameter.
    To(&'static Parameter, HashMap<ResourceType, HashSet<String>>),
    /// The resource is one of these, by rid.
    Among(HashMap<i64, Candidate>),
    /// To be followed from each candidate.
    Open(Open<'q>),
}

/// A chain or `_has` that is followed from single candidates.
pub(super) struct Open<'q> {
    /// Of a chain, the reference that is followed.
    parameter: &'static Parameter,
    /// Of `_has`, the reference that leads here.
    by: Option<&'static Parameter>,
    searches: Vec<Asked<'q>>,
    /// What following a reference came to.
    known: RefCell<HashMap<(ResourceType, String), bool>>,
}

/// Where a resource refers to by a parameter.
fn references<'e>(entries: &'e Entries, by: &'e Parameter) -> impl Iterator<Item = (ResourceType, &'e str)> {
    let entries = entries.entries.iter().filter(move |entry| entry.parameter == by);
    entries.filter_map(|entry| match &entry.value {
        EntryValue::Reference { target: Some(Reference::Local(of, id)), .. } => Some((*of, id.as_str())),
        _ => None,
    })
}

impl<'q> Asked<'q> {
    /// A search of the resource alone.
    ///
    /// # Errors
    /// `Precondition` of one with a chain or `_has`.
    pub(super) fn alone(rows: Db<'_>, query: &'q Query) -> Result<Self, Error> {
        if query.linked().is_empty() {
            return Ok(Self { query: followed(rows, query)?, links: Vec::new() });
        }
        let text = "a condition asks of the resource itself: it has no chained parameter and no _has";
        Err(Error::refused(ErrorKind::Precondition, Issue::error(IssueCode::NotSupported, text)))
    }

    /// Whether anything matches it and `besides`.
    fn finds(&self, ground: &Ground<'_>, besides: &Query) -> Result<bool, Error> {
        let mut found = false;
        let stream = Stream { ground, asked: self, besides: Some(besides), descending: false };
        stream.run(None, &mut |_, _, _| {
            found = true;
            false
        })?;
        Ok(found)
    }
}

impl Sought for Asked<'_> {
    fn query(&self) -> &Query {
        &self.query
    }

    fn ways(&self, rows: Db<'_>) -> Result<Vec<Option<Way<'_>>>, Error> {
        let mut ways = Vec::with_capacity(self.links.len());
        for link in &self.links {
            ways.push(match link.known() {
                Some(known) => Some(Way::Known(known)),
                None => link.lookup(rows)?.map(Way::Lookup),
            });
        }
        Ok(ways)
    }

    fn is_never(&self) -> bool {
        self.links.iter().any(|link| match link {
            Link::To(_, targets) => targets.is_empty(),
            Link::Among(among) => among.is_empty(),
            Link::Open(_) => false,
        })
    }

    fn matches(&self, ground: &Ground<'_>, checked: &Checked<'_>) -> Result<bool, Error> {
        if !checked.is_found_by(Some(&*self.query)) {
            return Ok(false);
        }
        for link in &self.links {
            if !link.holds(ground, checked)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Link<'_> {
    /// The candidates, when they are known.
    fn known(&self) -> Option<&HashMap<i64, Candidate>> {
        match self {
            Self::Among(among) => Some(among),
            _ => None,
        }
    }

    /// How the index leads to candidates.
    fn lookup(&self, rows: Db<'_>) -> Result<Option<Lookup>, Error> {
        let Self::To(parameter, targets) = self else { return Ok(None) };
        let references = targets.iter().flat_map(|(of, ids)| ids.iter().map(|id| local(*of, id)));
        terms::lookup(rows, &Filter { parameter, condition: Condition::Reference(references.collect()) })
    }

    fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    fn holds(&self, ground: &Ground<'_>, checked: &Checked<'_>) -> Result<bool, Error> {
        match self {
            Self::To(parameter, targets) => Ok(references(checked.entries, parameter)
                .any(|(of, id)| targets.get(&of).is_some_and(|ids| ids.contains(id)))),
            Self::Among(among) => Ok(among.contains_key(&checked.rid)),
            Self::Open(open) => open.holds(ground, checked),
        }
    }
}

impl Open<'_> {
    fn holds(&self, ground: &Ground<'_>, checked: &Checked<'_>) -> Result<bool, Error> {
        if let Some(by) = self.by {
            return self.is_referred_to(ground, by, checked.version);
        }
        for (of, id) in references(checked.entries, self.parameter) {
            if self.leads(ground, of, id)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a reference leads to what is looked for.
    fn leads(&self, ground: &Ground<'_>, of: ResourceType, id: &str) -> Result<bool, Error> {
        let Some(search) = self.searches.iter().find(|search| search.query.resource_type == of) else {
            return Ok(false);
        };
        let name = (of, id.to_owned());
        if let Some(known) = self.known.borrow().get(&name) {
            return Ok(*known);
        }
        let Some(parameter) = parameter(of, "_id") else { return Ok(false) };
        let head = ground.rows.head(of, id)?;
        let there = head.map_or(Ok(Vec::new()), |head| stands_for(ground.rows, (id.to_owned(), head)))?;
        let condition = Condition::Id(there.into_iter().map(|(id, _)| id).collect());
        let besides = Query { filters: vec![Filter { parameter, condition }], ..Query::all(of) };
        let leads = search.finds(ground, &besides)?;
        let mut known = self.known.borrow_mut();
        if known.len() < ground.chained_max {
            known.insert(name, leads);
        }
        Ok(leads)
    }

    /// Whether what is looked for refers to a resource, or to a Patient that it replaced.
    fn is_referred_to(
        &self,
        ground: &Ground<'_>,
        by: &'static Parameter,
        version: &Version,
    ) -> Result<bool, Error> {
        let of = version.resource_type;
        let filter = Filter { parameter: by, condition: Condition::Reference(vec![local(of, &version.id)]) };
        let besides = Query { filters: vec![filter], ..Query::all(by.resource_type) };
        let besides = followed(ground.rows, &besides)?;
        for search in &self.searches {
            if search.finds(ground, &besides)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Called for each match, with the resource when its body was read; false ends the walk.
type TakeEach<'t> = dyn FnMut(Candidate, &Version, Option<&Resource>) -> Result<bool, Error> + 't;

/// How far a chain is looked for.
#[derive(Clone, Copy)]
struct Bound {
    /// Resources that it leads over at most.
    most: usize,
    /// Whether it may stay open when it leads over more: there are few candidates to follow it from.
    may_stay_open: bool,
}

impl Ground<'_> {
    /// Prepares a search.
    ///
    /// # Errors
    /// `Precondition` when a chain leads over too many resources, or nobody allowed it.
    pub(super) fn asked<'q>(&self, query: &'q Query) -> Result<Asked<'q>, Error> {
        self.within(query, Bound { most: self.chained_max, may_stay_open: false })
    }

    fn within<'q>(&self, query: &'q Query, bound: Bound) -> Result<Asked<'q>, Error> {
        let linked: Vec<(&Filter, &Linked)> =
            query.filters.iter().filter_map(|filter| Some((filter, filter.linked()?))).collect();
        if linked.is_empty() {
            return Ok(Asked { query: followed(self.rows, query)?, links: Vec::new() });
        }
        if linked.iter().any(|(_, linked)| !linked.allowed) {
            let text = "nobody allowed this search to ask of other resources";
            return Err(Error::refused(ErrorKind::Precondition, Issue::error(IssueCode::Forbidden, text)));
        }
        let mut alone = query.clone();
        alone.filters.retain(|filter| filter.linked().is_none());
        let alone = followed(self.rows, &alone)?.into_owned();
        let mut asked = Asked { query: Cow::Owned(alone), links: Vec::new() };
        let mut bound = self.narrowed(&asked, bound)?;
        let mut before = Vec::new();
        if linked.len() > 1 {
            // the one that leads over few makes the candidates of the others few
            let first = Bound { most: bound.most.min(FOLLOWED_MAX), may_stay_open: true };
            for (filter, linked) in &linked {
                asked.links.push(self.link(filter, linked, first)?);
            }
            bound = self.narrowed(&asked, bound)?;
            before = std::mem::take(&mut asked.links);
        }
        let mut before = before.into_iter();
        for (filter, linked) in linked {
            let link = match before.next().filter(|link| bound.may_stay_open || !link.is_open()) {
                Some(link) => link,
                None => self.link(filter, linked, bound)?,
            };
            asked.links.push(link);
        }
        Ok(asked)
    }

    /// The bound of the chains of a search: with few candidates they are followed rather than looked for.
    fn narrowed(&self, asked: &Asked<'_>, bound: Bound) -> Result<Bound, Error> {
        let hits = Stream { ground: self, asked, besides: None, descending: false }.hits()?;
        let few = hits.and_then(|hits| usize::try_from(hits).ok()).filter(|hits| *hits <= FOLLOWED_MAX);
        Ok(few.map_or(bound, |few| Bound { most: bound.most.min(few.max(FEW)), may_stay_open: true }))
    }

    /// A chain or `_has`: what it leads over, or open when that is too much and it may stay so.
    fn link<'q>(&self, filter: &'q Filter, linked: &'q Linked, bound: Bound) -> Result<Link<'q>, Error> {
        let searches = linked.searches.iter().map(|search| self.within(search, bound));
        let searches: Vec<Asked<'q>> = searches.collect::<Result<_, _>>()?;
        let (parameter, by) = (filter.parameter, linked.by);
        let found = match by {
            None => self.targets(&searches, bound)?.map(|targets| Link::To(parameter, targets)),
            Some(by) => self.referred_to(&searches, by, parameter.resource_type, bound)?.map(Link::Among),
        };
        match found {
            Some(link) => Ok(link),
            None if bound.may_stay_open => {
                Ok(Link::Open(Open { parameter, by, searches, known: RefCell::default() }))
            }
            None => Err(self.leads_over_too_many()),
        }
    }

    /// What a chain leads to, and the Patients that they replaced; `None` when there are too many.
    fn targets(
        &self,
        searches: &[Asked<'_>],
        bound: Bound,
    ) -> Result<Option<HashMap<ResourceType, HashSet<String>>>, Error> {
        let mut found = Vec::new();
        for search in searches {
            let is_all = self.each(search, bound, &mut |candidate, version, _| {
                found.push((version.resource_type, version.id.clone(), candidate.rid));
                Ok(found.len() <= bound.most)
            })?;
            if !is_all {
                return Ok(None);
            }
        }
        let patient = patients::patient_type();
        let rids: Vec<i64> = found.iter().filter(|(of, ..)| *of == patient).map(|(.., rid)| *rid).collect();
        let mut targets: HashMap<ResourceType, HashSet<String>> = HashMap::new();
        for (of, id, _) in found {
            targets.entry(of).or_default().insert(id);
        }
        for some in rids.chunks(AT_ONCE) {
            for rid in self.rows.replacing(some)? {
                self.patience.step()?;
                targets.entry(patient).or_default().extend(patients::replaced_ids(self.rows, rid)?);
            }
        }
        Ok(Some(targets))
    }

    /// The resources of a type that those looked for refer to, and what replaced them; `None` when there are too many of either.
    fn referred_to(
        &self,
        searches: &[Asked<'_>],
        by: &'static Parameter,
        of: ResourceType,
        bound: Bound,
    ) -> Result<Option<HashMap<i64, Candidate>>, Error> {
        let (mut ids, mut looked, context) = (HashSet::new(), 0, self.context());
        for search in searches {
            let is_all = self.each(search, bound, &mut |_, version, resource| {
                looked += 1;
                let entries = match resource {
                    Some(resource) => index(resource, &context),
                    None => index(&stored::parse(&version.body)?, &context),
                };
                let references = references(&entries, by).filter(|(target, _)| *target == of);
                ids.extend(references.map(|(_, id)| id.to_owned()));
                Ok(looked <= bound.most && ids.len() <= bound.most)
            })?;
            if !is_all {
                return Ok(None);
            }
        }
        let (mut found, ids) = (HashMap::new(), ids.into_iter().collect::<Vec<String>>());
        for some in ids.chunks(AT_ONCE) {
            self.patience.step()?;
            for (id, head) in self.rows.heads(of, some)? {
                let there = stands_for(self.rows, (id, head))?;
                found.extend(there.into_iter().map(|(_, there)| (there.rid, there)));
            }
        }
        Ok(Some(found))
    }

    /// Hands each match of a search on until there are too many; `false` when there were, or there would be and it may stay open.
    fn each(&self, asked: &Asked<'_>, bound: Bound, take: &mut TakeEach<'_>) -> Result<bool, Error> {
        let stream = Stream { ground: self, asked, besides: None, descending: false };
        let is_more = |hits: i64| usize::try_from(hits).is_ok_and(|hits| hits > bound.most);
        if bound.may_stay_open && !asked.is_never() && stream.hits()?.is_none_or(is_more) {
            return Ok(false);
        }
        let mut taken = Ok(true);
        stream.run(None, &mut |resource, candidate, version| {
            taken = take(candidate, &version, resource);
            matches!(taken, Ok(true))
        })?;
        taken
    }

    fn leads_over_too_many(&self) -> Error {
        let text = format!(
            "a chained parameter or _has leads over more than {} resources (limits.search.chained_max); ask for something rarer in it or beside it",
            self.chained_max
        );
        Error::refused(ErrorKind::Precondition, Issue::error(IssueCode::TooCostly, text))
    }
}

fn local(of: ResourceType, id: &str) -> Reference {
    Reference::Local(of, id.to_owned())
}

/// A resource that a reference leads to, and of a Patient those that replaced it, as far as they are there.
fn stands_for(rows: Db<'_>, named: (String, Head)) -> Result<Vec<(String, Candidate)>, Error> {
    let (mut there, mut next): (Vec<(String, Candidate)>, _) = (Vec::new(), Some(named));
    while let Some((id, head)) = next.take() {
        let is_known = there.iter().any(|(_, known)| known.rid == head.rid);
        if head.deleted || is_known || there.len() > SUCCESSORS_MAX {
            break;
        }
        there.push((id, Candidate { ord: head.ord, rid: head.rid, vid: head.vid }));
        if let Some(successor) = head.successor {
            next = rows.head_of(successor)?.map(|(_, id, head, _)| (id, head));
        }
    }
    Ok(there)
}

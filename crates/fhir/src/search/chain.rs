//! Chained parameters and `_has` (<https://hl7.org/fhir/R4/search.html#chaining>, `#has`): conditions on other resources.
//!
//! `subject:Patient.name`, `encounter.patient.name`, `_has:Observation:patient:code`, and each within the other
//! (`patient._has:Group:member:_id`, `_has:Observation:patient:encounter.identifier`). What is not understood in one is an error in every mode: a
//! search without it would show other patients.

use super::parameters::table;
use super::parse::{Reader, printable};
use super::plan::{Kind, Node};
use super::value::split;
use super::{Condition, Filter, Linked, ParamType, Parameter, Query, parameter};
use crate::{Issue, IssueCode, ResourceType};

/// References followed by one parameter, whatever is configured: reading one descends as deep.
const DEPTH_MAX: usize = 16;

/// Searches on other types that one search comes to: a chain without a type is one search for each type it can lead to.
const SEARCHES_MAX: usize = 64;

/// Whether a name is a chain or `_has`.
pub(super) fn is_linked(name: &str) -> bool {
    name.contains('.') || name == "_has" || name.starts_with("_has:")
}

impl Query {
    /// The searches on other types that decide on this one, at all depths.
    pub fn linked(&self) -> Vec<&Self> {
        let (mut all, mut at) = (self.linked_here().collect::<Vec<_>>(), 0);
        while let Some(query) = all.get(at).copied() {
            all.extend(query.linked_here());
            at += 1;
        }
        all
    }

    fn linked_here(&self) -> impl Iterator<Item = &Self> {
        let filters = self.filters.iter();
        filters.filter_map(|filter| filter.linked()).flat_map(|linked| &linked.searches)
    }
}

impl Filter {
    /// The searches on other types that it asks for, when it is a chain or `_has`.
    pub fn linked(&self) -> Option<&Linked> {
        match &self.condition {
            Condition::Linked(linked) => Some(linked),
            _ => None,
        }
    }
}

/// A parameter as it was sent: what its last link is compared with, and how many references were followed on the way.
#[derive(Clone, Copy)]
struct Sent<'s> {
    value: &'s str,
    followed: usize,
}

impl Reader<'_> {
    /// Reads a chain or `_has`.
    pub(super) fn linked(&mut self, name: &str, value: &str) -> Result<Filter, Issue> {
        if self.options.condition {
            let text = "a chained parameter or _has asks for another resource: it can be searched with, but is no part of a condition, of criteria or of the filter of a scope";
            return Err(Issue::error(IssueCode::NotSupported, text));
        }
        if !split(value, ',').iter().any(|value| !value.is_empty()) {
            return Err(Issue::error(IssueCode::Invalid, "a chained parameter or _has needs a value"));
        }
        self.count(value)?;
        self.link(self.query.resource_type, name, Sent { value, followed: 0 })
    }

    /// One link. It descends once for each reference that is followed, which are few.
    fn link(&mut self, of: ResourceType, name: &str, sent: Sent<'_>) -> Result<Filter, Issue> {
        if let Some(rest) = name.strip_prefix("_has:") {
            return self.has(of, rest, sent);
        }
        match name.split_once('.') {
            Some((first, rest)) => self.chain(of, first, rest, sent),
            None => self.last(of, name, sent.value),
        }
    }

    fn last(&self, of: ResourceType, name: &str, value: &str) -> Result<Filter, Issue> {
        let (name, modifier) = name.split_once(':').map_or((name, None), |(name, m)| (name, Some(m)));
        self.plain(known(of, name)?, modifier, value)
    }

    /// `first.rest`
    fn chain(&mut self, of: ResourceType, first: &str, rest: &str, sent: Sent<'_>) -> Result<Filter, Issue> {
        let (name, typed) = first.split_once(':').map_or((first, None), |(name, of)| (name, Some(of)));
        let parameter = followed(known(of, name)?)?;
        let types = match typed {
            Some(name) => vec![named(parameter, name)?],
            None => types(parameter, rest)?,
        };
        let sent = self.step(sent)?;
        let searches = types.into_iter().map(|of| self.search(of, rest, sent)).collect::<Result<_, _>>()?;
        Ok(Filter { parameter, condition: Condition::Linked(Linked::new(None, searches)) })
    }

    /// `Type:reference:rest`
    fn has(&mut self, of: ResourceType, text: &str, sent: Sent<'_>) -> Result<Filter, Issue> {
        let Some((name, (by, rest))) =
            text.split_once(':').and_then(|(n, rest)| Some((n, rest.split_once(':')?)))
        else {
            return Err(Issue::error(IssueCode::Value, "_has is written _has:Type:reference:parameter"));
        };
        let source = type_named(name)?;
        let by = followed(known(source, by)?)?;
        if !leads_to(by, of) {
            let text = format!("{source} has no reference to {of} by {}", by.name);
            return Err(Issue::error(IssueCode::NotSupported, text));
        }
        let sent = self.step(sent)?;
        let searches = vec![self.search(source, rest, sent)?];
        let condition = Condition::Linked(Linked::new(Some(by), searches));
        Ok(Filter { parameter: known(of, "_id")?, condition })
    }

    fn search(&mut self, of: ResourceType, rest: &str, sent: Sent<'_>) -> Result<Query, Issue> {
        self.searches += 1;
        if self.searches > SEARCHES_MAX {
            let text = format!(
                "the chains of this search lead to more than {SEARCHES_MAX} searches of other types; name the types, as in subject:Patient.name"
            );
            return Err(Issue::error(IssueCode::TooCostly, text));
        }
        Ok(Query { filters: vec![self.link(of, rest, sent)?], ..Query::all(of) })
    }

    /// One more reference is followed.
    fn step<'s>(&self, sent: Sent<'s>) -> Result<Sent<'s>, Issue> {
        let depth_max = self.options.chain_depth_max.min(DEPTH_MAX);
        if sent.followed >= depth_max {
            let text = format!(
                "a search parameter follows more than {depth_max} references (limits.search.chain_depth_max)"
            );
            return Err(Issue::error(IssueCode::TooCostly, text));
        }
        Ok(Sent { followed: sent.followed + 1, ..sent })
    }
}

fn known(of: ResourceType, name: &str) -> Result<&'static Parameter, Issue> {
    parameter(of, name).ok_or_else(|| {
        let text = format!("{of} has no search parameter {}", printable(name));
        Issue::error(IssueCode::NotSupported, text)
    })
}

fn type_named(name: &str) -> Result<ResourceType, Issue> {
    ResourceType::from_name(name).ok_or_else(|| {
        Issue::error(IssueCode::NotSupported, format!("there is no resource type {}", printable(name)))
    })
}

/// The type that a link names, when its parameter can lead there.
fn named(parameter: &Parameter, name: &str) -> Result<ResourceType, Issue> {
    let of = type_named(name)?;
    if leads_to(parameter, of) {
        return Ok(of);
    }
    let text = format!("{} of {} never refers to {of}", parameter.name, parameter.resource_type);
    Err(Issue::error(IssueCode::NotSupported, text))
}

fn leads_to(parameter: &Parameter, of: ResourceType) -> bool {
    parameter.targets.is_empty() || parameter.targets.contains(&of)
}

/// The types that a link without one leads to: all that have what follows. What refers to another type has nothing that could match.
fn types(parameter: &Parameter, rest: &str) -> Result<Vec<ResourceType>, Issue> {
    let first = rest.split(['.', ':']).next().unwrap_or_default();
    let has_it = |of: &ResourceType| match rest.strip_prefix("_has:") {
        Some(rest) => refers(rest, *of),
        None => super::parameter(*of, first).is_some(),
    };
    let name = format!("{} of {}", parameter.name, parameter.resource_type);
    if parameter.targets.is_empty() {
        let example = format!("{}:Patient.{}", parameter.name, printable(first));
        let text = format!("{name} can refer to any type; name the type, as in {example}");
        return Err(Issue::error(IssueCode::NotSupported, text));
    }
    let types: Vec<ResourceType> = parameter.targets.iter().copied().filter(has_it).collect();
    if types.is_empty() {
        let text = format!("nothing that {name} refers to has the search parameter {}", printable(first));
        return Err(Issue::error(IssueCode::NotSupported, text));
    }
    Ok(types)
}

/// Whether `Type:reference:…` leads to a type.
fn refers(rest: &str, of: ResourceType) -> bool {
    let mut parts = rest.split(':');
    let source = parts.next().and_then(ResourceType::from_name);
    let by = source.zip(parts.next()).and_then(|(source, name)| parameter(source, name));
    by.is_some_and(|by| leads_to(by, of))
}

/// A parameter that can be followed: it holds references, and nothing but references. Canonical URLs name a definition by its `url`, whose versions
/// may be several; a Bundle holds its resources itself.
fn followed(parameter: &'static Parameter) -> Result<&'static Parameter, Issue> {
    let name = || format!("{} of {}", parameter.name, parameter.resource_type);
    if parameter.param_type != ParamType::Reference {
        let text = format!("{} is no reference", name());
        return Err(Issue::error(IssueCode::NotSupported, text));
    }
    let mut nodes: Vec<&Node> =
        table(parameter.resource_type).map_or(Vec::new(), |table| table.plan.iter().collect());
    while let Some(node) = nodes.pop() {
        let is_other =
            node.leaves.iter().any(|l| l.parameter == parameter.position && l.kind != Kind::Reference);
        if is_other {
            let text = format!("{} holds canonical URLs or whole resources, which are not followed", name());
            return Err(Issue::error(IssueCode::NotSupported, text));
        }
        nodes.extend(&node.children);
    }
    Ok(parameter)
}

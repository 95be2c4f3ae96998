//! From a SearchParameter to the steps that lead to its values in JSON, and what kind of value stands there.

use serde_json::Value;

use crate::elements::{Elements, Place};
use crate::expression::{Expr, Test, parse};
use crate::{list, text};

/// A way through the JSON of a resource. A step is a mark and its argument:
/// `.member` (`.member[n]`: one item), `+url` extensions with this URL, `^url` elements that have such an extension, `?member=text`,
/// `~Type` references to a type, `%` the resource, `!` existence, `$` a composite, `#n` its component.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) steps: Vec<String>,
    place: Place,
}

/// A way and the kind of value at its end.
pub(crate) struct Leaf {
    pub(crate) steps: Vec<String>,
    pub(crate) kind: String,
    /// What a reference there may point to; empty = anything.
    pub(crate) targets: Vec<String>,
}

/// The parts of a name and of an address that are searched as strings, each on its own. `src/search/values.rs` takes them apart.
const NAME: [&str; 5] = ["family", "given", "prefix", "suffix", "text"];
const ADDRESS: [&str; 7] = ["line", "city", "district", "state", "postalCode", "country", "text"];

impl Leaf {
    /// Whether every value that `other` offers is also offered here: the same place, perhaps with a condition, or a part of it.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let Some(rest) = other.steps.strip_prefix(self.steps.as_slice()) else { return false };
        let part = |parts: &[&str]| {
            other.kind == "string"
                && matches!(rest, [one] if one.strip_prefix('.').is_some_and(|member| parts.contains(&member)))
        };
        match self.kind.as_str() {
            "name" if part(&NAME) => true,
            "address" if part(&ADDRESS) => true,
            // a reference to one type is told from its text; other conditions on it are not
            "reference" => self.kind == other.kind && rest.iter().all(|step| step.starts_with('~')),
            kind => kind == other.kind && rest.iter().all(|step| step.starts_with('?')),
        }
    }
}

/// The leaves of a parameter that is no composite.
pub(crate) fn leaves(of: &str, parameter: &Value, elements: &Elements) -> Result<Vec<Leaf>, String> {
    let kind = text(parameter, "type");
    let scope = Scope { resource: of, context: &[], elements };
    match parse(text(parameter, "expression"))? {
        Expr::NotFalse(path) => {
            let ways = scope.ways(&path)?.into_iter();
            let exists = |way: Way| Leaf {
                steps: prepend("!", way.steps),
                kind: "exists".to_owned(),
                targets: Vec::new(),
            };
            Ok(ways.map(exists).collect())
        }
        expr => fit(scope.ways(&expr)?, kind, elements),
    }
}

/// One base of a composite, and below it the leaves of each component.
pub(crate) type Base = (Vec<String>, Vec<Vec<Leaf>>);

/// The bases of a composite whose components are defined by these parameters.
pub(crate) fn composite(
    of: &str,
    parameter: &Value,
    components: &[&Value],
    elements: &Elements,
) -> Result<Vec<Base>, String> {
    let scope = Scope { resource: of, context: &[], elements };
    let bases = scope.ways(&parse(text(parameter, "expression"))?)?;
    let one = |base: Way| {
        let inner = Way { steps: Vec::new(), place: base.place };
        let scope = Scope { resource: of, context: std::slice::from_ref(&inner), elements };
        let parts = list(parameter, "component").zip(components).map(|(component, definition)| {
            let ways = scope.ways(&parse(text(component, "expression"))?)?;
            fit(ways, text(definition, "type"), elements)
        });
        Ok((base.steps, parts.collect::<Result<_, String>>()?))
    };
    bases.into_iter().map(one).collect()
}

fn prepend(step: &str, mut steps: Vec<String>) -> Vec<String> {
    steps.insert(0, step.to_owned());
    steps
}

/// Keeps the ways whose values the parameter type can use; an error when there are none.
fn fit(ways: Vec<Way>, kind: &str, elements: &Elements) -> Result<Vec<Leaf>, String> {
    let mut leaves = Vec::new();
    for way in ways {
        let extension = way.place.type_code == "Extension";
        let values = if extension { member(&way, "value", elements) } else { vec![way] };
        for way in values {
            if let Some(kind) = value_kind(kind, &way.place, elements) {
                leaves.push(Leaf { steps: way.steps, kind, targets: way.place.targets });
            }
        }
    }
    if leaves.is_empty() { Err(format!("no value fits {kind}")) } else { Ok(leaves) }
}

/// The names are read by `src/search/plan.rs`.
fn value_kind(parameter: &str, place: &Place, elements: &Elements) -> Option<String> {
    let kind = match (parameter, place.type_code.as_str()) {
        ("token", "code") => {
            let system = place.value_set.as_deref().and_then(|url| elements.system(url));
            return Some(system.map_or_else(|| "code".to_owned(), |system| format!("code={system}")));
        }
        ("token", "CodeableConcept") => "concept",
        ("token", "Coding") => "coding",
        ("token", "Identifier") => "identifier",
        ("token", "ContactPoint") => "contact",
        ("token", "boolean") => "boolean",
        ("token", "string" | "id" | "markdown" | "uri" | "url" | "canonical" | "oid" | "uuid") => "code",
        ("reference", "Reference") => "reference",
        ("reference", "canonical" | "uri" | "url" | "oid" | "uuid") => "canonical",
        ("reference", "Resource") => "resource",
        ("string", "string" | "markdown" | "code" | "id" | "uri" | "url") => "string",
        ("string", "HumanName") => "name",
        ("string", "Address") => "address",
        ("string", "CodeableConcept" | "Annotation") => "text",
        ("date", "date" | "dateTime" | "instant") => "date",
        ("date", "Period") => "period",
        ("date", "Timing") => "timing",
        ("number", "decimal" | "integer" | "positiveInt" | "unsignedInt") => "number",
        ("number" | "quantity", "Range") => "range",
        ("quantity", "Quantity" | "Age" | "Duration" | "Count" | "Distance" | "SimpleQuantity") => "quantity",
        ("quantity", "Money") => "money",
        ("uri", "uri" | "url" | "oid" | "uuid") => "uri",
        ("uri", "canonical") => "canonical-uri",
        _ => return None,
    };
    Some(kind.to_owned())
}

struct Scope<'s> {
    resource: &'s str,
    /// Where names start; empty = at the resource.
    context: &'s [Way],
    elements: &'s Elements,
}

impl Scope<'_> {
    fn ways(&self, expr: &Expr) -> Result<Vec<Way>, String> {
        Ok(match expr {
            Expr::Name(name) if matches!(name.as_str(), "Resource" | "DomainResource") => {
                self.root(Vec::new())
            }
            Expr::Name(name) if name == self.resource => self.root(Vec::new()),
            // the branch of another type
            Expr::Name(name) if self.elements.is_resource(name) => Vec::new(),
            Expr::Name(name) if self.context.is_empty() => self.members(self.root(Vec::new()), name)?,
            Expr::Name(name) => self.members(self.context.to_vec(), name)?,
            Expr::Resource => self.root(vec!["%".to_owned()]),
            Expr::Member(base, name) => self.members(self.ways(base)?, name)?,
            Expr::OfType(base, name) => {
                let mut ways = self.ways(base)?;
                ways.retain(|way| way.place.type_code.eq_ignore_ascii_case(name));
                ways
            }
            Expr::Index(base, n) => {
                let mut ways = self.ways(base)?;
                for last in ways.iter_mut().filter_map(|way| way.steps.last_mut()) {
                    last.push_str(&format!("[{n}]"));
                }
                ways
            }
            Expr::Where(base, test) => {
                let step = match test {
                    Test::Equals(member, text) => format!("?{member}={text}"),
                    Test::ResolvesTo(name) => format!("~{name}"),
                    Test::HasExtension(url) => format!("^{url}"),
                };
                let mut ways = self.ways(base)?;
                for way in &mut ways {
                    way.steps.push(step.clone());
                    if let Test::ResolvesTo(name) = test {
                        way.place.targets = vec![name.clone()];
                    }
                }
                ways
            }
            Expr::Extension(base, url) => {
                let extension =
                    |way: Way| Way { place: self.elements.root("Extension"), ..way.then(format!("+{url}")) };
                self.ways(base)?.into_iter().map(extension).collect()
            }
            Expr::Union(branches) => {
                let ways: Result<Vec<_>, _> = branches.iter().map(|branch| self.ways(branch)).collect();
                ways?.concat()
            }
            Expr::NotFalse(_) => return Err("existence is only understood at the top".to_owned()),
        })
    }

    fn root(&self, steps: Vec<String>) -> Vec<Way> {
        vec![Way { steps, place: self.elements.root(self.resource) }]
    }

    fn members(&self, bases: Vec<Way>, name: &str) -> Result<Vec<Way>, String> {
        let ways: Vec<Way> = bases.iter().flat_map(|way| member(way, name, self.elements)).collect();
        if ways.is_empty() && !bases.is_empty() { Err(format!("no member {name}")) } else { Ok(ways) }
    }
}

fn member(way: &Way, name: &str, elements: &Elements) -> Vec<Way> {
    let found = elements.members(&way.place, name).into_iter();
    found.map(|(json, place)| Way { place, ..way.clone().then(format!(".{json}")) }).collect()
}

impl Way {
    fn then(mut self, step: String) -> Self {
        self.steps.push(step);
        self
    }
}

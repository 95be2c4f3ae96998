//! SearchParameters as one tree of extraction steps for each resource type, written as lines (tab separated):
//! `=type`, then its parameters in order of name as `P name type url targets components covered`, then the tree in preorder as
//! `N depth step leaves`. `~` at the start of a URL stands for [`BASE`]; targets, components and covered are comma separated (the last
//! two are positions of parameters); a leaf is `position:kind`, leaves are separated by `;`. Steps and kinds: `plan.rs`.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use crate::elements::Elements;
use crate::plan::{self, Base, Leaf};
use crate::{list, text};

const BASE: &str = "http://hl7.org/fhir/SearchParameter/";

pub(crate) fn compile(elements: &Elements, definitions: &[Value], out: &Path) -> Result<(), Box<dyn Error>> {
    let by_url: HashMap<&str, &Value> = definitions.iter().map(|d| (text(d, "url"), d)).collect();
    let mut lines = String::new();
    for of in elements.concrete() {
        let parameters = parameters_of(of, definitions);
        let mut tree = Tree::default();
        let simple_leaves = simple_leaves(of, &parameters, elements)?;
        writeln!(lines, "={of}")?;
        for (position, (name, parameter)) in parameters.iter().enumerate() {
            let failed = |error: String| format!("{of} {name}: {error}");
            let (targets, components) = if text(parameter, "type") == "composite" {
                let components =
                    composite(of, position, parameter, &by_url, elements, &mut tree).map_err(failed)?;
                (Vec::new(), positions(&components, &parameters)?)
            } else {
                (simple(position, parameter, &simple_leaves[position], &mut tree), Vec::new())
            };
            let url = text(parameter, "url");
            let url = url.strip_prefix(BASE).map_or_else(|| url.to_owned(), |rest| format!("~{rest}"));
            let (kind, targets, components) =
                (text(parameter, "type"), targets.join(","), components.join(","));
            let covered = covered_by(position, &simple_leaves).join(",");
            writeln!(lines, "P\t{name}\t{kind}\t{url}\t{targets}\t{components}\t{covered}")?;
        }
        tree.write(0, &mut lines)?;
    }
    std::fs::write(out, lines)?;
    Ok(())
}

type Parameters<'d> = BTreeMap<&'d str, &'d Value>;

/// What can be searched by an expression, in order of name. `special` parameters are not values to extract.
fn parameters_of<'d>(of: &str, definitions: &'d [Value]) -> Parameters<'d> {
    let applies = |definition: &&Value| {
        let mut bases = list(definition, "base").filter_map(Value::as_str);
        definition["expression"].is_string()
            && text(definition, "type") != "special"
            && bases.any(|base| base == of || base == "Resource" || base == "DomainResource")
    };
    definitions.iter().filter(applies).map(|d| (text(d, "code"), d)).collect()
}

/// The parameters a composite consists of, one for each component.
fn components<'d>(parameter: &Value, by_url: &HashMap<&str, &'d Value>) -> Result<Vec<&'d Value>, String> {
    list(parameter, "component")
        .map(|component| {
            let url = text(component, "definition");
            by_url.get(url).copied().ok_or_else(|| format!("no component {url}"))
        })
        .collect()
}

/// Two definitions of a composite stand in the wrong order in R4 (DocumentReference-relationship): take the order that fits.
fn fitting_components<'d>(
    of: &str,
    parameter: &Value,
    by_url: &HashMap<&str, &'d Value>,
    elements: &Elements,
) -> Result<(Vec<&'d Value>, Vec<Base>), String> {
    let mut definitions = components(parameter, by_url)?;
    if let Ok(bases) = plan::composite(of, parameter, &definitions, elements) {
        return Ok((definitions, bases));
    }
    definitions.reverse();
    let bases = plan::composite(of, parameter, &definitions, elements)?;
    Ok((definitions, bases))
}

/// The leaves of each parameter; none for composites, and for what the server says of a resource, which is no value of its body.
fn simple_leaves(
    of: &str,
    parameters: &Parameters<'_>,
    elements: &Elements,
) -> Result<Vec<Vec<Leaf>>, String> {
    let leaves = |(name, parameter): (&&str, &&Value)| {
        if text(parameter, "type") == "composite" || matches!(*name, "_id" | "_lastUpdated") {
            return Ok(Vec::new());
        }
        plan::leaves(of, parameter, elements).map_err(|error| format!("{of} {name}: {error}"))
    };
    parameters.iter().map(leaves).collect()
}

/// The parameters that offer every value this one does. Of two that offer the same, the later is covered by the earlier.
fn covered_by(position: usize, all: &[Vec<Leaf>]) -> Vec<String> {
    let covers = |by: usize, one: usize| {
        !all[one].is_empty() && all[one].iter().all(|leaf| all[by].iter().any(|wider| wider.covers(leaf)))
    };
    let wider = (0..all.len())
        .filter(|by| *by != position && covers(*by, position) && (*by < position || !covers(position, *by)));
    wider.map(|by| by.to_string()).collect()
}

/// Adds the leaves of a parameter and returns what it may refer to; empty = anything.
fn simple(position: usize, parameter: &Value, leaves: &[Leaf], tree: &mut Tree) -> Vec<String> {
    for leaf in leaves {
        tree.insert(&leaf.steps, format!("{position}:{}", leaf.kind));
    }
    if text(parameter, "type") == "reference" { targets(parameter, leaves) } else { Vec::new() }
}

/// The targets of the definition, which may be shared by many types, as far as the elements of this type allow them.
fn targets(parameter: &Value, leaves: &[Leaf]) -> Vec<String> {
    let declared: Vec<String> =
        list(parameter, "target").filter_map(|t| t.as_str().map(str::to_owned)).collect();
    let anything = declared.len() > 100;
    if leaves.iter().any(|leaf| leaf.targets.is_empty()) {
        return if anything { Vec::new() } else { declared };
    }
    let mut targets: Vec<String> = leaves.iter().flat_map(|leaf| leaf.targets.clone()).collect();
    targets.retain(|target| anything || declared.is_empty() || declared.contains(target));
    targets.sort_unstable();
    targets.dedup();
    targets
}

/// Adds the leaves of a composite and returns the parameters it consists of.
fn composite<'d>(
    of: &str,
    position: usize,
    parameter: &Value,
    by_url: &HashMap<&str, &'d Value>,
    elements: &Elements,
    tree: &mut Tree,
) -> Result<Vec<&'d Value>, String> {
    let (definitions, bases) = fitting_components(of, parameter, by_url, elements)?;
    for (base, parts) in bases {
        let steps = [base, vec![format!("${position}")]].concat();
        for (number, leaves) in parts.iter().enumerate() {
            for leaf in leaves {
                let steps = [&steps[..], &[format!("#{number}")], &leaf.steps].concat();
                tree.insert(&steps, format!("{position}:{}", leaf.kind));
            }
        }
    }
    Ok(definitions)
}

fn positions(components: &[&Value], all: &Parameters<'_>) -> Result<Vec<String>, String> {
    let position = |component: &&Value| {
        let code = text(component, "code");
        let at = all.keys().position(|name| *name == code);
        at.map(|at| at.to_string()).ok_or_else(|| format!("no component parameter {code}"))
    };
    components.iter().map(position).collect()
}

/// Steps with the leaves they end in; common beginnings are shared.
#[derive(Default)]
struct Tree {
    step: String,
    leaves: Vec<String>,
    children: Vec<Tree>,
}

impl Tree {
    fn insert(&mut self, steps: &[String], leaf: String) {
        let mut node = self;
        for step in steps {
            let at = node.children.iter().position(|child| child.step == *step).unwrap_or_else(|| {
                node.children.push(Self { step: step.clone(), ..Self::default() });
                node.children.len() - 1
            });
            node = &mut node.children[at];
        }
        if !node.leaves.contains(&leaf) {
            node.leaves.push(leaf);
        }
    }

    fn write(&self, depth: usize, lines: &mut String) -> std::fmt::Result {
        for child in &self.children {
            writeln!(lines, "N\t{depth}\t{}\t{}", child.step, child.leaves.join(";"))?;
            child.write(depth + 1, lines)?;
        }
        Ok(())
    }
}

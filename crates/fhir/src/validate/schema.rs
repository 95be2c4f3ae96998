//! The StructureDefinitions of R4 as a table: definition (resource type, data type or backbone path) to its members.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::LazyLock;

/// A definition: `Patient`, `HumanName`, `Patient.contact`.
#[derive(Default)]
pub(super) struct Definition {
    /// Members in [`order`]; choices under each of their names.
    children: Vec<(Box<str>, Child)>,
    /// What must be there.
    pub(super) required: Vec<Required>,
}

/// A member.
pub(super) struct Child {
    /// Its definition: a primitive or data type, or a backbone path.
    pub(super) of: &'static str,
    /// Whether it is a list.
    pub(super) repeats: bool,
    /// The element it is a choice of (`value` of `valueString`).
    pub(super) choice: Option<&'static str>,
    /// The codes of a required value set that can be enumerated.
    pub(super) binding: Option<&'static [&'static str]>,
    /// Types a Reference may name; empty = any.
    pub(super) targets: Vec<&'static str>,
}

/// A required member, under any of its names.
pub(super) struct Required {
    pub(super) label: String,
    pub(super) names: Vec<&'static str>,
}

impl Definition {
    pub(super) fn child(&self, name: &str) -> Option<&Child> {
        let at = self.children.binary_search_by(|(known, _)| order(known, name)).ok()?;
        Some(&self.children[at].1)
    }

    /// The other names of the choice element that a member is a type of: `valueQuantity` of `valueString`.
    pub(super) fn other_types(&self, name: &str) -> Vec<&str> {
        let Some(choice) = self.child(name).and_then(|child| child.choice) else { return Vec::new() };
        let others =
            self.children.iter().filter(|(known, child)| child.choice == Some(choice) && **known != *name);
        others.map(|(known, _)| &**known).collect()
    }
}

/// The order of the children: by length first, because that tells most names apart without reading them.
fn order(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

const LINES: &str = include_str!(concat!(env!("OUT_DIR"), "/schema.tsv"));

pub(super) static SCHEMA: LazyLock<HashMap<&'static str, Definition>> = LazyLock::new(|| {
    let sets: HashMap<&str, Vec<&'static str>> = LINES
        .lines()
        .filter_map(|line| line.strip_prefix("V\t")?.split_once('\t'))
        .map(|(url, codes)| (url, codes.split(',').collect()))
        .collect();
    let sets: HashMap<&str, &'static [&'static str]> =
        sets.into_iter().map(|(url, codes)| (url, &*Box::leak(codes.into_boxed_slice()))).collect();
    let mut schema: HashMap<&'static str, Definition> = HashMap::new();
    for line in LINES.lines() {
        if let ["E", path, min, max, types, binding, targets] =
            line.split('\t').collect::<Vec<_>>().as_slice()
            && let Some((parent, name)) = path.rsplit_once('.')
        {
            let element = Element {
                path,
                name,
                required: *min != "0",
                repeats: *max != "1",
                types,
                binding: sets.get(binding).copied(),
                targets,
            };
            if *max != "0" {
                element.add_to(schema.entry(parent).or_default());
            }
        }
    }
    for definition in schema.values_mut() {
        definition.children.sort_by(|a, b| order(&a.0, &b.0));
        definition.children.shrink_to_fit();
    }
    schema
});

struct Element {
    path: &'static str,
    name: &'static str,
    required: bool,
    repeats: bool,
    types: &'static str,
    binding: Option<&'static [&'static str]>,
    targets: &'static str,
}

impl Element {
    fn add_to(&self, definition: &mut Definition) {
        let choice = self.name.strip_suffix("[x]");
        let mut names = Vec::new();
        for of in self.types.split(',') {
            let name: Box<str> =
                choice.map_or_else(|| self.name.into(), |base| format!("{base}{}", capital(of)).into());
            let of = match of {
                "BackboneElement" | "Element" => self.path,
                other => other.strip_prefix('@').unwrap_or(other),
            };
            if self.required {
                names.push(&*Box::leak(name.clone()));
            }
            definition.children.push((
                name,
                Child {
                    of,
                    repeats: self.repeats,
                    choice,
                    binding: self.binding,
                    targets: self.targets.split(',').filter(|t| !t.is_empty()).collect(),
                },
            ));
        }
        if self.required {
            definition.required.push(Required { label: self.name.to_owned(), names });
        }
    }
}

fn capital(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

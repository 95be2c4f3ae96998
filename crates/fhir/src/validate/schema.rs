//! The StructureDefinitions of R4 as a table: definition (resource type, data type or backbone path) to its members.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::primitive::Primitive;

/// All definitions. They name each other by number, so that a walk through a resource looks up only the first.
#[derive(Default)]
pub(crate) struct Schema {
    by_name: HashMap<&'static str, usize>,
    all: Vec<Definition>,
}

/// A definition: `Patient`, `HumanName`, `Patient.contact`.
#[derive(Default)]
pub(crate) struct Definition {
    pub(crate) name: &'static str,
    /// The fingerprints of the members' names, sorted: searched instead of the names, which lie elsewhere each.
    fingerprints: Vec<u64>,
    /// Members in the order of their fingerprints; choices under each of their names.
    children: Vec<(Box<str>, Child)>,
    /// What must be there: at most 64 members.
    pub(crate) required: Vec<Required>,
    /// Elements met so far, while the lines are read; a choice is one.
    elements: u8,
}

/// A member.
pub(crate) struct Child {
    /// Its definition: a primitive or data type, or a backbone path.
    pub(crate) of: &'static str,
    pub(crate) kind: Kind,
    /// Whether it is a list.
    pub(crate) repeats: bool,
    /// The element it is a choice of (`value` of `valueString`).
    pub(crate) choice: Option<&'static str>,
    /// The codes of a required value set that can be enumerated.
    pub(crate) binding: Option<&'static [&'static str]>,
    /// Types a Reference may name; empty = any.
    pub(crate) targets: Vec<&'static str>,
    /// Which of the required members it is.
    pub(crate) required: Option<usize>,
    /// Which element of the definition it is, in the order of the snapshot; below 128. The types of a choice have the same.
    pub(crate) order: u8,
    /// Whether XML writes it as an attribute and not as an element.
    pub(crate) attribute: bool,
}

/// What a member holds.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Primitive(Primitive),
    /// A resource of any type.
    Resource,
    /// An object of the definition with this number; `None` = a type that R4 leaves open.
    Object(Option<usize>),
}

/// A required member, under any of its names.
pub(crate) struct Required {
    pub(crate) label: String,
    pub(crate) names: Vec<&'static str>,
}

impl Schema {
    pub(crate) fn get(&self, name: &str) -> Option<&Definition> {
        self.by_name.get(name).map(|at| &self.all[*at])
    }

    pub(crate) fn at(&self, number: usize) -> &Definition {
        &self.all[number]
    }

    fn entry(&mut self, name: &'static str) -> &mut Definition {
        let at = *self.by_name.entry(name).or_insert_with(|| {
            self.all.push(Definition { name, ..Definition::default() });
            self.all.len() - 1
        });
        &mut self.all[at]
    }

    /// All members are known: they are sorted, and those that are objects find their definition.
    fn complete(&mut self) {
        for definition in &mut self.all {
            assert!(definition.required.len() <= 64, "{} has too many required members", definition.name);
            assert!(definition.elements <= 128, "{} has too many elements", definition.name);
            definition.children.sort_by_key(|(name, _)| fingerprint(name));
            definition.children.shrink_to_fit();
            definition.fingerprints = definition.children.iter().map(|(name, _)| fingerprint(name)).collect();
            for (_, child) in &mut definition.children {
                if let Kind::Object(at) = &mut child.kind {
                    *at = self.by_name.get(child.of).copied();
                }
            }
        }
    }
}

impl Definition {
    pub(crate) fn child(&self, name: &str) -> Option<&Child> {
        let wanted = fingerprint(name);
        let first = self.fingerprints.partition_point(|known| *known < wanted);
        let same = self.children[first..].iter().zip(&self.fingerprints[first..]);
        same.take_while(|(_, known)| **known == wanted)
            .map(|(child, _)| child)
            .find(|(known, _)| **known == *name)
            .map(|(_, child)| child)
    }

    /// All members, choices under each of their names.
    #[cfg(test)]
    pub(crate) fn members(&self) -> impl Iterator<Item = (&str, &Child)> {
        self.children.iter().map(|(name, child)| (&**name, child))
    }

    /// The other names of the choice element that a member is a type of: `valueQuantity` of `valueString`.
    pub(crate) fn other_types(&self, name: &str) -> Vec<&str> {
        let Some(choice) = self.child(name).and_then(|child| child.choice) else { return Vec::new() };
        let others =
            self.children.iter().filter(|(known, child)| child.choice == Some(choice) && **known != *name);
        others.map(|(known, _)| &**known).collect()
    }
}

/// A number that tells most names apart: made of the length and the bytes at both ends.
fn fingerprint(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let ends = bytes.len().min(8);
    let (mut first, mut last) = ([0; 8], [0; 8]);
    first[..ends].copy_from_slice(&bytes[..ends]);
    last[..ends].copy_from_slice(&bytes[bytes.len() - ends..]);
    u64::from_le_bytes(first).wrapping_mul(31) ^ u64::from_le_bytes(last).rotate_left(29) ^ bytes.len() as u64
}

const LINES: &str = include_str!(concat!(env!("OUT_DIR"), "/schema.tsv"));

pub(crate) static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let sets: HashMap<&str, Vec<&'static str>> = LINES
        .lines()
        .filter_map(|line| line.strip_prefix("V\t")?.split_once('\t'))
        .map(|(url, codes)| (url, codes.split(',').collect()))
        .collect();
    let sets: HashMap<&str, &'static [&'static str]> =
        sets.into_iter().map(|(url, codes)| (url, &*Box::leak(codes.into_boxed_slice()))).collect();
    let mut schema = Schema::default();
    for line in LINES.lines() {
        if let ["E", path, min, max, types, binding, targets, attribute] =
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
                attribute: *attribute == "a",
            };
            if *max != "0" {
                element.add_to(schema.entry(parent));
            }
        }
    }
    schema.complete();
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
    attribute: bool,
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
                    kind: match Primitive::named(of) {
                        Some(primitive) => Kind::Primitive(primitive),
                        None if of == "Resource" => Kind::Resource,
                        None => Kind::Object(None),
                    },
                    repeats: self.repeats,
                    choice,
                    binding: self.binding,
                    targets: self.targets.split(',').filter(|t| !t.is_empty()).collect(),
                    required: self.required.then_some(definition.required.len()),
                    order: definition.elements,
                    attribute: self.attribute,
                },
            ));
        }
        definition.elements += 1;
        if self.required {
            definition.required.push(Required { label: self.name.to_owned(), names });
        }
    }
}

fn capital(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

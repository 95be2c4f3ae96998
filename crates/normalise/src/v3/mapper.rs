//! Runs rule rows over elements: values into FHIR elements, with lineage and the report of what nothing consumed.

use std::collections::{HashMap, HashSet};

use hilum_fhir::{Action, Change, Issue, IssueCode, Resource, Timestamp};
use hilum_wire::v3::{Message, NAMESPACE};
use roxmltree::{Node, NodeId};
use serde_json::{Map, Value, json};

use super::convert;
use super::table::{Convert, Leaf, Path, Row, Source};
use crate::element::{is_worth, path_text, set};
use crate::rules::{Condition, Index, Step, Tables};
use crate::{Context, Lineage, Normalised};

/// Repetitions of an element that fills a list; an interaction with more is refused.
const REPEATS_MAX: usize = 1_000;
/// Places listed in a report.
const UNMAPPED_MAX: usize = 1_000;
const INSTANCE: &str = "http://www.w3.org/2001/XMLSchema-instance";
/// Attributes that say what an element is, not what it holds.
const STRUCTURE: [&str; 9] = [
    "classCode",
    "moodCode",
    "typeCode",
    "determinerCode",
    "contextConductionInd",
    "contextControlCode",
    "ITSVersion",
    "nullFlavor",
    "schemaLocation",
];

/// One interaction being mapped.
pub(super) struct Mapper<'m> {
    pub(super) message: &'m Message,
    pub(super) tables: &'m Tables,
    pub(super) context: &'m Context,
    pub(super) issues: Vec<Issue>,
    pub(super) happened: Option<Timestamp>,
    changes: Vec<Change>,
    lineage: Vec<Lineage>,
    touched: HashSet<NodeId>,
}

/// An element and where it is.
#[derive(Clone)]
pub(super) struct Place<'t, 'i> {
    pub(super) node: Node<'t, 'i>,
    /// `/PRPA_IN201301UV02/controlActProcess/subject[2]`
    pub(super) path: String,
}

/// A resource being filled.
pub(super) struct Target {
    pub(super) value: Value,
    /// How much each identifier is trusted to name a patient, 0 most: by the element it came from.
    pub(super) ranks: Vec<u8>,
    lineage: Vec<Lineage>,
}

impl Target {
    pub(super) fn new(of: &str) -> Self {
        Self { value: json!({ "resourceType": of }), ranks: Vec::new(), lineage: Vec::new() }
    }

    /// The resource, whose JSON object was built by rules.
    pub(super) fn resource(&self) -> Resource {
        Resource::from_value(self.value.clone())
            .unwrap_or_else(|_| unreachable!("targets are made with a type"))
    }
}

impl<'m> Mapper<'m> {
    pub(super) fn new(message: &'m Message, tables: &'m Tables, context: &'m Context) -> Self {
        Self {
            message,
            tables,
            context,
            issues: Vec::new(),
            happened: None,
            changes: Vec::new(),
            lineage: Vec::new(),
            touched: HashSet::new(),
        }
    }

    /// Adds a change with its resource's lineage.
    pub(super) fn push(&mut self, action: Action, lineage: Target) {
        let bits = self.context.seed.wrapping_add(self.changes.len() as u128 + 1);
        let url = format!("urn:uuid:{}", uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid());
        let change = u32::try_from(self.changes.len()).unwrap_or(u32::MAX);
        self.lineage.extend(lineage.lineage.into_iter().map(|l| Lineage { change, ..l }));
        self.changes.push(Change { happened: self.happened, ..Change::new(action) }.with_full_url(url));
    }

    /// An attribute of an element, trimmed and without control characters; the element counts as consumed.
    pub(super) fn attribute(&mut self, node: Node<'_, '_>, name: &str) -> Option<String> {
        self.touched.insert(node.id());
        clean(node.attribute(name)?)
    }

    /// The text of an element itself, white space folded; the element counts as consumed.
    pub(super) fn text(&mut self, node: Node<'_, '_>) -> Option<String> {
        self.touched.insert(node.id());
        own_text(node)
    }

    /// Runs the rules of a map over an element.
    pub(super) fn run(&mut self, map: &str, place: &Place<'_, '_>, target: &mut Target) {
        self.touched.insert(place.node.id());
        let tables = self.tables;
        for row in tables.v3.map(map).iter().filter(|row| holds(row.condition.as_ref(), place.node)) {
            let Some(steps) = &row.target else {
                self.ignore(row, place);
                continue;
            };
            for (value, range) in self.values(row, steps, place) {
                if let Some(from) = &range {
                    target.lineage.push(Lineage {
                        change: 0,
                        path: path_text(steps, &target.value),
                        source: from.path.clone(),
                        bytes: self.message.bytes_of(&from.node.range()),
                        rule: row.rule.clone(),
                    });
                }
                set(&mut target.value, steps, value);
                if steps[0].name == "identifier" {
                    target.ranks.push(rank(&row.source));
                }
            }
        }
    }

    /// The values a row makes, each with the place it came from (none for constants).
    fn values<'t, 'i>(
        &mut self,
        row: &Row,
        steps: &[Step],
        place: &Place<'t, 'i>,
    ) -> Vec<(Value, Option<Place<'t, 'i>>)> {
        let paths = match &row.source {
            Source::Fixed(text) => return vec![(convert::fixed(self, &row.convert, text), None)],
            Source::Paths(paths) => paths,
        };
        let found =
            paths.iter().flat_map(|path| find(place, path).into_iter().map(move |place| (place, &path.leaf)));
        let found: Vec<_> = found.take(REPEATS_MAX + 1).collect();
        let many = steps.iter().any(|step| step.index == Index::Append);
        if found.len() > REPEATS_MAX && (many || row.convert == Convert::Words) {
            self.refuse_repeats(&found[0].0);
            return Vec::new();
        }
        if row.convert == Convert::Words {
            let words: Vec<String> = found.iter().filter_map(|(place, _)| self.text(place.node)).collect();
            let first = found.into_iter().next().map(|(place, _)| place);
            return if words.is_empty() { Vec::new() } else { vec![(words.join(" ").into(), first)] };
        }
        let mut values = Vec::new();
        for (place, leaf) in found {
            if let Some(value) = self.convert(row, leaf, &place) {
                values.push((value, Some(place)));
                if !many {
                    break;
                }
            }
        }
        values
    }

    /// Said once of an element, however many rows read it.
    fn refuse_repeats(&mut self, place: &Place<'_, '_>) {
        if self.issues.last().is_some_and(|issue| issue.location.as_ref() == Some(&place.path)) {
            return;
        }
        let text = format!("the element is repeated more than {REPEATS_MAX} times; send it in parts");
        self.issues.push(Issue::error(IssueCode::TooLong, text).at(&place.path).hl7(102));
    }

    fn convert(&mut self, row: &Row, leaf: &Leaf, place: &Place<'_, '_>) -> Option<Value> {
        let Convert::Map(map) = &row.convert else { return convert::convert(self, row, leaf, place) };
        let mut parts = Target { value: Value::Object(Map::new()), ranks: Vec::new(), lineage: Vec::new() };
        self.run(map, place, &mut parts);
        let complete = parts.value.as_object().is_some_and(|o| !o.is_empty());
        (complete && is_worth(map, &parts.value)).then_some(parts.value)
    }

    fn ignore(&mut self, row: &Row, place: &Place<'_, '_>) {
        let Source::Paths(paths) = &row.source else { return };
        for found in paths.iter().flat_map(|path| find(place, path)) {
            self.touched.extend(found.node.descendants().map(|node| node.id()));
        }
    }

    /// The result: changes, issues, lineage, and every populated element nothing consumed.
    pub(super) fn finish(self, root: Node<'_, '_>) -> Normalised {
        let unmapped = unmapped(root, &self.touched);
        let rejected = self.issues.iter().any(Issue::rejects);
        let (changes, lineage) = if rejected { Default::default() } else { (self.changes, self.lineage) };
        Normalised { changes, issues: self.issues, unmapped, lineage }
    }
}

/// How much an identifier of this source is trusted to name the patient, 0 most: the ids of the role, those of the person, others.
fn rank(source: &Source) -> u8 {
    let Source::Paths(paths) = source else { return 3 };
    let elements = paths.first().map_or(&[][..], |path| path.elements.as_slice());
    match elements.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["id"] => 0,
        ["patientPerson", "id"] => 1,
        _ => 2,
    }
}

/// The elements a path leads to; those with a null flavour hold no value. Siblings are counted once, however many there are.
pub(super) fn find<'t, 'i>(place: &Place<'t, 'i>, path: &Path) -> Vec<Place<'t, 'i>> {
    let mut level = vec![place.clone()];
    for name in &path.elements {
        let mut below = Vec::new();
        for Place { node, path } in &level {
            let named = node.children().filter(|child| child.has_tag_name((NAMESPACE, name.as_str())));
            below.extend(named.enumerate().map(|(n, node)| {
                let index = if n == 0 { String::new() } else { format!("[{}]", n + 1) };
                Place { node, path: format!("{path}/{name}{index}") }
            }));
        }
        level = below;
    }
    level.retain(|place| match &path.leaf {
        Leaf::Element => !is_null(place.node),
        Leaf::Attribute(name) => {
            !is_null(place.node) && place.node.attribute(name.as_str()).is_some_and(|v| !v.trim().is_empty())
        }
        Leaf::Text => !is_null(place.node) && own_text(place.node).is_some(),
    });
    level
}

/// Sent to say that there is no value: it leaves what is known as it is. What still holds something (an original text, a
/// translation) is no null.
fn is_null(node: Node<'_, '_>) -> bool {
    node.attribute("nullFlavor").is_some()
        && !node.children().any(|child| child.is_element())
        && own_text(node).is_none()
}

fn own_text(node: Node<'_, '_>) -> Option<String> {
    let texts: String = node.children().filter(Node::is_text).filter_map(|text| text.text()).collect();
    clean(&texts).map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn clean(text: &str) -> Option<String> {
    let text: String = text.trim().chars().filter(|c| !c.is_control() || "\t\r\n".contains(*c)).collect();
    (!text.is_empty()).then_some(text)
}

fn holds(condition: Option<&Condition<Path>>, node: Node<'_, '_>) -> bool {
    let value = |path: &Path| first(node, path);
    match condition {
        None => true,
        Some(Condition::Valued(path)) => value(path).is_some(),
        Some(Condition::NotValued(path)) => value(path).is_none(),
        Some(Condition::In(path, list, wanted)) => value(path).is_some_and(|v| list.contains(&v)) == *wanted,
        Some(Condition::And(all)) => all.iter().all(|c| holds(Some(c), node)),
        Some(Condition::Or(any)) => any.iter().any(|c| holds(Some(c), node)),
    }
}

/// The first value a path leads to: an attribute, a text, or for an element anything it holds.
fn first(node: Node<'_, '_>, path: &Path) -> Option<String> {
    let found = find(&Place { node, path: String::new() }, path);
    found.into_iter().find_map(|Place { node, .. }| match &path.leaf {
        Leaf::Attribute(name) => clean(node.attribute(name.as_str())?),
        Leaf::Text => own_text(node),
        Leaf::Element => node.descendants().any(is_populated).then(String::new),
    })
}

/// Whether an element itself holds a value.
fn is_populated(node: Node<'_, '_>) -> bool {
    let holds = |a: roxmltree::Attribute<'_, '_>| {
        a.namespace() != Some(INSTANCE) && !STRUCTURE.contains(&a.name()) && !a.value().trim().is_empty()
    };
    node.is_element()
        && node.attribute("nullFlavor").is_none()
        && (node.attributes().any(holds) || own_text(node).is_some())
}

/// Populated elements nothing consumed, in their order. One pass, whatever the number of siblings.
fn unmapped(root: Node<'_, '_>, touched: &HashSet<NodeId>) -> Vec<String> {
    let mut found = Vec::new();
    // for each open element its path and how many children of each name it had so far
    let mut open: Vec<(Node<'_, '_>, String, HashMap<&str, usize>)> = Vec::new();
    for node in root.descendants().filter(Node::is_element) {
        while open.last().is_some_and(|(parent, ..)| Some(*parent) != node.parent()) {
            open.pop();
        }
        let name = node.tag_name().name();
        let number = open.last_mut().map_or(1, |(_, _, counts)| {
            let count = counts.entry(name).or_insert(0);
            *count += 1;
            *count
        });
        let is_wanted = is_populated(node) && !touched.contains(&node.id());
        if !is_wanted && !node.has_children() {
            continue;
        }
        let above = open.last().map_or("", |(_, path, _)| path.as_str());
        let path = if number == 1 { format!("{above}/{name}") } else { format!("{above}/{name}[{number}]") };
        if is_wanted {
            found.push(path.clone());
            if found.len() == UNMAPPED_MAX {
                break;
            }
        }
        open.push((node, path, HashMap::new()));
    }
    found
}

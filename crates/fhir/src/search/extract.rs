//! From a resource to its index entries: the type's plan is walked once over the JSON.

use serde_json::{Map, Value};
use smallvec::SmallVec;

use super::parameters::{Table, table};
use super::plan::{Kind, Leaf, Node, Step};
use super::values::{Seen, convert, points_to};
use super::{Context, Entries, Entry, EntryValue};
use crate::{Issue, IssueCode, Resource};

/// More unsearchable values than these are not listed one by one.
const ISSUES_MAX: usize = 20;

/// Everything `resource` offers to search. Never fails: what cannot be indexed becomes an issue.
pub fn index(resource: &Resource, context: &Context) -> Entries {
    let Some(table) = table(resource.resource_type()) else {
        return Entries { entries: Vec::new(), clinical_date: None, issues: Vec::new() };
    };
    let mut walk = Walk {
        table,
        context,
        root: resource.object(),
        entries: Vec::with_capacity(32),
        parts: None,
        trail: SmallVec::new(),
        issues: Vec::new(),
    };
    walk.steps(&table.plan, Seen::Object(resource.object()));
    let clinical_date = table.clinical.and_then(|position| clinical_date(position, &walk.entries));
    Entries { entries: walk.entries, clinical_date, issues: walk.issues }
}

/// The start of the earliest range; its end when the start is open.
fn clinical_date(position: usize, entries: &[Entry]) -> Option<i64> {
    let dates = entries.iter().filter(|entry| entry.parameter.position == position);
    let start = |entry: &Entry| match entry.value {
        EntryValue::Date(i64::MIN, high) => Some(high),
        EntryValue::Date(low, _) => Some(low),
        _ => None,
    };
    dates.filter_map(start).min()
}

struct Walk<'r> {
    table: &'static Table,
    context: &'r Context,
    root: &'r Map<String, Value>,
    entries: Vec<Entry>,
    /// Within a composite: the values of the component walked.
    parts: Option<Vec<EntryValue>>,
    /// Where the walk is: member and item.
    trail: SmallVec<[(&'static str, Option<usize>); 8]>,
    issues: Vec<Issue>,
}

/// The depth of recursion is that of the plan, never that of the input.
impl<'r> Walk<'r> {
    fn steps(&mut self, nodes: &'static [Node], from: Seen<'r>) {
        let Seen::Object(object) = from else { return };
        for node in nodes {
            self.step(node, object);
        }
    }

    fn step(&mut self, node: &'static Node, object: &'r Map<String, Value>) {
        let here = Seen::Object(object);
        match &node.step {
            Step::Member(name, item) => {
                if let Some(value) = object.get(*name) {
                    self.member(node, name, *item, value);
                }
            }
            Step::Extension(url) => {
                let extensions = object.get("extension").and_then(Value::as_array);
                for (item, extension) in extensions.into_iter().flatten().enumerate() {
                    if has_text(extension, "url", url) {
                        self.at(node, "extension", Some(item), extension);
                    }
                }
            }
            Step::HasExtension(url) => {
                let extensions = object.get("extension").and_then(Value::as_array);
                if extensions.is_some_and(|all| all.iter().any(|one| has_text(one, "url", url))) {
                    self.arrived(node, here);
                }
            }
            Step::Where(member, wanted) => {
                if object.get(*member).and_then(Value::as_str) == Some(wanted) {
                    self.arrived(node, here);
                }
            }
            Step::ResolvesTo(target) => {
                if points_to(object, *target) {
                    self.arrived(node, here);
                }
            }
            Step::Root => self.arrived(node, Seen::Object(self.root)),
            Step::Exists => self.exists(node, object),
            Step::Composite(position) => self.composite(*position, node, here),
            Step::Component => self.arrived(node, here),
        }
    }

    /// One value, or each item of a list.
    fn member(&mut self, node: &'static Node, name: &'static str, item: Option<usize>, value: &'r Value) {
        match (value, item) {
            (Value::Array(items), None) => {
                for (item, value) in items.iter().enumerate() {
                    self.at(node, name, Some(item), value);
                }
            }
            (Value::Array(items), Some(item)) => {
                if let Some(value) = items.get(item) {
                    self.at(node, name, Some(item), value);
                }
            }
            _ => self.at(node, name, None, value),
        }
    }

    fn at(&mut self, node: &'static Node, name: &'static str, item: Option<usize>, value: &'r Value) {
        self.trail.push((name, item));
        match Seen::of(value) {
            Some(Seen::Scalar(_)) if !node.children.is_empty() && node.leaves.is_empty() => self.refused(),
            Some(seen) => self.arrived(node, seen),
            None => {}
        }
        self.trail.pop();
    }

    fn arrived(&mut self, node: &'static Node, seen: Seen<'r>) {
        for leaf in &node.leaves {
            self.leaf(leaf, seen);
        }
        self.steps(&node.children, seen);
    }

    fn leaf(&mut self, leaf: &'static Leaf, seen: Seen<'r>) {
        let parameter = &self.table.parameters[leaf.parameter];
        let understood = match (leaf.kind, &mut self.parts) {
            (Kind::Resource, _) if !seen.is_resource_of(&parameter.targets) => true,
            (kind, Some(parts)) => convert(kind, seen, self.context, &mut |value| parts.push(value)),
            (kind, None) => {
                let entries = &mut self.entries;
                convert(kind, seen, self.context, &mut |value| entries.push(Entry { parameter, value }))
            }
        };
        if !understood {
            self.refused();
        }
    }

    /// `X.exists() and X != false`; the children are the members a choice may have.
    fn exists(&mut self, node: &'static Node, object: &'r Map<String, Value>) {
        let present = |child: &Node| match child.step {
            Step::Member(name, _) => {
                object.get(name).is_some_and(|v| !v.is_null() && *v != Value::Bool(false))
            }
            _ => false,
        };
        let code = Some(node.children.iter().any(present).to_string());
        if let Some(leaf) = node.children.first().and_then(|child| child.leaves.first()) {
            let parameter = &self.table.parameters[leaf.parameter];
            self.entries
                .push(Entry { parameter, value: EntryValue::Token { system: None, code, text: None } });
        }
    }

    /// A tuple counts only when every component has a value.
    fn composite(&mut self, position: usize, node: &'static Node, seen: Seen<'r>) {
        let mut tuple = Vec::with_capacity(node.children.len());
        for component in &node.children {
            self.parts = Some(Vec::new());
            self.steps(std::slice::from_ref(component), seen);
            match self.parts.take() {
                Some(values) if !values.is_empty() => tuple.push(values),
                _ => return,
            }
        }
        let parameter = &self.table.parameters[position];
        self.entries.push(Entry { parameter, value: EntryValue::Composite(tuple) });
    }

    /// The value here cannot be searched.
    fn refused(&mut self) {
        if self.issues.len() >= ISSUES_MAX {
            return;
        }
        let mut place = self.root.get("resourceType").and_then(Value::as_str).unwrap_or_default().to_owned();
        for (name, item) in &self.trail {
            place.push('.');
            place.push_str(name);
            if let Some(item) = item {
                place.push_str(&format!("[{item}]"));
            }
        }
        // several parameters may want the same value
        if self.issues.iter().all(|issue| issue.location.as_deref() != Some(&place)) {
            self.issues.push(Issue::information(IssueCode::Value, "this value cannot be searched").at(place));
        }
    }
}

fn has_text(value: &Value, member: &str, wanted: &str) -> bool {
    value.get(member).and_then(Value::as_str) == Some(wanted)
}

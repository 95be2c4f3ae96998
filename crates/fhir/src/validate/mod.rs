//! Base validation: the shape R4 demands of a resource (cardinality, JSON kinds, primitive formats, choice types, required bindings,
//! reference targets), in one pass over the tree. Nothing recurses on input.

pub(crate) mod primitive;
pub(crate) mod schema;

use serde_json::{Map, Value};

use self::primitive::Primitive;
use self::schema::{Child, Definition, Kind, SCHEMA};
use crate::{Issue, IssueCode, Resource, ResourceType};

/// Issues reported for one resource; more are cut.
const ISSUES_MAX: usize = 50;

/// Checks a resource against the base definition of its type. Every issue has a FHIRPath location and is an error; texts name
/// places and types, never values.
pub fn validate(resource: &Resource) -> Vec<Issue> {
    let name = resource.resource_type().name();
    let root = Place { parent: 0, name, item: None };
    let mut walk = Walk { work: Vec::with_capacity(32), places: vec![root], issues: Vec::new() };
    if let Some(definition) = SCHEMA.get(name) {
        walk.work.push(Node { object: resource.object(), definition, place: 0 });
    }
    while let Some(node) = walk.work.pop() {
        walk.object(&node);
        if walk.issues.len() >= ISSUES_MAX {
            walk.issues.truncate(ISSUES_MAX);
            break;
        }
    }
    walk.issues
}

/// Whether a resource of this type cannot be without the element.
pub fn is_required(resource_type: ResourceType, element: &str) -> bool {
    SCHEMA
        .get(resource_type.name())
        .is_some_and(|definition| definition.required.iter().any(|r| r.names.contains(&element)))
}

/// Removes the value at the place an issue names (`Patient.name[0].given`), and what is empty without it; of a missing required element the
/// object that lacks it. False when nothing but the resource itself could be removed.
pub fn remove_at(resource: &mut Resource, issue: &Issue) -> bool {
    let Some(place) = &issue.location else { return false };
    let mut path: Vec<Step<'_>> = place.split('.').skip(1).map(Step::of).collect();
    if issue.code == IssueCode::Required {
        path.pop();
    }
    let mut is_first = true;
    while let Some((last, parents)) = path.split_last() {
        let Some(parent) = object_at(resource.object_mut(), parents) else { return false };
        if is_first || last.is_empty_in(parent) {
            last.remove_from(parent);
        } else {
            break;
        }
        is_first = false;
        path.pop();
    }
    !is_first
}

/// One step of a place: a member, and which item of its list.
struct Step<'p> {
    name: &'p str,
    item: Option<usize>,
}

impl<'p> Step<'p> {
    fn of(text: &'p str) -> Self {
        let (name, item) = text.split_once('[').unwrap_or((text, ""));
        Self { name, item: item.trim_end_matches(']').parse().ok() }
    }

    fn is_empty_in(&self, parent: &Map<String, Value>) -> bool {
        let empty = |value: &Value| match value {
            Value::Object(object) => object.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => false,
        };
        match (parent.get(self.name), self.item) {
            (Some(Value::Array(items)), Some(item)) => items.get(item).is_some_and(empty),
            (Some(value), _) => empty(value),
            (None, _) => false,
        }
    }

    fn remove_from(&self, parent: &mut Map<String, Value>) {
        if let (Some(Value::Array(items)), Some(item)) = (parent.get_mut(self.name), self.item) {
            if item < items.len() {
                items.remove(item);
            }
            if !items.is_empty() {
                return;
            }
        }
        parent.shift_remove(self.name);
        parent.shift_remove(&format!("_{}", self.name));
    }
}

fn object_at<'v>(
    object: &'v mut Map<String, Value>,
    path: &[Step<'_>],
) -> Option<&'v mut Map<String, Value>> {
    let mut place = object;
    for step in path {
        place = match (place.get_mut(step.name)?, step.item) {
            (Value::Array(items), Some(item)) => items.get_mut(item)?.as_object_mut()?,
            (value, _) => value.as_object_mut()?,
        };
    }
    Some(place)
}

/// The definition of a member of a definition (`Patient`, `name` → `HumanName`), by which its own members are looked up.
pub(crate) fn definition_of(definition: &str, member: &str) -> Option<&'static str> {
    SCHEMA.get(definition)?.child(member).map(|child| child.of)
}

/// The other names of the choice element that a member is a type of (`Observation`, `valueString` → `valueQuantity` …).
pub(crate) fn other_types(definition: &str, member: &str) -> Vec<&'static str> {
    SCHEMA.get(definition).map_or_else(Vec::new, |definition| definition.other_types(member))
}

/// An object still to be checked, the definition of its members, and where it is.
struct Node<'v> {
    object: &'v Map<String, Value>,
    definition: &'static Definition,
    /// Number of its place.
    place: usize,
}

/// Where a value is: the text is made only when there is an issue, because nearly always there is none.
#[derive(Clone, Copy)]
struct Place<'v> {
    /// Number of the place it is in; the root is its own.
    parent: usize,
    name: &'v str,
    /// Which item of a list.
    item: Option<usize>,
}

struct Walk<'v> {
    work: Vec<Node<'v>>,
    /// The places of all objects met.
    places: Vec<Place<'v>>,
    issues: Vec<Issue>,
}

impl<'v> Walk<'v> {
    fn object(&mut self, node: &Node<'v>) {
        let definition = node.definition;
        if node.object.is_empty() {
            self.issue_at(IssueCode::Structure, node, "an object has at least one member");
        }
        let mut choices_seen: Vec<&str> = Vec::new();
        // a bit for each required member that is there
        let mut found = 0_u64;
        for (name, value) in node.object {
            if name == "resourceType" && ResourceType::from_name(definition.name).is_some() {
                continue;
            }
            let plain = name.strip_prefix('_').unwrap_or(name);
            let Some(child) = definition.child(plain) else {
                self.issue_within(IssueCode::Structure, node, &printable(name), "is no element of the type");
                continue;
            };
            found |= child.required.map_or(0, |required| 1 << required);
            if name.starts_with('_') {
                self.primitive_sibling(node, name, value, child);
                continue;
            }
            if let Some(choice) = child.choice {
                if choices_seen.contains(&choice) {
                    self.issue_within(
                        IssueCode::Structure,
                        node,
                        &format!("{choice}[x]"),
                        "has more than one type",
                    );
                }
                choices_seen.push(choice);
            }
            self.member(node, name, value, child);
        }
        for (at, required) in definition.required.iter().enumerate() {
            if found & (1 << at) == 0 {
                self.issue_within(IssueCode::Required, node, &required.label, "is required");
            }
        }
        self.invariants(node);
    }

    fn member(&mut self, node: &Node<'v>, name: &'v str, value: &'v Value, child: &'static Child) {
        let place = Place { parent: node.place, name, item: None };
        match value {
            Value::Array(items) if child.repeats => {
                if items.is_empty() {
                    self.issue(IssueCode::Structure, place, "a list has at least one member");
                }
                let padded = has_sibling(node.object, name);
                for (at, item) in items.iter().enumerate() {
                    if !(item.is_null() && padded) {
                        self.value(Place { item: Some(at), ..place }, item, child);
                    }
                }
            }
            Value::Array(_) => self.issue(IssueCode::Structure, place, "occurs once and is no list"),
            _ if child.repeats => self.issue(IssueCode::Structure, place, "may repeat and is a list"),
            one => self.value(place, one, child),
        }
    }

    fn value(&mut self, place: Place<'v>, value: &'v Value, child: &'static Child) {
        match child.kind {
            Kind::Primitive(primitive) => self.primitive(place, value, primitive, child),
            Kind::Resource => match (value, ResourceType::of(value)) {
                (Value::Object(object), Some(of)) => self.enter(object, SCHEMA.get(of.name()), place),
                (Value::Object(_), None) => {
                    self.issue(IssueCode::Structure, place, "resourceType is missing or no type of fhir r4")
                }
                _ => self.issue(IssueCode::Structure, place, "is an object of type Resource"),
            },
            Kind::Object(definition) => {
                let Value::Object(object) = value else {
                    let text = format!("is an object of type {}", child.of);
                    self.issue(IssueCode::Structure, place, &text);
                    return;
                };
                match child.of {
                    "Reference" => self.reference(place, object, child),
                    "CodeableConcept" | "Coding" => self.bound(place, object, child),
                    _ => {}
                }
                self.enter(object, definition.map(|number| SCHEMA.at(number)), place);
            }
        }
    }

    fn primitive(&mut self, place: Place<'v>, value: &Value, primitive: Primitive, child: &Child) {
        if let Err((code, text)) = primitive.check(value) {
            self.issue(code, place, text);
        } else if let Some(codes) = child.binding
            && !value.as_str().is_some_and(|code| codes.contains(&code))
        {
            self.issue(IssueCode::CodeInvalid, place, "is no code of the required value set");
        }
    }

    /// Checks an object later.
    fn enter(
        &mut self,
        object: &'v Map<String, Value>,
        definition: Option<&'static Definition>,
        place: Place<'v>,
    ) {
        let Some(definition) = definition else { return };
        self.places.push(place);
        self.work.push(Node { object, definition, place: self.places.len() - 1 });
    }

    /// `_name`: an element or a list of elements and nulls beside a primitive.
    fn primitive_sibling(&mut self, node: &Node<'v>, name: &'v str, value: &'v Value, child: &'static Child) {
        let place = Place { parent: node.place, name, item: None };
        if !matches!(child.kind, Kind::Primitive(_)) {
            self.issue(IssueCode::Structure, place, "only primitive elements have an underscore sibling");
            return;
        }
        let items = match value {
            Value::Array(items) if child.repeats => items.as_slice(),
            Value::Object(_) if !child.repeats => std::slice::from_ref(value),
            _ => {
                self.issue(IssueCode::Structure, place, "has the shape of the element it belongs to");
                return;
            }
        };
        for item in items {
            match item {
                Value::Null => {}
                Value::Object(object) => self.enter(object, SCHEMA.get("Element"), place),
                _ => self.issue(IssueCode::Structure, place, "holds id and extension only"),
            }
        }
    }

    fn reference(&mut self, place: Place<'v>, object: &Map<String, Value>, child: &Child) {
        let Some(text) = object.get("reference").and_then(Value::as_str) else { return };
        if child.targets.is_empty() || text.contains(':') || text.starts_with('#') {
            return;
        }
        let name = text.split(['/', '?']).next().unwrap_or_default();
        if ResourceType::from_name(name).is_some() && !child.targets.contains(&name) {
            let text = format!("refers to one of {}", child.targets.join(", "));
            let location = format!("{}.reference", self.text(place));
            self.issues.push(Issue::error(IssueCode::Value, text).at(location));
        }
    }

    /// A required binding of a Coding or CodeableConcept: one of the codings is of the value set.
    fn bound(&mut self, place: Place<'v>, object: &Map<String, Value>, child: &Child) {
        let Some(codes) = child.binding else { return };
        let is_bound = |coding: &Map<String, Value>| {
            coding.get("code").and_then(Value::as_str).is_some_and(|c| codes.contains(&c))
        };
        let fits = match object.get("coding").and_then(Value::as_array) {
            Some(codings) => codings.iter().filter_map(Value::as_object).any(is_bound),
            None => child.of == "CodeableConcept" || is_bound(object),
        };
        if !fits {
            self.issue(IssueCode::CodeInvalid, place, "has no code of the required value set");
        }
    }

    /// ext-1, per-1 and the narrative's allow-list.
    fn invariants(&mut self, node: &Node<'v>) {
        match node.definition.name {
            "Extension" => {
                let value =
                    node.object.keys().any(|name| name.starts_with("value") || name.starts_with("_value"));
                if value == node.object.contains_key("extension") {
                    let text = "has either a value or extensions (ext-1)";
                    self.issue_at(IssueCode::Invariant, node, text);
                }
            }
            "Period" => {
                let bound = |name| {
                    node.object
                        .get(name)
                        .and_then(Value::as_str)
                        .and_then(|t| crate::search::date_range(t, &jiff::tz::TimeZone::UTC))
                };
                if let (Some((start, _)), Some((_, end))) = (bound("start"), bound("end"))
                    && start >= end
                {
                    self.issue_at(IssueCode::Invariant, node, "ends before it starts (per-1)");
                }
            }
            _ => {}
        }
    }

    fn issue(&mut self, code: IssueCode, place: Place<'v>, text: &str) {
        let location = self.text(place);
        self.issues.push(Issue::error(code, text).at(location));
    }

    /// An issue of an object itself.
    fn issue_at(&mut self, code: IssueCode, node: &Node<'v>, text: &str) {
        self.issue(code, self.places[node.place], text);
    }

    /// An issue of a member of an object.
    fn issue_within(&mut self, code: IssueCode, node: &Node<'v>, name: &str, text: &str) {
        let location = format!("{}.{name}", self.text(self.places[node.place]));
        self.issues.push(Issue::error(code, text).at(location));
    }

    /// A place as FHIRPath: `Patient.name[0].given`.
    fn text(&self, place: Place<'v>) -> String {
        let mut steps = vec![place];
        let mut at = place.parent;
        // the root has no name within another
        while at != 0 {
            steps.push(self.places[at]);
            at = self.places[at].parent;
        }
        let root = self.places[0].name;
        if place.parent == 0 && std::ptr::eq(place.name, root) {
            return root.to_owned();
        }
        let mut text = root.to_owned();
        for step in steps.iter().rev() {
            text.push('.');
            text.push_str(step.name);
            if let Some(item) = step.item {
                text.push_str(&format!("[{item}]"));
            }
        }
        text
    }
}

fn has_sibling(object: &Map<String, Value>, name: &str) -> bool {
    object.iter().any(|(key, _)| key.strip_prefix('_') == Some(name))
}

/// A member name as it may stand in a text: its harmless letters.
fn printable(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || "_-".contains(*c)).take(40).collect()
}

#[cfg(test)]
mod tests;

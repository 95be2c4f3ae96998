//! The elements of the base definitions: what types a path has, and the code system a required binding fixes.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::{list, text};

/// The elements of all resource and data types.
pub(crate) struct Elements {
    by_path: HashMap<String, Element>,
    resources: HashSet<String>,
    concrete: Vec<String>,
    systems: HashMap<String, String>,
}

/// One element.
struct Element {
    types: Vec<String>,
    content_reference: Option<String>,
    value_set: Option<String>,
    targets: Vec<String>,
}

/// Where a path has led to.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The data type, such as `CodeableConcept`; `BackboneElement` within a resource.
    pub(crate) type_code: String,
    /// Where its members are defined: the type itself, or the path of a backbone element.
    path: String,
    /// The value set of a required binding.
    pub(crate) value_set: Option<String>,
    /// What a Reference or canonical may point to; empty = anything.
    pub(crate) targets: Vec<String>,
}

impl Elements {
    pub(crate) fn new(structures: &[Value], value_sets: &[Value]) -> Self {
        let mut elements = Self {
            by_path: HashMap::new(),
            resources: HashSet::new(),
            concrete: Vec::new(),
            systems: value_sets.iter().filter_map(only_system).collect(),
        };
        let base = |s: &&Value| text(s, "derivation") != "constraint" && text(s, "kind") != "logical";
        for structure in structures.iter().filter(base) {
            if text(structure, "kind") == "resource" {
                elements.resources.insert(text(structure, "type").to_owned());
                if structure["abstract"] != true {
                    elements.concrete.push(text(structure, "type").to_owned());
                }
            }
            for element in list(&structure["snapshot"], "element") {
                elements.by_path.insert(text(element, "path").to_owned(), Element::new(element));
            }
        }
        elements.concrete.sort_unstable();
        elements
    }

    /// The resource types that can be stored.
    pub(crate) fn concrete(&self) -> &[String] {
        &self.concrete
    }

    pub(crate) fn is_resource(&self, name: &str) -> bool {
        self.resources.contains(name)
    }

    /// The start of a path.
    pub(crate) fn root(&self, type_code: &str) -> Place {
        Place {
            type_code: type_code.to_owned(),
            path: type_code.to_owned(),
            value_set: None,
            targets: Vec::new(),
        }
    }

    /// The members of a place with a name: as named in JSON, one for each type of a choice. Empty when there is none.
    pub(crate) fn members(&self, of: &Place, name: &str) -> Vec<(String, Place)> {
        let path = format!("{}.{name}", of.path);
        if let Some(element) = self.by_path.get(&path) {
            return vec![(name.to_owned(), self.place(element, &path, element.types.first()))];
        }
        let path = format!("{path}[x]");
        let Some(element) = self.by_path.get(&path) else { return Vec::new() };
        let one =
            |code: &String| (format!("{name}{}", capital(code)), self.place(element, &path, Some(code)));
        element.types.iter().map(one).collect()
    }

    fn place(&self, element: &Element, path: &str, type_code: Option<&String>) -> Place {
        let value_set = element.value_set.clone();
        let type_code = type_code.cloned().unwrap_or_default();
        let path = match (&element.content_reference, type_code.as_str()) {
            (Some(other), _) => other.clone(),
            (None, "BackboneElement" | "Element") => path.to_owned(),
            (None, named) => named.to_owned(),
        };
        Place { type_code, path, value_set, targets: element.targets.clone() }
    }

    /// The one code system of a value set, when it has just one.
    pub(crate) fn system(&self, value_set: &str) -> Option<&str> {
        self.systems.get(value_set).map(String::as_str)
    }
}

impl Element {
    fn new(element: &Value) -> Self {
        let binding = &element["binding"];
        let required = text(binding, "strength") == "required";
        let value_set = text(binding, "valueSet").split('|').next().unwrap_or_default();
        let profiles = list(element, "type").flat_map(|t| list(t, "targetProfile")).filter_map(Value::as_str);
        let targets: Vec<String> =
            profiles.map(|url| url.rsplit('/').next().unwrap_or_default().to_owned()).collect();
        Self {
            types: list(element, "type").map(|t| text(t, "code").to_owned()).collect(),
            content_reference: element["contentReference"]
                .as_str()
                .map(|path| path.trim_start_matches('#').to_owned()),
            value_set: (required && !value_set.is_empty()).then(|| value_set.to_owned()),
            targets: if targets.iter().any(|name| name == "Resource") { Vec::new() } else { targets },
        }
    }
}

fn only_system(value_set: &Value) -> Option<(String, String)> {
    let mut systems: Vec<&str> = list(&value_set["compose"], "include").map(|i| text(i, "system")).collect();
    systems.dedup();
    match systems.as_slice() {
        [system] if !system.is_empty() => Some((text(value_set, "url").to_owned(), (*system).to_owned())),
        _ => None,
    }
}

fn capital(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

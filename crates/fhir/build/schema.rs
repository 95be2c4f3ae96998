//! StructureDefinitions as lines. For each element of a resource or data type:
//! `E path min max types binding targets attribute` (tab separated; `*` = unbounded; types comma separated; `@path` = content reference;
//! targets = resource types a Reference may name; attribute = `a` where XML writes an attribute and no element), in the order of the
//! snapshot; required value sets as `V url code,code,…`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use crate::{list, text};

pub(crate) fn compile(
    structures: &[Value],
    value_sets: &[Value],
    code_systems: &[Value],
    out: &Path,
) -> std::io::Result<()> {
    let mut lines = String::new();
    let mut wanted = BTreeSet::new();
    for structure in
        structures.iter().filter(|s| text(s, "derivation") != "constraint" && text(s, "kind") != "logical")
    {
        for element in list(&structure["snapshot"], "element") {
            line(element, &mut lines, &mut wanted);
        }
    }
    let sets: BTreeMap<&str, &Value> = value_sets.iter().map(|v| (text(v, "url"), v)).collect();
    let systems: BTreeMap<&str, &Value> = code_systems.iter().map(|v| (text(v, "url"), v)).collect();
    for url in &wanted {
        let mut codes = BTreeSet::new();
        if expand(url, &sets, &systems, &mut codes, 0) && !codes.is_empty() {
            let _ = writeln!(lines, "V\t{url}\t{}", codes.into_iter().collect::<Vec<_>>().join(","));
        }
    }
    std::fs::write(out, lines)
}

fn line(element: &Value, lines: &mut String, wanted: &mut BTreeSet<String>) {
    let path = text(element, "path");
    let reference = text(element, "contentReference");
    let types: Vec<String> = if reference.is_empty() {
        list(element, "type").map(type_name).collect()
    } else {
        vec![format!("@{}", reference.trim_start_matches('#'))]
    };
    let targets: BTreeSet<&str> = list(element, "type")
        .filter(|t| text(t, "code") == "Reference")
        .flat_map(|t| list(t, "targetProfile").filter_map(Value::as_str))
        .map(|url| url.rsplit('/').next().unwrap_or_default())
        .collect();
    let mut binding = String::new();
    if text(&element["binding"], "strength") == "required" {
        binding = text(&element["binding"], "valueSet").split('|').next().unwrap_or_default().to_owned();
        wanted.insert(binding.clone());
    }
    let targets = if targets.contains("Resource") {
        String::new()
    } else {
        targets.into_iter().collect::<Vec<_>>().join(",")
    };
    let attribute = if list(element, "representation").any(|r| r == "xmlAttr") { "a" } else { "" };
    let _ = writeln!(
        lines,
        "E\t{path}\t{}\t{}\t{}\t{binding}\t{targets}\t{attribute}",
        element["min"],
        text(element, "max"),
        types.join(",")
    );
}

/// The type code; the FHIRPath system types of ids and primitive values become FHIR names.
fn type_name(of: &Value) -> String {
    let code = text(of, "code");
    match code.strip_prefix("http://hl7.org/fhirpath/System.") {
        Some("String") => "string".to_owned(),
        Some(other) => other.to_lowercase(),
        None => code.to_owned(),
    }
}

/// Adds all codes of a value set; false when it cannot be enumerated.
fn expand<'a>(
    url: &str,
    sets: &BTreeMap<&'a str, &'a Value>,
    systems: &BTreeMap<&'a str, &'a Value>,
    codes: &mut BTreeSet<String>,
    depth: usize,
) -> bool {
    let Some(set) = sets.get(url).filter(|_| depth < 8) else { return false };
    let compose = &set["compose"];
    if compose["exclude"].is_array() {
        return false;
    }
    for include in list(compose, "include") {
        if include["filter"].is_array() {
            return false;
        }
        for inner in list(include, "valueSet").filter_map(Value::as_str) {
            if !expand(inner.split('|').next().unwrap_or_default(), sets, systems, codes, depth + 1) {
                return false;
            }
        }
        if include["concept"].is_array() {
            codes.extend(list(include, "concept").map(|c| text(c, "code").to_owned()));
        } else if let Some(system) = include["system"].as_str() {
            let Some(system) = systems.get(system).filter(|s| text(s, "content") == "complete") else {
                return false;
            };
            concepts(system, codes);
        }
    }
    true
}

fn concepts(of: &Value, codes: &mut BTreeSet<String>) {
    for concept in list(of, "concept") {
        codes.insert(text(concept, "code").to_owned());
        concepts(concept, codes);
    }
}

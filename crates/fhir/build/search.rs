//! SearchParameters as lines: `P type name kind url targets expression` (tab separated), composite components as
//! `C url definition expression` before their parameter, choice elements as `X path types`.

use std::fmt::Write;
use std::path::Path;

use serde_json::Value;

use crate::{list, text};

pub(crate) fn compile(structures: &[Value], parameters: &[Value], out: &Path) {
    let concrete: Vec<&str> = structures
        .iter()
        .filter(|s| {
            text(s, "kind") == "resource" && text(s, "derivation") != "constraint" && s["abstract"] != true
        })
        .map(|s| text(s, "type"))
        .collect();
    let mut lines = String::new();
    choices(structures, &mut lines);
    for parameter in parameters {
        let expression = text(parameter, "expression");
        if expression.is_empty() {
            continue;
        }
        for base in list(parameter, "base").filter_map(Value::as_str) {
            let types = match base {
                "Resource" | "DomainResource" => concrete.clone(),
                other => vec![other],
            };
            for of in types {
                line(parameter, of, expression, &mut lines);
            }
        }
    }
    lines.push_str(include_str!("../definitions/hilum-SearchParameter.tsv"));
    std::fs::write(out, lines).expect("OUT_DIR is writable");
}

fn choices(structures: &[Value], lines: &mut String) {
    let base = structures.iter().filter(|s| text(s, "derivation") != "constraint");
    for element in base.flat_map(|s| list(&s["snapshot"], "element")) {
        if let Some(path) = text(element, "path").strip_suffix("[x]") {
            let types: Vec<String> = list(element, "type").map(|t| capital(text(t, "code"))).collect();
            let _ = writeln!(lines, "X\t{path}\t{}", types.join(","));
        }
    }
}

fn line(parameter: &Value, of: &str, expression: &str, lines: &mut String) {
    let targets: Vec<&str> = list(parameter, "target").filter_map(Value::as_str).collect();
    let url = text(parameter, "url");
    for component in list(parameter, "component") {
        let _ = writeln!(
            lines,
            "C\t{url}\t{}\t{}",
            text(component, "definition"),
            one_line(text(component, "expression"))
        );
    }
    let _ = writeln!(
        lines,
        "P\t{of}\t{}\t{}\t{url}\t{}\t{}",
        text(parameter, "code"),
        text(parameter, "type"),
        targets.join(","),
        one_line(expression)
    );
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn capital(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

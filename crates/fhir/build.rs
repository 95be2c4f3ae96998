//! Compiles the vendored FHIR definitions into the compact tables that are embedded in the library. Reads only the repository.
#![allow(clippy::print_stdout, reason = "cargo reads instructions from there")]

#[path = "build/compartments.rs"]
mod compartments;
#[path = "build/elements.rs"]
mod elements;
#[path = "build/expression.rs"]
mod expression;
#[path = "build/plan.rs"]
mod plan;
#[path = "build/schema.rs"]
mod schema;
#[path = "build/search.rs"]
mod search;

use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::Value;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=definitions");
    println!("cargo::rerun-if-changed=build");
    let out = std::env::var("OUT_DIR")?;
    let structures = read("definitions/r4-StructureDefinition.ndjson.gz")?;
    let value_sets = read("definitions/r4-ValueSet.ndjson.gz")?;
    let mut parameters = read("definitions/r4-SearchParameter.ndjson.gz")?;
    parameters.extend(read("definitions/hilum-SearchParameter.ndjson")?);
    let elements = elements::Elements::new(&structures, &value_sets);
    search::compile(&elements, &parameters, &Path::new(&out).join("search.tsv"))?;
    let compartments = read("definitions/r4-CompartmentDefinition.ndjson.gz")?;
    compartments::compile(&compartments, &Path::new(&out).join("compartments.tsv"))?;
    schema::compile(
        &structures,
        &value_sets,
        &read("definitions/r4-CodeSystem.ndjson.gz")?,
        &Path::new(&out).join("schema.tsv"),
    )?;
    Ok(())
}

/// One JSON document a line, compressed when the name says so.
fn read(path: &str) -> Result<Vec<Value>, Box<dyn Error>> {
    let file = std::fs::File::open(path).map_err(|error| format!("{path}: {error}"))?;
    let input: Box<dyn Read> =
        if path.ends_with(".gz") { Box::new(flate2::read::GzDecoder::new(file)) } else { Box::new(file) };
    BufReader::new(input).lines().map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}

/// A text member, or "".
fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default()
}

/// The members of a list, or none.
fn list<'a>(value: &'a Value, member: &str) -> impl Iterator<Item = &'a Value> {
    value[member].as_array().into_iter().flatten()
}

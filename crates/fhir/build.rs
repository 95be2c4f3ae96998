//! Compiles the vendored FHIR definitions into the compact tables that are embedded in the library. Reads only the repository.

#![allow(clippy::expect_used, reason = "a build that cannot read its own sources ends")]

#[path = "build/schema.rs"]
mod schema;
#[path = "build/search.rs"]
mod search;

use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::Value;

fn main() {
    println!("cargo::rerun-if-changed=definitions");
    println!("cargo::rerun-if-changed=build");
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    let structures = read("definitions/r4-StructureDefinition.ndjson.gz");
    search::compile(
        &structures,
        &read("definitions/r4-SearchParameter.ndjson.gz"),
        &Path::new(&out).join("search.tsv"),
    );
    schema::compile(
        &structures,
        &read("definitions/r4-ValueSet.ndjson.gz"),
        &read("definitions/r4-CodeSystem.ndjson.gz"),
        &Path::new(&out).join("schema.tsv"),
    );
}

fn read(path: &str) -> Vec<Value> {
    let file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    BufReader::new(flate2::read::GzDecoder::new(file))
        .lines()
        .map(|line| {
            serde_json::from_str(&line.expect("a line")).unwrap_or_else(|error| panic!("{path}: {error}"))
        })
        .collect()
}

/// A text member, or "".
fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default()
}

/// The members of a list, or none.
fn list<'a>(value: &'a Value, member: &str) -> impl Iterator<Item = &'a Value> {
    value[member].as_array().into_iter().flatten()
}

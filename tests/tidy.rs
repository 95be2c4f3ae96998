//! The invariants of ARCHITECTURE.md, read from manifests and sources.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What each crate may depend on of ours.
const MAY_USE: &[(&str, &[&str])] = &[
    ("fhir", &[]),
    ("wire", &[]),
    ("normalise", &["fhir", "wire"]),
    ("blobs", &[]),
    ("rows", &["blobs", "fhir"]),
    ("store", &["blobs", "rows", "fhir"]),
    ("intake", &["normalise", "store", "fhir", "wire"]),
    ("listen", &["intake", "store", "fhir", "wire"]),
    ("listen-fhir", &["listen", "intake", "store", "fhir"]),
    ("listen-hl7", &["listen", "intake", "wire", "fhir"]),
    ("listen-mllp", &["listen", "intake", "wire", "fhir"]),
    ("listen-mpps", &["listen", "intake", "wire", "fhir"]),
    ("deliver", &["store", "fhir", "wire"]),
    ("listen-dicom", &["listen", "intake", "wire", "fhir", "store"]),
];
const FILE_LINES_MAX: usize = 760;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn sources(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        for path in fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()) {
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    found
}

#[test]
fn crates_depend_only_downwards() {
    for entry in fs::read_dir(root().join("crates")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let manifest = fs::read_to_string(entry.path().join("Cargo.toml")).unwrap();
        if name == "hilum" {
            continue;
        }
        let allowed = MAY_USE
            .iter()
            .find(|(n, _)| *n == name)
            .unwrap_or_else(|| panic!("{name} is in no row of MAY_USE"))
            .1;
        for line in manifest.lines().filter_map(|line| line.strip_prefix("hilum-")) {
            let used = line.split('.').next().unwrap();
            assert!(allowed.contains(&used), "{name} must not depend on {used}");
        }
    }
}

#[test]
fn pure_crates_do_no_io_and_read_no_clock() {
    for name in ["fhir", "wire", "normalise"] {
        for (path, text) in sources(&root().join("crates").join(name).join("src")) {
            let code = text.split("#[cfg(test)]").next().unwrap();
            for banned in [
                "std::fs",
                "std::net",
                "SystemTime",
                "Instant::now",
                "Timestamp::now",
                "tokio::net",
                "tokio::fs",
                "now_v7",
                "new_v4",
            ] {
                assert!(!code.contains(banned), "{} uses {banned}", path.display());
            }
        }
    }
}

#[test]
fn only_rows_knows_sql() {
    for entry in fs::read_dir(root().join("crates")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name == "rows" {
            continue;
        }
        // the tests of the store damage a database from outside
        let manifest = fs::read_to_string(entry.path().join("Cargo.toml")).unwrap();
        let needed = manifest.split("[dev-dependencies]").next().unwrap();
        for engine in ["rusqlite", "tokio-postgres"] {
            assert!(!needed.contains(engine), "{name} must not depend on {engine}");
        }
        for (path, text) in sources(&entry.path().join("src")) {
            let code = text.split("#[cfg(test)]").next().unwrap();
            for banned in ["rusqlite::", "\"SELECT ", "\"INSERT ", "\"UPDATE ", "\"DELETE "] {
                assert!(!code.contains(banned), "{} speaks sql: {banned}", path.display());
            }
        }
    }
}

#[test]
fn the_store_names_no_engine() {
    for (path, text) in sources(&root().join("crates/store/src")) {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        // but for what its configuration hands down
        for line in code.filter(|line| !line.contains("PostgresConfig") && !line.contains("postgres:")) {
            for engine in ["sqlite", "postgres"] {
                assert!(!line.to_lowercase().contains(engine), "{}: {line}", path.display());
            }
        }
    }
}

#[test]
fn files_below_and_in_the_store_import_each_other_in_one_direction() {
    for name in ["blobs", "rows", "store"] {
        let src = root().join("crates").join(name).join("src");
        let files: BTreeMap<String, String> =
            sources(&src).into_iter().map(|(path, text)| (module(&src, &path), text)).collect();
        let mut waits: BTreeMap<&str, BTreeSet<String>> =
            files.iter().map(|(module, text)| (module.as_str(), imports(module, text, &files))).collect();
        // the root tells the crate's face and imports all: it is no part of a circle
        waits.remove("");
        while let Some(done) = waits.iter().find(|(_, on)| on.is_empty()).map(|(module, _)| *module) {
            waits.remove(done);
            waits.values_mut().for_each(|on| {
                on.remove(done);
            });
        }
        assert!(waits.is_empty(), "{name}: a circle of imports, or what waits for one: {:?}", waits.keys());
    }
}

/// The module of a file: `sqlite::rows`; empty = the root.
fn module(src: &Path, path: &Path) -> String {
    let inside = path.strip_prefix(src).unwrap().with_extension("");
    let parts = inside.iter().map(|part| part.to_str().unwrap());
    parts.filter(|part| !["mod", "lib"].contains(part)).collect::<Vec<_>>().join("::")
}

/// The other modules of its crate that a file imports from, but for the root.
fn imports(of: &str, text: &str, files: &BTreeMap<String, String>) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]").next().unwrap();
    let mut found = BTreeSet::new();
    for statement in code.split(";").filter_map(|line| line.rsplit_once("use ").map(|(_, path)| path)) {
        for path in leaves(&statement.split_whitespace().collect::<String>()) {
            let mut place: Vec<&str> = of.split("::").filter(|part| !part.is_empty()).collect();
            for part in path.split("::") {
                match part {
                    "crate" => place.clear(),
                    "super" => drop(place.pop()),
                    "self" => {}
                    name => place.push(name),
                }
            }
            while !files.contains_key(&place.join("::")) {
                place.pop();
            }
            found.insert(place.join("::"));
        }
    }
    found.retain(|module| module != of && !module.is_empty());
    found
}

/// The single paths of `a::{b, c::{d}}`.
fn leaves(tree: &str) -> Vec<String> {
    let Some((before, inside)) = tree.split_once('{') else { return vec![tree.to_owned()] };
    let inside = inside.strip_suffix('}').unwrap_or(inside);
    let (mut depth, mut paths, mut one) = (0, Vec::new(), String::new());
    for letter in inside.chars().chain([',']) {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        if letter == ',' && depth == 0 {
            paths.extend(leaves(&std::mem::take(&mut one)).into_iter().map(|leaf| format!("{before}{leaf}")));
        } else {
            one.push(letter);
        }
    }
    paths
}

#[test]
fn only_intake_writes_what_peers_sent() {
    for entry in fs::read_dir(root().join("crates")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        // the store offers it, and an engine commits
        if ["intake", "store", "rows"].contains(&name.as_str()) {
            continue;
        }
        for (path, code) in code_of(&entry.path().join("src")) {
            for banned in [".commit(", ".quarantine("] {
                assert!(!code.contains(banned), "{} writes past intake: {banned}", path.display());
            }
        }
    }
}

#[test]
fn every_queue_has_a_bound() {
    for (path, code) in code_of(&root().join("crates")) {
        for banned in
            ["unbounded_channel", "mpsc::unbounded", "mpsc::channel()", "channel::<()>()", "crossbeam"]
        {
            assert!(!code.contains(banned), "{} has a queue without a bound: {banned}", path.display());
        }
    }
}

/// The sources below a folder without their tests.
fn code_of(dir: &Path) -> impl Iterator<Item = (PathBuf, String)> {
    let is_test =
        |path: &Path| path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests");
    let files = sources(dir).into_iter().filter(move |(path, _)| !is_test(path));
    files.map(|(path, text)| (path, text.split("#[cfg(test)]").next().unwrap_or_default().to_owned()))
}

#[test]
fn files_are_short_documented_and_finished() {
    let own = root().join("tests/tidy.rs");
    let tests = sources(&root().join("tests")).into_iter().filter(|(path, _)| *path != own);
    for (path, text) in sources(&root().join("crates")).into_iter().chain(tests) {
        let lines = text.lines().count();
        assert!(lines <= FILE_LINES_MAX, "{} has {lines} lines", path.display());
        let is_tests = path.ends_with("tests.rs");
        assert!(is_tests || text.starts_with("//!"), "{} does not say what it is", path.display());
        for word in ["TODO", "FIXME", "todo!(", "unimplemented!(", "dbg!("] {
            assert!(!text.contains(word), "{} holds {word}", path.display());
        }
    }
}

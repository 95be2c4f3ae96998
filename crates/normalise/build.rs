//! Embeds the rule tables of `maps/`: one list of (path, text).

#![allow(clippy::expect_used, reason = "a build that cannot read its own sources ends")]

use std::fmt::Write;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=maps");
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    let mut list = String::from("&[\n");
    for folder in ["datatypes", "messages", "segments", "tables", "v3"] {
        let path = Path::new(&root).join("maps").join(folder);
        let mut files: Vec<_> = std::fs::read_dir(path).expect("maps").flatten().map(|e| e.path()).collect();
        files.sort();
        for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "csv")) {
            let name = file.file_stem().and_then(|n| n.to_str()).expect("a name");
            let _ =
                writeln!(list, "    (\"{folder}/{name}\", include_str!({:?})),", file.display().to_string());
        }
    }
    list.push(']');
    let out = std::env::var("OUT_DIR").expect("cargo sets it");
    std::fs::write(Path::new(&out).join("maps.rs"), list).expect("OUT_DIR is writable");
}

//! JSON Patch: a target and a patch, one line each.
#![no_main]

use hilum_fhir::json;
use hilum_fhir::patch::{Limits, Patch, apply};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some(at) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let Ok(target) = json::parse(&bytes[..at], &json::Limits::default()) else { return };
    let Ok(document) = json::parse(&bytes[at..], &json::Limits::default()) else { return };
    let limits = Limits { bytes_max: 1 << 20, nodes_max: 10_000, ..Limits::default() };
    let Ok(patch) = Patch::from_value(&document, &limits) else { return };
    let _ = apply(&target, &patch);
});

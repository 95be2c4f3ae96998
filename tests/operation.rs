//! What an operator sees and sets: the limits in force.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use std::collections::BTreeMap;

use harness::Edge;

/// The limits the CapabilityStatement shows.
fn limits(edge: &Edge) -> BTreeMap<String, u64> {
    let statement = edge.get("/fhir/metadata");
    let limits = &statement["rest"][0]["extension"][0];
    assert_eq!(limits["url"], "urn:hilum:extension:limits");
    let named = limits["extension"].as_array().unwrap().iter();
    named.map(|l| (l["url"].as_str().unwrap().to_owned(), l["valueDecimal"].as_u64().unwrap())).collect()
}

#[test]
fn the_limits_in_force_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start_limited(dir.path(), "[limits.mllp]\nframe_bytes_max = 12345\n");
    let limits = limits(&edge);
    assert_eq!(limits["mllp.frame_bytes_max"], 12345, "as configured");
    assert_eq!(limits["store.free_bytes_min"], 0, "as configured");
    assert_eq!(limits["dicom.object_bytes_max"], 2_147_483_648, "a default");
    assert_eq!(limits["store.quarantine_bytes_max"], 10 << 30, "larger than an integer of FHIR");
}

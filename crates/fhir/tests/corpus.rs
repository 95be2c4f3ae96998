//! Index extraction over the FHIR resources of the shared corpus, when it is there.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

use std::collections::BTreeMap;
use std::path::Path;

use hilum_fhir::search::{Context, index, parameters};
use hilum_fhir::{Resource, Timestamp};
use jiff::tz::TimeZone;
use serde_json::Value;

#[test]
fn resources_of_other_converters_are_indexed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/corpus/hl7v2-expected-fhir/microsoft-fhir-converter");
    let Ok(files) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: no shared corpus");
        return;
    };
    let context = Context { zone: TimeZone::UTC, now: Timestamp::from_micros(0) };
    let (mut resources, mut places) = (0, BTreeMap::new());
    for file in files {
        let Ok(bundle) = serde_json::from_slice::<Value>(&std::fs::read(file.unwrap().path()).unwrap())
        else {
            continue;
        };
        for entry in bundle["entry"].as_array().into_iter().flatten() {
            let Ok(resource) = Resource::from_value(entry["resource"].clone()) else { continue };
            let found = index(&resource, &context);
            resources += 1;
            for issue in found.issues {
                *places.entry(issue.location.unwrap_or_default()).or_insert(0) += 1;
            }
            assert!(found.entries.iter().all(|e| parameters(resource.resource_type()).contains(e.parameter)));
        }
    }
    assert_eq!(places, BTreeMap::new(), "values that cannot be searched, by place");
    assert!(resources > 1000);
}

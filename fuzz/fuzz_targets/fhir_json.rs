//! FHIR JSON: limits, validation, indexing.
#![no_main]

use hilum_fhir::search::{Context, index};
use hilum_fhir::{Resource, Timestamp, json, validate};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = json::parse(bytes, &json::Limits::default()) else { return };
    let Ok(resource) = Resource::from_value(value) else { return };
    let _ = validate::validate(&resource);
    let _ = index(&resource, &Context { zone: jiff::tz::TimeZone::UTC, now: Timestamp::from_micros(0) });
});

//! Search queries and criteria.
#![no_main]

use hilum_fhir::Timestamp;
use hilum_fhir::search::{Context, Query};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let context = Context { zone: jiff::tz::TimeZone::UTC, now: Timestamp::from_micros(0) };
    let _ = Query::parse_criteria(&format!("Observation?{text}"), &context);
    let _ = Query::parse_criteria(text, &context);
});

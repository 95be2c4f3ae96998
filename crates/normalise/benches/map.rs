//! Mapping by the built-in rule tables: what an HL7 v2 message, an interaction of v3 and an MPPS message cost between bytes and changes.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use hilum_fhir::Timestamp;
use hilum_normalise::{Context, Payload, Rules, normalise};
use hilum_wire::v3;

const A08: &[u8] = include_bytes!("../../../fixtures/v2/minimal_a08.in.er7");
const ORU: &[u8] = include_bytes!("../../../fixtures/v2/oru_r01.in.er7");
const MPPS: &[u8] = include_bytes!("../../../fixtures/mpps/short_completed.in.json");
const V3: &[u8] = include_bytes!("../../../fixtures/v3/prpa_201301_added.in.xml");

fn benches(c: &mut Criterion) {
    let rules = Rules::compile(&[]).unwrap();
    let context = Context {
        site: "default".into(),
        zone: jiff::tz::TimeZone::get("Europe/Berlin").unwrap(),
        patient_identifier_system: "urn:hilum:site:default:mrn".into(),
        naming_systems: [("NORTH".to_owned(), "https://north.example/ids".to_owned())].into(),
        join_unqualified: true,
        keep_unidentified: false,
        received: Timestamp::from_micros(1_700_000_000_000_000),
        seed: 1,
    };
    let interaction =
        v3::Message::read(V3, &v3::Limits::default()).unwrap_or_else(|_| panic!("the fixture is v3"));
    for (name, payload) in [
        ("v2/a08", Payload::V2(Bytes::from_static(A08))),
        ("v2/oru", Payload::V2(Bytes::from_static(ORU))),
        ("v3/add", Payload::V3(Arc::new(interaction))),
        ("mpps/completed", Payload::Mpps(Bytes::from_static(MPPS))),
    ] {
        let mapped = normalise(&payload, &rules, &context);
        assert!(!mapped.rejected(), "{name} maps");
        c.bench_function(&format!("map/{name}"), |b| {
            b.iter(|| normalise(black_box(&payload), &rules, &context))
        });
    }
    c.bench_function("map/compile", |b| b.iter(|| Rules::compile(black_box(&[])).unwrap()));
}

criterion_group!(groups, benches);
criterion_main!(groups);

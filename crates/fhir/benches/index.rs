//! Index extraction and query parsing. Aim: 30 us for a 1.5 KB Observation.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use hilum_fhir::search::{Context, Options, Query, decode_pairs, index, normal_form};
use hilum_fhir::{Resource, ResourceType, Timestamp};
use jiff::tz::TimeZone;

const OBSERVATION: &str = r#"{
  "resourceType": "Observation", "id": "0190d2f4-6b1c-7c3e-9b1a-3a1f7f0c2d11",
  "meta": { "versionId": "1", "lastUpdated": "2024-03-15T10:00:00.123456Z", "source": "urn:example:lab",
    "profile": ["http://hl7.org/fhir/StructureDefinition/vitalsigns"],
    "tag": [{ "system": "http://example.org/tags", "code": "ward-3" }] },
  "identifier": [{ "system": "http://example.org/observations", "value": "OBX-20240315-000001" }],
  "basedOn": [{ "reference": "ServiceRequest/0190d2f4-6b1c-7c3e-9b1a-3a1f7f0c2d12" }],
  "status": "final",
  "category": [{ "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs", "display": "Vital Signs" }] }],
  "code": { "coding": [{ "system": "http://loinc.org", "code": "85354-9", "display": "Blood pressure panel" }], "text": "Blood pressure" },
  "subject": { "reference": "Patient/0190d2f4-6b1c-7c3e-9b1a-3a1f7f0c2d13" },
  "encounter": { "reference": "Encounter/0190d2f4-6b1c-7c3e-9b1a-3a1f7f0c2d14" },
  "effectiveDateTime": "2024-03-15T10:00:00+11:00", "issued": "2024-03-15T10:00:02.000+11:00",
  "performer": [{ "reference": "Practitioner/0190d2f4-6b1c-7c3e-9b1a-3a1f7f0c2d15" }],
  "component": [
    { "code": { "coding": [{ "system": "http://loinc.org", "code": "8480-6", "display": "Systolic" }] },
      "valueQuantity": { "value": 121.0, "unit": "mmHg", "system": "http://unitsofmeasure.org", "code": "mm[Hg]" } },
    { "code": { "coding": [{ "system": "http://loinc.org", "code": "8462-4", "display": "Diastolic" }] },
      "valueQuantity": { "value": 79.5, "unit": "mmHg", "system": "http://unitsofmeasure.org", "code": "mm[Hg]" } }
  ]
}"#;

const PATIENT: &str = r#"{
  "resourceType": "Patient", "id": "0190d2f4-6b1c-7c3e-9b1a-3a1f7f0c2d13",
  "identifier": [{ "system": "http://example.org/mrn", "value": "A1234567" }, { "value": "99" }],
  "active": true, "name": [{ "family": "Müller-O'Brien", "given": ["Anna", "Maria"] }],
  "telecom": [{ "system": "phone", "value": "+61 3 5550 0000" }, { "system": "email", "value": "a@example.org" }],
  "gender": "female", "birthDate": "1980-01-01",
  "address": [{ "line": ["1 High Street"], "city": "Melbourne", "postalCode": "3000", "country": "AU" }],
  "managingOrganization": { "reference": "Organization/1" }
}"#;

fn context() -> Context {
    Context {
        zone: TimeZone::get("Australia/Melbourne").unwrap(),
        now: Timestamp::from_micros(1_700_000_000_000_000),
    }
}

fn benches(c: &mut Criterion) {
    let context = context();
    for (name, text) in [("observation", OBSERVATION), ("patient", PATIENT)] {
        let resource = Resource::from_value(serde_json::from_str(text).unwrap()).unwrap();
        c.bench_function(&format!("index/{name}"), |b| b.iter(|| index(black_box(&resource), &context)));
    }
    let options = Options {
        strict: false,
        condition: false,
        bases: &["http://localhost:8080/fhir".to_owned()],
        count_max: 1000,
        parameters_max: 64,
        or_values_max: 500,
        chain_depth_max: 4,
    };
    let observation = ResourceType::from_name("Observation").unwrap();
    let pairs = decode_pairs(
        "patient=Patient/0190d2f4-6b1c-7c3e-9b1a-3a1f7f0c2d13&code=http://loinc.org|8480-6,http://loinc.org|85354-9&date=ge2024-01&_sort=-date&_count=10&_include=Observation:subject",
    );
    c.bench_function("query/parse", |b| {
        b.iter(|| Query::parse(observation, black_box(&pairs), &options, &context).unwrap());
    });
    let resource = Resource::from_value(serde_json::from_str(OBSERVATION).unwrap()).unwrap();
    let (query, _) = Query::parse(observation, &pairs, &options, &context).unwrap();
    let entries = index(&resource, &context);
    c.bench_function("query/matches", |b| {
        b.iter(|| black_box(&query).matches(black_box(&entries), "1", context.now));
    });
    c.bench_function("normal_form", |b| b.iter(|| normal_form(black_box("Müller-O'Brien, Anna Maria"))));
}

criterion_group!(index_benches, benches);
criterion_main!(index_benches);

//! Queries against resources, as tables.

use jiff::tz::TimeZone;
use serde_json::json;

use super::*;
use crate::Resource;

fn context() -> Context {
    Context { zone: TimeZone::UTC, now: Timestamp::from_micros(1_700_000_000_000_000) }
}

fn parse(of: &str, text: &str, strict: bool) -> Result<(Query, Vec<crate::Issue>), Vec<crate::Issue>> {
    let bases = vec!["http://localhost:8080/fhir".to_owned()];
    let options = Options {
        strict,
        condition: false,
        bases: &bases,
        count_max: 1000,
        parameters_max: 64,
        or_values_max: 500,
    };
    Query::parse(ResourceType::from_name(of).unwrap(), &decode_pairs(text), &options, &context())
}

fn found(resource: &serde_json::Value, text: &str) -> bool {
    let resource = Resource::from_value(resource.clone()).unwrap();
    let (query, _) =
        parse(resource.resource_type().name(), text, true).unwrap_or_else(|e| panic!("{text}: {e:?}"));
    query.matches(&index(&resource, &context()), "id-1", Timestamp::from_micros(1_600_000_000_000_000))
}

#[test]
fn endpoints_are_found_as_the_directory_asks() {
    let endpoint = json!({
        "resourceType": "Endpoint", "status": "active",
        "identifier": [{ "system": "http://example.org/endpoint-ids", "value": "EP-FHIR-001" }],
        "connectionType": { "system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "code": "hl7-fhir-rest" },
        "name": "General Hospital FHIR Server",
        "managingOrganization": { "reference": "Organization/456" },
        "payloadType": [{ "coding": [{ "code": "x" }, { "system": "s", "code": "any" }] }],
        "payloadMimeType": ["application/fhir+json"], "address": "https://fhir.example.org/r4",
        "extension": [{ "url": "http://hl7.org.au/fhir/StructureDefinition/au-receivingfacility", "extension": [
            { "url": "namespace-id", "valueString": "Buderim Medical Center" }] }],
    });
    for (text, expected) in [
        ("status=active", true),
        ("status=off", false),
        ("status=off,active", true),
        ("status:not=off", true),
        ("connection-type=hl7-fhir-rest", true),
        ("connection-type=http://hl7.org/fhir/endpoint-connection-type|hl7-fhir-rest", true),
        ("connection-type=http://terminology.hl7.org/CodeSystem/endpoint-connection-type|", true),
        ("connection-type=|hl7-fhir-rest", false),
        ("payload-type=any", true),
        ("payload-type=s|x", false),
        ("identifier=EP-FHIR-001", true),
        ("identifier=http://example.org/endpoint-ids|EP-FHIR-001", true),
        ("name=Hospital", false),
        ("name=general", true),
        ("name:contains=hospital", true),
        ("name:exact=General Hospital FHIR Server", true),
        ("name:exact=general hospital fhir server", false),
        ("organization=Organization/456", true),
        ("organization=456", true),
        ("organization=http://localhost:8080/fhir/Organization/456", true),
        ("organization=457", false),
        ("address=https://fhir.example.org/r4", true),
        ("address:below=https://fhir.example.org", true),
        ("mime-type=application/fhir%2Bjson", true),
        ("au-receivingfacility-namespace-id=Buderim Medical Center", true),
        ("au-receivingfacility-universal-id-type:missing=true", true),
        ("period:missing=false", false),
        ("_id=id-1", true),
        ("_id=id-2", false),
        ("_lastUpdated=gt2020-01-01", true),
        ("_lastUpdated=2020-09-13", true),
        ("_lastUpdated=lt2020-01-01", false),
    ] {
        assert_eq!(found(&endpoint, text), expected, "{text}");
    }
}

#[test]
fn dates_numbers_and_quantities_follow_their_prefixes() {
    let observation = json!({
        "resourceType": "Observation", "status": "final",
        "code": { "coding": [{ "system": "http://loinc.org", "code": "8867-4", "display": "Heart rate" }], "text": "Puls" },
        "subject": { "reference": "Patient/p1" },
        "effectiveDateTime": "2024-03-15T10:00:00Z",
        "valueQuantity": { "value": 5.40, "unit": "mmol/L", "system": "http://unitsofmeasure.org", "code": "mmol/L" },
    });
    for (text, expected) in [
        ("date=2024-03", true),
        ("date=2024-03-16", false),
        ("date=ge2024-03-15T10:00:00Z", true),
        ("date=gt2024-03-15T10:00:00Z", false),
        ("date=lt2024-03-15T11:00:00 01:00", false),
        ("date=ne2023", true),
        ("date=sa2024-02", true),
        ("date=eb2024-04", true),
        ("date=ap2024-03-20", true),
        ("patient=p1", true),
        ("patient=Patient/p1", true),
        ("subject:Patient=p1", true),
        ("subject:Group=p1", false),
        ("code=http://loinc.org|8867-4", true),
        ("code:text=heart", true),
        ("code:text=puls", true),
        ("value-quantity=5.4", true),
        ("value-quantity=5.41", false),
        ("value-quantity=gt5|http://unitsofmeasure.org|mmol/L", true),
        ("value-quantity=gt5||mg/L", false),
        ("value-quantity=ap5", true),
        ("code-value-quantity=http://loinc.org|8867-4$gt5", true),
        ("code-value-quantity=http://loinc.org|8867-4$lt5", false),
    ] {
        assert_eq!(found(&observation, text), expected, "{text}");
    }
}

#[test]
fn patients_are_found_by_any_part_of_their_name() {
    let patient = json!({
        "resourceType": "Patient", "name": [{ "family": "Müller-O'Brien", "given": ["Ann", "Marie"] }],
        "birthDate": "1980-01", "deceasedBoolean": false, "telecom": [{ "system": "phone", "value": "555" }],
    });
    for (text, expected) in [
        ("name=mullerobrien", true),
        ("name=marie", true),
        ("family=MÜLLER", true),
        ("given=muller", false),
        ("birthdate=1980", true),
        ("birthdate=1980-01-01", false),
        ("deceased=false", true),
        ("telecom=phone|555", true),
        ("gender:missing=true", true),
    ] {
        assert_eq!(found(&patient, text), expected, "{text}");
    }
}

#[test]
fn what_is_not_understood_is_said() {
    let (query, warnings) = parse("Patient", "foo=1&name=x&_count=5000&subject.name=y", false).unwrap();
    assert_eq!(query.applied.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["name", "_count"]);
    assert_eq!(query.count, Some(1000));
    assert_eq!(warnings.len(), 2);
    assert!(warnings[0].diagnostics.contains("foo"));
    for bad in [
        "foo=1",
        "_lastUpdated=xx",
        "name:below=x",
        "_count=-1",
        "birthdate=xx",
        "identifier=a|b|c",
        "_has:Observation:patient:code=1",
    ] {
        assert!(parse("Patient", bad, true).is_err(), "{bad}");
    }
    for bad in ["_lastUpdated=xx", "name:below=x", "_count=x"] {
        assert!(parse("Patient", bad, false).is_err(), "{bad} is refused leniently too");
    }
}

#[test]
fn criteria_are_strict() {
    assert!(Query::parse_criteria("Observation?code=http://loinc.org|1975-2", &context()).is_ok());
    for bad in ["/Observation?code=1", "Observation?foo=1", "Nothing?x=1", "Observation?_sort=date"] {
        assert!(Query::parse_criteria(bad, &context()).is_err(), "{bad}");
    }
}

#[test]
fn numbers_keep_their_order_as_keys() {
    let values = [f64::NEG_INFINITY, -1e300, -2.0, -0.0, 1e-300, 1.0, 2.5, 1e300, f64::INFINITY];
    assert!(values.windows(2).all(|pair| ordered(pair[0]) < ordered(pair[1])));
    assert_eq!(ordered(0.0), ordered(-0.0));
}

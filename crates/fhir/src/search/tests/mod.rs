//! Queries against resources, as tables.

use jiff::tz::TimeZone;
use serde_json::json;

use super::*;
use crate::Resource;

mod chains;
mod expression_parser;
mod hostile;

#[path = "../../../build/expression.rs"]
mod expression;

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
        chain_depth_max: 4,
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
        "subject": { "reference": "Patient/p1/_history/3" },
        "effectiveDateTime": "2024-03-15T10:00:00Z",
        "valueQuantity": { "value": 5.40, "unit": "mmol per litre", "system": "http://unitsofmeasure.org", "code": "mmol/L" },
    });
    for (text, expected) in [
        ("date=2024-03", true),
        ("date=2024-03-16", false),
        ("date=ge2024-03-15T10:00:00Z", true),
        ("date=gt2024-03-15T10:00:00Z", false),
        ("date=lt2024-03-15T11:00:00+01:00", false),
        ("date=2024-03-15T11:00:00%2B01:00", true),
        ("date=ne2023", true),
        ("date=sa2024-02", true),
        ("date=eb2024-04", true),
        ("date=ap2024-03-20", true),
        ("date=ge2024-03&date=lt2024-04", true),
        ("date=2023,2024", true),
        ("patient=p1", true),
        ("patient=Patient/p1", true),
        ("patient=Patient/p1/_history/1", true),
        ("subject:Patient=p1", true),
        ("subject:Group=p1", false),
        ("subject=p1", true),
        ("code=http://loinc.org|8867-4", true),
        ("code=http://loinc.org|", true),
        ("code=http://snomed.info/sct|8867-4", false),
        ("code:text=heart", true),
        ("code:text=puls", true),
        ("code:not=8867-4", false),
        ("status=http://hl7.org/fhir/observation-status|final", true),
        ("value-quantity=5.4", true),
        ("value-quantity=5.41", false),
        ("value-quantity=gt5.4", false),
        ("value-quantity=lt5.4", false),
        ("value-quantity=ge5.4", true),
        ("value-quantity=gt5|http://unitsofmeasure.org|mmol/L", true),
        ("value-quantity=gt5||mmol/L", true),
        ("value-quantity=gt5||mmol per litre", true),
        ("value-quantity=gt5||mg/L", false),
        ("value-quantity=ap5", true),
        ("code-value-quantity=http://loinc.org|8867-4$gt5", true),
        ("code-value-quantity=http://loinc.org|8867-4$lt5", false),
        ("combo-code-value-quantity=8867-4$gt5", true),
        ("value-concept:missing=true", true),
        ("_id:missing=false", true),
        ("_lastUpdated:missing=true", false),
    ] {
        assert_eq!(found(&observation, text), expected, "{text}");
    }
}

#[test]
fn composites_hold_within_one_element() {
    let observation = json!({
        "resourceType": "Observation",
        "code": { "coding": [{ "code": "bp" }] },
        "component": [
            { "code": { "coding": [{ "code": "sys" }] }, "valueQuantity": { "value": 120 } },
            { "code": { "coding": [{ "code": "dia" }] }, "valueQuantity": { "value": 80 } },
        ],
    });
    for (text, expected) in [
        ("component-code-value-quantity=sys$120", true),
        ("component-code-value-quantity=sys$80", false),
        ("component-code-value-quantity=sys$80,dia$80", true),
        ("combo-code-value-quantity=dia$lt100", true),
        ("combo-code-value-quantity=bp$lt100", false),
    ] {
        assert_eq!(found(&observation, text), expected, "{text}");
    }
}

#[test]
fn open_ends_comparators_and_ranges_reach_far() {
    let encounter = |period: serde_json::Value| json!({ "resourceType": "Encounter", "period": period });
    let until = encounter(json!({ "end": "2024-03" }));
    let since = encounter(json!({ "start": "2024-03-01", "end": "9999-12-31" }));
    let large =
        json!({ "resourceType": "Observation", "valueQuantity": { "value": 100, "comparator": ">" } });
    for (resource, text, expected) in [
        (&until, "date=lt1900", true),
        (&until, "date=eb2024-04", true),
        (&until, "date=gt2024-03", false),
        (&since, "date=gt3000", true),
        (&since, "date=sa2024-02", true),
        (&since, "date=2024", false),
        (&large, "value-quantity=gt1000", true),
        (&large, "value-quantity=le100", false),
        (&large, "value-quantity=100", false),
    ] {
        assert_eq!(found(resource, text), expected, "{text}");
    }
}

#[test]
fn references_are_found_in_every_form() {
    let report = json!({
        "resourceType": "DiagnosticReport",
        "subject": { "reference": "http://other.example.org/fhir/Patient/p9" },
        "encounter": { "type": "Encounter", "identifier": { "system": "urn:visits", "value": "V1" } },
        "result": [{ "reference": "#contained" }, { "reference": "urn:uuid:0190d2f4-6b1c-7c3e-9b1a-3a1f7f0c2d11" }],
    });
    for (text, expected) in [
        ("subject=http://other.example.org/fhir/Patient/p9", true),
        ("patient=http://other.example.org/fhir/Patient/p9", true),
        ("subject=Patient/p9", false),
        ("encounter:identifier=urn:visits|V1", true),
        ("encounter:identifier=V1", true),
        ("encounter:identifier=urn:other|V1", false),
        ("encounter:missing=false", true),
        ("result=urn:uuid:0190d2f4-6b1c-7c3e-9b1a-3a1f7f0c2d11", true),
    ] {
        assert_eq!(found(&report, text), expected, "{text}");
    }
    let response = json!({
        "resourceType": "QuestionnaireResponse", "questionnaire": "http://example.org/q|1.0",
        "meta": { "profile": ["http://example.org/p|2"] },
    });
    for (text, expected) in [
        ("questionnaire=http://example.org/q", true),
        ("questionnaire=http://example.org/q|1.0", true),
        ("questionnaire=http://example.org/q|2.0", false),
        ("_profile=http://example.org/p", true),
        ("_profile:below=http://example.org", true),
        ("_profile:above=http://example.org/p/q", true),
    ] {
        assert_eq!(found(&response, text), expected, "{text}");
    }
    let bundle = json!({ "resourceType": "Bundle", "entry": [{ "resource": { "resourceType": "MessageHeader", "id": "m" } }] });
    assert!(found(&bundle, "message=MessageHeader/m"));
    assert!(found(&bundle, "composition:missing=true"));
}

#[test]
fn patients_are_found_by_any_part_of_their_name() {
    let patient = json!({
        "resourceType": "Patient", "name": [{ "family": "Müller-O'Brien", "given": ["Ann", "Marie"] }],
        "birthDate": "1980-01", "deceasedBoolean": false, "gender": "female",
        "telecom": [{ "system": "phone", "value": "555" }, { "system": "email", "value": "a@example.org" }],
        "identifier": [{ "system": "urn:mrn", "value": "a,b|c" }],
    });
    for (text, expected) in [
        ("name=mullerobrien", true),
        ("name=marie", true),
        ("family=MÜLLER", true),
        ("given=muller", false),
        ("family:exact=Müller-O'Brien", true),
        ("birthdate=1980", true),
        ("birthdate=1980-01-01", false),
        ("deceased=false", true),
        ("telecom=phone|555", true),
        ("phone=555", true),
        ("email=555", false),
        ("gender=http://hl7.org/fhir/administrative-gender|female", true),
        ("gender:not=male", true),
        ("gender:missing=true", false),
        ("identifier=urn:mrn|a\\,b\\|c", true),
        ("identifier=a\\,b\\|c", true),
    ] {
        assert_eq!(found(&patient, text), expected, "{text}");
    }
    let dead = json!({ "resourceType": "Patient", "deceasedDateTime": "2024-01-01" });
    assert!(found(&dead, "deceased=true"));
    assert!(found(&json!({ "resourceType": "Patient" }), "deceased=false"));
}

#[test]
fn the_clinical_date_is_the_start_of_what_happened() {
    let at =
        |value: serde_json::Value| index(&Resource::from_value(value).unwrap(), &context()).clinical_date;
    let day = |text| date_range(text, &TimeZone::UTC).map(|range| range.0);
    for (value, expected) in [
        (json!({ "resourceType": "Observation", "effectiveDateTime": "2024-03-15" }), day("2024-03-15")),
        (json!({ "resourceType": "Encounter", "period": { "start": "2024-03-15" } }), day("2024-03-15")),
        (json!({ "resourceType": "Encounter", "period": { "end": "2024-03-15" } }), day("2024-03-16")),
        (json!({ "resourceType": "ServiceRequest", "authoredOn": "2024" }), day("2024")),
        (json!({ "resourceType": "ImagingStudy", "started": "2024-03" }), day("2024-03")),
        (json!({ "resourceType": "Procedure", "performedPeriod": { "start": "2024" } }), day("2024")),
        (
            json!({ "resourceType": "Observation", "effectiveTiming": { "event": ["2024-03-02", "2024-03-01"] } }),
            day("2024-03-01"),
        ),
        (json!({ "resourceType": "Patient", "birthDate": "1980" }), None),
        (json!({ "resourceType": "Observation" }), None),
    ] {
        assert_eq!(at(value.clone()), expected, "{value}");
    }
}

#[test]
fn what_is_not_understood_is_said() {
    let (query, warnings) = parse("Patient", "foo=1&name=x&_count=5000&gender=", false).unwrap();
    let applied: Vec<_> = query.applied.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(applied, [("name", "x"), ("_count", "1000")]);
    let places: Vec<_> = warnings.iter().filter_map(|w| w.location.as_deref()).collect();
    assert_eq!(places, ["http.foo", "http.gender"]);
    for (text, strict, lenient) in [
        ("name=x", true, true),
        ("name=", true, true),
        ("foo=1", false, true),
        ("_text=1", false, true),
        ("_sort=foo", false, true),
        ("_include=Patient:foo", false, true),
        ("_include=Patient:general-practitioner:Organization", true, true),
        ("_include:iterate=Patient:*", true, true),
        ("_revinclude=*", true, true),
        ("_has:Observation:patient:code=1", true, true),
        ("link:Patient.name=1", true, true),
        ("link:Patient.foo=1", false, false),
        ("_lastUpdated=xx", false, false),
        ("name:below=x", false, false),
        ("_id:not=1", false, false),
        ("gender:in=http://x", false, false),
        ("link:Observation=1", false, false),
        ("link:Patient=RelatedPerson/1", false, false),
        ("name=%2D", false, false),
        ("identifier=|", false, false),
        ("identifier=a|b|c", false, false),
        ("birthdate=zz2020", false, false),
        ("birthdate:missing=maybe", false, false),
        ("_count=-1", false, false),
        ("_count=1.5", false, false),
        ("_count=1&_count=2", false, false),
        ("_count:foo=1", false, false),
        ("_summary=all", false, false),
        ("_include:foo=Patient:link", false, false),
        ("_include=Patient", false, false),
        ("_contained=true", false, false),
        ("_totalMethod=count", true, true),
    ] {
        assert_eq!(parse("Patient", text, true).is_ok(), strict, "{text}, strict");
        assert_eq!(parse("Patient", text, false).is_ok(), lenient, "{text}, lenient");
    }
}

#[test]
fn result_parameters_shape_the_answer() {
    let text = "_sort=-birthdate,foo,_id&_count=0&_total=estimate&_elements=name,gender&_include=*&_include:recurse=Patient:link&_revinclude=Observation:subject";
    let (query, warnings) = parse("Patient", text, false).unwrap();
    let sort: Vec<_> = query.sort.iter().map(|s| (s.parameter.name, s.descending)).collect();
    assert_eq!(sort, [("birthdate", true), ("_id", false)]);
    assert_eq!(query.applied[0], ("_sort".into(), "-birthdate,_id".into()));
    assert_eq!(warnings.len(), 1);
    assert_eq!((query.count, query.summary, query.total), (Some(0), Summary::Count, Total::Accurate));
    assert_eq!(query.elements, ["name", "gender"]);
    assert!(query.includes[0].parameter.is_none() && !query.includes[0].iterate);
    assert!(query.includes[1].iterate);
    assert_eq!(query.revincludes[0].source.name(), "Observation");
    let (query, _) = parse("Device", "_revinclude=*", true).unwrap();
    assert!(query.revincludes.iter().any(|i| i.source.name() == "Observation"));
    assert!(query.revincludes.iter().all(|i| i.source.name() != "Endpoint"));
}

#[test]
fn limits_are_kept() {
    let many = vec!["name=x"; 65].join("&");
    assert!(parse("Patient", &many, false).is_err());
    let values = format!("name={}", vec!["x"; 501].join(","));
    assert!(parse("Patient", &values, false).is_err());
}

#[test]
fn conditions_and_criteria_are_strict() {
    let criteria = |text: &str| Query::parse_criteria(text, &context()).is_ok();
    for text in [
        "Observation?code=http://loinc.org|1975-2",
        "Observation",
        "Observation?",
        "Patient?name=a%20b&gender=male",
    ] {
        assert!(criteria(text), "{text}");
    }
    for text in [
        "/Observation?code=1",
        "Observation?foo=1",
        "Nothing?x=1",
        "Observation?_sort=date",
        "Observation?code=",
        "Observation?_count=1",
        "Observation?subject.name=x",
        "",
    ] {
        assert!(!criteria(text), "{text}");
    }
    let condition = |text: &str| {
        Query::parse(
            ResourceType::from_name("Patient").unwrap(),
            &decode_pairs(text),
            &Options::condition(),
            &context(),
        )
    };
    assert!(condition("identifier=urn:mrn|1").is_ok());
    for text in ["", "identifier=", "_format=json", "identifier=1&_count=1"] {
        assert!(condition(text).is_err(), "{text}");
    }
}

#[test]
fn numbers_keep_their_order_as_keys() {
    let values = [f64::NEG_INFINITY, -1e300, -2.0, -0.0, 1e-300, 1.0, 2.5, 1e300, f64::INFINITY];
    assert!(values.windows(2).all(|pair| ordered(pair[0]) < ordered(pair[1])));
    assert_eq!(ordered(0.0), ordered(-0.0));
}

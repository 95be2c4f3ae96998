//! Odd data and odd queries: never a panic, and no value in an issue.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// Any JSON, with the member names of FHIR so that plans find something.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[0-9]{1,3}(\\.[0-9]{1,3})?([eE]-?[0-9]{1,4})?".prop_map(|n| serde_json::from_str(&n).unwrap_or(Value::Null)),
        "\\PC{0,12}".prop_map(Value::from),
        "(Patient|Group|urn:uuid|#|http://a/Patient)?/?[a-z0-9/|?#]{0,8}".prop_map(Value::from),
        "[0-9]{4}(-[0-9]{2}(-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\\.[0-9]{1,9})?)?(Z|[+-][0-9]{2}:[0-9]{2})?)?)?)?"
            .prop_map(Value::from),
    ];
    let names = prop::sample::select(vec![
        "status",
        "code",
        "coding",
        "text",
        "system",
        "value",
        "subject",
        "reference",
        "identifier",
        "component",
        "valueQuantity",
        "valueCodeableConcept",
        "valueString",
        "valueDateTime",
        "effectiveDateTime",
        "effectivePeriod",
        "effectiveTiming",
        "start",
        "end",
        "event",
        "repeat",
        "boundsPeriod",
        "comparator",
        "unit",
        "extension",
        "url",
        "meta",
        "tag",
        "profile",
        "name",
        "family",
        "given",
        "telecom",
        "deceasedBoolean",
        "birthDate",
        "address",
        "type",
        "low",
        "high",
        "performer",
        "category",
        "display",
        "active",
        "gender",
        "link",
        "other",
        "line",
    ]);
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((names.clone(), inner), 0..8).prop_map(|members| Value::Object(
                members.into_iter().map(|(n, v)| (n.to_owned(), v)).collect()
            )),
        ]
    })
}

proptest! {
    #[test]
    fn any_resource_is_indexed(of in 0i64..146, body in any_json()) {
        let mut resource = Resource::new(ResourceType::from_number(of).unwrap());
        for (name, value) in body.as_object().into_iter().flatten() {
            resource.set(name, value.clone());
        }
        let found = index(&resource, &context());
        for entry in &found.entries {
            if let EntryValue::Date(low, high) | EntryValue::Number(low, high) | EntryValue::Quantity(low, high, ..) = entry.value {
                prop_assert!(low < high);
            }
        }
    }

    #[test]
    fn any_patient_or_observation_is_indexed(patient in any::<bool>(), body in any_json()) {
        let of = if patient { "Patient" } else { "Observation" };
        let mut resource = Resource::new(ResourceType::from_name(of).unwrap());
        for (name, value) in body.as_object().into_iter().flatten() {
            resource.set(name, value.clone());
        }
        index(&resource, &context());
    }

    #[test]
    fn any_query_is_answered(
        name in "(_id|_lastUpdated|_sort|_count|_include|_revinclude|_elements|code|date|value-quantity|value-string|subject|_profile|code-value-quantity|probability|\\PC{0,8})(:(not|exact|missing|below|Patient|identifier|iterate|\\PC{0,5}))?",
        value in "((eq|ne|gt|lt|ge|le|sa|eb|ap)?[0-9eE.:+T -]{0,20}|[a-zA-Z,$|\\\\:*-]{0,20}|\\PC{0,20})",
        of in 0i64..146,
        before in "((subject|patient|encounter|_has|_has:Observation|\\PC{0,4})[.:]){0,5}",
        strict in any::<bool>(),
        condition in any::<bool>(),
    ) {
        let options = Options {
            strict, condition, bases: &["http://a/fhir".to_owned()], count_max: 10, parameters_max: 4, or_values_max: 4, chain_depth_max: 3,
        };
        let of = ResourceType::from_number(of).unwrap();
        let _ = Query::parse(of, &[(format!("{before}{name}"), value.clone())], &options, &context());
        if let Ok((query, _)) = Query::parse(of, &[(name, value)], &options, &context()) {
            query.matches(&index(&Resource::new(of), &context()), "1", context().now);
        }
    }

    #[test]
    fn any_criteria_are_answered(text in "(Patient|Observation|\\PC{0,5})\\?\\PC{0,30}") {
        let _ = Query::parse_criteria(&text, &context());
    }

    #[test]
    fn normal_forms_are_stable(text in "\\PC{0,30}") {
        let once = normal_form(&text);
        prop_assert_eq!(normal_form(&once), once);
    }
}

#[test]
fn what_cannot_be_searched_is_named_by_place_not_by_value() {
    let resource = Resource::from_value(json!({
        "resourceType": "Observation", "status": 7, "code": "secret", "effectiveDateTime": "secret",
        "component": [null, { "valueQuantity": { "value": "secret" } }], "subject": [["secret"]],
    }))
    .unwrap();
    let found = index(&resource, &context());
    let places: Vec<&str> = found.issues.iter().filter_map(|issue| issue.location.as_deref()).collect();
    for place in [
        "Observation.status",
        "Observation.code",
        "Observation.effectiveDateTime",
        "Observation.component[1].valueQuantity",
    ] {
        assert!(places.contains(&place), "{place} in {places:?}");
    }
    assert!(found.issues.iter().all(|issue| !format!("{issue:?}").contains("secret")));
    assert!(found.entries.is_empty());
}

#[test]
fn no_value_of_a_query_is_repeated() {
    for text in [
        "birthdate=secret",
        "_count=secret",
        "identifier=a|secret|c",
        "gender:missing=secret",
        "_include=secret",
    ] {
        let issues = parse("Patient", text, true).unwrap_err();
        assert!(issues.iter().all(|issue| !format!("{issue:?}").contains("secret")), "{text}: {issues:?}");
    }
}

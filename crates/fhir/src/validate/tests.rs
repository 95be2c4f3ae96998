use serde_json::json;

use super::*;

fn issues(value: Value) -> Vec<String> {
    let resource = Resource::from_value(value).unwrap();
    validate(&resource)
        .iter()
        .map(|i| format!("{} {}", i.code.as_str(), i.location.as_deref().unwrap_or_default()))
        .collect()
}

fn endpoint() -> Value {
    json!({
        "resourceType": "Endpoint", "status": "active", "name": "PACS",
        "connectionType": { "system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "code": "dicom-wado-rs" },
        "managingOrganization": { "reference": "Organization/1" },
        "contact": [{ "system": "email", "value": "a@example.org" }],
        "payloadType": [{ "coding": [{ "code": "any" }] }],
        "payloadMimeType": ["application/dicom"], "address": "https://pacs.example.org/dicom",
    })
}

fn with(member: &str, value: Value) -> Value {
    let mut changed = endpoint();
    changed[member] = value;
    changed
}

fn without(member: &str) -> Value {
    let mut changed = endpoint();
    changed.as_object_mut().unwrap().remove(member);
    changed
}

#[test]
fn a_good_endpoint_has_no_issue() {
    assert_eq!(issues(endpoint()), Vec::<String>::new());
}

#[test]
fn each_rule_of_the_endpoint_directory_is_named_at_its_place() {
    for (body, expected) in [
        (with("status", json!("up")), "code-invalid Endpoint.status"),
        (without("status"), "required Endpoint.status"),
        (without("connectionType"), "required Endpoint.connectionType"),
        (with("connectionType", json!([{ "code": "x" }])), "structure Endpoint.connectionType"),
        (
            with("connectionType", json!({ "coding": [{ "code": "x" }] })),
            "structure Endpoint.connectionType.coding",
        ),
        (
            with("managingOrganization", json!({ "reference": "Patient/1" })),
            "value Endpoint.managingOrganization.reference",
        ),
        (with("period", json!({ "start": "2024-02-01", "end": "2024-01-01" })), "invariant Endpoint.period"),
        (without("payloadType"), "required Endpoint.payloadType"),
        (with("payloadType", json!([])), "structure Endpoint.payloadType"),
        (without("address"), "required Endpoint.address"),
        (with("address", json!("")), "value Endpoint.address"),
        (with("adress", json!("x")), "structure Endpoint.adress"),
        (with("name", json!(["x"])), "structure Endpoint.name"),
        (with("contact", json!({ "system": "email" })), "structure Endpoint.contact"),
        (
            with("contact", json!([{ "system": "pigeon", "value": "x" }])),
            "code-invalid Endpoint.contact[0].system",
        ),
        (with("extension", json!([{ "url": "urn:x" }])), "invariant Endpoint.extension[0]"),
    ] {
        assert_eq!(issues(body), [expected]);
    }
}

#[test]
fn choices_primitives_and_siblings() {
    let observation = |extra: Value| {
        let mut value = json!({ "resourceType": "Observation", "status": "final", "code": { "text": "x" } });
        value.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        issues(value)
    };
    assert!(
        observation(
            json!({ "valueQuantity": { "value": 1.50 }, "effectiveDateTime": "2024-03-01T10:00:00+01:00" })
        )
        .is_empty()
    );
    assert!(
        observation(json!({ "_status": { "extension": [{ "url": "urn:x", "valueCode": "y" }] } })).is_empty()
    );
    assert_eq!(
        observation(json!({ "valueString": "a", "valueInteger": 1 })),
        ["structure Observation.value[x]"]
    );
    assert_eq!(observation(json!({ "valueMoney": { "value": 1 } })), ["structure Observation.valueMoney"]);
    for bad in ["2024-03-01T10:00:00", "2024-03-01T10:00Z", "2024-02-30", "yesterday"] {
        assert_eq!(
            observation(json!({ "effectiveDateTime": bad })),
            ["value Observation.effectiveDateTime"],
            "{bad}"
        );
    }
    assert_eq!(observation(json!({ "valueInteger": 1.5 })), ["value Observation.valueInteger"]);
    assert_eq!(observation(json!({ "component": [{}] }))[0], "structure Observation.component[0]");
}

#[test]
fn a_text_is_as_long_as_r4_allows_and_no_longer() {
    let longest = "ü".repeat(1024 * 1024);
    assert_eq!(issues(with("name", longest.clone().into())), Vec::<String>::new());
    assert_eq!(issues(with("name", format!("{longest}x").into())), ["too-long Endpoint.name"]);
    let binary =
        json!({ "resourceType": "Binary", "contentType": "text/plain", "data": "QUJD".repeat(400_000) });
    assert_eq!(issues(binary), Vec::<String>::new(), "base64Binary has no such limit");
}

#[test]
fn contained_and_bundled_resources_are_checked_with_active_content_refused() {
    let bundle = json!({
        "resourceType": "Bundle", "type": "collection",
        "entry": [{ "resource": { "resourceType": "Patient", "gender": "m" } }, { "resource": { "resourceType": "Nothing" } }],
    });
    assert_eq!(
        issues(bundle),
        ["structure Bundle.entry[1].resource", "code-invalid Bundle.entry[0].resource.gender"]
    );
    for (div, fits) in [
        ("<div xmlns=\"http://www.w3.org/1999/xhtml\">[Put rendering here]<br/></div>", true),
        ("<div><p onclick=\"x()\">y</p></div>", false),
        ("<div><script>x</script></div>", false),
        ("<p>x</p>", false),
    ] {
        let patient = json!({ "resourceType": "Patient", "text": { "status": "generated", "div": div } });
        assert_eq!(issues(patient).is_empty(), fits, "{div}");
    }
}

#[test]
fn what_an_issue_names_is_removed_with_what_is_empty_without_it() {
    let of = |value: serde_json::Value| Resource::from_value(value).unwrap();
    let mut patient = of(serde_json::json!({ "resourceType": "Patient", "gender": "m", "birthDate": "x",
        "name": [{ "family": "A" }, { "family": 7 }], "contact": [{ "name": { "family": 1 } }], "link": [{ "type": "seealso" }] }));
    for _ in 0..10 {
        let Some(issue) = validate(&patient).into_iter().next() else { break };
        assert!(remove_at(&mut patient, &issue), "{issue:?}");
    }
    assert_eq!(
        patient.to_value(),
        serde_json::json!({ "resourceType": "Patient", "name": [{ "family": "A" }] })
    );
    let mut observation = of(serde_json::json!({ "resourceType": "Observation", "status": "final" }));
    let issue = validate(&observation).into_iter().next().unwrap();
    assert!(
        !remove_at(&mut observation, &issue),
        "a required element of the resource itself cannot be left out"
    );
}

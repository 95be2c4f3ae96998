//! Chained parameters and `_has` as they are read, right and wrong.

use super::*;

/// A query as one line: each chain as `parameter>Type`, each `_has` as `<Type:parameter`, then the last parameter.
fn read(of: &str, text: &str) -> Vec<String> {
    let (query, warnings) = parse(of, text, false).unwrap_or_else(|e| panic!("{text}: {e:?}"));
    assert!(warnings.is_empty(), "{text}");
    query.filters.iter().map(shown).collect()
}

fn shown(filter: &Filter) -> String {
    let Some(linked) = filter.linked() else { return filter.parameter.name.to_owned() };
    assert!(!linked.allowed, "who parses allows nothing");
    let to: Vec<String> = linked
        .searches
        .iter()
        .map(|search| {
            assert_eq!(search.filters.len(), 1);
            let (of, rest) = (search.resource_type, shown(&search.filters[0]));
            match linked.by {
                None => format!("{}>{of} {rest}", filter.parameter.name),
                Some(by) => format!("{}<{of}:{} {rest}", filter.parameter.name, by.name),
            }
        })
        .collect();
    to.join(" | ")
}

#[test]
fn chains_and_has_lead_over_types() {
    for (of, text, expected) in [
        ("Observation", "subject:Patient.name=x", "subject>Patient name"),
        ("Observation", "patient.name=x", "patient>Patient name"),
        ("Observation", "patient.name:exact=x", "patient>Patient name"),
        ("Observation", "encounter.date=ge2020", "encounter>Encounter date"),
        ("Observation", "patient.birthdate:missing=true", "patient>Patient birthdate"),
        ("Observation", "patient._id=1", "patient>Patient _id"),
        // one of the types it can refer to has it
        ("Observation", "subject.birthdate=2000", "subject>Patient birthdate"),
        ("Encounter", "subject.name=x", "subject>Patient name"),
        // several have it
        ("Observation", "subject.name=x", "subject>Location name | subject>Patient name"),
        ("Encounter", "subject.identifier=x", "subject>Group identifier | subject>Patient identifier"),
        ("Observation", "encounter.patient.name=x", "encounter>Encounter patient>Patient name"),
        (
            "DiagnosticReport",
            "result.encounter:Encounter.service-provider.partof.name=x",
            "result>Observation encounter>Encounter service-provider>Organization partof>Organization name",
        ),
        ("Observation", "focus:Patient.name=x", "focus>Patient name"),
        ("Patient", "_has:Observation:patient:code=1234-5", "_id<Observation:patient code"),
        ("Patient", "_has:Observation:subject:value-quantity=gt5", "_id<Observation:subject value-quantity"),
        ("Patient", "_has:Observation:patient:code:not=1", "_id<Observation:patient code"),
        (
            "Patient",
            "_has:Observation:patient:_has:AuditEvent:entity:agent=x",
            "_id<Observation:patient _id<AuditEvent:entity agent",
        ),
        (
            "Patient",
            "_has:Observation:patient:encounter.identifier=1",
            "_id<Observation:patient encounter>Encounter identifier",
        ),
        ("Encounter", "patient._has:Group:member:_id=1", "patient>Patient _id<Group:member _id"),
        (
            "Encounter",
            "subject._has:Observation:patient:code=1",
            "subject>Patient _id<Observation:patient code",
        ),
        ("Patient", "_has:List:item:code=1", "_id<List:item code"),
    ] {
        assert_eq!(read(of, text), [expected], "{text}");
        assert!(parse(of, text, true).is_ok(), "{text}");
    }
}

#[test]
fn comma_is_or_and_repetition_is_and_in_chains_too() {
    let (query, _) = parse("Observation", "patient.name=a,b&patient.name=c&code=1", false).unwrap();
    let of = |at: usize| &query.filters[at].linked().unwrap().searches[0].filters[0].condition;
    assert!(matches!(of(0), Condition::String(_, texts) if texts == &["a", "b"]));
    assert!(matches!(of(1), Condition::String(_, texts) if texts == &["c"]));
    assert_eq!(query.filters.len(), 3);
    let applied: Vec<_> = query.applied.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(applied, [("patient.name", "a,b"), ("patient.name", "c"), ("code", "1")]);
    assert_eq!(query.linked().len(), 2);
    let (query, _) = parse("Patient", "_has:Observation:patient:encounter.identifier=1", false).unwrap();
    let types: Vec<_> = query.linked().iter().map(|inner| inner.resource_type.name()).collect();
    assert_eq!(types, ["Observation", "Encounter"]);
}

#[test]
fn what_is_not_understood_in_a_chain_is_an_error_in_every_mode() {
    for (of, text, said) in [
        ("Observation", "foo.name=x", "Observation has no search parameter foo"),
        (
            "Observation",
            "patient.foo=x",
            "nothing that patient of Observation refers to has the search parameter foo",
        ),
        ("Observation", "subject:Patient.foo=x", "Patient has no search parameter foo"),
        ("Observation", "subject:Patient.name:below=x", "modifier"),
        ("Observation", "subject:Patients.name=x", "no resource type Patients"),
        ("Observation", "subject:Encounter.status=x", "never refers to Encounter"),
        ("Observation", "subject:identifier.name=x", "no resource type identifier"),
        ("Observation", "focus.name=x", "can refer to any type"),
        ("Observation", "code.name=x", "code of Observation is no reference"),
        ("Observation", "patient.birthdate=x", "a date is"),
        ("Observation", "patient.name=", "needs a value"),
        ("Observation", "patient.name=,", "needs a value"),
        ("Observation", "patient.=x", "search parameter"),
        ("Observation", ".name=x", "search parameter"),
        ("Observation", "patient..name=x", "search parameter"),
        ("Observation", "patient._sort=name", "search parameter _sort"),
        ("Observation", "_id.name=x", "_id of Observation is no reference"),
        ("QuestionnaireResponse", "questionnaire.title=x", "not followed"),
        ("Bundle", "composition.title=x", "not followed"),
        ("Patient", "_has=x", "search parameter _has"),
        ("Patient", "_has:=x", "_has is written"),
        ("Patient", "_has:Observation=x", "_has is written"),
        ("Patient", "_has:Observation:patient=x", "_has is written"),
        ("Patient", "_has:Observation:patient:=x", "Observation has no search parameter"),
        ("Patient", "_has:Observation:patient:foo=x", "Observation has no search parameter foo"),
        ("Patient", "_has:Observations:patient:code=x", "no resource type Observations"),
        ("Patient", "_has:Observation:foo:code=x", "Observation has no search parameter foo"),
        ("Patient", "_has:Observation:code:code=x", "code of Observation is no reference"),
        (
            "Patient",
            "_has:Observation:encounter:code=x",
            "Observation has no reference to Patient by encounter",
        ),
        ("Patient", "_has:Observation:patient:code=", "needs a value"),
        ("Patient", "_has:Observation:patient:patient.foo=1", "search parameter foo"),
        ("Observation", "patient._has:Encounter:location:class=1", "nothing that patient of Observation"),
    ] {
        for strict in [true, false] {
            let issues = parse(of, text, strict).unwrap_err();
            let [issue] = issues.as_slice() else { panic!("{text}: {issues:?}") };
            assert!(issue.diagnostics.contains(said), "{text}: {}", issue.diagnostics);
            assert!(issue.location.as_deref().is_some_and(|place| place.starts_with("http.")), "{text}");
        }
    }
}

#[test]
fn chains_are_bounded_in_depth_and_number() {
    let deep = |links: usize| format!("{}name=x", "partof.".repeat(links));
    assert!(parse("Organization", &deep(4), true).is_ok());
    let issues = parse("Organization", &deep(5), true).unwrap_err();
    assert!(issues[0].diagnostics.contains("limits.search.chain_depth_max"), "{issues:?}");
    assert_eq!(issues[0].code, crate::IssueCode::TooCostly);
    assert!(parse("Organization", &deep(2_000), true).is_err());
    let nested = "_has:Organization:partof:".repeat(2_000);
    assert!(parse("Organization", &format!("{nested}name=x"), true).is_err());
    let values = vec!["x"; 501].join(",");
    assert!(parse("Observation", &format!("patient.name={values}"), true).is_err());
    // four types each
    let many = vec!["subject.identifier=x"; 17].join("&");
    let issues = parse("Observation", &many, true).unwrap_err();
    assert_eq!(issues[0].code, crate::IssueCode::TooCostly);
}

#[test]
fn conditions_criteria_and_one_resource_alone_know_no_chains() {
    let condition = |text: &str| {
        let observation = ResourceType::from_name("Observation").unwrap();
        Query::parse(observation, &decode_pairs(text), &Options::condition(), &context())
    };
    for text in ["patient.name=x", "subject:Patient.name=x", "_has:Provenance:target:agent=1"] {
        let issues = condition(text).unwrap_err();
        assert!(issues[0].diagnostics.contains("no part of a condition"), "{issues:?}");
        assert!(Query::parse_criteria(&format!("Observation?{text}"), &context()).is_err(), "{text}");
    }
    let observation = json!({ "resourceType": "Observation", "subject": { "reference": "Patient/1" } });
    assert!(found(&observation, "patient=1") && !found(&observation, "patient._id=1"));
}

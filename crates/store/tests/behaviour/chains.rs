//! Chained parameters and `_has`: what is asked of other resources than those that are found.

use std::collections::BTreeSet;
use std::path::Path;

use hilum_fhir::search::{Context, Options, Query, decode_pairs};
use hilum_fhir::{Action, Change, IssueCode, Resource, ResourceType, Target, Timestamp};
use hilum_store::{Access, Commit, Config, Error, Original, OriginalKind, Page, Store};
use serde_json::{Value, json};

use super::resources::{Bench, kind};
use crate::engine::config;

/// More patients than are looked for beforehand when a search has few candidates.
const MANY: usize = 70;

fn context() -> Context {
    Context { zone: jiff::tz::TimeZone::UTC, now: Timestamp::from_micros(0) }
}

/// A search as it is parsed: nobody has allowed its chains.
fn parsed(text: &str) -> Query {
    let (of, pairs) = text.split_once('?').unwrap_or((text, ""));
    let options = Options { condition: false, count_max: 1_000, ..Options::condition() };
    Query::parse(kind(of), &decode_pairs(pairs), &options, &context()).unwrap().0
}

fn reference(to: &str) -> Value {
    json!({ "reference": to })
}

fn coded(code: &str) -> Value {
    json!({ "coding": [{ "system": "urn:c", "code": code }] })
}

impl Bench {
    async fn with(config: Config) -> Self {
        let store = Store::open(config).await.unwrap();
        store.control().put_site(serde_json::from_value(json!({ "id": "a" })).unwrap()).unwrap();
        let site = store.control().site("a").unwrap().unwrap();
        Self { store, site }
    }

    async fn put(&self, body: Value) {
        let resource = Resource::from_value(body).unwrap();
        let target = Target::Id(resource.resource_type(), resource.id().unwrap().to_owned());
        self.change(Action::Replace(target, resource)).await.unwrap();
    }

    async fn delete(&self, of: &str, id: &str) {
        self.change(Action::Delete(Target::Id(kind(of), id.to_owned()))).await.unwrap();
    }

    /// As a client over FHIR, who may correct whose something is.
    async fn change(&self, action: Action) -> Result<Commit, Error> {
        let original = Original {
            kind: OriginalKind::Fhir,
            listener: "test".into(),
            peer: None,
            identity: None,
            control: None,
            sha256: [0; 32],
            blob: None,
            bytes: None,
            content_type: "x",
            received: Timestamp::from_micros(1),
            report: None,
            about: Default::default(),
        };
        self.store.commit(&self.site, original, vec![Change::new(action)], None).await
    }

    async fn patient(&self, id: &str, family: &str, gender: &str) {
        self.put(
            json!({ "resourceType": "Patient", "id": id, "gender": gender, "name": [{ "family": family }],
            "identifier": [{ "system": "urn:mrn", "value": format!("n{id}") }] }),
        )
        .await;
    }

    async fn encounter(&self, id: &str, patient: &str, month: usize) {
        self.put(json!({ "resourceType": "Encounter", "id": id, "status": "finished", "class": { "code": "AMB" },
            "identifier": [{ "value": format!("v{id}") }], "subject": reference(&format!("Patient/{patient}")),
            "period": { "start": format!("2024-{month:02}-01"), "end": format!("2024-{month:02}-02") } }))
            .await;
    }

    async fn observation(&self, id: &str, patient: &str, encounter: Option<&str>, code: &str) {
        let mut body = json!({ "resourceType": "Observation", "id": id, "status": "final", "code": coded(code),
            "subject": reference(&format!("Patient/{patient}")) });
        if let Some(encounter) = encounter {
            body["encounter"] = reference(&format!("Encounter/{encounter}"));
        }
        self.put(body).await;
    }

    /// Two patients, each with a visit and an observation of it, one with another observation and the report of it.
    async fn ward(dir: &Path) -> Self {
        let bench = Self::with(config(dir)).await;
        bench.patient("p1", "Smith", "male").await;
        bench.patient("p2", "Jones", "female").await;
        bench.encounter("e1", "p1", 1).await;
        bench.encounter("e2", "p2", 3).await;
        bench.observation("o1", "p1", Some("e1"), "a").await;
        bench.observation("o2", "p2", Some("e2"), "a").await;
        bench.observation("o3", "p1", None, "b").await;
        bench
            .put(
                json!({ "resourceType": "DiagnosticReport", "id": "r3", "status": "final", "code": coded("r"),
                "subject": reference("Patient/p1"), "result": [reference("Observation/o3")] }),
            )
            .await;
        bench
    }

    /// The page that somebody sees.
    async fn seen_by(&self, access: &Access, text: &str, cursor: Option<&str>) -> Result<Page, Error> {
        let mut query = parsed(text);
        access.restrict(&mut query).unwrap();
        self.store.search(&self.site, &query, cursor).await
    }

    /// The ids of all pages, in order, as somebody sees them.
    async fn ids_seen_by(&self, access: &Access, text: &str) -> String {
        let (mut ids, mut cursor) = (BTreeSet::new(), None);
        loop {
            let page =
                self.seen_by(access, text, cursor.as_deref()).await.unwrap_or_else(|e| panic!("{text}: {e}"));
            for version in page.matches {
                assert!(ids.insert(version.id.clone()), "{text}: {} comes twice", version.id);
            }
            cursor = page.next;
            if cursor.is_none() {
                return ids.into_iter().collect::<Vec<_>>().join(" ");
            }
        }
    }

    async fn ids(&self, text: &str) -> String {
        self.ids_seen_by(&Access::everything(), text).await
    }

    async fn all_are(&self, expected: &[(&str, &str)]) {
        for (text, ids) in expected {
            assert_eq!(self.ids(text).await, *ids, "{text}");
        }
    }

    /// What a search is refused for.
    async fn refusal(&self, text: &str) -> hilum_fhir::Issue {
        let error = self.seen_by(&Access::everything(), text, None).await.map(|_| ()).unwrap_err();
        error.issues.into_iter().next().unwrap()
    }
}

#[tokio::test]
async fn chains_and_has_find_what_belongs_to_what_matches() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::ward(dir.path()).await;
    bench
        .all_are(&[
            ("Observation?patient.name=smith", "o1 o3"),
            ("Observation?subject:Patient.name=smith", "o1 o3"),
            ("Observation?patient.name:exact=Smith", "o1 o3"),
            ("Observation?patient.name:exact=smith", ""),
            ("Observation?patient.name:contains=mit", "o1 o3"),
            ("Observation?patient.name=smith,jones", "o1 o2 o3"),
            ("Observation?patient.name=smith&patient.gender=female", ""),
            ("Observation?patient.name=smith&patient.gender=male", "o1 o3"),
            ("Observation?patient.gender:not=male", "o2"),
            ("Observation?patient.birthdate:missing=true&patient.identifier=urn:mrn|np2", "o2"),
            ("Observation?patient.identifier=urn:mrn|np1&code=b", "o3"),
            ("Observation?patient.identifier=urn:mrn|nobody", ""),
            ("Observation?patient._id=p2", "o2"),
            ("Observation?patient.name=smith&encounter.date=ge2024-01-01", "o1"),
            ("Observation?encounter.date=ge2024-02-01", "o2"),
            ("Observation?encounter.patient.name=jones", "o2"),
            ("Observation?encounter.subject:Patient.identifier=np1", "o1"),
            ("Encounter?subject.identifier=np1", "e1"),
            ("DiagnosticReport?result.patient.name=smith", "r3"),
            ("DiagnosticReport?result.patient.name=jones", ""),
            ("Patient?_has:Observation:patient:code=b", "p1"),
            ("Patient?_has:Observation:subject:code=a", "p1 p2"),
            ("Patient?_has:Observation:patient:code=a,b", "p1 p2"),
            ("Patient?_has:Observation:patient:code=a&_has:Observation:patient:code=b", "p1"),
            ("Patient?_has:Observation:patient:code=a&name=jones", "p2"),
            ("Patient?_has:Observation:patient:code=zz", ""),
            ("Patient?_has:Observation:patient:encounter.date=ge2024-02-01", "p2"),
            ("Patient?_has:Observation:patient:encounter.identifier=ve1", "p1"),
            ("Patient?_has:Observation:patient:_has:DiagnosticReport:result:code=r", "p1"),
            ("Encounter?patient._has:Observation:patient:code=b", "e1"),
            ("Observation?_has:DiagnosticReport:result:status=final", "o3"),
        ])
        .await;
}

#[tokio::test]
async fn what_is_deleted_or_was_so_once_decides_on_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::ward(dir.path()).await;
    bench.patient("p2", "Miller", "female").await;
    bench.observation("o3", "p2", None, "b").await;
    bench
        .all_are(&[
            ("Observation?patient.name=jones", ""),
            ("Observation?patient.name=miller", "o2 o3"),
            ("Patient?_has:Observation:patient:code=b", "p2"),
        ])
        .await;
    bench.delete("Observation", "o3").await;
    bench
        .all_are(&[
            ("Observation?patient.name=miller", "o2"),
            ("Patient?_has:Observation:patient:code=b", ""),
            ("DiagnosticReport?result.code=b", ""),
        ])
        .await;
    bench.delete("Encounter", "e2").await;
    bench.delete("Patient", "p2").await;
    bench
        .all_are(&[
            ("Observation?encounter.date=ge2024-02-01", ""),
            ("Observation?patient.name=miller", ""),
            ("Patient?_has:Observation:patient:code=a", "p1"),
            ("Observation?_id=o2&patient.gender=female", ""),
        ])
        .await;
}

/// A patient whose record was merged into that of another is found by the other's name, as `patient=` finds it, and whether a chain is looked for
/// first or followed from the candidates.
#[tokio::test]
async fn what_hangs_on_a_superseded_patient_is_the_survivors() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::ward(dir.path()).await;
    for at in 0..MANY {
        bench.patient(&format!("x{at}"), "Jones", "female").await;
    }
    let merged = |into: Option<&str>| {
        let mut body = json!({ "resourceType": "Patient", "id": "p1", "name": [{ "family": "Smith" }] });
        if let Some(into) = into {
            body["link"] = json!([{ "type": "replaced-by", "other": reference(&format!("Patient/{into}")) }]);
        }
        body
    };
    let of_survivor = [
        ("Observation?patient=p2", "o1 o2 o3"),
        ("Observation?patient.identifier=np2", "o1 o2 o3"),
        ("Observation?encounter.patient.identifier=np2", "o1 o2"),
        // more of that name than candidates: each is followed
        ("Observation?_id=o1,o3&patient.name=jones", "o1 o3"),
        ("Observation?_id=o1&encounter.patient.name=jones", "o1"),
        // the superseded one itself still has what it had
        ("Observation?patient.name=smith", "o1 o3"),
        ("Patient?_has:Observation:patient:code=b", "p1 p2"),
        ("Patient?_id=p2&_has:Observation:patient:code=b", "p2"),
        ("Patient?_has:Encounter:patient:identifier=ve1", "p1 p2"),
    ];
    bench.put(merged(Some("p2"))).await;
    bench.all_are(&of_survivor).await;
    bench.put(merged(None)).await;
    bench
        .all_are(&[
            ("Observation?patient.identifier=np2", "o2"),
            ("Observation?_id=o1,o2,o3&patient.name=jones", "o2"),
            ("Patient?_has:Observation:patient:code=b", "p1"),
        ])
        .await;
}

#[tokio::test]
async fn what_a_scope_hides_is_not_found_through_a_chain() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::ward(dir.path()).await;
    for at in 0..MANY {
        bench.patient(&format!("x{at}"), "Smith", "male").await;
        bench.observation(&format!("y{at}"), "p2", None, "b").await;
    }
    let access = |scopes: &str| {
        let scopes: Vec<String> = scopes.split(' ').map(str::to_owned).collect();
        Access::check(&scopes, &context()).unwrap();
        Access::of(&scopes, None, &context())
    };
    let women = &access("system/Observation.rs system/Encounter.rs system/Patient.rs?gender=female");
    let of_a = &access("system/Patient.rs system/Observation.rs?code=a");
    for (who, text, ids) in [
        (women, "Observation?patient.name=jones&code=a", "o2"),
        (women, "Observation?patient.name=smith", ""),
        (women, "Observation?patient.identifier=np1", ""),
        (women, "Observation?patient.gender=male", ""),
        (women, "Observation?patient.gender:not=female", ""),
        (women, "Observation?_id=o1,o2&patient.name=smith", ""),
        (women, "Observation?encounter.patient.name=smith,jones", "o2"),
        (women, "Patient?_has:Observation:patient:code=a", "p2"),
        (of_a, "Patient?_has:Observation:patient:code=a", "p1 p2"),
        (of_a, "Patient?_has:Observation:patient:code=b", ""),
        (of_a, "Patient?_id=p1,p2&_has:Observation:patient:code=b", ""),
        (of_a, "Patient?_has:Observation:patient:code:not=a", ""),
    ] {
        assert_eq!(bench.ids_seen_by(who, text).await, ids, "{text}");
    }
    // it would be found by who sees all
    bench.all_are(&[("Observation?_id=o1,o2&patient.name=smith", "o1")]).await;
    let lacking = |who: &Access, text: &str| who.restrict(&mut parsed(text)).map_err(ResourceType::name);
    let observations = access("system/Observation.rs system/Patient.r");
    assert_eq!(lacking(&observations, "Observation?patient.name=smith"), Err("Patient"));
    assert_eq!(lacking(&observations, "Observation?encounter.date=2024"), Err("Encounter"));
    assert_eq!(lacking(women, "Observation?encounter.service-provider.name=x"), Err("Organization"));
    assert_eq!(lacking(of_a, "Patient?_has:Encounter:patient:status=finished"), Err("Encounter"));
    // all types of a chain without one
    assert_eq!(lacking(women, "Encounter?subject.identifier=np1"), Err("Group"));
}

/// Who forgets to restrict a search gets none.
#[tokio::test]
async fn a_chain_that_nobody_allowed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::ward(dir.path()).await;
    for text in ["Observation?patient.name=smith", "Observation?code=a&encounter.patient.name=smith"] {
        let error = bench.store.search(&bench.site, &parsed(text), None).await.map(|_| ()).unwrap_err();
        assert_eq!(error.issues[0].code, IssueCode::Forbidden, "{text}");
        // nor is one within it
        let mut outer_only = parsed(text);
        for filter in &mut outer_only.filters {
            if let hilum_fhir::search::Condition::Linked(linked) = &mut filter.condition {
                linked.allowed = true;
            }
        }
        let is_nested = text.contains("encounter");
        assert_eq!(bench.store.search(&bench.site, &outer_only, None).await.is_err(), is_nested, "{text}");
    }
    // nor does a condition ask of others, whoever made it
    let mut query = parsed("Patient?_has:Observation:patient:code=b");
    Access::everything().restrict(&mut query).unwrap();
    let error = bench.change(Action::Delete(Target::Query(Box::new(query)))).await.map(|_| ()).unwrap_err();
    assert!(error.message.contains("a condition asks of the resource itself"), "{error}");
    assert_eq!(bench.ids("Patient").await, "p1 p2");
}

#[tokio::test]
async fn a_set_on_the_way_that_is_too_large_is_refused_and_never_cut() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with(Config { chained_max: 3, ..config(dir.path()) }).await;
    for at in 1..=4 {
        let family = if at < 4 { "Roe" } else { "Roebuck" };
        bench.patient(&format!("p{at}"), family, "female").await;
        bench.observation(&format!("o{at}"), &format!("p{at}"), None, "a").await;
    }
    bench.all_are(&[("Observation?patient.name:exact=Roe", "o1 o2 o3")]).await;
    for text in [
        "Observation?patient.name=roe",
        "Observation?patient.gender=female",
        "Observation?status=final&patient.name=roe",
        "Patient?_has:Observation:patient:code=a",
        "Patient?_has:Observation:patient:patient.name=roe",
    ] {
        let issue = bench.refusal(text).await;
        assert_eq!(issue.code, IssueCode::TooCostly, "{text}");
        assert!(
            issue.diagnostics.contains("more than 3 resources (limits.search.chained_max)"),
            "{}",
            issue.diagnostics
        );
    }
    // few candidates are followed
    bench
        .all_are(&[
            ("Observation?code=a&patient.name=roe", "o1 o2 o3 o4"),
            ("Observation?_id=o4,o1&patient.name=roe", "o1 o4"),
            ("Observation?patient.name=roe&patient.identifier=np4", "o4"),
            ("Patient?_id=p2&_has:Observation:patient:code=a", "p2"),
            ("Patient?name=roebuck&_has:Observation:patient:code=a", "p4"),
        ])
        .await;
}

/// Whichever side a search is driven from, it finds the same.
#[tokio::test]
async fn a_chain_that_is_followed_finds_what_one_that_is_looked_for_finds() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with(config(dir.path())).await;
    for at in 0..2 * MANY {
        let (family, gender) = (["Ash", "Birch", "Cedar"][at % 3], ["male", "female"][at % 2]);
        bench.patient(&format!("p{at}"), family, gender).await;
    }
    for at in 0..20 {
        bench.encounter(&format!("e{at}"), &format!("p{}", at * 7 % 11), 1 + at % 12).await;
        let encounter = format!("e{at}");
        let encounter = Some(encounter.as_str()).filter(|_| at % 3 > 0);
        bench
            .observation(&format!("o{at}"), &format!("p{}", at * 5 % 13), encounter, ["a", "b"][at % 2])
            .await;
    }
    bench
        .put(json!({ "resourceType": "Patient", "id": "p0", "name": [{ "family": "Old" }],
        "link": [{ "type": "replaced-by", "other": reference("Patient/p1") }] }))
        .await;
    let all = |kind: &str| (0..20).map(|at| format!("{kind}{at}")).collect::<Vec<_>>();
    let mut not_empty = 0;
    for (of, text) in [
        ("Observation", "patient.name=ash"),
        ("Observation", "patient.name=birch,cedar"),
        ("Observation", "patient.gender=male"),
        ("Observation", "encounter.patient.name=birch"),
        ("Observation", "encounter.patient.gender:not=male"),
        ("Observation", "patient._has:Encounter:patient:status=finished"),
        ("Patient", "_has:Observation:patient:code=a"),
        ("Patient", "_has:Observation:patient:patient.name=birch"),
        ("Patient", "_has:Encounter:patient:_has:Observation:encounter:code=b"),
        ("Patient", "_has:Observation:patient:encounter.patient.gender=female"),
    ] {
        let ids = all(if of == "Patient" { "p" } else { "o" });
        let looked_for = bench.ids(&format!("{of}?{text}")).await;
        let mut one_by_one = BTreeSet::new();
        for id in &ids {
            one_by_one
                .extend(Some(bench.ids(&format!("{of}?_id={id}&{text}")).await).filter(|id| !id.is_empty()));
        }
        let followed = bench.ids(&format!("{of}?_id={}&{text}", ids.join(","))).await;
        let one_by_one = one_by_one.into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!((&looked_for, &looked_for), (&followed, &one_by_one), "{of}?{text}");
        not_empty += usize::from(!looked_for.is_empty());
    }
    assert_eq!(not_empty, 10);
}

#[tokio::test]
async fn pages_counts_orders_and_includes_work_with_chains() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with(config(dir.path())).await;
    bench.patient("p1", "Smith", "male").await;
    bench.patient("p2", "Jones", "female").await;
    for at in 0..10 {
        bench.observation(&format!("o{at}"), ["p1", "p2"][at % 2], None, ["a", "b", "c"][at % 3]).await;
    }
    let everybody = &Access::everything();
    for text in [
        "Observation?patient.name=smith&_count=2",
        "Observation?patient.name=smith&_count=2&_sort=-_lastUpdated",
        "Observation?patient.name=smith&_count=2&_sort=code&_total=accurate",
    ] {
        let first = bench.seen_by(everybody, text, None).await.unwrap();
        assert_eq!(first.matches.len(), 2, "{text}");
        assert!(first.total.is_none_or(|total| total == 5), "{text}");
        assert_eq!(bench.ids(text).await, "o0 o2 o4 o6 o8", "{text}");
        // a page link is of its own chain
        let other = bench.seen_by(everybody, &text.replace("smith", "jones"), first.next.as_deref()).await;
        assert!(other.is_err(), "{text}");
    }
    let counted =
        bench.seen_by(everybody, "Observation?patient.name=smith&_summary=count", None).await.unwrap();
    assert_eq!((counted.total, counted.matches.len()), (Some(5), 0));
    let none = bench.seen_by(everybody, "Observation?patient.name=nobody", None).await.unwrap();
    assert_eq!((none.total, none.matches.len()), (Some(0), 0));
    let text = "Observation?patient.name=smith&code=a&_include=Observation:patient";
    let included = bench.seen_by(everybody, text, None).await.unwrap();
    let ids: Vec<&str> = included.includes.iter().map(|version| version.id.as_str()).collect();
    assert_eq!((included.matches.len(), ids), (2, vec!["p1"]));
    let text = "Patient?_has:Observation:patient:code=a&_revinclude=Observation:patient&_sort=name&_count=1";
    let first = bench.seen_by(everybody, text, None).await.unwrap();
    assert_eq!((first.matches[0].id.as_str(), first.includes.len()), ("p2", 5));
    let second = bench.seen_by(everybody, text, first.next.as_deref()).await.unwrap();
    assert_eq!((second.matches[0].id.as_str(), second.next), ("p1", None));
}

/// What was corrected between two pages is neither missed nor doubled: it matched at the first.
#[tokio::test]
async fn later_pages_of_a_chain_show_what_matched_at_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with(config(dir.path())).await;
    bench.patient("p1", "Smith", "male").await;
    bench.patient("p2", "Jones", "female").await;
    for at in 0..8 {
        bench.observation(&format!("o{at}"), "p1", None, "a").await;
    }
    let everybody = &Access::everything();
    for text in ["Observation?patient.name=smith&_count=3", "Observation?code=a&patient.name=smith&_count=3"]
    {
        let first = bench.seen_by(everybody, text, None).await.unwrap();
        let shown: Vec<String> = first.matches.iter().map(|version| version.id.clone()).collect();
        let later: Vec<String> = (0..8).map(|at| format!("o{at}")).filter(|id| !shown.contains(id)).collect();
        bench.observation(&later[0], "p2", None, "b").await;
        bench.observation("new", "p1", None, "a").await;
        let (mut all, mut cursor) = (shown, first.next);
        while let Some(at) = cursor {
            let page = bench.seen_by(everybody, text, Some(&at)).await.unwrap();
            all.extend(page.matches.into_iter().map(|version| version.id));
            cursor = page.next;
        }
        all.sort();
        let expected: Vec<String> = (0..8).map(|at| format!("o{at}")).collect();
        assert_eq!(all, expected, "{text}");
        bench.observation(&later[0], "p1", None, "a").await;
        bench.delete("Observation", "new").await;
    }
}

//! Studies: drawn from images and performed steps.

use hilum_fhir::imaging::{Instance, PerformedStep, Series, StepStatus, Study};
use hilum_fhir::{Action, Match};
use hilum_store::{Effect, ErrorKind};
use serde_json::{Map, json};

use super::resources::{Bench, by_id, kind, mrn, numbers, object, patient};

fn study(uid: &str) -> Study {
    Study {
        uid: uid.into(),
        patient: Some((numbers(&["img"]), patient("img", "Img"))),
        orders: Vec::new(),
        accession: Some(("urn:acc".into(), "A7".into())),
        elements: object(&json!({ "description": "CT chest" })),
    }
}

fn instance(sop: &str, study_uid: &str, content: u8) -> Action {
    let elements = object(&json!({ "number": 1, "modality": { "code": "CT" } }));
    Action::Instance(Box::new(Instance {
        uid: sop.into(),
        sop_class: "1.2.840.10008.5.1.4.1.1.2".into(),
        transfer_syntax: "1.2.840.10008.1.2.1".into(),
        elements: Map::new(),
        dataset_bytes: 1,
        dataset_sha256: [content; 32],
        blob: [content; 32],
        blob_bytes: 1,
        series: Series { uid: format!("{study_uid}.1"), elements },
        study: study(study_uid),
    }))
}

#[tokio::test]
async fn instances_become_one_imaging_study() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let first = bench.one(instance("1.1", "1.2", 1)).await.unwrap();
    assert_eq!((first.effect, first.version), (Effect::Recorded, 1), "published with the first instance");
    assert_eq!(bench.one(instance("1.1", "1.2", 1)).await.unwrap().effect, Effect::Unchanged);
    for n in 2..30 {
        bench.one(instance(&format!("1.{n}"), "1.2", n)).await.unwrap();
    }
    bench.one(instance("1.1", "1.2", 77)).await.unwrap();
    assert_eq!(
        bench.store.instance(&bench.site, "1.1").await.unwrap().unwrap().blob.0,
        [77; 32],
        "the newest is current"
    );
    assert_eq!(bench.store.publish_studies(&bench.site, Some("1.2")).await.unwrap(), 0, "published just now");
    let found = bench.find("ImagingStudy", "identifier=urn:dicom:uid|urn:oid:1.2").await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["numberOfInstances"], 29);
    assert_eq!(found[0]["meta"]["versionId"], "2", "thirty images made two versions");
    assert!(found[0]["subject"]["reference"].as_str().unwrap().starts_with("Patient/"));
}

#[tokio::test]
async fn a_performed_step_moves_forward_only() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let step = |status: StepStatus| {
        let procedure = Match {
            resource_type: kind("Procedure"),
            system: Some("urn:dicom:uid".into()),
            value: "urn:oid:5.5".into(),
        };
        let attributes = object(&json!({ "status": status.as_str() }));
        Action::Step(Box::new(PerformedStep {
            uid: "5.5".into(),
            study: Some(study("5.6")),
            status,
            attributes,
            series: Vec::new(),
            procedure,
        }))
    };
    assert_eq!(bench.one(step(StepStatus::InProgress)).await.unwrap().effect, Effect::Recorded);
    assert_eq!(bench.one(step(StepStatus::InProgress)).await.unwrap().effect, Effect::Unchanged);
    bench.one(step(StepStatus::Completed)).await.unwrap();
    assert_eq!(bench.one(step(StepStatus::InProgress)).await.unwrap_err().kind, ErrorKind::Conflict);
    assert_eq!(bench.find("ImagingStudy", "status=registered").await.len(), 1);
}

#[tokio::test]
async fn a_patient_under_whom_images_are_found_is_not_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    bench.one(instance("1.1", "1.2", 1)).await.unwrap();
    let mut into = "img";
    for survivor in ["new", "last"] {
        let supersede = Action::Supersede {
            survivor: Box::new((mrn(survivor).into(), patient(survivor, "S"))),
            prior: Box::new((mrn(into).into(), patient(into, "P"))),
        };
        bench.one(supersede).await.unwrap();
        into = survivor;
    }
    bench.one(Action::Create(patient("other", "O"))).await.unwrap();
    for (number, has_images) in [("img", true), ("new", true), ("last", true), ("other", false)] {
        let found = bench.find("Patient", &format!("identifier=urn:mrn|{number}")).await;
        let deleted = bench.one(Action::Delete(by_id(found[0]["id"].as_str().unwrap()))).await;
        assert_eq!(deleted.is_err_and(|error| error.kind == ErrorKind::Conflict), has_images, "{number}");
    }
}

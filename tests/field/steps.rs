//! The inputs of `dicom` that are about performed steps.

use super::images::uid;
use super::{Field, in_each_order, in_each_way, reference, text, texts};
use serde_json::Value;

/// The Procedure of a step.
fn procedure(field: &Field, step: &str) -> Value {
    field.only(&format!("Procedure?identifier=urn:oid:{}", uid(step)))
}

#[test]
fn one_number_and_its_issuer_are_one_patient_at_three_doors() {
    let orders = [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]];
    in_each_order("dicom/issuer-at-three-doors", &orders, |field| {
        let patient = field.patient("FD0702");
        assert_eq!(field.all("Patient").len(), 1);
        for resource in [field.study(&uid("7.11")), procedure(field, "7.902")] {
            assert_eq!(text(&resource["subject"]["reference"]), patient, "{resource:#}");
        }
    });
}

#[test]
fn a_step_is_completed_by_its_own_uid_alone() {
    in_each_way("dicom/nset-without-study", |field| {
        field.send(1);
        assert_eq!(procedure(field, "18.901")["status"], "in-progress");
        field.send(2);
        let done = procedure(field, "18.901");
        assert_eq!(done["status"], "completed");
        assert_eq!(text(&done["performedPeriod"]["end"]).get(..19), Some("2026-02-03T10:30:00"), "{done:#}");
        assert_eq!(texts(&field.study(&uid("18.1"))["series"], "uid"), [uid("18.2")]);
        assert_eq!(field.all("Procedure").len(), 1);
    });
}

#[test]
fn a_study_and_a_step_of_two_orders_name_both() {
    let orders = [[1, 2, 3, 4], [4, 3, 2, 1], [3, 1, 4, 2], [4, 1, 2, 3]];
    in_each_order("dicom/two-orders-one-accession", &orders, |field| {
        let filler = |number| reference(&field.only(&format!("ServiceRequest?identifier={number}")));
        let mut both = [filler("F1001"), filler("F1002")];
        both.sort();
        let named = |resource: &Value| texts(&resource["basedOn"], "reference");
        field.wait("named both by the study", || named(&field.study(&uid("10.1"))) == both);
        field.wait("named both by the step", || named(&procedure(field, "10.901")) == both);
        assert_eq!(field.all("ServiceRequest").len(), 2);
    });
}

#[test]
fn a_study_is_cancelled_only_when_all_its_steps_are() {
    let orders = [[1, 2, 3, 4], [3, 4, 1, 2], [1, 3, 4, 2], [3, 1, 2, 4]];
    in_each_order("dicom/two-steps-of-a-study", &orders, |field| {
        assert_eq!(field.study(&uid("19.1"))["status"], "registered");
    });
    in_each_order("dicom/two-steps-of-a-study", &[[3, 4]], |field| {
        assert_eq!(field.study(&uid("19.1"))["status"], "cancelled", "its only step");
    });
}

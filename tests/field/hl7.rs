//! The inputs of `hl7` that are about patients, numbers, visits, orders and results.

use super::{Field, in_each_order, in_each_way, list, reference, text, texts};
use serde_json::{Value, json};

/// What is of a patient, of a type.
fn of(field: &Field, kind: &str, patient: &str) -> Vec<Value> {
    field.all(&format!("{kind}?subject={patient}"))
}

/// The values of the results of a patient.
fn quantities(field: &Field, patient: &str) -> Vec<String> {
    let mut all: Vec<String> = of(field, "Observation", patient)
        .iter()
        .map(|result| text(&result["valueQuantity"]["value"]))
        .collect();
    all.sort();
    all
}

/// The values of the results that a report names.
fn reported(field: &Field, report: &Value) -> Vec<String> {
    let results = list(&report["result"]).map(|result| field.read(&text(&result["reference"])));
    results.map(|result| text(&result["valueQuantity"]["value"])).collect()
}

#[test]
fn a_filler_number_of_two_senders_is_two_orders_and_two_reports() {
    in_each_order("hl7/filler-number-of-two-senders", &[[1, 2], [2, 1]], |field| {
        for (patient, value) in [("C03A", "5.1"), ("C03B", "0.48")] {
            let patient = field.patient(patient);
            let (orders, reports) =
                (of(field, "ServiceRequest", &patient), of(field, "DiagnosticReport", &patient));
            assert_eq!((orders.len(), reports.len()), (1, 1), "{patient}");
            assert_eq!(reported(field, &reports[0]), [value]);
            assert_eq!(texts(&reports[0]["basedOn"], "reference"), [reference(&orders[0])]);
            assert_eq!(quantities(field, &patient), [value]);
        }
        for kind in ["Patient", "ServiceRequest", "DiagnosticReport", "Observation"] {
            assert_eq!(field.all(kind).len(), 2, "{kind}");
        }
    });
}

#[test]
fn an_empty_work_phone_stays_when_the_home_phone_changes() {
    in_each_way("hl7/home-phone-wipes-work-phone", |field| {
        field.send(1);
        field.send(2);
        let patient = field.only("Patient?identifier=C16A");
        assert_eq!(texts(&patient["telecom"], "value"), ["555-0202", "555-0909"]);
    });
}

#[test]
fn a_merge_may_list_the_prior_number_among_those_of_the_survivor() {
    for order in [[1, 2], [2, 1]] {
        in_each_way("hl7/merge-lists-the-prior-number", |field| {
            order.iter().for_each(|part| field.send(*part));
            let (survivor, prior) = (field.patient("C19A"), field.patient("C19B"));
            field.send(3);
            let replaced = field.read(&prior);
            assert_eq!(replaced["active"], false);
            let link = json!([{ "other": { "reference": survivor }, "type": "replaced-by" }]);
            assert_eq!(replaced["link"], link);
            assert_ne!(field.read(&survivor)["active"], false);
            assert_eq!(field.all("Patient").len(), 2);
        });
    }
}

#[test]
fn a_null_in_the_field_of_one_number_deletes_no_other() {
    in_each_way("hl7/null-ssn-wipes-numbers", |field| {
        (1..=4).for_each(|part| field.send(part));
        let patient = field.only("Patient");
        assert_eq!(texts(&patient["identifier"], "value"), ["C54A", "L54A"]);
        assert_eq!(quantities(field, &reference(&patient)), ["5.1", "5.3"]);
    });
}

#[test]
fn two_panels_that_share_a_filler_number_are_two_reports_and_two_orders() {
    in_each_way("hl7/panels-share-a-number", |field| {
        field.send(0);
        assert_eq!(field.all("DiagnosticReport").len(), 2);
        assert_eq!(field.all("ServiceRequest").len(), 2);
        for (code, placer, result, value) in [("CBC", "PL7", "WBC", "5.2"), ("BMP", "PL8", "NA", "140")] {
            let report = field.only(&format!("DiagnosticReport?code={code}"));
            assert_eq!(reported(field, &report), [value]);
            let results = field.only(&format!("Observation?code={result}"));
            assert_eq!(texts(&report["result"], "reference"), [reference(&results)]);
            let order = field.only(&format!("ServiceRequest?identifier={placer}"));
            assert_eq!(texts(&report["basedOn"], "reference"), [reference(&order)]);
            assert_eq!(texts(&order["identifier"], "value"), ["ACC7", placer]);
        }
    });
}

#[test]
fn a_placer_first_and_a_filler_later_are_one_order() {
    let is_one = |field: &Field| {
        let order = field.only("ServiceRequest");
        assert_eq!(texts(&order["identifier"], "value"), ["F35A", "P35A"]);
        let report = field.only("DiagnosticReport");
        assert_eq!(texts(&report["basedOn"], "reference"), [reference(&order)]);
        order
    };
    in_each_order("hl7/placer-first-filler-later", &[[1, 2]], |field| {
        assert_eq!(is_one(field)["status"], "completed");
    });
    in_each_order("hl7/placer-first-filler-later", &[[2, 1]], |field| {
        is_one(field);
    });
}

#[test]
fn the_results_of_a_merged_patient_are_found_at_the_survivor() {
    in_each_order("hl7/record-of-a-merged-patient", &[[1, 2, 3, 4], [1, 2, 4, 3]], |field| {
        let survivor = field.patient("C21A");
        let result = field.only(&format!("Observation?patient={survivor}"));
        assert_eq!(result["valueQuantity"]["value"], json!(5.1));
        for search in ["Observation?subject", "DiagnosticReport?patient", "ServiceRequest?subject"] {
            assert_eq!(field.all(&format!("{search}={survivor}")).len(), 1, "{search}");
        }
    });
}

#[test]
fn a_result_after_discharge_does_not_open_the_visit_again() {
    in_each_order("hl7/result-after-discharge", &[[1, 2, 3], [1, 3, 2], [3, 1, 2]], |field| {
        let visit = field.only("Encounter?identifier=V38A");
        assert_eq!(visit["status"], "finished");
        for (end, time) in [("start", "2026-03-01T09:00:00"), ("end", "2026-03-01T15:00:00")] {
            assert_eq!(text(&visit["period"][end]).get(..19), Some(time), "{visit:#}");
        }
        let result = field.only("Observation");
        assert_eq!(text(&result["encounter"]["reference"]), reference(&visit));
    });
}

#[test]
fn two_findings_of_one_code_are_two_results() {
    in_each_way("hl7/same-code-twice", |field| {
        field.send(0);
        let results = field.all("Observation?code=664-3");
        let mut values: Vec<String> = results.iter().map(|result| text(&result["valueString"])).collect();
        values.sort();
        assert_eq!(values, ["Gram-negative rods", "Gram-positive cocci"]);
        let mut both: Vec<String> = results.iter().map(reference).collect();
        both.sort();
        assert_eq!(texts(&field.only("DiagnosticReport")["result"], "reference"), both);
    });
}

#[test]
fn each_result_of_a_message_with_two_patients_is_of_the_patient_and_visit_before_it() {
    in_each_way("hl7/two-patients-in-one-result", |field| {
        field.send(0);
        for (patient, visit, filler, value) in
            [("C01A", "V01A", "F01A", "5.1"), ("C01B", "V01B", "F01B", "19.4")]
        {
            let patient = field.patient(patient);
            let visit = field.only(&format!("Encounter?identifier={visit}"));
            assert_eq!(text(&visit["subject"]["reference"]), patient);
            assert_eq!(quantities(field, &patient), [value]);
            let report = field.only(&format!("DiagnosticReport?subject={patient}"));
            assert!(texts(&report["identifier"], "value").contains(&filler.to_owned()), "{report:#}");
            let result = field.only(&format!("Observation?subject={patient}"));
            for resource in [report, result] {
                assert_eq!(text(&resource["encounter"]["reference"]), reference(&visit));
            }
        }
        assert_eq!(field.all("Patient").len(), 2);
    });
}

#[test]
fn an_update_is_late_only_by_what_its_own_sender_said() {
    in_each_order("hl7/update-recorded-before", &[[1, 2, 3], [2, 1, 3]], |field| {
        let patient = field.only("Patient");
        assert_eq!(texts(&patient["name"], "family"), ["Newman"]);
        assert_eq!(texts(&patient["identifier"], "value"), ["C17A", "L17A"]);
        assert_eq!(patient["birthDate"], "1971-02-03");
    });
}

#[test]
fn a_value_that_is_corrected_in_another_type_is_one_value() {
    in_each_way("hl7/value-changes-its-type", |field| {
        field.send(1);
        assert_eq!(quantities(field, &field.patient("C24A")), ["7.9"]);
        field.send(2);
        let result = field.only("Observation");
        let values: Vec<(&String, &Value)> =
            result.as_object().unwrap().iter().filter(|(name, _)| name.starts_with("value")).collect();
        assert_eq!(values, [(&"valueString".to_owned(), &json!("haemolysed, repeat"))]);
        let put = field.rest("PUT", &reference(&result), &result);
        assert_eq!(put.status, 200, "{}", put.body);
    });
}

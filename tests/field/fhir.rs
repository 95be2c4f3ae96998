//! The inputs of `fhir` that are about patients, numbers, merges and studies.

use super::images::uid;
use super::{Field, Way, http, in_each_way, reference};
use crate::harness::CALLING;
use crate::harness::dicom::{Association, image_of};
use serde_json::{Value, json};

/// What the numbers of the authority NORD have as their system.
const NORD: &str = "urn:hilum:site:default:hd:NORD";

/// The time as it stands in a message.
fn now() -> String {
    jiff::Timestamp::now().strftime("%Y%m%d%H%M%S").to_string()
}

/// A template with its values put in.
fn filled(template: &[u8], values: &[(&str, &str)]) -> Vec<u8> {
    let mut message = String::from_utf8(template.to_vec()).unwrap();
    for (name, value) in values.iter().chain(&[("NOW", now().as_str())]) {
        message = message.replace(&format!("{{{{{name}}}}}"), value);
    }
    assert!(!message.contains("{{"), "{message}");
    message.into_bytes()
}

/// A message of the sender of the inputs: its trigger, the number of its patient, and what stands behind PID.
fn message(control: &str, trigger: &str, number: &str, rest: &str) -> String {
    let now = now();
    format!(
        "MSH|^~\\&|KIS|NORD|HILUM|EDGE|{now}+0000||{trigger}|{control}|P|2.5.1\r\
         PID|1||{number}^^^NORD^MR||Okafor^Ngozi||19700101|F\r{rest}"
    )
}

/// Sends a message; it is accepted.
fn exchange(field: &mut Field, message: &str) {
    let answer = field.exchange(message.as_bytes());
    assert!(answer.contains("MSA|AA|"), "{answer}");
    field.between();
}

#[test]
fn a_message_whose_number_two_patients_have_overwrites_neither() {
    in_each_way("fhir/two-patients-one-number", |field| {
        let people = [("Okafor", "1950-06-07"), ("Dragan", "2001-02-03")].map(|(family, born)| {
            let identifier = json!([{ "system": NORD, "value": "N-1" }]);
            let patient = json!({ "resourceType": "Patient", "identifier": identifier,
                "name": [{ "family": family }], "birthDate": born });
            let made = field.rest("POST", "Patient", &patient);
            assert_eq!(made.status, 201, "{}", made.body);
            made.json()
        });
        field.between();
        let answer = field.submit(0, |template| filled(template, &[("MRN", "N-1")]));
        // of the two ways out this is the one: nothing is guessed
        assert!(answer.contains("MSA|AE|FH0001") && answer.contains("|205^"), "{answer}");
        for patient in &people {
            assert_eq!(field.read(&reference(patient)), *patient, "as it was");
        }
        assert_eq!(field.all("Patient").len(), 2);
        let number = field.edge().get("/admin/submissions?count=1")["submissions"][0]["submission"].clone();
        let path = format!("/admin/submissions/{number}/original");
        let kept = http::send(field.edge().http, "GET", &path, &[], "");
        assert!(kept.body.contains("|FH0001|"), "it is kept: {kept:?}");
    });
}

#[test]
fn a_merge_undone_by_a_client_is_undone_for_messages() {
    in_each_way("fhir/undone-merge", |field| {
        exchange(field, &message("U-1", "ADT^A08^ADT_A01", "U-OLD", ""));
        exchange(field, &message("U-2", "ADT^A08^ADT_A01", "U-NEW", ""));
        let (old, new) = (field.patient("U-OLD"), field.patient("U-NEW"));
        field.send_changed(0, |template| {
            filled(template, &[("OLD", "U-OLD"), ("NEW", "U-NEW"), ("CONTROL", "U-3")])
        });
        assert_eq!(field.read(&old)["link"][0]["other"]["reference"], json!(new));
        for patient in [&old, &new] {
            let mut apart = field.read(patient);
            apart.as_object_mut().unwrap().remove("link");
            apart["active"] = json!(true);
            let put = field.rest("PUT", patient, &apart);
            assert_eq!(put.status, 200, "{}", put.body);
        }
        field.between();
        let result = "OBR|1||U-F1^LIS|GLU^Glucose^L\rOBX|1|NM|GLU^Glucose^L||5.1|mmol/L|||||F\r";
        exchange(field, &message("U-4", "ORU^R01^ORU_R01", "U-OLD", result));
        assert_eq!(field.only("Observation")["subject"]["reference"], json!(old));
        assert_eq!(field.all(&format!("Observation?patient={new}")), Vec::<Value>::new());
        assert!([&old, &new].iter().all(|patient| field.read(patient)["active"] == true));
    });
}

/// Stores the images of one study, in one association that stays open unless there are restarts.
#[derive(Default)]
struct Modality {
    open: Option<Association>,
    images: u64,
}

impl Modality {
    fn store(&mut self, field: &mut Field) -> u64 {
        self.images += 1;
        let instance = uid(&format!("99.{}", self.images));
        let image = image_of(&instance, &uid("99"), &uid("99.0"), ("FH0099", "Okafor^Ngozi"), 100);
        let open = self.open.take();
        let mut open = open.unwrap_or_else(|| Association::request(field.edge().dicom, CALLING).unwrap());
        assert_eq!(open.store(&instance, &image).unwrap().status, 0);
        if field.way == Way::InOneGo {
            self.open = Some(open);
        } else {
            open.release();
            field.between();
        }
        self.images
    }
}

/// One way to read a study.
type Read<'a> = dyn Fn(&Field) -> Value + 'a;

/// The ImagingStudy among resources.
fn the_study(resources: &[Value]) -> Value {
    resources.iter().find(|resource| resource["resourceType"] == "ImagingStudy").unwrap().clone()
}

#[test]
fn every_way_to_read_a_study_counts_all_its_images() {
    in_each_way("fhir/one-count-of-images", |field| {
        let mut modality = Modality::default();
        modality.store(field);
        let (study, patient) = (reference(&field.study(&uid("99"))), field.patient("FH0099"));
        let request = json!({ "method": "GET", "url": study });
        let batch = json!({ "resourceType": "Bundle", "type": "batch", "entry": [{ "request": request }] });
        let with_patients = format!("ImagingStudy?patient={patient}&_include=ImagingStudy:patient");
        let with_studies = format!("Patient?_id={}&_revinclude=ImagingStudy:patient", &patient[8..]);
        let ways: [(&str, &Read); 6] = [
            ("_revinclude", &|field| the_study(&field.all(&with_studies))),
            ("batch", &|field| field.rest("POST", "", &batch).json()["entry"][0]["resource"].clone()),
            ("history", &|field| field.read(&format!("{study}/_history"))["entry"][0]["resource"].clone()),
            ("read", &|field| field.read(&study)),
            ("search", &|field| field.only(&format!("ImagingStudy?patient={patient}"))),
            ("_include", &|field| the_study(&field.all(&with_patients))),
        ];
        for (way, read) in ways {
            let images = modality.store(field);
            assert_eq!(read(field)["numberOfInstances"], images, "{way}");
        }
    });
}

#[test]
fn a_part_of_a_patient_sent_back_does_not_replace_the_whole() {
    in_each_way("fhir/subsetted-put", |field| {
        let number = "urn:example:nordhafen:mrn|SUBS-1";
        let patient = json!({ "resourceType": "Patient", "birthDate": "1961-04-05",
            "identifier": [{ "system": "urn:example:nordhafen:mrn", "value": "SUBS-1" }],
            "name": [{ "family": "Castellanos", "given": ["Iria"] }] });
        let made = field.rest("POST", "Patient", &patient);
        assert_eq!(made.status, 201, "{}", made.body);
        field.between();
        let (whole, own) = (made.json(), reference(&made.json()));
        for part in ["_elements=birthDate", "_summary=true", "_summary=text"] {
            let mut changed = field.read(&format!("{own}?{part}"));
            assert_eq!(changed["meta"]["tag"][0]["code"], "SUBSETTED", "{part}");
            changed["birthDate"] = json!("1961-04-06");
            for target in [&own, &format!("Patient?identifier={number}")] {
                let put = field.rest("PUT", target, &changed);
                assert_eq!(put.status, 422, "{part}: {target}: {}", put.body);
                let request = json!({ "method": "PUT", "url": target });
                let entry = json!([{ "resource": changed, "request": request }]);
                let bundle = json!({ "resourceType": "Bundle", "type": "transaction", "entry": entry });
                let told = field.rest("POST", "", &bundle);
                assert_eq!(told.status, 422, "{part}: {target}: {}", told.body);
            }
        }
        field.between();
        assert_eq!(field.only(&format!("Patient?identifier={number}")), whole, "as it was");
    });
}

#[test]
fn a_transaction_may_refer_by_number_to_the_patient_it_makes() {
    in_each_way("fhir/tx-conditional-reference", |field| {
        let bundle: Value = serde_json::from_slice(&field.part(0).1).unwrap();
        let told = field.rest("POST", "", &bundle);
        assert_eq!(told.status, 200, "{}", told.body);
        field.between();
        let patient = field.patient("urn:example:nordhafen:mrn|CREF-1");
        assert_eq!(field.only("Observation")["subject"]["reference"], json!(patient));
    });
}

#[test]
fn a_reference_with_the_address_of_the_edge_is_found_like_one_without() {
    in_each_way("fhir/own-absolute-reference", |field| {
        let made = field.rest("POST", "Patient", &json!({ "resourceType": "Patient" }));
        let (patient, id) = (reference(&made.json()), made.json()["id"].as_str().unwrap().to_owned());
        let base = format!("http://{}/fhir", field.edge().http);
        let result = filled(&field.part(0).1, &[("BASE", &base), ("PATIENT", &id)]);
        let made = field.rest("POST", "Observation", &serde_json::from_slice(&result).unwrap());
        assert_eq!(made.status, 201, "{}", made.body);
        field.between();
        let (result, base) = (made.json()["id"].clone(), format!("http://{}/fhir", field.edge().http));
        for search in [
            format!("Observation?subject={patient}"),
            format!("Observation?patient={id}"),
            format!("Observation?subject={base}/{patient}"),
        ] {
            assert_eq!(field.only(&search)["id"], result, "{search}");
        }
        for (search, found) in [
            ("Observation?_include=Observation:subject", json!(id)),
            ("Patient?_revinclude=Observation:subject", result.clone()),
        ] {
            let all = field.all(search);
            assert!(all.len() == 2 && all.iter().any(|one| one["id"] == found), "{search}: {all:#?}");
        }
    });
}

//! The inputs of `dicom` that are about images.

use std::time::Instant;

use super::{Field, in_each_order, in_each_way, list, reference, text, texts};
use serde_json::{Value, json};

/// What the UIDs of all inputs begin with.
const ROOT: &str = "1.2.826.0.1.3680043.10.1462.7.90";

/// A UID of an input.
pub(super) fn uid(end: &str) -> String {
    format!("{ROOT}.{end}")
}

/// Another text of the same length in a file.
fn replaced(file: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len(), "the lengths in the file stay right");
    let mut file = file.to_vec();
    let places = 0..=file.len() - from.len();
    let found: Vec<usize> = places.filter(|at| file[*at..].starts_with(from.as_bytes())).collect();
    assert!(!found.is_empty(), "{from} is not in the file");
    found.into_iter().for_each(|at| file[at..at + to.len()].copy_from_slice(to.as_bytes()));
    file
}

/// The UIDs of all instances that a study shows.
fn instances(study: &Value) -> Vec<String> {
    let mut all: Vec<String> =
        list(&study["series"]).flat_map(|series| texts(&series["instance"], "uid")).collect();
    all.sort();
    all
}

#[test]
fn an_association_for_each_image_makes_a_handful_of_versions() {
    let own = |number: u32| uid(&format!("15.{number}"));
    in_each_way("dicom/association-for-each-image", |field| {
        let begun = Instant::now();
        for number in 2000..2040 {
            // a restart behind each would leave nothing to hold back
            let answer = field.store(&replaced(&field.part(0).1, &own(1001), &own(number)));
            assert!(answer.ends_with(": 0000 success"), "{number}: {answer}");
            if number == 2020 {
                field.between();
            }
        }
        // one at once and one at the restart, one for each 5 s begun, and the one that the read draws
        let most = 4 + begun.elapsed().as_secs() / 5;
        let study = field.study(&uid("15.1"));
        assert_eq!((&study["numberOfInstances"], &study["status"]), (&json!(40), &json!("available")));
        assert_eq!(instances(&study), (2000..2040).map(own).collect::<Vec<_>>());
        assert_eq!(field.all("ImagingStudy").len(), 1);
        let history = field.read(&format!("{}/_history?_count=100", reference(&study)));
        let versions = list(&history["entry"]).count() as u64;
        assert_eq!(history["entry"][0]["resource"], study, "no version more for having asked");
        assert!(versions <= most, "{versions} versions of 40 images in {:?}", begun.elapsed());
    });
}

#[test]
fn an_image_without_a_patient_is_of_the_patient_it_names_when_it_comes_again() {
    in_each_way("dicom/corrected-patient-id", |field| {
        field.send(1);
        assert_eq!(field.study(&uid("6.1"))["numberOfInstances"], 1, "it is in order");
        field.send(2);
        let study = field.study(&uid("6.1"));
        assert_eq!(text(&study["subject"]["reference"]), field.patient("FD0601"));
        assert_eq!(instances(&study), [uid("6.1001")]);
        assert_eq!(field.all("Patient").len(), 1, "what stood in for the patient has given way");
    });
}

#[test]
fn an_image_that_is_sent_again_after_its_study_was_to_be_deleted_is_there() {
    in_each_way("dicom/deleted-and-sent-again", |field| {
        field.send(0);
        let study = reference(&field.study(&uid("11.1")));
        // of the three ways out that R4 leaves, this is the one: what is drawn from images goes with them only
        assert_eq!(field.rest("DELETE", &study, &Value::Null).status, 409);
        field.send(0);
        let study = field.study(&uid("11.1"));
        assert_eq!((&study["numberOfInstances"], &study["status"]), (&json!(1), &json!("available")));
        assert_eq!(instances(&study), [uid("11.1001")]);
    });
}

#[test]
fn a_compressed_icon_in_the_header_is_no_hindrance() {
    in_each_way("dicom/icon-in-sequence", |field| {
        field.send(0);
        let study = field.study(&uid("1.1"));
        assert_eq!(instances(&study), [uid("1.1001")]);
        assert_eq!(study["series"][0]["modality"]["code"], "XA");
    });
}

#[test]
fn a_korean_name_is_read_in_its_three_scripts() {
    let representation = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation";
    in_each_way("dicom/korean-name", |field| {
        field.send(0);
        let patient = field.only("Patient?identifier=FD0202");
        let names: Vec<[String; 3]> = list(&patient["name"])
            .map(|name| {
                let script = list(&name["extension"]).find(|item| item["url"] == representation);
                let script = script.map_or_else(String::new, |item| text(&item["valueCode"]));
                [script, text(&name["family"]), text(&name["given"][0])]
            })
            .collect();
        let alphabetic = names.iter().find(|name| name[1] == "Seo").unwrap();
        assert_eq!(alphabetic[2], "Mirae");
        assert_eq!(names[1..], [["IDE", "徐", "未來"], ["SYL", "서", "미래"]]);
    });
}

#[test]
fn images_of_a_merged_patient_are_stored_and_found_at_the_survivor() {
    in_each_way("dicom/merge-then-resent", |field| {
        field.send(1);
        field.send(2);
        let survivor = field.patient("FD08NEW");
        field.send(3);
        field.send(4);
        let found_there = |field: &Field| {
            let study = field.only(&format!("ImagingStudy?patient={survivor}"));
            assert_eq!(instances(&study), [uid("8.1001")]);
            assert_eq!(field.all("ImagingStudy").len(), 1);
        };
        found_there(field);
        field.send(5);
        found_there(field);
        for part in [3, 5] {
            field.send_changed(part, |file| replaced(file, "FD08OLD", "FD08NEW"));
            found_there(field);
        }
    });
}

#[test]
fn a_study_is_based_on_its_order_whichever_comes_first() {
    in_each_order("dicom/order-after-images", &[[1, 2], [2, 1]], |field| {
        let order = field.only("ServiceRequest?identifier=ACC0901");
        let based_on = || texts(&field.study(&uid("9.1"))["basedOn"], "reference");
        field.wait("based on its order", || based_on() == [reference(&order)]);
        assert_eq!(text(&order["subject"]["reference"]), field.patient("FD0009"));
    });
}

#[test]
fn one_series_uid_in_two_studies_shows_no_image_in_the_wrong_one() {
    in_each_order("dicom/series-in-two-studies", &[[1, 2], [2, 1]], |field| {
        let shown = |study: &str, patient: &str, images: &[&str]| {
            let study = field.study(&uid(study));
            assert_eq!(text(&study["subject"]["reference"]), field.patient(patient));
            assert_eq!(instances(&study), images.iter().map(|image| uid(image)).collect::<Vec<_>>());
            assert_eq!(study["numberOfInstances"], images.len());
        };
        shown("4.1", "FD04A", &["4.1001"]);
        shown("4.9", "FD04B", &["4.1002"]);
        // the next image draws the first study anew
        let next = replaced(&field.part(1).1, &uid("4.1001"), &uid("4.1003"));
        let answer = field.store(&next);
        assert!(answer.ends_with(": 0000 success"), "{answer}");
        shown("4.1", "FD04A", &["4.1001", "4.1003"]);
        shown("4.9", "FD04B", &["4.1002"]);
    });
}

#[test]
fn a_structure_set_of_20_mb_is_stored() {
    in_each_way("dicom/structure-set-20mb", |field| {
        assert!(field.part(0).1.len() > 20_000_000);
        field.send(0);
        let study = field.only("ImagingStudy");
        assert_eq!((&study["numberOfInstances"], &study["status"]), (&json!(1), &json!("available")));
        assert_eq!(study["series"][0]["modality"]["code"], "RTSTRUCT");
    });
}

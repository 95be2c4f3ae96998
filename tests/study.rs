//! A study is removed with everything of it: `hilum study delete` and `DELETE /admin/studies/UID`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use std::path::Path;
use std::process::{Command, Output, Stdio};

use harness::dicom::{Association, image_of};
use harness::{CALLING, Edge, http, is_on_server};
use serde_json::{Value, json};

const STUDY: &str = "2.25.9001";
const JSON: &str = "Content-Type: application/json";

fn send_images(edge: &Edge) {
    let mut association = Association::request(edge.dicom, CALLING).unwrap();
    for number in 1..=2 {
        let instance = format!("{STUDY}.1.{number}");
        let image = image_of(&instance, STUDY, &format!("{STUDY}.1"), ("S1", "Keller^Mia"), 100);
        assert_eq!(association.store(&instance, &image).unwrap().status, 0);
    }
    association.release();
}

/// A performed step of the study.
fn send_step(edge: &Edge) {
    let attribute = |vr: &str, value: Value| json!({ "vr": vr, "Value": [value] });
    let step = json!({
        "00080018": attribute("UI", json!("2.25.9002")),
        "00080060": attribute("CS", json!("CT")),
        "00100010": attribute("PN", json!({ "Alphabetic": "Keller^Mia" })),
        "00100020": attribute("LO", json!("S1")),
        "00400241": attribute("AE", json!("CT1")),
        "00400244": attribute("DA", json!("20240102")),
        "00400245": attribute("TM", json!("110000")),
        "00400252": attribute("CS", json!("IN PROGRESS")),
        "00400253": attribute("SH", json!("PPS1")),
        "00400270": attribute("SQ", json!({ "0020000D": attribute("UI", json!(STUDY)) })),
        "00400340": { "vr": "SQ" },
    });
    let reply = http::send(edge.http, "POST", "/ingest", &[JSON], step.to_string());
    assert!(matches!(reply.status, 200 | 201), "{reply:?}");
}

fn totals(edge: &Edge) -> [u64; 2] {
    ["ImagingStudy", "Procedure"].map(|of| edge.total(&format!("/fhir/{of}?_total=accurate")))
}

/// Runs `hilum study delete` with an answer to its question.
fn delete(dir: &Path, more: &[&str], answer: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hilum"));
    command.arg("--config").arg(dir.join("hilum.toml")).args(["study", "delete", STUDY]).args(more);
    command.env("SUDO_USER", "oncall").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), answer.as_bytes()).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    (status.success(), String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

#[test]
fn a_running_edge_removes_a_study_and_shows_it_again_when_its_images_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    send_images(&edge);
    send_step(&edge);
    assert_eq!(totals(&edge), [1, 1]);
    let patient = edge.get("/fhir/Patient?identifier=S1")["entry"][0]["resource"]["id"].clone();
    let patient = format!("/fhir/Patient/{}", patient.as_str().unwrap());
    assert_eq!(http::send(edge.http, "DELETE", &patient, &[], "").status, 409, "its images are shown");
    let path = format!("/admin/studies/{STUDY}");
    assert_eq!(edge.get(&path), json!({ "study": STUDY, "studies": 1, "images": 2 }));

    let key = edge.key("admin/studies");
    assert_eq!(http::send(edge.keyed, "DELETE", &path, &[], "").status, 401);
    let other = http::send(edge.keyed, "DELETE", &path, &[&edge.key("admin/submissions")], "");
    assert!(other.status == 403 && other.body.contains("admin/studies"), "{other:?}");
    let removed = http::send(edge.keyed, "DELETE", &path, &[&key], "").json();
    assert_eq!((&removed["studies"], &removed["images"]), (&json!(1), &json!(2)), "{removed}");
    assert_eq!(totals(&edge), [0, 0]);
    let again = http::send(edge.keyed, "DELETE", &path, &[&key], "").json();
    assert_eq!(again, json!({ "study": STUDY, "studies": 0, "images": 0 }));

    let shown = edge.get(&format!("/admin/submissions/{}", removed["submission"]));
    assert_eq!(
        (&shown["kind"], &shown["control"], shown["changes"].as_array().map(Vec::len)),
        (&json!("STUDY DELETE"), &json!(STUDY), Some(2)),
        "{shown:#}"
    );
    assert!(key.contains(shown["sender"].as_str().unwrap()), "who did it: {shown:#}");
    let checked = edge.hilum(&["fsck", "--deep"]);
    assert!(!checked.contains("wrong"), "{checked}");

    send_images(&edge);
    assert_eq!(totals(&edge), [1, 0]);
    let study = edge.get("/fhir/ImagingStudy")["entry"][0]["resource"].clone();
    assert_eq!(study["numberOfInstances"], 2, "{study:#}");
}

#[test]
fn the_command_asks_first_says_what_it_removed_and_finds_nothing_the_second_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = Edge::start(dir.path());
    send_images(&edge);
    if !is_on_server() {
        let (done, told) = delete(dir.path(), &["--yes"], "");
        assert!(
            !done
                && told
                    .contains(&format!("DELETE -H 'X-API-Key: KEY' 'http://ADDRESS/admin/studies/{STUDY}'")),
            "{told}"
        );
        assert_eq!(totals(&edge), [1, 0]);
        edge.terminate();
        assert!(edge.ended().success());
    }
    let (done, told) = delete(dir.path(), &[], "no\n");
    assert!(
        !done && told.contains("1 study with 2 images") && told.contains("nothing was removed"),
        "{told}"
    );
    let (done, told) = delete(dir.path(), &["--site", "other"], "yes\n");
    assert!(!done && told.contains("no site"), "{told}");
    let (done, told) = delete(dir.path(), &[], "yes\n");
    assert!(done && told.contains("removed 1 study with 2 images"), "{told}");
    let (done, told) = delete(dir.path(), &["--yes"], "");
    assert!(done && told.contains("there is no study") && told.contains("nothing was removed"), "{told}");
    let (_, told) = delete(dir.path(), &["--json"], "");
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told, json!({ "study": STUDY, "studies": 0, "images": 0 }));
    let shown = harness::hilum(dir.path(), &["submissions", "list", "--kind", "STUDY DELETE", "--json"]);
    assert!(shown.contains("oncall"), "{shown}");
    let checked = harness::hilum(dir.path(), &["fsck"]);
    assert!(!checked.contains("wrong"), "{checked}");
}

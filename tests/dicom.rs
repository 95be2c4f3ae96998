//! DICOM through the real binary: `hilum send dicom` to `hilum serve`. What is answered 0000 is there byte for byte after a kill, once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;
#[path = "dicom/objects.rs"]
mod objects;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Edge, Value};
use hilum_store::{Site, Store, SubmissionRow, sha256};
use hilum_wire::part10::Head;
use objects::{EXPLICIT, Object, STUDY, Writer, named, one_of_each};
use tokio::io::AsyncReadExt;

/// The ImagingStudy of a study.
fn imaging_study(edge: &Edge, uid: &str) -> Value {
    let page = edge.get(&format!("/fhir/ImagingStudy?identifier=urn:dicom:uid|urn:oid:{uid}"));
    assert_eq!(page["total"], 1, "{page}");
    page["entry"][0]["resource"].clone()
}

/// `hilum send dicom`: exit code 0 or not, and the line of each file name.
fn send(edge: &Edge, files: &[&str]) -> (bool, BTreeMap<String, String>) {
    send_to(edge, "HILUM", files)
}

fn send_to(edge: &Edge, called: &str, files: &[&str]) -> (bool, BTreeMap<String, String>) {
    let output = Command::new(env!("CARGO_BIN_EXE_hilum"))
        .args(["send", "dicom", &edge.dicom.to_string(), "--called", called])
        .args(files)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    let lines = text.lines().filter_map(|line| {
        let (path, answer) = line.split_once(": ")?;
        let name = Path::new(path).file_name()?.to_string_lossy().into_owned();
        Some((name, answer.to_owned()))
    });
    (output.status.success(), lines.collect())
}

/// Writes the objects as files into a new folder.
fn files(dir: &Path, name: &str, objects: &[Object]) -> String {
    let folder = dir.join(name);
    fs::create_dir_all(&folder).unwrap();
    for object in objects {
        fs::write(folder.join(object.name), object.file()).unwrap();
    }
    folder.display().to_string()
}

/// The store of an edge that was killed.
async fn store(dir: &Path) -> (Store, Site) {
    let store = Store::open(harness::store_config(dir)).await.unwrap();
    let site = store.control().site("default").unwrap().unwrap();
    (store, site)
}

/// The data set of a stored blob: what lies behind its head.
async fn data_set(store: &Store, site: &Site, blob: &hilum_store::BlobId) -> Vec<u8> {
    let mut reader = store.blob(site, blob).await.unwrap().unwrap();
    let mut bytes = Vec::new();
    reader.reader.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes.len() as u64, reader.bytes);
    let at = Head::read(&bytes).unwrap().data_set_at;
    bytes.split_off(at)
}

async fn stored(store: &Store, site: &Site, sop_instance: &str) -> (String, Vec<u8>) {
    let instance = store.instance(site, sop_instance).await.unwrap().unwrap();
    (instance.transfer_syntax, data_set(store, site, &instance.blob).await)
}

#[tokio::test]
async fn every_encoding_is_kept_byte_for_byte_and_becomes_one_study() {
    let dir = tempfile::tempdir().unwrap();
    let objects = one_of_each();
    let folder = files(dir.path(), "objects", &objects);
    let edge = Edge::start(dir.path());
    let (fine, answers) = send(&edge, &[&folder]);
    assert!(fine && answers.len() == objects.len(), "{answers:?}");
    assert!(answers.values().all(|answer| answer == "0000 success"), "{answers:?}");
    let study = imaging_study(&edge, STUDY);
    assert_eq!(study["numberOfInstances"], objects.len());
    assert_eq!(study["numberOfSeries"], 2);
    assert_eq!(study["status"], "available");
    assert_eq!(study["series"][0]["modality"]["code"], "CT");
    let patient = study["subject"]["reference"].as_str().unwrap();
    assert_eq!(edge.get(&format!("/fhir/{patient}"))["name"][0]["family"], "Imaged");
    for query in ["modality=MR", "identifier=ACC7", "started=2024-03-01", &format!("patient={patient}")] {
        assert_eq!(edge.get(&format!("/fhir/ImagingStudy?{query}"))["total"], 1, "{query}");
    }
    let log = edge.log();
    edge.kill();
    let (store, site) = store(dir.path()).await;
    for object in &objects {
        let (syntax, bytes) = stored(&store, &site, &object.sop_instance).await;
        assert_eq!(syntax, object.transfer_syntax, "{}", object.name);
        assert!(bytes == object.data_set, "{} was changed", object.name);
    }
    assert!(!log.contains("Imaged") && !log.contains("DCM7"), "the log holds a value of a data set");
}

#[tokio::test]
async fn the_same_instance_again_changes_nothing_and_other_content_is_judged() {
    let dir = tempfile::tempdir().unwrap();
    let first = one_of_each()[0].clone();
    let edge = Edge::start(dir.path());
    let folder = files(dir.path(), "first", std::slice::from_ref(&first));
    for _ in 0..2 {
        assert_eq!(send(&edge, &[&folder]).1["explicit"], "0000 success");
    }
    let study = imaging_study(&edge, STUDY);
    assert_eq!((&study["numberOfInstances"], &study["meta"]["versionId"]), (&1.into(), &"1".into()));

    // other pixels, same study and patient: the newest is current, the older stays
    let mut newer = first.clone();
    *newer.data_set.last_mut().unwrap() = 99;
    let folder = files(dir.path(), "newer", std::slice::from_ref(&newer));
    assert_eq!(send(&edge, &[&folder]).1["explicit"], "0000 success");
    assert_eq!(imaging_study(&edge, STUDY)["numberOfInstances"], 1);

    // another study: both are shown, each with its own image, and marked for whoever looks into it
    let mut foreign = first.clone();
    let mut writer = Writer::new(EXPLICIT);
    objects::header(&mut writer, &first.sop_class, &first.sop_instance, "1.2.3", 0);
    foreign.data_set = writer.bytes;
    let folder = files(dir.path(), "foreign", std::slice::from_ref(&foreign));
    assert_eq!(send(&edge, &[&folder]).1["explicit"], "0000 success");
    for uid in [STUDY, "1.2.3"] {
        let study = imaging_study(&edge, uid);
        assert_eq!(study["numberOfInstances"], 1, "{uid}");
        assert_eq!(study["meta"]["tag"][0]["code"], "identity-conflict", "{uid}");
    }

    assert!(edge.hilum(&["fsck", "--deep"]).contains("site default: clean"));

    edge.kill();
    let (store, site) = store(dir.path()).await;
    let rows = store.submissions(&site, None, 10).await.unwrap();
    let marks: Vec<Option<&str>> = rows.iter().map(|row| row.attention.as_deref()).collect();
    assert_eq!(marks[..2], [Some("identity-conflict"), None], "the newest first");
    assert!(rows[0].issues.iter().any(|i| i.diagnostics.contains("another series or study")));
    for (row, sent) in [(&rows[0], &foreign), (&rows[1], &newer)] {
        assert!(data_set(&store, &site, &row.blob.unwrap()).await == sent.data_set);
    }
    let oldest = rows.last().unwrap();
    assert!(
        data_set(&store, &site, &oldest.blob.unwrap()).await == first.data_set,
        "the older content stays"
    );
}

#[test]
fn send_tells_what_the_peer_said() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    assert!(send(&edge, &[]).0, "C-ECHO");
    let (fine, said) = send_to(&edge, "OTHER", &[]);
    assert!(!fine && said.values().any(|text| text.contains("called AE title is not known")), "{said:?}");
    let mut worklist = one_of_each()[0].clone();
    "1.2.840.10008.5.1.4.31".clone_into(&mut worklist.sop_class);
    let mut writer = Writer::new(EXPLICIT);
    objects::header(&mut writer, &worklist.sop_class, &worklist.sop_instance, STUDY, 0);
    worklist.data_set = writer.bytes;
    let folder = files(dir.path(), "refused", &[worklist]);
    fs::write(Path::new(&folder).join("text"), "no object").unwrap();
    let (fine, answers) = send(&edge, &[&folder]);
    assert!(!fine && answers["explicit"].contains("the peer takes no 1.2.840.10008.5.1.4.31"), "{answers:?}");
    assert!(answers["text"].contains("no dicom data set"), "{answers:?}");
}

#[test]
fn map_shows_rows_study_lineage_and_what_is_not_mapped() {
    let dir = tempfile::tempdir().unwrap();
    let folder = files(dir.path(), "objects", &one_of_each()[3..4]);
    let file = Path::new(&folder).join("deflated");
    let output =
        Command::new(env!("CARGO_BIN_EXE_hilum")).args(["map", "--json"]).arg(&file).output().unwrap();
    let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success());
    assert_eq!(shown["rows"][0]["uid"], STUDY);
    assert_eq!(shown["bundle"]["entry"][1]["resource"]["numberOfInstances"], 1);
    assert!(shown["lineage"].to_string().contains("(0010,0010)"));
    assert!(shown["unmapped"].as_array().unwrap().contains(&"(0028,0010)".into()));
    fs::write(&file, [&one_of_each()[0].file()[..400], &[1; 3]].concat()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_hilum")).arg("map").arg(&file).output().unwrap();
    assert!(!output.status.success(), "cut off inside an element");
}

/// The texts of the names of the patient with an identifier, and how each is written.
fn names(edge: &Edge, patient: &str) -> Vec<(String, Vec<String>)> {
    let page = edge.get(&format!("/fhir/Patient?identifier={patient}"));
    let names = page["entry"][0]["resource"]["name"].as_array().cloned().unwrap_or_default();
    let given = |name: &Value| -> Vec<String> {
        let given = name["given"].as_array().cloned().unwrap_or_default();
        given.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    names.iter().map(|name| (name["family"].as_str().unwrap_or_default().to_owned(), given(name))).collect()
}

#[test]
fn names_in_several_sets_come_out_as_they_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    type Written = (&'static str, &'static [u8], &'static [(&'static str, &'static str)]);
    let cases: [Written; 6] = [
        (
            r"ISO 2022 IR 13\ISO 2022 IR 87",
            b"\xbb\xc4\xb3^\xca\xc5\xba=\x1b$B:4F#\x1b(J^\x1b$B2V;R\x1b(J=\x1b$B$5$H$&\x1b(J^\x1b$B$O$J$3\x1b(J",
            &[("ｻﾄｳ", "ﾊﾅｺ"), ("佐藤", "花子"), ("さとう", "はなこ")],
        ),
        (
            r"\ISO 2022 IR 149",
            b"Kim^Cheolsu=\x1b$)C\xd1\xd1^\x1b$)C\xf4\xc9\xe2\xaa=\x1b$)C\xb1\xe8^\x1b$)C\xc3\xb6\xbc\xf6",
            &[("Kim", "Cheolsu"), ("金", "哲洙"), ("김", "철수")],
        ),
        (
            r"\ISO 2022 IR 58",
            b"Li^Na=\x1b$)A\xc0\xee^\x1b$)A\xc4\xc8",
            &[("Li", "Na"), ("李", "娜")],
        ),
        ("GB18030", b"Chen^Wei=\xb3\xc2^\xce\xb0", &[("Chen", "Wei"), ("陈", "伟")]),
        (r"\ISO 2022 IR 144", b"Ivanova=\x1b-L\xb8\xd2\xd0\xdd\xde\xd2\xd0^\x1b-L\xb0\xdd\xdd\xd0", &[("Ivanova", ""), ("Иванова", "Анна")]),
        ("ISO_IR 126", b"\xd0\xe1\xf0\xdc\xf2^\xcd\xdf\xea\xef\xf2", &[("Παπάς", "Νίκος")]),
    ];
    let pixels = |writer: &mut Writer| writer.value(0x7FE0, 0x0010, "OW", &[7; 8]);
    for (number, (charset, patient, written)) in cases.into_iter().enumerate() {
        let object = named("named", number, (charset, patient), pixels);
        let folder = files(dir.path(), &format!("named{number}"), &[object]);
        assert_eq!(send(&edge, &[&folder]).1["named"], "0000 success", "{charset}");
        let given = |name: &str| if name.is_empty() { Vec::new() } else { vec![name.to_owned()] };
        let wanted: Vec<_> = written.iter().map(|(f, g)| ((*f).to_owned(), given(g))).collect();
        assert_eq!(names(&edge, &format!("NAMED{number}")), wanted, "{charset}");
    }
    // other characters than digits and dots are no uid, though they would not show
    let mut object = named("hidden", 9, ("", b"A^B"), pixels);
    let at = object.data_set.windows(4).position(|w| w == [0x20, 0x00, 0x0D, 0x00]).unwrap() + 10;
    object.data_set[at] = 0x1B;
    let folder = files(dir.path(), "hidden", &[object]);
    assert!(send(&edge, &[&folder]).1["hidden"].starts_with("C000"));
}

#[test]
fn a_large_header_is_none_and_what_is_cut_short_is_refused_where_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let ascii = ("", &b"Large^Lea"[..]);
    let contours = named("contours", 0, ascii, |writer| {
        writer.open(0x3006, 0x0039, "SQ", u32::MAX);
        for _ in 0..8_000 {
            writer.mark(0xE000, u32::MAX);
            writer.value(0x3006, 0x0050, "DS", &[b'1'; 2_600]);
            writer.item_end();
        }
        writer.sequence_end();
    });
    let frames = named("frames", 1, ascii, |writer| {
        writer.open(0x5200, 0x9230, "SQ", u32::MAX);
        for _ in 0..36_000 {
            writer.mark(0xE000, u32::MAX);
            for sequence in [0x9111, 0x9113, 0x9116] {
                writer.open(0x0020, sequence, "SQ", u32::MAX);
                writer.mark(0xE000, u32::MAX);
                for number in 0..8 {
                    writer.number(0x0020, 0x9200 + number, number);
                }
                writer.item_end();
                writer.sequence_end();
            }
            writer.item_end();
        }
        writer.sequence_end();
        writer.value(0x7FE0, 0x0010, "OB", &[1; 36_000]);
    });
    let folder = files(dir.path(), "large", &[contours, frames.clone()]);
    let (fine, answers) = send(&edge, &[&folder]);
    assert!(fine && answers.len() == 2, "{answers:?}");

    // as each is sent, whatever it was cut within
    let cut = |mut object: Object, name: &'static str, by: usize| {
        object.data_set.truncate(object.data_set.len() - by);
        Object { name, ..object }
    };
    let mut objects = vec![cut(frames.clone(), "in_pixels", 1), cut(frames, "in_items", 40_000)];
    for (object, by) in one_of_each().into_iter().zip([1, 1, 1, 1, 12 + 8 + 8]) {
        let name = object.name;
        objects.push(cut(object, name, by));
    }
    let folder = files(dir.path(), "cut", &objects);
    let (_, answers) = send(&edge, &[&folder]);
    assert_eq!(answers.len(), objects.len());
    for object in &objects {
        let answer = &answers[object.name];
        assert!(answer.starts_with("C000 refused"), "{}: {answer}", object.name);
        // of a deflated one the byte is that of what was inflated
        let byte = if object.name == "deflated" {
            String::new()
        } else {
            format!("at byte {}", object.data_set.len())
        };
        assert!(answer.contains(&byte), "{}: {answer}", object.name);
    }
}

/// Objects of many makers, where they are there: every one is answered, and kept byte for byte whatever the answer.
#[tokio::test]
async fn every_object_of_the_corpus_is_answered_and_kept() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus/dicom/dev");
    if !corpus.exists() {
        eprintln!("skipped: {} is not there", corpus.display());
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let (_, answers) = send(&edge, &[corpus.to_str().unwrap()]);
    let paths: Vec<PathBuf> = fs::read_dir(&corpus).unwrap().flatten().map(|entry| entry.path()).collect();
    assert_eq!(answers.len(), paths.len(), "a file without an answer");
    edge.kill();
    let (store, site) = store(dir.path()).await;
    let kept = kept(&store, &site).await;
    let mut sent = 0;
    for path in paths {
        let answer = &answers[path.file_name().unwrap().to_str().unwrap()];
        if answer.contains("no dicom data set with a sop class") {
            continue;
        }
        let file = fs::read(&path).unwrap();
        let at = Head::read(&file).unwrap().data_set_at;
        let known = ["0000 success", "A900 refused", "C000 refused"];
        assert!(known.iter().any(|status| answer.starts_with(status)), "{}: {answer}", path.display());
        assert!(kept.contains(&sha256(&file[at..])), "{} was not kept as sent: {answer}", path.display());
        sent += 1;
    }
    assert!(sent > 100, "{sent} sent");
}

/// SHA-256 of every data set in the store, quarantine included.
async fn kept(store: &Store, site: &Site) -> BTreeSet<[u8; 32]> {
    let mut kept = BTreeSet::new();
    let mut before = None;
    loop {
        let rows: Vec<SubmissionRow> = store.submissions(site, before, 100).await.unwrap();
        let Some(last) = rows.last() else { return kept };
        before = Some(last.sequence);
        for blob in rows.iter().filter_map(|row| row.blob) {
            kept.insert(sha256(&data_set(store, site, &blob).await));
        }
    }
}

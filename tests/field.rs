//! What went wrong at hospitals, and must not again: the inputs beside the project are sent to a real edge as they came in there, each
//! with the words of its `NAME.md` on what must happen, read back over FHIR and from the answers.
//!
//! Each is sent to a fresh store, and to another one with a restart of the edge behind every message; where several orders of arrival
//! are right, in each of them. Without the inputs the tests say so and pass.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]
#![allow(
    clippy::print_stderr,
    reason = "which way of an input it was that failed, or that there are no inputs"
)]

mod harness;

#[path = "field/fhir.rs"]
mod fhir;
#[path = "field/hl7.rs"]
mod hl7;
#[path = "field/images.rs"]
mod images;
#[path = "field/steps.rs"]
mod steps;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use harness::{Edge, PATIENCE, Value, http, mllp};
use tempfile::TempDir;

const FHIR_JSON: &str = "Content-Type: application/fhir+json";
const DICOM_JSON: &str = "Content-Type: application/dicom+json";
const TEXT: &str = "Content-Type: text/plain";

/// How the parts of an input come in.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// One after the other, HL7 by MLLP.
    InOneGo,
    /// With a restart of the edge behind each.
    WithRestarts,
    /// As [`Way::WithRestarts`], HL7 by `POST /v2/ingest`.
    WithRestartsByHttp,
}

/// An edge with a store of its own, and the input that is sent to it.
struct Field {
    input: PathBuf,
    way: Way,
    /// `None` only while it restarts.
    edge: Option<Edge>,
    dir: TempDir,
}

/// Plays an input of the folder `../shared/field`, such as `hl7/same-code-twice`, in each way.
fn in_each_way(input: &str, play: impl Fn(&mut Field)) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/field");
    if !folder.exists() {
        eprintln!("skipped: {input}: {} is not there", folder.display());
        return;
    }
    // what an input of HL7 is about holds at both of its doors
    let restarted = if input.starts_with("hl7/") { Way::WithRestartsByHttp } else { Way::WithRestarts };
    for way in [Way::InOneGo, restarted] {
        eprintln!("{input} {way:?}");
        let dir = tempfile::tempdir().unwrap();
        let edge = Some(Edge::start(dir.path()));
        play(&mut Field { input: folder.join(input), way, edge, dir });
    }
}

/// As [`in_each_way`], with the parts sent in each of several orders before `look`.
fn in_each_order<const N: usize>(input: &str, orders: &[[u32; N]], look: impl Fn(&Field)) {
    for order in orders {
        in_each_way(input, |field| {
            eprintln!("{order:?}");
            order.iter().for_each(|part| field.send(*part));
            look(field);
        });
    }
}

impl Field {
    /// Sends a part (0 = the input has only one) by the door of its kind; it is accepted.
    fn send(&mut self, part: u32) {
        self.send_changed(part, <[u8]>::to_vec);
    }

    /// As [`Field::send`], changed on its way.
    fn send_changed(&mut self, part: u32, change: impl FnOnce(&[u8]) -> Vec<u8>) {
        let answer = self.submit(part, change);
        let accepted =
            answer.contains("MSA|AA|") || answer.ends_with(": 0000 success") || answer.starts_with("200 ");
        assert!(accepted, "{} part {part}: {answer}", self.input.display());
    }

    /// Sends a part, changed on its way, and gives what was answered.
    fn submit(&mut self, part: u32, change: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
        let (kind, bytes) = self.part(part);
        let bytes = change(&bytes);
        let answer = match kind {
            "hl7" => self.exchange(&bytes),
            "json" => {
                let reply = http::send(self.edge().http, "POST", "/ingest", &[DICOM_JSON], bytes);
                format!("{} {}", reply.status, reply.body)
            }
            _ => self.store(&bytes),
        };
        self.between();
        answer
    }

    /// The kind and the bytes of a part.
    fn part(&self, part: u32) -> (&'static str, Vec<u8>) {
        let number = if part == 0 { String::new() } else { format!(".{part}") };
        let file = |kind: &str| PathBuf::from(format!("{}{number}.{kind}", self.input.display()));
        let kinds = ["hl7", "json", "dcm", "dcm.gz"];
        let kind = kinds.into_iter().find(|kind| file(kind).exists());
        let kind = kind.unwrap_or_else(|| panic!("{} has no part {part}", self.input.display()));
        let bytes = fs::read(file(kind)).unwrap();
        if kind != "dcm.gz" {
            return (kind, bytes);
        }
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut unpacked).unwrap();
        (kind, unpacked)
    }

    /// The acknowledgement of an HL7 v2 message.
    fn exchange(&self, message: &[u8]) -> String {
        if self.way == Way::WithRestartsByHttp {
            return http::send(self.edge().http, "POST", "/v2/ingest", &[TEXT], message).body;
        }
        mllp::Connection::open(self.edge().mllp).unwrap().send(message).unwrap()
    }

    /// What `hilum send dicom` says was answered to a file: `0000 success`.
    fn store(&self, file: &[u8]) -> String {
        let path = self.dir.path().join("object");
        fs::write(&path, file).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_hilum"));
        command
            .args(["send", "dicom", &self.edge().dicom.to_string()])
            .arg(&path)
            .args(["--called", "HILUM"]);
        let said = command.output().unwrap();
        String::from_utf8([said.stdout, said.stderr].concat()).unwrap().trim().to_owned()
    }

    /// What happens between two parts.
    fn between(&mut self) {
        if self.way != Way::InOneGo {
            self.restart();
        }
    }

    /// Ends the edge politely and starts it on the same data.
    fn restart(&mut self) {
        let mut edge = self.edge.take().unwrap();
        edge.terminate();
        assert!(edge.ended().success(), "it ended in disorder: {}", edge.log());
        self.edge = Some(Edge::start(self.dir.path()));
    }

    fn edge(&self) -> &Edge {
        self.edge.as_ref().unwrap()
    }

    /// A request of a FHIR client.
    fn rest(&self, method: &str, path: &str, body: &Value) -> http::Reply {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        http::send(
            self.edge().http,
            method,
            format!("/fhir/{path}").trim_end_matches('/'),
            &[FHIR_JSON],
            body,
        )
    }

    /// The resources that a search finds.
    fn all(&self, search: &str) -> Vec<Value> {
        let page = self.edge().get(&format!("/fhir/{search}"));
        list(&page["entry"]).map(|entry| entry["resource"].clone()).collect()
    }

    /// The one resource that a search finds.
    fn only(&self, search: &str) -> Value {
        let mut found = self.all(search);
        assert_eq!(found.len(), 1, "{search}: {found:#?}");
        found.remove(0)
    }

    /// The resource behind a reference.
    fn read(&self, reference: &str) -> Value {
        self.edge().get(&format!("/fhir/{reference}"))
    }

    /// The reference to the one Patient with a number.
    fn patient(&self, number: &str) -> String {
        reference(&self.only(&format!("Patient?identifier={number}")))
    }

    /// The ImagingStudy of a study, which is the only one of that UID.
    fn study(&self, uid: &str) -> Value {
        self.only(&format!("ImagingStudy?identifier=urn:dicom:uid|urn:oid:{uid}"))
    }

    /// Waits until something holds that need not at once.
    fn wait(&self, what: &str, holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < PATIENCE, "{}: not {what}", self.input.display());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// `Type/id`
fn reference(resource: &Value) -> String {
    format!("{}/{}", text(&resource["resourceType"]), text(&resource["id"]))
}

/// The items of a list that may be absent.
fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().map_or(&[][..], Vec::as_slice).iter()
}

/// The text of a string, a code or a number; empty when it is none.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

/// The values at a member of each item, in order of their texts.
fn texts(items: &Value, member: &str) -> Vec<String> {
    let mut all: Vec<String> = list(items).map(|item| text(&item[member])).collect();
    all.sort();
    all
}

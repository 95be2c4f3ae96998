//! Every door in one table: how bytes travel to it, what a good and what a bad submission looks like, and where an accepted one is found.
//!
//! A new protocol costs one row of [`DOORS`]; the contract, the ledger and the privacy test run on every row.

use std::net::SocketAddr;

use super::dicom::{Association, Refused, Stored, image, study_of};
use super::http::{self, Reply};
use super::{CALLING, Edge, SENDER, mllp};

/// One submission: everything in it follows from a number, and the patient's name.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) number: u64,
    pub(crate) name: String,
}

impl Item {
    pub(crate) fn new(number: u64) -> Self {
        Self { number, name: "Contract".to_owned() }
    }

    pub(crate) fn named(number: u64, name: &str) -> Self {
        Self { number, name: name.to_owned() }
    }

    /// The patient's identifier, and the control ID.
    pub(crate) fn id(&self) -> String {
        format!("N{}", self.number)
    }

    /// A UID.
    pub(crate) fn uid(&self) -> String {
        format!("2.25.{}", self.number)
    }

    /// Every fifth image is too large to be received in one piece.
    pub(crate) fn pixel_bytes(&self) -> usize {
        if self.number.is_multiple_of(5) { 700_000 } else { 2000 }
    }
}

/// What the sender was told, in the words of its protocol.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Told {
    /// HTTP or DIMSE status; 0 for MLLP.
    pub(crate) status: u16,
    /// Body, acknowledgement, error comment or A-ASSOCIATE-RJ.
    pub(crate) text: String,
}

/// The three answers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accepted,
    /// Our trouble: send again.
    Deferred,
    /// Theirs: do not repeat it unchanged.
    Rejected,
}

/// How bytes travel.
#[derive(Clone, Copy)]
pub(crate) enum Wire {
    Http {
        method: &'static str,
        path: fn(&Item) -> String,
        headers: fn(&Item) -> Vec<String>,
        scope: &'static str,
    },
    Mllp,
    Dicom,
}

/// Bytes that must be refused.
pub(crate) struct Bad {
    pub(crate) what: &'static str,
    pub(crate) bytes: fn(&Item) -> Vec<u8>,
    /// Reason and place, as the answer has them.
    pub(crate) says: &'static [&'static str],
    /// Whether the original is kept with its issues.
    pub(crate) kept: bool,
}

/// One door.
pub(crate) struct Door {
    pub(crate) name: &'static str,
    pub(crate) wire: Wire,
    pub(crate) good: fn(&Item) -> Vec<u8>,
    /// How often an accepted submission is visible.
    pub(crate) found: fn(&Edge, &Item) -> u64,
    pub(crate) bad: &'static [Bad],
    pub(crate) verdict: fn(&Told) -> Verdict,
}

pub(crate) const DOORS: &[Door] = &[
    Door {
        name: "FHIR",
        wire: Wire::Http {
            method: "POST",
            path: |_| "/fhir/Patient".into(),
            headers: |item| vec![FHIR_JSON.into(), format!("If-None-Exist: identifier={}", item.id())],
            scope: "system/Patient.cs",
        },
        good: |item| patient(item, "female"),
        found: patients,
        bad: &[
            Bad {
                what: "no JSON",
                bytes: |_| b"{".to_vec(),
                says: &["400", "OperationOutcome", "structure", "line 1 column 1"],
                kept: false,
            },
            Bad {
                what: "a code that is none",
                bytes: |item| patient(item, "MARK"),
                says: &["422", "code-invalid", "Patient.gender"],
                kept: false,
            },
        ],
        verdict: by_http_status,
    },
    Door {
        name: "v2 HTTP",
        wire: Wire::Http {
            method: "POST",
            path: |_| "/v2/ingest".into(),
            headers: |_| vec!["Content-Type: text/plain".into()],
            scope: "ingest/hl7v2",
        },
        good: |item| mllp::message(&item.id(), &item.id(), &item.name).into_bytes(),
        found: patients,
        bad: &[
            Bad { what: "no MSH", bytes: no_header, says: &["400", "MSH"], kept: true },
            Bad {
                what: "an unknown type",
                bytes: unknown_type,
                says: &["422", "MSA|AR|", "|200^", "MSH^1^9"],
                kept: true,
            },
            Bad {
                what: "no patient identifier",
                bytes: nobody,
                says: &["422", "MSA|AE|", "PID^1^3"],
                kept: true,
            },
        ],
        verdict: by_http_status,
    },
    Door {
        name: "v3 HTTP",
        wire: Wire::Http {
            method: "POST",
            path: |_| "/v3/ingest".into(),
            headers: |_| vec!["Content-Type: application/xml".into()],
            scope: "ingest/hl7v3",
        },
        good: |item| interaction(item, "PRPA_IN201301UV02").into_bytes(),
        found: patients,
        bad: &[
            Bad {
                what: "no XML",
                bytes: |item| interaction(item, "PRPA_IN201301UV02").as_bytes()[..300].to_vec(),
                says: &["400", "OperationOutcome", "structure"],
                kept: true,
            },
            Bad {
                what: "an envelope of something else",
                bytes: |item| {
                    let namespace = "http://schemas.xmlsoap.org/soap/envelope/";
                    let id = item.id();
                    format!("<s:Envelope xmlns:s=\"{namespace}\"><s:Body><x>{id}</x></s:Body></s:Envelope>")
                        .into_bytes()
                },
                says: &["500", "soap:Fault", "urn:hl7-org:v3"],
                kept: true,
            },
            Bad {
                what: "an unsupported interaction",
                bytes: |item| interaction(item, "PRPA_IN201305UV02").into_bytes(),
                says: &["200", "typeCode code=\"CR\"", "unsupported interaction"],
                kept: true,
            },
            Bad {
                what: "no patient identifier",
                bytes: |item| {
                    let good = interaction(item, "PRPA_IN201301UV02");
                    let id = format!("<id root=\"1.2.3\" extension=\"{}\"/>", item.id());
                    good.replace(&id, "<id nullFlavor=\"NI\"/>").into_bytes()
                },
                says: &["200", "typeCode code=\"CE\"", "SYN101", "<location>"],
                kept: true,
            },
        ],
        verdict: |told| match told.status {
            200 if told.text.contains("<typeCode code=\"CA\"/>") => Verdict::Accepted,
            // an acknowledgement, or an OperationOutcome for what was no interaction
            503 if told.text.contains("send again") => Verdict::Deferred,
            503 => panic!("our trouble without a word: {}", told.text),
            _ => Verdict::Rejected,
        },
    },
    Door {
        name: "MPPS",
        wire: Wire::Http {
            method: "POST",
            path: |_| "/ingest".into(),
            headers: |_| vec!["Content-Type: application/json".into()],
            scope: "ingest/mpps",
        },
        good: |item| step(item, "IN PROGRESS"),
        found: |edge, item| {
            edge.total(&format!("/fhir/Procedure?identifier=urn:oid:{}&_total=accurate", item.uid()))
        },
        bad: &[
            Bad {
                what: "no JSON",
                bytes: |item| step(item, "x")[..30].to_vec(),
                says: &["400", "\"success\":false", "not json at line 1"],
                kept: true,
            },
            Bad {
                what: "an unknown status",
                bytes: |item| step(item, "GUESSED"),
                says: &["400", "\"success\":false", "status: must be one of"],
                kept: true,
            },
        ],
        verdict: by_http_status,
    },
    Door {
        name: "MLLP",
        wire: Wire::Mllp,
        good: |item| mllp::message(&item.id(), &item.id(), &item.name).into_bytes(),
        found: patients,
        bad: &[
            Bad { what: "no MSH", bytes: no_header, says: &["MSA|AE|", "MSH"], kept: true },
            Bad {
                what: "an unknown type",
                bytes: unknown_type,
                says: &["MSA|AR|", "|200^", "MSH^1^9"],
                kept: true,
            },
            Bad { what: "no patient identifier", bytes: nobody, says: &["MSA|AE|", "PID^1^3"], kept: true },
        ],
        verdict: |told| match told.text.as_str() {
            text if text.contains("MSA|AA|") => Verdict::Accepted,
            text if text.contains("MSA|AR|") && text.contains("|207^") && text.contains("send again") => {
                Verdict::Deferred
            }
            text if text.contains("MSA|AE|") || text.contains("MSA|AR|") => Verdict::Rejected,
            text => panic!("no acknowledgement: {text}"),
        },
    },
    Door {
        name: "C-STORE",
        wire: Wire::Dicom,
        good: |item| image(&item.uid(), &item.id(), &format!("{}^Given", item.name), item.pixel_bytes()),
        found: images,
        bad: &[
            Bad {
                what: "no data set",
                bytes: |_| vec![0xFF; 5000],
                says: &["49152", "at byte 8"],
                kept: true,
            },
            Bad {
                what: "another instance than announced",
                bytes: |item| image("2.25.4711", &item.id(), &item.name, 100),
                says: &["43264", "differs from the command"],
                kept: true,
            },
        ],
        verdict: |told| match told.status {
            0x0000 => Verdict::Accepted,
            0xA700 => Verdict::Deferred,
            _ => Verdict::Rejected,
        },
    },
];

const FHIR_JSON: &str = "Content-Type: application/fhir+json";

impl Door {
    /// Sends the good submission of an item; `None` when the connection ended without an answer.
    pub(crate) fn submit(&self, edge: &Edge, item: &Item) -> Option<Told> {
        self.send(edge, item, &(self.good)(item))
    }

    /// Sends bytes under the identity of an item.
    pub(crate) fn send(&self, edge: &Edge, item: &Item, bytes: &[u8]) -> Option<Told> {
        Addresses::of(edge).send(self, item, bytes)
    }

    /// What an accepted item's answer means.
    pub(crate) fn accepts(&self, told: Option<&Told>) -> bool {
        told.is_some_and(|told| (self.verdict)(told) == Verdict::Accepted)
    }
}

/// Where the doors of an edge are; can be sent to another thread.
#[derive(Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) http: SocketAddr,
    pub(crate) mllp: SocketAddr,
    pub(crate) dicom: SocketAddr,
}

impl Addresses {
    pub(crate) fn of(edge: &Edge) -> Self {
        Self { http: edge.http, mllp: edge.mllp, dicom: edge.dicom }
    }

    /// As [`Door::send`].
    pub(crate) fn send(&self, door: &Door, item: &Item, bytes: &[u8]) -> Option<Told> {
        match door.wire {
            Wire::Http { method, path, headers, .. } => {
                let headers = headers(item);
                let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
                told(http::send(self.http, method, &path(item), &headers, bytes))
            }
            Wire::Mllp => {
                let text = mllp::Connection::open(self.mllp)?.send(bytes)?;
                Some(Told { status: 0, text })
            }
            Wire::Dicom => match Association::request(self.dicom, CALLING) {
                Ok(mut association) => {
                    let stored = association.store(&item.uid(), bytes);
                    association.release();
                    told_of(stored)
                }
                Err(refused) => told_of(Err(refused)),
            },
        }
    }
}

/// What an HTTP reply says.
pub(crate) fn told(reply: Reply) -> Option<Told> {
    (reply.status > 0).then_some(Told { status: reply.status, text: reply.body })
}

/// What a C-STORE response, a rejection or an abort says.
pub(crate) fn told_of(stored: Result<Stored, Refused>) -> Option<Told> {
    match stored {
        Ok(stored) => Some(Told { status: stored.status, text: stored.comment }),
        Err(Refused::Closed) => None,
        Err(refused) => Some(Told { status: 0xFFFF, text: format!("{refused:?}") }),
    }
}

fn by_http_status(told: &Told) -> Verdict {
    match told.status {
        200 | 201 => Verdict::Accepted,
        503 | 507 => Verdict::Deferred,
        _ => Verdict::Rejected,
    }
}

fn patients(edge: &Edge, item: &Item) -> u64 {
    edge.total(&format!("/fhir/Patient?identifier={}&_total=accurate", item.id()))
}

/// Instances in the studies of an item's image.
fn images(edge: &Edge, item: &Item) -> u64 {
    let studies = edge.get(&format!("/fhir/ImagingStudy?identifier=urn:oid:{}", study_of(&item.uid())));
    let entries = studies["entry"].as_array().map_or(&[][..], Vec::as_slice);
    entries.iter().map(|entry| entry["resource"]["numberOfInstances"].as_u64().unwrap()).sum()
}

fn patient(item: &Item, gender: &str) -> Vec<u8> {
    format!(
        r#"{{"resourceType":"Patient","identifier":[{{"value":"{}"}}],"name":[{{"family":"{}"}}],"gender":"{gender}"}}"#,
        item.id(),
        item.name
    )
    .into_bytes()
}

/// An HL7 v3 interaction about one patient; every message of an item has the same id.
fn interaction(item: &Item, name: &str) -> String {
    format!(
        "<{name} xmlns=\"urn:hl7-org:v3\" ITSVersion=\"XML_1.0\"><id root=\"1.2.9\" extension=\"{0}\"/>\
         <creationTime value=\"20240501\"/><interactionId root=\"2.16.840.1.113883.1.6\" extension=\"{name}\"/>\
         <receiver><device><id root=\"1.2.8\"/></device></receiver><sender><device><id root=\"1.2.7\"/></device></sender>\
         <controlActProcess><subject><registrationEvent><subject1><patient><id root=\"1.2.3\" extension=\"{0}\"/>\
         <patientPerson><name><given>Given</given><family>{1}</family></name></patientPerson></patient></subject1>\
         </registrationEvent></subject></controlActProcess></{name}>",
        item.id(),
        item.name
    )
}

fn step(item: &Item, status: &str) -> Vec<u8> {
    format!(
        r#"{{"patient_name":"{}^Given","patient_id":"{}","sop_instance_uid":"{}","study_uid":"{}","status":"{status}"}}"#,
        item.name,
        item.id(),
        item.uid(),
        study_of(&item.uid())
    )
    .into_bytes()
}

fn no_header(item: &Item) -> Vec<u8> {
    format!("PID|1||{}||{}^Given\r", item.id(), item.name).into_bytes()
}

fn unknown_type(item: &Item) -> Vec<u8> {
    let good = mllp::message(&item.id(), &item.id(), &item.name);
    good.replace("ADT^A08", "ZZZ^Z01").into_bytes()
}

fn nobody(item: &Item) -> Vec<u8> {
    format!(
        "MSH|^~\\&|{SENDER}|NORTH|||20240101||ADT^A08|{}|P|2.5\rPID|1||||{}^Given\r",
        item.id(),
        item.name
    )
    .into_bytes()
}

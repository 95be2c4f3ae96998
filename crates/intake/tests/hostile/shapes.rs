//! Bodies of any size that are right by the letter and mean nothing: what makes a program compare each part with each other.
//!
//! The same size gives the same bytes. Each shape repeats one kind of part until the size is reached.

use serde_json::{Value, json};

/// By which door a shape comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// HL7 v2, one message.
    V2,
    /// HL7 v3, one interaction.
    V3,
    /// MPPS as JSON.
    Mpps,
    /// A FHIR resource, or a transaction.
    Fhir,
}

/// One kind of hostile body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// What it is, in words.
    pub(crate) name: &'static str,
    /// Where it is sent.
    pub(crate) door: Door,
    /// What the refusal of 1 MiB of it says; `None` = it is accepted.
    pub(crate) refusal: Option<&'static [&'static str]>,
    make: fn(usize) -> String,
}

impl Shape {
    const fn refused(mut self, parts: &'static [&'static str]) -> Self {
        self.refusal = Some(parts);
        self
    }

    /// A body of about so many bytes.
    pub(crate) fn body(&self, bytes: usize) -> String {
        (self.make)(bytes)
    }
}

/// All shapes.
pub(crate) const SHAPES: &[Shape] = &[
    // one field
    v2("PID-3 repetitions, distinct", |n| {
        adt(&format!("PID|1||{}||Doe^Jane", repeated(n, "~", |i| format!("N{i}^^^HOSP^MR"))))
    }).refused(&["PID^1^3", "10000 repetitions"]),
    v2("PID-3 repetitions, equal", |n| {
        adt(&format!("PID|1||{}||Doe^Jane", repeated(n, "~", |_| "N1^^^HOSP^MR".into())))
    }).refused(&["PID^1^3", "10000 repetitions"]),
    v2("PID-3 repetitions, empty", |n| adt(&format!("PID|1||N1{}||Doe^Jane", "~".repeat(n)))).refused(&["PID^1^3", "10000 repetitions"]),
    v2("PID-3 components", |n| {
        adt(&format!("PID|1||N1^{}||Doe^Jane", repeated(n, "^", |i| format!("c{i}"))))
    }).refused(&["PID^1^3", "65535"]),
    v2("PID-3 subcomponents", |n| {
        adt(&format!("PID|1||N1^^^H&{}||Doe^Jane", repeated(n, "&", |i| format!("s{i}"))))
    }).refused(&["PID^1^3", "65535"]),
    v2("PID-5 repetitions", |n| pid(&format!("{}|", repeated(n, "~", |i| format!("Doe{i}^Jane^Q^^^^L"))))).refused(&["PID^1^5", "10000 repetitions"]),
    v2("PID-11 repetitions", |n| {
        pid(&format!("Doe^J||||||{}", repeated(n, "~", |i| format!("{i} Main St^^Town^ST^12345"))))
    }).refused(&["PID^1^11", "10000 repetitions"]),
    v2("PID-13 repetitions", |n| {
        pid(&format!("Doe^J||||||||{}", repeated(n, "~", |i| format!("555-{i}^PRN^PH"))))
    }).refused(&["PID^1^13", "10000 repetitions"]),
    v2("PID with empty fields", |n| pid(&format!("Doe^J{}", "|".repeat(n)))).refused(&["PID^1", "65535"]),
    v2("one huge field", |n| pid(&format!("Doe^{}", "J".repeat(n)))),
    v2("escapes in one field", |n| pid(&format!("Doe^{}", "\\T\\".repeat(n / 3)))),
    v2("broken escapes in one field", |n| pid(&format!("Doe^{}", "\\Zx".repeat(n / 3)))),
    v2("one escape that never ends", |n| {
        pid(&format!("Doe^{}\\X{}", "\\".repeat(n / 2), "41".repeat(n / 4)))
    }),
    v2("Z segment with leaves", |n| {
        adt(&format!("PID|1||N1||Doe^J\rZZZ|{}", repeated(n, "^", |i| format!("{i}"))))
    }).refused(&["ZZZ^1^1", "65535"]),
    // many segments
    v2("PID segments", |n| {
        adt(&repeated(n, "\r", |i| format!("PID|{i}||N{i}^^^HOSP^MR||Doe^Jane||19700101|F")))
    }).refused(&["PID^1", "1000 patients"]),
    v2("PID segments without number", |n| adt(&repeated(n, "\r", |i| format!("PID|{i}||")))).refused(&["PID^1", "1000 patients"]),
    v2("PD1 segments", |n| {
        adt(&format!("PID|1||N1||Doe^J\r{}", repeated(n, "\r", |i| format!("PD1||||D{i}^Who^A^^^^^^HOSP"))))
    }),
    v2("NK1 segments", |n| {
        adt(&format!(
            "PID|1||N1||Doe^J\r{}",
            repeated(n, "\r", |i| format!("NK1|{i}|Doe^K{i}|SPO|1 Main^^T|555-{i}"))
        ))
    }),
    v2("PV1 segments", |n| {
        adt(&format!(
            "PID|1||N1||Doe^J\r{}",
            repeated(n, "\r", |i| format!("PV1|{i}|I|W^1^2^HOSP|||||||||||||||||V{i}"))
        ))
    }),
    v2("AL1 segments", |n| {
        adt(&format!("PID|1||N1||Doe^J\r{}", repeated(n, "\r", |i| format!("AL1|{i}|DA|A{i}^Nut^L|SV|Rash"))))
    }),
    v2("DG1 segments, equal", |n| {
        adt(&format!("PID|1||N1||Doe^J\r{}", repeated(n, "\r", |i| format!("DG1|{i}||I10^High^I10|||A"))))
    }),
    v2("Z segments", |n| {
        adt(&format!("PID|1||N1||Doe^J\r{}", repeated(n, "\r", |i| format!("ZZ{}|{i}|x", i % 10))))
    }),
    v2("unknown segments", |n| {
        adt(&format!("PID|1||N1||Doe^J\r{}", repeated(n, "\r", |i| format!("Q{:02}|{i}|x", i % 100))))
    }),
    v2("lines that are no segments", |n| {
        adt(&format!("PID|1||N1||Doe^J\r{}", repeated(n, "\r", |_| "x".into())))
    }),
    v2("OBX segments, distinct", |n| {
        oru(&repeated(n, "\r", |i| format!("OBX|{i}|NM|C{i}^Test^L||{i}|mg|||||F")))
    }),
    v2("OBX segments, equal", |n| oru(&repeated(n, "\r", |i| format!("OBX|{i}|NM|C1^Test^L||{i}|mg|||||F")))),
    v2("OBX segments, one number", |n| {
        oru(&repeated(n, "\r", |i| format!("OBX|{i}|NM|C{i}^Test^L||{i}|mg|||||F||||||||||X1^HOSP")))
    }),
    v2("OBX-5 repetitions", |n| {
        oru(&format!("OBX|1|TX|C1^T^L||{}||||||F", repeated(n, "~", |i| format!("line {i}"))))
    }).refused(&["OBX^1^5", "10000 repetitions"]),
    v2("OBX of text", |n| {
        oru(&repeated(n, "\r", |i| format!("OBX|{i}|TX|R^Report^L||line {i} of the text||||||F")))
    }),
    v2("NTE segments", |n| {
        oru(&format!("OBX|1|NM|C1^T^L||1|mg|||||F\r{}", repeated(n, "\r", |i| format!("NTE|{i}|L|note {i}"))))
    }),
    v2("OBR and OBX groups", |n| {
        result(&repeated(n, "\r", |i| {
            format!("OBR|{i}|P{i}^H|F{i}^H|S{i}^X^L|||20240101\rOBX|1|NM|C^T^L||{i}|mg|||||F")
        }))
    }),
    v2("OBR groups with one number", |n| {
        result(&repeated(n, "\r", |i| {
            format!("OBR|{i}|P1^H|F1^H|S{i}^X^L|||20240101\rOBX|1|NM|C^T^L||{i}|mg|||||F")
        }))
    }).refused(&["OBR^", "1000000 steps"]),
    v2("OBR groups with a bare number", |n| {
        result(&repeated(n, "\r", |i| format!("OBR|{i}||F1|S{i}^X^L|||20240101")))
    }).refused(&["OBR^", "1000000 steps"]),
    v2("OBR groups without numbers", |n| {
        result(&repeated(n, "\r", |i| format!("OBR|{i}|||S{i}^X^L|||20240101")))
    }),
    v2("OBR-3 repetitions", |n| oru_of(&format!("OBR|1||{}|S^X^L", repeated(n, "~", |i| format!("F{i}^H"))))).refused(&["OBR^1^3", "10000 repetitions"]),
    v2("orders", |n| {
        orm(&repeated(n, "\r", |i| format!("ORC|NW|P{i}^H|F{i}^H\rOBR|1|P{i}^H|F{i}^H|S{i}^X^L")))
    }),
    v2("IPC segments", |n| {
        orm(&format!(
            "ORC|NW|P1^H|F1^H\rOBR|1|P1^H|F1^H|S^X^L\r{}",
            repeated(n, "\r", |i| format!("IPC|A{i}^H|R{i}^H|1.2.{i}|S{i}^H|CT"))
        ))
    }).refused(&["ORC^1^2", "1000 identifiers"]),
    v2("MRG segments", |n| {
        merge(&format!(
            "PID|1||N1^^^HOSP^MR||Doe^J\r{}",
            repeated(n, "\r", |i| format!("MRG|M{i}^^^HOSP^MR"))
        ))
    }).refused(&["MRG^1", "1000 merges"]),
    v2("MRG-1 repetitions", |n| {
        merge(&format!("PID|1||N1^^^HOSP^MR||Doe^J\rMRG|{}", repeated(n, "~", |i| format!("M{i}^^^HOSP^MR"))))
    }).refused(&["MRG^1^1", "10000 repetitions"]),
    v2("1,000 MRG segments of 20 numbers", |n| {
        let mut at = 0;
        let mrg = |_: usize| {
            at += 1;
            format!("MRG|{}", (0..20).map(|k| format!("M{at}x{k}^^^HOSP^MR")).collect::<Vec<_>>().join("~"))
        };
        let mut lines = Vec::new();
        let (mut mrg, mut bytes) = (mrg, 0);
        while bytes < n && lines.len() < 1000 {
            let line = mrg(0);
            bytes += line.len();
            lines.push(line);
        }
        merge(&format!("PID|1||N1^^^HOSP^MR||Doe^J\r{}", lines.join("\r")))
    }),
    // HL7 v3
    v3("v3 ids", |n| {
        interaction(&repeated(n, "", |i| format!("<id root=\"1.2.3\" extension=\"N{i}\"/>")), "")
    }).refused(&["CE", "100 identifiers"]),
    v3("v3 names", |n| {
        interaction(ID, &repeated(n, "", |i| format!("<name><given>G{i}</given><family>F</family></name>")))
    }).refused(&["CE", "1000 times"]),
    v3("v3 given names", |n| {
        interaction(ID, &format!("<name>{}</name>", repeated(n, "", |i| format!("<given>G{i}</given>"))))
    }).refused(&["CE", "1000 times"]),
    v3("v3 telecoms", |n| {
        interaction(
            &format!("{ID}{}", repeated(n, "", |i| format!("<telecom value=\"tel:{i}\" use=\"H\"/>"))),
            "",
        )
    }),
    v3("v3 addresses", |n| {
        interaction(
            &format!(
                "{ID}{}",
                repeated(n, "", |i| format!("<addr><streetAddressLine>{i}</streetAddressLine></addr>"))
            ),
            "",
        )
    }),
    v3("v3 translations", |n| {
        interaction(
            ID,
            &format!(
                "<maritalStatusCode code=\"M\">{}</maritalStatusCode>",
                repeated(n, "", |i| format!("<translation code=\"{i}\" codeSystem=\"1.2\"/>"))
            ),
        )
    }),
    v3("v3 unknown elements", |n| interaction(ID, &repeated(n, "", |i| format!("<x{} a=\"{i}\"/>", i % 50)))),
    v3("v3 long names, nested", |n| {
        let name = "n".repeat(n / 120);
        let (open, close) = (format!("<{name}>").repeat(30), format!("</{name}>").repeat(30));
        interaction(
            ID,
            &format!("{open}{}{close}", repeated(n / 2, "", |i| format!("<y><x a=\"{i}\"/></y>"))),
        )
    }).refused(&["400", "256 bytes"]),
    v3("v3 nested", |n| {
        interaction(ID, &repeated(n, "", |i| format!("{}{i}{}", "<x>".repeat(50), "</x>".repeat(50))))
    }),
    v3("v3 attributes", |n| {
        interaction(
            ID,
            &repeated(n, "", |i| {
                format!("<x {}/>", (0..60).map(|a| format!("a{a}=\"{i}\"")).collect::<Vec<_>>().join(" "))
            }),
        )
    }),
    v3("v3 events", events).refused(&["CE", "1000 registration events"]),
    v3("v3 merge of many", merges).refused(&["CE", "1000 prior registrations"]),
    // MPPS
    mpps("mpps scheduled steps", |n| {
        step(
            json!({ "00400270": sequence(n, |i| json!({ "0020000D": text("UI", "1.2.3"), "00080050": text("SH", &format!("A{i}")) })) }),
        )
    }).refused(&["(0040,0270)", "100 items"]),
    mpps("mpps series", |n| {
        step(
            json!({ "00400340": sequence(n, |i| json!({ "0020000E": text("UI", &format!("1.2.3.{i}")), "00080060": text("CS", "CT") })) }),
        )
    }).refused(&["(0040,0340)", "1000 items"]),
    mpps("mpps images", |n| {
        step(json!({ "00400340": json!({ "vr": "SQ", "Value": [{ "0020000E": text("UI", "1.2.3.1"),
        "00081140": sequence(n, |i| json!({ "00081155": text("UI", &format!("1.2.3.4.{i}")) })) }] }) }))
    }).refused(&["1048576 bytes"]),
    mpps("mpps unknown members", |n| {
        step(Value::Object(
            counted(n, |i| json!({ format!("member{i}"): i }))
                .into_iter()
                .filter_map(|v| v.as_object().cloned())
                .flatten()
                .collect(),
        ))
    }).refused(&["1000 unknown members"]),
    mpps("mpps other patient ids", |n| {
        step(json!({ "00101002": sequence(n, |i| json!({ "00100020": text("LO", &format!("P{i}")) })) }))
    }).refused(&["1048576 bytes"]),
    mpps("mpps codes", |n| {
        step(
            json!({ "00081032": sequence(n, |i| json!({ "00080100": text("SH", &format!("C{i}")), "00080102": text("SH", "L"), "00080104": text("LO", "m") })) }),
        )
    }).refused(&["1048576 bytes"]),
    mpps("mpps unused sequences", |n| {
        step(json!({ "00409999": sequence(n, |i| json!({ "00080100": text("SH", &format!("C{i}")) })) }))
    }).refused(&["1048576 bytes"]),
    // FHIR
    fhir("fhir identifiers", |n| {
        patient(
            json!({ "identifier": counted(n, |i| json!({ "system": "urn:a", "value": format!("N{i}") })) }),
        )
    }).refused(&["Patient.identifier", "1000 identifiers"]),
    fhir("fhir identifiers, equal", |n| {
        patient(json!({ "identifier": counted(n, |_| json!({ "system": "urn:a", "value": "N1" })) }))
    }).refused(&["Patient.identifier", "1000 identifiers"]),
    fhir("fhir identifiers of an order", |n| {
        json!({ "resourceType": "ServiceRequest", "id": "r1", "status": "active", "intent": "order", "subject": { "display": "x" },
        "identifier": counted(n, |i| json!({ "system": "urn:a", "value": format!("N{i}") })) }).to_string()
    }).refused(&["ServiceRequest.identifier", "1000 identifiers"]),
    fhir("fhir tags", |n| {
        patient(
            json!({ "meta": { "tag": counted(n, |i| json!({ "system": "urn:a", "code": format!("T{i}") })) } }),
        )
    }),
    fhir("fhir names", |n| {
        patient(json!({ "name": counted(n, |i| json!({ "family": format!("F{i}"), "given": ["A", "B"] })) }))
    }),
    fhir("fhir codings", |n| {
        observation(
            json!({ "code": { "coding": counted(n, |i| json!({ "system": "urn:a", "code": format!("C{i}") })) } }),
        )
    }),
    fhir("fhir extensions", |n| {
        patient(
            json!({ "extension": counted(n, |i| json!({ "url": "urn:x", "valueString": format!("{i}") })) }),
        )
    }),
    fhir("fhir contained", |n| {
        patient(
            json!({ "contained": counted(n, |i| json!({ "resourceType": "Patient", "id": format!("c{i}") })) }),
        )
    }),
    fhir("fhir references", |n| {
        report(json!({ "result": counted(n, |i| json!({ "reference": format!("Observation/o{i}") })) }))
    }),
    fhir("fhir logical references", |n| {
        report(
            json!({ "result": counted(n, |i| json!({ "identifier": { "system": "urn:a", "value": format!("N{i}") } })) }),
        )
    }),
    fhir("fhir waiting references", |n| {
        report(
            json!({ "basedOn": counted(n, |i| json!({ "identifier": { "system": "urn:a", "value": format!("N{i}") } })) }),
        )
    }),
    fhir("fhir dates", |n| {
        observation(
            json!({ "component": counted(n, |i| json!({ "code": { "text": "x" }, "valueQuantity": { "value": i } })) }),
        )
    }),
    fhir("fhir patients, wrong", |n| patient(json!({ "name": counted(n, |_| json!({ "famly": "x" })) }))).refused(&["422"]),
    fhir("fhir long string", |n| patient(json!({ "name": [{ "text": "x".repeat(n) }] }))),
    fhir("fhir header lines", |n| {
        json!({ "resourceType": "Endpoint", "id": "e1", "status": "active", "connectionType": { "code": "x" }, "payloadType": [{ "text": "x" }],
        "address": "http://x", "header": counted(n, |i| json!(format!("X-{i}: v"))) }).to_string()
    }),
    fhir("fhir entries", |n| {
        transaction(n, |i| {
            json!({ "fullUrl": format!("urn:uuid:{i}"), "request": { "method": "POST", "url": "Patient" },
        "resource": { "resourceType": "Patient", "identifier": [{ "system": "urn:a", "value": format!("E{i}") }] } })
        })
    }),
    fhir("fhir entries, one number", |n| {
        transaction(n, |i| {
            json!({ "fullUrl": format!("urn:uuid:{i}"), "request": { "method": "POST", "url": "Patient" },
        "resource": { "resourceType": "Patient", "identifier": [{ "system": "urn:a", "value": "E" }] } })
        })
    }),
    fhir("fhir entries that refer", |n| {
        transaction(n, |i| {
            json!({ "fullUrl": format!("urn:uuid:{i}"), "request": { "method": "POST", "url": "Observation" },
        "resource": { "resourceType": "Observation", "status": "final", "code": { "text": "x" }, "hasMember": [{ "reference": format!("urn:uuid:{}", i / 2) }] } })
        })
    }),
    fhir("fhir conditional references", |n| {
        transaction(n, |i| {
            if i % 2 == 0 {
                json!({ "fullUrl": format!("urn:uuid:{i}"), "request": { "method": "POST", "url": "Patient" },
            "resource": { "resourceType": "Patient", "identifier": [{ "system": "urn:c", "value": format!("E{i}") }] } })
            } else {
                json!({ "fullUrl": format!("urn:uuid:{i}"), "request": { "method": "POST", "url": "Observation" },
            "resource": { "resourceType": "Observation", "status": "final", "code": { "text": "x" }, "subject": { "reference": format!("Patient?identifier=urn:c|E{}", i - 1) } } })
            }
        })
    }),
    fhir("fhir conditional references of one", |n| {
        transaction(n, |i| {
            if i == 0 {
                json!({ "fullUrl": "urn:uuid:0", "request": { "method": "POST", "url": "Observation" }, "resource": { "resourceType": "Observation", "status": "final",
            "code": { "text": "x" }, "hasMember": counted(n / 8, |k| json!({ "reference": format!("Observation?identifier=urn:d|E{}", k + 1) })) } })
            } else {
                json!({ "fullUrl": format!("urn:uuid:{i}"), "request": { "method": "POST", "url": "Observation" },
            "resource": { "resourceType": "Observation", "status": "final", "code": { "text": "x" }, "identifier": [{ "system": "urn:d", "value": format!("E{i}") }] } })
            }
        })
    }),
    fhir("fhir orders that are waited for", |n| {
        transaction(n, |i| {
            if i == 0 {
                json!({ "fullUrl": "urn:uuid:0", "request": { "method": "POST", "url": "Patient" }, "resource": { "resourceType": "Patient" } })
            } else {
                json!({ "fullUrl": format!("urn:uuid:{i}"), "request": { "method": "POST", "url": "ServiceRequest" }, "resource": { "resourceType": "ServiceRequest", "status": "active",
            "intent": "order", "subject": { "reference": "urn:uuid:0" }, "identifier": [{ "system": "urn:a", "value": format!("N{i}") }] } })
            }
        })
    }),
];

/// Entries of a transaction: as many as its door takes.
const ENTRIES_MAX: usize = 5_000;
const ID: &str = "<id root=\"1.2.3\" extension=\"N1\"/>";

const fn v2(name: &'static str, make: fn(usize) -> String) -> Shape {
    Shape { name, door: Door::V2, refusal: None, make }
}

const fn v3(name: &'static str, make: fn(usize) -> String) -> Shape {
    Shape { name, door: Door::V3, refusal: None, make }
}

const fn mpps(name: &'static str, make: fn(usize) -> String) -> Shape {
    Shape { name, door: Door::Mpps, refusal: None, make }
}

const fn fhir(name: &'static str, make: fn(usize) -> String) -> Shape {
    Shape { name, door: Door::Fhir, refusal: None, make }
}

/// Bytes of a segment: as many of them as 1 MiB holds are within `segments_max`.
const SEGMENT_BYTES: usize = 110;

/// Parts until the size is reached. Segments are filled up with empty fields.
fn repeated(bytes: usize, between: &str, part: impl Fn(usize) -> String) -> String {
    let filled = |at: usize| {
        let mut text = part(at);
        if between == "\r" {
            let wanted = SEGMENT_BYTES * (1 + text.matches('\r').count());
            text.push_str(&"|".repeat(wanted.saturating_sub(text.len())));
        }
        text
    };
    let mut text = filled(0);
    for at in 1.. {
        if text.len() >= bytes {
            break;
        }
        text.push_str(between);
        text.push_str(&filled(at));
    }
    text
}

/// The same as JSON values.
fn counted(bytes: usize, part: impl Fn(usize) -> Value) -> Vec<Value> {
    let (mut values, mut length) = (Vec::new(), 0);
    while length < bytes {
        let value = part(values.len());
        length += value.to_string().len() + 1;
        values.push(value);
    }
    values
}

fn message(kind: &str, rest: &str) -> String {
    format!("MSH|^~\\&|APP|FAC|HILUM|EDGE|20240101120000||{kind}|C1|P|2.5.1\r{rest}\r")
}

fn adt(rest: &str) -> String {
    message("ADT^A08^ADT_A01", &format!("EVN||20240101\r{rest}"))
}

fn pid(rest: &str) -> String {
    adt(&format!("PID|1||N1^^^HOSP^MR||{rest}"))
}

fn result(rest: &str) -> String {
    message("ORU^R01^ORU_R01", &format!("PID|1||N1^^^HOSP^MR||Doe^J\r{rest}"))
}

fn oru_of(rest: &str) -> String {
    result(rest)
}

fn oru(rest: &str) -> String {
    result(&format!("OBR|1|P1^H|F1^H|S^X^L|||20240101\r{rest}"))
}

fn orm(rest: &str) -> String {
    message("ORM^O01^ORM_O01", &format!("PID|1||N1^^^HOSP^MR||Doe^J\r{rest}"))
}

fn merge(rest: &str) -> String {
    message("ADT^A40^ADT_A39", &format!("EVN||20240101\r{rest}"))
}

fn wrapped(name: &str, rest: &str) -> String {
    format!(
        "<{name} xmlns=\"urn:hl7-org:v3\"><id root=\"1.2\" extension=\"1\"/><creationTime value=\"20240101\"/>\
         <sender><device><id root=\"1.9\"/></device></sender><controlActProcess>{rest}</controlActProcess></{name}>"
    )
}

fn event(role: &str, person: &str, rest: &str) -> String {
    format!(
        "<subject><registrationEvent><subject1><patient>{role}<patientPerson>{person}</patientPerson></patient></subject1>{rest}</registrationEvent></subject>"
    )
}

fn interaction(role: &str, person: &str) -> String {
    wrapped("PRPA_IN201302UV02", &event(role, person, ""))
}

fn events(bytes: usize) -> String {
    let of = |i: usize| {
        event(&format!("<id root=\"1.2.3\" extension=\"N{i}\"/>"), "<name><family>F</family></name>", "")
    };
    wrapped("PRPA_IN201302UV02", &repeated(bytes, "", of))
}

fn merges(bytes: usize) -> String {
    let prior = |i: usize| {
        format!(
            "<replacementOf><priorRegistration><subject1><priorRegisteredRole><id root=\"1.2.3\" extension=\"M{i}\"/></priorRegisteredRole></subject1></priorRegistration></replacementOf>"
        )
    };
    wrapped("PRPA_IN201304UV02", &event(ID, "", &repeated(bytes, "", prior)))
}

fn text(vr: &str, value: &str) -> Value {
    json!({ "vr": vr, "Value": [value] })
}

fn sequence(bytes: usize, item: impl Fn(usize) -> Value) -> Value {
    json!({ "vr": "SQ", "Value": counted(bytes, item) })
}

fn step(more: Value) -> String {
    let mut step = json!({
        "00080018": text("UI", "1.2.3.9"), "0020000D": text("UI", "1.2.3"), "00400252": text("CS", "IN PROGRESS"),
        "00100020": text("LO", "N1"), "00400244": text("DA", "20240101"), "00400245": text("TM", "120000"),
    });
    merge_into(&mut step, more);
    step.to_string()
}

fn merge_into(value: &mut Value, more: Value) {
    if let (Some(object), Value::Object(more)) = (value.as_object_mut(), more) {
        object.extend(more);
    }
}

fn resource(mut base: Value, more: Value) -> String {
    merge_into(&mut base, more);
    base.to_string()
}

fn patient(more: Value) -> String {
    resource(json!({ "resourceType": "Patient", "id": "p1" }), more)
}

fn observation(more: Value) -> String {
    resource(
        json!({ "resourceType": "Observation", "id": "o1", "status": "final", "code": { "text": "x" } }),
        more,
    )
}

fn report(more: Value) -> String {
    resource(
        json!({ "resourceType": "DiagnosticReport", "id": "r1", "status": "final", "code": { "text": "x" } }),
        more,
    )
}

fn transaction(bytes: usize, entry: impl Fn(usize) -> Value) -> String {
    let mut entries = counted(bytes, entry);
    entries.truncate(ENTRIES_MAX);
    json!({ "resourceType": "Bundle", "type": "transaction", "entry": entries }).to_string()
}

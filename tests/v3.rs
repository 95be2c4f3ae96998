//! HL7 v3 through the door of the real binary: every wrapping, repeats, hostile XML, and one Patient for both versions of HL7.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use std::path::Path;
use std::process::Command;

use harness::http::{self, Reply};
use harness::{Edge, Value};
use hilum_wire::v3::{Limits, Message, NAMESPACE};

const SOAP_11: &str = "http://schemas.xmlsoap.org/soap/envelope/";
const SOAP_12: &str = "http://www.w3.org/2003/05/soap-envelope";

fn start(dir: &Path) -> Edge {
    Edge::start_limited(dir, "[limits.xml]\nbytes_max = 2000000\n")
}

fn post(edge: &Edge, content_type: &str, body: impl AsRef<[u8]>) -> Reply {
    http::send(edge.http, "POST", "/v3/ingest", &[&format!("Content-Type: {content_type}")], body)
}

/// The acknowledgement in an answer.
fn message(answer: &Reply) -> Message {
    let message = Message::read(answer.body.as_bytes(), &Limits::default());
    let message = message.unwrap_or_else(|refusal| panic!("{refusal:?}: {}", answer.body));
    assert!(message.wrapper.is_acknowledgement(), "{}", answer.body);
    message
}

/// Its `acknowledgement/typeCode`.
fn code(answer: &Reply) -> String {
    let code = message(answer).with_tree(|node| {
        let code = node.descendants().find(|n| n.has_tag_name((NAMESPACE, "typeCode")));
        code.unwrap().attribute("code").unwrap().to_owned()
    });
    code.unwrap()
}

fn interaction(name: &str, message_id: &str, patient: &str, person: &str, more: &str) -> String {
    format!(
        "<{name} xmlns=\"urn:hl7-org:v3\" ITSVersion=\"XML_1.0\"><id root=\"1.2.9\" extension=\"{message_id}\"/>\
         <creationTime value=\"20240501\"/><interactionId root=\"2.16.840.1.113883.1.6\" extension=\"{name}\"/>\
         <receiver><device><id root=\"1.2.8\"/></device></receiver><sender><device><id root=\"1.2.7\"/></device></sender>\
         <controlActProcess><subject><registrationEvent><subject1><patient><id root=\"1.2.3\" extension=\"{patient}\"/>\
         <patientPerson>{person}</patientPerson></patient></subject1>{more}</registrationEvent></subject></controlActProcess></{name}>"
    )
}

fn named(message_id: &str, patient: &str, family: &str) -> String {
    let person = format!("<name><given>Ada</given><family>{family}</family></name>");
    interaction("PRPA_IN201301UV02", message_id, patient, &person, "")
}

fn soap(namespace: &str, body: &str) -> String {
    format!(
        "<s:Envelope xmlns:s=\"{namespace}\" xmlns:a=\"http://www.w3.org/2005/08/addressing\"><s:Header>\
         <a:MessageID>urn:uuid:question</a:MessageID></s:Header><s:Body>{body}</s:Body></s:Envelope>"
    )
}

#[test]
fn every_wrapping_is_answered_in_kind_and_a_repeat_gets_the_same_answer() {
    let dir = tempfile::tempdir().unwrap();
    let edge = start(dir.path());
    let bare = post(&edge, "application/xml", named("1", "P1", "Bare"));
    assert_eq!((bare.status, code(&bare).as_str()), (200, "CA"));
    assert_eq!(bare.header("content-type"), Some("application/xml; charset=utf-8"));
    assert!(bare.body.contains("<targetMessage><id root=\"1.2.9\" extension=\"1\"/>"));
    assert_eq!(post(&edge, "application/xml", named("1", "P1", "Bare")).body, bare.body, "a repeat");
    for (namespace, content_type, id) in
        [(SOAP_11, "text/xml; charset=utf-8", "2"), (SOAP_12, "application/soap+xml; action=\"x\"", "3")]
    {
        let answer = post(&edge, content_type, soap(namespace, &named(id, id, "Soaped")));
        assert_eq!((answer.status, code(&answer).as_str()), (200, "CA"));
        let essence = content_type.split(';').next().unwrap();
        let said = answer.header("content-type").unwrap();
        assert!(said.starts_with(&format!("{essence}; charset=utf-8")), "{said}");
        assert!(message(&answer).envelope.is_some() && answer.body.contains(namespace), "{}", answer.body);
        assert!(answer.body.contains("RelatesTo>urn:uuid:question<"), "{}", answer.body);
    }
    assert_eq!(edge.get("/fhir/Patient?_summary=count")["total"], 3);
    let found = edge.get("/fhir/Patient?identifier=urn:oid:1.2.3%7CP1&_revinclude=Provenance:target");
    let provenance = &found["entry"][1]["resource"];
    assert_eq!(provenance["entity"][0]["what"]["display"], "HL7 v3 interaction 1.2.9^1", "{found:#}");
}

#[test]
fn v2_and_v3_of_one_identifier_meet_in_one_patient() {
    let dir = tempfile::tempdir().unwrap();
    let edge = start(dir.path());
    let v2 = "MSH|^~\\&|A|B|||20240101||ADT^A08|1|P|2.5\rPID|1||M1^^^&1.2.3&ISO^MR||Old^Ada||19800101|F\r";
    assert_eq!(http::send(edge.http, "POST", "/v2/ingest", &["Content-Type: text/plain"], v2).status, 200);
    let person = "<name use=\"L\"><given>Ada</given><family>New</family></name><administrativeGenderCode nullFlavor=\"UNK\"/><birthTime/>";
    let revised = interaction("PRPA_IN201302UV02", "1", "M1", person, "");
    assert_eq!(code(&post(&edge, "text/xml", revised)), "CA");
    let found = edge.get("/fhir/Patient");
    assert_eq!(found["total"], 1, "{found:#}");
    let patient = &found["entry"][0]["resource"];
    assert_eq!(
        (patient["meta"]["versionId"].as_str(), patient["name"][0]["family"].as_str()),
        (Some("2"), Some("New"))
    );
    assert_eq!(
        (&patient["gender"], &patient["birthDate"]),
        (&"female".into(), &"1980-01-01".into()),
        "no value deletes nothing"
    );
    assert_eq!(
        patient["identifier"][0]["type"]["coding"][0]["code"], "MR",
        "what v2 knew of the identifier stays"
    );
    assert_eq!(patient["identifier"].as_array().unwrap().len(), 1);

    let prior = "<replacementOf><priorRegistration><subject1><priorRegisteredRole><id root=\"1.2.3\" extension=\"M2\"/></priorRegisteredRole></subject1></priorRegistration></replacementOf>";
    assert_eq!(code(&post(&edge, "text/xml", named("2", "M2", "Twice"))), "CA");
    let merge = interaction("PRPA_IN201304UV02", "3", "M1", "<name><family>New</family></name>", prior);
    assert_eq!(code(&post(&edge, "text/xml", merge)), "CA");
    let gone = edge.get("/fhir/Patient?identifier=urn:oid:1.2.3%7CM2&active=false");
    assert_eq!(gone["entry"][0]["resource"]["link"][0]["type"], "replaced-by", "{gone:#}");
}

#[test]
fn what_is_no_interaction_is_refused_in_the_words_of_its_layer() {
    let dir = tempfile::tempdir().unwrap();
    let edge = start(dir.path());
    let bomb = "<!DOCTYPE x [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]><x xmlns=\"urn:hl7-org:v3\">&b;</x>";
    let nested = format!("<x xmlns=\"urn:hl7-org:v3\">{}{}</x>", "<y>".repeat(3_000), "</y>".repeat(3_000));
    for (body, place) in [
        ("<x", "malformed"),
        (bomb, "document type"),
        (nested.as_str(), "nested"),
        ("", "empty"),
        ("<x/>", "foreign"),
    ] {
        let answer = post(&edge, "application/xml", body);
        let text = &answer.body;
        assert!(
            answer.status == 400 && text.contains("OperationOutcome"),
            "{place}: {} {text}",
            answer.status
        );
    }
    assert_eq!(
        post(&edge, "application/xml", named("1", "P1", &"x".repeat(2_000_000))).status,
        413,
        "the configured limit"
    );
    assert_eq!(post(&edge, "application/json", named("1", "P1", "Long")).status, 415);
    for namespace in [SOAP_11, SOAP_12] {
        let answer = post(&edge, "text/xml", soap(namespace, "<x/>"));
        assert!(
            answer.status == 500 && answer.body.contains("<soap:Fault>") && answer.body.contains(namespace),
            "{}",
            answer.body
        );
    }
    let unsupported =
        post(&edge, "text/xml", soap(SOAP_11, &interaction("PRPA_IN201305UV02", "1", "P1", "", "")));
    assert_eq!((unsupported.status, code(&unsupported).as_str()), (200, "CR"));
    assert!(unsupported.body.contains("unsupported interaction"), "{}", unsupported.body);
    let content =
        post(&edge, "text/xml", named("2", "", "Nobody").replace("extension=\"\"", "nullFlavor=\"NI\""));
    assert_eq!((content.status, code(&content).as_str()), (200, "CE"));
    assert_eq!(edge.get("/fhir/Patient?_summary=count")["total"], 0);
}

#[test]
fn a_key_with_the_scope_opens_the_door() {
    let dir = tempfile::tempdir().unwrap();
    let edge = start(dir.path());
    let keyed = |headers: &[&str]| {
        let mut all = vec!["Content-Type: application/xml"];
        all.extend(headers);
        http::send(edge.keyed, "POST", "/v3/ingest", &all, named("1", "P1", "Keyed")).status
    };
    assert_eq!(keyed(&[]), 401);
    assert_eq!(keyed(&[&edge.key("ingest/hl7v2")]), 403);
    assert_eq!(keyed(&[&edge.key("ingest/hl7v3")]), 200);
    let first = std::fs::read_to_string(dir.path().join("data/first-api-key")).unwrap();
    assert_eq!(keyed(&[&format!("X-API-Key: {first}")]), 200, "the first key holds the scope");
}

#[test]
fn no_value_of_an_interaction_reaches_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let edge = start(dir.path());
    let marked = |id: &str| named(id, "MARKEDID", "MARKEDNAME");
    assert_eq!(code(&post(&edge, "text/xml", marked("1"))), "CA");
    assert_eq!(code(&post(&edge, "text/xml", marked("2").replace("201301", "201305"))), "CR");
    assert_eq!(post(&edge, "text/xml", marked("3").replace("Ada", "&MARKED;")).status, 400);
    assert_eq!(post(&edge, "text/xml", soap(SOAP_12, "<MARKED/>")).status, 500);
    let log = edge.log();
    assert!(log.contains("receipt"), "{log}");
    assert!(!log.contains("MARKED"), "{log}");
}

#[test]
fn map_and_send_take_interactions() {
    let dir = tempfile::tempdir().unwrap();
    let edge = start(dir.path());
    let (good, bad) = (dir.path().join("good.xml"), dir.path().join("bad.xml"));
    std::fs::write(&good, soap(SOAP_12, &named("1", "P1", "Sent"))).unwrap();
    std::fs::write(&bad, interaction("PRPA_IN201305UV02", "2", "P1", "", "")).unwrap();
    let hilum = |arguments: &[&str]| {
        let config = dir.path().join("hilum.toml");
        let mut all = vec!["--config", config.to_str().unwrap()];
        all.extend(arguments);
        let done = Command::new(env!("CARGO_BIN_EXE_hilum")).args(all).output().unwrap();
        (done.status.success(), String::from_utf8(done.stdout).unwrap())
    };
    let (fine, shown) = hilum(&["map", "--json", good.to_str().unwrap()]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert!(fine && shown["bundle"]["entry"][0]["resource"]["name"][0]["family"] == "Sent", "{shown:#}");
    assert!(!hilum(&["map", "--summary", bad.to_str().unwrap()]).0);
    let target = format!("http://{}", edge.http);
    let (fine, answer) = hilum(&["send", "v3", &target, good.to_str().unwrap()]);
    assert!(fine && answer.contains("\"CA\"") && answer.contains("Envelope"), "{answer}");
    let (fine, answer) = hilum(&["send", "v3", &target, bad.to_str().unwrap()]);
    assert!(!fine && answer.contains("\"CR\""), "{answer}");
}

/// Runs over the corpora beside the project, when they are there.
#[test]
fn every_file_of_the_corpora_gets_an_answer_of_the_protocol() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus/hl7v3");
    let dir = tempfile::tempdir().unwrap();
    let edge = start(dir.path());
    let folders = std::fs::read_dir(root).into_iter().flatten().flatten();
    for path in folders.flat_map(|folder| std::fs::read_dir(folder.path()).unwrap()) {
        let path = path.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let answer = post(&edge, "application/xml", &bytes);
        let name = path.display();
        let Ok(sent) = Message::read(&bytes, &Limits::default()) else {
            assert!(answer.status == 400 && answer.body.contains("OperationOutcome"), "{name}: {answer:?}");
            continue;
        };
        if sent.wrapper.is_acknowledgement() {
            assert_eq!(answer.status, 204, "{name}");
            continue;
        }
        assert_eq!(answer.status, 200, "{name}");
        let is_feed = ["PRPA_IN201301UV02", "PRPA_IN201302UV02", "PRPA_IN201304UV02"]
            .contains(&sent.wrapper.interaction.as_str());
        let code = code(&answer);
        assert_eq!(code != "CR", is_feed, "{name}: {code}");
        assert_eq!(message(&answer).envelope.is_some(), sent.envelope.is_some(), "{name}");
        let target = message(&answer).with_tree(|node| {
            let target = node.descendants().find(|n| n.has_tag_name((NAMESPACE, "targetMessage"))).unwrap();
            let id = target.children().find(|n| n.has_tag_name((NAMESPACE, "id"))).unwrap();
            id.attribute("root").map(str::to_owned)
        });
        assert_eq!(target.unwrap(), sent.wrapper.id.map(|id| id.root), "{name}");
    }
    assert_eq!(http::send(edge.http, "GET", "/livez", &[], "").status, 200);
}

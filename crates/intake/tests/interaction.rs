//! HL7 v3 interactions through the way in: what is answered, what is kept, what a repeat does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;

use bytes::Bytes;
use hilum_intake::store::{Config, OriginalKind, Site, Store, SubmissionRow};
use hilum_intake::{Intake, Source, normalise::Rules};
use hilum_wire::v3::{Limits, Message};

struct Bench {
    intake: Intake,
    site: Site,
}

impl Bench {
    async fn open(dir: &Path) -> Self {
        let config = Config { free_bytes_min: 0, blobs_free_bytes_min: 0, ..Config::new(dir.to_owned()) };
        let store = Store::open(config).await.unwrap();
        store.control().put_site(serde_json::from_value(serde_json::json!({ "id": "a" })).unwrap()).unwrap();
        let site = store.control().site("a").unwrap().unwrap();
        Self { intake: Intake::new(store, Rules::compile(&[]).unwrap()), site }
    }

    async fn send(&self, text: &str) -> (u16, String) {
        let original = Bytes::copy_from_slice(text.as_bytes());
        let message = Message::read(&original, &Limits::default()).unwrap();
        let source = Source { listener: "http-1".into(), ..Source::default() };
        let reply = self.intake.interact(&self.site, source, original, message).await;
        (reply.http_status, reply.document.unwrap_or_default())
    }

    async fn submissions(&self) -> Vec<SubmissionRow> {
        self.intake.store().submissions(&self.site, None, 100).await.unwrap()
    }
}

fn interaction(name: &str, message_id: &str, patient: &str) -> String {
    format!(
        "<{name} xmlns=\"urn:hl7-org:v3\"><id root=\"1.2\" extension=\"{message_id}\"/><creationTime value=\"20240101\"/>\
         <sender><device><id root=\"1.9\"/></device></sender><controlActProcess><subject><registrationEvent><subject1><patient>\
         {patient}<patientPerson><name><family>Long</family></name></patientPerson></patient></subject1></registrationEvent></subject>\
         </controlActProcess></{name}>"
    )
}

const ID: &str = "<id root=\"1.2.3\" extension=\"P1\"/>";

fn soap(message_id: &str, body: &str) -> String {
    format!(
        "<s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\"><s:Header>\
         <a:MessageID xmlns:a=\"http://www.w3.org/2005/08/addressing\">{message_id}</a:MessageID></s:Header><s:Body>{body}</s:Body></s:Envelope>"
    )
}

#[tokio::test]
async fn an_interaction_is_kept_with_its_original_and_a_repeat_gets_the_same_answer() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let text = interaction("PRPA_IN201301UV02", "1", ID);
    let (status, answer) = bench.send(&text).await;
    assert!(status == 200 && answer.contains("<typeCode code=\"CA\"/>"), "{answer}");
    assert!(answer.contains("<targetMessage><id root=\"1.2\" extension=\"1\"/>"), "{answer}");
    assert_eq!(bench.send(&text).await.1, answer, "a repeat replays the stored answer");
    let rows = bench.submissions().await;
    assert_eq!(rows.len(), 1, "a repeat writes nothing");
    assert_eq!((rows[0].kind, rows[0].accepted), (OriginalKind::V3, true));
    assert_eq!(rows[0].bytes.as_deref(), Some(text.as_bytes()));
    assert_eq!((rows[0].control_id.as_deref(), rows[0].identity.as_deref()), (Some("1.2^1"), Some("1.9")));
    assert!(rows[0].report.is_some() && rows[0].targets.len() == 1);
}

#[tokio::test]
async fn a_repeat_in_a_new_envelope_is_a_repeat_and_relates_to_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let inner = interaction("PRPA_IN201302UV02", "1", ID);
    let first = bench.send(&soap("urn:first", &inner)).await.1;
    let second = bench.send(&soap("urn:second", &inner)).await.1;
    assert!(first.contains("RelatesTo>urn:first<"), "{first}");
    assert_eq!(
        first.replace("urn:first", "urn:second"),
        second,
        "the acknowledgement within is the stored one"
    );
    assert_eq!(bench.submissions().await.len(), 1);
    let other = bench.send(&soap("urn:third", &inner.replace("Long", "Short"))).await.1;
    assert!(other.contains("\"CA\""), "the same id with other content is another interaction: {other}");
    assert_eq!(bench.submissions().await.len(), 2);
}

#[tokio::test]
async fn what_is_refused_says_why_and_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let (status, answer) = bench.send(&interaction("PRPA_IN201309UV02", "1", ID)).await;
    assert!(
        status == 200 && answer.contains("<typeCode code=\"CR\"/>") && answer.contains("NS200"),
        "{answer}"
    );
    assert!(answer.contains("<text>unsupported interaction</text>"), "{answer}");
    let (status, answer) = bench.send(&interaction("PRPA_IN201301UV02", "2", "")).await;
    assert!(
        status == 200 && answer.contains("<typeCode code=\"CE\"/>") && answer.contains("SYN101"),
        "{answer}"
    );
    assert!(answer.contains("/subject1/patient/id</location>"), "{answer}");
    let rows = bench.submissions().await;
    assert!(
        rows.len() == 2
            && rows.iter().all(|row| !row.accepted && row.bytes.is_some() && !row.issues.is_empty())
    );
    let (status, answer) = bench.send(&interaction("MCCI_IN000002UV01", "3", "")).await;
    assert_eq!((status, answer.as_str()), (204, ""), "an acknowledgement is never acknowledged");
}

#[tokio::test]
async fn while_the_store_is_closed_the_sender_is_asked_to_send_again() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    assert_eq!(bench.send(&interaction("PRPA_IN201301UV02", "1", ID)).await.0, 200);
    bench.intake.store().close().await;
    let (status, answer) = bench.send(&interaction("PRPA_IN201301UV02", "2", ID)).await;
    assert!(
        status == 503 && answer.contains("<typeCode code=\"CR\"/>") && answer.contains("INTERR"),
        "{status} {answer}"
    );
}

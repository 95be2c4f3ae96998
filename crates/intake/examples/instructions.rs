//! One step of a message's way, over and over: what `scripts/instructions` counts the processor's instructions of.
//!
//! `instructions STEP TIMES`. The step `plan` is the whole way in on the store in memory, each time with a new message of a new patient: read, map,
//! look up, plan, validate, index, commit.

#![allow(clippy::unwrap_used, reason = "an example that cannot go on fails")]

use std::hint::black_box;

use bytes::Bytes;
use hilum_fhir::search::{Context as SearchContext, index};
use hilum_fhir::{Action, Resource, Timestamp, validate::validate};
use hilum_intake::normalise::{Context, Payload, Rules, normalise};
use hilum_intake::store::{Config, Memory, Store};
use hilum_intake::{Intake, Source};
use hilum_wire::er7;

const ORU: &str = include_str!("../../../fixtures/v2/oru_r01.in.er7");

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let times: usize = arguments[1].parse().unwrap();
    match arguments[0].as_str() {
        "read" => (0..times)
            .for_each(|_| drop(er7::Message::read(black_box(ORU.as_bytes()), &er7::Limits::default()))),
        "map" => {
            let rules = Rules::compile(&[]).unwrap();
            let (payload, context) = (Payload::V2(Bytes::from_static(ORU.as_bytes())), context());
            (0..times).for_each(|_| drop(normalise(black_box(&payload), &rules, &context)));
        }
        "validate" => {
            let all = resources();
            (0..times).for_each(|_| all.iter().for_each(|resource| drop(validate(black_box(resource)))));
        }
        "index" => {
            let (all, context) = (
                resources(),
                SearchContext { zone: jiff::tz::TimeZone::UTC, now: Timestamp::from_micros(0) },
            );
            (0..times)
                .for_each(|_| all.iter().for_each(|resource| drop(index(black_box(resource), &context))));
        }
        "plan" => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(messages(times));
        }
        other => panic!("no step {other}: read, map, validate, index, plan"),
    }
}

fn context() -> Context {
    Context {
        site: "a".into(),
        zone: jiff::tz::TimeZone::UTC,
        patient_identifier_system: "urn:hilum:site:a:mrn".into(),
        naming_systems: [("NORTH".to_owned(), "https://north.example/ids".to_owned())].into(),
        join_unqualified: true,
        keep_unidentified: false,
        received: Timestamp::from_micros(1_700_000_000_000_000),
        seed: 1,
    }
}

/// What the message makes.
fn resources() -> Vec<Resource> {
    let payload = Payload::V2(Bytes::from_static(ORU.as_bytes()));
    let mapped = normalise(&payload, &Rules::compile(&[]).unwrap(), &context());
    let made: Vec<Resource> = mapped
        .changes
        .into_iter()
        .filter_map(|change| match change.action {
            Action::Create(resource)
            | Action::Ensure(_, resource)
            | Action::Replace(_, resource)
            | Action::Merge(_, resource, _) => Some(resource),
            _ => None,
        })
        .collect();
    assert!(!made.is_empty(), "the message makes resources");
    made
}

async fn messages(times: usize) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        memory: Some(Memory::default()),
        free_bytes_min: 0,
        blobs_free_bytes_min: 0,
        ..Config::new(dir.path().to_owned())
    };
    let store = Store::open(config).await.unwrap();
    store.control().put_site(serde_json::from_value(serde_json::json!({ "id": "a" })).unwrap()).unwrap();
    let site = store.control().site("a").unwrap().unwrap();
    let intake = Intake::new(store, Rules::compile(&[]).unwrap());
    for number in 0..times {
        let body = ORU.replace("|C1|", &format!("|C{number}|")).replace("M100^", &format!("M{number}^"));
        let body = body.replace("P1^", &format!("P{number}^")).replace("F1^", &format!("F{number}^"));
        let source = Source { listener: "mllp".into(), ..Source::default() };
        let answer = intake.exchange(&site, source, body.into()).await;
        let frame = String::from_utf8_lossy(answer.frames.first().unwrap()).into_owned();
        assert!(frame.contains("MSA|AA"), "{frame}");
    }
}

//! Many senders at one moment, one patient: conditions and identifiers are decided under the write lock.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use std::sync::{Arc, Barrier};

use harness::{Edge, http, mllp};

const SENDERS: usize = 32;

/// Runs `send` for each sender at one moment and gives what each of them got.
fn all_at_once<T: Send + 'static>(send: impl Fn(usize) -> T + Send + Sync + 'static) -> Vec<T> {
    let (send, start) = (Arc::new(send), Arc::new(Barrier::new(SENDERS)));
    let threads: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (send, start) = (send.clone(), start.clone());
            std::thread::spawn(move || {
                start.wait();
                send(sender)
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

#[test]
fn conditional_creates_of_one_identifier_make_one_patient() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let address = edge.http;
    for round in ["A", "B", "C"] {
        let replies = all_at_once(move |sender| {
            let condition = format!("If-None-Exist: identifier={round}");
            let headers = ["Content-Type: application/fhir+json", condition.as_str()];
            let body = format!(
                r#"{{"resourceType":"Patient","identifier":[{{"value":"{round}"}}],"name":[{{"given":["{sender}"]}}]}}"#
            );
            http::send(address, "POST", "/fhir/Patient", &headers, body)
        });
        let count = |status: u16| replies.iter().filter(|reply| reply.status == status).count();
        assert_eq!((count(201), count(200)), (1, SENDERS - 1), "{replies:?}");
        let first = replies[0].header("location").expect("a location");
        assert!(replies.iter().all(|reply| reply.header("location") == Some(first)), "one patient for all");
        assert!(replies.iter().all(|reply| reply.body == replies[0].body), "and as it was created");
        assert_eq!(edge.total(&format!("/fhir/Patient?identifier={round}")), 1);
    }
}

#[test]
fn conditional_updates_of_one_identifier_make_one_patient() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let address = edge.http;
    let replies = all_at_once(move |sender| {
        let body = format!(
            r#"{{"resourceType":"Patient","identifier":[{{"value":"U"}}],"name":[{{"given":["{sender}"]}}]}}"#
        );
        let headers = ["Content-Type: application/fhir+json"];
        http::send(address, "PUT", "/fhir/Patient?identifier=U", &headers, body)
    });
    let count = |status: u16| replies.iter().filter(|reply| reply.status == status).count();
    assert_eq!((count(201), count(200)), (1, SENDERS - 1), "{replies:?}");
    assert_eq!(edge.total("/fhir/Patient?identifier=U"), 1);
    let mut versions: Vec<&str> = replies.iter().map(|reply| reply.header("etag").unwrap()).collect();
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions.len(), SENDERS, "every update is a version of its own");
}

#[test]
fn messages_of_many_senders_about_one_new_patient_make_one_patient() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let address = edge.mllp;
    for patient in ["P1", "P2", "P3"] {
        let answers = all_at_once(move |sender| {
            let mut connection = mllp::Connection::open(address).unwrap();
            connection.send(mllp::message(&format!("{patient}-{sender}"), patient, "Same")).unwrap()
        });
        for (sender, answer) in answers.iter().enumerate() {
            assert!(answer.contains(&format!("MSA|AA|{patient}-{sender}\r")), "its own answer: {answer}");
        }
        assert_eq!(edge.total(&format!("/fhir/Patient?identifier={patient}")), 1);
    }
    assert_eq!(edge.total("/fhir/Patient"), 3);
}

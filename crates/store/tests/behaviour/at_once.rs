//! Many senders at once about the same few patients: each plan is made while the others commit, so what it rests on changes under it.

use std::collections::{BTreeMap, BTreeSet};

use hilum_fhir::{Action, Change, Target, Timestamp};
use hilum_store::ErrorKind;
use serde_json::Value;

use super::orders::{order, result, step};
use super::resources::{Bench, kind, mrn, numbers, patient};

const SENDERS: u32 = 12;
const MESSAGES: u32 = 25;

/// The numbers of a linear congruential generator (Knuth, MMIX): the same for each run.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

fn of(values: &[&str]) -> Target {
    Target::Patient(Box::new(numbers(values)))
}

/// A message of some kind about one of three patients and one of their orders.
fn message(state: &mut u64) -> Vec<Change> {
    let who = (next(state) % 3).to_string();
    let number = format!("{who}-{}", next(state) % 2);
    let happened = Timestamp::from_micros(i64::try_from(next(state) % 500 * 1_000).unwrap());
    let mut changes = match next(state) % 8 {
        0 => order(&number, &who),
        1 => step(&number, Some(&number), None),
        2 => step(&number, Some(&number), Some(&who)),
        3 => result(&number, &number, &who),
        4 => {
            vec![Change::new(Action::Ensure(of(&[&who, &format!("{who}a")]), patient(&who, "N")))]
        }
        5 => vec![Change::new(Action::Delete(mrn(&who).into()))],
        6 => vec![Change::new(Action::Merge(mrn(&who).into(), patient(&who, "M"), Vec::new()))],
        _ => {
            let replaced = format!("{who}a");
            let survivor = Box::new((of(&[&who]), patient(&who, "S")));
            let prior = Box::new((of(&[&replaced]), patient(&replaced, "P")));
            vec![Change::new(Action::Supersede { survivor, prior })]
        }
    };
    changes.iter_mut().for_each(|change| change.happened = Some(happened));
    changes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_number_names_one_resource_of_one_patient() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let bench = bench.clone();
            tokio::spawn(async move {
                let mut state = u64::from(sender);
                for _ in 0..MESSAGES {
                    if let Err(error) = bench.submit(message(&mut state)).await {
                        // said by the rules of the record; a write that broke off is a bug
                        assert_ne!(error.kind, ErrorKind::Unavailable, "{}", error.message);
                    }
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    for of in ["ServiceRequest", "Procedure", "Observation"] {
        let mut bearers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let found = bench.find(of, "").await;
        assert!(!found.is_empty(), "{of}");
        for resource in found {
            let number = resource["identifier"][0]["value"].as_str().unwrap().to_owned();
            assert!(bearers.entry(number).or_default().insert(id(&resource)), "{of}");
            is_of_its_patient(&bench, &resource).await;
        }
        for (number, of_number) in bearers {
            assert_eq!(of_number.len(), 1, "{of} {number}");
        }
    }
}

fn id(resource: &Value) -> String {
    resource["id"].as_str().unwrap().to_owned()
}

/// The patient of a resource, where it has one, bears the number that its own number begins with, or was deleted.
async fn is_of_its_patient(bench: &Bench, resource: &Value) {
    let Some(reference) = resource["subject"]["reference"].as_str() else { return };
    let who = resource["identifier"][0]["value"].as_str().unwrap().split('-').next().unwrap();
    let patient = reference.split('/').next_back().unwrap();
    let stored = bench.store.read(&bench.site, kind("Patient"), patient).await.unwrap().unwrap();
    if stored.body.is_empty() {
        return;
    }
    let stored: Value = serde_json::from_slice(&stored.body).unwrap();
    let bears =
        |number: &Value| number["value"].as_str().is_some_and(|value| value.trim_end_matches('a') == who);
    assert!(stored["identifier"].as_array().unwrap().iter().all(bears), "{} is of {stored}", id(resource));
}

//! kill -9 at random moments under a mixed load of every door. The senders keep a ledger of what was acknowledged; after each restart all
//! of it is there exactly once, and at the end every image byte for byte.
//!
//! `HILUM_LEDGER_ROUNDS=10` makes more rounds than two; `HILUM_LEDGER_SEED` repeats the moments of a run.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use harness::Edge;
use harness::doors::DOORS;
use harness::load::{Load, images_are_whole, is_there_once};

const SHORTEST_LOAD_MS: u64 = 200;
const LOAD_MS: u64 = 1000;

#[test]
fn what_was_acknowledged_is_there_once_after_kill_nine() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let rounds = number("HILUM_LEDGER_ROUNDS").unwrap_or(2);
    let seed = number("HILUM_LEDGER_SEED").unwrap_or_else(|| RandomState::new().build_hasher().finish());
    println!("HILUM_LEDGER_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Vec::new();
    for round in 0..rounds {
        let edge = Edge::start(dir.path());
        let load = Load::start(&edge, round);
        load.has_begun();
        std::thread::sleep(Duration::from_millis(SHORTEST_LOAD_MS + random(seed, round) % LOAD_MS));
        edge.kill();
        let (acknowledged, unanswered) = load.ended();
        for door in DOORS {
            let some = acknowledged.iter().any(|(of, _)| of.name == door.name);
            assert!(some, "{}: nothing was acknowledged in round {round}", door.name);
        }
        let edge = Edge::start(dir.path());
        for (door, item) in &unanswered {
            let again = door.submit(&edge, item);
            assert!(door.accepts(again.as_ref()), "{} {}: sent again: {again:?}", door.name, item.id());
        }
        let all = [acknowledged, unanswered].concat();
        is_there_once(&edge, &all);
        ledger.extend(all);
        println!("round {round}: {} in the ledger", ledger.len());
    }
    let edge = Edge::start(dir.path());
    is_there_once(&edge, &ledger);
    edge.kill();
    images_are_whole(dir.path(), &ledger);
}

/// SplitMix64.
fn random(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add((n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

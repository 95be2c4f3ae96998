//! kill -9 at random moments under a mixed load of every door. The senders keep a ledger of what was acknowledged; after each restart all
//! of it is there exactly once, and at the end every image byte for byte.
//!
//! `HILUM_LEDGER_ROUNDS=10` makes more rounds than two; `HILUM_LEDGER_SEED` repeats the moments of a run.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::thread::JoinHandle;
use std::time::Duration;

use harness::Edge;
use harness::doors::{Addresses, DOORS, Door, Item, Wire};
use tokio::io::AsyncReadExt;

const SHORTEST_LOAD_MS: u64 = 200;
const LOAD_MS: u64 = 1000;

/// What one sender knows when the edge is gone.
struct Sender {
    door: &'static Door,
    acknowledged: Vec<Item>,
    /// Sent, and never answered: a sender sends it again.
    unanswered: Item,
}

#[test]
fn what_was_acknowledged_is_there_once_after_kill_nine() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let rounds = number("HILUM_LEDGER_ROUNDS").unwrap_or(2);
    let seed = number("HILUM_LEDGER_SEED").unwrap_or_else(|| RandomState::new().build_hasher().finish());
    println!("HILUM_LEDGER_SEED={seed}");
    let dir = tempfile::tempdir().unwrap();
    let mut ledger: Vec<(&Door, Item)> = Vec::new();
    for round in 0..rounds {
        let edge = Edge::start(dir.path());
        let senders = load(&edge, round);
        std::thread::sleep(Duration::from_millis(SHORTEST_LOAD_MS + random(seed, round) % LOAD_MS));
        edge.kill();
        let edge = Edge::start(dir.path());
        for sender in senders {
            let Sender { door, acknowledged, unanswered } = sender.join().unwrap();
            assert!(!acknowledged.is_empty(), "{}: nothing was acknowledged in round {round}", door.name);
            let again = door.submit(&edge, &unanswered);
            assert!(door.accepts(again.as_ref()), "{} {}: sent again: {again:?}", door.name, unanswered.id());
            ledger.extend(acknowledged.into_iter().chain([unanswered]).map(|item| (door, item)));
        }
        println!("round {round}: {} in the ledger", ledger.len());
    }
    let edge = Edge::start(dir.path());
    for (door, item) in &ledger {
        assert_eq!((door.found)(&edge, item), 1, "{} {} was acknowledged", door.name, item.id());
    }
    edge.kill();
    images_are_whole(&dir, &ledger);
}

/// One sender for each door, each of which goes on until its edge is gone.
fn load(edge: &Edge, round: u64) -> Vec<JoinHandle<Sender>> {
    let addresses = Addresses::of(edge);
    let send = |(at, door): (usize, &'static Door)| {
        let first = (round * 100 + at as u64 + 1) * 1_000_000;
        std::thread::spawn(move || {
            let mut acknowledged = Vec::new();
            let mut item = Item::new(first);
            while door.accepts(addresses.send(door, &item, &(door.good)(&item)).as_ref()) {
                let next = Item::new(item.number + 1);
                acknowledged.push(std::mem::replace(&mut item, next));
            }
            Sender { door, acknowledged, unanswered: item }
        })
    };
    DOORS.iter().enumerate().map(send).collect()
}

/// The file of every image in the ledger ends with the data set that was sent.
fn images_are_whole(dir: &tempfile::TempDir, ledger: &[(&Door, Item)]) {
    let (runtime, store, site) = harness::store(dir.path());
    let mut images = 0;
    for (door, item) in ledger.iter().filter(|(door, _)| matches!(door.wire, Wire::Dicom)) {
        let sent = (door.good)(item);
        let stored = runtime.block_on(async {
            let row = store.instance(&site, &item.uid()).await.unwrap().expect("a row names the image");
            assert_eq!(row.dataset_sha256, hilum_intake::sha256(&sent));
            let mut blob = store.blob(&site, &row.blob).await.unwrap().expect("the row's blob is there");
            let mut bytes = Vec::new();
            blob.file.read_to_end(&mut bytes).await.unwrap();
            bytes
        });
        assert!(stored.ends_with(&sent), "the image {} as it was sent", item.uid());
        images += 1;
    }
    assert!(images > 0);
}

/// SplitMix64.
fn random(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add((n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

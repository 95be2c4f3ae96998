//! Senders on every door, and their ledger of what was acknowledged.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;

use super::doors::{Addresses, DOORS, Door, Item, Wire};
use super::{Edge, PATIENCE};

/// What was sent through a door.
pub(crate) type Sent = (&'static Door, Item);

/// One sender for each door, each of which goes on until its edge is gone.
pub(crate) struct Load {
    ledger: Arc<Mutex<Vec<Sent>>>,
    senders: Vec<JoinHandle<Sent>>,
}

impl Load {
    /// Starts the senders. What they send differs from round to round.
    pub(crate) fn start(edge: &Edge, round: u64) -> Self {
        let ledger = Arc::new(Mutex::new(Vec::new()));
        let doors = DOORS.iter().zip((round * 100_000_000 + 1_000_000..).step_by(1_000_000));
        let senders =
            doors.map(|(door, first)| sender(Addresses::of(edge), door, first, ledger.clone())).collect();
        Self { ledger, senders }
    }

    /// What has been acknowledged by now.
    pub(crate) fn acknowledged(&self) -> Vec<Sent> {
        self.ledger.lock().unwrap().clone()
    }

    /// Waits until every door has acknowledged something: on a slow machine a pause alone says nothing.
    pub(crate) fn has_begun(&self) {
        let begun = Instant::now();
        let is_heard = |door: &Door| self.acknowledged().iter().any(|(of, _)| of.name == door.name);
        while !DOORS.iter().all(is_heard) {
            assert!(begun.elapsed() < PATIENCE, "not every door acknowledges");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the edge is gone for all senders: what was acknowledged, and what each sent last, which was not answered.
    pub(crate) fn ended(self) -> (Vec<Sent>, Vec<Sent>) {
        let unanswered = self.senders.into_iter().map(|sender| sender.join().unwrap()).collect();
        (std::mem::take(&mut self.ledger.lock().unwrap()), unanswered)
    }
}

fn sender(to: Addresses, door: &'static Door, first: u64, ledger: Arc<Mutex<Vec<Sent>>>) -> JoinHandle<Sent> {
    std::thread::spawn(move || {
        let mut item = Item::new(first);
        while door.accepts(to.send(door, &item, &(door.good)(&item)).as_ref()) {
            let next = Item::new(item.number + 1);
            ledger.lock().unwrap().push((door, std::mem::replace(&mut item, next)));
        }
        (door, item)
    })
}

/// All that was sent is visible once.
pub(crate) fn is_there_once(edge: &Edge, sent: &[Sent]) {
    for (door, item) in sent {
        assert_eq!((door.found)(edge, item), 1, "{} {} was acknowledged", door.name, item.id());
    }
}

/// Every image that was sent is in the data folder of an edge that has ended, byte for byte; every row has its blob.
pub(crate) fn images_are_whole(dir: &Path, sent: &[Sent]) {
    let (runtime, store, site) = super::store(dir);
    let blob = |id| {
        runtime.block_on(async {
            let mut blob = store.blob(&site, &id).await.unwrap().expect("the blob of a row is there");
            let mut bytes = Vec::new();
            blob.reader.read_to_end(&mut bytes).await.unwrap();
            bytes
        })
    };
    let images = sent.iter().filter(|(door, _)| matches!(door.wire, Wire::Dicom));
    for (door, item) in images.clone() {
        let image = (door.good)(item);
        let row =
            runtime.block_on(store.instance(&site, &item.uid())).unwrap().expect("a row names the image");
        assert_eq!(row.dataset_sha256, hilum_intake::sha256(&image));
        assert!(blob(row.blob).ends_with(&image), "the image {} as it was sent", item.uid());
    }
    assert!(images.count() > 0);
    let mut before = None;
    loop {
        let rows = runtime.block_on(store.submissions(&site, before, 500)).unwrap();
        let Some(last) = rows.last() else { break };
        before = Some(last.sequence);
        for id in rows.iter().filter_map(|row| row.blob) {
            assert!(!blob(id).is_empty(), "no row without its blob");
        }
    }
}

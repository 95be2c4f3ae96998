//! What every door promises, tested on every door: durable before answered, once however often it is sent, a reasoned no to garbage, nothing
//! for strangers, "send again" while the disk fails, a limit to what is taken, and an exchange begun is finished when the edge ends.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use std::time::Instant;

use harness::dicom::Association;
use harness::doors::{DOORS, Door, Item, Told, Verdict, Wire, told, told_of};
use harness::{CALLING, Edge, SENDER, http, mllp};

/// Bytes that are too many under [`SMALL`], and few enough otherwise.
const LARGE_BYTES: usize = 200_000;
/// Messages of one connection that come in several writes.
const IN_PIECES: u64 = 20;
const SMALL: &str = "[limits.http]\nbody_bytes_max = 100000\n[limits.mllp]\nframe_bytes_max = 100000\n[limits.dicom]\nobject_bytes_max = 100000\n";

/// The doors, each with an item of its own.
fn doors(first: u64) -> impl Iterator<Item = (&'static Door, Item)> {
    DOORS.iter().zip((first..).step_by(1000).map(Item::new))
}

fn expect_verdict(door: &Door, told: Option<Told>, verdict: Verdict) -> Told {
    let told = told.unwrap_or_else(|| panic!("{}: no answer", door.name));
    assert_eq!((door.verdict)(&told), verdict, "{}: {told:?}", door.name);
    told
}

#[test]
fn what_is_answered_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    for (door, item) in doors(1_000_001) {
        let edge = Edge::start(dir.path());
        let told = door.submit(&edge, &item);
        edge.kill();
        expect_verdict(door, told, Verdict::Accepted);
    }
    let edge = Edge::start(dir.path());
    for (door, item) in doors(1_000_001) {
        assert_eq!((door.found)(&edge, &item), 1, "{}: found after kill -9", door.name);
    }
}

#[test]
fn what_is_sent_twice_is_there_once_and_answered_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    for (door, item) in doors(2_000_001) {
        let first = expect_verdict(door, door.submit(&edge, &item), Verdict::Accepted);
        let second = expect_verdict(door, door.submit(&edge, &item), Verdict::Accepted);
        assert_eq!(first.text, second.text, "{}: the same answer", door.name);
        assert_eq!((door.found)(&edge, &item), 1, "{}: visible once", door.name);
    }
}

#[test]
fn garbage_is_refused_with_reason_and_place_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let mut kept = Vec::new();
    for (door, good) in doors(3_000_001) {
        assert!(!door.bad.is_empty(), "{}: garbage is part of the contract", door.name);
        for (item, bad) in (good.number + 1..).map(Item::new).zip(door.bad) {
            let bytes = (bad.bytes)(&item);
            let told = expect_verdict(door, door.send(&edge, &item, &bytes), Verdict::Rejected);
            let answer = format!("{} {}", told.status, told.text);
            for says in bad.says {
                assert!(answer.contains(says), "{}, {}: {says} is missing in {answer}", door.name, bad.what);
            }
            if bad.kept {
                kept.push((door.name, bad.what, bytes));
            }
        }
        expect_verdict(door, door.submit(&edge, &good), Verdict::Accepted);
    }
    edge.kill();
    let rejected = rejected_originals(&dir);
    for (door, what, bytes) in kept {
        let originals = rejected.iter().filter(|original| original.ends_with(&bytes)).count();
        assert_eq!(originals, 1, "{door}: {what} is kept once");
    }
}

#[test]
fn what_is_rejected_is_kept_within_limits() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let mut refused = 0;
    for (door, item) in doors(9_000_001) {
        for bad in door.bad.iter().filter(|bad| bad.kept) {
            expect_verdict(door, door.send(&edge, &item, &(bad.bytes)(&item)), Verdict::Rejected);
            refused += 1;
        }
        expect_verdict(door, door.submit(&edge, &item), Verdict::Accepted);
    }
    edge.kill();
    let mut edge = Edge::start_with_limit(dir.path(), "STORE__QUARANTINE_BYTES_MAX", 0);
    let counted = format!("hilum_quarantine_removed_total{{site=\"default\"}} {refused}");
    edge.wait("bounded", |edge| {
        http::send(edge.http, "GET", "/metrics", &[], "").body.lines().any(|line| line == counted)
    });
    edge.kill();
    let (runtime, store, site) = harness::store(dir.path());
    let rows = runtime.block_on(store.submissions(&site, None, 1000)).unwrap();
    let rejected: Vec<_> = rows.into_iter().filter(|row| !row.accepted).collect();
    assert_eq!(rejected.len(), refused);
    for row in rejected {
        assert!(row.bytes.is_none() && row.blob.is_none() && !row.issues.is_empty(), "{row:?}");
    }
}

/// The original bytes of rejected submissions that are kept with an issue; of an image its file.
fn rejected_originals(dir: &tempfile::TempDir) -> Vec<Vec<u8>> {
    let (runtime, store, site) = harness::store(dir.path());
    let rows = runtime.block_on(store.submissions(&site, None, 1000)).unwrap();
    let rejected = rows.into_iter().filter(|row| !row.accepted && !row.issues.is_empty());
    rejected
        .map(|row| match (row.bytes, row.blob) {
            (Some(bytes), _) => bytes.to_vec(),
            (None, Some(id)) => runtime.block_on(async {
                use tokio::io::AsyncReadExt;
                let mut bytes = Vec::new();
                let mut blob = store.blob(&site, &id).await.unwrap().expect("the blob of a rejected image");
                blob.reader.read_to_end(&mut bytes).await.unwrap();
                bytes
            }),
            (None, None) => panic!("a rejected submission without its original"),
        })
        .collect()
}

#[test]
fn strangers_get_nothing_in() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start_strict(dir.path());
    let (narrow, wrong) = (edge.key("system/Basic.r"), "X-API-Key: hil_abcdefgh_wrong".to_owned());
    for (door, item) in doors(4_000_001) {
        let bytes = (door.good)(&item);
        match door.wire {
            Wire::Http { method, path, headers, scope } => {
                let send = |key: Option<&String>| {
                    let headers: Vec<String> = headers(&item).into_iter().chain(key.cloned()).collect();
                    let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
                    http::send(edge.keyed, method, &path(&item), &headers, &bytes)
                };
                for (key, status) in [(None, 401), (Some(&wrong), 401), (Some(&narrow), 403)] {
                    let reply = send(key);
                    assert_eq!(reply.status, status, "{}, {key:?}: {reply:?}", door.name);
                    assert_eq!(reply.header("www-authenticate").is_some(), status == 401, "{}", door.name);
                    assert!(!reply.body.is_empty(), "{}: {status} says why", door.name);
                }
                assert_eq!((door.found)(&edge, &item), 0, "{}", door.name);
                expect_verdict(door, told(send(Some(&edge.key(scope)))), Verdict::Accepted);
            }
            Wire::Mllp => {
                let sender = format!("|{SENDER}|");
                let message = String::from_utf8(bytes).unwrap().replace(&sender, "|STRANGER|");
                let told =
                    expect_verdict(door, door.send(&edge, &item, message.as_bytes()), Verdict::Rejected);
                assert!(told.text.contains("MSA|AR|") && told.text.contains("MSH^1^3"), "{told:?}");
                assert_eq!((door.found)(&edge, &item), 0, "{}", door.name);
            }
            Wire::Dicom => {
                let refused = Association::request(edge.dicom, "STRANGER").err();
                // permanent, by the service user, calling AE title not recognized
                assert_eq!(refused, Some(harness::dicom::Refused::Rejected([1, 1, 3])), "{}", door.name);
            }
        }
        if !matches!(door.wire, Wire::Http { .. }) {
            expect_verdict(door, door.submit(&edge, &item), Verdict::Accepted);
        }
        assert_eq!((door.found)(&edge, &item), 1, "{}: who is known gets in", door.name);
    }
}

#[test]
fn while_the_disk_fails_senders_are_told_to_send_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut edge = Edge::start(dir.path());
    edge.break_disk(true);
    for (door, item) in doors(5_000_001) {
        expect_verdict(door, door.submit(&edge, &item), Verdict::Deferred);
        // what would be kept cannot be kept now: it is not refused for good either
        for bad in door.bad.iter().filter(|bad| bad.kept) {
            expect_verdict(door, door.send(&edge, &item, &(bad.bytes)(&item)), Verdict::Deferred);
        }
    }
    assert_eq!(http::send(edge.http, "GET", "/readyz", &[], "").status, 503);
    assert_eq!(edge.total("/fhir/Patient"), 0, "reads go on");
    edge.break_disk(false);
    edge.wait("accepting again", |edge| http::send(edge.http, "GET", "/readyz", &[], "").status == 200);
    for (door, item) in doors(5_000_001) {
        expect_verdict(door, door.submit(&edge, &item), Verdict::Accepted);
        assert_eq!((door.found)(&edge, &item), 1, "{}: sent again, visible once", door.name);
    }
}

#[test]
fn without_room_for_blobs_images_and_large_messages_are_to_be_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start_with_limit(dir.path(), "BLOBS__FREE_BYTES_MIN", i64::MAX);
    for (door, item) in doors(8_000_001) {
        let told = door.submit(&edge, &item);
        let is_blob = matches!(door.wire, Wire::Dicom);
        expect_verdict(door, told, if is_blob { Verdict::Deferred } else { Verdict::Accepted });
    }
    let (door, item) = (DOORS.iter().find(|door| door.name == "MLLP").unwrap(), Item::new(8_900_001));
    let large =
        format!("{}NTE|1||{}\r", mllp::message(&item.id(), &item.id(), &item.name), "x".repeat(50_000));
    expect_verdict(door, door.send(&edge, &item, large.as_bytes()), Verdict::Deferred);
    let metrics = http::send(edge.http, "GET", "/metrics", &[], "").body;
    assert!(metrics.contains("hilum_blobs_refused_total 2"), "{metrics}");
}

#[test]
fn what_is_too_large_is_refused_and_the_door_stays_open() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start_limited(dir.path(), SMALL);
    for (door, item) in doors(6_000_001) {
        let mut bytes = (door.good)(&item);
        bytes.resize(LARGE_BYTES, b' ');
        let told = door.send(&edge, &item, &bytes).unwrap_or_else(|| panic!("{}: no answer", door.name));
        assert_ne!((door.verdict)(&told), Verdict::Accepted, "{}: {told:?}", door.name);
        assert!(told.text.contains("larger than"), "{}: says why: {told:?}", door.name);
        if let Wire::Http { .. } = door.wire {
            assert_eq!(told.status, 413, "{}", door.name);
        }
        assert_eq!((door.found)(&edge, &item), 0, "{}", door.name);
        expect_verdict(door, door.submit(&edge, &item), Verdict::Accepted);
    }
}

/// A peer that waits for the acknowledgement of one write before the next is served at every door. Shown with `--nocapture`: how fast.
#[test]
fn messages_in_several_writes_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    for (door, first) in doors(10_000_001) {
        let items: Vec<Item> = (first.number..first.number + IN_PIECES).map(Item::new).collect();
        let begun = Instant::now();
        for told in in_pieces(door, &edge, &items) {
            expect_verdict(door, told, Verdict::Accepted);
        }
        let rate = f64::from(u32::try_from(items.len()).unwrap()) / begun.elapsed().as_secs_f64();
        println!("{}: {rate:.0} messages a second, each in several writes", door.name);
        for item in items {
            assert_eq!((door.found)(&edge, &item), 1, "{}: found", door.name);
        }
    }
}

/// Sends each item on one connection in several writes.
fn in_pieces(door: &Door, edge: &Edge, items: &[Item]) -> Vec<Option<Told>> {
    let bytes = |item: &Item| (door.good)(item);
    match door.wire {
        Wire::Http { method, path, headers, .. } => {
            let mut connection = http::Connection::open(edge.http).unwrap();
            connection.wait_for_acknowledgements();
            let mut send = |item: &Item| {
                let headers = headers(item);
                let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
                connection.send_in_pieces(method, &path(item), &headers, &bytes(item)).and_then(told)
            };
            items.iter().map(&mut send).collect()
        }
        Wire::Mllp => {
            let mut connection = mllp::Connection::open(edge.mllp).unwrap();
            connection.wait_for_acknowledgements();
            let mut send = |item: &Item| {
                let frame = mllp::framed(bytes(item));
                let (first, rest) = frame.split_at(frame.len() - 2);
                let (start, message) = first.split_at(1);
                [start, message, rest].iter().try_for_each(|piece| connection.write(piece))?;
                Some(Told { status: 0, text: connection.read()? })
            };
            items.iter().map(&mut send).collect()
        }
        Wire::Dicom => {
            let mut association = Association::request(edge.dicom, CALLING).unwrap();
            association.wait_for_acknowledgements();
            items.iter().map(|item| told_of(association.store(&item.uid(), &bytes(item)))).collect()
        }
    }
}

#[test]
fn an_exchange_begun_is_finished_when_the_edge_ends() {
    let dir = tempfile::tempdir().unwrap();
    for (door, item) in doors(7_000_000) {
        let mut edge = Edge::start(dir.path());
        let exchange = Begun::begin(door, &mut edge, &item);
        edge.terminate();
        edge.wait("draining", |edge| edge.log().contains("draining"));
        expect_verdict(door, exchange.finish(), Verdict::Accepted);
        assert!(edge.ended().success(), "{}: ends well", door.name);
        let _ = std::fs::remove_file(dir.path().join("log"));
    }
    let edge = Edge::start(dir.path());
    for (door, item) in doors(7_000_000) {
        assert_eq!((door.found)(&edge, &item), 1, "{}: found after the drain", door.name);
    }
}

/// A submission whose first half is known to be read.
struct Begun {
    rest: Vec<u8>,
    on: On,
}

enum On {
    Http(&'static str, http::Connection),
    Mllp(mllp::Connection),
    Dicom(Association),
}

impl Begun {
    fn begin(door: &'static Door, edge: &mut Edge, item: &Item) -> Self {
        let mut bytes = (door.good)(item);
        match door.wire {
            Wire::Http { method, path, headers, .. } => {
                let rest = bytes.split_off(bytes.len() / 2);
                let headers = headers(item);
                let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
                let mut connection = http::Connection::open(edge.http).unwrap();
                let early =
                    connection.begin(method, &path(item), &headers, bytes.len() + rest.len()).unwrap();
                assert!(early.is_none(), "{}: the body is awaited: {early:?}", door.name);
                connection.write(&bytes).unwrap();
                Self { rest, on: On::Http(method, connection) }
            }
            Wire::Mllp => {
                // one write: when the first message is answered, the half behind it has been read too
                let before = mllp::framed(mllp::message("BEFORE", "BEFORE", "Before"));
                let mut frame = mllp::framed(&bytes);
                let rest = frame.split_off(frame.len() / 2);
                let mut connection = mllp::Connection::open(edge.mllp).unwrap();
                connection.write(&[before, frame].concat()).unwrap();
                assert!(connection.read().unwrap().contains("MSA|AA|BEFORE"));
                Self { rest, on: On::Mllp(connection) }
            }
            Wire::Dicom => {
                let mut association = Association::request(edge.dicom, CALLING).unwrap();
                association.begin(&item.uid()).unwrap();
                let rest = bytes.split_off(bytes.len() - 1000);
                association.part(&bytes).unwrap();
                let arriving = edge.dir.join("data/sites/default/blobs/tmp");
                edge.wait("arriving", |_| std::fs::read_dir(&arriving).unwrap().next().is_some());
                Self { rest, on: On::Dicom(association) }
            }
        }
    }

    fn finish(self) -> Option<Told> {
        match self.on {
            On::Http(method, mut connection) => told(connection.finish(method, &self.rest)?),
            On::Mllp(mut connection) => {
                connection.write(&self.rest)?;
                Some(Told { status: 0, text: connection.read()? })
            }
            On::Dicom(mut association) => told_of(association.finish(&self.rest)),
        }
    }
}

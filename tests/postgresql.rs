//! Edges on a PostgreSQL server: several on one database, and a server that goes away and comes back.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};

use harness::cluster::Cluster;
use harness::doors::{Addresses, DOORS, Item, Verdict};
use harness::load::{Load, is_there_once};
use harness::{CALLING, Edge, PATIENCE, dicom, http, mllp};

/// An edge with a folder of its own on a database.
fn edge(dir: &Path, name: &str, url: &str) -> Edge {
    let dir = dir.join(name);
    std::fs::create_dir_all(&dir).unwrap();
    let variables = [("HILUM__STORE__URL", url), ("HILUM__SITE__0__OUTBOUND_ALLOW", r#"["127.0.0.0/8"]"#)];
    Edge::start_with_environment(&dir, "", &variables)
}

fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "not {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn is_ready(edge: &Edge) -> bool {
    http::send(edge.http, "GET", "/readyz", &[], "").status == 200
}

#[test]
fn one_of_two_edges_is_killed_and_nothing_is_lost_or_doubled() {
    let dir = tempfile::tempdir().unwrap();
    let url = Cluster::shared().url(dir.path());
    let other = edge(dir.path(), "other", &url);
    let beside = Load::start(&other, 9);
    let mut ledger = Vec::new();
    for round in 0..3 {
        let killed = edge(dir.path(), "killed", &url);
        let load = Load::start(&killed, round);
        load.has_begun();
        std::thread::sleep(Duration::from_millis(400 + 300 * round));
        killed.kill();
        let (acknowledged, unanswered) = load.ended();
        assert!(!acknowledged.is_empty());
        for (door, item) in &unanswered {
            let again = door.submit(&other, item);
            assert!(door.accepts(again.as_ref()), "{} {}: sent again: {again:?}", door.name, item.id());
        }
        ledger.extend([acknowledged, unanswered].concat());
    }
    other.kill();
    let (acknowledged, unanswered) = beside.ended();
    for door in DOORS {
        assert!(
            acknowledged.iter().any(|(of, _)| of.name == door.name),
            "{}: nothing acknowledged",
            door.name
        );
    }
    let left = edge(dir.path(), "killed", &url);
    for (door, item) in &unanswered {
        assert!(door.accepts(door.submit(&left, item).as_ref()), "{} {}", door.name, item.id());
    }
    ledger.extend([acknowledged, unanswered].concat());
    println!("{} in the ledger", ledger.len());
    is_there_once(&left, &ledger);
    is_there_once(&edge(dir.path(), "other", &url), &ledger[ledger.len() - 50..]);
}

#[test]
fn the_same_sent_to_two_edges_at_one_moment_is_there_once() {
    let dir = tempfile::tempdir().unwrap();
    let url = Cluster::shared().url(dir.path());
    let edges = ["one", "two"].map(|name| edge(dir.path(), name, &url));
    for (door, first) in DOORS.iter().zip((7_000_000..).step_by(1000)) {
        for number in first..first + 8 {
            let start = Arc::new(Barrier::new(edges.len()));
            let senders = edges.each_ref().map(|edge| {
                let (to, start) = (Addresses::of(edge), start.clone());
                std::thread::spawn(move || {
                    let item = Item::new(number);
                    start.wait();
                    to.send(door, &item, &(door.good)(&item))
                })
            });
            for told in senders.map(|sender| sender.join().unwrap()) {
                assert!(door.accepts(told.as_ref()), "{}: {told:?}", door.name);
            }
            for edge in &edges {
                assert_eq!((door.found)(edge, &Item::new(number)), 1, "{}", door.name);
            }
        }
    }
}

#[test]
fn thirty_two_senders_on_two_edges_make_one_patient() {
    let dir = tempfile::tempdir().unwrap();
    let url = Cluster::shared().url(dir.path());
    let edges = ["one", "two"].map(|name| edge(dir.path(), name, &url));
    for patient in ["message", "condition"] {
        let start = Arc::new(Barrier::new(32));
        let senders: Vec<_> = (0..32)
            .map(|n| {
                let (to, start) = (Addresses::of(&edges[n % 2]), start.clone());
                std::thread::spawn(move || {
                    start.wait();
                    if patient == "message" {
                        let mut connection = mllp::Connection::open(to.mllp).unwrap();
                        let message = mllp::message(&format!("{patient}-{n}"), patient, "Same");
                        let answer = connection.send(message).unwrap();
                        assert!(answer.contains("MSA|AA|"), "{answer}");
                    } else {
                        let condition = format!("If-None-Exist: identifier={patient}");
                        let body = format!(
                            r#"{{"resourceType":"Patient","identifier":[{{"value":"{patient}"}}],"name":[{{"family":"Same"}}]}}"#
                        );
                        let headers = ["Content-Type: application/fhir+json", condition.as_str()];
                        let reply = http::send(to.http, "POST", "/fhir/Patient", &headers, body);
                        assert!([200, 201].contains(&reply.status), "{reply:?}");
                    }
                })
            })
            .collect();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        for edge in &edges {
            assert_eq!(edge.total(&format!("/fhir/Patient?identifier={patient}")), 1);
        }
    }
}

#[test]
fn a_study_that_comes_through_two_edges_is_one() {
    const STUDY: &str = "2.25.4242";
    const IMAGES: usize = 40;
    let dir = tempfile::tempdir().unwrap();
    let url = Cluster::shared().url(dir.path());
    let edges = ["one", "two"].map(|name| edge(dir.path(), name, &url));
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let to = edges[sender % 2].dicom;
            std::thread::spawn(move || {
                let mut association = dicom::Association::request(to, CALLING).unwrap_or_else(|_| panic!());
                for n in (sender..IMAGES).step_by(4) {
                    let (uid, series) = (format!("{STUDY}.1.{n}"), format!("{STUDY}.2.{}", n % 3));
                    let image = dicom::image_of(&uid, STUDY, &series, ("S1", "Two^Ways"), 2000);
                    let stored = association.store(&uid, &image).unwrap_or_else(|_| panic!("{uid}"));
                    assert_eq!(stored.status, 0);
                }
                association.release();
            })
        })
        .collect();
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    for edge in &edges {
        let found = edge.get(&format!("/fhir/ImagingStudy?identifier=urn:oid:{STUDY}"));
        assert_eq!(found["total"], 1, "{found}");
        let study = &found["entry"][0]["resource"];
        assert_eq!((&study["numberOfInstances"], &study["numberOfSeries"]), (&IMAGES.into(), &3.into()));
        assert_eq!(edge.total("/fhir/Patient?identifier=S1"), 1);
    }
}

/// A receiver of notifications: how often each resource came.
fn receiver() -> (String, Arc<Mutex<BTreeMap<String, usize>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    let seen = Arc::<Mutex<BTreeMap<String, usize>>>::default();
    let log = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            let (mut length, mut line) = (0, String::new());
            while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            if reader.read_exact(&mut body).is_ok() && length > 0 {
                let resource: harness::Value = serde_json::from_slice(&body).unwrap();
                *log.lock().unwrap().entry(resource["id"].as_str().unwrap().to_owned()).or_default() += 1;
            }
            let _ = reader
                .get_mut()
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    (address, seen)
}

#[test]
fn one_edge_delivers_to_a_destination_and_the_other_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let url = Cluster::shared().url(dir.path());
    let (endpoint, seen) = receiver();
    let json = ["Content-Type: application/fhir+json"];
    let observe = |edge: &Edge, id: &str| {
        let body =
            format!(r#"{{"resourceType":"Observation","id":"{id}","status":"final","code":{{"text":"x"}}}}"#);
        let reply = http::send(edge.http, "PUT", &format!("/fhir/Observation/{id}"), &json, body);
        assert_eq!(reply.status, 201, "{reply:?}");
    };
    let all_came = |count: usize| {
        wait("all delivered", || seen.lock().unwrap().len() >= count);
        // a second delivery of the same would come at once too
        std::thread::sleep(Duration::from_millis(1500));
        let seen = seen.lock().unwrap();
        assert!(seen.len() == count && seen.values().all(|times| *times == 1), "{seen:?}");
    };
    let (one, two) = (edge(dir.path(), "one", &url), edge(dir.path(), "two", &url));
    let subscription = format!(
        r#"{{"resourceType":"Subscription","id":"s","status":"requested","reason":"r","criteria":"Observation?status=final",
            "channel":{{"type":"rest-hook","endpoint":"{endpoint}","payload":"application/fhir+json"}}}}"#
    );
    assert_eq!(http::send(one.http, "PUT", "/fhir/Subscription/s", &json, subscription).status, 201);
    wait("active", || two.get("/fhir/Subscription/s")["status"] == "active");
    for n in 0..20 {
        observe(if n % 2 == 0 { &one } else { &two }, &format!("a{n}"));
    }
    all_came(20);
    one.kill();
    (0..10).for_each(|n| observe(&two, &format!("b{n}")));
    all_came(30);
    let one = edge(dir.path(), "one", &url);
    two.kill();
    (0..10).for_each(|n| observe(&one, &format!("c{n}")));
    all_came(40);
}

#[test]
fn while_the_server_restarts_senders_wait_and_nothing_is_lost() {
    let Some(cluster) = Cluster::start("") else { return };
    let dir = tempfile::tempdir().unwrap();
    let edge = edge(dir.path(), "edge", &cluster.named("restarts"));
    let (stop, acknowledged) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let senders: Vec<_> = (0..4)
        .map(|sender| {
            let (to, stop, acknowledged) = (edge.mllp, stop.clone(), acknowledged.clone());
            std::thread::spawn(move || {
                let (mut sent, mut again) = (Vec::new(), 0);
                let mut connection = mllp::Connection::open(to).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let id = format!("R{sender}-{}", sent.len());
                    loop {
                        let answer =
                            connection.send(mllp::message(&id, &id, "Restarted")).expect("an answer");
                        if answer.contains("MSA|AA|") {
                            break;
                        }
                        assert!(answer.contains("MSA|AR|"), "{answer}");
                        again += 1;
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                    sent.push(id);
                }
                (sent, again)
            })
        })
        .collect();
    for round in 0..4 {
        std::thread::sleep(Duration::from_millis(500 + 150 * round));
        cluster.restart();
        let (back, before) = (Instant::now(), acknowledged.load(Ordering::Relaxed));
        wait("healed", || acknowledged.load(Ordering::Relaxed) > before);
        println!("healed after {:?}", back.elapsed());
    }
    wait("ready", || is_ready(&edge));
    stop.store(true, Ordering::Relaxed);
    let (mut all, mut refused) = (0, 0);
    for (sent, again) in senders.into_iter().map(|sender| sender.join().unwrap()) {
        for id in &sent {
            assert_eq!(edge.total(&format!("/fhir/Patient?identifier={id}")), 1, "{id}");
        }
        all += sent.len();
        refused += again;
    }
    println!("{all} acknowledged, {refused} told to send again");
    assert!(refused > 0, "nobody was sending while it restarted");
}

#[test]
fn without_the_server_senders_are_told_to_send_again() {
    let Some(cluster) = Cluster::start("") else { return };
    let dir = tempfile::tempdir().unwrap();
    let edge = edge(dir.path(), "edge", &cluster.named("away"));
    assert!(is_ready(&edge));
    cluster.stop();
    wait("not ready", || !is_ready(&edge));
    let items = || DOORS.iter().zip((8_000_000..).step_by(1000));
    for (door, number) in items() {
        let told = door.submit(&edge, &Item::new(number));
        let told = told.unwrap_or_else(|| panic!("{}: no answer", door.name));
        assert_eq!((door.verdict)(&told), Verdict::Deferred, "{}: {told:?}", door.name);
    }
    assert_eq!(http::send(edge.http, "GET", "/livez", &[], "").status, 200);
    cluster.start_again();
    wait("ready", || is_ready(&edge));
    for (door, number) in items() {
        let told = door.submit(&edge, &Item::new(number + 1));
        assert!(door.accepts(told.as_ref()), "{}: {told:?}", door.name);
        assert_eq!((door.found)(&edge, &Item::new(number + 1)), 1, "{}", door.name);
        assert_eq!((door.found)(&edge, &Item::new(number)), 0, "{}", door.name);
    }
}

#[test]
fn a_server_that_stands_still_is_noticed_and_nothing_is_there_twice() {
    let Some(cluster) = Cluster::start("") else { return };
    let dir = tempfile::tempdir().unwrap();
    let edge = edge(dir.path(), "edge", &cluster.named("still"));
    assert!(DOORS[0].accepts(DOORS[0].submit(&edge, &Item::new(1)).as_ref()));
    cluster.signal("STOP");
    let items = || DOORS.iter().zip((6_000_000..).step_by(1000));
    // these were on their way when it stopped: whatever they are told, it comes late
    let waiting: Vec<_> = items()
        .map(|(door, number)| {
            let (to, item) = (Addresses::of(&edge), Item::new(number));
            std::thread::spawn(move || to.send(door, &item, &(door.good)(&item)))
        })
        .collect();
    wait("not ready", || !is_ready(&edge));
    for (door, number) in items() {
        let told = door.submit(&edge, &Item::new(number + 1));
        let told = told.unwrap_or_else(|| panic!("{}: no answer", door.name));
        assert_eq!((door.verdict)(&told), Verdict::Deferred, "{}: {told:?}", door.name);
    }
    cluster.signal("CONT");
    wait("ready", || is_ready(&edge));
    for sender in waiting {
        sender.join().unwrap();
    }
    for (door, number) in items() {
        for item in [Item::new(number), Item::new(number + 1)] {
            let told = door.submit(&edge, &item);
            assert!(door.accepts(told.as_ref()), "{}: {told:?}", door.name);
            assert_eq!((door.found)(&edge, &item), 1, "{} {}", door.name, item.id());
        }
    }
}

#[test]
fn a_server_that_is_not_reached_stops_the_start_in_words() {
    let dir = tempfile::tempdir().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_hilum"))
        .arg("serve")
        .current_dir(dir.path())
        .env("HILUM__STORE__URL", format!("postgresql://edge:s3cret@{closed}/hilum"))
        .env("RUST_LOG", "trace")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains(&format!("postgresql://edge@{closed}/hilum")) && said.contains("refused"),
        "{said}"
    );
    assert!(!said.contains("s3cret"), "{said}");
}

#[test]
fn the_server_is_known_by_its_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let certificates = |name: &str| -> PathBuf {
        let out = dir.path().join(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_hilum"));
        assert!(command.args(["dev-certs", "--out"]).arg(&out).output().unwrap().status.success());
        out
    };
    let (right, wrong) = (certificates("right"), certificates("wrong"));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let Some(cluster) = Cluster::start(&format!("-c listen_addresses=localhost -c port={port}")) else {
        return;
    };
    let _ = cluster.named("secured");
    let url = |mode: &str| format!("postgresql://edge@localhost:{port}/secured?sslmode={mode}");
    let check = |mode: &str, ca: &Path| {
        let output = Command::new(env!("CARGO_BIN_EXE_hilum"))
            .args(["key", "list"])
            .current_dir(dir.path())
            .env("HILUM__STORE__URL", url(mode))
            .env("HILUM__STORE__CA", ca.join("ca.pem"))
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = check("require", &right);
    assert!(code == Some(2) && said.contains("TLS"), "a server without tls: {said}");
    cluster.use_certificate(&right.join("edge.pem"), &right.join("edge.key"));
    for mode in ["require", "verify-full"] {
        let (code, said) = check(mode, &right);
        assert_eq!(code, Some(0), "{mode}: {said}");
        let (code, said) = check(mode, &wrong);
        assert!(code == Some(2) && said.contains("certificate"), "{mode}: another authority: {said}");
    }
}

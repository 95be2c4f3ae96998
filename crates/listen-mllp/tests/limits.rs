//! What a sender hears when it goes beyond a limit of the MLLP door. HL7 v2.5.1 section 2.9, table 0357.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hilum_intake::Intake;
use hilum_intake::normalise::Rules;
use hilum_intake::store::{Config, Store};
use hilum_listen::{Limits, Listener, Settings, limits};
use hilum_listen_mllp::Mllp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

const UNFINISHED: &[u8] = b"\x0BMSH|^~\\&|RIS|SITE|||2024||ADT^A08|C7|P|2.5\rPID|1|";

/// An open door with these limits; its folder lives as long as the first value.
async fn door(mllp: limits::Mllp) -> (tempfile::TempDir, SocketAddr, Store) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { free_bytes_min: 0, blobs_free_bytes_min: 0, ..Config::new(dir.path().to_owned()) };
    let store = Store::open(config).await.unwrap();
    let site = serde_json::json!({ "id": "default", "clients": [{ "protocols": ["mllp"] }] });
    store.control().put_site(serde_json::from_value(site).unwrap()).unwrap();
    let intake = Intake::new(store.clone(), Rules::compile(&[]).unwrap());
    let settings = Settings {
        name: "mllp-test".into(),
        connections_max: 10,
        per_peer_max: 10,
        tls_handshake_timeout: Duration::from_secs(1),
        drain_timeout: Duration::from_secs(1),
        tls: None,
    };
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), settings).unwrap();
    let address = listener.address();
    let door = Arc::new(Mllp::new(intake, &Limits { mllp, ..Limits::default() }, None));
    tokio::spawn(listener.serve(door, CancellationToken::new()));
    (dir, address, store)
}

/// All that comes back until the door closes the connection.
async fn heard(address: SocketAddr, sent: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(sent).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await;
    read.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_frame_that_does_not_end_is_answered_send_again_and_closed() {
    let (_dir, address, store) =
        door(limits::Mllp { frame_timeout_ms: 100, ..limits::Mllp::default() }).await;
    let answer = heard(address, UNFINISHED).await;
    assert!(answer.contains("MSA|AR|C7") && answer.contains("|207^"), "{answer}");
    assert_eq!(heard(address, b"\x0BMSH|^~").await, "", "without a control id there is no answer");
    let site = store.control().site("default").unwrap().unwrap();
    assert_eq!(store.submissions(&site, None, 10).await.unwrap().len(), 0, "the sender still has it");
}

#[tokio::test]
async fn what_all_unfinished_frames_of_a_listener_hold_is_bounded() {
    let (_dir, address, _store) =
        door(limits::Mllp { unfinished_bytes_max: 3 * UNFINISHED.len() / 2, ..limits::Mllp::default() })
            .await;
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(UNFINISHED).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let answer = heard(address, UNFINISHED).await;
    assert!(answer.contains("MSA|AR|C7"), "the second is one too many: {answer}");
    first.write_all(b"||77\r\x1C\r").await.unwrap();
    let mut answer = vec![0; 4096];
    let read = first.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(
        answer.contains("MSA|AA|C7"),
        "the first goes on, and what the second held was given back: {answer}"
    );
    assert!(heard_while_open(address, UNFINISHED).await.is_empty(), "there is room again");
}

/// What comes back within a moment, while the connection stays open.
async fn heard_while_open(address: SocketAddr, sent: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(sent).await.unwrap();
    let mut answer = vec![0; 4096];
    match tokio::time::timeout(Duration::from_millis(500), stream.read(&mut answer)).await {
        Ok(read) => answer[..read.unwrap()].to_vec(),
        Err(_) => Vec::new(),
    }
}

/// So many answers, while the connection stays open.
async fn answers(address: SocketAddr, sent: &[u8], frames: usize) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(sent).await.unwrap();
    let mut answers = Vec::new();
    let reading = async {
        while answers.iter().filter(|byte| **byte == 0x1C).count() < frames || !answers.ends_with(b"\r") {
            assert!(stream.read_buf(&mut answers).await.unwrap() > 0, "it was closed");
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reading).await.unwrap();
    String::from_utf8(answers).unwrap()
}

#[tokio::test]
async fn a_message_too_large_is_refused_by_name_and_the_connection_kept() {
    let (_dir, address, _store) =
        door(limits::Mllp { frame_bytes_max: 200, ..limits::Mllp::default() }).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let message = [UNFINISHED, b"x".repeat(1000).as_slice(), b"\x1C\r"].concat();
    for _ in 0..2 {
        stream.write_all(&message).await.unwrap();
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        assert!(answer.contains("MSA|AE|C7"), "{answer}");
        assert!(
            answer.contains("ERR||MSH^1|207^Application internal error^HL70357|E|frame-too-large|"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn frames_beyond_what_may_be_unanswered_wait_and_are_all_answered_in_order() {
    let (_dir, address, _store) =
        door(limits::Mllp { unanswered_bytes_max: 100, ..limits::Mllp::default() }).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let text = String::from_utf8(UNFINISHED.to_vec()).unwrap();
    let all: String = (0..20).map(|n| text.replace("|C7|", &format!("|N{n}|")) + "||77\r\x1C\r").collect();
    stream.write_all(all.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    let heard: Vec<&str> = answers.split('\r').filter_map(|line| line.strip_prefix("MSA|AA|")).collect();
    assert_eq!(heard, (0..20).map(|n| format!("N{n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn each_message_of_a_batch_has_its_own_answer_within_one_frame() {
    let (_dir, address, _store) = door(limits::Mllp::default()).await;
    let message = |id: &str, patient: &str| {
        format!("MSH|^~\\&|RIS|SITE|||2024||ADT^A08|{id}|P|2.5\rPID|1||{patient}\r")
    };
    let batch = format!(
        "\x0BBHS|^~\\&|RIS|SITE|||2024||||B7\r{}{}BTS|2\r\x1C\r",
        message("N1", "77^^^H"),
        message("N2", "")
    );
    let answer = answers(address, batch.as_bytes(), 1).await;
    assert!(answer.starts_with("\x0BBHS|") && answer.ends_with("BTS|2\r\x1C\r"), "{answer}");
    assert!(
        answer.contains("|B7\rMSH|") && answer.contains("MSA|AA|N1") && answer.contains("MSA|AE|N2"),
        "{answer}"
    );
    let two = format!("\x0B{}{}\x1C\r", message("N3", "77^^^H"), message("N4", "77^^^H"));
    let answer = answers(address, two.as_bytes(), 2).await;
    assert!(
        answer.matches('\x1C').count() == 2 && answer.contains("MSA|AA|N3") && answer.contains("MSA|AA|N4"),
        "{answer}"
    );
}

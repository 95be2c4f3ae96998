//! The door against peers that speak in raw bytes: each is answered as PS3.8 and PS3.7 say, or closed, and the next association works.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bench;

use bench::*;
use hilum_listen::Limits;
use hilum_wire::dimse::{Answer, Command};

#[tokio::test]
async fn a_request_is_accepted_rejected_or_aborted_with_the_right_reason() {
    let bench = Bench::open(Limits::default(), 0).await;
    let good = |called| request(called, &[(1, CT)], &[]);
    let changed = |at: usize, byte: u8| {
        let mut bytes = good("EDGE");
        bytes[at] = byte;
        bytes
    };
    let context_name_at = 6 + 68 + 4;
    // a title ends at a NUL, whatever stands behind it
    for title in ["EDGE\0\0\0\0", "EDGE\0\0   x", "  EDGE \0", "EDGE"] {
        let mut peer = bench.connect().await;
        assert_eq!(peer.ask(&good(title)).await[0], 2, "{title:?}");
    }
    let cases: [(&str, Vec<u8>, &[u8]); 9] = [
        ("unknown called title", good("NOBODY"), &[3, 0, 0, 0, 0, 4, 0, 1, 1, 7]),
        ("a title longer than the called one", good("EDGE\u{1}"), &[3, 0, 0, 0, 0, 4, 0, 1, 1, 7]),
        ("a title is case-sensitive", good("edge"), &[3, 0, 0, 0, 0, 4, 0, 1, 1, 7]),
        ("application context", changed(context_name_at, b'9'), &[3, 0, 0, 0, 0, 4, 0, 1, 1, 2]),
        ("protocol version", changed(7, 2), &[3, 0, 0, 0, 0, 4, 0, 1, 2, 2]),
        ("even context id", request("EDGE", &[(2, CT)], &[]), &[7, 0, 0, 0, 0, 4, 0, 0, 2, 2]),
        (
            "repeated context id",
            request("EDGE", &[(1, WORKLIST), (1, CT)], &[]),
            &[7, 0, 0, 0, 0, 4, 0, 0, 2, 2],
        ),
        ("a request of garbage", pdu(1, &[0xFF; 200]), &[7, 0, 0, 0, 0, 4, 0, 0, 2, 6]),
        ("data before the request", pdata(&[value(1, 2, b"x")]), &[7, 0, 0, 0, 0, 4, 0, 0, 2, 2]),
    ];
    for (name, bytes, answer) in cases {
        let mut peer = bench.connect().await;
        assert_eq!(peer.ask(&bytes).await, answer, "{name}");
    }
    // whoever does not speak DICOM is closed without a word
    for bytes in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02\0", &[0xFF; 600], &[1, 0, 0xFF, 0xFF, 0xFF, 0xF0]]
    {
        assert_eq!(bench.connect().await.ask(bytes).await, b"", "{bytes:?}");
    }
    bench.still_serves().await;
}

#[tokio::test]
async fn contexts_are_judged_one_by_one() {
    let bench = Bench::open(Limits::default(), 0).await;
    let private = "1.2.826.0.1.3680043.8.498.1";
    let mut peer = bench.connect().await;
    let contexts = [(1, WORKLIST), (3, CT), (5, private), (7, VERIFICATION), (9, "1.2.840.10008.3.1.2.3.3")];
    let answer = peer.ask(&request("EDGE", &contexts, &[])).await;
    let result = |id: u8| {
        let at = answer.windows(6).position(|w| w[0] == 0x21 && w[4] == id).unwrap();
        answer[at + 6]
    };
    assert_eq!([1, 3, 5, 7, 9].map(result), [3, 0, 0, 0, 3], "worklist and mpps are refused");
    let classes = ["1.2.840.10008.1.20.1", "1.2.840.10008.5.1.1.9", "1.2.840.10008.5.1.4.33", "1.2.no.uid"];
    let contexts: Vec<(u8, &str)> = (1..).step_by(2).zip(classes).collect();
    let answer = bench.connect().await.ask(&request("EDGE", &contexts, &[])).await;
    for (id, class) in contexts {
        let at = answer.windows(6).position(|w| w[0] == 0x21 && w[4] == id).unwrap();
        assert_eq!(answer[at + 6], 3, "{class}");
    }
    // speaking on a refused context ends the association
    let said = pdata(&[value(1, 3, &Command::store(1, WORKLIST, "1.2.3"))]);
    assert_eq!(peer.ask(&said).await, [7, 0, 0, 0, 0, 4, 0, 0, 2, 6]);
    // all refused is still an association
    let mut peer = bench.connect().await;
    assert_eq!(peer.ask(&request("EDGE", &[(1, WORKLIST)], &[])).await[0], 2);
    assert_eq!(peer.ask(&pdu(5, &[0; 4])).await, pdu(6, &[0; 4]), "release");
    bench.still_serves().await;
}

#[tokio::test]
async fn what_does_not_belong_in_mid_stream_aborts_and_stores_nothing() {
    let bench = Bench::open(Limits::default(), 0).await;
    let command = || value(1, 3, &Command::store(1, CT, "1.2.3.4.5"));
    let some_data = || value(1, 0, &image("1.2.3.4.5\0")[..50]);
    let mut longer_than_its_pdu = value(1, 2, b"abc");
    longer_than_its_pdu[3] = 200;
    let cases: [(&str, Vec<u8>, u8); 13] = [
        ("second request", request("EDGE", &[(1, CT)], &[]), 2),
        ("an acceptance", pdu(2, &[0; 68]), 2),
        ("a release answer", pdu(6, &[0; 4]), 2),
        ("unknown pdu type", pdu(9, &[0; 4]), 1),
        ("4 GB announced", vec![4, 0, 0xFF, 0xFF, 0xFF, 0xF0], 6),
        ("one byte more than announced", [&[4, 0][..], &131_073_u32.to_be_bytes()].concat(), 6),
        ("a release of five bytes", pdu(5, &[0; 5]), 6),
        ("a value longer than its pdu", pdata(&[longer_than_its_pdu]), 6),
        ("a value without context", pdu(4, &[0, 0, 0, 1, 1]), 6),
        ("a context never proposed", pdata(&[value(11, 3, &Command::echo(1))]), 6),
        ("garbage as command", pdata(&[value(1, 3, &[0xFF; 40])]), 6),
        ("data without command", pdata(&[value(1, 2, b"ab")]), 2),
        ("data on another context", pdata(&[value(3, 2, b"ab")]), 2),
    ];
    let before = resident_kib();
    for (name, bytes, reason) in cases {
        for inside in [false, true] {
            let mut peer = bench.associate().await;
            if inside {
                peer.say(&pdata(&[command(), some_data()])).await;
                if name == "data without command" {
                    continue;
                }
            }
            let wanted =
                [7, 0, 0, 0, 0, 4, 0, 0, 2, if inside && name == "garbage as command" { 2 } else { reason }];
            assert_eq!(peer.ask(&bytes).await, wanted, "{name}, inside a data set: {inside}");
        }
    }
    assert!(resident_kib() < before + 50_000, "memory follows what arrives, not what is announced");
    // a command in many small pieces ends at its limit
    let mut peer = bench.associate().await;
    for _ in 0..3 {
        peer.say(&pdata(&[value(1, 1, &[0; 30_000])])).await;
    }
    assert_eq!(peer.hear().await, [7, 0, 0, 0, 0, 4, 0, 0, 2, 6]);
    // an abort and a cut line in a data set
    for end in [pdu(7, &[0; 4]), Vec::new()] {
        let mut peer = bench.associate().await;
        peer.say(&pdata(&[command(), some_data()])).await;
        peer.say(&end).await;
        drop(peer);
    }
    bench.still_serves().await;
    assert!(bench.newest().await.is_none(), "nothing was stored");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

#[tokio::test]
async fn a_data_set_that_cannot_be_kept_is_answered_and_quarantined() {
    let mut limits = Limits::default();
    limits.dicom.object_bytes_max = 200_000;
    limits.dicom.header_bytes_max = 50_000;
    let bench = Bench::open(limits, 0).await;
    let sop = "1.2.3.4.5\0";
    let level = b"\x08\0\x10\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff";
    let nested = [&image(sop)[..52], &level.repeat(3000)].concat();
    let without = |tag: &[u8]| {
        let whole = image(sop);
        let at = whole.windows(4).position(|w| w == tag).unwrap();
        let length = usize::from(u16::from_le_bytes([whole[at + 6], whole[at + 7]]));
        [&whole[..at], &whole[at + 8 + length..]].concat()
    };
    let many = element(0x0008, 0x1030, "LO", b"ab").repeat(6_000);
    // the last value is the pixel data, 100 bytes
    let short = |of: Vec<u8>, by: usize| of[..of.len() - by].to_vec();
    let fragments = b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\0\0\0\0\xfe\xff\0\xe0\x02\0\0\0ab";
    let unterminated = [short(image(sop), 112), fragments.to_vec()].concat();
    let end = |of: &[u8]| format!("at byte {}", of.len());
    let claim = [image(sop)[..52].to_vec(), b"\x09\0\x10\0UN\0\0\xf0\xff\xff\xff".to_vec()].concat();
    let (cut_pixels, cut_uid) = (short(image(sop), 1), short(image(sop), 113));
    let lying = [image(sop), element(0x7FE0, 0x0011, "OB", &[0; 10])[..20].to_vec()].concat();
    let ends = [&unterminated, &cut_pixels, &cut_uid, &lying].map(|data_set| end(data_set));
    let cases: [(&str, Vec<u8>, u16, &str); 13] = [
        ("fragments without their end", unterminated, 0xC000, &ends[0]),
        ("pixel data cut short", cut_pixels, 0xC000, &ends[1]),
        ("a uid cut short", cut_uid, 0xC000, &ends[2]),
        ("an element behind pixel data cut short", lying, 0xC000, &ends[3]),
        ("3,000 nested sequences", nested, 0xC000, "nested too deep"),
        ("an element of 4 GB", claim, 0xC000, "ends inside"),
        ("too large a header", [image(sop)[..52].to_vec(), many].concat(), 0xC000, "too large"),
        ("no instance uid", without(&[8, 0, 0x18, 0]), 0xA900, "differs from the command"),
        ("no class uid", without(&[8, 0, 0x16, 0]), 0xA900, "differs from the command"),
        ("another instance", image("1.2.3.4.6\0"), 0xA900, "differs from the command"),
        ("no study uid", without(&[0x20, 0, 0x0D, 0]), 0xC000, "(0020,000D)"),
        ("no series uid", without(&[0x20, 0, 0x0E, 0]), 0xC000, "(0020,000E)"),
        ("nothing", Vec::new(), 0xC000, "empty"),
    ];
    let mut peer = bench.associate().await;
    for (name, data_set, status, says) in cases {
        let answer = peer.store(CT, "1.2.3.4.5", &data_set).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.comment);
        assert!(answer.comment.contains(says), "{name}: {}", answer.comment);
        let row = bench.newest().await.unwrap();
        assert!(!row.accepted && !row.issues.is_empty(), "{name}");
        assert!(bench.data_set(&row.blob.unwrap()).await == data_set, "{name}: not kept as it came");
    }
    let before = bench.newest().await.unwrap().sequence;
    // larger than is taken: read to its end, not kept
    let large = [image(sop), vec![0; 300_000]].concat();
    let answer = peer.store(CT, "1.2.3.4.5", &large).await;
    assert_eq!((answer.status, answer.comment.contains("larger")), (0xA700, true));
    // an instance uid that is no uid is no name for a file either
    for uid in
        ["", "../../etc/passwd", "1.2.3.4.5.6.7.8.9.0.1.2.3.4.5.6.7.8.9.0.1.2.3.4.5.6.7.8.9.0.1.2.3.4.5.6.7"]
    {
        assert_eq!(peer.store(CT, uid, &image(sop)).await.status, 0xC000, "{uid}");
    }
    assert_eq!(bench.newest().await.unwrap().sequence, before);
    assert_eq!(peer.store(CT, "1.2.3.4.5", &image(sop)).await.status, 0, "the same association goes on");
    assert_eq!(peer.ask(&pdu(5, &[0; 4])).await, pdu(6, &[0; 4]));
}

#[tokio::test]
async fn a_command_names_the_storage_class_of_its_context() {
    let bench = Bench::open(Limits::default(), 0).await;
    let mut peer = bench.associate().await;
    let mpps = "1.2.840.10008.3.1.2.3.3";
    for class in [mpps, VERIFICATION, "1.2.840.10008.5.1.4.1.1.4", "", "no class"] {
        let answer = peer.store(class, "1.2.3.4.5", &image("1.2.3.4.5\0")).await;
        assert_eq!(answer.status, 0x0122, "{class}");
    }
    // an object on the context of verification
    peer.say(&pdata(&[value(3, 3, &Command::store(8, VERIFICATION, "1.2.3.4.5")), value(3, 2, b"ab")])).await;
    assert_eq!(peer.answer().await.status, 0x0122);
    assert!(bench.newest().await.is_none());
    assert_eq!(peer.store(CT, "1.2.3.4.5", &image("1.2.3.4.5\0")).await.status, 0, "the association goes on");
}

#[tokio::test]
async fn the_element_at_fault_is_named() {
    let bench = Bench::open(Limits::default(), 0).await;
    let mut peer = bench.associate().await;
    let whole = image("1.2.3.4.5\0");
    let without_series = [&whole[..whole.len() - 128], &whole[whole.len() - 112..]].concat();
    let cases = [
        ("1.2.3.4.5", whole[..whole.len() - 1].to_vec(), [0xE0, 0x7F, 0x10, 0x00]),
        ("1.2.3.4.6", whole, [0x08, 0x00, 0x18, 0x00]),
        ("1.2.3.4.5", without_series, [0x20, 0x00, 0x0E, 0x00]),
    ];
    for (instance, data_set, tag) in cases {
        peer.say(&pdata(&[value(1, 3, &Command::store(7, CT, instance)), value(1, 2, &data_set)])).await;
        let answer = peer.hear().await;
        let offending = [&[0, 0, 1, 9, 4, 0, 0, 0][..], &tag].concat();
        assert!(answer.windows(12).any(|element| element == offending), "{tag:02X?}");
        let row = bench.newest().await.unwrap();
        let place = format!("({:02X}{:02X},{:02X}{:02X})", tag[1], tag[0], tag[3], tag[2]);
        assert_eq!(row.issues[0].location.as_deref(), Some(place.as_str()));
    }
}

#[tokio::test]
async fn without_room_the_peer_is_asked_to_send_again_and_echo_works() {
    let bench = Bench::open(Limits::default(), 0).await;
    let mut peer = bench.associate().await;
    assert_eq!(peer.store(CT, "1.2.3.4.4", &image("1.2.3.4.4\0")).await.status, 0);
    let blobs = bench.dir.path().join("sites/s/blobs/tmp");
    std::fs::remove_dir(&blobs).unwrap();
    let answer = peer.store(CT, "1.2.3.4.5", &image("1.2.3.4.5\0")).await;
    assert_eq!((answer.status, answer.comment.as_str()), (0xA700, "not possible now, send again"));
    assert_eq!(peer.echo().await, 0);
    std::fs::create_dir(&blobs).unwrap();
    assert_eq!(peer.store(CT, "1.2.3.4.5", &image("1.2.3.4.5\0")).await.status, 0);

    // the disk is nearly full: seen within a second, before the disk refuses
    let bench = Bench::open(Limits::default(), u64::MAX).await;
    let mut peer = bench.associate().await;
    assert!(bench.newest().await.is_none(), "the store of the site is open now");
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    for _ in 0..2 {
        assert_eq!(peer.store(CT, "1.2.3.4.5", &image("1.2.3.4.5\0")).await.status, 0xA700);
    }
    assert_eq!(peer.echo().await, 0);
    assert!(bench.newest().await.is_none());
}

#[tokio::test]
async fn associations_are_counted_and_given_back() {
    let mut limits = Limits::default();
    limits.dicom.associations_max = 2;
    let bench = Bench::open(limits, 0).await;
    let mut first = bench.associate().await;
    let second = bench.associate().await;
    assert_eq!(bench.connect().await.hear().await, [3, 0, 0, 0, 0, 4, 0, 2, 3, 2], "too many");
    assert_eq!(first.echo().await, 0, "the others do not notice");
    drop(second);
    // the slot comes back once the door has seen the end
    let mut served = false;
    for _ in 0..100 {
        let mut peer = bench.connect().await;
        served = peer.ask(&request("EDGE", &[(1, CT)], &[])).await.first() == Some(&2);
        if served {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(served, "a slot was lost");
}

#[tokio::test]
async fn values_may_be_cut_and_packed_as_the_peer_likes() {
    let bench = Bench::open(Limits::default(), 0).await;
    let (command, data_set) = (Command::store(3, CT, "1.2.3.4.5"), image("1.2.3.4.5\0"));
    let mut peer = bench.associate().await;
    // single bytes, empty values, command and data in one pdu
    let mut values: Vec<Vec<u8>> = command.iter().map(|byte| value(1, 1, &[*byte])).collect();
    values.push(value(1, 3, &[]));
    values.extend(data_set.iter().map(|byte| value(1, 0, &[*byte])));
    values.extend([value(1, 0, &[]), value(1, 2, &[])]);
    peer.say(&pdata(&values)).await;
    assert_eq!(peer.answer().await, Answer { message_id: 3, status: 0, comment: String::new() });
    let row = bench.newest().await.unwrap();
    assert!(bench.data_set(&row.blob.unwrap()).await == data_set);
    // an operation nobody serves, with and without data set
    let mut find = Command::store(4, CT, "1.2.3.4.5");
    let field = find.windows(4).position(|w| w == [0, 0, 0, 1]).unwrap();
    find[field + 8] = 0x20;
    peer.say(&pdata(&[value(1, 3, &find), value(1, 2, b"ab")])).await;
    assert_eq!(peer.answer().await.status, 0x0211);
    assert_eq!(peer.echo().await, 0);
}

#[tokio::test]
async fn a_window_is_granted_only_when_asked_for_and_answers_name_their_message() {
    let bench = Bench::open(Limits::default(), 0).await;
    let mut peer = bench.connect().await;
    let answer = peer.ask(&request("EDGE", &[(1, CT)], &[])).await;
    assert!(!answer.windows(4).any(|w| w == [0x53, 0, 0, 4]));
    for (asked, granted) in [([0, 0, 0, 0], [0, 8, 0, 8]), ([0, 3, 0, 1], [0, 3, 0, 1])] {
        let mut peer = bench.connect().await;
        let answer = peer.ask(&request("EDGE", &[(1, CT)], &item(0x53, &asked))).await;
        let at = answer.windows(4).position(|w| w == [0x53, 0, 0, 4]).unwrap();
        assert_eq!(answer[at + 4..at + 8], granted);
        // twelve messages in one breath, more than were granted; and one id that is taken
        let uid = |n: u16| format!("1.2.3.4.{}", n + 10);
        let message = |n: u16, id: u16| {
            let command = Command::store(id, CT, &uid(n));
            [value(1, 3, &command), value(1, 2, &image(&uid(n)))].concat()
        };
        let mut values: Vec<Vec<u8>> = vec![message(0, 1), message(1, 1)];
        values.extend((2..12).map(|n| message(n, n)));
        peer.say(&pdata(&values)).await;
        let mut answers = Vec::new();
        for _ in 0..12 {
            let answer = peer.answer().await;
            answers.push((answer.message_id, answer.status));
        }
        answers.sort_unstable();
        let mut wanted = vec![(1, 0), (1, 0x0210)];
        wanted.extend((2..12).map(|n| (n, 0)));
        assert_eq!(answers, wanted);
        assert_eq!(peer.ask(&pdu(5, &[0; 4])).await, pdu(6, &[0; 4]), "release");
    }
}

use proptest::prelude::*;

use super::*;

const EXPLICIT: &str = "1.2.840.10008.1.2.1";
const IMPLICIT: &str = "1.2.840.10008.1.2";

fn explicit(group: u16, element: u16, vr: &[u8; 2], value: &[u8]) -> Vec<u8> {
    let mut out = [group.to_le_bytes(), element.to_le_bytes()].concat();
    out.extend_from_slice(vr);
    if syntax::is_long(vr) {
        out.extend([0, 0]);
        out.extend(u32::try_from(value.len()).unwrap().to_le_bytes());
    } else {
        out.extend(u16::try_from(value.len()).unwrap().to_le_bytes());
    }
    out.extend_from_slice(value);
    out
}

fn item(length: u32) -> Vec<u8> {
    [&[0xFE, 0xFF, 0x00, 0xE0][..], &length.to_le_bytes()].concat()
}

fn scan(bytes: &[u8], syntax: &str, piece: usize) -> Result<Header, Malformed> {
    let mut scanner = Scanner::new(syntax, Limits::default());
    bytes.chunks(piece).for_each(|piece| scanner.feed(piece));
    scanner.finish()
}

fn sample() -> Vec<u8> {
    let code = explicit(0x0008, 0x0100, b"SH", b"CT01");
    let mut sequence = item(u32::try_from(code.len()).unwrap());
    sequence.extend(&code);
    let mut open = [0x08, 0x00, 0x10, 0x11].to_vec();
    open.extend(b"SQ\0\0");
    open.extend(u32::MAX.to_le_bytes());
    open.extend(item(u32::MAX));
    open.extend(explicit(0x0008, 0x1150, b"UI", b"1.2"));
    open.extend([0xFE, 0xFF, 0x0D, 0xE0, 0, 0, 0, 0, 0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]);
    [
        explicit(0x0008, 0x0018, b"UI", b"1.2.3\0"),
        explicit(0x0008, 0x1032, b"SQ", &sequence),
        open,
        explicit(0x0010, 0x0010, b"PN", b"Doe^Jane "),
        explicit(0x0020, 0x000D, b"UI", b"1.2"),
        explicit(0x7FE0, 0x0010, b"OW", &[1; 5000]),
    ]
    .concat()
}

#[test]
fn wanted_elements_are_copied_whatever_the_pieces() {
    let bytes = sample();
    for piece in [1, 3, 7, 64, 100_000] {
        let header = scan(&bytes, EXPLICIT, piece).unwrap();
        assert_eq!(header.uid(Tag::new(8, 0x18)).as_deref(), Some("1.2.3"));
        assert_eq!(header.text(Tag::new(0x10, 0x10)).as_deref(), Some("Doe^Jane"));
        assert_eq!(header.nested(Tag::new(8, 0x1032), Tag::new(8, 0x100)).as_deref(), Some("CT01"));
    }
}

#[test]
fn implicit_data_under_an_explicit_syntax_is_read_with_an_issue() {
    let mut bytes = vec![0x08, 0, 0x18, 0, 4, 0, 0, 0];
    bytes.extend(b"1.2\0");
    for syntax in [IMPLICIT, EXPLICIT] {
        let header = scan(&bytes, syntax, 5).unwrap();
        assert_eq!(header.uid(Tag::new(8, 0x18)).as_deref(), Some("1.2"));
        assert_eq!(header.issues.len(), usize::from(syntax == EXPLICIT));
    }
}

#[test]
fn hostile_data_sets_are_malformed_and_cost_nothing() {
    let mut nested = Vec::new();
    for _ in 0..10_000 {
        nested.extend([0x08, 0x00, 0x10, 0x11]);
        nested.extend(b"SQ\0\0");
        nested.extend(u32::MAX.to_le_bytes());
        nested.extend(item(u32::MAX));
    }
    let mut claim = explicit(0x0008, 0x0018, b"UI", b"1.2\0");
    claim.extend([0x09, 0x00, 0x10, 0x00]);
    claim.extend(b"UN\0\0");
    claim.extend(0xFFFF_FFF0_u32.to_le_bytes());
    let stray =
        [explicit(0x0008, 0x0018, b"UI", b"1.2\0"), vec![0xFE, 0xFF, 0x0D, 0xE0, 0, 0, 0, 0]].concat();
    let cut = sample()[..40].to_vec();
    for (bytes, says) in [
        (nested, "nested too deep"),
        (claim, "ends inside"),
        (stray, "delimiter"),
        (cut, "ends inside"),
        (Vec::new(), "empty"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "ends inside"),
    ] {
        let malformed = scan(&bytes, EXPLICIT, 1000).unwrap_err();
        assert!(malformed.to_string().contains(says), "{malformed}");
    }
}

#[test]
fn the_header_is_limited_but_large_values_are_not() {
    let limits = Limits { header_bytes_max: 100_000, ..Limits::default() };
    let scan = |bytes: &[u8]| {
        let mut scanner = Scanner::new(EXPLICIT, limits);
        bytes.chunks(10_000).for_each(|piece| scanner.feed(piece));
        scanner.finish()
    };
    let many = explicit(0x0009, 0x0010, b"LO", b"value").repeat(10_000);
    assert!(scan(&many).unwrap_err().to_string().contains("too large"));
    // a document of a megabyte is no header
    let document = explicit(0x0042, 0x0011, b"OB", &vec![0; 1 << 20]);
    assert!(scan(&document.repeat(3)).is_ok());
    // items alone count as well
    let mut empty_items = [0x08, 0x00, 0x10, 0x11].to_vec();
    empty_items.extend(b"SQ\0\0");
    empty_items.extend(u32::MAX.to_le_bytes());
    empty_items.extend(item(0).repeat(20_000));
    assert!(scan(&empty_items).unwrap_err().to_string().contains("too large"));
}

#[test]
fn a_tag_that_only_looks_like_a_delimiter_is_an_element() {
    let found = [0xFF, 0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0x6F, 0x6F, 0x6F, 0x6F, 0x6F, 0xFF, 0xFF, 0x21, 0xCF];
    for syntax in [EXPLICIT, IMPLICIT, "1.2.840.10008.1.2.2"] {
        for piece in [1, 3, 100] {
            assert!(scan(&found[1..], syntax, piece).is_err());
            assert!(scan(&found, syntax, piece).is_err());
        }
    }
}

#[test]
fn a_deflated_bomb_is_refused() {
    use std::io::Write;
    let deflate = |bytes: &[u8]| {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let syntax = "1.2.840.10008.1.2.1.99";
    let header = scan(&deflate(&sample()), syntax, 50).unwrap();
    assert_eq!(header.uid(Tag::new(8, 0x18)).as_deref(), Some("1.2.3"));
    let bomb = explicit(0x0009, 0x0010, b"OB", &vec![0; 60_000_000]);
    assert!(scan(&deflate(&bomb), syntax, 10_000).unwrap_err().to_string().contains("inflates too far"));
}

#[test]
fn names_follow_their_character_set() {
    let bytes =
        [explicit(0x0008, 0x0005, b"CS", b"ISO_IR 100"), explicit(0x0010, 0x0010, b"PN", b"M\xFCller^Max")]
            .concat();
    assert_eq!(scan(&bytes, EXPLICIT, 9).unwrap().text(Tag::new(0x10, 0x10)).as_deref(), Some("Müller^Max"));
}

proptest! {
    #[test]
    fn no_bytes_panic_and_pieces_do_not_matter(bytes in proptest::collection::vec(any::<u8>(), 0..300), piece in 1_usize..50) {
        for syntax in [EXPLICIT, IMPLICIT, "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"] {
            prop_assert_eq!(scan(&bytes, syntax, piece).is_ok(), scan(&bytes, syntax, 1000).is_ok());
        }
    }
}

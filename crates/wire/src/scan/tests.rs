use proptest::prelude::*;

use super::*;

const EXPLICIT: &str = "1.2.840.10008.1.2.1";
const IMPLICIT: &str = "1.2.840.10008.1.2";
const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";
const DEFLATED: &str = "1.2.840.10008.1.2.1.99";
const ITEM_END: [u8; 8] = [0xFE, 0xFF, 0x0D, 0xE0, 0, 0, 0, 0];
const SEQUENCE_END: [u8; 8] = [0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0];
const PATIENT_NAME: Tag = Tag::new(0x0010, 0x0010);
const PIXELS: Tag = Tag::new(0x7FE0, 0x0010);

fn head(group: u16, element: u16, vr: &[u8; 2], length: u32) -> Vec<u8> {
    let mut out = [group.to_le_bytes(), element.to_le_bytes()].concat();
    out.extend_from_slice(vr);
    if Form::of(*vr) == Form::Long {
        out.extend([0, 0]);
        out.extend(length.to_le_bytes());
    } else {
        out.extend(u16::try_from(length).unwrap().to_le_bytes());
    }
    out
}

fn explicit(group: u16, element: u16, vr: &[u8; 2], value: &[u8]) -> Vec<u8> {
    [head(group, element, vr, u32::try_from(value.len()).unwrap()), value.to_vec()].concat()
}

fn implicit(group: u16, element: u16, value: &[u8]) -> Vec<u8> {
    let length = u32::try_from(value.len()).unwrap().to_le_bytes();
    [&group.to_le_bytes(), &element.to_le_bytes(), &length[..], value].concat()
}

fn item(length: u32) -> Vec<u8> {
    [&[0xFE, 0xFF, 0x00, 0xE0][..], &length.to_le_bytes()].concat()
}

/// Offset table, fragments, delimiter.
fn fragments(fragments: &[&[u8]]) -> Vec<u8> {
    let mut out = item(0);
    for fragment in fragments {
        out.extend(item(u32::try_from(fragment.len()).unwrap()));
        out.extend_from_slice(fragment);
    }
    [out, SEQUENCE_END.to_vec()].concat()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn scan_within(limits: Limits, bytes: &[u8], syntax: &str, piece: usize) -> Result<Header, Malformed> {
    let mut scanner = Scanner::new(syntax, limits);
    bytes.chunks(piece).for_each(|piece| scanner.feed(piece));
    scanner.finish()
}

fn scan(bytes: &[u8], syntax: &str, piece: usize) -> Result<Header, Malformed> {
    scan_within(Limits::default(), bytes, syntax, piece)
}

/// The elements of a data set that has everything, one after the other.
fn sample() -> Vec<Vec<u8>> {
    let code = explicit(0x0008, 0x0100, b"SH", b"CT01");
    let sequence = [item(u32::try_from(code.len()).unwrap()), code, item(0)].concat();
    let open = [
        head(0x0008, 0x1110, b"SQ", u32::MAX),
        item(u32::MAX),
        explicit(0x0008, 0x1150, b"UI", b"1.2\0"),
        ITEM_END.to_vec(),
        SEQUENCE_END.to_vec(),
    ];
    let jpeg: &[&[u8]] = &[b"\xFF\xD8\xFF\xE0\0\x10JFIF", b"\xFF\xD9"];
    let image = [head(0x7FE0, 0x0010, b"OB", u32::MAX), fragments(jpeg)].concat();
    let icon = [item(u32::try_from(image.len()).unwrap()), image.clone()].concat();
    let open_icon = [item(u32::MAX), image, ITEM_END.to_vec()].concat();
    let icons = [icon, open_icon].concat();
    let unknown = [
        head(0x0009, 0x1010, b"UN", u32::MAX),
        item(u32::MAX),
        implicit(0x0009, 0x1011, b"AB"),
        ITEM_END.to_vec(),
        item(4),
        b"\xFE\xFF\xFE\xFF".to_vec(),
        SEQUENCE_END.to_vec(),
    ];
    vec![
        explicit(0x0008, 0x0000, b"UL", &[0; 4]),
        explicit(0x0008, 0x0018, b"UI", b"1.2.3\0"),
        explicit(0x0008, 0x1032, b"SQ", &sequence),
        open.concat(),
        unknown.concat(),
        explicit(0x0009, 0x1012, b"ZZ", b"a VR of tomorrow"),
        explicit(0x0009, 0x1013, b"??", b"ab"),
        explicit(0x0009, 0x1014, b"\0\0", b"ab"),
        explicit(0x0010, 0x0010, b"PN", b"Doe^Jane"),
        explicit(0x0020, 0x000D, b"UI", b"1.2\0"),
        explicit(0x0042, 0x0011, b"OB", b"%PDF-1.7"),
        explicit(0x0088, 0x0200, b"SQ", &icons),
        explicit(0x5400, 0x1010, b"OW", &[1; 20]),
        explicit(0x7FE0, 0x0001, b"OV", &[0; 8]),
        explicit(0x7FE0, 0x0010, b"OW", &[1; 5000]),
        explicit(0xFFFC, 0xFFFC, b"OB", &[0; 10]),
    ]
}

/// Where a data set of these elements may end.
fn ends(elements: &[Vec<u8>]) -> Vec<usize> {
    let mut end = 0;
    elements.iter().map(|element| (end += element.len(), end).1).collect()
}

#[test]
fn wanted_elements_are_copied_whatever_the_pieces() {
    let bytes = sample().concat();
    for piece in [1, 3, 7, 64, 100_000] {
        let header = scan(&bytes, EXPLICIT, piece).unwrap();
        assert_eq!(header.uid(Tag::new(8, 0x18)).as_deref(), Some("1.2.3"));
        assert_eq!(header.text(PATIENT_NAME).as_deref(), Some("Doe^Jane"));
        assert_eq!(header.nested(Tag::new(8, 0x1032), Tag::new(8, 0x100)).as_deref(), Some("CT01"));
        assert_eq!(header.items(Tag::new(8, 0x1032)), [0]);
        assert!(header.issues.is_empty(), "{:?}", header.issues);
    }
}

#[test]
fn a_data_set_cut_anywhere_but_behind_an_element_is_malformed_at_its_end() {
    let elements = sample();
    let (bytes, ends) = (elements.concat(), ends(&elements));
    for cut in 0..bytes.len() {
        for piece in [1, 11, usize::MAX] {
            let verdict = scan(&bytes[..cut], EXPLICIT, piece);
            assert_eq!(verdict.is_ok(), ends.contains(&cut), "{cut}: {verdict:?}");
            if let Err(malformed) = verdict.as_ref()
                && cut > 0
            {
                assert_eq!(
                    (malformed.position, malformed.reason),
                    (cut as u64, "the data set ends inside an element")
                );
            }
        }
    }
    // the element that lacks its end
    let in_pixels = ends[ends.len() - 2] - 1;
    assert_eq!(scan(&bytes[..in_pixels], EXPLICIT, 64).unwrap_err().element, Some(PIXELS));
    let within_items = ends[3] - 8;
    let sequence = Some(Tag::new(0x0008, 0x1110));
    assert_eq!(scan(&bytes[..within_items], EXPLICIT, 64).unwrap_err().element, sequence);
}

#[test]
fn a_deflated_data_set_ends_with_its_stream() {
    let whole = deflate(&sample().concat());
    for cut in 0..whole.len() {
        assert!(scan(&whole[..cut], DEFLATED, 7).is_err(), "{cut} of {}", whole.len());
    }
    assert!(scan(&whole, DEFLATED, 7).is_ok());
    let and = |more: &[u8]| scan(&[&whole, more].concat(), DEFLATED, 7);
    assert!(and(&[0]).is_ok(), "a byte of padding");
    let mut checksum = flate2::Crc::new();
    checksum.update(&sample().concat());
    let trailer = [checksum.sum().to_le_bytes(), checksum.amount().to_le_bytes()].concat();
    assert!(and(&trailer).is_ok(), "the trailer of gzip");
    assert!(and(&[&trailer[..], &[0]].concat()).is_ok());
    for more in [&[0, 0][..], &[1], &[1; 8], &[0; 8], &trailer[1..], &[&trailer[..], &[1]].concat(), &whole] {
        assert!(and(more).unwrap_err().to_string().contains("follow the end"), "{more:?}");
    }
    let cut_inside = deflate(&sample().concat()[..1000]);
    assert!(scan(&cut_inside, DEFLATED, 7).unwrap_err().to_string().ends_with("at byte 1000"));
}

#[test]
fn pixel_data_is_as_long_as_announced_and_its_fragments_are_delimited() {
    let uid = explicit(0x0008, 0x0018, b"UI", b"1.2.3\0");
    let more = explicit(0xFFFC, 0xFFFC, b"OB", &[0; 4]);
    let encapsulated = |value: Vec<u8>| [uid.clone(), head(0x7FE0, 0x0010, b"OB", u32::MAX), value].concat();
    let whole = encapsulated(fragments(&[&[7; 50], &[], &[8; 3]]));
    assert!(scan(&whole, EXPLICIT, 9).is_ok());
    assert!(scan(&[whole.clone(), more.clone()].concat(), EXPLICIT, 9).is_ok());
    for (number, vr) in [(8, b"OF"), (9, b"OD"), (0x10, b"OW")] {
        let native = [uid.clone(), explicit(0x7FE0, number, vr, &[7; 40]), more.clone()].concat();
        assert!(scan(&native, EXPLICIT, 9).is_ok());
        let implicit = [implicit(0x0008, 0x0018, b"1.2\0"), implicit(0x7FE0, number, &[7; 40])].concat();
        assert!(scan(&implicit, IMPLICIT, 9).is_ok());
        assert!(scan(&implicit[..implicit.len() - 1], IMPLICIT, 9).is_err());
    }
    let without_length = [uid.clone(), head(0x7FE0, 0x0010, b"OB", u32::MAX), item(u32::MAX)].concat();
    let lying = [uid.clone(), head(0x7FE0, 0x0010, b"OW", 400), vec![7; 40], more].concat();
    let faults = [
        (encapsulated(vec![1; 40]), "between items"),
        (encapsulated(ITEM_END.to_vec()), "delimiter"),
        (without_length, "no length"),
        (lying, "ends inside"),
        ([whole, SEQUENCE_END.to_vec()].concat(), "delimiter"),
        ([uid, vec![0; 64]].concat(), "command"),
    ];
    for (bytes, says) in faults {
        let malformed = scan(&bytes, EXPLICIT, 9).unwrap_err();
        assert!(malformed.to_string().contains(says), "{malformed} instead of {says}");
    }
}

#[test]
fn what_an_item_or_a_sequence_holds_ends_where_it_ends() {
    let inside = explicit(0x0008, 0x1150, b"UI", b"1.2\0");
    let length = u32::try_from(inside.len()).unwrap();
    let sequence = |value: Vec<u8>| explicit(0x0008, 0x1140, b"SQ", &value);
    assert!(scan(&sequence([item(length), inside.clone()].concat()), EXPLICIT, 9).is_ok());
    assert!(scan(&sequence(Vec::new()), EXPLICIT, 9).is_ok());
    let open_sequence = [head(0x0008, 0x1140, b"SQ", u32::MAX), item(length), inside.clone()].concat();
    let faults = [
        ("a shorter item", sequence([item(length - 2), inside.clone()].concat())),
        ("an item that ends in a header", sequence([item(4), inside.clone()].concat())),
        ("a longer item", sequence([item(length + 2), inside.clone()].concat())),
        ("bytes behind the item", sequence([item(length), inside.clone(), vec![0; 4]].concat())),
        ("an element behind the item", sequence([item(length), inside.clone(), inside.clone()].concat())),
        ("an item in an item", sequence([item(8), item(0)].concat())),
        ("no end of the sequence", open_sequence.clone()),
        ("the end of the item twice", [open_sequence, ITEM_END.to_vec()].concat()),
        ("the end of the item lacks", sequence([item(u32::MAX), inside, SEQUENCE_END.to_vec()].concat())),
    ];
    for (name, bytes) in faults {
        assert!(scan(&bytes, EXPLICIT, 9).is_err(), "{name}");
    }
}

#[test]
fn implicit_data_under_an_explicit_syntax_is_read_with_an_issue() {
    let bytes = implicit(0x0008, 0x0018, b"1.2\0");
    for syntax in [IMPLICIT, EXPLICIT] {
        let header = scan(&bytes, syntax, 5).unwrap();
        assert_eq!(header.uid(Tag::new(8, 0x18)).as_deref(), Some("1.2"));
        assert_eq!(header.issues.len(), usize::from(syntax == EXPLICIT));
    }
    // one item, or one element
    let code = Tag::new(0x0008, 0x0100);
    let inside = implicit(0x0008, 0x0100, b"CT01");
    let sequence = [item(u32::try_from(inside.len()).unwrap()), inside.clone()].concat();
    let bytes = [
        explicit(0x0008, 0x0018, b"UI", b"1.2\0"),
        explicit(0x0008, 0x1032, b"SQ", &sequence),
        implicit(0x0009, 0x1010, b"AB"),
        explicit(0x0010, 0x0010, b"PN", b"Doe^Jane"),
    ]
    .concat();
    let header = scan(&bytes, EXPLICIT, 5).unwrap();
    assert_eq!(header.nested(Tag::new(0x0008, 0x1032), code).as_deref(), Some("CT01"));
    assert_eq!(header.text(PATIENT_NAME).as_deref(), Some("Doe^Jane"));
    assert_eq!(header.issues.len(), 2);
}

#[test]
fn hostile_data_sets_are_malformed_and_cost_nothing() {
    let level = [head(0x0008, 0x1110, b"SQ", u32::MAX), item(u32::MAX)].concat();
    let uid = explicit(0x0008, 0x0018, b"UI", b"1.2\0");
    let claim = [uid.clone(), head(0x0009, 0x0010, b"UN", 0xFFFF_FFF0)].concat();
    let cut = sample().concat()[..40].to_vec();
    for (bytes, says) in [
        (level.repeat(10_000), "nested too deep"),
        (claim, "ends inside"),
        ([uid, ITEM_END.to_vec()].concat(), "delimiter"),
        (cut, "ends inside"),
        (Vec::new(), "empty"),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), "ends inside"),
    ] {
        let malformed = scan(&bytes, EXPLICIT, 1000).unwrap_err();
        assert!(malformed.to_string().contains(says), "{malformed}");
    }
}

#[test]
fn what_is_skipped_does_not_count_and_what_is_wanted_does() {
    let limits = Limits { header_bytes_max: 100_000, elements_max: 40_000, ..Limits::default() };
    let scan = |bytes: &[u8]| scan_within(limits, bytes, EXPLICIT, 10_000);
    // contours, frames and documents are no header
    let contour = explicit(0x3006, 0x0050, b"DS", &[b'1'; 2600]);
    assert!(scan(&contour.repeat(1000)).is_ok());
    let frame = [item(u32::MAX), explicit(0x0028, 0x9110, b"SQ", &[]), ITEM_END.to_vec()].concat();
    let frames =
        |count| [head(0x5200, 0x9230, b"SQ", u32::MAX), frame.repeat(count), SEQUENCE_END.to_vec()].concat();
    assert!(scan(&frames(15_000)).is_ok());
    assert!(scan(&frames(25_000)).unwrap_err().to_string().contains("too many"), "items count as elements");
    assert!(scan(&explicit(0x0042, 0x0011, b"OB", &vec![0; 1 << 20]).repeat(3)).is_ok());
    let described = explicit(0x0008, 0x1030, b"LO", b"value");
    assert!(scan(&described.repeat(10_000)).unwrap_err().to_string().contains("too large"));
}

#[test]
fn many_items_leave_room_for_the_elements_behind_them() {
    let code = explicit(0x0008, 0x0104, b"LO", &[b'x'; 60]);
    let codes = [item(u32::try_from(code.len()).unwrap()), code].concat().repeat(5_000);
    let bytes = [
        explicit(0x0008, 0x0018, b"UI", b"1.2.3\0"),
        head(0x0008, 0x1032, b"SQ", u32::MAX),
        codes,
        SEQUENCE_END.to_vec(),
        explicit(0x0010, 0x0010, b"PN", b"Doe^Jane"),
    ]
    .concat();
    let header = scan(&bytes, EXPLICIT, 1000).unwrap();
    assert_eq!(header.text(PATIENT_NAME).as_deref(), Some("Doe^Jane"));
    assert_eq!(header.issues, ["elements beyond the limit are left out"]);
    assert!(header.elements.len() < 1000);
}

#[test]
fn a_tag_that_only_looks_like_a_delimiter_is_an_element() {
    let found = [0xFF, 0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0x6F, 0x6F, 0x6F, 0x6F, 0x6F, 0xFF, 0xFF, 0x21, 0xCF];
    for syntax in [EXPLICIT, IMPLICIT, BIG_ENDIAN] {
        for piece in [1, 3, 100] {
            assert!(scan(&found[1..], syntax, piece).is_err());
            assert!(scan(&found, syntax, piece).is_err());
        }
    }
}

#[test]
fn a_deflated_bomb_is_refused_but_an_empty_image_is_none() {
    let header = scan(&deflate(&sample().concat()), DEFLATED, 50).unwrap();
    assert_eq!(header.uid(Tag::new(8, 0x18)).as_deref(), Some("1.2.3"));
    let zeros = vec![0; 60_000_000];
    let bomb = deflate(&explicit(0x0009, 0x0010, b"OB", &zeros));
    assert!(scan(&bomb, DEFLATED, 10_000).unwrap_err().to_string().contains("inflates too far"));
    let image = deflate(&explicit(0x7FE0, 0x0010, b"OW", &zeros));
    assert!(scan(&image, DEFLATED, 10_000).is_ok());
    let limits = Limits { inflated_bytes_max: 50_000_000, ..Limits::default() };
    assert!(scan_within(limits, &image, DEFLATED, 10_000).is_err());
}

#[test]
fn a_byte_behind_an_odd_value_is_its_padding() {
    let odd = explicit(0x7FE0, 0x0010, b"OW", &[1; 9]);
    assert_eq!(scan(&[odd.clone(), vec![0]].concat(), EXPLICIT, 4).unwrap().issues.len(), 1);
    assert!(scan(&odd, EXPLICIT, 4).unwrap().issues.is_empty());
    for more in [&[0, 0][..], &[1]] {
        assert!(scan(&[&odd, more].concat(), EXPLICIT, 4).is_err());
    }
    let even = explicit(0x7FE0, 0x0010, b"OW", &[1; 8]);
    assert!(scan(&[even, vec![0]].concat(), EXPLICIT, 4).is_err());
}

#[test]
fn a_uid_has_digits_and_dots_only() {
    let uid = |value: &[u8]| {
        scan(&explicit(0x0020, 0x000D, b"UI", value), EXPLICIT, 9).unwrap().uid(Tag::new(0x20, 0xD))
    };
    for value in [&b"1.2.3\0"[..], b"1.2.3 ", b"1.2.3"] {
        assert_eq!(uid(value).as_deref(), Some("1.2.3"));
    }
    for value in [&b"1.2.\x1b3"[..], b"1.2\\1.3", b" 1.2.3", b"1.2.a", b"1.2\0.3", b"1.2.\xb3", b"\0\0", b""]
    {
        assert_eq!(uid(value), None, "{value:?}");
    }
}

#[test]
fn names_follow_the_character_set_of_their_item_else_of_the_data_set() {
    let inside =
        [explicit(0x0008, 0x0005, b"CS", b"ISO_IR 144"), explicit(0x0008, 0x0104, b"LO", b"\xbb\xee")]
            .concat();
    let other = explicit(0x0008, 0x0104, b"LO", b"\xfc");
    let items: Vec<u8> = [inside, other]
        .iter()
        .flat_map(|elements| [item(u32::try_from(elements.len()).unwrap()), elements.clone()].concat())
        .collect();
    let bytes = [
        explicit(0x0008, 0x0005, b"CS", b"ISO_IR 100"),
        explicit(0x0008, 0x1032, b"SQ", &items),
        explicit(0x0010, 0x0010, b"PN", b"M\xFCller^Max"),
    ]
    .concat();
    let header = scan(&bytes, EXPLICIT, 9).unwrap();
    assert_eq!(header.text(PATIENT_NAME).as_deref(), Some("Müller^Max"));
    let (codes, meaning) = (Tag::new(8, 0x1032), Tag::new(8, 0x104));
    assert_eq!(header.nested_in(codes, 0, meaning).as_deref(), Some("Лю"));
    assert_eq!(header.nested_in(codes, 1, meaning).as_deref(), Some("ü"));
    assert!(header.issues.is_empty());
    let undeclared = scan(&explicit(0x0010, 0x0010, b"PN", b"M\xFCller"), EXPLICIT, 9).unwrap();
    assert_eq!(undeclared.issues, ["a text does not fit the declared character set"]);
}

#[test]
fn who_does_not_judge_stops_at_pixel_data_and_has_the_header() {
    let bytes = sample().concat();
    let mut scanner = Scanner::new(EXPLICIT, Limits::default());
    let fed =
        bytes.chunks(100).take_while(|piece| (scanner.feed(piece), !scanner.is_past_header()).1).count();
    assert!(fed * 100 < bytes.len() - 4000);
    assert_eq!(scanner.into_header().text(PATIENT_NAME).as_deref(), Some("Doe^Jane"));
}

/// An element in any of the plain encodings.
#[derive(Clone, Debug)]
enum Grown {
    Value(Vec<u8>),
    Bulk(Vec<Vec<u8>>),
    Sequence { has_length: bool, items: Vec<(bool, Vec<Grown>)> },
}

impl Grown {
    fn write(&self, syntax: Syntax, number: u16) -> Vec<u8> {
        let u16 = |value: u16| if syntax.big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        let u32 = |value: u32| if syntax.big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        let mark = |element: u16, length: u32| [&u16(0xFFFE)[..], &u16(element), &u32(length)].concat();
        let head = |vr: &[u8; 2], length: u32| {
            let tag = [u16(0x0029), u16(number)].concat();
            match syntax.explicit {
                true => [&tag[..], vr, &[0, 0], &u32(length)].concat(),
                false => [&tag[..], &u32(length)].concat(),
            }
        };
        let long = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
        match self {
            Self::Value(value) => [head(b"OB", long(value)), value.clone()].concat(),
            // an encoding without vr has no fragments
            Self::Bulk(fragments) if syntax.explicit => {
                let items = fragments.iter().flat_map(|f| [mark(0xE000, long(f)), f.clone()].concat());
                [head(b"OW", u32::MAX), items.collect(), mark(0xE0DD, 0)].concat()
            }
            Self::Bulk(fragments) => Self::Value(fragments.concat()).write(syntax, number),
            Self::Sequence { has_length, items } => {
                let items: Vec<u8> = items
                    .iter()
                    .flat_map(|(has_length, elements)| {
                        let inside: Vec<u8> = elements.iter().flat_map(|e| e.write(syntax, number)).collect();
                        match has_length {
                            true => [mark(0xE000, long(&inside)), inside].concat(),
                            false => [mark(0xE000, u32::MAX), inside, mark(0xE00D, 0)].concat(),
                        }
                    })
                    .collect();
                match has_length {
                    true => [head(b"SQ", long(&items)), items].concat(),
                    false => [head(b"SQ", u32::MAX), items, mark(0xE0DD, 0)].concat(),
                }
            }
        }
    }
}

fn grown() -> impl Strategy<Value = Grown> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..6).prop_map(|half| half.repeat(2));
    let leaf = prop_oneof![
        bytes().prop_map(Grown::Value),
        proptest::collection::vec(bytes(), 0..3).prop_map(Grown::Bulk),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let items = proptest::collection::vec((any::<bool>(), proptest::collection::vec(inner, 0..3)), 0..3);
        (any::<bool>(), items).prop_map(|(has_length, items)| Grown::Sequence { has_length, items })
    })
}

proptest! {
    #[test]
    fn no_bytes_panic_and_pieces_do_not_matter(bytes in proptest::collection::vec(any::<u8>(), 0..300), piece in 1_usize..50) {
        for syntax in [EXPLICIT, IMPLICIT, BIG_ENDIAN, DEFLATED] {
            let (one, other) = (scan(&bytes, syntax, piece), scan(&bytes, syntax, 1000));
            prop_assert_eq!(one.is_ok(), other.is_ok());
            // what is broken is found sooner or later, depending on what was inflated before
            prop_assert!(one == other || syntax == DEFLATED);
        }
    }

    #[test]
    fn whatever_is_cut_short_is_malformed(grown in proptest::collection::vec(grown(), 1..4), piece in 1_usize..20) {
        for uid in [EXPLICIT, IMPLICIT, BIG_ENDIAN] {
            let first = match uid {
                EXPLICIT => explicit(0x0008, 0x0018, b"UI", b"1.2\0"),
                IMPLICIT => implicit(0x0008, 0x0018, b"1.2\0"),
                _ => b"\0\x08\0\x18UI\0\x041.2\0".to_vec(),
            };
            let syntax = Syntax::of(uid);
            let elements: Vec<Vec<u8>> = std::iter::once(first)
                .chain((0x1000..).zip(&grown).map(|(number, element)| element.write(syntax, number)))
                .collect();
            let (bytes, ends) = (elements.concat(), ends(&elements));
            for cut in 0..=bytes.len() {
                let verdict = scan(&bytes[..cut], uid, piece);
                // a sequence without vr is a value to whoever does not know its tag
                prop_assert_eq!(verdict.is_ok(), ends.contains(&cut), "{} at {} of {}", uid, cut, bytes.len());
            }
        }
    }
}

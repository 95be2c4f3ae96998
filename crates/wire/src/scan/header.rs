//! The wanted elements of a data set, read out as text. Character sets: PS3.5 chapter 6.1.

use encoding_rs::{self as enc, Encoding};

/// A tag: group and element.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u32);

impl Tag {
    /// From group and element.
    pub const fn new(group: u16, element: u16) -> Self {
        Self(((group as u32) << 16) | element as u32)
    }

    /// From `GGGGEEEE`.
    pub fn parse(hex: &str) -> Option<Self> {
        (hex.len() == 8).then(|| u32::from_str_radix(hex, 16).ok()).flatten().map(Self)
    }
}

/// `(0010,0020)`
impl std::fmt::Display for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({:04X},{:04X})", self.0 >> 16, self.0 & 0xFFFF)
    }
}

impl std::fmt::Debug for Tag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

/// A copied element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    /// Its tag.
    pub tag: Tag,
    /// The sequence and the number of the item it stands in, from 0; `None` at top level.
    pub parent: Option<(Tag, u16)>,
    /// Its bytes.
    pub value: Vec<u8>,
    /// Byte order of numbers.
    pub big_endian: bool,
}

/// The wanted elements of a data set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The elements, in order.
    pub elements: Vec<Element>,
    /// Tags of all elements with a value at top level, in order, when a listing was asked for.
    pub listing: Vec<Tag>,
    /// What was odd.
    pub issues: Vec<&'static str>,
}

/// Sequences whose items are looked into.
const SEQUENCES: [u32; 8] =
    [0x0040_0275, 0x0008_1032, 0x0008_2218, 0x0010_0024, 0x0008_0051, 0x0010_1002, 0x0040_A043, 0x0008_1110];

/// Elements copied at top level and in the sequences above.
const WANTED: [u32; 56] = [
    0x0008_0005,
    0x0008_0008,
    0x0008_0016,
    0x0008_0018,
    0x0008_0020,
    0x0008_0021,
    0x0008_0030,
    0x0008_0031,
    0x0008_0050,
    0x0008_0060,
    0x0008_0070,
    0x0008_0080,
    0x0008_0090,
    0x0008_0100,
    0x0008_0102,
    0x0008_0104,
    0x0008_0201,
    0x0008_1010,
    0x0008_1030,
    0x0008_103E,
    0x0008_1040,
    0x0008_1050,
    0x0008_1060,
    0x0008_1070,
    0x0008_1090,
    0x0010_0010,
    0x0010_0020,
    0x0010_0021,
    0x0010_0030,
    0x0010_0040,
    0x0010_1001,
    0x0018_0015,
    0x0018_1000,
    0x0018_1020,
    0x0020_000D,
    0x0020_000E,
    0x0020_0010,
    0x0020_0011,
    0x0020_0013,
    0x0020_0060,
    0x0020_0062,
    0x0028_0008,
    0x0032_1064,
    0x0040_0007,
    0x0040_0009,
    0x0040_0031,
    0x0040_0032,
    0x0040_0033,
    0x0040_0035,
    0x0040_0243,
    0x0040_1001,
    0x0040_1002,
    0x0040_2016,
    0x0040_2017,
    0x0042_0010,
    0x0070_0080,
];

pub(super) fn is_wanted(tag: Tag, sequence: Option<Tag>) -> bool {
    WANTED.contains(&tag.0) && sequence.is_none_or(is_sequence)
}

/// Whether a tag is one of the known sequences: implicit encodings do not say.
pub(super) fn is_sequence(tag: Tag) -> bool {
    SEQUENCES.contains(&tag.0)
}

impl Header {
    pub(super) fn push(&mut self, element: Element, was_cut: bool) {
        if self.element(element.tag, element.parent).is_some() {
            self.issues.push("an element occurs twice; the first counts");
            return;
        }
        if was_cut {
            self.issues.push("a value was cut");
        }
        self.elements.push(element);
    }

    fn element(&self, tag: Tag, parent: Option<(Tag, u16)>) -> Option<&Element> {
        self.elements.iter().find(|e| e.tag == tag && e.parent == parent)
    }

    /// A value at top level as text: decoded, padding removed, first of several.
    pub fn text(&self, tag: Tag) -> Option<String> {
        self.values(tag).into_iter().next()
    }

    /// All values at top level.
    pub fn values(&self, tag: Tag) -> Vec<String> {
        self.element(tag, None).map_or_else(Vec::new, |element| self.split(element))
    }

    /// The first value of a tag in the first item of a sequence.
    pub fn nested(&self, sequence: Tag, tag: Tag) -> Option<String> {
        let element = self.element(tag, Some((sequence, 0)))?;
        self.split(element).into_iter().next()
    }

    /// A UID: digits and dots, padding removed; `None` when it has other characters or is too long.
    pub fn uid(&self, tag: Tag) -> Option<String> {
        let text = self.text(tag)?;
        is_uid(&text).then_some(text)
    }

    fn split(&self, element: &Element) -> Vec<String> {
        let text = decode(&element.value, &self.charsets());
        text.split('\\').map(|v| v.trim_matches([' ', '\0']).to_owned()).filter(|v| !v.is_empty()).collect()
    }

    fn charsets(&self) -> Vec<String> {
        let element = self.element(Tag::new(0x0008, 0x0005), None);
        let names = element.map(|e| String::from_utf8_lossy(&e.value).into_owned()).unwrap_or_default();
        names.split('\\').map(|n| n.trim_matches([' ', '\0']).to_owned()).collect()
    }
}

/// 1 to 64 digits and dots.
pub fn is_uid(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// Decodes by the declared sets; what does not fit is UTF-8 when valid, else Latin 1. Never fails.
fn decode(bytes: &[u8], charsets: &[String]) -> String {
    if bytes.is_ascii() && !bytes.contains(&0x1B) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let declared = charsets
        .iter()
        .filter_map(|name| encoding(name))
        .find(|e| bytes.contains(&0x1B) == (*e == enc::ISO_2022_JP) || *e != enc::ISO_2022_JP);
    let strict =
        |encoding: &'static Encoding| encoding.decode_without_bom_handling_and_without_replacement(bytes);
    let text = declared.and_then(strict).or_else(|| strict(enc::UTF_8)).or_else(|| strict(enc::WINDOWS_1252));
    text.unwrap_or_default().chars().filter(|c| !c.is_control()).collect()
}

fn encoding(term: &str) -> Option<&'static Encoding> {
    let number = term.trim_start_matches("ISO_IR ").trim_start_matches("ISO 2022 IR ");
    Some(match number {
        "100" => enc::WINDOWS_1252,
        "101" => enc::ISO_8859_2,
        "109" => enc::ISO_8859_3,
        "110" => enc::ISO_8859_4,
        "144" => enc::ISO_8859_5,
        "127" => enc::ISO_8859_6,
        "126" => enc::ISO_8859_7,
        "138" => enc::ISO_8859_8,
        "148" => enc::WINDOWS_1254,
        "203" => enc::ISO_8859_15,
        "166" => enc::WINDOWS_874,
        "192" => enc::UTF_8,
        "13" => enc::SHIFT_JIS,
        "87" => enc::ISO_2022_JP,
        "149" => enc::EUC_KR,
        "58" | "GBK" | "GB18030" => enc::GB18030,
        _ => return None,
    })
}

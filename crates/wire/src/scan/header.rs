//! The wanted elements of a data set, read out as text.

use super::charset::Charsets;

/// A tag: group and element.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(pub u32);

impl Tag {
    /// From group and element.
    pub const fn new(group: u16, element: u16) -> Self {
        Self(((group as u32) << 16) | element as u32)
    }

    /// Item (PS3.5 section 7.5).
    pub(super) const ITEM: Self = Self(0xFFFE_E000);
    pub(super) const ITEM_END: Self = Self(0xFFFE_E00D);
    pub(super) const SEQUENCE_END: Self = Self(0xFFFE_E0DD);

    /// Whether an item or a delimiter begins here, which has no VR in any encoding.
    pub(super) fn is_mark(self) -> bool {
        self == Self::ITEM || self.is_end()
    }

    pub(super) fn is_end(self) -> bool {
        matches!(self, Self::ITEM_END | Self::SEQUENCE_END)
    }

    pub(super) const fn group(self) -> u32 {
        self.0 >> 16
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

/// Wanted elements that hold names of persons (VR PN): their sets begin anew at `^` and `=`.
const NAMES: [u32; 6] = [0x0008_0090, 0x0008_1050, 0x0008_1060, 0x0008_1070, 0x0010_0010, 0x0010_1001];
const SPECIFIC_CHARACTER_SET: Tag = Tag::new(0x0008, 0x0005);

impl Header {
    pub(super) fn push(&mut self, element: Element, was_cut: bool) {
        if self.element(element.tag, element.parent).is_some() {
            return self.note("an element occurs twice; the first counts");
        }
        if was_cut {
            self.note("a value was cut");
        }
        self.elements.push(element);
    }

    /// An oddity, once.
    pub(super) fn note(&mut self, issue: &'static str) {
        if !self.issues.contains(&issue) {
            self.issues.push(issue);
        }
    }

    /// Says whether texts do not fit their character set.
    pub(super) fn note_charsets(&mut self) {
        let is_odd = |element: &Element| !element.value.is_ascii() || element.value.contains(&0x1B);
        let is_misfit = |element: &&Element| is_odd(element) && !self.decode(element).1;
        if self.elements.iter().any(|element| is_misfit(&element)) {
            self.note("a text does not fit the declared character set");
        }
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
        self.nested_in(sequence, 0, tag)
    }

    /// The first value of a tag in an item of a sequence, counted from 0.
    pub fn nested_in(&self, sequence: Tag, item: u16, tag: Tag) -> Option<String> {
        let element = self.element(tag, Some((sequence, item)))?;
        self.split(element).into_iter().next()
    }

    /// The items of a sequence, counted from 0, of which something was copied.
    pub fn items(&self, sequence: Tag) -> Vec<u16> {
        let of_sequence = |element: &Element| element.parent.filter(|(tag, _)| *tag == sequence);
        let mut items: Vec<u16> =
            self.elements.iter().filter_map(of_sequence).map(|(_, item)| item).collect();
        items.dedup();
        items
    }

    /// A UID at top level: digits and dots, padding removed; `None` when there is anything else, a second value too, or it is too long.
    pub fn uid(&self, tag: Tag) -> Option<String> {
        let text = std::str::from_utf8(&self.element(tag, None)?.value).ok()?;
        let text = text.trim_end_matches(['\0', ' ']);
        is_uid(text).then(|| text.to_owned())
    }

    fn split(&self, element: &Element) -> Vec<String> {
        let (text, _) = self.decode(element);
        text.split('\\').map(|v| v.trim_matches([' ', '\0']).to_owned()).filter(|v| !v.is_empty()).collect()
    }

    /// The text of an element, and whether it fits the sets declared for it: those of its item before those of the data set.
    fn decode(&self, element: &Element) -> (String, bool) {
        let own = element.parent.and_then(|parent| self.element(SPECIFIC_CHARACTER_SET, Some(parent)));
        let declared = own.or_else(|| self.element(SPECIFIC_CHARACTER_SET, None));
        let charsets = Charsets::declared(declared.map_or(&[], |element| &element.value));
        charsets.decode(&element.value, NAMES.contains(&element.tag.0))
    }
}

/// 1 to 64 digits and dots (PS3.5 section 9.1).
pub fn is_uid(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

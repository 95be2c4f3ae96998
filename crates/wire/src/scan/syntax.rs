//! How a transfer syntax encodes elements (PS3.5 annex A), and the header of an element (PS3.5 section 7.1).

use super::Tag;

/// An encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syntax {
    /// Whether elements carry their VR.
    pub explicit: bool,
    /// Byte order of numbers.
    pub big_endian: bool,
    /// Whether the data set is deflated (raw, without zlib header).
    pub deflated: bool,
}

impl Syntax {
    pub(super) const IMPLICIT: Self = Self { explicit: false, big_endian: false, deflated: false };

    /// The encoding of a transfer syntax; unknown and private ones are explicit little endian.
    pub fn of(uid: &str) -> Self {
        let explicit = Self { explicit: true, big_endian: false, deflated: false };
        match uid {
            "1.2.840.10008.1.2" | "1.2.840.113619.5.2" => Self::IMPLICIT,
            "1.2.840.10008.1.2.2" => Self { big_endian: true, ..explicit },
            "1.2.840.10008.1.2.1.99" | "1.2.840.10008.1.2.4.95" => {
                Self { deflated: uid.ends_with("1.99"), ..explicit }
            }
            _ => explicit,
        }
    }

    fn u16(self, bytes: [u8; 2]) -> u16 {
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn u32(self, bytes: [u8; 4]) -> u32 {
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    /// The tag in the first bytes of an element.
    pub(super) fn tag(self, bytes: [u8; 4]) -> Tag {
        let [a, b, c, d] = bytes;
        Tag::new(self.u16([a, b]), self.u16([c, d]))
    }
}

/// The header of an element, an item or a delimiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) tag: Tag,
    /// `None` where the encoding writes none.
    pub(super) vr: Option<[u8; 2]>,
    /// Bytes of the value; [`Head::UNDEFINED`] = up to a delimiter.
    pub(super) length: u32,
    /// Bytes of the header itself: 8 or 12.
    pub(super) bytes: usize,
    /// Whether it was to have a VR and has none.
    pub(super) lacks_vr: bool,
}

impl Head {
    pub(super) const UNDEFINED: u32 = u32::MAX;
    /// Bytes of the shortest header.
    pub(super) const BYTES_MIN: usize = 8;
    /// Bytes of the longest header.
    pub(super) const BYTES_MAX: usize = 12;

    /// Reads a header; `None` when more bytes are needed, at most [`Head::BYTES_MAX`].
    pub(super) fn read(bytes: &[u8], syntax: Syntax) -> Option<Self> {
        let [a, b, c, d, e, f, g, h] = *bytes.first_chunk::<8>()?;
        let tag = syntax.tag([a, b, c, d]);
        let plain =
            Self { tag, vr: None, length: syntax.u32([e, f, g, h]), bytes: Self::BYTES_MIN, lacks_vr: false };
        if !syntax.explicit || tag.is_mark() {
            return Some(plain);
        }
        let vr = Some([e, f]);
        match Form::of([e, f]) {
            Form::Short => Some(Self { vr, length: u32::from(syntax.u16([g, h])), ..plain }),
            Form::Long => {
                let [.., i, j, k, l] = *bytes.first_chunk::<12>()?;
                Some(Self { vr, length: syntax.u32([i, j, k, l]), bytes: Self::BYTES_MAX, ..plain })
            }
            Form::None => Some(Self { lacks_vr: true, ..plain }),
        }
    }

    pub(super) fn is_undefined(&self) -> bool {
        self.length == Self::UNDEFINED
    }
}

/// How the length is written behind two letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// In two bytes.
    Short,
    /// In four bytes, behind two reserved ones.
    Long,
    /// The letters are none: they are half of a length of four bytes.
    None,
}

impl Form {
    /// By the letters. Two capitals that are no VR are one of a later edition, and those have the long form (PS3.5 section 7.1.2). Other
    /// printable signs and zeros are what makers wrote for want of a VR (`??`, blanks), in the short form. Anything else is no text: the
    /// element is written without VR.
    pub(super) fn of(letters: [u8; 2]) -> Self {
        match &letters {
            b"AE" | b"AS" | b"AT" | b"CS" | b"DA" | b"DS" | b"DT" | b"FL" | b"FD" | b"IS" | b"LO" | b"LT"
            | b"PN" | b"SH" | b"SL" | b"SS" | b"ST" | b"TM" | b"UI" | b"UL" | b"US" => Self::Short,
            [b'A'..=b'Z', b'A'..=b'Z'] => Self::Long,
            [b' '..=b'~', b' '..=b'~'] | [0, 0] => Self::Short,
            _ => Self::None,
        }
    }
}

/// Whether two letters are a VR (PS3.5 table 6.2-1).
pub fn has_vr(letters: &[u8]) -> bool {
    let Some(letters) = letters.first_chunk::<2>().filter(|_| letters.len() == 2) else { return false };
    let capitals = letters.iter().all(u8::is_ascii_uppercase);
    let long = [b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"];
    long.contains(&letters) || (capitals && Form::of(*letters) == Form::Short)
}

//! How a transfer syntax encodes elements (PS3.5 annex A).

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

    pub(super) fn u16(self, bytes: &[u8]) -> u16 {
        let bytes = [bytes[0], bytes[1]];
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    pub(super) fn u32(self, bytes: &[u8]) -> u32 {
        let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }
}

/// VRs of PS3.5 table 6.2-1 with a two-byte length.
const SHORT: [&[u8; 2]; 21] = [
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL",
    b"SS", b"ST", b"TM", b"UI", b"UL", b"US",
];
/// VRs with a four-byte length.
const LONG: [&[u8; 2]; 13] =
    [b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"];

/// Whether the length has four bytes; unknown letters are of the long form.
pub(super) fn is_long(vr: &[u8]) -> bool {
    !SHORT.iter().any(|short| *short == vr)
}

/// Whether two letters are a VR.
pub fn has_vr(letters: &[u8]) -> bool {
    SHORT.iter().chain(&LONG).any(|vr| *vr == letters)
}

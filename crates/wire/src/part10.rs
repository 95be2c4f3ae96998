//! The head of a DICOM file (PS3.10 chapter 7): preamble, prefix and file meta group, before the data set.

use crate::scan::{has_vr, is_uid};

/// Bytes of a file in which its data set must begin.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;
const PREAMBLE_BYTES: usize = 128;
const PREFIX: &[u8] = b"DICM";
const IMPLICIT: &str = "1.2.840.10008.1.2";
const EXPLICIT: &str = "1.2.840.10008.1.2.1";
const EXPLICIT_BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

/// What the head of a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// (0002,0002), padding removed; empty when it lacks.
    pub sop_class: String,
    /// (0002,0003), padding removed; empty when it lacks.
    pub sop_instance: String,
    /// (0002,0010), padding removed. Where there is none it is guessed from the first element.
    pub transfer_syntax: String,
    /// Where the data set begins, in bytes.
    pub data_set_at: usize,
}

impl Head {
    /// Reads the first bytes of a file, at most [`HEAD_BYTES_MAX`] of them. Files without preamble or without meta group are read as well;
    /// `None` when no data set begins in these bytes.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let prefixed = bytes.get(PREAMBLE_BYTES..PREAMBLE_BYTES + PREFIX.len()) == Some(PREFIX);
        let begin = if prefixed { PREAMBLE_BYTES + PREFIX.len() } else { 0 };
        let mut head = Self { data_set_at: begin, ..Self::default() };
        let mut end = None;
        while bytes.get(head.data_set_at..)?.starts_with(&[0x02, 0x00]) && end != Some(head.data_set_at) {
            let (number, value, next) = element(bytes, head.data_set_at)?;
            let text = || String::from_utf8_lossy(value).trim_matches(['\0', ' ']).to_owned();
            match number {
                0x0000 => {
                    let length = value.first_chunk::<4>().map(|b| u32::from_le_bytes(*b))?;
                    end = next.checked_add(usize::try_from(length).ok()?);
                }
                0x0002 => head.sop_class = text(),
                0x0003 => head.sop_instance = text(),
                0x0010 => head.transfer_syntax = text(),
                _ => {}
            }
            head.data_set_at = next;
        }
        if !is_uid(&head.transfer_syntax) {
            guess(bytes.get(head.data_set_at..)?)?.clone_into(&mut head.transfer_syntax);
        }
        Some(head)
    }
}

/// Number, value and end of the element of group 2 at a place. Some files write the group without VRs.
fn element(bytes: &[u8], at: usize) -> Option<(u16, &[u8], usize)> {
    let head = bytes.get(at..at + 8)?;
    let word = |from: usize| usize::from(u16::from_le_bytes([head[from], head[from + 1]]));
    let long = |bytes: &[u8]| usize::try_from(u32::from_le_bytes(*bytes.first_chunk()?)).ok();
    let (begin, length) = match &head[4..6] {
        b"OB" | b"UN" => (at + 12, long(bytes.get(at + 8..)?)?),
        vr if has_vr(vr) => (at + 8, word(6)),
        _ => (at + 8, long(&head[4..])?),
    };
    let end = begin.checked_add(length)?;
    let number = u16::from_le_bytes([head[2], head[3]]);
    Some((number, bytes.get(begin..end)?, end))
}

/// The encoding of a data set nothing is told of: its first element is of a low group, with a VR or not.
fn guess(data_set: &[u8]) -> Option<&'static str> {
    let first = data_set.first_chunk::<8>()?;
    let low = |number: u16| (0x0003..0x0100).contains(&number);
    let little = low(u16::from_le_bytes([first[0], first[1]]));
    let big = low(u16::from_be_bytes([first[0], first[1]]));
    match (has_vr(&first[4..6]), little, big) {
        (true, true, _) => Some(EXPLICIT),
        (true, _, true) => Some(EXPLICIT_BIG_ENDIAN),
        (false, true, _) => Some(IMPLICIT),
        _ => None,
    }
}

/// Writes a head: preamble of zeros, `DICM`, and a file meta group that is a pure function of its arguments.
pub fn head(
    sop_class: &str,
    sop_instance: &str,
    transfer_syntax: &str,
    implementation: (&str, &str),
) -> Vec<u8> {
    let mut group = Vec::with_capacity(256);
    let mut element = |number: u16, vr: &[u8; 2], value: &[u8]| {
        group.extend([0x02, 0x00]);
        group.extend(number.to_le_bytes());
        group.extend_from_slice(vr);
        if vr == b"OB" {
            group.extend([0, 0]);
            group.extend(u32::try_from(value.len()).unwrap_or(0).to_le_bytes());
        } else {
            group.extend(u16::try_from(value.len()).unwrap_or(0).to_le_bytes());
        }
        group.extend_from_slice(value);
    };
    let uid = |text: &str| if text.len().is_multiple_of(2) { text.to_owned() } else { format!("{text}\0") };
    element(0x0001, b"OB", &[0, 1]);
    element(0x0002, b"UI", uid(sop_class).as_bytes());
    element(0x0003, b"UI", uid(sop_instance).as_bytes());
    element(0x0010, b"UI", uid(transfer_syntax).as_bytes());
    element(0x0012, b"UI", uid(implementation.0).as_bytes());
    element(0x0013, b"SH", implementation.1.as_bytes());
    let mut file = vec![0; PREAMBLE_BYTES];
    file.extend_from_slice(PREFIX);
    file.extend([0x02, 0x00, 0x00, 0x00, b'U', b'L', 4, 0]);
    file.extend(u32::try_from(group.len()).unwrap_or(0).to_le_bytes());
    file.extend(group);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA_SET: &[u8] = b"\x08\0\x18\0UI\x04\x001.2\0";

    #[test]
    fn what_is_written_is_read_and_the_data_set_begins_behind_it() {
        let mut file = head("1.2.3", "1.2.3.4", EXPLICIT, ("2.25.1", "NAME"));
        let data_set_at = file.len();
        file.extend(DATA_SET);
        let read = Head::read(&file).unwrap();
        assert_eq!(
            read,
            Head {
                sop_class: "1.2.3".into(),
                sop_instance: "1.2.3.4".into(),
                transfer_syntax: EXPLICIT.into(),
                data_set_at
            }
        );
        // the group's length ends it, even where the data set (deflated) begins with the bytes of group 2
        file[data_set_at..data_set_at + 2].copy_from_slice(&[2, 0]);
        assert_eq!(Head::read(&file).unwrap().data_set_at, data_set_at);
        // without preamble
        assert_eq!(Head::read(&file[132..]).unwrap().data_set_at, data_set_at - 132);
        assert_eq!(Head::read(&file[..140]), None);
    }

    #[test]
    fn without_meta_group_the_encoding_is_guessed() {
        let implicit = b"\x08\0\x18\0\x04\0\0\x001.2\0";
        let big = b"\0\x08\0\x18UI\0\x041.2\0";
        for (bytes, syntax) in [(DATA_SET, EXPLICIT), (implicit, IMPLICIT), (big, EXPLICIT_BIG_ENDIAN)] {
            let read = Head::read(bytes).unwrap();
            assert_eq!((read.transfer_syntax.as_str(), read.data_set_at), (syntax, 0));
        }
        for bytes in [b"".as_slice(), b"x", b"not a dicom file at all"] {
            assert_eq!(Head::read(bytes), None);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
            let _ = Head::read(&bytes);
            let mut meta = vec![2, 0];
            meta.extend(&bytes);
            let _ = Head::read(&meta);
        }
    }
}

//! A message as segments and leaves. Every byte of the text belongs to a segment, a terminator or a fault.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use hl7_parser::message::Separators as CrateSeparators;
use hl7_parser::parser::parse_segment_with_separators;

use super::{Header, Limits, charset, unescape};
use crate::Fault;

/// A message, decoded and split.
#[derive(Clone, Debug)]
pub struct Message {
    /// MSH, from bytes.
    pub header: Header,
    /// The decoded text.
    pub text: String,
    /// The segments in order, MSH first.
    pub segments: Vec<Segment>,
    /// What was odd. A fault that rejects means that the message cannot be taken.
    pub faults: Vec<Fault>,
    /// Bytes before MSH, when text positions are byte positions.
    byte_offset: Option<usize>,
    /// Bytes of terminators and of lines that are no segments.
    pub other_bytes: usize,
}

/// One segment.
#[derive(Clone, Debug)]
pub struct Segment {
    /// `PID`
    pub name: String,
    /// Which of this name it is, from 1.
    pub number: usize,
    /// Its place in the text.
    pub range: Range<usize>,
    /// Its populated values, in order.
    pub leaves: Vec<Leaf>,
}

/// One populated value: a subcomponent. Numbers start at 1.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub struct Leaf {
    pub field: u16,
    pub repeat: u16,
    pub component: u16,
    pub subcomponent: u16,
    /// Place in the message's text.
    pub range: Range<usize>,
}

impl Message {
    /// Reads a message. `None` when there is no MSH.
    pub fn read(bytes: &[u8], limits: &Limits) -> Option<Self> {
        let header = Header::read(bytes)?;
        let mut faults = Vec::new();
        let body = &bytes[header.offset..];
        let declared = header.text(18);
        let (text, plain) = match charset::decode(body, &declared, &mut faults) {
            Ok(text) => {
                let plain = matches!(text, Cow::Borrowed(_));
                (text.into_owned(), plain)
            }
            Err(fault) => {
                faults.push(fault);
                (String::new(), false)
            }
        };
        if header.offset > 0 {
            faults.push(Fault::odd(
                100,
                "MSH",
                format!("{} bytes before the message were skipped", header.offset),
            ));
        }
        let byte_offset = plain.then_some(header.offset);
        let mut message = Self { header, text, segments: Vec::new(), faults, byte_offset, other_bytes: 0 };
        if message.header.separators.are_usable() {
            message.split(limits);
        } else {
            message.faults.push(Fault::wrong(100, "MSH-2", "the separators are not distinct or are letters"));
        }
        Some(message)
    }

    /// The first segment with a name.
    pub fn segment(&self, name: &str) -> Option<&Segment> {
        self.segments.iter().find(|segment| segment.name == name)
    }

    /// A value, unescaped.
    pub fn value(&self, leaf: &Leaf) -> Cow<'_, str> {
        unescape(self.raw(leaf), &self.header.separators)
    }

    /// A value as sent.
    pub fn raw(&self, leaf: &Leaf) -> &str {
        &self.text[leaf.range.clone()]
    }

    /// Where a range of the text lies in the bytes received; `None` when the message was transcoded.
    pub fn bytes_of(&self, range: &Range<usize>) -> Option<(u32, u32)> {
        let offset = self.byte_offset?;
        Some((u32::try_from(range.start + offset).ok()?, u32::try_from(range.end + offset).ok()?))
    }

    fn split(&mut self, limits: &Limits) {
        let text = std::mem::take(&mut self.text);
        let field = char::from(self.header.separators.field);
        let mut leaves = 0;
        let mut start = 0;
        let mut numbers: HashMap<String, usize> = HashMap::new();
        for (at, _) in
            text.char_indices().filter(|(_, c)| *c == '\r' || *c == '\n').chain([(text.len(), ' ')])
        {
            let line = &text[start..at];
            let trimmed = line.trim_start_matches([' ', '\t']);
            let begin = start + line.len() - trimmed.len();
            self.other_bytes += begin - start + usize::from(at < text.len());
            start = at + 1;
            if trimmed.is_empty() {
                continue;
            }
            if self.segments.len() >= limits.segments_max || leaves >= limits.leaves_max {
                self.faults.push(Fault::wrong(
                    100,
                    format!("byte {begin}"),
                    "the message has too many segments or values",
                ));
                break;
            }
            if !is_segment(trimmed, field) {
                self.other_bytes += trimmed.len();
                self.faults.push(Fault::odd(
                    100,
                    format!("byte {begin}"),
                    "a line is no segment and was not read",
                ));
                continue;
            }
            let name = trimmed[..3].to_ascii_uppercase();
            let number = numbers.entry(name.clone()).or_insert(0);
            *number += 1;
            let number = *number;
            let found =
                if name == "MSH" { self.header_leaves(trimmed, begin) } else { self.leaves(trimmed, begin) };
            leaves += found.len();
            self.segments.push(Segment { name, number, range: begin..begin + trimmed.len(), leaves: found });
        }
        self.text = text;
    }

    /// The values of a segment, by the structure `hl7-parser` finds. It never sees a whole message, a blank line or an escape.
    fn leaves(&mut self, line: &str, begin: usize) -> Vec<Leaf> {
        let separators = self.crate_separators();
        let Ok(segment) = parse_segment_with_separators(line, separators) else {
            self.faults.push(Fault::odd(100, format!("byte {begin}"), "a segment was not understood"));
            return Vec::new();
        };
        let mut leaves = Vec::new();
        let origin = line.as_ptr() as usize;
        for (field, one) in segment.fields.iter().enumerate() {
            for (repeat, one) in one.repeats.iter().enumerate() {
                for (component, one) in one.components.iter().enumerate() {
                    for (subcomponent, one) in one.subcomponents.iter().enumerate() {
                        if !one.value.is_empty() {
                            let start = begin + one.value.as_ptr() as usize - origin;
                            let range = start..start + one.value.len();
                            leaves.push(leaf(field + 1, repeat + 1, component + 1, subcomponent + 1, range));
                        }
                    }
                }
            }
        }
        leaves
    }

    /// MSH counts its separator as a field, and MSH-2 is not split.
    fn header_leaves(&self, line: &str, begin: usize) -> Vec<Leaf> {
        let separators = self.header.separators;
        let mut leaves = Vec::new();
        let mut at = begin;
        for (number, field) in line.split(char::from(separators.field)).enumerate() {
            if number == 1 && !field.is_empty() {
                leaves.push(leaf(2, 1, 1, 1, at..at + field.len()));
            } else if number > 1 {
                let mut start = at;
                for (component, value) in field.split(char::from(separators.component)).enumerate() {
                    if !value.is_empty() {
                        leaves.push(leaf(number + 1, 1, component + 1, 1, start..start + value.len()));
                    }
                    start += value.len() + 1;
                }
            }
            at += field.len() + 1;
        }
        leaves
    }

    fn crate_separators(&self) -> CrateSeparators {
        let own = self.header.separators;
        CrateSeparators {
            field: char::from(own.field),
            component: char::from(own.component),
            subcomponent: char::from(own.subcomponent),
            repetition: char::from(own.repetition),
            escape: char::from(own.escape),
            lenient_newlines: false,
        }
    }
}

impl Segment {
    /// How often a field repeats (0 = empty).
    pub fn repeats(&self, field: u16) -> u16 {
        self.leaves.iter().filter(|leaf| leaf.field == field).map(|leaf| leaf.repeat).max().unwrap_or(0)
    }

    /// One value.
    pub fn leaf(&self, field: u16, repeat: u16, component: u16, subcomponent: u16) -> Option<&Leaf> {
        let wanted = (field, repeat, component, subcomponent);
        let key = |leaf: &Leaf| (leaf.field, leaf.repeat, leaf.component, leaf.subcomponent);
        self.leaves.binary_search_by_key(&wanted, key).ok().map(|at| &self.leaves[at])
    }
}

fn leaf(field: usize, repeat: usize, component: usize, subcomponent: usize, range: Range<usize>) -> Leaf {
    let small = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    Leaf {
        field: small(field),
        repeat: small(repeat),
        component: small(component),
        subcomponent: small(subcomponent),
        range,
    }
}

/// `[A-Za-z][A-Za-z0-9]{2}` followed by the field separator or the end of the line.
fn is_segment(line: &str, field: char) -> bool {
    let bytes = line.as_bytes();
    bytes.len() >= 3
        && bytes[0].is_ascii_alphabetic()
        && bytes[1..3].iter().all(u8::is_ascii_alphanumeric)
        && (bytes.len() == 3 || line[3..].starts_with(field))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Message {
        Message::read(text.as_bytes(), &Limits::default()).unwrap()
    }

    #[test]
    fn values_are_found_by_their_numbers() {
        let message = read(
            "MSH|^~\\&|A|B|||2024||ADT^A01|1|P|2.5\rPID|1||ID1^^^AUTH&1.2.3&ISO^MR~ID2||Doe^J\\T\\J||\r\nZZZ\r",
        );
        let pid = message.segment("PID").unwrap();
        let value = |f, r, c, s| pid.leaf(f, r, c, s).map(|leaf| message.value(leaf).into_owned());
        assert_eq!(value(3, 1, 1, 1).as_deref(), Some("ID1"));
        assert_eq!(value(3, 1, 4, 2).as_deref(), Some("1.2.3"));
        assert_eq!(value(3, 2, 1, 1).as_deref(), Some("ID2"));
        assert_eq!(value(5, 1, 2, 1).as_deref(), Some("J&J"));
        assert_eq!(value(7, 1, 1, 1), None);
        assert_eq!(pid.repeats(3), 2);
        let msh = message.segment("MSH").unwrap();
        assert_eq!(message.raw(msh.leaf(9, 1, 2, 1).unwrap()), "A01");
        assert_eq!(message.raw(msh.leaf(2, 1, 1, 1).unwrap()), "^~\\&");
        assert_eq!(message.segments.len(), 3);
    }

    #[test]
    fn nothing_after_a_blank_or_junk_line_is_lost() {
        let message = read("MSH|^~\\&|A\r\r\rPID|1\rjunk line here\r  pv1|1|O\rZ\rOBX|1");
        let names: Vec<&str> = message.segments.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["MSH", "PID", "PV1", "OBX"]);
        assert_eq!(message.faults.len(), 2);
    }

    proptest! {
        #[test]
        fn every_byte_is_accounted_for(lines in proptest::collection::vec("[A-Za-z|^~\\\\& é]{0,20}", 0..20), end in "[\r\n]{1,2}") {
            let text = format!("MSH|^~\\&|A{end}{}", lines.join(&end));
            let message = read(&text);
            let segments: usize = message.segments.iter().map(|s| s.range.len()).sum();
            prop_assert_eq!(segments + message.other_bytes, text.len());
            for segment in &message.segments {
                prop_assert!(segment.leaves.is_sorted_by_key(|l| (l.field, l.repeat, l.component, l.subcomponent)));
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut message = b"MSH|^~\\&|".to_vec();
            message.extend(&bytes);
            let _ = Message::read(&message, &Limits::default());
            let _ = Message::read(&bytes, &Limits::default());
        }
    }
}

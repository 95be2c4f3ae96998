//! A message as segments and leaves. Every byte of the text belongs to a segment, a terminator or a fault.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use hl7_parser::message::Separators as CrateSeparators;
use hl7_parser::parser::parse_segment_with_separators;

use super::{Header, Limits, Separators, charset, unescape};
use crate::Fault;

/// Lines that are no segments, told one by one; the others are counted.
const STRAYS_MAX: usize = 10;

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
        let mut strays = 0;
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
            if !is_segment(trimmed, field) {
                self.other_bytes += trimmed.len();
                strays += 1;
                if strays <= STRAYS_MAX {
                    let text = "a line is no segment and was not read";
                    self.faults.push(Fault::odd(100, format!("byte {begin}"), text));
                }
                continue;
            }
            let name = trimmed[..3].to_ascii_uppercase();
            let number = numbers.entry(name.clone()).or_insert(0);
            *number += 1;
            let number = *number;
            let left = limits.leaves_max.saturating_sub(leaves);
            let refused = if self.segments.len() >= limits.segments_max {
                let text = format!("the message has more than {} segments", limits.segments_max);
                Some((String::new(), text))
            } else {
                Measure::of(trimmed, self.header.separators).refused(limits, left)
            };
            if let Some((within, text)) = refused {
                let place = if number > 1 { format!("{name}[{number}]") } else { name };
                let text = format!("{text}; send it in parts");
                self.faults.push(Fault::wrong(100, format!("{place}{within}"), text));
                break;
            }
            let found =
                if name == "MSH" { self.header_leaves(trimmed, begin) } else { self.leaves(trimmed, begin) };
            leaves += found.len();
            self.segments.push(Segment { name, number, range: begin..begin + trimmed.len(), leaves: found });
        }
        if strays > STRAYS_MAX {
            let text = format!("{} further lines are no segments and were not read", strays - STRAYS_MAX);
            self.faults.push(Fault::odd(100, "", text));
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

/// What a line comes to, counted before anything is built of it.
#[derive(Clone, Copy, Debug, Default)]
struct Measure {
    /// Values that hold something.
    values: usize,
    /// Values and empty places between separators.
    places: usize,
    /// Where the most repetitions are, and how many.
    repeats: (usize, usize),
    /// In which field the largest number of a field, component or subcomponent is, and that number.
    largest: (usize, usize),
}

impl Measure {
    fn of(line: &str, separators: Separators) -> Self {
        let mut measure = Self::default();
        let (mut field, mut repeat, mut component, mut subcomponent) = (0, 1, 1, 1);
        // the name of the segment is no value
        let mut is_empty = false;
        for byte in line.bytes() {
            let is_field = byte == separators.field;
            if is_field {
                field += 1;
                (repeat, component, subcomponent) = (1, 1, 1);
            } else if byte == separators.repetition {
                repeat += 1;
                (component, subcomponent) = (1, 1);
            } else if byte == separators.component {
                component += 1;
                subcomponent = 1;
            } else if byte == separators.subcomponent {
                subcomponent += 1;
            } else {
                measure.values += usize::from(is_empty);
                is_empty = false;
                continue;
            }
            is_empty = true;
            measure.places += 1;
            let largest = field.max(component).max(subcomponent);
            if largest > measure.largest.1 {
                measure.largest = (field, largest);
            }
            if repeat > measure.repeats.1 {
                measure.repeats = (field, repeat);
            }
        }
        measure
    }

    /// Why the line is not taken: the place within the segment, and which limit it exceeds. `left` = values that the message may still have.
    fn refused(&self, limits: &Limits, left: usize) -> Option<(String, String)> {
        let (field, repeats) = self.repeats;
        if repeats > limits.repeats_max.min(usize::from(u16::MAX)) {
            let text = format!("the field has more than {} repetitions", limits.repeats_max);
            return Some((format!("-{field}"), text));
        }
        let (field, largest) = self.largest;
        if largest > usize::from(u16::MAX) {
            let text = format!("the segment has a field, component or subcomponent beyond {}", u16::MAX);
            return Some((if field < largest { format!("-{field}") } else { String::new() }, text));
        }
        if self.values > left {
            return Some((String::new(), format!("the message has more than {} values", limits.leaves_max)));
        }
        let is_hollow = self.places > limits.leaves_max;
        is_hollow.then(|| {
            let text = format!("the segment has more than {} values and empty places", limits.leaves_max);
            (String::new(), text)
        })
    }
}

impl Segment {
    /// How often a field repeats (0 = empty).
    pub fn repeats(&self, field: u16) -> u16 {
        let end = self.leaves.partition_point(|leaf| leaf.field <= field);
        self.leaves[..end].last().filter(|leaf| leaf.field == field).map_or(0, |leaf| leaf.repeat)
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

    #[test]
    fn limits_hold_within_one_segment_and_name_the_place_and_the_figure() {
        let limits = Limits { leaves_max: 20, repeats_max: 4, segments_max: 4, ..Limits::default() };
        let refused = |rest: &str| {
            let text = format!("MSH|^~\\&|A\rPID|1\r{rest}");
            let message = Message::read(text.as_bytes(), &limits).unwrap();
            let fault = message.faults.iter().find(|fault| fault.rejects);
            fault.map(|fault| (fault.place.clone(), fault.text.clone()))
        };
        assert_eq!(refused("OBX|1|TX|C||a~b~c~d"), None);
        for (rest, place, figure) in [
            ("PID|2||a~b~c~d~e", "PID[2]-3", "4 repetitions"),
            ("PID|2||~~~~~", "PID[2]-3", "4 repetitions"),
            ("ZZZ|1^2^3^4^5^6^7^8^9^10^11^12^13^14^15^16^17^18^19", "ZZZ", "20 values"),
            ("ZZZ||||||||||||||||||||||x", "ZZZ", "20 values and empty places"),
            ("NTE|1\rNTE|2\rNTE|3", "NTE[3]", "4 segments"),
        ] {
            let (at, text) = refused(rest).unwrap_or_default();
            assert_eq!(at, place, "{rest}: {text}");
            assert!(text.contains(figure), "{rest}: {text}");
        }
    }

    #[test]
    fn of_many_lines_that_are_no_segments_the_first_are_told_and_the_others_counted() {
        let message = read(&format!("MSH|^~\\&|A\r{}PID|1", "x\r".repeat(50)));
        assert_eq!((message.faults.len(), message.segments.len()), (11, 2));
        assert!(message.faults[10].text.starts_with("40 further lines"), "{}", message.faults[10].text);
    }

    proptest! {
        #[test]
        fn a_line_is_measured_as_it_is_read(line in "[A-Za-z|^~&é]{0,60}") {
            let message = read(&format!("MSH|^~\\&|A\rZZZ|{line}"));
            let found = &message.segments[1];
            let measure = Measure::of(&message.text[found.range.clone()], message.header.separators);
            prop_assert_eq!(measure.values, found.leaves.len());
            let most = found.leaves.iter().map(|leaf| leaf.repeat).max().unwrap_or(0);
            prop_assert!(measure.repeats.1 >= usize::from(most));
        }

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

//! Push scanner for DICOM data sets (PS3.5 chapter 7): fed with slices of any size, it copies the wanted elements and checks structure, depth and
//! lengths to the end of the data set. Values that are not wanted are counted past, not copied. It never recurses, and never allocates by a
//! length that was only announced.

mod charset;
mod header;
mod inflate;
mod syntax;

pub use header::{Element, Header, Tag, is_uid};
pub use syntax::{Syntax, has_vr};

use self::header::is_wanted;
use self::inflate::{Inflater, Step};
use self::syntax::{Form, Head};

/// Limits of a data set.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Nested sequences.
    pub depth_max: usize,
    /// Elements and items in all.
    pub elements_max: usize,
    /// Bytes of the wanted elements, also of those left out for `wanted_bytes_max`: a data set with more of them is malformed. What is
    /// skipped does not count.
    pub header_bytes_max: usize,
    /// Bytes of one copied value; longer ones are cut.
    pub value_bytes_max: usize,
    /// Bytes of all copied elements; further ones are left out. Elements in items have half of them.
    pub wanted_bytes_max: usize,
    /// Bytes inflated of a deflated data set.
    pub inflated_bytes_max: u64,
    /// Largest ratio of inflated to received bytes before pixel data.
    pub inflate_ratio_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth_max: 64,
            elements_max: 5_000_000,
            header_bytes_max: 16 << 20,
            value_bytes_max: 4096,
            wanted_bytes_max: 65_536,
            inflated_bytes_max: 2 << 30,
            inflate_ratio_max: 100,
        }
    }
}

/// Why a data set is malformed. The place is a byte position of the (inflated) data set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason} at byte {position}")]
pub struct Malformed {
    /// What is wrong.
    pub reason: &'static str,
    /// Where: the begin of the element at fault, or the end of a data set that ends too early.
    pub position: u64,
    /// The element at fault, where it is known: Offending Element (0000,0901).
    pub element: Option<Tag>,
}

/// Pixel data in its three forms.
const PIXEL_DATA: [u32; 3] = [0x7FE0_0008, 0x7FE0_0009, 0x7FE0_0010];
/// Counted for a copied element besides its value.
const ELEMENT_BYTES: usize = 32;

/// What a level is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Elements: the data set itself, or an item.
    Elements,
    /// Items that are read.
    Items,
    /// Fragments of an encapsulated value: bytes that mean nothing here (PS3.5 section A.4), at whatever level the value stands.
    Fragments,
    /// Items of a value nobody knows. Those that say their length are passed over.
    Unknown,
}

/// The data set, a sequence or an item that is open.
#[derive(Clone, Copy, Debug)]
struct Level {
    /// Of the sequence.
    tag: Tag,
    kind: Kind,
    /// Where it ends; `None` = at its delimiter, and the data set with its last byte.
    end: Option<u64>,
    /// Where it ends at the latest, for what is around it.
    bound: u64,
    /// Items seen of a sequence; the number of an item, from 1.
    number: u16,
    syntax: Syntax,
    /// Whether its encoding has not shown yet: its first element tells.
    is_fresh: bool,
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug)]
enum State {
    Head,
    /// So many bytes of a value nobody wants.
    Skip(u64),
    /// A value of which so many bytes are copied and the rest is skipped.
    Copy {
        bytes: usize,
        rest: u64,
    },
}

/// A data set being scanned.
#[derive(Debug)]
pub struct Scanner {
    limits: Limits,
    /// The innermost level that is open, and those around it, from the data set inwards.
    level: Level,
    outer: Vec<Level>,
    state: State,
    /// A header of which some bytes are missing.
    partial: Vec<u8>,
    /// The value being copied.
    value: Vec<u8>,
    /// Bytes of the data set that were taken, an incomplete header not among them.
    position: u64,
    /// The element at hand and where it begins.
    element: (Tag, u64),
    elements: usize,
    header_bytes: usize,
    wanted_bytes: usize,
    /// Whether the value at top level before had an odd length.
    was_odd: bool,
    is_past_header: bool,
    header: Header,
    malformed: Option<Malformed>,
    inflater: Option<Inflater>,
    received: u64,
    listing_max: usize,
}

impl Scanner {
    /// A scanner for a data set in a transfer syntax.
    pub fn new(transfer_syntax: &str, limits: Limits) -> Self {
        let syntax = Syntax::of(transfer_syntax);
        let level = Level {
            tag: Tag(0),
            kind: Kind::Elements,
            end: None,
            bound: u64::MAX,
            number: 0,
            syntax,
            is_fresh: true,
        };
        Self {
            limits,
            level,
            outer: Vec::new(),
            state: State::Head,
            partial: Vec::with_capacity(Head::BYTES_MAX),
            value: Vec::new(),
            position: 0,
            element: (Tag(0), 0),
            elements: 0,
            header_bytes: 0,
            wanted_bytes: 0,
            was_odd: false,
            is_past_header: false,
            header: Header::default(),
            malformed: None,
            inflater: syntax.deflated.then(Inflater::new),
            received: 0,
            listing_max: 0,
        }
    }

    /// Lists the tags of all elements with a value at top level but pixel data, at most so many: for showing what is not mapped.
    #[must_use]
    pub fn listing(self, listing_max: usize) -> Self {
        Self { listing_max, ..self }
    }

    /// The next bytes of the data set. Costs nothing once it is malformed.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.received += bytes.len() as u64;
        match self.inflater.take() {
            None => self.plain(bytes),
            Some(mut inflater) => {
                self.inflate(&mut inflater, bytes);
                self.inflater = Some(inflater);
            }
        }
    }

    /// Whether pixel data or an error is reached: what the record needs has passed.
    pub fn is_past_header(&self) -> bool {
        self.is_past_header || self.malformed.is_some()
    }

    /// What was copied so far, of whatever a data set: for whoever does not judge it.
    pub fn into_header(self) -> Header {
        self.header
    }

    /// The end of the data set.
    ///
    /// # Errors
    /// Where and why it is malformed.
    pub fn finish(mut self) -> Result<Header, Malformed> {
        if self.received == 0 {
            self.fail("the data set is empty");
        }
        let is_inflated = self.inflater.as_ref().is_none_or(Inflater::has_ended);
        let is_padded = self.was_odd && self.partial == [0];
        let is_at_an_end = matches!(self.state, State::Head)
            && self.outer.is_empty()
            && (self.partial.is_empty() || is_padded)
            && is_inflated;
        if !is_at_an_end && self.malformed.is_none() {
            self.position += self.partial.len() as u64;
            self.malformed = Some(Malformed {
                reason: "the data set ends inside an element",
                position: self.position,
                element: self.unfinished(),
            });
        }
        if !self.inflater.as_ref().is_none_or(Inflater::ends_cleanly) {
            self.element = (Tag(0), self.position);
            self.fail("bytes follow the end of the deflated data set");
        }
        if self.elements == 0 {
            self.fail("the data set is empty");
        }
        if let Some(malformed) = self.malformed {
            return Err(malformed);
        }
        if is_padded {
            self.header.note("a byte follows the last value, whose length is odd");
        }
        self.header.note_charsets();
        Ok(self.header)
    }

    /// The element that lacks its end.
    fn unfinished(&self) -> Option<Tag> {
        match (self.state, self.partial.first_chunk::<4>()) {
            (State::Head, Some(bytes)) => Some(self.level.syntax.tag(*bytes)).filter(|tag| !tag.is_mark()),
            (State::Head, None) => (!self.outer.is_empty()).then_some(self.level.tag),
            (State::Skip(_) | State::Copy { .. }, _) => Some(self.element.0),
        }
    }

    fn inflate(&mut self, inflater: &mut Inflater, mut bytes: &[u8]) {
        let mut out = [0; inflate::PIECE_BYTES];
        while self.malformed.is_none() {
            match inflater.step(&mut bytes, &mut out) {
                Step::Made(made) => self.plain(&out[..made]),
                Step::Dry => return,
                Step::Broken => return self.fail("the deflated data set is broken"),
            }
            let ratio = self.limits.inflate_ratio_max as u64;
            let by_ratio = self.received.saturating_mul(ratio).max(inflate::PIECE_BYTES as u64);
            let made = inflater.made_bytes();
            if made > self.limits.inflated_bytes_max || (!self.is_past_header && made > by_ratio) {
                self.fail("the deflated data set inflates too far");
            }
        }
    }

    fn plain(&mut self, mut bytes: &[u8]) {
        while self.malformed.is_none() && !bytes.is_empty() {
            let taken = match self.state {
                State::Head => self.head(bytes),
                State::Skip(left) => self.skip(left, bytes),
                State::Copy { bytes: wanted, rest } => self.copy(wanted, rest, bytes),
            };
            bytes = &bytes[taken..];
        }
    }

    /// Passes over what there is of a value.
    fn skip(&mut self, left: u64, bytes: &[u8]) -> usize {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        self.position += taken as u64;
        self.state = State::Skip(left - taken as u64);
        if left == taken as u64 {
            self.value_ended();
        }
        taken
    }

    /// Copies what there is of a value.
    fn copy(&mut self, wanted: usize, rest: u64, bytes: &[u8]) -> usize {
        let taken = (wanted - self.value.len()).min(bytes.len());
        self.value.extend_from_slice(&bytes[..taken]);
        self.position += taken as u64;
        if self.value.len() < wanted {
            return taken;
        }
        let element = Element {
            tag: self.element.0,
            parent: self.parent().flatten(),
            value: std::mem::take(&mut self.value),
            big_endian: self.level.syntax.big_endian,
        };
        self.header.push(element, rest > 0);
        self.state = State::Skip(rest);
        if rest == 0 {
            self.value_ended();
        }
        taken
    }

    /// Takes a header, or what there is of it.
    fn head(&mut self, bytes: &[u8]) -> usize {
        if self.partial.is_empty()
            && let Some(head) = self.read_head(bytes)
        {
            self.begin(head);
            return head.bytes;
        }
        let needed = if self.partial.len() < Head::BYTES_MIN { Head::BYTES_MIN } else { Head::BYTES_MAX };
        let taken = (needed - self.partial.len()).min(bytes.len());
        self.partial.extend_from_slice(&bytes[..taken]);
        let mut partial = std::mem::take(&mut self.partial);
        if let Some(head) = self.read_head(&partial) {
            partial.clear();
            self.begin(head);
        }
        self.partial = partial;
        taken
    }

    /// Reads a header. The first one of a level tells whether VRs are really there: ordinary files lie about it.
    fn read_head(&mut self, bytes: &[u8]) -> Option<Head> {
        let [a, b, c, d, letters @ .., g, h] = *bytes.first_chunk::<8>()?;
        let syntax = self.level.syntax;
        let is_blank = letters == [0, 0] && [g, h] == [0, 0];
        if self.level.is_fresh && !is_blank && !syntax.tag([a, b, c, d]).is_mark() {
            self.level.is_fresh = false;
            let is_other = if syntax.explicit { Form::of(letters) == Form::None } else { has_vr(&letters) };
            if is_other && !syntax.big_endian {
                self.level.syntax.explicit = !syntax.explicit;
                self.header.note("the encoding is other than the transfer syntax says");
            }
        }
        Head::read(bytes, self.level.syntax)
    }

    /// A header is complete: what begins with it?
    fn begin(&mut self, head: Head) {
        self.element = (head.tag, self.position);
        if !self.fits(head.bytes as u64) {
            return self.fail("an element is longer than what contains it");
        }
        self.position += head.bytes as u64;
        if head.tag.is_end() {
            return self.close(head.tag);
        }
        self.elements += 1;
        if self.elements > self.limits.elements_max {
            return self.fail("the data set has too many elements");
        }
        match (self.level.kind, head.tag) {
            (Kind::Elements, Tag::ITEM) => self.fail("an item stands where none belongs"),
            (Kind::Elements, _) => self.begin_element(head),
            (_, Tag::ITEM) => self.begin_item(head),
            _ => self.fail("an element stands between items"),
        }
    }

    fn begin_element(&mut self, head: Head) {
        if head.tag.group() == 0 {
            return self.fail("an element of a command stands in the data set");
        }
        if head.lacks_vr {
            self.header.note("an element has no vr");
        }
        let is_pixel_data = PIXEL_DATA.contains(&head.tag.0);
        if self.outer.is_empty() {
            self.was_odd = !head.is_undefined() && !head.length.is_multiple_of(2);
            self.is_past_header |= is_pixel_data;
            let is_listed = head.length > 0 && !is_pixel_data;
            if is_listed && self.header.listing.len() < self.listing_max {
                self.header.listing.push(head.tag);
            }
        }
        let is_unknown = head.vr == Some(*b"UN");
        let is_sequence = head.vr == Some(*b"SQ") || (head.vr.is_none() && header::is_sequence(head.tag));
        if !head.is_undefined() && !is_sequence {
            return self.begin_value(head);
        }
        let is_bulk = matches!(&head.vr, Some([b'O', b'B' | b'D' | b'F' | b'L' | b'V' | b'W']));
        let kind = match head.vr {
            _ if head.is_undefined() && (is_pixel_data || is_bulk) => Kind::Fragments,
            None => Kind::Items,
            Some([b'S', b'Q']) => Kind::Items,
            // items of UN are as those of the sequence it was, in implicit little endian (PS3.5 section 6.2.2)
            Some(_) if header::is_sequence(head.tag) => Kind::Items,
            Some(_) => Kind::Unknown,
        };
        let syntax = if is_unknown { Syntax::IMPLICIT } else { self.level.syntax };
        self.open(Level { tag: head.tag, kind, number: 0, syntax, ..self.level }, head.length);
    }

    fn begin_item(&mut self, head: Head) {
        self.level.number = self.level.number.saturating_add(1);
        match (self.level.kind, head.is_undefined()) {
            (Kind::Fragments, true) => self.fail("a fragment has no length"),
            (Kind::Fragments | Kind::Unknown, false) => self.skip_value(head.length),
            _ => self.open(Level { kind: Kind::Elements, is_fresh: true, ..self.level }, head.length),
        }
    }

    fn begin_value(&mut self, head: Head) {
        let copied = self.copied_bytes(&head);
        self.skip_value(head.length);
        if copied > 0 && self.malformed.is_none() {
            self.wanted_bytes += ELEMENT_BYTES + copied;
            self.state = State::Copy { bytes: copied, rest: u64::from(head.length) - copied as u64 };
        }
    }

    /// How much of a value is copied.
    fn copied_bytes(&mut self, head: &Head) -> usize {
        let Some(parent) = self.parent().filter(|parent| is_wanted(head.tag, parent.map(|(tag, _)| tag)))
        else {
            return 0;
        };
        let asked = (head.length as usize).min(self.limits.value_bytes_max);
        self.header_bytes += ELEMENT_BYTES + asked;
        if self.header_bytes > self.limits.header_bytes_max {
            self.fail("the elements of the record are too large");
        }
        let share = self.limits.wanted_bytes_max / if parent.is_some() { 2 } else { 1 };
        let room = share.saturating_sub(self.wanted_bytes + ELEMENT_BYTES);
        if asked > room {
            self.header.note("elements beyond the limit are left out");
            return 0;
        }
        asked
    }

    fn skip_value(&mut self, length: u32) {
        if !self.fits(u64::from(length)) {
            return self.fail("an element is longer than what contains it");
        }
        self.state = State::Skip(u64::from(length));
        if length == 0 {
            self.value_ended();
        }
    }

    fn open(&mut self, level: Level, length: u32) {
        if self.outer.len() >= 2 * self.limits.depth_max {
            return self.fail("sequences are nested too deep");
        }
        let has_length = length != Head::UNDEFINED;
        if has_length && !self.fits(u64::from(length)) {
            return self.fail("a sequence is longer than what contains it");
        }
        let end = has_length.then(|| self.position + u64::from(length));
        self.outer.push(self.level);
        self.level = Level { end, bound: end.unwrap_or(level.bound), ..level };
        self.value_ended();
    }

    /// A delimiter.
    fn close(&mut self, tag: Tag) {
        let is_item = self.level.kind == Kind::Elements;
        let belongs = self.level.end.is_none() && is_item == (tag == Tag::ITEM_END);
        match self.outer.pop().filter(|_| belongs) {
            Some(level) => {
                self.level = level;
                self.value_ended();
            }
            None => self.fail("a delimiter stands where none belongs"),
        }
    }

    /// Behind a value: what ends here as well, and then a header.
    fn value_ended(&mut self) {
        self.state = State::Head;
        while self.level.end.is_some_and(|end| self.position >= end)
            && let Some(level) = self.outer.pop()
        {
            self.level = level;
        }
    }

    /// Whether a length fits into the innermost level with a known end.
    fn fits(&self, length: u64) -> bool {
        self.position + length <= self.level.bound
    }

    /// The sequence and the item, from 0, of the element at hand; `None` when it stands deeper.
    fn parent(&self) -> Option<Option<(Tag, u16)>> {
        match self.outer.len() {
            0 => Some(None),
            2 => Some(Some((self.level.tag, self.level.number.saturating_sub(1)))),
            _ => None,
        }
    }

    /// The element at hand is at fault.
    fn fail(&mut self, reason: &'static str) {
        let (tag, position) = self.element;
        let element = (tag.0 != 0).then_some(tag);
        if self.malformed.is_none() {
            self.malformed = Some(Malformed { reason, position, element });
        }
    }
}

#[cfg(test)]
mod tests;

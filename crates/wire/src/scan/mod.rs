//! Push scanner for DICOM data sets (PS3.5 chapter 7): fed with slices of any size, it copies the wanted elements and checks structure, depth and
//! lengths up to the pixel data. It never recurses, and never allocates by a length that was only announced.

mod header;
mod syntax;

pub use header::{Element, Header, Tag, is_uid};
pub use syntax::{Syntax, has_vr};

use flate2::{Decompress, FlushDecompress, Status};

use self::header::is_wanted;

/// Limits of a data set.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Nested sequences and items.
    pub depth_max: usize,
    /// Elements before pixel data.
    pub elements_max: usize,
    /// Bytes of element headers and of values up to `value_bytes_max` before pixel data. Longer values are skipped and count only so far.
    pub header_bytes_max: usize,
    /// Bytes of one copied value; longer ones are cut.
    pub value_bytes_max: usize,
    /// Bytes of all copied values.
    pub wanted_bytes_max: usize,
    /// Bytes inflated before pixel data.
    pub inflated_bytes_max: usize,
    /// Largest ratio of inflated to received bytes.
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
            inflated_bytes_max: 16 << 20,
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
    /// Where.
    pub position: u64,
}

const ITEM: u32 = 0xFFFE_E000;
const ITEM_END: u32 = 0xFFFE_E00D;
const SEQUENCE_END: u32 = 0xFFFE_E0DD;
const UNDEFINED: u32 = u32::MAX;
/// Pixel data in its three forms: what lies behind is stored, not read.
const PIXEL_DATA: [u32; 3] = [0x7FE0_0008, 0x7FE0_0009, 0x7FE0_0010];
/// Inflated at a time.
const INFLATE_BYTES: usize = 16 * 1024;

/// A sequence or item that is open.
#[derive(Clone, Copy, Debug)]
struct Level {
    tag: Tag,
    is_item: bool,
    /// Where it ends; `None` = at its delimiter.
    end: Option<u64>,
    /// Items seen (of a sequence).
    items: u16,
    /// Whether elements inside are implicit little endian (UN of undefined length).
    implicit: bool,
}

/// What is done with the value of the element at hand.
#[derive(Clone, Copy, Debug)]
enum Value {
    Skip(u64),
    /// Copy so many bytes, then skip the rest.
    Copy {
        tag: Tag,
        bytes: usize,
        rest: u64,
    },
}

/// A data set being scanned.
#[derive(Debug)]
pub struct Scanner {
    limits: Limits,
    syntax: Syntax,
    sniffed: bool,
    pending: Vec<u8>,
    position: u64,
    elements: usize,
    header_bytes: usize,
    wanted_bytes: usize,
    levels: Vec<Level>,
    value: Option<Value>,
    header: Header,
    done: bool,
    malformed: Option<Malformed>,
    inflate: Option<(Decompress, u64)>,
    received: u64,
    listing_max: usize,
}

impl Scanner {
    /// A scanner for a data set in a transfer syntax.
    pub fn new(transfer_syntax: &str, limits: Limits) -> Self {
        let syntax = Syntax::of(transfer_syntax);
        let inflate = syntax.deflated.then(|| (Decompress::new(false), 0));
        Self {
            limits,
            syntax,
            sniffed: false,
            pending: Vec::new(),
            position: 0,
            elements: 0,
            header_bytes: 0,
            wanted_bytes: 0,
            levels: Vec::new(),
            value: None,
            header: Header::default(),
            done: false,
            malformed: None,
            inflate,
            received: 0,
            listing_max: 0,
        }
    }

    /// Lists the tags of all elements with a value at top level, at most so many: for showing what is not mapped.
    #[must_use]
    pub fn listing(self, listing_max: usize) -> Self {
        Self { listing_max, ..self }
    }

    /// The next bytes of the data set. Costs nothing once pixel data or an error is reached.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.received += bytes.len() as u64;
        if self.done || self.malformed.is_some() {
            return;
        }
        if self.inflate.is_some() {
            self.inflate(bytes);
        } else {
            self.plain(bytes);
        }
    }

    /// Whether the rest of the data set would not be looked at: pixel data or an error is reached.
    pub fn is_done(&self) -> bool {
        self.done || self.malformed.is_some()
    }

    /// The end of the data set.
    ///
    /// # Errors
    /// Where and why it is malformed.
    pub fn finish(mut self) -> Result<Header, Malformed> {
        if let Some(malformed) = self.malformed.take() {
            return Err(malformed);
        }
        if !self.done {
            self.close_levels();
            let unfinished = !self.pending.is_empty()
                || self.value.is_some_and(|v| !matches!(v, Value::Skip(0)))
                || !self.levels.is_empty();
            if unfinished {
                return Err(Malformed {
                    reason: "the data set ends inside an element",
                    position: self.position,
                });
            }
        }
        if self.elements == 0 {
            return Err(Malformed { reason: "the data set is empty", position: 0 });
        }
        Ok(self.header)
    }

    fn inflate(&mut self, mut bytes: &[u8]) {
        let Some((mut inflater, mut total)) = self.inflate.take() else { return };
        let mut out = vec![0; INFLATE_BYTES];
        loop {
            let (consumed, produced) = (inflater.total_in(), inflater.total_out());
            let status = inflater.decompress(bytes, &mut out, FlushDecompress::None);
            let used = usize::try_from(inflater.total_in() - consumed).unwrap_or(0);
            let made = usize::try_from(inflater.total_out() - produced).unwrap_or(0);
            bytes = &bytes[used..];
            total += made as u64;
            let too_much = total > self.limits.inflated_bytes_max as u64
                || total
                    > self
                        .received
                        .saturating_mul(self.limits.inflate_ratio_max as u64)
                        .max(INFLATE_BYTES as u64);
            self.plain(&out[..made]);
            if self.done || self.malformed.is_some() {
                break;
            }
            if too_much {
                self.fail("the deflated data set inflates too far");
                break;
            }
            match status {
                Err(_) => {
                    self.fail("the deflated data set is broken");
                    break;
                }
                Ok(Status::StreamEnd) => break,
                Ok(_) if used == 0 && made == 0 => break,
                Ok(_) => {}
            }
        }
        self.inflate = Some((inflater, total));
    }

    fn plain(&mut self, mut bytes: &[u8]) {
        while !self.done && self.malformed.is_none() {
            if let Some(Value::Skip(left)) = self.value {
                let skipped = left.min((self.pending.len() + bytes.len()) as u64);
                let from_pending = usize::try_from(skipped).unwrap_or(usize::MAX).min(self.pending.len());
                self.pending.drain(..from_pending);
                bytes = &bytes[usize::try_from(skipped).unwrap_or(usize::MAX) - from_pending..];
                self.position += skipped;
                if skipped < left {
                    self.value = Some(Value::Skip(left - skipped));
                    return;
                }
                self.value = None;
                continue;
            }
            // the header's own length is known only after its first bytes
            while self.pending.len() < self.needed() {
                let needed = self.needed();
                let more = (needed - self.pending.len()).min(bytes.len());
                self.pending.extend_from_slice(&bytes[..more]);
                bytes = &bytes[more..];
                if self.pending.len() < needed {
                    return;
                }
            }
            match self.value.take() {
                Some(Value::Copy { tag, bytes, rest }) => self.copy(tag, bytes, rest),
                _ => self.element(),
            }
        }
    }

    /// Bytes that must be there to go on.
    fn needed(&self) -> usize {
        match self.value {
            Some(Value::Copy { bytes, .. }) => bytes,
            _ => {
                let syntax = self.syntax_here();
                let long = self.pending.len() >= 6
                    && syntax.explicit
                    && syntax::is_long(&self.pending[4..6])
                    && !self.is_delimiter();
                if long { 12 } else { 8 }
            }
        }
    }

    fn is_delimiter(&self) -> bool {
        let syntax = self.syntax_here();
        let tag = Tag::new(syntax.u16(&self.pending[..2]), syntax.u16(&self.pending[2..4]));
        matches!(tag.0, ITEM | ITEM_END | SEQUENCE_END)
    }

    fn syntax_here(&self) -> Syntax {
        if self.levels.iter().any(|level| level.implicit) { Syntax::IMPLICIT } else { self.syntax }
    }

    fn element(&mut self) {
        self.close_levels();
        if !self.sniffed {
            self.sniff();
        }
        // a level that closed or the sniffed encoding may ask for a longer header
        if self.pending.len() < self.needed() {
            return;
        }
        if self.header_bytes > self.limits.header_bytes_max {
            return self.fail("the header before pixel data is too large");
        }
        self.header_bytes += 8;
        let syntax = self.syntax_here();
        let tag = Tag::new(syntax.u16(&self.pending[..2]), syntax.u16(&self.pending[2..4]));
        if matches!(tag.0, ITEM | ITEM_END | SEQUENCE_END) {
            let length = syntax.u32(&self.pending[4..8]);
            self.advance(8);
            return self.delimiter(tag, length);
        }
        self.elements += 1;
        if self.elements > self.limits.elements_max {
            return self.fail("the data set has too many elements");
        }
        if self.levels.last().is_some_and(|level| !level.is_item) {
            return self.fail("an element stands between items");
        }
        if self.levels.is_empty() && PIXEL_DATA.contains(&tag.0) {
            self.done = true;
            self.pending = Vec::new();
            return;
        }
        let (vr, length) = self.vr_and_length(syntax);
        let undefined = length == UNDEFINED;
        let unknown = &vr == b"UN" && undefined;
        if self.levels.is_empty() && length > 0 && self.header.listing.len() < self.listing_max {
            self.header.listing.push(tag);
        }
        if undefined || &vr == b"SQ" || (!syntax.explicit && header::is_sequence(tag)) {
            return self.open(tag, false, length, unknown);
        }
        if !self.fits(u64::from(length)) {
            return self.fail("an element is longer than what contains it");
        }
        self.header_bytes += (length as usize).min(self.limits.value_bytes_max);
        self.value = Some(self.plan(tag, length));
    }

    /// VR and length; the element's header is consumed.
    fn vr_and_length(&mut self, syntax: Syntax) -> ([u8; 2], u32) {
        if !syntax.explicit {
            let length = syntax.u32(&self.pending[4..8]);
            self.advance(8);
            return (*b"  ", length);
        }
        let vr = [self.pending[4], self.pending[5]];
        if syntax::is_long(&vr) {
            let length = syntax.u32(&self.pending[8..12]);
            self.advance(12);
            return (vr, length);
        }
        let length = u32::from(syntax.u16(&self.pending[6..8]));
        self.advance(8);
        (vr, length)
    }

    fn plan(&mut self, tag: Tag, length: u32) -> Value {
        let depth = self.levels.iter().filter(|level| level.is_item).count();
        let room = self.limits.wanted_bytes_max.saturating_sub(self.wanted_bytes);
        if !is_wanted(tag, self.levels.first().map(|level| level.tag))
            || depth > 1
            || length == 0
            || room == 0
        {
            return Value::Skip(u64::from(length));
        }
        let bytes = (length as usize).min(self.limits.value_bytes_max).min(room);
        Value::Copy { tag, bytes, rest: u64::from(length) - bytes as u64 }
    }

    fn copy(&mut self, tag: Tag, bytes: usize, rest: u64) {
        let value = self.pending[..bytes].to_vec();
        self.advance(bytes);
        self.wanted_bytes += bytes;
        let parent = self.levels.first().map(|level| (level.tag, level.items.saturating_sub(1)));
        self.header.push(Element { tag, parent, value, big_endian: self.syntax_here().big_endian }, rest > 0);
        self.value = Some(Value::Skip(rest));
    }

    fn delimiter(&mut self, tag: Tag, length: u32) {
        match (tag.0, self.levels.last().copied()) {
            (ITEM, Some(level)) if !level.is_item => {
                if let Some(level) = self.levels.last_mut() {
                    level.items = level.items.saturating_add(1);
                }
                self.open(level.tag, true, length, level.implicit);
            }
            (ITEM_END, Some(level)) if level.is_item && level.end.is_none() => drop(self.levels.pop()),
            (SEQUENCE_END, Some(level)) if !level.is_item && level.end.is_none() => drop(self.levels.pop()),
            _ => self.fail("a delimiter stands where none belongs"),
        }
    }

    fn open(&mut self, tag: Tag, is_item: bool, length: u32, implicit: bool) {
        if self.levels.len() >= 2 * self.limits.depth_max {
            return self.fail("sequences are nested too deep");
        }
        if length != UNDEFINED && !self.fits(u64::from(length)) {
            return self.fail("a sequence is longer than what contains it");
        }
        let end = (length != UNDEFINED).then(|| self.position + u64::from(length));
        self.levels.push(Level { tag, is_item, end, items: 0, implicit });
        self.close_levels();
    }

    /// Whether a length fits into the innermost level with a known end.
    fn fits(&self, length: u64) -> bool {
        self.levels.iter().rev().find_map(|level| level.end).is_none_or(|end| self.position + length <= end)
    }

    fn close_levels(&mut self) {
        while self.levels.last().is_some_and(|level| level.end.is_some_and(|end| self.position >= end)) {
            self.levels.pop();
        }
    }

    /// The first element tells whether VRs are really there: ordinary files lie about it.
    fn sniff(&mut self) {
        self.sniffed = true;
        let has_vr = syntax::has_vr(&self.pending[4..6]);
        if has_vr != self.syntax.explicit && !self.syntax.big_endian {
            self.syntax.explicit = has_vr;
            self.header.issues.push("the encoding is other than the transfer syntax says");
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.pending.drain(..bytes);
        self.position += bytes as u64;
    }

    fn fail(&mut self, reason: &'static str) {
        self.pending = Vec::new();
        self.malformed = Some(Malformed { reason, position: self.position });
    }
}

#[cfg(test)]
mod tests;

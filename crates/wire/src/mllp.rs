//! MLLP framing: `VT message FS CR` (HL7 Minimal Lower Layer Protocol, release 1).

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

const VT: u8 = 0x0B;
const FS: u8 = 0x1C;
const CR: u8 = b'\r';
const LF: u8 = b'\n';
/// What is kept of a frame that is too large: enough for its header.
const KEPT_BYTES: usize = 4096;

/// Limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one message.
    pub frame_bytes_max: usize,
    /// Bytes outside frames before the connection is given up.
    pub junk_bytes_max: usize,
}

/// What arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A complete message.
    Message(Bytes),
    /// The first bytes of a message larger than the limit; the rest was discarded.
    TooLarge(Bytes),
    /// A message that broke off: a new one began inside it, or the stream ended. It is not answered.
    Incomplete(Bytes),
}

impl Frame {
    /// What was kept of it.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Message(bytes) | Self::TooLarge(bytes) | Self::Incomplete(bytes) => bytes,
        }
    }
}

/// The framing of one connection. A partial frame is never scanned again from its start.
#[derive(Debug)]
pub struct Codec {
    limits: Limits,
    state: State,
    junk_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before VT.
    Outside,
    /// Inside a frame; bytes scanned so far.
    Inside(usize),
    /// Inside a frame that is too large: its beginning is kept, the rest skipped.
    Skipping,
}

impl Codec {
    /// A codec for a new connection.
    pub fn new(limits: Limits) -> Self {
        Self { limits, state: State::Outside, junk_bytes: 0 }
    }

    /// Whether a frame has begun and not ended.
    pub fn is_inside(&self) -> bool {
        self.state != State::Outside
    }

    /// Ends a frame whose FS was the last byte for a while (senders without CR). `None` when the last byte is no FS.
    pub fn end_without_cr(&mut self, buffer: &mut BytesMut) -> Option<Frame> {
        (self.state != State::Outside && buffer.last() == Some(&FS))
            .then(|| self.take(buffer, buffer.len() - 1, 1))
    }

    /// Skips what is outside frames. False when nothing but junk was there.
    fn enter(&mut self, buffer: &mut BytesMut) -> io::Result<bool> {
        let start = memchr::memchr(VT, buffer);
        let junk = start.unwrap_or(buffer.len());
        self.junk_bytes += junk;
        buffer.advance(junk);
        if self.junk_bytes > self.limits.junk_bytes_max {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too many bytes outside frames"));
        }
        if start.is_some() {
            self.state = State::Inside(0);
        }
        Ok(start.is_some())
    }

    /// Takes `length` bytes as the message and drops `terminator` bytes behind it.
    fn take(&mut self, buffer: &mut BytesMut, length: usize, terminator: usize) -> Frame {
        let skipping = self.state == State::Skipping;
        let mut message = buffer.split_to(length).freeze();
        buffer.advance(terminator.min(buffer.len()));
        self.state = State::Outside;
        self.junk_bytes = 0;
        if skipping {
            message.truncate(KEPT_BYTES);
            return Frame::TooLarge(message);
        }
        Frame::Message(message)
    }

    /// Looks at the byte at `at`, a VT or FS inside a frame.
    fn mark(&mut self, buffer: &mut BytesMut, at: usize) -> Mark {
        let next = buffer.get(at + 1).copied();
        if buffer[at] == VT {
            let Some(head) = buffer.get(at + 1..at + 4) else { return Mark::Wait };
            if matches!(head, b"MSH" | b"FHS" | b"BHS") {
                let partial = buffer.split_to(at).freeze();
                buffer.advance(1);
                self.state = State::Inside(0);
                return Mark::Done(Frame::Incomplete(partial));
            }
            return Mark::Data;
        }
        match next {
            None => Mark::Wait,
            Some(CR | LF) => Mark::Done(self.take(buffer, at, 2)),
            Some(VT) => Mark::Done(self.take(buffer, at, 1)),
            Some(_) => Mark::Data,
        }
    }
}

enum Mark {
    Done(Frame),
    Data,
    Wait,
}

impl Decoder for Codec {
    type Item = Frame;
    type Error = io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Frame>> {
        loop {
            if self.state == State::Outside && !self.enter(buffer)? {
                return Ok(None);
            }
            if self.state == State::Inside(0) {
                // several start bytes are one
                let leading = buffer.iter().take_while(|b| **b == VT).count();
                buffer.advance(leading);
            }
            let from = match self.state {
                State::Inside(scanned) => scanned,
                _ => KEPT_BYTES.min(buffer.len()),
            };
            match memchr::memchr2(VT, FS, &buffer[from..]) {
                Some(offset) => {
                    let at = from + offset;
                    if self.state != State::Skipping && at > self.limits.frame_bytes_max {
                        self.state = State::Skipping;
                    }
                    match self.mark(buffer, at) {
                        Mark::Done(Frame::Message(message)) if message.is_empty() => {}
                        Mark::Done(frame) => return Ok(Some(frame)),
                        Mark::Data => match &mut self.state {
                            State::Inside(scanned) => *scanned = at + 1,
                            // drop what was skipped, so that the scan goes on behind it
                            _ => drop_between(buffer, at + 1),
                        },
                        Mark::Wait => return Ok(None),
                    }
                }
                None => {
                    if buffer.len() > self.limits.frame_bytes_max {
                        self.state = State::Skipping;
                    }
                    match &mut self.state {
                        State::Inside(scanned) => *scanned = buffer.len(),
                        _ => {
                            let end = buffer.len();
                            drop_between(buffer, end);
                        }
                    }
                    return Ok(None);
                }
            }
        }
    }

    fn decode_eof(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Frame>> {
        if let Some(frame) = self.decode(buffer)? {
            return Ok(Some(frame));
        }
        if let Some(frame) = self.end_without_cr(buffer) {
            return Ok(Some(frame));
        }
        let broken = self.is_inside() && !buffer.is_empty();
        self.state = State::Outside;
        let rest = buffer.split().freeze();
        Ok(broken.then_some(Frame::Incomplete(rest)))
    }
}

/// Keeps the first bytes of a frame that is skipped and drops those up to `end`.
fn drop_between(buffer: &mut BytesMut, end: usize) {
    if end > KEPT_BYTES {
        let rest = buffer.split_off(end);
        buffer.truncate(KEPT_BYTES);
        buffer.unsplit(rest);
    }
}

impl Encoder<Bytes> for Codec {
    type Error = io::Error;

    fn encode(&mut self, message: Bytes, out: &mut BytesMut) -> io::Result<()> {
        out.reserve(message.len() + 3);
        out.extend_from_slice(&[VT]);
        out.extend_from_slice(&message);
        out.extend_from_slice(&[FS, CR]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { frame_bytes_max: 10_000, junk_bytes_max: 100 };

    /// Feeds bytes in pieces of a size.
    fn frames(bytes: &[u8], piece: usize) -> Vec<Frame> {
        let (mut codec, mut buffer, mut found) = (Codec::new(LIMITS), BytesMut::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            buffer.extend_from_slice(piece);
            while let Some(frame) = codec.decode(&mut buffer).unwrap() {
                found.push(frame);
            }
        }
        found.extend(codec.decode_eof(&mut buffer).unwrap());
        found
    }

    fn message(text: &'static str) -> Frame {
        Frame::Message(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn the_table_of_framing_whatever_the_pieces() {
        let cases: Vec<(&[u8], Vec<Frame>)> = vec![
            (b"\x0BMSH|1\x1C\r\x0BMSH|2\x1C\r", vec![message("MSH|1"), message("MSH|2")]),
            (b"junk\r\n\x0B\x0BMSH|1\x1C\r\r\n", vec![message("MSH|1")]),
            (
                b"\x0BMSH|par\x0BMSH|1\x1C\r",
                vec![Frame::Incomplete(Bytes::from_static(b"MSH|par")), message("MSH|1")],
            ),
            (b"\x0BMSH|a\x0Bb\x1Cc\x1C\r", vec![message("MSH|a\x0Bb\x1Cc")]),
            (
                b"\x0BMSH|1\x1C\n\x0BMSH|2\x1C\x0BMSH|3\x1C\r",
                vec![message("MSH|1"), message("MSH|2"), message("MSH|3")],
            ),
            (b"\x0B\x1C\r\x1C\r\x0BMSH|1\x1C\r", vec![message("MSH|1")]),
            (b"\x0BMSH|1\x1C", vec![message("MSH|1")]),
            (b"\x0BMSH|cut", vec![Frame::Incomplete(Bytes::from_static(b"MSH|cut"))]),
            (b"", vec![]),
        ];
        for (bytes, expected) in cases {
            for piece in [1, 2, 3, 1000] {
                assert_eq!(frames(bytes, piece), expected, "{bytes:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_large_frame_keeps_its_head_and_the_connection_goes_on() {
        let mut bytes = b"\x0BMSH|".to_vec();
        bytes.extend(vec![b'x'; 50_000]);
        bytes.extend(b"\x1C\r\x0BMSH|2\x1C\r");
        for piece in [100, 4096, 100_000] {
            let found = frames(&bytes, piece);
            assert!(
                matches!(&found[0], Frame::TooLarge(head) if head.len() == KEPT_BYTES && head.starts_with(b"MSH|")),
                "{piece}"
            );
            assert_eq!(found[1], message("MSH|2"));
        }
    }

    #[test]
    fn junk_without_end_is_given_up() {
        let (mut codec, mut buffer) = (Codec::new(LIMITS), BytesMut::from(&[b'G'; 101][..]));
        assert!(codec.decode(&mut buffer).is_err());
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(bytes in proptest::collection::vec(prop_oneof![Just(VT), Just(FS), Just(CR), Just(b'M'), Just(b'S'), Just(b'H')], 0..90), piece in 1_usize..7) {
            prop_assert_eq!(frames(&bytes, piece), frames(&bytes, 1000));
        }
    }
}

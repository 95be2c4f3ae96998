//! Inflating a deflated data set (PS3.5 section A.5) piece by piece, up to its end and no further.

use flate2::{Crc, Decompress, FlushDecompress, Status};

/// Inflated at a time.
pub(super) const PIECE_BYTES: usize = 16 * 1024;
/// Checksum and length, which writers of gzip leave behind the stream (RFC 1952 section 2.3.1).
const TRAILER_BYTES: usize = 8;
/// A stream of odd length is followed by a zero.
const PAD: &[u8] = &[0];

/// A raw deflate stream.
#[derive(Debug)]
pub(super) struct Inflater {
    stream: Decompress,
    made: Crc,
    ended: bool,
    /// What follows the end of the stream, its begin.
    behind: Vec<u8>,
}

/// What became of a step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// So many bytes were made; there may be more to make.
    Made(usize),
    /// Nothing more can be made of the bytes there are.
    Dry,
    /// The stream is none.
    Broken,
}

impl Inflater {
    pub(super) fn new() -> Self {
        Self { stream: Decompress::new(false), made: Crc::new(), ended: false, behind: Vec::new() }
    }

    /// Whether the end of the stream was seen.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether nothing follows the end but padding, or the trailer of this very stream.
    pub(super) fn ends_cleanly(&self) -> bool {
        let trailer = [self.made.sum().to_le_bytes(), self.made.amount().to_le_bytes()].concat();
        let rest = self.behind.strip_prefix(&trailer[..]).unwrap_or(&self.behind);
        rest.is_empty() || rest == PAD
    }

    /// Bytes made so far.
    pub(super) fn made_bytes(&self) -> u64 {
        self.stream.total_out()
    }

    /// Inflates into `out`, at most [`PIECE_BYTES`]; takes what it used from `bytes`.
    pub(super) fn step(&mut self, bytes: &mut &[u8], out: &mut [u8]) -> Step {
        if self.ended {
            // one more than may stand there
            let kept = (TRAILER_BYTES + PAD.len() + 1 - self.behind.len()).min(bytes.len());
            self.behind.extend_from_slice(&bytes[..kept]);
            *bytes = &[];
            return Step::Dry;
        }
        let (consumed, produced) = (self.stream.total_in(), self.stream.total_out());
        let status = self.stream.decompress(bytes, out, FlushDecompress::None);
        let used = usize::try_from(self.stream.total_in() - consumed).unwrap_or(0);
        let made = usize::try_from(self.stream.total_out() - produced).unwrap_or(0);
        *bytes = &bytes[used..];
        self.made.update(&out[..made]);
        match status {
            Err(_) => Step::Broken,
            Ok(Status::StreamEnd) => {
                self.ended = true;
                Step::Made(made)
            }
            Ok(_) if used == 0 && made == 0 => Step::Dry,
            Ok(_) => Step::Made(made),
        }
    }
}

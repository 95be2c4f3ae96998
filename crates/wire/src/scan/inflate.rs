//! Inflating a deflated data set (PS3.5 section A.5) piece by piece, up to its end and no further.

use flate2::{Decompress, FlushDecompress, Status};

/// Inflated at a time.
pub(super) const PIECE_BYTES: usize = 16 * 1024;
/// A stream of odd length is followed by one byte.
const PAD_BYTES_MAX: u64 = 1;

/// A raw deflate stream.
#[derive(Debug)]
pub(super) struct Inflater {
    stream: Decompress,
    ended: bool,
    behind: u64,
}

/// What became of a step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// So many bytes were made; there may be more to make.
    Made(usize),
    /// Nothing more can be made of the bytes there are.
    Dry,
    /// The stream is none, or something follows its end.
    Broken,
}

impl Inflater {
    pub(super) fn new() -> Self {
        Self { stream: Decompress::new(false), ended: false, behind: 0 }
    }

    /// Whether the end of the stream was seen.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Bytes made so far.
    pub(super) fn made_bytes(&self) -> u64 {
        self.stream.total_out()
    }

    /// Inflates into `out`, at most [`PIECE_BYTES`]; takes what it used from `bytes`.
    pub(super) fn step(&mut self, bytes: &mut &[u8], out: &mut [u8]) -> Step {
        if self.ended {
            self.behind += bytes.len() as u64;
            let zeros = bytes.iter().all(|byte| *byte == 0);
            *bytes = &[];
            return if zeros && self.behind <= PAD_BYTES_MAX { Step::Dry } else { Step::Broken };
        }
        let (consumed, produced) = (self.stream.total_in(), self.stream.total_out());
        let status = self.stream.decompress(bytes, out, FlushDecompress::None);
        let used = usize::try_from(self.stream.total_in() - consumed).unwrap_or(0);
        let made = usize::try_from(self.stream.total_out() - produced).unwrap_or(0);
        *bytes = &bytes[used..];
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

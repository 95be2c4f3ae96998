//! HL7 v2 in ER7: header, charset, segments, escapes, timestamps, acknowledgements. HL7 v2.5.1 chapter 2.
//!
//! Reading never fails as a whole: it returns a value and faults. The header is read from bytes alone, so that every message can be
//! answered, also one whose text cannot be decoded.

mod acknowledge;
mod batch;
mod charset;
mod escape;
mod header;
mod message;
mod time;

pub use acknowledge::{Ack, AckCode, Due, acknowledge, due};
pub use batch::{Batch, batch_answer, split_batch, unframed};
pub use escape::unescape;
pub use header::{Header, Separators};
pub use message::{Leaf, Message, Segment};
pub use time::{DateTime, Precision};

/// Limits of a message.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Segments of one message.
    pub segments_max: usize,
    /// Values of one message; of one segment empty places between separators count as well.
    pub leaves_max: usize,
    /// Repetitions of one field.
    pub repeats_max: usize,
    /// Messages of one batch.
    pub batch_messages_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { segments_max: 10_000, leaves_max: 200_000, repeats_max: 10_000, batch_messages_max: 1_000 }
    }
}

//! mpps (to be written).

use bytes::Bytes;

use crate::{Context, Normalised};

pub(crate) fn normalise(_bytes: &Bytes, _context: &Context) -> Normalised {
    Normalised::default()
}

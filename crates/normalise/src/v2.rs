//! HL7 v2 (to be written).

use bytes::Bytes;

use crate::{Context, Normalised};

/// The compiled tables.
#[derive(Debug)]
pub(crate) struct Rules {}

pub(crate) fn normalise(_bytes: &Bytes, _rules: &Rules, _context: &Context) -> Normalised {
    Normalised::default()
}

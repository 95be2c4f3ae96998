//! Bytes to text, by byte order mark or XML declaration. XML 1.0 appendix F.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

use crate::Fault;

/// Bytes of the body in which the declaration is looked for.
const DECLARATION_BYTES_MAX: usize = 256;

/// A body as text.
#[derive(Debug)]
pub(super) struct Decoded<'b> {
    /// Without byte order mark.
    pub(super) text: Cow<'b, str>,
    /// Bytes of the body before `text`, when the two differ in nothing else.
    pub(super) skipped: Option<usize>,
}

impl Decoded<'_> {
    /// An offset of the text as a place: the byte of the body (where known) and the line.
    pub(super) fn place(&self, offset: usize) -> String {
        let before = self.text.as_bytes().get(..offset).unwrap_or(self.text.as_bytes());
        let line = 1 + memchr::memchr_iter(b'\n', before).count();
        match self.skipped {
            Some(skipped) => format!("byte {}, line {line}", offset + skipped),
            None => format!("line {line}"),
        }
    }

    /// A row and column (from 1, in characters) of the text as a place.
    pub(super) fn place_of(&self, row: u32, column: u32) -> String {
        let row = usize::try_from(row).unwrap_or(1).max(1);
        let start = match row {
            1 => 0,
            _ => memchr::memchr_iter(b'\n', self.text.as_bytes())
                .nth(row - 2)
                .map_or(self.text.len(), |at| at + 1),
        };
        let column = usize::try_from(column).unwrap_or(1).max(1);
        let within = self.text[start..].char_indices().nth(column - 1).map_or(0, |(at, _)| at);
        self.place(start + within)
    }
}

/// Decodes a body. Nothing is ever replaced: what does not fit is an error.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded<'_>, Fault> {
    let (encoding, skipped) = encoding(bytes)?;
    let body = bytes.get(skipped..).unwrap_or_default();
    match encoding.decode_without_bom_handling_and_without_replacement(body) {
        Some(text) => Ok(Decoded { text, skipped: (encoding == UTF_8).then_some(skipped) }),
        None => {
            let place = match std::str::from_utf8(body) {
                Err(error) if encoding == UTF_8 => format!("byte {}", skipped + error.valid_up_to()),
                _ => String::new(),
            };
            Err(Fault::wrong(0, place, "the bytes do not fit the declared character set"))
        }
    }
}

/// The encoding, and how many bytes its mark takes.
fn encoding(bytes: &[u8]) -> Result<(&'static Encoding, usize), Fault> {
    if let Some(found) = Encoding::for_bom(bytes) {
        return Ok(found);
    }
    match bytes {
        [b'<', 0, ..] => return Ok((UTF_16LE, 0)),
        [0, b'<', ..] => return Ok((UTF_16BE, 0)),
        _ => {}
    }
    let Some(label) = declared(bytes) else { return Ok((UTF_8, 0)) };
    match Encoding::for_label_no_replacement(label) {
        // a declaration that could be read as ascii is not utf-16
        Some(encoding) if encoding == UTF_16LE || encoding == UTF_16BE => Ok((UTF_8, 0)),
        Some(encoding) => Ok((encoding, 0)),
        None => Err(Fault::wrong(0, "byte 0, line 1", "the declared character set is not known")),
    }
}

/// The value of `encoding` in the XML declaration.
fn declared(bytes: &[u8]) -> Option<&[u8]> {
    let head = &bytes[..bytes.len().min(DECLARATION_BYTES_MAX)];
    let head = head.trim_ascii_start().strip_prefix(b"<?xml")?;
    let head = &head[..memchr::memmem::find(head, b"?>")?];
    let value = head[memchr::memmem::find(head, b"encoding")? + b"encoding".len()..].trim_ascii_start();
    let value = value.strip_prefix(b"=")?.trim_ascii_start();
    let (quote, value) = value.split_first()?;
    (*quote == b'"' || *quote == b'\'').then(|| memchr::memchr(*quote, value).map(|end| &value[..end]))?
}

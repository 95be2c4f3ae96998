//! Search cursors: opaque, signed, without server state.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hilum_fhir::{Issue, IssueCode};
use hilum_rows::row::Position;
use xxhash_rust::xxh3::xxh3_64;

use crate::{Error, ErrorKind};

const CONTENT_BYTES: usize = 32;
const SIGNATURE_BYTES: usize = 16;

/// Where the next page of a search begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    /// Feed position of the first page: later changes are not shown.
    pub(super) first_page: u64,
    /// What the page before ended with. In index order its place there; in an order made in memory its version, whose sort keys say where it
    /// stands (they are not in the cursor themselves: it is part of a URL, and they may be a name).
    pub(super) after: Position,
}

/// Signs a cursor of a search.
pub(super) fn seal(secret: &[u8; 32], search: &str, cursor: Cursor) -> String {
    let mut bytes = Vec::with_capacity(CONTENT_BYTES + SIGNATURE_BYTES);
    bytes.extend_from_slice(&xxh3_64(search.as_bytes()).to_le_bytes());
    bytes.extend_from_slice(&cursor.first_page.to_le_bytes());
    bytes.extend_from_slice(&cursor.after.ord.to_le_bytes());
    bytes.extend_from_slice(&cursor.after.rid.to_le_bytes());
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), &bytes);
    bytes.extend_from_slice(&signature.as_ref()[..SIGNATURE_BYTES]);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads a cursor of this search.
pub(super) fn open(secret: &[u8; 32], search: &str, text: &str) -> Result<Cursor, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| refused())?;
    let (content, signature) = bytes.split_at_checked(CONTENT_BYTES).ok_or_else(refused)?;
    let expected = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), content);
    let word =
        |at: usize| content.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, i64::from_le_bytes);
    let signed = subtle::ConstantTimeEq::ct_eq(&expected.as_ref()[..SIGNATURE_BYTES], signature);
    if !bool::from(signed) || word(0).cast_unsigned() != xxh3_64(search.as_bytes()) {
        return Err(refused());
    }
    let after = Position { ord: word(16), rid: word(24) };
    Ok(Cursor { first_page: word(8).cast_unsigned(), after })
}

/// The search has to be begun again.
pub(super) fn refused() -> Error {
    let text = "the page cursor is not one of this search, or too old; start the search again";
    Error::refused(ErrorKind::Precondition, Issue::error(IssueCode::Value, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_serves_its_own_search_only() {
        let cursor = Cursor { first_page: 3, after: Position { ord: -5, rid: 7 } };
        let secret = [1; 32];
        let text = seal(&secret, "Patient?name=x", cursor);
        assert_eq!(open(&secret, "Patient?name=x", &text).unwrap(), cursor);
        assert!(open(&secret, "Patient?name=y", &text).is_err());
        assert!(open(&[2; 32], "Patient?name=x", &text).is_err());
        assert!(open(&secret, "Patient?name=x", "AAAA").is_err());
        assert!(open(&secret, "Patient?name=x", "é").is_err());
    }
}

//! Search cursors: opaque, signed, without server state. The next page begins after a position of the index, or for searches sorted in memory
//! after as many matches as its `rid` says.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hilum_fhir::{Issue, IssueCode};
use hilum_rows::row::Position;
use xxhash_rust::xxh3::xxh3_64;

use crate::{Error, ErrorKind};

const SIGNATURE_BYTES: usize = 16;

/// Signs a position of a search.
pub(super) fn seal(secret: &[u8; 32], search: &str, position: Position) -> String {
    let mut bytes = Vec::with_capacity(24 + SIGNATURE_BYTES);
    bytes.extend_from_slice(&xxh3_64(search.as_bytes()).to_le_bytes());
    bytes.extend_from_slice(&position.ord.to_le_bytes());
    bytes.extend_from_slice(&position.rid.to_le_bytes());
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), &bytes);
    bytes.extend_from_slice(&signature.as_ref()[..SIGNATURE_BYTES]);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads a cursor of this search.
pub(super) fn open(secret: &[u8; 32], search: &str, text: &str) -> Result<Position, Error> {
    let wrong = || {
        let issue = Issue::error(
            IssueCode::Value,
            "the page cursor is not one of this search; start the search again",
        );
        Error::refused(ErrorKind::Precondition, issue)
    };
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong())?;
    let (content, signature) = bytes.split_at_checked(24).ok_or_else(wrong)?;
    let expected = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), content);
    let word =
        |at: usize| content.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, i64::from_le_bytes);
    let signed = subtle::ConstantTimeEq::ct_eq(&expected.as_ref()[..SIGNATURE_BYTES], signature);
    if !bool::from(signed) || word(0).cast_unsigned() != xxh3_64(search.as_bytes()) {
        return Err(wrong());
    }
    Ok(Position { ord: word(8), rid: word(16) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_serves_its_own_search_only() {
        let (secret, position) = ([1; 32], Position { ord: -5, rid: 7 });
        let text = seal(&secret, "Patient?name=x", position);
        assert_eq!(open(&secret, "Patient?name=x", &text).unwrap(), position);
        assert!(open(&secret, "Patient?name=y", &text).is_err());
        assert!(open(&[2; 32], "Patient?name=x", &text).is_err());
        assert!(open(&secret, "Patient?name=x", "AAAA").is_err());
        assert!(open(&secret, "Patient?name=x", "é").is_err());
    }
}

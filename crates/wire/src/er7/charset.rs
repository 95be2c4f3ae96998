//! MSH-18 and the fallbacks. The whole message is decoded before it is split: trail bytes of Shift-JIS, GBK and Big5 include separators.

use std::borrow::Cow;

use encoding_rs::{self as enc, Encoding};

use crate::Fault;

/// Decodes a message by its MSH-18 (the first repetition). Never inserts U+FFFD: what nothing fits is an error.
pub(super) fn decode<'b>(
    bytes: &'b [u8],
    declared: &str,
    faults: &mut Vec<Fault>,
) -> Result<Cow<'b, str>, Fault> {
    let first = declared.split('~').next().unwrap_or_default().trim();
    // sets of ISO 2022 are switched to by escape sequences, whichever repetition names them
    if bytes.contains(&0x1B) && declared.split('~').any(|name| folded(name) == "ISOIR87") {
        return strict(enc::ISO_2022_JP, bytes).map_or_else(|| fallback(bytes), Ok);
    }
    if first.is_empty() || is_ascii_name(first) {
        if bytes.is_ascii() {
            return Ok(strict(enc::UTF_8, bytes).unwrap_or_default());
        }
        let at = bytes.iter().position(|b| !b.is_ascii()).unwrap_or(0);
        faults.push(Fault::odd(
            102,
            "MSH-18",
            format!("bytes beyond ascii from byte {at} on, but no character set is declared"),
        ));
        return fallback(bytes);
    }
    match encoding(first) {
        Some(encoding) => match strict(encoding, bytes) {
            Some(text) => Ok(text),
            None => {
                faults.push(Fault::odd(102, "MSH-18", "the bytes do not fit the declared character set"));
                fallback(bytes)
            }
        },
        None => {
            faults.push(Fault::odd(103, "MSH-18", "the character set is not known"));
            fallback(bytes)
        }
    }
}

/// For comparison and identities only.
pub(super) fn lenient(bytes: &[u8]) -> String {
    strict(enc::UTF_8, bytes)
        .or_else(|| strict(enc::WINDOWS_1252, bytes))
        .map_or_else(String::new, Cow::into_owned)
}

/// Encodes an answer in the sender's character set; what it cannot express becomes `?`.
pub(super) fn encode(text: &str, declared: &str) -> Vec<u8> {
    let first = declared.split('~').next().unwrap_or_default().trim();
    match encoding(first).filter(|e| *e != enc::UTF_8) {
        Some(encoding) if !text.is_ascii() => encoding.encode(text).0.into_owned(),
        _ => text.as_bytes().to_vec(),
    }
}

fn fallback(bytes: &[u8]) -> Result<Cow<'_, str>, Fault> {
    strict(enc::UTF_8, bytes)
        .or_else(|| strict(enc::WINDOWS_1252, bytes))
        .ok_or_else(|| Fault::wrong(102, "MSH-18", "no character set fits the bytes; declare it in MSH-18"))
}

fn strict<'b>(encoding: &'static Encoding, bytes: &'b [u8]) -> Option<Cow<'b, str>> {
    encoding.decode_without_bom_handling_and_without_replacement(bytes)
}

fn folded(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect()
}

fn is_ascii_name(name: &str) -> bool {
    matches!(folded(name).as_str(), "ASCII" | "ISOIR6" | "USASCII")
}

/// HL7 table 0211, and the spellings of the field.
fn encoding(name: &str) -> Option<&'static Encoding> {
    Some(match folded(name).as_str() {
        "88591" | "ISO88591" | "LATIN1" | "WINDOWS1252" | "CP1252" => enc::WINDOWS_1252,
        "88592" => enc::ISO_8859_2,
        "88593" => enc::ISO_8859_3,
        "88594" => enc::ISO_8859_4,
        "88595" => enc::ISO_8859_5,
        "88596" => enc::ISO_8859_6,
        "88597" => enc::ISO_8859_7,
        "88598" => enc::ISO_8859_8,
        "88599" => enc::WINDOWS_1254,
        "885910" => enc::ISO_8859_10,
        "885911" => enc::WINDOWS_874,
        "885913" => enc::ISO_8859_13,
        "885914" => enc::ISO_8859_14,
        "885915" => enc::ISO_8859_15,
        "885916" => enc::ISO_8859_16,
        "UNICODE" | "UNICODEUTF8" | "UTF8" => enc::UTF_8,
        "ISOIR14" | "SHIFTJIS" | "SJIS" => enc::SHIFT_JIS,
        "ISOIR87" => enc::ISO_2022_JP,
        "GB180302000" | "GB18030" | "GBK" | "GB2312" => enc::GB18030,
        "KSX1001" | "EUCKR" => enc::EUC_KR,
        "BIG5" => enc::BIG5,
        _ => Encoding::for_label(name.as_bytes())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declared_sets_decode_and_wrong_ones_fall_back_with_a_fault() {
        for (bytes, declared, text, odd) in [
            (&b"M\xFCller"[..], "8859/1", "Müller", 0),
            ("Müller".as_bytes(), "UNICODE UTF-8", "Müller", 0),
            ("Müller".as_bytes(), "", "Müller", 1),
            (b"M\xFCller", "", "Müller", 1),
            (b"M\xFCller", "UNICODE UTF-8", "Müller", 1),
            (b"\x8E\x52\x93\x63", "SHIFT_JIS", "山田", 0),
            (b"abc", "no such set", "abc", 1),
        ] {
            let mut faults = Vec::new();
            assert_eq!(decode(bytes, declared, &mut faults).unwrap(), text, "{declared}");
            assert_eq!(faults.len(), odd, "{declared}");
        }
    }
}

//! ED: a document within a result. HL7 v2.5.1, 2.A.24, encodings of table 0299.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD};
use hilum_fhir::{Issue, IssueCode};
use serde_json::{Value, json};

use super::mapper::{Mapper, NULL, Place, location};

/// Base64 as senders write it: padding may lack.
const FORGIVING: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// How documents begin whose sender did not say how they are encoded.
const BEGINNINGS: [&[u8]; 9] =
    [b"%PDF", b"\xFF\xD8", b"\x89PNG", b"{\\rtf", b"<", b"II*\0", b"MM\0*", b"GIF8", b"PK\x03\x04"];

/// The document of an OBX: its type from ED-2 and ED-3, its bytes by ED-4. One that cannot be read is not attached and says so.
pub(super) fn attachment(mapper: &mut Mapper<'_>, obx: usize) -> Option<Value> {
    let place = Place { segment: obx, field: 5, repeat: 1 };
    let [_, kind, subtype, encoding] = [1, 2, 3, 4].map(|n| mapper.component(place, n));
    let content_type = content_type(kind, subtype);
    let leaf = mapper.segment(obx).leaf(5, 1, 5, 1)?;
    let decoded = decoded(mapper, place, encoding.as_deref(), &content_type);
    let Some(bytes) = decoded.filter(|bytes| !bytes.is_empty()) else {
        if mapper.message.raw(leaf) != NULL {
            let text = "the document cannot be read by its encoding (OBX-5.4) and was not attached";
            let at = location(mapper.segment(obx), 5, 1, None);
            mapper.issues.push(Issue::warning(IssueCode::Value, text).at(at).hl7(102));
        }
        return None;
    };
    mapper.consume(place);
    Some(json!({ "contentType": content_type, "data": STANDARD.encode(bytes) }))
}

fn content_type(kind: Option<String>, subtype: Option<String>) -> String {
    let name = subtype.unwrap_or_default().trim().to_ascii_lowercase();
    match name.as_str() {
        "pdf" => "application/pdf".to_owned(),
        "xml" => "text/xml".to_owned(),
        "rtf" => "text/rtf".to_owned(),
        "jpeg" | "jpg" => "image/jpeg".to_owned(),
        "html" => "text/html".to_owned(),
        "" => "application/octet-stream".to_owned(),
        other if other.contains('/') => other.to_owned(),
        other => format!("{}/{other}", kind.unwrap_or_else(|| "application".into()).to_ascii_lowercase()),
    }
}

fn decoded(mapper: &Mapper<'_>, place: Place, encoding: Option<&str>, content_type: &str) -> Option<Vec<u8>> {
    let leaves = &mapper.segment(place.segment).leaves[mapper.place_leaves(place)];
    let first = leaves.iter().find(|leaf| leaf.component == 5)?;
    let unescape = |raw: &str| hilum_wire::er7::unescape(raw, &mapper.message.header.separators).into_owned();
    let data = mapper.message.value(first);
    let is_text = content_type.starts_with("text/");
    // separators inside a plain text belong to it
    let plain =
        || Some(unescape(&mapper.message.text[first.range.start..leaves.last()?.range.end]).into_bytes());
    match encoding.map(|name| name.trim().to_ascii_lowercase()).as_deref() {
        Some("base64") => base64_of(&data),
        Some("hex") => hex_of(&data),
        Some("a") => plain(),
        Some(_) => None,
        None => {
            let begins = |bytes: &Vec<u8>| BEGINNINGS.iter().any(|beginning| bytes.starts_with(beginning));
            base64_of(&data)
                .filter(|bytes| !is_text || begins(bytes))
                .or_else(|| if is_text { plain() } else { None })
        }
    }
}

/// Line breaks and blanks mean nothing; the alphabet of URLs is the same data.
fn base64_of(text: &str) -> Option<Vec<u8>> {
    let plain: Vec<u8> = text
        .bytes()
        .filter(|b| !b.is_ascii_whitespace())
        .map(|b| match b {
            b'-' => b'+',
            b'_' => b'/',
            other => other,
        })
        .collect();
    FORGIVING.decode(plain).ok()
}

fn hex_of(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    digits.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_and_hex_are_read_as_senders_write_them() {
        for sent in ["JVBERg==", "JVBERg", "JVBE\r\n Rg==", "JVBERh=="] {
            assert_eq!(base64_of(sent).as_deref(), Some(&b"%PDF"[..]), "{sent}");
        }
        assert_eq!(base64_of("no base64!"), None);
        assert_eq!(hex_of("25 50\n4446").as_deref(), Some(&b"%PDF"[..]));
        assert_eq!(hex_of("255"), None);
        assert_eq!(hex_of("2G"), None);
    }
}

//! Escape sequences, decoded on leaf values after splitting. Unknown and broken escapes are kept as they are: nothing is lost.

use std::borrow::Cow;

use super::Separators;

/// `\.sp<n>\` and `\.sk<n>\` repeat at most this often: escape bombs exist.
const REPEAT_MAX: usize = 100;

/// Decodes the escapes of one value. HL7 v2.5.1 section 2.7.
pub fn unescape<'t>(value: &'t str, separators: &Separators) -> Cow<'t, str> {
    let escape = char::from(separators.escape);
    if !value.contains(escape) {
        return Cow::Borrowed(value);
    }
    let mut text = String::with_capacity(value.len());
    let mut rest = value;
    let mut bytes: Vec<u8> = Vec::new();
    while let Some(at) = rest.find(escape) {
        let (before, from) = rest.split_at(at);
        let inner = &from[escape.len_utf8()..];
        let code = inner.find(escape).map(|end| &inner[..end]);
        if !before.is_empty() {
            flush(&mut bytes, &mut text);
            text.push_str(before);
        }
        // adjacent \X..\ are one run of bytes
        if let Some(hex) = code.and_then(|code| code.strip_prefix('X')).and_then(hex_bytes) {
            bytes.extend(hex);
            rest = &inner[code.map_or(0, str::len) + escape.len_utf8()..];
            continue;
        }
        flush(&mut bytes, &mut text);
        match code.and_then(|code| decoded(code, separators)) {
            Some(plain) => {
                text.push_str(&plain);
                rest = &inner[code.map_or(0, str::len) + escape.len_utf8()..];
            }
            None => {
                text.push(escape);
                rest = inner;
            }
        }
    }
    flush(&mut bytes, &mut text);
    text.push_str(rest);
    Cow::Owned(text)
}

fn flush(bytes: &mut Vec<u8>, text: &mut String) {
    if bytes.is_empty() {
        return;
    }
    let decoded = match std::str::from_utf8(bytes) {
        Ok(plain) => plain.to_owned(),
        Err(_) => encoding_rs::WINDOWS_1252.decode_without_bom_handling(bytes).0.into_owned(),
    };
    text.extend(decoded.chars().filter(|c| !c.is_control() || "\t\r\n".contains(*c)));
    bytes.clear();
}

fn hex_bytes(hex: &str) -> Option<Vec<u8>> {
    if hex.is_empty() || !hex.len().is_multiple_of(2) || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

fn decoded(code: &str, separators: &Separators) -> Option<String> {
    let single = |byte: u8| Some(char::from(byte).to_string());
    match code {
        "F" => single(separators.field),
        "S" => single(separators.component),
        "T" => single(separators.subcomponent),
        "R" => single(separators.repetition),
        "E" => single(separators.escape),
        "P" => separators.truncation.and_then(single),
        "H" | "N" | ".fi" | ".nf" => Some(String::new()),
        ".br" | ".ce" => Some("\n".to_owned()),
        _ => {
            let count = |digits: &str| {
                if digits.is_empty() { Some(1) } else { digits.trim_start_matches('+').parse::<usize>().ok() }
            };
            if let Some(lines) = code.strip_prefix(".sp").and_then(count) {
                return Some("\n".repeat(lines.min(REPEAT_MAX)));
            }
            if let Some(blanks) = code.strip_prefix(".sk").and_then(count) {
                return Some(" ".repeat(blanks.min(REPEAT_MAX)));
            }
            let indents = code.starts_with(".in") || code.starts_with(".ti");
            (indents && code[3..].bytes().all(|b| b.is_ascii_digit() || b == b'+' || b == b'-'))
                .then(String::new)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_table_of_escapes() {
        for (value, plain) in [
            (r"a\F\b\S\c\T\d\R\e\E\f", r"a|b^c&d~e\f"),
            (r"Müller \T\ Co", "Müller & Co"),
            (r"山田\S\太郎", "山田^太郎"),
            (r"\X41\\X42\", "AB"),
            (r"\XC3A9\", "é"),
            (r"\XE9\", "é"),
            (r"\X4é\", r"\X4é\"),
            (r"one\.br\two\.sp2\x", "one\ntwo\n\nx"),
            (r"\.sp999999\", &"\n".repeat(100)),
            (r"\H\bold\N\", "bold"),
            (r"C:\temp\file.txt", r"C:\temp\file.txt"),
            (r"4\5 rx", r"4\5 rx"),
            (r"a\", r"a\"),
            (r"\Zxx\", r"\Zxx\"),
            ("plain", "plain"),
        ] {
            assert_eq!(unescape(value, &Separators::default()), plain, "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_value_panics(value in ".{0,80}", noise in "[\\\\XFSTREH.bspk0-9é]{0,40}") {
            let _ = unescape(&value, &Separators::default());
            let _ = unescape(&noise, &Separators::default());
        }
    }
}

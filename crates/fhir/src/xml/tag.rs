//! The letters of XML 1.0 (<https://www.w3.org/TR/xml/>): which characters it allows, names, tags with their attributes, references.
//!
//! The reader of events finds where a tag begins and ends; what is within is read here, because much of it that the standard
//! forbids would pass otherwise.

use std::borrow::Cow;

/// What is wrong with a piece of XML, without a value of it.
pub(super) type Wrong = &'static str;

/// A start tag, or one of an element without content.
#[derive(Clone, Copy)]
pub(super) struct Tag<'i> {
    /// As it is written, from `<` to `>`.
    pub(super) raw: &'i str,
    /// What is before the colon of the name, or nothing.
    pub(super) prefix: &'i str,
    /// The name without its prefix.
    pub(super) local: &'i str,
    /// What stands between the name and the end.
    pub(super) rest: &'i str,
}

impl<'i> Tag<'i> {
    /// Takes a tag apart: `<name …>` or `<name …/>`.
    pub(super) fn of(raw: &'i str, is_empty: bool) -> Result<Self, Wrong> {
        let end = if is_empty { "/>" } else { ">" };
        let content = raw
            .strip_prefix('<')
            .and_then(|rest| rest.strip_suffix(end))
            .ok_or("the xml is not well-formed")?;
        let at = content.find(is_blank).unwrap_or(content.len());
        let (prefix, local) = split(&content[..at])?;
        Ok(Self { raw, prefix, local, rest: &content[at..] })
    }

    pub(super) fn attributes(&self) -> Attributes<'i> {
        Attributes::of(self.rest)
    }
}

/// Prefix and local part of a name.
pub(super) fn split(name: &str) -> Result<(&str, &str), Wrong> {
    let (prefix, local) = name.split_once(':').unwrap_or(("", name));
    let is_name = is_name(local) && (prefix.is_empty() || is_name(prefix)) && !name.starts_with(':');
    if is_name { Ok((prefix, local)) } else { Err("a name has letters that xml does not allow") }
}

/// A name without colon. Beyond ASCII all letters count as allowed: they are no element of FHIR or XHTML in any case.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c) || !c.is_ascii())
}

/// An attribute, its value still with references.
pub(super) struct Attribute<'i> {
    pub(super) name: &'i str,
    pub(super) raw: &'i str,
}

/// The attributes of a tag. The iterator ends after the first error.
pub(super) struct Attributes<'i> {
    rest: &'i str,
}

impl<'i> Attributes<'i> {
    /// Those of a text that begins with white space, where it is not empty.
    pub(super) fn of(rest: &'i str) -> Self {
        Self { rest }
    }
}

impl<'i> Iterator for Attributes<'i> {
    type Item = Result<Attribute<'i>, Wrong>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = std::mem::take(&mut self.rest);
        let found = rest.trim_start_matches(is_blank);
        if found.is_empty() {
            return None;
        }
        if found.len() == rest.len() {
            return Some(Err("attributes are not separated"));
        }
        let Some((attribute, rest)) = attribute(found) else {
            return Some(Err("an attribute is not well-formed"));
        };
        self.rest = rest;
        Some(Ok(attribute))
    }
}

/// `name = "value"` and what follows it.
fn attribute(text: &str) -> Option<(Attribute<'_>, &str)> {
    let end = text.find(|c| c == '=' || is_blank(c))?;
    let (name, rest) = text.split_at(end);
    let value = rest.trim_start_matches(is_blank).strip_prefix('=')?.trim_start_matches(is_blank);
    let quote = value.chars().next().filter(|c| *c == '"' || *c == '\'')?;
    let (raw, rest) = value[1..].split_once(quote)?;
    (!raw.contains('<') && split(name).is_ok()).then_some((Attribute { name, raw }, rest))
}

/// White space of XML.
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// Whether XML can carry all characters of a text (section 2.2).
pub(super) fn fits(text: &str) -> bool {
    !text.bytes().any(|b| b < 0x20 && !b"\t\n\r".contains(&b))
        && (text.is_ascii() || !text.contains(['\u{fffe}', '\u{ffff}']))
}

/// The value of an attribute: references replaced, white space that is written as such made blanks (section 3.3.3). `None` when a
/// reference is none of XML's own five or names a character that XML does not allow.
pub(super) fn value(raw: &str) -> Option<Cow<'_, str>> {
    let is_special = |c| matches!(c, '&' | '\t' | '\n' | '\r');
    if !raw.contains(is_special) {
        return Some(Cow::Borrowed(raw));
    }
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find(is_special) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix('&') {
            let (name, after) = after.split_once(';')?;
            out.push(reference(name)?);
            rest = after;
        } else {
            out.push(' ');
            rest = rest.strip_prefix("\r\n").unwrap_or(&rest[1..]);
        }
    }
    out.push_str(rest);
    Some(Cow::Owned(out))
}

/// The character of a reference, named without `&` and `;`.
pub(super) fn reference(name: &str) -> Option<char> {
    let Some(number) = name.strip_prefix('#') else {
        return match name {
            "amp" => Some('&'),
            "lt" => Some('<'),
            "gt" => Some('>'),
            "quot" => Some('"'),
            "apos" => Some('\''),
            _ => None,
        };
    };
    let (digits, radix) = number.strip_prefix('x').map_or((number, 10), |digits| (digits, 16));
    let is_number = digits.chars().all(|c| c.is_digit(radix));
    let code = u32::from_str_radix(digits, radix).ok().filter(|_| is_number)?;
    let c = char::from_u32(code)?;
    fits(c.encode_utf8(&mut [0; 4])).then_some(c)
}

/// Writes ` name="value"`. Tabs and line ends are written as references: a reader makes blanks of those that are not.
pub(super) fn push_attribute(out: &mut String, name: &str, value: &str) {
    out.push(' ');
    out.push_str(name);
    out.push_str("=\"");
    let mut rest = value;
    while let Some(at) = rest.find(['&', '<', '>', '"', '\t', '\n', '\r']) {
        out.push_str(&rest[..at]);
        out.push_str(match rest.as_bytes()[at] {
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'"' => "&quot;",
            b'\t' => "&#9;",
            b'\n' => "&#10;",
            _ => "&#13;",
        });
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
    out.push('"');
}

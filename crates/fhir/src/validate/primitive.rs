//! Primitive types, <https://hl7.org/fhir/R4/datatypes.html#primitive>.

use jiff::tz::TimeZone;
use serde_json::Value;

use crate::IssueCode;
use crate::search::date_range;

/// Characters of a text. R4 datatypes, string: "strings SHALL NOT exceed 1MB (1024*1024 characters) in size".
const TEXT_CHARS_MAX: usize = 1024 * 1024;

type Verdict = Result<(), (IssueCode, &'static str)>;

/// A primitive type, or several that are checked alike.
#[derive(Clone, Copy)]
pub(crate) enum Primitive {
    Boolean,
    Integer,
    UnsignedInt,
    PositiveInt,
    Decimal,
    Id,
    Code,
    Date,
    DateTime,
    Instant,
    Time,
    Uri,
    Base64,
    Xhtml,
    Text,
}

impl Primitive {
    /// The primitive with this name; `None` of other data types.
    pub(super) fn named(of: &str) -> Option<Self> {
        Some(match of {
            "boolean" => Self::Boolean,
            "integer" => Self::Integer,
            "unsignedInt" => Self::UnsignedInt,
            "positiveInt" => Self::PositiveInt,
            "decimal" => Self::Decimal,
            "id" => Self::Id,
            "code" => Self::Code,
            "date" => Self::Date,
            "dateTime" => Self::DateTime,
            "instant" => Self::Instant,
            "time" => Self::Time,
            "uri" | "url" | "canonical" | "oid" | "uuid" => Self::Uri,
            "base64Binary" => Self::Base64,
            "xhtml" => Self::Xhtml,
            other if other.starts_with(|c: char| c.is_ascii_lowercase()) => Self::Text,
            _ => return None,
        })
    }

    /// Checks a value.
    pub(super) fn check(self, value: &Value) -> Verdict {
        match self {
            Self::Boolean => kind(value.is_boolean(), "is true or false"),
            Self::Integer => number(value, i64::from(i32::MIN), "is a whole number of 32 bits"),
            Self::UnsignedInt => number(value, 0, "is a whole number of at least 0"),
            Self::PositiveInt => number(value, 1, "is a whole number of at least 1"),
            Self::Decimal => kind(value.is_number(), "is a number"),
            _ => match value.as_str() {
                None => Err((IssueCode::Structure, "is a text")),
                Some("") => Err((IssueCode::Value, "is not empty")),
                Some(text) => self.check_text(text),
            },
        }
    }

    fn check_text(self, text: &str) -> Verdict {
        let (fits, says) = match self {
            Self::Id => (is_id(text), "is an id: 1 to 64 of A-Z, a-z, 0-9, - and ."),
            Self::Code => (is_code(text), "is a code: no blanks around or doubled"),
            Self::Date => (
                !text.contains('T') && date_range(text, &TimeZone::UTC).is_some(),
                "is a date: YYYY, YYYY-MM or YYYY-MM-DD",
            ),
            Self::DateTime => {
                (is_date_time(text), "is a dateTime: a date, with a time then seconds and zone")
            }
            Self::Instant => {
                (text.contains('T') && is_date_time(text), "is an instant: date, time with seconds, and zone")
            }
            Self::Time => (is_time(text), "is a time: hh:mm:ss"),
            Self::Uri => (!text.contains(char::is_whitespace), "is a uri without blanks"),
            Self::Base64 => (is_base64(text), "is base64"),
            Self::Xhtml => (is_safe_narrative(text), "is a div of xhtml without active content"),
            _ if is_too_long(text) => {
                return Err((
                    IssueCode::TooLong,
                    "is longer than 1048576 characters (1 MiB); what is longer is a Binary or an attachment",
                ));
            }
            _ => (!has_control(text), "has no control characters"),
        };
        if fits { Ok(()) } else { Err((IssueCode::Value, says)) }
    }
}

fn kind(fits: bool, text: &'static str) -> Verdict {
    if fits { Ok(()) } else { Err((IssueCode::Structure, text)) }
}

fn number(value: &Value, min: i64, text: &'static str) -> Verdict {
    let Value::Number(number) = value else { return Err((IssueCode::Structure, text)) };
    let fits = number.to_string().parse::<i64>().is_ok_and(|n| (min..=i64::from(i32::MAX)).contains(&n));
    if fits { Ok(()) } else { Err((IssueCode::Value, text)) }
}

/// Characters are counted only where the bytes do not decide.
fn is_too_long(text: &str) -> bool {
    text.len() > TEXT_CHARS_MAX && text.chars().nth(TEXT_CHARS_MAX).is_some()
}

/// Control characters other than tab and line ends; those of U+0080 to U+009F are looked for only where there are such bytes.
fn has_control(text: &str) -> bool {
    let is_control = |b: u8| (b < 0x20 && !b"\t\r\n".contains(&b)) || b == 0x7f;
    text.bytes().any(is_control)
        || (!text.is_ascii() && text.contains(|c| ('\u{80}'..='\u{9f}').contains(&c)))
}

fn is_id(text: &str) -> bool {
    text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}

fn is_code(text: &str) -> bool {
    text.trim() == text && !text.contains("  ") && !text.contains(['\t', '\r', '\n'])
}

fn is_date_time(text: &str) -> bool {
    let Some((_, time)) = text.split_once('T') else { return date_range(text, &TimeZone::UTC).is_some() };
    let zoned = time.ends_with('Z') || time.rfind(['+', '-']).is_some_and(|at| at >= 8);
    zoned && time.matches(':').count() >= 2 && date_range(text, &TimeZone::UTC).is_some()
}

fn is_time(text: &str) -> bool {
    text.len() >= 8
        && date_range(&format!("2000-01-01T{text}"), &TimeZone::UTC).is_some()
        && !text.contains(['Z', '+', '-'])
}

fn is_base64(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b) || b.is_ascii_whitespace())
}

/// No script, no frames, no event handlers, no script links: a reader may show it as it is.
fn is_safe_narrative(text: &str) -> bool {
    const REFUSED: [&str; 10] =
        ["<script", "<iframe", "<object", "<embed", "<form", "<input", "<link", "<meta", "javascript:", "<!"];
    let lower = text.to_ascii_lowercase();
    lower.trim_start().starts_with("<div")
        && !REFUSED.iter().any(|bad| lower.contains(bad))
        && !has_event_handler(&lower)
}

/// An attribute whose name starts with `on`, inside a tag.
fn has_event_handler(lower: &str) -> bool {
    lower.split('<').skip(1).filter_map(|rest| rest.split('>').next()).any(|tag| {
        tag.split([' ', '\t', '\n', '\r', '/', '"', '\'']).any(|word| {
            word.starts_with("on")
                && word.contains('=')
                && word.split('=').next().is_some_and(|n| n.bytes().all(|b| b.is_ascii_lowercase()))
        })
    })
}

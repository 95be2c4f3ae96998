//! Primitive types, <https://hl7.org/fhir/R4/datatypes.html#primitive>.

use jiff::tz::TimeZone;
use serde_json::Value;

use crate::IssueCode;
use crate::search::date_range;

type Verdict = Result<(), (IssueCode, &'static str)>;

pub(super) fn is_primitive(of: &str) -> bool {
    of.starts_with(|c: char| c.is_ascii_lowercase())
}

/// Checks a value against a primitive type.
pub(super) fn check(of: &str, value: &Value) -> Verdict {
    match of {
        "boolean" => kind(value.is_boolean(), "is true or false"),
        "integer" => number(value, i64::from(i32::MIN), "is a whole number of 32 bits"),
        "unsignedInt" => number(value, 0, "is a whole number of at least 0"),
        "positiveInt" => number(value, 1, "is a whole number of at least 1"),
        "decimal" => kind(value.is_number(), "is a number"),
        _ => match value.as_str() {
            None => Err((IssueCode::Structure, "is a text")),
            Some("") => Err((IssueCode::Value, "is not empty")),
            Some(text) => format(of, text),
        },
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

fn format(of: &str, text: &str) -> Verdict {
    let (fits, says) = match of {
        "id" => (is_id(text), "is an id: 1 to 64 of A-Z, a-z, 0-9, - and ."),
        "code" => (is_code(text), "is a code: no blanks around or doubled"),
        "date" => (
            !text.contains('T') && date_range(text, &TimeZone::UTC).is_some(),
            "is a date: YYYY, YYYY-MM or YYYY-MM-DD",
        ),
        "dateTime" => (is_date_time(text), "is a dateTime: a date, with a time then seconds and zone"),
        "instant" => {
            (text.contains('T') && is_date_time(text), "is an instant: date, time with seconds, and zone")
        }
        "time" => (is_time(text), "is a time: hh:mm:ss"),
        "uri" | "url" | "canonical" | "oid" | "uuid" => {
            (!text.contains(char::is_whitespace), "is a uri without blanks")
        }
        "base64Binary" => (is_base64(text), "is base64"),
        "xhtml" => (is_safe_narrative(text), "is a div of xhtml without active content"),
        _ => (!text.contains(|c: char| c.is_control() && !"\t\r\n".contains(c)), "has no control characters"),
    };
    if fits { Ok(()) } else { Err((IssueCode::Value, says)) }
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

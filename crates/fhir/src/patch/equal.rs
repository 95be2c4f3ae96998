//! Whether two JSON values are equal in the sense of RFC 6902, section 4.6: numbers by value, objects without an order.

use serde_json::Value;

/// Compares with a stack: nothing recurses. The work is bounded by the smaller of the two values.
pub(super) fn is_equal(one: &Value, other: &Value) -> bool {
    let mut waiting = vec![(one, other)];
    while let Some(pair) = waiting.pop() {
        match pair {
            (Value::Null, Value::Null) => {}
            (Value::Bool(one), Value::Bool(other)) if one == other => {}
            (Value::String(one), Value::String(other)) if one == other => {}
            (Value::Number(one), Value::Number(other)) if is_equal_number(one.as_str(), other.as_str()) => {}
            (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
                waiting.extend(one.iter().zip(other));
            }
            (Value::Object(one), Value::Object(other)) if one.len() == other.len() => {
                for (name, value) in one {
                    let Some(twin) = other.get(name) else { return false };
                    waiting.push((value, twin));
                }
            }
            _ => return false,
        }
    }
    true
}

/// Numbers as JSON writes them, with any number of digits.
fn is_equal_number(one: &str, other: &str) -> bool {
    if one == other {
        return true;
    }
    match (Decimal::of(one), Decimal::of(other)) {
        (Some(one), Some(other)) => one == other,
        // an exponent of more than 38 digits: equal only as it is written
        _ => false,
    }
}

/// A number without what makes no difference: `digits` begins and ends with another digit than 0 and stands for 0.digits × 10^exponent.
#[derive(PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    digits: String,
    exponent: i128,
}

impl Decimal {
    fn of(text: &str) -> Option<Self> {
        let (is_negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_start_matches('0');
        let zeros = all.len() - digits.len();
        let digits = digits.trim_end_matches('0');
        if digits.is_empty() {
            // a zero has no sign and no size
            return Some(Self { is_negative: false, digits: String::new(), exponent: 0 });
        }
        let point = i128::try_from(whole.len()).ok()? - i128::try_from(zeros).ok()?;
        let exponent = exponent.parse::<i128>().ok()?.checked_add(point)?;
        Some(Self { is_negative, digits: digits.to_owned(), exponent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_equal_by_value() {
        let same = [
            ("1", "1.0"),
            ("1", "1e0"),
            ("100", "1e+2"),
            ("0.01", "1e-2"),
            ("-0", "0.000"),
            ("0e5", "0"),
            ("12.30", "1230E-2"),
            ("-5", "-5.00"),
            ("9e999999999999", "90e999999999998"),
            ("123456789012345678901234567890", "123456789012345678901234567890.0"),
        ];
        for (one, other) in same {
            assert!(is_equal_number(one, other) && is_equal_number(other, one), "{one} {other}");
        }
        let different = [
            ("1", "-1"),
            ("1", "10"),
            ("0.1", "0.01"),
            ("123456789012345678901234567890", "123456789012345678901234567891"),
            ("1e400", "2e400"),
            ("1e400", "1e401"),
            ("0", "1e-400"),
        ];
        for (one, other) in different {
            assert!(!is_equal_number(one, other) && !is_equal_number(other, one), "{one} {other}");
        }
    }
}

//! The values of search parameters: separators and escapes, prefixes, tokens, dates, numbers, quantities, references.

use super::date::date_range;
use super::values::parse_reference;
use super::{Comparison, Context, Parameter, Prefix, Reference, Token, TokenSystem, normal_form, ordered};
use crate::{Issue, IssueCode, ResourceType};

/// A value that is not of its type's syntax. The text names the rule, never the value.
pub(super) fn invalid(rule: &str) -> Issue {
    Issue::error(IssueCode::Value, rule)
}

/// Parts between separators that are not escaped; escapes stay for [`unescape`].
pub(super) fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, letter) in text.char_indices() {
        if letter == separator && !escaped {
            parts.push(&text[start..at]);
            start = at + letter.len_utf8();
        }
        escaped = letter == '\\' && !escaped;
    }
    parts.push(&text[start..]);
    parts
}

/// `\,` `\|` `\$` `\\`; any other backslash stands for itself.
pub(super) fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letters.peek() {
            Some(next) if letter == '\\' && ",|$\\".contains(*next) => plain.extend(letters.next()),
            _ => plain.push(letter),
        }
    }
    plain
}

/// `true` or `false`.
pub(super) fn flag(value: &str) -> Result<bool, Issue> {
    value.parse().map_err(|_| invalid("the value is true or false"))
}

/// A text to compare in normal form.
pub(super) fn normal(value: &str) -> Result<String, Issue> {
    let form = normal_form(&unescape(value));
    if form.is_empty() { Err(invalid("the value has no letter or digit to search for")) } else { Ok(form) }
}

/// `code`, `system|code`, `|code`, `system|`.
pub(super) fn token(value: &str) -> Result<Token, Issue> {
    let parts = split(value, '|');
    let (system, code) = match parts.as_slice() {
        [code] => (TokenSystem::Any, *code),
        ["", code] => (TokenSystem::None, *code),
        [system, code] => (TokenSystem::Is(unescape(system)), *code),
        _ => return Err(invalid("a token has one | between system and code; write \\| for others")),
    };
    if code.is_empty() && !matches!(system, TokenSystem::Is(_)) {
        return Err(invalid("a token is code, system|code, |code or system|"));
    }
    Ok(Token { system, code: (!code.is_empty()).then(|| unescape(code)) })
}

/// Splits off a prefix; without one it is `eq`.
fn prefix(text: &str) -> Result<(Prefix, &str), Issue> {
    let known = match text.get(..2) {
        Some("eq") => Prefix::Eq,
        Some("ne") => Prefix::Ne,
        Some("gt") => Prefix::Gt,
        Some("lt") => Prefix::Lt,
        Some("ge") => Prefix::Ge,
        Some("le") => Prefix::Le,
        Some("sa") => Prefix::Sa,
        Some("eb") => Prefix::Eb,
        Some("ap") => Prefix::Ap,
        Some(other) if other.bytes().all(|b| b.is_ascii_alphabetic()) => {
            return Err(invalid("a prefix is one of eq, ne, gt, lt, ge, le, sa, eb, ap"));
        }
        _ => return Ok((Prefix::Eq, text)),
    };
    Ok((known, text.get(2..).unwrap_or_default()))
}

/// A date in ms. A blank where an offset must stand is a `+` that was not escaped.
pub(super) fn date(value: &str, context: &Context) -> Result<Comparison, Issue> {
    let (prefix, text) = prefix(value.trim())?;
    let text = match text.rsplit_once(' ') {
        Some((time, offset)) if time.contains('T') => format!("{time}+{offset}"),
        _ => text.to_owned(),
    };
    let (low, high) = date_range(&text, &context.zone).ok_or_else(|| {
        invalid("a date is YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDThh:mm[:ss[.sss]][Z|+hh:mm]")
    })?;
    let (from, to) = if prefix == Prefix::Ap { widened(low, high, context) } else { (low, high) };
    Ok(Comparison { prefix, low: from, high: to, exact: low })
}

/// 10 % of the distance to now on both sides, at least the range's own length.
fn widened(low: i64, high: i64, context: &Context) -> (i64, i64) {
    let distance = context.now.millis().saturating_sub(low).saturating_abs();
    let margin = (distance / 10).max(high.saturating_sub(low));
    (low.saturating_sub(margin), high.saturating_add(margin))
}

/// A date in us, for `_lastUpdated`.
pub(super) fn instant(value: &str, context: &Context) -> Result<Comparison, Issue> {
    let of = date(value, context)?;
    let micros = |millis: i64| millis.saturating_mul(1000);
    Ok(Comparison { low: micros(of.low), high: micros(of.high), exact: micros(of.exact), ..of })
}

/// A decimal. `eq` and `ne` compare with its implied precision (`5.40` is `[5.395, 5.405)`), `ap` within 10 %, the others exactly.
pub(super) fn number(value: &str) -> Result<Comparison, Issue> {
    let (prefix, digits) = prefix(value.trim())?;
    let rule = || invalid("a number is [prefix]digits[.digits][e[-]digits]");
    let is_decimal = digits.bytes().any(|b| b.is_ascii_digit())
        && digits.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    let number: f64 = digits.parse().ok().filter(|n: &f64| is_decimal && n.is_finite()).ok_or_else(rule)?;
    let exact = ordered(number);
    let (low, high) = match prefix {
        Prefix::Eq | Prefix::Ne => implied_range(digits).unwrap_or((exact, exact)),
        Prefix::Ap => {
            let margin = number.abs() / 10.0;
            (ordered(number - margin), ordered(number + margin).saturating_add(1))
        }
        _ => (exact, exact.saturating_add(1)),
    };
    Ok(Comparison { prefix, low, high: high.max(low.saturating_add(1)), exact })
}

/// Half a unit of the last digit to both sides, computed on the digits: `5.40` is 53950e-4 to 54050e-4. A lone digit with an exponent
/// counts as two: the standard says `1e2` is `[95, 105)`. `None` for more digits than an f64 can tell apart.
fn implied_range(literal: &str) -> Option<(i64, i64)> {
    let (mantissa, exponent) = literal.split_once(['e', 'E']).unwrap_or((literal, ""));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.len() > 34 {
        return None;
    }
    let lone = !exponent.is_empty() && digits.trim_start_matches(['-', '+', '0']).len() == 1;
    let places = if lone { 2 } else { 1 };
    let scaled = digits.parse::<i128>().ok()? * 10i128.pow(places);
    let exponent: i64 = if exponent.is_empty() { 0 } else { exponent.parse().ok()? };
    let exponent = exponent.checked_sub(i64::try_from(fraction.len()).ok()? + i64::from(places))?;
    let bound = |digits: i128| format!("{digits}e{exponent}").parse().ok().map(ordered);
    Some((bound(scaled - 5)?, bound(scaled + 5)?))
}

/// `[prefix]n`, `[prefix]n|system|code`, `n||unit` (code or printed unit, of any system).
pub(super) fn quantity(value: &str) -> Result<(Comparison, Option<Token>), Issue> {
    let parts = split(value, '|');
    let unit = match parts.as_slice() {
        [_] | [_, "", ""] => None,
        [_, "", unit] => Some(Token { system: TokenSystem::Any, code: Some(unescape(unit)) }),
        [_, system, code] => Some(Token {
            system: TokenSystem::Is(unescape(system)),
            code: (!code.is_empty()).then(|| unescape(code)),
        }),
        _ => return Err(invalid("a quantity is number, number|system|code or number||unit")),
    };
    Ok((number(parts[0])?, unit))
}

/// `Type/id`, `id`, an absolute URL or a canonical; a URL under an own base is local. `of` is the type a modifier names.
pub(super) fn reference(
    value: &str,
    parameter: &Parameter,
    of: Option<ResourceType>,
    bases: &[String],
) -> Result<Reference, Issue> {
    let value = unescape(value);
    let own = |base: &String| value.strip_prefix(base.trim_end_matches('/'))?.strip_prefix('/');
    let text = bases.iter().find_map(own).unwrap_or(&value);
    match (parse_reference(text), of) {
        (Reference::Local(named, _), Some(of)) if named != of => {
            Err(invalid("the reference names another type than the modifier"))
        }
        (Reference::Url(id), Some(of)) if is_id(&id) => Ok(Reference::Local(of, id)),
        (Reference::Url(id), None) if is_id(&id) => Ok(match parameter.targets.as_slice() {
            [one] => Reference::Local(*one, id),
            _ => Reference::Id(id),
        }),
        (reference, _) => Ok(reference),
    }
}

fn is_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_protect_separators() {
        assert_eq!(split("a,b\\,c,", ','), ["a", "b\\,c", ""]);
        assert_eq!(split("a\\\\,b", ','), ["a\\\\", "b"]);
        assert_eq!(unescape("a\\,b\\|c\\$d\\\\e\\n"), "a,b|c$d\\e\\n");
        assert_eq!(
            token("a\\|b|c").unwrap(),
            Token { system: TokenSystem::Is("a|b".into()), code: Some("c".into()) }
        );
    }

    #[test]
    fn numbers_have_an_implied_precision() {
        let covers = |text: &str, value: f64| {
            let at = ordered(value);
            number(text).unwrap().holds(at, at + 1)
        };
        for (text, inside, outside) in [
            ("5.40", vec![5.395, 5.4, 5.4049], vec![5.3949, 5.405]),
            ("100", vec![99.5, 100.4], vec![99.4, 100.5]),
            ("1e2", vec![95.0, 104.9], vec![94.9, 105.0]),
            ("1.00e2", vec![99.5, 100.4], vec![99.4, 100.5]),
            ("-3", vec![-3.5, -2.6], vec![-3.6, -2.5]),
            ("0", vec![0.0, -0.0, 0.4], vec![0.5]),
            ("gt5.4", vec![5.400_000_1], vec![5.4]),
            ("ge5.4", vec![5.4], vec![5.399_999]),
            ("lt5.4", vec![5.399_999], vec![5.4]),
            ("le5.4", vec![5.4], vec![5.400_000_1]),
            ("ne5.4", vec![5.3], vec![5.4, 5.41]),
            ("ap10", vec![9.0, 11.0], vec![8.9, 11.1]),
        ] {
            inside.iter().for_each(|value| assert!(covers(text, *value), "{text} covers {value}"));
            outside.iter().for_each(|value| assert!(!covers(text, *value), "{text} does not cover {value}"));
        }
        for bad in ["", "x", "inf", "nan", "1e400", "xx5", "5,4", "gt", "--5", "e5"] {
            assert!(number(bad).is_err(), "{bad}");
        }
        assert!(number("1e-2147483648").is_ok());
    }
}

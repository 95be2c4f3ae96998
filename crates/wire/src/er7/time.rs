//! HL7 timestamps: `YYYY[MM[DD[HH[MM[SS[.S…]]]]]][+-ZZZZ]`. The precision given is kept.

/// How much of a timestamp was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the units")]
pub enum Precision {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
}

/// A timestamp as sent, range-checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DateTime {
    /// Year.
    pub year: i16,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31, right for the month.
    pub day: u8,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
    /// Digits after the decimal point.
    pub fraction: String,
    /// Offset from UTC in minutes, when given.
    pub offset_minutes: Option<i16>,
    /// What was given.
    pub precision: Precision,
}

impl DateTime {
    /// Reads a timestamp; `None` when it is none (month 13, 30 February, `""`, all zeros). `Z`, dashes and a `T` are forgiven.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (digits, offset_minutes) = split_offset(text)?;
        let plain: String = digits.chars().filter(|c| !matches!(c, '-' | ':' | 'T')).collect();
        let (whole, fraction) =
            plain.split_once('.').map_or((plain.as_str(), ""), |(whole, fraction)| (whole, fraction));
        if !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit())
            || whole.bytes().all(|b| b == b'0')
        {
            return None;
        }
        let number =
            |from: usize, to: usize| whole.get(from..to).map_or(Some(0), |part| part.parse::<u8>().ok());
        let precision = match whole.len() {
            4 => Precision::Year,
            6 => Precision::Month,
            8 => Precision::Day,
            10 => Precision::Hour,
            12 => Precision::Minute,
            14 => Precision::Second,
            _ => return None,
        };
        let year: i16 = whole.get(..4)?.parse().ok()?;
        let month = if precision >= Precision::Month { number(4, 6)? } else { 1 };
        let day = if precision >= Precision::Day { number(6, 8)? } else { 1 };
        let (hour, minute, second) = (number(8, 10)?, number(10, 12)?, number(12, 14)?);
        let fits = (1..=12).contains(&month)
            && day >= 1
            && day <= days_in(year, month)
            && hour < 24
            && minute < 60
            && second < 60;
        let fraction = fraction.to_owned();
        fits.then_some(Self { year, month, day, hour, minute, second, fraction, offset_minutes, precision })
    }
}

fn split_offset(text: &str) -> Option<(&str, Option<i16>)> {
    if let Some(digits) = text.strip_suffix('Z') {
        return Some((digits, Some(0)));
    }
    let Some(at) = text.rfind(['+', '-']).filter(|at| *at >= 8 && text[*at + 1..].len() >= 4) else {
        return Some((text, None));
    };
    let plain: String = text[at + 1..].chars().filter(|c| *c != ':').collect();
    // a dash of an iso date is no offset
    if plain.len() != 4 || !plain.bytes().all(|b| b.is_ascii_digit()) {
        return Some((text, None));
    }
    let (hours, minutes): (i16, i16) = (plain[..2].parse().ok()?, plain[2..].parse().ok()?);
    let total = hours * 60 + minutes;
    Some((&text[..at], Some(if text.as_bytes()[at] == b'-' { -total } else { total })))
}

fn days_in(year: i16, month: u8) -> u8 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 => 29,
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precision_and_offset_are_kept() {
        let parse = |text| DateTime::parse(text).unwrap();
        assert_eq!(parse("1980").precision, Precision::Year);
        assert_eq!(parse("19800229").day, 29);
        assert_eq!(parse("202401011200").precision, Precision::Minute);
        assert_eq!(parse("20240101120000.12345-0030").offset_minutes, Some(-30));
        assert_eq!(parse("20240101120000.12345-0030").fraction, "12345");
        assert_eq!(parse("20240101120000+1030").offset_minutes, Some(630));
        assert_eq!(parse("2024-01-01T12:00:00Z").offset_minutes, Some(0));
        assert_eq!(parse("2024-01-05").day, 5);
        for bad in ["", "0", "00000000", "20240230", "202413", "2024010125", "99", "abcd", "2024é", "\"\""] {
            assert_eq!(DateTime::parse(bad), None, "{bad}");
        }
    }
}

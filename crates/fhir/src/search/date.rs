//! FHIR dates as half-open ranges of milliseconds: a month is a month, a second one second, an instant with decimals one millisecond.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};
use jiff::{Span, ToSpan};

/// The range `[low, high)` a FHIR date, dateTime or instant stands for, in ms since 1970. A value without zone is of `zone`; the end
/// of the year 9999 is the end of time (`i64::MAX`). `None` when it is no FHIR date.
pub fn date_range(text: &str, zone: &TimeZone) -> Option<(i64, i64)> {
    let (date, rest) = text.split_once('T').map_or((text, None), |(date, rest)| (date, Some(rest)));
    let (first, precision) = partial_date(date)?;
    let Some(rest) = rest else { return Some(days(first, precision, zone)) };
    if date.len() != 10 {
        return None;
    }
    let (time, offset) = split_offset(rest)?;
    let (time, length) = partial_time(time)?;
    let start = match offset {
        Some(offset) => millis(first.to_datetime(time), &TimeZone::fixed(offset)),
        None => millis(first.to_datetime(time), zone),
    };
    Some((start, start.saturating_add(length)))
}

/// Days are as long as the zone makes them; one that a zone skipped altogether still has an instant.
fn days(first: Date, precision: Span, zone: &TimeZone) -> (i64, i64) {
    let start = first.to_datetime(Time::midnight());
    let low = millis(start, zone);
    let high = start.checked_add(precision).map_or(i64::MAX, |end| millis(end, zone));
    (low, high.max(low.saturating_add(1)))
}

/// Instants of the last hours of 9999 are beyond what zones are computed for: there the zone does not matter.
fn millis(at: DateTime, zone: &TimeZone) -> i64 {
    zone.to_timestamp(at).map_or_else(
        |_| i64::try_from(at.duration_since(EPOCH).as_millis()).unwrap_or(i64::MAX),
        |instant| instant.as_millisecond(),
    )
}

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

fn partial_date(text: &str) -> Option<(Date, Span)> {
    let mut parts = text.split('-');
    let year = digits(parts.next()?, 4)?;
    let month = parts.next().map(|p| digits(p, 2)).map_or(Some(None), |m| m.map(Some))?;
    let day = parts.next().map(|p| digits(p, 2)).map_or(Some(None), |d| d.map(Some))?;
    if parts.next().is_some() {
        return None;
    }
    let date =
        Date::new(year, i8::try_from(month.unwrap_or(1)).ok()?, i8::try_from(day.unwrap_or(1)).ok()?).ok()?;
    let precision = match (month, day) {
        (None, _) => 1.year(),
        (_, None) => 1.month(),
        _ => 1.day(),
    };
    Some((date, precision))
}

/// A time and its length in ms.
fn partial_time(text: &str) -> Option<(Time, i64)> {
    let (clock, fraction) =
        text.split_once('.').map_or((text, None), |(clock, fraction)| (clock, Some(fraction)));
    let mut parts = clock.split(':');
    let hour = i8::try_from(digits(parts.next()?, 2)?).ok()?;
    let minute = i8::try_from(digits(parts.next()?, 2)?).ok()?;
    let second = parts.next().map(|p| digits(p, 2)).map_or(Some(None), |s| s.map(Some))?;
    let (nanos, length) = match (second, fraction) {
        (None, None) => (0, 60_000),
        (Some(_), None) => (0, 1000),
        (Some(_), Some(fraction)) => (fraction_nanos(fraction)?, 1),
        (None, Some(_)) => return None,
    };
    // a leap second counts as the one before it
    let second = i8::try_from(second.unwrap_or(0).min(59)).ok()?;
    Some((Time::new(hour, minute, second, nanos).ok()?, length))
}

/// Nanoseconds cut to whole milliseconds, so that a range starts where its instant lies.
fn fraction_nanos(text: &str) -> Option<i32> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let millis: String = text.chars().chain("00".chars()).take(3).collect();
    millis.parse::<i32>().ok().map(|millis| millis * 1_000_000)
}

fn split_offset(text: &str) -> Option<(&str, Option<Offset>)> {
    if let Some(time) = text.strip_suffix('Z') {
        return Some((time, Some(Offset::UTC)));
    }
    let Some(at) = text.rfind(['+', '-']) else { return Some((text, None)) };
    let (time, offset) = (text.get(..at)?, text.get(at + 1..)?);
    let (hours, minutes) = offset.split_once(':')?;
    let seconds = i32::from(digits(hours, 2)?) * 3600 + i32::from(digits(minutes, 2)?) * 60;
    let sign = if text.as_bytes().get(at) == Some(&b'-') { -1 } else { 1 };
    Some((time, Some(Offset::from_seconds(sign * seconds).ok()?)))
}

fn digits(text: &str, count: usize) -> Option<i16> {
    (text.len() == count && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precision_decides_the_range() {
        let utc = TimeZone::UTC;
        let day = 86_400_000;
        assert_eq!(date_range("1970", &utc), Some((0, 365 * day)));
        assert_eq!(date_range("1970-02", &utc), Some((31 * day, 59 * day)));
        assert_eq!(date_range("1970-01-02", &utc), Some((day, 2 * day)));
        assert_eq!(date_range("1970-01-01T00:01", &utc), Some((60_000, 120_000)));
        assert_eq!(date_range("1970-01-01T00:00:01Z", &utc), Some((1000, 2000)));
        assert_eq!(date_range("1970-01-01T00:00:00.25Z", &utc), Some((250, 251)));
        assert_eq!(date_range("1970-01-01T01:00:00+01:00", &utc), Some((0, 1000)));
        assert_eq!(date_range("1969-12-31T19:00:00-05:00", &utc), Some((0, 1000)));
    }

    #[test]
    fn the_end_of_9999_is_the_end_of_time() {
        let (low, high) = date_range("9999-12-31", &TimeZone::UTC).unwrap();
        assert_eq!((low, high), (253_402_214_400_000, i64::MAX));
        assert_eq!(date_range("9999", &TimeZone::UTC).unwrap().1, i64::MAX);
        assert!(date_range("9999-12-31T23:59:59-12:00", &TimeZone::UTC).is_some());
    }

    #[test]
    fn the_site_zone_is_the_zone_of_local_values() {
        let zone = TimeZone::get("Australia/Melbourne").unwrap();
        assert_eq!(
            date_range("2024-01-01", &zone).unwrap().0,
            date_range("2024-01-01T00:00:00+11:00", &TimeZone::UTC).unwrap().0
        );
    }

    #[test]
    fn what_a_zone_skips_still_has_a_place_in_time() {
        let (apia, melbourne) =
            (TimeZone::get("Pacific/Apia").unwrap(), TimeZone::get("Australia/Melbourne").unwrap());
        for (text, zone) in
            [("2011-12-30", &apia), ("2024-10-06T02:59", &melbourne), ("2024-10-06T02:30:00", &melbourne)]
        {
            let (low, high) = date_range(text, zone).unwrap();
            assert!(low < high, "{text}");
        }
        let hours = |text| date_range(text, &melbourne).map(|(low, high)| (high - low) / 3_600_000);
        assert_eq!((hours("2024-10-06"), hours("2024-04-07")), (Some(23), Some(25)));
    }

    #[test]
    fn nonsense_is_no_date() {
        for text in [
            "",
            "xx",
            "2024-13",
            "2024-02-30",
            "20240101",
            "2024-01-01T",
            "2024-01-01T25:00",
            "2024-01T10:00",
            "2024-01-01T10:00:00 01:00",
            " 2024",
            "é",
        ] {
            assert_eq!(date_range(text, &TimeZone::UTC), None, "{text}");
        }
    }
}

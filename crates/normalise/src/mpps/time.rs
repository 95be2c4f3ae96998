//! DICOM dates and times (PS3.5 6.2: DA, TM; (0008,0201) offset) and ISO 8601, to and from FHIR dateTime.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};

/// (0008,0201) Timezone Offset From UTC.
pub(super) const OFFSET: &str = "00080201";

/// A date and time as DICOM keeps them.
#[derive(Debug, PartialEq)]
pub(super) struct Parts {
    /// DA
    pub(super) date: String,
    /// TM
    pub(super) time: Option<String>,
    /// (0008,0201), only where local time alone would mean another instant.
    pub(super) offset: Option<String>,
}

/// A date, or a date and time with or without offset (ISO 8601), or DICOM digits `YYYYMMDD[HHMMSS[.F]]`, as local time of `zone`.
pub(super) fn split(text: &str, zone: &TimeZone) -> Option<Parts> {
    let text = text.trim();
    let only_date = |date: Date| Parts { date: da(date), time: None, offset: None };
    if text.bytes().take_while(u8::is_ascii_digit).count() >= 8 {
        let date = parse_date(text.get(..8)?)?;
        let rest = text.get(8..)?;
        let Some(time) = (!rest.is_empty()).then_some(rest) else { return Some(only_date(date)) };
        let parsed = parse_time(time)?;
        return Some(Parts { date: da(date), time: Some(tm(parsed)), offset: None });
    }
    if text.len() == 10 {
        return parse_date(text).map(only_date);
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        let local = zone.to_datetime(at);
        let is_plain = zone.to_timestamp(local).is_ok_and(|again| again == at);
        let offset = (!is_plain).then(|| offset_text(zone.to_offset(at)));
        return Some(Parts { date: da(local.date()), time: Some(tm(local.time())), offset });
    }
    let local: DateTime = text.parse().ok()?;
    Some(Parts { date: da(local.date()), time: Some(tm(local.time())), offset: None })
}

/// A FHIR dateTime from DA and TM; without a time the date alone. A local time that occurs twice means the earlier offset, one that
/// does not occur is moved forward.
pub(super) fn date_time(
    date: &str,
    time: Option<&str>,
    offset: Option<&str>,
    zone: &TimeZone,
) -> Option<String> {
    let date = parse_date(date)?;
    let Some(time) = time else { return Some(date.to_string()) };
    let local = date.to_datetime(parse_time(time)?);
    let zone = match offset {
        Some(offset) => TimeZone::fixed(parse_offset(offset)?),
        None => zone.clone(),
    };
    let zoned = local.to_zoned(zone).ok()?;
    Some(zoned.strftime("%Y-%m-%dT%H:%M:%S%.f%:z").to_string())
}

/// A FHIR date from DA.
pub(super) fn date(text: &str) -> Option<String> {
    parse_date(text).map(|date| date.to_string())
}

/// `YYYYMMDD`; the old `YYYY.MM.DD` and ISO dashes are forgiven.
fn parse_date(text: &str) -> Option<Date> {
    let digits: String = text.chars().filter(|c| !matches!(c, '.' | '-')).collect();
    if digits.len() != 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Date::new(digits.get(..4)?.parse().ok()?, digits.get(4..6)?.parse().ok()?, digits.get(6..)?.parse().ok()?)
        .ok()
}

/// `HH[MM[SS[.F]]]`; colons are forgiven. A leap second reads as second 59.
fn parse_time(text: &str) -> Option<Time> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    let (whole, fraction) = digits.split_once('.').unwrap_or((&digits, ""));
    let is_number = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if !matches!(whole.len(), 2 | 4 | 6) || !is_number(whole) || !is_number(fraction) || fraction.len() > 9 {
        return None;
    }
    let part = |from: usize| whole.get(from..from + 2).map_or(Some(0), |two| two.parse::<i8>().ok());
    let nanoseconds = format!("{fraction:0<9}").parse().ok()?;
    Time::new(part(0)?, part(2)?, part(4)?.min(59), nanoseconds).ok()
}

/// `&ZZXX`: the sign holds for hours and minutes.
fn parse_offset(text: &str) -> Option<Offset> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'+' => (1, text.get(1..)?),
        b'-' => (-1, text.get(1..)?),
        _ => return None,
    };
    if digits.len() != 4 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let minutes: i32 = digits.get(..2)?.parse::<i32>().ok()? * 60 + digits.get(2..)?.parse::<i32>().ok()?;
    Offset::from_seconds(sign * minutes * 60).ok().filter(|_| minutes <= 14 * 60)
}

fn offset_text(offset: Offset) -> String {
    let minutes = offset.seconds() / 60;
    let sign = if minutes < 0 { '-' } else { '+' };
    format!("{sign}{:02}{:02}", minutes.abs() / 60, minutes.abs() % 60)
}

fn da(date: Date) -> String {
    date.strftime("%Y%m%d").to_string()
}

fn tm(time: Time) -> String {
    time.strftime("%H%M%S%.f").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> TimeZone {
        TimeZone::get("Europe/Berlin").unwrap()
    }

    #[test]
    fn dicom_times_get_the_offset_of_their_day() {
        let at = |date, time, offset| date_time(date, time, offset, &berlin());
        assert_eq!(at("20240131", Some("0930"), None).unwrap(), "2024-01-31T09:30:00+01:00");
        assert_eq!(at("2024.07.31", Some("09:30:15.25"), None).unwrap(), "2024-07-31T09:30:15.25+02:00");
        assert_eq!(at("20240731", Some("093015"), Some("-0330")).unwrap(), "2024-07-31T09:30:15-03:30");
        assert_eq!(at("20240731", None, None).unwrap(), "2024-07-31");
        for (date, time, offset) in [
            ("20240230", None, None),
            ("2024", None, None),
            ("20240731", Some("25"), None),
            ("20240731", Some("09"), Some("0200")),
            ("20240731", Some("é9"), None),
        ] {
            assert_eq!(at(date, time, offset), None, "{date} {time:?} {offset:?}");
        }
    }

    #[test]
    fn iso_times_become_local_and_mean_the_same_instant() {
        for (text, again) in [
            ("2024-07-31T07:30:15Z", "2024-07-31T09:30:15+02:00"),
            ("2024-07-31T09:30:15.5", "2024-07-31T09:30:15.5+02:00"),
            ("20240731093015", "2024-07-31T09:30:15+02:00"),
            ("2024-07-31", "2024-07-31"),
            // the hour that occurs twice: both instants survive
            ("2024-10-27T00:30:00Z", "2024-10-27T02:30:00+02:00"),
            ("2024-10-27T01:30:00Z", "2024-10-27T02:30:00+01:00"),
        ] {
            let parts = split(text, &berlin()).unwrap();
            let text = date_time(&parts.date, parts.time.as_deref(), parts.offset.as_deref(), &berlin());
            assert_eq!(text.unwrap(), again);
        }
        assert_eq!(split("yesterday", &berlin()), None);
        assert_eq!(split("2024-13-01", &berlin()), None);
    }
}

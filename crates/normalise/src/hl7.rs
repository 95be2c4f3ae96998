//! What HL7 v2 and v3 have in common: timestamps.

use hilum_wire::er7::{DateTime, Precision};
use jiff::civil;
use jiff::tz::{Offset, TimeZone};

/// What a timestamp becomes.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Form {
    Date,
    DateTime,
    Instant,
}

/// A timestamp as the element it is to fill; `None` when it is not precise enough.
pub(crate) fn render(time: &DateTime, form: Form, zone: &TimeZone) -> Option<String> {
    let date = match time.precision {
        Precision::Year => format!("{:04}", time.year),
        Precision::Month => format!("{:04}-{:02}", time.year, time.month),
        _ => format!("{:04}-{:02}-{:02}", time.year, time.month, time.day),
    };
    if form == Form::Date || (form == Form::DateTime && time.precision <= Precision::Day) {
        return Some(date);
    }
    if time.precision < Precision::Day {
        return None;
    }
    let offset = offset(time, zone)?;
    let seconds = offset.seconds();
    let sign = if seconds < 0 { '-' } else { '+' };
    let minutes = seconds.abs() / 60;
    let fraction = if time.fraction.is_empty() { String::new() } else { format!(".{}", time.fraction) };
    let (hour, minute, second) = (time.hour, time.minute, time.second);
    Some(format!(
        "{date}T{hour:02}:{minute:02}:{second:02}{fraction}{sign}{:02}:{:02}",
        minutes / 60,
        minutes % 60
    ))
}

/// Its own offset, else the zone's at that local time (in a gap or overlap the earlier offset).
fn offset(time: &DateTime, zone: &TimeZone) -> Option<Offset> {
    if let Some(minutes) = time.offset_minutes {
        return Offset::from_seconds(i32::from(minutes) * 60).ok();
    }
    Some(zone.to_timestamp(civil(time)?).ok().map(|at| zone.to_offset(at)).unwrap_or(Offset::UTC))
}

fn civil(time: &DateTime) -> Option<civil::DateTime> {
    let small = |n: u8| i8::try_from(n).ok();
    let (month, day) = (small(time.month)?, small(time.day)?);
    civil::DateTime::new(
        time.year,
        month,
        day,
        small(time.hour)?,
        small(time.minute)?,
        small(time.second)?,
        0,
    )
    .ok()
}

/// The instant of a timestamp, for comparison.
pub(crate) fn instant(text: &str, zone: &TimeZone) -> Option<hilum_fhir::Timestamp> {
    let time = DateTime::parse(text)?;
    let zone = time
        .offset_minutes
        .and_then(|m| Offset::from_seconds(i32::from(m) * 60).ok())
        .map_or_else(|| zone.clone(), TimeZone::fixed);
    zone.to_timestamp(civil(&time)?).ok().map(Into::into)
}

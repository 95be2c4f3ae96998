//! OBX-5 by OBX-2 as the value of an Observation. HL7 v2.5.1, 7.4.2.2 and 7.4.2.5.

use serde_json::{Number, Value, json};

use super::convert;
use super::mapper::{Mapper, Place, Target};
use crate::rules::Convert;

/// Characters of a number; a longer one stays a text.
const NUMBER_CHARS_MAX: usize = 100;

/// What a value may have become.
const VALUES: [&str; 6] =
    ["valueQuantity", "valueString", "valueCodeableConcept", "valueRange", "valueRatio", "valueDateTime"];

/// Sets the value. What it does not use of OBX-5 and OBX-6 is reported as unmapped.
pub(super) fn value(mapper: &mut Mapper<'_>, obx: usize, target: &mut Target) {
    let place = Place { segment: obx, field: 5, repeat: 1 };
    if mapper.is_null(place) {
        // it says that there is no value; the one that was known goes
        mapper.consume(place);
        VALUES.iter().for_each(|member| target.forget(member));
        return;
    }
    let kind = mapper.field(obx, 2).unwrap_or_default();
    let found = match kind.as_str() {
        "NM" => numeric(mapper, place),
        "SN" => structured(mapper, place),
        "CE" | "CWE" | "CNE" | "CF" => {
            convert::concept(mapper, None, place).map(|concept| ("valueCodeableConcept", concept))
        }
        "DT" | "TS" | "DTM" => convert::convert(mapper, &Convert::DateTime, None, place, None)
            .map(|time| ("valueDateTime", time)),
        _ => None,
    };
    let is_coded = matches!(kind.as_str(), "CE" | "CWE" | "CNE" | "CF" | "DT" | "TS" | "DTM");
    let found = found.or_else(|| if is_coded { None } else { text(mapper, obx) });
    if let Some((member, value)) = found {
        target.value[member] = value;
    }
}

/// A text with its unit: without it, it may mean something else.
fn text(mapper: &mut Mapper<'_>, obx: usize) -> Option<(&'static str, Value)> {
    let repeats = mapper.repeats(obx, 5);
    let is_structured = mapper.field(obx, 2).as_deref() == Some("SN");
    let mut text = if is_structured && repeats == 1 {
        let place = Place { segment: obx, field: 5, repeat: 1 };
        let parts: Vec<String> = (1..=4).filter_map(|n| mapper.component(place, n)).collect();
        Some(parts.concat()).filter(|text| !text.is_empty())?
    } else {
        mapper.lines(obx, 5)?
    };
    if !text.contains('\n')
        && let Some((unit, _)) = unit(mapper, obx)
    {
        text = format!("{text} {unit}");
    }
    Some(("valueString", text.into()))
}

/// NM; a comparator before the number is forgiven. A second repetition is none of the value's.
fn numeric(mapper: &mut Mapper<'_>, place: Place) -> Option<(&'static str, Value)> {
    let leaf = mapper.segment(place.segment).leaf(place.field, place.repeat, 1, 1)?;
    let text = mapper.message.raw(leaf).trim();
    let comparator = ["<=", ">=", "<", ">"].into_iter().find(|sign| text.starts_with(sign));
    let number = decimal(comparator.map_or(text, |sign| &text[sign.len()..]))?;
    mapper.component(place, 1);
    Some(("valueQuantity", quantity(mapper, place.segment, number, comparator)))
}

/// SN: the comparator and the separator decide. What they do not make a number, a range or a ratio of is a text, whole.
fn structured(mapper: &mut Mapper<'_>, place: Place) -> Option<(&'static str, Value)> {
    let parts = [1, 2, 3, 4].map(|n| mapper.component(place, n));
    let [comparator, first, separator, second] = parts.each_ref().map(|part| part.as_deref().map(str::trim));
    let comparator = comparator.filter(|sign| *sign != "=");
    let low = first.and_then(decimal)?;
    match (comparator, separator, second) {
        (None, None, None) => Some(("valueQuantity", quantity(mapper, place.segment, low, None))),
        (Some(sign @ ("<" | ">" | "<=" | ">=")), None, None) => {
            Some(("valueQuantity", quantity(mapper, place.segment, low, Some(sign))))
        }
        (None, Some("-"), Some(second)) => {
            let high = quantity(mapper, place.segment, decimal(second)?, None);
            let low = quantity(mapper, place.segment, low, None);
            Some(("valueRange", json!({ "low": low, "high": high })))
        }
        (None, Some(":" | "/"), Some(second)) => {
            let denominator = json!({ "value": decimal(second)? });
            let numerator = quantity(mapper, place.segment, low, None);
            Some(("valueRatio", json!({ "numerator": numerator, "denominator": denominator })))
        }
        _ => None,
    }
}

fn quantity(mapper: &mut Mapper<'_>, obx: usize, number: Number, comparator: Option<&str>) -> Value {
    let mut quantity = json!({ "value": number });
    if let Some(comparator) = comparator {
        quantity["comparator"] = comparator.into();
    }
    if let Some((unit, is_ucum)) = unit(mapper, obx) {
        quantity["unit"] = unit.clone().into();
        if is_ucum {
            quantity["system"] = "http://unitsofmeasure.org".into();
            quantity["code"] = unit.into();
        }
    }
    quantity
}

/// OBX-6: the unit, and whether it is one of UCUM.
fn unit(mapper: &mut Mapper<'_>, obx: usize) -> Option<(String, bool)> {
    let place = Place { segment: obx, field: 6, repeat: 1 };
    let (code, name) = (mapper.component(place, 1), mapper.component(place, 2));
    let system = mapper.component(place, 3);
    let is_ucum = code.is_some() && system.as_deref() == Some("UCUM");
    Some((code.or(name)?, is_ucum))
}

/// NM as a decimal of JSON: a plus sign, leading zeros and a bare point are left out. v2.5.1, 2.A.47.
pub(super) fn decimal(text: &str) -> Option<Number> {
    let text = text.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if text.len() > NUMBER_CHARS_MAX
        || whole.len() + fraction.len() == 0
        || !is_number(whole)
        || !is_number(fraction)
    {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if fraction.is_empty() { "" } else { "." };
    serde_json::from_str(&format!("{sign}{whole}{point}{fraction}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_as_senders_write_it_is_a_decimal_and_nothing_else_is() {
        for (sent, wanted) in [
            ("+07", "7"),
            (".5", "0.5"),
            ("5.", "5"),
            ("8.40", "8.40"),
            ("-0012.50", "-12.50"),
            (" 3 ", "3"),
            ("000", "0"),
        ] {
            assert_eq!(decimal(sent).unwrap().to_string(), wanted, "{sent}");
        }
        for sent in ["", ".", "-", "1e5", "1-2", "1.2.3", "0x1", "1,5", "+-1"] {
            assert_eq!(decimal(sent), None, "{sent}");
        }
    }
}

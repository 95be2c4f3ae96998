//! Whether a resource's entries satisfy a query.

use super::{
    Comparison, Condition, Entries, EntryValue, Filter, Prefix, Query, Reference, StringMatch, Token,
    TokenSystem, normal_form,
};
use crate::Timestamp;

impl Query {
    /// Whether a resource with these entries satisfies every filter. `id` and `last_updated` serve `_id` and `_lastUpdated`.
    pub fn matches(&self, entries: &Entries, id: &str, last_updated: Timestamp) -> bool {
        self.filters.iter().all(|filter| holds(filter, entries, id, last_updated))
    }
}

/// URLs that name one code system under two names are one for searching (three pairs of the endpoint directories).
pub fn canonical_system(system: &str) -> &str {
    match system {
        "http://hl7.org/fhir/endpoint-connection-type" => {
            "http://terminology.hl7.org/CodeSystem/endpoint-connection-type"
        }
        "http://terminology.hl7.org.au/CodeSystem/endpoint-connection-type" => {
            "http://hl7.org.au/fhir/CodeSystem/smd-interfaces"
        }
        "http://terminology.hl7.org.au/CodeSystem/endpoint-payload-type" => {
            "http://hl7.org.au/fhir/CodeSystem/endpoint-payload-type"
        }
        other => other,
    }
}

fn holds(filter: &Filter, entries: &Entries, id: &str, last_updated: Timestamp) -> bool {
    match &filter.condition {
        Condition::Id(ids) => return ids.iter().any(|wanted| wanted == id),
        Condition::LastUpdated(ranges) => {
            let at = last_updated.micros();
            return ranges.iter().any(|range| date_holds(range, at, at + 1));
        }
        _ => {}
    }
    let mut values = entries.entries.iter().filter(|e| e.parameter == filter.parameter).map(|e| &e.value);
    match &filter.condition {
        Condition::Missing(missing) => values.next().is_none() == *missing,
        Condition::TokenNot(tokens) => {
            !values.any(|value| tokens.iter().any(|token| token_holds(token, value)))
        }
        condition => values.any(|value| value_holds(condition, value)),
    }
}

/// Whether one value satisfies a condition (all but missing, not, id, lastUpdated).
fn value_holds(condition: &Condition, value: &EntryValue) -> bool {
    match (condition, value) {
        (Condition::Token(tokens), _) => tokens.iter().any(|token| token_holds(token, value)),
        (Condition::TokenText(texts), EntryValue::Token { text: Some(text), .. }) => {
            let text = normal_form(text);
            texts.iter().any(|wanted| text.starts_with(wanted.as_str()))
        }
        (Condition::Reference(wanted), EntryValue::Reference { target: Some(target), .. }) => {
            wanted.iter().any(|wanted| reference_holds(wanted, target))
        }
        (
            Condition::ReferenceIdentifier(tokens),
            EntryValue::Reference { identifier: Some((system, value)), .. },
        ) => tokens.iter().any(|token| parts_hold(token, system.as_deref(), Some(value))),
        (Condition::String(how, wanted), EntryValue::String(text)) => string_holds(*how, wanted, text),
        (Condition::Uri(wanted), EntryValue::Uri(uri)) => wanted.contains(uri),
        (Condition::Uri(wanted), EntryValue::Reference { target: Some(Reference::Url(uri)), .. }) => {
            wanted.contains(uri)
        }
        (Condition::UriBelow(wanted), EntryValue::Uri(uri)) => wanted.iter().any(|w| is_below(uri, w)),
        (Condition::UriAbove(wanted), EntryValue::Uri(uri)) => wanted.iter().any(|w| is_below(w, uri)),
        (Condition::Date(ranges), EntryValue::Date(low, high)) => {
            ranges.iter().any(|range| date_holds(range, *low, *high))
        }
        (Condition::Number(ranges), EntryValue::Number(low, high)) => {
            ranges.iter().any(|r| number_holds(r, *low, *high))
        }
        (Condition::Quantity(wanted), EntryValue::Quantity(low, high, system, code)) => {
            wanted.iter().any(|(range, unit)| {
                number_holds(range, *low, *high)
                    && unit.as_ref().is_none_or(|unit| parts_hold(unit, system.as_deref(), code.as_deref()))
            })
        }
        (Condition::Composite(tuples), EntryValue::Composite(parts)) => tuples.iter().any(|tuple| {
            tuple.len() == parts.len()
                && tuple
                    .iter()
                    .zip(parts)
                    .all(|(wanted, part)| part.iter().any(|value| value_holds(&wanted.condition, value)))
        }),
        _ => false,
    }
}

fn token_holds(token: &Token, value: &EntryValue) -> bool {
    match value {
        EntryValue::Token { system, code, .. } => parts_hold(token, system.as_deref(), code.as_deref()),
        EntryValue::Uri(code) => parts_hold(token, None, Some(code)),
        _ => false,
    }
}

fn parts_hold(token: &Token, system: Option<&str>, code: Option<&str>) -> bool {
    let system_holds = match &token.system {
        TokenSystem::Any => true,
        TokenSystem::None => system.is_none(),
        TokenSystem::Is(wanted) => {
            system.is_some_and(|system| canonical_system(system) == canonical_system(wanted))
        }
    };
    system_holds
        && token.code.as_deref().is_none_or(|wanted| code == Some(wanted))
        && (code.is_some() || token.code.is_none())
}

fn reference_holds(wanted: &Reference, target: &Reference) -> bool {
    match (wanted, target) {
        (Reference::Id(id), Reference::Local(_, of)) => id == of,
        (Reference::Url(wanted), Reference::Url(url)) if !wanted.contains('|') => {
            url.split('|').next() == Some(wanted.as_str())
        }
        _ => wanted == target,
    }
}

fn string_holds(how: StringMatch, wanted: &[String], text: &str) -> bool {
    if how == StringMatch::Exact {
        return wanted.iter().any(|wanted| wanted == text);
    }
    let text = normal_form(text);
    wanted.iter().any(|wanted| match how {
        StringMatch::Contains => text.contains(wanted.as_str()),
        _ => text.starts_with(wanted.as_str()),
    })
}

fn is_below(uri: &str, above: &str) -> bool {
    uri.strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || above.ends_with('/'))
}

/// The table of prefixes for dates: P is the parameter's range, R the resource's.
fn date_holds(p: &Comparison, low: i64, high: i64) -> bool {
    let within = p.low <= low && high <= p.high;
    match p.prefix {
        Prefix::Eq => within,
        Prefix::Ne => !within,
        Prefix::Gt => high > p.high,
        Prefix::Lt => low < p.low,
        Prefix::Ge => high > p.low,
        Prefix::Le => low < p.high,
        Prefix::Sa => low >= p.high,
        Prefix::Eb => high <= p.low,
        Prefix::Ap => low < p.high && p.low < high,
    }
}

/// `eq`, `ne` and `ap` use the implied precision, the others the exact value.
fn number_holds(p: &Comparison, low: i64, high: i64) -> bool {
    let within = p.low <= low && high < p.high;
    match p.prefix {
        Prefix::Eq => within,
        Prefix::Ne => !within,
        Prefix::Gt => high > p.exact,
        Prefix::Lt => low < p.exact,
        Prefix::Ge => high >= p.exact,
        Prefix::Le => low <= p.exact,
        Prefix::Sa => low > p.exact,
        Prefix::Eb => high < p.exact,
        Prefix::Ap => low < p.high && p.low <= high,
    }
}

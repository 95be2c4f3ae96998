//! Whether a resource's entries satisfy a query.

use super::{
    Comparison, Condition, Entries, EntryValue, Filter, Prefix, Query, Reference, StringMatch, Token,
    TokenSystem, canonical_system, normal_form,
};
use crate::Timestamp;

impl Query {
    /// Whether a resource with these entries satisfies every filter and is within what may be seen. `id` and `last_updated` serve `_id` and
    /// `_lastUpdated`. Chains and `_has` are not satisfied: other resources decide on them.
    pub fn matches(&self, entries: &Entries, id: &str, last_updated: Timestamp) -> bool {
        self.filters.iter().all(|filter| filter.holds(entries, id, last_updated))
            && (self.within.is_empty()
                || self.within.iter().any(|part| part.matches(entries, id, last_updated)))
    }
}

impl Comparison {
    /// Whether the range `[low, high)` of a resource satisfies the comparison, by the table of prefixes of
    /// <https://hl7.org/fhir/R4/search.html#prefix>: `eq` means within.
    pub fn holds(&self, low: i64, high: i64) -> bool {
        match self.prefix {
            Prefix::Eq => self.low <= low && high <= self.high,
            Prefix::Ne => low < self.low || self.high < high,
            Prefix::Gt => high > self.high,
            Prefix::Lt => low < self.low,
            Prefix::Ge => high > self.low,
            Prefix::Le => low < self.high,
            Prefix::Sa => low >= self.high,
            Prefix::Eb => high <= self.low,
            Prefix::Ap => low < self.high && self.low < high,
        }
    }
}

impl Filter {
    fn holds(&self, entries: &Entries, id: &str, last_updated: Timestamp) -> bool {
        let entries = entries.entries.iter().filter(|entry| entry.parameter == self.parameter);
        let mut values = entries.map(|entry| &entry.value);
        match &self.condition {
            Condition::Id(ids) => ids.iter().any(|wanted| wanted == id),
            Condition::LastUpdated(ranges) => {
                let at = last_updated.micros();
                ranges.iter().any(|range| range.holds(at, at.saturating_add(1)))
            }
            Condition::Missing(missing) => {
                let served = matches!(self.parameter.name, "_id" | "_lastUpdated");
                (values.next().is_none() && !served) == *missing
            }
            // never by this resource alone
            Condition::Linked(_) => false,
            Condition::TokenNot(tokens) => !values.any(|value| tokens.iter().any(|token| token.holds(value))),
            condition => values.any(|value| condition.holds(value)),
        }
    }
}

impl Condition {
    /// Whether one value satisfies a condition that a single value can satisfy.
    fn holds(&self, value: &EntryValue) -> bool {
        match (self, value) {
            (Self::Token(tokens), _) => tokens.iter().any(|token| token.holds(value)),
            (Self::TokenText(texts), EntryValue::Token { text: Some(text), .. }) => {
                let text = normal_form(text);
                texts.iter().any(|wanted| text.starts_with(wanted.as_str()))
            }
            (Self::Reference(wanted), EntryValue::Reference { target: Some(target), .. }) => {
                wanted.iter().any(|wanted| wanted.holds(target))
            }
            (
                Self::ReferenceIdentifier(tokens),
                EntryValue::Reference { identifier: Some((system, value)), .. },
            ) => tokens.iter().any(|token| token.fits(system.as_deref(), Some(value))),
            (Self::String(how, wanted), EntryValue::String(text)) => how.holds(wanted, text),
            (Self::Uri(wanted), EntryValue::Uri(uri)) => wanted.contains(uri),
            (Self::UriBelow(wanted), EntryValue::Uri(uri)) => wanted.iter().any(|above| is_below(uri, above)),
            (Self::UriAbove(wanted), EntryValue::Uri(uri)) => wanted.iter().any(|below| is_below(below, uri)),
            (Self::Date(ranges), EntryValue::Date(low, high))
            | (Self::Number(ranges), EntryValue::Number(low, high) | EntryValue::Quantity(low, high, ..)) => {
                ranges.iter().any(|range| range.holds(*low, *high))
            }
            (Self::Quantity(wanted), EntryValue::Quantity(low, high, system, code)) => {
                let fits = |unit: &Token| unit.fits(system.as_deref(), code.as_deref());
                wanted.iter().any(|(range, unit)| range.holds(*low, *high) && unit.as_ref().is_none_or(fits))
            }
            (Self::Composite(tuples), EntryValue::Composite(parts)) => tuples.iter().any(|tuple| {
                tuple.len() == parts.len()
                    && tuple
                        .iter()
                        .zip(parts)
                        .all(|(wanted, part)| part.iter().any(|v| wanted.condition.holds(v)))
            }),
            _ => false,
        }
    }
}

impl Token {
    fn holds(&self, value: &EntryValue) -> bool {
        match value {
            EntryValue::Token { system, code, .. } => self.fits(system.as_deref(), code.as_deref()),
            _ => false,
        }
    }

    fn fits(&self, system: Option<&str>, code: Option<&str>) -> bool {
        let system_fits = match &self.system {
            TokenSystem::Any => true,
            TokenSystem::None => system.is_none(),
            TokenSystem::Is(wanted) => {
                system.is_some_and(|system| canonical_system(system) == canonical_system(wanted))
            }
        };
        system_fits && self.code.as_deref().is_none_or(|wanted| code == Some(wanted))
    }
}

impl Reference {
    /// A canonical with version offers both forms, so the text decides; a bare id is of any type.
    fn holds(&self, target: &Self) -> bool {
        match (self, target) {
            (Self::Id(id), Self::Local(_, of)) => id == of,
            _ => self == target,
        }
    }
}

impl StringMatch {
    fn holds(self, wanted: &[String], text: &str) -> bool {
        if self == Self::Exact {
            return wanted.iter().any(|wanted| wanted == text);
        }
        let text = normal_form(text);
        wanted.iter().any(|wanted| match self {
            Self::Contains => text.contains(wanted.as_str()),
            _ => text.starts_with(wanted.as_str()),
        })
    }
}

/// Whether `above` is `uri` or a beginning of it that ends where a part of its path does.
fn is_below(uri: &str, above: &str) -> bool {
    uri.strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || above.ends_with('/') || rest.starts_with(['/', '?', '#', '|']))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of prefixes: what holds for the parameter [10, 20) and a resource's range.
    #[test]
    fn prefixes_compare_ranges() {
        use Prefix::{Ap, Eb, Eq, Ge, Gt, Le, Lt, Ne, Sa};
        for ((low, high), expected) in [
            ((10, 20), vec![Eq, Ge, Le, Ap]),
            ((12, 15), vec![Eq, Ge, Le, Ap]),
            ((5, 10), vec![Ne, Lt, Le, Eb]),
            ((20, 25), vec![Ne, Gt, Ge, Sa]),
            ((5, 15), vec![Ne, Lt, Ge, Le, Ap]),
            ((15, 25), vec![Ne, Gt, Ge, Le, Ap]),
            ((5, 25), vec![Ne, Gt, Lt, Ge, Le, Ap]),
            ((i64::MIN, 10), vec![Ne, Lt, Le, Eb]),
            ((15, i64::MAX), vec![Ne, Gt, Ge, Le, Ap]),
        ] {
            for prefix in [Eq, Ne, Gt, Lt, Ge, Le, Sa, Eb, Ap] {
                let holds = Comparison { prefix, low: 10, high: 20, exact: 10 }.holds(low, high);
                assert_eq!(holds, expected.contains(&prefix), "{prefix:?} of [{low}, {high})");
            }
        }
    }

    #[test]
    fn below_ends_at_a_part_of_the_path() {
        assert!(is_below("http://a/b/c", "http://a/b"));
        assert!(is_below("http://a/b/c", "http://a/b/"));
        assert!(is_below("http://a/b", "http://a/b"));
        assert!(!is_below("http://a/bc", "http://a/b"));
        assert!(!is_below("http://a", "http://a/b"));
    }
}

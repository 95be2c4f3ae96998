//! Index keys. The hash input is length-prefixed and pinned by test vectors: a changed hash orphans every index.

use hilum_fhir::ResourceType;
use hilum_fhir::search::{
    Condition, Entries, EntryValue, Filter, ParamType, Parameter, Reference, StringMatch, Token, TokenSystem,
    canonical_system, normal_form,
};
use xxhash_rust::xxh3::xxh3_64;

/// Normal forms are indexed up to this many bytes; longer ones are told apart on the body.
const STRING_BYTES_MAX: usize = 64;

/// The index rows of one version.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rows {
    /// Token, reference and uri keys, sorted.
    pub(super) keys: Vec<i64>,
    /// Strings: key and normal form, sorted.
    pub(super) strings: Vec<(i64, String)>,
    /// Dates, numbers and quantities: key and range, sorted.
    pub(super) ranges: Vec<(i64, i64, i64)>,
}

/// Whether a parameter has index rows. Others repeat what another parameter of the type indexes, are asked so rarely that they are
/// checked on bodies, or say nothing.
pub(super) fn is_indexed(parameter: &Parameter) -> bool {
    !(parameter.name == "phonetic"
        || parameter.name.starts_with("combo-")
        || matches!(parameter.name, "_id" | "_lastUpdated" | "_security")
        || matches!(parameter.param_type, ParamType::Composite | ParamType::Special))
}

/// The rows of a resource's entries.
pub(super) fn rows(entries: &Entries) -> Rows {
    let mut rows = Rows::default();
    for entry in &entries.entries {
        let parameter = entry.parameter;
        if !is_indexed(parameter) {
            continue;
        }
        match &entry.value {
            EntryValue::Token { system, code: Some(code), .. } => {
                rows.keys.push(hash(parameter, b'a', "", code));
                rows.keys.push(match system {
                    Some(system) => hash(parameter, b's', canonical_system(system), code),
                    None => hash(parameter, b'n', "", code),
                });
            }
            EntryValue::Token { .. } | EntryValue::Composite(_) => {}
            EntryValue::Reference { target, identifier } => {
                rows.keys.extend(target.as_ref().and_then(|target| reference_key(parameter, target)));
                if let Some((system, value)) = identifier {
                    rows.keys.push(hash(parameter, b'l', system.as_deref().unwrap_or_default(), value));
                }
            }
            EntryValue::String(text) => {
                let normal = normal_form(text);
                rows.strings.push((hash(parameter, b'w', "", ""), cut(&normal).to_owned()));
            }
            EntryValue::Uri(uri) => rows.keys.push(hash(parameter, b'u', "", uri)),
            EntryValue::Date(low, high)
            | EntryValue::Number(low, high)
            | EntryValue::Quantity(low, high, ..) => {
                rows.ranges.push((hash(parameter, b'd', "", ""), *low, *high));
            }
        }
    }
    rows.keys.sort_unstable();
    rows.keys.dedup();
    rows.strings.sort_unstable();
    rows.strings.dedup();
    rows.ranges.sort_unstable();
    rows.ranges.dedup();
    rows
}

/// The key of an identifier, by which targets are matched.
pub(super) fn identifier_key(resource_type: ResourceType, system: Option<&str>, value: &str) -> i64 {
    match system {
        Some(system) => hash_parts(resource_type, "identifier", b's', canonical_system(system), value),
        None => hash_parts(resource_type, "identifier", b'n', "", value),
    }
}

/// How a filter is looked up.
#[derive(Clone, Debug)]
pub(super) enum Lookup {
    /// Resources with any of these keys; when `exact`, the key decides alone.
    Keys { keys: Vec<i64>, exact: bool },
    /// Strings that start with any of these.
    Strings(i64, Vec<String>),
    /// Ranges that overlap any of `[low, high]`.
    Ranges(i64, Vec<(i64, i64)>),
    /// Any of these ids.
    Ids(Vec<String>),
}

/// The look-up of a filter, when the index can serve it. Every hit is a candidate; what is not exact is checked on the body.
pub(super) fn lookup(filter: &Filter) -> Option<Lookup> {
    let parameter = filter.parameter;
    match &filter.condition {
        Condition::Id(ids) => return Some(Lookup::Ids(ids.clone())),
        _ if !is_indexed(parameter) => return None,
        _ => {}
    }
    Some(match &filter.condition {
        Condition::Token(tokens) => keys(tokens.iter().map(|t| token_key(parameter, t)))?,
        Condition::Reference(wanted) => keys(wanted.iter().flat_map(|r| reference_keys(parameter, r)))?,
        Condition::ReferenceIdentifier(tokens) => keys(tokens.iter().map(|t| match &t.system {
            TokenSystem::Is(system) => Some(hash(parameter, b'l', system, t.code.as_deref()?)),
            _ => None,
        }))?,
        Condition::Uri(uris) if parameter.param_type == ParamType::Uri => {
            keys(uris.iter().map(|uri| Some(hash(parameter, b'u', "", uri))))?
        }
        Condition::String(StringMatch::StartsWith, forms) => {
            Lookup::Strings(hash(parameter, b'w', "", ""), forms.iter().map(|f| cut(f).to_owned()).collect())
        }
        Condition::String(StringMatch::Exact, texts) => {
            let forms = texts.iter().map(|text| cut(&normal_form(text)).to_owned()).collect();
            Lookup::Strings(hash(parameter, b'w', "", ""), forms)
        }
        Condition::Date(ranges) => Lookup::Ranges(hash(parameter, b'd', "", ""), overlaps(ranges.iter())),
        Condition::Number(ranges) => Lookup::Ranges(hash(parameter, b'd', "", ""), overlaps(ranges.iter())),
        Condition::Quantity(ranges) => {
            Lookup::Ranges(hash(parameter, b'd', "", ""), overlaps(ranges.iter().map(|(r, _)| r)))
        }
        _ => return None,
    })
}

fn keys(found: impl Iterator<Item = Option<i64>>) -> Option<Lookup> {
    let keys: Vec<i64> = found.collect::<Option<_>>()?;
    (!keys.is_empty()).then_some(Lookup::Keys { keys, exact: true })
}

/// `[low, high]` that every match overlaps.
fn overlaps<'c>(ranges: impl Iterator<Item = &'c hilum_fhir::search::Comparison>) -> Vec<(i64, i64)> {
    use hilum_fhir::search::Prefix::{Ap, Eb, Eq, Ge, Gt, Le, Lt, Ne, Sa};
    ranges
        .map(|c| match c.prefix {
            Eq | Ap => (c.low, c.high),
            Ne => (i64::MIN, i64::MAX),
            Gt | Ge | Sa => (c.low.min(c.exact), i64::MAX),
            Lt | Le | Eb => (i64::MIN, c.high.max(c.exact)),
        })
        .collect()
}

fn token_key(parameter: &Parameter, token: &Token) -> Option<i64> {
    let code = token.code.as_deref()?;
    Some(match &token.system {
        TokenSystem::Any => hash(parameter, b'a', "", code),
        TokenSystem::None => hash(parameter, b'n', "", code),
        TokenSystem::Is(system) => hash(parameter, b's', canonical_system(system), code),
    })
}

/// A bare id may be of each target type.
fn reference_keys(parameter: &Parameter, wanted: &Reference) -> Vec<Option<i64>> {
    match wanted {
        Reference::Id(id) => {
            let targets: Vec<ResourceType> = if parameter.targets.is_empty() {
                ResourceType::all().collect()
            } else {
                parameter.targets.clone()
            };
            targets
                .into_iter()
                .map(|of| reference_key(parameter, &Reference::Local(of, id.clone())))
                .collect()
        }
        Reference::Url(url)
            if !url.contains('|') && !url.starts_with("urn:") && parameter.name != "_profile" =>
        {
            vec![Some(hash(parameter, b'u', "", url))]
        }
        other => vec![reference_key(parameter, other)],
    }
}

fn reference_key(parameter: &Parameter, target: &Reference) -> Option<i64> {
    match target {
        Reference::Local(of, id) => Some(hash(parameter, b'r', of.name(), id)),
        Reference::Url(url) => Some(hash(parameter, b'u', "", url.split('|').next().unwrap_or(url))),
        Reference::Id(_) => None,
    }
}

/// The longest beginning within the limit that ends at a character.
fn cut(normal: &str) -> &str {
    let mut end = normal.len().min(STRING_BYTES_MAX);
    while !normal.is_char_boundary(end) {
        end -= 1;
    }
    &normal[..end]
}

fn hash(parameter: &Parameter, tag: u8, system: &str, code: &str) -> i64 {
    hash_parts(parameter.resource_type, parameter.name, tag, system, code)
}

fn hash_parts(resource_type: ResourceType, parameter: &str, tag: u8, system: &str, code: &str) -> i64 {
    let mut input = Vec::with_capacity(32 + parameter.len() + system.len() + code.len());
    for part in [resource_type.name(), parameter, system, code] {
        input.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
        input.extend_from_slice(part.as_bytes());
    }
    input.push(tag);
    xxh3_64(&input).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_pinned() {
        let patient = ResourceType::from_name("Patient").unwrap();
        assert_eq!(identifier_key(patient, Some("urn:a"), "1"), PINNED[0]);
        assert_eq!(identifier_key(patient, None, "1"), PINNED[1]);
        assert_ne!(hash_parts(patient, "a", b's', "bc", "d"), hash_parts(patient, "a", b's', "b", "cd"));
    }

    const PINNED: [i64; 2] = [-5_501_560_446_168_562_413, 3_200_349_869_414_047_595];

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(cut(&"é".repeat(40)).len(), 64);
        assert_eq!(cut(&format!("a{}", "é".repeat(40))).len(), 63);
    }
}

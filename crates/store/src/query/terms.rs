//! What a search asks of the index: the look-up of each of its filters.

use hilum_fhir::ResourceType;
use hilum_fhir::search::{
    Comparison, Condition, Filter, ParamType, Parameter, Reference, StringMatch, Token, TokenSystem,
    normal_form,
};
use hilum_rows::Db;
use hilum_rows::keys::{self, Key, Lookup, cut, is_indexed, reference_key, token, widest};

use crate::Error;

/// Systems of one code that a search without a system looks for.
const SYSTEMS_MAX: usize = 256;

/// The look-up of a filter, when the index can serve it. Every hit is a candidate; what is not exact is checked on the body.
///
/// # Errors
/// `Unavailable` when the index cannot be read: a code without a system is looked up with every system it has.
pub(crate) fn lookup(db: Db<'_>, filter: &Filter) -> Result<Option<Lookup>, Error> {
    if let Condition::Id(ids) = &filter.condition {
        return Ok(Some(Lookup::Ids(ids.clone())));
    }
    if !is_indexed(filter.parameter) {
        return Ok(None);
    }
    let parameter = widest(filter.parameter);
    let own = parameter == filter.parameter;
    Ok(match &filter.condition {
        Condition::Token(tokens) => {
            let mut keys = Some(Vec::new());
            for token in tokens {
                keys = keys.zip(token_keys(db, parameter, token)?).map(|(all, more)| [all, more].concat());
            }
            keys.map(|keys| Lookup::Keys { keys, exact: own })
        }
        Condition::Reference(wanted) => {
            let keys = wanted.iter().flat_map(|one| reference_keys(filter.parameter, parameter, one));
            // a reference of a type that only the narrower parameter asks for is one of it
            let typed = |one: &Reference| {
                matches!(one, Reference::Local(of, _) if filter.parameter.targets.contains(of))
                    || matches!(one, Reference::Id(_)) && !filter.parameter.targets.is_empty()
            };
            keys_of(keys, own || wanted.iter().all(typed))
        }
        Condition::ReferenceIdentifier(tokens) => keys_of(
            tokens.iter().map(|t| match &t.system {
                TokenSystem::Is(system) => Some(keys::logical(parameter, system, t.code.as_deref()?)),
                _ => None,
            }),
            own,
        ),
        Condition::Uri(uris) if parameter.param_type == ParamType::Uri => {
            keys_of(uris.iter().map(|uri| Some(keys::uri(parameter, uri))), own)
        }
        Condition::String(StringMatch::StartsWith, forms) => {
            let forms = forms.iter().map(|f| cut(f).to_owned()).collect();
            Some(Lookup::Strings(keys::strings(parameter), forms))
        }
        Condition::String(StringMatch::Exact, texts) => {
            let forms = texts.iter().map(|text| cut(&normal_form(text)).to_owned()).collect();
            Some(Lookup::Strings(keys::strings(parameter), forms))
        }
        Condition::Date(ranges) => Some(ranges_of(parameter, overlaps(ranges.iter()))),
        Condition::Number(ranges) => Some(ranges_of(parameter, overlaps(ranges.iter()))),
        Condition::Quantity(ranges) => Some(ranges_of(parameter, overlaps(ranges.iter().map(|(r, _)| r)))),
        _ => None,
    })
}

fn keys_of(found: impl Iterator<Item = Option<Key>>, exact: bool) -> Option<Lookup> {
    let keys: Vec<Key> = found.collect::<Option<_>>()?;
    (!keys.is_empty()).then_some(Lookup::Keys { keys, exact })
}

fn ranges_of(parameter: &Parameter, ranges: Vec<(i64, i64)>) -> Lookup {
    Lookup::Ranges(keys::ranges(parameter), ranges)
}

/// `[low, high]` that every match overlaps.
fn overlaps<'c>(ranges: impl Iterator<Item = &'c Comparison>) -> Vec<(i64, i64)> {
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

/// The keys of a token; without a system, of every system its code has. `None` when the index cannot tell.
fn token_keys(db: Db<'_>, parameter: &Parameter, wanted: &Token) -> Result<Option<Vec<Key>>, Error> {
    let Some(code) = wanted.code.as_deref().filter(|code| !keys::is_common(parameter, code)) else {
        return Ok(None);
    };
    match &wanted.system {
        TokenSystem::None => Ok(Some(vec![token(parameter, None, code)])),
        TokenSystem::Is(system) => Ok(Some(vec![token(parameter, Some(system), code)])),
        TokenSystem::Any => systems_of(db, token(parameter, None, code).value),
    }
}

/// The keys a code has, one for each system. `None` when there are too many.
fn systems_of(db: Db<'_>, value: i64) -> Result<Option<Vec<Key>>, Error> {
    let systems = db.systems_of(value, SYSTEMS_MAX + 1)?;
    let few = systems.len() <= SYSTEMS_MAX;
    Ok(few.then(|| systems.into_iter().map(|system| Key { value, system }).collect()))
}

/// A bare id may be of each target type.
fn reference_keys(asked: &Parameter, indexed: &Parameter, wanted: &Reference) -> Vec<Option<Key>> {
    match wanted {
        Reference::Id(id) => {
            let targets: Vec<ResourceType> =
                if asked.targets.is_empty() { ResourceType::all().collect() } else { asked.targets.clone() };
            targets.into_iter().map(|of| reference_key(indexed, &Reference::Local(of, id.clone()))).collect()
        }
        Reference::Url(url)
            if !url.contains('|') && !url.starts_with("urn:") && indexed.name != "_profile" =>
        {
            vec![Some(keys::uri(indexed, url))]
        }
        other => vec![reference_key(indexed, other)],
    }
}

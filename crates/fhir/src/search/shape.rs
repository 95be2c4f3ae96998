//! Result parameters: what shapes the answer and filters nothing.

use super::parse::unsupported_modifier;
use super::value::invalid;
use super::{Include, Options, ParamType, Query, Sort, Summary, Total, parameter, parameters};
use crate::{Issue, IssueCode, ResourceType};

/// What became of a pair.
pub(super) enum Shaped {
    /// Applied, with the value that took effect.
    Applied(String),
    /// Not or not wholly understood; `applied` is the part that took effect.
    LeftOut {
        /// The rest of a sentence that starts with the parameter.
        why: &'static str,
        /// What took effect.
        applied: Option<String>,
    },
    /// Not understood, and without effect on what is found: said, and refused in no mode.
    NoMatter,
    /// An error in every mode.
    Refused(Issue),
    /// Another kind of parameter.
    NoResultParameter,
}

impl From<Result<String, Issue>> for Shaped {
    fn from(result: Result<String, Issue>) -> Self {
        result.map_or_else(Self::Refused, Self::Applied)
    }
}

/// Clients of other servers say with it how to count (fhirpy of Aidbox).
const NO_MATTER: [&str; 1] = ["_totalMethod"];
const NAMES: [&str; 10] = [
    "_sort",
    "_count",
    "_include",
    "_revinclude",
    "_summary",
    "_elements",
    "_total",
    "_contained",
    "_format",
    "_pretty",
];

impl Query {
    /// Takes a result parameter.
    pub(super) fn shape(&mut self, name: &str, value: &str, options: &Options<'_>) -> Shaped {
        let (base, modifier) = name.split_once(':').map_or((name, None), |(base, m)| (base, Some(m)));
        if NO_MATTER.contains(&name) && !options.condition {
            return Shaped::NoMatter;
        }
        if !NAMES.contains(&base) {
            return Shaped::NoResultParameter;
        }
        if options.condition {
            let text = "the parameter shapes an answer and cannot be part of a condition";
            return Shaped::Refused(Issue::error(IssueCode::Invalid, text));
        }
        let iterate = match (base, modifier) {
            ("_include" | "_revinclude", Some("iterate" | "recurse")) => true,
            (_, None) => false,
            (_, Some(_)) => return Shaped::Refused(unsupported_modifier()),
        };
        let single = matches!(base, "_count" | "_summary" | "_total");
        if single && self.applied.iter().any(|(known, _)| known == name) {
            return Shaped::Refused(Issue::error(
                IssueCode::Invalid,
                "the parameter is given more than once",
            ));
        }
        match base {
            "_sort" => self.shape_sort(value),
            "_count" => self.shape_count(value, options).into(),
            "_include" | "_revinclude" => self.shape_include(value, base == "_revinclude", iterate),
            "_summary" => self.shape_summary(value).into(),
            "_elements" => self.shape_elements(value).into(),
            "_total" => self.shape_total(value).into(),
            "_contained" if value != "false" => {
                Shaped::Refused(Issue::error(IssueCode::NotSupported, "only false is supported"))
            }
            // `_format` and `_pretty` are the listener's
            _ => Shaped::Applied(value.to_owned()),
        }
    }

    fn shape_count(&mut self, value: &str, options: &Options<'_>) -> Result<String, Issue> {
        if value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit()) {
            return Err(invalid("the value is a whole number of at least 0"));
        }
        // digits only: what does not fit is larger than any limit
        let count = value.parse().unwrap_or(u32::MAX).min(options.count_max);
        self.count = Some(count);
        if count == 0 {
            self.summary = Summary::Count;
        }
        Ok(count.to_string())
    }

    fn shape_summary(&mut self, value: &str) -> Result<String, Issue> {
        self.summary = match value {
            "true" => Summary::True,
            "text" => Summary::Text,
            "data" => Summary::Data,
            "count" => Summary::Count,
            "false" => Summary::False,
            _ => return Err(invalid("the value is one of true, text, data, count, false")),
        };
        if self.count == Some(0) {
            self.summary = Summary::Count;
        }
        Ok(value.to_owned())
    }

    fn shape_total(&mut self, value: &str) -> Result<String, Issue> {
        self.total = match value {
            "none" => Total::None,
            "accurate" | "estimate" => Total::Accurate,
            _ => return Err(invalid("the value is one of none, estimate, accurate")),
        };
        Ok(value.to_owned())
    }

    fn shape_elements(&mut self, value: &str) -> Result<String, Issue> {
        for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.') {
                return Err(invalid("the values are element names"));
            }
            self.elements.push(name.to_owned());
        }
        Ok(value.to_owned())
    }

    fn shape_sort(&mut self, value: &str) -> Shaped {
        let (mut applied, mut complete) = (Vec::new(), true);
        for key in value.split(',').map(str::trim) {
            let (name, descending) = key.strip_prefix('-').map_or((key, false), |name| (name, true));
            match parameter(self.resource_type, name) {
                Some(parameter) if parameter.param_type != ParamType::Composite => {
                    self.sort.push(Sort { parameter, descending });
                    applied.push(key);
                }
                _ => complete = false,
            }
        }
        let applied = (!applied.is_empty()).then(|| applied.join(","));
        match applied {
            Some(applied) if complete => Shaped::Applied(applied),
            applied => Shaped::LeftOut { why: "names a key that cannot be sorted by", applied },
        }
    }

    fn shape_include(&mut self, value: &str, reverse: bool, iterate: bool) -> Shaped {
        let found = match value {
            "*" if reverse => sources_of(self.resource_type, iterate),
            "*" => vec![Include { source: self.resource_type, parameter: None, target: None, iterate }],
            _ => match include(value, iterate) {
                Ok(Some(include)) => vec![include],
                Ok(None) => {
                    return Shaped::LeftOut { why: "names no reference parameter", applied: None };
                }
                Err(issue) => return Shaped::Refused(issue),
            },
        };
        if reverse {
            self.revincludes.extend(found)
        } else {
            self.includes.extend(found)
        }
        Shaped::Applied(value.to_owned())
    }
}

/// `Type:parameter`, `Type:parameter:Target`, `Type:*`; `None` when a name in it is unknown.
fn include(value: &str, iterate: bool) -> Result<Option<Include>, Issue> {
    let parts: Vec<&str> = value.split(':').collect();
    let (source, name, target) = match parts.as_slice() {
        [source, name] => (*source, *name, None),
        [source, name, target] => (*source, *name, Some(*target)),
        _ => return Err(invalid("the value is Type:parameter, Type:parameter:Target, Type:* or *")),
    };
    let Some(source) = ResourceType::from_name(source) else { return Ok(None) };
    let found = parameter(source, name).filter(|p| p.param_type == ParamType::Reference);
    let target_type = target.and_then(ResourceType::from_name);
    if (name != "*" && found.is_none()) || (target.is_some() && target_type.is_none()) {
        return Ok(None);
    }
    Ok(Some(Include { source, parameter: found, target: target_type, iterate }))
}

/// Everything that can refer to a type.
fn sources_of(of: ResourceType, iterate: bool) -> Vec<Include> {
    let refers = |source: &ResourceType| {
        let mut references = parameters(*source).iter().filter(|p| p.param_type == ParamType::Reference);
        references.any(|p| p.targets.is_empty() || p.targets.contains(&of))
    };
    let include = |source| Include { source, parameter: None, target: Some(of), iterate };
    ResourceType::all().filter(refers).map(include).collect()
}

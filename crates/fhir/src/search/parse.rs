//! From name-value pairs to a query.

use super::date::date_range;
use super::extract::parse_reference;
use super::{
    Comparison, Condition, Context, Filter, Include, ParamType, Parameter, Prefix, Query, Reference, Sort,
    StringMatch, Summary, Token, TokenSystem, Total, normal_form, ordered, parameter,
};
use crate::{Issue, IssueCode, ResourceType};

/// How a query is read.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// `Prefer: handling=strict`, conditions and Subscription criteria: an unknown parameter is an error.
    pub strict: bool,
    /// A condition (`If-None-Exist`, conditional update): result parameters (`_sort`, `_include`, `_count`) are errors too, and
    /// so is an empty query.
    pub condition: bool,
    /// The bases of this server; absolute references that start with one are local.
    pub bases: &'a [String],
    /// Largest `_count`; larger ones are clamped.
    pub count_max: u32,
    /// Largest number of parameters.
    pub parameters_max: usize,
    /// Largest number of comma-separated values in all.
    pub or_values_max: usize,
}

impl Options<'static> {
    /// Strict, for conditions and Subscription criteria.
    pub fn condition() -> Self {
        Self {
            strict: true,
            condition: true,
            bases: &[],
            count_max: 1,
            parameters_max: 64,
            or_values_max: 500,
        }
    }
}

/// Parameters that shape the answer and filter nothing.
const RESULT_PARAMETERS: [&str; 10] = [
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
    /// Reads decoded name-value pairs. The second part are warnings: parameters left out, empty values.
    ///
    /// # Errors
    /// Issues for a bad value, an unsupported modifier, a limit, and under `strict` an unknown parameter.
    pub fn parse(
        resource_type: ResourceType,
        pairs: &[(String, String)],
        options: &Options<'_>,
        context: &Context,
    ) -> Result<(Self, Vec<Issue>), Vec<Issue>> {
        let mut reader = Reader {
            query: Self::all(resource_type),
            options,
            context,
            warnings: Vec::new(),
            errors: Vec::new(),
            values: 0,
        };
        if pairs.len() > options.parameters_max {
            let text = format!("more than {} search parameters", options.parameters_max);
            return Err(vec![Issue::error(IssueCode::TooCostly, text)]);
        }
        for (name, value) in pairs {
            reader.pair(name, value);
        }
        if options.condition && reader.query.filters.is_empty() && reader.errors.is_empty() {
            reader.errors.push(Issue::error(
                IssueCode::Invalid,
                "a condition needs at least one search parameter with a value",
            ));
        }
        if reader.errors.is_empty() { Ok((reader.query, reader.warnings)) } else { Err(reader.errors) }
    }

    /// Reads Subscription criteria: `Observation?code=…`, without base and leading slash; always strict.
    ///
    /// # Errors
    /// The issues of [`Query::parse`], and of an unknown type.
    pub fn parse_criteria(criteria: &str, context: &Context) -> Result<Self, Vec<Issue>> {
        let (name, rest) = criteria.split_once('?').unwrap_or((criteria, ""));
        let resource_type = ResourceType::from_name(name).ok_or_else(|| {
            vec![Issue::error(
                IssueCode::Value,
                "criteria start with a resource type, as in Observation?code=1975-2",
            )]
        })?;
        let pairs = decode_pairs(rest);
        let options = Options { condition: !pairs.is_empty(), ..Options::condition() };
        Self::parse(resource_type, &pairs, &options, context).map(|(query, _)| query)
    }

    /// The query without any condition.
    pub fn all(resource_type: ResourceType) -> Self {
        Self {
            resource_type,
            filters: Vec::new(),
            sort: Vec::new(),
            count: None,
            total: Total::default(),
            includes: Vec::new(),
            revincludes: Vec::new(),
            summary: Summary::default(),
            elements: Vec::new(),
            applied: Vec::new(),
        }
    }
}

/// The name-value pairs of a query string or form body: `+` is a blank, `%xx` a byte; broken escapes are kept as they are.
pub fn decode_pairs(text: &str) -> Vec<(String, String)> {
    let decode = |part: &str| {
        let spaced = part.replace('+', " ");
        percent_encoding::percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

struct Reader<'a> {
    query: Query,
    options: &'a Options<'a>,
    context: &'a Context,
    warnings: Vec<Issue>,
    errors: Vec<Issue>,
    values: usize,
}

type Outcome<T> = Result<T, Issue>;

impl Reader<'_> {
    fn pair(&mut self, name: &str, value: &str) {
        let result_parameter = RESULT_PARAMETERS
            .iter()
            .any(|known| name == *known || name.strip_prefix(known).is_some_and(|m| m.starts_with(':')));
        if value.is_empty() {
            self.left_out(name, "has no value");
            return;
        }
        let read = match (result_parameter, self.options.condition) {
            (true, true) => {
                Err(Issue::error(IssueCode::Invalid, "shapes an answer and cannot be part of a condition"))
            }
            (true, false) => self.result(name, value),
            (false, _) => self.filter(name, value),
        };
        match read {
            Ok(true) => self.query.applied.push((name.to_owned(), value.to_owned())),
            Ok(false) => self.left_out(name, "is not supported for this type"),
            Err(issue) => self.errors.push(issue.at(printable(name))),
        }
    }

    fn left_out(&mut self, name: &str, why: &str) {
        let text = format!("the search parameter {} {why}", printable(name));
        if self.options.strict {
            self.errors.push(Issue::error(IssueCode::NotSupported, text).at(printable(name)));
        } else {
            self.warnings.push(
                Issue::warning(IssueCode::NotSupported, format!("{text} and was left out"))
                    .at(printable(name)),
            );
        }
    }

    fn result(&mut self, name: &str, value: &str) -> Outcome<bool> {
        match name.split(':').next().unwrap_or(name) {
            "_sort" => return self.sort(value),
            "_count" => {
                let count: u32 = value.parse().map_err(|_| invalid("is a number of at least 0"))?;
                self.query.count = Some(count.min(self.options.count_max));
                if count == 0 {
                    self.query.summary = Summary::Count;
                }
            }
            "_include" => return self.include(name, value, false),
            "_revinclude" => return self.include(name, value, true),
            "_summary" => {
                self.query.summary = match value {
                    "true" => Summary::True,
                    "text" => Summary::Text,
                    "data" => Summary::Data,
                    "count" => Summary::Count,
                    "false" => Summary::False,
                    _ => return Err(invalid("is one of true, text, data, count, false")),
                }
            }
            "_elements" => self
                .query
                .elements
                .extend(value.split(',').map(|e| e.trim().to_owned()).filter(|e| !e.is_empty())),
            "_total" => {
                self.query.total = match value {
                    "none" => Total::None,
                    "accurate" | "estimate" => Total::Accurate,
                    _ => return Err(invalid("is one of none, estimate, accurate")),
                }
            }
            "_contained" if value != "false" => return Err(invalid("only false is supported")),
            _ => {}
        }
        Ok(true)
    }

    fn sort(&mut self, value: &str) -> Outcome<bool> {
        for key in value.split(',') {
            let (name, descending) =
                key.trim().strip_prefix('-').map_or((key.trim(), false), |name| (name, true));
            match parameter(self.query.resource_type, name) {
                Some(p) if !matches!(p.param_type, ParamType::Special | ParamType::Composite) => {
                    self.query.sort.push(Sort { parameter: p, descending });
                }
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    fn include(&mut self, name: &str, value: &str, reverse: bool) -> Outcome<bool> {
        let iterate = match name.split_once(':').map(|(_, modifier)| modifier) {
            None => false,
            Some("iterate" | "recurse") => true,
            Some(_) => return Err(invalid("the only modifier is :iterate")),
        };
        let mut parts = value.split(':');
        let (Some(source), path, target) = (parts.next(), parts.next(), parts.next()) else {
            return Ok(false);
        };
        let Some(source) =
            (if source == "*" { Some(self.query.resource_type) } else { ResourceType::from_name(source) })
        else {
            return Ok(false);
        };
        let parameter = match path {
            None | Some("*") => None,
            Some(path) => match parameter(source, path) {
                Some(p) if p.param_type == ParamType::Reference => Some(p),
                _ => return Ok(false),
            },
        };
        let target = target
            .map(|name| ResourceType::from_name(name).ok_or_else(|| invalid("names an unknown target type")));
        let include = Include { source, parameter, target: target.transpose()?, iterate };
        if reverse {
            self.query.revincludes.push(include)
        } else {
            self.query.includes.push(include)
        }
        Ok(true)
    }

    fn filter(&mut self, name: &str, value: &str) -> Outcome<bool> {
        let (name, modifier) =
            name.split_once(':').map_or((name, None), |(name, modifier)| (name, Some(modifier)));
        let Some(parameter) = parameter(self.query.resource_type, name) else { return Ok(false) };
        let values = split(value, ',');
        self.values += values.len();
        if self.values > self.options.or_values_max {
            return Err(Issue::error(
                IssueCode::TooCostly,
                format!("more than {} values", self.options.or_values_max),
            ));
        }
        let condition = match (name, modifier) {
            (_, Some("missing")) => Condition::Missing(flag(value)?),
            ("_id", None) => Condition::Id(values.iter().map(|v| unescape(v)).collect()),
            ("_lastUpdated", None) => Condition::LastUpdated(self.instants(&values)?),
            _ => self.condition(parameter, modifier, &values)?,
        };
        self.query.filters.push(Filter { parameter, condition });
        Ok(true)
    }

    fn condition(
        &self,
        parameter: &'static Parameter,
        modifier: Option<&str>,
        values: &[String],
    ) -> Outcome<Condition> {
        let unescaped = || values.iter().map(|v| unescape(v)).collect::<Vec<String>>();
        Ok(match (parameter.param_type, modifier) {
            (ParamType::Token, None) => {
                Condition::Token(values.iter().map(|v| token(v)).collect::<Outcome<_>>()?)
            }
            (ParamType::Token, Some("not")) => {
                Condition::TokenNot(values.iter().map(|v| token(v)).collect::<Outcome<_>>()?)
            }
            (ParamType::Token, Some("text")) => Condition::TokenText(normal(values)?),
            (ParamType::String, None) => Condition::String(StringMatch::StartsWith, normal(values)?),
            (ParamType::String, Some("contains")) => {
                Condition::String(StringMatch::Contains, normal(values)?)
            }
            (ParamType::String, Some("exact")) => Condition::String(StringMatch::Exact, unescaped()),
            (ParamType::Uri, None) => Condition::Uri(unescaped()),
            (ParamType::Uri, Some("below")) => Condition::UriBelow(unescaped()),
            (ParamType::Uri, Some("above")) => Condition::UriAbove(unescaped()),
            (ParamType::Date, None) => Condition::Date(self.dates(values)?),
            (ParamType::Number, None) => {
                Condition::Number(values.iter().map(|v| number(v)).collect::<Outcome<_>>()?)
            }
            (ParamType::Quantity, None) => {
                Condition::Quantity(values.iter().map(|v| quantity(v)).collect::<Outcome<_>>()?)
            }
            (ParamType::Reference, Some("identifier")) => {
                Condition::ReferenceIdentifier(values.iter().map(|v| token(v)).collect::<Outcome<_>>()?)
            }
            (ParamType::Reference, modifier) => {
                Condition::Reference(self.references(parameter, modifier, values)?)
            }
            (ParamType::Composite, None) => Condition::Composite(self.tuples(parameter, values)?),
            (ParamType::Special, _) => return Err(Issue::error(IssueCode::NotSupported, "is not supported")),
            (_, Some(_)) => {
                return Err(Issue::error(
                    IssueCode::NotSupported,
                    "this modifier is not supported for the parameter",
                ));
            }
        })
    }

    fn references(
        &self,
        parameter: &Parameter,
        modifier: Option<&str>,
        values: &[String],
    ) -> Outcome<Vec<Reference>> {
        let of = match modifier {
            None => None,
            Some(name) => Some(ResourceType::from_name(name).ok_or_else(|| {
                Issue::error(IssueCode::NotSupported, "this modifier is not supported for the parameter")
            })?),
        };
        let mut found = Vec::new();
        for value in values {
            let value = unescape(value);
            let local = self
                .options
                .bases
                .iter()
                .find_map(|base| value.strip_prefix(base.as_str())?.strip_prefix('/'));
            let text = local.unwrap_or(&value);
            match (parse_reference(text), of) {
                (Reference::Url(text), Some(of)) if is_id(&text) => found.push(Reference::Local(of, text)),
                (Reference::Url(text), None) if is_id(&text) => match parameter.targets.as_slice() {
                    [one] => found.push(Reference::Local(*one, text)),
                    _ => found.push(Reference::Id(text)),
                },
                (other, _) => found.push(other),
            }
        }
        Ok(found)
    }

    fn dates(&self, values: &[String]) -> Outcome<Vec<Comparison>> {
        values
            .iter()
            .map(|value| {
                let (prefix, text) = prefix(value);
                let (low, high) =
                    date_range(text, &self.context.zone).ok_or_else(|| invalid("is no date of FHIR"))?;
                let (low, high) = if prefix == Prefix::Ap { self.widened(low, high) } else { (low, high) };
                Ok(Comparison { prefix, low, high, exact: low })
            })
            .collect()
    }

    /// As dates, in microseconds.
    fn instants(&self, values: &[String]) -> Outcome<Vec<Comparison>> {
        let in_micros =
            |c: Comparison| Comparison { low: c.low * 1000, high: c.high * 1000, exact: c.exact * 1000, ..c };
        Ok(self.dates(values)?.into_iter().map(in_micros).collect())
    }

    /// 10 % of the distance to now on both sides, at least the range's own length.
    fn widened(&self, low: i64, high: i64) -> (i64, i64) {
        let margin = ((self.context.now.millis() - low).abs() / 10).max(high - low);
        (low - margin, high + margin)
    }

    fn tuples(&self, parameter: &'static Parameter, values: &[String]) -> Outcome<Vec<Vec<Filter>>> {
        let tuple = |value: &String| {
            let parts = split(value, '$');
            if parts.len() != parameter.components.len() {
                return Err(invalid("has one part for each component, separated by $"));
            }
            let filters = parts.iter().zip(&parameter.components).map(|(part, component)| {
                let part = std::slice::from_ref(part);
                let condition = match component.param_type {
                    ParamType::Token => Condition::Token(vec![token(&part[0])?]),
                    ParamType::String => Condition::String(StringMatch::StartsWith, normal(part)?),
                    ParamType::Date => Condition::Date(self.dates(part)?),
                    ParamType::Number => Condition::Number(vec![number(&part[0])?]),
                    ParamType::Quantity => Condition::Quantity(vec![quantity(&part[0])?]),
                    ParamType::Uri => Condition::Uri(vec![unescape(&part[0])]),
                    ParamType::Reference => Condition::Reference(self.references(parameter, None, part)?),
                    _ => return Err(Issue::error(IssueCode::NotSupported, "is not supported")),
                };
                Ok(Filter { parameter, condition })
            });
            filters.collect()
        };
        values.iter().map(tuple).collect()
    }
}

fn invalid(text: &str) -> Issue {
    Issue::error(IssueCode::Value, text)
}

/// A parameter name as it may stand in a text: its harmless letters.
fn printable(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || "_-.:".contains(*c)).take(64).collect()
}

fn flag(value: &str) -> Outcome<bool> {
    value.parse().map_err(|_| invalid("is true or false"))
}

fn is_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}

/// Splits at a separator that is not escaped; escapes are kept for [`unescape`].
fn split(text: &str, separator: char) -> Vec<String> {
    let (mut parts, mut escaped) = (vec![String::new()], false);
    for letter in text.chars() {
        if letter == separator && !escaped {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(letter);
        }
        escaped = letter == '\\' && !escaped;
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// `\,` `\|` `\$` `\\`
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letters.peek() {
            Some(next) if letter == '\\' && ",|$\\".contains(*next) => plain.extend(letters.next()),
            _ => plain.push(letter),
        }
    }
    plain
}

fn normal(values: &[String]) -> Outcome<Vec<String>> {
    let forms: Vec<String> =
        values.iter().map(|v| normal_form(&unescape(v))).filter(|form| !form.is_empty()).collect();
    if forms.is_empty() { Err(invalid("has no letter or digit to search for")) } else { Ok(forms) }
}

fn token(value: &str) -> Outcome<Token> {
    let parts = split_all(value);
    let (system, code) = match parts.as_slice() {
        [code] => (TokenSystem::Any, code),
        [system, code] if system.is_empty() => (TokenSystem::None, code),
        [system, code] => (TokenSystem::Is(unescape(system)), code),
        _ => return Err(invalid("has at most one | between system and code")),
    };
    let code = (!code.is_empty()).then(|| unescape(code));
    if code.is_none() && !matches!(system, TokenSystem::Is(_)) {
        return Err(invalid("is code, system|code, |code or system|"));
    }
    Ok(Token { system, code })
}

/// Splits at `|`, empty parts kept.
fn split_all(text: &str) -> Vec<String> {
    let (mut parts, mut escaped) = (vec![String::new()], false);
    for letter in text.chars() {
        if letter == '|' && !escaped {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(letter);
        }
        escaped = letter == '\\' && !escaped;
    }
    parts
}

fn prefix(text: &str) -> (Prefix, &str) {
    let prefix = match text.get(..2) {
        Some("eq") => Prefix::Eq,
        Some("ne") => Prefix::Ne,
        Some("gt") => Prefix::Gt,
        Some("lt") => Prefix::Lt,
        Some("ge") => Prefix::Ge,
        Some("le") => Prefix::Le,
        Some("sa") => Prefix::Sa,
        Some("eb") => Prefix::Eb,
        Some("ap") => Prefix::Ap,
        _ => return (Prefix::Eq, text),
    };
    (prefix, &text[2..])
}

/// A decimal with its implied precision: `5.40` is [5.395, 5.405).
fn number(text: &str) -> Outcome<Comparison> {
    let (prefix, digits) = prefix(text.trim());
    let value: f64 = digits.parse().map_err(|_| invalid("is a number"))?;
    if !value.is_finite() {
        return Err(invalid("is a number"));
    }
    let (mantissa, exponent) =
        digits.split_once(['e', 'E']).map_or((digits, 0), |(m, e)| (m, e.parse::<i32>().unwrap_or(0)));
    let decimals =
        mantissa.split_once('.').map_or(0, |(_, fraction)| i32::try_from(fraction.len()).unwrap_or(0));
    let half = match prefix {
        Prefix::Ap => value.abs() / 10.0,
        _ => 0.5 * 10f64.powi(exponent - decimals),
    };
    Ok(Comparison { prefix, low: ordered(value - half), high: ordered(value + half), exact: ordered(value) })
}

/// `[prefix]n`, `[prefix]n|system|code`, `n||unit`
fn quantity(text: &str) -> Outcome<(Comparison, Option<Token>)> {
    let parts = split_all(text);
    let value = number(&unescape(&parts[0]))?;
    let unit = match parts.as_slice() {
        [_] => None,
        [_, system, code] if !code.is_empty() => Some(Token {
            system: if system.is_empty() { TokenSystem::Any } else { TokenSystem::Is(unescape(system)) },
            code: Some(unescape(code)),
        }),
        _ => return Err(invalid("is number, number|system|code or number||unit")),
    };
    Ok((value, unit))
}

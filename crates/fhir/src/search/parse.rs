//! From name-value pairs to a query.

use super::chain::is_linked;
use super::shape::Shaped;
use super::value::{date, flag, instant, normal, number, quantity, reference, split, token, unescape};
use super::{
    Condition, Context, Filter, ParamType, Parameter, Query, StringMatch, Summary, Total, parameter,
    parameters,
};
use crate::{Issue, IssueCode, ResourceType};

/// How a query is read.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// `Prefer: handling=strict`, conditions and Subscription criteria: an unknown parameter is an error.
    pub strict: bool,
    /// A condition (`If-None-Exist`, conditional update): result parameters (`_sort`, `_include`, `_count`) and empty values are
    /// errors too, and so is an empty query.
    pub condition: bool,
    /// The bases of this server; absolute references that start with one are local.
    pub bases: &'a [String],
    /// Largest `_count`; larger ones are clamped.
    pub count_max: u32,
    /// Largest number of parameters.
    pub parameters_max: usize,
    /// Largest number of comma-separated values in all.
    pub or_values_max: usize,
    /// Largest number of references that one chained parameter or `_has` follows; 0 = there are none. More than 16 are never followed.
    pub chain_depth_max: usize,
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
            chain_depth_max: 4,
        }
    }
}

impl Query {
    /// Reads decoded name-value pairs. The second part are warnings: parameters left out, empty values.
    ///
    /// Chained parameters (`a.b`) and `_has` become [`Condition::Linked`]: who knows the caller has to allow them. Under `condition` they are an
    /// error.
    ///
    /// # Errors
    /// Issues for a bad value, an unsupported modifier, a limit, whatever is not understood in a chain or `_has`, and under `strict` an unknown
    /// parameter. Their location is `http.` and the parameter's name, as OperationOutcome wants it.
    pub fn parse(
        resource_type: ResourceType,
        pairs: &[(String, String)],
        options: &Options<'_>,
        context: &Context,
    ) -> Result<(Self, Vec<Issue>), Vec<Issue>> {
        if pairs.len() > options.parameters_max {
            let text = format!("more than {} search parameters", options.parameters_max);
            return Err(vec![Issue::error(IssueCode::TooCostly, text)]);
        }
        let mut reader = Reader {
            query: Self::all(resource_type),
            options,
            context,
            warnings: Vec::new(),
            errors: Vec::new(),
            values: 0,
            searches: 0,
        };
        for (name, value) in pairs {
            reader.pair(name, value);
        }
        if options.condition && reader.query.filters.is_empty() && reader.errors.is_empty() {
            let text = "a condition needs at least one search parameter with a value";
            reader.errors.push(Issue::error(IssueCode::Invalid, text));
        }
        if reader.errors.is_empty() { Ok((reader.query, reader.warnings)) } else { Err(reader.errors) }
    }

    /// Reads Subscription criteria: `Observation?code=…`, without base and leading slash; always strict. A type alone is every
    /// resource of the type.
    ///
    /// # Errors
    /// The issues of [`Query::parse`], and of an unknown type.
    pub fn parse_criteria(criteria: &str, context: &Context) -> Result<Self, Vec<Issue>> {
        let (name, rest) = criteria.split_once('?').unwrap_or((criteria, ""));
        let resource_type = ResourceType::from_name(name).ok_or_else(|| {
            let text = "criteria start with a resource type, as in Observation?code=1975-2";
            vec![Issue::error(IssueCode::Value, text)]
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
            within: Vec::new(),
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

pub(super) struct Reader<'a> {
    pub(super) query: Query,
    pub(super) options: &'a Options<'a>,
    context: &'a Context,
    warnings: Vec<Issue>,
    errors: Vec<Issue>,
    /// Values so far.
    values: usize,
    /// Searches on other types so far.
    pub(super) searches: usize,
}

impl Reader<'_> {
    fn pair(&mut self, name: &str, value: &str) {
        if !is_linked(name) && value.chars().all(|letter| letter == ',') {
            self.empty(name);
            return;
        }
        match self.query.shape(name, value, self.options) {
            Shaped::Applied(value) => self.query.applied.push((name.to_owned(), value)),
            Shaped::LeftOut { why, applied } => {
                self.left_out(name, why);
                self.query.applied.extend(applied.map(|value| (name.to_owned(), value)));
            }
            Shaped::NoMatter => self.no_matter(name),
            Shaped::Refused(issue) => self.refused(name, issue),
            Shaped::NoResultParameter => match self.filter(name, value) {
                Ok(Some(filter)) => {
                    self.query.filters.push(filter);
                    self.query.applied.push((name.to_owned(), value.to_owned()));
                }
                Ok(None) => self.left_out(name, "is not supported for this type"),
                Err(issue) => self.refused(name, issue),
            },
        }
    }

    fn refused(&mut self, name: &str, issue: Issue) {
        self.errors.push(issue.at(location(name)));
    }

    fn left_out(&mut self, name: &str, why: &str) {
        let text = format!("the search parameter {} {why}", printable(name));
        if self.options.strict {
            let remedy =
                if self.options.condition { "" } else { "; with Prefer: handling=lenient it is left out" };
            self.refused(name, Issue::error(IssueCode::NotSupported, text + remedy));
        } else {
            let text = format!("{text} and was left out");
            self.warnings.push(Issue::warning(IssueCode::NotSupported, text).at(location(name)));
        }
    }

    fn no_matter(&mut self, name: &str) {
        let text = format!("{} is not known here and changes nothing that is found", printable(name));
        self.warnings.push(Issue::warning(IssueCode::NotSupported, text).at(location(name)));
    }

    fn empty(&mut self, name: &str) {
        let text = format!("the search parameter {} has no value", printable(name));
        if self.options.condition {
            self.refused(name, Issue::error(IssueCode::Invalid, text));
        } else {
            let text = format!("{text} and was left out");
            self.warnings.push(Issue::warning(IssueCode::Invalid, text).at(location(name)));
        }
    }

    /// `None` when the type has no such parameter.
    fn filter(&mut self, name: &str, value: &str) -> Result<Option<Filter>, Issue> {
        if is_linked(name) {
            return self.linked(name, value).map(Some);
        }
        let (name, modifier) = name.split_once(':').map_or((name, None), |(name, m)| (name, Some(m)));
        let Some(parameter) = parameter(self.query.resource_type, name) else { return Ok(None) };
        if modifier != Some("missing") {
            self.count(value)?;
        }
        self.plain(parameter, modifier, value).map(Some)
    }

    /// Counts the values of a parameter.
    pub(super) fn count(&mut self, value: &str) -> Result<(), Issue> {
        self.values += split(value, ',').iter().filter(|value| !value.is_empty()).count();
        if self.values > self.options.or_values_max {
            let text = format!("more than {} values", self.options.or_values_max);
            return Err(Issue::error(IssueCode::TooCostly, text));
        }
        Ok(())
    }

    /// A condition on a resource itself.
    pub(super) fn plain(
        &self,
        parameter: &'static Parameter,
        modifier: Option<&str>,
        value: &str,
    ) -> Result<Filter, Issue> {
        if modifier == Some("missing") {
            return Ok(Filter { parameter, condition: Condition::Missing(flag(value)?) });
        }
        let mut values = split(value, ',');
        values.retain(|value| !value.is_empty());
        Ok(Filter { parameter, condition: self.condition(parameter, modifier, &values)? })
    }

    fn condition(
        &self,
        parameter: &'static Parameter,
        modifier: Option<&str>,
        values: &[&str],
    ) -> Result<Condition, Issue> {
        use ParamType::{Composite, Date, Number, Quantity, Reference, String, Token, Uri};
        let texts = || values.iter().map(|value| unescape(value)).collect();
        Ok(match (parameter.param_type, modifier) {
            _ if parameter.name == "_id" && modifier.is_none() => Condition::Id(texts()),
            _ if parameter.name == "_id" => return Err(unsupported_modifier()),
            (Date, None) if parameter.name == "_lastUpdated" => {
                Condition::LastUpdated(each(values, |value| instant(value, self.context))?)
            }
            (Token, None) => Condition::Token(each(values, token)?),
            (Token, Some("not")) => Condition::TokenNot(each(values, token)?),
            (Token, Some("text")) => Condition::TokenText(each(values, normal)?),
            (String, None) => Condition::String(StringMatch::StartsWith, each(values, normal)?),
            (String, Some("contains")) => Condition::String(StringMatch::Contains, each(values, normal)?),
            (String, Some("exact")) => Condition::String(StringMatch::Exact, texts()),
            (Uri, None) => Condition::Uri(texts()),
            (Uri, Some("below")) => Condition::UriBelow(texts()),
            (Uri, Some("above")) => Condition::UriAbove(texts()),
            (Date, None) => Condition::Date(each(values, |value| date(value, self.context))?),
            (Number, None) => Condition::Number(each(values, number)?),
            (Quantity, None) => Condition::Quantity(each(values, quantity)?),
            (Reference, Some("identifier")) => Condition::ReferenceIdentifier(each(values, token)?),
            (Reference, modifier) => {
                let of = modifier.map(|name| target(parameter, name)).transpose()?;
                let bases = self.options.bases;
                Condition::Reference(each(values, |value| reference(value, parameter, of, bases))?)
            }
            (Composite, None) => Condition::Composite(each(values, |value| self.tuple(parameter, value))?),
            _ => return Err(unsupported_modifier()),
        })
    }

    /// One value of a composite: a condition for each component, by the parameter the component is.
    fn tuple(&self, composite: &'static Parameter, value: &str) -> Result<Vec<Filter>, Issue> {
        let parts = split(value, '$');
        if parts.len() != composite.components.len() || parts.contains(&"") {
            return Err(super::value::invalid("a composite has one part for each component, separated by $"));
        }
        let all = parameters(composite.resource_type);
        let filters = parts.iter().zip(&composite.components).map(|(part, position)| {
            let parameter = &all[*position];
            Ok(Filter { parameter, condition: self.condition(parameter, None, &[part])? })
        });
        filters.collect()
    }
}

fn each<T>(values: &[&str], read: impl Fn(&str) -> Result<T, Issue>) -> Result<Vec<T>, Issue> {
    values.iter().map(|value| read(value)).collect()
}

/// The type a modifier names, when the parameter can refer to it.
fn target(parameter: &Parameter, name: &str) -> Result<ResourceType, Issue> {
    let named = ResourceType::from_name(name).ok_or_else(unsupported_modifier)?;
    if parameter.targets.is_empty() || parameter.targets.contains(&named) {
        return Ok(named);
    }
    Err(Issue::error(IssueCode::NotSupported, "the parameter never refers to the type of the modifier"))
}

pub(super) fn unsupported_modifier() -> Issue {
    Issue::error(IssueCode::NotSupported, "this modifier is not supported for the parameter")
}

fn location(name: &str) -> String {
    format!("http.{}", printable(name))
}

/// A parameter name as it may stand in a text: the letters such names are made of.
pub(super) fn printable(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || "_-.:".contains(*c)).take(64).collect()
}

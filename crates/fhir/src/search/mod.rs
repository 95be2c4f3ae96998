//! FHIR search (<https://hl7.org/fhir/R4/search.html>): what can be searched, what a query asks, what a resource offers.
//!
//! [`parameters`] are compiled from the official SearchParameter definitions at build time. [`Query::parse`] turns
//! name-value pairs into a [`Query`]; [`index`] turns a resource into [`Entry`]s; [`Query::matches`] compares the
//! two. The store writes entries as index rows and re-checks every candidate with `matches`.

mod chain;
mod compartment;
mod date;
mod extract;
mod matches;
mod normal;
mod parameters;
mod parse;
mod plan;
mod shape;
mod system;
#[cfg(test)]
mod tests;
mod value;
mod values;

pub use compartment::compartment;
pub use date::date_range;
pub use extract::index;
pub use normal::normal_form;
pub use parameters::{ParamType, Parameter, clinical_parameter, parameter, parameters};
pub use parse::{Options, decode_pairs};
pub use system::canonical_system;

use jiff::tz::TimeZone;

use crate::{ResourceType, Timestamp};

/// A parsed FHIR search on one resource type. All filters must hold.
#[derive(Clone, Debug)]
pub struct Query {
    /// The type searched.
    pub resource_type: ResourceType,
    /// The conditions; all must hold (repetition = AND).
    pub filters: Vec<Filter>,
    /// Searches of the same type of which one has to find it too: what the caller may see. Empty = no such limit.
    pub within: Vec<Query>,
    /// `_sort`, in order; empty = by insertion.
    pub sort: Vec<Sort>,
    /// `_count` as asked, clamped to the limit; `None` = the server's default.
    pub count: Option<u32>,
    /// `_total`.
    pub total: Total,
    /// `_include`.
    pub includes: Vec<Include>,
    /// `_revinclude`.
    pub revincludes: Vec<Include>,
    /// `_summary`.
    pub summary: Summary,
    /// `_elements`; empty = all.
    pub elements: Vec<String>,
    /// The name-value pairs that were applied, as sent: what `link[self]` lists.
    pub applied: Vec<(String, String)>,
}

/// One condition on one parameter; any of the values may hold (comma = OR).
#[derive(Clone, Debug)]
pub struct Filter {
    /// The parameter.
    pub parameter: &'static Parameter,
    /// The condition.
    pub condition: Condition,
}

/// What a filter demands of the parameter's entries.
#[derive(Clone, Debug)]
pub enum Condition {
    /// `:missing=true` / `false`.
    Missing(bool),
    /// Any of the tokens matches an entry.
    Token(Vec<Token>),
    /// `:not`: none of the tokens matches any entry (absent matches).
    TokenNot(Vec<Token>),
    /// `:text` on a token: display or text starts with one of these normal forms.
    TokenText(Vec<String>),
    /// Any of the references matches.
    Reference(Vec<Reference>),
    /// `:identifier` on a reference: token on `Reference.identifier`.
    ReferenceIdentifier(Vec<Token>),
    /// Strings; see [`StringMatch`].
    String(StringMatch, Vec<String>),
    /// uri, exact.
    Uri(Vec<String>),
    /// `:above` and `:below` on a uri: path prefix of, or prefixed by.
    UriBelow(Vec<String>),
    /// See `UriBelow`.
    UriAbove(Vec<String>),
    /// A date in milliseconds: any of these comparisons with the entry's range.
    Date(Vec<Comparison>),
    /// A number.
    Number(Vec<Comparison>),
    /// A quantity, with unit as token (system and code) when given.
    Quantity(Vec<(Comparison, Option<Token>)>),
    /// Composite: any of these tuples, one condition for each component, holds within one element.
    Composite(Vec<Vec<Filter>>),
    /// `_id`: any of these ids.
    Id(Vec<String>),
    /// `_lastUpdated` in microseconds since 1970, half-open, with the prefix applied as for dates.
    LastUpdated(Vec<Comparison>),
    /// A chain or `_has`. One resource alone does not tell whether it holds: [`Query::matches`] says no, the store looks.
    Linked(Linked),
}

/// Searches on other types that decide on a resource: a chained parameter (R4 search.html, "Chained parameters") or `_has` ("Reverse chaining").
#[derive(Clone, Debug)]
pub struct Linked {
    /// Of `_has` the reference parameter by which the other resource refers to this one; then the filter's own parameter is `_id`. `None` for a
    /// chain: this one refers to the other by the filter's parameter.
    pub by: Option<&'static Parameter>,
    /// One search for each type the other resource may be of; one of them has to find it.
    pub searches: Vec<Query>,
    /// Whether the caller may do these searches and they are restricted to what he may see. It is set by who knows the caller; a query that has one
    /// without it is refused by the store.
    pub allowed: bool,
}

impl Linked {
    /// Not allowed yet.
    pub(crate) fn new(by: Option<&'static Parameter>, searches: Vec<Query>) -> Self {
        Self { by, searches, allowed: false }
    }
}

/// How a string is compared. Values of the first two are in [`normal_form`]; of `Exact` as sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StringMatch {
    /// Default: starts with.
    StartsWith,
    /// `:contains`.
    Contains,
    /// `:exact`: the original, case and accents included.
    Exact,
}

/// A token value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// What is asked of the system.
    pub system: TokenSystem,
    /// The code; `None` for `system|`.
    pub code: Option<String>,
}

/// What a token asks of the system.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TokenSystem {
    /// `code`: any system.
    Any,
    /// `|code`: no system.
    None,
    /// `system|code` or `system|`.
    Is(String),
}

/// A reference value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// `Type/id` (own base stripped).
    Local(ResourceType, String),
    /// A bare id: of any type.
    Id(String),
    /// An absolute URL or canonical, compared as text (a trailing `|version` must be equal when given).
    Url(String),
}

/// A prefix and a half-open range `[low, high)`: milliseconds for dates, [`ordered`] numbers else.
///
/// The range is what the prefix compares with: for numbers the implied precision of the literal under `eq` and `ne`, the
/// exact value under the others; for `ap` already widened. So [`Comparison::holds`] is one table for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The prefix.
    pub prefix: Prefix,
    /// Lower bound, inclusive.
    pub low: i64,
    /// Upper bound, exclusive.
    pub high: i64,
    /// The value itself, without its implied precision.
    pub exact: i64,
}

/// Prefixes of ordered parameters, <https://hl7.org/fhir/R4/search.html#prefix>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the standard's codes")]
pub enum Prefix {
    Eq,
    Ne,
    Gt,
    Lt,
    Ge,
    Le,
    Sa,
    Eb,
    Ap,
}

/// One `_sort` key.
#[derive(Clone, Copy, Debug)]
pub struct Sort {
    /// The parameter (`_id` and `_lastUpdated` included).
    pub parameter: &'static Parameter,
    /// `-`.
    pub descending: bool,
}

/// `_total`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Total {
    /// Not asked: exact when cheap, else left out.
    #[default]
    WhenCheap,
    /// `none`
    None,
    /// `accurate` (also given for `estimate`)
    Accurate,
}

/// `_summary`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the standard's codes")]
pub enum Summary {
    #[default]
    False,
    True,
    Text,
    Data,
    Count,
}

/// One `_include` or `_revinclude`.
#[derive(Clone, Debug)]
pub struct Include {
    /// The type that holds the reference.
    pub source: ResourceType,
    /// The reference parameter; `None` for `*`.
    pub parameter: Option<&'static Parameter>,
    /// Only targets of this type.
    pub target: Option<ResourceType>,
    /// `:iterate`.
    pub iterate: bool,
}

/// What one element of a resource offers to one search parameter. The store turns each into index rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The parameter.
    pub parameter: &'static Parameter,
    /// The value.
    pub value: EntryValue,
}

/// An indexed value.
#[derive(Clone, Debug, PartialEq)]
pub enum EntryValue {
    /// Coding, CodeableConcept coding, Identifier, ContactPoint, code, boolean, string or uri as a token. `text` = display or text.
    Token {
        /// System, when present.
        system: Option<String>,
        /// Code or value; `None` when only a text exists.
        code: Option<String>,
        /// Display or text, as sent.
        text: Option<String>,
    },
    /// A reference: `Type/id` for local ones, `Url` for others, and its logical identifier.
    Reference {
        /// The target, when `Reference.reference` is present and not a fragment.
        target: Option<Reference>,
        /// `Reference.identifier` system and value.
        identifier: Option<(Option<String>, String)>,
    },
    /// Original text; the store indexes its [`normal_form`].
    String(String),
    /// uri, url, canonical.
    Uri(String),
    /// Date, dateTime, instant, Period, Timing as `[low, high)` in ms; open ends are `i64::MIN` / `i64::MAX`.
    Date(i64, i64),
    /// Number as [`ordered`] value `[v, v + 1)`: resources say what they say, only a query's literal has an implied precision.
    Number(i64, i64),
    /// Quantity: [`ordered`] range `[low, high)` (a comparator or Range opens it), system and code of the unit. A unit printed other
    /// than its code is one more entry.
    Quantity(i64, i64, Option<String>, Option<String>),
    /// One element of a composite: the entries of each component.
    Composite(Vec<Vec<EntryValue>>),
}

/// Everything a resource offers to search.
#[derive(Clone, Debug)]
pub struct Entries {
    /// The entries of all parameters.
    pub entries: Vec<Entry>,
    /// The clinical date of the type in ms (Observation.effective, ImagingStudy.started, …); `None` = use lastUpdated.
    pub clinical_date: Option<i64>,
    /// Values that could not be indexed, each naming its place.
    pub issues: Vec<crate::Issue>,
}

/// What the evaluation of dates needs to know.
#[derive(Clone, Debug)]
pub struct Context {
    /// The site's zone: the zone of dates without one.
    pub zone: TimeZone,
    /// Now, for `ap`.
    pub now: Timestamp,
}

/// An `i64` that orders like the `f64`: the key form of numbers.
pub fn ordered(number: f64) -> i64 {
    let bits = (number + 0.0).to_bits().cast_signed();
    bits ^ ((bits >> 63).cast_unsigned() >> 1).cast_signed()
}

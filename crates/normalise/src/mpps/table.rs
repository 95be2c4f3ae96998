//! The rule tables of MPPS, compiled once: which element of the data set fills which FHIR element.

use std::sync::LazyLock;

use serde_json::Value;

use super::convert::Convert;
use crate::RuleError;

/// The tables, or every row that was not understood.
pub(super) static TABLES: LazyLock<Result<Tables, Vec<RuleError>>> = LazyLock::new(Tables::compile);

/// The compiled tables.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) short_form: Vec<ShortKey>,
    pub(super) procedure: Vec<Row>,
    pub(super) patient: Vec<Row>,
    pub(super) study: Vec<Row>,
    pub(super) series: Vec<Row>,
    pub(super) systems: Codes,
}

/// One code table: code to target.
pub(super) type Codes = Vec<(String, String)>;

/// A key of the short form and the element it stands for.
#[derive(Debug)]
pub(super) struct ShortKey {
    pub(super) key: String,
    /// One tag, or date and time.
    pub(super) tags: Vec<String>,
    /// A value representation, or `DT`, `CODE`, `REASON`.
    pub(super) representation: String,
}

/// One rule.
#[derive(Debug)]
pub(super) struct Row {
    /// `mpps/Procedure:7`
    pub(super) rule: String,
    pub(super) source: Source,
    pub(super) condition: Vec<Term>,
    /// `None` = `!ignore`.
    pub(super) target: Option<Vec<Step>>,
    pub(super) convert: Convert,
    pub(super) codes: Option<Codes>,
}

#[derive(Debug)]
pub(super) enum Source {
    /// A constant, `=` and JSON.
    Fixed(Value),
    /// Tags of one item of the sequences in `path`; `root` = of the whole data set, whatever the item at hand.
    Tags { root: bool, path: Vec<String>, tags: Vec<String> },
}

/// One term of a condition over the data set or item at hand; all must hold.
#[derive(Debug)]
pub(super) enum Term {
    Valued(String),
    NotValued(String),
    /// Sent without a value.
    Empty(String),
    Equals(String, String),
}

/// One step of a target path.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) name: String,
    /// `[+]`
    pub(super) append: bool,
}

const STEP_STATUS: &str = include_str!("../../maps/tables/StepStatus.csv");
const SEX: &str = include_str!("../../maps/tables/AdministrativeSex.csv");
const CODE_SYSTEMS: &str = include_str!("../../maps/tables/CodeSystems.csv");

impl Tables {
    fn compile() -> Result<Self, Vec<RuleError>> {
        let mut errors = Vec::new();
        let tables = Self {
            short_form: short_form(include_str!("../../maps/mpps/ShortForm.csv")),
            procedure: rows("mpps/Procedure", include_str!("../../maps/mpps/Procedure.csv"), &mut errors),
            patient: rows("mpps/Patient", include_str!("../../maps/mpps/Patient.csv"), &mut errors),
            study: rows("mpps/Study", include_str!("../../maps/mpps/Study.csv"), &mut errors),
            series: rows("mpps/Series", include_str!("../../maps/mpps/Series.csv"), &mut errors),
            systems: codes(CODE_SYSTEMS),
        };
        if errors.is_empty() { Ok(tables) } else { Err(errors) }
    }
}

fn records(text: &str) -> impl Iterator<Item = (usize, [String; 5])> + '_ {
    let reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
    reader.into_records().enumerate().map(|(at, record)| {
        let record = record.unwrap_or_default();
        (at + 2, std::array::from_fn(|n| record.get(n).unwrap_or_default().trim().to_owned()))
    })
}

fn codes(text: &str) -> Codes {
    records(text).map(|(_, [code, _, target, ..])| (code, target)).collect()
}

fn short_form(text: &str) -> Vec<ShortKey> {
    records(text)
        .map(|(_, [key, tags, representation, ..])| ShortKey { key, tags: list(&tags, '+'), representation })
        .collect()
}

fn rows(name: &str, text: &str, errors: &mut Vec<RuleError>) -> Vec<Row> {
    let mut rows = Vec::new();
    for (line, cells) in records(text) {
        match row(format!("{name}:{line}"), &cells) {
            Ok(row) => rows.push(row),
            Err(reason) => errors.push(RuleError { file: name.to_owned(), line, reason }),
        }
    }
    rows
}

fn row(rule: String, [from, condition, target, convert, vocabulary]: &[String; 5]) -> Result<Row, String> {
    Ok(Row {
        rule,
        source: source(from)?,
        condition: terms(condition)?,
        target: if target == "!ignore" { None } else { Some(steps(target)?) },
        convert: Convert::named(convert).ok_or_else(|| format!("{convert:?} is no conversion"))?,
        codes: match vocabulary.as_str() {
            "" => None,
            "StepStatus" => Some(codes(STEP_STATUS)),
            "AdministrativeSex" => Some(codes(SEX)),
            other => return Err(format!("{other:?} is no code table")),
        },
    })
}

fn source(text: &str) -> Result<Source, String> {
    if let Some(fixed) = text.strip_prefix('=') {
        return serde_json::from_str(fixed).map(Source::Fixed).map_err(|_| format!("{fixed:?} is no json"));
    }
    let root = text.starts_with('^');
    let mut path = list(text.trim_start_matches('^'), '>');
    let tags = list(&path.pop().unwrap_or_default(), '+');
    match path.iter().chain(&tags).find(|tag| !super::dataset::is_tag(tag)) {
        Some(wrong) => Err(format!("{wrong:?} is no tag")),
        None => Ok(Source::Tags { root, path, tags }),
    }
}

fn terms(text: &str) -> Result<Vec<Term>, String> {
    let term = |part: &str| {
        let (tag, test) = part.split_once(' ').unwrap_or((part, ""));
        let tag = tag.to_owned();
        match (test, test.strip_prefix("EQUALS ")) {
            ("VALUED", _) => Ok(Term::Valued(tag)),
            ("NOT VALUED", _) => Ok(Term::NotValued(tag)),
            ("EMPTY", _) => Ok(Term::Empty(tag)),
            (_, Some(value)) => Ok(Term::Equals(tag, value.trim_matches('"').to_owned())),
            _ => Err(format!("the condition {part:?} is not understood")),
        }
    };
    text.split(" AND ").map(str::trim).filter(|part| !part.is_empty()).map(term).collect()
}

fn steps(text: &str) -> Result<Vec<Step>, String> {
    let step = |part: &str| {
        let (name, append) = part.strip_suffix("[+]").map_or((part, false), |name| (name, true));
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric());
        if is_name {
            Ok(Step { name: name.to_owned(), append })
        } else {
            Err(format!("{part:?} is no element"))
        }
    };
    text.split('.').map(step).collect()
}

fn list(text: &str, separator: char) -> Vec<String> {
    text.split(separator).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_understood() {
        let tables = TABLES.as_ref().unwrap_or_else(|errors| panic!("{errors:#?}"));
        assert!(tables.procedure.len() > 15 && tables.short_form.len() > 10);
        assert!(tables.systems.iter().any(|(code, system)| code == "DCM" && system.ends_with("/DCM")));
    }

    #[test]
    fn wrong_rows_are_named() {
        let mut errors = Vec::new();
        let text = "h\n0008001,,a,,\n00080018,0008 OFTEN,a,,\n00080018,,a-b,,\n00080018,,a,thing,\n00080018,,a,,Nothing\n";
        assert!(rows("mpps/X", text, &mut errors).is_empty());
        assert_eq!(errors.iter().map(|e| e.line).collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
    }
}

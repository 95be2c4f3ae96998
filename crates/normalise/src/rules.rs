//! Rule tables, compiled: CSV rows to interned paths, conditions and code tables. No string of a table is interpreted per message.

use std::collections::{HashMap, HashSet};

use crate::identity::Kind;
use crate::{RuleError, overlay};

/// The tables that ship with the program: (folder/name, text).
const BUILT_IN: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/maps.rs"));

/// What a row that removes says when it removes nothing.
pub(crate) const NOTHING_TO_REMOVE: &str = "there is no row to remove with this source";

/// All tables.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// Message type and event to how it is read.
    pub(crate) messages: HashMap<(String, String), Message>,
    /// The tables of HL7 v3, whose sources are paths.
    pub(crate) v3: crate::v3::Maps,
    maps: HashMap<String, Vec<Row>>,
    codes: HashMap<String, HashMap<String, Code>>,
}

/// How a message is read.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) kind: MessageKind,
    /// What the event says of the visit's status.
    pub(crate) encounter_status: Option<String>,
    /// What the event takes away from the visit: a dotted path.
    pub(crate) encounter_clears: Option<String>,
}

/// Which resources a message makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MessageKind {
    /// Patient, visit, allergies and diagnoses.
    Adt,
    /// Patient, allergies and diagnoses.
    Person,
    /// Patients that become one.
    Merge,
    /// A visit that becomes another patient's.
    MoveVisit,
    Order,
    Report,
}

impl MessageKind {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "adt" => Self::Adt,
            "person" => Self::Person,
            "merge" => Self::Merge,
            "moveVisit" => Self::MoveVisit,
            "order" => Self::Order,
            "report" => Self::Report,
            _ => return None,
        })
    }
}

/// A translated code.
#[derive(Clone, Debug)]
pub(crate) struct Code {
    pub(crate) system: Option<String>,
    pub(crate) code: String,
    pub(crate) display: Option<String>,
}

/// One rule.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// `segments/PID[Patient]:7`
    pub(crate) rule: String,
    pub(crate) source: Source,
    pub(crate) condition: Option<Condition>,
    /// `None` = `!ignore`: consumed on purpose.
    pub(crate) target: Option<Vec<Step>>,
    pub(crate) convert: Convert,
    /// Name of the code table.
    pub(crate) vocabulary: Option<String>,
    /// The part of the target list that this field speaks for.
    pub(crate) slice: Option<Slice>,
}

/// A part of a list that several fields fill: see [`hilum_fhir::merge`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Slice {
    /// `telecom[use=work]`
    pub(crate) clear: String,
    /// A member that makes a value one of the slice: `use` and `work`.
    pub(crate) sets: Option<(String, String)>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Source {
    /// A field of the segment, or a component of the data type; 0 = the whole.
    Number(u16),
    /// A constant.
    Fixed(String),
}

/// One step of a target path.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) index: Index,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Index {
    None,
    At(usize),
    Append,
}

/// How a value is converted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Convert {
    Text,
    /// A table of components.
    Map(String),
    Date,
    DateTime,
    Instant,
    Boolean,
    Integer,
    /// A DICOM UID as a URN.
    Uid,
    Concept,
    Coding,
    /// `CodeableConcept` with only a text.
    TextConcept,
    /// An HD in one component as the system of a number.
    Authority(Kind),
    /// The authority of an EI, from this component on, as the system of a number.
    Entity(Kind),
    Practitioner,
    Interpreter,
    Location,
    Service,
    Flag,
    Words,
    Phone,
}

/// A condition over the numbers of the same segment or data type, or over the paths of the same element (HL7 v3).
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Condition<N = u16> {
    Valued(N),
    NotValued(N),
    In(N, Vec<String>, bool),
    And(Vec<Condition<N>>),
    Or(Vec<Condition<N>>),
}

impl Tables {
    /// Compiles the built-in tables and overlays. An overlay file named `segments/X`, `datatypes/X`, `tables/X`, `messages/X` or `v3/X` (a path
    /// ending so) adds to the table X: the same source and target replaces, a leading `-` in the source removes, else it is added.
    ///
    /// # Errors
    /// Everything in them that is not understood, or would never act.
    pub(crate) fn compile(overlays: &[(String, String)]) -> Result<Self, Vec<RuleError>> {
        let mut tables = Self::default();
        let mut errors = Vec::new();
        for (name, text) in BUILT_IN {
            tables.file(name, name, text, false, &mut errors);
        }
        let built_in: HashSet<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
        let mut new = Vec::new();
        for (path, text) in overlays {
            match overlay::table_of(path, &built_in) {
                Ok(table) => {
                    tables.file(&table, path, text, true, &mut errors);
                    new.extend((!built_in.contains(table.as_str())).then(|| (path.clone(), table)));
                }
                Err(reason) => errors.push(RuleError { file: path.clone(), line: 1, reason }),
            }
        }
        tables.check_names(&mut errors);
        tables.check_new(&new, &mut errors);
        if errors.is_empty() { Ok(tables) } else { Err(errors) }
    }

    pub(crate) fn map(&self, name: &str) -> &[Row] {
        self.maps.get(name).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn code(&self, table: &str, code: &str) -> Option<&Code> {
        self.codes.get(table)?.get(code)
    }

    fn file(&mut self, name: &str, path: &str, text: &str, overlay: bool, errors: &mut Vec<RuleError>) {
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
        let columns = match reader.headers() {
            Ok(header) => {
                let wrong = overlay::check_columns(name, header).err().filter(|_| overlay);
                errors.extend(wrong.map(|reason| RuleError { file: path.to_owned(), line: 1, reason }));
                header.len()
            }
            Err(_) => 0,
        };
        for (at, record) in reader.records().enumerate() {
            let line = at + 2;
            let fail = |reason: String| RuleError { file: path.to_owned(), line, reason };
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    errors.push(fail(error.to_string()));
                    continue;
                }
            };
            if overlay && record.len() > columns {
                errors.push(fail(format!("the line has {} columns, the first one {columns}", record.len())));
                continue;
            }
            let cell = |n: usize| record.get(n).unwrap_or_default().trim();
            let some = |n: usize| Some(cell(n)).filter(|t| !t.is_empty()).map(str::to_owned);
            if let Some(table) = name.strip_prefix("tables/") {
                let code = Code { system: some(1), code: cell(2).to_owned(), display: some(3) };
                self.codes.entry(table.to_owned()).or_default().insert(cell(0).to_owned(), code);
            } else if name.starts_with("messages/") {
                let Some(kind) = MessageKind::named(cell(2)) else {
                    errors.push(fail(format!("{:?} is no kind of message", cell(2))));
                    continue;
                };
                let message = Message { kind, encounter_status: some(3), encounter_clears: some(5) };
                self.messages.insert((cell(0).to_owned(), cell(1).to_owned()), message);
            } else if let Some(map) = name.strip_prefix("v3/") {
                let cells = [cell(0), cell(1), cell(2), cell(3), cell(4)];
                if let Err(reason) = self.v3.add(map, &format!("{name}:{line}"), cells, overlay) {
                    errors.push(fail(reason));
                }
            } else {
                let map = name.split_once('/').map_or(name, |(_, map)| map);
                let rows = self.maps.entry(map.to_owned()).or_default();
                if let Some(removed) = cell(0).strip_prefix('-') {
                    let (source, before) = (source(removed), rows.len());
                    rows.retain(|row| Some(&row.source) != source.as_ref());
                    if rows.len() == before {
                        errors.push(fail(NOTHING_TO_REMOVE.to_owned()));
                    }
                    continue;
                }
                match row(&format!("{name}:{line}"), [cell(0), cell(1), cell(2), cell(3), cell(4), cell(6)]) {
                    Ok(row) => {
                        let same = |known: &&mut Row| {
                            overlay && known.source == row.source && known.target == row.target
                        };
                        match rows.iter_mut().find(same) {
                            Some(known) => *known = row,
                            None => rows.push(row),
                        }
                    }
                    Err(reason) => errors.push(fail(reason)),
                }
            }
        }
    }

    /// Tables that only an overlay has act when a rule names them.
    fn check_new(&self, new: &[(String, String)], errors: &mut Vec<RuleError>) {
        let rows = || self.maps.values().flatten();
        for (path, table) in new {
            let (folder, name) = table.split_once('/').unwrap_or_default();
            let is_named = match folder {
                "tables" => {
                    rows().any(|row| row.vocabulary.as_deref() == Some(name)) || self.v3.names_table(name)
                }
                "datatypes" => rows().any(|row| matches!(&row.convert, Convert::Map(map) if map == name)),
                _ => self.v3.names_map(name),
            };
            if !is_named {
                let reason = format!("no rule names {table}, so it would never act");
                errors.push(RuleError { file: path.clone(), line: 1, reason });
            }
        }
    }

    fn check_names(&self, errors: &mut Vec<RuleError>) {
        let is_table = |table: &str| self.codes.contains_key(table);
        errors.extend(self.v3.wrong_names(is_table).into_iter().map(|(file, reason)| RuleError {
            file,
            line: 0,
            reason,
        }));
        for (name, row) in self.maps.iter().flat_map(|(name, rows)| rows.iter().map(move |row| (name, row))) {
            let fail = |reason: String| RuleError { file: name.clone(), line: 0, reason };
            if let Convert::Map(map) = &row.convert
                && !self.maps.contains_key(map)
            {
                errors.push(fail(format!(
                    "{} names the data type map {map:?}, which does not exist",
                    row.rule
                )));
            }
            if let Some(table) = row.vocabulary.as_ref().filter(|table| !self.codes.contains_key(*table)) {
                errors
                    .push(fail(format!("{} names the code table {table:?}, which does not exist", row.rule)));
            }
        }
    }
}

fn row(
    rule: &str,
    [source_text, condition, target, convert, vocabulary, slice]: [&str; 6],
) -> Result<Row, String> {
    Ok(Row {
        rule: rule.to_owned(),
        source: source(source_text)
            .ok_or_else(|| format!("{source_text:?} is no field number and no quoted constant"))?,
        condition: if condition.is_empty() { None } else { Some(self::condition(condition, number)?) },
        target: if target == "!ignore" { None } else { Some(steps(target)?) },
        convert: self::convert(convert)?,
        vocabulary: Some(vocabulary).filter(|v| !v.is_empty()).map(str::to_owned),
        slice: if slice.is_empty() { None } else { Some(self::slice(slice, target)?) },
    })
}

/// `use=work`, `use!=work`, `type.coding.code=ATND` of the list that the target begins with.
fn slice(text: &str, target: &str) -> Result<Slice, String> {
    let wrong =
        || format!("the slice {text:?} is not understood: it is PATH=VALUE or PATH!=VALUE, of a list");
    let (path, value) = text.split_once('=').ok_or_else(wrong)?;
    let is_other = path.ends_with('!');
    let path = path.trim_end_matches('!');
    let (list, _) = target.split_once("[+]").ok_or_else(wrong)?;
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric());
    if !is_name(list) || !path.split('.').all(is_name) || value.is_empty() || value.contains([']', '=']) {
        return Err(wrong());
    }
    let sets = (!is_other && !path.contains('.')).then(|| (path.to_owned(), value.to_owned()));
    Ok(Slice { clear: format!("{list}[{text}]"), sets })
}

fn source(text: &str) -> Option<Source> {
    if let Some(fixed) = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) {
        return Some(Source::Fixed(fixed.to_owned()));
    }
    number(text).map(Source::Number)
}

/// `PID-3`, `3`
fn number(text: &str) -> Option<u16> {
    text.rsplit_once('-').map_or(text, |(_, number)| number).parse().ok()
}

/// `name[+].family`
pub(crate) fn steps(text: &str) -> Result<Vec<Step>, String> {
    let step = |part: &str| {
        let (name, index) = match part.strip_suffix(']').and_then(|p| p.split_once('[')) {
            None => (part, Index::None),
            Some((name, "+")) => (name, Index::Append),
            Some((name, n)) => {
                (name, Index::At(n.parse().map_err(|_| format!("{part:?} has no number in its brackets"))?))
            }
        };
        let harmless = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric());
        if harmless {
            Ok(Step { name: name.to_owned(), index })
        } else {
            Err(format!("{part:?} is no element"))
        }
    };
    text.split('.').map(step).collect()
}

fn convert(text: &str) -> Result<Convert, String> {
    Ok(match text {
        "" => Convert::Text,
        "date" => Convert::Date,
        "dateTime" => Convert::DateTime,
        "instant" => Convert::Instant,
        "boolean" => Convert::Boolean,
        "integer" => Convert::Integer,
        "uid" => Convert::Uid,
        "concept" => Convert::Concept,
        "coding" => Convert::Coding,
        "text" => Convert::TextConcept,
        "authority" => Convert::Authority(Kind::Other),
        "patientAuthority" => Convert::Authority(Kind::Patient),
        "entity" => Convert::Entity(Kind::Other),
        "accessionEntity" => Convert::Entity(Kind::Accession),
        "practitioner" => Convert::Practitioner,
        "interpreter" => Convert::Interpreter,
        "location" => Convert::Location,
        "service" => Convert::Service,
        "flag" => Convert::Flag,
        "words" => Convert::Words,
        "phone" => Convert::Phone,
        map if map.ends_with(']') => Convert::Map(map.to_owned()),
        other => return Err(format!("{other:?} is no conversion")),
    })
}

/// `3 NOT VALUED AND 2 NOT VALUED`, `5 IN ("A","B") OR 7 VALUED`; AND binds more tightly.
pub(crate) fn condition<N>(text: &str, operand: fn(&str) -> Option<N>) -> Result<Condition<N>, String> {
    let mut alternatives = text.split(" OR ").map(|part| {
        let mut all =
            part.split(" AND ").map(|term| term_of(term.trim(), operand)).collect::<Result<Vec<_>, _>>()?;
        Ok(if all.len() == 1 { all.remove(0) } else { Condition::And(all) })
    });
    let mut all = alternatives.by_ref().collect::<Result<Vec<_>, String>>()?;
    Ok(if all.len() == 1 { all.remove(0) } else { Condition::Or(all) })
}

fn term_of<N>(text: &str, operand: fn(&str) -> Option<N>) -> Result<Condition<N>, String> {
    let wrong = || format!("the condition {text:?} is not understood");
    let (number, rest) = text.split_once(' ').ok_or_else(wrong)?;
    let number = operand(number).ok_or_else(wrong)?;
    let rest = rest.trim();
    let values = |list: &str| {
        let list = list.trim().trim_start_matches('(').trim_end_matches(')');
        list.split(',').map(|v| v.trim().trim_matches('"').to_owned()).collect::<Vec<String>>()
    };
    Ok(match rest {
        "VALUED" => Condition::Valued(number),
        "NOT VALUED" => Condition::NotValued(number),
        _ => match rest.split_once(' ').ok_or_else(wrong)? {
            ("EQUALS" | "IN", list) => Condition::In(number, values(list), true),
            ("NOT", list) => {
                let list = list.trim_start_matches("EQUALS ").trim_start_matches("IN ");
                Condition::In(number, values(list), false)
            }
            _ => return Err(wrong()),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_row_is_understood() {
        let tables = Tables::compile(&[]).unwrap_or_else(|errors| panic!("{errors:#?}"));
        assert!(tables.maps.len() > 20);
        assert_eq!(tables.code("AdministrativeSex", "F").unwrap().code, "female");
    }

    #[test]
    fn conditions_and_targets() {
        assert_eq!(
            condition("PID-3 NOT VALUED AND 2 IN (\"A\",\"B\") OR 4 NOT EQUALS \"C\"", number).unwrap(),
            Condition::Or(vec![
                Condition::And(vec![
                    Condition::NotValued(3),
                    Condition::In(2, vec!["A".into(), "B".into()], true)
                ]),
                Condition::In(4, vec!["C".into()], false),
            ])
        );
        assert!(condition("3 SOMETIMES", number).is_err());
        assert_eq!(steps("name[+].family").unwrap().len(), 2);
        assert!(steps("name[x]").is_err());
        let work = slice("use=work", "telecom[+]").unwrap();
        assert_eq!(
            (work.clear.as_str(), work.sets),
            ("telecom[use=work]", Some(("use".into(), "work".into())))
        );
        assert_eq!(slice("use!=work", "telecom[+]").unwrap().sets, None);
        for (wrong, target) in
            [("use", "telecom[+]"), ("=work", "telecom[+]"), ("use=", "telecom[+]"), ("use=work", "gender")]
        {
            assert!(slice(wrong, target).is_err(), "{wrong} {target}");
        }
    }

    #[test]
    fn overlays_replace_remove_and_add_and_wrong_rows_are_named() {
        let header = "source,condition,target,datatype map,vocabulary map,comment\n";
        let overlay = |text: &str| {
            Tables::compile(&[("site/segments/PID[Patient].csv".into(), format!("{header}{text}"))])
        };
        let before = Tables::compile(&[]).unwrap().map("PID[Patient]").len();
        assert_eq!(
            overlay("26,,extension[+].valueString,,,\n").unwrap().map("PID[Patient]").len(),
            before + 1
        );
        assert_eq!(overlay("-8,,,,,\n").unwrap().map("PID[Patient]").len(), before - 1);
        assert_eq!(overlay("8,,gender,,NameUse,\n").unwrap().map("PID[Patient]").len(), before);
        let errors = overlay("8,,gender,,NoSuchTable,\nx,,gender,,,\n").unwrap_err();
        assert_eq!(errors.len(), 2);
        assert!(errors.iter().any(|e| e.to_string().contains(":3:")), "{errors:?}");
    }
}

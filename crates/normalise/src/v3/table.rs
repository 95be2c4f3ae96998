//! The rule tables of HL7 v3: as those of v2, but a source is a path of element names, and a condition speaks of paths.

use std::collections::HashMap;

use crate::rules::{Condition, NOTHING_TO_REMOVE, Step, condition, steps};

/// The tables.
#[derive(Debug, Default)]
pub(crate) struct Maps {
    /// Interaction to how it is read.
    interactions: HashMap<String, String>,
    maps: HashMap<String, Vec<Row>>,
}

/// One rule.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// `v3/Patient:7`
    pub(super) rule: String,
    pub(super) source: Source,
    pub(super) condition: Option<Condition<Path>>,
    /// `None` = `!ignore`: consumed on purpose, with everything within.
    pub(super) target: Option<Vec<Step>>,
    pub(super) convert: Convert,
    /// Name of the code table.
    pub(super) vocabulary: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Source {
    /// What any of these lead to, in their order.
    Paths(Vec<Path>),
    /// A constant.
    Fixed(String),
}

/// `patientPerson/birthTime`, `@root`, `family/@qualifier`, `text()`: from the element at hand, in the namespace of HL7 v3.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Path {
    pub(super) elements: Vec<String>,
    pub(super) leaf: Leaf,
}

/// What of the element a path ends at.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Leaf {
    Element,
    Attribute(String),
    Text,
}

/// How a value is converted.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Convert {
    /// An attribute, or the element's text.
    Text,
    /// A table of parts.
    Map(String),
    /// The texts of all elements found, joined.
    Words,
    Date,
    DateTime,
    Boolean,
    Integer,
    Concept,
    /// The root of an II as the system of its extension.
    Root,
    /// An OID or UUID as a URI.
    Uri,
    /// The name of an assigning authority as a system.
    Authority,
    /// The scheme of an URL.
    Scheme,
    /// An URL without its scheme where that is told by another element.
    Address,
}

impl Path {
    /// Reads a path; `None` when it is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut elements: Vec<String> = text.split('/').map(str::to_owned).collect();
        let last = elements.last()?.clone();
        let leaf = match last.strip_prefix('@') {
            Some(name) => Leaf::Attribute(name.to_owned()),
            None if last == "text()" => Leaf::Text,
            None => Leaf::Element,
        };
        if leaf != Leaf::Element {
            elements.pop();
        }
        let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric());
        let leaf_is_name = match &leaf {
            Leaf::Attribute(name) => is_name(name),
            Leaf::Element | Leaf::Text => true,
        };
        (leaf_is_name && elements.iter().all(|name| is_name(name))).then_some(Self { elements, leaf })
    }
}

impl Maps {
    pub(super) fn map(&self, name: &str) -> &[Row] {
        self.maps.get(name).map_or(&[], Vec::as_slice)
    }

    /// How an interaction is read; `None` = not at all.
    pub(super) fn kind(&self, interaction: &str) -> Option<&str> {
        self.interactions.get(interaction).map(String::as_str)
    }

    /// Adds a row to a table. In an overlay the same source and target replaces, and a leading `-` in the source removes.
    pub(crate) fn add(
        &mut self,
        map: &str,
        rule: &str,
        cells: [&str; 5],
        overlay: bool,
    ) -> Result<(), String> {
        if map == "Interactions" {
            self.interactions.insert(cells[0].to_owned(), cells[1].to_owned());
            return Ok(());
        }
        let rows = self.maps.entry(map.to_owned()).or_default();
        if let Some(removed) = cells[0].strip_prefix('-') {
            let (removed, before) = (source(removed)?, rows.len());
            rows.retain(|row| row.source != removed);
            return if rows.len() < before { Ok(()) } else { Err(NOTHING_TO_REMOVE.to_owned()) };
        }
        let row = row(rule, cells)?;
        let same = |known: &&mut Row| overlay && known.source == row.source && known.target == row.target;
        match rows.iter_mut().find(same) {
            Some(known) => *known = row,
            None => rows.push(row),
        }
        Ok(())
    }

    /// Whether a rule names a map.
    pub(crate) fn names_map(&self, name: &str) -> bool {
        self.maps.values().flatten().any(|row| matches!(&row.convert, Convert::Map(map) if map == name))
    }

    /// Whether a rule names a code table.
    pub(crate) fn names_table(&self, name: &str) -> bool {
        self.maps.values().flatten().any(|row| row.vocabulary.as_deref() == Some(name))
    }

    /// Names of maps and code tables that do not exist: file and reason.
    pub(crate) fn wrong_names(&self, is_table: impl Fn(&str) -> bool) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        for (name, row) in self.maps.iter().flat_map(|(name, rows)| rows.iter().map(move |row| (name, row))) {
            let missing = match (&row.convert, &row.vocabulary) {
                (Convert::Map(map), _) if !self.maps.contains_key(map) => format!("data type map {map:?}"),
                (_, Some(table)) if !is_table(table) => format!("code table {table:?}"),
                _ => continue,
            };
            let reason = format!("{} names the {missing}, which does not exist", row.rule);
            wrong.push((format!("v3/{name}"), reason));
        }
        wrong
    }
}

fn row(rule: &str, [from, when, target, how, vocabulary]: [&str; 5]) -> Result<Row, String> {
    Ok(Row {
        rule: rule.to_owned(),
        source: source(from)?,
        condition: if when.is_empty() { None } else { Some(condition(when, Path::parse)?) },
        target: if target == "!ignore" { None } else { Some(steps(target)?) },
        convert: convert(how)?,
        vocabulary: Some(vocabulary).filter(|v| !v.is_empty()).map(str::to_owned),
    })
}

fn source(text: &str) -> Result<Source, String> {
    if let Some(fixed) = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) {
        return Ok(Source::Fixed(fixed.to_owned()));
    }
    let paths = text.split('+').map(Path::parse).collect::<Option<Vec<_>>>();
    paths.map(Source::Paths).ok_or_else(|| format!("{text:?} is no path and no quoted constant"))
}

fn convert(text: &str) -> Result<Convert, String> {
    Ok(match text {
        "" => Convert::Text,
        "words" => Convert::Words,
        "date" => Convert::Date,
        "dateTime" => Convert::DateTime,
        "boolean" => Convert::Boolean,
        "integer" => Convert::Integer,
        "concept" => Convert::Concept,
        "root" => Convert::Root,
        "uri" => Convert::Uri,
        "authority" => Convert::Authority,
        "scheme" => Convert::Scheme,
        "address" => Convert::Address,
        map if map.ends_with(']') => Convert::Map(map.to_owned()),
        other => return Err(format!("{other:?} is no conversion")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_conditions_and_wrong_rows() {
        let path = |elements: &[&str], leaf| Path {
            elements: elements.iter().map(|e| (*e).to_owned()).collect(),
            leaf,
        };
        assert_eq!(Path::parse("a/b"), Some(path(&["a", "b"], Leaf::Element)));
        assert_eq!(Path::parse("a/@b"), Some(path(&["a"], Leaf::Attribute("b".into()))));
        assert_eq!(Path::parse("text()"), Some(path(&[], Leaf::Text)));
        for wrong in ["", "a//b", "@", "a/@b/c", "a b", "/a"] {
            assert_eq!(Path::parse(wrong), None, "{wrong}");
        }
        let mut maps = Maps::default();
        let mut add = |cells| maps.add("X", "v3/X:2", cells, true);
        assert!(add(["a", "b/@c EQUALS \"d\"", "name", "", ""]).is_ok());
        assert!(add(["a", "b SOMETIMES", "name", "", ""]).is_err());
        assert!(add(["a b", "", "name", "", ""]).is_err());
        assert!(add(["a", "", "name", "often", ""]).is_err());
        assert!(add(["c", "", "name", "NO[Such]", ""]).is_ok());
        assert!(add(["d", "", "name", "", "NoSuch"]).is_ok());
        assert_eq!(maps.wrong_names(|_| false).len(), 2);
        maps.add("X", "v3/X:9", ["a", "", "name", "words", ""], true).unwrap();
        assert_eq!(
            maps.map("X").iter().map(|row| row.rule.as_str()).collect::<Vec<_>>(),
            ["v3/X:9", "v3/X:2", "v3/X:2"]
        );
        maps.add("X", "v3/X:10", ["-a", "", "", "", ""], true).unwrap();
        assert_eq!(maps.map("X").len(), 2);
    }
}

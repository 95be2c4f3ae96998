//! Running rule tables over a data set: elements written, where each came from, and what was consumed.

use std::collections::{HashMap, HashSet};

use hilum_fhir::{Issue, IssueCode};
use serde_json::{Map, Value};

use super::convert::{At, Convert, convert, left_out};
use super::dataset::{DataSet, is_valued, items, pattern, text, values};
use super::form::Form;
use super::table::{Row, Source, Step, Tables, Term};
use crate::{Context, Lineage};

/// Leaves of a code sequence item that a concept is made of.
const CODE_LEAVES: [&str; 6] = ["00080100", "00080102", "0008010C", "00080119", "00080120", "00080104"];

/// Values or items of an element that fill a list; a step with more is refused.
const REPEATS_MAX: usize = 1_000;

/// What stands in each list that is being filled, by its path.
type Listed = HashMap<String, HashSet<Value>>;

/// One submission's run.
pub(super) struct Run<'a> {
    pub(super) context: &'a Context,
    pub(super) tables: &'a Tables,
    pub(super) form: &'a Form,
    pub(super) issues: Vec<Issue>,
    pub(super) lineage: Vec<Lineage>,
    /// Paths without item numbers that a row touched.
    used: HashSet<String>,
}

/// A value of the data set and its path.
struct Found<'d> {
    value: &'d Value,
    item: &'d DataSet,
    path: String,
}

impl<'a> Run<'a> {
    pub(super) fn new(context: &'a Context, tables: &'a Tables, form: &'a Form) -> Self {
        let (issues, lineage, used) = (Vec::new(), Vec::new(), HashSet::new());
        Self { context, tables, form, issues, lineage, used }
    }

    /// Elements that `rows` make of the data set. `change` is the index of the change they go into, `below` their place in it.
    pub(super) fn elements(&mut self, rows: &[Row], change: u32, below: &str) -> Map<String, Value> {
        let form = self.form;
        self.item(rows, &form.data, "", change, below)
    }

    /// The same for one item of a sequence at `path`.
    pub(super) fn item(
        &mut self,
        rows: &[Row],
        item: &'a DataSet,
        path: &str,
        change: u32,
        below: &str,
    ) -> Map<String, Value> {
        let (mut made, mut listed) = (Map::new(), Listed::new());
        for row in rows.iter().filter(|row| row.condition.iter().all(|term| holds(term, item))) {
            let tags = match &row.source {
                Source::Fixed(value) => {
                    if let Some(steps) = &row.target {
                        set(&mut made, ("", steps), value.clone(), &mut listed);
                    }
                    continue;
                }
                Source::Tags { tags, .. } => tags,
            };
            let all = self.find(row, item, path);
            let appends = row.target.iter().flatten().any(|step| step.append);
            if appends && all.len() > REPEATS_MAX {
                self.refuse_repeats(&all[0].path);
                continue;
            }
            for found in all {
                self.consume(row, tags, &found.path);
                let Some(steps) = &row.target else { continue };
                let at = At {
                    context: self.context,
                    systems: &self.tables.systems,
                    root: &self.form.data,
                    item: found.item,
                    tags,
                    codes: row.codes.as_ref(),
                };
                match convert(row.convert, &at, found.value) {
                    Ok(Some(value)) => {
                        for path in set(&mut made, ("", steps), value, &mut listed) {
                            let source = self.form.place(&found.path);
                            let path = format!("{below}{path}");
                            self.lineage.push(Lineage {
                                change,
                                path,
                                source,
                                bytes: None,
                                rule: row.rule.clone(),
                            });
                        }
                    }
                    Ok(None) => {}
                    Err(why) => self.issues.push(left_out(self.form.location(&found.path), why)),
                }
                if !appends {
                    break;
                }
            }
        }
        made
    }

    /// Said once of an element, however many rows read it.
    fn refuse_repeats(&mut self, path: &str) {
        let path = super::dataset::pattern(path);
        let place = self.form.location(&path);
        if self.issues.iter().any(|issue| issue.rejects() && issue.location.as_ref() == Some(&place)) {
            return;
        }
        let text = format!("has more than {REPEATS_MAX} values or items");
        self.issues.push(Issue::error(IssueCode::TooLong, text).at(place));
    }

    /// Places of everything populated that no row touched.
    pub(super) fn unmapped(&self, max: usize) -> Vec<String> {
        let unused = super::dataset::unused(&self.form.data, |path| self.used.contains(path), max);
        unused
            .iter()
            .map(|path| self.form.place(path))
            .chain(self.form.unknown_places.iter().cloned())
            .collect()
    }

    /// The populated values a row speaks of.
    fn find(&self, row: &Row, item: &'a DataSet, above: &str) -> Vec<Found<'a>> {
        let Source::Tags { root, path, tags } = &row.source else { return Vec::new() };
        let form: &'a Form = self.form;
        let start = if *root { (&form.data, String::new()) } else { (item, above.to_owned()) };
        let mut level: Vec<(&'a DataSet, String)> = vec![start];
        for sequence in path {
            level = level
                .into_iter()
                .flat_map(|(item, above)| {
                    let below = join(&above, sequence);
                    items(item, sequence).enumerate().map(move |(n, item)| (item, format!("{below}[{n}]")))
                })
                .collect();
        }
        let Some(tag) = tags.first() else { return Vec::new() };
        let of_item = |(item, above): (&'a DataSet, String)| {
            let list = values(item, tag);
            let many = list.len() > 1 || matches!(row.convert, Convert::Concept | Convert::Order);
            let path = join(&above, tag);
            list.iter().enumerate().map(move |(n, value)| Found {
                value,
                item,
                path: if many { format!("{path}[{n}]") } else { path.clone() },
            })
        };
        level.into_iter().flat_map(of_item).collect()
    }

    fn consume(&mut self, row: &Row, tags: &[String], path: &str) {
        let path = pattern(path);
        match row.convert {
            // what an order is made of has rows of its own
            Convert::Order => {}
            Convert::Concept => self.used.extend(CODE_LEAVES.iter().map(|leaf| format!("{path}>{leaf}"))),
            _ => {
                let above = path.rsplit_once('>').map_or("", |(above, _)| above);
                self.used.extend(tags.iter().skip(1).map(|tag| join(above, tag)));
                self.used.insert(path);
            }
        }
    }
}

fn join(above: &str, tag: &str) -> String {
    if above.is_empty() { tag.to_owned() } else { format!("{above}>{tag}") }
}

fn holds(term: &Term, item: &DataSet) -> bool {
    match term {
        Term::Valued(tag) => is_valued(item, tag),
        Term::NotValued(tag) => !is_valued(item, tag),
        Term::Empty(tag) => item.contains_key(tag) && !is_valued(item, tag),
        Term::Equals(tag, wanted) => text(item, tag).as_deref() == Some(wanted),
    }
}

/// Puts a value at a path; an appended value that is there already stays single. `above` is the path of the object. Returns the paths written.
fn set(
    object: &mut Map<String, Value>,
    (above, steps): (&str, &[Step]),
    value: Value,
    listed: &mut Listed,
) -> Vec<String> {
    let Some((step, rest)) = steps.split_first() else { return Vec::new() };
    let name = &step.name;
    let here = format!("{above}.{name}");
    if step.append {
        let Value::Array(list) = object.entry(name.clone()).or_insert_with(|| Value::Array(Vec::new()))
        else {
            return Vec::new();
        };
        let sent = match (value, rest.is_empty()) {
            (Value::Array(values), true) => values,
            (value, true) => vec![value],
            (value, false) => {
                let mut element = Map::new();
                set(&mut element, ("", rest), value, &mut Listed::new());
                vec![Value::Object(element)]
            }
        };
        let mut written = Vec::new();
        let of_list = listed.entry(here).or_insert_with(|| list.iter().cloned().collect());
        for value in sent.into_iter().filter(|value| !value.is_null()) {
            if of_list.insert(value.clone()) {
                written.push(format!("{name}[{}]{}", list.len(), tail(rest)));
                list.push(value);
            }
        }
        return written;
    }
    if rest.is_empty() {
        match (object.get_mut(name), value) {
            // a second row adds to what a first one began
            (Some(Value::Object(stored)), Value::Object(members)) => stored.extend(members),
            (_, value) => {
                object.insert(name.clone(), value);
                listed.remove(&here);
            }
        }
        return vec![name.clone()];
    }
    let inner = object.entry(name.clone()).or_insert_with(|| Value::Object(Map::new()));
    let written = inner.as_object_mut().map(|inner| set(inner, (&here, rest), value, listed));
    written.unwrap_or_default().into_iter().map(|path| format!("{name}.{path}")).collect()
}

fn tail(steps: &[Step]) -> String {
    steps.iter().map(|step| format!(".{}", step.name)).collect()
}

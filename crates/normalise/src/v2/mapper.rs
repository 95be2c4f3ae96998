//! Runs rule rows over segments: values into elements, with lineage, cleared elements and the report of what nothing consumed.

use std::collections::HashMap;

use hilum_fhir::{Action, Change, Issue, Match, Resource, ResourceType, Timestamp};
use hilum_wire::er7::{Leaf, Message, Segment};
use serde_json::{Map, Value, json};

use super::convert;
use crate::element::{is_worth, path_text, set};
use crate::rules::{Condition, Convert, Index, Row, Source, Step, Tables};
use crate::{Context, Lineage, Normalised};

/// HL7's explicit null: delete.
const NULL: &str = "\"\"";

/// One message being mapped.
pub(super) struct Mapper<'m> {
    pub(super) message: &'m Message,
    pub(super) tables: &'m Tables,
    pub(super) context: &'m Context,
    pub(super) issues: Vec<Issue>,
    pub(super) changes: Vec<Change>,
    pub(super) happened: Option<Timestamp>,
    lineage: Vec<Lineage>,
    touched: Vec<Vec<bool>>,
    directory: HashMap<Match, String>,
    urls: u64,
}

/// Where values are read from: a segment, and within it a field's repetition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) segment: usize,
    pub(super) field: u16,
    pub(super) repeat: u16,
}

/// A resource being filled.
pub(super) struct Target {
    pub(super) value: Value,
    /// Elements the message deletes.
    pub(super) clear: Vec<String>,
    lineage: Vec<Lineage>,
}

impl Target {
    pub(super) fn new(of: &str) -> Self {
        Self { value: json!({ "resourceType": of }), clear: Vec::new(), lineage: Vec::new() }
    }
}

impl<'m> Mapper<'m> {
    pub(super) fn new(message: &'m Message, tables: &'m Tables, context: &'m Context) -> Self {
        let touched = message.segments.iter().map(|s| vec![s.name == "MSH"; s.leaves.len()]).collect();
        Self {
            message,
            tables,
            context,
            issues: Vec::new(),
            changes: Vec::new(),
            happened: None,
            lineage: Vec::new(),
            touched,
            directory: HashMap::new(),
            urls: 0,
        }
    }

    /// A full URL for a change of this message.
    pub(super) fn url(&mut self) -> String {
        self.urls += 1;
        let bits = self.context.seed.wrapping_add(u128::from(self.urls));
        format!("urn:uuid:{}", uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid())
    }

    /// Adds a change with its resource's lineage; returns its full URL.
    pub(super) fn push(&mut self, action: Action, lineage: Target) -> String {
        let url = self.url();
        let change = u32::try_from(self.changes.len()).unwrap_or(u32::MAX);
        self.lineage.extend(lineage.lineage.into_iter().map(|l| Lineage { change, ..l }));
        self.changes
            .push(Change { happened: self.happened, ..Change::new(action) }.with_full_url(url.clone()));
        url
    }

    /// The resource of a target, whose JSON object was built by rules.
    pub(super) fn resource(&self, target: &Target) -> Resource {
        Resource::from_value(target.value.clone())
            .unwrap_or_else(|_| unreachable!("targets are made with a type"))
    }

    /// A resource named in passing (practitioner, location): created once, left alone afterwards.
    pub(super) fn ensure(&mut self, key: Match, resource: Value) -> String {
        if let Some(url) = self.directory.get(&key) {
            return url.clone();
        }
        let Ok(resource) = Resource::from_value(resource) else { return String::new() };
        let url = self.url();
        self.changes
            .push(Change::new(Action::Ensure(key.clone().into(), resource)).with_full_url(url.clone()));
        self.directory.insert(key, url.clone());
        url
    }

    pub(super) fn segment(&self, at: usize) -> &'m Segment {
        &self.message.segments[at]
    }

    /// The value of a field of a segment: first repetition, first component.
    pub(super) fn field(&mut self, segment: usize, field: u16) -> Option<String> {
        self.component(Place { segment, field, repeat: 1 }, 1)
    }

    /// A component of a place, unescaped; nulls are no values.
    pub(super) fn component(&mut self, place: Place, component: u16) -> Option<String> {
        self.leaf(place, component, 1)
    }

    pub(super) fn leaf(&mut self, place: Place, component: u16, subcomponent: u16) -> Option<String> {
        let segment = self.segment(place.segment);
        let leaf = segment.leaf(place.field, place.repeat, component, subcomponent)?;
        self.touch(place.segment, leaf);
        let mut text = self.message.value(leaf).into_owned();
        text.retain(|c| !c.is_control() || "\t\r\n".contains(c));
        Some(text).filter(|text| text != NULL && !text.trim().is_empty())
    }

    fn touch(&mut self, segment: usize, leaf: &Leaf) {
        let leaves = &self.message.segments[segment].leaves;
        let key = |l: &Leaf| (l.field, l.repeat, l.component, l.subcomponent);
        if let Ok(at) = leaves.binary_search_by_key(&key(leaf), key) {
            self.touched[segment][at] = true;
        }
    }

    /// Marks everything of a place as consumed.
    pub(super) fn consume(&mut self, place: Place) {
        for (at, leaf) in self.message.segments[place.segment].leaves.iter().enumerate() {
            if leaf.field == place.field && leaf.repeat == place.repeat {
                self.touched[place.segment][at] = true;
            }
        }
    }

    /// Marks a whole segment as consumed.
    pub(super) fn consume_segment(&mut self, segment: usize) {
        self.touched[segment].iter_mut().for_each(|t| *t = true);
    }

    /// Runs the rules of a segment map.
    pub(super) fn run(&mut self, map: &str, segment: usize, target: &mut Target) {
        let tables = self.tables;
        for row in tables.map(map) {
            if !self.holds(row.condition.as_ref(), segment, None) {
                continue;
            }
            match (&row.source, &row.target) {
                (Source::Fixed(text), Some(path)) => {
                    set(&mut target.value, path, Value::String(text.clone()))
                }
                (Source::Number(field), path) => {
                    self.field_row(row, *field, path.as_deref(), segment, target)
                }
                (Source::Fixed(_), None) => {}
            }
        }
    }

    fn field_row(
        &mut self,
        row: &Row,
        field: u16,
        path: Option<&[Step]>,
        segment: usize,
        target: &mut Target,
    ) {
        let repeats = self.segment(segment).repeats(field);
        let Some(path) = path else {
            (1..=repeats).for_each(|repeat| self.consume(Place { segment, field, repeat }));
            return;
        };
        let appends = path.iter().any(|step| step.index == Index::Append);
        for repeat in 1..=if appends { repeats } else { repeats.min(1) } {
            let place = Place { segment, field, repeat };
            if self.is_null(place) {
                target.clear.push(path[0].name.clone());
                self.consume(place);
                continue;
            }
            if let Some(value) = self.convert(row, place, None) {
                self.note(target, path, row, place);
                set(&mut target.value, path, value);
            }
        }
    }

    fn is_null(&self, place: Place) -> bool {
        let mut leaves = self
            .segment(place.segment)
            .leaves
            .iter()
            .filter(|l| l.field == place.field && l.repeat == place.repeat);
        leaves.next().is_some_and(|leaf| self.message.raw(leaf) == NULL) && leaves.next().is_none()
    }

    /// One value by a rule: of a whole repetition, or of one component.
    pub(super) fn convert(&mut self, row: &Row, place: Place, component: Option<u16>) -> Option<Value> {
        match &row.convert {
            Convert::Map(map) => {
                let mut object = Value::Object(Map::new());
                self.run_components(map, place, &mut object);
                let complete = object.as_object().is_some_and(|o| !o.is_empty());
                (complete && is_worth(map, &object)).then_some(object)
            }
            other => convert::convert(self, other, row.vocabulary.as_deref(), place, component),
        }
    }

    fn run_components(&mut self, map: &str, place: Place, object: &mut Value) {
        let tables = self.tables;
        for row in tables.map(map) {
            if !self.holds(row.condition.as_ref(), place.segment, Some(place)) {
                continue;
            }
            match (&row.source, &row.target) {
                (Source::Fixed(text), Some(path)) => {
                    let value = convert::fixed(self, &row.convert, text);
                    set(object, path, value);
                }
                (Source::Fixed(_), None) => {}
                (Source::Number(component), None) => {
                    self.component(place, *component);
                }
                (Source::Number(0), Some(path)) => {
                    if let Some(value) = self.convert(row, place, None) {
                        set(object, path, value);
                    }
                }
                (Source::Number(component), Some(path)) => {
                    if let Some(value) = self.convert(row, place, Some(*component)) {
                        set(object, path, value);
                    }
                }
            }
        }
    }

    fn holds(&self, condition: Option<&Condition>, segment: usize, place: Option<Place>) -> bool {
        let value = |number: u16| {
            let segment = self.segment(segment);
            let leaf = match place {
                Some(place) => segment
                    .leaves
                    .iter()
                    .find(|l| (l.field, l.repeat, l.component) == (place.field, place.repeat, number)),
                None => segment.leaves.iter().find(|l| l.field == number),
            };
            leaf.map(|leaf| self.message.raw(leaf)).filter(|raw| *raw != NULL)
        };
        match condition {
            None => true,
            Some(Condition::Valued(number)) => value(*number).is_some(),
            Some(Condition::NotValued(number)) => value(*number).is_none(),
            Some(Condition::In(number, list, wanted)) => {
                value(*number).is_some_and(|v| list.iter().any(|one| one == v)) == *wanted
            }
            Some(Condition::And(all)) => all.iter().all(|c| self.holds(Some(c), segment, place)),
            Some(Condition::Or(any)) => any.iter().any(|c| self.holds(Some(c), segment, place)),
        }
    }

    fn note(&self, target: &mut Target, path: &[Step], row: &Row, place: Place) {
        let segment = self.segment(place.segment);
        let mut leaves = segment.leaves.iter().filter(|l| l.field == place.field && l.repeat == place.repeat);
        let first = leaves.next();
        let last = leaves.next_back().or(first);
        let range = first.zip(last).map(|(first, last)| first.range.start..last.range.end);
        target.lineage.push(Lineage {
            change: 0,
            path: path_text(path, &target.value),
            source: location(segment, place.field, place.repeat, None),
            bytes: range.and_then(|range| self.message.bytes_of(&range)),
            rule: row.rule.clone(),
        });
    }

    /// The result: changes, issues, lineage, and every populated value nothing consumed.
    pub(super) fn finish(self) -> Normalised {
        let mut unmapped = Vec::new();
        for (segment, touched) in self.message.segments.iter().zip(&self.touched) {
            for (leaf, _) in segment.leaves.iter().zip(touched).filter(|(_, touched)| !**touched) {
                let place =
                    location(segment, leaf.field, leaf.repeat, Some((leaf.component, leaf.subcomponent)));
                if unmapped.last() != Some(&place) {
                    unmapped.push(place);
                }
            }
        }
        let rejected = self.issues.iter().any(Issue::rejects);
        let changes = if rejected { Vec::new() } else { self.changes };
        Normalised {
            changes,
            issues: self.issues,
            unmapped,
            lineage: if rejected { Vec::new() } else { self.lineage },
        }
    }

    pub(super) fn kind(name: &str) -> ResourceType {
        ResourceType::from_name(name).unwrap_or_else(|| unreachable!("types are named by this crate"))
    }
}

/// `PID-5`, `PID-3[2].4`, `OBX[3]-5`
pub(super) fn location(segment: &Segment, field: u16, repeat: u16, component: Option<(u16, u16)>) -> String {
    use std::fmt::Write;
    let mut text = segment.name.clone();
    if segment.number > 1 {
        let _ = write!(text, "[{}]", segment.number);
    }
    let _ = write!(text, "-{field}");
    if repeat > 1 {
        let _ = write!(text, "[{repeat}]");
    }
    match component {
        Some((1, 1)) | None => {}
        Some((component, 1)) => drop(write!(text, ".{component}")),
        Some((component, subcomponent)) => drop(write!(text, ".{component}.{subcomponent}")),
    }
    text
}

//! Runs rule rows over segments: values into elements, with lineage, cleared elements and the report of what nothing consumed.

use std::collections::HashMap;
use std::ops::Range;

use hilum_fhir::{Action, Change, Issue, IssueCode, Match, Resource, Target as ChangeTarget, Timestamp};
use hilum_wire::er7::{Leaf, Message, Segment};
use serde_json::{Map, Value, json};

use super::convert;
use crate::element::{is_worth, path_text, set};
use crate::rules::{Condition, Convert, Index, Row, Source, Step, Tables};
use crate::{Context, Lineage, Normalised};

/// HL7's explicit null: delete.
pub(super) const NULL: &str = "\"\"";
/// Repetitions of a field that fills a list; a message with more is refused.
const REPEATS_MAX: u16 = 1_000;
/// Places listed in a report.
const UNMAPPED_MAX: usize = 1_000;

/// One message being mapped.
pub(super) struct Mapper<'m> {
    pub(super) message: &'m Message,
    pub(super) tables: &'m Tables,
    pub(super) context: &'m Context,
    pub(super) issues: Vec<Issue>,
    pub(super) changes: Vec<Change>,
    pub(super) happened: Option<Timestamp>,
    /// The segments being mapped: those of one patient.
    pub(super) section: Range<usize>,
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
    /// Members for the resource's creation only: the message says nothing of them.
    pub(super) defaults: Map<String, Value>,
    /// How much each identifier is trusted to name a patient, 0 most: by the field it came from.
    pub(super) ranks: Vec<u8>,
    lineage: Vec<Lineage>,
}

impl Target {
    pub(super) fn new(of: &str) -> Self {
        Self {
            value: json!({ "resourceType": of }),
            clear: Vec::new(),
            defaults: Map::new(),
            ranks: Vec::new(),
            lineage: Vec::new(),
        }
    }

    /// The resource that the rules built; the target has none afterwards.
    pub(super) fn take_resource(&mut self) -> Resource {
        made(std::mem::take(&mut self.value))
    }

    /// The resource that the rules built, of a target that is said again.
    pub(super) fn clone_resource(&self) -> Resource {
        made(self.value.clone())
    }

    /// Takes an element, or a slice of a list, away from what is stored.
    pub(super) fn forget(&mut self, path: &str) {
        if !self.clear.iter().any(|known| known == path) {
            self.clear.push(path.to_owned());
        }
    }

    /// Gives a member for the resource's creation, unless the message says it.
    pub(super) fn default(&mut self, member: &str, value: Value) {
        if self.value.get(member).is_none_or(Value::is_null) {
            self.defaults.insert(member.to_owned(), value);
        }
    }

    /// A member as the message says it, else as it is on creation.
    pub(super) fn member(&self, name: &str) -> &Value {
        match self.value.get(name) {
            None | Some(Value::Null) => self.defaults.get(name).unwrap_or(&Value::Null),
            Some(value) => value,
        }
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
            section: 0..message.segments.len(),
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

    /// Adds a change under a full URL, with its resource's lineage.
    pub(super) fn push(&mut self, url: &str, action: Action, target: Target) {
        let change = u32::try_from(self.changes.len()).unwrap_or(u32::MAX);
        self.lineage.extend(target.lineage.into_iter().map(|l| Lineage { change, ..l }));
        let change = Change { happened: self.happened, defaults: target.defaults, ..Change::new(action) };
        self.changes.push(change.with_full_url(url));
    }

    /// Adds what the message says of a resource; returns its full URL.
    pub(super) fn merge(&mut self, into: ChangeTarget, target: Target) -> String {
        let url = self.url();
        self.merge_as(&url, into, target);
        url
    }

    /// What was added last is named in passing: the message is about something else.
    pub(super) fn said_in_passing(&mut self) {
        self.changes.last_mut().into_iter().for_each(|change| change.in_passing = true);
    }

    /// The same under a full URL that is given out already.
    pub(super) fn merge_as(&mut self, url: &str, into: ChangeTarget, mut target: Target) {
        let clear = std::mem::take(&mut target.clear);
        let resource = target.take_resource();
        self.push(url, Action::Merge(into, resource, clear), target);
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

    /// How often a field repeats (0 = empty).
    pub(super) fn repeats(&self, segment: usize, field: u16) -> u16 {
        self.segment(segment).leaves[self.field_leaves(segment, field)].last().map_or(0, |leaf| leaf.repeat)
    }

    /// The values of a field. They stand in order, so a field of many repetitions is found without looking at all of them.
    pub(super) fn field_leaves(&self, segment: usize, field: u16) -> Range<usize> {
        let leaves = &self.segment(segment).leaves;
        leaves.partition_point(|l| l.field < field)..leaves.partition_point(|l| l.field <= field)
    }

    /// The values of one repetition of a field.
    pub(super) fn place_leaves(&self, place: Place) -> Range<usize> {
        let leaves = &self.segment(place.segment).leaves;
        let wanted = (place.field, place.repeat);
        let start = leaves.partition_point(|l| (l.field, l.repeat) < wanted);
        start..leaves.partition_point(|l| (l.field, l.repeat) <= wanted)
    }

    /// One repetition as sent, with its separators.
    pub(super) fn raw(&self, place: Place) -> Option<&'m str> {
        let leaves = &self.segment(place.segment).leaves[self.place_leaves(place)];
        let (first, last) = (leaves.first()?, leaves.last()?);
        Some(&self.message.text[first.range.start..last.range.end])
    }

    /// One repetition as text, which counts as consumed: in free text separators belong to the text. Nulls and blanks are none.
    pub(super) fn text(&mut self, place: Place) -> Option<String> {
        let raw = self.raw(place).filter(|raw| *raw != NULL)?;
        let mut text = hilum_wire::er7::unescape(raw, &self.message.header.separators).into_owned();
        self.consume(place);
        text.retain(|c| !c.is_control() || "\t\r\n".contains(c));
        Some(text).filter(|text| !text.trim().is_empty())
    }

    /// All repetitions of a field as lines of text.
    pub(super) fn lines(&mut self, segment: usize, field: u16) -> Option<String> {
        let repeats = self.repeats(segment, field);
        let lines: Vec<String> =
            (1..=repeats).filter_map(|repeat| self.text(Place { segment, field, repeat })).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    }

    /// Marks everything of a place as consumed.
    pub(super) fn consume(&mut self, place: Place) {
        let range = self.place_leaves(place);
        self.touched[place.segment][range].fill(true);
    }

    /// Marks a field as consumed.
    pub(super) fn consume_field(&mut self, segment: usize, field: u16) {
        let range = self.field_leaves(segment, field);
        self.touched[segment][range].fill(true);
    }

    /// Runs the rules of a segment map.
    pub(super) fn run(&mut self, map: &str, segment: usize, target: &mut Target) {
        let tables = self.tables;
        let rows = tables.map(map);
        for row in rows {
            if !self.holds(row.condition.as_ref(), segment, None) {
                continue;
            }
            match (&row.source, &row.target) {
                (Source::Fixed(text), Some(path)) => {
                    set(&mut target.value, path, Value::String(text.clone()))
                }
                (Source::Number(field), Some(path)) => {
                    self.field_row(rows, row, (*field, path), segment, target)
                }
                (Source::Number(field), None) => self.consume_field(segment, *field),
                (Source::Fixed(_), None) => {}
            }
        }
    }

    fn field_row(
        &mut self,
        rows: &[Row],
        row: &Row,
        (field, path): (u16, &[Step]),
        segment: usize,
        target: &mut Target,
    ) {
        let appends = path.iter().any(|step| step.index == Index::Append);
        let repeats = self.repeats(segment, field);
        if appends && repeats > REPEATS_MAX {
            return self.refuse_repeats(segment, field);
        }
        for repeat in 1..=if appends { repeats } else { repeats.min(1) } {
            let place = Place { segment, field, repeat };
            if self.is_null(place) {
                match &row.slice {
                    Some(slice) => target.forget(&slice.clear),
                    None => self.delete(rows, path, place, target),
                }
                self.consume(place);
                continue;
            }
            if let Some(mut value) = self.convert(row, place, None) {
                self.note(target, path, row, place);
                if let Some(slice) = &row.slice {
                    target.forget(&slice.clear);
                    if let Some((member, text)) = &slice.sets {
                        value[member] = Value::String(text.clone());
                    }
                }
                set(&mut target.value, path, value);
                if path[0].name == "identifier" {
                    target.ranks.push(rank(&self.segment(segment).name, field));
                }
            }
        }
    }

    /// Said once of a field, however many rows read it.
    fn refuse_repeats(&mut self, segment: usize, field: u16) {
        let place = location(self.segment(segment), field, 1, None);
        if self.issues.last().is_some_and(|issue| issue.location.as_ref() == Some(&place)) {
            return;
        }
        let text = format!("the field has more than {REPEATS_MAX} repetitions; send it in parts");
        self.issues.push(Issue::error(IssueCode::TooLong, text).at(place).hl7(102));
    }

    pub(super) fn is_null(&self, place: Place) -> bool {
        self.raw(place) == Some(NULL)
    }

    /// `""`: the element goes. Of a list that other fields fill too, and which are not in the message, nothing goes: the field speaks
    /// for its own part only, and which part that is nobody can tell from the list.
    fn delete(&mut self, rows: &[Row], path: &[Step], place: Place, target: &mut Target) {
        let list = path.iter().position(|step| step.index != Index::None);
        let is_silent = |row: &Row| {
            let same = row.target.as_ref().is_some_and(|other| other[0].name == path[0].name);
            let Source::Number(field) = row.source else { return false };
            same && field != place.field && self.field_leaves(place.segment, field).is_empty()
        };
        let is_shared = path[0].name == "identifier" || (list.is_some() && rows.iter().any(is_silent));
        if is_shared {
            let text =
                "the deletion was not applied: other fields fill the same list, and what they said stays";
            let at = location(self.segment(place.segment), place.field, place.repeat, None);
            self.issues.push(Issue::warning(IssueCode::NotSupported, text).at(at));
            return;
        }
        let named = &path[..list.map_or(path.len(), |at| at + 1)];
        target.forget(&named.iter().map(|step| step.name.as_str()).collect::<Vec<_>>().join("."));
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
            let leaves = &self.segment(segment).leaves;
            let mut found = match place {
                Some(place) => {
                    let part = &leaves[self.place_leaves(place)];
                    let start = part.partition_point(|l| l.component < number);
                    part[start..part.partition_point(|l| l.component <= number)].iter()
                }
                None => leaves[self.field_leaves(segment, number)].iter(),
            };
            found.find_map(|leaf| Some(self.message.raw(leaf)).filter(|raw| *raw != NULL))
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
        let leaves = &segment.leaves[self.place_leaves(place)];
        let range = leaves.first().zip(leaves.last()).map(|(first, last)| first.range.start..last.range.end);
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
        let unmapped = self.unmapped();
        let rejected = self.issues.iter().any(Issue::rejects);
        let changes = if rejected { Vec::new() } else { self.changes };
        Normalised {
            changes,
            issues: self.issues,
            unmapped,
            lineage: if rejected { Vec::new() } else { self.lineage },
        }
    }

    /// Places of populated values that nothing consumed, in their order.
    fn unmapped(&self) -> Vec<String> {
        let mut unmapped: Vec<String> = Vec::new();
        for (segment, touched) in self.message.segments.iter().zip(&self.touched) {
            for (leaf, _) in segment.leaves.iter().zip(touched).filter(|(_, touched)| !**touched) {
                let part = Some((leaf.component, leaf.subcomponent));
                let place = location(segment, leaf.field, leaf.repeat, part);
                if unmapped.last() != Some(&place) {
                    unmapped.push(place);
                }
                if unmapped.len() >= UNMAPPED_MAX {
                    return unmapped;
                }
            }
        }
        unmapped
    }
}

fn made(value: Value) -> Resource {
    Resource::from_value(value).unwrap_or_else(|_| unreachable!("targets are made with a type"))
}

/// How much an identifier of this field is trusted to name the patient, 0 most. HL7 v2.5.1, 3.4.2 and 3.4.9.
fn rank(segment: &str, field: u16) -> u8 {
    match (segment, field) {
        ("PID", 3) | ("MRG", 1) => 0,
        ("PID", 2) | ("MRG", 4) => 1,
        ("PID", 4) | ("MRG", 2) => 2,
        ("PID", 19) => 4,
        _ => 3,
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

//! JSON Patch, RFC 6902, with the pointers of RFC 6901: operations on a JSON document, all of them or none.
//!
//! The whole of the RFC: the six operations, `-` for the end of a list, `~0` and `~1` in pointers, the empty pointer for the whole
//! document. Only that the whole document is removed is refused, since nothing would be left. Members of an operation that the RFC does
//! not know are ignored, as it demands.

use std::fmt;

use serde_json::{Map, Value};

use crate::{Issue, IssueCode};

mod equal;
mod merge;

pub use merge::merge;

/// Items and members that may be moved, to open or close gaps in lists and objects or to a deeper place, in all operations of one patch.
const SHIFTS_MAX: usize = 10_000_000;

/// Limits of a patch and of what comes of it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Operations of one patch.
    pub operations_max: usize,
    /// Bytes of one pointer.
    pub pointer_bytes_max: usize,
    /// Nesting of objects and lists in the result.
    pub depth_max: usize,
    /// Values of the target and of everything the operations put into it, together.
    pub nodes_max: usize,
    /// Bytes of texts, numbers and names of the target and of everything the operations put into it, together.
    pub bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            operations_max: 1000,
            pointer_bytes_max: 1024,
            depth_max: 64,
            nodes_max: 1_000_000,
            bytes_max: 64 * 1024 * 1024,
        }
    }
}

/// A JSON Patch document that is known to be well-formed.
#[derive(Clone, Debug)]
pub struct Patch {
    operations: Vec<Operation>,
    limits: Limits,
}

/// One operation, section 4 of RFC 6902.
#[derive(Clone, Debug)]
enum Operation {
    Add(Pointer, Value),
    Remove(Pointer),
    Replace(Pointer, Value),
    Move { from: Pointer, path: Pointer },
    Copy { from: Pointer, path: Pointer },
    Test(Pointer, Value),
}

/// The names and numbers of a JSON pointer, their escapes replaced. None of them = the whole document.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pointer(Vec<String>);

/// Why a patch was not applied, and where. The text has no value of the patch or of the document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {text}")]
pub struct PatchError {
    /// What kind of trouble it is.
    pub kind: PatchErrorKind,
    /// The operation, counted from 0, and the pointer: `operation 3, /name/0`. Of a pointer only harmless letters are told.
    pub place: String,
    /// What is wrong, lower case and without a full stop.
    pub text: String,
}

/// The kind of trouble with a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchErrorKind {
    /// The document is no JSON Patch: over HTTP a 400.
    BadDocument,
    /// The target has nothing at a place that an operation needs: over HTTP a 422.
    NoSuchPlace,
    /// A `test` did not hold: over HTTP a 422.
    TestFailed,
    /// The result would be larger or deeper than the limits allow, or take too much work: over HTTP a 422.
    TooLarge,
}

impl PatchError {
    /// The same as an issue, with the place as its location.
    pub fn issue(&self) -> Issue {
        let code = match self.kind {
            PatchErrorKind::BadDocument => IssueCode::Structure,
            PatchErrorKind::NoSuchPlace | PatchErrorKind::TestFailed => IssueCode::Processing,
            PatchErrorKind::TooLarge => IssueCode::TooCostly,
        };
        Issue::error(code, self.text.clone()).at(self.place.clone())
    }
}

/// What is wrong with an operation, before it is known which one it is.
type Wrong = (PatchErrorKind, String);

fn wrong<T>(kind: PatchErrorKind, text: impl Into<String>) -> Result<T, Wrong> {
    Err((kind, text.into()))
}

fn no_place<T>(text: &str) -> Result<T, Wrong> {
    wrong(PatchErrorKind::NoSuchPlace, text)
}

fn bad<T>(text: impl Into<String>) -> Result<T, Wrong> {
    wrong(PatchErrorKind::BadDocument, text)
}

impl Patch {
    /// Takes a JSON Patch document: a list of operations. Duplicate member names are for [`crate::json::parse`] to refuse.
    ///
    /// # Errors
    /// A [`PatchError`] of the kind [`PatchErrorKind::BadDocument`]: no list, an operation without what it needs or with what it cannot
    /// have, a pointer that is none (RFC 6901, section 3), a `move` into its own child (RFC 6902, section 4.4), or more than the limits allow.
    pub fn from_value(document: &Value, limits: &Limits) -> Result<Self, PatchError> {
        let whole =
            |text: String| PatchError { kind: PatchErrorKind::BadDocument, place: "patch".to_owned(), text };
        let items = document.as_array().ok_or_else(|| whole("is a list of operations".to_owned()))?;
        if items.len() > limits.operations_max {
            return Err(whole(format!("has more than {} operations", limits.operations_max)));
        }
        let mut operations = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            let operation = Operation::of(item, limits).map_err(|(kind, text)| PatchError {
                kind,
                place: format!("operation {at}"),
                text,
            })?;
            operations.push(operation);
        }
        Ok(Self { operations, limits: *limits })
    }
}

impl Operation {
    fn of(item: &Value, limits: &Limits) -> Result<Self, Wrong> {
        let Value::Object(members) = item else { return bad("is an object") };
        let Some(op) = members.get("op").and_then(Value::as_str) else {
            return bad("op is missing or no text");
        };
        let pointer = |name: &str| Pointer::of(members, name, limits);
        let value = || match members.get("value") {
            Some(value) => Ok(value.clone()),
            None => bad("value is missing"),
        };
        match op {
            "add" => Ok(Self::Add(pointer("path")?, value()?)),
            "remove" => Ok(Self::Remove(pointer("path")?)),
            "replace" => Ok(Self::Replace(pointer("path")?, value()?)),
            "test" => Ok(Self::Test(pointer("path")?, value()?)),
            "copy" => Ok(Self::Copy { path: pointer("path")?, from: pointer("from")? }),
            "move" => {
                let (path, from) = (pointer("path")?, pointer("from")?);
                if path.0.len() > from.0.len() && path.0.starts_with(&from.0) {
                    return bad("nothing can be moved into itself");
                }
                Ok(Self::Move { from, path })
            }
            _ => bad("op is one of add, remove, replace, move, copy and test"),
        }
    }

    /// The place it is about.
    fn path(&self) -> &Pointer {
        match self {
            Self::Add(path, _) | Self::Remove(path) | Self::Replace(path, _) | Self::Test(path, _) => path,
            Self::Move { path, .. } | Self::Copy { path, .. } => path,
        }
    }
}

impl Pointer {
    fn of(members: &Map<String, Value>, name: &str, limits: &Limits) -> Result<Self, Wrong> {
        let Some(text) = members.get(name).and_then(Value::as_str) else {
            return bad(format!("{name} is missing or no text"));
        };
        if text.len() > limits.pointer_bytes_max {
            return bad(format!("{name} has more than {} bytes", limits.pointer_bytes_max));
        }
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let Some(steps) = text.strip_prefix('/') else {
            return bad(format!("{name} is no json pointer: it starts with a slash"));
        };
        let steps: Option<Vec<String>> = steps.split('/').map(unescape).collect();
        match steps {
            Some(steps) => Ok(Self(steps)),
            None => bad(format!("{name} is no json pointer: after ~ comes 0 or 1")),
        }
    }
}

/// A step of a pointer without its escapes; `None` when an escape is none.
fn unescape(step: &str) -> Option<String> {
    let mut pieces = step.split('~');
    let mut out = pieces.next()?.to_owned();
    for piece in pieces {
        out.push(match piece.chars().next()? {
            '0' => '~',
            '1' => '/',
            _ => return None,
        });
        out.push_str(&piece[1..]);
    }
    Some(out)
}

impl fmt::Display for Pointer {
    /// Harmless letters only, and not too many.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const STEPS_MAX: usize = 16;
        for step in self.0.iter().take(STEPS_MAX) {
            let harmless = step.chars().filter(|c| c.is_ascii_alphanumeric() || "_-".contains(*c));
            write!(f, "/{}", harmless.take(40).collect::<String>())?;
        }
        if self.0.len() > STEPS_MAX { f.write_str("/...") } else { Ok(()) }
    }
}

/// Applies a patch: its operations in their order, each to what came of those before it. The target stays as it is, whatever happens.
/// Members that are replaced keep their place among the others; a `test` compares numbers by their value (1 is 1.0) and objects
/// without regard to the order of their members.
///
/// # Errors
/// A [`PatchError`] of the first operation that cannot be done: a place is not there, an index is none (RFC 6901, section 4) or beyond
/// the end, a `test` does not hold, or the result is beyond the limits that the patch was read with.
pub fn apply(target: &Value, patch: &Patch) -> Result<Value, PatchError> {
    let mut work = Work { limits: &patch.limits, nodes: 0, bytes: 0, shifts: 0 };
    let sized = work.grow(target, 0);
    sized.map_err(|(kind, text)| PatchError { kind, place: "target".to_owned(), text })?;
    let mut document = target.clone();
    for (at, operation) in patch.operations.iter().enumerate() {
        work.operation(&mut document, operation).map_err(|(kind, text)| PatchError {
            kind,
            place: format!("operation {at}, {}", operation.path()),
            text,
        })?;
    }
    Ok(document)
}

/// What the operations have cost so far.
struct Work<'l> {
    limits: &'l Limits,
    nodes: usize,
    bytes: usize,
    shifts: usize,
}

impl Work<'_> {
    fn operation(&mut self, document: &mut Value, operation: &Operation) -> Result<(), Wrong> {
        match operation {
            Operation::Add(path, value) => {
                self.grow(value, path.0.len())?;
                self.add(document, path, value.clone())
            }
            Operation::Remove(path) => self.remove(document, path).map(drop),
            Operation::Replace(path, value) => {
                self.grow(value, path.0.len())?;
                *find(document, &path.0)? = value.clone();
                Ok(())
            }
            Operation::Move { from, path } if from == path => find(document, &from.0).map(drop),
            Operation::Move { from, path } => {
                let value = self.remove(document, from)?;
                // it is no more than it was, but may stand deeper
                if path.0.len() > from.0.len() {
                    let (nodes, _) = self.measure(&value, path.0.len())?;
                    self.shift(nodes)?;
                }
                self.add(document, path, value)
            }
            Operation::Copy { from, path } => {
                let value = find(document, &from.0)?;
                self.grow(value, path.0.len())?;
                let value = value.clone();
                self.add(document, path, value)
            }
            Operation::Test(path, value) => {
                if equal::is_equal(find(document, &path.0)?, value) {
                    Ok(())
                } else {
                    wrong(PatchErrorKind::TestFailed, "the value is another one")
                }
            }
        }
    }

    /// Section 4.1: into a list before what is there, into an object in place of what is there.
    fn add(&mut self, document: &mut Value, path: &Pointer, value: Value) -> Result<(), Wrong> {
        let Some((last, parents)) = path.0.split_last() else {
            *document = value;
            return Ok(());
        };
        match find(document, parents)? {
            Value::Object(members) => drop(members.insert(last.clone(), value)),
            Value::Array(items) => {
                let at = if last == "-" { items.len() } else { index(last)? };
                if at > items.len() {
                    return no_place("the index is beyond the end of the list");
                }
                self.shift(items.len() - at)?;
                items.insert(at, value);
            }
            _ => return no_place("what it is in is no object and no list"),
        }
        Ok(())
    }

    /// Section 4.2.
    fn remove(&mut self, document: &mut Value, path: &Pointer) -> Result<Value, Wrong> {
        let Some((last, parents)) = path.0.split_last() else {
            return no_place("the whole document cannot be removed");
        };
        match find(document, parents)? {
            Value::Object(members) => {
                self.shift(members.len())?;
                members.shift_remove(last).map_or_else(|| no_place("is not there"), Ok)
            }
            Value::Array(items) => {
                let at = index(last)?;
                if at >= items.len() {
                    return no_place("the index is beyond the end of the list");
                }
                self.shift(items.len() - at)?;
                Ok(items.remove(at))
            }
            _ => no_place("what it is in is no object and no list"),
        }
    }

    /// Counts a value that is put at a depth, before it is.
    fn grow(&mut self, value: &Value, depth: usize) -> Result<(), Wrong> {
        let (nodes, bytes) = self.measure(value, depth)?;
        self.nodes = self.nodes.saturating_add(nodes);
        self.bytes = self.bytes.saturating_add(bytes);
        if self.nodes > self.limits.nodes_max {
            let text = format!("the result would have more than {} values", self.limits.nodes_max);
            return wrong(PatchErrorKind::TooLarge, text);
        }
        if self.bytes > self.limits.bytes_max {
            let text = format!("the result would have more than {} bytes", self.limits.bytes_max);
            return wrong(PatchErrorKind::TooLarge, text);
        }
        Ok(())
    }

    /// The values and bytes of a value, which is not deeper than a value at that depth may be.
    fn measure(&self, value: &Value, depth: usize) -> Result<(usize, usize), Wrong> {
        let (mut nodes, mut bytes) = (0, 0);
        let mut waiting = vec![(value, depth)];
        while let Some((value, depth)) = waiting.pop() {
            nodes += 1;
            let inner = depth + 1;
            if matches!(value, Value::Array(_) | Value::Object(_)) && inner > self.limits.depth_max {
                let text = format!("the result would be deeper than {} levels", self.limits.depth_max);
                return wrong(PatchErrorKind::TooLarge, text);
            }
            match value {
                Value::Null | Value::Bool(_) => bytes += 4,
                Value::Number(number) => bytes += number.as_str().len(),
                Value::String(text) => bytes += text.len() + 2,
                Value::Array(items) => waiting.extend(items.iter().map(|item| (item, inner))),
                Value::Object(members) => {
                    bytes += members.keys().map(|name| name.len() + 3).sum::<usize>();
                    waiting.extend(members.values().map(|member| (member, inner)));
                }
            }
        }
        Ok((nodes, bytes))
    }

    fn shift(&mut self, items: usize) -> Result<(), Wrong> {
        self.shifts = self.shifts.saturating_add(items);
        if self.shifts > SHIFTS_MAX {
            return wrong(
                PatchErrorKind::TooLarge,
                "the operations move too much in long lists or large objects",
            );
        }
        Ok(())
    }
}

/// The value at a place, section 4 of RFC 6901.
fn find<'v>(document: &'v mut Value, steps: &[String]) -> Result<&'v mut Value, Wrong> {
    let mut place = document;
    for step in steps {
        let inner = match place {
            Value::Object(members) => members.get_mut(step),
            Value::Array(items) => items.get_mut(index(step)?),
            _ => None,
        };
        let Some(inner) = inner else { return no_place("is not there") };
        place = inner;
    }
    Ok(place)
}

/// The number of an item: digits without a leading zero. `-` is behind the last one, where nothing is.
fn index(step: &str) -> Result<usize, Wrong> {
    if step == "-" {
        return no_place("is behind the last item of the list");
    }
    let is_number = !step.is_empty() && step.bytes().all(|b| b.is_ascii_digit());
    if !is_number || (step.len() > 1 && step.starts_with('0')) {
        return no_place("a list has items by number, without leading zeros");
    }
    // what is too large to be a number of this machine is beyond any end
    Ok(step.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests;

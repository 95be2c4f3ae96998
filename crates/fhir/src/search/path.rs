//! The FHIRPath subset of the R4 search parameters, compiled to steps that walk JSON.
//!
//! The grammar is the one counted over all R4 expressions: member paths, `|`, parentheses, `as`, `.as()`, `.ofType()`,
//! `where(x='y')`, `where(resolve() is T)`, `extension('url')`, `[n]`, and `X.exists() and X != false`.

use std::collections::HashMap;

use serde_json::Value;

use crate::ResourceType;

/// The choice elements (`value[x]`) of R4: path to the names their values have in JSON.
#[derive(Default)]
pub(super) struct Choices(HashMap<&'static str, Vec<&'static str>>);

impl Choices {
    pub(super) fn add(&mut self, path: &'static str, types: &'static str) {
        self.0.insert(path, types.split(',').collect());
    }

    fn types(&self, path: &str) -> Option<&[&'static str]> {
        self.0.get(path).map(Vec::as_slice)
    }
}

/// A compiled expression: the union of some paths.
#[derive(Clone, Debug, Default)]
pub(super) struct Expression {
    paths: Vec<Vec<Step>>,
    /// `X.exists() and X != false`: one boolean instead of the values.
    exists: bool,
}

#[derive(Clone, Debug)]
enum Step {
    /// A member, or the first present of several (choice elements).
    Member(Vec<Box<str>>),
    /// Elements whose member has this text.
    Where(Box<str>, Box<str>),
    /// References to this type.
    ResolvesTo(ResourceType),
    /// Extensions with this URL.
    Extension(Box<str>),
    /// Elements that have an extension with this URL.
    HasExtension(Box<str>),
    /// One element.
    Index(usize),
}

impl Expression {
    /// Compiles an expression of a resource type; `None` when it is not of the grammar. Branches of other types are left out.
    pub(super) fn compile(text: &str, of: &str, choices: &Choices) -> Option<Self> {
        if let Some((path, _)) = text.split_once(".exists() and ") {
            return Some(Self { paths: vec![compile_path(path, of, choices)??], exists: true });
        }
        let mut paths = Vec::new();
        for branch in branches(text) {
            if let Some(path) = compile_path(branch, of, choices)? {
                paths.push(path);
            }
        }
        Some(Self { paths, exists: false })
    }

    /// Compiles a component of a composite whose base is `base`.
    pub(super) fn compile_relative(text: &str, base: &Self, of: &str, choices: &Choices) -> Option<Self> {
        let members = base.paths.first()?.iter().filter_map(|step| match step {
            Step::Member(names) => Some(&*names[0]),
            _ => None,
        });
        let place = members.fold(of.to_owned(), |place, name| format!("{place}.{name}"));
        let depth = place.matches('.').count();
        let mut paths = Vec::new();
        for branch in branches(text) {
            paths.push(compile_path(&format!("{place}.{branch}"), of, choices)??.split_off(depth));
        }
        Some(Self { paths, exists: false })
    }

    /// The values in `root` the expression selects. Lists are flattened.
    pub(super) fn select<'v>(&self, root: &'v Value, found: &mut Vec<&'v Value>) {
        for path in &self.paths {
            walk(path, root, found);
        }
    }

    /// Whether it asks for existence instead of values.
    pub(super) fn asks_existence(&self) -> bool {
        self.exists
    }
}

/// Walks one path. The work list is bounded by the size of the resource; nothing recurses on input.
fn walk<'v>(path: &[Step], root: &'v Value, found: &mut Vec<&'v Value>) {
    // the common case: a chain of single members
    let mut at = root;
    for (depth, step) in path.iter().enumerate() {
        match (step, at) {
            (Step::Member(names), Value::Object(object)) => {
                match names.iter().find_map(|name| object.get(&**name)) {
                    Some(Value::Array(_)) | None => return walk_wide(&path[depth..], at, found),
                    Some(next) => at = next,
                }
            }
            _ => return walk_wide(&path[depth..], at, found),
        }
    }
    found.push(at);
}

fn walk_wide<'v>(path: &[Step], root: &'v Value, found: &mut Vec<&'v Value>) {
    let mut nodes: Vec<&'v Value> = vec![root];
    let mut next: Vec<&'v Value> = Vec::new();
    for step in path {
        next.clear();
        match step {
            Step::Index(index) => next.extend(nodes.get(*index)),
            _ => nodes.iter().for_each(|node| apply(step, node, &mut next)),
        }
        std::mem::swap(&mut nodes, &mut next);
        if nodes.is_empty() {
            return;
        }
    }
    found.append(&mut nodes);
}

fn apply<'v>(step: &Step, node: &'v Value, next: &mut Vec<&'v Value>) {
    match step {
        Step::Member(names) => {
            for value in names.iter().filter_map(|name| node.get(&**name)) {
                match value {
                    Value::Array(items) => next.extend(items),
                    one => next.push(one),
                }
            }
        }
        Step::Where(member, text) => {
            if node.get(&**member).and_then(Value::as_str) == Some(text) {
                next.push(node);
            }
        }
        Step::ResolvesTo(wanted) => {
            if reference_type(node) == Some(*wanted) {
                next.push(node);
            }
        }
        Step::Extension(url) => {
            let extensions = node.get("extension").and_then(Value::as_array).into_iter().flatten();
            next.extend(extensions.filter(|e| e.get("url").and_then(Value::as_str) == Some(url)));
        }
        Step::HasExtension(url) => {
            let mut extensions = node.get("extension").and_then(Value::as_array).into_iter().flatten();
            if extensions.any(|e| e.get("url").and_then(Value::as_str) == Some(url)) {
                next.push(node);
            }
        }
        Step::Index(_) => {}
    }
}

/// The type a reference names, by its text or `Reference.type`; nothing is looked up.
pub(super) fn reference_type(node: &Value) -> Option<ResourceType> {
    let by_text = node.get("reference").and_then(Value::as_str).and_then(|text| {
        let mut parts = text.split("/_history/").next()?.rsplit('/');
        parts.next()?;
        ResourceType::from_name(parts.next()?)
    });
    by_text.or_else(|| ResourceType::from_name(node.get("type")?.as_str()?))
}

/// The branches of a union, outside of parentheses and quotes.
fn branches(text: &str) -> Vec<&str> {
    let (mut depth, mut quoted, mut start, mut found) = (0_i32, false, 0, Vec::new());
    for (at, letter) in text.char_indices() {
        match letter {
            '\'' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            '|' if !quoted && depth == 0 => {
                found.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(text[start..].trim());
    found
}

/// `Some(None)` for a branch of another type.
fn compile_path(text: &str, of: &str, choices: &Choices) -> Option<Option<Vec<Step>>> {
    let mut text = text.trim();
    let mut cast: Option<String> = None;
    // (X.y as T) with anything behind it: X.y.as(T).rest
    let rewritten;
    if let Some(rest) = text.strip_prefix('(') {
        let close = rest.find(')')?;
        let (inner, tail) = (&rest[..close], &rest[close + 1..]);
        rewritten = match inner.split_once(" as ") {
            Some((path, name)) => format!("{}.as({}){tail}", path.trim(), name.trim()),
            None => format!("{inner}{tail}"),
        };
        text = &rewritten;
    } else if let Some((path, name)) = text.split_once(" as ") {
        cast = Some(name.trim().to_owned());
        text = path.trim();
    }
    let mut tokens = tokens(text);
    if let Some(name) = cast {
        tokens.push(format!("as({name})"));
    }
    // a path may leave out its root: `name | alias`
    if tokens.first()?.starts_with(char::is_lowercase) {
        tokens.insert(0, of.to_owned());
    }
    let mut tokens = tokens.into_iter().peekable();
    let root = tokens.next()?;
    if root != of && root != "Resource" && root != "DomainResource" {
        // a branch of another type of a shared parameter
        return ResourceType::from_name(&root).map(|_| None);
    }
    let mut steps = Vec::new();
    let mut place = of.to_owned();
    while let Some(token) = tokens.next() {
        let (name, index) = match token.strip_suffix(']').and_then(|t| t.split_once('[')) {
            Some((name, index)) => (name.to_owned(), Some(index.parse().ok()?)),
            None => (token, None),
        };
        if let Some(argument) = call(&name, "where") {
            steps.push(condition(argument)?);
        } else if let Some(url) = call(&name, "extension") {
            steps.push(Step::Extension(url.trim_matches('\'').into()));
        } else if call(&name, "as").or_else(|| call(&name, "ofType")).is_some() {
            // a cast of an element that is no choice in JSON: filters nothing more
        } else if name.contains('(') {
            return None;
        } else {
            let cast = tokens
                .peek()
                .and_then(|next| call(next, "as").or_else(|| call(next, "ofType")))
                .map(str::to_owned);
            steps.push(member(&name, &place, cast.as_deref(), choices));
            place = format!("{place}.{name}");
        }
        steps.extend(index.map(Step::Index));
    }
    Some(Some(steps))
}

fn member(name: &str, place: &str, cast: Option<&str>, choices: &Choices) -> Step {
    let types = choices.types(&format!("{place}.{name}"));
    let names = match (cast, types) {
        (Some(cast), Some(_)) => vec![format!("{name}{}", capital(cast))],
        // inside data types the path is not known: both spellings
        (Some(cast), None) => vec![format!("{name}{}", capital(cast)), name.to_owned()],
        (None, Some(types)) => types.iter().map(|t| format!("{name}{t}")).collect(),
        (None, None) => vec![name.to_owned()],
    };
    Step::Member(names.into_iter().map(String::into_boxed_str).collect())
}

fn condition(argument: &str) -> Option<Step> {
    if let Some(name) = argument.strip_prefix("resolve() is ") {
        return Some(Step::ResolvesTo(ResourceType::from_name(name.trim())?));
    }
    if let Some(url) = call(argument, "hasExtension") {
        return Some(Step::HasExtension(url.trim_matches('\'').into()));
    }
    let (member, text) = argument.split_once('=')?;
    Some(Step::Where(member.trim().into(), text.trim().trim_matches('\'').into()))
}

fn call<'t>(token: &'t str, function: &str) -> Option<&'t str> {
    token.strip_prefix(function)?.strip_prefix('(')?.strip_suffix(')')
}

/// The parts between dots, outside of parentheses and quotes.
fn tokens(text: &str) -> Vec<String> {
    let (mut depth, mut quoted, mut found) = (0_i32, false, vec![String::new()]);
    for letter in text.chars() {
        match letter {
            '\'' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            '.' if !quoted && depth == 0 => {
                found.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = found.last_mut() {
            last.push(letter);
        }
    }
    found
}

fn capital(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

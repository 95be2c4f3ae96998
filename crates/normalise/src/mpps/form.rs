//! The two forms of the body, read into one data set: the short form's keys stand for elements, DICOM JSON is taken as it is.

use std::collections::HashSet;

use hilum_fhir::{Issue, IssueCode, json};
use serde_json::{Map, Value};

use super::dataset::{self, DataSet, element, is_tag};
use super::table::ShortKey;
use super::time;
use crate::Context;

/// Limits of a body. A series of 4,000 images that names each of them has about 40,000 values.
const LIMITS: json::Limits = json::Limits { depth_max: 64, nodes_max: 200_000 };
/// Characters of a short-form value.
const VALUE_CHARS_MAX: usize = 1_024;
/// Characters of a member name that may appear in a report.
const NAME_CHARS_MAX: usize = 64;
/// Members of a body that stand for nothing, and are kept all the same.
const UNKNOWN_MAX: usize = 1_000;

/// A body, read.
#[derive(Debug, Default)]
pub(super) struct Form {
    /// Everything that is an element.
    pub(super) data: DataSet,
    /// Members that are none; kept with the step.
    pub(super) unknown: Map<String, Value>,
    has_too_many_unknown: bool,
    /// Their places.
    pub(super) unknown_places: Vec<String>,
    /// What is wrong or odd.
    pub(super) issues: Vec<Issue>,
    /// Places of errors.
    wrong: HashSet<String>,
    /// Whether it came in the short form.
    pub(super) is_short: bool,
    /// For the short form: tag path to key.
    names: Vec<(String, String)>,
}

impl Form {
    /// Where a path of the data set was in the body: `/patient_id`, `(0010,0020)`.
    pub(super) fn place(&self, path: &str) -> String {
        self.short_name(path).map_or_else(|| dataset::place(path), |name| format!("/{name}"))
    }

    /// The same for an issue, where a key stands without its slash.
    pub(super) fn location(&self, path: &str) -> String {
        self.short_name(path).unwrap_or_else(|| dataset::place(path))
    }

    /// One error for each place: what was wrong with its form says enough.
    pub(super) fn error(&mut self, code: IssueCode, path: &str, text: &str) {
        let location = self.location(path);
        if !self.wrong.contains(&location) {
            self.note(Issue::error(code, text).at(location));
        }
    }

    fn note(&mut self, issue: Issue) {
        self.wrong.extend(issue.location.iter().filter(|_| issue.rejects()).cloned());
        self.issues.push(issue);
    }

    pub(super) fn warning(&mut self, path: &str, text: &str) {
        let location = self.location(path);
        self.issues.push(Issue::warning(IssueCode::Value, text).at(location));
    }

    fn short_name(&self, path: &str) -> Option<String> {
        let pattern = dataset::pattern(path);
        let (_, name) = self.names.iter().find(|(known, _)| *known == pattern)?;
        let index = path.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(index, _)| index);
        Some(match (name.split_once('/'), index) {
            (Some((list, key)), Some(index)) => format!("{list}/{index}/{key}"),
            _ => name.clone(),
        })
    }
}

/// Reads a body. What cannot be read at all is an issue without data.
pub(super) fn read(bytes: &[u8], keys: &[ShortKey], context: &Context) -> Form {
    let mut form = Form::default();
    let object = match json::parse(bytes, &LIMITS) {
        Ok(Value::Object(object)) => object,
        Ok(_) => {
            form.note(Issue::error(IssueCode::Structure, "a step is one json object"));
            return form;
        }
        Err(issue) => {
            form.note(issue);
            return form;
        }
    };
    let is_named = |name: &String| keys.iter().any(|key| key.key == *name);
    form.is_short = object.keys().any(is_named) || !object.keys().any(|name| is_tag(name));
    if form.is_short {
        short(&mut form, object, keys, context);
    } else {
        for (name, value) in object {
            if name == "site_id" {
                site(&mut form, &value, context);
            } else {
                member(&mut form, name, value, "");
            }
        }
    }
    form
}

fn short(form: &mut Form, mut object: Map<String, Value>, keys: &[ShortKey], context: &Context) {
    form.names = names(keys);
    if let Some(value) = object.shift_remove("site_id") {
        site(form, &value, context);
    }
    let mut attributes = match object.shift_remove("attributes") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(attributes)) => attributes,
        Some(_) => {
            form.note(Issue::error(IssueCode::Structure, "must be a json object").at("attributes"));
            Map::new()
        }
    };
    for key in keys.iter().filter(|key| !key.key.contains('/')) {
        // a key among the attributes is meant the same; the one beside them wins
        let value = object.shift_remove(&key.key).filter(|value| !value.is_null());
        let value = value.or_else(|| attributes.shift_remove(&key.key)).filter(|value| !value.is_null());
        if let Some(value) = value {
            known(form, key, &value, keys, context);
        }
    }
    for (name, value) in object {
        member(form, name, value, "/");
    }
    for (name, value) in attributes {
        member(form, name, value, "/attributes/");
    }
}

/// Tag path to key; both tags of a date and time lead to it.
fn names(keys: &[ShortKey]) -> Vec<(String, String)> {
    let of = |name: &str| keys.iter().find(|key| key.key == name).map(|key| key.tags.join("+"));
    let mut names = Vec::new();
    for key in keys {
        let above = key.key.split_once('/').and_then(|(list, _)| of(list));
        let below =
            |tag: &str| above.as_ref().map_or_else(|| tag.to_owned(), |above| format!("{above}>{tag}"));
        names.push((below(&key.tags.join("+")), key.key.clone()));
        if key.tags.len() > 1 {
            names.extend(key.tags.iter().map(|tag| (below(tag), key.key.clone())));
        }
    }
    names
}

/// A member that is an element by its tag, or something else that is kept.
fn member(form: &mut Form, name: String, value: Value, above: &str) {
    if is_tag(&name) {
        let tag = name.to_ascii_uppercase();
        if !value.is_object() {
            let place = dataset::place(&tag);
            form.note(
                Issue::error(IssueCode::Structure, "must be a json object with vr and Value").at(place),
            );
        } else if !form.data.contains_key(&tag) {
            form.data.insert(tag, value);
        }
    } else if form.unknown.len() < UNKNOWN_MAX {
        let harmless = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        let is_harmless = name.len() <= NAME_CHARS_MAX && name.chars().all(harmless);
        form.unknown_places.push(format!("{above}{}", if is_harmless { name.as_str() } else { "…" }));
        form.unknown.insert(name, value);
    } else if !form.has_too_many_unknown {
        form.has_too_many_unknown = true;
        form.note(Issue::error(IssueCode::TooLong, format!("more than {UNKNOWN_MAX} unknown members")));
    }
}

/// The credentials decide the site; a body that says another one is refused.
fn site(form: &mut Form, value: &Value, context: &Context) {
    form.note(if value.as_str() == Some(context.site.as_str()) {
        Issue::warning(IssueCode::Informational, "is ignored: the key decides the site").at("site_id")
    } else {
        Issue::error(IssueCode::Forbidden, "is not the site of the key; leave it out").at("site_id")
    });
}

fn known(form: &mut Form, key: &ShortKey, value: &Value, keys: &[ShortKey], context: &Context) {
    if key.representation == "SQ" {
        series(form, key, value, keys);
        return;
    }
    match converted(key, value) {
        Ok(Converted::Nothing) => {}
        Ok(Converted::Element(element)) => {
            form.data.insert(key.tags[0].clone(), element);
        }
        Ok(Converted::Time(text)) => match time::split(&text, &context.zone) {
            Some(parts) => {
                form.data.insert(key.tags[0].clone(), element("DA", vec![parts.date.into()]));
                if let (Some(tag), Some(time)) = (key.tags.get(1), parts.time) {
                    form.data.insert(tag.clone(), element("TM", vec![time.into()]));
                }
                if let Some(offset) = parts.offset {
                    form.data.insert(time::OFFSET.into(), element("SH", vec![offset.into()]));
                }
            }
            None => {
                let text = "must be a date and time of iso 8601, such as 2024-01-31T12:00:00+01:00";
                form.note(Issue::error(IssueCode::Value, text).at(&key.key));
            }
        },
        Err((code, text)) => form.note(Issue::error(code, text).at(&key.key)),
    }
}

fn series(form: &mut Form, list: &ShortKey, value: &Value, keys: &[ShortKey]) {
    let prefix = format!("{}/", list.key);
    let Value::Array(sent) = value else {
        form.note(Issue::error(IssueCode::Structure, "must be a list of objects").at(&list.key));
        return;
    };
    let mut items = Vec::with_capacity(sent.len());
    for (at, series) in sent.iter().enumerate() {
        let place = |name: &str| format!("{}/{at}/{name}", list.key);
        let Value::Object(series) = series else {
            form.note(Issue::error(IssueCode::Structure, "must be a list of objects").at(&list.key));
            return;
        };
        let mut item = Map::new();
        for (name, value) in series {
            let key = keys.iter().find(|key| key.key.strip_prefix(&prefix) == Some(name.as_str()));
            match key.map(|key| (key, converted(key, value))) {
                Some((key, Ok(Converted::Element(element)))) => {
                    item.insert(key.tags[0].clone(), element);
                }
                Some((_, Ok(_))) => {}
                Some((_, Err((code, text)))) => form.note(Issue::error(code, text).at(place(name))),
                None => form.unknown_places.push(format!("/{}", list.key)),
            }
        }
        items.push(Value::Object(item));
    }
    form.unknown_places.dedup();
    form.data.insert(list.tags[0].clone(), element("SQ", items));
}

enum Converted {
    Nothing,
    Element(Value),
    Time(String),
}

fn converted(key: &ShortKey, value: &Value) -> Result<Converted, (IssueCode, String)> {
    if value.is_null() {
        return Ok(Converted::Nothing);
    }
    let numeric = matches!(key.representation.as_str(), "IS" | "SH" | "LO" | "CODE");
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) if numeric => number.to_string(),
        _ => return Err((IssueCode::Structure, "must be text".into())),
    };
    if text.chars().count() > VALUE_CHARS_MAX {
        return Err((IssueCode::TooLong, format!("is longer than {VALUE_CHARS_MAX} characters")));
    }
    if text.is_empty() {
        return Ok(Converted::Nothing);
    }
    Ok(Converted::Element(match key.representation.as_str() {
        "DT" => return Ok(Converted::Time(text)),
        "PN" => element("PN", vec![person_name(&text)]),
        "CODE" => element("SQ", vec![code(&text, true)]),
        "REASON" => element("SQ", vec![code(&text, false)]),
        "IS" if text.parse::<u32>().is_err() => {
            return Err((IssueCode::Value, "must be a whole number".into()));
        }
        vr => element(vr, vec![Value::String(text)]),
    }))
}

/// `alphabetic=ideographic=phonetic` as the JSON model has it, PS3.18 F.2.2.
fn person_name(text: &str) -> Value {
    let groups = ["Alphabetic", "Ideographic", "Phonetic"].into_iter().zip(text.splitn(3, '='));
    groups.filter(|(_, g)| !g.is_empty()).map(|(name, g)| (name.to_owned(), Value::from(g))).collect()
}

/// `code^meaning^scheme`, or a single text: a code (`alone_is_code`) or a meaning.
fn code(text: &str, alone_is_code: bool) -> Value {
    const CODE: &str = "00080100";
    const SCHEME: &str = "00080102";
    const MEANING: &str = "00080104";
    let mut item = Map::new();
    let mut put = |tag: &str, vr: &str, text: &str| {
        if !text.trim().is_empty() {
            item.insert(tag.to_owned(), element(vr, vec![Value::from(text.trim())]));
        }
    };
    let mut parts = text.splitn(3, '^');
    match (parts.next().unwrap_or_default(), parts.next(), parts.next()) {
        (alone, None, _) if !alone_is_code => put(MEANING, "LO", alone),
        (code, meaning, scheme) => {
            put(CODE, "SH", code);
            put(SCHEME, "SH", scheme.unwrap_or("L"));
            put(MEANING, "LO", meaning.unwrap_or_default());
        }
    }
    Value::Object(item)
}

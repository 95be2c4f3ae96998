//! JSON from strangers: depth, node count and duplicate keys are checked in one pass before `serde_json` builds anything.

use std::collections::HashSet;

use serde_json::Value;

use crate::{Issue, IssueCode};

/// Limits of a JSON document.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Nesting of objects and arrays.
    pub depth_max: usize,
    /// Values and members in all.
    pub nodes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth_max: 64, nodes_max: 1_000_000 }
    }
}

/// Parses UTF-8 JSON within limits. Decimals keep their digits; duplicate keys are refused; a byte order mark is skipped.
///
/// # Errors
/// An [`Issue`] that names line and column, never a value.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<Value, Issue> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    scan(bytes, limits)?;
    serde_json::from_slice(bytes).map_err(|e| {
        Issue::error(IssueCode::Structure, format!("not json at line {} column {}", e.line(), e.column()))
    })
}

/// An open object or list: the keys seen so far, few of them compared one by one.
enum Level<'b> {
    List,
    Object(Vec<&'b [u8]>, HashSet<&'b [u8]>),
}

/// Keys of one object that are compared one by one before a hash set takes over.
const FEW_KEYS: usize = 16;

fn scan(bytes: &[u8], limits: &Limits) -> Result<(), Issue> {
    let mut levels: Vec<Level<'_>> = Vec::new();
    let mut nodes = 0_usize;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'{' | b'[' => {
                nodes += 1;
                if levels.len() >= limits.depth_max {
                    return Err(refuse(
                        bytes,
                        at,
                        &format!("nested deeper than {} levels", limits.depth_max),
                    ));
                }
                levels.push(if bytes[at] == b'{' {
                    Level::Object(Vec::new(), HashSet::new())
                } else {
                    Level::List
                });
            }
            b'}' | b']' => {
                levels.pop();
            }
            b',' => nodes += 1,
            b'"' => {
                let end = string_end(bytes, at + 1);
                if let Some(Level::Object(few, many)) = levels.last_mut()
                    && is_key(bytes, end + 1)
                    && !note(few, many, &bytes[at + 1..end.min(bytes.len())])
                {
                    return Err(refuse(bytes, at, "a member name occurs twice in one object"));
                }
                at = end;
            }
            _ => {}
        }
        if nodes > limits.nodes_max {
            return Err(refuse(bytes, at, &format!("more than {} values", limits.nodes_max)));
        }
        at += 1;
    }
    Ok(())
}

/// Position of the closing quote, or the end.
fn string_end(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(offset) = bytes.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += offset;
        if bytes[at] == b'"' {
            return at;
        }
        at += 2;
    }
    bytes.len()
}

fn is_key(bytes: &[u8], from: usize) -> bool {
    bytes.get(from..).and_then(|rest| rest.iter().find(|b| !b.is_ascii_whitespace())) == Some(&b':')
}

/// Notes a key; false when it was there. Keys are compared as written: an escape in a key hides a duplicate from nobody, because
/// escaped keys are never FHIR elements and are refused by validation.
fn note<'b>(few: &mut Vec<&'b [u8]>, many: &mut HashSet<&'b [u8]>, key: &'b [u8]) -> bool {
    if few.len() < FEW_KEYS {
        let fresh = !few.contains(&key);
        few.push(key);
        return fresh;
    }
    !few.contains(&key) && many.insert(key)
}

/// An issue that says at which line and column of a text; bytes of a line are counted from 1.
pub(crate) fn refuse(bytes: &[u8], at: usize, why: &str) -> Issue {
    let before = &bytes[..at.min(bytes.len())];
    let line = memchr::memchr_iter(b'\n', before).count() + 1;
    let column = before.len() - memchr::memrchr(b'\n', before).map_or(0, |n| n + 1) + 1;
    Issue::error(IssueCode::Structure, format!("{why} at line {line} column {column}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_their_digits() {
        let value = parse(b"{\"value\":1.00,\"big\":1e400}", &Limits::default()).unwrap();
        assert_eq!(value.to_string(), r#"{"value":1.00,"big":1e+400}"#);
    }

    #[test]
    fn hostile_documents_are_refused_with_their_place() {
        let deep = "[".repeat(100_000);
        let wide = format!("[{}1]", "1,".repeat(2_000_000));
        let many = format!("{{{}\"k5\":0}}", (0..100).map(|n| format!("\"k{n}\":0,")).collect::<String>());
        for (text, says) in [
            (deep.as_str(), "nested deeper than 64 levels at line 1 column 65"),
            (wide.as_str(), "more than 1000000 values"),
            ("{\"a\":1,\n \"a\":2}", "twice in one object at line 2 column 2"),
            (many.as_str(), "twice"),
            ("{\"a\":", "not json at line 1 column 5"),
            ("{} x", "not json"),
            ("{\"a\":\"\\", "not json"),
            ("", "not json"),
        ] {
            let issue = parse(text.as_bytes(), &Limits::default()).unwrap_err();
            assert!(issue.diagnostics.contains(says), "{}", issue.diagnostics);
        }
        assert!(parse(b"\xff\xfe", &Limits::default()).is_err());
    }

    #[test]
    fn equal_keys_in_different_objects_and_values_like_keys_are_fine() {
        assert!(parse(br#"{"a":{"a":"a"},"b":[{"a":1},{"a":2}],"c":"b"}"#, &Limits::default()).is_ok());
        assert!(parse(b"\xEF\xBB\xBF{}", &Limits::default()).is_ok());
    }
}

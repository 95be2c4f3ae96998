//! From name-value pairs to a query.

use super::{Context, Query};
use crate::{Issue, ResourceType};

/// How a query is read.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// `Prefer: handling=strict`, conditions and Subscription criteria: an unknown parameter is an error.
    pub strict: bool,
    /// A condition (`If-None-Exist`, conditional update): result parameters (`_sort`, `_include`, `_count`) are errors too, and
    /// so is an empty query.
    pub condition: bool,
    /// The bases of this server; absolute references that start with one are local.
    pub bases: &'a [String],
    /// Largest `_count`; larger ones are clamped.
    pub count_max: u32,
    /// Largest number of parameters.
    pub parameters_max: usize,
    /// Largest number of comma-separated values in all.
    pub or_values_max: usize,
}

impl Query {
    /// Reads decoded name-value pairs. The second part are warnings: parameters left out, empty values.
    ///
    /// # Errors
    /// Issues for a bad value, an unsupported modifier, a limit, and under `strict` an unknown parameter.
    pub fn parse(
        resource_type: ResourceType,
        _pairs: &[(String, String)],
        _options: &Options<'_>,
        _context: &Context,
    ) -> Result<(Self, Vec<Issue>), Vec<Issue>> {
        Ok((
            Self {
                resource_type,
                filters: Vec::new(),
                sort: Vec::new(),
                count: None,
                total: super::Total::default(),
                includes: Vec::new(),
                revincludes: Vec::new(),
                summary: super::Summary::default(),
                elements: Vec::new(),
                applied: Vec::new(),
            },
            Vec::new(),
        ))
    }
}

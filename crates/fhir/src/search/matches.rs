//! Whether a resource's entries satisfy a query.

use super::{Entries, Query};
use crate::Timestamp;

impl Query {
    /// Whether a resource with these entries satisfies every filter. `id` and `last_updated` serve `_id` and `_lastUpdated`.
    pub fn matches(&self, _entries: &Entries, _id: &str, _last_updated: Timestamp) -> bool {
        true
    }
}

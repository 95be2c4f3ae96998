//! What is found: by id, identifier and key, and by searches.

mod cursor;
pub(crate) mod lookup;
pub(crate) mod search;
mod terms;

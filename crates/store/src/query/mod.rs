//! What is found: by id, identifier and key, and by searches.

mod as_of;
mod cursor;
pub(crate) mod identifiers;
mod links;
pub(crate) mod lookup;
pub(crate) mod orders;
mod patience;
pub(crate) mod patients;
pub(crate) mod search;
mod stream;
mod terms;

//! FHIR as values: JSON and XML, definitions, search parameters, validation, merge, patch. No I/O, no clock, no randomness.
//!
//! The vocabulary every other crate shares lives here: an [`Issue`] is what is wrong with input, a [`Resource`] is a
//! FHIR resource, and a [`Change`] is one entry of the transaction a submission turns into.

pub mod change;
pub mod imaging;
pub mod issue;
pub mod json;
pub mod merge;
pub mod patch;
pub mod references;
mod resource;
pub mod search;
mod timestamp;
mod types;
pub mod validate;
pub mod xml;

pub use change::{
    Action, Change, Clue, Disagreement, Key, Keys, Match, PatientNumbers, Precondition, Target,
};
pub use issue::{Issue, IssueCode, Severity};
pub use resource::Resource;
pub use timestamp::Timestamp;
pub use types::ResourceType;

//! What keeps a store in order: what is old or rejected goes, everything is checked, copies are made.

pub(crate) mod backup;
pub(crate) mod fsck;
mod quarantine;
pub(crate) mod retention;

//! The behaviour of the store on SQLite, and what `fsck` finds in files.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod behaviour;
mod engine;
#[path = "behaviour/fsck.rs"]
mod fsck;

//! The behaviour of the store on SQLite.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod behaviour;
mod engine;

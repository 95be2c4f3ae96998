//! The behaviour of the store, as callers see it. No test knows the engine.

mod fsck;
mod limits;
mod resources;
mod retention;
mod sites;
mod submissions;

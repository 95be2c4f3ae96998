//! The behaviour of the store, as callers see it. No test knows the engine.

mod at_once;
mod chains;
mod destinations;
mod limits;
mod orders;
mod pages;
mod resources;
mod retention;
mod sites;
mod studies;
mod submissions;

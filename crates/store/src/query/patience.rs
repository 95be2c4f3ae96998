//! A search that turns out to be long is given up where it runs on an async thread, and begun again elsewhere.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::Error;

/// How long a search may take where it runs.
pub(super) struct Patience {
    until: Option<Instant>,
    over: Cell<bool>,
}

impl Patience {
    pub(super) fn new(within: Option<Duration>) -> Self {
        Self { until: within.map(|within| Instant::now() + within), over: Cell::new(false) }
    }

    /// Between two steps of a search.
    pub(super) fn step(&self) -> Result<(), Error> {
        match self.until {
            Some(until) if Instant::now() >= until => self.end(),
            _ => Ok(()),
        }
    }

    /// Before a statement that may take any time.
    pub(super) fn long(&self) -> Result<(), Error> {
        if self.until.is_some() { self.end() } else { Ok(()) }
    }

    /// Whether a search ended because it would take longer.
    pub(super) fn is_over(&self) -> bool {
        self.over.get()
    }

    fn end(&self) -> Result<(), Error> {
        self.over.set(true);
        Err(Error::unavailable("the search takes longer than expected"))
    }
}

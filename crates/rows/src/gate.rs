//! Whether an edge takes writes: a gate for each database, that is for each site in files, and one for all sites of a server.
//!
//! A gate is closed and opened by those who write to its database, by nobody else: that one site's file takes writes says nothing of another's.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::{Error, ErrorKind, Health};

/// What the gate of a database for all sites is of.
pub(crate) const ALL_SITES: &str = "all sites";

/// Open until a write fails for a reason of ours; opened again by whoever finds that writes to the same database succeed.
#[derive(Debug)]
pub struct Gate {
    /// The database: its site, or [`ALL_SITES`].
    of: String,
    closed: Mutex<Option<(ErrorKind, String)>>,
}

/// All gates of an edge.
#[derive(Debug, Default)]
pub struct Gates(Mutex<Vec<Arc<Gate>>>);

impl Gates {
    /// The gate of a database; made open when there is none.
    pub(crate) fn gate(&self, of: &str) -> Arc<Gate> {
        let mut gates = self.0.lock();
        if let Some(known) = gates.iter().find(|gate| gate.of == of) {
            return known.clone();
        }
        let gate = Arc::new(Gate::new(of));
        gates.push(gate.clone());
        gate
    }

    /// Accepting when every gate is open; else the reason of the first that is closed.
    pub fn health(&self) -> Health {
        let gates = self.0.lock();
        let closed = gates.iter().map(|gate| gate.health()).find(|health| *health != Health::Accepting);
        closed.unwrap_or(Health::Accepting)
    }
}

impl Gate {
    fn new(of: &str) -> Self {
        Self { of: of.to_owned(), closed: Mutex::default() }
    }

    /// Whether writes are taken, and why not.
    pub fn health(&self) -> Health {
        self.closed.lock().clone().map_or(Health::Accepting, |(_, reason)| Health::NotAccepting(reason))
    }

    /// The error of a write while the gate is closed.
    ///
    /// # Errors
    /// `Full`, `Unavailable`: why it is closed.
    pub fn accepting(&self) -> Result<(), Error> {
        match &*self.closed.lock() {
            None => Ok(()),
            Some((kind, reason)) => Err(Error { kind: *kind, ..Error::unavailable(reason.as_str()) }),
        }
    }

    /// Closed first, told then: whatever becomes of the log line, nothing is accepted any more.
    pub(crate) fn close(&self, kind: ErrorKind, reason: String) {
        let before = self.closed.lock().replace((kind, reason.clone()));
        if before.is_none() {
            self.gauge().set(1.0);
            tracing::error!(database = self.of, reason, "the store takes no writes");
        }
    }

    pub(crate) fn open(&self) {
        if self.closed.lock().take().is_some() {
            self.gauge().set(0.0);
            tracing::info!(database = self.of, "the store takes writes again");
        }
    }

    fn gauge(&self) -> metrics::Gauge {
        metrics::gauge!("hilum_store_not_accepting", "database" => self.of.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_closed_gate_is_told_until_it_is_opened_itself() {
        let gates = Gates::default();
        let (north, south) = (gates.gate("site north"), gates.gate("site south"));
        north.close(ErrorKind::Full, "full".to_owned());
        south.close(ErrorKind::Unavailable, "broken".to_owned());
        south.open();
        assert!(south.accepting().is_ok() && north.accepting().is_err());
        assert_eq!(gates.health(), Health::NotAccepting("full".to_owned()));
        gates.gate("site north").open();
        assert_eq!(gates.health(), Health::Accepting);
    }
}

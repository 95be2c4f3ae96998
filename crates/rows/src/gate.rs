//! Whether an edge takes writes; shared by all its sites.

use parking_lot::Mutex;

use crate::{Error, ErrorKind, Health};

/// Open until a write fails for a reason of ours; opened again by whoever finds that writes succeed.
#[derive(Debug, Default)]
pub struct Gate {
    closed: Mutex<Option<(ErrorKind, String)>>,
}

impl Gate {
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
            metrics::gauge!("hilum_store_not_accepting").set(1.0);
            tracing::error!(reason, "the store takes no writes");
        }
    }

    pub(crate) fn open(&self) {
        if self.closed.lock().take().is_some() {
            metrics::gauge!("hilum_store_not_accepting").set(0.0);
            tracing::info!("the store takes writes again");
        }
    }
}

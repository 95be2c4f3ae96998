//! Whether an edge takes writes: a gate for each database, that is for each site in files, and one for all sites of a server.
//!
//! A gate is closed and opened by those who write to its database, by nobody else: that one site's file takes writes says nothing of another's.
//! It also watches the threads that write: one that died, or does not come to an end, closes nothing by itself and is told nevertheless.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::{Error, ErrorKind, Health};

/// What the gate of a database for all sites is of.
pub(crate) const ALL_SITES: &str = "all sites";

/// A batch, a checkpoint or a look at the server that takes longer is told: the disk or the server does not answer.
const WORK_MAX: Duration = Duration::from_secs(60);

/// Open until a write fails for a reason of ours; opened again by whoever finds that writes to the same database succeed.
#[derive(Debug)]
pub struct Gate {
    /// The database: its site, or [`ALL_SITES`].
    of: String,
    closed: Mutex<Option<(ErrorKind, String)>>,
    threads: Mutex<Vec<Arc<Thread>>>,
}

/// A thread that a database needs.
#[derive(Debug)]
struct Thread {
    name: String,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Waiting,
    WorkingSince(Instant),
    Died,
}

/// What such a thread says of itself. Dropped before [`Duty::end`], it says that the thread died.
#[derive(Debug)]
pub(crate) struct Duty {
    gate: Arc<Gate>,
    thread: Arc<Thread>,
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
        Self { of: of.to_owned(), closed: Mutex::default(), threads: Mutex::default() }
    }

    /// Whether writes are taken, and why not.
    pub fn health(&self) -> Health {
        let closed = self.closed.lock().clone().map(|(_, reason)| reason);
        let reason = closed.or_else(|| self.threads.lock().iter().find_map(|thread| thread.fault()));
        reason.map_or(Health::Accepting, Health::NotAccepting)
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

    /// Watches a thread from now on.
    pub(crate) fn watch(self: &Arc<Self>, name: &str) -> Duty {
        let thread = Arc::new(Thread { name: name.to_owned(), state: Mutex::new(State::Waiting) });
        self.threads.lock().push(thread.clone());
        Duty { gate: self.clone(), thread }
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

impl Thread {
    fn fault(&self) -> Option<String> {
        match *self.state.lock() {
            State::WorkingSince(begun) if begun.elapsed() > WORK_MAX => {
                let seconds = begun.elapsed().as_secs();
                Some(format!("the thread {} has worked on one batch for {seconds} s", self.name))
            }
            State::Died => Some(format!("the thread {} died; start again", self.name)),
            State::Waiting | State::WorkingSince(_) => None,
        }
    }
}

impl Duty {
    /// Something is being done.
    pub(crate) fn begin(&self) {
        *self.thread.state.lock() = State::WorkingSince(Instant::now());
    }

    /// It is done.
    pub(crate) fn rest(&self) {
        *self.thread.state.lock() = State::Waiting;
    }

    /// The thread was told to end.
    pub(crate) fn end(self) {
        self.gate.threads.lock().retain(|thread| !Arc::ptr_eq(thread, &self.thread));
    }
}

impl Drop for Duty {
    fn drop(&mut self) {
        *self.thread.state.lock() = State::Died;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_died_or_does_not_come_to_an_end_is_told() {
        let gates = Gates::default();
        let gate = gates.gate("site north");
        let duty = gate.watch("writer-north");
        duty.begin();
        assert_eq!(gates.health(), Health::Accepting);
        let begun = Instant::now().checked_sub(2 * WORK_MAX).unwrap();
        *duty.thread.state.lock() = State::WorkingSince(begun);
        let told = "the thread writer-north has worked on one batch for 120 s".to_owned();
        assert_eq!(gates.health(), Health::NotAccepting(told));
        duty.rest();
        assert_eq!(gates.health(), Health::Accepting);
        duty.end();
        assert_eq!(gates.health(), Health::Accepting, "it was told to end");
        drop(gate.watch("writer-north"));
        let told = "the thread writer-north died; start again".to_owned();
        assert_eq!(gates.health(), Health::NotAccepting(told));
    }

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

//! What changes behind an edge's back: the feed positions that other edges reached, sites and keys that others changed, and whether the
//! server is there at all.
//!
//! Polled on a connection of its own. `LISTEN` would need `NOTIFY` inside the commits, which makes them wait for each other.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::Mutex;

use super::committer::Committers;
use super::connection::Connection;
use super::control;
use super::place::Place;
use crate::Error;
use crate::control::ControlListener;
use crate::gate::{Duty, Gate};

/// How often the server is asked.
const EVERY: Duration = Duration::from_millis(50);
/// How often a server that is not there is tried.
const EVERY_WHILE_LOST: Duration = Duration::from_millis(500);
/// A server that does not answer for so long takes no submissions.
const PATIENCE: Duration = Duration::from_secs(5);

/// The thread that asks. It ends by itself when this is dropped; nobody waits for it then.
pub(super) struct Watcher {
    running: Mutex<Option<(mpsc::SyncSender<()>, std::thread::JoinHandle<()>)>>,
}

struct Watch {
    place: Arc<Place>,
    committers: Arc<Committers>,
    control: Arc<dyn ControlListener>,
    gate: Arc<Gate>,
    connection: Option<Connection>,
    control_version: Option<String>,
}

impl Watcher {
    pub(super) fn start(
        place: Arc<Place>,
        committers: Arc<Committers>,
        control: Arc<dyn ControlListener>,
        gate: Arc<Gate>,
    ) -> Result<Self, Error> {
        let (stop, stopped) = mpsc::sync_channel(1);
        let duty = gate.watch("watcher");
        let watch = Watch { place, committers, control, gate, connection: None, control_version: None };
        let thread =
            std::thread::Builder::new().name("watcher".into()).spawn(move || watch.run(&stopped, duty))?;
        Ok(Self { running: Mutex::new(Some((stop, thread))) })
    }

    /// Ends the thread. Blocks.
    pub(super) fn close(&self) {
        if let Some((stop, thread)) = self.running.lock().take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}

impl Watch {
    fn run(mut self, stopped: &mpsc::Receiver<()>, duty: Duty) {
        loop {
            duty.begin();
            let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.look()));
            let panicked = |_| Err(Error::unavailable("the watcher panicked; it begins again"));
            duty.rest();
            let wait = match looked.unwrap_or_else(panicked) {
                Ok(()) => EVERY,
                Err(error) => {
                    self.connection = None;
                    self.gate.close(error.kind, error.message);
                    EVERY_WHILE_LOST
                }
            };
            if stopped.recv_timeout(wait) != Err(mpsc::RecvTimeoutError::Timeout) {
                return duty.end();
            }
        }
    }

    fn look(&mut self) -> Result<(), Error> {
        if !self.connection.as_ref().is_some_and(Connection::is_usable) {
            let connection = self.place.connect()?;
            connection.be_patient(PATIENCE);
            self.connection = Some(connection);
        }
        let Some(connection) = &self.connection else { return Ok(()) };
        let sql = "SELECT s.no, s.vid, m.v FROM (VALUES('control_version')) k(k) LEFT JOIN meta m ON m.k=k.k LEFT JOIN site s ON true";
        let rows = connection.query(sql, &[])?;
        for row in &rows {
            if let (Some(site), Some(newest)) = (row.get::<_, Option<i32>>(0), row.get::<_, Option<i64>>(1)) {
                self.committers.heard_of(site, newest.cast_unsigned());
            }
        }
        let control_version = rows.first().and_then(|row| row.get::<_, Option<String>>(2));
        if control_version != self.control_version {
            let reloads = self.control.reloads();
            if self.control.learn(control::kept(connection)?, reloads)? {
                self.control_version = control_version;
            }
        }
        let uses = self.control.uses();
        if uses.is_empty() { Ok(()) } else { control::stamp(connection, &uses) }
    }
}

//! Which edge delivers to a destination: the one whose session holds its advisory lock.
//!
//! The locks of an edge are held by one session. The edge asks a question there once a second; a session that asks nothing for [`IDLE_MS_MAX`] is
//! ended by the server, which gives its locks to the next edge. So an edge whose host vanished, that stands still, or whose network drops what
//! it sends, loses its destinations in seconds, not when TCP gives up.
//!
//! An edge may not know yet that it lost a lock. So each time a lock is taken the destination gets its next epoch, and all that is written
//! about its deliveries is written under the epoch of the edge that writes: under an old one it is refused ([`crate::face::Outbox::check_deliverer`]).

use std::collections::HashMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use parking_lot::Mutex;

use super::connection::Connection;
use super::place::Place;
use super::values::clean;
use crate::Error;

/// How often a question is asked on the session of the locks.
const QUESTION_EVERY: Duration = Duration::from_secs(1);
/// Without an answer for so long the session is taken for lost: well before the server gives its locks away.
const PATIENCE: Duration = Duration::from_secs(4);
/// The server ends the session of the locks when it was not asked anything for so long, milliseconds.
const IDLE_MS_MAX: u32 = 10_000;
const TAKE_LOCK: &str = "SELECT pg_try_advisory_lock($1)";
const NEXT_EPOCH: &str = "INSERT INTO deliverer(site,ref,epoch) VALUES($1,$2,1) ON CONFLICT(site,ref) DO UPDATE SET epoch=deliverer.epoch+1 RETURNING epoch";

/// The destinations of this edge.
pub(super) struct Deliverer {
    locks: Arc<Locks>,
    asking: Mutex<Option<(mpsc::SyncSender<()>, std::thread::JoinHandle<()>)>>,
}

struct Locks {
    place: Arc<Place>,
    session: Mutex<Option<LockSession>>,
}

struct LockSession {
    connection: Connection,
    /// The epochs of the destinations whose locks it holds, by number of the site and reference.
    held: HashMap<(i32, String), i64>,
}

impl Deliverer {
    /// Starts the thread that asks.
    pub(super) fn start(place: Arc<Place>) -> Result<Self, Error> {
        let locks = Arc::new(Locks { place, session: Mutex::new(None) });
        let (stop, stopped) = mpsc::sync_channel::<()>(1);
        let asking = locks.clone();
        let thread = std::thread::Builder::new().name("deliverer".into()).spawn(move || {
            while stopped.recv_timeout(QUESTION_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| asking.ask()));
                if asked.is_err() {
                    metrics::counter!("hilum_panics_total", "place" => "deliverer").increment(1);
                    drop(asking.session.lock().take());
                }
            }
        })?;
        Ok(Self { locks, asking: Mutex::new(Some((stop, thread))) })
    }

    /// The epoch under which this edge delivers to a destination; `None` = another edge does. Takes the lock when it is free. Blocks.
    ///
    /// # Errors
    /// `Unavailable`.
    pub(super) fn epoch(&self, site: i32, destination: &str) -> Result<Option<i64>, Error> {
        self.locks.epoch(site, destination)
    }

    /// Ends the thread and gives up the locks. Blocks.
    pub(super) fn close(&self) {
        if let Some((stop, thread)) = self.asking.lock().take() {
            drop(stop);
            let _ = thread.join();
        }
        drop(self.locks.session.lock().take());
    }
}

impl Locks {
    /// Asks a question, so that the server keeps the session; forgets a session that does not answer.
    fn ask(&self) {
        let mut session = self.session.lock();
        let Some(asked) = &*session else { return };
        if let Err(error) = asked.connection.query("SELECT 1", &[]) {
            let lost = asked.held.len();
            *session = None;
            tracing::warn!(%error, destinations = lost, "the session of the destinations is lost; they are taken again");
        }
    }

    fn epoch(&self, site: i32, destination: &str) -> Result<Option<i64>, Error> {
        let mut locked = self.session.lock();
        if locked.as_ref().is_some_and(|session| !session.connection.is_usable()) {
            *locked = None;
        }
        let session = match &mut *locked {
            Some(session) => session,
            none => none.insert(LockSession::open(&self.place)?),
        };
        let name = (site, clean(destination));
        if let Some(epoch) = session.held.get(&name) {
            return Ok(Some(*epoch));
        }
        let taken = session.take(site, &name.1);
        match taken {
            Ok(Some(epoch)) => drop(session.held.insert(name, epoch)),
            Ok(None) => {}
            // whether the lock was taken is not known: all are given up
            Err(_) => *locked = None,
        }
        taken
    }
}

impl LockSession {
    fn open(place: &Place) -> Result<Self, Error> {
        let connection = place.connect()?;
        connection.be_patient(PATIENCE);
        connection.batch(&format!("SET idle_session_timeout={IDLE_MS_MAX}"))?;
        Ok(Self { connection, held: HashMap::new() })
    }

    fn take(&self, site: i32, destination: &str) -> Result<Option<i64>, Error> {
        let name = format!("{site}/{destination}");
        let key = xxhash_rust::xxh3::xxh3_64(name.as_bytes()).cast_signed();
        let rows = self.connection.query(TAKE_LOCK, &[&key])?;
        if !rows.first().is_some_and(|row| row.get(0)) {
            return Ok(None);
        }
        self.connection.turn_to(site);
        let rows = self.connection.query(NEXT_EPOCH, &[&site, &destination])?;
        Ok(rows.first().map(|row| row.get(0)))
    }
}

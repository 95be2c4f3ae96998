//! PostgreSQL: one database for the sites of several edges.
//!
//! Reads take a connection of a pool and see one snapshot. Writes go through a few committers, each with a connection of its own (`committer.rs`).
//! All calls block; callers on async threads run them elsewhere.

#[macro_use]
mod fences;

mod committer;
mod connection;
mod control;
mod deliverer;
mod foreseen;
mod fsck;
mod imaging;
mod migrate;
mod outbox;
mod quarantine;
mod retention;
mod rows;
mod session;
mod settings;
mod submission;
mod watcher;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

pub(crate) use control::ControlTables;
pub(crate) use fsck::fsck;
pub(crate) use imaging::*;
pub(crate) use outbox::*;
pub(crate) use quarantine::*;
pub(crate) use retention::*;
pub(crate) use rows::*;
pub(crate) use session::Session;
pub use settings::PostgresConfig;
pub(crate) use submission::*;

use self::committer::{Committers, Lane};
use self::connection::{Connection, Io};
use self::deliverer::Deliverer;
use self::settings::Target;
use self::watcher::Watcher;
use crate::apply::SiteContext;
use crate::gate::Gate;
use crate::jobs::Job;
use crate::{Config, Control, Error};

/// A server that does not answer for so long is taken for lost.
pub(super) const PATIENCE: Duration = Duration::from_secs(35);
/// Time to connect.
pub(super) const CONNECT_PATIENCE: Duration = Duration::from_secs(3);
/// A read waits so long for a connection.
const READER_PATIENCE: Duration = Duration::from_secs(10);

/// Where connections come from.
pub(super) struct Place {
    io: Io,
    target: Target,
}

impl Place {
    fn new(settings: &PostgresConfig) -> Result<Self, Error> {
        let (io, target) = (Io::new()?, Target::new(settings)?);
        Ok(Self { io, target })
    }

    fn connect(&self) -> Result<Connection, Error> {
        Connection::open(&self.io, &self.target)
    }

    /// A connection to write with: the server may be another one after a failover, so it is looked at again.
    fn connect_to_write(&self) -> Result<Connection, Error> {
        let connection = self.connect()?;
        migrate::check(&connection).map_err(|error| self.named(error))?;
        Ok(connection)
    }

    /// An error with the URL in front.
    fn named(&self, error: Error) -> Error {
        let message = format!("{}: {}", self.target.shown, error.message);
        Error { message, ..error }
    }
}

/// The server of a store.
pub(crate) struct Server {
    place: Arc<Place>,
    readers: Mutex<Readers>,
    returned: Condvar,
    readers_max: usize,
    /// As many as there may be readers: threads that read are not begun before there is a connection for them.
    turns: Arc<Semaphore>,
    committers: Arc<Committers>,
    watcher: Watcher,
    /// Key of the cursors.
    secret: [u8; 32],
    deliverer: Deliverer,
}

#[derive(Default)]
struct Readers {
    idle: Vec<Connection>,
    taken: usize,
}

/// The tables of one site.
pub(crate) struct SiteTables {
    server: Arc<Server>,
    number: i32,
    lane: Arc<Lane>,
}

impl Server {
    /// Connects, checks what the server is, migrates, starts the committers. Blocks.
    ///
    /// # Errors
    /// `Unavailable` with what is wrong; the URL is named without its password.
    pub(crate) fn open(
        config: &Config,
        settings: &PostgresConfig,
        gate: Arc<Gate>,
        control: Control,
    ) -> Result<Arc<Self>, Error> {
        let place = Arc::new(Place::new(settings)?);
        let connection = place.connect_to_write()?;
        if migrate::is_above_security(&connection)? {
            tracing::warn!(
                "the database role is a superuser or has BYPASSRLS: row level security, the second lock between sites, does not hold; use a role that only owns the database"
            );
        }
        let secret = migrate::migrate(&connection).map_err(|error| place.named(error))?;
        let committers = Committers::start(place.clone(), config, settings.committers, gate.clone())?;
        let committers = Arc::new(committers);
        let watcher = Watcher::start(place.clone(), committers.clone(), control, gate)?;
        let deliverer = Deliverer::start(place.clone())?;
        Ok(Arc::new(Self {
            place,
            readers: Mutex::default(),
            returned: Condvar::new(),
            readers_max: settings.readers_max.max(1),
            turns: Arc::new(Semaphore::new(settings.readers_max.max(1))),
            committers,
            watcher,
            secret,
            deliverer,
        }))
    }

    /// The tables of a site, the key of its cursors and its feed position.
    pub(crate) fn site(
        self: &Arc<Self>,
        id: &str,
        context: SiteContext,
    ) -> Result<(SiteTables, [u8; 32], watch::Receiver<u64>), Error> {
        let known = self.with_reader(|connection| {
            let rows = connection.query("SELECT no, vid FROM site WHERE id=$1", &[&id])?;
            Ok(rows.first().map(|row| (row.get::<_, i32>(0), row.get::<_, i64>(1))))
        })?;
        let (number, newest) = known.ok_or_else(|| Error::unavailable("the site is not in the database"))?;
        let lane = self.committers.lane(number, context, newest.cast_unsigned());
        let newest = lane.newest.subscribe();
        Ok((SiteTables { server: self.clone(), number, lane }, self.secret, newest))
    }

    /// Lets the queues run empty and ends the committers. Blocks.
    pub(crate) fn close(&self) {
        self.watcher.close();
        self.committers.close();
        self.deliverer.close();
    }

    fn with_reader<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        let reader = self.reader()?;
        let done = work(&reader);
        self.put_back(reader);
        done
    }

    fn reader(&self) -> Result<Connection, Error> {
        let until = Instant::now() + READER_PATIENCE;
        let mut readers = self.readers.lock();
        while readers.taken >= self.readers_max {
            if self.returned.wait_until(&mut readers, until).timed_out() {
                return Err(Error::unavailable("all connections to the database are in use"));
            }
        }
        readers.taken += 1;
        // the connection that was used last is the one most likely to be alive
        let pooled = std::iter::from_fn(|| readers.idle.pop()).find(Connection::is_usable);
        drop(readers);
        let connection = pooled.map_or_else(|| self.place.connect(), Ok);
        if connection.is_err() {
            self.gone();
        }
        connection
    }

    fn put_back(&self, connection: Connection) {
        if connection.is_usable() {
            self.readers.lock().idle.push(connection);
        }
        self.gone();
    }

    fn gone(&self) {
        self.readers.lock().taken -= 1;
        self.returned.notify_one();
    }
}

impl SiteTables {
    /// Runs reads of one statement each. Blocks.
    pub(crate) fn read<T>(&self, work: impl FnOnce(&Session) -> Result<T, Error>) -> Result<T, Error> {
        self.work(Session::reading(self.server.reader()?, self.number), work)
    }

    /// Runs reads that see one moment. Blocks.
    pub(crate) fn snapshot<T>(&self, work: impl FnOnce(&Session) -> Result<T, Error>) -> Result<T, Error> {
        self.work(Session::snapshot(self.server.reader()?, self.number), work)
    }

    fn work<T>(&self, session: Session, work: impl FnOnce(&Session) -> Result<T, Error>) -> Result<T, Error> {
        // a panic of the work must not keep the place in the pool
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&session)));
        self.server.put_back(session.roll_back());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Waits for a turn to read.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.server.turns.clone().acquire_owned().await.ok()
    }

    /// Puts a job into the queue of the site.
    ///
    /// # Errors
    /// `Unavailable` when it is full.
    pub(crate) fn send(&self, job: Job) -> Result<(), Error> {
        self.server.committers.send(&self.lane, job)
    }

    /// The epoch under which this edge delivers to a destination; `None` = another edge does. Blocks.
    pub(crate) fn delivers(&self, destination: &str) -> Result<Option<i64>, Error> {
        self.server.deliverer.epoch(self.number, destination)
    }
}

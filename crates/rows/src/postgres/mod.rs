//! PostgreSQL: one database for the sites of several edges.
//!
//! Reads take a connection of a pool and see one snapshot. Writes go through a few committers, each with a connection of its own (`committer.rs`).
//! All calls block; callers on async threads run them elsewhere.

#[macro_use]
mod fences;

mod carried;
mod committer;
mod connection;
mod control;
mod deliverer;
mod foreseen;
mod fsck;
mod imaging;
mod migrate;
mod outbox;
mod place;
mod quarantine;
mod reindex;
mod retention;
mod rows;
mod session;
mod settings;
mod submission;
mod values;
mod watcher;

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use parking_lot::{Condvar, Mutex};
use tokio::sync::Semaphore;

pub(crate) use control::ControlTables;
pub(crate) use fsck::fsck;
pub use settings::PostgresConfig;

use self::committer::{Committers, Lane};
use self::connection::Connection;
use self::deliverer::Deliverer;
use self::place::Place;
use self::session::Session;
use self::watcher::Watcher;
use crate::control::ControlListener;
use crate::face::{Reads, Tx};
use crate::gate::Gate;
use crate::jobs::Job;
use crate::row::Ask;
use crate::{Config, Engine, Error, OpenSite, Reading, SiteDatabase};

/// A read waits so long for a connection.
const READER_PATIENCE: Duration = Duration::from_secs(10);

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
    gate: Arc<Gate>,
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
        control: Arc<dyn ControlListener>,
    ) -> Result<Arc<Self>, Error> {
        let place = Arc::new(Place::new(settings)?);
        let connection = place.connect_to_write()?;
        if migrate::is_above_security(&connection)? {
            tracing::warn!(
                "the database role is a superuser or has BYPASSRLS: row level security, the second lock between sites, does not hold; use a role that only owns the database"
            );
        }
        let secret = migrate::migrate(&connection).map_err(|error| place.named(error))?;
        carried::carry_over(&place).map_err(|error| place.named(error))?;
        let committers = Committers::start(place.clone(), config, settings.committers, gate.clone())?;
        let committers = Arc::new(committers);
        let watcher = Watcher::start(place.clone(), committers.clone(), control, gate.clone())?;
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
            gate,
            deliverer,
        }))
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

impl Engine for Arc<Server> {
    fn site(&self, id: &str, _: &TimeZone) -> Result<OpenSite, Error> {
        let known = self.with_reader(|connection| {
            let rows = connection.query("SELECT no, vid FROM site WHERE id=$1", &[&id])?;
            Ok(rows.first().map(|row| (row.get::<_, i32>(0), row.get::<_, i64>(1))))
        })?;
        let (number, newest) = known.ok_or_else(|| Error::unavailable("the site is not in the database"))?;
        let lane = self.committers.lane(number, newest.cast_unsigned());
        let newest = lane.newest.subscribe();
        let database = Box::new(SiteTables { server: self.clone(), number, lane });
        Ok(OpenSite { database, secret: self.secret, newest, gate: self.gate.clone() })
    }

    /// Lets the queues run empty and ends the committers. Blocks.
    fn close(&self) {
        self.watcher.close();
        self.committers.close();
        self.deliverer.close();
    }
}

impl SiteTables {
    fn work<T>(&self, session: Session, work: impl FnOnce(&Session) -> Result<T, Error>) -> Result<T, Error> {
        // a panic of the work must not keep the place in the pool
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&session)));
        self.server.put_back(session.roll_back());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl SiteDatabase for SiteTables {
    fn read(&self, reading: Reading<'_>) -> Result<(), Error> {
        self.work(Session::reading(self.server.reader()?, self.number), |session| reading(session))
    }

    fn snapshot(&self, reading: Reading<'_>) -> Result<(), Error> {
        self.work(Session::snapshot(self.server.reader()?, self.number), |session| reading(session))
    }

    fn send(&self, job: Job) -> Result<(), Error> {
        self.server.committers.send(&self.lane, job)
    }

    fn turns(&self) -> Option<Arc<Semaphore>> {
        Some(self.server.turns.clone())
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn epoch(&self, destination: &str) -> Result<Option<i64>, Error> {
        self.server.deliverer.epoch(self.number, destination)
    }

    /// Its writers are those of all sites.
    fn close(&self) {}
}

impl Reads for Session {
    fn foresee(&self, asks: &[Ask]) -> Result<(), Error> {
        self.foresee(asks)
    }
}
impl Tx for Session {}

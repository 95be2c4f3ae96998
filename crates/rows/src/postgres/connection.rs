//! A connection whose calls block, used by one thread at a time.
//!
//! The thread that waits for an answer writes to the socket and reads from it itself; a small runtime of the store's own only tells it when there
//! is something to read. So a call may wait on any thread, and an answer costs no more threads than that. What is
//! [sent](Connection::send) goes out with the next answer that is needed, or with [`Connection::flush`]: the statements of a
//! transaction and its commit are one piece on the wire and one round trip.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

use super::settings::{PATIENCE, Target};
use crate::{Error, ErrorKind};

/// Our statements are look-ups by index: the planner is kept from anything else, whatever its statistics say of a table that has just
/// begun to grow. A session that stops inside a transaction is ended, so that it holds nobody up; so is one whose edge is not reached any more,
/// in 25 s instead of the two hours that are the default of most systems.
const SESSION: &str = "SET plan_cache_mode=force_generic_plan; SET enable_seqscan=off; SET enable_bitmapscan=off; SET enable_hashjoin=off;
    SET enable_mergejoin=off; SET jit=off; SET synchronous_commit=on; SET statement_timeout='30s'; SET lock_timeout='10s';
    SET idle_in_transaction_session_timeout='10s'; SET client_min_messages=warning;
    SET tcp_keepalives_idle=10; SET tcp_keepalives_interval=5; SET tcp_keepalives_count=3; SET tcp_user_timeout='20s'";

/// A statement over all rows, or the lock of another edge's migration, may take so long.
pub(super) const PATIENCE_OF_UPKEEP: Duration = Duration::from_secs(24 * 3600);

/// A value bound to a statement.
pub(super) type Value = Box<dyn ToSql + Sync + Send>;
type Sent = Pin<Box<dyn Future<Output = Result<(), tokio_postgres::Error>> + Send>>;
/// What moves bytes between the socket and those who wait for answers; ends with the connection.
type Driver = Pin<Box<dyn Future<Output = Result<(), tokio_postgres::Error>> + Send>>;
/// Rows under way.
pub(super) type Answers = Pin<Box<dyn Future<Output = Result<Vec<Row>, tokio_postgres::Error>> + Send>>;

/// A connection.
pub(super) struct Connection {
    client: Arc<Client>,
    /// `None` when the connection has ended.
    driver: RefCell<Option<Driver>>,
    runtime: tokio::runtime::Handle,
    statements: RefCell<HashMap<&'static str, Statement>>,
    sent: RefCell<Vec<Sent>>,
    /// The site whose rows it sees; 0 = none.
    site: Cell<i32>,
    /// It did not answer in time, or broke off: not used again.
    lost: Cell<bool>,
    /// It is taken for lost when it does not answer for so long.
    patience: Cell<Duration>,
}

/// The runtime that serves the sockets of a store.
pub(super) struct Io(Option<tokio::runtime::Runtime>);

impl Io {
    pub(super) fn new() -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("postgresql")
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    fn handle(&self) -> Option<tokio::runtime::Handle> {
        self.0.as_ref().map(|runtime| runtime.handle().clone())
    }

    fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<tokio::task::JoinHandle<T>> {
        self.0.as_ref().map(|runtime| runtime.spawn(work))
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        // a store may be dropped on an async thread, where waiting for a runtime is not allowed
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Connection {
    /// The server is told; nobody waits for that.
    fn drop(&mut self) {
        if let Some(driver) = self.driver.take() {
            drop(self.runtime.spawn(driver));
        }
    }
}

impl Connection {
    /// Connects. Blocks.
    ///
    /// # Errors
    /// `Unavailable`, naming the URL without its password.
    pub(super) fn open(io: &Io, target: &Target) -> Result<Self, Error> {
        let failed = |error: tokio_postgres::Error| {
            let reason = match error.as_db_error() {
                Some(refused) => refused.message().to_owned(),
                None => {
                    std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
                }
            };
            Error::unavailable(format!("cannot connect to {}: {reason}", target.shown))
                .because(Cause::of(&error))
        };
        let (config, tls) = (target.config.clone(), target.tls.clone());
        let connecting = io.spawn(async move { config.connect(tls).await });
        let connecting = connecting.ok_or_else(|| Error::unavailable("the store is closed"))?;
        let connected = wait(connecting, Instant::now() + PATIENCE);
        let (client, served) = connected
            .and_then(Result::ok)
            .ok_or_else(|| Error::unavailable(format!("cannot connect to {}: no answer", target.shown)))?
            .map_err(failed)?;
        let Some(runtime) = io.handle() else { return Err(Error::unavailable("the store is closed")) };
        let connection = Self {
            client: Arc::new(client),
            driver: RefCell::new(Some(Box::pin(served))),
            runtime,
            statements: RefCell::default(),
            sent: RefCell::default(),
            site: Cell::new(0),
            lost: Cell::new(false),
            patience: Cell::new(PATIENCE),
        };
        connection.batch(SESSION)?;
        Ok(connection)
    }

    /// Waits so long for an answer from now on.
    pub(super) fn be_patient(&self, patience: Duration) {
        self.patience.set(patience);
    }

    /// Whether it can be used, as far as is known by now.
    pub(super) fn is_usable(&self) -> bool {
        self.flush();
        !self.lost.get() && !self.client.is_closed()
    }

    /// Sends what waits to go out, and takes in what has arrived. Does not wait.
    pub(super) fn flush(&self) {
        self.drive(&mut Context::from_waker(Waker::noop()));
    }

    fn drive(&self, context: &mut Context<'_>) {
        let mut driver = self.driver.borrow_mut();
        let Some(driving) = driver.as_mut() else { return };
        if let Poll::Ready(ended) = driving.as_mut().poll(context) {
            *driver = None;
            if let Err(error) = ended {
                tracing::debug!(cause = %Cause::of(&error), "a connection to the database ended");
            }
        }
    }

    /// Blocks until an answer is there; `None` when it does not come in time.
    fn wait<F: Future>(&self, answer: F) -> Option<F::Output> {
        let mut answer = pin!(answer);
        let both = std::future::poll_fn(|context| {
            // what is asked for goes out, what has arrived is taken in, and the answer may be among it
            if let Poll::Ready(answer) = answer.as_mut().poll(context) {
                return Poll::Ready(answer);
            }
            self.drive(context);
            answer.as_mut().poll(context)
        });
        // a task of an async thread may only poll so many times before it has to let others go on; one that blocks never does, and would wait for ever
        let both = tokio::task::unconstrained(both);
        wait(both, Instant::now() + self.patience.get())
    }

    /// Outside of a transaction: only rows of this site are seen and written from now on.
    pub(super) fn turn_to(&self, site: i32) {
        if self.site.replace(site) != site {
            self.send_batch(format!("SET hilum.site='{site}'"));
        }
    }

    /// Runs statements without values, and waits.
    pub(super) fn batch(&self, sql: &str) -> Result<(), Error> {
        self.send_batch(sql.to_owned());
        self.settle()
    }

    /// Sends statements without values, with what is waited for next.
    pub(super) fn send_batch(&self, sql: String) {
        let client = self.client.clone();
        self.begin(Box::pin(async move { client.batch_execute(&sql).await }));
    }

    /// Sends a statement whose rows nobody needs.
    pub(super) fn send(&self, sql: &'static str, values: Vec<Value>) -> Result<(), Error> {
        let (client, statement) = (self.client.clone(), self.statement(sql)?);
        self.begin(Box::pin(async move {
            let values = values.iter().map(|value| -> &(dyn ToSql + Sync) { value.as_ref() });
            client.execute_raw(&statement, values).await.map(drop)
        }));
        Ok(())
    }

    /// Sends a statement whose rows are [received](Connection::received) later.
    pub(super) fn ask(&self, sql: &'static str, values: Vec<Value>) -> Result<Answers, Error> {
        let (client, statement) = (self.client.clone(), self.statement(sql)?);
        let mut asking: Answers = Box::pin(async move {
            let values: Vec<&(dyn ToSql + Sync)> =
                values.iter().map(|value| -> &(dyn ToSql + Sync) { value.as_ref() }).collect();
            client.query(&statement, &values).await
        });
        Ok(match first(asking.as_mut()) {
            Poll::Ready(done) => Box::pin(std::future::ready(done)),
            Poll::Pending => asking,
        })
    }

    /// Waits for rows asked for, and all that was sent before.
    pub(super) fn received(&self, asked: Answers) -> Result<Vec<Row>, Error> {
        self.settle()?;
        let rows = self.wait(asked).ok_or_else(|| self.silent())?;
        rows.map_err(|error| self.failed(&error))
    }

    /// The rows of a statement, after all that was sent before.
    pub(super) fn query(&self, sql: &'static str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        let statement = self.statement(sql)?;
        let mut asking = pin!(self.client.query(&statement, values));
        if let Poll::Ready(done) = first(asking.as_mut()) {
            self.settle()?;
            return done.map_err(|error| self.failed(&error));
        }
        self.settle()?;
        let rows = self.wait(asking).ok_or_else(|| self.silent())?;
        rows.map_err(|error| self.failed(&error))
    }

    /// As [`Connection::query`], for a statement that is not asked again.
    pub(super) fn query_once(&self, sql: &str) -> Result<Vec<Row>, Error> {
        self.settle()?;
        let asked = self.wait(self.client.query(sql, &[])).ok_or_else(|| self.silent())?;
        asked.map_err(|error| self.failed(&error))
    }

    /// Waits for all that was sent; the first error counts.
    pub(super) fn settle(&self) -> Result<(), Error> {
        let mut outcome = Ok(());
        for sent in self.sent.take() {
            if self.lost.get() {
                break;
            }
            match self.wait(sent) {
                None => outcome = outcome.and(Err(self.silent())),
                Some(Err(error)) => outcome = outcome.and(Err(self.failed(&error))),
                Some(Ok(())) => {}
            }
        }
        outcome
    }

    fn begin(&self, mut future: Sent) {
        match first(future.as_mut()) {
            Poll::Ready(done) => self.sent.borrow_mut().push(Box::pin(std::future::ready(done))),
            Poll::Pending => self.sent.borrow_mut().push(future),
        }
    }

    fn statement(&self, sql: &'static str) -> Result<Statement, Error> {
        if let Some(statement) = self.statements.borrow().get(sql) {
            return Ok(statement.clone());
        }
        let prepared = self.wait(self.client.prepare(sql)).ok_or_else(|| self.silent())?;
        let statement = prepared.map_err(|error| self.failed(&error))?;
        self.statements.borrow_mut().insert(sql, statement.clone());
        Ok(statement)
    }

    fn silent(&self) -> Error {
        self.lost.set(true);
        Error::unavailable("the database does not answer").because(Cause { state: None, relation: None })
    }

    fn failed(&self, error: &tokio_postgres::Error) -> Error {
        let cause = Cause::of(error);
        // it may have been the turn that failed
        self.site.set(0);
        if cause.state.is_none() {
            self.lost.set(true);
        }
        let kind = match cause.state.as_deref() {
            Some("53100") => ErrorKind::Full,
            _ => ErrorKind::Unavailable,
        };
        let message =
            if cause.state.is_some() { "the database refused" } else { "the database is not reached" };
        Error { kind, ..Error::unavailable(message) }.because(cause)
    }
}

/// Why the server or the connection failed, without values: those are in the server's own texts.
#[derive(Debug)]
pub(super) struct Cause {
    /// SQLSTATE; `None` when the connection is gone.
    pub(super) state: Option<String>,
    relation: Option<String>,
}

impl Cause {
    fn of(error: &tokio_postgres::Error) -> Self {
        let relation = error.as_db_error().and_then(|e| e.constraint().or(e.table())).map(str::to_owned);
        Self { state: error.code().map(|code| code.code().to_owned()), relation }
    }

    /// The cause of an error of this engine.
    pub(super) fn in_error(error: &Error) -> Option<&Self> {
        error.source.as_ref().and_then(|source| source.downcast_ref())
    }

    /// Whether the work of one job may be at fault, and its neighbours can be run without it. Else the server or the connection is:
    /// class 08 connection, 25 read-only, 53 resources, 55 locks, 57 operator, 58 system, XX internal.
    pub(super) fn is_of_one_job(&self) -> bool {
        self.state
            .as_ref()
            .is_some_and(|state| !["08", "25", "53", "55", "57", "58", "XX"].contains(&&state[..2]))
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.state, &self.relation) {
            (Some(state), Some(relation)) => write!(f, "sqlstate {state} at {relation}"),
            (Some(state), None) => write!(f, "sqlstate {state}"),
            (None, _) => f.write_str("no connection"),
        }
    }
}

impl std::error::Error for Cause {}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls once, which makes the request ready to be sent. The answer is waited for later.
fn first<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Blocks until a future served elsewhere is done; `None` when it is not done in time.
fn wait<F: Future>(future: F, until: Instant) -> Option<F::Output> {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut context) {
            return Some(done);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        std::thread::park_timeout(left);
    }
}

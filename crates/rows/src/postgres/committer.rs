//! The committers of a store: threads that each own a writing connection and serve the sites in turn.
//!
//! Natural group commit, as for SQLite: a committer takes what waits for one site, runs all of it in one transaction and answers after the commit.
//! The transaction begins by locking the row of the site with its counters. So one transaction writes to a site at a time, whatever the number
//! of edges; conditions are decided on what is committed, numbers are given out in the order of the commits, and the change feed can be
//! read by number. A job that fails is undone by itself. Only when the server refuses a statement, and which job's it was is not known, the batch is
//! rolled back and its jobs are run one by one.
//!
//! A connection that broke off, or did not answer, is never used again and whatever it was doing is not acknowledged: its outcome is not
//! known. The gate closes until a committer is connected to a server that takes writes.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::connection::{Cause, Connection};
use super::place::Place;
use super::session::Session;
use crate::folder::free_bytes;
use crate::gate::{Duty, Gate};
use crate::jobs::{Job, copy};
use crate::row::Counters;
use crate::{Config, Error, ErrorKind, Health};

/// How often a committer with nothing to do looks whether the server takes writes again.
const TICK: Duration = Duration::from_secs(1);

/// What the committers need to know of a site.
pub(super) struct Lane {
    number: i32,
    pub(super) newest: watch::Sender<u64>,
}

/// The handle of the committers.
pub(super) struct Committers {
    shared: Arc<Shared>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

struct Shared {
    place: Arc<Place>,
    gate: Arc<Gate>,
    config: Config,
    state: Mutex<State>,
    wake: Condvar,
    waiting_bytes: AtomicUsize,
}

#[derive(Default)]
struct State {
    queues: HashMap<i32, Queue>,
    /// Sites with jobs that no committer works for, in order of arrival.
    ready: VecDeque<i32>,
    closed: bool,
}

struct Queue {
    lane: Arc<Lane>,
    jobs: VecDeque<Job>,
    busy: bool,
}

impl Committers {
    pub(super) fn start(
        place: Arc<Place>,
        config: &Config,
        threads: usize,
        gate: Arc<Gate>,
    ) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            place,
            gate,
            config: config.clone(),
            state: Mutex::default(),
            wake: Condvar::new(),
            waiting_bytes: AtomicUsize::new(0),
        });
        let mut started = Vec::new();
        for n in 0..threads.max(1) {
            let committer = Committer { shared: shared.clone(), connection: None, serves: None };
            let name = format!("committer-{n}");
            let duty = shared.gate.watch(&name);
            let thread = std::thread::Builder::new().name(name);
            started.push(thread.spawn(move || committer.go_on(duty))?);
        }
        Ok(Self { shared, threads: Mutex::new(started) })
    }

    /// The lane of a site, made when it is not known.
    pub(super) fn lane(&self, number: i32, newest: u64) -> Arc<Lane> {
        let mut state = self.shared.state.lock();
        let queue = state.queues.entry(number).or_insert_with(|| {
            let lane = Lane { number, newest: watch::Sender::new(newest) };
            Queue { lane: Arc::new(lane), jobs: VecDeque::new(), busy: false }
        });
        queue.lane.clone()
    }

    /// Notes the feed position another edge may have reached.
    pub(super) fn heard_of(&self, number: i32, newest: u64) {
        let lane = self.shared.state.lock().queues.get(&number).map(|queue| queue.lane.clone());
        if let Some(lane) = lane {
            lane.reached(newest);
        }
    }

    pub(super) fn send(&self, lane: &Lane, job: Job) -> Result<(), Error> {
        let (shared, bytes) = (&self.shared, job.bytes);
        if shared.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > shared.config.queue_bytes_max {
            shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Error::unavailable("too many bytes wait to be written"));
        }
        let refused = shared.state.lock().put(lane.number, job, shared.config.queue_jobs_max);
        match refused {
            None => {
                shared.wake.notify_one();
                Ok(())
            }
            Some(reason) => {
                shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
                Err(Error::unavailable(reason))
            }
        }
    }

    /// Lets the queues run empty and ends the threads. Blocks.
    pub(super) fn close(&self) {
        self.shared.state.lock().closed = true;
        self.shared.wake.notify_all();
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Committers {
    /// The threads end when the queues are empty; nobody waits for them here.
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

impl Lane {
    fn reached(&self, newest: u64) {
        self.newest.send_if_modified(|known| {
            let more = newest > *known;
            *known = newest.max(*known);
            more
        });
    }
}

impl Lane {
    /// The row of the site is locked, so what it says is the newest there is. When more was known the server lost commits: it is a standby that was
    /// behind when it took over. Then numbers known to have been given are not given again, and no plan made before rests on them.
    fn go_on_behind(&self, counters: &mut Counters) {
        let known = *self.newest.borrow();
        if counters.vid < known {
            let lost = known - counters.vid;
            tracing::error!(
                lost,
                "the database lost acknowledged versions (a failover to a standby that was behind?): let the senders send again"
            );
            counters.vid = known + 1;
        }
    }
}

impl State {
    /// Why a job is not taken.
    fn put(&mut self, number: i32, job: Job, jobs_max: usize) -> Option<&'static str> {
        if self.closed {
            return Some("the store is closed");
        }
        let Some(queue) = self.queues.get_mut(&number) else { return Some("the site is closed") };
        if queue.jobs.len() >= jobs_max {
            return Some("too many jobs wait to be written");
        }
        queue.jobs.push_back(job);
        if !queue.busy && queue.jobs.len() == 1 {
            self.ready.push_back(number);
        }
        None
    }

    /// What waits for the next site, within the limits of a batch.
    fn take(&mut self, jobs_max: usize, bytes_max: usize) -> Option<(Arc<Lane>, Vec<Job>, usize)> {
        let number = self.ready.pop_front()?;
        let queue = self.queues.get_mut(&number)?;
        queue.busy = true;
        let (mut jobs, mut bytes) = (Vec::new(), 0);
        while jobs.len() < jobs_max && bytes < bytes_max {
            let Some(job) = queue.jobs.pop_front() else { break };
            bytes += job.bytes;
            jobs.push(job);
        }
        Some((queue.lane.clone(), jobs, bytes))
    }

    fn done(&mut self, number: i32) {
        if let Some(queue) = self.queues.get_mut(&number) {
            queue.busy = false;
            if !queue.jobs.is_empty() {
                self.ready.push_back(number);
            }
        }
    }
}

impl Shared {
    /// Refuses before the disk of the edge (its blobs, its log) is full.
    fn room(&self) -> Result<(), Error> {
        if free_bytes(&self.config.data_dir) >= self.config.free_bytes_min {
            return Ok(());
        }
        let reason = "the disk is nearly full";
        self.gate.close(ErrorKind::Full, reason.to_owned());
        Err(Error { kind: ErrorKind::Full, ..Error::unavailable(reason) })
    }
}

struct Committer {
    shared: Arc<Shared>,
    connection: Option<Connection>,
    /// Number of the site it works for just now.
    serves: Option<i32>,
}

/// Why a transaction did not commit, and what is to be done.
struct Failed {
    error: Error,
    /// One of several jobs may be at fault: they are run one by one.
    is_of_one_job: bool,
}

impl Committer {
    /// Runs until the queues are closed, and begins again after a panic: what was being written is not acknowledged, and the site is served on.
    fn go_on(mut self, duty: Duty) {
        while std::panic::catch_unwind(AssertUnwindSafe(|| self.run(&duty))).is_err() {
            self.connection = None;
            metrics::counter!("hilum_panics_total", "place" => "committer").increment(1);
            let reason = "a committer panicked; it begins again";
            self.shared.gate.close(ErrorKind::Unavailable, reason.to_owned());
            self.served();
        }
        duty.end();
    }

    /// Another committer may work for the site.
    fn served(&mut self) {
        if let Some(site) = self.serves.take() {
            self.shared.state.lock().done(site);
            self.shared.wake.notify_one();
        }
    }

    fn run(&mut self, duty: &Duty) {
        loop {
            duty.rest();
            let mut state = self.shared.state.lock();
            let batch = state.take(self.shared.config.batch_jobs_max, self.shared.config.batch_bytes_max);
            let Some((lane, jobs, bytes)) = batch else {
                if state.closed {
                    return;
                }
                let idle = self.shared.wake.wait_for(&mut state, TICK).timed_out();
                drop(state);
                if idle {
                    self.recover();
                }
                continue;
            };
            self.serves = Some(lane.number);
            drop(state);
            duty.begin();
            self.shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.batch(&lane, jobs);
            self.served();
        }
    }

    fn batch(&mut self, lane: &Lane, mut jobs: Vec<Job>) {
        if let Err(error) = self.shared.room() {
            let (kept, refused) = jobs.into_iter().partition(|job| job.is_upkeep);
            jobs = kept;
            refused.into_iter().for_each(|job: Job| job.answer(Err(&error)));
            if jobs.is_empty() {
                return;
            }
        }
        let committed = match self.connected() {
            Ok(connection) => self.transact(connection, lane, &mut jobs),
            Err(error) => Err(Failed { error, is_of_one_job: false }),
        };
        match committed {
            Ok(newest) => {
                lane.reached(newest);
                if self.shared.gate.health() != Health::Accepting && self.shared.room().is_ok() {
                    self.shared.gate.open();
                }
                metrics::counter!("hilum_store_commits_total").increment(1);
                jobs.into_iter().for_each(|job| job.answer(Ok(())));
            }
            Err(failed) if failed.is_of_one_job && jobs.len() > 1 => {
                tracing::debug!(error = %failed.error, jobs = jobs.len(), "the jobs of a batch are run one by one");
                jobs.into_iter().for_each(|job| self.batch(lane, vec![job]));
            }
            Err(failed) => {
                if !failed.is_of_one_job {
                    let cause = Cause::in_error(&failed.error).map(|c| format!(" ({c})")).unwrap_or_default();
                    let reason = format!("a write failed: {}{cause}", failed.error.message);
                    self.connection = None;
                    self.shared.gate.close(failed.error.kind, reason);
                }
                jobs.into_iter().for_each(|job| job.answer(Err(&failed.error)));
            }
        }
    }

    /// The connection to write with, taken out: it is put back only when it is known to be sound.
    fn connected(&mut self) -> Result<Connection, Error> {
        match self.connection.take().filter(Connection::is_usable) {
            Some(connection) => Ok(connection),
            None => self.shared.place.connect_to_write(),
        }
    }

    /// One transaction for all jobs. Returns the feed position reached.
    fn transact(&mut self, connection: Connection, lane: &Lane, jobs: &mut [Job]) -> Result<u64, Failed> {
        let asks = jobs.iter().flat_map(|job| &job.asks);
        let (session, mut counters) = Session::writing(connection, lane.number, asks).map_err(|failed| {
            let (connection, error) = *failed;
            self.connection = Some(connection);
            self.fault(error)
        })?;
        lane.go_on_behind(&mut counters);
        for job in &mut *jobs {
            let before = counters;
            let ran = job.run(&session, &mut counters);
            let Err(error) = ran else {
                session.keep_job();
                continue;
            };
            if let Some(cause) = Cause::in_error(error) {
                // perhaps of a statement that a neighbour sent: all is undone
                let failed = Failed { error: copy(error), is_of_one_job: cause.is_of_one_job() };
                self.connection = Some(session.roll_back());
                return Err(failed);
            }
            counters = before;
            session.undo_job();
        }
        let (connection, committed) = session.commit(&counters);
        self.connection = Some(connection);
        committed.map(|()| counters.vid).map_err(|error| self.fault(error))
    }

    fn fault(&self, error: Error) -> Failed {
        let is_of_one_job = Cause::in_error(&error).is_some_and(Cause::is_of_one_job);
        Failed { error, is_of_one_job }
    }

    /// While nothing comes in: connects again and opens the gate when the server takes writes.
    fn recover(&mut self) {
        if self.shared.gate.health() == Health::Accepting || self.shared.room().is_err() {
            return;
        }
        let probed =
            self.connected().and_then(|connection| connection.batch("SELECT 1").map(|()| connection));
        match probed {
            Ok(connection) => {
                self.connection = Some(connection);
                self.shared.gate.open();
            }
            Err(error) => self.shared.gate.close(error.kind, format!("the probe failed: {}", error.message)),
        }
    }
}

#[cfg(test)]
mod tests;

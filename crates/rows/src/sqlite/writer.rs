//! The writer of one site: a thread that owns the only writing connection.
//!
//! Natural group commit: it blocks for one job, drains what is waiting, runs all in one transaction and answers all after the commit. While one
//! sync runs the next batch forms. A job that fails is rolled back to its savepoint; its neighbours go on. After an error of the disk every
//! job of the batch fails, the connection is thrown away and the gate closes until a probe with new handles succeeds: a failed
//! sync is never retried and then acknowledged. Every job hears why it failed, also one that was never begun.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::watch;

use super::checkpoint::Checkpoints;
use super::rows::{counters, set_counters};
use crate::folder::{free_bytes, probe};
use crate::gate::{Duty, Gate};
use crate::jobs::{Job, copy};
use crate::row::Counters;
use crate::{Config, Error, ErrorKind, Health};

const STATEMENTS_MAX: usize = 128;
const TICK: Duration = Duration::from_secs(1);
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// Pages of the write-ahead log (4 KiB each) after which the log is carried over: 256 MiB. By a thread of its own (`checkpoint.rs`); in a commit only
/// where there is none, in a migration or `fsck`.
const CHECKPOINT_PAGES: u32 = 65_536;

/// The handle of a site's writer.
pub(crate) struct Writer {
    jobs: Mutex<Option<SyncSender<Job>>>,
    waiting_bytes: Arc<AtomicUsize>,
    queue_bytes_max: usize,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(
        site: &str,
        path: PathBuf,
        mut connection: Connection,
        counters: Counters,
        config: &Config,
        gate: Arc<Gate>,
        newest: watch::Sender<u64>,
    ) -> Result<Self, Error> {
        let (jobs, waiting) = sync_channel(config.queue_jobs_max);
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let checkpoints = Checkpoints::start(site, &path, &gate)?;
        checkpoints.serve(&mut connection, CHECKPOINT_PAGES)?;
        let name = format!("writer-{site}");
        let duty = gate.watch(&name);
        let thread = Thread {
            path,
            connection: Some(connection),
            checkpoints,
            counters,
            config: config.clone(),
            gate,
            newest,
            waiting,
            waiting_bytes: waiting_bytes.clone(),
            probed: None,
        };
        let thread = std::thread::Builder::new().name(name).spawn(move || thread.go_on(duty))?;
        Ok(Self {
            jobs: Mutex::new(Some(jobs)),
            waiting_bytes,
            queue_bytes_max: config.queue_bytes_max,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Puts a job into the queue.
    ///
    /// # Errors
    /// `Unavailable` when the queue is full.
    pub(crate) fn send(&self, job: Job) -> Result<(), Error> {
        let bytes = job.bytes;
        if self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > self.queue_bytes_max {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Error::unavailable("too many bytes wait to be written"));
        }
        let jobs = self.jobs.lock().clone().ok_or_else(|| Error::unavailable("the store is closed"))?;
        jobs.try_send(job).map_err(|error| {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            Error::unavailable(match error {
                TrySendError::Full(_) => "too many jobs wait to be written",
                TrySendError::Disconnected(_) => "the writer stopped",
            })
        })
    }

    /// Lets the queue run empty and ends the thread. Blocks.
    pub(crate) fn close(&self) {
        drop(self.jobs.lock().take());
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

struct Thread {
    path: PathBuf,
    connection: Option<Connection>,
    checkpoints: Checkpoints,
    counters: Counters,
    config: Config,
    gate: Arc<Gate>,
    newest: watch::Sender<u64>,
    waiting: Receiver<Job>,
    waiting_bytes: Arc<AtomicUsize>,
    probed: Option<Instant>,
}

impl Thread {
    /// Runs until the queue is closed, and begins again after a panic: what was being written is not acknowledged, and the gate is closed
    /// until a probe with new handles succeeds.
    fn go_on(mut self, duty: Duty) {
        while std::panic::catch_unwind(AssertUnwindSafe(|| self.run(&duty))).is_err() {
            self.connection = None;
            self.probed = Some(Instant::now());
            metrics::counter!("hilum_panics_total", "place" => "writer").increment(1);
            self.gate.close(ErrorKind::Unavailable, "the writer panicked; it begins again".to_owned());
        }
        // the connection holds a way to wake the thread
        let connection = self.connection.take().map(|mut connection| {
            let _ = connection.wal_hook(None::<fn(&mut Wal, i32) -> rusqlite::Result<()>>);
            connection
        });
        self.checkpoints.close();
        if let Some(connection) = connection {
            let _ = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE);");
        }
        duty.end();
    }

    fn run(&mut self, duty: &Duty) {
        loop {
            duty.rest();
            let received = self.waiting.recv_timeout(TICK);
            duty.begin();
            match received {
                Ok(job) => self.batch(job),
                Err(RecvTimeoutError::Timeout) => self.recover(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn batch(&mut self, first: Job) {
        let mut bytes = first.bytes;
        let mut jobs = vec![first];
        while jobs.len() < self.config.batch_jobs_max && bytes < self.config.batch_bytes_max {
            let Ok(job) = self.waiting.try_recv() else { break };
            bytes += job.bytes;
            jobs.push(job);
        }
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        if let Err(error) = self.usable() {
            tracing::debug!(%error, "jobs refused");
            let (kept, refused) =
                jobs.into_iter().partition(|job| job.is_upkeep && self.connection.is_some());
            jobs = kept;
            refused.into_iter().for_each(|job: Job| job.answer(Err(&error)));
        }
        let Some(connection) = self.connection.take_if(|_| !jobs.is_empty()) else { return };
        let before = self.counters;
        let committed = transact(&connection, &mut self.counters, &mut jobs);
        match &committed {
            Ok(()) => {
                self.connection = Some(connection);
                self.newest.send_if_modified(|newest| {
                    std::mem::replace(newest, self.counters.vid) != self.counters.vid
                });
                metrics::counter!("hilum_store_commits_total").increment(1);
            }
            Err(error) => {
                // the handle is not used again; its outcome is unknown to us and known to nobody
                drop(connection);
                self.counters = before;
                self.gate.close(error.kind, format!("a write failed: {}", error.message));
                self.probed = Some(Instant::now());
            }
        }
        for job in jobs {
            job.answer(committed.as_ref().copied());
        }
    }

    /// Refuses before the disk does, so that reads, delivery and logs can still write.
    fn usable(&mut self) -> Result<(), Error> {
        if self.connection.is_none() {
            self.recover();
        }
        if self.connection.is_none() {
            self.gate.accepting()?;
            return Err(Error::unavailable("the store takes no writes"));
        }
        if self.is_due(TICK) {
            if free_bytes(self.folder()) < self.config.free_bytes_min {
                self.gate.close(ErrorKind::Full, "the disk is nearly full".to_owned());
            } else {
                self.gate.open();
            }
        }
        self.gate.accepting()
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// Whether the latest look at the disk is so long ago; notes that there is another one now.
    fn is_due(&mut self, every: Duration) -> bool {
        let due = self.probed.is_none_or(|at| at.elapsed() >= every);
        if due {
            self.probed = Some(Instant::now());
        }
        due
    }

    /// While nothing comes in: reopens after a failure, watches the disk.
    fn recover(&mut self) {
        if self.connection.is_some() {
            if self.gate.health() != Health::Accepting
                && free_bytes(self.folder()) >= self.config.free_bytes_min
            {
                self.gate.open();
            }
            return;
        }
        if !self.is_due(PROBE_EVERY) {
            return;
        }
        let reopened = probe(self.folder()).and_then(|()| {
            let mut connection = open(&self.path, self.config.cache_bytes)?;
            self.checkpoints.serve(&mut connection, CHECKPOINT_PAGES)?;
            self.counters = counters(&connection)?;
            Ok(connection)
        });
        match reopened {
            Ok(connection) => {
                self.connection = Some(connection);
                self.gate.open();
            }
            Err(error) => self.gate.close(error.kind, format!("the probe failed: {}", error.message)),
        }
    }
}

/// One transaction for all jobs. Each job has a savepoint of its own. An error of the disk ends the whole batch.
fn transact(connection: &Connection, counters: &mut Counters, jobs: &mut [Job]) -> Result<(), Error> {
    let begun = connection.execute_batch("BEGIN IMMEDIATE");
    let done = begun.map_err(Error::from).and_then(|()| {
        let before = *counters;
        for job in jobs {
            run(connection, counters, job)?;
        }
        set_counters(connection, before, *counters)?;
        Ok(connection.execute_batch("COMMIT")?)
    });
    if done.is_err() {
        let _ = connection.execute_batch("ROLLBACK");
    }
    done
}

fn run(connection: &Connection, counters: &mut Counters, job: &mut Job) -> Result<(), Error> {
    connection.prepare_cached("SAVEPOINT job")?.execute([])?;
    let before = *counters;
    match job.run(connection, counters) {
        Ok(()) => drop(connection.prepare_cached("RELEASE job")?.execute([])?),
        Err(error) if breaks(error) => return Err(copy(error)),
        Err(_) => {
            *counters = before;
            connection.execute_batch("ROLLBACK TO job; RELEASE job")?;
        }
    }
    Ok(())
}

/// Whether an error means that the disk or the file cannot be trusted any more.
fn breaks(error: &Error) -> bool {
    let cause = error.source.as_ref().and_then(|source| source.downcast_ref::<rusqlite::Error>());
    matches!(
        cause.and_then(rusqlite::Error::sqlite_error_code),
        Some(
            ErrorCode::DiskFull
                | ErrorCode::SystemIoFailure
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::ReadOnly
                | ErrorCode::CannotOpen
                | ErrorCode::NotADatabase
                | ErrorCode::OutOfMemory
        )
    )
}

/// Opens the writing connection: write-ahead log, every commit synced.
pub(super) fn open(path: &Path, cache_bytes: u64) -> Result<Connection, Error> {
    let connection = Connection::open(path)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    keep_plans(&connection)?;
    let cache_kib = cache_bytes / 1024;
    connection.execute_batch(&format!(
        "PRAGMA page_size=4096; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=10000;
         PRAGMA cache_size=-{cache_kib}; PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}; PRAGMA temp_store=MEMORY;"
    ))?;
    Ok(connection)
}

/// Keeps the plan of a prepared statement whatever is bound to it; else SQLite parses a statement with `LIMIT ?` again each time.
pub(super) fn keep_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::face::Tx;
    use crate::gate::Gates;

    /// Its drop panics: the answer of a job that nobody waits for does that in the writer, after the commit.
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a test of the writer");
        }
    }

    #[tokio::test]
    async fn a_writer_that_panicked_closes_its_gate_and_begins_again() {
        let dir = tempfile::tempdir().unwrap();
        let (config, gate) = (Config::of_test(dir.path()), Gates::default().gate("site a"));
        let (file, ..) =
            super::super::SiteFile::open(&config, "a", dir.path(), &TimeZone::UTC, gate.clone()).unwrap();
        let (bomb, nobody) = Job::new(1, |_, _| Ok(Bomb));
        drop(nobody);
        file.writer.send(bomb).unwrap();
        for _ in 0..2_000 {
            if gate.accepting().is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(gate.accepting().unwrap_err().message.contains("panicked"));
        for _ in 0..2_000 {
            let (job, answered) = Job::new(1, |_, _| Ok(7));
            file.writer.send(job).unwrap();
            if answered.await.is_ok_and(|done| done.is_ok_and(|seven| seven == 7)) {
                file.writer.close();
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it never wrote again");
    }

    /// A job behind one that breaks the connection is never begun, and hears the same as those before it.
    #[test]
    fn all_jobs_of_a_failed_batch_hear_the_error_of_the_disk() {
        let connection = Connection::open_in_memory().unwrap();
        let zone = jiff::tz::TimeZone::UTC;
        super::super::migrate::migrate(&connection, "north", &zone).unwrap();
        let mut counters = counters(&connection).unwrap();
        connection.execute_batch("PRAGMA query_only=ON").unwrap();
        let put = |tx: &dyn Tx, _: &mut Counters| tx.set_published("1.2", 0, None).map(|()| 0);
        let (mut jobs, answers): (Vec<Job>, Vec<_>) =
            [Job::new(1, |_, _| Ok(0)), Job::new(1, put), Job::new(1, put)].into_iter().unzip();
        let failed = transact(&connection, &mut counters, &mut jobs).unwrap_err();
        jobs.into_iter().for_each(|job| job.answer(Err(&failed)));
        for mut answer in answers {
            let error = answer.try_recv().expect("every job is answered").unwrap_err();
            assert_eq!((error.kind, error.message), (ErrorKind::Unavailable, failed.message.clone()));
        }
    }
}

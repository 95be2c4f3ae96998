//! The writer of one site: a thread that owns the only writing connection.
//!
//! Natural group commit: it blocks for one job, drains what is waiting, runs all in one transaction and answers all after the commit. While one
//! sync runs the next batch forms. A job that fails is rolled back to its savepoint; its neighbours go on. After an error of the disk every
//! job of the batch fails, the connection is thrown away and the gate closes until a probe with new handles succeeds: a failed
//! sync is never retried and then acknowledged.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{oneshot, watch};

use super::apply::{Apply, Counters, SiteContext};
use crate::{Config, Error, ErrorKind, Health};

const STATEMENTS_MAX: usize = 128;
const TICK: Duration = Duration::from_secs(1);
const PROBE_EVERY: Duration = Duration::from_secs(5);
/// Pages of the write-ahead log (4 KiB each) after which the log is carried over: 256 MiB.
const CHECKPOINT_PAGES: u32 = 65_536;

/// Whether an edge takes writes; shared by all its sites.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    closed: Mutex<Option<String>>,
}

impl Gate {
    pub(crate) fn health(&self) -> Health {
        self.closed.lock().clone().map_or(Health::Accepting, Health::NotAccepting)
    }

    fn close(&self, reason: &str) {
        let mut closed = self.closed.lock();
        if closed.is_none() {
            metrics::gauge!("hilum_store_not_accepting").set(1.0);
            tracing::error!(reason, "the store takes no writes");
        }
        *closed = Some(reason.to_owned());
    }

    fn open(&self) {
        if self.closed.lock().take().is_some() {
            metrics::gauge!("hilum_store_not_accepting").set(0.0);
            tracing::info!("the store takes writes again");
        }
    }
}

/// Runs after the commit (or its failure) and answers the caller.
type Finish = Box<dyn FnOnce(Result<(), Error>) + Send>;
/// Runs inside the transaction; false = roll this job back.
type Work = Box<dyn FnOnce(&mut Apply<'_>) -> (bool, Finish) + Send>;

struct Job {
    work: Work,
    bytes: usize,
}

/// The handle of a site's writer.
pub(crate) struct Writer {
    jobs: Mutex<Option<SyncSender<Job>>>,
    waiting_bytes: Arc<AtomicUsize>,
    queue_bytes_max: usize,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Writer {
    #[expect(clippy::too_many_arguments, reason = "called once, by the opening of a site")]
    pub(super) fn start(
        site: &str,
        path: PathBuf,
        connection: Connection,
        counters: Counters,
        context: SiteContext,
        config: &Config,
        gate: Arc<Gate>,
        newest: watch::Sender<u64>,
    ) -> Result<Self, Error> {
        let (jobs, waiting) = sync_channel(config.queue_jobs_max);
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let thread = Thread {
            path,
            connection: Some(connection),
            counters,
            context,
            config: config.clone(),
            gate,
            newest,
            waiting,
            waiting_bytes: waiting_bytes.clone(),
            probed: Instant::now(),
        };
        let thread =
            std::thread::Builder::new().name(format!("writer-{site}")).spawn(move || thread.run())?;
        Ok(Self {
            jobs: Mutex::new(Some(jobs)),
            waiting_bytes,
            queue_bytes_max: config.queue_bytes_max,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Runs `work` in the next transaction; returns after the commit is durable.
    ///
    /// # Errors
    /// What `work` returned; `Unavailable` or `Full` when the queue is full or the commit failed.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce(&mut Apply<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let work: Work = Box::new(move |apply| {
            let done = work(apply);
            let kept = done.is_ok();
            let finish: Finish = Box::new(move |committed| {
                let _ = answer.send(match (done, committed) {
                    (Ok(value), Ok(())) => Ok(value),
                    (Ok(_), Err(error)) | (Err(error), _) => Err(error),
                });
            });
            (kept, finish)
        });
        self.send(Job { work, bytes })?;
        answered.await.map_err(|_| Error::unavailable("the writer stopped"))?
    }

    fn send(&self, job: Job) -> Result<(), Error> {
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
    counters: Counters,
    context: SiteContext,
    config: Config,
    gate: Arc<Gate>,
    newest: watch::Sender<u64>,
    waiting: Receiver<Job>,
    waiting_bytes: Arc<AtomicUsize>,
    probed: Instant,
}

impl Thread {
    fn run(mut self) {
        loop {
            match self.waiting.recv_timeout(TICK) {
                Ok(job) => self.batch(job),
                Err(RecvTimeoutError::Timeout) => self.recover(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if let Some(connection) = self.connection {
            let _ = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE);");
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
            return refuse(jobs, &error);
        }
        let Some(connection) = self.connection.take() else {
            return refuse(jobs, &Error::unavailable("the store takes no writes"));
        };
        let before = self.counters;
        let mut finishes = Vec::with_capacity(jobs.len());
        let committed = transact(&connection, &mut self.counters, &self.context, jobs, &mut finishes);
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
                self.gate.close(&format!("a write failed: {}", error.message));
                self.probed = Instant::now();
            }
        }
        for finish in finishes {
            finish(committed.as_ref().copied().map_err(copy));
        }
    }

    /// Refuses before the disk does, so that reads, delivery and logs can still write.
    fn usable(&mut self) -> Result<(), Error> {
        if self.connection.is_none() {
            self.recover();
        }
        if self.connection.is_none() {
            return Err(Error::unavailable("the store takes no writes"));
        }
        if self.probed.elapsed() >= TICK {
            self.probed = Instant::now();
            if free_bytes(&self.path) < self.config.free_bytes_min {
                self.gate.close("the disk is nearly full");
                return Err(Error { kind: ErrorKind::Full, ..Error::unavailable("the disk is nearly full") });
            }
            self.gate.open();
        }
        Ok(())
    }

    /// While nothing comes in: reopens after a failure, watches the disk.
    fn recover(&mut self) {
        if self.connection.is_some() {
            if self.gate.health() != Health::Accepting && free_bytes(&self.path) >= self.config.free_bytes_min
            {
                self.gate.open();
            }
            return;
        }
        if self.probed.elapsed() < PROBE_EVERY {
            return;
        }
        self.probed = Instant::now();
        let reopened = probe(self.path.parent().unwrap_or(Path::new("."))).and_then(|()| {
            let connection = open(&self.path, self.config.cache_bytes)?;
            self.counters = Counters::read(&connection)?;
            Ok(connection)
        });
        match reopened {
            Ok(connection) => {
                self.connection = Some(connection);
                self.gate.open();
            }
            Err(error) => self.gate.close(&format!("the probe failed: {}", error.message)),
        }
    }
}

/// One transaction for all jobs. Each job has a savepoint of its own. An error of the disk ends the whole batch.
fn transact(
    connection: &Connection,
    counters: &mut Counters,
    context: &SiteContext,
    jobs: Vec<Job>,
    finishes: &mut Vec<Finish>,
) -> Result<(), Error> {
    let mut jobs = jobs.into_iter();
    let begun = connection.execute_batch("BEGIN IMMEDIATE");
    let done = begun.map_err(Error::from).and_then(|()| {
        for job in jobs.by_ref() {
            run(connection, counters, context, job, finishes)?;
        }
        Ok(connection.execute_batch("COMMIT")?)
    });
    if done.is_err() {
        let _ = connection.execute_batch("ROLLBACK");
        finishes.extend(jobs.map(|job| -> Finish { Box::new(move |_| drop(job)) }));
    }
    done
}

fn run(
    connection: &Connection,
    counters: &mut Counters,
    context: &SiteContext,
    job: Job,
    finishes: &mut Vec<Finish>,
) -> Result<(), Error> {
    connection.prepare_cached("SAVEPOINT job")?.execute([])?;
    let before = *counters;
    let mut apply = Apply::new(connection, counters, context);
    // a bug in one job must not take the writer with it
    let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (job.work)(&mut apply)));
    let broken = apply.broken.take();
    let kept = match ran {
        Ok((kept, finish)) => {
            finishes.push(finish);
            kept
        }
        Err(_) => {
            metrics::counter!("hilum_panics_total", "place" => "store").increment(1);
            tracing::error!("a write panicked and was rolled back");
            false
        }
    };
    if let Some(error) = broken {
        return Err(error);
    }
    if kept {
        connection.prepare_cached("RELEASE job")?.execute([])?;
    } else {
        *counters = before;
        connection.execute_batch("ROLLBACK TO job; RELEASE job")?;
    }
    Ok(())
}

fn refuse(jobs: Vec<Job>, error: &Error) {
    // dropping a job closes its answer channel; its caller hears that the writer stopped, which is ours and to be sent again
    tracing::debug!(jobs = jobs.len(), %error, "jobs refused");
    drop(jobs);
}

fn copy(error: &Error) -> Error {
    Error { kind: error.kind, message: error.message.clone(), issues: error.issues.clone(), source: None }
}

/// Whether an error of SQLite means that the disk or the file cannot be trusted any more.
pub(super) fn breaks(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
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
    super::keep_plans(&connection)?;
    let cache_kib = cache_bytes / 1024;
    connection.execute_batch(&format!(
        "PRAGMA page_size=4096; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA busy_timeout=10000;
         PRAGMA cache_size=-{cache_kib}; PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}; PRAGMA temp_store=MEMORY;"
    ))?;
    Ok(connection)
}

/// Writes, syncs, reads back and removes a file with handles of its own.
pub(crate) fn probe(dir: &Path) -> Result<(), Error> {
    let path = dir.join(".probe");
    let probed = (|| {
        let mut file = std::fs::File::create(&path)?;
        file.write_all(b"hilum")?;
        file.sync_all()?;
        drop(file);
        if std::fs::read(&path)? == b"hilum" {
            Ok(())
        } else {
            Err(std::io::Error::other("read back differs"))
        }
    })();
    let _ = std::fs::remove_file(&path);
    probed.map_err(Error::from)
}

fn free_bytes(path: &Path) -> u64 {
    fs4::available_space(path.parent().unwrap_or(Path::new("."))).unwrap_or(u64::MAX)
}

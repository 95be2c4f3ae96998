//! Jobs: what callers want written, each with the caller who waits for it.
//!
//! A writer runs many jobs in one transaction and answers all of them after the commit. A job can be run again (its transaction may
//! have been rolled back because of a neighbour), and every job is answered, also one that was never begun.

use tokio::sync::oneshot;

use crate::Error;
use crate::face::Tx;
use crate::row::{Ask, Counters};

/// A piece of work for the writer of a site.
pub struct Job {
    task: Box<dyn Task>,
    /// Bytes it adds to a batch.
    pub bytes: usize,
    /// What it will read.
    pub asks: Vec<Ask>,
    /// Goes on while the disk is nearly full: deliveries, and what makes room.
    pub is_upkeep: bool,
}

/// What a writer does with a job, without knowing what it is about.
trait Task: Send {
    fn run(&mut self, tx: &dyn Tx, counters: &mut Counters);
    fn failure(&self) -> Option<&Error>;
    fn answer(self: Box<Self>, committed: Result<(), Error>);
}

struct Asked<T, W> {
    work: W,
    done: Option<Result<T, Error>>,
    answer: oneshot::Sender<Result<T, Error>>,
}

impl Job {
    /// A job and where its answer arrives. `work` runs inside the transaction, more than once if need be; it takes numbers by counting the
    /// counters up.
    pub fn new<T: Send + 'static>(
        bytes: usize,
        work: impl Fn(&dyn Tx, &mut Counters) -> Result<T, Error> + Send + 'static,
    ) -> (Self, oneshot::Receiver<Result<T, Error>>) {
        let (answer, answered) = oneshot::channel();
        let task = Box::new(Asked { work, done: None, answer });
        (Self { task, bytes, asks: Vec::new(), is_upkeep: false }, answered)
    }

    /// Runs it inside a transaction; the error is why it has to be rolled back.
    pub(crate) fn run(&mut self, tx: &dyn Tx, counters: &mut Counters) -> Result<(), &Error> {
        self.task.run(tx, counters);
        self.task.failure().map_or(Ok(()), Err)
    }

    /// Answers it after the commit, or with the error why there is none.
    pub(crate) fn answer(self, committed: Result<(), &Error>) {
        self.task.answer(committed.map_err(copy));
    }
}

impl<T, W> Task for Asked<T, W>
where
    T: Send,
    W: Fn(&dyn Tx, &mut Counters) -> Result<T, Error> + Send,
{
    fn run(&mut self, tx: &dyn Tx, counters: &mut Counters) {
        // a bug in one job must not take the writer with it
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (self.work)(tx, counters)));
        self.done = Some(ran.unwrap_or_else(|_| {
            metrics::counter!("hilum_panics_total", "place" => "store").increment(1);
            tracing::error!("a write panicked and was rolled back");
            Err(broken_off())
        }));
    }

    fn failure(&self) -> Option<&Error> {
        self.done.as_ref().and_then(|done| done.as_ref().err())
    }

    fn answer(self: Box<Self>, committed: Result<(), Error>) {
        let Self { work, done, answer } = *self;
        // before the caller goes on: what it shares with the work is then freed on the caller's thread, which made it
        drop(work);
        let _ = answer.send(match (done, committed) {
            (Some(Ok(value)), Ok(())) => Ok(value),
            (Some(Err(error)), _) | (_, Err(error)) => Err(error),
            (None, Ok(())) => Err(broken_off()),
        });
    }
}

/// A job whose answer was lost: its work panicked, or the thread is gone.
pub fn broken_off() -> Error {
    Error::unavailable("the write broke off")
}

pub(crate) fn copy(error: &Error) -> Error {
    Error { kind: error.kind, message: error.message.clone(), issues: error.issues.clone(), source: None }
}

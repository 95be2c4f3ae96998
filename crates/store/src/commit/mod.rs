//! What peers sent becomes rows: planned outside the transaction, checked and written inside it.
//!
//! `plan` says what the changes of a submission come to; `apply` is a job's hand inside the transaction and writes versions, index rows and
//! the submission; `imaging` writes studies and draws their ImagingStudy; `submission` packs originals and tells them again.

pub(crate) mod apply;
mod imaging;
pub(crate) mod plan;
pub(crate) mod submission;

use hilum_rows::row::Ask;
use hilum_rows::{Job, broken_off};
use tokio::sync::oneshot;

use crate::Error;
use crate::commit::apply::{Apply, SiteContext};
use crate::engine::SiteDb;

impl SiteDb {
    /// Runs `work` in the next transaction; returns after the commit is durable.
    ///
    /// # Errors
    /// What `work` returned; `Unavailable` or `Full` when the queue is full or the commit failed.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl Fn(&mut Apply<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.write_asking(bytes, Vec::new(), work).await
    }

    /// As [`SiteDb::write`]; `asks` are the reads that `work` will do.
    pub(crate) async fn write_asking<T: Send + 'static>(
        &self,
        bytes: usize,
        asks: Vec<Ask>,
        work: impl Fn(&mut Apply<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (mut job, answered) = self.job(bytes, work);
        job.asks = asks;
        self.send(job)?;
        answered.await.map_err(|_| broken_off())?
    }

    /// As [`SiteDb::write`], for what must go on while the disk is nearly full.
    pub(crate) async fn upkeep<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl Fn(&mut Apply<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (mut job, answered) = self.job(bytes, work);
        job.is_upkeep = true;
        self.send(job)?;
        answered.await.map_err(|_| broken_off())?
    }

    fn job<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl Fn(&mut Apply<'_>) -> Result<T, Error> + Send + 'static,
    ) -> (Job, oneshot::Receiver<Result<T, Error>>) {
        let context = SiteContext { zone: self.zone.clone() };
        Job::new(bytes, move |db, counters| work(&mut Apply::new(db, counters, &context)))
    }
}

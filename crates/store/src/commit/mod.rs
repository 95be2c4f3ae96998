//! What peers sent becomes rows: planned outside the transaction, checked and written inside it.
//!
//! `plan` says what the changes of a submission come to; `apply` is a job's hand inside the transaction and writes versions, index rows and
//! the submission; `destination` keeps beside a Subscription who asked for it and how far it is served; `recent` knows what the last commits
//! touched; `imaging` writes studies and draws their ImagingStudy; `submission` packs originals and tells them again.

pub(crate) mod apply;
mod destination;
pub(crate) mod imaging;
pub(crate) mod plan;
pub(crate) mod recent;
pub(crate) mod submission;

use std::sync::Arc;

use hilum_rows::row::Ask;
use hilum_rows::{Job, broken_off};
use tokio::sync::oneshot;

use crate::Error;
use crate::commit::apply::{Apply, SiteContext};
use crate::commit::plan::{Executed, Plan, Speaker, planner};
use crate::commit::submission::{Packed, Verdict};
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

    /// As [`SiteDb::upkeep`], for what is written about destinations: refused when another edge delivers to one of them.
    ///
    /// # Errors
    /// As [`SiteDb::write`]; `Unavailable` when another edge delivers.
    pub(crate) async fn upkeep_of<T: Send + 'static>(
        self: &Arc<Self>,
        destinations: Vec<String>,
        bytes: usize,
        work: impl Fn(&mut Apply<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let epochs = self.apart(|db| db.epochs(destinations)).await?;
        let asks = epochs.iter().map(|(destination, _)| Ask::Epoch(destination.clone())).collect();
        let (mut job, answered) = self.job(bytes, move |apply| {
            apply.db.check_deliverer(&epochs)?;
            work(apply)
        });
        (job.is_upkeep, job.asks) = (true, asks);
        self.send(job)?;
        answered.await.map_err(|_| broken_off())?
    }

    fn job<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl Fn(&mut Apply<'_>) -> Result<T, Error> + Send + 'static,
    ) -> (Job, oneshot::Receiver<Result<T, Error>>) {
        let context = SiteContext { zone: self.zone.clone(), recent: self.recent.clone() };
        Job::new(bytes, move |db, counters| work(&mut Apply::new(db, counters, &context)))
    }
}

/// A submission ready to be written.
pub(crate) struct Ready {
    pub(crate) packed: Packed,
    pub(crate) plan: Arc<Plan>,
    /// What the plan is made of, in case it has to be made again.
    pub(crate) changes: Vec<hilum_fhir::Change>,
    pub(crate) answer: crate::Answer,
}

/// What a commit did, before its answer is put together.
pub(crate) enum Applied {
    /// Committed before; the stored answer.
    Duplicate(u64, Option<Vec<u8>>),
    /// Written: the plan and what came of it.
    Written(Box<Done>),
}

/// A submission that was written.
pub(crate) struct Done {
    submission: u64,
    plan: Arc<Plan>,
    executed: Executed,
    answer: Option<bytes::Bytes>,
}

impl Applied {
    /// The commit as it is told.
    pub(crate) fn told(self) -> crate::Commit {
        match self {
            Self::Duplicate(submission, answer) => crate::Commit {
                submission,
                outcomes: Vec::new(),
                answer: answer.map(Into::into),
                duplicate: true,
                remarks: Vec::new(),
            },
            Self::Written(written) => crate::Commit {
                submission: written.submission,
                outcomes: plan::outcomes(&written.plan, &written.executed),
                answer: written.answer,
                duplicate: false,
                remarks: written.executed.remarks,
            },
        }
    }
}

impl Apply<'_> {
    /// Commits a submission: duplicate check, plan (made again when the world moved), versions, imaging rows, the submission's row.
    pub(crate) fn commit(&mut self, ready: &Ready) -> Result<Applied, Error> {
        let Ready { packed, plan, changes, answer } = ready;
        if let Some(key) = packed.control_key()
            && let Some((submission, answer)) = self.db.duplicate(key, &packed.original.sha256)?
        {
            return Ok(Applied::Duplicate(submission, answer));
        }
        self.check_blob(packed)?;
        let plan = if plan.holds(self)? {
            plan.clone()
        } else {
            let (zone, speaker) = (&self.context.zone, Speaker::of(&packed.original));
            Arc::new(planner::plan(self.db, zone, self.now, self.counters.vid, speaker, changes)?)
        };
        let submission = self.begin_submission();
        let executed = plan.execute(self)?;
        self.note_destinations(&plan, &executed, &packed.original)?;
        let answer = match (&answer.with_remarks, executed.remarks.is_empty()) {
            (Some(render), false) => {
                let issues: Vec<_> = executed.remarks.iter().map(|remark| remark.issue.clone()).collect();
                Some(render(&issues))
            }
            _ => answer.plain.clone(),
        };
        self.submission(packed, answer.as_deref(), Verdict::Accepted(&executed.remarks), &executed.targets)?;
        Ok(Applied::Written(Box::new(Done { submission, plan, executed, answer })))
    }

    /// Keeps a rejected submission; `kept` is the size of its original, when there is one.
    pub(crate) fn quarantine(
        &mut self,
        packed: &Packed,
        issues: &[hilum_fhir::Issue],
        answer: Option<&[u8]>,
        kept: Option<u64>,
    ) -> Result<u64, Error> {
        self.check_blob(packed)?;
        let submission = self.begin_submission();
        self.submission(packed, answer, Verdict::Rejected(issues), "")?;
        if let Some(bytes) = kept {
            self.db.keep_original(submission, packed.original.received.millis(), bytes)?;
        }
        Ok(submission)
    }
}

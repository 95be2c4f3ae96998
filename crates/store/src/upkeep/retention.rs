//! How long a site keeps what nothing refers to any more: originals of accepted submissions, superseded versions, and the submissions
//! themselves with their lineage and answer.
//!
//! Each is walked in the order it came in, from where the walk before ended, a small transaction at a time among those of the senders. What is
//! current is never touched: the current version of a resource, an image.

use hilum_fhir::Timestamp;
use hilum_rows::row::OldSubmission;

use super::quarantine::remove_unused;
use crate::commit::apply::Apply;
use crate::{Error, OriginalKind, Retention, Site, Store};

const DAY_MS: i64 = 86_400_000;
/// Blobs are looked through once in this time, and only those older are.
const SWEEP_EVERY_MS: i64 = DAY_MS;
/// Rows looked at in one transaction.
const BATCH: u32 = 200;
const ORIGINALS: &str = "retained_originals";
const SUBMISSIONS: &str = "retained_submissions";
const VERSIONS: &str = "retained_versions";
const BLOBS: &str = "swept_blobs";

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Originals of accepted submissions.
    pub originals: u64,
    /// Submissions.
    pub submissions: u64,
    /// Superseded versions.
    pub versions: u64,
    /// Blobs that no row names.
    pub blobs: u64,
}

/// What grows old.
#[derive(Clone, Copy)]
enum Old {
    Originals,
    Submissions,
    Versions,
}

/// What a batch removed, and whether there may be more.
#[derive(Clone, Copy)]
struct Batch {
    removed: u64,
    is_last: bool,
}

impl Store {
    /// Removes what at `now` is older than the site's [`Retention`], and once a day the blobs that no row names: their commit failed, or the
    /// process ended before it. Blobs left behind by what is removed here go with the next [`Store::forget_rejected`].
    ///
    /// # Errors
    /// `Unavailable`; what was removed before stays removed.
    pub async fn retain(&self, site: &Site, now: Timestamp) -> Result<Removed, Error> {
        let now = now.millis();
        let Retention { originals_days, submissions_days, versions_days } = site.settings().retention;
        Ok(Removed {
            originals: self.walk(site, now, originals_days, Old::Originals).await?,
            submissions: self.walk(site, now, submissions_days, Old::Submissions).await?,
            versions: self.walk(site, now, versions_days, Old::Versions).await?,
            blobs: self.sweep_blobs(site, now).await?,
        })
    }

    async fn sweep_blobs(&self, site: &Site, now: i64) -> Result<u64, Error> {
        let db = self.site_db(site)?;
        if now - db.apart(|db| db.read(|rows| rows.progress(BLOBS))).await? < SWEEP_EVERY_MS {
            return Ok(0);
        }
        let mut removed = 0;
        for fan in 0..=u8::MAX {
            for aged in db.blobs.aged(fan).await?.chunks(BATCH as usize) {
                removed += remove_unused(&db, aged.to_vec()).await?;
            }
        }
        db.upkeep(64, move |apply| apply.db.set_progress(BLOBS, now)).await?;
        Ok(removed)
    }

    /// Runs batches until nothing is old enough; 0 days = for ever.
    async fn walk(&self, site: &Site, now: i64, days: u32, what: Old) -> Result<u64, Error> {
        if days == 0 {
            return Ok(0);
        }
        let db = self.site_db(site)?;
        let before = now - i64::from(days) * DAY_MS;
        let mut removed = 0;
        loop {
            let batch = db.upkeep(1024, move |apply| apply.remove_old(what, before)).await?;
            removed += batch.removed;
            if batch.is_last {
                return Ok(removed);
            }
        }
    }
}

impl Apply<'_> {
    /// The next batch of what is older than `before` (ms since 1970).
    fn remove_old(&mut self, what: Old, before: i64) -> Result<Batch, Error> {
        match what {
            Old::Originals => self.remove_originals(before),
            Old::Submissions => self.remove_submissions(before),
            Old::Versions => self.remove_versions(before),
        }
    }

    /// Originals of accepted submissions received before `before`. Those of images are the images; those of rejected
    /// submissions have bounds of their own.
    fn remove_originals(&mut self, before: i64) -> Result<Batch, Error> {
        let rows = self.db.submissions_behind(self.db.progress(ORIGINALS)?, BATCH)?;
        let old = rows.iter().take_while(|row| row.received < before);
        let mut removed = 0;
        for row in old.clone().filter(|row| row.accepted && !is_image(row)) {
            self.db.remove_original(row.sequence)?;
            removed += 1;
        }
        let is_last = self.advance(ORIGINALS, old.map(|row| row.sequence))?;
        Ok(Batch { removed, is_last })
    }

    /// Submissions received before `before`, with their duplicate keys. Those of images stay as long as the image.
    fn remove_submissions(&mut self, before: i64) -> Result<Batch, Error> {
        let rows = self.db.submissions_behind(self.db.progress(SUBMISSIONS)?, BATCH)?;
        let old = rows.iter().take_while(|row| row.received < before);
        let mut removed = 0;
        for row in old.clone().filter(|row| !(row.accepted && is_image(row))) {
            self.db.remove_original(row.sequence)?;
            self.db.remove_submission(row.sequence)?;
            removed += 1;
        }
        let is_last = self.advance(SUBMISSIONS, old.map(|row| row.sequence))?;
        Ok(Batch { removed, is_last })
    }

    /// Versions that were superseded before `before`, unless a destination has not heard of them yet.
    fn remove_versions(&mut self, before: i64) -> Result<Batch, Error> {
        let delivered = self.db.delivered_to()?.unwrap_or(i64::MAX);
        let rows = self.db.versions_behind(self.db.progress(VERSIONS)?, BATCH)?;
        let old = rows.iter().take_while(|row| {
            row.last_updated / 1000 < before && row.predecessor.is_none_or(|vid| vid <= delivered)
        });
        let mut removed = 0;
        for row in old.clone().filter(|row| row.predecessor.is_some()) {
            self.db.remove_version(row.rid, row.version - 1)?;
            removed += 1;
        }
        let is_last = self.advance(VERSIONS, old.map(|row| row.vid))?;
        Ok(Batch { removed, is_last })
    }

    /// Notes how far a walk has come; whether that was all that is old.
    fn advance(&mut self, of: &str, old: impl Iterator<Item = i64>) -> Result<bool, Error> {
        let (count, last) = old.fold((0, None), |(count, _), at| (count + 1, Some(at)));
        if let Some(last) = last {
            self.db.set_progress(of, last)?;
        }
        Ok(count < BATCH)
    }
}

fn is_image(row: &OldSubmission) -> bool {
    row.has_blob && row.kind == OriginalKind::Dicom.number()
}

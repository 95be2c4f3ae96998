//! Rejected submissions are kept with their originals until there are too many or they are too old. Then the original goes, oldest first, a batch
//! at a time; the row with its issues and its answer stays.
//!
//! The original may be a blob that another submission refers to as well (an image refused first and taken later): it is noted as an orphan, and its
//! file is removed when nobody refers to it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::commit::apply::Apply;
use crate::engine::SiteDb;
use crate::{BlobId, Error, Site, Store};

const DAY_MS: i64 = 86_400_000;
/// Originals removed in one transaction.
const BATCH: u32 = 100;
/// What is claimed is removed within this time, or not at all.
const REMOVED_WITHIN: Duration = Duration::from_secs(300);
/// A claim holds so long: [`REMOVED_WITHIN`], and longer than a blob that was placed waits for its row.
const CLAIM_MS: i64 = 1_200_000;

/// What a batch removed.
#[derive(Clone, Copy, Debug)]
struct Forgotten {
    /// Originals removed; less than [`BATCH`] when that was all.
    removed: u32,
    /// Bytes of the originals still kept.
    kept_bytes: u64,
}

impl Store {
    /// Removes the originals of rejected submissions that are older than `quarantine_days_max`, and the oldest while more than
    /// `quarantine_bytes_max` bytes are kept, in small transactions; their rows with issues and answer stay. Returns how many were removed.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn forget_rejected(&self, site: &Site) -> Result<u64, Error> {
        let db = self.site_db(site)?;
        let bytes_max = db.config.quarantine_bytes_max;
        let days = i64::from(db.config.quarantine_days_max);
        let before = jiff::Timestamp::now().as_millisecond().saturating_sub(days.saturating_mul(DAY_MS));
        let mut removed = 0;
        loop {
            let batch = db.upkeep(1024, move |apply| apply.forget(before, bytes_max)).await?;
            removed += u64::from(batch.removed);
            metrics::counter!("hilum_quarantine_removed_total", "site" => site.id().to_owned())
                .increment(u64::from(batch.removed));
            #[expect(clippy::cast_precision_loss, reason = "a gauge is no account")]
            metrics::gauge!("hilum_quarantine_bytes", "site" => site.id().to_owned())
                .set(batch.kept_bytes as f64);
            if batch.removed < BATCH {
                break;
            }
        }
        sweep(&db).await?;
        Ok(removed)
    }
}

/// Removes blobs that nobody refers to any more, and what a crash left of them.
async fn sweep(db: &Arc<SiteDb>) -> Result<(), Error> {
    db.blobs.sweep().await?;
    let mut after = None;
    loop {
        let orphans = db.apart(move |db| db.read(|rows| rows.orphans(after, BATCH))).await?;
        let Some(last) = orphans.last() else { return Ok(()) };
        after = Some(last.blob);
        let now = jiff::Timestamp::now().as_millisecond();
        let (mut settled, mut unused) = (Vec::new(), Vec::new());
        for orphan in orphans {
            match orphan.claimed {
                _ if orphan.is_used => settled.push(orphan.blob),
                None => unused.push(orphan.blob),
                Some(claimed) if now - claimed >= CLAIM_MS => settled.push(orphan.blob),
                Some(_) => {}
            }
        }
        remove_unused(db, unused).await?;
        if !settled.is_empty() {
            let bytes = 64 * settled.len();
            db.upkeep(bytes, move |apply| apply.db.settle_orphans(&settled)).await?;
        }
    }
}

/// Removes those of the blobs that no row names and that are old enough; returns how many.
///
/// Several edges may share the bucket. What is to be removed is claimed first: from then on no commit of any edge names it, and its sender is
/// told to send again. The claim outlives the removal by longer than a blob is on its way to its row, so none that was placed before
/// the removal is named after it.
pub(crate) async fn remove_unused(db: &Arc<SiteDb>, blobs: Vec<BlobId>) -> Result<u64, Error> {
    if blobs.is_empty() {
        return Ok(0);
    }
    let (bytes, begun) = (64 * blobs.len(), Instant::now());
    let now = jiff::Timestamp::now().as_millisecond();
    let claimed = db.upkeep(bytes, move |apply| apply.db.claim_unused(&blobs, now)).await?;
    let (mut gone, mut kept) = (Vec::new(), Vec::new());
    for blob in claimed {
        if begun.elapsed() >= REMOVED_WITHIN {
            kept.push(blob);
            continue;
        }
        match db.blobs.remove_old(&blob).await {
            Ok(true) => gone.push(blob),
            Ok(false) => kept.push(blob),
            // it may be removed all the same, a moment later: the claim stays until it is over
            Err(error) => tracing::warn!(%error, "a blob that nobody refers to was not removed"),
        }
    }
    let removed = gone.len() as u64;
    let is_shared = db.shares_blobs();
    db.upkeep(bytes, move |apply| {
        apply.db.release(&kept)?;
        // what other edges may be about to name stays claimed for a while
        if is_shared { Ok(()) } else { apply.db.settle_orphans(&gone) }
    })
    .await?;
    Ok(removed)
}

impl Apply<'_> {
    /// Removes the oldest originals: those received before `before` (ms), and more while over `bytes_max` are kept.
    fn forget(&mut self, before: i64, bytes_max: u64) -> Result<Forgotten, Error> {
        let mut forgotten = Forgotten { removed: 0, kept_bytes: self.db.kept_originals()? };
        for (sequence, received, bytes) in self.db.oldest_originals(BATCH)? {
            if received >= before && forgotten.kept_bytes <= bytes_max {
                break;
            }
            self.db.remove_original(sequence)?;
            forgotten.removed += 1;
            forgotten.kept_bytes = forgotten.kept_bytes.saturating_sub(bytes);
        }
        Ok(forgotten)
    }
}

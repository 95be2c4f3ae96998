//! How long rejected submissions keep their originals.

use crate::sqlite::{self, SiteDb};
use crate::{Error, Site, Store};

const DAY_MS: i64 = 86_400_000;

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
            let batch = db.writer.upkeep(1024, move |apply| apply.forget(before, bytes_max)).await?;
            removed += u64::from(batch.removed);
            metrics::counter!("hilum_quarantine_removed_total", "site" => site.id().to_owned())
                .increment(u64::from(batch.removed));
            #[expect(clippy::cast_precision_loss, reason = "a gauge is no account")]
            metrics::gauge!("hilum_quarantine_bytes", "site" => site.id().to_owned())
                .set(batch.kept_bytes as f64);
            if batch.removed < sqlite::QUARANTINE_BATCH {
                break;
            }
        }
        sweep(&db).await?;
        Ok(removed)
    }
}

/// Removes blobs that nobody refers to any more, and what a crash left of them.
async fn sweep(db: &std::sync::Arc<SiteDb>) -> Result<(), Error> {
    db.blobs.sweep().await?;
    let mut after = None;
    loop {
        let orphans = db.read(|connection| sqlite::orphans(connection, after))?;
        let Some(last) = orphans.last() else { return Ok(()) };
        after = Some(last.blob);
        let mut settled = Vec::new();
        for orphan in orphans {
            if orphan.is_used || db.blobs.remove_old(&orphan.blob).await.unwrap_or(false) {
                settled.push(orphan.blob);
            }
        }
        if !settled.is_empty() {
            db.writer.upkeep(64 * settled.len(), move |apply| apply.settle(&settled)).await?;
        }
    }
}

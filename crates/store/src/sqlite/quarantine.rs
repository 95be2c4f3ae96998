//! Rejected submissions are kept with their originals until there are too many or they are too old. Then the original goes, oldest first, a batch
//! at a time; the row with its issues and its answer stays.
//!
//! The original may be a blob that another submission refers to as well (an image refused first and taken later): it is noted as an orphan, and its
//! file is removed when nobody refers to it.

use rusqlite::{Connection, params};

use super::apply::Apply;
use crate::{BlobId, Error};

/// Originals removed in one transaction.
pub(crate) const BATCH: u32 = 100;

/// What a batch removed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forgotten {
    /// Originals removed; less than [`BATCH`] when that was all.
    pub(crate) removed: u32,
    /// Bytes of the originals still kept.
    pub(crate) kept_bytes: u64,
}

/// A blob that was left behind.
pub(crate) struct Orphan {
    pub(crate) blob: BlobId,
    /// Somebody refers to it all the same.
    pub(crate) is_used: bool,
}

/// A batch of orphans behind `after`, in their order.
pub(crate) fn orphans(connection: &Connection, after: Option<BlobId>) -> Result<Vec<Orphan>, Error> {
    let sql = "SELECT o.blob, EXISTS(SELECT 1 FROM submission s WHERE s.blob=o.blob) FROM orphan o WHERE o.blob>?1 ORDER BY o.blob LIMIT ?2";
    let after = after.map_or(Vec::new(), |blob| blob.0.to_vec());
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement
        .query_map(params![after, BATCH], |r| Ok(Orphan { blob: BlobId(r.get(0)?), is_used: r.get(1)? }))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

impl Apply<'_> {
    /// Notes that the original of the submission begun is kept.
    pub(super) fn keep_original(&mut self, received: i64, bytes: u64) -> Result<(), Error> {
        let sql = "INSERT INTO quarantine VALUES(?1,?2,?3)";
        let row = params![self.submission, received, bytes];
        let done = self.connection.prepare_cached(sql).and_then(|mut s| s.execute(row));
        done.map(drop).map_err(|e| self.noted(e))
    }

    /// Removes the oldest originals: those received before `before` (ms), and more while over `bytes_max` are kept.
    pub(crate) fn forget(&mut self, before: i64, bytes_max: u64) -> Result<Forgotten, Error> {
        self.try_forget(before, bytes_max).map_err(|e| self.noted(e))
    }

    fn try_forget(&mut self, before: i64, bytes_max: u64) -> rusqlite::Result<Forgotten> {
        let kept: u64 = self
            .connection
            .prepare_cached("SELECT coalesce(sum(bytes),0) FROM quarantine")?
            .query_row([], |r| r.get(0))?;
        let mut oldest = self
            .connection
            .prepare_cached("SELECT seq, received, bytes FROM quarantine ORDER BY seq LIMIT ?1")?;
        let rows = oldest.query_map([BATCH], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
        let rows: Vec<(i64, i64, u64)> = rows.collect::<rusqlite::Result<_>>()?;
        let mut forgotten = Forgotten { removed: 0, kept_bytes: kept };
        for (sequence, received, bytes) in rows {
            if received >= before && forgotten.kept_bytes <= bytes_max {
                break;
            }
            for sql in [
                "INSERT OR IGNORE INTO orphan SELECT blob FROM submission WHERE seq=?1 AND blob IS NOT NULL",
                "UPDATE submission SET body=NULL, blob=NULL WHERE seq=?1",
                "DELETE FROM quarantine WHERE seq=?1",
            ] {
                self.connection.prepare_cached(sql)?.execute([sequence])?;
            }
            forgotten.removed += 1;
            forgotten.kept_bytes = forgotten.kept_bytes.saturating_sub(bytes);
        }
        Ok(forgotten)
    }

    /// Strikes orphans off: their files are gone, or somebody refers to them.
    pub(crate) fn settle(&mut self, orphans: &[BlobId]) -> Result<(), Error> {
        for blob in orphans {
            let sql = "DELETE FROM orphan WHERE blob=?1";
            let done = self.connection.prepare_cached(sql).and_then(|mut s| s.execute([blob.0]));
            done.map_err(|e| self.noted(e))?;
        }
        Ok(())
    }
}

//! What is kept of rejected submissions, and the blobs they left behind.

use rusqlite::{Connection, params};

use crate::face::{Quarantine, WriteQuarantine};
use crate::row::Orphan;
use crate::{BlobId, Error};

impl Quarantine for Connection {
    fn kept_originals(&self) -> Result<u64, Error> {
        let mut statement = self.prepare_cached("SELECT coalesce(sum(bytes),0) FROM quarantine")?;
        Ok(statement.query_row([], |r| r.get(0))?)
    }

    fn oldest_originals(&self, max: u32) -> Result<Vec<(i64, i64, u64)>, Error> {
        let mut statement =
            self.prepare_cached("SELECT seq, received, bytes FROM quarantine ORDER BY seq LIMIT ?1")?;
        let rows = statement.query_map([max], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn orphans(&self, after: Option<BlobId>, max: u32) -> Result<Vec<Orphan>, Error> {
        let sql = "SELECT o.blob, EXISTS(SELECT 1 FROM submission s WHERE s.blob=o.blob) FROM orphan o WHERE o.blob>?1 ORDER BY o.blob LIMIT ?2";
        let after = after.map_or(Vec::new(), |blob| blob.0.to_vec());
        let mut statement = self.prepare_cached(sql)?;
        let rows = statement.query_map(params![after, max], |r| {
            Ok(Orphan { blob: BlobId(r.get(0)?), is_used: r.get(1)?, claimed: None })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn is_claimed(&self, _: &BlobId) -> Result<bool, Error> {
        Ok(false)
    }
}

impl WriteQuarantine for Connection {
    fn forget_blobs(&self, blobs: &[BlobId]) -> Result<(), Error> {
        for sql in
            ["INSERT OR IGNORE INTO orphan VALUES(?1)", "UPDATE submission SET blob=NULL WHERE blob=?1"]
        {
            let mut statement = self.prepare_cached(sql)?;
            for blob in blobs {
                statement.execute([blob.0])?;
            }
        }
        Ok(())
    }

    fn keep_original(&self, sequence: u64, received: i64, bytes: u64) -> Result<(), Error> {
        let sql = "INSERT INTO quarantine VALUES(?1,?2,?3)";
        self.prepare_cached(sql)?.execute(params![sequence, received, bytes])?;
        Ok(())
    }

    fn remove_original(&self, sequence: i64) -> Result<(), Error> {
        for sql in [
            "INSERT OR IGNORE INTO orphan SELECT blob FROM submission WHERE seq=?1 AND blob IS NOT NULL",
            "UPDATE submission SET body=NULL, blob=NULL WHERE seq=?1",
            "DELETE FROM quarantine WHERE seq=?1",
        ] {
            self.prepare_cached(sql)?.execute([sequence])?;
        }
        Ok(())
    }

    fn settle_orphans(&self, blobs: &[BlobId]) -> Result<(), Error> {
        let mut statement = self.prepare_cached("DELETE FROM orphan WHERE blob=?1")?;
        blobs.iter().try_for_each(|blob| Ok(statement.execute([blob.0]).map(drop)?))
    }

    /// One edge has the store: it keeps removing and placing apart by itself (`blobs`), and nothing is noted here.
    fn claim_unused(&self, blobs: &[BlobId], _: i64) -> Result<Vec<BlobId>, Error> {
        let mut statement = self.prepare_cached("SELECT 1 FROM submission WHERE blob=?1 LIMIT 1")?;
        let mut unused = Vec::new();
        for blob in blobs {
            if !statement.exists([blob.0])? {
                unused.push(*blob);
            }
        }
        Ok(unused)
    }

    fn release(&self, _: &[BlobId]) -> Result<(), Error> {
        Ok(())
    }
}

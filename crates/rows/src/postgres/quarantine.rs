//! What is kept of rejected submissions, and the blobs they left behind.

use super::session::Session;
use super::values::digest;
use crate::face::{Quarantine, WriteQuarantine};
use crate::row::Orphan;
use crate::{BlobId, Error};

impl Quarantine for Session {
    fn kept_originals(&self) -> Result<u64, Error> {
        let sql = "SELECT coalesce(sum(bytes),0)::bigint FROM quarantine WHERE site=$1";
        Ok(self.row(sql, &[])?.map_or(0, |row| row.get::<_, i64>(0).cast_unsigned()))
    }

    fn oldest_originals(&self, max: u32) -> Result<Vec<(i64, i64, u64)>, Error> {
        let sql = "SELECT seq, received, bytes FROM quarantine WHERE site=$1 ORDER BY seq LIMIT $2";
        let rows = self.rows(sql, &[&i64::from(max)])?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get::<_, i64>(2).cast_unsigned())).collect())
    }

    fn orphans(&self, after: Option<BlobId>, max: u32) -> Result<Vec<Orphan>, Error> {
        let sql =
        "SELECT o.blob, EXISTS(SELECT 1 FROM submission s WHERE s.site=$1 AND s.blob=o.blob OFFSET 0), o.claimed FROM orphan o
        WHERE o.site=$1 AND o.blob>$2 ORDER BY o.blob LIMIT $3";
        let after = after.map_or(Vec::new(), |blob| blob.0.to_vec());
        let rows = self.rows(sql, &[&after, &i64::from(max)])?;
        let orphan = |row: &tokio_postgres::Row| {
            Ok(Orphan { blob: BlobId(digest(row.get(0))?), is_used: row.get(1), claimed: row.get(2) })
        };
        rows.iter().map(orphan).collect()
    }

    fn is_claimed(&self, blob: &BlobId) -> Result<bool, Error> {
        if let Some(is_claimed) = self.foreseen_claim(blob) {
            return Ok(is_claimed);
        }
        let sql = "SELECT 1 FROM orphan WHERE site=$1 AND blob=$2 AND claimed IS NOT NULL";
        Ok(!self.rows_unaffected(sql, &[&blob.0.as_slice()])?.is_empty())
    }
}

impl WriteQuarantine for Session {
    fn forget_blobs(&self, blobs: &[BlobId]) -> Result<(), Error> {
        let sql = "INSERT INTO orphan(site,blob) SELECT $1::int, b FROM unnest($2::bytea[]) b ON CONFLICT DO NOTHING";
        self.gather(sql, vec![Box::new(bytes(blobs))]);
        let sql = "UPDATE submission SET blob=NULL WHERE site=$1 AND blob=ANY($2::bytea[])";
        self.gather(sql, vec![Box::new(bytes(blobs))]);
        Ok(())
    }

    fn keep_original(&self, sequence: u64, received: i64, bytes: u64) -> Result<(), Error> {
        let sql = "INSERT INTO quarantine(site,seq,received,bytes) VALUES($1,$2,$3,$4)";
        self.gather(
            sql,
            vec![Box::new(sequence.cast_signed()), Box::new(received), Box::new(bytes.cast_signed())],
        );
        Ok(())
    }

    fn remove_original(&self, sequence: i64) -> Result<(), Error> {
        for sql in [
            "INSERT INTO orphan(site,blob) SELECT site, blob FROM submission WHERE site=$1 AND seq=$2 AND blob IS NOT NULL ON CONFLICT DO NOTHING",
            "UPDATE submission SET body=NULL, blob=NULL WHERE site=$1 AND seq=$2",
            "DELETE FROM quarantine WHERE site=$1 AND seq=$2",
        ] {
            self.gather(sql, vec![Box::new(sequence)]);
        }
        Ok(())
    }

    fn settle_orphans(&self, blobs: &[BlobId]) -> Result<(), Error> {
        self.gather(
            "DELETE FROM orphan WHERE site=$1 AND blob=ANY($2::bytea[])",
            vec![Box::new(bytes(blobs))],
        );
        Ok(())
    }

    /// In the transaction that holds the site: what names a blob was committed before, or finds the claim.
    fn claim_unused(&self, blobs: &[BlobId], now: i64) -> Result<Vec<BlobId>, Error> {
        let sql = "INSERT INTO orphan(site,blob,claimed) SELECT $1::int, b, $3 FROM unnest($2::bytea[]) b
            WHERE NOT EXISTS(SELECT 1 FROM submission s WHERE s.site=$1 AND s.blob=b OFFSET 0)
        ON CONFLICT(site,blob) DO UPDATE SET claimed=excluded.claimed RETURNING blob";
        let rows = self.write_now(sql, &[&bytes(blobs), &now])?;
        self.has_claimed.set(true);
        rows.iter().map(|row| Ok(BlobId(digest(row.get(0))?))).collect()
    }

    fn release(&self, blobs: &[BlobId]) -> Result<(), Error> {
        let sql = "UPDATE orphan SET claimed=NULL WHERE site=$1 AND blob=ANY($2::bytea[])";
        self.gather(sql, vec![Box::new(bytes(blobs))]);
        Ok(())
    }
}

fn bytes(blobs: &[BlobId]) -> Vec<Vec<u8>> {
    blobs.iter().map(|blob| blob.0.to_vec()).collect()
}

//! What is kept of rejected submissions, and the blobs they left behind.

use std::sync::Arc;

use super::Session;
use super::tables::{Tables, add, limit};
use crate::face::{Quarantine, WriteQuarantine};
use crate::row::{Orphan, StoredSubmission};
use crate::{BlobId, Error};

impl Quarantine for Session {
    fn kept_originals(&self) -> Result<u64, Error> {
        Ok(self.tables.borrow().kept.values().map(|(_, bytes)| bytes).sum())
    }

    fn oldest_originals(&self, max: u32) -> Result<Vec<(i64, i64, u64)>, Error> {
        let tables = self.tables.borrow();
        let oldest = tables.kept.iter().take(limit(max));
        Ok(oldest.map(|(sequence, (received, bytes))| (*sequence, *received, *bytes)).collect())
    }

    fn orphans(&self, after: Option<BlobId>, max: u32) -> Result<Vec<Orphan>, Error> {
        let tables = self.tables.borrow();
        let behind = tables.orphans.iter().filter(|blob| after.is_none_or(|after| **blob > after.0));
        let told = behind.take(limit(max)).map(|blob| Orphan {
            blob: BlobId(*blob),
            is_used: tables.names_blob(blob),
            claimed: None,
        });
        Ok(told.collect())
    }

    /// One edge has the store: it keeps removing and placing apart by itself.
    fn is_claimed(&self, _: &BlobId) -> Result<bool, Error> {
        Ok(false)
    }
}

impl WriteQuarantine for Session {
    fn keep_original(&self, sequence: u64, received: i64, bytes: u64) -> Result<(), Error> {
        add(&mut self.tables.borrow_mut().kept, sequence.cast_signed(), (received, bytes))
    }

    fn remove_original(&self, sequence: i64) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        if let Some(row) = Arc::make_mut(&mut tables.submissions).get_mut(&sequence) {
            Arc::make_mut(&mut tables.orphans).extend(row.blob);
            *row = Arc::new(StoredSubmission { body: None, blob: None, ..(**row).clone() });
        }
        Arc::make_mut(&mut tables.kept).remove(&sequence);
        Ok(())
    }

    fn forget_blobs(&self, blobs: &[BlobId]) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        Arc::make_mut(&mut tables.orphans).extend(blobs.iter().map(|blob| blob.0));
        for row in Arc::make_mut(&mut tables.submissions).values_mut() {
            if row.blob.is_some_and(|blob| blobs.contains(&BlobId(blob))) {
                *row = Arc::new(StoredSubmission { blob: None, ..(**row).clone() });
            }
        }
        Ok(())
    }

    fn settle_orphans(&self, blobs: &[BlobId]) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        Arc::make_mut(&mut tables.orphans).retain(|orphan| !blobs.contains(&BlobId(*orphan)));
        Ok(())
    }

    fn claim_unused(&self, blobs: &[BlobId], _: i64) -> Result<Vec<BlobId>, Error> {
        let tables = self.tables.borrow();
        Ok(blobs.iter().filter(|blob| !tables.names_blob(&blob.0)).copied().collect())
    }

    fn release(&self, _: &[BlobId]) -> Result<(), Error> {
        Ok(())
    }
}

impl Tables {
    fn names_blob(&self, blob: &[u8; 32]) -> bool {
        self.submissions.values().any(|row| row.blob.as_ref() == Some(blob))
    }
}

//! What is old enough to go.

use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use super::Session;
use super::tables::limit;
use crate::face::{OldRows, WriteOldRows};
use crate::row::{OldSubmission, OldVersion};
use crate::{DeliveryState, Error};

impl OldRows for Session {
    fn progress(&self, of: &str) -> Result<i64, Error> {
        Ok(self.tables.borrow().progress.get(of).copied().unwrap_or(0))
    }

    fn submissions_behind(&self, after: i64, max: u32) -> Result<Vec<OldSubmission>, Error> {
        let tables = self.tables.borrow();
        let behind = tables.submissions.range((Excluded(after), Unbounded)).take(limit(max));
        let old = behind.map(|(sequence, row)| OldSubmission {
            sequence: *sequence,
            received: row.received,
            kind: row.kind,
            accepted: row.accepted,
            has_blob: row.blob.is_some(),
        });
        Ok(old.collect())
    }

    fn versions_behind(&self, after: i64, max: u32) -> Result<Vec<OldVersion>, Error> {
        let tables = self.tables.borrow();
        let behind = tables.versions.range((Excluded(after), Unbounded)).take(limit(max));
        let old = behind.map(|(vid, row)| OldVersion {
            vid: *vid,
            last_updated: row.last_updated,
            rid: row.rid,
            version: row.version,
            predecessor: tables.numbers.get(&(row.rid, row.version - 1)).copied(),
        });
        Ok(old.collect())
    }

    fn delivered_to(&self) -> Result<Option<i64>, Error> {
        let tables = self.tables.borrow();
        let is_waiting = |state| !matches!(state, DeliveryState::Delivered | DeliveryState::Dead);
        let waiting = tables.deliveries.values().filter(|delivery| is_waiting(delivery.state));
        let before = waiting.map(|delivery| delivery.position.cast_signed() - 1);
        Ok(tables.destinations.values().map(|to| to.cursor.cast_signed()).chain(before).min())
    }
}

impl WriteOldRows for Session {
    fn set_progress(&self, of: &str, to: i64) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        Arc::make_mut(&mut tables.progress).insert(of.to_owned(), to);
        Ok(())
    }

    fn remove_submission(&self, sequence: i64) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        Arc::make_mut(&mut tables.duplicates).retain(|_, of| of.cast_signed() != sequence);
        Arc::make_mut(&mut tables.submissions).remove(&sequence);
        Ok(())
    }

    fn remove_version(&self, rid: i64, version: i64) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        if let Some(vid) = Arc::make_mut(&mut tables.numbers).remove(&(rid, version)) {
            Arc::make_mut(&mut tables.versions).remove(&vid);
        }
        Ok(())
    }
}

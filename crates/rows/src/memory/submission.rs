//! Submissions and their duplicate keys.

use std::sync::Arc;

use super::Session;
use super::tables::{add, limit};
use crate::Error;
use crate::face::{Submissions, WriteSubmissions};
use crate::row::{Duplicate, StoredSubmission, SubmissionEntry};

impl Submissions for Session {
    fn duplicate(&self, key: i64, sha256: &[u8; 32]) -> Result<Option<Duplicate>, Error> {
        let tables = self.tables.borrow();
        let Some(sequence) = tables.duplicates.get(&(key, *sha256)) else { return Ok(None) };
        let submission = tables.submissions.get(&sequence.cast_signed());
        Ok(Some((*sequence, submission.and_then(|row| row.answer.clone()))))
    }

    fn submission(&self, sequence: u64) -> Result<Option<StoredSubmission>, Error> {
        let tables = self.tables.borrow();
        Ok(tables.submissions.get(&sequence.cast_signed()).map(|row| (**row).clone()))
    }

    fn submissions(&self, before: Option<u64>, count: u32) -> Result<Vec<StoredSubmission>, Error> {
        let tables = self.tables.borrow();
        let older = tables.submissions.range(..before.map_or(i64::MAX, u64::cast_signed)).rev();
        Ok(older.take(limit(count)).map(|(_, row)| (**row).clone()).collect())
    }

    fn submissions_of(&self, rid: i64, count: u32) -> Result<Vec<u64>, Error> {
        let tables = self.tables.borrow();
        let versions = tables.numbers.range((rid, i64::MIN)..=(rid, i64::MAX));
        let rows = versions.filter_map(|(_, vid)| tables.versions.get(vid));
        let mut sequences: Vec<u64> = rows.filter_map(|row| row.submission).map(i64::cast_unsigned).collect();
        sequences.sort_unstable_by(|a, b| b.cmp(a));
        sequences.dedup();
        sequences.truncate(limit(count));
        Ok(sequences)
    }
}

impl WriteSubmissions for Session {
    fn add_submission(&self, row: &SubmissionEntry<'_>) -> Result<(), Error> {
        let sequence = row.sequence.cast_signed();
        let stored = StoredSubmission {
            sequence,
            kind: row.kind,
            received: row.received,
            listener: row.listener.to_owned(),
            peer: row.peer.clone(),
            identity: row.identity.map(str::to_owned),
            control: row.control.map(str::to_owned),
            sha256: *row.sha256,
            accepted: row.accepted,
            answer: row.answer.map(<[u8]>::to_vec),
            issues: row.issues.clone(),
            targets: row.targets.map(str::to_owned),
            encodings: row.encodings,
            body: row.body.map(<[u8]>::to_vec),
            blob: row.blob,
            report: row.report.map(<[u8]>::to_vec),
        };
        add(&mut self.tables.borrow_mut().submissions, sequence, Arc::new(stored))
    }

    fn add_duplicate_key(&self, key: i64, sha256: &[u8; 32], sequence: u64, _: i64) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        Arc::make_mut(&mut tables.duplicates).entry((key, *sha256)).or_insert(sequence);
        Ok(())
    }
}

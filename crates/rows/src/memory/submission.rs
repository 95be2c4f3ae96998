//! Submissions and their duplicate keys.

use std::sync::Arc;

use hilum_fhir::ResourceType;

use super::Session;
use super::tables::{add, limit};
use crate::face::{Submissions, WriteSubmissions};
use crate::row::{Duplicate, StoredSubmission, SubmissionEntry, WantedSubmissions};
use crate::{Delivery, Error};

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

    fn submissions_matching(&self, wanted: &WantedSubmissions) -> Result<Vec<StoredSubmission>, Error> {
        let tables = self.tables.borrow();
        let (floor, before) = (wanted.floor.cast_signed(), wanted.before.cast_signed());
        let numbered = tables.submissions.range(floor..before.max(floor)).rev().map(|(_, row)| &**row);
        let light = |row: &StoredSubmission| StoredSubmission {
            answer: None,
            body: None,
            report: None,
            ..row.clone()
        };
        Ok(numbered.filter(|row| is_wanted(row, wanted)).take(limit(wanted.count)).map(light).collect())
    }

    fn submission_from(&self, sequence: u64) -> Result<Option<(u64, i64)>, Error> {
        let tables = self.tables.borrow();
        let first = tables.submissions.range(sequence.cast_signed()..).next();
        Ok(first.map(|(number, row)| (number.cast_unsigned(), row.received)))
    }

    fn has_changed(&self, of: ResourceType, after: u64) -> Result<bool, Error> {
        let tables = self.tables.borrow();
        let mut behind = tables.versions.range(after.cast_signed() + 1..);
        let is_of = |rid: i64| tables.heads.get(&rid).is_some_and(|head| head.of == of);
        Ok(behind.any(|(_, row)| is_of(row.rid)))
    }

    fn deliveries_of(&self, versions: &[(i64, i64)], max: u32) -> Result<Vec<Delivery>, Error> {
        let tables = self.tables.borrow();
        let positions: Vec<u64> =
            versions.iter().filter_map(|of| tables.numbers.get(of)).map(|vid| vid.cast_unsigned()).collect();
        let of = tables.deliveries.values().filter(|delivery| positions.contains(&delivery.position));
        Ok(of.take(limit(max)).cloned().collect())
    }
}

/// Whether all that is given holds of a submission.
fn is_wanted(row: &StoredSubmission, wanted: &WantedSubmissions) -> bool {
    let is = |found: Option<&str>, text: &Option<String>| text.is_none() || found == text.as_deref();
    let is_message = |message: &str, text: &str| {
        message.strip_prefix(text).is_some_and(|rest| rest.is_empty() || rest.starts_with(['^', ' ']))
    };
    let is_peer = |text: &str| {
        let address = row.peer.as_deref().is_some_and(|peer| {
            peer == text || peer.starts_with(&format!("{text}:")) || peer.starts_with(&format!("[{text}]:"))
        });
        address
            || row.identity.as_deref().is_some_and(|of| of == text || of.split('|').any(|part| part == text))
    };
    row.received >= wanted.since
        && wanted.accepted.is_none_or(|accepted| accepted == row.accepted)
        && (!wanted.attention || row.attention.is_some())
        && wanted.kind.is_none_or(|kind| kind == row.kind)
        && is(row.control.as_deref(), &wanted.control)
        && is(Some(&row.listener), &wanted.listener)
        && wanted
            .message
            .as_ref()
            .is_none_or(|text| row.message.as_deref().is_some_and(|of| is_message(of, text)))
        && wanted.peer.as_ref().is_none_or(|text| is_peer(text))
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
            content_type: Some(row.content_type.to_owned()),
            message: row.message.map(str::to_owned),
            called: row.called.map(str::to_owned),
            replays: row.replays.map(u64::cast_signed),
            attention: row.attention.map(str::to_owned),
        };
        add(&mut self.tables.borrow_mut().submissions, sequence, Arc::new(stored))
    }

    fn add_duplicate_key(&self, key: i64, sha256: &[u8; 32], sequence: u64, _: i64) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        Arc::make_mut(&mut tables.duplicates).entry((key, *sha256)).or_insert(sequence);
        Ok(())
    }
}

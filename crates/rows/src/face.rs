//! The face of a database: all that is asked of one and all that is written, as rows. Every engine answers it.
//!
//! [`Reads`] is the connection of one site inside a transaction or a snapshot, [`Tx`] the one that writes. Each is a sum of traits, a group of tables
//! each, which an engine implements in the file of the same group. What is not a statement (plans, searches, imaging, packing) is above and
//! written once.
//!
//! Every function fails with `Unavailable` when the database cannot be used, with `Full` when its disk is full; none says more.

use hilum_fhir::ResourceType;

use crate::keys::{Key, Lookup, Rows};
use crate::row::{
    Ask, Candidate, Changed, Content, Due, Duplicate, Head, HeadRow, InstanceEntry, InstancePlace,
    OldSubmission, OldVersion, Orphan, StepRow, StoredSubmission, StudyRow, SubmissionEntry, VersionRow,
    Walk, WantedSubmissions,
};
use crate::{BlobId, Delivery, Destination, DestinationState, Error, FeedEntry, Version};

/// A connection of any engine, for reading.
pub type Db<'c> = &'c (dyn Reads + 'c);

/// All that can be read of a site.
pub trait Reads: Resources + Index + Submissions + Studies + Outbox + Quarantine + OldRows {
    /// Does look-ups together where each costs a round trip; those that follow find what was read.
    fn foresee(&self, asks: &[Ask]) -> Result<(), Error> {
        let _ = asks;
        Ok(())
    }
}

/// The one transaction that writes to a site.
pub trait Tx:
    Reads + WriteResources + WriteSubmissions + WriteStudies + WriteOutbox + WriteQuarantine + WriteOldRows
{
}

/// Resources and their versions.
pub trait Resources {
    /// The head of a resource by id, deleted or not.
    fn head(&self, of: ResourceType, id: &str) -> Result<Option<Head>, Error>;
    /// Type, id, head and time of the current version of a row.
    fn head_of(&self, rid: i64) -> Result<Option<(ResourceType, String, Head, i64)>, Error>;
    /// Type and id of a row.
    fn name(&self, rid: i64) -> Result<Option<(ResourceType, String)>, Error>;
    /// What a version holds.
    fn content(&self, vid: i64) -> Result<Content, Error>;
    /// The current version or deletion of a resource.
    fn current(&self, of: ResourceType, id: &str) -> Result<Option<Version>, Error>;
    /// One version of a resource.
    fn version(&self, of: ResourceType, id: &str, version: u64) -> Result<Option<Version>, Error>;
    /// Versions of a resource, newest first, older than `before`.
    fn history(
        &self,
        of: ResourceType,
        id: &str,
        before: Option<u64>,
        count: u32,
    ) -> Result<Vec<Version>, Error>;
    /// Versions after a feed position, in feed order.
    fn feed(&self, after: u64, limit: u32) -> Result<Vec<FeedEntry>, Error>;
    /// The heads of resources of a type by id, deleted or not, in any order; what never was there is left out. One look-up where each costs a round
    /// trip.
    fn heads(&self, of: ResourceType, ids: &[String]) -> Result<Vec<(String, Head)>, Error> {
        let head = |id: &String| Ok(self.head(of, id)?.map(|head| (id.clone(), head)));
        ids.iter().filter_map(|id| head(id).transpose()).collect()
    }
    /// The resources that one replaces, not deleted: `(rid, vid)`, in order of rid.
    fn replaced_by(&self, survivor: i64, max: usize) -> Result<Vec<(i64, i64)>, Error>;
    /// Those of the resources that may replace others. One look-up where each costs a round trip; all of them where none does.
    fn replacing(&self, rids: &[i64]) -> Result<Vec<i64>, Error> {
        Ok(rids.to_vec())
    }
    /// The time of the last event of a further sender, ms since 1970.
    fn heard(&self, rid: i64, sender: i64) -> Result<Option<i64>, Error>;
}

/// Writes resources, their versions and their index.
pub trait WriteResources: Resources {
    /// Adds a version.
    fn add_version(&self, row: &VersionRow<'_>) -> Result<(), Error>;
    /// Adds the head of a new resource.
    fn add_head(&self, row: &HeadRow<'_>) -> Result<(), Error>;
    /// Moves a head to its next version.
    fn move_head(&self, row: &HeadRow<'_>) -> Result<(), Error>;
    /// Moves a head to a deletion.
    fn delete_head(&self, row: &HeadRow<'_>) -> Result<(), Error>;
    /// Notes by which resource another is replaced; `None` = by none any more.
    fn set_successor(&self, prior: i64, survivor: Option<i64>) -> Result<(), Error>;
    /// Notes the time of the last event of the sender a head keeps.
    fn set_applied(&self, rid: i64, sender: Option<i64>, applied: i64) -> Result<(), Error>;
    /// Notes the time of an event of a further sender; an earlier one than the last changes nothing.
    fn put_heard(&self, rid: i64, sender: i64, applied: i64) -> Result<(), Error>;
    /// Removes the index rows only the old version has and adds those only the new one has; the numbers are their `ord`.
    fn write_index(&self, rid: i64, old: (&Rows, i64), new: (&Rows, i64)) -> Result<(), Error>;
}

/// The search index.
pub trait Index {
    /// The first resources with a key: `(rid, vid)`, in order of rid.
    fn with_key(&self, key: Key, max: usize) -> Result<Vec<(i64, i64)>, Error>;
    /// The first resources with a value of a token, whatever its system: `(rid, vid)`, in order of rid.
    fn with_value(&self, value: i64, max: usize) -> Result<Vec<(i64, i64)>, Error>;
    /// Those of them that have a second key, such as that of their patient. At most `looked_at_max` of the first are looked at.
    fn with_value_and(
        &self,
        value: i64,
        key: Key,
        max: usize,
        looked_at_max: usize,
    ) -> Result<Vec<(i64, i64)>, Error>;
    /// The ids of the first resources with a key, in order of rid.
    fn ids_with_key(&self, key: Key, max: usize) -> Result<Vec<String>, Error>;
    /// The systems a key's code has, at most `max`, in order.
    fn systems_of(&self, value: i64, max: usize) -> Result<Vec<i64>, Error>;
    /// The number of rows of a key, counted up to `max`.
    fn count_key(&self, key: Key, max: i64) -> Result<i64, Error>;
    /// The number of strings that start with `prefix`, counted up to `max`.
    fn count_strings(&self, key: i64, prefix: &str, max: i64) -> Result<i64, Error>;
    /// The number of resources of a type that are not deleted.
    fn count(&self, of: ResourceType) -> Result<u64, Error>;
    /// The next candidates of a key, or of a whole type, in index order.
    fn step(&self, walk: &Walk) -> Result<Vec<Candidate>, Error>;
    /// The newest feed position, as this transaction sees it.
    fn newest(&self) -> Result<u64, Error>;
    /// The resources of a type among the first `max` versions behind a feed position.
    fn changed_since(&self, of: ResourceType, after: u64, max: u32) -> Result<Vec<Changed>, Error>;
    /// Those of the candidates that have all keys, with their versions, in the order given.
    fn versions_of(&self, candidates: &[Candidate], keys: &[Key])
    -> Result<Vec<(Candidate, Version)>, Error>;
    /// Hands each hit of a look-up to `each` until it errs: what has any of the keys, a string that starts with any of the prefixes, or a
    /// range that overlaps any of the ranges; nothing for ids. A resource may come twice. More than `max` are not needed.
    fn hits(
        &self,
        lookup: &Lookup,
        max: usize,
        each: &mut dyn FnMut(Candidate) -> Result<(), Error>,
    ) -> Result<(), Error>;
    /// Candidates looked at together: as many as cost one look-up of the engine.
    fn candidates_at_once(&self) -> usize;
}

/// What came in, and the keys by which a repeat is known.
pub trait Submissions {
    /// The submission with a duplicate key: its number and its answer.
    fn duplicate(&self, key: i64, sha256: &[u8; 32]) -> Result<Option<Duplicate>, Error>;
    /// One submission.
    fn submission(&self, sequence: u64) -> Result<Option<StoredSubmission>, Error>;
    /// The newest submissions before `before`.
    fn submissions(&self, before: Option<u64>, count: u32) -> Result<Vec<StoredSubmission>, Error>;
    /// The numbers of those that caused the versions of a row, newest first.
    fn submissions_of(&self, rid: i64, count: u32) -> Result<Vec<u64>, Error>;
    /// Those wanted, newest first, without answer, body and report.
    fn submissions_matching(&self, wanted: &WantedSubmissions) -> Result<Vec<StoredSubmission>, Error>;
    /// The first submission from a number on: its number, and when it was received (ms since 1970).
    fn submission_from(&self, sequence: u64) -> Result<Option<(u64, i64)>, Error>;
    /// Whether a version of a type was written behind a feed position.
    fn has_changed(&self, of: ResourceType, after: u64) -> Result<bool, Error>;
    /// The deliveries of versions, each by rid and version; at most so many.
    fn deliveries_of(&self, versions: &[(i64, i64)], max: u32) -> Result<Vec<Delivery>, Error>;
}

/// Writes submissions.
pub trait WriteSubmissions: Submissions {
    /// Adds a submission.
    fn add_submission(&self, row: &SubmissionEntry<'_>) -> Result<(), Error>;
    /// Adds a duplicate key, unless it is there.
    fn add_duplicate_key(
        &self,
        key: i64,
        sha256: &[u8; 32],
        sequence: u64,
        received: i64,
    ) -> Result<(), Error>;
}

/// Studies, series, instances and performed steps. A study is named by its key, see [`StudyRow`].
pub trait Studies {
    /// The current instances with a SOP Instance UID: one, unless senders use it twice.
    fn instances_with(&self, sop: &str) -> Result<Vec<InstancePlace>, Error>;
    /// A study by its key.
    fn study(&self, key: &str) -> Result<Option<StudyRow>, Error>;
    /// The studies with a Study Instance UID, the one whose key is the UID first: one, unless senders use it for several patients.
    fn studies_with(&self, uid: &str) -> Result<Vec<(String, StudyRow)>, Error>;
    /// The key of the study that a resource is drawn of.
    fn study_drawn_as(&self, rid: i64) -> Result<Option<String>, Error>;
    /// Keys of the studies of a patient, at most `max`.
    fn studies_of_patient(&self, rid: i64, max: usize) -> Result<Vec<String>, Error>;
    /// Keys of the studies that name an order by a number, at most `max`.
    fn studies_with_number(&self, value: &str, max: usize) -> Result<Vec<String>, Error>;
    /// Keys of studies that are due: long dirty, or dirty and quiet.
    fn due_studies(&self, due: &Due) -> Result<Vec<String>, Error>;
    /// Keys of studies that are dirty, at most `max`.
    fn dirty_studies(&self, max: u32) -> Result<Vec<String>, Error>;
    /// The blobs of the instances of a study, superseded ones too.
    fn blobs_of_study(&self, key: &str) -> Result<Vec<BlobId>, Error>;
    /// The elements of a series.
    fn series(&self, study: &str, uid: &str) -> Result<Option<String>, Error>;
    /// The series of a study that have an image or are announced by a step, in order of number: UID and elements.
    fn series_of(&self, study: &str) -> Result<Vec<(String, String)>, Error>;
    /// The current instances of a series, in order of number: UID, SOP class and elements.
    fn instances_of(&self, study: &str, series: &str) -> Result<Vec<(String, String, String)>, Error>;
    /// A performed step.
    fn performed_step(&self, uid: &str) -> Result<Option<StepRow>, Error>;
    /// The performed steps of a study: Procedure (`system|value`) and state, in the order of their UIDs.
    fn steps_of(&self, study: &str) -> Result<Vec<(String, i64)>, Error>;
    /// Whether a performed step is of a patient.
    fn has_step_of(&self, patient: i64) -> Result<bool, Error>;
}

/// Writes studies, series, instances and performed steps.
pub trait WriteStudies: Studies {
    /// Adds an instance as the current one.
    fn add_instance(&self, row: &InstanceEntry<'_>) -> Result<(), Error>;
    /// Makes the current instance a superseded one.
    fn supersede_instance(&self, study: &str, series: &str, sop: &str, submission: u64) -> Result<(), Error>;
    /// Notes that a study names an order by a number.
    fn put_study_number(&self, value: &str, key: &str) -> Result<(), Error>;
    /// Adds a study.
    fn add_study(&self, key: &str, row: &StudyRow, now: i64, last_instance: Option<i64>)
    -> Result<(), Error>;
    /// Changes a study; `conflicts` are added to those counted before.
    fn change_study(
        &self,
        key: &str,
        row: &StudyRow,
        conflicts: u32,
        now: i64,
        last_instance: Option<i64>,
    ) -> Result<(), Error>;
    /// Notes that a study has something to publish.
    fn touch_study(&self, key: &str, now: i64, last_instance: Option<i64>) -> Result<(), Error>;
    /// Notes that a study is published, as which resource.
    fn set_published(&self, key: &str, now: i64, rid: Option<i64>) -> Result<(), Error>;
    /// Removes the rows of a study, its series, its instances and its performed steps.
    fn remove_study(&self, key: &str) -> Result<(), Error>;
    /// Adds or changes a series.
    fn put_series(&self, study: &str, uid: &str, number: Option<i64>, elements: &str) -> Result<(), Error>;
    /// Adds or changes a performed step.
    fn put_performed_step(&self, uid: &str, row: &StepRow) -> Result<(), Error>;
    /// Forgets the series a performed step announced.
    fn clear_expectations(&self, step: &str) -> Result<(), Error>;
    /// Notes how many images a performed step announced for a series.
    fn put_expectation(
        &self,
        series: &str,
        step: &str,
        study: &str,
        images: Option<i64>,
    ) -> Result<(), Error>;
}

/// Destinations, and what is queued for them.
pub trait Outbox {
    /// All destinations.
    fn destinations(&self) -> Result<Vec<Destination>, Error>;
    /// One destination.
    fn destination(&self, reference: &str) -> Result<Option<Destination>, Error>;
    /// The first delivery of a destination that is neither delivered nor dead.
    fn next_delivery(&self, destination: &str) -> Result<Option<Delivery>, Error>;
    /// Numbers of the oldest deliveries of a destination, still to be sent, that are beyond the bounds of a backlog; `before` in ms since 1970.
    fn beyond(&self, destination: &str, rows_max: u64, before: i64) -> Result<Vec<u64>, Error>;
    /// Refuses when another edge delivers to one of the destinations since the epoch given.
    fn check_deliverer(&self, epochs: &[(String, i64)]) -> Result<(), Error>;
}

/// Writes destinations and deliveries.
pub trait WriteOutbox: Outbox {
    /// Creates or changes a destination. Of one that exists the numbers stay, and the cursor too unless it was off: what was written while it was is not for it.
    fn put_destination(&self, destination: &Destination) -> Result<(), Error>;
    /// Changes the state of a destination, if it exists.
    fn turn_destination(
        &self,
        reference: &str,
        state: DestinationState,
        error: Option<&str>,
    ) -> Result<(), Error>;
    /// Removes a destination, its numbers and all its deliveries.
    fn remove_destination(&self, reference: &str) -> Result<(), Error>;
    /// Numbers matches for destinations and moves their cursors. What a cursor has passed is not numbered again.
    fn matched(&self, matches: &[(String, u64)], cursors: &[(String, u64)]) -> Result<(), Error>;
    /// Everything up to a number that is still to be sent is dead.
    fn give_up(&self, destination: &str, last: u64, reason: &str) -> Result<(), Error>;
    /// Notes what became of a delivery that was neither delivered nor dead: those stay so.
    fn mark(&self, delivery: &Delivery) -> Result<(), Error>;
}

/// What is kept of rejected submissions, and the blobs they left behind.
pub trait Quarantine {
    /// Bytes of the originals kept.
    fn kept_originals(&self) -> Result<u64, Error>;
    /// The oldest originals kept: submission, when received (ms since 1970), bytes.
    fn oldest_originals(&self, max: u32) -> Result<Vec<(i64, i64, u64)>, Error>;
    /// Orphans behind `after`, in their order.
    fn orphans(&self, after: Option<BlobId>, max: u32) -> Result<Vec<Orphan>, Error>;
    /// Whether a blob is claimed.
    fn is_claimed(&self, blob: &BlobId) -> Result<bool, Error>;
}

/// Writes what is kept of rejected submissions, and what becomes of blobs.
pub trait WriteQuarantine: Quarantine {
    /// Notes that the original of a rejected submission is kept; `received` in ms since 1970.
    fn keep_original(&self, sequence: u64, received: i64, bytes: u64) -> Result<(), Error>;
    /// Removes the original of a submission; its blob is noted as an orphan.
    fn remove_original(&self, sequence: i64) -> Result<(), Error>;
    /// The submissions that brought these blobs name them no more; the blobs are noted as orphans.
    fn forget_blobs(&self, blobs: &[BlobId]) -> Result<(), Error>;
    /// Strikes orphans off: their files are gone for good, or somebody refers to them.
    fn settle_orphans(&self, blobs: &[BlobId]) -> Result<(), Error>;
    /// Those of the blobs that no row names. Where several edges share a store they are claimed: until that is settled no row may name them.
    fn claim_unused(&self, blobs: &[BlobId], now: i64) -> Result<Vec<BlobId>, Error>;
    /// Gives up claims of blobs that stay.
    fn release(&self, blobs: &[BlobId]) -> Result<(), Error>;
}

/// What grows old, and how far the walks through it have come.
pub trait OldRows {
    /// How far a walk through old rows has come.
    fn progress(&self, of: &str) -> Result<i64, Error>;
    /// Submissions behind a number, in their order.
    fn submissions_behind(&self, after: i64, max: u32) -> Result<Vec<OldSubmission>, Error>;
    /// Versions behind a feed position, in feed order.
    fn versions_behind(&self, after: i64, max: u32) -> Result<Vec<OldVersion>, Error>;
    /// The feed position up to which every destination is served; `None` without any.
    fn delivered_to(&self) -> Result<Option<i64>, Error>;
}

/// Removes what is old enough.
pub trait WriteOldRows: OldRows {
    /// Notes how far it has come.
    fn set_progress(&self, of: &str, to: i64) -> Result<(), Error>;
    /// Removes a submission and its duplicate key.
    fn remove_submission(&self, sequence: i64) -> Result<(), Error>;
    /// Removes a version.
    fn remove_version(&self, rid: i64, version: i64) -> Result<(), Error>;
}

impl dyn Reads + '_ {
    /// Hands each candidate of a look-up to `each` until it errs, as [`Index::hits`]; of ids the resources that are not deleted.
    ///
    /// # Errors
    /// `Unavailable`; what `each` returned.
    pub fn candidates(
        &self,
        of: ResourceType,
        lookup: &Lookup,
        max: usize,
        each: &mut dyn FnMut(Candidate) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Lookup::Ids(ids) = lookup else { return self.hits(lookup, max, each) };
        for id in ids {
            if let Some(head) = self.head(of, id)?.filter(|h| !h.deleted) {
                each(Candidate { ord: head.ord, rid: head.rid, vid: head.vid })?;
            }
        }
        Ok(())
    }
}

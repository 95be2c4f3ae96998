//! The tables, and the rows that are not those of the face.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hilum_fhir::ResourceType;

use crate::keys::Key;
use crate::row::{Counters, Head, StepRow, StoredSubmission, StudyRow};
use crate::{Delivery, Destination, Error, InstanceFile, Operation};

/// A table: shared until it is written to.
pub(super) type Table<K, V> = Arc<BTreeMap<K, V>>;

/// All rows of a site.
#[derive(Clone, Default)]
pub(super) struct Tables {
    /// The numbers given out so far; never reused.
    pub(super) counters: Counters,
    /// By rid.
    pub(super) heads: Table<i64, NamedHead>,
    /// By number of the type and id.
    pub(super) names: Table<(i64, String), i64>,
    /// By feed position.
    pub(super) versions: Table<i64, Arc<StoredRow>>,
    /// Feed positions, by rid and version.
    pub(super) numbers: Table<(i64, i64), i64>,
    /// Key, ord and rid.
    pub(super) keys: Arc<BTreeSet<(Key, i64, i64)>>,
    /// Key, text and rid.
    pub(super) strings: Arc<BTreeSet<(i64, String, i64)>>,
    /// Key, low, high and rid.
    pub(super) ranges: Arc<BTreeSet<(i64, i64, i64, i64)>>,
    /// By number.
    pub(super) submissions: Table<i64, Arc<StoredSubmission>>,
    /// By duplicate key and SHA-256.
    pub(super) duplicates: Table<(i64, [u8; 32]), u64>,
    /// The last event of further senders, by rid and sender.
    pub(super) heard: Table<(i64, i64), i64>,
    /// By study, series, SOP Instance UID and the submission that superseded it; 0 = current.
    pub(super) instances: Table<(String, String, String, u64), Arc<InstanceRow>>,
    pub(super) studies: Table<String, Study>,
    /// Numbers of the orders that studies name, with the key of the study.
    pub(super) study_numbers: Arc<BTreeSet<(String, String)>>,
    /// By study and UID.
    pub(super) series: Table<(String, String), Series>,
    pub(super) steps: Table<String, Arc<StepRow>>,
    /// By series and step: study and images.
    pub(super) expectations: Table<(String, String), (String, Option<i64>)>,
    pub(super) destinations: Table<String, Destination>,
    /// By destination and number.
    pub(super) deliveries: Table<(String, u64), Delivery>,
    /// Originals of rejected submissions: when received and bytes, by number.
    pub(super) kept: Table<i64, (i64, u64)>,
    pub(super) orphans: Arc<BTreeSet<[u8; 32]>>,
    pub(super) progress: Table<String, i64>,
}

/// A head with its name.
#[derive(Clone)]
pub(super) struct NamedHead {
    pub(super) of: ResourceType,
    pub(super) id: String,
    pub(super) head: Head,
}

/// A version.
pub(super) struct StoredRow {
    pub(super) rid: i64,
    pub(super) version: i64,
    pub(super) last_updated: i64,
    pub(super) operation: Operation,
    pub(super) submission: Option<i64>,
    pub(super) encoding: i64,
    /// `None` = a deletion.
    pub(super) body: Option<Vec<u8>>,
}

/// An instance.
pub(super) struct InstanceRow {
    pub(super) file: InstanceFile,
    pub(super) class: String,
    pub(super) number: Option<i64>,
    pub(super) elements: String,
}

/// A study with what is noted of its publication, ms since 1970.
#[derive(Clone)]
pub(super) struct Study {
    pub(super) row: StudyRow,
    pub(super) dirty_since: Option<i64>,
    pub(super) last_instance_at: Option<i64>,
}

/// A series.
#[derive(Clone)]
pub(super) struct Series {
    pub(super) number: Option<i64>,
    pub(super) elements: String,
}

/// Adds a row that must not be there yet.
pub(super) fn add<K: Ord + Clone, V: Clone>(table: &mut Table<K, V>, key: K, row: V) -> Result<(), Error> {
    match Arc::make_mut(table).insert(key, row) {
        None => Ok(()),
        Some(_) => Err(Error::unavailable("a row is there already")),
    }
}

/// In the order of the number that a series or an instance has, those without one last.
pub(super) fn by_number<T>(rows: &mut [T], number: impl Fn(&T) -> Option<i64>) {
    rows.sort_by_key(|row| (number(row).is_none(), number(row)));
}

/// The number of rows asked for.
pub(super) fn limit(max: u32) -> usize {
    usize::try_from(max).unwrap_or(usize::MAX)
}

//! Whether the rows are as they should be: rows against rows, index against bodies. Each engine looks by itself (`sqlite/fsck.rs`,
//! `postgres/fsck.rs`), with what is the same for all said here.

use crate::{BlobId, Error};

/// Findings told one by one; more of a kind are only counted.
const TOLD_MAX: usize = 20;

/// Rows that refer to other rows and do not find them: what they are, and how to count those of a site.
pub(crate) const DANGLING: [(&str, &str); 4] = [
    (
        "resources without their current version",
        "SELECT count(*) FROM head h LEFT JOIN version v ON v.vid=h.vid AND v.rid=h.rid AND v.ver=h.ver WHERE v.vid IS NULL",
    ),
    (
        "versions without a resource",
        "SELECT count(*) FROM version v LEFT JOIN head h ON h.rid=v.rid WHERE h.rid IS NULL",
    ),
    (
        "duplicate keys without a submission",
        "SELECT count(*) FROM dedupe d LEFT JOIN submission s ON s.seq=d.seq WHERE s.seq IS NULL",
    ),
    (
        "instances without a series or study",
        "SELECT count(*) FROM instance i LEFT JOIN series s ON s.uid=i.series LEFT JOIN study t ON t.uid=i.study WHERE s.uid IS NULL OR t.uid IS NULL",
    ),
];
/// The blobs that rows of a site refer to, with the SHA-256 of their body.
pub(crate) const REFERRED: &str =
    "SELECT blob, sha FROM submission WHERE blob IS NOT NULL UNION SELECT blob, sha FROM instance";
/// Tables of the index, those that hold what they should be, and their columns.
pub(crate) const INDEX: [(&str, &str, &str); 3] = [
    ("ix", "due", "key,sys,ord,rid"),
    ("ix_str", "due_str", "key,val,rid"),
    ("ix_range", "due_range", "key,lo,hi,rid"),
];

/// What is checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checks {
    /// Read every blob that is a file and compare it with its name, not only look whether it is there.
    pub deep: bool,
    /// Make the index of every site again from the bodies first. In files no edge may run; on a server senders
    /// are told to send again meanwhile.
    pub rebuild: bool,
}

/// What was found of a site.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// The site.
    pub site: String,
    /// Resources looked at.
    pub resources: u64,
    /// Versions looked at.
    pub versions: u64,
    /// Blobs looked at.
    pub blobs: u64,
    /// What is wrong, in words. Empty = nothing.
    pub faults: Vec<String>,
    /// Faults beyond those told.
    pub more: u64,
}

impl Findings {
    /// Of a site, nothing found so far.
    pub fn of(site: String) -> Self {
        Self { site, ..Self::default() }
    }

    /// Notes what is wrong, in words without values.
    pub fn wrong(&mut self, text: String) {
        if self.faults.len() < TOLD_MAX { self.faults.push(text) } else { self.more += 1 }
    }

    /// Notes rows of the index that no body gives, and rows that are not there.
    pub(crate) fn index(&mut self, table: &str, superfluous: i64, missing: i64) {
        for (count, what) in [(superfluous, "has rows that no body gives"), (missing, "lacks rows")] {
            if count > 0 {
                self.wrong(format!("index {table} {what} ({count}); `hilum fsck --rebuild` makes it again"));
            }
        }
    }
}

/// Where the blobs are that rows refer to.
pub trait Shelf {
    /// Notes which of the blobs of a site (with the SHA-256 of their bodies) are not there; with `deep` also files whose bytes are not what
    /// was received. `findings` names the site.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be looked at.
    fn check(
        &self,
        referred: &[(BlobId, [u8; 32])],
        deep: bool,
        findings: &mut Findings,
    ) -> Result<(), Error>;
}

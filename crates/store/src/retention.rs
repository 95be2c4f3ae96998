//! How long a site keeps what nothing refers to any more: originals of accepted submissions, superseded versions, and the submissions
//! themselves with their lineage and answer.
//!
//! Each is walked in the order it came in, from where the walk before ended, a small transaction at a time among those of the senders. What is
//! current is never touched: the current version of a resource, an image.

use crate::apply::Apply;
use crate::db::OldSubmission;
use crate::{Error, OriginalKind, Retention, Site, Store};

const DAY_MS: i64 = 86_400_000;
/// Blobs are looked through once in this time, and only those older are.
const SWEEP_EVERY_MS: i64 = DAY_MS;
/// Rows looked at in one transaction.
const BATCH: u32 = 200;
const ORIGINALS: &str = "retained_originals";
const SUBMISSIONS: &str = "retained_submissions";
const VERSIONS: &str = "retained_versions";
const BLOBS: &str = "swept_blobs";

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Originals of accepted submissions.
    pub originals: u64,
    /// Submissions.
    pub submissions: u64,
    /// Superseded versions.
    pub versions: u64,
    /// Blobs that no row names.
    pub blobs: u64,
}

/// What grows old.
#[derive(Clone, Copy)]
enum Old {
    Originals,
    Submissions,
    Versions,
}

/// What a batch removed, and whether there may be more.
#[derive(Clone, Copy)]
struct Batch {
    removed: u64,
    is_last: bool,
}

impl Store {
    /// Removes what is older than the site's [`Retention`], and once a day the blobs that no row names: their commit failed, or the
    /// process ended before it. Blobs left behind by what is removed here go with the next [`Store::forget_rejected`].
    ///
    /// # Errors
    /// `Unavailable`; what was removed before stays removed.
    pub async fn retain(&self, site: &Site) -> Result<Removed, Error> {
        let Retention { originals_days, submissions_days, versions_days } = site.settings().retention;
        Ok(Removed {
            originals: self.walk(site, originals_days, Old::Originals).await?,
            submissions: self.walk(site, submissions_days, Old::Submissions).await?,
            versions: self.walk(site, versions_days, Old::Versions).await?,
            blobs: self.sweep_blobs(site).await?,
        })
    }

    async fn sweep_blobs(&self, site: &Site) -> Result<u64, Error> {
        let db = self.site_db(site)?;
        let now = jiff::Timestamp::now().as_millisecond();
        if now - db.apart(|db| db.read(|rows| rows.progress(BLOBS))).await? < SWEEP_EVERY_MS {
            return Ok(0);
        }
        let mut removed = 0;
        for fan in 0..=u8::MAX {
            for aged in db.blobs.aged(fan).await?.chunks(BATCH as usize) {
                let aged = aged.to_vec();
                for blob in db.apart(move |db| db.read(|rows| rows.unused(&aged))).await? {
                    removed += u64::from(db.blobs.remove_old(&blob).await?);
                }
            }
        }
        db.upkeep(64, move |apply| apply.db.set_progress(BLOBS, now)).await?;
        Ok(removed)
    }

    /// Runs batches until nothing is old enough; 0 days = for ever.
    async fn walk(&self, site: &Site, days: u32, what: Old) -> Result<u64, Error> {
        if days == 0 {
            return Ok(0);
        }
        let db = self.site_db(site)?;
        let before = jiff::Timestamp::now().as_millisecond() - i64::from(days) * DAY_MS;
        let mut removed = 0;
        loop {
            let batch = db.upkeep(1024, move |apply| apply.remove_old(what, before)).await?;
            removed += batch.removed;
            if batch.is_last {
                return Ok(removed);
            }
        }
    }
}

impl Apply<'_> {
    /// The next batch of what is older than `before` (ms since 1970).
    fn remove_old(&mut self, what: Old, before: i64) -> Result<Batch, Error> {
        match what {
            Old::Originals => self.remove_originals(before),
            Old::Submissions => self.remove_submissions(before),
            Old::Versions => self.remove_versions(before),
        }
    }

    /// Originals of accepted submissions received before `before`. Those of images are the images; those of rejected
    /// submissions have bounds of their own.
    fn remove_originals(&mut self, before: i64) -> Result<Batch, Error> {
        let rows = self.db.submissions_behind(self.db.progress(ORIGINALS)?, BATCH)?;
        let old = rows.iter().take_while(|row| row.received < before);
        let mut removed = 0;
        for row in old.clone().filter(|row| row.accepted && !row.is_image()) {
            self.db.remove_original(row.sequence)?;
            removed += 1;
        }
        let is_last = self.advance(ORIGINALS, old.map(|row| row.sequence))?;
        Ok(Batch { removed, is_last })
    }

    /// Submissions received before `before`, with their duplicate keys. Those of images stay as long as the image.
    fn remove_submissions(&mut self, before: i64) -> Result<Batch, Error> {
        let rows = self.db.submissions_behind(self.db.progress(SUBMISSIONS)?, BATCH)?;
        let old = rows.iter().take_while(|row| row.received < before);
        let mut removed = 0;
        for row in old.clone().filter(|row| !(row.accepted && row.is_image())) {
            self.db.remove_original(row.sequence)?;
            self.db.remove_submission(row.sequence)?;
            removed += 1;
        }
        let is_last = self.advance(SUBMISSIONS, old.map(|row| row.sequence))?;
        Ok(Batch { removed, is_last })
    }

    /// Versions that were superseded before `before`, unless a destination has not heard of them yet.
    fn remove_versions(&mut self, before: i64) -> Result<Batch, Error> {
        let delivered = self.db.delivered_to()?.unwrap_or(i64::MAX);
        let rows = self.db.versions_behind(self.db.progress(VERSIONS)?, BATCH)?;
        let old = rows.iter().take_while(|row| {
            row.last_updated / 1000 < before && row.predecessor.is_none_or(|vid| vid <= delivered)
        });
        let mut removed = 0;
        for row in old.clone().filter(|row| row.predecessor.is_some()) {
            self.db.remove_version(row.rid, row.version - 1)?;
            removed += 1;
        }
        let is_last = self.advance(VERSIONS, old.map(|row| row.vid))?;
        Ok(Batch { removed, is_last })
    }

    /// Notes how far a walk has come; whether that was all that is old.
    fn advance(&mut self, of: &str, old: impl Iterator<Item = i64>) -> Result<bool, Error> {
        let (count, last) = old.fold((0, None), |(count, _), at| (count + 1, Some(at)));
        if let Some(last) = last {
            self.db.set_progress(of, last)?;
        }
        Ok(count < BATCH)
    }
}

impl OldSubmission {
    fn is_image(&self) -> bool {
        self.has_blob && self.kind == OriginalKind::Dicom.number()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hilum_fhir::{Action, Change, Resource, ResourceType, Target, Timestamp};
    use serde_json::json;

    use super::*;
    use crate::{Config, Destination, DestinationState, Original, sha256};

    fn patient() -> ResourceType {
        ResourceType::from_name("Patient").unwrap()
    }

    struct Bench {
        dir: tempfile::TempDir,
        store: Store,
        site: Site,
    }

    impl Bench {
        async fn open(retention: serde_json::Value) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let config = Config::new(dir.path().to_owned());
            let config = Config { free_bytes_min: 0, blobs_free_bytes_min: 0, ..config };
            let store = Store::open(config).await.unwrap();
            let settings = json!({ "id": "a", "retention": retention });
            store.control().put_site(serde_json::from_value(settings).unwrap()).unwrap();
            let site = store.control().site("a").unwrap().unwrap();
            Self { dir, store, site }
        }

        /// A message received so many days ago, which gives the one Patient another name. Whether it was a repeat.
        async fn message(&self, text: &str, days: i64) -> bool {
            let resource = json!({ "resourceType": "Patient", "id": "p", "name": [{ "family": text }] });
            let change =
                Action::Replace(Target::Id(patient(), "p".into()), Resource::from_value(resource).unwrap());
            let bytes = Bytes::copy_from_slice(text.as_bytes());
            let original = Original {
                kind: OriginalKind::V2,
                listener: "test".into(),
                peer: None,
                identity: Some("RIS".into()),
                control: Some(("RIS".into(), text[..2].into())),
                sha256: sha256(&bytes),
                blob: None,
                bytes: Some(bytes),
                content_type: "application/hl7-v2",
                received: Timestamp::from_micros(
                    jiff::Timestamp::now().as_microsecond() - days * 86_400_000_000,
                ),
                report: None,
            };
            let changes = vec![Change::new(change)];
            self.store.commit(&self.site, original, changes, None).await.unwrap().duplicate
        }

        async fn versions(&self) -> Vec<u64> {
            let history = self.store.history(&self.site, patient(), "p", None, 1000).await.unwrap();
            history.iter().map(|version| version.version).collect()
        }

        /// As if all versions had been superseded long ago.
        async fn remove_versions(&self) -> u64 {
            let db = self.store.site_db(&self.site).unwrap();
            db.upkeep(0, |apply| apply.remove_versions(i64::MAX)).await.unwrap().removed
        }

        async fn destination(&self, cursor: u64) {
            let destination = Destination {
                reference: "Subscription/1".into(),
                cursor,
                next_number: 1,
                state: DestinationState::Active,
                next_at: None,
                error: None,
            };
            self.store.put_destination(&self.site, destination).await.unwrap();
        }
    }

    #[tokio::test]
    async fn originals_go_first_and_their_submissions_later() {
        let bench = Bench::open(json!({ "originals_days": 30, "submissions_days": 90 })).await;
        for n in 0..450 {
            bench.message(&format!("{n:03}"), if n < 300 { 100 } else { 40 }).await;
        }
        let large = "9".repeat(50_000);
        bench.message(&large, 100).await;
        bench.message("new", 10).await;
        let removed = bench.store.retain(&bench.site).await.unwrap();
        assert_eq!(removed, Removed { originals: 451, submissions: 300, ..Removed::default() });
        let rows = bench.store.submissions(&bench.site, None, 1000).await.unwrap();
        assert_eq!(rows.len(), 152, "a late one behind a young one waits for it");
        let kept: Vec<u64> = rows.iter().filter(|row| row.bytes.is_some()).map(|row| row.sequence).collect();
        assert_eq!(kept, [452]);
        assert_eq!(bench.store.retain(&bench.site).await.unwrap(), Removed::default(), "nothing twice");
        assert!(!bench.message("000", 0).await, "forgotten with its submission");
        assert!(bench.message("300", 0).await, "the submission is known still");
        assert_eq!(bench.versions().await.len(), 453, "no version was touched");
        bench.store.close().await;
        let checks = crate::Checks { deep: true, rebuild: false };
        let findings = crate::fsck(&Config::new(bench.dir.path().to_owned()), checks).unwrap();
        assert_eq!(findings[0].faults, [""; 0]);
    }

    #[tokio::test]
    async fn superseded_versions_go_when_every_destination_has_heard_of_them() {
        let bench = Bench::open(json!({ "versions_days": 365 })).await;
        for n in 0..500 {
            bench.message(&format!("{n:03}"), 0).await;
        }
        assert_eq!(bench.store.retain(&bench.site).await.unwrap().versions, 0, "superseded just now");
        bench.destination(100).await;
        while bench.remove_versions().await > 0 {}
        assert_eq!(bench.versions().await, (101..=500).rev().collect::<Vec<u64>>(), "100 were delivered");
        bench.store.matched(&bench.site, Vec::new(), vec![("Subscription/1".to_owned(), 500)]).await.unwrap();
        while bench.remove_versions().await > 0 {}
        assert_eq!(bench.versions().await, [500], "the current one stays");
        let current = bench.store.read(&bench.site, patient(), "p").await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&current.body).contains("499"));
        assert!(!bench.message("500", 0).await);
        assert_eq!(bench.versions().await, [501, 500]);
    }

    #[tokio::test]
    async fn blobs_that_no_row_names_go_after_a_day() {
        let bench = Bench::open(json!({})).await;
        bench.message(&"8".repeat(50_000), 0).await;
        let mut lost = Vec::new();
        for text in ["lost long ago", "lost just now"] {
            let mut writer = bench.store.blob_writer(&bench.site, Bytes::new()).await.unwrap();
            writer.write(text.as_bytes()).await.unwrap();
            lost.push(writer.finish().await.unwrap().id);
        }
        let row = bench.store.submissions(&bench.site, None, 1).await.unwrap().remove(0);
        for blob in [row.blob.unwrap(), lost[0]] {
            let name = blob.hex();
            let path = bench.dir.path().join("sites/a/blobs").join(&name[..2]).join(name);
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        }
        let removed = bench.store.retain(&bench.site).await.unwrap();
        assert_eq!(removed, Removed { blobs: 1, ..Removed::default() });
        for (blob, is_there) in [(row.blob.unwrap(), true), (lost[0], false), (lost[1], true)] {
            assert_eq!(bench.store.blob(&bench.site, &blob).await.unwrap().is_some(), is_there);
        }
        assert_eq!(bench.store.retain(&bench.site).await.unwrap(), Removed::default(), "once a day");
    }
}

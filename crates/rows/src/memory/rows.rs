//! Heads, versions, the index.

use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Included};
use std::sync::Arc;

use hilum_fhir::ResourceType;

use super::Session;
use super::tables::{NamedHead, StoredRow, Tables, add, limit};
use crate::face::{Index, Resources, WriteResources};
use crate::keys::{Key, Lookup, Rows};
use crate::row::{Candidate, Changed, Content, Head, HeadRow, StoredVersion, VersionRow, Walk};
use crate::{Error, FeedEntry, Version};

impl Resources for Session {
    fn head(&self, of: ResourceType, id: &str) -> Result<Option<Head>, Error> {
        Ok(self.tables.borrow().named(of, id).map(|named| named.head))
    }

    fn head_of(&self, rid: i64) -> Result<Option<(ResourceType, String, Head, i64)>, Error> {
        let tables = self.tables.borrow();
        let Some(named) = tables.heads.get(&rid) else { return Ok(None) };
        let version = tables.versions.get(&named.head.vid);
        Ok(version.map(|version| (named.of, named.id.clone(), named.head, version.last_updated)))
    }

    fn name(&self, rid: i64) -> Result<Option<(ResourceType, String)>, Error> {
        Ok(self.tables.borrow().heads.get(&rid).map(|named| (named.of, named.id.clone())))
    }

    fn content(&self, vid: i64) -> Result<Content, Error> {
        let tables = self.tables.borrow();
        let row = tables.versions.get(&vid).ok_or_else(|| Error::unavailable("a version vanished"))?;
        Ok(Content { last_updated: row.last_updated, encoding: row.encoding, body: row.body.clone() })
    }

    fn current(&self, of: ResourceType, id: &str) -> Result<Option<Version>, Error> {
        let tables = self.tables.borrow();
        tables.named(of, id).and_then(|named| tables.told(named.head.vid)).transpose()
    }

    fn version(&self, of: ResourceType, id: &str, number: u64) -> Result<Option<Version>, Error> {
        let tables = self.tables.borrow();
        let Some(rid) = tables.named(of, id).map(|named| named.head.rid) else { return Ok(None) };
        tables.numbers.get(&(rid, number.cast_signed())).and_then(|vid| tables.told(*vid)).transpose()
    }

    fn history(
        &self,
        of: ResourceType,
        id: &str,
        before: Option<u64>,
        count: u32,
    ) -> Result<Vec<Version>, Error> {
        let tables = self.tables.borrow();
        let Some(rid) = tables.named(of, id).map(|named| named.head.rid) else { return Ok(Vec::new()) };
        let before = before.map_or(i64::MAX, u64::cast_signed);
        let older = tables.numbers.range((rid, i64::MIN)..(rid, before)).rev().take(limit(count));
        older.filter_map(|(_, vid)| tables.told(*vid)).collect()
    }

    fn feed(&self, after: u64, max: u32) -> Result<Vec<FeedEntry>, Error> {
        let tables = self.tables.borrow();
        let later = tables.versions.range((Excluded(after.cast_signed()), Included(i64::MAX)));
        let told = later.filter_map(|(vid, _)| Some((vid.cast_unsigned(), tables.told(*vid)?)));
        told.take(limit(max))
            .map(|(position, version)| Ok(FeedEntry { position, version: version? }))
            .collect()
    }

    fn replaced_by(&self, survivor: i64, max: usize) -> Result<Vec<(i64, i64)>, Error> {
        let tables = self.tables.borrow();
        let replaced = tables.heads.values().filter(|named| named.head.successor == Some(survivor));
        let live = replaced.filter(|named| !named.head.deleted);
        Ok(live.take(max).map(|named| (named.head.rid, named.head.vid)).collect())
    }

    fn heard(&self, rid: i64, sender: i64) -> Result<Option<i64>, Error> {
        Ok(self.tables.borrow().heard.get(&(rid, sender)).copied())
    }
}

impl WriteResources for Session {
    fn add_version(&self, row: &VersionRow<'_>) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        let (vid, version) = (row.vid.cast_signed(), row.version.cast_signed());
        let stored = StoredRow {
            rid: row.rid,
            version,
            last_updated: row.last_updated,
            operation: row.operation,
            submission: row.submission.map(u64::cast_signed),
            encoding: row.body.map_or(0, |(encoding, _)| encoding),
            body: row.body.map(|(_, body)| body.to_vec()),
        };
        add(&mut tables.versions, vid, Arc::new(stored))?;
        add(&mut tables.numbers, (row.rid, version), vid)
    }

    fn add_head(&self, row: &HeadRow<'_>) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        let head = Head {
            rid: row.rid,
            version: row.version,
            vid: row.vid.cast_signed(),
            ord: row.ord,
            deleted: false,
            applied: row.applied.map(|(applied, _)| applied),
            sender: row.applied.and_then(|(_, sender)| sender),
            successor: None,
        };
        add(&mut tables.names, (row.resource_type.number(), row.id.to_owned()), row.rid)?;
        add(&mut tables.heads, row.rid, NamedHead { of: row.resource_type, id: row.id.to_owned(), head })
    }

    fn move_head(&self, row: &HeadRow<'_>) -> Result<(), Error> {
        self.change_head(row.rid, |head| {
            (head.version, head.vid, head.deleted) = (row.version, row.vid.cast_signed(), false);
            head.ord = row.ord;
            if let Some((applied, sender)) = row.applied {
                head.applied = Some(applied);
                head.sender = sender.or(head.sender);
            }
        });
        Ok(())
    }

    fn delete_head(&self, row: &HeadRow<'_>) -> Result<(), Error> {
        self.change_head(row.rid, |head| {
            (head.version, head.vid, head.deleted) = (row.version, row.vid.cast_signed(), true);
        });
        Ok(())
    }

    fn set_successor(&self, prior: i64, survivor: Option<i64>) -> Result<(), Error> {
        self.change_head(prior, |head| head.successor = survivor);
        Ok(())
    }

    fn set_applied(&self, rid: i64, sender: Option<i64>, applied: i64) -> Result<(), Error> {
        self.change_head(rid, |head| {
            head.applied = Some(applied);
            head.sender = sender.or(head.sender);
        });
        Ok(())
    }

    fn put_heard(&self, rid: i64, sender: i64, applied: i64) -> Result<(), Error> {
        let mut tables = self.tables.borrow_mut();
        let last = Arc::make_mut(&mut tables.heard).entry((rid, sender)).or_insert(applied);
        *last = applied.max(*last);
        Ok(())
    }

    fn write_index(&self, rid: i64, old: (&Rows, i64), new: (&Rows, i64)) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        let keys = Arc::make_mut(&mut tables.keys);
        for key in &old.0.keys {
            keys.remove(&(*key, old.1, rid));
        }
        keys.extend(new.0.keys.iter().map(|key| (*key, new.1, rid)));
        let strings = Arc::make_mut(&mut tables.strings);
        for (key, text) in &old.0.strings {
            strings.remove(&(*key, text.clone(), rid));
        }
        strings.extend(new.0.strings.iter().map(|(key, text)| (*key, text.clone(), rid)));
        let ranges = Arc::make_mut(&mut tables.ranges);
        for (key, low, high) in &old.0.ranges {
            ranges.remove(&(*key, *low, *high, rid));
        }
        ranges.extend(new.0.ranges.iter().map(|(key, low, high)| (*key, *low, *high, rid)));
        Ok(())
    }
}

impl Session {
    fn change_head(&self, rid: i64, change: impl FnOnce(&mut Head)) {
        let tables = &mut *self.tables.borrow_mut();
        if let Some(named) = Arc::make_mut(&mut tables.heads).get_mut(&rid) {
            change(&mut named.head);
        }
    }
}

impl Index for Session {
    fn with_key(&self, key: Key, max: usize) -> Result<Vec<(i64, i64)>, Error> {
        let tables = self.tables.borrow();
        Ok(tables.live_with(key).take(max).map(|named| (named.head.rid, named.head.vid)).collect())
    }

    fn with_value(&self, value: i64, max: usize) -> Result<Vec<(i64, i64)>, Error> {
        let tables = self.tables.borrow();
        let rids: BTreeSet<i64> = tables.rows_of_value(value).map(|(_, _, rid)| *rid).collect();
        let live = rids.into_iter().filter_map(|rid| tables.live(rid));
        Ok(live.take(max).map(|found| (found.rid, found.vid)).collect())
    }

    fn with_value_and(
        &self,
        value: i64,
        key: Key,
        max: usize,
        looked_at_max: usize,
    ) -> Result<Vec<(i64, i64)>, Error> {
        let tables = self.tables.borrow();
        let looked_at = tables.rows_of_value(value).take(looked_at_max);
        let both = looked_at.filter(|(_, ord, rid)| tables.keys.contains(&(key, *ord, *rid)));
        let rids: BTreeSet<i64> = both.map(|(_, _, rid)| *rid).collect();
        let live = rids.into_iter().filter_map(|rid| tables.live(rid));
        Ok(live.take(max).map(|found| (found.rid, found.vid)).collect())
    }

    fn ids_with_key(&self, key: Key, max: usize) -> Result<Vec<String>, Error> {
        let tables = self.tables.borrow();
        Ok(tables.live_with(key).take(max).map(|named| named.id.clone()).collect())
    }

    fn systems_of(&self, value: i64, max: usize) -> Result<Vec<i64>, Error> {
        let tables = self.tables.borrow();
        let first = (Key { value, system: i64::MIN }, i64::MIN, i64::MIN);
        let rows = tables.keys.range(first..).take_while(|(key, ..)| key.value == value);
        let mut systems: Vec<i64> = rows.map(|(key, ..)| key.system).collect();
        systems.dedup();
        systems.truncate(max);
        Ok(systems)
    }

    fn count_key(&self, key: Key, max: i64) -> Result<i64, Error> {
        let tables = self.tables.borrow();
        Ok(i64::try_from(tables.rows_of(key).count()).unwrap_or(i64::MAX).min(max))
    }

    fn count_strings(&self, key: i64, prefix: &str, max: i64) -> Result<i64, Error> {
        let tables = self.tables.borrow();
        Ok(i64::try_from(tables.starting_with(key, prefix).count()).unwrap_or(i64::MAX).min(max))
    }

    fn count(&self, of: ResourceType) -> Result<u64, Error> {
        let tables = self.tables.borrow();
        Ok(tables.heads.values().filter(|named| named.of == of && !named.head.deleted).count() as u64)
    }

    fn step(&self, walk: &Walk) -> Result<Vec<Candidate>, Error> {
        let tables = self.tables.borrow();
        let mut all: Vec<Candidate> = match walk.key {
            Some(key) => tables
                .rows_of(key)
                .filter_map(|(_, ord, rid)| Some(Candidate { ord: *ord, ..tables.live(*rid)? }))
                .collect(),
            None => {
                let of_type = tables.heads.values().filter(|named| named.of == walk.of);
                of_type.filter_map(|named| tables.live(named.head.rid)).collect()
            }
        };
        all.sort_unstable_by_key(|c| (c.ord, c.rid));
        let after = (walk.after.ord, walk.after.rid);
        if walk.descending {
            all.reverse();
            all.retain(|c| (c.ord, c.rid) < after);
        } else {
            all.retain(|c| (c.ord, c.rid) > after);
        }
        all.truncate(walk.limit);
        Ok(all)
    }

    fn newest(&self) -> Result<u64, Error> {
        Ok(self.tables.borrow().counters.vid)
    }

    fn changed_since(&self, of: ResourceType, after: u64, max: u32) -> Result<Vec<Changed>, Error> {
        let (tables, after) = (self.tables.borrow(), after.cast_signed());
        let later = tables.versions.range((Excluded(after), Included(i64::MAX))).take(limit(max));
        let rids: BTreeSet<i64> = later.map(|(_, row)| row.rid).collect();
        let heads = rids.iter().filter_map(|rid| tables.heads.get(rid)).filter(|named| named.of == of);
        let changed = heads.map(|NamedHead { head, .. }| {
            let numbers = tables.numbers.range((head.rid, i64::MIN)..=(head.rid, i64::MAX));
            let earlier = numbers.map(|(_, vid)| *vid).filter(|vid| *vid <= after).max();
            Changed { rid: head.rid, ord: head.ord, deleted: head.deleted, earlier }
        });
        Ok(changed.collect())
    }

    fn versions_of(
        &self,
        candidates: &[Candidate],
        keys: &[Key],
    ) -> Result<Vec<(Candidate, Version)>, Error> {
        let tables = self.tables.borrow();
        let has_all = |c: &&Candidate| keys.iter().all(|key| tables.keys.contains(&(*key, c.ord, c.rid)));
        let told = candidates.iter().filter(has_all).filter_map(|c| Some((*c, tables.told(c.vid)?)));
        told.map(|(candidate, version)| Ok((candidate, version?))).collect()
    }

    fn hits(
        &self,
        lookup: &Lookup,
        _max: usize,
        each: &mut dyn FnMut(Candidate) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let tables = self.tables.borrow();
        let mut found: Vec<i64> = Vec::new();
        match lookup {
            Lookup::Ids(_) => {}
            Lookup::Keys { keys, .. } => {
                found.extend(keys.iter().flat_map(|key| tables.rows_of(*key)).map(|(_, _, rid)| *rid));
            }
            Lookup::Strings(key, forms) => {
                found.extend(forms.iter().flat_map(|form| tables.starting_with(*key, form)));
            }
            Lookup::Ranges(key, wanted) => {
                let rows = tables.ranges.range((*key, i64::MIN, i64::MIN, i64::MIN)..);
                let rows = rows.take_while(|(of, ..)| of == key);
                let overlaps = |low: i64, high: i64| wanted.iter().any(|(l, h)| low <= *h && high >= *l);
                found.extend(rows.filter(|(_, low, high, _)| overlaps(*low, *high)).map(|row| row.3));
            }
        }
        found.into_iter().filter_map(|rid| tables.live(rid)).try_for_each(each)
    }

    fn candidates_at_once(&self) -> usize {
        1
    }
}

impl Tables {
    fn named(&self, of: ResourceType, id: &str) -> Option<&NamedHead> {
        self.heads.get(self.names.get(&(of.number(), id.to_owned()))?)
    }

    /// A resource that is not deleted.
    fn live(&self, rid: i64) -> Option<Candidate> {
        let head = self.heads.get(&rid)?.head;
        (!head.deleted).then_some(Candidate { ord: head.ord, rid, vid: head.vid })
    }

    /// The resources with a key that are not deleted, in order of rid.
    fn live_with(&self, key: Key) -> impl Iterator<Item = &NamedHead> {
        let mut rids: Vec<i64> = self.rows_of(key).map(|(_, _, rid)| *rid).collect();
        rids.sort_unstable();
        rids.into_iter().filter_map(|rid| self.heads.get(&rid)).filter(|named| !named.head.deleted)
    }

    fn rows_of(&self, key: Key) -> impl Iterator<Item = &(Key, i64, i64)> {
        self.keys.range((key, i64::MIN, i64::MIN)..=(key, i64::MAX, i64::MAX))
    }

    /// The rows of a value, whatever the system.
    fn rows_of_value(&self, value: i64) -> impl Iterator<Item = &(Key, i64, i64)> {
        let first = (Key { value, system: i64::MIN }, i64::MIN, i64::MIN);
        self.keys.range(first..).take_while(move |(key, ..)| key.value == value)
    }

    /// The rids of strings that start with a prefix.
    fn starting_with(&self, key: i64, prefix: &str) -> impl Iterator<Item = i64> {
        let rows = self.strings.range((key, prefix.to_owned(), i64::MIN)..);
        rows.take_while(move |(of, text, _)| *of == key && text.starts_with(prefix)).map(|(.., rid)| *rid)
    }

    /// A version as it is told.
    fn told(&self, vid: i64) -> Option<Result<Version, Error>> {
        let row = self.versions.get(&vid)?;
        let named = self.heads.get(&row.rid)?;
        let stored = StoredVersion {
            resource_type: named.of.number(),
            id: named.id.clone(),
            version: row.version,
            last_updated: row.last_updated,
            operation: row.operation.number(),
            submission: row.submission,
            encoding: row.encoding,
            body: row.body.as_deref(),
        };
        Some(stored.complete())
    }
}

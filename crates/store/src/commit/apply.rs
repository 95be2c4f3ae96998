//! Inside the transaction: versions, index rows, the submission, the duplicate key.

use std::sync::Arc;

use hilum_fhir::search::{Context, index};
use hilum_fhir::{Resource, ResourceType, Timestamp};
use hilum_rows::keys::{self, Rows};
use hilum_rows::row::{Counters, HeadRow, VersionRow};
use hilum_rows::{Tx, body};
use jiff::tz::TimeZone;
use parking_lot::{Mutex, MutexGuard};

use super::recent::{Recent, Thing};
use crate::query::lookup::Base;
use crate::{Error, Operation, Remark};

/// What extraction needs to know of a site.
#[derive(Clone, Debug)]
pub(crate) struct SiteContext {
    pub(super) zone: TimeZone,
    /// What the last commits touched; `None` where others write too.
    pub(super) recent: Option<Arc<Mutex<Recent>>>,
}

/// A version about to be written: everything that costs CPU is done.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) resource_type: ResourceType,
    pub(super) id: String,
    pub(super) stored: Vec<u8>,
    pub(super) encoding: i64,
    pub(super) packed: Vec<u8>,
    pub(super) rows: Rows,
    pub(super) clinical_date: Option<i64>,
}

/// A version written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) rid: i64,
    pub(super) version: u64,
    pub(super) last_updated: Timestamp,
}

/// A job's hand inside the transaction.
pub(crate) struct Apply<'t> {
    pub(crate) db: &'t (dyn Tx + 't),
    pub(super) counters: &'t mut Counters,
    pub(super) context: &'t SiteContext,
    /// Number of the submission being applied.
    pub(super) submission: u64,
    /// Microseconds since 1970.
    pub(super) now: i64,
    /// What the submission being applied has to say of itself.
    pub(super) remarks: Vec<Remark>,
    pub(super) recent: Option<MutexGuard<'t, Recent>>,
}

/// Prepares a resource: stored form, compression, index rows.
pub(super) fn prepare(resource: &Resource, id: &str, zone: &TimeZone, now: i64) -> Prepared {
    let stored = body::stored_form(resource, id);
    let (encoding, packed) = body::encode(&stored);
    let entries = index(resource, &Context { zone: zone.clone(), now: Timestamp::from_micros(now) });
    Prepared {
        resource_type: resource.resource_type(),
        id: id.to_owned(),
        stored,
        encoding,
        packed,
        rows: keys::rows(&entries),
        clinical_date: entries.clinical_date,
    }
}

impl<'t> Apply<'t> {
    pub(super) fn new(db: &'t (dyn Tx + 't), counters: &'t mut Counters, context: &'t SiteContext) -> Self {
        let now = jiff::Timestamp::now().as_microsecond();
        let mut recent = context.recent.as_ref().map(|recent| recent.lock());
        if let Some(recent) = &mut recent {
            recent.begin(counters.vid);
        }
        Self { db, counters, context, submission: 0, now, remarks: Vec::new(), recent }
    }

    /// Writes a version after `base` (or the first one).
    pub(super) fn write(
        &mut self,
        prepared: &Prepared,
        base: Option<&Base>,
        applied: Option<(i64, Option<i64>)>,
    ) -> Result<Written, Error> {
        let last_updated = base.map_or(self.now, |base| self.now.max(base.last_updated + 1));
        let version = base.map_or(1, |base| base.head.version + 1);
        let created = base.map_or(last_updated / 1000, |base| base.head.ord);
        let ord = prepared.clinical_date.unwrap_or(created);
        let rid = base.map_or_else(
            || {
                self.counters.rid += 1;
                self.counters.rid
            },
            |base| base.head.rid,
        );
        let operation =
            if base.is_some_and(|b| !b.head.deleted) { Operation::Update } else { Operation::Create };
        let body = Some((prepared.encoding, prepared.packed.as_slice()));
        let vid = self.version(rid, version, last_updated, operation, body)?;
        let row = HeadRow {
            rid,
            resource_type: prepared.resource_type,
            id: &prepared.id,
            version,
            vid,
            ord,
            applied,
        };
        if base.is_some() {
            self.db.move_head(&row)?
        } else {
            self.db.add_head(&row)?
        }
        let nothing = Rows::default();
        let (old, old_ord) = base.map_or((&nothing, ord), |base| (&base.rows, base.head.ord));
        self.db.write_index(rid, (old, old_ord), (&prepared.rows, ord))?;
        self.touch_index(old, &prepared.rows);
        self.touch(Thing::named(prepared.resource_type, &prepared.id));
        Ok(Written { rid, version, last_updated: Timestamp::from_micros(last_updated) })
    }

    /// Writes a deletion.
    pub(super) fn delete(
        &mut self,
        resource_type: ResourceType,
        id: &str,
        base: &Base,
    ) -> Result<Written, Error> {
        let (rid, version) = (base.head.rid, base.head.version + 1);
        let last_updated = self.now.max(base.last_updated + 1);
        let vid = self.version(rid, version, last_updated, Operation::Delete, None)?;
        let ord = base.head.ord;
        self.db.delete_head(&HeadRow { rid, resource_type, id, version, vid, ord, applied: None })?;
        let nothing = Rows::default();
        self.db.write_index(rid, (&base.rows, ord), (&nothing, ord))?;
        self.touch_index(&base.rows, &nothing);
        self.touch(Thing::named(resource_type, id));
        Ok(Written { rid, version, last_updated: Timestamp::from_micros(last_updated) })
    }

    fn version(
        &mut self,
        rid: i64,
        version: u64,
        last_updated: i64,
        operation: Operation,
        body: Option<(i64, &[u8])>,
    ) -> Result<u64, Error> {
        self.take_position();
        self.touch(Thing::row(rid));
        let vid = self.counters.vid;
        let submission = (self.submission > 0).then_some(self.submission);
        self.db.add_version(&VersionRow { vid, rid, version, last_updated, operation, submission, body })?;
        Ok(vid)
    }

    /// Takes a feed position without a version: what a plan may rest on changed, so plans made before are looked at again.
    pub(super) fn take_position(&mut self) {
        self.counters.vid += 1;
        if let Some(recent) = &mut self.recent {
            recent.advance(self.counters.vid);
        }
    }

    /// Notes that the job changes something that a plan may rest on, at the position it took last.
    pub(super) fn touch(&mut self, thing: Thing) {
        if let Some(recent) = &mut self.recent {
            recent.touch(thing);
        }
    }

    fn touch_index(&mut self, old: &Rows, new: &Rows) {
        if let Some(recent) = &mut self.recent {
            let changed = old.keys_without(new, false).chain(new.keys_without(old, false));
            changed.for_each(|key| recent.touch(Thing::key(*key)));
        }
    }

    /// Takes the next submission number.
    pub(super) fn begin_submission(&mut self) -> u64 {
        self.counters.seq += 1;
        self.submission = self.counters.seq;
        self.submission
    }
}

//! Inside the transaction: versions, index rows, the submission, the duplicate key.

use hilum_fhir::search::{Context, index};
use hilum_fhir::{Resource, ResourceType, Timestamp};
use jiff::tz::TimeZone;
use rusqlite::{Connection, OptionalExtension, params};

use super::body;
use super::keys::{self, Rows};
use super::lookup;
use super::plan::{self, Plan};
use super::submission::Packed;
use super::writer::breaks;
use crate::{Error, Operation};

/// The numbers given out so far. Never reused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counters {
    pub(super) rid: i64,
    pub(crate) vid: u64,
    pub(super) seq: u64,
}

impl Counters {
    pub(super) fn read(connection: &Connection) -> Result<Self, Error> {
        let max = |sql: &str| connection.query_row(sql, [], |r| r.get::<_, i64>(0));
        Ok(Self {
            rid: max("SELECT coalesce(max(rid),0) FROM head")?,
            vid: max("SELECT coalesce(max(vid),0) FROM version")?.cast_unsigned(),
            seq: max("SELECT coalesce(max(seq),0) FROM submission")?.cast_unsigned(),
        })
    }
}

/// What extraction needs to know of a site.
#[derive(Clone, Debug)]
pub(crate) struct SiteContext {
    pub(super) zone: TimeZone,
}

/// The current state of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) rid: i64,
    pub(super) version: u64,
    pub(super) vid: i64,
    pub(super) ord: i64,
    pub(super) deleted: bool,
    pub(super) applied: Option<i64>,
    pub(super) successor: Option<i64>,
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

/// The version a new one follows.
#[derive(Clone, Debug)]
pub(super) struct Base {
    pub(super) head: Head,
    pub(super) last_updated: i64,
    pub(super) resource: Option<Resource>,
    pub(super) rows: Rows,
}

/// A version written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    pub(super) rid: i64,
    pub(super) version: u64,
    pub(super) last_updated: Timestamp,
}

/// A submission committed before: its number and its answer.
type Stored = (u64, Option<Vec<u8>>);

/// A job's hand inside the transaction.
pub(crate) struct Apply<'t> {
    pub(super) connection: &'t Connection,
    pub(super) counters: &'t mut Counters,
    pub(super) context: &'t SiteContext,
    /// Number of the submission being applied.
    pub(super) submission: u64,
    /// Microseconds since 1970.
    pub(super) now: i64,
    /// An error after which the connection cannot be trusted.
    pub(super) broken: Option<Error>,
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
    pub(super) fn new(
        connection: &'t Connection,
        counters: &'t mut Counters,
        context: &'t SiteContext,
    ) -> Self {
        let now = jiff::Timestamp::now().as_microsecond();
        Self { connection, counters, context, submission: 0, now, broken: None }
    }

    /// Notes an error that ends the batch.
    pub(super) fn noted(&mut self, error: rusqlite::Error) -> Error {
        let breaks = breaks(&error);
        let error = Error::from(error);
        if breaks {
            self.broken = Some(Error {
                source: None,
                issues: Vec::new(),
                message: error.message.clone(),
                kind: error.kind,
            });
        }
        error
    }

    /// Writes a version after `base` (or the first one).
    pub(super) fn write(
        &mut self,
        prepared: &Prepared,
        base: Option<&Base>,
        happened: Option<i64>,
    ) -> Result<Written, Error> {
        self.try_write(prepared, base, happened).map_err(|e| self.noted(e))
    }

    fn try_write(
        &mut self,
        prepared: &Prepared,
        base: Option<&Base>,
        happened: Option<i64>,
    ) -> rusqlite::Result<Written> {
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
        let vid = self.version_row(
            rid,
            version,
            last_updated,
            operation,
            Some((prepared.encoding, &prepared.packed)),
        )?;
        match base {
            None => {
                let sql =
                    "INSERT INTO head(rid,rt,fid,ver,vid,ord,deleted,applied) VALUES(?1,?2,?3,?4,?5,?6,0,?7)";
                let row =
                    params![rid, prepared.resource_type.number(), prepared.id, version, vid, ord, happened];
                self.connection.prepare_cached(sql)?.execute(row)?;
            }
            Some(_) => {
                let sql = "UPDATE head SET ver=?2, vid=?3, ord=?4, deleted=0, applied=coalesce(?5,applied) WHERE rid=?1";
                self.connection.prepare_cached(sql)?.execute(params![rid, version, vid, ord, happened])?;
            }
        }
        let nothing = Rows::default();
        let (old, old_ord) = base.map_or((&nothing, ord), |base| (&base.rows, base.head.ord));
        self.index(rid, (old, old_ord), (&prepared.rows, ord))?;
        Ok(Written { rid, version, last_updated: Timestamp::from_micros(last_updated) })
    }

    /// Writes a deletion.
    pub(super) fn delete(&mut self, base: &Base) -> Result<Written, Error> {
        self.try_delete(base).map_err(|e| self.noted(e))
    }

    fn try_delete(&mut self, base: &Base) -> rusqlite::Result<Written> {
        let (rid, version) = (base.head.rid, base.head.version + 1);
        let last_updated = self.now.max(base.last_updated + 1);
        let vid = self.version_row(rid, version, last_updated, Operation::Delete, None)?;
        let sql = "UPDATE head SET ver=?2, vid=?3, deleted=1 WHERE rid=?1";
        self.connection.prepare_cached(sql)?.execute(params![rid, version, vid])?;
        self.index(rid, (&base.rows, base.head.ord), (&Rows::default(), base.head.ord))?;
        Ok(Written { rid, version, last_updated: Timestamp::from_micros(last_updated) })
    }

    fn version_row(
        &mut self,
        rid: i64,
        version: u64,
        last_updated: i64,
        operation: Operation,
        body: Option<(i64, &[u8])>,
    ) -> rusqlite::Result<u64> {
        self.counters.vid += 1;
        let vid = self.counters.vid;
        let submission = (self.submission > 0).then_some(self.submission);
        let (encoding, body) = body.map_or((0, None), |(encoding, body)| (encoding, Some(body)));
        let sql = "INSERT INTO version VALUES(?1,?2,?3,?4,?5,?6,?7,?8)";
        let row = params![vid, rid, version, last_updated, operation.number(), submission, encoding, body];
        self.connection.prepare_cached(sql)?.execute(row)?;
        Ok(vid)
    }

    fn index(&self, rid: i64, old: (&Rows, i64), new: (&Rows, i64)) -> rusqlite::Result<()> {
        write_index(self.connection, rid, old, new)
    }

    /// Makes the index again from the current bodies. Within a transaction.
    pub(super) fn reindex(connection: &Connection, zone: &TimeZone) -> Result<(), Error> {
        connection.execute_batch("DELETE FROM ix; DELETE FROM ix_str; DELETE FROM ix_range;")?;
        let mut heads = connection.prepare("SELECT rt, fid FROM head WHERE deleted=0")?;
        let mut rows = heads.query([])?;
        while let Some(row) = rows.next()? {
            let Some(of) = ResourceType::from_number(row.get(0)?) else { continue };
            if let Some(base) = lookup::base(connection, of, &row.get::<_, String>(1)?, zone)? {
                let (nothing, ord) = (Rows::default(), base.head.ord);
                write_index(connection, base.head.rid, (&nothing, ord), (&base.rows, ord))?;
            }
        }
        Ok(())
    }

    /// Marks a Patient as replaced by another.
    pub(super) fn set_successor(&mut self, prior: i64, survivor: i64) -> Result<(), Error> {
        let sql = "UPDATE head SET successor=?2 WHERE rid=?1";
        let done = self.connection.prepare_cached(sql).and_then(|mut s| s.execute([prior, survivor]));
        done.map(drop).map_err(|e| self.noted(e))
    }

    /// Writes a resource of our own under an id (ImagingStudy drawn from rows); nothing when the content is the same.
    pub(super) fn put(&mut self, resource: &Resource, id: &str) -> Result<Option<Written>, Error> {
        let zone = self.context.zone.clone();
        let base = lookup::base(self.connection, resource.resource_type(), id, &zone)?;
        if let Some(base) = &base
            && !base.head.deleted
            && base.resource.as_ref().is_some_and(|stored| hilum_fhir::merge::same_content(stored, resource))
        {
            return Ok(None);
        }
        let prepared = prepare(resource, id, &zone, self.now);
        self.write(&prepared, base.as_ref(), None).map(Some)
    }

    /// Takes the next submission number.
    pub(super) fn begin_submission(&mut self) -> u64 {
        self.counters.seq += 1;
        self.submission = self.counters.seq;
        self.submission
    }

    /// The stored answer of a submission with this duplicate key.
    pub(super) fn duplicate(&mut self, key: i64, sha256: &[u8; 32]) -> Result<Option<Stored>, Error> {
        let sql = "SELECT d.seq, s.answer FROM dedupe d LEFT JOIN submission s ON s.seq=d.seq WHERE d.ctl=?1 AND d.sha=?2";
        let found = self.connection.prepare_cached(sql).and_then(|mut s| {
            s.query_row(params![key, sha256], |r| Ok((r.get::<_, i64>(0)?.cast_unsigned(), r.get(1)?)))
                .optional()
        });
        found.map_err(|e| self.noted(e))
    }

    /// Executes a plan: all its versions and imaging rows.
    pub(super) fn execute(&mut self, plan: &Plan) -> Result<plan::Executed, Error> {
        plan.execute(self)
    }
}

/// Removes the rows only the old version has and adds those only the new one has.
fn write_index(
    connection: &Connection,
    rid: i64,
    old: (&Rows, i64),
    new: (&Rows, i64),
) -> rusqlite::Result<()> {
    let moved = old.1 != new.1;
    let mut remove =
        connection.prepare_cached("DELETE FROM ix WHERE key=?1 AND sys=?2 AND ord=?3 AND rid=?4")?;
    for key in old.0.keys.iter().filter(|key| moved || new.0.keys.binary_search(key).is_err()) {
        remove.execute(params![key.value, key.system, old.1, rid])?;
    }
    let mut add = connection.prepare_cached("INSERT OR IGNORE INTO ix VALUES(?1,?2,?3,?4)")?;
    for key in new.0.keys.iter().filter(|key| moved || old.0.keys.binary_search(key).is_err()) {
        add.execute(params![key.value, key.system, new.1, rid])?;
    }
    let mut remove = connection.prepare_cached("DELETE FROM ix_str WHERE key=?1 AND val=?2 AND rid=?3")?;
    for (key, text) in old.0.strings.iter().filter(|row| !new.0.strings.contains(row)) {
        remove.execute(params![key, text, rid])?;
    }
    let mut add = connection.prepare_cached("INSERT OR IGNORE INTO ix_str VALUES(?1,?2,?3)")?;
    for (key, text) in new.0.strings.iter().filter(|row| !old.0.strings.contains(row)) {
        add.execute(params![key, text, rid])?;
    }
    let mut remove =
        connection.prepare_cached("DELETE FROM ix_range WHERE key=?1 AND lo=?2 AND hi=?3 AND rid=?4")?;
    for (key, low, high) in old.0.ranges.iter().filter(|row| !new.0.ranges.contains(row)) {
        remove.execute(params![key, low, high, rid])?;
    }
    let mut add = connection.prepare_cached("INSERT OR IGNORE INTO ix_range VALUES(?1,?2,?3,?4)")?;
    for (key, low, high) in new.0.ranges.iter().filter(|row| !old.0.ranges.contains(row)) {
        add.execute(params![key, low, high, rid])?;
    }
    Ok(())
}

impl Operation {
    pub(super) fn number(self) -> i64 {
        match self {
            Self::Create => 0,
            Self::Update => 1,
            Self::Delete => 2,
        }
    }

    pub(super) fn from_number(number: i64) -> Self {
        match number {
            0 => Self::Create,
            1 => Self::Update,
            _ => Self::Delete,
        }
    }
}

/// What a commit did, before its answer is put together.
pub(crate) enum Applied {
    /// Committed before; the stored answer.
    Duplicate(u64, Option<Vec<u8>>),
    /// Written: the plan and what came of it.
    Written(u64, Box<(Plan, plan::Executed)>),
}

impl Applied {
    /// The commit as it is told. Runs on the caller's side: bodies are put together off the writer.
    pub(crate) fn told(self, answer: Option<bytes::Bytes>) -> crate::Commit {
        match self {
            Self::Duplicate(submission, answer) => crate::Commit {
                submission,
                outcomes: Vec::new(),
                answer: answer.map(Into::into),
                duplicate: true,
            },
            Self::Written(submission, written) => crate::Commit {
                submission,
                outcomes: written.0.outcomes(&written.1),
                answer,
                duplicate: false,
            },
        }
    }
}

impl Apply<'_> {
    /// Commits a submission: duplicate check, plan (made again when the world moved), versions, imaging rows, the submission's row.
    pub(crate) fn commit(
        &mut self,
        packed: &Packed,
        plan: Plan,
        changes: &[hilum_fhir::Change],
        answer: Option<&[u8]>,
    ) -> Result<Applied, Error> {
        if let Some(key) = packed.control_key()
            && let Some((submission, answer)) = self.duplicate(key, &packed.original.sha256)?
        {
            return Ok(Applied::Duplicate(submission, answer));
        }
        let zone = self.context.zone.clone();
        let plan = if plan.holds(self.connection, &zone, self.now, self.counters.vid)? {
            plan
        } else {
            plan::plan(self.connection, &zone, self.now, changes)?
        };
        let submission = self.begin_submission();
        let executed = self.execute(&plan)?;
        self.submission(packed, answer, None, &executed.targets)?;
        Ok(Applied::Written(submission, Box::new((plan, executed))))
    }

    /// Keeps a rejected submission; `kept` is the size of its original, when there is one.
    pub(crate) fn quarantine(
        &mut self,
        packed: &Packed,
        issues: &[hilum_fhir::Issue],
        answer: Option<&[u8]>,
        kept: Option<u64>,
    ) -> Result<u64, Error> {
        let submission = self.begin_submission();
        self.submission(packed, answer, Some(issues), "")?;
        if let Some(bytes) = kept {
            self.keep_original(packed.original.received.millis(), bytes)?;
        }
        Ok(submission)
    }
}

//! A transaction or a read of one site, and the rows it has still to send.
//!
//! What is written is gathered in arrays and sent with a statement for each table: before a read that could see it, and at the commit. Reads
//! that the rows gathered cannot change (the look-ups of most jobs of a batch) do not wait for them.
//!
//! A job that fails is undone and its neighbours are not. What it gathered and did not send is dropped; what it had to send stands behind a
//! savepoint, made only then: most jobs of a batch send nothing before its end.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::connection::{Connection, Value};
use super::foreseen::{Asked, Foreseen};
use crate::keys::Key;
use crate::row::{Ask, Content, Counters, Duplicate, Head};
use crate::{BlobId, Error};

/// A connection that has turned to one site.
pub(crate) struct Session {
    connection: Connection,
    transaction: Cell<Transaction>,
    /// Number of the site.
    pub(super) site: i32,
    /// Of the job that runs.
    gathered: RefCell<Gathered>,
    /// Of the jobs before it.
    kept: RefCell<Gathered>,
    /// Whether the job that runs has sent rows, behind a savepoint.
    has_savepoint: Cell<bool>,
    /// Read at the begin. Holds for what was not written since.
    foreseen: RefCell<Foreseen>,
    /// Whether blobs were claimed since.
    pub(super) has_claimed: Cell<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transaction {
    /// Each statement is one by itself.
    Never,
    /// A snapshot that begins with the next statement.
    Due,
    Begun,
}

/// Rows to send, column by column.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) versions: Versions,
    pub(super) heads: Heads,
    pub(super) moves: Heads,
    pub(super) deletions: (Vec<i64>, Vec<i64>, Vec<i64>),
    pub(super) keys_out: Keys,
    pub(super) keys_in: Keys,
    pub(super) strings_out: Strings,
    pub(super) strings_in: Strings,
    pub(super) ranges_out: Ranges,
    pub(super) ranges_in: Ranges,
    pub(super) duplicates: Duplicates,
    pub(super) submissions: Submissions,
    /// Statements for tables that get few rows.
    pub(super) others: Vec<(&'static str, Vec<Value>)>,
    /// What the rows are about, sent or not: a read of it has to wait for them.
    pub(super) names: HashSet<(i64, String)>,
    pub(super) rids: HashSet<i64>,
    pub(super) keys: HashSet<Key>,
    pub(super) duplicate_keys: HashSet<i64>,
    unsent: bool,
}

#[derive(Default)]
pub(super) struct Versions {
    pub(super) vid: Vec<i64>,
    pub(super) rid: Vec<i64>,
    pub(super) version: Vec<i64>,
    pub(super) last_updated: Vec<i64>,
    pub(super) operation: Vec<i64>,
    pub(super) submission: Vec<Option<i64>>,
    pub(super) encoding: Vec<i64>,
    pub(super) body: Vec<Option<Vec<u8>>>,
}

#[derive(Default)]
pub(super) struct Heads {
    pub(super) rid: Vec<i64>,
    pub(super) of: Vec<i64>,
    pub(super) id: Vec<String>,
    pub(super) version: Vec<i64>,
    pub(super) vid: Vec<i64>,
    pub(super) ord: Vec<i64>,
    pub(super) applied: Vec<Option<i64>>,
    pub(super) sender: Vec<Option<i64>>,
}

#[derive(Default)]
pub(super) struct Keys {
    pub(super) key: Vec<i64>,
    pub(super) system: Vec<i64>,
    pub(super) ord: Vec<i64>,
    pub(super) rid: Vec<i64>,
}

impl Keys {
    /// In the order of the index, so that neighbours are put in one after the other.
    fn sorted(self) -> Self {
        let mut rows: Vec<[i64; 4]> =
            (0..self.rid.len()).map(|n| [self.key[n], self.system[n], self.ord[n], self.rid[n]]).collect();
        rows.sort_unstable();
        let column = |at: usize| rows.iter().map(|row| row[at]).collect();
        Self { key: column(0), system: column(1), ord: column(2), rid: column(3) }
    }
}

#[derive(Default)]
pub(super) struct Strings {
    pub(super) key: Vec<i64>,
    pub(super) text: Vec<String>,
    pub(super) rid: Vec<i64>,
}

#[derive(Default)]
pub(super) struct Ranges {
    pub(super) key: Vec<i64>,
    pub(super) low: Vec<i64>,
    pub(super) high: Vec<i64>,
    pub(super) rid: Vec<i64>,
}

#[derive(Default)]
pub(super) struct Duplicates {
    pub(super) key: Vec<i64>,
    pub(super) sha256: Vec<Vec<u8>>,
    pub(super) sequence: Vec<i64>,
    pub(super) received: Vec<i64>,
}

#[derive(Default)]
pub(super) struct Submissions {
    pub(super) sequence: Vec<i64>,
    pub(super) kind: Vec<i64>,
    pub(super) received: Vec<i64>,
    pub(super) listener: Vec<String>,
    pub(super) peer: Vec<Option<String>>,
    pub(super) identity: Vec<Option<String>>,
    pub(super) control: Vec<Option<String>>,
    pub(super) sha256: Vec<Vec<u8>>,
    pub(super) accepted: Vec<bool>,
    pub(super) answer: Vec<Option<Vec<u8>>>,
    pub(super) issues: Vec<Option<String>>,
    pub(super) targets: Vec<Option<String>>,
    pub(super) content_type: Vec<String>,
    pub(super) encodings: Vec<i64>,
    pub(super) body: Vec<Option<Vec<u8>>>,
    pub(super) blob: Vec<Option<Vec<u8>>>,
    pub(super) report: Vec<Option<Vec<u8>>>,
    pub(super) message: Vec<Option<String>>,
    pub(super) called: Vec<Option<String>>,
    pub(super) replays: Vec<Option<i64>>,
    pub(super) attention: Vec<Option<String>>,
}

impl Session {
    /// For reads of one statement each.
    pub(super) fn reading(connection: Connection, site: i32) -> Self {
        Self::new(connection, site, Transaction::Never)
    }

    /// For reads that see one moment, but for what is [foreseen](Session::foresee): that may be of a moment before. Nothing can be written.
    pub(super) fn snapshot(connection: Connection, site: i32) -> Self {
        Self::new(connection, site, Transaction::Due)
    }

    fn new(connection: Connection, site: i32, transaction: Transaction) -> Self {
        connection.turn_to(site);
        let transaction = Cell::new(transaction);
        Self {
            connection,
            transaction,
            site,
            gathered: RefCell::default(),
            kept: RefCell::default(),
            has_savepoint: Cell::new(false),
            foreseen: RefCell::default(),
            has_claimed: Cell::new(false),
        }
    }

    /// Begins the only writing transaction of a site: waits until no other committer of any edge writes to it. Every statement after this
    /// one sees all that they committed (read committed), so do the look-ups `asks`, sent along.
    pub(super) fn writing<'a>(
        connection: Connection,
        site: i32,
        asks: impl Iterator<Item = &'a Ask>,
    ) -> Result<(Self, Counters), Box<(Connection, Error)>> {
        let session = Self::new(connection, site, Transaction::Begun);
        let connection = &session.connection;
        connection.send_batch("BEGIN".to_owned());
        let begun = connection
            .ask("SELECT rid, vid, seq FROM site WHERE no=$1 FOR UPDATE", vec![Box::new(site)])
            .and_then(|locking| {
                let asked = Asked::send(connection, site, asks, false)?;
                Ok((connection.received(locking)?, asked.received(connection)?))
            })
            .and_then(|(rows, foreseen)| {
                let row = rows.first().ok_or_else(|| Error::unavailable("the site is gone"))?;
                let numbers = (row.get(0), row.get::<_, i64>(1), row.get::<_, i64>(2));
                Ok((numbers, foreseen))
            });
        match begun {
            Ok(((rid, vid, seq), foreseen)) => {
                session.foreseen.replace(foreseen);
                let counters = Counters { rid, vid: vid.cast_unsigned(), seq: seq.cast_unsigned() };
                Ok((session, counters))
            }
            Err(error) => Err(Box::new((session.roll_back(), error))),
        }
    }

    /// Does look-ups together, and reads what they find.
    pub(crate) fn foresee(&self, asks: &[Ask]) -> Result<(), Error> {
        let asked = Asked::send(&self.connection, self.site, asks.iter(), true)?;
        self.foreseen.replace(asked.received(&self.connection)?);
        Ok(())
    }

    /// A duplicate, when it was foreseen and nothing was written about its key since.
    pub(super) fn foreseen_duplicate(&self, key: i64, sha256: &[u8; 32]) -> Option<Option<Duplicate>> {
        let is_written = self.is_written(|written| written.duplicate_keys.contains(&key));
        self.foreseen.borrow().duplicate(key, sha256).filter(|_| !is_written).cloned()
    }

    /// A head, when it was foreseen and nothing was written about it since.
    pub(super) fn foreseen_head(&self, name: &(i64, String)) -> Option<Option<Head>> {
        let head = self.foreseen.borrow().head(name)?;
        let is_written = self.is_written(|written| {
            written.names.contains(name) || head.is_some_and(|head| written.rids.contains(&head.rid))
        });
        (!is_written).then_some(head)
    }

    /// What has a key, when it was foreseen and nothing was written about it since.
    pub(super) fn foreseen_key(&self, key: &Key) -> Option<Vec<(i64, i64)>> {
        let foreseen = self.foreseen.borrow();
        let found = foreseen.key(key)?;
        let is_written = self.is_written(|written| {
            written.keys.contains(key) || found.iter().any(|(rid, _)| written.rids.contains(rid))
        });
        (!is_written).then(|| found.clone())
    }

    /// Whether a blob is claimed, when it was foreseen and none was claimed since.
    pub(super) fn foreseen_claim(&self, blob: &BlobId) -> Option<bool> {
        self.foreseen.borrow().claim(blob).filter(|_| !self.has_claimed.get())
    }

    /// The epoch of a destination, when it was foreseen: no transaction of a site writes it.
    pub(super) fn foreseen_epoch(&self, destination: &str) -> Option<Option<i64>> {
        self.foreseen.borrow().epoch(destination)
    }

    /// Type and id, head and time of the current version of a row, when it was foreseen.
    pub(super) fn foreseen_row(&self, rid: i64) -> Option<((i64, String), Head, i64)> {
        let foreseen = self.foreseen.borrow();
        let (name, head) = foreseen.row(rid)?;
        Some((name.clone(), head, foreseen.last_updated(head.vid)?))
    }

    /// What a version holds, when it was foreseen.
    pub(super) fn foreseen_content(&self, vid: i64) -> Option<Content> {
        self.foreseen.borrow_mut().content(vid)
    }

    /// The rows of a statement whose first value is the site, after all that was written before.
    pub(super) fn rows(&self, sql: &'static str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        self.flush()?;
        self.rows_unaffected(sql, values)
    }

    /// As [`Session::rows`], for a statement that writes by itself.
    pub(super) fn write_now(
        &self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        self.flush()?;
        self.save();
        self.rows_unaffected(sql, values)
    }

    fn begin(&self) {
        if self.transaction.get() == Transaction::Due {
            self.connection.send_batch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY".to_owned());
            self.transaction.set(Transaction::Begun);
        }
    }

    /// As [`Session::rows`], for a read that what was gathered cannot change.
    pub(super) fn rows_unaffected(
        &self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        self.begin();
        let mut all: Vec<&(dyn ToSql + Sync)> = Vec::with_capacity(values.len() + 1);
        all.push(&self.site);
        all.extend_from_slice(values);
        self.connection.query(sql, &all)
    }

    /// The rows of a statement over all that row level security shows of the site.
    pub(super) fn all(&self, sql: &str) -> Result<Vec<Row>, Error> {
        self.flush()?;
        self.begin();
        self.connection.query_once(sql)
    }

    /// As [`Session::all`], the number it counts.
    pub(super) fn count(&self, sql: &str) -> Result<i64, Error> {
        Ok(self.all(sql)?.first().map_or(0, |row| row.get(0)))
    }

    /// The only row of a statement.
    pub(super) fn row(
        &self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, Error> {
        Ok(self.rows(sql, values)?.into_iter().next())
    }

    /// Gathers a row of a table that gets few; the site is put first.
    pub(super) fn gather(&self, sql: &'static str, values: Vec<Value>) {
        self.gathering(|gathered| gathered.others.push((sql, values)));
    }

    /// Adds to what is gathered.
    pub(super) fn gathering(&self, add: impl FnOnce(&mut Gathered)) {
        let mut gathered = self.gathered.borrow_mut();
        gathered.unsent = true;
        add(&mut gathered);
    }

    /// Whether something was written in this transaction, sent or not.
    pub(super) fn is_written(&self, holds: impl Fn(&Gathered) -> bool) -> bool {
        holds(&self.gathered.borrow()) || holds(&self.kept.borrow())
    }

    /// The job that ran is done: its rows are part of the transaction.
    pub(super) fn keep_job(&self) {
        if self.has_savepoint.replace(false) {
            self.connection.send_batch("RELEASE SAVEPOINT job".to_owned());
        }
        self.kept.borrow_mut().append(self.gathered.take());
    }

    /// The job that ran failed: nothing of it is left.
    pub(super) fn undo_job(&self) {
        self.gathered.take();
        if self.has_savepoint.replace(false) {
            self.connection.send_batch("ROLLBACK TO SAVEPOINT job; RELEASE SAVEPOINT job".to_owned());
        }
    }

    /// Before the first rows of a job are sent.
    fn save(&self) {
        if !self.has_savepoint.replace(true) {
            self.connection.send_batch("SAVEPOINT job".to_owned());
        }
    }

    /// Sends what is gathered, first that of the jobs before. Does not wait.
    fn flush(&self) -> Result<(), Error> {
        self.send_gathered(&self.kept)?;
        if self.gathered.borrow().unsent {
            self.save();
        }
        self.send_gathered(&self.gathered)
    }

    fn send_gathered(&self, gathered: &RefCell<Gathered>) -> Result<(), Error> {
        if !gathered.borrow().unsent {
            return Ok(());
        }
        let rows = gathered.borrow_mut().take_rows();
        for (sql, mut values) in rows.statements() {
            values.insert(0, Box::new(self.site));
            self.connection.send(sql, values)?;
        }
        Ok(())
    }

    /// Writes the numbers given out, commits, and waits until that is durable. The connection is to be given up when this fails in a
    /// way that is not of the statements: whether the commit took place is not known then.
    pub(super) fn commit(self, counters: &Counters) -> (Connection, Result<(), Error>) {
        let done = self.flush().and_then(|()| {
            let (vid, seq) = (counters.vid.cast_signed(), counters.seq.cast_signed());
            let values: Vec<Value> =
                vec![Box::new(self.site), Box::new(counters.rid), Box::new(vid), Box::new(seq)];
            self.connection.send("UPDATE site SET rid=$2, vid=$3, seq=$4 WHERE no=$1", values)?;
            self.connection.send_batch("COMMIT".to_owned());
            self.connection.settle()
        });
        match done {
            Ok(()) => (self.connection, Ok(())),
            Err(error) => (self.roll_back(), Err(error)),
        }
    }

    /// Ends it without its writes. Does not wait.
    pub(super) fn roll_back(self) -> Connection {
        if self.transaction.get() == Transaction::Begun && self.connection.is_usable() {
            self.connection.send_batch("ROLLBACK".to_owned());
            self.connection.flush();
        }
        self.connection
    }
}

/// Moves the rows of columns behind those of others. Every column is named, or this does not compile.
macro_rules! append {
    ($of:ident, $into:expr, $from:expr; $($column:ident),+) => {
        let $of { $(mut $column),+ } = $from;
        $($into.$column.append(&mut $column);)+
    };
}

impl Gathered {
    /// The rows; what they are about stays known.
    fn take_rows(&mut self) -> Self {
        let mut rows = std::mem::take(self);
        self.names = std::mem::take(&mut rows.names);
        self.rids = std::mem::take(&mut rows.rids);
        self.keys = std::mem::take(&mut rows.keys);
        self.duplicate_keys = std::mem::take(&mut rows.duplicate_keys);
        rows
    }

    /// Adds those of another.
    fn append(&mut self, mut other: Self) {
        self.unsent |= other.unsent;
        self.names.extend(other.names);
        self.rids.extend(other.rids);
        self.keys.extend(other.keys);
        self.duplicate_keys.extend(other.duplicate_keys);
        self.others.append(&mut other.others);
        append!(Versions, self.versions, other.versions; vid, rid, version, last_updated, operation, submission, encoding, body);
        append!(Heads, self.heads, other.heads; rid, of, id, version, vid, ord, applied, sender);
        append!(Heads, self.moves, other.moves; rid, of, id, version, vid, ord, applied, sender);
        append!(Keys, self.keys_out, other.keys_out; key, system, ord, rid);
        append!(Keys, self.keys_in, other.keys_in; key, system, ord, rid);
        append!(Strings, self.strings_out, other.strings_out; key, text, rid);
        append!(Strings, self.strings_in, other.strings_in; key, text, rid);
        append!(Ranges, self.ranges_out, other.ranges_out; key, low, high, rid);
        append!(Ranges, self.ranges_in, other.ranges_in; key, low, high, rid);
        append!(Duplicates, self.duplicates, other.duplicates; key, sha256, sequence, received);
        append!(Submissions, self.submissions, other.submissions; sequence, kind, received, listener, peer, identity, control, sha256,
            accepted, answer, issues, targets, content_type, encodings, body, blob, report, message, called, replays, attention);
        let ((rid, version, vid), (mut more_rid, mut more_version, mut more_vid)) =
            (&mut self.deletions, other.deletions);
        rid.append(&mut more_rid);
        version.append(&mut more_version);
        vid.append(&mut more_vid);
    }

    /// The statements that send it, removals before additions.
    fn statements(self) -> Vec<(&'static str, Vec<Value>)> {
        let mut statements: Vec<(&'static str, Vec<Value>)> = Vec::with_capacity(12 + self.others.len());
        let mut add = |some: bool, sql: &'static str, values: Vec<Value>| {
            if some {
                statements.push((sql, values));
            }
        };
        let v = self.versions;
        add(
            !v.vid.is_empty(),
            "INSERT INTO version(site,vid,rid,ver,lm,op,sub,enc,body) SELECT $1::int, * FROM unnest($2::bigint[],$3::bigint[],$4::bigint[],$5::bigint[],$6::bigint[],$7::bigint[],$8::bigint[],$9::bytea[])",
            vec![
                Box::new(v.vid),
                Box::new(v.rid),
                Box::new(v.version),
                Box::new(v.last_updated),
                Box::new(v.operation),
                Box::new(v.submission),
                Box::new(v.encoding),
                Box::new(v.body),
            ],
        );
        let h = self.heads;
        add(
            !h.rid.is_empty(),
            "INSERT INTO head(site,rid,rt,fid,ver,vid,ord,applied,sender) SELECT $1::int, * FROM unnest($2::bigint[],$3::bigint[],$4::text[],$5::bigint[],$6::bigint[],$7::bigint[],$8::bigint[],$9::bigint[])",
            vec![
                Box::new(h.rid),
                Box::new(h.of),
                Box::new(h.id),
                Box::new(h.version),
                Box::new(h.vid),
                Box::new(h.ord),
                Box::new(h.applied),
                Box::new(h.sender),
            ],
        );
        let m = self.moves;
        add(
            !m.rid.is_empty(),
            concat!("UPDATE head h SET ver=u.ver, vid=u.vid, ord=u.ord, deleted=false, applied=coalesce(u.applied,h.applied), sender=coalesce(u.sender,h.sender)
             FROM ", each!("$2::bigint[],$3::bigint[],$4::bigint[],$5::bigint[],$6::bigint[],$7::bigint[]"), " u(rid,ver,vid,ord,applied,sender) WHERE h.site=$1 AND h.rid=u.rid"),
            vec![
                Box::new(m.rid),
                Box::new(m.version),
                Box::new(m.vid),
                Box::new(m.ord),
                Box::new(m.applied),
                Box::new(m.sender),
            ],
        );
        let (rid, version, vid) = self.deletions;
        add(
            !rid.is_empty(),
            concat!(
                "UPDATE head h SET ver=u.ver, vid=u.vid, deleted=true FROM ",
                each!("$2::bigint[],$3::bigint[],$4::bigint[]"),
                " u(rid,ver,vid) WHERE h.site=$1 AND h.rid=u.rid"
            ),
            vec![Box::new(rid), Box::new(version), Box::new(vid)],
        );
        let keys = |k: Keys| -> Vec<Value> {
            let k = k.sorted();
            vec![Box::new(k.key), Box::new(k.system), Box::new(k.ord), Box::new(k.rid)]
        };
        let strings = |s: Strings| -> Vec<Value> { vec![Box::new(s.key), Box::new(s.text), Box::new(s.rid)] };
        let ranges = |r: Ranges| -> Vec<Value> {
            vec![Box::new(r.key), Box::new(r.low), Box::new(r.high), Box::new(r.rid)]
        };
        add(
            !self.keys_out.rid.is_empty(),
            concat!(
                "DELETE FROM ix i USING ",
                each!("$2::bigint[],$3::bigint[],$4::bigint[],$5::bigint[]"),
                " u(key,sys,ord,rid) WHERE i.site=$1 AND i.key=u.key AND i.sys=u.sys AND i.ord=u.ord AND i.rid=u.rid"
            ),
            keys(self.keys_out),
        );
        add(
            !self.keys_in.rid.is_empty(),
            "INSERT INTO ix(site,key,sys,ord,rid) SELECT $1::int, * FROM unnest($2::bigint[],$3::bigint[],$4::bigint[],$5::bigint[])",
            keys(self.keys_in),
        );
        add(
            !self.strings_out.rid.is_empty(),
            concat!(
                "DELETE FROM ix_str i USING ",
                each!("$2::bigint[],$3::text[],$4::bigint[]"),
                " u(key,val,rid) WHERE i.site=$1 AND i.key=u.key AND i.val=u.val COLLATE \"C\" AND i.rid=u.rid"
            ),
            strings(self.strings_out),
        );
        add(
            !self.strings_in.rid.is_empty(),
            "INSERT INTO ix_str(site,key,val,rid) SELECT $1::int, * FROM unnest($2::bigint[],$3::text[],$4::bigint[])",
            strings(self.strings_in),
        );
        add(
            !self.ranges_out.rid.is_empty(),
            concat!(
                "DELETE FROM ix_range i USING ",
                each!("$2::bigint[],$3::bigint[],$4::bigint[],$5::bigint[]"),
                " u(key,lo,hi,rid) WHERE i.site=$1 AND i.key=u.key AND i.lo=u.lo AND i.hi=u.hi AND i.rid=u.rid"
            ),
            ranges(self.ranges_out),
        );
        add(
            !self.ranges_in.rid.is_empty(),
            "INSERT INTO ix_range(site,key,lo,hi,rid) SELECT $1::int, * FROM unnest($2::bigint[],$3::bigint[],$4::bigint[],$5::bigint[])",
            ranges(self.ranges_in),
        );
        let d = self.duplicates;
        add(
            !d.key.is_empty(),
            "INSERT INTO dedupe(site,ctl,sha,seq,received) SELECT $1::int, * FROM unnest($2::bigint[],$3::bytea[],$4::bigint[],$5::bigint[]) ON CONFLICT DO NOTHING",
            vec![Box::new(d.key), Box::new(d.sha256), Box::new(d.sequence), Box::new(d.received)],
        );
        let s = self.submissions;
        add(
            !s.sequence.is_empty(),
            "INSERT INTO submission(site,seq,kind,received,listener,peer,identity,control,sha,accepted,answer,err,targets,ctype,enc,body,blob,report,message,called,replays,attention)
             SELECT $1::int, * FROM unnest($2::bigint[],$3::bigint[],$4::bigint[],$5::text[],$6::text[],$7::text[],$8::text[],$9::bytea[],$10::bool[],
                $11::bytea[],$12::text[],$13::text[],$14::text[],$15::bigint[],$16::bytea[],$17::bytea[],$18::bytea[],
                $19::text[],$20::text[],$21::bigint[],$22::text[])",
            vec![
                Box::new(s.sequence),
                Box::new(s.kind),
                Box::new(s.received),
                Box::new(s.listener),
                Box::new(s.peer),
                Box::new(s.identity),
                Box::new(s.control),
                Box::new(s.sha256),
                Box::new(s.accepted),
                Box::new(s.answer),
                Box::new(s.issues),
                Box::new(s.targets),
                Box::new(s.content_type),
                Box::new(s.encodings),
                Box::new(s.body),
                Box::new(s.blob),
                Box::new(s.report),
                Box::new(s.message),
                Box::new(s.called),
                Box::new(s.replays),
                Box::new(s.attention),
            ],
        );
        statements.extend(self.others);
        statements
    }
}

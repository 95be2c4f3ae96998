//! Submissions and their duplicate keys.

use hilum_fhir::ResourceType;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::face::{Submissions, WriteSubmissions};
use crate::row::{Duplicate, StoredSubmission, SubmissionEntry, WantedSubmissions};
use crate::{Delivery, DeliveryState, Error};

impl Submissions for Connection {
    fn duplicate(&self, key: i64, sha256: &[u8; 32]) -> Result<Option<Duplicate>, Error> {
        duplicate(self, key, sha256)
    }

    fn submission(&self, sequence: u64) -> Result<Option<StoredSubmission>, Error> {
        submission(self, sequence)
    }

    fn submissions(&self, before: Option<u64>, count: u32) -> Result<Vec<StoredSubmission>, Error> {
        submissions(self, before, count)
    }

    fn submissions_of(&self, rid: i64, count: u32) -> Result<Vec<u64>, Error> {
        submissions_of(self, rid, count)
    }

    fn submissions_matching(&self, wanted: &WantedSubmissions) -> Result<Vec<StoredSubmission>, Error> {
        submissions_matching(self, wanted)
    }

    fn submission_from(&self, sequence: u64) -> Result<Option<(u64, i64)>, Error> {
        submission_from(self, sequence)
    }

    fn has_changed(&self, of: ResourceType, after: u64) -> Result<bool, Error> {
        has_changed(self, of, after)
    }

    fn deliveries_of(&self, versions: &[(i64, i64)], max: u32) -> Result<Vec<Delivery>, Error> {
        deliveries_of(self, versions, max)
    }
}

impl WriteSubmissions for Connection {
    fn add_submission(&self, row: &SubmissionEntry<'_>) -> Result<(), Error> {
        add_submission(self, row)
    }

    fn add_duplicate_key(
        &self,
        key: i64,
        sha256: &[u8; 32],
        sequence: u64,
        received: i64,
    ) -> Result<(), Error> {
        add_duplicate_key(self, key, sha256, sequence, received)
    }
}

pub(crate) fn duplicate(
    connection: &Connection,
    key: i64,
    sha256: &[u8; 32],
) -> Result<Option<Duplicate>, Error> {
    let sql = "SELECT d.seq, s.answer FROM dedupe d LEFT JOIN submission s ON s.seq=d.seq WHERE d.ctl=?1 AND d.sha=?2";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement
        .query_row(params![key, sha256], |r| Ok((r.get::<_, i64>(0)?.cast_unsigned(), r.get(1)?)))
        .optional()?;
    Ok(found)
}

pub(crate) fn add_submission(connection: &Connection, row: &SubmissionEntry<'_>) -> Result<(), Error> {
    let sql = "INSERT INTO submission VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21)";
    let row = params![
        row.sequence,
        row.kind,
        row.received,
        row.listener,
        row.peer,
        row.identity,
        row.control,
        row.sha256,
        i64::from(row.accepted),
        row.answer,
        row.issues,
        row.targets,
        row.content_type,
        row.encodings,
        row.body,
        row.blob,
        row.report,
        row.message,
        row.called,
        row.replays,
        row.attention,
    ];
    connection.prepare_cached(sql)?.execute(row)?;
    Ok(())
}

pub(crate) fn add_duplicate_key(
    connection: &Connection,
    key: i64,
    sha256: &[u8; 32],
    sequence: u64,
    received: i64,
) -> Result<(), Error> {
    let sql = "INSERT OR IGNORE INTO dedupe VALUES(?1,?2,?3,?4)";
    connection.prepare_cached(sql)?.execute(params![key, sha256, sequence, received])?;
    Ok(())
}

const COLUMNS: &str = "seq, kind, received, listener, peer, identity, control, sha, receipt, answer, err, targets, enc, body, blob, report, ctype, message, called, replays, attention";
/// As [`COLUMNS`], without those that are large.
const LIGHT: &str = "seq, kind, received, listener, peer, identity, control, sha, receipt, NULL, err, targets, enc, NULL, blob, NULL, ctype, message, called, replays, attention";

pub(crate) fn submission(connection: &Connection, sequence: u64) -> Result<Option<StoredSubmission>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM submission WHERE seq=?1");
    Ok(connection.prepare_cached(&sql)?.query_row([sequence], read).optional()?)
}

pub(crate) fn submissions(
    connection: &Connection,
    before: Option<u64>,
    count: u32,
) -> Result<Vec<StoredSubmission>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM submission WHERE seq<?1 ORDER BY seq DESC LIMIT ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params![before.map_or(i64::MAX, u64::cast_signed), count], read)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn submissions_matching(
    connection: &Connection,
    wanted: &WantedSubmissions,
) -> Result<Vec<StoredSubmission>, Error> {
    // the index that leads to the fewest rows; without one the numbers are gone through
    let from = match wanted {
        WantedSubmissions { control: Some(_), .. } => {
            "submission INDEXED BY submission_control WHERE control=?7"
        }
        WantedSubmissions { attention: true, .. } => {
            "submission INDEXED BY submission_attention WHERE attention IS NOT NULL"
        }
        WantedSubmissions { accepted: Some(false), .. } => {
            "submission INDEXED BY submission_rejected WHERE receipt=0"
        }
        _ => "submission WHERE 1",
    };
    let sql = format!(
        "SELECT {LIGHT} FROM {from} AND seq<?1 AND seq>=?2 AND received>=?3 AND (?4 IS NULL OR receipt=?4) AND (?5=0 OR attention IS NOT NULL)
           AND (?6 IS NULL OR kind=?6) AND (?7 IS NULL OR control=?7) AND (?8 IS NULL OR listener=?8)
           AND (?9 IS NULL OR message=?9 OR substr(message,1,length(?9)+1) IN (?9||'^', ?9||' '))
           AND (?10 IS NULL OR peer=?10 OR substr(peer,1,length(?10)+1)=?10||':' OR substr(peer,1,length(?10)+3)='['||?10||']:'
             OR identity=?10 OR instr('|'||identity||'|','|'||?10||'|')>0)
         ORDER BY seq DESC LIMIT ?11"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let values = params![
        wanted.before.cast_signed(),
        wanted.floor,
        wanted.since,
        wanted.accepted.map(i64::from),
        i64::from(wanted.attention),
        wanted.kind,
        wanted.control,
        wanted.listener,
        wanted.message,
        wanted.peer,
        wanted.count,
    ];
    let rows = statement.query_map(values, read)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(crate) fn submission_from(connection: &Connection, sequence: u64) -> Result<Option<(u64, i64)>, Error> {
    let sql = "SELECT seq, received FROM submission WHERE seq>=?1 ORDER BY seq LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    let found = statement.query_row([sequence], |r| Ok((r.get::<_, i64>(0)?.cast_unsigned(), r.get(1)?)));
    Ok(found.optional()?)
}

pub(crate) fn has_changed(connection: &Connection, of: ResourceType, after: u64) -> Result<bool, Error> {
    let sql =
        "SELECT EXISTS(SELECT 1 FROM version v CROSS JOIN head h ON h.rid=v.rid WHERE v.vid>?1 AND h.rt=?2)";
    Ok(connection.prepare_cached(sql)?.query_row(params![after, of.number()], |r| r.get(0))?)
}

pub(crate) fn deliveries_of(
    connection: &Connection,
    versions: &[(i64, i64)],
    max: u32,
) -> Result<Vec<Delivery>, Error> {
    let mut position = connection.prepare_cached("SELECT vid FROM version WHERE rid=?1 AND ver=?2")?;
    let mut positions = Vec::new();
    for (rid, version) in versions {
        positions.extend(position.query_row([rid, version], |r| r.get::<_, i64>(0)).optional()?);
    }
    let (Some(first), Some(last)) = (positions.iter().min(), positions.iter().max()) else {
        return Ok(Vec::new());
    };
    let sql = "SELECT dest, n, vid, state, attempt, next_at, first_at, err FROM delivery WHERE vid BETWEEN ?1 AND ?2 ORDER BY dest, n LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![first, last, max])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let vid: i64 = row.get(2)?;
        if positions.contains(&vid) {
            found.push(Delivery {
                destination: row.get(0)?,
                number: row.get::<_, i64>(1)?.cast_unsigned(),
                position: vid.cast_unsigned(),
                state: DeliveryState::from_number(row.get(3)?),
                attempts: row.get(4)?,
                next_at: row.get(5)?,
                first_attempt_at: row.get(6)?,
                error: row.get(7)?,
            });
        }
    }
    Ok(found)
}

pub(crate) fn submissions_of(connection: &Connection, rid: i64, count: u32) -> Result<Vec<u64>, Error> {
    let sql = "SELECT DISTINCT sub FROM version WHERE rid=?1 AND sub IS NOT NULL ORDER BY sub DESC LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![rid, count], |r| Ok(r.get::<_, i64>(0)?.cast_unsigned()))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn read(row: &Row<'_>) -> rusqlite::Result<StoredSubmission> {
    Ok(StoredSubmission {
        sequence: row.get(0)?,
        kind: row.get(1)?,
        received: row.get(2)?,
        listener: row.get(3)?,
        peer: row.get(4)?,
        identity: row.get(5)?,
        control: row.get(6)?,
        sha256: row.get(7)?,
        accepted: row.get(8)?,
        answer: row.get(9)?,
        issues: row.get(10)?,
        targets: row.get(11)?,
        encodings: row.get(12)?,
        body: row.get(13)?,
        blob: row.get(14)?,
        report: row.get(15)?,
        content_type: row.get(16)?,
        message: row.get(17)?,
        called: row.get(18)?,
        replays: row.get(19)?,
        attention: row.get(20)?,
    })
}

//! Submissions and their duplicate keys.

use hilum_fhir::ResourceType;
use tokio_postgres::Row;

use super::session::Session;
use super::values::{clean, digest};
use crate::face::{Submissions, WriteSubmissions};
use crate::row::{Duplicate, StoredSubmission, SubmissionEntry, WantedSubmissions};
use crate::{Delivery, DeliveryState, Error};

impl Submissions for Session {
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

impl WriteSubmissions for Session {
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

pub(crate) fn duplicate(session: &Session, key: i64, sha256: &[u8; 32]) -> Result<Option<Duplicate>, Error> {
    let sql = "SELECT d.seq, s.answer FROM dedupe d LEFT JOIN submission s ON s.site=$1 AND s.seq=d.seq WHERE d.site=$1 AND d.ctl=$2 AND d.sha=$3";
    if let Some(duplicate) = session.foreseen_duplicate(key, sha256) {
        return Ok(duplicate);
    }
    let gathered = session.is_written(|written| written.duplicate_keys.contains(&key));
    let sha256 = sha256.as_slice();
    let rows = if gathered {
        session.rows(sql, &[&key, &sha256])?
    } else {
        session.rows_unaffected(sql, &[&key, &sha256])?
    };
    Ok(rows.first().map(|row| (row.get::<_, i64>(0).cast_unsigned(), row.get(1))))
}

pub(crate) fn add_submission(session: &Session, row: &SubmissionEntry<'_>) -> Result<(), Error> {
    session.gathering(|gathered| {
        let rows = &mut gathered.submissions;
        rows.sequence.push(row.sequence.cast_signed());
        rows.kind.push(row.kind);
        rows.received.push(row.received);
        rows.listener.push(clean(row.listener));
        rows.peer.push(row.peer.clone());
        rows.identity.push(row.identity.map(clean));
        rows.control.push(row.control.map(clean));
        rows.sha256.push(row.sha256.to_vec());
        rows.accepted.push(row.accepted);
        rows.answer.push(row.answer.map(<[u8]>::to_vec));
        rows.issues.push(row.issues.as_deref().map(clean));
        rows.targets.push(row.targets.map(clean));
        rows.content_type.push(row.content_type.to_owned());
        rows.encodings.push(row.encodings);
        rows.body.push(row.body.map(<[u8]>::to_vec));
        rows.blob.push(row.blob.map(|blob| blob.to_vec()));
        rows.report.push(row.report.map(<[u8]>::to_vec));
        rows.message.push(row.message.map(clean));
        rows.called.push(row.called.map(clean));
        rows.replays.push(row.replays.map(u64::cast_signed));
        rows.attention.push(row.attention.map(clean));
    });
    Ok(())
}

pub(crate) fn add_duplicate_key(
    session: &Session,
    key: i64,
    sha256: &[u8; 32],
    sequence: u64,
    received: i64,
) -> Result<(), Error> {
    session.gathering(|gathered| {
        gathered.duplicate_keys.insert(key);
        gathered.duplicates.key.push(key);
        gathered.duplicates.sha256.push(sha256.to_vec());
        gathered.duplicates.sequence.push(sequence.cast_signed());
        gathered.duplicates.received.push(received);
    });
    Ok(())
}

pub(crate) fn submission(session: &Session, sequence: u64) -> Result<Option<StoredSubmission>, Error> {
    let sql = "SELECT seq, kind::bigint, received, listener, peer, identity, control, sha, accepted, answer, err, targets, enc::bigint, body, blob, report, ctype, message, called, replays, attention
        FROM submission WHERE site=$1 AND seq=$2";
    session.row(sql, &[&sequence.cast_signed()])?.map(|row| read(&row)).transpose()
}

pub(crate) fn submissions(
    session: &Session,
    before: Option<u64>,
    count: u32,
) -> Result<Vec<StoredSubmission>, Error> {
    let sql = "SELECT seq, kind::bigint, received, listener, peer, identity, control, sha, accepted, answer, err, targets, enc::bigint, body, blob, report, ctype, message, called, replays, attention
        FROM submission WHERE site=$1 AND seq<$2 ORDER BY seq DESC LIMIT $3";
    let rows = session.rows(sql, &[&before.map_or(i64::MAX, u64::cast_signed), &i64::from(count)])?;
    rows.iter().map(read).collect()
}

/// A list of submissions, led by the index that leads to the fewest rows.
macro_rules! matching {
    ($led_by:literal) => {
        concat!(
            "SELECT seq, kind::bigint, received, listener, peer, identity, control, sha, accepted, NULL::bytea, err, targets, enc::bigint, NULL::bytea, blob,
               NULL::bytea, ctype, message, called, replays, attention
             FROM submission WHERE site=$1 AND ",
            $led_by,
            " AND seq<$2 AND seq>=$3 AND received>=$4 AND ($5::bool IS NULL OR accepted=$5) AND (NOT $6::bool OR attention IS NOT NULL)
               AND ($7::bigint IS NULL OR kind=$7) AND ($8::text IS NULL OR control=$8) AND ($9::text IS NULL OR listener=$9)
               AND ($10::text IS NULL OR message=$10 OR left(message,length($10)+1) IN ($10||'^', $10||' '))
               AND ($11::text IS NULL OR peer=$11 OR left(peer,length($11)+1)=$11||':' OR left(peer,length($11)+3)='['||$11||']:'
                 OR identity=$11 OR strpos('|'||identity||'|','|'||$11||'|')>0)
             ORDER BY seq DESC LIMIT $12"
        )
    };
}

pub(crate) fn submissions_matching(
    session: &Session,
    wanted: &WantedSubmissions,
) -> Result<Vec<StoredSubmission>, Error> {
    let sql = match wanted {
        // the index holds the first letters: what a sender makes of a control id has any length
        WantedSubmissions { control: Some(_), .. } => matching!("left(control,64)=left($8::text,64)"),
        WantedSubmissions { attention: true, .. } => matching!("attention IS NOT NULL"),
        WantedSubmissions { accepted: Some(false), .. } => matching!("NOT accepted"),
        _ => matching!("true"),
    };
    let rows = session.rows(
        sql,
        &[
            &wanted.before.cast_signed(),
            &wanted.floor.cast_signed(),
            &wanted.since,
            &wanted.accepted,
            &wanted.attention,
            &wanted.kind,
            &wanted.control.as_deref().map(clean),
            &wanted.listener.as_deref().map(clean),
            &wanted.message.as_deref().map(clean),
            &wanted.peer.as_deref().map(clean),
            &i64::from(wanted.count),
        ],
    )?;
    rows.iter().map(read).collect()
}

pub(crate) fn submission_from(session: &Session, sequence: u64) -> Result<Option<(u64, i64)>, Error> {
    let sql = "SELECT seq, received FROM submission WHERE site=$1 AND seq>=$2 ORDER BY seq LIMIT 1";
    let row = session.row(sql, &[&sequence.cast_signed()])?;
    Ok(row.map(|row| (row.get::<_, i64>(0).cast_unsigned(), row.get(1))))
}

pub(crate) fn has_changed(session: &Session, of: ResourceType, after: u64) -> Result<bool, Error> {
    let sql = "SELECT EXISTS(SELECT 1 FROM version v JOIN head h ON h.site=$1 AND h.rid=v.rid WHERE v.site=$1 AND v.vid>$2 AND h.rt=$3::bigint::smallint)";
    Ok(session.row(sql, &[&after.cast_signed(), &of.number()])?.is_some_and(|row| row.get(0)))
}

pub(crate) fn deliveries_of(
    session: &Session,
    versions: &[(i64, i64)],
    max: u32,
) -> Result<Vec<Delivery>, Error> {
    let (rids, numbers): (Vec<i64>, Vec<i64>) = versions.iter().copied().unzip();
    let sql = "SELECT d.dest, d.n, d.vid, d.state::bigint, d.attempt::bigint, d.next_at, d.first_at, d.err
        FROM unnest($2::bigint[],$3::bigint[]) u(rid,ver) JOIN version v ON v.site=$1 AND v.rid=u.rid AND v.ver=u.ver
        JOIN delivery d ON d.site=$1 AND d.vid=v.vid ORDER BY d.dest, d.n LIMIT $4";
    let rows = session.rows(sql, &[&rids, &numbers, &i64::from(max)])?;
    let delivery = |row: &Row| Delivery {
        destination: row.get(0),
        number: row.get::<_, i64>(1).cast_unsigned(),
        position: row.get::<_, i64>(2).cast_unsigned(),
        state: DeliveryState::from_number(row.get(3)),
        attempts: u32::try_from(row.get::<_, i64>(4)).unwrap_or(u32::MAX),
        next_at: row.get(5),
        first_attempt_at: row.get(6),
        error: row.get(7),
    };
    Ok(rows.iter().map(delivery).collect())
}

pub(crate) fn submissions_of(session: &Session, rid: i64, count: u32) -> Result<Vec<u64>, Error> {
    let sql = "SELECT DISTINCT sub FROM version WHERE site=$1 AND rid=$2 AND sub IS NOT NULL ORDER BY sub DESC LIMIT $3";
    let rows = session.rows(sql, &[&rid, &i64::from(count)])?;
    Ok(rows.iter().map(|row| row.get::<_, i64>(0).cast_unsigned()).collect())
}

fn read(row: &Row) -> Result<StoredSubmission, Error> {
    Ok(StoredSubmission {
        sequence: row.get(0),
        kind: row.get(1),
        received: row.get(2),
        listener: row.get(3),
        peer: row.get(4),
        identity: row.get(5),
        control: row.get(6),
        sha256: digest(row.get(7))?,
        accepted: row.get(8),
        answer: row.get(9),
        issues: row.get(10),
        targets: row.get(11),
        encodings: row.get(12),
        body: row.get(13),
        blob: row.get::<_, Option<&[u8]>>(14).map(digest).transpose()?,
        report: row.get(15),
        content_type: row.get(16),
        message: row.get(17),
        called: row.get(18),
        replays: row.get(19),
        attention: row.get(20),
    })
}

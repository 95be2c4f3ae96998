//! Look-ups that are known beforehand, done together in one round trip: those of a plan at its begin, those of all jobs of a batch right
//! behind the lock of the site.
//!
//! What is foreseen holds as long as nothing is written about it; [`Session`] knows what was.

use std::collections::HashMap;

use tokio_postgres::Row;

use super::connection::{Answers, Connection, Value};
use super::values::{clean, digest, head_at};
use crate::keys::Key;
use crate::row::{Ask, Content, Duplicate, Head, SAME_IDENTIFIER_MAX};
use crate::{BlobId, Error};

const DUPLICATES: &str = concat!("SELECT d.ctl, d.sha, d.seq, s.answer FROM ", each!("$2::bigint[],$3::bytea[]"), " u(ctl,sha)
    JOIN dedupe d ON d.site=$1 AND d.ctl=u.ctl AND d.sha=u.sha LEFT JOIN LATERAL (SELECT answer FROM submission s WHERE s.site=$1 AND s.seq=d.seq OFFSET 0) s ON true");
// a cast of `rt` in the statement could fail, and row level security keeps what could tell by failing away from the index
const HEADS: &str = concat!(
    "SELECT h.rid, h.ver::bigint, h.vid, h.ord, h.deleted, h.applied, h.successor, h.sender, h.rt::bigint, h.fid
    FROM ",
    each!("$2::smallint[],$3::text[]"),
    " u(rt,fid) JOIN head h ON h.site=$1 AND h.rt=u.rt AND h.fid=u.fid"
);
const HEADS_WITH_CONTENT: &str = concat!("SELECT h.rid, h.ver::bigint, h.vid, h.ord, h.deleted, h.applied, h.successor, h.sender, h.rt::bigint, h.fid, v.lm, v.enc::bigint, v.body
    FROM ", each!("$2::smallint[],$3::text[]"), " u(rt,fid) JOIN head h ON h.site=$1 AND h.rt=u.rt AND h.fid=u.fid", version_at!("h.vid"));
/// The first resources with each of many keys, in order of rid.
const KEYS: &str = concat!(
    "SELECT u.key, u.sys, f.rid, f.vid FROM unnest($2::bigint[],$3::bigint[]) u(key,sys) CROSS JOIN LATERAL (
        SELECT i.rid, h.vid FROM ix i",
    head_of!("i.rid"),
    "WHERE NOT h.deleted AND i.site=$1 AND i.key=u.key AND i.sys=u.sys ORDER BY i.rid LIMIT $4) f
    ORDER BY f.rid"
);
const KEYS_WITH_CONTENT: &str = concat!("SELECT u.key, u.sys, f.rid, f.vid, f.ver::bigint, f.ord, f.applied, f.successor, f.sender, f.rt::bigint, f.fid, f.lm, f.enc::bigint, f.body
    FROM unnest($2::bigint[],$3::bigint[]) u(key,sys) CROSS JOIN LATERAL (
        SELECT i.rid, h.vid, h.ver, h.ord, h.applied, h.successor, h.sender, h.rt, h.fid, v.lm, v.enc, v.body
        FROM ix i", head_of!("i.rid"), version_at!("h.vid"), "WHERE NOT h.deleted AND i.site=$1 AND i.key=u.key AND i.sys=u.sys ORDER BY i.rid LIMIT $4) f
    ORDER BY f.rid");

const CLAIMS: &str =
    "SELECT blob FROM orphan WHERE site=$1 AND blob=ANY($2::bytea[]) AND claimed IS NOT NULL";

const EPOCHS: &str = "SELECT ref, epoch FROM deliverer WHERE site=$1 AND ref=ANY($2::text[])";

/// What was found, and what was not.
#[derive(Default)]
pub(super) struct Foreseen {
    duplicates: HashMap<(i64, [u8; 32]), Option<Duplicate>>,
    heads: HashMap<(i64, String), Option<Head>>,
    keys: HashMap<Key, Vec<(i64, i64)>>,
    claims: HashMap<BlobId, bool>,
    epochs: HashMap<String, Option<i64>>,
    /// By rid: type and id.
    names: HashMap<i64, (i64, String)>,
    /// By feed position.
    contents: HashMap<i64, Content>,
}

/// Look-ups under way.
pub(super) struct Asked {
    foreseen: Foreseen,
    duplicates: Option<Answers>,
    heads: Option<Answers>,
    keys: Option<Answers>,
    claims: Option<Answers>,
    epochs: Option<Answers>,
    with_content: bool,
}

impl Asked {
    /// Sends the look-ups. With their content too, when nothing is written meanwhile. Does not wait.
    pub(super) fn send<'a>(
        connection: &Connection,
        site: i32,
        asks: impl Iterator<Item = &'a Ask>,
        with_content: bool,
    ) -> Result<Self, Error> {
        let mut foreseen = Foreseen::default();
        for ask in asks {
            match ask {
                Ask::Duplicate(key, sha256) => drop(foreseen.duplicates.insert((*key, *sha256), None)),
                Ask::Head(of, id) => drop(foreseen.heads.insert((of.number(), clean(id)), None)),
                Ask::Key(key) => drop(foreseen.keys.insert(*key, Vec::new())),
                Ask::Claim(blob) => drop(foreseen.claims.insert(*blob, false)),
                Ask::Epoch(destination) => drop(foreseen.epochs.insert(clean(destination), None)),
            }
        }
        let send = |is_wanted: bool, sql: &'static str, columns: &dyn Fn() -> Vec<Value>| {
            is_wanted
                .then(|| {
                    let mut values: Vec<Value> = vec![Box::new(site)];
                    values.extend(columns());
                    connection.ask(sql, values)
                })
                .transpose()
        };
        let duplicates = send(!foreseen.duplicates.is_empty(), DUPLICATES, &|| {
            let (keys, digests): (Vec<i64>, Vec<Vec<u8>>) =
                foreseen.duplicates.keys().map(|(key, sha256)| (*key, sha256.to_vec())).unzip();
            vec![Box::new(keys), Box::new(digests)]
        })?;
        let sql = if with_content { HEADS_WITH_CONTENT } else { HEADS };
        let heads = send(!foreseen.heads.is_empty(), sql, &|| {
            let (of, ids): (Vec<i16>, Vec<String>) =
                foreseen.heads.keys().map(|(of, id)| (i16::try_from(*of).unwrap_or(-1), id.clone())).unzip();
            vec![Box::new(of), Box::new(ids)]
        })?;
        let sql = if with_content { KEYS_WITH_CONTENT } else { KEYS };
        let keys = send(!foreseen.keys.is_empty(), sql, &|| {
            let (values, systems): (Vec<i64>, Vec<i64>) =
                foreseen.keys.keys().map(|key| (key.value, key.system)).unzip();
            let max = i64::try_from(SAME_IDENTIFIER_MAX).unwrap_or(i64::MAX);
            vec![Box::new(values), Box::new(systems), Box::new(max)]
        })?;
        let claims = send(!foreseen.claims.is_empty(), CLAIMS, &|| {
            let blobs: Vec<Vec<u8>> = foreseen.claims.keys().map(|blob| blob.0.to_vec()).collect();
            vec![Box::new(blobs)]
        })?;
        let epochs = send(!foreseen.epochs.is_empty(), EPOCHS, &|| {
            vec![Box::new(foreseen.epochs.keys().cloned().collect::<Vec<String>>())]
        })?;
        Ok(Self { foreseen, duplicates, heads, keys, claims, epochs, with_content })
    }

    /// Waits for the answers.
    pub(super) fn received(self, connection: &Connection) -> Result<Foreseen, Error> {
        let Self { mut foreseen, duplicates, heads, keys, claims, epochs, with_content } = self;
        let received =
            |asked: Option<Answers>| asked.map_or(Ok(Vec::new()), |asked| connection.received(asked));
        for row in received(duplicates)? {
            let found = (row.get::<_, i64>(2).cast_unsigned(), row.get(3));
            foreseen.duplicates.insert((row.get(0), digest(row.get(1))?), Some(found));
        }
        for row in received(claims)? {
            foreseen.claims.insert(BlobId(digest(row.get(0))?), true);
        }
        for row in received(epochs)? {
            foreseen.epochs.insert(row.get(0), Some(row.get(1)));
        }
        for row in received(heads)? {
            let (head, name) = (head_at(&row, 0), (row.get(8), row.get(9)));
            if with_content {
                foreseen.whole(&head, name, &row, 10);
            } else {
                foreseen.heads.insert(name, Some(head));
            }
        }
        for row in received(keys)? {
            let key = Key { value: row.get(0), system: row.get(1) };
            let (rid, vid) = (row.get(2), row.get(3));
            foreseen.keys.entry(key).or_default().push((rid, vid));
            if with_content {
                let head = Head {
                    rid,
                    vid,
                    version: row.get::<_, i64>(4).cast_unsigned(),
                    ord: row.get(5),
                    deleted: false,
                    applied: row.get(6),
                    successor: row.get(7),
                    sender: row.get(8),
                };
                foreseen.whole(&head, (row.get(9), row.get(10)), &row, 11);
            }
        }
        Ok(foreseen)
    }
}

impl Foreseen {
    /// A resource with its current version, which begins at a column.
    fn whole(&mut self, head: &Head, name: (i64, String), row: &Row, at: usize) {
        let content = Content { last_updated: row.get(at), encoding: row.get(at + 1), body: row.get(at + 2) };
        self.contents.insert(head.vid, content);
        self.names.insert(head.rid, name.clone());
        self.heads.insert(name, Some(*head));
    }

    pub(super) fn duplicate(&self, key: i64, sha256: &[u8; 32]) -> Option<&Option<Duplicate>> {
        self.duplicates.get(&(key, *sha256))
    }

    pub(super) fn head(&self, name: &(i64, String)) -> Option<Option<Head>> {
        self.heads.get(name).copied()
    }

    pub(super) fn claim(&self, blob: &BlobId) -> Option<bool> {
        self.claims.get(blob).copied()
    }

    pub(super) fn epoch(&self, destination: &str) -> Option<Option<i64>> {
        self.epochs.get(destination).copied()
    }

    pub(super) fn key(&self, key: &Key) -> Option<&Vec<(i64, i64)>> {
        self.keys.get(key)
    }

    /// Type and id of a row, with its head.
    pub(super) fn row(&self, rid: i64) -> Option<(&(i64, String), Head)> {
        let name = self.names.get(&rid)?;
        Some((name, self.head(name)??))
    }

    /// What a version holds; told once.
    pub(super) fn content(&mut self, vid: i64) -> Option<Content> {
        self.contents.remove(&vid)
    }

    /// When a row was last updated.
    pub(super) fn last_updated(&self, vid: i64) -> Option<i64> {
        self.contents.get(&vid).map(|content| content.last_updated)
    }
}

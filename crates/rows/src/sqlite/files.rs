//! The databases of an embedded store as files: where they are, and copies of those in use. For `hilum backup` and `hilum restore`.

use std::path::Path;

use rusqlite::Connection;

use crate::engine::Place;
use crate::{BlobId, Config, Error};

/// The file of settings and keys, in the data folder.
pub const CONTROL_FILE: &str = "control.db";
/// The folder of the sites, in the data folder: one for each.
pub const SITES: &str = "sites";
/// The file of a site, in its folder.
pub const SITE_FILE: &str = "site.db";

/// How long a copy waits for who has the file locked.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// What a database refers to, and how far it has come.
#[derive(Debug)]
pub struct Contents {
    /// Feed position reached.
    pub newest: u64,
    /// The blobs it refers to.
    pub blobs: Vec<BlobId>,
}

/// Refuses what works on files only, `hilum backup` or `hilum restore`.
///
/// # Errors
/// `Unavailable` when the store is on a server or in memory.
pub fn only(config: &Config, what: &str) -> Result<(), Error> {
    match config.place() {
        Place::Files => Ok(()),
        Place::Memory(_) => {
            Err(Error::unavailable(format!("hilum {what} is for stores in files, this one is in memory")))
        }
        Place::Server(server) => Err(Error::unavailable(format!(
            "hilum {what} is for stores in files; {} has tools of its own (pg_dump, pg_basebackup)",
            server.shown()
        ))),
    }
}

/// A consistent copy of a database that may be in use, to a file that must not be there.
///
/// # Errors
/// `Unavailable`, `Full`.
pub fn snapshot(from: &Path, to: &Path) -> Result<(), Error> {
    let connection = Connection::open(from)?;
    connection.busy_timeout(PATIENCE)?;
    connection.execute("VACUUM INTO ?1", [to.to_string_lossy()])?;
    Ok(())
}

/// What the copy of a site's database holds.
///
/// # Errors
/// `Unavailable`.
pub fn contents(of: &Path) -> Result<Contents, Error> {
    let connection = Connection::open(of)?;
    let newest: i64 = connection.query_row("SELECT coalesce(max(vid),0) FROM version", [], |r| r.get(0))?;
    let sql = "SELECT blob FROM submission WHERE blob IS NOT NULL UNION SELECT blob FROM instance";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |r| Ok(BlobId(r.get(0)?)))?;
    Ok(Contents { newest: newest.cast_unsigned(), blobs: rows.collect::<rusqlite::Result<_>>()? })
}

/// Why a blob that a copy names is not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It ought to be: the edge names it too.
    Lost,
    /// The edge forgot it since the copy was made, and now the copy has too.
    Forgotten,
    /// It was an image of a study that was removed since: a new copy has to be made, without the study.
    Removed,
}

/// Says why a blob of the edge at `live` is not there any more: the edge removes the rows that name a blob before its file.
///
/// # Errors
/// `Unavailable`, `Full`.
pub fn missing(live: &Path, copy: &Path, blob: &BlobId) -> Result<Missing, Error> {
    const IS_IMAGE: &str = "SELECT EXISTS(SELECT 1 FROM instance WHERE blob=?1)";
    const IS_ORIGINAL: &str = "SELECT EXISTS(SELECT 1 FROM submission WHERE blob=?1)";
    let (live, copy) = (Connection::open(live)?, Connection::open(copy)?);
    live.busy_timeout(PATIENCE)?;
    let is = |connection: &Connection, sql: &str| connection.query_row(sql, [blob.0], |row| row.get(0));
    if is(&live, IS_IMAGE)? || is(&live, IS_ORIGINAL)? {
        return Ok(Missing::Lost);
    }
    if is(&copy, IS_IMAGE)? {
        return Ok(Missing::Removed);
    }
    for sql in [
        "DELETE FROM quarantine WHERE seq IN (SELECT seq FROM submission WHERE blob=?1)",
        "UPDATE submission SET body=NULL, blob=NULL WHERE blob=?1",
    ] {
        copy.execute(sql, [blob.0])?;
    }
    Ok(Missing::Forgotten)
}

/// The sites below a data folder, in order.
///
/// # Errors
/// `Unavailable`.
pub fn site_ids(data_dir: &Path) -> Result<Vec<String>, Error> {
    let sites = data_dir.join(SITES);
    if !sites.exists() {
        return Ok(Vec::new());
    }
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(sites)? {
        let entry = entry?;
        if entry.path().join(SITE_FILE).exists() {
            ids.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    ids.sort();
    Ok(ids)
}

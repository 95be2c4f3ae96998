//! A copy of everything, made while an edge runs, and its way back.
//!
//! Databases first, each in one snapshot (`VACUUM INTO`), then the blobs those copies refer to: blobs never change, so every one a copy
//! refers to can still be had, but for what the edge forgot meanwhile (a rejected original, an old one). That the copy forgets too. The manifest is
//! written last and removed first: a folder with one is whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::blobs::disk::{path_in, sha256_of};
use crate::blobs::{self, BlobId};
use crate::control::CONTROL_FILE;
use crate::{Config, Error};

const MANIFEST: &str = "manifest.json";
const FORMAT: u32 = 1;
const SITE_FILE: &str = "site.db";
/// A database in use is waited for so long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Of this file: 1.
    pub format: u32,
    /// Version of the program that made it.
    pub version: String,
    /// When it was begun: nothing acknowledged before is missing.
    pub begun: String,
    /// SHA-256 of the control database, hexadecimal.
    pub control_sha256: String,
    /// The sites, in order of id.
    pub sites: Vec<SiteCopy>,
}

/// The copy of one site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteCopy {
    /// The site's id.
    pub id: String,
    /// SHA-256 of its database, hexadecimal.
    pub sha256: String,
    /// Feed position reached.
    pub newest: u64,
    /// Blobs copied.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
}

/// Copies everything of an embedded store to `out`; blobs in a bucket stay where they are. A folder with an older backup is brought up to date: blobs it has are not copied again.
/// `tell` hears what is being done.
///
/// # Errors
/// `Unavailable` when something cannot be read or written, or a blob that is referred to is missing.
pub fn backup(config: &Config, out: &Path, tell: &mut dyn FnMut(String)) -> Result<Manifest, Error> {
    of_files(config, "backup")?;
    let data_dir = config.data_dir.as_path();
    let begun = jiff::Timestamp::now().to_string();
    fs::create_dir_all(out)?;
    remove_if_there(&out.join(MANIFEST))?;
    snapshot(&data_dir.join(CONTROL_FILE), &out.join(CONTROL_FILE))?;
    let control = hash(&out.join(CONTROL_FILE))?;
    let mut sites = Vec::new();
    for id in site_ids(data_dir)? {
        let (from, to) = (data_dir.join("sites").join(&id), out.join("sites").join(&id));
        fs::create_dir_all(&to)?;
        tell(format!("site {id}: database"));
        snapshot(&from.join(SITE_FILE), &to.join(SITE_FILE))?;
        let copied = Connection::open(to.join(SITE_FILE))?;
        let newest: i64 = copied.query_row("SELECT coalesce(max(vid),0) FROM version", [], |r| r.get(0))?;
        let (blobs, blob_bytes) = match &config.bucket {
            None => {
                let forget = |blob: &BlobId| forget_too(&from.join(SITE_FILE), &copied, blob);
                copy_blobs(&id, &referred(&copied)?, &from, &to, &forget, tell)?
            }
            Some(of) => {
                tell(format!("site {id}: its blobs stay in the bucket {}; keep its versions", of.bucket));
                (0, 0)
            }
        };
        drop(copied);
        File::open(to.join(SITE_FILE))?.sync_all()?;
        let sha256 = hash(&to.join(SITE_FILE))?;
        sites.push(SiteCopy { id, sha256, newest: newest.cast_unsigned(), blobs, blob_bytes });
    }
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let manifest = Manifest { format: FORMAT, version, begun, control_sha256: control, sites };
    write_manifest(out, &manifest)?;
    Ok(manifest)
}

/// Puts a backup below the data folder, which must be empty or not there. Every database is compared with the manifest.
///
/// # Errors
/// `Unavailable` when the backup is not whole or was made by a newer program, or `data_dir` holds something.
pub fn restore(config: &Config, from: &Path, tell: &mut dyn FnMut(String)) -> Result<Manifest, Error> {
    of_files(config, "restore")?;
    let data_dir = config.data_dir.as_path();
    let text = fs::read(from.join(MANIFEST)).map_err(|e| {
        Error::unavailable(format!("{} holds no whole backup (no {MANIFEST})", from.display())).because(e)
    })?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|e| Error::unavailable("the manifest is damaged").because(e))?;
    if manifest.format > FORMAT {
        return Err(Error::unavailable("the backup was made by a newer program; restore it with that"));
    }
    let is_empty = !data_dir.exists() || fs::read_dir(data_dir)?.next().is_none();
    if !is_empty {
        let data = data_dir.display();
        return Err(Error::unavailable(format!("{data} is not empty; restore into a new folder")));
    }
    fs::create_dir_all(data_dir)?;
    copy_checked(&from.join(CONTROL_FILE), &data_dir.join(CONTROL_FILE), &manifest.control_sha256)?;
    for site in &manifest.sites {
        let (from, to) = (from.join("sites").join(&site.id), data_dir.join("sites").join(&site.id));
        fs::create_dir_all(&to)?;
        tell(format!("site {}: database", site.id));
        copy_checked(&from.join(SITE_FILE), &to.join(SITE_FILE), &site.sha256)?;
        if config.bucket.is_none() {
            let copied = Connection::open(to.join(SITE_FILE))?;
            copy_blobs(&site.id, &referred(&copied)?, &from, &to, &|_| Ok(false), tell)?;
        }
    }
    Ok(manifest)
}

/// Refuses what works on files only.
pub(super) fn of_files(config: &Config, what: &str) -> Result<(), Error> {
    match &config.postgres {
        None => Ok(()),
        Some(server) => Err(Error::unavailable(format!(
            "hilum {what} is for stores in files; {} has tools of its own (pg_dump, pg_basebackup)",
            server.shown()
        ))),
    }
}

/// A consistent copy of a database that may be in use.
fn snapshot(from: &Path, to: &Path) -> Result<(), Error> {
    let new = to.with_extension("new");
    remove_if_there(&new)?;
    let connection = Connection::open(from)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.execute("VACUUM INTO ?1", [new.to_string_lossy()])?;
    put(&new, to)
}

fn copy_checked(from: &Path, to: &Path, sha256: &str) -> Result<(), Error> {
    let new = to.with_extension("new");
    fs::copy(from, &new)?;
    put(&new, to)?;
    if hash(to)? == sha256 {
        return Ok(());
    }
    Err(Error::unavailable(format!("{} is not as the manifest says: the backup is damaged", from.display())))
}

/// Syncs a finished file and gives it its name.
fn put(new: &Path, to: &Path) -> Result<(), Error> {
    File::open(new)?.sync_all()?;
    fs::rename(new, to)?;
    if let Some(folder) = to.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn hash(path: &Path) -> Result<String, Error> {
    Ok(blobs::hex(&sha256_of(&mut File::open(path)?)?))
}

/// The blobs a database refers to.
pub(super) fn referred(connection: &Connection) -> Result<Vec<BlobId>, Error> {
    let sql = "SELECT blob FROM submission WHERE blob IS NOT NULL UNION SELECT blob FROM instance";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |r| Ok(BlobId(r.get(0)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Whether a blob that is not there any more was forgotten by the edge since the copy: its rows go before its file. Then the copy forgets it.
fn forget_too(live: &Path, copied: &Connection, blob: &BlobId) -> Result<bool, Error> {
    let live = Connection::open(live)?;
    live.busy_timeout(BUSY_TIMEOUT)?;
    let sql = "SELECT EXISTS(SELECT 1 FROM submission WHERE blob=?1) OR EXISTS(SELECT 1 FROM instance WHERE blob=?1)";
    if live.query_row(sql, [blob.0], |row| row.get(0))? {
        return Ok(false);
    }
    for sql in [
        "DELETE FROM quarantine WHERE seq IN (SELECT seq FROM submission WHERE blob=?1)",
        "UPDATE submission SET body=NULL, blob=NULL WHERE blob=?1",
    ] {
        copied.execute(sql, [blob.0])?;
    }
    // no image is ever forgotten
    Ok(!copied.prepare_cached("SELECT 1 FROM instance WHERE blob=?1 LIMIT 1")?.exists([blob.0])?)
}

/// Copies the blobs that are wanted and not there yet; `forget` says whether one that is missing is not wanted any more. Returns how many
/// there are, and their bytes.
fn copy_blobs(
    site: &str,
    wanted: &[BlobId],
    from: &Path,
    to: &Path,
    forget: &dyn Fn(&BlobId) -> Result<bool, Error>,
    tell: &mut dyn FnMut(String),
) -> Result<(u64, u64), Error> {
    let (mut copied, mut bytes, mut folders) = (0, 0, std::collections::BTreeSet::new());
    for (number, blob) in wanted.iter().enumerate() {
        if number % 1000 == 0 {
            tell(format!("site {site}: blobs {number}/{}", wanted.len()));
        }
        let (source, target) = (path_in(&from.join("blobs"), blob), path_in(&to.join("blobs"), blob));
        let length = match place(&source, &target) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::NotFound && forget(blob)? => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let text = format!(
                    "the blob {} of site {site} is missing: `hilum fsck --deep` tells whose it is",
                    blob.hex()
                );
                return Err(Error::unavailable(text).because(error));
            }
            Err(error) => return Err(error.into()),
        };
        (copied, bytes) = (copied + 1, bytes + length);
        folders.extend(target.parent().map(Path::to_owned));
    }
    for folder in folders {
        File::open(folder)?.sync_all()?;
    }
    Ok((copied, bytes))
}

/// Copies a blob to its place, unless it is there. Its length.
fn place(source: &Path, target: &Path) -> io::Result<u64> {
    let length = fs::metadata(source)?.len();
    if fs::metadata(target).is_ok_and(|there| there.len() == length) {
        return Ok(length);
    }
    fs::create_dir_all(target.parent().unwrap_or(target))?;
    let new = target.with_extension("new");
    fs::copy(source, &new)?;
    File::open(&new)?.sync_all()?;
    fs::rename(&new, target)?;
    Ok(length)
}

fn write_manifest(out: &Path, manifest: &Manifest) -> Result<(), Error> {
    let text = serde_json::to_vec_pretty(manifest).map_err(|e| Error::unavailable("manifest").because(e))?;
    let new = out.join("manifest.new");
    File::create(&new)?.write_all(&text)?;
    put(&new, &out.join(MANIFEST))
}

/// The sites below a data folder.
pub(super) fn site_ids(data_dir: &Path) -> Result<Vec<String>, Error> {
    let sites: PathBuf = data_dir.join("sites");
    if !sites.exists() {
        return Ok(Vec::new());
    }
    let mut ids = Vec::new();
    for entry in fs::read_dir(sites)? {
        let entry = entry?;
        if entry.path().join(SITE_FILE).exists() {
            ids.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    ids.sort();
    Ok(ids)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

//! A copy of everything, made while an edge runs, and its way back.
//!
//! Databases first, each in one snapshot (`VACUUM INTO`), then the blobs those copies refer to: blobs never change, so every one a copy
//! refers to can still be had, but for what the edge forgot meanwhile (a rejected original, an old one). That the copy forgets too; where a study was
//! removed, the database is copied once more. The manifest is written last and removed first: a folder with one is whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use hilum_blobs::disk::{path_in, sha256_of};
use hilum_blobs::{BlobId, hex};
use hilum_rows::files::{self, CONTROL_FILE, Contents, Missing, SITE_FILE, SITES, site_ids};
use serde::{Deserialize, Serialize};

use crate::{Config, Error};

const MANIFEST: &str = "manifest.json";
const FORMAT: u32 = 1;
/// A site is copied again, without what was removed meanwhile, so often.
const COPIES_MAX: usize = 5;

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
    files::only(&config.of_rows(), "backup")?;
    let data_dir = config.data_dir.as_path();
    let begun = jiff::Timestamp::now().to_string();
    fs::create_dir_all(out)?;
    remove_if_there(&out.join(MANIFEST))?;
    snapshot(&data_dir.join(CONTROL_FILE), &out.join(CONTROL_FILE))?;
    let control = hash(&out.join(CONTROL_FILE))?;
    let mut sites = Vec::new();
    for id in site_ids(data_dir)? {
        sites.push(copy_site(config, id, out, tell)?);
    }
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let manifest = Manifest { format: FORMAT, version, begun, control_sha256: control, sites };
    write_manifest(out, &manifest)?;
    Ok(manifest)
}

/// Copies the database of a site, then its blobs; from the beginning when a study was removed meanwhile.
fn copy_site(
    config: &Config,
    id: String,
    out: &Path,
    tell: &mut dyn FnMut(String),
) -> Result<SiteCopy, Error> {
    let (from, to) = (config.data_dir.join(SITES).join(&id), out.join(SITES).join(&id));
    let (live, copy) = (from.join(SITE_FILE), to.join(SITE_FILE));
    fs::create_dir_all(&to)?;
    for _ in 0..COPIES_MAX {
        tell(format!("site {id}: database"));
        snapshot(&live, &copy)?;
        let Contents { newest, blobs } = files::contents(&copy)?;
        let copied = match &config.bucket {
            None => copy_blobs(&id, &blobs, &from, &to, &|blob| files::missing(&live, &copy, blob), tell)?,
            Some(of) => {
                tell(format!("site {id}: its blobs stay in the bucket {}; keep its versions", of.bucket));
                Some((0, 0))
            }
        };
        let Some((blobs, blob_bytes)) = copied else { continue };
        File::open(&copy)?.sync_all()?;
        let sha256 = hash(&copy)?;
        return Ok(SiteCopy { id, sha256, newest, blobs, blob_bytes });
    }
    Err(Error::unavailable(format!(
        "studies of site {id} are removed faster than it is copied; make the backup when none are removed"
    )))
}

/// Puts a backup below the data folder, which must be empty or not there. Every database is compared with the manifest.
///
/// # Errors
/// `Unavailable` when the backup is not whole or was made by a newer program, or `data_dir` holds something.
pub fn restore(config: &Config, from: &Path, tell: &mut dyn FnMut(String)) -> Result<Manifest, Error> {
    files::only(&config.of_rows(), "restore")?;
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
        let (from, to) = (from.join(SITES).join(&site.id), data_dir.join(SITES).join(&site.id));
        fs::create_dir_all(&to)?;
        tell(format!("site {}: database", site.id));
        copy_checked(&from.join(SITE_FILE), &to.join(SITE_FILE), &site.sha256)?;
        if config.bucket.is_none() {
            let copied = files::contents(&to.join(SITE_FILE))?;
            copy_blobs(&site.id, &copied.blobs, &from, &to, &|_| Ok(Missing::Lost), tell)?;
        }
    }
    Ok(manifest)
}

/// A consistent copy of a database that may be in use.
fn snapshot(from: &Path, to: &Path) -> Result<(), Error> {
    let new = to.with_extension("new");
    remove_if_there(&new)?;
    files::snapshot(from, &new)?;
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
    Ok(hex(&sha256_of(&mut File::open(path)?)?))
}

/// Copies the blobs that are wanted and not there yet; `missing` says why one is not to be had. Returns how many there are, and their bytes;
/// `None` when the database has to be copied again.
fn copy_blobs(
    site: &str,
    wanted: &[BlobId],
    from: &Path,
    to: &Path,
    missing: &dyn Fn(&BlobId) -> Result<Missing, Error>,
    tell: &mut dyn FnMut(String),
) -> Result<Option<(u64, u64)>, Error> {
    let (mut copied, mut bytes, mut folders) = (0, 0, std::collections::BTreeSet::new());
    for (number, blob) in wanted.iter().enumerate() {
        if number % 1000 == 0 {
            tell(format!("site {site}: blobs {number}/{}", wanted.len()));
        }
        let (source, target) = (path_in(&from.join("blobs"), blob), path_in(&to.join("blobs"), blob));
        let length = match place(&source, &target) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::NotFound => match missing(blob)? {
                Missing::Forgotten => continue,
                Missing::Removed => return Ok(None),
                Missing::Lost => {
                    let text = format!(
                        "the blob {} of site {site} is missing: `hilum fsck --deep` tells whose it is",
                        blob.hex()
                    );
                    return Err(Error::unavailable(text).because(error));
                }
            },
            Err(error) => return Err(error.into()),
        };
        (copied, bytes) = (copied + 1, bytes + length);
        folders.extend(target.parent().map(Path::to_owned));
    }
    for folder in folders {
        File::open(folder)?.sync_all()?;
    }
    Ok(Some((copied, bytes)))
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

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

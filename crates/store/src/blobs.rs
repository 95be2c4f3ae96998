//! Blobs: content-addressed files below `sites/{id}/blobs`.
//!
//! A blob consists of a `head` (for DICOM: preamble and file meta group, a pure function of UIDs) and a body (the bytes received).
//! Only the body is hashed while it streams; the content address is SHA-256 over `head` and the body's digest, or with an empty head the body's
//! digest itself. So a DICOM object costs one pass of SHA-256, not two.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use crate::Error;

/// Bytes gathered before a piece of file work is handed to a blocking thread.
const PIECE_BYTES: usize = 512 * 1024;
const TEMPORARY: &str = "tmp";
/// Temporary files older than this are garbage of a crash.
const TEMPORARY_AGE_MAX: Duration = Duration::from_secs(3600);

/// A blob taken or found again within this time may be about to be referred to.
const UNUSED_AGE_MIN: Duration = Duration::from_secs(900);

/// Content address of a blob.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BlobId(pub [u8; 32]);

impl BlobId {
    /// In hexadecimal: the file's name.
    pub fn hex(&self) -> String {
        hex(&self.0)
    }
}

/// A finished blob.
#[derive(Clone, Copy, Debug)]
pub struct FinishedBlob {
    /// Content address.
    pub id: BlobId,
    /// SHA-256 of the body (for DICOM: of the data set).
    pub body_sha256: [u8; 32],
    /// Bytes of head and body.
    pub bytes: u64,
}

/// The blobs of one site.
#[derive(Clone, Debug)]
pub(crate) struct Blobs {
    dir: PathBuf,
    /// Held while a blob that is there already is taken for a new one, and while one is removed.
    placing: Arc<Mutex<()>>,
}

impl Blobs {
    /// Makes the folders and removes what a crash left behind.
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(dir.join(TEMPORARY))?;
        // all folders are made once, so that a blob costs two syncs: of its file and of its folder
        for fan in 0..=u8::MAX {
            let folder = dir.join(hex(&[fan]));
            if !folder.exists() {
                fs::create_dir(folder)?;
            }
        }
        File::open(&dir)?.sync_all()?;
        for entry in fs::read_dir(dir.join(TEMPORARY))?.flatten() {
            let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok());
            if age.is_some_and(|age| age > TEMPORARY_AGE_MAX) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(Self { dir, placing: Arc::default() })
    }

    pub(crate) fn path(&self, id: &BlobId) -> PathBuf {
        let name = id.hex();
        self.dir.join(&name[..2]).join(name)
    }

    pub(crate) fn writer(&self, head: Bytes) -> BlobWriter {
        BlobWriter { spool: Some(Spool::new(self.clone(), head)), piece: BytesMut::new() }
    }

    /// Writes a whole blob durably. Blocks.
    pub(crate) fn write_now(&self, bytes: &[u8]) -> io::Result<FinishedBlob> {
        let mut spool = Spool::new(self.clone(), Bytes::new());
        spool.append(bytes)?;
        spool.finish()
    }

    /// Whether the content is durable already; if so it counts as new.
    fn found(&self, path: &Path, bytes: u64) -> bool {
        let _alone = self.placing.lock();
        let Ok(file) = File::open(path) else { return false };
        file.metadata().is_ok_and(|known| known.len() == bytes)
            && file.set_modified(jiff::Timestamp::now().into()).is_ok()
    }

    /// Removes a blob that nobody refers to, unless it is so new that somebody may be about to. Whether it is gone. Blocks.
    pub(crate) fn remove_old(&self, id: &BlobId) -> io::Result<bool> {
        let path = self.path(id);
        let _alone = self.placing.lock();
        let modified = match fs::metadata(&path).and_then(|file| file.modified()) {
            Ok(modified) => modified,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error),
        };
        let is_old = modified.elapsed().is_ok_and(|age| age >= UNUSED_AGE_MIN);
        if is_old {
            fs::remove_file(path)?;
        }
        Ok(is_old)
    }

    fn temporary(&self) -> PathBuf {
        self.dir.join(TEMPORARY).join(uuid::Uuid::now_v7().to_string())
    }
}

/// A blob being written: a temporary file until [`BlobWriter::finish`]. Dropping it removes the file.
#[derive(Debug)]
pub struct BlobWriter {
    spool: Option<Spool>,
    piece: BytesMut,
}

impl BlobWriter {
    /// Appends to the body. Buffers; file work runs off the async threads.
    ///
    /// # Errors
    /// `Full`, `Unavailable`; the blob cannot be finished any more then.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.piece.capacity() == 0 {
            self.piece.reserve(PIECE_BYTES);
        }
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE_BYTES {
            let piece = std::mem::replace(&mut self.piece, BytesMut::with_capacity(PIECE_BYTES));
            self.blocking(move |spool| spool.append(&piece)).await?;
        }
        Ok(())
    }

    /// Syncs the file, renames it to its content address, syncs the directory. Durable when it returns.
    ///
    /// # Errors
    /// `Full`, `Unavailable`; the temporary file is gone then, and nothing is visible.
    pub async fn finish(mut self) -> Result<FinishedBlob, Error> {
        let piece = std::mem::take(&mut self.piece);
        let Some(mut spool) = self.spool.take() else { return Err(broken()) };
        let work = move || {
            spool.append(&piece)?;
            spool.finish()
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|e| Error::unavailable("blob writer").because(e))?
            .map_err(Error::from)
    }

    async fn blocking(
        &mut self,
        work: impl FnOnce(&mut Spool) -> io::Result<()> + Send + 'static,
    ) -> Result<(), Error> {
        let Some(mut spool) = self.spool.take() else { return Err(broken()) };
        let done = tokio::task::spawn_blocking(move || work(&mut spool).map(|()| spool)).await;
        self.spool =
            Some(done.map_err(|e| Error::unavailable("blob writer").because(e))?.map_err(Error::from)?);
        Ok(())
    }
}

fn broken() -> Error {
    Error::unavailable("the blob broke off earlier")
}

/// The file and the digest behind a writer.
struct Spool {
    blobs: Blobs,
    head: Bytes,
    temporary: PathBuf,
    file: Option<File>,
    digest: Context,
    bytes: u64,
}

impl Spool {
    fn new(blobs: Blobs, head: Bytes) -> Self {
        let temporary = blobs.temporary();
        Self { blobs, head, temporary, file: None, digest: Context::new(&SHA256), bytes: 0 }
    }

    fn append(&mut self, body: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            let mut file = File::create_new(&self.temporary)?;
            file.write_all(&self.head)?;
            self.bytes = self.head.len() as u64;
            self.file = Some(file);
        }
        if let Some(file) = &mut self.file {
            file.write_all(body)?;
        }
        self.digest.update(body);
        self.bytes += body.len() as u64;
        Ok(())
    }

    fn finish(mut self) -> io::Result<FinishedBlob> {
        let body_sha256 = digest_bytes(self.digest.clone());
        let id = BlobId(if self.head.is_empty() { body_sha256 } else { address(&self.head, &body_sha256) });
        let finished = FinishedBlob { id, body_sha256, bytes: self.bytes };
        let path = self.blobs.path(&id);
        if self.blobs.found(&path, self.bytes) {
            return Ok(finished); // the same content is durable already; dropping self removes the temporary file
        }
        if let Some(file) = self.file.take() {
            file.sync_data()?;
        }
        let parent = path.parent().unwrap_or(&self.blobs.dir).to_owned();
        fs::rename(&self.temporary, &path)?;
        File::open(parent)?.sync_all()?;
        Ok(finished)
    }
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Spool({} bytes)", self.bytes)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.temporary);
    }
}

fn address(head: &[u8], body_sha256: &[u8; 32]) -> [u8; 32] {
    let mut digest = Context::new(&SHA256);
    digest.update(head);
    digest.update(body_sha256);
    digest_bytes(digest)
}

fn digest_bytes(context: Context) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).filter_map(|n| char::from_digit(u32::from(n), 16)).collect()
}

/// An open blob.
#[derive(Debug)]
pub struct BlobReader {
    /// Size in bytes, head included.
    pub bytes: u64,
    /// The file, positioned at its start.
    pub file: tokio::fs::File,
}

/// Time since a file was changed; for tests of the sweep.
#[cfg(test)]
fn make_old(path: &std::path::Path) {
    let old = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_blob_is_found_under_its_content_and_stored_once() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path().join("blobs")).unwrap();
        let body = vec![7u8; 1_300_000];
        let mut finished = Vec::new();
        for _ in 0..2 {
            let mut writer = blobs.writer(Bytes::from_static(b"head"));
            for slice in body.chunks(70_000) {
                writer.write(slice).await.unwrap();
            }
            finished.push(writer.finish().await.unwrap());
        }
        assert_eq!(finished[0].id, finished[1].id);
        assert_eq!(finished[0].body_sha256, crate::sha256(&body));
        assert_eq!(finished[0].bytes, 1_300_004);
        let stored = fs::read(blobs.path(&finished[0].id)).unwrap();
        assert!(stored.starts_with(b"head") && stored[4..] == body);
        assert_eq!(fs::read_dir(dir.path().join("blobs/tmp")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_dropped_writer_leaves_nothing_and_old_leftovers_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blobs");
        let blobs = Blobs::open(path.clone()).unwrap();
        let mut writer = blobs.writer(Bytes::new());
        writer.write(&vec![1; PIECE_BYTES]).await.unwrap();
        assert_eq!(fs::read_dir(path.join("tmp")).unwrap().count(), 1);
        drop(writer);
        assert_eq!(fs::read_dir(path.join("tmp")).unwrap().count(), 0);
        fs::write(path.join("tmp/left"), b"x").unwrap();
        make_old(&path.join("tmp/left"));
        Blobs::open(path.clone()).unwrap();
        assert_eq!(fs::read_dir(path.join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn a_blob_is_removed_when_it_is_old_and_was_not_sent_again() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path().join("blobs")).unwrap();
        let id = blobs.write_now(b"abc").unwrap().id;
        assert!(!blobs.remove_old(&id).unwrap(), "new");
        make_old(&blobs.path(&id));
        blobs.write_now(b"abc").unwrap();
        assert!(!blobs.remove_old(&id).unwrap(), "sent again");
        make_old(&blobs.path(&id));
        assert!(blobs.remove_old(&id).unwrap() && !blobs.path(&id).exists());
        assert!(blobs.remove_old(&id).unwrap(), "gone already");
    }

    #[test]
    fn without_head_the_address_is_the_content() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path().join("blobs")).unwrap();
        let finished = blobs.write_now(b"abc").unwrap();
        assert_eq!(finished.id.0, crate::sha256(b"abc"));
        assert!(finished.id.hex().starts_with("ba7816bf"));
    }
}

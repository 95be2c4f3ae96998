//! Blobs: content-addressed files below `sites/{id}/blobs`.
//!
//! A blob consists of a `head` (for DICOM: preamble and file meta group, a pure function of UIDs) and a body (the bytes received).
//! Only the body is hashed while it streams; the content address is SHA-256 over `head` and the body's digest, or with an empty head the body's
//! digest itself. So a DICOM object costs one pass of SHA-256, not two.
//!
//! A blob is known by its address as soon as its last byte is hashed, while its file is still on its way to the disk ([`BlobWriter::seal`]).
//! What is done with the address until then (mapping, planning) costs no time; the row that names it waits for it ([`Blobs::durable`]).

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::spawn_blocking;

use crate::{Error, ErrorKind};

/// Bytes gathered before they are written to the file, off the async threads.
const PIECE_BYTES: usize = 128 * 1024;
/// Pieces of one writer that may wait or be written; one more is being filled.
const PIECES_WAITING_MAX: usize = 2;
const TEMPORARY: &str = "tmp";
/// Temporary files older than this are garbage of a crash.
const TEMPORARY_AGE_MAX: Duration = Duration::from_secs(3600);

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
    /// Held while a file takes its place: none replaces another that may be durable already.
    placing: Arc<Mutex<()>>,
    /// Sealed blobs whose files are not known to be durable yet, and those that failed, until the same content is sealed again.
    pending: Arc<Mutex<HashMap<BlobId, Durability>>>,
}

/// What became of a file; `None` = not known yet.
type Settled = Option<Result<(), ErrorKind>>;
type Durability = watch::Receiver<Settled>;
type Sealing = oneshot::Sender<Result<FinishedBlob, ErrorKind>>;

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
        Ok(Self { dir, placing: Arc::default(), pending: Arc::default() })
    }

    pub(crate) fn path(&self, id: &BlobId) -> PathBuf {
        let name = id.hex();
        self.dir.join(&name[..2]).join(name)
    }

    pub(crate) fn writer(&self, head: Bytes) -> BlobWriter {
        BlobWriter::new(self.clone(), head)
    }

    /// Writes a whole blob durably. Blocks.
    pub(crate) fn write_now(&self, bytes: &[u8]) -> io::Result<FinishedBlob> {
        let mut spool = Spool::new(self.clone(), Bytes::new());
        spool.append(bytes)?;
        let blob = spool.blob();
        spool.finish(&blob.id)?;
        Ok(blob)
    }

    /// Returns once a blob is durable: before the row that names it is written.
    ///
    /// # Errors
    /// `Full`, `Unavailable`: the file could not be written, and the row must not be.
    pub(crate) async fn durable(&self, id: &BlobId) -> Result<(), Error> {
        let Some(mut pending) = self.pending.lock().get(id).cloned() else { return Ok(()) };
        let settled = pending.wait_for(Option::is_some).await.ok().and_then(|settled| *settled);
        match settled.unwrap_or(Err(ErrorKind::Unavailable)) {
            Ok(()) => {
                self.forget(id, &pending);
                Ok(())
            }
            Err(kind) => Err(Error { kind, ..Error::unavailable("a blob could not be written") }),
        }
    }

    fn forget(&self, id: &BlobId, settled: &Durability) {
        let mut pending = self.pending.lock();
        if pending.get(id).is_some_and(|known| known.same_channel(settled)) {
            pending.remove(id);
        }
    }

    /// Renames when nothing has that name; tells whether it did.
    fn place_new(&self, temporary: &Path, path: &Path) -> io::Result<bool> {
        let _alone = self.placing.lock();
        if path.exists() {
            return Ok(false);
        }
        fs::rename(temporary, path).map(|()| true)
    }

    fn temporary(&self) -> PathBuf {
        self.dir.join(TEMPORARY).join(uuid::Uuid::now_v7().to_string())
    }
}

/// A blob being written: a temporary file until [`BlobWriter::finish`]. Dropping it removes the file.
pub struct BlobWriter {
    blobs: Blobs,
    piece: BytesMut,
    queue: Arc<Mutex<Queue>>,
    /// Pieces that may wait or be written while another is filled.
    room: Arc<Semaphore>,
}

/// The file work of a writer, done in order by one blocking thread at a time, which goes on as long as there is any.
struct Queue {
    pieces: VecDeque<(BytesMut, Option<OwnedSemaphorePermit>)>,
    /// Who wants to know the address at the end.
    end: Option<Sealing>,
    /// The file; `None` while a thread works on it.
    spool: Option<Spool>,
    spare: Option<BytesMut>,
    failed: Option<ErrorKind>,
}

impl BlobWriter {
    fn new(blobs: Blobs, head: Bytes) -> Self {
        let spool = Some(Spool::new(blobs.clone(), head));
        let queue = Queue { pieces: VecDeque::new(), end: None, spool, spare: None, failed: None };
        Self {
            blobs,
            piece: BytesMut::new(),
            queue: Arc::new(Mutex::new(queue)),
            room: Arc::new(Semaphore::new(PIECES_WAITING_MAX)),
        }
    }

    /// Appends to the body. Buffers; hashing and file work run off the async threads, beside the arrival of the next bytes.
    ///
    /// # Errors
    /// `Full`, `Unavailable`, perhaps of bytes given earlier; the blob cannot be finished any more then.
    pub async fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            if self.piece.capacity() == 0 {
                // small objects do not need a whole piece
                self.piece.reserve(PIECE_BYTES.min(4 * bytes.len()));
            }
            let room = PIECE_BYTES - self.piece.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.piece.extend_from_slice(now);
            bytes = later;
            if self.piece.len() == PIECE_BYTES {
                let room =
                    self.room.clone().acquire_owned().await.map_err(|_| broken(ErrorKind::Unavailable))?;
                self.hand_over(Some(room), None)?;
            }
        }
        Ok(())
    }

    /// Gives the piece to the thread that works on the file, or to a new one.
    fn hand_over(&mut self, room: Option<OwnedSemaphorePermit>, end: Option<Sealing>) -> Result<(), Error> {
        let mut queue = self.queue.lock();
        if let Some(kind) = queue.failed {
            return Err(broken(kind));
        }
        let next = queue.spare.take().unwrap_or_default();
        queue.pieces.push_back((std::mem::replace(&mut self.piece, next), room));
        queue.end = end;
        if let Some(spool) = queue.spool.take() {
            let queue = self.queue.clone();
            drop(spawn_blocking(move || work(&queue, spool)));
        }
        Ok(())
    }

    /// Ends the body. Returns once the address is known, while the file goes to its place and is synced with its folder.
    /// The store writes no row with this address before that is done.
    ///
    /// # Errors
    /// `Full`, `Unavailable`: a piece could not be written; nothing refers to the blob.
    pub async fn seal(mut self) -> Result<FinishedBlob, Error> {
        let (known, address) = oneshot::channel();
        self.hand_over(None, Some(known))?;
        address.await.unwrap_or(Err(ErrorKind::Unavailable)).map_err(broken)
    }

    /// As [`BlobWriter::seal`]; the blob is durable when it returns.
    ///
    /// # Errors
    /// `Full`, `Unavailable`.
    pub async fn finish(self) -> Result<FinishedBlob, Error> {
        let blobs = self.blobs.clone();
        let blob = self.seal().await?;
        blobs.durable(&blob.id).await?;
        Ok(blob)
    }
}

/// Writes pieces until none waits, then ends the file or puts it back. Blocks.
fn work(queue: &Mutex<Queue>, mut spool: Spool) {
    loop {
        let mut locked = queue.lock();
        let failed = locked.failed;
        let Some((mut piece, _room)) = locked.pieces.pop_front() else {
            match locked.end.take() {
                Some(known) => {
                    drop(locked);
                    end(spool, known, failed);
                }
                None => locked.spool = Some(spool),
            }
            return;
        };
        drop(locked);
        // after a failed write nothing more is written
        let written = if failed.is_none() { spool.append(&piece) } else { Ok(()) };
        piece.clear();
        let mut locked = queue.lock();
        locked.spare = Some(piece);
        if let Err(error) = written {
            locked.failed = Some(told(error));
        }
    }
}

/// Tells the address, then makes the file durable.
fn end(spool: Spool, known: Sealing, failed: Option<ErrorKind>) {
    let blob = spool.blob();
    if let Some(kind) = failed {
        let _ = known.send(Err(kind));
        return;
    }
    let blobs = spool.blobs.clone();
    let (settle, settled) = watch::channel(None);
    blobs.pending.lock().insert(blob.id, settled.clone());
    let _ = known.send(Ok(blob));
    let done = spool.finish(&blob.id).map_err(told);
    settle.send_replace(Some(done));
    // a failure stays known
    if done.is_ok() {
        blobs.forget(&blob.id, &settled);
    }
}

fn told(error: io::Error) -> ErrorKind {
    let error = Error::from(error);
    tracing::error!(%error, cause = ?error.source, "a blob could not be written");
    error.kind
}

fn broken(kind: ErrorKind) -> Error {
    Error { kind, ..Error::unavailable("the blob broke off earlier") }
}

impl std::fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobWriter({} bytes at hand)", self.piece.len())
    }
}

impl FinishedBlob {
    fn new(head: &[u8], body_sha256: [u8; 32], body_bytes: u64) -> Self {
        let id = BlobId(if head.is_empty() { body_sha256 } else { address(head, &body_sha256) });
        Self { id, body_sha256, bytes: head.len() as u64 + body_bytes }
    }
}

/// The file and the digest behind a writer.
struct Spool {
    blobs: Blobs,
    head: Bytes,
    temporary: PathBuf,
    file: Option<File>,
    digest: Context,
    body_bytes: u64,
    /// Whether the temporary name is gone.
    is_placed: bool,
}

impl Spool {
    fn new(blobs: Blobs, head: Bytes) -> Self {
        let temporary = blobs.temporary();
        let digest = Context::new(&SHA256);
        Self { blobs, head, temporary, file: None, digest, body_bytes: 0, is_placed: false }
    }

    fn append(&mut self, body: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            let mut file = File::create_new(&self.temporary)?;
            file.write_all(&self.head)?;
            self.file = Some(file);
        }
        if let Some(file) = &mut self.file {
            file.write_all(body)?;
        }
        self.digest.update(body);
        self.body_bytes += body.len() as u64;
        Ok(())
    }

    /// What it is so far.
    fn blob(&self) -> FinishedBlob {
        FinishedBlob::new(&self.head, digest_bytes(self.digest.clone()), self.body_bytes)
    }

    /// The file takes its place before it is synced, so that one journal commit of the file system holds both; what is there
    /// already is only replaced by what is durable. The folder is synced last: then all is.
    fn finish(mut self, id: &BlobId) -> io::Result<()> {
        let path = self.blobs.path(id);
        let Some(file) = self.file.take() else { return Err(io::Error::other("nothing was written")) };
        let is_new = self.blobs.place_new(&self.temporary, &path)?;
        self.is_placed = is_new;
        file.sync_data()?;
        if !is_new {
            fs::rename(&self.temporary, &path)?;
            self.is_placed = true;
        }
        File::open(path.parent().unwrap_or(&self.blobs.dir))?.sync_all()
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if !self.is_placed {
            let _ = fs::remove_file(&self.temporary);
        }
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
        writer.write(&vec![1; PIECE_BYTES]).await.unwrap();
        // the thread that writes comes and goes on its own
        let becomes = async |count: usize| {
            for _ in 0..500 {
                if fs::read_dir(path.join("tmp")).unwrap().count() == count {
                    return true;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            false
        };
        assert!(becomes(1).await);
        drop(writer);
        assert!(becomes(0).await);
        fs::write(path.join("tmp/left"), b"x").unwrap();
        make_old(&path.join("tmp/left"));
        Blobs::open(path.clone()).unwrap();
        assert_eq!(fs::read_dir(path.join("tmp")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_is_left_under_a_name_by_a_crash_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path().join("blobs")).unwrap();
        let path = blobs.path(&BlobId(crate::sha256(b"abc")));
        // placed, but not written: the row that would have named it was never committed
        fs::write(&path, [0; 3]).unwrap();
        let mut writer = blobs.writer(Bytes::new());
        writer.write(b"abc").await.unwrap();
        writer.finish().await.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abc");
        assert_eq!(fs::read_dir(dir.path().join("blobs/tmp")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_sealed_blob_is_waited_for_and_its_failure_is_not_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path().join("blobs")).unwrap();
        let seal = async |body: &[u8]| {
            let mut writer = blobs.writer(Bytes::new());
            writer.write(body).await.unwrap();
            writer.seal().await.unwrap()
        };
        let good = seal(b"good").await;
        blobs.durable(&good.id).await.unwrap();
        assert_eq!(fs::read(blobs.path(&good.id)).unwrap(), b"good");
        // the folder it belongs into is gone: it cannot take its place
        fs::remove_dir_all(blobs.path(&BlobId(crate::sha256(b"bad"))).parent().unwrap()).unwrap();
        let bad = seal(b"bad").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        for _ in 0..2 {
            assert!(blobs.durable(&bad.id).await.is_err(), "no row may name it, whoever asks");
        }
        fs::create_dir(blobs.path(&bad.id).parent().unwrap()).unwrap();
        let again = seal(b"bad").await;
        blobs.durable(&again.id).await.unwrap();
        assert!(blobs.pending.lock().is_empty());
    }

    #[tokio::test]
    async fn a_failed_write_is_told_and_the_blob_never_finishes() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path().join("blobs")).unwrap();
        let mut writer = blobs.writer(Bytes::new());
        fs::remove_dir_all(dir.path().join("blobs/tmp")).unwrap();
        let piece = vec![1; PIECE_BYTES];
        // told once a thread has tried; waiting for room waits for it
        let mut written = 0;
        while writer.write(&piece).await.is_ok() {
            written += 1;
            assert!(written <= PIECES_WAITING_MAX + 1);
        }
        assert!(writer.write(&piece).await.is_err());
        assert!(writer.finish().await.is_err());
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

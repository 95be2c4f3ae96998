//! Blobs as files: `sites/{id}/blobs/ab/{name}`.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rustix::fs::{Advice, fadvise};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use super::{AGED, BlobId, Pending, Settle, UNUSED_AGE_MIN, broken, digest_bytes, hex, told};
use crate::{Error, ErrorKind};

/// Bytes gathered before they are written to the file, off the async threads.
const PIECE_BYTES: usize = 128 * 1024;
/// Pieces of one writer that may wait or be written; one more is being filled.
const PIECES_WAITING_MAX: usize = 2;
/// No head is longer.
const HEAD_BYTES_MAX: u64 = 64 * 1024;
const TEMPORARY: &str = "tmp";
/// Temporary files older than this are garbage of a crash.
const TEMPORARY_AGE_MAX: Duration = Duration::from_secs(3600);

/// The blobs of one site, below a folder.
#[derive(Clone, Debug)]
pub struct Disk {
    dir: PathBuf,
    /// Held while a file takes its place or is removed: none replaces another that may be durable already, and none is removed that was
    /// placed again.
    placing: Arc<Mutex<()>>,
    pub(super) pending: Pending,
}

impl Disk {
    /// Makes the folders and removes what a crash left behind.
    ///
    /// # Errors
    /// That of the disk.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
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
        Ok(Self { dir, placing: Arc::default(), pending: Pending::default() })
    }

    /// The file of a blob.
    pub fn path(&self, id: &BlobId) -> PathBuf {
        path_in(&self.dir, id)
    }

    pub(super) fn writer(&self, head: Bytes) -> Writer {
        Writer::new(self.clone(), head)
    }

    /// Writes a whole blob durably. Blocks.
    pub(super) fn write_now(&self, id: &BlobId, bytes: &[u8]) -> io::Result<()> {
        let mut spool = Spool::new(self.clone(), Bytes::new());
        spool.append(bytes)?;
        spool.finish(id)
    }

    /// Renames when nothing has that name; tells whether it did.
    fn place_new(&self, temporary: &Path, path: &Path) -> io::Result<bool> {
        let _alone = self.placing.lock();
        if path.exists() {
            return Ok(false);
        }
        fs::rename(temporary, path).map(|()| true)
    }

    /// Takes the place of what has that name.
    fn place_again(&self, temporary: &Path, path: &Path) -> io::Result<()> {
        let _alone = self.placing.lock();
        fs::rename(temporary, path)
    }

    /// Removes a blob unless it took its place a short time ago. Whether it is gone. Blocks.
    pub(super) fn remove_old(&self, id: &BlobId) -> io::Result<bool> {
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

    /// Blobs of one folder that were placed more than [`AGED`] ago. Blocks.
    pub(super) fn aged(&self, fan: u8) -> io::Result<Vec<BlobId>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.dir.join(hex(&[fan])))? {
            let entry = entry?;
            let age = entry.metadata().and_then(|file| file.modified()).ok().and_then(|at| at.elapsed().ok());
            if age.is_some_and(|age| age > AGED) {
                found.extend(entry.file_name().to_str().and_then(BlobId::from_hex));
            }
        }
        Ok(found)
    }

    fn temporary(&self) -> PathBuf {
        self.dir.join(TEMPORARY).join(uuid::Uuid::now_v7().to_string())
    }
}

/// A file being written: a temporary one until it is sealed. Dropping it removes the file.
pub(super) struct Writer {
    blobs: Disk,
    piece: BytesMut,
    queue: Arc<Mutex<Queue>>,
    /// Pieces that may wait or be written while another is filled.
    room: Arc<Semaphore>,
}

/// The file work of a writer, done in order by one blocking thread at a time, which goes on as long as there is any.
struct Queue {
    pieces: VecDeque<(BytesMut, Option<OwnedSemaphorePermit>)>,
    /// Where the file goes at the end, and who wants to know.
    end: Option<(BlobId, Settle)>,
    /// The file; `None` while a thread works on it.
    spool: Option<Spool>,
    spare: Option<BytesMut>,
    failed: Option<ErrorKind>,
}

impl Writer {
    fn new(blobs: Disk, head: Bytes) -> Self {
        let spool = Some(Spool::new(blobs.clone(), head));
        let queue = Queue { pieces: VecDeque::new(), end: None, spool, spare: None, failed: None };
        Self {
            blobs,
            piece: BytesMut::new(),
            queue: Arc::new(Mutex::new(queue)),
            room: Arc::new(Semaphore::new(PIECES_WAITING_MAX)),
        }
    }

    /// Buffers; file work runs off the async threads, beside the arrival of the next bytes.
    pub(super) async fn write(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
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
    fn hand_over(
        &mut self,
        room: Option<OwnedSemaphorePermit>,
        end: Option<(BlobId, Settle)>,
    ) -> Result<(), Error> {
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

    /// Ends the body: the file goes to its place and is synced with its folder while the caller goes on.
    pub(super) fn seal(mut self, id: BlobId) -> Result<(), Error> {
        let settle = self.blobs.pending.begin(id);
        self.hand_over(None, Some((id, settle)))
    }
}

/// Writes pieces until none waits, then ends the file or puts it back. Blocks.
fn work(queue: &Mutex<Queue>, mut spool: Spool) {
    loop {
        let mut locked = queue.lock();
        let failed = locked.failed;
        let Some((mut piece, _room)) = locked.pieces.pop_front() else {
            match locked.end.take() {
                Some((id, settle)) => {
                    drop(locked);
                    end(spool, &id, &settle, failed);
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
            locked.failed = Some(told(error.into()));
        }
    }
}

fn end(spool: Spool, id: &BlobId, settle: &Settle, failed: Option<ErrorKind>) {
    let pending = spool.blobs.pending.clone();
    let done = failed.map_or_else(|| spool.finish(id).map_err(|error| told(error.into())), Err);
    pending.end(id, settle, done);
}

/// The file behind a writer.
struct Spool {
    blobs: Disk,
    head: Bytes,
    temporary: PathBuf,
    file: Option<File>,
    written_bytes: u64,
    /// Whether the temporary name is gone.
    is_placed: bool,
}

impl Spool {
    fn new(blobs: Disk, head: Bytes) -> Self {
        let temporary = blobs.temporary();
        Self { blobs, head, temporary, file: None, written_bytes: 0, is_placed: false }
    }

    fn append(&mut self, body: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            let mut file = File::create_new(&self.temporary)?;
            file.write_all(&self.head)?;
            self.written_bytes = self.head.len() as u64;
            self.file = Some(file);
        }
        if let Some(file) = &mut self.file {
            file.write_all(body)?;
            // the disk begins while more arrives, and the sync at the end finds less to do
            let (from, bytes) = (self.written_bytes, body.len() as u64);
            self.written_bytes += bytes;
            let _ = fadvise(&*file, from, NonZeroU64::new(bytes), Advice::DontNeed);
        }
        Ok(())
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
            self.blobs.place_again(&self.temporary, &path)?;
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

/// Where a blob lies below a folder of blobs.
pub fn path_in(dir: &Path, id: &BlobId) -> PathBuf {
    let name = id.hex();
    dir.join(&name[..2]).join(name)
}

/// Whether a file holds what its name stands for: its body, or a head and its body.
///
/// # Errors
/// That of the disk.
pub fn is_intact(file: &mut File, id: &BlobId, body_sha256: &[u8; 32]) -> io::Result<bool> {
    let mut begin = Vec::new();
    Read::by_ref(file).take(HEAD_BYTES_MAX).read_to_end(&mut begin)?;
    // the address says where the head ends
    let body_at = head_bytes(&begin, id, body_sha256).unwrap_or(0);
    file.seek(SeekFrom::Start(body_at as u64))?;
    let sha256 = sha256_of(file)?;
    Ok(if body_at > 0 { sha256 == *body_sha256 } else { sha256 == id.0 })
}

fn head_bytes(begin: &[u8], id: &BlobId, body_sha256: &[u8; 32]) -> Option<usize> {
    if id.0 == *body_sha256 {
        return None;
    }
    let mut head = Context::new(&SHA256);
    (1..=begin.len()).find(|at| {
        head.update(&begin[at - 1..*at]);
        let mut whole = head.clone();
        whole.update(body_sha256);
        digest_bytes(whole) == id.0
    })
}

/// SHA-256 of what is left of a file.
///
/// # Errors
/// That of the disk.
pub fn sha256_of(file: &mut File) -> io::Result<[u8; 32]> {
    let (mut digest, mut piece) = (Context::new(&SHA256), vec![0; PIECE_BYTES]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(digest_bytes(digest)),
            read => digest.update(&piece[..read]),
        }
    }
}

/// Time since a file was changed; for tests of the sweep.
#[cfg(test)]
fn make_old(path: &std::path::Path) {
    let old = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
}

#[cfg(test)]
mod tests {
    use super::super::Blobs;
    use super::*;

    fn open(dir: PathBuf) -> (Disk, Blobs) {
        let disk = Disk::open(dir).unwrap();
        (disk.clone(), Blobs::Disk(disk))
    }

    #[tokio::test]
    async fn a_blob_is_found_under_its_content_and_stored_once() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, blobs) = open(dir.path().join("blobs"));
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
        let stored = fs::read(disk.path(&finished[0].id)).unwrap();
        assert!(stored.starts_with(b"head") && stored[4..] == body);
        assert_eq!(fs::read_dir(dir.path().join("blobs/tmp")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_dropped_writer_leaves_nothing_and_old_leftovers_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blobs");
        let (_, blobs) = open(path.clone());
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
        Disk::open(path.clone()).unwrap();
        assert_eq!(fs::read_dir(path.join("tmp")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_is_left_under_a_name_by_a_crash_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, blobs) = open(dir.path().join("blobs"));
        let path = disk.path(&BlobId(crate::sha256(b"abc")));
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
        let (disk, blobs) = open(dir.path().join("blobs"));
        let seal = async |body: &[u8]| {
            let mut writer = blobs.writer(Bytes::new());
            writer.write(body).await.unwrap();
            writer.seal().unwrap()
        };
        let good = seal(b"good").await;
        blobs.durable(&good.id).await.unwrap();
        assert_eq!(fs::read(disk.path(&good.id)).unwrap(), b"good");
        // the folder it belongs into is gone: it cannot take its place
        fs::remove_dir_all(disk.path(&BlobId(crate::sha256(b"bad"))).parent().unwrap()).unwrap();
        let bad = seal(b"bad").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        for _ in 0..2 {
            assert!(blobs.durable(&bad.id).await.is_err(), "no row may name it, whoever asks");
        }
        fs::create_dir(disk.path(&bad.id).parent().unwrap()).unwrap();
        let again = seal(b"bad").await;
        blobs.durable(&again.id).await.unwrap();
        assert!(disk.pending.0.lock().is_empty());
    }

    #[tokio::test]
    async fn a_failed_write_is_told_and_the_blob_never_finishes() {
        let dir = tempfile::tempdir().unwrap();
        let (_, blobs) = open(dir.path().join("blobs"));
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
    fn a_blob_is_removed_when_it_is_old_and_was_not_sent_again() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, _) = open(dir.path().join("blobs"));
        let id = BlobId(crate::sha256(b"abc"));
        disk.write_now(&id, b"abc").unwrap();
        assert!(!disk.remove_old(&id).unwrap(), "new");
        make_old(&disk.path(&id));
        disk.write_now(&id, b"abc").unwrap();
        assert!(!disk.remove_old(&id).unwrap(), "sent again");
        make_old(&disk.path(&id));
        assert!(disk.remove_old(&id).unwrap() && !disk.path(&id).exists());
        assert!(disk.remove_old(&id).unwrap(), "gone already");
    }

    #[tokio::test]
    async fn without_head_the_address_is_the_content() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, blobs) = open(dir.path().join("blobs"));
        let id = blobs.put(Bytes::from_static(b"abc")).await.unwrap();
        assert_eq!(id.0, crate::sha256(b"abc"));
        assert!(id.hex().starts_with("ba7816bf") && disk.path(&id).exists());
    }
}

//! Blobs: images and documents, each stored once under its content address; as files or as objects in a bucket.
//!
//! A blob consists of a `head` (for DICOM: preamble and file meta group, a pure function of UIDs) and a body (the bytes received).
//! Only the body is hashed while it streams; the content address is SHA-256 over `head` and the body's digest, or with an empty head the body's
//! digest itself. So a DICOM object costs one pass of SHA-256, not two.
//!
//! A blob is known by its address as soon as its last byte is hashed, while its bytes are still on their way ([`BlobWriter::seal`]).
//! What is done with the address until then (mapping, planning) costs no time; the row that names it waits for it ([`Blobs::durable`]).
//! Nothing here knows rows, FHIR or a protocol.

pub mod disk;
mod error;
mod id;
mod s3;

use std::io;
use std::pin::Pin;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use tokio::io::AsyncRead;
use tokio::task::spawn_blocking;

pub use disk::Disk;
pub use error::{Error, ErrorKind};
pub use id::{BlobId, hex};
pub use s3::{S3, S3Config};

use id::{Pending, Settle};

/// A blob placed within this time may be about to be named by a row.
const UNUSED_AGE_MIN: Duration = Duration::from_secs(900);

/// A blob that no row names and that was placed longer ago than this is garbage of a crash.
const AGED: Duration = Duration::from_secs(24 * 3600);

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
pub enum Blobs {
    /// Files below the data folder.
    Disk(Disk),
    /// Objects in a bucket.
    S3(S3),
}

impl Blobs {
    /// A new blob; `head` is written first.
    pub fn writer(&self, head: Bytes) -> BlobWriter {
        let sink = match self {
            Self::Disk(disk) => Sink::Disk(disk.writer(head.clone())),
            Self::S3(s3) => Sink::S3(s3.writer(&head)),
        };
        BlobWriter { blobs: self.clone(), head, digest: Context::new(&SHA256), body_bytes: 0, sink }
    }

    /// Writes a whole blob durably.
    ///
    /// # Errors
    /// `Full`, `Unavailable`.
    pub async fn put(&self, bytes: Bytes) -> Result<BlobId, Error> {
        let id = BlobId(crate::sha256(&bytes));
        match self {
            Self::Disk(disk) => {
                let disk = disk.clone();
                let written = spawn_blocking(move || disk.write_now(&id, &bytes)).await;
                written.map_err(|e| Error::unavailable("blob writer").because(e))??;
            }
            Self::S3(s3) => s3.put(&id, bytes).await?,
        }
        Ok(id)
    }

    /// Returns once a blob is durable: before the row that names it is written.
    ///
    /// # Errors
    /// `Full`, `Unavailable`: it could not be written, and the row must not be.
    pub async fn durable(&self, id: &BlobId) -> Result<(), Error> {
        match self {
            Self::Disk(disk) => disk.pending.durable(id).await,
            Self::S3(s3) => s3.pending.durable(id).await,
        }
    }

    /// Bytes of a stored blob; `None` when there is none with this address.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn bytes(&self, id: &BlobId) -> Result<Option<u64>, Error> {
        match self {
            Self::Disk(disk) => match tokio::fs::metadata(disk.path(id)).await {
                Ok(file) => Ok(Some(file.len())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error.into()),
            },
            Self::S3(s3) => s3.bytes(id).await,
        }
    }

    /// Removes a blob that no row names, unless it is so new that one may be about to. Whether it is gone.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn remove_old(&self, id: &BlobId) -> Result<bool, Error> {
        match self {
            Self::Disk(disk) => {
                let (disk, id) = (disk.clone(), *id);
                let removed = spawn_blocking(move || disk.remove_old(&id)).await;
                Ok(removed.map_err(|e| Error::unavailable("removing a blob").because(e))??)
            }
            Self::S3(s3) => s3.remove_old(id).await,
        }
    }

    /// Blobs placed more than a day ago whose address begins with the byte `fan`.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn aged(&self, fan: u8) -> Result<Vec<BlobId>, Error> {
        match self {
            Self::Disk(disk) => {
                let disk = disk.clone();
                let found = spawn_blocking(move || disk.aged(fan)).await;
                Ok(found.map_err(|e| Error::unavailable("looking through blobs").because(e))??)
            }
            Self::S3(s3) => s3.aged(fan).await,
        }
    }

    /// Removes what a crash left behind that has no address. Of files, [`Disk::open`] does.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn sweep(&self) -> Result<(), Error> {
        match self {
            Self::Disk(_) => Ok(()),
            Self::S3(s3) => s3.sweep().await,
        }
    }

    /// Opens a stored blob; `None` when there is none with this address.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn reader(&self, id: &BlobId) -> Result<Option<BlobReader>, Error> {
        match self {
            Self::Disk(disk) => match tokio::fs::File::open(disk.path(id)).await {
                Ok(file) => {
                    Ok(Some(BlobReader { bytes: file.metadata().await?.len(), reader: Box::pin(file) }))
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error.into()),
            },
            Self::S3(s3) => s3.reader(id).await,
        }
    }
}

/// A blob being written. Dropping it leaves nothing.
pub struct BlobWriter {
    blobs: Blobs,
    head: Bytes,
    digest: Context,
    body_bytes: u64,
    sink: Sink,
}

enum Sink {
    Disk(disk::Writer),
    S3(s3::Writer),
}

impl BlobWriter {
    /// Appends to the body. Hashes at once, while the bytes are near; they are buffered and written beside the arrival of the next.
    ///
    /// # Errors
    /// `Full`, `Unavailable`, perhaps of bytes given earlier; the blob cannot be finished any more then.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.digest.update(bytes);
        self.body_bytes += bytes.len() as u64;
        match &mut self.sink {
            Sink::Disk(writer) => writer.write(bytes).await,
            Sink::S3(writer) => writer.write(bytes).await,
        }
    }

    /// Ends the body: the address is known, and its bytes become durable while the caller goes on. The store writes no row with this
    /// address before they are.
    ///
    /// # Errors
    /// `Full`, `Unavailable`: an earlier piece could not be written; nothing refers to the blob.
    pub fn seal(self) -> Result<FinishedBlob, Error> {
        let blob = FinishedBlob::new(&self.head, digest_bytes(self.digest), self.body_bytes);
        match self.sink {
            Sink::Disk(writer) => writer.seal(blob.id)?,
            Sink::S3(writer) => writer.seal(blob.id),
        }
        Ok(blob)
    }

    /// As [`BlobWriter::seal`]; the blob is durable when it returns.
    ///
    /// # Errors
    /// `Full`, `Unavailable`.
    pub async fn finish(self) -> Result<FinishedBlob, Error> {
        let blobs = self.blobs.clone();
        let blob = self.seal()?;
        blobs.durable(&blob.id).await?;
        Ok(blob)
    }
}

impl std::fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobWriter({} bytes)", self.body_bytes)
    }
}

impl FinishedBlob {
    fn new(head: &[u8], body_sha256: [u8; 32], body_bytes: u64) -> Self {
        let id = BlobId(if head.is_empty() { body_sha256 } else { address(head, &body_sha256) });
        Self { id, body_sha256, bytes: head.len() as u64 + body_bytes }
    }
}

/// An open blob.
pub struct BlobReader {
    /// Size in bytes, head included.
    pub bytes: u64,
    /// Its bytes, from the first on.
    pub reader: Pin<Box<dyn AsyncRead + Send>>,
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BlobReader({} bytes)", self.bytes)
    }
}

/// SHA-256 of bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(aws_lc_rs::digest::digest(&SHA256, bytes).as_ref());
    digest
}

fn told(error: Error) -> ErrorKind {
    tracing::error!(%error, cause = ?error.source, "a blob could not be written");
    error.kind
}

fn broken(kind: ErrorKind) -> Error {
    Error { kind, ..Error::unavailable("the blob broke off earlier") }
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

//! Blobs: content-addressed files.
//!
//! A blob consists of a `head` (for DICOM: preamble and file meta group, a pure function of UIDs) and a body (the bytes received).
//! Only the body is hashed while it streams; the content address is SHA-256 over `head` and the body's digest, or with an empty head the body's
//! digest itself. So a DICOM object costs one pass of SHA-256, not two.

use bytes::Bytes;

use crate::Error;

/// Content address of a blob.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BlobId(pub [u8; 32]);

/// A blob being written: a temporary file until [`BlobWriter::finish`]. Dropping it removes the file.
#[derive(Debug)]
pub struct BlobWriter {}

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

impl BlobWriter {
    /// Appends to the body. Buffers; file work runs off the async threads.
    ///
    /// # Errors
    /// `Full`, `Unavailable`.
    pub async fn write(&mut self, _bytes: Bytes) -> Result<(), Error> {
        todo!()
    }

    /// Syncs the file, renames it to its content address, syncs the directory. Durable when it returns.
    ///
    /// # Errors
    /// `Full`, `Unavailable`; the temporary file is gone then, and nothing is visible.
    pub async fn finish(self) -> Result<FinishedBlob, Error> {
        todo!()
    }
}

/// An open blob.
#[derive(Debug)]
pub struct BlobReader {
    /// Size in bytes, head included.
    pub bytes: u64,
    /// The file, positioned at its start.
    pub file: tokio::fs::File,
}

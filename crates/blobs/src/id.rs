//! The address of a blob, and the blobs that are still on their way to the disk or the bucket.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{Error, ErrorKind};

/// Content address of a blob.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BlobId(
    /// 32 bytes: SHA-256 of the body, or over the head and the digest of the body.
    pub [u8; 32],
);

impl BlobId {
    /// In hexadecimal: the name it is stored under.
    pub fn hex(&self) -> String {
        hex(&self.0)
    }

    /// That of a name; `None` when it is none.
    pub(crate) fn from_hex(name: &str) -> Option<Self> {
        let mut id = [0; 32];
        if name.len() != 2 * id.len() || !name.is_ascii() {
            return None;
        }
        for (byte, at) in id.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&name[at..at + 2], 16).ok()?;
        }
        Some(Self(id))
    }
}

/// What became of a blob that was sealed; `None` = not known yet.
type Settled = Option<Result<(), ErrorKind>>;
pub(crate) type Settle = watch::Sender<Settled>;

/// Sealed blobs that are not known to be durable yet, and those that failed, until the same content is sealed again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending(pub(crate) Arc<Mutex<HashMap<BlobId, watch::Receiver<Settled>>>>);

impl Pending {
    pub(crate) fn begin(&self, id: BlobId) -> Settle {
        let (settle, settled) = watch::channel(None);
        self.0.lock().insert(id, settled);
        settle
    }

    /// Tells those who wait. A failure stays known.
    pub(crate) fn end(&self, id: &BlobId, settle: &Settle, done: Result<(), ErrorKind>) {
        settle.send_replace(Some(done));
        if done.is_ok() {
            self.forget(id, &settle.subscribe());
        }
    }

    pub(crate) async fn durable(&self, id: &BlobId) -> Result<(), Error> {
        let Some(mut pending) = self.0.lock().get(id).cloned() else { return Ok(()) };
        let settled = pending.wait_for(Option::is_some).await.ok().and_then(|settled| *settled);
        match settled.unwrap_or(Err(ErrorKind::Unavailable)) {
            Ok(()) => {
                self.forget(id, &pending);
                Ok(())
            }
            Err(kind) => Err(Error { kind, ..Error::unavailable("a blob could not be written") }),
        }
    }

    fn forget(&self, id: &BlobId, settled: &watch::Receiver<Settled>) {
        let mut pending = self.0.lock();
        if pending.get(id).is_some_and(|known| known.same_channel(settled)) {
            pending.remove(id);
        }
    }
}

/// Bytes in hexadecimal, small letters.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).filter_map(|n| char::from_digit(u32::from(n), 16)).collect()
}

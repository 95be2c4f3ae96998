//! Protocol data units on the stream (PS3.8 section 9.3): the header is checked before the body is awaited.

use std::time::Duration;

use bytes::{BufMut, BytesMut};
use hilum_listen::Stream;
use hilum_listen::limits::Dicom as Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

pub(crate) const ASSOCIATE_RQ: u8 = 1;
pub(crate) const P_DATA: u8 = 4;
pub(crate) const RELEASE_RQ: u8 = 5;
pub(crate) const ABORT: u8 = 7;
const HEADER_BYTES: usize = 6;
/// Bytes read beyond what a PDU needs.
const READ_AHEAD_BYTES: usize = 16 * 1024;
const RELEASE_RP: [u8; 10] = [6, 0, 0, 0, 0, 4, 0, 0, 0, 0];

/// Why an association ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer left, or we did; nothing more to say.
    Closed,
    /// A-ABORT with source 2 (provider) and this reason.
    Abort(u8),
}

/// Reasons of an A-ABORT (PS3.8 table 9-26).
pub(crate) const NOT_SPECIFIED: End = End::Abort(0);
pub(crate) const UNRECOGNIZED: End = End::Abort(1);
pub(crate) const UNEXPECTED: End = End::Abort(2);
pub(crate) const INVALID: End = End::Abort(6);

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed => f.write_str("closed"),
            Self::Abort(reason) => write!(f, "aborted, reason {reason}"),
        }
    }
}

/// The stream of one association.
pub(crate) struct Wire {
    pub(crate) stream: Stream,
    buffer: BytesMut,
    /// When the PDU at hand, or the silence before it, has lasted too long: kept over reads that were broken off.
    waits_until: Option<Instant>,
    ends_until: Option<Instant>,
}

impl Wire {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, buffer: BytesMut::new(), waits_until: None, ends_until: None }
    }

    /// The next PDU with its header; `wait` is the time until its first byte, `rest` until its last. May be broken off and called again:
    /// nothing is lost, and the time goes on.
    pub(crate) async fn read(
        &mut self,
        limits: &Limits,
        wait: Duration,
        rest: Duration,
    ) -> Result<(u8, BytesMut), End> {
        if self.buffer.is_empty() {
            let until = *self.waits_until.get_or_insert_with(|| Instant::now() + wait);
            timeout_at(until, self.more(READ_AHEAD_BYTES)).await.map_err(|_| NOT_SPECIFIED)??;
        }
        self.waits_until = None;
        let until = *self.ends_until.get_or_insert_with(|| Instant::now() + rest);
        let pdu = timeout_at(until, self.whole(limits)).await.map_err(|_| NOT_SPECIFIED)??;
        self.ends_until = None;
        Ok(pdu)
    }

    async fn whole(&mut self, limits: &Limits) -> Result<(u8, BytesMut), End> {
        while self.buffer.len() < HEADER_BYTES {
            self.more(READ_AHEAD_BYTES).await?;
        }
        let kind = self.buffer[0];
        let length =
            u32::from_be_bytes([self.buffer[2], self.buffer[3], self.buffer[4], self.buffer[5]]) as usize;
        let longest = match kind {
            ASSOCIATE_RQ => limits.associate_bytes_max,
            P_DATA => limits.pdu_bytes_max as usize,
            RELEASE_RQ | ABORT => 4,
            2 | 3 | 6 => return Err(UNEXPECTED),
            _ => return Err(UNRECOGNIZED),
        };
        if length > longest {
            return Err(INVALID);
        }
        let whole = HEADER_BYTES + length;
        while self.buffer.len() < whole {
            self.more(whole - self.buffer.len() + READ_AHEAD_BYTES).await?;
        }
        Ok((kind, self.buffer.split_to(whole)))
    }

    /// Reads what has come, at most so many bytes: the buffer never holds more than a PDU and the begin of the next.
    async fn more(&mut self, bytes_max: usize) -> Result<(), End> {
        self.buffer.reserve(bytes_max);
        match self.stream.read_buf(&mut (&mut self.buffer).limit(bytes_max)).await {
            Ok(0) | Err(_) => Err(End::Closed),
            Ok(_) => Ok(()),
        }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8], limits: &Limits) -> Result<(), End> {
        let limit = Duration::from_millis(limits.write_timeout_ms);
        timeout(limit, self.stream.write_all(bytes)).await.map_err(|_| End::Closed)?.map_err(|_| End::Closed)
    }

    /// Answers a release and waits for the peer to close.
    pub(crate) async fn released(&mut self, limits: &Limits) -> Result<(), End> {
        self.write(&RELEASE_RP, limits).await?;
        self.wait_for_close(limits).await;
        Ok(())
    }

    pub(crate) async fn abort(&mut self, reason: u8, limits: &Limits) {
        let _ = self.write(&[7, 0, 0, 0, 0, 4, 0, 0, 2, reason], limits).await;
        self.wait_for_close(limits).await;
    }

    async fn wait_for_close(&mut self, limits: &Limits) {
        let closing = async {
            let mut rest = [0; 1024];
            while self.stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
        };
        let _ = timeout(Duration::from_millis(limits.close_timeout_ms), closing).await;
    }
}

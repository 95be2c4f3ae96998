//! HL7 v2 over MLLP.
//!
//! Messages of one connection are committed and answered one after the other, in the order they came: an update must not overtake the one before
//! it. A sender that pipelines is read ahead; messages of different connections share group commits.

mod admission;

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hilum_fhir::{Issue, IssueCode};
use hilum_intake::exchange::{Answer, not_admitted};
use hilum_intake::store::Site;
use hilum_intake::{Intake, Source};
use hilum_listen::limits::Mllp as Limits;
use hilum_listen::{Peer, Session, Stream};
use hilum_wire::mllp::{self, Codec, Frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio_util::codec::{Decoder, Encoder};
use tokio_util::sync::CancellationToken;

/// Read at a time; the buffer grows with the bytes that arrive and shrinks after a large frame.
const READ_BYTES: usize = 8 * 1024;
/// A frame whose FS is not followed by CR ends after this silence.
const END_WITHOUT_CR: Duration = Duration::from_millis(200);

/// The MLLP door.
pub struct Mllp {
    intake: Intake,
    limits: Limits,
    site: Option<Site>,
}

impl Mllp {
    /// A door; with `site` a port dedicated to one site.
    pub fn new(intake: Intake, limits: &hilum_listen::Limits, site: Option<Site>) -> Self {
        Self { intake, limits: limits.mllp, site }
    }
}

impl Session for Mllp {
    fn admits(&self, peer: &Peer) -> bool {
        admission::address(self.intake.store().control(), self.site.as_ref(), peer.address.ip())
    }

    fn run(
        self: Arc<Self>,
        stream: Stream,
        peer: Peer,
        shutdown: CancellationToken,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let listener = peer.listener.clone();
            let limits = mllp::Limits {
                frame_bytes_max: self.limits.frame_bytes_max,
                junk_bytes_max: self.limits.junk_bytes_max,
            };
            let connection =
                Connection { door: self, peer, stream, codec: Codec::new(limits), buffer: BytesMut::new() };
            if let Err(error) = connection.run(shutdown).await {
                tracing::debug!(%listener, %error, "mllp connection ended");
            }
        })
    }
}

struct Connection {
    door: Arc<Mllp>,
    peer: Peer,
    stream: Stream,
    codec: Codec,
    buffer: BytesMut,
}

/// Frames read ahead, and the one being answered.
#[derive(Default)]
struct InFlight {
    waiting: VecDeque<Frame>,
    running: Option<JoinHandle<Answer>>,
}

impl InFlight {
    fn len(&self) -> usize {
        self.waiting.len() + usize::from(self.running.is_some())
    }

    /// The answer of the message at work. A panic is a bug of ours: the sender gets no answer and sends again.
    async fn answered(&mut self) -> Answer {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let answer = running.await.unwrap_or_else(|_| {
            metrics::counter!("hilum_panics_total", "place" => "mllp").increment(1);
            Answer { frames: Vec::new(), http_status: 500, accepted: false }
        });
        self.running = None;
        answer
    }
}

impl Connection {
    async fn run(mut self, shutdown: CancellationToken) -> io::Result<()> {
        let mut in_flight = InFlight::default();
        let (mut open, mut frame_since) = (true, None);
        loop {
            self.start(&mut in_flight);
            // a frame that has begun is still taken while the edge ends, within its own timeout
            let ending = shutdown.is_cancelled() && !self.codec.is_inside();
            let read_more = open && !ending && in_flight.len() < self.door.limits.in_flight_max;
            if !read_more && in_flight.len() == 0 {
                return Ok(());
            }
            let wait = self.patience(frame_since);
            tokio::select! {
                biased;
                answer = in_flight.answered() => self.answer(answer).await?,
                read = read(&mut self.stream, &mut self.buffer), if read_more => {
                    open = read? > 0;
                    self.frames(&mut in_flight, open)?;
                    frame_since = match (self.codec.is_inside(), frame_since) {
                        (false, _) => None,
                        (true, None) => Some(tokio::time::Instant::now()),
                        (true, since) => since,
                    };
                }
                () = tokio::time::sleep(wait), if read_more => {
                    if let Some(frame) = self.codec.end_without_cr(&mut self.buffer) {
                        self.take(&mut in_flight, frame);
                        frame_since = None;
                    } else if self.given_up(frame_since) {
                        return Ok(());
                    }
                }
                () = shutdown.cancelled(), if read_more && !shutdown.is_cancelled() => {}
            }
        }
    }

    /// How long to wait for the next byte.
    fn patience(&self, frame_since: Option<tokio::time::Instant>) -> Duration {
        let limits = &self.door.limits;
        match frame_since {
            Some(_) if self.buffer.last() == Some(&0x1C) => END_WITHOUT_CR,
            Some(since) => Duration::from_millis(limits.frame_timeout_ms).saturating_sub(since.elapsed()),
            None if limits.idle_timeout_ms == 0 => Duration::from_secs(3600),
            None => Duration::from_millis(limits.idle_timeout_ms),
        }
    }

    fn given_up(&self, frame_since: Option<tokio::time::Instant>) -> bool {
        let limits = &self.door.limits;
        match frame_since {
            Some(since) => since.elapsed() >= Duration::from_millis(limits.frame_timeout_ms),
            None => limits.idle_timeout_ms > 0,
        }
    }

    /// Takes all frames that are complete.
    fn frames(&mut self, in_flight: &mut InFlight, open: bool) -> io::Result<()> {
        loop {
            let frame = if open {
                self.codec.decode(&mut self.buffer)?
            } else {
                self.codec.decode_eof(&mut self.buffer)?
            };
            let Some(frame) = frame else { break };
            self.take(in_flight, frame);
        }
        if self.buffer.is_empty() && self.buffer.capacity() > 8 * READ_BYTES {
            self.buffer = BytesMut::new();
        }
        Ok(())
    }

    fn take(&self, in_flight: &mut InFlight, frame: Frame) {
        in_flight.waiting.push_back(frame);
    }

    /// Puts the next message to work: a task of its own, so that a panic stays its own.
    fn start(&self, in_flight: &mut InFlight) {
        if in_flight.running.is_none()
            && let Some(frame) = in_flight.waiting.pop_front()
        {
            let door = self.door.clone();
            let source = Source {
                listener: self.peer.listener.clone(),
                peer: Some(self.peer.address),
                identity: None,
            };
            in_flight.running = Some(tokio::spawn(async move { door.answer(source, frame).await }));
        }
    }

    async fn answer(&mut self, answer: Answer) -> io::Result<()> {
        let mut out = BytesMut::new();
        for frame in answer.frames {
            self.codec.encode(frame, &mut out)?;
        }
        let write = self.stream.write_all(&out);
        let limit = Duration::from_millis(self.door.limits.write_timeout_ms);
        tokio::time::timeout(limit, write).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}

async fn read(stream: &mut Stream, buffer: &mut BytesMut) -> io::Result<usize> {
    buffer.reserve(READ_BYTES);
    stream.read_buf(buffer).await
}

impl Mllp {
    async fn answer(&self, source: Source, frame: Frame) -> Answer {
        let (message, issue) = match frame {
            Frame::Message(message) => (message, None),
            Frame::TooLarge(head) => {
                let text = format!(
                    "the message is larger than {} bytes (frame-too-large)",
                    self.limits.frame_bytes_max
                );
                (head, Some(Issue::error(IssueCode::TooLong, text).at("MSH").hl7(100)))
            }
            Frame::Incomplete(partial) => return self.incomplete(source, partial).await,
        };
        let Some(site) = self.site(&source, &message) else {
            metrics::counter!("hilum_messages_not_admitted_total", "listener" => source.listener.to_string())
                .increment(1);
            tracing::warn!(listener = %source.listener, "a sender is admitted to no site");
            return not_admitted(&message);
        };
        match issue {
            Some(issue) => self.intake.refuse(&site, source, message, issue).await,
            None => self.intake.exchange(&site, source, message).await,
        }
    }

    /// A message that broke off is kept and not answered.
    async fn incomplete(&self, source: Source, partial: Bytes) -> Answer {
        if let Some(site) = self.site(&source, &partial) {
            let issue = Issue::error(IssueCode::Incomplete, "the message broke off before its end")
                .at("MSH")
                .hl7(100);
            let _ = self.intake.refuse(&site, source, partial, issue).await;
        }
        Answer { frames: Vec::new(), http_status: 400, accepted: false }
    }

    fn site(&self, source: &Source, message: &[u8]) -> Option<Site> {
        let address = source.peer?.ip();
        admission::site(self.intake.store().control(), self.site.as_ref(), address, message)
    }
}

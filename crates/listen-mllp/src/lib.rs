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
use hilum_intake::batch::Batch;
use hilum_intake::exchange::{Answer, not_admitted, send_again};
use hilum_intake::store::Site;
use hilum_intake::{Intake, Source};
use hilum_listen::limits::Mllp as Limits;
use hilum_listen::{Budget, Peer, Session, Share, Stream};
use hilum_wire::er7;
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
    er7: er7::Limits,
    site: Option<Site>,
    ack_warnings: bool,
    /// Bytes of frames begun and not ended, of all connections.
    unfinished_bytes: Budget,
}

impl Mllp {
    /// A door; with `site` a port dedicated to one site.
    pub fn new(intake: Intake, limits: &hilum_listen::Limits, site: Option<Site>) -> Self {
        let er7 = limits.er7.reader();
        Self {
            intake,
            limits: limits.mllp,
            er7,
            site,
            ack_warnings: true,
            unfinished_bytes: Budget::new(limits.mllp.unfinished_bytes_max),
        }
    }

    /// Whether a positive acknowledgement says what was remarked; it does unless told otherwise.
    #[must_use]
    pub fn with_warnings(self, ack_warnings: bool) -> Self {
        Self { ack_warnings, ..self }
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
            let unfinished = self.unfinished_bytes.share();
            let connection = Connection {
                door: self,
                peer,
                stream,
                codec: Codec::new(limits),
                buffer: BytesMut::new(),
                unfinished,
            };
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
    /// The bytes of this connection in unfinished frames.
    unfinished: Share,
}

/// Frames read ahead, and the one being answered.
#[derive(Default)]
struct InFlight {
    waiting: VecDeque<Frame>,
    running: Option<(JoinHandle<Vec<Bytes>>, usize)>,
}

impl InFlight {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.running.is_none()
    }

    /// Whether more may be read ahead.
    fn has_room(&self, limits: &Limits) -> bool {
        let frames = self.waiting.len() + usize::from(self.running.is_some());
        let running = self.running.as_ref().map_or(0, |(_, bytes)| *bytes);
        let bytes = running + self.waiting.iter().map(|frame| frame.bytes().len()).sum::<usize>();
        frames < limits.in_flight_max && bytes < limits.unanswered_bytes_max
    }

    /// The answers of the frame at work. A panic is a bug of ours: the sender gets no answer and sends again.
    async fn answered(&mut self) -> Vec<Bytes> {
        let Some((running, _)) = &mut self.running else { return std::future::pending().await };
        let answer = running.await.unwrap_or_else(|_| {
            metrics::counter!("hilum_panics_total", "place" => "mllp").increment(1);
            Vec::new()
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
            let read_more = open && !ending && in_flight.has_room(&self.door.limits);
            if !read_more && in_flight.is_empty() {
                return Ok(());
            }
            let wait = self.patience(frame_since);
            tokio::select! {
                biased;
                answers = in_flight.answered() => self.answer(answers).await?,
                read = read(&mut self.stream, &mut self.buffer), if read_more => {
                    open = read? > 0;
                    self.frames(&mut in_flight, open)?;
                    frame_since = match (self.codec.is_inside(), frame_since) {
                        (false, _) => None,
                        (true, None) => Some(tokio::time::Instant::now()),
                        (true, since) => since,
                    };
                    let unfinished_bytes = if self.codec.is_inside() { self.buffer.len() } else { 0 };
                    if !self.unfinished.hold(unfinished_bytes) {
                        return self.give_up(in_flight, "unfinished-bytes").await;
                    }
                }
                () = tokio::time::sleep(wait), if read_more => {
                    if let Some(frame) = self.codec.end_without_cr(&mut self.buffer) {
                        self.take(&mut in_flight, frame);
                        frame_since = None;
                    } else if frame_since.is_some() && self.given_up(frame_since) {
                        return self.give_up(in_flight, "frame-timeout").await;
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
                ack_warnings: self.door.ack_warnings,
                ..Source::default()
            };
            let bytes = frame.bytes().len();
            let running = tokio::spawn(async move { door.answer(source, frame).await });
            in_flight.running = Some((running, bytes));
        }
    }

    /// Answers what is complete, then a frame that will not be waited for with "send again", and closes.
    async fn give_up(mut self, mut in_flight: InFlight, reason: &'static str) -> io::Result<()> {
        let listener = self.peer.listener.to_string();
        metrics::counter!("hilum_frames_given_up_total", "listener" => listener, "reason" => reason)
            .increment(1);
        tracing::warn!(listener = %self.peer.listener, reason, "an unfinished frame was given up");
        while !in_flight.is_empty() {
            self.start(&mut in_flight);
            let answers = in_flight.answered().await;
            self.answer(answers).await?;
        }
        let answer = send_again(&self.buffer);
        self.answer(answer.frames).await
    }

    async fn answer(&mut self, answers: Vec<Bytes>) -> io::Result<()> {
        let mut out = BytesMut::new();
        for frame in answers {
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
    /// The answers to a frame: of one message, or of each in a batch.
    async fn answer(&self, source: Source, frame: Frame) -> Vec<Bytes> {
        let frame = match frame {
            Frame::Message(frame) => frame,
            Frame::TooLarge(head) => {
                let text = format!("the message is larger than {} bytes", self.limits.frame_bytes_max);
                let issue = Issue::error(IssueCode::TooLong, text).at("MSH").hl7(207);
                return self.one(&source, head, Some(issue)).await.frames;
            }
            Frame::Incomplete(partial) => {
                self.incomplete(source, partial).await;
                return Vec::new();
            }
        };
        let batch = match Batch::read(&frame, &self.er7) {
            Ok(batch) => batch,
            Err(issue) => return self.one(&source, frame, Some(issue)).await.frames,
        };
        let mut answers = Vec::with_capacity(batch.messages.len());
        for message in &batch.messages {
            answers.push(self.one(&source, message.clone(), None).await);
        }
        batch.answered(answers).frames()
    }

    /// The answer to one message; with `issue` to one that is refused for it.
    async fn one(&self, source: &Source, message: Bytes, issue: Option<Issue>) -> Answer {
        let Some(site) = self.site(source, &message) else {
            metrics::counter!("hilum_messages_not_admitted_total", "listener" => source.listener.to_string())
                .increment(1);
            tracing::warn!(listener = %source.listener, "a sender is admitted to no site");
            return not_admitted(&message);
        };
        match issue {
            Some(issue) => self.intake.refuse(&site, source.clone(), message, issue).await,
            None => self.intake.exchange(&site, source.clone(), message).await,
        }
    }

    /// A message that broke off is kept and not answered.
    async fn incomplete(&self, source: Source, partial: Bytes) {
        if let Some(site) = self.site(&source, &partial) {
            let issue = Issue::error(IssueCode::Incomplete, "the message broke off before its end")
                .at("MSH")
                .hl7(100);
            let _ = self.intake.refuse(&site, source, partial, issue).await;
        }
    }

    fn site(&self, source: &Source, message: &[u8]) -> Option<Site> {
        let address = source.peer?.ip();
        admission::site(self.intake.store().control(), self.site.as_ref(), address, message)
    }
}

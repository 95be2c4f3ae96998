//! One association: request, messages, release.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hilum_listen::{Peer, Stream};
use hilum_wire::dimse::{self, C_CANCEL_RQ, C_ECHO_RQ, C_STORE_RQ, Command, command_pdu, pdvs, status};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Dicom;
use crate::association::{Association, Negotiated, negotiate};
use crate::pdu::{ABORT, ASSOCIATE_RQ, End, INVALID, NOT_SPECIFIED, P_DATA, RELEASE_RQ, UNEXPECTED, Wire};
use crate::receive::{Done, Receiving, Refusal};

/// Speaks with a peer until it leaves.
pub(crate) async fn run(
    door: Arc<Dicom>,
    stream: Stream,
    peer: Peer,
    shutdown: CancellationToken,
) -> Result<(), End> {
    let mut wire = Wire::new(stream);
    let Some(association) = associate(&door, &mut wire, &peer).await? else { return Ok(()) };
    let mut conversation = Conversation {
        door,
        wire,
        peer,
        association: Arc::new(association),
        command: Vec::new(),
        receiving: None,
        finishing: JoinSet::new(),
        unanswered: BTreeSet::new(),
        studies: BTreeSet::new(),
    };
    let end = conversation.messages(&shutdown).await;
    if let Err(End::Abort(reason)) = end {
        conversation.wire.abort(reason, &conversation.door.limits).await;
    }
    conversation.settle().await;
    end
}

/// The association request, within the ARTIM timer.
async fn associate(door: &Dicom, wire: &mut Wire, peer: &Peer) -> Result<Option<Association>, End> {
    let limits = &door.limits;
    let artim = Duration::from_millis(limits.associate_timeout_ms);
    let (kind, pdu) = match wire.read(limits, artim, artim).await {
        Ok(read) => read,
        // before the first PDU is complete there is nobody to talk to
        Err(_) => return Err(End::Closed),
    };
    if kind != ASSOCIATE_RQ {
        wire.abort(2, limits).await;
        return Err(End::Closed);
    }
    match negotiate(&pdu, door.intake.store().control(), peer, limits) {
        Ok(Negotiated::Accepted(association)) => {
            wire.write(&association.answer, limits).await?;
            Ok(Some(*association))
        }
        Ok(Negotiated::Rejected(answer)) => {
            metrics::counter!("hilum_associations_rejected_total", "listener" => peer.listener.to_string())
                .increment(1);
            wire.write(&answer, limits).await?;
            Ok(None)
        }
        Err(End::Abort(reason)) => {
            wire.abort(reason, limits).await;
            Ok(None)
        }
        Err(end) => Err(end),
    }
}

struct Conversation {
    door: Arc<Dicom>,
    wire: Wire,
    peer: Peer,
    association: Arc<Association>,
    command: Vec<u8>,
    receiving: Option<Receiving>,
    /// Messages being made durable, with their context; more than one only where a window was negotiated.
    finishing: JoinSet<(u8, Done)>,
    /// Ids of messages that are not answered yet.
    unanswered: BTreeSet<u16>,
    studies: BTreeSet<String>,
}

impl Conversation {
    async fn messages(&mut self, shutdown: &CancellationToken) -> Result<(), End> {
        loop {
            let limits = &self.door.limits;
            let quiet = self.receiving.is_none() && self.command.is_empty();
            let wait =
                Duration::from_millis(if quiet { limits.idle_timeout_ms } else { limits.message_timeout_ms });
            let rest = Duration::from_millis(limits.pdu_timeout_ms);
            let idle = quiet && self.finishing.is_empty();
            let full = self.finishing.len() >= self.association.window;
            let read = tokio::select! {
                biased;
                Some(finished) = self.finishing.join_next() => {
                    // a panic is a bug of ours: the peer must not take its message for stored
                    let (context, done) = finished.map_err(|_| NOT_SPECIFIED)?;
                    self.done(context, done).await?;
                    continue;
                }
                read = self.wire.read(limits, wait, rest), if !(full && quiet) => read,
                () = shutdown.cancelled(), if idle => Err(NOT_SPECIFIED),
            };
            let (kind, pdu) = read?;
            match kind {
                P_DATA => self.data(&pdu[6..]).await?,
                RELEASE_RQ => {
                    while !self.finishing.is_empty() {
                        self.next_finished().await?;
                    }
                    return self.wire.released(&self.door.limits).await;
                }
                ABORT => return Err(End::Closed),
                _ => return Err(UNEXPECTED),
            }
        }
    }

    /// What was begun is finished though nobody hears of it; then the studies touched are published.
    async fn settle(&mut self) {
        while let Some(finished) = self.finishing.join_next().await {
            self.studies.extend(finished.ok().and_then(|(_, done)| done.study));
        }
        for study in &self.studies {
            if let Err(error) = self.door.intake.publish_studies(&self.association.site, Some(study)).await {
                tracing::warn!(%error, "a study is published later");
            }
        }
    }

    async fn data(&mut self, body: &[u8]) -> Result<(), End> {
        for pdv in pdvs(body).ok_or(INVALID)? {
            if !self.association.contexts.contains_key(&pdv.context) {
                return Err(INVALID);
            }
            match (pdv.is_command, self.receiving.is_some()) {
                (true, true) | (false, false) => return Err(UNEXPECTED),
                (true, false) => {
                    if self.command.len() + pdv.bytes.len() > self.door.limits.command_bytes_max {
                        return Err(INVALID);
                    }
                    self.command.extend_from_slice(pdv.bytes);
                    if pdv.is_last {
                        self.command(pdv.context).await?;
                    }
                }
                (false, true) => self.data_set(pdv).await?,
            }
        }
        Ok(())
    }

    async fn command(&mut self, context: u8) -> Result<(), End> {
        let command = Command::read(&std::mem::take(&mut self.command)).ok_or(INVALID)?;
        let refused = match command.field {
            C_ECHO_RQ if !command.has_data_set => {
                return self.answer(context, command.response(status::SUCCESS, "")).await;
            }
            C_CANCEL_RQ => return Ok(()),
            C_STORE_RQ if command.has_data_set && !self.unanswered.contains(&command.message_id) => {
                self.unanswered.insert(command.message_id);
                let accepted = self.association.contexts.get(&context).cloned().ok_or(INVALID)?;
                let (door, site) = (&self.door, &self.association.site);
                self.receiving = Some(Receiving::start(door, site, (context, accepted), command).await);
                return Ok(());
            }
            C_STORE_RQ if command.has_data_set => {
                (status::DUPLICATE_INVOCATION, "a message with this id is unanswered")
            }
            _ => (status::UNRECOGNIZED_OPERATION, "operation not served"),
        };
        if command.has_data_set {
            self.receiving = Some(Receiving::discard(context, command, Refusal::new(refused.0, refused.1)));
            return Ok(());
        }
        self.answer(context, command.response(refused.0, refused.1)).await
    }

    async fn data_set(&mut self, pdv: dimse::Pdv<'_>) -> Result<(), End> {
        let Some(receiving) = &mut self.receiving else { return Err(UNEXPECTED) };
        if receiving.context != pdv.context {
            return Err(UNEXPECTED);
        }
        receiving.take(pdv.bytes, &self.door.limits).await;
        if !pdv.is_last {
            return Ok(());
        }
        let Some(receiving) = self.receiving.take() else { return Ok(()) };
        if self.association.window == 1 {
            let done = receiving.finish(&self.door, &self.association, &self.peer).await;
            return self.done(pdv.context, done).await;
        }
        // a peer that asks for more at once than it was granted is answered one by one
        while self.finishing.len() >= self.association.window {
            self.next_finished().await?;
        }
        let (door, association, peer) = (self.door.clone(), self.association.clone(), self.peer.clone());
        let context = pdv.context;
        self.finishing.spawn(async move { (context, receiving.finish(&door, &association, &peer).await) });
        Ok(())
    }

    async fn next_finished(&mut self) -> Result<(), End> {
        let Some(finished) = self.finishing.join_next().await else { return Ok(()) };
        let (context, done) = finished.map_err(|_| NOT_SPECIFIED)?;
        self.done(context, done).await
    }

    async fn done(&mut self, context: u8, done: Done) -> Result<(), End> {
        // a message refused for its id leaves the id to the one that has it
        if done.status != status::DUPLICATE_INVOCATION {
            self.unanswered.remove(&done.command.message_id);
        }
        self.studies.extend(done.study);
        let response = done.command.refusal(done.status, &done.comment, done.element);
        self.answer(context, response).await
    }

    async fn answer(&mut self, context: u8, response: Vec<u8>) -> Result<(), End> {
        self.wire.write(&command_pdu(context, &response), &self.door.limits).await
    }
}

//! One association: request, messages, release.

use std::collections::BTreeSet;
use std::time::Duration;

use hilum_listen::{Peer, Stream};
use hilum_wire::dimse::{self, C_CANCEL_RQ, C_ECHO_RQ, C_STORE_RQ, Command, command_pdu, pdvs, status};
use tokio_util::sync::CancellationToken;

use crate::Dicom;
use crate::association::{Association, Negotiated, negotiate};
use crate::pdu::{ABORT, ASSOCIATE_RQ, End, INVALID, P_DATA, RELEASE_RQ, UNEXPECTED, Wire};
use crate::receive::Receiving;

/// Speaks with a peer until it leaves.
pub(crate) async fn run(
    door: &Dicom,
    stream: Stream,
    peer: Peer,
    shutdown: CancellationToken,
) -> Result<(), End> {
    let mut wire = Wire::new(stream);
    let Some(association) = associate(door, &mut wire, &peer).await? else { return Ok(()) };
    let site = association.site.clone();
    let mut conversation = Conversation {
        door,
        wire,
        peer,
        association,
        command: Vec::new(),
        receiving: None,
        studies: BTreeSet::new(),
    };
    let end = conversation.messages(&shutdown).await;
    if let Err(End::Abort(reason)) = end {
        conversation.wire.abort(reason, &door.limits).await;
    }
    for study in &conversation.studies {
        if let Err(error) = door.intake.publish_studies(&site, Some(study)).await {
            tracing::warn!(%error, "a study is published later");
        }
    }
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

struct Conversation<'d> {
    door: &'d Dicom,
    wire: Wire,
    peer: Peer,
    association: Association,
    command: Vec<u8>,
    receiving: Option<Receiving>,
    studies: BTreeSet<String>,
}

impl Conversation<'_> {
    async fn messages(&mut self, shutdown: &CancellationToken) -> Result<(), End> {
        loop {
            let limits = &self.door.limits;
            let idle = self.receiving.is_none() && self.command.is_empty();
            let wait =
                Duration::from_millis(if idle { limits.idle_timeout_ms } else { limits.message_timeout_ms });
            let rest = Duration::from_millis(limits.pdu_timeout_ms);
            let read = tokio::select! {
                biased;
                read = self.wire.read(limits, wait, rest) => read,
                () = shutdown.cancelled(), if idle => Err(End::Abort(0)),
            };
            let (kind, pdu) = read?;
            match kind {
                P_DATA => self.data(&pdu[6..]).await?,
                RELEASE_RQ => return self.wire.released(limits).await,
                ABORT => return Err(End::Closed),
                _ => return Err(UNEXPECTED),
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
        let transfer_syntax =
            self.association.contexts.get(&context).map(|c| c.transfer_syntax.clone()).unwrap_or_default();
        match command.field {
            C_ECHO_RQ if !command.has_data_set => self.answer(context, &command, status::SUCCESS, "").await,
            C_CANCEL_RQ => Ok(()),
            C_STORE_RQ if command.has_data_set => {
                self.receiving = Some(
                    Receiving::start(self.door, &self.association.site, context, command, transfer_syntax)
                        .await,
                );
                Ok(())
            }
            _ if command.has_data_set => {
                self.receiving = Some(Receiving::discard(
                    context,
                    command,
                    status::UNRECOGNIZED_OPERATION,
                    "operation not served",
                ));
                Ok(())
            }
            _ => self.answer(context, &command, status::UNRECOGNIZED_OPERATION, "operation not served").await,
        }
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
        let done = receiving.finish(self.door, &self.association, &self.peer).await;
        self.studies.extend(done.study);
        self.answer(pdv.context, &done.command, done.status, &done.comment).await
    }

    async fn answer(
        &mut self,
        context: u8,
        command: &Command,
        status: u16,
        comment: &str,
    ) -> Result<(), End> {
        let pdu = command_pdu(context, &command.response(status, comment));
        self.wire.write(&pdu, &self.door.limits).await
    }
}

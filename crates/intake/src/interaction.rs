//! One HL7 v3 interaction in, its acknowledgement out.
//!
//! The acknowledgement is rendered before the commit, stored with the submission without its envelope, and replayed to duplicates in the
//! envelope of the question. MCCI_IN000002UV01.

use std::sync::Arc;

use bytes::Bytes;
use hilum_fhir::Issue;
use hilum_store::{About, Original, OriginalKind, Site};
use hilum_wire::Fault;
use hilum_wire::er7::AckCode;
use hilum_wire::v3::{Ack, Message, Wrapper, acknowledge};

use crate::exchange::{INTERNAL, faults, rejection, timestamp};
use crate::told::{self, Ending};
use crate::{Accepted, Intake, Payload, Receipt, Source, Submission, Verdict, now, sha256};

const CONTENT_TYPE: &str = "application/xml";

/// What goes back to the sender.
#[derive(Debug)]
pub struct Reply {
    /// The whole document; `None` for acknowledgements, which are not acknowledged.
    pub document: Option<String>,
    /// The status of the answer. Trouble of HL7 is an answer (200), only ours is not.
    pub http_status: u16,
}

impl Intake {
    /// Accepts one HL7 v3 interaction, `original` being the bytes it was read from.
    pub async fn interact(&self, site: &Site, source: Source, original: Bytes, message: Message) -> Reply {
        let message = Arc::new(message);
        let receipt = self.accept(submission(site, source, original, message.clone())).await;
        reply(&message, receipt)
    }

    /// Keeps a body that is no interaction, with what is wrong with it.
    pub async fn refuse_interaction(
        &self,
        site: &Site,
        source: Source,
        body: Bytes,
        issue: Issue,
    ) -> Receipt {
        let original = Original {
            kind: OriginalKind::V3,
            listener: source.listener.to_string(),
            peer: source.peer,
            identity: source.identity.clone(),
            control: None,
            sha256: sha256(&body),
            blob: None,
            bytes: Some(body),
            content_type: CONTENT_TYPE,
            received: now(),
            report: None,
            about: About::default(),
        };
        let (issues, about) = (vec![issue], original.about.clone());
        match self.store.quarantine(site, original, &issues, None).await {
            Ok(number) => {
                told::line(site.id(), &source, &about, None, 0, Ending::Rejected(number, &issues));
                Receipt::Rejected(issues)
            }
            Err(error) => {
                told::line(site.id(), &source, &about, None, 0, Ending::Deferred(&error));
                Receipt::Deferred(error)
            }
        }
    }
}

pub(crate) fn submission(site: &Site, source: Source, original: Bytes, message: Arc<Message>) -> Submission {
    let wrapper = &message.wrapper;
    let sender = wrapper.sender.as_ref().map(|device| device.joined());
    let control = wrapper.id.as_ref().map(|id| (sender.clone().unwrap_or_default(), id.joined()));
    let sha256 = sha256(message.identity(&original));
    let answered = message.clone();
    Submission {
        site: site.clone(),
        source: Source { identity: source.identity.clone().or(sender), ..source },
        payload: Payload::V3(message),
        received: now(),
        original: Some(original),
        sha256,
        content_type: CONTENT_TYPE,
        control,
        reply: Some(Arc::new(move |verdict| {
            let (code, faults) = match verdict {
                Verdict::Accepted(_) => (AckCode::CA, Vec::new()),
                Verdict::Rejected(issues) => (refusal(issues), faults(issues)),
            };
            render(&answered.wrapper, code, &faults)
        })),
    }
}

fn reply(message: &Message, receipt: Receipt) -> Reply {
    let (answer, http_status) = match receipt {
        Receipt::Accepted(Accepted { commit, .. }) => (commit.answer, 200),
        Receipt::Rejected(issues) => {
            (Some(render(&message.wrapper, refusal(&issues), &faults(&issues))), 200)
        }
        Receipt::Deferred(error) => {
            tracing::warn!(%error, "an interaction was deferred");
            let faults = [Fault::wrong(INTERNAL, "", "not accepted now, send again")];
            (Some(render(&message.wrapper, AckCode::CR, &faults)), 503)
        }
    };
    if message.wrapper.is_acknowledgement() {
        return Reply { document: None, http_status: if http_status == 200 { 204 } else { http_status } };
    }
    let answer = answer.unwrap_or_else(|| render(&message.wrapper, AckCode::CA, &[]));
    Reply { document: Some(message.wrap(&String::from_utf8_lossy(&answer))), http_status }
}

/// CR for interactions that are not supported, CE for content.
fn refusal(issues: &[Issue]) -> AckCode {
    rejection(issues).accept()
}

fn render(wrapper: &Wrapper, code: AckCode, faults: &[Fault]) -> Bytes {
    let (id, time) = (uuid::Uuid::now_v7().to_string(), timestamp());
    acknowledge(wrapper, &Ack { code, faults, id: &id, time: &time }).into()
}

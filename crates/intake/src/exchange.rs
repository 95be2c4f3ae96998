//! One HL7 v2 message in, its acknowledgements out: the same for MLLP and HTTP.
//!
//! The acknowledgement is rendered before the commit, stored with the submission and replayed to duplicates. HL7 v2.5.1 section 2.9.

use std::sync::Arc;

use bytes::Bytes;
use hilum_fhir::{Issue, IssueCode, Severity};
use hilum_store::Site;
use hilum_wire::Fault;
use hilum_wire::er7::{Ack, AckCode, Due, Header, acknowledge, due};

use crate::{Accepted, Intake, Payload, Receipt, Source, Submission, Verdict, now, sha256};

const CONTENT_TYPE: &str = "x-application/hl7-v2+er7";
/// HL7 table 0357: ours, send again.
pub(crate) const INTERNAL: u16 = 207;

/// What goes back to the sender.
#[derive(Debug)]
pub struct Answer {
    /// The acknowledgements due, in order; none for messages that are not acknowledged.
    pub frames: Vec<Bytes>,
    /// The status of the same answer over HTTP.
    pub http_status: u16,
    /// Whether the message is durable.
    pub accepted: bool,
}

impl Intake {
    /// Accepts one HL7 v2 message and renders the acknowledgements its header asks for.
    pub async fn exchange(&self, site: &Site, source: Source, message: Bytes) -> Answer {
        let header = Header::read(&message).map(Arc::new);
        let silent = header.as_ref().is_some_and(|header| header.is_acknowledgement());
        let submission = submission(site, source, &message, header.clone());
        let receipt = self.accept(submission).await;
        answer(header.as_deref(), receipt, silent)
    }

    /// Refuses a message that a door could not take (too large, sender not admitted): it is kept, and answered AE or AR.
    pub async fn refuse(&self, site: &Site, source: Source, message: Bytes, issue: Issue) -> Answer {
        let header = Header::read(&message).map(Arc::new);
        let submission = submission(site, source, &message, header.clone());
        let receipt = self.reject(submission, vec![issue]).await;
        answer(header.as_deref(), receipt, false)
    }
}

/// The answer to a message whose sender belongs to no site: nothing of it is kept.
pub fn not_admitted(message: &[u8]) -> Answer {
    let header = Header::read(message);
    let fault = Fault::wrong(INTERNAL, "MSH-3", "the sender or receiver is not admitted here");
    let faults = [fault.named("not-admitted")];
    let frame = render(header.as_ref(), AckCode::AR, &faults);
    Answer { frames: vec![frame], http_status: 422, accepted: false }
}

/// The answer to a message that did not come to its end in time: nothing of it is kept, the sender sends again. Silent when not
/// even its control id can be read.
pub fn send_again(partial: &[u8]) -> Answer {
    let header = Header::read(partial).filter(|header| !header.control_id().is_empty());
    let faults = [Fault::wrong(INTERNAL, "MSH", "the message did not end in time, send it again")];
    let frames = header.iter().map(|header| render(Some(header), AckCode::AR, &faults)).collect();
    Answer { frames, http_status: 503, accepted: false }
}

pub(crate) fn submission(
    site: &Site,
    source: Source,
    message: &Bytes,
    header: Option<Arc<Header>>,
) -> Submission {
    let control = header.as_ref().and_then(|header| {
        let id = header.control_id();
        (!id.is_empty()).then(|| (header.sender(), String::from_utf8_lossy(&id).into_owned()))
    });
    let sender = header.as_ref().map(|header| header.sender());
    let ack_warnings = source.ack_warnings;
    Submission {
        site: site.clone(),
        source: Source { identity: source.identity.clone().or(sender), ..source },
        payload: Payload::V2(message.clone()),
        received: now(),
        original: Some(message.clone()),
        sha256: sha256(message),
        content_type: CONTENT_TYPE,
        control,
        reply: Some(Arc::new(move |verdict| {
            let (code, faults) = match verdict {
                Verdict::Accepted(remarks) if ack_warnings => (AckCode::AA, warnings(remarks)),
                Verdict::Accepted(_) => (AckCode::AA, Vec::new()),
                Verdict::Rejected(issues) => (rejection(issues), faults(issues)),
            };
            render(header.as_deref(), code, &faults)
        })),
    }
}

fn answer(header: Option<&Header>, receipt: Receipt, silent: bool) -> Answer {
    let (code, stored, faults, http_status) = match receipt {
        Receipt::Accepted(Accepted { commit, .. }) => (AckCode::AA, commit.answer, Vec::new(), 200),
        Receipt::Rejected(issues) => (rejection(&issues), None, faults(&issues), 422),
        Receipt::Deferred(error) => {
            tracing::warn!(%error, "a message was deferred");
            (AckCode::AR, None, vec![Fault::wrong(INTERNAL, "", "not accepted now, send again")], 503)
        }
    };
    let due =
        header.map_or(Due { accept: false, application: true }, |header| due(header, code.is_positive()));
    let mut frames = Vec::new();
    if due.accept && !silent {
        frames.push(render(header, code.accept(), &faults));
    }
    if due.application && !silent {
        frames.push(stored.unwrap_or_else(|| render(header, code, &faults)));
    }
    Answer { frames, http_status, accepted: code.is_positive() }
}

/// AR for types, events and versions that are not taken; AE for content.
pub(crate) fn rejection(issues: &[Issue]) -> AckCode {
    let refused =
        issues.iter().any(|i| i.rejects() && i.hl7_code.is_some_and(|code| (200..=203).contains(&code)));
    if refused { AckCode::AR } else { AckCode::AE }
}

/// What was remarked and blocked nothing, as faults of the wire: what was late, left out or joined.
fn warnings(issues: &[Issue]) -> Vec<Fault> {
    let fault = |issue: &Issue| {
        let place = issue.location.clone().unwrap_or_default();
        Fault::odd(issue.hl7_code.unwrap_or(0), place, issue.diagnostics.clone())
    };
    issues.iter().filter(|issue| issue.severity == Severity::Warning).map(fault).collect()
}

/// The issues that reject, as faults of the wire.
pub(crate) fn faults(issues: &[Issue]) -> Vec<Fault> {
    let fault = |issue: &Issue| {
        let code = issue.hl7_code.unwrap_or(match issue.code {
            IssueCode::Required => 101,
            IssueCode::Value => 102,
            IssueCode::CodeInvalid => 103,
            IssueCode::Duplicate => 205,
            IssueCode::Conflict | IssueCode::NotFound => 204,
            _ => 100,
        });
        let fault = Fault::wrong(code, issue.location.clone().unwrap_or_default(), issue.diagnostics.clone());
        if issue.code == IssueCode::TooLong { fault.named("frame-too-large") } else { fault }
    };
    issues.iter().filter(|issue| issue.rejects()).map(fault).collect()
}

fn render(header: Option<&Header>, code: AckCode, faults: &[Fault]) -> Bytes {
    let (control_id, time) = (fresh_control_id(), timestamp());
    acknowledge(header, &Ack { code, faults, control_id: &control_id, time: &time }).into()
}

/// A fresh MSH-10 of 20 characters.
pub fn fresh_control_id() -> String {
    let id = uuid::Uuid::now_v7().simple().to_string().to_uppercase();
    // the time and enough of the random part
    format!("{}{}", &id[..12], &id[24..32])
}

/// MSH-7 of an answer, in UTC.
pub fn timestamp() -> String {
    now().to_jiff().strftime("%Y%m%d%H%M%S+0000").to_string()
}

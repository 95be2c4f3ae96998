//! What is told of each submission: one log line and its metrics. No value of the content in either.

use hilum_fhir::{Issue, Severity, json};
use hilum_normalise::{InstanceHeader, Payload};
use hilum_store::{About, Commit, Error, ErrorKind};
use hilum_wire::er7::Header;
use hilum_wire::scan::{Tag, is_uid};
use hilum_wire::v3::{Id, Wrapper};
use serde_json::Value;

use crate::{Source, Submission, now};

/// Letters of a name that came from outside.
const NAME_LETTERS_MAX: usize = 64;
const MODALITY: Tag = Tag::new(0x0008, 0x0060);

/// How a submission ended.
#[derive(Clone, Copy)]
pub(crate) enum Ending<'e> {
    /// Durable; what was committed, and what was remarked.
    Accepted(&'e Commit, &'e [Issue]),
    /// Committed before; the number of that submission.
    Duplicate(u64),
    /// Kept with its issues under a number.
    Rejected(u64, &'e [Issue]),
    /// Ours: to be sent again.
    Deferred(&'e Error),
}

impl Submission {
    /// What it is called by those who look for it.
    pub(crate) fn about(&self) -> About {
        let mut about = match &self.payload {
            Payload::V2(bytes) => of_v2(bytes),
            Payload::V3(message) => of_v3(&message.wrapper),
            Payload::Mpps(bytes) => of_mpps(bytes),
            Payload::Instance(instance) => of_instance(instance),
            Payload::Fhir(changes) => About { message: Some(of_fhir(changes)), ..About::default() },
        };
        about.reference = about.reference.filter(|_| self.control.is_none());
        about.called = self.source.called.clone().or(about.called);
        about.replays = self.source.replays;
        about
    }
}

/// `ADT^A08`, MSH-10, and MSH-5 with MSH-6.
fn of_v2(bytes: &[u8]) -> About {
    let Some(header) = Header::read(bytes) else { return About::default() };
    let (kind, event) = header.message_type();
    let message = word(&kind).map(|kind| match word(&event) {
        Some(event) => format!("{kind}^{event}"),
        None => kind,
    });
    let control = String::from_utf8_lossy(&header.control_id()).into_owned();
    let called = format!("{}|{}", header.text(5), header.text(6));
    About {
        message,
        reference: Some(control).filter(|control| !control.is_empty()),
        called: Some(called).filter(|called| called != "|"),
        replays: None,
    }
}

/// The interaction, its id, and its receiver.
fn of_v3(wrapper: &Wrapper) -> About {
    About {
        message: word(&wrapper.interaction),
        reference: wrapper.id.as_ref().map(Id::joined),
        called: wrapper.receiver.as_ref().map(Id::joined),
        replays: None,
    }
}

/// `C-STORE CT` and the SOP Instance UID.
fn of_instance(instance: &InstanceHeader) -> About {
    let modality = instance.header.text(MODALITY).and_then(|modality| word(&modality));
    let message = modality.map_or("C-STORE".to_owned(), |modality| format!("C-STORE {modality}"));
    About { message: Some(message), reference: Some(instance.sop_instance.clone()), ..About::default() }
}

/// `MPPS COMPLETED` and the SOP Instance UID of the step.
fn of_mpps(bytes: &[u8]) -> About {
    let step = json::parse(bytes, &json::Limits::default()).unwrap_or_default();
    let text = |name: &str, tag: &str| {
        let coded = || step.get(tag)?.get("Value")?.get(0);
        step.get(name).or_else(coded).and_then(Value::as_str).map(str::to_owned)
    };
    let state = text("status", "00400252");
    let known = ["IN PROGRESS", "COMPLETED", "DISCONTINUED"];
    let state = state.filter(|state| known.contains(&state.as_str()));
    let message = state.map_or("MPPS".to_owned(), |state| format!("MPPS {state}"));
    let uid = text("sop_instance_uid", "00080018").filter(|uid| is_uid(uid));
    About { message: Some(message), reference: uid, ..About::default() }
}

/// `FHIR create`, or `FHIR transaction` for several changes.
fn of_fhir(changes: &[hilum_fhir::Change]) -> String {
    use hilum_fhir::Action;
    let what = match changes {
        [one] => match &one.action {
            Action::Create(_) | Action::Ensure(..) => "create",
            Action::Delete(_) => "delete",
            _ => "update",
        },
        _ => "transaction",
    };
    format!("FHIR {what}")
}

/// A word of a standard: what is none is not repeated.
fn word(text: &str) -> Option<String> {
    let is_word =
        (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    is_word.then(|| text.to_owned())
}

/// One log line and one count for a submission, and a count for each remark of the kinds that are watched.
pub(crate) fn tell(submission: &Submission, about: &About, ending: Ending<'_>) {
    let control = submission.control.as_ref().map(|(_, control)| control).or(about.reference.as_ref());
    let milliseconds = u64::try_from(now().millis() - submission.received.millis()).unwrap_or(0);
    line(submission.site.id(), &submission.source, about, control.map(String::as_str), milliseconds, ending);
}

/// As [`tell`], of what is no submission yet.
pub(crate) fn line(
    site: &str,
    source: &Source,
    about: &About,
    control: Option<&str>,
    milliseconds: u64,
    ending: Ending<'_>,
) {
    let (receipt, number, issues) = match ending {
        Ending::Accepted(commit, issues) => ("accepted", Some(commit.submission), issues),
        Ending::Duplicate(number) => ("duplicate", Some(number), &[][..]),
        Ending::Rejected(number, issues) => ("rejected", Some(number), issues),
        Ending::Deferred(_) => ("deferred", None, &[][..]),
    };
    let refusal = issues.iter().find(|issue| issue.rejects());
    let reason = match ending {
        Ending::Deferred(error) if error.kind == ErrorKind::Full => "full",
        Ending::Deferred(_) => "unavailable",
        _ => refusal.map_or("", |issue| issue.code.as_str()),
    };
    let listener = source.listener.to_string();
    metrics::counter!("hilum_submissions_total", "listener" => listener, "receipt" => receipt, "reason" => reason)
        .increment(1);
    let remarks = if let Ending::Accepted(commit, _) = ending { &commit.remarks[..] } else { &[] };
    for remark in remarks {
        let (listener, kind) = (source.listener.to_string(), remark.kind.as_str());
        metrics::counter!("hilum_remarks_total", "listener" => listener, "remark" => kind).increment(1);
    }
    let remarks = issues.iter().filter(|issue| issue.severity == Severity::Warning).count();
    let (calling, control) = (source.identity.as_deref().map(short), control.map(short));
    let (called, place) =
        (about.called.as_deref().map(short), refusal.and_then(|issue| issue.location.as_deref()));
    tracing::info!(
        site,
        listener = %source.listener,
        peer = source.peer.map(|peer| peer.to_string()),
        kind = about.message.as_deref(),
        control,
        calling,
        called,
        submission = number,
        receipt,
        reason = Some(reason).filter(|reason| !reason.is_empty()),
        hl7 = refusal.and_then(|issue| issue.hl7_code),
        place = place.map(short),
        remarks,
        ms = milliseconds,
        "submission"
    );
}

/// The first letters of a name that came from outside.
fn short(text: &str) -> &str {
    text.char_indices().nth(NAME_LETTERS_MAX).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_told_in_words_of_the_standard_and_nothing_else() {
        let named = |about: About| (about.message, about.reference);
        let v2 = |kind: &str| of_v2(format!("MSH|^~\\&|A|B|C|D|1||{kind}|77|P|2.5\r").as_bytes());
        assert_eq!(named(v2("ADT^A08")), (Some("ADT^A08".into()), Some("77".into())));
        assert_eq!(v2("ACK").message.as_deref(), Some("ACK"));
        assert_eq!(v2("ACK").called.as_deref(), Some("C|D"));
        assert_eq!(v2("Doe, John^A08").message, None, "what is no word is not repeated");
        assert_eq!(of_v2(b"PID|1"), About::default());
        let step = br#"{"sop_instance_uid":"1.2.3","status":"COMPLETED"}"#;
        assert_eq!(named(of_mpps(step)), (Some("MPPS COMPLETED".into()), Some("1.2.3".into())));
        assert_eq!(named(of_mpps(br#"{"status":"Doe"}"#)), (Some("MPPS".into()), None));
    }

    #[test]
    fn a_long_name_is_cut_between_letters() {
        assert_eq!(short("ü".repeat(100).as_str()).chars().count(), NAME_LETTERS_MAX);
        assert_eq!(short("short"), "short");
    }
}

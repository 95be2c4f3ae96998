//! Several HL7 v2 messages in one frame, body or file: `[FHS] [BHS] messages [BTS] [FTS]`, or just one message after another.
//! HL7 v2.5.1 section 2.10.3. Each message is a submission of its own with its own receipt; one bad message does not stop the rest.

use bytes::Bytes;
use hilum_fhir::{Issue, IssueCode};
use hilum_wire::er7::{Header, Limits, batch_answer, split_batch};

use crate::exchange::{Answer, fresh_control_id, timestamp};

/// The messages of one frame or body.
#[derive(Debug)]
pub struct Batch {
    /// Each from its MSH on; what has no MSH at all is one message.
    pub messages: Vec<Bytes>,
    envelope: Option<Header>,
}

/// The answers to the messages of a [`Batch`], in their order.
#[derive(Debug)]
pub struct Answers {
    envelope: Option<Header>,
    each: Vec<Answer>,
}

impl Batch {
    /// Splits a frame or body.
    ///
    /// # Errors
    /// An issue when there are more messages than the limit: none of them is taken then.
    pub fn read(bytes: &Bytes, limits: &Limits) -> Result<Self, Issue> {
        let batch = split_batch(bytes, limits);
        if let Some(fault) = batch.faults.iter().find(|fault| fault.rejects) {
            return Err(Issue::error(IssueCode::TooCostly, &fault.text).at(&fault.place).hl7(fault.code));
        }
        let messages = batch.messages.iter().map(|message| bytes.slice_ref(message)).collect();
        Ok(Self { messages, envelope: batch.envelope })
    }

    /// Whether anything in it begins as a message or batch does.
    pub fn has_header(&self) -> bool {
        self.envelope.is_some() || self.messages.iter().any(|message| Header::read(message).is_some())
    }

    /// With the answer to each message.
    pub fn answered(self, each: Vec<Answer>) -> Answers {
        Answers { envelope: self.envelope, each }
    }
}

impl Answers {
    /// As frames: one for a batch with an envelope, else all answers in order.
    pub fn frames(self) -> Vec<Bytes> {
        match &self.envelope {
            Some(envelope) => vec![self.enveloped(envelope)],
            None => self.each.into_iter().flat_map(|answer| answer.frames).collect(),
        }
    }

    /// As one body: of each message the last answer due. `None` when no sender asked for one.
    pub fn body(&self) -> Option<Bytes> {
        match (&self.envelope, self.each.as_slice()) {
            (Some(envelope), _) => Some(self.enveloped(envelope)),
            (None, [one]) => one.frames.last().cloned(),
            (None, _) => Some(self.last().concat().into()),
        }
    }

    /// The status over HTTP: of the one message; for several 200, and 503 when all were deferred.
    pub fn http_status(&self) -> u16 {
        match (&self.envelope, self.each.as_slice()) {
            (None, [one]) => one.http_status,
            (_, []) => 200,
            (_, each) if each.iter().all(|answer| answer.http_status == 503) => 503,
            _ => 200,
        }
    }

    fn enveloped(&self, envelope: &Header) -> Bytes {
        batch_answer(envelope, &self.last(), &fresh_control_id(), &timestamp()).into()
    }

    fn last(&self) -> Vec<Vec<u8>> {
        self.each.iter().filter_map(|answer| answer.frames.last().map(|frame| frame.to_vec())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &'static str, http_status: u16) -> Answer {
        let frames = vec![Bytes::from_static(b"first"), Bytes::from_static(text.as_bytes())];
        Answer { frames, http_status, accepted: http_status == 200 }
    }

    fn read(text: &'static str) -> Batch {
        let limits = Limits { batch_messages_max: 2, ..Limits::default() };
        Batch::read(&Bytes::from_static(text.as_bytes()), &limits).unwrap()
    }

    #[test]
    fn one_message_several_and_a_batch_are_answered_each_in_their_way() {
        let one = read("MSH|^~\\&|A\rPID|1\r").answered(vec![answer("MSA|AE|1\r", 422)]);
        assert_eq!((one.http_status(), one.body().unwrap()), (422, Bytes::from_static(b"MSA|AE|1\r")));
        assert_eq!(one.frames().len(), 2, "both acknowledgements of the enhanced mode");

        let two = || vec![answer("MSA|AA|1\r", 200), answer("MSA|AR|2\r", 503)];
        let several = read("MSH|^~\\&|A\rMSH|^~\\&|B\r");
        assert_eq!(several.messages.len(), 2);
        let several = several.answered(two());
        assert_eq!(several.http_status(), 200);
        assert_eq!(several.body().unwrap(), Bytes::from_static(b"MSA|AA|1\rMSA|AR|2\r"));
        assert_eq!(several.frames().len(), 4);

        let batch = read("BHS|^~\\&|A|B|C|D|||||77\rMSH|^~\\&|A\rMSH|^~\\&|B\rBTS|2\r");
        assert!(batch.has_header() && batch.messages[1].ends_with(b"B\r"));
        let frames = batch.answered(two()).frames();
        let text = String::from_utf8(frames[0].to_vec()).unwrap();
        assert!(frames.len() == 1 && text.starts_with("BHS|^~\\&|C|D|A|B|"), "{text}");
        assert!(text.contains("|77\rMSA|AA|1\rMSA|AR|2\rBTS|2\r"), "{text}");
    }

    #[test]
    fn an_empty_batch_is_answered_with_one_and_too_many_messages_are_refused_together() {
        let empty = read("BHS|^~\\&|A|B|C|D|||||77\rBTS|0\r");
        assert!(empty.messages.is_empty());
        assert!(empty.answered(Vec::new()).body().unwrap().ends_with(b"|77\rBTS|0\r"));
        let three = Bytes::from_static(b"MSH|^~\\&|1\rMSH|^~\\&|2\rMSH|^~\\&|3\r");
        let issue = Batch::read(&three, &Limits { batch_messages_max: 2, ..Limits::default() }).unwrap_err();
        assert!(issue.diagnostics.contains("at most 2"), "{issue:?}");
    }
}

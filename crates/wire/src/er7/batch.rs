//! `[FHS] [BHS] messages [BTS] [FTS]`, and several messages without an envelope.

use super::{Header, Limits};
use crate::Fault;

/// The messages of one frame, body or file.
#[derive(Clone, Debug)]
pub struct Batch<'b> {
    /// The messages, each from its MSH on.
    pub messages: Vec<&'b [u8]>,
    /// BHS, when there is an envelope.
    pub envelope: Option<Header>,
    /// What was odd about the envelope.
    pub faults: Vec<Fault>,
}

/// Splits bytes into messages. One message without an envelope is a batch of one; no MSH at all gives the bytes as one message.
pub fn split_batch<'b>(bytes: &'b [u8], limits: &Limits) -> Batch<'b> {
    let mut batch = Batch { messages: Vec::new(), envelope: None, faults: Vec::new() };
    let mut starts = Vec::new();
    let mut ends = Vec::new();
    for (at, line) in lines(bytes) {
        match line.get(..3) {
            Some(b"MSH") => starts.push(at),
            Some(b"BHS") if starts.is_empty() => {
                let renamed = [b"MSH", &line[3..]].concat();
                batch.envelope = Header::read(&renamed);
            }
            Some(b"BTS" | b"FTS") => ends.push(at),
            _ => {}
        }
    }
    let last = ends.first().copied().unwrap_or(bytes.len());
    for (number, start) in starts.iter().enumerate() {
        if number >= limits.batch_messages_max {
            let text =
                format!("a batch has at most {} messages; send it in parts", limits.batch_messages_max);
            batch.faults.push(Fault::wrong(100, "BHS", text));
            break;
        }
        let end = starts.get(number + 1).copied().unwrap_or(last.max(*start));
        batch.messages.push(&bytes[*start..end]);
    }
    if batch.messages.is_empty() && batch.envelope.is_none() {
        batch.messages.push(bytes);
    }
    if batch.envelope.is_some() && ends.is_empty() {
        batch.faults.push(Fault::odd(100, "BTS", "the batch has no trailer"));
    }
    batch
}

/// The answer to a batch: BHS with their BHS-11 in BHS-12, the answers, BTS with their number.
pub fn batch_answer(envelope: &Header, answers: &[Vec<u8>], control_id: &str, time: &str) -> Vec<u8> {
    let field = char::from(envelope.separators.field);
    let text = |number| String::from_utf8_lossy(envelope.field(number)).into_owned();
    let mut out = format!(
        "BHS{field}{}{field}{}{field}{}{field}{}{field}{}{field}{time}{field}{field}{field}{field}{control_id}{field}{}\r",
        text(2), text(5), text(6), text(3), text(4), text(11)
    )
    .into_bytes();
    answers.iter().for_each(|answer| out.extend_from_slice(answer));
    out.extend(format!("BTS{field}{}\r", answers.len()).into_bytes());
    out
}

/// Removes an MLLP envelope from a body or file.
pub fn unframed(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_prefix(b"\x0B").unwrap_or(bytes);
    let end = bytes.iter().rposition(|b| !b.is_ascii_whitespace()).map_or(0, |at| at + 1);
    if bytes.get(end.saturating_sub(1)) == Some(&0x1C) { &bytes[..end - 1] } else { bytes }
}

/// The lines of a message and where they begin.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut start = 0;
    bytes.split(|b| *b == b'\r' || *b == b'\n').map(move |line| {
        let at = start;
        start += line.len() + 1;
        let blank = line.iter().take_while(|b| **b == b' ' || **b == 0x0B).count();
        (at + blank, &line[blank..])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_msh_starts_a_message() {
        let limits = Limits::default();
        let batch =
            split_batch(b"FHS|^~\\&\rBHS|^~\\&|A|B|C|D|||||B7\rMSH|1\rPID|1\rMSH|2\rBTS|2\rFTS|1\r", &limits);
        assert_eq!(batch.messages, [&b"MSH|1\rPID|1\r"[..], b"MSH|2\r"]);
        let envelope = batch.envelope.unwrap();
        let answer = batch_answer(&envelope, &[b"MSH|a\r".to_vec()], "X", "T");
        assert_eq!(answer, b"BHS|^~\\&|C|D|A|B|T||||X|B7\rMSH|a\rBTS|1\r");
        assert_eq!(split_batch(b"MSH|1\nMSH|2", &limits).messages.len(), 2);
        assert_eq!(split_batch(b"<xml/>", &limits).messages, [&b"<xml/>"[..]]);
        assert_eq!(split_batch(b"BHS|^~\\&|\rBTS|0\r", &limits).messages.len(), 0);
    }

    #[test]
    fn an_mllp_envelope_is_stripped() {
        assert_eq!(unframed(b"\x0BMSH|\r\x1C\r"), b"MSH|\r");
        assert_eq!(unframed(b"MSH|\r"), b"MSH|\r");
    }
}

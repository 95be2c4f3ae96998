//! `[FHS] [BHS] messages [BTS] [FTS]`, and several messages without an envelope.

use super::{Header, Limits};
use crate::Fault;

/// Lines outside of messages that are named one by one.
const STRAYS_MAX: usize = 10;

/// The messages of one frame, body or file.
#[derive(Clone, Debug, Default)]
pub struct Batch<'b> {
    /// The messages, each from its MSH on.
    pub messages: Vec<&'b [u8]>,
    /// The first BHS, when there is an envelope.
    pub envelope: Option<Header>,
    /// What was odd about the envelope.
    pub faults: Vec<Fault>,
}

/// Splits bytes into messages: each ends at the next MSH, BHS, BTS, FHS or FTS, so that a file may hold any number of batches (HL7 v2.5.1,
/// 2.10.3). One message without an envelope is a batch of one; no MSH at all gives the bytes as one message. Lines that are in no message and
/// no envelope are faults, and so are counts in BTS-1 and FTS-1 that are not those found.
pub fn split_batch<'b>(bytes: &'b [u8], limits: &Limits) -> Batch<'b> {
    let mut split = Split { bytes, open: None, batch: Batch::default(), counts: Counts::default() };
    for (at, line) in lines(bytes) {
        // a text that begins with these letters is no envelope
        let is_word = line.get(3).is_some_and(u8::is_ascii_alphanumeric);
        match line.get(..3) {
            Some(name @ (b"MSH" | b"BHS" | b"BTS" | b"FHS" | b"FTS")) if name == b"MSH" || !is_word => {
                split.close(at);
                if name == b"MSH" && split.batch.messages.len() >= limits.batch_messages_max {
                    let max = limits.batch_messages_max;
                    let text = format!("a batch has at most {max} messages; send it in parts");
                    split.batch.faults.push(Fault::wrong(100, "BHS", text));
                    return split.batch;
                }
                split.segment(name, line, at);
            }
            _ if split.open.is_none() && !line.is_empty() => split.stray(at),
            _ => {}
        }
    }
    split.finish()
}

/// What was found so far.
struct Split<'b> {
    bytes: &'b [u8],
    /// Where the message at hand starts.
    open: Option<usize>,
    batch: Batch<'b>,
    counts: Counts,
}

/// What the trailers are compared with.
#[derive(Default)]
struct Counts {
    /// Messages of the batch at hand.
    messages: usize,
    /// Batches of the file.
    batches: usize,
    /// A BHS whose BTS has not come.
    is_open: bool,
    has_file: bool,
    has_file_trailer: bool,
    strays: usize,
}

impl<'b> Split<'b> {
    /// The message at hand ends here.
    fn close(&mut self, end: usize) {
        if let Some(start) = self.open.take() {
            self.batch.messages.push(&self.bytes[start..end]);
            self.counts.messages += 1;
        }
    }

    fn segment(&mut self, name: &[u8], line: &[u8], at: usize) {
        match name {
            b"MSH" => self.open = Some(at),
            b"BHS" => {
                self.missing_trailer();
                self.counts.messages = 0;
                self.counts.batches += 1;
                self.counts.is_open = true;
                if self.batch.envelope.is_none() {
                    self.batch.envelope = Header::read(&[b"MSH", &line[3..]].concat());
                }
            }
            b"BTS" => {
                self.compare(line, self.counts.messages, "BTS-1", "messages");
                self.counts.messages = 0;
                self.counts.is_open = false;
            }
            b"FHS" => self.counts.has_file = true,
            _ => {
                self.compare(line, self.counts.batches, "FTS-1", "batches");
                self.counts.has_file_trailer = true;
            }
        }
    }

    /// The count a trailer gives, when it gives one.
    fn compare(&mut self, line: &[u8], found: usize, place: &str, of: &str) {
        let separator = line.get(3).copied().unwrap_or(b'|');
        let field = line.get(4..).and_then(|rest| rest.split(|b| *b == separator).next());
        let count = field.and_then(|field| std::str::from_utf8(field).ok()?.trim().parse::<usize>().ok());
        if count.is_some_and(|count| count != found) {
            let text = format!("the trailer counts other {of} than the {found} found");
            self.batch.faults.push(Fault::odd(100, place, text));
        }
    }

    fn missing_trailer(&mut self) {
        if std::mem::take(&mut self.counts.is_open) {
            self.batch.faults.push(Fault::odd(100, "BTS", "the batch has no trailer"));
        }
    }

    fn stray(&mut self, at: usize) {
        self.counts.strays += 1;
        if self.counts.strays <= STRAYS_MAX {
            let text = "a line is in no message and was not read";
            self.batch.faults.push(Fault::odd(100, format!("byte {at}"), text));
        }
    }

    fn finish(mut self) -> Batch<'b> {
        self.close(self.bytes.len());
        self.missing_trailer();
        if self.counts.has_file && !self.counts.has_file_trailer {
            self.batch.faults.push(Fault::odd(100, "FTS", "the file has no trailer"));
        }
        if self.batch.messages.is_empty() && self.batch.envelope.is_none() {
            self.batch.messages.push(self.bytes);
        }
        self.batch
    }
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
    fn a_file_may_hold_several_batches_and_its_counts_are_compared() {
        let limits = Limits::default();
        let places = |batch: &Batch<'_>| batch.faults.iter().map(|f| f.place.clone()).collect::<Vec<_>>();
        let file =
            b"FHS|^~\\&\rBHS|^~\\&|1\rMSH|1\rPID|1\rBTS|1\rBHS|^~\\&|2\rMSH|2\rMSH|3\nPID|3\nBTS|2\rFTS|2\r";
        let batch = split_batch(file, &limits);
        assert_eq!(batch.messages, [&b"MSH|1\rPID|1\r"[..], b"MSH|2\r", b"MSH|3\nPID|3\n"]);
        assert_eq!(places(&batch), [""; 0]);
        assert_eq!(batch.envelope.unwrap().field(3), b"1");
        let odd = b"FHS|^~\\&\rBHS|^~\\&|1\rNTE|lost\rMSH|1\rBHS|^~\\&|2\rMSH|2\rBTS|7\rPID|lost\rFTS|1\r";
        let batch = split_batch(odd, &limits);
        assert_eq!(batch.messages, [&b"MSH|1\r"[..], b"MSH|2\r"]);
        assert_eq!(places(&batch), ["byte 20", "BTS", "BTS-1", "byte 58", "FTS-1"]);
        assert!(batch.faults.iter().all(|fault| !fault.rejects));
        let cut = split_batch(b"FHS|^~\\&\rBHS|^~\\&\rMSH|1\r", &limits);
        assert_eq!(places(&cut), ["BTS", "FTS"]);
    }

    #[test]
    fn an_mllp_envelope_is_stripped() {
        assert_eq!(unframed(b"\x0BMSH|\r\x1C\r"), b"MSH|\r");
        assert_eq!(unframed(b"MSH|\r"), b"MSH|\r");
    }
}

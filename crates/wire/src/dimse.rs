//! DIMSE messages (PS3.7) and the presentation data values that carry them (PS3.8 annex E), both ways. No sockets.

use crate::scan::Tag;

/// Command field of C-STORE-RQ.
pub const C_STORE_RQ: u16 = 0x0001;
/// Command field of C-ECHO-RQ.
pub const C_ECHO_RQ: u16 = 0x0030;
/// Command field of C-CANCEL-RQ, which has no answer.
pub const C_CANCEL_RQ: u16 = 0x0FFF;
const RESPONSE: u16 = 0x8000;
const NO_DATA_SET: u16 = 0x0101;
const COMMENT_BYTES_MAX: usize = 64;

/// Status codes this program answers with (PS3.7 annex C, PS3.4 annex B).
pub mod status {
    /// Done.
    pub const SUCCESS: u16 = 0x0000;
    /// Ours: send again.
    pub const OUT_OF_RESOURCES: u16 = 0xA700;
    /// Data set and command name different classes or instances.
    pub const DATA_SET_MISMATCH: u16 = 0xA900;
    /// The SOP class is not one of storage, or not the one of the presentation context.
    pub const SOP_CLASS_NOT_SUPPORTED: u16 = 0x0122;
    /// The data set cannot be understood.
    pub const CANNOT_UNDERSTAND: u16 = 0xC000;
    /// A message with this id is unanswered.
    pub const DUPLICATE_INVOCATION: u16 = 0x0210;
    /// The operation is unknown.
    pub const UNRECOGNIZED_OPERATION: u16 = 0x0211;

    /// Whether a C-STORE was done, perhaps with a remark (PS3.4 table B.2-1).
    pub const fn is_done(status: u16) -> bool {
        matches!(status, SUCCESS | 0x0001 | 0x0107 | 0x0116 | 0xB000..=0xBFFF)
    }

    /// What a status of C-ECHO or C-STORE means, in words.
    pub const fn meaning(status: u16) -> &'static str {
        match status {
            SUCCESS => "success",
            0xB000 => "stored, elements coerced",
            0xB006 => "stored, elements discarded",
            0xB007 => "stored, the data set does not match its sop class",
            0x0001 | 0x0107 | 0x0116 | 0xB001..=0xBFFF => "stored, with a warning",
            0x0105 | 0x0106 | 0x0110 | 0x0115 | 0x0120 | 0x0121 => "refused: processing failure",
            0x0111 => "refused: the instance is stored already",
            0x0117 => "refused: invalid instance uid",
            0x0118 | SOP_CLASS_NOT_SUPPORTED => "refused: sop class not supported",
            0x0124 => "refused: not authorized",
            DUPLICATE_INVOCATION => "refused: duplicate message id",
            UNRECOGNIZED_OPERATION => "refused: operation not served",
            0x0212 => "refused: mistyped argument",
            0xA700..=0xA7FF => "refused: out of resources, send again",
            0xA900..=0xA9FF => "refused: data set does not match its sop class or instance",
            0xC000..=0xCFFF => "refused: cannot understand",
            0xFE00 => "cancelled",
            _ => "refused",
        }
    }
}

/// A command set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// (0000,0100)
    pub field: u16,
    /// (0000,0110)
    pub message_id: u16,
    /// (0000,0002), padding removed.
    pub sop_class: String,
    /// (0000,1000), padding removed.
    pub sop_instance: String,
    /// Whether a data set follows (0000,0800).
    pub has_data_set: bool,
}

impl Command {
    /// C-ECHO-RQ (PS3.7 section 9.3.5).
    pub fn echo(message_id: u16) -> Vec<u8> {
        let verification = "1.2.840.10008.1.1";
        set(|elements| {
            element(elements, 0x0002, padded(verification).as_bytes());
            element(elements, 0x0100, &C_ECHO_RQ.to_le_bytes());
            element(elements, 0x0110, &message_id.to_le_bytes());
            element(elements, 0x0800, &NO_DATA_SET.to_le_bytes());
        })
    }

    /// C-STORE-RQ of medium priority (PS3.7 section 9.3.1); its data set follows.
    pub fn store(message_id: u16, sop_class: &str, sop_instance: &str) -> Vec<u8> {
        set(|elements| {
            element(elements, 0x0002, padded(sop_class).as_bytes());
            element(elements, 0x0100, &C_STORE_RQ.to_le_bytes());
            element(elements, 0x0110, &message_id.to_le_bytes());
            element(elements, 0x0700, &[0, 0]);
            element(elements, 0x0800, &[1, 0]);
            element(elements, 0x1000, padded(sop_instance).as_bytes());
        })
    }

    /// Reads a command set. `None` when it is malformed or lacks its command field.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut command = Self { has_data_set: true, ..Self::default() };
        let mut field = None;
        for (number, value) in elements(bytes)? {
            let word = || value.first_chunk::<2>().map(|b| u16::from_le_bytes(*b));
            let text = || String::from_utf8_lossy(value).trim_end_matches(['\0', ' ']).to_owned();
            match number {
                0x0002 => command.sop_class = text(),
                0x0100 => field = word(),
                0x0110 => command.message_id = word()?,
                0x0800 => command.has_data_set = word()? != NO_DATA_SET,
                0x1000 => command.sop_instance = text(),
                _ => {}
            }
        }
        command.field = field?;
        Some(command)
    }

    /// The command set of its response; the comment is cut at 64 characters, of which only printable ASCII is kept.
    pub fn response(&self, status: u16, comment: &str) -> Vec<u8> {
        self.refusal(status, comment, None)
    }

    /// The command set of its response, with the element at fault in Offending Element (0000,0901) (PS3.7 annex C).
    pub fn refusal(&self, status: u16, comment: &str, offending: Option<Tag>) -> Vec<u8> {
        set(|elements| {
            if !self.sop_class.is_empty() {
                element(elements, 0x0002, padded(&self.sop_class).as_bytes());
            }
            element(elements, 0x0100, &(self.field | RESPONSE).to_le_bytes());
            element(elements, 0x0120, &self.message_id.to_le_bytes());
            element(elements, 0x0800, &NO_DATA_SET.to_le_bytes());
            element(elements, 0x0900, &status.to_le_bytes());
            if let Some(Tag(tag)) = offending {
                let (group, number) = ((tag >> 16).to_le_bytes(), (tag & 0xFFFF).to_le_bytes());
                element(elements, 0x0901, &[group[0], group[1], number[0], number[1]]);
            }
            if !comment.is_empty() {
                let mut text: String =
                    comment.chars().filter(char::is_ascii_graphic_or_blank).take(COMMENT_BYTES_MAX).collect();
                if !text.len().is_multiple_of(2) {
                    text.push(' ');
                }
                element(elements, 0x0902, text.as_bytes());
            }
            if !self.sop_instance.is_empty() {
                element(elements, 0x1000, padded(&self.sop_instance).as_bytes());
            }
        })
    }
}

/// An answer: the command set of a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// (0000,0120): the message answered.
    pub message_id: u16,
    /// (0000,0900)
    pub status: u16,
    /// (0000,0902), padding removed.
    pub comment: String,
}

impl Answer {
    /// Reads the command set of a response; `None` when it is malformed, no response, or lacks its status.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (mut answer, mut field, mut status) = (Self::default(), None, None);
        for (number, value) in elements(bytes)? {
            let word = || value.first_chunk::<2>().map(|b| u16::from_le_bytes(*b));
            match number {
                0x0100 => field = word(),
                0x0120 => answer.message_id = word()?,
                0x0900 => status = word(),
                0x0902 => {
                    String::from_utf8_lossy(value).trim_matches(['\0', ' ']).clone_into(&mut answer.comment)
                }
                _ => {}
            }
        }
        answer.status = status?;
        (field? & RESPONSE != 0).then_some(answer)
    }
}

/// The elements of a command set: implicit little endian, flat. `None` when one does not fit. Other groups are passed over.
fn elements(mut bytes: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_first_chunk::<8>()?;
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        if head[..2] == [0, 0] {
            found.push((u16::from_le_bytes([head[2], head[3]]), value));
        }
        bytes = rest;
    }
    Some(found)
}

/// A command set with its group length.
fn set(fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut whole = Vec::with_capacity(256);
    element(&mut whole, 0x0000, &[0; 4]);
    let head = whole.len();
    fill(&mut whole);
    let length = u32::try_from(whole.len() - head).unwrap_or(0);
    whole[head - 4..head].copy_from_slice(&length.to_le_bytes());
    whole
}

trait Printable {
    fn is_ascii_graphic_or_blank(&self) -> bool;
}

impl Printable for char {
    fn is_ascii_graphic_or_blank(&self) -> bool {
        self.is_ascii_graphic() || *self == ' '
    }
}

/// A UID of even length: padded with NUL.
fn padded(uid: &str) -> String {
    if uid.len().is_multiple_of(2) { uid.to_owned() } else { format!("{uid}\0") }
}

fn element(out: &mut Vec<u8>, number: u16, value: &[u8]) {
    out.extend([0, 0]);
    out.extend(number.to_le_bytes());
    out.extend(u32::try_from(value.len()).unwrap_or(0).to_le_bytes());
    out.extend_from_slice(value);
}

/// A presentation data value: a slice of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pdv<'b> {
    /// Presentation context.
    pub context: u8,
    /// Of the command set, else of the data set.
    pub is_command: bool,
    /// The last of its set.
    pub is_last: bool,
    /// The bytes.
    pub bytes: &'b [u8],
}

/// The values in the body of a P-DATA-TF; `None` when a length does not fit.
pub fn pdvs(mut body: &[u8]) -> Option<Vec<Pdv<'_>>> {
    let mut found = Vec::new();
    while !body.is_empty() {
        let (length, rest) = body.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (value, rest) = rest.split_at_checked(length)?;
        let (head, bytes) = value.split_first_chunk::<2>()?;
        found.push(Pdv { context: head[0], is_command: head[1] & 1 == 1, is_last: head[1] & 2 == 2, bytes });
        body = rest;
    }
    Some(found)
}

/// A P-DATA-TF with one complete command set.
pub fn command_pdu(context: u8, command: &[u8]) -> Vec<u8> {
    let length = |extra: usize| u32::try_from(command.len() + extra).unwrap_or(0).to_be_bytes();
    let mut pdu = vec![0x04, 0];
    pdu.extend(length(6));
    pdu.extend(length(2));
    pdu.extend([context, 3]);
    pdu.extend_from_slice(command);
    pdu
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_echoes_its_request() {
        let mut request = Vec::new();
        element(&mut request, 0x0002, b"1.2.3\0");
        element(&mut request, 0x0100, &C_STORE_RQ.to_le_bytes());
        element(&mut request, 0x0110, &7_u16.to_le_bytes());
        element(&mut request, 0x0800, &1_u16.to_le_bytes());
        element(&mut request, 0x1000, b"1.2.3.4\0");
        let command = Command::read(&request).unwrap();
        assert_eq!(
            (command.message_id, command.has_data_set, command.sop_instance.as_str()),
            (7, true, "1.2.3.4")
        );
        let response = Command::read(&command.response(0xA700, "disk")).unwrap();
        assert_eq!(
            (response.field, response.has_data_set, response.sop_class.as_str()),
            (0x8001, false, "1.2.3")
        );
        let refusal = command.refusal(0xC000, "cut", Some(Tag::new(0x7FE0, 0x0010)));
        let offending = [&[0, 0, 1, 9, 4, 0, 0, 0][..], &[0xE0, 0x7F, 0x10, 0x00]].concat();
        assert!(refusal.windows(12).any(|element| element == offending));
        assert!(Command::read(&refusal).is_some());
        assert_eq!(Command::read(&request[..request.len() - 1]), None);
        assert_eq!(Command::read(b""), None);
    }

    #[test]
    fn what_we_ask_is_what_we_understand() {
        let command = Command::read(&Command::store(9, "1.2.3", "1.2.3.4")).unwrap();
        assert_eq!((command.field, command.message_id, command.has_data_set), (C_STORE_RQ, 9, true));
        assert_eq!((command.sop_class.as_str(), command.sop_instance.as_str()), ("1.2.3", "1.2.3.4"));
        let echo = Command::read(&Command::echo(1)).unwrap();
        assert_eq!((echo.field, echo.has_data_set), (C_ECHO_RQ, false));
        let answer = Answer::read(&command.response(0xC000, "nested too deep")).unwrap();
        assert_eq!(answer, Answer { message_id: 9, status: 0xC000, comment: "nested too deep".into() });
        assert_eq!(Answer::read(&Command::echo(1)), None, "a request is no answer");
        for (code, done) in [(0, true), (0xB007, true), (0xA700, false), (0xA900, false), (0x0111, false)] {
            assert_eq!(status::is_done(code), done);
            assert_eq!(status::meaning(code).starts_with("refused"), !done);
        }
    }

    #[test]
    fn values_of_a_pdu_are_slices_of_it() {
        let pdu = command_pdu(5, b"abcd");
        let found = pdvs(&pdu[6..]).unwrap();
        assert_eq!(found, [Pdv { context: 5, is_command: true, is_last: true, bytes: b"abcd" }]);
        assert_eq!(pdvs(&pdu[6..9]), None);
        assert_eq!(pdvs(&[0xFF, 0xFF, 0xFF, 0xFF, 1, 3]), None);
    }
}

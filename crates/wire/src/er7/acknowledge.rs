//! Acknowledgements, built from the header of the message alone. HL7 v2.5.1 sections 2.9 and 2.15.

use super::{Header, charset};
use crate::Fault;

/// ERR segments of one answer.
const ERRORS_MAX: usize = 10;

/// MSA-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are HL7 table 0008")]
pub enum AckCode {
    AA,
    AE,
    AR,
    CA,
    CE,
    CR,
}

impl AckCode {
    /// As written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AA => "AA",
            Self::AE => "AE",
            Self::AR => "AR",
            Self::CA => "CA",
            Self::CE => "CE",
            Self::CR => "CR",
        }
    }

    /// The accept acknowledgement that goes with an application acknowledgement.
    pub const fn accept(self) -> Self {
        match self {
            Self::AA | Self::CA => Self::CA,
            Self::AE | Self::CE => Self::CE,
            Self::AR | Self::CR => Self::CR,
        }
    }

    /// Whether it says yes.
    pub const fn is_positive(self) -> bool {
        matches!(self, Self::AA | Self::CA)
    }
}

/// What an answer says.
#[derive(Clone, Debug)]
pub struct Ack<'a> {
    /// MSA-1.
    pub code: AckCode,
    /// One ERR for each, at most ten; those that block nothing with severity W, which is of 2.5 and later.
    pub faults: &'a [Fault],
    /// MSH-10 of the answer, at most 20 characters.
    pub control_id: &'a str,
    /// MSH-7 of the answer, `YYYYMMDDHHMMSS+ZZZZ`.
    pub time: &'a str,
}

/// Which answers a sender wants (MSH-15, MSH-16).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// An accept acknowledgement (CA, CE, CR).
    pub accept: bool,
    /// An application acknowledgement (AA, AE, AR).
    pub application: bool,
}

/// The answers due for an outcome.
pub fn due(header: &Header, positive: bool) -> Due {
    let wants = |field: usize| match header.field(field) {
        b"AL" => Some(true),
        b"NE" => Some(false),
        b"ER" => Some(!positive),
        b"SU" => Some(positive),
        _ => None,
    };
    match (wants(15), wants(16)) {
        (None, None) => Due { accept: false, application: true },
        (accept, application) => {
            Due { accept: accept.unwrap_or(false), application: application.unwrap_or(false) }
        }
    }
}

/// The answer to a message; with `None` to one without a readable header.
pub fn acknowledge(header: Option<&Header>, ack: &Ack<'_>) -> Vec<u8> {
    let unknown;
    let header = match header {
        Some(header) => header,
        None => {
            unknown = Header::read(b"MSH|^~\\&|").unwrap_or_else(|| unreachable!("a constant header"));
            &unknown
        }
    };
    let separators = header.separators;
    let field = separators.field;
    let mut out: Vec<u8> = Vec::with_capacity(256);
    let version = header.field(12);
    out.extend_from_slice(b"MSH");
    out.push(field);
    out.extend([separators.component, separators.repetition, separators.escape, separators.subcomponent]);
    out.extend(separators.truncation);
    let trigger = header.component(9, 2);
    let message_type: Vec<u8> = if trigger.is_empty() || is_before(version, "2.3.1") {
        b"ACK".to_vec()
    } else {
        [b"ACK", trigger, b"ACK"].join(&separators.component)
    };
    let or =
        |bytes: &[u8], otherwise: &[u8]| if bytes.is_empty() { otherwise.to_vec() } else { bytes.to_vec() };
    let fields: [Vec<u8>; 16] = [
        header.field(5).to_vec(),
        header.field(6).to_vec(),
        header.field(3).to_vec(),
        header.field(4).to_vec(),
        ack.time.as_bytes().to_vec(),
        Vec::new(),
        message_type,
        ack.control_id.as_bytes().to_vec(),
        or(header.field(11), b"P"),
        or(version, b"2.5.1"),
        Vec::new(),
        Vec::new(),
        b"NE".to_vec(),
        b"NE".to_vec(),
        Vec::new(),
        header.field(18).to_vec(),
    ];
    push_fields(&mut out, field, &fields);
    out.extend_from_slice(b"MSA");
    out.push(field);
    out.extend_from_slice(ack.code.as_str().as_bytes());
    out.push(field);
    out.extend(header.control_id());
    let old = is_before(version, "2.5");
    // before 2.5 there is no severity: an ERR beside AA would be taken for an error
    let mut told = ack.faults.iter().filter(|fault| fault.rejects || !old).take(ERRORS_MAX).peekable();
    if let Some(first) = told.peek().filter(|_| old) {
        out.push(field);
        out.extend(text(header, &first.text));
    }
    out.push(b'\r');
    for fault in told {
        error(&mut out, header, fault, old);
    }
    out
}

fn push_fields(out: &mut Vec<u8>, separator: u8, fields: &[Vec<u8>]) {
    let used = fields.iter().rposition(|f| !f.is_empty()).map_or(0, |at| at + 1);
    for field in &fields[..used] {
        out.push(separator);
        out.extend_from_slice(field);
    }
    out.push(b'\r');
}

/// ERR of 2.5 and later: `ERR||PID^1^3|101^Required field missing^HL70357|E||||text`; before: `ERR|PID^1^3^101&…&HL70357`.
fn error(out: &mut Vec<u8>, header: &Header, fault: &Fault, old: bool) {
    let separators = header.separators;
    let place = location(&fault.place, separators.component);
    // 0 says that the message was taken: of a warning that table 0357 has no other code for
    let code = if fault.rejects { fault.code.max(100) } else { fault.code };
    let name = condition(code);
    if old {
        let sub = char::from(separators.subcomponent);
        let coded = format!("{code}{sub}{name}{sub}HL70357");
        let place = if place.is_empty() { b"^^".to_vec() } else { place };
        let fields = [[place, coded.into_bytes()].join(&separators.component)];
        out.extend_from_slice(b"ERR");
        push_fields(out, separators.field, &fields);
        return;
    }
    let component = char::from(separators.component);
    let severity = if fault.rejects { b"E" } else { b"W" };
    let fields = [
        Vec::new(),
        place,
        format!("{code}{component}{name}{component}HL70357").into_bytes(),
        severity.to_vec(),
        fault.application.as_bytes().to_vec(),
        Vec::new(),
        Vec::new(),
        text(header, &fault.text),
    ];
    out.extend_from_slice(b"ERR");
    push_fields(out, separators.field, &fields);
}

/// `PID-3`, `PID[2]-3[1].4` as ERR-2: segment, sequence, field, repetition, component.
fn location(place: &str, component: u8) -> Vec<u8> {
    let (segment, rest) = place.split_once('-').unwrap_or((place, ""));
    let (name, sequence) =
        segment.split_once('[').map_or((segment, "1"), |(name, n)| (name, n.trim_end_matches(']')));
    let is_segment = name.len() == 3 && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    if !is_segment {
        return Vec::new();
    }
    let mut parts = vec![name.to_owned(), sequence.to_owned()];
    let (field, rest) = rest.split_once('.').unwrap_or((rest, ""));
    let (field, repeat) =
        field.split_once('[').map_or((field, ""), |(field, n)| (field, n.trim_end_matches(']')));
    parts.extend([field, repeat, rest].iter().filter(|p| !p.is_empty()).map(|p| (*p).to_owned()));
    parts.join(&char::from(component).to_string()).into_bytes()
}

/// HL7 table 0357.
fn condition(code: u16) -> &'static str {
    match code {
        0 => "Message accepted",
        100 => "Segment sequence error",
        101 => "Required field missing",
        102 => "Data type error",
        103 => "Table value not found",
        200 => "Unsupported message type",
        201 => "Unsupported event code",
        202 => "Unsupported processing id",
        203 => "Unsupported version id",
        204 => "Unknown key identifier",
        205 => "Duplicate key identifier",
        207 => "Application internal error",
        _ => "Segment sequence error",
    }
}

/// A text for people: control bytes stripped, separators escaped, in the sender's character set.
fn text(header: &Header, plain: &str) -> Vec<u8> {
    let s = header.separators;
    let escape = char::from(s.escape);
    let mut escaped = String::with_capacity(plain.len());
    for letter in plain.chars().filter(|c| !c.is_control()) {
        let code = match u8::try_from(letter) {
            Ok(b) if b == s.field => 'F',
            Ok(b) if b == s.component => 'S',
            Ok(b) if b == s.subcomponent => 'T',
            Ok(b) if b == s.repetition => 'R',
            Ok(b) if b == s.escape => 'E',
            _ => {
                escaped.push(letter);
                continue;
            }
        };
        escaped.extend([escape, code, escape]);
    }
    charset::encode(&escaped, &header.text(18))
}

fn is_before(version: &[u8], other: &str) -> bool {
    let numbers = |text: &str| text.split('.').map(|n| n.parse::<u32>().unwrap_or(0)).collect::<Vec<_>>();
    let version = String::from_utf8_lossy(version);
    !version.is_empty() && numbers(version.split('^').next().unwrap_or_default()) < numbers(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(message: &str, code: AckCode, faults: &[Fault]) -> String {
        let header = Header::read(message.as_bytes());
        let ack = Ack { code, faults, control_id: "H1", time: "20240101000000+0000" };
        String::from_utf8(acknowledge(header.as_ref(), &ack)).unwrap()
    }

    #[test]
    fn answers_use_the_senders_separators_and_swap_the_parties() {
        let ack = answer(
            "MSH|^~\\&|RIS|SITE|HILUM|EDGE|2024||ADT^A08^ADT_A01|77|P|2.5.1|||||AUS|UNICODE UTF-8\r",
            AckCode::AA,
            &[],
        );
        assert_eq!(
            ack,
            "MSH|^~\\&|HILUM|EDGE|RIS|SITE|20240101000000+0000||ACK^A08^ACK|H1|P|2.5.1|||NE|NE||UNICODE UTF-8\rMSA|AA|77\r"
        );
        let ack = answer("MSH*:~\\&*RIS***EDGE***ADT:A08*9**2.5\r", AckCode::AA, &[]);
        assert!(ack.starts_with("MSH*:~\\&*") && ack.contains("\rMSA*AA*9\r"), "{ack}");
    }

    #[test]
    fn errors_name_the_place_in_the_style_of_the_version() {
        let faults = [Fault::wrong(101, "PID-3[1].4", "is required | always")];
        let new = answer("MSH|^~\\&|A||||||ADT^A08|1|P|2.5\r", AckCode::AE, &faults);
        assert!(
            new.ends_with(
                "ERR||PID^1^3^1^4|101^Required field missing^HL70357|E||||is required \\F\\ always\r"
            ),
            "{new}"
        );
        let old = answer("MSH|^~\\&|A||||||ADT^A08|1|P|2.3\r", AckCode::AE, &faults);
        assert!(old.contains("||ACK|H1|"), "{old}");
        assert!(
            old.ends_with(
                "MSA|AE|1|is required \\F\\ always\rERR|PID^1^3^1^4^101&Required field missing&HL70357\r"
            ),
            "{old}"
        );
        let none = answer("<xml/>", AckCode::AE, &[Fault::wrong(100, "MSH", "no MSH")]);
        assert!(none.contains("\rMSA|AE|\rERR||MSH^1|100^"), "{none}");
    }

    #[test]
    fn a_positive_answer_carries_warnings_where_the_version_has_severities() {
        let odd = [
            Fault::odd(0, "PID-8", "a code is in no table and was left out"),
            Fault::odd(102, "PV1-44", "no time"),
        ];
        let new = answer("MSH|^~\\&|A||||||ADT^A08|1|P|2.5.1\r", AckCode::AA, &odd);
        assert!(
            new.ends_with(
                "MSA|AA|1\rERR||PID^1^8|0^Message accepted^HL70357|W||||a code is in no table and was left out\r\
                 ERR||PV1^1^44|102^Data type error^HL70357|W||||no time\r"
            ),
            "{new}"
        );
        let old = answer("MSH|^~\\&|A||||||ADT^A08|1|P|2.4\r", AckCode::AA, &odd);
        assert!(old.ends_with("MSA|AA|1\r"), "an ERR would be taken for an error: {old}");
        let many = vec![odd[0].clone(); 30];
        let told = answer("MSH|^~\\&|A||||||ADT^A08|1|P|2.5.1\r", AckCode::AA, &many);
        assert_eq!(told.matches("\rERR|").count(), ERRORS_MAX);
    }

    #[test]
    fn the_header_decides_which_answers_are_due() {
        for (fields, positive, accept, application) in [
            ("|", true, false, true),
            ("AL|NE", true, true, false),
            ("AL|", true, true, false),
            ("NE|AL", true, false, true),
            ("|AL", true, false, true),
            ("AL|AL", false, true, true),
            ("NE|NE", false, false, false),
            ("ER|SU", true, false, true),
            ("ER|SU", false, true, false),
        ] {
            let header =
                Header::read(format!("MSH|^~\\&|||||||ADT|1|P|2.5|||{fields}\r").as_bytes()).unwrap();
            assert_eq!(due(&header, positive), Due { accept, application }, "{fields} {positive}");
        }
    }
}

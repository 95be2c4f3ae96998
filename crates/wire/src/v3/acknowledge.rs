//! MCCI_IN000002UV01, built from the wrapper of the interaction alone.

use super::{ACKNOWLEDGEMENT, Id, NAMESPACE, Wrapper};
use crate::Fault;
use crate::er7::AckCode;

/// Details of one answer.
const DETAILS_MAX: usize = 10;
/// HL7 interaction identifiers.
const INTERACTIONS: &str = "2.16.840.1.113883.1.6";
/// HL7 AcknowledgementDetailCode.
const DETAIL_CODES: &str = "2.16.840.1.113883.5.1100";

/// What an answer says.
#[derive(Clone, Debug)]
pub struct Ack<'a> {
    /// `acknowledgement/typeCode`.
    pub code: AckCode,
    /// One `acknowledgementDetail` for each, at most ten.
    pub faults: &'a [Fault],
    /// `id/@root` of the answer, a UUID.
    pub id: &'a str,
    /// `creationTime` of the answer, `YYYYMMDDHHMMSS+ZZZZ`.
    pub time: &'a str,
}

/// The answer to an interaction: its element, without XML declaration and envelope. Parties are swapped, every value is escaped.
pub fn acknowledge(wrapper: &Wrapper, ack: &Ack<'_>) -> String {
    let details: String = ack.faults.iter().take(DETAILS_MAX).map(detail).collect();
    format!(
        "<{ACKNOWLEDGEMENT} xmlns=\"{NAMESPACE}\" ITSVersion=\"XML_1.0\"><id root=\"{}\"/><creationTime value=\"{}\"/>\
         <interactionId root=\"{INTERACTIONS}\" extension=\"{ACKNOWLEDGEMENT}\"/><processingCode code=\"{}\"/>\
         <processingModeCode code=\"T\"/><acceptAckCode code=\"NE\"/>{}{}\
         <acknowledgement><typeCode code=\"{}\"/><targetMessage>{}</targetMessage>{details}</acknowledgement></{ACKNOWLEDGEMENT}>",
        escape(ack.id),
        escape(ack.time),
        escape(wrapper.processing.as_deref().unwrap_or("P")),
        party("receiver", "RCV", wrapper.sender.as_ref()),
        party("sender", "SND", wrapper.receiver.as_ref()),
        ack.code.as_str(),
        id(wrapper.id.as_ref()),
    )
}

fn party(element: &str, kind: &str, device: Option<&Id>) -> String {
    let id = id(device);
    format!(
        "<{element} typeCode=\"{kind}\"><device classCode=\"DEV\" determinerCode=\"INSTANCE\">{id}</device></{element}>"
    )
}

fn id(id: Option<&Id>) -> String {
    match id {
        None => "<id nullFlavor=\"NI\"/>".to_owned(),
        Some(Id { root, extension }) if extension.is_empty() => format!("<id root=\"{}\"/>", escape(root)),
        Some(Id { root, extension }) => {
            format!("<id root=\"{}\" extension=\"{}\"/>", escape(root), escape(extension))
        }
    }
}

fn detail(fault: &Fault) -> String {
    let severity = if fault.rejects { "E" } else { "W" };
    let location = if fault.place.is_empty() {
        String::new()
    } else {
        format!("<location>{}</location>", escape(&fault.place))
    };
    format!(
        "<acknowledgementDetail typeCode=\"{severity}\"><code code=\"{}\" codeSystem=\"{DETAIL_CODES}\"/><text>{}</text>{location}</acknowledgementDetail>",
        condition(fault.code),
        escape(&fault.text)
    )
}

/// The code of AcknowledgementDetailCode that says the same as one of HL7 table 0357.
fn condition(code: u16) -> &'static str {
    match code {
        100 => "SYN100",
        101 => "SYN101",
        102 => "SYN102",
        103 => "SYN103",
        200 | 201 => "NS200",
        202 => "NS202",
        203 => "NS203",
        204 => "KEY204",
        205 => "KEY205",
        207 => "INTERR",
        _ => "SYN",
    }
}

/// A value as XML text or attribute value; characters XML does not allow are left out.
pub(super) fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for letter in value.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\t' => escaped.push_str("&#9;"),
            '\n' => escaped.push_str("&#10;"),
            '\r' => escaped.push_str("&#13;"),
            '\0'..='\u{1F}' | '\u{FFFE}' | '\u{FFFF}' => {}
            other => escaped.push(other),
        }
    }
    escaped
}

//! HL7 v2 messages as FHIR changes. The rule tables decide which field fills which element; the files here decide which segments belong together.

mod convert;
mod document;
mod mapper;
mod merge;
mod message;
mod order;
mod report;
mod value;

use bytes::Bytes;
use hilum_fhir::{Issue, IssueCode};
use hilum_wire::Fault;
use hilum_wire::er7::{Limits, Message};

use crate::rules::Tables;
use crate::{Context, Normalised};

/// Maps one message.
pub(crate) fn normalise(bytes: &Bytes, limits: &Limits, tables: &Tables, context: &Context) -> Normalised {
    let Some(message) = Message::read(bytes, limits) else {
        let issue = Issue::error(
            IssueCode::Structure,
            "there is no MSH segment; an HL7 v2 message starts with MSH|^~\\&|",
        );
        return Normalised { issues: vec![issue.at("MSH").hl7(100)], ..Normalised::default() };
    };
    let mut mapper = mapper::Mapper::new(&message, tables, context);
    mapper.issues.extend(message.faults.iter().map(issue));
    if !message.segments.is_empty() && !message.faults.iter().any(|fault| fault.rejects) {
        message::run(&mut mapper);
    }
    mapper.finish()
}

/// A fault of the wire as an issue.
pub(crate) fn issue(fault: &Fault) -> Issue {
    let code = match fault.code {
        101 => IssueCode::Required,
        102 => IssueCode::Value,
        103 => IssueCode::CodeInvalid,
        _ => IssueCode::Structure,
    };
    let issue =
        if fault.rejects { Issue::error(code, &fault.text) } else { Issue::warning(code, &fault.text) };
    issue.at(&fault.place).hl7(fault.code)
}

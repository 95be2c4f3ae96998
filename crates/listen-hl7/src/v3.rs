//! `POST /v3/ingest`: one HL7 v3 interaction as the body, bare or in SOAP, its acknowledgement as the answer in the same wrapping.
//!
//! Trouble of SOAP is answered by a SOAP fault, trouble of HL7 by an acknowledgement that says so; what is no XML is refused by HTTP.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use hilum_fhir::{Issue, IssueCode};
use hilum_intake::store::Scope;
use hilum_intake::{Receipt, Source};
use hilum_listen::{Caller, missing_scope};
use hilum_wire::v3::{ACKNOWLEDGEMENT, Envelope, Limits, Message, Refusal, SoapVersion};

use crate::Door;
use crate::answer::{refuse, send_again, with_body};

const SCOPE: Scope = Scope::IngestHl7v3;
/// Larger bodies are read where they hold nobody up.
const READ_INLINE_BYTES_MAX: usize = 128 * 1024;
const TYPES: [&str; 4] = ["application/soap+xml", "text/xml", "application/xml", ""];

/// Send an HL7 v3 interaction.
#[utoipa::path(
    post,
    tag = "HL7 v3",
    operation_id = "ingest_v3",
    path = "/v3/ingest",
    request_body(
        content = String,
        content_type = "application/xml",
        description = "PRPA_IN201301UV02, PRPA_IN201302UV02 or PRPA_IN201304UV02, bare (application/xml, text/xml) or in SOAP 1.1 (text/xml) or 1.2 (application/soap+xml)",
        example = json!(EXAMPLE)
    ),
    params(("X-API-Key" = Option<String>, Header, description = "API key with scope ingest/hl7v3")),
    responses(
        (status = 200, description = "the acknowledgement MCCI_IN000002UV01, in the wrapping of the question: CA durable; CE content, CR interaction refused and kept, must not be repeated unchanged", body = String, content_type = "application/xml"),
        (status = 204, description = "durable; an acknowledgement is not acknowledged"),
        (status = 400, description = "not well-formed, a document type, a limit exceeded, or not HL7 v3; the body is kept"),
        (status = 401, description = "no or unknown key"),
        (status = 403, description = "the key lacks the scope"),
        (status = 413, description = "the body is too large"),
        (status = 415, description = "no type of XML"),
        (status = 500, description = "a SOAP fault: the envelope cannot be taken", body = String, content_type = "application/soap+xml"),
        (status = 503, description = "not accepted now (CR); send again", body = String, content_type = "application/xml"),
    )
)]
pub(crate) async fn ingest(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !caller.has_scope(SCOPE) {
        return refuse(StatusCode::FORBIDDEN, missing_scope(SCOPE.name()));
    }
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !TYPES.contains(&essence.as_str()) {
        let text = "send application/soap+xml, text/xml or application/xml";
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, Issue::error(IssueCode::NotSupported, text));
    }
    if body.len() > door.xml.bytes_max {
        let text = format!("the body is larger than {} bytes", door.xml.bytes_max);
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, Issue::error(IssueCode::TooLong, text));
    }
    let source = Source {
        listener: caller.listener.clone(),
        peer: Some(caller.peer),
        identity: caller.key_id.as_ref().map(ToString::to_string),
        ..Source::default()
    };
    let message = match read(&body, door.xml).await {
        Ok(message) => message,
        Err(refusal) => return kept(&door, &caller, source, body, refusal).await,
    };
    let content_type = media_type(message.envelope.as_ref(), &essence);
    let reply = door.intake.interact(&caller.site, source, body, message).await;
    let status = StatusCode::from_u16(reply.http_status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    with_body(status, content_type, reply.document.unwrap_or_default().into())
}

/// Reads a body; a large one off the async threads. A panic there is one here, for the listener to answer.
async fn read(body: &Bytes, limits: Limits) -> Result<Message, Refusal> {
    if body.len() <= READ_INLINE_BYTES_MAX {
        return Message::read(body, &limits);
    }
    let body = body.clone();
    let reading = tokio::task::spawn_blocking(move || Message::read(&body, &limits)).await;
    reading.unwrap_or_else(|broken| std::panic::resume_unwind(broken.into_panic()))
}

/// Keeps what is no interaction, and says what it is instead.
async fn kept(door: &Door, caller: &Caller, source: Source, body: Bytes, refusal: Refusal) -> Response {
    let issue = match &refusal {
        Refusal::Xml(fault) => Issue::error(IssueCode::Structure, &fault.text).at(&fault.place),
        Refusal::Soap(_, trouble) => Issue::error(IssueCode::Structure, trouble.reason()),
    };
    let receipt = door.intake.refuse_interaction(&caller.site, source, body, issue.clone()).await;
    match (receipt, refusal) {
        (Receipt::Deferred(_), _) => send_again(),
        (_, Refusal::Xml(_)) => refuse(StatusCode::BAD_REQUEST, issue),
        (_, Refusal::Soap(envelope, trouble)) => {
            let content_type = media_type(Some(&envelope), "");
            with_body(StatusCode::INTERNAL_SERVER_ERROR, content_type, envelope.fault(trouble).into())
        }
    }
}

/// The type of an answer: that of the envelope's version, or of the bare question.
fn media_type(envelope: Option<&Envelope>, essence: &str) -> String {
    let essence = match envelope {
        Some(envelope) => envelope.version.media_type(),
        None if essence == "text/xml" => essence,
        None => "application/xml",
    };
    let action = match envelope {
        Some(Envelope { version: SoapVersion::V12, .. }) => {
            format!("; action=\"urn:hl7-org:v3:{ACKNOWLEDGEMENT}\"")
        }
        _ => String::new(),
    };
    format!("{essence}; charset=utf-8{action}")
}

/// Shown by the API page, to be tried as it is.
const EXAMPLE: &str = r#"<PRPA_IN201301UV02 xmlns="urn:hl7-org:v3" ITSVersion="XML_1.0">
  <id root="2.16.840.1.113883.19.9" extension="1"/>
  <creationTime value="20240101120000"/>
  <interactionId root="2.16.840.1.113883.1.6" extension="PRPA_IN201301UV02"/>
  <processingCode code="P"/><processingModeCode code="T"/><acceptAckCode code="AL"/>
  <receiver typeCode="RCV"><device classCode="DEV" determinerCode="INSTANCE"><id root="2.16.840.1.113883.19.2"/></device></receiver>
  <sender typeCode="SND"><device classCode="DEV" determinerCode="INSTANCE"><id root="2.16.840.1.113883.19.1"/></device></sender>
  <controlActProcess classCode="CACT" moodCode="EVN">
    <subject typeCode="SUBJ"><registrationEvent classCode="REG" moodCode="EVN"><statusCode code="active"/>
      <subject1 typeCode="SBJ"><patient classCode="PAT">
        <id root="1.2.276.0.76.3.1" extension="4711"/><statusCode code="active"/>
        <patientPerson classCode="PSN" determinerCode="INSTANCE">
          <name><given>John</given><family>Doe</family></name>
          <administrativeGenderCode code="M"/><birthTime value="19800101"/>
        </patientPerson>
      </patient></subject1>
    </registrationEvent></subject>
  </controlActProcess>
</PRPA_IN201301UV02>"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_an_interaction() {
        let message = Message::read(EXAMPLE.as_bytes(), &Limits::default()).ok();
        assert_eq!(message.map(|m| m.wrapper.interaction), Some("PRPA_IN201301UV02".to_owned()));
    }
}

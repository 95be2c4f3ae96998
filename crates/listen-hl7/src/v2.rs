//! `POST /v2/ingest`: one message or batch as the body, its acknowledgements as the answer.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hilum_fhir::{Issue, IssueCode};
use hilum_intake::Source;
use hilum_intake::batch::{Answers, Batch};
use hilum_intake::store::Scope;
use hilum_listen::{Caller, missing_scope};
use hilum_wire::er7::unframed;

use crate::Door;
use crate::answer::{refuse, send_again, with_body};

const SCOPE: Scope = Scope::IngestHl7v2;
const TYPES: [&str; 5] =
    ["text/plain", "application/hl7-v2", "x-application/hl7-v2+er7", "application/octet-stream", ""];

/// Send an HL7 v2 message or batch.
#[utoipa::path(
    post,
    tag = "HL7 v2",
    path = "/v2/ingest",
    request_body(content = String, content_type = "text/plain", description = "ER7, segments ended by CR, LF or CRLF (curl: --data-binary)"),
    params(("X-API-Key" = Option<String>, Header, description = "API key with scope ingest/hl7v2")),
    responses(
        (status = 200, description = "durable; the acknowledgement (AA)", body = String, content_type = "text/plain"),
        (status = 204, description = "durable; the sender asked for no acknowledgement"),
        (status = 400, description = "no MSH segment; the body is kept"),
        (status = 401, description = "no or unknown key"),
        (status = 403, description = "the key lacks the scope"),
        (status = 415, description = "no type of HL7 v2"),
        (status = 422, description = "the acknowledgement (AE, AR) says why; must not be repeated unchanged", body = String, content_type = "text/plain"),
        (status = 503, description = "not accepted now (AR); send again", body = String, content_type = "text/plain"),
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
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if !TYPES.contains(&essence.as_str()) {
        let issue = Issue::error(
            IssueCode::NotSupported,
            "send text/plain, application/hl7-v2 or x-application/hl7-v2+er7",
        );
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, issue);
    }
    let source = Source {
        listener: caller.listener.clone(),
        peer: Some(caller.peer),
        identity: caller.key_id.as_ref().map(ToString::to_string),
        ack_warnings: door.ack_warnings,
        ..Source::default()
    };
    let message = body.slice_ref(unframed(&body));
    let batch = match Batch::read(&message, &door.limits) {
        Ok(batch) => batch,
        Err(issue) => {
            return kept(&door, &caller, source, message, issue, StatusCode::UNPROCESSABLE_ENTITY).await;
        }
    };
    if !batch.has_header() {
        let issue =
            Issue::error(IssueCode::Structure, "there is no MSH segment at the start of a line").at("MSH");
        return kept(&door, &caller, source, message, issue, StatusCode::BAD_REQUEST).await;
    }
    let mut answers = Vec::with_capacity(batch.messages.len());
    for message in &batch.messages {
        answers.push(door.intake.exchange(&caller.site, source.clone(), message.clone()).await);
    }
    let content_type = if essence.is_empty() { "text/plain".to_owned() } else { content_type };
    answer(content_type, &batch.answered(answers))
}

/// Keeps what cannot be acknowledged as a message, and says what is wrong with it.
async fn kept(
    door: &Door,
    caller: &Caller,
    source: Source,
    body: Bytes,
    issue: Issue,
    status: StatusCode,
) -> Response {
    let refused = door.intake.refuse(&caller.site, source, body, issue.clone()).await;
    if refused.http_status == StatusCode::SERVICE_UNAVAILABLE { send_again() } else { refuse(status, issue) }
}

fn answer(content_type: String, answers: &Answers) -> Response {
    let status = StatusCode::from_u16(answers.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match answers.body() {
        Some(body) => with_body(status, content_type, body),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

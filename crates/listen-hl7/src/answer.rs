//! Answers over HTTP, the same for both versions.

use axum::body::Bytes;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hilum_fhir::issue::operation_outcome;
use hilum_fhir::{Issue, IssueCode};

const RETRY_AFTER_SECONDS: &str = "2";

/// An answer in HL7; an empty one has no type.
pub(crate) fn with_body(status: StatusCode, content_type: String, body: Bytes) -> Response {
    let mut response = if body.is_empty() {
        status.into_response()
    } else {
        (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
    };
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    }
    response
}

/// Our trouble where no HL7 was read that could be answered: an OperationOutcome, and when to send again.
pub(crate) fn send_again() -> Response {
    let issue = Issue::error(IssueCode::Transient, "not accepted now, send again");
    let mut response = refuse(StatusCode::SERVICE_UNAVAILABLE, issue);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    response
}

/// A refusal before HL7 was read: an OperationOutcome.
pub(crate) fn refuse(status: StatusCode, issue: Issue) -> Response {
    (status, [(header::CONTENT_TYPE, "application/fhir+json")], operation_outcome(&[issue]).to_string())
        .into_response()
}

//! MPPS as JSON: `POST /ingest` with an API key (scope `ingest/mpps`).
//!
//! The body is the short form (`sop_instance_uid`, `study_uid`, `status`, optional `attributes`) or the DICOM JSON of an N-CREATE or
//! N-SET (PS3.18 annex F, PS3.4 annex F.7). One MPPS is one `session_id`: the same SOP Instance UID always yields the same.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use hilum_fhir::{Issue, IssueCode, json};
use hilum_intake::normalise::Payload;
use hilum_intake::store::Scope;
use hilum_intake::{Accepted, Intake, Receipt, Source, Submission, Verdict};
use hilum_listen::{Caller, Limits, missing_scope};
use serde::Serialize;
use serde_json::Value;
use utoipa::{OpenApi, ToSchema};
use uuid::Uuid;

const SCOPE: Scope = Scope::IngestMpps;
const RETRY_AFTER_SECONDS: &str = "2";
/// (0008,0018) SOP Instance UID in the DICOM JSON model.
const SOP_INSTANCE_UID: &str = "00080018";

/// The routes of the mpps surface.
pub fn router(intake: Intake, limits: &Limits) -> Router {
    let limits = json::Limits { depth_max: limits.json.depth_max, nodes_max: limits.json.nodes_max };
    Router::new().route("/ingest", post(ingest)).with_state(Arc::new(Door { intake, limits }))
}

/// The OpenAPI description of the mpps surface.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

struct Door {
    intake: Intake,
    limits: json::Limits,
}

/// The short form of a performed procedure step.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the body, which normalise reads")]
struct PerformedStep {
    /// SOP Instance UID of the MPPS.
    sop_instance_uid: String,
    /// Study Instance UID.
    study_uid: String,
    /// `IN PROGRESS`, `COMPLETED` or `DISCONTINUED`; the last two are final.
    status: String,
    /// Anything more, kept with the step.
    attributes: Option<serde_json::Map<String, Value>>,
    /// Accession number of the order.
    accession_number: Option<String>,
    /// Patient ID.
    patient_id: Option<String>,
    /// Patient's name in DICOM form, `Family^Given`.
    patient_name: Option<String>,
    /// Modality, such as `CT`.
    modality: Option<String>,
    /// AE title of the station.
    station_aet: Option<String>,
    /// Start of the step, ISO 8601.
    started: Option<String>,
    /// End of the step, ISO 8601.
    ended: Option<String>,
}

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
struct Answer {
    /// Whether the step was taken.
    success: bool,
    /// The session of this MPPS: the same for every message with its SOP Instance UID.
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<Uuid>,
    /// Why not, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// What was odd, but blocked nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Hilum MPPS", description = "Modality Performed Procedure Steps as JSON."),
    paths(ingest),
    components(schemas(PerformedStep, Answer))
)]
struct Description;

/// Report a performed procedure step.
#[utoipa::path(
    post,
    tag = "MPPS",
    path = "/ingest",
    request_body(content = PerformedStep, content_type = "application/json"),
    params(("X-API-Key" = Option<String>, Header, description = "API key with scope ingest/mpps")),
    responses(
        (status = 200, description = "durable", body = Answer),
        (status = 400, description = "not understood, must not be repeated unchanged", body = Answer),
        (status = 401, description = "no or unknown key", body = Answer),
        (status = 403, description = "the key lacks the scope", body = Answer),
        (status = 409, description = "the step is final, or belongs to another study or patient, or the patient is not clear", body = Answer),
        (status = 503, description = "not accepted now, send again", body = Answer),
    )
)]
async fn ingest(
    State(door): State<Arc<Door>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !caller.has_scope(SCOPE) {
        return refuse(StatusCode::FORBIDDEN, &missing_scope(SCOPE.name()));
    }
    if !is_json(&headers) {
        let issue = Issue::error(IssueCode::NotSupported, "send application/json or application/dicom+json");
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, &issue);
    }
    // read only for the keys; what the step means is decided by the rule tables
    let (step, unreadable) = match json::parse(&body, &door.limits) {
        Ok(step) => (step, None),
        Err(issue) => (Value::Null, Some(issue)),
    };
    let session = step_uid(&step).map(|uid| session_id(caller.site.id(), uid));
    let submission = submission(&caller, session, body);
    let receipt = match unreadable {
        Some(issue) => door.intake.reject(submission, vec![issue]).await,
        None => door.intake.accept(submission).await,
    };
    answer(receipt, session)
}

fn submission(caller: &Caller, session: Option<Uuid>, body: Bytes) -> Submission {
    Submission {
        site: caller.site.clone(),
        source: Source {
            listener: caller.listener.clone(),
            peer: Some(caller.peer),
            identity: caller.key_id.as_ref().map(ToString::to_string),
            ..Source::default()
        },
        payload: Payload::Mpps(body.clone()),
        received: hilum_intake::now(),
        sha256: hilum_intake::sha256(&body),
        original: Some(body),
        content_type: "application/json",
        // no duplicate key: the step's own state decides what a repeat means
        control: None,
        reply: Some(Arc::new(move |verdict| render(verdict, session))),
    }
}

fn answer(receipt: Receipt, session: Option<Uuid>) -> Response {
    match receipt {
        Receipt::Accepted(Accepted { commit, issues }) => {
            let body = commit.answer.unwrap_or_else(|| render(&Verdict::Accepted(&issues), session));
            ([(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        Receipt::Rejected(issues) => {
            // it says something else than what is stored: the step is final, or is another study's or patient's, or it is unclear whose it is
            let contradicts = |issue: &Issue| {
                issue.rejects()
                    && matches!(issue.code, IssueCode::Conflict | IssueCode::Duplicate | IssueCode::NotFound)
            };
            let conflict = issues.iter().any(contradicts);
            let status = if conflict { StatusCode::CONFLICT } else { StatusCode::BAD_REQUEST };
            let body = render(&Verdict::Rejected(&issues), session);
            (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        Receipt::Deferred(_) => {
            let issue = Issue::error(IssueCode::Transient, "not accepted now, send again");
            let mut response = refuse(StatusCode::SERVICE_UNAVAILABLE, &issue);
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, header::HeaderValue::from_static(RETRY_AFTER_SECONDS));
            response
        }
    }
}

fn render(verdict: &Verdict<'_>, session: Option<Uuid>) -> Bytes {
    let answer = match verdict {
        Verdict::Accepted(issues) => Answer {
            success: true,
            session_id: session,
            error: None,
            warnings: issues.iter().map(sentence).collect(),
        },
        Verdict::Rejected(issues) => Answer {
            success: false,
            session_id: None,
            error: Some(
                issues.iter().filter(|issue| issue.rejects()).map(sentence).collect::<Vec<_>>().join("; "),
            ),
            warnings: Vec::new(),
        },
    };
    serde_json::to_vec(&answer).unwrap_or_default().into()
}

fn sentence(issue: &Issue) -> String {
    match &issue.location {
        Some(location) => format!("{location}: {}", issue.diagnostics),
        None => issue.diagnostics.clone(),
    }
}

fn refuse(status: StatusCode, issue: &Issue) -> Response {
    let answer = Answer {
        success: false,
        session_id: None,
        error: Some(issue.diagnostics.clone()),
        warnings: Vec::new(),
    };
    (status, Json(answer)).into_response()
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json") || essence.eq_ignore_ascii_case("application/dicom+json")
}

fn step_uid(step: &Value) -> Option<&str> {
    step.get("sop_instance_uid").and_then(Value::as_str).or_else(|| first_value(step, SOP_INSTANCE_UID))
}

fn first_value<'a>(step: &'a Value, tag: &str) -> Option<&'a str> {
    step.get(tag)?.get("Value")?.get(0)?.as_str()
}

/// The session of an MPPS: a name-based UUID (RFC 9562 version 5) of site and SOP Instance UID.
fn session_id(site: &str, uid: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{site}/{uid}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_step_has_one_session_and_sites_do_not_share_it() {
        assert_eq!(session_id("a", "1.2.3"), session_id("a", "1.2.3"));
        assert_ne!(session_id("a", "1.2.3"), session_id("b", "1.2.3"));
    }

    #[test]
    fn both_forms_name_their_step() {
        let short = serde_json::json!({ "sop_instance_uid": "1.2", "status": "COMPLETED" });
        let dicom = serde_json::json!({ "00080018": { "vr": "UI", "Value": ["1.2"] }, "00400252": { "vr": "CS", "Value": ["COMPLETED"] } });
        for step in [short, dicom] {
            assert_eq!(step_uid(&step), Some("1.2"));
        }
    }

    #[test]
    fn an_error_names_the_place() {
        let issues = [Issue::error(IssueCode::Required, "is required").at("study_uid")];
        let body = render(&Verdict::Rejected(&issues), None);
        assert_eq!(body, r#"{"success":false,"error":"study_uid: is required"}"#);
    }
}

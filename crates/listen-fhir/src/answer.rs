//! Answers: headers, bodies, refusals.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use hilum_fhir::issue::operation_outcome;
use hilum_fhir::{Issue, IssueCode, Timestamp};
use hilum_intake::Receipt;
use hilum_intake::store::{Error, ErrorKind, Version};

pub(crate) const FHIR_JSON: &str = "application/fhir+json";
const RETRY_AFTER_SECONDS: &str = "2";

/// Why a request is not done: status, issues, and headers that go with the status.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) issues: Vec<Issue>,
    allow: Option<&'static str>,
    etag: Option<u64>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, issue: Issue) -> Self {
        Self::with(status, vec![issue])
    }

    pub(crate) fn with(status: StatusCode, issues: Vec<Issue>) -> Self {
        Self { status, issues, allow: None, etag: None }
    }

    pub(crate) fn allowing(mut self, methods: &'static str) -> Self {
        self.allow = Some(methods);
        self
    }

    /// A deletion answers with the ETag of its version.
    pub(crate) fn of_version(mut self, version: u64) -> Self {
        self.etag = Some(version);
        self
    }
}

/// What the store refused, as HTTP says it.
impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let costly = error
            .issues
            .iter()
            .any(|i| matches!(i.code, IssueCode::TooCostly | IssueCode::Value | IssueCode::Invalid));
        let status = match error.kind {
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Precondition if costly => StatusCode::BAD_REQUEST,
            ErrorKind::Precondition => StatusCode::PRECONDITION_FAILED,
            ErrorKind::Contradiction => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Gone => StatusCode::GONE,
            ErrorKind::Full => StatusCode::INSUFFICIENT_STORAGE,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        };
        if error.kind.is_ours() {
            tracing::warn!(%error, "a request was deferred");
        }
        let issues = match error.kind.is_ours() || error.issues.is_empty() {
            true => vec![Issue::error(IssueCode::Transient, "not possible now, send again")],
            false => error.issues,
        };
        Self::with(status, issues)
    }
}

/// The refusal of a receipt that is not `Accepted`.
pub(crate) fn of_receipt(receipt: Receipt) -> Result<hilum_intake::Accepted, Refusal> {
    match receipt {
        Receipt::Accepted(accepted) => Ok(accepted),
        Receipt::Deferred(error) => Err(error.into()),
        Receipt::Rejected(issues) => {
            let code = issues.iter().find(|i| i.rejects()).map_or(IssueCode::Processing, |i| i.code);
            let status = match code {
                IssueCode::MultipleMatches => StatusCode::PRECONDITION_FAILED,
                IssueCode::Conflict if issues.iter().any(|i| i.diagnostics.contains("If-")) => {
                    StatusCode::PRECONDITION_FAILED
                }
                IssueCode::Conflict => StatusCode::CONFLICT,
                IssueCode::NotFound => StatusCode::PRECONDITION_FAILED,
                IssueCode::Invalid | IssueCode::Value | IssueCode::TooCostly => StatusCode::BAD_REQUEST,
                _ => StatusCode::UNPROCESSABLE_ENTITY,
            };
            Err(Refusal::with(status, issues))
        }
    }
}

pub(crate) fn refuse(refusal: Refusal) -> Response<Body> {
    let body = operation_outcome(&refusal.issues).to_string();
    let mut response = json(refusal.status, body.into());
    let headers = response.headers_mut();
    if let Some(methods) = refusal.allow {
        headers.insert(header::ALLOW, HeaderValue::from_static(methods));
    }
    if let Some(version) = refusal.etag {
        headers.insert(header::ETAG, etag(version));
    }
    if matches!(
        refusal.status,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE | StatusCode::TOO_MANY_REQUESTS
    ) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    }
    common_headers(&mut response);
    response
}

pub(crate) fn json(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(FHIR_JSON));
    response
}

/// An answer about one version: ETag and Last-Modified, and the time as it is for an entry of a Bundle.
pub(crate) fn of_version(
    status: StatusCode,
    version: u64,
    last_updated: Timestamp,
    body: Bytes,
) -> Response<Body> {
    let mut response = if body.is_empty() { empty(status) } else { json(status, body) };
    response.extensions_mut().insert(last_updated);
    let headers = response.headers_mut();
    headers.insert(header::ETAG, etag(version));
    if let Ok(value) = HeaderValue::from_str(&http_date(last_updated)) {
        headers.insert(header::LAST_MODIFIED, value);
    }
    response
}

pub(crate) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

pub(crate) fn allow(status: StatusCode, methods: &'static str) -> Response<Body> {
    let mut response = empty(status);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(methods));
    response
}

pub(crate) fn common_headers(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding, Prefer, Origin"));
}

pub(crate) fn etag(version: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("W/\"{version}\"")).unwrap_or(HeaderValue::from_static("W/\"0\""))
}

/// RFC 9110 section 5.6.7, whole seconds, rounded down.
pub(crate) fn http_date(at: Timestamp) -> String {
    at.to_jiff().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// 404 or 410 for what is not there.
pub(crate) fn absent(version: Option<&Version>) -> Refusal {
    match version {
        None => Refusal::new(
            StatusCode::NOT_FOUND,
            Issue::error(IssueCode::NotFound, "there is no such resource"),
        ),
        Some(deletion) => {
            let issue = Issue::error(IssueCode::Deleted, "the resource was deleted");
            Refusal::new(StatusCode::GONE, issue).of_version(deletion.version)
        }
    }
}

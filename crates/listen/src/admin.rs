//! `/admin/submissions`: what came in, what was answered and why, and doing it again; for keys with the scope `admin/submissions`.
//! `/admin/studies`: removing a study with its images; for keys with the scope `admin/studies`.
//! `/admin/deliveries`: what waits for each Subscription, and passing over one that its receiver refuses; for keys with the scope `admin/deliveries`.
//!
//! It shows what was sent, patients' data too. Everything is of the key's own site.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hilum_fhir::issue::operation_outcome;
use hilum_fhir::{Issue, IssueCode};
use hilum_intake::replay::NoReplay;
use hilum_intake::store::{Error, Scope, SubmissionFilter};
use hilum_intake::{Intake, PassedOver, Receipt, now, view};
use serde::Deserialize;
use serde_json::Value;
use tokio_util::io::ReaderStream;
use utoipa::{IntoParams, OpenApi};

use crate::{Caller, missing_scope};

/// What a key needs to see and replay submissions.
const SUBMISSIONS: Scope = Scope::Submissions;
/// What a key needs to remove studies.
const STUDIES: Scope = Scope::Studies;
/// What a key needs to see and pass over deliveries.
const DELIVERIES: Scope = Scope::Deliveries;
const COUNT_DEFAULT: u32 = 50;

/// The routes of the admin surface.
pub fn router(intake: Intake) -> Router {
    Router::new()
        .route("/admin/submissions", get(list))
        .route("/admin/submissions/{id}", get(show))
        .route("/admin/submissions/{id}/original", get(original))
        .route("/admin/submissions/{id}/replay", post(replay))
        .route("/admin/studies/{uid}", get(study).delete(delete_study))
        .route("/admin/deliveries", get(deliveries))
        .route("/admin/deliveries/{id}/{number}/pass-over", post(pass_over))
        .with_state(Arc::new(intake))
}

/// The OpenAPI description of the admin surface.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Hilum administration",
        description = "What came in, and doing it again; removing studies; what waits to be delivered."
    ),
    paths(list, show, original, replay, study, delete_study, deliveries, pass_over)
)]
struct Description;

/// Which submissions are listed: all that is given has to hold.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Only those somebody should look at.
    attention: bool,
    /// Only rejected ones.
    rejected: bool,
    /// Address of the peer, its identity, or a part of it (MSH-3, MSH-4).
    peer: Option<String>,
    /// Control id or SOP Instance UID.
    control: Option<String>,
    /// `90m`, `12h`, `3d`, a date, or a time.
    since: Option<String>,
    /// `v2`, `v3`, `mpps`, `dicom`, `fhir`, or `ADT^A08`, `ADT`, `C-STORE CT`.
    kind: Option<String>,
    /// Name of the listener, such as `mllp-3000`.
    listener: Option<String>,
    /// Only those with a smaller number: `next` of the page before.
    before: Option<u64>,
    /// How many, at most 500.
    count: Option<u32>,
}

/// Whether a replay is committed.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Doing {
    /// Commit it; else only what it would change is answered.
    commit: bool,
}

/// List submissions, newest first.
#[utoipa::path(
    get, tag = "Administration", path = "/admin/submissions", params(Wanted),
    responses(
        (status = 200, description = "`submissions`, and `next` where the next page begins", body = Value),
        (status = 400, description = "a parameter is not understood"),
        (status = 403, description = "the key lacks the scope admin/submissions"),
    )
)]
async fn list(
    State(intake): State<Arc<Intake>>,
    Extension(caller): Extension<Caller>,
    uri: Uri,
) -> Result<Response, Refused> {
    admit(&caller, SUBMISSIONS)?;
    let wanted: Wanted = parameters(&uri)?;
    let zone = hilum_intake::context_of(caller.site.settings(), now()).zone;
    let since = match &wanted.since {
        Some(text) => Some(view::since(text, &zone, now()).ok_or_else(|| {
            Refused::bad("since", "give 90m, 12h, 3d, a date (2024-01-31) or a time (2024-01-31T08:00)")
        })?),
        None => None,
    };
    let mut filter = SubmissionFilter {
        before: wanted.before,
        since,
        accepted: wanted.rejected.then_some(false),
        attention: wanted.attention,
        control: wanted.control,
        peer: wanted.peer,
        listener: wanted.listener,
        count: wanted.count.unwrap_or(COUNT_DEFAULT),
        ..SubmissionFilter::default()
    };
    if let Some(kind) = &wanted.kind {
        view::set_kind(&mut filter, kind);
    }
    let page = intake.store().list_submissions(&caller.site, filter).await?;
    Ok(json(&view::page(&page)))
}

/// Show a submission: answer, changes, issues, what no rule consumed, deliveries.
#[utoipa::path(
    get, tag = "Administration", path = "/admin/submissions/{id}",
    params(("id" = u64, Path, description = "number of the submission")),
    responses(
        (status = 200, description = "everything but the original", body = Value),
        (status = 403, description = "the key lacks the scope admin/submissions"),
        (status = 404, description = "there is no such submission"),
    )
)]
async fn show(
    State(intake): State<Arc<Intake>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<u64>,
) -> Result<Response, Refused> {
    admit(&caller, SUBMISSIONS)?;
    let told = intake.show(&caller.site, id).await?.ok_or(NoReplay::Unknown(id))?;
    Ok(json(&told))
}

/// The bytes of a submission as they came in.
#[utoipa::path(
    get, tag = "Administration", path = "/admin/submissions/{id}/original",
    params(("id" = u64, Path, description = "number of the submission")),
    responses(
        (status = 200, description = "the bytes, in the type they came in"),
        (status = 403, description = "the key lacks the scope admin/submissions"),
        (status = 404, description = "there is no such submission"),
        (status = 409, description = "its original is not kept"),
    )
)]
async fn original(
    State(intake): State<Arc<Intake>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<u64>,
) -> Result<Response, Refused> {
    admit(&caller, SUBMISSIONS)?;
    let store = intake.store();
    let row = store.submission(&caller.site, id).await?.ok_or(NoReplay::Unknown(id))?;
    let body = match (&row.bytes, &row.blob) {
        (Some(bytes), _) => Body::from(bytes.clone()),
        (None, Some(blob)) => match store.blob(&caller.site, blob).await? {
            Some(blob) => Body::from_stream(ReaderStream::new(blob.reader)),
            None => return Err(Refused::from(NoReplay::gone(row.kind))),
        },
        (None, None) => return Err(Refused::from(NoReplay::gone(row.kind))),
    };
    let kind = row.content_type.and_then(|kind| HeaderValue::from_str(&kind).ok());
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers
        .insert(header::CONTENT_TYPE, kind.unwrap_or(HeaderValue::from_static("application/octet-stream")));
    // what a sender wrote is not shown as a page of ours
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    Ok(response)
}

/// What a submission would change by today's rules; with `commit=true` it is done, as a new submission that names this one.
#[utoipa::path(
    post, tag = "Administration", path = "/admin/submissions/{id}/replay",
    params(("id" = u64, Path, description = "number of the submission"), Doing),
    responses(
        (status = 200, description = "what would change, element by element; `committed` is the new submission", body = Value),
        (status = 403, description = "the key lacks the scope admin/submissions"),
        (status = 404, description = "there is no such submission"),
        (status = 409, description = "its original is not kept, or cannot be read again"),
        (status = 422, description = "today's rules reject it too; nothing was committed", body = Value),
        (status = 503, description = "not accepted now, send again"),
    )
)]
async fn replay(
    State(intake): State<Arc<Intake>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<u64>,
    uri: Uri,
) -> Result<Response, Refused> {
    admit(&caller, SUBMISSIONS)?;
    let doing: Doing = parameters(&uri)?;
    if !doing.commit {
        return Ok(json(&view::replay(&intake.foretell(&caller.site, id).await?, None)));
    }
    match intake.replay(&caller.site, id).await? {
        (replay, Some(Receipt::Accepted(accepted))) => {
            Ok(json(&view::replay(&replay, Some(accepted.commit.submission))))
        }
        (_, Some(Receipt::Deferred(error))) => Err(error.into()),
        (mut replay, Some(Receipt::Rejected(issues))) => {
            replay.issues.extend(issues);
            Ok((StatusCode::UNPROCESSABLE_ENTITY, json(&view::replay(&replay, None))).into_response())
        }
        (replay, None) => {
            Ok((StatusCode::UNPROCESSABLE_ENTITY, json(&view::replay(&replay, None))).into_response())
        }
    }
}

/// What there is under a Study Instance UID: studies and images.
#[utoipa::path(
    get, tag = "Administration", path = "/admin/studies/{uid}",
    params(("uid" = String, Path, description = "Study Instance UID")),
    responses(
        (status = 200, description = "`studies` and `images`; 0 when there are none", body = Value),
        (status = 403, description = "the key lacks the scope admin/studies"),
    )
)]
async fn study(
    State(intake): State<Arc<Intake>>,
    Extension(caller): Extension<Caller>,
    Path(uid): Path<String>,
) -> Result<Response, Refused> {
    admit(&caller, STUDIES)?;
    let found = intake.store().study_contents(&caller.site, &uid).await?;
    Ok(json(&view::study(&uid, &found)))
}

/// Remove a study with its images, performed steps, ImagingStudy and Procedures for good.
#[utoipa::path(
    delete, tag = "Administration", path = "/admin/studies/{uid}",
    params(("uid" = String, Path, description = "Study Instance UID")),
    responses(
        (status = 200, description = "`studies` and `images` removed, and `submission` that says who did it; 0 and none when there are none", body = Value),
        (status = 403, description = "the key lacks the scope admin/studies"),
        (status = 503, description = "not possible now, ask again"),
    )
)]
async fn delete_study(
    State(intake): State<Arc<Intake>>,
    Extension(caller): Extension<Caller>,
    Path(uid): Path<String>,
) -> Result<Response, Refused> {
    admit(&caller, STUDIES)?;
    let who = caller.key_id.as_deref().unwrap_or("nobody known (a listener without keys)");
    let removed = intake.store().delete_study(&caller.site, &uid, who).await?;
    Ok(json(&view::study(&uid, &removed)))
}

/// What waits for each Subscription.
#[utoipa::path(
    get, tag = "Administration", path = "/admin/deliveries",
    responses(
        (status = 200, description = "`destinations`: each with its state, owner, error, how many deliveries wait, and the first of them", body = Value),
        (status = 403, description = "the key lacks the scope admin/deliveries"),
    )
)]
async fn deliveries(
    State(intake): State<Arc<Intake>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Refused> {
    admit(&caller, DELIVERIES)?;
    let queues = intake.store().queues(&caller.site).await?;
    let destinations: Vec<Value> = queues.iter().map(view::queue).collect();
    Ok(json(&serde_json::json!({ "destinations": destinations })))
}

/// Give up the delivery that a Subscription sends next, for good; a Subscription in error is asked for again.
#[utoipa::path(
    post, tag = "Administration", path = "/admin/deliveries/{id}/{number}/pass-over",
    params(("id" = String, Path, description = "id of the Subscription"), ("number" = u64, Path, description = "number of the delivery")),
    responses(
        (status = 200, description = "the destination as it is now", body = Value),
        (status = 403, description = "the key lacks the scope admin/deliveries"),
        (status = 404, description = "there is no such Subscription"),
        (status = 409, description = "another delivery is sent next"),
        (status = 503, description = "not possible now, ask again"),
    )
)]
async fn pass_over(
    State(intake): State<Arc<Intake>>,
    Extension(caller): Extension<Caller>,
    Path((id, number)): Path<(String, u64)>,
) -> Result<Response, Refused> {
    admit(&caller, DELIVERIES)?;
    let who = caller.key_id.as_deref().unwrap_or("nobody known (a listener without keys)");
    let done = hilum_intake::pass_over(&intake, &caller.site, &id, number, who).await?;
    match done {
        PassedOver::Done(queue) => Ok(json(&view::queue(&queue))),
        PassedOver::Unknown => Err(Refused(
            StatusCode::NOT_FOUND,
            Issue::error(IssueCode::NotFound, "there is no such Subscription"),
        )),
        PassedOver::NotNext => {
            let text = "another delivery is sent next; GET /admin/deliveries shows which";
            Err(Refused(StatusCode::CONFLICT, Issue::error(IssueCode::Conflict, text)))
        }
    }
}

fn admit(caller: &Caller, scope: Scope) -> Result<(), Refused> {
    if caller.has_scope(scope) {
        Ok(())
    } else {
        Err(Refused(StatusCode::FORBIDDEN, missing_scope(scope.name())))
    }
}

fn parameters<T: for<'d> Deserialize<'d>>(uri: &Uri) -> Result<T, Refused> {
    let read = Query::<T>::try_from_uri(uri);
    read.map(|Query(read)| read).map_err(|_| {
        Refused::bad(
            "http",
            "a parameter is unknown or has no value of its kind; /api/documentation lists them",
        )
    })
}

fn json(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], format!("{value:#}\n")).into_response()
}

/// Why not: status and issue.
struct Refused(StatusCode, Issue);

impl Refused {
    fn bad(place: &str, text: &str) -> Self {
        Self(StatusCode::BAD_REQUEST, Issue::error(IssueCode::Value, text).at(place))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let outcome = operation_outcome(&[self.1]).to_string();
        (self.0, [(header::CONTENT_TYPE, "application/fhir+json")], outcome).into_response()
    }
}

impl From<NoReplay> for Refused {
    fn from(why: NoReplay) -> Self {
        let text = why.to_string();
        match why {
            NoReplay::Unknown(_) => Self(StatusCode::NOT_FOUND, Issue::error(IssueCode::NotFound, text)),
            NoReplay::NotPossible(_) => Self(StatusCode::CONFLICT, Issue::error(IssueCode::Conflict, text)),
            NoReplay::Store(error) => error.into(),
        }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        tracing::warn!(%error, "a question of administration was not answered");
        let issue = Issue::error(IssueCode::Transient, "not possible now, ask again");
        Self(StatusCode::SERVICE_UNAVAILABLE, issue)
    }
}

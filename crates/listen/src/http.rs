//! HTTP/1.1 and HTTP/2 by hyper, with every limit in force before a handler sees a request.
//!
//! Order of checks: preflight, target length, credential, body size and inflation, then the handler. Handlers get a complete body.

use std::future::Future;
use std::io::Read;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use hilum_fhir::{Issue, IssueCode, issue::operation_outcome};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::credentials::Refusal;
use crate::limits::Http as Limits;
use crate::{Budget, Cors, Credentials, Front, Peer, Session, Share, Stream};

/// ALPN names of an HTTP listener.
pub const ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];
const RETRY_AFTER_SECONDS: &str = "2";
const ENVELOPE_MPPS: [&str; 2] = ["/ingest", "/modality-performed-procedure-steps"];
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// An HTTP door: a router behind credentials and limits.
pub struct HttpSession {
    router: Router,
    credentials: Credentials,
    limits: Limits,
    bodies: Budget,
    front: Front,
    cors: Option<Cors>,
}

impl HttpSession {
    /// A door that callers reach directly, and scripts of other origins not at all.
    pub fn new(router: Router, credentials: Credentials, limits: Limits) -> Self {
        let bodies = Budget::new(limits.bodies_bytes_max);
        Self { router, credentials, limits, bodies, front: Front::default(), cors: None }
    }

    /// The door behind what stands in front of it.
    #[must_use]
    pub fn behind(self, front: Front) -> Self {
        Self { front, ..self }
    }

    /// The door with the origins whose scripts may use it.
    #[must_use]
    pub fn with_cors(self, cors: Option<Cors>) -> Self {
        Self { cors, ..self }
    }

    fn connection(&self) -> auto::Builder<TokioExecutor> {
        let limits = &self.limits;
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_millis(limits.header_timeout_ms))
            .max_headers(limits.headers_max)
            .max_buf_size(limits.headers_bytes_max.max(8192));
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams_max)
            .max_header_list_size(limits.header_list_bytes_max)
            .max_pending_accept_reset_streams(limits.pending_resets_max)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(20));
        builder
    }

    async fn answer(&self, request: Request<Incoming>, peer: &Peer) -> Response<Body> {
        let Some(cors) = &self.cors else { return self.answered(request, peer).await };
        let envelope = Envelope::of(request.uri().path());
        let answered = cors.around(request, |request| self.answered(request, peer)).await;
        answered.unwrap_or_else(|refused| refusal(envelope, &refused))
    }

    async fn answered(&self, request: Request<Incoming>, peer: &Peer) -> Response<Body> {
        let request_id = request_id(request.headers());
        let envelope = Envelope::of(request.uri().path());
        let mut response = match self.handle(request, peer).await {
            Ok(response) => response,
            Err(refused) => refusal(envelope, &refused),
        };
        response.headers_mut().entry(REQUEST_ID).or_insert(request_id);
        response
    }

    async fn handle(&self, request: Request<Incoming>, peer: &Peer) -> Result<Response<Body>, Refusal> {
        let (mut parts, body) = request.into_parts();
        let target_bytes = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
        if target_bytes > self.limits.uri_bytes_max {
            return Err(too_long(StatusCode::URI_TOO_LONG, "the request target", self.limits.uri_bytes_max));
        }
        let called = self.front.called(&parts, peer);
        let caller = self.credentials.check(&parts, called.caller, &peer.listener, hilum_intake::now())?;
        if let Some(caller) = caller {
            parts.extensions.insert(caller);
        }
        parts.extensions.insert(called);
        // held until the answer is there: a handler works on the body
        let mut share = self.bodies.share();
        let body = self.body(&mut parts.headers, body, &mut share).await?;
        let deadline = Duration::from_millis(self.limits.request_timeout_ms);
        let handled =
            AssertUnwindSafe(self.router.clone().oneshot(Request::from_parts(parts, Body::from(body))))
                .catch_unwind();
        match tokio::time::timeout(deadline, handled).await {
            Ok(Ok(Ok(response))) => Ok(response),
            Ok(Ok(Err(never))) => match never {},
            Ok(Err(_panic)) => {
                metrics::counter!("hilum_panics_total", "place" => peer.listener.to_string()).increment(1);
                tracing::error!(listener = %peer.listener, "a request panicked");
                Err((StatusCode::INTERNAL_SERVER_ERROR, Issue::error(IssueCode::Exception, "internal error")))
            }
            Err(_elapsed) => Err((
                StatusCode::SERVICE_UNAVAILABLE,
                Issue::error(IssueCode::Timeout, "the request took too long, send again"),
            )),
        }
    }

    /// The complete body within the limits, inflated when it was sent with `Content-Encoding: gzip`.
    async fn body(
        &self,
        headers: &mut HeaderMap,
        mut body: Incoming,
        share: &mut Share,
    ) -> Result<Bytes, Refusal> {
        let limit = self.limits.body_bytes_max;
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.parse::<u64>().ok());
        if announced.is_some_and(|length| length > limit as u64) {
            return Err(too_long(StatusCode::PAYLOAD_TOO_LARGE, "the body", limit));
        }
        let idle = Duration::from_millis(self.limits.body_idle_timeout_ms);
        let mut first: Option<Bytes> = None;
        let mut rest = BytesMut::new();
        loop {
            let frame = tokio::time::timeout(idle, body.frame()).await.map_err(|_| {
                (StatusCode::REQUEST_TIMEOUT, Issue::error(IssueCode::Timeout, "the body stopped arriving"))
            })?;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|_| {
                (StatusCode::BAD_REQUEST, Issue::error(IssueCode::Incomplete, "the body broke off"))
            })?;
            let Ok(data) = frame.into_data() else { continue };
            let length = first.as_ref().map_or(0, Bytes::len) + rest.len() + data.len();
            if length > limit {
                return Err(too_long(StatusCode::PAYLOAD_TOO_LARGE, "the body", limit));
            }
            self.hold(share, length)?;
            match &first {
                None => first = Some(data),
                Some(head) => {
                    if rest.is_empty() {
                        rest.extend_from_slice(head);
                        first = Some(Bytes::new());
                    }
                    rest.extend_from_slice(&data);
                }
            }
        }
        let bytes = if rest.is_empty() { first.unwrap_or_default() } else { rest.freeze() };
        self.inflated(headers, bytes, share)
    }

    fn inflated(&self, headers: &mut HeaderMap, bytes: Bytes, share: &mut Share) -> Result<Bytes, Refusal> {
        let Some(encoding) = headers.remove(header::CONTENT_ENCODING) else { return Ok(bytes) };
        match encoding.to_str().unwrap_or_default() {
            "identity" => return Ok(bytes),
            "gzip" | "x-gzip" => {}
            _ => {
                let issue = Issue::error(
                    IssueCode::NotSupported,
                    "the content encoding is not supported, send gzip or identity",
                );
                return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, issue));
            }
        }
        let limit = self
            .limits
            .body_inflated_bytes_max
            .min(bytes.len().saturating_mul(self.limits.inflate_ratio_max));
        self.hold(share, bytes.len() + limit)?;
        let mut inflated = Vec::new();
        let mut reader = flate2::read::MultiGzDecoder::new(&bytes[..]).take(limit as u64 + 1);
        reader.read_to_end(&mut inflated).map_err(|_| {
            (StatusCode::BAD_REQUEST, Issue::error(IssueCode::Structure, "the body is not gzip"))
        })?;
        if inflated.len() > limit {
            return Err(too_long(StatusCode::PAYLOAD_TOO_LARGE, "the inflated body", limit));
        }
        headers.remove(header::CONTENT_LENGTH);
        self.hold(share, inflated.len())?;
        Ok(inflated.into())
    }

    /// Notes what a body holds.
    fn hold(&self, share: &mut Share, bytes: usize) -> Result<(), Refusal> {
        if share.hold(bytes) {
            return Ok(());
        }
        metrics::counter!("hilum_http_bodies_refused_total").increment(1);
        let limit = self.bodies.bytes_max();
        let text = format!(
            "the bodies of all requests of this listener hold more than {limit} bytes (limits.http.bodies_bytes_max), send again"
        );
        Err((StatusCode::SERVICE_UNAVAILABLE, Issue::error(IssueCode::Throttled, text)))
    }
}

impl Session for HttpSession {
    fn run(
        self: Arc<Self>,
        stream: Stream,
        peer: Peer,
        shutdown: CancellationToken,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let builder = self.connection();
            let service = service_fn(|request| {
                let door = self.clone();
                let peer = peer.clone();
                async move { Ok::<_, std::convert::Infallible>(door.answer(request, &peer).await) }
            });
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            let mut draining = false;
            loop {
                tokio::select! {
                    done = connection.as_mut() => {
                        if let Err(error) = done {
                            tracing::debug!(listener = %peer.listener, %error, "http connection ended");
                        }
                        return;
                    }
                    () = shutdown.cancelled(), if !draining => {
                        draining = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
        })
    }
}

fn too_long(status: StatusCode, what: &str, limit: usize) -> Refusal {
    (status, Issue::error(IssueCode::TooLong, format!("{what} is larger than {limit} bytes")))
}

/// A client's request id of 1 to 64 harmless characters, or a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(REQUEST_ID).filter(|value| {
        let bytes = value.as_bytes();
        (1..=64).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
    });
    given.cloned().unwrap_or_else(|| {
        HeaderValue::from_str(&uuid::Uuid::now_v7().to_string()).unwrap_or(HeaderValue::from_static("none"))
    })
}

/// The words in which a surface refuses.
#[derive(Clone, Copy)]
enum Envelope {
    /// `success:false`
    Mpps,
    /// An OperationOutcome.
    Fhir,
}

impl Envelope {
    fn of(path: &str) -> Self {
        if ENVELOPE_MPPS.iter().any(|prefix| path.starts_with(prefix)) { Self::Mpps } else { Self::Fhir }
    }
}

/// A refusal in the words of the surface.
fn refusal(envelope: Envelope, (status, issue): &Refusal) -> Response<Body> {
    let status = *status;
    let (content_type, body) = match envelope {
        Envelope::Mpps => {
            ("application/json", serde_json::json!({ "success": false, "error": issue.diagnostics }))
        }
        Envelope::Fhir => ("application/fhir+json", operation_outcome(std::slice::from_ref(issue))),
    };
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("ApiKey realm=\"hilum\", header=\"X-API-Key\""),
        );
    }
    if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    }
    response
}

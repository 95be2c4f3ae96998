//! Pages of other origins whose scripts may use a listener (CORS, <https://fetch.spec.whatwg.org/#http-cors-protocol>).
//!
//! A browser asks first, without the key (a preflight), and shows a script only answers that name its origin, refusals too. Cookies are never
//! asked for: a script sends its key in a header, so a page can do nothing without one.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use axum::body::Body;
use axum::http::uri::Uri;
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use futures_util::FutureExt;
use hilum_fhir::{Issue, IssueCode};
use tower::{Layer, ServiceExt, service_fn};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::credentials::Refusal;
use crate::front::{NotUnderstood, authority, scheme};

/// Every origin.
const ANY: &str = "*";
/// How long a browser may remember the answer to a preflight.
const MAX_AGE: Duration = Duration::from_secs(3600);
const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
/// Headers that a script may send.
const REQUEST_HEADERS: [&str; 14] = [
    "accept",
    "authorization",
    "content-encoding",
    "content-type",
    "idempotency-key",
    "if-match",
    "if-modified-since",
    "if-none-exist",
    "if-none-match",
    "prefer",
    "soapaction",
    "x-api-key",
    "x-request-id",
    "x-requested-with",
];
/// Headers of an answer that a script may read, beside those that any may.
const ANSWER_HEADERS: [&str; 9] = [
    "allow",
    "content-disposition",
    "content-location",
    "etag",
    "last-modified",
    "location",
    "retry-after",
    "www-authenticate",
    "x-request-id",
];

/// The origins whose scripts may use a listener.
#[derive(Clone, Debug)]
pub struct Cors {
    /// Empty = every origin.
    origins: Vec<HeaderValue>,
    layer: CorsLayer,
}

impl Cors {
    /// From the key `cors_origins` of a listener; `None` when no page of another origin is served.
    ///
    /// # Errors
    /// An origin is not written as a browser sends it.
    pub fn new(origins: &[String]) -> Result<Option<Self>, NotUnderstood> {
        if origins.is_empty() {
            return Ok(None);
        }
        let is_any = origins.iter().any(|origin| origin == ANY);
        if is_any && origins.len() > 1 {
            let text = "cors_origins has \"*\" and others: write \"*\" alone, or each origin";
            return Err(NotUnderstood(text.to_owned()));
        }
        let listed = origins.iter().filter(|_| !is_any).map(|text| origin(text));
        let listed = listed.collect::<Result<Vec<HeaderValue>, _>>()?;
        let admitted = if is_any { AllowOrigin::any() } else { AllowOrigin::list(listed.clone()) };
        let layer = CorsLayer::new()
            .allow_origin(admitted)
            .allow_methods(METHODS)
            .allow_headers(REQUEST_HEADERS.map(HeaderName::from_static))
            .expose_headers(ANSWER_HEADERS.map(HeaderName::from_static))
            .max_age(MAX_AGE);
        Ok(Some(Self { origins: listed, layer }))
    }

    /// Whether every origin is served.
    pub fn is_any(&self) -> bool {
        self.origins.is_empty()
    }

    /// Answers a preflight, and says at every other answer which origin may see it.
    ///
    /// # Errors
    /// A preflight of an origin that is not served: the browser refuses the script either way, and who looks at the answer sees why.
    pub(crate) async fn around<B, F>(
        &self,
        request: Request<B>,
        mut answer: impl FnMut(Request<B>) -> F,
    ) -> Result<Response<Body>, Refusal>
    where
        F: Future<Output = Response<Body>>,
    {
        let is_preflight = is_preflight(&request);
        if is_preflight && !self.serves(&request) {
            let text =
                "scripts of this origin are not served; cors_origins of the listener names those that are";
            return Err((StatusCode::FORBIDDEN, Issue::error(IssueCode::Security, text)));
        }
        // the layer takes every OPTIONS for a preflight
        if request.method() == Method::OPTIONS && !is_preflight {
            return Ok(answer(request).await);
        }
        let answer = service_fn(|request| answer(request).map(Ok::<_, Infallible>));
        match self.layer.layer(answer).oneshot(request).await {
            Ok(response) => Ok(response),
            Err(never) => match never {},
        }
    }

    fn serves<B>(&self, request: &Request<B>) -> bool {
        let origin = request.headers().get(header::ORIGIN);
        self.is_any() || origin.is_some_and(|origin| self.origins.contains(origin))
    }
}

fn is_preflight<B>(request: &Request<B>) -> bool {
    let has = |name| request.headers().contains_key(name);
    request.method() == Method::OPTIONS && has(header::ORIGIN) && has(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// An origin as browsers send it (RFC 6454 section 6.2): scheme and host in lower case, a port only when it is not the one of the scheme.
fn origin(text: &str) -> Result<HeaderValue, NotUnderstood> {
    let parsed = text.parse::<Uri>().ok();
    let sent = parsed.as_ref().and_then(|uri| {
        let (scheme, host) = (scheme(uri.scheme_str()?)?, authority(uri.authority()?.as_str())?);
        let usual = if scheme == "https" { ":443" } else { ":80" };
        let is_plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
        (is_plain && !host.ends_with(usual)).then(|| format!("{scheme}://{host}"))
    });
    let value = sent.filter(|sent| sent == text).and_then(|sent| HeaderValue::from_str(&sent).ok());
    value.ok_or_else(|| {
        NotUnderstood(format!(
            "cors_origins {text:?} is no origin as browsers send it: write \"https://app.example\" or \"http://localhost:3000\", in lower case, \
             without path, closing slash or the usual port; or \"*\" alone where keys are required"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_as_browsers_send_them() {
        let cors =
            |origins: &[&str]| Cors::new(&origins.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert!(cors(&[]).unwrap().is_none());
        assert!(cors(&["*"]).unwrap().unwrap().is_any());
        let listed = cors(&["https://app.example", "http://localhost:3000", "http://[::1]:3000"]);
        assert!(!listed.unwrap().unwrap().is_any());
        for wrong in [
            "https://app.example/",
            "https://app.example/page",
            "https://App.example",
            "https://app.example:443",
            "https://*.example",
            "https://app.example:99999",
            "app.example",
            "null",
            "ftp://app.example",
            "",
        ] {
            let error = cors(&[wrong]).unwrap_err().to_string();
            assert!(error.contains("cors_origins") && error.contains("https://app.example"), "{error}");
        }
        assert!(cors(&["*", "https://app.example"]).is_err());
    }
}

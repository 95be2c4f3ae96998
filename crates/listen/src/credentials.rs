//! Who calls over HTTP: an API key, or nobody on a loopback listener with `auth = "none"`.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, Method, Uri, header, request};
use hilum_fhir::{Issue, IssueCode, Timestamp};
use hilum_intake::store::{Access, Scope, Site, Store};
use parking_lot::Mutex;

use crate::front::host;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Paths answered without a credential, on every surface.
const PUBLIC: [&str; 3] = ["/livez", "/readyz", "/.well-known/smart-configuration"];
const PUBLIC_PREFIX: &str = "/api/documentation";
/// Headers that proxies add, beside those of the prefix.
const OF_PROXIES: [&str; 3] = ["forwarded", "via", "x-real-ip"];
const OF_PROXIES_PREFIX: &str = "x-forwarded-";
const MINUTE_MICROS: i64 = 60_000_000;
/// Addresses remembered for throttling; beyond that the oldest minute is forgotten.
const PEERS_MAX: usize = 10_000;

/// How a listener knows its callers.
#[derive(Clone, Debug)]
pub enum Auth {
    /// `X-API-Key` on every request that is not public.
    Keys,
    /// Everybody acts for this site with every scope. Loopback listeners only.
    None(Site),
}

/// The authenticated caller of a request; an extension of every request that needs one.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Whose data it may touch.
    pub site: Site,
    /// Key id; `None` without authentication.
    pub key_id: Option<Arc<str>>,
    /// What it may do.
    pub access: Arc<Access>,
    /// Its address.
    pub peer: SocketAddr,
    /// Name of the listener.
    pub listener: Arc<str>,
}

/// Checks the credential of each request of one listener.
pub struct Credentials {
    store: Store,
    auth: Auth,
    failures_per_minute_max: u32,
    failures: Mutex<HashMap<IpAddr, (i64, u32)>>,
}

/// Why a request has no caller: status, issue.
pub(crate) type Refusal = (axum::http::StatusCode, Issue);

impl Credentials {
    /// For one listener.
    pub fn new(store: Store, auth: Auth, failures_per_minute_max: u32) -> Self {
        Self { store, auth, failures_per_minute_max, failures: Mutex::new(HashMap::new()) }
    }

    /// The caller, whose address is `peer`; `None` for public paths.
    pub(crate) fn check(
        &self,
        parts: &request::Parts,
        peer: SocketAddr,
        listener: &Arc<str>,
        now: Timestamp,
    ) -> Result<Option<Caller>, Refusal> {
        let request::Parts { method, uri, headers, .. } = parts;
        if let Auth::None(site) = &self.auth {
            local_only(parts)?;
            let caller = Caller {
                site: site.clone(),
                key_id: None,
                access: Arc::new(Access::everything()),
                peer,
                listener: listener.clone(),
            };
            return within_site(uri, caller).map(Some);
        }
        if is_public(method, uri.path()) {
            return Ok(None);
        }
        let caller = self.by_key(headers, peer, listener, now)?;
        within_site(uri, caller).map(Some)
    }

    fn by_key(
        &self,
        headers: &HeaderMap,
        peer: SocketAddr,
        listener: &Arc<str>,
        now: Timestamp,
    ) -> Result<Caller, Refusal> {
        use axum::http::StatusCode;
        let Some(presented) = presented(headers) else {
            let issue = Issue::error(
                IssueCode::Login,
                "send an api key in the X-API-Key header, or as `Authorization: Bearer`; `hilum key add` makes one",
            );
            return Err((StatusCode::UNAUTHORIZED, issue));
        };
        match self.store.control().authenticate(presented, now) {
            Ok(Some(who)) => Ok(Caller {
                site: who.site,
                key_id: Some(Arc::from(who.key_id)),
                access: who.access,
                peer,
                listener: listener.clone(),
            }),
            // a right key is served: behind a proxy others may come from the same address
            Ok(None) if self.throttled(peer.ip(), now) => {
                let text = "too many wrong keys from this address, wait a minute";
                Err((StatusCode::TOO_MANY_REQUESTS, Issue::error(IssueCode::Throttled, text)))
            }
            Ok(None) => {
                self.note_failure(peer.ip(), now);
                metrics::counter!("hilum_credentials_refused_total", "listener" => listener.to_string())
                    .increment(1);
                Err((
                    StatusCode::UNAUTHORIZED,
                    Issue::error(IssueCode::Login, "the api key is unknown, expired or revoked"),
                ))
            }
            Err(error) => {
                tracing::error!(%error, "credentials cannot be checked");
                Err((
                    StatusCode::SERVICE_UNAVAILABLE,
                    Issue::error(IssueCode::Transient, "credentials cannot be checked now, send again"),
                ))
            }
        }
    }

    fn throttled(&self, peer: IpAddr, now: Timestamp) -> bool {
        let failures = self.failures.lock();
        failures.get(&peer).is_some_and(|(since, count)| {
            now.micros() - since < MINUTE_MICROS && *count >= self.failures_per_minute_max
        })
    }

    fn note_failure(&self, peer: IpAddr, now: Timestamp) {
        let mut failures = self.failures.lock();
        if failures.len() >= PEERS_MAX {
            failures.retain(|_, (since, _)| now.micros() - *since < MINUTE_MICROS);
        }
        let entry = failures.entry(peer).or_insert((now.micros(), 0));
        if now.micros() - entry.0 >= MINUTE_MICROS {
            *entry = (now.micros(), 0);
        }
        entry.1 += 1;
    }
}

/// The key as it is sent: in a header of its own, or as a bearer token (RFC 6750 section 2.1).
fn presented(headers: &HeaderMap) -> Option<&str> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = || {
        let (scheme, token) = text(header::AUTHORIZATION)?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    };
    text(API_KEY).or_else(bearer).map(str::trim)
}

impl Caller {
    /// Whether it holds a scope that is compared as a whole.
    pub fn has_scope(&self, scope: Scope) -> bool {
        self.access.holds(scope)
    }
}

/// The issue for a missing scope: it names the scope.
pub fn missing_scope(scope: &str) -> Issue {
    Issue::error(IssueCode::Forbidden, format!("the credential lacks the scope {scope}"))
}

fn is_public(method: &Method, path: &str) -> bool {
    let reading = method == Method::GET || method == Method::HEAD || method == Method::OPTIONS;
    reading && (PUBLIC.contains(&path) || path.starts_with(PUBLIC_PREFIX) || is_metadata(path))
}

/// `/fhir/metadata`, `/baseR4/metadata`, `/site/{siteId}/fhir/metadata`.
fn is_metadata(path: &str) -> bool {
    path.strip_suffix("/metadata").is_some_and(|base| {
        let parts: Vec<&str> = base.split('/').collect();
        matches!(parts.as_slice(), ["", _] | ["", "site", _, "fhir"])
    })
}

/// A credential of one site on `/site/{other}/…` is refused, whether that site exists or not.
fn within_site(uri: &Uri, caller: Caller) -> Result<Caller, Refusal> {
    match uri.path().strip_prefix("/site/").and_then(|rest| rest.split('/').next()) {
        Some(site) if site != caller.site.id() => {
            let issue = Issue::error(IssueCode::Forbidden, "the credential is not one of this site");
            Err((axum::http::StatusCode::FORBIDDEN, issue))
        }
        _ => Ok(caller),
    }
}

/// Without authentication only this machine may ask, and no foreign page may make its browser ask (DNS rebinding, CSRF). What a proxy passed on
/// comes from this machine by its address only.
fn local_only(parts: &request::Parts) -> Result<(), Refusal> {
    use axum::http::StatusCode;
    let request::Parts { method, headers, .. } = parts;
    if !is_loopback_name(host(parts).unwrap_or("localhost")) {
        let issue = Issue::error(
            IssueCode::Security,
            "this listener has no authentication and answers only requests to a loopback host",
        );
        return Err((StatusCode::FORBIDDEN, issue));
    }
    let of_proxy = |name: &str| OF_PROXIES.contains(&name) || name.starts_with(OF_PROXIES_PREFIX);
    if headers.keys().any(|name| of_proxy(name.as_str())) {
        let issue = Issue::error(
            IssueCode::Security,
            "this listener has no authentication and answers nothing that came through a proxy; use a listener with keys",
        );
        return Err((StatusCode::FORBIDDEN, issue));
    }
    let reading = method == Method::GET || method == Method::HEAD || method == Method::OPTIONS;
    let foreign = headers
        .get(header::ORIGIN)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|origin| !origin.split_once("://").is_some_and(|(_, rest)| is_loopback_name(rest)));
    if !reading && foreign {
        let issue = Issue::error(
            IssueCode::Security,
            "this listener has no authentication and takes no writes from foreign pages",
        );
        return Err((StatusCode::FORBIDDEN, issue));
    }
    Ok(())
}

fn is_loopback_name(authority: &str) -> bool {
    if let Ok(address) = authority.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_pass_without_authentication() {
        for (host, passes) in [
            ("localhost:8080", true),
            ("127.0.0.1", true),
            ("127.0.0.9:1", true),
            ("[::1]:8080", true),
            ("evil.example", false),
            ("localhost.evil.example:8080", false),
            ("192.168.1.5:8080", false),
        ] {
            assert_eq!(is_loopback_name(host), passes, "{host}");
        }
    }

    #[test]
    fn the_host_of_http_2_is_looked_at_too() {
        let asks = |uri: &str| {
            let (parts, ()) = axum::http::Request::builder().uri(uri).body(()).unwrap().into_parts();
            local_only(&parts)
        };
        assert!(asks("http://localhost:8080/fhir").is_ok() && asks("/fhir").is_ok());
        assert!(asks("http://evil.example/fhir").is_err());
    }

    #[test]
    fn metadata_is_public_and_nothing_below_it() {
        let get = Method::GET;
        assert!(is_public(&get, "/fhir/metadata"));
        assert!(is_public(&get, "/baseR4/metadata"));
        assert!(is_public(&get, "/site/7/fhir/metadata"));
        assert!(is_public(&get, "/api/documentation/openapi.json"));
        assert!(!is_public(&get, "/fhir/Patient/metadata"));
        assert!(!is_public(&get, "/fhir/Patient"));
        assert!(!is_public(&Method::POST, "/fhir/metadata"));
        assert!(!is_public(&get, "/metrics"));
    }
}

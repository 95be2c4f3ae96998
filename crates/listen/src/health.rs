//! `/livez`, `/readyz`, `/metrics`.

use axum::Router;
use axum::extract::Extension;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hilum_fhir::issue::operation_outcome;
use hilum_store::{Health, Scope, Store};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::{Caller, missing_scope};

/// What a key needs to read the metrics of all sites.
const METRICS: Scope = Scope::Metrics;

/// `/livez` (the process answers) and `/readyz` (the store takes writes). No credential needed, nothing told beyond a word.
pub fn router(store: Store) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(move || ready(store.clone())))
}

/// `/metrics` in the Prometheus text format, for keys with scope `admin/metrics`: they tell of all sites. Labels carry listener names, sites and
/// kinds, never a message's values.
pub fn metrics(handle: PrometheusHandle) -> Router {
    Router::new().route(
        "/metrics",
        get(move |Extension(caller): Extension<Caller>| {
            let handle = handle.clone();
            async move {
                if caller.has_scope(METRICS) {
                    return ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], handle.render())
                        .into_response();
                }
                let outcome = operation_outcome(&[missing_scope(METRICS.name())]).to_string();
                (StatusCode::FORBIDDEN, [(header::CONTENT_TYPE, "application/fhir+json")], outcome)
                    .into_response()
            }
        }),
    )
}

async fn ready(store: Store) -> impl IntoResponse {
    match store.health() {
        Health::Accepting => (StatusCode::OK, "ready\n".to_owned()),
        Health::NotAccepting(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("not accepting: {reason}\n"))
        }
    }
}

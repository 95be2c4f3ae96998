//! `/livez`, `/readyz`, `/metrics`.

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hilum_store::{Health, Store};
use metrics_exporter_prometheus::PrometheusHandle;

/// `/livez` (the process answers) and `/readyz` (the store takes writes). No credential needed, nothing told beyond a word.
pub fn router(store: Store) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(move || ready(store.clone())))
}

/// `/metrics` in the Prometheus text format. Labels carry listener names and kinds, never a message's values.
pub fn metrics(handle: PrometheusHandle) -> Router {
    Router::new().route(
        "/metrics",
        get(move || {
            let handle = handle.clone();
            async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], handle.render()) }
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

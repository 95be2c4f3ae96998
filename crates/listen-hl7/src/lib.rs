//! HL7 v2 over HTTP: `POST /v2/ingest`, and what it shares with MLLP: one message in, its acknowledgement out.

mod v2;

use std::sync::Arc;

use axum::Router;
use axum::routing::post;
use hilum_intake::Intake;
use hilum_listen::Limits;
use hilum_wire::er7;
use utoipa::OpenApi;

pub(crate) struct Door {
    pub(crate) intake: Intake,
    pub(crate) limits: er7::Limits,
}

/// The routes of the hl7 surface.
pub fn router(intake: Intake, limits: &Limits) -> Router {
    let limits = limits.er7.reader();
    Router::new().route("/v2/ingest", post(v2::ingest)).with_state(Arc::new(Door { intake, limits }))
}

/// The OpenAPI description of the hl7 surface.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi(info(title = "Hilum HL7", description = "HL7 v2 over HTTP."), paths(v2::ingest))]
struct Description;

//! HL7 over HTTP: `POST /v2/ingest` and `POST /v3/ingest`. One message in, its acknowledgement out.

mod answer;
mod v2;
mod v3;

use std::sync::Arc;

use axum::Router;
use axum::routing::post;
use hilum_intake::Intake;
use hilum_listen::Limits;
use hilum_wire::{er7, v3 as xml};
use utoipa::OpenApi;

pub(crate) struct Door {
    pub(crate) intake: Intake,
    pub(crate) limits: er7::Limits,
    pub(crate) xml: xml::Limits,
    pub(crate) ack_warnings: bool,
}

/// The routes of the hl7 surface; with `ack_warnings` a positive acknowledgement of HL7 v2 says what was remarked.
pub fn router(intake: Intake, limits: &Limits, ack_warnings: bool) -> Router {
    let door = Door { intake, limits: limits.er7.reader(), xml: limits.xml.reader(), ack_warnings };
    Router::new()
        .route("/v2/ingest", post(v2::ingest))
        .route("/v3/ingest", post(v3::ingest))
        .with_state(Arc::new(door))
}

/// The OpenAPI description of the hl7 surface.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Description::openapi()
}

#[derive(OpenApi)]
#[openapi(info(title = "Hilum HL7", description = "HL7 v2 and v3 over HTTP."), paths(v2::ingest, v3::ingest))]
struct Description;

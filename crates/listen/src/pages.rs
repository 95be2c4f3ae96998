//! `/api/documentation`: a page that loads nothing from elsewhere, and the OpenAPI document it shows.

use axum::Router;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::SwaggerUi;

/// The documentation page and `/api/documentation/openapi.json` of one origin.
pub fn documentation(openapi: OpenApi) -> Router {
    SwaggerUi::new("/api/documentation").url("/api/documentation/openapi.json", openapi).into()
}

//! FHIR R4 over HTTP, <https://hl7.org/fhir/R4/http.html>.
//!
//! Every request becomes an [`ask::Ask`], is routed by hand (types are data here, not routes) and answered by one file per interaction. Writes
//! go through [`hilum_intake::Intake::accept`] and nothing else; reads come from the store as finished JSON bytes.

mod answer;
mod ask;
mod bundle;
mod format;
mod mask;
mod metadata;
mod operation;
mod patch;
mod provenance;
mod read;
mod rules;
mod search;
mod write;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, Response, StatusCode};
use axum::routing::any;
use hilum_fhir::{Issue, IssueCode, ResourceType, json};
use hilum_intake::Intake;
use hilum_listen::Limits;

use answer::{Refusal, allow, refuse};
use ask::Ask;

/// What is configured of the FHIR surface.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bases beside `/fhir` and `/site/{siteId}/fhir`, such as `/baseR4`.
    pub aliases: Vec<String>,
    /// What URLs below this edge begin with, whichever listener is asked: `https://fhir.hospital.example`, in both schemes.
    pub roots: Vec<String>,
    /// Whether pages of other origins may use the listener.
    pub cors: bool,
    /// Resource types nobody may delete.
    pub deny_delete: Vec<String>,
    /// Whether a client may choose the id of a new resource.
    pub client_ids: bool,
    /// Limits in force.
    pub limits: Limits,
}

pub(crate) struct Door {
    pub(crate) settings: Settings,
    pub(crate) intake: Intake,
    pub(crate) json: json::Limits,
    pub(crate) metadata: metadata::Capability,
}

/// The routes of the fhir surface.
pub fn router(settings: Settings, intake: Intake) -> Router {
    let json =
        json::Limits { depth_max: settings.limits.json.depth_max, nodes_max: settings.limits.json.nodes_max };
    let metadata = metadata::Capability::new(&settings);
    let mut bases = vec!["/fhir".to_owned(), "/site/{site}/fhir".to_owned()];
    bases.extend(settings.aliases.iter().cloned());
    let door = Arc::new(Door { settings, intake, json, metadata });
    let mut router = Router::new();
    for base in bases {
        for path in [base.clone(), format!("{base}/"), format!("{base}/{{*rest}}")] {
            router = router.route(&path, any(handle));
        }
    }
    router.with_state(door)
}

async fn handle(State(door): State<Arc<Door>>, request: Request<Body>) -> Response<Body> {
    let ask = match Ask::read(&door, request).await {
        Ok(ask) => ask,
        Err(refusal) => return refuse(refusal),
    };
    let mut response = match route(&door, &ask).await {
        Ok(response) => response,
        Err(refusal) => refuse(refusal),
    };
    // a search by a form may ask for another form in its body
    let format = response.extensions().get().copied().unwrap_or(ask.format);
    response = format.of(response).await;
    answer::common_headers(&mut response);
    // of a HEAD the server sends the header of this answer, with its length, and not the body
    response
}

pub(crate) async fn route(door: &Door, ask: &Ask) -> Result<Response<Body>, Refusal> {
    let segments: Vec<&str> = ask.segments.iter().map(String::as_str).collect();
    let reading = ask.method == Method::GET || ask.method == Method::HEAD;
    match (segments.as_slice(), &ask.method) {
        ([name, operation], _) if operation.starts_with('$') => {
            operation::call(door, ask, resource_type(name)?, None, operation).await
        }
        ([name, id, operation], _) if operation.starts_with('$') => {
            ask::check_id(id)?;
            operation::call(door, ask, resource_type(name)?, Some(id), operation).await
        }
        (_, &Method::OPTIONS) => {
            if let Some(name) = segments.first().filter(|name| **name != "metadata") {
                resource_type(name)?;
            }
            Ok(allow(StatusCode::NO_CONTENT, allowed(&segments)))
        }
        (["metadata"], _) if reading => Ok(door.metadata.answer(ask)),
        (["metadata"], _) => Err(not_allowed(&segments)),
        ([], &Method::POST) => bundle::post(door, ask).await,
        ([name], &Method::POST) if *name == "_search" => Err(system_search()),
        ([name], method) => {
            let of = resource_type(name)?;
            match *method {
                Method::POST => write::create(door, ask, of).await,
                Method::PUT => write::conditional_update(door, ask, of).await,
                Method::DELETE => write::conditional_delete(door, ask, of).await,
                _ if reading => search::get(door, ask, of).await,
                _ => Err(not_allowed(&segments)),
            }
        }
        ([name, "_search"], &Method::POST) => search::post(door, ask, resource_type(name)?).await,
        ([name, "_search"], _) => {
            resource_type(name)?;
            Err(not_allowed(&segments))
        }
        ([name, "_history"], _) => {
            resource_type(name)?;
            Err(unsupported("the history of a type is not served; read the history of one resource"))
        }
        ([name, id], method) => {
            let of = resource_type(name)?;
            ask::check_id(id)?;
            match *method {
                Method::PUT => write::update(door, ask, of, id).await,
                Method::PATCH => patch::patch(door, ask, of, id).await,
                Method::DELETE => write::delete(door, ask, of, id).await,
                _ if reading => read::read(door, ask, of, id).await,
                _ => Err(not_allowed(&segments)),
            }
        }
        ([name, id, "_history"], _) if reading => read::history(door, ask, resource_type(name)?, id).await,
        ([name, id, "_history", version], _) if reading => {
            read::vread(door, ask, resource_type(name)?, id, version).await
        }
        ([] | [_, _, "_history"] | [_, _, "_history", _], _) => Err(not_allowed(&segments)),
        _ => Err(unsupported("there is nothing at this address")),
    }
}

/// Methods that mean something at an address.
fn allowed(segments: &[&str]) -> &'static str {
    match segments {
        [] => "POST, OPTIONS",
        ["metadata"] | [_, _, "_history", ..] => "GET, HEAD, OPTIONS",
        [_, "_search"] => "POST, OPTIONS",
        [_] => "GET, HEAD, POST, PUT, DELETE, OPTIONS",
        _ => "GET, HEAD, PUT, PATCH, DELETE, OPTIONS",
    }
}

fn resource_type(name: &str) -> Result<ResourceType, Refusal> {
    ResourceType::from_name(name)
        .ok_or_else(|| unsupported("there is no such resource type in fhir r4; names are case-sensitive"))
}

fn unsupported(text: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, Issue::error(IssueCode::NotFound, text))
}

fn system_search() -> Refusal {
    unsupported("searches over all types are not served; search one type")
}

fn not_allowed(segments: &[&str]) -> Refusal {
    let issue = Issue::error(
        IssueCode::NotSupported,
        "the method means nothing here; the Allow header lists those that do",
    );
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, issue).allowing(allowed(segments))
}

/// The OpenAPI description of the fhir surface: its shape, for every resource type.
pub fn openapi() -> utoipa::openapi::OpenApi {
    metadata::openapi()
}

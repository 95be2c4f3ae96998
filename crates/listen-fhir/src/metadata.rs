//! The CapabilityStatement, built from what the routes and the search parameters really are, and the OpenAPI description.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use hilum_fhir::ResourceType;
use hilum_fhir::search::{ParamType, parameters};
use hilum_intake::now;
use serde_json::{Value, json};

use crate::answer::json as json_answer;
use crate::ask::Ask;
use crate::{Settings, operation};

/// The extension of `CapabilityStatement.rest` with the limits of the edge.
const LIMITS: &str = "urn:hilum:extension:limits";

/// The CapabilityStatement of a running edge, dated when it began; only the base differs from call to call.
pub(crate) struct Capability {
    statement: Value,
    etag: HeaderValue,
}

impl Capability {
    pub(crate) fn new(settings: &Settings) -> Self {
        let resources: Vec<Value> = ResourceType::all().map(|of| resource(of, settings)).collect();
        let statement = json!({
            "resourceType": "CapabilityStatement",
            "status": "active",
            "date": now().to_string(),
            "kind": "instance",
            "software": { "name": "Hilum", "version": env!("CARGO_PKG_VERSION") },
            "implementation": { "description": "Hilum, the integration edge", "url": "" },
            "fhirVersion": "4.0.1",
            "format": ["application/fhir+json", "application/fhir+xml", "json", "xml"],
            "patchFormat": ["application/json-patch+json", "application/merge-patch+json"],
            "rest": [{
                "extension": [limits(settings)],
                "mode": "server",
                "documentation": "Searches may have chained parameters (subject:Patient.name) and _has, each within the other, within the limits chain_depth_max and chained_max; conditions, criteria and scopes may not.",
                "security": { "cors": settings.cors, "description": "An API key in the X-API-Key header or as a bearer token; its site and scopes decide what it may do." },
                "resource": resources,
                "interaction": [{ "code": "transaction" }, { "code": "batch" }],
            }],
        });
        let mut hasher = DefaultHasher::new();
        statement.to_string().hash(&mut hasher);
        let etag = HeaderValue::from_str(&format!("W/\"{:016x}\"", hasher.finish()));
        Self { statement, etag: etag.unwrap_or(HeaderValue::from_static("*")) }
    }

    pub(crate) fn answer(&self, ask: &Ask) -> Response<Body> {
        let mut statement = self.statement.clone();
        statement["implementation"]["url"] = ask.base.clone().into();
        let body = if ask.pretty { format!("{statement:#}") } else { statement.to_string() };
        let mut response = json_answer(StatusCode::OK, body.into());
        response.headers_mut().insert(header::ETAG, self.etag.clone());
        response
    }
}

/// The limits in force, each with its name in the configuration. Numbers may be larger than an integer of FHIR.
fn limits(settings: &Settings) -> Value {
    let limit = |(name, number): (String, u64)| json!({ "url": name, "valueDecimal": number });
    let limits: Vec<Value> = settings.limits.named().into_iter().map(limit).collect();
    json!({ "url": LIMITS, "extension": limits })
}

fn resource(of: ResourceType, settings: &Settings) -> Value {
    let deletable = !settings.deny_delete.iter().any(|name| name == of.name());
    let mut interactions =
        vec!["read", "vread", "create", "update", "patch", "history-instance", "search-type"];
    if deletable {
        interactions.push("delete");
    }
    let searchable = || parameters(of).iter().filter(|p| p.param_type != ParamType::Special);
    let references = || searchable().filter(|p| p.param_type == ParamType::Reference);
    let mut resource = json!({
        "type": of.name(),
        "interaction": interactions.iter().map(|code| json!({ "code": code })).collect::<Vec<_>>(),
        "versioning": "versioned-update",
        "readHistory": true,
        "updateCreate": settings.client_ids,
        "conditionalCreate": true,
        "conditionalRead": "not-match",
        "conditionalUpdate": true,
        "conditionalDelete": if deletable { "single" } else { "not-supported" },
        "searchParam": searchable().map(|p| json!({ "name": p.name, "definition": p.url, "type": kind(p.param_type) })).collect::<Vec<_>>(),
    });
    let includes: Vec<Value> = references().map(|p| format!("{of}:{}", p.name).into()).collect();
    // FHIR has no empty list
    if !includes.is_empty() {
        resource["searchInclude"] = includes.into();
    }
    let operations = operation::of_type(of);
    resource["operation"] =
        operations.map(|o| json!({ "name": o.name, "definition": o.definition })).collect();
    if of.name() == "Provenance" {
        resource["documentation"] =
            "One Provenance is rendered for each submission; it is read, searched and included like a stored one, the newest first. Chained parameters and _has do not lead from or over it.".into();
    }
    resource
}

fn kind(of: ParamType) -> &'static str {
    match of {
        ParamType::Number => "number",
        ParamType::Date => "date",
        ParamType::String => "string",
        ParamType::Token => "token",
        ParamType::Reference => "reference",
        ParamType::Composite => "composite",
        ParamType::Quantity => "quantity",
        ParamType::Uri => "uri",
        ParamType::Special => "special",
    }
}

/// The shape of the surface: `{type}` stands for each of the resource types.
pub(crate) fn openapi() -> utoipa::openapi::OpenApi {
    let answer = |text: &str| json!({ "description": text, "content": { "application/fhir+json": { "schema": { "type": "object" } } } });
    let parameter =
        |name: &str| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } });
    let (of, id, version) = (parameter("type"), parameter("id"), parameter("version"));
    let body = json!({ "required": true, "content": { "application/fhir+json": { "schema": { "type": "object" } } } });
    let errors = json!({
        "400": answer("not understood"), "401": answer("no or unknown key"), "403": answer("the key lacks the scope"),
        "404": answer("not there"), "409": answer("conflict"), "412": answer("a condition failed"), "422": answer("violates FHIR R4"), "503": answer("not accepted now, send again"), "507": answer("the disk is full, send again later"),
    });
    let operation = |summary: &str, parameters: Value, body: Option<&Value>, success: (&str, &str)| {
        let mut responses = errors.clone();
        responses[success.0] = answer(success.1);
        let mut operation = json!({ "tags": ["FHIR R4"], "summary": summary, "parameters": parameters, "responses": responses });
        if let Some(body) = body {
            operation["requestBody"] = body.clone();
        }
        operation
    };
    let document = json!({
        "openapi": "3.1.0",
        "info": { "title": "Hilum FHIR", "version": env!("CARGO_PKG_VERSION"), "description": "FHIR R4 REST; /fhir/metadata lists types and search parameters." },
        "paths": {
            "/fhir/metadata": { "get": operation("CapabilityStatement", json!([]), None, ("200", "the statement")) },
            "/fhir": { "post": operation("Transaction or batch", json!([]), Some(&body), ("200", "the answers, in order")) },
            "/fhir/{type}": {
                "get": operation("Search", json!([of]), None, ("200", "a searchset Bundle")),
                "post": operation("Create", json!([of]), Some(&body), ("201", "created")),
            },
            "/fhir/{type}/{id}": {
                "get": operation("Read", json!([of, id]), None, ("200", "the resource")),
                "put": operation("Update", json!([of, id]), Some(&body), ("200", "updated")),
                "patch": operation("Patch (application/json-patch+json)", json!([of, id]), Some(&body), ("200", "updated")),
                "delete": operation("Delete", json!([of, id]), None, ("204", "deleted")),
            },
            "/fhir/{type}/{id}/_history": { "get": operation("History", json!([of, id]), None, ("200", "a history Bundle")) },
            "/fhir/{type}/{id}/_history/{version}": { "get": operation("Read a version", json!([of, id, version]), None, ("200", "the version")) },
        },
    });
    serde_json::from_value(document).unwrap_or_default()
}

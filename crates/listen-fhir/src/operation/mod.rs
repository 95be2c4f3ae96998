//! Operations (`$name`). One table drives the routes and the CapabilityStatement: <https://hl7.org/fhir/R4/operations.html>.

mod everything;
mod meta;
mod validate;

pub(crate) use meta::readable;

use axum::body::Body;
use axum::http::{Method, Response, StatusCode};
use hilum_fhir::{Issue, IssueCode, Resource, ResourceType};
use serde_json::Value;

use crate::answer::Refusal;
use crate::ask::Ask;
use crate::{Door, unsupported};

/// An operation that is served.
pub(crate) struct Operation {
    /// Without the `$`.
    pub(crate) name: &'static str,
    /// Canonical URL of its definition.
    pub(crate) definition: &'static str,
    /// The types that have it; empty = all.
    types: &'static [&'static str],
    /// Whether it is called at a type.
    at_type: bool,
    /// Methods with which it is called: GET only where nothing changes.
    methods: &'static str,
    does: Does,
}

#[derive(Clone, Copy)]
enum Does {
    Everything,
    Meta,
    MetaAdd,
    MetaDelete,
    Validate,
}

const OPERATIONS: [Operation; 5] = [
    Operation {
        name: "everything",
        definition: "http://hl7.org/fhir/OperationDefinition/Patient-everything",
        types: &["Patient"],
        at_type: false,
        methods: "GET, HEAD, POST, OPTIONS",
        does: Does::Everything,
    },
    Operation {
        name: "meta",
        definition: "http://hl7.org/fhir/OperationDefinition/Resource-meta",
        types: &[],
        at_type: false,
        methods: "GET, HEAD, POST, OPTIONS",
        does: Does::Meta,
    },
    Operation {
        name: "meta-add",
        definition: "http://hl7.org/fhir/OperationDefinition/Resource-meta-add",
        types: &[],
        at_type: false,
        methods: "POST, OPTIONS",
        does: Does::MetaAdd,
    },
    Operation {
        name: "meta-delete",
        definition: "http://hl7.org/fhir/OperationDefinition/Resource-meta-delete",
        types: &[],
        at_type: false,
        methods: "POST, OPTIONS",
        does: Does::MetaDelete,
    },
    Operation {
        name: "validate",
        definition: "http://hl7.org/fhir/OperationDefinition/Resource-validate",
        types: &[],
        at_type: true,
        methods: "GET, HEAD, POST, OPTIONS",
        does: Does::Validate,
    },
];

/// The operations of a type.
pub(crate) fn of_type(of: ResourceType) -> impl Iterator<Item = &'static Operation> {
    OPERATIONS
        .iter()
        .filter(move |operation| operation.types.is_empty() || operation.types.contains(&of.name()))
}

/// Calls the operation of an address, at a type or at one resource.
pub(crate) async fn call(
    door: &Door,
    ask: &Ask,
    of: ResourceType,
    id: Option<&str>,
    name: &str,
) -> Result<Response<Body>, Refusal> {
    let wanted = name.trim_start_matches('$');
    let served =
        of_type(of).find(|operation| operation.name == wanted && (id.is_some() || operation.at_type));
    let operation = served.ok_or_else(|| {
        unsupported("this operation is not served here; the CapabilityStatement lists those that are")
    })?;
    if ask.method == Method::OPTIONS {
        return Ok(crate::answer::allow(StatusCode::NO_CONTENT, operation.methods));
    }
    if !operation.methods.split(", ").any(|method| method == ask.method.as_str()) {
        let text = "the operation is not called with this method; the Allow header lists those that are";
        let issue = Issue::error(IssueCode::NotSupported, text);
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, issue).allowing(operation.methods));
    }
    match (operation.does, id) {
        (Does::Everything, Some(id)) => everything::everything(door, ask, of, id).await,
        (Does::Meta, Some(id)) => meta::show(door, ask, of, id).await,
        (Does::MetaAdd, Some(id)) => meta::change(door, ask, of, id, meta::Kind::Add).await,
        (Does::MetaDelete, Some(id)) => meta::change(door, ask, of, id, meta::Kind::Delete).await,
        (Does::Validate, id) => validate::validate(door, ask, of, id).await,
        (_, None) => Err(unsupported("this operation is called at one resource")),
    }
}

/// What an operation is called with: the query of a GET, the Parameters of a POST, or of a POST the resource alone.
struct Inputs {
    /// Parameters with a primitive value, of query and body alike.
    texts: Vec<(String, String)>,
    /// The body: Parameters, or the resource alone.
    body: Option<Resource>,
}

impl Inputs {
    fn read(door: &Door, ask: &Ask) -> Result<Self, Refusal> {
        let mut texts = ask.query.clone();
        let body = match ask.method == Method::POST && !ask.body.is_empty() {
            true => Some(ask.resource(&door.json)?),
            false => None,
        };
        for parameter in parameters(body.as_ref()) {
            let name = parameter["name"].as_str().unwrap_or_default();
            let value = parameter.as_object().and_then(|members| {
                members.iter().find(|(member, _)| member.starts_with("value")).map(|(_, value)| value)
            });
            match value {
                Some(Value::String(text)) => texts.push((name.to_owned(), text.clone())),
                Some(value @ (Value::Number(_) | Value::Bool(_))) => {
                    texts.push((name.to_owned(), value.to_string()))
                }
                _ => {}
            }
        }
        Ok(Self { texts, body })
    }

    /// A parameter with a value that is no primitive, such as `valueMeta`.
    fn value(&self, name: &str, member: &str) -> Option<&Value> {
        parameters(self.body.as_ref()).find(|parameter| parameter["name"] == name)?.get(member)
    }

    /// The resource called with: in the parameter `resource`, or the body itself.
    fn resource(&self) -> Result<Option<Resource>, Refusal> {
        let bad = |issue| Refusal::new(StatusCode::BAD_REQUEST, issue);
        match &self.body {
            Some(body) if is_parameters(body) => {
                let sent = self.value("resource", "resource");
                sent.map(|value| Resource::from_value(value.clone()).map_err(bad)).transpose()
            }
            body => Ok(body.clone()),
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        crate::ask::named(&self.texts, name)
    }
}

fn is_parameters(resource: &Resource) -> bool {
    resource.resource_type().name() == "Parameters"
}

fn parameters(body: Option<&Resource>) -> impl Iterator<Item = &Value> {
    let list = body.filter(|body| is_parameters(body)).and_then(|body| body.get("parameter"));
    list.and_then(Value::as_array).into_iter().flatten()
}

fn bad(text: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, Issue::error(IssueCode::Invalid, text))
}

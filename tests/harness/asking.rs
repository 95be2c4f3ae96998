//! Somebody who asks the FHIR surface of an edge, without a key or with one.

use super::http::{self, Reply};
use super::{Edge, Value};

const JSON: &str = "Content-Type: application/fhir+json";

/// An edge, and who asks it.
pub(crate) struct Asking {
    pub(crate) edge: Edge,
    _dir: tempfile::TempDir,
}

impl Asking {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { edge: Edge::start(dir.path()), _dir: dir }
    }

    /// Without a key, with every right.
    pub(crate) fn open(&self, method: &str, path: &str, headers: &[&str], body: &Value) -> Reply {
        let (headers, body) = with_json(headers, body);
        self.raw(method, path, &headers, &body)
    }

    /// With a key that has its scopes only.
    pub(crate) fn keyed(&self, key: &str, method: &str, path: &str, headers: &[&str], body: &Value) -> Reply {
        let (mut headers, body) = with_json(headers, body);
        headers.push(key);
        http::send(self.edge.keyed, method, &format!("/fhir{path}"), &headers, &body)
    }

    /// Without a key, with headers and body as they are.
    pub(crate) fn raw(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Reply {
        http::send(self.edge.http, method, &format!("/fhir{path}"), headers, body)
    }

    /// Creates a resource; its path.
    pub(crate) fn made(&self, resource: &Value) -> String {
        let of = resource["resourceType"].as_str().unwrap();
        let reply = self.open("POST", &format!("/{of}"), &[], resource);
        assert_eq!(reply.status, 201, "{reply:?}");
        format!("/{of}/{}", reply.json()["id"].as_str().unwrap())
    }

    /// Puts a resource under `Type/id`.
    pub(crate) fn put(&self, path: &str, mut resource: Value) {
        let (of, id) = path.split_once('/').unwrap();
        resource["resourceType"] = of.into();
        resource["id"] = id.into();
        let reply = self.open("PUT", &format!("/{path}"), &[], &resource);
        assert!(reply.status == 200 || reply.status == 201, "{path}: {reply:?}");
    }

    pub(crate) fn current(&self, path: &str) -> Value {
        self.open("GET", path, &[], &Value::Null).json()
    }
}

fn with_json<'h>(headers: &[&'h str], body: &Value) -> (Vec<&'h str>, String) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    (headers.iter().copied().chain((!body.is_empty()).then_some(JSON)).collect(), body)
}

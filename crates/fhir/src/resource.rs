//! A FHIR resource as an ordered JSON object.

use serde_json::{Map, Value};

use crate::{Issue, IssueCode, ResourceType};

/// A FHIR R4 resource: a JSON object whose `resourceType` is known. Member order and decimal digits are kept as sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    resource_type: ResourceType,
    object: Map<String, Value>,
}

impl Resource {
    /// An empty resource of a type.
    pub fn new(resource_type: ResourceType) -> Self {
        let mut object = Map::new();
        object.insert("resourceType".into(), Value::String(resource_type.name().into()));
        Self { resource_type, object }
    }

    /// Takes a JSON value.
    ///
    /// # Errors
    /// An [`Issue`] when the value is no object or its `resourceType` is missing or not an R4 type.
    pub fn from_value(value: Value) -> Result<Self, Issue> {
        let Value::Object(object) = value else {
            return Err(Issue::error(IssueCode::Structure, "a resource is a json object"));
        };
        let name = object.get("resourceType").and_then(Value::as_str).ok_or_else(|| {
            Issue::error(IssueCode::Structure, "resourceType is missing").at("resourceType")
        })?;
        let resource_type = ResourceType::from_name(name).ok_or_else(|| {
            Issue::error(IssueCode::Structure, "resourceType is not a resource type of fhir r4")
                .at("resourceType")
        })?;
        Ok(Self { resource_type, object })
    }

    /// The resource type.
    pub fn resource_type(&self) -> ResourceType {
        self.resource_type
    }

    /// The logical id, when set.
    pub fn id(&self) -> Option<&str> {
        self.object.get("id").and_then(Value::as_str)
    }

    /// Sets the logical id.
    pub fn set_id(&mut self, id: impl Into<String>) {
        self.object.insert("id".into(), Value::String(id.into()));
    }

    /// A top-level element.
    pub fn get(&self, element: &str) -> Option<&Value> {
        self.object.get(element)
    }

    /// Sets a top-level element (never `resourceType`).
    pub fn set(&mut self, element: &str, value: Value) {
        debug_assert_ne!(element, "resourceType");
        self.object.insert(element.to_owned(), value);
    }

    /// The members, `resourceType` included.
    pub fn object(&self) -> &Map<String, Value> {
        &self.object
    }

    /// The members for editing. The caller leaves `resourceType` alone.
    pub fn object_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.object
    }

    /// The resource as a JSON value.
    pub fn into_value(self) -> Value {
        Value::Object(self.object)
    }

    /// A copy as a JSON value.
    pub fn to_value(&self) -> Value {
        Value::Object(self.object.clone())
    }
}

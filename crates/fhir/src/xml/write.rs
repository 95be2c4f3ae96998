//! JSON into XML, with a stack of what is still to be written: nothing recurses on the resource.

use serde_json::{Map, Value};

use super::{FHIR, div, printable, tag};
use crate::validate::primitive::Primitive;
use crate::validate::schema::{Child, Definition, Kind, SCHEMA};
use crate::{Issue, IssueCode, Resource, ResourceType};

/// Writes a resource as FHIR R4 XML in UTF-8, with an XML declaration and without blanks between elements. Elements stand in the
/// order of the definitions.
///
/// # Errors
/// An [`Issue`] with the FHIRPath of the place when the resource has what XML cannot say, so that nothing is dropped: a member R4 does
/// not define, a value of another JSON kind than its type has, an empty text, list or object, a null that is not made up for by the
/// sibling, an underscore sibling of an attribute or a narrative, a character XML forbids (section 2.2 of XML 1.0), a narrative that is
/// not well-formed. Validation finds most of these, but not the last three.
pub fn write(resource: &Resource) -> Result<Vec<u8>, Issue> {
    let mut write = Write {
        out: String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>"),
        steps: Vec::new(),
        path: Vec::new(),
    };
    let name = resource.resource_type().name();
    write.path.push((name, None));
    write.resource(name, resource.object())?;
    while let Some(step) = write.steps.pop() {
        match step {
            Step::Element(element) => write.element(&element)?,
            Step::End(name) => write.end(name),
            Step::EndOfResource(name) => write.end_tag(name),
        }
    }
    Ok(write.out.into_bytes())
}

/// What is still to be written.
enum Step<'v> {
    Element(Element<'v>),
    /// The end of an element, which is the last step of the path.
    End(&'v str),
    /// The end of a resource within a wrapper, which is no step of the path.
    EndOfResource(&'v str),
}

/// An element with its value, that of its underscore sibling, or both.
struct Element<'v> {
    name: &'v str,
    item: Option<usize>,
    value: Option<&'v Value>,
    sibling: Option<&'v Value>,
    child: &'static Child,
}

struct Write<'v> {
    out: String,
    steps: Vec<Step<'v>>,
    /// The names and items of the elements that are open.
    path: Vec<(&'v str, Option<usize>)>,
}

impl<'v> Write<'v> {
    /// A resource: its start tag now, the rest as steps.
    fn resource(&mut self, name: &'v str, object: &'v Map<String, Value>) -> Result<(), Issue> {
        let Some(definition) = SCHEMA.get(name) else {
            return Err(self.refuse("is not a resource type of fhir r4"));
        };
        let children = self.members(definition, object)?;
        self.out.push('<');
        self.out.push_str(name);
        if self.steps.is_empty() {
            tag::push_attribute(&mut self.out, "xmlns", FHIR);
        }
        self.out.push('>');
        self.steps.push(Step::EndOfResource(name));
        self.steps.extend(children.into_iter().rev().map(Step::Element));
        Ok(())
    }

    fn element(&mut self, element: &Element<'v>) -> Result<(), Issue> {
        self.path.push((element.name, element.item));
        match (element.child.kind, element.value) {
            (Kind::Primitive(Primitive::Xhtml), value) => self.narrative(value),
            (Kind::Primitive(primitive), value) => {
                let text = value.map(|value| primitive_text(primitive, value)).transpose();
                let text = text.map_err(|text| self.refuse(text))?;
                let sibling = match element.sibling {
                    None => None,
                    Some(Value::Object(sibling)) => Some(sibling),
                    Some(_) => return Err(self.refuse("the underscore sibling is an object")),
                };
                self.open(element.name, SCHEMA.get("Element"), sibling, text.as_deref())
            }
            (Kind::Resource, Some(Value::Object(object))) => self.wrapper(element.name, object),
            (Kind::Object(number), Some(Value::Object(object))) => {
                self.open(element.name, number.map(|number| SCHEMA.at(number)), Some(object), None)
            }
            _ => Err(self.refuse("is an object")),
        }
    }

    /// A narrative, as it is.
    fn narrative(&mut self, value: Option<&Value>) -> Result<(), Issue> {
        let text = value.and_then(Value::as_str).ok_or_else(|| self.refuse("is a text"))?;
        let text = div::check(text).map_err(|wrong| self.refuse(wrong))?;
        self.out.push_str(&text);
        self.path.pop();
        Ok(())
    }

    /// An element that holds a resource.
    fn wrapper(&mut self, name: &'v str, object: &'v Map<String, Value>) -> Result<(), Issue> {
        let named = object.get("resourceType").and_then(Value::as_str).and_then(ResourceType::from_name);
        let of = named.ok_or_else(|| self.refuse("resourceType is missing or no type of fhir r4"))?;
        self.out.push('<');
        self.out.push_str(name);
        self.out.push('>');
        self.steps.push(Step::End(name));
        self.resource(of.name(), object)
    }

    /// The start tag of an element with its attributes; its children become steps.
    fn open(
        &mut self,
        name: &'v str,
        definition: Option<&'static Definition>,
        object: Option<&'v Map<String, Value>>,
        value: Option<&str>,
    ) -> Result<(), Issue> {
        let members = match (definition, object) {
            (_, None) => Vec::new(),
            (Some(definition), Some(object)) => self.members(definition, object)?,
            (None, Some(_)) => return Err(self.refuse("is of a type that r4 does not define")),
        };
        if object.map_or(value.is_none(), Map::is_empty) {
            return Err(self.refuse("an object has at least one member"));
        }
        let (attributes, children): (Vec<_>, Vec<_>) =
            members.into_iter().partition(|member| member.child.attribute);
        self.out.push('<');
        self.out.push_str(name);
        for member in attributes {
            let text = match (member.value, member.sibling) {
                (Some(Value::String(text)), None) => check_text(text),
                (Some(_), None) => Err("is a text"),
                _ => Err("is an attribute in xml and has no underscore sibling"),
            };
            let text = text.map_err(|text| self.refuse_within(member.name, text))?;
            tag::push_attribute(&mut self.out, member.name, text);
        }
        if let Some(value) = value {
            tag::push_attribute(&mut self.out, "value", value);
        }
        if children.is_empty() {
            self.out.push_str("/>");
            self.path.pop();
        } else {
            self.out.push('>');
            self.steps.push(Step::End(name));
            self.steps.extend(children.into_iter().rev().map(Step::Element));
        }
        Ok(())
    }

    /// The members of an object as elements, in the order of the definition.
    fn members(
        &self,
        definition: &'static Definition,
        object: &'v Map<String, Value>,
    ) -> Result<Vec<Element<'v>>, Issue> {
        let is_resource = ResourceType::from_name(definition.name).is_some();
        let has_siblings = object.keys().any(|name| name.starts_with('_'));
        let mut members = Vec::with_capacity(object.len());
        for (name, value) in object {
            if is_resource && name == "resourceType" {
                continue;
            }
            let plain = name.strip_prefix('_').unwrap_or(name);
            let is_sibling = plain.len() < name.len();
            let Some(child) = definition.child(plain) else {
                return Err(self.refuse_within(&printable(name), "is no element of the type"));
            };
            if is_sibling && !matches!(child.kind, Kind::Primitive(of) if !matches!(of, Primitive::Xhtml)) {
                return Err(self.refuse_within(name, "only primitive elements have an underscore sibling"));
            }
            if !is_sibling {
                let sibling = if has_siblings { object.get(&format!("_{plain}")) } else { None };
                self.items(plain, Some(value), sibling, child, &mut members)?;
            } else if !object.contains_key(plain) {
                self.items(plain, None, Some(value), child, &mut members)?;
            }
        }
        members.sort_by_key(|member| member.child.order);
        let is_same = |pair: &&[Element<'_>]| pair[0].child.order == pair[1].child.order;
        if let Some(pair) = members.windows(2).filter(is_same).find(|pair| !pair[0].child.repeats) {
            return Err(self.refuse_within(pair[0].name, "a choice has one type only"));
        }
        Ok(members)
    }

    /// A member as one element, or as many as its list has.
    fn items(
        &self,
        name: &'v str,
        value: Option<&'v Value>,
        sibling: Option<&'v Value>,
        child: &'static Child,
        members: &mut Vec<Element<'v>>,
    ) -> Result<(), Issue> {
        if !child.repeats {
            if [value, sibling].into_iter().flatten().any(|value| value.is_array() || value.is_null()) {
                return Err(self.refuse_within(name, "occurs once and is no list and not null"));
            }
            members.push(Element { name, item: None, value, sibling, child });
            return Ok(());
        }
        let list = |value: Option<&'v Value>| match value {
            None => Ok([].as_slice()),
            Some(Value::Array(items)) if !items.is_empty() => Ok(items.as_slice()),
            Some(_) => Err(self.refuse_within(name, "may repeat and is a list with at least one member")),
        };
        let (values, siblings) = (list(value)?, list(sibling)?);
        let present = |items: &'v [Value], at: usize| items.get(at).filter(|item| !item.is_null());
        for at in 0..values.len().max(siblings.len()) {
            let (value, sibling) = (present(values, at), present(siblings, at));
            if value.is_none() && sibling.is_none() {
                let text = "is null and so is its underscore sibling";
                return Err(self.refuse_within(&format!("{name}[{at}]"), text));
            }
            members.push(Element { name, item: Some(at), value, sibling, child });
        }
        Ok(())
    }

    fn end(&mut self, name: &str) {
        self.end_tag(name);
        self.path.pop();
    }

    fn end_tag(&mut self, name: &str) {
        self.out.push_str("</");
        self.out.push_str(name);
        self.out.push('>');
    }

    /// An issue of the element that is open.
    fn refuse(&self, text: &str) -> Issue {
        self.refuse_within("", text)
    }

    /// An issue of a member of the element that is open.
    fn refuse_within(&self, name: &str, text: &str) -> Issue {
        let mut place = String::new();
        for (name, item) in self.path.iter().copied().chain([(name, None)]) {
            if !name.is_empty() && !place.is_empty() {
                place.push('.');
            }
            place.push_str(name);
            if let Some(item) = item {
                place.push_str(&format!("[{item}]"));
            }
        }
        Issue::error(IssueCode::Structure, text).at(place)
    }
}

/// The text of a primitive; numbers keep their digits.
fn primitive_text(primitive: Primitive, value: &Value) -> Result<String, &'static str> {
    match (primitive, value) {
        (Primitive::Boolean, Value::Bool(value)) => Ok(value.to_string()),
        (Primitive::Boolean, _) => Err("is true or false"),
        (
            Primitive::Integer | Primitive::UnsignedInt | Primitive::PositiveInt | Primitive::Decimal,
            Value::Number(number),
        ) => Ok(number.to_string()),
        (Primitive::Integer | Primitive::UnsignedInt | Primitive::PositiveInt | Primitive::Decimal, _) => {
            Err("is a number")
        }
        (_, Value::String(text)) => check_text(text).map(str::to_owned),
        _ => Err("is a text"),
    }
}

fn check_text(text: &str) -> Result<&str, &'static str> {
    if text.is_empty() {
        return Err("is not empty");
    }
    if tag::fits(text) { Ok(text) } else { Err("holds a character that xml cannot carry") }
}

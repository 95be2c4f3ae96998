//! XML into JSON, in one pass over the events of the document and with a stack of its own: nothing recurses on input.

use quick_xml::Reader;
use quick_xml::events::Event;
use serde_json::{Map, Number, Value};

use super::div::{self, Div};
use super::scope::{Scope, Space};
use super::tag::{self, Attributes, Tag, Wrong};
use super::{Limits, printable};
use crate::validate::primitive::Primitive;
use crate::validate::schema::{Child, Definition, Kind, SCHEMA};
use crate::{Issue, IssueCode, Resource, ResourceType, json};

const MALFORMED: Wrong = "the xml is not well-formed";

/// Reads a resource of FHIR R4 from XML in UTF-8, with or without a byte order mark. Numbers keep their digits. Elements may stand in
/// any order; those that repeat keep theirs. Prefixes may be used. What an element holds is judged by validation, not here.
///
/// # Errors
/// An [`Issue`] whose location is the FHIRPath of the place, and whose text names line and column and never a value: for anything that
/// is not well-formed, a document type, a processing instruction, an entity other than XML's own five, another encoding, an element or
/// attribute that R4 does not define there or that is in another namespace, text between elements, an element that occurs more often
/// than once where it must not, one without any content, a number or boolean that is none, and for more of anything than the limits
/// allow.
pub fn read(bytes: &[u8], limits: &Limits) -> Result<Resource, Issue> {
    if bytes.len() > limits.bytes_max {
        let text = format!("the document has more than {} bytes", limits.bytes_max);
        return Err(Issue::error(IssueCode::TooLong, text));
    }
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes)
        .map_err(|error| json::refuse(bytes, error.valid_up_to(), "the document is not utf-8"))?;
    let mut read = Read {
        text,
        limits,
        nodes: 0,
        at: 0,
        frames: Vec::new(),
        scope: Scope::default(),
        div: None,
        root: None,
    };
    let mut reader = Reader::from_str(text);
    reader.config_mut().enable_all_checks(true);
    loop {
        read.at = div::position(&reader);
        let event = reader.read_event().map_err(|_| read.refuse(MALFORMED))?;
        if matches!(event, Event::Eof) {
            return read.finish();
        }
        let raw = text.get(read.at..div::position(&reader)).ok_or_else(|| read.refuse(MALFORMED))?;
        read.event(&event, raw)?;
    }
}

/// An open element.
struct Frame<'i> {
    /// Its name, as a step of a place; that of a resource within a wrapper is none.
    name: &'i str,
    /// Which item of a list it is.
    item: Option<usize>,
    content: Content,
    /// What its children are looked up in.
    definition: Option<&'static Definition>,
    /// The members so far; of a primitive those of its underscore sibling, of a wrapper those of the resource in it.
    object: Map<String, Value>,
    /// A bit for each element of the definition that has occurred.
    seen: u128,
    /// Whether a list of primitives has a sibling, which has to be as long.
    is_padded: bool,
    /// Levels of JSON down to what its children are in.
    depth: usize,
}

/// What an element holds.
enum Content {
    Resource,
    Object,
    Primitive(Primitive, Option<Value>),
    /// A resource, as in `contained`.
    Wrapper,
}

struct Read<'i, 'l> {
    text: &'i str,
    limits: &'l Limits,
    nodes: usize,
    /// Where the event begins.
    at: usize,
    frames: Vec<Frame<'i>>,
    scope: Scope<'i>,
    /// The narrative that is being read.
    div: Option<Div>,
    /// The resource, once its element has ended.
    root: Option<Map<String, Value>>,
}

impl<'i> Read<'i, '_> {
    fn event(&mut self, event: &Event<'_>, raw: &'i str) -> Result<(), Issue> {
        let is_blank = matches!(event, Event::Text(_)) && raw.chars().all(tag::is_blank);
        let is_layout = is_blank && self.div.is_none();
        if !is_layout && !matches!(event, Event::End(_)) {
            self.count(1)?;
        }
        if !tag::fits(raw) {
            return Err(self.refuse("a character is not allowed in xml"));
        }
        match event {
            Event::DocType(_) => Err(self.refuse("a document type is not accepted")),
            Event::PI(_) => Err(self.refuse("a processing instruction is not accepted")),
            Event::Decl(_) => self.declaration(raw),
            _ if self.div.is_some() => self.narrative(event, raw),
            Event::Start(_) | Event::Empty(_) => {
                let is_empty = matches!(event, Event::Empty(_));
                let tag = Tag::of(raw, is_empty).map_err(|wrong| self.refuse(wrong))?;
                let is_open = self.open(&tag, is_empty)?;
                if is_empty && is_open { self.close() } else { Ok(()) }
            }
            Event::End(_) => self.close(),
            Event::Comment(_) => Ok(()),
            Event::Text(_) if is_blank => Ok(()),
            _ => Err(self.refuse("there is text outside of attributes")),
        }
    }

    /// `<?xml …?>`, which is the first thing in the document where there is one (XML 1.0, section 2.8).
    fn declaration(&self, raw: &str) -> Result<(), Issue> {
        if self.at != 0 {
            return Err(self.refuse("an xml declaration stands at the start"));
        }
        let content = raw.strip_prefix("<?xml").and_then(|rest| rest.strip_suffix("?>")).unwrap_or_default();
        let mut expected = ["version", "encoding", "standalone"].iter();
        let mut is_first = true;
        for attribute in Attributes::of(content) {
            let attribute = attribute.map_err(|wrong| self.refuse(wrong))?;
            if !expected.any(|name| *name == attribute.name) || (is_first && attribute.name != "version") {
                return Err(self.refuse("an xml declaration has a version, an encoding and standalone"));
            }
            is_first = false;
            match (attribute.name, attribute.raw) {
                ("version", version) if version != "1.0" => {
                    return Err(self.refuse("the version of xml is 1.0"));
                }
                ("encoding", name) if !name.eq_ignore_ascii_case("utf-8") => {
                    return Err(self.refuse("the encoding of fhir is utf-8"));
                }
                ("standalone", answer) if !["yes", "no"].contains(&answer) => {
                    return Err(self.refuse("standalone is yes or no"));
                }
                _ => {}
            }
        }
        if is_first { Err(self.refuse("an xml declaration has a version")) } else { Ok(()) }
    }

    fn narrative(&mut self, event: &Event<'_>, raw: &'i str) -> Result<(), Issue> {
        let Some(mut div) = self.div.take() else { return Ok(()) };
        let done = match event {
            Event::Start(_) | Event::Empty(_) => {
                self.open_in_narrative(&mut div, raw, matches!(event, Event::Empty(_)))
            }
            Event::End(_) => {
                div.close(raw, &mut self.scope);
                Ok(())
            }
            other => div.content(other, raw).map_err(|wrong| self.refuse_within("div", wrong)),
        };
        self.div = Some(div);
        done?;
        self.end_narrative();
        Ok(())
    }

    fn open_in_narrative(&mut self, div: &mut Div, raw: &'i str, is_empty: bool) -> Result<(), Issue> {
        let tag = Tag::of(raw, is_empty).map_err(|wrong| self.refuse_within("div", wrong))?;
        let depth = self.frames.last().map_or(0, |frame| frame.depth);
        self.check_depth("div", depth + div.depth() + 1)?;
        let attributes =
            div.open(&tag, is_empty, &mut self.scope).map_err(|wrong| self.refuse_within("div", wrong))?;
        self.count(attributes)
    }

    /// Puts the narrative into its parent when its last element has ended.
    fn end_narrative(&mut self) {
        if let Some(div) = self.div.take_if(|div| div.depth() == 0)
            && let Some(parent) = self.frames.last_mut()
        {
            parent.object.insert("div".to_owned(), Value::String(div.into_text()));
        }
    }

    /// An element begins. False when it was a narrative, which is not on the stack.
    fn open(&mut self, tag: &Tag<'i>, is_empty: bool) -> Result<bool, Issue> {
        let definition = match self.frames.last() {
            Some(Frame { content: Content::Wrapper, .. }) | None => None,
            Some(frame) => frame.definition,
        };
        let Some(definition) = definition else {
            self.scope.open();
            let frame = self.resource(tag)?;
            self.enter(tag, frame)?;
            return Ok(true);
        };
        let Some(child) = definition.child(tag.local).filter(|child| !child.attribute) else {
            return Err(self.refuse_within(&printable(tag.local), "is no element of the type"));
        };
        if self.occurs_again(child) {
            let text = if child.choice.is_some() { "has more than one type or value" } else { "occurs once" };
            return Err(self.refuse_within(tag.local, text));
        }
        if matches!(child.kind, Kind::Primitive(Primitive::Xhtml)) {
            let mut div = Div::default();
            self.open_in_narrative(&mut div, tag.raw, is_empty)?;
            self.div = Some(div);
            self.end_narrative();
            return Ok(false);
        }
        self.scope.open();
        let frame = self.member(tag, child)?;
        self.enter(tag, frame)?;
        Ok(true)
    }

    /// Notes that an element occurs; true when it was there and may not repeat.
    fn occurs_again(&mut self, child: &Child) -> bool {
        let Some(parent) = self.frames.last_mut() else { return false };
        let bit = 1_u128 << child.order;
        let again = parent.seen & bit != 0 && !child.repeats;
        parent.seen |= bit;
        again
    }

    /// A resource begins: the root, or what a wrapper holds.
    fn resource(&self, tag: &Tag<'i>) -> Result<Frame<'i>, Issue> {
        let parent = self.frames.last();
        if self.root.is_some() || parent.is_some_and(|wrapper| !wrapper.object.is_empty()) {
            return Err(self.refuse("there is more than one resource"));
        }
        let known = ResourceType::from_name(tag.local);
        let Some(definition) = known.and_then(|known| SCHEMA.get(known.name())) else {
            let text = "is not a resource type of fhir r4";
            return Err(self.refuse_within(&printable(tag.local), text));
        };
        let depth = parent.map_or(0, |wrapper| wrapper.depth) + 1;
        self.check_depth("", depth)?;
        Ok(Frame {
            name: if parent.is_some() { "" } else { tag.local },
            item: None,
            content: Content::Resource,
            definition: Some(definition),
            object: Map::from_iter([("resourceType".to_owned(), Value::String(tag.local.to_owned()))]),
            seen: 0,
            is_padded: false,
            depth,
        })
    }

    /// An element of the schema begins.
    fn member(&self, tag: &Tag<'i>, child: &'static Child) -> Result<Frame<'i>, Issue> {
        let (content, definition) = match child.kind {
            Kind::Primitive(primitive) => (Content::Primitive(primitive, None), SCHEMA.get("Element")),
            Kind::Resource => (Content::Wrapper, None),
            Kind::Object(number) => (Content::Object, number.map(|number| SCHEMA.at(number))),
        };
        let parent = self.frames.last();
        let before = parent.and_then(|parent| parent.object.get(tag.local)).and_then(Value::as_array);
        let around = parent.map_or(0, |parent| parent.depth) + usize::from(child.repeats);
        let depth = around + usize::from(!matches!(content, Content::Wrapper));
        // a primitive is a level only where it has a sibling, which its children find out
        let own = if matches!(content, Content::Primitive(..)) { around } else { depth };
        self.check_depth(tag.local, own)?;
        Ok(Frame {
            name: tag.local,
            item: child.repeats.then(|| before.map_or(0, Vec::len)),
            content,
            definition,
            object: Map::new(),
            seen: 0,
            is_padded: false,
            depth,
        })
    }

    /// Puts an element on the stack, with what its attributes say.
    fn enter(&mut self, tag: &Tag<'i>, frame: Frame<'i>) -> Result<(), Issue> {
        self.frames.push(frame);
        for attribute in tag.attributes() {
            self.count(1)?;
            let attribute = attribute.map_err(|wrong| self.refuse(wrong))?;
            let declared = self.scope.declare(&attribute).map_err(|wrong| self.refuse(wrong))?;
            if declared.is_none() {
                let value = tag::value(attribute.raw)
                    .ok_or_else(|| self.refuse("an entity is not one of xml's own five"))?;
                self.attribute(attribute.name, &value)?;
            }
        }
        match self.scope.resolve(tag.prefix) {
            Ok(Space::Fhir) => Ok(()),
            Ok(_) => Err(self.refuse("is not in the namespace http://hl7.org/fhir")),
            Err(wrong) => Err(self.refuse(wrong)),
        }
    }

    /// An attribute of the element on top of the stack.
    fn attribute(&mut self, name: &str, value: &str) -> Result<(), Issue> {
        let Some(frame) = self.frames.last() else { return Ok(()) };
        let is_known = match &frame.content {
            Content::Primitive(..) if name == "value" => true,
            Content::Primitive(..) | Content::Object => {
                frame.definition.and_then(|of| of.child(name)).is_some_and(|child| child.attribute)
            }
            Content::Resource | Content::Wrapper => false,
        };
        if !is_known {
            return Err(self.refuse(&format!("has no attribute {}", printable(name))));
        }
        if value.is_empty() {
            return Err(self.refuse(&format!("the attribute {name} is empty")));
        }
        if matches!(frame.content, Content::Primitive(..)) && name != "value" {
            let depth = frame.depth;
            self.check_depth("", depth)?;
        }
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        let is_again = match &mut frame.content {
            Content::Primitive(primitive, known) if name == "value" => {
                match primitive_value(*primitive, value) {
                    Ok(value) => known.replace(value).is_some(),
                    Err(text) => return Err(Issue { code: IssueCode::Value, ..self.refuse(text) }),
                }
            }
            _ => frame.object.insert(name.to_owned(), Value::String(value.to_owned())).is_some(),
        };
        if is_again { Err(self.refuse("an attribute occurs twice")) } else { Ok(()) }
    }

    /// The element on top of the stack ends.
    fn close(&mut self) -> Result<(), Issue> {
        if let Some(frame) = self.frames.last() {
            let is_empty = frame.object.is_empty();
            match &frame.content {
                Content::Primitive(_, None) if is_empty => {
                    return Err(self.refuse("has no value and no children"));
                }
                Content::Object if is_empty => return Err(self.refuse("has no children")),
                Content::Wrapper if is_empty => return Err(self.refuse("holds no resource")),
                _ => {}
            }
        }
        self.scope.close();
        let Some(mut frame) = self.frames.pop() else { return Err(self.refuse(MALFORMED)) };
        if frame.is_padded {
            pad(&mut frame.object);
        }
        match (self.frames.last_mut(), &frame.content) {
            (None, _) => self.root = Some(frame.object),
            (Some(wrapper), Content::Resource) => wrapper.object = frame.object,
            (Some(parent), _) => parent.put(frame),
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Resource, Issue> {
        match self.root.take() {
            Some(object) if self.frames.is_empty() => Resource::from_value(Value::Object(object)),
            _ => Err(self.refuse("the document ends too early")),
        }
    }

    fn count(&mut self, nodes: usize) -> Result<(), Issue> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > self.limits.nodes_max {
            return Err(self.refuse(&format!("more than {} nodes", self.limits.nodes_max)));
        }
        Ok(())
    }

    fn check_depth(&self, name: &str, depth: usize) -> Result<(), Issue> {
        if depth > self.limits.depth_max {
            let text = format!("nested deeper than {} levels", self.limits.depth_max);
            return Err(self.refuse_within(name, &text));
        }
        Ok(())
    }

    /// An issue of the element that is open.
    fn refuse(&self, text: &str) -> Issue {
        self.refuse_within(if self.div.is_some() { "div" } else { "" }, text)
    }

    /// An issue of a child of the element that is open.
    fn refuse_within(&self, name: &str, text: &str) -> Issue {
        let mut place = String::new();
        let steps = self.frames.iter().map(|frame| (frame.name, frame.item)).chain([(name, None)]);
        for (name, item) in steps.filter(|(name, _)| !name.is_empty()) {
            if !place.is_empty() {
                place.push('.');
            }
            place.push_str(name);
            if let Some(item) = item {
                place.push_str(&format!("[{item}]"));
            }
        }
        let issue = json::refuse(self.text.as_bytes(), self.at, text);
        if place.is_empty() { issue } else { issue.at(place) }
    }
}

impl Frame<'_> {
    /// Takes the value of a child that has ended.
    fn put(&mut self, child: Frame<'_>) {
        let (value, sibling) = match child.content {
            Content::Primitive(_, value) => (value, Some(child.object).filter(|object| !object.is_empty())),
            _ => (Some(Value::Object(child.object)), None),
        };
        let Some(item) = child.item else {
            if let Some(value) = value {
                self.object.insert(child.name.to_owned(), value);
            }
            if let Some(sibling) = sibling {
                self.object.insert(format!("_{}", child.name), Value::Object(sibling));
            }
            return;
        };
        self.is_padded |= value.is_none() || sibling.is_some();
        push(&mut self.object, child.name.to_owned(), item, value.unwrap_or(Value::Null));
        if let Some(sibling) = sibling {
            push(&mut self.object, format!("_{}", child.name), item, Value::Object(sibling));
        }
    }
}

/// Puts an item at its place in a list that is not longer than that; nulls stand for those that are missing before it.
fn push(object: &mut Map<String, Value>, name: String, at: usize, value: Value) {
    if let Value::Array(items) = object.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
        items.resize(at, Value::Null);
        items.push(value);
    }
}

/// Makes lists of primitives and their siblings equally long, and drops a list that has nulls only.
fn pad(object: &mut Map<String, Value>) {
    let siblings: Vec<String> = object.keys().filter(|name| name.starts_with('_')).cloned().collect();
    for name in siblings {
        let plain = &name[1..];
        let Some(Value::Array(values)) = object.get(plain) else { continue };
        let length = values.len();
        if values.iter().all(Value::is_null) {
            object.shift_remove(plain);
        }
        if let Some(Value::Array(siblings)) = object.get_mut(&name) {
            siblings.resize(length, Value::Null);
        }
    }
}

/// The JSON of a primitive.
fn primitive_value(primitive: Primitive, text: &str) -> Result<Value, Wrong> {
    match primitive {
        Primitive::Boolean => match text {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err("is true or false"),
        },
        Primitive::Integer | Primitive::UnsignedInt | Primitive::PositiveInt | Primitive::Decimal => {
            let is_bare = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
            let number = text.parse::<Number>().ok().filter(|_| is_bare);
            number.map(Value::Number).ok_or("is a number as json writes it")
        }
        _ => Ok(Value::String(text.to_owned())),
    }
}

//! Extraction plans: one tree of steps for each resource type, read from the lines `build/search.rs` writes.

use std::iter::Peekable;

use crate::ResourceType;

/// A step into a resource, what stands there, and the steps from there.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) step: Step,
    pub(super) leaves: Box<[Leaf]>,
    pub(super) children: Box<[Node]>,
}

/// How to get from an element to others.
#[derive(Debug)]
pub(super) enum Step {
    /// A member; the items of a list, or one of them.
    Member(&'static str, Option<usize>),
    /// Extensions with this URL.
    Extension(&'static str),
    /// The element itself when it has an extension with this URL.
    HasExtension(&'static str),
    /// The element itself when a member has this text.
    Where(&'static str, &'static str),
    /// The Reference itself when it points to this type.
    ResolvesTo(ResourceType),
    /// The resource.
    Root,
    /// One boolean: whether any of the members below exists and is not `false`.
    Exists,
    /// The element is one tuple of a composite parameter at this position; the children are its components.
    Composite(usize),
    /// A component of a composite.
    Component,
}

/// What an element offers to a parameter.
#[derive(Debug)]
pub(super) struct Leaf {
    /// Position of the parameter.
    pub(super) parameter: usize,
    /// How its value is read.
    pub(super) kind: Kind,
}

/// The shape of a value, known from its data type; named after the FHIR types it reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// A text as token; the system is that of the element's required binding.
    Code(Option<&'static str>),
    Boolean,
    Coding,
    Concept,
    Identifier,
    Contact,
    Reference,
    /// canonical or uri as reference.
    Canonical,
    /// A resource within a Bundle.
    Resource,
    String,
    Name,
    Address,
    /// The `text` of a CodeableConcept or Annotation, and displays.
    Text,
    Date,
    Period,
    Timing,
    Number,
    Quantity,
    Money,
    Range,
    Uri,
    /// canonical: with and without its version.
    CanonicalUri,
    /// For `Step::Exists` only.
    Exists,
}

/// The tree below `depth`; `None` when a line is not understood.
pub(super) fn nodes(
    lines: &mut Peekable<impl Iterator<Item = &'static str>>,
    depth: usize,
) -> Option<Box<[Node]>> {
    let mut nodes = Vec::new();
    while let Some(line) = lines.peek() {
        let mut fields = line.split('\t').skip(1);
        if fields.next()?.parse() != Ok(depth) {
            break;
        }
        let (step, leaves) = (step(fields.next()?)?, leaves(fields.next()?)?);
        lines.next();
        nodes.push(Node { step, leaves, children: self::nodes(lines, depth + 1)? });
    }
    Some(nodes.into())
}

fn step(text: &'static str) -> Option<Step> {
    let rest = text.get(1..)?;
    Some(match text.as_bytes().first()? {
        b'.' => match rest.strip_suffix(']').and_then(|rest| rest.split_once('[')) {
            Some((name, item)) => Step::Member(name, Some(item.parse().ok()?)),
            None => Step::Member(rest, None),
        },
        b'+' => Step::Extension(rest),
        b'^' => Step::HasExtension(rest),
        b'?' => {
            let (member, wanted) = rest.split_once('=')?;
            Step::Where(member, wanted)
        }
        b'~' => Step::ResolvesTo(ResourceType::from_name(rest)?),
        b'%' => Step::Root,
        b'!' => Step::Exists,
        b'$' => Step::Composite(rest.parse().ok()?),
        b'#' => Step::Component,
        _ => return None,
    })
}

fn leaves(text: &'static str) -> Option<Box<[Leaf]>> {
    text.split(';').filter(|leaf| !leaf.is_empty()).map(leaf).collect()
}

fn leaf(text: &'static str) -> Option<Leaf> {
    let (position, kind) = text.split_once(':')?;
    let kind = match kind {
        "code" => Kind::Code(None),
        "boolean" => Kind::Boolean,
        "coding" => Kind::Coding,
        "concept" => Kind::Concept,
        "identifier" => Kind::Identifier,
        "contact" => Kind::Contact,
        "reference" => Kind::Reference,
        "canonical" => Kind::Canonical,
        "resource" => Kind::Resource,
        "string" => Kind::String,
        "name" => Kind::Name,
        "address" => Kind::Address,
        "text" => Kind::Text,
        "date" => Kind::Date,
        "period" => Kind::Period,
        "timing" => Kind::Timing,
        "number" => Kind::Number,
        "quantity" => Kind::Quantity,
        "money" => Kind::Money,
        "range" => Kind::Range,
        "uri" => Kind::Uri,
        "canonical-uri" => Kind::CanonicalUri,
        "exists" => Kind::Exists,
        bound => Kind::Code(Some(bound.strip_prefix("code=")?)),
    };
    Some(Leaf { parameter: position.parse().ok()?, kind })
}

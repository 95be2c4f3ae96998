//! Bounds before the tree: what a hostile body could make expensive is counted in one pass that keeps nothing.

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::Limits;
use super::decode::Decoded;
use crate::Fault;

/// Namespaces in scope of one element. The tree compares each of them with each where an element declares another.
const NAMESPACES_MAX: usize = 64;
/// Bytes of the name of an element or attribute; those of HL7 v3 have 40 at most. A place names every element above it, so that long names
/// in deep elements are written again for each of their children.
const NAME_BYTES_MAX: usize = 256;

struct Scan<'l> {
    limits: &'l Limits,
    nodes: usize,
    /// For each open element the namespace declarations in scope.
    open: Vec<usize>,
}

/// Refuses a document type, and more of anything than the limits allow.
pub(super) fn scan(decoded: &Decoded<'_>, limits: &Limits) -> Result<(), Fault> {
    let mut reader = Reader::from_str(&decoded.text);
    let mut scan = Scan { limits, nodes: 0, open: Vec::with_capacity(limits.depth_max) };
    loop {
        let before = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
        let event = reader.read_event();
        let counted = match &event {
            Ok(Event::Eof) => return Ok(()),
            Ok(event) => scan.count(event),
            Err(_) => {
                let at = usize::try_from(reader.error_position()).unwrap_or(usize::MAX);
                return Err(Fault::wrong(0, decoded.place(at), "the xml is not well-formed"));
            }
        };
        if let Err(text) = counted {
            return Err(Fault::wrong(0, decoded.place(before), text));
        }
    }
}

impl Scan<'_> {
    fn count(&mut self, event: &Event<'_>) -> Result<(), String> {
        match event {
            Event::Start(start) => {
                let in_scope = self.element(start)?;
                self.open.push(in_scope);
            }
            Event::Empty(start) => drop(self.element(start)?),
            Event::End(_) => drop(self.open.pop()),
            Event::DocType(_) => return Err("a document type is not accepted".to_owned()),
            // references are pieces of a text that counts
            Event::GeneralRef(_) | Event::Decl(_) | Event::Eof => {}
            Event::Text(_) | Event::CData(_) | Event::Comment(_) | Event::PI(_) => self.node(1)?,
        }
        Ok(())
    }

    /// Counts an element with its attributes; returns the namespaces in its scope.
    fn element(&mut self, start: &BytesStart<'_>) -> Result<usize, String> {
        if self.open.len() >= self.limits.depth_max {
            return Err(format!("elements are nested deeper than {}", self.limits.depth_max));
        }
        refuse_long(start.name().as_ref())?;
        let (mut attributes, mut declared) = (0, 0);
        for attribute in start.attributes().with_checks(false) {
            attributes += 1;
            if attributes > self.limits.attributes_max {
                return Err(format!("an element has more than {} attributes", self.limits.attributes_max));
            }
            let attribute = attribute.map_err(|_| "the xml is not well-formed".to_owned())?;
            refuse_long(attribute.key.as_ref())?;
            declared += usize::from(attribute.key.as_namespace_binding().is_some());
        }
        let in_scope = self.open.last().copied().unwrap_or(0) + declared;
        if in_scope > NAMESPACES_MAX {
            return Err(format!("more than {NAMESPACES_MAX} namespaces are in scope"));
        }
        // the tree copies what is in scope for each element that declares a namespace
        self.node(1 + attributes + if declared > 0 { in_scope } else { 0 })?;
        Ok(in_scope)
    }

    fn node(&mut self, count: usize) -> Result<(), String> {
        self.nodes = self.nodes.saturating_add(count);
        if self.nodes > self.limits.nodes_max {
            return Err(format!("the body has more than {} nodes", self.limits.nodes_max));
        }
        Ok(())
    }
}

fn refuse_long(name: &str) -> Result<(), String> {
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("a name has more than {NAME_BYTES_MAX} bytes"));
    }
    Ok(())
}

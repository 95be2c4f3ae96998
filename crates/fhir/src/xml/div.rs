//! A narrative's `div`, <https://hl7.org/fhir/R4/narrative.html>: taken as it is written, once it is known to be well-formed XHTML.
//!
//! Two things are not left as they are. Prefixes are dropped (`<h:div>` is `<div>`), because what looks for tags in a narrative knows
//! them by their plain names. And a `div` that does not declare the namespace itself declares it afterwards, because as a string it
//! stands alone.

use quick_xml::Reader;
use quick_xml::events::Event;

use super::XHTML;
use super::scope::{Scope, Space};
use super::tag::{self, Tag, Wrong};

/// Attributes of one element: each is compared with each.
const ATTRIBUTES_MAX: usize = 64;

/// A `div` that is being read.
#[derive(Default)]
pub(super) struct Div {
    out: String,
    /// Elements that are open; none = the `div` is complete.
    depth: usize,
}

impl Div {
    /// Elements that are open.
    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    /// The text, once nothing is open.
    pub(super) fn into_text(self) -> String {
        self.out
    }

    /// An element begins, or is there without content. Returns how many attributes it has.
    pub(super) fn open<'i>(
        &mut self,
        tag: &Tag<'i>,
        is_empty: bool,
        scope: &mut Scope<'i>,
    ) -> Result<usize, Wrong> {
        scope.open();
        let is_first = self.out.is_empty();
        let (count, declares) = attributes(tag, scope)?;
        if scope.resolve(tag.prefix)? != Space::Xhtml {
            return Err("an element of a narrative is not in the namespace of xhtml");
        }
        if is_first && tag.local != "div" {
            return Err("a narrative is a div");
        }
        if tag.prefix.is_empty() && (declares || !is_first) {
            self.out.push_str(tag.raw);
        } else {
            self.out.push('<');
            self.out.push_str(tag.local);
            if is_first && !declares {
                tag::push_attribute(&mut self.out, "xmlns", XHTML);
            }
            self.out.push_str(tag.rest);
            self.out.push_str(if is_empty { "/>" } else { ">" });
        }
        if is_empty {
            scope.close();
        } else {
            self.depth += 1;
        }
        Ok(count)
    }

    /// An element ends.
    pub(super) fn close(&mut self, raw: &str, scope: &mut Scope<'_>) {
        scope.close();
        self.depth = self.depth.saturating_sub(1);
        match raw.split_once(':') {
            Some((_, local)) => {
                self.out.push_str("</");
                self.out.push_str(local);
            }
            None => self.out.push_str(raw),
        }
    }

    /// What is between tags.
    pub(super) fn content(&mut self, event: &Event<'_>, raw: &str) -> Result<(), Wrong> {
        match event {
            Event::Text(_) if raw.contains("]]>") => return Err("the xml is not well-formed"),
            Event::GeneralRef(name) if tag::reference(name).is_none() => {
                return Err("an entity is not one of xml's own five");
            }
            Event::Text(_) | Event::GeneralRef(_) | Event::CData(_) | Event::Comment(_) => {}
            _ => return Err("a narrative has elements, texts and comments only"),
        }
        self.out.push_str(raw);
        Ok(())
    }
}

/// Checks the attributes; says how many there are, and whether the default namespace is declared among them.
fn attributes<'i>(tag: &Tag<'i>, scope: &mut Scope<'i>) -> Result<(usize, bool), Wrong> {
    let mut names: Vec<&str> = Vec::new();
    let mut declares = false;
    for attribute in tag.attributes() {
        let attribute = attribute?;
        if names.len() >= ATTRIBUTES_MAX {
            return Err("an element has more than 64 attributes");
        }
        let (prefix, _) = tag::split(attribute.name)?;
        if names.contains(&attribute.name) {
            return Err("an attribute occurs twice");
        }
        names.push(attribute.name);
        match scope.declare(&attribute)? {
            Some(Space::Xhtml) => declares |= prefix.is_empty(),
            Some(_) if prefix.is_empty() => {
                return Err("a narrative declares another namespace than that of xhtml");
            }
            // a prefix that nothing of the narrative can have
            Some(_) => {}
            None if !["", "xml"].contains(&prefix) => {
                return Err("an attribute of a narrative is of another namespace");
            }
            None => {}
        }
        if tag::value(attribute.raw).is_none() {
            return Err("an entity is not one of xml's own five");
        }
    }
    Ok((names.len(), declares))
}

/// Checks a `div` that came as a string, and makes it fit to stand in XML. Blanks around it are dropped.
pub(super) fn check(text: &str) -> Result<String, Wrong> {
    const BROKEN: Wrong = "the xhtml is not well-formed";
    if !tag::fits(text) {
        return Err("holds a character that xml cannot carry");
    }
    let text = text.trim_matches(tag::is_blank);
    // a div that declares nothing means xhtml
    let mut scope = Scope::default();
    scope.declare(&tag::Attribute { name: "xmlns", raw: XHTML })?;
    let mut div = Div::default();
    let mut reader = Reader::from_str(text);
    reader.config_mut().enable_all_checks(true);
    loop {
        let before = position(&reader);
        let event = reader.read_event().map_err(|_| BROKEN)?;
        let raw = text.get(before..position(&reader)).ok_or(BROKEN)?;
        let is_over = div.depth == 0 && !div.out.is_empty();
        match &event {
            Event::Eof if is_over => return Ok(div.out),
            Event::Eof => return Err(BROKEN),
            _ if is_over => return Err("a narrative is one div"),
            Event::Start(_) => drop(div.open(&Tag::of(raw, false)?, false, &mut scope)?),
            Event::Empty(_) => drop(div.open(&Tag::of(raw, true)?, true, &mut scope)?),
            Event::End(_) => div.close(raw, &mut scope),
            _ if div.out.is_empty() => return Err("a narrative is a div"),
            other => div.content(other, raw)?,
        }
    }
}

/// Bytes read so far.
pub(super) fn position(reader: &Reader<&[u8]>) -> usize {
    usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX)
}

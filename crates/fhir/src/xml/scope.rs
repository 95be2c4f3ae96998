//! Which namespace a prefix stands for, <https://www.w3.org/TR/xml-names/>. Only the two namespaces of FHIR are told apart, so that
//! no text of a namespace is kept.

use super::tag::{self, Attribute, Wrong};
use super::{FHIR, XHTML};

/// Declarations in scope of one element: each prefix is looked for among them.
const DECLARATIONS_MAX: usize = 64;

/// A namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    Fhir,
    Xhtml,
    /// That of `xml:lang` and its like.
    Xml,
    /// No namespace, or another one.
    Other,
}

/// The declarations in scope.
#[derive(Default)]
pub(super) struct Scope<'i> {
    declared: Vec<(&'i str, Space)>,
    /// For each open element how many declarations are those of the elements around it.
    open: Vec<usize>,
}

impl<'i> Scope<'i> {
    /// An element begins: what is declared from here on ends with it.
    pub(super) fn open(&mut self) {
        self.open.push(self.declared.len());
    }

    /// An element ends.
    pub(super) fn close(&mut self) {
        self.declared.truncate(self.open.pop().unwrap_or(0));
    }

    /// Takes an attribute that is a declaration of a namespace; `None` when it is another attribute.
    pub(super) fn declare(&mut self, attribute: &Attribute<'i>) -> Result<Option<Space>, Wrong> {
        let prefix = match attribute.name.split_once(':') {
            None if attribute.name == "xmlns" => "",
            Some(("xmlns", prefix)) => prefix,
            _ => return Ok(None),
        };
        let uri = tag::value(attribute.raw).ok_or("an entity is not one of xml's own five")?;
        if ["xml", "xmlns"].contains(&prefix) || (!prefix.is_empty() && uri.is_empty()) {
            return Err("a declaration of a namespace is not well-formed");
        }
        let space = match &*uri {
            FHIR => Space::Fhir,
            XHTML => Space::Xhtml,
            _ => Space::Other,
        };
        let own = self.open.last().copied().unwrap_or(0);
        if self.declared[own..].iter().any(|(known, _)| *known == prefix) {
            return Err("an attribute occurs twice");
        }
        if self.declared.len() >= DECLARATIONS_MAX {
            return Err("more than 64 namespaces are in scope");
        }
        self.declared.push((prefix, space));
        Ok(Some(space))
    }

    /// What a prefix stands for; none is that of the default namespace.
    pub(super) fn resolve(&self, prefix: &str) -> Result<Space, Wrong> {
        if prefix == "xml" {
            return Ok(Space::Xml);
        }
        let found = self.declared.iter().rev().find(|(known, _)| *known == prefix).map(|(_, space)| *space);
        match found {
            None if prefix.is_empty() => Ok(Space::Other),
            found => found.ok_or("a prefix stands for no namespace"),
        }
    }
}

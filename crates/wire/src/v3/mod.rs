//! HL7 v3 in XML: bounds before the tree, the transmission wrapper, SOAP 1.1 and 1.2, acknowledgements. XML ITS 1.0, MCCI.
//!
//! The body is decoded and scanned with limits before a tree is built of it; the tree refuses document types and loads nothing.
//! Names are compared by namespace, never by prefix. Faults name places, never values.

mod acknowledge;
mod decode;
mod scan;
mod soap;
mod wrapper;

use std::ops::Range;

use roxmltree::{Document, Node};

pub use self::acknowledge::{Ack, acknowledge};
pub use self::soap::{Envelope, SoapVersion, Trouble};
pub use self::wrapper::{Id, Wrapper};
use crate::Fault;

/// The namespace of HL7 v3.
pub const NAMESPACE: &str = "urn:hl7-org:v3";
/// The interaction that answers others.
pub const ACKNOWLEDGEMENT: &str = "MCCI_IN000002UV01";

/// Limits of a body.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the body as sent.
    pub bytes_max: usize,
    /// Nested elements.
    pub depth_max: usize,
    /// Attributes of one element.
    pub attributes_max: usize,
    /// Elements, attributes, texts, comments and namespaces in scope in all.
    pub nodes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes_max: 16 * 1024 * 1024, depth_max: 64, attributes_max: 64, nodes_max: 1_000_000 }
    }
}

/// One interaction: decoded, scanned, its wrapper read.
#[derive(Clone, Debug)]
pub struct Message {
    /// The whole body, decoded, without byte order mark.
    pub text: String,
    /// The transmission wrapper.
    pub wrapper: Wrapper,
    /// The SOAP envelope around it; `None` = bare.
    pub envelope: Option<Envelope>,
    /// Where the interaction's element lies in `text`.
    pub range: Range<usize>,
    /// Bytes of the original before `text`, when the two differ in nothing else.
    skipped: Option<usize>,
}

/// Why a body is no interaction.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// Not well-formed, a limit exceeded, a document type, no character set that fits; or nothing of HL7 v3.
    Xml(Fault),
    /// The envelope cannot be taken; answered as a SOAP fault in its own version.
    Soap(Envelope, Trouble),
}

impl Message {
    /// Reads a body.
    ///
    /// # Errors
    /// What the body is instead.
    pub fn read(bytes: &[u8], limits: &Limits) -> Result<Self, Refusal> {
        if bytes.len() > limits.bytes_max {
            let text = format!("the body is larger than {} bytes", limits.bytes_max);
            return Err(Refusal::Xml(Fault::wrong(0, format!("byte {}", limits.bytes_max), text)));
        }
        let decoded = decode::decode(bytes).map_err(Refusal::Xml)?;
        scan::scan(&decoded, limits).map_err(Refusal::Xml)?;
        let document = tree(&decoded).map_err(Refusal::Xml)?;
        let root = document.root_element();
        let envelope = soap::envelope(root);
        let node = match &envelope {
            None => root,
            Some(found) => soap::content(root).map_err(|trouble| Refusal::Soap(found.clone(), trouble))?,
        };
        if node.tag_name().namespace() != Some(NAMESPACE) {
            return Err(foreign(envelope, &decoded, node));
        }
        let (wrapper, range) = (Wrapper::read(node), node.range());
        drop(document);
        let skipped = decoded.skipped;
        Ok(Self { text: decoded.text.into_owned(), wrapper, envelope, range, skipped })
    }

    /// Hands the interaction's element to `look`.
    pub fn with_tree<T>(&self, look: impl FnOnce(Node<'_, '_>) -> T) -> Option<T> {
        let document = Document::parse(&self.text).ok()?;
        let root = document.root_element();
        let node = if self.envelope.is_some() { soap::content(root).ok()? } else { root };
        Some(look(node))
    }

    /// The bytes that name this interaction among repeats: the whole body, or within SOAP the interaction alone, since a
    /// sender that tries again makes a new envelope.
    pub fn identity<'b>(&'b self, original: &'b [u8]) -> &'b [u8] {
        if self.envelope.is_some() { self.text[self.range.clone()].as_bytes() } else { original }
    }

    /// The range of the original that a range of `text` was, when known.
    pub fn bytes_of(&self, range: &Range<usize>) -> Option<(u32, u32)> {
        let skipped = self.skipped?;
        Some((u32::try_from(range.start + skipped).ok()?, u32::try_from(range.end + skipped).ok()?))
    }

    /// An answer to this interaction as a whole document, in its wrapping.
    pub fn wrap(&self, answer: &str) -> String {
        soap::document(self.envelope.as_ref(), answer)
    }
}

/// A tree of a text that was scanned. Its own errors carry names and values of the text, so that none of their words are used.
fn tree<'t>(decoded: &'t decode::Decoded<'_>) -> Result<Document<'t>, Fault> {
    Document::parse(&decoded.text).map_err(|error| {
        let position = error.pos();
        let text = match error {
            roxmltree::Error::UnknownNamespace(..) => "a prefix is bound to no namespace",
            roxmltree::Error::UnknownEntityReference(..) => {
                "an entity is not declared; only the five of xml are known"
            }
            roxmltree::Error::DuplicatedAttribute(..) => "an element has an attribute twice",
            roxmltree::Error::NonXmlChar(..) => "a character is not allowed in xml",
            roxmltree::Error::DtdDetected => "a document type is not accepted",
            _ => "the xml is not well-formed",
        };
        Fault::wrong(0, decoded.place_of(position.row, position.col), text)
    })
}

fn foreign(envelope: Option<Envelope>, decoded: &decode::Decoded<'_>, node: Node<'_, '_>) -> Refusal {
    match envelope {
        Some(envelope) => Refusal::Soap(envelope, Trouble::NotHl7),
        None => {
            let text = "the root element is not of the namespace urn:hl7-org:v3";
            Refusal::Xml(Fault::wrong(0, decoded.place(node.range().start), text))
        }
    }
}

#[cfg(test)]
mod tests;

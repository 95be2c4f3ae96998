//! The transmission wrapper: enough for the answer, the duplicate key and routing, whatever the rest of the interaction is. MCCI_MT000100UV01.

use roxmltree::Node;

use super::{ACKNOWLEDGEMENT, NAMESPACE};

/// An instance identifier, data type II.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Id {
    /// An OID or UUID.
    pub root: String,
    /// Empty when the root alone identifies.
    pub extension: String,
}

/// The wrapper of an interaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wrapper {
    /// The interaction's artefact: the local name of its element, `PRPA_IN201301UV02`.
    pub interaction: String,
    /// `interactionId/@extension`, when sent.
    pub declared: Option<String>,
    /// `id`: what the answer refers to.
    pub id: Option<Id>,
    /// `creationTime/@value`.
    pub created: Option<String>,
    /// `processingCode/@code`: P production, T training, D debugging.
    pub processing: Option<String>,
    /// `acceptAckCode/@code`. Over HTTP every interaction is answered, whatever it says: the answer travels in the response.
    pub accept_ack: Option<String>,
    /// The first `sender/device/id`.
    pub sender: Option<Id>,
    /// The first `receiver/device/id`.
    pub receiver: Option<Id>,
}

impl Wrapper {
    /// Reads the wrapper of an interaction's element.
    pub(super) fn read(node: Node<'_, '_>) -> Self {
        let code = |name: &str| attribute(child(node, name)?, "code");
        Self {
            interaction: node.tag_name().name().to_owned(),
            declared: child(node, "interactionId").and_then(|id| attribute(id, "extension")),
            id: child(node, "id").and_then(id),
            created: child(node, "creationTime").and_then(|time| attribute(time, "value")),
            processing: code("processingCode"),
            accept_ack: code("acceptAckCode"),
            sender: device(node, "sender"),
            receiver: device(node, "receiver"),
        }
    }

    /// Whether the interaction is itself an acknowledgement, which is never acknowledged.
    pub fn is_acknowledgement(&self) -> bool {
        self.interaction == ACKNOWLEDGEMENT
    }
}

impl Id {
    /// `root` or `root^extension`: a key, and what people see.
    pub fn joined(&self) -> String {
        if self.extension.is_empty() {
            self.root.clone()
        } else {
            format!("{}^{}", self.root, self.extension)
        }
    }
}

fn device(node: Node<'_, '_>, role: &str) -> Option<Id> {
    id(child(child(child(node, role)?, "device")?, "id")?)
}

/// An II; one without root or with a null flavour is none.
fn id(node: Node<'_, '_>) -> Option<Id> {
    let root = attribute(node, "root").filter(|_| node.attribute("nullFlavor").is_none())?;
    Some(Id { root, extension: attribute(node, "extension").unwrap_or_default() })
}

fn child<'t, 'i>(node: Node<'t, 'i>, name: &str) -> Option<Node<'t, 'i>> {
    node.children().find(|child| child.has_tag_name((NAMESPACE, name)))
}

fn attribute(node: Node<'_, '_>, name: &str) -> Option<String> {
    let value = node.attribute(name)?.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

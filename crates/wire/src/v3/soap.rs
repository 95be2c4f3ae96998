//! SOAP 1.1 and 1.2 around an interaction, recognised by namespace; WS-Addressing as far as an answer needs it.

use roxmltree::Node;

use super::ACKNOWLEDGEMENT;
use super::acknowledge::escape;

const SOAP_11: &str = "http://schemas.xmlsoap.org/soap/envelope/";
const SOAP_12: &str = "http://www.w3.org/2003/05/soap-envelope";
/// WS-Addressing 1.0, and the submission many senders still use.
const ADDRESSING: [&str; 2] =
    ["http://www.w3.org/2005/08/addressing", "http://schemas.xmlsoap.org/ws/2004/08/addressing"];
/// Roles (1.2) and actors (1.1) that are ours: the ultimate receiver needs no name.
const OUR_ROLES: [&str; 4] = [
    "",
    "http://schemas.xmlsoap.org/soap/actor/next",
    "http://www.w3.org/2003/05/soap-envelope/role/next",
    "http://www.w3.org/2003/05/soap-envelope/role/ultimateReceiver",
];

/// Which SOAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SoapVersion {
    /// 1.1
    V11,
    /// 1.2
    V12,
}

/// The envelope an interaction came in, as far as the answer's depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Its version.
    pub version: SoapVersion,
    /// `wsa:MessageID` and the namespace it was in.
    pub message_id: Option<(&'static str, String)>,
}

/// What is wrong with an envelope, not with what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There is no Body, or it is empty.
    NoBody,
    /// The Body holds nothing of the namespace `urn:hl7-org:v3`.
    NotHl7,
    /// A header that must be understood is not.
    MustUnderstand,
}

impl Trouble {
    /// For people.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NoBody => "the envelope has no body, or an empty one",
            Self::NotHl7 => "the body holds no interaction of the namespace urn:hl7-org:v3",
            Self::MustUnderstand => "a header that must be understood is not supported",
        }
    }
}

impl SoapVersion {
    const fn namespace(self) -> &'static str {
        match self {
            Self::V11 => SOAP_11,
            Self::V12 => SOAP_12,
        }
    }

    /// The media type of its messages.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::V11 => "text/xml",
            Self::V12 => "application/soap+xml",
        }
    }
}

/// The envelope a root element is.
pub(super) fn envelope(root: Node<'_, '_>) -> Option<Envelope> {
    let version = [SoapVersion::V11, SoapVersion::V12]
        .into_iter()
        .find(|v| root.has_tag_name((v.namespace(), "Envelope")))?;
    let header = root.children().find(|child| child.has_tag_name((version.namespace(), "Header")));
    let message_id = header.and_then(|header| {
        header.children().find_map(|block| {
            let namespace = ADDRESSING.into_iter().find(|n| block.has_tag_name((*n, "MessageID")))?;
            let id = block.text()?.trim();
            (!id.is_empty()).then(|| (namespace, id.to_owned()))
        })
    });
    Some(Envelope { version, message_id })
}

/// The element within the Body.
pub(super) fn content<'t, 'i>(root: Node<'t, 'i>) -> Result<Node<'t, 'i>, Trouble> {
    let namespace = root.tag_name().namespace().unwrap_or_default();
    let header = root.children().find(|child| child.has_tag_name((namespace, "Header")));
    if header.is_some_and(|header| header.children().any(|block| is_demanding(block, namespace))) {
        return Err(Trouble::MustUnderstand);
    }
    let body =
        root.children().find(|child| child.has_tag_name((namespace, "Body"))).ok_or(Trouble::NoBody)?;
    body.children().find(Node::is_element).ok_or(Trouble::NoBody)
}

/// Whether a header block addressed to us must be understood and is not one of WS-Addressing.
fn is_demanding(block: Node<'_, '_>, soap: &str) -> bool {
    let demands = matches!(block.attribute((soap, "mustUnderstand")).map(str::trim), Some("1" | "true"));
    let role = block.attribute((soap, "role")).or(block.attribute((soap, "actor"))).unwrap_or_default();
    let known = block.tag_name().namespace().is_some_and(|namespace| ADDRESSING.contains(&namespace));
    demands && !known && OUR_ROLES.contains(&role.trim())
}

/// A whole document: the answer bare, or in an envelope that relates to the one it answers.
pub(super) fn document(envelope: Option<&Envelope>, answer: &str) -> String {
    let action = format!("urn:hl7-org:v3:{ACKNOWLEDGEMENT}");
    match envelope {
        None => format!("{DECLARATION}{answer}"),
        Some(envelope) => envelope.around(&action, answer),
    }
}

const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

impl Envelope {
    fn around(&self, action: &str, content: &str) -> String {
        let soap = self.version.namespace();
        let header = self.message_id.as_ref().map_or_else(String::new, |(namespace, id)| {
            format!(
                "<soap:Header xmlns:wsa=\"{namespace}\"><wsa:Action>{action}</wsa:Action><wsa:RelatesTo>{}</wsa:RelatesTo></soap:Header>",
                escape(id)
            )
        });
        format!(
            "{DECLARATION}<soap:Envelope xmlns:soap=\"{soap}\">{header}<soap:Body>{content}</soap:Body></soap:Envelope>"
        )
    }

    /// A SOAP fault in this envelope's version. SOAP 1.1 section 4.4, SOAP 1.2 section 5.4.
    pub fn fault(&self, trouble: Trouble) -> String {
        let reason = trouble.reason();
        let code = match (trouble, self.version) {
            (Trouble::MustUnderstand, _) => "MustUnderstand",
            (_, SoapVersion::V11) => "Client",
            (_, SoapVersion::V12) => "Sender",
        };
        let content = match self.version {
            SoapVersion::V11 => format!(
                "<soap:Fault><faultcode>soap:{code}</faultcode><faultstring>{reason}</faultstring></soap:Fault>"
            ),
            SoapVersion::V12 => format!(
                "<soap:Fault><soap:Code><soap:Value>soap:{code}</soap:Value></soap:Code><soap:Reason><soap:Text xml:lang=\"en\">{reason}</soap:Text></soap:Reason></soap:Fault>"
            ),
        };
        let namespace = self.message_id.as_ref().map_or(ADDRESSING[0], |(namespace, _)| namespace);
        self.around(&format!("{namespace}/fault"), &content)
    }
}

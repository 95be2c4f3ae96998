use proptest::prelude::*;

use super::*;
use crate::er7::AckCode;

fn interaction(inner: &str) -> String {
    format!(
        "<PRPA_IN201301UV02 xmlns=\"urn:hl7-org:v3\"><id root=\"1.2\" extension=\"77\"/><creationTime value=\"20240101\"/>\
         <interactionId root=\"2.16.840.1.113883.1.6\" extension=\"PRPA_IN201301UV02\"/><processingCode code=\"T\"/>\
         <acceptAckCode code=\"AL\"/><receiver><device><id root=\"1.2.3.9\"/></device></receiver>\
         <sender><device><id nullFlavor=\"NI\"/></device></sender>{inner}</PRPA_IN201301UV02>"
    )
}

fn read(text: &str) -> Result<Message, Refusal> {
    Message::read(text.as_bytes(), &Limits::default())
}

fn fault(result: Result<Message, Refusal>) -> Fault {
    match result {
        Err(Refusal::Xml(fault)) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_wrapper_is_read_by_namespace_whatever_the_prefix() {
    let default = read(&interaction("")).unwrap().wrapper;
    assert_eq!(default.interaction, "PRPA_IN201301UV02");
    assert_eq!(default.declared.as_deref(), Some("PRPA_IN201301UV02"));
    assert_eq!(default.id, Some(Id { root: "1.2".into(), extension: "77".into() }));
    assert_eq!(default.id.as_ref().unwrap().joined(), "1.2^77");
    assert_eq!((default.created.as_deref(), default.processing.as_deref()), (Some("20240101"), Some("T")));
    assert_eq!(default.accept_ack.as_deref(), Some("AL"));
    assert_eq!(default.receiver.as_ref().unwrap().root, "1.2.3.9");
    assert_eq!(default.sender, None, "a null flavour is no identifier");
    let prefixed = "<h:X_IN1 xmlns:h=\"urn:hl7-org:v3\" xmlns=\"urn:other\"><id root=\"9\"/><h:id root=\"1\"/></h:X_IN1>";
    assert_eq!(read(prefixed).unwrap().wrapper.id.unwrap().root, "1", "the other id is of another namespace");
}

#[test]
fn byte_order_mark_and_declaration_decide_the_character_set() {
    let text = |declaration: &str| format!("{declaration}{}", interaction("<x v=\"Müller\"/>"));
    let utf16: Vec<u8> = text("").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let latin =
        encoding_rs::WINDOWS_1252.encode(&text("<?xml version='1.0' encoding='ISO-8859-1'?>")).0.into_owned();
    let mut marked = b"\xEF\xBB\xBF".to_vec();
    marked.extend_from_slice(text("").as_bytes());
    let mut utf16_marked = b"\xFF\xFE".to_vec();
    utf16_marked.extend_from_slice(&utf16);
    let wrong = text("<?xml version=\"1.0\" encoding=\"utf-16\"?>").into_bytes();
    for (name, bytes) in [
        ("utf-16", utf16),
        ("utf-16 marked", utf16_marked),
        ("latin", latin),
        ("utf-8 marked", marked),
        ("wrong", wrong),
    ] {
        let message = Message::read(&bytes, &Limits::default()).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        let value = message.with_tree(|node| {
            node.children().find(|n| n.has_tag_name("x")).and_then(|n| n.attribute("v")).map(str::to_owned)
        });
        assert_eq!(value.flatten().as_deref(), Some("Müller"), "{name}");
    }
    let broken = fault(Message::read(b"<a xmlns='urn:hl7-org:v3'>\xFF</a>", &Limits::default()));
    assert_eq!(broken.place, "byte 26");
    let unknown = fault(read("<?xml version=\"1.0\" encoding=\"no-such-set\"?><a/>"));
    assert!(unknown.text.contains("not known"), "{unknown:?}");
}

#[test]
fn places_are_bytes_of_the_original() {
    let mut bytes = b"\xEF\xBB\xBF".to_vec();
    bytes.extend_from_slice(interaction("").as_bytes());
    let message = Message::read(&bytes, &Limits::default()).unwrap();
    let (start, end) = message.bytes_of(&message.range).unwrap();
    assert_eq!((start, end as usize), (3, bytes.len()));
}

#[test]
fn what_could_be_expensive_is_refused_before_a_tree_is_built() {
    let bomb = "<?xml version=\"1.0\"?><!DOCTYPE a [<!ENTITY b \"bbbb\"><!ENTITY c \"&b;&b;\">]><a xmlns=\"urn:hl7-org:v3\">&c;</a>";
    assert!(fault(read(bomb)).text.contains("document type"));
    let nested = interaction(&format!("{}{}", "<x>".repeat(3_000), "</x>".repeat(3_000)));
    assert!(fault(read(&nested)).text.contains("deeper than 64"));
    let attributes: String = (0..70).map(|n| format!(" a{n}=\"\"")).collect();
    assert!(fault(read(&interaction(&format!("<x{attributes}/>")))).text.contains("64 attributes"));
    let limits = Limits { nodes_max: 100, ..Limits::default() };
    let many = interaction(&"<x/>".repeat(100));
    assert!(fault(Message::read(many.as_bytes(), &limits)).text.contains("100 nodes"));
    let limits = Limits { bytes_max: 10, ..Limits::default() };
    assert!(fault(Message::read(many.as_bytes(), &limits)).text.contains("10 bytes"));
    let spaces: String = (0..60).map(|n| format!(" xmlns:n{n}=\"u{n}\"")).collect();
    let scopes = interaction(&format!("<x{spaces}><x{spaces}/></x>"));
    assert!(fault(read(&scopes)).text.contains("namespaces"), "the tree would copy them for each element");
    let limits = Limits { nodes_max: 10_000, ..Limits::default() };
    let copies = interaction(&format!("<x{spaces}>{}</x>", "<y xmlns:z=\"z\"/>".repeat(300)));
    assert!(fault(Message::read(copies.as_bytes(), &limits)).text.contains("nodes"), "copies count");
}

#[test]
fn names_are_as_long_as_names_are() {
    let long = "n".repeat(300);
    assert!(fault(read(&interaction(&format!("<{long}/>")))).text.contains("256 bytes"));
    assert!(fault(read(&interaction(&format!("<x {long}=\"\"/>")))).text.contains("256 bytes"));
}

#[test]
fn malformed_xml_is_named_by_place_and_never_by_value() {
    for text in [
        "",
        "plain MARKED",
        "<MARKED",
        "<a xmlns=\"urn:hl7-org:v3\"><MARKED></a>",
        "<a xmlns=\"urn:hl7-org:v3\">&MARKED;</a>",
        "<a xmlns=\"urn:hl7-org:v3\" MARKED=\"1\" MARKED=\"2\"/>",
        "<MARKED:a/>",
        "<a xmlns=\"urn:hl7-org:v3\"/><MARKED/>",
        "<a xmlns=\"urn:hl7-org:v3\">\u{1}</a>",
        "<MARKED/>",
        "<MARKED xmlns=\"urn:other\"/>",
    ] {
        let fault = fault(read(text));
        assert!(!fault.text.contains("MARKED") && !fault.place.contains("MARKED"), "{text}: {fault:?}");
    }
    let second = fault(read("<a xmlns=\"urn:hl7-org:v3\">\n<b c=1/></a>"));
    assert!(second.place.contains("line 2"), "{second:?}");
    let entity = fault(read("<a xmlns=\"urn:hl7-org:v3\">\nß&x;</a>"));
    assert_eq!(entity.place, "byte 29, line 2");
}

fn soap(namespace: &str, header: &str, body: &str) -> String {
    format!(
        "<e:Envelope xmlns:e=\"{namespace}\" xmlns:w=\"http://www.w3.org/2005/08/addressing\"><e:Header>{header}</e:Header>{body}</e:Envelope>"
    )
}

const SOAP_12: &str = "http://www.w3.org/2003/05/soap-envelope";
const SOAP_11: &str = "http://schemas.xmlsoap.org/soap/envelope/";

#[test]
fn answers_come_in_the_wrapping_of_the_question() {
    let ack = Ack { code: AckCode::CA, faults: &[], id: "u", time: "2024" };
    for (namespace, version) in [(SOAP_11, SoapVersion::V11), (SOAP_12, SoapVersion::V12)] {
        let text = soap(
            namespace,
            "<w:Action e:mustUnderstand=\"1\">x</w:Action><w:MessageID> urn:a&amp;b </w:MessageID>",
            &format!("<e:Body>\n{}</e:Body>", interaction("")),
        );
        let message = read(&text).unwrap();
        assert_eq!(message.envelope.as_ref().unwrap().version, version);
        assert!(
            message.identity(text.as_bytes()).starts_with(b"<PRPA_IN201301UV02"),
            "a new envelope is a repeat all the same"
        );
        let answer = message.wrap(&acknowledge(&message.wrapper, &ack));
        let again = roxmltree::Document::parse(&answer).unwrap();
        assert_eq!(again.root_element().tag_name().namespace(), Some(namespace));
        let relates = again.descendants().find(|n| n.has_tag_name((ADDRESSING, "RelatesTo"))).unwrap();
        assert_eq!(relates.text(), Some("urn:a&b"));
        let action = again.descendants().find(|n| n.has_tag_name((ADDRESSING, "Action"))).unwrap();
        assert_eq!(action.text(), Some("urn:hl7-org:v3:MCCI_IN000002UV01"));
        let parent =
            again.descendants().find(|n| n.has_tag_name((NAMESPACE, ACKNOWLEDGEMENT))).unwrap().parent();
        assert!(parent.unwrap().has_tag_name((namespace, "Body")));
    }
    let bare = read(&interaction("")).unwrap();
    let answer = bare.wrap(&acknowledge(&bare.wrapper, &ack));
    assert!(
        roxmltree::Document::parse(&answer)
            .unwrap()
            .root_element()
            .has_tag_name((NAMESPACE, ACKNOWLEDGEMENT))
    );
}

const ADDRESSING: &str = "http://www.w3.org/2005/08/addressing";

#[test]
fn only_soap_trouble_is_a_soap_fault() {
    let security = "<s:Security xmlns:s=\"urn:s\" e:mustUnderstand=\"true\"/>";
    let elsewhere = "<s:Security xmlns:s=\"urn:s\" e:mustUnderstand=\"true\" e:role=\"urn:someone-else\"/>";
    let body = format!("<e:Body>{}</e:Body>", interaction(""));
    for (header, body, wanted) in [
        ("", "", Some(Trouble::NoBody)),
        ("", "<e:Body> </e:Body>", Some(Trouble::NoBody)),
        ("", "<e:Body><x/></e:Body>", Some(Trouble::NotHl7)),
        (security, body.as_str(), Some(Trouble::MustUnderstand)),
        (elsewhere, body.as_str(), None),
    ] {
        for namespace in [SOAP_11, SOAP_12] {
            match (read(&soap(namespace, header, body)), wanted) {
                (Ok(_), None) => {}
                (Err(Refusal::Soap(envelope, trouble)), Some(wanted)) => {
                    assert_eq!(trouble, wanted);
                    let answer = envelope.fault(trouble);
                    let answer = roxmltree::Document::parse(&answer).unwrap();
                    assert!(answer.descendants().any(|n| n.has_tag_name((namespace, "Fault"))));
                }
                other => panic!("{header} {body}: {other:?}"),
            }
        }
    }
}

#[test]
fn acknowledgements_swap_the_parties_name_the_target_and_escape_values() {
    let text = "<X_IN1 xmlns=\"urn:hl7-org:v3\"><id root=\"1.2\" extension=\"&lt;a&quot;&amp;\"/>\
                <receiver><device><id root=\"9\"/></device></receiver><sender><device><id root=\"8\" extension=\"S\"/></device></sender></X_IN1>";
    let message = read(text).unwrap();
    let faults = [Fault::wrong(101, "/X_IN1/a[2]", "is < required"), Fault::odd(102, "", "odd")];
    let ack = acknowledge(
        &message.wrapper,
        &Ack { code: AckCode::CE, faults: &faults, id: "u-1", time: "20240101" },
    );
    assert_eq!(
        ack,
        "<MCCI_IN000002UV01 xmlns=\"urn:hl7-org:v3\" ITSVersion=\"XML_1.0\"><id root=\"u-1\"/><creationTime value=\"20240101\"/>\
         <interactionId root=\"2.16.840.1.113883.1.6\" extension=\"MCCI_IN000002UV01\"/><processingCode code=\"P\"/>\
         <processingModeCode code=\"T\"/><acceptAckCode code=\"NE\"/>\
         <receiver typeCode=\"RCV\"><device classCode=\"DEV\" determinerCode=\"INSTANCE\"><id root=\"8\" extension=\"S\"/></device></receiver>\
         <sender typeCode=\"SND\"><device classCode=\"DEV\" determinerCode=\"INSTANCE\"><id root=\"9\"/></device></sender>\
         <acknowledgement><typeCode code=\"CE\"/><targetMessage><id root=\"1.2\" extension=\"&lt;a&quot;&amp;\"/></targetMessage>\
         <acknowledgementDetail typeCode=\"E\"><code code=\"SYN101\" codeSystem=\"2.16.840.1.113883.5.1100\"/>\
         <text>is &lt; required</text><location>/X_IN1/a[2]</location></acknowledgementDetail>\
         <acknowledgementDetail typeCode=\"W\"><code code=\"SYN102\" codeSystem=\"2.16.840.1.113883.5.1100\"/><text>odd</text></acknowledgementDetail>\
         </acknowledgement></MCCI_IN000002UV01>"
    );
    assert!(read(&ack).unwrap().wrapper.is_acknowledgement());
}

proptest! {
    #[test]
    fn no_bytes_panic_and_every_answer_is_xml(bytes in proptest::collection::vec(any::<u8>(), 0..300), id in "\\PC{0,30}") {
        let _ = Message::read(&bytes, &Limits::default());
        let wrapper = Wrapper { id: Some(Id { root: id.clone(), extension: id.clone() }), ..Wrapper::default() };
        let ack = acknowledge(&wrapper, &Ack { code: AckCode::CA, faults: &[], id: "1", time: "2" });
        let again = read(&ack).unwrap();
        prop_assert!(again.wrapper.is_acknowledgement());
    }
}

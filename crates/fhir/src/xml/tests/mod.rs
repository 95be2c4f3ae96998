//! What may be written in more than one way, hostile documents in both directions, and random ones. Pairs of JSON and XML are in
//! `tests/xml.rs`.

mod hostile;
mod random;

use serde_json::{Value, json};

use super::*;
use crate::{Issue, Resource, json};

fn read_text(text: &str) -> Result<Value, Issue> {
    read(text.as_bytes(), &Limits::default()).map(Resource::into_value)
}

fn write_value(value: Value) -> Result<String, Issue> {
    let resource = Resource::from_value(value).unwrap();
    write(&resource).map(|bytes| String::from_utf8(bytes).unwrap())
}

#[test]
fn the_same_resource_may_be_written_in_several_ways() {
    let expected = json!({ "resourceType": "Patient", "active": true, "name": [{ "family": "A" }],
        "text": { "status": "empty", "div": "<div xmlns=\"http://www.w3.org/1999/xhtml\"><p>x</p></div>" } });
    for text in [
        // prefixes, for fhir and for xhtml, declared far away
        r#"<f:Patient xmlns:f="http://hl7.org/fhir" xmlns:h="http://www.w3.org/1999/xhtml"><f:text><f:status value="empty"/>
            <h:div><h:p>x</h:p></h:div></f:text><f:active value="true"/><f:name><f:family value="A"/></f:name></f:Patient>"#,
        // a byte order mark, a declaration in other letters, quotes, comments, references, another order
        "\u{feff}<?xml version='1.0' encoding='utf-8' standalone='yes'?><!-- a --><Patient xmlns='http://hl7.org/fhir'>\
            <name><!-- b --><family value='&#x41;'/></name><text><div xmlns=\"http://www.w3.org/1999/xhtml\"><p>x</p></div>\
            <status value = 'empty' /></text ><active value='true'></active></Patient><!-- c -->\n",
        // namespaces that nobody uses, and the same declared again
        r#"<Patient xmlns="http://hl7.org/fhir" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><active xmlns="http://hl7.org/fhir" value="true"/>
            <name><family value="A"/></name><text><status value="empty"/><div xmlns="http://www.w3.org/1999/xhtml"><p>x</p></div></text></Patient>"#,
    ] {
        assert_eq!(read_text(text).unwrap(), expected, "{text}");
    }
}

#[test]
fn elements_that_repeat_keep_their_order_wherever_they_stand() {
    let text = r#"<Patient xmlns="http://hl7.org/fhir"><name><given value="A"/><family value="F"/><given id="b"/><given value="C"/></name></Patient>"#;
    let name = json!({ "given": ["A", null, "C"], "_given": [null, { "id": "b" }, null], "family": "F" });
    assert_eq!(read_text(text).unwrap(), json!({ "resourceType": "Patient", "name": [name] }));
}

#[test]
fn line_ends_in_attributes_are_blanks_unless_they_are_references() {
    let text =
        "<Basic xmlns=\"http://hl7.org/fhir\"><code><text value=\"a\r\nb\tc\nd&#10;e\"/></code></Basic>";
    assert_eq!(read_text(text).unwrap()["code"]["text"], "a b c d\ne");
}

#[test]
fn a_narrative_is_kept_to_the_letter() {
    for div in [
        r#"<div xmlns="http://www.w3.org/1999/xhtml"/>"#,
        "<div\n xmlns='http://www.w3.org/1999/xhtml' class = \"a\" ><table ><tr><td colspan='2'> &lt;&#x20;\r\n\t</td></tr></table><br /></div >",
        r#"<div xmlns="http://www.w3.org/1999/xhtml">a > b ]] &gt; &quot; <![CDATA[<p> & ]]> <!-- <p> --><img src='#a' alt='&amp;'/></div>"#,
        r#"<div xmlns:o="urn:schemas-microsoft-com:office:office" xmlns="http://www.w3.org/1999/xhtml"><p>x</p></div>"#,
        r#"<div lang="de" xmlns="http://www.w3.org/1999/xhtml"><p xmlns="http://www.w3.org/1999/xhtml">Grüße 🩺</p></div>"#,
    ] {
        let value = json!({ "resourceType": "Patient", "text": { "div": div } });
        let text = write_value(value.clone()).unwrap();
        assert!(text.contains(&format!("<text>{div}</text>")), "{text}");
        assert_eq!(read_text(&text).unwrap(), value);
    }
}

#[test]
fn a_narrative_that_declares_no_namespace_gets_that_of_xhtml() {
    for div in
        ["<div><p>x</p></div>", " <h:div xmlns:h='http://www.w3.org/1999/xhtml'><h:p>x</h:p></h:div>\n"]
    {
        let text = write_value(json!({ "resourceType": "Patient", "text": { "div": div } })).unwrap();
        assert!(text.contains("<div xmlns=\"http://www.w3.org/1999/xhtml\""), "{text}");
        assert!(text.contains("<p>x</p></div>"), "{text}");
        read_text(&text).unwrap();
    }
}

#[test]
fn attributes_are_id_of_what_is_no_resource_and_url_of_extensions() {
    use crate::validate::schema::SCHEMA;
    for of in crate::ResourceType::all() {
        let id = SCHEMA.get(of.name()).unwrap().child("id").unwrap();
        assert!(!id.attribute, "{of}");
    }
    let is_attribute = |of: &str, name: &str| SCHEMA.get(of).unwrap().child(name).unwrap().attribute;
    assert!(is_attribute("Extension", "url") && is_attribute("HumanName", "id"));
    assert!(is_attribute("Patient.contact", "id") && !is_attribute("Attachment", "url"));
}

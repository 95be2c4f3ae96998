//! Documents that are refused, each with its place; no text of an issue has a value of the document.

use super::*;

/// Stands for what must not be told.
const SECRET: &str = "Geheim";

fn patient(content: &str) -> String {
    format!("<Patient xmlns=\"http://hl7.org/fhir\"><language value=\"{SECRET}\"/>{content}</Patient>")
}

fn narrative(content: &str) -> String {
    patient(&format!(
        "<text><status value=\"empty\"/><div xmlns=\"http://www.w3.org/1999/xhtml\">{SECRET}{content}</div></text>"
    ))
}

#[track_caller]
fn refused(text: &str, place: &str, says: &str) {
    let start: String = text.chars().take(300).collect();
    let issue = read_text(text).expect_err(&start);
    assert_eq!(issue.location.as_deref().unwrap_or_default(), place, "{start}: {issue:?}");
    assert!(issue.diagnostics.contains(says), "{start}: {issue:?}");
    assert!(!format!("{issue:?}").contains(SECRET), "{issue:?}");
}

#[test]
fn what_is_no_document_of_fhir_is_refused() {
    for (text, place, says) in [
        ("", "", "ends too early at line 1 column 1"),
        ("  <!-- x -->\n", "", "ends too early at line 2"),
        ("{}", "", "there is text"),
        ("<!DOCTYPE Patient><Patient xmlns='http://hl7.org/fhir'/>", "", "document type"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><Patient xmlns='http://hl7.org/fhir'/>", "", "document type"),
        ("<?xml-stylesheet href='x'?><Patient xmlns='http://hl7.org/fhir'/>", "", "processing instruction"),
        ("<?xml version='1.1'?><Patient xmlns='http://hl7.org/fhir'/>", "", "version of xml is 1.0"),
        ("<?xml version='1.0' encoding='ISO-8859-1'?><Patient xmlns='http://hl7.org/fhir'/>", "", "utf-8"),
        (
            " <?xml version='1.0'?><Patient xmlns='http://hl7.org/fhir'/>",
            "",
            "declaration stands at the start",
        ),
        ("<Patient/>", "Patient", "is not in the namespace"),
        ("<Patient xmlns=''/>", "Patient", "is not in the namespace"),
        ("<Patient xmlns='urn:hl7-org:v3'/>", "Patient", "is not in the namespace"),
        ("<f:Patient xmlns='http://hl7.org/fhir'/>", "Patient", "stands for no namespace"),
        ("<Nobody xmlns='http://hl7.org/fhir'/>", "Nobody", "is not a resource type"),
        ("<Element xmlns='http://hl7.org/fhir'/>", "Element", "is not a resource type"),
        (
            "<Patient xmlns='http://hl7.org/fhir'/><Patient xmlns='http://hl7.org/fhir'/>",
            "",
            "more than one resource",
        ),
        ("<Patient xmlns='http://hl7.org/fhir'/>Geheim", "", "there is text"),
        ("<Patient xmlns='http://hl7.org/fhir'/>&amp;", "", "there is text"),
        ("<Patient xmlns='http://hl7.org/fhir'>", "Patient", "ends too early"),
        ("<Patient xmlns='http://hl7.org/fhir'></patient>", "Patient", "not well-formed"),
        ("</Patient>", "", "not well-formed"),
        ("<Patient xmlns='http://hl7.org/fhir'", "", "not well-formed"),
    ] {
        refused(text, place, says);
    }
    for bytes in
        [b"\xff\xfe<\0P\0".as_slice(), b"<Patient xmlns='\xe4'/>", b"\xEF\xBB\xBF\xEF\xBB\xBF<Patient/>"]
    {
        assert!(read(bytes, &Limits::default()).is_err());
    }
}

#[test]
fn an_xml_declaration_is_as_xml_has_it() {
    let declared = |declaration: &str| format!("{declaration}<Patient xmlns='http://hl7.org/fhir'/>");
    for (declaration, says) in [
        ("<?xml?>", "has a version"),
        ("<?xml ?>", "has a version"),
        ("<?xml encoding='utf-8'?>", "has a version"),
        ("<?xml version='1.0' version='1.0'?>", "has a version"),
        ("<?xml version='1.0' standalone='yes' encoding='utf-8'?>", "has a version"),
        ("<?xml version='1.0' encodingg='Geheim'?>", "has a version"),
        ("<?xml version='1.0' standalone='Geheim'?>", "yes or no"),
        ("<?xml version='1.0'encoding='utf-8'?>", "not separated"),
        ("<?xml version=1.0?>", "not well-formed"),
    ] {
        refused(&declared(declaration), "", says);
    }
    for declaration in
        ["<?xml version='1.0'?>", "<?xml\tversion = \"1.0\"\n encoding='UTF-8' standalone='no' ?>\n"]
    {
        assert!(read_text(&declared(declaration)).is_ok(), "{declaration}");
    }
}

#[test]
fn elements_and_attributes_that_r4_does_not_define_there_are_refused() {
    for (content, place, says) in [
        ("<nome/>", "Patient.nome", "is no element of the type"),
        ("<Name/>", "Patient.Name", "is no element of the type"),
        ("<_birthDate/>", "Patient._birthDate", "is no element of the type"),
        ("<resourceType value='Geheim'/>", "Patient.resourceType", "is no element of the type"),
        ("<deceased value='true'/>", "Patient.deceased", "is no element of the type"),
        ("<name><given value='a'/><given><b/></given></name>", "Patient.name[0].given[1].b", "is no element"),
        ("<name/>", "Patient.name[0]", "has no children"),
        ("<name></name>", "Patient.name[0]", "has no children"),
        ("<name><family/></name>", "Patient.name[0].family", "has no value and no children"),
        ("<name><family></family></name>", "Patient.name[0].family", "has no value"),
        ("<birthDate value=''/>", "Patient.birthDate", "the attribute value is empty"),
        ("<birthDate id='' value='1970'/>", "Patient.birthDate", "the attribute id is empty"),
        ("<name><id value='Geheim'/></name>", "Patient.name[0].id", "is no element of the type"),
        (
            "<extension><url value='Geheim'/></extension>",
            "Patient.extension[0].url",
            "is no element of the type",
        ),
        ("<name value='Geheim'/>", "Patient.name[0]", "has no attribute value"),
        ("<name><family value='x' use='Geheim'/></name>", "Patient.name[0].family", "has no attribute use"),
        (
            "<name><family value='x' extension='Geheim'/></name>",
            "Patient.name[0].family",
            "no attribute extension",
        ),
        ("<active xml:id='Geheim' value='true'/>", "Patient.active", "has no attribute xml:id"),
        ("<active value='true' value='true'/>", "Patient.active", "an attribute occurs twice"),
        ("<name id='a' id='b'/>", "Patient.name[0]", "an attribute occurs twice"),
        ("<birthDate value='1970'/><birthDate value='Geheim'/>", "Patient.birthDate", "occurs once"),
        (
            "<deceasedBoolean value='true'/><deceasedDateTime value='1970'/>",
            "Patient.deceasedDateTime",
            "more than one type",
        ),
        ("<text><status value='empty'/><status value='empty'/></text>", "Patient.text.status", "occurs once"),
        ("<a:active xmlns:a='urn:x' value='true'/>", "Patient.active", "is not in the namespace"),
        ("<active xmlns='' value='true'/>", "Patient.active", "is not in the namespace"),
        ("<active xmlns:a='' value='true'/>", "Patient.active", "not well-formed"),
        ("<active xmlns:xml='http://hl7.org/fhir' value='true'/>", "Patient.active", "not well-formed"),
        ("<active xmlns:a='b' xmlns:a='c' value='true'/>", "Patient.active", "an attribute occurs twice"),
    ] {
        refused(&patient(content), place, says);
    }
}

#[test]
fn values_and_texts_that_cannot_be_are_refused() {
    for (content, place, says) in [
        ("Geheim", "Patient", "there is text"),
        ("<name>Geheim<family value='a'/></name>", "Patient.name[0]", "there is text"),
        ("<active value='true'>Geheim</active>", "Patient.active", "there is text"),
        ("<![CDATA[ ]]>", "Patient", "there is text"),
        ("&#32;", "Patient", "there is text"),
        ("<?php Geheim ?>", "Patient", "processing instruction"),
        ("<?xml version='1.0'?>", "Patient", "stands at the start"),
        ("<!DOCTYPE a>", "Patient", "document type"),
        ("<active value='TRUE'/>", "Patient.active", "is true or false"),
        ("<active value=' true'/>", "Patient.active", "is true or false"),
        ("<active value='1'/>", "Patient.active", "is true or false"),
        ("<multipleBirthInteger value='01'/>", "Patient.multipleBirthInteger", "is a number"),
        ("<multipleBirthInteger value='+1'/>", "Patient.multipleBirthInteger", "is a number"),
        ("<multipleBirthInteger value=' 1'/>", "Patient.multipleBirthInteger", "is a number"),
        ("<multipleBirthInteger value='1 '/>", "Patient.multipleBirthInteger", "is a number"),
        ("<multipleBirthInteger value='.5'/>", "Patient.multipleBirthInteger", "is a number"),
        ("<multipleBirthInteger value='5.'/>", "Patient.multipleBirthInteger", "is a number"),
        ("<multipleBirthInteger value='1e'/>", "Patient.multipleBirthInteger", "is a number"),
        ("<multipleBirthInteger value='NaN'/>", "Patient.multipleBirthInteger", "is a number"),
        ("<multipleBirthInteger value='-'/>", "Patient.multipleBirthInteger", "is a number"),
        ("<multipleBirthInteger value='0x10'/>", "Patient.multipleBirthInteger", "is a number"),
        ("<birthDate value='Geheim\u{1}'/>", "Patient", "a character is not allowed"),
        ("<birthDate value='Geheim\u{ffff}'/>", "Patient", "a character is not allowed"),
        ("<birthDate value='&#0;'/>", "Patient.birthDate", "entity"),
        ("<birthDate value='&#x1F;'/>", "Patient.birthDate", "entity"),
        ("<birthDate value='&#xD800;'/>", "Patient.birthDate", "entity"),
        ("<birthDate value='&#x110000;'/>", "Patient.birthDate", "entity"),
        ("<birthDate value='&#99999999999999999999;'/>", "Patient.birthDate", "entity"),
        ("<birthDate value='&#+65;'/>", "Patient.birthDate", "entity"),
        ("<birthDate value='&#;'/>", "Patient.birthDate", "entity"),
        ("<birthDate value='&#X41;'/>", "Patient.birthDate", "entity"),
        ("<birthDate value='&nbsp;'/>", "Patient.birthDate", "entity"),
        ("<birthDate value='Geheim & B'/>", "Patient.birthDate", "entity"),
        ("<birthDate value='Geheim &amp'/>", "Patient.birthDate", "entity"),
        ("<birthDate value='a<b'/>", "Patient.birthDate", "not well-formed"),
        ("<birthDate value=Geheim />", "Patient.birthDate", "not well-formed"),
        ("<birthDate value/>", "Patient.birthDate", "not well-formed"),
        ("<birthDate =''/>", "Patient.birthDate", "not well-formed"),
        ("<birthDate a:b:c=''/>", "Patient.birthDate", "not well-formed"),
        ("<birthDate id='a'value='b'/>", "Patient.birthDate", "not separated"),
        ("<birth:Date:x value='1970'/>", "Patient", "letters"),
        ("<1 value='1970'/>", "Patient", "letters"),
        ("<!-- a -- b -->", "Patient", "not well-formed"),
        ("<name><family value='a'></name>", "Patient.name[0].family", "not well-formed"),
    ] {
        refused(&patient(content), place, says);
    }
}

#[test]
fn wrappers_hold_one_resource_and_nothing_else() {
    for (content, place, says) in [
        ("<contained/>", "Patient.contained[0]", "holds no resource"),
        ("<contained></contained>", "Patient.contained[0]", "holds no resource"),
        ("<contained id='a'><Basic/></contained>", "Patient.contained[0]", "has no attribute id"),
        ("<contained><Basic/><Basic/></contained>", "Patient.contained[0]", "more than one resource"),
        (
            "<contained><Basic/></contained><contained><Nobody/></contained>",
            "Patient.contained[1].Nobody",
            "is not a resource type",
        ),
        (
            "<contained><Basic><code><tex/></code></Basic></contained>",
            "Patient.contained[0].code.tex",
            "is no element",
        ),
        ("<contained><Basic id='a'/></contained>", "Patient.contained[0]", "has no attribute id"),
        ("<contained>Geheim<Basic/></contained>", "Patient.contained[0]", "there is text"),
        ("<contained><Basic xmlns='urn:x'/></contained>", "Patient.contained[0]", "is not in the namespace"),
    ] {
        refused(&patient(content), place, says);
    }
}

#[test]
fn narratives_that_are_no_xhtml_are_refused() {
    let place = "Patient.text.div";
    for (content, says) in [
        ("&nbsp;", "entity"),
        ("&#0;", "entity"),
        ("<p title='&nbsp;'/>", "entity"),
        ("<p title='a' title='b'/>", "occurs twice"),
        ("<p title='a'class='b'/>", "not separated"),
        ("<p title=a />", "not well-formed"),
        ("<p title='<'/>", "not well-formed"),
        ("<p>", "not well-formed"),
        ("</p>", "not well-formed"),
        ("]]>", "not well-formed"),
        ("\u{8}", "a character is not allowed"),
        ("<?php x ?>", "processing instruction"),
        ("<!DOCTYPE x>", "document type"),
        ("<?xml version='1.0'?>", "declaration"),
        ("<p xmlns='http://hl7.org/fhir'/>", "declares another namespace"),
        ("<s:svg xmlns:s='http://www.w3.org/2000/svg'/>", "is not in the namespace of xhtml"),
        ("<p xmlns:s='urn:x'><s:p/></p>", "is not in the namespace of xhtml"),
        ("<p xmlns:s='urn:x' s:p=''/>", "of another namespace"),
        ("<h:script/>", "stands for no namespace"),
        ("<p h:title='x'/>", "of another namespace"),
    ] {
        refused(&narrative(content), place, says);
    }
    for (text, says) in [
        ("<div/>", "is not in the namespace of xhtml"),
        ("<div>x</div>", "is not in the namespace of xhtml"),
        ("<div value='x'/>", "is not in the namespace of xhtml"),
    ] {
        refused(&patient(&format!("<text>{text}</text>")), place, says);
    }
    let other = "<text><h:p xmlns:h='http://www.w3.org/1999/xhtml'/></text>";
    refused(&patient(other), "Patient.text.p", "is no element of the type");
    let twice =
        "<text><div xmlns='http://www.w3.org/1999/xhtml'/><div xmlns='http://www.w3.org/1999/xhtml'/></text>";
    refused(&patient(twice), place, "occurs once");
    let cut = "<Patient xmlns='http://hl7.org/fhir'><text><div xmlns='http://www.w3.org/1999/xhtml'><p>";
    refused(cut, place, "ends too early");
}

#[test]
fn limits_are_kept() {
    let deep = |open: &str, close: &str| open.repeat(100_000) + &close.repeat(100_000);
    let extensions = patient(&deep("<extension url='a'>", "</extension>"));
    let issue = read_text(&extensions).unwrap_err();
    assert!(issue.diagnostics.contains("nested deeper than 64 levels"), "{issue:?}");
    let place = issue.location.unwrap();
    assert_eq!(place.matches("extension").count(), 32, "{place}");
    let bundles =
        deep("<Bundle xmlns='http://hl7.org/fhir'><entry><resource>", "</resource></entry></Bundle>");
    assert!(read_text(&bundles).unwrap_err().diagnostics.contains("nested deeper"));
    refused(&narrative(&deep("<b>", "</b>")), "Patient.text.div", "nested deeper than 64 levels");

    let few = Limits { nodes_max: 10_000, ..Limits::default() };
    for (text, place) in [
        (patient(&"<name><family value='a'/></name>".repeat(4_000)), "Patient"),
        (
            patient(&format!("<name>{}</name>", "<given id='a'/>".repeat(6_000))),
            "Patient.name[0].given[4997]",
        ),
        (narrative(&"<br/>".repeat(10_000)), "Patient.text.div"),
        (narrative(&"&#65;".repeat(10_000)), "Patient.text.div"),
        (narrative(&"<p a='b'/>".repeat(5_000)), "Patient.text.div"),
        (patient(&"<!---->".repeat(10_000)), "Patient"),
    ] {
        let issue = read(text.as_bytes(), &few).unwrap_err();
        assert!(issue.diagnostics.contains("more than 10000 nodes"), "{issue:?}");
        assert_eq!(issue.location.as_deref(), Some(place));
    }
    let attributes = |prefix: &str| (0..100).map(|n| format!(" {prefix}{n}='x'")).collect::<String>();
    refused(&narrative(&format!("<p{}/>", attributes("a"))), "Patient.text.div", "more than 64 attributes");
    refused(&patient(&format!("<name{}/>", attributes("xmlns:a"))), "Patient.name[0]", "64 namespaces");

    let small = Limits { bytes_max: 10, ..Limits::default() };
    let issue = read(b"<Patient xmlns='http://hl7.org/fhir'/>", &small).unwrap_err();
    assert_eq!(
        (issue.code.as_str(), issue.diagnostics.as_str()),
        ("too-long", "the document has more than 10 bytes")
    );
}

#[test]
fn what_xml_cannot_say_is_refused_when_it_is_written() {
    for (member, place, says) in [
        (json!({ "nome": [] }), "Patient.nome", "is no element of the type"),
        (json!({ "_nome": {} }), "Patient._nome", "is no element of the type"),
        (json!({ "name": [] }), "Patient.name", "at least one member"),
        (json!({ "name": [{}] }), "Patient.name[0]", "at least one member"),
        (json!({ "name": [null] }), "Patient.name[0]", "is null"),
        (json!({ "name": {} }), "Patient.name", "is a list"),
        (json!({ "name": ["Geheim"] }), "Patient.name[0]", "is an object"),
        (json!({ "name": [{ "given": [null] }] }), "Patient.name[0].given[0]", "is null"),
        (
            json!({ "name": [{ "given": ["Geheim"], "_given": [null, null] }] }),
            "Patient.name[0].given[1]",
            "is null",
        ),
        (json!({ "name": [{ "given": ["Geheim", 5] }] }), "Patient.name[0].given[1]", "is a text"),
        (json!({ "name": [{ "_period": {} }] }), "Patient.name[0]._period", "only primitive elements"),
        (
            json!({ "name": [{ "period": {}, "_period": {} }] }),
            "Patient.name[0]._period",
            "only primitive elements",
        ),
        (
            json!({ "name": [{ "id": "a", "_id": { "id": "b" } }] }),
            "Patient.name[0].id",
            "no underscore sibling",
        ),
        (json!({ "name": [{ "id": "" }] }), "Patient.name[0].id", "is not empty"),
        (
            json!({ "name": [{ "resourceType": "HumanName" }] }),
            "Patient.name[0].resourceType",
            "is no element",
        ),
        (json!({ "active": null }), "Patient.active", "occurs once"),
        (json!({ "active": [true] }), "Patient.active", "occurs once"),
        (json!({ "active": "true" }), "Patient.active", "is true or false"),
        (json!({ "active": true, "_active": {} }), "Patient.active", "at least one member"),
        (json!({ "active": true, "_active": { "b": "Geheim" } }), "Patient.active.b", "is no element"),
        (json!({ "active": true, "_active": "Geheim" }), "Patient.active", "is an object"),
        (json!({ "multipleBirthInteger": "1" }), "Patient.multipleBirthInteger", "is a number"),
        (
            json!({ "deceasedBoolean": true, "deceasedDateTime": "1970" }),
            "Patient.deceasedBoolean",
            "one type only",
        ),
        (
            json!({ "deceasedBoolean": true, "_deceasedDateTime": { "id": "a" } }),
            "Patient.deceasedBoolean",
            "one type only",
        ),
        (json!({ "birthDate": "" }), "Patient.birthDate", "is not empty"),
        (json!({ "birthDate": "Geheim\u{0}" }), "Patient.birthDate", "xml cannot carry"),
        (json!({ "birthDate": "Geheim\u{fffe}" }), "Patient.birthDate", "xml cannot carry"),
        (json!({ "contained": [{ "id": "Geheim" }] }), "Patient.contained[0]", "resourceType is missing"),
        (
            json!({ "contained": [{ "resourceType": "Nobody" }] }),
            "Patient.contained[0]",
            "resourceType is missing",
        ),
        (
            json!({ "contained": [{ "resourceType": "Basic", "x": 1 }] }),
            "Patient.contained[0].x",
            "is no element",
        ),
        (json!({ "contained": ["Geheim"] }), "Patient.contained[0]", "is an object"),
        (json!({ "text": { "div": 1 } }), "Patient.text.div", "is a text"),
        (json!({ "text": { "_div": { "id": "a" } } }), "Patient.text._div", "only primitive elements"),
        (json!({ "text": { "div": "" } }), "Patient.text.div", "not well-formed"),
        (json!({ "text": { "div": "Geheim" } }), "Patient.text.div", "is a div"),
        (json!({ "text": { "div": "<p>Geheim</p>" } }), "Patient.text.div", "is a div"),
        (json!({ "text": { "div": "<div>Geheim" } }), "Patient.text.div", "not well-formed"),
        (json!({ "text": { "div": "<div/><div/>" } }), "Patient.text.div", "is one div"),
        (json!({ "text": { "div": "<div>&nbsp;</div>" } }), "Patient.text.div", "entity"),
        (json!({ "text": { "div": "<div>\u{1}</div>" } }), "Patient.text.div", "xml cannot carry"),
        (
            json!({ "text": { "div": "<div xmlns='http://hl7.org/fhir'/>" } }),
            "Patient.text.div",
            "another namespace",
        ),
        (json!({ "text": { "div": "</text><text>" } }), "Patient.text.div", "not well-formed"),
    ] {
        let mut value = json!({ "resourceType": "Patient", "language": SECRET });
        value.as_object_mut().unwrap().extend(member.as_object().unwrap().clone());
        let issue = write_value(value.clone()).expect_err(&value.to_string());
        assert_eq!(issue.location.as_deref().unwrap_or_default(), place, "{value}: {issue:?}");
        assert!(issue.diagnostics.contains(says), "{value}: {issue:?}");
        assert!(!format!("{issue:?}").contains(SECRET), "{issue:?}");
    }
}

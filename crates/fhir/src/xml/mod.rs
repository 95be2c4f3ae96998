//! FHIR R4 as XML, <https://hl7.org/fhir/R4/xml.html>: read into the JSON form that everything else works on, and written from it.
//!
//! Both directions go by the schema of R4, so that nothing is guessed: what is a list, a number or an attribute, and which element
//! comes before which. What a member is called and what it holds is the same in both forms, hence JSON → XML → JSON is the same
//! resource, and XML → JSON → XML differs in nothing but blanks between elements, comments, prefixes, the order of attributes and
//! elements, and the spelling of an exponent (`1E+2` is `1e+2`, as in JSON).
//!
//! | JSON | XML |
//! |---|---|
//! | `"birthDate": "1970-03-30"` | `<birthDate value="1970-03-30"/>` |
//! | `"_birthDate": { "id": "a", "extension": [ … ] }` | `<birthDate id="a"><extension …/></birthDate>` |
//! | `"given": ["A", null], "_given": [null, { … }]` | `<given value="A"/><given>…</given>` |
//! | `"contained": [{ "resourceType": "Patient" }]` | `<contained><Patient/></contained>` |
//! | `"div": "<div xmlns=\"http://www.w3.org/1999/xhtml\">…</div>"` | the same text |
//! | `"value": 1.00` (a decimal) | `<value value="1.00"/>` |
//!
//! Of a list of primitives without any value only `_given` is made, and of one without ids and extensions only `given`, as the
//! standard's own tools do.

mod div;
mod read;
mod scope;
mod tag;
mod write;

pub use read::read;
pub use write::write;

/// The namespace of every element of FHIR.
const FHIR: &str = "http://hl7.org/fhir";
/// The namespace of a narrative's `div` and of what is in it.
const XHTML: &str = "http://www.w3.org/1999/xhtml";

/// Limits of an XML document. Each is asked before memory is taken for what it counts.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Nesting, in levels of the JSON it becomes: an element is one level, one that may repeat two (list and object). Elements
    /// within a `div` are one level each.
    pub depth_max: usize,
    /// Elements, attributes and comments, and texts of narratives, in all.
    pub nodes_max: usize,
    /// Bytes of the document.
    pub bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth_max: 64, nodes_max: 1_000_000, bytes_max: 64 * 1024 * 1024 }
    }
}

/// A name as it may stand in an issue: its harmless letters.
fn printable(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || "_-:".contains(*c)).take(40).collect()
}

#[cfg(test)]
mod tests;

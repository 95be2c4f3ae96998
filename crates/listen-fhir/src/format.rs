//! The two forms of a resource, JSON and XML: which one is asked for, which one was sent, and an answer in either
//! (<https://hl7.org/fhir/R4/http.html#mime-type>).
//!
//! All work is done on JSON. What was sent as XML is read into it, and an answer is written as XML at the end, whatever made it.

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderValue, Response, StatusCode, header};
use hilum_fhir::{Issue, IssueCode, Resource, json, xml};

use crate::answer::{FHIR_JSON, Refusal, refuse};

/// The form of a resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Json,
    Xml,
}

pub(crate) const FHIR_XML: &str = "application/fhir+xml";
/// Names of JSON. Where a query wrote a plus sign as it is, a space has come out.
const JSON_TYPES: [&str; 7] = [
    FHIR_JSON,
    "application/fhir json",
    "application/json",
    "application/json+fhir",
    "application/json fhir",
    "text/json",
    "json",
];
/// Names of XML.
const XML_TYPES: [&str; 7] = [
    FHIR_XML,
    "application/fhir xml",
    "application/xml",
    "application/xml+fhir",
    "application/xml fhir",
    "text/xml",
    "xml",
];
/// What takes anything, and a browser, get JSON.
const ANY_TYPES: [&str; 3] = ["*/*", "application/*", "text/html"];

impl Format {
    /// What `_format` or `Accept` asks for: the name that is liked best, of equal ones the first.
    ///
    /// # Errors
    /// 406 when it is neither.
    pub(crate) fn asked(wanted: &str) -> Result<Self, Refusal> {
        if wanted.trim().is_empty() {
            return Ok(Self::default());
        }
        let mut best: Option<(f32, Self)> = None;
        for media_type in wanted.split(',') {
            let Some((format, quality)) = Self::read(media_type, true) else { continue };
            if quality > best.map_or(0.0, |(best, _)| best) {
                best = Some((quality, format));
            }
        }
        best.map(|(_, format)| format).ok_or_else(|| {
            let text = "json and xml of fhir 4.0 are served: application/fhir+json, application/fhir+xml";
            Refusal::new(StatusCode::NOT_ACCEPTABLE, Issue::error(IssueCode::NotSupported, text))
        })
    }

    /// The form of a body by its `Content-Type`; `None` when it is neither.
    pub(crate) fn sent(content_type: &str) -> Option<Self> {
        Self::read(content_type, false).map(|(format, _)| format)
    }

    /// A media type of FHIR 4.0 and how much it is liked. Names are in any case, values may be quoted (RFC 9110 section 8.3.1).
    fn read(media_type: &str, may_be_any: bool) -> Option<(Self, f32)> {
        let mut parts = media_type.split(';').map(str::trim);
        let essence = parts.next()?;
        let is_one_of = |names: &[&str]| names.iter().any(|name| essence.eq_ignore_ascii_case(name));
        let format = match () {
            () if is_one_of(&JSON_TYPES) || may_be_any && is_one_of(&ANY_TYPES) => Self::Json,
            () if is_one_of(&XML_TYPES) => Self::Xml,
            () => return None,
        };
        let mut quality = 1.0;
        for parameter in parts {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let (name, value) = (name.trim_end(), value.trim().trim_matches('"'));
            let fits = match () {
                () if name.eq_ignore_ascii_case("fhirVersion") => value == "4.0",
                () if name.eq_ignore_ascii_case("charset") => value.eq_ignore_ascii_case("utf-8"),
                () if name.eq_ignore_ascii_case("q") => {
                    quality = value.parse().unwrap_or(1.0);
                    true
                }
                () => true,
            };
            if !fits {
                return None;
            }
        }
        Some((format, quality))
    }

    /// Reads a body of this form.
    ///
    /// # Errors
    /// The issue of what is wrong, with its place.
    pub(crate) fn parse(self, body: &[u8], limits: &json::Limits) -> Result<Resource, Issue> {
        match self {
            Self::Json => Resource::from_value(json::parse(body, limits)?),
            Self::Xml => {
                // how many bytes there are was decided before they were taken
                let limits = xml::Limits {
                    depth_max: limits.depth_max,
                    nodes_max: limits.nodes_max,
                    bytes_max: body.len(),
                };
                xml::read(body, &limits)
            }
        }
    }

    /// An answer in this form. What is no resource stays as it is.
    pub(crate) async fn of(self, response: Response<Body>) -> Response<Body> {
        let is_json = |value: &HeaderValue| value.as_bytes() == FHIR_JSON.as_bytes();
        if self == Self::Json || !response.headers().get(header::CONTENT_TYPE).is_some_and(is_json) {
            return response;
        }
        let (mut parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
        match as_xml(&body) {
            Ok(body) => {
                parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(FHIR_XML));
                Response::from_parts(parts, body.into())
            }
            Err(issue) => refuse(Refusal::new(StatusCode::NOT_ACCEPTABLE, issue)),
        }
    }
}

fn as_xml(body: &[u8]) -> Result<Bytes, Issue> {
    let value = serde_json::from_slice(body).unwrap_or_default();
    let written = Resource::from_value(value).and_then(|resource| xml::write(&resource));
    written.map(Bytes::from).map_err(|issue| {
        let text = format!("the answer cannot be written as xml, ask for json: {}", issue.diagnostics);
        Issue { diagnostics: text, ..issue }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_xml_in_all_their_names() {
        let (json, xml) = (Some(Format::Json), Some(Format::Xml));
        for (text, expected) in [
            ("application/fhir+json", json),
            ("application/fhir+json; fhirVersion=4.0; charset=UTF-8", json),
            ("application/fhir json", json),
            ("Application/FHIR+JSON; charset=\"UTF-8\"", json),
            ("application/fhir+json; FhirVersion=\"4.0\" ; Charset = utf-8", json),
            ("JSON", json),
            ("application/json;Q=0.000", None),
            ("application/fhir+json;fhirVersion=\"5.0\"", None),
            ("*/*;q=0.8", json),
            ("application/fhir+json;fhirVersion=5.0", None),
            ("application/fhir+xml", xml),
            ("application/fhir xml;charset=utf-8", xml),
            ("TEXT/XML", xml),
            ("application/json;charset=latin1", None),
            ("text/turtle", None),
            ("text/turtle, application/xml;q=0.1", xml),
            ("application/fhir+json;q=0.5, application/fhir+xml", xml),
            ("application/fhir+xml, application/fhir+json", xml),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", json),
            ("", json),
        ] {
            assert_eq!(Format::asked(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_sent_is_named() {
        for (text, expected) in [
            ("application/fhir+json", Some(Format::Json)),
            ("application/xml; charset=utf-8", Some(Format::Xml)),
            ("*/*", None),
            ("text/html", None),
            ("text/plain", None),
            ("", None),
        ] {
            assert_eq!(Format::sent(text), expected, "{text}");
        }
    }
}

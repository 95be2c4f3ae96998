//! Stored bodies as resources, with the rows they give in the index.

use hilum_fhir::search::{Context, index};
use hilum_fhir::{Resource, Timestamp};
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::keys::Rows;
use crate::row::Content;
use crate::{Error, body, keys};

/// A version as a resource with its index rows; `None` = a deletion.
///
/// # Errors
/// `Unavailable` when the body cannot be read.
pub fn indexed(content: &Content, zone: &TimeZone) -> Result<Option<(Resource, Rows)>, Error> {
    let Some(packed) = &content.body else { return Ok(None) };
    let resource = parse(&body::decode(content.encoding, packed)?)?;
    let now = Timestamp::from_micros(content.last_updated);
    let entries = index(&resource, &Context { zone: zone.clone(), now });
    Ok(Some((resource, keys::rows(&entries))))
}

/// A stored body as a resource.
///
/// # Errors
/// `Unavailable` when the body cannot be read.
pub fn parse(stored: &[u8]) -> Result<Resource, Error> {
    let mut value: Value = serde_json::from_slice(stored)
        .map_err(|e| Error::unavailable("a stored body is not json").because(e))?;
    // where version and time are put in: with nothing else in it, it is no element
    if let Value::Object(object) = &mut value
        && object.get("meta").is_some_and(|meta| meta.as_object().is_some_and(serde_json::Map::is_empty))
    {
        object.shift_remove("meta");
    }
    Resource::from_value(value).map_err(|_| Error::unavailable("a stored body is no resource"))
}

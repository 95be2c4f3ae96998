//! Resource bodies as stored: compact JSON that begins `{"resourceType":"T","id":"…","meta":{` and lacks `meta.versionId` and
//! `meta.lastUpdated`. These two are spliced in at that known place on read, so that a body can be compressed before version and time are
//! known, and is never parsed again to be read.

use std::cell::RefCell;

use bytes::Bytes;
use hilum_fhir::{Resource, Timestamp};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};
use zstd::bulk::{Compressor, Decompressor};

use crate::Error;

/// Encodings of the `enc` columns. Numbers only grow; a dictionary is never changed in place.
const PLAIN: i64 = 0;
const ZSTD_DICTIONARY_1: i64 = 1;
const DICTIONARY_1: &[u8] = include_bytes!("dictionary-1.txt");
const LEVEL: i32 = 3;
/// Bodies below this are not worth compressing.
const PLAIN_MAX: usize = 64;
const INFLATED_MAX: usize = 256 * 1024 * 1024;

thread_local! {
    static CODEC: RefCell<Option<(Compressor<'static>, Decompressor<'static>)>> = const { RefCell::new(None) };
}

/// The stored form of a resource under an id, not compressed.
pub fn stored_form(resource: &Resource, id: &str) -> Vec<u8> {
    serde_json::to_vec(&Stored { resource, id }).unwrap_or_default()
}

/// A resource as it is stored. It borrows, because every version that is written comes through here.
struct Stored<'r> {
    resource: &'r Resource,
    id: &'r str,
}

impl Serialize for Stored<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut meta = match self.resource.get("meta") {
            Some(Value::Object(meta)) => meta.clone(),
            _ => Map::new(),
        };
        meta.shift_remove("versionId");
        meta.shift_remove("lastUpdated");
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("resourceType", self.resource.resource_type().name())?;
        map.serialize_entry("id", self.id)?;
        map.serialize_entry("meta", &meta)?;
        for (name, value) in self.resource.object() {
            if !matches!(name.as_str(), "resourceType" | "id" | "meta") {
                map.serialize_entry(name, value)?;
            }
        }
        map.end()
    }
}

/// The complete JSON of a version.
pub fn complete(stored: &[u8], type_name: &str, id: &str, version: u64, last_updated: Timestamp) -> Bytes {
    let at = r#"{"resourceType":"","id":"","meta":{"#.len() + type_name.len() + id.len();
    let (before, after) = stored.split_at(at.min(stored.len()));
    let comma = if after.first() == Some(&b'}') { "" } else { "," };
    let version = format!(r#""versionId":"{version}","lastUpdated":"{last_updated}"{comma}"#);
    let mut whole = Vec::with_capacity(stored.len() + version.len());
    whole.extend_from_slice(before);
    whole.extend_from_slice(version.as_bytes());
    whole.extend_from_slice(after);
    whole.into()
}

/// Compresses; returns the encoding and the bytes.
pub fn encode(plain: &[u8]) -> (i64, Vec<u8>) {
    if plain.len() < PLAIN_MAX {
        return (PLAIN, plain.to_vec());
    }
    match with_codec(|codec| codec.0.compress(plain)) {
        Ok(packed) if packed.len() < plain.len() => (ZSTD_DICTIONARY_1, packed),
        _ => (PLAIN, plain.to_vec()),
    }
}

/// Undoes [`encode`].
///
/// # Errors
/// `Unavailable` when the encoding is unknown or the bytes are damaged.
pub fn decode(encoding: i64, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    match encoding {
        PLAIN => Ok(bytes.to_vec()),
        ZSTD_DICTIONARY_1 => {
            let size = zstd::zstd_safe::get_frame_content_size(bytes).ok().flatten().unwrap_or(0);
            let size = usize::try_from(size).unwrap_or(0).min(INFLATED_MAX);
            Ok(with_codec(|codec| codec.1.decompress(bytes, size))?)
        }
        other => Err(Error::unavailable(format!("a body has the unknown encoding {other}"))),
    }
}

fn with_codec<T>(
    work: impl FnOnce(&mut (Compressor<'static>, Decompressor<'static>)) -> std::io::Result<T>,
) -> std::io::Result<T> {
    CODEC.with_borrow_mut(|codec| {
        let codec = match codec {
            Some(codec) => codec,
            None => codec.insert((
                Compressor::with_dictionary(LEVEL, DICTIONARY_1)?,
                Decompressor::with_dictionary(DICTIONARY_1)?,
            )),
        };
        work(codec)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn version_and_time_are_spliced_in() {
        for (meta, expected) in [
            (
                json!({ "versionId": "9", "lastUpdated": "x" }),
                r#""meta":{"versionId":"2","lastUpdated":"1970-01-01T00:00:00.000005Z"}"#,
            ),
            (
                json!({ "source": "urn:x" }),
                r#""meta":{"versionId":"2","lastUpdated":"1970-01-01T00:00:00.000005Z","source":"urn:x"}"#,
            ),
        ] {
            let resource = Resource::from_value(
                json!({ "meta": meta, "active": true, "resourceType": "Patient", "id": "old" }),
            )
            .unwrap();
            let stored = stored_form(&resource, "p1");
            let (encoding, packed) = encode(&stored);
            assert_eq!(decode(encoding, &packed).unwrap(), stored);
            let whole = complete(&stored, "Patient", "p1", 2, Timestamp::from_micros(5));
            let text = std::str::from_utf8(&whole).unwrap();
            assert!(
                text.starts_with(&format!(r#"{{"resourceType":"Patient","id":"p1",{expected}"#)),
                "{text}"
            );
            assert!(serde_json::from_str::<Value>(text).is_ok());
        }
    }
}

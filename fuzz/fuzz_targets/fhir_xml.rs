//! FHIR XML: limits, and what was read comes out of its own XML as it was.
#![no_main]

use hilum_fhir::xml;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = xml::Limits { bytes_max: 1 << 20, ..xml::Limits::default() };
    let Ok(resource) = xml::read(bytes, &limits) else { return };
    let Ok(written) = xml::write(&resource) else { return };
    let limits = xml::Limits { bytes_max: written.len(), nodes_max: usize::MAX, depth_max: usize::MAX };
    let again = xml::read(&written, &limits).expect("what is written is read");
    assert_eq!(again, resource);
});

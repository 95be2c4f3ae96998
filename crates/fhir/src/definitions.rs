//! Definitions of FHIR R4, compiled at build time from the vendored packages in `definitions/`.

//! HL7 v2 and v3 over HTTP.

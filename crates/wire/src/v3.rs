//! HL7 v3 messages, bare or in SOAP. (to be written)

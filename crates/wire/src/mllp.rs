//! MLLP framing (HL7 Minimal Lower Layer Protocol). (to be written)

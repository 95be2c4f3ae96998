//! HL7 v2 in ER7: header, charset, segments, escapes, timestamps, acknowledgements. (to be written)

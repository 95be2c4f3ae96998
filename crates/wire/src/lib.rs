//! The other wires as bytes: MLLP, ER7, v3 and SOAP, DIMSE, the DICOM data-set scanner. No I/O, no clock.
//!
//! Every reader has limits and never recurses on input. Reading returns a value and issues; it does not fail as a whole.

pub mod dimse;
pub mod er7;
pub mod mllp;
pub mod scan;
pub mod v3;


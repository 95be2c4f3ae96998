//! The other wires as bytes: MLLP, ER7, HL7 v3 in XML, DICOM data sets. No I/O, no clock.
//!
//! Every reader has limits and never recurses on input. Reading returns a value and faults; it does not fail as a whole.

pub mod dimse;
pub mod er7;
mod fault;
pub mod mllp;
pub mod part10;
pub mod scan;
pub mod v3;

pub use fault::Fault;

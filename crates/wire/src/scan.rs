//! Push scanner for DICOM data sets (PS3.5). (to be written)

/// The wanted elements of a scanned data set.
#[derive(Clone, Debug, Default)]
pub struct Header {}

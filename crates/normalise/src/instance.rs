//! A DICOM instance as a patient to ensure and rows of study, series, instance.

use hilum_wire::scan;

use crate::{Context, Normalised};

/// What is known of a received instance once its file is durable.
#[derive(Clone, Debug)]
pub struct InstanceHeader {
    /// SOP Class UID of the command.
    pub sop_class: String,
    /// SOP Instance UID of the command.
    pub sop_instance: String,
    /// Transfer Syntax UID of its presentation context.
    pub transfer_syntax: String,
    /// Bytes of the data set.
    pub dataset_bytes: u64,
    /// SHA-256 of the data set.
    pub dataset_sha256: [u8; 32],
    /// Content address of the Part 10 file.
    pub blob: [u8; 32],
    /// Size of the Part 10 file in bytes.
    pub blob_bytes: u64,
    /// The wanted elements of the data set and what the scanner found odd.
    pub header: scan::Header,
}

pub(crate) fn normalise(_header: &InstanceHeader, _context: &Context) -> Normalised {
    Normalised::default()
}

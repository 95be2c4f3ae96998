//! What came through a door.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use hilum_fhir::Timestamp;
use hilum_normalise::Payload;
use hilum_store::{About, BlobId, Original, OriginalKind, Site};

use crate::Verdict;

/// Renders the protocol's answer to a verdict; stored with the submission and replayed to duplicates.
pub(crate) type Reply = Arc<dyn Fn(&Verdict<'_>) -> Bytes + Send + Sync>;

/// What came through a door.
pub struct Submission {
    /// Whose it is; made by authentication.
    pub site: Site,
    /// Where it came from.
    pub source: Source,
    /// What it is.
    pub payload: Payload,
    /// When its last byte arrived.
    pub received: Timestamp,
    /// The bytes to keep as the original; `None` for FHIR REST and DICOM, whose rows and blobs are the original.
    pub original: Option<Bytes>,
    /// SHA-256 of the original bytes (of the data set for DICOM, of the interaction within its envelope for SOAP).
    pub sha256: [u8; 32],
    /// Content type of the original.
    pub content_type: &'static str,
    /// Sender identity and control id: the duplicate key. `None` = no duplicate check.
    pub control: Option<(String, String)>,
    /// Renders the answer; `None` for protocols whose answer needs the commit (FHIR REST) and is not stored.
    pub reply: Option<Reply>,
}

/// Where a submission came from.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Name of the listener, such as `mllp-3000`.
    pub listener: Arc<str>,
    /// The peer's address.
    pub peer: Option<SocketAddr>,
    /// Who the peer said or proved to be: AE title, `MSH-3|MSH-4`, key id.
    pub identity: Option<String>,
    /// The AE title it called.
    pub called: Option<String>,
    /// Whether a positive acknowledgement of HL7 v2 says what was remarked (`[[listen]] ack_warnings`).
    pub ack_warnings: bool,
    /// The number of the submission that is replayed.
    pub replays: Option<u64>,
}

impl Submission {
    pub(crate) fn answer(&self, verdict: &Verdict<'_>) -> Option<Bytes> {
        self.reply.as_ref().map(|reply| reply(verdict))
    }

    pub(crate) fn original(&self, about: About, report: Option<Bytes>) -> Original {
        Original {
            kind: kind(&self.payload),
            listener: self.source.listener.to_string(),
            peer: self.source.peer,
            identity: self.source.identity.clone(),
            control: self.control.clone(),
            sha256: self.sha256,
            blob: blob(&self.payload),
            bytes: self.original.clone(),
            content_type: self.content_type,
            received: self.received,
            report,
            about,
        }
    }
}

/// A DICOM object is its own original.
fn blob(payload: &Payload) -> Option<BlobId> {
    match payload {
        Payload::Instance(header) => Some(BlobId(header.blob)),
        _ => None,
    }
}

fn kind(payload: &Payload) -> OriginalKind {
    match payload {
        Payload::V2(_) => OriginalKind::V2,
        Payload::V3(_) => OriginalKind::V3,
        Payload::Mpps(_) => OriginalKind::Mpps,
        Payload::Instance(_) => OriginalKind::Dicom,
        Payload::Fhir(_) => OriginalKind::Fhir,
    }
}

/// SHA-256 of original bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    hilum_store::sha256(bytes)
}

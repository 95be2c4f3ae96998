//! A C-STORE being received: the data set goes to a blob byte for byte, and past the scanner.

use hilum_fhir::{Issue, IssueCode};
use hilum_intake::normalise::{InstanceHeader, Payload};
use hilum_intake::store::{BlobWriter, FinishedBlob, Site};
use hilum_intake::{Receipt, Source, Submission, now};
use hilum_listen::Peer;
use hilum_listen::limits::Dicom as Limits;
use hilum_wire::dimse::{Command, status};
use hilum_wire::part10;
use hilum_wire::scan::{self, Header, Malformed, Scanner, Tag, is_uid};

use crate::Dicom;
use crate::association::{Association, Context, IMPLEMENTATION_NAME, IMPLEMENTATION_UID};
use crate::classes::is_storage;

const SOP_CLASS: Tag = Tag::new(0x0008, 0x0016);
const SOP_INSTANCE: Tag = Tag::new(0x0008, 0x0018);
const STUDY: Tag = Tag::new(0x0020, 0x000D);
const SERIES: Tag = Tag::new(0x0020, 0x000E);

/// Inflated between two chances for other tasks: a deflated byte may stand for a thousand.
const DEFLATED_PIECE_BYTES: usize = 4096;
const AGAIN: &str = "not possible now, send again";

/// A message whose data set is arriving.
pub(crate) struct Receiving {
    pub(crate) context: u8,
    pub(crate) command: Command,
    transfer_syntax: String,
    bytes: u64,
    blob: Option<BlobWriter>,
    scanner: Option<Scanner>,
    /// What will be answered whatever still arrives.
    failed: Option<Refusal>,
}

/// Why an object is not stored.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    status: u16,
    /// For Error Comment (0000,0902).
    comment: String,
    /// The element at fault.
    element: Option<Tag>,
}

impl Refusal {
    pub(crate) fn new(status: u16, comment: impl Into<String>) -> Self {
        Self { status, comment: comment.into(), element: None }
    }

    fn at(self, element: Tag) -> Self {
        Self { element: Some(element), ..self }
    }

    fn issue(&self) -> Issue {
        let issue = Issue::error(IssueCode::Structure, &self.comment);
        match self.element {
            Some(tag) => issue.at(tag.to_string()),
            None => issue,
        }
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self { element: malformed.element, ..Self::new(status::CANNOT_UNDERSTAND, malformed.to_string()) }
    }
}

/// What is answered.
pub(crate) struct Done {
    pub(crate) command: Command,
    pub(crate) status: u16,
    pub(crate) comment: String,
    /// The element at fault.
    pub(crate) element: Option<Tag>,
    /// The study touched.
    pub(crate) study: Option<String>,
}

impl Receiving {
    /// A C-STORE-RQ on an accepted context.
    pub(crate) async fn start(
        door: &Dicom,
        site: &Site,
        (context, accepted): (u8, Context),
        command: Command,
    ) -> Self {
        if let Err(refusal) = judge(&command, &accepted) {
            return Self::discard(context, command, refusal);
        }
        let later = Refusal::new(status::OUT_OF_RESOURCES, AGAIN);
        // nothing is written that could not be committed
        if door.intake.store().accepting(site).is_err() {
            return Self::discard(context, command, later);
        }
        let us = (IMPLEMENTATION_UID, IMPLEMENTATION_NAME);
        let head = part10::head(&command.sop_class, &command.sop_instance, &accepted.transfer_syntax, us);
        match door.intake.store().blob_writer(site, head.into()).await {
            Ok(blob) => Self {
                context,
                scanner: Some(Scanner::new(&accepted.transfer_syntax, scan_limits(&door.limits))),
                command,
                transfer_syntax: accepted.transfer_syntax,
                bytes: 0,
                blob: Some(blob),
                failed: None,
            },
            Err(_) => Self::discard(context, command, later),
        }
    }

    /// A message whose data set is read and thrown away.
    pub(crate) fn discard(context: u8, command: Command, refusal: Refusal) -> Self {
        let failed = Some(refusal);
        Self { context, command, transfer_syntax: String::new(), bytes: 0, blob: None, scanner: None, failed }
    }

    pub(crate) async fn take(&mut self, bytes: &[u8], limits: &Limits) {
        self.bytes += bytes.len() as u64;
        if self.failed.is_some() {
            return;
        }
        if self.bytes > limits.object_bytes_max {
            return self.fail(status::OUT_OF_RESOURCES, "the object is larger than is taken here");
        }
        self.scan(bytes).await;
        if let Some(blob) = &mut self.blob
            && blob.write(bytes).await.is_err()
        {
            self.fail(status::OUT_OF_RESOURCES, AGAIN);
        }
    }

    async fn scan(&mut self, bytes: &[u8]) {
        let Some(scanner) = &mut self.scanner else { return };
        if !scan::Syntax::of(&self.transfer_syntax).deflated {
            return scanner.feed(bytes);
        }
        for piece in bytes.chunks(DEFLATED_PIECE_BYTES) {
            scanner.feed(piece);
            tokio::task::yield_now().await;
        }
    }

    fn fail(&mut self, code: u16, comment: &str) {
        self.failed = Some(Refusal::new(code, comment));
        // dropping the writer removes what was written
        self.blob = None;
    }

    /// The data set is complete: verdict, durable blob, rows.
    pub(crate) async fn finish(mut self, door: &Dicom, association: &Association, peer: &Peer) -> Done {
        let (Some(blob), Some(scanner)) = (self.blob.take(), self.scanner.take()) else {
            let nothing = || Refusal::new(status::CANNOT_UNDERSTAND, "");
            let refusal = self.failed.take().unwrap_or_else(nothing);
            return self.refused(refusal);
        };
        let verdict = scanner.finish();
        // synced while it is mapped; the store waits for it before the rows
        let Ok(finished) = blob.seal() else {
            return self.refused(Refusal::new(status::OUT_OF_RESOURCES, AGAIN));
        };
        let (header, refusal) = match verdict {
            Ok(header) => {
                let refusal = self.mismatch(&header);
                (header, refusal)
            }
            Err(malformed) => (Header::default(), Some(malformed.into())),
        };
        let study = header.uid(STUDY);
        let submission = self.submission(association, peer, header, &finished);
        let receipt = match &refusal {
            None => door.intake.accept(submission).await,
            Some(refusal) => door.intake.reject(submission, vec![refusal.issue()]).await,
        };
        match (receipt, refusal) {
            (Receipt::Accepted(_), _) => self.stored(study),
            (Receipt::Deferred(error), _) => {
                tracing::warn!(%error, "an instance was deferred");
                self.refused(Refusal::new(status::OUT_OF_RESOURCES, AGAIN))
            }
            (Receipt::Rejected(_), Some(refusal)) => self.refused(refusal),
            (Receipt::Rejected(issues), None) => {
                let first = issues.iter().find(|i| i.rejects()).map(|i| i.diagnostics.clone());
                self.refused(Refusal::new(status::CANNOT_UNDERSTAND, first.unwrap_or_default()))
            }
        }
    }

    /// Class, instance, study and series must be there, and agree with the command.
    fn mismatch(&self, header: &Header) -> Option<Refusal> {
        let told = [(SOP_CLASS, &self.command.sop_class), (SOP_INSTANCE, &self.command.sop_instance)];
        if let Some((tag, _)) = told.iter().find(|(tag, told)| header.uid(*tag).as_ref() != Some(told)) {
            let comment = "sop class or instance differs from the command";
            return Some(Refusal::new(status::DATA_SET_MISMATCH, comment).at(*tag));
        }
        let missing = [STUDY, SERIES].into_iter().find(|tag| header.uid(*tag).is_none())?;
        Some(Refusal::new(status::CANNOT_UNDERSTAND, format!("{missing} is missing or no uid")).at(missing))
    }

    fn submission(
        &self,
        association: &Association,
        peer: &Peer,
        header: Header,
        blob: &FinishedBlob,
    ) -> Submission {
        Submission {
            site: association.site.clone(),
            source: Source {
                listener: peer.listener.clone(),
                peer: Some(peer.address),
                identity: Some(association.calling.clone()),
                called: Some(association.called.clone()),
                ..Source::default()
            },
            payload: Payload::Instance(Box::new(InstanceHeader {
                sop_class: self.command.sop_class.clone(),
                sop_instance: self.command.sop_instance.clone(),
                transfer_syntax: self.transfer_syntax.clone(),
                dataset_bytes: self.bytes,
                dataset_sha256: blob.body_sha256,
                blob: blob.id.0,
                blob_bytes: blob.bytes,
                header,
            })),
            received: now(),
            original: None,
            sha256: blob.body_sha256,
            content_type: "application/dicom",
            control: None,
            reply: None,
        }
    }

    fn stored(self, study: Option<String>) -> Done {
        Done { command: self.command, status: status::SUCCESS, comment: String::new(), element: None, study }
    }

    fn refused(self, refusal: Refusal) -> Done {
        let Refusal { status, comment, element } = refusal;
        Done { command: self.command, status, comment, element, study: None }
    }
}

/// What a command may be refused for before its data set is there: it names the class of its context (PS3.7 section 9.1.1.1), one of storage,
/// and an instance.
fn judge(command: &Command, accepted: &Context) -> Result<(), Refusal> {
    if !is_storage(&command.sop_class) || command.sop_class != accepted.abstract_syntax {
        let comment = "the sop class is not the storage class of the context";
        return Err(Refusal::new(status::SOP_CLASS_NOT_SUPPORTED, comment));
    }
    if !is_uid(&command.sop_instance) {
        let comment = "the command lacks a valid sop instance uid";
        return Err(Refusal::new(status::CANNOT_UNDERSTAND, comment));
    }
    Ok(())
}

fn scan_limits(limits: &Limits) -> scan::Limits {
    scan::Limits {
        depth_max: limits.depth_max,
        elements_max: limits.elements_max,
        header_bytes_max: limits.header_bytes_max,
        value_bytes_max: limits.value_bytes_max,
        wanted_bytes_max: limits.wanted_bytes_max,
        inflated_bytes_max: limits.inflated_bytes_max,
        inflate_ratio_max: limits.inflate_ratio_max,
    }
}

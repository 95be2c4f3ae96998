//! A C-STORE being received: the data set goes to a blob byte for byte, and past the scanner.

use hilum_fhir::{Issue, IssueCode};
use hilum_intake::normalise::{InstanceHeader, Payload};
use hilum_intake::store::{BlobWriter, FinishedBlob, Health, Site};
use hilum_intake::{Receipt, Source, Submission, now};
use hilum_listen::Peer;
use hilum_listen::limits::Dicom as Limits;
use hilum_wire::dimse::{Command, status};
use hilum_wire::part10;
use hilum_wire::scan::{self, Header, Scanner, Tag, is_uid};

use crate::Dicom;
use crate::association::{Association, IMPLEMENTATION_NAME, IMPLEMENTATION_UID};

const SOP_CLASS: Tag = Tag::new(0x0008, 0x0016);
const SOP_INSTANCE: Tag = Tag::new(0x0008, 0x0018);
const STUDY: Tag = Tag::new(0x0020, 0x000D);
const SERIES: Tag = Tag::new(0x0020, 0x000E);

/// A message whose data set is arriving.
pub(crate) struct Receiving {
    pub(crate) context: u8,
    pub(crate) command: Command,
    transfer_syntax: String,
    bytes: u64,
    blob: Option<BlobWriter>,
    scanner: Option<Scanner>,
    /// What will be answered whatever still arrives.
    failed: Option<(u16, String)>,
}

/// What is answered.
pub(crate) struct Done {
    pub(crate) command: Command,
    pub(crate) status: u16,
    pub(crate) comment: String,
    /// The study touched.
    pub(crate) study: Option<String>,
}

impl Receiving {
    pub(crate) async fn start(
        door: &Dicom,
        site: &Site,
        context: u8,
        command: Command,
        transfer_syntax: String,
    ) -> Self {
        if !is_uid(&command.sop_class) || !is_uid(&command.sop_instance) {
            return Self::discard(
                context,
                command,
                status::CANNOT_UNDERSTAND,
                "the command lacks a valid sop class or instance uid",
            );
        }
        // nothing is written that could not be committed
        if let Health::NotAccepting(_) = door.intake.store().health() {
            return Self::discard(context, command, status::OUT_OF_RESOURCES, "not possible now, send again");
        }
        let us = (IMPLEMENTATION_UID, IMPLEMENTATION_NAME);
        let head = part10::head(&command.sop_class, &command.sop_instance, &transfer_syntax, us);
        match door.intake.store().blob_writer(site, head.into()).await {
            Ok(blob) => Self {
                context,
                scanner: Some(Scanner::new(&transfer_syntax, scan_limits(&door.limits))),
                command,
                transfer_syntax,
                bytes: 0,
                blob: Some(blob),
                failed: None,
            },
            Err(_) => {
                Self::discard(context, command, status::OUT_OF_RESOURCES, "not possible now, send again")
            }
        }
    }

    /// A message whose data set is read and thrown away.
    pub(crate) fn discard(context: u8, command: Command, code: u16, comment: &str) -> Self {
        let failed = Some((code, comment.to_owned()));
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
        if let Some(scanner) = &mut self.scanner {
            scanner.feed(bytes);
        }
        if let Some(blob) = &mut self.blob
            && blob.write(bytes).await.is_err()
        {
            self.fail(status::OUT_OF_RESOURCES, "not possible now, send again");
        }
    }

    fn fail(&mut self, code: u16, comment: &str) {
        self.failed = Some((code, comment.to_owned()));
        // dropping the writer removes what was written
        self.blob = None;
    }

    /// The data set is complete: verdict, durable blob, rows.
    pub(crate) async fn finish(mut self, door: &Dicom, association: &Association, peer: &Peer) -> Done {
        let (Some(blob), Some(scanner)) = (self.blob.take(), self.scanner.take()) else {
            let (code, comment) = self.failed.take().unwrap_or((status::CANNOT_UNDERSTAND, String::new()));
            return self.done(code, comment, None);
        };
        let verdict = scanner.finish();
        // synced while it is mapped; the store waits for it before the rows
        let Ok(finished) = blob.seal() else {
            return self.done(status::OUT_OF_RESOURCES, "not possible now, send again".into(), None);
        };
        let (header, refusal) = match verdict {
            Ok(header) => {
                let refusal = self.mismatch(&header);
                (header, refusal)
            }
            Err(malformed) => {
                let issue = Issue::error(IssueCode::Structure, malformed.to_string());
                let issue = issue.at(format!("byte {}", malformed.position));
                (Header::default(), Some((status::CANNOT_UNDERSTAND, issue)))
            }
        };
        let study = header.uid(STUDY);
        let submission = self.submission(association, peer, header, &finished);
        let receipt = match &refusal {
            None => door.intake.accept(submission).await,
            Some((_, issue)) => door.intake.reject(submission, vec![issue.clone()]).await,
        };
        match (receipt, refusal) {
            (Receipt::Accepted(_), _) => self.done(status::SUCCESS, String::new(), study),
            (Receipt::Deferred(error), _) => {
                tracing::warn!(%error, "an instance was deferred");
                self.done(status::OUT_OF_RESOURCES, "not possible now, send again".into(), None)
            }
            (Receipt::Rejected(_), Some((code, issue))) => self.done(code, issue.diagnostics, None),
            (Receipt::Rejected(issues), None) => {
                let comment =
                    issues.iter().find(|i| i.rejects()).map(|i| i.diagnostics.clone()).unwrap_or_default();
                self.done(status::CANNOT_UNDERSTAND, comment, None)
            }
        }
    }

    /// Class, instance, study and series must be there, and agree with the command.
    fn mismatch(&self, header: &Header) -> Option<(u16, Issue)> {
        let of_command = [(SOP_INSTANCE, &self.command.sop_instance), (SOP_CLASS, &self.command.sop_class)];
        let differs = of_command.into_iter().find(|(tag, uid)| header.uid(*tag).as_ref() != Some(uid));
        if let Some((tag, _)) = differs {
            let text = "sop class or instance differs from the command";
            return Some((
                status::DATA_SET_MISMATCH,
                Issue::error(IssueCode::Structure, text).at(tag.to_string()),
            ));
        }
        let missing = [STUDY, SERIES].into_iter().find(|tag| header.uid(*tag).is_none());
        missing.map(|tag| {
            let issue = Issue::error(IssueCode::Structure, format!("{tag} is missing or no uid"));
            (status::CANNOT_UNDERSTAND, issue.at(tag.to_string()))
        })
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

    fn done(self, status: u16, comment: String, study: Option<String>) -> Done {
        Done { command: self.command, status, comment, study }
    }
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

//! Yesterday's bytes by today's rules: what a submission would do now, and doing it.
//!
//! A replay is a submission of its own that names the one it replays: it has its own Provenance, and no duplicate key. The bytes are mapped as of
//! when they came in.

use std::sync::Arc;

use bytes::Bytes;
use hilum_fhir::Issue;
use hilum_normalise::{InstanceHeader, Normalised, Payload};
use hilum_store::{About, BlobId, BlobReader, Error, Foretold, OriginalKind, Site, SubmissionRow};
use hilum_wire::er7::Header;
use hilum_wire::part10::{HEAD_BYTES_MAX, Head};
use hilum_wire::scan::{self, Scanner};
use hilum_wire::v3;
use tokio::io::AsyncReadExt;

use crate::{Intake, Receipt, Source, Submission, exchange, interaction, now, refusals, view};

/// Larger originals are not replayed. Images are: they are read in pieces.
const ORIGINAL_BYTES_MAX: u64 = 64 << 20;
/// Bytes of an image read at a time.
const PIECE_BYTES: usize = 128 * 1024;

/// What a replay would do now.
#[derive(Debug, Default)]
pub struct Replay {
    /// Number of the submission replayed.
    pub submission: u64,
    /// What is wrong or odd by today's rules. With an error it would be rejected again.
    pub issues: Vec<Issue>,
    /// Populated places no rule consumes.
    pub unmapped: Vec<String>,
    /// What would become of each resource.
    pub effects: Vec<Foretold>,
}

/// Why there is no replay.
#[derive(Debug, thiserror::Error)]
pub enum NoReplay {
    /// There is no submission with this number.
    #[error("there is no submission {0}; `hilum submissions list` shows them")]
    Unknown(u64),
    /// What came in is not there, or cannot be read again; what to do instead.
    #[error("{0}")]
    NotPossible(&'static str),
    /// Ours.
    #[error(transparent)]
    Store(#[from] Error),
}

impl NoReplay {
    /// Why there are no bytes, and what to do.
    pub fn gone(kind: OriginalKind) -> Self {
        Self::NotPossible(match kind {
            OriginalKind::Fhir => {
                "of a FHIR request only its versions are kept: the client has to send it again"
            }
            OriginalKind::Internal => "it was made by the edge itself",
            _ => {
                "its original is not kept any more ([site.retention], limits.store.quarantine_*): the sender has to send it again"
            }
        })
    }
}

impl Replay {
    /// Whether today's rules reject it.
    pub fn is_rejected(&self) -> bool {
        self.issues.iter().any(Issue::rejects)
    }
}

impl Intake {
    /// What replaying a submission would do now. Nothing is written.
    ///
    /// # Errors
    /// [`NoReplay`].
    pub async fn foretell(&self, site: &Site, number: u64) -> Result<Replay, NoReplay> {
        let row = self.kept(site, number).await?;
        let (submission, normalised) = self.again(site, &row).await?;
        self.foretold(&submission, normalised, number).await
    }

    /// Replays a submission. What today's rules reject is told and not kept again; `None` as receipt.
    ///
    /// # Errors
    /// [`NoReplay`].
    pub async fn replay(&self, site: &Site, number: u64) -> Result<(Replay, Option<Receipt>), NoReplay> {
        let row = self.kept(site, number).await?;
        let (submission, normalised) = self.again(site, &row).await?;
        let told = Normalised {
            changes: normalised.changes.clone(),
            issues: normalised.issues.clone(),
            unmapped: normalised.unmapped.clone(),
            lineage: Vec::new(),
        };
        let replay = self.foretold(&submission, told, number).await?;
        if replay.is_rejected() {
            return Ok((replay, None));
        }
        let about = submission.about();
        let receipt = self.commit(submission, about, normalised).await;
        Ok((replay, Some(receipt)))
    }

    /// The bytes of a submission as they came in; `None` when they are not kept (any more). An image is read by its blob instead.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn original(&self, site: &Site, row: &SubmissionRow) -> Result<Option<Bytes>, Error> {
        if let Some(bytes) = &row.bytes {
            return Ok(Some(bytes.clone()));
        }
        let Some(blob) = row.blob.filter(|_| row.kind != OriginalKind::Dicom) else { return Ok(None) };
        let Some(reader) = self.store().blob(site, &blob).await? else { return Ok(None) };
        let mut bytes = Vec::new();
        reader.reader.take(ORIGINAL_BYTES_MAX).read_to_end(&mut bytes).await?;
        Ok(Some(bytes.into()))
    }

    /// A submission with everything that is known of it, as [`view`](crate::view) tells it; `None` = there is none.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn show(&self, site: &Site, number: u64) -> Result<Option<serde_json::Value>, Error> {
        let Some(row) = self.store().submission(site, number).await? else { return Ok(None) };
        let deliveries = self.store().deliveries_of(site, number, view::DELIVERIES_MAX).await?;
        let bytes = match (&row.bytes, &row.blob) {
            (Some(bytes), _) => Some(bytes.len() as u64),
            (None, Some(blob)) => self.store().blob(site, blob).await?.map(|blob| blob.bytes),
            (None, None) => None,
        };
        Ok(Some(view::whole(&row, &deliveries, bytes)))
    }

    async fn kept(&self, site: &Site, number: u64) -> Result<SubmissionRow, NoReplay> {
        self.store().submission(site, number).await?.ok_or(NoReplay::Unknown(number))
    }

    /// The submission once more, and what it means by today's rules.
    async fn again(&self, site: &Site, row: &SubmissionRow) -> Result<(Submission, Normalised), NoReplay> {
        let source = Source {
            listener: row.listener.as_str().into(),
            peer: row.peer.as_ref().and_then(|peer| peer.parse().ok()),
            identity: row.identity.clone(),
            called: row.called.clone().filter(|_| row.kind == OriginalKind::Dicom),
            ack_warnings: true,
            replays: Some(row.sequence),
        };
        let submission = match row.kind {
            OriginalKind::Dicom => self.image(site, row, source).await?,
            _ => {
                let bytes = self.original(site, row).await?.ok_or_else(|| NoReplay::gone(row.kind))?;
                message(site, row, source, bytes)?
            }
        };
        let normalised = self.normalise(&submission, row.received).await?;
        Ok((submission, normalised))
    }

    /// An image, its header read once more from its file.
    async fn image(&self, site: &Site, row: &SubmissionRow, source: Source) -> Result<Submission, NoReplay> {
        let id = row.blob.ok_or_else(|| NoReplay::gone(row.kind))?;
        let reader = self.store().blob(site, &id).await?.ok_or_else(|| NoReplay::gone(row.kind))?;
        let header = header(reader, &id, row.sha256).await?;
        Ok(Submission {
            site: site.clone(),
            source,
            payload: Payload::Instance(Box::new(header)),
            received: now(),
            original: None,
            sha256: row.sha256,
            content_type: "application/dicom",
            control: None,
            reply: None,
        })
    }

    async fn foretold(
        &self,
        submission: &Submission,
        normalised: Normalised,
        number: u64,
    ) -> Result<Replay, NoReplay> {
        let rejected = normalised.rejected();
        let Normalised { changes, mut issues, unmapped, .. } = normalised;
        let effects = if rejected {
            Vec::new()
        } else {
            match self
                .store()
                .foretell(&submission.site, &submission.original(About::default(), None), changes)
                .await
            {
                Ok(effects) => effects,
                Err(error) if error.kind.is_ours() => return Err(error.into()),
                Err(error) => {
                    issues.extend(refusals(error));
                    Vec::new()
                }
            }
        };
        Ok(Replay { submission: number, issues, unmapped, effects })
    }
}

/// A message as its door made it.
fn message(site: &Site, row: &SubmissionRow, source: Source, bytes: Bytes) -> Result<Submission, NoReplay> {
    match row.kind {
        OriginalKind::V2 => {
            let header = Header::read(&bytes).map(Arc::new);
            Ok(exchange::submission(site, source, &bytes, header))
        }
        OriginalKind::V3 => {
            let read = v3::Message::read(&bytes, &v3::Limits::default());
            let message = read.map_err(|_| {
                NoReplay::NotPossible("the body is no interaction of HL7 v3: its sender has to mend it")
            })?;
            Ok(interaction::submission(site, source, bytes, Arc::new(message)))
        }
        OriginalKind::Mpps => Ok(Submission {
            site: site.clone(),
            source,
            payload: Payload::Mpps(bytes.clone()),
            received: now(),
            sha256: row.sha256,
            original: Some(bytes),
            content_type: "application/json",
            control: None,
            reply: None,
        }),
        _ => Err(NoReplay::gone(row.kind)),
    }
}

/// The elements of an image that the record needs, from its file.
async fn header(mut blob: BlobReader, id: &BlobId, sha256: [u8; 32]) -> Result<InstanceHeader, NoReplay> {
    let broken =
        || NoReplay::NotPossible("the file is no DICOM object that can be read: its sender has to mend it");
    let mut piece = vec![0; PIECE_BYTES.max(HEAD_BYTES_MAX)];
    let mut filled = 0;
    while filled < piece.len() {
        let read = blob.reader.read(&mut piece[filled..]).await.map_err(Error::from)?;
        if read == 0 {
            break;
        }
        filled += read;
    }
    let head = Head::read(&piece[..filled]).ok_or_else(broken)?;
    let mut scanner = Scanner::new(&head.transfer_syntax, scan::Limits::default());
    scanner.feed(piece.get(head.data_set_at..filled).unwrap_or_default());
    loop {
        let read = blob.reader.read(&mut piece).await.map_err(Error::from)?;
        if read == 0 {
            break;
        }
        scanner.feed(&piece[..read]);
    }
    let header = scanner.finish().map_err(|_| broken())?;
    Ok(InstanceHeader {
        sop_class: head.sop_class,
        sop_instance: head.sop_instance,
        transfer_syntax: head.transfer_syntax,
        dataset_bytes: blob.bytes.saturating_sub(head.data_set_at as u64),
        dataset_sha256: sha256,
        blob: id.0,
        blob_bytes: blob.bytes,
        header,
    })
}

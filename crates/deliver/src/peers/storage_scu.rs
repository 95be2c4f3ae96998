//! A storage SCU (PS3.4 annex B): sends the data sets of files byte for byte, in the transfer syntax they are stored in.
//!
//! Contexts are proposed from what the files hold; nothing is transcoded. Files are streamed: memory is one PDU, whatever their size.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dicom_ul::pdu::{
    AssociationAC, AssociationRQ, Pdu, PresentationContextProposed, PresentationContextResultReason,
    UserVariableItem, read_pdu, write_pdu,
};
use hilum_wire::dimse::{Answer, Command, command_pdu, pdvs};
use hilum_wire::part10::{self, Head};
use hilum_wire::scan::{Limits, Scanner, Tag, is_uid};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Presentation contexts of one association: odd numbers of one byte.
pub const CONTEXTS_MAX: usize = 128;
const VERIFICATION: (&str, &str) = ("1.2.840.10008.1.1", "1.2.840.10008.1.2");
const APPLICATION_CONTEXT: &str = "1.2.840.10008.3.1.1.1";
const IMPLEMENTATION_UID: &str = "2.25.207530618924873014937425178320985173241";
const IMPLEMENTATION_NAME: &str = "HILUM_01";
const SOP_CLASS: Tag = Tag::new(0x0008, 0x0016);
const SOP_INSTANCE: Tag = Tag::new(0x0008, 0x0018);
/// Bytes of a PDU we take, and the most we send.
const PDU_BYTES_MAX: u32 = 128 * 1024;
const PDU_HEADER_BYTES: usize = 6;
/// Length of the value, context and flags.
const VALUE_HEADER_BYTES: usize = 6;
const PIECE_BYTES: usize = 64 * 1024;

/// Who speaks to whom, and how long an answer may take.
#[derive(Clone, Debug)]
pub struct Options {
    /// Called AE title, 1 to 16 characters.
    pub called: String,
    /// Calling AE title, 1 to 16 characters.
    pub calling: String,
    /// Longest wait for a step of the peer: an answer, or taking what is sent.
    pub timeout: Duration,
}

/// Why sending ended.
#[derive(Debug, thiserror::Error)]
pub enum ScuError {
    /// A-ASSOCIATE-RJ (PS3.8 table 9-21).
    #[error("the association was rejected: {} (result {result}, source {origin}, reason {reason})", rejection(*.origin, *.reason))]
    Rejected {
        /// 1 permanent, 2 transient.
        result: u8,
        /// 1 service user, 2 service provider (ACSE), 3 service provider (presentation).
        origin: u8,
        /// The reason, by source.
        reason: u8,
    },
    /// A-ABORT (PS3.8 table 9-26).
    #[error("the association was aborted by the peer (source {origin}, reason {reason})")]
    Aborted {
        /// 0 service user, 2 service provider.
        origin: u8,
        /// The reason.
        reason: u8,
    },
    /// No answer in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The peer sent what does not belong here.
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    /// The connection ended.
    #[error("the connection ended")]
    Connection(#[source] io::Error),
    /// A file could not be read.
    #[error("cannot read the file")]
    File(#[source] io::Error),
    /// A file holds no data set with a SOP class and instance.
    #[error("no dicom data set with a sop class and a sop instance uid")]
    NotSendable,
}

fn rejection(origin: u8, reason: u8) -> &'static str {
    match (origin, reason) {
        (1, 2) => "the application context is not supported",
        (1, 3) => "the calling AE title is not known there",
        (1, 7) => "the called AE title is not known there",
        (2, 2) => "the protocol version is not supported",
        (3, 1) => "temporary congestion",
        (3, 2) => "too many associations",
        _ => "no reason given",
    }
}

/// A file that can be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Where it is.
    pub path: PathBuf,
    /// SOP Class UID: of the data set, else of its meta group.
    pub sop_class: String,
    /// SOP Instance UID: of the data set, else of its meta group.
    pub sop_instance: String,
    /// Transfer Syntax UID of the data set as it is stored.
    pub transfer_syntax: String,
    data_set_at: u64,
    bytes: u64,
}

impl Object {
    /// Reads what a file is, up to its pixel data.
    ///
    /// # Errors
    /// `File`; `NotSendable`.
    pub async fn open(path: &Path) -> Result<Self, ScuError> {
        let mut file = File::open(path).await.map_err(ScuError::File)?;
        let bytes = file.metadata().await.map_err(ScuError::File)?.len();
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        (&mut file)
            .take(part10::HEAD_BYTES_MAX as u64)
            .read_to_end(&mut piece)
            .await
            .map_err(ScuError::File)?;
        let head = Head::read(&piece).ok_or(ScuError::NotSendable)?;
        let mut scanner = Scanner::new(&head.transfer_syntax, Limits::default());
        scanner.feed(&piece[head.data_set_at..]);
        while !scanner.is_past_header() {
            piece.clear();
            let read = (&mut file).take(PIECE_BYTES as u64).read_to_end(&mut piece).await;
            if read.map_err(ScuError::File)? == 0 {
                break;
            }
            scanner.feed(&piece);
        }
        // what is malformed is sent as well: the receiver judges it
        let header = scanner.into_header();
        let sop_class = header.uid(SOP_CLASS).unwrap_or(head.sop_class);
        let sop_instance = header.uid(SOP_INSTANCE).unwrap_or(head.sop_instance);
        if !is_uid(&sop_class) || !is_uid(&sop_instance) {
            return Err(ScuError::NotSendable);
        }
        let data_set_at = head.data_set_at as u64;
        let transfer_syntax = head.transfer_syntax;
        Ok(Self {
            path: path.to_owned(),
            sop_class,
            sop_instance,
            transfer_syntax,
            data_set_at,
            bytes: bytes.saturating_sub(data_set_at),
        })
    }

    /// The context it needs.
    fn context(&self) -> (String, String) {
        (self.sop_class.clone(), self.transfer_syntax.clone())
    }
}

/// Divides objects, in order, so that those of one part fit into one association.
pub fn parts(objects: Vec<Object>) -> Vec<Vec<Object>> {
    let mut parts: Vec<Vec<Object>> = Vec::new();
    let mut contexts: Vec<(String, String)> = Vec::new();
    for object in objects {
        let context = object.context();
        let fits = contexts.contains(&context) || contexts.len() < CONTEXTS_MAX;
        if !fits {
            contexts.clear();
        }
        if !contexts.contains(&context) {
            contexts.push(context);
        }
        match parts.last_mut().filter(|_| fits) {
            Some(part) => part.push(object),
            None => parts.push(vec![object]),
        }
    }
    parts
}

/// What became of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The peer's answer.
    Answered(Answer),
    /// The peer accepted no context for its SOP class and transfer syntax; it was not sent.
    NoContext,
}

/// An association in which we are the requestor.
#[derive(Debug)]
pub struct Association<S> {
    stream: S,
    timeout: Duration,
    /// Accepted contexts: SOP class and transfer syntax to context id.
    contexts: BTreeMap<(String, String), u8>,
    /// Bytes of a PDU the peer takes, after its header.
    pdu_bytes_max: usize,
    message_id: u16,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Association<S> {
    /// Asks for an association with the contexts of these objects, or for Verification when there are none.
    ///
    /// # Errors
    /// `Rejected`, `Aborted`, `TimedOut`, `Protocol`, `Connection`.
    pub async fn open(stream: S, objects: &[Object], options: &Options) -> Result<Self, ScuError> {
        let mut wanted: Vec<(String, String)> = Vec::new();
        for context in objects.iter().map(Object::context) {
            if !wanted.contains(&context) {
                wanted.push(context);
            }
        }
        if wanted.is_empty() {
            wanted.push((VERIFICATION.0.into(), VERIFICATION.1.into()));
        }
        wanted.truncate(CONTEXTS_MAX);
        let mut association = Self {
            stream,
            timeout: options.timeout,
            contexts: BTreeMap::new(),
            pdu_bytes_max: PDU_BYTES_MAX as usize,
            message_id: 0,
        };
        association.write(&request(&wanted, options)?).await?;
        let answer = association.read().await?;
        match read_pdu(answer.as_slice(), PDU_BYTES_MAX, false) {
            Ok(Some(Pdu::AssociationAC(answer))) => association.accepted(&wanted, &answer),
            _ => return Err(ScuError::Protocol("no answer to the association request")),
        }
        Ok(association)
    }

    fn accepted(&mut self, wanted: &[(String, String)], answer: &AssociationAC) {
        for result in &answer.presentation_contexts {
            let place = usize::from(result.id / 2);
            if let Some(context) =
                wanted.get(place).filter(|_| result.reason == PresentationContextResultReason::Acceptance)
            {
                self.contexts.insert(context.clone(), result.id);
            }
        }
        let announced = answer.user_variables.iter().find_map(|item| match item {
            UserVariableItem::MaxLength(0) => Some(PDU_BYTES_MAX),
            UserVariableItem::MaxLength(bytes) => Some((*bytes).min(PDU_BYTES_MAX)),
            _ => None,
        });
        // a peer that announces next to nothing still gets a value of some bytes in each PDU
        self.pdu_bytes_max =
            (announced.unwrap_or(PDU_BYTES_MAX) as usize).max(PDU_HEADER_BYTES + VALUE_HEADER_BYTES);
    }

    /// C-ECHO.
    ///
    /// # Errors
    /// `Protocol` when Verification was refused; as [`Association::store`].
    pub async fn echo(&mut self) -> Result<Answer, ScuError> {
        let key = (VERIFICATION.0.to_owned(), VERIFICATION.1.to_owned());
        let context =
            *self.contexts.get(&key).ok_or(ScuError::Protocol("the verification context was refused"))?;
        let message = self.next_message();
        self.write(&command_pdu(context, &Command::echo(message))).await?;
        self.answer(message).await
    }

    /// C-STORE of an object.
    ///
    /// # Errors
    /// `File` when the file cannot be read or has changed; `Aborted`, `TimedOut`, `Protocol`, `Connection`. The association
    /// is of no use afterwards.
    pub async fn store(&mut self, object: &Object) -> Result<Stored, ScuError> {
        let Some(context) = self.contexts.get(&object.context()).copied() else {
            return Ok(Stored::NoContext);
        };
        let message = self.next_message();
        let command = Command::store(message, &object.sop_class, &object.sop_instance);
        self.write(&command_pdu(context, &command)).await?;
        if let Err(error) = self.data_set(context, object).await {
            return Err(self.last_word(error).await);
        }
        self.answer(message).await.map(Stored::Answered)
    }

    async fn data_set(&mut self, context: u8, object: &Object) -> Result<(), ScuError> {
        let mut file = File::open(&object.path).await.map_err(ScuError::File)?;
        file.seek(io::SeekFrom::Start(object.data_set_at)).await.map_err(ScuError::File)?;
        // fragments have an even length (PS3.8 annex E.1)
        let most = (self.pdu_bytes_max - VALUE_HEADER_BYTES) & !1;
        let mut pdu = vec![0; PDU_HEADER_BYTES + self.pdu_bytes_max];
        let mut left = object.bytes;
        loop {
            let length = usize::try_from(left).unwrap_or(most).min(most);
            left -= length as u64;
            let value = u32::try_from(length + 2).unwrap_or(0).to_be_bytes();
            let whole = u32::try_from(length + VALUE_HEADER_BYTES).unwrap_or(0).to_be_bytes();
            pdu[..6].copy_from_slice(&[4, 0, whole[0], whole[1], whole[2], whole[3]]);
            let last = if left == 0 { 2 } else { 0 };
            pdu[6..12].copy_from_slice(&[value[0], value[1], value[2], value[3], context, last]);
            let end = PDU_HEADER_BYTES + VALUE_HEADER_BYTES + length;
            file.read_exact(&mut pdu[12..end]).await.map_err(ScuError::File)?;
            self.write(&pdu[..end]).await?;
            if left == 0 {
                return Ok(());
            }
        }
    }

    /// A peer that aborts in mid-stream breaks our write first; its abort says more.
    async fn last_word(&mut self, error: ScuError) -> ScuError {
        if !matches!(error, ScuError::Connection(_)) {
            return error;
        }
        match self.read().await {
            Err(aborted @ ScuError::Aborted { .. }) => aborted,
            _ => error,
        }
    }

    /// Releases the association; waits for the peer's agreement.
    ///
    /// # Errors
    /// `Aborted`, `TimedOut`, `Protocol`, `Connection`.
    pub async fn release(mut self) -> Result<(), ScuError> {
        self.write(&[5, 0, 0, 0, 0, 4, 0, 0, 0, 0]).await?;
        match self.read().await?.first() {
            Some(6) => Ok(()),
            _ => Err(ScuError::Protocol("no answer to the release request")),
        }
    }

    fn next_message(&mut self) -> u16 {
        self.message_id = self.message_id.wrapping_add(1);
        self.message_id
    }

    /// The answer to a message.
    async fn answer(&mut self, message: u16) -> Result<Answer, ScuError> {
        let mut command = Vec::new();
        loop {
            let pdu = self.read().await?;
            if pdu.first() != Some(&4) {
                return Err(ScuError::Protocol("no answer to the message"));
            }
            let values = pdvs(&pdu[PDU_HEADER_BYTES..]).ok_or(ScuError::Protocol("a value does not fit"))?;
            for value in values {
                if !value.is_command || command.len() + value.bytes.len() > PDU_BYTES_MAX as usize {
                    return Err(ScuError::Protocol("a command is too long or no command"));
                }
                command.extend_from_slice(value.bytes);
                if value.is_last {
                    let answer = Answer::read(&command)
                        .ok_or(ScuError::Protocol("the answer cannot be understood"))?;
                    let ours = answer.message_id == message;
                    return ours.then_some(answer).ok_or(ScuError::Protocol("an answer to another message"));
                }
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), ScuError> {
        let written = timeout(self.timeout, self.stream.write_all(bytes));
        written.await.map_err(|_| ScuError::TimedOut(self.timeout))?.map_err(ScuError::Connection)
    }

    /// The next PDU with its header. Rejections and aborts are errors.
    async fn read(&mut self) -> Result<Vec<u8>, ScuError> {
        let stream = &mut self.stream;
        let reading = async {
            let mut pdu = vec![0; PDU_HEADER_BYTES];
            stream.read_exact(&mut pdu).await.map_err(ScuError::Connection)?;
            let length = u32::from_be_bytes([pdu[2], pdu[3], pdu[4], pdu[5]]);
            if length > PDU_BYTES_MAX {
                return Err(ScuError::Protocol("a pdu is longer than announced"));
            }
            pdu.resize(PDU_HEADER_BYTES + length as usize, 0);
            stream.read_exact(&mut pdu[PDU_HEADER_BYTES..]).await.map_err(ScuError::Connection)?;
            Ok(pdu)
        };
        let pdu = timeout(self.timeout, reading).await.map_err(|_| ScuError::TimedOut(self.timeout))??;
        match pdu.as_slice() {
            [3, _, _, _, _, _, _, result, origin, reason] => {
                Err(ScuError::Rejected { result: *result, origin: *origin, reason: *reason })
            }
            [7, _, _, _, _, _, _, _, origin, reason] => {
                Err(ScuError::Aborted { origin: *origin, reason: *reason })
            }
            _ => Ok(pdu),
        }
    }
}

fn request(wanted: &[(String, String)], options: &Options) -> Result<Vec<u8>, ScuError> {
    let contexts = (0_u8..).zip(wanted).map(|(place, (class, syntax))| PresentationContextProposed {
        id: place * 2 + 1,
        abstract_syntax: class.clone(),
        transfer_syntaxes: vec![syntax.clone()],
    });
    let request = Pdu::AssociationRQ(AssociationRQ {
        protocol_version: 1,
        calling_ae_title: options.calling.clone(),
        called_ae_title: options.called.clone(),
        application_context_name: APPLICATION_CONTEXT.to_owned(),
        presentation_contexts: contexts.collect(),
        user_variables: vec![
            UserVariableItem::MaxLength(PDU_BYTES_MAX),
            UserVariableItem::ImplementationClassUID(IMPLEMENTATION_UID.to_owned()),
            UserVariableItem::ImplementationVersionName(IMPLEMENTATION_NAME.to_owned()),
        ],
    });
    let mut bytes = Vec::new();
    write_pdu(&mut bytes, &request).map_err(|_| ScuError::Protocol("an AE title has 1 to 16 characters"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;

//! Why the store said no.

use hilum_fhir::Issue;

/// An error of the store.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Who is at fault and what to do.
    pub kind: ErrorKind,
    /// A sentence without patient data.
    pub message: String,
    /// For the peer's faults: what and where.
    pub issues: Vec<Issue>,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The kinds of store errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The peer's: contradicts what is stored (final MPPS, id in use, merge cycle, instance of another study).
    Conflict,
    /// The peer's: a condition or If-Match failed, or more than one match.
    Precondition,
    /// The peer's: says something else than the images and performed steps that the resource is drawn from.
    Contradiction,
    /// The peer's: what it names does not exist.
    NotFound,
    /// The peer's: the target was deleted.
    Gone,
    /// Ours: the disk is full or nearly so.
    Full,
    /// Ours: not accepting, queue full, I/O error. Send again.
    Unavailable,
}

impl ErrorKind {
    /// Whether the same request can succeed later.
    pub const fn is_ours(self) -> bool {
        matches!(self, Self::Full | Self::Unavailable)
    }
}

impl Error {
    /// An error of ours.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Unavailable, message: message.into(), issues: Vec::new(), source: None }
    }

    /// Why nothing was written about a destination: the lock is not this edge's, or not any more.
    pub fn of_another_edge() -> Self {
        Self::unavailable("another edge delivers to this destination; nothing was written about it")
    }

    /// The peer's fault, with its issue.
    pub fn refused(kind: ErrorKind, issue: Issue) -> Self {
        Self { kind, message: issue.diagnostics.clone(), issues: vec![issue], source: None }
    }

    /// The same error, about the change with this number.
    #[must_use]
    pub fn about(mut self, change: Option<usize>) -> Self {
        self.issues.iter_mut().for_each(|issue| issue.change = change);
        self
    }

    /// The same error with its cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        hilum_blobs::Error::from(error).into()
    }
}

impl From<hilum_blobs::Error> for Error {
    fn from(error: hilum_blobs::Error) -> Self {
        let hilum_blobs::Error { kind, message, source } = error;
        let kind = match kind {
            hilum_blobs::ErrorKind::Full => ErrorKind::Full,
            hilum_blobs::ErrorKind::Unavailable => ErrorKind::Unavailable,
        };
        Self { kind, message, issues: Vec::new(), source }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        let full = error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull);
        let kind = if full { ErrorKind::Full } else { ErrorKind::Unavailable };
        Self {
            kind,
            message: "the database refused".into(),
            issues: Vec::new(),
            source: Some(Box::new(error)),
        }
    }
}

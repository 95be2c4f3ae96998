//! Why a blob could not be written or read.

/// An error of the disk or the bucket.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What is to be done about it.
    pub kind: ErrorKind,
    /// A sentence without patient data.
    pub message: String,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The kinds of errors of blobs: the sender is never at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The disk is full.
    Full,
    /// An error of the disk or the bucket. Send again.
    Unavailable,
}

impl Error {
    /// An error that may be gone when the same is sent again.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Unavailable, message: message.into(), source: None }
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
        let kind = if error.kind() == std::io::ErrorKind::StorageFull {
            ErrorKind::Full
        } else {
            ErrorKind::Unavailable
        };
        Self {
            kind,
            message: "a file of the store cannot be written or read".into(),
            source: Some(Box::new(error)),
        }
    }
}

//! How a delivery is handed over: one file for each kind of channel.

mod address;
pub(crate) mod rest_hook;

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Delivered,
    /// Later, perhaps after so many milliseconds.
    Retry(&'static str, Option<i64>),
    /// The receiver says it will not take it.
    Refused(&'static str),
    /// The receiver is gone for good.
    Gone,
    /// It can never be sent.
    Dead(&'static str),
}

impl Outcome {
    /// Its name in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retry(..) => "retry",
            Self::Refused(_) => "refused",
            Self::Gone => "gone",
            Self::Dead(_) => "dead",
        }
    }
}

//! What is odd or wrong on a wire.

/// A fault in bytes received: where and what, never a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Whether the message cannot be taken because of it.
    pub rejects: bool,
    /// Code of HL7 table 0357 (100 to 207); 0 where that table does not apply.
    pub code: u16,
    /// The place: `MSH-2`, `byte 17`, `(0010,0020)`.
    pub place: String,
    /// What is wrong, and what to do.
    pub text: String,
    /// Our own code of the condition (ERR-5), such as `not-admitted`; mostly empty.
    pub application: &'static str,
}

impl Fault {
    /// A fault that blocks nothing.
    pub fn odd(code: u16, place: impl Into<String>, text: impl Into<String>) -> Self {
        Self { rejects: false, code, place: place.into(), text: text.into(), application: "" }
    }

    /// A fault that rejects the message.
    pub fn wrong(code: u16, place: impl Into<String>, text: impl Into<String>) -> Self {
        Self { rejects: true, code, place: place.into(), text: text.into(), application: "" }
    }

    /// With our own code of the condition.
    #[must_use]
    pub fn named(self, application: &'static str) -> Self {
        Self { application, ..self }
    }
}

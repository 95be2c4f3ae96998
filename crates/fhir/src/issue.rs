//! What is wrong with input, and where: the one type for the peer's faults in every protocol.

use serde_json::{Value, json};

/// A fault of the peer's, or a remark on its input: a value, never an error type.
///
/// Texts are lower case without a full stop, and **never carry a value from the message**: they name places, types, lengths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// How bad it is. `Error` and `Fatal` reject the submission.
    pub severity: Severity,
    /// The kind, from FHIR's issue-type code system.
    pub code: IssueCode,
    /// The place: a FHIRPath (`Patient.name[0].given`), an HL7 v2 location (`PID-3[1].1`), a DICOM tag (`(0010,0020)`), an XPath.
    pub location: Option<String>,
    /// A sentence for people: what is wrong and what to do next.
    pub diagnostics: String,
    /// The HL7 table 0357 error code, when the issue came from or answers HL7 v2 (100 to 207).
    pub hl7_code: Option<u16>,
    /// The change of the submission it is about, counted from 0, when the store refused one of several: the answer to a transaction names its
    /// entry.
    pub change: Option<usize>,
}

/// FHIR issue-severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// For information only.
    Information,
    /// Worth a look, blocks nothing.
    Warning,
    /// The submission is rejected.
    Error,
    /// Nothing could be read at all.
    Fatal,
}

macro_rules! issue_codes {
    ($($name:ident = $text:literal),+ $(,)?) => {
        /// FHIR issue-type, <https://hl7.org/fhir/R4/codesystem-issue-type.html>.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the names are the standard's codes")]
        pub enum IssueCode { $($name),+ }

        impl IssueCode {
            /// The code as FHIR writes it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// From the code as FHIR writes it.
            pub fn from_code(code: &str) -> Option<Self> {
                match code { $($text => Some(Self::$name),)+ _ => None }
            }
        }
    };
}

issue_codes! {
    Invalid = "invalid", Structure = "structure", Required = "required", Value = "value", Invariant = "invariant",
    Security = "security", Login = "login", Expired = "expired", Forbidden = "forbidden", Suppressed = "suppressed",
    Processing = "processing", NotSupported = "not-supported", Duplicate = "duplicate",
    MultipleMatches = "multiple-matches", NotFound = "not-found", Deleted = "deleted", TooLong = "too-long",
    CodeInvalid = "code-invalid", Extension = "extension", TooCostly = "too-costly", BusinessRule = "business-rule",
    Conflict = "conflict", Transient = "transient", NoStore = "no-store", Exception = "exception", Timeout = "timeout",
    Incomplete = "incomplete", Throttled = "throttled", Informational = "informational",
}

impl Severity {
    /// The code as FHIR writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Information => "information",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }
}

impl Issue {
    /// An issue that rejects the submission.
    pub fn error(code: IssueCode, diagnostics: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, diagnostics)
    }

    /// An issue that blocks nothing.
    pub fn warning(code: IssueCode, diagnostics: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, diagnostics)
    }

    /// A remark.
    pub fn information(code: IssueCode, diagnostics: impl Into<String>) -> Self {
        Self::new(Severity::Information, code, diagnostics)
    }

    /// An issue without a place.
    pub fn new(severity: Severity, code: IssueCode, diagnostics: impl Into<String>) -> Self {
        Self { severity, code, location: None, diagnostics: diagnostics.into(), hl7_code: None, change: None }
    }

    /// The same issue at a place.
    #[must_use]
    pub fn at(mut self, location: impl Into<String>) -> Self {
        self.location = Some(location.into());
        self
    }

    /// The same issue with a code of HL7 table 0357.
    #[must_use]
    pub fn hl7(mut self, code: u16) -> Self {
        self.hl7_code = Some(code);
        self
    }

    /// Whether this issue rejects the submission.
    pub fn rejects(&self) -> bool {
        self.severity >= Severity::Error
    }

    fn to_json(&self) -> Value {
        let mut issue = json!({ "severity": self.severity.as_str(), "code": self.code.as_str() });
        if let Some(code) = self.hl7_code {
            issue["details"] = json!({ "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/v2-0357", "code": code.to_string() }] });
        }
        issue["diagnostics"] = Value::String(self.diagnostics.clone());
        if let Some(location) = &self.location {
            issue["expression"] = json!([location]);
        }
        issue
    }
}

/// The issues as a FHIR OperationOutcome; an empty list reads as "all ok".
pub fn operation_outcome(issues: &[Issue]) -> Value {
    let list: Vec<Value> = if issues.is_empty() {
        vec![Issue::information(IssueCode::Informational, "all ok").to_json()]
    } else {
        issues.iter().map(Issue::to_json).collect()
    };
    json!({ "resourceType": "OperationOutcome", "issue": list })
}

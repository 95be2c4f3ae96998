//! What a submission means, as FHIR changes. Pure: no I/O, no clock, no look-ups; the same function serves live traffic, the dry run
//! `hilum map`, and replay.
//!
//! Meaning is data: the rule tables in `maps/` say which field or tag fills which FHIR element; this crate compiles them once
//! ([`Rules`]) and runs them. Everything written has a lineage, everything populated that no rule consumed is reported.

mod bundle;
mod element;
mod hl7;
mod identity;
mod instance;
mod mpps;
mod overlay;
mod rules;
mod v2;
mod v3;

use std::sync::Arc;

use bytes::Bytes;
use hilum_fhir::{Change, Issue, IssueCode, Timestamp};
use hilum_wire::er7;
use hilum_wire::v3::Message;
use jiff::tz::TimeZone;
use serde::Serialize;

pub use bundle::{bundle, rows};
pub use instance::InstanceHeader;

/// What came through a door, in the protocol's own form.
#[derive(Clone, Debug)]
pub enum Payload {
    /// One HL7 v2 message (no MLLP framing, no batch envelope).
    V2(Bytes),
    /// One HL7 v3 interaction, decoded and scanned by the door.
    V3(Arc<Message>),
    /// One MPPS as JSON: the short form or DICOM JSON. PS3.4 F.7.
    Mpps(Bytes),
    /// The header of a DICOM instance whose file is already durable.
    Instance(Box<InstanceHeader>),
    /// FHIR REST: the changes of the request, already validated by the door.
    Fhir(Vec<Change>),
}

/// What the meaning of a submission depends on beyond its bytes.
#[derive(Clone, Debug)]
pub struct Context {
    /// The site's id.
    pub site: String,
    /// The site's zone for local times without an offset.
    pub zone: TimeZone,
    /// Identifier system of patients without a known assigning authority.
    pub patient_identifier_system: String,
    /// Names of assigning authorities and their identifier systems: from the active NamingSystem resources of the site, then from
    /// `[[site.authority]]`. The first that names one decides.
    pub naming_systems: Arc<[(String, String)]>,
    /// Whether numbers without an authority may be joined with a Patient known under another system (`[[site]] join_unqualified`).
    pub join_unqualified: bool,
    /// Whether a message whose patient has no number makes a Patient of its own (`[[site]] unidentified = "keep"`), or is refused.
    pub keep_unidentified: bool,
    /// When the submission came in.
    pub received: Timestamp,
    /// A random seed from the caller, from which the full URLs of this submission's changes are made.
    pub seed: u128,
}

/// The compiled rule tables: ours, and a site's overlays on top.
#[derive(Debug)]
pub struct Rules {
    pub(crate) tables: rules::Tables,
    pub(crate) instance: Vec<instance::Row>,
    /// Limits of the messages read.
    pub(crate) er7: er7::Limits,
}

/// What a submission means.
#[derive(Debug, Default)]
pub struct Normalised {
    /// The transaction. Empty when an issue rejects.
    pub changes: Vec<Change>,
    /// What is wrong or odd. Any error rejects the submission.
    pub issues: Vec<Issue>,
    /// Populated places that no rule consumed, such as `PID-31`, `(0018,0050)` or an XPath.
    pub unmapped: Vec<String>,
    /// Where each written element came from.
    pub lineage: Vec<Lineage>,
}

/// Where one FHIR element came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lineage {
    /// Index of the change.
    pub change: u32,
    /// Element path within the resource, `name[0].family`.
    pub path: String,
    /// Source location: `PID[1]-5[1].1`, `(0010,0010)`, `/PRPA_IN201301UV02/…/name`, `/patient_id`.
    pub source: String,
    /// Byte range in the original, when known.
    pub bytes: Option<(u32, u32)>,
    /// The rule: file and line, `segments/PID[Patient].csv:7`.
    pub rule: String,
}

impl Normalised {
    /// Whether an issue rejects the submission.
    pub fn rejected(&self) -> bool {
        self.issues.iter().any(Issue::rejects)
    }

    /// Lineage, issues and unmapped locations as compact JSON, kept with the submission. Holds no values.
    pub fn report(&self) -> Bytes {
        type IssueRow<'r> = (&'r str, &'r str, &'r Option<String>, &'r str);
        type LineageRow<'r> = (u32, &'r str, &'r str, Option<(u32, u32)>, &'r str);
        #[derive(Serialize)]
        struct Report<'r> {
            issues: Vec<IssueRow<'r>>,
            unmapped: &'r [String],
            lineage: Vec<LineageRow<'r>>,
        }
        let report = Report {
            issues: self
                .issues
                .iter()
                .map(|i| (i.severity.as_str(), i.code.as_str(), &i.location, i.diagnostics.as_str()))
                .collect(),
            unmapped: &self.unmapped,
            lineage: self
                .lineage
                .iter()
                .map(|l| (l.change, l.path.as_str(), l.source.as_str(), l.bytes, l.rule.as_str()))
                .collect(),
        };
        serde_json::to_vec(&report).unwrap_or_default().into()
    }
}

/// A rule row that was not understood.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {reason}")]
pub struct RuleError {
    /// The map file.
    pub file: String,
    /// Its line.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl Rules {
    /// Compiles the built-in maps and `overlays` (file name and text), in order.
    ///
    /// # Errors
    /// Every row that was not understood.
    pub fn compile(overlays: &[(String, String)]) -> Result<Self, Vec<RuleError>> {
        let instance = instance::compile().map_err(|reason| {
            vec![RuleError {
                file: "dicom/instance".to_owned(),
                line: 0,
                reason: format!("{reason} is not understood"),
            }]
        })?;
        Ok(Self { tables: rules::Tables::compile(overlays)?, instance, er7: er7::Limits::default() })
    }

    /// With other limits than the default ones for the HL7 v2 messages that are mapped.
    #[must_use]
    pub fn reading(self, er7: er7::Limits) -> Self {
        Self { er7, ..self }
    }
}

/// Remarks of one submission that are told one by one; the others are counted.
const REMARKS_MAX: usize = 1_000;

/// Turns a submission into changes.
pub fn normalise(payload: &Payload, rules: &Rules, context: &Context) -> Normalised {
    let mut normalised = mapped(payload, rules, context);
    few_remarks(&mut normalised.issues);
    normalised
}

/// Leaves the first remarks, and says how many there were more. What rejects stays.
fn few_remarks(issues: &mut Vec<Issue>) {
    let (mut told, mut more) = (0, 0);
    issues.retain(|issue| {
        told += usize::from(!issue.rejects());
        let stays = issue.rejects() || told <= REMARKS_MAX;
        more += usize::from(!stays);
        stays
    });
    if more > 0 {
        let text = format!("{more} further remarks are not told one by one");
        issues.push(Issue::warning(IssueCode::TooLong, text));
    }
}

fn mapped(payload: &Payload, rules: &Rules, context: &Context) -> Normalised {
    match payload {
        Payload::V2(bytes) => v2::normalise(bytes, &rules.er7, &rules.tables, context),
        Payload::V3(message) => v3::normalise(message, &rules.tables, context),
        Payload::Mpps(bytes) => mpps::normalise(bytes, context),
        Payload::Instance(header) => instance::normalise(header, &rules.instance, context),
        Payload::Fhir(changes) => Normalised { changes: changes.clone(), ..Normalised::default() },
    }
}

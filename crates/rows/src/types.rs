//! Values that rows are told as.

use bytes::Bytes;
use hilum_fhir::{ResourceType, Timestamp};

use crate::BlobId;

/// One version of a resource.
#[derive(Clone, Debug)]
pub struct Version {
    /// The type.
    pub resource_type: ResourceType,
    /// The id.
    pub id: String,
    /// 1, 2, …
    pub version: u64,
    /// `meta.lastUpdated`.
    pub last_updated: Timestamp,
    /// How it came about.
    pub operation: Operation,
    /// The submission that caused it.
    pub submission: Option<u64>,
    /// Complete JSON with id and meta; empty for a deletion.
    pub body: Bytes,
}

/// The interaction that made a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are FHIR's interactions")]
pub enum Operation {
    Create,
    Update,
    Delete,
}

/// One entry of the change feed.
#[derive(Clone, Debug)]
pub struct FeedEntry {
    /// Feed position.
    pub position: u64,
    /// The version.
    pub version: Version,
}

/// Where the file of a DICOM instance is.
#[derive(Clone, Debug)]
pub struct InstanceFile {
    /// Content address.
    pub blob: BlobId,
    /// Transfer Syntax UID.
    pub transfer_syntax: String,
    /// Study Instance UID.
    pub study_uid: String,
    /// SHA-256 of the data set.
    pub dataset_sha256: [u8; 32],
}

/// A destination: a Subscription (or Endpoint) of a site that things are sent to.
#[derive(Clone, Debug)]
pub struct Destination {
    /// `Subscription/id`.
    pub reference: String,
    /// Feed position up to which versions have been matched.
    pub cursor: u64,
    /// Number of the next delivery, from 1 without gaps.
    pub next_number: u64,
    /// State.
    pub state: DestinationState,
    /// Milliseconds since 1970: not before.
    pub next_at: Option<i64>,
    /// Latest cause of failure, without content.
    pub error: Option<String>,
    /// Id of the API key that asked for it; `None` = it was written where no key is needed.
    pub owner: Option<String>,
}

/// State of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are R4's subscription-status codes")]
pub enum DestinationState {
    Requested,
    Active,
    Error,
    Off,
}

/// One thing to send, once.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// `Subscription/id`.
    pub destination: String,
    /// Number within the destination, from 1.
    pub number: u64,
    /// Feed position of the version to send.
    pub position: u64,
    /// State.
    pub state: DeliveryState,
    /// Attempts so far.
    pub attempts: u32,
    /// Milliseconds since 1970: not before.
    pub next_at: Option<i64>,
    /// When the first attempt was made, ms since 1970.
    pub first_attempt_at: Option<i64>,
    /// Latest cause of failure, without content.
    pub error: Option<String>,
}

/// State of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are storage.md's")]
pub enum DeliveryState {
    Queued,
    InFlight,
    Ambiguous,
    Delivered,
    Dead,
}

/// Whether the store takes writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Accepting,
    /// It does not; the reason, without paths or values.
    NotAccepting(String),
}

impl DestinationState {
    /// The state that a code of R4's subscription-status stands for; `Off` for any other text.
    pub fn from_code(code: &str) -> Self {
        match code {
            "requested" => Self::Requested,
            "active" => Self::Active,
            "error" => Self::Error,
            _ => Self::Off,
        }
    }

    /// Its code of R4's subscription-status.
    pub fn code(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Active => "active",
            Self::Error => "error",
            Self::Off => "off",
        }
    }

    pub(crate) fn number(self) -> i64 {
        match self {
            Self::Requested => 0,
            Self::Active => 1,
            Self::Error => 2,
            Self::Off => 3,
        }
    }

    pub(crate) fn from_number(number: i64) -> Self {
        match number {
            0 => Self::Requested,
            1 => Self::Active,
            2 => Self::Error,
            _ => Self::Off,
        }
    }
}

impl DeliveryState {
    /// Below 3: still to be sent.
    pub(crate) fn number(self) -> i64 {
        match self {
            Self::Queued => 0,
            Self::InFlight => 1,
            Self::Ambiguous => 2,
            Self::Delivered => 3,
            Self::Dead => 4,
        }
    }

    pub(crate) fn from_number(number: i64) -> Self {
        match number {
            0 => Self::Queued,
            1 => Self::InFlight,
            2 => Self::Ambiguous,
            3 => Self::Delivered,
            _ => Self::Dead,
        }
    }
}

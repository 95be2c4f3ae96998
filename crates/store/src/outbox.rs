//! Destinations, their cursors in the change feed, and what is queued for them.

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
}

/// State of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are R4's subscription-status codes")]
pub enum DestinationState { Requested, Active, Error, Off }

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
pub enum DeliveryState { Queued, InFlight, Ambiguous, Delivered, Dead }

//! Destinations, their cursors in the change feed, and what is queued for them.

use crate::{Error, Site, Store, sqlite};

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

impl Store {
    /// All destinations of a site.
    ///
    /// # Errors
    /// `Unavailable`.
    pub fn destinations(&self, site: &Site) -> Result<Vec<Destination>, Error> {
        self.site_db(site)?.read(sqlite::destinations)
    }

    /// Creates or changes a destination. Cursor and numbers of an existing one stay.
    ///
    /// # Errors
    /// `Unavailable`, `Full`.
    pub async fn put_destination(&self, site: &Site, destination: Destination) -> Result<(), Error> {
        self.site_db(site)?.writer.upkeep(256, move |apply| apply.put_destination(&destination)).await
    }

    /// Numbers `matches` (destination, feed position) and moves `cursors` (destination, feed position) in one transaction.
    ///
    /// # Errors
    /// `Unavailable`, `Full`.
    pub async fn matched(
        &self,
        site: &Site,
        matches: Vec<(String, u64)>,
        cursors: Vec<(String, u64)>,
    ) -> Result<(), Error> {
        let bytes = 128 * (matches.len() + cursors.len());
        self.site_db(site)?.writer.upkeep(bytes, move |apply| apply.matched(&matches, &cursors)).await
    }

    /// The first delivery of a destination that still has to be sent.
    ///
    /// # Errors
    /// `Unavailable`.
    pub fn next_delivery(&self, site: &Site, destination: &str) -> Result<Option<Delivery>, Error> {
        self.site_db(site)?.read(|connection| sqlite::next_delivery(connection, destination))
    }

    /// Notes what became of a delivery. Durable when it returns.
    ///
    /// # Errors
    /// `Unavailable`, `Full`.
    pub async fn mark_delivery(&self, site: &Site, delivery: Delivery) -> Result<(), Error> {
        self.site_db(site)?.writer.upkeep(256, move |apply| apply.mark(&delivery)).await
    }
}

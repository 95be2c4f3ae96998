//! Destinations, their cursors in the change feed, and what is queued for them.
//!
//! Of several edges on one database one delivers to a destination, and only that one writes about it: whatever the others write is refused.

use crate::engine::SiteDb;
use crate::{Error, Site, Store};

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
    pub async fn destinations(&self, site: &Site) -> Result<Vec<Destination>, Error> {
        self.ask(site, |rows| rows.destinations()).await
    }

    /// Creates or changes a destination. Cursor and numbers of an existing one stay.
    ///
    /// # Errors
    /// `Unavailable` (also when another edge delivers to it), `Full`.
    pub async fn put_destination(&self, site: &Site, destination: Destination) -> Result<(), Error> {
        let of = vec![destination.reference.clone()];
        self.site_db(site)?.upkeep_of(of, 256, move |apply| apply.db.put_destination(&destination)).await
    }

    /// Numbers `matches` (destination, feed position) and moves `cursors` (destination, feed position) in one transaction.
    ///
    /// # Errors
    /// `Unavailable` (also when another edge delivers to it), `Full`.
    pub async fn matched(
        &self,
        site: &Site,
        matches: Vec<(String, u64)>,
        cursors: Vec<(String, u64)>,
    ) -> Result<(), Error> {
        let bytes = 128 * (matches.len() + cursors.len());
        let mut of: Vec<String> = matches.iter().chain(&cursors).map(|(name, _)| name.clone()).collect();
        of.sort_unstable();
        of.dedup();
        self.site_db(site)?.upkeep_of(of, bytes, move |apply| apply.db.matched(&matches, &cursors)).await
    }

    /// The first delivery of a destination that still has to be sent.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn next_delivery(&self, site: &Site, destination: &str) -> Result<Option<Delivery>, Error> {
        let destination = destination.to_owned();
        self.ask(site, move |rows| rows.next_delivery(&destination)).await
    }

    /// Whether this edge is the one that delivers to a destination: of several edges on one database one is, until it is gone.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn delivers(&self, site: &Site, destination: &str) -> Result<bool, Error> {
        let destination = destination.to_owned();
        self.site_db(site)?.apart(move |db| db.delivers(&destination)).await
    }

    /// Gives up the oldest deliveries of a destination that are beyond `rows_max` or whose version was written before `before` (ms since
    /// 1970): they are dead, for `reason`. Returns how many, none when the backlog is within its bounds.
    ///
    /// # Errors
    /// `Unavailable` (also when another edge delivers to it), `Full`.
    pub async fn give_up_oldest(
        &self,
        site: &Site,
        destination: &str,
        rows_max: u64,
        before: i64,
        reason: &'static str,
    ) -> Result<u64, Error> {
        let db = self.site_db(site)?;
        let mut given_up = 0;
        loop {
            let asked = destination.to_owned();
            let reading = move |db: &SiteDb| db.read(|rows| rows.beyond(&asked, rows_max, before));
            let beyond = db.apart(reading).await?;
            let Some(last) = beyond.last().copied() else { return Ok(given_up) };
            let (of, destination) = (vec![destination.to_owned()], destination.to_owned());
            db.upkeep_of(of, 256, move |apply| apply.db.give_up(&destination, last, reason)).await?;
            given_up += beyond.len() as u64;
        }
    }

    /// Notes what became of a delivery. Durable when it returns.
    ///
    /// # Errors
    /// `Unavailable` (also when another edge delivers to it), `Full`.
    pub async fn mark_delivery(&self, site: &Site, delivery: Delivery) -> Result<(), Error> {
        let of = vec![delivery.destination.clone()];
        self.site_db(site)?.upkeep_of(of, 256, move |apply| apply.db.mark(&delivery)).await
    }
}

/// Why nothing was written about a destination: the lock is not this edge's, or not any more.
pub(crate) fn of_another_edge() -> Error {
    Error::unavailable("another edge delivers to this destination; nothing was written about it")
}

impl DestinationState {
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

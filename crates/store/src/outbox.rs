//! Destinations, their cursors in the change feed, and what is queued for them.
//!
//! Of several edges on one database one delivers to a destination, and only that one writes about it: whatever the others write is refused.

use crate::engine::SiteDb;
use crate::{Delivery, Destination, Error, Site, Store};

impl Store {
    /// All destinations of a site.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn destinations(&self, site: &Site) -> Result<Vec<Destination>, Error> {
        self.ask(site, |rows| rows.destinations()).await
    }

    /// One destination.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn destination(&self, site: &Site, reference: &str) -> Result<Option<Destination>, Error> {
        let reference = reference.to_owned();
        self.ask(site, move |rows| rows.destination(&reference)).await
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

    /// Those of the destinations that this edge is the one to deliver to: of several edges on one database one is, until it is gone.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn delivers_to(&self, site: &Site, destinations: Vec<String>) -> Result<Vec<String>, Error> {
        let own = move |db: &SiteDb| {
            let mut own = Vec::new();
            for destination in destinations {
                if db.delivers(&destination)? {
                    own.push(destination);
                }
            }
            Ok(own)
        };
        self.site_db(site)?.apart(own).await
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

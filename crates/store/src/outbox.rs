//! Destinations, their cursors in the change feed, and what is queued for them.
//!
//! Of several edges on one database one delivers to a destination, and only that one writes about it: whatever the others write is refused.

use hilum_fhir::{Action, Change, Precondition, Resource, Target};
use hilum_rows::stored;
use serde_json::json;

use crate::engine::SiteDb;
use crate::{
    About, Delivery, DeliveryState, Destination, DestinationState, Error, ErrorKind, Original, OriginalKind,
    Site, Store, Version, sha256,
};

/// A destination, and what waits for it.
#[derive(Clone, Debug)]
pub struct Queue {
    /// The destination.
    pub destination: Destination,
    /// How many deliveries wait.
    pub waiting: u64,
    /// The one that is sent next.
    pub first: Option<Delivery>,
}

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

    /// All destinations of a site with what waits for them.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn queues(&self, site: &Site) -> Result<Vec<Queue>, Error> {
        self.ask(site, |rows| {
            let mut queues = Vec::new();
            for destination in rows.destinations()? {
                let first = rows.next_delivery(&destination.reference)?;
                // they are sent in order, so all behind the first wait too
                let waiting = first.as_ref().map_or(0, |first| destination.next_number - first.number);
                queues.push(Queue { destination, waiting, first });
            }
            Ok(queues)
        })
        .await
    }

    /// Gives up the delivery that a Subscription sends next, and asks for the Subscription again when it is in error. False when another delivery is next.
    ///
    /// # Errors
    /// `NotFound` for an unknown destination; `Unavailable`, `Full`.
    pub async fn pass_over(
        &self,
        site: &Site,
        subscription: &Version,
        number: u64,
        who: &str,
    ) -> Result<bool, Error> {
        let reference = format!("Subscription/{}", subscription.id);
        let reason = format!("passed over by {who}");
        let give_up = move |rows: crate::Db<'_>| {
            let next = rows.next_delivery(&reference)?.filter(|next| next.number == number);
            Ok(next.map(|next| Delivery { state: DeliveryState::Dead, error: Some(reason.clone()), ..next }))
        };
        let Some(dead) = self.ask(site, give_up).await? else { return Ok(false) };
        self.site_db(site)?.upkeep(256, move |apply| apply.db.mark(&dead)).await?;
        if stored::parse(&subscription.body)?.get("status").is_some_and(|status| status == "error") {
            self.turn_subscription(site, subscription, DestinationState::Requested, None).await?;
        }
        Ok(true)
    }

    /// Writes the status of a Subscription as a new version, unless it is another version than this by now: then what was decided is not true of it, and
    /// whoever decided looks again. `error` names a cause and no secret. Whether it was written.
    ///
    /// # Errors
    /// `Unavailable`, `Full`.
    pub async fn turn_subscription(
        &self,
        site: &Site,
        subscription: &Version,
        state: DestinationState,
        error: Option<&str>,
    ) -> Result<bool, Error> {
        let mut content: Resource = stored::parse(&subscription.body)?;
        content.set("status", json!(state.code()));
        match error {
            Some(error) => content.set("error", json!(error)),
            None => drop(content.object_mut().shift_remove("error")),
        }
        let target = Target::Id(subscription.resource_type, subscription.id.clone());
        let precondition = Precondition { if_match: Some(vec![subscription.version]), must_not_exist: false };
        let change = Change { precondition, ..Change::new(Action::Replace(target, content)) };
        let original = Original {
            kind: OriginalKind::Internal,
            listener: "deliver".into(),
            peer: None,
            identity: None,
            control: None,
            sha256: sha256(subscription.id.as_bytes()),
            blob: None,
            bytes: None,
            content_type: "application/fhir+json",
            received: jiff::Timestamp::now().into(),
            report: None,
            about: About::default(),
        };
        match self.commit(site, original, vec![change], None).await {
            Err(error) if is_changed(error.kind) => Ok(false),
            done => done.map(|_| true),
        }
    }
}

/// Whether an error says that a resource is no longer as it was read.
fn is_changed(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Precondition | ErrorKind::NotFound | ErrorKind::Gone)
}

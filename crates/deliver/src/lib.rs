//! The outbox to subscribers: R4 rest-hook Subscriptions, fed by the change feed of the store.
//!
//! One task for each site matches new versions against the criteria of its Subscriptions and numbers the matches durably; one delivery
//! of each destination is in flight at a time, in order of number. The change feed is the only bridge: no listener calls this crate.
//!
//! [`storage_scu`] is how DICOM objects go out.

mod address;
mod send;
pub mod storage_scu;
mod subscription;

use std::collections::HashMap;
use std::time::Duration;

use hilum_fhir::ResourceType;
use hilum_fhir::search::{Context, Query, index};
use hilum_store::{Delivery, DeliveryState, Destination, DestinationState, Error, FeedEntry, Site, Store};
use tokio_util::sync::CancellationToken;

use crate::send::{Outcome, Sender};
use crate::subscription::Subscription;

/// Versions matched at a time.
const BATCH: u32 = 200;
/// How often Subscriptions are looked at without news: their ends and retries are due by the clock.
const TICK: Duration = Duration::from_secs(1);
/// A round begins so long after a commit.
const GATHERED_FOR: Duration = Duration::from_millis(10);
/// Failed answers of the kind that repeats before a Subscription is put in error.
const REFUSALS_MAX: u32 = 3;
const BACK_OFF_MIN_MS: i64 = 1_000;
const BACK_OFF_MAX_MS: i64 = 900_000;
/// Why a delivery died that was never refused.
const OVERFLOW: &str = "the backlog was beyond its limit: the oldest deliveries were given up";
/// Types that never match: what the server writes about itself.
const NEVER: [&str; 2] = ["AuditEvent", "Subscription"];

/// Limits of deliveries.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes read of an answer.
    pub response_bytes_max: usize,
    /// Time of one attempt.
    pub attempt_timeout: Duration,
    /// Time until a delivery is given up.
    pub retry_for: Duration,
    /// Deliveries that may wait for one destination; beyond, the oldest are given up.
    pub backlog_rows_max: u64,
    /// How long a delivery may wait, also while its destination is in error.
    pub backlog_for: Duration,
}

/// Delivers for all sites until `stop`.
pub async fn run(store: Store, options: Options, stop: CancellationToken) {
    let Ok(sites) = store.control().sites() else { return };
    let tasks: Vec<_> = sites
        .into_iter()
        .map(|site| {
            let worker = Worker { store: store.clone(), sender: Sender::new(options), site, options };
            tokio::spawn(worker.run(stop.clone()))
        })
        .collect();
    for task in tasks {
        if task.await.is_err() {
            metrics::counter!("hilum_panics_total", "place" => "deliver").increment(1);
            tracing::error!("deliveries of a site ended by a panic; they go on at the next start");
        }
    }
}

struct Worker {
    store: Store,
    sender: Sender,
    site: Site,
    options: Options,
}

impl Worker {
    async fn run(self, stop: CancellationToken) {
        let Ok(mut newest) = self.store.watch(&self.site) else { return };
        loop {
            newest.mark_unchanged();
            if let Err(error) = self.round().await {
                tracing::warn!(site = self.site.id(), %error, "deliveries are tried again");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                _ = newest.changed() => {}
                () = tokio::time::sleep(TICK) => {}
            }
            // a round is of all commits that fall into it
            tokio::time::sleep(GATHERED_FOR).await;
        }
    }

    /// One look at everything: states, matches, sends.
    async fn round(&self) -> Result<(), Error> {
        let subscriptions = self.own().await?;
        if subscriptions.is_empty() {
            return Ok(());
        }
        let mut destinations: HashMap<String, Destination> = self
            .store
            .destinations(&self.site)
            .await?
            .into_iter()
            .map(|d| (d.reference.clone(), d))
            .collect();
        for subscription in &subscriptions {
            self.state(subscription, destinations.get(&subscription.reference)).await?;
        }
        destinations = self
            .store
            .destinations(&self.site)
            .await?
            .into_iter()
            .map(|d| (d.reference.clone(), d))
            .collect();
        self.matches(&subscriptions, &destinations).await?;
        for subscription in &subscriptions {
            self.bound(subscription).await?;
        }
        let due = subscriptions.iter().filter(|s| {
            s.is_active()
                && destinations.get(&s.reference).is_some_and(|d| d.state == DestinationState::Active)
        });
        // destinations do not wait for each other
        let sends = due.map(|subscription| self.drain(subscription));
        futures(sends).await
    }

    /// The Subscriptions that this edge delivers to; of several edges on one database each has its own.
    async fn own(&self) -> Result<Vec<Subscription>, Error> {
        let mut own = Vec::new();
        for subscription in subscription::all(&self.store, &self.site).await? {
            if self.store.delivers(&self.site, &subscription.reference).await? {
                own.push(subscription);
            }
        }
        Ok(own)
    }

    /// requested -> active after the address was checked, -> error when it is refused, -> off at its end.
    async fn state(&self, subscription: &Subscription, known: Option<&Destination>) -> Result<(), Error> {
        let now = now_ms();
        if known.is_none() {
            let cursor = *self.store.watch(&self.site)?.borrow();
            let destination = Destination {
                reference: subscription.reference.clone(),
                cursor,
                next_number: 1,
                state: DestinationState::Requested,
                next_at: None,
                error: None,
            };
            self.store.put_destination(&self.site, destination).await?;
        }
        if subscription.ended(now) && subscription.status != "off" {
            return self.turn(subscription, DestinationState::Off, Some("end passed")).await;
        }
        if subscription.status == "requested" {
            return match address::check(&subscription.endpoint, &self.site.settings().outbound_allow).await {
                Ok(_) => self.turn(subscription, DestinationState::Active, None).await,
                Err(reason) => self.turn(subscription, DestinationState::Error, Some(reason)).await,
            };
        }
        let state = subscription.state();
        if known.is_some_and(|d| d.state != state) {
            return self.note(subscription, state, None).await;
        }
        Ok(())
    }

    /// Writes the new status as a version of the Subscription, and notes it at the destination.
    async fn turn(
        &self,
        subscription: &Subscription,
        state: DestinationState,
        error: Option<&str>,
    ) -> Result<(), Error> {
        subscription::set_status(&self.store, &self.site, subscription, state, error).await?;
        self.note(subscription, state, error).await
    }

    async fn note(
        &self,
        subscription: &Subscription,
        state: DestinationState,
        error: Option<&str>,
    ) -> Result<(), Error> {
        let destination = Destination {
            reference: subscription.reference.clone(),
            cursor: 0,
            next_number: 1,
            state,
            next_at: None,
            error: error.map(str::to_owned),
        };
        self.store.put_destination(&self.site, destination).await
    }

    /// Gives up the oldest deliveries of a backlog beyond its limits: counted, and shown by the Subscription.
    async fn bound(&self, subscription: &Subscription) -> Result<(), Error> {
        let waits = i64::try_from(self.options.backlog_for.as_millis()).unwrap_or(i64::MAX);
        let before = now_ms().saturating_sub(waits);
        let (reference, rows_max) = (&subscription.reference, self.options.backlog_rows_max);
        let dead = self.store.give_up_oldest(&self.site, reference, rows_max, before, OVERFLOW).await?;
        if dead == 0 {
            return Ok(());
        }
        metrics::counter!("hilum_deliveries_total", "outcome" => "overflow").increment(dead);
        tracing::warn!(site = self.site.id(), destination = %reference, dead, "backlog beyond its limit");
        // an error that stopped the deliveries says more than that they were too many then
        if subscription.is_active() && !subscription.has_error {
            return self.turn(subscription, DestinationState::Active, Some(OVERFLOW)).await;
        }
        Ok(())
    }

    /// Reads the feed from the oldest cursor and numbers what matches, destination by destination, in one transaction a batch.
    async fn matches(
        &self,
        subscriptions: &[Subscription],
        destinations: &HashMap<String, Destination>,
    ) -> Result<(), Error> {
        let cursors = subscriptions.iter().filter_map(|s| destinations.get(&s.reference)).map(|d| d.cursor);
        let Some(mut after) = cursors.min() else { return Ok(()) };
        loop {
            let entries = self.store.feed(&self.site, after, BATCH).await?;
            let Some(last) = entries.last() else { return Ok(()) };
            after = last.position;
            let mut matches = Vec::new();
            // after the entries: a merge among them counts for those that come later at the latest
            let criteria = self.criteria(subscriptions).await?;
            for entry in &entries {
                for (subscription, criteria) in subscriptions.iter().zip(&criteria) {
                    let behind =
                        destinations.get(&subscription.reference).is_some_and(|d| d.cursor < entry.position);
                    if behind && subscription.status != "off" && self.is_match(criteria.as_ref(), entry) {
                        matches.push((subscription.reference.clone(), entry.position));
                    }
                }
            }
            let cursors = subscriptions.iter().map(|s| (s.reference.clone(), after)).collect();
            self.store.matched(&self.site, matches, cursors).await?;
        }
    }

    /// The criteria of Subscriptions as they match now: one that names a patient hears of those it replaced too.
    async fn criteria(&self, subscriptions: &[Subscription]) -> Result<Vec<Option<Query>>, Error> {
        let mut criteria = Vec::with_capacity(subscriptions.len());
        for subscription in subscriptions {
            criteria.push(match &subscription.criteria {
                Some(query) => Some(self.store.followed(&self.site, query).await?),
                None => None,
            });
        }
        Ok(criteria)
    }

    fn is_match(&self, criteria: Option<&Query>, entry: &FeedEntry) -> bool {
        let version = &entry.version;
        let Some(query) = criteria else { return false };
        if version.body.is_empty()
            || query.resource_type != version.resource_type
            || NEVER.contains(&version.resource_type.name())
        {
            return false;
        }
        let Ok(value) = serde_json::from_slice(&version.body) else { return false };
        let Ok(resource) = hilum_fhir::Resource::from_value(value) else { return false };
        query.matches(&index(&resource, &context(&self.site)), &version.id, version.last_updated)
    }

    /// Sends what is queued for a destination, one after the other, until one has to wait.
    async fn drain(&self, subscription: &Subscription) -> Result<(), Error> {
        while let Some(mut delivery) = self.store.next_delivery(&self.site, &subscription.reference).await? {
            let now = now_ms();
            if delivery.next_at.is_some_and(|at| at > now) {
                return Ok(());
            }
            delivery.attempts += 1;
            delivery.first_attempt_at = delivery.first_attempt_at.or(Some(now));
            delivery.state = DeliveryState::InFlight;
            self.store.mark_delivery(&self.site, delivery.clone()).await?;
            let outcome = self.attempt(subscription, &delivery).await?;
            metrics::counter!("hilum_deliveries_total", "outcome" => outcome.label()).increment(1);
            if !self.settle(subscription, delivery, outcome).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Sends the version that matched, not a newer one.
    async fn attempt(&self, subscription: &Subscription, delivery: &Delivery) -> Result<Outcome, Error> {
        let found = self.store.feed(&self.site, delivery.position.saturating_sub(1), 1).await?;
        let Some(entry) = found.into_iter().find(|entry| entry.position == delivery.position) else {
            return Ok(Outcome::Dead("the version is gone"));
        };
        Ok(self.sender.send(&self.site, subscription, delivery, &entry.version).await)
    }

    /// Notes the outcome; false when the destination has to wait.
    async fn settle(
        &self,
        subscription: &Subscription,
        mut delivery: Delivery,
        outcome: Outcome,
    ) -> Result<bool, Error> {
        let now = now_ms();
        let waited = now - delivery.first_attempt_at.unwrap_or(now);
        let budget = i64::try_from(self.options.retry_for.as_millis()).unwrap_or(i64::MAX);
        let (state, reason, next_at) = match outcome {
            Outcome::Delivered => (DeliveryState::Delivered, None, None),
            Outcome::Dead(reason) => (DeliveryState::Dead, Some(reason), None),
            Outcome::Retry(reason, _) | Outcome::Refused(reason) if waited > budget => {
                (DeliveryState::Dead, Some(reason), None)
            }
            Outcome::Retry(reason, after) => (
                DeliveryState::Queued,
                Some(reason),
                Some(now + after.unwrap_or_else(|| back_off(delivery.attempts))),
            ),
            Outcome::Refused(reason) => {
                (DeliveryState::Queued, Some(reason), Some(now + back_off(delivery.attempts)))
            }
            Outcome::Gone => (DeliveryState::Dead, Some("the receiver said gone"), None),
        };
        let refused = matches!(outcome, Outcome::Refused(_)) && delivery.attempts >= REFUSALS_MAX;
        delivery.state = state;
        delivery.next_at = next_at;
        delivery.error = reason.map(str::to_owned);
        self.store.mark_delivery(&self.site, delivery).await?;
        if matches!(outcome, Outcome::Gone) {
            self.turn(subscription, DestinationState::Off, reason).await?;
            return Ok(false);
        }
        if refused {
            self.turn(subscription, DestinationState::Error, reason).await?;
            return Ok(false);
        }
        Ok(matches!(state, DeliveryState::Delivered | DeliveryState::Dead))
    }
}

/// Runs all at once; the first error is told.
async fn futures(all: impl Iterator<Item = impl Future<Output = Result<(), Error>>>) -> Result<(), Error> {
    let mut running: Vec<_> = all.map(Box::pin).collect();
    let mut result = Ok(());
    std::future::poll_fn(|cx| {
        running.retain_mut(|future| match future.as_mut().poll(cx) {
            std::task::Poll::Pending => true,
            std::task::Poll::Ready(done) => {
                if done.is_err() {
                    result = done;
                }
                false
            }
        });
        if running.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    result
}

/// Full jitter between nothing and twice as long each time, from 1 s to 15 min.
fn back_off(attempts: u32) -> i64 {
    let longest = BACK_OFF_MIN_MS.saturating_mul(1 << attempts.min(20)).min(BACK_OFF_MAX_MS);
    let mut random = [0; 8];
    let _ = getrandom::fill(&mut random);
    i64::try_from(u64::from_le_bytes(random) % longest.cast_unsigned()).unwrap_or(0).max(100)
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

fn context(site: &Site) -> Context {
    let zone = jiff::tz::TimeZone::get(&site.settings().timezone).unwrap_or(jiff::tz::TimeZone::UTC);
    Context { zone, now: jiff::Timestamp::now().into() }
}

fn subscription_type() -> ResourceType {
    ResourceType::from_name("Subscription").unwrap_or_else(|| unreachable!("a type of fhir r4"))
}

fn criteria(text: &str, site: &Site) -> Option<Query> {
    Query::parse_criteria(text, &context(site)).ok()
}

#[cfg(test)]
mod tests;

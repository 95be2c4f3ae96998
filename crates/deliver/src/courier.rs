//! One courier a Subscription: sends what is numbered for it, one delivery at a time, in order of number.
//!
//! Before each attempt the Subscription, its owner's rights and the site are read anew, and while one is under way a change of the Subscription is heard:
//! what was turned off, deleted or moved elsewhere is not sent any further. Nothing a courier waits for keeps another one waiting.

use std::sync::Arc;
use std::time::Duration;

use hilum_fhir::Resource;
use hilum_store::{
    Access, Delivery, DeliveryState, DestinationState, Error, Right, Site, Store, Thing, Version,
};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::backoff::back_off;
use crate::channel::Outcome;
use crate::channel::rest_hook::RestHook;
use crate::subscription::{self, Subscription};
use crate::{Options, context, note_trouble, now_ms};

/// Failed answers of the kind that repeats before a Subscription is put in error.
const REFUSALS_MAX: u32 = 3;
/// After trouble of the store, and while the site is disabled, a courier looks again so much later.
const LOOK_AGAIN_MS: i64 = 1_000;
/// A connection that was not used for so long is closed.
const REST_AFTER: Duration = Duration::from_secs(60);
const GONE: &str = "the receiver said gone";
const NOT_AUTHORISED: &str = "owner not authorised";

/// How a courier hears of news.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    /// Something was numbered for the destination.
    pub(crate) queued: Notify,
    /// The Subscription was written or deleted.
    pub(crate) changed: Notify,
}

/// The task of one Subscription.
pub(crate) struct Courier {
    pub(crate) store: Store,
    pub(crate) site: Site,
    pub(crate) id: String,
    pub(crate) options: Options,
    pub(crate) bell: Arc<Bell>,
    /// Attempts of all couriers at once.
    pub(crate) attempts: Arc<Semaphore>,
    pub(crate) stop: CancellationToken,
    pub(crate) hook: RestHook,
}

/// What a courier does next.
enum Next {
    /// Look again at once.
    Again,
    /// Wait for news, at most until then (ms since 1970).
    Wait(Option<i64>),
    /// The Subscription is off or gone.
    End,
}

/// For whom is delivered.
enum Owner {
    /// Somebody who may read what these rights cover.
    Of(Arc<Access>),
    /// Nobody who may be told anything any more.
    NotAuthorised,
}

impl Courier {
    /// Sends until the Subscription is off or deleted, or `stop`.
    pub(crate) async fn run(mut self) {
        while !self.stop.is_cancelled() {
            let next = match self.step().await {
                Ok(next) => next,
                Err(error) => {
                    note_trouble(&self.site, &error);
                    Next::Wait(Some(now_ms() + LOOK_AGAIN_MS))
                }
            };
            match next {
                Next::Again => {}
                Next::Wait(until) => self.wait(until).await,
                Next::End => return,
            }
        }
    }

    /// Waits for news, the stop, or a time.
    async fn wait(&mut self, until: Option<i64>) {
        let left = until.map(|at| Duration::from_millis((at - now_ms()).max(0).cast_unsigned()));
        let news = async {
            tokio::select! {
                () = self.bell.queued.notified() => {}
                () = self.bell.changed.notified() => {}
                () = self.stop.cancelled() => {}
            }
        };
        let short = left.unwrap_or(Duration::MAX).min(REST_AFTER);
        if tokio::time::timeout(short, news).await.is_err() && short == REST_AFTER {
            self.hook.rest();
        }
    }

    async fn step(&mut self) -> Result<Next, Error> {
        let Some(site) = self.store.control().site(self.site.id())? else {
            // a site that is disabled sends nothing
            return Ok(Next::Wait(Some(now_ms() + LOOK_AGAIN_MS)));
        };
        self.site = site;
        let Some(subscription) = subscription::current(&self.store, &self.site, &self.id).await? else {
            return Ok(Next::End);
        };
        if subscription.is_off() {
            return Ok(Next::End);
        }
        if subscription.has_ended(now_ms()) {
            self.turn(&subscription, DestinationState::Off, Some("end passed")).await?;
            return Ok(Next::Again);
        }
        let owner = self.owner(&subscription).await?;
        match subscription.status {
            DestinationState::Error | DestinationState::Off => Ok(Next::Wait(subscription.end_ms)),
            _ if matches!(owner, Owner::NotAuthorised) => {
                self.turn(&subscription, DestinationState::Error, Some(NOT_AUTHORISED)).await?;
                Ok(Next::Again)
            }
            DestinationState::Requested => {
                let (state, reason) = match self.hook.check(&self.site, &subscription).await {
                    Ok(()) => (DestinationState::Active, None),
                    Err(reason) => (DestinationState::Error, Some(reason)),
                };
                self.turn(&subscription, state, reason).await?;
                Ok(Next::Again)
            }
            DestinationState::Active => match owner {
                Owner::Of(access) => self.deliver(&subscription, &access).await,
                Owner::NotAuthorised => Ok(Next::Again),
            },
        }
    }

    async fn turn(
        &self,
        subscription: &Subscription,
        state: DestinationState,
        error: Option<&str>,
    ) -> Result<bool, Error> {
        self.store.turn_subscription(&self.site, &subscription.version, state, error).await
    }

    /// The rights under which the Subscription is served now: of the key that last wrote it.
    async fn owner(&self, subscription: &Subscription) -> Result<Owner, Error> {
        let Some(destination) = self.store.destination(&self.site, &subscription.reference).await? else {
            return Ok(Owner::NotAuthorised);
        };
        let access = match &destination.owner {
            None => Some(Arc::new(Access::everything())),
            Some(key) => self.store.control().access_of(key, &self.site, jiff::Timestamp::now().into())?,
        };
        let of = subscription.criteria.as_ref().map(|query| query.resource_type);
        let may = |access: &Arc<Access>| {
            of.is_none_or(|of| access.may(of, Right::Read) && access.may(of, Right::Search))
        };
        Ok(access.filter(may).map_or(Owner::NotAuthorised, Owner::Of))
    }

    /// Sends the first delivery that waits, when it is due.
    async fn deliver(&mut self, subscription: &Subscription, access: &Access) -> Result<Next, Error> {
        let Some(mut delivery) = self.store.next_delivery(&self.site, &subscription.reference).await? else {
            return Ok(Next::Wait(subscription.end_ms));
        };
        let now = now_ms();
        if let Some(at) = delivery.next_at.filter(|at| *at > now) {
            return Ok(Next::Wait(Some(subscription.end_ms.map_or(at, |end| end.min(at)))));
        }
        delivery.attempts += 1;
        delivery.first_attempt_at = delivery.first_attempt_at.or(Some(now));
        let outcome = match self.version(&delivery).await? {
            None => Outcome::Dead("the version is gone"),
            Some(version) if !may_hear(access, &version, &self.site) => {
                Outcome::Dead("the owner may not read it")
            }
            Some(version) => match self.attempt(subscription, &delivery, &version).await? {
                Some(outcome) => outcome,
                // broken off: it waits as it did before
                None => return Ok(Next::Again),
            },
        };
        metrics::counter!("hilum_deliveries_total", "outcome" => outcome.label()).increment(1);
        self.settle(subscription, delivery, outcome).await?;
        Ok(Next::Again)
    }

    /// The version that matched, not a newer one.
    async fn version(&self, delivery: &Delivery) -> Result<Option<Version>, Error> {
        let found = self.store.feed(&self.site, delivery.position.saturating_sub(1), 1).await?;
        let entry = found.into_iter().find(|entry| entry.position == delivery.position);
        Ok(entry.map(|entry| entry.version))
    }

    /// One attempt; `None` when it was broken off, by the stop or because the Subscription does not ask for it any more.
    async fn attempt(
        &mut self,
        subscription: &Subscription,
        delivery: &Delivery,
        version: &Version,
    ) -> Result<Option<Outcome>, Error> {
        let permit = tokio::select! {
            permit = self.attempts.clone().acquire_owned() => permit,
            () = self.stop.cancelled() => return Ok(None),
        };
        let (store, site, bell, stop) = (&self.store, &self.site, &self.bell, &self.stop);
        let patience = self.options.stop_patience;
        let sending = self.hook.send(site, subscription, delivery, version);
        tokio::pin!(sending);
        let stopped = async {
            stop.cancelled().await;
            tokio::time::sleep(patience).await;
        };
        tokio::pin!(stopped);
        let done = loop {
            tokio::select! {
                outcome = &mut sending => break Some(outcome),
                () = &mut stopped => break None,
                () = bell.changed.notified() => {
                    let now = subscription::current(store, site, &subscription.id).await?;
                    if !now.is_some_and(|now| now.sends_like(subscription)) {
                        break None;
                    }
                }
            }
        };
        drop(permit);
        Ok(done)
    }

    /// Notes the outcome of an attempt.
    async fn settle(
        &self,
        subscription: &Subscription,
        mut delivery: Delivery,
        outcome: Outcome,
    ) -> Result<(), Error> {
        // gone is said of the address that was sent to: of another one it is not known
        if matches!(outcome, Outcome::Gone)
            && !self.turn(subscription, DestinationState::Off, Some(GONE)).await?
        {
            return Ok(());
        }
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
            Outcome::Gone => (DeliveryState::Dead, Some(GONE), None),
        };
        let refused = matches!(outcome, Outcome::Refused(_)) && delivery.attempts >= REFUSALS_MAX;
        delivery.state = state;
        delivery.next_at = next_at;
        delivery.error = reason.map(str::to_owned);
        self.store.mark_delivery(&self.site, delivery).await?;
        if refused {
            self.turn(subscription, DestinationState::Error, reason).await?;
        }
        Ok(())
    }
}

/// Whether the owner of a Subscription may read this version itself: its scopes may have a filter.
fn may_hear(access: &Access, version: &Version, site: &Site) -> bool {
    let of = version.resource_type;
    if access.is_whole(of, Right::Read) && access.is_whole(of, Right::Search) {
        return true;
    }
    let parsed =
        serde_json::from_slice(&version.body).ok().and_then(|value| Resource::from_value(value).ok());
    let Some(content) = parsed else { return false };
    let thing = Thing { content: &content, id: &version.id, last_updated: version.last_updated };
    let context = context(site);
    access.covers(Right::Read, thing, &context) && access.covers(Right::Search, thing, &context)
}

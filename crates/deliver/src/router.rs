//! One router a site: reads the change feed, numbers what matches for each Subscription, and keeps a courier for each. It never waits for a receiver.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hilum_fhir::search::{Query, index};
use hilum_fhir::{Resource, ResourceType};
use hilum_store::{DestinationState, Error, FeedEntry, Site, Store};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::channel::rest_hook::RestHook;
use crate::courier::{Bell, Courier};
use crate::subscription::{self, Subscription};
use crate::{Options, TICK, context, note_panic, note_trouble, now_ms, subscription_type};

/// Versions matched at a time.
const BATCH: u32 = 200;
/// A round begins so long after a commit, and is of all commits that fall into it.
const GATHERED_FOR: Duration = Duration::from_millis(10);
/// Attempts under way at once, of all Subscriptions of a site.
const ATTEMPTS_MAX: usize = 512;
/// Why a delivery died that was never refused.
pub(crate) const OVERFLOW: &str = "the backlog was beyond its limit: the oldest deliveries were given up";
/// Types that never match: what the server writes about itself.
const NEVER: [&str; 2] = ["AuditEvent", "Subscription"];

/// The task of one site.
pub(crate) struct Router {
    store: Store,
    site: Site,
    options: Options,
    stop: CancellationToken,
    attempts: Arc<Semaphore>,
    /// By reference.
    routes: HashMap<String, Route>,
    /// Feed position up to which changes of Subscriptions are known; `None` before they were read.
    seen: Option<u64>,
    ticked: Option<Instant>,
}

/// What the router knows of one Subscription.
struct Route {
    subscription: Subscription,
    /// The criteria as they match now: what names a patient names those it replaced too.
    followed: Option<Query>,
    /// Feed position up to which it was matched.
    cursor: u64,
    /// The cursor as it is stored.
    stored_cursor: u64,
    /// Whether this edge delivers to it; of several edges on one database each has its own.
    is_own: bool,
    /// Whether something may be waiting for it.
    may_wait: bool,
    bell: Arc<Bell>,
    courier: Option<JoinHandle<()>>,
}

impl Router {
    pub(crate) fn new(store: Store, site: Site, options: Options, stop: CancellationToken) -> Self {
        let attempts = Arc::new(Semaphore::new(ATTEMPTS_MAX));
        Self { store, site, options, stop, attempts, routes: HashMap::new(), seen: None, ticked: None }
    }

    /// Routes until the stop, then waits for the couriers.
    pub(crate) async fn run(mut self) {
        let Ok(mut newest) = self.store.watch(&self.site) else { return };
        loop {
            newest.mark_unchanged();
            if let Err(error) = self.round().await {
                note_trouble(&self.site, &error);
            }
            tokio::select! {
                () = self.stop.cancelled() => break,
                _ = newest.changed() => {}
                () = tokio::time::sleep(TICK) => {}
            }
            tokio::time::sleep(GATHERED_FOR).await;
        }
        for courier in self.routes.into_values().filter_map(|route| route.courier) {
            if courier.await.is_err() {
                note_panic("courier");
            }
        }
    }

    async fn round(&mut self) -> Result<(), Error> {
        if self.seen.is_none() {
            self.begin().await?;
        }
        if self.ticked.is_none_or(|at| at.elapsed() >= TICK) {
            self.tick().await?;
            self.ticked = Some(Instant::now());
        }
        self.follow().await
    }

    /// Reads all Subscriptions. What is written meanwhile is read again from the feed.
    async fn begin(&mut self) -> Result<(), Error> {
        let newest = *self.store.watch(&self.site)?.borrow();
        let all = subscription::all(&self.store, &self.site).await?;
        self.learn(all).await?;
        self.seen = Some(newest);
        Ok(())
    }

    /// What is due by the clock: which destinations are this edge's, couriers that ended, backlogs, cursors.
    async fn tick(&mut self) -> Result<(), Error> {
        self.take_own(self.routes.keys().cloned().collect()).await?;
        let references: Vec<String> = self.routes.keys().cloned().collect();
        for reference in &references {
            self.keep_courier(reference).await;
            self.bound(reference).await?;
        }
        let moved = self.routes.values().filter(|route| route.is_own && route.cursor > route.stored_cursor);
        let cursors: Vec<(String, u64)> =
            moved.map(|route| (route.subscription.reference.clone(), route.cursor)).collect();
        if !cursors.is_empty() {
            self.note_matched(Vec::new(), cursors).await?;
        }
        Ok(())
    }

    /// Matches what was written since, batch by batch.
    async fn follow(&mut self) -> Result<(), Error> {
        if self.pass_by().await? {
            return Ok(());
        }
        while let Some(after) = self.behind() {
            let entries = self.store.feed(&self.site, after, BATCH).await?;
            let Some(last) = entries.last().map(|entry| entry.position) else { return Ok(()) };
            self.learn_from(&entries).await?;
            self.follow_patients(&entries).await?;
            self.match_entries(&entries, last).await?;
            self.seen = self.seen.map(|seen| seen.max(last));
            if self.stop.is_cancelled() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Where there is nothing to match for, only a new Subscription is news: the contents of the feed are not read.
    async fn pass_by(&mut self) -> Result<bool, Error> {
        let (Some(seen), false) = (self.seen, self.routes.values().any(|route| route.is_own)) else {
            return Ok(false);
        };
        let newest = *self.store.watch(&self.site)?.borrow();
        if self.store.has_changed(&self.site, subscription_type(), seen).await? {
            return Ok(false);
        }
        self.seen = Some(seen.max(newest));
        Ok(true)
    }

    /// The feed position from which there is something to look at.
    fn behind(&self) -> Option<u64> {
        let cursors = self.routes.values().filter(|route| route.is_own).map(|route| route.cursor);
        cursors.chain(self.seen).min()
    }

    /// Reads the Subscriptions again that were written in these entries.
    async fn learn_from(&mut self, entries: &[FeedEntry]) -> Result<(), Error> {
        let is_news = |entry: &&FeedEntry| {
            entry.version.resource_type == subscription_type()
                && self.seen.is_none_or(|seen| entry.position > seen)
        };
        let written: BTreeSet<&str> =
            entries.iter().filter(is_news).map(|entry| entry.version.id.as_str()).collect();
        if written.is_empty() {
            return Ok(());
        }
        let mut found = Vec::new();
        for id in written {
            match subscription::current(&self.store, &self.site, id).await? {
                Some(subscription) => found.push(subscription),
                None => self.forget(&format!("Subscription/{id}")),
            }
        }
        self.learn(found).await
    }

    /// A courier that hears it finds the Subscription gone, and ends.
    fn forget(&mut self, reference: &str) {
        if let Some(route) = self.routes.remove(reference) {
            route.bell.changed.notify_one();
        }
    }

    async fn learn(&mut self, subscriptions: Vec<Subscription>) -> Result<(), Error> {
        let cursors = self.cursors().await?;
        let mut references = Vec::with_capacity(subscriptions.len());
        for subscription in subscriptions {
            let reference = subscription.reference.clone();
            // without a destination it was deleted meanwhile, which the feed tells
            let Some(stored_cursor) = cursors.get(&reference).copied() else { continue };
            let followed = self.followed(&subscription).await?;
            match self.routes.get_mut(&reference) {
                Some(route) => {
                    // a Subscription that was made again, or turned on again, begins where its destination does
                    route.cursor = route.cursor.max(stored_cursor);
                    (route.subscription, route.followed, route.stored_cursor) =
                        (subscription, followed, stored_cursor);
                    route.bell.changed.notify_one();
                }
                None => {
                    let route = Route {
                        subscription,
                        followed,
                        cursor: stored_cursor,
                        stored_cursor,
                        is_own: false,
                        may_wait: true,
                        bell: Arc::default(),
                        courier: None,
                    };
                    self.routes.insert(reference.clone(), route);
                }
            }
            references.push(reference);
        }
        self.take_own(references.clone()).await?;
        for reference in &references {
            self.keep_courier(reference).await;
        }
        Ok(())
    }

    /// Asks which of the destinations this edge delivers to. One that it takes over begins where the other edge left it.
    async fn take_own(&mut self, references: Vec<String>) -> Result<(), Error> {
        let own: HashSet<String> =
            self.store.delivers_to(&self.site, references.clone()).await?.into_iter().collect();
        let is_taken_over =
            |route: &Route| !route.is_own && own.contains(route.subscription.reference.as_str());
        let taken = references.iter().filter_map(|reference| self.routes.get(reference)).any(is_taken_over);
        let cursors = if taken { self.cursors().await? } else { HashMap::new() };
        for reference in &references {
            let Some(route) = self.routes.get_mut(reference) else { continue };
            if is_taken_over(route)
                && let Some(cursor) = cursors.get(reference)
            {
                (route.cursor, route.stored_cursor, route.may_wait) = (*cursor, *cursor, true);
            }
            route.is_own = own.contains(reference);
        }
        Ok(())
    }

    /// How far each destination is served, as it is stored.
    async fn cursors(&self) -> Result<HashMap<String, u64>, Error> {
        let destinations = self.store.destinations(&self.site).await?.into_iter();
        Ok(destinations.map(|destination| (destination.reference, destination.cursor)).collect())
    }

    /// A courier for each own Subscription that is not off.
    async fn keep_courier(&mut self, reference: &str) {
        let Some(route) = self.routes.get_mut(reference) else { return };
        if let Some(ended) = route.courier.take_if(|courier| courier.is_finished())
            && ended.await.is_err()
        {
            note_panic("courier");
        }
        if !route.is_own {
            // another edge delivers: what this courier still does is refused by the store
            if let Some(courier) = route.courier.take() {
                courier.abort();
            }
            return;
        }
        if route.courier.is_some() || route.subscription.is_off() || self.stop.is_cancelled() {
            return;
        }
        let courier = Courier {
            store: self.store.clone(),
            site: self.site.clone(),
            id: route.subscription.id.clone(),
            options: self.options,
            bell: route.bell.clone(),
            attempts: self.attempts.clone(),
            stop: self.stop.clone(),
            hook: RestHook::new(self.options),
        };
        route.courier = Some(tokio::spawn(courier.run()));
    }

    async fn followed(&self, subscription: &Subscription) -> Result<Option<Query>, Error> {
        match &subscription.criteria {
            Some(query) => self.store.followed(&self.site, query).await.map(Some),
            None => Ok(None),
        }
    }

    /// After a Patient was written it may have replaced others: criteria that name one are looked at again. Those of a merge among the entries count for the
    /// entries too.
    async fn follow_patients(&mut self, entries: &[FeedEntry]) -> Result<(), Error> {
        if !entries.iter().any(|entry| entry.version.resource_type.name() == "Patient") {
            return Ok(());
        }
        let named: Vec<String> = self
            .routes
            .values()
            .filter(|route| {
                route.is_own && route.subscription.criteria.as_ref().is_some_and(names_a_resource)
            })
            .map(|route| route.subscription.reference.clone())
            .collect();
        for reference in named {
            let Some(subscription) = self.routes.get(&reference).map(|route| route.subscription.clone())
            else {
                continue;
            };
            let followed = self.followed(&subscription).await?;
            if let Some(route) = self.routes.get_mut(&reference) {
                route.followed = followed;
            }
        }
        Ok(())
    }

    /// Numbers what matches, in one transaction. Cursors of those without a match are stored by the tick: to read a part of the feed once more finds the same.
    async fn match_entries(&mut self, entries: &[FeedEntry], last: u64) -> Result<(), Error> {
        let mut by_type: HashMap<ResourceType, Vec<&Route>> = HashMap::new();
        for route in self.routes.values().filter(|route| route.is_own && !route.subscription.is_off()) {
            if let Some(query) = &route.followed {
                by_type.entry(query.resource_type).or_default().push(route);
            }
        }
        let mut matches = Vec::new();
        for entry in entries {
            let Some(routes) = by_type.get(&entry.version.resource_type) else { continue };
            for reference in self.matching(entry, routes) {
                matches.push((reference, entry.position));
            }
        }
        let matched: BTreeSet<String> = matches.iter().map(|(reference, _)| reference.clone()).collect();
        if !matches.is_empty() {
            let cursors = matched.iter().map(|reference| (reference.clone(), last)).collect();
            self.note_matched(matches, cursors).await?;
        }
        for route in self.routes.values_mut().filter(|route| route.is_own) {
            route.cursor = route.cursor.max(last);
            if matched.contains(&route.subscription.reference) {
                route.may_wait = true;
                route.bell.queued.notify_one();
            }
        }
        Ok(())
    }

    /// The Subscriptions that an entry is for. It is indexed once for all of them.
    fn matching(&self, entry: &FeedEntry, routes: &[&Route]) -> Vec<String> {
        let version = &entry.version;
        if version.body.is_empty() || NEVER.contains(&version.resource_type.name()) {
            return Vec::new();
        }
        let parsed =
            serde_json::from_slice(&version.body).ok().and_then(|value| Resource::from_value(value).ok());
        let Some(resource) = parsed else { return Vec::new() };
        let entries = index(&resource, &context(&self.site));
        let is_for = |route: &&&Route| {
            route.cursor < entry.position
                && route
                    .followed
                    .as_ref()
                    .is_some_and(|query| query.matches(&entries, &version.id, version.last_updated))
        };
        routes.iter().filter(is_for).map(|route| route.subscription.reference.clone()).collect()
    }

    async fn note_matched(
        &mut self,
        matches: Vec<(String, u64)>,
        cursors: Vec<(String, u64)>,
    ) -> Result<(), Error> {
        self.store.matched(&self.site, matches, cursors.clone()).await?;
        for (reference, cursor) in cursors {
            if let Some(route) = self.routes.get_mut(&reference) {
                route.stored_cursor = route.stored_cursor.max(cursor);
            }
        }
        Ok(())
    }

    /// Gives up the oldest deliveries of a backlog beyond its limits: counted, and shown by the Subscription.
    async fn bound(&mut self, reference: &str) -> Result<(), Error> {
        let Some(route) = self.routes.get_mut(reference).filter(|route| route.is_own && route.may_wait)
        else {
            return Ok(());
        };
        let waits = i64::try_from(self.options.backlog_for.as_millis()).unwrap_or(i64::MAX);
        let before = now_ms().saturating_sub(waits);
        let rows_max = self.options.backlog_rows_max;
        route.may_wait = self.store.next_delivery(&self.site, reference).await?.is_some();
        if !route.may_wait {
            return Ok(());
        }
        let dead = self.store.give_up_oldest(&self.site, reference, rows_max, before, OVERFLOW).await?;
        if dead == 0 {
            return Ok(());
        }
        metrics::counter!("hilum_deliveries_total", "outcome" => "overflow").increment(dead);
        tracing::warn!(site = self.site.id(), destination = %reference, dead, "backlog beyond its limit");
        let id = route.subscription.id.clone();
        let Some(current) = subscription::current(&self.store, &self.site, &id).await? else { return Ok(()) };
        // an error that stopped the deliveries says more than that they were too many then
        if current.is_active() && !current.has_error {
            let (state, reason) = (DestinationState::Active, Some(OVERFLOW));
            self.store.turn_subscription(&self.site, &current.version, state, reason).await?;
        }
        Ok(())
    }
}

/// Whether criteria name a resource by a reference.
fn names_a_resource(query: &Query) -> bool {
    use hilum_fhir::search::Condition;
    query.filters.iter().any(|filter| matches!(filter.condition, Condition::Reference(_)))
}

//! The outbox to subscribers: R4 rest-hook Subscriptions, fed by the change feed of the store.
//!
//! [`router`] is one task for each site: it matches new versions against the criteria of the site's Subscriptions and numbers the matches durably. It
//! never waits for a receiver. [`courier`] is one task for each Subscription: it sends what is numbered, one delivery at a time, in order. What is true of
//! a Subscription (where to, whether still, for whom) a courier reads anew before each attempt. The change feed is the only bridge: no listener calls this
//! crate.
//!
//! [`peers`] are programs of other protocols that things are sent to.

mod backoff;
mod channel;
mod courier;
pub mod peers;
mod router;
mod subscription;

use std::collections::HashMap;
use std::time::Duration;

use hilum_fhir::ResourceType;
use hilum_fhir::search::{Context, Query};
use hilum_store::{Error, Site, Store};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::router::Router;

/// How often sites, Subscriptions and queues are looked at without news: what is due by the clock.
const TICK: Duration = Duration::from_secs(1);

/// Limits of deliveries.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes read of an answer.
    pub response_bytes_max: usize,
    /// Time of one attempt.
    pub attempt_timeout: Duration,
    /// Time an attempt has that is under way at the stop; then it is broken off, and made again after the start with the same key.
    pub stop_patience: Duration,
    /// Time until a delivery is given up.
    pub retry_for: Duration,
    /// Deliveries that may wait for one destination; beyond, the oldest are given up.
    pub backlog_rows_max: u64,
    /// How long a delivery may wait, also while its destination is in error.
    pub backlog_for: Duration,
}

/// Delivers for all sites, those that come later too, until `stop`. Returns when every attempt has ended, at most `stop_patience` later.
pub async fn run(store: Store, options: Options, stop: CancellationToken) {
    let mut routers: HashMap<String, JoinHandle<()>> = HashMap::new();
    loop {
        for site in store.control().sites().unwrap_or_default() {
            let ended = routers.get_mut(site.id()).is_none_or(|router| router.is_finished());
            if ended && let Some(Err(_)) = take(&mut routers, site.id()).await {
                note_panic("router");
            }
            if ended {
                let router = Router::new(store.clone(), site.clone(), options, stop.clone());
                routers.insert(site.id().to_owned(), tokio::spawn(router.run()));
            }
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(TICK) => {}
        }
    }
    for (_, router) in routers {
        if router.await.is_err() {
            note_panic("router");
        }
    }
}

async fn take(
    routers: &mut HashMap<String, JoinHandle<()>>,
    site: &str,
) -> Option<Result<(), tokio::task::JoinError>> {
    Some(routers.remove(site)?.await)
}

fn note_panic(of: &'static str) {
    metrics::counter!("hilum_panics_total", "place" => format!("deliver-{of}")).increment(1);
    tracing::error!(of, "a task of the deliveries ended by a panic; it begins again");
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

/// What the log says when the store cannot be used: no content.
fn note_trouble(site: &Site, error: &Error) {
    tracing::warn!(site = site.id(), %error, "deliveries are tried again");
}

#[cfg(test)]
mod tests;

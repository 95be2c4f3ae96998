#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router as Routes;
use axum::extract::{ConnectInfo, Request};
use axum::http::StatusCode;
use hilum_fhir::{Action, Change, Resource, Target, Timestamp};
use hilum_store::{Config, DeliveryState, Original, OriginalKind};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::*;
use crate::router::OVERFLOW;

const NEVER_ENDS: &str = "2999-01-01T00:00:00Z";

/// A store with one site, and the deliveries of it.
struct Bench {
    store: Store,
    site: Site,
    options: Options,
    running: Option<(CancellationToken, tokio::task::JoinHandle<()>)>,
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            free_bytes_min: 0,
            blobs_free_bytes_min: 0,
            cache_bytes: 1 << 20,
            ..Config::new(dir.path().to_owned())
        };
        let store = Store::open(config).await.unwrap();
        let settings = json!({ "id": "a", "outbound_allow": ["127.0.0.0/8"] });
        store.control().put_site(serde_json::from_value(settings).unwrap()).unwrap();
        let site = store.control().site("a").unwrap().unwrap();
        let options = Options {
            response_bytes_max: 1024,
            attempt_timeout: Duration::from_secs(60),
            stop_patience: Duration::from_millis(100),
            retry_for: Duration::from_secs(60),
            backlog_rows_max: 100,
            backlog_for: Duration::from_secs(3600),
        };
        Self { store, site, options, running: None, _dir: dir }
    }

    /// With deliveries on.
    async fn running() -> Self {
        let mut bench = Self::new().await;
        bench.start();
        bench
    }

    fn start(&mut self) {
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(self.store.clone(), self.options, stop.clone()));
        self.running = Some((stop, task));
    }

    async fn stop(&mut self) {
        let (stop, task) = self.running.take().unwrap();
        stop.cancel();
        task.await.unwrap();
    }

    async fn put(&self, resource: Value) {
        self.put_by(None, resource).await;
    }

    async fn put_by(&self, key: Option<&str>, resource: Value) {
        let resource = Resource::from_value(resource).unwrap();
        let target = Target::Id(resource.resource_type(), resource.id().unwrap().to_owned());
        self.commit(key, vec![Change::new(Action::Replace(target, resource))]).await;
    }

    async fn delete(&self, id: &str) {
        self.commit(None, vec![Change::new(Action::Delete(Target::Id(subscription_type(), id.into())))])
            .await;
    }

    async fn commit(&self, key: Option<&str>, changes: Vec<Change>) {
        let original = Original {
            kind: OriginalKind::Fhir,
            listener: "test".into(),
            peer: None,
            identity: key.map(str::to_owned),
            control: None,
            sha256: [0; 32],
            blob: None,
            bytes: None,
            content_type: "application/fhir+json",
            received: Timestamp::from_micros(0),
            report: None,
            about: Default::default(),
        };
        self.store.commit(&self.site, original, changes, None).await.unwrap();
    }

    async fn subscription(&self, id: &str) -> Value {
        let found = self.store.read(&self.site, subscription_type(), id).await.unwrap().unwrap();
        serde_json::from_slice(&found.body).unwrap_or_default()
    }

    async fn wait_for(&self, id: &str, status: &str) -> Value {
        until(&format!("{id} is {status}"), async || {
            let found = self.subscription(id).await;
            (found["status"] == status).then_some(found)
        })
        .await
    }

    fn key(&self, scopes: &str) -> String {
        let scopes: Vec<String> = scopes.split_whitespace().map(str::to_owned).collect();
        let now = jiff::Timestamp::now().into();
        self.store.control().add_key("a", "app", &scopes, None, now).unwrap().0.key_id
    }
}

/// Waits for what has to come; what never comes fails the test, however slow the machine is.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..6_000 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came: {what}");
}

fn subscription(id: &str, endpoint: &str, end: &str) -> Value {
    json!({ "resourceType": "Subscription", "id": id, "status": "requested", "reason": "r", "end": end,
        "criteria": "Observation?code=http://loinc.org|1975-2",
        "channel": { "type": "rest-hook", "endpoint": endpoint, "payload": "application/fhir+json", "header": ["Authorization: Bearer SECRET"] } })
}

fn observation(id: &str, code: &str) -> Value {
    json!({ "resourceType": "Observation", "id": id, "status": "final", "code": { "coding": [{ "system": "http://loinc.org", "code": code }] } })
}

/// One request as a receiver saw it.
#[derive(Clone, Debug)]
struct Heard {
    method: String,
    path: String,
    event: String,
    key: String,
    authorization: Option<String>,
}

impl Heard {
    fn of(request: &Request) -> Self {
        let header =
            |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        Self {
            method: request.method().to_string(),
            path: request.uri().to_string(),
            event: header("x-hilum-event").unwrap(),
            key: header("idempotency-key").unwrap(),
            authorization: header("authorization"),
        }
    }
}

/// A receiver: notes what it hears, then waits for leave to answer, if it was told to.
struct Receiver {
    endpoint: String,
    heard: Arc<parking_lot::Mutex<Vec<Heard>>>,
    /// Answers it may give; none are given while it is empty.
    leave: Arc<Semaphore>,
    broken_off: Arc<AtomicUsize>,
    connections: Arc<parking_lot::Mutex<std::collections::HashSet<std::net::SocketAddr>>>,
}

/// Counts a request whose sender went away before it was answered.
struct Open(Arc<AtomicUsize>, bool);

impl Drop for Open {
    fn drop(&mut self) {
        if !self.1 {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Receiver {
    /// Answers at once: `failing` for the first `failures`, then 200.
    async fn quick(failures: usize, failing: StatusCode) -> Self {
        let receiver = Self::held(failures, failing).await;
        receiver.leave.add_permits(Semaphore::MAX_PERMITS / 2);
        receiver
    }

    /// Answers when it is let.
    async fn held(failures: usize, failing: StatusCode) -> Self {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            endpoint: format!("http://{}/hook", socket.local_addr().unwrap()),
            heard: Arc::default(),
            leave: Arc::new(Semaphore::new(0)),
            broken_off: Arc::default(),
            connections: Arc::default(),
        };
        let (heard, leave, broken_off, connections) = (
            receiver.heard.clone(),
            receiver.leave.clone(),
            receiver.broken_off.clone(),
            receiver.connections.clone(),
        );
        let answer = move |ConnectInfo(peer): ConnectInfo<std::net::SocketAddr>, request: Request| {
            let (heard, leave, broken_off) = (heard.clone(), leave.clone(), broken_off.clone());
            connections.lock().insert(peer);
            let request = Heard::of(&request);
            async move {
                let count = {
                    let mut heard = heard.lock();
                    heard.push(request);
                    heard.len()
                };
                let mut open = Open(broken_off, false);
                leave.acquire().await.unwrap().forget();
                open.1 = true;
                if count <= failures { failing } else { StatusCode::OK }
            }
        };
        let routes =
            Routes::new().fallback(answer).into_make_service_with_connect_info::<std::net::SocketAddr>();
        tokio::spawn(async move { axum::serve(socket, routes).await });
        receiver
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().clone()
    }

    fn events(&self) -> Vec<String> {
        self.heard().into_iter().map(|heard| heard.event).collect()
    }

    async fn wait_for(&self, count: usize) {
        until(&format!("{count} requests"), async || (self.heard.lock().len() >= count).then_some(())).await;
    }

    async fn wait_for_broken_off(&self) {
        until("a request is broken off", async || (self.broken_off.load(Ordering::SeqCst) > 0).then_some(()))
            .await;
    }
}

#[tokio::test]
async fn matches_are_sent_in_order_with_one_key_over_retries_and_once_over_restarts() {
    let mut bench = Bench::running().await;
    let receiver = Receiver::quick(2, StatusCode::SERVICE_UNAVAILABLE).await;
    bench.put(subscription("s1", &receiver.endpoint, NEVER_ENDS)).await;
    bench.wait_for("s1", "active").await;
    bench.put(observation("o1", "1975-2")).await;
    bench.put(observation("other", "9999-9")).await;
    bench.put(observation("o2", "1975-2")).await;
    receiver.wait_for(4).await;
    bench.stop().await;
    bench.start();
    bench.put(observation("o3", "1975-2")).await;
    receiver.wait_for(5).await;
    let heard = receiver.heard();
    assert_eq!(receiver.events(), ["s1/1", "s1/1", "s1/1", "s1/2", "s1/3"], "each once, in order");
    assert!(heard[0].key == heard[1].key && heard[1].key == heard[2].key, "one key over retries");
    assert_eq!((heard[3].method.as_str(), heard[3].path.as_str()), ("PUT", "/hook/Observation/o2"));
    assert_eq!(heard[0].authorization.as_deref(), Some("Bearer SECRET"));
    assert!(receiver.connections.lock().len() <= 2, "a connection is kept between deliveries");
}

#[tokio::test]
async fn refusals_put_it_in_error_without_the_secret_and_an_end_turns_it_off() {
    let bench = Bench::running().await;
    let receiver = Receiver::quick(100, StatusCode::GONE).await;
    bench.put(subscription("s1", &receiver.endpoint, NEVER_ENDS)).await;
    bench.wait_for("s1", "active").await;
    bench.put(observation("o1", "1975-2")).await;
    let off = bench.wait_for("s1", "off").await;
    assert!(off["error"].as_str().is_some_and(|text| !text.contains("SECRET")));
    assert_eq!(receiver.heard().len(), 1, "410 ends it at once");
    bench.put(subscription("s1", &receiver.endpoint, "2021-01-01T00:00:00Z")).await;
    assert_eq!(bench.wait_for("s1", "off").await["error"], "end passed");
    bench.put(subscription("s1", "https://10.0.0.1/x", NEVER_ENDS)).await;
    let refused = bench.wait_for("s1", "error").await;
    assert!(refused["error"].as_str().unwrap().contains("private"));
}

#[tokio::test]
async fn beyond_its_limit_the_oldest_of_a_backlog_are_given_up_and_it_is_shown() {
    let mut bench = Bench::running().await;
    let receiver = Receiver::quick(1, StatusCode::SERVICE_UNAVAILABLE).await;
    bench.put(subscription("s1", &receiver.endpoint, NEVER_ENDS)).await;
    bench.wait_for("s1", "active").await;
    bench.stop().await;
    // nothing is sent to a site that is disabled, so what is written waits
    bench.store.control().put_site(settings(true)).unwrap();
    bench.options.backlog_rows_max = 2;
    bench.start();
    for id in ["o1", "o2", "o3", "o4", "o5"] {
        bench.put(observation(id, "1975-2")).await;
    }
    until("three are given up", async || {
        let next = bench.store.next_delivery(&bench.site, "Subscription/s1").await.unwrap()?;
        (next.number == 4).then_some(())
    })
    .await;
    bench.store.control().put_site(settings(false)).unwrap();
    receiver.wait_for(3).await;
    assert_eq!(receiver.events(), ["s1/4", "s1/4", "s1/5"], "the newest are sent, under their own numbers");
    let shown = bench.subscription("s1").await;
    assert_eq!((shown["status"].as_str(), shown["error"].as_str()), (Some("active"), Some(OVERFLOW)));
}

fn settings(disabled: bool) -> hilum_store::SiteSettings {
    let settings = json!({ "id": "a", "outbound_allow": ["127.0.0.0/8"], "disabled": disabled });
    serde_json::from_value(settings).unwrap()
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_keeps_no_other_waiting() {
    let bench = Bench::running().await;
    let (slow, fast) = (Receiver::held(0, StatusCode::OK).await, Receiver::quick(0, StatusCode::OK).await);
    bench.put(subscription("slow", &slow.endpoint, NEVER_ENDS)).await;
    bench.put(subscription("fast", &fast.endpoint, NEVER_ENDS)).await;
    bench.wait_for("slow", "active").await;
    bench.wait_for("fast", "active").await;
    for n in 0..20 {
        bench.put(observation(&format!("o{n}"), "1975-2")).await;
    }
    slow.wait_for(1).await;
    fast.wait_for(20).await;
    assert_eq!(slow.heard().len(), 1, "one is in flight at a time");
    // a third one is set up meanwhile
    let late = Receiver::quick(0, StatusCode::OK).await;
    bench.put(subscription("late", &late.endpoint, NEVER_ENDS)).await;
    bench.wait_for("late", "active").await;
    slow.leave.add_permits(20);
    slow.wait_for(20).await;
    let wanted: Vec<String> = (1..=20).map(|n| format!("slow/{n}")).collect();
    assert_eq!(slow.events(), wanted);
}

#[tokio::test]
async fn what_is_turned_off_or_deleted_is_not_sent_any_further() {
    let bench = Bench::running().await;
    let (off, deleted) = (Receiver::held(0, StatusCode::OK).await, Receiver::held(0, StatusCode::OK).await);
    let clock = Receiver::quick(0, StatusCode::OK).await;
    for (id, receiver) in [("off", &off), ("deleted", &deleted), ("clock", &clock)] {
        bench.put(subscription(id, &receiver.endpoint, NEVER_ENDS)).await;
        bench.wait_for(id, "active").await;
    }
    for id in ["o1", "o2", "o3"] {
        bench.put(observation(id, "1975-2")).await;
    }
    off.wait_for(1).await;
    deleted.wait_for(1).await;
    let mut turned_off = subscription("off", &off.endpoint, NEVER_ENDS);
    turned_off["status"] = "off".into();
    bench.put(turned_off).await;
    bench.delete("deleted").await;
    // the request that is under way is broken off, not only the next one left
    off.wait_for_broken_off().await;
    deleted.wait_for_broken_off().await;
    off.leave.add_permits(10);
    deleted.leave.add_permits(10);
    bench.put(observation("o4", "1975-2")).await;
    clock.wait_for(4).await;
    assert_eq!((off.heard().len(), deleted.heard().len()), (1, 1));
    assert!(bench.store.destination(&bench.site, "Subscription/deleted").await.unwrap().is_none());
    assert!(bench.store.next_delivery(&bench.site, "Subscription/deleted").await.unwrap().is_none());
}

#[tokio::test]
async fn a_stop_breaks_off_what_does_not_end_and_all_is_sent_after_the_start() {
    let mut bench = Bench::running().await;
    let receiver = Receiver::held(0, StatusCode::OK).await;
    bench.put(subscription("s1", &receiver.endpoint, NEVER_ENDS)).await;
    bench.wait_for("s1", "active").await;
    for id in ["o1", "o2", "o3"] {
        bench.put(observation(id, "1975-2")).await;
    }
    receiver.wait_for(1).await;
    bench.stop().await;
    receiver.leave.add_permits(10);
    bench.start();
    receiver.wait_for(4).await;
    assert_eq!(receiver.events(), ["s1/1", "s1/1", "s1/2", "s1/3"]);
    let heard = receiver.heard();
    assert_eq!(heard[0].key, heard[1].key, "the receiver can tell that it is the same");
}

#[tokio::test]
async fn what_a_client_writes_while_a_delivery_is_under_way_stays() {
    let bench = Bench::running().await;
    let (old, new) = (Receiver::held(1, StatusCode::GONE).await, Receiver::quick(0, StatusCode::OK).await);
    bench.put(subscription("s1", &old.endpoint, NEVER_ENDS)).await;
    bench.wait_for("s1", "active").await;
    bench.put(observation("o1", "1975-2")).await;
    old.wait_for(1).await;
    bench.put(subscription("s1", &new.endpoint, NEVER_ENDS)).await;
    // the old receiver says gone, which is not true of the new one
    old.leave.add_permits(1);
    new.wait_for(1).await;
    let shown = bench.wait_for("s1", "active").await;
    assert_eq!(shown["channel"]["endpoint"], new.endpoint.as_str());
    assert_eq!(new.events(), ["s1/1"], "what the old one did not take is not lost");
}

#[tokio::test]
async fn a_subscription_that_is_made_again_begins_anew() {
    let bench = Bench::running().await;
    let (receiver, clock) =
        (Receiver::quick(0, StatusCode::OK).await, Receiver::quick(0, StatusCode::OK).await);
    bench.put(subscription("clock", &clock.endpoint, NEVER_ENDS)).await;
    bench.put(subscription("s1", &receiver.endpoint, NEVER_ENDS)).await;
    bench.wait_for("s1", "active").await;
    bench.put(observation("o1", "1975-2")).await;
    receiver.wait_for(1).await;
    bench.delete("s1").await;
    bench.put(observation("gap", "1975-2")).await;
    bench.put(subscription("s1", &receiver.endpoint, NEVER_ENDS)).await;
    bench.wait_for("s1", "active").await;
    bench.put(observation("o2", "1975-2")).await;
    receiver.wait_for(2).await;
    clock.wait_for(3).await;
    let heard = receiver.heard();
    assert_eq!(receiver.events(), ["s1/1", "s1/1"]);
    assert_eq!(heard[1].path, "/hook/Observation/o2", "what was written in the gap is not for it");
    assert_ne!(heard[0].key, heard[1].key, "the receiver does not take it for a repeat");
}

#[tokio::test]
async fn what_is_written_while_it_is_off_is_not_for_it() {
    let bench = Bench::running().await;
    let receiver = Receiver::quick(0, StatusCode::OK).await;
    let mut off = subscription("s1", &receiver.endpoint, NEVER_ENDS);
    off["status"] = "off".into();
    bench.put(off).await;
    bench.put(observation("o1", "1975-2")).await;
    bench.put(subscription("s1", &receiver.endpoint, NEVER_ENDS)).await;
    bench.wait_for("s1", "active").await;
    bench.put(observation("o2", "1975-2")).await;
    receiver.wait_for(1).await;
    assert_eq!(receiver.heard()[0].path, "/hook/Observation/o2");
}

#[tokio::test]
async fn a_subscription_ends_with_the_rights_of_its_owner() {
    let bench = Bench::running().await;
    let receiver = Receiver::quick(0, StatusCode::OK).await;
    let reading = bench.key("system/Subscription.cruds system/Observation.rs");
    bench.put_by(Some(&reading), subscription("s1", &receiver.endpoint, NEVER_ENDS)).await;
    bench.wait_for("s1", "active").await;
    bench.put(observation("o1", "1975-2")).await;
    receiver.wait_for(1).await;
    bench.store.control().revoke_key(&reading, jiff::Timestamp::now().into()).unwrap();
    bench.put(observation("o2", "1975-2")).await;
    assert_eq!(bench.wait_for("s1", "error").await["error"], "owner not authorised");
    // a key that may not read them is no better
    let writing = bench.key("system/Subscription.cruds system/Observation.s");
    bench.put_by(Some(&writing), subscription("s1", &receiver.endpoint, NEVER_ENDS)).await;
    assert_eq!(bench.wait_for("s1", "error").await["error"], "owner not authorised");
    assert_eq!(receiver.heard().len(), 1);
    // one that may goes on where the other ended
    let other = bench.key("system/Observation.rs");
    bench.put_by(Some(&other), subscription("s1", &receiver.endpoint, NEVER_ENDS)).await;
    receiver.wait_for(2).await;
    assert_eq!(receiver.heard()[1].path, "/hook/Observation/o2");
}

#[tokio::test]
async fn an_owner_hears_only_what_the_filter_of_its_scope_covers() {
    let bench = Bench::running().await;
    let receiver = Receiver::quick(0, StatusCode::OK).await;
    let key = bench.key("system/Observation.rs?status=final");
    bench.put_by(Some(&key), subscription("s1", &receiver.endpoint, NEVER_ENDS)).await;
    bench.wait_for("s1", "active").await;
    let mut preliminary = observation("hidden", "1975-2");
    preliminary["status"] = "preliminary".into();
    bench.put(preliminary).await;
    bench.put(observation("shown", "1975-2")).await;
    receiver.wait_for(1).await;
    assert_eq!(receiver.heard()[0].path, "/hook/Observation/shown");
}

#[tokio::test]
async fn more_subscriptions_than_a_page_holds_are_all_served() {
    let bench = Bench::running().await;
    let receiver = Receiver::quick(0, StatusCode::OK).await;
    let change = |n: usize| {
        let mut resource = subscription(&format!("s{n}"), &receiver.endpoint, NEVER_ENDS);
        resource["criteria"] = format!("Observation?code=http://loinc.org|{}", n / 2).into();
        let resource = Resource::from_value(resource).unwrap();
        Change::new(Action::Replace(Target::Id(subscription_type(), format!("s{n}")), resource))
    };
    for some in 0..13 {
        bench.commit(None, (some * 100..(some + 1) * 100).map(change).collect()).await;
    }
    bench.wait_for("s0", "active").await;
    bench.wait_for("s1299", "active").await;
    bench.put(observation("first", "0")).await;
    bench.put(observation("last", "649")).await;
    receiver.wait_for(4).await;
    let mut heard: Vec<(String, String)> =
        receiver.heard().into_iter().map(|heard| (heard.event, heard.path)).collect();
    heard.sort();
    let wanted = [("s0/1", "first"), ("s1/1", "first"), ("s1298/1", "last"), ("s1299/1", "last")];
    let wanted = wanted.map(|(event, id)| (event.to_owned(), format!("/hook/Observation/{id}")));
    assert_eq!(heard, wanted, "each exactly what matches");
}

#[tokio::test]
async fn a_delivery_that_was_sent_is_noted() {
    let bench = Bench::running().await;
    let receiver = Receiver::quick(0, StatusCode::OK).await;
    bench.put(subscription("s1", &receiver.endpoint, NEVER_ENDS)).await;
    bench.wait_for("s1", "active").await;
    bench.put(observation("o1", "1975-2")).await;
    receiver.wait_for(1).await;
    let submissions = bench.store.submissions(&bench.site, None, 10).await.unwrap();
    let of_observation =
        submissions.iter().find(|row| row.targets.iter().any(|(_, id, _)| id == "o1")).unwrap();
    let noted = until("it is noted", async || {
        let all = bench.store.deliveries_of(&bench.site, of_observation.sequence, 10).await.unwrap();
        all.into_iter().find(|delivery| delivery.state == DeliveryState::Delivered)
    })
    .await;
    assert_eq!((noted.number, noted.attempts), (1, 1));
}

#[tokio::test]
async fn one_that_is_refused_can_be_passed_over_and_those_behind_it_go_on() {
    let bench = Bench::running().await;
    let receiver = Receiver::quick(3, StatusCode::UNPROCESSABLE_ENTITY).await;
    bench.put(subscription("s1", &receiver.endpoint, NEVER_ENDS)).await;
    bench.wait_for("s1", "active").await;
    bench.put(observation("refused", "1975-2")).await;
    bench.put(observation("behind", "1975-2")).await;
    bench.wait_for("s1", "error").await;
    assert_eq!(receiver.events(), ["s1/1", "s1/1", "s1/1"]);
    let queues = bench.store.queues(&bench.site).await.unwrap();
    let first = queues[0].first.as_ref().unwrap();
    assert_eq!((queues[0].waiting, first.number, first.attempts), (2, 1, 3));
    let current = bench.store.read(&bench.site, subscription_type(), "s1").await.unwrap().unwrap();
    assert!(
        !bench.store.pass_over(&bench.site, &current, 2, "me").await.unwrap(),
        "only the one that is next"
    );
    assert!(bench.store.pass_over(&bench.site, &current, 1, "me").await.unwrap());
    receiver.wait_for(4).await;
    assert_eq!(receiver.heard()[3].path, "/hook/Observation/behind");
    assert!(bench.wait_for("s1", "active").await.get("error").is_none());
    until("nothing waits", async || {
        (bench.store.queues(&bench.site).await.unwrap()[0].waiting == 0).then_some(())
    })
    .await;
}

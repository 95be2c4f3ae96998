#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use hilum_fhir::{Action, Change, Resource, Target, Timestamp};
use hilum_store::{Config, Original, OriginalKind};
use serde_json::{Value, json};

use super::*;

async fn open(dir: &std::path::Path) -> (Store, Site) {
    let config = Config {
        free_bytes_min: 0,
        blobs_free_bytes_min: 0,
        cache_bytes: 1 << 20,
        ..Config::new(dir.to_owned())
    };
    let store = Store::open(config).await.unwrap();
    let settings = json!({ "id": "a", "outbound_allow": ["127.0.0.0/8"] });
    store.control().put_site(serde_json::from_value(settings).unwrap()).unwrap();
    let site = store.control().site("a").unwrap().unwrap();
    (store, site)
}

async fn put(store: &Store, site: &Site, resource: Value) {
    let resource = Resource::from_value(resource).unwrap();
    let target = Target::Id(resource.resource_type(), resource.id().unwrap().to_owned());
    let original = Original {
        kind: OriginalKind::Fhir,
        listener: "test".into(),
        peer: None,
        identity: None,
        control: None,
        sha256: [0; 32],
        blob: None,
        bytes: None,
        content_type: "application/fhir+json",
        received: Timestamp::from_micros(0),
        report: None,
        about: Default::default(),
    };
    store.commit(site, original, vec![Change::new(Action::Replace(target, resource))], None).await.unwrap();
}

fn subscription(endpoint: &str, end: &str) -> Value {
    json!({ "resourceType": "Subscription", "id": "s1", "status": "requested", "reason": "r", "end": end,
        "criteria": "Observation?code=http://loinc.org|1975-2",
        "channel": { "type": "rest-hook", "endpoint": endpoint, "payload": "application/fhir+json", "header": ["Authorization: Bearer SECRET"] } })
}

fn observation(id: &str, code: &str) -> Value {
    json!({ "resourceType": "Observation", "id": id, "status": "final", "code": { "coding": [{ "system": "http://loinc.org", "code": code }] } })
}

async fn status(store: &Store, site: &Site) -> Value {
    let found = store.read(site, subscription_type(), "s1").await.unwrap().unwrap();
    serde_json::from_slice(&found.body).unwrap()
}

async fn wait_for(store: &Store, site: &Site, wanted: &str) -> Value {
    for _ in 0..200 {
        let found = status(store, site).await;
        if found["status"] == wanted {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never {wanted}: {}", status(store, site).await["status"]);
}

type Seen = Arc<Mutex<Vec<(String, String, String, Option<String>)>>>;

/// A receiver that fails as often as it is told.
async fn receiver(failures: usize, failing: StatusCode) -> (String, Seen) {
    let seen: Seen = Arc::default();
    let log = seen.clone();
    let answer = move |request: Request| {
        let log = log.clone();
        async move {
            let header =
                |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
            let mut log = log.lock().unwrap();
            log.push((
                request.method().to_string(),
                request.uri().path().to_owned(),
                header("idempotency-key").unwrap(),
                header("authorization"),
            ));
            if log.len() <= failures { failing } else { StatusCode::OK }
        }
    };
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(socket, Router::new().fallback(answer)).await });
    (format!("http://{address}/hook"), seen)
}

fn options() -> Options {
    Options {
        response_bytes_max: 1024,
        attempt_timeout: Duration::from_secs(5),
        retry_for: Duration::from_secs(60),
        backlog_rows_max: 100,
        backlog_for: Duration::from_secs(3600),
    }
}

fn provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

#[tokio::test]
async fn matches_are_sent_in_order_with_one_key_over_retries_and_once_over_restarts() {
    provider();
    let dir = tempfile::tempdir().unwrap();
    let (store, site) = open(dir.path()).await;
    let (endpoint, seen) = receiver(2, StatusCode::SERVICE_UNAVAILABLE).await;
    put(&store, &site, subscription(&endpoint, "2999-01-01T00:00:00Z")).await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(run(store.clone(), options(), stop.clone()));
    wait_for(&store, &site, "active").await;
    put(&store, &site, observation("o1", "1975-2")).await;
    put(&store, &site, observation("other", "9999-9")).await;
    put(&store, &site, observation("o2", "1975-2")).await;
    for _ in 0..200 {
        if seen.lock().unwrap().len() >= 4 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
    running.await.unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(run(store.clone(), options(), stop.clone()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.cancel();
    running.await.unwrap();
    let seen = seen.lock().unwrap().clone();
    let keys: Vec<&str> = seen.iter().map(|(.., key, _)| key.as_str()).collect();
    assert_eq!(keys, ["s1/1", "s1/1", "s1/1", "s1/2"], "one key over retries, each once, in order");
    assert_eq!(seen[3].0, "PUT");
    assert_eq!(seen[3].1, "/hook/Observation/o2");
    assert_eq!(seen[0].3.as_deref(), Some("Bearer SECRET"));
}

#[tokio::test]
async fn refusals_put_it_in_error_without_the_secret_and_an_end_turns_it_off() {
    provider();
    let dir = tempfile::tempdir().unwrap();
    let (store, site) = open(dir.path()).await;
    let (endpoint, seen) = receiver(100, StatusCode::GONE).await;
    put(&store, &site, subscription(&endpoint, "2999-01-01T00:00:00Z")).await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(run(store.clone(), options(), stop.clone()));
    wait_for(&store, &site, "active").await;
    put(&store, &site, observation("o1", "1975-2")).await;
    let off = wait_for(&store, &site, "off").await;
    assert!(off["error"].as_str().is_some_and(|text| !text.contains("SECRET")));
    assert_eq!(seen.lock().unwrap().len(), 1, "410 ends it at once");
    put(&store, &site, subscription(&endpoint, "2021-01-01T00:00:00Z")).await;
    assert_eq!(wait_for(&store, &site, "off").await["error"], "end passed");
    put(&store, &site, subscription("https://10.0.0.1/x", "2999-01-01T00:00:00Z")).await;
    let refused = wait_for(&store, &site, "error").await;
    assert!(refused["error"].as_str().unwrap().contains("private"));
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn beyond_its_limit_the_oldest_of_a_backlog_are_given_up_and_it_is_shown() {
    provider();
    let dir = tempfile::tempdir().unwrap();
    let (store, site) = open(dir.path()).await;
    let (endpoint, seen) = receiver(1, StatusCode::SERVICE_UNAVAILABLE).await;
    put(&store, &site, subscription(&endpoint, "2999-01-01T00:00:00Z")).await;
    let stop = CancellationToken::new();
    let running = tokio::spawn(run(store.clone(), options(), stop.clone()));
    wait_for(&store, &site, "active").await;
    stop.cancel();
    running.await.unwrap();
    for id in ["o1", "o2", "o3", "o4", "o5"] {
        put(&store, &site, observation(id, "1975-2")).await;
    }
    let stop = CancellationToken::new();
    let small = Options { backlog_rows_max: 2, ..options() };
    let running = tokio::spawn(run(store.clone(), small, stop.clone()));
    for _ in 0..200 {
        if seen.lock().unwrap().len() >= 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
    running.await.unwrap();
    let keys: Vec<String> = seen.lock().unwrap().iter().map(|(.., key, _)| key.clone()).collect();
    assert_eq!(keys, ["s1/4", "s1/4", "s1/5"], "the newest are sent, under their own numbers");
    let shown = status(&store, &site).await;
    assert_eq!((shown["status"].as_str(), shown["error"].as_str()), (Some("active"), Some(OVERFLOW)));
}

//! The same behaviour on PostgreSQL, and what is true of a server alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod behaviour;
mod engine;
#[path = "behaviour/fsck.rs"]
mod fsck;
#[path = "engine/proxy.rs"]
mod proxy;

use std::path::Path;
use std::time::Duration;

use engine::cluster::Cluster;
use engine::config;
use hilum_fhir::imaging::{Instance, Series, Study};
use hilum_fhir::search::{Context, Options, Query, decode_pairs};
use hilum_fhir::{Action, Change, Match, Resource, ResourceType, Timestamp};
use hilum_store::{
    Commit, Config, Delivery, DeliveryState, Destination, DestinationState, Error, ErrorKind, Original,
    OriginalKind, PostgresConfig, Site, Store,
};
use serde_json::{Map, json};

/// A store with a folder of its own on the database of a folder, as another edge has it.
fn of_edge(database: &Path, edge: &str) -> Config {
    Config { data_dir: database.join(edge), ..config(database) }
}

async fn open(config: Config) -> (Store, Site) {
    let store = Store::open(config).await.unwrap();
    store.control().put_site(serde_json::from_value(json!({ "id": "a" })).unwrap()).unwrap();
    let site = store.control().site("a").unwrap().unwrap();
    (store, site)
}

async fn delivers(store: &Store, site: &Site, destination: &str) -> bool {
    !store.delivers_to(site, vec![destination.to_owned()]).await.unwrap().is_empty()
}

async fn create(store: &Store, site: &Site) -> Result<Commit, Error> {
    let patient = json!({ "resourceType": "Patient", "name": [{ "family": "Doe" }], "gender": "other",
        "birthDate": "1960-01-01" });
    let change = Change::new(Action::Create(Resource::from_value(patient).unwrap()));
    store.commit(site, original(), vec![change], None).await
}

fn original() -> Original {
    Original {
        kind: OriginalKind::V2,
        listener: "test".into(),
        peer: None,
        identity: None,
        control: None,
        sha256: [0; 32],
        blob: None,
        bytes: None,
        content_type: "x",
        received: Timestamp::from_micros(1),
        report: None,
        about: Default::default(),
    }
}

/// A submission of one change, and a search that finds what it changed.
async fn update_and_find(store: &Store, site: &Site, family: &str) {
    let identifier = Match { system: Some("urn:mrn".into()), value: family.into(), ..any_patient() };
    let patient = json!({ "resourceType": "Patient", "name": [{ "family": family }], "birthDate": "1960-01-01",
        "identifier": [{ "system": "urn:mrn", "value": family }] });
    let patient = Resource::from_value(patient).unwrap();
    let change = Change::new(Action::Merge(identifier.into(), patient, Vec::new()));
    store.commit(site, original(), vec![change], None).await.unwrap();
    for search in [format!("identifier=urn:mrn|{family}"), format!("name={family}")] {
        let context = Context { zone: jiff::tz::TimeZone::UTC, now: Timestamp::from_micros(0) };
        let options = Options { strict: true, ..Options::condition() };
        let query = Query::parse(any_patient().resource_type, &decode_pairs(&search), &options, &context);
        let found = store.search(site, &query.unwrap().0, None).await.unwrap();
        assert_eq!(found.matches.len(), 1, "{search}");
    }
}

fn any_patient() -> Match {
    let resource_type = ResourceType::from_name("Patient").unwrap();
    Match { resource_type, system: None, value: String::new() }
}

/// An image of a series of its own, sent and sent again otherwise.
async fn image(store: &Store, site: &Site, number: usize) {
    for content in 1..=2 {
        let uid = |part| format!("1.2.{part}.{number}");
        let study =
            Study { uid: uid(1), patient: None, accession: None, orders: Vec::new(), elements: Map::new() };
        let instance = Instance {
            uid: uid(3),
            sop_class: "1.2.840.10008.5.1.4.1.1.2".into(),
            transfer_syntax: "1.2.840.10008.1.2.1".into(),
            elements: Map::new(),
            dataset_bytes: 1,
            dataset_sha256: [content; 32],
            blob: [content; 32],
            blob_bytes: 1,
            series: Series { uid: uid(2), elements: Map::new() },
            study,
        };
        let change = Change::new(Action::Instance(Box::new(instance)));
        store.commit(site, original(), vec![change], None).await.unwrap();
        store.publish_studies(site, Some(&uid(1))).await.unwrap();
        // publishes what changed, due or not
        let of = ResourceType::from_name("ImagingStudy").unwrap();
        assert!(store.read(site, of, "none").await.unwrap().is_none());
    }
}

/// The newest version goes to a destination, and is delivered.
async fn deliver(store: &Store, site: &Site) {
    let to = "Subscription/1".to_owned();
    let newest = *store.watch(site).unwrap().borrow();
    store.matched(site, vec![(to.clone(), newest)], vec![(to.clone(), newest)]).await.unwrap();
    let next = store.next_delivery(site, &to).await.unwrap().unwrap();
    assert_eq!(next.position, newest);
    store.mark_delivery(site, Delivery { state: DeliveryState::Delivered, ..next }).await.unwrap();
    assert_eq!(store.give_up_oldest(site, &to, 10, 0, "too old").await.unwrap(), 0);
}

/// Index entries read while all this was done a number of times, from an empty database on.
async fn entries_read(times: usize) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let (store, site) = open(config(dir.path())).await;
    let destination = Destination {
        reference: "Subscription/1".into(),
        cursor: 0,
        next_number: 1,
        state: DestinationState::Active,
        next_at: None,
        error: None,
        owner: None,
    };
    store.put_destination(&site, destination).await.unwrap();
    for number in 0..times {
        for _ in 0..2 {
            update_and_find(&store, &site, &format!("Family{number:05}")).await;
        }
        deliver(&store, &site).await;
        image(&store, &site, number).await;
    }
    store.close().await;
    drop(store);
    let ask = |sql: &str| Cluster::shared().psql("edge", &database(dir.path()), sql);
    // a connection tells what it read when it ends
    let others =
        "SELECT count(*) FROM pg_stat_activity WHERE datname=current_database() AND pid<>pg_backend_pid()";
    for _ in 0..400 {
        if ask(others) == "0" {
            let read =
                "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname NOT IN ('site','meta')";
            return ask(read).parse().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the store is closed and still connected");
}

fn database(dir: &Path) -> String {
    Cluster::shared().database(dir)
}

#[tokio::test]
async fn rows_of_another_site_are_out_of_reach_whatever_a_statement_asks_for() {
    let dir = tempfile::tempdir().unwrap();
    let (store, site) = open(config(dir.path())).await;
    create(&store, &site).await.unwrap();
    let ask = |sql: &str| Cluster::shared().psql("edge", &database(dir.path()), sql);
    let number = ask("SELECT no FROM site WHERE id='a'");
    let tables =
        "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid=c.oid AND a.attname='site'
        WHERE c.relkind IN ('r','p') AND c.relname<>'api_key' AND c.relnamespace='public'::regnamespace";
    assert_eq!(
        ask(&format!("{tables} AND NOT (c.relrowsecurity AND c.relforcerowsecurity)")),
        "",
        "without security"
    );
    let filled = ["head", "version", "ix", "ix_str", "ix_range", "submission"];
    for table in ask(tables).lines() {
        let count = format!("SELECT count(*) FROM {table}");
        assert_eq!(ask(&count), "0", "{table}: no site, no rows");
        assert_eq!(
            ask(&format!("SET hilum.site='{}'; {count}", number.parse::<i32>().unwrap() + 1)),
            "0",
            "{table}"
        );
        let own = ask(&format!("SET hilum.site='{number}'; {count}"));
        assert!(own != "0" || !filled.contains(&table), "{table}");
    }
    let foreign = "BEGIN; SET hilum.site='77'; INSERT INTO dedupe VALUES(78,1,'',1,1); COMMIT";
    let refused = std::panic::catch_unwind(|| ask(foreign)).unwrap_err();
    assert!(refused.downcast_ref::<String>().unwrap().contains("row-level security"));
}

#[tokio::test]
async fn edges_that_start_at_one_moment_make_one_schema() {
    let dir = tempfile::tempdir().unwrap();
    let starts: Vec<_> =
        (0..6).map(|n| tokio::spawn(open(of_edge(dir.path(), &format!("edge{n}"))))).collect();
    let mut stores = Vec::new();
    for start in starts {
        stores.push(start.await.unwrap());
    }
    for (store, site) in &stores {
        create(store, site).await.unwrap();
    }
    let (store, site) = &stores[0];
    let positions: Vec<u64> =
        store.feed(site, 0, 100).await.unwrap().iter().map(|entry| entry.position).collect();
    assert_eq!(positions, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn what_an_edge_is_removing_is_not_named_by_another() {
    let dir = tempfile::tempdir().unwrap();
    let (one, site) = open(of_edge(dir.path(), "one")).await;
    let (two, _) = open(of_edge(dir.path(), "two")).await;
    let large = || Original { bytes: Some(vec![b'x'; 100_000].into()), ..original() };
    let patient = || Resource::from_value(json!({ "resourceType": "Patient" })).unwrap();
    let commit =
        async || two.commit(&site, large(), vec![Change::new(Action::Create(patient()))], None).await;
    let rejected = one.quarantine(&site, large(), &[], None).await.unwrap();
    let blob = one.submission(&site, rejected).await.unwrap().unwrap().blob.unwrap().hex();
    let execute = |sql: &str| engine::execute(dir.path(), "a", sql);
    execute("UPDATE submission SET blob=NULL");

    execute(&format!(
        "INSERT INTO orphan(site,blob,claimed) SELECT no, '\\x{blob}', 1 FROM site WHERE id='a'"
    ));
    assert_eq!(commit().await.unwrap_err().kind, ErrorKind::Unavailable, "its sender sends it again");
    assert_eq!(two.quarantine(&site, large(), &[], None).await.unwrap_err().kind, ErrorKind::Unavailable);
    let others = create(&two, &site).await.unwrap();
    assert_eq!(others.outcomes.len(), 1, "nobody else is held up");

    // the sweep strikes off what was claimed long ago
    one.forget_rejected(&site).await.unwrap();
    let sequence = commit().await.unwrap().submission;
    assert_eq!(
        two.submission(&site, sequence).await.unwrap().unwrap().blob.unwrap().hex(),
        blob,
        "the claim is over"
    );
}

/// Statements are planned once, here on empty tables: none of the plans may be one that walks through the rows of all patients, images or
/// deliveries.
#[tokio::test]
async fn what_a_change_and_a_search_read_does_not_grow_with_the_tables() {
    let (few, many) = (entries_read(50).await, entries_read(200).await);
    assert!(few > 0 && many < 6 * few, "four times as many: {few} entries read, then {many}");
}

#[tokio::test]
async fn a_newer_schema_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(config(dir.path())).await);
    Cluster::shared().psql("edge", &database(dir.path()), "UPDATE meta SET v='99' WHERE k='schema_version'");
    let error = Store::open(of_edge(dir.path(), "other")).await.err().unwrap();
    assert!(
        error.message.contains("schema 99") && error.message.contains("newer program"),
        "{}",
        error.message
    );
    assert!(error.message.contains(&database(dir.path())), "{}", error.message);
}

#[tokio::test]
async fn an_edge_hears_what_another_committed_and_who_may_come_in() {
    let dir = tempfile::tempdir().unwrap();
    let (one, site) = open(of_edge(dir.path(), "one")).await;
    let (two, _) = open(of_edge(dir.path(), "two")).await;
    let mut heard = two.watch(&site).unwrap();
    create(&one, &site).await.unwrap();
    let wait = Duration::from_secs(20);
    tokio::time::timeout(wait, heard.wait_for(|newest| *newest == 1)).await.unwrap().unwrap();
    let now = Timestamp::from_micros(0);
    let (key, secret) = one.control().add_key("a", "ris", &[], None, now).unwrap();
    let knows = async |known: bool| {
        for _ in 0..400 {
            if two.control().authenticate(&secret.0, now).unwrap().is_some() == known {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("not heard of");
    };
    knows(true).await;
    one.control().revoke_key(&key.key_id, now).unwrap();
    knows(false).await;
    let used = two.control().keys().unwrap();
    assert_eq!((used.len(), used[0].revoked), (1, Some(0)));
}

#[tokio::test]
async fn of_two_edges_one_delivers_until_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (one, site) = open(of_edge(dir.path(), "one")).await;
    let (two, _) = open(of_edge(dir.path(), "two")).await;
    for _ in 0..2 {
        assert!(delivers(&one, &site, "Subscription/1").await);
        assert!(!delivers(&two, &site, "Subscription/1").await);
    }
    assert!(delivers(&two, &site, "Subscription/2").await, "each destination by itself");
    one.close().await;
    for _ in 0..400 {
        if delivers(&two, &site, "Subscription/1").await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it was never taken over");
}

/// A destination with one delivery that waits.
async fn destination_with_a_delivery(store: &Store, site: &Site) -> Delivery {
    let to = "Subscription/1".to_owned();
    let destination = Destination {
        reference: to.clone(),
        cursor: 0,
        next_number: 1,
        state: DestinationState::Active,
        next_at: None,
        error: None,
        owner: None,
    };
    store.put_destination(site, destination).await.unwrap();
    create(store, site).await.unwrap();
    store.matched(site, vec![(to.clone(), 1)], vec![(to.clone(), 1)]).await.unwrap();
    store.next_delivery(site, &to).await.unwrap().unwrap()
}

/// Nobody hears that the edge is gone: no connection is closed, neither by it nor for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_fell_silent_loses_its_destinations_and_cannot_write_about_them() {
    let dir = tempfile::tempdir().unwrap();
    let proxy = proxy::Proxy::start(Cluster::shared().dir()).await;
    let through = format!("postgresql://edge@127.0.0.1:{}/{}", proxy.port, database(dir.path()));
    let silent = Config { postgres: Some(PostgresConfig::new(through)), ..of_edge(dir.path(), "one") };
    let (one, site) = open(silent).await;
    let (two, _) = open(of_edge(dir.path(), "two")).await;
    let delivery = destination_with_a_delivery(&one, &site).await;
    assert!(!delivers(&two, &site, "Subscription/1").await);

    proxy.be_silent(true);
    let takes_over = async {
        while !delivers(&two, &site, "Subscription/1").await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), takes_over).await.expect("it is never taken over");
    let sent = Delivery { state: DeliveryState::Delivered, ..delivery.clone() };
    two.mark_delivery(&site, sent).await.unwrap();

    // what the first edge thinks of it comes late
    proxy.be_silent(false);
    let queued = Delivery { state: DeliveryState::Queued, ..delivery };
    assert!(one.mark_delivery(&site, queued).await.is_err());
    assert!(
        two.next_delivery(&site, "Subscription/1").await.unwrap().is_none(),
        "delivered, and it stays so"
    );
}

/// The moment between: it lost the lock and has not heard of it.
#[tokio::test]
async fn what_is_written_about_a_destination_under_an_old_epoch_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (store, site) = open(config(dir.path())).await;
    let delivery = destination_with_a_delivery(&store, &site).await;
    let to = "Subscription/1".to_owned();
    engine::execute(dir.path(), "a", "UPDATE deliverer SET epoch=epoch+1");
    assert!(delivers(&store, &site, &to).await, "as far as it knows");

    let sent = Delivery { state: DeliveryState::Delivered, ..delivery };
    let refused = [
        store.mark_delivery(&site, sent).await.unwrap_err(),
        store.matched(&site, vec![(to.clone(), 2)], vec![(to.clone(), 2)]).await.unwrap_err(),
        store.give_up_oldest(&site, &to, 0, i64::MAX, "too old").await.unwrap_err(),
    ];
    for error in refused {
        assert!(error.message.contains("another edge delivers"), "{}", error.message);
    }
    let waits = store.next_delivery(&site, &to).await.unwrap().unwrap();
    assert_eq!((waits.number, waits.state), (1, DeliveryState::Queued));
    assert_eq!(store.destinations(&site).await.unwrap()[0].cursor, 1);
    assert!(create(&store, &site).await.is_ok(), "nobody else is held up");
}

#[tokio::test]
async fn a_server_that_would_lose_what_was_acknowledged_is_refused() {
    let Some(cluster) = Cluster::start("-c fsync=off") else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = PostgresConfig::new(cluster.named("unsafe"));
    let error = Store::open(Config { postgres: Some(server), ..Config::new(dir.path().to_owned()) }).await;
    assert!(error.err().unwrap().message.contains("fsync=off"));
}

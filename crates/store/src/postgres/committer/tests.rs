//! Jobs that fail, committers that panic, servers that lost commits.

#[path = "../../../../../tests/harness/cluster.rs"]
mod cluster;

use std::sync::OnceLock;

use super::super::{Server, SiteTables};
use super::*;
use crate::{Control, PostgresConfig};

struct Bench {
    _dir: tempfile::TempDir,
    gate: Arc<Gate>,
    server: Arc<Server>,
    site: SiteTables,
}

/// `None` where there is no PostgreSQL.
fn bench() -> Option<Bench> {
    static CLUSTER: OnceLock<Option<cluster::Cluster>> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| cluster::Cluster::start("")).as_ref()?;
    let dir = tempfile::tempdir().unwrap();
    let settings = PostgresConfig { committers: 1, ..PostgresConfig::new(cluster.url(dir.path())) };
    let config =
        Config { postgres: Some(settings.clone()), free_bytes_min: 0, ..Config::new(dir.path().to_owned()) };
    let (gate, control) = (Arc::new(Gate::new("all sites")), Control::open_for(&config).unwrap());
    let server = Server::open(&config, &settings, gate.clone(), control.clone()).unwrap();
    control.put_site(serde_json::from_value(serde_json::json!({ "id": "a" })).unwrap()).unwrap();
    let (site, ..) = server.site("a", SiteContext { zone: jiff::tz::TimeZone::UTC }).unwrap();
    Some(Bench { _dir: dir, gate, server, site })
}

/// The transaction a job runs in; all that was gathered is sent before.
fn transaction(apply: &mut Apply<'_>) -> Result<String, Error> {
    let Db::Postgres(session) = apply.db else { return Ok(String::new()) };
    Ok(session.all("SELECT pg_current_xact_id()::text")?[0].get(0))
}

#[tokio::test]
async fn jobs_that_fail_after_they_wrote_cost_their_neighbours_no_transaction() {
    let Some(bench) = bench() else { return };
    // all others wait while the first runs, so they are one batch
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let (first, begun) = Job::new(1, move |_| Ok(wait.lock().recv().is_ok()));
    bench.site.send(first).unwrap();
    let mut answers = Vec::new();
    for n in 0..40 {
        let (job, answer) = Job::new(1, move |apply| {
            apply.db.set_progress(&format!("job{n}"), 1)?;
            let transaction = if n % 2 == 0 { transaction(apply)? } else { String::new() };
            if n % 4 < 2 { Err(Error::unavailable("a test")) } else { Ok(transaction) }
        });
        bench.site.send(job).unwrap();
        answers.push(answer);
    }
    go_on.send(()).unwrap();
    assert!(begun.await.unwrap().unwrap());
    let mut transactions = std::collections::BTreeSet::new();
    for (n, answer) in answers.into_iter().enumerate() {
        let done = answer.await.unwrap();
        assert_eq!(done.is_err(), n % 4 < 2, "job {n}");
        transactions.extend(done.ok().filter(|transaction| !transaction.is_empty()));
        let written = bench.site.read(|session| super::super::progress(session, &format!("job{n}"))).unwrap();
        assert_eq!(written, i64::from(n % 4 >= 2), "job {n}");
    }
    assert_eq!(transactions.len(), 1, "{transactions:?}");
    bench.server.close();
}

/// Its drop panics: the answer of a job that nobody waits for does that in the committer, after the commit.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a test of the committer");
    }
}

#[tokio::test]
async fn a_committer_that_panicked_closes_the_gate_and_serves_the_site_on() {
    let Some(bench) = bench() else { return };
    let (bomb, nobody) = Job::new(1, |_| Ok(Bomb));
    drop(nobody);
    bench.site.send(bomb).unwrap();
    let closes = async {
        while bench.gate.accepting().is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), closes).await.expect("the gate stays open");
    let (job, answered) = Job::new(1, |_| Ok(7));
    bench.site.send(job).unwrap();
    assert_eq!(answered.await.unwrap().unwrap(), 7);
    bench.server.close();
}

#[tokio::test]
async fn numbers_that_a_failover_lost_are_not_given_again() {
    let Some(bench) = bench() else { return };
    let next = async || {
        let (job, answered) = Job::new(1, |apply| {
            apply.counters.vid += 1;
            Ok(apply.counters.vid)
        });
        bench.site.send(job).unwrap();
        answered.await.unwrap().unwrap()
    };
    assert_eq!((next().await, next().await, next().await), (1, 2, 3));
    bench.server.with_reader(|connection| connection.batch("UPDATE site SET vid=1")).unwrap();
    let given = next().await;
    assert!(given > 3, "{given} was given before");
    assert_eq!(next().await, given + 1);
    bench.server.close();
}

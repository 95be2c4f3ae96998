//! Jobs that fail, committers that panic, servers that lost commits.

#[path = "../../../../../tests/harness/cluster.rs"]
mod cluster;

use std::sync::OnceLock;

use super::super::Server;
use super::*;
use crate::control::{ControlListener, Kept};
use crate::face::Db;
use crate::gate::Gates;
use crate::{Engine, OpenSite, PostgresConfig, SiteDatabase};

struct Bench {
    _dir: tempfile::TempDir,
    gate: Arc<Gate>,
    server: Arc<Server>,
    site: Box<dyn SiteDatabase>,
}

/// Nobody who wants to hear of other edges.
struct Deaf;

impl ControlListener for Deaf {
    fn reloads(&self) -> u64 {
        0
    }

    fn learn(&self, _: Kept, _: u64) -> Result<bool, Error> {
        Ok(true)
    }

    fn uses(&self) -> Vec<(String, i64)> {
        Vec::new()
    }
}

/// `None` where there is no PostgreSQL.
fn bench() -> Option<Bench> {
    static CLUSTER: OnceLock<Option<cluster::Cluster>> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| cluster::Cluster::start("")).as_ref()?;
    let dir = tempfile::tempdir().unwrap();
    let settings = PostgresConfig { committers: 1, ..PostgresConfig::new(cluster.url(dir.path())) };
    let config = Config { postgres: Some(settings.clone()), ..Config::of_test(dir.path()) };
    let gate = Gates::default().gate("all sites");
    let server = Server::open(&config, &settings, gate.clone(), Arc::new(Deaf)).unwrap();
    crate::open_control(&config).unwrap().put_site("a", "{}").unwrap();
    let OpenSite { database, .. } = server.site("a", &jiff::tz::TimeZone::UTC).unwrap();
    Some(Bench { _dir: dir, gate, server, site: database })
}

/// The progress of a walk, as everybody else sees it.
fn progress(bench: &Bench, of: &str) -> i64 {
    let mut found = None;
    let mut read = |rows: Db<'_>| {
        found = Some(rows.progress(of)?);
        Ok(())
    };
    bench.site.read(&mut read).unwrap();
    found.unwrap()
}

#[tokio::test]
async fn jobs_that_fail_after_they_wrote_cost_their_neighbours_no_transaction() {
    let Some(bench) = bench() else { return };
    // all others wait while the first runs, so they are one batch
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let (first, begun) = Job::new(1, move |_, _| Ok(wait.lock().recv().is_ok()));
    bench.site.send(first).unwrap();
    let (mut answers, runs) = (Vec::new(), Arc::new(AtomicUsize::new(0)));
    for n in 0..40 {
        let runs = runs.clone();
        let (job, answer) = Job::new(1, move |tx, _| {
            runs.fetch_add(1, Ordering::Relaxed);
            let of = format!("job{n}");
            tx.set_progress(&of, 1)?;
            if n % 2 == 0 {
                // all that was gathered is sent before it is read
                assert_eq!(tx.progress(&of)?, 1);
            }
            if n % 4 < 2 { Err(Error::unavailable("a test")) } else { Ok(()) }
        });
        bench.site.send(job).unwrap();
        answers.push(answer);
    }
    go_on.send(()).unwrap();
    assert!(begun.await.unwrap().unwrap());
    for (n, answer) in answers.into_iter().enumerate() {
        let done = answer.await.unwrap();
        assert_eq!(done.is_err(), n % 4 < 2, "job {n}");
        assert_eq!(progress(&bench, &format!("job{n}")), i64::from(n % 4 >= 2), "job {n}");
    }
    assert_eq!(runs.load(Ordering::Relaxed), 40, "none is run again because a neighbour failed");
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
    let (bomb, nobody) = Job::new(1, |_, _| Ok(Bomb));
    drop(nobody);
    bench.site.send(bomb).unwrap();
    let closes = async {
        while bench.gate.accepting().is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), closes).await.expect("the gate stays open");
    let (job, answered) = Job::new(1, |_, _| Ok(7));
    bench.site.send(job).unwrap();
    assert_eq!(answered.await.unwrap().unwrap(), 7);
    bench.server.close();
}

#[tokio::test]
async fn numbers_that_a_failover_lost_are_not_given_again() {
    let Some(bench) = bench() else { return };
    let next = async || {
        let (job, answered) = Job::new(1, |_, counters| {
            counters.vid += 1;
            Ok(counters.vid)
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

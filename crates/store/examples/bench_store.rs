//! Rates of the store alone: durable writes, reads by id, token searches, date-sorted pages, and what a resource costs on disk.
//!
//! ```text
//! cargo run --release -p hilum-store --example bench_store -- [--stored 100000] [--seconds 5] [--callers 1,8,64,256]
//!     [--original fhir|v2] [--reads no] [--dir DIR] [--url postgresql://...]
//! ```
//! With `--url` on a PostgreSQL server (an empty database), else on SQLite.
//! A quarter of the resources are Patients of about 1.4 KB, the rest Observations of about 1.1 KB that refer to them. `--original v2` keeps an
//! HL7 v2 message of about 0.6 KB, its acknowledgement and its duplicate key with each write, as a message door does; `fhir` keeps none, as a
//! FHIR REST write does. Every caller waits for the durable answer before it sends again. CPU time and written bytes are those of
//! the whole process (Linux only; zero elsewhere), so they include making the resources.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program that prints what it measured, or stops"
)]

#[path = "bench_store/data.rs"]
mod data;
#[path = "bench_store/measure.rs"]
mod measure;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hilum_fhir::search::{Context, Options, Query, decode_pairs};
use hilum_fhir::{Action, Change, ResourceType, Timestamp};
use hilum_store::{Config, PostgresConfig, Site, Store};

use crate::data::Dice;
use crate::measure::{Commits, Report, Usage};

/// As the program does it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What is asked for on the command line.
struct Settings {
    stored: u64,
    seconds: u64,
    callers: Vec<usize>,
    v2: bool,
    reads: bool,
    dir: Option<PathBuf>,
    url: Option<String>,
}

impl Settings {
    fn read() -> Self {
        let mut settings = Self {
            stored: 100_000,
            seconds: 5,
            callers: vec![1, 8, 64, 256],
            v2: false,
            reads: true,
            dir: None,
            url: None,
        };
        let mut words = std::env::args().skip(1);
        while let Some(name) = words.next() {
            let value = words.next().unwrap_or_default();
            match name.as_str() {
                "--stored" => settings.stored = value.parse().unwrap(),
                "--seconds" => settings.seconds = value.parse().unwrap(),
                "--callers" => settings.callers = value.split(',').map(|n| n.parse().unwrap()).collect(),
                "--original" => settings.v2 = value == "v2",
                "--reads" => settings.reads = value != "no",
                "--url" => settings.url = Some(value),
                "--dir" => settings.dir = Some(value.into()),
                other => panic!("unknown option {other}"),
            }
        }
        settings
    }
}

/// The store under load and what it holds.
#[derive(Clone)]
struct Load {
    store: Store,
    site: Site,
    commits: Commits,
    /// Numbers of the resources made so far.
    made: Arc<AtomicU64>,
    v2: bool,
}

#[tokio::main]
async fn main() {
    let settings = Settings::read();
    let temporary = tempfile::tempdir().unwrap();
    let dir = settings.dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    let commits = Commits::install();
    let postgres = settings.url.clone().map(PostgresConfig::new);
    let store = Store::open(Config { postgres, ..config(&dir) }).await.unwrap();
    store.control().put_site(serde_json::from_value(serde_json::json!({ "id": "bench" })).unwrap()).unwrap();
    let site = store.control().site("bench").unwrap().unwrap();
    let load = Load { store, site, commits, made: Arc::default(), v2: settings.v2 };

    println!("{}", Report::heading());
    load.writes("write, empty", &settings.callers, settings.seconds).await;
    load.fill(settings.stored).await;
    load.writes("write, filled", &settings.callers, settings.seconds).await;
    if settings.reads {
        load.reads(&settings).await;
    }

    let made = load.made.load(Ordering::Relaxed);
    load.store.close().await;
    let size = match &settings.url {
        None => std::fs::metadata(dir.join("sites/bench/site.db")).unwrap().len(),
        Some(url) => database_bytes(url).await,
    };
    println!("\n{made} resources, {size} bytes on disk, {} bytes each", size / made.max(1));
    println!("resident at most {} MiB", measure::resident_max_mib());
}

/// What the server says of the database, without its log.
async fn database_bytes(url: &str) -> u64 {
    let (client, served) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(served);
    let row = client.query_one("SELECT pg_database_size(current_database())", &[]).await.unwrap();
    row.get::<_, i64>(0).cast_unsigned()
}

impl Load {
    async fn writes(&self, name: &str, callers: &[usize], seconds: u64) {
        for callers in callers {
            let load = self.clone();
            let report = self.run(*callers, Duration::from_secs(seconds), move |_| {
                let load = load.clone();
                async move { load.write().await }
            });
            println!("{}", report.await.line(name));
        }
    }

    async fn fill(&self, until: u64) {
        let (started, before) = (Instant::now(), self.made.load(Ordering::Relaxed));
        let tasks: Vec<_> = (0..256)
            .map(|_| {
                let load = self.clone();
                tokio::spawn(async move {
                    while load.made.load(Ordering::Relaxed) < until {
                        load.write().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let made = self.made.load(Ordering::Relaxed) - before;
        println!("filled {made} more in {:.1} s", started.elapsed().as_secs_f64());
    }

    async fn reads(&self, settings: &Settings) {
        let made = self.made.load(Ordering::Relaxed);
        for callers in &settings.callers {
            for (name, kind) in [
                ("read by id", Read::Id),
                ("token search", Read::Token),
                ("name prefix, 20", Read::Name),
                ("date-sorted, 20", Read::Dated),
                ("date-sorted + code, 20", Read::DatedCode),
            ] {
                let load = self.clone();
                let report = self.run(*callers, Duration::from_secs(settings.seconds.min(3)), move |dice| {
                    let load = load.clone();
                    let number = dice.below(made);
                    async move { load.read(kind, number).await }
                });
                println!("{}", report.await.line(name));
            }
        }
    }

    async fn write(&self) {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let change = Change::new(Action::Replace(data::target(number), data::resource(number)));
        let (original, answer) = data::original(number, self.v2);
        self.store.commit(&self.site, original, vec![change], answer).await.unwrap();
    }

    async fn read(&self, kind: Read, number: u64) {
        let (of, text) = match kind {
            Read::Id => {
                let (of, id) = data::name(number);
                return assert!(self.store.read(&self.site, of, &id).await.unwrap().is_some());
            }
            Read::Token => ("Patient", format!("identifier=urn:mrn|{}", data::mrn(data::patient_of(number)))),
            Read::Name => ("Patient", format!("family={}&_count=20", data::family(number))),
            Read::Dated => ("Observation", format!("subject={}&_sort=-date&_count=20", data::busy(number))),
            Read::DatedCode => (
                "Observation",
                format!(
                    "subject={}&code=http://loinc.org|{}&_sort=-date&_count=20",
                    data::busy(number),
                    data::code(number)
                ),
            ),
        };
        let page = self.store.search(&self.site, &query(of, &text), None).await.unwrap();
        assert!(kind == Read::DatedCode || !page.matches.is_empty(), "nothing found for {of}?{text}");
    }

    /// Lets `callers` tasks repeat `work` for a while.
    async fn run<F, W>(&self, callers: usize, lasting: Duration, work: W) -> Report
    where
        W: Fn(&mut Dice) -> F + Clone + Send + 'static,
        F: Future<Output = ()> + Send,
    {
        let (before, commits, started) = (Usage::now(), self.commits.count(), Instant::now());
        let tasks: Vec<_> = (0..callers)
            .map(|caller| {
                let work = work.clone();
                tokio::spawn(async move {
                    let (mut dice, mut took) = (Dice::new(caller as u64), Vec::new());
                    while started.elapsed() < lasting {
                        let from = Instant::now();
                        work(&mut dice).await;
                        took.push(from.elapsed());
                        // what needs no wait must not keep the others from their turn, as a socket would not
                        tokio::task::yield_now().await;
                    }
                    took
                })
            })
            .collect();
        let mut took = Vec::new();
        for task in tasks {
            took.extend(task.await.unwrap());
        }
        let (elapsed, used) = (started.elapsed(), Usage::now().since(&before));
        Report::new(callers, took, elapsed, used, self.commits.count() - commits)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Read {
    Id,
    Token,
    Name,
    Dated,
    DatedCode,
}

fn query(of: &str, text: &str) -> Query {
    let options = Options {
        strict: true,
        condition: false,
        bases: &[],
        count_max: 1000,
        parameters_max: 64,
        or_values_max: 500,
        chain_depth_max: 4,
    };
    let context = Context { zone: jiff::tz::TimeZone::UTC, now: Timestamp::from_micros(0) };
    let of = ResourceType::from_name(of).unwrap();
    Query::parse(of, &decode_pairs(text), &options, &context).unwrap().0
}

/// The limits an edge has by default.
fn config(dir: &Path) -> Config {
    Config { cache_bytes: 64 << 20, ..Config::new(dir.to_owned()) }
}

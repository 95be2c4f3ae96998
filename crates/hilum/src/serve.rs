//! `hilum serve`: opens the store, then every door, and closes them in the reverse order.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use hilum_intake::Intake;
use hilum_intake::store::{Config as StoreConfig, Store};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing_subscriber::EnvFilter;

use crate::certificates::Certificates;
use crate::cli::Serve;
use crate::config::{Config, LogFormat};
use crate::doors::{Card, Door, House};
use crate::{commands, files, notify};

const DEFAULT_LOG: &str = "warn,hilum=info";
/// Libraries that log values, whatever is asked for.
const NEVER_LOGGED: [&str; 4] =
    ["tokio_postgres", "tokio_postgres::query", "tokio_postgres::prepare", "tokio_postgres::connection"];
const FIRST_KEY_FILE: &str = "first-api-key";
/// Time a delivery has that is under way at the stop: the whole stop is to take less than 10 s when no door has to be waited for.
const DELIVERY_STOP_PATIENCE: std::time::Duration = std::time::Duration::from_secs(8);
const FIRST_KEY_SCOPES: &str = "system/*.cruds ingest/hl7v2 ingest/hl7v3 ingest/mpps";

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(mut config: Config, arguments: &Serve) -> Result<ExitCode> {
    log(&config)?;
    files::fit(&mut config);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(serve(config, arguments));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    served.map(|()| ExitCode::SUCCESS)
}

async fn serve(config: Config, arguments: &Serve) -> Result<()> {
    let metrics = PrometheusBuilder::new().install_recorder().context("metrics")?;
    metrics::gauge!("hilum_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    let rules = commands::rules(&config)?;
    commands::control(&config)?;
    let store = Store::open(store_config(&config)).await?;
    let first_key = first_key(&config, &store)?;
    let intake = Intake::new(store.clone(), rules);
    let house = House { config: &config, intake: intake.clone(), metrics };
    let doors = config.listen.iter().map(|listen| house.open(listen)).collect::<Result<Vec<Door>>>()?;
    let cards: Vec<Card> = doors.iter().map(|door| door.card.clone()).collect();
    let of_listeners =
        doors.iter().filter_map(|door| Some((door.listener.name().clone(), door.tls.clone()?)));
    let certificates = Certificates::new(of_listeners.collect());

    let mut signals = Signals::new()?;
    let stop_doors = CancellationToken::new();
    let stop_rest = CancellationToken::new();
    let (open, rest) = (TaskTracker::new(), TaskTracker::new());
    rest.spawn(intake.run(stop_rest.clone()));
    rest.spawn(notify::watchdog(stop_rest.clone()));
    rest.spawn(certificates.clone().watch(stop_rest.clone()));
    // deliveries end with the doors: what is queued is sent after the next start
    open.spawn(hilum_deliver::run(store.clone(), delivery(&config), stop_doors.clone()));
    for door in doors {
        open.spawn(door.listener.serve(door.session, stop_doors.clone()));
    }
    if let Some(path) = &arguments.ready_file {
        write_ready_file(path, &cards)?;
    }
    greet(&config, &cards, &first_key);
    notify::state("READY=1");

    signals.wait(&certificates).await;
    notify::state("STOPPING=1");
    tracing::info!("draining");
    // doors first: what was accepted is still answered; then what works on the store; then the store
    stop_doors.cancel();
    open.close();
    open.wait().await;
    stop_rest.cancel();
    rest.close();
    rest.wait().await;
    store.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// How the store of this configuration is opened.
pub(crate) fn store_config(config: &Config) -> StoreConfig {
    let (store, search) = (config.limits.store, config.limits.search);
    StoreConfig {
        data_dir: config.node.data.clone(),
        // the configuration was checked when it was read
        postgres: config.store.server().unwrap_or_default(),
        memory: None,
        bucket: config.blobs.bucket().unwrap_or_default(),
        batch_jobs_max: store.batch_jobs_max,
        batch_bytes_max: store.batch_bytes_max,
        queue_jobs_max: store.queue_jobs_max,
        queue_bytes_max: store.queue_bytes_max,
        free_bytes_min: store.free_bytes_min,
        blobs_free_bytes_min: config.limits.blobs.free_bytes_min,
        quarantine_bytes_max: store.quarantine_bytes_max,
        quarantine_days_max: store.quarantine_days_max,
        cache_bytes: store.cache_bytes,
        count_max: search.count_max,
        count_default: search.count_default,
        includes_max: search.includes_max,
        total_probe_max: search.total_probe_max,
        candidates_max: search.candidates_max,
        chained_max: search.chained_max,
        exclusive: true,
    }
}

fn delivery(config: &Config) -> hilum_deliver::Options {
    let limits = config.limits.delivery;
    hilum_deliver::Options {
        response_bytes_max: limits.response_bytes_max,
        attempt_timeout: std::time::Duration::from_millis(limits.attempt_timeout_ms),
        stop_patience: DELIVERY_STOP_PATIENCE,
        retry_for: std::time::Duration::from_secs(limits.retry_hours_max * 3600),
        backlog_rows_max: limits.backlog_rows_max,
        backlog_for: std::time::Duration::from_secs(limits.backlog_days_max * 86_400),
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    /// Returns on SIGTERM or SIGINT; SIGHUP reads the certificates again.
    async fn wait(&mut self, certificates: &Certificates) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.reload.recv() => certificates.reload(),
            }
        }
    }
}

/// The first key of a new data folder, in a file only its owner reads.
fn first_key(config: &Config, store: &Store) -> Result<String> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let path = config.node.data.join(FIRST_KEY_FILE);
    if store.control().keys()?.is_empty() {
        let scopes: Vec<String> = FIRST_KEY_SCOPES.split(' ').map(str::to_owned).collect();
        let (_, secret) =
            store.control().add_key(&config.site[0].id, "first", &scopes, None, hilum_intake::now())?;
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(secret.0.as_bytes())?;
    }
    Ok(path.display().to_string())
}

fn write_ready_file(path: &Path, cards: &[Card]) -> Result<()> {
    let text = serde_json::json!({ "listeners": cards }).to_string();
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, text)?;
    std::fs::rename(&temporary, path).with_context(|| format!("cannot write {}", path.display()))
}

/// The table of doors, something to try, and where the key is.
#[expect(clippy::print_stdout, reason = "the greeting is for the person who started it")]
fn greet(config: &Config, cards: &[Card], first_key: &str) {
    println!(
        "hilum {} ({}) is open; data in {}\n",
        env!("CARGO_PKG_VERSION"),
        config.node.name,
        config.node.data.display()
    );
    println!("  {:<8} {:<28} {:<24} credential", "door", "address", "serves");
    for card in cards {
        let serves =
            if card.surfaces.is_empty() { card.protocol.to_owned() } else { card.surfaces.join(" ") };
        let credential = match (card.keys, card.surfaces.is_empty()) {
            (true, _) => "X-API-Key",
            (false, false) => "none (loopback)",
            (false, true) => "[[client]] rules",
        };
        println!("  {:<8} {:<28} {:<24} {credential}", card.protocol, card.address, serves);
    }
    if let Some(card) = cards.iter().find(|card| card.surfaces.contains(&"fhir")) {
        let key = if card.keys { format!(" -H \"X-API-Key: $(cat {first_key})\"") } else { String::new() };
        println!("\ntry:  curl{key} '{}://{}/fhir/Patient?_summary=count'", card.protocol, card.address);
        println!("docs: {}://{}/api/documentation", card.protocol, card.address);
    }
    println!("key:  {first_key} holds the first api key; `hilum key add --name NAME` makes more\n");
}

fn log(config: &Config) -> Result<()> {
    let mut filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG));
    for target in NEVER_LOGGED {
        filter = filter.add_directive(format!("{target}=off").parse()?);
    }
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // a line that cannot be written is lost: to complain about it on the same stream would panic when the disk of the log is full
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colour)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    match config.log.format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().try_init(),
    }
    .map_err(|error| anyhow::anyhow!("log: {error}"))
}

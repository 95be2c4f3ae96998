//! What a run used and how long its calls took.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};

/// Kernel clock ticks of /proc/self/stat (USER_HZ), which Linux fixes at 100 for every architecture we run on.
const TICKS_PER_SECOND: u64 = 100;

/// CPU time and bytes written by this process so far.
pub(crate) struct Usage {
    cpu_micros: u64,
    written: u64,
}

impl Usage {
    pub(crate) fn now() -> Self {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // the name in parentheses may hold blanks: count from behind it
        let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
        Self {
            cpu_micros: ticks * 1_000_000 / TICKS_PER_SECOND,
            written: value("/proc/self/io", "write_bytes:"),
        }
    }

    pub(crate) fn since(&self, before: &Self) -> Self {
        Self { cpu_micros: self.cpu_micros - before.cpu_micros, written: self.written - before.written }
    }
}

/// Most memory the process has had resident.
pub(crate) fn resident_max_mib() -> u64 {
    value("/proc/self/status", "VmHWM:") / 1024
}

fn value(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_ascii_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// One row of the table.
pub(crate) struct Report {
    callers: usize,
    took: Vec<Duration>,
    elapsed: Duration,
    used: Usage,
    commits: u64,
}

impl Report {
    pub(crate) fn new(
        callers: usize,
        mut took: Vec<Duration>,
        elapsed: Duration,
        used: Usage,
        commits: u64,
    ) -> Self {
        took.sort_unstable();
        Self { callers, took, elapsed, used, commits }
    }

    pub(crate) fn heading() -> String {
        "what                      callers      rate/s    p50 ms    p99 ms   CPU us  written B  per commit"
            .to_owned()
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub(crate) fn line(&self, name: &str) -> String {
        let calls = self.took.len().max(1) as u64;
        let percentile = |of: usize| {
            let at = (self.took.len() * of / 100).min(self.took.len().saturating_sub(1));
            self.took.get(at).map_or(0.0, |d| d.as_secs_f64() * 1000.0)
        };
        let per_commit = if self.commits == 0 { 0.0 } else { calls as f64 / self.commits as f64 };
        format!(
            "{name:<24} {:>8} {:>11.0} {:>9.3} {:>9.3} {:>8} {:>10} {per_commit:>11.1}",
            self.callers,
            calls as f64 / self.elapsed.as_secs_f64(),
            percentile(50),
            percentile(99),
            self.used.cpu_micros / calls,
            self.used.written / calls,
        )
    }
}

/// Counts the commits of the store, each of which is one sync, and no other metric.
#[derive(Clone, Default)]
pub(crate) struct Commits(Arc<AtomicU64>);

struct Count(Arc<AtomicU64>);

impl CounterFn for Count {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

impl Commits {
    pub(crate) fn install() -> Self {
        let commits = Self::default();
        let _ = metrics::set_global_recorder(commits.clone());
        commits
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Recorder for Commits {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        if key.name() == "hilum_store_commits_total" {
            Counter::from_arc(Arc::new(Count(self.0.clone())))
        } else {
            Counter::noop()
        }
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

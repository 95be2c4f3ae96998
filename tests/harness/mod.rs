//! The real binary in a folder of its own, and peers that speak its protocols: shared by every end-to-end test.
//!
//! [`Edge`] starts it on free ports, kills it, ends it politely; [`http`], [`mllp`] and [`dicom`] are the clients, [`asking`] one of the FHIR surface; [`doors`] is the
//! table of all doors, so that a property is tested on each of them.

#![allow(dead_code, reason = "each test uses its part")]

pub(crate) mod asking;
pub(crate) mod cluster;
pub(crate) mod dicom;
pub(crate) mod doors;
pub(crate) mod http;
pub(crate) mod load;
pub(crate) mod mllp;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use hilum_intake::store::{Config, PostgresConfig, Site, Store};
pub(crate) use serde_json::Value;

use self::cluster::Cluster;

/// Waiting longer than this for anything is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// The sender the MLLP door knows when it asks.
pub(crate) const SENDER: &str = "RIS";
/// The calling AE title the DICOM door knows when it asks.
pub(crate) const CALLING: &str = "MODALITY";

const CONFIG: &str = r#"
[node]
data = "DATA"
[store]
url = "STORE"
[[listen]]
protocol = "http"
address = "127.0.0.1:0"
surfaces = ["fhir", "hl7", "mpps", "metrics", "admin"]
auth = "none"
[[listen]]
protocol = "http"
address = "127.0.0.1:0"
surfaces = ["fhir", "hl7", "mpps", "metrics", "admin"]
[[listen]]
protocol = "mllp"
address = "127.0.0.1:0"
[[listen]]
protocol = "dicom"
address = "127.0.0.1:0"
[[site]]
id = "default"
ae_titles = ["HILUM"]
[limits.store]
free_bytes_min = 0
[limits.blobs]
free_bytes_min = 0
"#;
/// Anybody on this machine may send.
const OPEN: &str =
    "[[client]]\nsite = \"default\"\nprotocols = [\"mllp\", \"dicom\"]\naddresses = [\"127.0.0.0/8\"]\n";

/// A running edge.
pub(crate) struct Edge {
    child: Child,
    /// Its folder: configuration, data, log.
    pub(crate) dir: PathBuf,
    /// HTTP without authentication.
    pub(crate) http: SocketAddr,
    /// HTTP with API keys.
    pub(crate) keyed: SocketAddr,
    /// MLLP.
    pub(crate) mllp: SocketAddr,
    /// DICOM.
    pub(crate) dicom: SocketAddr,
}

impl Edge {
    /// Starts an edge whose data lies below `dir`, and waits until all doors are open.
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_with(dir, OPEN)
    }

    /// As [`Edge::start`]; MLLP and DICOM admit only [`SENDER`] and [`CALLING`].
    pub(crate) fn start_strict(dir: &Path) -> Self {
        let client = |protocol: &str, name: &str| {
            format!("[[client]]\nsite = \"default\"\nprotocols = [\"{protocol}\"]\n{name}\n")
        };
        let mllp = client("mllp", &format!("msh3 = \"{SENDER}\""));
        let dicom = client("dicom", &format!("calling_aet = \"{CALLING}\""));
        Self::start_with(dir, &(mllp + &dicom))
    }

    /// As [`Edge::start`], with more tables of configuration.
    pub(crate) fn start_limited(dir: &Path, limits: &str) -> Self {
        Self::start_with(dir, &format!("{OPEN}{limits}"))
    }

    /// The development default (no configuration file), as the first command of the README starts it, on free ports.
    pub(crate) fn start_development(dir: &Path) -> Self {
        let free = (0..3).map(|n| (format!("HILUM__LISTEN__{n}__ADDRESS"), "127.0.0.1:0"));
        Self::run(dir, |command| {
            let any =
                ["STORE", "BLOBS"].map(|section| (format!("HILUM__LIMITS__{section}__FREE_BYTES_MIN"), "0"));
            let server = server(dir).map(|url| ("HILUM__STORE__URL", url));
            command.envs(free).envs(any).envs(server).arg("serve");
        })
    }

    /// As [`Edge::start`], with another value of a limit, such as `STORE__FREE_BYTES_MIN`.
    pub(crate) fn start_with_limit(dir: &Path, limit: &str, value: i64) -> Self {
        let limit = format!("HILUM__LIMITS__{limit}");
        Self::configured(dir, OPEN, &[(&limit, &value.to_string())])
    }

    /// As [`Edge::start_limited`], with variables in its environment.
    pub(crate) fn start_with_environment(dir: &Path, more: &str, environment: &[(&str, &str)]) -> Self {
        Self::configured(dir, &format!("{OPEN}{more}"), environment)
    }

    fn start_with(dir: &Path, more: &str) -> Self {
        Self::configured(dir, more, &[])
    }

    fn configured(dir: &Path, more: &str, environment: &[(&str, &str)]) -> Self {
        let config = Self::config(dir, more);
        Self::run(dir, |command| {
            command.envs(environment.iter().copied()).arg("--config").arg(&config).arg("serve");
        })
    }

    /// As [`Edge::start_limited`], in a process that may open `soft` files, and let itself open up to `hard`.
    pub(crate) fn start_with_files(dir: &Path, limits: &str, soft: u32, hard: u32) -> Self {
        let config = Self::config(dir, &format!("{OPEN}{limits}"));
        Self::run_after(&format!("ulimit -Sn {soft}; ulimit -Hn {hard}; "), dir, |command| {
            command.arg("--config").arg(&config).arg("serve");
        })
    }

    fn run(dir: &Path, arguments: impl FnOnce(&mut Command)) -> Self {
        Self::run_after("", dir, arguments)
    }

    /// `before` are commands of the shell that becomes the edge.
    fn run_after(before: &str, dir: &Path, arguments: impl FnOnce(&mut Command)) -> Self {
        let ready = dir.join("ready.json");
        let _ = std::fs::remove_file(&ready);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
        let mut command = Command::new("sh");
        // SIGXFSZ is ignored so that a file size limit is an error of a write, as a full disk is
        let script = format!("{before}trap '' XFSZ; exec \"$@\"");
        command.args(["-c", &script, "sh", env!("CARGO_BIN_EXE_hilum")]);
        arguments(&mut command);
        command.arg("--ready-file").arg(&ready).env("RUST_LOG", "trace").current_dir(dir);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let closed = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut edge = Self {
            child: command.spawn().unwrap(),
            dir: dir.to_owned(),
            http: closed,
            keyed: closed,
            mllp: closed,
            dicom: closed,
        };
        edge.wait("ready", |edge| {
            assert!(edge.child.try_wait().unwrap().is_none(), "it ended: {}", edge.log());
            ready.exists()
        });
        let card: Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
        let door = |protocol: &str, n: usize| {
            let doors =
                card["listeners"].as_array().unwrap().iter().filter(|door| door["protocol"] == protocol);
            doors.map(|door| door["address"].as_str().unwrap().parse().unwrap()).nth(n).unwrap_or(closed)
        };
        (edge.http, edge.keyed, edge.mllp, edge.dicom) =
            (door("http", 0), door("http", 1), door("mllp", 0), door("dicom", 0));
        edge
    }

    fn config(dir: &Path, more: &str) -> PathBuf {
        let config = dir.join("hilum.toml");
        let store = server(dir).unwrap_or_else(|| "sqlite".to_owned());
        let text = CONFIG.replace("DATA", &dir.join("data").display().to_string()).replace("STORE", &store);
        let text = text + more;
        std::fs::write(&config, text).unwrap();
        config
    }

    /// kill -9
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end (SIGTERM), without waiting.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends it a signal, such as `STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let process = self.child.id().to_string();
        let sent = Command::new("sh").args(["-c", "kill -\"$1\" \"$2\"", "sh", name, &process]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits until it has ended.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        self.wait("end", |edge| edge.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap()
    }

    /// From now on every write of a file (or of the server) fails (`false`: no more), as on a broken disk; reads go on.
    pub(crate) fn break_disk(&self, broken: bool) {
        if is_on_server() {
            return Cluster::shared().make_read_only(&self.dir, broken);
        }
        let limit = if broken { "--fsize=0:" } else { "--fsize=unlimited:" };
        let changed = Command::new("prlimit").args(["--pid", &self.child.id().to_string(), limit]).status();
        assert!(changed.expect("prlimit of util-linux is needed").success());
    }

    /// Waits until something holds.
    pub(crate) fn wait(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < PATIENCE, "not {what}: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Everything it printed and logged so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.dir.join("log")).unwrap()).into_owned()
    }

    /// The JSON at a path of the HTTP door without authentication.
    pub(crate) fn get(&self, path: &str) -> Value {
        let reply = http::send(self.http, "GET", path, &[], "");
        serde_json::from_str(&reply.body)
            .unwrap_or_else(|_| panic!("{path}: {} {}", reply.status, reply.body))
    }

    /// `total` of a search.
    pub(crate) fn total(&self, path: &str) -> u64 {
        self.get(path)["total"].as_u64().unwrap_or_else(|| panic!("no total: {path}"))
    }

    /// Runs a command beside it and gives what it printed.
    pub(crate) fn hilum(&self, arguments: &[&str]) -> String {
        hilum(&self.dir, arguments)
    }

    /// A new API key as a header line.
    pub(crate) fn key(&self, scope: &str) -> String {
        let made = self.hilum(&["key", "add", "--name", "test", "--scope", scope]);
        format!("X-API-Key: {}", made.lines().last().unwrap())
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The database of the edges in a folder, when the test run is one on PostgreSQL (`HILUM_TEST_STORE=postgresql`).
pub(crate) fn server(dir: &Path) -> Option<String> {
    is_on_server().then(|| Cluster::shared().url(dir))
}

/// Whether the test run is one on PostgreSQL.
pub(crate) fn is_on_server() -> bool {
    match std::env::var("HILUM_TEST_STORE").as_deref() {
        Ok("postgresql") => true,
        Err(_) | Ok("" | "sqlite") => false,
        Ok(other) => panic!("HILUM_TEST_STORE is sqlite or postgresql, not {other}"),
    }
}

/// Runs a command with the configuration of the edge in a folder, and gives what it printed.
pub(crate) fn hilum(dir: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hilum"));
    let output = command.arg("--config").arg(dir.join("hilum.toml")).args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// What an edge that has ended left in its data folder.
pub(crate) fn store(dir: &Path) -> (tokio::runtime::Runtime, Store, Site) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = runtime.block_on(Store::open(store_config(dir))).unwrap();
    let site = store.control().site("default").unwrap().unwrap();
    (runtime, store, site)
}

/// How the store of an edge is opened.
pub(crate) fn store_config(dir: &Path) -> Config {
    Config {
        postgres: server(dir).map(PostgresConfig::new),
        free_bytes_min: 0,
        blobs_free_bytes_min: 0,
        cache_bytes: 1 << 20,
        ..Config::new(dir.join("data"))
    }
}

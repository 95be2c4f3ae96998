//! A PostgreSQL cluster of the test run's own, in a temporary folder: started with `initdb`, stopped and removed when the test process ends,
//! however it ends.
//!
//! Without PostgreSQL on this machine the tests that need it are skipped loudly, and fail when `CI=true`.

#![allow(dead_code, reason = "each test uses its part")]

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};

/// The role of the edges: no superuser, so that row level security holds for it.
const ROLE: &str = "edge";
const ADMIN: &str = "admin";

/// A running cluster.
pub(crate) struct Cluster {
    bin: PathBuf,
    dir: PathBuf,
    options: String,
    databases: Mutex<HashSet<String>>,
    /// Stops the cluster and removes its folder when the pipe to it is closed.
    keeper: Child,
}

impl Cluster {
    /// The cluster that the tests of this process share. Ends the process when there can be none.
    #[expect(clippy::disallowed_methods, reason = "a skip of all tests of the process")]
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Self::start("").unwrap_or_else(|| std::process::exit(0)))
    }

    /// Starts one; `options` are further settings (`-c name=value`). `None` after it was said why there is none.
    pub(crate) fn start(options: &str) -> Option<Self> {
        let Some(bin) = binaries() else { return missing("PostgreSQL (initdb, pg_ctl) is not installed") };
        if as_other_user("true").status().is_err() {
            return missing("PostgreSQL does not run as root, and setpriv is not installed");
        }
        let dir = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").unwrap().keep();
        if is_root() {
            assert!(Command::new("chown").arg(user()).arg(&dir).status().unwrap().success());
        }
        let data = dir.join("data");
        let log = std::fs::File::create(std::env::temp_dir().join(format!("initdb-{}", std::process::id())))
            .unwrap();
        let made = as_other_user(bin.join("initdb"))
            .args(["-A", "trust", "-U", ADMIN, "-E", "UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(&data)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .current_dir("/")
            .status();
        assert!(made.unwrap().success(), "initdb failed");
        let _ = std::fs::remove_file(std::env::temp_dir().join(format!("initdb-{}", std::process::id())));
        let keeper = as_other_user("sh")
            .args(["-c", "trap '' INT TERM HUP; cat >/dev/null; \"$1/pg_ctl\" -D \"$2/data\" -m immediate stop >/dev/null 2>&1; rm -rf \"$2\"", "sh"])
            .args([&bin, &dir])
            .stdin(Stdio::piped())
            .current_dir("/")
            .spawn()
            .unwrap();
        let network = if options.contains("listen_addresses") { "" } else { "-c listen_addresses=''" };
        let options =
            format!("-k {} -c max_connections=300 -c wal_compression=lz4 {network} {options}", dir.display());
        let cluster = Self { bin, dir, options, databases: Mutex::default(), keeper };
        cluster.control(&["-w", "start"]);
        cluster.admin("postgres", &format!("CREATE ROLE {ROLE} LOGIN"));
        Some(cluster)
    }

    /// Its folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The URL of the database that belongs to a folder; it is made when there is none.
    pub(crate) fn url(&self, of: &Path) -> String {
        self.named(&name(of))
    }

    /// The database that belongs to a folder.
    pub(crate) fn database(&self, of: &Path) -> String {
        let name = name(of);
        self.named(&name);
        name
    }

    /// From now on the database of a folder takes no writes, as after a failover to a standby (`false`: it does again).
    pub(crate) fn make_read_only(&self, of: &Path, read_only: bool) {
        let name = name(of);
        self.admin(
            "postgres",
            &format!("ALTER DATABASE {name} SET default_transaction_read_only={read_only}"),
        );
        let sql = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname='{name}'");
        self.admin("postgres", &sql);
    }

    /// The URL of a database; it is made when there is none.
    pub(crate) fn named(&self, name: &str) -> String {
        let mut databases = self.databases.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if databases.insert(name.to_owned()) {
            self.admin("postgres", &format!("CREATE DATABASE {name} OWNER {ROLE}"));
        }
        format!("postgresql://{ROLE}@/{name}?host={}", self.dir.display())
    }

    /// Runs statements as superuser and gives the values of their rows.
    pub(crate) fn admin(&self, database: &str, sql: &str) -> String {
        self.psql(ADMIN, database, sql)
    }

    /// Runs statements as the role of the edges.
    pub(crate) fn psql(&self, role: &str, database: &str, sql: &str) -> String {
        self.run(role, database, "-c", sql)
    }

    /// Runs the statements of a file, such as a dump, as the role of the edges.
    pub(crate) fn load(&self, database: &str, file: &Path) {
        self.run(ROLE, database, "-f", file.to_str().unwrap());
    }

    fn run(&self, role: &str, database: &str, option: &str, what: &str) -> String {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.env("PGPORT", self.port());
        psql.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-U", role, "-d", database]);
        let output = psql.args([option, what, "-h"]).arg(&self.dir).output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
        assert!(output.status.success(), "{what}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Lets it speak TLS with this certificate and key.
    pub(crate) fn use_certificate(&self, certificate: &Path, key: &Path) {
        let data = self.dir.join("data");
        for (from, to) in [(certificate, "server.crt"), (key, "server.key")] {
            std::fs::copy(from, data.join(to)).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            std::fs::set_permissions(data.join(to), mode).unwrap();
            if is_root() {
                assert!(Command::new("chown").arg(user()).arg(data.join(to)).status().unwrap().success());
            }
        }
        self.admin("postgres", "ALTER SYSTEM SET ssl=on");
        self.restart();
    }

    fn port(&self) -> &str {
        self.options.split_once("port=").map_or("5432", |(_, port)| port.split(' ').next().unwrap_or(port))
    }

    /// `pg_ctl -m immediate restart`: what was not synced is lost.
    pub(crate) fn restart(&self) {
        self.control(&["-m", "immediate", "-w", "restart"]);
    }

    /// Sends a signal to all processes of the server: with `STOP` it stands still and its connections stay open, until `CONT`.
    pub(crate) fn signal(&self, signal: &str) {
        let postmaster = std::fs::read_to_string(self.dir.join("data/postmaster.pid")).unwrap();
        let postmaster = postmaster.lines().next().unwrap();
        let signal = format!("-{signal}");
        assert!(Command::new("pkill").args([&signal, "-P", postmaster]).status().unwrap().success());
        assert!(Command::new("kill").args([&signal, postmaster]).status().unwrap().success());
    }

    /// `pg_ctl -m immediate stop`
    pub(crate) fn stop(&self) {
        self.control(&["-m", "immediate", "-w", "stop"]);
    }

    /// Starts it again after [`Cluster::stop`].
    pub(crate) fn start_again(&self) {
        self.control(&["-w", "start"]);
    }

    fn control(&self, arguments: &[&str]) {
        let log = self.dir.join("log");
        let mut command = as_other_user(self.bin.join("pg_ctl"));
        command.arg("-D").arg(self.dir.join("data")).arg("-l").arg(&log).args(["-o", &self.options]);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
        let done = command.status().unwrap().success();
        assert!(done, "pg_ctl {arguments:?}: {}", std::fs::read_to_string(log).unwrap_or_default());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// The name of the database that belongs to a folder.
fn name(of: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    format!("t{:x}", hasher.finish())
}

/// Says loudly that tests are not run.
fn missing(what: &str) -> Option<Cluster> {
    let line = format!("\n!! {what}: tests on PostgreSQL were NOT run\n");
    // past the capture of the test harness
    let _ = std::io::stderr().write_all(line.as_bytes());
    assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "a missing peer is a failure in CI");
    None
}

/// The folder of `initdb` and `pg_ctl`: behind `PATH`, else Debian's newest.
fn binaries() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).filter_map(|dir| dir.join("initdb").canonicalize().ok());
    let mut packaged: Vec<PathBuf> =
        std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|e| e.path()).collect();
    packaged.sort_by_key(|dir| dir.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()));
    let packaged = packaged.into_iter().rev().map(|dir| dir.join("bin/initdb"));
    on_path
        .chain(packaged)
        .filter_map(|file| Some(file.parent()?.to_owned()))
        .find(|dir| ["initdb", "pg_ctl", "postgres", "psql"].iter().all(|name| dir.join(name).exists()))
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

/// Whom the server runs as when this is root.
fn user() -> &'static str {
    let known = Command::new("id").arg("postgres").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if known.is_ok_and(|status| status.success()) { "postgres" } else { "nobody" }
}

/// A command that does not run as root.
fn as_other_user(program: impl AsRef<std::ffi::OsStr>) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user(), "--regid"]).arg(if user() == "nobody" { "nogroup" } else { "postgres" });
    command.arg("--clear-groups").arg(program);
    command
}

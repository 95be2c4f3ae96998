//! The engines a sequence runs on, and what can be read of each in a form that is the same on all: ids by order of first appearance, no times.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bytes::Bytes;
use hilum_fhir::search::{Context, Options, Query, decode_pairs};
use hilum_fhir::{Change, Issue, IssueCode, ResourceType, Timestamp};
use hilum_store::{Commit, Config, Error, Memory, Original, PostgresConfig, Site, Store, Version};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::steps::{TYPES, kind};

/// Sites of one database: a store opens all of them when it is opened again.
const SITES_MAX: usize = 8;
/// Resources of one type in one sequence.
const COUNT: u32 = 500;

/// One engine with the site of a sequence.
pub(crate) struct Bench {
    pub(crate) engine: &'static str,
    config: Config,
    store: Option<Store>,
    site: Site,
    /// What each id is called.
    names: HashMap<String, String>,
    /// Ids of each type in order of first appearance.
    ids: HashMap<&'static str, Vec<String>>,
    position: u64,
    _dir: Option<TempDir>,
}

/// The current resources by their names.
pub(crate) type State = BTreeMap<String, Value>;

/// Where the sites of sequences on PostgreSQL are.
pub(crate) struct Server {
    cluster: Cluster,
    dir: TempDir,
    store: Option<Store>,
    databases: usize,
    sites: usize,
}

impl Server {
    /// `None` after it was said that there is no PostgreSQL here.
    pub(crate) fn start() -> Option<Self> {
        let cluster = Cluster::start("")?;
        Some(Self { cluster, dir: folder(), store: None, databases: 0, sites: 0 })
    }

    fn config(&self) -> Config {
        let url = self.cluster.named(&format!("model{}", self.databases));
        let dir = self.dir.path().join(self.databases.to_string());
        let config = limits(Config::new(dir));
        Config { postgres: Some(PostgresConfig::new(url)), ..config }
    }

    async fn bench(&mut self) -> Bench {
        self.sites += 1;
        if self.sites % SITES_MAX == 1
            && let Some(store) = self.store.take()
        {
            store.close().await;
            drop(store);
            // a long run is not to fill the disk
            let database = format!("DROP DATABASE model{} WITH (FORCE)", self.databases);
            self.cluster.admin("postgres", &database);
        }
        if self.store.is_none() {
            self.databases += 1;
            self.store = Some(Store::open(self.config()).await.unwrap());
        }
        let store = self.store.clone().unwrap();
        Bench::on("PostgreSQL", self.config(), store, &format!("s{}", self.sites), None)
    }
}

/// A folder in memory where there is one: nothing here is about disks.
fn folder() -> TempDir {
    let in_memory = Path::new("/dev/shm");
    let of = if in_memory.is_dir() { in_memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("hilum-model").tempdir_in(of).unwrap()
}

fn limits(config: Config) -> Config {
    Config { free_bytes_min: 0, blobs_free_bytes_min: 0, cache_bytes: 1 << 20, ..config }
}

/// A bench on each engine there is.
pub(crate) async fn benches(server: &mut Option<Server>) -> Vec<Bench> {
    let (memory, files) = (folder(), folder());
    let config = limits(Config::in_memory(memory.path().to_owned(), Memory::default()));
    let store = Store::open(config.clone()).await.unwrap();
    let mut all = vec![Bench::on("memory", config, store, "a", Some(memory))];
    let config = limits(Config::new(files.path().to_owned()));
    let store = Store::open(config.clone()).await.unwrap();
    all.push(Bench::on("SQLite", config, store, "a", Some(files)));
    if let Some(server) = server {
        all.push(server.bench().await);
    }
    all
}

impl Bench {
    fn on(engine: &'static str, config: Config, store: Store, site: &str, dir: Option<TempDir>) -> Self {
        store.control().put_site(serde_json::from_value(json!({ "id": site })).unwrap()).unwrap();
        let site = store.control().site(site).unwrap().unwrap();
        let (names, ids) = (HashMap::new(), HashMap::new());
        Self { engine, config, store: Some(store), site, names, ids, position: 0, _dir: dir }
    }

    pub(crate) fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    /// Closes the store and opens it again.
    pub(crate) async fn restart(&mut self, server: &mut Option<Server>) {
        let store = self.store.take().unwrap();
        let server = server.as_mut().filter(|_| self.config.postgres.is_some());
        store.close().await;
        drop(store);
        let opened = match server {
            Some(server) => {
                server.store = None;
                let store = Store::open(self.config.clone()).await.unwrap();
                server.store = Some(store.clone());
                store
            }
            None => Store::open(self.config.clone()).await.unwrap(),
        };
        self.site = opened.control().site(self.site.id()).unwrap().unwrap();
        self.store = Some(opened);
    }

    /// Closes what is of this sequence alone.
    pub(crate) async fn close(self) {
        if self.config.postgres.is_none() {
            self.store().close().await;
        }
    }

    /// Commits, or keeps what is refused as an edge does.
    pub(crate) async fn submit(
        &mut self,
        original: Original,
        changes: Vec<Change>,
        answer: &str,
    ) -> Result<Commit, Error> {
        let answer = Some(Bytes::from(answer.to_owned()));
        let done = self.store().commit(&self.site, original.clone(), changes, answer).await;
        if let Err(error) = &done {
            self.store().quarantine(&self.site, original, &error.issues, None).await.unwrap();
        }
        self.learn().await;
        done
    }

    /// Names what is new in the feed; how many versions are.
    pub(crate) async fn learn(&mut self) -> usize {
        let mut versions = 0;
        loop {
            let entries = self.store().feed(&self.site, self.position, COUNT).await.unwrap();
            let Some(last) = entries.last() else { return versions };
            self.position = last.position;
            versions += entries.len();
            for entry in entries {
                let of = entry.version.resource_type.name();
                if !self.names.contains_key(&entry.version.id) {
                    let ids = self.ids.entry(of).or_default();
                    ids.push(entry.version.id.clone());
                    self.names.insert(entry.version.id, format!("{}-{}", of.to_lowercase(), ids.len()));
                }
            }
        }
    }

    /// The id of the nth resource of a type, counted around.
    pub(crate) fn id(&self, of: &str, nth: usize) -> Option<String> {
        let ids = self.ids.get(of)?;
        ids.get(nth % ids.len()).cloned()
    }

    /// The id that has a name.
    pub(crate) fn id_of(&self, name: &str) -> Option<&str> {
        self.names.iter().find(|(_, known)| *known == name).map(|(id, _)| id.as_str())
    }

    /// The last content of a resource, deleted or not; the second is whether it is there.
    pub(crate) async fn content(&self, of: &str, id: &str) -> Option<(Value, bool)> {
        let versions = self.store().history(&self.site, kind(of), id, None, 2).await.unwrap();
        let is_there = !versions.first()?.body.is_empty();
        let last = versions.iter().find(|version| !version.body.is_empty())?;
        Some((serde_json::from_slice(&last.body).unwrap(), is_there))
    }

    /// A text with its ids replaced by their names.
    pub(crate) fn named(&self, text: &str) -> String {
        const LENGTH: usize = 36;
        let mut named = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if let Some(id) = rest.get(..LENGTH).filter(|id| is_uuid(id)) {
                named.push_str(self.names.get(id).map_or("an-unknown-id", String::as_str));
                rest = &rest[LENGTH..];
            } else {
                named.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
        named
    }

    fn body(&self, body: &[u8]) -> Value {
        let text = self.named(std::str::from_utf8(body).unwrap());
        let mut value: Value = serde_json::from_str(&text).unwrap_or_default();
        if let Some(meta) = value.get_mut("meta").and_then(Value::as_object_mut) {
            meta.remove("lastUpdated");
        }
        // how often a study was drawn is a matter of time
        if value["resourceType"] == "ImagingStudy"
            && let Some(meta) = value.get_mut("meta").and_then(Value::as_object_mut)
        {
            meta.insert("versionId".into(), "-".into());
        }
        value
    }

    /// What a commit came to.
    pub(crate) fn told(&self, done: &Result<Commit, Error>) -> Value {
        let issue = |issue: &Issue| {
            let code: IssueCode = issue.code;
            json!([
                code.as_str(),
                issue.location,
                self.named(&issue.diagnostics),
                issue.hl7_code,
                issue.change
            ])
        };
        match done {
            Err(error) => json!({ "refused": format!("{:?}", error.kind),
                "issues": error.issues.iter().map(issue).collect::<Vec<_>>() }),
            Ok(commit) => {
                let outcome = |outcome: &hilum_store::Outcome| {
                    if outcome.resource_type.name() == "ImagingStudy" {
                        // whether a commit draws a study first or its turn came before is a matter of seconds
                        let is_recorded = outcome.effect == hilum_store::Effect::Recorded;
                        return json!({ "rows": if is_recorded { "recorded" } else { "nothing new" } });
                    }
                    json!({ "effect": format!("{:?}", outcome.effect), "id": self.named(&outcome.id),
                        "version": outcome.version, "body": self.body(&outcome.body()) })
                };
                let answer =
                    commit.answer.as_ref().map(|answer| String::from_utf8_lossy(answer).into_owned());
                let remark =
                    |remark: &hilum_store::Remark| json!([remark.kind.as_str(), issue(&remark.issue)]);
                json!({ "outcomes": commit.outcomes.iter().map(outcome).collect::<Vec<_>>(), "answer": answer,
                    "duplicate": commit.duplicate,
                    "remarks": commit.remarks.iter().map(remark).collect::<Vec<_>>() })
            }
        }
    }

    /// All current resources.
    pub(crate) async fn state(&mut self) -> State {
        let mut state = State::new();
        for of in TYPES {
            let found = self.search(of, &format!("_count={COUNT}")).await.0;
            self.learn().await;
            for version in found {
                state.insert(self.named(&version.id), self.body(&version.body));
            }
        }
        state
    }

    async fn search(&self, of: &str, text: &str) -> (Vec<Version>, Vec<Version>) {
        let page = self.store().search(&self.site, &query(kind(of), text), None).await.unwrap();
        (page.matches, page.includes)
    }

    /// Names of what a search finds, and of what it includes.
    pub(crate) async fn find(&self, of: &str, text: &str) -> (Vec<String>, Vec<String>) {
        let (matches, includes) = self.search(of, text).await;
        let names = |versions: Vec<Version>| {
            let mut names: Vec<String> = versions.iter().map(|version| self.named(&version.id)).collect();
            names.sort_unstable();
            names
        };
        (names(matches), names(includes))
    }

    /// All versions of everything but of studies.
    pub(crate) async fn histories(&self) -> Vec<Value> {
        let mut all = Vec::new();
        for of in TYPES.into_iter().filter(|of| *of != "ImagingStudy") {
            for id in self.ids.get(of).into_iter().flatten() {
                for version in self.store().history(&self.site, kind(of), id, None, COUNT).await.unwrap() {
                    let operation = format!("{:?}", version.operation);
                    all.push(json!([self.named(id), version.version, operation, self.body(&version.body)]));
                }
            }
        }
        all
    }

    /// What is told of each submission.
    pub(crate) async fn submissions(&self) -> Vec<Value> {
        let rows = self.store().submissions(&self.site, None, COUNT).await.unwrap();
        let row = |row: &hilum_store::SubmissionRow| {
            let issues: Vec<String> = row.issues.iter().map(|issue| self.named(&issue.diagnostics)).collect();
            json!([row.sequence, row.accepted, row.attention, issues, row.control_id])
        };
        rows.iter().map(row).collect()
    }

    /// Draws the studies that are due.
    pub(crate) async fn publish(&mut self) {
        self.store().publish_studies(&self.site, None).await.unwrap();
        self.learn().await;
    }
}

fn is_uuid(text: &str) -> bool {
    text.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
    })
}

fn query(of: ResourceType, text: &str) -> Query {
    let options = Options {
        strict: true,
        condition: false,
        bases: &[],
        count_max: COUNT,
        parameters_max: 64,
        or_values_max: 500,
        chain_depth_max: 4,
    };
    let context = Context { zone: jiff::tz::TimeZone::UTC, now: Timestamp::from_micros(0) };
    Query::parse(of, &decode_pairs(text), &options, &context).unwrap().0
}

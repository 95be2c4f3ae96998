//! Images in a bucket instead of files, against a server that speaks S3 (moto; `HILUM_TEST_MOTO` names its program, as `scripts/test` sets it):
//! what is answered 0000 is in the bucket byte for byte, small or sent in parts; while the server is away senders are told to send again,
//! and once it is back everything goes on without a restart.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use harness::cluster::Cluster;
use harness::dicom::{Association, image, image_of, study_of};
use harness::doors::{DOORS, Item};
use harness::{CALLING, Edge, PATIENCE, http};

const SUCCESS: u16 = 0x0000;
const OUT_OF_RESOURCES: u16 = 0xA700;
const STORE: &str = "HILUM__STORE__URL";
const CREDENTIALS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")];

/// A server with an empty bucket. Killed when dropped.
struct Bucket {
    server: Child,
    address: SocketAddr,
}

impl Bucket {
    fn serve(address: SocketAddr) -> Self {
        let program = std::env::var_os("HILUM_TEST_MOTO").expect("HILUM_TEST_MOTO names moto_server");
        let server = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &address.port().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(begun.elapsed() < PATIENCE, "moto does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(http::send(address, "PUT", "/images", &[], "").status, 200);
        Self { server, address }
    }

    /// The paths of all objects.
    fn names(&self) -> Vec<String> {
        let list = http::send(self.address, "GET", "/images?list-type=2", &[], "").body;
        list.split("<Key>").skip(1).map(|rest| rest.split('<').next().unwrap().to_owned()).collect()
    }

    fn object(&self, name: &str) -> String {
        // any credentials will do, but for some
        let signed = ["Authorization: AWS test:test"];
        http::send(self.address, "GET", &format!("/images/{name}"), &signed, "").body
    }

    fn edge(&self, dir: &Path) -> Edge {
        Edge::start_with_environment(dir, &self.blobs(), &CREDENTIALS)
    }

    /// An edge on a database that it shares with others.
    fn edge_of(&self, dir: &Path, url: &str) -> Edge {
        std::fs::create_dir_all(dir).unwrap();
        Edge::start_with_environment(dir, &self.blobs(), &[&CREDENTIALS[..], &[(STORE, url)]].concat())
    }

    fn blobs(&self) -> String {
        format!("[blobs]\nurl = \"s3://images/edge\"\nendpoint = \"http://{}\"\n", self.address)
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Runs a command with the configuration of a folder.
fn hilum(dir: &Path, command: &str, environment: &[(&str, &str)]) -> Output {
    let mut hilum = Command::new(env!("CARGO_BIN_EXE_hilum"));
    hilum.args(["--config", "hilum.toml", command]).envs(CREDENTIALS).envs(environment.iter().copied());
    hilum.current_dir(dir).output().unwrap()
}

#[test]
#[ignore = "needs an S3 server: HILUM_TEST_MOTO"]
fn what_is_answered_is_in_the_bucket() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = Bucket::serve(free_address());
    let edge = bucket.edge(dir.path());
    let mut association = Association::request(edge.dicom, CALLING).unwrap();
    // one request, and an upload in parts
    for (uid, pixel_bytes) in [("1.2.826.1", 1_000), ("1.2.826.2", 11 << 20)] {
        let bytes = image(uid, "P1", "Doe^Jane", pixel_bytes);
        for _ in 0..2 {
            assert_eq!(association.store(uid, &bytes).unwrap().status, SUCCESS);
        }
        let stored = String::from_utf8_lossy(&bytes);
        let found = bucket.names().iter().filter(|name| bucket.object(name).ends_with(&*stored)).count();
        assert_eq!(found, 1, "{uid}");
        let study = study_of(uid);
        assert_eq!(edge.total(&format!("/fhir/ImagingStudy?identifier=urn:oid:{study}")), 1);
    }
    let names = bucket.names();
    assert_eq!(names.len(), 2, "nothing temporary is left: {names:?}");
    assert!(names.iter().all(|name| name.starts_with("edge/default/")), "{names:?}");
    assert!(!dir.path().join("data/sites/default/blobs").exists(), "no file besides");
    let checked = hilum(dir.path(), "fsck", &[]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

#[test]
#[ignore = "needs an S3 server: HILUM_TEST_MOTO"]
fn two_edges_share_a_bucket_and_a_database() {
    let dir = tempfile::tempdir().unwrap();
    let (bucket, url) = (Bucket::serve(free_address()), Cluster::shared().url(dir.path()));
    let edges = ["one", "two"].map(|name| bucket.edge_of(&dir.path().join(name), &url));
    const STUDY: &str = "2.25.77";
    for (number, edge) in edges.iter().chain(&edges).enumerate() {
        let mut association = Association::request(edge.dicom, CALLING).unwrap();
        let (uid, series) = (format!("{STUDY}.1.{number}"), format!("{STUDY}.2"));
        let bytes = image_of(&uid, STUDY, &series, ("S1", "Two^Ways"), 2_000);
        assert_eq!(association.store(&uid, &bytes).unwrap().status, SUCCESS);
        // the same again, by the other way
        let other = &edges[(number + 1) % 2];
        let mut association = Association::request(other.dicom, CALLING).unwrap();
        assert_eq!(association.store(&uid, &bytes).unwrap().status, SUCCESS);
    }
    assert_eq!(bucket.names().len(), 4, "each image once: {:?}", bucket.names());
    for (name, edge) in ["one", "two"].iter().zip(&edges) {
        let found = edge.get(&format!("/fhir/ImagingStudy?identifier=urn:oid:{STUDY}"));
        assert_eq!(found["entry"][0]["resource"]["numberOfInstances"], 4, "{found}");
        let checked = hilum(&dir.path().join(name), "fsck", &[(STORE, &url)]);
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert!(checked.status.success() && said.contains("4 blobs"), "{said}");
    }
    // what one edge looks for is what both have placed
    let name = bucket.names().remove(0);
    let gone = http::send(
        bucket.address,
        "DELETE",
        &format!("/images/{name}"),
        &["Authorization: AWS test:test"],
        "",
    );
    assert_eq!(gone.status, 204);
    let checked = hilum(&dir.path().join("two"), "fsck", &[(STORE, &url)]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(!checked.status.success() && said.contains("missing in the bucket"), "{said}");
}

#[test]
#[ignore = "needs an S3 server: HILUM_TEST_MOTO"]
fn a_server_that_is_away_defers_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let bucket = Bucket::serve(address);
    let edge = bucket.edge(dir.path());
    let mut association = Association::request(edge.dicom, CALLING).unwrap();
    let bytes = image("1.2.826.3", "P1", "Doe^Jane", 100_000);
    drop(bucket);
    let refused = association.store("1.2.826.3", &bytes).unwrap();
    assert_eq!(refused.status, OUT_OF_RESOURCES, "{refused:?}");
    // what needs no bucket goes on
    let v2 = DOORS.iter().find(|door| door.name == "MLLP").unwrap();
    assert!(v2.accepts(v2.submit(&edge, &Item::new(1)).as_ref()));
    assert_eq!(edge.total("/fhir/ImagingStudy"), 0, "no row names what is not there");

    let bucket = Bucket::serve(address);
    assert_eq!(association.store("1.2.826.3", &bytes).unwrap().status, SUCCESS, "the same association");
    assert_eq!(edge.total("/fhir/ImagingStudy"), 1);
    assert_eq!(bucket.names().len(), 1);
}

#[test]
#[ignore = "needs an S3 server: HILUM_TEST_MOTO"]
fn a_bucket_that_is_not_there_is_named_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let bucket = Bucket::serve(free_address());
    let config = format!(
        "[node]\ndata = \"data\"\n[[listen]]\nprotocol = \"http\"\naddress = \"127.0.0.1:0\"\nsurfaces = [\"fhir\"]\nauth = \"none\"\n[[site]]\nid = \"default\"\n[blobs]\nurl = \"s3://other\"\nendpoint = \"http://{}\"\n",
        bucket.address
    );
    std::fs::write(dir.path().join("hilum.toml"), config).unwrap();
    let output = hilum(dir.path(), "serve", &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("the bucket other at http://127.0.0.1"), "{said}");
}

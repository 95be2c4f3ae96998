//! What an operator sees and sets: the limits in force, open files, certificates that expire, who may read the metrics.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use harness::doors::{DOORS, Item};
use harness::{Edge, http};

/// The limits the CapabilityStatement shows.
fn limits(edge: &Edge) -> BTreeMap<String, u64> {
    let statement = edge.get("/fhir/metadata");
    let limits = &statement["rest"][0]["extension"][0];
    assert_eq!(limits["url"], "urn:hilum:extension:limits");
    let named = limits["extension"].as_array().unwrap().iter();
    named.map(|l| (l["url"].as_str().unwrap().to_owned(), l["valueDecimal"].as_u64().unwrap())).collect()
}

#[test]
fn the_limits_in_force_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start_limited(dir.path(), "[limits.mllp]\nframe_bytes_max = 12345\n");
    let limits = limits(&edge);
    assert_eq!(limits["mllp.frame_bytes_max"], 12345, "as configured");
    assert_eq!(limits["store.free_bytes_min"], 0, "as configured");
    assert_eq!(limits["dicom.object_bytes_max"], 2_147_483_648, "a default");
    assert_eq!(limits["store.quarantine_bytes_max"], 10 << 30, "larger than an integer of FHIR");
}

#[test]
fn connections_are_as_many_as_files_may_be_opened() {
    let dir = tempfile::tempdir().unwrap();
    // 692 are wanted and more than that allowed: the process lets itself
    let few = "[limits.http]\nconnections_max = 100\n[limits.mllp]\nconnections_max = 200\n[limits.dicom]\nassociations_max = 50\n";
    let edge = Edge::start_with_files(dir.path(), few, 300, 1_000);
    assert_eq!(limits(&edge)["mllp.connections_max"], 200);
    assert!(!edge.log().contains("too few open files"));
    edge.kill();
    // 128 and 64 for the site are no connections; of the rest each protocol has its share of 10,000 + 2 x 4,000 + 2 x 1,000
    let edge = Edge::start_with_files(dir.path(), "", 300, 1_192);
    let limits = limits(&edge);
    let names = ["mllp.connections_max", "http.connections_max", "dicom.associations_max"];
    assert_eq!(names.map(|name| limits[name]), [500, 200, 50]);
    assert!(edge.log().contains("too few open files are allowed"), "{}", edge.log());
    for (door, item) in DOORS.iter().zip((1..).map(Item::new)) {
        assert!(door.accepts(door.submit(&edge, &item).as_ref()), "{}", door.name);
    }
}

#[test]
fn a_certificate_that_expires_soon_is_said_and_a_new_one_taken() {
    const LISTEN: &str = "[[listen]]\nprotocol = \"https\"\naddress = \"127.0.0.1:0\"\nsurfaces = [\"fhir\"]\ncert = \"edge.pem\"\nkey = \"edge.key\"\n";
    let dir = tempfile::tempdir().unwrap();
    let now = jiff::Timestamp::now().as_second();
    certificate(dir.path(), 10);
    let mut edge = Edge::start_limited(dir.path(), LISTEN);
    let expires = |edge: &Edge| {
        let page = http::send(edge.http, "GET", "/metrics", &[], "").body;
        let line =
            page.lines().find(|l| l.starts_with("hilum_certificate_expires_seconds{listener=\"https-0\"}"));
        let value = line.and_then(|line| line.split(' ').nth(1)?.parse::<f64>().ok());
        (value.unwrap_or_else(|| panic!("{page}")) as i64 - now).div_euclid(86_400)
    };
    assert!((8..=10).contains(&expires(&edge)), "{}", expires(&edge));
    assert!(edge.log().contains("the certificate expires soon"), "{}", edge.log());
    let warnings = edge.log().matches("expires soon").count();
    certificate(dir.path(), 400);
    edge.signal("HUP");
    edge.wait("reloaded", |edge| expires(edge) > 300);
    assert_eq!(edge.log().matches("expires soon").count(), warnings, "nothing to warn of any more");
    std::fs::write(dir.path().join("edge.pem"), "no certificate").unwrap();
    edge.signal("HUP");
    edge.wait("told", |edge| edge.log().contains("the old one stays in force"));
    assert!(expires(&edge) > 300);
}

/// A certificate for so many days, and its key.
fn certificate(dir: &Path, days: i64) {
    let date = jiff::Zoned::now().date() + jiff::Span::new().days(days);
    let number = |n: i8| u8::try_from(n).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(date.year().into(), number(date.month()), number(date.day()));
    let key = rcgen::KeyPair::generate().unwrap();
    std::fs::write(dir.join("edge.key"), key.serialize_pem()).unwrap();
    std::fs::write(dir.join("edge.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
}

#[test]
fn metrics_are_for_keys_with_their_scope() {
    let dir = tempfile::tempdir().unwrap();
    let edge = Edge::start(dir.path());
    let get = |headers: &[&str]| http::send(edge.keyed, "GET", "/metrics", headers, "");
    assert_eq!(get(&[]).status, 401);
    let refused = get(&[&edge.key("system/*.cruds ingest/hl7v2")]);
    assert_eq!(refused.status, 403);
    assert!(refused.body.contains("admin/metrics"), "{refused:?}");
    for scope in ["admin/metrics", "admin/all"] {
        let page = get(&[&edge.key(scope)]);
        assert!(page.status == 200 && page.body.contains("hilum_"), "{scope}: {page:?}");
    }
    assert_eq!(
        http::send(edge.http, "GET", "/metrics", &[], "").status,
        200,
        "loopback without authentication"
    );
}

#[test]
fn an_overlay_of_a_site_is_for_that_site_alone_and_a_wrong_one_fails_the_check() {
    let dir = tempfile::tempdir().unwrap();
    let overlay = dir.path().join("tables/AdministrativeSex.csv");
    std::fs::create_dir(overlay.parent().unwrap()).unwrap();
    std::fs::write(&overlay, "code,system,target,display\nQ,,other,\n").unwrap();
    let config = format!(
        "[[listen]]\nprotocol = \"mllp\"\naddress = \"127.0.0.1:0\"\n[[site]]\nid = \"north\"\noverlays = [{overlay:?}]\n[[site]]\nid = \"south\"\n"
    );
    std::fs::write(dir.path().join("hilum.toml"), config).unwrap();
    let message = dir.path().join("a.hl7");
    std::fs::write(
        &message,
        "MSH|^~\\&|A|B|C|D|20240101||ADT^A28|1|P|2.5\rPID|1||1^^^H^MR||Doe^Jo||19700101|Q\r",
    )
    .unwrap();
    let gender = |site: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hilum"));
        command
            .arg("--config")
            .arg(dir.path().join("hilum.toml"))
            .args(["map", "--site", site])
            .arg(&message);
        String::from_utf8_lossy(&command.output().unwrap().stdout).contains("\"other\"")
    };
    assert!(gender("north") && !gender("south"));
    std::fs::write(&overlay, "code,target\nQ,other\n").unwrap();
    let mut check = Command::new(env!("CARGO_BIN_EXE_hilum"));
    let checked = check.arg("--config").arg(dir.path().join("hilum.toml")).arg("check").output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(
        !checked.status.success() && said.contains("AdministrativeSex.csv:1:") && said.contains("north"),
        "{said}"
    );
}

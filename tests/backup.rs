//! A backup taken while every door is busy, restored elsewhere: all that was acknowledged before it began is there once, images byte for byte.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use std::time::Duration;

use harness::Edge;
use harness::load::{Load, images_are_whole, is_there_once};

#[test]
fn what_was_acknowledged_before_a_backup_is_in_it() {
    if harness::is_on_server() {
        eprintln!("!! a server has backups of its own: NOT run");
        return;
    }
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let edge = Edge::start(dir.path());
    let load = Load::start(&edge, 0);
    load.has_begun();
    std::thread::sleep(Duration::from_millis(700));
    let before = load.acknowledged();
    let out = dir.path().join("backup");
    let said = edge.hilum(&["backup", out.to_str().unwrap()]);
    assert!(said.contains("backed up site default"), "{said}");
    assert!(edge.hilum(&["fsck"]).contains("site default: clean"), "beside a running edge");
    edge.kill();
    drop(load.ended());
    assert!(!before.is_empty());

    std::fs::rename(dir.path().join("data"), dir.path().join("lost")).unwrap();
    let edge = Edge::start(elsewhere.path());
    edge.kill();
    std::fs::remove_dir_all(elsewhere.path().join("data")).unwrap();
    harness::hilum(elsewhere.path(), &["restore", out.to_str().unwrap()]);
    let clean = harness::hilum(elsewhere.path(), &["fsck", "--deep"]);
    assert!(clean.contains("site default: clean"), "{clean}");
    let edge = Edge::start(elsewhere.path());
    is_there_once(&edge, &before);
    edge.kill();
    images_are_whole(elsewhere.path(), &before);
}

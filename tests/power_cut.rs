//! A power cut: the data folder is a file system in a file, which is copied while the edge stands still under load. What the edge had not
//! synced is not in the copy. All that was acknowledged before is there when an edge starts on the copy, and no row lacks its blob.
//!
//! kill -9 leaves the pages of the kernel alone; only this shows that every yes waited for the disk. It needs root and loop devices:
//! `cargo test -p hilum --test power_cut -- --ignored`, which `scripts/test` does where it can.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use harness::Edge;
use harness::doors::DOORS;
use harness::load::{Load, images_are_whole, is_there_once};

const ROUNDS: u64 = 3;
const LOAD_MS: u64 = 700;

/// A mounted file system; unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(image: &Path, at: PathBuf) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        run("mount", &[Path::new("-o"), Path::new("loop"), image, &at]);
        Self(at)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn run(program: &str, arguments: &[&Path]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "needs root and loop devices"]
fn what_was_acknowledged_is_there_once_after_a_power_cut() {
    for round in 0..ROUNDS {
        let dir = tempfile::tempdir().unwrap();
        let (image, copy) = (dir.path().join("image"), dir.path().join("copy"));
        std::fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
        run("mkfs.ext4", &[Path::new("-q"), &image]);
        let (before, after) = (dir.path().join("before"), dir.path().join("after"));

        let disk = Disk::mount(&image, before.join("data"));
        let edge = Edge::start(&before);
        let load = Load::start(&edge, round);
        std::thread::sleep(Duration::from_millis(LOAD_MS + 170 * round));
        edge.signal("STOP");
        let acknowledged = load.acknowledged();
        run("cp", &[Path::new("--sparse=always"), &image, &copy]);
        edge.kill();
        load.ended();
        drop(disk);

        for door in DOORS {
            let some = acknowledged.iter().any(|(of, _)| of.name == door.name);
            assert!(some, "{}: nothing was acknowledged in round {round}", door.name);
        }
        let _disk = Disk::mount(&copy, after.join("data"));
        let edge = Edge::start(&after);
        is_there_once(&edge, &acknowledged);
        edge.kill();
        images_are_whole(&after, &acknowledged);
        println!("round {round}: {} acknowledged, all there", acknowledged.len());
    }
}

//! What only a disk of its own can show; it needs root and loop devices: `cargo test -p hilum --test disk -- --ignored`, which `scripts/test`
//! does where it can.
//!
//! A power cut: the data folder is a file system in a file, which is copied while the edge stands still under load. What the edge had not
//! synced is not in the copy. All that was acknowledged before is there when an edge starts on the copy, and no row lacks its blob.
//! kill -9 leaves the pages of the kernel alone; only this shows that every yes waited for the disk.
//!
//! A full disk, of the edge or of its database server: everything is deferred, nothing rejected, and once there is room it goes on without
//! a restart.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod harness;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use harness::cluster::Cluster;
use harness::doors::{DOORS, Item, Verdict};
use harness::load::{Load, images_are_whole, is_there_once};
use harness::{Edge, http};

const ROUNDS: u64 = 3;
const LOAD_MS: u64 = 700;

/// A mounted file system; unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    /// One that is soon full; its image is in a folder.
    fn small(dir: &Path, at: PathBuf) -> Self {
        let image = dir.join("image");
        std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        run("mkfs.ext4", &[Path::new("-q"), &image]);
        Self::mount(&image, at)
    }

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
fn what_was_acknowledged_is_there_once_after_a_disk() {
    for round in 0..ROUNDS {
        let dir = tempfile::tempdir().unwrap();
        let (image, copy) = (dir.path().join("image"), dir.path().join("copy"));
        std::fs::File::create(&image).unwrap().set_len(512 << 20).unwrap();
        run("mkfs.ext4", &[Path::new("-q"), &image]);
        let (before, after) = (dir.path().join("before"), dir.path().join("after"));

        let disk = Disk::mount(&image, before.join("data"));
        let edge = Edge::start(&before);
        let load = Load::start(&edge, round);
        load.has_begun();
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

#[test]
#[ignore = "needs root and loop devices"]
fn a_full_disk_defers_everything_and_recovers_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::small(dir.path(), dir.path().join("data"));
    let edge = Edge::start(dir.path());
    fill_and_free(edge, &disk);
}

/// The server's tables are on the full disk, its log is not: then it goes on to run.
#[test]
#[ignore = "needs root and loop devices"]
fn a_full_disk_of_the_database_server_defers_everything_and_reads_go_on() {
    let Some(cluster) = Cluster::start("") else { return };
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    let disk = Disk::small(dir.path(), cluster.dir().join("small"));
    run("chown", &[Path::new("--reference"), cluster.dir(), &disk.0]);
    // not beside what the file system has of its own
    let tables = disk.0.join("tables");
    std::fs::create_dir(&tables).unwrap();
    run("chown", &[Path::new("--reference"), cluster.dir(), &tables]);
    cluster.admin("postgres", &format!("CREATE TABLESPACE small LOCATION '{}'", tables.display()));
    let url = cluster.named("on_small");
    cluster.admin("postgres", "ALTER DATABASE on_small SET TABLESPACE small");
    let edge = Edge::start_with_environment(dir.path(), "", &[("HILUM__STORE__URL", &url)]);
    fill_and_free(edge, &disk);
    cluster.stop();
}

/// Fills the disk, sees that everything is deferred and reads go on, makes room, and sees that it goes on without a restart.
fn fill_and_free(mut edge: Edge, disk: &Disk) {
    let items = || DOORS.iter().zip((1_000_000..).step_by(5).map(Item::new));
    let filler = disk.0.join("filler");
    // dd ends with an error when there is no room left, which is the point
    let of = format!("of={}", filler.display());
    let _ =
        Command::new("dd").args(["if=/dev/zero", "bs=4k", "status=none", &of]).stderr(Stdio::null()).status();
    let mut deferred = 0;
    for number in 0..200 {
        // what is left of allocated pages may still take a few
        for (door, item) in items() {
            let item = Item::new(item.number + 1000 * number);
            let told = door.submit(&edge, &item).unwrap_or_else(|| panic!("{}: no answer", door.name));
            match (door.verdict)(&told) {
                Verdict::Accepted => assert_eq!((door.found)(&edge, &item), 1, "{}", door.name),
                Verdict::Deferred => deferred += 1,
                Verdict::Rejected => panic!("{}: a full disk is not the sender's fault: {told:?}", door.name),
            }
        }
        if deferred > 20 {
            break;
        }
    }
    assert!(deferred > 20, "the disk is full");
    assert_eq!(http::send(edge.http, "GET", "/fhir/Patient?_count=1", &[], "").status, 200, "reads go on");
    assert_eq!(http::send(edge.http, "GET", "/livez", &[], "").status, 200);
    std::fs::remove_file(&filler).unwrap();
    edge.wait("accepting again", |edge| {
        let item = Item::new(9_000_001);
        DOORS.iter().all(|door| door.accepts(door.submit(edge, &item).as_ref()))
    });
}

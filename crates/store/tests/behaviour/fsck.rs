//! What `fsck` finds, and what it mends.

use hilum_store::{Checks, Store, fsck};
use serde_json::json;

use crate::engine::{config, execute, submit};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fsck_names_what_is_wrong_and_makes_the_index_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(config(dir.path())).await.unwrap();
    store.control().put_site(serde_json::from_value(json!({ "id": "north" })).unwrap()).unwrap();
    store.control().put_site(serde_json::from_value(json!({ "id": "south" })).unwrap()).unwrap();
    let site = store.control().site("north").unwrap().unwrap();
    let other = store.control().site("south").unwrap().unwrap();
    for number in 1..=2 {
        submit(&store, &site, number).await;
        submit(&store, &other, number).await;
    }
    let check = |checks| {
        let config = config(dir.path());
        // it blocks, and its connections are served elsewhere
        let mut all = std::thread::spawn(move || fsck(&config, checks).unwrap()).join().unwrap();
        assert_eq!((all[0].site.as_str(), all[1].site.as_str()), ("north", "south"));
        assert_eq!(all[1].faults, Vec::<String>::new(), "the other site is sound");
        assert_eq!((all[0].resources, all[1].versions, all[1].blobs), (2, 2, 2));
        all.remove(0).faults
    };
    assert_eq!(check(Checks::default()), Vec::<String>::new(), "beside a running edge");
    store.close().await;
    drop(store);

    execute(dir.path(), "north", "DELETE FROM ix_str WHERE rid=1; UPDATE ix SET key=key+1 WHERE rid=2");
    let faults = check(Checks::default());
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert_eq!(check(Checks { rebuild: true, deep: true }), Vec::<String>::new());

    execute(dir.path(), "north", "DELETE FROM version WHERE vid=1; DELETE FROM submission WHERE seq=2");
    let blobs = dir.path().join("sites/north/blobs");
    let mut files = Vec::new();
    for folder in std::fs::read_dir(&blobs).unwrap().flatten() {
        files.extend(std::fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.path()));
    }
    files.iter().for_each(|file| std::fs::write(file, b"other").unwrap());
    let faults = check(Checks { deep: true, rebuild: false }).join("\n");
    for wanted in ["resource 1:", "without their current version", "not those its name stands for"] {
        assert!(faults.contains(wanted), "{wanted}: {faults}");
    }
    files.iter().for_each(|file| std::fs::remove_file(file).unwrap());
    assert!(check(Checks::default()).join("\n").contains("missing"));
}

//! Carries the write-ahead log of a site over into its database, beside the commits and not in one.
//!
//! A commit that finds the log long wakes a thread with a connection of its own, and goes on. The thread carries over what is there while commits
//! are added (`PASSIVE`), then the little that was added meanwhile while the writer waits (`RESTART`), so that the log begins again at its
//! front. Its file keeps its size: overwriting is faster than growing.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use rusqlite::Connection;

use crate::Error;
use crate::gate::{Duty, Gate};

/// Readers may hold up the second step, and with it the writer, for so long; then it is left for the next time.
const READERS_PATIENCE: Duration = Duration::from_millis(100);
/// Not more often, while readers hold it up.
const PAUSE: Duration = Duration::from_millis(200);

/// The thread that carries over the log of one site.
pub(super) struct Checkpoints {
    wake: SyncSender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Checkpoints {
    pub(super) fn start(site: &str, path: &Path, gate: &Arc<Gate>) -> Result<Self, Error> {
        let (wake, woken) = sync_channel(1);
        let (path, name) = (path.to_owned(), format!("log-{site}"));
        let duty = gate.watch(&name);
        let thread = std::thread::Builder::new().name(name);
        let thread = thread.spawn(move || run(&path, &woken, duty))?;
        Ok(Self { wake, thread })
    }

    /// Lets commits on a connection wake the thread once the log has `pages_max` pages; the connection carries over nothing itself any more.
    pub(super) fn serve(&self, connection: &mut Connection, pages_max: u32) -> Result<(), Error> {
        let wake = self.wake.clone();
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages: i32| {
            if u32::try_from(pages).is_ok_and(|pages| pages >= pages_max) {
                // it is awake already when this fails
                let _ = wake.try_send(());
            }
            Ok(())
        }))?;
        Ok(())
    }

    /// Ends the thread, when no connection that it serves is open any more. Blocks.
    pub(super) fn close(self) {
        drop(self.wake);
        let _ = self.thread.join();
    }
}

fn run(path: &Path, woken: &Receiver<()>, duty: Duty) {
    let mut connection = None;
    while woken.recv().is_ok() {
        duty.begin();
        let carried = carry_over(path, &mut connection);
        duty.rest();
        if let Err(error) = carried {
            // the log grows until it succeeds; what is committed is safe in it
            metrics::counter!("hilum_store_checkpoints_failed_total").increment(1);
            tracing::warn!(%error, "the log of a database was not carried over; it is tried again");
            connection = None;
        }
        std::thread::sleep(PAUSE);
    }
    duty.end();
}

fn carry_over(path: &Path, kept: &mut Option<Connection>) -> Result<(), Error> {
    let connection = match kept {
        Some(connection) => connection,
        none => {
            let connection = Connection::open(path)?;
            connection.busy_timeout(READERS_PATIENCE)?;
            none.insert(connection)
        }
    };
    for step in ["PRAGMA wal_checkpoint(PASSIVE)", "PRAGMA wal_checkpoint(RESTART)"] {
        connection.query_row(step, [], |_| Ok(()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const PAGES_MAX: u32 = 100;

    #[test]
    fn a_log_that_grew_long_begins_again_while_commits_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("site.db");
        let mut connection = super::super::writer::open(&path, 1 << 20).unwrap();
        connection.execute_batch("PRAGMA synchronous=OFF; CREATE TABLE t(v BLOB)").unwrap();
        let checkpoints = Checkpoints::start("a", &path, &crate::Gates::default().gate("site a")).unwrap();
        checkpoints.serve(&mut connection, PAGES_MAX).unwrap();
        let (until, mut rows) = (Instant::now() + Duration::from_secs(60), 0);
        let log = dir.path().join("site.db-wal");
        // the first bytes of the log change when it begins again: its header has a new salt
        let salt = || std::fs::read(&log).map(|bytes| bytes[16..24].to_vec()).unwrap();
        let mut salts = std::collections::BTreeSet::new();
        while salts.len() < 3 {
            assert!(Instant::now() < until, "the log never began again");
            connection.execute("INSERT INTO t VALUES(randomblob(20000))", []).unwrap();
            salts.insert(salt());
            rows += 1;
        }
        drop(connection);
        checkpoints.close();
        let connection = Connection::open(&path).unwrap();
        let kept: i64 = connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(kept, rows);
    }
}

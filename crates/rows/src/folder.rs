//! The data folder of an edge, whatever the engine.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use fs4::fs_std::FileExt;

use crate::Error;

/// Holds a second edge out of the data folder.
const LOCK_FILE: &str = "lock";

/// Takes the folder for this edge alone, until the file is dropped.
///
/// # Errors
/// `Unavailable` when another edge has it.
pub fn lock(data_dir: &Path) -> Result<File, Error> {
    let file = File::create(data_dir.join(LOCK_FILE))?;
    match file.try_lock_exclusive() {
        Ok(true) => Ok(file),
        _ => Err(Error::unavailable(format!(
            "another edge uses {}; stop it or choose another [node] data",
            data_dir.display()
        ))),
    }
}

/// Writes, syncs, reads back and removes a file with handles of its own.
///
/// # Errors
/// `Full`, `Unavailable`.
pub fn probe(dir: &Path) -> Result<(), Error> {
    let path = dir.join(".probe");
    let probed = (|| {
        let mut file = File::create(&path)?;
        file.write_all(b"hilum")?;
        file.sync_all()?;
        drop(file);
        if std::fs::read(&path)? == b"hilum" {
            Ok(())
        } else {
            Err(std::io::Error::other("read back differs"))
        }
    })();
    let _ = std::fs::remove_file(&path);
    probed.map_err(Error::from)
}

/// Free space where a folder lies; as much as there can be when the system does not say.
pub fn free_bytes(folder: &Path) -> u64 {
    fs4::available_space(folder).unwrap_or(u64::MAX)
}

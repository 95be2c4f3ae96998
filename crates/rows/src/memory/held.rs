//! What is held as long as somebody has a handle of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::tables::Tables;
use crate::{Error, Kept};

/// What an engine in memory holds. Who opens a store with the same handle again finds what was written before.
#[derive(Clone, Default)]
pub struct Memory {
    pub(super) shared: Arc<Shared>,
}

#[derive(Default)]
pub(super) struct Shared {
    pub(super) sites: Mutex<BTreeMap<String, Arc<Site>>>,
    pub(super) control: Mutex<Control>,
}

/// Settings and keys, and how often they were changed.
#[derive(Default)]
pub(super) struct Control {
    pub(super) kept: Kept,
    pub(super) changes: u64,
}

/// The rows of a site.
pub(super) struct Site {
    pub(super) tables: Mutex<Tables>,
    /// Held by the one transaction that writes.
    pub(super) writing: Mutex<()>,
    pub(super) newest: watch::Sender<u64>,
    /// Key of the cursors.
    pub(super) secret: [u8; 32],
}

impl Memory {
    /// Memory with nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// The rows of a site, made when it is not known.
    pub(super) fn site(&self, id: &str) -> Result<Arc<Site>, Error> {
        let mut sites = self.shared.sites.lock();
        if let Some(site) = sites.get(id) {
            return Ok(site.clone());
        }
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|e| Error::unavailable(format!("no randomness: {e}")))?;
        let newest = watch::Sender::new(0);
        let site = Site { tables: Mutex::default(), writing: Mutex::default(), newest, secret };
        Ok(sites.entry(id.to_owned()).or_insert(Arc::new(site)).clone())
    }
}

/// The same memory.
impl PartialEq for Memory {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl Eq for Memory {}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory")
    }
}

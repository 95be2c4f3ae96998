//! Site settings and API keys.

use super::held::Memory;
use crate::Error;
use crate::control::{ApiKey, ControlRows, Kept};

/// Settings and keys as one process has them open.
pub(crate) struct ControlMemory {
    memory: Memory,
    /// Changes it has heard of.
    known: Option<u64>,
}

impl ControlMemory {
    pub(crate) fn open(memory: &Memory) -> Self {
        Self { memory: memory.clone(), known: None }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Kept) -> T) -> T {
        let mut control = self.memory.shared.control.lock();
        control.changes += 1;
        change(&mut control.kept)
    }
}

impl ControlRows for ControlMemory {
    fn has_changed(&mut self) -> Result<bool, Error> {
        let changes = Some(self.memory.shared.control.lock().changes);
        Ok(std::mem::replace(&mut self.known, changes) != changes)
    }

    fn kept(&self) -> Result<Kept, Error> {
        Ok(self.memory.shared.control.lock().kept.clone())
    }

    fn put_site(&self, id: &str, settings: &str) -> Result<(), Error> {
        let is_known = |text: &String| crate::control::zone_of(text).is_some_and(|(known, _)| known == id);
        self.change(|kept| {
            kept.sites.retain(|text| !is_known(text));
            kept.sites.push(settings.to_owned());
        });
        Ok(())
    }

    fn add_key(&self, key: &ApiKey, secret_sha256: &[u8; 32]) -> Result<(), Error> {
        self.change(|kept| kept.keys.push((key.clone(), *secret_sha256)));
        Ok(())
    }

    fn revoke_key(&self, key_id: &str, seconds: i64) -> Result<bool, Error> {
        Ok(self.change(|kept| {
            let key = kept.keys.iter_mut().find(|(key, _)| key.key_id == key_id);
            key.map(|(key, _)| key.revoked.get_or_insert(seconds)).is_some()
        }))
    }

    fn stamp(&mut self, key_id: &str, seconds: i64) {
        let mut control = self.memory.shared.control.lock();
        let keys = control.kept.keys.iter_mut();
        keys.filter(|(key, _)| key.key_id == key_id).for_each(|(key, _)| key.last_used = Some(seconds));
    }

    /// They are written at once.
    fn uses(&mut self) -> Vec<(String, i64)> {
        Vec::new()
    }
}

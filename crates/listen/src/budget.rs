//! Bytes that all connections of a listener hold together: many senders of large things at once must not use up the memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What the connections of one listener may hold together.
#[derive(Clone, Debug)]
pub struct Budget {
    held: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// What one of them holds; given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// A budget of which nothing is held.
    pub fn new(bytes_max: usize) -> Self {
        Self { held: Arc::default(), bytes_max }
    }

    /// Bytes that may be held together.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// A share that holds nothing.
    pub fn share(&self) -> Share {
        Share { budget: self.clone(), bytes: 0 }
    }
}

impl Share {
    /// Notes that `bytes` are held now. False when all shares together are more than the budget: then its holder gives up.
    #[must_use]
    pub fn hold(&mut self, bytes: usize) -> bool {
        let before = self.budget.held.fetch_add(bytes, Ordering::Relaxed);
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
        let held = before + bytes - self.bytes;
        self.bytes = bytes;
        held <= self.budget.bytes_max
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_gives_back_another_may_hold() {
        let budget = Budget::new(100);
        let (mut first, mut second) = (budget.share(), budget.share());
        assert!(first.hold(60) && !second.hold(60));
        drop(second);
        let mut third = budget.share();
        assert!(third.hold(40) && first.hold(30) && third.hold(70));
        assert!(!first.hold(31) && first.hold(30));
    }
}

//! The outbox to destinations and subscribers.

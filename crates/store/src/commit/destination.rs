//! The destination of a Subscription: who asked for it and in which state it is, written and removed in the transaction of the Subscription itself.
//!
//! So there is no moment in which one is there without the other, and a Subscription that was deleted and is made again begins anew.

use hilum_fhir::Resource;
use serde_json::Value;

use super::apply::Apply;
use super::plan::{Executed, Plan};
use crate::{Destination, DestinationState, Error, Original, OriginalKind};

impl Apply<'_> {
    /// Notes what the Subscriptions that were written say of their destinations.
    pub(super) fn note_destinations(
        &mut self,
        plan: &Plan,
        executed: &Executed,
        original: &Original,
    ) -> Result<(), Error> {
        for (id, content) in plan.subscriptions(executed) {
            let reference = format!("Subscription/{id}");
            match content {
                None => self.db.remove_destination(&reference)?,
                Some(subscription) => self.note_destination(reference, subscription, original)?,
            }
        }
        Ok(())
    }

    /// What a client writes is from now on done for that client. What the deliverer writes changes the state alone.
    fn note_destination(
        &mut self,
        reference: String,
        subscription: &Resource,
        original: &Original,
    ) -> Result<(), Error> {
        let text = |member: &str| subscription.get(member).and_then(Value::as_str);
        let state = DestinationState::from_code(text("status").unwrap_or_default());
        if original.kind == OriginalKind::Internal {
            return self.db.turn_destination(&reference, state, text("error"));
        }
        self.db.put_destination(&Destination {
            reference,
            // of a new one: what was written before is not sent
            cursor: self.counters.vid,
            next_number: 1,
            state,
            next_at: None,
            error: text("error").map(str::to_owned),
            owner: original.identity.clone(),
        })
    }
}

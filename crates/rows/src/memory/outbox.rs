//! Destinations and their deliveries.

use std::sync::Arc;

use super::Session;
use super::tables::add;
use crate::face::{Outbox, WriteOutbox};
use crate::{Delivery, DeliveryState, Destination, DestinationState, Error};

/// Deliveries given up in one transaction.
const BEYOND_BATCH: usize = 500;

impl Outbox for Session {
    fn destinations(&self) -> Result<Vec<Destination>, Error> {
        Ok(self.tables.borrow().destinations.values().cloned().collect())
    }

    fn destination(&self, reference: &str) -> Result<Option<Destination>, Error> {
        Ok(self.tables.borrow().destinations.get(reference).cloned())
    }

    fn next_delivery(&self, destination: &str) -> Result<Option<Delivery>, Error> {
        Ok(self.to_send(destination).next())
    }

    fn beyond(&self, destination: &str, rows_max: u64, before: i64) -> Result<Vec<u64>, Error> {
        let tables = self.tables.borrow();
        let Some(next) = tables.destinations.get(destination).map(|to| to.next_number) else {
            return Ok(Vec::new());
        };
        let before = before.saturating_mul(1000);
        let is_beyond = |delivery: &Delivery| {
            let version = tables.versions.get(&delivery.position.cast_signed());
            delivery.number.saturating_add(rows_max) < next
                || version.is_some_and(|v| v.last_updated < before)
        };
        let beyond = self.to_send(destination).take(BEYOND_BATCH).take_while(is_beyond);
        Ok(beyond.map(|delivery| delivery.number).collect())
    }

    /// One edge has the memory.
    fn check_deliverer(&self, _: &[(String, i64)]) -> Result<(), Error> {
        Ok(())
    }
}

impl WriteOutbox for Session {
    fn put_destination(&self, destination: &Destination) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        let destinations = Arc::make_mut(&mut tables.destinations);
        let known = destinations.get(&destination.reference);
        let is_on_again = |known: &Destination| {
            known.state == DestinationState::Off && destination.state != DestinationState::Off
        };
        let (cursor, next_number) = match known {
            None => (destination.cursor, destination.next_number),
            Some(known) if is_on_again(known) => (destination.cursor, known.next_number),
            Some(known) => (known.cursor, known.next_number),
        };
        let reference = destination.reference.clone();
        destinations.insert(reference, Destination { cursor, next_number, ..destination.clone() });
        Ok(())
    }

    fn turn_destination(
        &self,
        reference: &str,
        state: DestinationState,
        error: Option<&str>,
    ) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        if let Some(known) = Arc::make_mut(&mut tables.destinations).get_mut(reference) {
            (known.state, known.error) = (state, error.map(str::to_owned));
        }
        Ok(())
    }

    fn remove_destination(&self, reference: &str) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        Arc::make_mut(&mut tables.destinations).remove(reference);
        Arc::make_mut(&mut tables.deliveries).retain(|(of, _), _| of != reference);
        Ok(())
    }

    fn matched(&self, matches: &[(String, u64)], cursors: &[(String, u64)]) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        let destinations = Arc::make_mut(&mut tables.destinations);
        for (reference, position) in matches {
            let Some(to) = destinations.get_mut(reference).filter(|to| to.cursor < *position) else {
                continue;
            };
            let delivery = Delivery {
                destination: reference.clone(),
                number: to.next_number,
                position: *position,
                state: DeliveryState::Queued,
                attempts: 0,
                next_at: None,
                first_attempt_at: None,
                error: None,
            };
            add(&mut tables.deliveries, (reference.clone(), to.next_number), delivery)?;
            to.next_number += 1;
        }
        for (reference, position) in cursors {
            if let Some(to) = destinations.get_mut(reference) {
                to.cursor = to.cursor.max(*position);
            }
        }
        Ok(())
    }

    fn give_up(&self, destination: &str, last: u64, reason: &str) -> Result<(), Error> {
        let given_up: Vec<Delivery> =
            self.to_send(destination).take_while(|delivery| delivery.number <= last).collect();
        for delivery in given_up {
            let error = Some(reason.to_owned());
            self.mark(&Delivery { state: DeliveryState::Dead, next_at: None, error, ..delivery })?;
        }
        Ok(())
    }

    fn mark(&self, delivery: &Delivery) -> Result<(), Error> {
        let tables = &mut *self.tables.borrow_mut();
        let key = (delivery.destination.clone(), delivery.number);
        if let Some(known) =
            Arc::make_mut(&mut tables.deliveries).get_mut(&key).filter(|known| is_open(known))
        {
            *known = Delivery { position: known.position, ..delivery.clone() };
        }
        Ok(())
    }
}

/// Whether it is neither delivered nor dead.
fn is_open(delivery: &Delivery) -> bool {
    !matches!(delivery.state, DeliveryState::Delivered | DeliveryState::Dead)
}

impl Session {
    /// The deliveries of a destination that are neither delivered nor dead, in order of number.
    fn to_send(&self, destination: &str) -> impl Iterator<Item = Delivery> {
        let deliveries = self.tables.borrow().deliveries.clone();
        let of = (destination.to_owned(), 0)..=(destination.to_owned(), u64::MAX);
        let waiting: Vec<Delivery> = deliveries
            .range(of)
            .map(|(_, delivery)| delivery)
            .filter(|delivery| is_open(delivery))
            .cloned()
            .collect();
        waiting.into_iter()
    }
}

//! What the last commits touched.
//!
//! A plan rests on look-ups that were made before the transaction. Between the two others commit, nearly always about other patients: of a
//! look-up whose rows nobody touched meanwhile the answer is known without asking the database again. Only where one process writes:
//! another edge's commits are not seen here.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use hilum_fhir::ResourceType;
use hilum_rows::keys::Key;
use xxhash_rust::xxh3::xxh3_64;

/// Things kept in mind: those of about 400 messages, in less than 1 MiB a site.
const THINGS_MAX: usize = 20_000;

/// A row or an index key; two that share a hash are looked at once too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Thing(u64);

impl Thing {
    /// The head of a resource.
    pub(super) fn row(rid: i64) -> Self {
        Self(xxh3_64(&rid.to_le_bytes()))
    }

    /// A resource that may not be there.
    pub(super) fn named(of: ResourceType, id: &str) -> Self {
        Self(xxh3_64(format!("{of}/{id}").as_bytes()))
    }

    /// What has an index key, whatever its system.
    pub(super) fn key(key: Key) -> Self {
        Self::value(key.value)
    }

    pub(super) fn value(value: i64) -> Self {
        Self(value.cast_unsigned())
    }
}

/// Takes the number of a thing as its hash: it is one.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The feed positions of the last commits, and what each touched.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    /// All positions behind this one and up to `until` are known.
    since: u64,
    until: u64,
    /// The last position that touched a thing.
    last: HashMap<Thing, u64, BuildHasherDefault<AsItIs>>,
    /// The same in order, to forget the oldest.
    order: VecDeque<(u64, Thing)>,
}

impl Recent {
    /// A job begins at a position. Where it does not follow what is known (a transaction was rolled back), all is forgotten.
    pub(super) fn begin(&mut self, position: u64) {
        if position != self.until {
            *self = Self { since: position, until: position, ..Self::default() };
        }
    }

    /// The next position is taken.
    pub(super) fn advance(&mut self, position: u64) {
        self.until = position;
    }

    /// The job that took the last position touches something.
    pub(super) fn touch(&mut self, thing: Thing) {
        self.last.insert(thing, self.until);
        self.order.push_back((self.until, thing));
        if self.order.len() > THINGS_MAX
            && let Some((position, thing)) = self.order.pop_front()
        {
            self.since = position;
            if self.last.get(&thing) == Some(&position) {
                self.last.remove(&thing);
            }
        }
    }

    /// Whether everything is known that was touched between two positions.
    pub(super) fn knows(&self, from: u64, to: u64) -> bool {
        self.since <= from && to == self.until
    }

    /// Whether something was touched after a position.
    pub(super) fn is_touched(&self, thing: Thing, after: u64) -> bool {
        self.last.get(&thing).is_some_and(|last| *last > after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_touched_is_known_since_the_first_job() {
        let mut recent = Recent::default();
        recent.begin(7);
        assert!(recent.knows(7, 7) && !recent.knows(6, 7), "what was before is not known");
        recent.advance(8);
        recent.touch(Thing::row(1));
        recent.begin(8);
        recent.advance(9);
        recent.touch(Thing::row(2));
        assert!(recent.knows(7, 9));
        assert!(recent.is_touched(Thing::row(1), 7) && !recent.is_touched(Thing::row(1), 8));
        assert!(recent.is_touched(Thing::row(2), 8) && !recent.is_touched(Thing::row(3), 7));
    }

    #[test]
    fn after_a_rollback_nothing_is_known() {
        let mut recent = Recent::default();
        recent.begin(0);
        recent.advance(1);
        recent.touch(Thing::row(1));
        recent.begin(0);
        recent.advance(1);
        assert!(!recent.is_touched(Thing::row(1), 0) && recent.knows(0, 1));
        recent.begin(5);
        assert!(!recent.knows(1, 5), "a position that was not seen here");
    }

    #[test]
    fn the_oldest_is_forgotten_and_then_not_known() {
        let mut recent = Recent::default();
        recent.begin(0);
        for position in 1..=THINGS_MAX as u64 + 1 {
            recent.advance(position);
            recent.touch(Thing::row(1));
        }
        let newest = THINGS_MAX as u64 + 1;
        assert!(!recent.knows(0, newest) && recent.knows(1, newest));
        assert!(recent.is_touched(Thing::row(1), newest - 1), "it was touched again later");
    }
}

//! When keys expire, in order.

use std::{collections::BTreeMap, ops::Bound};

use raft_core::Timestamp;

/// The deadlines of all keys that have one. It names keys by their hashes, so a key costs it no copy.
///
/// Invariant: (deadline, hash) is counted as often as there are records with that deadline and key hash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Deadlines {
    /// Nearly always one; two keys may share a hash.
    records: BTreeMap<(Timestamp, u64), u32>,
    count: usize,
}

impl Deadlines {
    pub(super) fn insert(&mut self, deadline: Timestamp, hash: u64) {
        *self.records.entry((deadline, hash)).or_default() += 1;
        self.count += 1;
    }

    pub(super) fn remove(&mut self, deadline: Timestamp, hash: u64) {
        let count = self.records.get_mut(&(deadline, hash));
        let count = count.expect("every record with a deadline was counted when it was stored");
        *count -= 1;
        if *count == 0 {
            self.records.remove(&(deadline, hash));
        }
        self.count -= 1;
    }

    pub(super) fn clear(&mut self) {
        *self = Deadlines::default();
    }

    /// The first that comes, with the hash of its key.
    pub(super) fn first(&self) -> Option<(Timestamp, u64)> {
        self.records.first_key_value().map(|(first, _)| *first)
    }

    /// The first that comes after `time`.
    pub(super) fn first_after(&self, time: Timestamp) -> Option<Timestamp> {
        let later = (Bound::Excluded((time, u64::MAX)), Bound::Unbounded);
        self.records.range(later).next().map(|((deadline, _), _)| *deadline)
    }

    /// How many keys are due at `now`.
    pub(super) fn due(&self, now: Timestamp) -> usize {
        self.records.range(..=(now, u64::MAX)).map(|(_, count)| *count as usize).sum()
    }

    /// How many keys have a deadline.
    pub(super) fn len(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_of_one_hash_are_counted_apart() {
        let mut deadlines = Deadlines::default();
        deadlines.insert(Timestamp(5), 1);
        deadlines.insert(Timestamp(5), 1);
        deadlines.insert(Timestamp(9), 2);
        deadlines.remove(Timestamp(5), 1);
        assert_eq!(deadlines.first(), Some((Timestamp(5), 1)));
        let after = |time| deadlines.first_after(Timestamp(time));
        assert_eq!([after(4), after(5), after(9)], [Some(Timestamp(5)), Some(Timestamp(9)), None]);
        assert_eq!((deadlines.due(Timestamp(5)), deadlines.due(Timestamp(4)), deadlines.len()), (1, 0, 2));
        deadlines.remove(Timestamp(5), 1);
        assert_eq!(deadlines.first(), Some((Timestamp(9), 2)));
    }
}

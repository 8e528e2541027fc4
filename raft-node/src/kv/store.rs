//! The keys and their records, in banks that a snapshot can share.

use bytes::Bytes;
use raft_core::{LogIndex, Timestamp};

use super::{
    bank::{Bank, SHARDS, SHARDS_PER_BANK, TABLE_BYTES_PER_KEY, shard_of},
    deadlines::Deadlines,
    hash::hash,
    record::{Draft, Meta, Record, View},
};

/// All keys.
///
/// - A key lies in the shard that the upper bits of its hash name, and a shard in the bank that those of them name.
/// - Invariant: `deadlines` counts exactly the records that have a deadline; `keys` counts all.
///
/// Reads take the time to judge deadlines by: a key that is due is not seen, whether or not it was removed yet.
#[derive(Debug)]
pub(super) struct Store {
    banks: Vec<Bank>,
    deadlines: Deadlines,
    keys: usize,
}

impl Store {
    pub(super) fn new() -> Store {
        Store { banks: empty_banks(LogIndex::ZERO), deadlines: Deadlines::default(), keys: 0 }
    }

    /// The record of `key`, unless it is due at `now`.
    pub(super) fn find(&self, key: &[u8], now: Timestamp) -> Option<Record<'_>> {
        let hash = hash(key);
        self.bank(hash).find(hash, key).filter(|record| !record.view().meta.is_due(now))
    }

    /// The value of `key` and what is known about it, unless it is due at `now`.
    pub(super) fn get(&self, key: &[u8], now: Timestamp) -> Option<View<'_>> {
        self.find(key, now).map(Record::view)
    }

    /// The value of `key` as bytes of their own, unless it is due at `now`.
    pub(super) fn value(&self, key: &[u8], now: Timestamp) -> Option<Bytes> {
        self.find(key, now).map(Record::value_bytes)
    }

    /// Sets the value of `key`, given in parts, and its deadline.
    pub(super) fn put(&mut self, key: &[u8], meta: Meta, value: &[&[u8]]) {
        let hash = hash(key);
        let before = self.bank_mut(hash).put(hash, &Draft { key, meta, value });
        if before.is_none() {
            self.keys += 1;
        }
        let old = before.and_then(|before| before.deadline);
        if old != meta.deadline {
            if let Some(old) = old {
                self.deadlines.remove(old, hash);
            }
            if let Some(deadline) = meta.deadline {
                self.deadlines.insert(deadline, hash);
            }
        }
    }

    /// Gives an existing key another deadline, or none.
    pub(super) fn set_meta(&mut self, key: &[u8], meta: Meta) {
        if let Some(value) = self.find(key, Timestamp(0)).map(Record::value_bytes) {
            self.put(key, meta, &[&value]);
        }
    }

    /// Removes `key`, due or not, as the entry `index` says. Returns whether it was there.
    pub(super) fn remove(&mut self, key: &[u8], index: LogIndex) -> bool {
        let hash = hash(key);
        let removed = self.bank_mut(hash).remove(hash, |record| record.key() == key, index);
        if let Some(meta) = removed {
            self.forget(meta, hash);
        }
        removed.is_some()
    }

    /// Removes up to `count` keys that are due at `now`, the earliest first.
    pub(super) fn remove_due(&mut self, now: Timestamp, count: usize, index: LogIndex) {
        for _ in 0..count {
            let Some((deadline, hash)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now)
            else {
                return;
            };
            // Two keys may share a hash: the one with this deadline is meant, and if both have it both are due.
            let wanted = |record: Record<'_>| {
                let view = record.view();
                view.meta.deadline == Some(deadline) && super::hash::hash(view.key) == hash
            };
            let removed = self.bank_mut(hash).remove(hash, wanted, index);
            self.forget(removed.expect("every deadline has its record"), hash);
        }
    }

    /// Removes `key` if it is due at `now`.
    pub(super) fn remove_if_due(&mut self, key: &[u8], now: Timestamp, index: LogIndex) {
        let hash = hash(key);
        if self.bank(hash).find(hash, key).is_some_and(|record| record.view().meta.is_due(now)) {
            self.remove(key, index);
        }
    }

    /// Removes everything.
    pub(super) fn clear(&mut self, index: LogIndex) {
        self.banks = empty_banks(index);
        self.deadlines.clear();
        self.keys = 0;
    }

    /// The entry that changed `key` last. For a key that is not there: the last one that removed any key of its shard,
    /// which is never before the one that removed this key.
    pub(super) fn modification_index(&self, key: &[u8], now: Timestamp) -> LogIndex {
        let hash = hash(key);
        match self.bank(hash).find(hash, key).map(|record| record.view().meta) {
            Some(meta) if !meta.is_due(now) => meta.modified,
            Some(_) | None => self.bank(hash).deleted(shard_of(hash)),
        }
    }

    /// The banks as they are now. They stay so: later changes are made to copies.
    pub(super) fn share(&self) -> Vec<Bank> {
        self.banks.clone()
    }

    /// The keys of a shard in the order of their hashes.
    pub(super) fn sorted(&self, shard: usize) -> Vec<(u64, Record<'_>)> {
        self.banks[shard / SHARDS_PER_BANK].sorted(shard)
    }

    /// A number that is the same for the same keys of a shard.
    pub(super) fn fingerprint(&self, shard: usize) -> u64 {
        self.banks[shard / SHARDS_PER_BANK].fingerprint(shard)
    }

    /// Sets the deletion index of a shard, when a snapshot is restored.
    pub(super) fn restore_deleted(&mut self, shard: usize, deleted: LogIndex) {
        self.banks[shard / SHARDS_PER_BANK].restore_deleted(shard, deleted);
    }

    /// Takes over a record of a snapshot. Returns false if its key is there already.
    pub(super) fn restore_record(&mut self, view: View<'_>) -> bool {
        let hash = hash(view.key);
        if self.bank(hash).find(hash, view.key).is_some() {
            return false;
        }
        self.put(view.key, view.meta, &[view.value]);
        true
    }

    /// How many keys are seen at `now`.
    pub(super) fn len(&self, now: Timestamp) -> usize {
        self.keys - self.deadlines.due(now)
    }

    /// How many keys have a deadline.
    pub(super) fn expiring(&self) -> usize {
        self.deadlines.len()
    }

    /// The memory of all records and of the tables that find them.
    pub(super) fn size_bytes(&self) -> usize {
        self.banks.iter().map(Bank::used_bytes).sum::<usize>()
            + SHARDS * SHARD_BYTES
            + self.keys * TABLE_BYTES_PER_KEY
    }

    /// When the next key expires.
    pub(super) fn earliest_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(deadline, _)| deadline)
    }

    /// When the first key expires that is seen at `time`.
    pub(super) fn deadline_after(&self, time: Timestamp) -> Option<Timestamp> {
        self.deadlines.first_after(time)
    }

    fn forget(&mut self, meta: Meta, hash: u64) {
        self.keys -= 1;
        if let Some(deadline) = meta.deadline {
            self.deadlines.remove(deadline, hash);
        }
    }

    fn bank(&self, hash: u64) -> &Bank {
        &self.banks[shard_of(hash) / SHARDS_PER_BANK]
    }

    fn bank_mut(&mut self, hash: u64) -> &mut Bank {
        &mut self.banks[shard_of(hash) / SHARDS_PER_BANK]
    }
}

fn empty_banks(deleted: LogIndex) -> Vec<Bank> {
    (0..SHARDS / SHARDS_PER_BANK).map(|_| Bank::new(deleted)).collect()
}

/// A shard without keys: its table, its deletion index, reference counts and what points to it.
const SHARD_BYTES: usize = 72;

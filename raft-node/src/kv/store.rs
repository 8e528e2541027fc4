//! The keys and their records, in shards that a snapshot can share.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::{HashTable, hash_table::Entry};
use raft_core::{LogIndex, Timestamp};

use super::{
    deadlines::Deadlines,
    hash::hash,
    record::{Meta, Record, View},
};

/// All keys.
///
/// - A key lies in the shard that the upper bits of its hash name.
/// - Invariant: `deadlines` counts exactly the records that have a deadline; `keys` and `bytes` are the sums over all
///   shards.
/// - A shard that a view shares is copied before it is changed. Records are shared by the copy.
///
/// Reads take the time to judge deadlines by: a key that is due is not seen, whether or not it was removed yet.
#[derive(Debug)]
pub(super) struct Store {
    shards: Shards,
    deadlines: Deadlines,
    keys: usize,
    bytes: usize,
    /// Where records are put together.
    scratch: Vec<u8>,
}

/// The shards, in the order of the hash.
pub(super) type Shards = Vec<Arc<Shard>>;

impl Store {
    pub(super) fn new() -> Store {
        let shards = (0..SHARDS).map(|_| Arc::new(Shard::default())).collect();
        Store { shards, deadlines: Deadlines::default(), keys: 0, bytes: 0, scratch: Vec::new() }
    }

    /// The record of `key`, unless it is due at `now`.
    pub(super) fn find(&self, key: &[u8], now: Timestamp) -> Option<&Record> {
        let hash = hash(key);
        let record = self.shards[shard_of(hash)].find(hash, key)?;
        (!record.view().meta.is_due(now)).then_some(record)
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
        let shard = Arc::make_mut(&mut self.shards[shard_of(hash)]);
        match shard.records.entry(table_hash(hash), |record| record.key() == key, rehash) {
            Entry::Occupied(mut slot) => {
                let record = slot.get_mut();
                let (before, old) = (record.size_bytes(), record.view().meta.deadline);
                if !matches!(value, [value] if record.overwrite(key, meta, value)) {
                    *record = Record::new(key, meta, value, &mut self.scratch);
                }
                self.bytes = self.bytes - before + record.size_bytes();
                if old != meta.deadline {
                    if let Some(old) = old {
                        self.deadlines.remove(old, hash);
                    }
                    if let Some(deadline) = meta.deadline {
                        self.deadlines.insert(deadline, hash);
                    }
                }
            }
            Entry::Vacant(slot) => {
                let record = Record::new(key, meta, value, &mut self.scratch);
                self.bytes += record.size_bytes();
                self.keys += 1;
                slot.insert(record);
                if let Some(deadline) = meta.deadline {
                    self.deadlines.insert(deadline, hash);
                }
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
        let shard = &mut self.shards[shard_of(hash)];
        if shard.find(hash, key).is_none() {
            return false;
        }
        let shard = Arc::make_mut(shard);
        shard.deleted = index;
        let slot = shard.records.find_entry(table_hash(hash), |record| record.key() == key);
        let (record, _) = slot.expect("found a moment ago").remove();
        shard.give_back_memory();
        self.forget(&record, hash);
        true
    }

    /// Removes up to `count` keys that are due at `now`, the earliest first.
    pub(super) fn remove_due(&mut self, now: Timestamp, count: usize, index: LogIndex) {
        for _ in 0..count {
            let Some((deadline, hash)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now)
            else {
                return;
            };
            let shard = Arc::make_mut(&mut self.shards[shard_of(hash)]);
            // Two keys may share a hash: the one with this deadline is meant, and if both have it both are due.
            let wanted = |record: &Record| {
                let view = record.view();
                view.meta.deadline == Some(deadline) && super::hash::hash(view.key) == hash
            };
            shard.deleted = index;
            let slot = shard.records.find_entry(table_hash(hash), wanted);
            let (record, _) = slot.expect("every deadline has its record").remove();
            shard.give_back_memory();
            self.forget(&record, hash);
        }
    }

    /// Removes `key` if it is due at `now`.
    pub(super) fn remove_if_due(&mut self, key: &[u8], now: Timestamp, index: LogIndex) {
        let hash = hash(key);
        if self.shards[shard_of(hash)].find(hash, key).is_some_and(|record| record.view().meta.is_due(now)) {
            self.remove(key, index);
        }
    }

    /// Removes everything.
    pub(super) fn clear(&mut self, index: LogIndex) {
        for shard in &mut self.shards {
            *shard = Arc::new(Shard { deleted: index, ..Shard::default() });
        }
        self.deadlines.clear();
        self.keys = 0;
        self.bytes = 0;
    }

    /// The entry that changed `key` last. For a key that is not there: the last one that removed any key of its shard,
    /// which is never before the one that removed this key.
    pub(super) fn modification_index(&self, key: &[u8], now: Timestamp) -> LogIndex {
        let hash = hash(key);
        let shard = &self.shards[shard_of(hash)];
        match shard.find(hash, key).map(|record| record.view().meta) {
            Some(meta) if !meta.is_due(now) => meta.modified,
            Some(_) | None => shard.deleted,
        }
    }

    /// The shards as they are now. They stay so: later changes are made to copies.
    pub(super) fn share(&self) -> Shards {
        self.shards.clone()
    }

    /// The shards.
    pub(super) fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// Sets the deletion index of a shard, when a snapshot is restored.
    pub(super) fn restore_deleted(&mut self, shard: usize, deleted: LogIndex) {
        Arc::make_mut(&mut self.shards[shard]).deleted = deleted;
    }

    /// Takes over a record of a snapshot. Returns false if its key is there already.
    pub(super) fn restore_record(&mut self, record: Record) -> bool {
        let hash = hash(record.key());
        let shard = Arc::make_mut(&mut self.shards[shard_of(hash)]);
        if shard.find(hash, record.key()).is_some() {
            return false;
        }
        self.keys += 1;
        self.bytes += record.size_bytes();
        if let Some(deadline) = record.view().meta.deadline {
            self.deadlines.insert(deadline, hash);
        }
        shard.records.insert_unique(table_hash(hash), record, rehash);
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
        self.bytes + SHARDS * (size_of::<Shard>() + 2 * size_of::<usize>()) + self.keys * TABLE_BYTES_PER_KEY
    }

    /// When the next key expires.
    pub(super) fn earliest_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(deadline, _)| deadline)
    }

    fn forget(&mut self, record: &Record, hash: u64) {
        self.keys -= 1;
        self.bytes -= record.size_bytes();
        if let Some(deadline) = record.view().meta.deadline {
            self.deadlines.remove(deadline, hash);
        }
    }
}

/// The keys whose hashes begin with the same bits.
#[derive(Clone, Debug, Default)]
pub(super) struct Shard {
    records: HashTable<Record>,
    /// The last entry that removed a key from here.
    deleted: LogIndex,
}

impl Shard {
    fn find(&self, hash: u64, key: &[u8]) -> Option<&Record> {
        self.records.find(table_hash(hash), |record| record.key() == key)
    }

    /// Its records with the hashes of their keys, in that order.
    pub(super) fn sorted(&self) -> Vec<(u64, &Record)> {
        let mut records: Vec<_> = self.records.iter().map(|record| (hash(record.key()), record)).collect();
        records.sort_unstable_by(|(hash_a, a), (hash_b, b)| (hash_a, a.key()).cmp(&(hash_b, b.key())));
        records
    }

    /// A number that is the same for the same records, in whatever order they were stored.
    pub(super) fn fingerprint(&self) -> u64 {
        let records = self.records.iter().map(|record| hash(record.bytes()));
        records.fold(self.deleted.0, u64::wrapping_add)
    }

    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// The last entry that removed a key from here.
    pub(super) fn deleted(&self) -> LogIndex {
        self.deleted
    }

    fn give_back_memory(&mut self) {
        if self.records.capacity() > TABLE_KEPT && self.records.len() < self.records.capacity() / 8 {
            self.records.shrink_to(self.records.len() * 2, rehash);
        }
    }
}

/// How many shards there are. Part of the format: deletion indexes are kept by shard.
pub(super) const SHARDS: usize = 1 << SHARD_BITS;

/// The bits of a hash that name its shard, from the top.
pub(super) const SHARD_BITS: u32 = 12;

/// The shard a key of this hash lies in.
pub(super) const fn shard_of(hash: u64) -> usize {
    (hash >> (u64::BITS - SHARD_BITS)) as usize
}

/// The table inside a shard looks at the highest and the lowest bits. All keys of a shard share the highest bits of
/// the hash: they go where the table looks last.
const fn table_hash(hash: u64) -> u64 {
    hash.rotate_left(32)
}

fn rehash(record: &Record) -> u64 {
    table_hash(hash(record.key()))
}

/// A table of this capacity is not worth shrinking.
const TABLE_KEPT: usize = 56;

/// A pointer, a length and a tag, in a table that is about two thirds full.
const TABLE_BYTES_PER_KEY: usize = 26;

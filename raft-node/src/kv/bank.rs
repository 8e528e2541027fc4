//! Some of the shards with the memory their records lie in: what a snapshot shares and a write copies as little of as
//! it can.

use std::sync::Arc;

use hashbrown::HashTable;
use raft_core::LogIndex;

use super::{
    hash::hash,
    heap::{Heap, Place, room},
    record::{Draft, Meta, Record},
};

/// [`SHARDS_PER_BANK`] shards in a row.
///
/// A clone shares everything and stays as it is: later changes go to copies of the one shard's table and of the list of
/// pages, and to pages that the clone does not have.
#[derive(Clone, Debug)]
pub(super) struct Bank {
    shards: Vec<Arc<Shard>>,
    heap: Arc<Heap>,
}

impl Bank {
    /// A bank without keys, where `deleted` removed the last one of each shard.
    pub(super) fn new(deleted: LogIndex) -> Bank {
        let shard = || Arc::new(Shard { places: HashTable::new(), deleted });
        Bank { shards: (0..SHARDS_PER_BANK).map(|_| shard()).collect(), heap: Arc::default() }
    }

    /// The record of `key`.
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<Record<'_>> {
        let shard = &self.shards[shard_in_bank(hash)];
        shard.find(&self.heap, hash, |record| record.key() == key).map(|place| self.heap.record(place))
    }

    /// Writes a record for the key in `draft`. Returns what was known about the key before.
    pub(super) fn put(&mut self, hash: u64, draft: &Draft<'_>) -> Option<Meta> {
        let heap = Arc::make_mut(&mut self.heap);
        let shard = &mut self.shards[shard_in_bank(hash)];
        let found = shard.find(heap, hash, |record| record.key() == draft.key);
        let Some(place) = found else {
            let place = heap.write(draft);
            let rehash = |place: &Place| table_hash(super::hash::hash(heap.record(*place).key()));
            Arc::make_mut(shard).places.insert_unique(table_hash(hash), place, rehash);
            return None;
        };
        let before = heap.record(place).view().meta;
        if !heap.overwrite(place, draft) {
            heap.discard(place);
            Arc::make_mut(shard).relocate(hash, place, heap.write(draft));
            self.tidy();
        }
        Some(before)
    }

    /// Removes the record of this hash that is `wanted`, as the entry `index` says. Returns what was known about it.
    pub(super) fn remove(
        &mut self,
        hash: u64,
        wanted: impl Fn(Record<'_>) -> bool,
        index: LogIndex,
    ) -> Option<Meta> {
        let shard = &mut self.shards[shard_in_bank(hash)];
        let place = shard.find(&self.heap, hash, wanted)?;
        let heap = Arc::make_mut(&mut self.heap);
        let shard = Arc::make_mut(shard);
        let meta = heap.record(place).view().meta;
        shard.deleted = index;
        let slot = shard.places.find_entry(table_hash(hash), |other| *other == place);
        slot.expect("found a moment ago").remove();
        heap.discard(place);
        shard.give_back_memory(heap);
        self.tidy();
        Some(meta)
    }

    /// A shard's keys in the order of their hashes.
    pub(super) fn sorted(&self, shard: usize) -> Vec<(u64, Record<'_>)> {
        let places = self.shards[shard % SHARDS_PER_BANK].places.iter();
        let mut records: Vec<_> =
            places.map(|place| self.heap.record(*place)).map(|record| (hash(record.key()), record)).collect();
        records.sort_unstable_by(|(hash_a, a), (hash_b, b)| (hash_a, a.key()).cmp(&(hash_b, b.key())));
        records
    }

    /// The last entry that removed a key from a shard.
    pub(super) fn deleted(&self, shard: usize) -> LogIndex {
        self.shards[shard % SHARDS_PER_BANK].deleted
    }

    /// Sets the last entry that removed a key from a shard, when a snapshot is restored.
    pub(super) fn restore_deleted(&mut self, shard: usize, deleted: LogIndex) {
        Arc::make_mut(&mut self.shards[shard % SHARDS_PER_BANK]).deleted = deleted;
    }

    /// A number that is the same for the same records in a shard, in whatever order they were stored.
    pub(super) fn fingerprint(&self, shard: usize) -> u64 {
        let shard = &self.shards[shard % SHARDS_PER_BANK];
        let hashes = shard.places.iter().map(|place| hash(self.heap.record(*place).bytes()));
        hashes.fold(shard.deleted.0, u64::wrapping_add)
    }

    /// The memory of the pages.
    pub(super) fn used_bytes(&self) -> usize {
        self.heap.used_bytes()
    }

    /// Clears a page if holes take too much: at most one, so that no write takes long. A page gains more than a record
    /// that shares one can lose, so this keeps up.
    fn tidy(&mut self) {
        let Some(victim) = self.heap.victim() else { return };
        let heap = Arc::make_mut(&mut self.heap);
        for (place, record) in victim.records() {
            let hash = hash(record.key());
            let shard = &mut self.shards[shard_in_bank(hash)];
            if shard.places.find(table_hash(hash), |other| *other == place).is_some() {
                Arc::make_mut(shard).relocate(hash, place, heap.relocate(place, record));
            }
        }
    }
}

/// The keys whose hashes begin with the same bits.
#[derive(Clone, Debug)]
struct Shard {
    places: HashTable<Place>,
    /// The last entry that removed a key from here.
    deleted: LogIndex,
}

impl Shard {
    fn find(&self, heap: &Heap, hash: u64, wanted: impl Fn(Record<'_>) -> bool) -> Option<Place> {
        self.places.find(table_hash(hash), |place| wanted(heap.record(*place))).copied()
    }

    fn relocate(&mut self, hash: u64, from: Place, to: Place) {
        let place = self.places.find_mut(table_hash(hash), |place| *place == from);
        *place.expect("the table knows every record") = to;
    }

    fn give_back_memory(&mut self, heap: &Heap) {
        if self.places.capacity() > TABLE_KEPT && self.places.len() < self.places.capacity() / 8 {
            let rehash = |place: &Place| table_hash(hash(heap.record(*place).key()));
            self.places.shrink_to(self.places.len() * 2, rehash);
        }
    }
}

/// The memory a record takes: what it takes in its page, and its share of the table.
pub(super) fn record_bytes(record: Record<'_>) -> usize {
    room(record.bytes().len()) + TABLE_BYTES_PER_KEY
}

/// How many shards there are. Part of the format: deletion indexes are kept by shard.
pub(super) const SHARDS: usize = 1 << SHARD_BITS;

/// The bits of a hash that name its shard, from the top.
pub(super) const SHARD_BITS: u32 = 12;

/// How many shards lie in a bank. Of banks there are few, as each has a page that is partly empty.
pub(super) const SHARDS_PER_BANK: usize = 64;

/// The shard a key of this hash lies in.
pub(super) const fn shard_of(hash: u64) -> usize {
    (hash >> (u64::BITS - SHARD_BITS)) as usize
}

const fn shard_in_bank(hash: u64) -> usize {
    shard_of(hash) % SHARDS_PER_BANK
}

/// The table inside a shard looks at the highest and the lowest bits. All keys of a shard share the highest bits of
/// the hash: they go where the table looks last.
const fn table_hash(hash: u64) -> u64 {
    hash.rotate_left(32)
}

/// A table of this capacity is not worth shrinking.
const TABLE_KEPT: usize = 56;

/// A place and a tag, in a table that is about three fifths full.
pub(super) const TABLE_BYTES_PER_KEY: usize = 8;

//! One node's disk.
//!
//! The fault model: the log takes writes in order, each found whole after a crash or not at all (that a torn one is
//! cut is the log's business, not the core's). A write lives in three places, one after the other: in the queue of
//! the process, in the cache of the machine once the log has written it, and on the medium once the sync that
//! covers it has returned.
//!
//! - A crash of the *process* loses the queue. What was written stays, though the write that was under way may end
//!   early; the next start syncs what it finds before it believes it.
//! - A crash of the *machine* also loses what is not on the medium, from any write on to the last. It may come
//!   while a process that crashed before is still down.
//! - A sync takes as long as it likes; one that fails ends the process, and what of its writes is found later is
//!   open.
//! - A disk never reorders writes and never shows a part of one. What a sync has covered it forgets only where the
//!   storm damages the log: entries from some index on are gone, but the disk still tells the last one it had (D1). Never
//!   on so many nodes at once that what is committed is on no disk any more.
//!
//! Snapshot files are synced before the core hears of them; they count only once a write has marked them.

use std::collections::VecDeque;

use super::{
    confs::{Confs, InForce},
    coverage::{Coverage, Mark},
    random::{Random, mix},
};
use crate::{
    ConfState, Entry, EntryKind, HardState, Incarnation, LogId, LogIndex, NodeId, Recovered, SnapshotMeta,
    Term,
};
use crate::{TermRun, Write, WriteId};

/// The hash of a log up to an entry, given the hash up to the one before. Equal hashes: equal histories.
pub(super) fn chain(before: u64, entry: &Entry) -> u64 {
    let id = mix(entry.id.term.0.wrapping_mul(0x1_0000_0001).wrapping_add(entry.id.index.0));
    let content = mix(u64::from(entry.checksum) ^ (entry.kind as u64) << 32 ^ entry.time.0.rotate_left(40));
    mix(before ^ id).wrapping_add(content)
}

/// A log in memory, with the hash of the whole history up to each of its entries.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    start: LogId,
    start_hash: u64,
    items: VecDeque<(Entry, u64)>,
    confs: Confs,
}

impl Log {
    /// The entry before the first.
    pub(super) fn start(&self) -> LogId {
        self.start
    }

    pub(super) fn last(&self) -> LogId {
        self.items.back().map_or(self.start, |(entry, _)| entry.id)
    }

    pub(super) fn entry(&self, index: LogIndex) -> Option<&Entry> {
        self.item(index).map(|(entry, _)| entry)
    }

    /// The term at `index`, if the log still tells.
    pub(super) fn term(&self, index: LogIndex) -> Option<Term> {
        if index == self.start.index {
            Some(self.start.term)
        } else {
            self.entry(index).map(|entry| entry.id.term)
        }
    }

    /// The hash of the history up to and including `index`, if the log still tells.
    pub(super) fn hash(&self, index: LogIndex) -> Option<u64> {
        if index == self.start.index {
            Some(self.start_hash)
        } else {
            self.item(index).map(|(_, hash)| *hash)
        }
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.items.iter().map(|(entry, _)| entry)
    }

    pub(super) fn push(&mut self, entry: Entry) -> u64 {
        let before = self.items.back().map_or(self.start_hash, |(_, hash)| *hash);
        let hash = chain(before, &entry);
        self.confs.push(&entry);
        self.items.push_back((entry, hash));
        hash
    }

    pub(super) fn truncate_after(&mut self, index: LogIndex) {
        self.items.truncate(count(index.distance(self.start.index)));
        self.confs.truncate_after(index);
    }

    /// Starts anew behind a snapshot.
    pub(super) fn reset(&mut self, meta: &SnapshotMeta, hash: u64) {
        *self = Log {
            start: meta.last,
            start_hash: hash,
            items: VecDeque::new(),
            confs: Confs::of(meta.conf_id, meta.conf.clone()),
        };
    }

    /// The configuration in force.
    pub(super) fn conf(&self) -> &InForce {
        self.confs.at(LogIndex(u64::MAX))
    }

    /// The configuration that was in force at an index; the oldest one known before that.
    pub(super) fn conf_at(&self, index: LogIndex) -> &InForce {
        self.confs.at(index)
    }

    /// Drops every entry up to and including `index`.
    pub(super) fn compact(&mut self, index: LogIndex) {
        while let Some((entry, hash)) = self.items.front()
            && entry.id.index <= index
        {
            self.start = entry.id;
            self.start_hash = *hash;
            self.items.pop_front();
        }
    }

    fn item(&self, index: LogIndex) -> Option<&(Entry, u64)> {
        if index <= self.start.index {
            return None;
        }
        self.items.get(count(index.distance(self.start.index) - 1))
    }
}

/// A `u64` that counts things in memory.
pub(super) fn count(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// A snapshot file: what it says it stands for, and the state machine in it (whose hash is that of its history).
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) meta: SnapshotMeta,
    pub(super) hash: u64,
}

/// What a node would find if it started now.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    pub(super) hard_state: HardState,
    pub(super) snapshot: Snapshot,
    pub(super) log: Log,
    /// The log before it was damaged, until it has grown past that again.
    pub(super) lost: Option<Box<Log>>,
}

impl Image {
    /// The last entry that was acknowledged from here, if damage took it.
    pub(super) fn promised(&self) -> Option<LogId> {
        self.lost.as_ref().map(|lost| lost.last())
    }

    /// How far votes from here are bound (D1).
    pub(super) fn bound(&self) -> LogId {
        self.promised().max(Some(self.log.last())).unwrap_or_default()
    }

    /// Loses every entry behind a random one, if the log has any behind its snapshot.
    fn damage(&mut self, random: &mut Random) -> bool {
        let kept = self.log.start().index.max(self.snapshot.meta.last.index);
        let entries = self.log.last().index.distance(kept);
        if entries == 0 {
            return false;
        }
        let whole = self.log.clone();
        self.log.truncate_after(kept.plus(random.below(entries)));
        self.lost.get_or_insert_with(|| Box::new(whole));
        true
    }

    fn apply(&mut self, stored: Stored) {
        let Stored { write, snapshot } = stored;
        self.hard_state = write.hard_state;
        if let Some(index) = write.truncate_after {
            self.log.truncate_after(index);
        }
        if let (Some(mark), Some(snapshot)) = (&write.snapshot, snapshot) {
            if mark.resets_log {
                self.log.reset(&mark.meta, snapshot.hash);
            }
            self.snapshot = snapshot;
        }
        for entry in &write.entries {
            self.log.push(entry.clone());
        }
        let last = self.log.last();
        self.lost.take_if(|lost| last >= lost.last());
    }
}

/// A write and the snapshot file it marks.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) write: Write,
    pub(super) snapshot: Option<Snapshot>,
}

/// The disk and the process's log writer in front of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    /// Which data directory this is: another one after it was lost.
    pub(super) incarnation: Incarnation,
    /// On the medium.
    pub(super) durable: Image,
    /// Whom the node voted for in each term, as far as that ever was on the medium.
    pub(super) votes: Vec<(Term, NodeId)>,
    /// In the process.
    queue: Vec<Stored>,
    /// In the machine's cache, being synced if the process runs.
    cached: VecDeque<Stored>,
    /// Whether a sync is under way, and which.
    pub(super) syncing: bool,
    pub(super) sync: u32,
    /// Syncs end no earlier than this.
    pub(super) stalled_until: u64,
}

impl Disk {
    /// A disk that was founded with this configuration.
    pub(super) fn founded(conf: ConfState, incarnation: Incarnation) -> Disk {
        let mut disk = Disk::default();
        disk.durable.log.confs = Confs::of(LogId::ZERO, conf.clone());
        disk.durable.snapshot.meta.conf = conf;
        disk.incarnation = incarnation;
        disk
    }

    /// Another disk comes in the place of this one, whose syncs are void.
    pub(super) fn replace(&mut self, by: Disk) {
        *self = Disk { sync: self.sync + 1, ..by };
    }

    /// Hands a write to the log.
    pub(super) fn write(&mut self, stored: Stored) {
        self.queue.push(stored);
    }

    /// Starts a sync for what waits, `most` writes at most, unless one is under way.
    pub(super) fn begin_sync(&mut self, most: usize) -> Option<u32> {
        if self.syncing || self.queue.is_empty() {
            return None;
        }
        self.cached.extend(self.queue.drain(..most.min(self.queue.len())));
        self.syncing = true;
        self.sync += 1;
        Some(self.sync)
    }

    /// The sync returned: everything written is on the medium. The last write's number, and how many there were.
    pub(super) fn end_sync(&mut self) -> Option<(WriteId, usize)> {
        self.syncing = false;
        let writes = self.cached.len();
        let last = self.cached.back()?.write.id;
        self.keep(writes);
        Some((last, writes))
    }

    /// The process ends, its queue with it.
    pub(super) fn crash_process(&mut self, random: &mut Random, coverage: &mut Coverage) {
        self.queue.clear();
        // The write under way may have been cut short.
        if self.syncing && random.chance(300) {
            self.cached.truncate(random.index(self.cached.len() + 1));
        }
        if !self.cached.is_empty() {
            coverage.hit(Mark::UnsyncedKept);
        }
        self.stop();
    }

    /// The power goes: of what is not on the medium any prefix is left.
    pub(super) fn crash_machine(&mut self, random: &mut Random, coverage: &mut Coverage) {
        self.queue.clear();
        let waiting = self.cached.len();
        let kept = match random.below(3) {
            0 => 0,
            1 => waiting,
            _ => random.index(waiting + 1),
        };
        if kept < waiting {
            coverage.hit(if kept > 0 { Mark::UnsyncedPartlyLost } else { Mark::UnsyncedLost });
        }
        self.keep(kept);
        self.cached.clear();
        self.stop();
    }

    /// Whether a process that ended left something that only the cache holds.
    pub(super) fn has_cached(&self) -> bool {
        !self.cached.is_empty()
    }

    /// The process starts: it syncs what it finds, then reads it.
    pub(super) fn recover(&mut self, random: &mut Random) -> Recovered {
        self.keep(self.cached.len());
        let image = &self.durable;
        let log = &image.log;
        let mut term_runs: Vec<TermRun> = Vec::new();
        let mut confs = Vec::new();
        for entry in log.entries() {
            if term_runs.last().is_none_or(|run| run.term != entry.id.term) {
                term_runs.push(TermRun { first: entry.id.index, term: entry.id.term });
            }
            if entry.kind == EntryKind::ConfChange
                && let Ok(conf) = ConfState::decode(&entry.payload)
            {
                confs.push((entry.id, conf));
            }
        }
        // The last entry is always there; the rest may be left to be fetched.
        let least = usize::from(log.last().index > image.snapshot.meta.last.index);
        let tail_length = match random.below(3) {
            0 => 0,
            1 => log.items.len(),
            _ => random.index(log.items.len() + 1),
        };
        let tail_length = tail_length.max(least);
        Recovered {
            hard_state: image.hard_state,
            snapshot: image.snapshot.meta.clone(),
            log_start: log.start(),
            last: log.last().index,
            term_runs,
            confs,
            tail: log.entries().skip(log.items.len() - tail_length).cloned().collect(),
            promised: image.promised(),
            snapshot_lost: false,
        }
    }

    /// Damages the log while no process runs. Whether it had anything to lose: `node` does not start if it would find
    /// itself the only voter, as it may have been once (D1), so that is not done.
    pub(super) fn damage(&mut self, node: NodeId, random: &mut Random) -> bool {
        self.keep(self.cached.len());
        let whole = self.durable.clone();
        let damaged = self.durable.damage(random);
        let conf = &self.durable.log.conf().1;
        if damaged && !conf.is_joint() && conf.voters.iter().eq([&node]) {
            self.durable = whole;
            return false;
        }
        damaged
    }

    fn stop(&mut self) {
        self.syncing = false;
        self.sync += 1;
    }

    /// Moves the first `kept` cached writes to the medium.
    fn keep(&mut self, kept: usize) {
        for stored in self.cached.drain(..kept) {
            let HardState { term, vote, .. } = stored.write.hard_state;
            if let Some(vote) = vote
                && self.votes.last() != Some(&(term, vote))
            {
                self.votes.push((term, vote));
            }
            self.durable.apply(stored);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{Entries, Timestamp};

    fn entry(term: u64, index: u64) -> Entry {
        Entry {
            id: LogId::new(term, index),
            time: Timestamp(0),
            session: None,
            kind: EntryKind::Command,
            checksum: 0,
            payload: Bytes::new(),
        }
    }

    fn write(id: u64, truncate_after: Option<u64>, entries: Vec<Entry>) -> Stored {
        let write = Write {
            id: WriteId(id),
            hard_state: HardState { term: Term(id), vote: Some(NodeId(1)), commit: LogIndex::ZERO },
            truncate_after: truncate_after.map(LogIndex),
            snapshot: None,
            entries: Entries::from(entries),
        };
        Stored { write, snapshot: None }
    }

    #[test]
    fn a_crash_of_the_process_loses_the_queue_only() {
        let mut disk = Disk::default();
        disk.write(write(1, None, vec![entry(1, 1), entry(1, 2)]));
        disk.begin_sync(usize::MAX);
        disk.end_sync();
        disk.write(write(2, Some(1), vec![entry(2, 2)]));
        disk.begin_sync(usize::MAX);
        disk.write(write(3, None, vec![entry(3, 3)]));
        disk.syncing = false; // written, not under way
        disk.crash_process(&mut Random::new(0), &mut Coverage::default());
        let recovered = disk.recover(&mut Random::new(0));
        assert_eq!(recovered.last, LogIndex(2));
        assert_eq!(recovered.hard_state.term, Term(2));
        assert_eq!(disk.durable.log.term(LogIndex(2)), Some(Term(2)));
    }

    #[test]
    fn a_crash_of_the_machine_keeps_a_prefix() {
        let mut seen = [false; 4];
        for seed in 0..200 {
            let mut disk = Disk::default();
            for id in 1..=3 {
                disk.write(write(id, None, vec![entry(id, id)]));
            }
            disk.begin_sync(usize::MAX);
            disk.crash_machine(&mut Random::new(seed), &mut Coverage::default());
            let recovered = disk.recover(&mut Random::new(seed));
            assert_eq!(recovered.hard_state.term.0, recovered.last.0, "each write is whole or lost");
            seen[count(recovered.last.0)] = true;
        }
        assert_eq!(seen, [true; 4]);
    }

    #[test]
    fn damage_leaves_nobody_alone() {
        let alone = |node: NodeId| {
            let conf = ConfState::of_voters([(NodeId(1), crate::Member::default())]);
            let mut disk = Disk::founded(conf, Incarnation(1));
            disk.write(write(1, None, vec![entry(1, 1), entry(1, 2)]));
            disk.begin_sync(usize::MAX);
            disk.end_sync();
            (disk.damage(node, &mut Random::new(1)), disk.durable.promised())
        };
        assert_eq!(alone(NodeId(1)), (false, None));
        assert_eq!(alone(NodeId(2)), (true, Some(LogId::new(1, 2))));
    }

    #[test]
    fn equal_logs_have_equal_hashes() {
        let mut a = Log::default();
        let mut b = Log::default();
        for index in 1..=4 {
            a.push(entry(1, index));
            b.push(entry(1, index));
        }
        b.truncate_after(LogIndex(2));
        b.push(entry(2, 3));
        assert_eq!(a.hash(LogIndex(2)), b.hash(LogIndex(2)));
        assert_ne!(a.hash(LogIndex(3)), b.hash(LogIndex(3)));
        a.compact(LogIndex(2));
        assert_eq!(a.hash(LogIndex(2)), b.hash(LogIndex(2)));
        assert_eq!(a.hash(LogIndex(1)), None);
    }
}

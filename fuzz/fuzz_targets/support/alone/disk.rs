//! The core's disk: what it was handed to write, and how much of it is durable.

use std::collections::VecDeque;

use raft_core::{
    ConfState, Entry, EntryKind, Fetch, HardState, LogId, LogIndex, Recovered, SnapshotMeta, Term, TermRun,
    Write, WriteId,
};

/// A log with its hard state and newest snapshot.
#[derive(Clone, Debug, Default)]
pub struct Image {
    pub hard_state: HardState,
    pub snapshot: SnapshotMeta,
    pub start: LogId,
    pub entries: Vec<Entry>,
    /// The last entry that was acknowledged, if damage took it.
    pub promised: Option<LogId>,
    pub snapshot_lost: bool,
}

impl Image {
    pub fn last(&self) -> LogId {
        self.entries.last().map_or(self.start, |entry| entry.id)
    }

    pub fn entry(&self, index: LogIndex) -> Option<&Entry> {
        let place = index.0.checked_sub(self.start.index.0)?.checked_sub(1)?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    /// The term at `index`, if the log still tells.
    pub fn term(&self, index: LogIndex) -> Option<Term> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        self.entry(index).map(|entry| entry.id.term)
    }

    pub fn apply(&mut self, write: &Write) {
        self.hard_state = write.hard_state;
        if let Some(after) = write.truncate_after {
            self.entries.retain(|entry| entry.id.index <= after);
        }
        if let Some(mark) = &write.snapshot {
            self.snapshot = mark.meta.clone();
            self.snapshot_lost &= !mark.received;
            if mark.resets_log {
                self.entries.clear();
                self.start = mark.meta.last;
            }
        }
        for entry in &write.entries {
            assert_eq!(entry.id.index, self.last().index.next(), "L5: a write leaves a hole");
            self.entries.push(entry.clone());
        }
        let last = self.last();
        self.promised.take_if(|promised| *promised <= last);
    }

    pub fn compact(&mut self, index: LogIndex) {
        if let Some(entry) = self.entry(index) {
            self.start = entry.id;
            self.entries.retain(|entry| entry.id.index > index);
        }
    }

    /// The log loses its last entries, as many of them as it may lose; what they were acknowledged for is still known.
    fn damage(&mut self, lost: u8) {
        let whole = self.last();
        let kept = whole.index.minus(u64::from(lost)).max(self.snapshot.last.index);
        self.entries.retain(|entry| entry.id.index <= kept);
        self.promised = self.promised.max(Some(whole)).filter(|promised| *promised > self.last());
    }

    fn recovered(&self, tail: usize) -> Recovered {
        let mut term_runs: Vec<TermRun> = Vec::new();
        let mut confs = Vec::new();
        for entry in &self.entries {
            if term_runs.last().is_none_or(|run| run.term != entry.id.term) {
                term_runs.push(TermRun { first: entry.id.index, term: entry.id.term });
            }
            if entry.kind == EntryKind::ConfChange {
                confs.push((entry.id, ConfState::decode(&entry.payload).expect("it was checked before")));
            }
        }
        let least = usize::from(self.last().index > self.snapshot.last.index);
        let skip = self.entries.len().saturating_sub(tail.max(least));
        Recovered {
            hard_state: self.hard_state,
            snapshot: self.snapshot.clone(),
            log_start: self.start,
            last: self.last().index,
            term_runs,
            confs,
            tail: self.entries[skip..].to_vec(),
            promised: self.promised,
            snapshot_lost: self.snapshot_lost,
        }
    }
}

#[derive(Debug, Default)]
pub struct Disk {
    /// All that was handed out.
    pub told: Image,
    /// All that was reported durable.
    pub durable: Image,
    /// Handed out and not reported.
    pub pending: VecDeque<Write>,
    pub issued: WriteId,
    pub persisted: WriteId,
    /// Every hard state that was durable once.
    pub kept: Vec<HardState>,
}

impl Disk {
    pub fn of(image: Image) -> Disk {
        Disk { told: image.clone(), kept: vec![image.hard_state], durable: image, ..Disk::default() }
    }

    pub fn write(&mut self, write: Write) {
        self.issued = write.id;
        self.told.apply(&write);
        self.pending.push_back(write);
    }

    /// Everything up to this write is durable.
    pub fn persist(&mut self, id: WriteId) {
        self.persisted = self.persisted.max(id);
        while let Some(write) = self.pending.pop_front_if(|write| write.id <= id) {
            self.durable.apply(&write);
            self.kept.push(self.durable.hard_state);
        }
    }

    pub fn compact(&mut self, index: LogIndex) {
        self.told.compact(index);
        self.durable.compact(index);
    }

    /// A crash: the first `kept` writes that were under way are found, nobody knows whether the others are lost.
    pub fn crash(&mut self, kept: u8, damaged: Option<u8>, snapshot_lost: bool, tail: u8) -> Recovered {
        let under_way = self.pending.len() + 1;
        for write in self.pending.drain(..).take(usize::from(kept) % under_way).collect::<Vec<_>>() {
            self.durable.apply(&write);
            self.kept.push(self.durable.hard_state);
        }
        if let Some(lost) = damaged {
            self.durable.damage(lost);
        }
        self.durable.snapshot_lost |= snapshot_lost && self.durable.snapshot.last.index > LogIndex::ZERO;
        *self = Disk { kept: std::mem::take(&mut self.kept), ..Disk::of(self.durable.clone()) };
        self.durable.recovered(usize::from(tail))
    }

    /// What a fetch finds in the log.
    pub fn read(&self, fetch: &Fetch) -> Vec<Entry> {
        let mut bytes = 0;
        let mut entries: Vec<Entry> = Vec::new();
        let mut index = fetch.first;
        while index <= fetch.last
            && let Some(entry) = self.told.entry(index)
        {
            bytes += entry.size_bytes();
            if bytes > fetch.bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
            index = index.next();
        }
        entries
    }
}

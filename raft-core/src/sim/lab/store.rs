//! What of a server outlives it: the suite's `Persister`. Every write is whole and durable at once.

use std::{collections::BTreeMap, rc::Rc};

use bytes::Bytes;

use super::size;
use crate::{
    ConfState, Config, Entry, EntryKind, Fetch, HardState, LogId, LogIndex, Recovered, SnapshotMeta, TermRun,
    Write, sim::disk::Log,
};

/// The service's snapshot: the commands up to its number, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Snap {
    pub(super) meta: SnapshotMeta,
    pub(super) commands: Rc<Vec<Bytes>>,
    /// The hash of the log up to its end.
    pub(super) hash: u64,
}

impl Snap {
    /// The number of its last command.
    pub(super) fn number(&self) -> u64 {
        self.commands.len() as u64
    }

    /// The bytes the service encodes it to.
    pub(super) fn bytes(&self) -> u64 {
        let command = |command: &Bytes| size::number(command.len() as u64) + command.len() as u64;
        size::number(self.number()) + self.commands.iter().map(command).sum::<u64>()
    }
}

/// The persisted state of one server.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    pub(super) hard_state: HardState,
    pub(super) snap: Snap,
    pub(super) log: Log,
    /// Snapshots taken or received that no write has marked yet.
    files: BTreeMap<LogId, Snap>,
    /// How many commands there are up to the start of the log, and up to its end.
    start_number: u64,
    last_number: u64,
}

impl Store {
    /// A server that was founded with this configuration.
    pub(super) fn founded(conf: ConfState) -> Store {
        let meta = SnapshotMeta { conf, ..SnapshotMeta::default() };
        Store { snap: Snap { meta, ..Snap::default() }, ..Store::default() }
    }

    /// The number of the last command of the log. The suite counts commands, the log also holds no-ops.
    pub(super) fn last_number(&self) -> u64 {
        self.last_number
    }

    /// Keeps a snapshot for the write that will mark it.
    pub(super) fn keep(&mut self, snap: Snap) {
        self.files.insert(snap.meta.last, snap);
    }

    /// The snapshot that ends with `last`.
    pub(super) fn snapshot(&self, last: LogId) -> Option<&Snap> {
        self.files.get(&last).or((self.snap.meta.last == last).then_some(&self.snap))
    }

    /// Carries out a write of the core.
    pub(super) fn apply(&mut self, write: &Write) -> Result<(), String> {
        self.hard_state = write.hard_state;
        if let Some(index) = write.truncate_after {
            self.log.truncate_after(index);
            self.last_number = self.start_number + commands(self.log.entries());
        }
        if let Some(mark) = &write.snapshot {
            let Some(snap) = self.files.get(&mark.meta.last).cloned() else {
                return Err(format!("a write marks the snapshot {}, which is not there", mark.meta.last));
            };
            if mark.resets_log {
                self.log.reset(&mark.meta, snap.hash);
                (self.start_number, self.last_number) = (snap.number(), snap.number());
            }
            self.snap = Snap { meta: mark.meta.clone(), ..snap };
            self.files.retain(|last, _| *last > mark.meta.last);
        }
        for entry in &write.entries {
            self.log.push(entry.clone());
        }
        self.last_number += commands(write.entries.iter());
        Ok(())
    }

    /// Drops the log up to `index`.
    pub(super) fn compact(&mut self, index: LogIndex) {
        let dropped = self.log.entries().take_while(|entry| entry.id.index <= index);
        self.start_number += commands(dropped);
        self.log.compact(index);
    }

    /// The entries the core has let go of and wants again.
    pub(super) fn read(&self, fetch: &Fetch) -> Vec<Entry> {
        let wanted = |entry: &&Entry| (fetch.first..=fetch.last).contains(&entry.id.index);
        self.log.entries().filter(wanted).cloned().collect()
    }

    /// What a server that starts now finds.
    pub(super) fn recover(&self) -> Recovered {
        let mut term_runs: Vec<TermRun> = Vec::new();
        for entry in self.log.entries() {
            if term_runs.last().is_none_or(|run| run.term != entry.id.term) {
                term_runs.push(TermRun { first: entry.id.index, term: entry.id.term });
            }
        }
        Recovered {
            hard_state: self.hard_state,
            snapshot: self.snap.meta.clone(),
            log_start: self.log.start(),
            last: self.log.last().index,
            term_runs,
            confs: Vec::new(), // no scenario changes the membership
            tail: self.log.entries().cloned().collect(),
            ..Recovered::default()
        }
    }

    /// The bytes of the persisted state without the snapshot, as the suite limits them.
    pub(super) fn bytes(&self) -> u64 {
        let HardState { term, vote, commit } = self.hard_state;
        let hard_state = size::number(term.0) + vote.map_or(1, |vote| 1 + size::number(vote.0));
        hard_state
            + size::number(commit.0)
            + size::log_id(self.snap.meta.last)
            + size::log_id(self.log.start())
            + size::run(self.log.entries())
    }
}

/// How many of these entries the suite knows of.
fn commands<'a>(entries: impl Iterator<Item = &'a Entry>) -> u64 {
    entries.filter(|entry| entry.kind == EntryKind::Command).count() as u64
}

/// The lab's one setting of the timers and limits, for all rows.
#[must_use]
pub fn settings() -> Config {
    Config {
        heartbeat_ms: 175,
        election_timeout_min_ms: 350,
        election_timeout_max_ms: 400,
        commit_notice_delay_ms: 10,
        greeting_delay_ms: 175,
        // A lost snapshot is one lost message here.
        snapshot_timeout_ms: 150,
        // The suite's `Snapshot(i)` is to let go of everything up to there.
        trailing_entries: 0,
        ..Config::new(crate::NodeId(1), 0)
    }
}

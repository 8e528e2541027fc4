//! What one node's disk holds: writes become durable in their order, each whole or not at all.

use raft_core::{
    ConfState, Entry, EntryKind, HardState, LogId, LogIndex, Recovered, SnapshotMeta, TermRun, Write,
};

/// Hard state and log. The model takes no snapshots, so the log begins at index 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    pub(crate) entries: Vec<Entry>,
}

impl Disk {
    /// Makes a write durable.
    pub(crate) fn write(&mut self, write: &Write) {
        self.hard_state = write.hard_state;
        if let Some(last) = write.truncate_after {
            self.entries.retain(|entry| entry.id.index <= last);
        }
        self.entries.extend(write.entries.iter().cloned());
    }

    /// The configurations in the log, the founding one first.
    pub(crate) fn confs(&self, founding: &ConfState) -> Vec<(LogId, ConfState)> {
        let changes = self.entries.iter().filter(|entry| entry.kind == EntryKind::ConfChange);
        let decoded = changes.filter_map(|entry| Some((entry.id, ConfState::decode(&entry.payload).ok()?)));
        std::iter::once((LogId::ZERO, founding.clone())).chain(decoded).collect()
    }

    /// What a node finds after a crash.
    pub(crate) fn recovered(&self, founding: &ConfState) -> Recovered {
        let mut term_runs: Vec<TermRun> = Vec::new();
        for entry in &self.entries {
            if term_runs.last().is_none_or(|run| run.term != entry.id.term) {
                term_runs.push(TermRun { first: entry.id.index, term: entry.id.term });
            }
        }
        Recovered {
            hard_state: self.hard_state,
            snapshot: SnapshotMeta { conf: founding.clone(), ..SnapshotMeta::default() },
            log_start: LogId::ZERO,
            last: LogIndex(self.entries.len() as u64),
            term_runs,
            confs: self.confs(founding).split_off(1),
            tail: self.entries.clone(),
            promised: None,
            snapshot_lost: false,
        }
    }
}

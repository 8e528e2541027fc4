//! When a snapshot is due.

use raft_core::Entry;

/// Counts the log that lies behind the last snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SnapshotPolicy {
    log_bytes_max: u64,
    log_bytes: u64,
    /// Of the last snapshot file. Twice its size may gather before the next, so that writing snapshots never costs
    /// more than a constant factor of writing the log.
    file_bytes: u64,
    /// `Some` while one is being taken: the count at its start.
    taking: Option<u64>,
}

impl SnapshotPolicy {
    pub(super) fn new(log_bytes_max: u64, file_bytes: u64) -> SnapshotPolicy {
        SnapshotPolicy { log_bytes_max, log_bytes: 0, file_bytes, taking: None }
    }

    /// One more entry is committed.
    pub(super) fn grew(&mut self, entry: &Entry) {
        self.log_bytes = self.log_bytes.saturating_add(entry.size_bytes() as u64);
    }

    pub(super) fn is_due(&self) -> bool {
        self.taking.is_none() && self.log_bytes >= self.log_bytes_max.max(self.file_bytes.saturating_mul(2))
    }

    /// Begins one; false if one is under way.
    pub(super) fn start(&mut self) -> bool {
        if self.taking.is_some() {
            return false;
        }
        self.taking = Some(self.log_bytes);
        true
    }

    pub(super) fn taken(&mut self, file_bytes: u64) {
        self.file_bytes = file_bytes;
        self.settle();
    }

    /// Counts as if it had been taken: the next attempt comes after as much log again, not at once.
    pub(super) fn failed(&mut self) {
        self.settle();
    }

    /// The state came from a leader's snapshot: nothing lies behind it yet.
    pub(super) fn restored(&mut self) {
        self.log_bytes = 0;
        self.taking = self.taking.map(|_| 0);
    }

    fn settle(&mut self) {
        let at_start = self.taking.take().unwrap_or(0);
        self.log_bytes = self.log_bytes.saturating_sub(at_start);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raft_core::{EntryKind, LogId, Timestamp};

    use super::*;

    fn grow(policy: &mut SnapshotPolicy, bytes: usize) {
        policy.grew(&Entry {
            id: LogId::new(1, 1),
            time: Timestamp(0),
            session: None,
            kind: EntryKind::Command,
            checksum: 0,
            payload: Bytes::from(vec![0; bytes]),
        });
    }

    #[test]
    fn due_after_enough_log_and_not_twice_at_once() {
        let mut policy = SnapshotPolicy::new(1000, 0);
        grow(&mut policy, 500);
        assert!(!policy.is_due());
        grow(&mut policy, 500);
        assert!(policy.is_due() && policy.start());
        assert!(!policy.is_due() && !policy.start());
        policy.taken(100);
        assert!(!policy.is_due());
    }

    #[test]
    fn a_large_state_is_not_written_for_a_little_log() {
        let mut policy = SnapshotPolicy::new(1000, 5000);
        grow(&mut policy, 9000);
        assert!(!policy.is_due());
        grow(&mut policy, 2000);
        assert!(policy.is_due());
    }

    #[test]
    fn what_came_during_a_snapshot_counts_for_the_next() {
        let mut policy = SnapshotPolicy::new(1000, 0);
        grow(&mut policy, 1000);
        assert!(policy.start());
        grow(&mut policy, 2000);
        policy.taken(10);
        assert!(policy.is_due());
    }
}

//! Which configuration is in force: the last one in the log, committed or not, else the snapshot's (dissertation 4.1).

use std::collections::VecDeque;

use crate::{ConfState, LogId, LogIndex};

/// The configurations of the log, so that a truncation can roll one back.
///
/// Invariant: entries rise and all lie behind `base`; the last one is in force (SAFETY M2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Membership {
    /// What holds before the first configuration entry.
    base: (LogId, ConfState),
    entries: VecDeque<(LogId, ConfState)>,
}

impl Membership {
    pub(crate) fn new(conf_id: LogId, conf: ConfState) -> Membership {
        Membership { base: (conf_id, conf), entries: VecDeque::new() }
    }

    /// In force: effective from the moment it was appended.
    pub(crate) fn effective(&self) -> &ConfState {
        &self.entries.back().unwrap_or(&self.base).1
    }

    pub(crate) fn effective_id(&self) -> LogId {
        self.entries.back().unwrap_or(&self.base).0
    }

    /// What was in force at `index`. Before the base nothing is known any more and the base is told.
    pub(crate) fn at(&self, index: LogIndex) -> (LogId, &ConfState) {
        let behind = self.entries.partition_point(|(id, _)| id.index <= index);
        let (id, conf) =
            behind.checked_sub(1).and_then(|place| self.entries.get(place)).unwrap_or(&self.base);
        (*id, conf)
    }

    /// Every configuration that is in force behind `index`, the one at `index` included.
    pub(crate) fn since(&self, index: LogIndex) -> impl Iterator<Item = &ConfState> {
        let behind = self.entries.partition_point(|(id, _)| id.index <= index);
        let later = self.entries.range(behind..).map(|(_, conf)| conf);
        std::iter::once(self.at(index).1).chain(later)
    }

    /// Notes a configuration that was appended.
    pub(crate) fn push(&mut self, id: LogId, conf: ConfState) {
        debug_assert!(id.index > self.effective_id().index, "configurations are appended in order");
        self.entries.push_back((id, conf));
    }

    /// Rolls back what was cut off. Compared by index: everything behind is gone whatever its term.
    pub(crate) fn truncate_after(&mut self, index: LogIndex) {
        while self.entries.back().is_some_and(|(id, _)| id.index > index) {
            self.entries.pop_back();
        }
    }

    /// Forgets what a snapshot up to `index` covers; no truncation reaches back there.
    pub(crate) fn compact(&mut self, index: LogIndex) {
        while self.entries.front().is_some_and(|(id, _)| id.index <= index) {
            if let Some(covered) = self.entries.pop_front() {
                self.base = covered;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NodeId;

    fn conf(ids: &[u64]) -> ConfState {
        ConfState { voters: ids.iter().copied().map(NodeId).collect(), ..ConfState::default() }
    }

    fn three() -> Membership {
        let mut all = Membership::new(LogId::ZERO, conf(&[1]));
        all.push(LogId::new(1, 4), conf(&[1, 2]));
        all.push(LogId::new(2, 7), conf(&[1, 2, 3]));
        all
    }

    #[test]
    fn the_last_one_appended_is_in_force_until_it_is_cut_off() {
        let mut all = three();
        assert_eq!((all.effective(), all.effective_id()), (&conf(&[1, 2, 3]), LogId::new(2, 7)));
        all.truncate_after(LogIndex(6));
        assert_eq!(all.effective(), &conf(&[1, 2]));
        all.truncate_after(LogIndex(0));
        assert_eq!((all.effective(), all.effective_id()), (&conf(&[1]), LogId::ZERO));
    }

    #[test]
    fn a_snapshot_keeps_what_was_in_force_there() {
        let mut all = three();
        assert_eq!(all.at(LogIndex(6)), (LogId::new(1, 4), &conf(&[1, 2])));
        assert_eq!(all.at(LogIndex(3)), (LogId::ZERO, &conf(&[1])));
        all.compact(LogIndex(5));
        assert_eq!(all.at(LogIndex(5)), (LogId::new(1, 4), &conf(&[1, 2])));
        assert_eq!(all.effective(), &conf(&[1, 2, 3]));
        all.truncate_after(LogIndex(6));
        assert_eq!(all.effective(), &conf(&[1, 2]));
    }

    #[test]
    fn a_cut_and_a_snapshot_at_a_configuration_keep_it() {
        let mut all = three();
        all.truncate_after(LogIndex(7));
        assert_eq!(all.effective_id(), LogId::new(2, 7));
        all.compact(LogIndex(7));
        assert!(all.entries.is_empty(), "one is enough");
        assert_eq!((all.effective(), all.effective_id()), (&conf(&[1, 2, 3]), LogId::new(2, 7)));
    }
}

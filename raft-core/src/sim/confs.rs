//! The configurations of a log, as anybody can read them off it: the last one is in force (SAFETY M2).

use std::{collections::VecDeque, sync::Arc};

use crate::{ConfState, Entry, EntryKind, LogId, LogIndex, NodeId};

/// A configuration and the entry it came from.
pub(super) type InForce = (LogId, Arc<ConfState>);

/// All of them, the oldest standing for everything before it.
#[derive(Clone, Debug)]
pub(super) struct Confs {
    all: VecDeque<InForce>,
}

impl Default for Confs {
    fn default() -> Confs {
        Confs::of(LogId::ZERO, ConfState::default())
    }
}

impl Confs {
    pub(super) fn of(id: LogId, conf: ConfState) -> Confs {
        Confs { all: [(id, Arc::new(conf))].into() }
    }

    /// Notes an entry, if it is a configuration.
    pub(super) fn push(&mut self, entry: &Entry) {
        if entry.kind == EntryKind::ConfChange
            && let Ok(conf) = ConfState::decode(&entry.payload)
        {
            self.all.push_back((entry.id, Arc::new(conf)));
        }
    }

    pub(super) fn truncate_after(&mut self, index: LogIndex) {
        while self.all.len() > 1 && self.all.back().is_some_and(|(id, _)| id.index > index) {
            self.all.pop_back();
        }
    }

    pub(super) fn at(&self, index: LogIndex) -> &InForce {
        let behind = self.all.partition_point(|(id, _)| id.index <= index);
        &self.all[behind.saturating_sub(1)]
    }
}

/// Whether a majority of each half of `conf` has what is asked.
pub(super) fn has_majorities(conf: &ConfState, has: impl Fn(NodeId) -> bool) -> bool {
    [&conf.voters, &conf.outgoing]
        .into_iter()
        .filter(|half| !half.is_empty())
        .all(|half| half.iter().filter(|id| has(**id)).count() > half.len() / 2)
}

/// Whether any two majorities, one of each configuration, have a node in common: tried out, not reasoned about (M3).
pub(super) fn always_overlap(one: &ConfState, other: &ConfState) -> bool {
    let ids: Vec<NodeId> = one.all().union(&other.all()).copied().collect();
    let place = |id: NodeId| ids.iter().position(|known| *known == id).unwrap_or_default();
    (0..1_u32 << ids.len()).all(|side| {
        let here = |id| side >> place(id) & 1 == 1;
        !(has_majorities(one, here) && has_majorities(other, |id| !here(id)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(voters: &[u64], outgoing: &[u64]) -> ConfState {
        let set = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
        ConfState { voters: set(voters), outgoing: set(outgoing), ..ConfState::default() }
    }

    #[test]
    fn majorities_overlap_or_do_not() {
        assert!(always_overlap(&conf(&[1, 2, 3], &[]), &conf(&[1, 2, 3, 4], &[])));
        assert!(!always_overlap(&conf(&[1, 2, 3], &[]), &conf(&[1, 2, 3, 4, 5], &[])));
        assert!(always_overlap(&conf(&[1, 2, 3], &[]), &conf(&[4, 5, 6], &[1, 2, 3])));
        assert!(!always_overlap(&conf(&[1, 2, 3], &[]), &conf(&[4, 5, 6], &[])));
    }
}

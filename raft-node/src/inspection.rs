//! What a node knows of itself, published by the driver for whoever asks: status, metrics, front ends.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use raft_core::{ConfState, LogIndex, NodeId, Raft, RoleKind, Term};

/// The consensus side of a node as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Its role.
    pub role: RoleKind,
    /// Its term.
    pub term: Term,
    /// Whom it follows; itself if it leads.
    pub leader: Option<NodeId>,
    /// Its commit index.
    pub commit: LogIndex,
    /// How far its state machine is.
    pub applied: LogIndex,
    /// The first entry it holds.
    pub first: LogIndex,
    /// The last.
    pub last: LogIndex,
    /// Its newest snapshot.
    pub snapshot: LogIndex,
    /// Its file is damaged and no other is in its place yet: nothing can be applied.
    pub snapshot_lost: bool,
    /// The configuration in force.
    pub conf: ConfState,
    /// At a leader, how far each other member's log is known to match.
    pub matched: BTreeMap<NodeId, LogIndex>,
    /// At a leader, how far its wall clock is ahead of the median of all members' clocks, in milliseconds.
    pub clock_ahead_ms: i64,
}

impl Inspection {
    /// Of this core, now.
    pub(crate) fn of(raft: &Raft) -> Inspection {
        let peers = raft.peers();
        Inspection {
            role: raft.role(),
            term: raft.term(),
            leader: raft.leader(),
            commit: raft.commit(),
            applied: raft.applied(),
            first: raft.log_start().index.next(),
            last: raft.last().index,
            snapshot: raft.snapshot().last.index,
            snapshot_lost: raft.snapshot_lost().is_some(),
            conf: raft.conf().clone(),
            matched: peers.iter().map(|(id, peer)| (*id, peer.matched)).collect(),
            clock_ahead_ms: ahead_of_median(peers.iter().map(|(_, peer)| peer.clock_offset_ms)),
        }
    }
}

/// Where the latest [`Inspection`] lies. Asking never disturbs the driver.
#[derive(Clone, Debug)]
pub(crate) struct Published(Arc<Mutex<Arc<Inspection>>>);

impl Published {
    pub(crate) fn new(first: Inspection) -> Published {
        Published(Arc::new(Mutex::new(Arc::new(first))))
    }

    pub(crate) fn latest(&self) -> Arc<Inspection> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn publish(&self, inspection: Inspection) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(inspection);
    }
}

/// How far a clock is ahead of the median of itself and others, of which `offsets` tells how far each is ahead of it. Of
/// two in the middle the one that is nearer counts.
fn ahead_of_median(offsets: impl Iterator<Item = i64>) -> i64 {
    let mut all: Vec<i64> = offsets.chain([0]).collect();
    all.sort_unstable();
    let (low, high) = (all[(all.len() - 1) / 2], all[all.len() / 2]);
    let median = if low.unsigned_abs() <= high.unsigned_abs() { low } else { high };
    median.saturating_neg()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_judged_by_the_majority_of_the_others() {
        for (offsets, ahead) in [
            (vec![], 0),
            (vec![-5000], 0),
            (vec![-5000, -4000], 4000),
            (vec![0, -4000], 0),
            (vec![3000, 4000, 5000, 6000], -4000),
            (vec![i64::MIN, i64::MIN], i64::MAX),
        ] {
            assert_eq!(ahead_of_median(offsets.iter().copied()), ahead, "{offsets:?}");
        }
    }
}

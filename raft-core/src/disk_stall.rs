//! A disk that hangs is part of the protocol (SAFETY V5): a leader goes on replicating to others without its own disk,
//! and would hold its office for ever while every client waits behind its own next election.
//!
//! A write is late once it is older than [`Config::disk_stall_ms`](crate::Config::disk_stall_ms). From then on
//! - a leader takes no more proposals and hands over to the follower that has most on disk. Neither needs its own disk.
//!   If nobody has taken over within an election timeout, it steps down and leaves the rest to an election;
//! - a follower does not campaign, not even when it is told to, and the leader picks no target whose acknowledgement is
//!   as late.
//!
//! An entry that cannot be read back to be applied, for as long, is the same to clients: what they write is committed and
//! never answered. From then on
//! - a leader does the same, but steps down only while another voter has all that is committed: who has not needs this one
//!   to get it, and nobody could be elected. Who was elected in this state stays: the others had their time before, and
//!   to step down would break off the snapshot that may heal one of them;
//! - a follower campaigns after the others could have, not never: its log may be the only one that is complete.

use std::cmp::Reverse;

use crate::{
    Instant, NodeId,
    leader::Leader,
    progress::Progress,
    shared::{Next, Shared},
};

impl Shared {
    /// When the oldest write that is not durable will be late.
    pub(crate) fn disk_is_late_at(&self) -> Option<Instant> {
        self.disk.waits_since().map(|since| since.plus_millis(self.config.disk_stall_ms))
    }

    /// Whether the disk hangs.
    pub(crate) fn disk_is_late(&self) -> bool {
        self.disk_is_late_at().is_some_and(|at| at <= self.now.instant)
    }

    /// When entries that have to be applied will have been unreadable for too long.
    fn apply_is_stuck_at(&self) -> Option<Instant> {
        self.apply.unreadable_since().map(|since| since.plus_millis(self.config.disk_stall_ms))
    }

    /// Whether nothing can be applied here any more.
    pub(crate) fn apply_is_stuck(&self) -> bool {
        self.apply_is_stuck_at().is_some_and(|at| at <= self.now.instant)
    }

    /// When the disk will keep this node from doing a leader's work.
    fn is_stalled_at(&self) -> Option<Instant> {
        [self.disk_is_late_at(), self.apply_is_stuck_at()].into_iter().flatten().min()
    }

    /// Whether the disk keeps this node from doing a leader's work.
    pub(crate) fn is_stalled(&self) -> bool {
        self.is_stalled_at().is_some_and(|at| at <= self.now.instant)
    }

    /// Whether this node may stand for election now, though another could.
    pub(crate) fn may_campaign(&self) -> bool {
        self.is_electable() && !self.is_stalled()
    }

    /// What a node that cannot apply waits for a leader beyond what it would.
    pub(crate) fn stuck_handicap_ms(&self) -> u64 {
        let most_ms = self.config.election_timeout_max_ms;
        if self.apply_is_stuck() { most_ms.saturating_mul(STUCK_TIMEOUTS) } else { 0 }
    }
}

impl Leader {
    /// Gives up leadership in time: first to a follower of our choice, then to whom an election finds. A leader without
    /// other voters only waits.
    pub(crate) fn tick_disk(&mut self, shared: &Shared) -> Next {
        if !shared.is_stalled() || !self.has_other_voters(shared) {
            return Next::Stay;
        }
        if self.resigns_at(shared).is_some_and(|at| at <= shared.now.instant) {
            return Next::Follow;
        }
        if self.transfer_target().is_none() {
            let _ = self.successors(shared).into_iter().find(|id| self.transfer(shared, *id).is_ok());
        }
        Next::Stay
    }

    /// When the disk asks for attention next.
    pub(crate) fn disk_deadline(&self, shared: &Shared) -> Option<Instant> {
        if !self.has_other_voters(shared) {
            return None;
        }
        if shared.is_stalled() { self.resigns_at(shared) } else { shared.is_stalled_at() }
    }

    /// `None` also while nobody else could be elected.
    fn resigns_at(&self, shared: &Shared) -> Option<Instant> {
        let elected = self.elected.instant;
        let timeout_ms = shared.config.election_timeout_min_ms;
        if let Some(late) = shared.disk_is_late_at().filter(|at| *at <= shared.now.instant) {
            // Who was elected although its disk hangs gets time to hand over.
            return Some(late.max(elected).plus_millis(timeout_ms));
        }
        let stuck = shared.apply_is_stuck_at().filter(|at| elected < *at)?;
        self.another_is_complete(shared).then(|| stuck.plus_millis(timeout_ms))
    }

    /// Whether another voter that answers has all that is committed.
    fn another_is_complete(&self, shared: &Shared) -> bool {
        let patience_ms = shared.config.election_timeout_max_ms;
        let voters = &shared.log.conf().voters;
        self.peers.iter().any(|(id, peer)| {
            voters.contains(id)
                && !peer.regressed
                && peer.matched() >= shared.commit
                && shared.now.instant < peer.heard_at.plus_millis(patience_ms)
        })
    }

    fn has_other_voters(&self, shared: &Shared) -> bool {
        self.peers.keys().any(|id| shared.log.conf().voters.contains(id))
    }

    /// The other voters as they are to be asked to take over: who let an earlier word pass comes last, then who has most
    /// on disk first.
    fn successors(&self, shared: &Shared) -> Vec<NodeId> {
        let voters = &shared.log.conf().voters;
        let peers = self.peers.iter().filter(|(id, _)| voters.contains(id));
        let mut all: Vec<_> =
            peers.map(|(id, peer)| (peer.declined_at, Reverse((peer.matched(), *id)))).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, Reverse((_, id)))| id).collect()
    }
}

/// Election timeouts that a node which cannot apply leaves to the others.
const STUCK_TIMEOUTS: u64 = 3;

impl Progress {
    /// Whether the peer owes an acknowledgement for so long that its disk must hang.
    pub(crate) fn is_late(&self, shared: &Shared) -> bool {
        self.owes_since().is_some_and(|at| at.plus_millis(shared.config.disk_stall_ms) <= shared.now.instant)
    }
}

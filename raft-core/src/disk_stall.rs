//! A disk that hangs is part of the protocol (SAFETY V5): a leader goes on replicating to others without its own disk,
//! and would hold its office for ever while every client waits behind its own next election.
//!
//! A write is late once it is older than [`Config::disk_stall_ms`](crate::Config::disk_stall_ms). From then on
//! - a leader takes no more proposals and hands over to the follower that has most on disk. Neither needs its own disk.
//!   If nobody has taken over within an election timeout, it steps down and leaves the rest to an election;
//! - a follower does not campaign, not even when it is told to, and the leader picks no target whose acknowledgement is
//!   as late.

use crate::{
    Instant, LogIndex, NodeId,
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

    /// Whether this node may stand for election now.
    pub(crate) fn may_campaign(&self) -> bool {
        self.is_electable() && !self.disk_is_late()
    }
}

impl Leader {
    /// Gives up leadership in time: first to a follower of our choice, then to whom an election finds. A leader without
    /// other voters only waits.
    pub(crate) fn tick_disk(&mut self, shared: &Shared) -> Next {
        if !shared.disk_is_late() || !self.has_other_voters(shared) {
            return Next::Stay;
        }
        if self.resigns_at(shared).is_some_and(|at| at <= shared.now.instant) {
            return Next::Follow;
        }
        if self.transfer_target().is_none() {
            let best = self.voters_by_match(shared).into_iter().map(|(_, id)| id);
            let _ = best.into_iter().find(|id| self.transfer(shared, *id).is_ok());
        }
        Next::Stay
    }

    /// When the disk asks for attention next.
    pub(crate) fn disk_deadline(&self, shared: &Shared) -> Option<Instant> {
        if !self.has_other_voters(shared) {
            return None;
        }
        if shared.disk_is_late() { self.resigns_at(shared) } else { shared.disk_is_late_at() }
    }

    fn resigns_at(&self, shared: &Shared) -> Option<Instant> {
        shared.disk_is_late_at().map(|at| at.plus_millis(shared.config.election_timeout_min_ms))
    }

    fn has_other_voters(&self, shared: &Shared) -> bool {
        self.peers.keys().any(|id| shared.log.conf().voters.contains(id))
    }

    /// The other voters, those with most on disk first.
    fn voters_by_match(&self, shared: &Shared) -> Vec<(LogIndex, NodeId)> {
        let voters = &shared.log.conf().voters;
        let peers = self.peers.iter().filter(|(id, _)| voters.contains(id));
        let mut best: Vec<_> = peers.map(|(id, peer)| (peer.matched(), *id)).collect();
        best.sort_unstable_by(|one, other| other.cmp(one));
        best
    }
}

impl Progress {
    /// Whether the peer owes an acknowledgement for so long that its disk must hang.
    pub(crate) fn is_late(&self, shared: &Shared) -> bool {
        self.owes_since().is_some_and(|at| at.plus_millis(shared.config.disk_stall_ms) <= shared.now.instant)
    }
}

//! Handing leadership over (dissertation 3.10; SAFETY X1). Proposals are frozen until the target leads or the
//! deadline has passed; nothing extends the deadline.

#[cfg(feature = "model")]
#[path = "model/transfer.rs"]
mod model;

use crate::{
    Body, Event, Instant, NodeId, TransferError, TransferOutcome,
    leader::Leader,
    progress::{Progress, ProgressState},
    shared::Shared,
};

/// A transfer that is going on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Transfer {
    to: NodeId,
    deadline: Instant,
    /// When the target was last told to campaign.
    asked_at: Option<Instant>,
}

impl Leader {
    /// Starts to hand over to `to`, which must vote, answer, and lack no more than a window's worth of the log.
    pub(crate) fn transfer(&mut self, shared: &Shared, to: NodeId) -> Result<(), TransferError> {
        if self.transfer.is_some() {
            return Err(TransferError::InProgress);
        }
        if self.departs_at.is_some_and(|at| at <= shared.now.instant) {
            return Err(TransferError::Departing);
        }
        let alive_ms = shared.config.election_timeout_max_ms;
        // An outgoing voter of a joint configuration would have to go at once.
        let peer = self.peers.get(&to).filter(|_| shared.log.conf().voters.contains(&to));
        let Some(peer) = peer else { return Err(TransferError::NotAVoter) };
        if peer.regressed || peer.heard_at.plus_millis(alive_ms) <= shared.now.instant {
            return Err(TransferError::Unreachable);
        }
        if !matches!(peer.state(), ProgressState::Replicate { .. })
            || shared.log.bytes_from(peer.matched().next()) > shared.config.inflight_bytes_max as u64
            || peer.matched().next() < shared.log.first_in_memory()
            || peer.is_late(shared)
        {
            return Err(TransferError::TooFarBehind);
        }
        let deadline = shared.now.instant.plus_millis(shared.config.election_timeout_max_ms);
        let deadline = self.departs_at.map_or(deadline, |at| at.min(deadline));
        self.transfer = Some(Transfer { to, deadline, asked_at: None });
        Ok(())
    }

    pub(crate) fn transfer_target(&self) -> Option<NodeId> {
        self.transfer.as_ref().map(|transfer| transfer.to)
    }

    pub(crate) fn transfer_deadline(&self) -> Option<Instant> {
        self.transfer.as_ref().map(|transfer| transfer.deadline)
    }

    /// The deadline passes: proposals go on.
    pub(crate) fn tick_transfer(&mut self, shared: &mut Shared) {
        if self.transfer.as_ref().is_some_and(|transfer| transfer.deadline <= shared.now.instant) {
            self.abort_transfer(shared, TransferOutcome::TimedOut);
        }
    }

    pub(crate) fn abort_transfer(&mut self, shared: &mut Shared, outcome: TransferOutcome) {
        if let Some(Transfer { to, .. }) = self.transfer.take() {
            if let Some(peer) = self.peers.get_mut(&to).filter(|_| outcome == TransferOutcome::TimedOut) {
                peer.declined_at = Some(shared.now.instant);
            }
            shared.out.events.push(Event::TransferEnded { to, outcome });
        }
    }

    /// Tells the target to campaign once it has the whole log; again with every heartbeat, since that word may be
    /// lost.
    pub(crate) fn hand_over(&mut self, shared: &mut Shared) {
        let Some(Transfer { to, asked_at, .. }) = &mut self.transfer else { return };
        let now = shared.now.instant;
        let matched = self.peers.get(to).map(Progress::matched);
        let due = asked_at.is_none_or(|at| at.plus_millis(shared.config.heartbeat_ms) <= now);
        if due && matched == Some(shared.log.last().index) {
            *asked_at = Some(now);
            // Its votes break every promise, and the word may be late: no lease in this term any more (SAFETY R3).
            self.lease_given_up = true;
            shared.send(*to, Body::TimeoutNow);
        }
    }
}

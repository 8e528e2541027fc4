//! How a leader changes the membership: one change at a time, out of a joint configuration by itself, and out of
//! office if it is no member any more (dissertation chapter 4; SAFETY M1 to M5).

use bytes::Bytes;

use crate::{
    Body, ChangeError, ConfChange, ConfState, EntryKind, LEASE_TIMEOUT_MS_MAX, Lease, LogId, NodeId,
    Proposal, TransferOutcome, change,
    leader::Leader,
    progress::{Progress, ProgressState},
    shared::{Next, Shared, noop},
};

impl Leader {
    /// Appends the first step towards what was asked for. It is in force at once, and the rest follows by itself.
    pub(crate) fn change(&mut self, shared: &mut Shared, wanted: &ConfChange) -> Result<LogId, ChangeError> {
        let current = shared.log.conf();
        // One at a time: two that are not committed might not overlap with each other (SAFETY M1).
        if current.is_joint() || shared.log.conf_id().index > shared.commit {
            return Err(ChangeError::InProgress);
        }
        let next = change::next(current, wanted, shared.id())?;
        self.check_promoted(shared, &next, wanted.force)?;
        if !self.commits_own_term(shared) {
            return Err(ChangeError::NotReady);
        }
        if let Some(target) = self.transfer_target() {
            if next.voters.contains(&target) {
                return Err(ChangeError::Transferring { to: target });
            }
            // Who asks for this does not want the target to lead.
            self.abort_transfer(shared, TransferOutcome::TargetDemoted);
        }
        Ok(self.append_conf(shared, &next))
    }

    /// Appends the configuration in force with other leases (SAFETY R3).
    pub(crate) fn set_lease(
        &mut self,
        shared: &mut Shared,
        lease: Option<Lease>,
    ) -> Result<LogId, ChangeError> {
        let current = shared.log.conf();
        if current.is_joint() || shared.log.conf_id().index > shared.commit {
            return Err(ChangeError::InProgress);
        }
        let next = ConfState { lease, ..current.clone() };
        if next == *current {
            return Err(ChangeError::Unchanged);
        }
        next.validate().map_err(ChangeError::Conf)?;
        // Not by the own setting alone: a node that lost its log waits for a bound that all nodes know (SAFETY R3).
        let most_ms = shared.config.election_timeout_min_ms.min(u64::from(LEASE_TIMEOUT_MS_MAX));
        if lease.is_some_and(|lease| u64::from(lease.timeout_ms) > most_ms) {
            return Err(ChangeError::LeaseTooLong { most_ms });
        }
        if !self.commits_own_term(shared) {
            return Err(ChangeError::NotReady);
        }
        if let Some(to) = self.transfer_target() {
            return Err(ChangeError::Transferring { to });
        }
        Ok(self.append_conf(shared, &next))
    }

    /// Goes on with a change that was committed. To be called after each input.
    pub(crate) fn settle(&mut self, shared: &mut Shared) -> Next {
        let (id, conf) = (shared.log.conf_id(), shared.log.conf());
        if id.index > shared.commit || self.done_with == Some(id) {
            return Next::Stay;
        }
        let own = shared.id();
        let (is_joint, leaves_itself) = (conf.is_joint(), conf.auto_leave);
        let (votes, votes_on) = (conf.is_voter(own), conf.voters.contains(&own));
        if self.settled_conf < id {
            self.settled_conf = id;
            self.tell_removed(shared);
        }
        if !is_joint {
            self.departs_at = None;
            if votes {
                self.done_with = Some(id);
                return Next::Stay;
            }
            // It led to the end without counting itself (dissertation 4.2.2; SAFETY M5).
            self.abort_transfer(shared, TransferOutcome::Unknown);
            self.say_farewell(shared);
            return Next::Follow;
        }
        // No entry is added while a transfer waits for its target to have them all.
        if !leaves_itself || self.transfer.is_some() || !self.commits_own_term(shared) {
            return Next::Stay;
        }
        if votes_on || self.has_failed_to_depart(shared) {
            let settled = change::leave(shared.log.conf());
            self.append_conf(shared, &settled);
        }
        Next::Stay
    }

    /// Whether an entry of this term is committed, without which an earlier leader's change might come back and not
    /// overlap with ours (SAFETY M1). Appends one if there is none: a leader may have left out its no-op.
    fn commits_own_term(&mut self, shared: &mut Shared) -> bool {
        let committed = shared.log.term_at(shared.commit) == Some(shared.term);
        if !committed && shared.log.last().term != shared.term && self.transfer.is_none() {
            self.append(shared, EntryKind::Noop, noop());
        }
        committed
    }

    /// A node without a vote gets one only after it has caught up (dissertation 4.2.1), or if the operator insists. In
    /// any case it must know that it is a learner: one that came back with an empty directory gives no vote before.
    fn check_promoted(&self, shared: &Shared, next: &ConfState, force: bool) -> Result<(), ChangeError> {
        let (current, known) = (shared.log.conf(), shared.log.conf_id().index);
        let (last, now) = (shared.log.last().index, shared.now.instant);
        let timeout_ms = shared.config.election_timeout_min_ms;
        for id in change::promoted(current, next) {
            let peer = self.peers.get(&id).filter(|_| current.is_learner(id));
            let Some(peer) = peer else { return Err(ChangeError::NotALearner { id }) };
            let matched = peer.matched();
            let close = force || peer.rounds.is_done(matched, last, now, timeout_ms);
            if peer.regressed || matched < known || !close {
                return Err(ChangeError::TooFarBehind { id, matched, last });
            }
        }
        Ok(())
    }

    fn append_conf(&mut self, shared: &mut Shared, conf: &ConfState) -> LogId {
        let id = self.append(shared, EntryKind::ConfChange, Proposal::new(Bytes::from(conf.encode())));
        self.sync_peers(shared);
        self.departs_at = None;
        // Those whose answers a round of reads waits for may have just left, and nobody else need be there to answer.
        self.confirm_reads(shared);
        id
    }

    /// A leader that goes hands over first, and its successor, who knows the joint configuration, leaves it. Only if
    /// nobody has taken over by the deadline it has to do that itself (SAFETY M5).
    fn has_failed_to_depart(&mut self, shared: &mut Shared) -> bool {
        let patience_ms = shared.config.election_timeout_max_ms.saturating_mul(2);
        let deadline = *self.departs_at.get_or_insert(shared.now.instant.plus_millis(patience_ms));
        if deadline <= shared.now.instant {
            return true;
        }
        if let Some(successor) = self.most_complete(shared) {
            // Refused while the successor is not close enough: later, when more of it has arrived.
            let _ = self.transfer(shared, successor);
        }
        false
    }

    /// The voter that goes on and has most of the log.
    fn most_complete(&self, shared: &Shared) -> Option<NodeId> {
        let voters = &shared.log.conf().voters;
        let follows = |(id, peer): &(&NodeId, &Progress)| {
            voters.contains(id) && !peer.regressed && matches!(peer.state(), ProgressState::Replicate { .. })
        };
        let (id, _) =
            self.peers.iter().filter(follows).max_by_key(|(_, peer)| (peer.matched(), peer.heard_at))?;
        Some(*id)
    }

    /// Tells who just ceased to be a member, so that it need not find out by campaigning.
    fn tell_removed(&mut self, shared: &mut Shared) {
        let (id, own) = (shared.log.conf_id(), shared.id());
        let conf = shared.log.conf();
        let before = shared.log.conf_at(id.index.prev()).1.all();
        let removed: Vec<NodeId> =
            before.into_iter().filter(|id| *id != own && !conf.contains(*id)).collect();
        for member in removed {
            shared.send(member, Body::Removed { conf_id: id });
        }
    }

    /// The last word of a leader that is no voter any more: the members learn that the change is committed, and who
    /// has everything need not wait for an election timeout.
    fn say_farewell(&mut self, shared: &mut Shared) {
        let ids: Vec<NodeId> = self.peers.keys().copied().collect();
        for id in ids {
            self.send_heartbeat(shared, id);
        }
        let last = shared.log.last().index;
        let successor =
            self.most_complete(shared).filter(|id| self.peers.get(id).map(Progress::matched) == Some(last));
        if let Some(successor) = successor {
            self.lease_given_up = true;
            shared.send(successor, Body::TimeoutNow);
        }
    }
}

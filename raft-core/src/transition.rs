//! From one role to another: the only place where it happens, and where it is told.

#[cfg(feature = "model")]
#[path = "model/transition.rs"]
mod model;

use crate::{
    Event, HaltReason, LogId, NodeId, Raft, RoleKind, Term, TransferOutcome,
    candidate::Candidate,
    follower::Follower,
    leader::Leader,
    quorum::Tally,
    raft::Role,
    shared::{Next, Shared},
};

impl Raft {
    /// Makes the transition a role asked for.
    #[inline]
    pub(crate) fn turn(&mut self, next: Next) {
        match next {
            Next::Stay => {}
            Next::Follow => self.follow(),
            Next::PreCampaign => self.pre_campaign(),
            Next::Campaign { transfer } => self.campaign(transfer),
            Next::Lead => self.lead(),
            Next::Halt(reason) => self.halt(reason),
        }
    }

    /// Adopts a later term. Only a follower's patience survives the change.
    pub(crate) fn enter_term(&mut self, term: Term) {
        self.shared.enter_term(term);
        if let Role::Follower(follower) = &self.role {
            self.role = Role::Follower(follower.clone().in_new_term(&mut self.shared));
        } else {
            self.follow();
        }
    }

    /// Follows in the current term. Term and vote stay (SAFETY E4).
    pub(crate) fn follow(&mut self) {
        self.end_role();
        if planted!(StepDownClearsVote) {
            self.shared.vote = None;
        }
        let patience_ms = self.shared.patience_ms();
        self.role = Role::Follower(Follower::new(&self.shared, patience_ms));
    }

    /// A pre-vote protects the leader of an earlier term, and no term is earlier than the first one: that is stood for
    /// at once.
    fn pre_campaign(&mut self) {
        if self.term() == Term(0) {
            self.shared.leader_missed();
            return self.campaign(false);
        }
        if let Role::PreCandidate(candidate) = &mut self.role
            && candidate.ask_again(&mut self.shared)
        {
            return;
        }
        self.end_role();
        self.shared.leader_missed();
        let candidate = Candidate::ask(&mut self.shared);
        let tally = candidate.tally(&self.shared);
        self.role = Role::PreCandidate(candidate);
        if tally == Tally::Won {
            self.campaign(false);
        }
    }

    /// Stands for election in the next term, with the own vote. The last term there is cannot be reached: a message
    /// that comes near it is refused (SAFETY E13).
    fn campaign(&mut self, transfer: bool) {
        let term = self.term().next();
        if term == Term::MAX {
            return;
        }
        // Its votes would wait behind the disk (SAFETY V5).
        if self.shared.disk_is_late() || (self.shared.is_bound() && !transfer) {
            return self.follow();
        }
        self.end_role();
        let before = match &self.role {
            Role::PreCandidate(candidate) => Some(candidate.clone()),
            Role::Follower(_) | Role::Candidate(_) | Role::Leader(_) => None,
        };
        self.shared.enter_term(term);
        let own = self.id();
        self.shared.vote_for(own);
        self.role = Role::Candidate(Candidate::stand(&mut self.shared, before, transfer));
    }

    fn lead(&mut self) {
        let Role::Candidate(candidate) = &self.role else { return };
        self.shared.term_leader = Some(self.id());
        self.role = Role::Leader(Box::new(Leader::new(&mut self.shared, candidate)));
    }

    pub(crate) fn halt(&mut self, reason: HaltReason) {
        self.end_role();
        self.halted = Some(reason);
        let out = &mut self.shared.out;
        out.messages.clear();
        out.fetches.clear();
        out.compact = None;
        out.events.push(Event::Halted(reason));
    }

    /// Fails the reads that were bound to the role.
    fn end_role(&mut self) {
        match &mut self.role {
            Role::Follower(follower) => follower.end(&mut self.shared),
            Role::Leader(leader) => leader.end(&mut self.shared),
            Role::PreCandidate(_) | Role::Candidate(_) => {}
        }
    }

    /// Reports what changed.
    #[inline]
    pub(crate) fn tell(&mut self) {
        if !self.has_nothing_to_tell() {
            self.tell_changes();
        }
    }

    /// Nearly always so, and then it must not cost anything. While the configuration in force is the committed one, only
    /// another one can be committed.
    #[inline]
    fn has_nothing_to_tell(&self) -> bool {
        let (told, shared) = (&self.told, &self.shared);
        let of_role = (told.role, told.term, told.leader) == (self.role(), shared.term, self.leader());
        let of_conf = told.conf_id == shared.log.conf_id() && told.conf_id == told.committed_conf_id;
        of_role && of_conf && told.removed_by == shared.removed_by && shared.handed_to.is_none()
    }

    fn tell_changes(&mut self) {
        let now = Told {
            role: self.role(),
            leader: self.leader(),
            removed_by: self.shared.removed_by,
            ..Told::of(&self.shared)
        };
        let before = std::mem::replace(&mut self.told, now);
        let shared = &mut self.shared;
        if (before.role, before.term, before.leader) != (now.role, now.term, now.leader) {
            let Told { role, term, leader, .. } = now;
            shared.out.events.push(Event::RoleChanged { role, term, leader });
        }
        if let Some(leader) = now.leader
            && let Some(to) = shared.handed_to.take()
        {
            let outcome =
                if leader == to { TransferOutcome::Done } else { TransferOutcome::Overtaken { leader } };
            shared.out.events.push(Event::TransferEnded { to, outcome });
        }
        // A node that was removed hears of no leader any more, whoever took over.
        if now.removed_by.is_some()
            && let Some(to) = shared.handed_to.take()
        {
            shared.out.events.push(Event::TransferEnded { to, outcome: TransferOutcome::Unknown });
        }
        if before.conf_id != now.conf_id {
            let conf = shared.log.conf().clone();
            shared.out.events.push(Event::ConfChanged { id: now.conf_id, conf });
        }
        if before.committed_conf_id != now.committed_conf_id {
            let (id, conf) = shared.log.conf_at(shared.commit);
            shared.out.events.push(Event::ConfCommitted { id, conf: conf.clone() });
        }
        let left = (before.is_member && !now.is_member).then_some(now.committed_conf_id);
        let told_to_leave = now.removed_by.filter(|_| before.removed_by != now.removed_by && now.is_member);
        if let Some(conf_id) = left.or(told_to_leave) {
            shared.out.events.push(Event::Removed { conf_id });
        }
    }
}

/// What the latest events told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Told {
    role: RoleKind,
    term: Term,
    leader: Option<NodeId>,
    conf_id: LogId,
    committed_conf_id: LogId,
    /// Named by the committed configuration.
    is_member: bool,
    removed_by: Option<LogId>,
}

impl Told {
    /// A follower without a leader.
    pub(crate) fn of(shared: &Shared) -> Told {
        let (committed_conf_id, committed) = shared.log.conf_at(shared.commit);
        Told {
            role: RoleKind::Follower,
            term: shared.term,
            leader: None,
            conf_id: shared.log.conf_id(),
            committed_conf_id,
            is_member: committed.contains(shared.id()),
            removed_by: None,
        }
    }
}

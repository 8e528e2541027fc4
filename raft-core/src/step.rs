//! A message comes in: the term rules first, then the role it is for (dissertation 3.3, Figure 3.1).

use crate::{
    AppendOutcome, Body, CampaignId, Epoch, HaltReason, LogId, LogIndex, Message, NodeId, Raft, Round,
    StepError,
    follower::{Follower, Sender},
    quorum::Tally,
    raft::Role,
    read_index::Asker,
    shared::{Next, Shared},
    validate,
};

impl Raft {
    /// Checks a message against the term rules and gives it to the role.
    pub(crate) fn message(&mut self, message: Message) -> Result<(), StepError> {
        validate::message(&message, self.id(), self.term())?;
        if let Body::Removed { conf_id } = message.body {
            self.removed(conf_id);
            return Ok(());
        }
        if let Role::Leader(leader) = &mut self.role {
            leader.sees(&mut self.shared, &message);
        }
        self.tell_stranger(&message);
        if message.term > self.term() {
            if let Body::PreVote { .. } = message.body
                && !planted!(PreVoteAdoptsTerm)
            {
                // A question about a later term changes nothing here (SAFETY E6).
                return self.dispatch(message);
            }
            if self.ignores_later_term(&message) {
                return Ok(());
            }
            self.enter_term(message.term);
        } else if message.term < self.term() {
            self.earlier_term(&message);
            return Ok(());
        }
        self.dispatch(message)
    }

    /// Whether a message of a later term must not end this one.
    fn ignores_later_term(&self, message: &Message) -> bool {
        let leads_on = self.has_quorum();
        // Strangers do not depose a leader that its members follow (SAFETY E10).
        if leads_on && !self.conf().contains(message.from) {
            return true;
        }
        match message.body {
            // The transfer flag is honoured only in the term that follows the leader's own (SAFETY E8).
            Body::RequestVote { transfer, .. } => {
                !(transfer && message.term == self.term().next())
                    && (self.is_loyal(message.from) || self.shared.is_bound())
            }
            Body::PreVote { .. }
            | Body::PreVoteReply { .. }
            | Body::RequestVoteReply { .. }
            | Body::AppendEntries { .. }
            | Body::AppendReply { .. }
            | Body::Heartbeat { .. }
            | Body::HeartbeatReply { .. }
            | Body::InstallSnapshot { .. }
            | Body::TimeoutNow
            | Body::ReadIndex { .. }
            | Body::ReadIndexReply { .. }
            | Body::Removed { .. }
            | Body::Refill { .. }
            | Body::SnapshotNeeded { .. } => false,
        }
    }

    /// Whether this node has a leader that it believes to live (SAFETY E7, E8).
    ///
    /// A leader that asks for votes itself leads no more: a later term is asked for only after that.
    fn is_loyal(&self, asker: NodeId) -> bool {
        if self.shared.term_leader == Some(asker) {
            return false;
        }
        if planted!(NoStickiness) {
            return false;
        }
        match &self.role {
            Role::Follower(follower) => follower.is_loyal(&self.shared),
            Role::PreCandidate(_) | Role::Candidate(_) => false,
            Role::Leader(leader) => leader.has_quorum(&self.shared),
        }
    }

    /// Answers a message of an earlier term with the own term, so that its sender is freed (SAFETY E14).
    ///
    /// Epoch and round are not echoed: should the sender lead this term as well by now, they would count as its own of
    /// this term, and an old round would confirm a new read (SAFETY P4, R1). No leader uses zero.
    fn earlier_term(&mut self, message: &Message) {
        if planted!(HeartbeatReplyOfEarlierTerm)
            && let (Body::HeartbeatReply { epoch, round, matched, clock }, Role::Leader(leader)) =
                (&message.body, &mut self.role)
        {
            let _ =
                leader.heartbeat_reply(&mut self.shared, message.from, (*epoch, *round), *matched, *clock);
        }
        let (from, clock) = (message.from, self.shared.now.wall);
        let (epoch, round) = (Epoch(0), Round(0));
        let answer = match &message.body {
            Body::PreVote { .. } if planted!(EarlierPreVoteUnanswered) => return,
            Body::AppendEntries { .. } | Body::Heartbeat { .. } if planted!(EarlierAppendUnanswered) => {
                return;
            }
            Body::PreVote { campaign, .. } => Body::PreVoteReply { campaign: *campaign, granted: false },
            Body::RequestVote { campaign, .. } => {
                Body::RequestVoteReply { campaign: *campaign, granted: false }
            }
            Body::AppendEntries { prev, .. } => Body::AppendReply {
                epoch,
                round,
                outcome: AppendOutcome::Rejected { prev: prev.index, hint: LogId::ZERO },
            },
            Body::InstallSnapshot { meta, .. } => Body::AppendReply {
                epoch,
                round,
                outcome: AppendOutcome::Rejected { prev: meta.last.index, hint: LogId::ZERO },
            },
            Body::Heartbeat { .. } => Body::HeartbeatReply { epoch, round, matched: LogIndex::ZERO, clock },
            Body::ReadIndex { start, request } => {
                Body::ReadIndexReply { start: *start, request: *request, index: None }
            }
            // A pre-vote's answer comes from whatever term its sender is in: it is told apart by its campaign.
            Body::PreVoteReply { campaign, granted } => {
                return self.pre_vote_reply(from, *campaign, *granted);
            }
            Body::RequestVoteReply { .. }
            | Body::AppendReply { .. }
            | Body::HeartbeatReply { .. }
            | Body::TimeoutNow
            | Body::ReadIndexReply { .. }
            | Body::Removed { .. }
            | Body::Refill { .. }
            | Body::SnapshotNeeded { .. } => return,
        };
        self.shared.send(from, answer);
    }

    /// Gives a message to the role it is for. Its term is ours, or it is a pre-vote.
    fn dispatch(&mut self, message: Message) -> Result<(), StepError> {
        let Message { from, body, .. } = message;
        match body {
            Body::PreVote { campaign, next_term, last } => {
                let granted = next_term > self.term()
                    && !self.is_loyal(from)
                    && !self.shared.is_bound()
                    && self.shared.may_vote()
                    && (self.shared.is_complete_enough(last) || planted!(PreVoteWithoutLogTest));
                let stands = matches!(self.role, Role::PreCandidate(_) | Role::Candidate(_));
                if planted!(CandidateIgnoresPreVotes) && stands {
                    return Ok(());
                }
                self.shared.send(from, Body::PreVoteReply { campaign, granted });
                if let Role::PreCandidate(candidate) = &mut self.role
                    && !granted
                {
                    candidate.ask_back(&mut self.shared, from);
                }
            }
            Body::RequestVote { campaign, last, transfer } => {
                let granted = self.request_vote(from, last, transfer);
                self.shared.send(from, Body::RequestVoteReply { campaign, granted });
            }
            Body::PreVoteReply { campaign, granted } => self.pre_vote_reply(from, campaign, granted),
            Body::RequestVoteReply { campaign, granted } => {
                if let Role::Candidate(candidate) = &mut self.role {
                    let tally = candidate.count(&self.shared, from, campaign, granted);
                    self.elected(tally);
                }
            }
            Body::AppendEntries { epoch, round, prev, commit, entries } => {
                let sender = Sender { from, epoch, round };
                let next = match self.heed(from) {
                    Some((follower, shared)) => follower.append(shared, sender, prev, commit, &entries),
                    None => Next::Stay,
                };
                self.turn(next);
            }
            Body::Heartbeat { epoch, round, prev, commit } => {
                let sender = Sender { from, epoch, round };
                if let Some((follower, shared)) = self.heed(from) {
                    follower.heartbeat(shared, sender, prev, commit);
                }
            }
            Body::InstallSnapshot { epoch, round, meta } => {
                let sender = Sender { from, epoch, round };
                let next = match self.heed(from) {
                    Some((follower, shared)) => follower.install(shared, sender, &meta),
                    None => Next::Stay,
                };
                self.turn(next);
            }
            Body::AppendReply { epoch, round, outcome } => {
                if let Role::Leader(leader) = &mut self.role {
                    let next = leader.append_reply(&mut self.shared, from, (epoch, round), outcome)?;
                    self.turn(next);
                }
            }
            Body::HeartbeatReply { epoch, round, matched, clock } => {
                if let Role::Leader(leader) = &mut self.role {
                    let next =
                        leader.heartbeat_reply(&mut self.shared, from, (epoch, round), matched, clock)?;
                    self.turn(next);
                }
            }
            Body::TimeoutNow => {
                if let Role::Follower(follower) = &self.role {
                    let next = follower.timeout_now(&self.shared, from);
                    self.turn(next);
                }
            }
            Body::ReadIndex { start, request } => {
                let asker = Asker::Follower { from, start, request };
                let taken = match &mut self.role {
                    Role::Leader(leader) => leader.read(&mut self.shared, asker),
                    Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => false,
                };
                if !taken {
                    self.shared.send(from, Body::ReadIndexReply { start, request, index: None });
                }
            }
            Body::Removed { conf_id } => self.removed(conf_id),
            Body::ReadIndexReply { start, request, index } => {
                if let Role::Follower(follower) = &mut self.role
                    && start == self.shared.config.start
                    && self.shared.term_leader == Some(from)
                {
                    follower.read_answered(&mut self.shared, request, index);
                }
            }
            Body::Refill { start, after, promised } => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.refill(&mut self.shared, from, (start, after, promised));
                }
            }
            Body::SnapshotNeeded { start, at_least } => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.snapshot_needed(&mut self.shared, from, start, at_least);
                }
            }
        }
        Ok(())
    }

    /// A candidate that is no member hears so, if no change is under way: it may have been down when it left. Nobody has left
    /// a cluster that still has its founding configuration.
    fn tell_stranger(&mut self, message: &Message) {
        let asks = matches!(message.body, Body::PreVote { .. } | Body::RequestVote { .. });
        let conf_id = self.conf_id();
        let settled = conf_id > LogId::ZERO && conf_id.index <= self.commit();
        if asks && settled && !self.conf().contains(message.from) {
            self.shared.send(message.from, Body::Removed { conf_id });
        }
    }

    /// A member says that this node is none any more, by a configuration that is committed. If that is newer than what the own
    /// log knows, or the very one, it campaigns no more until it hears a leader: safety does not need it, and who is needed
    /// has the newer log. The later term is the newer one: what is committed then is in every later log, and what an earlier
    /// term had at a higher index is not (SAFETY M2).
    fn removed(&mut self, conf_id: LogId) {
        let known = self.conf_id();
        if conf_id < known || (conf_id == known && self.conf().contains(self.id())) {
            return;
        }
        match &self.role {
            Role::Leader(_) => return,
            Role::PreCandidate(_) | Role::Candidate(_) => self.follow(),
            Role::Follower(_) => {}
        }
        self.shared.removed_by = Some(conf_id);
    }

    /// Follows `leader`, who leads this term; `None` if that cannot be and the node has halted.
    fn heed(&mut self, leader: NodeId) -> Option<(&mut Follower, &mut Shared)> {
        if self.shared.term_leader.is_some_and(|known| known != leader) {
            let term = self.term();
            self.halt(HaltReason::TwoLeaders { term, other: leader });
            return None;
        }
        self.shared.term_leader = Some(leader);
        self.shared.removed_by = None;
        self.shared.followed_at = Some(self.shared.now.instant);
        if planted!(AppendClearsVote) {
            self.shared.vote = None;
        }
        if !matches!(self.role, Role::Follower(_)) {
            self.follow();
        }
        let Role::Follower(follower) = &mut self.role else { return None };
        follower.hear(&mut self.shared);
        Some((follower, &mut self.shared))
    }

    /// Decides about a vote in the current term (dissertation 3.4, 3.6.1). The vote is given at most once, and never
    /// once a leader of the term is known.
    fn request_vote(&mut self, candidate: NodeId, last: LogId, transfer: bool) -> bool {
        let shared = &mut self.shared;
        if planted!(TwoVotesInOneTerm) {
            shared.vote = None;
        }
        let free = shared.vote.is_none() && shared.term_leader.is_none();
        let repeated = shared.vote == Some(candidate);
        if !(free || repeated)
            || !shared.may_vote()
            || (shared.is_bound() && !transfer && !repeated)
            || !(shared.is_complete_enough(last) || planted!(VoteWithoutLogTest))
        {
            return false;
        }
        if free {
            shared.vote_for(candidate);
        }
        if !matches!(self.role, Role::Follower(_)) {
            self.follow();
        }
        if let Role::Follower(follower) = &mut self.role {
            follower.be_patient(&mut self.shared);
        }
        true
    }

    fn pre_vote_reply(&mut self, from: NodeId, campaign: CampaignId, granted: bool) {
        let candidate = match &mut self.role {
            Role::PreCandidate(candidate) => candidate,
            Role::Candidate(candidate) => {
                if granted {
                    candidate.agreed(&mut self.shared, from, campaign);
                }
                return;
            }
            Role::Follower(_) | Role::Leader(_) => return,
        };
        match candidate.count(&self.shared, from, campaign, granted) {
            Tally::Won => self.turn(Next::Campaign { transfer: false }),
            Tally::Lost => self.turn(Next::Follow),
            Tally::Open => {}
        }
    }

    pub(crate) fn elected(&mut self, tally: Tally) {
        match tally {
            Tally::Won => self.turn(Next::Lead),
            Tally::Lost => self.turn(Next::Follow),
            Tally::Open => {}
        }
    }
}

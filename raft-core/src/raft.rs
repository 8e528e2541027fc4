//! The core itself: one owner, inputs in, [`Ready`] out. Term rules first, then the role, then the transition.

use crate::{
    AppendOutcome, Body, ConfState, Config, Epoch, Event, HaltReason, Input, Instant, LogId, LogIndex,
    Message, NodeId, Now, PeerStatus, Proposal, ProposeError, ReadError, ReadToken, Ready, Recovered,
    RoleKind, Round, SnapshotMeta, StartError, StepError, Term, Timestamp, TransferError, WriteId,
    candidate::Candidate,
    follower::{Follower, Sender},
    leader::Leader,
    log::Log,
    progress::Progress,
    quorum::Tally,
    read_index::Asker,
    shared::{Next, Shared},
    validate,
};

/// One node's consensus state.
///
/// **Driving it:** hand in whatever happened ([`handle`](Self::handle), [`propose`](Self::propose),
/// [`read`](Self::read)), then carry out [`take_ready`](Self::take_ready), then sleep until
/// [`next_deadline`](Self::next_deadline) or until something happens. Handing in all that waits before taking is what
/// makes batches. Nothing has to be called in a particular order, and nothing is to be acknowledged but what the
/// [`Ready`] names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Raft {
    pub(crate) shared: Shared,
    pub(crate) role: Role,
    halted: Option<HaltReason>,
    /// What the latest events told.
    told: Told,
}

/// What a node is at the moment, with the state that only then means something.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Follower(Follower),
    PreCandidate(Candidate),
    Candidate(Candidate),
    Leader(Box<Leader>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Told {
    role: RoleKind,
    term: Term,
    leader: Option<NodeId>,
    conf_id: LogId,
}

impl Raft {
    /// Starts a core from its settings and what its disk remembered.
    ///
    /// The state machine is expected to start from `recovered.snapshot`; everything committed after it is handed out
    /// by [`Ready::apply`].
    ///
    /// # Errors
    /// Settings or recovered state that cannot be.
    pub fn new(config: Config, recovered: Recovered, now: Now) -> Result<Raft, StartError> {
        config.validate().map_err(StartError::Config)?;
        let hard_state = recovered.hard_state;
        let log = Log::recover(recovered)?;
        if hard_state.term < log.last().term || hard_state.term == Term::MAX {
            return Err(StartError::Inconsistent("the log has entries of a later term than the hard state"));
        }
        let mut shared = Shared::new(config, hard_state, log, now);
        // A lone voter has nobody to wait for. Others try soon: if a leader lives, it is not disturbed by a pre-vote.
        let (soon, late) = (shared.config.heartbeat_ms, shared.config.election_timeout_min_ms);
        let alone = shared.log.conf().voters.len() == 1 && !shared.log.conf().is_joint();
        let patience_ms = if alone { 0 } else { shared.rng.between(soon, late) };
        let told =
            Told { role: RoleKind::Follower, term: shared.term, leader: None, conf_id: shared.log.conf_id() };
        let role = Role::Follower(Follower::new(&shared, patience_ms));
        Ok(Raft { shared, role, halted: None, told })
    }

    /// Takes one input. Its consequences are in the next [`take_ready`](Self::take_ready).
    ///
    /// # Errors
    /// The input was refused and changed nothing.
    pub fn handle(&mut self, now: Now, input: Input) -> Result<(), StepError> {
        if self.halted.is_some() {
            return Err(StepError::Halted);
        }
        self.clock(now);
        let outcome = match input {
            Input::Tick => {
                self.tick();
                Ok(())
            }
            Input::Message(message) => self.message(message),
            Input::Persisted(id) => self.persisted(id),
            Input::Applied(index) => match self.shared.apply.applied_to(index) {
                true => Ok(()),
                false => Err(StepError::Unexpected("applied what was never handed out")),
            },
            Input::Fetched { id, entries } => self.fetched(id, entries),
            Input::FetchFailed { id } => self.fetch_failed(id),
            Input::SnapshotTaken(meta) => match self.shared.snapshot_taken(meta) {
                true => Ok(()),
                false => Err(StepError::Unexpected("a snapshot of what was never applied")),
            },
            Input::SnapshotFailed { to, epoch } => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.snapshot_failed(&self.shared, to, epoch);
                }
                Ok(())
            }
            Input::PeerDied(peer) => {
                if let Role::Follower(follower) = &mut self.role {
                    follower.peer_died(&mut self.shared, peer);
                }
                Ok(())
            }
            Input::PeerConnected(peer) => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.peer_connected(peer);
                }
                Ok(())
            }
        };
        self.tell();
        outcome
    }

    /// Appends a command at the leader. The id it gets is committed once [`Ready::apply`] hands out an entry of this
    /// very id; another entry at its index means that it is lost for good.
    ///
    /// # Errors
    /// The command was not taken.
    pub fn propose(&mut self, now: Now, proposal: Proposal) -> Result<LogId, ProposeError> {
        if self.halted.is_some() {
            return Err(ProposeError::Halted);
        }
        self.clock(now);
        let leader = self.leader();
        match &mut self.role {
            Role::Leader(leader) => leader.propose(&mut self.shared, proposal),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                Err(ProposeError::NotLeader { leader })
            }
        }
    }

    /// Starts a linearizable read, at any node. [`Ready::reads`] answers, at the latest after an election timeout.
    ///
    /// # Errors
    /// The read was not started.
    pub fn read(&mut self, now: Now, token: ReadToken) -> Result<(), ReadError> {
        if self.halted.is_some() {
            return Err(ReadError::Halted);
        }
        self.clock(now);
        let known = self.leader().is_some();
        let taken = match &mut self.role {
            Role::Leader(leader) => leader.read(&self.shared, Asker::Local(token)),
            Role::Follower(follower) if known => follower.read(token),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                return Err(ReadError::NoLeader);
            }
        };
        if taken { Ok(()) } else { Err(ReadError::Busy) }
    }

    /// Hands leadership to `to` (dissertation 3.10). Until it has taken over, or an election timeout has passed,
    /// proposals are refused as busy.
    ///
    /// # Errors
    /// Nothing was started.
    pub fn transfer_leadership(&mut self, now: Now, to: NodeId) -> Result<(), TransferError> {
        if self.halted.is_some() {
            return Err(TransferError::Halted);
        }
        self.clock(now);
        let leader = self.leader();
        match &mut self.role {
            Role::Leader(leader) => leader.transfer(&self.shared, to),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                Err(TransferError::NotLeader { leader })
            }
        }
    }

    /// When to come back with [`Input::Tick`] if nothing else happens before. `None`: never. May change with every
    /// call that takes `&mut self`.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.halted.is_some() {
            return None;
        }
        let role = match &self.role {
            Role::Follower(follower) => follower.deadline(&self.shared),
            Role::PreCandidate(candidate) | Role::Candidate(candidate) => Some(candidate.deadline()),
            Role::Leader(leader) => leader.deadline(&self.shared),
        };
        [role, self.shared.apply.deadline()].into_iter().flatten().min()
    }

    /// Everything to be done since the last call; `None` if there is nothing.
    pub fn take_ready(&mut self) -> Option<Ready> {
        let mut ready = Ready::default();
        if self.halted.is_none() {
            match &mut self.role {
                Role::Follower(follower) => follower.flush(&mut self.shared),
                Role::Leader(leader) => leader.flush(&mut self.shared),
                Role::PreCandidate(_) | Role::Candidate(_) => {}
            }
            let hard_state = self.shared.hard_state();
            ready.write = self.shared.disk.take_write(hard_state, &self.shared.log);
            ready.apply = self.shared.take_apply();
            self.shared.trim();
            debug_assert_eq!(self.check(), Ok(()));
        }
        let out = std::mem::take(&mut self.shared.out);
        ready.messages = out.messages;
        ready.reads = out.reads;
        ready.fetches = out.fetches;
        ready.compact = out.compact;
        ready.events = out.events;
        (ready != Ready::default()).then_some(ready)
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.shared.config.id
    }

    /// The current term.
    pub fn term(&self) -> Term {
        self.shared.term
    }

    /// Whom this node voted for in the current term.
    pub fn vote(&self) -> Option<NodeId> {
        self.shared.vote
    }

    /// The current role.
    pub fn role(&self) -> RoleKind {
        match &self.role {
            Role::Follower(_) => RoleKind::Follower,
            Role::PreCandidate(_) => RoleKind::PreCandidate,
            Role::Candidate(_) => RoleKind::Candidate,
            Role::Leader(_) => RoleKind::Leader,
        }
    }

    /// Who leads the current term, if known; `None` while this node looks for another.
    pub fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Follower(_) => self.shared.term_leader.filter(|leader| *leader != self.id()),
            Role::PreCandidate(_) | Role::Candidate(_) => None,
            Role::Leader(_) => Some(self.id()),
        }
    }

    /// The commit index.
    pub fn commit(&self) -> LogIndex {
        self.shared.commit
    }

    /// The last index reported applied.
    pub fn applied(&self) -> LogIndex {
        self.shared.apply.applied()
    }

    /// The last entry of the log.
    pub fn last(&self) -> LogId {
        self.shared.log.last()
    }

    /// The entry before the first one the log keeps.
    pub fn log_start(&self) -> LogId {
        self.shared.log.start()
    }

    /// How far the log is on disk.
    pub fn durable(&self) -> LogIndex {
        self.shared.disk.durable()
    }

    /// The term of an entry of the log, or of the one before its first.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        self.shared.log.term_at(index)
    }

    /// The configuration in force.
    pub fn conf(&self) -> &ConfState {
        self.shared.log.conf()
    }

    /// The entry the configuration in force came from; [`LogId::ZERO`] for the founding one.
    pub fn conf_id(&self) -> LogId {
        self.shared.log.conf_id()
    }

    /// The configuration that was in force at an index at or behind the newest snapshot, and where it came from.
    pub fn conf_at(&self, index: LogIndex) -> (LogId, &ConfState) {
        self.shared.log.conf_at(index)
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> &SnapshotMeta {
        self.shared.log.snapshot()
    }

    /// Replicated time at the end of the log.
    pub fn time(&self) -> Timestamp {
        self.shared.log.time()
    }

    /// What a leader knows of its peers; empty elsewhere.
    pub fn peers(&self) -> Vec<(NodeId, PeerStatus)> {
        match &self.role {
            Role::Leader(leader) => {
                leader.peers.iter().map(|(id, peer)| (*id, Progress::status(peer))).collect()
            }
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => Vec::new(),
        }
    }

    /// Whether this node leads and a quorum answered it lately.
    pub fn has_quorum(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.has_quorum(&self.shared))
    }

    /// To whom leadership is being handed over.
    pub fn transfer_target(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(leader) => leader.transfer_target(),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }

    /// Why this node does nothing any more, if so.
    pub fn halted(&self) -> Option<HaltReason> {
        self.halted
    }

    /// Checks a message against the term rules and gives it to the role.
    fn message(&mut self, message: Message) -> Result<(), StepError> {
        validate::message(&message, self.id(), self.term())?;
        if message.term > self.term() {
            if let Body::PreVote { .. } = message.body {
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
                !(transfer && message.term == self.term().next()) && self.is_loyal()
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
            | Body::ReadIndexReply { .. } => false,
        }
    }

    /// Whether this node has a leader that it believes to live (SAFETY E7, E8).
    fn is_loyal(&self) -> bool {
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
        let (from, clock) = (message.from, self.shared.now.wall);
        let (epoch, round) = (Epoch(0), Round(0));
        let answer = match &message.body {
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
            | Body::ReadIndexReply { .. } => return,
        };
        self.shared.send(from, answer);
    }

    /// Gives a message to the role it is for. Its term is ours, or it is a pre-vote.
    fn dispatch(&mut self, message: Message) -> Result<(), StepError> {
        let Message { from, body, .. } = message;
        match body {
            Body::PreVote { campaign, next_term, last } => {
                let granted =
                    next_term > self.term() && !self.is_loyal() && self.shared.is_complete_enough(last);
                self.shared.send(from, Body::PreVoteReply { campaign, granted });
            }
            Body::RequestVote { campaign, last, .. } => {
                let granted = self.request_vote(from, last);
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
                    Role::Leader(leader) => leader.read(&self.shared, asker),
                    Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => false,
                };
                if !taken {
                    self.shared.send(from, Body::ReadIndexReply { start, request, index: None });
                }
            }
            Body::ReadIndexReply { start, request, index } => {
                if let Role::Follower(follower) = &mut self.role
                    && start == self.shared.config.start
                    && self.shared.term_leader == Some(from)
                {
                    follower.read_answered(&mut self.shared, request, index);
                }
            }
        }
        Ok(())
    }

    /// Follows `leader`, who leads this term; `None` if that cannot be and the node has halted.
    fn heed(&mut self, leader: NodeId) -> Option<(&mut Follower, &mut Shared)> {
        if self.shared.term_leader.is_some_and(|known| known != leader) {
            let term = self.term();
            self.halt(HaltReason::TwoLeaders { term, other: leader });
            return None;
        }
        self.shared.term_leader = Some(leader);
        if !matches!(self.role, Role::Follower(_)) {
            self.follow();
        }
        let Role::Follower(follower) = &mut self.role else { return None };
        follower.hear(&mut self.shared);
        Some((follower, &mut self.shared))
    }

    /// Decides about a vote in the current term (dissertation 3.4, 3.6.1). The vote is given at most once, and never
    /// once a leader of the term is known.
    fn request_vote(&mut self, candidate: NodeId, last: LogId) -> bool {
        let shared = &mut self.shared;
        let free = shared.vote.is_none() && shared.term_leader.is_none();
        let repeated = shared.vote == Some(candidate);
        if !(free || repeated) || !shared.is_complete_enough(last) {
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

    fn pre_vote_reply(&mut self, from: NodeId, campaign: crate::CampaignId, granted: bool) {
        let Role::PreCandidate(candidate) = &mut self.role else { return };
        match candidate.count(&self.shared, from, campaign, granted) {
            Tally::Won => self.turn(Next::Campaign { transfer: false }),
            Tally::Lost => self.turn(Next::Follow),
            Tally::Open => {}
        }
    }

    fn elected(&mut self, tally: Tally) {
        match tally {
            Tally::Won => self.turn(Next::Lead),
            Tally::Lost => self.turn(Next::Follow),
            Tally::Open => {}
        }
    }

    fn tick(&mut self) {
        let now = self.shared.now.instant;
        self.shared.apply.tick(now);
        let next = match &mut self.role {
            Role::Follower(follower) => follower.tick(&mut self.shared),
            Role::PreCandidate(candidate) | Role::Candidate(candidate) => {
                if candidate.deadline() <= now {
                    Next::PreCampaign
                } else {
                    Next::Stay
                }
            }
            Role::Leader(leader) => leader.tick(&mut self.shared),
        };
        self.turn(next);
    }

    fn persisted(&mut self, id: WriteId) -> Result<(), StepError> {
        if !self.shared.disk.was_issued(id) {
            return Err(StepError::Unexpected("a write that was never handed out is reported durable"));
        }
        let droppable = self.shared.persisted(id);
        if let Some(wanted) = droppable {
            let index = match &self.role {
                Role::Leader(leader) => leader.compaction_floor(&self.shared, wanted),
                Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => wanted,
            };
            self.shared.compact(index);
        }
        match &mut self.role {
            // The own vote counts once it is durable (SAFETY E3).
            Role::Candidate(candidate) if self.shared.disk.hard_state_is_durable() => {
                let tally = candidate.count_own(&self.shared);
                self.elected(tally);
            }
            Role::Leader(leader) => leader.persisted(&mut self.shared),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {}
        }
        Ok(())
    }

    fn fetched(&mut self, id: crate::FetchId, entries: Vec<crate::Entry>) -> Result<(), StepError> {
        if !self.shared.was_fetched(id) {
            return Err(StepError::Unexpected("entries that were never asked for"));
        }
        let rest = match &mut self.role {
            Role::Leader(leader) => leader.fetched(&mut self.shared, id, entries),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => Some(entries),
        };
        let now = self.shared.now.instant;
        if let Some(entries) = rest {
            // If nobody waits for them any more, they are dropped.
            self.shared.apply.take_fetched(id, entries, &self.shared.log, now);
        }
        Ok(())
    }

    fn fetch_failed(&mut self, id: crate::FetchId) -> Result<(), StepError> {
        if !self.shared.was_fetched(id) {
            return Err(StepError::Unexpected("a fetch that was never asked for failed"));
        }
        let now = self.shared.now.instant;
        let of_peer = match &mut self.role {
            Role::Leader(leader) => leader.fetch_failed(id, now),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => false,
        };
        if !of_peer {
            self.shared.apply.fetch_failed(id, now);
        }
        Ok(())
    }

    /// Makes the transition a role asked for.
    fn turn(&mut self, next: Next) {
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
    fn enter_term(&mut self, term: Term) {
        self.shared.enter_term(term);
        if let Role::Follower(follower) = &self.role {
            self.role = Role::Follower(follower.clone().in_new_term(&mut self.shared));
        } else {
            self.follow();
        }
    }

    /// Follows in the current term. Term and vote stay (SAFETY E4).
    fn follow(&mut self) {
        self.end_role();
        let patience_ms = self.shared.election_timeout_ms();
        self.role = Role::Follower(Follower::new(&self.shared, patience_ms));
    }

    fn pre_campaign(&mut self) {
        self.end_role();
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
        self.end_role();
        self.shared.enter_term(term);
        let own = self.id();
        self.shared.vote_for(own);
        self.role = Role::Candidate(Candidate::stand(&mut self.shared, transfer));
    }

    fn lead(&mut self) {
        self.shared.term_leader = Some(self.id());
        self.role = Role::Leader(Box::new(Leader::new(&mut self.shared)));
    }

    fn halt(&mut self, reason: HaltReason) {
        self.end_role();
        self.halted = Some(reason);
        self.shared.out.messages.clear();
        self.shared.out.events.push(Event::Halted(reason));
    }

    /// Fails the reads that were bound to the role.
    fn end_role(&mut self) {
        match &mut self.role {
            Role::Follower(follower) => follower.end(&mut self.shared),
            Role::Leader(leader) => leader.end(&mut self.shared),
            Role::PreCandidate(_) | Role::Candidate(_) => {}
        }
    }

    /// Time never goes back, whatever the caller says.
    fn clock(&mut self, now: Now) {
        let instant = self.shared.now.instant.max(now.instant);
        self.shared.now = Now { instant, wall: now.wall };
    }

    /// Reports what changed.
    fn tell(&mut self) {
        let (role, term, leader) = (self.role(), self.term(), self.leader());
        let conf_id = self.conf_id();
        let before = std::mem::replace(&mut self.told, Told { role, term, leader, conf_id });
        if (before.role, before.term, before.leader) != (role, term, leader) {
            self.shared.out.events.push(Event::RoleChanged { role, term, leader });
        }
        if before.conf_id != conf_id {
            let conf = self.conf().clone();
            self.shared.out.events.push(Event::ConfChanged { id: conf_id, conf });
        }
    }
}

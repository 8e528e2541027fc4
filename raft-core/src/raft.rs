//! The core itself: one owner, inputs in, [`Ready`] out. What becomes of a message is in `step`, how roles change in
//! `transition`, what can be seen from outside in `view`.

use crate::{
    ChangeError, ConfChange, Config, Entry, FetchId, HaltReason, Input, Instant, Lease, LogId, NodeId, Now,
    Proposal, ProposeError, ReadError, ReadToken, Ready, Recovered, StartError, StepError, TransferError,
    WriteId,
    candidate::Candidate,
    follower::Follower,
    leader::Leader,
    log::Log,
    read_index::Asker,
    shared::{Lost, Shared},
    transition::Told,
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
    pub(crate) halted: Option<HaltReason>,
    /// What the latest events told.
    pub(crate) told: Told,
    /// Something was handed in since outputs were taken.
    pub(crate) fresh: bool,
}

/// What a node is at the moment, with the state that only then means something.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Follower(Follower),
    PreCandidate(Candidate),
    Candidate(Candidate),
    Leader(Box<Leader>),
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
        let (hard_state, promised) = (recovered.hard_state, recovered.promised);
        let lost = Lost { promised, snapshot: recovered.snapshot_lost };
        let log = Log::recover(recovered)?;
        if hard_state.term < log.last().term || hard_state.term == crate::Term::MAX {
            return Err(StartError::Inconsistent("the log has entries of a later term than the hard state"));
        }
        if promised.is_some_and(|promised| promised.term > hard_state.term) {
            return Err(StartError::Inconsistent(
                "the log had promised an entry of a later term than the hard state",
            ));
        }
        let mut shared = Shared::new(config, hard_state, log, lost, now);
        // A lone voter has nobody to wait for. Others ask soon: a leader that lives is not disturbed by a pre-vote, and
        // learns that they are back. Not all at the same moment: they may have been started together.
        let soon_ms = shared.config.heartbeat_ms / 2;
        let conf = shared.log.conf();
        let alone = conf.voters.len() == 1 && conf.voters.contains(&shared.config.id) && !conf.is_joint();
        if let Some(recovering) = shared.recovering.filter(|_| alone) {
            return Err(StartError::DamagedAlone { promised: recovering.promised() });
        }
        if alone && shared.snapshot_lost.is_some() {
            return Err(StartError::SnapshotLostAlone { last: shared.log.snapshot().last });
        }
        if !alone {
            shared.bind_after_restart();
        }
        let handicap_ms = shared.decay.handicap_ms(&shared.config);
        let patience_ms = if alone { 0 } else { shared.rng.between(0, soon_ms).saturating_add(handicap_ms) };
        let told = Told::of(&shared);
        let role = Role::Follower(Follower::new(&shared, patience_ms));
        Ok(Raft { shared, role, halted: None, told, fresh: true })
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
            Input::SnapshotTaken(meta) => match self.shared.snapshot_taken(*meta) {
                true => Ok(()),
                false => Err(StepError::Unexpected("a snapshot of what was never applied")),
            },
            Input::SnapshotProgress { to, epoch } => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.snapshot_moves(&self.shared, to, epoch);
                }
                Ok(())
            }
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
        self.settle();
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

    /// Changes who votes and who learns, at the leader (dissertation chapter 4). What is appended is in force at once; its
    /// id is committed or lost like that of a command. If it is joint, the way out of it follows by itself, and
    /// [`Event::ConfCommitted`](crate::Event::ConfCommitted) tells when both are done. A leader that loses its vote by it
    /// hands over first.
    ///
    /// # Errors
    /// The change was not taken.
    pub fn change_membership(&mut self, now: Now, change: &ConfChange) -> Result<LogId, ChangeError> {
        if self.halted.is_some() {
            return Err(ChangeError::Halted);
        }
        self.clock(now);
        let leader = self.leader();
        let outcome = match &mut self.role {
            Role::Leader(leader) => leader.change(&mut self.shared, change),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                Err(ChangeError::NotLeader { leader })
            }
        };
        self.tell();
        outcome
    }

    /// Switches leases on, changes or ends them, at the leader (SAFETY R3): a change of the configuration like those of
    /// [`change_membership`](Self::change_membership), in force everywhere once it is committed. Never the default: with
    /// leases a clock that runs faster or slower than was said makes reads stale.
    ///
    /// # Errors
    /// The change was not taken.
    pub fn set_lease(&mut self, now: Now, lease: Option<Lease>) -> Result<LogId, ChangeError> {
        if self.halted.is_some() {
            return Err(ChangeError::Halted);
        }
        self.clock(now);
        let leader = self.leader();
        let outcome = match &mut self.role {
            Role::Leader(leader) => leader.set_lease(&mut self.shared, lease),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                Err(ChangeError::NotLeader { leader })
            }
        };
        self.tell();
        outcome
    }

    /// Starts a linearizable read, at any node. [`Ready::reads`] answers, at the latest after an election timeout. Where
    /// leases are on, `now` must have been looked at after the read was asked for.
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
            Role::Leader(leader) => leader.read(&mut self.shared, Asker::Local(token)),
            Role::Follower(follower) if known => follower.read(token),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                return Err(ReadError::NoLeader);
            }
        };
        if taken { Ok(()) } else { Err(ReadError::Busy) }
    }

    /// Hands leadership to `to` (dissertation 3.10). Until it has taken over, or an election timeout has passed,
    /// proposals are refused; [`Event::TransferEnded`](crate::Event::TransferEnded) tells how it ended.
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
        self.take_ready_into(&mut ready).then_some(ready)
    }

    /// As [`take_ready`](Self::take_ready), into a [`Ready`] that is used again and again, so that nothing has to be
    /// allocated. What it still held is dropped. `false` if there is nothing to do.
    pub fn take_ready_into(&mut self, ready: &mut Ready) -> bool {
        ready.clear();
        if !std::mem::take(&mut self.fresh) {
            return false;
        }
        if self.halted.is_none() {
            // Nothing that was proposed together is ever split but at the size of an append.
            self.shared.log.seal(self.shared.config.append_bytes_max);
            match &mut self.role {
                Role::Follower(follower) => follower.flush(&mut self.shared),
                Role::Leader(leader) => leader.flush(&mut self.shared),
                Role::PreCandidate(_) | Role::Candidate(_) => {}
            }
            let hard_state = self.shared.hard_state();
            ready.write = self.shared.disk.take_write(hard_state, &self.shared.log, self.shared.now.instant);
            self.shared.take_apply(&mut ready.apply);
            if self.shared.has_to_trim() {
                let replicated = match &self.role {
                    Role::Leader(leader) => leader.replicated(),
                    Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => None,
                };
                self.shared.trim(replicated);
            }
            debug_assert_eq!(self.check(), Ok(()));
        }
        let out = &mut self.shared.out;
        std::mem::swap(&mut ready.messages, &mut out.messages);
        std::mem::swap(&mut ready.reads, &mut out.reads);
        std::mem::swap(&mut ready.fetches, &mut out.fetches);
        ready.compact = out.compact.take();
        std::mem::swap(&mut ready.events, &mut out.events);
        !ready.is_empty()
    }

    /// Goes on with a change of the membership that became committed.
    fn settle(&mut self) {
        if let Role::Leader(leader) = &mut self.role {
            let next = leader.settle(&mut self.shared);
            self.turn(next);
        }
    }

    fn tick(&mut self) {
        let now = self.shared.now.instant;
        self.shared.apply.tick(now);
        let next = match &mut self.role {
            Role::Follower(follower) => follower.tick(&mut self.shared),
            Role::PreCandidate(candidate) => candidate.tick_asking(&mut self.shared),
            Role::Candidate(candidate) => candidate.tick(&mut self.shared),
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

    fn fetched(&mut self, id: FetchId, entries: Vec<Entry>) -> Result<(), StepError> {
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

    fn fetch_failed(&mut self, id: FetchId) -> Result<(), StepError> {
        if !self.shared.was_fetched(id) {
            return Err(StepError::Unexpected("a fetch that was never asked for failed"));
        }
        let of_peer = match &mut self.role {
            Role::Leader(leader) => leader.fetch_failed(&mut self.shared, id),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => false,
        };
        if !of_peer {
            let now = self.shared.now.instant;
            self.shared.apply.fetch_failed(id, now);
        }
        Ok(())
    }

    /// Time never goes back, whatever the caller says.
    fn clock(&mut self, now: Now) {
        self.fresh = true;
        let instant = self.shared.now.instant.max(now.instant);
        self.shared.now = Now { instant, wall: now.wall };
    }
}

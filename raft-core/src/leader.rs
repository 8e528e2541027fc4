//! Leading: take proposals, count acknowledgements, commit, confirm reads, hand over. Sending is in `replication`.

#[cfg(feature = "model")]
#[path = "model/leader.rs"]
mod model;

use std::collections::{BTreeMap, VecDeque};

use crate::{
    AppendOutcome, Body, Entry, EntryKind, Epoch, Event, Instant, LogId, LogIndex, NodeId, Now, Proposal,
    ProposeError, ReadOutcome, Round, StepError, Timestamp,
    candidate::{Candidate, Presence},
    progress::{Progress, ProgressState},
    quorum,
    read_index::{Asker, ReadQueue},
    shared::{Next, Shared, noop},
    transfer::Transfer,
};

/// A leader's own state: gone when it steps down.
///
/// Invariant: it never changes or drops an entry of its own log (SAFETY L2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Leader {
    pub(crate) peers: BTreeMap<NodeId, Progress>,
    /// The latest epoch; see [`Shared::epochs`].
    pub(crate) epochs: u64,
    /// The latest round; every append and heartbeat carries it.
    pub(crate) round: Round,
    /// When it began.
    pub(crate) round_began: Instant,
    reads: ReadQueue,
    /// The end of the log at the election. Once it is committed, the commit index is current: every entry that was
    /// committed before this term lies at or before it (SAFETY R1).
    inherited: LogIndex,
    /// Proposals of this term that are not committed: index and bytes.
    uncommitted: VecDeque<(LogIndex, usize)>,
    uncommitted_bytes: usize,
    /// When to tell the followers of a commit that no append has carried.
    pub(crate) notice_at: Option<Instant>,
    pub(crate) transfer: Option<Transfer>,
    /// The word to campaign has left: somebody may be elected at any time (SAFETY R3).
    pub(crate) lease_given_up: bool,
    /// When a leader that is being removed stops looking for a successor (SAFETY M5).
    pub(crate) departs_at: Option<Instant>,
    /// The latest configuration that was seen committed.
    pub(crate) settled_conf: LogId,
    /// A committed configuration that nothing follows from: it is not looked at again.
    pub(crate) done_with: Option<LogId>,
    /// Both clocks at the election: entries are stamped by the monotonic one, based on the other.
    pub(crate) elected: Now,
}

impl Leader {
    /// Takes office. A no-op is appended only if the log holds anything uncommitted: else there is nothing of earlier
    /// terms to commit, and the commit index is current as it is (SAFETY R1).
    ///
    /// Those who did not answer in the election may be down: they get a heartbeat when it is time, and entries once they
    /// are heard. Those who voted for it do not hurry either: they hear of the new leader with its first entries.
    pub(crate) fn new(shared: &mut Shared, election: &Candidate) -> Leader {
        let inherited = shared.log.last().index;
        let mut leader = Leader {
            peers: BTreeMap::new(),
            epochs: shared.epochs,
            round: Round(1),
            round_began: shared.now.instant,
            reads: ReadQueue::default(),
            inherited,
            uncommitted: VecDeque::new(),
            uncommitted_bytes: 0,
            notice_at: None,
            transfer: None,
            lease_given_up: false,
            departs_at: None,
            settled_conf: shared.log.conf_at(shared.commit).0,
            done_with: None,
            elected: shared.now,
        };
        leader.sync_peers(shared);
        for (id, peer) in &mut leader.peers {
            if !shared.log.conf().is_voter(*id) {
                continue;
            }
            match election.presence(*id) {
                Presence::Silent => {
                    peer.is_absent(shared.now.instant);
                    peer.greet_after(&shared.config, shared.now.instant);
                }
                Presence::Agreed if inherited <= shared.commit => {
                    peer.greet_after(&shared.config, shared.now.instant);
                }
                Presence::Agreed | Presence::Unknown => {}
            }
        }
        if inherited > shared.commit {
            leader.append_noop(shared);
        }
        leader
    }

    /// Takes a command, unless too much waits already.
    pub(crate) fn propose(&mut self, shared: &mut Shared, proposal: Proposal) -> Result<LogId, ProposeError> {
        if let Some(to) = self.transfer_target() {
            return Err(ProposeError::Transferring { to });
        }
        // Clients must not wait for a disk that hangs, or cannot be read (SAFETY V5).
        if shared.is_stalled() {
            return Err(ProposeError::Busy);
        }
        // One proposal always passes, however large.
        let waiting = self.uncommitted_bytes;
        if waiting > 0 && waiting.saturating_add(proposal.payload.len()) > shared.config.uncommitted_bytes_max
        {
            return Err(ProposeError::Busy);
        }
        Ok(self.append(shared, EntryKind::Command, proposal))
    }

    /// What became of an append or a snapshot at a peer.
    pub(crate) fn append_reply(
        &mut self,
        shared: &mut Shared,
        from: NodeId,
        (epoch, round): (Epoch, Round),
        outcome: AppendOutcome,
    ) -> Result<Next, StepError> {
        let last = shared.log.last().index;
        if round > self.round || matches!(outcome, AppendOutcome::Matched(index) if index > last) {
            return Err(StepError::BadMessage("it answers what was never sent"));
        }
        let Some(peer) =
            self.peers.get_mut(&from).filter(|peer| peer.epoch == epoch || planted!(AckOfOtherEpoch))
        else {
            return Ok(Next::Stay);
        };
        peer.heard(shared.now.instant);
        peer.acked_round = peer.acked_round.max(round);
        peer.promise.answered(round, shared.now.instant);
        match outcome {
            AppendOutcome::Matched(index) => self.matched(shared, from, index, true),
            AppendOutcome::Rejected { prev, hint } => self.rejected(shared, from, prev, hint),
        }
        self.confirm_reads(shared);
        Ok(Next::Stay)
    }

    /// A heartbeat's answer proves that the sender follows, and how far its log does.
    pub(crate) fn heartbeat_reply(
        &mut self,
        shared: &mut Shared,
        from: NodeId,
        (epoch, round): (Epoch, Round),
        matched: LogIndex,
        clock: Timestamp,
    ) -> Result<Next, StepError> {
        if round > self.round || matched > shared.log.last().index {
            return Err(StepError::BadMessage("it answers what was never sent"));
        }
        let now = shared.now;
        let Some(peer) =
            self.peers.get_mut(&from).filter(|peer| peer.epoch == epoch || planted!(AckOfOtherEpoch))
        else {
            return Ok(Next::Stay);
        };
        peer.heard(now.instant);
        peer.acked_round = peer.acked_round.max(round);
        peer.promise.answered(round, now.instant);
        peer.clock_offset_ms = clock.0.wrapping_sub(now.wall.0).cast_signed();
        let (checked, had) = peer.checked;
        if round == checked && matched < had && had >= peer.offered {
            // Asked about an entry it had acknowledged as durable, it says that it does not have it (SAFETY P5), and no
            // snapshot can be the reason. Its match stays, so that nothing committed is put in question; it gets nothing
            // more in this epoch.
            if !peer.regressed {
                peer.regressed = true;
                shared.out.events.push(Event::PeerRegressed { peer: from, matched: had, now: matched });
            }
        } else {
            self.matched(shared, from, matched, false);
        }
        self.confirm_reads(shared);
        Ok(Next::Stay)
    }

    /// A write became durable: the own copy counts up to there.
    pub(crate) fn persisted(&mut self, shared: &mut Shared) {
        if shared.disk.durable() > shared.commit {
            self.advance_commit(shared);
        }
    }

    /// Answers a read at once if this leader holds a lease; else queues it, `false` if too many wait.
    pub(crate) fn read(&mut self, shared: &mut Shared, asker: Asker) -> bool {
        if self.knows_commit(shared) && self.holds_lease(shared) {
            answer(shared, asker, Some(shared.commit));
            return true;
        }
        let expires = shared.now.instant.plus_millis(shared.config.election_timeout_max_ms);
        self.reads.push(asker, expires)
    }

    /// How far every peer is that entries are sent to; `None` if there is none.
    pub(crate) fn replicated(&self) -> Option<LogIndex> {
        let fed = self.peers.values().filter(|peer| matches!(peer.state(), ProgressState::Replicate { .. }));
        fed.map(Progress::matched).min()
    }

    /// Whether a quorum answered within the shortest election timeout: then nobody else can have been elected, and
    /// strangers are not listened to (SAFETY E10).
    pub(crate) fn has_quorum(&self, shared: &Shared) -> bool {
        let min_ms = shared.config.election_timeout_min_ms;
        self.quorum_heard_at(shared).is_some_and(|at| shared.now.instant < at.plus_millis(min_ms))
    }

    pub(crate) fn tick(&mut self, shared: &mut Shared) -> Next {
        let now = shared.now.instant;
        // Check-quorum: a leader that cannot commit makes room, and its heartbeats end with its role (dissertation
        // 6.2).
        if self.quorum_expires_at(shared).is_some_and(|at| at <= now) {
            return Next::Follow;
        }
        self.tick_transfer(shared);
        for asker in self.reads.expired(now) {
            answer(shared, asker, None);
        }
        self.tick_peers(shared);
        self.tick_disk(shared)
    }

    /// Heartbeats, a notice, a transfer's end, a check of the quorum: nothing at all for a cluster of one.
    pub(crate) fn deadline(&self, shared: &Shared) -> Option<Instant> {
        let expires = self.quorum_expires_at(shared);
        let disk = self.disk_deadline(shared);
        let own =
            [self.transfer_deadline(), self.departs_at, expires, self.reads.deadline(), self.notice_at, disk];
        own.into_iter().flatten().chain(self.peers_deadline(shared)).min()
    }

    /// Sends what is due: once for everything that came in together.
    pub(crate) fn flush(&mut self, shared: &mut Shared) {
        let asks = self.open_read_round(shared);
        self.renew_lease(shared);
        self.hand_over(shared);
        self.replicate(shared);
        // Last: who is asked owes an answer, and is sent no snapshot until it comes. With a read in each flush that would
        // be never.
        if asks {
            self.ask_voters(shared);
        }
    }

    /// Ends everything that was bound to leading.
    pub(crate) fn end(&mut self, shared: &mut Shared) {
        for asker in self.reads.abandon().into_iter().filter(|_| !planted!(ReadsForgotten)) {
            answer(shared, asker, None);
        }
        shared.epochs = self.epochs;
        // Whether it was handed over shows when the next leader is known.
        shared.handed_to = self.transfer_target();
    }

    /// The peer has everything up to `index`.
    fn matched(&mut self, shared: &mut Shared, from: NodeId, index: LogIndex, append: bool) {
        let now = shared.now.instant;
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let news = peer.advance(index, &shared.config, now);
        peer.rounds.reached(
            peer.matched(),
            shared.log.last().index,
            now,
            shared.config.election_timeout_min_ms,
        );
        let located = match peer.state() {
            ProgressState::Replicate { .. } => false,
            // A heartbeat's answer without news does not prove that a probe arrived.
            ProgressState::Probe { waiting } => (append || news || !waiting) && index.next() >= peer.next(),
            // Any acknowledgement from which the log can go on ends a snapshot (SAFETY P7).
            ProgressState::Snapshot { past, .. } => index >= shared.log.start().index.max(*past),
        };
        let outrun = matches!(peer.state(), ProgressState::Snapshot { pending, .. } if index >= *pending);
        if located {
            peer.replicate();
        } else if outrun {
            // It has the snapshot that was sent, and the log begins behind that by now: the next one is due.
            peer.probe(peer.matched().next());
        } else if !news && !append && peer.is_overdue(now) {
            peer.lost();
        } else if !news && !append && peer.is_slow(&shared.config, now) {
            peer.verify();
        }
        if news {
            // Who is only now as far as the commit index does not move it.
            if index > shared.commit {
                self.advance_commit(shared);
            }
            self.arm_notice(shared);
        }
    }

    /// The peer's log does not fit before `prev`.
    fn rejected(&mut self, shared: &Shared, from: NodeId, prev: LogIndex, hint: LogId) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let counts = match peer.state() {
            // Only the probe that waits can be refused; anything else is an old answer (SAFETY P3).
            ProgressState::Probe { waiting } => *waiting && prev.next() == peer.next(),
            ProgressState::Replicate { .. } => prev < peer.next(),
            ProgressState::Snapshot { .. } => false,
        };
        if (!counts || prev <= peer.matched()) && !planted!(RejectionLowersMatch) {
            return;
        }
        // The latest entry of ours that the follower's hint does not rule out. Before the start of our log only a
        // snapshot helps: the next send finds that out.
        let fit = shared.log.latest_not_above(hint.index, hint.term).map_or(LogIndex::ZERO, |id| id.index);
        peer.probe(fit.next().min(prev));
    }

    /// Commits what every majority has, if it is of this term (dissertation 5.4.2, Figure 3.7; SAFETY C1). The own
    /// copy counts as far as it is durable (SAFETY C2): a quorum of others may be faster than the own disk.
    fn advance_commit(&mut self, shared: &mut Shared) {
        let (own, last) = (shared.id(), shared.log.last().index);
        let durable = if planted!(OwnCopyBeforeDisk) { last } else { shared.disk.durable() };
        let matched = |id| {
            if id == own { durable } else { self.peers.get(&id).map_or(LogIndex::ZERO, Progress::matched) }
        };
        let matched = |id| if planted!(LeaderCommitsAlone) { durable } else { matched(id) };
        let Some(index) = quorum::reached(shared.log.conf(), matched) else { return };
        let is_own = shared.log.term_at(index) == Some(shared.term) || planted!(OldTermByCounting);
        if index <= shared.commit || !is_own {
            return;
        }
        shared.commit_to(index);
        while let Some((_, bytes)) = self.uncommitted.pop_front_if(|(last, _)| *last <= index) {
            self.uncommitted_bytes = self.uncommitted_bytes.saturating_sub(bytes);
        }
        self.arm_notice(shared);
    }

    /// An entry of this term without a command.
    pub(crate) fn append_noop(&mut self, shared: &mut Shared) {
        self.append(shared, EntryKind::Noop, noop());
    }

    /// Puts an entry at the end of the log. It is sent and written with the next [`flush`](Self::flush).
    pub(crate) fn append(&mut self, shared: &mut Shared, kind: EntryKind, proposal: Proposal) -> LogId {
        let id = shared.next_id();
        let passed_ms = shared.now.instant.micros_since(self.elected.instant) / 1000;
        let clock = Timestamp(self.elected.wall.0.saturating_add(passed_ms));
        let Proposal { payload, checksum, session } = proposal;
        let time = if planted!(TimeGoesBack) { clock } else { clock.max(shared.log.time()) };
        let entry = Entry { id, time, session, kind, checksum, payload };
        self.uncommitted.push_back((id.index, entry.size_bytes()));
        self.uncommitted_bytes = self.uncommitted_bytes.saturating_add(entry.size_bytes());
        shared.log.append(entry);
        shared.disk.stage_append(id.index);
        id
    }

    /// Whether everything that was committed before this term is known to be: the commit index is current (SAFETY R1).
    fn knows_commit(&self, shared: &Shared) -> bool {
        shared.commit >= self.inherited || planted!(ReadBeforeOwnCommit)
    }

    pub(crate) fn next_round(&mut self, now: Instant) {
        self.round = Round(self.round.0.saturating_add(1));
        self.round_began = now;
    }

    /// Appends that go out all the time leave no time for heartbeats: a lease lives on their rounds then.
    fn renew_lease(&mut self, shared: &Shared) {
        let now = shared.now.instant;
        let due = self.round_began.plus_millis(shared.config.heartbeat_ms) <= now;
        if due && shared.log.conf().lease.is_some() {
            self.next_round(now);
        }
    }

    /// Begins a round for the reads that wait for one, as soon as the commit index is known to be current. Whether it
    /// did.
    fn open_read_round(&mut self, shared: &Shared) -> bool {
        if !self.reads.wants_round() || !self.knows_commit(shared) {
            return false;
        }
        if !planted!(ReadByEarlierRound) {
            self.next_round(shared.now.instant);
        }
        self.reads.open_round(self.round, shared.commit);
        true
    }

    /// Asks every voter to confirm the round of the reads.
    fn ask_voters(&mut self, shared: &mut Shared) {
        let own = shared.id();
        let conf = shared.log.conf();
        let voters: Vec<NodeId> =
            conf.all().into_iter().filter(|id| *id != own && conf.is_voter(*id)).collect();
        for voter in voters {
            self.send_heartbeat(shared, voter);
        }
        self.confirm_reads(shared);
    }

    /// Answers the reads whose round every majority has answered.
    pub(crate) fn confirm_reads(&mut self, shared: &mut Shared) {
        if !self.reads.round_is_open() {
            return;
        }
        let (own, current) = (shared.id(), self.round);
        let acked = |id| {
            if id == own || planted!(ReadWithoutQuorum) {
                current
            } else {
                self.peers.get(&id).map_or(Round(0), |peer| peer.acked_round)
            }
        };
        let Some(round) = quorum::reached(shared.log.conf(), acked) else { return };
        for (asker, index) in self.reads.confirmed(round) {
            answer(shared, asker, Some(index));
        }
    }

    /// The moment since when a quorum has answered; the leader itself always does.
    fn quorum_heard_at(&self, shared: &Shared) -> Option<Instant> {
        let own = shared.id();
        let heard = |id| {
            if id == own {
                Instant(u64::MAX)
            } else {
                self.peers.get(&id).map_or(Instant(0), |peer| peer.heard_at)
            }
        };
        quorum::reached(shared.log.conf(), heard)
    }

    fn quorum_expires_at(&self, shared: &Shared) -> Option<Instant> {
        let min_ms = shared.config.election_timeout_min_ms;
        self.quorum_heard_at(shared).filter(|at| *at != Instant(u64::MAX)).map(|at| at.plus_millis(min_ms))
    }
}

/// Tells whoever asked.
fn answer(shared: &mut Shared, asker: Asker, index: Option<LogIndex>) {
    match asker {
        Asker::Local(token) => shared.out.reads.push(ReadOutcome { token, index }),
        Asker::Follower { from, start, request } => {
            shared.send(from, Body::ReadIndexReply { start, request, index });
        }
    }
}

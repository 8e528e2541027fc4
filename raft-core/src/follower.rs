//! Following: take what the leader sends, answer for what is durable, notice when the leader falls silent.

#[cfg(feature = "model")]
#[path = "model/follower.rs"]
mod model;

use crate::{
    AppendOutcome, Body, Entries, Entry, Epoch, HaltReason, Instant, LogId, LogIndex, NodeId, ReadOutcome,
    ReadToken, Round, SnapshotMeta,
    read_index::ForwardedReads,
    shared::{Next, Shared},
};

/// A follower's own state. Learners are followers too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Follower {
    /// When the leader of this term was last heard: by an append, a heartbeat or a snapshot, never by a vote (SAFETY
    /// E8).
    heard_at: Option<Instant>,
    /// When to look for a new leader.
    election_at: Instant,
    /// The leader's process was seen to die: it does not protect itself any more (SAFETY E8).
    suspects: bool,
    /// The log equals the leader's up to here. What is committed does so with every leader.
    verified: LogIndex,
    reads: ForwardedReads,
}

/// An append's or snapshot's return address.
#[derive(Clone, Copy)]
pub(crate) struct Sender {
    pub(crate) from: NodeId,
    pub(crate) epoch: Epoch,
    pub(crate) round: Round,
}

impl Follower {
    /// Starts to follow; looks for a leader itself after `patience_ms`.
    pub(crate) fn new(shared: &Shared, patience_ms: u64) -> Follower {
        Follower {
            heard_at: None,
            election_at: shared.now.instant.plus_millis(patience_ms),
            suspects: false,
            verified: shared.commit,
            reads: ForwardedReads::new(),
        }
    }

    /// The same follower in a later term. Its patience is not renewed: a candidate that cannot win must not keep those
    /// who could from trying.
    pub(crate) fn in_new_term(mut self, shared: &mut Shared) -> Follower {
        self.end(shared);
        Follower { election_at: self.election_at, ..Follower::new(shared, 0) }
    }

    /// Whether the leader of this term lives as far as this node can tell: then nobody else is voted for (SAFETY E8).
    pub(crate) fn is_loyal(&self, shared: &Shared) -> bool {
        let min_ms = shared.config.election_timeout_min_ms;
        shared.term_leader.is_some()
            && !self.suspects
            && self.heard_at.is_some_and(|at| shared.now.instant < at.plus_millis(min_ms))
    }

    /// The leader of this term was heard.
    pub(crate) fn hear(&mut self, shared: &mut Shared) {
        shared.leader_heard();
        let timeout_ms = shared.patience_ms();
        self.heard_at = Some(shared.now.instant);
        self.election_at = shared.now.instant.plus_millis(timeout_ms);
        self.suspects = false;
    }

    /// A vote was granted: its receiver gets time to win (dissertation 3.4).
    pub(crate) fn be_patient(&mut self, shared: &mut Shared) {
        let timeout_ms = shared.patience_ms();
        self.election_at = shared.now.instant.plus_millis(timeout_ms);
    }

    /// The process of `peer` is gone. If it led, an election begins soon: after a random moment, so that the others
    /// that saw it do not split the votes.
    pub(crate) fn peer_died(&mut self, shared: &mut Shared, peer: NodeId) {
        if planted!(SuspicionBreaksLease) && shared.term_leader == Some(peer) {
            shared.followed_at = None;
        }
        // Where leases are on, nobody would vote yet: the promise outlives the process (SAFETY R3).
        let waits = shared.lease_timeout_ms().is_some() && !planted!(SuspicionBreaksLease);
        if shared.term_leader == Some(peer) && !self.suspects && !waits {
            self.suspects = true;
            let delay_ms = shared.rng.between(0, shared.config.suspicion_delay_max_ms.saturating_add(1));
            let delay_ms = delay_ms.saturating_add(shared.handicap_ms());
            self.election_at = self.election_at.min(shared.now.instant.plus_millis(delay_ms));
        }
    }

    /// Dissertation 3.5, the receiver of AppendEntries.
    pub(crate) fn append(
        &mut self,
        shared: &mut Shared,
        sender: Sender,
        prev: LogId,
        commit: LogIndex,
        entries: &Entries,
    ) -> Next {
        let covered = shared.commit;
        let fits = shared.log.holds(prev)
            || planted!(AppendWithoutPrevTest)
            || (planted!(PrevComparedByIndex) && prev.index <= shared.log.last().index);
        if prev.index > covered && !fits {
            let hint = shared.log.latest_not_above(prev.index, prev.term).unwrap_or(shared.log.start());
            self.reply(shared, sender, AppendOutcome::Rejected { prev: prev.index, hint });
            return Next::Stay;
        }
        // What is committed here is committed at the leader too; a message about it can only repeat it (SAFETY L5).
        if let Some(conflict) = first_conflict_with_committed(shared, prev, entries) {
            return Next::Halt(conflict);
        }
        self.take_entries(shared, entries);
        // Only what this message verified, not the whole log: behind it a former leader's entries may lie (SAFETY L8).
        let verified = LogIndex(prev.index.0.saturating_add(entries.len() as u64)).max(covered);
        self.verified = self.verified.max(verified);
        let last = shared.log.last().index;
        shared.commit_to(commit.min(if planted!(CommitBeyondVerified) { last } else { verified }));
        let matched = if planted!(AckBeyondVerified) { last } else { verified };
        self.reply(shared, sender, AppendOutcome::Matched(matched));
        Next::Stay
    }

    /// Heartbeats verify what the leader believes we have, and never wait for the disk.
    pub(crate) fn heartbeat(&mut self, shared: &mut Shared, sender: Sender, prev: LogId, commit: LogIndex) {
        if shared.log.holds(prev) {
            self.verified = self.verified.max(prev.index);
        }
        if prev.index <= self.verified {
            shared.commit_to(commit.min(prev.index));
        }
        let verified = self.verified.max(shared.commit);
        let durable = shared.disk.durable();
        let matched = if planted!(HeartbeatAckBeforeFsync) { verified } else { verified.min(durable) };
        let (epoch, round, clock) = (sender.epoch, sender.round, shared.now.wall);
        shared.send(sender.from, Body::HeartbeatReply { epoch, round, matched, clock });
        shared.ask_for_refill(sender.from);
        shared.ask_for_snapshot(sender.from);
    }

    /// Dissertation 5, the receiver of InstallSnapshot.
    pub(crate) fn install(&mut self, shared: &mut Shared, sender: Sender, meta: &SnapshotMeta) -> Next {
        let last = meta.last;
        if shared.log.holds(last) && shared.replaces_lost(last.index) {
            shared.replace_snapshot(meta.clone());
            self.verified = self.verified.max(last.index);
        } else if last.index <= shared.commit && !planted!(InstallBelowCommit) {
            let ours = shared.log.term_at(last.index);
            if let Some(term) = ours.filter(|term| *term != last.term) {
                let ours = LogId { term, index: last.index };
                return Next::Halt(HaltReason::SnapshotConflictsWithCommitted { ours, theirs: last });
            }
        } else if shared.log.holds(last) && !planted!(InstallDropsSuffix) {
            // The log already has all the snapshot covers: the entries are applied instead, nothing is replaced
            // (SAFETY N1, N2).
            self.verified = self.verified.max(last.index);
            shared.commit_to(last.index);
        } else {
            // A snapshot that contradicts what the leader verified is a leader's that contradicts itself: only what is
            // committed is sure then.
            let verified = if last.index > self.verified { self.verified } else { LogIndex::ZERO };
            // What one leader wrote in one term is one log: that of a later entry begins with all that it wrote before.
            let own = shared.log.last();
            let same =
                if own.term == last.term && own.index < last.index { own.index } else { LogIndex::ZERO };
            shared.install(meta.clone(), verified.max(same).max(shared.commit));
            self.verified = last.index;
        }
        let matched = shared.commit;
        self.verified = self.verified.max(matched);
        if planted!(SnapshotAckBeforeMark) {
            let outcome = AppendOutcome::Matched(matched);
            let body = Body::AppendReply { epoch: sender.epoch, round: sender.round, outcome };
            shared.send(sender.from, body);
        }
        self.reply(shared, sender, AppendOutcome::Matched(matched));
        Next::Stay
    }

    /// Whether "campaign now" may be obeyed: only when the leader of this term says it (SAFETY E8).
    pub(crate) fn timeout_now(&self, shared: &Shared, from: NodeId) -> Next {
        if shared.term_leader == Some(from) && shared.may_campaign() {
            return Next::Campaign { transfer: true };
        }
        Next::Stay
    }

    /// Queues a read for the leader; `false` if too many wait.
    pub(crate) fn read(&mut self, token: ReadToken) -> bool {
        self.reads.push(token)
    }

    /// The leader answered a request.
    pub(crate) fn read_answered(&mut self, shared: &mut Shared, request: u64, index: Option<LogIndex>) {
        let tokens = self.reads.answered(request);
        shared.out.reads.extend(tokens.into_iter().map(|token| ReadOutcome { token, index }));
    }

    pub(crate) fn tick(&mut self, shared: &mut Shared) -> Next {
        let expired = self.reads.expired(shared.now.instant);
        shared.fail_reads(expired);
        if !shared.is_electable() || shared.now.instant < self.election_at {
            return Next::Stay;
        }
        if let Some(until) = shared.bound_until().filter(|until| shared.now.instant < *until) {
            self.election_at = until;
            return Next::Stay;
        }
        if shared.disk_is_late() {
            self.be_patient(shared);
            return Next::Stay;
        }
        Next::PreCampaign
    }

    /// A follower has one deadline, a learner none; waiting reads have theirs.
    pub(crate) fn deadline(&self, shared: &Shared) -> Option<Instant> {
        // Time may not run out while the disk is late: a write that becomes durable has the caller ask again.
        let on_time = shared.disk_is_late_at().is_none_or(|late_at| self.election_at < late_at);
        let election = (shared.is_electable() && on_time).then_some(self.election_at);
        [election, self.reads.deadline()].into_iter().flatten().min()
    }

    /// Asks the leader once for all reads that came in together.
    pub(crate) fn flush(&mut self, shared: &mut Shared) {
        if !self.reads.wants_request() {
            return;
        }
        let request = shared.next_request();
        let expires = shared.now.instant.plus_millis(shared.config.election_timeout_max_ms);
        self.reads.ask(request, expires);
        if let Some(leader) = shared.term_leader {
            shared.send(leader, Body::ReadIndex { start: shared.config.start, request });
        }
    }

    /// Ends everything that was bound to following.
    pub(crate) fn end(&mut self, shared: &mut Shared) {
        let tokens = self.reads.abandon();
        shared.fail_reads(tokens);
    }

    /// Appends what is new. Only a real conflict truncates: an older or shorter append changes nothing (SAFETY L3).
    fn take_entries(&mut self, shared: &mut Shared, entries: &Entries) {
        let known = |entry: &&Entry| {
            let kept = planted!(ConflictKept) && entry.id.index <= shared.log.last().index;
            !planted!(CutByDuplicateAppend)
                && (kept || entry.id.index <= shared.commit || shared.log.holds(entry.id))
        };
        let place = entries.iter().take_while(known).count();
        let Some(first) = entries.get(place) else { return };
        if first.id.index <= shared.log.last().index {
            let keep = match first.id.index.prev() {
                keep if planted!(CutBelowConflict) => keep.prev(),
                keep if planted!(CutBelowCommit) => keep.min(shared.commit.prev()),
                keep => keep,
            };
            // A leader that contradicts itself must not lead the commit index past the log's end.
            self.verified = self.verified.min(keep);
            shared.log.truncate_after(keep);
            shared.disk.stage_truncate(keep);
        }
        shared.disk.stage_append(first.id.index);
        shared.log.append_run(entries.part(place..entries.len()));
    }

    fn reply(&self, shared: &mut Shared, sender: Sender, outcome: AppendOutcome) {
        let promised = match outcome {
            AppendOutcome::Matched(_) if planted!(AckBeforeFsync) => LogIndex::ZERO,
            AppendOutcome::Matched(index) => index,
            AppendOutcome::Rejected { .. } => LogIndex::ZERO,
        };
        let body = Body::AppendReply { epoch: sender.epoch, round: sender.round, outcome };
        shared.send_after(sender.from, body, promised);
    }
}

/// The first entry of an append that contradicts what is committed here, as far as its term is still known.
fn first_conflict_with_committed(shared: &Shared, prev: LogId, entries: &[Entry]) -> Option<HaltReason> {
    let ids = std::iter::once(prev).chain(entries.iter().map(|entry| entry.id));
    ids.take_while(|id| id.index <= shared.commit).find_map(|theirs| {
        let term = shared.log.term_at(theirs.index).filter(|term| *term != theirs.term)?;
        let ours = LogId { term, index: theirs.index };
        Some(HaltReason::AppendConflictsWithCommitted { ours, theirs })
    })
}

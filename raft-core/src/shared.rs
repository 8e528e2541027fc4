//! What a node has in every role: term, vote, log, commit index, the queues towards disk and state machine.

#[cfg(feature = "model")]
#[path = "model/shared.rs"]
mod model;

use crate::{
    Apply, Body, CampaignId, Config, Event, Fetch, FetchId, HaltReason, HardState, Instant, LogId, LogIndex,
    Message, NodeId, Now, Proposal, ReadOutcome, ReadToken, SnapshotMark, SnapshotMeta, Term, WriteId,
    apply_queue::ApplyQueue, durability::Durability, log::Log, priority::Decay, recovering::Recovering,
    rng::Rng,
};

/// What a role's function wants to become of the node. The transition itself is made in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Next {
    /// As before.
    Stay,
    /// Follow, with nobody to follow yet.
    Follow,
    /// Ask whether an election would be won.
    PreCampaign,
    /// Stand for election.
    Campaign {
        /// The leader asked for it.
        transfer: bool,
    },
    /// Take office.
    Lead,
    /// Stop for good: something that cannot be has happened.
    Halt(HaltReason),
}

/// The state beside the role.
///
/// Invariants: `commit <= log.last`; the term never decreases; the vote changes at most once within a term (SAFETY
/// E2, E4) and the leader of a term is set at most once (SAFETY E11).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) now: Now,
    pub(crate) rng: Rng,
    pub(crate) term: Term,
    pub(crate) vote: Option<NodeId>,
    /// Who leads `term`, once known; kept while this node looks for a better one.
    pub(crate) term_leader: Option<NodeId>,
    pub(crate) log: Log,
    pub(crate) commit: LogIndex,
    pub(crate) disk: Durability,
    pub(crate) apply: ApplyQueue,
    /// The disk lost what this node had acknowledged (SAFETY D1).
    pub(crate) recovering: Option<Recovering>,
    /// The last entry of the own snapshot, if its file is lost and no leader's is in its place yet.
    pub(crate) snapshot_lost: Option<LogIndex>,
    /// How often this node waited for a leader in vain.
    pub(crate) decay: Decay,
    pub(crate) out: Outbox,
    /// To whom a leader that is none any more was handing over, until it is known who came after it.
    pub(crate) handed_to: Option<NodeId>,
    /// The configuration that, as a member says, does without this node. Forgotten when a leader is heard.
    pub(crate) removed_by: Option<LogId>,
    /// When this node last heard a leader, whatever the term: it may have promised to elect nobody for a while (SAFETY R3).
    pub(crate) followed_at: Option<Instant>,
    /// Until when a node that may have lost the entry which told of leases elects nobody.
    pub(crate) unsure_until: Option<Instant>,
    /// The latest epoch of the latest time this node led. They are counted on: what is told late of a snapshot that an
    /// earlier leadership sent fits none of this one.
    pub(crate) epochs: u64,
    fetches: u64,
    campaigns: u64,
    requests: u64,
}

/// What the next [`Ready`](crate::Ready) will hold beside writes and committed entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Outbox {
    pub(crate) messages: Vec<Message>,
    pub(crate) reads: Vec<ReadOutcome>,
    pub(crate) fetches: Vec<Fetch>,
    pub(crate) compact: Option<LogIndex>,
    pub(crate) events: Vec<Event>,
}

/// What the disk lost of what it had (SAFETY D1).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lost {
    /// The last entry that was acknowledged, if some of them are gone.
    pub(crate) promised: Option<LogId>,
    /// The newest snapshot's file.
    pub(crate) snapshot: bool,
}

impl Shared {
    pub(crate) fn new(config: Config, hard_state: HardState, log: Log, lost: Lost, now: Now) -> Shared {
        let snapshot = log.snapshot().last.index;
        let Lost { promised, snapshot: snapshot_lost } = lost;
        Shared {
            now,
            rng: Rng::new(config.seed),
            term: hard_state.term,
            vote: if planted!(VoteForgottenByRestart) { None } else { hard_state.vote },
            term_leader: None,
            // The commit index on disk is a hint and may be ahead of what the log kept (SAFETY C5).
            commit: hard_state.commit.min(log.last().index).max(snapshot),
            disk: Durability::new(log.last().index),
            apply: if snapshot_lost { ApplyQueue::bereft() } else { ApplyQueue::new(snapshot) },
            recovering: Recovering::new(promised, log.last()),
            snapshot_lost: snapshot_lost.then_some(snapshot),
            decay: Decay::default(),
            out: Outbox::default(),
            handed_to: None,
            removed_by: None,
            followed_at: None,
            unsure_until: None,
            epochs: 0,
            fetches: 0,
            // Campaigns of an earlier run have other numbers (SAFETY E7).
            campaigns: config.start.0 << 32,
            requests: 0,
            log,
            config,
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.config.id
    }

    /// Moves to a higher term, in which nobody has a vote or leads yet.
    pub(crate) fn enter_term(&mut self, term: Term) {
        debug_assert!(term > self.term, "term went back from {} to {term}", self.term);
        self.term = term;
        self.vote = None;
        self.term_leader = None;
        self.disk.stage_term();
    }

    /// Votes in the current term, for the first and only time.
    pub(crate) fn vote_for(&mut self, candidate: NodeId) {
        debug_assert!(self.vote.is_none(), "a second vote in term {}", self.term);
        self.vote = Some(candidate);
        self.disk.stage_vote();
    }

    /// Sends `body` once term and vote are durable (SAFETY E3).
    pub(crate) fn send(&mut self, to: NodeId, body: Body) {
        self.send_after(to, body, LogIndex::ZERO);
    }

    /// Sends `body`, which promises that the log is durable up to `entries` (SAFETY L6).
    pub(crate) fn send_after(&mut self, to: NodeId, body: Body, entries: LogIndex) {
        let message = Message { from: self.config.id, to, term: self.term, body };
        match self.disk.needed_for(entries) {
            None => self.out.messages.push(message),
            Some(write) => self.disk.hold(message, write, entries),
        }
    }

    pub(crate) fn commit_to(&mut self, index: LogIndex) {
        debug_assert!(index <= self.log.last().index, "commit beyond the end of the log");
        self.commit = self.commit.max(index);
    }

    /// Whether this node may stand for election: its log and its snapshot are whole (SAFETY D1), and it votes in the
    /// configuration in force or in the last committed one (SAFETY E9, M6).
    pub(crate) fn is_electable(&self) -> bool {
        let id = self.config.id;
        let votes = self.log.conf().is_voter(id) || self.log.conf_at(self.commit).1.is_voter(id);
        let whole = self.recovering.is_none() && self.snapshot_lost.is_none();
        votes && whole && self.may_vote() && self.removed_by.is_none()
    }

    /// Whether this node may vote. Learners may: they need not know yet that they were promoted (etcd #10998). Who came
    /// back with an empty directory may not: it does not remember its votes (SAFETY D2).
    pub(crate) fn may_vote(&self) -> bool {
        let member = self.log.conf().members.get(&self.config.id);
        !member.is_some_and(|member| member.incarnation.is_other(self.config.incarnation))
    }

    /// Whether a log that ends with `last` is at least as complete as ours (dissertation 3.6.1; SAFETY E5), or as ours
    /// was before it was damaged (SAFETY D1).
    pub(crate) fn is_complete_enough(&self, last: LogId) -> bool {
        if planted!(LogComparedByLength) {
            return last.index >= self.log.last().index;
        }
        last >= self.log.last() && self.recovering.is_none_or(|recovering| last >= recovering.promised())
    }

    pub(crate) fn election_timeout_ms(&mut self) -> u64 {
        self.rng.between(self.config.election_timeout_min_ms, self.config.election_timeout_max_ms)
    }

    pub(crate) fn next_campaign(&mut self) -> CampaignId {
        self.campaigns = self.campaigns.saturating_add(1);
        CampaignId(self.campaigns)
    }

    pub(crate) fn next_request(&mut self) -> u64 {
        self.requests = self.requests.saturating_add(1);
        self.requests
    }

    pub(crate) fn next_fetch(&mut self) -> FetchId {
        self.fetches = self.fetches.saturating_add(1);
        FetchId(self.fetches)
    }

    pub(crate) fn was_fetched(&self, id: FetchId) -> bool {
        id.0 <= self.fetches
    }

    pub(crate) fn hard_state(&self) -> HardState {
        let vote = if planted!(VoteNotPersisted) { None } else { self.vote };
        HardState { term: self.term, vote, commit: self.commit }
    }

    pub(crate) fn fail_reads(&mut self, tokens: Vec<ReadToken>) {
        self.out.reads.extend(tokens.into_iter().map(|token| ReadOutcome { token, index: None }));
    }

    /// Installs a received snapshot in place of the whole log. `sure`: how far the old log is known to equal the
    /// leader's. One write makes snapshot, log start and commit durable together (SAFETY N2).
    pub(crate) fn install(&mut self, meta: SnapshotMeta, sure: LogIndex) {
        self.log.reset(meta.clone());
        self.commit = meta.last.index;
        let mark = SnapshotMark { meta: meta.clone(), received: true, resets_log: true };
        self.disk.stage_reset(mark, sure);
        self.apply.restore(meta);
    }

    /// The write with this number is durable: what waited for it leaves. Tells up to where the log may be dropped if
    /// that write marked a snapshot taken here.
    pub(crate) fn persisted(&mut self, id: WriteId) -> Option<LogIndex> {
        let marks = self.disk.persisted(id, &mut self.out.messages);
        self.look_whether_whole();
        let mut droppable = None;
        for mark in marks {
            if mark.received {
                self.apply.marked(mark.last.index);
                self.note_replaced(mark.last);
            }
            if mark.resets_log {
                self.out.compact = self.out.compact.max(Some(mark.last.index));
            } else {
                droppable = Some(mark.last.index.minus(self.config.trailing_entries));
            }
        }
        droppable
    }

    /// Drops the log up to `index`, and the snapshots before the newest one even if no entry goes.
    pub(crate) fn compact(&mut self, index: LogIndex) {
        if index > self.log.start().index {
            self.log.compact(index);
        }
        // Not beyond `index`: a received snapshot may have moved the start in memory while its mark is still on its way
        // to the disk.
        let start = self.log.start().index.min(index);
        self.out.compact = self.out.compact.max(Some(start));
    }

    /// Notes a snapshot of the own state machine; `false` if it claims what was never applied.
    pub(crate) fn snapshot_taken(&mut self, mut meta: SnapshotMeta) -> bool {
        if meta.last.index <= self.log.snapshot().last.index {
            return true;
        }
        if meta.last.index > self.apply.applied() || !self.log.holds(meta.last) {
            return false;
        }
        // The log knows best which configuration was in force there (SAFETY M7).
        let (conf_id, conf) = self.log.conf_at(meta.last.index);
        (meta.conf_id, meta.conf) = (conf_id, conf.clone());
        self.log.note_snapshot(meta.clone());
        if planted!(CompactBeforeMark) {
            self.out.compact = self.out.compact.max(Some(meta.last.index));
        }
        self.disk.stage_mark(SnapshotMark { meta, received: false, resets_log: false });
        true
    }

    /// Adds the work for the state machine that may be handed out now.
    pub(crate) fn take_apply(&mut self, work: &mut Vec<Apply>) {
        let Shared { apply, log, config, commit, now, fetches, out, .. } = self;
        let mut request = |first, last, bytes_max| {
            *fetches = fetches.saturating_add(1);
            Fetch { id: FetchId(*fetches), first, last, bytes_max }
        };
        let commit = if planted!(ApplyUncommitted) { log.last().index } else { *commit };
        out.fetches.extend(apply.take(commit, log, config, now.instant, &mut request, work));
    }

    /// Whether more entries are in memory than are kept without need.
    pub(crate) fn has_to_trim(&self) -> bool {
        self.log.tail_bytes() > self.config.tail_bytes_idle_max.min(self.config.tail_bytes_max) as u64
    }

    /// Forgets the oldest entries in memory. What is durable, applied and has reached every peer that is fed (up to
    /// `replicated`) stays only as far as the idle limit, what a peer still needs as far as the larger one. Under a slow
    /// state machine also what it still has to get goes, and is fetched later.
    pub(crate) fn trim(&mut self, replicated: Option<LogIndex>) {
        let durable =
            if planted!(TailDroppedBeforeDisk) { self.log.last().index } else { self.disk.durable() };
        let used = durable.min(self.apply.handed());
        let (tail_max, idle_max) =
            (self.config.tail_bytes_max as u64, self.config.tail_bytes_idle_max as u64);
        self.log.trim_tail(used.min(replicated.unwrap_or(used)), idle_max.min(tail_max));
        self.log.trim_tail(used, tail_max);
        self.log.trim_tail(durable, tail_max.saturating_add(self.config.unapplied_bytes_max as u64));
    }

    /// A command as the next entry of the log.
    pub(crate) fn next_id(&self) -> LogId {
        LogId { term: self.term, index: self.log.last().index.next() }
    }
}

/// The empty command of a no-op.
pub(crate) fn noop() -> Proposal {
    Proposal::new(bytes::Bytes::new())
}

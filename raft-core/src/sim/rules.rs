//! The rules of SAFETY section 1 as checks, and the ghost state they need: what has been true once anywhere.
//!
//! A check looks only at what changed. The ghost remembers the hash of every prefix that was ever in a log, so that
//! "the same history" is one comparison however long the logs are. It sees what each core hands out and takes in and
//! what is on each disk, never the inside of a core. Two rules show up under another name: a stale completion that is
//! taken for a new one (L7) acknowledges or counts what is not on disk (L6, C2).

#![expect(clippy::wildcard_enum_match_arm, reason = "a rule looks at the few kinds of messages it concerns")]

mod events;
mod history;
mod membership;
mod plain;

use std::{collections::BTreeMap, fmt, sync::Arc};

pub(super) use self::membership::{e10_not_deposed_by_stranger, m2_conf_in_force};
pub(super) use self::plain::{
    answered, e6_pre_vote_changes_nothing, e13_absurd_term_refused, r1_read_is_current, r3_lease_is_over,
};
use super::{
    confs::{InForce, has_majorities},
    coverage::{Coverage, Mark},
    disk::{Log, Stored, count},
    network::{id, place},
};
use crate::{
    CampaignId, ConfState, Entry, Epoch, HardState, Incarnation, Instant, LogId, LogIndex, NodeId, RoleKind,
    Term,
};

/// A rule that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The rule's name in SAFETY section 1.
    pub rule: &'static str,
    /// What happened.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} broken: {}", self.rule, self.text)
    }
}

impl std::error::Error for Violation {}

/// The outcome of a check.
pub(super) type Checked = Result<(), Violation>;

/// The form of every rule: a fact that must hold, its name, and what to say if it does not.
pub(super) fn check(holds: bool, rule: &'static str, text: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(Violation { rule, text: text() }) }
}

/// What has been true once: never in the product.
#[derive(Clone, Debug)]
pub(super) struct Ghost {
    pub(super) members: Vec<Member>,
    election_timeout_min: u64,
    election_timeout_max: u64,
    leaders: BTreeMap<Term, NodeId>,
    /// By term, voter and data directory.
    granted: BTreeMap<(Term, NodeId, Incarnation), NodeId>,
    prefixes: Prefixes,
    committed: Vec<Committed>,
    /// The founding configuration and every one that was committed since.
    committed_confs: Vec<InForce>,
    /// How many of `committed` the workload has seen.
    reported: usize,
}

/// A committed entry: set once.
#[derive(Clone, Debug)]
pub(super) struct Committed {
    pub(super) hash: u64,
    /// In which leader's term.
    pub(super) term: Term,
    pub(super) entry: Entry,
}

/// The prefix hash of every (index, term) that was ever in a log. Almost always an index has one term.
#[derive(Clone, Debug, Default)]
struct Prefixes {
    first: Vec<(Term, u64)>,
    more: BTreeMap<(LogIndex, Term), u64>,
}

/// What the ghost knows of one node's current run.
#[derive(Clone, Debug, Default)]
pub(super) struct Member {
    pub(super) term: Term,
    pub(super) role: RoleKind,
    pub(super) commit: LogIndex,
    /// Its log as handed out, whether on disk yet or not.
    pub(super) log: Log,
    hard_state: HardState,
    leader: Option<(Term, NodeId)>,
    checked_commit: LogIndex,
    /// What it had acknowledged before its disk was damaged, until its log reaches that again (D1).
    promised: Option<LogId>,
    was_damaged: bool,
    /// The last entry of the furthest snapshot that was sent to it behind its leader's back.
    offered: LogIndex,
    compacted: LogIndex,
    handed: LogIndex,
    handed_hash: u64,
    /// Inputs since it last handed out its work.
    pub(super) inputs: u32,
    /// When it last heard the leader of its term, by its own clock, and who that is.
    contact: Option<(NodeId, Instant)>,
    asks: Vec<Ask>,
    campaign: Campaign,
    pre_campaign: Campaign,
    peers: Vec<Peer>,
    incarnation: Incarnation,
    /// Its own clock at its last input.
    now: Instant,
    /// To whom it is handing over, until when; and the same when it last handed out its work.
    transfer: Option<(NodeId, Instant)>,
    transfer_at_drain: Option<(NodeId, Instant)>,
    transfers_begun: u32,
    transfers_ended: u32,
    /// A joint configuration that it saw committed while it led, and when.
    departs: Option<(LogId, Instant)>,
}

/// A request for a vote or pre-vote, as its receiver saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) pre: bool,
    pub(super) term: Term,
    pub(super) candidate: NodeId,
    pub(super) campaign: CampaignId,
    pub(super) last: LogId,
    /// What the receiver was bound to when it was asked: a held answer leaves later.
    pub(super) own: LogId,
    /// The receiver heard its leader less than an election timeout ago.
    pub(super) sticky: bool,
}

/// One campaign, and who granted it.
#[derive(Clone, Copy, Debug, Default)]
struct Campaign {
    term: Term,
    number: CampaignId,
    granted: u32,
}

/// What a leader was told by one peer.
#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    term: Term,
    epoch: Epoch,
    /// The furthest success of this term and epoch that was delivered; and the same one and two drains ago.
    acked: LogIndex,
    acked_at_drain: LogIndex,
    acked_before_drain: LogIndex,
    /// The furthest success of this term by this data directory.
    proven: LogIndex,
    incarnation: Incarnation,
    /// The last answer that counts, by the leader's clock.
    heard: Option<Instant>,
}

/// What a core shows.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) term: Term,
    pub(super) role: RoleKind,
    pub(super) leader: Option<NodeId>,
    pub(super) commit: LogIndex,
    pub(super) now: Instant,
    pub(super) conf: InForce,
    /// To whom it hands over, and until when.
    pub(super) transfer: Option<(NodeId, Instant)>,
}

impl Ghost {
    pub(super) fn new(nodes: usize, timeout_ms: (u64, u64), founding: ConfState) -> Ghost {
        Ghost {
            members: vec![Member { peers: vec![Peer::default(); nodes], ..Member::default() }; nodes],
            election_timeout_min: timeout_ms.0 * 1000,
            election_timeout_max: timeout_ms.1 * 1000,
            leaders: BTreeMap::new(),
            granted: BTreeMap::new(),
            prefixes: Prefixes::default(),
            committed: Vec::new(),
            committed_confs: vec![(LogId::ZERO, Arc::new(founding))],
            reported: 0,
        }
    }

    /// The furthest index that is known to be committed anywhere.
    pub(super) fn commit(&self) -> LogIndex {
        LogIndex(self.committed.len() as u64)
    }

    /// Whether this is the hash of what was committed up to `index` (V2).
    pub(super) fn is_history(&self, index: LogIndex, hash: u64) -> bool {
        self.committed.get(count(index.0).wrapping_sub(1)).is_some_and(|committed| committed.hash == hash)
    }

    /// A snapshot leaves for `node` of which its leader's core knows nothing.
    pub(super) fn offers(&mut self, node: usize, last: LogIndex) {
        let offered = &mut self.members[node].offered;
        *offered = last.max(*offered);
    }

    /// Committed entries the workload has not seen yet.
    pub(super) fn unreported(&mut self) -> &[Committed] {
        let first = std::mem::replace(&mut self.reported, self.committed.len());
        &self.committed[first..]
    }

    /// Whether term and vote of a node are on its disk as it has them in memory: then it answers at once.
    pub(super) fn is_settled(&self, node: usize, durable: HardState) -> bool {
        let HardState { term, vote, .. } = self.members[node].hard_state;
        (durable.term, durable.vote) == (term, vote) && self.members[node].term == term
    }

    /// Who leads the latest term anyone was elected in.
    pub(super) fn latest_leader(&self) -> Option<(Term, NodeId)> {
        self.leaders.last_key_value().map(|(term, leader)| (*term, *leader))
    }
}

impl Member {
    /// What a candidate's log must reach: the own log's end, or what it was before damage (E5, D1).
    fn bound(&self) -> LogId {
        self.promised.unwrap_or_default().max(self.log.last())
    }

    fn asked(&self, matching: impl Fn(&Ask) -> bool) -> Vec<Ask> {
        self.asks.iter().filter(|ask| matching(ask)).copied().collect()
    }

    /// A reply tells that a peer has everything up to `index`.
    fn success(&mut self, peer: usize, term: Term, epoch: Epoch, index: LogIndex, coverage: &mut Coverage) {
        let known = &mut self.peers[peer];
        if self.role != RoleKind::Leader || term != self.term || known.term != term || known.epoch != epoch {
            coverage.hit(Mark::StaleReply);
            return;
        }
        if index < known.acked {
            coverage.hit(Mark::ReorderedSuccess);
        }
        known.acked = known.acked.max(index);
        known.proven = known.proven.max(index);
        known.heard = Some(self.now);
    }

    /// The leader speaks to a peer: what that peer surely had proven two drains ago, if that still counts.
    fn address(&mut self, peer: usize, term: Term, epoch: Epoch) -> Option<LogIndex> {
        if self.role != RoleKind::Leader || term != self.term {
            return None;
        }
        let named = self.log.conf().1.members.get(&id(peer)).map(|member| member.incarnation);
        let incarnation = named.unwrap_or_default();
        let known = &mut self.peers[peer];
        if known.term != term || known.epoch != epoch || known.incarnation != incarnation {
            let goes_on = known.term == term && known.incarnation == incarnation;
            let (proven, heard) = if goes_on { (known.proven, known.heard) } else { (LogIndex::ZERO, None) };
            *known = Peer { term, epoch, proven, heard, incarnation, ..Peer::default() };
        }
        Some(known.acked_before_drain).filter(|acked| *acked > self.compacted)
    }

    fn note_old_term_on_quorum(&self, node: usize, coverage: &mut Coverage) {
        if self.role != RoleKind::Leader || self.log.last().term != self.term {
            return;
        }
        let conf = &self.log.conf().1;
        let proven = |peer: NodeId| {
            let known = &self.peers[place(peer)];
            if known.term == self.term { known.proven } else { LogIndex::ZERO }
        };
        let reached = |index| has_majorities(conf, |peer| place(peer) == node || proven(peer) >= index);
        let quorum = conf.voters.iter().map(|id| proven(*id)).filter(|index| reached(*index)).max();
        let Some(quorum) = &quorum else { return };
        if *quorum > self.commit && self.log.term(*quorum).is_some_and(|term| term < self.term) {
            coverage.hit(Mark::OldTermOnQuorum);
        }
    }
}

impl Campaign {
    fn ask(&mut self, term: Term, number: CampaignId, node: usize) {
        if (self.term, self.number) != (term, number) {
            *self = Campaign { term, number, granted: 1 << node };
        }
    }

    fn count(&mut self, term: Term, number: CampaignId, voter: usize) {
        if (self.term, self.number) == (term, number) {
            self.granted |= 1 << voter;
        }
    }
}

impl Prefixes {
    /// Remembers the hash at `at` unless one is known; returns the one that counts.
    fn note(&mut self, at: LogId, hash: u64) -> u64 {
        let index = count(at.index.0) - 1;
        if self.first.len() <= index {
            self.first.resize(index + 1, (Term::ZERO, 0));
        }
        let first = &mut self.first[index];
        if first.0 == Term::ZERO {
            *first = (at.term, hash);
        }
        if first.0 == at.term { first.1 } else { *self.more.entry((at.index, at.term)).or_insert(hash) }
    }
}

/// Older requests for votes are forgotten: their answers have left long ago.
const ASKS_MAX: usize = 128;

/// The snapshot's hash that a stored write carries.
pub(super) fn snapshot_hash(stored: &Stored) -> Option<u64> {
    stored.snapshot.as_ref().map(|snapshot| snapshot.hash)
}

#[cfg(test)]
mod tests;

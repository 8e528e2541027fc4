//! What the model checker needs of the core: states that differ only in what cannot matter are made equal, and nodes can
//! trade names. `docs/MODEL.md` says why each step is sound. No product is built with it.
//!
//! The rule for time: after each step the core stands at [`BASE`], and whatever it remembers of the past happened just
//! then. The checker chooses anew at each step how much time has passed, so both sides of every comparison are explored.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
};

use crate::{
    Body, CampaignId, Epoch, Instant, Message, NodeId, Now, Raft, Round, Timestamp, priority::Decay,
    raft::Role, rng::Rng,
};

/// Where every core's clock stands between two steps. Far enough from zero that nothing lies before the beginning.
pub const BASE: Instant = Instant(1_000_000_000);

/// The names of the nodes after a trade.
pub type Names<'a> = &'a dyn Fn(NodeId) -> NodeId;

impl Raft {
    /// Forgets what cannot matter for safety. `one_epoch`: no peer is ever forgotten and met again within a term.
    ///
    /// To be called once [`take_ready`](Self::take_ready) has nothing more to tell.
    pub fn normalise(&mut self, one_epoch: bool) {
        let shared = &mut self.shared;
        shared.now = Now { instant: BASE, wall: Timestamp(0) };
        // Random choices only spread deadlines, and those are for the checker to choose.
        shared.rng = Rng::new(0);
        shared.decay = Decay::default();
        shared.number_from_zero();
        let term = shared.term;
        shared.disk.normalise(one_epoch);
        match &mut self.role {
            Role::Follower(follower) => follower.normalise(),
            Role::PreCandidate(candidate) => candidate.normalise(pre_vote_number(term.0)),
            Role::Candidate(candidate) => candidate.normalise(election_number(term.0)),
            Role::Leader(leader) => leader.normalise(one_epoch),
        }
    }

    /// The same core in a cluster whose nodes have other names. The configuration must be symmetric: the same set of
    /// members under the new names.
    #[must_use]
    pub fn renamed(&self, names: Names<'_>) -> Raft {
        let mut core = self.clone();
        let shared = &mut core.shared;
        shared.config.id = names(shared.config.id);
        for id in [&mut shared.vote, &mut shared.term_leader, &mut shared.handed_to] {
            *id = id.map(names);
        }
        shared.disk.rename(names);
        core.told.rename(names);
        match &mut core.role {
            Role::Follower(_) => {}
            Role::PreCandidate(candidate) | Role::Candidate(candidate) => candidate.rename(names),
            Role::Leader(leader) => leader.rename(names),
        }
        core
    }

    /// The same core without the messages that wait for the disk.
    #[must_use]
    pub fn without_held(&self) -> Raft {
        let mut core = self.clone();
        core.shared.disk.drop_held();
        core
    }

    /// A leader that has just been answered by everybody, whatever time it is.
    pub fn hear_peers(&mut self, at: Instant) {
        if let Role::Leader(leader) = &mut self.role {
            leader.peers.values_mut().for_each(|peer| peer.heard_at = at);
        }
    }
}

impl Message {
    /// See [`Raft::normalise`].
    pub fn normalise(&mut self, one_epoch: bool) {
        let term = self.term.0;
        match &mut self.body {
            Body::PreVote { campaign, .. } => *campaign = pre_vote_number(term),
            Body::RequestVote { campaign, .. } => *campaign = election_number(term),
            Body::AppendEntries { epoch, round, .. }
            | Body::AppendReply { epoch, round, .. }
            | Body::Heartbeat { epoch, round, .. }
            | Body::HeartbeatReply { epoch, round, .. }
            | Body::InstallSnapshot { epoch, round, .. } => {
                *round = (*round).min(Round(1));
                if one_epoch {
                    *epoch = (*epoch).min(Epoch(1));
                }
            }
            Body::PreVoteReply { .. }
            | Body::RequestVoteReply { .. }
            | Body::TimeoutNow
            | Body::ReadIndex { .. }
            | Body::ReadIndexReply { .. }
            | Body::Removed { .. }
            | Body::Refill { .. }
            | Body::SnapshotNeeded { .. } => {}
        }
    }

    /// The same message under other names.
    #[must_use]
    pub fn renamed(&self, names: Names<'_>) -> Message {
        Message { from: names(self.from), to: names(self.to), ..self.clone() }
    }
}

/// A node asks about one election a term; asking again is the same question.
const fn pre_vote_number(term: u64) -> CampaignId {
    CampaignId(2 * term + 1)
}

/// A node stands once a term: its vote for itself is on disk before anybody hears of it.
const fn election_number(term: u64) -> CampaignId {
    CampaignId(2 * term)
}

pub(crate) fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

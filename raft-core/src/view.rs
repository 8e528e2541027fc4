//! What a core shows of itself: plain looks at its state, for the runtime, status pages and checks.

use crate::{
    ConfState, HaltReason, Instant, LogId, LogIndex, NodeId, PeerStatus, Raft, RoleKind, SnapshotMeta, Term,
    Timestamp, progress::Progress, raft::Role,
};

impl Raft {
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

    /// The last entry this node had acknowledged, while its damaged log has not reached it again (SAFETY D1).
    pub fn promised(&self) -> Option<LogId> {
        self.shared.recovering.map(|recovering| recovering.promised())
    }

    /// The last entry of the own snapshot, while its file is lost and no leader's is in its place: the state machine is
    /// empty (SAFETY D1).
    pub fn snapshot_lost(&self) -> Option<LogIndex> {
        self.shared.snapshot_lost
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

    /// Until when this leader may read without asking anybody, by its own clock, if leases are on and it holds one now
    /// (SAFETY R3).
    pub fn lease_until(&self) -> Option<Instant> {
        match &self.role {
            Role::Leader(leader) => leader.lease_until(&self.shared),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }

    /// To whom leadership is being handed over.
    pub fn transfer_target(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(leader) => leader.transfer_target(),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }

    /// When a handover that goes on is given up.
    pub fn transfer_deadline(&self) -> Option<Instant> {
        match &self.role {
            Role::Leader(leader) => leader.transfer_deadline(),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => None,
        }
    }

    /// Why this node does nothing any more, if so.
    pub fn halted(&self) -> Option<HaltReason> {
        self.halted
    }
}

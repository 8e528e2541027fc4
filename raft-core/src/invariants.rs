//! What is true of a core at every moment. The simulator asks after each step, debug builds at each `take_ready`.

use crate::{
    LogIndex, NodeId, Raft, Term,
    progress::{Progress, ProgressState},
    raft::Role,
};

impl Raft {
    /// Checks what must hold of this node by itself; what holds between nodes is the simulator's to check.
    ///
    /// # Errors
    /// The sentence that is not true.
    pub fn check(&self) -> Result<(), &'static str> {
        let shared = &self.shared;
        let (log, commit) = (&shared.log, shared.commit);
        let (applied, handed) = (shared.apply.applied(), shared.apply.handed());
        let snapshot = log.snapshot().last;
        let told = [
            (log.start().index <= snapshot.index, "L9: the log starts behind its snapshot"),
            (snapshot.index <= commit, "L9: the snapshot covers what is not committed"),
            (applied <= handed, "N4: more was applied than was handed out"),
            (handed <= commit, "L9: what is not committed was handed out"),
            (commit <= log.last().index, "L9: the commit index lies behind the log's end"),
            (shared.disk.durable() <= log.last().index, "L7: what was cut off counts as durable"),
            (log.holds(snapshot), "N2: the log does not continue its snapshot"),
            (log.last().term <= shared.term, "L4: the log is ahead of the term"),
            (log.tail_is_in_place(), "the entries in memory are not the log's last"),
            (
                log.first_in_memory() <= shared.disk.durable().next().max(log.start().index.next()),
                "an entry was dropped from memory before it was durable",
            ),
            (log.conf().validate().is_ok(), "M8: the configuration in force is not valid"),
            (shared.term != Term::ZERO || shared.vote.is_none(), "E12: a vote in term 0"),
            (shared.term != Term::ZERO || shared.term_leader.is_none(), "E12: a leader in term 0"),
        ];
        if let Some((_, broken)) = told.into_iter().find(|(holds, _)| !holds) {
            return Err(broken);
        }
        self.check_role()
    }

    fn check_role(&self) -> Result<(), &'static str> {
        let own = self.id();
        match &self.role {
            Role::Follower(_) | Role::PreCandidate(_) => Ok(()),
            Role::Candidate(_) if self.shared.vote != Some(own) => {
                Err("E11: a candidate did not vote for itself")
            }
            Role::Candidate(_) => Ok(()),
            Role::Leader(_) if self.shared.vote != Some(own) => Err("E11: a leader did not vote for itself"),
            Role::Leader(_) if self.shared.term_leader != Some(own) => Err("E11: a leader follows another"),
            Role::Leader(leader) => leader.peers.iter().try_for_each(|(id, peer)| self.check_peer(*id, peer)),
        }
    }

    fn check_peer(&self, id: NodeId, peer: &Progress) -> Result<(), &'static str> {
        let last = self.shared.log.last().index;
        let config = &self.shared.config;
        if id == self.id() {
            return Err("a leader replicates to itself");
        }
        if peer.matched() >= peer.next() {
            return Err("P1: match is not below next");
        }
        if peer.matched() > last || peer.next() > last.next() {
            return Err("P1: a peer is ahead of its leader");
        }
        if let ProgressState::Replicate { in_flight } = peer.state() {
            if in_flight.len() > config.inflight_messages_max {
                return Err("P6: more appends are in flight than the window allows");
            }
            let first = in_flight.front().map_or(LogIndex(u64::MAX), |(last, _)| *last);
            if first <= peer.matched() {
                return Err("P6: what is acknowledged still counts as in flight");
            }
        }
        Ok(())
    }
}

//! The core itself: one owner, inputs in, [`Ready`] out.

use crate::{
    Config, Input, Instant, LogId, LogIndex, NodeId, Now, Proposal, ProposeError, ReadError, ReadToken,
    Ready, Recovered, RoleKind, StartError, StepError, Term,
};

/// One node's consensus state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Raft {
    config: Config,
}

#[expect(unused_variables, clippy::todo, reason = "the signatures come first")]
impl Raft {
    /// Starts a core from its settings and what its disk remembered.
    ///
    /// # Errors
    /// Settings or recovered state that cannot be.
    pub fn new(config: Config, recovered: Recovered, now: Now) -> Result<Raft, StartError> {
        todo!()
    }

    /// Takes one input. Its consequences are in the next [`take_ready`](Self::take_ready).
    ///
    /// # Errors
    /// The input was refused and changed nothing.
    pub fn handle(&mut self, now: Now, input: Input) -> Result<(), StepError> {
        todo!()
    }

    /// Appends a command at the leader. The id it gets is committed once [`Ready::apply`] hands out an entry of this
    /// very id; another entry at its index means that it is lost for good.
    ///
    /// # Errors
    /// The command was not taken.
    pub fn propose(&mut self, now: Now, proposal: Proposal) -> Result<LogId, ProposeError> {
        todo!()
    }

    /// Starts a linearizable read, at any node. [`Ready::reads`] answers, at the latest after an election timeout.
    ///
    /// # Errors
    /// The read was not started.
    pub fn read(&mut self, now: Now, token: ReadToken) -> Result<(), ReadError> {
        todo!()
    }

    /// When to come back with [`Input::Tick`] if nothing else happens before. `None`: never.
    pub fn next_deadline(&self) -> Option<Instant> {
        todo!()
    }

    /// Everything to be done since the last call; `None` if there is nothing.
    pub fn take_ready(&mut self) -> Option<Ready> {
        todo!()
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.config.id
    }

    /// The current term.
    pub fn term(&self) -> Term {
        todo!()
    }

    /// The current role.
    pub fn role(&self) -> RoleKind {
        todo!()
    }

    /// Who leads the current term, if known.
    pub fn leader(&self) -> Option<NodeId> {
        todo!()
    }

    /// The commit index.
    pub fn commit(&self) -> LogIndex {
        todo!()
    }
}

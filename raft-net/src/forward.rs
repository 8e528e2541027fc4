//! What nodes ask each other besides Raft: commands for the leader, and to be let in.

use bytes::Bytes;
use raft_core::{ClusterId, ConfState, NodeId, SessionSeq, StartNumber};
use tokio::sync::oneshot;

use crate::Hello;

/// A client's command on its way to the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The sender's number of it; comes back in the reply.
    pub request: u64,
    /// What kind of request; opaque here.
    pub kind: u8,
    /// The client session it belongs to, if any.
    pub session: Option<SessionSeq>,
    /// [`Entry::checksum_of`](raft_core::Entry::checksum_of) the payload, made where the command entered the cluster.
    /// Verified on receipt.
    pub checksum: u32,
    /// Opaque here.
    pub payload: Bytes,
}

/// Who forwarded something: that run of that node. Replies to an earlier run are not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ForwardOrigin {
    /// The node.
    pub node: NodeId,
    /// Its run.
    pub start: StartNumber,
}

/// The leader's answer to a [`Forward`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardReply {
    /// Echoed.
    pub request: u64,
    /// How it went.
    pub outcome: ForwardOutcome,
}

/// How a forwarded command went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardOutcome {
    /// Done; the reply is opaque here. Checked end to end.
    Ok(Bytes),
    /// Not executed: the receiver does not lead.
    NotLeader {
        /// Who does, as far as it knows.
        leader: Option<NodeId>,
    },
    /// Not executed: the leader is overloaded.
    Busy,
    /// It may or may not have been executed.
    Unknown,
    /// Not executed: larger than an entry may be.
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// Not executed, for a reason to show.
    Refused(String),
}

/// What a node that wants to join is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinAnswer {
    /// It is a learner now; start with this.
    Admitted {
        /// The cluster.
        cluster: ClusterId,
        /// The members, the new one included.
        conf: ConfState,
    },
    /// Ask there.
    NotLeader {
        /// The leader's peer address, if known.
        leader: Option<String>,
    },
    /// Not now; try again.
    Busy,
    /// No, and why.
    Refused(String),
}

/// A node that asks to be let in, from [`NetEvent::Join`](crate::NetEvent::Join). Dropping it answers [`JoinAnswer::Busy`].
#[derive(Debug)]
pub struct JoinRequest {
    /// Who asks: id, incarnation and addresses are in here.
    pub hello: Hello,
    pub(crate) answer: Option<oneshot::Sender<JoinAnswer>>,
}

impl JoinRequest {
    /// Answers it. Never blocks.
    pub fn answer(mut self, answer: JoinAnswer) {
        // If it has not waited for the answer it will ask again.
        if let Some(sender) = self.answer.take() {
            drop(sender.send(answer));
        }
    }
}

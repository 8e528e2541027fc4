//! What the replica wants done.

use bytes::Bytes;
use raft_core::{Event, Fetch, LogId, LogIndex, Message, NodeId, Proposal, SnapshotMeta, Write};

use crate::error::ClientError;

/// Everything to be done since the last call of [`Replica::take_effects`]. Each part may be carried out at once.
#[derive(Debug)]
#[must_use]
pub struct Effects<W, R> {
    /// For the peers.
    pub messages: Vec<Message>,
    /// For the log, in this order. More than one where a first one had consequences of its own.
    pub writes: Vec<Write>,
    /// For the applier, in this order.
    pub jobs: Vec<Job<W, R>>,
    /// For the log's readers.
    pub fetches: Vec<Fetch>,
    /// The log may forget everything up to here.
    pub compact: Option<LogIndex>,
    /// What was received of this snapshot is not needed. Remove it, then call [`Replica::snapshot_gone`].
    pub discard: Option<LogId>,
    /// Commands for another node.
    pub forwards: Vec<Forward>,
    /// Commands that ended without reaching the state machine.
    pub failed: Vec<(W, ClientError)>,
    /// Reads that ended without reaching the state machine.
    pub failed_reads: Vec<(R, ClientError)>,
    /// For logs and metrics.
    pub events: Vec<Event>,
    /// Replies to commands that were forwarded.
    pub replies: Vec<(W, Bytes)>,
}

/// Work for the applier.
#[derive(Debug)]
pub enum Job<W, R> {
    /// Apply these entries; `waiters` names by position who gets which reply.
    Apply {
        /// Committed, in order.
        entries: raft_core::Entries,
        /// Position in `entries`, and who waits for its reply.
        waiters: Vec<(usize, W)>,
    },
    /// Serve these reads on the state as it is at this point of the queue.
    Reads(Vec<R>),
    /// Replace the state by this snapshot.
    Restore(SnapshotMeta),
    /// Take a view of the state as it is at this point and write it out.
    TakeSnapshot,
}

/// A command on its way to the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The leader as far as this node knows.
    pub to: NodeId,
    /// This node's number for it, echoed in the answer.
    pub request: u64,
    /// The command.
    pub proposal: Proposal,
    /// Every command sent to that node before has been answered. After a refusal it takes none but such a one: what was
    /// on its way behind the refused command would overtake it.
    pub first: bool,
}

/// What became of a forwarded command, as the node it was sent to tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForwardOutcome {
    /// Committed and applied; the state machine's reply.
    Reply(Bytes),
    /// Not taken, for certain: may be tried elsewhere.
    NotLeader,
    /// Failed in the way the error tells.
    Failed(ClientError),
}

impl ForwardOutcome {
    /// What a node tells the one that forwarded a command to it.
    #[must_use]
    pub fn of(result: Result<Bytes, ClientError>) -> ForwardOutcome {
        match result {
            Ok(reply) => ForwardOutcome::Reply(reply),
            // Leaving is as good as not leading: the command was not taken and may be tried elsewhere.
            Err(ClientError::NotLeader | ClientError::NoLeader | ClientError::ShuttingDown) => {
                ForwardOutcome::NotLeader
            }
            Err(
                error @ (ClientError::Busy
                | ClientError::OutcomeUnknown
                | ClientError::TooLarge { .. }
                | ClientError::OutOfMemory
                | ClientError::DiskFull),
            ) => ForwardOutcome::Failed(error),
        }
    }
}

impl<W, R> Default for Effects<W, R> {
    fn default() -> Effects<W, R> {
        Effects {
            messages: Vec::new(),
            writes: Vec::new(),
            jobs: Vec::new(),
            fetches: Vec::new(),
            compact: None,
            discard: None,
            forwards: Vec::new(),
            failed: Vec::new(),
            failed_reads: Vec::new(),
            events: Vec::new(),
            replies: Vec::new(),
        }
    }
}

impl<W, R> Effects<W, R> {
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.writes.is_empty()
            && self.jobs.is_empty()
            && self.fetches.is_empty()
            && self.compact.is_none()
            && self.discard.is_none()
            && self.forwards.is_empty()
            && self.failed.is_empty()
            && self.failed_reads.is_empty()
            && self.events.is_empty()
            && self.replies.is_empty()
    }
}

//! What the core is told. Every fact of the outside world reaches it as one of these, and nothing else does.

use bytes::Bytes;

use crate::{Entry, Epoch, FetchId, LogIndex, Message, NodeId, SessionSeq, SnapshotMeta, WriteId};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// Time passed: at the latest when [`next_deadline`](crate::Raft::next_deadline) is reached.
    Tick,
    /// A peer's message, from a sender whose id the connection has proven.
    Message(Message),
    /// The write with this number, and every one before it, is durable. Completions may be skipped, never reordered
    /// with those of an earlier run.
    Persisted(WriteId),
    /// The state machine has applied everything up to here.
    Applied(LogIndex),
    /// The entries asked for by a [`Fetch`](crate::Fetch), a prefix of the range being enough.
    Fetched {
        /// Which request this answers.
        id: FetchId,
        /// Consecutive from the request's first index on.
        entries: Vec<Entry>,
    },
    /// The entries asked for could not be read.
    FetchFailed {
        /// Which request this answers.
        id: FetchId,
    },
    /// The state machine's snapshot up to this point is in a synced and renamed file.
    SnapshotTaken(Box<SnapshotMeta>),
    /// The transfer of a snapshot to this peer moves. To be told now and then while it does, much more often than every
    /// [`snapshot_timeout_ms`](crate::Config::snapshot_timeout_ms), and once more when the peer has all of it.
    SnapshotProgress {
        /// To whom it is going.
        to: NodeId,
        /// The epoch of its [`InstallSnapshot`](crate::Body::InstallSnapshot).
        epoch: Epoch,
    },
    /// The transfer of a snapshot to this peer broke off. Each attempt has an epoch that no other of this run has: news
    /// of one that was given up changes nothing, however late it comes.
    SnapshotFailed {
        /// To whom it was going.
        to: NodeId,
        /// The epoch of its [`InstallSnapshot`](crate::Body::InstallSnapshot).
        epoch: Epoch,
    },
    /// The peer's process is gone: its connection was reset and a new one refused (SAFETY E8).
    PeerDied(NodeId),
    /// The peer can be reached again: whatever was in flight to it may be lost.
    PeerConnected(NodeId),
}

/// A command for the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Proposal {
    /// The command.
    pub payload: Bytes,
    /// [`Entry::checksum_of`] the payload, made where the command entered the cluster.
    pub checksum: u32,
    /// The client session it belongs to, if any.
    pub session: Option<SessionSeq>,
}

impl Proposal {
    /// A command that enters the cluster here and now.
    #[must_use]
    pub fn new(payload: Bytes) -> Proposal {
        let checksum = Entry::checksum_of(&payload);
        Proposal { payload, checksum, session: None }
    }
}

/// The caller's name for a linearizable read; comes back in [`ReadOutcome`](crate::ReadOutcome).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadToken(pub u64);

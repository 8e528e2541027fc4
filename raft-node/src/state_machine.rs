//! What is replicated: the one trait a service has to implement.

use std::io;

use bytes::Bytes;
use raft_core::{LogIndex, SessionSeq, Timestamp};

/// A deterministic service whose every change comes through the log.
///
/// Invariant: the state after index i is a function of the commands up to i and nothing else. No clock, no
/// randomness, no iteration order that differs between processes, no configuration that differs between nodes.
///
/// A panic in any of this ends the node: what it leaves behind is nobody's state.
pub trait StateMachine: Send + 'static {
    /// Applies commands in order and returns exactly one reply for each.
    ///
    /// A command that makes no sense gets a reply that says so; it is committed and cannot be refused any more. When
    /// this returns, everything in the batch has been applied: a view taken next contains all of it.
    fn apply(&mut self, batch: &[Command]) -> Vec<Bytes>;

    /// A consistent view of the state as it is now, to be written out as a snapshot while more is applied.
    ///
    /// Called between two batches on the thread that applies, so it must be cheap: share, do not copy.
    fn view(&self) -> Box<dyn SnapshotView>;

    /// Replaces the whole state by the one a view has written. The bytes were checksummed by whoever kept them, but
    /// may come from another version.
    ///
    /// # Errors
    /// [`RestoreError`] if the bytes are no snapshot of this service. The state is then as it was before.
    fn restore(&mut self, from: &mut dyn io::Read) -> Result<(), RestoreError>;
}

/// One committed command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its place in the log. Increases from command to command, with gaps.
    pub index: LogIndex,
    /// Replicated time: the only clock a state machine may look at. Never less than in the command before.
    pub time: Timestamp,
    /// The client session it belongs to, if any: then it must take effect at most once (SAFETY X3).
    pub session: Option<SessionSeq>,
    /// What was proposed. A slice of a receive buffer or a log block: copy what is kept.
    pub payload: Bytes,
}

/// A frozen state on its way to a snapshot file.
pub trait SnapshotView: Send {
    /// Writes all of it. Runs on a thread of its own, as slowly as the disk likes.
    ///
    /// # Errors
    /// What the writer answers; the snapshot is then given up.
    fn write(self: Box<Self>, to: &mut dyn io::Write) -> io::Result<()>;
}

/// Why a snapshot was not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Reading it failed.
    #[error("a snapshot cannot be read")]
    Io(#[from] io::Error),
    /// It was written by a version, or a service, this one does not know.
    #[error("a snapshot of format {0:#x}, which this node does not know")]
    Format(u32),
    /// Its bytes contradict themselves.
    #[error("a damaged snapshot: {0}")]
    Damaged(&'static str),
}

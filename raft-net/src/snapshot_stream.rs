//! Snapshots travel on a connection of their own: offered, accepted from an offset on, sent in checked chunks, and
//! acknowledged once the receiver has the whole file on disk.

use std::io;

use bytes::Bytes;
use raft_core::{Body, Epoch, Message, NodeId, Round, SnapshotMeta, Term};
use serde::{Deserialize, Serialize};

/// What a leader offers. The first frame of a snapshot connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotOffer {
    /// The leader, as the handshake proved it.
    pub from: NodeId,
    /// The receiver.
    pub to: NodeId,
    /// The leader's term.
    pub term: Term,
    /// As in [`Body::InstallSnapshot`].
    pub epoch: Epoch,
    /// As in [`Body::InstallSnapshot`].
    pub round: Round,
    /// What the snapshot stands for.
    pub meta: SnapshotMeta,
    /// Names the file's content at the sender: a resumed transfer continues only the same id.
    pub snapshot_id: u64,
    /// Length of the file in bytes.
    pub length: u64,
}

impl SnapshotOffer {
    /// The offer for an [`InstallSnapshot`](Body::InstallSnapshot) message; `None` for any other.
    #[must_use]
    pub fn from_message(message: &Message, snapshot_id: u64, length: u64) -> Option<SnapshotOffer> {
        let Body::InstallSnapshot { epoch, round, meta } = &message.body else { return None };
        Some(SnapshotOffer {
            from: message.from,
            to: message.to,
            term: message.term,
            epoch: *epoch,
            round: *round,
            meta: SnapshotMeta::clone(meta),
            snapshot_id,
            length,
        })
    }

    /// The message to hand to the core once the whole file is verified and synced under a temporary name.
    #[must_use]
    pub fn to_message(&self) -> Message {
        Message {
            from: self.from,
            to: self.to,
            term: self.term,
            body: Body::InstallSnapshot {
                epoch: self.epoch,
                round: self.round,
                meta: Box::new(self.meta.clone()),
            },
        }
    }
}

/// Where the bytes of an outgoing snapshot come from. Called on a blocking thread, one call at a time.
pub trait SnapshotSource: Send + 'static {
    /// Fills `into` with the bytes from `offset` on.
    ///
    /// # Errors
    /// If they cannot be read; the transfer ends with [`SnapshotError::Source`].
    fn read_exact_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

/// Why the receiver does not want a snapshot, or did not keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum SnapshotRefusal {
    /// It has all this already.
    #[error("it has everything this snapshot covers")]
    NotNeeded,
    /// The offer is of an older term than its own.
    #[error("the offer is of an older term")]
    StaleTerm,
    /// It is receiving another one.
    #[error("it is busy with another snapshot")]
    Busy,
    /// Larger than it takes.
    #[error("the snapshot is too large for it")]
    TooLarge,
    /// The file's own checks failed.
    #[error("the file arrived damaged")]
    Damaged,
    /// Its disk failed or is full.
    #[error("its disk failed: {0}")]
    Disk(String),
}

/// Why a snapshot transfer ended early.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The receiver said no.
    #[error("the receiver refused the snapshot: {0}")]
    Refused(#[from] SnapshotRefusal),
    /// The peer could not be reached, or the handshake failed.
    #[error("no connection for the snapshot: {0}")]
    Connect(String),
    /// The connection broke.
    #[error("the snapshot's connection broke: {0}")]
    Io(#[from] io::Error),
    /// The other side broke the protocol.
    #[error("the snapshot's stream is malformed: {0}")]
    Frame(#[from] crate::FrameError),
    /// The other side broke the order of the stream.
    #[error("the snapshot's stream is out of order: {0}")]
    Protocol(&'static str),
    /// No progress within [`NetOptions::snapshot_timeout`](crate::NetOptions::snapshot_timeout).
    #[error("the snapshot made no progress in time")]
    Stalled,
    /// The file could not be read here.
    #[error("the snapshot could not be read: {0}")]
    Source(#[source] io::Error),
    /// Cancelled, replaced by a newer transfer, or the transport shut down.
    #[error("the snapshot was cancelled")]
    Cancelled,
}

/// An offered snapshot that waits for our decision. Dropping it closes the connection; the sender sees a failure.
#[derive(Debug)]
pub struct IncomingSnapshot {
    offer: SnapshotOffer,
}

impl IncomingSnapshot {
    /// What is offered.
    #[must_use]
    pub fn offer(&self) -> &SnapshotOffer {
        &self.offer
    }

    /// Says no and closes.
    pub async fn refuse(self, reason: SnapshotRefusal) {
        let _ = reason;
    }

    /// Takes the snapshot from `offset` on: zero, or as many bytes as an earlier, broken transfer of the same
    /// `snapshot_id` left behind.
    ///
    /// # Errors
    /// If `offset` exceeds the length or the connection breaks.
    pub async fn accept(self, offset: u64) -> Result<SnapshotReceiver, SnapshotError> {
        let _ = offset;
        unimplemented!()
    }
}

/// A snapshot on its way in. Nothing is read ahead of [`next_chunk`](Self::next_chunk) beyond one chunk, so a slow
/// disk slows the sender. Dropping it closes the connection; what was written may be resumed.
#[derive(Debug)]
pub struct SnapshotReceiver {
    offer: SnapshotOffer,
}

impl SnapshotReceiver {
    /// What is being received.
    #[must_use]
    pub fn offer(&self) -> &SnapshotOffer {
        &self.offer
    }

    /// The next bytes and where they belong; each chunk begins where the one before ended. `None` once the sender has
    /// sent all: now verify and sync the file, then call [`finish`](Self::finish).
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// If the connection breaks or stalls, or a chunk is damaged or out of place. What was returned so far is good.
    pub async fn next_chunk(&mut self) -> Result<Option<(u64, Bytes)>, SnapshotError> {
        unimplemented!()
    }

    /// Tells the sender how it ended: `Ok` once the whole file is verified and durable under its temporary name.
    ///
    /// # Errors
    /// If the answer could not be sent; the sender will then try again.
    pub async fn finish(self, outcome: Result<(), SnapshotRefusal>) -> Result<(), SnapshotError> {
        let _ = outcome;
        unimplemented!()
    }
}

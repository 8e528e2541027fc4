//! What can go wrong between two nodes. None of it ends the process: a connection is closed and made again.

use std::io;

use crate::Refusal;

/// Why received bytes are no frame of ours. The connection they came on is closed.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than the limit in force; nothing of that size was allocated.
    #[error("a frame of {length} bytes exceeds the limit of {limit}")]
    TooLong {
        /// As announced.
        length: usize,
        /// In force.
        limit: usize,
    },
    /// The lengths of a frame contradict each other.
    #[error("a frame of {length} bytes cannot hold a header of {header} bytes")]
    BadLength {
        /// Of the frame.
        length: usize,
        /// Of its header.
        header: usize,
    },
    /// The header's bytes are not what was sent.
    #[error("the checksum of a frame header does not match")]
    HeaderChecksum,
    /// A frame kind this release does not know.
    #[error("frame kind {0} is not known")]
    UnknownKind(u8),
    /// A frame version this release does not know.
    #[error("frame version {0} is not known")]
    UnknownVersion(u8),
    /// A flag this release does not know.
    #[error("frame flag bit {bit} is not known")]
    UnknownFlag {
        /// The lowest such bit, from 0.
        bit: u8,
    },
    /// A group this process does not have.
    #[error("group {0} is not known")]
    UnknownGroup(u32),
    /// The header cannot be read.
    #[error("a {kind} header cannot be read: {reason}")]
    BadHeader {
        /// Of which kind of frame.
        kind: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An entry's payload is not what was proposed.
    #[error("the payload of entry {0} is damaged")]
    PayloadChecksum(raft_core::LogId),
    /// A forwarded payload, a reply or a chunk is not what was sent.
    #[error("the payload of a {0} frame is damaged")]
    BodyChecksum(&'static str),
    /// A frame that may only come after the handshake.
    #[error("a {0} frame came before the handshake was done")]
    BeforeHandshake(&'static str),
    /// A frame that has no place on this kind of connection.
    #[error("a {frame} frame came on a {connection} connection")]
    Misplaced {
        /// The frame's kind.
        frame: &'static str,
        /// The connection's kind.
        connection: crate::ConnectionKind,
    },
    /// A message in another node's name (the handshake bound the connection to its sender).
    #[error("{bound} sent a message in the name of {claimed}")]
    WrongSender {
        /// Whom the handshake proved.
        bound: raft_core::NodeId,
        /// Whom the message names.
        claimed: raft_core::NodeId,
    },
    /// A message for another node.
    #[error("a message for {0} arrived here")]
    WrongReceiver(raft_core::NodeId),
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    Truncated,
    /// The connection itself failed.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Why a connection was not made.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The first bytes are not our magic.
    #[error("the other side does not speak this protocol{0}")]
    WrongMagic(&'static str),
    /// We refused.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// We were refused.
    #[error("refused by the other side: {0}")]
    RefusedByPeer(Refusal),
    /// Not done in time.
    #[error("the handshake took too long")]
    Timeout,
    /// A frame was malformed.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// Another frame than the one whose turn it was.
    #[error("a {0} frame came in the middle of a handshake")]
    Unexpected(&'static str),
    /// The connection failed or ended.
    #[error("{0}")]
    Io(#[from] io::Error),
}

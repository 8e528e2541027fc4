//! The node's end of the wire: peers go in, messages go out, events come back.

use std::{collections::BTreeMap, io};

use bytes::Bytes;
use raft_core::{ClusterId, ConfState, Epoch, Incarnation, Message, NodeId, SessionSeq, StartNumber};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::{
    ConnectionKind, FoundingMessage, Hello, IncomingSnapshot, LocalIdentity, NetOptions, Refusal,
    SnapshotError, SnapshotOffer, SnapshotSource,
};

/// Where a peer is, and which directory it must show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// `host:port`; resolved anew at each attempt to connect.
    pub address: String,
    /// The directory it was admitted with; [`Incarnation::UNKNOWN`] accepts any.
    pub incarnation: Incarnation,
}

/// What became of something to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Sent {
    /// It waits for its turn on the connection. It may still be lost.
    Queued,
    /// The peer is not known, or its queue is full. Raft repairs it; a forward has to be answered as busy.
    Dropped,
}

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

/// A node that asks to be let in, from [`NetEvent::Join`]. Dropping it answers [`JoinAnswer::Busy`].
#[derive(Debug)]
pub struct JoinRequest {
    /// Who asks: id, incarnation and addresses are in here.
    pub hello: Hello,
}

impl JoinRequest {
    /// Answers it. Never blocks.
    pub fn answer(self, answer: JoinAnswer) {
        let _ = answer;
    }
}

/// Something that came from the wire.
#[derive(Debug)]
pub enum NetEvent {
    /// A peer's message: sender and receiver are checked, every payload is intact.
    Message(Message),
    /// A follower forwards a command.
    Forward {
        /// Give this back with the reply.
        origin: ForwardOrigin,
        /// The command.
        forward: Forward,
    },
    /// The answer to one of this run's forwards.
    ForwardReply {
        /// Who answered.
        from: NodeId,
        /// The answer.
        reply: ForwardReply,
    },
    /// A connection we dialled is open. Whatever was in flight on the one before may be lost.
    PeerConnected {
        /// The peer.
        peer: NodeId,
        /// Which of the two connections.
        kind: ConnectionKind,
        /// What it told of itself.
        hello: Box<Hello>,
    },
    /// The peer's process is gone: a connection broke and the next was refused (SAFETY E8). At most once between two
    /// `PeerConnected`.
    PeerDied(NodeId),
    /// A connection was refused by one of the two sides. Told again only when the reason changes.
    PeerRefused {
        /// The peer: as dialled, or as it claimed to be.
        peer: NodeId,
        /// Whether it refused us; otherwise we refused it.
        by_peer: bool,
        /// Why.
        reason: Refusal,
    },
    /// A leader offers a snapshot.
    SnapshotIncoming(Box<IncomingSnapshot>),
    /// The receiver has the whole snapshot on disk.
    SnapshotSent {
        /// The receiver.
        to: NodeId,
        /// As offered.
        epoch: Epoch,
    },
    /// The transfer broke off. Offering it again resumes it.
    SnapshotFailed {
        /// The receiver.
        to: NodeId,
        /// As offered.
        epoch: Epoch,
        /// Why.
        error: SnapshotError,
    },
    /// A founder's message.
    Founding {
        /// Who, as the handshake proved it.
        from: NodeId,
        /// Its directory.
        incarnation: Incarnation,
        /// What it says.
        message: FoundingMessage,
    },
    /// A node asks to be let in.
    Join(JoinRequest),
}

/// The state of the link to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Where it is dialled.
    pub address: String,
    /// Whether the control connection is open.
    pub control_connected: bool,
    /// Whether the bulk connection is open.
    pub bulk_connected: bool,
    /// Bytes waiting on the control connection.
    pub control_queue_bytes: usize,
    /// Bytes waiting on the bulk connection.
    pub bulk_queue_bytes: usize,
    /// Messages dropped since the start, on both.
    pub dropped: u64,
    /// What it last told of itself, its addresses among it.
    pub hello: Option<Hello>,
    /// Why the last attempt to connect failed, while it is not connected.
    pub last_error: Option<String>,
}

/// Counts of the whole transport since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetStats {
    /// Frames written.
    pub frames_sent: u64,
    /// Bytes written.
    pub bytes_sent: u64,
    /// `writev` calls that wrote them.
    pub writes: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Frames dropped before they were written.
    pub dropped: u64,
    /// Connections closed for a malformed frame.
    pub malformed: u64,
    /// Handshakes that failed or were refused here.
    pub handshakes_failed: u64,
    /// Connections closed unauthenticated to make room for others.
    pub evicted: u64,
}

/// The wire of one node. Cloning it gives another handle; dropping the last one shuts it down.
#[derive(Clone, Debug)]
pub struct Transport {}

/// Events from the wire, small ones first.
#[derive(Debug)]
pub struct NetEvents {}

impl NetEvents {
    /// The next event; `None` once the transport has shut down. Cancel-safe.
    pub async fn recv(&mut self) -> Option<NetEvent> {
        std::future::pending().await
    }

    /// An event that waits already.
    pub fn try_recv(&mut self) -> Option<NetEvent> {
        None
    }
}

impl Transport {
    /// Starts accepting on `listener`. Nothing is dialled until [`set_peers`](Self::set_peers).
    ///
    /// Must be called within a tokio runtime of either flavour with I/O and time enabled.
    ///
    /// # Errors
    /// If the listener's own address cannot be read.
    ///
    /// # Panics
    /// If the identity's id is zero.
    pub fn start(
        options: NetOptions,
        identity: LocalIdentity,
        listener: TcpListener,
    ) -> io::Result<(Transport, NetEvents)> {
        let _ = (options, identity, listener);
        Ok((Transport {}, NetEvents {}))
    }

    /// The peers to hold connections with; ourselves is ignored. Peers that are gone are disconnected, those with
    /// another address dialled anew, and connections of another incarnation than the one named closed.
    pub fn set_peers(&self, peers: BTreeMap<NodeId, PeerInfo>) {
        let _ = peers;
    }

    /// Founding or joining is over: from now on only this cluster is spoken to. Connections made without a cluster
    /// are made again.
    pub fn set_cluster(&self, cluster: ClusterId) {
        let _ = cluster;
    }

    /// Queues a message for its receiver; never blocks. Appends take the bulk connection, everything else the control
    /// connection. [`InstallSnapshot`](raft_core::Body::InstallSnapshot) is not for this: see
    /// [`send_snapshot`](Self::send_snapshot); it is dropped here.
    pub fn send(&self, message: &Message) -> Sent {
        let _ = message;
        Sent::Dropped
    }

    /// Queues a command for the leader; never blocks. Forwards to one node arrive in the order they were queued, if
    /// they arrive.
    pub fn send_forward(&self, to: NodeId, forward: Forward) -> Sent {
        let _ = (to, forward);
        Sent::Dropped
    }

    /// Queues the answer to a forward; never blocks. Answers may arrive in any order.
    pub fn send_forward_reply(&self, to: ForwardOrigin, reply: ForwardReply) -> Sent {
        let _ = (to, reply);
        Sent::Dropped
    }

    /// Queues a founding message; never blocks.
    pub fn send_founding(&self, to: NodeId, message: &FoundingMessage) -> Sent {
        let _ = (to, message);
        Sent::Dropped
    }

    /// Streams a snapshot to `offer.to` on a connection of its own; never blocks. Ends in exactly one
    /// [`NetEvent::SnapshotSent`] or [`NetEvent::SnapshotFailed`] with the offer's epoch. A transfer to the same peer
    /// that is still under way fails as cancelled.
    pub fn send_snapshot(&self, offer: SnapshotOffer, source: impl SnapshotSource) {
        let _ = (offer, source);
    }

    /// Breaks off the transfer to this peer, if there is one.
    pub fn cancel_snapshot(&self, to: NodeId) {
        let _ = to;
    }

    /// The state of every link.
    #[must_use]
    pub fn peers_status(&self) -> BTreeMap<NodeId, PeerStatus> {
        BTreeMap::new()
    }

    /// Counts since the start.
    #[must_use]
    pub fn stats(&self) -> NetStats {
        NetStats::default()
    }

    /// Stops accepting, writes what is queued for at most `drain`, closes everything. The events end. Cancelling it
    /// leaves the rest to the background.
    pub async fn shutdown(&self, drain: std::time::Duration) {
        let _ = drain;
    }
}

/// Asks the node at `address` to let this one into its cluster.
///
/// `identity` must have no cluster yet. Waits for the answer at most `timeout`; a membership change takes a commit.
/// Cancel-safe.
///
/// # Errors
/// If the node cannot be reached, refuses the connection or does not answer.
pub async fn join(
    address: &str,
    identity: &LocalIdentity,
    options: &NetOptions,
    timeout: std::time::Duration,
) -> Result<JoinAnswer, crate::HandshakeError> {
    let _ = (address, identity, options, timeout);
    unimplemented!()
}

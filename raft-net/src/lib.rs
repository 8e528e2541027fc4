//! The wire of a Raft node: length-prefixed frames, the handshake, the connections between peers, snapshot streams,
//! and the founding of a cluster.
//!
//! ```text
//! runtime --send(&Message)--> queue (bounded) --writev--> peer        two connections per peer that we dial:
//!         <--NetEvents------- budget (bytes)  <--read---- peer        control (small) and bulk (appends, forwards)
//! ```
//!
//! [`Transport::start`] gives a handle to send with and [`NetEvents`] to receive from. Sending never blocks: what does
//! not fit is dropped and counted, and Raft repairs it. Receiving is held back by bytes: what the runtime has not
//! taken is not read from the sockets, so TCP holds the peer back. Nothing here knows terms, leaders or disks.
//!
//! To understand ... start at
//! - the bytes of a frame: `frame.rs`, then `wire.rs` for what stands in it, `codec.rs` for limits and buffers;
//! - who is let in: [`judge`], a function of its arguments; `books.rs` keeps them true;
//! - sending: `outbound.rs`; receiving: `inbound.rs`; snapshots: `snapshot_stream.rs`;
//! - how a cluster begins: [`Founding`], a state machine without I/O.
//!
//! Invariants:
//! - A heartbeat never waits behind an append or a snapshot: not in a queue, not on a connection, not on its way to
//!   the runtime.
//! - Bytes from the wire never cause a panic, and never an allocation larger than a limit of [`NetOptions`]: 4 KiB
//!   before the handshake is done.
//! - A delivered message is from the node the handshake proved and for this one; every payload in it is intact.
//! - A connection that brought one malformed frame is closed; the process lives.
//! - Nodes of different clusters exchange nothing but the reason why not.
//!
//! Absent on purpose: retries, order and acknowledgements of messages (Raft assumes none of them), and compression.
//! A CRC finds damage, not attackers: whoever can reach the port and knows the cluster id is taken at its word, so the
//! port belongs on a trusted network.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "whatever a connection does not expect is refused, new kinds of frames too"
)]

mod books;
mod codec;
mod error;
mod events;
mod forward;
mod founding;
mod frame;
mod handshake;
mod inbound;
mod options;
mod outbound;
mod snapshot_stream;
mod transport;
mod wire;

pub use codec::FrameCodec;
pub use error::{FrameError, HandshakeError};
pub use events::{NetEvent, NetEvents};
pub use forward::{Forward, ForwardOrigin, ForwardOutcome, ForwardReply, JoinAnswer, JoinRequest};
pub use founding::{
    Founding, FoundingMessage, FoundingOutcome, FoundingOutput, FoundingRefusal, FoundingStartError, Pin,
};
pub use frame::{FrameKind, HEADER_BYTES_MAX, PRELUDE_BYTES};
pub use handshake::{
    Addresses, ConnectionKind, FoundersDigest, Hello, KNOWN_FEATURES, Known, KnownPeer, LiveProcess,
    LocalIdentity, MAGIC, Refusal, Standing, VERSION_MAX, VERSION_MIN, judge, read_opening, standing,
};
pub use options::{
    FRAME_OVERHEAD_BYTES, HANDSHAKE_FRAME_BYTES_MAX, NetOptions, SNAPSHOT_CHUNK_BYTES_MAX, TEXT_BYTES_MAX,
};
pub use snapshot_stream::{
    IncomingSnapshot, SnapshotError, SnapshotOffer, SnapshotReceiver, SnapshotRefusal, SnapshotSource,
};
pub use transport::{NetStats, PeerInfo, PeerStatus, Sent, Transport, join};
pub use wire::{APPEND_ENTRIES_MAX, Packet};

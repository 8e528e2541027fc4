//! Length-prefixed frames, handshake and peer connections for Raft.

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
    LocalIdentity, MAGIC, Refusal, VERSION_MAX, VERSION_MIN, judge, may_do_more_than_found, read_opening,
};
pub use options::{
    FRAME_OVERHEAD_BYTES, HANDSHAKE_FRAME_BYTES_MAX, NetOptions, SNAPSHOT_CHUNK_BYTES_MAX, TEXT_BYTES_MAX,
};
pub use snapshot_stream::{
    IncomingSnapshot, SnapshotError, SnapshotOffer, SnapshotReceiver, SnapshotRefusal, SnapshotSource,
};
pub use transport::{NetStats, PeerInfo, PeerStatus, Sent, Transport, join};
pub use wire::{APPEND_ENTRIES_MAX, Packet};

//! Length-prefixed frames, handshake and peer connections for Raft.

mod error;
mod founding;
mod handshake;
mod options;
mod snapshot_stream;
mod transport;

pub use error::{FrameError, HandshakeError};
pub use founding::{
    Founding, FoundingMessage, FoundingOutcome, FoundingOutput, FoundingRefusal, FoundingStartError, Pin,
};
pub use handshake::{
    Addresses, ConnectionKind, FoundersDigest, Hello, Known, KnownPeer, LiveProcess, LocalIdentity, MAGIC,
    Refusal, VERSION_MAX, VERSION_MIN,
};
pub use options::{
    FRAME_OVERHEAD_BYTES, HANDSHAKE_FRAME_BYTES_MAX, NetOptions, SNAPSHOT_CHUNK_BYTES_MAX, TEXT_BYTES_MAX,
};
pub use snapshot_stream::{
    IncomingSnapshot, SnapshotError, SnapshotOffer, SnapshotReceiver, SnapshotRefusal, SnapshotSource,
};
pub use transport::{
    Forward, ForwardOrigin, ForwardOutcome, ForwardReply, JoinAnswer, JoinRequest, NetEvent, NetEvents,
    NetStats, PeerInfo, PeerStatus, Sent, Transport, join,
};

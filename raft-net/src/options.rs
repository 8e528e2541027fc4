//! The limits of the wire. Each has a name here and nowhere else.

use std::time::Duration;

/// Settings of a [`Transport`](crate::Transport). The defaults are the product's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetOptions {
    /// The largest payload of one entry, forward or reply, in bytes. Default 32 MiB.
    pub entry_bytes_max: usize,
    /// From accepting or dialling to the end of the handshake. Default 5 s.
    pub handshake_timeout: Duration,
    /// For a TCP connection to be made; after a dial that ran into it the next begins at once. Default 1 s.
    pub dial_timeout: Duration,
    /// The second attempt to reach a peer comes this long after the first, which is immediate. Default 20 ms.
    pub backoff_min: Duration,
    /// Waits between attempts double up to this. Each is drawn from half to all of it. Default 1 s.
    pub backoff_max: Duration,
    /// Bytes queued for a peer's control connection; what exceeds it is dropped. Default 4 MiB.
    pub control_queue_bytes_max: usize,
    /// Bytes queued for a peer's bulk connection; what exceeds it is dropped. One frame is always taken by an empty
    /// queue. Default 32 MiB.
    pub bulk_queue_bytes_max: usize,
    /// Frames queued for one connection, whatever their size. Default 65,536.
    pub queue_frames_max: usize,
    /// Bytes of small frames received and not yet taken by the runtime; reading pauses beyond. Default 8 MiB.
    pub control_inbound_bytes_max: usize,
    /// Bytes of appends and forwards received and not yet taken by the runtime; reading pauses beyond, over all
    /// peers. Default 64 MiB.
    pub bulk_inbound_bytes_max: usize,
    /// Connections that have not finished their handshake. Past it the oldest is closed. Default 256.
    pub unauthenticated_max: usize,
    /// Of them, from one IP address. Past it the oldest of that address is closed. Default 64.
    pub unauthenticated_per_ip_max: usize,
    /// Connections that have finished their handshake; a newcomer beyond is refused. Default 1,024.
    pub inbound_max: usize,
    /// A connection without anything to send says so this often. Default 1 s.
    pub keepalive: Duration,
    /// A peer that was sent something over its control connection and has not stirred for this long is out of reach:
    /// both connections are given up and made again. Left to TCP, a connection that was cut off for a minute may
    /// sleep for another minute after the cut has healed. At least 1 s; default 2 s.
    pub silence_timeout: Duration,
    /// A connection that stays silent for this long is closed. Must exceed `keepalive` of every peer. Default 60 s.
    pub idle_timeout: Duration,
    /// A write that makes no progress for this long closes its connection. Default 10 s.
    pub write_stall_timeout: Duration,
    /// Throttle of one outgoing snapshot; `None` sends as fast as the peer takes. Default `None`.
    pub snapshot_bytes_per_second: Option<u64>,
    /// A snapshot stream without progress for this long is given up, on both sides. Also bounds the receiver's final
    /// check and sync. Default 60 s.
    pub snapshot_timeout: Duration,
}

impl Default for NetOptions {
    fn default() -> NetOptions {
        NetOptions {
            entry_bytes_max: 32 << 20,
            handshake_timeout: Duration::from_secs(5),
            dial_timeout: Duration::from_secs(1),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
            control_queue_bytes_max: 4 << 20,
            bulk_queue_bytes_max: 32 << 20,
            queue_frames_max: 65_536,
            control_inbound_bytes_max: 8 << 20,
            bulk_inbound_bytes_max: 64 << 20,
            unauthenticated_max: 256,
            unauthenticated_per_ip_max: 64,
            inbound_max: 1024,
            keepalive: Duration::from_secs(1),
            silence_timeout: Duration::from_secs(2),
            idle_timeout: Duration::from_secs(60),
            write_stall_timeout: Duration::from_secs(10),
            snapshot_bytes_per_second: None,
            snapshot_timeout: Duration::from_secs(60),
        }
    }
}

impl NetOptions {
    /// The longest frame accepted after the handshake: one entry of the largest size, and 64 KiB for what goes with
    /// it.
    #[must_use]
    pub fn frame_bytes_max(&self) -> usize {
        self.entry_bytes_max.saturating_add(FRAME_OVERHEAD_BYTES)
    }
}

/// What a frame may add to the largest entry.
pub const FRAME_OVERHEAD_BYTES: usize = 64 << 10;
/// The longest frame accepted before the handshake is done, in bytes.
pub const HANDSHAKE_FRAME_BYTES_MAX: usize = 4 << 10;
/// The longest chunk of a snapshot stream, in bytes.
pub const SNAPSHOT_CHUNK_BYTES_MAX: usize = 256 << 10;
/// The longest text of an address or a reason on the wire, in bytes.
pub const TEXT_BYTES_MAX: usize = 1024;

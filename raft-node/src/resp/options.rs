//! The bounds of the front end, each with its name and its reason.

use std::time::Duration;

use super::parser::RequestLimits;

/// How the front end behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// What `AUTH` must say; `None` lets everyone in.
    pub password: Option<String>,
    /// How large a request may be.
    pub requests: RequestLimits,
    /// Connections at a time. One more is told so and closed.
    pub clients_max: usize,
    /// Commands of one connection that may wait for the node. Past it nothing more is read from that connection.
    pub in_flight_max: usize,
    /// The same in bytes of requests.
    pub in_flight_bytes_max: usize,
    /// Replies that a client has not taken yet. Past it its further replies stay where they are, and nothing more is
    /// read from it.
    pub output_bytes_max: usize,
    /// Bytes of half-received requests, queued transactions and replies not taken, of all clients together, beyond a
    /// small buffer for each. The client that needs more is closed, so that many of them cannot take all memory.
    pub buffers_bytes_max: usize,
    /// How long the rest of a request may fail to arrive, and replies fail to be taken, before the connection is
    /// closed. Between requests a connection may idle for ever.
    pub stall_timeout: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            password: None,
            requests: RequestLimits::default(),
            clients_max: 10_000,
            in_flight_max: 1024,
            in_flight_bytes_max: 32 << 20,
            output_bytes_max: 1 << 20,
            buffers_bytes_max: 512 << 20,
            stall_timeout: Duration::from_secs(60),
        }
    }
}

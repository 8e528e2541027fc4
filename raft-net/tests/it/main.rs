//! Whole transports on loopback sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test waits for one event and lets the others pass")]

mod cluster;
mod connections;
mod founding;
mod hostile;
mod snapshots;

//! A segmented, checksummed write-ahead log for Raft.

mod engine;
mod error;
mod fields;
pub mod identity;
mod latency;
pub mod layout;
mod log;
mod mmap;
#[cfg(any(test, feature = "sim"))]
pub mod model;
mod open;
mod options;
mod record;
mod recovery;
mod report;
mod segment;
pub mod snapshot_file;
mod survey;
mod ticket;
mod verify;
pub mod vfs;
mod wal;

pub use engine::Engine;
pub use error::{Corruption, CorruptionKind, Damage, WalError};
pub use options::{Options, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
pub use report::{OpenReport, Stats, Torn, Verdict, VerifyReport};
pub use ticket::Ticket;
pub use verify::{Dump, dump, verify};
pub use wal::{Observer, Wal};

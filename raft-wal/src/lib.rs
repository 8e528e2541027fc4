//! A segmented, checksummed write-ahead log for Raft.

mod engine;
mod error;
mod fields;
pub mod identity;
pub mod layout;
mod mmap;
mod options;
mod report;
pub mod snapshot_file;
mod ticket;
mod verify;
pub mod vfs;
mod wal;

pub use engine::Engine;
pub use error::{Corruption, CorruptionKind, Damage, WalError};
pub use options::{Options, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
pub use report::{OpenReport, Stats, Torn, Verdict, VerifyReport};
pub use ticket::Ticket;
pub use verify::{dump, verify};
pub use wal::{Observer, Wal};

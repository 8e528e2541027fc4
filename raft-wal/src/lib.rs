//! A segmented, checksummed write-ahead log for Raft.
//!
//! [`Wal`] is the log on a thread of its own: hand it [`Write`](raft_core::Write)s, and each [`Ticket`] or the observer
//! says when they are durable. [`Engine`] is the same log as plain calls, for simulations. Both go through [`vfs::Vfs`]
//! and nothing else.
//!
//! What it promises: nothing is acknowledged before the fdatasync that covers it has returned; a torn tail heals by
//! itself; damage to what was acknowledged is reported and never cut; the first failure of the disk is the last write.
//! FORMAT.md has the bytes, the assumptions, and what remains undetectable.
//!
//! To read on: `engine` decides what is written, `recovery` tells a torn write from damage, `survey` puts the segments
//! together, `open` acts on that, `record` and `segment` are the format.

mod dump;
mod engine;
mod error;
mod fields;
pub mod identity;
mod latency;
pub mod layout;
mod log;
mod maps;
mod mmap;
#[cfg(any(test, feature = "sim"))]
pub mod model;
mod open;
mod options;
mod record;
mod recovery;
mod report;
mod scrub;
mod segment;
pub mod snapshot_file;
mod survey;
mod ticket;
mod verify;
pub mod vfs;
mod wal;
mod writer;

pub use dump::{Dump, Dumped, DumpedRecord, dump};
pub use engine::Engine;
pub use error::{Corruption, CorruptionKind, Damage, WalError};
pub use open::DirLock;
pub use options::{Options, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
pub use report::{OpenReport, Stats, Torn, Verdict, VerifyReport};
pub use scrub::ScrubReport;
pub use ticket::Ticket;
pub use verify::verify;
pub use wal::{Observer, Wal};

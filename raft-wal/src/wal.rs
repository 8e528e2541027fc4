//! The log's public handle: an [`Engine`](crate::Engine) on a thread of its own.

use std::{path::Path, sync::Arc};

use raft_core::{Entry, LogIndex, Write, WriteId};

use crate::{
    error::WalError,
    options::Options,
    report::{OpenReport, Stats},
    ticket::Ticket,
    vfs::Vfs,
};

/// The write-ahead log of one node. Shared freely between threads.
#[derive(Debug)]
pub struct Wal {}

/// Called by the writer thread: once after each batch with the last durable write, once with the error that ended it.
pub type Observer = Box<dyn Fn(Result<WriteId, WalError>) + Send>;

#[expect(unused_variables, clippy::todo, reason = "the signatures come first")]
impl Wal {
    /// Opens the log in `dir` of this machine's file system, founding it if the directory is empty.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub fn open(dir: &Path, options: Options) -> Result<(Wal, OpenReport), WalError> {
        todo!()
    }

    /// Opens the log in `dir` through `vfs`, founding it if the directory is empty.
    ///
    /// # Errors
    /// See [`WalError`]; a directory of somebody else, in use, or of a newer release is left unchanged.
    pub fn open_with(vfs: Arc<dyn Vfs>, dir: &Path, options: Options) -> Result<(Wal, OpenReport), WalError> {
        todo!()
    }

    /// Hands a write to the writer thread. Never blocks.
    pub fn submit(&self, write: Write) -> Ticket {
        todo!()
    }

    /// Who is told about durable writes. Replaces the one before; told at once if the log is poisoned already.
    pub fn set_observer(&self, observer: Observer) {
        todo!()
    }

    /// Reads entries `first..=last`, stopping before `bytes_max` (as [`Entry::size_bytes`] counts) but not before the
    /// first. Each is verified. Only what is durable can be read.
    ///
    /// # Errors
    /// [`WalError::Compacted`], [`WalError::NotFound`], [`WalError::Corrupt`], [`WalError::Io`].
    pub fn read(&self, first: LogIndex, last: LogIndex, bytes_max: usize) -> Result<Vec<Entry>, WalError> {
        todo!()
    }

    /// Lets the log drop whole segments whose entries all lie at or before `up_to`, and snapshots older than the
    /// newest marked one. Returns at once; the work is done beside the appends.
    pub fn compact(&self, up_to: LogIndex) {
        todo!()
    }

    /// After damage was reported: takes writes again, from the entry before the hole on. Until the log has grown past
    /// what was promised, every open reports the damage anew.
    ///
    /// # Errors
    /// The disk's.
    pub fn begin_repair(&self) -> Result<(), WalError> {
        todo!()
    }

    /// Bytes that wait or are being written.
    #[must_use]
    pub fn inflight_bytes(&self) -> usize {
        todo!()
    }

    /// Whether more than [`Options::inflight_bytes_max`] are in flight.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        todo!()
    }

    /// Figures.
    #[must_use]
    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// Writes what waits, notes that all of it is durable, and ends the writer thread.
    ///
    /// # Errors
    /// The first failure; the log is closed all the same.
    pub fn close(self) -> Result<(), WalError> {
        todo!()
    }
}

//! What the log decides, as plain calls on the file-system trait: no thread, no clock.

use std::{path::Path, sync::Arc};

use raft_core::{Entry, LogIndex, Write, WriteId};

use crate::{
    error::WalError,
    options::Options,
    report::{OpenReport, Stats},
    vfs::Vfs,
};

/// The log without a thread: the caller decides when to write. For simulations, fuzzing and the writer thread.
#[derive(Debug)]
pub struct Engine {}

#[expect(unused_variables, clippy::todo, reason = "the signatures come first")]
impl Engine {
    /// Opens the log in `dir`, founding it if the directory is empty.
    ///
    /// # Errors
    /// As [`Wal::open_with`](crate::Wal::open_with).
    pub fn open(vfs: Arc<dyn Vfs>, dir: &Path, options: Options) -> Result<(Engine, OpenReport), WalError> {
        todo!()
    }

    /// Queues a write for the next [`flush`](Self::flush).
    ///
    /// # Errors
    /// A write that does not continue the log or is too large changes nothing.
    pub fn append(&mut self, write: &Write) -> Result<(), WalError> {
        todo!()
    }

    /// Makes everything queued durable and tells the last durable write; `None` if there was none since the open.
    ///
    /// # Errors
    /// [`WalError::Full`] can be tried again; anything else is final.
    pub fn flush(&mut self) -> Result<Option<WriteId>, WalError> {
        todo!()
    }

    /// Lets a later damage to the last batch be told from a torn write. Call when idle.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn witness(&mut self) -> Result<(), WalError> {
        todo!()
    }

    /// As [`Wal::read`](crate::Wal::read).
    ///
    /// # Errors
    /// As there.
    pub fn read(&self, first: LogIndex, last: LogIndex, bytes_max: usize) -> Result<Vec<Entry>, WalError> {
        todo!()
    }

    /// As [`Wal::compact`](crate::Wal::compact), done when it returns.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn compact(&mut self, up_to: LogIndex) -> Result<(), WalError> {
        todo!()
    }

    /// As [`Wal::begin_repair`](crate::Wal::begin_repair).
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn begin_repair(&mut self) -> Result<(), WalError> {
        todo!()
    }

    /// Figures.
    #[must_use]
    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// Flushes, notes that everything is durable, and lets go of the directory.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn close(self) -> Result<(), WalError> {
        todo!()
    }
}

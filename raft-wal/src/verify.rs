//! Reading a log without opening it: the offline check and the dump. Takes the lock, never writes.

use std::path::Path;

use raft_core::Entry;

use crate::{error::WalError, report::VerifyReport, vfs::Vfs};

/// Reads and checks everything in `dir`.
///
/// # Errors
/// [`WalError::NotADataDirectory`], [`WalError::InUse`], [`WalError::Io`], [`WalError::NewerFormat`] and
/// [`WalError::UnknownFeatures`]: nothing was concluded. Whatever is wrong with the bytes is in the report.
#[expect(unused_variables, clippy::todo, reason = "the signatures come first")]
pub fn verify(vfs: &dyn Vfs, dir: &Path) -> Result<VerifyReport, WalError> {
    todo!()
}

/// The records of a log, in the order they were written, for people to read.
///
/// # Errors
/// As [`verify`].
#[expect(unused_variables, clippy::todo, reason = "the signatures come first")]
pub fn dump(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<Entry>, WalError> {
    todo!()
}

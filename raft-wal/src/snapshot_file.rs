//! Snapshot files: written under a temporary name, put in place by one rename, checked chunk by chunk.
//!
//! FORMAT.md has the bytes. A snapshot travels between nodes as the very bytes of its file, so it names its cluster
//! and its group, and no node.
//!
//! | file | how it comes to be |
//! |---|---|
//! | `….snap.tmp` | a [`SnapshotWriter`] is at work, or was when the process ended |
//! | `….snap` | [`SnapshotWriter::finish`]: synced, then renamed, then the directory synced |
//! | `….snap.recv.tmp` | a [`SnapshotReceiver`] is at work, or has finished: synced and verified. The log's writer renames it when it takes the mark |
//!
//! A snapshot counts only once the log has marked it; nothing here touches the log.

mod format;
mod reader;
mod receiver;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use raft_core::{ClusterId, ConfError, GroupId, LogId, SnapshotMeta};

pub use self::{
    reader::{SnapshotReader, SnapshotSource},
    receiver::SnapshotReceiver,
    writer::SnapshotWriter,
};
use crate::{
    layout::{self, Name},
    vfs::Vfs,
};

/// What a whole and undamaged snapshot file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// What it stands for.
    pub meta: SnapshotMeta,
    /// Bytes of the state machine.
    pub content_bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// CRC-32 of the file's bytes before the trailer.
    pub checksum: u32,
}

/// Reads the whole snapshot up to `last` and checks every byte of it.
///
/// # Errors
/// The first thing that does not fit.
pub fn verify(
    vfs: &dyn Vfs,
    dir: &Path,
    cluster: ClusterId,
    last: LogId,
) -> Result<SnapshotInfo, SnapshotFileError> {
    SnapshotReader::open(vfs, dir, cluster, last)?.verify()
}

/// The snapshots in place in `dir`, older ones first. Whether they are whole is not looked at.
///
/// # Errors
/// The disk's.
pub fn list(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<LogId>, SnapshotFileError> {
    let entries = vfs.list(dir).map_err(|source| SnapshotFileError::io("list", dir, source))?;
    let mut found: Vec<LogId> = entries
        .iter()
        .filter(|entry| entry.is_file)
        .filter_map(|entry| match layout::parse(&entry.name) {
            Name::Snapshot(last) => Some(last),
            Name::Lock
            | Name::Identity
            | Name::Segment(_)
            | Name::Spare(_)
            | Name::Torn
            | Name::Temporary
            | Name::Unknown => None,
        })
        .collect();
    found.sort_by_key(|last| (last.index, last.term));
    Ok(found)
}

/// Removes every snapshot in place that lies before `keep`, and tells how many there were. Call it only once the mark
/// of `keep` is durable in the log. A crash in between leaves some of them: harmless, the next call removes them.
///
/// # Errors
/// The disk's.
pub fn remove_older(vfs: &dyn Vfs, dir: &Path, keep: LogId) -> Result<usize, SnapshotFileError> {
    let mut removed = 0;
    for last in list(vfs, dir)? {
        if last.index < keep.index {
            let path = dir.join(layout::snapshot(last));
            vfs.remove(&path).map_err(|source| SnapshotFileError::io("remove", &path, source))?;
            removed += 1;
        }
    }
    if removed > 0 {
        vfs.sync_dir(dir).map_err(|source| SnapshotFileError::io("sync", dir, source))?;
    }
    Ok(removed)
}

/// Why a snapshot file could not be written, read or taken.
///
/// Where a `std::io` trait is in between, it is the inner error of an [`io::Error`]; [`from_io`](Self::from_io) gets it
/// back.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SnapshotFileError {
    /// The disk failed.
    #[error("cannot {operation} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// There is no snapshot of this name.
    #[error("there is no snapshot {path}", path = path.display())]
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// The snapshot is of another cluster.
    #[error("{path} belongs to cluster {found}, not to {expected}", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The cluster it names.
        found: ClusterId,
        /// The cluster it was to be of.
        expected: ClusterId,
    },
    /// The snapshot is of another group of the cluster.
    #[error("{path} belongs to group {found}, which this release does not know", path = path.display())]
    ForeignGroup {
        /// The file.
        path: PathBuf,
        /// The group it names.
        found: u32,
    },
    /// Written by a newer release.
    #[error("{path} has format version {version}; this release reads up to {known}", path = path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
        /// The newest version this release knows.
        known: u32,
    },
    /// Uses features this release does not know.
    #[error("{path} uses features unknown to this release (bits {bits:#x})", path = path.display())]
    UnknownFeatures {
        /// The file.
        path: PathBuf,
        /// The unknown bits.
        bits: u64,
    },
    /// The bytes are not what was written.
    #[error("{path} is damaged at byte {offset}: {kind}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What does not fit.
        kind: SnapshotDamage,
    },
    /// A received piece does not continue what is there. Nothing of it was taken (SAFETY N6).
    #[error("a piece at byte {offset} came where byte {expected} was due")]
    WrongOffset {
        /// Where the piece belongs.
        offset: u64,
        /// Where the next one has to begin.
        expected: u64,
    },
    /// The configuration of the snapshot breaks a rule. Nothing was written.
    #[error("the snapshot's configuration is not valid: {0}")]
    BadConfiguration(ConfError),
    /// An earlier call failed; what is in the file is unknown. Start over.
    #[error("{path} was given up after an error", path = path.display())]
    GivenUp {
        /// The file.
        path: PathBuf,
    },
}

/// The operation in an error of the directory's sync.
const SYNC_NAMES: &str = "sync the names in";

impl SnapshotFileError {
    /// The error inside `error`, if it is one of these.
    #[must_use]
    pub fn from_io(error: &io::Error) -> Option<&SnapshotFileError> {
        error.get_ref()?.downcast_ref()
    }

    /// Whether the disk failed a write, a sync or a rename, other than for want of room: final, as it is in the log.
    /// What else it no longer holds is unknown. A failed sync of the directory, for whatever reason, marks the names of
    /// new segments as clean too, and the log's own sync of them, right behind it, says Ok.
    #[must_use]
    pub fn is_disk_failure(&self) -> bool {
        let SnapshotFileError::Io { operation, source, .. } = self else { return false };
        let no_room = matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        );
        match *operation {
            SYNC_NAMES => true,
            "write" | "sync" | "rename" => !no_room,
            _ => false,
        }
    }

    fn io(operation: &'static str, path: &Path, source: io::Error) -> SnapshotFileError {
        SnapshotFileError::Io { operation, path: path.to_owned(), source: Arc::new(source) }
    }

    fn damaged(path: &Path, offset: u64, kind: SnapshotDamage) -> SnapshotFileError {
        SnapshotFileError::Damaged { path: path.to_owned(), offset, kind }
    }

    fn into_io(self) -> io::Error {
        let kind = match &self {
            SnapshotFileError::Io { source, .. } => source.kind(),
            SnapshotFileError::NotFound { .. } => io::ErrorKind::NotFound,
            SnapshotFileError::Foreign { .. }
            | SnapshotFileError::ForeignGroup { .. }
            | SnapshotFileError::NewerFormat { .. }
            | SnapshotFileError::UnknownFeatures { .. }
            | SnapshotFileError::Damaged { .. } => io::ErrorKind::InvalidData,
            SnapshotFileError::WrongOffset { .. } | SnapshotFileError::BadConfiguration(_) => {
                io::ErrorKind::InvalidInput
            }
            SnapshotFileError::GivenUp { .. } => io::ErrorKind::Other,
        };
        io::Error::new(kind, self)
    }
}

/// What does not fit about a snapshot file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotDamage {
    /// It does not begin as one.
    #[error("it does not begin as a snapshot does")]
    Magic,
    /// It ends before it should.
    #[error("the file ends too early")]
    Truncated,
    /// A length in it is out of bounds.
    #[error("a length is out of bounds")]
    Length,
    /// The header's checksum differs.
    #[error("the header's checksum differs")]
    Header,
    /// The header's checksum fits, its configuration cannot be read.
    #[error("the configuration cannot be read")]
    Configuration,
    /// It is another snapshot than its name says, or than was announced.
    #[error("it is the snapshot up to {found}, not up to {expected}")]
    WrongSnapshot {
        /// What was expected.
        expected: LogId,
        /// What it is.
        found: LogId,
    },
    /// A chunk's checksum differs.
    #[error("a chunk's checksum differs")]
    Chunk,
    /// The trailer's checksum or its lengths differ.
    #[error("the trailer does not fit")]
    Trailer,
    /// Every part fits its own checksum, the file as a whole does not.
    #[error("the checksum of the whole file differs")]
    File,
}

/// The group every snapshot of this release belongs to.
const GROUP: GroupId = GroupId::ROOT;

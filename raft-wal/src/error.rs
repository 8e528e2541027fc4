//! What can go wrong, one variant for each decision the caller has to take.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use raft_core::{ClusterId, LogId, LogIndex, NodeId};

use crate::{identity::IdentityDamage, snapshot_file::SnapshotDamage};

/// Why the log says no. Cheap to clone: after the first failure everybody who waits gets the same one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WalError {
    /// The disk failed. On the durable path this is final: the log takes no further write until it is opened again,
    /// since what reached the disk is unknown. Reads of what was durable go on.
    #[error("cannot {operation} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// There is no room for the next segment. Nothing is lost and nothing is refused for good: what waits is written
    /// as soon as there is room.
    #[error("no space left to prepare the next segment in {path}", path = path.display())]
    Full {
        /// The directory.
        path: PathBuf,
    },
    /// Another process, or another handle of this one, has the directory open.
    #[error("{path} is in use by another process", path = path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The directory belongs to another cluster or another node. Nothing was changed.
    #[error(
        "{path} belongs to node {found_node} of cluster {found_cluster}, not to node {node} of cluster {cluster}",
        path = path.display()
    )]
    Foreign {
        /// The file that says so.
        path: PathBuf,
        /// The cluster it names.
        found_cluster: ClusterId,
        /// The node it names.
        found_node: NodeId,
        /// The cluster that was to be opened.
        cluster: ClusterId,
        /// The node that was to be opened.
        node: NodeId,
    },
    /// The file was written by a newer release. Nothing was changed.
    #[error("{path} has format version {version}; this release reads up to {known}", path = path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
        /// The newest version this release knows.
        known: u32,
    },
    /// The file uses features this release does not know. Nothing was changed.
    #[error("{path} uses features unknown to this release (bits {bits:#x})", path = path.display())]
    UnknownFeatures {
        /// The file.
        path: PathBuf,
        /// The unknown bits.
        bits: u64,
    },
    /// Bytes on disk are not what was written.
    #[error(transparent)]
    Corrupt(Corruption),
    /// Acknowledged entries are damaged. The log can be read up to the hole; it takes no write until
    /// [`begin_repair`](crate::Wal::begin_repair).
    #[error(transparent)]
    Damaged(Box<Damage>),
    /// The entry was dropped behind a snapshot.
    #[error("entry {index} was compacted; the first one kept is {first}")]
    Compacted {
        /// The entry asked for.
        index: LogIndex,
        /// The first one that is there.
        first: LogIndex,
    },
    /// The entry is not in the log, or not yet durable.
    #[error("entry {index} is behind the last durable one, {last}")]
    NotFound {
        /// The entry asked for.
        index: LogIndex,
        /// The last one that is there.
        last: LogIndex,
    },
    /// The write does not continue the log. Nothing of it was written.
    #[error("the write does not continue the log: {what} at {at}, where the log ends at {last}")]
    Discontinuous {
        /// What does not fit.
        what: &'static str,
        /// The index in question.
        at: LogIndex,
        /// The log's last entry.
        last: LogIndex,
    },
    /// The write has an entry or a configuration larger than the limit. Nothing of it was written.
    #[error("{what} of {bytes} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The options contradict each other.
    #[error("unusable options: {0}")]
    BadOptions(&'static str),
    /// The directory holds no log.
    #[error("{path} is not a data directory: it holds no segment", path = path.display())]
    NotADataDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

/// Bytes that are not what was written, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} is damaged at byte {offset}: {kind}", path = path.display())]
pub struct Corruption {
    /// The file.
    pub path: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What does not fit.
    pub kind: CorruptionKind,
}

/// What does not fit about damaged bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CorruptionKind {
    /// A segment's header is unreadable.
    #[error("the segment header is unreadable")]
    SegmentHeader,
    /// One of the two copies of a segment's header does not fit. The other one is enough.
    #[error("this copy of the segment header does not fit")]
    SegmentHeaderCopy,
    /// A segment's file is shorter or longer than it was made.
    #[error("the file has {found} bytes where {expected} are needed")]
    Length {
        /// Its length.
        found: u64,
        /// What it should be.
        expected: u64,
    },
    /// The file is missing.
    #[error("the file is missing")]
    Missing,
    /// A segment does not continue the one before.
    #[error("the segment does not continue the one before")]
    Chain,
    /// A record's header does not fit its checksum, its place or its segment.
    #[error("the header of a record is damaged")]
    RecordHeader,
    /// An entry's payload does not fit its checksum.
    #[error("the payload of entry {0} is damaged")]
    Payload(LogId),
    /// A record's content contradicts itself although its checksums fit.
    #[error("a record contradicts itself")]
    Record,
    /// Another entry stands where this one should.
    #[error("entry {found} stands where {expected} should")]
    WrongEntry {
        /// The index that was looked for.
        expected: LogIndex,
        /// What was found.
        found: LogId,
    },
    /// The record that tells the newest snapshot cannot be found.
    #[error("the mark of snapshot {0} is lost")]
    SnapshotMark(LogId),
    /// A sealed segment's seal or footer does not fit.
    #[error("the footer or the seal is damaged")]
    Footer,
    /// A name of ours leads to a directory, a link or something else that is no file.
    #[error("this is no regular file")]
    NotAFile,
    /// It belongs to another cluster or another node than the log.
    #[error("it belongs to another cluster or node than the log")]
    Foreign,
    /// A snapshot file that the log has marked.
    #[error("the snapshot is damaged: {0}")]
    Snapshot(SnapshotDamage),
    /// The identity file.
    #[error("the identity is damaged: {0}")]
    Identity(IdentityDamage),
}

/// A hole in what was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "entries {first} to {last} are damaged ({corruption}); this node had acknowledged everything up to {promised}"
)]
pub struct Damage {
    /// The first entry lost.
    pub first: LogIndex,
    /// The last entry known to be lost with it. Nothing behind `first` counts until the hole is refilled.
    pub last: LogIndex,
    /// The last entry this node had acknowledged: it votes by that (SAFETY D1).
    pub promised: LogId,
    /// The file, the place and what does not fit there.
    pub corruption: Corruption,
}

impl WalError {
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> WalError {
        WalError::Io { operation, path: path.to_owned(), source: Arc::new(source) }
    }

    pub(crate) fn corrupt(path: &Path, offset: u64, kind: CorruptionKind) -> WalError {
        WalError::Corrupt(Corruption { path: path.to_owned(), offset, kind })
    }
}

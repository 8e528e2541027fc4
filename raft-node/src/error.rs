//! What can go wrong, one type for each decision somebody has to take.

use std::path::PathBuf;

use raft_core::NodeId;

/// Why a command or a read got no reply from the state machine.
///
/// The one distinction a client must be able to make: after [`OutcomeUnknown`](Self::OutcomeUnknown) the command may
/// have been applied, after every other one it has not been and never will be.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ClientError {
    /// The node that was asked does not lead, or lost the lead before the command was committed.
    #[error("not the leader")]
    NotLeader,
    /// Nobody led for as long as a request may wait.
    #[error("no leader")]
    NoLeader,
    /// A bound on waiting bytes or requests is reached: slow down and try again.
    #[error("too many requests are waiting, try again")]
    Busy,
    /// The command may or may not have been applied, now or later.
    #[error("the outcome is not known")]
    OutcomeUnknown,
    /// The command is larger than an entry may be.
    #[error("the command is larger than {limit} bytes")]
    TooLarge {
        /// The configured limit in bytes.
        limit: usize,
    },
    /// The state machine holds as much as it may: only commands that free memory are taken.
    #[error("memory limit reached")]
    OutOfMemory,
    /// There is no space left for the log on the only disk it is written to: only commands that free memory are taken.
    #[error("no space left for the log")]
    DiskFull,
    /// The node is leaving.
    #[error("the node is shutting down")]
    ShuttingDown,
}

/// Why a running node ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The log can no longer be written. What reached the disk is found out at the next start.
    #[error("the log failed: {0}")]
    Log(#[source] raft_wal::WalError),
    /// The disk failed under a snapshot. What else it no longer holds is found out at the next start.
    #[error("the disk failed: {0}")]
    Disk(#[source] raft_wal::snapshot_file::SnapshotFileError),
    /// A snapshot file that the log vouches for cannot be used.
    #[error("snapshot {path} is unusable: {reason}")]
    Snapshot {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Consensus stopped because going on would not be safe.
    #[error("consensus halted: {0}")]
    Halted(raft_core::HaltReason),
    /// A task of the node died.
    #[error("a task died: {0}")]
    Task(String),
}

/// Why a node did not start. Nothing that was on disk is lost; Display is the sentence to exit with.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process has the directory.
    #[error("data directory {path} is in use by another process", path = path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The directory belongs to another node.
    #[error("data directory {path} belongs to {found}, not to {id}: use --id {number} or another --data-dir", path = path.display(), number = found.0)]
    OtherNode {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// Who was to be started.
        id: NodeId,
    },
    /// There is a log, but the file that says whose it is is gone.
    #[error(
        "data directory {path} holds a log but no identity file: without it this node must not vote; restore the \
         file, or replace the member with an empty directory", path = path.display()
    )]
    NoIdentity {
        /// The directory.
        path: PathBuf,
    },
    /// There was a log, and it is gone.
    #[error(
        "data directory {path} has lost its log: there was one, and without it this node must not vote; bring the \
         files back, or replace the member with an empty directory", path = path.display()
    )]
    LostLog {
        /// The directory.
        path: PathBuf,
    },
    /// The directory was founded by others than those it is to be started with.
    #[error(
        "data directory {path} was founded by {founders}, but --initial-cluster names {given}: start it with the list \
         it was founded with or none, or use another --data-dir", path = path.display()
    )]
    OtherFounders {
        /// The directory.
        path: PathBuf,
        /// Its founders.
        founders: String,
        /// Those on the list.
        given: String,
    },
    /// The identity file cannot be used.
    #[error(transparent)]
    Identity(#[from] raft_wal::identity::IdentityError),
    /// The disk failed.
    #[error("cannot {operation} data directory {path}: {source}", path = path.display())]
    Disk {
        /// What was tried.
        operation: &'static str,
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The log cannot be opened.
    #[error("{error}{help}", error = .0, help = help_for(.0))]
    Log(raft_wal::WalError),
    /// The log lost entries it had acknowledged.
    #[error(
        "{0}; nothing was changed, and a node without other voters to refill it does not start on a damaged log: run `raft-node verify` to see all of it, then bring back a copy"
    )]
    Damaged(String),
    /// The newest snapshot is damaged, and nobody could give another.
    #[error(
        "{damage}; nothing was changed, and a node without other voters does not start on an unusable snapshot: run \
         `raft-node verify` to see all of it, then bring back a copy{older}",
        older = older.as_ref().map_or_else(String::new, |path| format!("; {} is older and still there", path.display()))
    )]
    SnapshotDamaged {
        /// The file, the place and what does not fit there.
        damage: String,
        /// The newest of the older snapshots.
        older: Option<PathBuf>,
    },
    /// The newest snapshot cannot be used.
    #[error(transparent)]
    Snapshot(NodeError),
    /// The listener of the peers' port.
    #[error("cannot listen for peers: {0}")]
    Listener(#[source] std::io::Error),
    /// The founding list is not usable.
    #[error(transparent)]
    FoundingList(#[from] raft_net::FoundingStartError),
    /// This directory must not take part in that cluster.
    #[error(transparent)]
    Founding(raft_net::FoundingRefusal),
    /// What the disk remembered contradicts itself, or the settings do.
    #[error(transparent)]
    Core(raft_core::StartError),
    /// The start was abandoned.
    #[error("the start was interrupted")]
    Interrupted,
}

/// What to do about a log that an open refuses.
fn help_for(error: &raft_wal::WalError) -> &'static str {
    if matches!(error, raft_wal::WalError::Corrupt(_)) {
        "; nothing was changed, and what the log cannot vouch for, its vote perhaps, no other node can give back: run \
         `raft-node verify` to see all of it, then bring back a copy, or replace the member with an empty directory"
    } else {
        ""
    }
}

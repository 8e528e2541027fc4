//! What can go wrong, one type for each decision somebody has to take.

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
    #[error("the command has {size} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The configured limit.
        limit: usize,
    },
    /// The state machine holds as much as it may: only commands that free memory are taken.
    #[error("memory limit reached")]
    OutOfMemory,
    /// The node is leaving.
    #[error("the node is shutting down")]
    ShuttingDown,
}

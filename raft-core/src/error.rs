//! Why the core says no. One type for each decision the caller has to take.

use std::fmt;

use crate::{ConfError, ConfigError, LogId, LogIndex, NodeId, Term};

/// A proposal was not taken; nothing of it will ever be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProposeError {
    /// Ask `leader`, or wait until there is one.
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// Too many bytes wait to be committed: slow down and try again.
    Busy,
    /// Leadership is being handed over: ask `to` soon, or this node again if that fails.
    Transferring {
        /// Who is to lead.
        to: NodeId,
    },
    /// The node has halted.
    Halted,
}

/// A change of the membership was not taken; nothing of it will ever be committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeError {
    /// Ask `leader`, or wait until there is one.
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// Another change is not committed yet, or its joint configuration not left: ask again later.
    InProgress,
    /// Nothing of this term is committed yet: ask again in a moment (SAFETY M1).
    NotReady,
    /// Leadership is being handed over: ask again later.
    Transferring {
        /// Who is to lead.
        to: NodeId,
    },
    /// It is like this already.
    Unchanged,
    /// An id is named twice.
    Duplicate {
        /// Which.
        id: NodeId,
    },
    /// Nothing is known of this id: a new member needs a record.
    Unknown {
        /// Which.
        id: NodeId,
    },
    /// A node has to be a learner, with the data directory it has now, before it can be a voter.
    NotALearner {
        /// Which.
        id: NodeId,
    },
    /// The learner is too far behind to become a voter (dissertation 4.2.1).
    TooFarBehind {
        /// Which.
        id: NodeId,
        /// Up to where it has the log.
        matched: LogIndex,
        /// Where the log ends.
        last: LogIndex,
    },
    /// A voter that lost its data directory is replaced in a change of its own.
    ReplaceAlone {
        /// Which.
        id: NodeId,
    },
    /// Leases longer than this node waits for a leader would keep it from electing one in time; none is longer than
    /// [`LEASE_TIMEOUT_MS_MAX`](crate::LEASE_TIMEOUT_MS_MAX).
    LeaseTooLong {
        /// The smaller of that and its shortest election timeout.
        most_ms: u64,
    },
    /// The target is not a possible configuration (SAFETY M8).
    Conf(ConfError),
    /// The node has halted.
    Halted,
}

/// A read could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadError {
    /// Nobody to confirm it: wait for a leader and ask again.
    NoLeader,
    /// Too many reads wait.
    Busy,
    /// The node has halted.
    Halted,
}

/// Leadership was not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransferError {
    /// Ask `leader`.
    NotLeader {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// Another transfer is going on.
    InProgress,
    /// This leader is being removed, has looked for a successor in vain, and ends its own membership now (SAFETY M5).
    Departing,
    /// The target is no voter, or this node itself.
    NotAVoter,
    /// The target did not answer lately.
    Unreachable,
    /// The target would take too long to catch up.
    TooFarBehind,
    /// The node has halted.
    Halted,
}

/// An input was refused. The core is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepError {
    /// The message is for someone else.
    WrongReceiver {
        /// The id it names.
        to: NodeId,
    },
    /// The sender's id is zero or our own.
    BadSender {
        /// The id it names.
        from: NodeId,
    },
    /// A term of zero, of [`Term::MAX`], or more than 2^32 above ours (SAFETY E12, E13).
    BadTerm {
        /// The term.
        term: Term,
    },
    /// Entries that are not consecutive, whose terms fall or exceed the message's, or an index at the far end.
    BadEntries {
        /// Where.
        at: LogIndex,
    },
    /// A message that contradicts itself.
    BadMessage(&'static str),
    /// A snapshot with an unusable configuration.
    BadConf(ConfError),
    /// A completion or answer for something never asked for.
    Unexpected(&'static str),
    /// The node has halted.
    Halted,
}

/// A core could not be built from these settings and this recovered state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartError {
    /// The settings do not fit.
    Config(ConfigError),
    /// The configuration does not.
    Conf(ConfError),
    /// What the disk remembered contradicts itself.
    Inconsistent(&'static str),
    /// The log lost what it had acknowledged, and no other voter could give it back (SAFETY D1).
    DamagedAlone {
        /// The last entry it had acknowledged.
        promised: LogId,
    },
    /// The newest snapshot is lost, and no other voter could give one (SAFETY D1).
    SnapshotLostAlone {
        /// Its last entry.
        last: LogId,
    },
}

impl fmt::Display for ProposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProposeError::NotLeader { leader: Some(leader) } => write!(f, "not the leader; {leader} is"),
            ProposeError::NotLeader { leader: None } => f.write_str("not the leader; none is known"),
            ProposeError::Busy => f.write_str("too many bytes wait to be committed"),
            ProposeError::Transferring { to } => write!(f, "leadership is being handed over to {to}"),
            ProposeError::Halted => f.write_str("the node has halted"),
        }
    }
}

impl fmt::Display for ChangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChangeError::NotLeader { leader: Some(leader) } => write!(f, "not the leader; {leader} is"),
            ChangeError::NotLeader { leader: None } => f.write_str("not the leader; none is known"),
            ChangeError::InProgress => f.write_str("another change of the membership is going on"),
            ChangeError::NotReady => f.write_str("the leader has not committed anything in its term yet"),
            ChangeError::Transferring { to } => write!(f, "leadership is being handed over to {to}"),
            ChangeError::Unchanged => f.write_str("the membership is like this already"),
            ChangeError::Duplicate { id } => write!(f, "{id} is named twice"),
            ChangeError::Unknown { id } => write!(f, "nothing is known of {id}"),
            ChangeError::NotALearner { id } => write!(f, "{id} has to be a learner before it can be a voter"),
            ChangeError::TooFarBehind { id, matched, last } => {
                write!(f, "{id} is too far behind to vote: it has the log up to {matched} of {last}")
            }
            ChangeError::LeaseTooLong { most_ms } => {
                write!(f, "leases may last {most_ms} ms at most: no longer than an election timeout")
            }
            ChangeError::ReplaceAlone { id } => {
                write!(f, "{id} has another data directory: replace it in a change of its own")
            }
            ChangeError::Conf(error) => error.fmt(f),
            ChangeError::Halted => f.write_str("the node has halted"),
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReadError::NoLeader => "no leader is known",
            ReadError::Busy => "too many reads wait",
            ReadError::Halted => "the node has halted",
        })
    }
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransferError::NotLeader { leader: Some(leader) } => write!(f, "not the leader; {leader} is"),
            TransferError::NotLeader { leader: None } => f.write_str("not the leader; none is known"),
            TransferError::InProgress => f.write_str("leadership is being handed over already"),
            TransferError::Departing => f.write_str("the leader found no successor and is leaving by itself"),
            TransferError::NotAVoter => f.write_str("the target has no vote, or leads already"),
            TransferError::Unreachable => f.write_str("the target did not answer lately"),
            TransferError::TooFarBehind => f.write_str("the target is too far behind to take over"),
            TransferError::Halted => f.write_str("the node has halted"),
        }
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StepError::WrongReceiver { to } => write!(f, "the message is for {to}"),
            StepError::BadSender { from } => write!(f, "{from} is no possible sender"),
            StepError::BadTerm { term } => write!(f, "term {term} is not possible"),
            StepError::BadEntries { at } => write!(f, "the entries do not form a log at index {at}"),
            StepError::BadMessage(what) => write!(f, "the message contradicts itself: {what}"),
            StepError::BadConf(error) => write!(f, "the snapshot is unusable: {error}"),
            StepError::Unexpected(what) => write!(f, "unexpected: {what}"),
            StepError::Halted => f.write_str("the node has halted"),
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Config(error) => error.fmt(f),
            StartError::Conf(error) => error.fmt(f),
            StartError::Inconsistent(what) => write!(f, "the recovered state contradicts itself: {what}"),
            StartError::DamagedAlone { promised } => {
                write!(f, "the log lost entries up to {promised}, and this node is the only voter")
            }
            StartError::SnapshotLostAlone { last } => {
                write!(f, "the snapshot up to {last} is lost, and this node is the only voter")
            }
        }
    }
}

impl std::error::Error for ProposeError {}
impl std::error::Error for ChangeError {}
impl std::error::Error for ReadError {}
impl std::error::Error for TransferError {}
impl std::error::Error for StepError {}
impl std::error::Error for StartError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LogId;

    #[test]
    fn what_is_refused_names_what_was_wrong() {
        let told: Vec<String> = [
            StepError::WrongReceiver { to: NodeId(4) },
            StepError::BadTerm { term: Term(77) },
            StepError::BadEntries { at: LogIndex(78) },
            StepError::BadMessage("why"),
        ]
        .iter()
        .map(ToString::to_string)
        .collect();
        let named = ["n4", "77", "78", "why"];
        assert!(told.iter().zip(named).all(|(text, what)| text.contains(what)), "{told:?}");
        let told: Vec<String> = [
            StartError::Config(ConfigError::ZeroId),
            StartError::Conf(ConfError::NoVoters),
            StartError::Inconsistent("why"),
            StartError::DamagedAlone { promised: LogId::new(3, 79) },
            StartError::SnapshotLostAlone { last: LogId::new(3, 80) },
        ]
        .iter()
        .map(ToString::to_string)
        .collect();
        let named = ["id", "voter", "why", "79@3", "80@3"];
        assert!(told.iter().zip(named).all(|(text, what)| text.contains(what)), "{told:?}");
    }
}

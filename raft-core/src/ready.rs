//! What the core asks for. Everything in a [`Ready`] may be carried out the moment it is handed out, in any order
//! and at any pace: what depends on a write is held back inside the core until it is told that the write is durable.

use crate::{
    ConfState, Entries, HardState, LogId, LogIndex, Message, NodeId, ReadToken, SnapshotMeta, Term, WriteId,
};

/// One batch of work for the runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[must_use]
pub struct Ready {
    /// Send now. None of these promises anything that is not on disk already. May be lost, doubled or reordered.
    pub messages: Vec<Message>,
    /// Append this to the log and sync; then report [`Input::Persisted`](crate::Input::Persisted). Writes must reach
    /// the log in the order of their ids.
    pub write: Option<Write>,
    /// Hand to the state machine, in this order; then report [`Input::Applied`](crate::Input::Applied).
    pub apply: Vec<Apply>,
    /// Reads that may go ahead, or have to be asked again.
    pub reads: Vec<ReadOutcome>,
    /// Load these entries from the log, off the hot path; then report [`Input::Fetched`](crate::Input::Fetched).
    pub fetches: Vec<Fetch>,
    /// The log may drop every entry up to and including this one, and every snapshot but the newest marked one.
    pub compact: Option<LogIndex>,
    /// What changed, for logs, metrics and whoever waits for a leader.
    pub events: Vec<Event>,
}

impl Ready {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Ready { messages, write, apply, reads, fetches, compact, events } = self;
        messages.is_empty()
            && write.is_none()
            && apply.is_empty()
            && reads.is_empty()
            && fetches.is_empty()
            && compact.is_none()
            && events.is_empty()
    }

    /// Forgets everything, keeps the memory.
    pub(crate) fn clear(&mut self) {
        let Ready { messages, write, apply, reads, fetches, compact, events } = self;
        messages.clear();
        *write = None;
        apply.clear();
        reads.clear();
        fetches.clear();
        *compact = None;
        events.clear();
    }
}

/// One atomic and ordered addition to the log: after a crash all of it is found or none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Write {
    /// Its number, one above the write before.
    pub id: WriteId,
    /// The hard state as of now. Always complete, so that the latest write tells everything.
    pub hard_state: HardState,
    /// First, forget every entry behind this one (dissertation 3.5).
    pub truncate_after: Option<LogIndex>,
    /// Then note this snapshot.
    pub snapshot: Option<Box<SnapshotMark>>,
    /// Then append these.
    pub entries: Entries,
}

/// A snapshot becomes part of the log's history.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotMark {
    /// What it covers.
    pub meta: SnapshotMeta,
    /// Received from a leader, its file still under its temporary name; otherwise taken here, its file in place.
    pub received: bool,
    /// The log does not continue it: drop all entries and start behind `meta.last` (SAFETY N2).
    pub resets_log: bool,
}

/// Work for the state machine. One queue carries both kinds, so that no entry overtakes a snapshot (SAFETY N4).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Apply {
    /// Committed entries, each handed out exactly once and in order.
    Entries(Entries),
    /// Replace all state by this snapshot; its file is in place and marked.
    Restore(Box<SnapshotMeta>),
}

/// The answer to a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadOutcome {
    /// Whose.
    pub token: ReadToken,
    /// The read is linearizable once this index is applied; `None`: leadership could not be confirmed, ask again.
    pub index: Option<LogIndex>,
}

/// A request for entries that are no longer in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fetch {
    /// Its number.
    pub id: FetchId,
    /// The first entry wanted.
    pub first: LogIndex,
    /// The last entry wanted. Any prefix of the range with at least one entry is an answer.
    pub last: LogIndex,
    /// Stop before this many bytes, as [`Entry::size_bytes`] counts them, but not before the first entry.
    pub bytes_max: usize,
}

/// Numbers the fetches of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FetchId(pub u64);

/// What a node is at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RoleKind {
    /// Follows, or looks for someone to follow.
    #[default]
    Follower,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Campaigns.
    Candidate,
    /// Leads.
    Leader,
}

/// A change worth telling.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// This node's role, term or leader changed.
    RoleChanged {
        /// What it is now.
        role: RoleKind,
        /// In which term.
        term: Term,
        /// Whom it follows; itself if it leads.
        leader: Option<NodeId>,
    },
    /// Another configuration is in force.
    ConfChanged {
        /// The entry it came from.
        id: LogId,
        /// The configuration.
        conf: ConfState,
    },
    /// The configuration that is committed is another one.
    ConfCommitted {
        /// The entry it came from.
        id: LogId,
        /// The configuration. While it is joint, a further one follows by itself.
        conf: ConfState,
    },
    /// The cluster goes on without this node, which has no part in it any more: it can be shut down.
    Removed {
        /// The configuration that does without it.
        conf_id: LogId,
    },
    /// The transfer of leadership that was begun here is over.
    TransferEnded {
        /// To whom it was to go.
        to: NodeId,
        /// How it ended.
        outcome: TransferOutcome,
    },
    /// A peer proved that it lost entries it had acknowledged (SAFETY P5).
    PeerRegressed {
        /// Which.
        peer: NodeId,
        /// What it had acknowledged.
        matched: LogIndex,
        /// What it has.
        now: LogIndex,
    },
    /// This node's log is whole again after damage: it takes part like any other (SAFETY D1).
    Refilled {
        /// The last entry on its disk.
        last: LogId,
    },
    /// A peer needs a newer snapshot than this node's: its own is lost (SAFETY D1), or the log cannot be read back where it
    /// needs entries. Take one; it is sent once it is there. Told again while that lasts.
    SnapshotWanted {
        /// Which.
        peer: NodeId,
    },
    /// A leader's snapshot is in the place of the damaged one: this node takes part like any other (SAFETY D1).
    SnapshotReplaced {
        /// Its last entry.
        last: LogId,
    },
    /// The node can no longer take part safely and does nothing from now on. The text says why.
    Halted(HaltReason),
}

/// How a transfer of leadership ended (SAFETY X1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransferOutcome {
    /// The target leads.
    Done,
    /// The target did not take over in time: this node still leads, and proposals go on.
    TimedOut,
    /// A change of the membership took the target's vote: this node still leads, and proposals go on.
    TargetDemoted,
    /// This node left the cluster meanwhile and does not hear who leads it.
    Unknown,
    /// Somebody else leads now.
    Overtaken {
        /// Who.
        leader: NodeId,
    },
}

/// Why a core stopped taking part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HaltReason {
    /// A snapshot contradicts an entry that is committed here (SAFETY N3).
    SnapshotConflictsWithCommitted {
        /// Our committed entry.
        ours: LogId,
        /// The snapshot's last entry.
        theirs: LogId,
    },
    /// A leader's entry contradicts an entry that is committed here.
    AppendConflictsWithCommitted {
        /// Our committed entry.
        ours: LogId,
        /// The leader's entry.
        theirs: LogId,
    },
    /// A second leader showed up in one term.
    TwoLeaders {
        /// The term.
        term: Term,
        /// The other leader.
        other: NodeId,
    },
    /// A committed entry holds a configuration that cannot be read.
    BadConfiguration(LogId),
}

impl std::fmt::Display for HaltReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HaltReason::SnapshotConflictsWithCommitted { ours, theirs } => {
                write!(f, "a snapshot up to {theirs} contradicts the committed entry {ours}")
            }
            HaltReason::AppendConflictsWithCommitted { ours, theirs } => {
                write!(f, "a leader's entry {theirs} contradicts the committed entry {ours}")
            }
            HaltReason::TwoLeaders { term, other } => write!(f, "{other} claims to lead term {term} as well"),
            HaltReason::BadConfiguration(id) => {
                write!(f, "entry {id} holds a configuration that cannot be read")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Term;

    #[test]
    fn a_halt_tells_which_entries_or_leaders_disagree() {
        let (ours, theirs) = (LogId::new(1, 4), LogId::new(2, 4));
        let reasons = [
            (HaltReason::SnapshotConflictsWithCommitted { ours, theirs }, ["4@1", "4@2"]),
            (HaltReason::AppendConflictsWithCommitted { ours, theirs }, ["4@1", "4@2"]),
            (HaltReason::TwoLeaders { term: Term(8), other: NodeId(5) }, ["8", "5"]),
            (HaltReason::BadConfiguration(ours), ["4@1", "configuration"]),
        ];
        for (reason, named) in reasons {
            let text = reason.to_string();
            assert!(named.iter().all(|what| text.contains(what)), "{text}");
        }
    }

    #[test]
    fn what_is_cleared_is_empty() {
        let mut ready = Ready::default();
        assert!(ready.is_empty());
        ready.events.push(Event::Refilled { last: LogId::new(1, 1) });
        ready.compact = Some(LogIndex(1));
        assert!(!ready.is_empty());
        ready.clear();
        assert!(ready.is_empty());
    }
}

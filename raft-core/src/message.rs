//! What nodes tell each other. One-way: an answer is a message of its own, and no order between any two is assumed.

use crate::{
    CampaignId, Entries, Epoch, LogId, LogIndex, NodeId, Round, SnapshotMeta, StartNumber, Term, Timestamp,
};

/// One message from one node to another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// The sender, as the connection's handshake proved it.
    pub from: NodeId,
    /// The receiver.
    pub to: NodeId,
    /// The sender's current term. Durable at the sender before the message leaves (SAFETY E3).
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// What a [`Message`] says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// "Would you vote for me?" Changes nothing at the receiver (dissertation 9.6).
    PreVote {
        /// Which campaign of the sender asks.
        campaign: CampaignId,
        /// The term the sender would campaign in; its current term stays as it is.
        next_term: Term,
        /// The last entry of its log.
        last: LogId,
    },
    /// The answer to [`Body::PreVote`].
    PreVoteReply {
        /// Echoed.
        campaign: CampaignId,
        /// Whether the receiver would vote for it.
        granted: bool,
    },
    /// "Vote for me in this term" (dissertation 3.4). Sent once the sender's own term and vote are durable.
    RequestVote {
        /// Which campaign of the sender asks.
        campaign: CampaignId,
        /// The last entry of its log.
        last: LogId,
        /// The leader itself asked for this election: stickiness does not apply (dissertation 3.10, 4.2.3).
        transfer: bool,
    },
    /// The answer to [`Body::RequestVote`]. A grant leaves once the vote is durable.
    RequestVoteReply {
        /// Echoed.
        campaign: CampaignId,
        /// Whether the vote was given.
        granted: bool,
    },
    /// Entries to append (dissertation 3.5). Empty as a probe or as a commit notice.
    AppendEntries {
        /// The leader's knowledge of this peer that the answer will belong to.
        epoch: Epoch,
        /// Confirms leadership when echoed.
        round: Round,
        /// The entry before the first of `entries`.
        prev: LogId,
        /// The leader's commit index.
        commit: LogIndex,
        /// Consecutive, from `prev.index + 1` on.
        entries: Entries,
    },
    /// The answer to [`Body::AppendEntries`] and [`Body::InstallSnapshot`].
    AppendReply {
        /// Echoed.
        epoch: Epoch,
        /// Echoed.
        round: Round,
        /// What became of it.
        outcome: AppendOutcome,
    },
    /// Keeps the followers from campaigning. Never carries entries, never waits behind an append or a disk. Its
    /// `prev` and `commit` let match and commit be learnt without other traffic.
    Heartbeat {
        /// As in an append.
        epoch: Epoch,
        /// As in an append.
        round: Round,
        /// The last entry the leader knows this peer to have; [`LogId::ZERO`] if it knows of none.
        prev: LogId,
        /// The smaller of the leader's commit index and `prev.index`.
        commit: LogIndex,
    },
    /// The answer to [`Body::Heartbeat`]; sent at once.
    HeartbeatReply {
        /// Echoed.
        epoch: Epoch,
        /// Echoed.
        round: Round,
        /// How far the sender's log is both verified against this leader's and durable.
        matched: LogIndex,
        /// The sender's wall clock; leaders compare them.
        clock: Timestamp,
    },
    /// A snapshot in place of entries the leader no longer has (dissertation chapter 5).
    ///
    /// At the sender the runtime streams the named snapshot's file. At the receiver this message is handed to the
    /// core only once the whole file has arrived, is verified and synced under a temporary name. If the next
    /// [`Ready`](crate::Ready) holds no mark of it, the core did not need it and the file can go.
    InstallSnapshot {
        /// As in an append.
        epoch: Epoch,
        /// As in an append.
        round: Round,
        /// What the snapshot stands for.
        meta: Box<SnapshotMeta>,
    },
    /// "Campaign now": the leader hands over (dissertation 3.10).
    TimeoutNow,
    /// A follower asks from which index on its read would be linearizable (dissertation 6.4).
    ReadIndex {
        /// The sender's run, so that an answer to an earlier one is not taken.
        start: StartNumber,
        /// The sender's number of this request; a retry has a new one.
        request: u64,
    },
    /// The answer to [`Body::ReadIndex`], once a round that began after the request was confirmed.
    ReadIndexReply {
        /// Echoed.
        start: StartNumber,
        /// Echoed.
        request: u64,
        /// Serve the read once this is applied; `None`: ask again, this node could not confirm that it leads.
        index: Option<LogIndex>,
    },
    /// "You are no member any more": to a node that left by this configuration, once it is committed, and to one that
    /// left and did not hear of it when it asks for votes. It counts whatever the terms are.
    Removed {
        /// The configuration that does without the receiver.
        conf_id: LogId,
    },
    /// "I lost what I had acknowledged: forget it, and send what follows `after`" (SAFETY D1). Repeated with the
    /// answer to each heartbeat until the sender's log is whole.
    Refill {
        /// The sender's run that found the damage.
        start: StartNumber,
        /// The last entry its disk still holds, before the first hole.
        after: LogId,
        /// The last entry it had acknowledged.
        promised: LogId,
    },
    /// "My newest snapshot cannot be read: send me one that reaches at least as far" (SAFETY D1). Repeated with the
    /// answer to each heartbeat until one is there. The sender's log goes on meanwhile.
    SnapshotNeeded {
        /// The sender's run that found the damage.
        start: StartNumber,
        /// The last entry that the damaged snapshot covered.
        at_least: LogIndex,
    },
}

/// What became of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AppendOutcome {
    /// The sender's log equals the leader's up to here, and is durable.
    Matched(LogIndex),
    /// `prev` did not fit. Counts only while the leader still probes there (SAFETY P3).
    Rejected {
        /// The refused `prev.index`.
        prev: LogIndex,
        /// The latest entry of the sender's log that may still match: at or before `prev`, of a term not above
        /// `prev`'s.
        hint: LogId,
    },
}

impl Body {
    /// Whether this is a request in the sense of the lab's RPC count: an answer is not counted.
    #[must_use]
    pub const fn is_request(&self) -> bool {
        matches!(
            self,
            Body::PreVote { .. }
                | Body::RequestVote { .. }
                | Body::AppendEntries { .. }
                | Body::Heartbeat { .. }
                | Body::InstallSnapshot { .. }
                | Body::TimeoutNow
                | Body::ReadIndex { .. }
                | Body::Refill { .. }
                | Body::SnapshotNeeded { .. }
        )
    }

    /// The message's name in traces, logs and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Body::PreVote { .. } => "pre_vote",
            Body::PreVoteReply { .. } => "pre_vote_reply",
            Body::RequestVote { .. } => "request_vote",
            Body::RequestVoteReply { .. } => "request_vote_reply",
            Body::AppendEntries { .. } => "append_entries",
            Body::AppendReply { .. } => "append_reply",
            Body::Heartbeat { .. } => "heartbeat",
            Body::HeartbeatReply { .. } => "heartbeat_reply",
            Body::InstallSnapshot { .. } => "install_snapshot",
            Body::TimeoutNow => "timeout_now",
            Body::ReadIndex { .. } => "read_index",
            Body::ReadIndexReply { .. } => "read_index_reply",
            Body::Removed { .. } => "removed",
            Body::Refill { .. } => "refill",
            Body::SnapshotNeeded { .. } => "snapshot_needed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_named_as_in_traces_and_metrics() {
        let (epoch, round, commit) = (Epoch(1), Round(1), LogIndex(0));
        let append = Body::AppendEntries { epoch, round, prev: LogId::ZERO, commit, entries: Entries::EMPTY };
        assert_eq!(append.name(), "append_entries");
        assert_eq!(Body::Heartbeat { epoch, round, prev: LogId::ZERO, commit }.name(), "heartbeat");
        assert_eq!(Body::TimeoutNow.name(), "timeout_now");
    }
}

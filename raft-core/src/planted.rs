//! Known mistakes, planted on purpose: a checker that finds none of them proves nothing. No product has them: without
//! `--cfg raft_planted`, which no manifest sets, [`planted!`] is `false` and the compiler drops what it guards. With it
//! one build holds them all, and [`plant`] chooses one at run time. `examples/planted.rs` plants each in turn.

/// Whether this mistake is to be made here.
#[cfg(not(raft_planted))]
macro_rules! planted {
    ($mistake:ident) => {{
        const _: $crate::planted::Mistake = $crate::planted::Mistake::$mistake;
        false
    }};
}

/// Whether this mistake is to be made here.
#[cfg(raft_planted)]
macro_rules! planted {
    ($mistake:ident) => {
        $crate::planted::is_planted($crate::planted::Mistake::$mistake)
    };
}

macro_rules! mistakes {
    ($($(#[doc = $doc:literal])* $name:ident),* $(,)?) => {
        /// A mistake that some Raft has made, or could.
        #[cfg_attr(not(raft_planted), expect(unreachable_pub, reason = "seen by the example that plants them"))]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mistake {
            $($(#[doc = $doc])* $name),*
        }

        #[cfg(raft_planted)]
        impl Mistake {
            /// Every mistake, and what it is.
            pub const ALL: &[(Mistake, &str)] = &[$((Mistake::$name, concat!($($doc),*))),*];
        }
    };
}

mistakes! {
    /// The vote is not part of what is written to disk.
    VoteNotPersisted,
    /// The vote is forgotten by a restart.
    VoteForgottenByRestart,
    /// Answers leave before term and vote are on disk.
    ReplyBeforeHardState,
    /// Requests for votes leave before the candidate's own term and vote are on disk (jraft 1245).
    VoteRequestBeforeDisk,
    /// A second candidate gets a vote in the same term.
    TwoVotesInOneTerm,
    /// Stepping down within a term clears the vote (CCF 8094).
    StepDownClearsVote,
    /// An append clears the vote.
    AppendClearsVote,
    /// A vote is given whatever the candidate's log.
    VoteWithoutLogTest,
    /// A pre-vote is given whatever the candidate's log (NuRaft fork 134).
    PreVoteWithoutLogTest,
    /// Logs are compared by length alone.
    LogComparedByLength,
    /// A pre-vote makes its receiver adopt the term.
    PreVoteAdoptsTerm,
    /// A pre-vote of an earlier term gets no answer (etcd 8243).
    EarlierPreVoteUnanswered,
    /// A candidate leaves pre-votes unanswered (ra 442).
    CandidateIgnoresPreVotes,
    /// A vote is given although the leader was just heard.
    NoStickiness,
    /// Answers to an earlier campaign count.
    VotesOfEarlierCampaign,
    /// Less than a majority of votes elects a leader.
    MinorityElects,
    /// An impossible term is adopted.
    AbsurdTermAdopted,
    /// A leader of an earlier term gets no answer.
    EarlierAppendUnanswered,
    /// An append is acknowledged before its fsync.
    AckBeforeFsync,
    /// A heartbeat's answer acknowledges what is not on disk.
    HeartbeatAckBeforeFsync,
    /// A snapshot is acknowledged before its mark is on disk.
    SnapshotAckBeforeMark,
    /// The leader counts its own copy before it is on disk.
    OwnCopyBeforeDisk,
    /// The completion of a write counts for entries cut since (etcd/raft, append ABA).
    StaleCompletion,
    /// Acknowledgements that wait for the disk survive the end of their term.
    HeldAckSurvivesTerm,
    /// A cut of the log is not part of what is written to disk.
    CutNotPersisted,
    /// Entries leave memory before they are on disk.
    TailDroppedBeforeDisk,
    /// A duplicate or shorter append cuts the log.
    CutByDuplicateAppend,
    /// A conflict cuts one entry too many.
    CutBelowConflict,
    /// A conflict cuts the log below the commit index.
    CutBelowCommit,
    /// A conflicting entry stays where it is.
    ConflictKept,
    /// An append is taken whatever comes before it.
    AppendWithoutPrevTest,
    /// The previous entry is compared by index alone.
    PrevComparedByIndex,
    /// An append acknowledges the whole log, not what it verified.
    AckBeyondVerified,
    /// A follower commits up to its log's end, not up to what was verified.
    CommitBeyondVerified,
    /// An entry of an earlier term is committed by counting (Figure 8).
    OldTermByCounting,
    /// The leader commits what is on its own disk alone.
    LeaderCommitsAlone,
    /// A success of another epoch counts.
    AckOfOtherEpoch,
    /// A heartbeat's answer of an earlier term counts.
    HeartbeatReplyOfEarlierTerm,
    /// A success that comes late lowers match.
    LateSuccessLowersMatch,
    /// An old rejection lowers match.
    RejectionLowersMatch,
    /// A lost append is never sent again.
    LossNotRepeated,
    /// A snapshot at or below the commit index is installed.
    InstallBelowCommit,
    /// A snapshot drops a log that continues it.
    InstallDropsSuffix,
    /// A follower behind the log's start is sent no snapshot.
    NoSnapshotForLaggard,
    /// A snapshot that was lost is waited for without end.
    SnapshotWaitsForever,
    /// The log is dropped before the snapshot's mark is on disk.
    CompactBeforeMark,
    /// After a snapshot the state machine gets the entries again that it covers.
    RestoreForgotten,
    /// What is not committed is applied.
    ApplyUncommitted,
    /// A leader serves reads without asking a quorum.
    ReadWithoutQuorum,
    /// A read is confirmed by answers to an earlier round (etcd/raft 397).
    ReadByEarlierRound,
    /// A new leader serves reads before its commit index is current.
    ReadBeforeOwnCommit,
    /// Reads are forgotten when the leader steps down.
    ReadsForgotten,
    /// A leader's clock takes replicated time back.
    TimeGoesBack,
    /// A lease begins when an answer comes, not when the question left.
    LeaseFromReceipt,
    /// A lease is as long as the promise, whatever the clocks.
    LeaseIgnoresDrift,
    /// A leader that hands over keeps its lease.
    LeaseKeptInTransfer,
    /// A node votes whatever it has promised by its lease.
    LeasePromiseBroken,
    /// A node votes as soon as it has restarted, although leases are on (TiKV 15035).
    VoteAtOnceAfterRestart,
    /// The death of a leader's process ends its lease.
    SuspicionBreaksLease,
}

#[cfg(raft_planted)]
static PLANTED: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// From now on this mistake is made, in every core of this process.
#[cfg(raft_planted)]
pub fn plant(mistake: Mistake) {
    PLANTED.store(mistake as u8 + 1, std::sync::atomic::Ordering::Relaxed);
}

/// No mistake is made any more.
#[cfg(raft_planted)]
pub fn unplant() {
    PLANTED.store(0, std::sync::atomic::Ordering::Relaxed);
}

#[cfg(raft_planted)]
pub(crate) fn is_planted(mistake: Mistake) -> bool {
    PLANTED.load(std::sync::atomic::Ordering::Relaxed) == mistake as u8 + 1
}

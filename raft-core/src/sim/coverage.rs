//! Proof that a run was not vacuous: every fault and every rule's precondition leaves a mark when it occurs.

macro_rules! marks {
    ($($(#[doc = $doc:literal])* $name:ident),* $(,)?) => {
        /// Something that must have happened before a run counts as a test of it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mark {
            $($(#[doc = $doc])* $name),*
        }

        impl Mark {
            /// Every mark there is.
            pub const ALL: &[Mark] = &[$(Mark::$name),*];
        }
    };
}

marks! {
    /// The network dropped a message.
    MessageLost,
    /// The network delivered a message twice.
    MessageDuplicated,
    /// A message arrived behind one that was sent later.
    MessageReordered,
    /// A message arrived very late, from another time.
    MessageStraggled,
    /// A part of an append arrived as an append of its own.
    AppendShortened,
    /// A snapshot was sent where entries would have done.
    SnapshotUnneeded,
    /// An answer to an earlier leadership of a node reached it when it led again.
    AnswerRepeated,
    /// A message met a cut link.
    MessageCut,
    /// A link was cut in one direction only.
    OneWayCut,
    /// The nodes were split into two sides.
    Partition,
    /// One node was cut off from all others.
    Isolation,
    /// A link became slow.
    SlowLink,
    /// A process ended.
    ProcessCrash,
    /// A machine lost power.
    MachineCrash,
    /// A node crashed with some effects of one output carried out and others not.
    CrashBetweenEffects,
    /// All nodes crashed at once.
    AllCrashed,
    /// Power was lost after a process had died and before it was started again.
    PowerCutWhileDown,
    /// A crash of a process left writes that only the cache held.
    UnsyncedKept,
    /// A crash of a machine lost every unsynced write.
    UnsyncedLost,
    /// A crash of a machine lost some unsynced writes and kept others.
    UnsyncedPartlyLost,
    /// A node started again.
    Restart,
    /// A node restarted with its last entry in memory, or not even that.
    RestartWithoutTail,
    /// A disk took very long.
    DiskStalled,
    /// A leader's write was older than the bound (V5).
    LeaderDiskLate,
    /// Another node's was (V5).
    DiskLate,
    /// A sync failed and ended the process.
    DiskFailed,
    /// A disk lost what had been acknowledged (D1).
    LogDamaged,
    /// A node with a damaged log was asked for a vote by a candidate that lacked what it had promised (D1).
    PromiseKept,
    /// A leader began a new epoch for a peer whose log was damaged (D1).
    RefillAsked,
    /// A damaged log was made whole by a leader (D1).
    LogRefilled,
    /// Logs of as many nodes were damaged at once that no quorum of whole ones was left (D1).
    ManyDamaged,
    /// A sync covered several writes.
    GroupCommit,
    /// A process was paused.
    Paused,
    /// Clocks ran at different rates.
    ClockDrift,
    /// A wall clock jumped.
    WallClockJump,
    /// A node took several inputs before it handed out its work.
    InputsBatched,
    /// A message with an impossible term was refused (E13).
    AbsurdTermRefused,
    /// A node was told that a peer's process is gone.
    PeerDiedTold,
    /// A node was told that a peer is back.
    PeerConnectedTold,
    /// A leader began to hand over.
    TransferStarted,
    /// A follower was told to campaign at once, ready for it or not.
    CampaignForced,
    /// A node started with less than the highest priority.
    LowPriority,
    /// A leader that was handing over took an input (X1).
    TransferUnderWay,
    /// A transfer ended with the target leading.
    TransferDone,
    /// A transfer came to its deadline.
    TransferTimedOut,
    /// A transfer ended because the target lost its vote.
    TransferTargetDemoted,
    /// A transfer ended with somebody else leading.
    TransferOvertaken,
    /// A change of the membership was taken.
    ChangeTaken,
    /// A change was refused because one was under way (M1).
    ChangeInProgress,
    /// A change was refused because nothing of the term was committed (M1).
    ChangeNotReady,
    /// A change was refused because a learner was behind.
    PromotionRefused,
    /// A change to what can never be was refused (M8).
    ImpossibleChangeRefused,
    /// The membership changed in one step (M3).
    SimpleChange,
    /// A joint configuration was entered (M3).
    JointEntered,
    /// A joint configuration was left (M4).
    JointLeft,
    /// A joint configuration was left by a leader of a later term (M4).
    JointLeftByNewLeader,
    /// A configuration was cut off with the log (M2).
    ConfRolledBack,
    /// A learner got a vote.
    LearnerPromoted,
    /// A leader began to remove itself (M5).
    LeaderToGo,
    /// A leader that found no successor removed itself (M5).
    LeaderRemovedItself,
    /// A node campaigned that its own latest configuration does without (M6).
    CampaignOutsideOwnConf,
    /// A node was told that it is no member any more.
    RemovedTold,
    /// A node found out that it is no member any more.
    RemovedHeard,
    /// A stranger's later term reached a leader that its members follow (E10).
    StrangersTerm,
    /// A snapshot was taken or installed whose configuration is joint (M7).
    SnapshotWithJointConf,
    /// A disk was lost (D2).
    DiskWiped,
    /// A message from or to another data directory than the configuration names was dropped (D2).
    OtherDirectoryRefused,
    /// A leader was elected.
    LeaderElected,
    /// A leader was elected while the one before still took itself for the leader.
    TwoLeadersOfDifferentTerms,
    /// A vote was given (E2, E5).
    VoteGranted,
    /// A vote was refused (E5, E8).
    VoteRefused,
    /// A pre-vote was refused (E5, E6, E8).
    PreVoteRefused,
    /// A candidate whose log was behind asked (E5).
    StaleCandidate,
    /// Someone asked for a vote while its receiver heard its leader (E8).
    StickyVoteRequest,
    /// A node restarted with a vote in its current term (E2).
    RestartedWithVote,
    /// An append or heartbeat of a lower term arrived (E14).
    LowerTermAppend,
    /// A pre-vote of a lower term arrived (E6).
    LowerTermPreVote,
    /// A conflicting suffix was cut (L3).
    Truncated,
    /// An append arrived that held nothing new (L3).
    DuplicateAppend,
    /// An append was refused (L5).
    AppendRejected,
    /// A reply of an older term or epoch arrived (P4).
    StaleReply,
    /// A success arrived behind a later one (P2).
    ReorderedSuccess,
    /// A quorum had an entry of an earlier term while nothing of the leader's own was committed (C1, Figure 8).
    OldTermOnQuorum,
    /// An entry was committed before its leader had it on disk (C2).
    CommitWithoutLeaderDisk,
    /// A node was handed entries to apply that its own disk did not hold yet.
    AppliedAheadOfDisk,
    /// Entries were read back from the log for a follower or the state machine.
    Fetched,
    /// Entries asked for were no longer there, or could not be read.
    FetchFailed,
    /// A snapshot was taken.
    SnapshotTaken,
    /// The log was cut behind a snapshot.
    Compacted,
    /// A snapshot was sent.
    SnapshotSent,
    /// A snapshot was lost on its way.
    SnapshotLost,
    /// A snapshot was installed in place of the whole log (N2).
    SnapshotReplacedLog,
    /// A snapshot arrived that held nothing new (N1).
    StaleSnapshot,
    /// A node restarted from a snapshot.
    RestartFromSnapshot,
    /// A proposal was committed.
    ProposalCommitted,
    /// A proposal was taken and lost for good.
    ProposalLost,
    /// A proposal's outcome stayed unknown.
    ProposalUnknown,
    /// A proposal was refused as busy.
    ProposalBusy,
    /// A proposal was refused because leadership was being handed over (X1).
    ProposalDuringTransfer,
    /// A proposal was refused by a node that did not lead.
    ProposalNotLeader,
    /// A leader served a read.
    ReadAtLeader,
    /// A follower served a read.
    ReadAtFollower,
    /// A read could not be confirmed.
    ReadUnconfirmed,
    /// A read was asked while a later leader's writes were committed elsewhere (R1).
    ReadAtDeposedLeader,
    /// Leases were switched on (R3).
    LeaseSwitchedOn,
    /// Leases were switched off (R3).
    LeaseSwitchedOff,
    /// A leader that held a lease was asked to read (R3).
    ReadUnderLease,
    /// A leader was elected where leases are on (R3).
    ElectionUnderLease,
    /// A node restarted where leases are on (R3).
    RestartUnderLease,
    /// A leader told its successor to campaign where leases are on (R3).
    TransferUnderLease,
    /// A node was told that a peer's process is gone where leases are on (R3, E8).
    DeathUnderLease,
    /// A leader was cut off while it held a lease, and the others led to elect another (R3).
    LeaseAttacked,
    /// The cluster recovered once faults stopped (V1, V2).
    Healed,
}

/// How often each mark was hit.
#[derive(Clone, Debug)]
pub struct Coverage {
    counts: Vec<u64>,
}

impl Default for Coverage {
    fn default() -> Coverage {
        Coverage { counts: vec![0; Mark::ALL.len()] }
    }
}

impl Coverage {
    pub(super) fn hit(&mut self, mark: Mark) {
        self.counts[mark as usize] += 1;
    }

    /// How often.
    #[must_use]
    pub fn count(&self, mark: Mark) -> u64 {
        self.counts[mark as usize]
    }

    /// The marks never hit.
    #[must_use]
    pub fn missing(&self) -> Vec<Mark> {
        Mark::ALL.iter().copied().filter(|mark| self.count(*mark) == 0).collect()
    }

    /// Adds what another run hit.
    pub fn merge(&mut self, other: &Coverage) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }
}

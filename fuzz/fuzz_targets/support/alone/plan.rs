//! What one core may be told. Most numbers are said relative to what the core shows, so that the fuzzer need not guess
//! them; any of them can also be anything at all.

use arbitrary::Arbitrary;

#[derive(Debug, Arbitrary)]
pub struct Plan {
    pub start: Start,
    pub turns: Vec<Turn>,
}

/// What the core begins with.
#[derive(Debug, Arbitrary)]
pub struct Start {
    /// Voters 1 to this.
    pub voters: u8,
    /// One more member without a vote.
    pub learner: bool,
    /// The core itself is that learner.
    pub learns: bool,
    pub term: FirstTerm,
    /// Limits so small that all of them are met.
    pub small: bool,
    pub lease: bool,
}

#[derive(Debug, Arbitrary)]
pub enum FirstTerm {
    None,
    /// So many below the largest.
    Late(u8),
}

#[derive(Debug, Arbitrary)]
pub struct Turn {
    pub step: Step,
    /// The next input comes before the output of this one is taken.
    pub gather: bool,
}

#[derive(Debug, Arbitrary)]
pub enum Step {
    // --- Peers. ---
    /// Somebody makes a message up.
    Say {
        from: u8,
        astray: bool,
        term: AnyTerm,
        words: Words,
    },
    /// A leader sends entries as a leader would; or not quite: `back` lets it begin before the end of the core's log.
    Feed {
        from: u8,
        term: FeedTerm,
        back: u8,
        entries: u8,
        commit: Place,
    },
    /// And a heartbeat.
    Beat {
        from: u8,
        back: u8,
        commit: Place,
    },
    /// Everybody agrees to what the core said last.
    Agree,
    /// The core stands for election and everybody wants it.
    Elect,
    /// Somebody answers one of the core's latest messages.
    Answer {
        which: u8,
        yes: bool,
        index: Place,
    },
    /// A message that it got before comes again.
    Repeat {
        which: u8,
    },
    // --- Time. ---
    Wait {
        ms: u16,
    },
    /// Until the core wants to be woken.
    WaitForDeadline,
    /// A tick with an earlier time than the last one.
    ClockBack {
        ms: u16,
    },
    // --- The caller. ---
    /// It does all it was asked for.
    Work,
    Persisted(Write),
    Applied(Place),
    Fetched {
        which: u8,
        answer: Answer,
    },
    FetchFailed {
        which: u8,
    },
    SnapshotTaken {
        id: Id,
        voters: u8,
    },
    SnapshotFailed {
        to: u8,
        epoch: Number,
    },
    SnapshotProgress {
        to: u8,
        epoch: Number,
    },
    PeerDied(u8),
    PeerConnected(u8),
    Propose {
        bytes: u8,
    },
    Read,
    Transfer {
        to: u8,
    },
    Change {
        voters: u8,
        learners: u8,
        force: bool,
        twice: bool,
    },
    Lease {
        ms: u16,
        drift_ppm: u32,
    },
    /// The process ends, and of the writes under way so many are found.
    Crash(Crash),
}

#[derive(Debug, Arbitrary)]
pub enum FeedTerm {
    Own,
    Next,
}

#[derive(Debug, Arbitrary)]
pub struct Crash {
    pub kept: u8,
    /// Entries that had been durable are lost.
    pub damaged: Option<u8>,
    pub snapshot_lost: bool,
    /// Entries given to the core at the start.
    pub tail: u8,
}

#[derive(Debug, Arbitrary)]
pub enum Write {
    /// So many of those under way.
    Next(u8),
    /// One that was reported before.
    Before(u8),
    /// One that was never handed out.
    Unknown(u64),
}

#[derive(Debug, Arbitrary)]
pub enum Answer {
    /// A true prefix of what was asked for.
    Prefix(u8),
    /// True, and more than was asked for.
    TooMuch,
    Nothing,
    /// Entries of another place.
    Shifted(i8),
    /// Entries of another term.
    OtherTerm,
}

#[derive(Debug, Arbitrary)]
pub enum AnyTerm {
    Own,
    Next,
    Before,
    Ahead(u8),
    /// As far ahead as is believed.
    Jump,
    /// And one further.
    TooFar,
    Zero,
    /// So many below the largest.
    Late(u8),
    Any(u64),
}

/// An index.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Place {
    Zero,
    Start,
    Snapshot,
    Applied,
    Commit,
    Durable,
    Last,
    Before(u8),
    Behind(u8),
    /// So many below the end of all logs.
    Far(u8),
    Any(u64),
}

#[derive(Debug, Arbitrary)]
pub struct Id {
    pub place: Place,
    pub term: IdTerm,
}

#[derive(Debug, Arbitrary)]
pub enum IdTerm {
    /// As the core's log has it.
    True,
    /// That of the message.
    Message,
    Small(u8),
    Any(AnyTerm),
}

/// An epoch, round, campaign, run or request.
#[derive(Debug, Arbitrary)]
pub enum Number {
    /// As the core said it last.
    Heard,
    Off(i8),
    Any(u64),
}

#[derive(Debug, Arbitrary)]
pub enum Words {
    PreVote { campaign: Number, next: Option<AnyTerm>, last: Id },
    PreVoteReply { campaign: Number, granted: bool },
    RequestVote { campaign: Number, last: Id, transfer: bool },
    RequestVoteReply { campaign: Number, granted: bool },
    Append { epoch: Number, round: Number, prev: Id, commit: Place, entries: Vec<Content> },
    Matched { epoch: Number, round: Number, index: Place },
    Rejected { epoch: Number, round: Number, prev: Place, hint: Id },
    Heartbeat { epoch: Number, round: Number, prev: Id, commit: Place },
    HeartbeatReply { epoch: Number, round: Number, matched: Place, clock: u64 },
    Install { epoch: Number, round: Number, last: Id, conf: Id, voters: u8 },
    TimeoutNow,
    ReadIndex { start: Number, request: Number },
    ReadIndexReply { start: Number, request: Number, index: Option<Place> },
    Removed { conf: Id },
    Refill { start: Number, after: Id, promised: Id },
    SnapshotNeeded { start: Number, at_least: Place },
}

/// An entry behind the one before it.
#[derive(Debug, Arbitrary)]
pub struct Content {
    /// Its term is so much later, if the message allows that.
    pub later: u8,
    /// One index is left out.
    pub gap: bool,
    pub what: What,
    pub time: u16,
}

#[derive(Debug, Arbitrary)]
pub enum What {
    Noop,
    Command(u8),
    Conf {
        voters: u8,
        joint: bool,
        other_directory: bool,
    },
    /// A configuration that cannot be read.
    NoConf(u8),
}

//! Peers that say anything: whatever the messages, the core answers with a typed error, goes on or halts. It never
//! panics and never breaks what it can check by itself.

use bytes::Bytes;
use raft_core::{
    AppendOutcome, Body, CampaignId, Entries, Entry, EntryKind, Epoch, FetchId, Input, LogId, LogIndex,
    NodeId, Now, Proposal, Raft, ReadToken, Recovered, Round, SnapshotMeta, StartNumber, StepError, Term,
    Timestamp, WriteId,
};

use crate::cluster::conf;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    /// Mostly small, sometimes at the far end.
    fn number(&mut self, sides: u64) -> u64 {
        match self.roll(200) {
            0 => u64::MAX,
            1 => u64::MAX >> 1,
            2 => 1 << 33,
            _ => self.roll(sides),
        }
    }

    fn id(&mut self) -> LogId {
        let index = self.number(9);
        if index == 0 { LogId::ZERO } else { LogId::new(self.number(4), index) }
    }

    fn entries(&mut self, prev: LogId) -> Vec<Entry> {
        let mut id = prev;
        let mut entries = Vec::new();
        for _ in 0..self.roll(4) {
            id = LogId { term: Term(id.term.0.max(1).saturating_add(self.roll(2))), index: id.index.next() };
            let kind = if self.roll(9) == 0 { EntryKind::ConfChange } else { EntryKind::Command };
            let payload = match kind {
                EntryKind::ConfChange => Bytes::from(conf(&[1, 2, 3, 4 + self.roll(2)]).encode()),
                _ => Bytes::from_static(b"x"),
            };
            let checksum = Entry::checksum_of(&payload);
            entries.push(Entry { id, time: Timestamp(self.roll(9)), session: None, kind, checksum, payload });
        }
        entries
    }

    fn body(&mut self) -> Body {
        let (epoch, round) = (Epoch(self.number(5)), Round(self.number(5)));
        let campaign = CampaignId((1_u64 << 32).wrapping_add(self.number(6)));
        match self.roll(12) {
            0 => Body::PreVote { campaign, next_term: Term(self.number(6)), last: self.id() },
            1 => Body::PreVoteReply { campaign, granted: self.roll(3) > 0 },
            2 => Body::RequestVote { campaign, last: self.id(), transfer: self.roll(2) == 0 },
            3 => Body::RequestVoteReply { campaign, granted: self.roll(3) > 0 },
            4 => {
                let prev = self.id();
                let entries = Entries::from(self.entries(prev));
                Body::AppendEntries { epoch, round, prev, commit: LogIndex(self.number(9)), entries }
            }
            5 => {
                Body::AppendReply { epoch, round, outcome: AppendOutcome::Matched(LogIndex(self.number(9))) }
            }
            6 => {
                let (prev, hint) = (LogIndex(self.number(9)), self.id());
                Body::AppendReply { epoch, round, outcome: AppendOutcome::Rejected { prev, hint } }
            }
            7 => Body::Heartbeat { epoch, round, prev: self.id(), commit: LogIndex(self.number(9)) },
            8 => {
                let (matched, clock) = (LogIndex(self.number(9)), Timestamp(self.number(9)));
                Body::HeartbeatReply { epoch, round, matched, clock }
            }
            9 => {
                let (last, conf) = (self.id(), conf(&[1, 2, 3]));
                let meta = Box::new(SnapshotMeta { last, conf, ..SnapshotMeta::default() });
                Body::InstallSnapshot { epoch, round, meta }
            }
            10 => Body::TimeoutNow,
            _ => {
                let (start, request) = (StartNumber(self.number(3)), self.number(5));
                if self.roll(2) == 0 {
                    Body::ReadIndex { start, request }
                } else {
                    Body::ReadIndexReply { start, request, index: Some(LogIndex(self.number(9))) }
                }
            }
        }
    }

    fn input(&mut self, raft: &Raft) -> Input {
        match self.roll(16) {
            0 | 1 => Input::Tick,
            2 | 3 => Input::Persisted(WriteId(self.number(12))),
            4 => Input::Applied(LogIndex(self.number(9))),
            5 => {
                let prev = self.id();
                Input::Fetched { id: FetchId(self.number(5)), entries: self.entries(prev) }
            }
            6 => match self.roll(6) {
                0 => Input::FetchFailed { id: FetchId(self.number(5)) },
                1 => Input::SnapshotFailed { to: NodeId(self.roll(4)), epoch: Epoch(self.number(4)) },
                2 => Input::PeerDied(NodeId(self.roll(4))),
                4 => Input::SnapshotProgress { to: NodeId(self.roll(4)), epoch: Epoch(self.number(4)) },
                3 => Input::PeerConnected(NodeId(self.roll(4))),
                _ => {
                    let (last, conf) = (self.id(), conf(&[1, 2, 3]));
                    Input::SnapshotTaken(Box::new(SnapshotMeta { last, conf, ..SnapshotMeta::default() }))
                }
            },
            _ => {
                let near = raft.term().0.saturating_add(self.roll(3)).saturating_sub(self.roll(2));
                let term = Term(if self.roll(20) == 0 { self.number(6) } else { near });
                let (from, to) = (NodeId(2 + self.roll(3)), NodeId(1));
                Input::Message(raft_core::Message { from, to, term, body: self.body() })
            }
        }
    }
}

fn run(seed: u64) -> bool {
    let mut dice = Dice(seed * 977 + 5);
    let mut config = raft_core::Config::new(NodeId(1), seed);
    config.tail_bytes_max = 100;
    config.trailing_entries = 1;
    let mut now = Now::default();
    let mut raft = Raft::new(config, Recovered::fresh(conf(&[1, 2, 3])), now).unwrap();
    for _ in 0..300 {
        now.instant = now.instant.plus_millis(dice.roll(300));
        match dice.roll(10) {
            0 => {
                let _ = raft.propose(now, Proposal::new(Bytes::from_static(b"x")));
                let _ = raft.read(now, ReadToken(1));
                let _ = raft.transfer_leadership(now, NodeId(dice.roll(5)));
            }
            1 | 2 => drop(raft.take_ready()),
            _ => {
                let input = dice.input(&raft);
                let before = raft.clone();
                if let Err(error) = raft.handle(now, input) {
                    let same = (raft.term(), raft.vote(), raft.last(), raft.commit(), raft.role());
                    let was = (before.term(), before.vote(), before.last(), before.commit(), before.role());
                    assert_eq!(same, was, "refused with {error}, and yet changed");
                    assert!(error != StepError::Halted || raft.halted().is_some());
                }
            }
        }
        assert_eq!(raft.check(), Ok(()), "seed {seed}");
    }
    raft.halted().is_none() && raft.commit() > LogIndex::ZERO
}

#[test]
fn no_message_breaks_or_panics_a_core() {
    let lively = (0..3000).filter(|seed| run(*seed)).count();
    assert!(lively > 100, "only {lively} runs got anywhere");
}

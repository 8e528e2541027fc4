//! Makes what the plan says into messages for this core, by what it shows and by what it was heard to say.

use std::collections::BTreeMap;

use bytes::Bytes;
use raft_core::{
    AppendOutcome, Body, CampaignId, ConfState, Entries, Entry, EntryKind, Epoch, Incarnation, LogId,
    LogIndex, Member, Message, NodeId, Raft, Round, SnapshotMeta, StartNumber, Term, Timestamp,
};

use super::plan::{AnyTerm, Content, Id, IdTerm, Number, Place, What, Words};

/// How far ahead a term is believed.
pub const TERM_JUMP_MAX: u64 = 1 << 32;
const INDEX_MAX: u64 = u64::MAX >> 1;

/// The numbers that the core said last to one peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heard {
    epoch: u64,
    round: u64,
    campaign: u64,
    start: u64,
    request: u64,
}

impl Heard {
    pub fn note(&mut self, body: &Body) {
        match body {
            Body::AppendEntries { epoch, round, .. }
            | Body::Heartbeat { epoch, round, .. }
            | Body::InstallSnapshot { epoch, round, .. } => (self.epoch, self.round) = (epoch.0, round.0),
            Body::PreVote { campaign, .. } | Body::RequestVote { campaign, .. } => self.campaign = campaign.0,
            Body::ReadIndex { start, request } => (self.start, self.request) = (start.0, *request),
            _ => {}
        }
    }
}

/// Voters by the bits of a byte, each from 1 to 6.
pub fn conf(voters: u8) -> ConfState {
    ConfState::of_voters(ids(voters).into_iter().map(|id| (id, member(id, false))))
}

pub fn ids(bits: u8) -> Vec<NodeId> {
    (1..=6).filter(|id| bits >> (id - 1) & 1 == 1).map(NodeId).collect()
}

pub fn member(id: NodeId, other_directory: bool) -> Member {
    let incarnation = Incarnation(id.0 + u64::from(other_directory) * 100);
    Member { incarnation, address: format!("node{}:1", id.0) }
}

pub struct Forge<'a> {
    pub raft: &'a Raft,
    pub heard: &'a BTreeMap<NodeId, Heard>,
}

impl Forge<'_> {
    pub fn term(&self, term: &AnyTerm) -> Term {
        let own = self.raft.term().0;
        Term(match *term {
            AnyTerm::Own => own,
            AnyTerm::Next => own.saturating_add(1),
            AnyTerm::Before => own.saturating_sub(1),
            AnyTerm::Ahead(by) => own.saturating_add(u64::from(by)),
            AnyTerm::Jump => own.saturating_add(TERM_JUMP_MAX),
            AnyTerm::TooFar => own.saturating_add(TERM_JUMP_MAX + 1),
            AnyTerm::Zero => 0,
            AnyTerm::Late(below) => u64::MAX - u64::from(below),
            AnyTerm::Any(term) => term,
        })
    }

    pub fn place(&self, place: &Place) -> LogIndex {
        let last = self.raft.last().index;
        match *place {
            Place::Zero => LogIndex::ZERO,
            Place::Start => self.raft.log_start().index,
            Place::Snapshot => self.raft.snapshot().last.index,
            Place::Applied => self.raft.applied(),
            Place::Commit => self.raft.commit(),
            Place::Durable => self.raft.durable(),
            Place::Last => last,
            Place::Before(by) => last.minus(u64::from(by)),
            Place::Behind(by) => last.plus(u64::from(by)),
            Place::Far(below) => LogIndex(INDEX_MAX + 1 - u64::from(below)),
            Place::Any(index) => LogIndex(index),
        }
    }

    pub fn id(&self, id: &Id, message: Term) -> LogId {
        let index = self.place(&id.place);
        let term = match &id.term {
            IdTerm::True => self.raft.term_at(index).unwrap_or(message),
            IdTerm::Message => message,
            IdTerm::Small(term) => Term(u64::from(*term)),
            IdTerm::Any(term) => self.term(term),
        };
        LogId { term, index }
    }

    pub fn message(&self, from: u8, astray: bool, term: &AnyTerm, words: &Words) -> Message {
        let (from, to) = (NodeId(u64::from(from % 8)), NodeId(self.raft.id().0 + u64::from(astray)));
        let term = self.term(term);
        Message { from, to, term, body: self.body(from, term, words) }
    }

    /// What a leader might send.
    pub fn append(&self, from: u8, term: &AnyTerm, back: u8, entries: u8, commit: &Place) -> Message {
        let content = |_| Content { later: u8::MAX, gap: false, what: What::Command(9), time: 5 };
        let entries = (0..entries % 8).map(content).collect();
        let (epoch, round, commit) = (Number::Any(1), Number::Any(1), *commit);
        let words = Words::Append { epoch, round, prev: before_end(back), commit, entries };
        self.message(from, false, term, &words)
    }

    pub fn heartbeat(&self, from: u8, back: u8, commit: &Place) -> Message {
        let (epoch, round, commit) = (Number::Any(1), Number::Any(1), *commit);
        let words = Words::Heartbeat { epoch, round, prev: before_end(back), commit };
        self.message(from, false, &AnyTerm::Own, &words)
    }

    /// What a peer that agrees to everything answers; `None` if the message asks nothing.
    pub fn agreement(&self, asked: &Message) -> Option<Message> {
        let last = match &asked.body {
            Body::AppendEntries { prev, entries, .. } => entries.last().map_or(*prev, |entry| entry.id).index,
            Body::InstallSnapshot { meta, .. } => meta.last.index,
            Body::Heartbeat { prev, .. } => prev.index,
            _ => self.raft.commit(),
        };
        self.answer(asked, true, last)
    }

    /// An answer to one of the core's messages.
    pub fn answer(&self, asked: &Message, yes: bool, index: LogIndex) -> Option<Message> {
        let (granted, clock) = (yes, Timestamp(7));
        let body = match &asked.body {
            Body::PreVote { campaign, .. } => Body::PreVoteReply { campaign: *campaign, granted },
            Body::RequestVote { campaign, .. } => Body::RequestVoteReply { campaign: *campaign, granted },
            Body::AppendEntries { epoch, round, prev, .. } => {
                let refused =
                    AppendOutcome::Rejected { prev: prev.index, hint: self.hint(prev.index.min(index)) };
                let outcome = if yes { AppendOutcome::Matched(index) } else { refused };
                Body::AppendReply { epoch: *epoch, round: *round, outcome }
            }
            Body::InstallSnapshot { epoch, round, .. } => {
                Body::AppendReply { epoch: *epoch, round: *round, outcome: AppendOutcome::Matched(index) }
            }
            Body::Heartbeat { epoch, round, .. } => {
                Body::HeartbeatReply { epoch: *epoch, round: *round, matched: index, clock }
            }
            Body::ReadIndex { start, request } => {
                Body::ReadIndexReply { start: *start, request: *request, index: yes.then_some(index) }
            }
            _ => return None,
        };
        Some(Message { from: asked.to, to: asked.from, term: asked.term, body })
    }

    fn hint(&self, index: LogIndex) -> LogId {
        self.raft.term_at(index).map_or(LogId::ZERO, |term| LogId { term, index })
    }

    fn body(&self, from: NodeId, term: Term, words: &Words) -> Body {
        let heard = self.heard.get(&from).copied().unwrap_or_default();
        let sender = |epoch, round| (Epoch(number(epoch, heard.epoch)), Round(number(round, heard.round)));
        let campaign_of = |campaign| CampaignId(number(campaign, heard.campaign));
        match words {
            Words::PreVote { campaign, next, last } => {
                let next_term = next.as_ref().map_or(term.next(), |next| self.term(next));
                Body::PreVote { campaign: campaign_of(campaign), next_term, last: self.id(last, term) }
            }
            Words::PreVoteReply { campaign, granted } => {
                Body::PreVoteReply { campaign: campaign_of(campaign), granted: *granted }
            }
            Words::RequestVote { campaign, last, transfer } => {
                let last = self.id(last, Term(term.0.saturating_sub(1)));
                Body::RequestVote { campaign: campaign_of(campaign), last, transfer: *transfer }
            }
            Words::RequestVoteReply { campaign, granted } => {
                Body::RequestVoteReply { campaign: campaign_of(campaign), granted: *granted }
            }
            Words::Append { epoch, round, prev, commit, entries } => {
                let ((epoch, round), prev) = (sender(epoch, round), self.id(prev, term));
                let entries = contents(prev, term, entries);
                Body::AppendEntries { epoch, round, prev, commit: self.place(commit), entries }
            }
            Words::Matched { epoch, round, index } => {
                let (epoch, round) = sender(epoch, round);
                Body::AppendReply { epoch, round, outcome: AppendOutcome::Matched(self.place(index)) }
            }
            Words::Rejected { epoch, round, prev, hint } => {
                let (epoch, round) = sender(epoch, round);
                let (prev, hint) = (self.place(prev), self.id(hint, term));
                Body::AppendReply { epoch, round, outcome: AppendOutcome::Rejected { prev, hint } }
            }
            Words::Heartbeat { epoch, round, prev, commit } => {
                let (epoch, round) = sender(epoch, round);
                Body::Heartbeat { epoch, round, prev: self.id(prev, term), commit: self.place(commit) }
            }
            Words::HeartbeatReply { epoch, round, matched, clock } => {
                let (epoch, round) = sender(epoch, round);
                Body::HeartbeatReply { epoch, round, matched: self.place(matched), clock: Timestamp(*clock) }
            }
            Words::Install { epoch, round, last, conf, voters } => {
                let (epoch, round) = sender(epoch, round);
                let last = self.id(last, term);
                let (conf_id, time) = (self.id(conf, last.term), Timestamp(u64::from(*voters)));
                let meta = Box::new(SnapshotMeta { last, time, conf: self::conf(*voters), conf_id });
                Body::InstallSnapshot { epoch, round, meta }
            }
            Words::TimeoutNow => Body::TimeoutNow,
            Words::ReadIndex { start, request } => {
                Body::ReadIndex { start: run(start, heard), request: number(request, heard.request) }
            }
            Words::ReadIndexReply { start, request, index } => {
                let request = number(request, heard.request);
                let index = index.as_ref().map(|index| self.place(index));
                Body::ReadIndexReply { start: run(start, heard), request, index }
            }
            Words::Removed { conf } => Body::Removed { conf_id: self.id(conf, term) },
            Words::Refill { start, after, promised } => {
                let (after, promised) = (self.id(after, term), self.id(promised, term));
                Body::Refill { start: run(start, heard), after, promised }
            }
            Words::SnapshotNeeded { start, at_least } => {
                Body::SnapshotNeeded { start: run(start, heard), at_least: self.place(at_least) }
            }
        }
    }
}

/// The core's own entry so many before its last.
fn before_end(back: u8) -> Id {
    Id { place: Place::Before(back % 8), term: IdTerm::True }
}

fn run(start: &Number, heard: Heard) -> StartNumber {
    StartNumber(number(start, heard.start))
}

pub fn number(number: &Number, heard: u64) -> u64 {
    match *number {
        Number::Heard => heard,
        Number::Off(by) => heard.wrapping_add_signed(i64::from(by)),
        Number::Any(number) => number,
    }
}

/// Entries behind `prev` that form a log, most of the time.
fn contents(prev: LogId, term: Term, contents: &[Content]) -> Entries {
    let mut id = prev;
    let next = |content: &Content| {
        let later = id.term.0.saturating_add(u64::from(content.later)).min(term.0.max(id.term.0)).max(1);
        id = LogId { term: Term(later), index: id.index.next().plus(u64::from(content.gap)) };
        let (kind, payload) = match &content.what {
            What::Noop => (EntryKind::Noop, Bytes::new()),
            What::Command(bytes) => (EntryKind::Command, Bytes::from(vec![*bytes; usize::from(*bytes)])),
            What::Conf { voters, joint, other_directory } => {
                (EntryKind::ConfChange, Bytes::from(some_conf(*voters, *joint, *other_directory).encode()))
            }
            What::NoConf(byte) => (EntryKind::ConfChange, Bytes::from(vec![*byte; 3])),
        };
        let (checksum, time) = (Entry::checksum_of(&payload), Timestamp(u64::from(content.time)));
        Entry { id, time, session: None, kind, checksum, payload }
    };
    contents.iter().take(8).map(next).collect()
}

fn some_conf(voters: u8, joint: bool, other_directory: bool) -> ConfState {
    let mut conf = conf(voters);
    if joint {
        conf.outgoing = ids(voters.rotate_left(3)).into_iter().collect();
        conf.auto_leave = voters >> 7 == 1;
        for id in conf.all() {
            conf.members.entry(id).or_insert_with(|| member(id, false));
        }
    }
    if other_directory && let Some((id, known)) = conf.members.iter_mut().next() {
        *known = member(*id, true);
    }
    conf
}

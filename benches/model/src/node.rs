//! One node: the real core, its disk, and the writes on their way there. A step takes one input and runs the core until
//! it has nothing more to tell.

use std::collections::VecDeque;

use bytes::Bytes;
use raft_core::{
    Apply, Body, ConfChange, ConfState, Config, Entries, Input, Instant, LogIndex, Message, NodeId, Now,
    Proposal, Raft, Ready, RoleKind, Timestamp, Write, WriteId,
    model::{BASE, Names},
};

use crate::{disk::Disk, marks::Mark};

/// What may happen to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event<'a> {
    /// A message arrives, and so much time has passed.
    Deliver(&'a Message, Clock),
    /// It has waited long enough: a follower or candidate campaigns, a leader that hears nobody steps down.
    Timeout,
    /// A leader's heartbeats are due.
    Heartbeat,
    /// A leader's deadlines have passed although it is heard: a transfer, a departure.
    Deadline,
    /// The oldest write is durable.
    Persist,
    /// The node restarts; so many of its unfinished writes are found on the disk.
    Crash(usize),
    /// A client hands in a command.
    Propose,
    /// An operator asks for a change of the membership.
    Change(&'a ConfChange),
    /// An operator hands leadership over.
    Transfer(NodeId),
}

/// How much time has passed since the last step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Clock {
    /// None: whoever was ever heard was heard just now.
    Still,
    /// Much: every lease and every deadline is over.
    Late,
}

/// How the model differs from the whole.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) founding: ConfState,
    /// Pre-votes are messages; otherwise everybody agrees to each at once.
    pub(crate) pre_votes: bool,
    pub(crate) one_epoch: bool,
}

/// A node between two steps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) core: Raft,
    pub(crate) disk: Disk,
    /// Not durable yet, oldest first.
    pub(crate) writes: VecDeque<Write>,
    /// What went wrong in a step: a rule that only the step can see.
    pub(crate) wrong: Option<&'static str>,
}

/// What a step led to.
pub(crate) struct Step {
    pub(crate) node: Node,
    pub(crate) sent: Vec<Message>,
    pub(crate) marks: Vec<Mark>,
}

impl Node {
    /// A node that starts for the first time.
    pub(crate) fn new(id: NodeId, shape: &Shape) -> Node {
        let disk = Disk::default();
        let core = Raft::new(config(id), disk.recovered(&shape.founding), at(BASE)).expect("a fresh disk");
        let mut node = Node { core, disk, writes: VecDeque::new(), wrong: None };
        let mut step = Vec::new();
        node.run(shape, &mut step);
        assert!(step.is_empty(), "a fresh node has nothing to say");
        node
    }

    /// What the event leads to.
    pub(crate) fn step(&self, shape: &Shape, event: &Event<'_>) -> Step {
        let mut node = self.clone();
        let mut sent = Vec::new();
        node.take(shape, event);
        node.run(shape, &mut sent);
        let marks = Mark::of(self, event, &node, &sent);
        Step { node, sent, marks }
    }

    fn take(&mut self, shape: &Shape, event: &Event<'_>) {
        match event {
            Event::Deliver(message, clock) => {
                let now = match clock {
                    Clock::Still => BASE,
                    Clock::Late => LATE,
                };
                if self.core.handle(at(now), Input::Message((*message).clone())).is_err() {
                    self.wrong = Some("a true message was refused");
                }
            }
            Event::Timeout => self.hear(LATE, Input::Tick),
            Event::Heartbeat => self.hear(BASE.plus_millis(HEARTBEAT_MS), Input::Tick),
            Event::Deadline => {
                self.core.hear_peers(LATE);
                self.hear(LATE, Input::Tick);
            }
            Event::Persist => {
                if let Some(write) = self.writes.pop_front() {
                    self.disk.write(&write);
                    self.hear(BASE, Input::Persisted(write.id));
                }
            }
            Event::Crash(survive) => {
                self.writes.drain(..).take(*survive).for_each(|write| self.disk.write(&write));
                match Raft::new(config(self.core.id()), self.disk.recovered(&shape.founding), at(BASE)) {
                    Ok(core) => self.core = core,
                    Err(_) => self.wrong = Some("a restart was refused"),
                }
            }
            Event::Propose => {
                let _ = self.core.propose(at(BASE), Proposal::new(Bytes::from_static(b"x")));
            }
            Event::Change(change) => {
                let _ = self.core.change_membership(at(BASE), change);
            }
            Event::Transfer(to) => {
                let _ = self.core.transfer_leadership(at(BASE), *to);
            }
        }
    }

    fn hear(&mut self, now: Instant, input: Input) {
        if self.core.halted().is_none() && self.core.handle(at(now), input).is_err() {
            self.wrong = Some("a true report was refused");
        }
    }

    /// Carries out what the core asks for. What it applies is applied at once: nothing depends on when.
    fn run(&mut self, shape: &Shape, sent: &mut Vec<Message>) {
        while let Some(Ready { messages, write, apply, fetches, .. }) = self.core.take_ready() {
            self.writes.extend(write);
            if !fetches.is_empty() {
                self.wrong = Some("entries were fetched that never left memory");
            }
            for work in apply {
                let last = match work {
                    Apply::Entries(entries) => last_of(&entries),
                    Apply::Restore(meta) => meta.last.index,
                };
                self.hear(BASE, Input::Applied(last));
            }
            for message in messages {
                let Message { from, term, .. } = message;
                if let Body::PreVote { campaign, .. } = message.body
                    && !shape.pre_votes
                {
                    // Everybody with a vote agrees, asked first or not.
                    let voters = self.core.conf().all().into_iter().filter(|id| *id != from);
                    for voter in voters.collect::<Vec<_>>() {
                        let body = Body::PreVoteReply { campaign, granted: true };
                        self.hear(BASE, Input::Message(Message { from: voter, to: from, term, body }));
                    }
                } else {
                    sent.push(message);
                }
            }
        }
        self.core.normalise(shape.one_epoch);
        sent.iter_mut().for_each(|message| message.normalise(shape.one_epoch));
        for (number, write) in (1..).zip(&mut self.writes) {
            write.id = WriteId(number);
        }
    }

    /// The same node in a cluster whose nodes have other names.
    pub(crate) fn renamed(&self, names: Names<'_>) -> Node {
        let mut node = Node { core: self.core.renamed(names), ..self.clone() };
        node.disk.hard_state.vote = node.disk.hard_state.vote.map(names);
        for write in &mut node.writes {
            write.hard_state.vote = write.hard_state.vote.map(names);
        }
        node
    }

    /// What the disk will hold once everything is written.
    pub(crate) fn disk_to_be(&self) -> Disk {
        let mut disk = self.disk.clone();
        self.writes.iter().for_each(|write| disk.write(write));
        disk
    }

    pub(crate) fn leads(&self) -> bool {
        self.core.role() == RoleKind::Leader
    }
}

/// Long after everything: no lease is live, every deadline has passed.
const LATE: Instant = BASE.plus_millis(1_000_000);
const HEARTBEAT_MS: u64 = 100;

fn at(instant: Instant) -> Now {
    Now { instant, wall: Timestamp(0) }
}

fn last_of(entries: &Entries) -> LogIndex {
    entries.last().map_or(LogIndex::ZERO, |entry| entry.id.index)
}

/// The product's settings, but for a disk that may take as long as it likes: a slow one is no matter of safety.
fn config(id: NodeId) -> Config {
    Config { heartbeat_ms: HEARTBEAT_MS, disk_stall_ms: 1 << 40, ..Config::new(id, 0) }
}

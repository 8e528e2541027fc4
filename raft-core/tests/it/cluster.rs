//! A few cores with disks, a network and a clock that only the test moves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use raft_core::{
    Apply, Body, ChangeError, ConfChange, ConfState, Config, Entry, EntryKind, Event, Fetch, HardState,
    Incarnation, Input, Instant, LogId, LogIndex, Member, Message, NodeId, Now, Proposal, ProposeError, Raft,
    ReadOutcome, ReadToken, Recovered, RoleKind, SnapshotMeta, StartNumber, StepError, Term, TermRun,
    Timestamp, Write,
};

use crate::journal::{self, Journal};

/// What a node's disk holds: exactly what was persisted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    pub(crate) snapshot: SnapshotMeta,
    pub(crate) start: LogId,
    pub(crate) entries: Vec<Entry>,
    /// What it had acknowledged before it was damaged.
    pub(crate) promised: Option<LogId>,
    /// The snapshot's file cannot be read.
    pub(crate) snapshot_lost: bool,
}

impl Disk {
    pub(crate) fn last(&self) -> LogIndex {
        self.entries.last().map_or(self.start.index, |entry| entry.id.index)
    }

    fn write(&mut self, write: &Write) {
        self.hard_state = write.hard_state;
        if let Some(after) = write.truncate_after {
            self.entries.retain(|entry| entry.id.index <= after);
        }
        if let Some(mark) = &write.snapshot {
            self.snapshot = mark.meta.clone();
            self.snapshot_lost = false;
            if mark.resets_log {
                self.entries.clear();
                self.start = mark.meta.last;
            }
        }
        for entry in &write.entries {
            assert_eq!(entry.id.index, self.last().next(), "the log on disk has no gap");
            self.entries.push(entry.clone());
        }
    }

    /// Damage takes every entry behind `index`; the disk still tells what was promised.
    pub(crate) fn damage(&mut self, index: u64) {
        self.promised = self.promised.max(self.entries.last().map(|entry| entry.id));
        self.entries.retain(|entry| entry.id.index.0 <= index);
    }

    fn compact(&mut self, index: LogIndex) {
        if let Some(entry) = self.entries.iter().find(|entry| entry.id.index == index) {
            self.start = entry.id;
        }
        self.entries.retain(|entry| entry.id.index > index);
    }

    pub(crate) fn recover(&self, tail: usize) -> Recovered {
        let mut term_runs: Vec<TermRun> = Vec::new();
        let mut confs = Vec::new();
        for entry in &self.entries {
            if term_runs.last().is_none_or(|run| run.term != entry.id.term) {
                term_runs.push(TermRun { first: entry.id.index, term: entry.id.term });
            }
            if entry.kind == EntryKind::ConfChange {
                confs.push((entry.id, ConfState::decode(&entry.payload).unwrap()));
            }
        }
        let skip = self.entries.len().saturating_sub(tail);
        Recovered {
            hard_state: self.hard_state,
            snapshot: self.snapshot.clone(),
            log_start: self.start,
            last: self.last(),
            term_runs,
            confs,
            tail: self.entries[skip..].to_vec(),
            promised: self.promised,
            snapshot_lost: self.snapshot_lost,
        }
    }
}

/// One core and what surrounds it.
pub(crate) struct Node {
    pub(crate) raft: Raft,
    pub(crate) disk: Disk,
    pub(crate) up: bool,
    /// A stuck disk keeps its writes in `writes`.
    pub(crate) disk_stuck: bool,
    pub(crate) writes: VecDeque<Write>,
    /// A stuck reader keeps its fetches in `fetches`.
    pub(crate) reader_stuck: bool,
    /// Nothing can be read back from the log.
    pub(crate) unreadable: bool,
    pub(crate) fetches: VecDeque<Fetch>,
    /// The state machine: every entry it got since its last restore.
    pub(crate) applied: Vec<Entry>,
    pub(crate) restored: Vec<SnapshotMeta>,
    pub(crate) reads: Vec<ReadOutcome>,
    pub(crate) events: Vec<Event>,
    config: Config,
}

/// The cluster.
pub(crate) struct Cluster {
    pub(crate) nodes: BTreeMap<u64, Node>,
    pub(crate) now_ms: u64,
    pub(crate) network: VecDeque<Message>,
    /// Directed pairs that lose everything.
    pub(crate) cut: BTreeSet<(u64, u64)>,
    /// Every message that left a node.
    pub(crate) sent: Vec<Message>,
    /// Set by a test: what to lose.
    pub(crate) lose: fn(&Message) -> bool,
    /// What happened, for whoever tells it.
    pub(crate) journal: Journal,
}

pub(crate) fn conf(ids: &[u64]) -> ConfState {
    ConfState::of_voters(ids.iter().map(|id| (NodeId(*id), Member::default())))
}

impl Cluster {
    pub(crate) fn new(count: u64) -> Cluster {
        Cluster::with(count, |_| {})
    }

    pub(crate) fn with(count: u64, settings: impl Fn(&mut Config)) -> Cluster {
        let ids: Vec<u64> = (1..=count).collect();
        Cluster::of(&ids, conf(&ids), settings)
    }

    /// These nodes, founded with this configuration.
    pub(crate) fn of(ids: &[u64], conf: ConfState, settings: impl Fn(&mut Config)) -> Cluster {
        let mut cluster = Cluster {
            nodes: BTreeMap::new(),
            now_ms: 1000,
            network: VecDeque::new(),
            cut: BTreeSet::new(),
            sent: Vec::new(),
            lose: |_| false,
            journal: Journal::default(),
        };
        for id in ids {
            let mut config = Config::new(NodeId(*id), 100 + id);
            settings(&mut config);
            let disk = Disk {
                snapshot: SnapshotMeta { conf: conf.clone(), ..SnapshotMeta::default() },
                ..Disk::default()
            };
            let node = cluster.start(config, disk);
            cluster.nodes.insert(*id, node);
        }
        cluster
    }

    fn start(&self, config: Config, disk: Disk) -> Node {
        let raft = Raft::new(config.clone(), disk.recover(usize::MAX), self.now()).unwrap();
        Node {
            raft,
            disk,
            up: true,
            disk_stuck: false,
            writes: VecDeque::new(),
            reader_stuck: false,
            unreadable: false,
            fetches: VecDeque::new(),
            applied: Vec::new(),
            restored: Vec::new(),
            reads: Vec::new(),
            events: Vec::new(),
            config,
        }
    }

    /// Has node 1 lead, and everybody hear of it.
    pub(crate) fn be_led_by_one(&mut self) {
        self.wait_for_leader();
        self.elect(1);
        self.commit("a");
        self.pass(200);
    }

    pub(crate) fn now(&self) -> Now {
        Now { instant: Instant(self.now_ms * 1000), wall: Timestamp(1_700_000_000_000 + self.now_ms) }
    }

    pub(crate) fn node(&self, id: u64) -> &Node {
        &self.nodes[&id]
    }

    pub(crate) fn node_mut(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).unwrap()
    }

    pub(crate) fn raft(&self, id: u64) -> &Raft {
        &self.nodes[&id].raft
    }

    /// Power loss: only the disk is left. The messages under way still arrive.
    pub(crate) fn crash(&mut self, id: u64) {
        let node = self.node_mut(id);
        node.up = false;
        node.writes.clear();
        node.fetches.clear();
    }

    /// Power loss after the first `kept` of the unsynced writes reached the disk, without anybody being told.
    pub(crate) fn crash_keeping(&mut self, id: u64, kept: usize) {
        let node = self.node_mut(id);
        let writes: Vec<Write> = node.writes.drain(..).take(kept).collect();
        for write in &writes {
            node.disk.write(write);
        }
        self.crash(id);
    }

    pub(crate) fn restart(&mut self, id: u64) {
        let old = &self.nodes[&id];
        let mut config = old.config.clone();
        config.start = StartNumber(config.start.0 + 1);
        config.seed += 1000;
        let node = self.start(config, old.disk.clone());
        self.nodes.insert(id, node);
    }

    /// Starts `id` again with only the last entries in memory. The others are on its disk, and cannot be read back.
    pub(crate) fn restart_unreadable(&mut self, id: u64) {
        self.restart(id);
        let (now, node) = (self.now(), self.node_mut(id));
        node.raft = Raft::new(node.config.clone(), node.disk.recover(1), now).unwrap();
        node.unreadable = true;
    }

    pub(crate) fn handle(&mut self, id: u64, input: Input) -> Result<(), StepError> {
        let now = self.now();
        let outcome = self.node_mut(id).raft.handle(now, input);
        self.raft(id).check().unwrap();
        outcome
    }

    /// Hands over a message that is made up by the test.
    pub(crate) fn inject(&mut self, from: u64, to: u64, term: u64, body: Body) -> Result<(), StepError> {
        let message = Message { from: NodeId(from), to: NodeId(to), term: Term(term), body };
        self.handle(to, Input::Message(message))
    }

    pub(crate) fn propose(&mut self, id: u64, command: &str) -> Result<LogId, ProposeError> {
        let now = self.now();
        let command = Proposal::new(Bytes::copy_from_slice(command.as_bytes()));
        self.node_mut(id).raft.propose(now, command)
    }

    pub(crate) fn change(&mut self, id: u64, change: &ConfChange) -> Result<LogId, ChangeError> {
        let now = self.now();
        let outcome = self.node_mut(id).raft.change_membership(now, change);
        self.raft(id).check().unwrap();
        outcome
    }

    /// A node with an empty directory that was told of the cluster, and waits to be let in.
    pub(crate) fn join(&mut self, id: u64, incarnation: u64, conf: ConfState) {
        let config = Config { incarnation: Incarnation(incarnation), ..Config::new(NodeId(id), 500 + id) };
        let disk = Disk { snapshot: SnapshotMeta { conf, ..SnapshotMeta::default() }, ..Disk::default() };
        let node = self.start(config, disk);
        self.nodes.insert(id, node);
    }

    /// The state machine of `id` puts all it has applied into a snapshot, if it has applied anything and runs.
    pub(crate) fn snapshot(&mut self, id: u64) -> Option<SnapshotMeta> {
        let node = self.node(id);
        let last = node.applied.last().filter(|_| node.up)?.id;
        let (conf_id, conf) = node.raft.conf_at(last.index);
        let meta = SnapshotMeta { last, time: node.raft.time(), conf: conf.clone(), conf_id };
        self.handle(id, Input::SnapshotTaken(Box::new(meta.clone()))).unwrap();
        Some(meta)
    }

    pub(crate) fn read(&mut self, id: u64, token: u64) {
        let now = self.now();
        self.node_mut(id).raft.read(now, ReadToken(token)).unwrap();
    }

    /// Carries out what one core asks for; its messages go to the network. Whether there was anything.
    pub(crate) fn carry_out(&mut self, id: u64) -> bool {
        let now = self.now();
        let node = self.nodes.get_mut(&id).unwrap();
        if !node.up {
            return false;
        }
        let Some(ready) = node.raft.take_ready() else { return self.work_disk(id) };
        self.journal.ready(id, &ready, node.disk_stuck);
        self.sent.extend(ready.messages.iter().cloned());
        self.network.extend(ready.messages);
        node.writes.extend(ready.write);
        node.fetches.extend(ready.fetches);
        node.reads.extend(ready.reads);
        node.events.extend(ready.events);
        for work in ready.apply {
            let applied = match work {
                Apply::Entries(entries) => {
                    for entry in &entries {
                        assert!(entry.is_intact());
                        let before =
                            node.applied.last().map(|e| e.id).or(node.restored.last().map(|m| m.last));
                        if let Some(before) = before {
                            assert_eq!(entry.id.index, before.index.next(), "applied once and in order");
                        }
                        node.applied.push(entry.clone());
                    }
                    entries.last().unwrap().id.index
                }
                Apply::Restore(meta) => {
                    assert_eq!(node.disk.snapshot, *meta, "a restore follows its mark on disk");
                    node.applied.clear();
                    node.restored.push((*meta).clone());
                    meta.last.index
                }
            };
            node.raft.handle(now, Input::Applied(applied)).unwrap();
        }
        if let Some(index) = ready.compact {
            node.disk.compact(index);
        }
        self.work_disk(id);
        true
    }

    /// Finishes what lies at the disk, unless it is stuck.
    pub(crate) fn work_disk(&mut self, id: u64) -> bool {
        let now = self.now();
        let node = self.nodes.get_mut(&id).unwrap();
        let mut worked = false;
        while !node.disk_stuck
            && let Some(write) = node.writes.pop_front()
        {
            node.disk.write(&write);
            self.journal.line(|| format!("n{id} has on disk: {}", journal::write(&write)));
            node.raft.handle(now, Input::Persisted(write.id)).unwrap();
            worked = true;
        }
        while !node.reader_stuck
            && let Some(Fetch { id, first, last, .. }) = node.fetches.pop_front()
        {
            let wanted = |entry: &&Entry| (first..=last).contains(&entry.id.index);
            let readable = node.disk.entries.iter().filter(|_| !node.unreadable);
            let entries: Vec<Entry> = readable.filter(wanted).cloned().collect();
            let input =
                if entries.is_empty() { Input::FetchFailed { id } } else { Input::Fetched { id, entries } };
            node.raft.handle(now, input).unwrap();
            worked = true;
        }
        worked
    }

    /// Carries out and delivers until nothing is left to do at this moment.
    pub(crate) fn settle(&mut self) {
        self.settle_those(|_| true);
    }

    /// Carries out what every core asks for, and delivers the messages that are wanted, until nothing is left to do at
    /// this moment.
    pub(crate) fn settle_those(&mut self, wanted: impl Fn(&Message) -> bool) {
        for _ in 0..10_000 {
            let ids: Vec<u64> = self.nodes.keys().copied().collect();
            let mut busy = false;
            for id in ids {
                busy |= self.carry_out(id);
            }
            let (now, later): (Vec<_>, Vec<_>) = self.network.drain(..).partition(&wanted);
            self.network = later.into();
            busy |= !now.is_empty();
            for message in now {
                self.deliver(message);
            }
            if !busy {
                return;
            }
        }
        panic!("the cluster does not come to rest");
    }

    pub(crate) fn deliver(&mut self, message: Message) {
        let (from, to) = (message.from.0, message.to.0);
        let lost = self.cut.contains(&(from, to)) || (self.lose)(&message);
        if !lost && self.nodes.get(&to).is_some_and(|node| node.up) {
            self.handle(to, Input::Message(message)).unwrap();
        } else {
            self.journal.line(|| format!("lost: {}", journal::message(&message)));
        }
    }

    /// Moves the clock by `ms`, one millisecond at a time, ticking whoever has a deadline.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.settle();
        for _ in 0..ms {
            self.tick();
            self.settle();
        }
    }

    /// A millisecond passes; whoever has a deadline is told.
    pub(crate) fn tick(&mut self) {
        self.now_ms += 1;
        let now = self.now().instant;
        let due = |node: &Node| node.up && node.raft.next_deadline().is_some_and(|at| at <= now);
        let ids: Vec<u64> = self.nodes.iter().filter(|(_, node)| due(node)).map(|(id, _)| *id).collect();
        for id in ids {
            self.handle(id, Input::Tick).unwrap();
        }
    }

    /// Lets `id` stand for election now and win it.
    pub(crate) fn elect(&mut self, id: u64) {
        self.settle();
        for _ in 0..200 {
            if self.leader() == Some(id) {
                return;
            }
            self.pass(50);
            if let Some(other) = self.leader().filter(|other| *other != id) {
                let now = self.now();
                // Refused while the target catches up: then once more.
                let _ = self.node_mut(other).raft.transfer_leadership(now, NodeId(id));
            }
        }
        panic!("{id} was not elected");
    }

    /// The leader of the highest term.
    pub(crate) fn leader(&self) -> Option<u64> {
        let leads = |(_, node): &(&u64, &Node)| node.up && node.raft.role() == RoleKind::Leader;
        self.nodes.iter().filter(leads).max_by_key(|(_, node)| node.raft.term()).map(|(id, _)| *id)
    }

    /// Waits until somebody leads.
    pub(crate) fn wait_for_leader(&mut self) -> u64 {
        for _ in 0..100 {
            self.pass(100);
            if let Some(leader) = self.leader() {
                return leader;
            }
        }
        panic!("no leader");
    }

    pub(crate) fn isolate(&mut self, id: u64) {
        for other in self.nodes.keys().copied().filter(|other| *other != id).collect::<Vec<_>>() {
            self.cut.insert((id, other));
            self.cut.insert((other, id));
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
        self.lose = |_| false;
    }

    /// The commands a node applied since its last restore.
    pub(crate) fn commands(&self, id: u64) -> Vec<String> {
        let commands = self.nodes[&id].applied.iter().filter(|entry| entry.kind == EntryKind::Command);
        commands.map(|entry| String::from_utf8_lossy(&entry.payload).into_owned()).collect()
    }

    /// Proposes at the leader and lets everybody learn it.
    pub(crate) fn commit(&mut self, command: &str) -> LogId {
        let leader = self.leader().unwrap();
        let id = self.propose(leader, command).unwrap();
        self.pass(10);
        id
    }

    /// The messages sent from one node to another since `mark`.
    pub(crate) fn sent_since(&self, mark: usize, from: u64, to: u64) -> Vec<Message> {
        let wanted = |m: &&Message| m.from == NodeId(from) && m.to == NodeId(to);
        self.sent[mark..].iter().filter(wanted).cloned().collect()
    }
}

//! Three raft-core nodes in one thread. The disk is a vector: whatever is written counts as durable at once.

use std::collections::VecDeque;

use bytes::Bytes;
use raft_core::{
    Apply, ConfState, Config, EntryKind, Input, Member, Message, NodeId, Now, Proposal, Raft, Ready,
    Recovered, RoleKind, Timestamp, Write,
};

use crate::{Cluster, MEMORY_ENTRIES, NODE_COUNT, NODES};

/// One core with its log in memory.
struct Node {
    raft: Raft,
    log: VecDeque<raft_core::Entry>,
    applied: u64,
}

pub(crate) struct Ours {
    nodes: Vec<Node>,
    network: VecDeque<Message>,
    now: Now,
    leader: usize,
    ready: Ready,
}

impl Ours {
    pub(crate) fn new() -> Ours {
        let conf = ConfState::of_voters((1..=NODES).map(|id| (NodeId(id), Member::default())));
        let now = Now::default();
        let start = |id| Node {
            raft: Raft::new(Config::new(NodeId(id), id), Recovered::fresh(conf.clone()), now)
                .expect("the settings fit"),
            log: VecDeque::new(),
            applied: 0,
        };
        let nodes = (1..=NODES).map(start).collect();
        let mut cluster = Ours { nodes, network: VecDeque::new(), now, leader: 0, ready: Ready::default() };
        while !cluster.find_leader() {
            cluster.tick();
        }
        cluster
    }

    fn find_leader(&mut self) -> bool {
        let leader = self.nodes.iter().position(|node| node.raft.role() == RoleKind::Leader);
        self.leader = leader.unwrap_or_default();
        leader.is_some()
    }

    fn tick(&mut self) {
        self.now = Now {
            instant: self.now.instant.plus_millis(1),
            wall: Timestamp(self.now.wall.0.saturating_add(1)),
        };
        for at in 0..self.nodes.len() {
            let raft = &mut self.nodes[at].raft;
            if raft.next_deadline().is_some_and(|at| at <= self.now.instant) {
                raft.handle(self.now, Input::Tick).expect("a tick is always taken");
            }
            self.drive(at);
        }
        self.deliver();
    }

    /// Carries out what a node asks for until it asks for nothing more.
    fn drive(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        while node.raft.take_ready_into(&mut self.ready) {
            let ready = &mut self.ready;
            self.network.extend(ready.messages.drain(..));
            if let Some(write) = ready.write.take() {
                let id = write.id;
                store(&mut node.log, write);
                node.raft.handle(self.now, Input::Persisted(id)).expect("the write was issued");
            }
            for work in ready.apply.drain(..) {
                let Apply::Entries(entries) = work else { continue };
                let commands = entries.iter().filter(|entry| entry.kind == EntryKind::Command);
                node.applied += commands.count() as u64;
                if let Some(last) = entries.last() {
                    node.raft.handle(self.now, Input::Applied(last.id.index)).expect("it was handed out");
                }
            }
        }
    }

    /// Passes messages until none is left. All that waits for a node is handed in before its outputs are taken.
    fn deliver(&mut self) {
        while !self.network.is_empty() {
            let mut touched = [false; NODE_COUNT];
            for _ in 0..self.network.len() {
                let Some(message) = self.network.pop_front() else { break };
                let to = usize::try_from(message.to.0 - 1).expect("a small id");
                self.nodes[to].raft.handle(self.now, Input::Message(message)).expect("honest peers");
                touched[to] = true;
            }
            for (at, touched) in touched.into_iter().enumerate() {
                if touched {
                    self.drive(at);
                }
            }
        }
    }
}

fn store(log: &mut VecDeque<raft_core::Entry>, write: Write) {
    log.extend(write.entries.iter().cloned());
    while log.len() > MEMORY_ENTRIES {
        log.pop_front();
    }
}

impl Cluster for Ours {
    fn replicate(&mut self, payload: &Bytes, batch: usize, batches: usize) {
        let goal = self.nodes[self.leader].applied + (batch * batches) as u64;
        for _ in 0..batches {
            let leader = &mut self.nodes[self.leader].raft;
            for _ in 0..batch {
                leader.propose(self.now, Proposal::new(payload.clone())).expect("the leader takes it");
            }
            self.drive(self.leader);
            self.deliver();
        }
        // The last commit is told the followers by a notice of its own.
        while self.nodes.iter().any(|node| node.applied < goal) {
            self.tick();
        }
    }
}

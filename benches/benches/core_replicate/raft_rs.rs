//! Three raft-rs nodes in one thread, each with the crate's own `MemStorage`.

use std::collections::VecDeque;

use bytes::Bytes;
use raft::{
    Config, RawNode, StateRole,
    eraftpb::{ConfState, Entry, EntryType, Message, MessageType},
    storage::MemStorage,
};

use crate::{Cluster, MEMORY_ENTRIES, NODE_COUNT, NODES};

/// How it is configured and called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The batch handed in as one message, appends batched, up to 1 MiB of entries in one message.
    Best,
    /// One call a command, settings as the crate's examples have them.
    Untuned,
}

struct Node {
    raft: RawNode<MemStorage>,
    applied: u64,
}

pub(crate) struct RaftRs {
    nodes: Vec<Node>,
    network: VecDeque<Message>,
    mode: Mode,
}

impl RaftRs {
    pub(crate) fn new(mode: Mode) -> RaftRs {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let start = |id| {
            let mut config = Config {
                id,
                election_tick: 10,
                heartbeat_tick: 3,
                max_inflight_msgs: 256,
                ..Config::default()
            };
            if mode == Mode::Best {
                config.max_size_per_msg = 1 << 20;
                config.batch_append = true;
            }
            let storage =
                MemStorage::new_with_conf_state(ConfState::from(((1..=NODES).collect::<Vec<_>>(), vec![])));
            Node { raft: RawNode::new(&config, storage, &logger).expect("the settings fit"), applied: 0 }
        };
        let mut cluster = RaftRs { nodes: (1..=NODES).map(start).collect(), network: VecDeque::new(), mode };
        cluster.nodes[0].raft.campaign().expect("it may campaign");
        cluster.drive(0);
        cluster.deliver();
        assert_eq!(cluster.nodes[0].raft.raft.state, StateRole::Leader, "node 1 has won its election");
        cluster
    }

    fn drive(&mut self, at: usize) {
        let Node { raft, applied } = &mut self.nodes[at];
        while raft.has_ready() {
            let mut ready = raft.ready();
            self.network.extend(ready.take_messages());
            apply(raft, applied, ready.take_committed_entries());
            let entries = ready.take_entries();
            let storage = raft.store().clone();
            if !entries.is_empty() {
                storage.wl().append(&entries).expect("it continues the log");
            }
            if let Some(state) = ready.hs() {
                storage.wl().set_hardstate(state.clone());
            }
            self.network.extend(ready.take_persisted_messages());
            let mut light = raft.advance(ready);
            if let Some(commit) = light.commit_index() {
                storage.wl().mut_hard_state().commit = commit;
            }
            self.network.extend(light.take_messages());
            apply(raft, applied, light.take_committed_entries());
            raft.advance_apply();
        }
    }

    fn deliver(&mut self) {
        while !self.network.is_empty() {
            let mut touched = [false; NODE_COUNT];
            for _ in 0..self.network.len() {
                let Some(message) = self.network.pop_front() else { break };
                let to = usize::try_from(message.to - 1).expect("a small id");
                self.nodes[to].raft.step(message).expect("honest peers");
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

fn apply(raft: &mut RawNode<MemStorage>, applied: &mut u64, entries: Vec<Entry>) {
    let Some(last) = entries.last().map(|entry| entry.index) else { return };
    *applied +=
        entries.iter().filter(|e| e.get_entry_type() == EntryType::EntryNormal && !e.data.is_empty()).count()
            as u64;
    // The storage keeps as many entries as ours does.
    let keep = last.saturating_sub(MEMORY_ENTRIES as u64);
    if keep > 0 && last.is_multiple_of(MEMORY_ENTRIES as u64) {
        raft.store().wl().compact(keep).expect("it is in the log");
    }
}

impl Cluster for RaftRs {
    fn replicate(&mut self, payload: &Bytes, batch: usize, batches: usize) {
        let goal = self.nodes[0].applied + (batch * batches) as u64;
        for _ in 0..batches {
            let leader = &mut self.nodes[0].raft;
            match self.mode {
                Mode::Best => {
                    let mut message = Message { from: 1, ..Message::default() };
                    message.set_msg_type(MessageType::MsgPropose);
                    let entry = || Entry { data: payload.clone(), ..Entry::default() };
                    message.set_entries((0..batch).map(|_| entry()).collect::<Vec<_>>().into());
                    leader.raft.step(message).expect("the leader takes it");
                }
                Mode::Untuned => {
                    for _ in 0..batch {
                        leader.propose(Vec::new(), payload.to_vec()).expect("the leader takes it");
                    }
                }
            }
            self.drive(0);
            self.deliver();
        }
        while self.nodes.iter().any(|node| node.applied < goal) {
            for at in 0..self.nodes.len() {
                self.nodes[at].raft.tick();
                self.drive(at);
            }
            self.deliver();
        }
    }
}

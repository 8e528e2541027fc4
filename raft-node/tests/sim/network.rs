//! The network: what goes through when.
//!
//! Messages of Raft may be lost, doubled, late and in any order. What is forwarded travels on a connection: once, or
//! not at all, and if it is lost both ends hear of a new connection later. A cut that does not break the connection
//! holds such packets back until it is mended, as TCP does.

use raft_core::{Message, NodeId, Proposal};
use raft_net::FoundingMessage;
use raft_node::replica::ForwardOutcome;

use crate::random::Random;

/// What travels.
#[derive(Clone, Debug)]
pub(crate) enum Packet {
    Raft(Message),
    Founding(FoundingMessage),
    Forward { request: u64, origin_run: u64, proposal: Proposal, first: bool },
    ForwardReply { request: u64, origin_run: u64, outcome: ForwardOutcome },
}

/// How the network is at the moment. Shares are per mille, times microseconds.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    pub(crate) lateness: u64,
    pub(crate) delay_max: u64,
}

impl Weather {
    pub(crate) const FAIR: Weather = Weather { loss: 0, duplication: 0, lateness: 0, delay_max: 500 };

    pub(crate) fn drawn(random: &mut Random) -> Weather {
        Weather {
            loss: random.pick(&[0, 0, 10, 100, 250]),
            duplication: random.pick(&[0, 10, 100]),
            lateness: random.pick(&[0, 20, 200]),
            delay_max: random.pick(&[1_000, 10_000, 60_000, 250_000]),
        }
    }

    pub(crate) fn delay(&self, random: &mut Random) -> u64 {
        let usual = random.between(50, 500);
        if random.chance(self.lateness) { usual + random.between(0, self.delay_max) } else { usual }
    }
}

/// Who reaches whom.
#[derive(Debug)]
pub(crate) struct Links {
    nodes: usize,
    cut: Vec<bool>,
    /// The runs between which a connection exists, by pair.
    connected: Vec<Option<(u64, u64)>>,
}

impl Links {
    pub(crate) fn new(nodes: usize) -> Links {
        Links { nodes, cut: vec![false; nodes * nodes], connected: vec![None; nodes * nodes] }
    }

    fn at(&self, from: usize, to: usize) -> usize {
        from * self.nodes + to
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut[self.at(from, to)]
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        let at = self.at(from, to);
        self.cut[at] = from != to;
    }

    pub(crate) fn split(&mut self, group: impl Fn(usize) -> bool) {
        for from in 0..self.nodes {
            for to in 0..self.nodes {
                if group(from) != group(to) {
                    self.cut(from, to);
                }
            }
        }
    }

    pub(crate) fn mend(&mut self) {
        self.cut.fill(false);
    }

    /// The connection between two nodes is gone; a new one is made when that is possible.
    pub(crate) fn break_connection(&mut self, a: usize, b: usize) -> bool {
        let at = self.at(a.min(b), a.max(b));
        self.connected[at].take().is_some()
    }

    /// Notes a connection between two runs; true if it is a new one.
    pub(crate) fn connect(&mut self, (a, run_a): (usize, u64), (b, run_b): (usize, u64)) -> bool {
        let at = self.at(a, b);
        let new = !self.is_cut(a, b) && !self.is_cut(b, a) && self.connected[at] != Some((run_a, run_b));
        if new {
            self.connected[at] = Some((run_a, run_b));
        }
        new
    }
}

/// A node's id from its place, and back.
pub(crate) fn id(place: usize) -> NodeId {
    NodeId(place as u64 + 1)
}

pub(crate) fn place(id: NodeId) -> usize {
    usize::try_from(id.0).unwrap() - 1
}

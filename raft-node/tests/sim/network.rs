//! The network: what goes through when.
//!
//! Messages of Raft may be lost, doubled, late and in any order. What is forwarded, and what is answered to it, travels on
//! the connection that its sender has dialled: once, or not at all, and if it is lost that one is dialled anew later. Then
//! its sender hears that it is connected, and its receiver that it was dialled again, if both processes are the same. A cut
//! that does not break the connection holds such packets back until it is mended, as TCP does.

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
    /// The runs between which a connection exists, by who dialled whom.
    connected: Vec<Option<(u64, u64)>>,
    /// The runs between which one existed last.
    before: Vec<Option<(u64, u64)>>,
}

/// A connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dial {
    /// The first between these two runs.
    First,
    Again,
}

impl Links {
    pub(crate) fn new(nodes: usize) -> Links {
        let none = vec![None; nodes * nodes];
        Links { nodes, cut: vec![false; nodes * nodes], connected: none.clone(), before: none }
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

    /// The connection that `from` dialled is gone; a new one is made when that is possible.
    pub(crate) fn break_connection(&mut self, from: usize, to: usize) -> bool {
        let at = self.at(from, to);
        self.connected[at].take().is_some()
    }

    /// Notes a connection that run `run_a` of `a` dials; `None` if there is one, or can be none.
    pub(crate) fn connect(&mut self, (a, run_a): (usize, u64), (b, run_b): (usize, u64)) -> Option<Dial> {
        let (at, runs) = (self.at(a, b), Some((run_a, run_b)));
        if self.is_cut(a, b) || self.is_cut(b, a) || self.connected[at] == runs {
            return None;
        }
        self.connected[at] = runs;
        let again = std::mem::replace(&mut self.before[at], runs) == runs;
        Some(if again { Dial::Again } else { Dial::First })
    }
}

/// A node's id from its place, and back.
pub(crate) fn id(place: usize) -> NodeId {
    NodeId(place as u64 + 1)
}

pub(crate) fn place(id: NodeId) -> usize {
    usize::try_from(id.0).unwrap() - 1
}

//! The suite's simulated network (`labrpc`), as far as one-way messages can tell it from the real one.
//!
//! - A request counts when it is sent, whatever becomes of it; an answer counts in bytes when it is let through.
//! - Whether a link is up is looked at when a request is taken up, and again before the answer is let through. In
//!   between it may go down: the request then still has its effect.
//! - A reliable network adds no delay. Here a message takes [`HOP`] all the same, drawn anew for each, so that any two
//!   may overtake each other as concurrent calls do.
//! - An unreliable one delays a request by 0 to 26 ms, loses one in ten of them and one in ten of the answers.
//! - Long reordering delays two of three answers by 200 ms and up to two seconds more.
//! - The caller of a lost request is told so by the suite, late. One-way messages have no caller: nobody is told.

use crate::{NodeId, sim::random::Random};

/// Who can reach whom, and what was counted.
#[derive(Clone, Debug)]
pub(super) struct Net {
    /// The servers the tester marked as connected.
    connected: Vec<bool>,
    /// Up or down, by sender and receiver.
    links: Vec<Vec<bool>>,
    pub(super) reliable: bool,
    pub(super) long_reordering: bool,
    /// Requests sent.
    pub(super) rpcs: u64,
    /// Bytes of requests sent and of answers delivered.
    pub(super) bytes: u64,
    /// Requests that reached each server since its last start.
    pub(super) arrived: Vec<u64>,
}

impl Net {
    /// All servers connected with each other.
    pub(super) fn new(servers: usize, reliable: bool) -> Net {
        Net {
            connected: vec![true; servers],
            links: vec![vec![true; servers]; servers],
            reliable,
            long_reordering: false,
            rpcs: 0,
            bytes: 0,
            arrived: vec![0; servers],
        }
    }

    pub(super) fn is_connected(&self, server: usize) -> bool {
        self.connected[server]
    }

    pub(super) fn is_up(&self, from: usize, to: usize) -> bool {
        self.links[from][to]
    }

    /// Marks a server as connected, and links it with all others so marked.
    pub(super) fn connect(&mut self, server: usize) {
        self.connected[server] = true;
        for peer in 0..self.links.len() {
            if self.connected[peer] {
                self.links[server][peer] = true;
                self.links[peer][server] = true;
            }
        }
    }

    /// Takes all links from and to a server down.
    pub(super) fn disconnect(&mut self, server: usize) {
        self.connected[server] = false;
        for peer in 0..self.links.len() {
            self.links[server][peer] = false;
            self.links[peer][server] = false;
        }
    }

    /// How long a request that was taken up travels; `None`: it gets lost.
    pub(super) fn request_delay(&self, random: &mut Random) -> Option<u64> {
        let hop = random.between(HOP.0, HOP.1);
        if self.reliable {
            return Some(hop);
        }
        let delay = random.between(0, 26) * 1000;
        (!random.chance(100)).then_some(hop + delay)
    }

    /// How long an answer that was let through travels; `None`: it gets lost.
    pub(super) fn answer_delay(&self, random: &mut Random) -> Option<u64> {
        let hop = random.between(HOP.0, HOP.1);
        if !self.reliable && random.chance(100) {
            return None;
        }
        if self.long_reordering && random.below(3) < 2 {
            let most = random.below(2000);
            return Some(hop + (200 + random.between(0, most)) * 1000);
        }
        Some(hop)
    }
}

/// A server's place in the lists, which start at 0; ids start at 1.
pub(super) fn place(id: NodeId) -> usize {
    usize::try_from(id.0).unwrap_or(usize::MAX).saturating_sub(1)
}

/// The id of the server at a place.
pub(super) fn id(place: usize) -> NodeId {
    NodeId(place as u64 + 1)
}

/// The least and most microseconds any message takes.
const HOP: (u64, u64) = (50, 150);

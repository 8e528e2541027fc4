//! Snapshots that arrived whole, and whether whoever got them still runs.
//!
//! A leader gives a peer that got a snapshot a minute to install it. One whose process ended before the log had marked it
//! starts without it, and nothing says so but that another process connects.

use std::collections::BTreeMap;

use raft_core::{Epoch, NodeId};

/// See the module. A process is told from the next one by the nonce of its handshakes.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    connected: BTreeMap<NodeId, u64>,
    /// To whom a snapshot left last.
    begun: BTreeMap<NodeId, u64>,
    /// What that process has whole.
    whole: BTreeMap<NodeId, Epoch>,
}

impl Arrivals {
    /// A snapshot leaves for this peer.
    pub(crate) fn begins(&mut self, to: NodeId) {
        self.whole.remove(&to);
        match self.connected.get(&to) {
            Some(process) => self.begun.insert(to, *process),
            None => self.begun.remove(&to),
        };
    }

    /// It arrived. Tells whether it counts as failed, since another process has connected meanwhile.
    #[must_use]
    pub(crate) fn arrived(&mut self, to: NodeId, epoch: Epoch) -> bool {
        let is_lost = self.begun.get(&to) != self.connected.get(&to);
        if !is_lost {
            self.whole.insert(to, epoch);
        }
        is_lost
    }

    /// A process of this peer connected. Tells the epoch of a snapshot that the one before may have taken with it.
    #[must_use]
    pub(crate) fn connected(&mut self, peer: NodeId, process: u64) -> Option<Epoch> {
        let before = self.connected.insert(peer, process);
        if before == Some(process) { None } else { self.whole.remove(&peer) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId(2);

    #[test]
    fn a_snapshot_is_lost_with_the_process_that_got_it() {
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.connected(PEER, 7), None);
        arrivals.begins(PEER);
        assert!(!arrivals.arrived(PEER, Epoch(3)));
        assert_eq!(arrivals.connected(PEER, 7), None, "the same process, on its other connection");
        assert_eq!(arrivals.connected(NodeId(3), 9), None, "another peer");
        assert_eq!(arrivals.connected(PEER, 8), Some(Epoch(3)));
        assert_eq!(arrivals.connected(PEER, 9), None, "told twice");
    }

    #[test]
    fn the_news_of_the_next_process_may_come_before_that_of_the_arrival() {
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.connected(PEER, 7), None);
        arrivals.begins(PEER);
        assert_eq!(arrivals.connected(PEER, 8), None);
        assert!(arrivals.arrived(PEER, Epoch(3)));
        assert_eq!(arrivals.connected(PEER, 9), None);
    }

    #[test]
    fn the_next_snapshot_takes_the_place_of_the_last() {
        let mut arrivals = Arrivals::default();
        assert_eq!(arrivals.connected(PEER, 7), None);
        arrivals.begins(PEER);
        assert!(!arrivals.arrived(PEER, Epoch(3)));
        arrivals.begins(PEER);
        assert_eq!(arrivals.connected(PEER, 8), None, "what is under way fails by itself");
    }
}

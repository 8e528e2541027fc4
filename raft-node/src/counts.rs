//! What a driver counts, for whoever reads metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the start of the node. Written by the driver alone.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) proposals: AtomicU64,
    pub(crate) forwards: AtomicU64,
    pub(crate) reads: AtomicU64,
    pub(crate) elections: AtomicU64,
    pub(crate) leader_changes: AtomicU64,
    pub(crate) snapshots: AtomicU64,
    pub(crate) snapshots_received: AtomicU64,
}

/// What a node has counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Entries it put into its log as leader.
    pub proposals: u64,
    /// Commands it sent to the leader for clients of its own.
    pub forwards: u64,
    /// Linearizable reads its clients asked for.
    pub reads: u64,
    /// Elections it campaigned in.
    pub elections: u64,
    /// Changes of the leader it saw.
    pub leader_changes: u64,
    /// Snapshots it took.
    pub snapshots: u64,
    /// Snapshots it received.
    pub snapshots_received: u64,
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl Counts {
    pub(crate) fn totals(&self) -> Totals {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            proposals: get(&self.proposals),
            forwards: get(&self.forwards),
            reads: get(&self.reads),
            elections: get(&self.elections),
            leader_changes: get(&self.leader_changes),
            snapshots: get(&self.snapshots),
            snapshots_received: get(&self.snapshots_received),
        }
    }
}

//! Who waits for which entry of this node's log.

use std::collections::VecDeque;

use raft_core::{Instant, LogId, LogIndex};

/// Waiters in the order of the entries they wait for.
///
/// Invariant: indexes ascend strictly, and so do the moments they were handed in.
#[derive(Debug)]
pub(super) struct Pending<W> {
    queue: VecDeque<Waiter<W>>,
}

#[derive(Debug)]
struct Waiter<W> {
    id: LogId,
    since: Instant,
    waiter: W,
}

/// What one committed entry decides.
#[derive(Debug)]
pub(super) struct Settled<W> {
    /// Waited for this very entry.
    pub(super) committed: Option<W>,
    /// Waited for another entry at this place or before it: lost.
    pub(super) lost: Vec<W>,
}

impl<W> Default for Pending<W> {
    fn default() -> Pending<W> {
        Pending { queue: VecDeque::new() }
    }
}

impl<W> Pending<W> {
    /// Adds a waiter for the entry `id` and returns those whose entries it has overwritten in this node's log.
    pub(super) fn push(&mut self, id: LogId, waiter: W, since: Instant) -> Vec<W> {
        let keep = self.queue.partition_point(|pending| pending.id.index < id.index);
        let overwritten = self.queue.drain(keep..).map(|pending| pending.waiter).collect();
        self.queue.push_back(Waiter { id, since, waiter });
        overwritten
    }

    /// The entry `id` is committed: takes out everyone whose fate that decides.
    pub(super) fn settle(&mut self, id: LogId) -> Settled<W> {
        let mut settled = Settled { committed: None, lost: Vec::new() };
        while let Some(first) = self.queue.front()
            && first.id.index <= id.index
        {
            let same = first.id == id;
            let Some(Waiter { waiter, .. }) = self.queue.pop_front() else { break };
            if same {
                settled.committed = Some(waiter);
            } else {
                settled.lost.push(waiter);
            }
        }
        settled
    }

    /// Takes out everyone who waits for an entry up to `index`.
    pub(super) fn skip_to(&mut self, index: LogIndex) -> Vec<W> {
        let end = self.queue.partition_point(|pending| pending.id.index <= index);
        self.queue.drain(..end).map(|pending| pending.waiter).collect()
    }

    /// Since when the first has been waiting.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.queue.front().map(|pending| pending.since)
    }

    /// Takes out the first.
    pub(super) fn pop_oldest(&mut self) -> Option<W> {
        self.queue.pop_front().map(|pending| pending.waiter)
    }

    /// Takes out everyone.
    pub(super) fn drain(&mut self) -> Vec<W> {
        self.queue.drain(..).map(|pending| pending.waiter).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(ids: &[(u64, u64)]) -> Pending<(u64, u64)> {
        let mut pending = Pending::default();
        for &(term, index) in ids {
            assert!(pending.push(LogId::new(term, index), (term, index), Instant(index)).is_empty());
        }
        pending
    }

    #[test]
    fn each_waiter_gets_its_own_entry() {
        let mut pending = pending(&[(1, 4), (1, 6)]);
        assert_eq!(pending.settle(LogId::new(1, 4)).committed, Some((1, 4)));
        let between = pending.settle(LogId::new(1, 5));
        assert!(between.committed.is_none() && between.lost.is_empty());
        assert_eq!(pending.settle(LogId::new(1, 6)).committed, Some((1, 6)));
    }

    #[test]
    fn another_entry_in_its_place_means_lost() {
        let mut pending = pending(&[(1, 4)]);
        let settled = pending.settle(LogId::new(2, 4));
        assert_eq!((settled.committed, settled.lost), (None, vec![(1, 4)]));
    }

    #[test]
    fn overwriting_returns_the_overwritten() {
        let mut pending = pending(&[(1, 4), (1, 5)]);
        assert_eq!(pending.push(LogId::new(3, 4), (3, 4), Instant(9)), vec![(1, 4), (1, 5)]);
        assert_eq!(pending.settle(LogId::new(3, 4)).committed, Some((3, 4)));
    }

    #[test]
    fn a_snapshot_skips_what_it_covers() {
        let mut pending = pending(&[(1, 4), (1, 5), (1, 6)]);
        assert_eq!(pending.skip_to(LogIndex(5)), vec![(1, 4), (1, 5)]);
        assert_eq!(pending.oldest(), Some(Instant(6)));
    }
}

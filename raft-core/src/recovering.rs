//! A node whose disk lost part of what it had acknowledged (SAFETY D1).
//!
//! Its log ends before the first hole, but it still knows its term, its vote and the last entry it promised to hold.
//! - It votes as if it still had that entry, so that no leader is elected that lacks what it helped to commit.
//! - It does not campaign: its log may lack what is committed.
//! - It acknowledges what its disk holds now, no more. A leader that believes more is told with [`Body::Refill`] and
//!   begins a new epoch for it. That lowers what the leader knows of this peer, never what is committed.
//!
//! Once its log is durable up to the promised entry, or up to one of a later leader, it is a node like any other:
//! by the order of log ids no vote then differs from what the promise demands.
//!
//! A node whose log is whole and whose newest snapshot is lost has no state to apply anything to. It keeps its log,
//! acknowledges and votes by it, and does not campaign. Each heartbeat is answered with [`Body::SnapshotNeeded`], until a
//! snapshot that reaches as far as the lost one has its mark in the log: then the entries behind it are applied.

use crate::{
    Body, Event, LogId, LogIndex, NodeId, SnapshotMark, SnapshotMeta, StartNumber,
    leader::Leader,
    progress::{ProgressState, Replacing},
    shared::Shared,
};

/// What is remembered of a log that lost its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Recovering {
    /// The last entry this node had acknowledged.
    promised: LogId,
}

impl Recovering {
    /// The state of a log that ends with `last` although it had reached `promised`; `None` if nothing is missing.
    pub(crate) fn new(promised: Option<LogId>, last: LogId) -> Option<Recovering> {
        promised.filter(|promised| *promised > last).map(|promised| Recovering { promised })
    }

    pub(crate) fn promised(&self) -> LogId {
        self.promised
    }
}

impl Shared {
    /// Asks the leader to send what is missing. Repeated with every heartbeat, as the request may be lost.
    pub(crate) fn ask_for_refill(&mut self, leader: NodeId) {
        let (Some(Recovering { promised }), Some(after)) = (self.recovering, self.durable_last()) else {
            return;
        };
        if after < promised {
            self.send(leader, Body::Refill { start: self.config.start, after, promised });
        }
    }

    /// The log grew on disk: maybe it is whole again.
    pub(crate) fn look_whether_whole(&mut self) {
        let Some(last) = self.durable_last() else { return };
        if self.recovering.take_if(|recovering| last >= recovering.promised).is_some() {
            self.out.events.push(Event::Refilled { last });
        }
    }

    /// Asks the leader for a snapshot in the place of the lost one, unless one has arrived.
    pub(crate) fn ask_for_snapshot(&mut self, leader: NodeId) {
        if let Some(at_least) = self.snapshot_lost.filter(|_| !self.apply.has_restore()) {
            self.send(leader, Body::SnapshotNeeded { start: self.config.start, at_least });
        }
    }

    /// Whether a snapshot up to `index` is what this node waits for.
    pub(crate) fn replaces_lost(&self, index: LogIndex) -> bool {
        !self.apply.has_restore() && self.snapshot_lost.is_some_and(|lost| index >= lost)
    }

    /// A leader's snapshot of what the log holds stands for the lost one: nothing of the log is dropped (SAFETY N2).
    pub(crate) fn replace_snapshot(&mut self, meta: SnapshotMeta) {
        self.commit_to(meta.last.index);
        self.log.note_snapshot(meta.clone());
        self.disk.stage_mark(SnapshotMark { meta: meta.clone(), received: true, resets_log: false });
        self.apply.restore(meta);
    }

    /// The mark of a received snapshot is durable: if one was lost, it is no longer.
    pub(crate) fn note_replaced(&mut self, last: LogId) {
        if self.snapshot_lost.take_if(|lost| *lost <= last.index).is_some() {
            self.out.events.push(Event::SnapshotReplaced { last });
        }
    }

    /// The last entry on disk; `None` while a snapshot that replaces the log is on its way there.
    fn durable_last(&self) -> Option<LogId> {
        let index = self.disk.durable();
        self.log.term_at(index).map(|term| LogId { term, index })
    }
}

impl Leader {
    /// A peer lost what it had acknowledged behind `after`. What it told earlier does not count any more: acknowledgements
    /// of its run before may still be on their way, so its first request opens a new epoch. Later ones of the same run
    /// are repetitions. Nothing committed is put in question: others hold it, and the peer votes by its promise.
    pub(crate) fn refill(
        &mut self,
        shared: &mut Shared,
        from: NodeId,
        (start, after, promised): (StartNumber, LogId, LogId),
    ) {
        let epoch = self.next_epoch();
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.heard_at = shared.now.instant;
        if start > peer.refilled {
            let next = after.index.min(shared.log.last().index).next();
            peer.reopen(start, next, epoch);
        }
        // What it promised was never committed and will never come. An entry of this term settles that; while leadership is
        // handed over nothing is appended, or the target would lack it (SAFETY X1). The peer asks again.
        if promised > shared.log.last() && self.transfer.is_none() {
            self.append_noop(shared);
        }
    }

    /// A peer that has its log lost its newest snapshot: it gets ours beside the entries that go on. Ours may be the older
    /// one: then a new one is due first. What was sent to this run of the peer is not sent again while it may be on its
    /// way.
    pub(crate) fn snapshot_needed(
        &mut self,
        shared: &mut Shared,
        from: NodeId,
        start: StartNumber,
        at_least: LogIndex,
    ) {
        let (now, round, attempt) = (shared.now.instant, self.round, self.next_epoch());
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let is_seen_to =
            peer.replacing.is_some_and(|was| start < was.run || (start == was.run && now < was.until));
        if is_seen_to || matches!(peer.state(), ProgressState::Snapshot { .. }) {
            return;
        }
        let meta = shared.log.snapshot().clone();
        let (wait_ms, attempt) = if meta.last.index >= at_least {
            peer.offered = peer.offered.max(meta.last.index);
            // Not the peer's epoch: the entries that are on their way to it go on.
            shared.send(from, Body::InstallSnapshot { epoch: attempt, round, meta: Box::new(meta) });
            (shared.config.snapshot_timeout_ms, Some(attempt))
        } else if shared.apply.applied() >= at_least {
            shared.out.events.push(Event::SnapshotWanted { peer: from });
            (shared.config.heartbeat_ms, None)
        } else {
            return;
        };
        peer.replacing = Some(Replacing { run: start, until: now.plus_millis(wait_ms), attempt });
    }
}

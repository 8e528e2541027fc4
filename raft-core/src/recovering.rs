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

use crate::{Body, Event, LogId, NodeId, StartNumber, leader::Leader, shared::Shared};

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
        // What it promised was never committed and will never come. An entry of this term settles that.
        if promised > shared.log.last() {
            self.append_noop(shared);
        }
    }
}

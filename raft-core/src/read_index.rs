//! Linearizable reads without a log entry (dissertation 6.4): the leader's queue, and the follower's that asks it.

use std::collections::{BTreeMap, VecDeque};

use crate::{Instant, LogIndex, NodeId, ReadToken, Round, StartNumber};

/// More reads than this do not wait at one node.
pub(crate) const READS_MAX: usize = 1 << 16;
/// More requests of one follower are not kept.
pub(crate) const REQUESTS_MAX: usize = 1 << 10;

/// Who asked a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Asker {
    Local(ReadToken),
    Follower { from: NodeId, start: StartNumber, request: u64 },
}

/// A leader's reads, oldest first.
///
/// Invariant: reads with a round come first and their rounds rise; at most one round is open (SAFETY R1, R2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct ReadQueue {
    reads: VecDeque<Read>,
    /// The round that confirms the reads which have one; reads that came later wait for the next.
    open: Option<Round>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Read {
    asker: Asker,
    expires: Instant,
    /// Its confirming round, and the commit index from before that round began.
    confirming: Option<(Round, LogIndex)>,
}

impl ReadQueue {
    /// Adds a read; `false` if too many wait.
    pub(crate) fn push(&mut self, asker: Asker, expires: Instant) -> bool {
        let room = self.reads.len() < READS_MAX;
        if room {
            self.reads.push_back(Read { asker, expires, confirming: None });
        }
        room
    }

    /// Whether reads wait for a round and none is open.
    pub(crate) fn wants_round(&self) -> bool {
        self.open.is_none() && self.reads.back().is_some_and(|read| read.confirming.is_none())
    }

    /// Whether a round is under way.
    pub(crate) fn round_is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Opens `round` for every read that has none. `commit` was read before the round began (SAFETY R1).
    pub(crate) fn open_round(&mut self, round: Round, commit: LogIndex) {
        self.open = Some(round);
        for read in self.reads.iter_mut().rev().take_while(|read| read.confirming.is_none()) {
            read.confirming = Some((round, commit));
        }
    }

    /// A quorum followed this leader after `round` began: the reads it confirms.
    pub(crate) fn confirmed(&mut self, round: Round) -> Vec<(Asker, LogIndex)> {
        let mut done = Vec::new();
        while let Some(Read { asker, confirming: Some((_, index)), .. }) =
            self.reads.pop_front_if(|read| read.confirming.is_some_and(|(own, _)| own <= round))
        {
            done.push((asker, index));
        }
        self.open.take_if(|open| *open <= round);
        done
    }

    /// The reads that waited too long.
    pub(crate) fn expired(&mut self, now: Instant) -> Vec<Asker> {
        let mut failed = Vec::new();
        while let Some(read) = self.reads.pop_front_if(|read| read.expires <= now) {
            failed.push(read.asker);
        }
        failed
    }

    /// Every read that waits; none can be confirmed any more.
    pub(crate) fn abandon(&mut self) -> Vec<Asker> {
        self.open = None;
        self.reads.drain(..).map(|read| read.asker).collect()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.reads.front().map(|read| read.expires)
    }
}

/// The reads of a node that is not the leader. Those that come in together share one request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ForwardedReads {
    /// Not asked for yet.
    queued: Vec<ReadToken>,
    asked: BTreeMap<u64, Asked>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Asked {
    tokens: Vec<ReadToken>,
    expires: Instant,
}

impl ForwardedReads {
    pub(crate) fn new() -> ForwardedReads {
        ForwardedReads { queued: Vec::new(), asked: BTreeMap::new() }
    }

    /// Adds a read; `false` if too many wait.
    pub(crate) fn push(&mut self, token: ReadToken) -> bool {
        let room = self.queued.len() < READS_MAX && self.asked.len() < REQUESTS_MAX;
        if room {
            self.queued.push(token);
        }
        room
    }

    /// Whether a request has to be sent.
    pub(crate) fn wants_request(&self) -> bool {
        !self.queued.is_empty()
    }

    /// Notes that `request` asks for everything queued. A retry would be a new request (SAFETY R2).
    pub(crate) fn ask(&mut self, request: u64, expires: Instant) {
        let tokens = std::mem::take(&mut self.queued);
        self.asked.insert(request, Asked { tokens, expires });
    }

    /// The tokens `request` stood for; none if it is not waited for.
    pub(crate) fn answered(&mut self, request: u64) -> Vec<ReadToken> {
        self.asked.remove(&request).map(|asked| asked.tokens).unwrap_or_default()
    }

    /// The reads that waited too long.
    pub(crate) fn expired(&mut self, now: Instant) -> Vec<ReadToken> {
        let mut failed = Vec::new();
        while let Some(first) = self.asked.first_entry().filter(|first| first.get().expires <= now) {
            failed.extend(first.remove().tokens);
        }
        failed
    }

    /// Every read that waits; the leader they went to is gone.
    pub(crate) fn abandon(&mut self) -> Vec<ReadToken> {
        let asked = std::mem::take(&mut self.asked);
        let mut failed: Vec<ReadToken> = asked.into_values().flat_map(|asked| asked.tokens).collect();
        failed.append(&mut self.queued);
        failed
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.asked.first_key_value().map(|(_, first)| first.expires)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(token: u64) -> Asker {
        Asker::Local(ReadToken(token))
    }

    #[test]
    fn reads_that_come_during_a_round_wait_for_the_next() {
        let mut queue = ReadQueue::default();
        assert!(!queue.wants_round());
        assert!(queue.push(local(1), Instant(10)) && queue.push(local(2), Instant(10)));
        assert!(queue.wants_round());
        queue.open_round(Round(5), LogIndex(7));
        assert!(queue.push(local(3), Instant(20)));
        assert!(!queue.wants_round(), "one round at a time");
        assert!(queue.confirmed(Round(4)).is_empty(), "an acknowledgement of an older round proves nothing");
        assert_eq!(queue.confirmed(Round(5)), [(local(1), LogIndex(7)), (local(2), LogIndex(7))]);
        assert!(queue.wants_round());
        queue.open_round(Round(6), LogIndex(9));
        assert_eq!(queue.confirmed(Round(8)), [(local(3), LogIndex(9))]);
    }

    #[test]
    fn reads_end_at_their_deadline_or_with_the_leadership() {
        let mut queue = ReadQueue::default();
        assert!(queue.push(local(1), Instant(10)) && queue.push(local(2), Instant(20)));
        assert_eq!(queue.deadline(), Some(Instant(10)));
        assert_eq!(queue.expired(Instant(10)), [local(1)]);
        assert_eq!(queue.abandon(), [local(2)]);
        assert_eq!(queue.deadline(), None);
    }

    #[test]
    fn a_request_stands_for_all_that_were_queued_and_is_answered_once() {
        let mut reads = ForwardedReads::new();
        assert!(reads.push(ReadToken(1)) && reads.push(ReadToken(2)));
        reads.ask(1, Instant(10));
        assert!(reads.push(ReadToken(3)));
        reads.ask(2, Instant(20));
        assert_eq!(reads.answered(1), [ReadToken(1), ReadToken(2)]);
        assert!(reads.answered(1).is_empty(), "a second answer finds nothing");
        assert_eq!(reads.expired(Instant(19)), []);
        assert_eq!(reads.expired(Instant(20)), [ReadToken(3)]);
    }

    #[test]
    fn no_more_wait_than_may() {
        let mut queue = ReadQueue::default();
        assert!((0..READS_MAX as u64).all(|token| queue.push(local(token), Instant(10))));
        assert!(!queue.push(local(7), Instant(10)));
        let mut reads = ForwardedReads::new();
        assert!((0..READS_MAX as u64).all(|token| reads.push(ReadToken(token))));
        assert!(!reads.push(ReadToken(7)));
        for request in 0..REQUESTS_MAX as u64 {
            reads.ask(request, Instant(10));
        }
        assert!(!reads.push(ReadToken(7)), "too many requests are under way");
        assert_eq!(reads.answered(0).len(), READS_MAX);
        assert!(reads.push(ReadToken(7)));
    }

    #[test]
    fn a_round_is_open_until_it_is_confirmed() {
        let mut queue = ReadQueue::default();
        assert!(queue.push(local(1), Instant(10)));
        assert!(!queue.round_is_open());
        queue.open_round(Round(5), LogIndex(7));
        assert!(queue.round_is_open());
        assert_eq!(queue.confirmed(Round(5)).len(), 1);
        assert!(!queue.round_is_open());
    }
}

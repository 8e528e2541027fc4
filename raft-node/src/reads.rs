//! What a read waits for beyond its index: time that has passed, and proof that this node is not too far behind.
//!
//! Time passes in the store when an entry says so. A linearizable read that finds a key whose deadline the clock has
//! passed has such an entry made and reads again behind it, so that no client sees a key longer than it was to live.
//! One such entry is under way at a time; reads that come meanwhile share the next, whose time is later than they are.
//!
//! A stale read with a bound is served at once if a linearizable one has been served here within that bound: what it saw
//! is here. Otherwise it asks the leader like a linearizable one, and fails like one where no leader can be reached.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::resp::ReadRequest;

/// Reads that wait for an entry that tells the time.
#[derive(Default)]
pub(crate) struct BehindTime(Mutex<Option<Vec<ReadRequest>>>);

impl BehindTime {
    /// Adds a read. Whether the caller has to see to the entry: nobody does.
    pub(crate) fn add(&self, read: ReadRequest) -> bool {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = waiting.is_none();
        waiting.get_or_insert_default().push(read);
        begins
    }

    /// The reads the next entry is made for; `None` ends the caller's duty.
    pub(crate) fn take(&self) -> Option<Vec<ReadRequest>> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reads = waiting.as_mut().map(std::mem::take).filter(|reads| !reads.is_empty());
        if reads.is_none() {
            *waiting = None;
        }
        reads
    }
}

/// How fresh this node is known to be: when the latest of the linearizable reads that were served here began.
pub(crate) struct Freshness {
    started: Instant,
    /// Microseconds after `started`; 0 if there was none.
    proven_us: AtomicU64,
}

impl Freshness {
    pub(crate) fn new() -> Freshness {
        Freshness { started: Instant::now(), proven_us: AtomicU64::new(0) }
    }

    /// A read that began at this moment was served.
    pub(crate) fn prove(&self, began: Instant) {
        let us = began.saturating_duration_since(self.started).as_micros();
        self.proven_us.fetch_max(u64::try_from(us).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether everything answered until `lag` before `now` is known to be here.
    pub(crate) fn is_within(&self, lag: Duration, now: Instant) -> bool {
        let proven_us = self.proven_us.load(Ordering::Relaxed);
        let age = now.saturating_duration_since(self.started + Duration::from_micros(proven_us));
        proven_us > 0 && age <= lag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_entry_is_under_way_at_a_time_and_later_reads_share_the_next() {
        let behind = BehindTime::default();
        let read = || -> ReadRequest { Box::new(|_| ()) };
        assert!(behind.add(read()));
        assert_eq!(behind.take().map(|reads| reads.len()), Some(1));
        assert!(!behind.add(read()) && !behind.add(read()), "a second entry while one is under way");
        assert_eq!(behind.take().map(|reads| reads.len()), Some(2));
        assert!(behind.take().is_none());
        assert!(behind.add(read()), "nobody sees to the entry any more");
    }

    #[test]
    fn freshness_is_what_a_read_has_proven_and_wears_off() {
        let fresh = Freshness::new();
        let at = |ms| fresh.started + Duration::from_millis(ms);
        let hour = Duration::from_secs(3600);
        assert!(!fresh.is_within(hour, at(10)), "nothing is known yet");
        fresh.prove(at(10));
        fresh.prove(at(5));
        let lag = Duration::from_millis(20);
        assert!(fresh.is_within(lag, at(30)) && !fresh.is_within(lag, at(31)));
        assert!(!fresh.is_within(Duration::ZERO, at(11)));
    }
}

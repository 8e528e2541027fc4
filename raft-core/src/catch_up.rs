//! When a learner has caught up (dissertation 4.2.1): the log is copied to it in rounds, each of what the log held when
//! the round began. Once a round takes no longer than an election timeout, so would the gap that its vote leaves.

use crate::{Instant, LogIndex};

/// The round that runs, and whether the last one was fast enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CatchUp {
    goal: LogIndex,
    began: Instant,
    fast: bool,
}

impl CatchUp {
    /// The first round: everything there is.
    pub(crate) fn new(last: LogIndex, now: Instant) -> CatchUp {
        CatchUp { goal: last, began: now, fast: false }
    }

    /// The peer has everything up to `matched` of a log that ends at `last`.
    pub(crate) fn reached(&mut self, matched: LogIndex, last: LogIndex, now: Instant, timeout_ms: u64) {
        if matched >= self.goal {
            let fast = now < self.began.plus_millis(timeout_ms);
            *self = CatchUp { goal: last, began: now, fast };
        }
    }

    /// Whether it may get a vote now.
    pub(crate) fn is_done(&self, matched: LogIndex, last: LogIndex, now: Instant, timeout_ms: u64) -> bool {
        matched == last || (self.fast && now < self.began.plus_millis(timeout_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT_MS: u64 = 100;

    fn at(ms: u64) -> Instant {
        Instant(0).plus_millis(ms)
    }

    #[test]
    fn a_fast_round_is_enough_and_a_slow_one_is_not() {
        let mut rounds = CatchUp::new(LogIndex(1000), at(0));
        let done = |rounds: &CatchUp, matched, ms| {
            rounds.is_done(LogIndex(matched), LogIndex(2000), at(ms), TIMEOUT_MS)
        };
        rounds.reached(LogIndex(999), LogIndex(1100), at(50), TIMEOUT_MS);
        assert!(!done(&rounds, 999, 50), "the first round runs");
        rounds.reached(LogIndex(1000), LogIndex(1200), at(500), TIMEOUT_MS);
        assert!(!done(&rounds, 1000, 500), "it took too long");
        rounds.reached(LogIndex(1200), LogIndex(1250), at(599), TIMEOUT_MS);
        assert!(done(&rounds, 1200, 600));
        assert!(!done(&rounds, 1200, 699), "it has stood still since");
        assert!(done(&rounds, 2000, 9999), "there is nothing it lacks");
    }

    #[test]
    fn a_round_that_took_the_whole_timeout_is_slow() {
        let mut rounds = CatchUp::new(LogIndex(5), at(0));
        rounds.reached(LogIndex(5), LogIndex(9), at(TIMEOUT_MS), TIMEOUT_MS);
        assert!(!rounds.is_done(LogIndex(5), LogIndex(9), at(TIMEOUT_MS), TIMEOUT_MS));
    }
}

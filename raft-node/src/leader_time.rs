//! What the leader's clock shows, as far as this node can tell.
//!
//! Keys expire by the time the leader stamps entries with. Within a term that runs on its monotonic clock, so it parts
//! from the wall clocks where one of them is set: such a clock must neither keep a key alive, nor have entries made that
//! let nothing expire.

use std::time::{Duration, Instant};

use raft_core::{Term, Timestamp};

/// What is known of the leader's clock.
#[derive(Debug, Default)]
pub(crate) struct LeaderTime {
    told: Option<Told>,
}

/// The answer to an entry that asked for the time.
#[derive(Clone, Copy, Debug)]
struct Told {
    /// The term it was asked in. Another leader may know better.
    term: Term,
    time: Timestamp,
    /// When it was asked. It was stamped later, so what is reckoned from this is never behind.
    asked: Instant,
}

/// What the store knows of time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replicated {
    /// The time of the last entry applied.
    pub(crate) time: Timestamp,
    /// When it was applied.
    pub(crate) at: Instant,
}

impl LeaderTime {
    /// An entry that was proposed at `asked` in `term` brought the time.
    pub(crate) fn tell(&mut self, term: Term, time: Timestamp, asked: Instant) {
        self.told = Some(Told { term, time, asked });
    }

    /// The leader's clock. Until it has been asked in this term, the wall clock is as good a guess as any, but no time
    /// lies before what was applied already.
    pub(crate) fn now(&self, term: Term, wall: Timestamp, replicated: Replicated, now: Instant) -> Timestamp {
        let after = |time: Timestamp, at: Instant| later(time, now.saturating_duration_since(at));
        let applied = after(replicated.time, replicated.at);
        match self.told.filter(|told| told.term == term) {
            Some(told) => after(told.time, told.asked),
            None => wall.max(applied),
        }
    }
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    Timestamp(time.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: Term = Term(3);
    const HOUR_MS: u64 = 3_600_000;

    /// The leader's time on a clock that has shown `wall` since an entry of time 0 was applied `applied_ms` ago.
    fn now(time: &LeaderTime, term: Term, wall: u64, applied_ms: u64, now: Instant) -> u64 {
        let at = now.checked_sub(Duration::from_millis(applied_ms)).unwrap();
        time.now(term, Timestamp(wall), Replicated { time: Timestamp(HOUR_MS), at }, now).0
    }

    fn start() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn a_clock_that_was_set_forward_is_believed_once() {
        let (asked, mut time) = (start(), LeaderTime::default());
        assert_eq!(now(&time, TERM, 2 * HOUR_MS, 50, asked), 2 * HOUR_MS, "so the leader is asked");
        time.tell(TERM, Timestamp(HOUR_MS + 50), asked);
        let answered = asked + Duration::from_millis(5);
        assert_eq!(
            now(&time, TERM, 2 * HOUR_MS, 0, answered),
            HOUR_MS + 55,
            "and not again before it is due"
        );
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_nothing_alive() {
        let (at, mut time) = (start(), LeaderTime::default());
        assert_eq!(now(&time, TERM, 0, 70, at), HOUR_MS + 70, "no leader's time stands still");
        time.tell(TERM, Timestamp(HOUR_MS + 70), at);
        assert_eq!(now(&time, TERM, 0, 0, at + Duration::from_millis(9)), HOUR_MS + 79);
    }

    #[test]
    fn what_one_leader_told_is_not_held_against_the_next() {
        let (at, mut time) = (start(), LeaderTime::default());
        time.tell(TERM, Timestamp(HOUR_MS), at);
        assert_eq!(now(&time, Term(4), 5 * HOUR_MS, 0, at), 5 * HOUR_MS);
    }
}

//! One outstanding request for entries that are no longer in memory, with a pause after a failure.

use crate::{FetchId, Instant, LogIndex};

/// A reader of old entries: the applier, or a follower that is far behind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Fetching {
    state: State,
    /// Failures in a row.
    failures: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum State {
    #[default]
    Idle,
    Waiting {
        id: FetchId,
        first: LogIndex,
    },
    Pausing {
        until: Instant,
    },
}

impl Fetching {
    /// Whether a request may be made now.
    pub(crate) fn is_ready(&self, now: Instant) -> bool {
        match self.state {
            State::Idle => true,
            State::Waiting { .. } => false,
            State::Pausing { until } => until <= now,
        }
    }

    /// Notes a request.
    pub(crate) fn begin(&mut self, id: FetchId, first: LogIndex) {
        self.state = State::Waiting { id, first };
    }

    /// The first entry asked for, if `id` is the request that waits.
    pub(crate) fn asked(&self, id: FetchId) -> Option<LogIndex> {
        match self.state {
            State::Waiting { id: waiting, first } if waiting == id => Some(first),
            State::Idle | State::Waiting { .. } | State::Pausing { .. } => None,
        }
    }

    /// The answer came.
    pub(crate) fn done(&mut self) {
        *self = Fetching::default();
    }

    /// Gives up on an answer that is no longer wanted; it will be ignored.
    pub(crate) fn cancel(&mut self) {
        self.state = State::Idle;
    }

    /// The request failed: try again a little later each time.
    pub(crate) fn failed(&mut self, now: Instant) {
        let pause_ms = PAUSE_MIN_MS << self.failures.min(PAUSE_DOUBLINGS_MAX);
        self.failures = self.failures.saturating_add(1);
        self.state = State::Pausing { until: now.plus_millis(pause_ms) };
    }

    /// Time passed: a pause that is over is forgotten. Nobody may want the entries any more, and a deadline that stays
    /// in the past would have the caller come back for ever.
    pub(crate) fn tick(&mut self, now: Instant) {
        if self.is_ready(now) {
            self.state = State::Idle;
        }
    }

    /// When to try again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Pausing { until } => Some(until),
            State::Idle | State::Waiting { .. } => None,
        }
    }
}

const PAUSE_MIN_MS: u64 = 10;
const PAUSE_DOUBLINGS_MAX: u32 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_retried_ever_later() {
        let mut fetching = Fetching::default();
        let mut now = Instant(0);
        let mut pauses = Vec::new();
        for round in 0..10 {
            assert!(fetching.is_ready(now));
            fetching.begin(FetchId(round), LogIndex(1));
            assert!(!fetching.is_ready(now));
            fetching.failed(now);
            let until = fetching.deadline().unwrap();
            pauses.push(until.micros_since(now) / 1000);
            now = until;
        }
        assert_eq!(pauses[..3], [10, 20, 40]);
        assert_eq!(pauses[9], 1280);
        fetching.done();
        assert_eq!(fetching, Fetching::default());
    }

    #[test]
    fn a_pause_that_is_over_leaves_no_deadline() {
        let mut fetching = Fetching::default();
        fetching.begin(FetchId(1), LogIndex(1));
        fetching.failed(Instant(0));
        let until = fetching.deadline().unwrap();
        fetching.tick(Instant(until.0 - 1));
        assert_eq!(fetching.deadline(), Some(until));
        fetching.tick(until);
        assert_eq!(fetching.deadline(), None);
        assert!(fetching.is_ready(until));
    }

    #[test]
    fn only_the_answer_that_is_waited_for_is_known() {
        let mut fetching = Fetching::default();
        fetching.begin(FetchId(4), LogIndex(9));
        assert_eq!(fetching.asked(FetchId(4)), Some(LogIndex(9)));
        assert_eq!(fetching.asked(FetchId(3)), None);
        fetching.cancel();
        assert_eq!(fetching.asked(FetchId(4)), None);
    }
}

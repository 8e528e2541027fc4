//! One outstanding request for entries that are no longer in memory, with a pause after a failure.

use crate::{Entry, Fetch, FetchId, Instant, log::Log};

/// A reader of old entries: the applier, or a follower that is far behind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Fetching {
    state: State,
    /// Failures in a row.
    failures: u32,
    /// When the first of them was.
    failing_since: Option<Instant>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum State {
    #[default]
    Idle,
    Waiting(Fetch),
    Pausing {
        until: Instant,
    },
}

impl Fetching {
    /// Whether a request may be made now.
    pub(crate) fn is_ready(&self, now: Instant) -> bool {
        match self.state {
            State::Idle => true,
            State::Waiting(_) => false,
            State::Pausing { until } => until <= now,
        }
    }

    /// Notes a request.
    pub(crate) fn begin(&mut self, fetch: Fetch) {
        self.state = State::Waiting(fetch);
    }

    /// What was asked for, if `id` is the request that waits.
    pub(crate) fn asked(&self, id: FetchId) -> Option<Fetch> {
        match self.state {
            State::Waiting(fetch) if fetch.id == id => Some(fetch),
            State::Idle | State::Waiting(_) | State::Pausing { .. } => None,
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
        self.failing_since.get_or_insert(now);
        self.state = State::Pausing { until: now.plus_millis(pause_ms) };
    }

    /// Since when no request has been answered with what was asked for; `None` if the latest was.
    pub(crate) fn failing_since(&self) -> Option<Instant> {
        self.failing_since
    }

    /// Whether what is asked for has to be taken for unreadable.
    pub(crate) fn keeps_failing(&self) -> bool {
        self.failures >= FAILURES_MAX
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
            State::Idle | State::Waiting(_) => None,
        }
    }
}

impl Fetch {
    /// What of an answer can be used: the entries of `log` from the first one asked for on, and none behind the last. More
    /// than was asked for may not be committed. `None` if there are none.
    pub(crate) fn useful(&self, mut entries: Vec<Entry>, log: &Log) -> Option<Vec<Entry>> {
        let asked = usize::try_from(self.last.distance(self.first)).unwrap_or(usize::MAX);
        entries.truncate(asked.saturating_add(1));
        (!entries.is_empty() && log.holds_all(self.first, &entries)).then_some(entries)
    }
}

const PAUSE_MIN_MS: u64 = 10;
const PAUSE_DOUBLINGS_MAX: u32 = 7;
/// Failures in a row after which there is another way, if there is one.
const FAILURES_MAX: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LogIndex;

    fn request(id: u64, first: u64) -> Fetch {
        Fetch { id: FetchId(id), first: LogIndex(first), last: LogIndex(first), bytes_max: 100 }
    }

    #[test]
    fn failures_are_retried_ever_later() {
        let mut fetching = Fetching::default();
        let mut now = Instant(0);
        let mut pauses = Vec::new();
        for round in 0..10 {
            assert!(fetching.is_ready(now));
            fetching.begin(request(round, 1));
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
        fetching.begin(request(1, 1));
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
        fetching.begin(request(4, 9));
        assert_eq!(fetching.asked(FetchId(4)), Some(request(4, 9)));
        assert_eq!(fetching.asked(FetchId(3)), None);
        fetching.cancel();
        assert_eq!(fetching.asked(FetchId(4)), None);
    }

    #[test]
    fn five_failures_in_a_row_are_no_accident() {
        let mut fetching = Fetching::default();
        for _ in 0..FAILURES_MAX {
            assert!(!fetching.keeps_failing());
            fetching.failed(Instant(0));
        }
        assert!(fetching.keeps_failing());
        fetching.cancel();
        assert!(fetching.keeps_failing(), "it was not answered");
        fetching.done();
        assert!(!fetching.keeps_failing());
    }
}

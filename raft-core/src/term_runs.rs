//! The term of every index, in a few words: terms change only at elections, so stretches of equal terms are enough.

use std::collections::VecDeque;

use crate::{LogId, LogIndex, Term, TermRun};

/// Where the log starts and ends and the term of everything between.
///
/// Invariant: runs are consecutive, their terms rise, the first begins right behind `start`, none begins behind `last`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TermRuns {
    /// The entry before the first one kept.
    start: LogId,
    runs: VecDeque<TermRun>,
    last: LogIndex,
}

impl TermRuns {
    /// An empty log that continues `start`.
    pub(crate) fn starting_after(start: LogId) -> TermRuns {
        TermRuns { start, runs: VecDeque::new(), last: start.index }
    }

    /// What the disk remembered, if it can be true.
    pub(crate) fn recover(start: LogId, runs: &[TermRun], last: LogIndex) -> Option<TermRuns> {
        let mut term = start.term;
        let mut first = start.index.next();
        for (place, run) in runs.iter().enumerate() {
            let begins_right = if place == 0 { run.first == first } else { run.first > first };
            let rises = if place == 0 { run.term >= term } else { run.term > term };
            if !begins_right || !rises || run.term == Term::ZERO || run.first > last {
                return None;
            }
            (first, term) = (run.first, run.term);
        }
        let consistent = if runs.is_empty() { last == start.index } else { last > start.index };
        let sound = (start.index == LogIndex::ZERO) == (start.term == Term::ZERO);
        (consistent && sound).then(|| TermRuns { start, runs: runs.iter().copied().collect(), last })
    }

    pub(crate) fn start(&self) -> LogId {
        self.start
    }

    pub(crate) fn last(&self) -> LogId {
        LogId { term: self.runs.back().map_or(self.start.term, |run| run.term), index: self.last }
    }

    /// The term of the entry at `index`; `None` before the start and behind the end.
    pub(crate) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        if index < self.start.index || index > self.last {
            return None;
        }
        // Whoever asks mostly asks for the newest.
        if let Some(newest) = self.runs.back().filter(|run| run.first <= index) {
            return Some(newest.term);
        }
        let behind = self.runs.partition_point(|run| run.first <= index);
        self.runs.get(behind.checked_sub(1)?).map(|run| run.term)
    }

    /// The latest entry at or before `index` whose term is not above `term`: in a conflict nothing later can match
    /// (dissertation 3.5, the search by term). `None` if the start itself is too late.
    pub(crate) fn latest_not_above(&self, index: LogIndex, term: Term) -> Option<LogId> {
        let index = index.min(self.last);
        let fits = self.runs.partition_point(|run| run.first <= index && run.term <= term);
        let Some(run) = fits.checked_sub(1).and_then(|place| self.runs.get(place)) else {
            return (self.start.index <= index && self.start.term <= term).then_some(self.start);
        };
        let end = self.runs.get(fits).map_or(self.last, |next| next.first.prev());
        Some(LogId { term: run.term, index: end.min(index) })
    }

    /// Adds the next entry. The caller has checked that it continues the log.
    pub(crate) fn push(&mut self, id: LogId) {
        debug_assert_eq!(id.index, self.last.next(), "entries are appended without a gap");
        if self.runs.back().is_none_or(|run| run.term != id.term) {
            self.runs.push_back(TermRun { first: id.index, term: id.term });
        }
        self.last = id.index;
    }

    /// Forgets every entry behind `index`; never more than there is behind the start.
    pub(crate) fn truncate_after(&mut self, index: LogIndex) {
        self.last = self.last.min(index.max(self.start.index));
        while self.runs.back().is_some_and(|run| run.first > self.last) {
            self.runs.pop_back();
        }
    }

    /// Forgets every entry up to and including `index`.
    pub(crate) fn compact(&mut self, index: LogIndex) {
        let index = index.min(self.last);
        let Some(term) = self.term_at(index) else { return };
        self.start = LogId { term, index };
        while self.runs.get(1).is_some_and(|run| run.first <= index.next()) {
            self.runs.pop_front();
        }
        if index == self.last {
            self.runs.clear();
        } else if let Some(run) = self.runs.front_mut() {
            run.first = index.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Terms 1 1 1 2 2 5 behind `start`.
    fn log() -> TermRuns {
        let mut log = TermRuns::starting_after(LogId::ZERO);
        for (place, term) in [1, 1, 1, 2, 2, 5].into_iter().enumerate() {
            log.push(LogId::new(term, place as u64 + 1));
        }
        log
    }

    fn terms(log: &TermRuns) -> Vec<Option<u64>> {
        (0..=7).map(|i| log.term_at(LogIndex(i)).map(|t| t.0)).collect()
    }

    #[test]
    fn every_index_has_its_term() {
        assert_eq!(terms(&log()), [Some(0), Some(1), Some(1), Some(1), Some(2), Some(2), Some(5), None]);
        assert_eq!(log().last(), LogId::new(5, 6));
    }

    #[test]
    fn truncation_and_compaction_keep_the_rest() {
        let mut cut = log();
        cut.truncate_after(LogIndex(4));
        assert_eq!(terms(&cut), [Some(0), Some(1), Some(1), Some(1), Some(2), None, None, None]);
        for index in 0..=6 {
            let mut rest = log();
            rest.compact(LogIndex(index));
            let expected: Vec<_> = (0..=7)
                .map(|i| if i < index { None } else { log().term_at(LogIndex(i)).map(|t| t.0) })
                .collect();
            assert_eq!(terms(&rest), expected, "compacted to {index}");
            assert_eq!(rest.last(), LogId::new(5, 6));
            let runs: Vec<TermRun> = rest.runs.iter().copied().collect();
            assert_eq!(TermRuns::recover(rest.start, &runs, rest.last), Some(rest), "compacted to {index}");
        }
    }

    #[test]
    fn the_conflict_search_skips_whole_terms() {
        let log = log();
        assert_eq!(log.latest_not_above(LogIndex(6), Term(4)), Some(LogId::new(2, 5)));
        assert_eq!(log.latest_not_above(LogIndex(6), Term(1)), Some(LogId::new(1, 3)));
        assert_eq!(log.latest_not_above(LogIndex(2), Term(9)), Some(LogId::new(1, 2)));
        assert_eq!(log.latest_not_above(LogIndex(99), Term(9)), Some(LogId::new(5, 6)));
        assert_eq!(log.latest_not_above(LogIndex(6), Term(0)), Some(LogId::ZERO));
        let mut short = log.clone();
        short.compact(LogIndex(4));
        assert_eq!(short.latest_not_above(LogIndex(6), Term(1)), None);
        assert_eq!(short.latest_not_above(LogIndex(3), Term(9)), None);
    }

    #[test]
    fn impossible_runs_are_refused() {
        let run = |first, term| TermRun { first: LogIndex(first), term: Term(term) };
        let recover = |runs: &[TermRun], last| TermRuns::recover(LogId::new(1, 2), runs, LogIndex(last));
        assert!(recover(&[run(3, 1), run(5, 2)], 6).is_some());
        assert!(recover(&[run(4, 1)], 6).is_none(), "a gap behind the start");
        assert!(recover(&[run(3, 2), run(5, 1)], 6).is_none(), "terms fall");
        assert!(recover(&[run(3, 1), run(7, 2)], 6).is_none(), "a run behind the end");
        assert!(recover(&[], 6).is_none(), "entries without a term");
        assert!(recover(&[], 1).is_none(), "an end before the start");
    }

    #[test]
    fn runs_that_cannot_be_are_refused() {
        let run = |first, term| TermRun { first: LogIndex(first), term: Term(term) };
        let recover = |runs: &[TermRun]| TermRuns::recover(LogId::new(2, 4), runs, LogIndex(9)).is_some();
        assert!(recover(&[run(5, 2)]) && recover(&[run(5, 3), run(6, 4), run(9, 5)]));
        assert!(!recover(&[run(6, 2)]), "what is before it is of no term");
        assert!(!recover(&[run(5, 1)]), "of an earlier term than the start");
        assert!(!recover(&[run(5, 3), run(6, 3)]), "two runs of one term");
        assert!(!recover(&[run(5, 3), run(5, 4)]), "two terms at one index");
        assert!(!recover(&[run(5, 3), run(10, 4)]), "behind the end");
        assert!(!recover(&[]), "nothing of what there is");
        assert!(TermRuns::recover(LogId::new(2, 4), &[], LogIndex(4)).is_some());
        assert!(TermRuns::recover(LogId::new(2, 4), &[run(5, 2)], LogIndex(4)).is_none());
    }
}

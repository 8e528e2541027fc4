//! Where each entry of one segment stands: eight bytes an entry, and a few words for terms and configurations.

use raft_core::{LogId, LogIndex, Term, TermRun};

/// An entry's place in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) offset: u32,
    /// Header and payload, without padding.
    pub(crate) bytes: u32,
}

/// What one segment contributes to the log.
///
/// Invariant: the entries that survived the segment's own cuts are consecutive: `first` and those behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentIndex {
    /// The first entry, or the one that would come next.
    pub(crate) first: LogIndex,
    pub(crate) slots: Vec<Slot>,
    /// The terms of its entries.
    pub(crate) runs: Vec<TermRun>,
    /// Its configuration entries.
    pub(crate) confs: Vec<LogId>,
    /// The lowest index it cut older segments' entries back to.
    pub(crate) prior_cut: Option<LogIndex>,
    /// It dropped every older entry and let the log start behind this one.
    pub(crate) reset: Option<LogId>,
    /// Where its newest snapshot mark stands; 0 if it has none.
    pub(crate) mark_offset: u64,
}

/// One change to the log, as a batch makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Push { id: LogId, slot: Slot, is_conf: bool },
    Cut { after: LogIndex },
    Reset { to: LogId },
    Mark { offset: u64 },
}

impl SegmentIndex {
    /// Of a segment without records, in a log that ends at `last`.
    pub(crate) fn new(last: LogIndex) -> SegmentIndex {
        SegmentIndex {
            first: last.next(),
            slots: Vec::new(),
            runs: Vec::new(),
            confs: Vec::new(),
            prior_cut: None,
            reset: None,
            mark_offset: 0,
        }
    }

    /// The last entry; the one before `first` if there is none.
    pub(crate) fn last(&self) -> LogIndex {
        self.first.prev().plus(self.slots.len() as u64)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(crate) fn slot(&self, index: LogIndex) -> Option<Slot> {
        let place = index.0.checked_sub(self.first.0)?;
        self.slots.get(usize::try_from(place).ok()?).copied()
    }

    /// Applies a change; `false` if it does not continue what is there.
    #[must_use]
    pub(crate) fn apply(&mut self, op: Op) -> bool {
        match op {
            Op::Push { id, slot, is_conf } => {
                let last_term = self.runs.last().map_or(Term::ZERO, |run| run.term);
                if id.index != self.last().next() || id.index.0 == 0 || id.term < last_term {
                    return false;
                }
                self.slots.push(slot);
                if id.term != last_term {
                    self.runs.push(TermRun { first: id.index, term: id.term });
                }
                if is_conf {
                    self.confs.push(id);
                }
            }
            Op::Cut { after } => {
                if after > self.last() {
                    return false;
                }
                if after.next() < self.first {
                    self.prior_cut = Some(self.prior_cut.map_or(after, |cut| cut.min(after)));
                    self.restart(after);
                } else {
                    self.truncate(after);
                }
            }
            Op::Reset { to } => {
                self.prior_cut = None;
                self.reset = Some(to);
                self.restart(to.index);
            }
            Op::Mark { offset } => self.mark_offset = offset,
        }
        true
    }

    fn restart(&mut self, last: LogIndex) {
        self.first = last.next();
        self.slots.clear();
        self.runs.clear();
        self.confs.clear();
    }

    /// Forgets every entry behind `after`.
    pub(crate) fn truncate(&mut self, after: LogIndex) {
        let keep = usize::try_from(after.next().0.saturating_sub(self.first.0)).unwrap_or(usize::MAX);
        self.slots.truncate(keep);
        self.runs.retain(|run| run.first <= after);
        self.confs.retain(|id| id.index <= after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(term: u64, index: u64) -> Op {
        let slot = Slot { offset: u32::try_from(index * 100).unwrap(), bytes: 64 };
        Op::Push { id: LogId::new(term, index), slot, is_conf: index.is_multiple_of(4) }
    }

    fn built(ops: &[Op]) -> SegmentIndex {
        let mut index = SegmentIndex::new(LogIndex(10));
        for op in ops {
            assert!(index.apply(*op), "{op:?}");
        }
        index
    }

    #[test]
    fn entries_are_found_by_index() {
        let index = built(&[push(1, 11), push(1, 12), push(2, 13)]);
        assert_eq!(index.last(), LogIndex(13));
        assert_eq!(index.slot(LogIndex(12)).unwrap().offset, 1200);
        assert_eq!(index.slot(LogIndex(10)), None);
        assert_eq!(index.slot(LogIndex(14)), None);
        assert_eq!(index.runs.len(), 2);
        assert_eq!(index.confs, [LogId::new(1, 12)]);
    }

    #[test]
    fn a_cut_inside_forgets_terms_and_configurations_too() {
        let index = built(&[push(1, 11), push(2, 12), Op::Cut { after: LogIndex(11) }, push(3, 12)]);
        assert_eq!(index.last(), LogIndex(12));
        assert_eq!(index.runs[1], TermRun { first: LogIndex(12), term: Term(3) });
        assert_eq!(index.confs, [LogId::new(3, 12)]);
        assert_eq!(index.prior_cut, None);
    }

    #[test]
    fn a_cut_below_is_remembered_for_the_older_segments() {
        let index = built(&[push(1, 11), Op::Cut { after: LogIndex(5) }, push(2, 6)]);
        assert_eq!((index.first, index.last()), (LogIndex(6), LogIndex(6)));
        assert_eq!(index.prior_cut, Some(LogIndex(5)));
        let index = built(&[Op::Cut { after: LogIndex(5) }, push(2, 6), Op::Cut { after: LogIndex(3) }]);
        assert_eq!(index.prior_cut, Some(LogIndex(3)));
    }

    #[test]
    fn a_reset_starts_anew() {
        let index = built(&[push(1, 11), Op::Reset { to: LogId::new(4, 90) }, push(4, 91)]);
        assert_eq!((index.first, index.last()), (LogIndex(91), LogIndex(91)));
        assert_eq!(index.reset, Some(LogId::new(4, 90)));
    }

    #[test]
    fn what_does_not_continue_is_refused() {
        let mut index = built(&[push(2, 11)]);
        assert!(!index.apply(push(2, 11)));
        assert!(!index.apply(push(2, 13)));
        assert!(!index.apply(push(1, 12)));
        assert!(!index.apply(Op::Cut { after: LogIndex(12) }));
    }

    #[test]
    fn a_cut_at_either_end_of_what_is_there() {
        let index = built(&[push(1, 11), push(1, 12), Op::Cut { after: LogIndex(12) }]);
        assert_eq!((index.last(), index.prior_cut), (LogIndex(12), None), "it cuts nothing");
        let index = built(&[push(1, 11), push(1, 12), Op::Cut { after: LogIndex(10) }]);
        assert_eq!((index.first, index.last(), index.prior_cut), (LogIndex(11), LogIndex(10), None));
    }
}

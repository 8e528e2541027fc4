//! The log that the segments make together: what each says of those before it is applied in their order, and where they do
//! not fit, a hole is told and nothing behind it believed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use raft_core::{LogIndex, SnapshotMeta};

use super::{Loaded, corruption};
use crate::{
    error::{CorruptionKind, Damage},
    layout,
    log::Segment,
    record::State,
    recovery::Hole,
};

/// The segments' contributions, one after the other.
pub(super) struct Joined {
    pub(super) segments: Vec<Segment>,
    pub(super) tip: Option<LogIndex>,
    pub(super) hole: Option<(Hole, PathBuf)>,
    /// What lies at or before it is gone, whatever is lost with it.
    start: LogIndex,
    /// The first entry that the hole costs.
    lost_from: LogIndex,
    /// Newest last.
    pub(super) marks: Vec<SnapshotMeta>,
}

impl Joined {
    pub(super) fn join(dir: &Path, state: &State, loaded: BTreeMap<u64, Option<Loaded>>) -> Joined {
        let mut joined = Joined {
            segments: Vec::new(),
            tip: None,
            hole: None,
            start: state.log_start.index,
            lost_from: LogIndex(u64::MAX),
            marks: Vec::new(),
        };
        for (number, segment) in loaded {
            let Some(segment) = segment else {
                let hole = Hole { offset: 0, kind: CorruptionKind::Missing, last: None };
                let tip = joined.tip.unwrap_or(joined.start);
                joined.lose(tip.next(), hole, dir.join(layout::segment(number)));
                continue;
            };
            joined.add(segment);
        }
        joined.finish(state);
        joined
    }

    fn add(&mut self, loaded: Loaded) {
        let Loaded { header, mut segment, mark, hole, taken_to: _ } = loaded;
        let own_last = segment.index.last();
        let before = header.state;
        if header.repair {
            self.cut(before.last.index);
            if self.tip.is_some_and(|tip| tip < before.log_start.index) {
                // The record that began the log anew behind these is lost, and the repair went on from there.
                self.cut_entries(LogIndex::ZERO);
                self.tip = None;
            }
        } else if before.cuts > 0
            && self.hole.as_ref().is_some_and(|(hole, _)| hole.kind == CorruptionKind::Missing)
        {
            // The missing segment cut the log, and what it cut to is all that is known.
            self.cut_entries(before.cut_min);
        }
        if segment.index.reset.is_some() {
            self.cut(LogIndex::ZERO);
            self.hole = None;
            self.tip = None;
        } else if let Some(after) = segment.index.prior_cut {
            self.cut(after);
        }
        if self.hole.is_some() {
            segment.index.truncate(LogIndex::ZERO);
        } else if !segment.index.is_empty() {
            let expected = self.tip.map_or(segment.index.first, LogIndex::next);
            if segment.index.first == expected {
                self.tip = Some(segment.index.last());
            } else {
                let first = segment.index.first.min(expected);
                self.cut_entries(first.prev());
                segment.index.truncate(LogIndex::ZERO);
                let hole = Hole { offset: 0, kind: CorruptionKind::Chain, last: None };
                self.lose(first, hole, segment.file.path.clone());
            }
        }
        if let Some(hole) = hole {
            self.lose(own_last.next(), hole, segment.file.path.clone());
        }
        self.marks.extend(mark);
        self.segments.push(segment);
    }

    /// A cut of the log; a hole that lies behind it no longer matters.
    fn cut(&mut self, after: LogIndex) {
        self.cut_entries(after);
        if self.lost_from > after {
            self.hole = None;
            self.lost_from = LogIndex(u64::MAX);
        }
    }

    fn cut_entries(&mut self, after: LogIndex) {
        for segment in &mut self.segments {
            segment.index.truncate(after);
        }
        self.tip = self.tip.map(|tip| tip.min(after));
        if self.hole.is_some() {
            self.lost_from = self.lost_from.min(after.next()).max(self.start.next());
        }
    }

    fn lose(&mut self, first: LogIndex, hole: Hole, path: PathBuf) {
        if self.hole.is_none() {
            self.lost_from = first.max(self.start.next());
            self.hole = Some((hole, path));
        }
    }

    /// Compares the outcome with what the newest state says it must be.
    fn finish(&mut self, state: &State) {
        let start = self.start;
        let first = self.segments.iter().find(|segment| !segment.index.is_empty());
        let path = self.segments.last().map(|segment| segment.file.path.clone()).unwrap_or_default();
        let first_path = first.map_or(path.clone(), |segment| segment.file.path.clone());
        let hole = Hole { offset: 0, kind: CorruptionKind::Chain, last: None };
        if first.is_some_and(|segment| segment.index.first > start.next()) {
            self.cut_entries(start);
            self.hole = None;
            self.lose(start.next(), hole, first_path);
        }
        if self.tip.is_none_or(|tip| tip <= start) {
            self.segments.iter_mut().for_each(|segment| segment.index.truncate(LogIndex::ZERO));
            self.tip = None;
        }
        let tip = self.tip.unwrap_or(start);
        if self.hole.is_none() && tip != state.last.index {
            let first = tip.min(state.last.index).next();
            self.lose(first, hole, path);
            self.cut_entries(first.prev());
        }
        if let Some(last) = self.segments.last_mut()
            && last.index.is_empty()
        {
            // What comes next stands here: the index of the segment being written must know.
            last.index.first = self.tip.unwrap_or(start).next();
        }
    }

    pub(super) fn damage(&self, state: &State) -> Option<Damage> {
        let promised = state.promised.max(state.last);
        let (first, hole, path) = match &self.hole {
            Some((hole, path)) => (self.lost_from, *hole, path.clone()),
            // A hole that was being refilled when the log was last closed.
            None if promised > state.last => {
                let segment = self.segments.last()?;
                let kind = CorruptionKind::Missing;
                let hole = Hole { offset: 0, kind, last: None };
                (state.last.index.next(), hole, segment.file.path.clone())
            }
            None => return None,
        };
        // What was promised may be of a later term and end before the log: what lies behind it was acknowledged as well.
        let end = promised.index.max(state.last.index);
        if first > end {
            return None;
        }
        let last = hole.last.unwrap_or(end).max(first);
        let corruption = corruption(&path, hole.offset, hole.kind);
        Some(Damage { first, last, promised, corruption })
    }
}

#[cfg(test)]
mod tests {
    use raft_core::{LogId, Term};

    use super::*;
    use crate::{
        log::tests::segment,
        segment::{
            header::{SegmentHeader, tests::header},
            index::{Op, Slot},
        },
    };

    const BAD: Hole = Hole { offset: 77, kind: CorruptionKind::RecordHeader, last: None };

    /// Segment `number`, which holds these entries in a log that ended at `before`.
    fn loaded(number: u64, before: u64, entries: std::ops::Range<u64>) -> Loaded {
        let state = State { last: LogId::new(1, before), ..State::NEW };
        let header = SegmentHeader { number, state, ..header() };
        Loaded { header, segment: segment(number, entries), mark: None, hole: None, taken_to: None }
    }

    fn join(segments: impl IntoIterator<Item = Option<Loaded>>, start: u64, last: u64) -> (Joined, State) {
        let term = Term(u64::from(last > 0));
        let last = LogId { term, index: LogIndex(last) };
        let state = State { log_start: LogId::new(1, start), last, ..State::NEW };
        (Joined::join(Path::new("/"), &state, (1..).zip(segments).collect()), state)
    }

    /// The last entry believed, and which are lost.
    fn outcome((joined, state): &(Joined, State)) -> (Option<u64>, Option<(u64, u64)>) {
        let damage = joined.damage(state).map(|damage| (damage.first.0, damage.last.0));
        (joined.tip.map(|tip| tip.0), damage)
    }

    #[test]
    fn segments_that_continue_each_other_are_the_log() {
        let segments = [loaded(1, 0, 1..6), loaded(2, 5, 6..10)].map(Some);
        assert_eq!(outcome(&join(segments, 0, 9)), (Some(9), None));
    }

    #[test]
    fn what_the_newest_state_counts_and_no_segment_holds_is_lost() {
        let segments = || [loaded(1, 0, 1..6), loaded(2, 5, 6..10)].map(Some);
        assert_eq!(outcome(&join(segments(), 0, 12)), (Some(9), Some((10, 12))));
        // The other way round nothing is: what lies behind the last entry was cut.
        let (joined, state) = join(segments(), 0, 7);
        assert_eq!((joined.tip, joined.damage(&state)), (Some(LogIndex(7)), None));
        assert_eq!(joined.segments[1].index.last(), LogIndex(7));
    }

    #[test]
    fn a_log_that_begins_too_late_is_lost_from_its_start() {
        let joined = join([loaded(1, 3, 4..10)].map(Some), 1, 9);
        assert_eq!(outcome(&joined), (None, Some((2, 9))));
        assert_eq!(outcome(&join([loaded(1, 3, 4..10)].map(Some), 3, 9)), (Some(9), None));
    }

    #[test]
    fn what_the_start_covers_is_gone_and_what_is_lost_of_it_no_loss() {
        let mut first = loaded(1, 0, 1..6);
        first.hole = Some(BAD);
        let (joined, state) = join([Some(first), Some(loaded(2, 7, 8..10))], 9, 9);
        assert_eq!((joined.tip, joined.damage(&state)), (None, None));
        assert!(joined.segments.iter().all(|segment| segment.index.is_empty()));
        assert_eq!(joined.segments[1].index.first, LogIndex(10), "the next entry stands here");
    }

    #[test]
    fn behind_a_hole_nothing_is_believed() {
        let mut first = loaded(1, 0, 1..6);
        first.hole = Some(BAD);
        let (joined, state) = join([Some(first), Some(loaded(2, 6, 7..10))], 0, 9);
        let damage = joined.damage(&state).unwrap();
        assert_eq!((damage.first, damage.last, damage.corruption.offset), (LogIndex(6), LogIndex(9), 77));
        assert_eq!((joined.tip, joined.segments[1].index.is_empty()), (Some(LogIndex(5)), true));
        let (joined, state) = join([Some(loaded(1, 0, 1..6)), None, Some(loaded(3, 8, 9..10))], 0, 9);
        let damage = joined.damage(&state).unwrap();
        assert_eq!(
            (damage.first, damage.corruption.path),
            (LogIndex(6), Path::new("/").join(layout::segment(2)))
        );
    }

    #[test]
    fn a_missing_segment_takes_what_it_had_cut() {
        let mut third = loaded(3, 8, 9..10);
        (third.header.state.cuts, third.header.state.cut_min) = (1, LogIndex(3));
        let joined = join([Some(loaded(1, 0, 1..6)), None, Some(third)], 0, 9);
        assert_eq!(outcome(&joined), (Some(3), Some((4, 9))));
    }

    #[test]
    fn what_was_lost_and_then_cut_off_or_reset_is_no_loss() {
        for reset in [false, true] {
            let mut first = loaded(1, 0, 1..6);
            first.hole = Some(BAD);
            let mut second = loaded(2, 8, 9..9);
            let after = if reset { 20 } else { 4 };
            let op = if reset { Op::Reset { to: LogId::new(1, 20) } } else { Op::Cut { after: LogIndex(4) } };
            assert!(second.segment.index.apply(op));
            let slot = Slot { offset: 0, bytes: 1 };
            let id = LogId::new(1, after + 1);
            assert!(second.segment.index.apply(Op::Push { id, slot, is_conf: false }));
            let start = if reset { 20 } else { 0 };
            let joined = join([Some(first), Some(second)], start, after + 1);
            assert_eq!(outcome(&joined), (Some(after + 1), None), "reset: {reset}");
        }
    }

    #[test]
    fn a_cut_that_keeps_what_was_lost_leaves_the_loss() {
        let mut first = loaded(1, 0, 1..6);
        first.hole = Some(BAD);
        let mut second = loaded(2, 8, 9..9);
        assert!(second.segment.index.apply(Op::Cut { after: LogIndex(6) }));
        let (joined, state) = join([Some(first), Some(second)], 0, 6);
        let damage = joined.damage(&state).unwrap();
        assert_eq!((damage.first, damage.last, damage.corruption.offset), (LogIndex(6), LogIndex(6), 77));
    }

    #[test]
    fn segments_that_contradict_each_other_are_believed_up_to_there() {
        let segments = [loaded(1, 0, 1..6), loaded(2, 3, 4..10)].map(Some);
        assert_eq!(outcome(&join(segments, 0, 9)), (Some(3), Some((4, 9))));
        let segments = [loaded(1, 0, 1..6), loaded(2, 6, 7..10)].map(Some);
        assert_eq!(outcome(&join(segments, 0, 9)), (Some(5), Some((6, 9))));
    }

    #[test]
    fn a_log_that_goes_on_behind_accepted_damage_is_cut_to_where_it_began() {
        let mut second = loaded(2, 3, 4..10);
        second.header.repair = true;
        let segments = [Some(loaded(1, 0, 1..6)), Some(second)];
        assert_eq!(outcome(&join(segments, 0, 9)), (Some(9), None));
    }
}

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
            lost_from: LogIndex(u64::MAX),
            marks: Vec::new(),
        };
        for (number, segment) in loaded {
            let Some(segment) = segment else {
                let hole = Hole { offset: 0, kind: CorruptionKind::Missing, last: None };
                let tip = joined.tip.unwrap_or(state.log_start.index);
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
            self.lost_from = self.lost_from.min(after.next());
        }
    }

    fn lose(&mut self, first: LogIndex, hole: Hole, path: PathBuf) {
        if self.hole.is_none() {
            self.lost_from = first;
            self.hole = Some((hole, path));
        }
    }

    /// Compares the outcome with what the newest state says it must be.
    fn finish(&mut self, state: &State) {
        let start = state.log_start.index;
        let first = self.segments.iter().find(|segment| !segment.index.is_empty());
        let path = self.segments.last().map(|segment| segment.file.path.clone()).unwrap_or_default();
        let first_path = first.map_or(path.clone(), |segment| segment.file.path.clone());
        let hole = Hole { offset: 0, kind: CorruptionKind::Chain, last: None };
        if first.is_some_and(|segment| segment.index.first > start.next()) {
            self.cut_entries(start);
            self.hole = None;
            self.lose(start.next(), hole, first_path);
        }
        // Everything at or before the log's beginning is gone, whatever is lost with it.
        if self.tip.is_none_or(|tip| tip <= start) {
            self.segments.iter_mut().for_each(|segment| segment.index.truncate(LogIndex::ZERO));
            self.tip = None;
            self.lost_from = self.lost_from.max(start.next());
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
        if first > promised.index {
            return None;
        }
        let last = hole.last.unwrap_or(promised.index).max(first);
        let corruption = corruption(&path, hole.offset, hole.kind);
        Some(Damage { first, last, promised, corruption })
    }
}

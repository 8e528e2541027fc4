//! The durable log in memory: which segments there are and what each holds. Shared between the writer and all readers.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use raft_core::{LogId, LogIndex, Term, TermRun};

use crate::{
    error::WalError,
    maps::Maps,
    record::Stamp,
    segment::index::{Op, SegmentIndex, Slot},
    vfs::VfsFile,
};

/// One segment's file. Whoever reads from it holds it, so that it is not recycled under them.
#[derive(Debug)]
pub(crate) struct SegmentFile {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn VfsFile>,
    pub(crate) stamp: Stamp,
    pub(crate) bytes: u64,
    /// The scrub read it: each entry is intact.
    verified: AtomicBool,
    /// The scrub need not look at it again, intact or not.
    scrubbed: AtomicBool,
}

impl SegmentFile {
    pub(crate) fn new(
        number: u64,
        path: PathBuf,
        file: Arc<dyn VfsFile>,
        stamp: Stamp,
        bytes: u64,
    ) -> Arc<Self> {
        let (verified, scrubbed) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(SegmentFile { number, path, file, stamp, bytes, verified, scrubbed })
    }

    /// The scrub has been here.
    pub(crate) fn set_scrubbed(&self, intact: bool) {
        self.verified.store(intact, Ordering::Relaxed);
        self.scrubbed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_verified(&self) -> bool {
        self.verified.load(Ordering::Relaxed)
    }

    pub(crate) fn is_scrubbed(&self) -> bool {
        self.scrubbed.load(Ordering::Relaxed)
    }
}

/// A segment and its entries.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) file: Arc<SegmentFile>,
    pub(crate) index: SegmentIndex,
}

/// What is durable.
///
/// Invariant: the entries of all segments, in order, are `log_start.index + 1 ..= last`.
#[derive(Debug)]
pub(crate) struct Log {
    /// Oldest first, never empty; the last one is being written.
    pub(crate) segments: Vec<Segment>,
    pub(crate) log_start: LogId,
    pub(crate) last: LogIndex,
    /// What is mapped for catch-up reads.
    pub(crate) maps: Arc<Maps>,
}

/// Entries that stand in one file.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) file: Arc<SegmentFile>,
    pub(crate) first: LogIndex,
    pub(crate) slots: Vec<Slot>,
}

impl Span {
    /// The same entries, each for itself.
    pub(crate) fn singly(&self) -> impl Iterator<Item = Span> + '_ {
        let one = |(slot, n): (&Slot, u64)| Span {
            file: Arc::clone(&self.file),
            first: self.first.plus(n),
            slots: vec![*slot],
        };
        self.slots.iter().zip(0..).map(one)
    }
}

impl Log {
    /// Applies what a batch did, now that it is durable.
    pub(crate) fn apply(&mut self, ops: &[Op]) {
        let (current, older) = self.segments.split_last_mut().expect("a log has a segment");
        for op in ops {
            match *op {
                Op::Cut { after } => older.iter_mut().for_each(|segment| segment.index.truncate(after)),
                Op::Reset { to } => {
                    older.iter_mut().for_each(|segment| segment.index.truncate(LogIndex::ZERO));
                    self.log_start = to;
                }
                Op::Push { .. } | Op::Mark { .. } => {}
            }
            assert!(current.index.apply(*op), "{op:?} does not continue the log");
        }
        self.last = current.index.last();
    }

    /// How many of the oldest segments hold nothing behind `up_to`, and the last entry that goes with them.
    pub(crate) fn droppable(&self, up_to: LogIndex) -> (usize, Option<LogIndex>) {
        let (_, older) = self.segments.split_last().expect("a log has a segment");
        let goes = |segment: &&Segment| segment.index.is_empty() || segment.index.last() <= up_to;
        let count = older.iter().take_while(goes).count();
        let last = older[..count].iter().rev().find(|segment| !segment.index.is_empty());
        (count, last.map(|segment| segment.index.last()))
    }

    /// Where one entry stands; `None` if it is not there.
    pub(crate) fn locate_one(&self, index: LogIndex) -> Option<(Arc<SegmentFile>, Slot)> {
        if index <= self.log_start.index || index > self.last {
            return None;
        }
        let place = self.segments.partition_point(|segment| segment.index.last() < index);
        let segment = self.segments.get(place)?;
        Some((Arc::clone(&segment.file), segment.index.slot(index)?))
    }

    /// Where `first..=last` stand, stopping before `bytes_max` but not before the first.
    pub(crate) fn locate(
        &self,
        first: LogIndex,
        last: LogIndex,
        bytes_max: usize,
    ) -> Result<Vec<Span>, WalError> {
        if first <= self.log_start.index {
            return Err(WalError::Compacted { index: first, first: self.log_start.index.next() });
        }
        if first > self.last {
            return Err(WalError::NotFound { index: first, last: self.last });
        }
        let last = last.min(self.last);
        let mut spans: Vec<Span> = Vec::new();
        let (mut next, mut bytes) = (first, 0);
        let before = |segment: &&Segment| segment.index.is_empty() || segment.index.last() < first;
        for segment in self.segments.iter().skip_while(before) {
            let mut slots = Vec::new();
            let start = next;
            while next <= last
                && let Some(slot) = segment.index.slot(next)
            {
                bytes += slot.bytes as usize + SLOT_SLACK;
                if bytes > bytes_max && next != first {
                    break;
                }
                slots.push(slot);
                next = next.next();
            }
            let stopped = bytes > bytes_max;
            if !slots.is_empty() {
                spans.push(Span { file: Arc::clone(&segment.file), first: start, slots });
            }
            if next > last || stopped {
                break;
            }
        }
        Ok(spans)
    }

    /// The terms of the whole log.
    pub(crate) fn term_runs(&self) -> Vec<TermRun> {
        let mut runs: Vec<TermRun> = Vec::new();
        for run in self.segments.iter().flat_map(|segment| &segment.index.runs) {
            if runs.last().is_none_or(|last| last.term != run.term) {
                runs.push(*run);
            }
        }
        drop_runs(&mut runs, self.log_start.index);
        runs
    }
}

/// An entry's flat charge may exceed its header by this much.
const SLOT_SLACK: usize = 8;

/// The term of entry `index`.
pub(crate) fn term_at(runs: &[TermRun], index: LogIndex) -> Option<Term> {
    let place = runs.partition_point(|run| run.first <= index).checked_sub(1)?;
    Some(runs[place].term)
}

/// Forgets the terms of everything up to and including `start`.
pub(crate) fn drop_runs(runs: &mut Vec<TermRun>, start: LogIndex) {
    let place = runs.partition_point(|run| run.first <= start.next());
    if place > 0 {
        runs.drain(..place - 1);
        runs[0].first = start.next();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use raft_core::LogId;

    use super::*;
    use crate::{
        segment::index::Op,
        vfs::{Vfs as _, sim::SimVfs},
    };

    /// Segment `number` with these entries, of which nothing is in its file.
    pub(crate) fn segment(number: u64, entries: std::ops::Range<u64>) -> Segment {
        let mut index = SegmentIndex::new(LogIndex(entries.start - 1));
        for entry in entries {
            let slot = Slot { offset: 0, bytes: 1 };
            assert!(index.apply(Op::Push { id: LogId::new(1, entry), slot, is_conf: false }));
        }
        let (vfs, path) = (SimVfs::new(), PathBuf::from(format!("/{number}")));
        vfs.create_dir_all(Path::new("/")).unwrap();
        let file = vfs.create(&path).unwrap();
        Segment { file: SegmentFile::new(number, path, file, Stamp::new(number, 2), 64 << 10), index }
    }

    #[test]
    fn the_terms_of_what_is_dropped_are_forgotten() {
        let runs = |runs: &[(u64, u64)]| -> Vec<TermRun> {
            runs.iter().map(|(first, term)| TermRun { first: LogIndex(*first), term: Term(*term) }).collect()
        };
        for (start, left) in [
            (0, &[(1, 1), (5, 2), (9, 3)][..]),
            (1, &[(2, 1), (5, 2), (9, 3)]),
            (3, &[(4, 1), (5, 2), (9, 3)]),
            (4, &[(5, 2), (9, 3)]),
            (8, &[(9, 3)]),
            (20, &[(21, 3)]),
        ] {
            let mut kept = runs(&[(1, 1), (5, 2), (9, 3)]);
            drop_runs(&mut kept, LogIndex(start));
            assert_eq!(kept, runs(left), "{start}");
        }
    }

    /// Entries 3 to 9 of a log that began with 1, in two segments.
    fn log() -> Log {
        let segments = vec![segment(1, 1..6), segment(2, 6..10)];
        Log { segments, log_start: LogId::new(1, 2), last: LogIndex(9), maps: Arc::default() }
    }

    #[test]
    fn each_entry_of_the_log_is_found_alone_and_no_other() {
        for index in 0..=11 {
            let found = log().locate_one(LogIndex(index)).map(|(file, _)| file.number);
            let expected = (3..10).contains(&index).then_some(if index < 6 { 1 } else { 2 });
            assert_eq!(found, expected, "{index}");
        }
    }

    #[test]
    fn entries_are_found_together_up_to_the_last_asked_for_or_so_many_bytes() {
        // The first and last entry found in each file.
        let found = |first, last, bytes| -> Vec<(u64, u64, usize)> {
            let spans = log().locate(LogIndex(first), LogIndex(last), bytes).unwrap();
            spans.iter().map(|span| (span.file.number, span.first.0, span.slots.len())).collect()
        };
        let each = 1 + SLOT_SLACK;
        assert_eq!(found(3, 99, 1000), [(1, 3, 3), (2, 6, 4)]);
        assert_eq!(found(5, 6, 1000), [(1, 5, 1), (2, 6, 1)]);
        assert_eq!(found(3, 5, 1000), [(1, 3, 3)]);
        assert_eq!(found(6, 9, 2 * each), [(2, 6, 2)]);
        assert_eq!(found(6, 9, 2 * each - 1), [(2, 6, 1)]);
        assert_eq!(found(4, 9, 3 * each), [(1, 4, 2), (2, 6, 1)]);
        assert_eq!(found(4, 9, 2 * each), [(1, 4, 2)]);
        assert_eq!(found(9, 9, 0), [(2, 9, 1)], "never without the first");
        assert!(matches!(log().locate(LogIndex(2), LogIndex(9), 9), Err(WalError::Compacted { .. })));
        assert!(matches!(log().locate(LogIndex(10), LogIndex(10), 9), Err(WalError::NotFound { .. })));
    }
}

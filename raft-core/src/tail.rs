//! The most recent entries, in memory. What fell out of it is fetched from the log when it is needed.
//!
//! They lie in runs that are shared: a run is built once, where its entries were proposed or received, and from then on
//! memory, log, peers and state machine all hold the same one.

use std::{
    collections::VecDeque,
    hash::{Hash, Hasher},
};

use crate::{Entries, Entry, LogIndex};

/// Consecutive entries that end where the log ends; empty if none is in memory.
///
/// Invariant: no run is empty, and each begins where the one before it ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tail {
    runs: VecDeque<Run>,
    /// Proposed since the last [`seal`](Self::seal): behind all runs.
    open: Vec<Entry>,
    open_bytes: u64,
}

#[derive(Clone, Debug)]
struct Run {
    /// Where it begins: looked at more often than the entries, which lie elsewhere.
    first: LogIndex,
    entries: Entries,
    bytes: u64,
    /// Bytes of all runs before this one, dropped ones included: the size of any range of runs is a difference.
    start: u64,
}

impl Run {
    fn new(entries: Entries, start: u64) -> Run {
        let bytes = bytes_of(&entries);
        let first = entries.first().map_or(LogIndex::ZERO, |entry| entry.id.index);
        Run { first, entries, bytes, start }
    }

    /// The index behind it.
    fn next(&self) -> LogIndex {
        LogIndex(self.first.0.saturating_add(self.entries.len() as u64))
    }

    fn end(&self) -> u64 {
        self.start.saturating_add(self.bytes)
    }

    /// Where an index that is not before the run lies in it.
    fn place(&self, index: LogIndex) -> usize {
        usize::try_from(index.0.saturating_sub(self.first.0)).unwrap_or(usize::MAX)
    }
}

impl Tail {
    /// The first index in memory.
    pub(crate) fn first(&self) -> Option<LogIndex> {
        self.runs.front().map(|run| run.first).or_else(|| Some(self.open.first()?.id.index))
    }

    pub(crate) fn entry(&self, index: LogIndex) -> Option<&Entry> {
        if self.open.first().is_some_and(|entry| entry.id.index <= index) {
            let first = self.open.first()?.id.index;
            return self.open.get(usize::try_from(index.0.checked_sub(first.0)?).ok()?);
        }
        let run = self.runs.get(self.run_of(index)?)?;
        run.entries.get(run.place(index))
    }

    pub(crate) fn back(&self) -> Option<&Entry> {
        self.open.last().or_else(|| self.runs.back()?.entries.last())
    }

    pub(crate) fn bytes(&self) -> u64 {
        let start = self.runs.front().map_or(0, |run| run.start);
        self.end().saturating_sub(start).saturating_add(self.open_bytes)
    }

    /// Bytes of the entries from `first` to the end; of all that are in memory if it lies before them.
    pub(crate) fn bytes_from(&self, first: LogIndex) -> u64 {
        if self.first().is_none_or(|front| first <= front) {
            return self.bytes();
        }
        if let Some(run) = self.run_of(first).and_then(|at| self.runs.get(at)) {
            let before = run.entries.iter().take_while(|entry| entry.id.index < first);
            let start = run.start.saturating_add(bytes_of(before));
            return self.end().saturating_sub(start).saturating_add(self.open_bytes);
        }
        bytes_of(self.open.iter().filter(|entry| entry.id.index >= first))
    }

    /// `first..=last`, cut before `bytes_max` bytes but not before its first entry; `None` if `first` is not here.
    /// Shared if one run holds all of it, otherwise copied together.
    ///
    /// What was proposed since the last [`seal`](Self::seal) is not looked at.
    pub(crate) fn slice(&self, first: LogIndex, last: LogIndex, bytes_max: usize) -> Option<Entries> {
        let at = self.run_of(first)?;
        let head = self.part(at, first, last, bytes_max)?;
        let end = LogIndex(first.0.saturating_add(head.len() as u64));
        if end > last || at + 1 == self.runs.len() || end < self.runs.get(at)?.next() {
            return Some(head);
        }
        let bytes = bytes_of(&head);
        let mut left = (bytes_max as u64).saturating_sub(bytes);
        let following = self.runs.range(at + 1..).flat_map(|run| &run.entries);
        let fits = |entry: &&Entry| {
            let size = entry.size_bytes() as u64;
            let fits = entry.id.index <= last && size <= left;
            left = left.saturating_sub(size);
            fits
        };
        let mut taken = Vec::with_capacity(head.len().saturating_mul(2));
        taken.extend_from_slice(&head);
        taken.extend(following.take_while(fits).cloned());
        Some(if taken.len() == head.len() { head } else { taken.into() })
    }

    /// As [`slice`](Self::slice), but ends with the run that `first` lies in: always shared.
    pub(crate) fn slice_of_run(&self, first: LogIndex, last: LogIndex, bytes_max: usize) -> Option<Entries> {
        self.part(self.run_of(first)?, first, last, bytes_max)
    }

    /// Adds the next entry; the caller has checked that it continues the log.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.open_bytes = self.open_bytes.saturating_add(entry.size_bytes() as u64);
        self.open.push(entry);
    }

    /// Adds a run that continues the log, as it is.
    pub(crate) fn push_run(&mut self, entries: Entries) {
        self.seal(usize::MAX);
        if !entries.is_empty() {
            self.runs.push_back(Run::new(entries, self.end()));
        }
    }

    /// Makes runs of at most `bytes_max` bytes, or of one entry, of what was pushed one by one.
    pub(crate) fn seal(&mut self, bytes_max: usize) {
        if self.open.is_empty() {
            return;
        }
        while !self.open.is_empty() {
            let mut bytes = 0_usize;
            let fits = |entry: &&Entry| {
                bytes = bytes.saturating_add(entry.size_bytes());
                bytes <= bytes_max
            };
            let count = self.open.iter().take_while(fits).count().max(1);
            let entries = self.open.drain(..count).collect();
            self.runs.push_back(Run::new(entries, self.end()));
        }
        self.open_bytes = 0;
        // What one large burst needed is not kept for ever.
        self.open.shrink_to(KEPT_CAPACITY);
    }

    /// Drops every entry behind `index`.
    pub(crate) fn truncate_after(&mut self, index: LogIndex) {
        self.open.truncate(self.open.partition_point(|entry| entry.id.index <= index));
        self.open_bytes = bytes_of(&self.open);
        let cut = |run: &mut Run| run.next() > index.next();
        while let Some(run) = self.runs.pop_back_if(cut) {
            if run.first <= index {
                let kept = run.entries.part(0..run.place(index).saturating_add(1));
                self.runs.push_back(Run::new(kept, run.start));
            }
        }
    }

    /// Drops every entry up to and including `index`.
    pub(crate) fn drop_to(&mut self, index: LogIndex) {
        self.trim(index, 0);
    }

    /// Drops the oldest entries up to and including `index` while more than `bytes_max` bytes are in memory.
    pub(crate) fn trim(&mut self, index: LogIndex, bytes_max: u64) {
        if self.bytes() <= bytes_max {
            return;
        }
        if self.runs.is_empty() && self.open.first().is_some_and(|entry| entry.id.index <= index) {
            self.seal(usize::MAX);
        }
        let mut excess = self.bytes().saturating_sub(bytes_max);
        while excess > 0
            && let Some(run) = self.runs.pop_front_if(|run| run.first <= index)
        {
            // Whole runs give their memory back; what is left of one keeps it until its last entry goes.
            if run.bytes <= excess && run.next() <= index.next() {
                excess = excess.saturating_sub(run.bytes);
                continue;
            }
            let mut bytes = 0_u64;
            let goes = |entry: &&Entry| {
                let goes = bytes < excess && entry.id.index <= index;
                bytes = bytes.saturating_add(if goes { entry.size_bytes() as u64 } else { 0 });
                goes
            };
            let count = run.entries.iter().take_while(goes).count();
            let rest = run.entries.part(count..run.entries.len());
            if !rest.is_empty() {
                self.runs.push_front(Run::new(rest, run.start.saturating_add(bytes)));
            }
            break;
        }
    }

    fn end(&self) -> u64 {
        self.runs.back().map_or(0, Run::end)
    }

    /// The run that holds `index`.
    fn run_of(&self, index: LogIndex) -> Option<usize> {
        // Whoever asks mostly asks for the newest.
        let newest = self.runs.len().checked_sub(1)?;
        let at = if self.runs.get(newest)?.first <= index {
            newest
        } else {
            self.runs.partition_point(|run| run.first <= index).checked_sub(1)?
        };
        let run = self.runs.get(at)?;
        (run.place(index) < run.entries.len()).then_some(at)
    }

    fn part(&self, at: usize, first: LogIndex, last: LogIndex, bytes_max: usize) -> Option<Entries> {
        let run = self.runs.get(at)?;
        let from = run.place(first);
        let to = run.place(last).saturating_add(1).min(run.entries.len());
        if first > last {
            return Some(Entries::EMPTY);
        }
        if run.bytes <= bytes_max as u64 {
            return Some(run.entries.part(from..to));
        }
        let mut bytes = 0_usize;
        let fits = |entry: &&Entry| {
            bytes = bytes.saturating_add(entry.size_bytes());
            bytes <= bytes_max
        };
        let count = run.entries.get(from..to)?.iter().take_while(fits).count().max(1);
        Some(run.entries.part(from..from.saturating_add(count)))
    }

    fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.runs.iter().flat_map(|run| &run.entries).chain(&self.open)
    }
}

/// How the entries are cut into runs says nothing about the log.
impl PartialEq for Tail {
    fn eq(&self, other: &Tail) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Tail {}

impl Hash for Tail {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.iter().for_each(|entry| entry.hash(state));
    }
}

fn bytes_of<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> u64 {
    entries.into_iter().map(|entry| entry.size_bytes() as u64).sum()
}

/// Places for proposals that are kept when there are none.
const KEPT_CAPACITY: usize = 1024;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{ENTRY_OVERHEAD_BYTES, EntryKind, LogId, Timestamp};

    fn entry(index: u64, length: usize) -> Entry {
        let payload = Bytes::from(vec![7; length]);
        Entry {
            id: LogId::new(1, index),
            time: Timestamp(index),
            session: None,
            kind: EntryKind::Command,
            checksum: Entry::checksum_of(&payload),
            payload,
        }
    }

    /// Indexes 5 to 9 of 36 bytes each: 100 with their overhead.
    fn tail() -> Tail {
        let mut tail = Tail::default();
        // Three runs: 5 and 6, then 7 and 8, then 9.
        for index in 5..=9 {
            tail.push(entry(index, 100 - ENTRY_OVERHEAD_BYTES));
        }
        tail.seal(200);
        tail
    }

    fn indexes(entries: Option<Entries>) -> Option<Vec<u64>> {
        entries.map(|entries| entries.iter().map(|entry| entry.id.index.0).collect())
    }

    #[test]
    fn a_slice_keeps_to_its_bytes_but_never_is_empty() {
        let slice = |first, last, bytes| indexes(tail().slice(LogIndex(first), LogIndex(last), bytes));
        assert_eq!(slice(5, 9, 1000), Some(vec![5, 6, 7, 8, 9]));
        assert_eq!(slice(6, 7, 1000), Some(vec![6, 7]));
        assert_eq!(slice(6, 9, 299), Some(vec![6, 7]));
        assert_eq!(slice(6, 9, 1), Some(vec![6]));
        assert_eq!(slice(4, 9, 1000), None);
        assert_eq!(slice(10, 12, 1000), None);
    }

    #[test]
    fn sizes_stay_right_through_every_change() {
        let mut tail = tail();
        assert_eq!(
            (tail.bytes(), tail.bytes_from(LogIndex(8)), tail.bytes_from(LogIndex(10))),
            (500, 200, 0)
        );
        tail.truncate_after(LogIndex(8));
        tail.drop_to(LogIndex(5));
        assert_eq!((tail.bytes(), tail.bytes_from(LogIndex(8)), tail.first()), (300, 100, Some(LogIndex(6))));
        tail.trim(LogIndex(6), 0);
        assert_eq!((tail.bytes(), tail.bytes_from(LogIndex(1))), (200, 200));
        tail.truncate_after(LogIndex(1));
        assert_eq!((tail.bytes(), tail.first()), (0, None));
        tail.push(entry(2, 36));
        assert_eq!(tail.bytes(), 100);
        tail.push_run([entry(3, 36), entry(4, 36)].into_iter().collect());
        tail.push(entry(5, 36));
        assert_eq!(
            (tail.bytes(), tail.bytes_from(LogIndex(4)), tail.bytes_from(LogIndex(5))),
            (400, 200, 100)
        );
        let there = |index| tail.entry(LogIndex(index)).map(|entry| entry.id.index.0);
        assert_eq!([1, 2, 3, 4, 5, 6].map(there), [None, Some(2), Some(3), Some(4), Some(5), None]);
    }

    #[test]
    fn what_was_pushed_one_by_one_is_trimmed_as_well() {
        let mut tail = Tail::default();
        (5..=7).for_each(|index| tail.push(entry(index, 100 - ENTRY_OVERHEAD_BYTES)));
        tail.trim(LogIndex(4), 0);
        assert_eq!(tail.bytes(), 300, "nothing lies at or before 4");
        tail.trim(LogIndex(6), 0);
        assert_eq!((tail.bytes(), tail.first()), (100, Some(LogIndex(7))));
    }

    #[test]
    fn one_run_is_shared_and_the_cutting_into_runs_is_no_difference() {
        let shared = |first, last| {
            let tail = tail();
            let slice = tail.slice(LogIndex(first), LogIndex(last), 1000).unwrap();
            std::ptr::eq(&raw const slice[0], &raw const *tail.entry(LogIndex(first)).unwrap())
        };
        assert!(shared(5, 6) && shared(8, 8) && shared(9, 9), "within one run");
        assert!(!shared(6, 7), "across two");
        let of_run = |first, last| indexes(tail().slice_of_run(LogIndex(first), LogIndex(last), 1000));
        assert_eq!((of_run(5, 9), of_run(8, 9)), (Some(vec![5, 6]), Some(vec![8])));
        let mut other = Tail::default();
        other.push_run((5..=9).map(|index| entry(index, 100 - ENTRY_OVERHEAD_BYTES)).collect());
        assert_eq!(tail(), other);
        other.truncate_after(LogIndex(8));
        assert_ne!(tail(), other);
    }
}

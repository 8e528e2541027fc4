//! The most recent entries, in memory. What fell out of it is fetched from the log when it is needed.

use std::collections::VecDeque;

use crate::{Entry, LogIndex};

/// A consecutive run of entries that ends where the log ends; empty if none is in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Tail {
    entries: VecDeque<Entry>,
    /// For each entry, the bytes of all entries ever pushed up to and including it: any range's size is a difference.
    ends: VecDeque<u64>,
    /// The same sum before the first entry.
    dropped: u64,
}

impl Tail {
    /// The first index in memory.
    pub(crate) fn first(&self) -> Option<LogIndex> {
        self.entries.front().map(|entry| entry.id.index)
    }

    pub(crate) fn entry(&self, index: LogIndex) -> Option<&Entry> {
        self.entries.get(self.place(index)?)
    }

    pub(crate) fn back(&self) -> Option<&Entry> {
        self.entries.back()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.end().saturating_sub(self.dropped)
    }

    /// Bytes of the entries from `first` to the end; of all that are in memory if it lies before them.
    pub(crate) fn bytes_from(&self, first: LogIndex) -> u64 {
        match self.first() {
            None => 0,
            Some(front) if first <= front => self.bytes(),
            Some(_) => match self.place(first.prev()).and_then(|place| self.ends.get(place)) {
                Some(before) => self.end().saturating_sub(*before),
                None => 0,
            },
        }
    }

    /// `first..=last`, cut before `bytes_max` bytes but not before its first entry; `None` if `first` is not here.
    pub(crate) fn slice(&self, first: LogIndex, last: LogIndex, bytes_max: usize) -> Option<Vec<Entry>> {
        let place = self.place(first)?;
        let mut bytes = 0_usize;
        let mut taken = Vec::new();
        for entry in self.entries.range(place..).take_while(|entry| entry.id.index <= last) {
            bytes = bytes.saturating_add(entry.size_bytes());
            if bytes > bytes_max && !taken.is_empty() {
                break;
            }
            taken.push(entry.clone());
        }
        Some(taken)
    }

    /// Adds the next entry; the caller has checked that it continues the log.
    pub(crate) fn push(&mut self, entry: Entry) {
        let end = self.end().saturating_add(entry.size_bytes() as u64);
        self.ends.push_back(end);
        self.entries.push_back(entry);
    }

    /// Drops every entry behind `index`.
    pub(crate) fn truncate_after(&mut self, index: LogIndex) {
        while self.entries.back().is_some_and(|entry| entry.id.index > index) {
            self.entries.pop_back();
            self.ends.pop_back();
        }
    }

    /// Drops every entry up to and including `index`.
    pub(crate) fn drop_to(&mut self, index: LogIndex) {
        while self.first().is_some_and(|first| first <= index) {
            self.pop_front();
        }
    }

    /// Drops the oldest entries up to and including `index` while more than `bytes_max` bytes are in memory.
    pub(crate) fn trim(&mut self, index: LogIndex, bytes_max: u64) {
        while self.bytes() > bytes_max && self.first().is_some_and(|first| first <= index) {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        self.entries.pop_front();
        if let Some(end) = self.ends.pop_front() {
            self.dropped = end;
        }
    }

    fn end(&self) -> u64 {
        self.ends.back().copied().unwrap_or(self.dropped)
    }

    fn place(&self, index: LogIndex) -> Option<usize> {
        let place = index.0.checked_sub(self.first()?.0)?;
        usize::try_from(place).ok().filter(|place| *place < self.entries.len())
    }
}

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
        for index in 5..=9 {
            tail.push(entry(index, 100 - ENTRY_OVERHEAD_BYTES));
        }
        tail
    }

    fn indexes(entries: Option<Vec<Entry>>) -> Option<Vec<u64>> {
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
    }
}

//! The segment being written: what still fits, where the next batch goes, and its seal.

use std::sync::Arc;

use raft_core::{Entry, TermRun, Write};

use crate::{
    log::SegmentFile,
    record::{self, ALIGN, COMMIT_BYTES, CUT_BYTES, PAD_BYTES, SEAL_BYTES},
    segment::{
        footer,
        header::{HEADER_BYTES, SegmentHeader},
    },
};

pub(crate) const PAGE_BYTES: usize = 4096;
/// A witness stands in a block of its own, so that it does not share the fate of what it witnesses.
pub(crate) const WITNESS_BLOCK: usize = PAGE_BYTES;

/// What a witness takes at most.
const WITNESS_BYTES: usize = WITNESS_BLOCK + PAD_BYTES + COMMIT_BYTES;

/// The segment being written.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) file: Arc<SegmentFile>,
    /// Written with the first batch, if that has not happened yet.
    pub(crate) unwritten_header: Option<SegmentHeader>,
    pub(crate) salt: u128,
    /// Where the next batch goes.
    pub(crate) position: u64,
    /// No batch has been closed in it yet: the first one repeats the snapshot mark.
    pub(crate) fresh: bool,
    /// Its seal is written: it takes nothing more.
    pub(crate) sealed: bool,
    /// What the footer will need at most.
    pub(crate) slots: usize,
    pub(crate) runs: usize,
    pub(crate) confs: usize,
}

impl Current {
    /// A prepared segment. Its header is written with its first batch.
    pub(crate) fn start(file: Arc<SegmentFile>, header: SegmentHeader) -> Current {
        Current {
            file,
            salt: header.salt,
            unwritten_header: Some(header),
            position: 0,
            fresh: true,
            sealed: false,
            slots: 0,
            runs: 0,
            confs: 0,
        }
    }

    /// Bytes left for records, if the batch so far has `buffered` bytes and `count` more entries come. `None` if not even
    /// what closes the batch and the segment fits any more. What comes when the disk is full fits behind it: a witness, and a
    /// batch that drops old segments.
    pub(crate) fn room(&self, buffered: usize, count: EntryCount) -> Option<usize> {
        let footer =
            footer::footer_bytes(self.slots + count.slots, self.runs + count.runs, self.confs + count.confs);
        let header = if self.unwritten_header.is_some() && buffered == 0 { HEADER_BYTES } else { 0 };
        let reserved = COMMIT_BYTES + WITNESS_BYTES + COMMIT_BYTES + SEAL_BYTES + footer;
        let used = self.position.saturating_add((buffered + header + reserved) as u64);
        self.file.bytes.checked_sub(used).map(|left| usize::try_from(left).unwrap_or(usize::MAX))
    }

    /// Whether a witness fits in front of seal and footer.
    pub(crate) fn has_room_for_witness(&self) -> bool {
        self.has_room_for(WITNESS_BYTES)
    }

    /// Whether a batch without records fits in front of seal and footer.
    pub(crate) fn has_room_for_empty_batch(&self) -> bool {
        self.has_room_for(COMMIT_BYTES)
    }

    fn has_room_for(&self, bytes: usize) -> bool {
        let footer = footer::footer_bytes(self.slots, self.runs, self.confs);
        let needed = bytes + SEAL_BYTES + footer;
        self.unwritten_header.is_some() || self.position + needed as u64 <= self.file.bytes
    }

    pub(crate) fn count(&mut self, count: EntryCount) {
        self.slots += count.slots;
        self.runs += count.runs;
        self.confs += count.confs;
    }
}

/// What entries add to a footer, at most.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EntryCount {
    pub(crate) slots: usize,
    pub(crate) runs: usize,
    pub(crate) confs: usize,
}

impl EntryCount {
    pub(crate) fn of(entries: &[Entry]) -> EntryCount {
        let mut count = EntryCount::default();
        let mut before = None;
        for entry in entries {
            count.add(before, entry);
            before = Some(entry);
        }
        count
    }

    /// Counts `entry`, which comes behind `before`.
    pub(crate) fn add(&mut self, before: Option<&Entry>, entry: &Entry) {
        self.slots += 1;
        self.runs += usize::from(before.is_none_or(|before| before.id.term != entry.id.term));
        self.confs += usize::from(entry.kind == raft_core::EntryKind::ConfChange);
    }
}

/// Bytes of the records of `write` in front of its entries, at most.
pub(crate) fn preamble_bytes(write: &Write) -> usize {
    let cut = if write.truncate_after.is_some() { CUT_BYTES.next_multiple_of(ALIGN) } else { 0 };
    cut + write.snapshot.as_ref().map_or(0, |mark| record::mark_bytes(&mark.meta))
}

/// Appends the term of an entry to the runs.
pub(crate) fn extend_runs(runs: &mut Vec<TermRun>, entry: &Entry) {
    if runs.last().is_none_or(|run| run.term != entry.id.term) {
        runs.push(TermRun { first: entry.id.index, term: entry.id.term });
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use raft_core::{HardState, SnapshotMark, SnapshotMeta, WriteId};

    use super::*;
    use crate::{
        record::Stamp,
        segment::header::tests::header,
        vfs::{Vfs as _, sim::SimVfs},
    };

    const SEGMENT_BYTES: u64 = 64 << 10;

    fn current() -> Current {
        let (vfs, path) = (SimVfs::new(), PathBuf::from("/segment"));
        vfs.create_dir_all(Path::new("/")).unwrap();
        let file = vfs.create(&path).unwrap();
        let file = SegmentFile::new(3, path, file, Stamp::new(3, 2), SEGMENT_BYTES);
        Current::start(file, header())
    }

    #[test]
    fn room_is_what_is_left_before_all_that_may_have_to_follow() {
        let mut current = current();
        let behind = 2 * COMMIT_BYTES + WITNESS_BYTES + SEAL_BYTES;
        let footer = |slots, runs, confs| footer::footer_bytes(slots, runs, confs);
        let whole = usize::try_from(SEGMENT_BYTES).unwrap();
        let count = EntryCount { slots: 3, runs: 2, confs: 1 };
        assert_eq!(current.room(0, count), Some(whole - HEADER_BYTES - behind - footer(3, 2, 1)));
        assert_eq!(
            current.room(900, count),
            Some(whole - 900 - behind - footer(3, 2, 1)),
            "it is among those"
        );
        current.unwritten_header = None;
        current.position = 5000;
        current.count(count);
        current.count(count);
        assert_eq!((current.slots, current.runs, current.confs), (6, 4, 2));
        assert_eq!(current.room(0, count), Some(whole - 5000 - behind - footer(9, 6, 3)));
        current.position = (whole - behind - footer(9, 6, 3)) as u64;
        assert_eq!(current.room(0, count), Some(0));
        current.position += 1;
        assert_eq!(current.room(0, count), None);
    }

    #[test]
    fn a_batch_without_records_fits_to_the_byte() {
        let mut current = current();
        assert!(current.has_room_for_empty_batch(), "nothing is in it");
        current.unwritten_header = None;
        current.position = SEGMENT_BYTES - (COMMIT_BYTES + SEAL_BYTES + footer::footer_bytes(0, 0, 0)) as u64;
        assert!(current.has_room_for_empty_batch() && !current.has_room_for_witness());
        current.position += 1;
        assert!(!current.has_room_for_empty_batch());
    }

    #[test]
    fn a_write_begins_with_its_cut_and_its_mark() {
        let write = |truncate_after, marked: bool| {
            let meta = SnapshotMeta::default();
            let snapshot =
                marked.then(|| Box::new(SnapshotMark { meta, received: false, resets_log: false }));
            let (id, hard_state) = (WriteId(1), HardState::default());
            preamble_bytes(&Write { id, hard_state, truncate_after, snapshot, entries: Default::default() })
        };
        let mark = record::mark_bytes(&SnapshotMeta::default());
        let cut = Some(raft_core::LogIndex(5));
        assert_eq!(write(None, false), 0);
        assert_eq!(write(cut, false), CUT_BYTES.next_multiple_of(ALIGN));
        assert_eq!(write(None, true), mark);
        assert_eq!(write(cut, true), CUT_BYTES.next_multiple_of(ALIGN) + mark);
    }
}

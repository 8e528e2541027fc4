//! Encodes writes into the open batch. No I/O: what has to happen on the disk goes with the flight.

use std::path::PathBuf;

use raft_core::{LogId, LogIndex, SnapshotMark, Write, WriteId};

use super::{
    Engine, Queued,
    flight::{Drops, Flight},
};
use crate::{
    error::WalError,
    layout, log,
    record::{self, Encoder, State},
    segment::{
        index::{Op, Slot},
        writer::{self, EntryCount, WITNESS_BLOCK},
    },
};

/// A batch being encoded.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(super) state: State,
    /// What the chain was before it.
    chain: u64,
    is_empty: bool,
    pub(super) is_witness: bool,
    /// The last write that is complete with it.
    pub(super) writes: Option<WriteId>,
    pub(super) entries: u64,
    pub(super) drops: Option<Drops>,
    /// Files of snapshots that were received in vain.
    pub(super) removes: Vec<PathBuf>,
    /// Files of received snapshots, to be renamed before this batch is written.
    pub(super) renames: Vec<(PathBuf, PathBuf)>,
}

impl Engine {
    /// Encodes what waits, as far as the open batch and the segment take it.
    pub(super) fn encode_pending(&mut self) {
        self.drop_early();
        while let Some(queued) = self.pending.pop_front() {
            let taken = match &queued {
                Queued::Write(write) => self.encode_if_it_fits(write),
                // With nothing open and nothing in flight, what is durable is all there is.
                Queued::Drop(up_to) => self.open.is_none() && self.encode_drop(*up_to),
            };
            if !taken {
                self.pending.push_front(queued);
                break;
            }
        }
        let larger_than_a_segment = self.open.is_none()
            && self.current.fresh
            && self.current.file.bytes >= self.options.segment_bytes
            && matches!(self.pending.front(), Some(Queued::Write(_)));
        if larger_than_a_segment {
            let mut batch = self.begin();
            let part = self.split_front();
            self.encode_write(&part, &mut batch);
            self.open = Some(batch);
        }
    }

    /// Takes a write into the open batch. `false` if it has to wait: nothing is changed then.
    pub(super) fn encode_if_it_fits(&mut self, write: &Write) -> bool {
        if self.current.sealed || self.buffer.len() >= self.options.batch_bytes_max {
            return false;
        }
        let mut batch = match self.open.take() {
            Some(batch) => batch,
            None => self.begin(),
        };
        let needed =
            writer::preamble_bytes(write) + write.entries.iter().map(record::entry_bytes).sum::<usize>();
        let room = self.current.room(self.buffer.len(), EntryCount::of(&write.entries));
        let fits = room.is_some_and(|room| room >= needed);
        if fits {
            self.encode_write(write, &mut batch);
            batch.writes = Some(write.id);
        }
        if batch.is_empty {
            self.abandon(&batch);
        } else {
            self.open = Some(batch);
        }
        fits
    }

    /// Takes as much of the first queued write as an empty segment holds. Only for writes that are larger than a
    /// segment: each part keeps the log in order, and the write counts as durable with its last part.
    fn split_front(&mut self) -> Write {
        let Some(Queued::Write(write)) = self.pending.front_mut() else {
            unreachable!("the caller looked at it");
        };
        let (mut bytes, mut count) = (writer::preamble_bytes(write), EntryCount::default());
        let mut take = 0;
        while let Some(entry) = write.entries.get(take) {
            bytes += record::entry_bytes(entry);
            count.add(take.checked_sub(1).and_then(|before| write.entries.get(before)), entry);
            if self.current.room(self.buffer.len(), count).is_none_or(|room| room < bytes) {
                break;
            }
            take += 1;
        }
        assert!(take > 0, "an entry within the limit fits an empty segment");
        let part = Write { entries: write.entries[..take].to_vec().into(), ..write.clone() };
        write.truncate_after = None;
        write.snapshot = None;
        write.entries = write.entries[take..].to_vec().into();
        part
    }

    /// Starts a batch in the buffer: the segment's header and the snapshot mark first, if it is the segment's first.
    pub(super) fn begin(&mut self) -> Batch {
        self.buffer.clear();
        self.ops.clear();
        let chain = self.chain;
        let mut state = self.written;
        if let Some(header) = &self.current.unwritten_header {
            self.buffer.extend_from_slice(&header.encode());
        }
        if self.current.fresh {
            (state.cuts, state.cut_min) = (0, State::NEW.cut_min);
            if let Some(mark) = self.mark.clone() {
                let offset = self.encode(|encoder| encoder.mark(&mark, false, true));
                self.ops.push(Op::Mark { offset });
            }
        }
        Batch {
            state,
            chain,
            is_empty: true,
            is_witness: false,
            writes: None,
            entries: 0,
            drops: None,
            removes: Vec::new(),
            renames: Vec::new(),
        }
    }

    /// Nothing of what begins a batch is written.
    fn abandon(&mut self, batch: &Batch) {
        self.chain = batch.chain;
        self.buffer.clear();
        self.ops.clear();
    }

    /// Where the buffer goes.
    pub(super) fn base(&self) -> u64 {
        if self.current.unwritten_header.is_some() { 0 } else { self.current.position }
    }

    pub(super) fn encode<T>(&mut self, record: impl FnOnce(&mut Encoder<'_>) -> T) -> T {
        let base = self.base();
        record(&mut Encoder {
            buffer: &mut self.buffer,
            base,
            stamp: self.current.file.stamp,
            chain: &mut self.chain,
        })
    }

    /// Cut first, then the snapshot mark, then the entries.
    fn encode_write(&mut self, write: &Write, batch: &mut Batch) {
        let state = &mut batch.state;
        state.hard_state = write.hard_state;
        if let Some(after) = write.truncate_after
            && after < state.last.index
        {
            self.runs.retain(|run| run.first <= after);
            state.last = match log::term_at(&self.runs, after) {
                Some(term) if after > state.log_start.index => LogId { term, index: after },
                _ => state.log_start,
            };
            state.cuts += 1;
            state.cut_min = state.cut_min.min(after);
            self.encode(|encoder| encoder.cut(after));
            self.ops.push(Op::Cut { after });
        }
        if let Some(mark) = &write.snapshot {
            self.encode_mark(mark, batch);
        }
        for entry in &write.entries {
            let (offset, bytes) = self.encode(|encoder| encoder.entry(entry));
            let slot = Slot {
                offset: u32::try_from(offset).expect("a segment is at most 1 GiB"),
                bytes: u32::try_from(bytes).expect("an entry is at most half a segment"),
            };
            let is_conf = entry.kind == raft_core::EntryKind::ConfChange;
            self.ops.push(Op::Push { id: entry.id, slot, is_conf });
            writer::extend_runs(&mut self.runs, entry);
            batch.state.last = entry.id;
        }
        self.current.count(EntryCount::of(&write.entries));
        batch.entries += write.entries.len() as u64;
        let state = &mut batch.state;
        if state.last >= state.promised {
            state.promised = LogId::ZERO; // The hole is refilled, or a newer leader settled what belongs there.
        }
        batch.is_empty = false;
    }

    fn encode_mark(&mut self, mark: &SnapshotMark, batch: &mut Batch) {
        let last = mark.meta.last;
        let received = mark.received.then(|| self.dir.join(layout::snapshot_received(last)));
        // The marked one once more takes the place of its file, which could not be read.
        let replaces = mark.received && last == batch.state.mark;
        if last.index <= batch.state.mark.index && !replaces {
            // A slow snapshot that an install overtook: its file goes now or with the next compaction.
            batch.removes.extend(received);
            return;
        }
        if let Some(from) = received {
            batch.renames.push((from, self.dir.join(layout::snapshot(last))));
        }
        let offset = self.encode(|encoder| encoder.mark(&mark.meta, mark.resets_log, false));
        self.ops.push(Op::Mark { offset });
        let state = &mut batch.state;
        if mark.resets_log {
            self.runs.clear();
            (state.last, state.log_start) = (last, last);
            state.cuts += 1;
            state.cut_min = state.cut_min.min(last.index);
            self.ops.push(Op::Reset { to: last });
        }
        state.mark = last;
        self.mark = Some(mark.meta.clone());
    }

    /// A batch that witnesses the last one, if it has none and there is room. Only when nothing else can be written: nothing
    /// is queued, or what is needs the next segment.
    pub(crate) fn start_witness(&mut self) -> Option<Box<Flight>> {
        assert!(self.open.is_none() && !self.in_flight, "a witness comes when nothing else is to be written");
        if !self.wants_witness() {
            return None;
        }
        let mut batch = self.begin();
        self.encode(|encoder| encoder.pad_to(WITNESS_BLOCK));
        batch.is_witness = true;
        Some(self.close_batch(batch))
    }

    /// A batch that only tells the state, here and now.
    pub(crate) fn write_empty_batch(&mut self) -> Result<(), WalError> {
        let batch = self.begin();
        let flight = self.close_batch(batch);
        self.land(*flight)
    }

    /// The oldest segments, as far as they hold nothing behind `up_to`, leave the log with the batch that this opens:
    /// first from the log, durably, then from the disk.
    ///
    /// Crash before the batch is durable: everything is still there. After: the leftovers lie before `first_segment`
    /// and the next open takes them away.
    fn encode_drop(&mut self, up_to: LogIndex) -> bool {
        match self.droppable(up_to) {
            Ok((drops, first_kept)) => self.open_drop(drops, first_kept),
            Err(garbage) => self.garbage.push(garbage),
        }
        true
    }

    /// Where the first write in the queue waits for a segment that a full disk does not give, a drop behind it may be what
    /// gives one. It keeps its place as well: what it may drop then, a snapshot before it in the queue decides.
    fn drop_early(&mut self) {
        if !self.full || self.open.is_some() || self.next.is_some() {
            return;
        }
        let drops = self.pending.iter().find_map(|queued| match queued {
            Queued::Drop(up_to) => self.droppable(*up_to).ok(),
            Queued::Write(_) => None,
        });
        if let Some((drops, first_kept)) = drops {
            self.open_drop(drops, first_kept);
        }
    }

    fn open_drop(&mut self, drops: Drops, first_kept: u64) {
        let mut batch = self.begin();
        batch.state.first_segment = first_kept;
        batch.state.log_start = drops.log_start;
        log::drop_runs(&mut self.runs, drops.log_start.index);
        self.tip.log_start = self.tip.log_start.max(drops.log_start.index);
        batch.drops = Some(drops);
        batch.is_empty = false;
        self.open = Some(batch);
    }
}

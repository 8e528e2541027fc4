//! What the engine wants done to the disk, as plain data: whoever has it carries it out without holding the engine, so
//! that the next batch is encoded meanwhile.

use std::{mem, path::PathBuf, sync::Arc};

use raft_core::LogId;

use super::{Engine, batch::Batch, compaction::Garbage};
use crate::{
    error::WalError,
    log::SegmentFile,
    record::{COMMIT_BYTES, PAD_BYTES, State},
    segment::{
        footer,
        index::Op,
        prepare::Prepared,
        writer::{EntryCount, PAGE_BYTES},
    },
    vfs::Vfs,
};

/// One write and one fdatasync, and what has to be on disk before.
#[derive(Debug)]
pub(crate) struct Flight {
    dir: PathBuf,
    /// Received snapshots that became void.
    removes: Vec<PathBuf>,
    /// Received snapshots that get their final names: durable before the mark that names them is written.
    renames: Vec<(PathBuf, PathBuf)>,
    file: Arc<SegmentFile>,
    bytes: Vec<u8>,
    at: u64,
    clock: Option<fn() -> u64>,
    then: Then,
}

/// What is true once the fdatasync has returned.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a flight is boxed as a whole")]
enum Then {
    Batch { closed: Batch, state: State, ops: Vec<Op> },
    Sealed { next: Prepared, salt: u128, end: u64, footer: Vec<u8> },
}

/// How a flight ended.
#[derive(Debug)]
pub(crate) struct Landed {
    sync_micros: Option<u64>,
}

/// What is to be done next.
#[derive(Debug)]
pub(crate) enum Step {
    Fly(Box<Flight>),
    /// The next segment is not ready: supply it and come back.
    NeedsSegment,
    Done,
}

/// Batches from this size on end with a page: at most a sixteenth of the space goes for that.
const ALIGN_FROM_BYTES: usize = 16 * PAGE_BYTES;

impl Flight {
    /// Does it. Blocks on the disk; nothing of it counts before [`Engine::finish`] has heard of it.
    ///
    /// Crash before the rename is durable: no mark, the received file is removed as unfinished. After: the file is in
    /// place and the mark may name it.
    pub(crate) fn carry_out(&self, vfs: &dyn Vfs) -> Result<Landed, WalError> {
        for path in &self.removes {
            // A leftover is removed by the next open.
            let _ = vfs.remove(path);
        }
        for (from, to) in &self.renames {
            vfs.rename(from, to).map_err(|error| WalError::io("rename", from, error))?;
        }
        if !self.renames.is_empty() {
            vfs.sync_dir(&self.dir).map_err(|error| WalError::io("sync", &self.dir, error))?;
        }
        let SegmentFile { file, path, bytes: file_bytes, .. } = &*self.file;
        let mut written = file.write_at(&self.bytes, self.at);
        if let Then::Sealed { footer, .. } = &self.then {
            written = written.and_then(|()| file.write_at(footer, file_bytes - footer.len() as u64));
        }
        written.map_err(|error| WalError::io("write", path, error))?;
        let started = self.clock.map(|clock| clock());
        file.sync_data().map_err(|error| WalError::io("sync", path, error))?;
        let ended = self.clock.map(|clock| clock());
        let sync_micros = ended.zip(started).map(|(ended, started)| ended.saturating_sub(started));
        Ok(Landed { sync_micros })
    }
}

impl Engine {
    /// The next flight. Whoever takes it carries it out and brings it to [`finish`](Self::finish) before he asks again;
    /// meanwhile [`append`](Self::append) encodes the next batch.
    pub(crate) fn start(&mut self) -> Result<Step, WalError> {
        self.refuse_if_unusable()?;
        assert!(!self.in_flight, "a flight was started before the last one had landed");
        self.encode_pending();
        if let Some(batch) = self.open.take() {
            return Ok(Step::Fly(self.close_batch(batch)));
        }
        if self.pending.is_empty() {
            return Ok(Step::Done);
        }
        match self.next.take() {
            Some(next) => Ok(Step::Fly(self.seal(next))),
            None => Ok(Step::NeedsSegment),
        }
    }

    /// A flight has landed, or has not: only now does any of it count.
    pub(crate) fn finish(
        &mut self,
        flight: Flight,
        outcome: Result<Landed, WalError>,
    ) -> Result<(), WalError> {
        self.in_flight = false;
        // What the helper saw fail meanwhile may have taken with it a name whose sync this flight then found clean.
        let outcome = outcome.and_then(|landed| self.failure.clone().map_or(Ok(landed), Err));
        let landed = match outcome {
            Ok(landed) => landed,
            Err(error) => {
                self.open = None;
                return Err(self.poison(error));
            }
        };
        self.stats.fsyncs += 1;
        self.stats.written_bytes += flight.bytes.len() as u64;
        if let Some(micros) = landed.sync_micros {
            self.latencies.record(micros);
        }
        match flight.then {
            Then::Batch { closed, state, ops } => {
                self.count_batch(closed, state, &ops);
                self.idle_ops = ops;
            }
            Then::Sealed { next, salt, end, footer } => {
                self.stats.written_bytes += footer.len() as u64;
                self.start_segment(next, salt, end, false, self.state);
            }
        }
        self.idle_buffer = flight.bytes;
        Ok(())
    }

    fn count_batch(&mut self, closed: Batch, state: State, ops: &[Op]) {
        self.state = state;
        self.witnessed = closed.is_witness;
        self.durable = closed.writes.or(self.durable);
        self.stats.batches += 1;
        self.stats.entries += closed.entries;
        let mut log = self.log.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(drops) = closed.drops {
            log.log_start = drops.log_start;
            log.maps.forget();
            let segments = log.segments.drain(..drops.count).map(|segment| segment.file).collect();
            self.garbage.push(Garbage { segments, ..drops.garbage });
        }
        log.apply(ops);
        assert!(log.last == state.last.index, "the index ends at {}, the log at {}", log.last, state.last);
    }

    /// Closes a batch: its commit record tells the newest batch that is durable by now.
    pub(super) fn close_batch(&mut self, mut batch: Batch) -> Box<Flight> {
        let watermark = self.state.batch;
        batch.state.batch = (watermark + 1).max(self.batch_floor);
        let closing = batch.state;
        self.align_end();
        let state = self.encode(|encoder| encoder.commit(watermark, closing));
        let at = self.base();
        let bytes = mem::replace(&mut self.buffer, mem::take(&mut self.idle_buffer));
        self.buffer.clear();
        let ops = mem::replace(&mut self.ops, mem::take(&mut self.idle_ops));
        self.ops.clear();
        self.current.position = at + bytes.len() as u64;
        self.current.unwritten_header = None;
        self.current.fresh = false;
        self.written = state;
        let (removes, renames) = (mem::take(&mut batch.removes), mem::take(&mut batch.renames));
        self.flight(bytes, at, Then::Batch { closed: batch, state, ops }, removes, renames)
    }

    /// Lets a large batch end with a page, if there is room: the next one then does not write the last page of this one
    /// once more.
    fn align_end(&mut self) {
        if self.buffer.len() < ALIGN_FROM_BYTES {
            return;
        }
        let end = self.base() + (self.buffer.len() + COMMIT_BYTES) as u64;
        let room = self.current.room(self.buffer.len(), EntryCount::default());
        if !end.is_multiple_of(PAGE_BYTES as u64) && room.is_some_and(|room| room >= PAGE_BYTES + PAD_BYTES) {
            self.encode(|encoder| encoder.pad_to_before(PAGE_BYTES, COMMIT_BYTES));
        }
    }

    /// Seals the segment: once that is durable the next one may be written.
    fn seal(&mut self, next: Prepared) -> Box<Flight> {
        let salt = self.salt();
        let at = self.current.position;
        let state = self.state;
        self.encode(|encoder| encoder.seal(next.number, salt, state));
        let file = &self.current.file;
        let footer = {
            let log = self.log.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            let index = &log.segments.last().expect("a log has a segment").index;
            footer::encode(index, file.number, self.current.salt, at, file.bytes)
        };
        let bytes = mem::take(&mut self.buffer);
        let end = at + bytes.len() as u64;
        let footer_at = file.bytes - footer.len() as u64;
        assert!(end <= footer_at, "segment {} overflows into its footer", file.number);
        self.current.sealed = true;
        self.flight(bytes, at, Then::Sealed { next, salt, end, footer }, Vec::new(), Vec::new())
    }

    fn flight(
        &mut self,
        bytes: Vec<u8>,
        at: u64,
        then: Then,
        removes: Vec<PathBuf>,
        renames: Vec<(PathBuf, PathBuf)>,
    ) -> Box<Flight> {
        self.in_flight = true;
        let file = Arc::clone(&self.current.file);
        let (dir, clock) = (self.dir.clone(), self.clock);
        Box::new(Flight { dir, removes, renames, file, bytes, at, clock, then })
    }

    /// Carries out what is due, here and now, until nothing is left or the next segment is missing.
    pub(super) fn fly(&mut self) -> Result<bool, WalError> {
        loop {
            match self.start()? {
                Step::Fly(flight) => self.land(*flight)?,
                Step::NeedsSegment => return Ok(false),
                Step::Done => return Ok(true),
            }
        }
    }

    /// One flight, here and now.
    pub(super) fn land(&mut self, flight: Flight) -> Result<(), WalError> {
        let outcome = flight.carry_out(&*self.vfs);
        self.finish(flight, outcome)
    }
}

/// The oldest segments leave the log with a batch.
#[derive(Debug)]
pub(crate) struct Drops {
    pub(super) count: usize,
    pub(super) log_start: LogId,
    pub(super) garbage: Garbage,
}

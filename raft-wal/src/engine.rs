//! What the log decides, as plain calls on the file-system trait: no thread, no clock.

use std::{
    collections::VecDeque,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use raft_core::{Entry, LogId, LogIndex, SnapshotMark, SnapshotMeta, Term, TermRun, Write, WriteId};

use crate::{
    error::{CorruptionKind, Damage, WalError},
    latency::Latencies,
    layout,
    log::{self, Log, Segment, SegmentFile},
    open,
    options::Options,
    record::{self, Encoder, STATE_BYTES, State},
    report::{OpenReport, Stats},
    segment::{
        footer,
        header::SegmentHeader,
        index::{Op, SegmentIndex, Slot},
        prepare::{Job, Prepared},
        reader,
        writer::{self, Current, EntryCount, WITNESS_BLOCK},
    },
    vfs::Vfs,
};

/// The log without a thread: the caller decides when to write. For simulations, fuzzing and the writer thread.
///
/// Invariant: nothing counts as durable, can be read or is reported before the fdatasync that covers it has returned.
/// Invariant: no byte of a segment is written before the fdatasync that covers its predecessor's seal has returned.
/// Invariant: after the first failure of a write or a sync nothing is written any more.
#[derive(Debug)]
pub struct Engine {
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    /// Held until the engine is dropped.
    pub(crate) _lock: Box<dyn fmt::Debug + Send + Sync>,
    pub(crate) log: Arc<RwLock<Log>>,
    /// As of the last durable batch.
    pub(crate) state: State,
    /// Over everything written so far.
    pub(crate) chain: u64,
    /// The terms of the log, everything written so far included.
    pub(crate) runs: Vec<TermRun>,
    pub(crate) mark: Option<SnapshotMeta>,
    pub(crate) current: Current,
    pub(crate) next: Option<Prepared>,
    /// Files that wait to become segments, by the number in their names.
    pub(crate) spares: Vec<u64>,
    pub(crate) salts: u64,
    /// Where the log will end once everything queued is written.
    pub(crate) tip: Tip,
    pub(crate) pending: VecDeque<Write>,
    pub(crate) durable: Option<WriteId>,
    /// The last batch is a witness, or needs none.
    pub(crate) witnessed: bool,
    pub(crate) damage: Option<Damage>,
    pub(crate) failure: Option<WalError>,
    /// No batch gets a lower number: those of unfinished writes are not used again.
    pub(crate) batch_floor: u64,
    /// Microseconds on a monotonic clock, for the figures only. A simulation has none.
    pub(crate) clock: Option<fn() -> u64>,
    pub(crate) latencies: Latencies,
    pub(crate) buffer: Vec<u8>,
    pub(crate) ops: Vec<Op>,
    pub(crate) stats: Stats,
    pub(crate) full: bool,
}

/// What a write must continue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tip {
    pub(crate) term: Term,
    pub(crate) last: LogIndex,
    pub(crate) last_term: Term,
    pub(crate) log_start: LogIndex,
    pub(crate) mark: LogIndex,
}

/// How far [`Engine::advance`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advance {
    Done,
    /// The next segment is not ready: supply it and come back.
    NeedsSegment,
}

/// What a compaction leaves to be tidied up; plain file operations that nobody waits for.
#[derive(Debug, Default)]
pub(crate) struct Garbage {
    pub(crate) segments: Vec<Arc<SegmentFile>>,
    /// Snapshots older than this one.
    pub(crate) snapshots_before: Option<LogIndex>,
    /// At most so many segments become spares.
    pub(crate) spares_wanted: usize,
    pub(crate) segment_bytes: u64,
}

impl Engine {
    /// Opens the log in `dir`, founding it if the directory is empty.
    ///
    /// # Errors
    /// As [`Wal::open_with`](crate::Wal::open_with).
    pub fn open(vfs: Arc<dyn Vfs>, dir: &Path, options: Options) -> Result<(Engine, OpenReport), WalError> {
        open::open(vfs, dir, options)
    }

    /// Queues a write for the next [`flush`](Self::flush).
    ///
    /// # Errors
    /// A write that does not continue the log or is too large changes nothing.
    pub fn append(&mut self, write: &Write) -> Result<(), WalError> {
        self.refuse_if_unusable()?;
        self.tip = self.check(write)?;
        self.pending.push_back(write.clone());
        Ok(())
    }

    /// Makes everything queued durable and tells the last durable write; `None` if there was none since the open.
    ///
    /// # Errors
    /// [`WalError::Full`] can be tried again; anything else is final.
    pub fn flush(&mut self) -> Result<Option<WriteId>, WalError> {
        self.refuse_if_unusable()?;
        while self.advance()? == Advance::NeedsSegment {
            self.prepare_here()?;
        }
        Ok(self.durable)
    }

    /// Lets a later damage to the last batch be told from a torn write. Call when idle; does nothing if that is so
    /// already.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn witness(&mut self) -> Result<(), WalError> {
        self.flush()?;
        if self.witnessed || !self.current.has_room_for_witness() {
            return Ok(());
        }
        let mut batch = self.begin();
        self.encode(|encoder| encoder.pad_to(WITNESS_BLOCK));
        batch.is_witness = true;
        self.close_batch(batch)
    }

    /// As [`Wal::read`](crate::Wal::read).
    ///
    /// # Errors
    /// As there.
    pub fn read(&self, first: LogIndex, last: LogIndex, bytes_max: usize) -> Result<Vec<Entry>, WalError> {
        read(&self.log, first, last, bytes_max)
    }

    /// As [`Wal::compact`](crate::Wal::compact), done when it returns.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn compact(&mut self, up_to: LogIndex) -> Result<(), WalError> {
        self.flush()?;
        let garbage = self.drop_prefix(up_to)?;
        let spares = garbage.collect(&*self.vfs, &self.dir);
        self.spares.extend(spares);
        Ok(())
    }

    /// As [`Wal::begin_repair`](crate::Wal::begin_repair).
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn begin_repair(&mut self) -> Result<(), WalError> {
        if let Some(error) = &self.failure {
            return Err(error.clone());
        }
        let Some(damage) = self.damage.clone() else { return Ok(()) };
        self.continue_in_new_segment(damage.promised)?;
        self.damage = None;
        Ok(())
    }

    /// The damage found at the open, until it is being repaired.
    #[must_use]
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// Figures.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
        Stats {
            segments: log.segments.len() as u64,
            segment_bytes: log.segments.iter().map(|segment| segment.file.bytes).sum(),
            log_start: log.log_start,
            last: log.last,
            full: self.full,
            fsync_p50_us: self.latencies.quantile(50),
            fsync_p99_us: self.latencies.quantile(99),
            fsync_last_us: self.latencies.last(),
            ..self.stats.clone()
        }
    }

    /// Flushes, notes that everything is durable, and lets go of the directory.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn close(mut self) -> Result<(), WalError> {
        if self.damage.is_some() {
            return Ok(());
        }
        self.witness()
    }

    pub(crate) fn refuse_if_unusable(&self) -> Result<(), WalError> {
        if let Some(error) = &self.failure {
            return Err(error.clone());
        }
        match &self.damage {
            Some(damage) => Err(WalError::Damaged(Box::new(damage.clone()))),
            None => Ok(()),
        }
    }

    /// Does `write` continue what is queued?
    fn check(&self, write: &Write) -> Result<Tip, WalError> {
        let mut tip = self.tip;
        let bad = |what, at, last| Err(WalError::Discontinuous { what, at, last });
        if write.hard_state.term < tip.term {
            return bad("a hard state of an older term", tip.last, tip.last);
        }
        tip.term = write.hard_state.term;
        if let Some(after) = write.truncate_after
            && after < tip.last
        {
            if after < tip.log_start {
                return bad("a cut before the first entry kept", after, tip.last);
            }
            // Terms never fall along the log, so the old one is a bound that is good enough here.
            (tip.last, tip.last_term) = (after, Term::ZERO);
        }
        if let Some(SnapshotMark { meta, resets_log, .. }) = write.snapshot.as_deref() {
            let bytes = record::mark_bytes(meta);
            let limit = usize::try_from(self.options.segment_bytes / 8).unwrap_or(usize::MAX);
            if bytes > limit {
                return Err(WalError::TooLarge { what: "a configuration", bytes, limit });
            }
            if *resets_log {
                if meta.last.index <= tip.mark {
                    return bad("a snapshot that is not newer resets the log", meta.last.index, tip.last);
                }
                (tip.last, tip.log_start) = (meta.last.index, meta.last.index);
                tip.last_term = meta.last.term;
            }
            tip.mark = tip.mark.max(meta.last.index);
        }
        for entry in &write.entries {
            if entry.id.index != tip.last.next() {
                return bad("an entry", entry.id.index, tip.last);
            }
            if entry.id.term < tip.last_term || entry.id.term > tip.term {
                return bad("an entry's term", entry.id.index, tip.last);
            }
            let bytes = entry.payload.len();
            if bytes > self.options.entry_bytes_max {
                let limit = self.options.entry_bytes_max;
                return Err(WalError::TooLarge { what: "an entry", bytes, limit });
            }
            (tip.last, tip.last_term) = (entry.id.index, entry.id.term);
        }
        Ok(tip)
    }

    /// Writes batches until nothing is queued or the next segment is missing.
    pub(crate) fn advance(&mut self) -> Result<Advance, WalError> {
        while !self.pending.is_empty() {
            let chain = self.chain;
            let mut batch = self.begin();
            while let Some(write) = self.pending.front() {
                let fits = self.current.room(self.buffer.len(), EntryCount::of(&write.entries))
                    >= writer::preamble_bytes(write)
                        + write.entries.iter().map(record::entry_bytes).sum::<usize>();
                let Some(write) = (if fits {
                    batch.writes = Some(write.id);
                    self.pending.pop_front()
                } else if batch.is_empty
                    && self.current.fresh
                    && self.current.file.bytes >= self.options.segment_bytes
                {
                    Some(self.split_front())
                } else {
                    None
                }) else {
                    break;
                };
                let whole = fits;
                batch.is_empty = false;
                self.encode_write(&write, &mut batch)?;
                if !whole {
                    break;
                }
            }
            if batch.is_empty {
                self.chain = chain; // Nothing of what begins a batch is written.
            } else {
                self.close_batch(batch)?;
            }
            if self.pending.is_empty() {
                break;
            }
            if self.next.is_none() {
                return Ok(Advance::NeedsSegment);
            }
            self.rotate()?;
        }
        Ok(Advance::Done)
    }

    /// Takes as much of the first queued write as an empty segment holds. Only for writes that are larger than a
    /// segment: each part keeps the log in order, and the write counts as durable with its last part.
    fn split_front(&mut self) -> Write {
        let write = self.pending.front_mut().expect("the caller looked at it");
        let mut room = self.current.room(self.buffer.len(), EntryCount::of(&write.entries))
            - writer::preamble_bytes(write);
        let mut take = 0;
        for entry in &write.entries {
            let bytes = record::entry_bytes(entry);
            if bytes > room {
                break;
            }
            room -= bytes;
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
    pub(crate) fn begin(&mut self) -> Batch {
        self.buffer.clear();
        self.ops.clear();
        let mut state = self.state;
        if let Some(header) = &self.current.unwritten_header {
            self.buffer.extend_from_slice(&header.encode());
            (state.cuts, state.cut_min) = (0, State::NEW.cut_min);
        }
        if self.current.fresh
            && let Some(mark) = self.mark.clone()
        {
            let offset = self.encode(|encoder| encoder.mark(&mark, false, true));
            self.ops.push(Op::Mark { offset });
        }
        Batch { state, is_empty: true, is_witness: false, writes: None, entries: 0 }
    }

    fn encode<T>(&mut self, record: impl FnOnce(&mut Encoder<'_>) -> T) -> T {
        let base = if self.current.unwritten_header.is_some() { 0 } else { self.current.position };
        record(&mut Encoder {
            buffer: &mut self.buffer,
            base,
            stamp: self.current.file.stamp,
            chain: &mut self.chain,
        })
    }

    /// Cut first, then the snapshot mark, then the entries.
    fn encode_write(&mut self, write: &Write, batch: &mut Batch) -> Result<(), WalError> {
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
            self.encode_mark(mark, &mut batch.state)?;
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
        Ok(())
    }

    fn encode_mark(&mut self, mark: &SnapshotMark, state: &mut State) -> Result<(), WalError> {
        let last = mark.meta.last;
        if last.index <= state.mark.index {
            // A slow snapshot that an install overtook: its file goes now or with the next compaction.
            if mark.received {
                let _ = self.vfs.remove(&self.dir.join(layout::snapshot_received(last)));
            }
            return Ok(());
        }
        if mark.received {
            // Crash before the rename is durable: no mark, the file is removed as unfinished. After: the file is in
            // place and the mark may name it.
            let from = self.dir.join(layout::snapshot_received(last));
            let to = self.dir.join(layout::snapshot(last));
            let renamed = self.vfs.rename(&from, &to);
            renamed.map_err(|error| self.poison(WalError::io("rename", &from, error)))?;
            let synced = self.vfs.sync_dir(&self.dir);
            synced.map_err(|error| self.poison(WalError::io("sync", &self.dir.clone(), error)))?;
        }
        let offset = self.encode(|encoder| encoder.mark(&mark.meta, mark.resets_log, false));
        self.ops.push(Op::Mark { offset });
        if mark.resets_log {
            self.runs.clear();
            (state.last, state.log_start) = (last, last);
            state.cuts += 1;
            state.cut_min = state.cut_min.min(last.index);
            self.ops.push(Op::Reset { to: last });
        }
        state.mark = last;
        self.mark = Some(mark.meta.clone());
        Ok(())
    }

    /// One write, one fdatasync; only then does any of it count.
    pub(crate) fn close_batch(&mut self, mut batch: Batch) -> Result<(), WalError> {
        let watermark = self.state.batch;
        batch.state.batch = (watermark + 1).max(self.batch_floor);
        let state = batch.state;
        let state = self.encode(|encoder| encoder.commit(watermark, state));
        let base = if self.current.unwritten_header.is_some() { 0 } else { self.current.position };
        let file = Arc::clone(&self.current.file);
        let written = file.file.write_at(&self.buffer, base);
        written.map_err(|error| self.poison(WalError::io("write", &file.path, error)))?;
        self.sync(&file)?;

        self.current.position = base + self.buffer.len() as u64;
        self.current.unwritten_header = None;
        self.current.fresh = false;
        self.state = state;
        self.witnessed = batch.is_witness;
        self.durable = batch.writes.or(self.durable);
        self.stats.batches += 1;
        self.stats.entries += batch.entries;
        self.stats.written_bytes += self.buffer.len() as u64;
        let mut log = self.log.write().unwrap_or_else(PoisonError::into_inner);
        log.apply(&self.ops);
        assert!(log.last == state.last.index, "the index ends at {}, the log at {}", log.last, state.last);
        Ok(())
    }

    fn sync(&mut self, file: &SegmentFile) -> Result<(), WalError> {
        let started = self.clock.map(|clock| clock());
        let synced = file.file.sync_data();
        synced.map_err(|error| self.poison(WalError::io("sync", &file.path, error)))?;
        self.stats.fsyncs += 1;
        if let (Some(started), Some(clock)) = (started, self.clock) {
            self.latencies.record(clock().saturating_sub(started));
        }
        Ok(())
    }

    /// Seals the segment and goes on to the next.
    fn rotate(&mut self) -> Result<(), WalError> {
        let next = self.next.take().expect("the caller saw that it is there");
        let salt = self.salt();
        let seal_offset = self.current.position;
        self.buffer.clear();
        let state = self.state;
        self.encode(|encoder| encoder.seal(next.number, salt, state));
        let file = Arc::clone(&self.current.file);
        let footer = {
            let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
            let index = &log.segments.last().expect("a log has a segment").index;
            footer::encode(index, file.number, self.current.salt, seal_offset, file.bytes)
        };
        let footer_at = file.bytes - footer.len() as u64;
        let end = seal_offset + self.buffer.len() as u64;
        assert!(end <= footer_at, "segment {} overflows into its footer", file.number);
        let written = file
            .file
            .write_at(&self.buffer, seal_offset)
            .and_then(|()| file.file.write_at(&footer, footer_at));
        written.map_err(|error| self.poison(WalError::io("write", &file.path, error)))?;
        self.sync(&file)?;
        self.stats.written_bytes += (self.buffer.len() + footer.len()) as u64;
        self.start_segment(next, salt, end, false, self.state);
        Ok(())
    }

    /// From here on the seal is durable: the next segment may be written.
    pub(crate) fn start_segment(
        &mut self,
        prepared: Prepared,
        salt: u128,
        previous_length: u64,
        repair: bool,
        state: State,
    ) {
        let header = SegmentHeader {
            cluster: self.options.cluster,
            node: self.options.node,
            number: prepared.number,
            salt,
            segment_bytes: prepared.bytes,
            repair,
            previous_length,
            state: State { chain: self.chain, ..state },
        };
        let file = Arc::new(SegmentFile {
            number: prepared.number,
            path: prepared.path,
            file: prepared.file,
            stamp: header.stamp(),
            bytes: prepared.bytes,
        });
        self.current = Current::start(Arc::clone(&file), header);
        let mut log = self.log.write().unwrap_or_else(PoisonError::into_inner);
        let index = SegmentIndex::new(log.last);
        log.segments.push(Segment { file, index });
    }

    /// Goes on in a new segment without sealing the last one, which cannot be continued. The new segment's header says
    /// where the log ends.
    pub(crate) fn continue_in_new_segment(&mut self, promised: LogId) -> Result<(), WalError> {
        let number = self.current.file.number + 1;
        let prepared = Job { number, bytes: self.options.segment_bytes, spare: None }
            .run(&*self.vfs, &self.dir)
            .map_err(|error| self.poison(error))?;
        let last = self.log.read().unwrap_or_else(PoisonError::into_inner).last;
        let start = self.state.log_start;
        let last = match log::term_at(&self.runs, last) {
            Some(term) if last > start.index => LogId { term, index: last },
            _ => start,
        };
        let promised = if promised > last { promised } else { LogId::ZERO };
        let state = State { last, promised, ..self.state };
        self.next = None;
        let salt = self.salt();
        self.start_segment(prepared, salt, 0, true, state);
        self.state = state;
        let batch = self.begin();
        self.close_batch(batch)?;
        self.tip = self.tip_of_state();
        Ok(())
    }

    pub(crate) fn tip_of_state(&self) -> Tip {
        Tip {
            term: self.state.hard_state.term,
            last: self.state.last.index,
            last_term: self.state.last.term,
            log_start: self.state.log_start.index,
            mark: self.state.mark.index,
        }
    }

    /// Drops segments that hold nothing behind `up_to`: first from the log, durably, then from the disk.
    ///
    /// Crash before the batch is durable: everything is still there. After: the leftovers lie before `first_segment`
    /// and the next open takes them away.
    pub(crate) fn drop_prefix(&mut self, up_to: LogIndex) -> Result<Garbage, WalError> {
        // Entries that no marked snapshot covers are never dropped.
        let up_to = up_to.min(self.state.mark.index);
        let (count, last) = {
            let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
            log.droppable(up_to)
        };
        let mut garbage = Garbage {
            snapshots_before: Some(self.state.mark.index).filter(|index| *index > LogIndex::ZERO),
            spares_wanted: (self.options.spare_segments + 1).saturating_sub(self.spares.len()),
            segment_bytes: self.options.segment_bytes,
            ..Garbage::default()
        };
        if count == 0 {
            return Ok(garbage);
        }
        if self.current.room(0, EntryCount::default()) < STATE_BYTES {
            return Ok(garbage); // No room for the note. The next segment is near; the next call has room.
        }
        let mut batch = self.begin();
        let first_kept = {
            let log = self.log.read().unwrap_or_else(PoisonError::into_inner);
            log.segments[count].file.number
        };
        batch.state.first_segment = first_kept;
        if let Some(last) = last {
            let term = log::term_at(&self.runs, last).expect("an entry that is kept has a term");
            batch.state.log_start = LogId { term, index: last };
            log::drop_runs(&mut self.runs, last);
        }
        let log_start = batch.state.log_start;
        self.close_batch(batch)?;
        self.tip.log_start = self.tip.log_start.max(log_start.index);
        let mut log = self.log.write().unwrap_or_else(PoisonError::into_inner);
        log.log_start = log_start;
        garbage.segments = log.segments.drain(..count).map(|segment| segment.file).collect();
        Ok(garbage)
    }

    /// The next segment to prepare, if none is ready.
    pub(crate) fn job(&mut self) -> Option<Job> {
        if self.next.is_some() {
            return None;
        }
        Some(Job {
            number: self.current.file.number + 1,
            bytes: self.options.segment_bytes,
            spare: self.spares.pop(),
        })
    }

    fn prepare_here(&mut self) -> Result<(), WalError> {
        let Some(job) = self.job() else { return Ok(()) };
        match job.run(&*self.vfs, &self.dir) {
            Ok(prepared) => {
                self.full = false;
                self.next = Some(prepared);
                Ok(())
            }
            Err(error @ WalError::Full { .. }) => {
                self.full = true;
                Err(error)
            }
            Err(error) => Err(self.poison(error)),
        }
    }

    pub(crate) fn poison(&mut self, error: WalError) -> WalError {
        self.failure.get_or_insert(error).clone()
    }

    pub(crate) fn salt(&mut self) -> u128 {
        salt(self.options.seed, &mut self.salts)
    }
}

/// A salt that no other segment of the directory has had.
pub(crate) fn salt(seed: u64, count: &mut u64) -> u128 {
    *count += 1;
    let high = record::mix(seed ^ record::mix(*count));
    let low = record::mix(high ^ seed.rotate_left(32));
    (u128::from(high) << 64) | u128::from(low)
}

/// A batch being encoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch {
    pub(crate) state: State,
    is_empty: bool,
    is_witness: bool,
    writes: Option<WriteId>,
    entries: u64,
}

/// Locates under the lock, reads outside of it.
pub(crate) fn read(
    log: &RwLock<Log>,
    first: LogIndex,
    last: LogIndex,
    bytes_max: usize,
) -> Result<Vec<Entry>, WalError> {
    let spans = log.read().unwrap_or_else(PoisonError::into_inner).locate(first, last, bytes_max)?;
    let entries = reader::read(&spans)?;
    if entries.is_empty()
        && let Some(file) = log.read().unwrap_or_else(PoisonError::into_inner).segments.first()
        && last >= first
    {
        return Err(WalError::corrupt(&file.file.path, 0, CorruptionKind::Record));
    }
    Ok(entries)
}

impl Garbage {
    /// Removes or sets aside what is no longer needed and returns the numbers of new spares. Failures are no harm: the
    /// next open tidies up.
    pub(crate) fn collect(self, vfs: &dyn Vfs, dir: &Path) -> Vec<u64> {
        let mut spares = Vec::new();
        for file in self.segments {
            let reusable = file.bytes == self.segment_bytes && spares.len() < self.spares_wanted;
            // Somebody still reads from it: unlinking leaves the bytes to him, recycling would not.
            if reusable && Arc::strong_count(&file) == 1 {
                if vfs.rename(&file.path, &dir.join(layout::spare(file.number))).is_ok() {
                    spares.push(file.number);
                }
            } else {
                let _ = vfs.remove(&file.path);
            }
        }
        if let Some(before) = self.snapshots_before {
            for entry in vfs.list(dir).unwrap_or_default() {
                if let layout::Name::Snapshot(id) = layout::parse(&entry.name)
                    && id.index < before
                {
                    let _ = vfs.remove(&dir.join(&entry.name));
                }
            }
        }
        // A failure here only brings back names that the next open takes away again.
        let _ = vfs.sync_dir(dir);
        spares
    }
}

//! What the log decides, as plain calls on the file-system trait: no thread, no clock.
//!
//! Two buffers: a write is encoded into the open batch as soon as it is appended, also while the batch before is in its
//! fdatasync. That one is a [`flight::Flight`], plain data, so that nobody holds the engine while the disk works.

mod batch;
mod compaction;
mod flight;

pub(crate) use self::{
    batch::Batch,
    compaction::Garbage,
    flight::{Flight, Step},
};

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
    log::{self, Log, Segment, SegmentFile},
    open::{self, DirLock},
    options::Options,
    record::{self, State},
    report::{OpenReport, Stats},
    scrub::{Scrub, ScrubReport},
    segment::{
        header::{HEADER_BYTES, SegmentHeader},
        index::{Op, SegmentIndex},
        prepare::{Job, Prepared},
        reader,
        writer::Current,
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
    /// Held until the engine is dropped or [released](Self::release_dir).
    pub(crate) lock: Option<Box<dyn fmt::Debug + Send + Sync>>,
    pub(crate) log: Arc<RwLock<Log>>,
    /// As of the last durable batch.
    pub(crate) state: State,
    /// As of the last batch that was closed; the open one continues it.
    pub(crate) written: State,
    /// Over everything encoded so far.
    pub(crate) chain: u64,
    /// The terms of the log, everything encoded so far included.
    pub(crate) runs: Vec<TermRun>,
    pub(crate) mark: Option<SnapshotMeta>,
    pub(crate) current: Current,
    pub(crate) next: Option<Prepared>,
    /// Files that wait to become segments, by the number in their names.
    pub(crate) spares: Vec<u64>,
    pub(crate) salts: u64,
    /// Where the log will end once everything queued is written.
    pub(crate) tip: Tip,
    /// What could not be encoded yet: it needs the next segment, or the open batch is full.
    pub(crate) pending: VecDeque<Queued>,
    /// The batch being encoded, in `buffer` and `ops`.
    pub(crate) open: Option<Batch>,
    /// A flight was started and has not been heard of.
    pub(crate) in_flight: bool,
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
    /// The other pair, while no flight has it.
    pub(crate) idle_buffer: Vec<u8>,
    pub(crate) idle_ops: Vec<Op>,
    /// What compactions left to be tidied up.
    pub(crate) garbage: Vec<Garbage>,
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

/// Waits for its turn.
#[derive(Debug)]
pub(crate) enum Queued {
    Write(Write),
    /// Drop what lies at or before this entry.
    Drop(LogIndex),
}

impl Engine {
    /// Opens the log in `dir`, founding it if the directory is empty.
    ///
    /// # Errors
    /// As [`Wal::open_with`](crate::Wal::open_with).
    pub fn open(vfs: Arc<dyn Vfs>, dir: &Path, options: Options) -> Result<(Engine, OpenReport), WalError> {
        open::open(vfs, dir, options)
    }

    /// As [`Wal::open_locked`](crate::Wal::open_locked).
    ///
    /// # Errors
    /// As there.
    pub fn open_locked(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        options: Options,
        lock: DirLock,
    ) -> Result<(Engine, OpenReport), WalError> {
        open::open_locked(vfs, dir, options, lock)
    }

    /// Queues a write for the next [`flush`](Self::flush).
    ///
    /// # Errors
    /// A write that does not continue the log or is too large changes nothing.
    pub fn append(&mut self, write: &Write) -> Result<(), WalError> {
        self.refuse_if_unusable()?;
        self.tip = self.check(write)?;
        if !self.pending.is_empty() || !self.encode_if_it_fits(write) {
            self.pending.push_back(Queued::Write(write.clone()));
        }
        Ok(())
    }

    /// Makes everything queued durable and tells the last durable write; `None` if there was none since the open.
    ///
    /// # Errors
    /// [`WalError::Full`] can be tried again; anything else is final.
    pub fn flush(&mut self) -> Result<Option<WriteId>, WalError> {
        self.refuse_if_unusable()?;
        while !self.fly()? {
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
        let flushed = self.flush();
        if matches!(flushed, Ok(_) | Err(WalError::Full { .. }))
            && let Some(flight) = self.start_witness()
        {
            self.land(*flight)?;
        }
        flushed.map(drop)
    }

    /// As [`Wal::read`](crate::Wal::read).
    ///
    /// # Errors
    /// As there.
    pub fn read(&self, first: LogIndex, last: LogIndex, bytes_max: usize) -> Result<Vec<Entry>, WalError> {
        read(&self.log, first, last, bytes_max)
    }

    /// Reads every entry of the sealed segments that no scrub has read since the open, and tells what it found.
    pub fn scrub(&self) -> ScrubReport {
        let (mut scrub, mut report) = (Scrub::default(), ScrubReport::default());
        while scrub.step(&self.log, &mut report) {}
        report
    }

    /// As [`Wal::compact`](crate::Wal::compact), done when it returns.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn compact(&mut self, up_to: LogIndex) -> Result<(), WalError> {
        self.refuse_if_unusable()?;
        self.drop_prefix(up_to);
        let flushed = self.flush();
        let is_full = matches!(flushed, Err(WalError::Full { .. }));
        if flushed.is_err() && !is_full {
            return flushed.map(drop);
        }
        let dropped = std::mem::take(&mut self.garbage);
        let made_room = !dropped.is_empty();
        for garbage in dropped {
            match garbage.collect(&*self.vfs, &self.dir) {
                Ok(spares) => self.spares.extend(spares),
                Err(error) => return Err(self.poison(error)),
            }
        }
        let flushed = if made_room && is_full { self.flush() } else { flushed };
        flushed.map(drop)
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

    /// Lets go of the directory; nothing may be written any more.
    pub(crate) fn release_dir(&mut self) {
        drop(self.lock.take());
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

    /// Whether the last batch could still get a witness.
    pub(crate) fn wants_witness(&self) -> bool {
        !self.witnessed && self.current.has_room_for_witness()
    }

    /// Gives back the memory of a burst.
    pub(crate) fn shrink(&mut self) {
        // What the last flight carried still stands in them.
        self.idle_buffer.clear();
        self.idle_ops.clear();
        for buffer in [&mut self.buffer, &mut self.idle_buffer] {
            buffer.shrink_to(BUFFER_BYTES_AT_REST);
        }
        for ops in [&mut self.ops, &mut self.idle_ops] {
            ops.shrink_to(OPS_AT_REST);
        }
        self.pending.shrink_to(OPS_AT_REST);
        self.log.read().unwrap_or_else(PoisonError::into_inner).maps.forget();
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
            if meta.last.index.0 > record::COUNT_MAX {
                return bad("a snapshot beyond all counting", meta.last.index, tip.last);
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
            if entry.id.index != tip.last.next() || entry.id.index.0 > record::COUNT_MAX {
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
        let file =
            SegmentFile::new(prepared.number, prepared.path, prepared.file, header.stamp(), prepared.bytes);
        self.current = Current::start(Arc::clone(&file), header);
        let mut log = self.log.write().unwrap_or_else(PoisonError::into_inner);
        let index = SegmentIndex::new(log.last);
        log.segments.push(Segment { file, index });
    }

    /// Goes on in a new segment without sealing the last one, which cannot be continued. The new segment's header says
    /// where the log ends.
    pub(crate) fn continue_in_new_segment(&mut self, promised: LogId) -> Result<(), WalError> {
        let number = self.current.file.number + 1;
        let job = Job::alone(number, self.options.segment_bytes);
        let prepared = job.run(&*self.vfs, &self.dir).map_err(|error| self.poison_unless_full(error))?;
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
        (self.state, self.written) = (state, state);
        // By itself and first: no seal tells of this segment, so a record in it has to prove that there was a header.
        self.write_header().map_err(|error| self.poison(error))?;
        self.write_empty_batch()?;
        self.tip = self.tip_of_state();
        Ok(())
    }

    fn write_header(&mut self) -> Result<(), WalError> {
        let Some(header) = self.current.unwritten_header.take() else { return Ok(()) };
        let SegmentFile { file, path, .. } = &*self.current.file;
        file.write_at(&header.encode(), 0).map_err(|error| WalError::io("write", path, error))?;
        file.sync_data().map_err(|error| WalError::io("sync", path, error))?;
        self.current.position = HEADER_BYTES as u64;
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

    /// The next segment to prepare, if none is ready.
    pub(crate) fn job(&mut self, beside_appends: bool) -> Option<Job> {
        if self.next.is_some() {
            return None;
        }
        Some(Job {
            number: self.current.file.number + 1,
            bytes: self.options.segment_bytes,
            spare: self.spares.pop(),
            beside_appends,
        })
    }

    fn prepare_here(&mut self) -> Result<(), WalError> {
        let Some(job) = self.job(false) else { return Ok(()) };
        match job.run(&*self.vfs, &self.dir) {
            Ok(prepared) => {
                self.full = false;
                self.next = Some(prepared);
                Ok(())
            }
            Err(error) => {
                self.full = matches!(error, WalError::Full { .. });
                Err(self.poison_unless_full(error))
            }
        }
    }

    fn poison_unless_full(&mut self, error: WalError) -> WalError {
        if matches!(error, WalError::Full { .. }) { error } else { self.poison(error) }
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

/// What the buffers keep when nothing happens.
const BUFFER_BYTES_AT_REST: usize = 64 << 10;
const OPS_AT_REST: usize = 1024;

/// Locates under the lock, reads outside of it.
pub(crate) fn read(
    log: &RwLock<Log>,
    first: LogIndex,
    last: LogIndex,
    bytes_max: usize,
) -> Result<Vec<Entry>, WalError> {
    if first == last
        && let Some((file, slot)) = log.read().unwrap_or_else(PoisonError::into_inner).locate_one(first)
    {
        return Ok(vec![reader::read_one(&file, slot, first)?]);
    }
    let (spans, maps) = {
        let log = log.read().unwrap_or_else(PoisonError::into_inner);
        (log.locate(first, last, bytes_max)?, Arc::clone(&log.maps))
    };
    let entries = reader::read(&spans, Some(&maps))?;
    if entries.is_empty()
        && let Some(file) = log.read().unwrap_or_else(PoisonError::into_inner).segments.first()
        && last >= first
    {
        return Err(WalError::corrupt(&file.file.path, 0, CorruptionKind::Record));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests;

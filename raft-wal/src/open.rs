//! Opening: founds a log, or acts on what the survey of an existing one found.

use std::{
    io,
    path::Path,
    sync::{Arc, RwLock},
};

use raft_core::{ConfState, Entry, LogId, LogIndex, Recovered, SnapshotMeta};

use crate::{
    engine::{Engine, Tip, read, salt},
    error::{CorruptionKind, WalError},
    latency::Latencies,
    layout,
    log::{Log, Segment, SegmentFile},
    options::Options,
    record::State,
    recovery::Ending,
    report::{OpenReport, Stats, Torn},
    segment::{
        footer,
        header::{HEADER_BYTES, SegmentHeader},
        index::SegmentIndex,
        prepare::{Job, Prepared},
        reader,
        writer::Current,
    },
    survey::{Names, Survey, Tail, survey},
    vfs::Vfs,
};

/// What [`Vfs::lock`] gives: the directory is ours for as long as it lives.
pub type DirLock = Box<dyn std::fmt::Debug + Send + Sync>;

pub(crate) fn open(
    vfs: Arc<dyn Vfs>,
    dir: &Path,
    options: Options,
) -> Result<(Engine, OpenReport), WalError> {
    options.validate()?;
    vfs.create_dir_all(dir).map_err(|error| WalError::io("create", dir, error))?;
    let lock = lock(&*vfs, dir)?;
    open_locked(vfs, dir, options, lock)
}

pub(crate) fn open_locked(
    vfs: Arc<dyn Vfs>,
    dir: &Path,
    options: Options,
    lock: DirLock,
) -> Result<(Engine, OpenReport), WalError> {
    options.validate()?;
    // Shared by both attempts: nobody else may come in between.
    let lock = Arc::new(lock);
    match open_once(Arc::clone(&vfs), dir, options.clone(), Box::new(Arc::clone(&lock))) {
        // A sealed segment whose footer fits, and an entry in it that is needed now and does not: look at everything, so
        // that the hole is told with all its bounds.
        Err(WalError::Corrupt(_)) if !options.verify_on_open => {
            open_once(vfs, dir, Options { verify_on_open: true, ..options }, Box::new(lock))
        }
        outcome => outcome,
    }
}

fn open_once(
    vfs: Arc<dyn Vfs>,
    dir: &Path,
    options: Options,
    lock: DirLock,
) -> Result<(Engine, OpenReport), WalError> {
    let names = Names::list(&*vfs, dir)?;
    let owner = Some((options.cluster, options.node));
    let surveyed = survey(&*vfs, dir, names, owner, options.verify_on_open, true)?;
    let opening = Opening { vfs, dir, options, lock };
    match surveyed {
        Err(names) => opening.found(names),
        Ok(survey) if survey.damage.is_some() => opening.damaged(survey),
        Ok(survey) => opening.resume(survey),
    }
}

pub(crate) fn lock(vfs: &dyn Vfs, dir: &Path) -> Result<DirLock, WalError> {
    vfs.lock(dir).map_err(|error| {
        if error.kind() == io::ErrorKind::WouldBlock {
            WalError::InUse { path: dir.to_owned() }
        } else {
            WalError::io("lock", dir, error)
        }
    })
}

struct Opening<'a> {
    vfs: Arc<dyn Vfs>,
    dir: &'a Path,
    options: Options,
    lock: DirLock,
}

impl Opening<'_> {
    /// A directory without a log: the first segment, with one batch that says so.
    ///
    /// Crash before that is durable: nothing was acknowledged, and the next open founds anew.
    fn found(self, names: Names) -> Result<(Engine, OpenReport), WalError> {
        self.remove_temporaries(&names)?;
        for spare in names.spares.keys() {
            let _ = self.vfs.remove(&self.dir.join(layout::spare(*spare)));
        }
        let job = Job::alone(1, self.options.segment_bytes);
        let prepared = job.run(&*self.vfs, self.dir)?;
        let mut salts = 0;
        let salt = salt(self.options.seed, &mut salts);
        let header = self.header(&prepared, salt, 0, State::NEW);
        let (file, current) = first_batch(prepared, header);
        let index = SegmentIndex::new(LogIndex::ZERO);
        let log = Log {
            segments: vec![Segment { file, index }],
            log_start: LogId::ZERO,
            last: LogIndex::ZERO,
            maps: Arc::default(),
        };
        let founding = self.options.founding.clone();
        let mut engine = self.engine(log, State::NEW, 0, None, current, salts);
        engine.write_empty_batch()?;
        let report = OpenReport {
            recovered: Recovered::fresh(founding),
            torn: None,
            damaged: None,
            rebuilt: Vec::new(),
            unknown_files: names.unknown,
            snapshots: Vec::new(),
            segments: 1,
            founded: true,
        };
        Ok((engine, report))
    }

    /// Changes nothing: a cut would be the loss of what was acknowledged. Unless all that is missing is what a repair has not
    /// refilled yet: then what it has is about to count, and may be in the page cache only.
    fn damaged(self, survey: Survey) -> Result<(Engine, OpenReport), WalError> {
        let Survey { names, log, tail, state, mark, damage, notes, refilling, .. } = survey;
        let mut torn = None;
        if refilling {
            configurations(self.dir, &log)?;
            torn = self.settle(&last_segment(&log).file, &tail)?;
        }
        let current = Current {
            file: Arc::clone(&last_segment(&log).file),
            unwritten_header: None,
            salt: tail.header.salt,
            position: tail.scan.end,
            fresh: false,
            sealed: false,
            slots: 0,
            runs: 0,
            confs: 0,
        };
        let mut engine = self.engine(log, state, tail.scan.chain, mark, current, 0);
        engine.damage.clone_from(&damage);
        let recovered = recovered(&engine)?;
        let segments = names.segments.len();
        let report = OpenReport {
            recovered,
            torn,
            damaged: damage,
            rebuilt: notes,
            unknown_files: names.unknown,
            snapshots: names.snapshots,
            segments,
            founded: false,
        };
        Ok((engine, report))
    }

    fn resume(self, survey: Survey) -> Result<(Engine, OpenReport), WalError> {
        let Survey { mut names, log, tail, state, mark, notes, tail_unusable, .. } = survey;
        let file = Arc::clone(&last_segment(&log).file);
        if !tail_unusable && !ends_as_told(&log, state.last.index) {
            // Every checksum fits, and together they cannot have been written by us.
            return Err(WalError::corrupt(&file.path, 0, CorruptionKind::Record));
        }
        configurations(self.dir, &log)?;
        self.remove_temporaries(&names)?;
        self.restore_headers(&log, &survey.unfit_headers, &survey.lost_headers)?;
        let torn = if tail_unusable { None } else { self.settle(&file, &tail)? };
        let current = match tail.scan.ending {
            Ending::Sealed { next_number, next_salt, .. } => {
                let next = self.next_of_sealed(&mut names, next_number)?;
                let header = SegmentHeader {
                    previous_length: tail.scan.end,
                    ..self.header(&next, next_salt, 0, State { chain: tail.scan.chain, ..state })
                };
                Some(first_batch(next, header))
            }
            Ending::Clean | Ending::Torn { .. } | Ending::Damaged(_) => {
                self.set_aside(&mut names, file.number + 1)?;
                None
            }
        };
        let mut log = log;
        let current = match current {
            Some((file, current)) => {
                let index = SegmentIndex::new(log.last);
                log.segments.push(Segment { file, index });
                current
            }
            None => {
                let index = &last_segment(&log).index;
                Current {
                    unwritten_header: None,
                    salt: tail.header.salt,
                    position: tail.scan.end,
                    fresh: tail.scan.closed == 0,
                    sealed: false,
                    slots: index.slots.len(),
                    runs: index.runs.len(),
                    confs: index.confs.len(),
                    file,
                }
            }
        };
        let keep: Vec<u64> = log.segments.iter().map(|segment| segment.file.number).collect();
        let spares = self.tidy(&names, &keep, current.file.number, state);
        let segments = log.segments.len();
        let snapshots = self.tidy_snapshots(&names, state.mark);
        let mut engine = self.engine(log, state, tail.scan.chain, mark, current, 0);
        engine.spares = spares;
        if tail_unusable {
            engine.continue_in_new_segment(state.promised)?;
        }
        let report = OpenReport {
            recovered: recovered(&engine)?,
            torn,
            damaged: None,
            rebuilt: notes,
            unknown_files: names.unknown,
            snapshots,
            segments,
            founded: false,
        };
        Ok((engine, report))
    }

    /// Writes copies of headers that do not fit once more, from the other copy or from what the seal before tells, so that the
    /// next bad byte finds two again.
    ///
    /// Crash meanwhile: the other copy stands in another sector and is not touched; and the seal stays.
    fn restore_headers(
        &self,
        log: &Log,
        unfit: &[(u64, u64, SegmentHeader)],
        lost: &[SegmentHeader],
    ) -> Result<(), WalError> {
        let copies = unfit.iter().map(|(number, at, header)| (*number, *at, header.encode_copy()));
        let whole = lost.iter().map(|header| (header.number, 0, header.encode()));
        for (number, at, bytes) in copies.chain(whole) {
            let segment = log.segments.iter().map(|segment| &segment.file).find(|file| file.number == number);
            let Some(SegmentFile { file, path, .. }) = segment.map(|file| &**file) else { continue };
            file.write_at(&bytes, at).map_err(|error| WalError::io("write", path, error))?;
            file.sync_data().map_err(|error| WalError::io("sync", path, error))?;
        }
        Ok(())
    }

    /// Makes what the scan believed durable (rule 0), and cuts off an unfinished write.
    ///
    /// What a scan finds may be in the page cache only: after a killed process it was never synced, after a failed
    /// fdatasync its pages count as clean and another sync does nothing. So it is written again, in place, before it
    /// counts. Writing the same bytes twice is safe at any crash.
    fn settle(&self, file: &SegmentFile, tail: &Tail) -> Result<Option<Torn>, WalError> {
        let scan = &tail.scan;
        let write = |bytes: &[u8], at: u64| {
            file.file.write_at(bytes, at).map_err(|error| WalError::io("write", &file.path, error))
        };
        let mut torn = None;
        if let Ending::Torn { to } = scan.ending {
            let range = slice(&tail.bytes, scan.end, to);
            let name = self.dir.join(layout::torn(file.number, scan.end));
            let kept = self.keep_aside(&name, range).then_some(name);
            write(&vec![0; range.len()], scan.end)?;
            let (path, bytes) = (file.path.clone(), range.len() as u64);
            torn = Some(Torn { path, offset: scan.end, bytes, kept });
        }
        if scan.rewrite_from == HEADER_BYTES as u64 || tail.header_lost {
            write(&tail.header.encode(), 0)?;
        }
        write(slice(&tail.bytes, scan.rewrite_from, scan.end), scan.rewrite_from)?;
        if let Ending::Sealed { seal_offset, .. } = scan.ending {
            let bytes = footer::encode(&scan.index, file.number, tail.header.salt, seal_offset, file.bytes);
            write(&bytes, file.bytes - bytes.len() as u64)?;
        }
        file.file.sync_data().map_err(|error| WalError::io("sync", &file.path, error))?;
        self.vfs.sync_dir(self.dir).map_err(|error| WalError::io("sync", self.dir, error))?;
        Ok(torn)
    }

    /// For whoever wants to look at them. No room for that is no reason not to start.
    fn keep_aside(&self, path: &Path, bytes: &[u8]) -> bool {
        let _ = self.vfs.remove(path);
        let kept = self.vfs.create(path).and_then(|file| {
            file.write_at(bytes, 0)?;
            file.sync_data()
        });
        if kept.is_err() {
            let _ = self.vfs.remove(path);
        }
        kept.is_ok()
    }

    /// The segment that a seal names, made anew, from a spare if there is one. The file that is there may have traces of an
    /// unfinished first write, under the very salt that the first batch will have; and its name may be in the cache only,
    /// if the open that gave it failed to sync the directory.
    fn next_of_sealed(&self, names: &mut Names, number: u64) -> Result<Prepared, WalError> {
        let fits = |(_, length): &(&u64, &u64)| **length == self.options.segment_bytes;
        let spare = names.spares.iter().find(fits).map(|(spare, _)| *spare);
        if let Some(spare) = spare {
            names.spares.remove(&spare);
        }
        Job { spare, ..Job::alone(number, self.options.segment_bytes) }.run(&*self.vfs, self.dir)
    }

    /// Makes spares of the segments from `first` on, which were prepared and not used yet.
    ///
    /// Their names may be in the cache only, and no sync would save them, if the one that was to do so failed and the
    /// process was started again. Nothing may be acknowledged that rests on such a name: it is given anew when the file
    /// is prepared again. A crash meanwhile costs a file without content; the highest goes first, and durably, for a
    /// hole in the numbers would look like a lost segment.
    fn set_aside(&self, names: &mut Names, first: u64) -> Result<(), WalError> {
        let unused = names.segments.split_off(&first);
        for (number, length) in unused.into_iter().rev() {
            let (from, to) = (layout::segment(number), layout::spare(number));
            let from = self.dir.join(from);
            self.vfs
                .rename(&from, &self.dir.join(to))
                .map_err(|error| WalError::io("rename", &from, error))?;
            if number > first {
                self.vfs.sync_dir(self.dir).map_err(|error| WalError::io("sync", self.dir, error))?;
            }
            names.spares.insert(number, length);
        }
        Ok(())
    }

    fn header(&self, prepared: &Prepared, salt: u128, previous_length: u64, state: State) -> SegmentHeader {
        SegmentHeader {
            cluster: self.options.cluster,
            node: self.options.node,
            number: prepared.number,
            salt,
            segment_bytes: prepared.bytes,
            repair: false,
            previous_length,
            state,
        }
    }

    fn remove_temporaries(&self, names: &Names) -> Result<(), WalError> {
        for name in &names.temporaries {
            let path = self.dir.join(name);
            self.vfs.remove(&path).map_err(|error| WalError::io("remove", &path, error))?;
        }
        Ok(())
    }

    /// Removes segments that a compaction left behind and prepared ones that do not fit, and keeps the spares wanted.
    fn tidy(&self, names: &Names, keep: &[u64], current: u64, state: State) -> Vec<u64> {
        // A prepared segment behind the current one, or one before the log's first. What lies between is damaged, although
        // it costs no entry: that is for somebody to look at.
        let goes =
            |number: &u64| !keep.contains(number) && (*number < state.first_segment || *number > current);
        for number in names.segments.keys().filter(|number| goes(number)) {
            // A failure is harmless.
            let _ = self.vfs.remove(&self.dir.join(layout::segment(*number)));
        }
        let mut spares = Vec::new();
        for (number, length) in &names.spares {
            if *length == self.options.segment_bytes && spares.len() <= self.options.spare_segments {
                spares.push(*number);
            } else {
                let _ = self.vfs.remove(&self.dir.join(layout::spare(*number)));
            }
        }
        spares
    }

    /// Snapshots behind the marked one were never part of the log's history; older ones go at a compaction.
    fn tidy_snapshots(&self, names: &Names, mark: LogId) -> Vec<LogId> {
        let (stale, kept): (Vec<LogId>, Vec<LogId>) =
            names.snapshots.iter().partition(|id| id.index >= mark.index && **id != mark);
        for id in stale {
            let _ = self.vfs.remove(&self.dir.join(layout::snapshot(id)));
        }
        kept
    }

    fn engine(
        self,
        log: Log,
        state: State,
        chain: u64,
        mark: Option<SnapshotMeta>,
        current: Current,
        salts: u64,
    ) -> Engine {
        let mut engine = Engine {
            runs: log.term_runs(),
            vfs: self.vfs,
            dir: self.dir.to_owned(),
            options: self.options,
            lock: Some(self.lock),
            log: Arc::new(RwLock::new(log)),
            state,
            written: state,
            chain,
            mark,
            current,
            next: None,
            spares: Vec::new(),
            salts,
            tip: Tip {
                term: state.hard_state.term,
                last: LogIndex::ZERO,
                last_term: state.last.term,
                log_start: LogIndex::ZERO,
                mark: LogIndex::ZERO,
            },
            pending: std::collections::VecDeque::new(),
            durable: None,
            witnessed: false,
            damage: None,
            failure: None,
            batch_floor: state.batch + 2,
            clock: None,
            latencies: Latencies::default(),
            buffer: Vec::new(),
            ops: Vec::new(),
            open: None,
            in_flight: false,
            idle_buffer: Vec::new(),
            idle_ops: Vec::new(),
            garbage: Vec::new(),
            stats: Stats::default(),
            full: false,
        };
        engine.tip = engine.tip_of_state();
        engine
    }
}

/// Whether the entries found end where the newest state says, in the index of the last segment too.
fn ends_as_told(log: &Log, last: LogIndex) -> bool {
    let index = &last_segment(log).index;
    log.last == last && if index.is_empty() { index.first == last.next() } else { index.last() == last }
}

fn last_segment(log: &Log) -> &Segment {
    log.segments.last().expect("a log has a segment")
}

fn slice(bytes: &[u8], from: u64, to: u64) -> &[u8] {
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
    bytes.get(place(from)..place(to)).unwrap_or_default()
}

fn first_batch(prepared: Prepared, header: SegmentHeader) -> (Arc<SegmentFile>, Current) {
    let stamp = header.stamp();
    let file = SegmentFile::new(prepared.number, prepared.path, prepared.file, stamp, prepared.bytes);
    (Arc::clone(&file), Current::start(file, header))
}

/// The configurations that the log holds. Read before anything is written, for one that cannot be read is a refusal.
fn configurations(dir: &Path, log: &Log) -> Result<Vec<(LogId, ConfState)>, WalError> {
    let ids = log.segments.iter().flat_map(|segment| segment.index.confs.iter().copied());
    let kept = ids.filter(|id| id.index > log.log_start.index && id.index <= log.last);
    let conf = |id: LogId| {
        let entry = reader::read(&log.locate(id.index, id.index, usize::MAX)?, None)?;
        let conf = entry.first().and_then(|entry| ConfState::decode(&entry.payload).ok());
        conf.map(|conf| (id, conf)).ok_or_else(|| WalError::corrupt(dir, 0, CorruptionKind::Payload(id)))
    };
    kept.map(conf).collect()
}

/// What the core starts from.
fn recovered(engine: &Engine) -> Result<Recovered, WalError> {
    let state = engine.state;
    let (last, confs) = {
        let log = engine.log.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        (log.last, configurations(&engine.dir, &log)?)
    };
    let snapshot = engine
        .mark
        .clone()
        .unwrap_or_else(|| SnapshotMeta { conf: engine.options.founding.clone(), ..SnapshotMeta::default() });
    Ok(Recovered {
        hard_state: state.hard_state,
        snapshot,
        log_start: state.log_start,
        last,
        term_runs: engine.runs.clone(),
        confs,
        tail: tail(engine, state.log_start.index, last)?,
        promised: engine.damage().map(|damage| damage.promised),
        // Snapshot files are read by whoever restores from them.
        snapshot_lost: false,
    })
}

fn tail(engine: &Engine, start: LogIndex, last: LogIndex) -> Result<Vec<Entry>, WalError> {
    let first = {
        let log = engine.log.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut bytes = 0;
        let mut first = last.next();
        'segments: for segment in log.segments.iter().rev() {
            for slot in segment.index.slots.iter().rev() {
                bytes += slot.bytes as usize + raft_core::ENTRY_OVERHEAD_BYTES;
                // The last entry always: the core takes replicated time from it.
                if first <= start.next() || (first <= last && bytes > engine.options.tail_bytes) {
                    break 'segments;
                }
                first = first.prev();
            }
        }
        first
    };
    if first > last {
        return Ok(Vec::new());
    }
    read(&engine.log, first, last, usize::MAX)
}

#[cfg(test)]
mod tests {
    use raft_core::LogId;

    use super::*;
    use crate::log::tests::segment;

    // Either of the two would trip over an assertion at the first append.
    #[test]
    fn a_log_ends_where_its_state_and_its_last_segment_say() {
        let ends = |before: u64, entries: u64, log_last: u64, told: u64| {
            let segments = vec![segment(1, before + 1..before + 1 + entries)];
            let (log_start, last) = (LogId::ZERO, LogIndex(log_last));
            ends_as_told(&Log { segments, log_start, last, maps: Arc::default() }, LogIndex(told))
        };
        assert!(ends(3, 2, 5, 5) && ends(5, 0, 5, 5) && ends(0, 0, 0, 0));
        assert!(!ends(3, 2, 5, 6) && !ends(3, 2, 6, 5) && !ends(3, 3, 5, 5));
        assert!(!ends(4, 0, 5, 5) && !ends(5, 0, 6, 5));
    }
}

//! Small builders, and a disk that fails on command.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use raft_core::{
    ClusterId, ConfState, Entries, Entry, EntryKind, HardState, LogId, LogIndex, Member, NodeId,
    SnapshotMark, SnapshotMeta, Term, Timestamp, Write, WriteId,
};
use raft_wal::{
    Engine, OpenReport, Options, SEGMENT_BYTES_MIN, WalError,
    snapshot_file::SnapshotWriter,
    vfs::{DirEntry, OsVfs, Vfs, VfsFile},
};

pub(crate) const SEGMENT: u64 = SEGMENT_BYTES_MIN;
/// Whoever waits longer waits in vain.
pub(crate) const SOON: std::time::Duration = std::time::Duration::from_secs(20);

pub(crate) fn options() -> Options {
    let founding = ConfState::of_voters([(NodeId(1), Member::default())]);
    Options::new(ClusterId(7), NodeId(1), founding).with_segment_bytes(SEGMENT)
}

pub(crate) fn open(dir: &Path) -> (Engine, OpenReport) {
    Engine::open(Arc::new(OsVfs), dir, options()).unwrap()
}

pub(crate) fn open_error(dir: &Path, options: Options) -> WalError {
    Engine::open(Arc::new(OsVfs), dir, options).unwrap_err()
}

pub(crate) fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let payload: Vec<u8> = (0..bytes).map(|n| (n as u64 * 31 + index * 7 + term) as u8 | 1).collect();
    let payload = Bytes::from(payload);
    Entry {
        id: LogId::new(term, index),
        time: Timestamp(1000 + index),
        session: None,
        kind: EntryKind::Command,
        checksum: Entry::checksum_of(&payload),
        payload,
    }
}

/// Makes consecutive writes.
#[derive(Default)]
pub(crate) struct Writes {
    pub(crate) id: u64,
}

impl Writes {
    pub(crate) fn next(&mut self, term: u64, entries: Vec<Entry>) -> Write {
        self.id += 1;
        let commit = entries.first().map_or(LogIndex::ZERO, |entry| entry.id.index.prev());
        Write {
            id: WriteId(self.id),
            hard_state: HardState { term: Term(term), vote: Some(NodeId(1)), commit },
            truncate_after: None,
            snapshot: None,
            entries: Entries::from(entries),
        }
    }

    pub(crate) fn append(&mut self, term: u64, first: u64, count: u64, bytes: usize) -> Write {
        self.next(term, (first..first + count).map(|index| entry(term, index, bytes)).collect())
    }

    pub(crate) fn cut(&mut self, term: u64, after: u64, first: u64, count: u64, bytes: usize) -> Write {
        let mut write = self.append(term, first, count, bytes);
        write.truncate_after = Some(LogIndex(after));
        write
    }

    pub(crate) fn mark(&mut self, term: u64, last: LogId, received: bool, resets_log: bool) -> Write {
        let mut write = self.next(term, Vec::new());
        write.snapshot = Some(Box::new(SnapshotMark { meta: meta(last), received, resets_log }));
        write
    }
}

pub(crate) fn meta(last: LogId) -> SnapshotMeta {
    let member = |id| (NodeId(id), Member { address: format!("host{id}:7402"), ..Member::default() });
    SnapshotMeta {
        last,
        time: Timestamp(99),
        conf: ConfState::of_voters([member(1), member(2), member(3)]),
        conf_id: LogId::new(1, 1),
    }
}

/// A whole snapshot file, in place and synced.
pub(crate) fn snapshot_file(vfs: Arc<dyn Vfs>, dir: &Path, last: LogId) {
    let mut writer = SnapshotWriter::create(vfs, dir, options().cluster, &meta(last)).unwrap();
    std::io::Write::write_all(&mut writer, &[5; 300]).unwrap();
    writer.finish().unwrap();
}

pub(crate) fn write(engine: &mut Engine, write: &Write) {
    engine.append(write).unwrap();
    assert_eq!(engine.flush().unwrap(), Some(write.id));
}

/// Everything the log holds, by reading it.
pub(crate) fn contents(engine: &Engine) -> Vec<Entry> {
    let stats = engine.stats();
    let first = stats.log_start.index.next();
    if first > stats.last {
        return Vec::new();
    }
    engine.read(first, stats.last, usize::MAX).unwrap()
}

pub(crate) fn expect(
    term_at: impl Fn(u64) -> u64,
    range: std::ops::RangeInclusive<u64>,
    bytes: usize,
) -> Vec<Entry> {
    range.map(|index| entry(term_at(index), index, bytes)).collect()
}

pub(crate) fn segment(dir: &Path, number: u64) -> PathBuf {
    dir.join(raft_wal::layout::segment(number))
}

pub(crate) fn patch(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    #[expect(clippy::disallowed_methods, reason = "the test plays a disk that changes bytes")]
    std::fs::write(path, bytes).unwrap();
}

/// Where the payload of entry `index` of `term` begins.
pub(crate) fn payload_at(segment: &[u8], term: u64, index: u64, bytes: usize) -> usize {
    let payload = entry(term, index, bytes).payload;
    segment.windows(bytes).position(|window| window == &payload[..]).unwrap()
}

/// Flips a bit in that payload.
pub(crate) fn damage_payload(path: &Path, index: u64, bytes: usize) {
    patch(path, |segment| {
        let at = payload_at(segment, 1, index, bytes);
        segment[at] ^= 1;
    });
}

/// The operating system's files, until the n-th operation of a kind, which fails once; what comes later succeeds, so
/// that a retry would be seen.
#[derive(Debug)]
pub(crate) struct FailingVfs {
    pub(crate) plan: Arc<Plan>,
}

#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) writes: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) dir_syncs: AtomicU64,
    pub(crate) renames: AtomicU64,
    /// Fail when the counter reaches this; 0 never.
    pub(crate) fail_write: AtomicU64,
    pub(crate) fail_sync: AtomicU64,
    pub(crate) fail_dir_sync: AtomicU64,
    pub(crate) fail_rename: AtomicU64,
    /// Allocations fail for want of space while this is not 0.
    pub(crate) full: AtomicU64,
    /// How many did.
    pub(crate) refused: AtomicU64,
    /// Opening this file is refused, as to somebody without permission.
    pub(crate) denied: Mutex<Option<PathBuf>>,
}

fn count(counter: &AtomicU64, fail: &AtomicU64) -> io::Result<()> {
    let count = counter.fetch_add(1, Ordering::SeqCst) + 1;
    if count == fail.load(Ordering::SeqCst) { Err(io::Error::other("injected")) } else { Ok(()) }
}

impl Vfs for FailingVfs {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        OsVfs.create_dir_all(dir)
    }
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn fmt::Debug + Send + Sync>> {
        OsVfs.lock(dir)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        OsVfs.list(dir)
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(FailingFile { file: OsVfs.create(path)?, plan: Arc::clone(&self.plan) }))
    }
    fn open(&self, path: &Path, write: bool) -> io::Result<Arc<dyn VfsFile>> {
        if self.plan.denied.lock().unwrap().as_deref() == Some(path) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(Arc::new(FailingFile { file: OsVfs.open(path, write)?, plan: Arc::clone(&self.plan) }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        count(&self.plan.renames, &self.plan.fail_rename)?;
        OsVfs.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        OsVfs.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        count(&self.plan.dir_syncs, &self.plan.fail_dir_sync)?;
        OsVfs.sync_dir(dir)
    }
}

#[derive(Debug)]
struct FailingFile {
    file: Arc<dyn VfsFile>,
    plan: Arc<Plan>,
}

impl VfsFile for FailingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        count(&self.plan.writes, &self.plan.fail_write)?;
        self.file.write_at(bytes, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        count(&self.plan.syncs, &self.plan.fail_sync)?;
        self.file.sync_data()
    }
    fn allocate(&self, length: u64) -> io::Result<()> {
        if self.plan.full.load(Ordering::SeqCst) != 0 {
            self.plan.refused.fetch_add(1, Ordering::SeqCst);
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.allocate(length)
    }
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }
}

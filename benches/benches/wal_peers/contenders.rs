//! The logs, each in its best mode, behind one trait.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use okaywal::{Configuration, EntryId, LogManager, SegmentReader, WriteAheadLog};
use raft::eraftpb;
use raft_benches::{
    payloads,
    physlog::Physlog,
    wal_log::{self, WalLog, Writes},
};
use raft_core::LogIndex;
use raft_engine::{Config, LogBatch, MessageExt, ReadableSize};
use raft_wal::{Options, Wal};

/// All of them have files of this size.
pub(crate) const FILE_BYTES: u64 = 64 << 20;

/// A log that makes one batch durable after the other.
pub(crate) trait Log {
    fn append(&mut self, payloads: &[Bytes]);
    /// Drops everything, so that the space is used again. Not measured.
    fn recycle(&mut self) {}
}

impl Log for Physlog {
    fn append(&mut self, payloads: &[Bytes]) {
        Physlog::append(self, payloads);
    }
}

impl Log for WalLog {
    fn append(&mut self, payloads: &[Bytes]) {
        WalLog::append(self, payloads);
    }

    fn recycle(&mut self) {
        self.drop_all();
    }
}

/// raft-wal behind its writer thread.
pub(crate) struct Threaded {
    pub(crate) wal: Wal,
    pub(crate) writes: Writes,
}

impl Threaded {
    pub(crate) fn open(dir: &Path, options: Options) -> Threaded {
        let (wal, report) = Wal::open(dir, options).expect("a directory of this benchmark");
        Threaded { wal, writes: Writes::behind(report.recovered.last) }
    }

    /// Notes a snapshot up to `index`, durably.
    pub(crate) fn mark(&mut self, index: LogIndex) {
        self.wal.submit(self.writes.mark(index)).wait().expect("the disk works");
    }
}

impl Log for Threaded {
    fn append(&mut self, payloads: &[Bytes]) {
        self.wal.submit(self.writes.append(payloads)).wait().expect("the disk works");
    }

    fn recycle(&mut self) {
        let last = self.writes.last;
        self.mark(last);
        self.wal.compact(last);
    }
}

/// Settings under which raft-wal keeps enough spare files for a round.
pub(crate) fn recycling() -> Options {
    Options { spare_segments: 6, ..wal_log::options() }
}

/// raft-engine, without compression (the payloads do not shrink) and with files of the same size.
pub(crate) struct RaftEngine {
    pub(crate) engine: Arc<raft_engine::Engine>,
    pub(crate) region: u64,
    pub(crate) last: u64,
    batch: LogBatch,
}

/// How raft-engine is told what an entry is.
#[derive(Clone)]
pub(crate) struct Eraftpb;

impl MessageExt for Eraftpb {
    type Entry = eraftpb::Entry;

    fn index(entry: &eraftpb::Entry) -> u64 {
        entry.index
    }
}

fn raft_engine_config(dir: &Path) -> Config {
    Config {
        dir: dir.to_str().expect("a path in UTF-8").to_owned(),
        batch_compression_threshold: ReadableSize(0),
        target_file_size: ReadableSize(FILE_BYTES),
        purge_threshold: ReadableSize(FILE_BYTES),
        recovery_threads: 2,
        ..Config::default()
    }
}

impl RaftEngine {
    pub(crate) fn open(dir: &Path) -> RaftEngine {
        let engine =
            raft_engine::Engine::open(raft_engine_config(dir)).expect("a directory of this benchmark");
        RaftEngine::of(Arc::new(engine), 1)
    }

    /// With files filled with zeroes beforehand, and already in one of those: its best mode for appends.
    pub(crate) fn recycling(dir: &Path) -> RaftEngine {
        let config = Config {
            prefill_for_recycle: true,
            prefill_limit: Some(ReadableSize(4 * FILE_BYTES)),
            purge_threshold: ReadableSize(4 * FILE_BYTES),
            ..raft_engine_config(dir)
        };
        let engine = raft_engine::Engine::open(config).expect("a directory of this benchmark");
        let mut log = RaftEngine::of(Arc::new(engine), 1);
        let payloads = payloads(1 << 10, 1 << 10);
        for _ in 0..=FILE_BYTES >> 20 {
            log.append(&payloads);
        }
        log
    }

    /// With the settings that the crate has by itself.
    pub(crate) fn as_it_comes(dir: &Path) -> RaftEngine {
        let dir = dir.to_str().expect("a path in UTF-8").to_owned();
        let engine = raft_engine::Engine::open(Config { dir, ..Config::default() });
        RaftEngine::of(Arc::new(engine.expect("a directory of this benchmark")), 1)
    }

    /// The log of one region; the engine is shared between threads.
    pub(crate) fn of(engine: Arc<raft_engine::Engine>, region: u64) -> RaftEngine {
        let last = engine.last_index(region).unwrap_or(0);
        RaftEngine { engine, region, last, batch: LogBatch::default() }
    }

    /// Drops everything of all regions.
    pub(crate) fn purge(engine: &raft_engine::Engine) {
        for region in engine.raft_groups() {
            engine.compact_to(region, engine.last_index(region).unwrap_or(0));
        }
        engine.purge_expired_files().expect("the disk works");
    }
}

impl Log for RaftEngine {
    fn append(&mut self, payloads: &[Bytes]) {
        let entries: Vec<eraftpb::Entry> = payloads
            .iter()
            .map(|payload| {
                self.last += 1;
                eraftpb::Entry {
                    term: 1,
                    index: self.last,
                    data: payload.clone(),
                    ..eraftpb::Entry::default()
                }
            })
            .collect();
        self.batch.add_entries::<Eraftpb>(self.region, &entries).expect("the entries continue the log");
        self.engine.write(&mut self.batch, true).expect("the disk works");
    }

    fn recycle(&mut self) {
        RaftEngine::purge(&self.engine);
    }
}

/// okaywal: it drops its entries by itself once a file is nearly full.
#[derive(Clone)]
pub(crate) struct Okaywal(pub(crate) WriteAheadLog);

/// Looks at every entry of a recovery, and lets each file go.
#[derive(Debug)]
pub(crate) struct Keeper;

impl LogManager for Keeper {
    fn recover(&mut self, entry: &mut okaywal::Entry<'_>) -> std::io::Result<()> {
        entry.read_all_chunks().map(drop)
    }

    fn checkpoint_to(
        &mut self,
        _last: EntryId,
        _entries: &mut SegmentReader,
        _wal: &WriteAheadLog,
    ) -> std::io::Result<()> {
        Ok(())
    }
}

impl Okaywal {
    /// With files of `bytes`; buffers that hold a whole batch, so that it is one write.
    pub(crate) fn open(dir: &Path, bytes: u64) -> Okaywal {
        let configuration = Configuration::default_for(dir)
            .preallocate_bytes(u32::try_from(bytes).expect("less than 4 GiB"))
            .checkpoint_after_bytes(bytes - (bytes >> 4))
            .buffer_bytes(256 << 10);
        Okaywal(configuration.open(Keeper).expect("a directory of this benchmark"))
    }

    /// With files of 1 MiB and buffers of 16 KiB.
    pub(crate) fn as_it_comes(dir: &Path) -> Okaywal {
        Okaywal(Configuration::default_for(dir).open(Keeper).expect("a directory of this benchmark"))
    }
}

impl Log for Okaywal {
    fn append(&mut self, payloads: &[Bytes]) {
        let mut writer = self.0.begin_entry().expect("the disk works");
        for payload in payloads {
            writer.write_chunk(payload).expect("the disk works");
        }
        writer.commit().expect("the disk works");
    }
}

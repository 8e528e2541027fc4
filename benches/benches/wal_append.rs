//! One durable append at a time, against `physlog`: the least a durable log can do. A zero-filled file, and for each
//! batch a checksum over the payload, one pwrite and one fdatasync.
//!
//! Both run by turns in one process on one directory, so that the ratio means something on a busy machine too. The
//! directory is that of `TMPDIR`: point it at the disk to be measured.

use std::{
    fs::{File, OpenOptions},
    hint::black_box,
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use raft_core::{
    ClusterId, ConfState, Entry, EntryKind, HardState, LogId, LogIndex, Member, NodeId, Term, Timestamp,
    Write, WriteId,
};
use raft_wal::{Engine, Options, vfs::OsVfs};

const FILE_BYTES: u64 = 64 << 20;

/// The baseline.
struct Physlog {
    file: File,
    offset: u64,
    buffer: Vec<u8>,
}

impl Physlog {
    fn create(dir: &Path) -> Physlog {
        let path = dir.join("physlog");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .expect("the directory takes a file");
        let zeros = vec![0; 1 << 20];
        for megabyte in 0..FILE_BYTES >> 20 {
            file.write_all_at(&zeros, megabyte << 20).expect("there is room");
        }
        file.sync_all().expect("the disk works");
        Physlog { file, offset: 0, buffer: Vec::new() }
    }

    fn append(&mut self, payloads: &[Vec<u8>]) {
        self.buffer.clear();
        for payload in payloads {
            self.buffer.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
            self.buffer.extend_from_slice(&(payload.len() as u64).to_le_bytes());
            self.buffer.extend_from_slice(payload);
        }
        if self.offset + self.buffer.len() as u64 > FILE_BYTES {
            self.offset = 0;
        }
        self.file.write_all_at(&self.buffer, self.offset).expect("the disk works");
        self.file.sync_data().expect("the disk works");
        self.offset += self.buffer.len() as u64;
    }
}

/// The log, on the same disk.
struct Log {
    engine: Engine,
    next_write: u64,
    last: LogIndex,
}

impl Log {
    fn create(dir: &Path) -> Log {
        let member = Member { address: "host:7402".to_owned(), ..Member::default() };
        let conf = ConfState::of_voters([(NodeId(1), member)]);
        let options = Options::new(ClusterId(1), NodeId(1), conf);
        let (engine, _) =
            Engine::open(Arc::new(OsVfs), &dir.join("log"), options).expect("an empty directory");
        Log { engine, next_write: 1, last: LogIndex::ZERO }
    }

    fn append(&mut self, payloads: &[Vec<u8>]) {
        let entries = payloads.iter().map(|payload| {
            self.last = self.last.next();
            Entry {
                id: LogId { term: Term(1), index: self.last },
                time: Timestamp(1),
                session: None,
                kind: EntryKind::Command,
                checksum: Entry::checksum_of(payload),
                payload: payload.clone().into(),
            }
        });
        let write = Write {
            entries: entries.collect(),
            id: WriteId(self.next_write),
            hard_state: HardState { term: Term(1), vote: Some(NodeId(1)), commit: self.last },
            truncate_after: None,
            snapshot: None,
        };
        self.next_write += 1;
        self.engine.append(&write).expect("the write continues the log");
        self.engine.flush().expect("the disk works");
    }
}

/// Both, so that each sees the disk in the other's company.
struct Pair {
    log: Log,
    physlog: Physlog,
    log_total: Duration,
    physlog_total: Duration,
}

impl Pair {
    /// One append of each; which of them goes first changes from turn to turn.
    fn turn(&mut self, number: u64, payloads: &[Vec<u8>]) -> (Duration, Duration) {
        let (mut log, mut physlog) = (Duration::ZERO, Duration::ZERO);
        for which in [number % 2, (number + 1) % 2] {
            let start = Instant::now();
            if which == 0 {
                self.log.append(black_box(payloads));
                log = start.elapsed();
            } else {
                self.physlog.append(black_box(payloads));
                physlog = start.elapsed();
            }
        }
        self.log_total += log;
        self.physlog_total += physlog;
        (log, physlog)
    }
}

fn durable_append(criterion: &mut Criterion) {
    for (name, count, bytes) in
        [("256B", 1, 256), ("4KiB", 1, 4 << 10), ("64KiB", 1, 64 << 10), ("64x1KiB", 64, 1 << 10)]
    {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut pair = Pair {
            log: Log::create(dir.path()),
            physlog: Physlog::create(dir.path()),
            log_total: Duration::ZERO,
            physlog_total: Duration::ZERO,
        };
        let payloads = vec![vec![0xa5; bytes]; count];
        let mut group = criterion.benchmark_group("wal_append");
        group.throughput(Throughput::Bytes((count * bytes) as u64));
        group.sample_size(20).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
        let mut number = 0;
        for ours in [true, false] {
            let id = BenchmarkId::new(if ours { "raft-wal" } else { "physlog" }, name);
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|iterations| {
                    let mut total = Duration::ZERO;
                    for _ in 0..iterations {
                        let (log, physlog) = pair.turn(number, &payloads);
                        total += if ours { log } else { physlog };
                        number += 1;
                    }
                    total
                });
            });
        }
        group.finish();
        let ratio = pair.physlog_total.as_secs_f64() / pair.log_total.as_secs_f64();
        eprintln!("wal_append/{name}: {ratio:.2}x physlog over {number} appends of each");
    }
}

criterion_group!(benches, durable_append);
criterion_main!(benches);

//! One durable append at a time, against `physlog`, the least a durable log can do.
//!
//! Both run by turns in one process on one directory, so that the ratio means something on a busy machine too. The
//! directory is that of `TMPDIR`: point it at the disk to be measured.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use raft_benches::{
    payloads,
    physlog::Physlog,
    wal_log::{self, WalLog},
};

const FILE_BYTES: u64 = 64 << 20;

/// Both, so that each sees the disk in the other's company.
struct Pair {
    log: WalLog,
    physlog: Physlog,
    log_total: Duration,
    physlog_total: Duration,
}

impl Pair {
    /// One append of each; which of them goes first changes from turn to turn.
    fn turn(&mut self, number: u64, payloads: &[Bytes]) -> (Duration, Duration) {
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
            log: WalLog::open(&dir.path().join("log"), wal_log::options()),
            physlog: Physlog::create(&dir.path().join("physlog"), FILE_BYTES),
            log_total: Duration::ZERO,
            physlog_total: Duration::ZERO,
        };
        let payloads = payloads(count, bytes);
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

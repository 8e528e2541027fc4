//! Reading entries of 1 KiB from the page cache: one at a random place, and from front to back, against a plain pread and
//! a plain checksum scan.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use raft_benches::{
    payloads,
    physlog::Physlog,
    wal_log::{self, WalLog},
};
use raft_core::LogIndex;

const BATCH: usize = 64;
const BATCHES: u64 = 512;
const ENTRIES: u64 = BATCH as u64 * BATCHES;
const ENTRY_BYTES: usize = 1 << 10;

fn read(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut log = WalLog::open(&dir.path().join("log"), wal_log::options());
    let mut physlog = Physlog::create(&dir.path().join("physlog"), 64 << 20);
    let batch = payloads(BATCH, ENTRY_BYTES);
    for _ in 0..BATCHES {
        log.append(&batch);
        physlog.append(&batch);
    }
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % ENTRIES
    };
    let mut group = criterion.benchmark_group("wal_read");
    group.bench_function("random/pread", |bencher| {
        bencher.iter(|| physlog.pread(random(), ENTRY_BYTES));
    });
    group.bench_function("random/raft-wal", |bencher| {
        bencher.iter(|| {
            let index = LogIndex(random() + 1);
            log.engine.read(index, index, usize::MAX).expect("it is there")
        });
    });
    group.throughput(Throughput::Elements(ENTRIES)).sample_size(20);
    group.bench_function("sequential/physlog", |bencher| {
        bencher.iter(|| {
            physlog.scan(|payload| {
                black_box(payload);
            })
        });
    });
    group.bench_function("sequential/raft-wal", |bencher| {
        bencher.iter(|| {
            let mut next = LogIndex(1);
            while next.0 <= ENTRIES {
                let entries = log.engine.read(next, LogIndex(ENTRIES), 1 << 20).expect("it is there");
                next = next.plus(black_box(entries).len() as u64);
            }
        });
    });
    group.finish();
}

criterion_group!(benches, read);
criterion_main!(benches);

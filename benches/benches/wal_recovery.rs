//! Opening a log of 128 MiB in entries of 1 KiB from the page cache: as a node does, and with every record verified,
//! against a plain checksum scan.

use criterion::{Criterion, criterion_group, criterion_main};
use raft_benches::{
    payloads,
    physlog::Physlog,
    wal_log::{self, WalLog},
};
use raft_wal::Options;

const BATCH: usize = 64;
const BATCHES: usize = 2048;
const ENTRY_BYTES: usize = 1 << 10;

fn recovery(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("log");
    let mut log = WalLog::open(&path, wal_log::options());
    let mut physlog = Physlog::create(&dir.path().join("physlog"), 256 << 20);
    let batch = payloads(BATCH, ENTRY_BYTES);
    for _ in 0..BATCHES {
        log.append(&batch);
        physlog.append(&batch);
    }
    log.engine.close().expect("the disk works");
    let mut group = criterion.benchmark_group("wal_recovery");
    group.sample_size(10);
    for (name, verify_on_open) in [("open", false), ("open, all verified", true)] {
        let options = Options { verify_on_open, ..wal_log::options() };
        group.bench_function(name, |bencher| {
            bencher.iter(|| WalLog::open(&path, options.clone()));
        });
    }
    group.bench_function("plain scan", |bencher| bencher.iter(|| physlog.scan(drop)));
    group.finish();
}

criterion_group!(benches, recovery);
criterion_main!(benches);

//! What one command costs the store, from the log's payload to the carried reply.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use raft_core::{LogIndex, Timestamp};
use raft_node::{
    kv::{Kv, request, validate},
    state_machine::{Command, StateMachine},
};

const KEYS: u64 = 300_000;
const BATCH: u64 = 1000;

fn command(index: u64, words: &[&[u8]]) -> Command {
    Command {
        index: LogIndex(index),
        time: Timestamp(1_700_000_000_000),
        session: None,
        payload: request::encode_command(words),
    }
}

fn set(index: u64, options: &[&[u8]]) -> Command {
    // Spread over the keys as clients do it, not in order.
    let key = format!("key:{:012}", index.wrapping_mul(0x9E37_79B9_7F4A_7C15) % KEYS);
    command(index, &[&[b"SET", key.as_bytes(), &[b'v'; 256]], options].concat())
}

fn filled() -> Kv {
    let mut kv = Kv::new();
    for key in 0..KEYS {
        kv.apply(&[command(key + 1, &[b"SET", format!("key:{key:012}").as_bytes(), &[b'v'; 256]])]);
    }
    kv
}

fn apply(c: &mut Criterion) {
    let mut kv = filled();
    let mut group = c.benchmark_group("kv");
    group.throughput(Throughput::Elements(BATCH));
    let mut run = |name: &str, make: &dyn Fn(u64) -> Command| {
        group.bench_function(name, |b| {
            b.iter_batched(
                || {
                    let next = kv_index();
                    (next..next + BATCH).map(make).collect::<Vec<_>>()
                },
                |batch| kv.apply(&batch),
                BatchSize::PerIteration,
            );
        });
    };
    run("set 256 B over 300,000 keys", &|index| set(index, &[]));
    run("set with a deadline", &|index| set(index, &[b"PX", b"100000"]));
    run("incr", &|index| command(index, &[b"INCR", format!("n:{}", index % 1000).as_bytes()]));
    group.finish();

    let mut group = c.benchmark_group("kv reads");
    let get = |key: u64| [Bytes::from_static(b"GET"), Bytes::from(format!("key:{key:012}"))];
    let mut at = 0u64;
    group.bench_function("get 256 B", |b| {
        b.iter_batched(
            || {
                at += 1;
                get(at.wrapping_mul(0x9E37_79B9_7F4A_7C15) % KEYS)
            },
            |args| kv.query(&args),
            BatchSize::SmallInput,
        );
    });
    let words =
        ["set", "key:000000000001", "value", "EX", "100"].map(|word| Bytes::from_static(word.as_bytes()));
    group.bench_function("validate set", |b| b.iter(|| validate(&words).is_ok()));
    group.bench_function("take a view", |b| b.iter(|| kv.view()));
    group.sample_size(10);
    group.bench_function("write a snapshot of 300,000 keys", |b| {
        b.iter(|| kv.view().write(&mut std::io::sink()));
    });
    group.finish();
}

/// Indexes that increase from batch to batch, over all of the benchmarks.
fn kv_index() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(KEYS + 1);
    NEXT.fetch_add(BATCH, Ordering::Relaxed)
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(std::time::Duration::from_secs(3));
    targets = apply
}
criterion_main!(benches);

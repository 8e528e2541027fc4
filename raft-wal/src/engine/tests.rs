//! What only shows with a clock.

use std::sync::atomic::{AtomicU64, Ordering};

use raft_core::{ClusterId, ConfState, Entries, HardState, LogId, Member, NodeId};

use super::*;
use crate::vfs::sim::SimVfs;

/// Each reading is 40 microseconds later than the last.
fn micros() -> u64 {
    static NOW: AtomicU64 = AtomicU64::new(0);
    NOW.fetch_add(40, Ordering::Relaxed)
}

#[test]
fn the_figures_tell_how_long_the_syncs_took() {
    let founding = ConfState::of_voters([(NodeId(1), Member::default())]);
    let options = Options::new(ClusterId(7), NodeId(1), founding);
    let (mut engine, _) = Engine::open(Arc::new(SimVfs::new()), Path::new("/data"), options).unwrap();
    engine.clock = Some(micros);
    let before = engine.stats().batches;
    for n in 1..=5 {
        let hard_state = HardState { term: Term(n), ..HardState::default() };
        let write = Write {
            id: WriteId(n),
            hard_state,
            truncate_after: None,
            snapshot: None,
            entries: Entries::EMPTY,
        };
        engine.append(&write).unwrap();
        engine.flush().unwrap();
    }
    let stats = engine.stats();
    assert_eq!(stats.fsync_last_us, 40);
    assert_eq!(stats.batches, before + 5);
    // Right to a quarter.
    let quantiles = [stats.fsync_p50_us, stats.fsync_p99_us];
    assert!(quantiles.iter().all(|quantile| (40..50).contains(quantile)), "{stats:?}");
    assert!(!stats.full);
}

#[test]
fn salts_of_one_seed_differ_and_so_do_their_halves() {
    let mut count = 0;
    let salts: std::collections::BTreeSet<u128> = (0..100).map(|_| salt(7, &mut count)).collect();
    assert_eq!(salts.len(), 100);
    let halves: std::collections::BTreeSet<u128> =
        salts.iter().flat_map(|salt| [salt >> 64, salt & u128::from(u64::MAX)]).collect();
    assert_eq!(halves.len(), 200);
    assert_ne!(salt(7, &mut 0), salt(8, &mut 0));
}

fn opened(options: impl FnOnce(Options) -> Options) -> (SimVfs, Engine) {
    let founding = ConfState::of_voters([(NodeId(1), Member::default())]);
    let options = options(Options::new(ClusterId(7), NodeId(1), founding).with_segment_bytes(64 << 10));
    let vfs = SimVfs::new();
    let (engine, _) = Engine::open(Arc::new(vfs.clone()), Path::new("/data"), options).unwrap();
    (vfs, engine)
}

fn write(id: u64, first: u64, payloads: &[usize]) -> Write {
    let entry = |(n, bytes): (u64, &usize)| {
        let payload = bytes::Bytes::from(vec![1; *bytes]);
        Entry {
            id: LogId::new(1, first + n),
            time: raft_core::Timestamp(1),
            session: None,
            kind: raft_core::EntryKind::Command,
            checksum: Entry::checksum_of(&payload),
            payload,
        }
    };
    Write {
        id: WriteId(id),
        hard_state: HardState { term: Term(1), ..HardState::default() },
        truncate_after: None,
        snapshot: None,
        entries: (0..).zip(payloads).map(entry).collect(),
    }
}

fn mark(id: u64, last: LogId, conf: ConfState) -> Write {
    let meta = SnapshotMeta { last, time: raft_core::Timestamp(1), conf, conf_id: LogId::ZERO };
    let mark = SnapshotMark { meta, received: true, resets_log: true };
    Write { snapshot: Some(Box::new(mark)), ..write(id, 1, &[]) }
}

/// A log at rest keeps no more memory than it needs, whatever came before.
#[test]
fn the_memory_of_a_burst_is_given_back() {
    let (_, mut engine) = opened(|options| options.with_segment_bytes(4 << 20));
    for burst in 0..2 {
        engine.append(&write(1 + burst, 1 + 2000 * burst, &[200; 2000])).unwrap();
        engine.flush().unwrap();
    }
    let buffers = |engine: &Engine| engine.buffer.capacity().max(engine.idle_buffer.capacity());
    let ops = |engine: &Engine| engine.ops.capacity().max(engine.idle_ops.capacity());
    assert!(buffers(&engine) > BUFFER_BYTES_AT_REST && ops(&engine) > OPS_AT_REST);
    engine.shrink();
    assert!(buffers(&engine) <= BUFFER_BYTES_AT_REST && ops(&engine) <= OPS_AT_REST);
}

/// An eighth of a segment: it is repeated at the head of each.
#[test]
fn a_mark_takes_an_eighth_of_a_segment_at_most() {
    let (_, engine) = opened(|options| options);
    let conf = |bytes: usize| {
        let member =
            |id: u64, bytes| (NodeId(id), Member { address: "a".repeat(bytes), ..Member::default() });
        let whole = (1..=bytes / 1000).map(|id| member(id as u64, 1000));
        ConfState::of_voters(whole.chain([member(900, bytes % 1000)]))
    };
    let bytes = |conf: &ConfState| {
        record::mark_bytes(&mark(1, LogId::new(1, 5), conf.clone()).snapshot.unwrap().meta)
    };
    let largest = (0..9000).rev().map(conf).find(|conf| bytes(conf) <= 8192).unwrap();
    assert_eq!(bytes(&largest), 8192);
    engine.check(&mark(1, LogId::new(1, 5), largest)).unwrap();
    let larger = (0..9000).map(conf).find(|conf| bytes(conf) > 8192).unwrap();
    match engine.check(&mark(1, LogId::new(1, 5), larger)) {
        Err(WalError::TooLarge { bytes, limit, .. }) => assert_eq!((bytes, limit), (8200, 8192)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_snapshot_at_the_end_of_all_counting_is_the_last() {
    let conf = || ConfState::of_voters([(NodeId(1), Member::default())]);
    let (_, engine) = opened(|options| options);
    let last = engine.check(&mark(1, LogId::new(1, record::COUNT_MAX), conf())).unwrap().last;
    assert_eq!(last, LogIndex(record::COUNT_MAX));
    let beyond = mark(1, LogId::new(1, record::COUNT_MAX + 1), conf());
    assert!(matches!(engine.check(&beyond), Err(WalError::Discontinuous { .. })));
}

/// What is queued is joined to batches of about the size wanted, not to one of any size.
#[test]
fn a_batch_is_closed_once_it_is_large_enough() {
    let (_, mut engine) = opened(|options| Options { batch_bytes_max: 10_000, ..options });
    let before = engine.stats().batches;
    for n in 0..30 {
        engine.append(&write(1 + n, 1 + n, &[1000])).unwrap();
    }
    engine.flush().unwrap();
    let batches = engine.stats().batches - before;
    assert!((3..=4).contains(&batches), "{batches}");
}

#[test]
fn a_large_batch_ends_with_a_page_as_long_as_what_must_follow_fits() {
    use crate::segment::writer::{EntryCount, PAGE_BYTES};
    const SEGMENT: u64 = 256 << 10;
    let ends = |payload: usize| {
        let (_, mut engine) = opened(|options| options.with_segment_bytes(SEGMENT));
        engine.append(&write(1, 1, &[100])).unwrap();
        engine.flush().unwrap();
        assert!(!engine.current.position.is_multiple_of(PAGE_BYTES as u64), "a small one does not");
        let mut payloads = vec![20_000; payload / 20_000];
        payloads.push(payload % 20_000);
        engine.append(&write(2, 2, &payloads)).unwrap();
        engine.flush().unwrap();
        assert_eq!(engine.current.file.number, 1);
        assert!(engine.current.has_room_for_witness(), "{payload}");
        engine.current.position
    };
    let large = 100_000;
    let aligned = ends(large);
    assert!(aligned.is_multiple_of(PAGE_BYTES as u64));
    // The same end, without anything to fill.
    assert!((0..PAGE_BYTES).step_by(8).any(|more| ends(large + more) == aligned + PAGE_BYTES as u64));
    let (_, engine) = opened(|options| options.with_segment_bytes(SEGMENT));
    let most = engine.current.room(0, EntryCount { slots: 15, runs: 1, confs: 0 }).unwrap() - 1200;
    for less in (0..3 * PAGE_BYTES).step_by(250) {
        let end = ends(most - less);
        assert!(end <= SEGMENT);
    }
}

#[test]
fn spares_beyond_those_wanted_and_one_more_are_a_surplus() {
    let (_, mut engine) = opened(|options| options);
    let wanted = u64::try_from(engine.options.spare_segments).unwrap();
    engine.spares = (1..=wanted + 1).collect();
    assert_eq!(engine.take_surplus_spare(), None);
    engine.spares.push(77);
    assert_eq!(engine.take_surplus_spare(), Some(77));
    assert_eq!(engine.take_surplus_spare(), None);
}

#[test]
fn nothing_goes_from_a_log_without_a_snapshot() {
    let (_, mut engine) = opened(|options| options);
    engine.append(&write(1, 1, &[20_000, 20_000])).unwrap();
    engine.append(&write(2, 3, &[20_000, 20_000])).unwrap();
    engine.flush().unwrap();
    let Err(garbage) = engine.droppable(LogIndex(4)) else { panic!("something would go") };
    assert!(garbage.segments.is_empty());
    assert_eq!(garbage.snapshots_before, None);
}

#[test]
fn syncs_and_bytes_are_counted_and_so_is_what_a_reset_cuts() {
    let (vfs, mut engine) = opened(|options| options);
    let before = engine.stats();
    engine.append(&write(1, 1, &[1000])).unwrap();
    engine.flush().unwrap();
    let after = engine.stats();
    assert_eq!(after.fsyncs, before.fsyncs + 1);
    assert!((before.written_bytes + 1000..before.written_bytes + 2000).contains(&after.written_bytes));
    assert_eq!(engine.state.cuts, 0);
    let founding = ConfState::of_voters([(NodeId(1), Member::default())]);
    let reset = mark(2, LogId::new(1, 9), founding);
    vfs.create(&Path::new("/data").join(crate::layout::snapshot_received(LogId::new(1, 9)))).unwrap();
    engine.append(&reset).unwrap();
    engine.flush().unwrap();
    assert_eq!((engine.state.cuts, engine.state.cut_min), (1, LogIndex(9)));
}

#[test]
fn a_cut_to_where_the_log_ends_lets_no_older_term_follow() {
    let (_, mut engine) = opened(|options| options);
    let of_term = |term, first| {
        let mut write = write(first, first, &[10]);
        write.hard_state.term = Term(2);
        let as_of = |entry: &Entry| Entry { id: LogId::new(term, first), ..entry.clone() };
        write.entries = write.entries.iter().map(as_of).collect();
        write
    };
    engine.append(&of_term(2, 1)).unwrap();
    let next = |term| Write { truncate_after: Some(LogIndex(1)), ..of_term(term, 2) };
    engine.check(&next(2)).unwrap();
    assert!(matches!(engine.check(&next(1)), Err(WalError::Discontinuous { .. })));
}

#[test]
fn a_drop_overtakes_a_write_only_where_a_full_disk_keeps_that_waiting() {
    let (vfs, mut engine) = opened(|options| options);
    for index in 1..=5 {
        engine.append(&write(index, index, &[20_000])).unwrap();
        engine.flush().unwrap();
    }
    let founding = ConfState::of_voters([(NodeId(1), Member::default())]);
    let mut marked = mark(6, LogId::new(1, 4), founding);
    let snapshot = marked.snapshot.as_mut().unwrap();
    (snapshot.received, snapshot.resets_log) = (false, false);
    engine.append(&marked).unwrap();
    engine.flush().unwrap();
    engine.append(&write(7, 6, &[25_000, 25_000])).unwrap();
    assert!(engine.open.is_none() && engine.pending.len() == 1);
    engine.drop_prefix(LogIndex(4));
    let next = engine.job(false).unwrap().run(&vfs, Path::new("/data")).unwrap();
    (engine.full, engine.next) = (true, Some(next));
    engine.encode_pending();
    assert!(engine.open.is_none(), "it has its segment");
    (engine.full, engine.next) = (false, None);
    engine.encode_pending();
    assert!(engine.open.is_none(), "it is about to have one");
    engine.full = true;
    engine.encode_pending();
    assert!(engine.open.take().unwrap().drops.is_some());
}
